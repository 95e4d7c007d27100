//! Phi-3 Vision and Phi-3.5 Vision (Abdin et al. 2024, arXiv:2404.14219).
//!
//! A picture is enlarged to a whole number of tiles in width, and filled up with white in height. CLIP looks at each tile, and at the
//! whole reduced to one. Of the states behind the last block but one, every 2 x 2 patches become one row; a learned separator ends
//! each line, and another stands between the picture and its reduction. Two matrices bring the rows to the decoder's width, which
//! is a Phi-3. Each stretch of text behind a picture begins a sequence of its own, as far as the tokenizer is concerned. Reference:
//! the code that is published with the checkpoints (modeling_phi3_v.py, image_embedding_phi3_v.py, processing_phi3_v.py).

mod config;
mod model;
mod processor;

use nn::MediaKind::Image;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "phi3v",
    title: "Phi-3 Vision, Phi-3.5 Vision",
    architectures: &["Phi3VForCausalLM"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::load,
    model: model::load,
};
