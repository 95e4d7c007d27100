use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use mistralrs::{ROUNDS_USUAL, ToolBox, WebSearch};

use crate::edge::Access;

/// What the operator of a server decides.
#[derive(Clone)]
pub struct Settings {
    /// Keys of which a request has to bring one; without any, all are served.
    pub api_keys: Vec<String>,
    /// By which names the server may be called.
    pub hosts: Hosts,
    /// Web pages that may ask it.
    pub origins: Origins,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of uploaded media that are kept.
    pub uploads_bytes_max: usize,
    /// Bytes of conversations that are kept for `previous_response_id`.
    pub responses_bytes_max: usize,
    /// How long uploads and conversations are kept.
    pub kept_for: Duration,
    /// What connections may take.
    pub limits: ConnectionLimits,
    /// Functions that run here when a model calls them, offered to every request.
    pub tools: ToolBox,
    /// MCP servers that some of them are of.
    pub mcp_servers: usize,
    /// What searches the web for requests that want it.
    pub web_search: Option<WebSearch>,
    /// Rounds of functions that run here for one answer.
    pub tool_rounds_max: usize,
    /// Is told of every request that has ended.
    pub on_access: Option<OnAccess>,
}

/// Is told of a request that has ended.
pub type OnAccess = Arc<dyn Fn(&Access) + Send + Sync>;

/// By which names a server may be called. A web page whose own name was made to point here would be one that reads its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Any.
    Any,
    /// Those of a loopback address, and these.
    Loopback(Vec<String>),
}

/// Web pages that may ask a server, as `Origin` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// None but the server's own.
    None,
    /// All.
    Any,
    /// These.
    Listed(Vec<HeaderValue>),
}

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at the same time; others wait.
    pub connections_max: usize,
    /// From the beginning of a connection, or the first byte of another request, to the end of the request's header.
    pub header: Duration,
    /// From an answer to the end of the next request's header.
    pub keep_alive: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// For which a client may take nothing of what is sent to it.
    pub reader_stuck: Duration,
    /// For which answers may go on when the server has been told to end.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            hosts: Hosts::Any,
            origins: Origins::None,
            body_bytes_max: 64 << 20,
            uploads_bytes_max: 512 << 20,
            responses_bytes_max: 128 << 20,
            kept_for: Duration::from_secs(3600),
            limits: ConnectionLimits::default(),
            tools: ToolBox::default(),
            mcp_servers: 0,
            web_search: None,
            tool_rounds_max: ROUNDS_USUAL,
            on_access: None,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections_max: 4096,
            header: seconds(15),
            keep_alive: seconds(75),
            body_idle: seconds(30),
            reader_stuck: seconds(60),
            drain: seconds(30),
        }
    }
}

impl fmt::Debug for Settings {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("hosts", &self.hosts).field("origins", &self.origins).finish_non_exhaustive()
    }
}
