use nn::{Files, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{CONFIG, PREPROCESSOR, merge, read, require};
use crate::pixels::PixelDefaults;
use crate::siglip::SiglipConfig;
use crate::{ModelError, clip};

/// Pixels along a side of a tile, as the published code has them.
pub const TILE: usize = 336;
/// Of CLIP.
const PATCH: usize = 14;
/// Rows along a side of a tile: every 2 x 2 patches become one.
pub const SIDE: usize = TILE / PATCH / 2;

/// config.json, without the language model's keys.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub embd_layer: EmbeddingConfig,
    img_processor: Value,
}

/// What becomes of the tower's states.
#[derive(Debug, Deserialize)]
pub struct EmbeddingConfig {
    pub hd_transform_order: Order,
    use_hd_transform: bool,
    with_learnable_separator: bool,
    projection_cls: String,
}

/// What stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The tiles.
    SubGlb,
    /// The whole picture.
    GlbSub,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let embedding = json!({
            "hd_transform_order": "glb_sub", "use_hd_transform": true, "with_learnable_separator": true, "projection_cls": "mlp",
        });
        let config: Self = read(files, CONFIG, json!({"embd_layer": embedding, "img_processor": {}}))?;
        let EmbeddingConfig { use_hd_transform: tiles, with_learnable_separator: separated, projection_cls, .. } =
            &config.embd_layer;
        let known = *tiles && *separated && projection_cls == "mlp";
        let wanted = "embd_layer must have use_hd_transform, with_learnable_separator and the projection_cls \"mlp\"";
        require(known, files, CONFIG, wanted)?;
        let layer = &config.img_processor["layer_idx"];
        require(layer.is_null() || layer == -2, files, CONFIG, "img_processor.layer_idx must be -2")?;
        Ok(config)
    }

    /// The tower, which lies below `w`: config.json does not have all its sizes.
    pub fn clip(&self, files: &Files, w: &Weights) -> Result<SiglipConfig, ModelError> {
        let given = json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "image_size": TILE, "patch_size": PATCH,
        });
        SiglipConfig::measured(merge(clip::defaults(), given), files, w)
    }
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub num_crops: usize,
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { resample: 2, ..clip::PIXELS };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let config: Self = read(files, PREPROCESSOR, json!({"num_crops": 1}))?;
        require((1..=256).contains(&config.num_crops), files, PREPROCESSOR, "num_crops must be between 1 and 256")?;
        Ok(config)
    }
}
