//! The APIs beside chat completions, over the built-in demo model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use common::{CHAT, answer, ask, base64, data_url, events, load, options, picture, send};
use mistralrs::{Dialect, LoadOptions, ModelSource};
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

const QUESTION: &str = "What is in this picture?";
const COMPLETIONS: &str = "/v1/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

async fn server() -> Router {
    let model = load(LoadOptions { dialect: Some(Dialect::Hermes), ..options(ModelSource::Demo) }).await;
    Server::new(model, Settings::default()).router()
}

/// What chat completions say of the picture; all others are held to it.
async fn expected(server: &Router) -> (String, u64) {
    let content = json!([{"type": "image_url", "image_url": data_url("red_circle.png")}, {"type": "text", "text": QUESTION}]);
    let body = answer(server, CHAT, &json!({"messages": [{"role": "user", "content": content}]})).await;
    (body["choices"][0]["message"]["content"].as_str().unwrap().into(), body["usage"]["prompt_tokens"].as_u64().unwrap())
}

async fn get(server: &Router, method: Method, path: &str) -> (u16, Value) {
    let (status, text) = send(server, Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
    (status.as_u16(), serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn a_prompt_is_continued() {
    let server = server().await;
    let body = json!({"prompt": "What is in", "max_tokens": 6, "logprobs": 2});
    let whole = answer(&server, COMPLETIONS, &body).await;
    let choice = &whole["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert_eq!((&whole["object"], &choice["finish_reason"]), (&json!("text_completion"), &json!("length")));
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(choice["logprobs"]["top_logprobs"][0].as_object().unwrap().len(), 2);
    let said: String =
        events(&server, COMPLETIONS, &body).await.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, text);
    // The same prompt as ids; several prompts, several choices; with the prompt before the answer.
    let ids = answer(&server, "/tokenize", &json!({"prompt": "What is in"})).await;
    assert_eq!(ids["count"], whole["usage"]["prompt_tokens"]);
    let same = answer(&server, COMPLETIONS, &json!({"prompt": ids["tokens"], "max_tokens": 6})).await;
    assert_eq!(same["choices"][0]["text"], text);
    let many = json!({"prompt": ["What is in", "What is in"], "n": 2, "max_tokens": 6, "echo": true});
    let answers = answer(&server, COMPLETIONS, &many).await;
    let texts: Vec<&str> = answers["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, vec![format!("What is in{text}"); 4]);
    assert_eq!(answers["usage"]["completion_tokens"], 24);
    assert_eq!(answers["usage"]["prompt_tokens"], 2 * whole["usage"]["prompt_tokens"].as_u64().unwrap());
    let cases = [
        (json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (json!({"prompt": "a", "echo": true, "logprobs": 1}), "logprobs"),
        (json!({"prompt": "a", "best_of": 1_000_000_000}), "best_of"),
        (json!({"prompt": [99_999_999]}), "prompt"),
        (json!({"prompt": [-1]}), "prompt"),
        (json!({"prompt": []}), "request"),
        (json!({"prompt": "a", "logprobs": 21}), "top_logprobs"),
        (json!({}), "prompt"),
    ];
    for (body, param) in cases {
        let (status, error) = ask(&server, COMPLETIONS, &body).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{body}: {error}");
    }
}

#[tokio::test]
async fn tokens_are_told_and_counted_with_media() {
    let server = server().await;
    let (_, prompt_tokens) = expected(&server).await;
    let text = "a red circle<image>";
    let tokens = answer(&server, "/tokenize", &json!({"content": text, "with_pieces": true})).await;
    assert_eq!(tokens["token_strs"].as_array().unwrap().len(), tokens["count"].as_u64().unwrap() as usize);
    let back = answer(&server, "/detokenize", &json!({"tokens": tokens["tokens"]})).await;
    assert!(back["prompt"].as_str().unwrap().ends_with(text), "{back}");
    let content = json!([{"type": "image_url", "image_url": data_url("red_circle.png")}, {"type": "text", "text": QUESTION}]);
    let chat = json!({"messages": [{"role": "user", "content": content}]});
    let counted = answer(&server, "/v1/chat/completions/input_tokens", &chat).await;
    assert_eq!((&counted["input_tokens"], &counted["fits"]), (&json!(prompt_tokens), &json!(true)));
    let image_tokens = counted["input_tokens_details"]["image_tokens"].as_u64().unwrap();
    assert!(image_tokens > 0 && image_tokens == counted["media"][0]["tokens"].as_u64().unwrap(), "{counted}");
    assert_eq!(answer(&server, "/tokenize", &chat).await["count"], prompt_tokens);
    let (status, error) = ask(&server, "/detokenize", &json!({"tokens": [99_999_999]})).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("tokens")));
}

#[tokio::test]
async fn a_receipt_says_what_became_of_media() {
    let server = server().await;
    let content = json!([{"type": "image_url", "image_url": data_url("red_circle.png")}, {"type": "text", "text": QUESTION}]);
    let body = json!({"messages": [{"role": "user", "content": content}], "return_media": true});
    let first = answer(&server, CHAT, &body).await;
    let receipt = &first["media"][0];
    assert_eq!((&receipt["param"], &receipt["type"]), (&json!("messages[0].content[0]"), &json!("image")));
    assert_eq!(receipt["bytes"], std::fs::metadata(picture("red_circle.png")).unwrap().len());
    assert_eq!(receipt["tokens"], first["usage"]["prompt_tokens_details"]["image_tokens"]);
    assert_eq!(
        (receipt["cached"].clone(), answer(&server, CHAT, &body).await["media"][0]["cached"].clone()),
        (json!(false), json!(true))
    );
}

#[tokio::test]
async fn times_are_told_when_they_are_asked_for() {
    let server = server().await;
    let cases = [
        (CHAT, json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})),
        (CHAT, json!({"messages": "Hello", "max_tokens": 4})),
        ("/v1/completions", json!({"prompt": "Hello", "max_tokens": 4})),
    ];
    for (path, mut body) in cases {
        assert!(answer(&server, path, &body).await["usage"]["total_time_sec"].is_null(), "{body}");
        body["return_timings"] = json!(true);
        let usage = answer(&server, path, &body).await["usage"].clone();
        let seconds = |field: &str| usage[field].as_f64().unwrap();
        assert!(seconds("total_time_sec") >= seconds("total_prompt_time_sec"), "{usage}");
        assert!(seconds("total_prompt_time_sec") > 0.0 && seconds("avg_tok_per_sec") > 0.0, "{usage}");
    }
}

#[tokio::test]
async fn anthropic_messages_say_what_chat_completions_say() {
    let server = server().await;
    let (text, prompt_tokens) = expected(&server).await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": base64("red_circle.png")});
    let content = json!([{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]);
    let body = json!({"model": "default", "max_tokens": 100, "messages": [{"role": "user", "content": content}]});
    let whole = answer(&server, MESSAGES, &body).await;
    assert_eq!(whole["content"], json!([{"type": "text", "text": text}]));
    assert_eq!(
        (&whole["stop_reason"], &whole["role"], &whole["type"]),
        (&json!("end_turn"), &json!("assistant"), &json!("message"))
    );
    let usage = &whole["usage"];
    assert_eq!(usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap(), prompt_tokens);
    assert_eq!(answer(&server, "/v1/messages/count_tokens", &body).await, json!({"input_tokens": prompt_tokens}));
    let events = events(&server, MESSAGES, &body).await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["message_start", "content_block_start", "content_block_delta"]);
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect::<String>(), text);
    let mut stopped = body.clone();
    stopped["stop_sequences"] = json!(["zzz", " red"]);
    let stopped = answer(&server, MESSAGES, &stopped).await;
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(" red")));
}

