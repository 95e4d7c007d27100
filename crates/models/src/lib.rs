//! The model families, one folder each: this crate alone may say their names.
//!
//! Knows: what each family is made of (its configuration, its processor, how its placeholders expand) and how to build it from
//! the blocks of `nn`. [`FAMILIES`] lists the cards; lookup, tables and tests are derived from it.
//!
//! Must never know: requests, batching, HTTP, how long a cache lives. A [`Processor`] is a pure function of pixels and samples.
//!
//! A family's folder has always the same rooms: `mod.rs` (the card), `config.rs` (Hugging Face names → blocks), `processor.rs`
//! (media → arrays and placeholders) and `model.rs` (the forward pass). What several share lies beside them: `joined` for a
//! tower and a decoder as one model, `llama` and `phi3` for decoders that many have, `gemma` and `qwen` for those whole lines, `clip`, `siglip`,
//! `whisper` and `conformer` for towers, `projection` for how their linear layers are stored, `features` for the choice of a tower's
//! states, `tiles` and `canvas` for large pictures, `matformer` for tables of slices, `special_tokens` for ids that config.json leaves out, `text_only` for
//! members without a tower.

mod canvas;
mod clip;
mod config;
mod conformer;
mod error;
mod family;
mod features;
mod gemma;
mod gemma3;
mod gemma3n;
mod gemma4;
mod idefics2;
mod idefics3;
mod joined;
mod llama;
mod llama4;
mod llava;
mod matformer;
mod minicpmo;
mod mistral3;
mod mllama;
mod phi3;
mod phi3v;
mod phi4mm;
mod pixels;
mod processor;
mod projection;
mod prompt;
mod qwen;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_5;
mod qwen3_vl;
mod shown;
mod siglip;
mod special_tokens;
mod text_only;
mod tiles;
mod voxtral;
mod whisper;

pub use error::ModelError;
pub use family::{Boxes, FAMILIES, Family, LoadModel, LoadProcessor, Loaded, Measured, load, measure};
pub use matformer::SliceTable;
pub use processor::{Marker, Media, Processed, Processor, media_in_words};
pub use prompt::assemble;
