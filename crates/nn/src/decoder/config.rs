//! What a decoder is made of, layer by layer. Every "is this one different" is answered here, at load.

use crate::{Activation, MoeConfig, NormConfig, RopeConfig, Scores};

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
    /// Where norms stand.
    pub norms: Norms,
}

/// What mixes tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Softmax attention over the cache.
    Attention(AttentionConfig),
    /// Attention whose past is one matrix per head.
    GatedDelta(GatedDeltaConfig),
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
    /// Number of the rotary embedding in [`DecoderConfig::ropes`].
    pub rope: usize,
    /// Scale, cap and window of the scores.
    pub scores: Scores,
    /// What the result is multiplied by.
    pub gate: OutputGate,
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

impl Mixer {
    /// Softmax attention, if that is what it is.
    pub fn attention_mut(&mut self) -> Option<&mut AttentionConfig> {
        match self {
            Self::Attention(attention) => Some(attention),
            Self::GatedDelta(_) => None,
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
    Gated {
        /// Width inside.
        inner: usize,
        /// On the gate.
        activation: Activation,
    },
    /// Some of many, as a router says.
    Moe(MoeConfig),
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before the mixer (`input_layernorm`) and before the feed-forward part (`post_attention_layernorm`).
    Pre,
    /// Before and after both; the names are `input_`, `post_attention_`, `pre_feedforward_` and `post_feedforward_layernorm`.
    Sandwich,
}
