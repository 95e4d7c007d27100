use candle_core::Tensor;

use super::config::AttentionConfig;
use super::step::Step;
use crate::attention::attention;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::weights::{Bias, Weights};
use crate::{Cache, NnError};

/// Self-attention over the paged cache.
#[derive(Debug)]
pub struct Attention {
    config: AttentionConfig,
    qkv: Linear, // [(heads + 2 * kv_heads) * head_dim, hidden]
    out: Linear, // [hidden, heads * head_dim]
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
}

impl Attention {
    pub fn load(config: &AttentionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let head_norm = |name| config.qk_norm.map(|norm| w.norm(name, config.head_dim, norm)).transpose();
        Ok(Self {
            qkv: w.stacked(&[("q_proj", q), ("k_proj", kv), ("v_proj", kv)], hidden, Bias::when(config.qkv_bias))?,
            out: w.linear("o_proj", q, hidden, Bias::Absent)?,
            q_norm: head_norm("q_norm")?,
            k_norm: head_norm("k_norm")?,
            config: config.clone(),
        })
    }

    /// [rows, hidden] → [rows, hidden]; appends to the layer's cache.
    pub fn forward(&self, x: &Tensor, layer: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let AttentionConfig { heads, kv_heads, head_dim, rope, window, scores, .. } = self.config;
        let rows = x.dim(0)?;
        let qkv = self.qkv.forward(x)?.reshape((rows, heads + 2 * kv_heads, head_dim))?;
        let normed = |x: Tensor, norm: &Option<Norm>| norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x));
        let rope = step.rope(rope);
        let q = rope.apply(&normed(qkv.narrow(1, 0, heads)?, &self.q_norm)?)?;
        let k = rope.apply(&normed(qkv.narrow(1, heads, kv_heads)?, &self.k_norm)?)?;
        let v = qkv.narrow(1, heads + kv_heads, kv_heads)?;
        let mut parts = Vec::with_capacity(step.batch.spans.len());
        for (i, span) in step.batch.spans.iter().enumerate() {
            let (first, count) = (span.rows.start, span.rows.len());
            cache.append(layer, span, &k.narrow(0, first, count)?, &v.narrow(0, first, count)?)?;
            let view = step.view(i, window)?;
            let (keys, values) = cache.read(layer, span, view.from)?;
            let q = q.narrow(0, first, count)?;
            parts.push(attention(&q, &keys.to_dtype(q.dtype())?, &values.to_dtype(q.dtype())?, view.mask.as_ref(), scores)?);
        }
        self.out.forward(&Tensor::cat(&parts, 0)?)
    }
}
