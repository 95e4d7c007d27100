//! POST /v1/messages and /v1/messages/count_tokens: Anthropic's messages.

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use mistralrs::{
    Answer, AnswerStream, CallDelta, ChatRequest, Delta, Finish, MediaSource, Message, Part, Sampling, Summary, ToolChoice, Usage,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::options::{self, check_stops};
use wire::read::read_as;
use wire::{content, image, tooling};

use crate::answers::{Wire, named};
use crate::app::App;
use crate::error::Failure;
use crate::payload::Json;
use crate::places::Places;

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct MessagesBody {
    model: Option<String>,
    messages: Vec<MessageBody>,
    #[serde(default)]
    system: Value,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    #[serde(default)]
    stop_sequences: Vec<String>,
    stream: Option<bool>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    thinking: Option<ThinkingBody>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct MessageBody {
    role: String,
    #[serde(default)]
    content: Value,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct ThinkingBody {
    r#type: String,
}

/// A request, and where its parts stood.
struct Read {
    request: ChatRequest,
    places: Places,
    stream: bool,
}

pub async fn create(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    if json["max_tokens"].is_null() {
        return Err(Failure::invalid("max_tokens", "max_tokens is missing"));
    }
    let Read { request, places, stream } = read(&app, &json)?;
    let answers = app.start(&request, 1).await.map_err(|failure| places.restore(failure))?;
    let wire = MessageWire::new(app.model.id(), request.stop);
    if stream {
        return Ok(app.streamed(answers, wire));
    }
    let answers = app.whole(answers).await?;
    let whole = answers.first().map(|answer| wire.whole(answer)).ok_or_else(Failure::ending)?;
    Ok(axum::Json(whole).into_response())
}

pub async fn count_tokens(State(app): State<App>, Json(json): Json) -> Result<axum::Json<Value>, Failure> {
    let Read { request, places, .. } = read(&app, &json)?;
    let preview = app.preview(&request).await.map_err(|failure| places.restore(failure))?;
    Ok(axum::Json(json!({"input_tokens": preview.token_ids.len()})))
}

fn read(app: &App, json: &Value) -> Result<Read, Failure> {
    let body: MessagesBody = read_as(json)?;
    app.check_model(body.model.as_deref())?;
    check_stops("stop_sequences", &body.stop_sequences)?;
    if body.messages.is_empty() {
        return Err(Failure::invalid("messages", "messages must not be empty"));
    }
    let mut turns = Turns::default();
    if !body.system.is_null() {
        turns.say("system", &body.system, "system")?;
    }
    for (i, message) in body.messages.iter().enumerate() {
        turns.say(&message.role, &message.content, &format!("messages[{i}].content"))?;
    }
    let (tool_choice, calls_max) = tool_choice(body.tool_choice.as_ref())?;
    let (web, tools) = tooling::split(body.tools.as_deref().unwrap_or_default())?;
    let tools = tools.iter().map(|(at, tool)| definition(tool, at));
    let thinking = body.thinking.map(|thinking| thinking.r#type != "disabled");
    let mut template_kwargs = Map::new();
    options::thinking(&mut template_kwargs, thinking, None, "thinking")?;
    let usual = Sampling::default();
    let sampling = Sampling {
        temperature: body.temperature.unwrap_or(usual.temperature),
        top_k: body.top_k.unwrap_or(0) as usize,
        top_p: body.top_p.unwrap_or(usual.top_p),
        ..usual
    };
    let Turns { messages, places } = turns;
    let mut request = ChatRequest {
        messages,
        tools: tools.collect::<Result<_, _>>()?,
        tool_choice,
        calls_max,
        template_kwargs,
        sampling,
        tokens_max: options::tokens_max([("max_tokens", body.max_tokens)])?,
        stop: body.stop_sequences,
        ..ChatRequest::default()
    };
    app.equip(&mut request, None, web)?;
    Ok(Read { request, places, stream: body.stream.unwrap_or(false) })
}

/// `{"name", "description", "input_schema"}` → OpenAI's shape.
fn definition(tool: &Value, at: &str) -> Result<Value, Failure> {
    if tool["type"].as_str().is_some_and(|kind| kind != "custom") {
        return Err(Failure::invalid(
            format!("{at}.type"),
            format!("{at}.type must be custom: of the tools on this side there is only web_search"),
        ));
    }
    let mut function = json!({"name": tool["name"], "parameters": tool["input_schema"]});
    for field in ["description", "strict"] {
        if let Some(value) = tool.get(field) {
            function[field] = value.clone();
        }
    }
    Ok(json!({"type": "function", "function": function}))
}

/// Whether functions are called, and how many at most.
fn tool_choice(choice: Option<&Value>) -> Result<(ToolChoice, Option<usize>), Failure> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok((ToolChoice::Auto, None)) };
    let one = choice["disable_parallel_tool_use"] == json!(true);
    let which = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("any"), _) => ToolChoice::Required,
        (Some("none"), _) => ToolChoice::None,
        (Some("tool"), Some(name)) => ToolChoice::Named(name.into()),
        _ => return Err(Failure::invalid("tool_choice", "tool_choice.type must be auto, any, none, or tool with a name")),
    };
    Ok((which, one.then_some(1)))
}

