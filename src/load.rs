//! A model's files → a running engine with everything around it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::media::{ImageOptions, PdfReader};
use engine::{CacheSize, Engine, EngineConfig};
use models::{Family, Loaded, Marker, ModelError, Processor};
use nn::{Coverage, DType, Files, Footprint, KvFormat, LoadSettings, MediaInput, NnError, Organization, Quant, Reading};
use serde_json::Value;
use text::{ChatTemplate, Dialect, Grammars, TemplateFiles, TextError, Tokenizer};

use crate::fetch::{Fetcher, FileAccess};
use crate::hub::{Hub, OnProgress, Progress, Task};
use crate::media::MediaCache;
use crate::plan::{self, MemoryPlan, Wanted};
use crate::prepare::shows_pictures_in_results;
use crate::{Error, ImportanceSource, ModelSource, Reach};

const GENERATION: &str = "generation_config.json";

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The model.
    pub source: ModelSource,
    /// Where hub ids are resolved.
    pub hub: Hub,
    /// Names of the families that it may be of; of any when there are none.
    pub families: Vec<String>,
    /// Number format of weights that are not quantised.
    pub dtype: Dtype,
    /// Block format of the language model's matrices.
    pub quant: Option<Quant>,
    /// Which of them are quantised.
    pub organization: Organization,
    /// A topology file (YAML): formats of some layers or matrices, which come before `quant`.
    pub topology: Option<PathBuf>,
    /// What quantising goes by, if not only by the weights themselves.
    pub importance: Option<ImportanceSource>,
    /// Which part of a nested model is loaded, if not the whole.
    pub slice: Option<SliceSource>,
    /// A tokenizer.json or tekken.json to use instead of the model's.
    pub tokenizer: Option<PathBuf>,
    /// A chat template (.jinja, or .json with `chat_template`) to use instead of the model's.
    pub chat_template: Option<PathBuf>,
    /// A bare Jinja chat template that goes before all others.
    pub jinja_explicit: Option<PathBuf>,
    /// How the model writes calls of functions; what its chat template shows when absent.
    pub dialect: Option<Dialect>,
    /// Which local files requests may name.
    pub files: FileAccess,
    /// Where media of requests may be downloaded from.
    pub reach: Reach,
    /// What is wanted of pictures, where requests leave it open.
    pub pictures: ImageOptions,
    /// Who reads PDFs of requests.
    pub pdf_reader: PdfReader,
    /// Tokens of a sequence, where fewer than the model's own limit are wanted.
    pub context_max: Option<usize>,
    /// What it may take to serve requests.
    pub capacity: Capacity,
    /// How much of the checkpoint is read. Where it is not whole, requests can be prepared and not answered.
    pub reading: Reading,
}

/// A part of a nested model (MatFormer) that is a model too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceSource {
    /// Table of slices, CSV or JSON, instead of that of the family's published ones.
    pub table: Option<PathBuf>,
    /// Its name in the table.
    pub name: String,
}

/// What serving requests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes of main memory that may be taken in all; what is free when the model is loaded, when absent.
    pub memory_bytes: Option<usize>,
    /// Bytes of keys and values; half of what the model leaves, when absent, and never more than all sequences can use.
    pub cache_bytes: Option<usize>,
    /// Numbers of keys and values; those that the model computes with, when absent.
    pub cache_format: Option<KvFormat>,
    /// Requests that are answered at the same time.
    pub sequences_max: usize,
    /// Tokens that are computed in one step.
    pub step_tokens_max: usize,
    /// Bytes of encoded media that are kept for later requests.
    pub encodings_bytes_max: usize,
    /// Bytes of decoded and resized media that are kept for later requests.
    pub media_bytes_max: usize,
}

/// The keys and values of everything that is being said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvCache {
    /// What they take.
    pub bytes: usize,
    /// Tokens for which there is room.
    pub tokens: usize,
    /// Their numbers.
    pub format: KvFormat,
}

impl Default for Capacity {
    fn default() -> Self {
        let EngineConfig { sequences_max, budget_tokens_max: step_tokens_max, encodings_bytes_max, .. } = EngineConfig::new(1);
        let media_bytes_max = 256 << 20;
        Self {
            memory_bytes: None,
            cache_bytes: None,
            cache_format: None,
            sequences_max,
            step_tokens_max,
            encodings_bytes_max,
            media_bytes_max,
        }
    }
}

/// Number format of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtype {
    /// What the device computes fastest.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, 8 of exponent.
    Bf16,
    /// 16 bits, 5 of exponent.
    F16,
}

