//! What went wrong, as clients are told: an error of the facade, or of the JSON.

use mistralrs::{Error, Fault, MediaKind};

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whose fault it is.
    pub kind: Kind,
    /// One line for a person.
    pub message: String,
    /// What is at fault in the request, if that is known: `messages[0].content[1]`, say.
    pub param: Option<String>,
    /// What programs know it by.
    pub code: Option<&'static str>,
}

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request's.
    Invalid,
    /// The request's, which asks for what it may not have.
    Forbidden,
    /// Nobody's: too many others ask.
    Overloaded,
    /// Ours.
    Internal,
}

impl Refusal {
    /// A value of the request is at fault.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: Kind::Invalid, message: message.into(), param: Some(param.into()), code: Some("invalid_value") }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (kind, param, code) = match error {
            Error::Request { param, fault, .. } => {
                let (kind, code) = match fault {
                    Fault::Invalid => (Kind::Invalid, "invalid_value"),
                    Fault::Media(MediaKind::Image) => (Kind::Invalid, "invalid_image"),
                    Fault::Media(MediaKind::Audio) => (Kind::Invalid, "invalid_audio"),
                    Fault::Media(MediaKind::Video) => (Kind::Invalid, "invalid_video"),
                    Fault::Document => (Kind::Invalid, "invalid_file"),
                    Fault::Modality => (Kind::Invalid, "unsupported_modality"),
                    Fault::Forbidden => (Kind::Forbidden, "forbidden"),
                    Fault::TooLarge => (Kind::Invalid, "media_too_large"),
                };
                (kind, Some(param), Some(code))
            }
            Error::Context { .. } => (Kind::Invalid, Some("messages".into()), Some("context_length_exceeded")),
            Error::Overloaded => (Kind::Overloaded, None, Some("overloaded")),
            Error::Generation(_) | Error::Model(_) | Error::Source(_) | Error::Memory { .. } => (Kind::Internal, None, None),
        };
        Self { kind, message, param, code }
    }
}
