use nn::{
    Activation, Ahead, Bias, DecoderConfig, Ffn, Files, GatedConfig, KvSource, LayerConfig, LayerScale, MoeConfig, NormConfig,
    Norms, PerLayerConfig, RopeConfig, RopeScaling, RouterConfig, RouterGate, Scoring, Shares, Weighed,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, TextConfig, head, read, read_part, read_text, require};
use crate::conformer::{ConformerConfig, ConformerNames};
use crate::gemma::{LayerType, RopeParameters, check_cap, check_window, share_keys_and_values};
use crate::projection::Stored;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub image_token_id: u32,
    pub video_token_id: u32,
    pub audio_token_id: u32,
    pub vision_config: VisionConfig,
    /// Of members that listen.
    #[serde(skip)]
    pub audio_config: Option<AudioConfig>,
}

/// `audio_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct AudioConfig {
    pub hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_act: Activation,
    pub subsampling_conv_channels: [usize; 2],
    conv_kernel_size: usize,
    residual_weight: f64,
    attention_context_left: usize,
    attention_context_right: usize,
    attention_logit_cap: f64,
    use_clipped_linears: bool,
    pub rms_norm_eps: f64,
    pub output_proj_dims: usize,
}

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub struct VisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub hidden_activation: Activation,
    pub rms_norm_eps: f64,
    pub rope_parameters: VisionRope,
    pub pooling_kernel_size: usize,
    pub patch_size: usize,
    pub position_embedding_size: usize,
    use_clipped_linears: bool,
    pub standardize: bool,
}

/// Its `rope_parameters`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct VisionRope {
    pub rope_theta: f64,
}

/// Whose rows see each other in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Bidirectional {
    /// Those of a picture or a frame, in layers with a window.
    Vision,
    /// All.
    All,
}

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Keys {
    sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
    rope_parameters: RopeParameters,
    global_head_dim: usize,
    num_global_key_value_heads: Option<usize>,
    attention_k_eq_v: bool,
    attention_bias: bool,
    use_bidirectional_attention: Option<Bidirectional>,
    final_logit_softcapping: Option<f64>,
    tie_word_embeddings: bool,
    enable_moe_block: bool,
    num_experts: usize,
    top_k_experts: usize,
    moe_intermediate_size: usize,
    num_kv_shared_layers: usize,
    use_double_wide_mlp: bool,
    hidden_size_per_layer_input: usize,
    vocab_size_per_layer_input: usize,
    pad_token_id: u32,
}

/// Layers of which the last one looks back to the beginning, where config.json does not say.
const PATTERN: usize = 6;
const AUDIO: &str = "audio_config";
/// log2(1 + e), on keys of the encoder of sounds.
const KEY_SCALE: f64 = 1.894_636_123_972_011_5;

const CONFORMER: ConformerNames = ConformerNames {
    feed_forward: ["feed_forward1", "feed_forward2"],
    before_attention: "norm_pre_attn",
    attention: "self_attn",
    distances: "self_attn.relative_k_proj",
    out: "self_attn.post",
    after_attention: "norm_post_attn",
    norm: "norm_out",
};

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let vision = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16, "num_attention_heads": 12,
            "num_key_value_heads": 12, "head_dim": 64, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 100.0}, "pooling_kernel_size": 3, "patch_size": 16,
            "position_embedding_size": 10240, "use_clipped_linears": false, "standardize": false,
        });
        let tokens =
            json!({"image_token_id": 258880, "audio_token_id": 258881, "video_token_id": 258884, "vision_config": vision});
        let config: Self = read(files, CONFIG, tokens)?;
        config.vision_config.check(files)?;
        Ok(Self { audio_config: AudioConfig::read(files)?, ..config })
    }
}

