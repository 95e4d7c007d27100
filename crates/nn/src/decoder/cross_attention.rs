use candle_core::Tensor;
use kernels::KvFormat;

use super::config::CrossAttentionConfig;
use super::step::Step;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::weights::{Bias, Weights};
use crate::{HeadRange, KeyValues, NnError, attention_across};

/// Attention to media.
#[derive(Debug)]
pub struct CrossAttention {
    config: CrossAttentionConfig,
    queries: Linear,     // [heads * head_dim, hidden]
    keys_values: Linear, // [2 * kv_heads * head_dim, hidden]
    out: Linear,         // [hidden, heads * head_dim]
    q_norm: Norm,
    k_norm: Norm,
    format: KvFormat,
}

impl CrossAttention {
    pub fn load(config: &CrossAttentionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        w.looks_at(2 * kv * w.attention_format().number_bytes());
        Ok(Self {
            queries: w.linear("q_proj", hidden, q, Bias::Absent)?,
            keys_values: w.stacked(&[("k_proj", kv), ("v_proj", kv)], hidden, Bias::Absent)?,
            out: w.linear("o_proj", q, hidden, Bias::Absent)?,
            q_norm: w.norm("q_norm", config.head_dim, config.qk_norm)?,
            k_norm: w.norm("k_norm", config.head_dim, config.qk_norm)?,
            format: w.attention_format(),
            config: *config,
        })
    }

    /// Keys and values of media rows, [rows, hidden].
    pub fn key_values(&self, rows: &Tensor) -> Result<KeyValues, NnError> {
        let CrossAttentionConfig { kv_heads: count, head_dim: width, .. } = self.config;
        let [keys, values] = [0, count].map(|first| HeadRange { first, count, width });
        KeyValues::new(&self.k_norm.heads(self.keys_values.forward(rows)?, keys)?, keys, values, self.format)
    }

    /// [rows that look, hidden] → what the output projection takes, [rows, heads * head_dim].
    pub fn mix(&self, x: &Tensor, place: usize, step: &Step) -> Result<Tensor, NnError> {
        let queries = HeadRange { first: 0, count: self.config.heads, width: self.config.head_dim };
        let Some(looking) = step.looking() else { return Err(NnError::Input("rows that look at media")) };
        let [adapted, _] = &looking.adapted;
        let x = self.q_norm.heads(self.queries.forward_adapted(x, adapted)?, queries)?;
        let sights = looking.sights(place)?;
        attention_across(&x, queries, &sights, self.config.scores)
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        &self.out
    }
}
