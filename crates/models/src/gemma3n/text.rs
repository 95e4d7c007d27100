//! `text_config`, and what is left of it in a slice.

use nn::{
    Activation, AttentionConfig, DecoderConfig, Ffn, Files, GatedConfig, Gates, Head, KvSource, LayerConfig, LayerGates,
    LayerScale, Mixer, NormConfig, Norms, OutputGate, PerLayerConfig, RopeConfig, RopeScaling, Scores, Slice,
};
use serde::Deserialize;
use serde_json::json;

use crate::ModelError;
use crate::config::{CONFIG, RopeScalingConfig, read_part, require};
use crate::gemma::{LayerType, RopeParameters, ropes, share_keys_and_values};

#[derive(Debug, Clone, Deserialize)]
struct TextConfig {
    vocab_size: usize,
    vocab_size_per_layer_input: usize,
    hidden_size: usize,
    hidden_size_per_layer_input: usize,
    intermediate_size: OfLayers<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    num_kv_shared_layers: usize,
    head_dim: usize,
    hidden_activation: Activation,
    rms_norm_eps: f64,
    rope_theta: f64,
    rope_local_base_freq: f64,
    rope_scaling: Option<RopeScalingConfig>,
    rope_parameters: Option<RopeParameters>,
    sliding_window: usize,
    layer_types: Option<Vec<LayerType>>,
    final_logit_softcapping: Option<f64>,
    activation_sparsity_pattern: Option<OfLayers<f64>>,
    altup_num_inputs: usize,
    altup_active_idx: usize,
    altup_correct_scale: bool,
    laurel_rank: usize,
}

/// A number for all layers, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OfLayers<T> {
    All(T),
    Each(Vec<T>),
}

/// The language model as data.
#[derive(Debug)]
pub struct Text {
    pub decoder: DecoderConfig,
    pub per_layer: PerLayerConfig,
    /// Layers of the checkpoint that are left out.
    pub skipped: Vec<usize>,
    /// Streams of hidden states.
    pub streams: usize,
    /// The one that layers compute.
    pub active: usize,
    /// Whether it is scaled before per-layer embeddings are mixed in.
    pub scale: CorrectedScale,
    pub laurel_rank: usize,
}

/// What the corrected active stream is multiplied by on its way to the per-layer embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorrectedScale {
    Learned,
    One,
}

/// A layer of the checkpoint that is kept.
struct Kept {
    number: usize,
    kind: LayerType,
    inner: usize,
    stored: usize,
    sparsity: f64,
}

impl<T: Copy> OfLayers<T> {
    fn each(&self, layers: usize, key: &str, files: &Files) -> Result<Vec<T>, ModelError> {
        let each = match self {
            Self::All(one) => vec![*one; layers],
            Self::Each(each) => each.clone(),
        };
        let fits = each.len() == layers;
        require(fits, files, CONFIG, &format!("text_config.{key} must be one number, or one for each layer"))?;
        Ok(each)
    }
}

impl Text {
    /// Reads config.json; of a slice, what is left.
    pub fn read(files: &Files, slice: Option<&Slice>) -> Result<Self, ModelError> {
        let defaults = json!({
            "vocab_size": 262_400, "vocab_size_per_layer_input": 262_144, "hidden_size": 2048, "hidden_size_per_layer_input": 256,
            "intermediate_size": 16_384, "num_hidden_layers": 35, "num_attention_heads": 8, "num_key_value_heads": 2,
            "num_kv_shared_layers": 15, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 512, "final_logit_softcapping": 30.0,
            "altup_num_inputs": 4, "altup_active_idx": 0, "altup_correct_scale": true, "laurel_rank": 64,
        });
        let config: TextConfig = read_part(files, CONFIG, "text_config", defaults)?;
        config.check(files)?;
        let kept = config.kept(files, slice)?;
        let skipped: Vec<usize> = slice.map_or_else(Vec::new, |slice| slice.skipped.clone());
        let per_layer = PerLayerConfig {
            width: config.hidden_size_per_layer_input,
            vocab: config.vocab_size_per_layer_input,
            stored: config.num_hidden_layers,
            layers: kept.iter().map(|layer| layer.number).collect(),
            pad: 0,
            activation: config.hidden_activation,
        };
        Ok(Self {
            decoder: config.decoder(files, &kept)?,
            per_layer,
            skipped,
            streams: config.altup_num_inputs,
            active: config.altup_active_idx,
            scale: if config.altup_correct_scale { CorrectedScale::Learned } else { CorrectedScale::One },
            laurel_rank: config.laurel_rank,
        })
    }
}

