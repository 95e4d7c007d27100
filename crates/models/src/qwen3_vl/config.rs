use nn::{Activation, Bias, DecoderConfig, FUSED_LINEAR_NAMES, Files, Mlp, NormConfig, VitConfig};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, require};
use crate::qwen::{Axes, Config, Experts, Feed, LINEAR_MERGER, Line, MediaTokens, Normalising, Places, Text, TowerConfig};

/// The language model.
pub const TEXT: Text =
    Text { line: Line::Qwen3, feed: Feed::Gated, axes: Axes::Interleaved([24, 20, 20]), rms_norm_eps: 1e-6, rope_theta: 5e5 };

/// The same with experts.
pub const TEXT_MOE: Text = Text {
    feed: Feed::Experts(Experts { experts: 60, chosen: 4, inner: 1408, normalising: Normalising::Always, shared: None }),
    ..TEXT
};

/// The same without a tower.
pub const WORDS: Text = Text { axes: Axes::Time, rope_theta: 1e4, ..TEXT };

/// The same without a tower and with experts.
pub const WORDS_MOE: Text = Text {
    feed: Feed::Experts(Experts { experts: 128, chosen: 8, inner: 768, normalising: Normalising::Configured, shared: None }),
    ..WORDS
};

/// Blocks of the tower that hand over.
pub const TAPPED: &[usize] = &[8, 16, 24];

/// The tower.
#[derive(Debug, Deserialize)]
pub struct VisionConfig {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    hidden_act: Activation,
    in_channels: usize,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
    num_position_embeddings: usize,
    deepstack_visual_indexes: Vec<usize>,
}

/// config.json, and the tower that it describes; the class says which blocks hand over.
pub fn read(files: &Files, tokens: MediaTokens, tapped: &[usize]) -> Result<(Config<VisionConfig>, TowerConfig), ModelError> {
    let vision = json!({
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "hidden_act": "gelu_pytorch_tanh",
        "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": tapped,
    });
    let config = Config::<VisionConfig>::read(files, tokens, vision)?;
    let v = &config.vision_config;
    let square = v.num_position_embeddings > 0 && v.num_position_embeddings.isqrt().pow(2) == v.num_position_embeddings;
    require(square, files, CONFIG, "vision_config.num_position_embeddings must be a square number")?;
    let taps = &v.deepstack_visual_indexes;
    let in_order = taps.is_sorted_by(|a, b| a < b) && taps.iter().all(|block| *block < v.depth);
    require(in_order, files, CONFIG, "vision_config.deepstack_visual_indexes must be blocks of the tower, ascending")?;
    let tower = v.tower();
    tower.check(files)?;
    Ok((config, tower))
}

/// The language model, which takes what the tower's blocks hand over.
pub fn decoder(files: &Files, text: Text, tower: &TowerConfig) -> Result<DecoderConfig, ModelError> {
    let decoder = DecoderConfig { deepstack: tower.vit.tapped.len(), ..text.decoder(files)? };
    let enough = decoder.deepstack <= decoder.layers.len();
    require(enough, files, CONFIG, "vision_config.deepstack_visual_indexes are more than there are layers to add to")?;
    Ok(decoder)
}

impl VisionConfig {
    fn tower(&self) -> TowerConfig {
        TowerConfig {
            vit: VitConfig {
                width: self.hidden_size,
                heads: self.num_heads,
                mlp: Mlp::Plain { inner: self.intermediate_size, activation: self.hidden_act },
                layers: self.depth,
                windowed: Vec::new(),
                tapped: self.deepstack_visual_indexes.clone(),
                norm: NormConfig::Layer { eps: 1e-6 },
                bias: Bias::Present,
                names: &FUSED_LINEAR_NAMES,
            },
            patch: [self.in_channels, self.temporal_patch_size, self.patch_size, self.patch_size],
            places: Places::Learned { side: self.num_position_embeddings.isqrt() },
            merge: self.spatial_merge_size,
            window: None,
            merger: &LINEAR_MERGER,
        }
    }
}
