//! What the text so far does to the logits of what comes next.

use std::collections::{HashMap, HashSet};

use crate::Sampling;
use crate::sampling::Dry;

/// The text of one sequence, as far as its penalties ask for it.
#[derive(Debug)]
pub(crate) struct Penalties {
    in_prompt: HashSet<u32>,
    /// Tokens of the answer, and how often it has them.
    drawn: HashMap<u32, u32>,
}

impl Penalties {
    /// Nothing is drawn yet.
    pub fn new(prompt: &[u32], sampling: &Sampling) -> Self {
        let in_prompt = if sampling.repetition_penalty == 1.0 { HashSet::new() } else { prompt.iter().copied().collect() };
        Self { in_prompt, drawn: HashMap::new() }
    }

    /// The answer has one token more.
    pub fn push(&mut self, id: u32) {
        *self.drawn.entry(id).or_default() += 1;
    }

    /// Changes the logits; `tokens` are the prompt's and the answer's.
    pub fn apply(&self, sampling: &Sampling, tokens: &[u32], logits: &mut [f32]) {
        let repetition = sampling.repetition_penalty;
        if repetition != 1.0 {
            let seen = self.in_prompt.iter().chain(self.drawn.keys().filter(|id| !self.in_prompt.contains(*id)));
            seen.for_each(|id| {
                // What can be read need not be written.
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
                }
            });
        }
        for (id, count) in &self.drawn {
            logits[*id as usize] -= sampling.presence_penalty + sampling.frequency_penalty * *count as f32;
        }
        if let Some(dry) = sampling.dry.as_ref().filter(|dry| dry.multiplier > 0.0) {
            for (id, length) in repeats(tokens, dry) {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit -= dry.multiplier * dry.base.powf((length - dry.allowed_length) as f32);
                }
            }
        }
        for (id, bias) in &sampling.logit_bias {
            logits[*id as usize] += bias;
        }
    }
}

/// Tokens that would prolong a repetition, and the length of the longest that each would prolong. In time linear in the text,
/// by the Z-function of the reversed text: how long what ends at each place agrees with the end of all.
fn repeats(tokens: &[u32], dry: &Dry) -> HashMap<u32, usize> {
    let mut longest: HashMap<u32, usize> = HashMap::new();
    let back = |i: usize| tokens[tokens.len() - 1 - i];
    let free_of_breakers = (0..tokens.len()).take_while(|&i| dry.breakers.binary_search(&back(i)).is_err()).count();
    let least = dry.allowed_length.max(1);
    if free_of_breakers < least {
        return longest;
    }
    let mut z = vec![0usize; tokens.len()];
    let (mut left, mut right) = (0, 0);
    for i in 1..tokens.len() {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < tokens.len() && back(length) == back(i + length) {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        z[i] = length;
        let length = length.min(free_of_breakers);
        if length >= least {
            let entry = longest.entry(back(i - 1)).or_default();
            *entry = length.max(*entry);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_found_up_to_a_breaker() {
        // Text, shortest repetition that counts, expected (token, length).
        type Case = (&'static [u32], usize, &'static [(u32, usize)]);
        let cases: [Case; 8] = [
            (&[], 2, &[]),
            (&[1, 2, 3], 2, &[]),
            (&[1, 2, 3, 1, 2], 2, &[(3, 2)]),
            (&[1, 2, 3, 1, 2], 3, &[]),
            (&[1, 2, 3, 9, 1, 2, 4, 1, 2], 2, &[(3, 2), (4, 2)]),
            (&[5, 1, 2, 3, 1, 2, 3, 5, 1, 2], 2, &[(3, 3)]),
            (&[7, 7, 7, 7], 1, &[(7, 3)]),
            // 9 breaks: only what stands behind the last one repeats.
            (&[8, 9, 1, 2, 3, 8, 9, 1, 2], 2, &[(3, 2)]),
        ];
        for (text, allowed_length, expected) in cases {
            let dry = Dry { allowed_length, breakers: vec![9], ..Dry::default() };
            let mut found: Vec<_> = repeats(text, &dry).into_iter().collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn logits_change_as_each_rule_says() {
        let plain = Sampling::default;
        let dry = Dry { multiplier: 0.5, base: 2.0, ..Dry::default() };
        // Prompt 0 1, answer 2 1 1, logits 4 -4 2 0: what becomes of them.
        let cases = [
            (plain(), [4.0, -4.0, 2.0, 0.0]),
            (Sampling { repetition_penalty: 2.0, ..plain() }, [2.0, -8.0, 1.0, 0.0]),
            (Sampling { presence_penalty: 0.5, ..plain() }, [4.0, -4.5, 1.5, 0.0]),
            (Sampling { frequency_penalty: 0.5, ..plain() }, [4.0, -5.0, 1.5, 0.0]),
            (Sampling { logit_bias: vec![(3, 7.0), (0, -1.0)], ..plain() }, [3.0, -4.0, 2.0, 7.0]),
            (Sampling { dry: Some(Dry { allowed_length: 1, ..dry.clone() }), ..plain() }, [4.0, -4.5, 1.5, 0.0]),
            (Sampling { dry: Some(dry), ..plain() }, [4.0, -4.0, 2.0, 0.0]),
        ];
        for (sampling, expected) in cases {
            let mut penalties = Penalties::new(&[0, 1], &sampling);
            [2, 1, 1].into_iter().for_each(|id| penalties.push(id));
            let mut logits = [4.0, -4.0, 2.0, 0.0];
            penalties.apply(&sampling, &[0, 1, 2, 1, 1], &mut logits);
            assert_eq!(logits, expected, "{sampling:?}");
        }
    }
}
