//! The engine's events → words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Event, Events, FinishReason, Logprobs, Request, Timings, Usage};
use nn::Reading;
use text::{Detokenizer, StopMatcher};

use crate::Error;
use crate::calls::{Call, CallDelta, Ear, Heard, join};
use crate::chat::ChatRequest;
use crate::load::{Inner, Model};
use crate::media::{Received, Spent};
use crate::prepare::{Prepared, prepare, refused};

/// A piece of an answer on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// A token was generated, or held-back text is released.
    Delta(Delta),
    /// The answer is complete. Nothing follows.
    Done(Summary),
}

/// What one token adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// Text that is certain now; empty while it could still be the beginning of a stop text or of a longer character.
    pub text: String,
    /// Thoughts on the way to the text, where the model keeps them apart.
    pub reasoning: String,
    /// Calls of functions, as far as they have come.
    pub calls: Vec<CallDelta>,
    /// The token, with its alternatives when they were asked for.
    pub token: Option<Token>,
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Natural logarithm of its probability, before temperature and truncation, when it was asked for.
    pub logprob: Option<f32>,
    /// Its text, by itself.
    pub text: String,
    /// The most probable tokens here: id, text, logprob. As many as were asked for.
    pub top: Vec<(u32, String, f32)>,
}

/// How an answer ended, and what it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended.
    pub finish: Finish,
    /// Functions that were called.
    pub calls: usize,
    /// Tokens that were thoughts.
    pub reasoning_tokens: usize,
    /// Tokens and times.
    pub usage: Usage,
    /// Time from the request to the finished prompt: fetching, decoding and processing media, tokenizing.
    pub prepared: Duration,
    /// What of that its media took.
    pub media: Spent,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it is complete, by this token, which is not part of the text.
    EndToken(u32),
    /// The stop text with this index came.
    StopText(usize),
    /// Nothing can follow in the form that was asked for.
    Complete,
    /// It has as many tokens as were asked for.
    Length,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was said.
    pub text: String,
    /// What was thought first, where the model keeps that apart.
    pub reasoning: String,
    /// Functions that it wants to have called.
    pub calls: Vec<Call>,
    /// The tokens, without an end token.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub summary: Summary,
    /// Ids of the prompt.
    pub prompt_token_ids: Vec<u32>,
    /// What became of the prompt's media, in their order.
    pub received: Arc<[Received]>,
}

/// An answer that is being generated. Dropping it ends the generation.
pub struct AnswerStream {
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

impl Model {
    /// Prepares the request and starts generating.
    ///
    /// # Errors
    /// Whatever is wrong with the request, before anything is generated.
    pub async fn stream(&self, request: &ChatRequest) -> Result<AnswerStream, Error> {
        let mut streams = self.choices(request, 1).await?;
        streams.pop().ok_or_else(|| Error::Generation("nothing was started".into()))
    }

    /// Prepares the request once and starts generating `n` answers, which share what the prompt's computation takes. Their seeds
    /// count up from the request's.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn choices(&self, request: &ChatRequest, n: usize) -> Result<Vec<AnswerStream>, Error> {
        let began = Instant::now();
        let prepared = Prepared { views: Vec::new(), ..prepare(&self.inner, request).await? };
        let start = |(i, mut prepared): (usize, Prepared)| {
            prepared.sampling.seed = prepared.sampling.seed.map(|seed| seed.wrapping_add(i as u64));
            let stream = AnswerStream::start(self.inner.clone(), prepared, request)?;
            Ok(AnswerStream { prepared: began.elapsed(), ..stream })
        };
        std::iter::repeat_n(prepared, n).enumerate().map(start).collect()
    }

    /// Generates a whole answer.
    ///
    /// # Errors
    /// Whatever is wrong with the request, or went wrong while generating.
    pub async fn answer(&self, request: &ChatRequest) -> Result<Answer, Error> {
        self.stream(request).await?.whole().await
    }
}

impl AnswerStream {
    fn start(inner: Arc<Inner>, prepared: Prepared, request: &ChatRequest) -> Result<Self, Error> {
        if inner.reading != Reading::Whole {
            return Err(Error::Generation("the model's weights were not read".into()));
        }
        let Prepared { prompt, sampling, constraint, spent: media, received, offer, thoughts, .. } = prepared;
        let tokens = prompt.tokens.len();
        let room = inner.context_max.saturating_sub(tokens);
        let wanted = request.tokens_max.unwrap_or(room.max(1));
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
        Ok(Self {
            inner,
            events: Some(events),
            prompt_token_ids,
            media_tokens,
            cached_tokens: 0,
            detokenizer,
            stop: StopMatcher::new(&request.stop),
            ear: offer.ear(thoughts),
            tokens_min,
            completion_tokens: 0,
            reasoning_tokens: 0,
            prepared: Duration::ZERO,
            media,
            received,
            submitted: Instant::now(),
            first_token: None,
            last: None,
        })
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// The generation failed.
    pub async fn whole(mut self) -> Result<Answer, Error> {
        let (mut text, mut reasoning, mut calls, mut tokens) = (String::new(), String::new(), Vec::new(), Vec::new());
        let summary = loop {
            match self.next().await? {
                Piece::Delta(delta) => {
                    text.push_str(&delta.text);
                    reasoning.push_str(&delta.reasoning);
                    join(&mut calls, delta.calls);
                    tokens.extend(delta.token);
                }
                Piece::Done(summary) => break summary,
            }
        };
        let (prompt_token_ids, received) = (self.prompt_token_ids, self.received);
        Ok(Answer { text, reasoning, calls, tokens, summary, prompt_token_ids, received })
    }

    /// Ids of the prompt.
    pub fn prompt_token_ids(&self) -> &[u32] {
        &self.prompt_token_ids
    }

    /// What became of the prompt's media, in their order.
    pub fn received(&self) -> &Arc<[Received]> {
        &self.received
    }

    /// The next piece. After [`Piece::Done`] the same piece again.
    ///
    /// # Errors
    /// The generation failed.
    pub async fn next(&mut self) -> Result<Piece, Error> {
        if let Some(summary) = self.last {
            return Ok(Piece::Done(summary));
        }
        let gone = || Error::Generation("the engine stopped".into());
        loop {
            let event = match &mut self.events {
                Some(events) => events.recv().await.ok_or_else(gone)?,
                None => return Err(gone()),
            };
            match event {
                Event::Started { cached_tokens } => self.cached_tokens = cached_tokens,
                Event::Token { id, logprobs } => return self.token(id, logprobs).map(Piece::Delta),
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

    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Result<Piece, Error> {
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
        if delta == Delta::default() { Ok(Piece::Done(summary)) } else { Ok(Piece::Delta(delta)) }
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
        Self { text, reasoning, calls, token }
    }
}

fn text_failed(e: text::TextError) -> Error {
    Error::Generation(e.to_string())
}
