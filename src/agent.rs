//! Rounds: a model calls functions that run here, reads what they return, and goes on.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use ::media::ImageOptions;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use serde_json::{Map, Value, json};

use crate::Error;
use crate::answer::{Delta, Finish, Piece, Summary};
use crate::calls::{Call, CallDelta, join};
use crate::chat::{ChatRequest, Content, MediaSource, Message, Part, ROUNDS_USUAL};
use crate::load::Inner;
use crate::prepare::prepare;
use crate::round::Round;
use crate::tools::{Ran, Source, ToolKind, ToolProgress, ToolRun, citations, run, shorten};

/// Calls of one round that run at the same time; the others of it wait.
const CALLS_AT_ONCE: usize = 32;

/// Of the context, one part is for the results of a round.
const CONTEXT_SHARE: usize = 4;

/// What an answer has come to before a round.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// What was said and called, and what came of it: messages behind the request's.
    pub messages: Vec<Message>,
    /// Tokens that were generated.
    pub tokens: usize,
    /// Rounds in which functions ran here.
    pub rounds: usize,
}

/// Answers a request in rounds. Whatever runs is owned by it, and ends with it.
pub(crate) struct Agent {
    inner: Arc<Inner>,
    request: Arc<ChatRequest>,
    seed: Option<u64>,
    stage: Stage,
    /// Pieces that are due before anything else happens.
    ready: VecDeque<Piece>,
    past: Past,
    said: Said,
    /// What this round's functions have returned, in the order of their calls.
    runs: Vec<Option<Arc<ToolRun>>>,
    /// What was found on the web so far; citations count from 1.
    sources: Vec<Source>,
    /// The whole answer's words.
    text: String,
    /// Of the rounds so far.
    total: Option<Summary>,
}

