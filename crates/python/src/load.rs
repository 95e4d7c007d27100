//! Options as JSON → a model.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use mistralrs::{
    Capacity, DeviceLayers, Dtype, FAMILIES, ImageOptions, ImportanceSource, KvFormat, LoadOptions, ModelSource, OnProgress,
    Organization, Progress, SliceSource, Task,
};
use pyo3::prelude::*;
use serde::Deserialize;

use crate::environment;
use crate::failure::Failure;
use crate::model::Model;
use crate::pending::Pending;

const DTYPES: &[(&str, Dtype)] = &[("auto", Dtype::Auto), ("bf16", Dtype::Bf16), ("f16", Dtype::F16), ("f32", Dtype::F32)];
const ORGANIZATIONS: &[(&str, Organization)] = &[("default", Organization::Default), ("moqe", Organization::Moqe)];
const CACHE_TYPES: &[(&str, Option<KvFormat>)] = &[
    ("auto", None),
    ("bf16", Some(KvFormat::Bf16)),
    ("f16", Some(KvFormat::F16)),
    ("f32", Some(KvFormat::F32)),
    ("q8", Some(KvFormat::Q8)),
];

/// What is loaded and how. What is left out is as the model says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// The built-in model when absent.
    model_id: Option<String>,
    #[serde(default)]
    families: Vec<String>,
    dtype: Option<String>,
    quant: Option<String>,
    organization: Option<String>,
    topology: Option<PathBuf>,
    imatrix: Option<PathBuf>,
    calibration_file: Option<PathBuf>,
    max_edge: Option<usize>,
    matformer_slice_name: Option<String>,
    matformer_config_path: Option<PathBuf>,
    tokenizer_json: Option<PathBuf>,
    chat_template: Option<PathBuf>,
    jinja_explicit: Option<PathBuf>,
    tool_dialect: Option<String>,
    hf_cache_path: Option<PathBuf>,
    /// As the environment says when absent; none when empty.
    token: Option<String>,
    device_layers: Option<String>,
    max_seqs: Option<usize>,
    max_seq_len: Option<usize>,
    memory_mb: Option<usize>,
    kv_cache_mb: Option<usize>,
    kv_cache_type: Option<String>,
}

/// Names of the families that can be loaded.
#[pyfunction]
pub fn families() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.name).collect()
}

/// Loads a model. `progress(task, done, total)` is told how far it is.
#[pyfunction]
#[pyo3(signature = (options, progress=None))]
pub fn load(options: &str, progress: Option<Py<PyAny>>) -> PyResult<Pending> {
    let options: Options = serde_json::from_str(options).map_err(|e| Failure::Load(e.to_string()))?;
    let options = options.load_options()?;
    let tell: OnProgress = match progress {
        None => Arc::new(|_| ()),
        Some(callback) => Arc::new(move |progress| tell(&callback, &progress)),
    };
    Pending::start(async move {
        let model = mistralrs::Model::load(options, tell).await;
        model.map(Model::new).map_err(|e| Failure::Load(e.to_string()))
    })
}

fn tell(callback: &Py<PyAny>, progress: &Progress) {
    let task = match &progress.task {
        Task::Download(file) => file,
        Task::Calibrate => "calibrate",
        Task::Load => "load",
        Task::Quantise => "quantise",
    };
    let told =
        |py: Python<'_>| callback.call1(py, (task, progress.done, progress.total)).map_err(|e| e.write_unraisable(py, None));
    // None: Python itself has ended.
    let _ = Python::try_attach(told);
}

impl Options {
    fn load_options(self) -> Result<LoadOptions, Failure> {
        let source = self.model_id.as_deref().map_or(Ok(ModelSource::Demo), read_as("model_id"))?;
        if let Some(unknown) = self.families.iter().find(|name| FAMILIES.iter().all(|family| family.name != *name)) {
            let known = families().join(", ");
            return Err(Failure::Load(format!("arch: {unknown} is no family that can be loaded; there are {known}")));
        }
        // There are no accelerators yet: what could be read asks for nothing.
        self.device_layers.as_deref().map(read_as::<DeviceLayers, _>("num_device_layers")).transpose()?;
        let usual = Capacity::default();
        let bytes = |mib: usize| mib.saturating_mul(1 << 20);
        let capacity = Capacity {
            memory_bytes: self.memory_mb.map(bytes),
            cache_bytes: self.kv_cache_mb.map(bytes),
            cache_format: named("pa_cache_type", self.kv_cache_type, CACHE_TYPES)?,
            sequences_max: self.max_seqs.unwrap_or(usual.sequences_max),
            ..usual
        };
        let importance = match (self.imatrix, self.calibration_file) {
            (Some(_), Some(_)) => return Err(Failure::Load("imatrix and calibration_file exclude each other".into())),
            (matrix, text) => matrix.map(ImportanceSource::Matrix).or(text.map(ImportanceSource::Text)),
        };
        let slice = match (self.matformer_slice_name, self.matformer_config_path) {
            (None, Some(_)) => return Err(Failure::Load("matformer_config_path is for a matformer_slice_name".into())),
            (name, table) => name.map(|name| SliceSource { table, name }),
        };
        let pictures = ImageOptions { max_edge: self.max_edge, ..ImageOptions::default() };
        pictures.check().map_err(|e| Failure::Load(format!("{} {}", e.field, e.reason)))?;
        let mut hub = environment::hub(self.hf_cache_path);
        if let Some(token) = self.token {
            hub.token = Some(token).filter(|token| !token.is_empty());
        }
        Ok(LoadOptions {
            families: self.families,
            dtype: named("dtype", self.dtype, DTYPES)?,
            quant: self.quant.as_deref().map(read_as("in_situ_quant")).transpose()?,
            organization: named("organization", self.organization, ORGANIZATIONS)?,
            topology: self.topology,
            importance,
            slice,
            pictures,
            tokenizer: self.tokenizer_json,
            chat_template: self.chat_template,
            jinja_explicit: self.jinja_explicit,
            dialect: self.tool_dialect.as_deref().map(read_as("tool_dialect")).transpose()?,
            context_max: self.max_seq_len,
            capacity,
            ..LoadOptions::new(source, hub)
        })
    }
}

/// Reads a value, and says which it is where it is none.
fn read_as<T: FromStr<Err = E>, E: ToString>(name: &str) -> impl Fn(&str) -> Result<T, Failure> {
    move |text| text.parse().map_err(|e: E| Failure::Load(format!("{name}: {}", e.to_string())))
}

/// What goes by a name; the first when there is none.
fn named<T: Copy>(option: &str, name: Option<String>, all: &[(&str, T)]) -> Result<T, Failure> {
    let Some(name) = name else { return Ok(all[0].1) };
    let found = all.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        Failure::Load(format!("{option}: {name:?} is none of {}", known.join(", ")))
    })
}
