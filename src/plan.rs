//! What a model takes in memory, found out before it is loaded.

use std::fmt;
use std::sync::Arc;

use ::media::{Image, ImageOptions};
use engine::{CacheSize, EngineConfig};
use models::{Measured, Media, Processor};
use nn::{Footprint, KvFormat, MediaInput};

use crate::machine::Memory;
use crate::{Capacity, KvCache};

/// Width and height of the picture that room is planned for. Larger ones are refused when they come, if there is no memory for them.
const PICTURE: usize = 1024;
/// Tokens that a conversation must be able to have, unless the model or the caller wants fewer.
const CONTEXT_MIN: usize = 1024;

/// What a model and its work take of main memory, in bytes, beside what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights of the language model.
    pub language: usize,
    /// Weights of towers and projectors.
    pub towers: usize,
    /// Intermediate results and logits of a step.
    pub step: usize,
    /// Encoding a picture of 1024x1024; 0 for models that do not see.
    pub encoding: usize,
    /// Decoded and encoded media that are kept for later requests, at most.
    pub kept_media: usize,
    /// Keys and values.
    pub kv_cache: KvCache,
    /// What may be taken; absent where the system does not tell and nobody said.
    pub allowed: Option<usize>,
    /// Tokens of the longest conversation that there would be room for; 0 where the rest does not even fit.
    pub context_max: usize,
}

/// What is asked of a [`MemoryPlan`].
pub(crate) struct Wanted<'a> {
    pub measured: &'a Measured,
    /// What [`picture`] gives.
    pub picture: Option<&'a MediaInput>,
    /// For the model's own context.
    pub config: &'a EngineConfig,
    pub capacity: &'a Capacity,
    /// Tokens of a conversation that the caller insists on.
    pub context: Option<usize>,
}

impl MemoryPlan {
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let Wanted { measured: Measured { footprint, cache_spec, vocab_size, .. }, picture, config, capacity, context } = wanted;
        let Footprint { language, towers, .. } = *footprint;
        let logits = config.sequences_max.saturating_mul(*vocab_size).saturating_mul(size_of::<f32>());
        let step = footprint.step(config.budget_tokens_max).saturating_add(logits);
        let encoding = picture.map_or(0, |input| footprint.encoding(input));
        let kept_media = capacity.encodings_bytes_max.saturating_add(capacity.media_bytes_max);
        let allowed = capacity.memory_bytes.or_else(|| Memory::here().and_then(|memory| usize::try_from(memory.free).ok()));
        let fixed = [language, towers, step, encoding, kept_media].into_iter().fold(0, usize::saturating_add);
        let rest = allowed.map(|allowed| allowed.saturating_sub(fixed));
        let least = config.cache_bytes_for(cache_spec, context.unwrap_or(CONTEXT_MIN).min(config.context_max));
        let bytes = match (capacity.cache_bytes, rest, config.cache) {
            (Some(bytes), ..) => bytes,
            (None, Some(rest), _) => least.max(rest / 2),
            (None, None, CacheSize::Bytes(bytes)) => least.max(bytes),
            (None, None, CacheSize::Blocks(_)) => least,
        };
        let room = |bytes| EngineConfig { cache: CacheSize::Bytes(bytes), ..(*config).clone() }.cache_room(cache_spec);
        let (bytes, tokens) = room(bytes);
        let (_, context_max) = room(rest.unwrap_or(bytes));
        let kv_cache = KvCache { bytes, tokens: tokens.min(config.context_max), format: config.format };
        Self { language, towers, step, encoding, kept_media, kv_cache, allowed, context_max: context_max.min(config.context_max) }
    }

    /// Everything together.
    pub fn total(&self) -> usize {
        let Self { language, towers, step, encoding, kept_media, kv_cache, .. } = self;
        [*language, *towers, *step, *encoding, *kept_media, kv_cache.bytes].into_iter().fold(0, usize::saturating_add)
    }

    /// Whether it may be taken.
    pub fn fits(&self) -> bool {
        self.allowed.is_none_or(|allowed| self.total() <= allowed)
    }
}

/// A line for each thing that takes memory, and one for what there is.
impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { language, towers, step, encoding, kept_media, kv_cache: KvCache { bytes, tokens, format }, .. } = self;
        let format = match format {
            KvFormat::F32 => "f32",
            KvFormat::Bf16 => "bf16",
            KvFormat::F16 => "f16",
            KvFormat::Q8 => "q8",
        };
        let lines = [
            ("weights of the language model".to_string(), Some(*language)),
            ("weights of towers and projectors".into(), Some(*towers)),
            ("a step".into(), Some(*step)),
            (format!("encoding a picture of {PICTURE}x{PICTURE}"), Some(*encoding)),
            ("media that are kept".into(), Some(*kept_media)),
            (format!("keys and values of {tokens} tokens in {format}"), Some(*bytes)),
            ("together".into(), Some(self.total())),
            ("may be taken".into(), self.allowed),
        ];
        let lines = lines.iter().filter_map(|(name, bytes)| Some((name, (*bytes)?))).filter(|(_, bytes)| *bytes > 0);
        let lines: Vec<String> = lines.map(|(name, bytes)| format!("{name:44} {:>9}", amount(bytes))).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Bytes for a person.
pub(crate) fn amount(bytes: usize) -> String {
    match bytes as f64 {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{:.0} kB", (bytes / 1e3).ceil()),
    }
}

/// The picture that room is planned for as model input, where the model sees. It is the same however weights are kept.
pub(crate) fn picture(processor: &dyn Processor) -> Option<Arc<MediaInput>> {
    let blank = Image::new(PICTURE, PICTURE, vec![0; PICTURE * PICTURE * 3])?;
    Some(processor.process(Media::Image(blank, ImageOptions::default())).ok()?.input)
}
