//! What a gated delta net forgets and learns at each row.

use crate::attention::HeadRows;
use crate::isa::MulAdd;
use crate::math::{at_least, sigmoid};
use crate::share::{self, Two};
use crate::{Cpu, for_each_isa};

/// What gates are made of. Heads are one number wide.
#[derive(Debug, Clone, Copy)]
pub struct DeltaGates<'a> {
    /// Steps in time, [rows, heads].
    pub a: HeadRows<'a>,
    /// [rows, heads]
    pub b: HeadRows<'a>,
    /// How fast each head forgets, [heads]: e^A_log, say.
    pub rate: &'a [f32],
    /// Added to `a`, [heads].
    pub bias: &'a [f32],
}

/// Light steps per head: an exponential and a logarithm of the C library, and a sigmoid.
const STEPS: usize = 250;

/// decay = -rate * ln(1 + e^(a + bias)) and beta = σ(b), [rows, heads] each.
pub fn delta_gates(cpu: &Cpu, x: &DeltaGates<'_>, decay: &mut [f32], beta: &mut [f32]) {
    let heads = x.a.heads;
    assert!(x.b.heads == heads && x.a.head_dim == 1 && x.b.head_dim == 1, "gates of one number per head");
    assert!(x.rate.len() == heads && x.bias.len() == heads, "rates of {heads} heads");
    assert!(decay.len() == beta.len() && decay.len().is_multiple_of(heads), "gates of rows of {heads} heads");
    [x.a, x.b].iter().for_each(|part| part.check(decay.len() / heads));
    share::rows_of_two(cpu, Two { x: decay, y: beta, widths: [heads; 2] }, heads * STEPS, |first, decay, beta| {
        for (i, (decay, beta)) in decay.chunks_exact_mut(heads).zip(beta.chunks_exact_mut(heads)).enumerate() {
            for (decay, (a, (rate, bias))) in decay.iter_mut().zip(x.a.row(first + i).iter().zip(x.rate.iter().zip(x.bias))) {
                *decay = -rate * softplus(a + bias);
            }
            beta.copy_from_slice(x.b.row(first + i));
            sigmoids(cpu.isa, beta);
        }
    });
}

/// ln(1 + e^x)
fn softplus(x: f32) -> f32 {
    at_least(x, 0.0) + (-x.abs()).exp().ln_1p()
}

for_each_isa!(fn sigmoids(x: &mut [f32]) = sigmoids_body);

#[inline(always)]
fn sigmoids_body<M: MulAdd>(x: &mut [f32]) {
    for x in x {
        *x = sigmoid::<M>(*x);
    }
}
