//! Functions that run here when the demo model calls them, in the words of every API.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use axum::Router;
use common::{CHAT, answer, ask, data_url, events, load, options, request, send};
use mistralrs::{
    ControlTokens, Dialect, LoadOptions, Model, ModelSource, Reach, ServerTool, Source, ToolBox, ToolOutput, WebSearch,
};
use mistralrs_server::{Server, Settings};
use serde_json::{Value, json};

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// What the model says when it has called enough.
const SAID: &str = "done [1]";

async fn model() -> Model {
    load(LoadOptions { dialect: Some(Dialect::Json), ..options(ModelSource::Demo) }).await
}

fn settings() -> Settings {
    let number = json!({"n": {"enum": [1, 2]}});
    let parameters = json!({"type": "object", "properties": number, "required": ["n"], "additionalProperties": false});
    let definition = json!({"name": "look", "description": "", "parameters": parameters});
    let picture = std::fs::read(common::picture("red_circle.png")).unwrap();
    let look = ServerTool::new(&definition, move |_| {
        let output = ToolOutput { text: "a circle".into(), pictures: vec![picture.clone()], ..ToolOutput::default() };
        std::future::ready(Ok(output))
    });
    let found = Source { url: "http://127.0.0.1:1/".into(), title: "T".into(), text: "known".into() };
    let web = WebSearch::new(Reach::Public { and: Vec::new() }, move |_| std::future::ready(Ok(vec![found.clone()])));
    Settings { tools: ToolBox::default().with(look.unwrap()).unwrap(), web_search: Some(web.unwrap()), ..Settings::default() }
}

async fn server(settings: Settings) -> Router {
    Server::new(model().await, settings).router()
}

/// Fields that make the model call a function first, and say [`SAID`] then.
async fn steering(function: Value) -> Value {
    let model = model().await;
    let [empty, done, quote] = ["", "done", "\""].map(|text| model.tokenize(text.into(), ControlTokens::Included));
    let (empty, done, quote) = (empty.await.unwrap().len(), done.await.unwrap(), quote.await.unwrap());
    json!({
        "tool_choice": function, "parallel_tool_calls": false, "grammar": {"type": "choice", "value": [SAID]},
        "logit_bias": {done[empty].to_string(): 90, quote[empty].to_string(): 100},
    })
}

