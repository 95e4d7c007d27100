//! Keys and values of tokens that were computed before, in blocks that sequences own.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use kernels::{KvCache, KvFormat, KvShape, KvSpan, Past};

use crate::attention::attention_elsewhere;
use crate::decoder::Step;
use crate::{Ahead, Back, HeadRange, NnError, Qkv, Scores, Span, host};

/// What one layer keeps per sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCache {
    /// A key and a value per token: [kv_heads, head_dim] each.
    Kv {
        /// Key/value heads.
        kv_heads: usize,
        /// Elements of a head.
        head_dim: usize,
        /// How far back is looked.
        back: Back,
    },
    /// Numbers that stand for all tokens so far, zero before the first.
    State {
        /// How many, in f32.
        numbers: usize,
    },
}

/// How long the blocks of a layer are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retention {
    /// As long as they hold a token that the next one looks back at.
    Tokens(Back),
    /// There is one block, which every token changes.
    State,
}

/// Layers whose blocks are needed equally long. A sequence has a table of blocks for each group; a block holds the same tokens
/// in all layers of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheGroup {
    /// How long its blocks are needed.
    pub retention: Retention,
    layers: Vec<LayerCache>,
}

/// What a model keeps per sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSpec {
    layers: Vec<(LayerCache, usize)>, // with the number of its group
    groups: Vec<CacheGroup>,
}

impl CacheSpec {
    /// For these layers.
    pub fn new(layers: impl IntoIterator<Item = LayerCache>) -> Self {
        let layers: Vec<LayerCache> = layers.into_iter().collect();
        let retentions: BTreeSet<Retention> = layers.iter().map(LayerCache::retention).collect();
        let group = |&retention: &Retention| CacheGroup {
            retention,
            layers: layers.iter().filter(|layer| layer.retention() == retention).copied().collect(),
        };
        let place = |layer: &LayerCache| retentions.iter().take_while(|retention| **retention != layer.retention()).count();
        Self {
            groups: retentions.iter().map(group).collect(),
            layers: layers.iter().map(|layer| (*layer, place(layer))).collect(),
        }
    }

    /// The groups, in the order of a sequence's tables.
    pub fn groups(&self) -> &[CacheGroup] {
        &self.groups
    }
}

impl CacheGroup {
    /// Bytes that a block of so many tokens takes in all layers of the group; those of a state do not depend on tokens.
    pub fn block_bytes(&self, block_size: usize, format: KvFormat) -> usize {
        let bytes = |layer: &LayerCache| match *layer {
            LayerCache::Kv { kv_heads, head_dim, .. } => KvShape { kv_heads, head_dim, block_size }.block_bytes(format),
            LayerCache::State { numbers } => numbers * size_of::<f32>(),
        };
        self.layers.iter().map(bytes).sum()
    }
}

impl LayerCache {
    fn retention(&self) -> Retention {
        match *self {
            Self::Kv { back, .. } => Retention::Tokens(back),
            Self::State { .. } => Retention::State,
        }
    }
}

/// Storage for blocks of `block_size` tokens. Who owns which block is the engine's affair.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<(Layer, usize)>, // with the number of its group
    groups: usize,
    block_size: usize,
}

#[derive(Debug)]
enum Layer {
    /// In main memory, in the layout of the kernels.
    Here(KvCache),
    /// On another device: keys and values, [blocks * block_size, kv_heads, head_dim] each.
    Elsewhere(Tensor, Tensor),
    /// In main memory: a state per block, empty where there was none yet.
    States { numbers: usize, states: Vec<Vec<f32>> },
}

impl Cache {
    /// Storage for so many blocks of each group. In main memory a block takes room when it is first used.
    ///
    /// # Errors
    /// The device has no room, or does not keep this: states and numbers of 8 bits are for main memory.
    pub fn new(
        spec: &CacheSpec,
        blocks: &[usize],
        block_size: usize,
        format: KvFormat,
        device: &Device,
    ) -> Result<Self, NnError> {
        let storage = |&(layer, group): &(LayerCache, usize)| {
            let blocks = *blocks.get(group).ok_or(NnError::Input("a number of blocks for each group of layers"))?;
            let (kv_heads, head_dim) = match layer {
                LayerCache::State { numbers } if device.is_cpu() => {
                    return Ok((Layer::States { numbers, states: vec![Vec::new(); blocks] }, group));
                }
                LayerCache::State { .. } => return Err(NnError::Input("layers with a state on this device")),
                LayerCache::Kv { kv_heads, head_dim, .. } => (kv_heads, head_dim),
            };
            if device.is_cpu() {
                let shape = KvShape { kv_heads, head_dim, block_size };
                return Ok((Layer::Here(KvCache::new(shape, blocks, format)), group));
            }
            let dtype = match format {
                KvFormat::F32 => DType::F32,
                KvFormat::Bf16 => DType::BF16,
                KvFormat::F16 => DType::F16,
                KvFormat::Q8 => return Err(NnError::Input("keys and values in 8 bits on this device")),
            };
            let zeros = || Tensor::zeros((blocks * block_size, kv_heads, head_dim), dtype, device);
            Ok::<_, NnError>((Layer::Elsewhere(zeros()?, zeros()?), group))
        };
        let layers = spec.layers.iter().map(storage).collect::<Result<_, _>>()?;
        Ok(Self { layers, groups: spec.groups.len(), block_size })
    }

