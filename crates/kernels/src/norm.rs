//! Norms over rows: RMS norm (Zhang and Sennrich 2019), layer norm (Ba et al. 2016), L2 norm.

use crate::attention::HeadRows;
use crate::head_layout::HeadLayout;
use crate::isa::MulAdd;
use crate::math::sigmoid;
use crate::share::Two;
use crate::{Cpu, activation, for_each_isa, lanes, share};

/// What a norm makes of a row x: (x - centre) / size * weight + bias.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    size: Size,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
}

/// What a row is divided by.
#[derive(Debug, Clone, Copy)]
enum Size {
    MeanSquare,
    Deviation,
    Length,
}

/// Light steps per element: filling, one or two sums, scaling.
const STEPS: usize = 4;

impl<'a> Norm<'a> {
    /// x / √(mean x² + eps) * weight [width], or without weight.
    pub fn rms(weight: Option<&'a [f32]>, eps: f32) -> Self {
        Self { size: Size::MeanSquare, weight, bias: None, eps }
    }

    /// (x - mean) / √(variance + eps) * weight [width] + bias [width]; either may be missing.
    pub fn layer(weight: Option<&'a [f32]>, bias: Option<&'a [f32]>, eps: f32) -> Self {
        Self { size: Size::Deviation, weight, bias, eps }
    }

    /// x / √(Σ x² + eps): queries and keys of gated delta nets.
    pub fn l2(eps: f32) -> Self {
        Self { size: Size::Length, weight: None, bias: None, eps }
    }

    /// # Panics
    /// When weights or biases are made for another width.
    pub(crate) fn check(&self, width: usize) {
        for part in [self.weight, self.bias].into_iter().flatten() {
            assert_eq!(part.len(), width, "weights of a norm over {width} elements");
        }
    }
}

/// Norms x [rows, width] → y, the same shape.
pub fn norm(cpu: &Cpu, norm: Norm<'_>, x: &[f32], y: &mut [f32], width: usize) {
    norm.check(width);
    assert!(x.len() == y.len() && x.len().is_multiple_of(width), "{} to {} elements in rows of {width}", x.len(), y.len());
    share::rows(cpu, y, width, width * STEPS, |first, y| {
        let rows = x[first * width..].chunks_exact(width);
        rows.zip(y.chunks_exact_mut(width)).for_each(|(x, y)| norm_row(cpu.isa, norm, x, y));
    });
}

