//! Sixteen numbers in two registers of AVX2, or one of AVX-512.

use std::arch::x86_64::*;

use super::lanes::{Lanes, Work};
use super::operand::Operand;
use crate::kv::KvFormat;

/// Eight and eight.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

/// One register; with products of bf16 pairs if `DOTS`.
#[derive(Clone, Copy)]
pub struct Avx512<const DOTS: bool>(__m512);

/// A method that does the same with both halves.
macro_rules! halves {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            // SAFETY: inside `run`.
            unsafe { Self($intrinsic(self.0, other.0), $intrinsic(self.1, other.1)) }
        }
    )*};
}

/// A method that is one instruction.
macro_rules! whole {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            // SAFETY: inside `run`.
            unsafe { Self($intrinsic(self.0, other.0)) }
        }
    )*};
}

// SAFETY: `run` enables all that the methods use.
unsafe impl Lanes for Avx2 {
    const WIDE: bool = false; // one vector: 12 of 16 registers

    #[inline(always)]
    unsafe fn run<W: Work<Self>>(work: W) {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn enabled<W: Work<Avx2>>(work: W) {
            // SAFETY: called by `run`.
            unsafe { work.run() }
        }
        // SAFETY: the caller's promise.
        unsafe { enabled(work) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: inside `run`.
        unsafe { Self(_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: prefetching cannot fail.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as promised.
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u32, half: usize) -> Self {
        // SAFETY: as promised.
        unsafe {
            let widen = |pairs: __m256i| {
                let high = _mm256_set1_epi32(-0x1_0000);
                _mm256_castsi256_ps(if half == 0 { _mm256_slli_epi32::<16>(pairs) } else { _mm256_and_si256(pairs, high) })
            };
            Self(widen(_mm256_loadu_si256(from.cast())), widen(_mm256_loadu_si256(from.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: as promised.
        unsafe {
            let widen = |bytes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            Self(widen(_mm_loadl_epi64(from.cast())), widen(_mm_loadl_epi64(from.add(8).cast())))
        }
    }
    halves! {
        add = _mm256_add_ps;
        sub = _mm256_sub_ps;
        mul = _mm256_mul_ps;
        div = _mm256_div_ps;
        max = _mm256_max_ps;
        min = _mm256_min_ps;
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: inside `run`.
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, sum.0), _mm256_fmadd_ps(self.1, factor.1, sum.1)) }
    }
    #[inline(always)]
    fn as_exponent(self) -> Self {
        // SAFETY: inside `run`.
        unsafe {
            let shift = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(x)));
            Self(shift(self.0), shift(self.1))
        }
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize) -> Self {
        // SAFETY: inside `run`.
        unsafe {
            let (from, to) = (_mm256_set1_epi32(from as i32), _mm256_set1_epi32(to as i32));
            let keep = |x, lanes| {
                let kept = _mm256_andnot_si256(_mm256_cmpgt_epi32(from, lanes), _mm256_cmpgt_epi32(to, lanes));
                _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), x, _mm256_castsi256_ps(kept))
            };
            let first = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            Self(keep(self.0, first), keep(self.1, _mm256_add_epi32(first, _mm256_set1_epi32(8))))
        }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: inside `run`.
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

// SAFETY: `run` enables all that the methods use.
unsafe impl<const DOTS: bool> Lanes for Avx512<DOTS> {
    const WIDE: bool = true; // four vectors: 24 of 32 registers

    #[inline(always)]
    unsafe fn run<W: Work<Self>>(work: W) {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn enabled<L: Lanes, W: Work<L>>(work: W) {
            // SAFETY: called by `run`.
            unsafe { work.run() }
        }
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        unsafe fn enabled_with_dots<L: Lanes, W: Work<L>>(work: W) {
            // SAFETY: called by `run`.
            unsafe { work.run() }
        }
        // SAFETY: the caller's promise.
        unsafe { if DOTS { enabled_with_dots(work) } else { enabled(work) } }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: inside `run`.
        unsafe { Self(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: prefetching cannot fail.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as promised.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u32, half: usize) -> Self {
        // SAFETY: as promised.
        unsafe {
            let pairs = _mm512_loadu_si512(from.cast());
            let high = _mm512_set1_epi32(-0x1_0000);
            Self(_mm512_castsi512_ps(if half == 0 { _mm512_slli_epi32::<16>(pairs) } else { _mm512_and_si512(pairs, high) }))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: as promised.
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }
    whole! {
        add = _mm512_add_ps;
        sub = _mm512_sub_ps;
        mul = _mm512_mul_ps;
        div = _mm512_div_ps;
        max = _mm512_max_ps;
        min = _mm512_min_ps;
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: inside `run`.
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, sum.0)) }
    }
    #[inline(always)]
    fn as_exponent(self) -> Self {
        // SAFETY: inside `run`.
        unsafe { Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))) }
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize) -> Self {
        let kept = (1_u32 << to).wrapping_sub(1_u32 << from) as u16;
        // SAFETY: inside `run`.
        unsafe { Self(_mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), kept, self.0)) }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: inside `run`.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

/// bf16 multiplied as pairs, both sides rounded.
pub struct Dots;

impl Operand<Avx512<true>> for Dots {
    const FORMAT: KvFormat = KvFormat::Bf16;
    const PASSES: usize = 1;

    #[inline(always)]
    unsafe fn right(from: *const u8, _: usize) -> Avx512<true> {
        // SAFETY: as promised.
        unsafe { Avx512(_mm512_loadu_ps(from.cast())) }
    }
    #[inline(always)]
    fn multiply_add(left: Avx512<true>, right: Avx512<true>, sum: Avx512<true>) -> Avx512<true> {
        // SAFETY: inside `run`; a register of pairs is one of f32, bit by bit.
        unsafe {
            let pairs = |x| std::mem::transmute::<__m512, __m512bh>(x);
            Avx512(_mm512_dpbf16_ps(sum.0, pairs(left.0), pairs(right.0)))
        }
    }
    #[inline(always)]
    unsafe fn store_left(to: *mut f32, numbers: Avx512<true>) {
        // SAFETY: as promised.
        unsafe { to.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(numbers.0)) }
    }
}