/// A loaded model that answers requests. Clones share it.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub id: String,
    pub family: &'static Family,
    pub processor: Box<dyn Processor>,
    pub tokenizer: Arc<Tokenizer>,
    grammars: OnceLock<Grammars>,
    pub template: ChatTemplate,
    pub dialect: Dialect,
    /// Whether pictures can be shown in the results of functions.
    pub pictures_in_results: bool,
    pub ends: Vec<u32>,
    pub context_max: usize,
    pub fetcher: Fetcher,
    pub media: MediaCache,
    pub pictures: ImageOptions,
    pub pdf_reader: PdfReader,
    pub engine: Engine,
    pub workers: tokio::sync::Semaphore,
    pub importance: Option<Coverage>,
    pub leftover: Vec<String>,
    pub warnings: Vec<String>,
    pub reading: Reading,
    pub footprint: Footprint,
    pub plan: MemoryPlan,
}

impl LoadOptions {
    /// Everything as the model says.
    pub fn new(source: ModelSource, hub: Hub) -> Self {
        Self {
            source,
            hub,
            families: Vec::new(),
            dtype: Dtype::Auto,
            quant: None,
            organization: Organization::Default,
            topology: None,
            importance: None,
            slice: None,
            tokenizer: None,
            chat_template: None,
            jinja_explicit: None,
            dialect: None,
            files: FileAccess::All,
            reach: Reach::Anywhere,
            pictures: ImageOptions::default(),
            pdf_reader: PdfReader::Here,
            context_max: None,
            capacity: Capacity::default(),
            reading: Reading::Whole,
        }
    }
}

impl Model {
    /// Downloads what is missing, reads, quantises and starts.
    ///
    /// # Errors
    /// [`Error::Source`] and [`Error::Model`], naming the file and what is wrong with it.
    pub async fn load(options: LoadOptions, tell: OnProgress) -> Result<Self, Error> {
        let files = options.source.files(&options.hub, &tell).await?;
        let loading = tokio::task::spawn_blocking(move || Inner::load(&files, &options, tell));
        let inner = loading.await.map_err(|e| Error::Source(format!("loading failed: {e}")))??;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What loading would take in memory. Its files are downloaded where they are missing; no weights are read.
    ///
    /// # Errors
    /// [`Error::Source`] and [`Error::Model`], as [`Self::load`]. A model that does not fit is none: its plan says so.
    pub async fn plan(options: LoadOptions, tell: OnProgress) -> Result<MemoryPlan, Error> {
        let files = options.source.files(&options.hub, &tell).await?;
        let measuring = tokio::task::spawn_blocking(move || {
            let family = Family::of(&files)?;
            let processor = (family.processor)(&files)?;
            let (settings, _) = settings(family, &options, &tell)?;
            let picture = plan::picture(processor.as_ref());
            let (plan, _) = estimate(&files, &options, &settings, picture.as_deref())?;
            Ok(plan)
        });
        measuring.await.map_err(|e| Error::Source(format!("measuring failed: {e}")))?
    }

    /// What clients call it.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The card of its family.
    pub fn family(&self) -> &'static Family {
        self.inner.family
    }

    /// Tokens that a prompt and its answer may have together.
    pub fn context_max(&self) -> usize {
        self.inner.context_max
    }

    /// Where its chat template came from.
    pub fn template_source(&self) -> &str {
        self.inner.template.source()
    }

    /// How many quantised matrices an importance was known for, if one was given.
    pub fn importance(&self) -> Option<Coverage> {
        self.inner.importance
    }

    /// Tensors of the checkpoint that the model has no use for.
    pub fn leftover(&self) -> &[String] {
        &self.inner.leftover
    }

    /// What is odd about how it was loaded, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Room for keys and values.
    pub fn kv_cache(&self) -> KvCache {
        self.inner.plan.kv_cache
    }

    /// What it takes in memory.
    pub fn memory_plan(&self) -> &MemoryPlan {
        &self.inner.plan
    }

    /// Whether it answers requests.
    pub fn is_running(&self) -> bool {
        self.inner.engine.is_running()
    }

    /// Numbers of the running engine.
    pub fn stats(&self) -> engine::Stats {
        self.inner.engine.stats()
    }
}

impl Inner {
    /// What compiles grammars; made when the first one comes, which takes about a second for a large vocabulary.
    pub fn grammars(&self) -> Result<&Grammars, TextError> {
        if let Some(grammars) = self.grammars.get() {
            return Ok(grammars);
        }
        let grammars = Grammars::new(self.tokenizer.clone(), &self.ends)?;
        Ok(self.grammars.get_or_init(|| grammars))
    }

