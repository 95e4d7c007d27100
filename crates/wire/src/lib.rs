//! OpenAI's JSON for chats and completions: bodies → [`mistralrs::ChatRequest`], answers → objects and chunks. Whatever carries it: the
//! server does over HTTP, the Python module within a process.
//!
//! Knows: the names of fields and their spellings, what is refused and by which name.
//!
//! Must never know: HTTP, Python, how a model is loaded, whose model a request is for.

pub mod chat;
pub mod chunks;
pub mod completions;
pub mod content;
pub mod image;
pub mod options;
pub mod read;
pub mod refusal;
pub mod response;
pub mod tooling;

mod audio;
mod video;

pub use refusal::{Kind, Refusal};
