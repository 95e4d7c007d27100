//! `mistralrs quantize`: a checkpoint that is quantised already.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use mistralrs::Model;

use crate::args::ModelOptions;
use crate::load::{options_of, progress};

#[derive(Debug, Args)]
pub struct QuantizeOptions {
    #[command(flatten)]
    model: ModelOptions,
    /// Folder for the quantised checkpoint, empty or not there yet
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
}

pub async fn quantize(options: QuantizeOptions) -> Result<()> {
    let QuantizeOptions { model, output } = options;
    if model.quant.is_none() && model.topology.is_none() {
        anyhow::bail!("--quant or --topology says what is quantised");
    }
    Model::quantise(options_of(model)?, &output, progress()).await?;
    eprintln!("written to {}: mistralrs run -m {0}", output.display());
    Ok(())
}
