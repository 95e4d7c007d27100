//! What a request would take: /tokenize, /detokenize and the routes that count tokens. Media are read as for an answer.

use axum::extract::State;
use mistralrs::{ChatRequest, ControlTokens, Preview};
use serde::Deserialize;
use serde_json::{Value, json};
use wire::read::read_as;
use wire::response::counted;

use crate::app::App;
use crate::chat;
use crate::error::Failure;
use crate::payload::Json;

/// What is tokenized, if not `messages`.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct TokenizeBody {
    model: Option<String>,
    #[serde(alias = "content")]
    prompt: Option<String>,
    #[serde(default, alias = "with_pieces")]
    return_token_strs: bool,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct DetokenizeBody {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// POST /tokenize: a text, or a conversation as the chat template writes it.
pub async fn tokenize(State(app): State<App>, Json(json): Json) -> Result<axum::Json<Value>, Failure> {
    let body: TokenizeBody = read_as(&json)?;
    app.check_model(body.model.as_deref())?;
    let ids = match body.prompt {
        Some(text) => app.model.tokenize(text, ControlTokens::Included).await?,
        None if json.get("messages").is_some() => app.preview(&chat::read(&app, &json)?.1).await?.token_ids,
        None => return Err(Failure::invalid("prompt", "prompt is missing; there is a prompt, or messages")),
    };
    let mut answer = json!({"count": ids.len(), "max_model_len": app.model.context_max(), "tokens": ids});
    if body.return_token_strs {
        let texts: Result<Vec<String>, _> = ids.iter().map(|id| app.model.detokenize(&[*id], ControlTokens::Included)).collect();
        answer["token_strs"] = json!(texts?);
    }
    Ok(axum::Json(answer))
}

/// POST /detokenize.
pub async fn detokenize(State(app): State<App>, Json(json): Json) -> Result<axum::Json<Value>, Failure> {
    let body: DetokenizeBody = read_as(&json)?;
    app.check_model(body.model.as_deref())?;
    let text = app.model.detokenize(&body.tokens, ControlTokens::Included)?;
    Ok(axum::Json(json!({"prompt": text, "content": text})))
}

/// POST /v1/chat/completions/input_tokens.
pub async fn of_chat(State(app): State<App>, Json(json): Json) -> Result<axum::Json<Value>, Failure> {
    let (_, request) = chat::read(&app, &json)?;
    Ok(axum::Json(app.counted(&app.preview(&request).await?)))
}

impl App {
    /// The prompt of a request, without an answer.
    pub async fn preview(&self, request: &ChatRequest) -> Result<Preview, Failure> {
        let request = self.with_uploads(request)?;
        Ok(self.model.preview(request.as_ref()).await?)
    }

    /// How many tokens a prompt has, and whether they fit.
    pub fn counted(&self, preview: &Preview) -> Value {
        counted(preview, self.model.context_max())
    }
}
