//! What is asked: messages with words and media, and how the answer is to be generated.

use ::media::{AudioOptions, ImageOptions, OptionError, VideoOptions};
use engine::Sampling;
use nn::MediaKind;
use serde_json::{Map, Value, json};
use text::Grammar;

use crate::calls;
use crate::documents::{DocumentOptions, Places};
use crate::tools::{ServerTool, ToolBox};

/// Rounds of functions that run here, where a request does not say how many.
pub const ROUNDS_USUAL: usize = 16;

/// A conversation that calls for an answer.
#[derive(Debug, Clone, Default)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// What is continued instead of a conversation. The chat template, messages and tools are not looked at then.
    pub prompt: Option<RawPrompt>,
    /// Functions that the model may call, in OpenAI's shape: `{"type": "function", "function": {"name", "description",
    /// "parameters", "strict"}}`.
    pub tools: Vec<Value>,
    /// Functions that run here when the model calls them, besides those of the client. One of the client's with the same name goes
    /// before it.
    pub server_tools: ToolBox,
    /// How often the model may call functions that run here and read what came of it; [`ROUNDS_USUAL`] when absent.
    pub tool_rounds_max: Option<usize>,
    /// Whether it has to call one.
    pub tool_choice: ToolChoice,
    /// Calls that an answer may have.
    pub calls_max: Option<usize>,
    /// Further variables for the chat template (`enable_thinking`, say).
    pub template_kwargs: Map<String, Value>,
    /// How tokens are drawn; what the model's generation_config.json says when absent is not looked at: greedy.
    pub sampling: Sampling,
    /// Texts that DRY sees no repetition over; line ends, colons, quotes and asterisks when absent.
    pub dry_sequence_breakers: Option<Vec<String>>,
    /// Tokens before the answer may end by itself or by a stop text.
    pub tokens_min: usize,
    /// Tokens to generate at most; what the context has room for when absent.
    pub tokens_max: Option<usize>,
    /// Texts at which the answer ends; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens at which the answer ends, besides the model's own end tokens.
    pub stop_token_ids: Vec<u32>,
    /// Go on behind the model's own end tokens, to measure how long something takes.
    pub ignore_eos: bool,
    /// What was computed for this request serves only later ones with the same salt, and the other way round.
    pub cache_salt: Option<String>,
    /// What form the answer has to have.
    pub grammar: Option<Grammar>,
}

/// A prompt as the model reads it. Who writes one writes its control tokens too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawPrompt {
    /// Text; the begin-of-sequence token is added where the model has one.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Whether functions are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// None is; the model is not told of any.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one is.
    Required,
    /// This one is.
    Named(String),
}

/// One turn.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, …
    pub role: String,
    /// What is said.
    pub content: Content,
    /// Other fields that the chat template may read (`tool_calls`, `name`, …).
    pub extra: Map<String, Value>,
}

/// What is said in a turn.
#[derive(Debug, Clone)]
pub enum Content {
    /// Words alone.
    Text(String),
    /// Words and media in order.
    Parts(Vec<Part>),
}

/// Words or one media item.
#[derive(Debug, Clone)]
pub enum Part {
    /// Words.
    Text(String),
    /// A picture, and what is wanted of it.
    Image(MediaSource, ImageOptions),
    /// A sound, and what is wanted of it.
    Audio(MediaSource, AudioOptions),
    /// A clip, and what is wanted of it.
    Video(MediaSource, VideoOptions),
    /// A PDF, whose pages are looked at, or a text.
    Document(MediaSource, DocumentOptions),
}

/// A media part of a request.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Its place, as error messages name it.
    pub param: String,
    pub source: &'a MediaSource,
    pub wanted: Wanted,
}

/// What a media part is taken for, and what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    Image(ImageOptions),
    Audio(AudioOptions),
    Video(VideoOptions),
}

impl Wanted {
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Image(_) => MediaKind::Image,
            Self::Audio(_) => MediaKind::Audio,
            Self::Video(_) => MediaKind::Video,
        }
    }

    /// With what is wanted of all pictures, where the request leaves it open.
    pub fn or(self, pictures: &ImageOptions) -> Self {
        match self {
            Self::Image(options) => Self::Image(options.or(pictures)),
            other => other,
        }
    }

    /// Refuses what makes no sense for any item.
    pub fn check(&self) -> Result<(), OptionError> {
        match self {
            Self::Image(options) => options.check(),
            Self::Audio(options) => options.check(),
            Self::Video(options) => options.check(),
        }
    }
}

