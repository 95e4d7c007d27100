use candle_core::{Device, Tensor};
use kernels::conv::{Causal, Depthwise, causal};
use kernels::norm::{Norm, norm_gated, norm_heads};
use kernels::{Activation, Delta, DeltaGates, HeadLayout, HeadRows, StateSpan, delta_gates, delta_state_len, gated_delta};

use super::config::GatedDeltaConfig;
use super::step::Step;
use crate::linear::Linear;
use crate::weights::{Bias, Role, Weights};
use crate::{Cache, LayerCache, NnError, Span, host};

/// What is added to the squares of a query or key before its length is taken.
const LENGTH_EPS: f32 = 1e-6;

/// A gated delta net in main memory. A sequence's state is that of the convolution, [taps - 1, channels], and behind it that of
/// the rule.
#[derive(Debug)]
pub struct GatedDelta {
    config: GatedDeltaConfig,
    /// Queries, keys and values, then gates of the result: [channels + values, hidden]
    inputs: Linear,
    /// What beta and decay are made of: [2 * value_heads, hidden]
    gates: Linear,
    out: Linear,       // [hidden, values]
    filter: Vec<f32>,  // [taps, channels]
    rate: Vec<f32>,    // [value_heads]
    dt_bias: Vec<f32>, // [value_heads]
    norm: Vec<f32>,    // [value_dim]
}

/// What the projections make of the rows.
struct Projected<'a> {
    inputs: &'a [f32],
    gates: &'a [f32],
}

impl GatedDeltaConfig {
    /// What a layer keeps of a sequence.
    pub(crate) fn cache(&self) -> LayerCache {
        LayerCache::State { numbers: self.window() + delta_state_len(self.value_heads, self.key_dim, self.value_dim) }
    }

    /// Numbers that the convolution remembers.
    fn window(&self) -> usize {
        (self.taps - 1) * self.channels()
    }
}

impl GatedDelta {
    pub fn load(config: &GatedDeltaConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (channels, values, heads) = (config.channels(), config.values(), config.value_heads);
        let numbers = |x: Tensor| Ok::<_, NnError>(x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?);
        let filter = w.tensor("conv1d.weight", &[channels, 1, config.taps])?.squeeze(1)?.t()?;
        Ok(Self {
            inputs: w.stacked(&[("in_proj_qkv", channels), ("in_proj_z", values)], hidden, Bias::Absent)?,
            gates: w.role(Role::Router).stacked(&[("in_proj_b", heads), ("in_proj_a", heads)], hidden, Bias::Absent)?,
            out: w.linear("out_proj", values, hidden, Bias::Absent)?,
            filter: numbers(filter)?,
            rate: numbers(w.tensor("A_log", &[heads])?.exp()?)?,
            dt_bias: numbers(w.tensor("dt_bias", &[heads])?)?,
            norm: numbers(w.tensor("norm.weight", &[config.value_dim])?)?,
            config: *config,
        })
    }

    /// [rows, hidden] → what the output projection takes, [rows, values]; brings the states of the layer up to date.
    pub fn mix(&self, x: &Tensor, place: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        let (inputs, gates) = (self.inputs.forward(x)?, self.gates.forward(x)?);
        let states = cache.states(place, &step.batch.spans)?;
        let shape = (x.dim(0)?, self.config.values());
        host::read(&inputs, |inputs| {
            host::read(&gates, |gates| {
                host::make(shape, |y| self.advance(Projected { inputs, gates }, &step.batch.spans, states, y))
            })
        })??
    }

    /// Lets the rows of all spans pass by their states; y [rows, values].
    fn advance(&self, x: Projected<'_>, spans: &[Span], states: Vec<&mut [f32]>, y: &mut [f32]) {
        let GatedDeltaConfig { key_heads, value_heads, key_dim, value_dim, norm_eps, .. } = self.config;
        let (channels, keys) = (self.config.channels(), key_heads * key_dim);
        let width = channels + self.config.values();
        let rows = y.len() / self.config.values().max(1);
        let (mut windows, mut memories) = (Vec::with_capacity(spans.len()), Vec::with_capacity(spans.len()));
        for (span, state) in spans.iter().zip(states) {
            let (window, memory) = state.split_at_mut(self.config.window());
            windows.push(StateSpan { rows: span.rows.clone(), state: window });
            memories.push(StateSpan { rows: span.rows.clone(), state: memory });
        }

        let filter = Depthwise { weight: &self.filter, bias: None, channels };
        let conv = Causal { filter, activation: Some(Activation::Silu) };
        let mut mixed = vec![0.0; rows * channels];
        causal(host::cpu(), &conv, columns(x.inputs, 0, width, [1, channels]), &mut windows, &mut mixed);
        let turned = HeadLayout { rows, count: 2 * key_heads, width: key_dim, row_stride: channels };
        norm_heads(host::cpu(), Norm::l2(LENGTH_EPS), &mut mixed, turned);

        let gates = DeltaGates {
            b: columns(x.gates, 0, 2 * value_heads, [value_heads, 1]),
            a: columns(x.gates, value_heads, 2 * value_heads, [value_heads, 1]),
            rate: &self.rate,
            bias: &self.dt_bias,
        };
        let (mut decay, mut beta) = (vec![0.0; rows * value_heads], vec![0.0; rows * value_heads]);
        delta_gates(host::cpu(), &gates, &mut decay, &mut beta);

        let delta = Delta {
            q: columns(&mixed, 0, channels, [key_heads, key_dim]),
            k: columns(&mixed, keys, channels, [key_heads, key_dim]),
            v: columns(&mixed, 2 * keys, channels, [value_heads, value_dim]),
            decay: &decay,
            beta: &beta,
            scale: (key_dim as f32).powf(-0.5),
        };
        gated_delta(host::cpu(), &delta, &mut memories, y);
        let norm = Norm::rms(Some(&self.norm), norm_eps as f32);
        norm_gated(host::cpu(), norm, columns(x.inputs, channels, width, [value_heads, value_dim]), y);
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        &self.out
    }
}

/// Heads in rows of `stride`, from a column on.
fn columns(x: &[f32], first: usize, stride: usize, [heads, head_dim]: [usize; 2]) -> HeadRows<'_> {
    HeadRows { data: x.get(first..).unwrap_or_default(), stride, heads, head_dim }
}
