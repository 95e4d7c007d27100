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

impl<V: DeserializeOwned> Config<V> {
    /// Reads it over the defaults of the class, of which the tower's are given.
    pub fn read(files: &Files, vision: Value) -> Result<Self, ModelError> {
        read(files, CONFIG, json!({"image_token_id": 151655, "video_token_id": 151656, "vision_config": vision}))
    }
}
