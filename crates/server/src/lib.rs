//! The OpenAI-compatible HTTP server: [`router`] over a loaded model.
//!
//! Knows: HTTP, the JSON of requests and answers, server-sent events, status codes. Every answer of it is JSON (or an event
//! stream), every error `{"error": {"message", "type", "param", "code"}}`.
//!
//! Must never know: tensors, tokens beyond their ids, how a model is loaded. It reads no files and opens no connections of its
//! own; what requests point at is fetched by the facade, within what the operator allows.

mod audio;
mod chat;
mod error;
mod metrics;
mod request;
mod response;
mod video;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use mistralrs::Model;
use serde_json::{Value, json};

use crate::error::Failure;

/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 64 << 20;

/// All routes, answering for one model.
pub fn router(model: Model) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(model)
}

async fn models(State(model): State<Model>) -> axum::Json<Value> {
    let modalities: Vec<&str> = std::iter::once("text").chain(model.family().modalities.iter().map(|m| m.name())).collect();
    let card = |id: &str| {
        json!({
            "id": id, "object": "model", "created": 0, "owned_by": "local",
            "modalities": modalities, "max_model_len": model.context_max(),
        })
    };
    axum::Json(json!({"object": "list", "data": [card("default"), card(model.id())]}))
}

async fn health(State(model): State<Model>) -> Response {
    match model.is_running() {
        true => "OK".into_response(),
        false => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped").code("unavailable").into_response(),
    }
}

async fn metrics(State(model): State<Model>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::exposition(&model.stats())).into_response()
}

async fn not_found(uri: Uri) -> Response {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path())).code("not_found").into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed").into_response()
}
