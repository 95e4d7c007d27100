//! Keys and values of tokens that were computed before, in blocks that sequences own.

use candle_core::{DType, Device, Tensor};

use crate::{NnError, Span};

/// What one layer keeps per sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCache {
    /// A key and a value per token: [kv_heads, head_dim] each.
    Kv {
        /// Key/value heads.
        kv_heads: usize,
        /// Elements of a head.
        head_dim: usize,
        /// Tokens that are looked back at, where that is bounded.
        window: Option<usize>,
    },
}

/// What a model keeps per sequence, layer by layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// One entry per layer.
    pub layers: Vec<LayerCache>,
}

impl CacheSpec {
    /// Bytes that one token takes in all layers, in a cache of `dtype`.
    pub fn bytes_per_token(&self, dtype: DType) -> usize {
        let elements = |layer: &LayerCache| match layer {
            LayerCache::Kv { kv_heads, head_dim, .. } => 2 * kv_heads * head_dim,
        };
        self.layers.iter().map(elements).sum::<usize>() * dtype.size_in_bytes()
    }
}

/// Storage for `blocks` blocks of `block_size` tokens, the same for every layer. Who owns which block is the engine's affair.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>, // keys, values: [blocks * block_size, kv_heads, head_dim]
    block_size: usize,
    blocks: usize,
}

impl Cache {
    /// Allocates the storage, zeroed.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(spec: &CacheSpec, blocks: usize, block_size: usize, dtype: DType, device: &Device) -> Result<Self, NnError> {
        let mut layers = Vec::with_capacity(spec.layers.len());
        for LayerCache::Kv { kv_heads, head_dim, .. } in &spec.layers {
            let shape = (blocks * block_size, *kv_heads, *head_dim);
            layers.push((Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?));
        }
        Ok(Self { layers, block_size, blocks })
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Appends the keys and values of a span's rows: [rows, kv_heads, head_dim] each.
    pub fn append(&mut self, layer: usize, span: &Span, keys: &Tensor, values: &Tensor) -> Result<(), NnError> {
        let (cached_keys, cached_values) = &self.layers[layer];
        let dtype = cached_keys.dtype();
        let (keys, values) = (keys.to_dtype(dtype)?.contiguous()?, values.to_dtype(dtype)?.contiguous()?);
        let mut done = 0;
        for (slot, count) in self.runs(span, span.start, span.end()) {
            cached_keys.slice_set(&keys.narrow(0, done, count)?, 0, slot)?;
            cached_values.slice_set(&values.narrow(0, done, count)?, 0, slot)?;
            done += count;
        }
        Ok(())
    }

    /// Keys and values of the span's tokens from number `from` to its end: [tokens, kv_heads, head_dim] each.
    pub fn read(&self, layer: usize, span: &Span, from: usize) -> Result<(Tensor, Tensor), NnError> {
        let (keys, values) = &self.layers[layer];
        let runs = self.runs(span, from, span.end());
        let gather = |cached: &Tensor| -> Result<Tensor, NnError> {
            let parts: Result<Vec<_>, _> = runs.iter().map(|&(slot, count)| cached.narrow(0, slot, count)).collect();
            Ok(Tensor::cat(&parts?, 0)?)
        };
        Ok((gather(keys)?, gather(values)?))
    }

    /// Where the tokens `from..to` lie: (first slot, number of slots), neighbouring blocks joined.
    fn runs(&self, span: &Span, from: usize, to: usize) -> Vec<(usize, usize)> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut at = from;
        while at < to {
            let inside = at % self.block_size;
            let slot = span.blocks[at / self.block_size] as usize * self.block_size + inside;
            let count = (self.block_size - inside).min(to - at);
            match runs.last_mut() {
                Some((first, length)) if *first + *length == slot => *length += count,
                _ => runs.push((slot, count)),
            }
            at += count;
        }
        runs
    }
}
