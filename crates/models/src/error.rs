use media::MediaError;
use nn::{MediaKind, NnError};
use text::TextError;
use thiserror::Error;

/// Why a model cannot be loaded, or a prompt not be made for it.
#[derive(Debug, Error)]
pub enum ModelError {
    /// No family has this architecture.
    #[error("{file}: architecture {architecture:?} is not supported; supported are {known}")]
    Architecture {
        /// Where it was read.
        file: String,
        /// What it says.
        architecture: String,
        /// All that are supported.
        known: String,
    },
    /// A configuration asks for something that cannot be built.
    #[error("{file}: {reason}")]
    Config {
        /// Its name.
        file: String,
        /// Key and reason.
        reason: String,
    },
    /// The family does not take this kind of media.
    #[error("{family} does not take {kind} input; it takes {accepted}")]
    Modality {
        /// Title of the family.
        family: &'static str,
        /// What was given.
        kind: MediaKind,
        /// What it takes.
        accepted: String,
    },
    /// A part of a nested model cannot be loaded.
    #[error("slice {name:?} {reason}")]
    Slice {
        /// Its name.
        name: String,
        /// What is wrong with it; goes on behind the name.
        reason: String,
    },
    /// The chat template did not write one marker for each item.
    #[error("the chat template wrote {markers} {kind} marker(s) for {items} {kind} item(s)")]
    Markers {
        /// Kind of the items.
        kind: MediaKind,
        /// Markers in the rendered prompt.
        markers: usize,
        /// Items in the messages.
        items: usize,
    },
    /// A media item cannot be made into model input.
    #[error("{0}")]
    Unusable(String),
    /// A file of the checkpoint, or a computation.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// Tokenizer or template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Decoding.
    #[error(transparent)]
    Media(#[from] MediaError),
}
