//! Gemma 3n (Gemma Team 2025): a language model that computes less than it holds, and towers for pictures and sound.
//!
//! Hidden states are four streams (AltUp; Baykal et al. 2023, arXiv:2301.13310): a layer predicts all of them, computes one, and
//! corrects the others by what it found. Beside attention goes a residual of low rank (LAuReL; Menghani et al. 2024,
//! arXiv:2411.07501). Every layer has an embedding of each token of its own; the last layers look at the keys and values of
//! earlier ones; the first ones let few gates through. Feed-forward parts are nested, so that a slice of the model is a model too
//! (MatFormer; Devvrit et al. 2023, arXiv:2310.07707).
//!
//! Pictures pass a MobileNet-V5 (universal inverted residuals and multi-query attention; Qin et al. 2024, arXiv:2404.10518), which
//! makes 256 rows of each; the frames of a clip are pictures. Sound passes a conformer (Universal Speech Model; Zhang et al. 2023,
//! arXiv:2303.01037). Reference: transformers, models/gemma3n, and timm, models/mobilenetv5.

mod altup;
mod config;
mod ears;
mod mobilenet;
mod model;
mod processor;
mod sound;
mod text;

use nn::MediaKind::{Audio, Image, Video};

use crate::{Boxes, Family};

pub const FAMILY: Family = Family {
    name: "gemma3n",
    title: "Gemma 3n",
    architectures: &["Gemma3nForConditionalGeneration"],
    modalities: &[Image, Audio, Video],
    slices: Some(include_str!("../../../../matformer_configs/gemma3n.csv")),
    boxes: Some(Boxes::ThousandthsByLine),
    processor: processor::load,
    model: model::load,
};