fn tool() -> Value {
    json!({"type": "object", "properties": {"shape": {"enum": ["circle"]}}, "required": ["shape"]})
}

#[tokio::test]
async fn anthropic_tools_are_called_and_their_results_read() {
    let server = server().await;
    let mut body = json!({
        "max_tokens": 200, "messages": [{"role": "user", "content": "Paint!"}], "system": [{"type": "text", "text": "Be brief."}],
        "tools": [{"name": "paint", "description": "Paints", "input_schema": tool()}], "tool_choice": {"type": "tool", "name": "paint", "disable_parallel_tool_use": true},
    });
    let whole = answer(&server, MESSAGES, &body).await;
    let call = &whole["content"][0];
    assert_eq!(
        (&call["type"], &call["name"], &call["input"]),
        (&json!("tool_use"), &json!("paint"), &json!({"shape": "circle"}))
    );
    assert_eq!(whole["stop_reason"], "tool_use");
    let events = events(&server, MESSAGES, &body).await;
    let json: String = events.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"shape": "circle"}));
    let result = json!([{"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "done"}]}]);
    body["messages"] = json!([
        {"role": "user", "content": "Paint!"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, call]},
        {"role": "user", "content": result},
    ]);
    body["tool_choice"] = json!({"type": "none"});
    assert_eq!(answer(&server, MESSAGES, &body).await["role"], "assistant");
    let image = |source: Value| json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "source": source}]}]);
    let broken = json!({"type": "base64", "media_type": "image/png", "data": "aGVsbG8="});
    let cases = [
        (json!({"messages": image(broken)}), "messages[0].content[1]"),
        (json!({"messages": image(json!({"type": "base64"}))}), "messages[0].content[1].source"),
        (json!({"messages": [{"role": "robot", "content": "a"}]}), "messages[0].role"),
        (json!({"messages": []}), "messages"),
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice"),
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools[0].type"),
        (json!({"stop_sequences": vec!["a"; 17]}), "stop_sequences"),
    ];
    for (extra, param) in cases {
        let mut body = body.clone();
        extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let (status, error) = ask(&server, MESSAGES, &body).await;
        assert_eq!((status, &error["error"]["param"], &error["type"]), (400, &json!(param), &json!("error")), "{error}");
        assert!(error["error"]["message"].as_str().unwrap().starts_with(param), "{error}");
    }
}

