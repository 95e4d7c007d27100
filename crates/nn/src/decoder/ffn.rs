use candle_core::Tensor;

use super::config::{Ffn, GatedConfig, Gates};
use crate::linear::Linear;
use crate::moe::Moe;
use crate::weights::{Bias, Outputs, Weights};
use crate::{Adapted, NnError, host};

/// The feed-forward part of a layer.
#[derive(Debug)]
pub struct FeedForward(Kind);

#[derive(Debug)]
enum Kind {
    Gated(Gated),
    Moe(Box<Moe>),
}

/// down(activation(gate(x)) * up(x))
#[derive(Debug)]
pub struct Gated {
    gate_up: Linear, // [2 * inner, hidden]
    down: Linear,    // [hidden, inner]
    config: GatedConfig,
}

impl FeedForward {
    /// Loads a layer's `mlp`, which is where `w` stands.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &Ffn, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        Ok(Self(match config {
            Ffn::Gated(gated) => Kind::Gated(Gated::load(hidden, *gated, w)?),
            Ffn::Moe(moe) => Kind::Moe(Box::new(Moe::load(moe, hidden, w)?)),
        }))
    }

    /// [rows, hidden] → [rows, hidden]
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn forward(&self, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        match &self.0 {
            Kind::Gated(gated) => gated.down.forward_adapted(&gated.inner(x, adapted)?, adapted),
            Kind::Moe(moe) => moe.add_to(x.zeros_like()?, x),
        }
    }

    /// y + what it makes of x, [rows, hidden]. Takes the place of y where it can, so nobody else may hold it.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn add_to(&self, y: Tensor, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        match &self.0 {
            Kind::Gated(gated) => gated.down.add_to_adapted(y, &gated.inner(x, adapted)?, adapted),
            Kind::Moe(moe) => moe.add_to(y, x),
        }
    }

    /// Width of the widest intermediate result.
    pub fn width(&self) -> usize {
        match &self.0 {
            Kind::Gated(gated) => gated.width(),
            Kind::Moe(moe) => moe.width(),
        }
    }
}

impl Gated {
    /// Loads `gate_proj`, `up_proj` and `down_proj`.
    pub fn load(hidden: usize, config: GatedConfig, w: &Weights) -> Result<Self, NnError> {
        let GatedConfig { inner, stored, .. } = config;
        let first = |name| Outputs::some(name, stored, 0..inner);
        Ok(Self {
            gate_up: w.fused_or("gate_up_proj", &[first("gate_proj"), first("up_proj")], hidden, Bias::Absent)?,
            down: w.linear_of_first("down_proj", (inner, stored), hidden)?,
            config,
        })
    }

    /// [rows, hidden] → what the last projection takes, [rows, inner]
    pub fn inner(&self, x: &Tensor, adapted: &Adapted) -> Result<Tensor, NnError> {
        let both = self.gate_up.forward_adapted(x, adapted)?;
        let both = match self.config.gates {
            Gates::All => both,
            Gates::Above { deviations } => above(both, self.config.inner, deviations)?,
        };
        self.config.activation.gate(both)
    }

    /// The last projection.
    pub fn down(&self) -> &Linear {
        &self.down
    }

    pub fn width(&self) -> usize {
        self.gate_up.outputs()
    }
}

/// What in the first `width` columns of each row exceeds their mean by more than so many standard deviations, zero where nothing
/// does; the other columns stay as they are.
fn above(x: Tensor, width: usize, deviations: f64) -> Result<Tensor, NnError> {
    if host::here(&x) {
        let (rows, row_stride) = x.dims2()?;
        let part = kernels::HeadLayout { rows, count: 1, width, row_stride };
        host::change(&x, |x| kernels::above(host::cpu(), x, part, deviations as f32))?;
        return Ok(x);
    }
    let gates = x.narrow(1, 0, width)?;
    let centred = gates.broadcast_sub(&gates.mean_keepdim(1)?)?;
    let deviation = centred.sqr()?.mean_keepdim(1)?.sqrt()?;
    let rest = x.narrow(1, width, x.dim(1)? - width)?;
    Ok(Tensor::cat(&[&centred.broadcast_sub(&(deviation * deviations)?)?.relu()?, &rest], 1)?)
}
