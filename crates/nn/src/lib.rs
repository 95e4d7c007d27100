//! The blocks every model family is built from, the weights they are filled with, and the caches they keep.
//!
//! Knows: number formats, tensor layouts, names of tensors in a checkpoint, devices. What a family needs is said in
//! configurations ([`DecoderConfig`], [`VitConfig`]); what the engine needs is said in [`Prompt`], [`Batch`], [`CacheSpec`]
//! and the trait [`Model`].
//!
//! Must never know: the name of a family, requests, time, text. Checkpoint quirks (renamed, stacked or shifted tensors) are
//! settled in [`Weights`] while loading, so that `forward` never asks.

mod batch;
mod cache;
mod error;
mod model;
mod prompt;

pub use batch::{Batch, MediaRows, Span};
pub use cache::{Cache, CacheSpec, LayerCache};
pub use candle_core::{DType, Device, Tensor};
pub use error::NnError;
pub use model::Model;
pub use prompt::{Array, MediaInput, MediaKind, Placement, Positions, Prompt};
