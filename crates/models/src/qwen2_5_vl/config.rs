use nn::{Activation, Bias, FUSED_GATED_NAMES, Files, Mlp, NormConfig, VitConfig};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, require};
use crate::qwen::{Config, MLP_MERGER, Places, TOKENS, TowerConfig};

/// The tower.
#[derive(Debug, Deserialize)]
pub struct VisionConfig {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    hidden_act: Activation,
    in_channels: Option<usize>,
    in_chans: Option<usize>,
    patch_size: usize,
    spatial_merge_size: usize,
    temporal_patch_size: usize,
    window_size: usize,
    fullatt_block_indexes: Vec<usize>,
    pub tokens_per_second: f32,
}

/// config.json, and the tower that it describes.
pub fn read(files: &Files) -> Result<(Config<VisionConfig>, TowerConfig), ModelError> {
    let vision = json!({
        "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16, "hidden_act": "silu",
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 4,
    });
    let config = Config::<VisionConfig>::read(files, TOKENS, vision)?;
    let tokens = config.vision_config.tokens_per_second;
    require(tokens.is_finite() && tokens >= 0.0, files, CONFIG, "vision_config.tokens_per_second must not be negative")?;
    let tower = config.vision_config.tower();
    tower.check(files)?;
    Ok((config, tower))
}

impl VisionConfig {
    fn tower(&self) -> TowerConfig {
        let square = (self.patch_size * self.spatial_merge_size).max(1);
        TowerConfig {
            vit: VitConfig {
                width: self.hidden_size,
                heads: self.num_heads,
                mlp: Mlp::Gated { inner: self.intermediate_size, activation: self.hidden_act },
                layers: self.depth,
                windowed: (0..self.depth).filter(|block| !self.fullatt_block_indexes.contains(block)).collect(),
                tapped: Vec::new(),
                norm: NormConfig::Rms { eps: 1e-6 },
                bias: Bias::Present,
                names: &FUSED_GATED_NAMES,
            },
            patch: [self.in_channels.or(self.in_chans).unwrap_or(3), self.temporal_patch_size, self.patch_size, self.patch_size],
            places: Places::Turned,
            merge: self.spatial_merge_size,
            window: Some(self.window_size / square),
            merger: &MLP_MERGER,
        }
    }
}
