//! Who may ask: the name that the server was called by, and the key.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::edge::Phase;
use crate::error::Failure;
use crate::settings::Hosts;

/// Routes that say how the server is, to whoever asks and in every phase.
const OPEN: &str = "/health";

/// The keys of an operator. Their hashes are kept: comparing hashes takes the same time wherever they differ.
#[derive(Debug, Clone)]
pub struct Keys(Vec<blake3::Hash>);

impl Keys {
    pub fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| blake3::hash(key.as_bytes())).collect())
    }

    /// OpenAI's clients send `Authorization: Bearer KEY`, Anthropic's `x-api-key: KEY`.
    fn admit(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let named = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let mut found = self.0.is_empty();
        for given in bearer.into_iter().chain(named).map(|key| blake3::hash(key.as_bytes())) {
            // All are compared, so that time does not tell which one fits.
            found |= self.0.iter().fold(false, |found, key| found | (*key == given));
        }
        found
    }
}

/// Lets a request through to its route, or refuses it.
pub async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(failure) = check(&app, &request) {
        let mut response = failure.into_response();
        if app.phases.now() != Phase::Serving {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return response;
    }
    next.run(request).await
}

fn check(app: &App, request: &Request) -> Result<(), Failure> {
    if let Hosts::Loopback(others) = &app.settings.hosts {
        // A target in absolute form goes before the header, as it does for those who route by it.
        let target = request.uri().authority().map(|authority| authority.as_str());
        let header = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
        if target.into_iter().chain(header).any(|host| !is_local(host, others)) {
            let message = "the server is not called by this name; see --allow-host";
            return Err(Failure::new(StatusCode::FORBIDDEN, message).code("host_not_allowed"));
        }
    }
    if request.uri().path() == OPEN {
        return Ok(());
    }
    if !app.keys.admit(request.headers()) {
        let message = "a valid API key is needed: set the header Authorization: Bearer KEY";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"));
    }
    match app.phases.now() {
        Phase::Serving => Ok(()),
        Phase::Draining | Phase::Ended => Err(Failure::ending()),
    }
}

/// Whether a host, with or without a port, is this machine's own name or one of the others.
fn is_local(host: &str, others: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || others.iter().any(|other| other.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_loopback_address_are_local() {
        let others = ["box.example".to_string()];
        let cases = [
            ("localhost", true),
            ("LOCALHOST:1234", true),
            ("127.0.0.1:80", true),
            ("127.9.9.9", true),
            ("[::1]:80", true),
            ("box.example:1", true),
            ("localhost.evil.example", false),
            ("evil.example:1234", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("", false),
            ("?", false),
        ];
        for (host, local) in cases {
            assert_eq!(is_local(host, &others), local, "{host}");
        }
    }
}
