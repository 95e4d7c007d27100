//! Weights into panels, and back.

#![allow(clippy::extra_unused_type_parameters)] // loops without a product have no use for how it is rounded

use std::ops::Range;

use half::f16;

use super::{DenseFormat, DenseMatrix, PANEL, Plain, Source};
use crate::convert::{from_bf16, from_bf16_pair, from_f16, to_bf16_pair, to_f16};
use crate::disjoint::Disjoint;
use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa};

/// Rows of a panel that are filled at a time: with what is put there, they lie in L1.
const FILLED: usize = 64;

/// Some outputs of a panel.
struct Lanes<'a> {
    /// `[lanes, inputs]`
    weights: Source<'a>,
    inputs: usize,
    lanes: Range<usize>,
}

/// Fills the outputs in `range` of an expert's weight.
pub(super) fn pack_rows(matrix: &mut DenseMatrix, cpu: &Cpu, (expert, range): (usize, Range<usize>), weights: Source<'_>) {
    let (inputs, format) = (matrix.inputs, matrix.format);
    let size = matrix.panel_bytes();
    let bytes = Disjoint::new(&mut matrix.panels);
    let (own, first) = (expert * matrix.outputs.div_ceil(PANEL), range.start / PANEL);
    cpu.pool.run(range.end.div_ceil(PANEL) - first, |panel| {
        let panel = first + panel;
        let outputs = range.start.max(panel * PANEL)..range.end.min((panel + 1) * PANEL);
        let elements = (outputs.start - range.start) * inputs..(outputs.end - range.start) * inputs;
        let lanes = Lanes {
            weights: weights.part(elements),
            inputs,
            lanes: outputs.start % PANEL..outputs.start % PANEL + outputs.len(),
        };
        // SAFETY: every panel is a part of its own.
        let bytes = unsafe { bytes.part((own + panel) * size..(own + panel + 1) * size) };
        match format {
            DenseFormat::F32 => fill_f32(cpu.isa, &lanes, units(bytes)),
            DenseFormat::Bf16 => fill_bf16(cpu.isa, &lanes, units(bytes)),
            DenseFormat::F16 => fill_f16(cpu.isa, &lanes, units(bytes)),
        }
    });
}

fn units<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: all bits are good in `T`.
    unsafe { bytes.align_to_mut().1 }
}

for_each_isa!(fn fill_f32(lanes: &Lanes<'_>, panel: &mut [[u32; PANEL]]) = fill_words);
for_each_isa!(fn fill_f16(lanes: &Lanes<'_>, panel: &mut [[f16; PANEL]]) = fill_halves);
for_each_isa!(fn fill_bf16(lanes: &Lanes<'_>, panel: &mut [[u32; PANEL]]) = fill_pairs);

#[inline(always)]
fn fill_words<M: MulAdd>(lanes: &Lanes<'_>, panel: &mut [[u32; PANEL]]) {
    fill(lanes, panel, |[weight]: [f32; 1]| weight.to_bits());
}

#[inline(always)]
fn fill_halves<M: MulAdd>(lanes: &Lanes<'_>, panel: &mut [[f16; PANEL]]) {
    fill(lanes, panel, |[weight]: [f32; 1]| to_f16(weight));
}

#[inline(always)]
fn fill_pairs<M: MulAdd>(lanes: &Lanes<'_>, panel: &mut [[u32; PANEL]]) {
    fill(lanes, panel, to_bf16_pair);
}

/// Puts all weights where they belong, N of them as one `T`.
#[inline(always)]
fn fill<T: Copy + Default, const N: usize>(lanes: &Lanes<'_>, panel: &mut [[T; PANEL]], narrow: impl Fn([f32; N]) -> T) {
    let mut wide = [0.0; FILLED * 2];
    let mut narrowed = [T::default(); FILLED];
    for (block, panel) in panel.chunks_mut(FILLED).enumerate() {
        let inputs = (block * FILLED * N).min(lanes.inputs)..((block + 1) * FILLED * N).min(lanes.inputs);
        wide[inputs.len()..].fill(0.0);
        for (row, lane) in lanes.lanes.clone().enumerate() {
            let weights = row * lanes.inputs + inputs.start..row * lanes.inputs + inputs.end;
            widen(lanes.weights.part(weights), &mut wide);
            narrowed.iter_mut().zip(wide.as_chunks::<N>().0).for_each(|(to, weights)| *to = narrow(*weights));
            panel.iter_mut().zip(narrowed).for_each(|(to, weights)| to[lane] = weights);
        }
    }
}

#[inline(always)]
fn widen(weights: Source<'_>, into: &mut [f32]) {
    match weights {
        Source::F32(weights) => into.iter_mut().zip(weights).for_each(|(to, weight)| *to = *weight),
        Source::Bf16(weights) => into.iter_mut().zip(weights).for_each(|(to, weight)| *to = from_bf16(*weight)),
        Source::F16(weights) => into.iter_mut().zip(weights).for_each(|(to, weight)| *to = from_f16(*weight)),
        Source::Blocks(..) => weights.widen(0..weights.len(), &mut into[..weights.len()]),
    }
}

/// One output's weights.
pub(super) fn unpack_row(matrix: &DenseMatrix, output: usize, into: &mut [f32]) {
    let (expert, output) = (output / matrix.outputs, output % matrix.outputs);
    let (panel, lane) = (output / PANEL, output % PANEL);
    match matrix.format {
        DenseFormat::F32 => {
            into.iter_mut().zip(matrix.panel::<[f32; PANEL]>(expert, panel)).for_each(|(to, weights)| *to = weights[lane]);
        }
        DenseFormat::F16 => {
            into.iter_mut()
                .zip(matrix.panel::<[f16; PANEL]>(expert, panel))
                .for_each(|(to, weights)| *to = from_f16(weights[lane]));
        }
        DenseFormat::Bf16 => {
            let weights = matrix.panel::<[u32; PANEL]>(expert, panel).iter().flat_map(|pairs| from_bf16_pair(pairs[lane]));
            into.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight);
        }
    }
}
