use std::ops::Range;
use std::time::Duration;

use nn::{Positions, Prompt};
use tokio::sync::mpsc;

use crate::{Constraint, EngineError, Sampling};

/// Stop tokens that a request may name.
const STOP_TOKENS_MAX: usize = 128;

/// What is asked of the engine.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to go on from.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Tokens of the answer before a stop token may end it.
    pub tokens_min: usize,
    /// Tokens of the answer, at least 1.
    pub tokens_max: usize,
    /// Token ids that end the answer, at most 128. Without any, it ends at `tokens_max`.
    pub stop_token_ids: Vec<u32>,
    /// What was computed is found again only by requests with the same salt: how users are kept from learning, by time, what
    /// others have asked.
    pub cache_salt: Option<String>,
    /// What the answer may say. It ends where nothing can follow, and by a stop token only where it may.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// What the engine says of a request: that it began, tokens, then one [`Event::Finished`] or [`Event::Failed`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It waits no longer.
    Started {
        /// Tokens of the prompt that were found in the cache.
        cached_tokens: usize,
    },
    /// The next token of the answer. A stop token is not among them.
    Token {
        /// Its id.
        id: u32,
        /// How probable it was, when asked for.
        logprobs: Option<Logprobs>,
    },
    /// The answer is complete.
    Finished {
        /// What ended it.
        reason: FinishReason,
        /// What it took.
        usage: Usage,
    },
    /// There will be no more of the answer.
    Failed(EngineError),
}

/// Where a request's events arrive. It has room for all of them, so that a slow listener holds up nobody and loses nothing.
/// Dropping it cancels the request.
pub type Events = mpsc::Receiver<Event>;

/// Logarithmic probabilities under the raw logits, before temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// Of the token that was drawn.
    pub chosen: f32,
    /// Of the likeliest tokens, as many as asked for, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// What ended an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop token was drawn.
    Stop {
        /// Its id.
        token: u32,
    },
    /// Nothing can follow that the constraint allows.
    Complete,
    /// The answer has as many tokens as were asked for.
    Length,
}

/// What a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, media included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that stand for media.
    pub media_tokens: usize,
    /// Tokens of the prompt that were found in the cache.
    pub cached_tokens: usize,
    /// Tokens drawn, the stop token included.
    pub completion_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Where a request's time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission until the sequence first ran.
    pub queue: Duration,
    /// In encoding its media.
    pub encode: Duration,
    /// In the steps that computed its prompt; sequences of the same step count it each.
    pub prefill: Duration,
    /// From submission to the first token.
    pub first_token: Duration,
    /// From the first token to the end.
    pub decode: Duration,
}

/// What a model and a cache allow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Number of token ids that can be written.
    pub vocab: usize,
    /// Number of token ids that can be read.
    pub table: usize,
    /// Tokens of a sequence.
    pub context: usize,
}

impl Request {
    /// Refuses all that can be refused before the request joins anything.
    pub(crate) fn check(&self, limits: Limits) -> Result<(), EngineError> {
        let prompt = &self.prompt;
        if prompt.tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let biased: Vec<u32> = self.sampling.logit_bias.iter().map(|(id, _)| *id).collect();
        let written = [("stop_token_ids", &self.stop_token_ids), ("logit_bias", &biased)].map(|(f, ids)| (f, ids, limits.vocab));
        for (field, ids, vocab) in [("prompt", &prompt.tokens, limits.table)].into_iter().chain(written) {
            if let Some(&id) = ids.iter().find(|id| **id as usize >= vocab) {
                return Err(EngineError::UnknownToken { field, id, vocab });
            }
        }
        let out_of_range = |field, found: usize, allowed| EngineError::OutOfRange { field, found: found.to_string(), allowed };
        if self.tokens_max == 0 {
            return Err(out_of_range("tokens_max", 0, "at least 1"));
        }
        if self.tokens_min > self.tokens_max {
            return Err(out_of_range("min_tokens", self.tokens_min, "at most max_tokens"));
        }
        if self.stop_token_ids.len() > STOP_TOKENS_MAX {
            return Err(out_of_range("the number of stop_token_ids", self.stop_token_ids.len(), "at most 128"));
        }
        let tokens = prompt.tokens.len().saturating_add(self.tokens_max);
        if tokens > limits.context {
            return Err(EngineError::ContextTooLong { tokens, allowed: limits.context });
        }
        self.sampling.validate()?;
        check_layout(prompt)
    }
}

/// The prompt's ranges lie in it, in order, and agree with what they stand for.
fn check_layout(prompt: &Prompt) -> Result<(), EngineError> {
    let length = prompt.tokens.len();
    if !ascending(&prompt.islands, length) {
        return Err(EngineError::Prompt("an island is empty, out of order or outside"));
    }
    for item in &prompt.media {
        if !ascending(&item.at, length) {
            return Err(EngineError::Prompt("a media range is empty, out of order or outside"));
        }
        let placed = if item.looks.is_empty() { item.input.rows } else { 0 };
        if item.at.iter().map(|range| range.len()).sum::<usize>() != placed {
            return Err(EngineError::Prompt("a media item has more or fewer rows than places"));
        }
        if item.looks.iter().any(|look| look.tokens.is_empty() || look.rows > item.input.rows) {
            return Err(EngineError::Prompt("nobody looks at a media item, or at more rows than it has"));
        }
    }
    match &prompt.positions {
        Positions::Explicit { rows, .. } if rows.len() != length => Err(EngineError::Prompt("not one position per token")),
        _ => Ok(()),
    }
}

/// Whether the ranges are filled, disjoint, in order, and end by `length`.
fn ascending(ranges: &[Range<usize>], length: usize) -> bool {
    let mut from = 0;
    ranges.iter().all(|range| {
        let fits = range.start >= from && range.start < range.end && range.end <= length;
        from = range.end;
        fits
    })
}