    fn load(files: &Files, options: &LoadOptions, tell: OnProgress) -> Result<Self, Error> {
        let family = Family::of(files)?;
        if !options.families.is_empty() && !options.families.iter().any(|name| name == family.name) {
            let (name, title, wanted) = (files.name(), family.title, options.families.join(" or "));
            return Err(Error::Source(format!("{name} is a model of the family {} ({title}), not of {wanted}", family.name)));
        }
        let processor = (family.processor)(files)?;
        let tokenizer = tokenizer(files, processor.as_ref(), options)?;
        let template = template(files, (processor.as_ref(), &tokenizer), options)?;
        let ends = ids(files, "eos_token_id")?;
        let (mut settings, warnings) = settings(family, options, &tell)?;
        let (plan, config) = plan(files, options, &settings, processor.as_ref())?;
        if let Some(source) = &options.importance {
            settings.importance = Some(Arc::new(source.read(files, &tokenizer, &settings, &tell)?));
        }
        let Loaded { model, processor, footprint, importance, leftover, .. } = models::load(files, settings)?;
        let engine = Engine::start(model, config).map_err(|e| Error::Source(format!("cannot start the engine: {e}")))?;
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Self {
            id: options.source.id(),
            pictures_in_results: shows_pictures_in_results(&template, processor.as_ref(), tokenizer.guard()),
            family,
            processor,
            tokenizer: Arc::new(tokenizer),
            grammars: OnceLock::new(),
            dialect: options.dialect.unwrap_or(template.dialect()),
            template,
            ends,
            context_max: engine.context_max(),
            fetcher: Fetcher::new(options.files.clone(), options.reach.clone())?,
            media: MediaCache::new(options.capacity.media_bytes_max)?,
            pictures: options.pictures,
            pdf_reader: options.pdf_reader.clone(),
            engine,
            workers: tokio::sync::Semaphore::new(workers),
            importance,
            leftover,
            warnings,
            reading: options.reading,
            footprint,
            plan,
        })
    }
}

/// How weights are to be loaded, and what is odd about that.
pub(crate) fn settings(family: &Family, options: &LoadOptions, tell: &OnProgress) -> Result<(LoadSettings, Vec<String>), Error> {
    let dtype = match options.dtype {
        Dtype::Auto => None,
        Dtype::F32 => Some(DType::F32),
        Dtype::Bf16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
    };
    let tell_of_load = tell.clone();
    let progress = Arc::new(move |done, total| tell_of_load(Progress { task: Task::Load, done, total }));
    let LoadOptions { quant, organization, reading, .. } = *options;
    if quant.is_none() && options.importance.is_some() {
        return Err(Error::Source("an importance is of use only together with a quantisation".into()));
    }
    if quant.is_none() && organization != Organization::Default {
        return Err(Error::Source("an organization is of use only together with a quantisation".into()));
    }
    let topology = options.topology.as_deref().map(crate::topology::read).transpose()?.unwrap_or_default();
    let overlap = topology.overlap();
    let warnings = overlap.map(|(first, second)| format!("topology: {first} and {second} overlap; {second} counts there"));
    let warnings: Vec<String> = warnings.into_iter().collect();
    let mut settings = LoadSettings { dtype, quant, organization, topology, reading, progress, ..LoadSettings::default() };
    if let Some(SliceSource { table, name }) = &options.slice {
        let table = table.as_deref().map(read_named).transpose()?;
        settings.slice = Some(family.slice(table, name)?);
    }
    Ok((settings, warnings))
}

/// What the model would take, and the engine's limits that go with it.
///
/// # Errors
/// What is wrong with the checkpoint.
fn estimate(
    files: &Files,
    options: &LoadOptions,
    settings: &LoadSettings,
    picture: Option<&MediaInput>,
) -> Result<(MemoryPlan, EngineConfig), ModelError> {
    let (capacity, context) = (&options.capacity, options.context_max);
    let measured = models::measure(files, settings)?;
    let own = measured.context_max.unwrap_or(usize::MAX);
    let mut config = EngineConfig {
        format: capacity.cache_format.unwrap_or_else(|| nn::kv_format(measured.dtype)),
        sequences_max: capacity.sequences_max,
        budget_tokens_max: capacity.step_tokens_max,
        encodings_bytes_max: capacity.encodings_bytes_max,
        ..EngineConfig::new(context.unwrap_or(usize::MAX).min(own))
    };
    let plan = MemoryPlan::new(&Wanted { measured: &measured, picture, config: &config, capacity, context });
    config.cache = CacheSize::Bytes(plan.kv_cache.bytes);
    Ok((plan, config))
}