impl TextConfig {
    /// The sizes make sense together.
    fn check(&self, files: &Files) -> Result<(), ModelError> {
        let check = |met, reason| require(met, files, CONFIG, reason);
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        let divides = heads > 0 && kv_heads > 0 && heads.is_multiple_of(kv_heads);
        check(divides, "text_config.num_attention_heads is not a multiple of num_key_value_heads")?;
        let even = self.head_dim > 0 && self.head_dim.is_multiple_of(2);
        check(even, "text_config.head_dim must be even and positive")?;
        let sizes = [self.hidden_size, self.vocab_size, self.hidden_size_per_layer_input, self.vocab_size_per_layer_input];
        check(
            sizes.iter().all(|size| *size > 0),
            "text_config.hidden_size and vocab_size, also per_layer_input, must be positive",
        )?;
        check(self.num_hidden_layers > 0, "text_config.num_hidden_layers must be positive")?;
        check(self.sliding_window > 0, "text_config.sliding_window must be positive")?;
        check(self.laurel_rank > 0, "text_config.laurel_rank must be positive")?;
        let cap = self.final_logit_softcapping.is_none_or(|cap| cap.is_finite() && cap > 0.0);
        check(cap, "text_config.final_logit_softcapping must be positive")?;
        let streams = self.altup_num_inputs >= 2 && self.altup_active_idx < self.altup_num_inputs;
        check(streams, "text_config.altup_num_inputs must be at least 2 and above altup_active_idx")
    }

    /// The layers that are kept, all of them without a slice.
    fn kept(&self, files: &Files, slice: Option<&Slice>) -> Result<Vec<Kept>, ModelError> {
        let layers = self.num_hidden_layers;
        let stored = self.intermediate_size.each(layers, "intermediate_size", files)?;
        let types = self.layer_types.clone().unwrap_or_else(|| LayerType::every(5, layers));
        require(types.len() == layers, files, CONFIG, "text_config.layer_types must name every layer")?;
        let sparsity = match &self.activation_sparsity_pattern {
            Some(pattern) => pattern.each(layers, "activation_sparsity_pattern", files)?,
            None => (0..layers).map(|i| if layers > 10 && i < 10 { 0.95 } else { 0.0 }).collect(),
        };
        let shares = sparsity.iter().all(|share| (0.0..1.0).contains(share));
        require(shares, files, CONFIG, "text_config.activation_sparsity_pattern must be between 0 and 1")?;
        let mut widths = match slice {
            None => stored.clone(),
            Some(slice) => {
                self.check_slice(slice, &types)?;
                slice.inner.clone()
            }
        }
        .into_iter();
        let skipped = |number: &usize| slice.is_some_and(|slice| slice.skipped.contains(number));
        let kept = (0..layers).filter(|number| !skipped(number));
        let kept = kept.zip(&mut widths).map(|(number, inner)| {
            let (kind, stored, sparsity) = (types[number], stored[number], sparsity[number]);
            Kept { number, kind, inner, stored, sparsity }
        });
        let kept: Vec<Kept> = kept.collect();
        for Kept { number, inner, stored, .. } in &kept {
            let reason =
                format!("layer {number} has {stored} columns in its feed-forward part, and {inner} of them are asked for");
            require((1..=*stored).contains(inner), files, CONFIG, &reason)?;
        }
        Ok(kept)
    }

