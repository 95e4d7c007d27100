//! f32 to and from the two formats of 16 bits. To the nearest, ties to even, with denormals and infinities; NaN stays NaN.
//! Integer arithmetic without branches: it becomes vectors everywhere, while the conversions of f16 that machines have would
//! need intrinsics for each. Loops that convert on the way take the functions of one number: the library's are calls that
//! they could not become vectors around.

use half::{bf16, f16};

use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa, share};

/// Elements that threads cut a buffer at: 4 KiB.
const UNIT: usize = 1024;

/// x → y, of the same length.
pub fn f32_to_bf16(cpu: &Cpu, x: &[f32], y: &mut [bf16]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT, |first, y| to_bf16_part(cpu.isa, &x[first * UNIT..], y));
}

/// x → y, of the same length.
pub fn bf16_to_f32(cpu: &Cpu, x: &[bf16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT, |first, y| from_bf16_part(cpu.isa, &x[first * UNIT..], y));
}

/// x → y, of the same length.
pub fn f32_to_f16(cpu: &Cpu, x: &[f32], y: &mut [f16]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, 2 * UNIT, |first, y| to_f16_part(cpu.isa, &x[first * UNIT..], y));
}

/// x → y, of the same length.
pub fn f16_to_f32(cpu: &Cpu, x: &[f16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, 2 * UNIT, |first, y| from_f16_part(cpu.isa, &x[first * UNIT..], y));
}

for_each_isa!(fn to_bf16_part(x: &[f32], y: &mut [bf16]) = to_bf16_body);
for_each_isa!(fn from_bf16_part(x: &[bf16], y: &mut [f32]) = from_bf16_body);
for_each_isa!(fn to_f16_part(x: &[f32], y: &mut [f16]) = to_f16_body);
for_each_isa!(fn from_f16_part(x: &[f16], y: &mut [f32]) = from_f16_body);

#[inline(always)]
fn to_bf16_body<M: MulAdd>(x: &[f32], y: &mut [bf16]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = to_bf16(*x);
    }
}

#[inline(always)]
fn from_bf16_body<M: MulAdd>(x: &[bf16], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = from_bf16(*x);
    }
}

#[inline(always)]
fn to_f16_body<M: MulAdd>(x: &[f32], y: &mut [f16]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = to_f16(*x);
    }
}

#[inline(always)]
fn from_f16_body<M: MulAdd>(x: &[f16], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = from_f16(*x);
    }
}

#[inline(always)]
pub(crate) fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
}

#[inline(always)]
pub(crate) fn from_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// The bits of two bf16, the first one's below: what products of bf16 read.
#[inline(always)]
pub(crate) fn to_bf16_pair([first, second]: [f32; 2]) -> u32 {
    u32::from(to_bf16(first).to_bits()) | u32::from(to_bf16(second).to_bits()) << 16
}