/// Where a media item's bytes are.
#[derive(Debug, Clone)]
pub enum MediaSource {
    /// `https:`, `http:`, `data:` or `file:`; or the path of a local file, where files are allowed. A folder of pictures is a clip:
    /// its frames by their names, numbers in them counting as numbers.
    Url(String),
    /// Here.
    Bytes(Vec<u8>),
    /// Pictures that are the frames of a clip, in order.
    Frames {
        /// Where each of them is.
        frames: Vec<MediaSource>,
        /// When each of them is shown, in seconds; otherwise they follow each other at [`VideoOptions::fps`], or two per second.
        timestamps: Option<Vec<f64>>,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl ChatRequest {
    /// A request with one user turn.
    pub fn user(parts: Vec<Part>) -> Self {
        let message = Message { role: "user".into(), content: Content::Parts(parts), extra: Map::new() };
        Self { messages: vec![message], ..Self::default() }
    }

    /// Media items in the order in which they are said, those of messages `since` behind its own included. Documents have been read.
    pub(crate) fn media<'a>(&'a self, since: &'a [Message], places: &Places) -> Vec<Item<'a>> {
        let mut found = Vec::new();
        for (i, message) in self.messages.iter().chain(since).enumerate() {
            let place = |j| places.get(&(i, j)).cloned().unwrap_or_else(|| format!("messages[{i}].content[{j}]"));
            found.extend(message.parts().iter().enumerate().filter_map(|(j, part)| part.item(place(j))));
        }
        found
    }

    /// Functions that run here when the model calls them.
    pub(crate) fn tools_here(&self) -> impl Iterator<Item = &ServerTool> {
        let of_client = |name: &str| self.tools.iter().any(|tool| tool["function"]["name"] == name || tool["name"] == name);
        self.server_tools.iter().filter(move |tool| !of_client(tool.name()))
    }

    /// The one of this name, if it is one of them.
    pub(crate) fn tool_here(&self, name: &str) -> Option<&ServerTool> {
        self.tools_here().find(|tool| tool.name() == name)
    }

    /// Whether there can be rounds.
    pub(crate) fn calls_tools_here(&self) -> bool {
        self.prompt.is_none() && self.tool_choice != ToolChoice::None && self.tools_here().next().is_some()
    }

    /// The messages as the chat template takes them: media parts are `{"type": "image"}` and the like, of the kinds that it knows.
    pub(crate) fn template_messages(&self, since: &[Message], shown_as: impl Fn(MediaKind) -> MediaKind) -> Vec<Value> {
        self.messages.iter().chain(since).map(|message| message.for_template(&shown_as)).collect()
    }
}

impl Part {
    /// Where its media are, if it is any.
    pub fn source(&self) -> Option<&MediaSource> {
        match self {
            Self::Text(_) => None,
            Self::Image(source, _) | Self::Audio(source, _) | Self::Video(source, _) | Self::Document(source, _) => Some(source),
        }
    }

    /// The same, to be put elsewhere.
    pub fn source_mut(&mut self) -> Option<&mut MediaSource> {
        match self {
            Self::Text(_) => None,
            Self::Image(source, _) | Self::Audio(source, _) | Self::Video(source, _) | Self::Document(source, _) => Some(source),
        }
    }

    fn item(&self, param: String) -> Option<Item<'_>> {
        let (source, wanted) = match self {
            Self::Text(_) | Self::Document(..) => return None,
            Self::Image(source, options) => (source, Wanted::Image(*options)),
            Self::Audio(source, options) => (source, Wanted::Audio(*options)),
            Self::Video(source, options) => (source, Wanted::Video(*options)),
        };
        Some(Item { param, source, wanted })
    }
}

impl std::fmt::Display for MediaSource {
    /// Where it is, or how much of it is here.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Frames { frames, .. } => write!(f, "{} frames", frames.len()),
        }
    }
}

impl From<&str> for MediaSource {
    /// A URL or path.
    fn from(url: &str) -> Self {
        Self::Url(url.into())
    }
}

impl Message {
    /// What is said in parts.
    pub fn parts(&self) -> &[Part] {
        match &self.content {
            Content::Text(_) => &[],
            Content::Parts(parts) => parts,
        }
    }

    fn for_template(&self, shown_as: impl Fn(MediaKind) -> MediaKind) -> Value {
        let media = |kind| json!({"type": shown_as(kind).name()});
        let part = |part: &Part| match part {
            Part::Text(text) => json!({"type": "text", "text": text}),
            Part::Image(..) => media(MediaKind::Image),
            Part::Audio(..) => media(MediaKind::Audio),
            Part::Video(..) => media(MediaKind::Video),
            // Read before.
            Part::Document(..) => Value::Null,
        };
        let content = match &self.content {
            Content::Text(text) => Value::String(text.clone()),
            Content::Parts(parts) => parts.iter().map(part).collect(),
        };
        let mut message = self.extra.clone();
        calls::for_template(&mut message);
        message.insert("role".into(), self.role.clone().into());
        message.insert("content".into(), content);
        Value::Object(message)
    }
}
