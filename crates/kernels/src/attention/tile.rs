//! One head's keys and values pass by a tile of queries, once (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
//! arXiv:2205.14135).

use std::marker::PhantomData;
use std::ops::Range;

use super::kernels::{Panel, Queries, Rows, Running, ScoreTile, Softmax, ValueTile};
use super::lanes::Lanes;
use super::operand::{Operand, vectors};
use crate::kv::LANES;

/// Query rows of a tile at most: so many share every load of keys and values from a cache further away. A multiple of the
/// rows of the inner loops, six and four.
pub const ROWS: usize = 48;
/// Panels of keys that are scored before their values are added: 24 KB of scores for all rows.
pub const PANELS: usize = 8;

/// Calls something with a constant equal to a number.
macro_rules! with_constant {
    ($value:expr, [$($constant:literal)*], $name:ident => $call:expr) => {
        match $value {
            $($constant => { const $name: usize = $constant; $call })*
            _ => {}
        }
    };
}

/// The same for columns: where an instruction set has one, it is compiled for one.
macro_rules! with_columns {
    ($value:expr, [$($constant:literal)*], $name:ident => $call:expr) => {
        if L::WIDE { with_constant!($value, [$($constant)*], $name => $call) } else { const $name: usize = 1; $call }
    };
}

/// What a tile computes in.
pub struct Scratch {
    pub queries: Rows,
    pub scores: Rows,
    pub running: Running,
    /// Weighted sums of values, [rows, padded head_dim].
    pub sums: Rows,
}

impl Scratch {
    /// Numbers that [`Self::new`] needs for heads of `width`.
    pub fn len(width: usize) -> usize {
        ROWS * (2 * width + PANELS * LANES + LANES + 2)
    }

    /// Divides up `memory`, which has to outlive it.
    pub fn new(memory: &mut [f32], width: usize) -> Self {
        let mut rest = memory;
        let mut take = |numbers: usize| {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(numbers);
            rest = left;
            taken.as_mut_ptr()
        };
        let mut rows = |stride: usize| Rows { first: take(ROWS * stride), stride };
        let (queries, scores, sums, totals) = (rows(width), rows(PANELS * LANES), rows(width), rows(LANES));
        Self { queries, scores, running: Running { largest: rows(1).first, totals, factors: rows(1).first }, sums }
    }
}

/// A tile of queries of heads that share their keys.
pub struct Tile<'a> {
    /// Numbers of a head, and with padding.
    pub head_dim: usize,
    pub width: usize,
    /// Token numbers that each row sees; both ends ascend.
    pub seen: &'a [Range<usize>],
    pub softcap: Option<f32>,
}

