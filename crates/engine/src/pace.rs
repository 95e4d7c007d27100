//! How much of the prompts a step may compute while others write, and for how long media may be encoded between two steps.

use std::time::Duration;

/// By how much a step may take longer because of prompts.
const STRETCH: f64 = 2.25;
/// Prompt tokens of a step at least, so that a prompt gets on wherever others write.
const FEWEST: usize = 8;
/// Prompt tokens of a step as long as nothing is known.
const FIRST: usize = 32;
/// Seconds that encoding and reading take in turns where nobody writes.
const TURN: f64 = 0.1;
/// Share of the newest measurement in an average.
const NEWEST: f64 = 0.2;

/// What steps have taken.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds of a step in which sequences only write.
    writing: Option<f64>,
    /// Seconds that a prompt token adds.
    token: Option<f64>,
    /// Media are being encoded between the steps, which takes half of what those who write can spare.
    pub encoding: bool,
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
        let paced = match (self.spare(writing), self.token) {
            (Spare::All, _) => most,
            (Spare::Seconds(spare), Some(token)) => ((spare / token.max(f64::MIN_POSITIVE)) as usize).max(FEWEST),
            _ => FIRST,
        };
        paced.min(most)
    }

    /// For how long media may be encoded before the next step, while so many sequences write.
    pub fn encoding_time(&self, writing: usize) -> Duration {
        match self.spare(writing) {
            Spare::Seconds(spare) => Duration::from_secs_f64(spare),
            Spare::All | Spare::Unknown => Duration::ZERO,
        }
    }

    /// What prompts may take of the next step's time.
    fn spare(&self, writing: usize) -> Spare {
        let share = if self.encoding { 0.5 } else { 1.0 };
        match (writing, self.writing) {
            (0, _) if self.encoding => Spare::Seconds(TURN),
            (0, _) => Spare::All,
            (_, Some(alone)) => Spare::Seconds(share * (STRETCH - 1.0) * alone),
            (_, None) => Spare::Unknown,
        }
    }
}

enum Spare {
    All,
    Seconds(f64),
    Unknown,
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

    #[test]
    fn encoding_and_reading_share_what_is_to_spare() {
        let mut pace = Pace { encoding: true, ..Pace::default() };
        let millis = |pace: &Pace, writing: usize| pace.encoding_time(writing).as_millis();
        assert_eq!((millis(&pace, 4), millis(&pace, 0)), (0, 100));
        pace.observe(4, 0, 0.08);
        pace.observe(0, 100, 0.5);
        assert_eq!((millis(&pace, 4), millis(&pace, 0)), (50, 100));
        assert_eq!((pace.prompt_tokens(4, 512), pace.prompt_tokens(0, 512)), (10, 20));
    }
}
