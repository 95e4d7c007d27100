//! `mistralrs tune`: which quantisation of a model fits this machine.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use mistralrs::{LoadOptions, MemoryPlan, Model, Quant};
use serde_json::{Value, json};

use crate::args::ModelOptions;
use crate::cache::gigabytes;
use crate::load::{options_of, progress};

#[derive(Debug, Args)]
pub struct TuneOptions {
    #[command(flatten)]
    model: ModelOptions,
    /// What matters most
    #[arg(long, value_enum, default_value = "balanced")]
    profile: Profile,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// The most precise format that fits
    Quality,
    /// 5 bits, which rarely change a word; fewer where these do not fit
    Balanced,
    /// 4 bits: an answer takes as long as it takes to read the weights
    Fast,
}

impl Profile {
    /// The formats, the best first.
    fn order(self) -> &'static [Option<Quant>] {
        use Quant::{Q2K, Q3K, Q4K, Q5K, Q6K, Q8_0};
        match self {
            Self::Quality => &[None, Some(Q8_0), Some(Q6K), Some(Q5K), Some(Q4K), Some(Q3K), Some(Q2K)],
            Self::Balanced => &[Some(Q5K), Some(Q4K), Some(Q3K), Some(Q2K)],
            Self::Fast => &[Some(Q4K), Some(Q3K), Some(Q2K)],
        }
    }
}

/// Tokens of a conversation that has to be possible.
const CONTEXT: usize = 4096;

pub async fn tune(options: TuneOptions) -> Result<()> {
    let TuneOptions { model, profile, json } = options;
    let mut plans: Vec<(Option<Quant>, MemoryPlan)> = Vec::new();
    let wanted = model.max_seq_len.unwrap_or(CONTEXT);
    let options = options_of(ModelOptions { max_seq_len: Some(wanted), ..model })?;
    for quant in Profile::Quality.order() {
        let options = LoadOptions { quant: *quant, ..options.clone() };
        plans.push((*quant, Model::plan(options, progress()).await?));
    }
    let fits = |quant: &&Option<Quant>| plans.iter().any(|(of, plan)| of == *quant && plan.fits());
    let chosen = profile.order().iter().find(fits);
    if json {
        let rows: Vec<Value> = plans.iter().map(|(quant, plan)| as_json(*quant, plan, chosen == Some(quant))).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("{:8} {:>10} {:>10} {:>22}", "--quant", "weights", "in all", "longest conversation");
    for (quant, plan) in &plans {
        let name = quant.map_or_else(|| "none".to_string(), |quant| quant.to_string());
        let remark = match (plan.fits(), chosen == Some(quant)) {
            (false, _) => "too large",
            (true, true) => "recommended",
            (true, false) => "fits",
        };
        let (weights, all) = (gigabytes((plan.language + plan.towers) as u64), gigabytes(plan.total() as u64));
        println!("{name:8} {weights:>10} {all:>10} {:>15} tokens  {remark}", plan.context_max);
    }
    match chosen {
        Some(_) => Ok(()),
        None => bail!("no format of this model fits in what is free, with room for a conversation of {wanted} tokens"),
    }
}

fn as_json(quant: Option<Quant>, plan: &MemoryPlan, recommended: bool) -> Value {
    json!({
        "quant": quant.map(|quant| quant.to_string()),
        "weights_bytes": plan.language + plan.towers,
        "bytes": plan.total(),
        "allowed_bytes": plan.allowed,
        "context_max": plan.context_max,
        "fits": plan.fits(),
        "recommended": recommended,
    })
}
