use nn::{Files, GatedDeltaConfig, LayerConfig, Mixer, OutputGate};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, read_text, require};

/// What a layer mixes tokens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    LinearAttention,
    FullAttention,
}

#[derive(Debug, Deserialize)]
struct Keys {
    layer_types: Option<Vec<LayerType>>,
    full_attention_interval: usize,
    attn_output_gate: bool,
    linear_num_key_heads: usize,
    linear_num_value_heads: usize,
    linear_key_head_dim: usize,
    linear_value_head_dim: usize,
    linear_conv_kernel_dim: usize,
}

/// Puts gated delta nets in the place of attention in the layers that have them, and gates on the attention of the others.
pub fn put_in(files: &Files, layers: &mut [LayerConfig], norm_eps: f64) -> Result<(), ModelError> {
    let keys: Keys = read_text(
        files,
        json!({
            "full_attention_interval": 4, "attn_output_gate": true, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
            "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
        }),
    )?;
    let delta = keys.delta(files, norm_eps)?;
    let types = keys.types(files, layers.len())?;
    for (layer, kind) in layers.iter_mut().zip(types) {
        match (kind, layer.mixer.attention_mut()) {
            (LayerType::LinearAttention, _) => layer.mixer = Mixer::GatedDelta(delta),
            (LayerType::FullAttention, Some(attention)) if keys.attn_output_gate => attention.gate = OutputGate::Sigmoid,
            (LayerType::FullAttention, _) => {}
        }
    }
    Ok(())
}

impl Keys {
    fn types(&self, files: &Files, layers: usize) -> Result<Vec<LayerType>, ModelError> {
        require(self.full_attention_interval > 0, files, CONFIG, "full_attention_interval must be positive")?;
        let by_interval = |i: usize| match (i + 1) % self.full_attention_interval {
            0 => LayerType::FullAttention,
            _ => LayerType::LinearAttention,
        };
        let types = self.layer_types.clone().unwrap_or_else(|| (0..layers).map(by_interval).collect());
        require(types.len() == layers, files, CONFIG, "layer_types must name every layer")?;
        Ok(types)
    }

    fn delta(&self, files: &Files, norm_eps: f64) -> Result<GatedDeltaConfig, ModelError> {
        let (key_heads, value_heads) = (self.linear_num_key_heads, self.linear_num_value_heads);
        let shared = key_heads > 0 && value_heads > 0 && value_heads.is_multiple_of(key_heads);
        require(shared, files, CONFIG, "linear_num_value_heads is not a multiple of linear_num_key_heads")?;
        let (key_dim, value_dim, taps) = (self.linear_key_head_dim, self.linear_value_head_dim, self.linear_conv_kernel_dim);
        let sizes = "linear_key_head_dim, linear_value_head_dim and linear_conv_kernel_dim must be positive";
        require(key_dim > 0 && value_dim > 0 && taps > 0, files, CONFIG, sizes)?;
        Ok(GatedDeltaConfig { key_heads, value_heads, key_dim, value_dim, taps, norm_eps })
    }
}
