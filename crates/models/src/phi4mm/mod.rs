//! Phi-4 Multimodal (Abouelenin et al. 2025, "Phi-4-Mini Technical Report", arXiv:2503.01743).
//!
//! A picture is cut into tiles; SigLIP's tower looks at each, and at the whole reduced to one, margins left aside. Of the states behind
//! the last block but one, every 2 x 2 patches are averaged to one row; a learned separator ends each line. A sound's spectrogram passes
//! three convolutions and conformer blocks, a row for 80 ms. The decoder is Phi-4 mini's, with two sets of low-rank adapters: that for
//! pictures where a prompt has one, that for speech where it has sounds alone, none where it is text. Rows of sounds are projected by
//! other matrices where there are pictures beside them. Checkpoints come in the layout of the code that is published with them
//! (`Phi4MMForCausalLM`) and in that of transformers. Reference: transformers, models/phi4_multimodal.

mod config;
mod ears;
mod eyes;
mod model;
mod processor;
mod sounds;

use nn::MediaKind::{Audio, Image};

use crate::Family;

pub const FAMILY: Family = Family {
    name: "phi4mm",
    title: "Phi-4 Multimodal",
    architectures: &["Phi4MMForCausalLM", "Phi4MultimodalForCausalLM"],
    modalities: &[Image, Audio],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};

/// Numbers of the adapters.
const VISION: usize = 0;
const SPEECH: usize = 1;
