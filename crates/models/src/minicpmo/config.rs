use nn::Files;
use serde::Deserialize;
use serde_json::json;

use super::slices::Slicing;
use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::pixels::{PixelConfig, Pixels};
use crate::siglip::SiglipConfig;
use crate::whisper::{Hearing, WhisperConfig};

/// States of the encoder of sounds in a second.
const STATES_PER_SECOND: f64 = 50.0;

/// config.json, without the language model's keys.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vision_config: SiglipConfig,
    pub audio_config: WhisperConfig,
    pub query_num: usize,
    pub audio_pool_step: usize,
    audio_chunk_length: f64,
    drop_vision_last_layer: bool,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "num_channels": 3,
            "image_size": 980, "patch_size": 14, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let audio = json!({
            "d_model": 384, "encoder_ffn_dim": 1536, "num_hidden_layers": 4, "encoder_attention_heads": 6, "num_mel_bins": 80,
            "max_source_positions": 1500, "activation_function": "gelu", "scale_embedding": false,
        });
        let defaults = json!({
            "vision_config": vision, "audio_config": audio, "query_num": 64, "audio_pool_step": 2, "audio_chunk_length": 1.0,
            "drop_vision_last_layer": true,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        config.audio_config.check(files, "audio_config")?;
        let check = |met, reason| require(met, files, CONFIG, reason);
        check(config.query_num > 0, "query_num must be positive")?;
        check(config.vision_config.num_hidden_layers > 0, "vision_config.num_hidden_layers must be positive")?;
        let states = config.audio_chunk_length * STATES_PER_SECOND;
        check(states.is_finite() && (states <= 0.0 || states >= 1.0), "audio_chunk_length must be a number, and not near zero")?;
        let pool = 1..=STATES_PER_SECOND as usize;
        check(pool.contains(&config.audio_pool_step), "audio_pool_step must be between 1 and 50, the states of a second")?;
        Ok(config)
    }

    /// The tower, with those of its blocks that are used.
    pub fn vision(&self) -> SiglipConfig {
        let unused = usize::from(self.drop_vision_last_layer);
        SiglipConfig { num_hidden_layers: self.vision_config.num_hidden_layers - unused, ..self.vision_config.clone() }
    }

    /// What a frame hears of a window.
    pub fn hearing(&self) -> Hearing {
        let states = self.audio_chunk_length * STATES_PER_SECOND;
        if states > 0.0 { Hearing::Chunks(states as usize) } else { Hearing::Whole }
    }

    /// Rows that so many states become.
    pub fn rows(&self, states: usize) -> usize {
        states / self.audio_pool_step
    }

    /// Rows of a second.
    pub fn rows_per_second(&self) -> usize {
        self.rows(STATES_PER_SECOND as usize)
    }
}

/// preprocessor_config.json, without what concerns sounds.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub use_image_id: bool,
    image_feature_size: usize,
    scale_resolution: usize,
    patch_size: usize,
    max_slice_nums: usize,
    slice_mode: bool,
    norm_mean: [f32; 3],
    norm_std: [f32; 3],
}

/// Slices that a picture may be cut into at most, whatever the configuration says.
const SLICES_MAX: usize = 256;

impl ProcessorConfig {
    /// Reads it, and compares it with what the tower takes.
    pub fn read(files: &Files, model: &Config) -> Result<Self, ModelError> {
        let defaults = json!({
            "use_image_id": true, "image_feature_size": 64, "scale_resolution": 448, "patch_size": 14, "max_slice_nums": 9,
            "slice_mode": true, "norm_mean": [0.5, 0.5, 0.5], "norm_std": [0.5, 0.5, 0.5],
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let check = |met, reason: &str| require(met, files, PREPROCESSOR, reason);
        let same = config.image_feature_size == model.query_num && config.patch_size == model.vision_config.patch_size;
        let wanted = format!("image_feature_size and patch_size must be query_num and vision_config.patch_size of {CONFIG}");
        check(same, &wanted)?;
        check(config.scale_resolution >= config.patch_size, "scale_resolution must be at least patch_size")?;
        check((1..=SLICES_MAX).contains(&config.max_slice_nums), "max_slice_nums must be between 1 and 256")?;
        check(config.norm_std.iter().all(|std| *std > 0.0), "norm_std must be positive")?;
        Ok(config)
    }

    pub fn slicing(&self) -> Slicing {
        let slices_max = if self.slice_mode { self.max_slice_nums } else { 1 };
        Slicing { resolution: self.scale_resolution, patch: self.patch_size, slices_max }
    }

    pub fn pixels(&self, files: &Files) -> Result<Pixels, ModelError> {
        const BICUBIC: usize = 3;
        Pixels::new(
            PixelConfig {
                image_mean: self.norm_mean,
                image_std: self.norm_std,
                rescale_factor: 1.0 / 255.0,
                resample: BICUBIC,
                do_normalize: true,
                do_rescale: true,
            },
            files,
            PREPROCESSOR,
            |number| number,
        )
    }
}
