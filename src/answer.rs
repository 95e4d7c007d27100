//! Answers, piece by piece or whole.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use engine::{Timings, Usage};

use crate::Error;
use crate::agent::{Agent, Past};
use crate::calls::{Call, CallDelta, join};
use crate::chat::ChatRequest;
use crate::load::{Inner, Model};
use crate::media::{Received, Spent};
use crate::prepare::{Prepared, pinned, prepare};
use crate::round::Round;
use crate::tools::{Citation, ToolProgress, ToolRun};

/// A piece of an answer on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// A token was generated, or held-back text is released.
    Delta(Delta),
    /// A function that runs here was called, or has returned.
    Tool(ToolProgress),
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
    /// Where the whole text refers to what was found on the web; at its end.
    pub citations: Vec<Citation>,
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

/// How an answer ended, and what it took. Where functions ran here, what all its rounds took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended.
    pub finish: Finish,
    /// Functions of the client that were called.
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
    /// The model called functions that run here more often than was allowed.
    ToolRounds,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What was said.
    pub text: String,
    /// What was thought first, where the model keeps that apart.
    pub reasoning: String,
    /// Functions that it wants to have called by who asked.
    pub calls: Vec<Call>,
    /// Functions that ran here on the way, as they ended.
    pub tool_runs: Vec<Arc<ToolRun>>,
    /// Where the text refers to what was found on the web.
    pub citations: Vec<Citation>,
    /// The tokens, without an end token.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub summary: Summary,
    /// Ids of the prompt, that of the first round.
    pub prompt_token_ids: Vec<u32>,
    /// What became of the prompt's media, in their order.
    pub received: Arc<[Received]>,
}

/// An answer that is being generated. Dropping it ends the generation, and the functions that run for it.
pub struct AnswerStream {
    speaker: Speaker,
    prompt_token_ids: Vec<u32>,
    received: Arc<[Received]>,
}

/// Who answers.
enum Speaker {
    /// The model, at one go.
    Model(Box<Round>),
    /// The model, with functions that run here between its rounds.
    Agent(Box<Agent>),
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
        let inner = &self.inner;
        // Further rounds outlive the caller's request.
        let kept = if request.calls_tools_here() { Some(Arc::new(pinned(inner, request).await?)) } else { None };
        let request = kept.as_deref().unwrap_or(request);
        let prepared = Prepared { views: Vec::new(), ..prepare(inner, request, &Past::default()).await? };
        let start = |(i, mut prepared): (usize, Prepared)| {
            prepared.sampling.seed = prepared.sampling.seed.map(|seed| seed.wrapping_add(i as u64));
            let seed = prepared.sampling.seed;
            let round = Round::start(inner.clone(), prepared, request, &Past::default())?;
            Ok(AnswerStream::new(inner, round, kept.clone().map(|request| (request, seed))))
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
    /// With the request and the seed of further rounds, if there can be any.
    fn new(inner: &Arc<Inner>, round: Round, further: Option<(Arc<ChatRequest>, Option<u64>)>) -> Self {
        let (prompt_token_ids, received) = (round.prompt_token_ids().to_vec(), round.received().clone());
        let speaker = match further {
            None => Speaker::Model(Box::new(round)),
            Some((request, seed)) => Speaker::Agent(Box::new(Agent::new(inner.clone(), request, seed, round))),
        };
        Self { speaker, prompt_token_ids, received }
    }

    /// Reads it to its end.
    ///
    /// # Errors
    /// The generation failed.
    pub async fn whole(mut self) -> Result<Answer, Error> {
        let (mut text, mut reasoning, mut calls, mut tokens) = (String::new(), String::new(), Vec::new(), Vec::new());
        let (mut tool_runs, mut citations) = (Vec::new(), Vec::new());
        let summary = loop {
            match self.next().await? {
                Piece::Delta(delta) => {
                    text.push_str(&delta.text);
                    reasoning.push_str(&delta.reasoning);
                    join(&mut calls, delta.calls);
                    tokens.extend(delta.token);
                    citations.extend(delta.citations);
                }
                Piece::Tool(ToolProgress::Begun { .. }) => {}
                Piece::Tool(ToolProgress::Ended(run)) => tool_runs.push(run),
                Piece::Done(summary) => break summary,
            }
        };
        let (prompt_token_ids, received) = (self.prompt_token_ids, self.received);
        Ok(Answer { text, reasoning, calls, tool_runs, citations, tokens, summary, prompt_token_ids, received })
    }

    /// Ids of the prompt, that of the first round.
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
        match &mut self.speaker {
            Speaker::Agent(agent) => agent.next().await,
            Speaker::Model(round) => Ok(match round.next().await? {
                ControlFlow::Continue(delta) => Piece::Delta(delta),
                ControlFlow::Break(summary) => Piece::Done(summary),
            }),
        }
    }
}

impl Summary {
    /// Of two rounds of an answer.
    pub(crate) fn and(self, later: Self) -> Self {
        let mut media = self.media;
        media += later.media;
        Self {
            reasoning_tokens: self.reasoning_tokens + later.reasoning_tokens,
            usage: sum(self.usage, later.usage),
            prepared: self.prepared + later.prepared,
            media,
            ..later
        }
    }
}

fn sum(one: Usage, other: Usage) -> Usage {
    let (first, then) = (one.timings, other.timings);
    Usage {
        prompt_tokens: one.prompt_tokens + other.prompt_tokens,
        media_tokens: one.media_tokens + other.media_tokens,
        cached_tokens: one.cached_tokens + other.cached_tokens,
        completion_tokens: one.completion_tokens + other.completion_tokens,
        timings: Timings {
            queue: first.queue + then.queue,
            encode: first.encode + then.encode,
            prefill: first.prefill + then.prefill,
            first_token: first.first_token,
            decode: first.decode + then.decode,
        },
    }
}