impl Tile<'_> {
    /// Begins with scores of `sinks` that nothing is to be had for.
    ///
    /// # Safety
    /// The machine has L; there is scratch for the tile's rows and width, here and below.
    pub unsafe fn begin<'a, L: Lanes, F: Operand<L>>(
        &self,
        scratch: &Scratch,
        queries: impl Iterator<Item = &'a [f32]>,
        factor: f32,
        sinks: Option<impl Iterator<Item = f32>>,
    ) {
        let rows = self.seen.len();
        // SAFETY: as promised.
        unsafe {
            L::run(Queries::<F, _> { source: queries, factor, queries: scratch.queries, format: PhantomData });
            std::slice::from_raw_parts_mut(scratch.sums.first, rows * scratch.sums.stride).fill(0.0);
            std::slice::from_raw_parts_mut(scratch.running.totals.first, rows * LANES).fill(0.0);
            // Not minus infinity, from which nothing could be subtracted.
            std::slice::from_raw_parts_mut(scratch.running.largest, rows).fill(f32::MIN);
            for (row, sink) in sinks.into_iter().flatten().enumerate() {
                *scratch.running.largest.add(row) = sink;
                *scratch.running.totals.row(row) = 1.0;
            }
        }
    }

    /// Lets the next panels pass by; at most [`PANELS`].
    ///
    /// # Safety
    /// As for [`Self::begin`], which came before; the panels can be read.
    pub unsafe fn pass<L: Lanes, F: Operand<L>>(&self, scratch: &Scratch, panels: &[Panel], ahead: &[Panel]) {
        let (Some(first), Some(last)) = (panels.first(), panels.last()) else { return };
        let begin = self.seen.partition_point(|seen| seen.end <= first.first);
        let end = self.seen.partition_point(|seen| seen.start < last.first + last.count);
        let rows = begin..end;
        if rows.is_empty() {
            return;
        }
        let tokens = (self.seen[end - 1].end - last.first).min(last.count);
        // SAFETY: as promised.
        unsafe {
            self.score::<L, F>(scratch, panels, rows.clone());
            L::run(Softmax::<F> {
                rows: rows.clone(),
                scores: scratch.scores,
                panels,
                seen: self.seen,
                softcap: self.softcap,
                running: scratch.running,
                format: PhantomData,
            });
            self.sum::<L, F>(scratch, Step { panels, last: tokens, ahead }, rows);
        }
    }

    /// Prefetches the values of the panels.
    unsafe fn score<L: Lanes, F: Operand<L>>(&self, scratch: &Scratch, panels: &[Panel], rows: Range<usize>) {
        let steps = vectors::<L, F>(self.head_dim);
        for columns in blocks(0..panels.len(), if L::WIDE { 4 } else { 1 }) {
            for block in blocks(rows.clone(), 6) {
                let panels = &panels[columns.clone()];
                let first = block.start == rows.start;
                // SAFETY: as promised.
                let (queries, scores) =
                    unsafe { (scratch.queries.from(block.start, 0), scratch.scores.from(block.start, columns.start * LANES)) };
                with_constant!(block.len(), [1 2 3 4 5 6], R => with_columns!(panels.len(), [1 2 3 4], C => {
                    let (mut keys, mut values) = ([panels[0].keys; C], [panels[0].values; C]);
                    for (i, panel) in panels.iter().enumerate().take(C) {
                        (keys[i], values[i]) = (panel.keys, panel.values);
                    }
                    let work = ScoreTile::<F, R, C> { queries, keys, steps, ahead: first.then_some(values), scores, format: PhantomData };
                    // SAFETY: as promised.
                    unsafe { L::run(work) }
                }));
            }
        }
    }

    /// Prefetches the keys of the panels ahead.
    unsafe fn sum<L: Lanes, F: Operand<L>>(&self, scratch: &Scratch, step: Step, rows: Range<usize>) {
        for columns in blocks(0..self.width / LANES, if L::WIDE { 5 } else { 1 }) {
            for block in blocks(rows.clone(), if columns.len() < 5 { 6 } else { 4 }) {
                let Step { panels, last, ahead } = step;
                let ahead = if block.start == rows.start { ahead } else { &[] };
                let column = columns.start;
                // SAFETY: as promised.
                let (weights, sums, factors) = unsafe {
                    (
                        scratch.scores.from(block.start, 0),
                        scratch.sums.from(block.start, 0),
                        scratch.running.factors.add(block.start),
                    )
                };
                with_constant!(block.len(), [1 2 3 4 5 6], R => with_columns!(columns.len(), [1 2 3 4 5], C => {
                    let work = ValueTile::<F, R, C> { weights, panels, last, ahead, column, factors, sums, format: PhantomData };
                    // SAFETY: as promised.
                    unsafe { L::run(work) }
                }));
            }
        }
    }
}

/// The panels that pass by at once.
#[derive(Clone, Copy)]
struct Step<'a> {
    panels: &'a [Panel],
    /// Tokens of the last panel that somebody sees.
    last: usize,
    /// The panels after these.
    ahead: &'a [Panel],
}

/// Cuts a range into as few pieces as possible of at most `most`, of nearly the same length.
fn blocks(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(most);
    let cut = move |i: usize| range.start + i * range.len() / count.max(1);
    (0..count).map(move |i| cut(i)..cut(i + 1))
}
