//! How much of the prompts a step may compute while others write.

/// By how much a step may take longer because of prompts.
const STRETCH: f64 = 2.25;
/// Prompt tokens of a step at least, so that a prompt gets on wherever others write.
const FEWEST: usize = 8;
/// Prompt tokens of a step as long as nothing is known.
const FIRST: usize = 32;
/// Share of the newest measurement in an average.
const NEWEST: f64 = 0.2;

/// What steps have taken.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds of a step in which sequences only write.
    writing: Option<f64>,
    /// Seconds that a prompt token adds.
    token: Option<f64>,
}

impl Pace {
    /// A step in which so many sequences wrote, and so many prompt tokens were read, took so many seconds.
    pub fn observe(&mut self, writing: usize, prompt_tokens: usize, seconds: f64) {
        let average = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old + NEWEST * (new - old)));
        match (writing, prompt_tokens, self.writing) {
            (0, 0, _) => {}
            (_, 0, old) => self.writing = average(old, seconds),
            (0, tokens, _) => self.token = average(self.token, seconds / tokens as f64),
            (_, tokens, Some(alone)) => self.token = average(self.token, (seconds - alone).max(0.0) / tokens as f64),
            (_, _, None) => {}
        }
    }

    /// Prompt tokens that the next step may read, `most` at most, while so many sequences write.
    pub fn prompt_tokens(&self, writing: usize, most: usize) -> usize {
        let paced = match (writing, self.writing, self.token) {
            (0, ..) => most,
            (_, Some(alone), Some(token)) => (((STRETCH - 1.0) * alone / token.max(f64::MIN_POSITIVE)) as usize).max(FEWEST),
            _ => FIRST,
        };
        paced.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_take_what_those_who_write_can_spare() {
        // Steps (writing, prompt tokens, seconds), then what a step of four writers and a budget of 512 may read.
        type Case = (&'static [(usize, usize, f64)], usize);
        let cases: [Case; 7] = [
            (&[], 32),
            (&[(4, 0, 0.05)], 32),
            (&[(0, 512, 2.56), (4, 0, 0.05)], 12),
            (&[(4, 0, 0.05), (4, 32, 0.21)], 12),
            (&[(4, 0, 0.05), (4, 32, 0.05)], 512),
            (&[(4, 0, 0.001), (4, 10, 1.0)], 8),
            (&[(4, 32, 0.2), (0, 0, 9.0)], 32),
        ];
        for (steps, expected) in cases {
            let mut pace = Pace::default();
            steps.iter().for_each(|&(writing, tokens, seconds)| pace.observe(writing, tokens, seconds));
            assert_eq!((pace.prompt_tokens(4, 512), pace.prompt_tokens(0, 512)), (expected, 512), "{steps:?}");
            assert_eq!(pace.prompt_tokens(1, 3), 3);
        }
    }
}
