//! Decoders of the Llama line (Touvron et al. 2023), which many families have as their language model.

use nn::{DecoderConfig, Files};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, TextConfig, head, read_part, require};

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Extra {
    tie_word_embeddings: bool,
    attention_bias: bool,
    mlp_bias: bool,
    sliding_window: Option<usize>,
}

/// The decoder under a key of config.json, over the defaults of the family's class.
pub fn decoder_config(files: &Files, key: &str, defaults: Value) -> Result<DecoderConfig, ModelError> {
    let text: TextConfig = read_part(files, CONFIG, key, defaults)?;
    let extra: Extra =
        read_part(files, CONFIG, key, json!({"tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false}))?;
    let refuse = |met, reason: &str| require(met, files, CONFIG, &format!("{key}.{reason}"));
    refuse(!extra.attention_bias, "attention_bias is not supported")?;
    refuse(!extra.mlp_bias, "mlp_bias is not supported")?;
    refuse(extra.sliding_window != Some(0), "sliding_window must be positive")?;
    refuse(text.intermediate_size > 0, "intermediate_size must be positive")?;
    let mut decoder = text.decoder(files, head(extra.tie_word_embeddings))?;
    for attention in decoder.layers.iter_mut().filter_map(|layer| layer.mixer.attention_mut()) {
        attention.scores.window = extra.sliding_window;
    }
    Ok(decoder)
}
