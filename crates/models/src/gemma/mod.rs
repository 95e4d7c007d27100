//! What the families of the Gemma line share, and its first members, which take text alone.
//!
//! Gemma (Gemma Team 2024, "Gemma: Open Models Based on Gemini Research and Technology") is a decoder of the Llama kind whose norms
//! hold what differs from one and whose embeddings are scaled by the root of their width. Gemma 2 (Gemma Team 2024, "Gemma 2:
//! Improving Open Language Models at a Practical Size") has norms behind each part too, every second layer looks back no further
//! than its window, and scores and logits are capped. Reference: transformers, models/gemma and models/gemma2.

mod layers;
mod sound;
mod text;

pub use layers::{LayerType, RopeParameters, check_cap, check_window, ropes, share_keys_and_values};
pub use sound::emphasis;
pub use text::{Line, decoder};

use nn::{Files, Model, Weights};

use crate::{Family, ModelError, text_only};

pub const GEMMA: Family = Family {
    name: "gemma",
    title: "Gemma",
    architectures: &["GemmaForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: load,
};

pub const GEMMA2: Family =
    Family { name: "gemma2", title: "Gemma 2", architectures: &["Gemma2ForCausalLM"], model: load_2, ..GEMMA };

fn load(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder(Line::Gemma, files)?, w)
}

fn load_2(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder(Line::Gemma2, files)?, w)
}
