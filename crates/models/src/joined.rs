use nn::{Batch, Cache, CacheSpec, Decoder, MediaInput, Model, NnError, Pause, Tensor};

/// What a family makes rows of media with.
pub trait Encode: Send {
    /// As [`Model::encode`].
    ///
    /// # Errors
    /// The input's arrays are not those of the family's processor, the device failed, or the pause said to stop.
    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError>;
}

/// A decoder that takes rows of a tower in the places of token embeddings: the model of nearly every family.
pub struct Joined<T> {
    pub tower: T,
    pub decoder: Decoder,
}

impl<T: Encode> Model for Joined<T> {
    fn cache_spec(&self) -> &CacheSpec {
        self.decoder.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.vocab_size()
    }

    fn encode(&self, input: &MediaInput, pause: &mut Pause) -> Result<Tensor, NnError> {
        self.tower.encode(input, pause)
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        self.decoder.forward(self.decoder.embed(&batch.tokens, &batch.media)?, batch, cache)
    }
}
