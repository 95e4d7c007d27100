//! Functions that run here: how requests ask for them, and what is told of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mistralrs::{Citation, SearchContext, ToolKind, ToolProgress, ToolRun, WebSearchOptions};
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// What a search of the web is wanted of, and where a body says so.
pub type Web = Option<(WebSearchOptions, String)>;

/// Tools, and their places in a body.
pub type Others<'a> = Vec<(String, &'a Value)>;

/// The tools of a body and their places: a search of the web, and all others.
///
/// # Errors
/// What is wanted of the search makes no sense.
pub fn split(tools: &[Value]) -> Result<(Web, Others<'_>), Refusal> {
    let (mut web, mut others) = (None, Vec::new());
    for (i, tool) in tools.iter().enumerate() {
        let at = format!("tools[{i}]");
        // Its types end with the date of a version.
        if tool["type"].as_str().is_some_and(|kind| kind.starts_with("web_search")) {
            web = Some((web_search(tool, &at)?, format!("{at}.type")));
        } else {
            others.push((at, tool));
        }
    }
    Ok((web, others))
}

/// How the web is to be searched, in the words of chat completions, responses or messages.
///
/// # Errors
/// A field is not what it should be.
pub fn web_search(body: &Value, at: &str) -> Result<WebSearchOptions, Refusal> {
    let refuse = |field: &str, reason: &str| Refusal::invalid(format!("{at}.{field}"), format!("{at}.{field} {reason}"));
    let context = match &body["search_context_size"] {
        Value::Null => SearchContext::default(),
        size if size == "low" => SearchContext::Low,
        size if size == "medium" => SearchContext::Medium,
        size if size == "high" => SearchContext::High,
        _ => return Err(refuse("search_context_size", "must be low, medium or high")),
    };
    let place = &body["user_location"];
    let place = if place["approximate"].is_object() { &place["approximate"] } else { place };
    let place: Vec<&str> = ["city", "region", "country"].iter().filter_map(|field| place[field].as_str()).collect();
    let (field, domains) = match &body["filters"]["allowed_domains"] {
        Value::Null => ("allowed_domains", &body["allowed_domains"]),
        domains => ("filters.allowed_domains", domains),
    };
    let domain = |domain: &Value| domain.as_str().map(str::to_string);
    let domains = match domains {
        Value::Null => Some(Vec::new()),
        Value::Array(domains) => domains.iter().map(domain).collect(),
        _ => None,
    };
    let text = |field: &str| body[field].as_str().map(str::to_string);
    Ok(WebSearchOptions {
        context,
        location: (!place.is_empty()).then(|| place.join(", ")),
        domains: domains.ok_or_else(|| refuse(field, "must be a list of texts"))?,
        search_description: text("search_description"),
        page_description: text("extract_description"),
    })
}

/// `agentic_tool_call_progress`.
pub fn progress(progress: &ToolProgress) -> Value {
    let (round, call, kind) = match progress {
        ToolProgress::Begun { round, call, kind } => (round, call, kind),
        ToolProgress::Ended(run) => (&run.round, &run.call, &run.kind),
    };
    let mut data = match kind {
        ToolKind::WebSearch => json!({"tool_type": "web_search", "query": argument(&call.arguments, "query")}),
        ToolKind::Custom | ToolKind::WebPage | ToolKind::Mcp(_) => {
            json!({"tool_type": "custom", "arguments": call.arguments})
        }
    };
    let phase = match progress {
        ToolProgress::Begun { .. } => "calling",
        ToolProgress::Ended(run) => {
            match kind {
                ToolKind::WebSearch => data["results_count"] = json!(run.sources.len()),
                _ => data["content"] = json!(run.text),
            }
            "complete"
        }
    };
    json!({
        "type": "agentic_tool_call_progress", "round": round, "tool_name": call.name, "tool_call_id": call.id, "phase": phase,
        "data": data,
    })
}

/// One of `agentic_tool_calls`.
pub fn record(run: &ToolRun) -> Value {
    let pictures: Vec<String> = run.pictures.iter().map(|picture| STANDARD.encode(picture)).collect();
    json!({
        "round": run.round, "name": run.call.name, "arguments": run.call.arguments, "result_content": run.text,
        "result_images_base64": pictures,
    })
}

/// A reference to a page.
pub fn citation(citation: &Citation) -> Value {
    json!({"url": citation.url, "title": citation.title, "start_index": citation.start, "end_index": citation.end})
}

/// A text among a call's arguments.
pub fn argument(arguments: &str, name: &str) -> Value {
    serde_json::from_str::<Value>(arguments).map_or(Value::Null, |arguments| arguments[name].clone())
}
