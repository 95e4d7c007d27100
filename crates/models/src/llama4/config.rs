use nn::Files;
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, read, require};
use crate::pixels::{PixelDefaults, Size};

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_index: u32,
    pub vision_config: VisionConfig,
}

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_channels: usize,
    pub intermediate_size: usize,
    pub vision_output_dim: usize,
    pub image_size: usize,
    pub patch_size: usize,
    pixel_shuffle_ratio: f64,
    pub projector_input_dim: usize,
    pub projector_output_dim: usize,
    pub rope_theta: f64,
    multi_modal_projector_bias: bool,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    size: Size,
    pub max_patches: usize,
    resize_to_max_canvas: bool,
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 2 };

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 768, "num_hidden_layers": 34, "num_attention_heads": 16, "num_channels": 3, "intermediate_size": 5632,
            "vision_output_dim": 7680, "image_size": 448, "patch_size": 14, "pixel_shuffle_ratio": 0.5,
            "projector_input_dim": 4096, "projector_output_dim": 4096, "rope_theta": 1e4, "multi_modal_projector_bias": false,
        });
        let config: Self = read(files, CONFIG, json!({"image_token_index": 200_092, "vision_config": vision}))?;
        config.vision_config.check(files)?;
        Ok(config)
    }
}

impl VisionConfig {
    /// Patches along a side of a tile.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Patches along a side of what becomes one row.
    pub fn factor(&self) -> usize {
        (1.0 / self.pixel_shuffle_ratio).round() as usize
    }

    /// Rows that a tile becomes.
    pub fn rows_per_tile(&self) -> usize {
        (self.side() / self.factor()).pow(2)
    }

    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason| require(met, files, CONFIG, reason);
        let heads = self.num_attention_heads;
        let divides = heads > 0 && self.hidden_size > 0 && self.hidden_size.is_multiple_of(4 * heads);
        check(divides, "vision_config.hidden_size is not a multiple of num_attention_heads and four")?;
        check(self.num_channels == 3, "vision_config.num_channels must be 3")?;
        check(self.patch_size > 0 && self.image_size >= self.patch_size, "vision_config.image_size is smaller than patch_size")?;
        let ratio = self.pixel_shuffle_ratio;
        let whole = ratio > 0.0 && ratio <= 1.0 && (1.0 / ratio).fract() == 0.0 && self.side().is_multiple_of(self.factor());
        check(whole, "vision_config.pixel_shuffle_ratio must be one by a number that divides the side of a tile in patches")?;
        let fits = self.hidden_size * self.factor().pow(2) == self.intermediate_size;
        check(fits, "vision_config.intermediate_size must be hidden_size by the square of pixel_shuffle_ratio")?;
        let output = self.projector_input_dim == self.projector_output_dim && self.projector_output_dim == self.vision_output_dim;
        check(output, "vision_config.projector_input_dim, projector_output_dim and vision_output_dim must be equal")?;
        check(!self.multi_modal_projector_bias, "vision_config.multi_modal_projector_bias is not supported")
    }
}

impl ProcessorConfig {
    /// For tiles of `side` pixels.
    pub fn read(files: &Files, side: usize) -> Result<Self, ModelError> {
        let defaults = json!({"size": {"height": 336, "width": 336}, "max_patches": 16, "resize_to_max_canvas": false});
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let check = |met, reason: &str| require(met, files, PREPROCESSOR, reason);
        let fits = config.size.height == Some(side) && config.size.width == Some(side);
        check(fits, &format!("size must be {side}x{side}, the vision_config.image_size of {CONFIG}"))?;
        check((1..=256).contains(&config.max_patches), "max_patches must be between 1 and 256")?;
        check(!config.resize_to_max_canvas, "resize_to_max_canvas is not supported")?;
        Ok(config)
    }
}
