//! The three inner loops: scores of a tile, their softmax, and the sum of values that it weighs.

use std::marker::PhantomData;
use std::ops::Range;

use super::lanes::{Lanes, Work, exp2, tanh};
use super::operand::{Operand, vector_bytes, vectors, words};
use crate::kv::LANES;

/// Rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub struct Rows {
    pub first: *mut f32,
    pub stride: usize,
}

impl Rows {
    /// Those from a row and a number on.
    ///
    /// # Safety
    /// There are such.
    #[inline(always)]
    pub unsafe fn from(self, row: usize, number: usize) -> Self {
        // SAFETY: as promised.
        unsafe { Self { first: self.row(row).add(number), ..self } }
    }

    /// # Safety
    /// There is such a row.
    #[inline(always)]
    pub unsafe fn row(self, row: usize) -> *mut f32 {
        // SAFETY: as promised.
        unsafe { self.first.add(row * self.stride) }
    }
}

/// The panels of sixteen tokens that a tile looks at.
#[derive(Clone, Copy)]
pub struct Panel {
    /// Number of the first token, and how many there are.
    pub first: usize,
    pub count: usize,
    /// Numbers, behind the scales where there are any.
    pub keys: *const u8,
    pub values: *const u8,
}

/// Adds to every sum the products of a row on the left with the lanes of a column's vectors on the right. Bytes at `ahead` are
/// prefetched on the way, if at all.
///
/// # Safety
/// Called by [`Work::run`]; all that is named here can be read: `steps` vectors per column, the words for them in R rows.
#[inline(always)]
pub unsafe fn multiply<L: Lanes, F: Operand<L>, const R: usize, const C: usize, const AHEAD: bool>(
    sums: &mut [[L; C]; R],
    left: Rows,
    right: [*const u8; C],
    steps: usize,
    ahead: [*const u8; C],
) {
    for step in 0..steps {
        for pass in 0..F::PASSES {
            // SAFETY: the caller's promise.
            unsafe {
                let mut columns = [L::splat(0.0); C];
                for c in 0..C {
                    let place = right[c].add(step * vector_bytes::<L, F>());
                    columns[c] = F::right(place, pass);
                    if AHEAD && pass == 0 {
                        L::prefetch(ahead[c].wrapping_add(step * vector_bytes::<L, F>()));
                    }
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(*left.row(r).add(step * F::PASSES + pass));
                    for c in 0..C {
                        sums[c] = F::multiply_add(x, columns[c], sums[c]);
                    }
                }
            }
        }
    }
}

/// q · k for R rows and the tokens of C panels.
pub struct ScoreTile<F, const R: usize, const C: usize> {
    pub queries: Rows,
    pub keys: [*const u8; C],
    /// Vectors of a panel.
    pub steps: usize,
    /// As many bytes that will be needed soon.
    pub ahead: Option<[*const u8; C]>,
    /// Where they go: sixteen per panel.
    pub scores: Rows,
    pub format: PhantomData<F>,
}

impl<L: Lanes, F: Operand<L>, const R: usize, const C: usize> Work<L> for ScoreTile<F, R, C> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut sums = [[L::splat(0.0); C]; R];
        // SAFETY: the maker's promise: pointers are valid.
        unsafe {
            match self.ahead {
                Some(ahead) => multiply::<L, F, R, C, true>(&mut sums, self.queries, self.keys, self.steps, ahead),
                None => multiply::<L, F, R, C, false>(&mut sums, self.queries, self.keys, self.steps, self.keys),
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, sums) in sums.iter().enumerate() {
                    sums.store(self.scores.row(r).add(c * LANES));
                }
            }
        }
    }
}

/// sums = sums * factor + weights · values, for R rows and C times sixteen dimensions.
pub struct ValueTile<'a, F, const R: usize, const C: usize> {
    pub weights: Rows,
    pub panels: &'a [Panel],
    /// Tokens that count in the last panel; in the others all do.
    pub last: usize,
    /// Panels whose keys will be needed soon.
    pub ahead: &'a [Panel],
    /// The first of the dimensions, divided by sixteen.
    pub column: usize,
    pub factors: *const f32,
    pub sums: Rows,
    pub format: PhantomData<F>,
}

impl<L: Lanes, F: Operand<L>, const R: usize, const C: usize> Work<L> for ValueTile<'_, F, R, C> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut sums = [[L::splat(0.0); C]; R];
        // SAFETY: the maker's promise: pointers are valid.
        unsafe {
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = L::splat(*self.factors.add(r));
                for (c, sums) in sums.iter_mut().enumerate() {
                    *sums = L::load(self.sums.row(r).add((self.column + c) * LANES)).mul(factor);
                }
            }
            if self.ahead.is_empty() {
                self.add::<L, false>(&mut sums)
            } else {
                self.add::<L, true>(&mut sums)
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, sums) in sums.iter().enumerate() {
                    sums.store(self.sums.row(r).add((self.column + c) * LANES));
                }
            }
        }
    }
}

impl<F, const R: usize, const C: usize> ValueTile<'_, F, R, C> {
    #[inline(always)]
    unsafe fn add<L: Lanes, const AHEAD: bool>(&self, sums: &mut [[L; C]; R])
    where
        F: Operand<L>,
    {
        let column_bytes = vectors::<L, F>(LANES) * vector_bytes::<L, F>();
        let mut weights = self.weights;
        for (i, panel) in self.panels.iter().enumerate() {
            let count = if i + 1 == self.panels.len() { self.last } else { panel.count };
            let (mut values, mut ahead) = ([panel.values; C], [panel.values; C]);
            for c in 0..C {
                values[c] = panel.values.wrapping_add((self.column + c) * column_bytes);
                if AHEAD {
                    // Columns go through different panels, and so through several pages of memory at a time: a core gets less
                    // from one page than from four.
                    let panel = self.ahead[(self.column + c + i) % self.ahead.len()];
                    ahead[c] = panel.keys.wrapping_add((self.column + c) * column_bytes);
                }
            }
            // SAFETY: the maker's promise: pointers are valid.
            unsafe {
                multiply::<L, F, R, C, AHEAD>(sums, weights, values, vectors::<L, F>(count), ahead);
                weights.first = weights.first.add(words::<L, F>(LANES));
            }
        }
    }
}

