use std::ops::Range;
use std::time::{Duration, Instant};

use nn::{Prompt, Tensor};
use tokio::sync::mpsc;

use crate::queue::Place;
use crate::sampler::Sampler;
use crate::{EngineError, Event, FinishReason, Request, Timings, Usage};

/// A request on its way through the engine.
#[derive(Debug)]
pub struct Sequence {
    pub prompt: Prompt,
    /// The prompt's tokens and those drawn since.
    pub tokens: Vec<u32>,
    /// Tokens whose keys and values are in the cache.
    pub cached: usize,
    /// Its cache blocks.
    pub blocks: Vec<u32>,
    /// Rows of the media items that were encoded and are still to be passed.
    pub encoded: Vec<Option<Tensor>>,
    tokens_max: usize,
    stop_tokens: Vec<u32>,
    sampler: Sampler,
    events: mpsc::Sender<Event>,
    /// Held until the first step.
    place: Option<Place>,
    timings: Timings,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Sequence {
    pub fn new(request: Request, events: mpsc::Sender<Event>, place: Place) -> Self {
        let Request { prompt, sampling, tokens_max, stop_tokens } = request;
        Self {
            tokens: prompt.tokens.clone(),
            encoded: vec![None; prompt.media.len()],
            prompt,
            cached: 0,
            blocks: Vec::new(),
            tokens_max,
            stop_tokens,
            sampler: Sampler::new(sampling),
            events,
            place: Some(place),
            timings: Timings::default(),
            submitted: Instant::now(),
            started: None,
            first_token: None,
        }
    }

    /// Nobody listens any more.
    pub fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// Tokens that still have to be computed before the next one can be drawn.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// How many of the pending tokens a budget allows: never part of an island. Zero when the first island does not fit, unless
    /// the budget is `whole`, the most there ever is.
    pub fn chunk(&self, budget: usize, whole: usize) -> usize {
        let end = self.cached + self.pending().min(budget);
        let Some(cut) = self.prompt.islands.iter().find(|island| island.start < end && end < island.end) else {
            return end - self.cached;
        };
        let before = cut.start.saturating_sub(self.cached);
        if before == 0 && budget == whole { cut.end - self.cached } else { before }
    }

    /// Media items that have rows among the next `count` tokens: (item, their token range, first of its rows).
    pub fn media_in(&self, count: usize) -> Vec<(usize, Range<usize>, usize)> {
        let window = self.cached..self.cached + count;
        let mut found = Vec::new();
        for (item, placement) in self.prompt.media.iter().enumerate() {
            let mut row = 0;
            for at in &placement.at {
                let seen = at.start.max(window.start)..at.end.min(window.end);
                if !seen.is_empty() {
                    found.push((item, seen.clone(), row + seen.start - at.start));
                }
                row += at.len();
            }
        }
        found
    }

    /// The next `count` tokens are in the cache now; media behind them is not needed any more.
    pub fn advance(&mut self, count: usize) {
        self.cached += count;
        for (item, placement) in self.prompt.media.iter().enumerate() {
            if placement.at.last().is_none_or(|at| at.end <= self.cached) {
                self.encoded[item] = None;
            }
        }
    }

    /// Its blocks are gone; what was computed has to be computed again.
    pub fn restart(&mut self) {
        self.cached = 0;
    }

    /// The sequence is in the batch from now on.
    pub fn start(&mut self) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.place = None;
            self.timings.queue = self.submitted.elapsed();
        }
    }

    pub fn encoding_took(&mut self, time: Duration) {
        self.timings.encode += time;
    }

    /// Draws a token from the logits of the last row and tells the listener; whether the answer is complete.
    pub fn draw(&mut self, logits: &[f32]) -> Result<bool, EngineError> {
        let (id, logprobs) = self.sampler.draw(logits)?;
        self.tokens.push(id);
        self.clock();
        let drawn = self.tokens.len() - self.prompt.tokens.len();
        let stop = self.stop_tokens.contains(&id);
        if !stop {
            self.send(Event::Token { id, logprobs });
        }
        let reason = match () {
            () if stop => FinishReason::Stop { token: id },
            () if drawn >= self.tokens_max => FinishReason::Length,
            () => return Ok(false),
        };
        let media_tokens = self.prompt.media.iter().map(|m| m.input.rows).sum();
        let usage =
            Usage { prompt_tokens: self.prompt.tokens.len(), media_tokens, completion_tokens: drawn, timings: self.timings };
        self.send(Event::Finished { reason, usage });
        Ok(true)
    }

    pub fn fail(&self, error: EngineError) {
        self.send(Event::Failed(error));
    }

    fn clock(&mut self) {
        let now = Instant::now();
        match self.first_token {
            Some(first) => self.timings.decode = now - first,
            None => {
                self.first_token = Some(now);
                self.timings.first_token = now - self.submitted;
                self.timings.prefill = self.timings.first_token.saturating_sub(self.timings.queue + self.timings.encode);
            }
        }
    }

    /// The channel has room for everything that a request can bring forth; what fails is that nobody listens.
    fn send(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
