//! /v1/media: a file is uploaded once and named `media:ID` where a URL stands.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use wire::response::now;

use crate::app::App;
use crate::error::Failure;
use crate::payload::{Id, Raw};

/// POST: the body is the file. Its name and type are not looked at: the bytes tell what it is, when it is used.
pub async fn create(State(app): State<App>, Raw(file): Raw) -> Result<axum::Json<Value>, Failure> {
    if file.is_empty() {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the body is empty; it has to be the file").code("invalid_value"));
    }
    let (id, bytes) = (format!("{:032x}", fastrand::u128(..)), file.len());
    if !app.uploads.put(id.clone(), Arc::from(file), bytes) {
        let message = format!("the file is larger than the {} MiB that are kept", app.settings.uploads_bytes_max >> 20);
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("media_too_large"));
    }
    let expires_at = now() + app.settings.kept_for.as_secs();
    let url = format!("media:{id}");
    Ok(axum::Json(json!({"id": id, "object": "media", "url": url, "bytes": bytes, "expires_at": expires_at})))
}

/// GET: whether it is still there.
pub async fn show(State(app): State<App>, Id(id): Id) -> Result<axum::Json<Value>, Failure> {
    let file = app.uploads.get(&id).ok_or_else(unknown)?;
    Ok(axum::Json(json!({"id": id, "object": "media", "url": format!("media:{id}"), "bytes": file.len()})))
}

/// DELETE.
pub async fn delete(State(app): State<App>, Id(id): Id) -> Result<axum::Json<Value>, Failure> {
    match app.uploads.remove(&id) {
        true => Ok(axum::Json(json!({"id": id, "object": "media", "deleted": true}))),
        false => Err(unknown()),
    }
}

fn unknown() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "there is no upload with this id, or no longer").code("not_found")
}
