use nn::{DecoderConfig, Files, LayerConfig, Mixer, NormConfig, Norms, RopeConfig, RopeScaling, Scores};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, TextConfig, head, read, require};
use crate::pixels::{PixelConfig, Size};
use crate::siglip::SiglipConfig;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    #[serde(alias = "image_token_id")]
    pub image_token_index: u32,
    pub mm_tokens_per_image: usize,
    pub text_config: Gemma3TextConfig,
    pub vision_config: SiglipConfig,
}

/// What the language model adds to the usual keys.
#[derive(Debug, Deserialize)]
pub struct Gemma3TextConfig {
    #[serde(flatten)]
    base: TextConfig,
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    rope_local_base_freq: f64,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    tie_word_embeddings: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    SlidingAttention,
    FullAttention,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub size: Size,
    #[serde(flatten)]
    pub pixels: PixelConfig,
    pub do_pan_and_scan: bool,
    pub pan_and_scan_min_crop_size: usize,
    pub pan_and_scan_max_num_crops: usize,
    pub pan_and_scan_min_ratio_to_activate: f64,
}

const SLIDING: usize = 0;
const FULL: usize = 1;

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let text = json!({
            "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256.0,
            "sliding_window": 4096, "sliding_window_pattern": 6, "tie_word_embeddings": true,
        });
        let vision = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
            "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let defaults = json!({
            "image_token_index": 262144, "mm_tokens_per_image": 256,
            "text_config": text, "vision_config": vision,
        });
        let config: Self = read(files, CONFIG, defaults)?;
        config.vision_config.check(files)?;
        let (side, tokens) = (config.vision_config.side(), config.tokens_per_side());
        let square = tokens > 0 && tokens * tokens == config.mm_tokens_per_image && side % tokens == 0;
        require(square, files, CONFIG, "mm_tokens_per_image must be a square that divides the grid of patches")?;
        Ok(config)
    }

    /// Rows of an encoded picture along a side.
    pub fn tokens_per_side(&self) -> usize {
        self.mm_tokens_per_image.isqrt()
    }

    /// The language model: sliding and global layers with a rotary embedding each.
    pub fn decoder(&self, files: &Files) -> Result<DecoderConfig, ModelError> {
        let text = &self.text_config;
        require(text.query_pre_attn_scalar > 0.0, files, CONFIG, "text_config.query_pre_attn_scalar must be positive")?;
        require(text.final_logit_softcapping.is_none(), files, CONFIG, "text_config.final_logit_softcapping is not supported")?;
        let mut decoder = text.base.decoder(files, head(text.tie_word_embeddings))?;
        let types = self.layer_types();
        require(types.len() == decoder.layers.len(), files, CONFIG, "text_config.layer_types must name every layer")?;
        for (layer, kind) in decoder.layers.iter_mut().zip(types) {
            text.adapt(layer, kind);
        }
        let full = decoder.ropes.remove(0);
        let local = RopeConfig { theta: text.rope_local_base_freq, scaling: RopeScaling::None, ..full.clone() };
        decoder.ropes = vec![local, full];
        decoder.norm = NormConfig::RmsPlusOne { eps: text.base.rms_norm_eps };
        decoder.embedding_scale = (text.base.hidden_size as f64).sqrt();
        Ok(decoder)
    }

    fn layer_types(&self) -> Vec<LayerType> {
        let text = &self.text_config;
        let by_pattern = |i: usize| match (i + 1) % text.sliding_window_pattern.max(1) {
            0 => LayerType::FullAttention,
            _ => LayerType::SlidingAttention,
        };
        text.layer_types.clone().unwrap_or_else(|| (0..text.base.num_hidden_layers).map(by_pattern).collect())
    }
}

impl Gemma3TextConfig {
    fn adapt(&self, layer: &mut LayerConfig, kind: LayerType) {
        let Mixer::Attention(attention) = &mut layer.mixer;
        attention.qk_norm = Some(NormConfig::RmsPlusOne { eps: self.base.rms_norm_eps });
        attention.scores = Scores { scale: self.query_pre_attn_scalar.powf(-0.5), softcap: self.attn_logit_softcapping };
        (attention.rope, attention.window) = match kind {
            LayerType::SlidingAttention => (SLIDING, Some(self.sliding_window)),
            LayerType::FullAttention => (FULL, None),
        };
        layer.norms = Norms::Sandwich;
    }
}

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "size": {"height": 224, "width": 224}, "resample": 2, "rescale_factor": 1.0 / 255.0,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_pan_and_scan": false,
            "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let crops = config.pan_and_scan_min_crop_size > 0 && config.pan_and_scan_max_num_crops > 0;
        require(crops, files, PREPROCESSOR, "pan_and_scan_min_crop_size and _max_num_crops must be positive")?;
        Ok(config)
    }
}
