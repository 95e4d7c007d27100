//! Sixteen rows at a time. With K, V, Q the rows of a chunk, S the state before it, and g the sum of their decays so far, the
//! changes U that the rows make of the state depend on each other through a triangular matrix, and all else is products:
//!
//! ```text
//! U = B (V - e^g K S) - B (K Kᵀ ∘ e^(g_t - g_s), s < t) U        B: beta on the diagonal
//! Y = e^g Q S + (Q Kᵀ ∘ e^(g_t - g_s), s ≤ t) U
//! S ← e^g_last S + Kᵀ (e^(g_last - g) U)
//! ```
//!
//! (Yang et al. 2024, arXiv:2406.06484; their chunks are longer, since a graphics processor wants larger products.)

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::{LANES, TILE, Unit};
use crate::attention::kernels::{Rows, multiply};
use crate::attention::lanes::{Lanes, exp2};
use crate::attention::operand::Full;
use crate::math::at_least;

/// Rows of a chunk. Of a longer one more work would go into products of rows with rows, of a shorter one into the state.
const CHUNK: usize = LANES;
/// e to this is nothing beside one, and sums of it are finite.
const DECAY_MIN: f32 = -200.0;

/// A vector of AVX-512.
type Sixteen = [f32; LANES];

/// What a chunk is computed in. Rows that it lacks are zero.
#[derive(Default)]
pub(super) struct Scratch {
    /// [16, depth], where depth is the padded key_dim
    queries: Vec<f32>,
    /// [16, depth]
    keys: Vec<f32>,
    /// [depth, 16]
    turned_keys: Vec<f32>,
    mixing: Mixing,
}

/// How the rows of a chunk act on each other.
#[derive(Default)]
struct Mixing {
    /// Factors of earlier changes in a row's change.
    changes: [Sixteen; CHUNK],
    /// Factors of changes in what a row reads.
    reads: [Sixteen; CHUNK],
    /// What is left at each row of the state before the chunk, and behind the chunk of each row's change.
    kept: Sixteen,
    kept_to_end: Sixteen,
    beta: Sixteen,
}

