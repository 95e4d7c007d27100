//! Attention of towers: rows that are not kept see each other.

use std::cell::Cell;
use std::ops::Range;

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

/// Rows that see the others of their segment and none of another segment: a picture's patches, say.
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
    /// What they see of it.
    pub seen: Seen<'a>,
}

/// What rows see of their segment.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// All of it.
    All,
    /// Their own chunk, and what is before it. These are the lengths of chunks that cover all segments.
    Chunks(&'a [usize]),
    /// All but the last rows of each segment, so many: these look on, and are seen by nobody (margins of a picture, say). At least
    /// one row is seen.
    Onlookers(&'a [usize]),
}

impl Seen<'_> {
    /// What is seen of the first segments, which have these lengths, and of the others.
    pub fn split(self, segments: &[usize]) -> (Self, Self) {
        match self {
            Self::All => (Self::All, Self::All),
            Self::Chunks(chunks) => {
                let (rows, mut covered) = (segments.iter().sum::<usize>(), 0);
                let inside = chunks.iter().take_while(|chunk| {
                    covered += **chunk;
                    covered <= rows
                });
                let (now, later) = chunks.split_at(inside.count());
                (Self::Chunks(now), Self::Chunks(later))
            }
            Self::Onlookers(counts) => {
                let (now, later) = counts.split_at(segments.len());
                (Self::Onlookers(now), Self::Onlookers(later))
            }
        }
    }
}

/// Attention within segments, → out `[rows, heads * head_dim]`. Keys and values are stored in `format` on the way; of `scores`,
/// window and chunk are not used.
///
/// # Panics
/// Lengths do not fit.
pub fn attention_within(cpu: &Cpu, rows: Segments, scores: &Scores, format: KvFormat, out: &mut [f32]) {
    let Segments { q, k, v, lengths, seen } = rows;
    assert!(!matches!(seen, Seen::Onlookers(counts) if counts.len() != lengths.len()), "onlookers of other segments");
    let kv_heads = k.heads;
    assert!(kv_heads > 0 && q.heads.is_multiple_of(kv_heads), "{} heads cannot share {kv_heads}", q.heads);
    let (group, stride) = (q.heads / kv_heads, q.heads * q.head_dim);
    let head = KvShape { kv_heads: 1, head_dim: q.head_dim, block_size: LANES }.block_bytes(format);
    let bytes = |length: &usize| length.div_ceil(LANES) * head;
    let (mut row, mut rest, mut seen) = (0, lengths, seen);
    while !rest.is_empty() {
        let mut total = 0;
        let fits = |length: &&usize| {
            total += bytes(length) * kv_heads;
            total <= AT_ONCE
        };
        let (lengths, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        let (seen_now, seen_later) = seen.split(lengths);
        let heads_at_once = AT_ONCE / lengths.iter().map(bytes).sum::<usize>().max(1);
        for first in (0..kv_heads).step_by(heads_at_once.max(1)) {
            let heads = first..kv_heads.min(first + heads_at_once.max(1));
            let queries = heads.start * group..heads.end * group;
            let scores =
                Scores { window: None, chunk: None, sinks: scores.sinks.map(|sinks| &sinks[queries.clone()]), ..*scores };
            let begin = (row * stride + queries.start * q.head_dim).min(out.len());
            let out = Out { numbers: Disjoint::new(&mut out[begin..]), stride };
            let (q, k, v) = (q.part(row, queries), k.part(row, heads.clone()), v.part(row, heads));
            let part = Segments { q, k, v, lengths, seen: seen_now };
            attend_part(cpu, part, &scores, format, out);
        }
        (row, rest, seen) = (row + lengths.iter().sum::<usize>(), later, seen_later);
    }
}

/// Stores all keys and values, and attends.
fn attend_part(cpu: &Cpu, rows: Segments, scores: &Scores, format: KvFormat, out: Out) {
    let longest = rows.lengths.iter().max().map_or(LANES, |length| length.next_multiple_of(LANES));
    let block_size = longest.clamp(LANES, BLOCK_SIZE_MAX);
    let shape = KvShape { kv_heads: rows.k.heads, head_dim: rows.k.head_dim, block_size };
    let blocks_of = |length: usize| length.div_ceil(block_size);
    let blocks: Vec<u32> = (0..).take(rows.lengths.iter().map(|length| blocks_of(*length)).sum()).collect();
    let islands = islands(rows.lengths, rows.seen);
    let (mut stored, mut spans) = (Vec::with_capacity(islands.len()), Vec::with_capacity(islands.len()));
    let (mut row, mut rest) = (0, &blocks[..]);
    for (&length, islands) in rows.lengths.iter().zip(&islands) {
        let (own, others) = rest.split_at(blocks_of(length));
        let span = |rows: Range<usize>, start| KvSpan { rows, start, blocks: own, islands };
        let seen = islands.last().map_or(0, |island| island.end);
        stored.push(span(row..row + seen, 0));
        spans.push(span(row..row + seen, 0));
        // Onlookers look from the places of the last of those that are seen.
        let end = row + length;
        let onlookers = (row + seen..end).step_by(seen.max(1)).map(|first| first..end.min(first + seen));
        spans.extend(onlookers.map(|rows| span(rows.clone(), seen - rows.len())));
        (row, rest) = (end, others);
    }
    let mut kv = KvCache::reusing(BLOCKS.take(), shape, blocks.len(), format);
    kv.append(cpu, rows.k, rows.v, &stored);
    attend(cpu, rows.q, Past { kv: &kv, spans: &spans }, scores, out);
    BLOCKS.set(kv.into_blocks());
}

/// Runs of rows that see each other in both directions, segment by segment. Rows behind them look on.
fn islands(lengths: &[usize], seen: Seen) -> Vec<Vec<Range<usize>>> {
    let one = |length| std::iter::once(0..length).collect();
    match seen {
        Seen::All => lengths.iter().copied().map(one).collect(),
        Seen::Onlookers(counts) => lengths.iter().zip(counts).map(|(length, onlookers)| one(length - onlookers)).collect(),
        Seen::Chunks(mut chunks) => {
            let of_segment = |&length: &usize| {
                let mut islands: Vec<Range<usize>> = Vec::new();
                let mut begin = 0;
                while begin < length {
                    let chunk = *chunks.split_off_first().unwrap_or(&length);
                    assert!(begin + chunk <= length, "chunks that do not cover a segment of {length}");
                    islands.push(begin..begin + chunk);
                    begin += chunk;
                }
                islands
            };
            lengths.iter().map(of_segment).collect()
        }
    }
}
