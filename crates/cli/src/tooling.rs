//! Functions that run here: the flags that name them → what the facade takes.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mistralrs::{Mcp, McpConfig, ROUNDS_USUAL, Reach, WebSearch};

use crate::environment;

/// Which functions run here when a model calls them.
#[derive(Debug, Clone, Args)]
pub struct ToolOptions {
    /// Server that speaks SearXNG's JSON, by which models may search the web
    #[arg(long, value_name = "URL")]
    pub search_url: Option<String>,
    /// Let models search the web, by the server that --search-url names
    #[arg(long, requires = "search_url")]
    pub enable_search: bool,
    /// MCP servers whose functions models may call: a file (.json); MCP_CONFIG_PATH names one too
    #[arg(long, value_name = "FILE")]
    pub mcp_config: Option<PathBuf>,
    /// How often one answer may call functions that run here and read what came of it
    #[arg(long, value_name = "ROUNDS", default_value_t = ROUNDS_USUAL)]
    pub max_tool_rounds: usize,
}

/// What came of the flags.
pub struct Tooling {
    pub mcp: Mcp,
    pub web_search: Option<WebSearch>,
    pub rounds_max: usize,
}

impl ToolOptions {
    /// Connects to servers and says what could not be had. Pages of the web are read within `reach`.
    pub async fn ready(self, reach: Reach) -> Result<Tooling> {
        let web_search = self.search_url.map(|url| WebSearch::searxng(&url, reach)).transpose()?;
        let mcp = match self.mcp_config.or_else(environment::mcp_config) {
            Some(file) => {
                let mcp = Mcp::connect(&McpConfig::read(&file)?).await;
                eprintln!("{} functions of {} MCP servers", mcp.tools.len(), mcp.servers);
                mcp
            }
            None => Mcp::default(),
        };
        mcp.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(Tooling { mcp, web_search, rounds_max: self.max_tool_rounds })
    }
}
