//! The routes, each with what is said of it in the document that describes them all.

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{Schema, SchemaGenerator};
use wire::chat::ChatBody;
use wire::completions::CompletionBody;
use wire::options::Options;

use crate::app::App;
use crate::messages::MessagesBody;
use crate::responses::ResponseBody;
use crate::tokens::{DetokenizeBody, TokenizeBody};
use crate::{
    about, chat, completions, embeddings, health, messages, metrics, model, models, responses, tokens, transcriptions, uploads,
};

/// A method of a path.
pub struct Route {
    /// As axum takes it.
    pub path: &'static str,
    pub method: Method,
    pub handler: MethodRouter<App>,
    /// What it is for.
    pub summary: &'static str,
    pub takes: Takes,
    pub answers: Answers,
}

/// What a request's body is.
pub enum Takes {
    Nothing,
    /// JSON that is read as all of these.
    Json(Vec<fn(&mut SchemaGenerator) -> Schema>),
    /// A form with a file in it.
    Form,
    /// Any bytes.
    Bytes,
}

/// What the body of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Json,
    /// JSON, or server-sent events where `stream` asks for them.
    JsonOrEvents,
    /// JSON, or text where `response_format` asks for it.
    JsonOrText,
    Text,
}

/// All of them but those that show the document.
pub fn all() -> Vec<Route> {
    use Answers::{Json, JsonOrEvents, JsonOrText, Text};
    let schemas = [
        SchemaGenerator::subschema_for::<ChatBody>,
        SchemaGenerator::subschema_for::<CompletionBody>,
        SchemaGenerator::subschema_for::<ResponseBody>,
        SchemaGenerator::subschema_for::<MessagesBody>,
        SchemaGenerator::subschema_for::<TokenizeBody>,
        SchemaGenerator::subschema_for::<DetokenizeBody>,
    ];
    let [chat, completion, response, message, to_tokenize, to_detokenize] = schemas;
    let with_options = |body| Takes::Json(vec![body, SchemaGenerator::subschema_for::<Options>]);
    let json = |body| Takes::Json(vec![body]);
    vec![
        read("/", get(about), "The program, and the model that it serves", Json),
        read("/health", get(health), "Whether requests are answered", Text),
        read("/metrics", get(metrics), "Numbers for Prometheus", Text),
        read("/v1/models", get(models), "The model, what it takes, and its limits", Json),
        read("/v1/models/{*id}", get(model), "The model by its name", Json),
        written("/v1/chat/completions", post(chat::completions), "OpenAI's chat completions", with_options(chat), JsonOrEvents),
        written("/v1/chat/completions/input_tokens", post(tokens::of_chat), "What it would take", with_options(chat), Json),
        written(
            "/v1/completions",
            post(completions::completions),
            "A prompt is continued",
            with_options(completion),
            JsonOrEvents,
        ),
        written("/v1/responses", post(responses::create), "OpenAI's responses", with_options(response), JsonOrEvents),
        written("/v1/responses/input_tokens", post(responses::input_tokens), "What it would take", with_options(response), Json),
        read("/v1/responses/{id}", get(responses::show), "A response that was stored", Json),
        removed("/v1/responses/{id}", delete(responses::delete), "Forgets a response"),
        written("/v1/messages", post(messages::create), "Anthropic's messages", json(message), JsonOrEvents),
        written("/v1/messages/count_tokens", post(messages::count_tokens), "What it would take", json(message), Json),
        written("/v1/embeddings", post(embeddings::create), "Refused: models that talk have none", Takes::Json(Vec::new()), Json),
        written("/v1/audio/transcriptions", post(transcriptions::create), "What is said in a sound", Takes::Form, JsonOrText),
        written(
            "/v1/media",
            post(uploads::create),
            "Uploads a file, to be named media:ID where a URL stands",
            Takes::Bytes,
            Json,
        ),
        read("/v1/media/{id}", get(uploads::show), "What was uploaded", Json),
        removed("/v1/media/{id}", delete(uploads::delete), "Forgets an uploaded file"),
        written("/tokenize", post(tokens::tokenize), "A text, or messages, as token ids", json(to_tokenize), Json),
        written("/detokenize", post(tokens::detokenize), "Token ids as a text", json(to_detokenize), Json),
    ]
}

fn read(path: &'static str, handler: MethodRouter<App>, summary: &'static str, answers: Answers) -> Route {
    Route { path, method: Method::GET, handler, summary, takes: Takes::Nothing, answers }
}

fn removed(path: &'static str, handler: MethodRouter<App>, summary: &'static str) -> Route {
    Route { path, method: Method::DELETE, handler, summary, takes: Takes::Nothing, answers: Answers::Json }
}

fn written(path: &'static str, handler: MethodRouter<App>, summary: &'static str, takes: Takes, answers: Answers) -> Route {
    Route { path, method: Method::POST, handler, summary, takes, answers }
}
