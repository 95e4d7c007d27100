use nn::{Ahead, DecoderConfig, Files, LayerConfig, NormConfig, Norms, Scores};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, PREPROCESSOR, TextConfig, head, read, read_part, require};
use crate::gemma::{LayerType, RopeParameters, ropes};
use crate::pixels::{PixelDefaults, Size};
use crate::siglip::SiglipConfig;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    image_token_index: Option<u32>,
    image_token_id: Option<u32>,
    pub mm_tokens_per_image: usize,
    pub vision_config: SiglipConfig,
}

/// What `text_config` adds to the usual keys.
#[derive(Debug, Deserialize)]
struct Gemma3TextConfig {
    query_pre_attn_scalar: f64,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    rope_local_base_freq: f64,
    rope_parameters: Option<RopeParameters>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    tie_word_embeddings: bool,
}

/// preprocessor_config.json.
#[derive(Debug, Deserialize)]
pub struct ProcessorConfig {
    pub size: Size,
    pub do_pan_and_scan: bool,
    pub pan_and_scan_min_crop_size: usize,
    pub pan_and_scan_max_num_crops: usize,
    pub pan_and_scan_min_ratio_to_activate: f64,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "num_channels": 3,
            "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        });
        let config: Self = read(files, CONFIG, json!({"mm_tokens_per_image": 256, "vision_config": vision}))?;
        config.vision_config.check(files)?;
        let (side, tokens) = (config.vision_config.side(), config.tokens_per_side());
        let square = tokens > 0 && tokens * tokens == config.mm_tokens_per_image && side % tokens == 0;
        require(square, files, CONFIG, "mm_tokens_per_image must be a square that divides the grid of patches")?;
        Ok(config)
    }

    pub fn image_token(&self) -> u32 {
        self.image_token_index.or(self.image_token_id).unwrap_or(262_144)
    }

    /// Rows of an encoded picture along a side.
    pub fn tokens_per_side(&self) -> usize {
        self.mm_tokens_per_image.isqrt()
    }
}

/// The language model: sliding and global layers with a rotary embedding each.
pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
    let defaults = json!({
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "query_pre_attn_scalar": 256.0,
        "sliding_window": 4096, "sliding_window_pattern": 6, "tie_word_embeddings": true,
    });
    let base: TextConfig = read_part(files, CONFIG, "text_config", defaults.clone())?;
    let own: Gemma3TextConfig = read_part(files, CONFIG, "text_config", defaults)?;
    require(own.query_pre_attn_scalar > 0.0, files, CONFIG, "text_config.query_pre_attn_scalar must be positive")?;
    let caps = own.final_logit_softcapping.is_none_or(|cap| cap.is_finite() && cap > 0.0);
    require(caps, files, CONFIG, "text_config.final_logit_softcapping must be positive")?;
    let mut decoder = base.decoder(files, head(own.tie_word_embeddings))?;
    let types = own.layer_types(base.num_hidden_layers);
    require(types.len() == decoder.layers.len(), files, CONFIG, "text_config.layer_types must name every layer")?;
    let norm = NormConfig::RmsPlusOne { eps: base.rms_norm_eps };
    for (layer, kind) in decoder.layers.iter_mut().zip(types) {
        own.adapt(layer, kind, norm);
    }
    decoder.ropes = ropes(decoder.ropes.remove(0), own.rope_local_base_freq, own.rope_parameters.as_ref(), files)?;
    decoder.logit_softcap = own.final_logit_softcapping;
    decoder.norm = norm;
    decoder.embedding_scale = (base.hidden_size as f64).sqrt();
    Ok(decoder)
}

impl Gemma3TextConfig {
    fn layer_types(&self, layers: usize) -> Vec<LayerType> {
        self.layer_types.clone().unwrap_or_else(|| LayerType::every(self.sliding_window_pattern, layers))
    }

    fn adapt(&self, layer: &mut LayerConfig, kind: LayerType, norm: NormConfig) {
        let Some(attention) = layer.mixer.attention_mut() else { return };
        attention.qk_norm = Some(norm);
        let (rope, window) = kind.reach(self.sliding_window);
        attention.rope = rope;
        let (scale, softcap) = (self.query_pre_attn_scalar.powf(-0.5), self.attn_logit_softcapping);
        attention.scores = Scores { scale, softcap, window, ahead: Ahead::Island };
        layer.norms = Norms::Sandwich;
    }
}

/// Statistics and filter of the class.
pub const PIXELS: PixelDefaults = PixelDefaults { mean: [0.5; 3], std: [0.5; 3], resample: 2 };

impl ProcessorConfig {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let defaults = json!({
            "size": {"height": 224, "width": 224}, "do_pan_and_scan": false,
            "pan_and_scan_min_crop_size": 256, "pan_and_scan_max_num_crops": 4, "pan_and_scan_min_ratio_to_activate": 1.2,
        });
        let config: Self = read(files, PREPROCESSOR, defaults)?;
        let crops = config.pan_and_scan_min_crop_size > 0 && config.pan_and_scan_max_num_crops > 0;
        require(crops, files, PREPROCESSOR, "pan_and_scan_min_crop_size and _max_num_crops must be positive")?;
        Ok(config)
    }
}