impl AudioConfig {
    /// None where it is null.
    fn read(files: &Files) -> Result<Option<Self>, ModelError> {
        let whole: Value = files.required_json(CONFIG)?;
        if !whole[AUDIO].is_object() {
            return Ok(None);
        }
        let defaults = json!({
            "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8, "hidden_act": "silu",
            "subsampling_conv_channels": [128, 32], "conv_kernel_size": 5, "residual_weight": 0.5, "attention_context_left": 13,
            "attention_context_right": 0, "attention_logit_cap": 50.0, "use_clipped_linears": true, "rms_norm_eps": 1e-6,
            "output_proj_dims": 1536,
        });
        let config: Self = read_part(files, CONFIG, AUDIO, defaults)?;
        config.check(files)?;
        Ok(Some(config))
    }

    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("{AUDIO}.{reason}"));
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        let divides = width > 0 && heads > 0 && width.is_multiple_of(heads) && width.is_multiple_of(2);
        check(divides, "hidden_size must be even and a multiple of num_attention_heads")?;
        let sizes = self.conv_kernel_size > 0 && self.output_proj_dims > 0 && !self.subsampling_conv_channels.contains(&0);
        check(sizes, "conv_kernel_size, output_proj_dims and subsampling_conv_channels must be positive")?;
        check(self.attention_context_left > 1, "attention_context_left must be at least 2")?;
        check(self.attention_context_right == 0, "attention_context_right must be 0")?;
        check(self.attention_logit_cap > 0.0, "attention_logit_cap must be positive")
    }

    /// The blocks of the encoder.
    pub fn conformer(&self) -> ConformerConfig {
        ConformerConfig {
            width: self.hidden_size,
            heads: self.num_attention_heads,
            layers: self.num_hidden_layers,
            seen: self.attention_context_left - 1,
            key_scale: KEY_SCALE,
            softcap: self.attention_logit_cap,
            residual_weight: self.residual_weight,
            taps: self.conv_kernel_size,
            activation: self.hidden_act,
            norm_eps: self.rms_norm_eps,
            stored: stored(self.use_clipped_linears),
            names: &CONFORMER,
        }
    }
}

impl VisionConfig {
    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("vision_config.{reason}"));
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        let shared = heads > 0 && kv_heads > 0 && heads % kv_heads == 0;
        check(shared, "num_attention_heads is not a multiple of num_key_value_heads")?;
        check(self.head_dim > 0 && self.head_dim.is_multiple_of(4), "head_dim must be a positive multiple of 4")?;
        let sizes = self.hidden_size > 0 && self.intermediate_size > 0 && self.patch_size > 0 && self.pooling_kernel_size > 0;
        check(sizes, "hidden_size, intermediate_size, patch_size and pooling_kernel_size must be positive")
    }

    pub fn stored(&self) -> Stored {
        stored(self.use_clipped_linears)
    }
}

fn stored(use_clipped_linears: bool) -> Stored {
    if use_clipped_linears { Stored::Clipped } else { Stored::Wrapped }
}

/// Whether rows of a picture see each other in both directions.
pub fn has_islands(files: &Files) -> Result<bool, ModelError> {
    Ok(Keys::read(files)?.use_bidirectional_attention == Some(Bidirectional::Vision))
}

/// The language model.
pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
    let base: TextConfig = read_text(files, defaults())?;
    let keys = Keys::read(files)?;
    let mut decoder = base.decoder(files, head(keys.tie_word_embeddings))?;
    keys.check(files, &base)?;
    let types = LayerType::read(keys.layer_types.clone(), PATTERN, decoder.layers.len(), files)?;
    for (layer, kind) in decoder.layers.iter_mut().zip(&types) {
        keys.adapt(layer, *kind, &base);
    }
    keys.share(&mut decoder.layers, &types, files)?;
    decoder.per_layer = keys.per_layer(&base);
    let sliding = RopeConfig::plain(base.head_dim(), 1e4);
    let proportional = RopeScaling::Proportional { share: 0.25, factor: 1.0 };
    let full = RopeConfig { scaling: proportional, ..RopeConfig::plain(keys.global_head_dim, 1e6) };
    let rope = |kind, default| keys.rope_parameters.rope(files, kind, default);
    decoder.ropes = vec![rope(LayerType::SlidingAttention, sliding)?, rope(LayerType::FullAttention, full)?];
    decoder.embedding_scale = (base.hidden_size as f64).sqrt();
    decoder.logit_softcap = keys.final_logit_softcapping;
    Ok(decoder)
}

/// What the class says of the language model where config.json is silent.
fn defaults() -> Value {
    json!({
        "vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
        "sliding_window": 512, "rope_parameters": {}, "global_head_dim": 512, "attention_k_eq_v": false, "attention_bias": false,
        "tie_word_embeddings": true, "enable_moe_block": false, "num_experts": 0, "top_k_experts": 0, "moe_intermediate_size": 0,
        "num_kv_shared_layers": 0, "use_double_wide_mlp": false, "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144, "pad_token_id": 0,
    })
}

