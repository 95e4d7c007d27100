//! Functions of single elements, and products of a gate and a value.

use crate::isa::MulAdd;
use crate::math::{at_least, at_most, clamp, erf, sigmoid, tanh};
use crate::{Cpu, for_each_isa, share};

/// A function of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// max(x, 0)² (So et al. 2021)
    ReluSquared,
    /// σ(x) = 1 / (1 + e^-x)
    Sigmoid,
    /// x σ(x) (Elfwing et al. 2017)
    Silu,
    /// x Φ(x) (Hendrycks and Gimpel 2016)
    Gelu,
    /// x Φ(x), Φ approximated by tanh (there, too)
    GeluTanh,
    /// x σ(1.702 x) (there, too)
    QuickGelu,
}

/// Elements that threads cut a buffer at: 4 KiB.
const UNIT: usize = 1024;
/// Light steps of the dearest function: a rational function and a division.
pub(crate) const STEPS: usize = share::EXP + 3;

/// x, in place.
pub fn activate(cpu: &Cpu, activation: Activation, x: &mut [f32]) {
    share::rows(cpu, x, UNIT, UNIT * STEPS, |_, x| activate_part(cpu.isa, activation, x));
}

for_each_isa!(pub(crate) fn activate_part(activation: Activation, x: &mut [f32]) = activate_body);

#[inline(always)]
fn activate_body<M: MulAdd>(activation: Activation, x: &mut [f32]) {
    activation.go::<M>(InPlace(x));
}

/// x → y, of the same length.
pub fn activate_into(cpu: &Cpu, activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    share::rows(cpu, y, UNIT, UNIT * STEPS, |first, y| activate_into_part(cpu.isa, activation, &x[first * UNIT..], y));
}

for_each_isa!(fn activate_into_part(activation: Activation, x: &[f32], y: &mut [f32]) = activate_into_body);

#[inline(always)]
fn activate_into_body<M: MulAdd>(activation: Activation, x: &[f32], y: &mut [f32]) {
    activation.go::<M>(Into { x, y });
}

/// How a gate acts on a value: activation(min(gate, limit)) * (clamp(value, ±limit) + offset).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gate {
    /// Of the gate.
    pub activation: Activation,
    /// Infinite in most models.
    pub limit: f32,
    /// Zero in most models, one in gpt-oss.
    pub offset: f32,
}

impl Gate {
    /// activation(gate) * value
    pub fn new(activation: Activation) -> Self {
        Self { activation, limit: f32::INFINITY, offset: 0.0 }
    }
}

/// Gates and values, each [rows, inner], whose rows begin `strides` apart.
#[derive(Debug, Clone, Copy)]
pub struct Gated<'a> {
    gates: &'a [f32],
    values: &'a [f32],
    strides: [usize; 2],
    inner: usize,
}

impl<'a> Gated<'a> {
    /// [rows, 2 * inner]: gates first, then values, as in a gated feed-forward part (Shazeer 2020).
    pub fn gate_first(x: &'a [f32], inner: usize) -> Self {
        Self { gates: x, values: x.get(inner..).unwrap_or_default(), strides: [2 * inner; 2], inner }
    }

    /// [rows, 2 * inner]: values first, then gates, as in a gated linear unit (Dauphin et al. 2016).
    pub fn gate_last(x: &'a [f32], inner: usize) -> Self {
        let gate_first = Self::gate_first(x, inner);
        Self { gates: gate_first.values, values: x, ..gate_first }
    }

    /// Two buffers, [rows, inner] each.
    pub fn apart(gates: &'a [f32], values: &'a [f32], inner: usize) -> Self {
        Self { gates, values, strides: [inner; 2], inner }
    }

    /// The same, with gates in wider rows.
    pub fn gates_in_rows_of(self, stride: usize) -> Self {
        Self { strides: [stride, self.inner], ..self }
    }

    /// Whether gates and values of `rows` are there.
    fn holds(&self, rows: usize) -> bool {
        let needed = |stride| rows.saturating_sub(1) * stride + if rows > 0 { self.inner } else { 0 };
        self.gates.len() >= needed(self.strides[0]) && self.values.len() >= needed(self.strides[1])
    }
}

/// The product of gates and values → y [rows, inner].
pub fn gated(cpu: &Cpu, gate: Gate, x: Gated<'_>, y: &mut [f32]) {
    let Gated { gates, values, strides, inner } = x;
    assert!(inner > 0 && y.len().is_multiple_of(inner), "{} elements in rows of {inner}", y.len());
    assert!(x.holds(y.len() / inner), "gates and values of {} rows", y.len() / inner);
    // Cut anywhere, not between rows: a single one is worth two threads.
    share::rows(cpu, y, UNIT, UNIT * (STEPS + 2), |first, y| {
        let (mut at, mut rest) = (first * UNIT, y);
        while !rest.is_empty() {
            let (row, column) = (at / inner, at % inner);
            let (piece, behind) = rest.split_at_mut(rest.len().min(inner - column));
            let [gates, values] =
                [(gates, strides[0]), (values, strides[1])].map(|(part, stride)| &part[row * stride + column..][..piece.len()]);
            gated_row(cpu.isa, gate, gates, values, piece);
            (at, rest) = (at + piece.len(), behind);
        }
    });
}

