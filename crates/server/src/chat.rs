//! POST /v1/chat/completions.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use mistralrs::ChatRequest;
use serde_json::Value;
use wire::chat::{self, Asked, ChatChunks, Shape};

use crate::answers::Plain;
use crate::app::App;
use crate::error::Failure;
use crate::payload::Json;

pub async fn completions(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    let (shape, request) = read(&app, &json)?;
    let answers = app.start(&request, shape.choices).await?;
    let chunks = ChatChunks::new(app.model.id(), shape);
    if shape.stream {
        return Ok(app.streamed(answers, Plain(chunks)));
    }
    let answers = app.whole(answers).await?;
    Ok(axum::Json(chunks.whole(&answers)).into_response())
}

/// A body as the facade takes it.
pub fn read(app: &App, json: &Value) -> Result<(Shape, ChatRequest), Failure> {
    let Asked { model, shape, mut request, rounds, web } = chat::read(json)?;
    app.check_model(model.as_deref())?;
    app.equip(&mut request, rounds, web.map(|web| (web, chat::WEB.into())))?;
    Ok((shape, request))
}
