use thiserror::Error;

/// Why the engine does not start, a request is refused, or a sequence ends without an answer.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum EngineError {
    /// A number of the configuration or of the request is not in its range.
    #[error("{field} is {found}; it must be {allowed}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The range, in words.
        allowed: &'static str,
    },
    /// The cache cannot be allocated.
    #[error("no room for a cache of {bytes} bytes: {reason}")]
    Cache {
        /// Bytes asked for.
        bytes: usize,
        /// What the device said.
        reason: String,
    },
    /// The engine's thread cannot be started.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(String),
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// Prompt and answer can never fit.
    #[error("prompt and answer may take {tokens} tokens together; at most {allowed} are allowed")]
    ContextTooLong {
        /// Tokens of the prompt, media included, and of the longest answer asked for.
        tokens: usize,
        /// Tokens that a sequence may have.
        allowed: usize,
    },
    /// A token id that the model does not have.
    #[error("{field} holds token {id}; the vocabulary has {vocab} tokens")]
    UnknownToken {
        /// Where the id stands.
        field: &'static str,
        /// The id.
        id: u32,
        /// Number of ids.
        vocab: usize,
    },
    /// The parts of the prompt do not fit together.
    #[error("the prompt contradicts itself: {0}")]
    Prompt(&'static str),
    /// Too many requests are waiting.
    #[error("{queue_max} requests are waiting already")]
    Overloaded {
        /// Requests that may wait.
        queue_max: usize,
    },
    /// A media item could not be encoded.
    #[error("media item {item} cannot be encoded: {reason}")]
    Encode {
        /// Its place among the prompt's items, from 0.
        item: usize,
        /// What the model said.
        reason: String,
    },
    /// A step failed because of this sequence.
    #[error("the model failed: {0}")]
    Compute(String),
    /// The model's logits hold a number that is not finite.
    #[error("the model's logits are not finite")]
    NotFinite,
    /// The answer cannot go on as its constraint demands.
    #[error("the answer cannot be continued in the form that was asked for: {0}")]
    Constraint(String),
    /// A mistake of the engine itself.
    #[error("the engine failed: {0}")]
    Internal(String),
    /// The engine has gone.
    #[error("the engine was shut down")]
    ShutDown,
}
