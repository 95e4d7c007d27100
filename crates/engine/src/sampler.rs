//! Logits → a token.

use std::borrow::Cow;

use crate::penalties::Penalties;
use crate::{EngineError, Logprobs, Mask, Sampling};

/// Candidates that are sorted before the whole vocabulary is.
const HEAD: usize = 1024;

/// Which tokens can come: all, where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct May<'a> {
    /// Only those of a constraint.
    pub only: Option<&'a Mask>,
    /// None of these, while there is another.
    pub none_of: &'a [u32],
}

impl May<'_> {
    fn apply(self, logits: &mut [f32]) {
        if let Some(mask) = self.only {
            mask.apply(logits);
        }
        let banned = |id: u32| self.none_of.contains(&id);
        if (0u32..).zip(&*logits).any(|(id, logit)| logit.is_finite() && !banned(id)) {
            self.none_of.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
        }
    }
}

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    penalties: Penalties,
    random: fastrand::Rng,
}

impl Sampler {
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let random = sampling.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Self { penalties: Penalties::new(prompt, &sampling), sampling, random }
    }

    /// The next token, with probabilities when they are asked for. `tokens` are the prompt's and those drawn since; `may` says
    /// which can come.
    pub fn draw(&mut self, raw: &[f32], tokens: &[u32], may: May) -> Result<(u32, Option<Logprobs>), EngineError> {
        let raw_best = argmax(raw)?;
        let mut logits = Cow::Borrowed(raw);
        if self.sampling.has_penalties() {
            self.penalties.apply(&self.sampling, tokens, logits.to_mut());
        }
        if may.only.is_some() || !may.none_of.is_empty() {
            may.apply(logits.to_mut());
        }
        let best = argmax(&logits).map_err(|_| EngineError::Constraint("no token is left".into()))?;
        let id = if self.sampling.temperature == 0.0 { best } else { self.random_draw(&logits, best) };
        self.told(id as u32);
        let logprobs = self.sampling.logprobs.map(|count| logprobs(raw, id, raw_best, count));
        Ok((id as u32, logprobs))
    }

    /// Whether somebody wants to know how probable each token was.
    pub fn tells_probabilities(&self) -> bool {
        self.sampling.logprobs.is_some()
    }

    /// A token has come, drawn or not.
    pub fn told(&mut self, id: u32) {
        self.penalties.push(id);
    }

    fn random_draw(&mut self, logits: &[f32], best: usize) -> usize {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let weight = |id: usize| f64::from((logits[id] - logits[best]) / temperature).exp();
        let mut ids: Vec<usize> = (0..logits.len()).filter(|&id| weight(id) >= f64::from(min_p)).collect();
        if top_k > 0 && top_k < ids.len() {
            sort_head(&mut ids, logits, top_k);
            ids.truncate(top_k);
        }
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let total = if top_p < 1.0 { nucleus(&mut ids, logits, f64::from(top_p) * total, weight) } else { total };
        let mut point = self.random.f64() * total;
        for &id in &ids {
            point -= weight(id);
            if point < 0.0 {
                return id;
            }
        }
        best
    }
}

/// Keeps the best whose weights reach `wanted`; their sum. Sorts no more than needed.
fn nucleus(ids: &mut Vec<usize>, logits: &[f32], wanted: f64, weight: impl Fn(usize) -> f64) -> f64 {
    for sorted in [HEAD.min(ids.len()), ids.len()] {
        sort_head(ids, logits, sorted);
        let mut sum = 0.0;
        for i in 0..sorted {
            sum += weight(ids[i]);
            if sum >= wanted || i + 1 == ids.len() {
                ids.truncate(i + 1);
                return sum;
            }
        }
    }
    0.0
}

/// Brings the best `count` to the front, best first; of equals the lower id.
fn sort_head(ids: &mut [usize], logits: &[f32], count: usize) {
    let order = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
    }
    ids[..count].sort_unstable_by(order);
}

/// The best token, of equals the first.
fn argmax(logits: &[f32]) -> Result<usize, EngineError> {
    nn::argmax(logits).filter(|best| logits[*best].is_finite()).ok_or(EngineError::NotFinite)
}

