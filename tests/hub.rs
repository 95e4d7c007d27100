//! Downloading from a hub: a small server plays one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, RANGE};
use axum::http::{HeaderMap, Response, StatusCode};
use mistralrs::{ChatRequest, Content, Error, Hub, LoadOptions, Message, Model, ModelSource, Progress, Task};
use serde_json::json;

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Clone, Default)]
struct Pretender {
    files: Arc<BTreeMap<String, Vec<u8>>>,
    requests: Arc<AtomicUsize>,
    tokens: Arc<Mutex<Vec<String>>>,
}

/// Plays a hub with the models `org/tiny` (a fixture) and `org/secret` (wants a token).
async fn hub(State(hub): State<Pretender>, request: Request) -> Response<Body> {
    hub.requests.fetch_add(1, Ordering::Relaxed);
    let token = request.headers().get(AUTHORIZATION).map(|v| v.to_str().unwrap().to_string());
    hub.tokens.lock().unwrap().extend(token);
    let path = request.uri().path();
    let status = |code| Response::builder().status(code).body(Body::empty()).unwrap();
    if path.contains("org/secret") {
        return status(StatusCode::UNAUTHORIZED);
    }
    if path.starts_with("/api/models/org/tiny") {
        let siblings: Vec<_> = hub.files.keys().map(|name| json!({"rfilename": name})).collect();
        return Response::new(Body::from(json!({"sha": SHA, "siblings": siblings}).to_string()));
    }
    match path.strip_prefix("/org/tiny/resolve/main/").and_then(|name| hub.files.get(name)) {
        Some(bytes) => part(bytes, request.headers()),
        None => status(StatusCode::NOT_FOUND),
    }
}

fn part(bytes: &[u8], headers: &HeaderMap) -> Response<Body> {
    let range = headers[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last) = (first.parse::<usize>().unwrap(), last.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1));
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("x-repo-commit", SHA)
        .header(ETAG, format!("\"etag-of-{}\"", bytes.len()))
        .header(CONTENT_RANGE, format!("bytes {first}-{last}/{}", bytes.len()))
        .body(Body::from(bytes[first..=last].to_vec()))
        .unwrap()
}

async fn pretend() -> (Pretender, String) {
    let entries = std::fs::read_dir(fixtures::model("qwen2_vl").unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: BTreeMap<String, Vec<u8>> =
        entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())).collect();
    files.insert("pytorch_model.bin".into(), vec![0; 10]);
    files.insert("onnx/model.onnx".into(), vec![0; 10]);
    let pretender = Pretender { files: Arc::new(files), ..Pretender::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(hub).with_state(pretender.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (pretender, address)
}

fn options(id: &str, hub: &Hub) -> LoadOptions {
    LoadOptions::new(ModelSource::Hub(id.into()), hub.clone())
}

async fn failure(id: &str, hub: &Hub) -> String {
    match Model::load(options(id, hub), Arc::new(|_| ())).await {
        Err(Error::Source(message)) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{id} was loaded"),
    }
}

#[tokio::test]
async fn a_hub_model_is_downloaded_once_and_works_offline() {
    let (pretender, address) = pretend().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().into(), endpoint: Some(address), token: Some("letmein".into()), offline: false };
    let absent = failure("org/tiny", &Hub { offline: true, ..hub.clone() }).await;
    assert!(absent.contains("not in the cache") && pretender.requests.load(Ordering::Relaxed) == 0, "{absent}");

    let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
    let tell = seen.clone();
    let model = Model::load(options("org/tiny", &hub), Arc::new(move |d| tell.lock().unwrap().push(d))).await.unwrap();
    let message = Message { role: "user".into(), content: Content::Text("Hello".into()), ..Message::default() };
    let request = ChatRequest { messages: vec![message], tokens_max: Some(4), ..ChatRequest::default() };
    let answer = model.answer(&request).await.unwrap();
    assert!(!answer.tokens.is_empty());
    let done = |task: &Task| seen.lock().unwrap().iter().any(|p| p.task == *task && p.total > 0 && p.done == p.total);
    let finished = |file: &str| done(&Task::Download(file.into()));
    assert!(done(&Task::Load));
    assert!(
        finished("model.safetensors")
            && finished("config.json")
            && !finished("pytorch_model.bin")
            && !finished("onnx/model.onnx")
    );
    assert!(pretender.tokens.lock().unwrap().iter().all(|token| token == "Bearer letmein"));
    assert!(cache.path().join(format!("models--org--tiny/snapshots/{SHA}/config.json")).is_file());

    let before = pretender.requests.load(Ordering::Relaxed);
    Model::load(options("org/tiny", &hub), Arc::new(|_| ())).await.unwrap();
    assert_eq!(pretender.requests.load(Ordering::Relaxed), before + 1, "only the list of files is asked for again");
    let offline = Model::load(options("org/tiny", &Hub { offline: true, ..hub.clone() }), Arc::new(|_| ())).await.unwrap();
    assert_eq!(offline.answer(&request).await.unwrap().text, answer.text);
    let nobody = Hub { endpoint: Some("http://127.0.0.1:9".into()), ..hub };
    assert!(Model::load(options("org/tiny", &nobody), Arc::new(|_| ())).await.is_ok(), "an unreachable hub leaves the cache");
}

#[tokio::test]
async fn says_why_a_model_cannot_be_downloaded() {
    let (_, address) = pretend().await;
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub { cache: cache.path().into(), endpoint: Some(address), token: None, offline: false };
    let nobody = Hub { endpoint: Some("http://127.0.0.1:9".into()), ..hub.clone() };
    for (id, hub, expected) in [
        ("org/nothing", &hub, "there is no model org/nothing"),
        ("org/secret", &hub, "set HF_TOKEN"),
        ("org/tiny", &nobody, "cannot reach http://127.0.0.1:9"),
    ] {
        let message = failure(id, hub).await;
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
}
