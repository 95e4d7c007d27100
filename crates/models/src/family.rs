use std::sync::Arc;

use nn::{
    CacheSpec, Checkpoint, Coverage, DType, Files, Footprint, LoadSettings, MediaKind, Model, NnError, Reading, Slice, Weights,
};
use serde_json::Value;

use crate::config::CONFIG;
use crate::{
    ModelError, Processor, SliceTable, gemma, gemma3, gemma3n, gemma4, idefics2, idefics3, llama, llama4, llava, minicpmo,
    mistral3, mllama, phi3, phi3v, phi4mm, qwen2_5_vl, qwen2_vl, qwen3_5, qwen3_vl, voxtral,
};

/// Reads a family's processor.
pub type LoadProcessor = fn(&Files) -> Result<Box<dyn Processor>, ModelError>;
/// Builds a family's model.
pub type LoadModel = fn(&Files, &Weights) -> Result<Box<dyn Model>, ModelError>;

/// The card of a family.
pub struct Family {
    /// Name of its folder, and of its fixtures.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// `architectures` in config.json.
    pub architectures: &'static [&'static str],
    /// What it takes beside text.
    pub modalities: &'static [MediaKind],
    /// Table of the published slices of its nested models, if it has any; see [`crate::SliceTable`].
    pub slices: Option<&'static str>,
    /// How its models say where something is in a picture, if they were trained to.
    pub boxes: Option<Boxes>,
    /// Reads the processor's configuration.
    pub processor: LoadProcessor,
    /// Builds the model from weights.
    pub model: LoadModel,
}

/// What the four numbers of a box in an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boxes {
    /// Left, top, right and bottom, in thousandths of the picture's width and height.
    Thousandths,
    /// Top, left, bottom and right, in thousandths.
    ThousandthsByLine,
    /// Left, top, right and bottom, in pixels of the picture as the model is shown it.
    Pixels,
}

/// All families, in the order of the table that users see.
pub static FAMILIES: &[Family] = &[
    gemma3::FAMILY,
    gemma3n::FAMILY,
    gemma4::FAMILY,
    idefics2::FAMILY,
    idefics3::FAMILY,
    idefics3::SMOLVLM,
    mllama::FAMILY,
    llama4::FAMILY,
    llava::FAMILY,
    llava::NEXT,
    minicpmo::FAMILY,
    mistral3::FAMILY,
    phi3v::FAMILY,
    phi4mm::FAMILY,
    qwen2_vl::FAMILY,
    qwen2_5_vl::FAMILY,
    qwen3_vl::FAMILY,
    qwen3_vl::MOE,
    qwen3_5::FAMILY,
    qwen3_5::MOE,
    voxtral::FAMILY,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma3::TEXT,
    llama4::TEXT,
    qwen2_vl::QWEN2,
    qwen3_vl::QWEN3,
    qwen3_vl::QWEN3_MOE,
    qwen3_5::TEXT,
    qwen3_5::TEXT_MOE,
    llama::LLAMA,
    llama::MISTRAL,
    phi3::FAMILY,
];

/// A model ready to run.
pub struct Loaded {
    /// Its card.
    pub family: &'static Family,
    /// Computes.
    pub model: Box<dyn Model>,
    /// Makes media into its input.
    pub processor: Box<dyn Processor>,
    /// Tokens that its positions were trained for, where config.json says.
    pub context_max: Option<usize>,
    /// Number format that weights are kept in where they are not quantised.
    pub dtype: DType,
    /// What it takes in main memory.
    pub footprint: Footprint,
    /// How many quantised matrices an importance was known for, if one was given.
    pub importance: Option<Coverage>,
    /// Tensors of the checkpoint that the model has no use for.
    pub leftover: Vec<String>,
}

impl Family {
    /// The family of a checkpoint, by the first entry of `architectures` in config.json.
    ///
    /// # Errors
    /// config.json is missing or unreadable, or names no supported architecture.
    pub fn of(files: &Files) -> Result<&'static Self, ModelError> {
        let config: Value = files.required_json(CONFIG)?;
        let architecture = config["architectures"][0].as_str().unwrap_or_default();
        let found = FAMILIES.iter().find(|family| family.architectures.contains(&architecture));
        found.ok_or_else(|| ModelError::Architecture {
            file: files.label(CONFIG),
            architecture: architecture.to_string(),
            known: FAMILIES.iter().flat_map(|f| f.architectures).copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// "text, image and video"
    pub fn accepts(&self) -> String {
        let names: Vec<&str> = std::iter::once("text").chain(self.modalities.iter().map(|m| m.name())).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

impl Family {
    /// A slice of its models by name, from a table (where it is from, and its text) or else from that of the published ones.
    ///
    /// # Errors
    /// The family has no slices, the table is none, or there is no such slice in it.
    pub fn slice(&self, table: Option<(String, String)>, name: &str) -> Result<Slice, ModelError> {
        let Some(published) = self.slices else {
            let reason = format!("cannot be loaded: {} is not a nested model (MatFormer), so it has no slices", self.title);
            return Err(ModelError::Slice { name: name.to_string(), reason });
        };
        let (label, text) = table.unwrap_or_else(|| ("the table of published slices".into(), published.into()));
        SliceTable::parse(&label, &text)?.find(name)
    }
}

/// What a model would be, and take, once loaded.
#[derive(Debug)]
pub struct Measured {
    /// What it keeps per sequence.
    pub cache_spec: CacheSpec,
    /// Number of logits per row.
    pub vocab_size: usize,
    /// What it takes in main memory.
    pub footprint: Footprint,
    /// As [`Loaded::context_max`].
    pub context_max: Option<usize>,
    /// As [`Loaded::dtype`].
    pub dtype: DType,
}

/// Measures what [`load`] would load with these settings. All names and shapes are checked, and no matrix is read.
///
/// # Errors
/// As [`load`].
pub fn measure(files: &Files, settings: &LoadSettings) -> Result<Measured, ModelError> {
    let settings = LoadSettings {
        reading: Reading::Shapes,
        importance: None,
        observer: None,
        progress: Arc::new(|_, _| ()),
        ..settings.clone()
    };
    let Loaded { model, footprint, context_max, dtype, .. } = load(files, settings)?;
    Ok(Measured { cache_spec: model.cache_spec().clone(), vocab_size: model.vocab_size(), footprint, context_max, dtype })
}

/// Loads a checkpoint of any family. Small configuration files are read before the weights, so that mistakes show at once.
///
/// # Errors
/// Whatever is wrong with the checkpoint, naming the file and the key or tensor.
pub fn load(files: &Files, settings: LoadSettings) -> Result<Loaded, ModelError> {
    let family = Family::of(files)?;
    let processor = (family.processor)(files)?;
    let checkpoint = Arc::new(Checkpoint::open(files)?);
    if let (Some(stored), Some(wanted)) = (checkpoint.quantised(), settings.quant) {
        let reason = format!("{} is quantised already (to {stored}), so it cannot be to {wanted}", files.name());
        return Err(NnError::Blocks(reason).into());
    }
    let weights = Weights::new(checkpoint.clone(), settings);
    let model = (family.model)(files, &weights)?;
    let importance = weights.finished()?;
    let config: Value = files.required_json(CONFIG)?;
    let context = |config: &Value| config["max_position_embeddings"].as_u64();
    let context_max = context(&config["text_config"]).or_else(|| context(&config)).map(|n| n as usize);
    let leftover = checkpoint.leftover().into_iter().map(str::to_string).collect();
    let (dtype, footprint) = (weights.dtype(), weights.footprint());
    Ok(Loaded { family, model, processor, context_max, dtype, footprint, importance, leftover })
}
