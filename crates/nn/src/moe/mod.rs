//! Mixture of experts (Shazeer et al. 2017): a router chooses a few of many feed-forward parts for each token.

mod experts;
mod router;
#[cfg(test)]
mod tests;

pub use experts::ExpertLinear;
pub use router::{RouterConfig, RouterGate, Routes, Scoring, Shares};

use candle_core::Tensor;
use router::Router;

use crate::decoder::Gated;
use crate::linear::Linear;
use crate::weights::{Bias, Role, Weights};
use crate::{Activation, Adapted, GatedConfig, NnError, host};

/// A router, its experts, and an expert for all.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeConfig {
    /// Experts to choose from.
    pub experts: usize,
    /// Width inside each.
    pub inner: usize,
    /// On the gate of each.
    pub activation: Activation,
    /// Who chooses them.
    pub router: RouterConfig,
    /// What an expert's share is a factor of.
    pub weighed: Weighed,
    /// An expert that all tokens go to beside the chosen ones.
    pub shared: Option<SharedExpert>,
}

/// What an expert's share is a factor of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighed {
    /// What the expert makes.
    Results,
    /// What the expert is given.
    Inputs,
}

/// An expert that all tokens go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedExpert {
    /// `shared_expert`, of this width inside.
    Plain(usize),
    /// The same, times σ of `shared_expert_gate`.
    Gated(usize),
}

/// A loaded mixture of experts.
#[derive(Debug)]
pub struct Moe {
    router: Router,
    gate_up: ExpertLinear, // [2 * inner, hidden] of each
    down: ExpertLinear,    // [hidden, inner] of each
    activation: Activation,
    weighed: Weighed,
    shared: Option<Shared>,
}

#[derive(Debug)]
struct Shared {
    expert: Gated,
    gate: Option<Linear>, // [1, hidden]
}

impl Moe {
    /// Loads the router, `experts`, and where they are wanted `shared_expert` and `shared_expert_gate`.
    pub fn load(config: &MoeConfig, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let (gate_up, down) = w.role(Role::Expert).at("experts").experts(config.experts, hidden, config.inner)?;
        let shared = |inner| Gated::load(hidden, GatedConfig::new(inner, config.activation), &w.at("shared_expert"));
        let shared = match config.shared {
            None => None,
            Some(SharedExpert::Plain(inner)) => Some(Shared { expert: shared(inner)?, gate: None }),
            Some(SharedExpert::Gated(inner)) => {
                let gate = w.role(Role::Router).linear("shared_expert_gate", hidden, 1, Bias::Absent)?;
                Some(Shared { expert: shared(inner)?, gate: Some(gate) })
            }
        };
        let router = Router::load(&config.router, config.experts, hidden, w)?;
        Ok(Self { router, gate_up, down, activation: config.activation, weighed: config.weighed, shared })
    }

    /// y + what the experts make of x, [rows, hidden]. Takes the place of y.
    pub fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
        self.add_routed(y, x, &self.route(x)?)
    }

    /// Which experts the rows of x go to.
    pub fn route(&self, x: &Tensor) -> Result<Routes, NnError> {
        self.router.route(x)
    }

    /// The same as [`Self::add_to`], of rows whose experts were chosen.
    pub fn add_routed(&self, mut y: Tensor, x: &Tensor, routes: &Routes) -> Result<Tensor, NnError> {
        let pairs = (host::NUMBERS_AT_A_TIME / self.gate_up.outputs().max(1)).max(1);
        for routes in routes.parts(pairs) {
            let inner = match self.weighed {
                Weighed::Results => self.gate_up.dispatch(x, &routes)?,
                Weighed::Inputs => self.gate_up.dispatch(&routes.weigh(x)?, &routes.by_pair())?,
            };
            let inner = self.activation.gate(inner)?;
            y = match self.weighed {
                Weighed::Results => self.down.combine(y, &inner, &routes)?,
                Weighed::Inputs => self.down.combine(y, &inner, &routes.unweighed())?,
            };
        }
        match &self.shared {
            Some(shared) => shared.add_to(y, x),
            None => Ok(y),
        }
    }

    /// Width of the widest intermediate result that is made for all rows at once.
    pub fn width(&self) -> usize {
        self.shared.as_ref().map_or(self.down.outputs(), |shared| shared.expert.width())
    }
}

impl Shared {
    fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor, NnError> {
        let inner = self.expert.inner(x, &Adapted::default())?;
        let inner = match &self.gate {
            // What scales the result scales what it is made of.
            Some(gate) => host::scale_rows(inner, &Activation::Sigmoid.forward(gate.forward(x)?)?)?,
            None => inner,
        };
        self.expert.down().add_to(y, &inner)
    }
}