/// What is known of a row while its keys pass by: weights are 2^(score - largest), so far.
#[derive(Clone, Copy)]
pub struct Running {
    /// The largest score, [rows].
    pub largest: *mut f32,
    /// Sums of the weights, lane by lane: [rows, 16].
    pub totals: Rows,
    /// What sums of earlier weights are to be multiplied by since the largest score has grown, [rows].
    pub factors: *mut f32,
}

/// Turns the scores of a tile into weights, in place.
pub struct Softmax<'a, F> {
    pub rows: Range<usize>,
    pub scores: Rows,
    pub panels: &'a [Panel],
    /// Token numbers that the rows see.
    pub seen: &'a [Range<usize>],
    /// Scores come divided by it.
    pub softcap: Option<f32>,
    pub running: Running,
    pub format: PhantomData<F>,
}

impl<L: Lanes, F: Operand<L>> Work<L> for Softmax<'_, F> {
    #[inline(always)]
    unsafe fn run(self) {
        for row in self.rows.clone() {
            // SAFETY: the maker's promise: pointers are valid.
            unsafe {
                if F::FORMAT.scale_bytes() > 0 || self.softcap.is_some() || !self.sees_all(row) {
                    self.prepare(row);
                }
                self.weigh(row);
            }
        }
    }
}

impl<F> Softmax<'_, F> {
    fn sees_all(&self, row: usize) -> bool {
        let (Some(first), Some(last)) = (self.panels.first(), self.panels.last()) else { return true };
        let full = last.first + LANES - first.first == LANES * self.panels.len();
        full && self.seen[row].start <= first.first && last.first + last.count <= self.seen[row].end && last.count == LANES
    }

    /// Scales, soft cap and mask.
    #[inline(always)]
    unsafe fn prepare<L: Lanes>(&self, row: usize)
    where
        F: Operand<L>,
    {
        let seen = &self.seen[row];
        for (i, panel) in self.panels.iter().enumerate() {
            let to = seen.end.saturating_sub(panel.first).min(panel.count);
            let from = seen.start.saturating_sub(panel.first).min(to);
            // SAFETY: as above.
            unsafe {
                let place = self.scores.row(row).add(i * LANES);
                let mut scores = L::load(place);
                if F::FORMAT.scale_bytes() > 0 {
                    scores = scores.mul(L::load(panel.keys.sub(F::FORMAT.scale_bytes()).cast()));
                }
                if let Some(cap) = self.softcap {
                    scores = tanh(scores).mul(L::splat(cap));
                }
                scores.keep(from, to).store(place);
            }
        }
    }

    #[inline(always)]
    unsafe fn weigh<L: Lanes>(&self, row: usize)
    where
        F: Operand<L>,
    {
        // SAFETY: as above.
        unsafe {
            let scores = self.scores.row(row);
            let mut largest = L::splat(f32::MIN);
            for i in 0..self.panels.len() {
                largest = L::load(scores.add(i * LANES)).max(largest);
            }
            let (before, after) = (*self.running.largest.add(row), largest.largest());
            let grown = after > before;
            let (factor, largest) = if grown { (exp2(L::splat(before - after)), after) } else { (L::splat(1.0), before) };
            let mut total = L::load(self.running.totals.row(row)).mul(factor);
            for (i, panel) in self.panels.iter().enumerate() {
                let mut weights = exp2(L::load(scores.add(i * LANES)).sub(L::splat(largest)));
                total = total.add(weights);
                if F::FORMAT.scale_bytes() > 0 {
                    weights = weights.mul(L::load(panel.values.sub(F::FORMAT.scale_bytes()).cast()));
                }
                F::store_left(scores.add(i * words::<L, F>(LANES)), weights);
            }
            total.store(self.running.totals.row(row));
            *self.running.largest.add(row) = largest;
            *self.running.factors.add(row) = factor.largest();
        }
    }
}

/// Copies queries to where [`ScoreTile`] reads them, each multiplied by a factor.
pub struct Queries<'a, F, I: Iterator<Item = &'a [f32]>> {
    pub source: I,
    pub factor: f32,
    pub queries: Rows,
    pub format: PhantomData<F>,
}

impl<'a, L: Lanes, F: Operand<L>, I: Iterator<Item = &'a [f32]>> Work<L> for Queries<'a, F, I> {
    #[inline(always)]
    unsafe fn run(self) {
        for (row, source) in self.source.enumerate() {
            for (i, numbers) in source.chunks(LANES).enumerate() {
                let mut padded = [0.0; LANES];
                match numbers.try_into() {
                    Ok(sixteen) => padded = sixteen, // no call into the C library for a copy of unknown length
                    Err(_) => padded[..numbers.len()].copy_from_slice(numbers),
                }
                // SAFETY: the maker's promise: there is room for all rows.
                unsafe {
                    let numbers = L::load(padded.as_ptr()).mul(L::splat(self.factor));
                    F::store_left(self.queries.row(row).add(i * words::<L, F>(LANES)), numbers);
                }
            }
        }
    }
}