fn merged(body: Value, more: &Value) -> Value {
    let fields = body.as_object().unwrap().iter().chain(more.as_object().unwrap());
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

async fn chat(function: &str) -> Value {
    let steering = steering(json!({"type": "function", "function": {"name": function}})).await;
    merged(json!({"messages": [{"role": "user", "content": "Go!"}], "max_tokens": 400}), &steering)
}

async fn response(choice: Value) -> Value {
    merged(json!({"input": "Go!", "max_output_tokens": 400}), &steering(choice).await)
}

#[tokio::test]
async fn chat_completions_tell_what_ran() {
    let server = server(settings()).await;
    let body = chat("look").await;
    let whole = answer(&server, CHAT, &body).await;
    let choice = &whole["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(SAID), &json!("stop")), "{whole}");
    assert!(choice["message"].get("tool_calls").is_none() && choice["message"].get("annotations").is_none(), "{whole}");
    let [run] = whole["agentic_tool_calls"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!((&run["round"], &run["name"], &run["result_content"]), (&json!(0), &json!("look"), &json!("a circle")));
    let data = data_url("red_circle.png");
    assert!(data.ends_with(run["result_images_base64"][0].as_str().unwrap()) && run["arguments"].is_string(), "{run}");
    let all = events(&server, CHAT, &body).await;
    // Clients that know nothing of these events take them for chunks without choices.
    assert!(all.iter().all(|event| event["object"] == "chat.completion.chunk" && event["choices"].is_array()), "{all:?}");
    let phases: Vec<_> = all.iter().filter(|event| event["type"] == "agentic_tool_call_progress").collect();
    let [calling, complete] = phases.as_slice() else { panic!("{phases:?}") };
    let expected = json!({"tool_type": "custom", "arguments": run["arguments"]});
    assert_eq!((&calling["phase"], &calling["tool_name"], &calling["data"]), (&json!("calling"), &json!("look"), &expected));
    assert_eq!((&complete["phase"], &complete["data"]["content"]), (&json!("complete"), &json!("a circle")));
    let (_, text) = send(&server, request(CHAT, merged(body, &json!({"stream": true})).to_string())).await;
    assert_eq!(text.matches("event: agentic_tool_call_progress\n").count(), 2);
}

#[tokio::test]
async fn the_web_is_searched_for_who_asks_for_it() {
    let server = server(settings()).await;
    let options = json!({"web_search_options": {"search_context_size": "low", "user_location": {
        "type": "approximate", "approximate": {"city": "Berlin", "country": "DE"},
    }}});
    let body = merged(chat("web_search").await, &options);
    let whole = answer(&server, CHAT, &body).await;
    let cited = json!({"url": "http://127.0.0.1:1/", "title": "T", "start_index": 5, "end_index": 8});
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["annotations"], json!([{"type": "url_citation", "url_citation": cited}]), "{whole}");
    let all = events(&server, CHAT, &body).await;
    let annotated: Vec<_> = all.iter().filter_map(|event| event["choices"][0]["delta"].get("annotations")).collect();
    assert_eq!(annotated, [&message["annotations"]]);
    let searched = all.iter().find(|event| event["phase"] == "complete").unwrap();
    assert_eq!((&searched["data"]["tool_type"], &searched["data"]["results_count"]), (&json!("web_search"), &json!(1)));
    let refused = [
        (json!({"web_search_options": {"search_context_size": "all"}}), "web_search_options.search_context_size"),
        (json!({"web_search_options": {"filters": {"allowed_domains": [1]}}}), "web_search_options.filters.allowed_domains"),
    ];
    for (extra, param) in refused {
        let (status, error) = ask(&server, CHAT, &merged(body.clone(), &extra)).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
    }
    let blind = self::server(Settings { web_search: None, ..settings() }).await;
    let web = json!([{"type": "web_search_preview"}]);
    for (path, body, param) in [
        (CHAT, body, "web_search_options"),
        (RESPONSES, json!({"input": "Go!", "tools": web}), "tools[0].type"),
        (MESSAGES, json!({"messages": [{"role": "user", "content": "Go!"}], "max_tokens": 5, "tools": web}), "tools[0].type"),
    ] {
        let (status, error) = ask(&blind, path, &body).await;
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{error}");
        assert!(error["error"]["message"].as_str().unwrap().contains("--search-url"), "{error}");
    }
}

#[tokio::test]
async fn responses_have_an_item_for_what_ran() {
    let server = server(settings()).await;
    let body = response(json!({"type": "function", "name": "look"})).await;
    let whole = answer(&server, RESPONSES, &body).await;
    let [call, message] = whole["output"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!((&call["type"], &call["status"], &call["output"]), (&json!("mcp_call"), &json!("completed"), &json!("a circle")));
    assert_eq!((&message["content"][0]["text"], &whole["status"]), (&json!(SAID), &json!("completed")), "{whole}");
    // It goes on from there, by its id and item by item.
    let next = json!({"previous_response_id": whole["id"], "input": "And?", "max_output_tokens": 2});
    assert!(answer(&server, RESPONSES, &next).await["output"].is_array());
    let sent_back = json!({"input": [{"role": "user", "content": "Go!"}, call, message, {"role": "user", "content": "And?"}]});
    assert!(answer(&server, RESPONSES, &merged(sent_back, &json!({"max_output_tokens": 2}))).await["output"].is_array());

    let body = merged(response(json!({"type": "web_search"})).await, &json!({"tools": [{"type": "web_search"}]}));
    let whole = answer(&server, RESPONSES, &body).await;
    let [call, message] = whole["output"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!((&call["type"], &call["action"]["type"]), (&json!("web_search_call"), &json!("search")));
    let annotation = &message["content"][0]["annotations"][0];
    assert_eq!(
        (&annotation["type"], &annotation["start_index"], &annotation["end_index"]),
        (&json!("url_citation"), &json!(5), &json!(8))
    );
    let all = events(&server, RESPONSES, &body).await;
    let numbers: Vec<u64> = all.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    let told: Vec<&str> =
        all.iter().map(|event| event["type"].as_str().unwrap()).filter(|kind| !kind.contains("delta")).collect();
    assert_eq!(
        told,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.web_search_call.in_progress",
            "response.web_search_call.searching",
            "response.web_search_call.completed",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.annotation.added",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let last = &all.last().unwrap()["response"]["output"];
    assert_eq!(last[1]["content"][0]["annotations"], message["content"][0]["annotations"]);
}

#[tokio::test]
async fn rounds_that_are_too_many_are_told_as_each_api_can() {
    let none = server(Settings { tool_rounds_max: 0, ..settings() }).await;
    let some = server(settings()).await;
    let body = chat("look").await;
    for (server, extra) in [(&none, json!({"max_tool_rounds": 5})), (&some, json!({"max_tool_rounds": 0}))] {
        let whole = answer(server, CHAT, &merged(body.clone(), &extra)).await;
        let choice = &whole["choices"][0];
        assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("length"), &json!("max_tool_rounds")), "{whole}");
        assert!(whole["agentic_tool_calls"][0]["result_content"].as_str().unwrap().starts_with("not run: "), "{whole}");
    }
    let whole = answer(&none, RESPONSES, &response(json!({"type": "function", "name": "look"})).await).await;
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_tool_calls")),
        "{whole}"
    );
    assert_eq!(whole["output"][0]["status"], "failed");
    let choice = json!({"type": "tool", "name": "look", "disable_parallel_tool_use": true});
    let body = json!({"messages": [{"role": "user", "content": "Go!"}], "max_tokens": 400, "tool_choice": choice});
    assert_eq!(answer(&none, MESSAGES, &body).await["stop_reason"], "pause_turn");
}

#[tokio::test]
async fn a_model_s_card_counts_what_it_may_call() {
    for (settings, available) in [(settings(), true), (Settings::default(), false)] {
        let (_, text) = send(&server(settings).await, axum::http::Request::get("/v1/models").body("".into()).unwrap()).await;
        let card = serde_json::from_str::<Value>(&text).unwrap()["data"][0].clone();
        assert_eq!(
            (&card["tools_available"], &card["mcp_tools_count"], &card["mcp_servers_connected"]),
            (&json!(available), &json!(0), &json!(0))
        );
    }
}
