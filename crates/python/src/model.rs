//! A loaded model.

use futures_util::future::try_join_all;
use mistralrs::{Answer, AnswerStream, Content, ControlTokens};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Value, json};
use wire::Refusal;
use wire::chat::{self, ChatChunks};
use wire::completions;
use wire::response::counted;

use crate::answers::Answers;
use crate::failure::Failure;
use crate::pending::{Pending, runtime};
use crate::tools::{Callbacks, equip};

/// A model that answers.
#[pyclass(frozen, module = "mistralrs._native")]
pub struct Model(Option<mistralrs::Model>);

/// What answering comes to: JSON, or chunks of it.
#[derive(IntoPyObject)]
enum Said {
    Whole(String),
    Streamed(Answers),
}

impl Model {
    pub fn new(model: mistralrs::Model) -> Self {
        Self(Some(model))
    }

    fn get(&self) -> Result<mistralrs::Model, Failure> {
        self.0.clone().ok_or_else(|| Failure::Internal("the model is gone".into()))
    }
}

#[pymethods]
impl Model {
    /// What it is, as JSON.
    fn about(&self) -> PyResult<String> {
        let model = self.get()?;
        let family = model.family();
        let modalities: Vec<&str> = std::iter::once("text").chain(family.modalities.iter().map(|m| m.name())).collect();
        let about = json!({
            "id": model.id(),
            "family": family.name,
            "title": family.title,
            "modalities": modalities,
            "max_sequence_length": model.context_max(),
            "kv_cache_tokens": model.kv_cache().tokens,
            "kv_cache_bytes": model.kv_cache().bytes,
            "chat_template": model.template_source(),
            "warnings": model.warnings(),
        });
        Ok(about.to_string())
    }

    /// Answers a chat: JSON, or Answers where its body says `stream`. Functions that have a callback run here.
    fn chat(&self, body: String, callbacks: Callbacks) -> PyResult<Pending> {
        let model = self.get()?;
        Pending::start(async move {
            let chat::Asked { shape, mut request, rounds, .. } = chat::read(&parsed(&body)?)?;
            request.tool_rounds_max = rounds;
            equip(&mut request, callbacks)?;
            let answers = model.choices(&request, shape.choices).await?;
            let chunks = ChatChunks::new(model.id(), shape);
            if shape.stream {
                return Ok(Said::Streamed(Answers::new(answers, chunks)));
            }
            Ok(Said::Whole(chunks.whole(&whole(answers).await?).to_string()))
        })
    }

    /// Continues prompts: JSON, or Answers where the body says `stream`.
    fn complete(&self, body: String) -> PyResult<Pending> {
        let model = self.get()?;
        Pending::start(async move {
            let asked = completions::read(&parsed(&body)?)?;
            let stream = asked.stream;
            let (answers, chunks) = asked.start(&model).await?;
            if stream {
                return Ok(Said::Streamed(Answers::new(answers, chunks)));
            }
            Ok(Said::Whole(chunks.whole(&whole(answers).await?).to_string()))
        })
    }

    /// What a chat would take, as JSON.
    fn count(&self, body: String) -> PyResult<Pending> {
        let model = self.get()?;
        Pending::start(async move {
            let chat::Asked { request, .. } = chat::read(&parsed(&body)?)?;
            Ok(counted(&model.preview(&request).await?, model.context_max()).to_string())
        })
    }

    /// Encodes the media of a chat's messages: (width, rows) of each, rows as the bytes of 32-bit floats.
    fn embed(&self, body: String) -> PyResult<Pending> {
        let model = self.get()?;
        Pending::start(async move {
            let chat::Asked { request, .. } = chat::read(&parsed(&body)?)?;
            let parts = request.messages.into_iter().flat_map(|message| match message.content {
                Content::Parts(parts) => parts,
                Content::Text(_) => Vec::new(),
            });
            let found = model.embed(parts.collect()).await?;
            Ok(found.into_iter().map(|item| (item.width, Floats(item.values))).collect::<Vec<_>>())
        })
    }

    /// Ids of a text's tokens.
    fn tokenize(&self, text: String, add_special_tokens: bool) -> PyResult<Pending> {
        let model = self.get()?;
        let control = if add_special_tokens { ControlTokens::Included } else { ControlTokens::LeftOut };
        Pending::start(async move { Ok(model.tokenize(text, control).await?) })
    }

    /// The text of ids of tokens.
    fn detokenize(&self, py: Python<'_>, tokens: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        let model = self.get()?;
        let control = if skip_special_tokens { ControlTokens::LeftOut } else { ControlTokens::Included };
        Ok(py.detach(|| model.detokenize(&tokens, control)).map_err(Failure::from)?)
    }
}

/// Numbers as their bytes.
struct Floats(Vec<f32>);

impl<'py> IntoPyObject<'py> for Floats {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        PyBytes::new_with(py, self.0.len() * size_of::<f32>(), |bytes| {
            let (slots, _) = bytes.as_chunks_mut();
            slots.iter_mut().zip(self.0).for_each(|(slot, value)| *slot = value.to_ne_bytes());
            Ok(())
        })
    }
}

impl Drop for Model {
    /// The last one to go waits for the engine's step, which Python need not do.
    fn drop(&mut self) {
        let model = self.0.take();
        match runtime() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(model))),
            // A copy of the process lacks the thread that would be waited for.
            Err(_) => std::mem::forget(model),
        }
    }
}

async fn whole(answers: Vec<AnswerStream>) -> Result<Vec<Answer>, Failure> {
    Ok(try_join_all(answers.into_iter().map(AnswerStream::whole)).await?)
}

fn parsed(body: &str) -> Result<Value, Failure> {
    serde_json::from_str(body)
        .map_err(|e| Refusal { param: None, ..Refusal::invalid("", format!("the request is not JSON: {e}")) }.into())
}
