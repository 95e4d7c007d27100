//! Qwen2.5-VL (Bai et al. 2025, "Qwen2.5-VL Technical Report").
//!
//! Qwen2-VL with a tower that has norms without means, gated feed-forward parts, and windows: squares are put in their order, and
//! only a few blocks see the whole picture. Positions of a clip's steps in time count its seconds. Reference: transformers,
//! models/qwen2_5_vl.

mod config;
mod model;
mod processor;

use nn::MediaKind::{Image, Video};

use crate::{Boxes, Family};

pub const FAMILY: Family = Family {
    name: "qwen2_5_vl",
    title: "Qwen2.5-VL",
    architectures: &["Qwen2_5_VLForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    boxes: Some(Boxes::Pixels),
    processor: processor::load,
    model: model::load,
};
