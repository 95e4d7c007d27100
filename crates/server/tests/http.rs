//! Requests in, JSON and event streams out, over the built-in demo model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{CHAT, data_url, load, options, picture, request, send};
use mistralrs::{FileAccess, LoadOptions, ModelSource};
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

async fn server(files: FileAccess) -> Router {
    server_of(ModelSource::Demo, files).await
}

async fn server_of(model: ModelSource, files: FileAccess) -> Router {
    Server::new(load(LoadOptions { files, ..options(model) }).await, Settings::default()).router()
}

fn ask(url: &str, question: &str) -> Value {
    let content = json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]);
    json!({"model": "default", "messages": [{"role": "user", "content": content}]})
}

async fn post(server: &Router, body: String) -> (StatusCode, String) {
    send(server, request(CHAT, body)).await
}

/// The answer to a chat request that is in order.
async fn chat(server: &Router, body: Value) -> Value {
    let (status, text) = post(server, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The JSON of a stream's events, and whether it ended with [DONE].
async fn stream(server: &Router, mut body: Value) -> (Vec<Value>, bool) {
    body["stream"] = true.into();
    let (status, text) = post(server, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let done = data.last() == Some(&"[DONE]");
    if done {
        data.pop();
    }
    (data.iter().map(|json| serde_json::from_str(json).unwrap()).collect(), done)
}

fn with(mut body: Value, extra: Value) -> Value {
    extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
    body
}

#[tokio::test]
async fn a_picture_is_answered_whole_and_streamed_alike() {
    let server = server(FileAccess::All).await;
    let file = format!("file://{}", picture("red_circle.png"));
    let extra = json!({"logprobs": true, "top_logprobs": 2, "return_token_ids": true, "stream_options": {"include_usage": true}});
    let body = with(ask(&file, "What is in this picture?"), extra);
    let whole = chat(&server, body.clone()).await;
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(text.contains("red circle"), "{text}");
    assert_eq!((&choice["finish_reason"], &whole["object"]), (&json!("stop"), &json!("chat.completion")));
    let ids = choice["token_ids"].as_array().unwrap();
    let (prompt, completion) =
        (whole["usage"]["prompt_tokens"].as_u64().unwrap(), whole["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(whole["usage"]["total_tokens"], prompt + completion);
    assert_eq!((ids.len() as u64, whole["prompt_token_ids"].as_array().unwrap().len() as u64), (completion, prompt));
    let logprobs = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(logprobs.len() as u64, completion - 1, "one for each token but the end token");
    for entry in logprobs {
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0 && entry["top_logprobs"].as_array().unwrap().len() == 2, "{entry}");
        assert_eq!(entry["token"], entry["top_logprobs"][0]["token"], "greedy takes the best");
    }

    let (chunks, done) = stream(&server, body).await;
    assert!(done && chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, text);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[0]["prompt_token_ids"], whole["prompt_token_ids"]);
    let streamed: Vec<Value> = chunks.iter().filter_map(|c| c["choices"][0]["token_ids"].as_array()).flatten().cloned().collect();
    assert_eq!(&streamed, ids);
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "stop");
    let mut usage = whole["usage"].clone();
    let first = std::mem::replace(&mut usage["prompt_tokens_details"]["cached_tokens"], json!(32));
    assert_eq!(first, 0);
    // The first block of the prompt was computed before.
    assert_eq!((&chunks[chunks.len() - 1]["usage"], &chunks[chunks.len() - 1]["choices"]), (&usage, &json!([])));
}

#[tokio::test]
async fn answers_end_where_they_are_told_to() {
    let server = server(FileAccess::All).await;
    let body = ask(&data_url("red_circle.png"), "What is in this picture?");
    let plain = chat(&server, body.clone()).await["choices"][0]["message"]["content"].as_str().unwrap().to_string();
    let cases = [
        (json!({"max_tokens": 2}), "length", 2),
        (json!({"max_completion_tokens": 1, "max_tokens": 50}), "length", 1),
        (json!({"stop": " red"}), "stop", 0),
        (json!({"stop": ["zzz", "circle"]}), "stop", 0),
    ];
    for (extra, reason, tokens) in cases {
        let answer = chat(&server, with(body.clone(), extra.clone())).await;
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(plain.starts_with(text) && text.len() < plain.len(), "{extra}: {text:?} of {plain:?}");
        assert_eq!(answer["choices"][0]["finish_reason"], reason, "{extra}");
        assert!(tokens == 0 || answer["usage"]["completion_tokens"] == tokens, "{extra}");
        let (chunks, _) = stream(&server, with(body.clone(), extra.clone())).await;
        let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, text, "{extra} streamed");
    }
}

#[tokio::test]
async fn a_seed_repeats_an_answer() {
    let server = server(FileAccess::All).await;
    let body = with(ask(&data_url("four_shapes.png"), "Describe this picture."), json!({"temperature": 2.0, "max_tokens": 24}));
    let text = async |seed: i64| chat(&server, with(body.clone(), json!({"seed": seed}))).await["choices"][0]["message"].clone();
    assert_eq!(text(7).await, text(7).await);
    let mut others = Vec::new();
    for seed in 0..4 {
        others.push(text(seed).await);
    }
    others.dedup();
    assert!(others.len() > 1, "four seeds gave one answer");
}

#[tokio::test]
async fn choices_share_a_prompt_and_differ() {
    let server = server(FileAccess::All).await;
    let sampling = json!({"n": 3, "seed": 5, "temperature": 2.0, "max_tokens": 24, "return_token_ids": true});
    let body = with(ask(&data_url("four_shapes.png"), "Describe this picture."), sampling);
    let whole = chat(&server, body.clone()).await;
    let choices = whole["choices"].as_array().unwrap();
    let ids: Vec<&Value> = choices.iter().map(|choice| &choice["token_ids"]).collect();
    assert!(ids.len() == 3 && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    let tokens: usize = ids.iter().map(|ids| ids.as_array().unwrap().len()).sum();
    assert_eq!(whole["usage"]["completion_tokens"], tokens);
    // A choice is what its seed alone gives.
    let alone = chat(&server, with(body.clone(), json!({"n": 1, "seed": 6}))).await;
    assert_eq!(&alone["choices"][0]["token_ids"], ids[1]);

    let (chunks, done) = stream(&server, with(body, json!({"stream_options": {"include_usage": true}}))).await;
    assert!(done);
    for (index, expected) in choices.iter().enumerate() {
        let own = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        let said: String = own.clone().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(said, expected["message"]["content"]);
        assert_eq!(own.filter(|choice| choice["finish_reason"].is_string()).count(), 1);
    }
    assert_eq!(chunks[chunks.len() - 1]["usage"]["completion_tokens"], tokens);
}

#[tokio::test]
async fn words_are_kept_from_coming_or_made_to() {
    let server = server(FileAccess::All).await;
    let body = with(ask(&data_url("red_circle.png"), "What is in this picture?"), json!({"return_token_ids": true}));
    let ids = async |extra: Value| {
        let answer = chat(&server, with(body.clone(), extra)).await;
        let ids = answer["choices"][0]["token_ids"].as_array().unwrap();
        ids.iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let plain = ids(json!({})).await;
    let (first, end) = (plain[0].to_string(), plain[plain.len() - 1]);
    assert_ne!(ids(json!({"logit_bias": {&first: -100}})).await[0], plain[0]);
    assert_eq!(ids(json!({"logit_bias": {&first: 100}, "max_tokens": 3})).await, [plain[0]; 3]);
    assert_eq!(ids(json!({"stop_token_ids": [plain[1]]})).await, plain[..2]);
    let longer = ids(json!({"min_tokens": plain.len() + 4, "max_tokens": plain.len() + 8})).await;
    assert_eq!(longer[..plain.len() - 1], plain[..plain.len() - 1]);
    assert!(longer.len() > plain.len() + 4 || !longer.contains(&end), "{longer:?}");
    let punished = json!({"repetition_penalty": 100, "ignore_eos": true, "max_tokens": 30});
    let mut distinct = ids(punished).await;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 30, "a token came twice");
    let repeated = ids(json!({"ignore_eos": true, "max_tokens": 60})).await;
    let dry = json!({"ignore_eos": true, "max_tokens": 60, "dry_multiplier": 50.0, "dry_sequence_breakers": []});
    let passages = |ids: &[u64]| ids.windows(4).enumerate().filter(|(i, w)| ids.windows(4).take(*i).any(|v| v == *w)).count();
    let dried = ids(dry).await;
    assert!(passages(&repeated) > 10 && passages(&dried) == 0, "{repeated:?} {dried:?}");
}

#[tokio::test]
async fn answers_have_the_form_that_is_asked_for() {
    let server = server(FileAccess::All).await;
    let schema = json!({
        "type": "object",
        "properties": {"shape": {"enum": ["circle", "square"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["shape", "count"],
        "additionalProperties": false,
    });
    let is_shape = |text: &str| {
        let answer: Value = serde_json::from_str(text).unwrap();
        let count = answer["count"].as_u64().unwrap();
        assert!(answer["shape"] == "circle" || answer["shape"] == "square", "{text}");
        assert!((1..=9).contains(&count) && answer.as_object().unwrap().len() == 2, "{text}");
    };
    let is_object = |text: &str| assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
    type Check<'a> = &'a dyn Fn(&str);
    let cases: [(Value, Check); 7] = [
        (json!({"grammar": {"type": "regex", "value": "[0-9]{3}-[0-9]{2}"}}), &|text| {
            let digits: Vec<&str> = text.split('-').collect();
            assert!(digits.len() == 2 && digits[0].len() == 3 && digits[1].len() == 2, "{text}");
            assert!(digits.concat().bytes().all(|b| b.is_ascii_digit()), "{text}");
        }),
        (json!({"grammar": {"type": "choice", "value": ["a red circle", "a \"blue\" square\n"]}}), &|text| {
            assert_eq!(text, "a red circle");
        }),
        (json!({"grammar": {"type": "lark", "value": "start: \"<\" /[a-c]+/ \">\""}, "temperature": 1, "seed": 3}), &|text| {
            let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap();
            assert!(!inner.is_empty() && inner.bytes().all(|b| (b'a'..=b'c').contains(&b)), "{text}");
        }),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}), &is_shape),
        (json!({"grammar": {"type": "json_schema", "value": schema}, "temperature": 1.5, "seed": 1}), &is_shape),
        (json!({"response_format": {"type": "json_object"}, "logit_bias": {}, "temperature": 1, "seed": 11}), &is_object),
        (json!({"response_format": {"type": "text"}}), &|text| assert!(text.contains("red circle"), "{text}")),
    ];
    for (extra, check) in cases {
        let body = with(ask(&data_url("red_circle.png"), "What is in this picture?"), json!({"max_tokens": 400}));
        let body = with(body, extra.clone());
        let answer = chat(&server, body.clone()).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "stop", "{extra}: {choice}");
        let text = choice["message"]["content"].as_str().unwrap();
        check(text);
        let (chunks, done) = stream(&server, body.clone()).await;
        let said: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert!(done && said == text, "{extra}: {said:?} streamed, {text:?} whole");
        let several = chat(&server, with(body, json!({"n": 2, "logprobs": true}))).await;
        let complete = several["choices"].as_array().unwrap().iter().filter(|choice| choice["finish_reason"] == "stop");
        complete.for_each(|choice| check(choice["message"]["content"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_sound_is_heard_however_it_is_sent() {
    let server = server_of(ModelSource::Folder(fixtures::model("voxtral").unwrap()), FileAccess::All).await;
    let path = fixtures::root().join("media/speech_16k.wav").canonicalize().unwrap().display().to_string();
    let data = STANDARD.encode(std::fs::read(&path).unwrap());
    let listen = |part: Value| {
        let content = json!([part, {"type": "text", "text": "What is said?"}]);
        json!({"messages": [{"role": "user", "content": content}], "max_tokens": 8, "ignore_eos": true})
    };
    let url = |url: &str| json!({"type": "audio_url", "audio_url": {"url": url}});
    let heard = |answer: Value| (answer["choices"][0]["message"].clone(), answer["usage"]["prompt_tokens"].clone());
    let whole = heard(chat(&server, listen(url(&path))).await);
    let parts = [
        json!({"type": "audio_url", "audio_url": path}),
        url(&format!("file://{path}")),
        url(&format!("data:audio/wav;base64,{data}")),
        json!({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}),
        json!({"type": "input_audio", "input_audio": {"url": path}}),
        json!({"type": "audio_url", "audio_url": {"url": path, "start": 0, "end": 60}}),
    ];
    for part in parts {
        assert_eq!(heard(chat(&server, listen(part.clone())).await), whole, "{part}");
    }
    // Two and a half seconds are two windows, and one second is one.
    let part = json!({"type": "audio_url", "audio_url": {"url": path, "start": 1, "end": 2}});
    let (_, tokens) = heard(chat(&server, listen(part)).await);
    assert_eq!(whole.1.as_u64().unwrap() - tokens.as_u64().unwrap(), 25);
    let (status, text) = post(&server, listen(url(&picture("red_circle.png"))).to_string()).await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("invalid_audio") && text.contains("not audio"), "{text}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let server = server(FileAccess::None).await;
    let picture = data_url("red_circle.png");
    let good = || ask(&picture, "What is this?");
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let bytes = |bytes: &[u8]| format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    let cases: Vec<(Value, u16, Value, &str)> = vec![
        (json!({}), 400, json!("messages"), "messages"),
        (json!({"messages": []}), 400, json!("messages"), "must not be empty"),
        (json!({"messages": [{"content": "a"}]}), 400, json!("messages[0].role"), "role"),
        (json!({"messages": [{"role": "user", "content": 3}]}), 400, json!("messages[0].content"), "a text or a list"),
        (part(json!({"type": "picture"})), 400, json!("messages[0].content[0].type"), "must be text"),
        (part(json!({"type": "text"})), 400, json!("messages[0].content[0].text"), "missing"),
        (part(json!({"type": "image_url", "image_url": {}})), 400, json!("messages[0].content[0].image_url.url"), "missing"),
        (ask("data:image/png;base64,@", ""), 400, json!("messages[0].content[0]"), "not base64"),
        (ask(&bytes(b"hello"), ""), 400, json!("messages[0].content[0]"), "not an image"),
        (ask(&bytes(b"\x89PNG\r\n\x1a\n????"), ""), 400, json!("messages[0].content[0]"), "damaged"),
        (ask("ftp://a/b.png", ""), 400, json!("messages[0].content[0]"), "not supported"),
        (ask("file:///etc/hostname", ""), 403, json!("messages[0].content[0]"), "may not be read"),
        (ask("/etc/hostname", ""), 403, json!("messages[0].content[0]"), "may not be read"),
        (
            part(json!({"type": "audio_url", "audio_url": {"url": "a.wav"}})),
            400,
            json!("messages[0].content[0]"),
            "does not take audio",
        ),
        (part(json!({"type": "audio_url", "audio_url": {}})), 400, json!("messages[0].content[0].audio_url.url"), "missing"),
        (part(json!({"type": "input_audio"})), 400, json!("messages[0].content[0].input_audio.url"), "missing"),
        (
            part(json!({"type": "input_audio", "input_audio": {"data": "", "url": "a.wav"}})),
            400,
            json!("messages[0].content[0].input_audio.data"),
            "exclude each other",
        ),
        (
            part(json!({"type": "audio_url", "audio_url": {"url": "a.wav", "start": 2, "end": 1}})),
            400,
            json!("messages[0].content[0].audio_url.end"),
            "after start, not 1",
        ),
        (
            part(json!({"type": "input_audio", "input_audio": {"data": "", "start": "now"}})),
            400,
            json!("messages[0].content[0].input_audio.start"),
            "invalid type",
        ),
        (with(good(), json!({"temperature": -1})), 400, json!("temperature"), "between 0 and 100"),
        (with(good(), json!({"temperature": "hot"})), 400, json!("temperature"), "invalid type"),
        (with(good(), json!({"top_p": 0})), 400, json!("top_p"), "above 0"),
        (with(good(), json!({"top_k": -5})), 400, json!("top_k"), "positive"),
        (with(good(), json!({"min_p": 2})), 400, json!("min_p"), "between 0 and 1"),
        (with(good(), json!({"max_tokens": 0})), 400, json!("max_tokens"), "at least 1"),
        (with(good(), json!({"max_tokens": 99999})), 400, json!("messages"), "more than the context of 2048"),
        (with(good(), json!({"top_logprobs": 3})), 400, json!("top_logprobs"), "unless logprobs"),
        (with(good(), json!({"logprobs": true, "top_logprobs": 21})), 400, json!("top_logprobs"), "at most 20"),
        (with(good(), json!({"stop": vec!["a"; 17]})), 400, json!("stop"), "at most 16"),
        (with(good(), json!({"grammar": {"type": "regex", "value": "(a"}})), 400, json!("grammar"), "cannot be followed"),
        (with(good(), json!({"grammar": {"type": "regex", "value": "a".repeat(300_000)}})), 400, json!("grammar"), "bytes"),
        (with(good(), json!({"grammar": {"type": "lark", "value": "start: x"}})), 400, json!("grammar"), "x"),
        (with(good(), json!({"grammar": {"type": "choice", "value": []}})), 400, json!("grammar"), "no choice"),
        (with(good(), json!({"grammar": {"type": "prolog", "value": ""}})), 400, json!("grammar.type"), "unknown variant"),
        (with(good(), json!({"response_format": {"type": "yaml"}})), 400, json!("response_format.type"), "unknown variant"),
        (
            with(good(), json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strnig"}}}})),
            400,
            json!("response_format"),
            "strnig",
        ),
        (
            with(good(), json!({"response_format": {"type": "json_object"}, "grammar": {"type": "regex", "value": "a"}})),
            400,
            json!("grammar"),
            "exclude each other",
        ),
        (with(good(), json!({"n": 0})), 400, json!("n"), "between 1 and 128"),
        (with(good(), json!({"n": 129})), 400, json!("n"), "between 1 and 128"),
        (with(good(), json!({"repetition_penalty": 0})), 400, json!("repetition_penalty"), "above 0"),
        (with(good(), json!({"presence_penalty": 3})), 400, json!("presence_penalty"), "between -2 and 2"),
        (with(good(), json!({"frequency_penalty": -2.5})), 400, json!("frequency_penalty"), "between -2 and 2"),
        (with(good(), json!({"dry_multiplier": 1, "dry_base": 0.5})), 400, json!("dry_base"), "between 1 and 100"),
        (with(good(), json!({"logit_bias": {"x": 1}})), 400, json!("logit_bias"), "not a token id"),
        (with(good(), json!({"logit_bias": {"-1": 1}})), 400, json!("logit_bias"), "not a token id"),
        (with(good(), json!({"logit_bias": {"99999999": 1}})), 400, json!("logit_bias"), "99999999"),
        (with(good(), json!({"logit_bias": {"5": 101}})), 400, json!("logit_bias"), "between -100 and 100"),
        (with(good(), json!({"stop_token_ids": [99999999]})), 400, json!("stop_token_ids"), "99999999"),
        (with(good(), json!({"min_tokens": 9, "max_tokens": 8})), 400, json!("min_tokens"), "at most max_tokens"),
        (with(good(), json!({"tools": [{"type": "function"}]})), 400, json!("tools[0]"), "name is missing"),
        (with(good(), json!({"model": "gpt-9"})), 404, json!("model"), "there is no model"),
    ];
    for (body, status, param, message) in cases {
        let (found, text) = post(&server, body.to_string()).await;
        let error: Value = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
        assert_eq!((found.as_u16(), &error["param"]), (status, &param), "{text}");
        assert!(error["message"].as_str().unwrap().contains(message), "{message:?} in {text}");
        assert!(error["type"].is_string() && text.len() < 8192 && !text.contains("\\n"), "{text}");
    }
}

/// A question about one clip.
fn watch(part: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}], "max_tokens": 1})
}

#[tokio::test]
async fn clips_are_urls_lists_and_folders_with_what_is_wanted_of_them() {
    let server = server(FileAccess::All).await;
    let frame = data_url("red_circle.png");
    let jpeg_list = format!("data:video/jpeg;base64,{}", [frame.split_once(',').unwrap().1; 4].join(","));
    let clip = format!("file://{}", picture("../media/motion_64x64_5fps.gif"));
    let list = |count: usize| vec![frame.clone(); count];
    let url = |body: Value| json!({"type": "video_url", "video_url": body});
    // Part and tokens: 23 of text and, for every two frames, 9 of the clip or 25 of the list.
    let cases = [
        (url(json!({"url": clip})), 41),
        (url(json!(clip)), 41),
        (json!({"type": "video", "video": clip}), 41),
        (url(json!({"url": clip, "fps": 0.5})), 41),
        (url(json!({"url": clip, "start": 1, "end": 1.9})), 41),
        (url(json!({"url": clip, "max_frames": 2})), 32),
        (url(json!({"url": clip, "fps": 5})), 77),
        (url(json!({"url": list(4)})), 73),
        (url(json!(list(4))), 73),
        (json!({"type": "video", "video": list(4), "fps": 1.0}), 73),
        (url(json!({"url": list(4), "timestamps": [0, 0.5, 2, 9.25]})), 73),
        (url(json!({"url": list(6), "start": 0.5, "end": 2.5})), 73),
        (url(json!({"url": list(9), "max_frames": 4})), 73),
        (url(json!({"url": jpeg_list})), 73),
    ];
    for (part, tokens) in cases {
        let answer = chat(&server, watch(part.clone())).await;
        let part: String = part.to_string().chars().filter(|c| !c.is_control()).take(200).collect();
        assert_eq!(answer["usage"]["prompt_tokens"], tokens, "{part}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_clip_is_said_with_its_field() {
    let server = server(FileAccess::All).await;
    let frame = data_url("red_circle.png");
    let clip = format!("file://{}", picture("../media/motion_64x64_5fps.gif"));
    let cases: Vec<(Value, &str, &str)> = vec![
        (json!({"url": clip, "fps": 0}), "video_url.fps", "must be above 0 and at most 240, not 0"),
        (json!({"url": clip, "fps": "fast"}), "video_url.fps", "invalid type: string"),
        (json!({"url": clip, "max_frames": 0}), "video_url.max_frames", "between 1 and 768, not 0"),
        (json!({"url": clip, "max_frames": -3}), "video_url.max_frames", "invalid value"),
        (json!({"url": clip, "max_frames": 1.5}), "video_url.max_frames", "invalid type"),
        (json!({"url": clip, "start": -1}), "video_url.start", "from 0 on, not -1"),
        (json!({"url": clip, "start": 2, "end": 1}), "video_url.end", "after start, not 1"),
        (json!({"url": clip, "timestamps": [1]}), "video_url.timestamps", "are for a list of frames"),
        (json!({"url": [frame], "timestamps": [1], "fps": 1}), "video_url.fps", "exclude each other"),
        (json!({"url": [frame, 3]}), "video_url.url", "a list of texts"),
        (json!({"url": {"url": clip}}), "video_url.url", "a list of texts"),
        (json!({"fps": 1}), "video_url.url", "missing"),
        (json!({"url": clip, "start": 99}), "", "start is 99 s, but the clip is 2.40 s long"),
        (json!({"url": [frame, frame], "timestamps": [1]}), "", "timestamps has 1 numbers for 2 frames"),
        (json!({"url": [frame, frame], "timestamps": [1, 1]}), "", "timestamps must be ascending"),
        (json!({"url": []}), "", "no frames"),
        (json!({"url": [frame, "data:image/png;base64,aGVsbG8="]}), "", "not an image"),
        (json!({"url": vec!["data:image/png;base64,"; 769]}), "", "769 frames; at most 768"),
        (json!({"url": frame}), "", "still picture"),
        (json!({"url": "data:video/mp4;base64,aGVsbG8="}), "", "not a video"),
        (json!({"url": [frame, "ftp://a/b.png"]}), ", frame 1", "not supported"),
    ];
    for (body, place, message) in cases {
        let (status, text) = post(&server, watch(json!({"type": "video_url", "video_url": body})).to_string()).await;
        let error: Value = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
        let dot = if place.starts_with("video_url") { "." } else { "" };
        let param = format!("messages[0].content[1]{dot}{place}");
        assert_eq!((status.as_u16(), error["param"].as_str()), (400, Some(param.as_str())), "{text}");
        let said = error["message"].as_str().unwrap();
        assert!(said.starts_with(&param) && said.contains(message), "{message:?} in {said}");
    }
    let part = json!({"type": "video", "video": clip, "fps": 0});
    let (_, text) = post(&server, watch(part).to_string()).await;
    assert!(text.contains("messages[0].content[1].fps must be above 0"), "{text}");
    let remote = self::server(FileAccess::None).await;
    for path in [picture("../media"), picture("../media/motion_64x64_5fps.gif")] {
        let (status, text) = post(&remote, watch(json!({"type": "video_url", "video_url": path})).to_string()).await;
        assert_eq!(status.as_u16(), 403, "{text}");
    }
}

#[tokio::test]
async fn every_answer_is_json_but_health_and_metrics() {
    let server = server(FileAccess::All).await;
    let request = |method: Method, path: &str, kind: &str, body: &str| {
        Request::builder().method(method).uri(path).header("content-type", kind).body(Body::from(body.to_string())).unwrap()
    };
    let cases = [
        (request(Method::GET, "/nowhere", "", ""), 404),
        (request(Method::GET, "/v1/chat/completions", "", ""), 405),
        (request(Method::POST, "/v1/chat/completions", "application/json", "{"), 400),
        (request(Method::POST, "/v1/chat/completions", "application/json", "{} x"), 400),
        (request(Method::POST, "/v1/chat/completions", "text/plain", "{}"), 415),
        (request(Method::POST, "/v1/chat/completions", "application/json", &" ".repeat((64 << 20) + 1)), 413),
    ];
    for (request, status) in cases {
        let (found, text) = send(&server, request).await;
        assert_eq!(found.as_u16(), status, "{text}");
        assert!(serde_json::from_str::<Value>(&text).unwrap()["error"]["message"].is_string(), "{text}");
    }
    assert_eq!(send(&server, request(Method::GET, "/health", "", "")).await, (StatusCode::OK, "OK".into()));
    chat(&server, ask(&data_url("red_circle.png"), "What is in this picture?")).await;
    let (status, metrics) = send(&server, request(Method::GET, "/metrics", "", "")).await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "mistralrs_encoder_cache_misses_total 1",
        "mistralrs_media_items_total{type=\"image\"} 1",
        "mistralrs_time_to_first_token_seconds_count 1",
        "mistralrs_http_requests_total{status=\"4xx\"} 6",
        "mistralrs_tokens_processed_total{type=\"prompt\"} 52",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    let (_, models) = send(&server, request(Method::GET, "/v1/models", "", "")).await;
    let models: Value = serde_json::from_str(&models).unwrap();
    let ids: Vec<&Value> = models["data"].as_array().unwrap().iter().map(|card| &card["id"]).collect();
    assert_eq!(ids, ["default", "demo"]);
}
