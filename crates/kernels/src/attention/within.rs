//! Attention of towers: rows that are not kept see each other.

use std::cell::Cell;
use std::ops::Range;
use std::slice::from_ref;

use super::{HeadRows, Out, Past, Scores, attend};
use crate::disjoint::Disjoint;
use crate::kv::LANES;
use crate::memory::Line;
use crate::{Cpu, KvCache, KvFormat, KvShape, KvSpan};

/// Bytes of keys and values that are dealt with at once, if one head of one segment has room in them: a thread's share of the
/// last level of caches, or less.
const AT_ONCE: usize = 4 << 20;

/// Rows of a block at most: few enough that the last one of a segment leaves little unused.
const BLOCK_SIZE_MAX: usize = 256;

thread_local! {
    /// Where they are stored. Kept, since memory that the system has just handed out costs more than what is done with it.
    static BLOCKS: Cell<Vec<Vec<Line>>> = const { Cell::new(Vec::new()) };
}

/// Rows that see all others of their segment and none of another: a picture's patches, say.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    /// Queries.
    pub q: HeadRows<'a>,
    /// Keys.
    pub k: HeadRows<'a>,
    /// Values.
    pub v: HeadRows<'a>,
    /// Rows of each segment.
    pub lengths: &'a [usize],
}

/// Attention within segments, → out `[rows, heads * head_dim]`. Keys and values are stored in `format` on the way; of `scores`,
/// window and chunk are not used.
///
/// # Panics
/// Lengths do not fit.
pub fn attention_within(cpu: &Cpu, rows: Segments, scores: &Scores, format: KvFormat, out: &mut [f32]) {
    let Segments { q, k, v, lengths } = rows;
    let kv_heads = k.heads;
    assert!(kv_heads > 0 && q.heads.is_multiple_of(kv_heads), "{} heads cannot share {kv_heads}", q.heads);
    let (group, stride) = (q.heads / kv_heads, q.heads * q.head_dim);
    let head = KvShape { kv_heads: 1, head_dim: q.head_dim, block_size: LANES }.block_bytes(format);
    let bytes = |length: &usize| length.div_ceil(LANES) * head;
    let (mut row, mut rest) = (0, lengths);
    while !rest.is_empty() {
        let mut total = 0;
        let fits = |length: &&usize| {
            total += bytes(length) * kv_heads;
            total <= AT_ONCE
        };
        let (lengths, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        let heads_at_once = AT_ONCE / lengths.iter().map(bytes).sum::<usize>().max(1);
        for first in (0..kv_heads).step_by(heads_at_once.max(1)) {
            let heads = first..kv_heads.min(first + heads_at_once.max(1));
            let queries = heads.start * group..heads.end * group;
            let scores =
                Scores { window: None, chunk: None, sinks: scores.sinks.map(|sinks| &sinks[queries.clone()]), ..*scores };
            let begin = (row * stride + queries.start * q.head_dim).min(out.len());
            let out = Out { numbers: Disjoint::new(&mut out[begin..]), stride };
            let part = Segments { q: q.part(row, queries), k: k.part(row, heads.clone()), v: v.part(row, heads), lengths };
            attend_part(cpu, part, &scores, format, out);
        }
        (row, rest) = (row + lengths.iter().sum::<usize>(), later);
    }
}

/// Stores all keys and values, and attends.
fn attend_part(cpu: &Cpu, rows: Segments, scores: &Scores, format: KvFormat, out: Out) {
    let longest = rows.lengths.iter().max().map_or(LANES, |length| length.next_multiple_of(LANES));
    let block_size = longest.clamp(LANES, BLOCK_SIZE_MAX);
    let shape = KvShape { kv_heads: rows.k.heads, head_dim: rows.k.head_dim, block_size };
    let blocks_of = |length: usize| length.div_ceil(block_size);
    let blocks: Vec<u32> = (0..).take(rows.lengths.iter().map(|length| blocks_of(*length)).sum()).collect();
    let islands: Vec<Range<usize>> = rows.lengths.iter().map(|&length| 0..length).collect();
    let mut spans: Vec<KvSpan> = Vec::with_capacity(rows.lengths.len());
    let (mut row, mut rest) = (0, &blocks[..]);
    for (&length, island) in rows.lengths.iter().zip(&islands) {
        let (own, others) = rest.split_at(blocks_of(length));
        spans.push(KvSpan { rows: row..row + length, start: 0, blocks: own, islands: from_ref(island) });
        (row, rest) = (row + length, others);
    }
    let mut kv = KvCache::reusing(BLOCKS.take(), shape, blocks.len(), format);
    kv.append(cpu, rows.k, rows.v, &spans);
    attend(cpu, rows.q, Past { kv: &kv, spans: &spans }, scores, out);
    BLOCKS.set(kv.into_blocks());
}
