use candle_core::Tensor;

use crate::moe::{Moe, MoeConfig};
use crate::norm::{Norm, NormConfig};
use crate::weights::Weights;
use crate::{NnError, host};

/// Experts beside a feed-forward part; see [`super::LayerConfig::beside`].
#[derive(Debug)]
pub struct Beside {
    after_ffn: Norm,
    before: Norm,
    moe: Moe,
    after: Norm,
}

impl Beside {
    /// Loads the experts and their norms of a layer, which is where `w` stands.
    pub fn load(config: &MoeConfig, hidden: usize, norm: NormConfig, w: &Weights) -> Result<Self, NnError> {
        Ok(Self {
            after_ffn: w.norm("post_feedforward_layernorm_1", hidden, norm)?,
            before: w.norm("pre_feedforward_layernorm_2", hidden, norm)?,
            moe: Moe::load(config, hidden, w)?,
            after: w.norm("post_feedforward_layernorm_2", hidden, norm)?,
        })
    }

    /// What both make together: `made` is the other part's result, x what its norm was given; [rows, hidden] all.
    pub fn join(&self, made: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
        let routes = self.moe.route(x)?;
        let chosen = self.moe.add_routed(x.zeros_like()?, &self.before.forward(x)?, &routes)?;
        host::add_to(self.after_ffn.forward(&made)?, &self.after.forward(&chosen)?)
    }
}
