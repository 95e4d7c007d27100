//! POST /v1/embeddings: no family that is served here makes any, and what is asked is refused in so many words.

use axum::extract::State;

use crate::app::App;
use crate::error::Failure;
use crate::payload::Json;

pub async fn create(State(app): State<App>, Json(json): Json) -> Result<axum::Json<()>, Failure> {
    app.check_model(json["model"].as_str())?;
    let title = app.model.family().title;
    let message = format!("{title} writes answers and was not trained for embeddings; serve an embedding model elsewhere");
    Err(Failure::invalid("model", message).code("unsupported_endpoint"))
}
