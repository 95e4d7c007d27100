//! Hidden states of several streams per row, x [rows, streams, width]: mixed with each other, and added to (alternating updates;
//! Baykal et al. 2023, arXiv:2301.13310).

use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa, share};

/// Each stream plus a mixture of all, x → y: y[o] = x[o] + Σ c[o, i] x[i], for c [rows, streams, streams].
pub fn mix_streams(cpu: &Cpu, coefficients: &[f32], x: &[f32], y: &mut [f32], width: usize) {
    assert!(width > 0 && x.len() == y.len() && x.len().is_multiple_of(width), "{} to {} by {width}", x.len(), y.len());
    if x.is_empty() {
        return;
    }
    let streams = coefficients.len() * width / x.len();
    let (row, square) = (streams * width, streams * streams);
    assert!(square > 0 && coefficients.len() / square * row == x.len(), "{} coefficients", coefficients.len());
    share::rows(cpu, y, row, row * (streams + 1), |first, y| {
        let rows = x[first * row..].chunks_exact(row).zip(coefficients[first * square..].chunks_exact(square));
        y.chunks_exact_mut(row).zip(rows).for_each(|(y, (x, c))| mix_row(cpu.isa, c, x, y, width));
    });
}

for_each_isa!(fn mix_row(coefficients: &[f32], x: &[f32], y: &mut [f32], width: usize) = mix_row_body);

#[inline(always)]
fn mix_row_body<M: MulAdd>(coefficients: &[f32], x: &[f32], y: &mut [f32], width: usize) {
    y.copy_from_slice(x);
    let streams = x.len() / width;
    for (y, coefficients) in y.chunks_exact_mut(width).zip(coefficients.chunks_exact(streams)) {
        for (x, c) in x.chunks_exact(width).zip(coefficients) {
            for (y, x) in y.iter_mut().zip(x) {
                *y = M::mul_add(*c, *x, *y);
            }
        }
    }
}

/// Adds v [rows, width] to every stream of y, times its share: y[o] += s[o] v, for s [rows, streams].
pub fn add_to_streams(cpu: &Cpu, shares: &[f32], v: &[f32], y: &mut [f32], width: usize) {
    assert!(width > 0 && v.len().is_multiple_of(width), "{} numbers in rows of {width}", v.len());
    let rows = v.len() / width;
    if rows == 0 {
        return;
    }
    let streams = shares.len() / rows;
    assert!(streams > 0 && shares.len() == rows * streams && y.len() == shares.len() * width, "{} shares", shares.len());
    share::rows(cpu, y, streams * width, streams * width, |first, y| {
        for (i, y) in y.chunks_exact_mut(streams * width).enumerate() {
            let row = first + i;
            add_row(cpu.isa, &shares[row * streams..][..streams], &v[row * width..][..width], y);
        }
    });
}

for_each_isa!(fn add_row(shares: &[f32], v: &[f32], y: &mut [f32]) = add_row_body);

#[inline(always)]
fn add_row_body<M: MulAdd>(shares: &[f32], v: &[f32], y: &mut [f32]) {
    for (y, share) in y.chunks_exact_mut(v.len()).zip(shares) {
        for (y, v) in y.iter_mut().zip(v) {
            *y = M::mul_add(*share, *v, *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    #[test]
    fn streams_are_mixed_and_added_to() {
        let mut rng = fastrand::Rng::with_seed(21);
        for cpu in Cpu::each() {
            for (rows, streams, width) in [(0, 2, 8), (1, 1, 1), (3, 4, 33), (70, 2, 500)] {
                let x = random(&mut rng, rows * streams * width, 2.0);
                let c = random(&mut rng, rows * streams * streams, 1.0);
                let at = |row: usize, stream: usize, i: usize| f64::from(x[(row * streams + stream) * width + i]);
                let each = |f: &dyn Fn(usize, usize, usize) -> f64| -> Vec<f64> {
                    (0..x.len()).map(|n| f(n / width / streams, n / width % streams, n % width)).collect()
                };
                let mut y = vec![0.0; x.len()];
                mix_streams(&cpu, &c, &x, &mut y, width);
                let share = |row: usize, o: usize, i: usize| f64::from(c[(row * streams + o) * streams + i]);
                let mixed = |row, o, i| at(row, o, i) + (0..streams).map(|j| share(row, o, j) * at(row, j, i)).sum::<f64>();
                close(&y, each(&mixed), 1e-5, ("mix", &cpu, rows, streams, width));

                let (v, s) = (random(&mut rng, rows * width, 2.0), random(&mut rng, rows * streams, 1.0));
                let mut y = x.clone();
                add_to_streams(&cpu, &s, &v, &mut y, width);
                let added = |row, o, i| at(row, o, i) + f64::from(s[row * streams + o]) * f64::from(v[row * width + i]);
                close(&y, each(&added), 1e-5, ("add", &cpu, rows, streams, width));
            }
        }
    }
}