/// The turns of a conversation as chat templates know them: results of tools are turns of their own.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    places: Places,
}

/// A turn that is being read.
struct Turn {
    role: String,
    parts: Vec<Part>,
    places: Vec<String>,
    extra: Map<String, Value>,
}

impl Turns {
    fn say(&mut self, role: &str, content: &Value, at: &str) -> Result<(), Failure> {
        if !matches!(role, "system" | "user" | "assistant") {
            let role_at = at.replace("content", "role");
            return Err(Failure::invalid(&role_at, format!("{role_at} must be user or assistant")));
        }
        let blocks = match content {
            Value::String(text) => {
                self.push(Turn { parts: vec![Part::Text(text.clone())], places: vec![at.to_string()], ..Turn::of(role) });
                return Ok(());
            }
            Value::Array(blocks) => blocks,
            _ => return Err(Failure::invalid(at, format!("{at} must be a text or a list of blocks"))),
        };
        let mut turn = Turn::of(role);
        for (j, block) in blocks.iter().enumerate() {
            let at = format!("{at}[{j}]");
            if block["type"] == "tool_result" {
                // What was said before the result stays before it.
                let said = std::mem::replace(&mut turn, Turn::of(role));
                self.push(said);
                self.push(tool_result(block, &at)?);
            } else {
                turn.add(block, at)?;
            }
        }
        self.push(turn);
        Ok(())
    }

    fn push(&mut self, turn: Turn) {
        let Turn { role, parts, places, extra } = turn;
        if parts.is_empty() && extra.is_empty() {
            return;
        }
        self.places.add(places);
        self.messages.push(Message { role, content: content::gathered(parts), extra });
    }
}

impl Turn {
    fn of(role: &str) -> Self {
        Self { role: role.into(), parts: Vec::new(), places: Vec::new(), extra: Map::new() }
    }

    fn add(&mut self, block: &Value, at: String) -> Result<(), Failure> {
        let missing = |field: &str| Failure::invalid(format!("{at}.{field}"), format!("{at}.{field} is missing or not a text"));
        let part = match block["type"].as_str() {
            Some("thinking") => {
                let thoughts = block["thinking"].as_str().ok_or_else(|| missing("thinking"))?;
                self.extra.insert("reasoning_content".into(), thoughts.into());
                return Ok(());
            }
            Some("redacted_thinking") => return Ok(()),
            Some("tool_use") => {
                let (id, name) = (block["id"].as_str(), block["name"].as_str().ok_or_else(|| missing("name"))?);
                let function = json!({"name": name, "arguments": block["input"].to_string()});
                let call = json!({"id": id, "type": "function", "function": function});
                if let Value::Array(calls) = self.extra.entry("tool_calls").or_insert_with(|| json!([])) {
                    calls.push(call);
                }
                return Ok(());
            }
            Some("image") if block.get("source").is_some() => {
                let source = MediaSource::Url(source(&block["source"], &format!("{at}.source"))?);
                Part::Image(source, image::options(block, &at)?)
            }
            Some("document") => document(block, &at)?,
            _ => content::part(block, &at)?,
        };
        self.parts.push(part);
        self.places.push(at);
        Ok(())
    }
}

/// `{"type": "base64", "media_type", "data"}` or `{"type": "url", "url"}` as a URL.
fn source(source: &Value, at: &str) -> Result<String, Failure> {
    match (source["type"].as_str(), source["data"].as_str(), source["url"].as_str()) {
        (Some("base64"), Some(data), _) => {
            Ok(format!("data:{};base64,{data}", source["media_type"].as_str().unwrap_or_default()))
        }
        (Some("url"), _, Some(url)) => Ok(url.to_string()),
        _ => Err(Failure::invalid(
            at,
            format!("{at} must be {{\"type\": \"base64\", \"media_type\", \"data\"}} or {{\"type\": \"url\", \"url\"}}"),
        )),
    }
}

fn document(block: &Value, at: &str) -> Result<Part, Failure> {
    let (body, at) = (&block["source"], format!("{at}.source"));
    if let (Some("text"), Some(text)) = (body["type"].as_str(), body["data"].as_str()) {
        let title = block["title"].as_str().map(|title| format!("{title}:\n")).unwrap_or_default();
        return Ok(Part::Text(title + text));
    }
    let url = source(body, &at)?;
    let field = if url.starts_with("data:") { "file_data" } else { "file_url" };
    let mut file = block.clone();
    file["type"] = "input_file".into();
    file["filename"] = block["title"].clone();
    file[field] = url.into();
    Ok(content::part(&file, &at)?)
}

