//! `mistralrs serve`: the HTTP server until a signal ends it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use mistralrs::{FileAccess, KvCache};
use tokio::net::TcpListener;

use crate::args::ServeOptions;
use crate::load::load;

pub async fn serve(options: ServeOptions) -> Result<()> {
    let address = SocketAddr::new(options.host, options.port);
    // Taken before the model is loaded: a port in use is told at once.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let files = match (options.media_root.is_empty(), options.host.is_loopback()) {
        (false, _) => FileAccess::Below(options.media_root),
        (true, true) => FileAccess::All,
        (true, false) => FileAccess::None,
    };
    let model = load(options.model, files).await?;
    eprintln!("serving {} ({})", model.id(), model.family().title);
    let KvCache { bytes, tokens, format } = model.kv_cache();
    let (megabytes, context) = (bytes / 1_000_000, model.context_max());
    eprintln!("keys and values: {megabytes} MB of {format:?}, room for {tokens} tokens; {context} in a conversation at most");
    eprintln!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, server::router(model)).with_graceful_shutdown(signal()).await?;
    Ok(())
}

/// Ctrl-C, or a request to terminate.
async fn signal() {
    let interrupt = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    interrupt.await;
}