for_each_isa!(fn gated_row(gate: Gate, gates: &[f32], values: &[f32], y: &mut [f32]) = gated_body);

#[inline(always)]
fn gated_body<M: MulAdd>(gate: Gate, gates: &[f32], values: &[f32], y: &mut [f32]) {
    gate.activation.go::<M>(Product { gate, gates, values, y });
}

/// cap * tanh(x / cap), in place.
pub fn soft_cap(cpu: &Cpu, x: &mut [f32], cap: f32) {
    share::rows(cpu, x, UNIT, UNIT * STEPS, |_, x| soft_cap_part(cpu.isa, x, cap));
}

for_each_isa!(fn soft_cap_part(x: &mut [f32], cap: f32) = soft_cap_body);

#[inline(always)]
fn soft_cap_body<M: MulAdd>(x: &mut [f32], cap: f32) {
    let share = 1.0 / cap;
    for x in x {
        *x = cap * tanh::<M>(*x * share);
    }
}

/// A loop that is compiled for every function.
trait Loop {
    fn run(self, f: impl Fn(f32) -> f32);
}

struct InPlace<'a>(&'a mut [f32]);

struct Into<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

struct Product<'a> {
    gate: Gate,
    gates: &'a [f32],
    values: &'a [f32],
    y: &'a mut [f32],
}

impl Loop for InPlace<'_> {
    #[inline(always)]
    fn run(self, f: impl Fn(f32) -> f32) {
        for x in self.0 {
            *x = f(*x);
        }
    }
}

impl Loop for Into<'_> {
    #[inline(always)]
    fn run(self, f: impl Fn(f32) -> f32) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = f(*x);
        }
    }
}

impl Loop for Product<'_> {
    #[inline(always)]
    fn run(self, f: impl Fn(f32) -> f32) {
        let Gate { limit, offset, .. } = self.gate;
        for (y, (gate, value)) in self.y.iter_mut().zip(self.gates.iter().zip(self.values)) {
            let gate = at_most(*gate, limit);
            *y = f(gate) * (clamp(*value, limit) + offset);
        }
    }
}

