//! Llama 4 (Meta 2025: Scout and Maverick).
//!
//! A picture is laid on a canvas of up to sixteen tiles and comes tile by tile, with marks between them, and then as a whole. A tower
//! with a rotary embedding of two axes makes patches of a tile; four neighbours become a row. In the decoder, all layers or every
//! second one have experts that are given their share of the input, beside one that all tokens go to. Three layers of four turn and
//! then norm queries and keys, and look back no further than their chunk of the text; the fourth knows no positions, sees all, and
//! its queries grow with the distance from the beginning (Nakanishi 2025, "Scalable-Softmax Is Superior for Attention").
//! Reference: transformers, models/llama4.

mod config;
mod model;
mod processor;
mod text;

use nn::MediaKind::Image;

use crate::{Family, text_only};

pub const FAMILY: Family = Family {
    name: "llama4",
    title: "Llama 4",
    architectures: &["Llama4ForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};

pub const TEXT: Family = Family {
    name: "llama4_text",
    title: "Llama 4, text alone",
    architectures: &["Llama4ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: model::load_text,
};
