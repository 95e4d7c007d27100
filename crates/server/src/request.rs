//! The JSON of a chat request → [`ChatRequest`].

use std::collections::BTreeMap;

use axum::http::StatusCode;
use mistralrs::{ChatRequest, Content, Dry, Grammar, MediaSource, Message, Part, Sampling, ToolChoice};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::{audio, video};

const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
const CHOICES_MAX: u32 = 128;
const BREAKERS_MAX: usize = 64;

/// The body of POST /v1/chat/completions. Fields that are not named here are ignored.
#[derive(Debug, Default, Deserialize)]
pub struct ChatBody {
    pub model: Option<String>,
    messages: Vec<MessageBody>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<usize>,
    dry_sequence_breakers: Option<Vec<String>>,
    logit_bias: Option<BTreeMap<String, f32>>,
    min_tokens: Option<u32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    stop_token_ids: Option<Vec<u32>>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    chat_template_kwargs: Option<Map<String, Value>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    return_token_ids: Option<bool>,
    ignore_eos: Option<bool>,
    cache_salt: Option<String>,
    n: Option<u32>,
    response_format: Option<ResponseFormat>,
    grammar: Option<GrammarBody>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<String>,
}

#[derive(Debug, Deserialize)]
struct MessageBody {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: JsonSchema },
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Value,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
enum GrammarBody {
    JsonSchema(Value),
    Regex(String),
    Lark(String),
    Llguidance(Value),
    Choice(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// What the answer is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub choices: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub logprobs: bool,
    pub token_ids: bool,
}

/// Reads a body.
pub fn parse(body: &[u8]) -> Result<ChatBody, Failure> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed: Result<ChatBody, _> = serde_path_to_error::deserialize(&mut json);
    let parsed = parsed.map_err(|e| {
        let path = e.path().to_string();
        let syntax = e.inner().is_syntax() || e.inner().is_eof();
        let message = if syntax { format!("the body is not JSON: {}", e.inner()) } else { format!("{path}: {}", e.inner()) };
        let failure = Failure::new(StatusCode::BAD_REQUEST, message).code("invalid_json");
        if syntax || path == "." { failure } else { failure.param(path).code("invalid_value") }
    })?;
    let ended =
        json.end().map_err(|e| Failure::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {e}")).code("invalid_json"));
    ended.map(|()| parsed)
}

impl ChatBody {
    pub fn shape(&self) -> Result<Shape, Failure> {
        let choices = self.n.unwrap_or(1);
        if !(1..=CHOICES_MAX).contains(&choices) {
            return Err(Failure::invalid("n", format!("n must be between 1 and {CHOICES_MAX}")));
        }
        Ok(Shape {
            choices: choices as usize,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.as_ref().and_then(|o| o.include_usage).unwrap_or(false),
            logprobs: self.logprobs.unwrap_or(false),
            token_ids: self.return_token_ids.unwrap_or(false),
        })
    }

    /// The request for the facade.
    pub fn request(self) -> Result<ChatRequest, Failure> {
        let sampling = self.sampling()?;
        let template_kwargs = self.template_kwargs()?;
        let tokens_max = match (self.max_completion_tokens, self.max_tokens) {
            (Some(0), _) => return Err(Failure::invalid("max_completion_tokens", "max_completion_tokens must be at least 1")),
            (None, Some(0)) => return Err(Failure::invalid("max_tokens", "max_tokens must be at least 1")),
            (first, second) => first.or(second).map(|n| n as usize),
        };
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        };
        if stop.len() > STOPS_MAX || stop.iter().any(|text| text.len() > STOP_BYTES_MAX) {
            return Err(Failure::invalid("stop", format!("stop takes at most {STOPS_MAX} texts of {STOP_BYTES_MAX} bytes")));
        }
        if self.messages.is_empty() {
            return Err(Failure::invalid("messages", "messages must not be empty"));
        }
        let tool_choice = tool_choice(self.tool_choice.as_ref())?;
        let messages = self.messages.into_iter().enumerate().map(|(i, message)| message.convert(i)).collect::<Result<_, _>>()?;
        let grammar = grammar(self.response_format, self.grammar)?;
        let dry_sequence_breakers = self.dry_sequence_breakers;
        if dry_sequence_breakers.as_ref().is_some_and(|all| all.len() > BREAKERS_MAX) {
            let message = format!("dry_sequence_breakers takes at most {BREAKERS_MAX} texts");
            return Err(Failure::invalid("dry_sequence_breakers", message));
        }
        Ok(ChatRequest {
            messages,
            tools: self.tools.unwrap_or_default(),
            tool_choice,
            calls_max: (self.parallel_tool_calls == Some(false)).then_some(1),
            template_kwargs,
            sampling,
            dry_sequence_breakers,
            tokens_min: self.min_tokens.unwrap_or(0) as usize,
            tokens_max,
            stop,
            stop_token_ids: self.stop_token_ids.unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            cache_salt: self.cache_salt,
            grammar,
        })
    }

