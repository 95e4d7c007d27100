//! The other side of a product: rows of f32, rounded to 8 bits.
//!
//! Every 32 inputs have a scale of their own, since single channels of a model's activations are large and would cost all others
//! their precision. The error is that of rounding to 1/127 of the largest of 32 values: 0.5 % of normally distributed ones. For
//! weights in blocks of 256 the scales of a run differ by powers of two, so that integers can be shifted to the same scale and one
//! factor does for the run: the error is then between that and 0.7 %, which a scale per 256 has at best.

use std::ops::Range;

use super::layout::{INPUTS, Layout, Scales, UNITS, min_pairs};
use crate::disjoint::Disjoint;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::isa::Level;
use crate::product::{Input, Tiles};
use crate::{Cpu, Isa};

/// 32 inputs of a row, and what a kernel needs to know of them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Unit {
    /// Rounded values.
    pub codes: [i8; INPUTS],
    /// What a code of 1 is worth.
    pub scale: f32,
    /// What the weights' offset or minima are to be multiplied with.
    pub sums: [Sum; 2],
    /// `scale` is that of the run times two to the power of this; the exponents of both differ by it.
    pub shift: u32,
}

/// What the weights' scales ([`Scales`]) make of it:
///
/// - with an offset: where the integer sum begins, for each 16 inputs or in the first for all 32: minus the offset times the sum of
///   the codes;
/// - with a half-precision minimum per unit: in the first, the sum of the rounded values;
/// - with pairs of minima per run: in the first of a pair's unit (the earlier one), the sums of the rounded values that belong to the
///   pair, rounded to 16 bits; in the second of a run's first unit, what 1 is worth in them.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Sum(u32);

impl Sum {
    /// Where an integer sum begins, or a pair of 16-bit integers.
    pub(super) fn integer(self) -> i32 {
        self.0 as i32
    }

    /// A sum of rounded values, or the worth of 1.
    pub(super) fn float(self) -> f32 {
        f32::from_bits(self.0)
    }

    fn pair([first, second]: [i16; 2]) -> Self {
        Self(u32::from(first as u16) | u32::from(second as u16) << 16)
    }
}

impl Unit {
    const ZERO: Self = Self { codes: [0; INPUTS], scale: 0.0, sums: [Sum(0); 2], shift: 0 };
}

/// Rows in tiles: the units of a tile's rows lie together, unit after unit, so that a kernel reads a tile from front to back.
pub(super) struct Activations {
    units: Vec<Unit>,
    units_per_row: usize,
    tiles: Tiles,
}

impl Activations {
    /// Rounds rows for weights of a layout.
    pub(super) fn new(cpu: &Cpu, layout: Layout, x: Input<'_>, tiles: Tiles) -> Self {
        let units_per_row = layout.units;
        let mut units = vec![Unit::ZERO; x.count() * units_per_row];
        let out = Disjoint::new(&mut units);
        let round = |t: usize| {
            let rows = tiles.rows(t);
            // SAFETY: every tile is written by one part only.
            let units = unsafe { out.part(rows.start * units_per_row..rows.end * units_per_row) };
            for (r, row) in rows.clone().enumerate() {
                round_row(cpu.isa, layout, x.row(row), (r, rows.len()), units);
                pair_sums(layout.scales(), (r, rows.len()), units);
            }
        };
        if x.count() * x.width < SERIAL {
            (0..tiles.count()).for_each(round)
        } else {
            cpu.pool.run(tiles.count(), round)
        }
        Self { units, units_per_row, tiles }
    }

    pub(super) fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// The rows of tile `t`, and their units: `[units, rows]`.
    pub(super) fn tile(&self, t: usize) -> (Range<usize>, &[Unit]) {
        let rows = self.tiles.rows(t);
        let units = &self.units[rows.start * self.units_per_row..rows.end * self.units_per_row];
        (rows, units)
    }
}

/// Values below which a second thread does not pay: some 2 microseconds of work.
const SERIAL: usize = 16 * 1024;

