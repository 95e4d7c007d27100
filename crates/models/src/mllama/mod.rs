//! Llama 3.2 Vision (Llama Team 2024, "The Llama 3 Herd of Models", section 7).
//!
//! A picture is laid on a canvas of up to four tiles. A tower goes over all of them at once, then a second, gated one, and some
//! states of the first are shown beside the result. The rows take no places of tokens: some layers of the decoder look at them by
//! cross attention, and are passed over where there is nothing to see. A token looks at the picture before it, or at several where
//! nothing stands between them. Reference: transformers, models/mllama, which see for two peculiarities: tiles that a picture does not
//! need are left empty, but patches look at them all the same; and tokens in front of all pictures look at everything.

mod config;
mod model;
mod processor;
mod tower;

use nn::MediaKind::Image;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "mllama",
    title: "Llama 3.2 Vision",
    architectures: &["MllamaForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};
