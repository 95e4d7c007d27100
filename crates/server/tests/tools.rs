//! Functions that a model calls, over the built-in demo model: it has never heard of any, so a constraint makes it call them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use common::{CHAT, load, options, request, send};
use mistralrs::{Dialect, LoadOptions, ModelSource};
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

async fn server(dialect: Dialect) -> Router {
    let model = load(LoadOptions { dialect: Some(dialect), ..options(ModelSource::Demo) }).await;
    Server::new(model, Settings::default()).router()
}

async fn post(server: &Router, body: &Value) -> (u16, String) {
    let (status, text) = send(server, request(CHAT, body.to_string())).await;
    (status.as_u16(), text)
}

async fn choice(server: &Router, body: &Value) -> Value {
    let (status, text) = post(server, body).await;
    assert_eq!(status, 200, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["choices"][0].clone()
}

/// Calls and words, put together from a stream's pieces.
async fn streamed(server: &Router, body: &Value) -> (Vec<(String, String)>, String) {
    let mut body = body.clone();
    body["stream"] = true.into();
    let (_, text) = post(server, &body).await;
    let (mut calls, mut words): (Vec<(String, String)>, String) = Default::default();
    for chunk in text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let delta = serde_json::from_str::<Value>(chunk).unwrap()["choices"][0]["delta"].clone();
        words += delta["content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = call["index"].as_u64().unwrap() as usize;
            if let Some(name) = call["function"]["name"].as_str() {
                assert!(at == calls.len() && call["id"].as_str().is_some_and(|id| id.len() == 9), "{call}");
                calls.push((name.into(), String::new()));
            }
            calls[at].1 += call["function"]["arguments"].as_str().unwrap();
        }
    }
    (calls, words)
}

fn tools() -> Value {
    let paint = json!({
        "type": "object",
        "properties": {
            "shape": {"enum": ["circle", "the \"square\""]},
            "count": {"type": "integer", "minimum": 3, "maximum": 7},
            "code": {"type": "string", "pattern": "^[a-c]{2}<?$"},
            "note": {"type": "string", "maxLength": 5},
            "more": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
            "deep": {
                "type": "object",
                "properties": {"x": {"$ref": "#/$defs/x"}},
                "required": ["x"],
                "additionalProperties": false,
            },
        },
        "required": ["shape", "count", "code", "more", "deep"],
        "$defs": {"x": {"anyOf": [{"type": "null"}, {"const": "é"}]}},
    });
    let tool = |name: &str, parameters: &Value| json!({"type": "function", "function": {"name": name, "strict": true, "parameters": parameters}});
    json!([tool("paint.it", &paint), tool("stop", &json!({"type": "object", "properties": {}}))])
}

/// Whether arguments are what the first tool takes.
fn check(arguments: &str, context: &str) {
    let value: Value = serde_json::from_str(arguments).unwrap_or_else(|e| panic!("{context}: {arguments}: {e}"));
    let code = value["code"].as_str().unwrap_or_default();
    let letters = code.strip_suffix('<').unwrap_or(code);
    let more = value["more"].as_array().map_or(0, |more| more.iter().filter(|item| item.is_boolean()).count());
    let valid = (value["shape"] == "circle" || value["shape"] == "the \"square\"")
        && value["count"].as_u64().is_some_and(|count| (3..=7).contains(&count))
        && letters.len() == 2
        && letters.bytes().all(|b| (b'a'..=b'c').contains(&b))
        && value.get("note").is_none_or(|note| note.as_str().is_some_and(|note| note.chars().count() <= 5))
        && (1..=2).contains(&more)
        && value["deep"].as_object().is_some_and(|deep| deep.len() == 1)
        && (value["deep"]["x"].is_null() || value["deep"]["x"] == "é");
    assert!(valid, "{context}: {arguments}");
}

