use nn::{Activation, Files};
use serde::Deserialize;
use serde_json::json;

use super::tower::PixtralConfig;
use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::features::{FeatureLayers, Features};
use crate::pixels::{PixelDefaults, Size};

/// config.json, without the language model's keys.
#[derive(Debug, Deserialize)]
pub struct Config {
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    pub projector_hidden_act: Activation,
    pub multimodal_projector_bias: bool,
    pub spatial_merge_size: usize,
    vision_feature_layer: FeatureLayers,
    pub vision_config: PixtralConfig,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "projector_hidden_act": "gelu", "multimodal_projector_bias": false, "spatial_merge_size": 2, "vision_feature_layer": -1,
            "vision_config": PixtralConfig::defaults(),
        });
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        require(config.spatial_merge_size > 0, files, CONFIG, "spatial_merge_size must be positive")?;
        Ok(config)
    }

    pub fn image_token(&self) -> u32 {
        self.image_token_index.or(self.image_token_id).unwrap_or(10)
    }

    pub fn features(&self, files: &Files) -> Result<Features, ModelError> {
        let features = self.vision_feature_layer.of(self.vision_config.num_hidden_layers, files)?;
        require(features.parts() == 1, files, CONFIG, "vision_feature_layer must be one block")?;
        Ok(features)
    }

    /// Pixels along a side of what becomes one row.
    pub fn square(&self) -> usize {
        self.vision_config.patch_size * self.spatial_merge_size
    }
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    size: Size,
}

/// processor_config.json: how the ends of lines and pictures are spelled.
#[derive(Debug, Deserialize)]
pub struct Ends {
    pub image_break_token: String,
    pub image_end_token: String,
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults {
    mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
    std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
    resample: 3,
};

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let config: Self = read(files, PREPROCESSOR, json!({"size": {"longest_edge": 1024}}))?;
        let (height, width) = config.largest();
        require(height > 0 && width > 0, files, PREPROCESSOR, "size needs a positive longest_edge, or height and width")?;
        Ok(config)
    }

    /// Height and width that a picture may have.
    pub fn largest(&self) -> (usize, usize) {
        let side = |own: Option<usize>| self.size.longest_edge.or(own).unwrap_or(0);
        (side(self.size.height), side(self.size.width))
    }
}

impl Ends {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        const FILE: &str = "processor_config.json";
        let defaults = json!({"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"});
        match files.json::<serde_json::Value>(FILE)? {
            Some(_) => read(files, FILE, defaults),
            None => serde_json::from_value(defaults).map_err(|e| ModelError::Unusable(e.to_string())),
        }
    }
}
