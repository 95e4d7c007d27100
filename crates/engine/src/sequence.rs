use std::ops::Range;
use std::time::{Duration, Instant};

use nn::{Encoded, Placement, Prompt};
use tokio::sync::mpsc;

use crate::blocks::{BlockPool, Tables};
use crate::layout::Layout;
use crate::prefix::{self, BlockHash};
use crate::queue::Place;
use crate::sampler::{May, Sampler};
use crate::{Constraint, EngineError, Event, FinishReason, Logprobs, Mask, Request, Timings, Usage};

/// A request on its way through the engine.
#[derive(Debug)]
pub struct Sequence {
    /// Tells it from all others.
    pub id: u64,
    pub prompt: Prompt,
    /// The prompt's tokens and those drawn since.
    pub tokens: Vec<u32>,
    /// Tokens whose keys and values are in the cache.
    pub cached: usize,
    /// Its cache blocks.
    pub tables: Tables,
    /// Of its full blocks; as many as there are tokens for, computed or not.
    pub hashes: Vec<BlockHash>,
    /// Blocks that others can find.
    published: usize,
    /// Tokens behind which a copy of the state is kept, ascending and at ends of blocks; none where layers keep no state.
    marks: Vec<usize>,
    /// The block behind which a copy of the answer's state is kept.
    trail: Option<BlockHash>,
    cache_salt: Option<String>,
    /// What became of the media items that were encoded and are still needed.
    pub encoded: Vec<Option<Encoded>>,
    tokens_min: usize,
    tokens_max: usize,
    stop_token_ids: Vec<u32>,
    sampler: Sampler,
    /// What the answer may say; away while its mask is made.
    pub constraint: Option<Box<dyn Constraint>>,
    events: mpsc::Sender<Event>,
    /// Held until the first step.
    place: Option<Place>,
    cached_tokens: usize,
    timings: Timings,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

/// Tokens that a step has left for a prompt.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// What others can spare.
    pub paced: usize,
    /// What is left of the budget.
    pub hard: usize,
    /// No other prompt takes part: an island that is larger must be let through.
    pub whole: bool,
}

