//! LLaVA 1.5 (Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning") and LLaVA-NeXT (Liu et al. 2024, "LLaVA-NeXT:
//! Improved reasoning, OCR, and world knowledge").
//!
//! CLIP looks at a square; its states behind the last block but one, without the row for the whole picture, pass two matrices
//! and take the places of token embeddings. LLaVA 1.5 looks at the middle of a picture. LLaVA-NeXT looks at the whole of it, and
//! then at tiles of an enlarged copy, of whose patches those in the margins are dropped; the others come row by row, and each
//! row ends with a learned line end. The decoder is Llama's (Vicuna) or Mistral's. Reference: transformers, models/llava and
//! models/llava_next.

mod anyres;
mod config;
mod model;
mod processor;

use nn::MediaKind::Image;

use crate::Family;

pub const FAMILY: Family = Family {
    name: "llava",
    title: "LLaVA 1.5",
    architectures: &["LlavaForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::llava,
    model: model::llava,
};

pub const NEXT: Family = Family {
    name: "llava_next",
    title: "LLaVA-NeXT",
    architectures: &["LlavaNextForConditionalGeneration"],
    modalities: &[Image],
    slices: None,
    boxes: None,
    processor: processor::llava_next,
    model: model::llava_next,
};
