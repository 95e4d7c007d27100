//! AVX2: a panel is two registers; tiles of at most twelve registers of sums, with room for the weights and a word.

use std::arch::x86_64::*;

use half::f16;

use super::PANEL;
use super::tile::{Block, Kernel, Product, method, shapes};

/// The most rows of a tile.
const TILE: usize = 6;

method!(TILE, "avx2,fma,f16c");

/// What all three have in common; `$weights` are eight of them, the first or (`$side` 1) the last.
macro_rules! kernel {
    ($name:ident, $pair:ty, |$p:ident, $half:ident, $side:ident| $weights:expr) => {
        struct $name;

        // SAFETY: the instructions are those of the features.
        unsafe impl Kernel for $name {
            type Pair = $pair;
            type Weights = [__m256; 2];
            type Word = __m256;
            type Sums = [__m256; 2];

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn zero() -> [__m256; 2] {
                [_mm256_setzero_ps(); 2]
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn weights($p: &$pair, $half: usize) -> [__m256; 2] {
                // SAFETY: a reference is readable.
                let eight = |$side: usize| unsafe { $weights };
                [eight(0), eight(1)]
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn word(word: u32) -> __m256 {
                _mm256_set1_ps(f32::from_bits(word))
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn mul_add(weights: [__m256; 2], word: __m256, sums: [__m256; 2]) -> [__m256; 2] {
                [_mm256_fmadd_ps(weights[0], word, sums[0]), _mm256_fmadd_ps(weights[1], word, sums[1])]
            }

            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn lanes(sums: [__m256; 2]) -> [f32; PANEL] {
                let mut lanes = [0.0; PANEL];
                // SAFETY: sixteen floats are writable there.
                unsafe {
                    _mm256_storeu_ps(lanes.as_mut_ptr(), sums[0]);
                    _mm256_storeu_ps(lanes.as_mut_ptr().add(8), sums[1]);
                }
                lanes
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn sweep(product: &Product<'_>, block: &Block<'_>) {
                shapes!($name, product, block, { 1: 4, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1 });
            }
        }
    };
}

kernel!(F32, [[f32; PANEL]; 2], |pair, half, side| _mm256_loadu_ps(pair[half].as_ptr().add(8 * side)));

kernel!(F16, [[f16; PANEL]; 2], |pair, half, side| _mm256_cvtph_ps(_mm_loadu_si128(pair[half].as_ptr().add(8 * side).cast())));

// The even inputs' weights are the lower halves.
kernel!(Bf16, [u32; PANEL], |pair, half, side| {
    let both = _mm256_loadu_si256(pair.as_ptr().add(8 * side).cast());
    _mm256_castsi256_ps(if half == 0 {
        _mm256_slli_epi32::<16>(both)
    } else {
        _mm256_and_si256(both, _mm256_set1_epi32(-0x1_0000))
    })
});
