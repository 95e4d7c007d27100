//! Cross attention: rows that look at keys and values of others, which were there before, and keep none of their own.

use std::ops::Range;
use std::slice::from_ref;

use super::plan::Plan;
use super::{HeadRows, Out, Scores, Source, Task, run};
use crate::disjoint::Disjoint;
use crate::kv::LANES;
use crate::{Cpu, KvCache, KvFormat, KvShape, KvSpan};

/// Rows of a block at most: few enough that the last one leaves little unused.
const BLOCK_SIZE_MAX: usize = 256;

/// Keys and values that stay together: those of a picture, say.
#[derive(Debug)]
pub struct KeyValues {
    kv: KvCache,
    blocks: Vec<u32>,
    rows: usize,
}

/// Rows of queries, and what each of them sees: the first rows of these.
#[derive(Debug, Clone)]
pub struct Look<'a> {
    /// Rows. Looks are in order and share none.
    pub rows: Range<usize>,
    /// (keys and values, how many of their rows).
    pub at: Vec<(&'a KeyValues, usize)>,
}

impl KeyValues {
    /// Keeps keys and values, `[rows, kv_heads, head_dim]` each.
    ///
    /// # Panics
    /// Lengths do not fit.
    pub fn new(cpu: &Cpu, [keys, values]: [HeadRows; 2], rows: usize, format: KvFormat) -> Self {
        let block_size = rows.next_multiple_of(LANES).clamp(LANES, BLOCK_SIZE_MAX);
        let shape = KvShape { kv_heads: keys.heads, head_dim: keys.head_dim, block_size };
        let blocks: Vec<u32> = (0..rows.div_ceil(block_size) as u32).collect();
        let mut kv = KvCache::new(shape, blocks.len(), format);
        kv.append(cpu, keys, values, &[KvSpan { rows: 0..rows, start: 0, blocks: &blocks, islands: &[] }]);
        Self { kv, blocks, rows }
    }

    /// How many keys.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// That they take in memory.
    pub fn bytes(&self) -> usize {
        self.blocks.len() * self.kv.shape().block_bytes(self.kv.format())
    }
}

/// q `[rows, heads, head_dim]` → out `[rows, heads * head_dim]`. Rows without a look, and rows that look at nothing, are left as they
/// are. Neighbouring query heads share a key/value head.
///
/// # Panics
/// Lengths do not fit, or what is looked at differs in its heads or its format.
pub fn attention_across(cpu: &Cpu, q: HeadRows, looks: &[Look], scores: &Scores, out: &mut [f32]) {
    assert!(looks.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start), "looks out of order");
    let mut parts: Vec<Part> = Vec::new();
    let mut together: Vec<Range<usize>> = Vec::new(); // parts of the same rows
    for look in looks {
        let at = look.at.iter().filter(|(_, count)| *count > 0);
        // Rows pass for the last of what they see.
        let Some(most) = at.clone().map(|(_, count)| *count).min() else { continue };
        for first in look.rows.clone().step_by(most) {
            let rows = first..look.rows.end.min(first + most);
            let before = parts.len();
            parts.extend(at.clone().map(|&(kept, count)| Part { kept, seen: 0..count, rows: rows.clone() }));
            together.push(before..parts.len());
        }
    }
    let spans: Vec<KvSpan> = parts.iter().map(Part::span).collect();
    let sources: Vec<Source> = parts.iter().zip(&spans).map(|(part, span)| Source { kv: &part.kept.kv, span }).collect();
    sources.iter().for_each(|source| source.kv.check_written(from_ref(source.span), |_| 0));
    let scores = Scores { window: None, chunk: None, ..*scores };
    let mut plan = Plan::default();
    together.into_iter().for_each(|several| plan.add(&sources, several, &scores, q.heads));
    let out = Out { stride: q.heads * q.head_dim, numbers: Disjoint::new(out) };
    run(cpu, Task { q, sources: &sources, scores: &scores, out }, &plan.in_order());
}

/// Rows, and some of what they see.
struct Part<'a> {
    kept: &'a KeyValues,
    seen: Range<usize>,
    rows: Range<usize>,
}

impl Part<'_> {
    fn span(&self) -> KvSpan<'_> {
        assert!(self.seen.end <= self.kept.rows, "{} of {} rows", self.seen.end, self.kept.rows);
        let start = self.seen.end - self.rows.len();
        KvSpan { rows: self.rows.clone(), start, blocks: &self.kept.blocks, islands: from_ref(&self.seen) }
    }
}
