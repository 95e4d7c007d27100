//! The kernel with NEON, for 8 outputs at a time, over three ways to multiply bytes ([`Bytes`]). All are signed: codes are below 128,
//! and those of 8 bits have 128 subtracted, which is their offset.

#![allow(clippy::needless_range_loop)] // loops over registers, which are to be unrolled

use std::arch::aarch64::*;
use std::arch::asm;

use super::activations::{MAGNITUDE, Unit, round_each};
use super::layout::{INPUTS, Layout, OUTPUTS, STEP_BYTES, Scales, UNITS, code_bits, min_pair_at, min_pairs};
use super::scales::{Lanes, RunScales, UnitScales};
use crate::blocks::BlockFormat;
use crate::convert::four_from_f16;
use crate::isa::Level;

/// Rows of a tile at a level.
pub(super) fn rows(level: Level) -> usize {
    if level == Level::Neon { Widened::ROWS } else { Dots::ROWS }
}

/// `panel`: weights; `units`: `[units, rows]`; `out`: `[rows, 16]`.
///
/// # Safety
/// The level is there, and the lengths are those of a whole panel and whole rows.
pub(super) unsafe fn tile(level: Level, layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    // SAFETY: the caller's.
    unsafe {
        match level {
            Level::I8mm if out.len() > 1 => formats::<Squares>(layout, panel, units, out),
            Level::I8mm | Level::Dotprod => formats::<Dots>(layout, panel, units, out),
            _ => formats::<Widened>(layout, panel, units, out),
        }
    }
}

/// Picks the kernel of a format.
unsafe fn formats<B: Bytes>(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    macro_rules! pick {
        ($($format:ident)*) => {
            match layout.format {
                // SAFETY: the caller's.
                $(BlockFormat::$format => unsafe { sized::<B, { BlockFormat::$format as usize }>(layout, panel, units, out) },)*
            }
        };
    }
    pick!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K)
}

unsafe fn sized<B: Bytes, const F: usize>(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    // SAFETY: the caller's.
    unsafe {
        match out.len() {
            1 => B::kernel::<F, 1>(layout, panel, units, out),
            2 => B::kernel::<F, 2>(layout, panel, units, out),
            3 => B::kernel::<F, 3>(layout, panel, units, out),
            rows if rows <= 4 || B::ROWS == 4 => B::kernel::<F, 4>(layout, panel, units, out),
            5 => B::kernel::<F, 5>(layout, panel, units, out),
            6 => B::kernel::<F, 6>(layout, panel, units, out),
            7 => B::kernel::<F, 7>(layout, panel, units, out),
            _ => B::kernel::<F, 8>(layout, panel, units, out),
        }
    }
}

/// The kernel for format `F` of [`BlockFormat::ALL`] and R rows. Sums of floats are in memory, which is touched once per unit.
///
/// # Safety
/// The instructions of B are there, and the lengths are those of a whole panel and whole rows.
#[inline(always)]
unsafe fn kernel<B: Bytes, const F: usize, const R: usize>(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
    // The same, but known to the compiler.
    let layout = Layout { format: const { BlockFormat::ALL[F] }, ..layout };
    let mut y = [[0.0; OUTPUTS]; R];
    for (run, units) in panel.chunks(layout.run_bytes()).zip(units.chunks(layout.scales().units() * R)) {
        let (run_scales, codes) = run.split_at(layout.scales().bytes());
        let run_scales = RunScales::new(layout, run_scales);
        for (u, x) in units.as_chunks::<R>().0.iter().enumerate() {
            let w = run_scales.unit(u);
            for c in 0..2 {
                // SAFETY: the run has this unit, which has codes of twice 8 outputs.
                unsafe {
                    let codes = codes.as_ptr().add(u * layout.unit_bytes() + c * STEP_BYTES / 2);
                    add_unit::<B, R>(layout, codes, (&w, c), x, &mut y);
                }
            }
        }
        if min_pairs(layout.scales()) > 0 {
            // SAFETY: NEON is there.
            unsafe { subtract_pairs::<R>(&run_scales, units.as_chunks().0, &mut y) };
        }
    }
    out.copy_from_slice(&y);
}