impl Unit<'_> {
    /// # Safety
    /// Called inside of [`Lanes::run`].
    #[inline(always)]
    pub(super) unsafe fn chunked<L: Lanes>(&self, state: &mut [f32], scratch: &mut Scratch) {
        for first in self.rows.clone().step_by(CHUNK) {
            let rows = first..self.rows.end.min(first + CHUNK);
            self.gather(rows.clone(), scratch);
            // SAFETY: as promised. Tiles have as many sums as there are registers for.
            unsafe {
                if L::WIDE {
                    self.chunk::<L, TILE, 2>(rows, scratch, state);
                } else {
                    self.chunk::<L, { TILE / 2 }, 1>(rows, scratch, state);
                }
            }
        }
    }

    /// Copies queries and keys, whose rows may be so far apart that they share lines of the first cache.
    fn gather(&self, rows: Range<usize>, scratch: &mut Scratch) {
        let (width, depth) = (self.x.k.head_dim, self.depth());
        let Scratch { queries, keys, turned_keys, .. } = scratch;
        for (part, to) in [(&self.x.q, queries), (&self.x.k, &mut *keys)] {
            to.clear();
            to.resize(CHUNK * depth, 0.0);
            for (row, to) in rows.clone().zip(to.chunks_exact_mut(depth)) {
                to[..width].copy_from_slice(part.head(row, self.key_head()));
            }
        }
        turned_keys.resize(depth * LANES, 0.0);
        for (i, sixteen) in turned_keys.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            for (row, number) in sixteen.iter_mut().enumerate() {
                *number = keys[row * depth + i];
            }
        }
    }

    /// Lets gathered rows pass by all panels of a state, in tiles of R rows by P panels.
    ///
    /// # Safety
    /// Called inside of [`Lanes::run`].
    #[inline(always)]
    unsafe fn chunk<L: Lanes, const R: usize, const P: usize>(
        &self,
        rows: Range<usize>,
        scratch: &mut Scratch,
        state: &mut [f32],
    ) {
        let panel = self.depth() * LANES;
        // SAFETY: as promised.
        unsafe {
            self.mix::<L, R>(rows.clone(), scratch);
            for (i, panels) in state.chunks_mut(P * panel).enumerate() {
                let column = self.column + i * P * LANES;
                if panels.len() == P * panel {
                    Pass::<P>::new(self, rows.clone(), scratch, panels, column).run::<L, R>();
                } else {
                    Pass::<1>::new(self, rows.clone(), scratch, panels, column).run::<L, R>();
                }
            }
        }
    }

    /// Works out how the rows act on each other.
    ///
    /// # Safety
    /// Called inside of [`Lanes::run`], behind [`Self::gather`].
    #[inline(always)]
    unsafe fn mix<L: Lanes, const R: usize>(&self, rows: Range<usize>, scratch: &mut Scratch) {
        let (depth, Scratch { queries, keys, turned_keys, mixing }) = (self.depth(), scratch);
        // Decays so far, of powers of two. Rows that are missing forget nothing and change nothing.
        let (mut sums, mut sum) = ([0.0; LANES], 0.0);
        mixing.beta = [0.0; LANES];
        for i in 0..CHUNK {
            if i < rows.len() {
                let (decay, beta) = self.gates(rows.start + i);
                sum += at_least(decay, DECAY_MIN) * LOG2_E;
                mixing.beta[i] = beta;
            }
            sums[i] = sum;
        }
        let turned_keys = [turned_keys.as_ptr()];
        // SAFETY: as promised; sixteen numbers each.
        unsafe {
            let so_far = L::load(sums.as_ptr());
            exp2(so_far).store(mixing.kept.as_mut_ptr());
            exp2(L::splat(sum).sub(so_far)).store(mixing.kept_to_end.as_mut_ptr());
            for first in (0..rows.len()).step_by(R) {
                let (mut with_keys, mut with_queries) = ([[L::splat(0.0)]; R], [[L::splat(0.0)]; R]);
                add_product(&mut with_keys, tile(keys, first, depth), turned_keys, depth);
                add_product(&mut with_queries, tile(queries, first, depth), turned_keys, depth);
                for i in 0..R {
                    let row = first + i;
                    let since = L::splat(sums[row]).sub(so_far);
                    let change = with_keys[i][0].mul(exp2(since.keep(0, row))).mul(L::splat(-mixing.beta[row]));
                    let read = with_queries[i][0].mul(exp2(since.keep(0, row + 1))).mul(L::splat(self.x.scale));
                    change.store(mixing.changes[row].as_mut_ptr());
                    read.store(mixing.reads[row].as_mut_ptr());
                }
            }
        }
    }
}

/// P panels of a state that a chunk passes by.
struct Pass<'a, const P: usize> {
    unit: &'a Unit<'a>,
    rows: Range<usize>,
    scratch: &'a Scratch,
    /// [depth, 16] each.
    panels: [*mut f32; P],
    depth: usize,
    /// The first column.
    column: usize,
    /// What the rows change, [rows, 16] for each panel.
    changes: [[Sixteen; CHUNK]; P],
}

impl<'a, const P: usize> Pass<'a, P> {
    #[inline(always)]
    fn new(unit: &'a Unit<'a>, rows: Range<usize>, scratch: &'a Scratch, state: &'a mut [f32], column: usize) -> Self {
        let depth = unit.depth();
        let panels = std::array::from_fn(|p| state[p * depth * LANES..][..depth * LANES].as_mut_ptr());
        Self { unit, rows, scratch, panels, depth, column, changes: [[[0.0; LANES]; CHUNK]; P] }
    }

    /// # Safety
    /// Called inside of [`Lanes::run`], behind [`Unit::mix`].
    #[inline(always)]
    unsafe fn run<L: Lanes, const R: usize>(mut self) {
        // SAFETY: as promised.
        unsafe {
            for first in (0..self.rows.len()).step_by(R) {
                self.change::<L, R>(first);
            }
            for first in (0..self.rows.len()).step_by(R) {
                self.read::<L, R>(first);
            }
            self.update::<L, R>();
        }
    }

