//! `mistralrs serve`: the HTTP server until a signal ends it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::http::HeaderValue;
use mistralrs::{FileAccess, Reach};
use serde_json::json;
use server::{Access, ConnectionLimits, End, Hosts, OnAccess, Origins, Server, Settings};
use tokio::net::TcpListener;

use crate::args::{AccessLogFormat, ServeOptions};
use crate::environment;
use crate::load::load;
use crate::tooling::Tooling;

pub async fn serve(options: ServeOptions) -> Result<()> {
    let address = SocketAddr::new(options.host, options.port);
    let mut settings = settings(&options)?;
    // Taken before the model is loaded: a port in use is told at once.
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
    let files = match (options.media_root.is_empty(), options.host.is_loopback()) {
        (false, _) => FileAccess::Below(options.media_root),
        (true, true) => FileAccess::All,
        (true, false) => FileAccess::None,
    };
    if settings.api_keys.is_empty() && !options.host.is_loopback() {
        eprintln!("warning: whoever reaches {} may ask; --api-key restricts that", options.host);
    }
    let reach = Reach::Public { and: options.allow_media_host };
    let Tooling { mcp, web_search, rounds_max } = options.tools.ready(reach.clone()).await?;
    settings = Settings { mcp_servers: mcp.servers, tools: mcp.tools, web_search, tool_rounds_max: rounds_max, ..settings };
    let model = load(options.model, files, reach).await?;
    eprintln!("serving {} ({})", model.id(), model.family().title);
    eprintln!("memory:\n{}", model.memory_plan());
    eprintln!("tokens of a conversation, at most: {}", model.context_max());
    eprintln!("listening on http://{}", listener.local_addr()?);
    match Server::new(model, settings).serve(listener, signal).await {
        End::Drained => Ok(()),
        // What is still computed is not waited for.
        End::Cut => std::process::exit(0),
    }
}

fn settings(options: &ServeOptions) -> Result<Settings> {
    let mut api_keys = options.api_key.clone();
    api_keys.extend(environment::api_keys());
    if api_keys.iter().any(String::is_empty) {
        bail!("--api-key must not be empty");
    }
    let origins = match options.allow_origin.as_slice() {
        [] => Origins::None,
        origins if origins.iter().any(|origin| origin == "*") => Origins::Any,
        origins => Origins::Listed(origins.iter().map(|origin| self::origin(origin)).collect::<Result<_>>()?),
    };
    let hosts = if options.host.is_loopback() { Hosts::Loopback(options.allow_host.clone()) } else { Hosts::Any };
    let on_access: OnAccess = match options.access_log_format {
        AccessLogFormat::Text => Arc::new(|access| note(&as_text(access))),
        AccessLogFormat::Json => Arc::new(|access| note(&as_json(access))),
    };
    Ok(Settings {
        api_keys,
        hosts,
        origins,
        body_bytes_max: (options.max_body_mb as usize) << 20,
        uploads_bytes_max: options.uploads_mb.saturating_mul(1 << 20),
        responses_bytes_max: options.responses_mb.saturating_mul(1 << 20),
        kept_for: Duration::from_secs(options.keep_seconds),
        limits: ConnectionLimits {
            connections_max: options.max_connections as usize,
            drain: Duration::from_secs(options.drain_seconds),
            ..ConnectionLimits::default()
        },
        on_access: (!options.disable_access_log).then_some(on_access),
        ..Settings::default()
    })
}

/// A scheme and a host, as a browser names the page.
fn origin(text: &str) -> Result<HeaderValue> {
    let is_origin = text.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
    let value = HeaderValue::from_str(text).ok().filter(|_| is_origin);
    value.with_context(|| format!("--allow-origin {text}: an origin looks like https://example.com, without a path"))
}

/// A log that cannot be written is no reason to stop.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn as_text(access: &Access) -> String {
    let Access { id, peer, method, path, status, bytes, took } = access;
    let peer = peer.map_or_else(|| "-".to_string(), |peer| peer.to_string());
    format!("{peer} {method} {path} {status} {bytes} B {} ms {id}", took.as_millis())
}

fn as_json(access: &Access) -> String {
    let Access { id, peer, method, path, status, bytes, took } = access;
    let peer = peer.map(|peer| peer.to_string());
    let millis = took.as_millis() as u64;
    let method = method.as_str();
    json!({"id": id, "peer": peer, "method": method, "path": path, "status": status, "bytes": bytes, "ms": millis}).to_string()
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
