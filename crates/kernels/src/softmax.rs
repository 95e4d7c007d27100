//! Softmax and its denominator, over rows.

use crate::isa::MulAdd;
use crate::lanes;
use crate::math::exp_negative;
use crate::{Cpu, for_each_isa, share};

/// x [rows, width], in place: e^(scale (x - max)) over its sum in each row. `scale` is positive. A row that holds NaN or +∞,
/// or nothing but -∞, becomes NaN.
pub fn softmax(cpu: &Cpu, x: &mut [f32], width: usize, scale: f32) {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    assert!(scale > 0.0, "a scale of {scale}");
    share::rows(cpu, x, width, width * (share::EXP + 3), |_, x| softmax_rows(cpu.isa, x, width, scale));
}

for_each_isa!(fn softmax_rows(x: &mut [f32], width: usize, scale: f32) = softmax_body);

#[inline(always)]
fn softmax_body<M: MulAdd>(x: &mut [f32], width: usize, scale: f32) {
    for row in x.chunks_exact_mut(width) {
        let max = lanes::max(row);
        let share = 1.0 / lanes::map_sum(row, |x| exp_negative::<M>((x - max) * scale));
        for x in row {
            *x *= share;
        }
    }
}

/// ln Σ e^x of each row of x [rows, width] → y [rows]: what is subtracted from logits to get logarithms of probabilities.
/// -∞ of a row of -∞, NaN of a row that holds NaN or +∞.
pub fn log_sum_exp(cpu: &Cpu, x: &[f32], width: usize, y: &mut [f32]) {
    assert!(width > 0 && x.len() == y.len() * width, "{} elements in {} rows of {width}", x.len(), y.len());
    share::rows(cpu, y, 1, width * (share::EXP + 1), |first, y| {
        let rows = x[first * width..].chunks_exact(width);
        rows.zip(y).for_each(|(row, y)| *y = log_sum_exp_row(cpu.isa, row));
    });
}

for_each_isa!(fn log_sum_exp_row(x: &[f32]) -> f32 = log_sum_exp_body);

#[inline(always)]
fn log_sum_exp_body<M: MulAdd>(x: &[f32]) -> f32 {
    let max = lanes::max(x);
    // So that -∞ is not subtracted from itself.
    let zero = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let sum = lanes::fold(x, 0.0, |sum, x| sum + exp_negative::<M>(x - zero), |a, b| a + b);
    zero + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    fn reference(x: &[f32], scale: f32) -> Vec<f64> {
        let max = f64::from(x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let powers: Vec<f64> = x.iter().map(|&x| ((f64::from(x) - max) * f64::from(scale)).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / sum).collect()
    }

    #[test]
    fn rows_become_probabilities() {
        let mut rng = fastrand::Rng::with_seed(5);
        for cpu in Cpu::each() {
            for (width, rows) in (1..=70).map(|width| (width, 3)).chain([(512, 40), (1500, 17), (50_000, 1)]) {
                let x = random(&mut rng, rows * width, 20.0);
                for scale in [1.0, 0.125, 3.0] {
                    let mut y = x.clone();
                    softmax(&cpu, &mut y, width, scale);
                    // Errors of the exponential, the sum and its inverse; (x - max) * scale below 60 is rounded to 4e-6.
                    close(&y, x.chunks(width).flat_map(|x| reference(x, scale)), 5e-6, (&cpu, width, scale));
                }
                let mut sums = vec![0.0; rows];
                log_sum_exp(&cpu, &x, width, &mut sums);
                let log = |x: &[f32]| x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
                close(&sums, x.chunks(width).map(log), 1e-6, (&cpu, width));
            }
        }
    }

    #[test]
    fn unusual_numbers() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for cpu in Cpu::each() {
            for (x, expected, sum) in [
                ([0.0, -inf, 0.0, -inf], [0.5, 0.0, 0.5, 0.0], 2f32.ln()),
                ([f32::MAX, f32::MIN, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], f32::MAX),
                ([1e-45, 0.0, -1e-45, 0.0], [0.25; 4], 4f32.ln()),
                ([-inf; 4], [nan; 4], -inf),
                ([1.0, nan, 1.0, 1.0], [nan; 4], nan),
                ([1.0, inf, 1.0, 1.0], [nan; 4], nan),
            ] {
                let (mut y, mut log) = (x, [0.0]);
                log_sum_exp(&cpu, &x, 4, &mut log);
                close(&log, [f64::from(sum)], 1e-6, (&cpu, x));
                softmax(&cpu, &mut y, 4, 1.0);
                if expected[0].is_nan() {
                    // e^-∞ over NaN may be zero over NaN: NaN everywhere.
                    assert!(y.iter().all(|y| y.is_nan()), "{cpu:?} {x:?} {y:?}");
                } else {
                    close(&y, expected.map(f64::from), 1e-6, (&cpu, x));
                }
            }
        }
    }
}