for_each_isa!(fn norm_row(norm: Norm<'_>, x: &[f32], y: &mut [f32]) = norm_row_body);

#[inline(always)]
fn norm_row_body<M: MulAdd>(norm: Norm<'_>, x: &[f32], y: &mut [f32]) {
    y.copy_from_slice(x);
    in_place::<M>(norm, y);
}

/// Norms every head of x, in place.
pub fn norm_heads(cpu: &Cpu, norm: Norm<'_>, x: &mut [f32], heads: HeadLayout) {
    norm.check(heads.width);
    heads.share(cpu, x, STEPS, |_, x, heads| norm_part(cpu.isa, norm, x, heads));
}

for_each_isa!(fn norm_part(norm: Norm<'_>, x: &mut [f32], heads: HeadLayout) = norm_part_body);

#[inline(always)]
fn norm_part_body<M: MulAdd>(norm: Norm<'_>, x: &mut [f32], heads: HeadLayout) {
    for row in x.chunks_mut(heads.row_stride) {
        for head in row[..heads.used()].chunks_exact_mut(heads.width) {
            in_place::<M>(norm, head);
        }
    }
}

/// Norms every head of x [rows, heads, width] in place, and multiplies it by silu(gate): what a gated delta net reads.
pub fn norm_gated(cpu: &Cpu, norm: Norm<'_>, gates: HeadRows<'_>, x: &mut [f32]) {
    let width = gates.heads * gates.head_dim;
    norm.check(gates.head_dim);
    assert!(width > 0 && x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    gates.check(x.len() / width);
    share::rows(cpu, x, width, width * (STEPS + activation::STEPS), |first, x| {
        for (i, x) in x.chunks_exact_mut(width).enumerate() {
            norm_gated_row(cpu.isa, norm, gates.row(first + i), gates.head_dim, x);
        }
    });
}

for_each_isa!(fn norm_gated_row(norm: Norm<'_>, gates: &[f32], width: usize, x: &mut [f32]) = norm_gated_body);

#[inline(always)]
fn norm_gated_body<M: MulAdd>(norm: Norm<'_>, gates: &[f32], width: usize, x: &mut [f32]) {
    for (x, gates) in x.chunks_exact_mut(width).zip(gates.chunks_exact(width)) {
        in_place::<M>(norm, x);
        for (x, gate) in x.iter_mut().zip(gates) {
            *x *= gate * sigmoid::<M>(*gate);
        }
    }
}

/// A residual stream x [rows, width] and what a block adds to it.
#[derive(Debug)]
pub struct Residual<'a> {
    /// [rows, width]
    pub x: &'a mut [f32],
    /// [rows, width]
    pub delta: &'a [f32],
    /// Elements of a row.
    pub width: usize,
}

/// x += delta, and the norm of that → y [rows, width], while the row is in the first cache.
pub fn add_norm(cpu: &Cpu, norm: Norm<'_>, residual: Residual<'_>, y: &mut [f32]) {
    let Residual { x, delta, width } = residual;
    norm.check(width);
    assert!(x.len() == y.len() && x.len() == delta.len(), "{} + {} to {} elements", x.len(), delta.len(), y.len());
    assert!(x.len().is_multiple_of(width), "{} elements in rows of {width}", x.len());
    share::rows_of_two(cpu, Two { x, y, widths: [width; 2] }, width * (STEPS + 1), |first, x, y| {
        let deltas = delta[first * width..].chunks_exact(width);
        let rows = x.chunks_exact_mut(width).zip(y.chunks_exact_mut(width));
        rows.zip(deltas).for_each(|((x, y), delta)| add_norm_row(cpu.isa, norm, x, delta, y));
    });
}

for_each_isa!(fn add_norm_row(norm: Norm<'_>, x: &mut [f32], delta: &[f32], y: &mut [f32]) = add_norm_row_body);

#[inline(always)]
fn add_norm_row_body<M: MulAdd>(norm: Norm<'_>, x: &mut [f32], delta: &[f32], y: &mut [f32]) {
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += delta;
    }
    norm_row_body::<M>(norm, x, y);
}

/// One row, or one head.
#[inline(always)]
pub(crate) fn in_place<M: MulAdd>(norm: Norm<'_>, x: &mut [f32]) {
    let count = x.len() as f32;
    let squares = |x: &[f32], centre: f32| lanes::fold(x, 0.0, |sum, x| M::mul_add(x - centre, x - centre, sum), |a, b| a + b);
    let (centre, size) = match norm.size {
        Size::MeanSquare => (0.0, squares(x, 0.0) / count),
        Size::Length => (0.0, squares(x, 0.0)),
        Size::Deviation => {
            let mean = lanes::sum(x) / count;
            (mean, squares(x, mean) / count)
        }
    };
    let factor = 1.0 / (size + norm.eps).sqrt();
    // Multiplied by ones or added to zeros a row would be the same, but read more.
    match (norm.weight, norm.bias) {
        (None, None) => {
            for x in x {
                *x = (*x - centre) * factor;
            }
        }
        (Some(weight), None) => {
            for (x, w) in x.iter_mut().zip(weight) {
                *x = (*x - centre) * factor * w;
            }
        }
        (None, Some(bias)) => {
            for (x, b) in x.iter_mut().zip(bias) {
                *x = M::mul_add(*x - centre, factor, *b);
            }
        }
        (Some(weight), Some(bias)) => {
            for (x, (w, b)) in x.iter_mut().zip(weight.iter().zip(bias)) {
                *x = M::mul_add((*x - centre) * factor, *w, *b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    /// A few roundings of sums that are split into 64 lanes.
    const TOLERANCE: f64 = 2e-6;

    fn reference(norm: Norm<'_>, x: &[f32]) -> Vec<f64> {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let count = x.len() as f64;
        let sum = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x)).sum::<f64>();
        let mean = sum(&|x| x) / count;
        let (centre, size) = match norm.size {
            Size::MeanSquare => (0.0, sum(&|x| x * x) / count),
            Size::Length => (0.0, sum(&|x| x * x)),
            Size::Deviation => (mean, sum(&|x| (x - mean).powi(2)) / count),
        };
        let factor = 1.0 / (size + f64::from(norm.eps)).sqrt();
        let of = |part: Option<&[f32]>, i: usize, default: f64| part.map_or(default, |part| f64::from(part[i]));
        let affine = |(i, x): (usize, &f64)| (x - centre) * factor * of(norm.weight, i, 1.0) + of(norm.bias, i, 0.0);
        x.iter().enumerate().map(affine).collect()
    }

    fn all<'a>(weight: &'a [f32], bias: &'a [f32]) -> [Norm<'a>; 7] {
        [
            Norm::rms(Some(weight), 1e-6),
            Norm::rms(None, 1e-5),
            Norm::layer(Some(weight), Some(bias), 1e-5),
            Norm::layer(Some(weight), None, 1e-5),
            Norm::layer(None, Some(bias), 1e-5),
            Norm::layer(None, None, 1e-6),
            Norm::l2(1e-6),
        ]
    }

    #[test]
    fn rows_are_normed() {
        let mut rng = fastrand::Rng::with_seed(1);
        for cpu in Cpu::each() {
            for width in (1..=70).chain([128, 576, 1536, 1537]) {
                let rows = if width > 70 { 17 } else { 3 };
                let (weight, bias) = (random(&mut rng, width, 2.0), random(&mut rng, width, 2.0));
                let (x, delta) = (random(&mut rng, rows * width, 3.0), random(&mut rng, rows * width, 3.0));
                let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, d)| x + d).collect();
                for n in all(&weight, &bias) {
                    let case = (&cpu, width, n.size);
                    let mut y = vec![f32::NAN; x.len()];
                    norm(&cpu, n, &x, &mut y, width);
                    close(&y, x.chunks(width).flat_map(|x| reference(n, x)), TOLERANCE, case);
                    let mut stream = x.clone();
                    add_norm(&cpu, n, Residual { x: &mut stream, delta: &delta, width }, &mut y);
                    assert_eq!(stream, sum, "{case:?}");
                    close(&y, sum.chunks(width).flat_map(|x| reference(n, x)), TOLERANCE, case);
                }
            }
        }
    }

    #[test]
    fn heads_are_normed_and_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(2);
        for cpu in Cpu::each() {
            for (rows, count, width, gap) in [(1, 1, 1, 0), (3, 2, 5, 7), (17, 14, 128, 256), (5, 3, 64, 1), (300, 2, 80, 3)] {
                let heads = HeadLayout { rows, count, width, row_stride: count * width + gap };
                let weight = random(&mut rng, width, 2.0);
                let before = random(&mut rng, rows * heads.row_stride - gap, 3.0);
                let n = Norm::rms(Some(&weight), 1e-6);
                let mut x = before.clone();
                norm_heads(&cpu, n, &mut x, heads);
                let expected = before.chunks(heads.row_stride).flat_map(|row| {
                    let (inside, outside) = row.split_at(count * width);
                    let normed = inside.chunks(width).flat_map(|head| reference(n, head));
                    normed.chain(outside.iter().map(|&x| f64::from(x))).collect::<Vec<_>>()
                });
                close(&x, expected, TOLERANCE, (&cpu, heads));
            }
        }
    }

    #[test]
    fn heads_are_normed_and_gated() {
        let mut rng = fastrand::Rng::with_seed(3);
        for cpu in Cpu::each() {
            for (rows, heads, head_dim, gap) in [(1, 1, 1, 0), (1, 32, 128, 5), (40, 2, 7, 1), (130, 3, 64, 0)] {
                let (width, weight) = (heads * head_dim, random(&mut rng, head_dim, 2.0));
                let (x, z) = (random(&mut rng, rows * width, 3.0), random(&mut rng, rows * (width + gap), 8.0));
                let gates = HeadRows { data: &z, stride: width + gap, heads, head_dim };
                let (n, mut y) = (Norm::rms(Some(&weight), 1e-6), x.clone());
                norm_gated(&cpu, n, gates, &mut y);
                let silu = |z: f32| f64::from(z) / (1.0 + f64::from(-z).exp());
                let gates = (0..rows).flat_map(|row| gates.row(row).iter().map(|&z| silu(z)));
                let expected = x.chunks(head_dim).flat_map(|x| reference(n, x)).zip(gates).map(|(x, gate)| x * gate);
                close(&y, expected, TOLERANCE, (&cpu, rows, heads, head_dim));
            }
        }
    }

    #[test]
    fn far_from_zero_a_layer_norm_keeps_its_digits() {
        let x: Vec<f32> = (0..576).map(|i| 1000.0 + (i % 7) as f32).collect();
        for cpu in Cpu::each() {
            let (n, mut y) = (Norm::layer(None, None, 1e-5), x.clone());
            norm(&cpu, n, &x, &mut y, 576);
            // The mean is rounded at 1000: 6e-5 of a deviation of 2.
            close(&y, reference(n, &x), 5e-5, &cpu);
        }
    }

    #[test]
    fn unusual_numbers() {
        for cpu in Cpu::each() {
            for (x, weight, expected) in [
                ([0.0; 20], 1.0, 0.0),
                ([1e-40; 20], 1.0, 1e-37),
                ([f32::NAN; 20], 1.0, f32::NAN),
                ([f32::INFINITY; 20], 1.0, f32::NAN),
                ([1e18; 20], 2.0, 2.0),
            ] {
                let (weight, mut y) = ([weight; 20], [1.0; 20]);
                norm(&cpu, Norm::rms(Some(&weight), 1e-6), &x, &mut y, 20);
                close(&y, [f64::from(expected); 20], 1e-6, (&cpu, x[0]));
            }
        }
    }
}
