//! Who computes what.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use super::tile::ROWS;
use super::{Past, Scores};
use crate::KvSpan;

/// Tiles have multiples of so many rows: of the rows of the inner loops, six and four.
const BLOCK: usize = 12;
/// Keys of a part, where rows are so few that threads share their keys: enough that merging is nothing beside them.
const PART: usize = 512;

/// A tile of rows and the keys that pass by it.
pub struct Unit {
    /// Number of the span.
    pub span: usize,
    /// Key/value head.
    pub head: usize,
    /// Rows: the heads that share this one for the first token of the span, then for the second, …
    pub rows: Range<usize>,
    /// Tokens.
    pub keys: Range<usize>,
    /// Number among the parts of a [`Split`], if the keys are not all.
    pub part: usize,
    pub split: Option<usize>,
}

/// Units that are to be merged.
pub struct Split {
    pub parts: usize,
    /// Where their partial results begin: [parts, rows, [`partial_len`]].
    pub at: usize,
    /// Parts that are not done.
    pub left: AtomicUsize,
}

/// Numbers that are kept of a row of one part: the weighted sum of values, the total of the weights, the largest score.
pub fn partial_len(width: usize) -> usize {
    width + 2
}

/// All units of a step.
#[derive(Default)]
pub struct Plan {
    /// The largest first, so that threads end at about the same time.
    pub units: Vec<Unit>,
    pub splits: Vec<Split>,
    /// Numbers of all partial results.
    pub partials: usize,
    /// Multiplications, about.
    pub work: usize,
}

impl Plan {
    /// For `group` query heads per key/value head.
    pub fn new(past: Past, scores: &Scores, group: usize) -> Self {
        let (mut plan, shape) = (Self::default(), past.kv.shape());
        for (index, span) in past.spans.iter().enumerate() {
            let rows = span.rows.len() * group;
            let size = rows.div_ceil(rows.div_ceil(ROWS).max(1)).next_multiple_of(BLOCK).max(1);
            for head in 0..shape.kv_heads {
                for first in (0..rows).step_by(size) {
                    let rows = first..rows.min(first + size);
                    let keys = seen(span, scores, span.start + rows.start / group).start
                        ..seen(span, scores, span.start + (rows.end - 1) / group).end;
                    plan.work += 2 * rows.len() * keys.len() * shape.width();
                    plan.units.push(Unit { span: index, head, rows, keys, part: 0, split: None });
                }
                if (1..=ROWS).contains(&rows) {
                    plan.split_last(shape.width());
                }
            }
        }
        plan.units.sort_by_key(|unit| Reverse(unit.rows.len() * unit.keys.len()));
        plan
    }

    /// Cuts the keys of the last unit at multiples of [`PART`].
    fn split_last(&mut self, width: usize) {
        let Some(unit) = self.units.pop_if(|unit| unit.keys.start / PART < (unit.keys.end - 1) / PART) else { return };
        let first = unit.keys.start / PART;
        let parts = unit.keys.end.div_ceil(PART) - first;
        let split = Some(self.splits.len());
        self.units.extend((0..parts).map(|part| {
            let cut = (first + part) * PART;
            let keys = cut.max(unit.keys.start)..unit.keys.end.min(cut + PART);
            Unit { keys, part, split, rows: unit.rows.clone(), ..unit }
        }));
        self.splits.push(Split { parts, at: self.partials, left: AtomicUsize::new(parts) });
        self.partials += parts * unit.rows.len() * partial_len(width);
    }
}

/// The tokens that one sees.
pub fn seen(span: &KvSpan, scores: &Scores, token: usize) -> Range<usize> {
    let window = scores.window.map_or(0, |window| (token + 1).saturating_sub(window));
    let chunk = scores.chunk.map_or(0, |chunk| token - token % chunk);
    let island = span.islands.iter().filter(|island| island.contains(&token)).map(|island| island.end).max();
    window.max(chunk)..island.unwrap_or(token + 1)
}
