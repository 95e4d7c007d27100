//! What is seen of every request: its id, how it ended, how long it took.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Error;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};

use crate::app::App;
use crate::edge::connection::Answering;
use crate::edge::phase::Open;

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_BYTES_MAX: usize = 128;
/// What is noted of a request whose client went away before it had the whole answer.
const CLIENT_GONE: u16 = 499;

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// By what it is found: what the client named it, or else 32 hexadecimal digits.
    pub id: String,
    /// Who asked.
    pub peer: Option<SocketAddr>,
    /// How.
    pub method: Method,
    /// What, without the query.
    pub path: String,
    /// The answer's, or 499 when the client went away before it had all of it.
    pub status: u16,
    /// Of the answer.
    pub bytes: u64,
    /// From the end of the request's header to the end of the answer.
    pub took: Duration,
}

/// Notes how a request ended, when it has.
struct Note {
    access: Access,
    /// What the answer said; the client may not have it yet.
    status: Option<StatusCode>,
    began: Instant,
    app: App,
    _open: Open,
    _answering: Option<Answering>,
}

impl Note {
    fn finish(&mut self) {
        if let Some(status) = self.status {
            self.access.status = status.as_u16();
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.access.took = self.began.elapsed();
        self.app.recorder.ended(self.access.status, self.access.took);
        if let Some(on_access) = &self.app.settings.on_access {
            on_access(&self.access);
        }
    }
}

/// Gives a request its id, and notes its end.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let named = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let named = named.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX);
    let id = named.map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_string);
    let answering = request.extensions().get::<Answering>().cloned();
    let access = Access {
        id: id.clone(),
        peer: request.extensions().get::<Peer>().map(|peer| peer.0),
        method: request.method().clone(),
        path: request.uri().path().to_string(),
        status: CLIENT_GONE,
        bytes: 0,
        took: Duration::ZERO,
    };
    let mut note = Note { access, status: None, began: Instant::now(), _open: app.phases.open(), _answering: answering, app };
    let mut response = next.run(request).await;
    note.status = Some(response.status());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|body| Body::new(Watched { body, note }))
}

/// A body that knows when it has been taken.
struct Watched {
    body: Body,
    note: Note,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.note.access.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) => self.note.finish(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Nobody asks a body of a known length for more than that.
        if self.body.is_end_stream() {
            self.note.finish();
        }
    }
}