/// The numbers of what [`to_bf16_pair`] has made.
#[inline(always)]
pub(crate) fn from_bf16_pair(bits: u32) -> [f32; 2] {
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// What is added to an exponent of f16 to get that of f32, in its place.
const REBIAS: u32 = (127 - 15) << 23;
/// The smallest normal number of f16.
const F16_NORMAL: f32 = 6.103_515_6e-5;

#[inline(always)]
pub(crate) fn to_f16(x: f32) -> f16 {
    /// Its last place is that of f16's denormals: a sum is rounded to them.
    const HALF: f32 = 0.5;
    const INFINITY: u32 = 0x7c00;
    let bits = x.to_bits();
    let (sign, size) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let normal = size.wrapping_add(0xfff + (size >> 13 & 1)).wrapping_sub(REBIAS) >> 13;
    let small = (f32::from_bits(size) + HALF).to_bits().wrapping_sub(HALF.to_bits());
    let finite = if size < F16_NORMAL.to_bits() { small } else { normal };
    let number = if size >= 65_536f32.to_bits() { INFINITY } else { finite };
    let quiet = INFINITY | 0x200 | (size >> 13 & 0x3ff);
    f16::from_bits((sign | if x.is_nan() { quiet } else { number }) as u16)
}

#[inline(always)]
pub(crate) fn from_f16(x: f16) -> f32 {
    const EXPONENT: u32 = 0x7c00;
    let bits = u32::from(x.to_bits());
    let size = (bits & 0x7fff) << 13;
    let normal = size + REBIAS;
    // One more in the exponent brings the leading one of normal numbers, which is taken away again: no denormals of f32, which
    // are slow on some machines.
    let small = (f32::from_bits(size + REBIAS + (1 << 23)) - F16_NORMAL).to_bits();
    let finite = if bits & EXPONENT == 0 { small } else { normal };
    let number = if bits & EXPONENT == EXPONENT { size | 0x7f80_0000 } else { finite };
    f32::from_bits((bits & 0x8000) << 16 | number)
}

/// The first numbers of four pairs of bf16, or (`half` 1) the second: see [`to_bf16_pair`].
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn four_from_bf16_pairs(pairs: std::arch::aarch64::uint32x4_t, half: usize) -> std::arch::aarch64::float32x4_t {
    use std::arch::aarch64::{vandq_u32, vdupq_n_u32, vreinterpretq_f32_u32, vshlq_n_u32};
    vreinterpretq_f32_u32(if half == 0 { vshlq_n_u32::<16>(pairs) } else { vandq_u32(pairs, vdupq_n_u32(0xffff_0000)) })
}

/// Four numbers of f16, by the one instruction for it. The library's function is younger than the Rust that we ask for.
#[cfg(target_arch = "aarch64")]
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn four_from_f16(halves: std::arch::aarch64::uint16x4_t) -> std::arch::aarch64::float32x4_t {
    let four;
    // SAFETY: it touches nothing but these registers.
    unsafe {
        std::arch::asm!(
            "fcvtl {four:v}.4s, {halves:v}.4h",
            four = lateout(vreg) four, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    four
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_number_is_widened_as_by_half() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let check = |short: &dyn std::fmt::Debug, wide: f32, expected: f32| {
            assert!(wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(), "{short:?}: {wide}");
        };
        for cpu in Cpu::each() {
            let mut y = vec![0.0; all.len()];
            let x: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
            f16_to_f32(&cpu, &x, &mut y);
            x.iter().zip(&y).for_each(|(x, y)| check(x, *y, x.to_f32()));
            let x: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
            bf16_to_f32(&cpu, &x, &mut y);
            x.iter().zip(&y).for_each(|(x, y)| check(x, *y, x.to_f32()));
        }
    }

    #[cfg(target_arch = "aarch64")]
    #[test]
    fn four_at_a_time_are_widened_as_one() {
        use std::arch::aarch64::{vdup_n_u16, vgetq_lane_f32};
        for bits in 0..=u16::MAX {
            // SAFETY: every aarch64 that is tested has NEON.
            let [wide, last] = unsafe {
                let four = four_from_f16(vdup_n_u16(bits));
                [vgetq_lane_f32::<0>(four), vgetq_lane_f32::<3>(four)]
            };
            let expected = from_f16(f16::from_bits(bits));
            assert!(wide.to_bits() == expected.to_bits() || wide.is_nan() && expected.is_nan(), "{bits:x}: {wide}");
            assert_eq!(wide.to_bits(), last.to_bits(), "{bits:x}");
        }
    }

    #[test]
    fn numbers_are_rounded_as_by_half() {
        // Every 4999th number, any, those around the ties, and where the formats begin and end.
        let spread = (0..=u32::MAX).step_by(4999);
        let mut random = fastrand::Rng::with_seed(1);
        let any = (0..200_000).map(|_| random.u32(..));
        let ties = (0..=u16::MAX)
            .flat_map(|bits| [u32::from(bits) << 16 | 0x8000, from_f16(f16::from_bits(bits)).to_bits() + 0x1000])
            .chain((0..=u32::from(u16::MAX)).map(|high| high << 16 | 0x1000))
            .flat_map(|tie| [tie - 1, tie, tie + 1]);
        let edges = [65519.99f32, 65520.0, 6.1035e-5, 5.96e-8, 2.98e-8, 2.99e-8, f32::MAX, f32::INFINITY, 1e-45];
        let x: Vec<f32> = spread.chain(any).chain(ties).chain(edges.map(f32::to_bits)).map(f32::from_bits).collect();
        for cpu in Cpu::each() {
            let mut y = vec![f16::ZERO; x.len()];
            f32_to_f16(&cpu, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let expected = f16::from_f32(*x);
                assert!(
                    expected.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(),
                    "{x:e} {:x}: {y}, not {expected}",
                    x.to_bits()
                );
            }
            let mut y = vec![bf16::ZERO; x.len()];
            f32_to_bf16(&cpu, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let expected = bf16::from_f32(*x);
                assert!(
                    expected.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(),
                    "{x:e} {:x}: {y}, not {expected}",
                    x.to_bits()
                );
            }
        }
    }

    #[test]
    fn every_short_number_comes_back() {
        for bits in 0..=u16::MAX {
            let (brain, short) = (bf16::from_bits(bits), f16::from_bits(bits));
            let back = to_bf16(from_bf16(brain));
            assert!(back.to_bits() == bits || brain.is_nan() && back.is_nan(), "bf16 {bits:x}");
            let back = to_f16(from_f16(short));
            assert!(back.to_bits() == bits || short.is_nan() && back.is_nan(), "f16 {bits:x}");
            let pair = to_bf16_pair([from_bf16(brain), 1.0]);
            assert_eq!(pair, u32::from(to_bf16(from_bf16(brain)).to_bits()) | 0x3f80 << 16);
            assert_eq!(from_bf16_pair(pair).map(f32::to_bits), [pair << 16, 1.0f32.to_bits()]);
        }
    }

    #[test]
    fn odd_lengths_are_converted_whole() {
        for cpu in Cpu::each() {
            for length in (0..=70).chain([100_001]) {
                let x: Vec<f32> = (0..length).map(|i| (i % 200) as f32).collect();
                let (mut short, mut brain, mut y) = (vec![f16::NAN; length], vec![bf16::NAN; length], vec![f32::NAN; length]);
                f32_to_f16(&cpu, &x, &mut short);
                f16_to_f32(&cpu, &short, &mut y);
                assert_eq!(x, y);
                f32_to_bf16(&cpu, &x, &mut brain);
                bf16_to_f32(&cpu, &brain, &mut y);
                assert_eq!(x, y);
            }
        }
    }
}
