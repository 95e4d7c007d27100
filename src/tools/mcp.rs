//! Functions of MCP servers: of programs that are started here, or over HTTP.

mod config;
mod http;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, ContentBlock, Implementation, ResourceContents};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Semaphore};

use super::{ServerTool, ToolBox, ToolKind, ToolOutput};
use http::Http;

pub use config::{McpConfig, McpServer, McpSource};

/// For which a server may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(20);

/// MCP servers, and the functions that they offer.
#[derive(Debug, Default)]
pub struct Mcp {
    /// The functions, by their names with their servers' prefixes. They keep the connections.
    pub tools: ToolBox,
    /// Servers that answered.
    pub servers: usize,
    /// What could not be had, a line each.
    pub warnings: Vec<String>,
}

impl Mcp {
    /// Connects to all servers of a configuration at once, and asks each what it offers. Those that do not answer are left out, with
    /// a warning.
    pub async fn connect(config: &McpConfig) -> Self {
        let calls = Arc::new(Semaphore::new(config.max_concurrent_calls));
        let servers = config.servers.iter().filter(|server| server.enabled && config.auto_register_tools);
        let connections = servers.map(|server| {
            let time_max = Duration::from_secs(server.source.timeout_secs().unwrap_or(config.tool_timeout_secs));
            Arc::new(Connection { server: server.clone(), time_max, calls: calls.clone(), live: Mutex::default() })
        });
        let offered = join_all(connections.map(|connection| async move {
            let offered = connection.offered().await;
            (connection, offered)
        }));
        let mut all = Self::default();
        for (connection, offered) in offered.await {
            let name = &connection.server.name;
            match offered {
                Err(reason) => all.warnings.push(format!("MCP server {name}: {reason}")),
                Ok(tools) => {
                    all.servers += 1;
                    for tool in tools {
                        let added = connection.tool(&tool).and_then(|tool| all.tools.add(tool));
                        all.warnings.extend(added.err().map(|e| format!("MCP server {name}: {}: {e}", tool.name)));
                    }
                }
            }
        }
        all
    }
}

/// A server, which may come and go.
struct Connection {
    server: McpServer,
    /// For which a call may take.
    time_max: Duration,
    /// Calls of all servers together.
    calls: Arc<Semaphore>,
    /// Held only while it is connected to: calls run beside each other.
    live: Mutex<Option<Arc<Live>>>,
}

struct Live {
    client: RunningService<RoleClient, ClientConfig>,
    /// Ends with this.
    _child: Option<Child>,
}

impl Connection {
    /// The connection; a new one where there was none, or it has ended.
    async fn live(&self) -> Result<Arc<Live>, String> {
        let mut slot = self.live.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| !live.client.is_closed() && !live.client.is_transport_closed()) {
            return Ok(live.clone());
        }
        // What has ended is gone before it is begun anew.
        *slot = None;
        let late = |_| format!("it was not ready within {} s", BEGIN_MAX.as_secs());
        let live =
            Arc::new(tokio::time::timeout(BEGIN_MAX, Live::begin(&self.server.source, &self.server)).await.map_err(late)??);
        *slot = Some(live.clone());
        Ok(live)
    }

    async fn offered(&self) -> Result<Vec<rmcp::model::Tool>, String> {
        let live = self.live().await?;
        let late = |_| format!("it did not say within {} s what it offers", BEGIN_MAX.as_secs());
        let listed = tokio::time::timeout(BEGIN_MAX, live.client.list_all_tools()).await.map_err(late)?;
        listed.map_err(|e| format!("it does not say what it offers: {e}"))
    }

    /// One of its functions as one of ours.
    fn tool(self: &Arc<Self>, tool: &rmcp::model::Tool) -> Result<ServerTool, crate::Error> {
        let definition = json!({
            "name": self.server.prefixed(&tool.name),
            "description": tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default(),
            "parameters": Value::Object(tool.input_schema.as_ref().clone()),
        });
        let (connection, name) = (self.clone(), tool.name.to_string());
        let tool = ServerTool::new(&definition, move |arguments| {
            let (connection, name) = (connection.clone(), name.clone());
            async move { connection.call(name, arguments).await }
        })?;
        Ok(tool.with_kind(ToolKind::Mcp(self.server.name.clone())).with_time_max(self.time_max))
    }

    async fn call(&self, tool: String, arguments: Map<String, Value>) -> Result<ToolOutput, String> {
        let _permit = self.calls.acquire().await.map_err(|e| e.to_string())?;
        let live = self.live().await?;
        let call = CallToolRequestParams::new(tool).with_arguments(arguments);
        read(live.client.call_tool(call).await.map_err(|e| e.to_string())?)
    }
}

impl Live {
    async fn begin(source: &McpSource, server: &McpServer) -> Result<Self, String> {
        let us = ClientConfig::new(Default::default(), Implementation::new("mistralrs", env!("CARGO_PKG_VERSION")));
        match source {
            McpSource::Process { command, args, work_dir, env } => {
                let mut process = Command::new(command);
                process.args(args).envs(env).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
                if let Some(folder) = work_dir {
                    process.current_dir(folder);
                }
                // Ctrl-C is for us: what we have begun goes on until we end.
                #[cfg(unix)]
                process.process_group(0);
                let mut child = process.spawn().map_err(|e| format!("cannot start {command}: {e}"))?;
                let pipes = child.stdout.take().zip(child.stdin.take()).ok_or("it has no input or output")?;
                let client = us.serve(pipes).await.map_err(|e| format!("it does not speak MCP: {e}"))?;
                Ok(Self { client, _child: Some(child) })
            }
            McpSource::Http { .. } => {
                let transport = StreamableHttpClientTransport::with_client(Http::new()?, server.http_config()?);
                let client = us.serve(transport).await.map_err(|e| format!("it cannot be reached: {e}"))?;
                Ok(Self { client, _child: None })
            }
            McpSource::WebSocket {} => Err("WebSocket is not supported; use Http or Process".into()),
        }
    }
}

/// What a call returned, for the model.
fn read(result: CallToolResult) -> Result<ToolOutput, String> {
    let mut output = ToolOutput::default();
    for block in result.content {
        let text = match block {
            ContentBlock::Text(text) => text.text,
            ContentBlock::Image(picture) => match STANDARD.decode(&picture.data) {
                Ok(picture) => {
                    output.pictures.push(picture);
                    continue;
                }
                Err(e) => format!("(a picture that is not base64: {e})"),
            },
            ContentBlock::Audio(_) => "(a sound, which is not played here)".into(),
            ContentBlock::Resource(resource) => match resource.resource {
                ResourceContents::TextResourceContents { uri, text, .. } => format!("{uri}:\n{text}"),
                ResourceContents::BlobResourceContents { uri, .. } => format!("{uri} (not text)"),
                _ => "(a resource of a kind that is not known here)".into(),
            },
            ContentBlock::ResourceLink(link) => format!("{}: {}", link.name, link.uri),
            _ => "(something of a kind that is not known here)".into(),
        };
        if !output.text.is_empty() {
            output.text.push('\n');
        }
        output.text += &text;
    }
    if let Some(structured) = result.structured_content.filter(|_| output.text.is_empty()) {
        output.text = structured.to_string();
    }
    if result.is_error == Some(true) { Err(output.text) } else { Ok(output) }
}
