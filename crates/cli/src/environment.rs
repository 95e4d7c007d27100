//! Environment variables. Nothing else in the workspace reads them.

use std::env;
use std::path::PathBuf;

use mistralrs::Hub;

use crate::run::Graphics;

/// The hub as HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE say, with a cache folder that goes before them.
pub fn hub(cache: Option<PathBuf>) -> Hub {
    let home = set("HF_HOME").map(PathBuf::from).unwrap_or_else(default_home);
    let token_file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
    let token_in_file = || std::fs::read_to_string(token_file).ok().map(|token| token.trim().to_string());
    let offline =
        set("HF_HUB_OFFLINE").is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    Hub {
        cache: cache.or_else(|| set("HF_HUB_CACHE").map(PathBuf::from)).unwrap_or_else(|| home.join("hub")),
        endpoint: set("HF_ENDPOINT").map(|address| address.trim_end_matches('/').to_string()),
        token: set("HF_TOKEN").or_else(token_in_file).filter(|token| !token.is_empty()),
        offline,
    }
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

fn default_home() -> PathBuf {
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    cache.unwrap_or_else(|| home().unwrap_or_default().join(".cache")).join("huggingface")
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
