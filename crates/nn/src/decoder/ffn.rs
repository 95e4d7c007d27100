use candle_core::Tensor;

use super::config::Ffn;
use crate::linear::Linear;
use crate::moe::Moe;
use crate::weights::{Bias, Weights};
use crate::{Activation, NnError};

/// The feed-forward part of a layer.
#[derive(Debug)]
pub enum FeedForward {
    Gated(Gated),
    Moe(Box<Moe>),
}

/// down(activation(gate(x)) * up(x))
#[derive(Debug)]
pub struct Gated {
    gate_up: Linear, // [2 * inner, hidden]
    down: Linear,    // [hidden, inner]
    activation: Activation,
}

impl FeedForward {
    pub fn load(config: &Ffn, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        Ok(match config {
            Ffn::Gated { inner, activation } => Self::Gated(Gated::load(hidden, *inner, *activation, w)?),
            Ffn::Moe(moe) => Self::Moe(Box::new(Moe::load(moe, hidden, w)?)),
        })
    }

    /// [rows, hidden] → [rows, hidden]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        match self {
            Self::Gated(gated) => gated.down.forward(&gated.inner(x)?),
            Self::Moe(moe) => moe.add_to(x.zeros_like()?, x),
        }
    }

    /// y + what it makes of x, [rows, hidden]. Takes the place of y where it can, so nobody else may hold it.
    pub fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
        match self {
            Self::Gated(gated) => gated.down.add_to(y, &gated.inner(x)?),
            Self::Moe(moe) => moe.add_to(y, x),
        }
    }

    /// Width of the widest intermediate result.
    pub fn width(&self) -> usize {
        match self {
            Self::Gated(gated) => gated.width(),
            Self::Moe(moe) => moe.width(),
        }
    }
}

impl Gated {
    /// Loads `gate_proj`, `up_proj` and `down_proj`.
    pub fn load(hidden: usize, inner: usize, activation: Activation, w: &Weights) -> Result<Self, NnError> {
        Ok(Self {
            gate_up: w.stacked(&[("gate_proj", inner), ("up_proj", inner)], hidden, Bias::Absent)?,
            down: w.linear("down_proj", inner, hidden, Bias::Absent)?,
            activation,
        })
    }

    /// [rows, hidden] → what the last projection takes, [rows, inner]
    pub fn inner(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.activation.gate(self.gate_up.forward(x)?)
    }

    /// The last projection.
    pub fn down(&self) -> &Linear {
        &self.down
    }

    pub fn width(&self) -> usize {
        self.gate_up.outputs()
    }
}
