use nn::Files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, read};

/// config.json, without the language model's keys.
#[derive(Debug, Deserialize)]
pub struct Config<V> {
    pub image_token_id: u32,
    pub video_token_id: u32,
    pub vision_config: V,
}

/// Ids in whose places media go, where config.json is silent.
#[derive(Debug, Clone, Copy)]
pub struct MediaTokens {
    pub image: u32,
    pub video: u32,
}

/// Those up to Qwen3-VL.
pub const TOKENS: MediaTokens = MediaTokens { image: 151_655, video: 151_656 };

impl<V: DeserializeOwned> Config<V> {
    /// Reads it over the defaults of the class; `vision` are the tower's.
    pub fn read(files: &Files, tokens: MediaTokens, vision: Value) -> Result<Self, ModelError> {
        read(files, CONFIG, json!({"image_token_id": tokens.image, "video_token_id": tokens.video, "vision_config": vision}))
    }
}