/// Adds the products of a unit for the first or second 8 outputs.
///
/// # Safety
/// As above; `codes` point at the unit's first of these outputs.
#[inline(always)]
unsafe fn add_unit<B: Bytes, const R: usize>(
    layout: Layout,
    codes: *const u8,
    (w, c): (&UnitScales, usize),
    x: &[Unit; R],
    y: &mut [Lanes; R],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut dot = [Sums::ZERO; R];
        let mut sum = [[vdupq_n_f32(0.0); 2]; R];
        add_half::<B, R, 0>(layout, codes, x, &mut dot);
        if layout.halves() == 2 {
            scale::<B, R>(layout, &dot, (0, eight(&w.scales[0], c)), x, &mut sum);
            dot = [Sums::ZERO; R];
        }
        add_half::<B, R, 1>(layout, codes, x, &mut dot);
        let last = layout.halves() - 1;
        scale::<B, R>(layout, &dot, (last, eight(&w.scales[last], c)), x, &mut sum);
        for r in 0..R {
            let before = eight(&y[r], c);
            for v in 0..2 {
                let mut after = vfmaq_f32(before[v], sum[r][v], vdupq_n_f32(x[r].scale));
                if layout.scales() == Scales::HalfMin {
                    after = vfmsq_f32(after, eight(&w.mins, c)[v], vdupq_n_f32(x[r].sums[0].float()));
                }
                put(&mut y[r], 2 * c + v, after);
            }
        }
    }
}

/// Adds the integer products of 16 inputs.
///
/// # Safety
/// As for [`add_unit`].
#[inline(always)]
unsafe fn add_half<B: Bytes, const R: usize, const HALF: usize>(
    layout: Layout,
    codes: *const u8,
    x: &[Unit; R],
    dot: &mut [Sums; R],
) {
    // SAFETY: the caller's; x has 32 codes.
    unsafe {
        let mut x16 = [vdupq_n_s8(0); R];
        for r in 0..R {
            x16[r] = vld1q_s8(x[r].codes[HALF * INPUTS / 2..].as_ptr());
        }
        let steps = |step: usize| [step_codes(layout, codes, HALF * 4 + step), step_codes(layout, codes, HALF * 4 + step + 1)];
        B::add::<R, 0>(steps(0), &x16, dot);
        B::add::<R, 1>(steps(2), &x16, dot);
    }
}

/// Adds integer sums, times the weights' scales; the first half's are written.
///
/// # Safety
/// The instructions of B are there.
#[inline(always)]
unsafe fn scale<B: Bytes, const R: usize>(
    layout: Layout,
    dot: &[Sums; R],
    (half, scales): (usize, [float32x4_t; 2]),
    x: &[Unit; R],
    sum: &mut [[float32x4_t; 2]; R],
) {
    let in_codes = code_bits(layout.format)[0] == 8;
    let begins = layout.format.offset() > 0 && !in_codes;
    for r in 0..R {
        // SAFETY: the caller's.
        unsafe {
            let begin = vdupq_n_s32(if begins { x[r].sums[half].integer() } else { 0 });
            let dot = B::outputs::<R>(dot, r);
            for v in 0..2 {
                let dot = vcvtq_f32_s32(vaddq_s32(dot[v], begin));
                sum[r][v] = if half == 0 { vmulq_f32(dot, scales[v]) } else { vfmaq_f32(sum[r][v], dot, scales[v]) };
            }
        }
    }
}

