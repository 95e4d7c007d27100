//! AVX-512: a panel is one register; tiles of 24 sums, with room for the weights and a word.

use std::arch::x86_64::*;
use std::ops::Range;

use half::f16;

use super::rows::Word;
use super::tile::{Block, Kernel, Product, method, multiply, shapes};
use super::{Method, PANEL};

/// The most rows of a tile.
const TILE: usize = 12;

method!(TILE, "avx512f,avx512bw,avx512dq,avx512vl");

/// How bf16 weights are multiplied by inputs rounded to bf16, two at a time.
pub(super) fn bf16_pairs() -> Method {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn run(product: &Product<'_>, tiles: Range<usize>, panels: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe { multiply::<Bf16Pairs>(product, tiles, panels) }
    }
    Method { word: Word::Bf16Pair, tile: TILE, run }
}

/// What all four have in common; `$features` is what `mul_add` needs.
macro_rules! kernel {
    ($name:ident, $features:literal, $pair:ty, |$p:ident, $half:ident| $weights:expr, |$w:ident, $x:ident, $s:ident| $mul_add:expr) => {
        struct $name;

        // SAFETY: the instructions are those of the features.
        unsafe impl Kernel for $name {
            type Pair = $pair;
            type Weights = __m512i;
            type Word = __m512i;
            type Sums = __m512;

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn zero() -> __m512 {
                _mm512_setzero_ps()
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn weights($p: &$pair, $half: usize) -> __m512i {
                // SAFETY: a reference is readable.
                unsafe { $weights }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn word(word: u32) -> __m512i {
                _mm512_set1_epi32(word.cast_signed())
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn mul_add($w: __m512i, $x: __m512i, $s: __m512) -> __m512 {
                $mul_add
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn lanes(sums: __m512) -> [f32; PANEL] {
                let mut lanes = [0.0; PANEL];
                // SAFETY: sixteen floats are writable there.
                unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sums) };
                lanes
            }

            #[target_feature(enable = $features)]
            unsafe fn sweep(product: &Product<'_>, block: &Block<'_>) {
                shapes!($name, product, block, { 1: 4, 2: 4, 3: 4, 4: 4, 5: 4, 6: 4, 7: 3, 8: 3, 9: 2, 10: 2, 11: 2, 12: 2 });
            }
        }
    };
}

kernel!(
    F32,
    "avx512f,avx512bw,avx512dq,avx512vl",
    [[f32; PANEL]; 2],
    |pair, half| _mm512_loadu_si512(pair[half].as_ptr().cast()),
    |w, x, sums| _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), sums)
);

kernel!(
    F16,
    "avx512f,avx512bw,avx512dq,avx512vl",
    [[f16; PANEL]; 2],
    |pair, half| _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256(pair[half].as_ptr().cast()))),
    |w, x, sums| _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), sums)
);

// The even inputs' weights are the lower halves.
kernel!(
    Bf16,
    "avx512f,avx512bw,avx512dq,avx512vl",
    [u32; PANEL],
    |pair, half| {
        let both = _mm512_loadu_si512(pair.as_ptr().cast());
        if half == 0 { _mm512_slli_epi32::<16>(both) } else { _mm512_and_si512(both, _mm512_set1_epi32(-0x1_0000)) }
    },
    |w, x, sums| _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), sums)
);

kernel!(
    Bf16Pairs,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16",
    [[u32; PANEL]; 2],
    |pair, half| _mm512_loadu_si512(pair[half].as_ptr().cast()),
    // SAFETY: all bits are good in either type.
    |w, x, sums| unsafe {
        _mm512_dpbf16_ps(sums, std::mem::transmute::<__m512i, __m512bh>(w), std::mem::transmute::<__m512i, __m512bh>(x))
    }
);
