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
