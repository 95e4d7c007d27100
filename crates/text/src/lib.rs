//! Text ⇄ tokens.
//!
//! Knows: `tokenizer.json` ([`Tokenizer`]), chat templates ([`ChatTemplate`]), how a user's words are kept from becoming
//! control tokens ([`Guard`]), which tokens may come next in an answer of a given form ([`Grammars`]), and how generated tokens
//! become words again ([`Detokenizer`], [`StopMatcher`]).
//!
//! Must never know: tensors, models, media, the network, files. It is handed strings and gives back strings and ids.

mod calls;
mod detokenizer;
mod error;
mod grammar;
mod guard;
mod json;
mod stop;
mod tekken;
mod template;
mod template_files;
mod tokenizer;

pub use calls::{AnswerGrammar, Calls, Dialect, Listener, Said, Thinking, Thoughts, Tool};
pub use detokenizer::Detokenizer;
pub use error::TextError;
pub use grammar::{Grammar, Grammars, Guide};
pub use guard::{BREAK, Guard, without_breaks};
pub use stop::StopMatcher;
pub use template::{ChatTemplate, Conversation, NUMBER, OWN_LINE};
pub use template_files::{TemplateFile, TemplateFiles};
pub use tokenizer::{Encoded, Piece, Tokenizer};
