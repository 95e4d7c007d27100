use crate::EngineError;

/// Alternatives that can be reported for a token.
const LOGPROBS_MAX: usize = 20;

/// How tokens are drawn. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the best token always.
    pub temperature: f32,
    /// Only the best so many; 0 is all.
    pub top_k: usize,
    /// Only the best whose probabilities add up to it (Holtzman et al. 2020).
    pub top_p: f32,
    /// Only those at least so probable, relative to the best.
    pub min_p: f32,
    /// Makes the draw repeatable, whatever else runs.
    pub seed: Option<u64>,
    /// Report probabilities, with so many alternatives (at most 20).
    pub logprobs: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: None, logprobs: None }
    }
}

impl Sampling {
    /// Every value is in its range.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`] names the first that is not.
    pub fn validate(&self) -> Result<(), EngineError> {
        let Self { temperature, top_p, min_p, logprobs, .. } = *self;
        let count = logprobs.unwrap_or(0);
        let checks = [
            ("temperature", (0.0..=100.0).contains(&temperature), temperature, "between 0 and 100"),
            ("top_p", top_p > 0.0 && top_p <= 1.0, top_p, "above 0 and at most 1"),
            ("min_p", (0.0..=1.0).contains(&min_p), min_p, "between 0 and 1"),
            ("top_logprobs", count <= LOGPROBS_MAX, count as f32, "at most 20"),
        ];
        let failed = checks.into_iter().find(|(_, met, ..)| !met);
        failed.map_or(Ok(()), |(field, _, found, allowed)| {
            Err(EngineError::OutOfRange { field, found: found.to_string(), allowed })
        })
    }
}
