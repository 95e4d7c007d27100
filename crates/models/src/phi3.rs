//! Phi-3 and what came after it (Abdin et al. 2024, "Phi-3 Technical Report", arXiv:2404.14219; Phi-4, Phi-4 mini): a Llama whose projections
//! for queries, keys and values are stored as one, and so are gate and values of the feed-forward part. Rotary embeddings turn part
//! of a head in Phi-4 mini, and have factors for long prompts. Reference: transformers, models/phi3.
//!
//! Which factors hold is decided by a prompt's length, and holds for its whole answer.

use nn::{DecoderConfig, Files, Model, Prompt, Reach, Weights};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::{CONFIG, TextConfig, head, merge, read, require, sliding_window};
use crate::{Family, ModelError, Processor, text_only};

pub const FAMILY: Family = Family {
    name: "phi3",
    title: "Phi-3, Phi-3.5, Phi-4",
    architectures: &["Phi3ForCausalLM"],
    modalities: &[],
    slices: None,
    boxes: None,
    processor,
    model,
};

fn processor(files: &Files) -> Result<Box<dyn Processor>, ModelError> {
    Ok(Box::new(text_only::TextProcessor { near: Near::read(files)? }))
}

fn model(files: &Files, w: &Weights) -> Result<Box<dyn Model>, ModelError> {
    text_only::model(&decoder_config(files, json!({}))?, w)
}

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Extra {
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    lm_head_bias: bool,
    max_position_embeddings: usize,
}

/// Reads the keys of a Phi-3, which stand at the top of config.json, over the defaults of its class and `defaults`.
///
/// # Errors
/// They make no sense.
pub fn decoder_config(files: &Files, defaults: Value) -> Result<DecoderConfig, ModelError> {
    let class = json!({
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false,
        "lm_head_bias": false,
    });
    let defaults = merge(class, defaults);
    let extra: Extra = read(files, CONFIG, defaults.clone())?;
    let text: TextConfig = read(files, CONFIG, defaults)?;
    let biased = extra.attention_bias || extra.mlp_bias || extra.lm_head_bias;
    require(!biased, files, CONFIG, "attention_bias, mlp_bias and lm_head_bias are not supported")?;
    require(text.intermediate_size > 0, files, CONFIG, "intermediate_size must be positive")?;
    let mut decoder = text.decoder(files, head(extra.tie_word_embeddings))?;
    // Windows as wide as the context are written where none are meant.
    let window = sliding_window(files, None)?.filter(|window| *window < extra.max_position_embeddings);
    for attention in decoder.layers.iter_mut().filter_map(|layer| layer.mixer.attention_mut()) {
        attention.scores.back = window.into();
    }
    Ok(decoder)
}

/// How long a prompt may be for the factors of short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Near(usize);

impl Near {
    /// For families whose rotary embeddings have no factors for long prompts.
    pub const ALL: Self = Self(usize::MAX);

    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let config: Value = files.required_json(CONFIG)?;
        let rope = config.get("rope_parameters").unwrap_or(&config["rope_scaling"]);
        let tokens = |config: &Value| config["original_max_position_embeddings"].as_u64();
        Ok(tokens(rope).or_else(|| tokens(&config)).map_or(Self::ALL, |tokens| Self(tokens as usize)))
    }

    /// What a prompt turns by.
    pub fn reach(self, prompt: &Prompt) -> Reach {
        if prompt.tokens.len() > self.0 { Reach::Far } else { Reach::Near }
    }
}