impl Sequence {
    pub fn new(request: Request, layout: &Layout, events: mpsc::Sender<Event>, place: Place) -> Self {
        let Request { prompt, sampling, tokens_min, tokens_max, stop_token_ids, cache_salt, constraint } = request;
        let sampler = Sampler::new(sampling, &prompt.tokens);
        let mut hashes = Vec::new();
        prefix::extend(&mut hashes, &prompt, &prompt.tokens, layout.block_size, cache_salt.as_deref());
        Self {
            id: 0,
            tokens: prompt.tokens.clone(),
            encoded: vec![None; prompt.media.len()],
            marks: if layout.keeps_states() { prefix::marks(&prompt, layout.block_size) } else { Vec::new() },
            trail: None,
            prompt,
            cached: 0,
            tables: Tables::new(),
            hashes,
            published: 0,
            cache_salt,
            tokens_min,
            tokens_max,
            stop_token_ids,
            sampler,
            constraint,
            events,
            place: Some(place),
            cached_tokens: 0,
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

    /// Whether a token can be drawn when so many of the pending ones are computed: all of them.
    pub fn draws_after(&self, count: usize) -> bool {
        count == self.pending()
    }

    /// How many of the pending tokens there is room for: never part of an island, which may take more than others spare, and
    /// none behind the next mark; none of media that are still to be encoded.
    pub fn chunk(&self, room: Room) -> usize {
        let missing = self.prompt.media.iter().zip(&self.encoded).filter(|(_, encoded)| encoded.is_none());
        let needed = missing.flat_map(|(item, _)| item.needed_by());
        let missing = needed.filter(|tokens| tokens.end > self.cached).map(|tokens| tokens.start).min();
        self.chunk_between(self.cached..missing.unwrap_or(usize::MAX).max(self.cached), room)
    }

    /// The same if so many tokens were in the cache, and all media encoded.
    pub fn chunk_behind(&self, cached: usize, room: Room) -> usize {
        self.chunk_between(cached..usize::MAX, room)
    }

    fn chunk_between(&self, Range { start: cached, end: ready }: Range<usize>, room: Room) -> usize {
        let mark = self.marks.iter().find(|mark| **mark > cached).copied().unwrap_or(usize::MAX);
        let end = self.tokens.len().min(cached.saturating_add(room.paced)).min(mark).min(ready);
        let Some(cut) = self.prompt.islands.iter().find(|island| island.start < end && end < island.end) else {
            return end - cached;
        };
        let island = cut.end - cached;
        match cut.start.saturating_sub(cached) {
            0 if cut.end <= ready && (island <= room.hard || room.whole) => island,
            before => before,
        }
    }

    /// The first media item that the next `count` tokens need and that is not encoded.
    pub fn unencoded(&self, count: usize) -> Option<usize> {
        let next = self.cached..self.cached + count.min(self.pending());
        let mut media = self.prompt.media.iter().zip(&self.encoded);
        media.position(|(item, encoded)| encoded.is_none() && is_needed(item, &next))
    }

    /// Media items that these tokens need, and what became of them.
    pub fn media_of(&self, tokens: Range<usize>) -> impl Iterator<Item = (&Placement, &Option<Encoded>)> {
        self.prompt.media.iter().zip(&self.encoded).filter(move |(item, _)| is_needed(item, &tokens))
    }

    /// The next `count` tokens are in the cache now; media behind them is not needed any more.
    pub fn advance(&mut self, count: usize) {
        self.cached += count;
        for (item, placement) in self.prompt.media.iter().enumerate() {
            if placement.needed_by().all(|tokens| tokens.end <= self.cached) {
                self.encoded[item] = None;
            }
        }
    }

    /// Hashes of the blocks that may be taken over from others: not that of the last token, whose logits are wanted.
    pub fn reusable(&self, block_size: usize) -> &[BlockHash] {
        let blocks = self.hashes.len().min(self.tokens.len().saturating_sub(1) / block_size);
        &self.hashes[..blocks]
    }

    /// The next number of blocks above `known` behind which others can go on as soon as it has computed them.
    pub fn next_found(&self, known: usize, block_size: usize) -> Option<usize> {
        if self.marks.is_empty() {
            return Some(known + 1);
        }
        self.marks.iter().map(|mark| mark / block_size).find(|blocks| *blocks > known)
    }

    /// Begins behind what others have computed already: so many blocks.
    pub fn claim(&mut self, pool: &mut BlockPool, known: usize) {
        self.tables = pool.claim(&self.hashes[..known]);
        self.published = known;
        self.cached = known * pool.block_size();
    }

    /// Lets others find what it has computed, and gives up what it does not look at any more.
    pub fn publish(&mut self, pool: &mut BlockPool) {
        let size = pool.block_size();
        let full = self.cached / size;
        if self.hashes.len() < full {
            prefix::extend(&mut self.hashes, &self.prompt, &self.tokens, size, self.cache_salt.as_deref());
        }
        (self.published..full).for_each(|i| pool.publish(&self.tables, i, self.hashes[i]));
        self.published = full;
        if pool.state_group().is_some() && full > 0 && self.cached == full * size {
            self.keep_state(pool, self.hashes[full - 1]);
        }
        pool.trim(&mut self.tables, self.cached);
    }

    /// Keeps copies of the state at the marks of the prompt, and at the newest end of a block of the answer.
    fn keep_state(&mut self, pool: &mut BlockPool, behind: BlockHash) {
        if self.marks.contains(&self.cached) {
            pool.keep_state(&self.tables, behind);
        } else if self.cached > self.prompt.tokens.len() {
            if let Some(older) = self.trail.replace(behind) {
                pool.forget_state(older);
            }
            pool.keep_state(&self.tables, behind);
        }
    }

    /// Gives its blocks up; what they held and nobody keeps has to be computed again.
    pub fn release(&mut self, pool: &mut BlockPool) {
        pool.release(&mut self.tables);
        (self.cached, self.published) = (0, 0);
    }

    /// The sequence is in the batch from now on.
    pub fn start(&mut self) {
        if self.started.is_none() {
            self.started = Some(Instant::now());
            self.cached_tokens = self.cached;
            self.send(Event::Started { cached_tokens: self.cached });
            self.place = None;
            self.timings.queue = self.submitted.elapsed();
        }
    }

    pub fn encoding_took(&mut self, time: Duration) {
        self.timings.encode += time;
    }

    /// Draws a token from the logits of the last row, among those in the mask of a constraint, and tells the listener; whether
    /// the answer is complete.
    pub fn draw(&mut self, logits: &[f32], mask: Option<&Mask>) -> Result<bool, EngineError> {
        let none_of = if self.drawn() < self.tokens_min { self.stop_token_ids.as_slice() } else { &[] };
        let may = May { only: mask, none_of };
        let (id, logprobs) = self.sampler.draw(logits, &self.tokens, may)?;
        self.clock();
        if self.stop_token_ids.contains(&id) {
            self.tokens.push(id);
            return Ok(self.finish(FinishReason::Stop { token: id }));
        }
        if self.say(id, logprobs) {
            return Ok(true);
        }
        self.follow(id)
    }

    /// Tells the constraint of a token, and says what must come next without asking the model, unless its probabilities are
    /// wanted; whether the answer is complete.
    fn follow(&mut self, id: u32) -> Result<bool, EngineError> {
        let Some(mut constraint) = self.constraint.take() else { return Ok(false) };
        constraint.accept(id).map_err(EngineError::Constraint)?;
        let forced = if self.sampler.tells_probabilities() { Vec::new() } else { constraint.skip() };
        let complete = constraint.is_complete();
        self.constraint = Some(constraint);
        for id in forced {
            self.sampler.told(id);
            if self.say(id, None) {
                return Ok(true);
            }
        }
        Ok(complete && self.finish(FinishReason::Complete))
    }

    /// A token of the answer; whether it has all it may have.
    fn say(&mut self, id: u32, logprobs: Option<Logprobs>) -> bool {
        self.tokens.push(id);
        self.send(Event::Token { id, logprobs });
        self.drawn() >= self.tokens_max && self.finish(FinishReason::Length)
    }

    /// Tokens of the answer so far.
    fn drawn(&self) -> usize {
        self.tokens.len() - self.prompt.tokens.len()
    }

    /// The answer is complete.
    fn finish(&self, reason: FinishReason) -> bool {
        let usage = Usage {
            prompt_tokens: self.prompt.tokens.len(),
            media_tokens: self.prompt.media_tokens(),
            cached_tokens: self.cached_tokens,
            completion_tokens: self.drawn(),
            timings: self.timings,
        };
        self.send(Event::Finished { reason, usage });
        true
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

/// Whether one of the tokens cannot be computed without the item.
fn is_needed(item: &Placement, tokens: &Range<usize>) -> bool {
    item.needed_by().any(|needed| needed.start < tokens.end && tokens.start < needed.end)
}
