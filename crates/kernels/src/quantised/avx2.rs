//! The kernel without VNNI: products of unsigned and signed bytes are added in pairs to 16 bits, and so are a few steps before they are
//! widened to 32 bits.

#![allow(clippy::needless_range_loop)] // loops over registers, which are to be unrolled

use std::arch::x86_64::*;

use super::activations::{MAGNITUDE, Unit, round_each};
use super::layout::{INPUTS, Layout, OUTPUTS, STEP_BYTES, UNITS, min_pair_at, min_pairs};
use super::scales::{Lanes, RunScales, UnitScales};
use crate::blocks::BlockFormat;

/// Rows of a tile. For 8 outputs at a time they take 4 of 16 registers for 16-bit sums and 4 for 32-bit ones; f32 sums are in memory,
/// which is touched once per unit.
pub(super) const ROWS: usize = 4;

/// Weights have an offset.
const OFFSET: usize = 0;
/// Every unit has minima of its own.
const MINS: usize = 1;
/// Minima come in pairs, per run.
const PAIRS: usize = 2;

/// `panel`: weights; `units`: `[units, rows]`; `out`: `[rows, 16]`.
///
/// # Safety
/// AVX2 and FMA are there, and the lengths are those of a whole panel and whole rows.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn tile(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    use BlockFormat::*;
    // SAFETY: the caller's.
    unsafe {
        match layout.format {
            Q4_0 => sized::<4, 0, 1, OFFSET>(layout, panel, units, out),
            Q5_0 => sized::<4, 1, 1, OFFSET>(layout, panel, units, out),
            Q8_0 => sized::<8, 0, 1, OFFSET>(layout, panel, units, out),
            Q4_1 => sized::<4, 0, 1, MINS>(layout, panel, units, out),
            Q5_1 => sized::<4, 1, 1, MINS>(layout, panel, units, out),
            Q4K => sized::<4, 0, 1, PAIRS>(layout, panel, units, out),
            Q5K => sized::<4, 1, 1, PAIRS>(layout, panel, units, out),
            Q2K => sized::<2, 0, 2, PAIRS>(layout, panel, units, out),
            Q3K => sized::<2, 1, 2, OFFSET>(layout, panel, units, out),
            Q6K => sized::<4, 2, 2, OFFSET>(layout, panel, units, out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn sized<const LOW: usize, const HIGH: usize, const HALVES: usize, const KIND: usize>(
    layout: Layout,
    panel: &[u8],
    units: &[Unit],
    out: &mut [Lanes],
) {
    // SAFETY: the caller's.
    unsafe {
        match out.len() {
            1 => kernel::<LOW, HIGH, HALVES, KIND, 1>(layout, panel, units, out),
            2 => kernel::<LOW, HIGH, HALVES, KIND, 2>(layout, panel, units, out),
            3 => kernel::<LOW, HIGH, HALVES, KIND, 3>(layout, panel, units, out),
            _ => kernel::<LOW, HIGH, HALVES, KIND, 4>(layout, panel, units, out),
        }
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn kernel<const LOW: usize, const HIGH: usize, const HALVES: usize, const KIND: usize, const R: usize>(
    layout: Layout,
    panel: &[u8],
    units: &[Unit],
    out: &mut [Lanes],
) {
    let mut y = [[0.0; OUTPUTS]; R];
    for (run, units) in panel.chunks(layout.run_bytes()).zip(units.chunks(layout.scales().units() * R)) {
        let (run_scales, codes) = run.split_at(layout.scales().bytes());
        let run_scales = RunScales::new(layout, run_scales);
        for (u, x) in units.as_chunks::<R>().0.iter().enumerate() {
            let w = run_scales.unit(u);
            for c in 0..2 {
                // SAFETY: the run has this unit, which has codes of twice 8 outputs.
                unsafe {
                    let codes = codes.as_ptr().add(u * (LOW + HIGH) * STEP_BYTES + c * STEP_BYTES / 2);
                    add_unit::<LOW, HIGH, HALVES, KIND, R>(codes, &w, x, &mut y, c);
                }
            }
        }
        if KIND == PAIRS {
            // SAFETY: the instruction set is there.
            unsafe { subtract_pairs::<R>(&run_scales, units.as_chunks().0, &mut y) };
        }
    }
    out.copy_from_slice(&y);
}

/// Adds the products of a unit for the first or second 8 outputs. A function of its own, so that nothing is kept for the other ones:
/// there are not enough registers.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_unit<const LOW: usize, const HIGH: usize, const HALVES: usize, const KIND: usize, const R: usize>(
    codes: *const u8,
    w: &UnitScales,
    x: &[Unit; R],
    y: &mut [Lanes; R],
    c: usize,
) {
    let mut sum = [_mm256_setzero_ps(); R];
    for h in 0..HALVES {
        let mut dot = [_mm256_setzero_si256(); R];
        // Adds steps; of codes of 8 bits the nibble at NIBBLE. A macro, because the compiler would leave a function out of line.
        macro_rules! add_steps {
            ($steps:expr, $nibble:literal) => {
                let mut sum = [_mm256_setzero_si256(); R];
                for step in $steps {
                    // SAFETY: the caller's.
                    let w = unsafe { step_codes::<LOW, HIGH, $nibble>(codes, step) };
                    for r in 0..R {
                        let [a, b, c, d] = [0, 1, 2, 3].map(|i| x[r].codes[step * 4 + i] as u8);
                        let x = _mm256_set1_epi32(i32::from_le_bytes([a, b, c, d]));
                        sum[r] = _mm256_add_epi16(sum[r], _mm256_maddubs_epi16(w, x));
                    }
                }
                for r in 0..R {
                    dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(sum[r], _mm256_set1_epi16(1 << $nibble)));
                }
            };
        }
        macro_rules! add_half {
            ($first:literal) => {
                if LOW == 8 {
                    // Two products of a whole byte would not fit into 16 bits.
                    add_steps!($first..$first + 4, 0);
                    add_steps!($first..$first + 4, 4);
                } else if LOW + HIGH == 6 {
                    // Four products of codes below 64 fit, eight do not.
                    add_steps!($first..$first + 2, 0);
                    add_steps!($first + 2..$first + 4, 0);
                } else {
                    add_steps!($first..$first + 4, 0);
                }
            };
        }
        if HALVES == 1 || h == 0 {
            add_half!(0);
        }
        if HALVES == 1 || h == 1 {
            add_half!(4);
        }
        let scale = eight(&w.scales[h], c);
        for r in 0..R {
            if KIND == OFFSET {
                dot[r] = _mm256_add_epi32(dot[r], _mm256_set1_epi32(x[r].sums[h].integer()));
            }
            sum[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), scale, sum[r]);
        }
    }
    for r in 0..R {
        let mut sum = _mm256_fmadd_ps(sum[r], _mm256_set1_ps(x[r].scale), eight(&y[r], c));
        if KIND == MINS {
            sum = _mm256_fnmadd_ps(eight(&w.mins, c), _mm256_set1_ps(x[r].sums[0].float()), sum);
        }
        // SAFETY: 8 floats.
        unsafe { _mm256_storeu_ps(y[r][c * 8..c * 8 + 8].as_mut_ptr(), sum) };
    }
}

/// Subtracts what minima in pairs contribute to the sums of R rows: `x` are the units of a run.
///
/// # Safety
/// AVX2 is there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn subtract_pairs<const R: usize>(run: &RunScales, x: &[[Unit; R]], y: &mut [Lanes; R]) {
    let pairs = min_pairs(run.kind);
    for c in 0..2 {
        let mut dot = [_mm256_setzero_si256(); R];
        for pair in 0..pairs {
            let (at, shift) = min_pair_at(run.kind, pair);
            // SAFETY: the slice has 16 bytes.
            let mins = unsafe { _mm_loadu_si128(run.bytes[at + c * 16..at + c * 16 + 16].as_ptr().cast()) };
            let mins = _mm256_srl_epi16(_mm256_cvtepu8_epi16(mins), _mm_cvtsi32_si128(shift as i32));
            let x = &x[pair * (UNITS / pairs)];
            for r in 0..R {
                let products = _mm256_madd_epi16(mins, _mm256_set1_epi32(x[r].sums[0].integer()));
                dot[r] = _mm256_add_epi32(dot[r], products);
            }
        }
        for r in 0..R {
            let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[r]), eight(&run.min, c));
            let sum = _mm256_fnmadd_ps(dot, _mm256_set1_ps(x[0][r].sums[1].float()), eight(&y[r], c));
            // SAFETY: 8 floats.
            unsafe { _mm256_storeu_ps(y[r][c * 8..c * 8 + 8].as_mut_ptr(), sum) };
        }
    }
}

