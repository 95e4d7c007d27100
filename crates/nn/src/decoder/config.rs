//! What a decoder is made of, layer by layer. Every "is this one different" is answered here, at load.

use crate::{Activation, CacheSpec, LayerCache, MoeConfig, NnError, NormConfig, RopeConfig, Scores, Weights};

/// A decoder: token table, layers, final norm, output head.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Width of the hidden states.
    pub hidden: usize,
    /// Rows of the token table.
    pub vocab: usize,
    /// Factor on token embeddings (not on media rows).
    pub embedding_scale: f64,
    /// The layers.
    pub layers: Vec<LayerConfig>,
    /// Every norm over hidden states.
    pub norm: NormConfig,
    /// Rotary embeddings that layers refer to by number.
    pub ropes: Vec<RopeConfig>,
    /// Output head.
    pub head: Head,
    /// Rows of the token table behind those of the vocabulary: tokens that can be read and are never written.
    pub unspoken: usize,
    /// Logits l become cap * tanh(l / cap).
    pub logit_softcap: Option<f64>,
    /// What each layer is told about each token once more.
    pub per_layer: Option<PerLayerConfig>,
    /// Layers, from the first on, behind which media rows are added to the hidden states once more (DeepStack; Meng et al.
    /// 2024). Media rows are [rows, hidden * (1 + deepstack)]: what takes the place of embeddings, then a part for each layer.
    pub deepstack: usize,
}

/// Where logits come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// From the token table.
    Tied,
    /// From a matrix of its own, `lm_head`.
    Own,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerConfig {
    /// What mixes tokens.
    pub mixer: Mixer,
    /// What works on each token.
    pub ffn: Ffn,
    /// Experts that work beside it on x, which is what the norm before it is given: norm(ffn(..)) + norm(experts(norm(x))). The router
    /// is given x itself. The norms are `post_feedforward_layernorm_1`, `_2` and `pre_feedforward_layernorm_2`.
    pub beside: Option<MoeConfig>,
    /// Where norms stand.
    pub norms: Norms,
    /// What the layer's parts are multiplied by before they are added.
    pub gates: LayerGates,
    /// What the layer's result is multiplied by.
    pub scale: LayerScale,
}

/// What the results of a layer's two parts are multiplied by before they are added to the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerGates {
    /// Nothing.
    Absent,
    /// tanh of a number each, of these names: the mixer's, and the feed-forward part's (Alayrac et al. 2022, arXiv:2204.14198).
    Tanh([&'static str; 2]),
}

/// What the result of a layer, residual included, is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerScale {
    /// Nothing.
    Absent,
    /// A number, `layer_scalar`.
    Learned,
}

/// What mixes tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Softmax attention over the cache.
    Attention(AttentionConfig),
    /// Attention whose past is one matrix per head.
    GatedDelta(GatedDeltaConfig),
    /// Attention to media. Tokens that see none pass the whole layer by.
    CrossAttention(CrossAttentionConfig),
}

/// Softmax attention with grouped heads.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` neighbours.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Norm of each head of q and k, before the rotary embedding.
    pub qk_norm: Option<NormConfig>,
    /// Norm of each head of v.
    pub v_norm: Option<NormConfig>,
    /// Whose keys and values it looks at.
    pub kv: KvSource,
    /// Number of the rotary embedding in [`DecoderConfig::ropes`], if there is one.
    pub rope: Option<usize>,
    /// How queries grow.
    pub temperature: Option<Temperature>,
    /// Scale, cap and reach of the scores.
    pub scores: Scores,
    /// What the result is multiplied by.
    pub gate: OutputGate,
}

/// Queries grow with the token's number n: by a factor of 1 + rate * ln(1 + ⌊(n + 1) / every⌋) (Nakanishi 2025, arXiv:2501.19399).
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the two numbers of the formula
pub struct Temperature {
    pub rate: f64,
    pub every: f64,
}

/// Attention of tokens to the rows of media, whose keys and values are made once. Heads of q and k are normed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossAttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` neighbours.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Norm of each head of q and k.
    pub qk_norm: NormConfig,
    /// Scale and cap of the scores.
    pub scores: Scores,
}

