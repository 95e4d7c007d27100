use nn::{Files, NormConfig};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, read, require};

/// config.json, without the language model.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub vision_soft_tokens_per_image: usize,
    pub vision_config: VisionConfig,
    pub audio_config: AudioConfig,
}

/// `vision_config`.
#[derive(Debug, Deserialize)]
pub struct VisionConfig {
    architecture: String,
    pub model_args: ModelArguments,
    #[serde(flatten)]
    pub tokens: SpecialTokens,
}

/// `model_args`: how the tower differs from what its name says.
#[derive(Debug, Deserialize)]
pub struct ModelArguments {
    /// Factor on all numbers of channels.
    pub channel_multiplier: f64,
    /// Rows of a picture along a side.
    pub msfa_output_resolution: usize,
}

/// `audio_config`.
#[derive(Debug, Deserialize)]
pub struct AudioConfig {
    #[serde(flatten)]
    pub tokens: SpecialTokens,
}

/// Tokens that a tower's embedder has embeddings for, in its own width.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct SpecialTokens {
    pub hidden_size: usize,
    pub vocab_offset: usize,
    pub vocab_size: usize,
    pub rms_norm_eps: f64,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "architecture": "mobilenetv5_300m_enc", "hidden_size": 2048, "vocab_size": 128, "vocab_offset": 262_144,
            "rms_norm_eps": 1e-6, "model_args": {"channel_multiplier": 1.0, "msfa_output_resolution": 16},
        });
        let audio = json!({"hidden_size": 1536, "vocab_size": 128, "vocab_offset": 262_272, "rms_norm_eps": 1e-6});
        let defaults = json!({
            "image_token_id": 262_145, "vision_soft_tokens_per_image": 256, "vision_config": vision, "audio_config": audio,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        let check = |met, reason| require(met, files, CONFIG, reason);
        let vision = &config.vision_config;
        check(vision.architecture == "mobilenetv5_300m_enc", "vision_config.architecture must be mobilenetv5_300m_enc")?;
        let multiplier = vision.model_args.channel_multiplier;
        check(multiplier > 0.0 && multiplier <= 16.0, "vision_config.model_args.channel_multiplier must be between 0 and 16")?;
        let (side, rows) = (vision.model_args.msfa_output_resolution, config.vision_soft_tokens_per_image);
        let square = side > 0 && side.checked_mul(side) == Some(rows);
        check(square, "vision_soft_tokens_per_image must be the square of vision_config.model_args.msfa_output_resolution")?;
        let (images, sounds) = (&vision.tokens, &config.audio_config.tokens);
        let adjacent = images.vocab_offset.checked_add(images.vocab_size) == Some(sounds.vocab_offset);
        check(adjacent, "audio_config.vocab_offset must be the first token behind those of vision_config")?;
        check(images.hidden_size > 0 && sounds.hidden_size > 0, "hidden_size of the towers must be positive")?;
        Ok(config)
    }
}

impl SpecialTokens {
    /// Of the embedder's norms.
    pub fn norm(&self) -> NormConfig {
        NormConfig::Rms { eps: self.rms_norm_eps }
    }
}
