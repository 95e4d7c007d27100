//! /v1/responses: OpenAI's responses.

mod input;
mod output;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use mistralrs::{AnswerStream, ChatRequest, Content, Delta, Grammar, Message, Summary, ToolProgress};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wire::options::{self, Options};
use wire::read::read_as;
use wire::tooling;

use crate::answers::Wire;
use crate::app::App;
use crate::error::Failure;
use crate::payload::{Id, Json};
use crate::places::Places;
use input::Turns;
use output::Output;

/// A conversation that can be continued.
pub struct Kept {
    /// What was answered, as it is shown.
    body: Value,
    /// Its messages, the answer included, without instructions.
    messages: Vec<Message>,
}

/// The body, besides its [`Options`]. Fields that are not named here are ignored.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct ResponseBody {
    model: Option<String>,
    input: Value,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    store: Option<bool>,
    stream: Option<bool>,
    background: Option<bool>,
    max_output_tokens: Option<u32>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    max_tool_rounds: Option<u32>,
    reasoning: Option<Reasoning>,
    text: Option<TextBody>,
    chat_template_kwargs: Option<Map<String, Value>>,
    metadata: Option<Value>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct TextBody {
    #[serde(default)]
    format: Value,
}

/// A request, where its parts stood, and what is to become of its answer.
struct Read {
    request: ChatRequest,
    places: Places,
    stream: bool,
    store: bool,
    /// Whether the first message is instructions.
    instructed: bool,
    /// What the answer repeats of the request.
    echo: Value,
}

pub async fn create(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    let Read { mut request, places, stream, store, instructed, echo } = read(&app, &json)?;
    let answers = app.start(&request, 1).await.map_err(|failure| places.restore(failure))?;
    // Instructions are those of one request.
    let messages = store.then(|| request.messages.split_off(usize::from(instructed)));
    let keeper = Keeper { app: app.clone(), messages };
    let mut wire = ResponseWire { output: Output::new(app.model.id(), echo), keeper };
    if stream {
        return Ok(app.streamed(answers, wire));
    }
    for answer in app.whole(answers).await? {
        wire.output.received = answer.received.clone();
        answer.tool_runs.iter().for_each(|run| drop(wire.output.ran(run)));
        wire.delta(0, &output::at_once(&answer));
        wire.done(0, &answer.summary);
    }
    Ok(axum::Json(wire.output.body()).into_response())
}

/// POST /v1/responses/input_tokens.
pub async fn input_tokens(State(app): State<App>, Json(json): Json) -> Result<axum::Json<Value>, Failure> {
    let Read { request, places, .. } = read(&app, &json)?;
    let preview = app.preview(&request).await.map_err(|failure| places.restore(failure))?;
    Ok(axum::Json(app.counted(&preview)))
}

/// GET /v1/responses/{id}.
pub async fn show(State(app): State<App>, Id(id): Id) -> Result<axum::Json<Value>, Failure> {
    let kept = app.conversations.get(&id).ok_or_else(unknown)?;
    Ok(axum::Json(kept.body.clone()))
}

/// DELETE /v1/responses/{id}.
pub async fn delete(State(app): State<App>, Id(id): Id) -> Result<axum::Json<Value>, Failure> {
    match app.conversations.remove(&id) {
        true => Ok(axum::Json(json!({"id": id, "object": "response", "deleted": true}))),
        false => Err(unknown()),
    }
}

fn unknown() -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "there is no response with this id, or no longer").code("not_found")
}

