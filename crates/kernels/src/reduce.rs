//! A row → a number, or the places of its largest elements. A row is one thread's work: the result does not depend on threads,
//! and even the logits of a large vocabulary (150 000) take no more than some twenty microseconds.

use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa, lanes, share};

/// Elements that are looked through before their largest is compared with the largest so far: 4 KiB.
const BLOCK: usize = 1024;

/// Σ x
pub fn sum(cpu: &Cpu, x: &[f32]) -> f32 {
    sum_row(cpu.isa, x)
}

for_each_isa!(fn sum_row(x: &[f32]) -> f32 = sum_body);

#[inline(always)]
fn sum_body<M: MulAdd>(x: &[f32]) -> f32 {
    lanes::sum(x)
}

/// Σ x y
pub fn dot(cpu: &Cpu, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len());
    dot_row(cpu.isa, x, y)
}

for_each_isa!(fn dot_row(x: &[f32], y: &[f32]) -> f32 = dot_body);

#[inline(always)]
fn dot_body<M: MulAdd>(x: &[f32], y: &[f32]) -> f32 {
    lanes::fold_pairs(x, y, |sum, x, y| M::mul_add(x, y, sum))
}

/// Where the largest element is; of equals the first. `None` where there is none, or a NaN.
pub fn argmax(cpu: &Cpu, x: &[f32]) -> Option<usize> {
    argmax_row(cpu.isa, x)
}

for_each_isa!(fn argmax_row(x: &[f32]) -> Option<usize> = argmax_body);

#[inline(always)]
fn argmax_body<M: MulAdd>(x: &[f32]) -> Option<usize> {
    let (mut best, mut begin) = (f32::NEG_INFINITY, 0);
    for (i, block) in x.chunks(BLOCK).enumerate() {
        if block.iter().fold(false, |found, x| found | x.is_nan()) {
            return None;
        }
        let max = lanes::max(block);
        if max > best {
            (best, begin) = (max, i * BLOCK);
        }
    }
    x[begin..].iter().position(|x| *x == best).map(|place| begin + place)
}

/// An element of a row that is among the largest.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Candidate {
    /// Its place in the row.
    pub index: u32,
    /// Its value; -∞ for NaN.
    pub value: f32,
}

/// The `k` largest of every row of x [rows, width] → best [rows, k], largest first, of equals the first. For k up to some
/// hundred: experts of a router, candidates of a sampler.
pub fn top_k(cpu: &Cpu, x: &[f32], width: usize, k: usize, best: &mut [Candidate]) {
    assert!(0 < k && k <= width && width <= u32::MAX as usize, "{k} of {width}");
    assert!(x.len().is_multiple_of(width) && best.len() == x.len() / width * k, "{} of {} elements", best.len(), x.len());
    share::rows(cpu, best, k, width + k * k, |first, best| {
        let rows = x[first * width..].chunks_exact(width);
        rows.zip(best.chunks_exact_mut(k)).for_each(|(row, best)| top_k_row(cpu.isa, row, best));
    });
}

for_each_isa!(fn top_k_row(x: &[f32], best: &mut [Candidate]) = top_k_body);

#[inline(always)]
fn top_k_body<M: MulAdd>(x: &[f32], best: &mut [Candidate]) {
    /// Elements that are compared at once with the last of the best; after the first few hundred hardly any is larger.
    const LOOK: usize = 64;
    let k = best.len();
    let (head, rest) = x.split_at(k);
    for (i, x) in head.iter().enumerate() {
        let value = if x.is_nan() { f32::NEG_INFINITY } else { *x };
        insert(&mut best[..=i], Candidate { index: i as u32, value });
    }
    for (i, chunk) in rest.chunks(LOOK).enumerate() {
        let least = best[k - 1].value;
        if !chunk.iter().fold(false, |found, x| found | (*x > least)) {
            continue;
        }
        for (j, x) in chunk.iter().enumerate() {
            if *x > best[k - 1].value {
                insert(best, Candidate { index: (k + i * LOOK + j) as u32, value: *x });
            }
        }
    }
}

/// Puts one into a sorted list in place of the last.
fn insert(best: &mut [Candidate], one: Candidate) {
    let mut place = best.len() - 1;
    while place > 0 && best[place - 1].value < one.value {
        best[place] = best[place - 1];
        place -= 1;
    }
    best[place] = one;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    const INF: f32 = f32::INFINITY;

    #[test]
    fn sums_are_those_of_f64() {
        let mut rng = fastrand::Rng::with_seed(9);
        for cpu in Cpu::each() {
            for length in (0..=200).chain([150_000]) {
                let (x, y) = (random(&mut rng, length, 1.0), random(&mut rng, length, 1.0));
                let wide = |x: &f32| f64::from(*x);
                let expected = [x.iter().map(wide).sum(), x.iter().zip(&y).map(|(x, y)| wide(x) * wide(y)).sum()];
                // A lane adds up to 2344 numbers below one: each sum, of some 30 at most, is rounded to 2e-6.
                close(&[sum(&cpu, &x), dot(&cpu, &x, &y)], expected, 1e-6 + 2e-9 * length as f64, (&cpu, length));
            }
        }
    }

    #[test]
    fn the_largest_is_found() {
        let mut rng = fastrand::Rng::with_seed(10);
        for cpu in Cpu::each() {
            for length in (1..=70).chain([1024, 1025, 5000]) {
                let mut x = random(&mut rng, length, 9.0);
                let place = rng.usize(..length);
                x[place] = 10.0;
                assert_eq!(argmax(&cpu, &x), Some(place), "{cpu:?} {length}");
                x[rng.usize(place..length)] = 10.0;
                assert_eq!(argmax(&cpu, &x), Some(place), "the first of equals, {cpu:?} {length}");
                x[rng.usize(..length)] = f32::NAN;
                assert_eq!(argmax(&cpu, &x), None, "{cpu:?} {length}");
            }
            for (x, expected) in
                [(vec![], None), (vec![-INF; 3], Some(0)), (vec![-1.0, INF], Some(1)), (vec![-0.0, 0.0], Some(0))]
            {
                assert_eq!(argmax(&cpu, &x), expected, "{cpu:?} {x:?}");
            }
        }
    }

    #[test]
    fn the_k_largest_are_found_in_order() {
        let mut rng = fastrand::Rng::with_seed(11);
        for cpu in Cpu::each() {
            for (rows, width, k) in [(1, 1, 1), (17, 8, 2), (3, 70, 70), (5, 64, 8), (300, 128, 8), (2, 20_000, 64), (9, 257, 3)]
            {
                // Few different values, so that there are equals, and some that are no numbers.
                let draw = |rng: &mut fastrand::Rng| match rng.u32(..50) {
                    0 => f32::NAN,
                    1 => -INF,
                    2 => INF,
                    n => (n % 40) as f32 + (rng.u32(..30) as f32) * 0.01,
                };
                let x: Vec<f32> = (0..rows * width).map(|_| draw(&mut rng)).collect();
                let mut best = vec![Candidate::default(); rows * k];
                top_k(&cpu, &x, width, k, &mut best);
                for (row, best) in x.chunks(width).zip(best.chunks(k)) {
                    let value = |x: f32| if x.is_nan() { -INF } else { x };
                    let mut all: Vec<_> = (0..).zip(row).map(|(index, x)| Candidate { index, value: value(*x) }).collect();
                    all.sort_by(|a, b| b.value.total_cmp(&a.value));
                    assert_eq!(best, &all[..k], "{cpu:?} {rows} {width} {k}");
                }
            }
        }
    }
}
