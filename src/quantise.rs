//! A checkpoint → the same with quantised weights, in a folder.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use models::{Family, ModelError};
use nn::{Checkpoint, Files, Quantised, export};

use crate::hub::{OnProgress, Progress, Task};
use crate::load::settings;
use crate::{Error, LoadOptions, Model};

impl Model {
    /// Writes a checkpoint whose weights are quantised as the options say, with all its other files, to a folder that is empty or not
    /// there yet. It loads like any other, and is never quantised again.
    ///
    /// # Errors
    /// As [`Self::load`]; the folder cannot be written or holds something; the checkpoint is quantised already, or is not to be.
    pub async fn quantise(options: LoadOptions, folder: &Path, tell: OnProgress) -> Result<(), Error> {
        let files = options.source.files(&options.hub, &tell).await?;
        let folder = folder.to_path_buf();
        let working = tokio::task::spawn_blocking(move || write(&files, &options, &folder, &tell));
        working.await.map_err(|e| Error::Source(format!("quantising failed: {e}")))?
    }
}

fn write(files: &Files, options: &LoadOptions, folder: &Path, tell: &OnProgress) -> Result<(), Error> {
    let refused = |e: std::io::Error| Error::Source(format!("cannot write to {}: {e}", folder.display()));
    if options.importance.is_some() || options.slice.is_some() {
        return Err(Error::Source("what is written goes by no importance, and is no part of a nested model".into()));
    }
    fs::create_dir_all(folder).map_err(refused)?;
    if fs::read_dir(folder).map_err(refused)?.next().is_some() {
        return Err(Error::Source(format!("{} is not empty", folder.display())));
    }
    let (mut settings, _) = settings(Family::of(files)?, options, tell)?;
    let chosen: Arc<Mutex<Vec<Quantised>>> = Arc::default();
    let heard = chosen.clone();
    settings.on_quantised = Some(Arc::new(move |tensor| heard.lock().unwrap_or_else(PoisonError::into_inner).push(tensor)));
    models::measure(files, &settings)?;
    let chosen = std::mem::take(&mut *chosen.lock().unwrap_or_else(PoisonError::into_inner));
    if chosen.is_empty() {
        return Err(Error::Source("nothing of this model would be quantised".into()));
    }
    let told = tell.clone();
    let progress: nn::OnProgress = Arc::new(move |done, total| told(Progress { task: Task::Quantise, done, total }));
    let checkpoint = Checkpoint::open(files).map_err(ModelError::Nn)?;
    export(&checkpoint, &chosen, folder, &progress).map_err(ModelError::Nn)?;
    match files {
        Files::Folder(from) => copy(from, folder, true).map_err(refused),
        Files::Embedded { files, .. } => {
            let mut others = files.iter().filter(|(name, _)| !is_weights(name));
            others.try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes)).map_err(refused)
        }
    }
}

/// Everything but the weights of the top folder; adapters have a folder each.
fn copy(from: &Path, to: &Path, top: bool) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if name.starts_with('.') || top && is_weights(&name) {
            continue;
        }
        if path.is_dir() {
            fs::create_dir_all(to.join(&name))?;
            copy(&path, &to.join(&name), false)?;
        } else {
            fs::copy(&path, to.join(&name))?;
        }
    }
    Ok(())
}

fn is_weights(name: &str) -> bool {
    [".safetensors", ".safetensors.index.json", ".bin", ".pth", ".gguf"].iter().any(|end| name.ends_with(end))
}
