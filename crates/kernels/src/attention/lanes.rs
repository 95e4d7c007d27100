//! Sixteen numbers side by side: what an instruction set has to offer for attention to be written once.

use half::f16;

#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::Isa;
use crate::convert::{from_bf16_pair, from_f16};
use crate::isa::{Compiled, Level, MulAdd};

/// Sixteen f32.
///
/// # Safety
/// Whatever makes or takes a value may be called only inside of [`Lanes::run`] of the same type.
pub unsafe trait Lanes: Copy {
    /// Whether registers hold sums for several vectors side by side, and not just for one, with six rows.
    const WIDE: bool;

    /// Calls `work`, compiled for this instruction set.
    ///
    /// # Safety
    /// The machine has it.
    unsafe fn run<W: Work<Self>>(work: W);

    fn splat(x: f32) -> Self;
    /// # Safety
    /// Sixteen numbers can be read there.
    unsafe fn load(from: *const f32) -> Self;
    /// # Safety
    /// Sixteen numbers can be written there.
    unsafe fn store(self, to: *mut f32);
    /// The first (`half` = 0) or second numbers of sixteen pairs of bf16.
    ///
    /// # Safety
    /// Sixteen pairs can be read there.
    unsafe fn load_bf16(from: *const u32, half: usize) -> Self;
    /// # Safety
    /// Sixteen numbers can be read there.
    unsafe fn load_f16(from: *const u16) -> Self;
    /// # Safety
    /// Sixteen numbers can be read there.
    unsafe fn load_i8(from: *const i8) -> Self;

    /// Says that these bytes will be needed, wherever they are.
    fn prefetch(_from: *const u8) {}

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// self * factor + sum
    fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// The larger; `other` where one of them is not a number.
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    /// Moves the lowest nine bits of each number to where sign and exponent are.
    fn as_exponent(self) -> Self;
    /// Minus infinity in all lanes but `from..to`, both at most sixteen.
    fn keep(self, from: usize, to: usize) -> Self;
    /// The largest of the sixteen.
    fn largest(self) -> f32;
}

/// A piece of work that is compiled for every instruction set.
pub trait Work<L: Lanes> {
    /// Does it. Always inlined, so that it takes on the instruction set of [`Lanes::run`].
    ///
    /// # Safety
    /// Called by [`Lanes::run`] only; and what the work itself demands.
    unsafe fn run(self);
}

/// Work for whatever instruction set a machine has.
#[cfg(target_arch = "x86_64")]
pub trait AnyWork: Work<Portable> + Work<Avx2> + Work<Avx512<false>> {}
#[cfg(target_arch = "x86_64")]
impl<W: Work<Portable> + Work<Avx2> + Work<Avx512<false>>> AnyWork for W {}

/// Work for whatever instruction set a machine has.
#[cfg(target_arch = "aarch64")]
pub trait AnyWork: Work<Portable> + Work<Neon> {}
#[cfg(target_arch = "aarch64")]
impl<W: Work<Portable> + Work<Neon>> AnyWork for W {}

/// Work for whatever instruction set a machine has.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub trait AnyWork: Work<Portable> {}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl<W: Work<Portable>> AnyWork for W {}

/// Does work that demands nothing but to be called here.
pub fn run(isa: Isa, work: impl AnyWork) {
    // SAFETY: an `Isa` exists only where the machine has it.
    unsafe {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => Avx2::run(work),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 => Avx512::<false>::run(work),
            #[cfg(target_arch = "aarch64")]
            Level::Neon | Level::Dotprod | Level::I8mm => Neon::run(work),
            _ => Portable::run(work),
        }
    }
}

/// 1.5 * 2^23: a number added to it is rounded to an integer, which is then in the lowest bits; with the bias of exponents.
const ROUND: f32 = 12_582_912.0 + 127.0;
/// Coefficients of f, f², … in 2^f for |f| ≤ 1/2, found by iteratively reweighted least squares: off by less than 1e-7 of 2^f.
#[expect(clippy::approx_constant, reason = "the best first coefficient is not the derivative")]
const EXP2: [f32; 5] = [0.693_147, 0.240_222_42, 0.055_507_34, 0.009_671_515, 0.001_326_469_5];

/// 2^x for x ≤ 127, and zero below -126.5; not a number stays that.
#[inline(always)]
pub fn exp2<L: Lanes>(x: L) -> L {
    let (power, rest) = split_exponent(L::splat(-127.0).max(x));
    rest.mul_add(exp2_slope(rest), L::splat(1.0)).mul(power)
}