/// Subtracts what minima in pairs contribute to the sums of R rows, 4 outputs at a time: `x` are the units of a run.
#[inline]
#[target_feature(enable = "neon")]
fn subtract_pairs<const R: usize>(run: &RunScales, x: &[[Unit; R]], y: &mut [Lanes; R]) {
    let pairs = min_pairs(run.kind);
    for v in 0..OUTPUTS / 4 {
        let mut dot = [[vdupq_n_s32(0); 2]; R];
        for pair in 0..pairs {
            let (at, shift) = min_pair_at(run.kind, pair);
            let bytes = &run.bytes[at + v * 8..at + v * 8 + 8];
            // SAFETY: the slice has 8 bytes.
            let bytes = unsafe { vld1_u8(bytes.as_ptr()) };
            let mins = vreinterpretq_s16_u16(vmovl_u8(if shift == 4 { vshr_n_u8::<4>(bytes) } else { bytes }));
            for r in 0..R {
                let x = vreinterpretq_s16_s32(vdupq_n_s32(x[pair * (UNITS / pairs)][r].sums[0].integer()));
                dot[r][0] = vmlal_s16(dot[r][0], vget_low_s16(mins), vget_low_s16(x));
                dot[r][1] = vmlal_high_s16(dot[r][1], mins, x);
            }
        }
        for r in 0..R {
            let dot = vmulq_f32(vcvtq_f32_s32(vpaddq_s32(dot[r][0], dot[r][1])), four(&run.min, v));
            let after = vfmsq_f32(four(&y[r], v), dot, vdupq_n_f32(x[0][r].sums[1].float()));
            put(&mut y[r], v, after);
        }
    }
}

/// Four of 16 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn four(from: &Lanes, v: usize) -> float32x4_t {
    // SAFETY: 4 floats.
    unsafe { vld1q_f32(from[v * 4..v * 4 + 4].as_ptr()) }
}

/// Eight of 16 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn eight(from: &Lanes, c: usize) -> [float32x4_t; 2] {
    [four(from, 2 * c), four(from, 2 * c + 1)]
}

/// Puts four of 16 numbers back.
#[inline]
#[target_feature(enable = "neon")]
fn put(into: &mut Lanes, v: usize, numbers: float32x4_t) {
    // SAFETY: 4 floats.
    unsafe { vst1q_f32(into[v * 4..v * 4 + 4].as_mut_ptr(), numbers) }
}

/// A step's codes of 8 outputs, signed.
///
/// # Safety
/// `unit` points at those of a unit.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn step_codes(layout: Layout, unit: *const u8, step: usize) -> [int8x16_t; 2] {
    let [low, high] = code_bits(layout.format);
    let mut codes = [vdupq_n_s8(0); 2];
    for v in 0..2 {
        // SAFETY: planes are within the unit.
        unsafe {
            let mut w = bits(vld1q_u8(unit.add(step % low * STEP_BYTES + v * 16)), (low, step / low * low), 0);
            if high > 0 {
                let plane = unit.add((low + step % high) * STEP_BYTES + v * 16);
                w = vorrq_u8(w, bits(vld1q_u8(plane), (high, step / high * high), low));
            }
            codes[v] = vreinterpretq_s8_u8(if low == 8 { veorq_u8(w, vdupq_n_u8(0x80)) } else { w });
        }
    }
    codes
}

/// The field of `bits` bits at `shift`, put at bit `up`.
#[inline]
#[target_feature(enable = "neon")]
fn bits(plane: uint8x16_t, (bits, shift): (usize, usize), up: usize) -> uint8x16_t {
    let placed = vshlq_u8(plane, vdupq_n_s8(up as i8 - shift as i8));
    if up == 0 && shift + bits == 8 {
        return placed; // nothing else is left
    }
    vandq_u8(placed, vdupq_n_u8((((1_u16 << bits) - 1) << up) as u8))
}

/// Integer sums of a row for 8 outputs, as [`Bytes`] keeps them while it adds.
#[derive(Clone, Copy)]
struct Sums([int32x4_t; 4]);

impl Sums {
    // SAFETY: all bits are good.
    const ZERO: Self = Self(unsafe { std::mem::transmute::<[i32; 16], [int32x4_t; 4]>([0; 16]) });
}

