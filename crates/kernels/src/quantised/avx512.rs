//! The kernel with VNNI: one instruction multiplies a step of 16 outputs and adds it to 16 sums.

#![allow(clippy::needless_range_loop)] // loops over registers, which are to be unrolled

use std::arch::x86_64::*;

use super::activations::{MAGNITUDE, Unit, round_each};
use super::layout::{self, INPUTS, Layout, OUTPUTS, STEP_BYTES, UNITS, bytes_at, factors_at, min_pair_at, min_pairs};
use crate::blocks::BlockFormat;

/// Rows of a tile. They take 8 registers for integer sums and 8 for f32 sums; the codes of a step and what unpacks them take the
/// others. Eight products hide each other's latency of four cycles and share the unpacking of their codes: some three
/// instructions, which go to other ports than products on Zen 4 but not on Intel.
pub(super) const ROWS: usize = 8;

/// How far ahead codes are asked for, in bytes: what memory delivers while the units in between are multiplied with several rows.
const AHEAD: usize = 4096;

/// `panel`: weights; `units`: `[units, rows]`; `out`: `[rows, 16]`.
///
/// # Safety
/// AVX-512 with VNNI is there, and the lengths are those of a whole panel and whole rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn tile(layout: Layout, panel: &[u8], units: &[Unit], out: &mut [[f32; OUTPUTS]]) {
    use BlockFormat::*;
    // SAFETY: the caller's.
    unsafe {
        match layout.format {
            Q4_0 => sized::<4, 0, Half>(panel, units, out),
            Q4_1 => sized::<4, 0, HalfMin>(panel, units, out),
            Q5_0 => sized::<4, 1, Half>(panel, units, out),
            Q5_1 => sized::<4, 1, HalfMin>(panel, units, out),
            Q8_0 => sized::<8, 0, Half>(panel, units, out),
            Q2K => sized::<2, 0, NibbleMin>(panel, units, out),
            Q3K => sized::<2, 1, Signed>(panel, units, out),
            Q4K => sized::<4, 0, ByteMin>(panel, units, out),
            Q5K => sized::<4, 1, ByteMin>(panel, units, out),
            Q6K => sized::<4, 2, Signed>(panel, units, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn sized<const LOW: usize, const HIGH: usize, S: Scales>(panel: &[u8], units: &[Unit], out: &mut [[f32; OUTPUTS]]) {
    // SAFETY: the caller's.
    unsafe {
        match out.len() {
            1 => kernel::<LOW, HIGH, S, 1>(panel, units, out),
            2 => kernel::<LOW, HIGH, S, 2>(panel, units, out),
            3 => kernel::<LOW, HIGH, S, 3>(panel, units, out),
            4 => kernel::<LOW, HIGH, S, 4>(panel, units, out),
            5 => kernel::<LOW, HIGH, S, 5>(panel, units, out),
            6 => kernel::<LOW, HIGH, S, 6>(panel, units, out),
            7 => kernel::<LOW, HIGH, S, 7>(panel, units, out),
            _ => kernel::<LOW, HIGH, S, 8>(panel, units, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn kernel<const LOW: usize, const HIGH: usize, S: Scales, const R: usize>(
    panel: &[u8],
    units: &[Unit],
    out: &mut [[f32; OUTPUTS]],
) {
    let mut y = [_mm512_setzero_ps(); R];
    let mut at = panel.as_ptr();
    for units in units.chunks(S::KIND.units() * R) {
        // `at` points at a run, whose scales come first.
        let run = at;
        // SAFETY: the codes follow.
        at = unsafe { at.add(S::KIND.bytes()) };
        // What a run adds, in units of its own, where its activations have such.
        let mut sums = [_mm512_setzero_ps(); R];
        for (u, x) in units.as_chunks::<R>().0.iter().enumerate() {
            // Fewer rows ask for so much so fast that the processor fetches ahead without being told.
            if R > 4 {
                for line in 0..LOW + HIGH {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + line * STEP_BYTES).cast());
                }
            }
            // SAFETY: the run has this unit.
            unsafe {
                let sums = if S::ONE_FACTOR { &mut sums } else { &mut y };
                add_unit::<LOW, HIGH, S, R>(at, S::unit(run, u), x, sums);
                at = at.add((LOW + HIGH) * STEP_BYTES);
            }
        }
        if S::ONE_FACTOR {
            // SAFETY: such runs begin with their factor.
            let factor = unsafe { halves(run.add(factors_at(S::KIND, 0).0)) };
            for (r, x) in units[..R].iter().enumerate() {
                // That of the run: the shift off the exponent.
                let scale = _mm512_castsi512_ps(_mm512_set1_epi32((x.scale.to_bits() - (x.shift << 23)) as i32));
                y[r] = _mm512_fmadd_ps(sums[r], _mm512_mul_ps(factor, scale), y[r]);
            }
        }
        if let (Some(min), 1..) = (factors_at(S::KIND, 0).1, min_pairs(S::KIND)) {
            // SAFETY: runs of formats with such minima are whole.
            unsafe { subtract_pairs::<S, R>(run, halves(run.add(min)), units, &mut y) };
        }
    }
    for (out, y) in out.iter_mut().zip(y) {
        // SAFETY: 16 floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), y) };
    }
}

/// Adds the products of a unit to the sums of R rows.
///
/// # Safety
/// AVX-512 is there, and `codes` point at those of a unit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn add_unit<const LOW: usize, const HIGH: usize, S: Scales, const R: usize>(
    codes: *const u8,
    w: UnitScales,
    x: &[Unit; R],
    y: &mut [__m512; R],
) {
    let begin = |half: usize| x.each_ref().map(|x| _mm512_set1_epi32(if S::OFFSET { x.sums[half].integer() } else { 0 }));
    let mut dot = begin(0);
    // SAFETY: the caller's.
    unsafe {
        add_step::<LOW, HIGH, 0, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 1, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 2, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 3, R>(codes, x, &mut dot);
    }
    if S::HALVES == 2 {
        add_scaled::<S, R>(dot, w.scales[0], x, y);
        dot = begin(1);
    }
    // SAFETY: the caller's.
    unsafe {
        add_step::<LOW, HIGH, 4, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 5, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 6, R>(codes, x, &mut dot);
        add_step::<LOW, HIGH, 7, R>(codes, x, &mut dot);
    }
    add_scaled::<S, R>(dot, w.scales[S::HALVES - 1], x, y);
    if matches!(S::KIND, layout::Scales::HalfMin) {
        for r in 0..R {
            y[r] = _mm512_fnmadd_ps(w.mins, _mm512_set1_ps(x[r].sums[0].float()), y[r]);
        }
    }
}

/// Adds integer sums to the sums of R rows. Products are what there are too few ports for, on Zen 4 at least: shifts and conversions go
/// to others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add_scaled<S: Scales, const R: usize>(dot: [__m512i; R], scale: __m512, x: &[Unit; R], y: &mut [__m512; R]) {
    for r in 0..R {
        y[r] = if S::ONE_FACTOR {
            let dot = _mm512_sllv_epi32(dot[r], _mm512_set1_epi32(x[r].shift as i32));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, y[r])
        } else {
            let sum = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r]), scale);
            _mm512_fmadd_ps(sum, _mm512_set1_ps(x[r].scale), y[r])
        };
    }
}

