//! POST /v1/chat/completions.

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use mistralrs::{AnswerStream, ChatRequest, Delta, Message, Summary};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answers::{Wire, event};
use crate::app::App;
use crate::content::{content, role};
use crate::error::Failure;
use crate::options::{self, Options};
use crate::payload::{Json, read_as};
use crate::response::Header;

/// The body, besides its [`Options`].
#[derive(Debug, Default, Deserialize)]
struct ChatBody {
    model: Option<String>,
    messages: Vec<MessageBody>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    chat_template_kwargs: Option<Map<String, Value>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    return_token_ids: Option<bool>,
    return_media: Option<bool>,
    n: Option<u32>,
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

#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    include_usage: Option<bool>,
}

/// What the answer is to look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    pub choices: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub logprobs: bool,
    pub token_ids: bool,
    pub media: bool,
}

pub async fn completions(State(app): State<App>, Json(json): Json) -> Result<Response, Failure> {
    let (shape, request) = read(&app, &json)?;
    let answers = app.start(&request, shape.choices).await?;
    let header = Header::new("chatcmpl", app.model.id());
    if shape.stream {
        let wire = ChatWire { header, shape, summaries: Vec::new() };
        return Ok(app.streamed(answers, wire));
    }
    let answers = app.whole(answers).await?;
    Ok(axum::Json(header.completion(&answers, shape)).into_response())
}

/// A body as the facade takes it.
pub fn read(app: &App, json: &Value) -> Result<(Shape, ChatRequest), Failure> {
    let body: ChatBody = read_as(json)?;
    app.check_model(body.model.as_deref())?;
    let options: Options = read_as(json)?;
    Ok((body.shape()?, body.request(options)?))
}

impl ChatBody {
    fn shape(&self) -> Result<Shape, Failure> {
        Ok(Shape {
            choices: options::choices(self.n)?,
            stream: self.stream.unwrap_or(false),
            include_usage: includes_usage(self.stream_options.as_ref()),
            logprobs: self.logprobs.unwrap_or(false),
            token_ids: self.return_token_ids.unwrap_or(false),
            media: self.return_media.unwrap_or(false),
        })
    }

    fn request(self, options: Options) -> Result<ChatRequest, Failure> {
        let asked = self.logprobs.unwrap_or(false);
        if self.top_logprobs.is_some() && !asked {
            return Err(Failure::invalid("top_logprobs", "top_logprobs must be left out unless logprobs is true"));
        }
        if self.messages.is_empty() {
            return Err(Failure::invalid("messages", "messages must not be empty"));
        }
        let mut template_kwargs = self.chat_template_kwargs.unwrap_or_default();
        options::thinking(&mut template_kwargs, self.enable_thinking, self.reasoning_effort.as_deref(), "reasoning_effort")?;
        let message = |(i, message): (usize, MessageBody)| {
            let content = content(&message.content, &format!("messages[{i}].content"))?;
            Ok(Message { role: role(&message.role), content, extra: message.extra })
        };
        let most = [("max_completion_tokens", self.max_completion_tokens), ("max_tokens", self.max_tokens)];
        Ok(ChatRequest {
            messages: self.messages.into_iter().enumerate().map(message).collect::<Result<_, Failure>>()?,
            tools: self.tools.unwrap_or_default(),
            tool_choice: options::tool_choice(self.tool_choice.as_ref())?,
            calls_max: (self.parallel_tool_calls == Some(false)).then_some(1),
            template_kwargs,
            tokens_max: options::tokens_max(most)?,
            ..options.request(asked.then_some(self.top_logprobs.unwrap_or(0)))?
        })
    }
}

/// Whether a stream ends with what it took.
pub fn includes_usage(options: Option<&StreamOptions>) -> bool {
    options.and_then(|options| options.include_usage).unwrap_or(false)
}

/// Chunks, and [DONE] behind them.
struct ChatWire {
    header: Header,
    shape: Shape,
    /// Of the choices that are complete.
    summaries: Vec<Summary>,
}

impl Wire for ChatWire {
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Event> {
        if let Some(answer) = answers.first() {
            self.header.received = answer.received().clone();
        }
        let opening = |(i, answer): (usize, &AnswerStream)| event(&self.header.opening(i, answer.prompt_token_ids(), self.shape));
        answers.iter().enumerate().map(opening).collect()
    }

    fn delta(&mut self, choice: usize, delta: &Delta) -> Vec<Event> {
        vec![event(&self.header.delta(choice, delta, self.shape))]
    }

    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Event> {
        self.summaries.push(*summary);
        let mut events = vec![event(&self.header.closing(choice, summary, self.shape))];
        if self.summaries.len() == self.shape.choices {
            events.extend(self.shape.include_usage.then(|| event(&self.header.usage(&self.summaries, self.shape))));
            events.push(Event::default().data("[DONE]"));
        }
        events
    }

    /// A stream that failed ends without [DONE]: clients raise what the event says.
    fn failed(&mut self, failure: &Failure) -> Vec<Event> {
        vec![event(&failure.body())]
    }
}