fn read(app: &App, json: &Value) -> Result<Read, Failure> {
    let body: ResponseBody = read_as(json)?;
    app.check_model(body.model.as_deref())?;
    if body.background == Some(true) {
        return Err(Failure::invalid("background", "background is not supported; answers come at once or as a stream"));
    }
    let mut turns = Turns::default();
    if let Some(id) = &body.previous_response_id {
        let kept = app.conversations.get(id).ok_or_else(|| unknown().param("previous_response_id"))?;
        turns.continue_from(kept.messages.clone());
    }
    turns.read(&body.input)?;
    let (mut messages, mut places) = turns.finish();
    if messages.is_empty() {
        return Err(Failure::invalid("input", "input must not be empty"));
    }
    if let Some(instructions) = &body.instructions {
        messages.insert(0, Message { role: "system".into(), content: Content::Text(instructions.clone()), extra: Map::new() });
        places.insert_first();
    }
    let mut template_kwargs = body.chat_template_kwargs.clone().unwrap_or_default();
    let effort = body.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    options::thinking(&mut template_kwargs, None, effort, "reasoning.effort")?;
    let (web, tools) = tooling::split(body.tools.as_deref().unwrap_or_default())?;
    let tools = tools.iter().map(|(at, tool)| definition(tool, at));
    let options: Options = read_as(json)?;
    let mut request = ChatRequest {
        messages,
        tools: tools.collect::<Result<_, _>>()?,
        tool_choice: options::tool_choice(body.tool_choice.as_ref())?,
        calls_max: (body.parallel_tool_calls == Some(false)).then_some(1),
        template_kwargs,
        tokens_max: options::tokens_max([("max_output_tokens", body.max_output_tokens)])?,
        ..options.request(None)?
    };
    if let Some(form) = body.text.as_ref().map(|text| form(&text.format)).transpose()? {
        request.grammar = form.or(request.grammar);
    }
    app.equip(&mut request, body.max_tool_rounds.map(|rounds| rounds as usize), web)?;
    let store = body.store.unwrap_or(true);
    let (stream, instructed) = (body.stream.unwrap_or(false), body.instructions.is_some());
    Ok(Read { request, places, stream, store, instructed, echo: body.echo(store) })
}

impl ResponseBody {
    fn echo(&self, store: bool) -> Value {
        json!({
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata.clone().unwrap_or_else(|| json!({})),
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": self.previous_response_id,
            "reasoning": {"effort": self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref()), "summary": null},
            "store": store,
            "text": {"format": self.text.as_ref().map_or(json!({"type": "text"}), |text| text.format.clone())},
            "tool_choice": self.tool_choice.clone().unwrap_or_else(|| json!("auto")),
            "tools": self.tools.clone().unwrap_or_default(),
            "truncation": "disabled",
        })
    }
}

/// A function in either shape, the flat one or that of chat completions → that of chat completions.
fn definition(tool: &Value, at: &str) -> Result<Value, Failure> {
    match tool["type"].as_str() {
        Some("function") if tool["function"].is_object() => Ok(tool.clone()),
        Some("function") => {
            let mut function = tool.clone();
            if let Some(fields) = function.as_object_mut() {
                fields.remove("type");
                // Absent is what null stands for.
                fields.retain(|_, value| !value.is_null());
            }
            Ok(json!({"type": "function", "function": function}))
        }
        _ => Err(Failure::invalid(format!("{at}.type"), format!("{at}.type must be function or web_search"))),
    }
}

/// `text.format` → what the answer is held to.
fn form(format: &Value) -> Result<Option<Grammar>, Failure> {
    match format["type"].as_str() {
        _ if format.is_null() => Ok(None),
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Grammar::JsonObject)),
        Some("json_schema") if format["schema"].is_object() => Ok(Some(Grammar::JsonSchema(format["schema"].clone()))),
        _ => Err(Failure::invalid("text.format", "text.format must be of type text, json_object, or json_schema with a schema")),
    }
}

/// Keeps a conversation when its answer is complete.
struct Keeper {
    app: App,
    /// None when it is not to be kept.
    messages: Option<Vec<Message>>,
}

impl Keeper {
    fn keep(&mut self, output: &Output) {
        let Some(messages) = self.messages.take() else { return };
        let mut turns = Turns::default();
        turns.continue_from(messages);
        // What was said is read as a client would send it back.
        if turns.read(output.items()).is_err() {
            return;
        }
        let (messages, _) = turns.finish();
        let body = output.body();
        let bytes = body.to_string().len() + messages.iter().map(input::bytes).sum::<usize>();
        self.app.conversations.put(output.id().to_string(), Arc::new(Kept { body, messages }), bytes);
    }
}

/// Events with a number each, and the whole response in the last one.
struct ResponseWire {
    output: Output,
    keeper: Keeper,
}

impl Wire for ResponseWire {
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Event> {
        if let Some(answer) = answers.first() {
            self.output.received = answer.received().clone();
        }
        self.output.opening()
    }

    fn delta(&mut self, _: usize, delta: &Delta) -> Vec<Event> {
        self.output.delta(delta)
    }

    fn tool(&mut self, _: usize, progress: &ToolProgress) -> Vec<Event> {
        match progress {
            ToolProgress::Begun { call, kind, .. } => self.output.calling(call, kind),
            ToolProgress::Ended(run) => self.output.ran(run),
        }
    }

    fn done(&mut self, _: usize, summary: &Summary) -> Vec<Event> {
        let events = self.output.done(summary);
        self.keeper.keep(&self.output);
        events
    }

    fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        self.output.failed(failure)
    }
}
