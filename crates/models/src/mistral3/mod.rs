//! Mistral Small 3.1 and 3.2 (Mistral AI 2025).
//!
//! A picture keeps its shape: it is reduced to at most 1540 pixels and brought to multiples of 28. Pixtral's tower (Agrawal et al.
//! 2024, "Pixtral 12B") turns queries and keys by row and column; every 2 x 2 patches become one row, two matrices bring it to the
//! decoder's width. In the prompt a token ends each line of a picture. The decoder is Mistral's. Reference: transformers,
//! models/mistral3 and models/pixtral.

mod config;
mod model;
mod processor;
mod tower;

use nn::MediaKind::Image;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "mistral3",
    title: "Mistral Small 3.1, 3.2",
    architectures: &["Mistral3ForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};
