use candle_core::Tensor;

use super::config::{AttentionConfig, KvSource, OutputGate, Temperature};
use super::step::Step;
use crate::linear::Linear;
use crate::norm::{Norm, NormConfig};
use crate::rope::RopeTable;
use crate::weights::{Bias, Outputs, Weights};
use crate::{Activation, Batch, Cache, HeadRange, NnError, Qkv, host};

/// Self-attention over the paged cache.
#[derive(Debug)]
pub struct Attention {
    config: AttentionConfig,
    /// Queries, where they are its own also keys and values (or keys alone), and behind these a gate for each query: [.., hidden]
    inputs: Linear,
    out: Linear, // [hidden, heads * head_dim]
    q_norm: Option<Norm>,
    k_norm: Option<Norm>,
    v_norm: Option<Norm>,
}

impl Attention {
    pub fn load(config: &AttentionConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let head_norm = |name, norm: Option<NormConfig>| norm.map(|norm| w.norm(name, config.head_dim, norm)).transpose();
        let all = Outputs::all;
        w.skip("rotary_emb."); // Old checkpoints carry frequencies along.
        let (queries, gates) = match config.gate {
            OutputGate::Absent => (all("q_proj", q), None),
            OutputGate::Sigmoid => {
                let [queries, gates] = Outputs::halves("q_proj", 2 * q, config.head_dim);
                (queries, Some(gates))
            }
        };
        let (kv, [k_norm, v_norm]) = match config.kv {
            KvSource::Own => (vec![all("k_proj", kv), all("v_proj", kv)], [config.qk_norm, config.v_norm]),
            KvSource::OwnKeys => (vec![all("k_proj", kv)], [config.qk_norm, config.v_norm]),
            KvSource::Layer(_) => {
                // Releases hold them all the same.
                ["k_proj.", "v_proj.", "k_norm.", "v_norm."].iter().for_each(|unused| w.skip(unused));
                (Vec::new(), [None; 2])
            }
        };
        let parts: Vec<Outputs> = std::iter::once(queries).chain(kv).chain(gates).collect();
        Ok(Self {
            inputs: w.fused_or("qkv_proj", &parts, hidden, Bias::when(config.qkv_bias))?,
            out: w.linear("o_proj", q, hidden, Bias::Absent)?,
            q_norm: head_norm("q_norm", config.qk_norm)?,
            k_norm: head_norm("k_norm", k_norm)?,
            v_norm: head_norm("v_norm", v_norm)?,
            config: config.clone(),
        })
    }

    /// [rows, hidden] → what the output projection takes, [rows, heads * head_dim]. `place` is where its keys and values lie; where
    /// they are its own, it appends to them.
    pub fn mix(&self, x: &Tensor, place: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let AttentionConfig { heads, kv_heads, head_dim, rope, scores, .. } = self.config;
        let qkv = Qkv { heads, kv_heads, head_dim };
        let rope = rope.map(|rope| step.rope(rope));
        let mut x = self.inputs.forward_adapted(x, step.adapted())?;
        let mut past = cache.layer(place);
        let behind = match self.config.kv {
            KvSource::Own | KvSource::OwnKeys => {
                if self.config.kv == KvSource::OwnKeys {
                    x = with_keys_as_values(&x, qkv)?;
                }
                if self.q_norm.is_none() && self.k_norm.is_none() {
                    x = turn(x, qkv.turned(), rope, None)?;
                } else {
                    x = turn(x, qkv.queries(), rope, self.q_norm.as_ref())?;
                    x = turn(x, qkv.keys(), rope, self.k_norm.as_ref())?;
                }
                if let Some(norm) = &self.v_norm {
                    x = norm.heads(x, qkv.values())?;
                }
                past.append(&x, qkv, step)?;
                qkv.stride()
            }
            KvSource::Layer(_) => {
                x = turn(x, qkv.queries(), rope, self.q_norm.as_ref())?;
                qkv.width()
            }
        };
        if let Some(factors) = self.config.temperature.and_then(|temperature| temperature.factors(step.batch)) {
            x = host::scale_heads(x, qkv.queries(), &factors)?;
        }
        let y = past.look(&x, qkv.queries(), step, scores)?;
        match self.config.gate {
            OutputGate::Absent => Ok(y),
            OutputGate::Sigmoid => Activation::Sigmoid.gate_columns(&x, behind, &y),
        }
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        &self.out
    }
}

/// Norms and turns heads, as far as there is something to do it with.
fn turn(x: Tensor, heads: HeadRange, rope: Option<&RopeTable>, norm: Option<&Norm>) -> Result<Tensor, NnError> {
    match (rope, norm) {
        (Some(rope), norm) => rope.turn(x, heads, norm),
        (None, Some(norm)) => norm.heads(x, heads),
        (None, None) => Ok(x),
    }
}

impl Temperature {
    /// Factors on the queries of each row, if any has another than one.
    fn factors(self, batch: &Batch) -> Option<Vec<f32>> {
        let factor = |token: usize| 1.0 + self.rate * ((token + 1) as f64 / self.every).floor().ln_1p();
        let tokens = batch.spans.iter().flat_map(|span| span.start..span.end());
        let factors: Vec<f32> = tokens.map(|token| factor(token) as f32).collect();
        factors.iter().any(|factor| *factor != 1.0).then_some(factors)
    }
}

/// Queries, keys and what follows → queries, keys, keys and what follows.
fn with_keys_as_values(x: &Tensor, qkv: Qkv) -> Result<Tensor, NnError> {
    let (keys, values) = (qkv.keys().start(), qkv.values().start());
    let part = |from: usize, to: usize| x.narrow(1, from, to - from)?.contiguous();
    let parts = [part(0, values)?, part(keys, values)?, part(values, x.dim(1)?)?];
    Ok(Tensor::cat(&parts, 1)?)
}
