//! Idefics 3 (Laurençon et al. 2024, "Building and better understanding vision-language models") and SmolVLM (Marafioti et al.
//! 2025), its small sibling that also takes clips.
//!
//! A picture is enlarged to whole tiles; the tiles come row by row with their row and column in words, and a small copy of the
//! whole follows. Each tile passes a SigLIP tower; pixel shuffle joins squares of patches, and one matrix projects them. The
//! decoder is Llama's. Clips are a list of frames with their time in words. Reference: transformers, models/idefics3 and
//! models/smolvlm.

mod config;
mod frames;
mod model;
mod processor;

use nn::MediaKind::{Image, Video};

use crate::Family;

pub const FAMILY: Family = Family {
    name: "idefics3",
    title: "Idefics 3",
    architectures: &["Idefics3ForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::idefics3,
    model: model::load,
};

pub const SMOLVLM: Family = Family {
    name: "smolvlm",
    title: "SmolVLM",
    architectures: &["SmolVLMForConditionalGeneration"],
    modalities: &[Image, Video],
    slices: None,
    boxes: None,
    processor: processor::smolvlm,
    model: model::load,
};
