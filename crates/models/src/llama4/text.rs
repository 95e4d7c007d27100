use nn::{
    Back, Bias, DecoderConfig, Ffn, Files, GatedConfig, MoeConfig, NormConfig, Pairing, RouterConfig, RouterGate, Scoring,
    SharedExpert, Shares, Temperature, Weighed,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ModelError;
use crate::config::{CONFIG, TextConfig, head, read_text, require};

/// What [`TextConfig`] does not have.
#[derive(Debug, Deserialize)]
struct Keys {
    tie_word_embeddings: bool,
    attention_bias: bool,
    intermediate_size_mlp: usize,
    num_local_experts: usize,
    num_experts_per_tok: usize,
    moe_layers: Option<Vec<usize>>,
    interleave_moe_layer_step: usize,
    use_qk_norm: bool,
    /// 0 for layers that know no positions.
    no_rope_layers: Vec<u32>,
    no_rope_layer_interval: usize,
    layer_types: Option<Vec<LayerType>>,
    attention_chunk_size: usize,
    /// A boolean; a number in the first releases.
    attn_temperature_tuning: Value,
    floor_scale: f64,
    attn_scale: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LayerType {
    ChunkedAttention,
    FullAttention,
}

/// Reads the keys of the language model, which stand in `text_config` or at the top of config.json.
pub fn decoder(files: &Files) -> Result<DecoderConfig, ModelError> {
    let defaults = json!({
        "vocab_size": 202_048, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": false, "attention_bias": false, "num_experts_per_tok": 1,
        "num_local_experts": 16, "interleave_moe_layer_step": 1, "use_qk_norm": true, "no_rope_layers": [],
        "no_rope_layer_interval": 4, "attention_chunk_size": 8192, "attn_temperature_tuning": true, "floor_scale": 8192.0,
        "attn_scale": 0.1,
    });
    let text: TextConfig = read_text(files, defaults.clone())?;
    let keys: Keys = read_text(files, defaults)?;
    keys.check(&text, files)?;
    let mut decoder = text.decoder(files, head(keys.tie_word_embeddings))?;
    decoder.ropes.iter_mut().for_each(|rope| rope.pairing = Pairing::Neighbours);
    let activation = text.activation();
    for (i, layer) in decoder.layers.iter_mut().enumerate() {
        let turned = keys.is_turned(i);
        if let Some(attention) = layer.mixer.attention_mut() {
            attention.rope = turned.then_some(0);
            // The reference norms what is turned already, which is the same: turning changes no lengths.
            attention.qk_norm = (turned && keys.use_qk_norm).then_some(NormConfig::RmsUnweighted { eps: text.rms_norm_eps });
            attention.scores.back = if keys.is_chunked(i) { Back::Chunk(keys.attention_chunk_size) } else { Back::All };
            attention.temperature = keys.temperature().filter(|_| !turned);
        }
        layer.ffn = match keys.has_experts(i) {
            true => Ffn::Moe(keys.experts(&text)),
            false => Ffn::Gated(GatedConfig::new(keys.intermediate_size_mlp, activation)),
        };
    }
    Ok(decoder)
}

impl Keys {
    fn check(&self, text: &TextConfig, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason| require(met, files, CONFIG, reason);
        let layers = text.num_hidden_layers;
        check(!self.attention_bias, "attention_bias is not supported")?;
        let widths = text.intermediate_size > 0 && self.intermediate_size_mlp > 0;
        check(widths, "intermediate_size and intermediate_size_mlp must be positive")?;
        let some = (1..=self.num_local_experts).contains(&self.num_experts_per_tok);
        check(some, "num_experts_per_tok must be positive and at most num_local_experts")?;
        check(self.moe_layers.is_some() || self.interleave_moe_layer_step > 0, "interleave_moe_layer_step must be positive")?;
        let each = self.no_rope_layers.is_empty() || self.no_rope_layers.len() >= layers;
        check(each && self.no_rope_layer_interval > 0, "no_rope_layers must have an entry for each layer")?;
        let typed = self.layer_types.as_ref().is_none_or(|types| types.len() == layers);
        check(typed, "layer_types must have an entry for each layer")?;
        check(self.attention_chunk_size > 0, "attention_chunk_size must be positive")?;
        check(self.floor_scale > 0.0 && self.attn_scale.is_finite(), "floor_scale must be positive, and attn_scale finite")
    }

    fn is_turned(&self, layer: usize) -> bool {
        match self.no_rope_layers.get(layer) {
            Some(turned) => *turned != 0,
            None => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
        }
    }

    fn is_chunked(&self, layer: usize) -> bool {
        match &self.layer_types {
            Some(types) => types[layer] == LayerType::ChunkedAttention,
            None => self.is_turned(layer),
        }
    }

    fn has_experts(&self, layer: usize) -> bool {
        match &self.moe_layers {
            Some(layers) => layers.contains(&layer),
            None => (layer + 1).is_multiple_of(self.interleave_moe_layer_step),
        }
    }

    fn temperature(&self) -> Option<Temperature> {
        let tuned = self.attn_temperature_tuning != json!(false) && self.attn_temperature_tuning != json!(0);
        tuned.then_some(Temperature { rate: self.attn_scale, every: self.floor_scale })
    }

    fn experts(&self, text: &TextConfig) -> MoeConfig {
        MoeConfig {
            experts: self.num_local_experts,
            inner: text.intermediate_size,
            activation: text.activation(),
            router: RouterConfig {
                chosen: self.num_experts_per_tok,
                scoring: Scoring::Sigmoid,
                shares: Shares::Scores,
                scale: 1.0,
                correction: Bias::Absent,
                gate: RouterGate::Plain,
            },
            weighed: Weighed::Inputs,
            shared: Some(SharedExpert::Plain(text.intermediate_size)),
        }
    }
}
