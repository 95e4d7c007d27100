//! One bad request costs nobody else anything. Ids are those of docs/reliability.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use common::{CHAT, answer, ask, data_url, load, options, request, send};
use mistralrs::{LoadOptions, ModelSource, Reach};
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

async fn server() -> Router {
    let options = LoadOptions { reach: Reach::Public { and: Vec::new() }, ..options(ModelSource::Demo) };
    Server::new(load(options).await, Settings::default()).router()
}

fn say(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}], "max_tokens": 4})
}

fn with(extra: Value) -> Value {
    let mut body = say(json!("Hello"));
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn what_others_died_of_is_refused_by_its_name() {
    let server = server().await;
    let good =
        say(json!([{"type": "image_url", "image_url": {"url": data_url("red_circle.png")}}, {"type": "text", "text": "What?"}]));
    let expected = answer(&server, CHAT, &good).await["choices"].clone();
    let biases = |count: u32| (0..count).map(|id| (id.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
    let nested = (0..200).fold(json!({}), |schema, _| json!({"properties": {"a": schema}}));
    let schema = |schema: Value| with(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}));
    let regex = |regex: &str| with(json!({"grammar": {"type": "regex", "value": regex}}));
    let tool = |parameters: Value| {
        with(
            json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters, "strict": true}}], "tool_choice": "required"}),
        )
    };
    let image = data_url("red_circle.png");
    let pictures = |count| vec![json!({"type": "image_url", "image_url": {"url": image}}); count];
    // Id of the threat, what is sent, the status, and what the answer's `param` begins with.
    let cases = [
        ("E1", with(json!({"logit_bias": {"99999999": 1}})), 400, "logit_bias"),
        ("E1", with(json!({"logit_bias": {"-1": 1}})), 400, "logit_bias"),
        ("E1", with(json!({"logit_bias": biases(1025)})), 400, "the number of logit_bias"),
        ("E2", with(json!({"stop_token_ids": [99_999_999]})), 400, "stop_token_ids"),
        ("E2", with(json!({"stop_token_ids": vec![1; 129]})), 400, "the number of stop_token_ids"),
        ("E3", with(json!({"n": 1_000_000})), 400, "n"),
        ("E4", with(json!({"logprobs": true, "top_logprobs": 100_000})), 400, "top_logprobs"),
        ("E5", with(json!({"max_tokens": -1})), 400, "max_tokens"),
        ("E5", with(json!({"max_tokens": 1.5})), 400, "max_tokens"),
        ("E5", with(json!({"seed": 1e30})), 400, "seed"),
        ("E5", with(json!({"n_discard": -1_000_000_000})), 200, ""),
        ("E6", with(json!({"temperature": 1e308})), 400, "temperature"),
        ("E6", with(json!({"top_p": -0.1})), 400, "top_p"),
        ("E6", with(json!({"repetition_penalty": 1e-320})), 400, "repetition_penalty"),
        ("E11", with(json!({"max_tokens": 100_000_000})), 400, "messages"),
        ("G1", regex("^+[a-z"), 400, "grammar"),
        ("G1", regex("((("), 400, "grammar"),
        ("G1", schema(json!({"type": "strnig"})), 400, "response_format"),
        ("G2", regex(&format!("{}a{}", "(".repeat(60_000), ")".repeat(60_000))), 400, "grammar"),
        ("G2", schema(nested), 400, ""),
        ("G3", regex("(a{1,9999}){1,9999}"), 200, ""),
        ("G5", schema(json!({"$ref": "https://example.com/a.json"})), 400, "response_format"),
        ("G5", schema(json!({"$ref": "file:///etc/passwd"})), 400, "response_format"),
        ("G5", tool(json!({"$ref": "http://127.0.0.1/"})), 400, "tools"),
        ("T3", with(json!({"chat_template": "{{ messages }}"})), 400, "chat_template"),
        ("K1", say(json!("a".repeat(1 << 20))), 400, "messages"),
        ("K1", say(json!(" ".repeat(200_000))), 400, "messages"),
        (
            "M10",
            say(json!([{"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:9/a.wav"}}])),
            400,
            "messages[0].content[0]",
        ),
        ("M11", say(json!(pictures(65))), 400, "messages[0].content[64]"),
        ("M12", say(json!([{"type": "image_embeds", "image_embeds": "AAAA"}])), 400, "messages[0].content[0].type"),
        ("R9", with(json!({"model": "../../etc/passwd"})), 404, "model"),
    ];
    for (id, body, status, param) in cases {
        let (found, answer) = ask(&server, CHAT, &body).await;
        assert_eq!(found, status, "{id}: {answer}");
        let error = &answer["error"];
        assert!(error["param"].as_str().unwrap_or_default().starts_with(param) || status == 200, "{id}: {answer}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.len() < 8192 && !message.contains("panicked"), "{id}: {answer}");
        let (health, _) = send(&server, Request::get("/health").body(Body::empty()).unwrap()).await;
        assert_eq!(health, 200, "{id}");
    }
    assert_eq!(answer(&server, CHAT, &good).await["choices"], expected, "a good request is answered as before");
}