/// Subtracts what minima in pairs contribute to the sums of R rows: a run of integer products.
///
/// # Safety
/// AVX-512 with VNNI is there, `run` points at a run, and `units` are its 8 of R rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn subtract_pairs<S: Scales, const R: usize>(run: *const u8, factor: __m512, units: &[Unit], y: &mut [__m512; R]) {
    let mut dot = [_mm512_setzero_si512(); R];
    let (x, _) = units.as_chunks::<R>();
    for pair in 0..min_pairs(S::KIND) {
        let (at, shift) = min_pair_at(S::KIND, pair);
        // SAFETY: the caller's.
        let mins = _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(run.add(at).cast()) });
        let mins = if shift == 0 { mins } else { _mm512_srli_epi16::<4>(mins) };
        let x = &x[pair * (UNITS / min_pairs(S::KIND))];
        for r in 0..R {
            dot[r] = _mm512_dpwssd_epi32(dot[r], mins, _mm512_set1_epi32(x[r].sums[0].integer()));
        }
    }
    for r in 0..R {
        let dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[r]), factor);
        y[r] = _mm512_fnmadd_ps(dot, _mm512_set1_ps(x[0][r].sums[1].float()), y[r]);
    }
}

/// Adds the products of a step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn add_step<const LOW: usize, const HIGH: usize, const STEP: usize, const R: usize>(
    codes: *const u8,
    x: &[Unit; R],
    dot: &mut [__m512i; R],
) {
    // SAFETY: planes are within the unit.
    let mut w = unsafe { field::<LOW, STEP>(codes, 0) };
    if HIGH > 0 {
        // SAFETY: as above.
        w = _mm512_or_si512(w, unsafe { field::<HIGH, STEP>(codes.add(LOW * STEP_BYTES), LOW) });
    }
    for r in 0..R {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| x[r].codes[STEP * 4 + i] as u8);
        dot[r] = _mm512_dpbusd_epi32(dot[r], w, _mm512_set1_epi32(i32::from_le_bytes([a, b, c, d])));
    }
}

