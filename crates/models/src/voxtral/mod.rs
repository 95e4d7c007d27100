//! Voxtral (Liu et al. 2025, "Voxtral", arXiv:2507.13264).
//!
//! A sound is filled up with silence to whole windows of half a minute. Whisper's encoder listens to each by itself; four of its states
//! side by side become one row, so that a second takes 12.5 tokens. The decoder is a Llama. Checkpoints come with a tokenizer of
//! Mistral's and no chat template: the one here writes what their library does. Reference: transformers, models/voxtral.

mod config;
mod model;
mod processor;

use nn::MediaKind::Audio;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "voxtral",
    title: "Voxtral",
    architectures: &["VoxtralForConditionalGeneration"],
    modalities: &[Audio],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};