/// How bytes are multiplied.
///
/// # Safety
/// All may be called only where the instructions are.
trait Bytes {
    /// Rows of a tile: they take half of 32 registers for integer sums, and those that are not [`Widened`] another 8 for activations.
    const ROWS: usize;

    /// Calls [`kernel`], compiled for the instructions.
    unsafe fn kernel<const F: usize, const R: usize>(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]);

    /// Adds products of two steps with the first or (`SECOND` 1) last 8 of each row's 16 codes.
    unsafe fn add<const R: usize, const SECOND: i32>(w: [[int8x16_t; 2]; 2], x: &[int8x16_t; R], sums: &mut [Sums; R]);

    /// The sums of row `r`.
    unsafe fn outputs<const R: usize>(sums: &[Sums; R], r: usize) -> [int32x4_t; 2];
}

macro_rules! kernel_with {
    ($features:literal) => {
        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn kernel<const F: usize, const R: usize>(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [Lanes]) {
            // SAFETY: the caller's.
            unsafe { kernel::<Self, F, R>(layout, panel, units, out) }
        }
    };
}

/// Products of 16 bits, of which two fit into 16 bits. A register of sums has two for each of two outputs.
struct Widened;

impl Bytes for Widened {
    const ROWS: usize = 4;

    kernel_with!("neon");

