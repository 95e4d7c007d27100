//! From f32 to blocks: sixteen blocks side by side, one in each lane.

use half::f16;

use super::search::{Affine, Group, LANES, Lanes, ROUND, Scale, Tries, inverse, round_between};
use super::{BlockFormat, Parts};
use crate::isa::MulAdd;
use crate::{Isa, for_each_isa};
use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// Weights of the largest block.
const SIZE: usize = 256;
/// Groups of the largest block.
const GROUPS: usize = 16;

/// Sixteen blocks: the first index counts weights or groups, the second blocks.
pub(crate) struct Batch {
    x: [Lanes; SIZE],
    importance: [Lanes; SIZE],
    codes: [[u8; LANES]; SIZE],
    scales: [Lanes; GROUPS],
    mins: [Lanes; GROUPS],
    scale: Lanes,
    min: Lanes,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let (long, short) = ([[1.0; LANES]; SIZE], [[1.0; LANES]; GROUPS]);
        let codes = [[0; LANES]; SIZE];
        Self { x: long, importance: long, codes, scales: short, mins: short, scale: [0.0; LANES], min: [0.0; LANES] }
    }

    /// Takes the weights of a block into lane `l`.
    pub(crate) fn load(&mut self, l: usize, x: &[f32]) {
        self.x.iter_mut().zip(x).for_each(|(lanes, x)| lanes[l] = *x);
    }

    /// Takes the importance of the same weights; until then it is 1.
    pub(crate) fn load_importance(&mut self, l: usize, importance: &[f32]) {
        self.importance.iter_mut().zip(importance).for_each(|(lanes, w)| lanes[l] = *w);
    }

    /// Group `g` of N.
    #[inline(always)]
    fn group<M: MulAdd, const N: usize>(&self, g: usize, usual: &Lanes) -> Group<'_, N> {
        let (x, importance) = (self.x.as_chunks::<N>().0, self.importance.as_chunks::<N>().0);
        Group::weighed::<M>(&x[g], &importance[g], usual)
    }

    /// Finds codes and scales.
    pub(crate) fn quantise(&mut self, isa: Isa, format: BlockFormat) {
        quantise_batch(isa, format, self);
    }

    /// The block in lane `l`.
    pub(crate) fn parts(&self, format: BlockFormat, l: usize, parts: &mut Parts) {
        parts.codes.iter_mut().zip(&self.codes).take(format.block_size()).for_each(|(code, from)| *code = from[l]);
        if format.block_size() == SIZE {
            parts.scales.iter_mut().zip(&self.scales).for_each(|(scale, from)| *scale = from[l] as i8);
            parts.mins.iter_mut().zip(&self.mins).for_each(|(min, from)| *min = from[l] as u8);
        }
        (parts.scale, parts.min) = (f16::from_f32(self.scale[l]), f16::from_f32(self.min[l]));
    }
}

// What is tried for codes of two, four and five bits. Fewer tries, or a smaller range of them, would leave errors larger than those of
// llama.cpp's, which tries some 20 and 36.
const TRIES_3: Tries = Tries { code_max: 3.0, first: -0.6, step: 0.14, count: 14, again: 2, any_min: false };
const TRIES_15: Tries = Tries { code_max: 15.0, first: -1.2, step: 0.22, count: 12, again: 2, any_min: false };
const TRIES_31: Tries = Tries { code_max: 31.0, first: -1.5, step: 0.25, count: 11, again: 2, any_min: false };

for_each_isa!(
    fn quantise_batch(format: BlockFormat, batch: &mut Batch) = quantise_body
);

#[inline(always)]
fn quantise_body<M: MulAdd>(format: BlockFormat, batch: &mut Batch) {
    match format {
        Q8_0 => largest(batch),
        Q4_0 => symmetric::<M>(batch, 8.0),
        Q5_0 => symmetric::<M>(batch, 16.0),
        Q4_1 => affine::<M>(batch, Tries { any_min: true, ..TRIES_15 }),
        Q5_1 => affine::<M>(batch, Tries { any_min: true, ..TRIES_31 }),
        Q3K => symmetric_groups::<M>(batch, 4.0, 32.0),
        Q6K => symmetric_groups::<M>(batch, 32.0, 128.0),
        Q2K => affine_groups::<M, 16, 16>(batch, TRIES_3, 15.0),
        Q4K => affine_groups::<M, 32, 8>(batch, TRIES_15, 63.0),
        Q5K => affine_groups::<M, 32, 8>(batch, TRIES_31, 63.0),
    }
}

/// Twice the mean square, beside which single weights count: with once, large weights would count too much.
#[inline(always)]
fn twice_mean_square(x: &[Lanes]) -> Lanes {
    let mut sum = [0.0; LANES];
    for x in x {
        for l in 0..LANES {
            sum[l] += x[l] * x[l];
        }
    }
    sum.map(|sum| 2.0 * sum / x.len() as f32)
}

/// As the block will have it.
#[inline(always)]
fn as_half(v: Lanes) -> Lanes {
    v.map(|v| f16::from_f32(v).to_f32())
}

