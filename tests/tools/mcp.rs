use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mistralrs::{Mcp, McpConfig, ToolKind, ToolOutput};
use serde_json::{Value, json};

use super::{calling, demo, only_run, picture, serving};

fn functions() -> Value {
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    let function = |name: &str| json!({"name": name, "description": format!("It is {name}"), "inputSchema": none});
    let broken = json!({"name": "broken", "inputSchema": {"type": "array"}});
    json!([function("say"), function("see"), function("fail"), function("hang"), function("die"), function("more"), broken])
}

/// What a call of a function comes to.
fn result(function: &str) -> Value {
    let text = |text: &str| json!({"type": "text", "text": text});
    let content = match function {
        "see" => {
            json!([text("look"), {"type": "image", "mimeType": "image/png", "data": STANDARD.encode(picture("red_circle.png"))}])
        }
        "fail" => return json!({"content": [text("it is broken")], "isError": true}),
        "more" => json!([
            text("a"), {"type": "resource_link", "uri": "file:///x", "name": "x"},
            {"type": "resource", "resource": {"uri": "file:///y", "text": "what is in y"}},
            {"type": "audio", "mimeType": "audio/wav", "data": ""},
        ]),
        _ => json!([text("hello")]),
    };
    json!({"content": content})
}

fn initialized(version: &Value) -> Value {
    json!({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "stub", "version": "1"}})
}

/// An MCP server over HTTP, which answers as JSON or as events.
fn over_http(events: bool) -> Router {
    let alive = Arc::new(AtomicUsize::new(0));
    let handle = async move |headers: HeaderMap, Json(message): Json<Value>| -> Response {
        if headers.get("authorization").is_none_or(|token| token != "Bearer secret") || headers["x-more"] != "1" {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let reply = match message["method"].as_str().unwrap_or_default() {
            "initialize" => initialized(&message["params"]["protocolVersion"]),
            "tools/list" => json!({"tools": functions()}),
            "tools/call" => match message["params"]["name"].as_str().unwrap() {
                "hang" => std::future::pending().await,
                "die" if alive.fetch_add(1, Ordering::SeqCst) == 0 => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                name => result(name),
            },
            _ => return StatusCode::ACCEPTED.into_response(),
        };
        let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": reply}).to_string();
        if events {
            ([("content-type", "text/event-stream")], format!("event: message\ndata: {reply}\n\n")).into_response()
        } else {
            ([("content-type", "application/json")], reply).into_response()
        }
    };
    Router::new().route("/mcp", post(handle))
}

fn http_server(name: &str, address: &str) -> Value {
    let source = json!({"type": "Http", "url": format!("http://{address}/mcp"), "headers": {"x-more": "1"}});
    json!({"name": name, "bearer_token": "secret", "source": source})
}

/// An MCP server that is a program: a shell, which needs nothing but sed.
#[cfg(unix)]
fn program() -> Value {
    const SCRIPT: &str = r#"
        echo "not a message"
        while read -r line; do
            id=$(printf %s "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
            name=$(printf %s "$line" | sed 's/.*"name":"\([a-z]*\)".*/\1/')
            case "$line" in
                *'"method":"initialize"'*) result=$INITIALIZED ;;
                *'"method":"tools/list"'*) result=$FUNCTIONS ;;
                *'"method":"tools/call"'*)
                    case "$name" in
                        hang) continue ;;
                        die) exit 3 ;;
                        *) eval "result=\$RESULT_$name" ;;
                    esac ;;
                *) continue ;;
            esac
            printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
        done
    "#;
    let mut env = json!({"INITIALIZED": initialized(&json!("2025-03-26")).to_string(), "FUNCTIONS": json!({"tools": functions()}).to_string()});
    for function in ["say", "see", "fail", "more"] {
        env[format!("RESULT_{function}")] = json!(result(function).to_string());
    }
    json!({"type": "Process", "command": "sh", "args": ["-c", SCRIPT], "env": env, "work_dir": "/"})
}

