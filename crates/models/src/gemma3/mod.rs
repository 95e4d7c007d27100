//! Gemma 3 (Gemma Team 2025, "Gemma 3 Technical Report").
//!
//! A picture is resized to a square whatever its shape; a SigLIP tower and average pooling make 256 rows of it, which see each
//! other in both directions inside the decoder. With pan and scan a long picture comes with square crops of itself. The
//! decoder has norms before and after each part, normed queries and keys, and five sliding-window layers for each global one,
//! with a rotary base of their own. The smallest member takes text alone. Reference: transformers, models/gemma3.

mod config;
mod model;
mod processor;

use nn::MediaKind::Image;

use crate::{Family, text_only};

pub const FAMILY: Family = Family {
    name: "gemma3",
    title: "Gemma 3",
    architectures: &["Gemma3ForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};

pub const TEXT: Family = Family {
    name: "gemma3_text",
    title: "Gemma 3, text alone",
    architectures: &["Gemma3ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: model::load_text,
};
