//! Idefics 2 (Laurençon et al. 2024, "What matters when building vision-language models?", arXiv:2405.02246).
//!
//! A picture keeps its shape: SigLIP's tower looks at it with places that are stretched over it (NaViT; Dehghani et al. 2023,
//! arXiv:2307.06304). Its four quarters may be looked at as well, before the whole. A gated part projects what was seen, and a
//! perceiver resampler (Alayrac et al. 2022, arXiv:2204.14198) makes a fixed number of rows of each view: its latents attend to the
//! patches and to themselves. The decoder is Mistral's. Reference: transformers, models/idefics2.

mod config;
mod model;
mod perceiver;
mod processor;

use nn::MediaKind::Image;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "idefics2",
    title: "Idefics 2",
    architectures: &["Idefics2ForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};
