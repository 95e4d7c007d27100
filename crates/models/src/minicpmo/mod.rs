//! MiniCPM-o 2.6 (Yao et al. 2024, "MiniCPM-V: A GPT-4V Level MLLM on Your Phone", arXiv:2408.01800, and its successor that hears).
//!
//! A picture is looked at as a whole, and, if it is large, in slices that are about as large as what the tower was trained with.
//! SigLIP's tower sees each in its own shape; learned queries attend to what it saw, and to where. Whisper's encoder hears half a
//! minute at a time, and no frame hears what is behind the end of its own chunk; neighbouring states become one row. The decoder
//! is Qwen2's. What speaks (`tts`) is left out. Reference: the code that the checkpoint openbmb/MiniCPM-o-2_6 brings along.

mod config;
mod model;
mod processor;
mod resampler;
mod slices;

use nn::MediaKind::{Audio, Image};

use crate::{Boxes, Family};

pub const FAMILY: Family = Family {
    name: "minicpmo",
    title: "MiniCPM-o 2.6",
    architectures: &["MiniCPMO"],
    modalities: &[Image, Audio],
    slices: None,
    boxes: Some(Boxes::Thousandths),
    processor: processor::load,
    model: model::load,
};
