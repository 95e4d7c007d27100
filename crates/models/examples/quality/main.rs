//! How far the words of a quantised model are from those of the same model in f32.
//!
//!     cargo run --release -p mistralrs-models --example quality -- MODEL TEXT... [--dtype FORMAT] [--json FILE] [--dump FOLDER]
//!
//! A TEXT is any text, or a file of questions (`.jsonl`; a line is `{"picture", "question", "answer"}`, pictures lie beside it). All
//! rows of a text count, and of a question those that predict its answer, which is given. The table says for each format the mean and
//! the 99th percentile of the KL divergence of its words from those in f32, and how often the most probable word is the same.
//!
//! What is not quantised, keys and values too, has the number format of the checkpoint, as the model has it when it answers, or
//! `--dtype`. Pictures are encoded once, in f32. `--dump` leaves what another program needs to be compared: the cases, the rows of
//! pictures, all logits.

mod cases;
mod divergence;
mod dump;

use std::error::Error;
use std::path::PathBuf;

use cases::Case;
use divergence::Figures;
use dump::Dump;
use mistralrs_models::{Loaded, load};
use nn::{Batch, Cache, DType, Device, Files, LoadSettings, Quant};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "quality MODEL TEXT... [--dtype FORMAT] [--json FILE] [--dump FOLDER]";

#[derive(Default)]
struct Options {
    /// The model, and what it reads.
    places: Vec<PathBuf>,
    dtype: Option<DType>,
    json: Option<PathBuf>,
    dump: Option<Dump>,
}

fn main() -> Result<()> {
    let options = options()?;
    let (model, texts) = options.places.split_first().filter(|(_, texts)| !texts.is_empty()).ok_or(USAGE)?;
    let model = Files::Folder(model.clone());
    let base = load(&model, LoadSettings::default())?;
    let cases = cases::read(&model, texts, &base)?;
    let expected = logits(&base, &cases)?;
    drop(base);
    if let Some(dump) = &options.dump {
        dump.cases(&cases)?;
        dump.logits("f32", &expected)?;
    }
    let mut formats = Vec::new();
    println!("{} rows\nformat   bits   mean KL    99 % KL    same word", expected.len());
    for quant in std::iter::once(None).chain(Quant::ALL.map(Some)) {
        let loaded = load(&model, LoadSettings { dtype: options.dtype, quant, ..LoadSettings::default() })?;
        let name = quant.map_or(loaded.dtype.as_str().to_string(), |quant| quant.to_string());
        let bits = quant.map_or(8.0 * loaded.dtype.size_in_bytes() as f64, Quant::bits);
        let found = logits(&loaded, &cases)?;
        if let Some(dump) = &options.dump {
            dump.logits(&name, &found)?;
        }
        let Figures { mean, high, same } = Figures::of(&expected, &found);
        println!("{name:8} {bits:<6} {mean:.3e}  {high:.3e}  {:.2} %", 100.0 * same);
        formats.push(json!({"format": name, "bits": bits, "kl_mean": mean, "kl_99": high, "same_word": same}));
    }
    if let Some(file) = options.json {
        let all = json!({"model": model.name(), "rows": expected.len(), "formats": formats});
        std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
    }
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match argument.as_str() {
            "--dtype" => options.dtype = Some(value()?.parse()?),
            "--json" => options.json = Some(value()?.into()),
            "--dump" => options.dump = Some(Dump::new(value()?.into())?),
            _ => options.places.push(argument.into()),
        }
    }
    Ok(options)
}

/// Logits of the rows that count, case by case.
fn logits(loaded: &Loaded, cases: &[Case]) -> Result<Vec<Vec<f32>>> {
    let mut logits = Vec::new();
    for case in cases {
        let (spec, tokens) = (loaded.model.cache_spec(), case.prompt.tokens.len());
        let mut cache = Cache::alone(spec, tokens, nn::kv_format(loaded.dtype), &Device::Cpu)?;
        let mut batch = Batch::alone(&case.prompt, &cache, case.counted.clone().collect());
        for (placement, item) in case.prompt.media.iter().zip(&case.media) {
            batch.show(placement, item, 0..tokens, 0)?;
        }
        logits.extend(loaded.model.forward(&batch, &mut cache)?.to_vec2()?);
    }
    Ok(logits)
}
