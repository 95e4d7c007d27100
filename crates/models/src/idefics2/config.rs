use nn::{Activation, DecoderConfig, Files};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::llama;
use crate::pixels::{PixelDefaults, Size};
use crate::siglip::SiglipConfig;

/// config.json, without the language model's keys.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub vision_config: SiglipConfig,
    pub perceiver_config: PerceiverConfig,
}

/// `perceiver_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct PerceiverConfig {
    pub hidden_size: usize,
    pub hidden_act: Activation,
    pub rms_norm_eps: f64,
    pub resampler_n_latents: usize,
    pub resampler_depth: usize,
    pub resampler_n_heads: usize,
    pub resampler_head_dim: usize,
    pub num_key_value_heads: usize,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
            "image_size": 224, "patch_size": 32, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let perceiver = json!({
            "hidden_act": "silu", "hidden_size": 4096, "rms_norm_eps": 1e-6, "resampler_n_latents": 64, "resampler_depth": 3,
            "resampler_n_heads": 16, "resampler_head_dim": 96, "num_key_value_heads": 4,
        });
        let defaults = json!({"image_token_id": 32001, "vision_config": vision, "perceiver_config": perceiver});
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        config.perceiver_config.check(files)?;
        Ok(config)
    }

    pub fn decoder(&self, files: &Files) -> Result<DecoderConfig, ModelError> {
        let decoder = llama::decoder_config(files, json!({"model_type": "mistral"}))?;
        let same = self.perceiver_config.hidden_size == decoder.hidden;
        require(same, files, CONFIG, "perceiver_config.hidden_size must be that of text_config")?;
        Ok(decoder)
    }
}

impl PerceiverConfig {
    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("perceiver_config.{reason}"));
        let (heads, kv_heads) = (self.resampler_n_heads, self.num_key_value_heads);
        let shared = kv_heads > 0 && heads > 0 && heads.is_multiple_of(kv_heads);
        check(shared, "resampler_n_heads must be a multiple of num_key_value_heads")?;
        check(self.resampler_head_dim > 0, "resampler_head_dim must be positive")?;
        check(self.resampler_n_latents > 0, "resampler_n_latents must be positive")
    }
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    size: Size,
    pub do_image_splitting: bool,
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 2 };

/// What the sides of a view may be, in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Edges {
    pub shortest: usize,
    pub longest: usize,
}

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        read(files, PREPROCESSOR, json!({"size": {"shortest_edge": 378, "longest_edge": 980}, "do_image_splitting": false}))
    }

    /// Each view has at least one patch of so many pixels.
    pub fn edges(&self, files: &Files, patch: usize) -> Result<Edges, ModelError> {
        let edges = self.size.shortest_edge.zip(self.size.longest_edge);
        let edges = edges.filter(|(shortest, longest)| *shortest >= patch && longest >= shortest);
        let reason = format!("size needs a shortest_edge of at least {patch}, a patch, and a longest_edge no smaller");
        require(edges.is_some(), files, PREPROCESSOR, &reason)?;
        let (shortest, longest) = edges.unwrap_or_default();
        Ok(Edges { shortest, longest })
    }
}
