//! How many blocks the cache has.

use nn::{Back, CacheSpec, Retention};

use crate::EngineConfig;
use crate::config::CacheSize;

/// What there is of the cache's blocks. Groups share the bytes: not all of their blocks can be in use at once.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub groups: Vec<Group>,
    /// Blocks of each group.
    pub blocks: Vec<usize>,
    /// Bytes of all blocks that are in use at once.
    pub bytes: usize,
    /// Tokens in a block.
    pub block_size: usize,
}

/// A group of layers; see [`nn::CacheGroup`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub retention: Retention,
    pub block_bytes: usize,
}

impl Layout {
    /// For a model, as a configuration wants it.
    pub fn new(config: &EngineConfig, spec: &CacheSpec) -> Self {
        let block_size = config.block_size.max(1);
        let group = |group: &nn::CacheGroup| Group {
            retention: group.retention,
            block_bytes: group.block_bytes(block_size, config.format).max(1),
        };
        let groups: Vec<Group> = spec.groups().iter().map(group).collect();
        let all =
            |blocks: usize| groups.iter().map(|group| group.block_bytes.saturating_mul(blocks)).fold(0, usize::saturating_add);
        let bytes = match config.cache {
            CacheSize::Blocks(blocks) => all(blocks),
            CacheSize::Bytes(bytes) => {
                let useful = config.context_max.div_ceil(block_size).saturating_mul(config.sequences_max);
                bytes.min(all(useful))
            }
        };
        let blocks = groups.iter().map(|group| bytes / group.block_bytes).collect();
        let layout = Self { groups, blocks, bytes, block_size };
        if config.device.is_cpu() { layout } else { layout.apart(config) }
    }

    /// Where blocks have their memory from the beginning, each group has its own part of it: windows what all sequences can use.
    fn apart(mut self, config: &EngineConfig) -> Self {
        let step = config.budget_tokens_max;
        let parts = |blocks: usize| -> Vec<usize> {
            let part = |group: &Group| match group.retention {
                Retention::Tokens(Back::All) => blocks,
                _ => blocks.min(config.sequences_max.saturating_mul(self.blocks_of(group, usize::MAX / 2, step))),
            };
            self.groups.iter().map(part).collect()
        };
        let bytes = |parts: &[usize]| -> usize { self.groups.iter().zip(parts).map(|(group, n)| group.block_bytes * n).sum() };
        let most = *self.blocks.iter().max().unwrap_or(&0);
        self.blocks = parts(most_that(most, |blocks| bytes(&parts(blocks)) <= self.bytes));
        self
    }

    /// Whether layers keep states.
    pub fn keeps_states(&self) -> bool {
        self.groups.iter().any(|group| group.retention == Retention::State)
    }

    /// Most tokens that a sequence can have which is computed in steps of so many tokens at most.
    pub fn context(&self, step: usize) -> usize {
        let most = self.blocks.iter().max().map_or(0, |blocks| blocks * self.block_size);
        most_that(most, |tokens| self.holds(tokens, step))
    }

    /// Whether there is room for one sequence of so many tokens.
    pub fn holds(&self, tokens: usize, step: usize) -> bool {
        let enough = |(group, blocks): (&Group, &usize)| self.blocks_of(group, tokens, step) <= *blocks;
        self.bytes_for(tokens, step) <= self.bytes && self.groups.iter().zip(&self.blocks).all(enough)
    }

    /// Bytes of the blocks that one sequence of so many tokens has at once.
    pub fn bytes_for(&self, tokens: usize, step: usize) -> usize {
        let bytes = |group: &Group| group.block_bytes.saturating_mul(self.blocks_of(group, tokens, step));
        self.groups.iter().map(bytes).fold(0, usize::saturating_add)
    }

    /// Blocks that a sequence of so many tokens has at once.
    fn blocks_of(&self, group: &Group, tokens: usize, step: usize) -> usize {
        let all = tokens.div_ceil(self.block_size);
        match group.retention {
            Retention::Tokens(Back::All) => all,
            // Both ends may lie within a block.
            Retention::Tokens(Back::Window(reach) | Back::Chunk(reach)) => all.min((reach + step).div_ceil(self.block_size) + 1),
            Retention::State => 1,
        }
    }
}

/// The largest number up to `most` that something is true of, which is true of all smaller ones.
fn most_that(most: usize, is: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if is(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use nn::{Device, KvFormat, LayerCache};

    #[test]
    fn windows_make_room_for_more_tokens() {
        let kv = |back| LayerCache::Kv { kv_heads: 1, head_dim: 16, back };
        let window = |window| kv(Back::Window(window));
        // 16 tokens of a layer take 2 KiB in f32.
        let config = |cache, context_max| EngineConfig {
            cache,
            block_size: 16,
            sequences_max: 2,
            budget_tokens_max: 32,
            format: KvFormat::F32,
            device: Device::Cpu,
            ..EngineConfig::new(context_max)
        };
        // Layers, KiB, context: KiB that are used, tokens of a sequence that is computed in steps of 32.
        let cases = [
            (vec![kv(Back::All)], 20, 1000, 20, 160),
            (vec![kv(Back::All)], 20, 64, 16, 128),
            (vec![kv(Back::All), window(32)], 40, 1000, 40, 240),
            (vec![kv(Back::All), window(32), window(32)], 40, 1000, 40, 160),
            (vec![kv(Back::All), window(1000)], 40, 1000, 40, 160),
            (vec![kv(Back::All), LayerCache::State { numbers: 1024 }], 40, 1000, 40, 288),
        ];
        for (layers, kib, context, used, tokens) in cases {
            let layout = Layout::new(&config(CacheSize::Bytes(kib << 10), context), &CacheSpec::new(layers.clone()));
            assert_eq!((layout.bytes >> 10, layout.context(32)), (used, tokens), "{layers:?}");
            let apart = layout.clone().apart(&config(CacheSize::Bytes(kib << 10), context));
            let bytes: usize = apart.groups.iter().zip(&apart.blocks).map(|(group, n)| group.block_bytes * n).sum();
            assert!(bytes <= layout.bytes && apart.context(32) >= 32, "{layers:?}: {:?}", apart.blocks);
        }
    }
}
