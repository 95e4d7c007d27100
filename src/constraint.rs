//! A grammar → a constraint for the engine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::{Constraint, Mask};
use text::{Grammar, Grammars, Guide, TextError};

use crate::calls::Form;
use crate::load::Inner;
use crate::{Error, Fault};

/// Time that a grammar may take to be made ready. Its work is bounded too: where this ends the wait, it ends soon by itself.
const COMPILE_MAX: Duration = Duration::from_secs(10);

/// A grammar, as the engine follows it.
#[derive(Clone)]
struct Guided(Guide);

impl fmt::Debug for Guided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guided")
    }
}

impl Constraint for Guided {
    fn mask(&mut self) -> Result<Mask, String> {
        self.0.mask().map(Mask).map_err(|e| e.to_string())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        self.0.accept(token).map_err(|e| e.to_string())
    }

    fn skip(&mut self) -> Vec<u32> {
        self.0.skip()
    }

    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

impl Form {
    fn compile(&self, grammars: &Grammars) -> Result<Guide, TextError> {
        match self {
            Self::Plain(grammar) => grammars.compile(grammar),
            Self::Answer(answer) => grammars.compile_answer(answer),
        }
    }
}

/// Makes a grammar ready on a worker thread.
pub(crate) async fn constraint(inner: &Arc<Inner>, form: Form) -> Result<Box<dyn Constraint>, Error> {
    let param = match &form {
        Form::Answer(answer) if !answer.tools.is_empty() => "tools",
        Form::Plain(Grammar::JsonObject | Grammar::JsonSchema(_)) => "response_format",
        Form::Answer(answer) if matches!(answer.form, Some(Grammar::JsonObject | Grammar::JsonSchema(_))) => "response_format",
        _ => "grammar",
    };
    let permit = inner.workers.acquire().await.map_err(|e| Error::Generation(e.to_string()))?;
    let shared = inner.clone();
    let work = tokio::task::spawn_blocking(move || shared.grammars().and_then(|grammars| form.compile(grammars)));
    let too_long = |_| Error::request(param, Fault::Invalid, format!("not ready after {} s", COMPILE_MAX.as_secs()));
    let compiled = tokio::time::timeout(COMPILE_MAX, work).await.map_err(too_long)?;
    drop(permit);
    let failed = |e| Error::request(param, Fault::Invalid, format!("the grammar cannot be followed: {e}"));
    let guide = compiled.map_err(failed)?;
    Ok(Box::new(Guided(guide.map_err(|e| Error::request(param, Fault::Invalid, e))?)))
}
