//! Which MCP servers there are: a file in the format of mistral.rs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde::Deserialize;

use crate::Error;

/// MCP servers, and what they may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct McpConfig {
    /// The servers.
    pub servers: Vec<McpServer>,
    /// Whether models are offered their functions.
    #[serde(default = "yes")]
    pub auto_register_tools: bool,
    /// For which a call may take.
    #[serde(default = "thirty")]
    pub tool_timeout_secs: u64,
    /// Calls that run at the same time.
    #[serde(default = "ten")]
    pub max_concurrent_calls: usize,
}

/// An MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct McpServer {
    /// What people call it.
    pub name: String,
    /// Whether it is asked at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Stands in front of its functions' names, with an underscore; its own name when absent, nothing when empty.
    pub tool_prefix: Option<String>,
    /// Sent with every request over HTTP.
    pub bearer_token: Option<String>,
    /// Where it is.
    pub source: McpSource,
}

/// Where an MCP server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
pub enum McpSource {
    /// A program that is started here and spoken to by its standard input and output.
    Process {
        /// The program.
        command: String,
        /// What it is given.
        #[serde(default)]
        args: Vec<String>,
        /// Where it runs.
        work_dir: Option<PathBuf>,
        /// Environment variables, besides those of this process.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// At a URL ("streamable HTTP").
    Http {
        /// The URL.
        url: String,
        /// Sent with every request.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// For which a call may take, instead of `tool_timeout_secs`.
        timeout_secs: Option<u64>,
    },
    /// Refused when it is connected to.
    WebSocket {},
}

fn yes() -> bool {
    true
}

fn thirty() -> u64 {
    30
}

fn ten() -> usize {
    10
}

impl McpConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (name, text) = crate::load::read_named(path)?;
        text.parse().map_err(|e| Error::Source(format!("{name}: {e}")))
    }
}

impl FromStr for McpConfig {
    type Err = String;

    /// JSON: `{"servers": [{"name", "source": {"type": "Process", "command", "args"}}, …]}`.
    fn from_str(text: &str) -> Result<Self, String> {
        let config: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if config.max_concurrent_calls == 0 || config.tool_timeout_secs == 0 {
            return Err("max_concurrent_calls and tool_timeout_secs must be at least 1".into());
        }
        for (i, server) in config.servers.iter().enumerate() {
            let at = format!("servers[{i}] ({})", server.name);
            server.http_config().map_err(|reason| format!("{at}: {reason}"))?;
            if server.source == (McpSource::WebSocket {}) {
                return Err(format!("{at}: WebSocket is not supported; use Http or Process"));
            }
        }
        Ok(config)
    }
}

impl McpSource {
    pub(super) fn timeout_secs(&self) -> Option<u64> {
        match self {
            Self::Http { timeout_secs, .. } => *timeout_secs,
            Self::Process { .. } | Self::WebSocket {} => None,
        }
    }
}

impl McpServer {
    /// What one of its functions is called here: letters, digits, dashes and underscores, 64 at most.
    pub(super) fn prefixed(&self, tool: &str) -> String {
        let prefix = self.tool_prefix.as_ref().unwrap_or(&self.name);
        let name = if prefix.is_empty() { tool.to_string() } else { format!("{prefix}_{tool}") };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' };
        name.chars().map(plain).take(64).collect()
    }

    /// How it is reached over HTTP.
    pub(super) fn http_config(&self) -> Result<StreamableHttpClientTransportConfig, String> {
        let McpSource::Http { url, headers, .. } = &self.source else { return Ok(Default::default()) };
        let parsed = url::Url::parse(url).map_err(|e| format!("{url} is no URL: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("{url}: its URL must begin with http or https"));
        }
        let header = |(name, value): (&String, &String)| {
            let refused = |_| format!("the header {name} cannot be sent");
            Ok((
                name.parse::<HeaderName>().map_err(|e| refused(e.to_string()))?,
                value.parse::<HeaderValue>().map_err(|e| refused(e.to_string()))?,
            ))
        };
        let headers = headers.iter().map(header).collect::<Result<HashMap<_, _>, String>>()?;
        let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str()).custom_headers(headers);
        config.auth_header.clone_from(&self.bearer_token);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_or_refused() {
        let full = r#"{"servers": [
            {"name": "a b", "id": "x", "enabled": false, "tool_prefix": "p", "bearer_token": "t", "resources": ["r"],
             "source": {"type": "Http", "url": "https://a.example/mcp", "headers": {"X-A": "1"}, "timeout_secs": 3}},
            {"name": "a b", "source": {"type": "Process", "command": "c"}}
        ], "auto_register_tools": false, "tool_timeout_secs": 5, "max_concurrent_calls": 2}"#;
        let config: McpConfig = full.parse().unwrap();
        let names: Vec<String> = config.servers.iter().map(|server| server.prefixed("do.it")).collect();
        assert_eq!(names, ["p_do_it", "a_b_do_it"]);
        assert_eq!((config.auto_register_tools, config.tool_timeout_secs, config.max_concurrent_calls), (false, 5, 2));
        let server = |rest: &str| format!(r#"{{"servers": [{{"name": "a", {rest}}}]}}"#);
        let cases = [
            ("{}".to_string(), "missing field `servers`"),
            (server(r#""source": {"type": "Carrier pigeon"}"#), "unknown variant"),
            (server(r#""source": {"type": "WebSocket", "url": "ws://a"}"#), "servers[0] (a): WebSocket is not supported"),
            (server(r#""source": {"type": "Http", "url": "a"}"#), "servers[0] (a): a is no URL"),
            (server(r#""source": {"type": "Http", "url": "ftp://a"}"#), "must begin with http"),
            (server(r#""source": {"type": "Http", "url": "http://a", "headers": {"a b": ""}}"#), "the header a b cannot be sent"),
            (r#"{"servers": [], "max_concurrent_calls": 0}"#.to_string(), "at least 1"),
        ];
        for (text, expected) in cases {
            let message = text.parse::<McpConfig>().unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
