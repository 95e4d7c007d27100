//! Load a multimodal model and talk to it.
//!
//! ```no_run
//! use mistralrs::{ChatRequest, ImageOptions, LoadOptions, Model, ModelSource, Part};
//!
//! # async fn example(hub: mistralrs::Hub) -> Result<(), mistralrs::Error> {
//! let options = LoadOptions::new("./my-model".parse()?, hub);
//! let model = Model::load(options, std::sync::Arc::new(|_| ())).await?;
//! let picture = Part::Image("photo.jpg".into(), ImageOptions::default());
//! let request = ChatRequest::user(vec![picture, Part::Text("What is this?".into())]);
//! println!("{}", model.answer(&request).await?.text);
//! # Ok(())
//! # }
//! ```
//!
//! Knows: how a request becomes a prompt and events become words ([`Model`], [`ChatRequest`], [`AnswerStream`]), where models
//! and media come from ([`ModelSource`], [`Hub`], [`FileAccess`], [`Reach`]), and which functions run here when a model calls them
//! ([`ToolBox`], [`WebSearch`], [`Mcp`]).
//!
//! Must never know: the JSON of any wire, tensors, what a family does with its media, schedules.

mod agent;
mod answer;
mod boxes;
mod cached;
mod calls;
mod chat;
mod constraint;
mod demo;
mod documents;
mod embed;
mod error;
mod fetch;
mod hub;
mod importance;
mod load;
mod machine;
mod media;
mod plan;
mod prepare;
mod preview;
mod quantise;
mod reach;
mod round;
mod source;
mod tools;
mod topology;

pub use ::media::{
    AudioOptions, Detail, Ffmpeg, Image, ImageOptions, OptionError, PageOptions, PdfReader, VideoOptions, write_pages,
};
pub use answer::{Answer, AnswerStream, Delta, Finish, Piece, Summary, Token};
pub use boxes::BoundingBox;
pub use cached::CachedModel;
pub use calls::{Call, CallDelta};
pub use chat::{ChatRequest, Content, MediaSource, Message, Part, ROUNDS_USUAL, RawPrompt, ToolChoice};
pub use documents::DocumentOptions;
pub use embed::Embedding;
pub use engine::{Dry, Sampling, Stats, Timings, Usage};
pub use error::{Error, Fault};
pub use fetch::FileAccess;
pub use hub::{Hub, OnProgress, Progress, Task};
pub use importance::ImportanceSource;
pub use load::{Capacity, Dtype, KvCache, LoadOptions, Model, SliceSource};
pub use machine::{Machine, Memory};
pub use media::{Extent, Received, Spent};
pub use models::{FAMILIES, Family};
pub use nn::{Coverage, KvFormat, MediaKind, Organization, Quant, Reading};
pub use plan::MemoryPlan;
pub use prepare::MEDIA_MAX;
pub use preview::{ControlTokens, Preview};
pub use reach::Reach;
pub use source::ModelSource;
pub use text::{Dialect, Grammar};
pub use tools::{
    Citation, Mcp, McpConfig, McpServer, McpSource, Outcome, SearchContext, ServerTool, Source, ToolBox, ToolKind, ToolOutput,
    ToolProgress, ToolRun, WebSearch, WebSearchOptions,
};
pub use topology::DeviceLayers;
