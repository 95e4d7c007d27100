//! The other side of a product: rows of f32, rounded to 8 bits.
//!
//! Every 32 inputs have a scale of their own, since single channels of a model's activations are large and would cost all others
//! their precision. The error is that of rounding to 1/127 of the largest of 32 values: 0.5 % of normally distributed ones.

use std::ops::Range;

use super::layout::INPUTS;
use crate::blocks::BlockFormat;
use crate::disjoint::Disjoint;
use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa};

/// 32 inputs of a row, and what a kernel needs to know of them.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Unit {
    /// Rounded values.
    pub codes: [i8; INPUTS],
    /// What a code of 1 is worth.
    pub scale: f32,
    /// For each 16 inputs (or in the first, for all 32): with minima, the sum of the rounded values in f32; otherwise where the
    /// integer sum begins: minus the sum of the codes times the weights' offset.
    pub sums: [Sum; 2],
}

/// One of two numbers, and the format says which.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Sum(u32);

impl Sum {
    pub(super) fn start(self) -> i32 {
        self.0 as i32
    }

    pub(super) fn scaled(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl Unit {
    const ZERO: Self = Self { codes: [0; INPUTS], scale: 0.0, sums: [Sum(0); 2] };
}

/// Rows in tiles: the units of a tile's rows lie together, unit after unit, so that a kernel reads a tile from front to back.
pub(super) struct Activations {
    units: Vec<Unit>,
    units_per_row: usize,
    rows: usize,
    tiles: usize,
}

impl Activations {
    /// Rounds rows of `inputs` for weights of a format, in tiles of about the same height and at most `tile_rows`.
    pub(super) fn new(cpu: &Cpu, format: BlockFormat, x: &[f32], inputs: usize, tile_rows: usize) -> Self {
        let (rows, units_per_row) = (x.len() / inputs, inputs / INPUTS);
        let mut units = vec![Unit::ZERO; rows * units_per_row];
        let tiles = rows.div_ceil(tile_rows);
        let kind = Kind { halves: format.group() < INPUTS, offset: i32::from(format.offset()) };
        let out = Disjoint::new(&mut units);
        let round = |t: usize| {
            let Range { start, end } = tile_rows_of(t, rows, tiles);
            // SAFETY: every tile is written by one part only.
            let units = unsafe { out.part(start * units_per_row..end * units_per_row) };
            for (r, row) in x[start * inputs..end * inputs].chunks_exact(inputs).enumerate() {
                round_row(cpu.isa, row, kind, (r, end - start), units);
            }
        };
        if x.len() < SERIAL {
            (0..tiles).for_each(round)
        } else {
            cpu.pool.run(tiles, round)
        }
        Self { units, units_per_row, rows, tiles }
    }

    pub(super) fn tiles(&self) -> usize {
        self.tiles
    }

    /// The rows of tile `t`, and their units: `[units, rows]`.
    pub(super) fn tile(&self, t: usize) -> (Range<usize>, &[Unit]) {
        let rows = tile_rows_of(t, self.rows, self.tiles);
        let units = &self.units[rows.start * self.units_per_row..rows.end * self.units_per_row];
        (rows, units)
    }
}

fn tile_rows_of(t: usize, rows: usize, tiles: usize) -> Range<usize> {
    t * rows / tiles..(t + 1) * rows / tiles
}

/// Values below which a second thread does not pay: some 2 microseconds of work.
const SERIAL: usize = 16 * 1024;

#[derive(Clone, Copy)]
struct Kind {
    halves: bool,
    offset: i32,
}

/// Adding and subtracting 1.5 * 2^23 rounds to the nearest even integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn round_row_body<M: MulAdd>(row: &[f32], kind: Kind, (first, step): (usize, usize), units: &mut [Unit]) {
    for (values, unit) in row.chunks_exact(INPUTS).zip(units.iter_mut().skip(first).step_by(step)) {
        // The bits of positive floats are ordered as integers, and those of NaN lie above all: it reaches the scale.
        let largest = f32::from_bits(values.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)));
        // Below this the inverse would be infinite.
        let inverse = if largest < 1e-36 { 0.0 } else { 127.0 / largest };
        let mut sums = [0_i32; 2];
        for (h, sum) in sums.iter_mut().enumerate() {
            let half = h * INPUTS / 2..(h + 1) * INPUTS / 2;
            for (v, code) in values[half.clone()].iter().zip(&mut unit.codes[half]) {
                // Not fused, so that all instruction sets round to the same integers.
                *code = (*v * inverse + ROUND).to_bits() as i8;
                *sum += i32::from(*code);
            }
        }
        unit.scale = largest * (1.0 / 127.0);
        if !kind.halves {
            sums[0] += sums[1];
        }
        unit.sums = sums.map(|sum| match kind.offset {
            0 => Sum((sum as f32 * unit.scale).to_bits()),
            offset => Sum((-offset * sum) as u32),
        });
    }
}

for_each_isa!(fn round_row(row: &[f32], kind: Kind, place: (usize, usize), units: &mut [Unit]) = round_row_body);
