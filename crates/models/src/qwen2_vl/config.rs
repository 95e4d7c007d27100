use nn::{Activation, DecoderConfig, FUSED_NAMES, Files, Mixer, NormConfig, VitConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, TextConfig, head, read, read_part, require};
use crate::pixels::{PixelDefaults, Size};

/// config.json. The language model's keys stand at the top, or in `text_config` since transformers 4.52.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub video_token_id: u32,
    pub tie_word_embeddings: bool,
    pub vision_config: VisionConfig,
}

/// The tower.
#[derive(Debug, Clone, Deserialize)]
pub struct VisionConfig {
    pub depth: usize,
    pub embed_dim: usize,
    pub num_heads: usize,
    pub mlp_ratio: f64,
    pub hidden_act: Activation,
    in_channels: Option<usize>,
    in_chans: Option<usize>,
    pub patch_size: usize,
    pub spatial_merge_size: usize,
    pub temporal_patch_size: usize,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub min_pixels: Option<usize>,
    pub max_pixels: Option<usize>,
    pub size: Option<Size>,
    pub patch_size: usize,
    pub merge_size: usize,
    pub temporal_patch_size: usize,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4.0, "hidden_act": "quick_gelu",
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
        });
        let defaults = json!({
            "image_token_id": 151655, "video_token_id": 151656, "tie_word_embeddings": false, "vision_config": vision,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        let v = &config.vision_config;
        let sizes = v.patch_size > 0 && v.spatial_merge_size > 0 && v.temporal_patch_size > 0 && v.channels() == 3;
        require(sizes, files, CONFIG, "vision_config: patch and merge sizes must be positive, and there are 3 channels")?;
        let heads = v.num_heads > 0 && v.embed_dim.is_multiple_of(4 * v.num_heads);
        require(heads, files, CONFIG, "vision_config.embed_dim is not a multiple of 4 * num_heads")?;
        Ok(config)
    }

    /// The language model: rotary sections for time, height and width.
    pub fn decoder(&self, files: &Files) -> Result<DecoderConfig, ModelError> {
        let text = text_config(files)?;
        let mut decoder = text.decoder(files, head(self.tie_word_embeddings))?;
        for layer in &mut decoder.layers {
            let Mixer::Attention(attention) = &mut layer.mixer;
            attention.qkv_bias = true;
        }
        let sections = text.rope().mrope_section.unwrap_or([16, 24, 24]);
        let pairs: usize = sections.iter().sum();
        require(
            2 * pairs == decoder.ropes[0].width,
            files,
            CONFIG,
            "rope_scaling.mrope_section must add up to half of head_dim",
        )?;
        decoder.ropes[0].sections = sections.into_iter().enumerate().collect();
        Ok(decoder)
    }
}

fn text_config(files: &Files) -> Result<TextConfig, ModelError> {
    let defaults = json!({"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6});
    let given: Value = files.required_json(CONFIG)?;
    if given["text_config"].is_object() {
        read_part(files, CONFIG, "text_config", defaults)
    } else {
        read(files, CONFIG, defaults)
    }
}

impl VisionConfig {
    fn channels(&self) -> usize {
        self.in_channels.or(self.in_chans).unwrap_or(3)
    }

    pub fn vit(&self) -> VitConfig {
        VitConfig {
            width: self.embed_dim,
            heads: self.num_heads,
            inner: (self.embed_dim as f64 * self.mlp_ratio) as usize,
            layers: self.depth,
            norm: NormConfig::Layer { eps: 1e-6 },
            activation: self.hidden_act,
            names: &FUSED_NAMES,
        }
    }

    /// Elements of a flattened patch: [channels, time, height, width].
    pub fn patch(&self) -> [usize; 4] {
        [self.channels(), self.temporal_patch_size, self.patch_size, self.patch_size]
    }
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults =
    PixelDefaults { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711], resample: 3 };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let positive = config.patch_size > 0 && config.merge_size > 0 && config.temporal_patch_size > 0;
        require(positive, files, PREPROCESSOR, "patch_size, merge_size and temporal_patch_size must be positive")?;
        let (min, max) = config.pixel_range([0, usize::MAX]);
        require(min <= max && max > 0, files, PREPROCESSOR, "min_pixels is larger than max_pixels")?;
        Ok(config)
    }

    /// Bounds of a picture's area in pixels.
    pub fn pixel_range(&self, default: [usize; 2]) -> (usize, usize) {
        let size = self.size.unwrap_or_default();
        let min = self.min_pixels.or(size.shortest_edge).unwrap_or(default[0]);
        let max = self.max_pixels.or(size.longest_edge).unwrap_or(default[1]);
        (min, max)
    }
}
