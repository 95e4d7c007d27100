//! Attention to the latest rows, with an embedding of how far back they are (Dai et al. 2019, arXiv:1901.02860): what encoders of
//! sound look around with. A row sees a dozen others, so this is no matrix product.

use crate::attention::HeadRows;
use crate::isa::MulAdd;
use crate::math::{exp_negative, tanh};
use crate::{Cpu, for_each_isa, lanes, share};

/// Rows of one sound, [rows, heads, head_dim] each.
#[derive(Debug, Clone, Copy)]
pub struct Nearby<'a> {
    /// Queries, scaled.
    pub q: HeadRows<'a>,
    /// Keys.
    pub k: HeadRows<'a>,
    /// Values.
    pub v: HeadRows<'a>,
    /// An embedding of each distance, [distances, heads * head_dim], that of the own row first.
    pub distances: &'a [f32],
    /// Scores s become cap * tanh(s / cap).
    pub softcap: f32,
}

/// y [rows, heads * head_dim]: for each row the values of the latest rows, itself included, as many as there are distances,
/// weighed by softmax(q · (k + distance)).
pub fn attention_nearby(cpu: &Cpu, x: Nearby<'_>, y: &mut [f32]) {
    let (width, _) = HeadRows::of_one_kind([x.q, x.k, x.v], y);
    let seen = x.distances.len() / width;
    assert!(seen > 0 && seen * width == x.distances.len(), "{} numbers of distances", x.distances.len());
    share::rows(cpu, y, width, seen * (3 * width + x.q.heads * share::EXP), |first, y| {
        let mut scores = vec![0.0; seen];
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            look(cpu.isa, x, first + i, &mut scores, y);
        }
    });
}

for_each_isa!(fn look(x: Nearby<'_>, row: usize, scores: &mut [f32], y: &mut [f32]) = look_body);

#[inline(always)]
fn look_body<M: MulAdd>(x: Nearby<'_>, row: usize, scores: &mut [f32], y: &mut [f32]) {
    let (width, head_dim) = (y.len(), x.q.head_dim);
    let scores = &mut scores[..(x.distances.len() / width).min(row + 1)];
    for (head, y) in y.chunks_exact_mut(head_dim).enumerate() {
        let q = x.q.head(row, head);
        let dot = |k: &[f32]| lanes::fold_pairs(q, k, |sum, x, y| M::mul_add(x, y, sum));
        for (back, score) in scores.iter_mut().enumerate() {
            let distance = &x.distances[back * width + head * head_dim..][..head_dim];
            let sum = dot(x.k.head(row - back, head)) + dot(distance);
            *score = x.softcap * tanh::<M>(sum / x.softcap);
        }
        let max = lanes::max(scores);
        let total = lanes::map_sum(scores, |score| exp_negative::<M>(score - max));
        y.fill(0.0);
        for (back, score) in scores.iter().enumerate() {
            let share = score / total;
            for (y, v) in y.iter_mut().zip(x.v.head(row - back, head)) {
                *y = M::mul_add(share, *v, *y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    #[test]
    fn rows_see_the_latest_ones() {
        let mut rng = fastrand::Rng::with_seed(17);
        for cpu in Cpu::each() {
            for (rows, heads, head_dim, seen) in [(1, 1, 1, 1), (5, 2, 8, 13), (60, 3, 40, 13)] {
                let width = heads * head_dim;
                let [x, distances] = [3 * width * rows, seen * width].map(|count| random(&mut rng, count, 1.0));
                let part = |i: usize| HeadRows { data: &x[i * width..], stride: 3 * width, heads, head_dim };
                let nearby = Nearby { q: part(0), k: part(1), v: part(2), distances: &distances, softcap: 5.0 };
                let mut y = vec![0.0; rows * width];
                attention_nearby(&cpu, nearby, &mut y);
                let at = |i: usize, row: usize, column: usize| f64::from(x[row * 3 * width + i * width + column]);
                let expected = (0..rows * width).map(|n| {
                    let (row, column) = (n / width, n % width);
                    let head = column / head_dim * head_dim;
                    let score = |back: usize| {
                        let keys = |i: usize| at(1, row - back, i) + f64::from(distances[back * width + i]);
                        let sum: f64 = (head..head + head_dim).map(|i| at(0, row, i) * keys(i)).sum();
                        (5.0 * (sum / 5.0).tanh()).exp()
                    };
                    let backs = 0..seen.min(row + 1);
                    let total: f64 = backs.clone().map(score).sum();
                    backs.map(|back| score(back) / total * at(2, row - back, column)).sum()
                });
                close(&y, expected, 1e-5, (&cpu, rows, heads, head_dim));
            }
        }
    }
}