    fn sampling(&self) -> Result<Sampling, Failure> {
        let top_k = match self.top_k {
            None | Some(-1 | 0) => 0,
            Some(k) => usize::try_from(k).map_err(|_| Failure::invalid("top_k", "top_k must be positive, or 0 or -1 for all"))?,
        };
        let asked = self.logprobs.unwrap_or(false);
        if self.top_logprobs.is_some() && !asked {
            return Err(Failure::invalid("top_logprobs", "top_logprobs must be left out unless logprobs is true"));
        }
        let usual = Dry::default();
        let dry = self.dry_multiplier.filter(|multiplier| *multiplier != 0.0).map(|multiplier| Dry {
            multiplier,
            base: self.dry_base.unwrap_or(usual.base),
            allowed_length: self.dry_allowed_length.unwrap_or(usual.allowed_length),
            ..usual
        });
        let usual = Sampling::default();
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k,
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            dry,
            logit_bias: self.logit_bias.iter().flatten().map(bias).collect::<Result<_, _>>()?,
            seed: self.seed.map(i64::cast_unsigned),
            logprobs: asked.then_some(self.top_logprobs.unwrap_or(0)),
        })
    }

    /// Variables for the chat template: those of the request, and what its own fields say of thinking.
    fn template_kwargs(&self) -> Result<Map<String, Value>, Failure> {
        let mut kwargs = self.chat_template_kwargs.clone().unwrap_or_default();
        let effort = self.reasoning_effort.as_deref().map(str::to_lowercase);
        let off = effort.as_deref().is_some_and(|effort| matches!(effort, "none" | "off"));
        if self.enable_thinking == Some(true) && off {
            let message = "enable_thinking and reasoning_effort contradict each other";
            return Err(Failure::invalid("reasoning_effort", message));
        }
        if let Some(thinking) = self.enable_thinking.or(off.then_some(false)) {
            kwargs.insert("enable_thinking".into(), thinking.into());
        }
        if let Some(effort) = effort.filter(|_| !off) {
            kwargs.insert("reasoning_effort".into(), effort.into());
        }
        Ok(kwargs)
    }
}

/// `"none"`, `"auto"`, `"required"`, or `{"type": "function", "function": {"name": …}}`, also without the inner object.
fn tool_choice(choice: Option<&Value>) -> Result<ToolChoice, Failure> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(ToolChoice::Auto) };
    match choice.as_str() {
        Some("none") => return Ok(ToolChoice::None),
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("required") => return Ok(ToolChoice::Required),
        _ => {}
    }
    let name = choice["function"]["name"].as_str().or_else(|| choice["name"].as_str());
    name.map(|name| ToolChoice::Named(name.into())).ok_or_else(|| {
        Failure::invalid(
            "tool_choice",
            "tool_choice must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": ...}}",
        )
    })
}

fn grammar(format: Option<ResponseFormat>, grammar: Option<GrammarBody>) -> Result<Option<Grammar>, Failure> {
    let format = match format {
        None | Some(ResponseFormat::Text) => None,
        Some(ResponseFormat::JsonObject) => Some(Grammar::JsonObject),
        Some(ResponseFormat::JsonSchema { json_schema }) => Some(Grammar::JsonSchema(json_schema.schema)),
    };
    let grammar = grammar.map(|grammar| match grammar {
        GrammarBody::JsonSchema(schema) => Grammar::JsonSchema(schema),
        GrammarBody::Regex(regex) => Grammar::Regex(regex),
        GrammarBody::Lark(lark) => Grammar::Lark(lark),
        GrammarBody::Llguidance(Value::String(text)) => Grammar::Llguidance(text),
        GrammarBody::Llguidance(json) => Grammar::Llguidance(json.to_string()),
        GrammarBody::Choice(texts) => Grammar::Choice(texts),
    });
    match (format, grammar) {
        (Some(_), Some(_)) => Err(Failure::invalid("grammar", "response_format and grammar exclude each other")),
        (format, grammar) => Ok(format.or(grammar)),
    }
}

fn bias((id, bias): (&String, &f32)) -> Result<(u32, f32), Failure> {
    let id = id.parse().map_err(|_| Failure::invalid("logit_bias", format!("logit_bias: {id:?} is not a token id")))?;
    Ok((id, *bias))
}

impl MessageBody {
    fn convert(self, index: usize) -> Result<Message, Failure> {
        let at = format!("messages[{index}].content");
        let content = match self.content {
            Value::Null => Content::Text(String::new()),
            Value::String(text) => Content::Text(text),
            Value::Array(parts) => {
                let parts = parts.iter().enumerate().map(|(j, value)| part(value, &format!("{at}[{j}]")));
                Content::Parts(parts.collect::<Result<_, _>>()?)
            }
            _ => return Err(Failure::invalid(&at, format!("{at} must be a text or a list of parts"))),
        };
        Ok(Message { role: self.role, content, extra: self.extra })
    }
}

fn part(value: &Value, at: &str) -> Result<Part, Failure> {
    let kind = value["type"].as_str().unwrap_or_default();
    let missing = |what: &str| Failure::invalid(format!("{at}.{what}"), format!("{at}.{what} is missing or not a text"));
    let source = |kind: &str| {
        let url = value[kind].as_str().or_else(|| value[kind]["url"].as_str());
        url.map(MediaSource::from).ok_or_else(|| missing(&format!("{kind}.url")))
    };
    match kind {
        "text" => value["text"].as_str().map(|text| Part::Text(text.to_string())).ok_or_else(|| missing("text")),
        "image_url" => Ok(Part::Image(source(kind)?)),
        "audio_url" | "input_audio" => audio::part(value, kind, at),
        "video_url" | "video" => video::part(value, at),
        _ => {
            let message = format!("{at}.type must be text, image_url, audio_url, input_audio, video_url or video");
            Err(Failure::invalid(format!("{at}.type"), message))
        }
    }
}
