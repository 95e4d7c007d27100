use nn::{Activation, DecoderConfig, Ffn, Files, GatedConfig, NormConfig, Norms};
use serde::Deserialize;
use serde_json::{Value, json};

use super::layers::{LayerType, RopeParameters, check_cap, check_window, ropes};
use crate::ModelError;
use crate::config::{CONFIG, TextConfig, head, read_text, require};

/// A generation of the line's language models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// All layers look back to the beginning.
    Gemma,
    /// Every second layer does; scores and logits are capped.
    Gemma2,
    /// Every sixth does, and has a rotary base of its own; queries and keys are normed.
    Gemma3,
}

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Keys {
    query_pre_attn_scalar: Option<f64>,
    sliding_window: usize,
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    rope_local_base_freq: f64,
    rope_parameters: Option<RopeParameters>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    tie_word_embeddings: bool,
    attention_bias: bool,
    use_bidirectional_attention: bool,
}

/// Reads the language model's keys.
pub fn decoder(line: Line, files: &Files) -> Result<DecoderConfig, ModelError> {
    let base: TextConfig = read_text(files, line.defaults())?;
    let keys: Keys = read_text(files, line.defaults())?;
    let check = |met, reason| require(met, files, CONFIG, reason);
    check(!keys.attention_bias, "attention_bias is not supported")?;
    check(!keys.use_bidirectional_attention, "use_bidirectional_attention is not supported")?;
    check(keys.query_pre_attn_scalar.is_none_or(|scalar| scalar > 0.0), "query_pre_attn_scalar must be positive")?;
    check_cap(keys.attn_logit_softcapping, "attn_logit_softcapping", files)?;
    check_cap(keys.final_logit_softcapping, "final_logit_softcapping", files)?;
    check_window(keys.sliding_window, files)?;
    let mut decoder = base.decoder(files, head(keys.tie_word_embeddings))?;
    let norm = NormConfig::RmsPlusOne { eps: base.rms_norm_eps };
    let types = LayerType::read(keys.layer_types, keys.sliding_window_pattern, decoder.layers.len(), files)?;
    for (layer, kind) in decoder.layers.iter_mut().zip(types) {
        let Some(attention) = layer.mixer.attention_mut() else { continue };
        if let Some(scalar) = keys.query_pre_attn_scalar {
            attention.scores.scale = scalar.powf(-0.5);
        }
        if line != Line::Gemma {
            layer.norms = Norms::Sandwich;
            attention.scores.softcap = keys.attn_logit_softcapping;
            let (rope, back) = kind.reach(keys.sliding_window);
            attention.scores.back = back;
            if line == Line::Gemma3 {
                attention.rope = rope;
                attention.qk_norm = Some(norm);
            }
        }
        if let (Line::Gemma, Ffn::Gated(GatedConfig { activation: activation @ Activation::Gelu, .. })) = (line, &mut layer.ffn) {
            *activation = Activation::GeluTanh; // what the first releases mean by it
        }
    }
    if line == Line::Gemma3 {
        decoder.ropes = ropes(decoder.ropes.remove(0), keys.rope_local_base_freq, keys.rope_parameters.as_ref(), files)?;
    }
    decoder.norm = norm;
    decoder.embedding_scale = (base.hidden_size as f64).sqrt();
    decoder.logit_softcap = keys.final_logit_softcapping;
    Ok(decoder)
}

impl Line {
    /// What the class says where config.json is silent.
    fn defaults(self) -> Value {
        let mut all = json!({
            "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "rope_theta": 1e4,
            "rope_local_base_freq": 1e4, "sliding_window": 4096, "sliding_window_pattern": 1, "tie_word_embeddings": true,
            "attention_bias": false, "use_bidirectional_attention": false,
        });
        let own = match self {
            Self::Gemma => json!({}),
            Self::Gemma2 => json!({
                "query_pre_attn_scalar": 256.0, "sliding_window_pattern": 2, "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
            }),
            Self::Gemma3 => json!({
                "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                "num_attention_heads": 8, "num_key_value_heads": 4, "query_pre_attn_scalar": 256.0, "rope_theta": 1e6,
                "sliding_window_pattern": 6, "hidden_activation": "gelu_pytorch_tanh",
            }),
        };
        if let (Value::Object(all), Value::Object(own)) = (&mut all, own) {
            all.extend(own);
        }
        all
    }
}
