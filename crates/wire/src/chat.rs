//! Chat completions.

use std::fmt;

use mistralrs::{Answer, AnswerStream, ChatRequest, Delta, Message, RawPrompt, Summary, ToolProgress, WebSearchOptions};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::chunks::Chunks;
use crate::content::{content, role};
use crate::options::{self, Options};
use crate::read::read_as;
use crate::refusal::Refusal;
use crate::response::Header;
use crate::tooling;

/// What a body asks for.
#[derive(Debug)]
pub struct Asked {
    /// Of whom.
    pub model: Option<String>,
    /// What the answer is to look like.
    pub shape: Shape,
    /// The conversation.
    pub request: ChatRequest,
    /// Rounds of functions that run here, at most.
    pub rounds: Option<usize>,
    /// How the web is to be searched, if it is.
    pub web: Option<WebSearchOptions>,
}

/// The field that says how the web is to be searched.
pub const WEB: &str = "web_search_options";

/// The body, besides its [`Options`].
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct ChatBody {
    model: Option<String>,
    messages: Messages,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    chat_template_kwargs: Option<Map<String, Value>>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    return_token_ids: Option<bool>,
    return_media: Option<bool>,
    return_timings: Option<bool>,
    n: Option<u32>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<String>,
    web_search_options: Option<Value>,
    max_tool_rounds: Option<u32>,
}

#[derive(Debug, schemars::JsonSchema)]
#[schemars(untagged)]
enum Messages {
    List(Vec<MessageBody>),
    /// As a chat template has written them.
    Written(String),
}

impl<'de> Deserialize<'de> for Messages {
    /// Errors have the place within a list, which those of untagged enums have not.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_str<E>(self, prompt: &str) -> Result<Messages, E> {
                Ok(Messages::Written(prompt.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Messages, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Messages::List)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
struct MessageBody {
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// What a stream has beside the answer.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
pub struct StreamOptions {
    include_usage: Option<bool>,
}

/// What the answer is to look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Answers that are wanted.
    pub choices: usize,
    /// In chunks, as they come.
    pub stream: bool,
    /// With a last chunk that says what they took.
    pub include_usage: bool,
    /// With the logarithms of the probabilities of tokens.
    pub logprobs: bool,
    /// With ids of tokens.
    pub token_ids: bool,
    /// With what became of the prompt's media.
    pub media: bool,
    /// With how long it took.
    pub timings: bool,
}

/// Reads a body.
///
/// # Errors
/// A field is missing, malformed or out of range.
pub fn read(json: &Value) -> Result<Asked, Refusal> {
    if !json["chat_template"].is_null() {
        return Err(Refusal::invalid("chat_template", "chat_template is not taken from requests; the model has one"));
    }
    let body: ChatBody = read_as(json)?;
    let options: Options = read_as(json)?;
    let web = body.web_search_options.as_ref().map(|web| tooling::web_search(web, WEB)).transpose()?;
    let rounds = body.max_tool_rounds.map(|rounds| rounds as usize);
    Ok(Asked { model: body.model.clone(), shape: body.shape()?, request: body.request(options)?, rounds, web })
}

impl ChatBody {
    fn shape(&self) -> Result<Shape, Refusal> {
        Ok(Shape {
            choices: options::choices(self.n)?,
            stream: self.stream.unwrap_or(false),
            include_usage: includes_usage(self.stream_options.as_ref()),
            logprobs: self.logprobs.unwrap_or(false),
            token_ids: self.return_token_ids.unwrap_or(false),
            media: self.return_media.unwrap_or(false),
            timings: self.return_timings.unwrap_or(false),
        })
    }

    fn request(self, options: Options) -> Result<ChatRequest, Refusal> {
        let asked = self.logprobs.unwrap_or(false);
        if self.top_logprobs.is_some() && !asked {
            return Err(Refusal::invalid("top_logprobs", "top_logprobs must be left out unless logprobs is true"));
        }
        let (messages, prompt) = match self.messages {
            Messages::List(messages) => (messages, None),
            Messages::Written(prompt) => (Vec::new(), Some(RawPrompt::Text(prompt))),
        };
        if messages.is_empty() && prompt.is_none() {
            return Err(Refusal::invalid("messages", "messages must not be empty"));
        }
        let mut template_kwargs = self.chat_template_kwargs.unwrap_or_default();
        options::thinking(&mut template_kwargs, self.enable_thinking, self.reasoning_effort.as_deref(), "reasoning_effort")?;
        let message = |(i, message): (usize, MessageBody)| {
            let content = content(&message.content, &format!("messages[{i}].content"))?;
            Ok(Message { role: role(&message.role), content, extra: message.extra })
        };
        let most = [("max_completion_tokens", self.max_completion_tokens), ("max_tokens", self.max_tokens)];
        Ok(ChatRequest {
            prompt,
            messages: messages.into_iter().enumerate().map(message).collect::<Result<_, Refusal>>()?,
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

/// An answer to a chat, whole or in chunks.
pub struct ChatChunks {
    header: Header,
    shape: Shape,
    /// Of the choices that are complete.
    summaries: Vec<Summary>,
}

impl ChatChunks {
    /// `model` is what the answer says that it is called.
    pub fn new(model: &str, shape: Shape) -> Self {
        Self { header: Header::new("chatcmpl", model), shape, summaries: Vec::new() }
    }

    /// The whole answers as one object.
    pub fn whole(&self, answers: &[Answer]) -> Value {
        self.header.completion(answers, self.shape)
    }
}

impl Chunks for ChatChunks {
    fn opening(&mut self, answers: &[AnswerStream]) -> Vec<Value> {
        if let Some(answer) = answers.first() {
            self.header.received = answer.received().clone();
        }
        let opening = |(i, answer): (usize, &AnswerStream)| self.header.opening(i, answer.prompt_token_ids(), self.shape);
        answers.iter().enumerate().map(opening).collect()
    }

    fn delta(&mut self, choice: usize, delta: &Delta) -> Value {
        self.header.delta(choice, delta, self.shape)
    }

    fn tool(&mut self, choice: usize, progress: &ToolProgress) -> Option<Value> {
        Some(self.header.progress(choice, progress))
    }

    fn done(&mut self, choice: usize, summary: &Summary) -> Vec<Value> {
        self.summaries.push(*summary);
        let mut last = vec![self.header.closing(choice, summary, self.shape)];
        last.extend((self.are_complete() && self.shape.include_usage).then(|| self.header.usage(&self.summaries, self.shape)));
        last
    }

    fn are_complete(&self) -> bool {
        self.summaries.len() == self.shape.choices
    }
}
