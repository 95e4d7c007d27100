//! What went wrong → a status and the error object that OpenAI's clients understand.

use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use mistralrs::Error;
use serde_json::{Value, json};
use wire::{Kind, Refusal};

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
        Refusal::invalid(param, message).into()
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

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, message, param, code } = refusal;
        let status = match kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message, param, code }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Refusal::from(error).into()
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