    /// What R rows change; those before them are done.
    #[inline(always)]
    unsafe fn change<L: Lanes, const R: usize>(&mut self, first: usize) {
        let Scratch { keys, mixing, .. } = self.scratch;
        let mut sums = [[L::splat(0.0); P]; R];
        // SAFETY: as promised.
        unsafe {
            add_product(&mut sums, tile(keys, first, self.depth), self.state(), self.depth);
            for i in 0..R {
                let (kept, beta) = (L::splat(mixing.kept[first + i]), L::splat(mixing.beta[first + i]));
                let row = self.rows.start + first + i;
                for p in 0..P {
                    let column = self.column + p * LANES;
                    let values = if row < self.rows.end { self.unit.values(row, column) } else { [0.0; LANES] };
                    sums[i][p] = L::load(values.as_ptr()).sub(sums[i][p].mul(kept)).mul(beta);
                }
            }
            add_product(&mut sums, tile(mixing.changes.as_flattened(), first, LANES), self.changed(), first);
            for i in 0..R {
                for earlier in 0..i {
                    let factor = L::splat(mixing.changes[first + i][first + earlier]);
                    for p in 0..P {
                        sums[i][p] = sums[earlier][p].mul_add(factor, sums[i][p]);
                    }
                }
                for p in 0..P {
                    sums[i][p].store(self.changes[p][first + i].as_mut_ptr());
                }
            }
        }
    }

    /// What R rows read.
    #[inline(always)]
    unsafe fn read<L: Lanes, const R: usize>(&self, first: usize) {
        let Scratch { queries, mixing, .. } = self.scratch;
        let mut sums = [[L::splat(0.0); P]; R];
        // SAFETY: as promised.
        unsafe {
            add_product(&mut sums, tile(queries, first, self.depth), self.state(), self.depth);
            for i in 0..R {
                let kept = L::splat(mixing.kept[first + i] * self.unit.x.scale);
                for p in 0..P {
                    sums[i][p] = sums[i][p].mul(kept);
                }
            }
            add_product(&mut sums, tile(mixing.reads.as_flattened(), first, LANES), self.changed(), first + R);
            for (row, sums) in (self.rows.start + first..self.rows.end).zip(sums) {
                for (p, sum) in sums.into_iter().enumerate() {
                    let mut read = [0.0; LANES];
                    sum.store(read.as_mut_ptr());
                    self.unit.put(row, self.column + p * LANES, &read);
                }
            }
        }
    }

    /// The state behind the chunk.
    #[inline(always)]
    unsafe fn update<L: Lanes, const R: usize>(&mut self) {
        let Scratch { turned_keys, mixing, .. } = self.scratch;
        // SAFETY: as promised.
        unsafe {
            for changes in &mut self.changes {
                for (change, kept) in changes.iter_mut().zip(mixing.kept_to_end) {
                    L::load(change.as_ptr()).mul(L::splat(kept)).store(change.as_mut_ptr());
                }
            }
            let kept = L::splat(mixing.kept[CHUNK - 1]);
            for first in (0..self.depth).step_by(R) {
                let mut sums = [[L::splat(0.0); P]; R];
                for i in 0..R {
                    for p in 0..P {
                        sums[i][p] = L::load(self.panels[p].add((first + i) * LANES)).mul(kept);
                    }
                }
                add_product(&mut sums, tile(turned_keys, first, LANES), self.changed(), self.rows.len());
                for i in 0..R {
                    for p in 0..P {
                        sums[i][p].store(self.panels[p].add((first + i) * LANES));
                    }
                }
            }
        }
    }

    fn state(&self) -> [*const f32; P] {
        self.panels.map(<*mut f32>::cast_const)
    }

    fn changed(&self) -> [*const f32; P] {
        self.changes.each_ref().map(|changes| changes.as_flattened().as_ptr())
    }
}

/// Rows of a matrix from one on.
fn tile(matrix: &[f32], first: usize, stride: usize) -> Rows {
    Rows { first: matrix[first * stride..].as_ptr().cast_mut(), stride }
}

/// sums += left · right, over `steps` numbers of a row and vectors of a column.
///
/// # Safety
/// Called inside of [`Lanes::run`]; they can be read.
#[inline(always)]
unsafe fn add_product<L: Lanes, const R: usize, const P: usize>(
    sums: &mut [[L; P]; R],
    left: Rows,
    right: [*const f32; P],
    steps: usize,
) {
    let right = right.map(<*const f32>::cast);
    // A copy, since what is indexed by a variable elsewhere cannot stay in registers.
    let mut own = *sums;
    // SAFETY: as promised.
    unsafe { multiply::<L, Full, R, P, false>(&mut own, left, right, steps, right) };
    *sums = own;
}