/// Eight of 16 numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eight(from: &Lanes, c: usize) -> __m256 {
    // SAFETY: 8 floats.
    unsafe { _mm256_loadu_ps(from[c * 8..c * 8 + 8].as_ptr()) }
}

/// Rounds a row: see [`super::activations`].
///
/// # Safety
/// AVX2 is there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn round_row(layout: Layout, row: &[f32], place: (usize, usize), units: &mut [Unit]) {
    round_each(
        layout,
        row,
        (place, units),
        |values| {
            let magnitude = |v| _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(MAGNITUDE as i32));
            let most = eights(values).map(magnitude).into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_max_epu32(a, b));
            let most = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            let most = _mm_max_epu32(most, _mm_shuffle_epi32::<0b01_00_11_10>(most));
            let most = _mm_max_epu32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
            _mm_cvtsi128_si32(most) as u32
        },
        |values, inverse, codes| {
            let q = eights(values).map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, _mm256_set1_ps(inverse))));
            // Packing goes by halves of registers: their quarters come out in the order 0 2 4 6 1 3 5 7.
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            // SAFETY: 32 bytes.
            unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
            let fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
            let pairs = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b01_00_11_10>(fours));
            let sums = _mm256_add_epi32(pairs, _mm256_shuffle_epi32::<0b10_11_00_01>(pairs));
            [_mm256_extract_epi32::<0>(sums), _mm256_extract_epi32::<4>(sums)]
        },
    );
}

