//! The blocks every model family is built from, the weights they are filled with, and the caches they keep.
//!
//! Knows: number formats, tensor layouts, names of tensors in a checkpoint, devices. What a family needs is said in
//! configurations ([`DecoderConfig`], [`VitConfig`]); what the engine needs is said in [`Prompt`], [`Batch`], [`CacheSpec`]
//! and the trait [`Model`].
//!
//! Must never know: the name of a family, requests, time, text. Checkpoint quirks (renamed, stacked or shifted tensors) are
//! settled in [`Weights`] while loading, so that `forward` never asks.

mod across;
mod activation;
mod adapter;
mod attention;
mod batch;
mod cache;
mod checkpoint;
mod conv;
mod conv2d;
mod decoder;
mod error;
mod export;
mod files;
mod host;
mod importance;
mod linear;
mod model;
mod moe;
mod norm;
mod prompt;
mod quant;
mod rope;
mod streams;
mod topology;
mod vit;
mod weights;

pub use across::{KeyValues, Sight, attention_across};
pub use activation::Activation;
pub use adapter::{Adapted, AdapterSet};
pub use attention::{Ahead, Back, Biased, Nearby, Qkv, Scores, Seen, Segments, attention_within};
pub use batch::{Batch, MediaLook, MediaRows, Span};
pub use cache::{Cache, CacheGroup, CacheSpec, LayerCache, Retention};
pub use candle_core::{D, DType, Device, Tensor};
pub use checkpoint::Checkpoint;
pub use conv::{Conv1d, Conv1dConfig};
pub use conv2d::{Conv2d, DepthwiseConv2d, FeatureMap, Padding, Window};
pub use decoder::{
    AttentionConfig, CrossAttentionConfig, Decoder, DecoderConfig, FeedForward, Ffn, GatedConfig, GatedDeltaConfig, Gates, Head,
    KvSource, LayerConfig, LayerGates, LayerScale, Mixer, Norms, OutputGate, PerLayerConfig, PerLayerInput, PerLayerTable, Step,
    Temperature, TokenMixer, Vocabulary,
};
pub use error::NnError;
pub use export::export;
pub use files::Files;
pub use host::{add_to, clamp, in_parts, kv_format, scale, scale_columns};
pub use importance::{Calibration, Coverage, Importance, Observer};
pub use kernels::rope::Pairing;
pub use kernels::{Isa, KvFormat};
pub use linear::{Embedding, Format, Linear, Packed};
pub use model::{Encoded, Model, Pause, argmax};
pub use moe::{ExpertLinear, MoeConfig, RouterConfig, RouterGate, Routes, Scoring, SharedExpert, Shares, Weighed};
pub use norm::{Norm, NormConfig};
pub use prompt::{Array, Look, MediaInput, MediaKind, Mode, Placement, Positions, Prompt, Reach, Then};
pub use quant::{Organization, Quant};
pub use rope::{HeadRange, Rope, RopeConfig, RopeScaling, RopeTable};
pub use streams::{add_to_streams, mix_streams};
pub use topology::{Selection, Topology, TopologyRule};
pub use vit::{
    FUSED_GATED_NAMES, FUSED_LINEAR_NAMES, FUSED_NAMES, Mlp, Runs, SIGLIP_NAMES, Vit, VitConfig, VitNames, WHISPER_NAMES,
    average_pool, average_pool_by, join_squares, patchify, pixel_shuffle,
};
pub use weights::{Bias, Footprint, LoadSettings, OnProgress, OnQuantised, Outputs, Quantised, Reading, Role, Slice, Weights};
