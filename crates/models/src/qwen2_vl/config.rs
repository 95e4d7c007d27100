use nn::{Activation, Bias, FUSED_NAMES, Files, Mlp, NormConfig, VitConfig};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::qwen::{Axes, Config, Feed, Line, MLP_MERGER, Places, TOKENS, Text, TowerConfig};

/// The language model.
pub const TEXT: Text =
    Text { line: Line::Qwen2, feed: Feed::Gated, axes: Axes::Sections([16, 24, 24]), rms_norm_eps: 1e-5, rope_theta: 1e6 };

/// The same without a tower.
pub const WORDS: Text = Text { axes: Axes::Time, rms_norm_eps: 1e-6, rope_theta: 1e4, ..TEXT };

/// The tower.
#[derive(Debug, Deserialize)]
pub struct VisionConfig {
    depth: usize,
    embed_dim: usize,
    num_heads: usize,
    mlp_ratio: f64,
    hidden_act: Activation,
    in_channels: Option<usize>,
    in_chans: Option<usize>,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
}

/// config.json, and the tower that it describes.
pub fn read(files: &Files) -> Result<(Config<VisionConfig>, TowerConfig), ModelError> {
    let vision = json!({
        "depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4.0, "hidden_act": "quick_gelu",
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    });
    let config = Config::<VisionConfig>::read(files, TOKENS, vision)?;
    let tower = config.vision_config.tower();
    tower.check(files)?;
    Ok((config, tower))
}

impl VisionConfig {
    fn tower(&self) -> TowerConfig {
        let inner = (self.embed_dim as f64 * self.mlp_ratio) as usize;
        TowerConfig {
            vit: VitConfig {
                width: self.embed_dim,
                heads: self.num_heads,
                mlp: Mlp::Plain { inner, activation: self.hidden_act },
                layers: self.depth,
                windowed: Vec::new(),
                tapped: Vec::new(),
                norm: NormConfig::Layer { eps: 1e-6 },
                bias: Bias::Present,
                names: &FUSED_NAMES,
            },
            patch: [self.in_channels.or(self.in_chans).unwrap_or(3), self.temporal_patch_size, self.patch_size, self.patch_size],
            places: Places::Turned,
            merge: self.spatial_merge_size,
            window: None,
            merger: &MLP_MERGER,
        }
    }
}
