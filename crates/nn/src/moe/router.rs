//! Which experts a token goes to.

use std::ops::Range;

use candle_core::{Device, Tensor};
use kernels::activation::{Activation, activate};
use kernels::softmax::softmax;

use crate::linear::Linear;
use crate::norm::Norm;
use crate::weights::{Bias, Role, Weights};
use crate::{NnError, host};

/// How experts are chosen and weighed.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterConfig {
    /// Experts of a token: those with the highest scores, the first ones among equals.
    pub chosen: usize,
    /// How the router's outputs become scores.
    pub scoring: Scoring,
    /// How scores of the chosen become shares.
    pub shares: Shares,
    /// Factor on all shares.
    pub scale: f64,
    /// Whether there is `e_score_correction_bias`, which is added to scores while experts are chosen, and not to shares (Wang et al.
    /// 2024, "Auxiliary-Loss-Free Load Balancing").
    pub correction: Bias,
    /// What makes its outputs.
    pub gate: RouterGate,
}

/// What makes a router's outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RouterGate {
    /// A matrix, `gate` or `router`.
    Plain,
    /// A matrix `router.proj` over x / rms(x) * `router.scale` / √width. Shares are multiplied by the expert's number in
    /// `router.per_expert_scale`, whatever they add up to then.
    Normed {
        /// Added to the mean square.
        eps: f64,
    },
}

/// How a router's outputs become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// The outputs themselves choose; softmax over the chosen.
    SoftmaxOfChosen,
    /// σ, each by itself.
    Sigmoid,
}

/// How scores of the chosen become shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// As they are.
    Scores,
    /// Divided by their sum.
    Normalised,
}

#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    norm: Option<Norm>,
    gate: Linear, // [experts, hidden]
    /// Factors on the shares of each expert.
    scales: Option<Vec<f32>>,
    correction: Option<Vec<f32>>,
}

/// Pairs of a token's row and an expert, sorted by expert and then by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Where the pairs of each expert begin, and behind them how many there are.
    starts: Vec<usize>,
    rows: Vec<u32>,
    /// What the expert counts for in the row.
    shares: Vec<f32>,
}

impl Router {
    pub fn load(config: &RouterConfig, experts: usize, hidden: usize, w: &Weights) -> Result<Self, NnError> {
        let correction = match config.correction {
            Bias::Present | Bias::Except(_) => Some(w.tensor("gate.e_score_correction_bias", &[experts])?.to_vec1()?),
            Bias::Absent => None,
        };
        let (norm, name, scales) = match config.gate {
            RouterGate::Plain => (None, if w.has("router.weight") { "router" } else { "gate" }, None),
            RouterGate::Normed { eps } => {
                let weight = (w.tensor("router.scale", &[hidden])? * (hidden as f64).powf(-0.5))?;
                let scales = w.tensor("router.per_expert_scale", &[experts])?.to_vec1()?;
                (Some(Norm::Rms { weight, eps }), "router.proj", Some(scales))
            }
        };
        let gate = w.role(Role::Router).linear(name, hidden, experts, Bias::Absent)?;
        let config = RouterConfig { chosen: config.chosen.min(experts), ..config.clone() };
        Ok(Self { config, norm, gate, scales, correction })
    }

    /// Of rows [rows, hidden].
    pub fn route(&self, x: &Tensor) -> Result<Routes, NnError> {
        let outputs = match &self.norm {
            Some(norm) => self.gate.forward(&norm.forward(x)?)?,
            None => self.gate.forward(x)?,
        };
        let outputs = outputs.to_device(&Device::Cpu)?;
        host::read(&outputs, |outputs| self.choose(outputs.to_vec()))
    }

    /// `scores`: outputs of the gate, [rows, experts].
    fn choose(&self, mut scores: Vec<f32>) -> Routes {
        let experts = self.gate.outputs();
        match self.config.scoring {
            Scoring::Softmax => softmax(host::cpu(), &mut scores, experts, 1.0),
            Scoring::Sigmoid => activate(host::cpu(), Activation::Sigmoid, &mut scores),
            Scoring::SoftmaxOfChosen => {}
        }
        let mut chosen = Vec::with_capacity(scores.len() / experts * self.config.chosen);
        for scores in scores.chunks_exact(experts) {
            let first = chosen.len();
            self.choose_one(scores, &mut chosen);
            self.share(&mut chosen[first..]);
        }
        Routes::new(experts, self.config.chosen, &chosen)
    }

