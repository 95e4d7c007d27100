//! Streamable HTTP over the client that everything else here uses, too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::common::http_header::{EVENT_STREAM_MIME_TYPE, HEADER_SESSION_ID, JSON_MIME_TYPE};
use rmcp::transport::streamable_http_client::{SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse};
use sse_stream::{Sse, SseStream};

/// Bytes of an answer.
const BYTES_MAX: usize = 16 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);

type Failed = StreamableHttpError<reqwest::Error>;

/// A client that sends a message, and reads what comes back for it. It does not listen to what a server says unasked.
#[derive(Debug, Clone)]
pub(super) struct Http(Client);

impl Http {
    pub fn new() -> Result<Self, String> {
        let client = Client::builder().connect_timeout(CONNECT_MAX).build();
        client.map(Self).map_err(|e| format!("cannot set up HTTP: {e}"))
    }
}

/// A request with what every one brings.
fn with_headers(
    mut request: RequestBuilder,
    session: Option<Arc<str>>,
    token: Option<String>,
    headers: HashMap<HeaderName, HeaderValue>,
) -> RequestBuilder {
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(session) = session {
        request = request.header(HEADER_SESSION_ID, &*session);
    }
    match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    }
}

impl StreamableHttpClient for Http {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        let in_session = session.is_some();
        let body = serde_json::to_vec(&message)?;
        let request = with_headers(self.0.post(&*uri), session, token, headers);
        let request = request.header(ACCEPT, format!("{EVENT_STREAM_MIME_TYPE}, {JSON_MIME_TYPE}"));
        let request = request.header(CONTENT_TYPE, JSON_MIME_TYPE).body(body);
        let response = request.send().await.map_err(StreamableHttpError::Client)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
        let (session, kind) = (header(HEADER_SESSION_ID), header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase());
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => return Ok(StreamableHttpPostResponse::Accepted),
            StatusCode::NOT_FOUND if in_session => return Err(StreamableHttpError::SessionExpired),
            _ => {}
        }
        if response.status().is_success() && kind.starts_with(EVENT_STREAM_MIME_TYPE) {
            return Ok(StreamableHttpPostResponse::Sse(events(response), session));
        }
        let status = response.status();
        let body = whole(response).await?;
        match serde_json::from_slice::<ServerJsonRpcMessage>(&body) {
            Ok(message) if status.is_success() || matches!(message, JsonRpcMessage::Error(_)) => {
                Ok(StreamableHttpPostResponse::Json(message, session))
            }
            _ if status.is_success() && body.is_empty() => Ok(StreamableHttpPostResponse::Accepted),
            _ => Err(StreamableHttpError::UnexpectedServerResponse(format!("HTTP {status} without a message").into())),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failed> {
        let request = with_headers(self.0.delete(&*uri), Some(session), token, headers);
        request.send().await.map(drop).map_err(StreamableHttpError::Client)
    }

    async fn get_stream(
        &self,
        _: Arc<str>,
        _: Option<Arc<str>>,
        _: Option<String>,
        _: Option<String>,
        _: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        Err(StreamableHttpError::ServerDoesNotSupportSse)
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, Failed> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(StreamableHttpError::Client)? {
        if body.len() + chunk.len() > BYTES_MAX {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The events of an answer; those behind its first megabytes do not come.
fn events(response: Response) -> BoxStream<'static, Result<Sse, SseError>> {
    let mut bytes = 0;
    let within = response.bytes_stream().take_while(move |chunk| {
        bytes += chunk.as_ref().map_or(0, |chunk| chunk.len());
        std::future::ready(bytes <= BYTES_MAX)
    });
    SseStream::from_bytes_stream(within).boxed()
}
