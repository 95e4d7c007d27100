use media::VideoOptions;
use nn::{DecoderConfig, Files};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, TextConfig, head, read, require};
use crate::pixels::{PixelDefaults, Size};
use crate::siglip::SiglipConfig;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub scale_factor: usize,
    pub tie_word_embeddings: bool,
    pub text_config: TextConfig,
    pub vision_config: SiglipConfig,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    size: Option<Size>,
    pub max_image_size: Size,
    pub do_image_splitting: bool,
    pub video_sampling: Option<VideoSampling>,
}

/// Which frames of a clip are looked at.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct VideoSampling {
    pub fps: f64,
    pub max_frames: usize,
    pub video_size: Size,
}

impl VideoSampling {
    /// The same rule with the numbers that a request asks for.
    pub fn with(self, options: &VideoOptions) -> Self {
        Self { fps: options.fps.unwrap_or(self.fps), max_frames: options.max_frames.unwrap_or(self.max_frames), ..self }
    }
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let text = json!({
            "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
            "num_attention_heads": 32, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        });
        let vision = json!({
            "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
            "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let defaults = json!({
            "image_token_id": 128257, "scale_factor": 2, "tie_word_embeddings": false, "text_config": text, "vision_config": vision,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        let divides = config.scale_factor > 0 && config.vision_config.side().is_multiple_of(config.scale_factor);
        require(divides, files, CONFIG, "scale_factor must divide the grid of patches")?;
        Ok(config)
    }

    /// Rows that a tile becomes.
    pub fn rows_per_tile(&self) -> usize {
        (self.vision_config.side() / self.scale_factor).pow(2)
    }

    pub fn decoder(&self, files: &Files) -> Result<DecoderConfig, ModelError> {
        self.text_config.decoder(files, head(self.tie_word_embeddings))
    }
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 1 };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "max_image_size": {"longest_edge": 364}, "do_image_splitting": true,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let positive = |size: Size| size.longest_edge.is_some_and(|edge| edge > 0);
        require(config.size.is_none_or(positive), files, PREPROCESSOR, "size.longest_edge must be positive")?;
        require(positive(config.max_image_size), files, PREPROCESSOR, "max_image_size.longest_edge must be positive")?;
        let sampling = config.video_sampling.is_none_or(|s| s.fps > 0.0 && s.max_frames > 0 && positive(s.video_size));
        require(sampling, files, PREPROCESSOR, "video_sampling needs positive fps, max_frames and video_size.longest_edge")?;
        Ok(config)
    }

    /// What a picture's longer side is brought to.
    pub fn longest_edge(&self) -> usize {
        self.size.and_then(|size| size.longest_edge).unwrap_or(4 * 364)
    }

    /// What a frame's longer side is brought to. The reference lets `size` win over `video_sampling.video_size`.
    pub fn frame_longest_edge(&self) -> Option<usize> {
        self.size.or(self.video_sampling.map(|sampling| sampling.video_size))?.longest_edge
    }
}