/// Adding 1.5 * 2^23 rounds to the nearest even integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Rounds a row, whose units are every `step`-th of a tile's.
fn round_row(isa: Isa, layout: Layout, row: &[f32], place: (usize, usize), units: &mut [Unit]) {
    match isa.level() {
        // SAFETY: the instruction set is there.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 => unsafe { super::avx512::round_row(layout, row, place, units) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { super::avx2::round_row(layout, row, place, units) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::Dotprod | Level::I8mm => unsafe { super::neon::round_row(layout, row, place, units) },
        _ => round_each(
            layout,
            row,
            (place, units),
            |values| values.iter().fold(0, |most, v| most.max(v.to_bits() & MAGNITUDE)),
            |values, inverse, codes| {
                for (code, v) in codes.iter_mut().zip(values) {
                    // Not fused, so that all instruction sets round to the same integers.
                    *code = (*v * inverse + ROUND).to_bits() as i8;
                }
                let (first, second) = codes.split_at(INPUTS / 2);
                [first, second].map(|half| half.iter().map(|code| i32::from(*code)).sum())
            },
        ),
    }
}

/// All bits but the sign. Those of positive floats are ordered as integers, and those of NaN lie above all: it reaches the scale.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

/// Most that a unit of a run is shifted: its integers stay below 2^31, and what is smaller by more counts for little beside the
/// largest of the run.
const SHIFT_MAX: u32 = 7;

/// Completes the units of a row. `largest` tells the bits of the largest magnitude, `round` makes codes of values times a factor and
/// tells the sum of the codes for each 16 inputs.
#[inline(always)]
pub(super) fn round_each(
    layout: Layout,
    row: &[f32],
    ((first, step), units): ((usize, usize), &mut [Unit]),
    largest: impl Fn(&[f32; INPUTS]) -> u32,
    round: impl Fn(&[f32; INPUTS], f32, &mut [i8; INPUTS]) -> [i32; 2],
) {
    let (halves, offset) = (layout.halves(), i32::from(layout.format.offset()));
    let together = if layout.scales().units() == UNITS { UNITS } else { 1 };
    for (values, units) in row.as_chunks::<INPUTS>().0.chunks(together).zip(units.chunks_mut(together * step)) {
        let mut magnitudes = [0; UNITS];
        magnitudes.iter_mut().zip(values).for_each(|(magnitude, values)| *magnitude = largest(values));
        let most = magnitudes.into_iter().fold(0, u32::max);
        // Below this the inverse would be infinite.
        let (scale, inverse) = match f32::from_bits(most) {
            small if small < 1e-30 => (0.0, 0.0),
            most => (most * (1.0 / 127.0), 127.0 / most),
        };
        for ((values, unit), magnitude) in values.iter().zip(units.iter_mut().skip(first).step_by(step)).zip(magnitudes) {
            // Powers of two are a count of exponents, which zero and what is not finite have none of.
            let smaller = if scale.is_normal() { ((most - magnitude) >> 23).min(SHIFT_MAX) } else { SHIFT_MAX };
            let power = f32::from_bits((127 + smaller) << 23);
            let mut sums = round(values, inverse * power, &mut unit.codes);
            (unit.scale, unit.shift) = (scale / power, SHIFT_MAX - smaller);
            if halves == 1 {
                sums[0] += sums[1];
            }
            unit.sums = sums.map(|sum| match offset {
                0 => Sum((sum as f32 * unit.scale).to_bits()),
                _ => Sum((-offset * sum) as u32),
            });
        }
    }
}

/// Rounds the sums of a row to pairs of 16 bits, where minima are in pairs.
fn pair_sums(scales: Scales, (first, step): (usize, usize), units: &mut [Unit]) {
    let pairs = min_pairs(scales);
    if pairs == 0 {
        return;
    }
    for run in units.chunks_exact_mut(UNITS * step) {
        // A pair belongs to two units, or to the halves of one.
        let apart = UNITS / pairs;
        let place = |pair: usize| first + pair * apart * step;
        let sums = |run: &[Unit], pair: usize| match apart {
            1 => run[place(pair)].sums,
            _ => [run[place(pair)].sums[0], run[place(pair) + step].sums[0]],
        };
        let bits = |sum: Sum| sum.0 & MAGNITUDE;
        let largest = (0..pairs).flat_map(|pair| sums(run, pair)).fold(0, |most, sum| most.max(bits(sum)));
        let largest = f32::from_bits(largest);
        let inverse = if largest < 1e-30 { 0.0 } else { 32767.0 / largest };
        for pair in 0..pairs {
            let rounded = sums(run, pair).map(|sum| (sum.float() * inverse + ROUND).to_bits() as i16);
            run[place(pair)].sums[0] = Sum::pair(rounded);
        }
        run[first].sums[1] = Sum((largest * (1.0 / 32767.0)).to_bits());
    }
}