    #[inline(always)]
    unsafe fn add<const R: usize, const SECOND: i32>(w: [[int8x16_t; 2]; 2], x: &[int8x16_t; R], sums: &mut [Sums; R]) {
        // SAFETY: the caller's.
        unsafe {
            for r in 0..R {
                let x = vreinterpretq_s32_s8(x[r]);
                let [first, second] = match SECOND {
                    0 => [vdupq_laneq_s32::<0>(x), vdupq_laneq_s32::<1>(x)],
                    _ => [vdupq_laneq_s32::<2>(x), vdupq_laneq_s32::<3>(x)],
                };
                let (first, second) = (vreinterpretq_s8_s32(first), vreinterpretq_s8_s32(second));
                for v in 0..2 {
                    let low = vmull_s8(vget_low_s8(w[0][v]), vget_low_s8(first));
                    let low = vmlal_s8(low, vget_low_s8(w[1][v]), vget_low_s8(second));
                    let high = vmlal_high_s8(vmull_high_s8(w[0][v], first), w[1][v], second);
                    sums[r].0[2 * v] = vpadalq_s16(sums[r].0[2 * v], low);
                    sums[r].0[2 * v + 1] = vpadalq_s16(sums[r].0[2 * v + 1], high);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn outputs<const R: usize>(sums: &[Sums; R], r: usize) -> [int32x4_t; 2] {
        let Sums([a, b, c, d]) = sums[r];
        [vpaddq_s32(a, b), vpaddq_s32(c, d)]
    }
}

/// Four products at a time, by one of four neighbouring codes of a row. The last two registers of sums are not used.
struct Dots;

impl Bytes for Dots {
    const ROWS: usize = 8;

    kernel_with!("neon,dotprod");

    #[inline(always)]
    unsafe fn add<const R: usize, const SECOND: i32>(w: [[int8x16_t; 2]; 2], x: &[int8x16_t; R], sums: &mut [Sums; R]) {
        for r in 0..R {
            for v in 0..2 {
                let sum = &mut sums[r].0[v];
                // SAFETY: the caller's.
                *sum = unsafe {
                    match SECOND {
                        0 => sdot::<1>(sdot::<0>(*sum, w[0][v], x[r]), w[1][v], x[r]),
                        _ => sdot::<3>(sdot::<2>(*sum, w[0][v], x[r]), w[1][v], x[r]),
                    }
                };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn outputs<const R: usize>(sums: &[Sums; R], r: usize) -> [int32x4_t; 2] {
        [sums[r].0[0], sums[r].0[1]]
    }
}

/// Two outputs by two rows at a time, over 8 inputs. Both rows' sums are with the first of them; the last of an odd number is taken
/// twice.
struct Squares;

impl Bytes for Squares {
    const ROWS: usize = Dots::ROWS;

    kernel_with!("neon,dotprod,i8mm");

    #[inline(always)]
    unsafe fn add<const R: usize, const SECOND: i32>(w: [[int8x16_t; 2]; 2], x: &[int8x16_t; R], sums: &mut [Sums; R]) {
        // SAFETY: the caller's.
        unsafe {
            let mut squares = [w[0][0]; 4];
            for v in 0..2 {
                let (first, second) = (vreinterpretq_s32_s8(w[0][v]), vreinterpretq_s32_s8(w[1][v]));
                squares[2 * v] = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                squares[2 * v + 1] = vreinterpretq_s8_s32(vzip2q_s32(first, second));
            }
            for r in (0..R).step_by(2) {
                let (first, second) = (vreinterpretq_s64_s8(x[r]), vreinterpretq_s64_s8(x[(r + 1).min(R - 1)]));
                let x = if SECOND == 0 { vzip1q_s64(first, second) } else { vzip2q_s64(first, second) };
                for i in 0..4 {
                    sums[r].0[i] = smmla(sums[r].0[i], squares[i], vreinterpretq_s8_s64(x));
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn outputs<const R: usize>(sums: &[Sums; R], r: usize) -> [int32x4_t; 2] {
        let Sums([a, b, c, d]) = sums[r & !1];
        if r & 1 == 0 { [vuzp1q_s32(a, b), vuzp1q_s32(c, d)] } else { [vuzp2q_s32(a, b), vuzp2q_s32(c, d)] }
    }
}

/// Adds to each sum the products of four bytes with four neighbouring ones of `x`. The library's function is not stable.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const LANE: i32>(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: it touches nothing but these registers.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {w:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x, lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds to four sums the products of two times 8 bytes with two times 8 bytes. The library's function is not stable.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: it touches nothing but these registers.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {w:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Rounds a row: see [`super::activations`].
///
/// # Safety
/// NEON is there.
#[target_feature(enable = "neon")]
pub(super) unsafe fn round_row(layout: Layout, row: &[f32], place: (usize, usize), units: &mut [Unit]) {
    // SAFETY: 4 floats each.
    let fours =
        |values: &[f32; INPUTS]| -> [float32x4_t; 8] { std::array::from_fn(|i| unsafe { vld1q_f32(values[i * 4..].as_ptr()) }) };
    round_each(
        layout,
        row,
        (place, units),
        |values| {
            let magnitude = |v| vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(MAGNITUDE));
            vmaxvq_u32(fours(values).map(magnitude).into_iter().fold(vdupq_n_u32(0), |a, b| vmaxq_u32(a, b)))
        },
        |values, inverse, codes| {
            let q = fours(values).map(|v| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v, inverse))));
            let mut sums = [0; 2];
            for h in 0..2 {
                let eight = |i: usize| vqmovn_s16(vcombine_s16(q[4 * h + 2 * i], q[4 * h + 2 * i + 1]));
                let bytes = vcombine_s8(eight(0), eight(1));
                // SAFETY: 16 bytes.
                unsafe { vst1q_s8(codes[16 * h..16 * h + 16].as_mut_ptr(), bytes) };
                sums[h] = i32::from(vaddlvq_s8(bytes));
            }
            sums
        },
    );
}

/// Sixteen half-precision numbers.
///
/// # Safety
/// NEON is there.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn halves(bytes: &[u8; 2 * OUTPUTS]) -> Lanes {
    let mut out = [0.0; OUTPUTS];
    for v in 0..OUTPUTS / 4 {
        // SAFETY: 8 bytes.
        let halves = vreinterpret_u16_u8(unsafe { vld1_u8(bytes[v * 8..v * 8 + 8].as_ptr()) });
        put(&mut out, v, four_from_f16(halves));
    }
    out
}
