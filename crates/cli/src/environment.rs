//! Environment variables. Beside this only the Python module reads some.

use std::env;
use std::path::PathBuf;

use mistralrs::Hub;

use crate::run::Graphics;

/// The hub as variables say, with a cache folder that goes before them.
pub fn hub(cache: Option<PathBuf>) -> Hub {
    Hub::of_environment(set, home().unwrap_or_default(), cache)
}

/// Keys in MISTRALRS_API_KEY, separated by commas: other users of this machine do not see them, as they see flags.
pub fn api_keys() -> Vec<String> {
    let keys = set("MISTRALRS_API_KEY").unwrap_or_default();
    keys.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_string).collect()
}

/// How the terminal takes pictures, as far as it makes itself known.
pub fn graphics() -> Option<Graphics> {
    let term = set("TERM").unwrap_or_default();
    let program = set("TERM_PROGRAM").unwrap_or_default();
    if set("KITTY_WINDOW_ID").is_some() || term.contains("kitty") || term.contains("ghostty") {
        return Some(Graphics::Kitty);
    }
    ["iTerm.app", "WezTerm", "vscode"].contains(&program.as_str()).then_some(Graphics::Iterm)
}

/// The user's folder.
pub fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// Where the program remembers what is of no use elsewhere.
pub fn state() -> Option<PathBuf> {
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let folder = state.or_else(|| Some(home()?.join(".local/state")))?;
    Some(folder.join("mistralrs"))
}

/// The MCP servers of MCP_CONFIG_PATH.
pub fn mcp_config() -> Option<PathBuf> {
    set("MCP_CONFIG_PATH").map(PathBuf::from)
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
