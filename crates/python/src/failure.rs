//! What goes wrong → Python's exceptions, which the package defines.

use mistralrs::Error;
use pyo3::prelude::*;
use wire::{Kind, Refusal};

/// Why an operation comes to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The model cannot be loaded.
    Load(String),
    /// The request is refused, or its answer failed.
    Refused(Refusal),
    /// Something here panicked, or was used in a way that it cannot be.
    Internal(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let (kind, message, param, code) = match failure {
            Failure::Load(message) => ("load", message, None, None),
            Failure::Internal(message) => ("internal", message, None, None),
            Failure::Refused(Refusal { kind, message, param, code }) => {
                let kind = match kind {
                    Kind::Invalid => "invalid",
                    Kind::Forbidden => "forbidden",
                    Kind::Overloaded => "overloaded",
                    Kind::Internal => "generation",
                };
                (kind, message, param, code)
            }
        };
        Python::attach(|py| {
            let error = py.import("mistralrs.errors").and_then(|module| module.getattr("_from_native"));
            error.and_then(|error| error.call1((kind, message, param, code))).map_or_else(|e| e, PyErr::from_value)
        })
    }
}
