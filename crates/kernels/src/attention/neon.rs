//! Sixteen numbers in four registers of NEON.

use std::arch::aarch64::*;

use super::lanes::{Lanes, Work};
use crate::convert::{four_from_bf16_pairs, four_from_f16};

/// Four times four.
#[derive(Clone, Copy)]
pub struct Neon([float32x4_t; 4]);

/// The same for all four registers. `$i` is the number of each.
macro_rules! each {
    ($i:ident => $numbers:expr) => {{
        // SAFETY: inside `run`; what is read or written there is as promised.
        let one = |$i: usize| unsafe { $numbers };
        [one(0), one(1), one(2), one(3)]
    }};
}

/// A method that does the same with every register.
macro_rules! quarters {
    ($($name:ident = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, other: Self) -> Self {
            Self(each!(i => $intrinsic(self.0[i], other.0[i])))
        }
    )*};
}

// SAFETY: `run` enables all that the methods use.
unsafe impl Lanes for Neon {
    const WIDE: bool = false; // one vector: 24 of 32 registers

    #[inline(always)]
    unsafe fn run<W: Work<Self>>(work: W) {
        #[inline(never)] // a loop that shares a function with others gets too few registers
        #[target_feature(enable = "neon")]
        unsafe fn enabled<W: Work<Neon>>(work: W) {
            // SAFETY: called by `run`.
            unsafe { work.run() }
        }
        // SAFETY: the caller's promise.
        unsafe { enabled(work) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(each!(_i => vdupq_n_f32(x)))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(each!(i => vld1q_f32(from.add(4 * i))))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        each!(i => vst1q_f32(to.add(4 * i), self.0[i]));
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u32, half: usize) -> Self {
        Self(each!(i => four_from_bf16_pairs(vld1q_u32(from.add(4 * i)), half)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        Self(each!(i => four_from_f16(vld1_u16(from.add(4 * i)))))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: as promised.
        let eights = unsafe {
            let bytes = vld1q_s8(from);
            [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
        };
        Self(each!(i => {
            let eight = eights[i / 2];
            vcvtq_f32_s32(if i & 1 == 0 { vmovl_s16(vget_low_s16(eight)) } else { vmovl_high_s16(eight) })
        }))
    }
    quarters! {
        add = vaddq_f32;
        sub = vsubq_f32;
        mul = vmulq_f32;
        div = vdivq_f32;
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, sum: Self) -> Self {
        Self(each!(i => vfmaq_f32(sum.0[i], self.0[i], factor.0[i])))
    }
    // The instructions for the larger and the smaller of two hand on what is not a number on either side.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(each!(i => vbslq_f32(vcgtq_f32(self.0[i], other.0[i]), self.0[i], other.0[i])))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(each!(i => vbslq_f32(vcltq_f32(self.0[i], other.0[i]), self.0[i], other.0[i])))
    }
    #[inline(always)]
    fn as_exponent(self) -> Self {
        Self(each!(i => vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0[i])))))
    }
    #[inline(always)]
    fn keep(self, from: usize, to: usize) -> Self {
        const LANES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        Self(each!(i => {
            let lanes = vld1q_u32(LANES.as_ptr().add(4 * i));
            let kept = vandq_u32(vcgeq_u32(lanes, vdupq_n_u32(from as u32)), vcltq_u32(lanes, vdupq_n_u32(to as u32)));
            vbslq_f32(kept, self.0[i], vdupq_n_f32(f32::NEG_INFINITY))
        }))
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        let Self([a, b, c, d]) = self;
        // SAFETY: inside `run`.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d))) }
    }
}