fn tool_result(block: &Value, at: &str) -> Result<Turn, Failure> {
    let mut turn = Turn::of("tool");
    let id = block["tool_use_id"].as_str();
    let id = id.ok_or_else(|| Failure::invalid(format!("{at}.tool_use_id"), format!("{at}.tool_use_id is missing")))?;
    turn.extra.insert("tool_call_id".into(), id.into());
    match &block["content"] {
        Value::Null => {}
        Value::String(text) => turn.add(&json!({"type": "text", "text": text}), format!("{at}.content"))?,
        Value::Array(blocks) => {
            for (j, block) in blocks.iter().enumerate() {
                turn.add(block, format!("{at}.content[{j}]"))?;
            }
        }
        _ => return Err(Failure::invalid(format!("{at}.content"), format!("{at}.content must be a text or a list of blocks"))),
    }
    Ok(turn)
}

/// A block of an answer that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Open {
    Thinking,
    Text,
    Call(usize),
}

struct MessageWire {
    id: String,
    model: String,
    stop: Vec<String>,
    prompt_tokens: usize,
    open: Option<Open>,
    /// Blocks that have begun.
    blocks: usize,
}

impl MessageWire {
    fn new(model: &str, stop: Vec<String>) -> Self {
        let id = format!("msg_{:032x}", fastrand::u128(..));
        Self { id, model: model.into(), stop, prompt_tokens: 0, open: None, blocks: 0 }
    }

    fn message(&self, content: Value, usage: Value) -> Value {
        json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        })
    }

    fn whole(&self, answer: &Answer) -> Value {
        let mut content = Vec::new();
        if !answer.reasoning.is_empty() {
            content.push(json!({"type": "thinking", "thinking": answer.reasoning, "signature": ""}));
        }
        if !answer.text.is_empty() {
            content.push(json!({"type": "text", "text": answer.text}));
        }
        for call in &answer.calls {
            // An answer that was cut off may have half a call.
            let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
        }
        let mut message = self.message(json!(content), usage(&answer.summary.usage));
        (message["stop_reason"], message["stop_sequence"]) = self.stop_reason(&answer.summary);
        message
    }

    fn stop_reason(&self, summary: &Summary) -> (Value, Value) {
        match summary.finish {
            Finish::Length => (json!("max_tokens"), Value::Null),
            Finish::ToolRounds => (json!("pause_turn"), Value::Null),
            _ if summary.calls > 0 => (json!("tool_use"), Value::Null),
            Finish::StopText(which) => (json!("stop_sequence"), json!(self.stop.get(which))),
            Finish::EndToken(_) | Finish::Complete => (json!("end_turn"), Value::Null),
        }
    }

    /// Ends the block that is open, unless it is this one; begins this one.
    fn go_to(&mut self, block: Open, begin: Value, events: &mut Vec<Event>) {
        if self.open == Some(block) {
            return;
        }
        self.close(events);
        self.open = Some(block);
        self.blocks += 1;
        events.push(named(&json!({"type": "content_block_start", "index": self.blocks - 1, "content_block": begin})));
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if let Some(open) = self.open.take() {
            if open == Open::Thinking {
                events.push(self.more(json!({"type": "signature_delta", "signature": ""})));
            }
            events.push(named(&json!({"type": "content_block_stop", "index": self.blocks - 1})));
        }
    }

    fn more(&self, delta: Value) -> Event {
        named(&json!({"type": "content_block_delta", "index": self.blocks.saturating_sub(1), "delta": delta}))
    }

    fn call(&mut self, call: &CallDelta, events: &mut Vec<Event>) {
        if let Some(begun) = &call.begins {
            let begin = json!({"type": "tool_use", "id": begun.id, "name": begun.name, "input": {}});
            self.go_to(Open::Call(call.index), begin, events);
        }
        if !call.arguments.is_empty() {
            events.push(self.more(json!({"type": "input_json_delta", "partial_json": call.arguments})));
        }
    }
}

impl Wire for MessageWire {
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Event> {
        self.prompt_tokens = answers.first().map_or(0, |answer| answer.prompt_token_ids().len());
        let usage = json!({"input_tokens": self.prompt_tokens, "output_tokens": 0});
        vec![named(&json!({"type": "message_start", "message": self.message(json!([]), usage)}))]
    }

    fn delta(&mut self, _: usize, delta: &Delta) -> Vec<Event> {
        let mut events = Vec::new();
        if !delta.reasoning.is_empty() {
            self.go_to(Open::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), &mut events);
            events.push(self.more(json!({"type": "thinking_delta", "thinking": delta.reasoning})));
        }
        if !delta.text.is_empty() {
            self.go_to(Open::Text, json!({"type": "text", "text": ""}), &mut events);
            events.push(self.more(json!({"type": "text_delta", "text": delta.text})));
        }
        delta.calls.iter().for_each(|call| self.call(call, &mut events));
        events
    }

    fn done(&mut self, _: usize, summary: &Summary) -> Vec<Event> {
        let mut events = Vec::new();
        self.close(&mut events);
        let (reason, sequence) = self.stop_reason(summary);
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        events.push(named(&json!({"type": "message_delta", "delta": delta, "usage": usage(&summary.usage)})));
        events.push(named(&json!({"type": "message_stop"})));
        events
    }

    fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        vec![named(&failure.body())]
    }
}

/// Tokens of the prompt that were found in the cache are counted by themselves.
fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    })
}
