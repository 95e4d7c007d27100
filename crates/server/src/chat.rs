//! POST /v1/chat/completions.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use mistralrs::{AnswerStream, Model, Piece};
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
    let (shape, request, header) = (body.shape(), body.request()?, Header::new(model.id()));
    if shape.stream {
        let stream = model.stream(&request).await?;
        Ok(Sse::new(events(stream, header, shape)).keep_alive(KeepAlive::default()).into_response())
    } else {
        let answer = model.answer(&request).await?;
        Ok(axum::Json(header.completion(&answer, shape)).into_response())
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

/// Where an event stream is.
enum Phase {
    Opening,
    Speaking,
    Usage(mistralrs::Summary),
    Done,
    Ended,
}

/// The answer as server-sent events. Dropping the stream (the client went away) ends the generation.
fn events(answer: AnswerStream, header: Header, shape: Shape) -> impl Stream<Item = Result<Event, Infallible>> {
    let json = |value: Value| Event::default().data(value.to_string());
    stream::unfold((answer, Phase::Opening), move |(mut answer, phase)| {
        let header = header.clone();
        async move {
            let (event, next) = match phase {
                Phase::Opening => (json(header.opening(answer.prompt_token_ids(), shape)), Phase::Speaking),
                Phase::Speaking => match answer.next().await {
                    Ok(Piece::Delta(delta)) => (json(header.delta(&delta.text, delta.token.as_ref(), shape)), Phase::Speaking),
                    Ok(Piece::Done(summary)) => {
                        let next = if shape.include_usage { Phase::Usage(summary) } else { Phase::Done };
                        (json(header.closing(&summary, shape)), next)
                    }
                    // A stream that failed ends without [DONE]: clients raise what the event says.
                    Err(e) => (json(Failure::from(e).body()), Phase::Ended),
                },
                Phase::Usage(summary) => (json(header.usage(&summary)), Phase::Done),
                Phase::Done => (Event::default().data("[DONE]"), Phase::Ended),
                Phase::Ended => return None,
            };
            Some((Ok(event), (answer, next)))
        }
    })
}
