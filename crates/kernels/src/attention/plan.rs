//! Who computes what.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

use super::tile::ROWS;
use super::{Scores, Source};
use crate::KvSpan;

/// Tiles have multiples of so many rows: of the rows of the inner loops, six and four.
const BLOCK: usize = 12;
/// Keys of a part, where rows are so few that threads share their keys: enough that merging is nothing beside them.
const PART: usize = 512;

/// A tile of rows and the keys that pass by it.
#[derive(Clone)]
pub struct Unit {
    /// Number of the source of its keys.
    pub source: usize,
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
    /// Each source's rows look at its tokens.
    pub fn new(sources: &[Source], scores: &Scores, heads: usize) -> Self {
        let mut plan = Self::default();
        (0..sources.len()).for_each(|i| plan.add(sources, i..i + 1, scores, heads));
        plan.in_order()
    }

    /// Rows that look at the tokens of several sources, which have the same rows and follow each other.
    pub fn add(&mut self, sources: &[Source], several: Range<usize>, scores: &Scores, heads: usize) {
        let Source { kv, span } = sources[several.start];
        let shape = kv.shape();
        let group = heads / shape.kv_heads;
        let rows = span.rows.len() * group;
        let size = rows.div_ceil(rows.div_ceil(ROWS).max(1)).next_multiple_of(BLOCK).max(1);
        for head in 0..shape.kv_heads {
            for first in (0..rows).step_by(size) {
                let (tile, before) = (first..rows.min(first + size), self.units.len());
                for source in several.clone() {
                    let span = sources[source].span;
                    let keys = seen(span, scores, span.start + tile.start / group).start
                        ..seen(span, scores, span.start + (tile.end - 1) / group).end;
                    self.work += 2 * tile.len() * keys.len() * shape.width();
                    let unit = Unit { source, head, rows: tile.clone(), keys, part: 0, split: None };
                    // Where rows are so few, threads share their keys.
                    if rows <= ROWS { self.units.extend(unit.cut()) } else { self.units.push(unit) }
                }
                self.join(before, shape.width());
            }
        }
    }

    /// Puts the largest units first.
    pub fn in_order(mut self) -> Self {
        self.units.sort_by_key(|unit| Reverse(unit.rows.len() * unit.keys.len()));
        self
    }

    /// The units from number `first` on have the same rows: if there are several, their results are to be merged.
    fn join(&mut self, first: usize, width: usize) {
        let parts = self.units.len() - first;
        if parts > 1 {
            let rows = self.units[first].rows.len();
            for (part, unit) in self.units[first..].iter_mut().enumerate() {
                (unit.part, unit.split) = (part, Some(self.splits.len()));
            }
            self.splits.push(Split { parts, at: self.partials, left: AtomicUsize::new(parts) });
            self.partials += parts * rows * partial_len(width);
        }
    }
}

impl Unit {
    /// The same rows with the keys between multiples of [`PART`].
    fn cut(&self) -> impl Iterator<Item = Self> {
        let parts = self.keys.start / PART..self.keys.end.div_ceil(PART);
        parts.map(|part| {
            let keys = (part * PART).max(self.keys.start)..self.keys.end.min((part + 1) * PART);
            Self { keys, ..self.clone() }
        })
    }
}

/// The tokens that one sees.
pub fn seen(span: &KvSpan, scores: &Scores, token: usize) -> Range<usize> {
    let window = scores.window.map_or(0, |window| (token + 1).saturating_sub(window));
    let chunk = scores.chunk.map_or(0, |chunk| token - token % chunk);
    let island = span.islands.iter().filter(|island| island.contains(&token)).map(|island| island.end).max();
    window.max(chunk)..island.unwrap_or(token + 1)
}
