use ::media::MediaError;
use models::ModelError;
use nn::{MediaKind, Quant};
use thiserror::Error;

use crate::MemoryPlan;
use crate::plan::amount;

/// Why a model cannot be loaded or a request not be answered. Every message is one line for a person.
#[derive(Debug, Error)]
pub enum Error {
    /// The model's files are not what they should be.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model cannot be found or downloaded.
    #[error("{0}")]
    Source(String),
    /// The model, or the work that it is to do, takes more memory than there is.
    #[error("{}", explain(.plan, *.smaller))]
    Memory {
        /// What takes how much.
        plan: Box<MemoryPlan>,
        /// The most precise format in which the model would fit.
        smaller: Option<Quant>,
    },
    /// The request is at fault, at the place that `param` names.
    #[error("{param}: {reason}")]
    Request {
        /// Path of the part, as in `messages[0].content[1]`.
        param: String,
        /// What kind of fault.
        fault: Fault,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The prompt and the answer do not fit.
    #[error("the prompt has {tokens} tokens, which with {wanted} to generate is more than the context of {allowed}")]
    Context {
        /// Tokens of the prompt, media rows included.
        tokens: usize,
        /// Tokens to generate.
        wanted: usize,
        /// Tokens that fit.
        allowed: usize,
    },
    /// Too many requests wait.
    #[error("too many requests are waiting; try again later")]
    Overloaded,
    /// The answer failed on its way.
    #[error("the answer failed: {0}")]
    Generation(String),
}

/// What kind of fault a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A value is missing, malformed or out of range.
    Invalid,
    /// A media item cannot be fetched or decoded.
    Media(MediaKind),
    /// A document cannot be fetched or read.
    Document,
    /// The model does not take this kind of media.
    Modality,
    /// The item lies where this process may not look.
    Forbidden,
    /// A media item is larger than the limits allow.
    TooLarge,
}

/// A line that says what to do, and the numbers.
fn explain(plan: &MemoryPlan, smaller: Option<Quant>) -> String {
    let (needed, allowed) = (amount(plan.total()), amount(plan.allowed.unwrap_or(0)));
    let advice = match (plan.context_max, smaller) {
        (0, Some(quant)) => format!("; quantised to {quant} it would fit"),
        (0, None) => String::new(),
        (context, None) => format!("; the longest conversation that fits has {context} tokens"),
        (context, Some(quant)) => format!("; the longest conversation that fits has {context} tokens, or quantise it to {quant}"),
    };
    format!("the model would take {needed} of memory, and {allowed} may be taken{advice}\n{plan}")
}

impl Fault {
    /// That of an item which cannot be read: `unusable`, unless it is too large or an option makes no sense.
    pub(crate) fn of(e: &MediaError, unusable: Self) -> Self {
        match e {
            MediaError::TooLarge { .. } => Self::TooLarge,
            MediaError::Option(_) => Self::Invalid,
            _ => unusable,
        }
    }
}

impl Error {
    pub(crate) fn request(param: impl Into<String>, fault: Fault, reason: impl ToString) -> Self {
        Self::Request { param: param.into(), fault, reason: reason.to_string() }
    }
}
