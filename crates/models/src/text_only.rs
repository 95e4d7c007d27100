//! Families, or members of them, that take nothing but text: a decoder, and a processor that never has anything to do.

use nn::{Decoder, DecoderConfig, Files, MediaInput, Model, NnError, Pause, Tensor, Weights};

use crate::joined::{Encode, Joined};
use crate::{Marker, Media, ModelError, Processed, Processor};

struct NoTower;

/// A decoder whose tensors stand at `model`, and `lm_head` beside it.
pub fn model(decoder: &DecoderConfig, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Joined { tower: NoTower, decoder: Decoder::load(decoder, &w.at("model"), w)? }))
}

impl Encode for NoTower {
    fn encode(&self, _: &MediaInput, _: &mut Pause) -> Result<Tensor, NnError> {
        Err(NnError::Input("of a model that takes text alone"))
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
        Err(media.refused())
    }
}