/// Whose keys and values a layer looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvSource {
    /// Its own.
    Own,
    /// Its own, and there is no `v_proj`: values are made of what `k_proj` makes, as keys are by norm and rotation.
    OwnKeys,
    /// Those of an earlier layer with keys and values of its own, by its number. The two have the same key and value heads, the same
    /// window and the same rotary embedding; the later one has neither projections for keys and values nor a cache (Brandon et al.
    /// 2024, arXiv:2405.12981).
    Layer(usize),
}

/// What the result of attention is multiplied by, element by element (Qiu et al. 2025, arXiv:2505.06708).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputGate {
    /// Nothing.
    Absent,
    /// σ of gates that `q_proj` makes as well: a query and its gates, head by head.
    Sigmoid,
}

/// A gated delta net (Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464): short convolutions over queries, keys and values, the
/// gated delta rule, a norm of each head, and a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedDeltaConfig {
    /// Key heads, and query heads.
    pub key_heads: usize,
    /// Value heads; `value_heads / key_heads` neighbours share a key head.
    pub value_heads: usize,
    /// Elements of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Tokens that a convolution looks at, the own one included.
    pub taps: usize,
    /// Of the RMS norm of each head's result, before the gate.
    pub norm_eps: f64,
}

impl DecoderConfig {
    /// Whether what the weights are loaded for makes sense with these layers.
    ///
    /// # Errors
    /// Only experts are to be quantised, and there are none; or a topology speaks of what there is not.
    pub fn check(&self, w: &Weights) -> Result<(), NnError> {
        let has_experts = |layer: &LayerConfig| matches!(layer.ffn, Ffn::Moe(_)) || layer.beside.is_some();
        w.check_organization(self.layers.iter().any(has_experts))?;
        w.check_topology(self.layers.len())
    }

    /// What a sequence leaves in the cache, and the number of each layer's place in it; of layers that look at media, their number
    /// among these.
    ///
    /// # Errors
    /// A layer shares the keys and values of one that has no place, or another shape.
    pub fn cache(&self) -> Result<(CacheSpec, Vec<usize>), NnError> {
        let mut kept = Vec::new();
        let mut places: Vec<usize> = Vec::new();
        let mut looking = 0..;
        for layer in &self.layers {
            let Some(cache) = layer.mixer.cache() else {
                places.extend(looking.next());
                continue;
            };
            places.push(match layer.mixer.shares() {
                None => {
                    kept.push(cache);
                    kept.len() - 1
                }
                Some(earlier) => {
                    let place = places.get(earlier).copied().filter(|place| kept[*place] == cache);
                    place.ok_or(NnError::Input("an earlier layer with keys and values of the same shape"))?
                }
            });
        }
        Ok((CacheSpec::new(kept), places))
    }
}

impl Mixer {
    /// What it looks at, if that is the sequence's past.
    fn cache(&self) -> Option<LayerCache> {
        match self {
            Self::Attention(a) => Some(LayerCache::Kv { kv_heads: a.kv_heads, head_dim: a.head_dim, back: a.scores.back }),
            Self::GatedDelta(delta) => Some(delta.cache()),
            Self::CrossAttention(_) => None,
        }
    }

    /// The earlier layer that this belongs to.
    fn shares(&self) -> Option<usize> {
        match self {
            Self::Attention(AttentionConfig { kv: KvSource::Layer(earlier), .. }) => Some(*earlier),
            _ => None,
        }
    }

    /// Softmax attention, if that is what it is.
    pub fn attention_mut(&mut self) -> Option<&mut AttentionConfig> {
        match self {
            Self::Attention(attention) => Some(attention),
            Self::GatedDelta(_) | Self::CrossAttention(_) => None,
        }
    }
}

impl GatedDeltaConfig {
    /// Channels of the convolution: queries, keys and values.
    pub(crate) fn channels(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.values()
    }

    /// Elements of all value heads.
    pub(crate) fn values(&self) -> usize {
        self.value_heads * self.value_dim
    }
}

/// What works on each token.
#[derive(Debug, Clone, PartialEq)]
pub enum Ffn {
    /// down(activation(gate(x)) * up(x)) (Shazeer 2020).
    Gated(GatedConfig),
    /// Some of many, as a router says.
    Moe(MoeConfig),
}