enum Stage {
    Speaking(Box<Round>),
    /// Which call, and what it came to.
    Running(BoxStream<'static, (usize, Ran)>),
    Beginning(BoxFuture<'static, Result<(Round, Past), Error>>),
    Over(Box<Summary>),
    Failed,
}

/// What a round says.
#[derive(Default)]
struct Said {
    text: String,
    reasoning: String,
    calls: Vec<Call>,
    /// Of each call: which of the client's it is, if it is one of those.
    theirs: Vec<Option<usize>>,
}

impl Said {
    fn client_calls(&self) -> usize {
        self.theirs.iter().flatten().count()
    }

    /// The calls that run here.
    fn calls_here(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().zip(&self.theirs).filter(|(_, theirs)| theirs.is_none()).map(|(call, _)| call)
    }
}

impl Agent {
    pub fn new(inner: Arc<Inner>, request: Arc<ChatRequest>, seed: Option<u64>, round: Round) -> Self {
        Self {
            inner,
            request,
            seed,
            stage: Stage::Speaking(Box::new(round)),
            ready: VecDeque::new(),
            past: Past::default(),
            said: Said::default(),
            runs: Vec::new(),
            sources: Vec::new(),
            text: String::new(),
            total: None,
        }
    }

    /// The next piece. A future of it may be dropped at any time; nothing is lost then.
    pub async fn next(&mut self) -> Result<Piece, Error> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(piece);
            }
            let step = match &mut self.stage {
                Stage::Over(summary) => return Ok(Piece::Done(**summary)),
                Stage::Failed => return Err(Error::Generation("it has failed already".into())),
                Stage::Speaking(round) => round.next().await.map(|said| match said {
                    ControlFlow::Continue(delta) => {
                        let delta = self.heard(delta);
                        self.ready.push_back(Piece::Delta(delta));
                    }
                    ControlFlow::Break(summary) => self.round_ended(summary),
                }),
                Stage::Running(runs) => {
                    match runs.next().await {
                        Some((call, ran)) => self.ran(call, ran),
                        None => self.begin_round(),
                    }
                    Ok(())
                }
                Stage::Beginning(round) => match round.await {
                    Ok((round, past)) => {
                        self.past = past;
                        self.stage = Stage::Speaking(Box::new(round));
                        Ok(())
                    }
                    // What came back is more than there is room for: the answer is as long as it can be.
                    Err(Error::Context { .. }) => {
                        self.end(Finish::Length);
                        Ok(())
                    }
                    Err(e) => Err(e),
                },
            };
            if step.is_err() {
                self.stage = Stage::Failed;
            }
            step?;
        }
    }

    /// Takes out what is not for the client.
    fn heard(&mut self, mut delta: Delta) -> Delta {
        for call in delta.calls.iter().filter_map(|call| call.begins.as_ref()) {
            let here = self.request.tool_here(&call.name).is_some();
            let theirs = if here { None } else { Some(self.said.client_calls()) };
            self.said.theirs.push(theirs);
        }
        join(&mut self.said.calls, delta.calls.clone());
        let theirs = |mut call: CallDelta| {
            call.index = self.said.theirs.get(call.index).copied().flatten()?;
            Some(call)
        };
        delta.calls = std::mem::take(&mut delta.calls).into_iter().filter_map(theirs).collect();
        self.said.reasoning += &delta.reasoning;
        let first = self.said.text.is_empty() && !delta.text.is_empty();
        self.said.text += &delta.text;
        if first && !self.text.is_empty() {
            // Words of several rounds are paragraphs of one answer.
            delta.text.insert_str(0, "\n\n");
        }
        self.text += &delta.text;
        delta
    }

    fn round_ended(&mut self, summary: Summary) {
        let total = self.total.map_or(summary, |total| total.and(summary));
        self.total = Some(total);
        let rounds_max = self.request.tool_rounds_max.unwrap_or(ROUNDS_USUAL);
        let tokens_max = self.request.tokens_max.unwrap_or(usize::MAX);
        let (finish, why) = match summary.finish {
            finish if self.said.calls_here().next().is_none() => (finish, ""),
            Finish::Length => (Finish::Length, "the answer ended with this call"),
            finish if self.said.client_calls() > 0 => (finish, "the answer ended with calls of other functions"),
            _ if self.past.rounds >= rounds_max => (Finish::ToolRounds, "no more rounds of functions are allowed"),
            _ if total.usage.completion_tokens >= tokens_max => (Finish::Length, "the answer ended with this call"),
            _ => return self.run_calls(),
        };
        let skipped: Vec<Call> = self.said.calls_here().cloned().collect();
        for call in skipped {
            let run = self.recorded(call, Ran::skipped(why));
            self.ready.push_back(Piece::Tool(ToolProgress::Ended(run)));
        }
        self.end(finish);
    }

    fn end(&mut self, finish: Finish) {
        let Some(total) = self.total else { return };
        let citations = citations(&self.text, &self.sources);
        if !citations.is_empty() {
            self.ready.push_back(Piece::Delta(Delta { citations, ..Delta::default() }));
        }
        self.stage = Stage::Over(Box::new(Summary { finish, calls: self.said.client_calls(), ..total }));
    }

    /// All calls of the round run together.
    fn run_calls(&mut self) {
        let calls = self.said.calls.clone();
        self.runs = vec![None; calls.len()];
        let round = self.past.rounds;
        let begun: Vec<Piece> = calls.iter().map(|call| self.begun(round, call)).collect();
        self.ready.extend(begun);
        let (inner, request) = (self.inner.clone(), self.request.clone());
        let runs = calls.into_iter().enumerate().map(move |(i, call)| {
            let (inner, tool) = (inner.clone(), request.tool_here(&call.name).cloned());
            let salt = request.cache_salt.clone();
            async move { (i, run(&inner, tool, &call, salt).await) }
        });
        self.stage = Stage::Running(stream::iter(runs).buffer_unordered(CALLS_AT_ONCE).boxed());
    }

    fn begun(&self, round: usize, call: &Call) -> Piece {
        Piece::Tool(ToolProgress::Begun { round, call: call.clone(), kind: self.kind_of(call) })
    }

    fn kind_of(&self, call: &Call) -> ToolKind {
        self.request.tool_here(&call.name).map(|tool| tool.kind().clone()).unwrap_or_default()
    }

    fn ran(&mut self, which: usize, ran: Ran) {
        let Some(call) = self.said.calls.get(which).cloned() else { return };
        let run = self.recorded(call, ran);
        if let Some(slot) = self.runs.get_mut(which) {
            *slot = Some(run.clone());
        }
        self.ready.push_back(Piece::Tool(ToolProgress::Ended(run)));
    }

    /// Cuts off a result that would leave no room for what follows: all of a round have a share of the context.
    fn fit(&self, text: &mut String) {
        let tokens_max = self.inner.context_max / CONTEXT_SHARE / self.said.calls.len().max(1);
        let encoded = self.inner.tokenizer.encode(&[text::Piece::Text(text.clone())]);
        let tokens = encoded.map_or(0, |encoded| encoded.ids.len());
        if tokens > tokens_max {
            let bytes_max = text.len() * tokens_max / tokens;
            shorten(text, bytes_max);
        }
    }

    /// What a call has come to, with numbers for what it found.
    fn recorded(&mut self, call: Call, ran: Ran) -> Arc<ToolRun> {
        let Ran { outcome, mut text, pictures, sources, took } = ran;
        for source in &sources {
            let known = self.sources.iter().position(|known| known.url == source.url);
            let number = known.unwrap_or(self.sources.len());
            if known.is_none() {
                self.sources.push(source.clone());
            }
            text += &format!("\n\n[{}] {}\n{}\n{}", number + 1, source.title, source.url, source.text);
        }
        let kind = self.kind_of(&call);
        let mut text = text.trim().to_string();
        self.fit(&mut text);
        Arc::new(ToolRun { round: self.past.rounds, call, kind, outcome, text, pictures, sources, took })
    }

    /// The next round reads what this one has said and what came of it.
    fn begin_round(&mut self) {
        let said = std::mem::take(&mut self.said);
        let runs: Vec<Arc<ToolRun>> = std::mem::take(&mut self.runs).into_iter().flatten().collect();
        let mut past = std::mem::take(&mut self.past);
        past.messages.push(said.message());
        past.messages.extend(results(&runs, self.inner.pictures_in_results));
        past.rounds += 1;
        past.tokens = self.total.map_or(0, |total| total.usage.completion_tokens);
        let (inner, request, seed) = (self.inner.clone(), self.request.clone(), self.seed);
        self.stage = Stage::Beginning(Box::pin(async move {
            let mut prepared = prepare(&inner, &request, &past).await?;
            prepared.sampling.seed = seed;
            Ok((Round::start(inner, prepared, &request, &past)?, past))
        }));
    }
}