    /// The slice fits this model.
    fn check_slice(&self, slice: &Slice, types: &[LayerType]) -> Result<(), ModelError> {
        let layers = self.num_hidden_layers;
        let refuse = |reason: String| Err(ModelError::Slice { name: slice.name.clone(), reason });
        if let Some(number) = slice.skipped.iter().find(|number| **number >= layers) {
            return refuse(format!("skips layer {number}, but the model's last layer is {}", layers - 1));
        }
        let kept = layers - slice.skipped.len();
        if kept != slice.inner.len() {
            return refuse(format!("keeps {kept} of {layers} layers, but names the widths of {}", slice.inner.len()));
        }
        let own = &types[..layers.saturating_sub(self.num_kv_shared_layers)];
        let donors = [LayerType::SlidingAttention, LayerType::FullAttention].map(|kind| own.iter().rposition(|own| *own == kind));
        match donors.into_iter().flatten().find(|donor| self.num_kv_shared_layers > 0 && slice.skipped.contains(donor)) {
            Some(donor) => refuse(format!("skips layer {donor}, whose keys and values later layers use")),
            None => Ok(()),
        }
    }

    fn decoder(&self, files: &Files, kept: &[Kept]) -> Result<DecoderConfig, ModelError> {
        let scaling = self.rope_scaling.clone().map_or(Ok(RopeScaling::None), |scaling| scaling.scaling(files))?;
        let full = RopeConfig { scaling, ..RopeConfig::plain(self.head_dim, self.rope_theta) };
        let mut layers: Vec<LayerConfig> = kept.iter().map(|layer| self.layer(layer)).collect();
        let types: Vec<LayerType> = kept.iter().map(|layer| layer.kind).collect();
        let first_shared = self.num_hidden_layers.saturating_sub(self.num_kv_shared_layers);
        let shared = kept.iter().filter(|layer| layer.number >= first_shared).count();
        share_keys_and_values(&mut layers, &types, shared, files)?;
        Ok(DecoderConfig {
            hidden: self.hidden_size,
            vocab: self.vocab_size,
            embedding_scale: (self.hidden_size as f64).sqrt(),
            layers,
            norm: NormConfig::Rms { eps: self.rms_norm_eps },
            ropes: ropes(full, self.rope_local_base_freq, self.rope_parameters.as_ref(), files)?,
            head: Head::Tied,
            unspoken: 0,
            logit_softcap: self.final_logit_softcapping,
            per_layer: None, // the layers are not those of the common decoder
            deepstack: 0,
        })
    }

    fn layer(&self, kept: &Kept) -> LayerConfig {
        let norm = NormConfig::Rms { eps: self.rms_norm_eps };
        let (rope, back) = kept.kind.reach(self.sliding_window);
        let gates = match kept.sparsity {
            0.0 => Gates::All,
            share => Gates::Above { deviations: normal_quantile(share) },
        };
        LayerConfig {
            mixer: Mixer::Attention(AttentionConfig {
                heads: self.num_attention_heads,
                kv_heads: self.num_key_value_heads,
                head_dim: self.head_dim,
                qkv_bias: false,
                qk_norm: Some(norm),
                v_norm: Some(NormConfig::RmsUnweighted { eps: self.rms_norm_eps }),
                kv: KvSource::Own,
                rope,
                temperature: None,
                scores: Scores { scale: 1.0, back, ..Scores::plain(self.head_dim) },
                gate: OutputGate::Absent,
            }),
            ffn: Ffn::Gated(GatedConfig { inner: kept.inner, stored: kept.stored, activation: self.hidden_activation, gates }),
            beside: None,
            norms: Norms::Sandwich,
            gates: LayerGates::Absent,
            scale: LayerScale::Absent,
        }
    }
}

/// The number below which a normal deviate is with this probability, by bisection.
fn normal_quantile(probability: f64) -> f64 {
    let below = |x: f64| {
        // Φ(x) = 1/2 + φ(x) (x + x³/3 + x⁵/15 + ...), Marsaglia 2004
        let (mut term, mut sum, mut k) = (x, x, 1.0);
        while term.abs() > 1e-17 {
            k += 2.0;
            term *= x * x / k;
            sum += term;
        }
        0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if below(middle) < probability { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (probability, expected) in [(0.5, 0.0), (0.95, 1.644_853_627), (0.75, 0.674_489_750), (0.001, -3.090_232_306)] {
            assert!((normal_quantile(probability) - expected).abs() < 1e-8, "{probability}");
        }
    }
}
