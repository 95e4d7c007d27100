//! How models call functions and think aloud: reading it out of an answer, and holding an answer to it.

mod dialect;
mod grammar;
mod json;
mod listener;
mod named;
mod python;
mod quoted;
mod schema;
mod sink;
mod tag;
mod tool;

pub use dialect::{Dialect, Thinking, Thoughts};
pub(crate) use grammar::choice;
pub use grammar::{AnswerGrammar, Calls};
pub use listener::{Listener, Said};
pub use tool::Tool;

use sink::{Reader, Sink, Step};
