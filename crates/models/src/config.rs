//! What the configurations of many families have in common, by Hugging Face names.

use nn::{
    Activation, AttentionConfig, DecoderConfig, Ffn, Files, GatedConfig, Head, KvSource, LayerConfig, LayerGates, LayerScale,
    Mixer, NormConfig, Norms, OutputGate, RopeConfig, RopeScaling, Scores,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::ModelError;

pub const CONFIG: &str = "config.json";
pub const PREPROCESSOR: &str = "preprocessor_config.json";
pub const VIDEO_PREPROCESSOR: &str = "video_preprocessor_config.json";

/// A configuration file over the defaults of its class: releases leave out what equals the default.
pub fn read<T: DeserializeOwned>(files: &Files, file: &str, defaults: Value) -> Result<T, ModelError> {
    parse(files, file, "", merge(defaults, files.required_json(file)?))
}

/// The object under a key of a configuration file, over the defaults of its class.
pub fn read_part<T: DeserializeOwned>(files: &Files, file: &str, key: &str, defaults: Value) -> Result<T, ModelError> {
    let mut whole: Value = files.required_json(file)?;
    parse(files, file, &format!("{key}."), merge(defaults, whole[key].take()))
}

/// The language model's keys over the defaults of its class. They stand at the top of config.json, or in `text_config`.
pub fn read_text<T: DeserializeOwned>(files: &Files, defaults: Value) -> Result<T, ModelError> {
    let whole: Value = files.required_json(CONFIG)?;
    if whole["text_config"].is_object() {
        read_part(files, CONFIG, "text_config", defaults)
    } else {
        read(files, CONFIG, defaults)
    }
}

fn parse<T: DeserializeOwned>(files: &Files, file: &str, above: &str, value: Value) -> Result<T, ModelError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let at = e.path().to_string();
        let place = if at == "." { above.trim_end_matches('.').to_string() } else { format!("{above}{at}") };
        let separator = if place.is_empty() { "" } else { ": " };
        ModelError::Config { file: files.label(file), reason: format!("{place}{separator}{}", e.into_inner()) }
    })
}

/// `given` over `defaults`, object by object. A null counts as not given.
pub fn merge(defaults: Value, given: Value) -> Value {
    match (defaults, given) {
        (Value::Object(mut defaults), Value::Object(given)) => {
            for (key, value) in given {
                let default = defaults.remove(&key).unwrap_or(Value::Null);
                defaults.insert(key, merge(default, value));
            }
            Value::Object(defaults)
        }
        (default, Value::Null) => default,
        (_, given) => given,
    }
}

/// How many tokens a token of the language model sees, itself included (`sliding_window`): null is all, and what is absent has the
/// default of the class.
pub fn sliding_window(files: &Files, default: Option<usize>) -> Result<Option<usize>, ModelError> {
    let given: Value = read_text(files, Value::Null)?;
    let window = match given.get("sliding_window") {
        None => default,
        Some(Value::Null) => None,
        Some(window) => Some(window.as_u64().unwrap_or(0) as usize),
    };
    require(window != Some(0), files, CONFIG, "sliding_window must be a positive number or null")?;
    Ok(window)
}

/// A condition that a configuration must meet to be built.
pub fn require(met: bool, files: &Files, file: &str, reason: &str) -> Result<(), ModelError> {
    if met { Ok(()) } else { Err(ModelError::Config { file: files.label(file), reason: reason.to_string() }) }
}

/// The language model of most families.
#[derive(Debug, Clone, Deserialize)]
pub struct TextConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub vocab_size: usize,
    hidden_act: Option<Activation>,
    hidden_activation: Option<Activation>,
    pub rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeScalingConfig>,
    rope_parameters: Option<RopeScalingConfig>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    max_position_embeddings: Option<f64>,
}

/// `rope_scaling`, which transformers 5 calls `rope_parameters`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RopeScalingConfig {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    pub rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    max_position_embeddings: Option<f64>, // stands beside the others
    pub mrope_section: Option<[usize; 3]>,
    partial_rotary_factor: Option<f64>,
}

