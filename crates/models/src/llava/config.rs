use nn::{Activation, DecoderConfig, Files};
use serde::Deserialize;
use serde_json::json;

use super::anyres::Pinpoints;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::features::{FeatureLayers, Features};
use crate::pixels::Size;
use crate::siglip::SiglipConfig;
use crate::{ModelError, clip, llama};

/// config.json, without the language model's keys.
#[derive(Debug, Deserialize)]
pub struct Config {
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    pub projector_hidden_act: Activation,
    pub multimodal_projector_bias: bool,
    vision_feature_layer: FeatureLayers,
    pub vision_feature_select_strategy: Select,
    pub vision_config: SiglipConfig,
    image_grid_pinpoints: Vec<[usize; 2]>,
}

/// Which rows of the tower are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Those of the patches.
    Default,
    /// The one about the whole picture, too.
    Full,
}

/// What the class of the tower is called.
#[derive(Debug, Deserialize)]
struct Tower {
    vision_config: TowerClass,
}

#[derive(Debug, Deserialize)]
struct TowerClass {
    model_type: String,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let tower: Tower = read(files, CONFIG, json!({"vision_config": {"model_type": CLIP}}))?;
        let known = tower.vision_config.model_type == CLIP;
        require(known, files, CONFIG, &format!("vision_config.model_type must be {CLIP}, other towers are not supported"))?;
        let defaults = json!({
            "projector_hidden_act": "gelu", "multimodal_projector_bias": true, "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default", "vision_config": clip::defaults(), "image_grid_pinpoints": PINPOINTS,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        Ok(config)
    }

    pub fn image_token(&self) -> u32 {
        self.image_token_index.or(self.image_token_id).unwrap_or(32_000)
    }

    pub fn features(&self, files: &Files) -> Result<Features, ModelError> {
        self.vision_feature_layer.of(self.vision_config.num_hidden_layers, files)
    }

    /// Rows that a view becomes.
    pub fn rows_per_view(&self) -> usize {
        self.vision_config.side().pow(2) + usize::from(self.vision_feature_select_strategy == Select::Full)
    }

    pub fn pinpoints(&self, files: &Files) -> Result<Pinpoints, ModelError> {
        let plain = self.vision_feature_select_strategy == Select::Default;
        require(plain, files, CONFIG, "vision_feature_select_strategy must be \"default\"")?;
        let vision = &self.vision_config;
        Pinpoints::new(self.image_grid_pinpoints.clone(), vision.image_size, vision.side(), files)
    }
}

/// Vicuna's or Mistral's.
pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
    llama::decoder_config(files, json!({"model_type": "llama"}))
}

const CLIP: &str = "clip_vision_model";
const PINPOINTS: [[usize; 2]; 5] = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub size: Size,
    pub crop_size: Size,
    pub image_processor_type: String,
    pub do_pad: bool,
    image_grid_pinpoints: Vec<[usize; 2]>,
}

impl ProcessorConfig {
    /// Reads it, and compares it with what the tower takes.
    pub fn read(files: &Files, model: &Config) -> Result<Self, ModelError> {
        let defaults = json!({
            "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "image_processor_type": "",
            "do_pad": false, "image_grid_pinpoints": PINPOINTS,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let side = model.vision_config.image_size;
        let fits = config.crop_size.height == Some(side) && config.crop_size.width == Some(side);
        require(fits, files, PREPROCESSOR, &format!("crop_size must be {side}x{side}, the image_size of {CONFIG}"))?;
        let large = config.size.shortest_edge.is_some_and(|edge| edge >= side);
        require(large, files, PREPROCESSOR, "size.shortest_edge must be at least crop_size")?;
        Ok(config)
    }

    /// What LLaVA-NeXT asks for besides.
    pub fn check_tiles(&self, files: &Files, model: &Config) -> Result<(), ModelError> {
        let same = self.image_grid_pinpoints == model.image_grid_pinpoints;
        require(same, files, PREPROCESSOR, &format!("image_grid_pinpoints must be those of {CONFIG}"))?;
        let fits = self.size.shortest_edge == Some(model.vision_config.image_size);
        require(fits, files, PREPROCESSOR, "size.shortest_edge must be crop_size")
    }
}
