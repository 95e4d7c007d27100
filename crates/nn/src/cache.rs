//! Keys and values of tokens that were computed before, in blocks that sequences own.

use candle_core::{DType, Device, Tensor};
use kernels::{KvCache, KvFormat, KvShape, KvSpan, Past};

use crate::attention::attention_elsewhere;
use crate::decoder::Step;
use crate::{NnError, Qkv, Scores, Span, host};

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
    /// Bytes that a block of so many tokens takes in all layers.
    pub fn bytes_per_block(&self, block_size: usize, format: KvFormat) -> usize {
        self.layers.iter().map(|layer| layer.shape(block_size).block_bytes(format)).sum()
    }
}

impl LayerCache {
    fn shape(&self, block_size: usize) -> KvShape {
        match *self {
            Self::Kv { kv_heads, head_dim, .. } => KvShape { kv_heads, head_dim, block_size },
        }
    }
}

/// Storage for `blocks` blocks of `block_size` tokens, the same for every layer. Who owns which block is the engine's affair.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<Layer>,
    block_size: usize,
    blocks: usize,
}

#[derive(Debug)]
enum Layer {
    /// In main memory, in the layout of the kernels.
    Here(KvCache),
    /// On another device: keys and values, [blocks * block_size, kv_heads, head_dim] each.
    Elsewhere(Tensor, Tensor),
}

impl Cache {
    /// Allocates the storage, zeroed.
    ///
    /// # Errors
    /// The device has no room, or does not keep this format: 8 bits are for main memory.
    pub fn new(spec: &CacheSpec, blocks: usize, block_size: usize, format: KvFormat, device: &Device) -> Result<Self, NnError> {
        let layer = |layer: &LayerCache| {
            let shape = layer.shape(block_size);
            if device.is_cpu() {
                return Ok(Layer::Here(KvCache::new(shape, blocks, format)));
            }
            let dtype = match format {
                KvFormat::F32 => DType::F32,
                KvFormat::Bf16 => DType::BF16,
                KvFormat::F16 => DType::F16,
                KvFormat::Q8 => return Err(NnError::Input("keys and values in 8 bits on this device")),
            };
            let zeros = || Tensor::zeros((blocks * block_size, shape.kv_heads, shape.head_dim), dtype, device);
            Ok::<_, NnError>(Layer::Elsewhere(zeros()?, zeros()?))
        };
        Ok(Self { layers: spec.layers.iter().map(layer).collect::<Result<_, _>>()?, block_size, blocks })
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// One layer's part.
    pub(crate) fn layer(&mut self, index: usize) -> CachedLayer<'_> {
        CachedLayer { layer: &mut self.layers[index], block_size: self.block_size }
    }
}

/// What one layer remembers.
pub(crate) struct CachedLayer<'a> {
    layer: &'a mut Layer,
    block_size: usize,
}

impl CachedLayer<'_> {
    /// Appends the keys and values of all rows of x, which is laid out as `qkv` says, and lets the queries look at what is
    /// there then: [rows, heads * head_dim].
    pub fn attend(self, x: &Tensor, qkv: Qkv, step: &Step, scores: Scores) -> Result<Tensor, NnError> {
        let block_size = self.block_size;
        match self.layer {
            Layer::Here(kv) => {
                let (rows, stride) = x.dims2()?;
                host::read(x, |x| {
                    let [q, k, v] = [qkv.queries(), qkv.keys(), qkv.values()].map(|heads| heads.of(x, stride));
                    let spans: Vec<KvSpan> = step.batch.spans.iter().map(Span::kernel).collect();
                    kv.append(host::cpu(), k, v, &spans);
                    let past = Past { kv, spans: &spans };
                    host::make((rows, qkv.width()), |y| kernels::attention(host::cpu(), q, past, &scores.kernel(), y))
                })?
            }
            Layer::Elsewhere(keys, values) => {
                let [q, k, v] = qkv.split(x)?;
                let mut parts = Vec::with_capacity(step.batch.spans.len());
                for (i, span) in step.batch.spans.iter().enumerate() {
                    let rows = |x: &Tensor| x.narrow(0, span.rows.start, span.rows.len());
                    let place = |cached: &Tensor, new: &Tensor| write(cached, &rows(new)?, &runs(span, span.start, block_size));
                    place(keys, &k)?;
                    place(values, &v)?;
                    let view = step.view(i, scores.window)?;
                    let seen = runs(span, view.from, block_size);
                    let [k, v] = [gather(keys, &seen, q.dtype())?, gather(values, &seen, q.dtype())?];
                    parts.push(attention_elsewhere(&rows(&q)?, &k, &v, view.mask.as_ref(), scores)?);
                }
                Ok(Tensor::cat(&parts, 0)?)
            }
        }
    }
}

fn write(cached: &Tensor, rows: &Tensor, places: &[(usize, usize)]) -> Result<(), NnError> {
    let rows = rows.to_dtype(cached.dtype())?.contiguous()?;
    let mut done = 0;
    for &(slot, count) in places {
        cached.slice_set(&rows.narrow(0, done, count)?, 0, slot)?;
        done += count;
    }
    Ok(())
}

fn gather(cached: &Tensor, places: &[(usize, usize)], dtype: DType) -> Result<Tensor, NnError> {
    let parts: Result<Vec<_>, _> = places.iter().map(|&(slot, count)| cached.narrow(0, slot, count)).collect();
    Ok(Tensor::cat(&parts?, 0)?.to_dtype(dtype)?)
}

/// Where a span's tokens lie from number `from` to its end: (first slot, number of slots), neighbouring blocks joined.
fn runs(span: &Span, from: usize, block_size: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut at = from;
    while at < span.end() {
        let inside = at % block_size;
        let slot = span.blocks[at / block_size] as usize * block_size + inside;
        let count = (block_size - inside).min(span.end() - at);
        match runs.last_mut() {
            Some((first, length)) if *first + *length == slot => *length += count,
            _ => runs.push((slot, count)),
        }
        at += count;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_blocks_are_one_run() {
        let span = Span { rows: 0..3, start: 9, blocks: vec![5, 6, 2], islands: vec![] };
        for (from, expected) in [(0, vec![(20, 8), (8, 4)]), (5, vec![(25, 3), (8, 4)]), (9, vec![(9, 3)])] {
            assert_eq!(runs(&span, from, 4), expected);
        }
    }
}
