use nn::{Activation, DecoderConfig, Files};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, read, require};
use crate::llama;
use crate::whisper::WhisperConfig;

/// config.json.
#[derive(Debug, Deserialize)]
pub struct Config {
    pub audio_config: WhisperConfig,
    pub audio_token_id: u32,
    pub projector_hidden_act: Activation,
}

impl Config {
    pub fn read(files: &Files) -> Result<Self, ModelError> {
        let audio = json!({
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "num_mel_bins": 128,
            "max_source_positions": 1500, "activation_function": "gelu", "scale_embedding": false,
        });
        let defaults = json!({"audio_config": audio, "audio_token_id": 24, "projector_hidden_act": "gelu"});
        let config: Self = read(files, CONFIG, defaults)?;
        let audio = &config.audio_config;
        audio.check(files, "audio_config")?;
        let whole = |a: usize, b: usize| b > 0 && a.is_multiple_of(b);
        let rows =
            whole(audio.intermediate_size, audio.hidden_size) && whole(audio.max_source_positions, config.states_per_row());
        require(
            rows,
            files,
            CONFIG,
            "audio_config.intermediate_size must be that of whole states that divide max_source_positions",
        )?;
        Ok(config)
    }

    /// States of the encoder that become one row: as many as are as wide as its feed-forward parts.
    fn states_per_row(&self) -> usize {
        self.audio_config.intermediate_size / self.audio_config.hidden_size
    }

    /// Rows of a window.
    pub fn rows_per_window(&self) -> usize {
        self.audio_config.max_source_positions / self.states_per_row()
    }

    pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
        let defaults = json!({
            "model_type": "llama", "vocab_size": 131072, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 30, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e8,
        });
        llama::decoder_config(files, defaults)
    }
}