impl Said {
    /// As a turn of the assistant.
    fn message(self) -> Message {
        let call = |call: &Call| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}});
        let mut extra = Map::new();
        extra.insert("tool_calls".into(), self.calls.iter().map(call).collect());
        if !self.reasoning.is_empty() {
            extra.insert("reasoning_content".into(), self.reasoning.into());
        }
        Message { role: "assistant".into(), content: Content::Text(self.text), extra }
    }
}

/// A turn for each result. Pictures are shown in it, or, where a template does not show any there, by the user behind all of them.
fn results(runs: &[Arc<ToolRun>], pictures_within: bool) -> Vec<Message> {
    let pictures = |run: &ToolRun| -> Vec<Part> {
        run.pictures.iter().map(|picture| Part::Image(MediaSource::Bytes(picture.clone()), ImageOptions::default())).collect()
    };
    let mut messages = Vec::new();
    let mut shown = Vec::new();
    for run in runs {
        let extra = [("tool_call_id", &run.call.id), ("name", &run.call.name)];
        let extra: Map<String, Value> = extra.into_iter().map(|(key, text)| (key.into(), text.clone().into())).collect();
        let pictures = pictures(run);
        let content = if pictures_within && !pictures.is_empty() {
            Content::Parts([Part::Text(run.text.clone())].into_iter().chain(pictures).collect())
        } else {
            if !pictures.is_empty() {
                shown.push(Part::Text(format!("What {} returned:", run.call.name)));
                shown.extend(pictures);
            }
            Content::Text(run.text.clone())
        };
        messages.push(Message { role: "tool".into(), content, extra });
    }
    if !shown.is_empty() {
        messages.push(Message { role: "user".into(), content: Content::Parts(shown), ..Message::default() });
    }
    messages
}
