//! Answers on their way, for every API: whole, or as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt};
use mistralrs::{Answer, AnswerStream, Delta, Piece, Summary, ToolProgress};
use serde_json::Value;
use wire::chunks::{Chunks, Pieces, merged};

use crate::app::App;
use crate::error::Failure;

/// How an API says answers in events.
pub trait Wire: Send + 'static {
    /// Before anything is said.
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Event>;
    /// More of the choice with this index.
    fn delta(&mut self, choice: usize, delta: &Delta) -> Vec<Event>;
    /// A function that runs here for the choice with this index.
    fn tool(&mut self, choice: usize, progress: &ToolProgress) -> Vec<Event> {
        let _ = (choice, progress);
        Vec::new()
    }
    /// The end of a choice.
    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Event>;
    /// Nothing follows what failed.
    fn failed(&mut self, failure: &Failure) -> Vec<Event>;
}

/// Chunks as events without names, and [DONE] behind them. A stream that failed ends without it: clients raise what its last event
/// says.
pub struct Plain<C>(pub C);

impl<C: Chunks> Wire for Plain<C> {
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Event> {
        self.0.opening(answers).iter().map(event).collect()
    }

    fn delta(&mut self, choice: usize, delta: &Delta) -> Vec<Event> {
        vec![event(&self.0.delta(choice, delta))]
    }

    fn tool(&mut self, choice: usize, progress: &ToolProgress) -> Vec<Event> {
        self.0.tool(choice, progress).iter().map(named).collect()
    }

    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Event> {
        let mut events: Vec<Event> = self.0.done(choice, summary).iter().map(event).collect();
        events.extend(self.0.are_complete().then(|| Event::default().data("[DONE]")));
        events
    }

    fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        vec![event(&failure.body())]
    }
}

/// An event that consists of its data.
pub fn event(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// An event that is named by the `type` of its data.
pub fn named(value: &Value) -> Event {
    event(value).event(value["type"].as_str().unwrap_or("message"))
}

impl App {
    /// The answers when they are complete.
    pub async fn whole(&self, answers: Vec<AnswerStream>) -> Result<Vec<Answer>, Failure> {
        let all = async { Ok(try_join_all(answers.into_iter().map(AnswerStream::whole)).await?) };
        let all = self.unless_ended(all).await?;
        all.iter().for_each(|answer| self.recorder.answered(&answer.summary));
        if let Some(answer) = all.first() {
            self.recorder.received(&answer.received);
        }
        Ok(all)
    }

    /// The answers as they come. Dropping the response (the client went away) ends the generation.
    pub fn streamed(&self, answers: Vec<AnswerStream>, mut wire: impl Wire) -> Response {
        if let Some(answer) = answers.first() {
            self.recorder.received(answer.received());
        }
        let ready = wire.opening(&answers).into();
        let events = Events { pieces: merged(answers), ready, wire, app: self.clone() };
        let events =
            stream::unfold(
                events,
                |mut events| async move { events.next().await.map(|event| (Ok::<_, Infallible>(event), events)) },
            );
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    }
}

struct Events<W> {
    pieces: Pieces,
    /// What has yet to be sent.
    ready: VecDeque<Event>,
    wire: W,
    app: App,
}

impl<W: Wire> Events<W> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let (pieces, app) = (&mut self.pieces, &self.app);
            let next = app.unless_ended(async { pieces.next().await.map(|(i, piece)| Ok((i, piece?))).transpose() }).await;
            match next.transpose()? {
                Ok((choice, Piece::Delta(delta))) => self.ready.extend(self.wire.delta(choice, &delta)),
                Ok((choice, Piece::Tool(progress))) => self.ready.extend(self.wire.tool(choice, &progress)),
                Ok((choice, Piece::Done(summary))) => {
                    self.app.recorder.answered(&summary);
                    self.ready.extend(self.wire.done(choice, &summary));
                }
                Err(failure) => {
                    self.pieces.clear();
                    self.ready.extend(self.wire.failed(&failure));
                }
            }
        }
    }
}
