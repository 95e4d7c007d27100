use candle_core::Tensor;

use super::attention::Attention;
use super::config::Mixer;
use super::cross_attention::CrossAttention;
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
    CrossAttention(Box<CrossAttention>),
}

impl TokenMixer {
    /// Loads `self_attn`, `linear_attn` or `cross_attn` of a layer. `place` is of those that [`super::DecoderConfig::cache`] tells.
    ///
    /// # Errors
    /// A tensor is missing or shaped otherwise.
    pub fn load(config: &Mixer, place: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let kind = match config {
            Mixer::Attention(attention) => Kind::Attention(Attention::load(attention, hidden, &w.at("self_attn"))?),
            Mixer::GatedDelta(delta) => Kind::GatedDelta(GatedDelta::load(delta, hidden, &w.at("linear_attn"))?),
            Mixer::CrossAttention(cross) => {
                Kind::CrossAttention(Box::new(CrossAttention::load(cross, hidden, &w.at("cross_attn"))?))
            }
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
            Kind::CrossAttention(cross) => cross.mix(x, self.place, step),
        }
    }

    /// What looks at media, if it does.
    pub(super) fn cross_attention(&self) -> Option<&CrossAttention> {
        match &self.kind {
            Kind::CrossAttention(cross) => Some(cross),
            Kind::Attention(_) | Kind::GatedDelta(_) => None,
        }
    }

    /// The output projection.
    pub fn out(&self) -> &Linear {
        match &self.kind {
            Kind::Attention(attention) => attention.out(),
            Kind::GatedDelta(delta) => delta.out(),
            Kind::CrossAttention(cross) => cross.out(),
        }
    }
}