    /// For one sequence of so many tokens.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn alone(spec: &CacheSpec, tokens: usize, format: KvFormat, device: &Device) -> Result<Self, NnError> {
        const BLOCK_SIZE: usize = 32;
        Self::new(spec, &vec![tokens.div_ceil(BLOCK_SIZE); spec.groups.len()], BLOCK_SIZE, format, device)
    }

    /// Tokens in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Groups of layers; see [`CacheGroup`].
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Forgets what a block of a group holds, and gives its memory back where that can be.
    pub fn discard(&mut self, group: usize, block: u32) {
        for (layer, _) in self.layers.iter_mut().filter(|(_, of)| *of == group) {
            match layer {
                Layer::Here(kv) => kv.discard(block as usize),
                Layer::States { states, .. } => states[block as usize] = Vec::new(),
                Layer::Elsewhere(..) => {}
            }
        }
    }

    /// Copies a state. Blocks of tokens are shared instead.
    pub fn copy_state(&mut self, group: usize, from: u32, to: u32) {
        for (layer, _) in self.layers.iter_mut().filter(|(_, of)| *of == group) {
            if let Layer::States { states, .. } = layer {
                let state = std::mem::take(&mut states[from as usize]);
                states[to as usize].clone_from(&state);
                states[from as usize] = state;
            }
        }
    }

    /// The states of a layer that keeps one, of each span in order, to be changed: [numbers] each, zero where a span begins its
    /// sequence.
    ///
    /// # Errors
    /// [`NnError::Input`] where the layer keeps no state, or spans share one.
    pub fn states(&mut self, layer: usize, spans: &[Span]) -> Result<Vec<&mut [f32]>, NnError> {
        let (Layer::States { numbers, states }, group) = &mut self.layers[layer] else {
            return Err(NnError::Input("a layer with a state"));
        };
        let missing = NnError::Input("a state of its own for each sequence");
        let mut order: Vec<(u32, usize)> = Vec::with_capacity(spans.len());
        for (i, span) in spans.iter().enumerate() {
            order.push((span.state(*group).ok_or(NnError::Input("a block for the state"))?, i));
        }
        order.sort_unstable();
        let mut found: Vec<(usize, &mut [f32])> = Vec::with_capacity(spans.len());
        let mut all = states.iter_mut().enumerate();
        for (block, span) in order {
            let Some((_, state)) = all.find(|(i, _)| *i == block as usize) else { return Err(missing) };
            if spans[span].start == 0 {
                state.clear();
            }
            state.resize(*numbers, 0.0);
            found.push((span, state));
        }
        found.sort_unstable_by_key(|(span, _)| *span);
        Ok(found.into_iter().map(|(_, state)| state).collect())
    }

    /// One layer's part.
    pub(crate) fn layer(&mut self, index: usize) -> CachedLayer<'_> {
        let (layer, group) = &mut self.layers[index];
        CachedLayer { layer, group: *group, block_size: self.block_size }
    }
}

/// What one layer remembers.
pub(crate) struct CachedLayer<'a> {
    layer: &'a mut Layer,
    group: usize,
    block_size: usize,
}

