//! Families, or members of them, that take nothing but text: a decoder, and a processor that never has anything to do.

use nn::{Batch, Cache, CacheSpec, Decoder, DecoderConfig, Files, MediaInput, Model, NnError, Pause, Tensor, Weights};

use crate::{Marker, Media, ModelError, Processed, Processor};

struct TextModel(Decoder);

/// A decoder whose tensors stand at `model`, and `lm_head` beside it.
pub fn model(decoder: &DecoderConfig, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(TextModel(Decoder::load(decoder, &w.at("model"), w)?)))
}

impl Model for TextModel {
    fn cache_spec(&self) -> &CacheSpec {
        self.0.cache_spec()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn encode(&self, _: &MediaInput, _: &mut Pause) -> Result<Tensor, NnError> {
        Err(NnError::Input("of a model that takes text alone"))
    }

    fn forward(&self, batch: &Batch, cache: &mut Cache) -> Result<Tensor, NnError> {
        self.0.forward(self.0.embed(&batch.tokens, &batch.media)?, batch, cache)
    }
}

struct TextProcessor;

/// No configuration file is needed.
pub fn processor(_: &Files) -> Result<Box<dyn Processor>, ModelError> {
    Ok(Box::new(TextProcessor))
}

impl Processor for TextProcessor {
    fn markers(&self) -> &'static [Marker] {
        &[]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        Err(ModelError::Unusable(format!("this model does not take {} input; it takes text", media.kind())))
    }
}
