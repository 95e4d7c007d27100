use candle_core::Tensor;

use super::config::{AttentionConfig, OutputGate};
use super::step::Step;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::weights::{Bias, Outputs, Weights};
use crate::{Activation, Cache, NnError, Qkv};

/// Self-attention over the paged cache.
#[derive(Debug)]
pub struct Attention {
    config: AttentionConfig,
    qkv: Linear, // [(heads + 2 * kv_heads) * head_dim, hidden], and behind these a gate for each query
    out: Linear, // [hidden, heads * head_dim]
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
}

impl Attention {
    pub fn load(config: &AttentionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let head_norm = |name| config.qk_norm.map(|norm| w.norm(name, config.head_dim, norm)).transpose();
        let all = Outputs::all;
        w.skip("rotary_emb."); // Old checkpoints carry frequencies along.
        let parts = match config.gate {
            OutputGate::Absent => vec![all("q_proj", q), all("k_proj", kv), all("v_proj", kv)],
            OutputGate::Sigmoid => {
                let [queries, gates] = Outputs::halves("q_proj", 2 * q, config.head_dim);
                vec![queries, all("k_proj", kv), all("v_proj", kv), gates]
            }
        };
        Ok(Self {
            qkv: w.stacked_outputs(&parts, hidden, Bias::when(config.qkv_bias))?,
            out: w.linear("o_proj", q, hidden, Bias::Absent)?,
            q_norm: head_norm("q_norm")?,
            k_norm: head_norm("k_norm")?,
            config: config.clone(),
        })
    }

    /// [rows, hidden] → what the output projection takes, [rows, heads * head_dim]; appends to the layer's cache.
    pub fn mix(&self, x: &Tensor, layer: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let AttentionConfig { heads, kv_heads, head_dim, rope, scores, .. } = self.config;
        let qkv = Qkv { heads, kv_heads, head_dim };
        let rope = step.rope(rope);
        let mut x = self.qkv.forward(x)?;
        if self.q_norm.is_none() && self.k_norm.is_none() {
            x = rope.turn(x, qkv.turned(), None)?;
        } else {
            x = rope.turn(x, qkv.queries(), self.q_norm.as_ref())?;
            x = rope.turn(x, qkv.keys(), self.k_norm.as_ref())?;
        }
        let y = cache.layer(layer).attend(&x, qkv, step, scores)?;
        match self.config.gate {
            OutputGate::Absent => Ok(y),
            OutputGate::Sigmoid => Activation::Sigmoid.gate_columns(&x, qkv.stride(), &y),
        }
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        &self.out
    }
}
