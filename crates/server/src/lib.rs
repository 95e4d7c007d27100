//! The HTTP server: [`Server`] over a loaded model. It speaks OpenAI's chat completions, completions and responses and Anthropic's
//! messages.
//!
//! Knows: HTTP, the JSON of requests and answers (that of OpenAI's chats and completions through `wire`), server-sent events, status
//! codes, who may ask. Every answer of it is JSON (or an event stream), every error `{"error": {"message", "type", "param",
//! "code"}}`. Each API is a file that translates to the facade's [`mistralrs::ChatRequest`] and from its deltas; what stands
//! between the network and the routes is in `edge`.
//!
//! Must never know: tensors, tokens beyond their ids, how a model is loaded. It reads no files and opens no connections of its
//! own; what requests point at is fetched by the facade, within what the operator allows.

mod answers;
mod app;
mod chat;
mod completions;
mod docs;
mod edge;
mod embeddings;
mod error;
mod messages;
mod metrics;
mod payload;
mod places;
mod responses;
mod routes;
mod settings;
mod shelf;
mod tokens;
mod transcriptions;
mod uploads;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use mistralrs::{MEDIA_MAX, Model, ToolKind};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub use crate::edge::{Access, End};
pub use crate::settings::{ConnectionLimits, Hosts, OnAccess, Origins, Settings};

use crate::app::App;
use crate::edge::Phase;
use crate::error::Failure;
use crate::payload::Id;

/// A model that is asked over HTTP.
#[derive(Clone)]
pub struct Server(App);

impl Server {
    /// Serves nobody yet.
    pub fn new(model: Model, settings: Settings) -> Self {
        Self(App::new(model, settings))
    }

    /// Serves who connects until `signal` comes. Then new requests are refused and those that have begun are finished, for as long
    /// as the settings say, or until `signal` comes again.
    pub async fn serve<F: Future<Output = ()>>(&self, listener: TcpListener, signal: impl Fn() -> F) -> End {
        edge::accept(listener, self.router(), &self.0.phases, self.0.settings.limits, signal).await
    }

    /// All routes, with what stands before them.
    pub fn router(&self) -> Router {
        let app = &self.0;
        let router = routes::all()
            .into_iter()
            .fold(Router::new(), |router, route| router.route(route.path, route.handler))
            .merge(docs::router())
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method)
            // Bodies are bounded where they are read (payload.rs).
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(app.clone(), edge::admit));
        // A web page's browser asks for leave without a key.
        let router = match cors(&app.settings.origins) {
            Some(cors) => router.layer(cors),
            None => router,
        };
        router.layer(from_fn_with_state(app.clone(), edge::observe)).with_state(app.clone())
    }
}

fn cors(origins: &Origins) -> Option<CorsLayer> {
    let origins = match origins {
        Origins::None => return None,
        Origins::Any => AllowOrigin::any(),
        Origins::Listed(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    let layer = CorsLayer::new().allow_origin(origins).allow_methods([Method::GET, Method::POST, Method::DELETE]);
    Some(layer.allow_headers(AllowHeaders::mirror_request()).expose_headers([HeaderName::from_static("x-request-id")]))
}

async fn about(State(app): State<App>) -> axum::Json<Value> {
    axum::Json(json!({
        "name": "mistralrs", "version": env!("CARGO_PKG_VERSION"), "model": app.model.id(), "family": app.model.family().title,
    }))
}

fn card(app: &App, id: &str) -> Value {
    let model = &app.model;
    let modalities: Vec<&str> = std::iter::once("text").chain(model.family().modalities.iter().map(|m| m.name())).collect();
    json!({
        "id": id, "object": "model", "created": 0, "owned_by": "local",
        "modalities": modalities, "max_model_len": model.context_max(),
        "limits": {
            "body_bytes": app.settings.body_bytes_max,
            "media_items": MEDIA_MAX,
            "kv_cache_tokens": model.kv_cache().tokens,
            "upload_bytes": app.settings.uploads_bytes_max,
        },
        "tools_available": !app.settings.tools.is_empty() || app.settings.web_search.is_some(),
        "mcp_tools_count": app.settings.tools.iter().filter(|tool| matches!(tool.kind(), ToolKind::Mcp(_))).count(),
        "mcp_servers_connected": app.settings.mcp_servers,
    })
}

async fn models(State(app): State<App>) -> axum::Json<Value> {
    axum::Json(json!({"object": "list", "data": [card(&app, "default"), card(&app, app.model.id())]}))
}

async fn model(State(app): State<App>, Id(id): Id) -> Result<axum::Json<Value>, Failure> {
    app.check_model(Some(&id))?;
    Ok(axum::Json(card(&app, &id)))
}

async fn health(State(app): State<App>) -> Response {
    if app.phases.now() != Phase::Serving {
        return Failure::ending().into_response();
    }
    match app.model.is_running() {
        true => "OK".into_response(),
        false => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped").code("unavailable").into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let open = app.phases.requests_open();
    let edge = format!(
        "# HELP mistralrs_http_requests_in_flight Requests that are open.\n# TYPE mistralrs_http_requests_in_flight gauge\nmistralrs_http_requests_in_flight {open}\n"
    );
    let all = metrics::exposition(&app.model.stats()) + &app.recorder.exposition() + &edge;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], all).into_response()
}

async fn not_found(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(200).collect();
    Failure::new(StatusCode::NOT_FOUND, format!("there is no {path}")).code("not_found").into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, message).code("method_not_allowed").into_response()
}
