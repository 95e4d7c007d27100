//! Qwen2-VL (Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution").
//!
//! A picture keeps its shape: it is resized to multiples of 28 pixels, cut into patches of 14, and every 2 x 2 patches become
//! one token. Clips are sampled at 2 frames per second and two frames make one step in time. The tower turns queries and keys
//! by row and column; the decoder (Qwen2 with biases on q, k and v) turns them by time, height and width, in sections
//! (M-RoPE). Reference: transformers, models/qwen2_vl.
//!
//! Qwen2 and Qwen2.5 (Qwen Team 2024) are that decoder alone. Reference: transformers, models/qwen2.

mod config;
mod model;
mod processor;

pub use config::{TEXT, WORDS};
pub use processor::{IMAGES, VIDEOS};

use nn::MediaKind::{Image, Video};

use crate::{Boxes, Family, text_only};

pub const FAMILY: Family = Family {
    name: "qwen2_vl",
    title: "Qwen2-VL",
    architectures: &["Qwen2VLForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    boxes: Some(Boxes::Thousandths),
    processor: processor::load,
    model: model::load,
};

pub const QWEN2: Family = Family {
    name: "qwen2",
    title: "Qwen2, Qwen2.5",
    architectures: &["Qwen2ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: model::load_text,
};
