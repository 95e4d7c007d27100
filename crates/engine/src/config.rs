use std::fmt;

use nn::{CacheSpec, Device, KvFormat};

use crate::EngineError;
use crate::layout::Layout;

/// How much cache there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSize {
    /// So many blocks of every layer.
    Blocks(usize),
    /// As many blocks as fit in so many bytes, but no more than all sequences can use.
    Bytes(usize),
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(blocks) => write!(f, "{blocks} blocks"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// Limits of an engine. All of them are fixed when it starts.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Size of the cache.
    pub cache: CacheSize,
    /// Tokens in a cache block.
    pub block_size: usize,
    /// Sequences that are computed at the same time.
    pub sequences_max: usize,
    /// Rows of a step. Sequences that wait for their next token always take part; prompts share what they leave.
    pub budget_tokens_max: usize,
    /// Requests that may wait; one more is refused.
    pub queue_max: usize,
    /// Tokens that prompt and answer may have together; the cache may allow less.
    pub context_max: usize,
    /// Bytes of encoded media that are kept for later requests.
    pub encodings_bytes_max: usize,
    /// Numbers of the cache.
    pub format: KvFormat,
    /// Where the cache lives: the model's device.
    pub device: Device,
}

impl EngineConfig {
    /// Usual limits for a model that was made for `context_max` tokens: a gigabyte of f32 cache in main memory.
    pub fn new(context_max: usize) -> Self {
        Self {
            cache: CacheSize::Bytes(1 << 30),
            block_size: 32,
            sequences_max: 32,
            budget_tokens_max: 512,
            queue_max: 512,
            context_max,
            encodings_bytes_max: 256 << 20,
            format: KvFormat::F32,
            device: Device::Cpu,
        }
    }

    /// What the cache of a model would be: its bytes, and the tokens of one sequence that it has room for.
    pub fn cache_room(&self, spec: &CacheSpec) -> (usize, usize) {
        let layout = Layout::new(self, spec);
        (layout.bytes, layout.context(self.budget_tokens_max))
    }

    /// Bytes of a cache with room for one sequence of so many tokens.
    pub fn cache_bytes_for(&self, spec: &CacheSpec, tokens: usize) -> usize {
        Layout::new(self, spec).bytes_for(tokens, self.budget_tokens_max)
    }

    /// # Errors
    /// [`EngineError::OutOfRange`] for a limit that lets nothing through.
    pub(crate) fn check(&self, layout: &Layout) -> Result<(), EngineError> {
        let fields = [
            ("block_size", self.block_size),
            ("sequences_max", self.sequences_max),
            ("budget_tokens_max", self.budget_tokens_max),
            ("queue_max", self.queue_max),
            ("context_max", self.context_max),
        ];
        let at_least = |field, found: String, allowed| Err(EngineError::OutOfRange { field, found, allowed });
        if let Some((field, _)) = fields.into_iter().find(|(_, value)| *value == 0) {
            return at_least(field, "0".into(), "at least 1");
        }
        if !layout.holds(1, 1) {
            return at_least("the cache", self.cache.to_string(), "room for one token");
        }
        match layout.blocks.iter().all(|blocks| u32::try_from(*blocks).is_ok()) {
            true => Ok(()),
            false => at_least("the cache", self.cache.to_string(), "less than 2^32 blocks"),
        }
    }
}