impl Activation {
    /// Runs a loop with this function: the choice is made outside of the loop.
    #[inline(always)]
    fn go<M: MulAdd>(self, over: impl Loop) {
        match self {
            Self::Relu => over.run(relu),
            Self::ReluSquared => over.run(relu_squared),
            Self::Sigmoid => over.run(sigmoid::<M>),
            Self::Silu => over.run(silu::<M>),
            Self::Gelu => over.run(gelu::<M>),
            Self::GeluTanh => over.run(gelu_tanh::<M>),
            Self::QuickGelu => over.run(quick_gelu::<M>),
        }
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    at_least(x, 0.0)
}

#[inline(always)]
fn relu_squared(x: f32) -> f32 {
    relu(x) * relu(x)
}

#[inline(always)]
fn silu<M: MulAdd>(x: f32) -> f32 {
    x * sigmoid::<M>(x)
}

#[inline(always)]
fn quick_gelu<M: MulAdd>(x: f32) -> f32 {
    x * sigmoid::<M>(1.702 * x)
}

/// Φ(x) = (1 + erf(x / √2)) / 2
#[inline(always)]
fn gelu<M: MulAdd>(x: f32) -> f32 {
    let half = 0.5 * x;
    M::mul_add(half, erf::<M>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
#[inline(always)]
fn gelu_tanh<M: MulAdd>(x: f32) -> f32 {
    const LINEAR: f32 = 0.797_884_6;
    const CUBIC: f32 = LINEAR * 0.044_715;
    let half = 0.5 * x;
    M::mul_add(half, tanh::<M>(x * M::mul_add(CUBIC, x * x, LINEAR)), half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    const ALL: [Activation; 7] = [
        Activation::Relu,
        Activation::ReluSquared,
        Activation::Sigmoid,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
    ];

    /// Φ by Simpson's rule, to 1e-12.
    fn normal_cdf(x: f64) -> f64 {
        let (n, x) = (2000, x.clamp(-9.0, 9.0));
        let step = x / f64::from(n);
        let density = |i: i32| (-0.5 * (f64::from(i) * step).powi(2)).exp();
        let weight = |i: i32| if i == 0 || i == n { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        let area: f64 = (0..=n).map(|i| weight(i) * density(i)).sum::<f64>() * step / 3.0;
        0.5 + area / (2.0 * std::f64::consts::PI).sqrt()
    }

    fn reference(activation: Activation, x: f32) -> f64 {
        let x = f64::from(x);
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match activation {
            Activation::Relu => x.max(0.0),
            Activation::ReluSquared => x.max(0.0).powi(2),
            Activation::Sigmoid => sigmoid(x),
            Activation::Silu => x * sigmoid(x),
            Activation::Gelu => x * normal_cdf(x),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::QuickGelu => x * sigmoid(1.702 * x),
        }
    }

    /// Functions are right to 4e-7; 1 + erf and 1 + tanh lose that much of 1 again, times x, below -1.
    const TOLERANCE: f64 = 1e-6;

    #[test]
    fn functions_are_those_of_the_papers() {
        let mut rng = fastrand::Rng::with_seed(6);
        for cpu in Cpu::each() {
            for length in (0..=70).chain([20_000]) {
                let size = [0.1, 3.0, 12.0][length % 3];
                let x = random(&mut rng, length, size);
                let sample = if length > 70 { 50 } else { 1 };
                for activation in ALL {
                    let (mut y, mut z) = (x.clone(), vec![f32::NAN; length]);
                    activate(&cpu, activation, &mut y);
                    activate_into(&cpu, activation, &x, &mut z);
                    assert_eq!(y, z, "{cpu:?} {activation:?}");
                    let y: Vec<f32> = y.into_iter().step_by(sample).collect();
                    let expected = x.iter().step_by(sample).map(|&x| reference(activation, x));
                    close(&y, expected, TOLERANCE, (&cpu, activation, length));
                }
                let mut y = x.clone();
                soft_cap(&cpu, &mut y, 2.5);
                close(&y, x.iter().map(|&x| 2.5 * (f64::from(x) / 2.5).tanh()), TOLERANCE, (&cpu, length));
            }
        }
    }

    #[test]
    fn unusual_numbers() {
        for cpu in Cpu::each() {
            for activation in ALL {
                for (x, limit) in
                    [(1e-40, 1e-40), (-100.0, 0.0), (1e10, 1e10), (f32::INFINITY, f32::INFINITY), (f32::NAN, f32::NAN)]
                {
                    let mut y = [x; 17];
                    activate(&cpu, activation, &mut y);
                    let expected = match activation {
                        Activation::ReluSquared => x.max(0.0).powi(2) + 0.0 * x,
                        Activation::Sigmoid => reference(activation, x) as f32,
                        _ => limit,
                    };
                    let expected = if expected.is_nan() && x.is_infinite() { x } else { expected };
                    close(&y, [f64::from(expected); 17], TOLERANCE, (&cpu, activation, x));
                }
            }
        }
    }

    #[test]
    fn gates_act_on_values() {
        let mut rng = fastrand::Rng::with_seed(7);
        let gpt_oss = Gate { activation: Activation::QuickGelu, limit: 2.0, offset: 1.0 };
        for cpu in Cpu::each() {
            for (rows, inner) in (1..=17).map(|rows| (rows, 4 * rows + rows % 3)).chain([(1, 17_000), (33, 1025), (0, 8)]) {
                let x = random(&mut rng, rows * 2 * inner, 4.0);
                let half = |second: usize| -> Vec<f32> {
                    x.chunks(2 * inner).flat_map(|row| row[second * inner..][..inner].to_vec()).collect()
                };
                let halves = [half(0), half(1)];
                for gate in [Gate::new(Activation::Silu), Gate::new(Activation::Relu), gpt_oss] {
                    let expected = |gates: &[f32], values: &[f32]| -> Vec<f64> {
                        let limited = |v: f32| f64::from(v.clamp(-gate.limit, gate.limit) + gate.offset);
                        let act = |g: f32| reference(gate.activation, g.min(gate.limit));
                        gates.iter().zip(values).map(|(g, v)| act(*g) * limited(*v)).collect()
                    };
                    for (case, source, expected) in [
                        ("first", Gated::gate_first(&x, inner), expected(&halves[0], &halves[1])),
                        ("last", Gated::gate_last(&x, inner), expected(&halves[1], &halves[0])),
                        ("apart", Gated::apart(&halves[0], &halves[1], inner), expected(&halves[0], &halves[1])),
                        (
                            "rows",
                            Gated::apart(&x, &halves[1], inner).gates_in_rows_of(2 * inner),
                            expected(&halves[0], &halves[1]),
                        ),
                    ] {
                        let mut y = vec![f32::NAN; rows * inner];
                        gated(&cpu, gate, source, &mut y);
                        close(&y, expected, TOLERANCE, (&cpu, case, gate, rows, inner));
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "gates and values of 2 rows")]
    fn gates_that_are_missing_are_noticed() {
        gated(Cpu::host(), Gate::new(Activation::Silu), Gated::gate_first(&[0.0; 15], 4), &mut [0.0; 8]);
    }
}
