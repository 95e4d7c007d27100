//! What is compiled for every machine: sixteen lanes that the compiler may put into whatever registers there are.

use half::f16;

use super::PANEL;
use super::tile::{Block, Kernel, Product, method, shapes};
use crate::convert::{from_bf16_pair, from_f16};
use crate::isa::{Compiled, MulAdd};

/// The most rows of a tile.
const TILE: usize = 4;

method!(TILE);

/// What all three have in common.
macro_rules! kernel {
    ($name:ident, $pair:ty, |$p:ident, $half:ident, $lane:ident| $weight:expr) => {
        struct $name;

        // SAFETY: nothing here needs an instruction set.
        unsafe impl Kernel for $name {
            type Pair = $pair;
            type Weights = [f32; PANEL];
            type Word = f32;
            type Sums = [f32; PANEL];

            #[inline(always)]
            unsafe fn zero() -> [f32; PANEL] {
                [0.0; PANEL]
            }

            #[inline(always)]
            unsafe fn weights($p: &$pair, $half: usize) -> [f32; PANEL] {
                let mut weights = [0.0; PANEL];
                for $lane in 0..PANEL {
                    weights[$lane] = $weight;
                }
                weights
            }

            #[inline(always)]
            unsafe fn word(word: u32) -> f32 {
                f32::from_bits(word)
            }

            #[inline(always)]
            unsafe fn mul_add(weights: [f32; PANEL], word: f32, mut sums: [f32; PANEL]) -> [f32; PANEL] {
                for lane in 0..PANEL {
                    sums[lane] = Compiled::mul_add(weights[lane], word, sums[lane]);
                }
                sums
            }

            #[inline(always)]
            unsafe fn lanes(sums: [f32; PANEL]) -> [f32; PANEL] {
                sums
            }

            unsafe fn sweep(product: &Product<'_>, block: &Block<'_>) {
                shapes!($name, product, block, { 1: 1, 2: 1, 3: 1, 4: 1 });
            }
        }
    };
}

kernel!(F32, [[f32; PANEL]; 2], |pair, half, lane| pair[half][lane]);
kernel!(F16, [[f16; PANEL]; 2], |pair, half, lane| from_f16(pair[half][lane]));
kernel!(Bf16, [u32; PANEL], |pair, half, lane| from_bf16_pair(pair[lane])[half]);
