//! Connections: how many, how slow, how they end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt;

use crate::edge::{Peer, Phase, Phases};
use crate::settings::ConnectionLimits;

const HEADERS_MAX: usize = 100;
const HEADER_BYTES_MAX: usize = 64 << 10;
/// When no connection can be taken (no more file descriptors, say), others have to end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For what is told to those whose answers are cut off.
const GOODBYE: Duration = Duration::from_secs(1);

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All answers were finished.
    Drained,
    /// Some were cut off: it took too long, or a second signal came.
    Cut,
}

/// Serves until `signal` comes; then finishes what has begun, for a while or until `signal` comes again.
pub async fn accept<F: Future<Output = ()>>(
    listener: TcpListener,
    router: Router,
    phases: &Phases,
    limits: ConnectionLimits,
    signal: impl Fn() -> F,
) -> End {
    let mut connections = JoinSet::new();
    let accepting = async {
        let places = Arc::new(Semaphore::new(limits.connections_max));
        loop {
            let place = places.clone().acquire_owned().await;
            let Ok((stream, peer)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let serving = serve(stream, Peer(peer), router.clone(), (phases.clone(), limits));
            connections.spawn(async move {
                serving.await;
                drop(place);
            });
            while connections.try_join_next().is_some() {}
        }
    };
    let ending = async {
        signal().await;
        phases.go_on(Phase::Draining);
        let end = tokio::select! {
            () = phases.idle() => End::Drained,
            () = sleep(limits.drain) => End::Cut,
            () = signal() => End::Cut,
        };
        phases.go_on(Phase::Ended);
        end
    };
    let end = tokio::select! {
        end = ending => end,
        never = accepting => never,
    };
    let goodbye = async { while connections.join_next().await.is_some() {} };
    // Who has not taken leave by then is dropped.
    let _ = timeout(GOODBYE, goodbye).await;
    end
}

async fn serve(stream: TcpStream, peer: Peer, router: Router, (phases, limits): (Phases, ConnectionLimits)) {
    let fresh = phases.now() == Phase::Serving;
    // Small events are to leave at once; where that cannot be had, they leave later.
    let _ = stream.set_nodelay(true);
    let turn = Turn::default();
    let answered = turn.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(answered.begin());
        router.clone().oneshot(request.map(Body::new))
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.keep_alive);
    builder.max_headers(HEADERS_MAX).max_header_size(HEADER_BYTES_MAX);
    let heading = Some(Box::pin(sleep(limits.header)));
    let io = TokioIo::new(Patient { stream, limit: limits.reader_stuck, stuck: None, turn, header: limits.header, heading });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    // What goes wrong with a connection is between its two ends.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = phases.reached(Phase::Draining), if fresh => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Whose turn it is on a connection: the server's, while it answers, or the client's.
#[derive(Debug, Clone, Default)]
struct Turn(Arc<AtomicBool>);

/// The server's turn, for as long as a clone of this is there.
pub type Answering = Arc<Answered>;

#[derive(Debug)]
pub struct Answered(Turn);

impl Turn {
    fn begin(&self) -> Answering {
        self.0.store(true, Ordering::Release);
        Arc::new(Answered(self.clone()))
    }

    fn is_servers(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// A stream that fails when its other end takes nothing for a while, or takes too long over a header that it has begun.
struct Patient {
    stream: TcpStream,
    limit: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    turn: Turn,
    /// For which a header may come.
    header: Duration,
    heading: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        stuck.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.turn.is_servers() {
            self.heading = None;
            return read;
        }
        if self.heading.is_none() && buffer.filled().len() > before {
            self.heading = Some(Box::pin(sleep(self.header)));
        }
        match (&read, &mut self.heading) {
            (Poll::Pending, Some(heading)) => heading.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            _ => read,
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn h4_who_takes_nothing_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (limit, header) = (Duration::from_millis(50), Duration::MAX);
        let mut patient = Patient { stream, limit, stuck: None, turn: Turn::default(), header, heading: None };
        let all = vec![0; 64 << 20];
        assert_eq!(patient.write_all(&all).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(reader);
    }
}
