//! Sums and products of slices, element by element.

use crate::isa::MulAdd;
use crate::math::{at_least, at_most};
use crate::{Cpu, HeadLayout, for_each_isa, share};

/// Elements that threads cut a buffer at: 4 KiB.
const UNIT: usize = 1024;

/// y += x
pub fn add(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT, |first, y| add_part(cpu.isa, &x[first * UNIT..], y));
}

for_each_isa!(fn add_part(x: &[f32], y: &mut [f32]) = add_body);

#[inline(always)]
fn add_body<M: MulAdd>(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// y += factor * x: what a chosen expert adds.
pub fn add_scaled(cpu: &Cpu, factor: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT, |first, y| add_scaled_part(cpu.isa, factor, &x[first * UNIT..], y));
}

for_each_isa!(fn add_scaled_part(factor: f32, x: &[f32], y: &mut [f32]) = add_scaled_body);

#[inline(always)]
fn add_scaled_body<M: MulAdd>(factor: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = M::mul_add(factor, *x, *y);
    }
}

/// Adds the same row [width] to every row of y [rows, width]: a bias.
pub fn add_row(cpu: &Cpu, row: &[f32], y: &mut [f32]) {
    let width = row.len();
    assert!(width > 0 && y.len().is_multiple_of(width), "{} elements in rows of {width}", y.len());
    share::rows(cpu, y, width, width, |_, y| y.chunks_exact_mut(width).for_each(|y| add_part(cpu.isa, row, y)));
}

/// Multiplies every row of y [rows, width] by the same row [width].
pub fn mul_row(cpu: &Cpu, row: &[f32], y: &mut [f32]) {
    let width = row.len();
    assert!(width > 0 && y.len().is_multiple_of(width), "{} elements in rows of {width}", y.len());
    share::rows(cpu, y, width, width, |_, y| y.chunks_exact_mut(width).for_each(|y| mul_part(cpu.isa, row, y)));
}

/// y *= x
pub fn mul(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT, |first, y| mul_part(cpu.isa, &x[first * UNIT..], y));
}

for_each_isa!(fn mul_part(x: &[f32], y: &mut [f32]) = mul_body);

#[inline(always)]
fn mul_body<M: MulAdd>(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y *= x;
    }
}

/// y *= factor
pub fn scale(cpu: &Cpu, factor: f32, y: &mut [f32]) {
    share::rows(cpu, y, UNIT, UNIT, |_, y| scale_part(cpu.isa, factor, y));
}

for_each_isa!(fn scale_part(factor: f32, y: &mut [f32]) = scale_body);

#[inline(always)]
fn scale_body<M: MulAdd>(factor: f32, y: &mut [f32]) {
    for y in y {
        *y *= factor;
    }
}

/// Brings y into a range; what is not a number stays that.
pub fn clamp(cpu: &Cpu, [least, most]: [f32; 2], y: &mut [f32]) {
    share::rows(cpu, y, UNIT, UNIT, |_, y| clamp_part(cpu.isa, least, most, y));
}

for_each_isa!(fn clamp_part(least: f32, most: f32, y: &mut [f32]) = clamp_body);

#[inline(always)]
fn clamp_body<M: MulAdd>(least: f32, most: f32, y: &mut [f32]) {
    for y in y {
        *y = at_most(at_least(*y, least), most);
    }
}

/// y [rows, width] *= the factor of its row [rows]
pub fn scale_rows(cpu: &Cpu, factors: &[f32], y: &mut [f32]) {
    let width = y.len() / factors.len().max(1);
    assert_eq!(width * factors.len(), y.len(), "a factor for each row");
    if width > 0 {
        share::rows(cpu, y, width, width, |first, y| {
            y.chunks_exact_mut(width).zip(&factors[first..]).for_each(|(y, factor)| scale_part(cpu.isa, *factor, y));
        });
    }
}

/// Heads of x *= the factor of their row [rows]
pub fn scale_heads(cpu: &Cpu, factors: &[f32], x: &mut [f32], heads: HeadLayout) {
    assert_eq!(factors.len(), heads.rows, "a factor for each row");
    heads.share(cpu, x, 1, |first, x, heads| {
        for (row, factor) in x.chunks_mut(heads.row_stride).zip(&factors[first..]) {
            scale_part(cpu.isa, *factor, &mut row[..heads.used()]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::random;

    #[test]
    fn every_element_is_reached() {
        let mut rng = fastrand::Rng::with_seed(8);
        for cpu in Cpu::each() {
            for length in (0..=70).chain([1024, 100_001]) {
                let (x, before) = (random(&mut rng, length, 2.0), random(&mut rng, length, 2.0));
                let check = |name: &str, run: &dyn Fn(&mut [f32]), expected: &dyn Fn(f32, f32) -> f32| {
                    let mut y = before.clone();
                    run(&mut y);
                    for (i, y) in y.into_iter().enumerate() {
                        // A fused multiplication and addition is rounded once, the reference twice.
                        assert!((y - expected(x[i], before[i])).abs() < 1e-6, "{name} {cpu:?} {length} {i}");
                    }
                };
                check("add", &|y| add(&cpu, &x, y), &|x, y| y + x);
                check("add_scaled", &|y| add_scaled(&cpu, -0.3, &x, y), &|x, y| y - 0.3 * x);
                check("mul", &|y| mul(&cpu, &x, y), &|x, y| y * x);
                check("scale", &|y| scale(&cpu, 0.7, y), &|_, y| y * 0.7);
                check("clamp", &|y| clamp(&cpu, [-0.9, 1.1], y), &|_, y| y.clamp(-0.9, 1.1));
            }
            for (rows, width) in (1..=17).flat_map(|rows| [(rows, 1), (rows, 23), (rows, 5000)]) {
                let (row, before) = (random(&mut rng, width, 2.0), random(&mut rng, rows * width, 2.0));
                let mut y = before.clone();
                add_row(&cpu, &row, &mut y);
                assert!((0..y.len()).all(|i| y[i] == before[i] + row[i % width]), "{cpu:?} {rows} {width}");
                let mut y = before.clone();
                mul_row(&cpu, &row, &mut y);
                assert!((0..y.len()).all(|i| y[i] == before[i] * row[i % width]), "{cpu:?} {rows} {width}");
                let (factors, mut y) = (random(&mut rng, rows, 2.0), before.clone());
                scale_rows(&cpu, &factors, &mut y);
                assert!((0..y.len()).all(|i| y[i] == before[i] * factors[i / width]), "{cpu:?} {rows} {width}");
            }
        }
    }
}
