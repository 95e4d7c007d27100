//! POST /v1/completions.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use wire::completions::read;

use crate::answers::Plain;
use crate::app::App;
use crate::error::Failure;
use crate::payload::Json;

pub async fn completions(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    let asked = read(&json)?;
    app.check_model(asked.model.as_deref())?;
    let stream = asked.stream;
    let (answers, chunks) = asked.start(&app.model).await?;
    if stream {
        return Ok(app.streamed(answers, Plain(chunks)));
    }
    let answers = app.whole(answers).await?;
    Ok(axum::Json(chunks.whole(&answers)).into_response())
}
