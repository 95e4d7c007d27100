//! Time: which sequence computes what, when, in which cache blocks, and what is said of it.
//!
//! Knows: the queue and its limits ([`EngineConfig`]), sequences and the blocks they own, how many rows a step may have, how
//! long encoded media live, how a token is drawn from logits ([`Sampling`]). One thread owns the model, the cache and the
//! sequences, and holds no locks; the world reaches it by one bounded channel ([`Engine::submit`]) and hears of each request by
//! a channel of its own ([`Event`]). Dropping that channel's receiver cancels the request within a step.
//!
//! A sequence is a list of tokens of which some are computed. A step computes a few more of each: the rest of a prompt in
//! chunks, or the token that was drawn last. There are no other modes; a sequence that lost its blocks starts over with all the
//! tokens it has, and goes on as if nothing had been.
//!
//! Full blocks can be found by a hash of what they hold, as long as nobody needs their room: a sequence begins behind the blocks
//! that it finds, whoever computed them. One that would compute what another is computing waits for it.
//!
//! Must never know: families, modalities, JSON, text, the wire. A prompt is numbers ([`nn::Prompt`]), a model is a trait
//! ([`nn::Model`]), an answer is token ids. Nothing that a request or a model does ends the thread.

mod blocks;
mod config;
mod constraint;
mod encodings;
mod engine;
mod errand;
mod error;
mod layout;
mod pace;
mod penalties;
mod prefix;
mod queue;
mod recent;
mod request;
mod runner;
mod sampler;
mod sampling;
mod scheduler;
mod sequence;
mod stats;
mod worker;

pub use config::{CacheSize, EngineConfig};
pub use constraint::{Constraint, Mask};
pub use engine::Engine;
pub use errand::Rows;
pub use error::EngineError;
pub use recent::Recent;
pub use request::{Event, Events, FinishReason, Logprobs, Request, Timings, Usage};
pub use sampling::{Dry, Sampling};
pub use stats::Stats;
