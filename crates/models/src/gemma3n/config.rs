use nn::{Files, NormConfig};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, read, require};

/// What states are cut off at, so far away that none ever gets there.
const GRADIENT_CLIPPING: f64 = 1e10;

/// config.json, without the language model.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub vision_soft_tokens_per_image: usize,
    pub vision_config: VisionConfig,
    pub audio_token_id: u32,
    pub audio_soft_tokens_per_image: usize,
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
    /// Bands of pitches.
    pub input_feat_size: usize,
    pub sscp_conv_channel_size: [usize; 2],
    pub sscp_conv_kernel_size: [[usize; 2]; 2],
    pub sscp_conv_stride_size: [[usize; 2]; 2],
    pub sscp_conv_group_norm_eps: f64,
    gradient_clipping: f64,
    pub conf_attention_context_left: usize,
    conf_attention_context_right: usize,
    pub conf_attention_logit_cap: f64,
    pub conf_num_attention_heads: usize,
    pub conf_num_hidden_layers: usize,
    pub conf_conv_kernel_size: usize,
    pub conf_reduction_factor: usize,
    pub conf_residual_weight: f64,
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
        let audio = json!({
            "hidden_size": 1536, "vocab_size": 128, "vocab_offset": 262_272, "rms_norm_eps": 1e-6, "input_feat_size": 128,
            "sscp_conv_channel_size": [128, 32], "sscp_conv_kernel_size": [[3, 3], [3, 3]], "sscp_conv_stride_size": [[2, 2], [2, 2]],
            "sscp_conv_group_norm_eps": 1e-3, "gradient_clipping": GRADIENT_CLIPPING,
            "conf_attention_context_left": 13, "conf_attention_context_right": 0, "conf_attention_logit_cap": 50.0,
            "conf_num_attention_heads": 8, "conf_num_hidden_layers": 12, "conf_conv_kernel_size": 5, "conf_reduction_factor": 4,
            "conf_residual_weight": 0.5,
        });
        let defaults = json!({
            "image_token_id": 262_145, "vision_soft_tokens_per_image": 256, "vision_config": vision,
            "audio_token_id": 262_273, "audio_soft_tokens_per_image": 188, "audio_config": audio,
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
        config.audio_config.check(files)?;
        Ok(config)
    }
}

impl AudioConfig {
    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason| require(met, files, CONFIG, reason);
        let heads = self.conf_num_attention_heads;
        let divides = heads > 0 && self.tokens.hidden_size.is_multiple_of(2 * heads);
        check(divides, "audio_config.hidden_size is not an even multiple of conf_num_attention_heads")?;
        let positive =
            [self.input_feat_size, self.conf_conv_kernel_size, self.conf_reduction_factor, self.conf_attention_context_left];
        let windows = [self.sscp_conv_kernel_size, self.sscp_conv_stride_size];
        let positive = positive.into_iter().chain(self.sscp_conv_channel_size).chain(windows.concat().concat());
        check(positive.into_iter().all(|size| size > 0), "sizes in audio_config must be positive")?;
        let mut pitches = self.input_feat_size;
        for (kernel, stride) in self.sscp_conv_kernel_size.into_iter().zip(self.sscp_conv_stride_size) {
            check(kernel[1] <= pitches + 2, "audio_config.sscp_conv_kernel_size is wider than what there is")?;
            pitches = (pitches + 2 - kernel[1]) / stride[1] + 1;
        }
        check(self.conf_attention_logit_cap > 0.0, "audio_config.conf_attention_logit_cap must be positive")?;
        check(self.conf_attention_context_right == 0, "audio_config.conf_attention_context_right must be 0")?;
        let clips = self.gradient_clipping >= GRADIENT_CLIPPING;
        check(clips, "audio_config.gradient_clipping must be 1e10 or more, where it does nothing")
    }

    /// Frames from one row of an encoded sound to the next.
    pub fn frames_per_row(&self) -> usize {
        self.sscp_conv_stride_size.iter().map(|stride| stride[0]).product::<usize>() * self.conf_reduction_factor
    }
}

impl SpecialTokens {
    /// Of the embedder's norms.
    pub fn norm(&self) -> NormConfig {
        NormConfig::Rms { eps: self.rms_norm_eps }
    }
}