/// down(activation(gate(x)) * up(x)) (Shazeer 2020).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GatedConfig {
    /// Width inside.
    pub inner: usize,
    /// Width inside that the checkpoint has; the first `inner` of it are taken (MatFormer; Devvrit et al. 2023, arXiv:2310.07707).
    pub stored: usize,
    /// On the gate.
    pub activation: Activation,
    /// Which gates are let through to the activation.
    pub gates: Gates,
}

/// Which gates of a row are let through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gates {
    /// All.
    All,
    /// What exceeds the row's mean by more than so many standard deviations: max(g - (mean + deviations * std), 0) (Gaussian
    /// top-k; You et al. 2025, arXiv:2506.06644).
    Above {
        /// How many.
        deviations: f64,
    },
}

impl GatedConfig {
    /// As wide as the checkpoint's, and all gates let through.
    pub fn new(inner: usize, activation: Activation) -> Self {
        Self { inner, stored: inner, activation, gates: Gates::All }
    }
}

/// Per-layer embeddings: a small vector for each token and layer, which the layer mixes into its result. One half comes from a
/// table, `embed_tokens_per_layer` [vocab, stored * width], the other from the token's hidden state, by `per_layer_model_projection`.
#[derive(Debug, Clone, PartialEq)]
pub struct PerLayerConfig {
    /// Elements of a vector.
    pub width: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Layers that the checkpoint has vectors for.
    pub stored: usize,
    /// Number of each layer among them, ascending.
    pub layers: Vec<usize>,
    /// Row of the table for media rows, and for tokens that are not in it.
    pub pad: u32,
    /// On what decides how much of the vector is let through.
    pub activation: Activation,
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before the mixer (`input_layernorm`) and before the feed-forward part (`post_attention_layernorm`).
    Pre,
    /// Before and after both; the names are `input_`, `post_attention_`, `pre_feedforward_` and `post_feedforward_layernorm`.
    Sandwich,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Back, Retention};

    fn decoder(layers: &[(Back, KvSource)]) -> DecoderConfig {
        let layer = |&(back, kv): &(Back, KvSource)| LayerConfig {
            mixer: Mixer::Attention(AttentionConfig {
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                qkv_bias: false,
                qk_norm: None,
                v_norm: None,
                kv,
                rope: Some(0),
                temperature: None,
                scores: Scores { back, ..Scores::plain(8) },
                gate: OutputGate::Absent,
            }),
            ffn: Ffn::Gated(GatedConfig::new(16, Activation::Silu)),
            beside: None,
            norms: Norms::Pre,
            gates: LayerGates::Absent,
            scale: LayerScale::Absent,
        };
        DecoderConfig {
            hidden: 32,
            vocab: 10,
            embedding_scale: 1.0,
            layers: layers.iter().map(layer).collect(),
            norm: NormConfig::Rms { eps: 1e-6 },
            ropes: vec![RopeConfig::plain(8, 1e4)],
            head: Head::Tied,
            unspoken: 0,
            logit_softcap: None,
            per_layer: None,
            deepstack: 0,
        }
    }

    #[test]
    fn layers_that_share_have_no_place_of_their_own() {
        use KvSource::{Layer, Own};
        let window = Back::Window(4);
        let own = [(window, Own), (Back::All, Own)];
        let mut config = decoder(&[own[0], own[1], (window, Layer(0)), (Back::All, Layer(1)), own[0], own[0], own[1], own[0]]);
        for looking in [5, 7] {
            config.layers[looking].mixer = Mixer::CrossAttention(CrossAttentionConfig {
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                qk_norm: config.norm,
                scores: Scores::plain(8),
            });
        }
        let (spec, places) = config.cache().unwrap();
        assert_eq!(places, [0, 1, 0, 1, 2, 0, 3, 1]);
        let retentions: Vec<Retention> = spec.groups().iter().map(|group| group.retention).collect();
        assert_eq!(retentions, [Back::All, window].map(Retention::Tokens));
        let refused = [(Back::All, Layer(0)), (window, Layer(2)), (window, Layer(7))];
        for layer in refused {
            assert!(decoder(&[own[0], own[1], layer]).cache().is_err(), "{layer:?}");
        }
    }
}
