//! Gates that mostly say nothing (Gaussian top-k; You et al. 2025, arXiv:2506.06644).

use crate::head_layout::HeadLayout;
use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa, lanes};

/// Light steps per element: two sums and a subtraction.
const STEPS: usize = 4;

/// max(x - (mean + deviations * standard deviation), 0) of each head, in place.
pub fn above(cpu: &Cpu, x: &mut [f32], heads: HeadLayout, deviations: f32) {
    heads.share(cpu, x, STEPS, |_, x, heads| above_part(cpu.isa, x, heads, deviations));
}

for_each_isa!(fn above_part(x: &mut [f32], heads: HeadLayout, deviations: f32) = above_body);

#[inline(always)]
fn above_body<M: MulAdd>(x: &mut [f32], heads: HeadLayout, deviations: f32) {
    for row in x.chunks_mut(heads.row_stride) {
        for head in row[..heads.used()].chunks_exact_mut(heads.width) {
            let count = head.len() as f32;
            let mean = lanes::sum(head) / count;
            let variance = lanes::fold(head, 0.0, |sum, x| M::mul_add(x - mean, x - mean, sum), |a, b| a + b) / count;
            let least = M::mul_add(deviations, variance.sqrt(), mean);
            for x in head {
                *x = (*x - least).max(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    #[test]
    fn only_what_stands_out_is_left() {
        let mut rng = fastrand::Rng::with_seed(4);
        for cpu in Cpu::each() {
            for (rows, width, row_stride) in [(1, 1, 1), (3, 70, 70), (5, 1000, 2003)] {
                let before = random(&mut rng, rows * row_stride, 2.0);
                let mut x = before.clone();
                above(&cpu, &mut x, HeadLayout { rows, count: 1, width, row_stride }, 0.67);
                for (i, x) in x.into_iter().enumerate() {
                    let (row, column) = (i / row_stride, i % row_stride);
                    let head: Vec<f64> = before[row * row_stride..][..width].iter().map(|&x| f64::from(x)).collect();
                    let mean = head.iter().sum::<f64>() / width as f64;
                    let variance = head.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                    let expected = match head.get(column) {
                        Some(gate) => (gate - mean - 0.67 * variance.sqrt()).max(0.0),
                        None => f64::from(before[i]),
                    };
                    assert!((f64::from(x) - expected).abs() < 1e-5, "{cpu:?} {rows} {width} {i}: {x} {expected}");
                }
            }
        }
    }
}
