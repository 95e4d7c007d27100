//! What the engine's thread is sent.

use std::sync::Arc;

use nn::{DType, Encoded, MediaInput, NnError};
use tokio::sync::oneshot;

use crate::EngineError;
use crate::queue::Place;
use crate::sequence::Sequence;

/// A piece of work.
pub enum Errand {
    /// To write an answer.
    Answer(Box<Sequence>),
    /// To encode a media item and no more.
    Encode(Wish),
}

/// A media item that is wanted encoded. Nobody wants it any more when the receiver is gone.
pub struct Wish {
    pub input: Arc<MediaInput>,
    pub answer: oneshot::Sender<Result<Rows, EngineError>>,
    /// In the queue.
    pub _place: Place,
}

/// What a model makes of a media item, in the places of token embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Numbers of a row.
    pub width: usize,
    /// Row by row.
    pub values: Vec<f32>,
}

impl Wish {
    /// Hands over what became of it.
    pub fn fulfil(self, encoded: Result<Encoded, String>) {
        let rows = encoded.and_then(|encoded| Rows::of(&encoded).map_err(|e| e.to_string()));
        // Who has gone needs no answer.
        let _ = self.answer.send(rows.map_err(|reason| EngineError::Encode { item: 0, reason }));
    }
}

impl Rows {
    fn of(encoded: &Encoded) -> Result<Self, NnError> {
        let rows = encoded.narrow(0, encoded.rows())?;
        let width = rows.dims().get(1).copied().unwrap_or(0);
        Ok(Self { width, values: rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1()? })
    }
}
