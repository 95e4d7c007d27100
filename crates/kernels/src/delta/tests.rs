use super::*;
use crate::check::{close, random};
use crate::{Isa, Pool};

struct Case {
    /// Of each sequence.
    rows: &'static [usize],
    key_heads: usize,
    value_heads: usize,
    key_dim: usize,
    value_dim: usize,
}

const CASES: [Case; 7] = [
    Case { rows: &[1], key_heads: 1, value_heads: 1, key_dim: 1, value_dim: 1 },
    Case { rows: &[200], key_heads: 1, value_heads: 2, key_dim: 32, value_dim: 32 },
    Case { rows: &[3, 1, 9], key_heads: 2, value_heads: 2, key_dim: 7, value_dim: 19 },
    Case { rows: &[10, 16, 17, 1], key_heads: 2, value_heads: 4, key_dim: 20, value_dim: 48 },
    Case { rows: &[64, 2, 0, 33, 5, 0], key_heads: 1, value_heads: 3, key_dim: 33, value_dim: 5 },
    Case { rows: &[31, 97], key_heads: 2, value_heads: 4, key_dim: 128, value_dim: 128 },
    Case { rows: &[1, 1, 1], key_heads: 3, value_heads: 6, key_dim: 64, value_dim: 112 },
];

/// Inputs of a case: queries, keys and values side by side in rows of more, and gates.
struct Inputs {
    rows: usize,
    qkv: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
}

/// Numbers behind the values of a row.
const GAP: usize = 3;

impl Case {
    fn stride(&self) -> usize {
        2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim + GAP
    }

    fn state_len(&self) -> usize {
        delta_state_len(self.value_heads, self.key_dim, self.value_dim)
    }

    fn width(&self) -> usize {
        self.value_heads * self.value_dim
    }

    fn inputs(&self, rng: &mut fastrand::Rng) -> Inputs {
        let rows = self.rows.iter().sum::<usize>();
        let mut qkv = random(rng, rows * self.stride(), 1.0);
        for row in qkv.chunks_exact_mut(self.stride()) {
            for head in row[..2 * self.key_heads * self.key_dim].chunks_exact_mut(self.key_dim) {
                let length = head.iter().map(|x| x * x).sum::<f32>().sqrt();
                head.iter_mut().for_each(|x| *x /= length);
            }
        }
        let gates = rows * self.value_heads;
        // Most heads forget little, some all.
        let decay = (0..gates).map(|_| -(rng.f32() * 6.0 - 5.0).exp() * if rng.u8(..20) == 0 { 300.0 } else { 1.0 });
        Inputs { rows, qkv, decay: decay.collect(), beta: (0..gates).map(|_| rng.f32()).collect() }
    }

    fn delta<'a>(&self, inputs: &'a Inputs) -> Delta<'a> {
        let keys = self.key_heads * self.key_dim;
        let part = |first, heads, head_dim| HeadRows {
            data: inputs.qkv.get(first..).unwrap_or_default(),
            stride: self.stride(),
            heads,
            head_dim,
        };
        Delta {
            q: part(0, self.key_heads, self.key_dim),
            k: part(keys, self.key_heads, self.key_dim),
            v: part(2 * keys, self.value_heads, self.value_dim),
            decay: &inputs.decay,
            beta: &inputs.beta,
            scale: (self.key_dim as f32).powf(-0.5),
        }
    }

    /// The rule as it is written, in f64.
    fn reference(&self, x: &Delta<'_>) -> Vec<f64> {
        let (depth, width) = (self.key_dim, self.value_dim);
        let mut y = Vec::new();
        let mut first = 0;
        for &rows in self.rows {
            let mut states = vec![vec![0.0; depth * width]; self.value_heads];
            for row in first..first + rows {
                for (head, state) in states.iter_mut().enumerate() {
                    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                    let shared = head / (self.value_heads / self.key_heads);
                    let (q, k, v) = (wide(x.q.head(row, shared)), wide(x.k.head(row, shared)), wide(x.v.head(row, head)));
                    let gate = row * self.value_heads + head;
                    let (kept, beta) = (f64::from(x.decay[gate]).exp(), f64::from(x.beta[gate]));
                    state.iter_mut().for_each(|s| *s *= kept);
                    for j in 0..width {
                        let known: f64 = (0..depth).map(|i| state[i * width + j] * k[i]).sum();
                        (0..depth).for_each(|i| state[i * width + j] += k[i] * beta * (v[j] - known));
                        y.push((0..depth).map(|i| state[i * width + j] * q[i]).sum::<f64>() * f64::from(x.scale));
                    }
                }
            }
            first += rows;
        }
        y
    }
}