fn logprobs(logits: &[f32], id: usize, best: usize, count: usize) -> Logprobs {
    let max = f64::from(logits[best]);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    let log = |id: usize| (f64::from(logits[id]) - max - sum.ln()) as f32;
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    let count = count.min(ids.len());
    sort_head(&mut ids, logits, count);
    Logprobs { chosen: log(id), top: ids[..count].iter().map(|&id| (id as u32, log(id))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dry;

    fn draws(sampling: &Sampling, logits: &[f32], count: u64) -> Vec<u32> {
        let draw = |seed| {
            Sampler::new(Sampling { seed: Some(seed), ..sampling.clone() }, &[]).draw(logits, &[], May::default()).unwrap().0
        };
        (0..count).map(draw).collect()
    }

    #[test]
    fn only_allowed_tokens_are_drawn() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0];
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        let cases: [(Sampling, &[u32]); 7] = [
            (Sampling::default(), &[1]),
            (warm.clone(), &[0, 1, 2, 3, 4]),
            (Sampling { top_k: 1, ..warm.clone() }, &[1]),
            (Sampling { top_k: 2, ..warm.clone() }, &[1, 3]),
            (Sampling { top_p: 0.5, ..warm.clone() }, &[1, 3]),
            (Sampling { min_p: 0.3, ..warm.clone() }, &[1, 2, 3]),
            (Sampling { top_k: 3, top_p: 0.99, ..warm }, &[1, 2, 3]),
        ];
        for (sampling, expected) in cases {
            let mut found = draws(&sampling, &logits, 2000);
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, expected, "{sampling:?}");
        }
    }

    #[test]
    fn what_is_banned_or_punished_is_not_drawn() {
        let biased = Sampling { logit_bias: vec![(2, 100.0)], ..Sampling::default() };
        let tired = Sampling { presence_penalty: 2.0, ..Sampling::default() };
        let logits = [1.0, 3.0, 2.0];
        let mask = Mask(vec![0b101]);
        for (sampling, may, expected) in [
            (Sampling::default(), May::default(), [1, 1]),
            (Sampling::default(), May { none_of: &[1], ..May::default() }, [2, 2]),
            (Sampling::default(), May { only: Some(&mask), none_of: &[] }, [2, 2]),
            (Sampling::default(), May { only: Some(&mask), none_of: &[2] }, [0, 0]),
            (Sampling::default(), May { only: Some(&mask), none_of: &[0, 2] }, [2, 2]),
            (biased, May::default(), [2, 2]),
            (tired, May::default(), [1, 2]),
        ] {
            let mut sampler = Sampler::new(sampling, &[]);
            assert_eq!([(); 2].map(|()| sampler.draw(&logits, &[], may).unwrap().0), expected);
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, (3.0f32).ln()];
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let ones = draws(&sampling, &logits, 10_000).iter().filter(|&&id| id == 1).count();
        assert!((7_300..7_700).contains(&ones), "{ones}");
    }

    #[test]
    fn a_seed_repeats_the_draw() {
        let logits: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.7).sin()).collect();
        let sampling = Sampling { temperature: 1.5, top_p: 0.9, seed: Some(7), ..Sampling::default() };
        let run = || {
            let mut sampler = Sampler::new(sampling.clone(), &[]);
            (0..20).map(|_| sampler.draw(&logits, &[], May::default()).unwrap().0).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn logprobs_are_those_of_the_plain_logits() {
        let sampling = Sampling { temperature: 0.0, logprobs: Some(2), ..Sampling::default() };
        let (id, logprobs) =
            Sampler::new(sampling, &[]).draw(&[0.0, (2.0f32).ln(), f32::NEG_INFINITY], &[], May::default()).unwrap();
        let logprobs = logprobs.unwrap();
        assert_eq!((id, logprobs.top[1].0), (1, 0));
        assert!((logprobs.chosen - (2.0f32 / 3.0).ln()).abs() < 1e-6 && (logprobs.top[1].1 - (1.0f32 / 3.0).ln()).abs() < 1e-6);
    }

    /// E6 of docs/reliability.md.
    #[test]
    fn what_is_not_a_number_is_refused() {
        for logits in [vec![f32::NAN, 1.0], vec![1.0, f32::NAN], vec![f32::INFINITY], vec![f32::NEG_INFINITY; 2], vec![]] {
            assert_eq!(
                Sampler::new(Sampling::default(), &[]).draw(&logits, &[], May::default()).unwrap_err(),
                EngineError::NotFinite,
                "{logits:?}"
            );
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let plain = Sampling::default;
        let cases = [
            ("temperature", Sampling { temperature: f32::NAN, ..plain() }),
            ("temperature", Sampling { temperature: -0.1, ..plain() }),
            ("top_p", Sampling { top_p: 0.0, ..plain() }),
            ("top_p", Sampling { top_p: f32::NAN, ..plain() }),
            ("min_p", Sampling { min_p: 1.5, ..plain() }),
            ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..plain() }),
            ("presence_penalty", Sampling { presence_penalty: 2.5, ..plain() }),
            ("frequency_penalty", Sampling { frequency_penalty: f32::NAN, ..plain() }),
            ("dry_multiplier", Sampling { dry: Some(Dry { multiplier: -1.0, ..Dry::default() }), ..plain() }),
            ("dry_base", Sampling { dry: Some(Dry { base: f32::INFINITY, ..Dry::default() }), ..plain() }),
            ("logit_bias", Sampling { logit_bias: vec![(1, 3.0), (2, -101.0)], ..plain() }),
            ("logit_bias", Sampling { logit_bias: vec![(1, f32::NAN)], ..plain() }),
            ("the number of logit_bias entries", Sampling { logit_bias: vec![(1, 0.0); 1025], ..plain() }),
            ("top_logprobs", Sampling { logprobs: Some(21), ..plain() }),
        ];
        for (field, sampling) in cases {
            assert!(matches!(sampling.validate(), Err(EngineError::OutOfRange { field: f, .. }) if f == field), "{sampling:?}");
        }
        assert_eq!(plain().validate(), Ok(()));
    }
}
