//! Qwen3.5 (Qwen Team 2026).
//!
//! Pictures and clips are those of Qwen3-VL, whose tower hands over its last states alone. In the decoder three layers of four are
//! gated delta nets, which remember a sequence as one matrix per head; the others have attention with a gate on its result, and a
//! quarter of each head is turned. Reference: transformers, models/qwen3_5.
//!
//! There are members with experts, of which one takes every token, and members without a tower. Reference: transformers,
//! models/qwen3_5_moe.

mod config;
mod model;
mod processor;

use nn::MediaKind::{Image, Video};

use crate::{Boxes, Family, text_only};

pub const FAMILY: Family = Family {
    name: "qwen3_5",
    title: "Qwen3.5",
    architectures: &["Qwen3_5ForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    boxes: Some(Boxes::Thousandths),
    processor: processor::load,
    model: model::load,
};

pub const MOE: Family = Family {
    name: "qwen3_5_moe",
    title: "Qwen3.5-MoE",
    architectures: &["Qwen3_5MoeForConditionalGeneration"],
    model: model::load_moe,
    ..FAMILY
};

pub const TEXT: Family = Family {
    name: "qwen3_5_text",
    title: "Qwen3.5, text alone",
    architectures: &["Qwen3_5ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: model::load_text,
};

pub const TEXT_MOE: Family = Family {
    name: "qwen3_5_moe_text",
    title: "Qwen3.5-MoE, text alone",
    architectures: &["Qwen3_5MoeForCausalLM"],
    model: model::load_text_moe,
    ..TEXT
};
