//! softmax(scale q kᵀ) v, the one attention of the project: for decoders over a paged cache, and for towers.
//!
//! A row sees one range of the tokens of its sequence ([`Scores`] and [`KvSpan::islands`] say which). Rows are taken in tiles:
//! up to [`tile::ROWS`] rows of one sequence and of the heads that share one key/value head, past which the keys and values go
//! once. A sequence with fewer rows (one, while it writes) has its keys cut into parts that are merged afterwards, so that
//! threads share them; where it is cut depends on that sequence alone. What a row gets is the same, bit by bit, for any number
//! of threads and with any other sequences in the step.

mod across;
mod job;
pub(crate) mod kernels;
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod operand;
mod plan;
#[cfg(test)]
mod tests;
mod tile;
mod within;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use crate::disjoint::Disjoint;
use crate::{Cpu, KvCache, KvSpan};
pub use across::{KeyValues, Look, attention_across};
use job::Job;
use plan::{Plan, seen};
pub use within::{Seen, Segments, attention_within};

/// Rows of heads, `[rows, heads, head_dim]`, somewhere in rows of more: the queries in the output of a fused projection, say.
#[derive(Debug, Clone, Copy)]
pub struct HeadRows<'a> {
    /// Begins with the first head of the first row.
    pub data: &'a [f32],
    /// From one row to the next.
    pub stride: usize,
    /// HeadRows of a row.
    pub heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl<'a> HeadRows<'a> {
    /// One head of one row.
    pub(crate) fn head(&self, row: usize, head: usize) -> &'a [f32] {
        &self.data[row * self.stride + head * self.head_dim..][..self.head_dim]
    }

    /// Some of the heads, from a row on.
    fn part(&self, row: usize, heads: Range<usize>) -> Self {
        assert!(heads.end <= self.heads, "no such heads");
        let begin = row * self.stride + heads.start * self.head_dim;
        Self { data: &self.data[begin.min(self.data.len())..], heads: heads.len(), ..*self }
    }

    /// All heads of one row.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.heads * self.head_dim]
    }

    /// Width and number of the rows of a result that queries, keys and values of the same rows make. Asserts that they have heads of one
    /// kind, and as many rows as the result.
    pub(crate) fn of_one_kind([q, k, v]: [Self; 3], y: &[f32]) -> (usize, usize) {
        let width = q.heads * q.head_dim;
        assert!(width > 0 && y.len().is_multiple_of(width), "{} numbers in rows of {width}", y.len());
        let rows = y.len() / width;
        for part in [q, k, v] {
            assert_eq!((part.heads, part.head_dim), (q.heads, q.head_dim), "heads of one kind");
            part.check(rows);
        }
        (width, rows)
    }

    /// Asserts that there are so many rows.
    pub(crate) fn check(&self, rows: usize) {
        let needed = if rows == 0 { 0 } else { (rows - 1) * self.stride + self.heads * self.head_dim };
        assert!(needed <= self.data.len(), "{rows} rows need {needed} numbers, not {}", self.data.len());
    }
}

/// How scores are made, and which a row takes into account: those of its own token and of earlier ones, and of all others of
/// its island, but for what `window` and `chunk` exclude.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scores<'a> {
    /// Factor on q kᵀ.
    pub scale: f32,
    /// Scores s become cap * tanh(s / cap).
    pub softcap: Option<f32>,
    /// How many of the latest tokens are seen, the row's own included (Mistral).
    pub window: Option<usize>,
    /// Tokens per chunk; those of earlier chunks are not seen (Llama 4).
    pub chunk: Option<usize>,
    /// A further score per head that takes its share of the weights and adds nothing, `[heads]` (gpt-oss).
    pub sinks: Option<&'a [f32]>,
}

/// What there is to see.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// Holds the keys and values of the spans' tokens, those of this step included.
    pub kv: &'a KvCache,
    /// The sequences. Rows outside of them are left as they are.
    pub spans: &'a [KvSpan<'a>],
}

/// q `[rows, heads, head_dim]` → out `[rows, heads * head_dim]`. Neighbouring query heads share a key/value head.
///
/// # Panics
/// Lengths or block tables do not fit.
pub fn attention(cpu: &Cpu, q: HeadRows, past: Past, scores: &Scores, out: &mut [f32]) {
    attend(cpu, q, past, scores, Out { numbers: Disjoint::new(out), stride: q.heads * q.head_dim });
}

/// Rows of heads that are written, the first head of the first row first.
struct Out<'a> {
    numbers: Disjoint<'a, f32>,
    stride: usize,
}

/// A span, and the cache that holds its tokens.
#[derive(Clone, Copy)]
struct Source<'a> {
    kv: &'a KvCache,
    span: &'a KvSpan<'a>,
}

/// Queries, what they look at, and where the results go.
struct Task<'a> {
    q: HeadRows<'a>,
    sources: &'a [Source<'a>],
    scores: &'a Scores<'a>,
    out: Out<'a>,
}

fn attend(cpu: &Cpu, q: HeadRows, past: Past, scores: &Scores, out: Out) {
    past.kv.check_written(past.spans, |span| seen(span, scores, span.start).start);
    assert!(scores.window != Some(0) && scores.chunk != Some(0), "rows that see nothing");
    for span in past.spans {
        let cut = |island: &Range<usize>| island.start < span.end() && span.end() < island.end;
        assert!(!span.islands.iter().any(cut), "an island reaches beyond token {}: {:?}", span.end(), span.islands);
    }
    let sources: Vec<Source> = past.spans.iter().map(|span| Source { kv: past.kv, span }).collect();
    let plan = Plan::new(&sources, scores, q.heads);
    run(cpu, Task { q, sources: &sources, scores, out }, &plan);
}

/// The plan's units. The blocks of the sources were checked.
fn run(cpu: &Cpu, task: Task, plan: &Plan) {
    let Task { q, sources, scores, out } = task;
    let rows = sources.iter().map(|source| source.span.rows.end).max().unwrap_or(0);
    q.check(rows);
    let needed = if rows == 0 { 0 } else { (rows - 1) * out.stride + q.heads * q.head_dim };
    assert!(needed <= out.numbers.len(), "{} numbers have no room for {rows} rows", out.numbers.len());
    assert!(scores.sinks.is_none_or(|sinks| sinks.len() == q.heads), "one sink per head");
    let Some(first) = sources.first() else { return };
    for Source { kv, .. } in sources {
        let (shape, alike) = (kv.shape(), first.kv.shape());
        assert!(q.head_dim == shape.head_dim && kv.format() == first.kv.format(), "heads of another cache");
        assert!(shape.kv_heads == alike.kv_heads && q.heads.is_multiple_of(shape.kv_heads), "heads that cannot be shared");
    }
    let mut partials = vec![0.0; plan.partials];
    Job { q, sources, scores, plan, out, partials: Disjoint::new(&mut partials) }.run(cpu);
}
