//! Qwen3-VL (Bai et al. 2025, "Qwen3-VL Technical Report").
//!
//! Patches of 16 learn their place from a table too. Beside its last states, the tower hands over those of a few blocks before,
//! each through a merger of its own; they are added behind the decoder's first layers (DeepStack). The decoder is Qwen3's, with
//! queries and keys normed; time, height and width turn their pairs by turns. Every step in time of a clip has its moment in
//! words before it. Reference: transformers, models/qwen3_vl.
//!
//! Qwen3 (Yang et al. 2025, "Qwen3 Technical Report") is that decoder alone. Reference: transformers, models/qwen3.
//!
//! Both come with experts too, of which a router chooses some for each token. Reference: transformers, models/qwen3_vl_moe and
//! models/qwen3_moe.

mod config;
mod model;
mod processor;

pub use config::read;
pub use model::with_tower;
pub use processor::VIDEOS;

use nn::MediaKind::{Image, Video};

use crate::{Boxes, Family, text_only};

pub const FAMILY: Family = Family {
    name: "qwen3_vl",
    title: "Qwen3-VL",
    architectures: &["Qwen3VLForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    boxes: Some(Boxes::Thousandths),
    processor: processor::load,
    model: model::load,
};

pub const QWEN3: Family = Family {
    name: "qwen3",
    title: "Qwen3",
    architectures: &["Qwen3ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model: model::load_text,
};

pub const MOE: Family = Family {
    name: "qwen3_vl_moe",
    title: "Qwen3-VL-MoE",
    architectures: &["Qwen3VLMoeForConditionalGeneration"],
    model: model::load_moe,
    ..FAMILY
};

pub const QWEN3_MOE: Family = Family {
    name: "qwen3_moe",
    title: "Qwen3-MoE",
    architectures: &["Qwen3MoeForCausalLM"],
    model: model::load_text_moe,
    ..QWEN3
};
