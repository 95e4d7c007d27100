use crate::{Batch, Cache, CacheSpec, MediaInput, NnError, Tensor, host};

/// Called by an encoder between its operations, which may take long: others are served meanwhile. An error says to stop.
pub type Pause<'a> = dyn FnMut() -> Result<(), NnError> + 'a;

/// A loaded model, as the engine sees it.
pub trait Model: Send {
    /// What a sequence leaves in the cache, layer by layer.
    fn cache_spec(&self) -> &CacheSpec;

    /// Number of logits per row.
    fn vocab_size(&self) -> usize;

    /// Encodes one media item: [input.rows, width]. The width is the model's affair.
    ///
    /// # Errors
    /// The input's arrays are not those of this model's processor, the device failed, or the pause said to stop.
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError>;

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