async fn connect(servers: Value) -> Mcp {
    let config = json!({"servers": servers, "tool_timeout_secs": 1});
    Mcp::connect(&config.to_string().parse::<McpConfig>().unwrap()).await
}

/// What all servers have to bear, whatever they are reached by.
async fn check(mcp: &Mcp, prefix: &str) {
    let call = async |function: &str| match mcp.tools.get(&format!("{prefix}{function}")) {
        Some(tool) => tool.call("{}").await,
        None => panic!("{prefix}{function} is missing: {mcp:?}"),
    };
    let seen = ToolOutput { text: "look".into(), pictures: vec![picture("red_circle.png")], ..ToolOutput::default() };
    let more = "a\nx: file:///x\nfile:///y:\nwhat is in y\n(a sound, which is not played here)";
    let cases = [
        ("say", Ok("hello".into())),
        ("see", Ok(seen)),
        ("fail", Err("it is broken")),
        ("hang", Err("it took longer than 1 s")),
        ("more", Ok(more.into())),
        ("die", Err("")),
        ("say", Ok("hello".into())),
    ];
    for (function, expected) in cases {
        match (call(function).await, expected) {
            (Ok(output), Ok(expected)) => assert_eq!(output, expected, "{prefix}{function}"),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{prefix}{function}: {reason}"),
            (result, _) => panic!("{prefix}{function}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn servers_over_http_are_asked_and_survived() {
    for events in [false, true] {
        let address = serving(|_| over_http(events)).await;
        let mcp = connect(json!([http_server("stub", &address)])).await;
        assert_eq!((mcp.servers, mcp.tools.len()), (1, 6), "{mcp:?}");
        assert!(matches!(mcp.warnings.as_slice(), [one] if one.starts_with("MCP server stub: broken: ")), "{mcp:?}");
        assert!(mcp.tools.iter().all(|tool| *tool.kind() == ToolKind::Mcp("stub".into())));
        check(&mcp, "stub_").await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn servers_that_are_programs_are_asked_and_survived() {
    let mcp = connect(json!([{"name": "shell", "tool_prefix": "", "source": program()}])).await;
    assert_eq!((mcp.servers, mcp.tools.len()), (1, 6), "{mcp:?}");
    check(&mcp, "").await;
}

#[tokio::test]
async fn servers_that_do_not_answer_are_left_out() {
    let address = serving(|_| over_http(false)).await;
    let mut locked = http_server("locked", &address);
    locked["bearer_token"] = json!("wrong");
    let mut off = http_server("off", &address);
    off["enabled"] = json!(false);
    let missing = json!({"name": "missing", "source": {"type": "Process", "command": "/no/such/program"}});
    let mute = json!({"name": "mute", "source": {"type": "Process", "command": "true"}});
    let nobody = http_server("nobody", "127.0.0.1:1");
    let again = http_server("good", &address);
    let mcp = connect(json!([locked, off, missing, mute, nobody, http_server("good", &address), again])).await;
    assert_eq!((mcp.servers, mcp.tools.len()), (2, 6), "{mcp:?}");
    let of = |name: &str| mcp.warnings.iter().filter(|warning| warning.starts_with(&format!("MCP server {name}: "))).count();
    let counts = ["locked", "off", "missing", "mute", "nobody", "good"].map(of);
    // Of two servers of one name, the second's functions cannot be told from the first's; and one of each is none.
    assert_eq!(counts, [1, 0, 1, 1, 1, 8], "{:?}", mcp.warnings);
}

#[tokio::test]
async fn models_call_functions_of_servers() {
    let address = serving(|_| over_http(true)).await;
    let mcp = connect(json!([http_server("stub", &address)])).await;
    let model = demo().await;
    let answer = model.answer(&calling(&model, "stub_see", mcp.tools).await).await.unwrap();
    let run = only_run(&answer);
    assert_eq!((run.text.as_str(), run.pictures.len()), ("look", 1));
}