impl Keys {
    fn read(files: &Files) -> Result<Self, ModelError> {
        read_text(files, defaults())
    }

    fn check(&self, files: &Files, base: &TextConfig) -> Result<(), ModelError> {
        let check = |met, reason: &str| require(met, files, CONFIG, &format!("text_config.{reason}"));
        check_window(self.sliding_window, files)?;
        check_cap(self.final_logit_softcapping, "text_config.final_logit_softcapping", files)?;
        check(!self.attention_bias, "attention_bias is not supported")?;
        let one_way = self.use_bidirectional_attention != Some(Bidirectional::All);
        check(one_way, "use_bidirectional_attention must be \"vision\" or null")?;
        let wide = self.global_head_dim > 0 && self.global_head_dim.is_multiple_of(2);
        check(wide, "global_head_dim must be even and positive")?;
        let shared = |kv_heads: usize| kv_heads > 0 && base.num_attention_heads.is_multiple_of(kv_heads);
        let fits = self.num_global_key_value_heads.is_none_or(shared);
        check(fits, "num_attention_heads is not a multiple of num_global_key_value_heads")?;
        let pad = self.hidden_size_per_layer_input == 0 || (self.pad_token_id as usize) < self.vocab_size_per_layer_input;
        check(pad, "pad_token_id must be less than vocab_size_per_layer_input")?;
        if self.enable_moe_block {
            let some = self.top_k_experts > 0 && self.top_k_experts <= self.num_experts;
            check(some, "top_k_experts must be positive and at most num_experts")?;
            check(self.moe_intermediate_size > 0, "moe_intermediate_size must be positive")?;
        }
        Ok(())
    }

    fn adapt(&self, layer: &mut LayerConfig, kind: LayerType, base: &TextConfig) {
        let (activation, eps) = (base.activation(), base.rms_norm_eps);
        layer.norms = Norms::Sandwich;
        layer.scale = LayerScale::Learned;
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.qk_norm = Some(NormConfig::Rms { eps });
            attention.v_norm = Some(NormConfig::RmsUnweighted { eps });
            (attention.rope, attention.scores.back) = kind.reach(self.sliding_window);
            attention.scores.scale = 1.0;
            if kind == LayerType::FullAttention {
                attention.scores.ahead = Ahead::Nothing;
                attention.head_dim = self.global_head_dim;
                if self.attention_k_eq_v {
                    attention.kv = KvSource::OwnKeys;
                    attention.kv_heads = self.num_global_key_value_heads.unwrap_or(attention.kv_heads);
                }
            }
        }
        if self.enable_moe_block {
            layer.beside = Some(self.moe(activation, eps));
        }
    }

    /// Lets the last layers look at the keys and values of earlier ones. Some members make up for it by wider feed-forward parts.
    fn share(&self, layers: &mut [LayerConfig], types: &[LayerType], files: &Files) -> Result<(), ModelError> {
        share_keys_and_values(layers, types, self.num_kv_shared_layers, files)?;
        let first = layers.len() - self.num_kv_shared_layers;
        if self.use_double_wide_mlp {
            for layer in &mut layers[first..] {
                if let Ffn::Gated(gated) = &layer.ffn {
                    layer.ffn = Ffn::Gated(GatedConfig::new(2 * gated.inner, gated.activation));
                }
            }
        }
        Ok(())
    }

    fn per_layer(&self, base: &TextConfig) -> Option<PerLayerConfig> {
        let layers = base.num_hidden_layers;
        (self.hidden_size_per_layer_input > 0).then(|| PerLayerConfig {
            width: self.hidden_size_per_layer_input,
            vocab: self.vocab_size_per_layer_input,
            stored: layers,
            layers: (0..layers).collect(),
            pad: self.pad_token_id,
            activation: base.activation(),
        })
    }

    fn moe(&self, activation: Activation, eps: f64) -> MoeConfig {
        MoeConfig {
            experts: self.num_experts,
            inner: self.moe_intermediate_size,
            activation,
            router: RouterConfig {
                chosen: self.top_k_experts,
                scoring: Scoring::Softmax,
                shares: Shares::Normalised,
                scale: 1.0,
                correction: Bias::Absent,
                gate: RouterGate::Normed { eps },
            },
            weighed: Weighed::Results,
            shared: None,
        }
    }
}
