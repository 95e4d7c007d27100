//! A request's body: how large, how slow, and whether it is JSON.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::app::App;
use crate::error::Failure;

/// A body that comes slower than this is not waited for to its end.
const BYTES_PER_SECOND_MIN: u64 = 1024;
/// For which the rest of a body that is too large is read, so that its sender comes to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// A body of JSON.
pub struct Json(pub Value);

/// A body of any kind.
pub struct Raw(pub Vec<u8>);

/// What a path names.
pub struct Id(pub String);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let unreadable = |_| Failure::new(StatusCode::NOT_FOUND, "there is nothing with this name").code("not_found");
        Path::from_request_parts(parts, app).await.map(|Path(id)| Self(id)).map_err(unreadable)
    }
}

impl FromRequest<App> for Json {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let is_json = essence(request.headers()).is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
        if !is_json {
            let message = "the body must be JSON: set the header Content-Type: application/json";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_media_type"));
        }
        let Raw(body) = Raw::from_request(request, app).await?;
        // A large body is a while's work, for which others do not wait.
        let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
        parsed.unwrap_or_else(|_| Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "reading the body failed"))).map(Self)
    }
}

impl FromRequest<App> for Raw {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        if parts.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            let message = "compressed bodies are not read: leave the header Content-Encoding out";
            return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).code("unsupported_encoding"));
        }
        let said = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes_max = app.settings.body_bytes_max;
        read(body, said.unwrap_or(0), (bytes_max, app.settings.limits.body_idle)).await.map(Self)
    }
}

/// The type and subtype of a body.
pub fn essence(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

async fn read(mut body: Body, said: u64, (bytes_max, idle): (usize, Duration)) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let began = Instant::now();
    let slow = || Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time").code("body_timeout");
    if said > bytes_max as u64 {
        return Err(too_large(body, bytes_max).await);
    }
    while let Some(frame) = timeout(idle, body.frame()).await.map_err(|_| slow())? {
        let frame = frame.map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "the body could not be read").code("body_broken"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(too_large(body, bytes_max).await);
        }
        bytes.extend_from_slice(&data);
        let expected = began.elapsed().saturating_sub(idle).as_secs() * BYTES_PER_SECOND_MIN;
        if (bytes.len() as u64) < expected {
            return Err(slow());
        }
    }
    Ok(bytes)
}

async fn too_large(mut body: Body, bytes_max: usize) -> Failure {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(LINGER, rest).await;
    let message = format!("the body is larger than {} MiB", bytes_max >> 20);
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    let refused =
        |e: serde_json::Error| Failure::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")).code("invalid_json");
    let json: Value = serde_json::from_slice(body).map_err(refused)?;
    match json {
        Value::Object(_) => Ok(json),
        _ => Err(Failure::new(StatusCode::BAD_REQUEST, "the body must be a JSON object").code("invalid_json")),
    }
}