/// T3, T4, T5, T6: what a user says is neither control tokens nor media, whatever it looks like.
#[tokio::test]
async fn words_stay_words() {
    let server = &server().await;
    let count = |content: Value, extra: Value| async move {
        let mut body = say(content);
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        answer(server, "/v1/chat/completions/input_tokens", &body).await
    };
    let plain = count(json!("Hello"), json!({})).await["input_tokens"].as_u64().unwrap();
    let shadow = json!({"chat_template_kwargs": {"messages": [], "tools": [1], "bos_token": "", "add_generation_prompt": false}});
    assert_eq!(count(json!("Hello"), shadow).await["input_tokens"], plain);
    let image = json!({"type": "image_url", "image_url": {"url": data_url("red_circle.png")}});
    let one = count(json!([image]), json!({})).await["input_tokens_details"]["image_tokens"].as_u64().unwrap();
    for words in ["<|im_end|>", "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<|endoftext|>"] {
        let alone = count(json!(words), json!({})).await;
        assert!(alone["input_tokens"].as_u64().unwrap() > plain, "{words} is more than a token: {alone}");
        let beside = count(json!([{"type": "text", "text": words}, image, {"type": "text", "text": words}]), json!({})).await;
        assert_eq!(beside["input_tokens_details"]["image_tokens"], one, "{words}");
    }
    let many = json!("<|image_pad|>".repeat(2000));
    assert_eq!(count(many, json!({})).await["input_tokens_details"]["image_tokens"], 0);
}

/// R5, R8: nothing in a text is fetched, and no name that a client gives is a path.
#[tokio::test]
async fn names_and_words_reach_nothing() {
    let server = server().await;
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    origin.set_nonblocking(true).unwrap();
    let url = format!("http://{}/a.png", origin.local_addr().unwrap());
    answer(&server, CHAT, &say(json!(format!("Look at {url} and ![this]({url})")))).await;
    let picture = say(json!([{"type": "image_url", "image_url": {"url": url}}]));
    assert_eq!(ask(&server, CHAT, &picture).await.0, 403);
    assert_eq!(origin.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has come");
    for path in ["/v1/media/..%2f..%2fetc%2fpasswd", "/v1/responses/..%2f..%2fetc%2fpasswd", "/docs/..%2f..%2fetc%2fpasswd"] {
        assert_eq!(send(&server, Request::get(path).body(Body::empty()).unwrap()).await.0, 404, "{path}");
    }
}

/// H3, H9: what takes its time is done elsewhere than where requests are taken.
#[tokio::test]
async fn health_is_told_while_others_are_at_work() {
    let server = server().await;
    let large = request("/tokenize", json!({"prompt": "word ".repeat(400_000)}).to_string());
    let work = std::pin::pin!(send(&server, large));
    let health = std::pin::pin!(send(&server, Request::get("/health").body(Body::empty()).unwrap()));
    match futures_util::future::select(work, health).await {
        futures_util::future::Either::Left(_) => panic!("the work was done on the thread that takes requests"),
        futures_util::future::Either::Right(((status, _), _)) => assert_eq!(status, 200),
    }
}

/// F9.
#[tokio::test]
async fn a_context_is_no_longer_than_the_models_own() {
    let own = load(options(ModelSource::Demo)).await.context_max();
    let asked = LoadOptions { context_max: Some(1 << 30), ..options(ModelSource::Demo) };
    assert_eq!(load(asked).await.context_max(), own);
}
