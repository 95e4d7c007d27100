//! What went wrong → a status and the error object that OpenAI's clients understand.

use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use mistralrs::{Error, Fault, MediaKind};
use serde_json::{Value, json};

/// Bytes of a message. What it repeats of a request may be longer.
const MESSAGE_BYTES_MAX: usize = 4096;

const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A value of the request is at fault.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        Self::new(StatusCode::BAD_REQUEST, message).param(param).code("invalid_value")
    }

    /// The server ends.
    pub fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down").code("unavailable")
    }

    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// What is at fault, if that is known.
    pub fn place(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The same of another place, which the message begins with.
    pub fn moved(mut self, from: &str, to: &str, param: String) -> Self {
        if let Some(rest) = self.message.strip_prefix(from) {
            self.message = format!("{to}{rest}");
        }
        self.param(param)
    }

    /// The `error` object of OpenAI, in what Anthropic's clients look for: each reads its own.
    pub fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "overloaded",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let fits = |end: &usize| self.message.is_char_boundary(*end);
        let end = (0..=self.message.len().min(MESSAGE_BYTES_MAX)).rev().find(fits).unwrap_or(0);
        let message = &self.message[..end];
        json!({"type": "error", "error": {"message": message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Request { param, fault, .. } => {
                let (status, code) = match fault {
                    Fault::Invalid => (StatusCode::BAD_REQUEST, "invalid_value"),
                    Fault::Media(MediaKind::Image) => (StatusCode::BAD_REQUEST, "invalid_image"),
                    Fault::Media(MediaKind::Audio) => (StatusCode::BAD_REQUEST, "invalid_audio"),
                    Fault::Media(MediaKind::Video) => (StatusCode::BAD_REQUEST, "invalid_video"),
                    Fault::Modality => (StatusCode::BAD_REQUEST, "unsupported_modality"),
                    Fault::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
                    Fault::TooLarge => (StatusCode::BAD_REQUEST, "media_too_large"),
                };
                Self::new(status, message).param(param).code(code)
            }
            Error::Context { .. } => {
                Self::new(StatusCode::BAD_REQUEST, message).param("messages").code("context_length_exceeded")
            }
            Error::Overloaded => Self::new(StatusCode::TOO_MANY_REQUESTS, message).code("overloaded"),
            Error::Generation(_) | Error::Model(_) | Error::Source(_) | Error::Memory { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}