/// The spans of sequences whose rows follow each other.
fn spans<'a>(rows: &[usize], states: &'a mut [Vec<f32>]) -> Vec<StateSpan<'a>> {
    let mut first = 0;
    let span = |(&rows, state): (&usize, &'a mut Vec<f32>)| {
        first += rows;
        StateSpan { rows: first - rows..first, state }
    };
    rows.iter().zip(states).map(span).collect()
}

/// Products of 128, two hundred changes of a state.
const TOLERANCE: f64 = 5e-6;

#[test]
fn rows_read_what_the_rule_says() {
    let mut rng = fastrand::Rng::with_seed(21);
    for case in &CASES {
        let inputs = case.inputs(&mut rng);
        let x = case.delta(&inputs);
        let expected = case.reference(&x);
        for cpu in Cpu::each() {
            let mut states = vec![vec![0.0; case.state_len()]; case.rows.len()];
            let mut y = vec![f32::NAN; inputs.rows * case.width()];
            gated_delta(&cpu, &x, &mut spans(case.rows, &mut states), &mut y);
            close(&y, expected.iter().copied(), TOLERANCE, (&cpu, case.rows));
        }
    }
}

#[test]
fn a_sequence_may_be_cut_anywhere() {
    let mut rng = fastrand::Rng::with_seed(22);
    let case = Case { rows: &[200], key_heads: 1, value_heads: 2, key_dim: 24, value_dim: 40 };
    let inputs = case.inputs(&mut rng);
    let expected = case.reference(&case.delta(&inputs));
    for cpu in Cpu::each() {
        for step in [1, 2, 7, 15, 16, 23, 64, 199, 200] {
            let mut state = vec![0.0; case.state_len()];
            let mut y = vec![f32::NAN; inputs.rows * case.width()];
            for first in (0..inputs.rows).step_by(step) {
                let rows = first..inputs.rows.min(first + step);
                gated_delta(&cpu, &case.delta(&inputs), &mut [StateSpan { rows, state: &mut state }], &mut y);
            }
            close(&y, expected.iter().copied(), TOLERANCE, (&cpu, step));
        }
    }
}

#[test]
fn company_and_threads_change_nothing() {
    let mut rng = fastrand::Rng::with_seed(23);
    for case in &CASES {
        let inputs = case.inputs(&mut rng);
        let x = case.delta(&inputs);
        for isa in Isa::available() {
            let [mut together, mut alone] = [(); 2].map(|()| vec![vec![0.0; case.state_len()]; case.rows.len()]);
            let [mut y, mut z] = [(); 2].map(|()| vec![f32::NAN; inputs.rows * case.width()]);
            gated_delta(&Cpu { isa, pool: Pool::new(3) }, &x, &mut spans(case.rows, &mut together), &mut y);
            let cpu = Cpu { isa, pool: Pool::new(1) };
            spans(case.rows, &mut alone).into_iter().for_each(|span| gated_delta(&cpu, &x, &mut [span], &mut z));
            assert!(y == z && together == alone, "{isa:?} {:?}", case.rows);
        }
    }
}

#[test]
fn gates_are_softplus_and_sigmoid() {
    let mut rng = fastrand::Rng::with_seed(24);
    for cpu in Cpu::each() {
        for (rows, heads) in [(1, 1), (5, 3), (40, 32)] {
            let x = random(&mut rng, rows * (2 * heads + 1), 30.0);
            let (rate, bias) = (random(&mut rng, heads, 2.0), random(&mut rng, heads, 2.0));
            let part = |first: usize| HeadRows { data: &x[first..], stride: 2 * heads + 1, heads, head_dim: 1 };
            let gates = DeltaGates { a: part(1), b: part(1 + heads), rate: &rate, bias: &bias };
            let (mut decay, mut beta) = (vec![f32::NAN; rows * heads], vec![f32::NAN; rows * heads]);
            delta_gates(&cpu, &gates, &mut decay, &mut beta);
            let of = |part: HeadRows<'_>, i: usize| f64::from(part.row(i / heads)[i % heads]);
            let softplus = |i: usize| (of(gates.a, i) + f64::from(bias[i % heads])).exp().ln_1p();
            close(&decay, (0..rows * heads).map(|i| -f64::from(rate[i % heads]) * softplus(i)), 1e-6, (&cpu, rows));
            close(&beta, (0..rows * heads).map(|i| 1.0 / (1.0 + (-of(gates.b, i)).exp())), 1e-6, (&cpu, rows));
        }
    }
}
