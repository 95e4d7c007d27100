//! Elementary functions of one lane, without branches, so that loops over them become vectors.
//!
//! The coefficients are our own minimax fits (Remez's algorithm for the exponential, Lawson's weights for the rational
//! functions), with the errors that they leave in exact arithmetic beside them; rounding adds one or two units in the last place.

use crate::isa::MulAdd;

/// ln of the smallest normal number, rounded up.
const EXP_LOW: f32 = -87.336_54;
/// ln of the largest number, rounded down.
const EXP_HIGH: f32 = 88.722_83;

/// e^x, to 1e-7 of itself. Zero below the smallest normal number; infinite where f32 ends; NaN stays NaN.
#[inline(always)]
pub fn exp<M: MulAdd>(x: f32) -> f32 {
    // 3.1e-9.
    const P: [f32; 7] = [1.0, 1.0, 0.499_999_93, 0.166_665_2, 0.041_668_394, 0.008_368_78, 0.001_381_446_5];
    let y = exp_between::<M, 7>(x, P);
    let y = if x < EXP_LOW { 0.0 } else { y };
    if x <= EXP_HIGH { y } else { x + f32::INFINITY }
}

/// e^x for x ≤ 0, to 2e-7 of itself; NaN stays NaN, and what is above [`EXP_HIGH`] becomes anything. A fifth faster than [`exp`]:
/// for softmax, where the largest exponent is zero.
#[inline(always)]
pub fn exp_negative<M: MulAdd>(x: f32) -> f32 {
    // 1.1e-7.
    const P: [f32; 6] = [1.0, 1.0, 0.499_992_3, 0.166_671_17, 0.041_890_55, 0.008_312_48];
    let y = exp_between::<M, 6>(x, P);
    if x >= EXP_LOW { y } else { at_least(x, 0.0) }
}

/// e^x from [`EXP_LOW`] to [`EXP_HIGH`]: x is split into n ln 2 + r. `p` is e^r for |r| ≤ ln 2 / 2.
#[inline(always)]
fn exp_between<M: MulAdd, const P: usize>(x: f32, p: [f32; P]) -> f32 {
    /// 1.5 * 2^23: a small number that is added to it is rounded to an integer, which stands in the lowest bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first short enough that its product with any exponent is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let shifted = M::mul_add(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = M::mul_add(n, -LN2[1], M::mul_add(n, -LN2[0], x));
    let power = polynomial::<M, P>(p, r); // in [0.7, 1.42]
    // The shift moves the integer into the exponent and drops the bits of MAGIC.
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// 1 / (1 + e^-x), to 2e-7 of itself.
#[inline(always)]
pub fn sigmoid<M: MulAdd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<M>(-x))
}

/// tanh x, to 3.5e-7 of itself.
#[inline(always)]
pub fn tanh<M: MulAdd>(x: f32) -> f32 {
    /// Fitted up to 9.02, where tanh is one in f32; here the fit has risen above one, which is cut off.
    const END: f32 = 10.0;
    // 2.1e-8.
    const P: [f32; 5] = [0.999_999_98, 0.133_797_13, 0.003_494_028, 2.058_337_6e-5, 1.331_893_1e-8];
    const Q: [f32; 5] = [1.0, 0.467_130_28, 0.025_871_05, 0.000_328_308_23, 7.761_961e-7];
    odd::<M, 5, 5>(x, END, P, Q)
}

/// The error function, to 3.5e-7 of itself.
#[inline(always)]
pub fn erf<M: MulAdd>(x: f32) -> f32 {
    /// Fitted up to 3.93, where erf is one in f32; as above.
    const END: f32 = 4.2;
    // 1.9e-8.
    const P: [f32; 6] =
        [std::f32::consts::FRAC_2_SQRT_PI, 0.190_781_6, 0.052_789_99, 0.003_779_515, 0.000_284_806_7, 2.041_99e-6];
    const Q: [f32; 6] = [1.0, 0.502_408_5, 0.114_256_6, 0.014_997_247, 0.001_165_190_4, 3.800_417_6e-5];
    odd::<M, 6, 6>(x, END, P, Q)
}

/// x P(x²) / Q(x²), cut off at ±1; constant beyond ±`end`, where it has to be ±1, so that one minus it is zero.
#[inline(always)]
fn odd<M: MulAdd, const P: usize, const Q: usize>(x: f32, end: f32, p: [f32; P], q: [f32; Q]) -> f32 {
    let x = clamp(x, end);
    let square = x * x;
    clamp(x * polynomial::<M, P>(p, square) / polynomial::<M, Q>(q, square), 1.0)
}

/// Horner's scheme; the constant comes first.
#[inline(always)]
fn polynomial<M: MulAdd, const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut y = coefficients[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = M::mul_add(y, x, coefficients[i]);
    }
    y
}

/// The larger one; x where it is NaN, unlike `f32::max`, and one instruction.
#[inline(always)]
pub fn at_least(x: f32, limit: f32) -> f32 {
    if x < limit { limit } else { x }
}