#[tokio::test]
async fn responses_say_what_chat_completions_say_and_go_on() {
    let server = server().await;
    let (text, prompt_tokens) = expected(&server).await;
    let content =
        json!([{"type": "input_image", "image_url": data_url("red_circle.png")}, {"type": "input_text", "text": QUESTION}]);
    let body = json!({"model": "default", "input": [{"role": "user", "content": content}]});
    let whole = answer(&server, RESPONSES, &body).await;
    assert_eq!(whole["output"][0]["content"][0]["text"], text);
    assert_eq!((&whole["status"], &whole["object"]), (&json!("completed"), &json!("response")));
    assert_eq!(whole["usage"]["input_tokens"], prompt_tokens);
    let heard = events(&server, RESPONSES, &body).await;
    let kinds: Vec<&str> = heard.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds[..4],
        ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    );
    let last = ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"];
    assert_eq!(kinds[kinds.len() - 4..], last);
    assert!(heard.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
    assert_eq!(heard.iter().filter_map(|event| event["delta"].as_str()).collect::<String>(), text);
    // What was kept is shown, gone on from, and forgotten.
    for id in [&whole["id"], &heard.last().unwrap()["response"]["id"]].map(|id| id.as_str().unwrap()) {
        let path = format!("{RESPONSES}/{id}");
        assert_eq!(get(&server, Method::GET, &path).await.1["output"][0]["content"][0]["text"], text);
        let next = json!({"previous_response_id": id, "input": "And now?", "instructions": "Be brief.", "max_output_tokens": 3});
        let next = answer(&server, RESPONSES, &next).await;
        assert!(next["usage"]["input_tokens"].as_u64().unwrap() > prompt_tokens, "{next}");
        assert_eq!(get(&server, Method::DELETE, &path).await.1["deleted"], true);
        assert_eq!(get(&server, Method::GET, &path).await.0, 404);
    }
    let (status, error) = ask(&server, RESPONSES, &json!({"previous_response_id": whole["id"], "input": "a"})).await;
    assert_eq!((status, &error["error"]["param"]), (404, &json!("previous_response_id")));
    let unkept = answer(&server, RESPONSES, &json!({"input": "a", "store": false, "max_output_tokens": 2})).await;
    assert_eq!((&unkept["status"], &unkept["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("max_output_tokens")));
    assert_eq!(get(&server, Method::GET, &format!("{RESPONSES}/{}", unkept["id"].as_str().unwrap())).await.0, 404);
}

#[tokio::test]
async fn responses_call_tools_in_both_shapes() {
    let server = server().await;
    let flat = json!({"type": "function", "name": "paint", "parameters": tool(), "strict": null});
    let nested = json!({"type": "function", "function": {"name": "paint", "parameters": tool()}});
    for definition in [flat, nested] {
        let body = json!({"input": "Paint!", "tools": [definition], "tool_choice": "required", "parallel_tool_calls": false});
        let whole = answer(&server, RESPONSES, &body).await;
        let call = &whole["output"][0];
        assert_eq!(
            (&call["type"], &call["name"], &call["status"]),
            (&json!("function_call"), &json!("paint"), &json!("completed"))
        );
        assert_eq!(serde_json::from_str::<Value>(call["arguments"].as_str().unwrap()).unwrap(), json!({"shape": "circle"}));
        let result = json!([{"type": "function_call_output", "call_id": call["call_id"], "output": "done"}]);
        let next = json!({"previous_response_id": whole["id"], "input": result, "max_output_tokens": 2});
        assert_eq!(answer(&server, RESPONSES, &next).await["object"], "response");
    }
    let image = json!([{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}]}]);
    let cases = [
        (json!({"input": image, "instructions": "a"}), "input[0].content[0]"),
        (json!({"input": [{"type": "hologram"}]}), "input[0].type"),
        (json!({"input": [{"type": "function_call", "name": "a"}]}), "input[0].arguments"),
        (json!({"input": 3}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": "a", "background": true}), "background"),
        (json!({"input": "a", "tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"input": "a", "text": {"format": {"type": "json_schema"}}}), "text.format"),
        (json!({"input": "a", "max_output_tokens": 0}), "max_output_tokens"),
    ];
    for (body, param) in cases {
        let (status, error) = ask(&server, RESPONSES, &body).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{body}: {error}");
    }
}

#[tokio::test]
async fn what_was_uploaded_is_named_by_its_id() {
    let server = server().await;
    let (text, _) = expected(&server).await;
    let file = std::fs::read(picture("red_circle.png")).unwrap();
    let upload = Request::post("/v1/media").header("content-type", "image/png").body(Body::from(file)).unwrap();
    let (_, uploaded) = send(&server, upload).await;
    let uploaded: Value = serde_json::from_str(&uploaded).unwrap();
    let path = format!("/v1/media/{}", uploaded["id"].as_str().unwrap());
    assert_eq!(get(&server, Method::GET, &path).await.1["bytes"], uploaded["bytes"]);
    let content = json!([{"type": "image_url", "image_url": {"url": uploaded["url"]}}, {"type": "text", "text": QUESTION}]);
    let body = json!({"messages": [{"role": "user", "content": content}]});
    assert_eq!(answer(&server, CHAT, &body).await["choices"][0]["message"]["content"], text);
    assert_eq!(get(&server, Method::DELETE, &path).await.1["deleted"], true);
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(get(&server, method.clone(), &path).await.0, 404);
        assert_eq!(get(&server, method, "/v1/media/%ff").await.0, 404);
    }
    let (status, error) = ask(&server, CHAT, &body).await;
    assert_eq!((status, &error["error"]["param"]), (400, &json!("messages[0].content[0]")));
}

/// A form with one file.
fn form(file: &[u8], fields: &[(&str, &str)]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes());
    }
    body.extend(b"--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../a.wav\"\r\n\r\n");
    body.extend(file);
    body.extend(b"\r\n--edge--\r\n");
    let request = Request::post("/v1/audio/transcriptions").header("content-type", "multipart/form-data; boundary=edge");
    request.body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn a_sound_is_written_down() {
    let model = load(LoadOptions { context_max: Some(160), ..options(ModelSource::Folder(fixtures::model("voxtral").unwrap())) });
    let server = Server::new(model.await, Settings::default()).router();
    let sound = std::fs::read(fixtures::root().join("media/speech_16k.wav")).unwrap();
    let (status, text) = send(&server, form(&sound, &[("model", "default"), ("language", "en")])).await;
    let heard: Value = serde_json::from_str(&text).unwrap();
    assert!(status == 200 && heard["text"].is_string(), "{text}");
    assert!(heard["usage"]["input_token_details"]["audio_tokens"].as_u64().unwrap() > 0, "{text}");
    let (_, plain) = send(&server, form(&sound, &[("response_format", "text"), ("language", "en")])).await;
    assert_eq!(plain.trim_end(), heard["text"]);
    let cases = [
        (form(&sound, &[("response_format", "srt")]), "response_format"),
        (form(&sound, &[("stream", "true")]), "stream"),
        (form(&sound, &[("temperature", "hot")]), "temperature"),
        (form(b"no sound", &[]), "file"),
    ];
    for (request, param) in cases {
        let (status, text) = send(&server, request).await;
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status.as_u16(), &error["error"]["param"]), (400, &json!(param)), "{text}");
    }
    let cut = Request::post("/v1/audio/transcriptions").header("content-type", "multipart/form-data; boundary=edge");
    assert_eq!(send(&server, cut.body(Body::from("--edge\r\nContent-Dis")).unwrap()).await.0, 400);
    assert_eq!(ask(&server, "/v1/audio/transcriptions", &json!({})).await.0, 415);
}

#[tokio::test]
async fn a_picture_is_shown_as_it_is_wanted_and_the_receipt_says_so() {
    let server = &server().await;
    let data = base64("four_shapes.png");
    let url = format!("data:image/png;base64,{data}");
    let chat = |part: Value| json!({"messages": [{"role": "user", "content": [part]}], "return_media": true, "max_tokens": 1});
    let wanted = |options: Value| {
        let mut body = json!({"url": url});
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        chat(json!({"type": "image_url", "image_url": body}))
    };
    let whole = answer(server, CHAT, &wanted(json!({}))).await["media"][0].clone();
    let small = answer(server, CHAT, &wanted(json!({"max_edge": 32}))).await["media"][0].clone();
    assert_eq!((&small["views"], &small["tokens"]), (&json!([[28, 28]]), &json!(1)));
    assert_eq!(small["size"], whole["size"]);
    // The other spellings say the same.
    let beside = chat(json!({"type": "input_image", "image_url": url, "max_edge": 32}));
    assert_eq!(answer(server, CHAT, &beside).await["media"][0]["views"], small["views"]);
    let source = json!({"type": "base64", "media_type": "image/png", "data": data});
    let block = json!({"type": "image", "source": source, "max_edge": 32});
    let counted = json!({"messages": [{"role": "user", "content": [block]}]});
    let plain = json!({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]});
    let [all, reduced] = [plain, counted].map(|body| async move { answer(server, "/v1/messages/count_tokens", &body).await });
    let [all, reduced] = [all.await, reduced.await].map(|counted| counted["input_tokens"].as_u64().unwrap());
    assert_eq!(all - reduced, whole["tokens"].as_u64().unwrap() - small["tokens"].as_u64().unwrap());
    let (status, few) = ask(server, CHAT, &wanted(json!({"max_tokens": 1, "min_pixels": 90_000}))).await;
    assert_eq!((status, &few["media"][0]["tokens"]), (200, &json!(1)), "a limit goes before what is wanted at least");
    // Options that cannot be kept are refused by their place.
    let cases = [
        (json!({"max_pixels": 0}), "messages[0].content[0].image_url.max_pixels"),
        (json!({"min_pixels": 9, "max_pixels": 8}), "messages[0].content[0].image_url.min_pixels"),
        (json!({"detail": "medium"}), "messages[0].content[0].image_url.detail"),
    ];
    for (options, param) in cases {
        let (status, answer) = ask(server, CHAT, &wanted(options)).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
}
