//! `mistralrs cache`: what was downloaded.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use mistralrs::CachedModel;
use serde_json::json;

use crate::environment;

#[derive(Debug, Args)]
pub struct CacheOptions {
    /// Folder of downloaded models; otherwise the usual Hugging Face cache
    #[arg(long, value_name = "FOLDER", global = true)]
    hf_cache: Option<PathBuf>,
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// List the models in the cache, and what they take
    List {
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Delete a model from the cache
    Delete {
        /// Its id (organisation/name)
        #[arg(short, long, value_name = "ID")]
        model_id: String,
    },
}

pub fn cache(options: CacheOptions) -> Result<()> {
    let hub = environment::hub(options.hf_cache);
    match options.command {
        CacheCommand::List { json: true } => {
            let models = hub.cached()?;
            let models: Vec<_> = models.iter().map(|model| json!({"id": model.id, "bytes": model.bytes})).collect();
            println!("{}", serde_json::to_string_pretty(&models)?);
        }
        CacheCommand::List { json: false } => {
            let models = hub.cached()?;
            let width = models.iter().map(|model| model.id.len()).max().unwrap_or(0);
            models.iter().for_each(|model| println!("{:width$}  {:>9}", model.id, gigabytes(model.bytes)));
            let all = models.iter().map(|model| model.bytes).sum();
            eprintln!("{} in {}", gigabytes(all), hub.cache.display());
        }
        CacheCommand::Delete { model_id } => {
            let CachedModel { id, bytes, .. } = hub.delete(&model_id)?;
            eprintln!("deleted {id}: {}", gigabytes(bytes));
        }
    }
    Ok(())
}

/// Bytes for a person.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