/// The smaller one; x where it is NaN.
#[inline(always)]
pub fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// To ±`limit`; NaN stays NaN.
#[inline(always)]
pub fn clamp(x: f32, limit: f32) -> f32 {
    at_least(at_most(x, limit), -limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Fused, Separate};

    /// With and without fused multiplication.
    type Pair = [fn(f32) -> f32; 2];
    type Reference = fn(f64) -> f64;
    type Points = &'static [(f32, f32)];

    const EXP: Pair = [exp::<Fused>, exp::<Separate>];
    const EXP_NEGATIVE: Pair = [exp_negative::<Fused>, exp_negative::<Separate>];
    const SIGMOID: Pair = [sigmoid::<Fused>, sigmoid::<Separate>];
    const TANH: Pair = [tanh::<Fused>, tanh::<Separate>];
    const ERF: Pair = [erf::<Fused>, erf::<Separate>];

    const NANS: [u32; 4] = [0x7fc0_0000, 0x7fc0_0001, 0xffff_ffff, 0x7f80_0001];

    /// Every 4999th number up to `end`, of both signs.
    fn numbers(end: f32) -> impl Iterator<Item = f32> {
        (0..=end.to_bits()).step_by(4999).map(f32::from_bits).flat_map(|x| [x, -x])
    }

    /// The worst error relative to the result, where that is a normal number.
    fn worst(f: fn(f32) -> f32, reference: impl Fn(f64) -> f64, end: f32) -> (f64, f32) {
        let error = |x: f32| {
            let expected = reference(f64::from(x));
            let tiny = expected.abs() < f64::from(f32::MIN_POSITIVE);
            (if tiny { 0.0 } else { (f64::from(f(x)) / expected - 1.0).abs() }, x)
        };
        numbers(end).map(error).fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// Taylor's series up to 3, where it has no cancellation that matters in f64; one minus a continued fraction beyond.
    fn erf_f64(x: f64) -> f64 {
        use std::f64::consts::{FRAC_2_SQRT_PI, PI};
        if x.abs() < 3.0 {
            let mut term = x;
            let mut sum = x;
            for n in 1..80 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * FRAC_2_SQRT_PI;
        }
        let fraction = (1..60).rev().fold(x.abs(), |rest, n| x.abs() + 0.5 * f64::from(n) / rest);
        x.signum() * (1.0 - (-x * x).exp() / (PI.sqrt() * fraction))
    }

    #[test]
    fn errors_are_a_few_units_in_the_last_place() {
        // A unit is at most 1.2e-7. Without fused multiplication every step of Horner's scheme is rounded once more.
        let cases: [(&str, Pair, Reference, f32, f64); 4] = [
            ("exp", EXP, f64::exp, 88.7, 1e-7),
            ("sigmoid", SIGMOID, |x| 1.0 / (1.0 + (-x).exp()), 87.0, 2e-7),
            ("tanh", TANH, f64::tanh, 20.0, 3.5e-7),
            ("erf", ERF, erf_f64, 8.0, 3.5e-7),
        ];
        for (name, functions, reference, end, bound) in cases {
            for f in functions {
                let (error, x) = worst(f, reference, end);
                assert!(error < bound, "{name}: {error:e} at {x}");
            }
        }
    }

    #[test]
    fn negative_exponents_have_their_own_function() {
        for f in EXP_NEGATIVE {
            for x in numbers(87.3).filter(|x| *x <= 0.0) {
                assert!((f64::from(f(x)) / f64::from(x).exp() - 1.0).abs() < 2e-7, "{x}");
            }
            for (x, y) in [(0.0, 1.0), (-0.0, 1.0), (-88.0, 0.0), (f32::MIN, 0.0), (f32::NEG_INFINITY, 0.0)] {
                assert_eq!(f(x), y, "{x}");
            }
            assert!(NANS.iter().all(|nan| f(f32::from_bits(*nan)).is_nan()));
        }
    }

    #[test]
    fn numbers_at_the_ends_have_their_limits() {
        const INF: f32 = f32::INFINITY;
        let cases: [(&str, Pair, Points); 4] = [
            (
                "exp",
                EXP,
                &[(0.0, 1.0), (-0.0, 1.0), (-INF, 0.0), (INF, INF), (-88.0, 0.0), (88.8, INF), (f32::MAX, INF), (f32::MIN, 0.0)],
            ),
            ("sigmoid", SIGMOID, &[(0.0, 0.5), (-INF, 0.0), (INF, 1.0), (100.0, 1.0), (-100.0, 0.0)]),
            ("tanh", TANH, &[(0.0, 0.0), (-INF, -1.0), (INF, 1.0), (f32::MAX, 1.0), (-10.0, -1.0)]),
            ("erf", ERF, &[(0.0, 0.0), (-INF, -1.0), (INF, 1.0), (f32::MAX, 1.0), (-4.0, -1.0)]),
        ];
        for (name, functions, points) in cases {
            for f in functions {
                points.iter().for_each(|&(x, y)| assert_eq!(f(x), y, "{name} {x}"));
                for nan in NANS {
                    assert!(f(f32::from_bits(nan)).is_nan(), "{name} {nan:x}");
                }
            }
        }
    }

    #[test]
    fn the_exponential_is_sound_where_numbers_end() {
        for f in EXP {
            for bits in 88.72f32.to_bits()..88.73f32.to_bits() {
                let (y, expected) = (f(f32::from_bits(bits)), f64::from(f32::from_bits(bits)).exp());
                assert!(
                    (f64::from(y) / expected - 1.0).abs() < 2e-7 || y == f32::INFINITY && expected > 3.4028e38,
                    "{bits:x}: {y}"
                );
            }
            for bits in (-87.0f32).to_bits()..(-88.0f32).to_bits() {
                let (y, expected) = (f(f32::from_bits(bits)), f64::from(f32::from_bits(bits)).exp());
                assert!((f64::from(y) / expected - 1.0).abs() < 2e-7 || y == 0.0 && expected < 1.1756e-38, "{bits:x}: {y}");
            }
        }
    }
}
