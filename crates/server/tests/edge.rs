//! What stands between the network and the routes. Ids are those of the threats that are met: H1 headers, H2 slow clients, H5 clients
//! that leave, H6 signals, H7 keys, H8 names and web pages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use common::{load, options};
use mistralrs::{Model, ModelSource};
use mistralrs_server::{Access, ConnectionLimits, End, Hosts, Origins, Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

/// The beginning of a chat request.
const POST: &str =
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
const KEY: &str = "sk-secret";
/// More than a test takes, where something is not to happen.
const LONG: Duration = Duration::from_secs(600);

/// A server that listens.
struct Running {
    address: SocketAddr,
    signals: Arc<Semaphore>,
    serving: JoinHandle<End>,
    /// How requests ended.
    seen: mpsc::UnboundedReceiver<Access>,
}

async fn start(model: Model, settings: Settings) -> Running {
    let (tell, seen) = mpsc::unbounded_channel();
    let on_access = Some(Arc::new(move |access: &Access| drop(tell.send(access.clone()))) as mistralrs_server::OnAccess);
    let server = Server::new(model, Settings { on_access, ..settings });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let signals = Arc::new(Semaphore::new(0));
    let heard = signals.clone();
    let serving = {
        let signal = move || {
            let heard = heard.clone();
            async move { heard.acquire().await.unwrap().forget() }
        };
        tokio::spawn(async move { server.serve(listener, signal).await })
    };
    Running { address, signals, serving, seen }
}

async fn demo(settings: Settings) -> Running {
    start(load(options(ModelSource::Demo)).await, settings).await
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that comes back for these bytes until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // A server that refuses may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").as_bytes()).await
    }

    fn signal(&self) {
        self.signals.add_permits(1);
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

/// A request for an answer of so many tokens.
fn long_answer(tokens: usize, stream: bool) -> String {
    let message = r#"{"role":"user","content":"hello"}"#;
    post(&format!(r#"{{"messages":[{message}],"stream":{stream},"ignore_eos":true,"max_tokens":{tokens}}}"#))
}

fn post(body: &str) -> String {
    format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads until this has come.
async fn read_to(stream: &mut TcpStream, what: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(what) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed before {what:?}: {text}");
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    text
}

#[tokio::test]
async fn h1_headers_are_bounded() {
    let server = demo(Settings::default()).await;
    let cases = [
        (format!("x: {}\r\n", "a".repeat(256 << 10)), "431"),
        ("x: a\r\n".repeat(2000), "431"),
        ("x: a\r\n".repeat(50), "200"),
        (format!("x: {}\r\n", "a".repeat(32 << 10)), "200"),
        ("no colon\r\n".to_string(), "400"),
    ];
    for (headers, expected) in cases {
        let answer = server.get("/health", &headers).await;
        // A server that does not read on may close before its answer is read.
        assert!(status(&answer) == expected || expected == "431" && answer.is_empty(), "{}: {answer}", &headers[..10]);
    }
    assert_eq!(status(&server.get("/health", "").await), "200");
}

#[tokio::test]
async fn h2_slow_clients_are_cut_off() {
    let short = Duration::from_millis(100);
    let limits = ConnectionLimits { header: short, body_idle: short, ..ConnectionLimits::default() };
    let server = demo(Settings { limits, ..Settings::default() }).await;
    assert_eq!(server.exchange(b"").await, "", "nothing is sent");
    let half = server.exchange(b"GET /health HTTP/1.1\r\nHost: loc").await;
    assert!(half.is_empty() || status(&half) == "408", "{half}");
    let body = server.exchange(format!("{POST}Content-Length: 100\r\n\r\n{{").as_bytes()).await;
    assert!(status(&body) == "408" && body.contains("body_timeout"), "{body}");
    let body = server.exchange(format!("{POST}Content-Length: 1099511627776\r\n\r\n{{").as_bytes()).await;
    assert!(status(&body) == "413" && body.contains("request_too_large"), "{body}");
    let packed = format!("{POST}Content-Encoding: gzip\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&server.exchange(packed.as_bytes()).await), "415");
}

#[tokio::test]
async fn h2_a_connection_may_rest_longer_than_a_header_may_take() {
    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let limits = ConnectionLimits { header: Duration::from_millis(100), keep_alive: LONG, ..ConnectionLimits::default() };
    let server = demo(Settings { limits, ..Settings::default() }).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        stream.write_all(REQUEST).await.unwrap();
        assert_eq!(status(&read_to(&mut stream, "OK").await), "200");
        // As long as a header may take.
        assert_eq!(server.exchange(b"").await, "");
    }
    stream.write_all(b"GET /health HT").await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.is_empty() || status(&rest) == "408", "a header that has begun has to end: {rest}");
    let limits = ConnectionLimits { header: LONG, keep_alive: Duration::from_millis(100), ..ConnectionLimits::default() };
    let server = demo(Settings { limits, ..Settings::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.unwrap();
    assert_eq!(status(&read_to(&mut stream, "OK").await), "200");
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn h5_who_leaves_is_noted_and_forgotten() {
    let model = load(options(ModelSource::Demo)).await;
    let mut server = start(model.clone(), Settings::default()).await;
    for streamed in [true, false] {
        let mut stream = server.connect().await;
        stream.write_all(long_answer(1900, streamed).as_bytes()).await.unwrap();
        if streamed {
            read_to(&mut stream, "data: ").await;
        }
        drop(stream);
        let access = server.seen.recv().await.unwrap();
        assert_eq!((access.status, access.path.as_str()), (499, "/v1/chat/completions"), "streamed: {streamed}");
    }
    while model.stats().running > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&server.get("/health", "").await), "200");
}

#[tokio::test]
async fn h6_a_signal_lets_answers_finish_and_refuses_new_ones() {
    let limits = ConnectionLimits { drain: LONG, ..ConnectionLimits::default() };
    let mut server = demo(Settings { limits, ..Settings::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(long_answer(1500, true).as_bytes()).await.unwrap();
    let mut said = read_to(&mut stream, "data: ").await;
    server.signal();
    while status(&server.get("/health", "").await) != "503" {}
    let refused = server.get("/v1/models", "").await;
    assert!(status(&refused) == "503" && refused.contains("retry-after") && refused.contains("service_unavailable"), "{refused}");
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("data: [DONE]"), "it is finished");
    assert_eq!((&mut server.serving).await.unwrap(), End::Drained);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn h6_a_second_signal_ends_at_once() {
    let limits = ConnectionLimits { drain: LONG, ..ConnectionLimits::default() };
    let mut server = demo(Settings { limits, ..Settings::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(long_answer(1900, true).as_bytes()).await.unwrap();
    let mut said = read_to(&mut stream, "data: ").await;
    server.signal();
    server.signal();
    assert_eq!((&mut server.serving).await.unwrap(), End::Cut);
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("shutting down") && !said.contains("[DONE]"), "it is told why");
}

#[tokio::test]
async fn h7_a_key_is_needed_for_all_but_health() {
    let server = demo(Settings { api_keys: vec!["other".into(), KEY.into()], ..Settings::default() }).await;
    let cases = [
        ("/v1/models", format!("Authorization: Bearer {KEY}\r\n"), "200"),
        ("/v1/models", "Authorization: bearer other\r\n".into(), "200"),
        ("/v1/models", format!("x-api-key: {KEY}\r\n"), "200"),
        ("/health", String::new(), "200"),
        ("/v1/models", String::new(), "401"),
        ("/metrics", String::new(), "401"),
        ("/", String::new(), "401"),
        ("/nowhere", String::new(), "401"),
        ("//health", String::new(), "401"),
        ("/health/", String::new(), "401"),
        ("/v1/../health", String::new(), "401"),
        ("http://localhost/v1/models", String::new(), "401"),
        ("/v1/models", format!("Authorization: Basic {KEY}\r\n"), "401"),
        ("/v1/models", format!("Authorization: {KEY}\r\n"), "401"),
        ("/v1/models", format!("Authorization: Bearer {KEY}x\r\n"), "401"),
        ("/v1/models", "Authorization: Bearer sk-secre\r\n".into(), "401"),
        ("/v1/models", "Authorization: Bearer \r\n".into(), "401"),
    ];
    for (path, headers, expected) in cases {
        let answer = server.get(path, &headers).await;
        assert_eq!(status(&answer), expected, "{path} {headers}: {answer}");
        assert!(expected == "200" || answer.contains("authentication_error") && !answer.contains(KEY), "{answer}");
    }
}

#[tokio::test]
async fn h8_only_the_names_of_a_loopback_address_are_answered() {
    let server = demo(Settings { hosts: Hosts::Loopback(vec!["box.example".into()]), ..Settings::default() }).await;
    for (host, expected) in [("localhost:1", "200"), ("127.0.0.1", "200"), ("box.example", "200"), ("evil.example:1234", "403")] {
        let answer =
            server.exchange(format!("GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), expected, "{host}: {answer}");
    }
    let absolute = b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&server.exchange(absolute).await), "403");
}

#[tokio::test]
async fn h8_web_pages_may_ask_where_they_are_listed() {
    let model = load(options(ModelSource::Demo)).await;
    let page = "Origin: https://page.example\r\n";
    let listed = Origins::Listed(vec![HeaderValue::from_static("https://page.example")]);
    let other = Origins::Listed(vec![HeaderValue::from_static("https://other.example")]);
    for (origins, allowed) in
        [(Origins::None, None), (other, None), (listed, Some("https://page.example")), (Origins::Any, Some("*"))]
    {
        let server = start(model.clone(), Settings { origins: origins.clone(), ..Settings::default() }).await;
        let answer = server.get("/v1/models", page).await;
        let header = answer.lines().find_map(|line| line.strip_prefix("access-control-allow-origin: "));
        assert_eq!(header, allowed, "{origins:?}: {answer}");
    }
    // A browser asks for leave without a key.
    let settings = Settings { origins: Origins::Any, api_keys: vec![KEY.into()], ..Settings::default() };
    let server = start(model, settings).await;
    let preflight = format!(
        "OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{page}Access-Control-Request-Method: POST\r\n\r\n"
    );
    assert_eq!(status(&server.exchange(preflight.as_bytes()).await), "200");
}

#[tokio::test]
async fn requests_have_ids_and_are_noted() {
    let mut server = demo(Settings::default()).await;
    let answer = server.get("/v1/models?key=secret", "x-request-id: mine-1\r\n").await;
    assert!(answer.contains("x-request-id: mine-1"), "{answer}");
    let access = server.seen.recv().await.unwrap();
    assert_eq!((access.id.as_str(), access.path.as_str(), access.status), ("mine-1", "/v1/models", 200));
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!((access.bytes, access.peer.unwrap().ip().is_loopback()), (body.len() as u64, true));
    server.get("/nowhere", &format!("x-request-id: {}\r\n", "a".repeat(200))).await;
    let access = server.seen.recv().await.unwrap();
    assert_eq!((access.id.len(), access.status), (32, 404), "an id that is too long is not taken");
}

#[tokio::test]
async fn a_message_that_repeats_much_is_short() {
    let server = demo(Settings::default()).await;
    let body = format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"tool_choice":{{"name":"{}"}}}}"#, "é".repeat(100_000));
    let answer = server.exchange(post(&body).as_bytes()).await;
    assert!(status(&answer) == "400" && answer.len() < 8192, "{} bytes", answer.len());
}
