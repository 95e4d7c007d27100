use candle_core::Tensor;

use super::attention::Attention;
use super::config::Mixer;
use super::gated_delta::GatedDelta;
use super::step::Step;
use crate::linear::Linear;
use crate::weights::Weights;
use crate::{Cache, NnError};

/// What mixes the tokens of a layer, and its place in the cache.
#[derive(Debug)]
pub struct TokenMixer {
    kind: Kind,
    place: usize,
}

#[derive(Debug)]
enum Kind {
    Attention(Attention),
    GatedDelta(GatedDelta),
}

impl TokenMixer {
    /// Loads `self_attn` or `linear_attn` of a layer. `place` is of those that [`super::DecoderConfig::cache`] tells.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &Mixer, place: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let kind = match config {
            Mixer::Attention(attention) => Kind::Attention(Attention::load(attention, hidden, &w.at("self_attn"))?),
            Mixer::GatedDelta(delta) => Kind::GatedDelta(GatedDelta::load(delta, hidden, &w.at("linear_attn"))?),
        };
        Ok(Self { kind, place })
    }

    /// [rows, hidden] → what the output projection takes; brings the layer's cache up to date.
    ///
    /// # Errors
    /// Shapes do not fit, or the device failed.
    pub fn mix(&self, x: &Tensor, step: &Step, cache: &mut Cache) -> Result<Tensor, NnError> {
        match &self.kind {
            Kind::Attention(attention) => attention.mix(x, self.place, step, cache),
            Kind::GatedDelta(delta) => delta.mix(x, self.place, step, cache),
        }
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        match &self.kind {
            Kind::Attention(attention) => attention.out(),
            Kind::GatedDelta(delta) => delta.out(),
        }
    }
}
