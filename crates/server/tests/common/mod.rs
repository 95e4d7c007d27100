//! What the tests of the server share: the built-in demo model, requests, and what comes back.

#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mistralrs::{Hub, LoadOptions, Model, ModelSource};
use serde_json::Value;
use tower::ServiceExt;

pub const CHAT: &str = "/v1/chat/completions";

pub fn options(model: ModelSource) -> LoadOptions {
    let hub = Hub { cache: "/nonexistent".into(), endpoint: None, token: None, offline: true };
    LoadOptions::new(model, hub)
}

pub async fn load(options: LoadOptions) -> Model {
    Model::load(options, Arc::new(|_| ())).await.unwrap()
}

pub fn picture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/demo").join(name).canonicalize().unwrap().display().to_string()
}

pub fn base64(name: &str) -> String {
    STANDARD.encode(std::fs::read(picture(name)).unwrap())
}

pub fn data_url(name: &str) -> String {
    format!("data:image/png;base64,{}", base64(name))
}

/// JSON that is posted.
pub fn request(path: &str, body: String) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(Body::from(body)).unwrap()
}

pub async fn send(server: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = server.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap())
}

/// The JSON that answers JSON.
pub async fn ask(server: &Router, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = send(server, request(path, body.to_string())).await;
    (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {text}: {e}")))
}

/// The same of a request that is in order.
pub async fn answer(server: &Router, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, path, body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// The data of a stream's events.
pub async fn events(server: &Router, path: &str, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = true.into();
    let (status, text) = send(server, request(path, body.to_string())).await;
    assert_eq!(status, 200, "{path}: {text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}
