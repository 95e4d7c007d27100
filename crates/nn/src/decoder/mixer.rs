use candle_core::Tensor;

use super::attention::Attention;
use super::config::Mixer;
use super::gated_delta::GatedDelta;
use super::step::Step;
use crate::linear::Linear;
use crate::weights::Weights;
use crate::{Cache, NnError};

/// What mixes the tokens of a layer.
#[derive(Debug)]
pub enum TokenMixer {
    Attention(Attention),
    GatedDelta(GatedDelta),
}

impl TokenMixer {
    /// Loads `self_attn` or `linear_attn`.
    pub fn load(config: &Mixer, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        Ok(match config {
            Mixer::Attention(attention) => Self::Attention(Attention::load(attention, hidden, &w.at("self_attn"))?),
            Mixer::GatedDelta(delta) => Self::GatedDelta(GatedDelta::load(delta, hidden, &w.at("linear_attn"))?),
        })
    }

    /// [rows, hidden] → what the output projection takes; brings the layer's cache up to date.
    pub fn mix(&self, x: &Tensor, layer: usize, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        match self {
            Self::Attention(attention) => attention.mix(x, layer, step, cache),
            Self::GatedDelta(delta) => delta.mix(x, layer, step, cache),
        }
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        match self {
            Self::Attention(attention) => attention.out(),
            Self::GatedDelta(delta) => delta.out(),
        }
    }
}
