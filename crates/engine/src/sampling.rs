use crate::EngineError;

/// Alternatives that can be reported for a token.
const LOGPROBS_MAX: usize = 20;
/// Tokens whose logits a request may change.
const BIASES_MAX: usize = 1024;

/// How tokens are drawn. The default is greedy.
///
/// Logits are changed in this order: repetition, presence and frequency, DRY, bias; then divided by the temperature, and the
/// unlikely left out by top-k, top-p and min-p.
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
    /// Logits of tokens that prompt or answer have already are divided by it when positive, multiplied when negative (Keskar et
    /// al. 2019). 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the logits of tokens that the answer has already.
    pub presence_penalty: f32,
    /// Taken from the logits of the answer's tokens, as often as it has them.
    pub frequency_penalty: f32,
    /// Against repeating whole passages.
    pub dry: Option<Dry>,
    /// Added to the logits of these tokens, at most 1024.
    pub logit_bias: Vec<(u32, f32)>,
    /// Makes the draw repeatable, whatever else runs.
    pub seed: Option<u64>,
    /// Report probabilities, with so many alternatives (at most 20).
    pub logprobs: Option<usize>,
}

/// "Don't repeat yourself" (p-e-w, text-generation-webui #5677): a token that would prolong a passage of `n` tokens which
/// stands earlier in the text loses `multiplier * base^(n - allowed_length)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    /// Strength; 0 changes nothing.
    pub multiplier: f32,
    /// Growth per token.
    pub base: f32,
    /// Passages that are shorter are free.
    pub allowed_length: usize,
    /// Tokens that no passage goes over, ascending.
    pub breakers: Vec<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry: None,
            logit_bias: Vec::new(),
            seed: None,
            logprobs: None,
        }
    }
}

impl Default for Dry {
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, breakers: Vec::new() }
    }
}

impl Sampling {
    /// Whether the text so far, or a bias, changes logits.
    pub(crate) fn has_penalties(&self) -> bool {
        let factors = [self.repetition_penalty - 1.0, self.presence_penalty, self.frequency_penalty];
        factors.iter().any(|factor| *factor != 0.0) || self.dry.is_some() || !self.logit_bias.is_empty()
    }

    /// Every value is in its range.
    ///
    /// # Errors
    /// [`EngineError::OutOfRange`] names the first that is not.
    pub fn validate(&self) -> Result<(), EngineError> {
        let &Self { temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, .. } = self;
        let alternatives = self.logprobs.unwrap_or(0) as f32;
        let (multiplier, base) = self.dry.as_ref().map_or((0.0, 1.0), |dry| (dry.multiplier, dry.base));
        let biases = self.logit_bias.len();
        let bias = self.logit_bias.iter().map(|(_, bias)| *bias).find(|bias| !(-100.0..=100.0).contains(bias)).unwrap_or(0.0);
        let checks = [
            ("temperature", (0.0..=100.0).contains(&temperature), temperature, "between 0 and 100"),
            ("top_p", top_p > 0.0 && top_p <= 1.0, top_p, "above 0 and at most 1"),
            ("min_p", (0.0..=1.0).contains(&min_p), min_p, "between 0 and 1"),
            (
                "repetition_penalty",
                repetition_penalty > 0.0 && repetition_penalty <= 100.0,
                repetition_penalty,
                "above 0 and at most 100",
            ),
            ("presence_penalty", (-2.0..=2.0).contains(&presence_penalty), presence_penalty, "between -2 and 2"),
            ("frequency_penalty", (-2.0..=2.0).contains(&frequency_penalty), frequency_penalty, "between -2 and 2"),
            ("dry_multiplier", (0.0..=100.0).contains(&multiplier), multiplier, "between 0 and 100"),
            ("dry_base", (1.0..=100.0).contains(&base), base, "between 1 and 100"),
            ("the number of logit_bias entries", biases <= BIASES_MAX, biases as f32, "at most 1024"),
            ("logit_bias", bias == 0.0, bias, "between -100 and 100"),
            ("top_logprobs", alternatives <= LOGPROBS_MAX as f32, alternatives, "at most 20"),
        ];
        let failed = checks.into_iter().find(|(_, met, ..)| !met);
        failed.map_or(Ok(()), |(field, _, found, allowed)| {
            Err(EngineError::OutOfRange { field, found: found.to_string(), allowed })
        })
    }
}
