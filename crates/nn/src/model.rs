use std::sync::Arc;

use crate::{Batch, Cache, CacheSpec, KeyValues, MediaInput, NnError, Tensor, host};

/// Called by an encoder between its operations, which may take long: others are served meanwhile. An error says to stop.
pub type Pause<'a> = dyn FnMut() -> Result<(), NnError> + 'a;

/// What a model makes of a media item. Clones share it.
#[derive(Debug, Clone)]
pub enum Encoded {
    /// Rows that take the places of token embeddings, [rows, width]. The width is the model's affair.
    Rows(Tensor),
    /// Keys and values of the rows, for each layer that looks at them.
    KeyValues(Arc<[KeyValues]>),
}

impl Encoded {
    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.dims().first().copied().unwrap_or(0),
            Self::KeyValues(layers) => layers.first().map_or(0, KeyValues::rows),
        }
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Rows(rows) => rows.elem_count() * rows.dtype().size_in_bytes(),
            Self::KeyValues(layers) => layers.iter().map(KeyValues::bytes).sum(),
        }
    }

    /// Some of the rows.
    ///
    /// # Errors
    /// They are not there, or do not take the places of tokens.
    pub fn narrow(&self, first: usize, count: usize) -> Result<Tensor, NnError> {
        match self {
            Self::Rows(rows) => Ok(rows.narrow(0, first, count)?),
            Self::KeyValues(_) => Err(NnError::Input("rows that take the places of tokens")),
        }
    }
}

/// A loaded model, as the engine sees it.
pub trait Model: Send {
    /// What a sequence leaves in the cache, layer by layer.
    fn cache_spec(&self) -> &CacheSpec;

    /// Number of logits per row.
    fn vocab_size(&self) -> usize;

    /// Number of tokens that it can read: those with logits, and such as are never written.
    fn table_size(&self) -> usize {
        self.vocab_size()
    }

    /// Encodes one media item: `input.rows` rows.
    ///
    /// # Errors
    /// The input's arrays are not those of this model's processor, the device failed, or the pause said to stop.
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Encoded, NnError>;

    /// Computes the batch, appends to the cache, and returns f32 logits of the wanted rows: [wanted, vocab].
    ///
    /// # Errors
    /// The device failed. The cache rows of this step are then undefined, all others are as before.
    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError>;
}

/// The place of the largest logit, of equals the first; none where there is no logit, or one is NaN.
pub fn argmax(logits: &[f32]) -> Option<usize> {
    kernels::reduce::argmax(host::cpu(), logits)
}
