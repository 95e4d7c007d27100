//! The document that describes all routes (OpenAPI 3.1), made of what reads requests, and Swagger UI to read it with.

use std::io::{Cursor, Read};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

use crate::app::App;
use crate::error::Failure;
use crate::routes::{self, Answers, Route, Takes};

/// What Swagger UI consists of, and as what it is sent.
const FILES: [(&str, &str); 2] = [("swagger-ui.css", "text/css"), ("swagger-ui-bundle.js", "text/javascript")];
const PAGE: &str = r##"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>mistralrs</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
"##;
const START: &str = r##"SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui"});"##;
/// The page loads nothing from elsewhere and asks nobody but this server.
const POLICY: &str = "script-src 'self'; connect-src 'self'; frame-ancestors 'none'";

/// The document, and the page that shows it.
pub fn router() -> Router<App> {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/api-doc/openapi.json", get(document))
        .route("/docs", get(page))
        .route("/docs/{file}", get(file))
}

async fn document() -> axum::Json<Value> {
    axum::Json(describe(&routes::all()))
}

async fn page() -> Response {
    ([(CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE)).into_response()
}

async fn file(Path(name): Path<String>) -> Result<Response, Failure> {
    let missing = || Failure::new(StatusCode::NOT_FOUND, "there is no such file").code("not_found");
    if name == "start.js" {
        return Ok(([(CONTENT_TYPE, "text/javascript")], START).into_response());
    }
    let (name, kind) = FILES.iter().find(|(file, _)| *file == name).ok_or_else(missing)?;
    let unpacked = tokio::task::spawn_blocking(move || unpack(name)).await.ok().flatten().ok_or_else(missing)?;
    Ok(([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "max-age=86400")], unpacked).into_response())
}

/// A file of Swagger UI's own archive.
fn unpack(name: &str) -> Option<Bytes> {
    let mut archive = zip::ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).ok()?;
    let path = archive.file_names().flatten().find(|path| path.ends_with(&format!("/dist/{name}")))?.into_owned();
    let mut bytes = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

/// OpenAPI 3.1 of these routes.
pub fn describe(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut generator);
    }
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    schemas.insert("Error".into(), error());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "mistralrs", "version": env!("CARGO_PKG_VERSION"), "description": "Answers about text, pictures, sound and clips"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "Where the server has keys (--api-key)"}},
        },
        "security": [{}, {"key": []}],
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({"summary": route.summary, "responses": {
        "200": {"description": "It is done", "content": content(route.answers)},
        "default": {
            "description": "It is refused or failed",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }});
    let body = match &route.takes {
        Takes::Nothing => None,
        Takes::Json(parts) => Some(json!({"application/json": {"schema": together(parts, generator)}})),
        Takes::Form => {
            let file = json!({"type": "string", "format": "binary"});
            let text = json!({"type": "string"});
            let fields = ["model", "prompt", "language", "temperature", "response_format"];
            let mut properties: Map<String, Value> = fields.into_iter().map(|field| (field.into(), text.clone())).collect();
            properties.insert("file".into(), file);
            Some(json!({"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": properties}}}))
        }
        Takes::Bytes => Some(json!({"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}})),
    };
    if let Some(content) = body {
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    if route.path.contains('{') {
        operation["parameters"] = json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
    }
    operation
}

/// A body that is read as all of these.
fn together(parts: &[fn(&mut SchemaGenerator) -> schemars::Schema], generator: &mut SchemaGenerator) -> Value {
    let parts: Vec<Value> = parts.iter().map(|part| part(generator).to_value()).collect();
    match parts.as_slice() {
        [] => json!({"type": "object"}),
        [one] => one.clone(),
        all => json!({"allOf": all}),
    }
}

fn content(answers: Answers) -> Value {
    let json = json!({"schema": {"type": "object"}});
    let text = json!({"schema": {"type": "string"}});
    match answers {
        Answers::Json => json!({"application/json": json}),
        Answers::JsonOrEvents => json!({"application/json": json, "text/event-stream": text}),
        Answers::JsonOrText => json!({"application/json": json, "text/plain": text}),
        Answers::Text => json!({"text/plain": text}),
    }
}

/// As `error.rs` writes it.
fn error() -> Value {
    let text = json!({"type": ["string", "null"]});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text},
        }},
    })
}