impl CachedLayer<'_> {
    /// Appends the keys and values of all rows of x, which is laid out as `qkv` says.
    pub fn append(&mut self, x: &Tensor, qkv: Qkv, step: &Step) -> Result<(), NnError> {
        let spans = &step.batch.spans;
        match &mut self.layer {
            Layer::Here(kv) => {
                let stride = x.dim(1)?;
                let spans: Vec<KvSpan> = spans.iter().map(|span| span.kernel(self.group, Ahead::Nothing)).collect();
                host::read(x, |x| {
                    let [k, v] = [qkv.keys(), qkv.values()].map(|heads| heads.of(x, stride));
                    kv.append(host::cpu(), k, v, &spans);
                })
            }
            Layer::Elsewhere(keys, values) => {
                let new = [qkv.keys(), qkv.values()].map(|heads| heads.take(x));
                for (cached, new) in [&*keys, &*values].into_iter().zip(new) {
                    let new = new?;
                    for span in spans {
                        let rows = new.narrow(0, span.rows.start, span.rows.len())?;
                        write(cached, &rows, &runs(span, self.group, span.start, self.block_size))?;
                    }
                }
                Ok(())
            }
            Layer::States { .. } => Err(NnError::Input("a layer with keys and values")),
        }
    }

    /// Lets some heads of all rows of x look at what is there: [rows, heads * head_dim].
    pub fn look(&self, x: &Tensor, queries: HeadRange, step: &Step, scores: Scores) -> Result<Tensor, NnError> {
        let spans = &step.batch.spans;
        match &self.layer {
            Layer::Here(kv) => {
                let (rows, stride) = x.dims2()?;
                let spans: Vec<KvSpan> = spans.iter().map(|span| span.kernel(self.group, scores.ahead)).collect();
                host::read(x, |x| {
                    let past = Past { kv, spans: &spans };
                    host::make((rows, queries.count * queries.width), |y| {
                        kernels::attention(host::cpu(), queries.of(x, stride), past, &scores.kernel(), y);
                    })
                })?
            }
            Layer::Elsewhere(keys, values) => {
                let q = queries.take(x)?;
                let mut parts = Vec::with_capacity(spans.len());
                for (i, span) in spans.iter().enumerate() {
                    let view = step.view(i, scores)?;
                    let seen = runs(span, self.group, view.from, self.block_size);
                    let [k, v] = [gather(keys, &seen, q.dtype())?, gather(values, &seen, q.dtype())?];
                    let q = q.narrow(0, span.rows.start, span.rows.len())?;
                    parts.push(attention_elsewhere(&q, &k, &v, view.mask.as_ref(), scores)?);
                }
                Ok(Tensor::cat(&parts, 0)?)
            }
            Layer::States { .. } => Err(NnError::Input("a layer with keys and values")),
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
fn runs(span: &Span, group: usize, from: usize, block_size: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut at = from;
    while at < span.end() {
        let inside = at % block_size;
        let slot = span.tables[group][at / block_size] as usize * block_size + inside;
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
        let span = Span { rows: 0..3, start: 9, tables: vec![vec![], vec![5, 6, 2]], ..Span::default() };
        for (from, expected) in [(0, vec![(20, 8), (8, 4)]), (5, vec![(25, 3), (8, 4)]), (9, vec![(9, 3)])] {
            assert_eq!(runs(&span, 1, from, 4), expected);
        }
    }

    #[test]
    fn layers_that_keep_equally_long_are_a_group() {
        let kv = |back| LayerCache::Kv { kv_heads: 2, head_dim: 16, back };
        let [window, shorter, chunk] = [Back::Window(8), Back::Window(4), Back::Chunk(4)];
        let state = LayerCache::State { numbers: 3 };
        let spec = CacheSpec::new([kv(window), state, kv(Back::All), kv(window), kv(shorter), kv(chunk)]);
        let found: Vec<_> = spec.groups().iter().map(|group| (group.retention, group.block_bytes(16, KvFormat::F32))).collect();
        let layer = 2 * 2 * 16 * 16 * 4;
        let tokens = [(Back::All, layer), (shorter, layer), (window, 2 * layer), (chunk, layer)];
        let mut expected = tokens.map(|(back, bytes)| (Retention::Tokens(back), bytes)).to_vec();
        expected.push((Retention::State, 12));
        assert_eq!(found, expected);
        assert_eq!(spec.layers.iter().map(|(_, group)| *group).collect::<Vec<_>>(), [2, 4, 0, 2, 1, 3]);
    }

    #[test]
    fn states_belong_to_sequences() {
        let spec = CacheSpec::new([LayerCache::State { numbers: 2 }]);
        let mut cache = Cache::new(&spec, &[4], 16, KvFormat::F32, &Device::Cpu).unwrap();
        let span = |block: u32, start: usize| Span { rows: 0..1, start, tables: vec![vec![block]], ..Span::default() };
        for (i, state) in cache.states(0, &[span(3, 0), span(1, 0)]).unwrap().into_iter().enumerate() {
            assert_eq!(state, [0.0; 2]);
            state.fill(i as f32 + 1.0);
        }
        cache.copy_state(0, 1, 2);
        let found =
            |cache: &mut Cache, spans: &[Span]| -> Vec<f32> { cache.states(0, spans).unwrap().iter().map(|s| s[1]).collect() };
        assert_eq!(found(&mut cache, &[span(1, 5), span(2, 5), span(3, 5)]), [2.0, 2.0, 1.0]);
        cache.discard(0, 2);
        assert_eq!(found(&mut cache, &[span(3, 0), span(2, 5)]), [0.0, 0.0]);
        assert!(cache.states(0, &[span(1, 5), span(1, 5)]).is_err());
        assert!(cache.states(0, &[span(4, 5)]).is_err());
    }
}
