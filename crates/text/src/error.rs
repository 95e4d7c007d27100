use thiserror::Error;

/// What can go wrong between words and tokens.
#[derive(Debug, Error)]
pub enum TextError {
    /// `tokenizer.json` does not describe a tokenizer.
    #[error("{file}: not a usable tokenizer: {reason}")]
    Tokenizer {
        /// The file it was read from.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// A text that the tokenizer cannot turn into tokens.
    #[error("the text cannot be tokenized: {0}")]
    Encode(String),
    /// Ids that the tokenizer cannot turn into text.
    #[error("the tokens cannot be decoded: {0}")]
    Decode(String),
    /// No source of a chat template was found.
    #[error(
        "no chat template: the model ships none (looked in processor_config.json, chat_template.jinja, \
         tokenizer_config.json and chat_template.json); give one with --chat-template FILE"
    )]
    NoTemplate,
    /// A chat template that does not parse, or a file that should hold one and does not.
    #[error("{file}: {reason}")]
    Template {
        /// The file it was read from.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tool definition that is none.
    #[error("{place}: {reason}")]
    Tool {
        /// Which of them.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A grammar that is not one, or cannot be followed with this tokenizer.
    #[error("the grammar cannot be followed: {0}")]
    Grammar(String),
    /// The chat template refused these messages, or ran out of its budget.
    #[error("the chat template refuses these messages: {0}")]
    Render(String),
}