impl RopeScalingConfig {
    /// The change of frequencies that is asked for.
    pub fn scaling(&self, files: &Files) -> Result<RopeScaling, ModelError> {
        let refused = |reason: String| ModelError::Config { file: files.label(CONFIG), reason };
        let need = |value: Option<f64>, key: &str| {
            value
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or_else(|| refused(format!("rope_scaling.{key} must be a positive number")))
        };
        match self.rope_type.as_deref().or(self.kind.as_deref()).unwrap_or("default") {
            // What is dynamic changes nothing before max_position_embeddings, and sequences end there.
            "default" | "mrope" | "dynamic" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: need(self.factor, "factor")? }),
            "proportional" => Ok(RopeScaling::Proportional {
                share: self.partial_rotary_factor.unwrap_or(1.0),
                factor: need(self.factor.or(Some(1.0)), "factor")?,
            }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low: need(self.low_freq_factor, "low_freq_factor")?,
                high: need(self.high_freq_factor, "high_freq_factor")?,
                context: need(self.original_max_position_embeddings, "original_max_position_embeddings")?,
            }),
            "yarn" => {
                require(self.truncate != Some(false), files, CONFIG, "rope_scaling.truncate must be true")?;
                let factor = need(self.factor, "factor")?;
                Ok(RopeScaling::Yarn {
                    factor,
                    fast: need(self.beta_fast.or(Some(32.0)), "beta_fast")?,
                    slow: need(self.beta_slow.or(Some(1.0)), "beta_slow")?,
                    context: need(self.original_max_position_embeddings, "original_max_position_embeddings")?,
                    magnitude: need(self.attention_factor.or(Some(self.yarn_magnitude(factor))), "attention_factor")?,
                })
            }
            "longrope" | "su" => Ok(RopeScaling::Long {
                near: factors(files, self.short_factor.as_deref(), "short_factor")?,
                far: factors(files, self.long_factor.as_deref(), "long_factor")?,
                magnitude: need(self.attention_factor.or(self.long_magnitude()), "original_max_position_embeddings")?,
            }),
            other => Err(refused(format!("rope_scaling.rope_type {other:?} is not supported"))),
        }
    }

    /// LongRoPE's `attention_factor` where it is not given.
    fn long_magnitude(&self) -> Option<f64> {
        let old = self.original_max_position_embeddings?;
        let factor = self.factor.or(Some(self.max_position_embeddings? / old))?;
        Some(if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / old.ln()).sqrt() })
    }

    /// A rotary embedding of heads of `head_dim` elements; the base where none is given is `theta`.
    pub fn rope(&self, files: &Files, head_dim: usize, theta: f64) -> Result<RopeConfig, ModelError> {
        let scaling = self.scaling(files)?;
        let share = self.partial_rotary_factor.unwrap_or(1.0);
        let width = match scaling {
            RopeScaling::Proportional { .. } => head_dim,
            _ => (head_dim as f64 * share) as usize,
        };
        let usable = share > 0.0 && share <= 1.0 && width > 0 && width.is_multiple_of(2);
        require(usable, files, CONFIG, "partial_rotary_factor must make an even number of elements of head_dim")?;
        if let RopeScaling::Long { near, far, .. } = &scaling {
            let each = near.len() == width / 2 && far.len() == width / 2;
            let wanted = format!("rope_scaling.short_factor and long_factor must have {} numbers each", width / 2);
            require(each, files, CONFIG, &wanted)?;
        }
        Ok(RopeConfig { scaling, ..RopeConfig::plain(width, self.rope_theta.unwrap_or(theta)) })
    }

    /// YaRN's `attention_factor` where it is not given.
    fn yarn_magnitude(&self, factor: f64) -> f64 {
        let of = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        match (self.mscale, self.mscale_all_dim) {
            (Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => of(scale) / of(all),
            _ => of(1.0),
        }
    }
}

