//! Attention among all rows of a sound, with a bias for how far apart two rows are (as in Raffel et al. 2020, arXiv:1910.10683, but
//! every distance has its own).

use crate::attention::HeadRows;
use crate::isa::MulAdd;
use crate::math::exp_negative;
use crate::{Cpu, for_each_isa, lanes, share};

/// Numbers that are worked on side by side.
const LANES: usize = 16;
/// Queries that a key is multiplied with once it is there: their sums fill half of the registers.
const ROWS: usize = 4;

/// Rows that see each other, [rows, heads, head_dim] each.
#[derive(Debug, Clone, Copy)]
pub struct Biased<'a> {
    /// Queries.
    pub q: HeadRows<'a>,
    /// Keys.
    pub k: HeadRows<'a>,
    /// Values.
    pub v: HeadRows<'a>,
    /// Factor on q kᵀ.
    pub scale: f32,
    /// What is added for each distance, [heads, 2 * reach]: for a key `reach` rows before the query, then one less, and so on until
    /// `reach - 1` rows behind it. Keys that are further away have the bias of the end.
    pub bias: &'a [f32],
}

/// What is made of the keys, values and biases of all heads first.
struct Prepared {
    numbers: Vec<f32>, // [heads, head]
    rows: usize,
    head_dim: usize,
}

/// The parts of one head.
struct Head<'a> {
    keys: &'a [f32],   // [panels, head_dim, LANES]: a key in each lane
    values: &'a [f32], // [panels, rows, LANES]: a dimension in each lane
    bias: &'a [f32],   // of keys from rows - 1 before the query on
}

/// y [rows, heads * head_dim]: for each row the values of all rows, weighed by softmax(scale q · k + bias).
///
/// # Panics
/// Lengths do not fit.
pub fn attention_biased(cpu: &Cpu, x: Biased<'_>, y: &mut [f32]) {
    let (width, rows) = HeadRows::of_one_kind([x.q, x.k, x.v], y);
    let biases = x.bias.len() / x.q.heads;
    assert!(biases > 0 && biases.is_multiple_of(2) && biases * x.q.heads == x.bias.len(), "{} biases", x.bias.len());
    if rows == 0 {
        return;
    }
    let prepared = Prepared::new(cpu, x, rows);
    share::rows(cpu, y, width, rows * (2 * width / ROWS + x.q.heads * share::EXP), |first, y| {
        look(cpu.isa, x, &prepared, first, y);
    });
}

impl Prepared {
    fn new(cpu: &Cpu, x: Biased, rows: usize) -> Self {
        let mut prepared = Self { numbers: Vec::new(), rows, head_dim: x.q.head_dim };
        let length: usize = prepared.lengths().into_iter().sum();
        prepared.numbers = vec![0.0; x.q.heads * length];
        let mut numbers = std::mem::take(&mut prepared.numbers);
        share::rows(cpu, &mut numbers, length, length, |first, some| {
            let heads = (first..).zip(some.chunks_exact_mut(length));
            heads.for_each(|(head, numbers)| prepared.fill(x, head, numbers));
        });
        Self { numbers, ..prepared }
    }

    /// Of keys, values and biases of a head.
    fn lengths(&self) -> [usize; 3] {
        let columns = self.rows.next_multiple_of(LANES);
        [columns * self.head_dim, self.rows * self.head_dim.next_multiple_of(LANES), self.rows + columns]
    }

    fn fill(&self, x: Biased, head: usize, numbers: &mut [f32]) {
        let [keys, values, _] = self.lengths();
        let (keys, rest) = numbers.split_at_mut(keys);
        let (values, bias) = rest.split_at_mut(values);
        for row in 0..self.rows {
            let panel = row / LANES * LANES * self.head_dim + row % LANES;
            x.k.head(row, head).iter().enumerate().for_each(|(d, k)| keys[panel + d * LANES] = *k);
            for (panel, v) in x.v.head(row, head).chunks(LANES).enumerate() {
                values[(panel * self.rows + row) * LANES..][..v.len()].copy_from_slice(v);
            }
        }
        let told = x.bias.len() / x.q.heads;
        let (told, reach) = (&x.bias[head * told..][..told], told / 2);
        for (i, bias) in bias.iter_mut().enumerate() {
            *bias = told[(i + reach + 1).saturating_sub(self.rows).min(told.len() - 1)];
        }
    }

    fn head(&self, head: usize) -> Head<'_> {
        let [keys, values, bias] = self.lengths();
        let (keys, rest) = self.numbers[head * (keys + values + bias)..][..keys + values + bias].split_at(keys);
        let (values, bias) = rest.split_at(values);
        Head { keys, values, bias }
    }
}