/// Codes of weights `(x + min) / scale`, as far as there are codes, counted from `low`.
#[inline(always)]
fn encode(x: &[Lanes], scale: &Lanes, min: &Lanes, [low, high]: [f32; 2], codes: &mut [[u8; LANES]]) {
    let mut over = [0.0; LANES];
    for l in 0..LANES {
        over[l] = inverse(scale[l]);
    }
    for (x, codes) in x.iter().zip(codes) {
        // In two steps, each of which is one for all lanes.
        let mut bits = [0; LANES];
        for l in 0..LANES {
            let q = round_between((x[l] + min[l]) * over[l], low, high);
            bits[l] = (q - low + ROUND).to_bits();
        }
        *codes = bits.map(|bits| bits as u8);
    }
}

/// The largest weight gets the largest code.
#[inline(always)]
fn largest(batch: &mut Batch) {
    let mut most = [0.0_f32; LANES];
    for x in &batch.x[..32] {
        for l in 0..LANES {
            most[l] = if x[l].abs() > most[l] { x[l].abs() } else { most[l] };
        }
    }
    let scale = most.map(|most| most / 127.0);
    batch.scale = scale;
    encode(&batch.x[..32], &scale, &[0.0; LANES], [-128.0, 127.0], &mut batch.codes);
}

#[inline(always)]
fn symmetric<M: MulAdd>(batch: &mut Batch, half: f32) {
    let group = batch.group::<M, 32>(0, &twice_mean_square(&batch.x[..32]));
    let ends = [-half, half - 1.0];
    batch.scale = as_half(Scale::of::<M, 32>(&group, ends).scale);
    encode(&batch.x[..32], &batch.scale, &[0.0; LANES], ends, &mut batch.codes);
}

#[inline(always)]
fn affine<M: MulAdd>(batch: &mut Batch, tries: Tries) {
    let group = batch.group::<M, 32>(0, &twice_mean_square(&batch.x[..32]));
    let found = Affine::search::<M, 32>(&group, tries);
    (batch.scale, batch.min) = (as_half(found.scale), as_half(found.min));
    encode(&batch.x[..32], &batch.scale, &batch.min, [0.0, tries.code_max], &mut batch.codes);
}

/// Groups of 16 with signed scales of up to `scale_half`.
#[inline(always)]
fn symmetric_groups<M: MulAdd>(batch: &mut Batch, half: f32, scale_half: f32) {
    let (code_ends, scale_ends) = ([-half, half - 1.0], [-scale_half, scale_half - 1.0]);
    let usual = twice_mean_square(&batch.x);
    let mut found = [Scale { scale: [0.0; LANES], weight: [0.0; LANES] }; GROUPS];
    for (g, found) in found.iter_mut().enumerate() {
        *found = Scale::of::<M, 16>(&batch.group::<M, 16>(g, &usual), code_ends);
    }
    let block = Scale::search::<M, GROUPS>(&found.map(|found| found.scale), &found.map(|found| found.weight), scale_ends);
    batch.scale = as_half(block.scale);
    for (g, found) in found.iter().enumerate() {
        let here = g * 16..g * 16 + 16;
        let scale = small(&found.scale, &batch.scale, scale_ends, &mut batch.scales[g]);
        encode(&batch.x[here.clone()], &scale, &[0.0; LANES], code_ends, &mut batch.codes[here]);
    }
}

/// G groups of N with scales and minima of up to `most`.
#[inline(always)]
fn affine_groups<M: MulAdd, const N: usize, const G: usize>(batch: &mut Batch, tries: Tries, most: f32) {
    let usual = twice_mean_square(&batch.x);
    let nothing = [0.0; LANES];
    let mut found = [Affine { scale: nothing, min: nothing, scale_weight: nothing, min_weight: nothing }; G];
    for (g, found) in found.iter_mut().enumerate() {
        *found = Affine::search::<M, N>(&batch.group::<M, N>(g, &usual), tries);
    }
    let ends = [0.0, most];
    let scales = Scale::search::<M, G>(&found.map(|found| found.scale), &found.map(|found| found.scale_weight), ends);
    let mins = Scale::search::<M, G>(&found.map(|found| found.min), &found.map(|found| found.min_weight), ends);
    (batch.scale, batch.min) = (as_half(scales.scale), as_half(mins.scale));
    for (g, found) in found.iter().enumerate() {
        let here = g * N..(g + 1) * N;
        let scale = small(&found.scale, &batch.scale, ends, &mut batch.scales[g]);
        let min = small(&found.min, &batch.min, ends, &mut batch.mins[g]);
        encode(&batch.x[here.clone()], &scale, &min, [0.0, tries.code_max], &mut batch.codes[here]);
    }
}

/// A group's scale as a small integer times the block's; returns that product.
#[inline(always)]
fn small(wanted: &Lanes, block: &Lanes, [low, high]: [f32; 2], integer: &mut Lanes) -> Lanes {
    let mut product = [0.0; LANES];
    for l in 0..LANES {
        integer[l] = round_between(wanted[l] * inverse(block[l]), low, high);
        product[l] = integer[l] * block[l];
    }
    product
}
