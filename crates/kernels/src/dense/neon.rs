//! NEON: a panel is four registers; tiles of at most 24 registers of sums, with room for the weights of a panel and a word.

use std::arch::aarch64::*;

use half::f16;

use super::PANEL;
use super::tile::{Block, Kernel, Product, method, shapes};
use crate::convert::{four_from_bf16_pairs, four_from_f16};

/// The most rows of a tile.
const TILE: usize = 6;

method!(TILE, "neon");

/// What all three have in common; `$weights` are four of them, those of quarter `$quarter`.
macro_rules! kernel {
    ($name:ident, $pair:ty, |$p:ident, $half:ident, $quarter:ident| $weights:expr) => {
        struct $name;

        // SAFETY: the instructions are those of the features.
        unsafe impl Kernel for $name {
            type Pair = $pair;
            type Weights = [float32x4_t; 4];
            type Word = float32x4_t;
            type Sums = [float32x4_t; 4];

            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn zero() -> [float32x4_t; 4] {
                [vdupq_n_f32(0.0); 4]
            }

            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn weights($p: &$pair, $half: usize) -> [float32x4_t; 4] {
                // SAFETY: a reference is readable.
                let four = |$quarter: usize| unsafe { $weights };
                [four(0), four(1), four(2), four(3)]
            }

            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn word(word: u32) -> float32x4_t {
                vdupq_n_f32(f32::from_bits(word))
            }

            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn mul_add(weights: [float32x4_t; 4], word: float32x4_t, mut sums: [float32x4_t; 4]) -> [float32x4_t; 4] {
                for i in 0..4 {
                    sums[i] = vfmaq_f32(sums[i], weights[i], word);
                }
                sums
            }

            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn lanes(sums: [float32x4_t; 4]) -> [f32; PANEL] {
                let mut lanes = [0.0; PANEL];
                for (i, sums) in sums.into_iter().enumerate() {
                    // SAFETY: sixteen floats are writable there.
                    unsafe { vst1q_f32(lanes.as_mut_ptr().add(4 * i), sums) };
                }
                lanes
            }

            #[target_feature(enable = "neon")]
            unsafe fn sweep(product: &Product<'_>, block: &Block<'_>) {
                shapes!($name, product, block, { 1: 4, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1 });
            }
        }
    };
}

kernel!(F32, [[f32; PANEL]; 2], |pair, half, quarter| vld1q_f32(pair[half].as_ptr().add(4 * quarter)));

kernel!(F16, [[f16; PANEL]; 2], |pair, half, quarter| four_from_f16(vld1_u16(pair[half].as_ptr().add(4 * quarter).cast())));

// The even inputs' weights are the lower halves.
kernel!(Bf16, [u32; PANEL], |pair, half, quarter| four_from_bf16_pairs(vld1q_u32(pair.as_ptr().add(4 * quarter)), half));
