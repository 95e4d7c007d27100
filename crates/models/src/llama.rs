//! Llama (Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", and its successors) and Mistral (Jiang et
//! al. 2023, "Mistral 7B"): the plain decoder, alone, and the reading of its keys for the families that put a tower in front of it.
//!
//! Norms stand before attention and before the gated feed-forward part; key heads may be shared. Mistral's layers see no further
//! than a window, if config.json says so. Reference: transformers, models/llama and models/mistral.

use nn::{DecoderConfig, Files, Model, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{CONFIG, TextConfig, head, merge, read_text, require, sliding_window};
use crate::{Family, ModelError, text_only};

pub const LLAMA: Family = Family {
    name: "llama",
    title: "Llama 2, Llama 3",
    architectures: &["LlamaForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model,
};

pub const MISTRAL: Family = Family {
    name: "mistral",
    title: "Mistral",
    architectures: &["MistralForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor: text_only::processor,
    model,
};

fn model(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder_config(files, json!({}))?, w)
}

/// The class of a language model, as `model_type` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Class {
    Llama,
    Mistral,
}

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Extra {
    model_type: Class,
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
}

/// Reads the keys of a Llama or Mistral, which stand at the top of config.json or in `text_config`. `defaults` are what a family
/// says where its config.json is silent: `model_type`, at least, where it may be.
///
/// # Errors
/// The language model is of another class, or its keys make no sense.
pub fn decoder_config(files: &Files, defaults: Value) -> Result<DecoderConfig, ModelError> {
    let silent = json!({"tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false});
    let extra: Extra = read_text(files, merge(silent, defaults.clone()))?;
    let text: TextConfig = read_text(files, merge(extra.model_type.defaults(), defaults.clone()))?;
    let whole: Value = files.required_json(CONFIG)?;
    let tied = extra.tie_word_embeddings || whole["tie_word_embeddings"] == true;
    require(!extra.attention_bias && !extra.mlp_bias, files, CONFIG, "attention_bias and mlp_bias are not supported")?;
    require(text.intermediate_size > 0, files, CONFIG, "intermediate_size must be positive")?;
    let mut decoder = text.decoder(files, head(tied))?;
    if extra.model_type == Class::Mistral {
        let window = sliding_window(files, Some(WINDOW))?;
        for attention in decoder.layers.iter_mut().filter_map(|layer| layer.mixer.attention_mut()) {
            attention.scores.back = window.into();
        }
    }
    Ok(decoder)
}

/// Of Mistral's class.
const WINDOW: usize = 4096;

impl Class {
    fn defaults(self) -> Value {
        let common = json!({
            "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        });
        let own = match self {
            Self::Llama => json!({"intermediate_size": 11008}),
            Self::Mistral => json!({"intermediate_size": 14336, "num_key_value_heads": 8}),
        };
        merge(common, own)
    }
}