#[tokio::test]
async fn a_model_calls_what_it_has_to_in_every_notation() {
    for dialect in Dialect::ALL {
        let server = server(dialect).await;
        for seed in 0..4 {
            let body = json!({
                "messages": [{"role": "user", "content": "Paint!"}],
                "tools": tools(),
                "tool_choice": {"type": "function", "function": {"name": "paint.it"}},
                "parallel_tool_calls": false,
                "temperature": if seed == 0 { 0.0 } else { 1.5 },
                "seed": seed,
                "max_tokens": 800,
            });
            let context = format!("{dialect:?} {seed}");
            let choice = choice(&server, &body).await;
            assert_eq!(choice["finish_reason"], "tool_calls", "{context}: {choice}");
            let calls = choice["message"]["tool_calls"].as_array().unwrap();
            assert!(calls.len() == 1 && calls[0]["type"] == "function" && choice["message"]["content"].is_null(), "{choice}");
            let function = &calls[0]["function"];
            assert_eq!(function["name"], "paint.it");
            let arguments = function["arguments"].as_str().unwrap();
            check(arguments, &context);
            let (pieces, words) = streamed(&server, &body).await;
            assert_eq!((pieces, words.as_str()), (vec![("paint.it".to_string(), arguments.to_string())], ""), "{context}");
        }
    }
}

#[tokio::test]
async fn strict_tools_bind_only_calls() {
    for dialect in Dialect::ALL {
        let server = server(dialect).await;
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 40});
        let free = choice(&server, &body).await["message"]["content"].clone();
        let mut offered = body.clone();
        offered["tools"] = tools();
        offered["tool_choice"] = "none".into();
        assert_eq!(choice(&server, &offered).await["message"]["content"], free, "{dialect:?}");
        offered["tool_choice"] = "auto".into();
        let bound = choice(&server, &offered).await;
        assert!(bound["message"]["content"].is_string() && bound["message"].get("tool_calls").is_none(), "{dialect:?}: {bound}");
    }
}

#[tokio::test]
async fn the_results_of_calls_are_read() {
    let server = server(Dialect::Json).await;
    let body = json!({
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {"name": "stop", "arguments": "{\"a\": 1}"}},
                {"function": 3}, "neither",
            ]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "done"},
            {"role": "user", "content": "hello"},
        ],
        "tools": tools(),
        "max_tokens": 5,
    });
    assert!(choice(&server, &body).await["message"]["content"].is_string());
}

#[tokio::test]
async fn what_is_wrong_with_tools_is_said_with_its_place() {
    let server = server(Dialect::Quoted).await;
    let tool = |parameters: Value| json!([{"function": {"name": "f", "strict": true, "parameters": parameters}}]);
    let field = |schema: Value| tool(json!({"type": "object", "properties": {"a": schema}, "required": ["a"]}));
    let cases = [
        (json!({"tools": [{"type": "web"}]}), "tools[0]", "must be function"),
        (json!({"tools": [{"function": {"name": ""}}]}), "tools[0]", "1 to 64"),
        (json!({"tool_choice": "required"}), "tool_choice", "no tools"),
        (json!({"tool_choice": "sometimes"}), "tool_choice", "must be"),
        (json!({"tools": tools(), "tool_choice": {"name": "fly"}}), "tool_choice", "\"fly\""),
        (json!({"tools": field(json!({"type": "strnig"}))}), "tools", "strnig"),
        (json!({"tools": field(json!({"$ref": "https://example.com/x"}))}), "tools", "refers to nothing"),
        (json!({"tools": field(json!({"type": "string", "pattern": "("}))}), "tools", "grammar"),
        (json!({"tools": field(json!({"type": "array", "minItems": 100000000u64}))}), "tools", "items"),
        (json!({"tools": field(json!({"allOf": [{}, {}]}))}), "tools", "allOf"),
        (json!({"tools": tools(), "grammar": {"type": "lark", "value": "start: \"a\""}}), "tools", "combined"),
        (json!({"enable_thinking": true, "reasoning_effort": "none"}), "reasoning_effort", "contradict"),
    ];
    for (extra, param, message) in cases {
        let mut body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5});
        extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
        let (status, text) = post(&server, &body).await;
        let error = serde_json::from_str::<Value>(&text).unwrap()["error"].clone();
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{extra}: {text}");
        let said = error["message"].as_str().unwrap();
        assert!(said.contains(message) && !said.contains('\n'), "{extra}: {said}");
    }
}
