//! Environment variables, of which the hub's are read here as on the command line.

use std::env;
use std::path::PathBuf;

use mistralrs::Hub;

/// The hub as variables say, with a cache folder that goes before them.
pub fn hub(cache: Option<PathBuf>) -> Hub {
    Hub::of_environment(|name| env::var(name).ok(), env::home_dir().unwrap_or_default(), cache)
}