for_each_isa!(fn look(x: Biased<'_>, prepared: &Prepared, first: usize, y: &mut [f32]) = look_body);

/// Rows of the result from `first` on, so many at a time; what is missing of the last ones is done twice.
#[inline(always)]
fn look_body<M: MulAdd>(x: Biased<'_>, prepared: &Prepared, first: usize, y: &mut [f32]) {
    let (rows, head_dim) = (prepared.rows, prepared.head_dim);
    let (width, columns) = (x.q.heads * head_dim, rows.next_multiple_of(LANES));
    let mut scores = vec![0.0; ROWS * columns];
    for (tile, y) in y.chunks_mut(ROWS * width).enumerate() {
        let mut at = [0; ROWS];
        for r in 0..ROWS {
            at[r] = first + tile * ROWS + r.min(y.len() / width - 1);
        }
        for head in 0..x.q.heads {
            let parts = prepared.head(head);
            score::<M>(x, head, at, &parts, &mut scores);
            let mut totals = [0.0; ROWS];
            for r in 0..ROWS {
                let scores = &mut scores[r * columns..][..rows];
                let max = lanes::max(scores);
                totals[r] = lanes::map_sum(scores, |score| exp_negative::<M>(score - max));
            }
            for (d, values) in (0..head_dim).step_by(LANES).zip(parts.values.chunks_exact(rows * LANES)) {
                let sums = weigh::<M>(&scores, columns, values);
                for (r, y) in y.chunks_exact_mut(width).enumerate() {
                    let y = &mut y[head * head_dim..][d..head_dim.min(d + LANES)];
                    for (y, sum) in y.iter_mut().zip(&sums[r]) {
                        *y = sum / totals[r];
                    }
                }
            }
        }
    }
}

/// scale q · k + bias of some rows and all keys → scores [ROWS, columns].
#[inline(always)]
fn score<M: MulAdd>(x: Biased<'_>, head: usize, at: [usize; ROWS], parts: &Head<'_>, scores: &mut [f32]) {
    let (head_dim, columns) = (x.q.head_dim, scores.len() / ROWS);
    let mut q: [&[f32]; ROWS] = [&[]; ROWS];
    let mut bias: [&[f32]; ROWS] = [&[]; ROWS];
    let rows = parts.bias.len() - columns;
    for r in 0..ROWS {
        q[r] = x.q.head(at[r], head);
        bias[r] = &parts.bias[rows - 1 - at[r]..][..columns];
    }
    for (column, panel) in (0..columns).step_by(LANES).zip(parts.keys.chunks_exact(head_dim * LANES)) {
        let mut sums = [[0.0; LANES]; ROWS];
        for (d, keys) in panel.as_chunks::<LANES>().0.iter().enumerate() {
            for r in 0..ROWS {
                for l in 0..LANES {
                    sums[r][l] = M::mul_add(q[r][d], keys[l], sums[r][l]);
                }
            }
        }
        for r in 0..ROWS {
            for l in 0..LANES {
                scores[r * columns + column + l] = M::mul_add(sums[r][l], x.scale, bias[r][column + l]);
            }
        }
    }
}

/// Sums of a panel of values [rows, LANES], weighed by scores [ROWS, columns].
#[inline(always)]
fn weigh<M: MulAdd>(scores: &[f32], columns: usize, values: &[f32]) -> [[f32; LANES]; ROWS] {
    let mut sums = [[0.0; LANES]; ROWS];
    for (row, values) in values.as_chunks::<LANES>().0.iter().enumerate() {
        for r in 0..ROWS {
            for l in 0..LANES {
                sums[r][l] = M::mul_add(scores[r * columns + row], values[l], sums[r][l]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    #[test]
    fn rows_see_all_others_by_their_distance() {
        let mut rng = fastrand::Rng::with_seed(23);
        for cpu in Cpu::each() {
            for (rows, heads, head_dim, reach) in [(1, 1, 1, 1), (5, 2, 8, 3), (16, 1, 16, 40), (61, 3, 40, 20)] {
                let width = heads * head_dim;
                let [x, bias] = [3 * width * rows, heads * 2 * reach].map(|count| random(&mut rng, count, 1.0));
                let part = |i: usize| HeadRows { data: &x[i * width..], stride: 3 * width, heads, head_dim };
                let mut y = vec![0.0; rows * width];
                attention_biased(&cpu, Biased { q: part(0), k: part(1), v: part(2), scale: 0.3, bias: &bias }, &mut y);
                let at = |i: usize, row: usize, column: usize| f64::from(x[row * 3 * width + i * width + column]);
                let expected = (0..rows * width).map(|n| {
                    let (row, column) = (n / width, n % width);
                    let head = column / head_dim;
                    let score = |other: usize| {
                        let dims = head * head_dim..(head + 1) * head_dim;
                        let dot: f64 = dims.map(|i| at(0, row, i) * at(1, other, i)).sum();
                        let distance = (other as i64 - row as i64).clamp(-(reach as i64), reach as i64 - 1);
                        (0.3 * dot + f64::from(bias[head * 2 * reach + (distance + reach as i64) as usize])).exp()
                    };
                    let total: f64 = (0..rows).map(score).sum();
                    (0..rows).map(|other| score(other) / total * at(2, other, column)).sum()
                });
                close(&y, expected, 1e-5, (&cpu, rows, heads, head_dim, reach));
            }
        }
    }
}
