use thiserror::Error;

/// What is wanted of a sound.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AudioOptions {
    /// What comes before is left out, in seconds.
    pub start: Option<f64>,
    /// What comes after is left out, in seconds.
    pub end: Option<f64>,
}

impl AudioOptions {
    /// Refuses what makes no sense for any sound.
    ///
    /// # Errors
    /// The option at fault.
    pub fn check(&self) -> Result<(), OptionError> {
        check_span(self.start, self.end)
    }
}

/// An option that makes no sense, or not for this item.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{field} {reason}")]
pub struct OptionError {
    /// Which one.
    pub field: &'static str,
    /// What is wrong with it; goes on behind its name.
    pub reason: String,
}

impl OptionError {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// Refuses a part of a sound or clip that makes no sense, whatever it is a part of.
pub(crate) fn check_span(start: Option<f64>, end: Option<f64>) -> Result<(), OptionError> {
    let refuse = |field, reason: String| Err(OptionError::new(field, reason));
    match (start, end) {
        (Some(start), _) if !(start >= 0.0 && start.is_finite()) => {
            refuse("start", format!("must be a number of seconds from 0 on, not {start}"))
        }
        (start, Some(end)) if !(end > start.unwrap_or(0.0) && end.is_finite()) => {
            refuse("end", format!("must be a number of seconds after start, not {end}"))
        }
        _ => Ok(()),
    }
}

/// The part begins where nothing is left.
pub(crate) fn starts_behind(start: Option<f64>, what: &str, seconds: f64) -> OptionError {
    OptionError::new("start", format!("is {} s, but the {what} is {seconds:.2} s long", start.unwrap_or_default()))
}
