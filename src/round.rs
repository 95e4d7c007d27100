//! The engine's events → words: what a model says at one go.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Event, Events, FinishReason, Logprobs, Request, Timings, Usage};
use nn::Reading;
use text::{Detokenizer, StopMatcher};

use crate::Error;
use crate::agent::Past;
use crate::answer::{Delta, Finish, Summary, Token};
use crate::calls::{Ear, Heard};
use crate::chat::ChatRequest;
use crate::load::Inner;
use crate::media::{Received, Spent};
use crate::prepare::{Prepared, refused};

/// What a model says to one prompt, while it says it. Dropping it ends the generation.
pub(crate) struct Round {
    inner: Arc<Inner>,
    events: Option<Events>,
    prompt_token_ids: Vec<u32>,
    media_tokens: usize,
    cached_tokens: usize,
    detokenizer: Detokenizer,
    stop: StopMatcher,
    ear: Ear,
    tokens_min: usize,
    completion_tokens: usize,
    reasoning_tokens: usize,
    prepared: Duration,
    media: Spent,
    received: Arc<[Received]>,
    submitted: Instant,
    first_token: Option<Instant>,
    last: Option<Summary>,
}

impl Round {
    /// Begins to generate. `past` is what was said before, where this is not the first round.
    pub fn start(inner: Arc<Inner>, prepared: Prepared, request: &ChatRequest, past: &Past) -> Result<Self, Error> {
        if inner.reading != Reading::Whole {
            return Err(Error::Generation("the model's weights were not read".into()));
        }
        let Prepared { prompt, sampling, constraint, spent: media, received, offer, thoughts, began, .. } = prepared;
        let tokens = prompt.tokens.len();
        let room = inner.context_max.saturating_sub(tokens);
        let wanted = match request.tokens_max {
            None => room.max(1),
            // How long a prompt of a later round is, nobody could know who asked.
            Some(most) if past.rounds > 0 => most.saturating_sub(past.tokens).min(room).max(1),
            Some(most) => most,
        };
        if wanted > room {
            return Err(Error::Context { tokens, wanted, allowed: inner.context_max });
        }
        let media_tokens = prompt.media_tokens();
        let prompt_token_ids = prompt.tokens.clone();
        let mut stop_token_ids = if request.ignore_eos { Vec::new() } else { inner.ends.clone() };
        stop_token_ids.extend(&request.stop_token_ids);
        let cache_salt = request.cache_salt.clone();
        let tokens_min = request.tokens_min;
        let engine_request = Request { prompt, sampling, tokens_min, tokens_max: wanted, stop_token_ids, cache_salt, constraint };
        let events = inner.engine.submit(engine_request).map_err(refused)?;
        let detokenizer = Detokenizer::hearing(&inner.tokenizer, offer.marks());
        let ear = offer.ear(thoughts, &inner.tokenizer);
        Ok(Self {
            inner,
            events: Some(events),
            prompt_token_ids,
            media_tokens,
            cached_tokens: 0,
            detokenizer,
            stop: StopMatcher::new(&request.stop),
            ear,
            tokens_min,
            completion_tokens: 0,
            reasoning_tokens: 0,
            prepared: began.elapsed(),
            media,
            received,
            submitted: Instant::now(),
            first_token: None,
            last: None,
        })
    }

    /// Ids of the prompt.
    pub fn prompt_token_ids(&self) -> &[u32] {
        &self.prompt_token_ids
    }

    /// What became of the prompt's media, in their order.
    pub fn received(&self) -> &Arc<[Received]> {
        &self.received
    }

    /// What comes next, or how it ended.
    pub async fn next(&mut self) -> Result<ControlFlow<Summary, Delta>, Error> {
        if let Some(summary) = self.last {
            return Ok(ControlFlow::Break(summary));
        }
        let gone = || Error::Generation("the engine stopped".into());
        loop {
            let event = match &mut self.events {
                Some(events) => events.recv().await.ok_or_else(gone)?,
                None => return Err(gone()),
            };
            match event {
                Event::Started { cached_tokens } => self.cached_tokens = cached_tokens,
                Event::Token { id, logprobs } => return self.token(id, logprobs).map(ControlFlow::Continue),
                Event::Finished { reason, usage } => return self.finish(reason, usage),
                Event::Failed(e) => return Err(Error::Generation(e.to_string())),
            }
        }
    }

    fn token(&mut self, id: u32, logprobs: Option<Logprobs>) -> Result<Delta, Error> {
        self.completion_tokens += 1;
        let tokenizer = &self.inner.tokenizer;
        let alone = |id: u32| tokenizer.decode(&[id], true).unwrap_or_default();
        let logprob = logprobs.as_ref().map(|logprobs| logprobs.chosen);
        let top = logprobs.iter().flat_map(|logprobs| &logprobs.top).map(|&(id, logprob)| (id, alone(id), logprob)).collect();
        let token = Some(Token { id, logprob, text: alone(id), top });
        let words = self.detokenizer.push(tokenizer, id).map_err(text_failed)?;
        let text = if self.completion_tokens > self.tokens_min { self.stop.push(&words) } else { words };
        self.first_token.get_or_insert_with(Instant::now);
        let heard = if self.stop.found().is_some() { self.ear.finish(&text) } else { self.ear.push(&text) };
        self.reasoning_tokens += usize::from(!heard.reasoning.is_empty());
        if let Some(which) = self.stop.found() {
            // Dropping the receiver is how the engine learns that nobody listens any more.
            self.events = None;
            self.last = Some(self.summary(Finish::StopText(which), self.usage_so_far()));
        }
        Ok(Delta::of(heard, token))
    }

    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Result<ControlFlow<Summary, Delta>, Error> {
        self.events = None;
        let words = self.detokenizer.finish(&self.inner.tokenizer).map_err(text_failed)?;
        let text = self.stop.push(&words) + &self.stop.finish();
        let finish = match reason {
            FinishReason::Stop { token } => Finish::EndToken(token),
            FinishReason::Complete => Finish::Complete,
            FinishReason::Length => Finish::Length,
        };
        let delta = Delta::of(self.ear.finish(&text), None);
        let summary = self.summary(finish, usage);
        self.last = Some(summary);
        Ok(if delta == Delta::default() { ControlFlow::Break(summary) } else { ControlFlow::Continue(delta) })
    }

    fn summary(&self, finish: Finish, usage: Usage) -> Summary {
        let (calls, reasoning_tokens) = (self.ear.calls(), self.reasoning_tokens);
        Summary { finish, calls, reasoning_tokens, usage, prepared: self.prepared, media: self.media }
    }

    /// What an answer took that the engine did not see the end of.
    fn usage_so_far(&self) -> Usage {
        let since = |begin: Option<Instant>| begin.map_or(Duration::ZERO, |begin| begin.elapsed());
        let first_token = since(Some(self.submitted)) - since(self.first_token);
        let timings = Timings { first_token, prefill: first_token, decode: since(self.first_token), ..Timings::default() };
        let (prompt_tokens, media_tokens) = (self.prompt_token_ids.len(), self.media_tokens);
        let (cached_tokens, completion_tokens) = (self.cached_tokens, self.completion_tokens);
        Usage { prompt_tokens, media_tokens, cached_tokens, completion_tokens, timings }
    }
}

impl Delta {
    fn of(heard: Heard, token: Option<Token>) -> Self {
        let Heard { text, reasoning, calls } = heard;
        Self { text, reasoning, calls, token, ..Self::default() }
    }
}

fn text_failed(e: text::TextError) -> Error {
    Error::Generation(e.to_string())
}
