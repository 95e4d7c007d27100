//! POST /v1/chat/completions.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll, Stream, StreamExt, select_all};
use mistralrs::{AnswerStream, Error, Model, Piece, Summary};
use serde_json::Value;

use crate::error::Failure;
use crate::request::{Shape, parse};
use crate::response::Header;

pub async fn completions(
    State(model): State<Model>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(e.status(), "the body is larger than 64 MiB").code("body_too_large"),
        _ => Failure::new(StatusCode::BAD_REQUEST, "the body could not be read"),
    })?;
    is_json(&headers)?;
    let body = parse(&body)?;
    let name = body.model.clone().unwrap_or_else(|| "default".into());
    if name != "default" && name != model.id() {
        let message = format!("there is no model {name:?}; use \"default\" or {:?}", model.id());
        return Err(Failure::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found"));
    }
    let (shape, request, header) = (body.shape()?, body.request()?, Header::new(model.id()));
    let streams = model.choices(&request, shape.choices).await?;
    if shape.stream {
        Ok(Sse::new(events(streams, header, shape)).keep_alive(KeepAlive::default()).into_response())
    } else {
        let answers = try_join_all(streams.into_iter().map(AnswerStream::whole)).await?;
        Ok(axum::Json(header.completion(&answers, shape)).into_response())
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be JSON: set the header Content-Type: application/json";
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_media_type"))
}

/// Answers on their way, as they become server-sent events.
struct Events {
    /// Pieces of all choices, in the order in which they come.
    pieces: SelectAll<BoxStream<'static, (usize, Result<Piece, Error>)>>,
    /// What has yet to be sent.
    ready: VecDeque<Event>,
    /// Of the choices that are complete.
    summaries: Vec<Summary>,
    header: Header,
    shape: Shape,
}

/// The answers as server-sent events. Dropping the stream (the client went away) ends the generation.
fn events(answers: Vec<AnswerStream>, header: Header, shape: Shape) -> impl Stream<Item = Result<Event, Infallible>> {
    let opening = |(i, answer): (usize, &AnswerStream)| event(&header.opening(i, answer.prompt_token_ids(), shape));
    let ready = answers.iter().enumerate().map(opening).collect();
    let pieces = select_all(answers.into_iter().enumerate().map(|(i, answer)| pieces(i, answer).boxed()));
    let events = Events { pieces, ready, summaries: Vec::new(), header, shape };
    stream::unfold(events, |mut events| async move { events.next().await.map(|event| (Ok(event), events)) })
}

/// One choice's pieces to its end.
fn pieces(index: usize, answer: AnswerStream) -> impl Stream<Item = (usize, Result<Piece, Error>)> {
    stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        let piece = answer.next().await;
        let rest = matches!(piece, Ok(Piece::Delta(_))).then_some(answer);
        Some(((index, piece), rest))
    })
}

impl Events {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        let (index, piece) = self.pieces.next().await?;
        match piece {
            Ok(Piece::Delta(delta)) => Some(event(&self.header.delta(index, &delta, self.shape))),
            Ok(Piece::Done(summary)) => {
                self.summaries.push(summary);
                if self.summaries.len() == self.shape.choices {
                    let usage = self.shape.include_usage.then(|| event(&self.header.usage(&self.summaries)));
                    self.ready.extend(usage.into_iter().chain([Event::default().data("[DONE]")]));
                }
                Some(event(&self.header.closing(index, &summary, self.shape)))
            }
            // A stream that failed ends without [DONE]: clients raise what the event says.
            Err(e) => {
                self.pieces.clear();
                Some(event(&Failure::from(e).body()))
            }
        }
    }
}

fn event(value: &Value) -> Event {
    Event::default().data(value.to_string())
}