    /// Adds the experts with the highest scores, and these, best first.
    fn choose_one(&self, scores: &[f32], chosen: &mut Vec<(u32, f32)>) {
        let first = chosen.len();
        let rank = |expert: u32| {
            let score = scores[expert as usize];
            self.correction.as_ref().map_or(score, |correction| score + correction[expert as usize])
        };
        for expert in 0..scores.len() as u32 {
            let better = |other: &(u32, f32)| rank(expert) > rank(other.0);
            let place = first + chosen[first..].iter().position(better).unwrap_or(chosen.len() - first);
            if place < first + self.config.chosen {
                chosen.truncate(first + self.config.chosen - 1);
                chosen.insert(place.min(chosen.len()), (expert, scores[expert as usize]));
            }
        }
    }

    /// Makes shares of one row's scores.
    fn share(&self, chosen: &mut [(u32, f32)]) {
        if self.config.scoring == Scoring::SoftmaxOfChosen {
            let most = chosen.iter().fold(f32::NEG_INFINITY, |most, (_, score)| most.max(*score));
            chosen.iter_mut().for_each(|(_, score)| *score = (*score - most).exp());
        }
        let sum: f32 = match (self.config.scoring, self.config.shares) {
            (Scoring::Softmax | Scoring::Sigmoid, Shares::Scores) => 1.0,
            // Where σ is zero for all of them.
            _ => chosen.iter().map(|(_, score)| score).sum::<f32>().max(1e-20),
        };
        let factor = self.config.scale as f32;
        for (expert, score) in chosen {
            *score = *score / sum * factor * self.scales.as_ref().map_or(1.0, |scales| scales[*expert as usize]);
        }
    }
}

impl Routes {
    /// Of rows with `each` experts and their shares.
    fn new(experts: usize, each: usize, chosen: &[(u32, f32)]) -> Self {
        let mut starts = vec![0; experts + 1];
        chosen.iter().for_each(|(expert, _)| starts[*expert as usize + 1] += 1);
        (0..experts).for_each(|expert| starts[expert + 1] += starts[expert]);
        let (mut next, mut rows, mut shares) = (starts.clone(), vec![0; chosen.len()], vec![0.0; chosen.len()]);
        for (i, (expert, share)) in chosen.iter().enumerate() {
            let place = &mut next[*expert as usize];
            (rows[*place], shares[*place]) = ((i / each) as u32, *share);
            *place += 1;
        }
        Self { starts, rows, shares }
    }

    /// Pairs.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row of each pair.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// What the expert of each pair counts for.
    pub(super) fn shares(&self) -> &[f32] {
        &self.shares
    }

    /// Pairs of each expert that has any.
    pub(super) fn by_expert(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let all = self.starts.windows(2).enumerate().map(|(expert, range)| (expert, range[0]..range[1]));
        all.filter(|(_, pairs)| !pairs.is_empty())
    }

    /// As the kernels take them.
    pub(super) fn of_kernels(&self) -> kernels::Routes<'_> {
        kernels::Routes { starts: &self.starts, rows: &self.rows, shares: &self.shares }
    }

    /// At most so many pairs at a time.
    pub(super) fn parts(&self, pairs_max: usize) -> impl Iterator<Item = Self> {
        let part = move |first: usize| {
            let pairs = first..self.len().min(first + pairs_max);
            let starts = self.starts.iter().map(|start| (*start).clamp(pairs.start, pairs.end) - pairs.start);
            Self { starts: starts.collect(), rows: self.rows[pairs.clone()].to_vec(), shares: self.shares[pairs].to_vec() }
        };
        (0..self.rows.len()).step_by(pairs_max).map(part)
    }

    /// The rows of all pairs, times their shares: x [rows, width] → [pairs, width].
    pub(super) fn weigh(&self, x: &Tensor) -> Result<Tensor, NnError> {
        let rows = x.index_select(&Tensor::new(self.rows.as_slice(), x.device())?, 0)?;
        host::scale_rows(rows, &Tensor::new(self.shares.as_slice(), x.device())?.reshape(((), 1))?)
    }

    /// The same pairs, each of a row of its own.
    pub(super) fn by_pair(&self) -> Self {
        Self { rows: (0..self.len() as u32).collect(), ..self.clone() }
    }

    /// The same pairs, which count in full.
    pub(super) fn unweighed(&self) -> Self {
        Self { shares: vec![1.0; self.len()], ..self.clone() }
    }
}
