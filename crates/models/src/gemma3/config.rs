use nn::Files;
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::pixels::{PixelDefaults, Size};
use crate::siglip::SiglipConfig;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    pub mm_tokens_per_image: usize,
    pub vision_config: SiglipConfig,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub size: Size,
    pub do_pan_and_scan: bool,
    pub pan_and_scan_min_crop_size: usize,
    pub pan_and_scan_max_num_crops: usize,
    pub pan_and_scan_min_ratio_to_activate: f64,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
            "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let config: Self = read(files, CONFIG, json!({"mm_tokens_per_image": 256, "vision_config": vision}))?;
        config.vision_config.check(files)?;
        let (side, tokens) = (config.vision_config.side(), config.tokens_per_side());
        let square = tokens > 0 && tokens * tokens == config.mm_tokens_per_image && side % tokens == 0;
        require(square, files, CONFIG, "mm_tokens_per_image must be a square that divides the grid of patches")?;
        Ok(config)
    }

    pub fn image_token(&self) -> u32 {
        self.image_token_index.or(self.image_token_id).unwrap_or(262_144)
    }

    /// Rows of an encoded picture along a side.
    pub fn tokens_per_side(&self) -> usize {
        self.mm_tokens_per_image.isqrt()
    }
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 2 };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "size": {"height": 224, "width": 224}, "do_pan_and_scan": false,
            "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let crops = config.pan_and_scan_min_crop_size > 0 && config.pan_and_scan_max_num_crops > 0;
        require(crops, files, PREPROCESSOR, "pan_and_scan_min_crop_size and _max_num_crops must be positive")?;
        Ok(config)
    }
}