/// tanh(x), off by less than 1e-6 of it.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    // With t = e^2x - 1 it is t / (t + 2), and t keeps its precision where it is small. Beyond 2^±30 nothing changes.
    let twice = x.mul(L::splat(2.0 * std::f32::consts::LOG2_E));
    let (power, rest) = split_exponent(L::splat(-30.0).max(L::splat(30.0).min(twice)));
    let t = power.mul_add(rest.mul(exp2_slope(rest)), power.sub(L::splat(1.0)));
    t.div(t.add(L::splat(2.0)))
}

/// x as 2^n (zero for n = -127) and the rest f = x - n, |f| ≤ 1/2.
#[inline(always)]
fn split_exponent<L: Lanes>(x: L) -> (L, L) {
    let shifted = x.add(L::splat(ROUND));
    (shifted.as_exponent(), x.sub(shifted.sub(L::splat(ROUND))))
}

/// (2^f - 1) / f
#[inline(always)]
fn exp2_slope<L: Lanes>(f: L) -> L {
    let [a, b, c, d, e] = EXP2.map(L::splat);
    e.mul_add(f, d).mul_add(f, c).mul_add(f, b).mul_add(f, a)
}

/// What the compiler makes of loops over arrays: the reference, and what other architectures run.
#[derive(Clone, Copy)]
pub struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for (x, y) in self.0.iter_mut().zip(other.0) {
            *x = f(*x, y);
        }
        self
    }
}

// SAFETY: needs nothing of the machine.
unsafe impl Lanes for Portable {
    const WIDE: bool = false; // one vector: 24 of the 32 registers of NEON

    #[inline(always)]
    unsafe fn run<W: Work<Self>>(work: W) {
        #[inline(never)] // a loop that shares a function with others gets too few registers
        unsafe fn alone<W: Work<Portable>>(work: W) {
            // SAFETY: called by `run`.
            unsafe { work.run() }
        }
        // SAFETY: the caller's promise.
        unsafe { alone(work) }
    }
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        Self(unsafe { from.cast::<[f32; 16]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as promised.
        unsafe { to.cast::<[f32; 16]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u32, half: usize) -> Self {
        // SAFETY: as promised.
        let pairs = unsafe { from.cast::<[u32; 16]>().read() };
        Self(pairs.map(|pair| from_bf16_pair(pair)[half]))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: as promised.
        Self(unsafe { from.cast::<[f16; 16]>().read() }.map(from_f16))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: as promised.
        Self(unsafe { from.cast::<[i8; 16]>().read() }.map(f32::from))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |x, y| x / y)
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, mut sum: Self) -> Self {
        for i in 0..16 {
            sum.0[i] = Compiled::mul_add(self.0[i], factor.0[i], sum.0[i]);
        }
        sum
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn as_exponent(self) -> Self {
        Self(self.0.map(|x| f32::from_bits(x.to_bits() << 23)))
    }
    #[inline(always)]
    fn keep(mut self, from: usize, to: usize) -> Self {
        for (i, x) in self.0.iter_mut().enumerate() {
            *x = if from <= i && i < to { *x } else { f32::NEG_INFINITY };
        }
        self
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |x, y| if x > y { x } else { y })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Each<'a>(&'a mut [f32], bool);

    impl<L: Lanes> Work<L> for Each<'_> {
        unsafe fn run(self) {
            for numbers in self.0.chunks_exact_mut(16) {
                // SAFETY: sixteen numbers.
                unsafe {
                    let x = L::load(numbers.as_ptr());
                    (if self.1 { tanh(x) } else { exp2(x) }).store(numbers.as_mut_ptr());
                }
            }
        }
    }

    fn of_each(isa: Isa, mut numbers: Vec<f32>, tanh: bool) -> Vec<f32> {
        run(isa, Each(&mut numbers, tanh));
        numbers
    }

    #[test]
    fn exp2_and_tanh_are_close() {
        let numbers: Vec<f32> = (-40_000..40_000).map(|i| i as f32 / 320.0).chain([0.0, -0.0, 1e-30, -1e-3].repeat(4)).collect();
        for isa in Isa::available() {
            let powers = of_each(isa, numbers.clone(), false);
            let tangents = of_each(isa, numbers.clone(), true);
            for ((x, power), tangent) in numbers.iter().zip(powers).zip(tangents) {
                let (exact, exact_tangent) = (f64::from(*x).exp2(), f64::from(*x).tanh());
                assert!((f64::from(power) - exact).abs() <= 1.8e-7 * exact, "{isa:?} 2^{x} = {power}");
                assert!((f64::from(tangent) - exact_tangent).abs() <= 1e-6 * exact_tangent.abs(), "{isa:?} tanh {x} = {tangent}");
            }
            let edges = of_each(isa, [-126.6, -1e30, f32::NEG_INFINITY, f32::NAN].repeat(4), false);
            assert!(edges[..3] == [0.0; 3] && edges[3].is_nan(), "{isa:?} {edges:?}");
        }
    }
}