/// The same for a model that is to be loaded now.
///
/// # Errors
/// What is wrong with the checkpoint, or [`Error::Memory`].
fn plan(
    files: &Files,
    options: &LoadOptions,
    settings: &LoadSettings,
    processor: &dyn Processor,
) -> Result<(MemoryPlan, EngineConfig), Error> {
    let picture = plan::picture(processor);
    let (plan, config) = estimate(files, options, settings, picture.as_deref())?;
    if plan.fits() || settings.reading == Reading::Shapes {
        return Ok((plan, config));
    }
    // Only what the caller left to us: a topology may have formats of its own, and these stay.
    let smaller = [Quant::Q8_0, Quant::Q6K, Quant::Q5K, Quant::Q4K, Quant::Q3K, Quant::Q2K];
    let fits = |quant: &Quant| {
        let settings = LoadSettings { quant: Some(*quant), ..settings.clone() };
        estimate(files, options, &settings, picture.as_deref()).is_ok_and(|(smaller, _)| smaller.fits())
    };
    Err(Error::Memory { plan: Box::new(plan), smaller: smaller.into_iter().find(fits) })
}

fn template(
    files: &Files,
    (processor, tokenizer): (&dyn Processor, &Tokenizer),
    options: &LoadOptions,
) -> Result<ChatTemplate, Error> {
    let theirs =
        |name: &str| -> Result<_, Error> { Ok(files.text(name).map_err(ModelError::Nn)?.map(|text| (files.label(name), text))) };
    let ours = |path: &Option<PathBuf>| path.as_deref().map(read_named).transpose();
    let all = TemplateFiles {
        jinja_explicit: ours(&options.jinja_explicit)?,
        chat_template: ours(&options.chat_template)?,
        of_family: processor.chat_template(),
        ..TemplateFiles::of_model(theirs)?
    };
    let refused = |e| match e {
        TextError::NoTemplate => Error::Source(format!("{}: {e}", files.name())),
        e => Error::Model(e.into()),
    };
    let mut chosen = all.choose().map_err(refused)?;
    if all.tokenizer_config.is_none() {
        for (name, key) in [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")] {
            let spelled = ids(files, key)?.first().and_then(|id| tokenizer.token(*id));
            if let Some(token) = spelled.filter(|_| !chosen.tokens.contains_key(name)) {
                chosen.tokens.insert(name.into(), token.into());
            }
        }
    }
    ChatTemplate::new(chosen).map_err(refused)
}

pub(crate) fn read_named(path: &Path) -> Result<(String, String), Error> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Error::Source(format!("cannot read {name}: {e}")))?;
    Ok((name, text))
}

fn tokenizer(files: &Files, processor: &dyn Processor, options: &LoadOptions) -> Result<Tokenizer, Error> {
    let markers: Vec<&str> = processor.markers().iter().map(Marker::protected).collect();
    if let Some(path) = &options.tokenizer {
        let (label, json) = read_named(path)?;
        return Ok(Tokenizer::new(&label, json.as_bytes(), &markers).map_err(ModelError::Text)?);
    }
    for name in Tokenizer::FILES {
        if let Some(json) = files.read(name).map_err(ModelError::Nn)? {
            return Ok(Tokenizer::new(&files.label(name), &json, &markers).map_err(ModelError::Text)?);
        }
    }
    let [wanted, instead] = Tokenizer::FILES;
    let reason = format!("there is no such file, and no {instead}");
    Err(ModelError::Nn(NnError::File { file: files.label(wanted), reason }).into())
}

/// `bos_token_id` or `eos_token_id` of generation_config.json, or of config.json: a number or a list.
fn ids(files: &Files, key: &str) -> Result<Vec<u32>, Error> {
    for name in [GENERATION, "config.json"] {
        let config: Option<Value> = files.json(name).map_err(ModelError::Nn)?;
        let Some(config) = config else { continue };
        let given = [&config[key], &config["text_config"][key]].into_iter().find(|v| !v.is_null());
        let Some(given) = given else { continue };
        let ids: Option<Vec<u64>> = match given {
            Value::Array(ids) => ids.iter().map(Value::as_u64).collect(),
            id => id.as_u64().map(|id| vec![id]),
        };
        let ids = ids.and_then(|ids| ids.into_iter().map(|id| u32::try_from(id).ok()).collect());
        let refused =
            || ModelError::Config { file: files.label(name), reason: format!("{key} is not a token id or a list of them") };
        return Ok(ids.ok_or_else(refused)?);
    }
    Ok(Vec::new())
}
