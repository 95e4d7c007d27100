//! Media without an answer: what a model makes of them.

use engine::Rows;
use nn::MediaKind;

use crate::agent::Past;
use crate::chat::{ChatRequest, Part};
use crate::load::Model;
use crate::prepare::{prepare, refused};
use crate::{Error, Fault};

/// What a model makes of a media item: rows that stand in the places of token embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// What it was taken for.
    pub kind: MediaKind,
    /// Numbers of a row.
    pub width: usize,
    /// Row by row, as many as tokens stand for it.
    pub values: Vec<f32>,
}

impl Model {
    /// Encodes media as for an answer, in their order.
    ///
    /// # Errors
    /// Whatever is wrong with an item, or the model looks at media in another way than by rows.
    pub async fn embed(&self, media: Vec<Part>) -> Result<Vec<Embedding>, Error> {
        let prepared = prepare(&self.inner, &ChatRequest::user(media), &Past::default()).await?;
        let items = prepared.prompt.media.iter().map(|item| self.inner.engine.encode(item.input.clone()).map_err(refused));
        let waiting = items.collect::<Result<Vec<_>, Error>>()?;
        let mut found = Vec::with_capacity(waiting.len());
        for (i, (rows, item)) in waiting.into_iter().zip(prepared.received.iter()).enumerate() {
            let rows = rows.await.map_err(|_| Error::Generation("the engine stopped".into()))?;
            let failed = |e| Error::request(format!("media[{i}]"), Fault::Media(item.kind), e);
            let Rows { width, values } = rows.map_err(failed)?;
            found.push(Embedding { kind: item.kind, width, values });
        }
        Ok(found)
    }
}