/// Rounds a row: see [`super::activations`].
///
/// # Safety
/// AVX-512 with VNNI is there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn round_row(layout: Layout, row: &[f32], place: (usize, usize), units: &mut [Unit]) {
    // SAFETY: twice 16 floats.
    let load = |values: &[f32; INPUTS]| unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values[16..].as_ptr())] };
    round_each(
        layout,
        row,
        (place, units),
        |values| {
            let magnitude = |v: __m512| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(MAGNITUDE as i32));
            let [a, b] = load(values).map(magnitude);
            _mm512_reduce_max_epu32(_mm512_max_epu32(a, b))
        },
        |values, inverse, codes| {
            let round = |v: __m512| _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse))));
            let [a, b] = load(values).map(round);
            let bytes = _mm256_set_m128i(b, a);
            // SAFETY: 32 bytes.
            unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
            let fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), bytes);
            let pairs = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b01_00_11_10>(fours));
            let sums = _mm256_add_epi32(pairs, _mm256_shuffle_epi32::<0b10_11_00_01>(pairs));
            [_mm256_extract_epi32::<0>(sums), _mm256_extract_epi32::<4>(sums)]
        },
    );
}

/// The field of `BITS` bits of a step's codes, at bit `up`: see [`super::layout`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn field<const BITS: usize, const STEP: usize>(planes: *const u8, up: usize) -> __m512i {
    if BITS == 0 {
        return _mm512_setzero_si512();
    }
    // SAFETY: the caller's.
    let plane = unsafe { _mm512_loadu_si512(planes.add(STEP % BITS * STEP_BYTES).cast()) };
    if BITS == 8 {
        return plane;
    }
    let shift = STEP / BITS * BITS;
    let placed = if shift >= up {
        _mm512_srl_epi16(plane, _mm_cvtsi32_si128((shift - up) as i32))
    } else {
        _mm512_sll_epi16(plane, _mm_cvtsi32_si128((up - shift) as i32))
    };
    _mm512_and_si512(placed, _mm512_set1_epi8((((1 << BITS) - 1) << up) as i8))
}

/// The scales of a unit, the second ones where 16 inputs share one, less the factor of the run where it has one; and its minima,
/// where every unit has its own.
#[derive(Clone, Copy)]
struct UnitScales {
    scales: [__m512; 2],
    mins: __m512,
}

impl UnitScales {
    /// Integers in every lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn integers(scales: [__m512i; 2]) -> Self {
        Self { scales: scales.map(|scale| _mm512_cvtepi32_ps(scale)), mins: _mm512_setzero_ps() }
    }
}

/// The scales of a run.
trait Scales {
    /// How they lie.
    const KIND: layout::Scales;
    /// Scales per unit.
    const HALVES: usize;
    /// Whether weights have an offset, which is in what the integer sums begin with.
    const OFFSET: bool;
    /// Whether a run has one factor for all its weights, and its activations have one too.
    const ONE_FACTOR: bool = Self::KIND.units() == UNITS;

    /// The scales of a unit.
    ///
    /// # Safety
    /// AVX-512 is there, `run` points at the scales of a run, and `unit` is one of its units.
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales;
}

struct Half;
struct HalfMin;
struct Signed;
struct ByteMin;
struct NibbleMin;

impl Scales for Half {
    const KIND: layout::Scales = layout::Scales::Half;
    const HALVES: usize = 1;
    const OFFSET: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales {
        // SAFETY: the caller's.
        let scale = unsafe { halves(run.add(factors_at(Self::KIND, unit).0)) };
        UnitScales { scales: [scale; 2], mins: scale }
    }
}

impl Scales for HalfMin {
    const KIND: layout::Scales = layout::Scales::HalfMin;
    const HALVES: usize = 1;
    const OFFSET: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales {
        let (scale, min) = factors_at(Self::KIND, unit);
        // SAFETY: the caller's.
        let [scale, mins] = unsafe { [halves(run.add(scale)), halves(run.add(min.unwrap_or(scale)))] };
        UnitScales { scales: [scale; 2], mins }
    }
}

impl Scales for Signed {
    const KIND: layout::Scales = layout::Scales::Signed;
    const HALVES: usize = 2;
    const OFFSET: bool = true;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales {
        // SAFETY: the caller's.
        let small = |half: usize| unsafe { _mm_loadu_si128(run.add(bytes_at(Self::KIND, unit) + half * OUTPUTS).cast()) };
        UnitScales::integers([_mm512_cvtepi8_epi32(small(0)), _mm512_cvtepi8_epi32(small(1))])
    }
}

impl Scales for ByteMin {
    const KIND: layout::Scales = layout::Scales::ByteMin;
    const HALVES: usize = 1;
    const OFFSET: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales {
        // SAFETY: the caller's.
        let scale = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(run.add(bytes_at(Self::KIND, unit)).cast()) });
        UnitScales::integers([scale; 2])
    }
}

impl Scales for NibbleMin {
    const KIND: layout::Scales = layout::Scales::NibbleMin;
    const HALVES: usize = 2;
    const OFFSET: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn unit(run: *const u8, unit: usize) -> UnitScales {
        // SAFETY: the caller's.
        let pairs = unsafe { _mm256_loadu_si256(run.add(bytes_at(Self::KIND, unit)).cast()) };
        let pairs = _mm512_cvtepu8_epi16(_mm256_and_si256(pairs, _mm256_set1_epi8(15)));
        UnitScales::integers([_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32::<16>(pairs)])
    }
}

/// Half-precision numbers of 16 outputs.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}