fn factors(files: &Files, given: Option<&[f64]>, key: &str) -> Result<Vec<f64>, ModelError> {
    let factors = given.unwrap_or_default();
    let usable = !factors.is_empty() && factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
    require(usable, files, CONFIG, &format!("rope_scaling.{key} must be a list of positive numbers"))?;
    Ok(factors.to_vec())
}

impl TextConfig {
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Of the feed-forward parts.
    pub fn activation(&self) -> Activation {
        self.hidden_activation.or(self.hidden_act).unwrap_or(Activation::Silu)
    }

    /// The rotary embedding, wherever its keys stand.
    pub fn rope(&self) -> RopeScalingConfig {
        let rope = self.rope_parameters.clone().or_else(|| self.rope_scaling.clone()).unwrap_or_default();
        RopeScalingConfig {
            rope_theta: rope.rope_theta.or(self.rope_theta),
            partial_rotary_factor: rope.partial_rotary_factor.or(self.partial_rotary_factor),
            original_max_position_embeddings: rope.original_max_position_embeddings.or(self.original_max_position_embeddings),
            max_position_embeddings: rope.max_position_embeddings.or(self.max_position_embeddings),
            ..rope
        }
    }

    /// The sizes make sense together.
    pub fn check(&self, files: &Files) -> Result<(), ModelError> {
        let (heads, kv_heads) = (self.num_attention_heads, self.kv_heads());
        require(
            heads > 0 && kv_heads > 0 && heads % kv_heads == 0,
            files,
            CONFIG,
            "num_attention_heads is not a multiple of num_key_value_heads",
        )?;
        require(self.head_dim() > 0 && self.head_dim().is_multiple_of(2), files, CONFIG, "head_dim must be even and positive")?;
        require(self.hidden_size > 0 && self.vocab_size > 0, files, CONFIG, "hidden_size and vocab_size must be positive")
    }

    /// A decoder of the Llama kind: pre-norm, gated, one rotary embedding. Families change what differs.
    pub fn decoder(&self, files: &Files, head: Head) -> Result<DecoderConfig, ModelError> {
        self.check(files)?;
        let activation = self.activation();
        let head_dim = self.head_dim();
        let layer = LayerConfig {
            mixer: Mixer::Attention(AttentionConfig {
                heads: self.num_attention_heads,
                kv_heads: self.kv_heads(),
                head_dim,
                qkv_bias: false,
                qk_norm: None,
                v_norm: None,
                kv: KvSource::Own,
                rope: Some(0),
                temperature: None,
                scores: Scores::plain(head_dim),
                gate: OutputGate::Absent,
            }),
            ffn: Ffn::Gated(GatedConfig::new(self.intermediate_size, activation)),
            beside: None,
            norms: Norms::Pre,
            gates: LayerGates::Absent,
            scale: LayerScale::Absent,
        };
        Ok(DecoderConfig {
            hidden: self.hidden_size,
            vocab: self.vocab_size,
            embedding_scale: 1.0,
            layers: vec![layer; self.num_hidden_layers],
            norm: NormConfig::Rms { eps: self.rms_norm_eps },
            ropes: vec![self.rope().rope(files, head_dim, 10_000.0)?],
            head,
            unspoken: 0,
            logit_softcap: None,
            per_layer: None,
            deepstack: 0,
        })
    }
}

/// Whether the output head is the token table.
pub fn head(tied: bool) -> Head {
    if tied { Head::Tied } else { Head::Own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_given_stands_over_the_defaults() {
        let cases = [
            (
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
                json!({"b": {"c": 5}, "e": 6}),
                json!({"a": 1, "b": {"c": 5, "d": 3}, "e": 6}),
            ),
            (json!({"a": 1}), json!({"a": null}), json!({"a": 1})),
            (json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2})),
            (json!({}), json!({"a": null}), json!({"a": null})),
        ];
        for (defaults, given, expected) in cases {
            assert_eq!(merge(defaults, given), expected);
        }
    }
}