/// The values of a unit in registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eights(values: &[f32; INPUTS]) -> [__m256; 4] {
    // SAFETY: 8 floats each.
    [0, 8, 16, 24].map(|i| unsafe { _mm256_loadu_ps(values[i..i + 8].as_ptr()) })
}

/// A step's codes of 8 outputs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step_codes<const LOW: usize, const HIGH: usize, const NIBBLE: usize>(unit: *const u8, step: usize) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        if LOW == 8 {
            let both = _mm256_loadu_si256(unit.add(step * STEP_BYTES).cast());
            return bits::<4>(both, NIBBLE, 0);
        }
        let low = bits::<LOW>(_mm256_loadu_si256(unit.add(step % LOW * STEP_BYTES).cast()), step / LOW * LOW, 0);
        if HIGH == 0 {
            return low;
        }
        let plane = unit.add((LOW + step % HIGH.max(1)) * STEP_BYTES);
        _mm256_or_si256(low, bits::<HIGH>(_mm256_loadu_si256(plane.cast()), step / HIGH.max(1) * HIGH, LOW))
    }
}

/// The field of `BITS` bits at `shift`, put at bit `up`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bits<const BITS: usize>(plane: __m256i, shift: usize, up: usize) -> __m256i {
    let placed = if shift >= up {
        _mm256_srl_epi16(plane, _mm_cvtsi32_si128((shift - up) as i32))
    } else {
        _mm256_sll_epi16(plane, _mm_cvtsi32_si128((up - shift) as i32))
    };
    _mm256_and_si256(placed, _mm256_set1_epi8((((1 << BITS) - 1) << up) as i8))
}
