//! Loading with progress on standard error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use mistralrs::{
    Coverage, FileAccess, ImportanceSource, LoadOptions, Model, ModelSource, OnProgress, Progress, Reach, SliceSource, Task,
};

use crate::args::ModelOptions;
use crate::{environment, pages};

const DEMO_NOTICE: &str =
    "no model given (-m): the built-in demo model answers; it knows drawn shapes, their colours, numbers and places";

const BYTES: &str = "{msg:40!} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const TOKENS: &str = "{msg:40!} {bar:30} {pos}/{len} tokens {per_sec} {eta}";

pub async fn load(options: ModelOptions, files: FileAccess, reach: Reach) -> Result<Model> {
    let options = LoadOptions { files, reach, ..options_of(options)? };
    let model = Model::load(options, progress()).await?;
    eprintln!("chat template from {}", model.template_source());
    if let Some(Coverage { known, quantised }) = model.importance() {
        eprintln!("importance known of {known} of {quantised} quantised matrices");
    }
    model.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    if !model.leftover().is_empty() {
        let names = model.leftover();
        eprintln!("warning: {} tensors of the checkpoint are not used: {}, ...", names.len(), names[0]);
    }
    Ok(model)
}

/// What the flags say.
pub fn options_of(options: ModelOptions) -> Result<LoadOptions> {
    let source = match &options.model_id {
        Some(model) => model.parse()?,
        None => {
            eprintln!("{DEMO_NOTICE}");
            ModelSource::Demo
        }
    };
    let (capacity, pictures) = (options.capacity(), options.pictures.checked()?);
    // There are no accelerators yet, so what could be read asks for nothing.
    drop(options.device_layers);
    let matrix = options.imatrix.map(ImportanceSource::Matrix);
    Ok(LoadOptions {
        dtype: options.dtype.into(),
        quant: options.quant,
        organization: options.isq_organization.into(),
        topology: options.topology,
        importance: matrix.or(options.calibration_file.map(ImportanceSource::Text)),
        slice: options.matformer_slice_name.map(|name| SliceSource { table: options.matformer_config_path, name }),
        tokenizer: options.tokenizer,
        chat_template: options.chat_template,
        jinja_explicit: options.jinja_explicit,
        dialect: options.tool_dialect,
        pictures,
        pdf_reader: pages::reader(),
        context_max: options.max_seq_len,
        capacity,
        reading: options.reading,
        ..LoadOptions::new(source, environment::hub(options.hf_cache))
    })
}

/// A bar for each file that is downloaded, and one for what else takes its time.
pub fn progress() -> OnProgress {
    let bars = MultiProgress::new();
    let by_task: Mutex<HashMap<Task, ProgressBar>> = Mutex::default();
    Arc::new(move |progress: Progress| {
        let Ok(mut by_task) = by_task.lock() else { return };
        let (name, style) = match &progress.task {
            Task::Download(file) => (file.as_str(), BYTES),
            Task::Calibrate => ("calibrating", TOKENS),
            Task::Load => ("loading weights", BYTES),
            Task::Quantise => ("quantising weights", BYTES),
        };
        let bar = by_task.entry(progress.task.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            bars.add(ProgressBar::new(progress.total as u64).with_style(style).with_message(name.to_string()))
        });
        bar.set_position(progress.done as u64);
        if progress.done >= progress.total {
            // What was downloaded stays to be seen; the model speaks for itself. One that is calibrated is loaded twice.
            match progress.task {
                Task::Download(_) => bar.finish(),
                task => by_task.remove(&task).into_iter().for_each(|bar| bar.finish_and_clear()),
            }
        }
    })
}
