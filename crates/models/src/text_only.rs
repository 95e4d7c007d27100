//! Families, or members of them, that take nothing but text: a decoder, and a processor that never has anything to do.

use nn::{Decoder, DecoderConfig, Files, MediaInput, Model, NnError, Pause, Prompt, Tensor, Weights};

use crate::joined::{Encode, Joined};
use crate::phi3::Near;
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

/// Has nothing to do but to tell long prompts from others.
pub struct TextProcessor {
    pub near: Near,
}

/// No configuration file is needed.
pub fn processor(_: &Files) -> Result<Box<dyn Processor>, ModelError> {
    Ok(Box::new(TextProcessor { near: Near::ALL }))
}

impl Processor for TextProcessor {
    fn markers(&self) -> &'static [Marker] {
        &[]
    }

    fn process(&self, media: Media) -> Result<Processed, ModelError> {
        Err(media.refused())
    }

    fn arrange(&self, prompt: &mut Prompt) {
        prompt.mode.reach = self.near.reach(prompt);
    }
}
