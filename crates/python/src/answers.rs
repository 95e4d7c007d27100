//! An answer as it comes.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use mistralrs::{AnswerStream, Piece};
use pyo3::prelude::*;
use serde_json::Value;
use tokio::sync::Mutex;
use wire::chunks::{Chunks, Pieces, merged};

use crate::failure::Failure;
use crate::pending::{Pending, runtime};

/// Chunks of an answer. Forgetting it ends the generation.
#[pyclass(frozen, module = "mistralrs._native")]
pub struct Answers(Arc<Mutex<Option<Running>>>);

struct Running {
    pieces: Pieces,
    chunks: Box<dyn Chunks>,
    ready: VecDeque<Value>,
}

impl Answers {
    pub fn new(answers: Vec<AnswerStream>, mut chunks: impl Chunks) -> Self {
        let ready = chunks.opening(&answers).into();
        Self(Arc::new(Mutex::new(Some(Running { pieces: merged(answers), chunks: Box::new(chunks), ready }))))
    }
}

#[pymethods]
impl Answers {
    /// The next chunk as JSON, or None behind the last.
    fn next(&self) -> PyResult<Pending> {
        let shared = self.0.clone();
        Pending::start(async move {
            let mut running = shared.lock().await;
            let next = match &mut *running {
                Some(running) => running.next().await,
                None => return Ok(None),
            };
            // What has failed goes on no more.
            if !matches!(next, Some(Ok(_))) {
                *running = None;
            }
            next.transpose().map(|chunk| chunk.map(|chunk| chunk.to_string()))
        })
    }

    /// Ends the generation.
    fn close(&self) -> PyResult<()> {
        let shared = self.0.clone();
        runtime()?.spawn(async move { *shared.lock().await = None });
        Ok(())
    }
}

impl Running {
    async fn next(&mut self) -> Option<Result<Value, Failure>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Ok(chunk));
            }
            match self.pieces.next().await? {
                (choice, Ok(Piece::Delta(delta))) => self.ready.push_back(self.chunks.delta(choice, &delta)),
                // Every chunk has a choice: what runs here is told at the end of a whole answer.
                (_, Ok(Piece::Tool(_))) => {}
                (choice, Ok(Piece::Done(summary))) => self.ready.extend(together(self.chunks.done(choice, &summary))),
                (_, Err(e)) => return Some(Err(e.into())),
            }
        }
    }
}

/// What follows the end of the last choice says what it took, and has no choice. Here it is said along with that end, so that
/// every chunk has one.
fn together(chunks: Vec<Value>) -> Option<Value> {
    let mut chunks = chunks.into_iter();
    let mut first = chunks.next()?;
    for chunk in chunks {
        for (name, value) in chunk.as_object().into_iter().flatten().filter(|(name, _)| *name != "choices") {
            first[name] = value.clone();
        }
    }
    Some(first)
}
