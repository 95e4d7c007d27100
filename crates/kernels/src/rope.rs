//! Rotary position embedding (Su et al. 2021): pairs of a head's elements are turned by angles that depend on the position.

use crate::head_layout::HeadLayout;
use crate::isa::MulAdd;
use crate::norm::{self, Norm};
use crate::{Cpu, for_each_isa};

/// Which elements are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// i and i + half (GPT-NeoX, and nearly all of Hugging Face).
    Halves,
    /// 2 i and 2 i + 1 (GPT-J, GGUF's llama).
    Neighbours,
    /// i and i + half / 2 among the first half of the elements, and the same among the second: an axis has a half to itself.
    Quarters,
}

/// Cosines and sines of every row's angles. The first 2 * half elements of a head are turned, the rest stays as it is.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// [rows, half]
    pub cos: &'a [f32],
    /// [rows, half]
    pub sin: &'a [f32],
    /// Pairs of a head.
    pub half: usize,
    /// Of elements.
    pub pairing: Pairing,
}

/// Light steps per element, with a norm.
const STEPS: usize = 6;

/// Turns every head of x in place; where there is a norm, every head is normed first.
pub fn rope(cpu: &Cpu, x: &mut [f32], heads: HeadLayout, rotation: Rotation<'_>, norm: Option<Norm<'_>>) {
    let Rotation { cos, sin, half, .. } = rotation;
    assert!(2 * half <= heads.width, "{half} pairs in heads of {}", heads.width);
    assert!(rotation.pairing != Pairing::Quarters || half.is_multiple_of(2), "{half} pairs of two axes");
    assert!(cos.len() == heads.rows * half && sin.len() == cos.len(), "angles of {} rows of {half}", heads.rows);
    norm.iter().for_each(|norm| norm.check(heads.width));
    heads.share(cpu, x, STEPS, |first, x, heads| {
        let rotation = Rotation { cos: &cos[first * half..], sin: &sin[first * half..], ..rotation };
        rope_part(cpu.isa, x, heads, rotation, norm);
    });
}

for_each_isa!(fn rope_part(x: &mut [f32], heads: HeadLayout, rotation: Rotation<'_>, norm: Option<Norm<'_>>) = rope_body);

#[inline(always)]
fn rope_body<M: MulAdd>(x: &mut [f32], heads: HeadLayout, rotation: Rotation<'_>, norm: Option<Norm<'_>>) {
    let Rotation { cos, sin, half, pairing } = rotation;
    for (i, row) in x.chunks_mut(heads.row_stride).enumerate() {
        let (cos, sin) = (&cos[i * half..][..half], &sin[i * half..][..half]);
        for head in row[..heads.used()].chunks_exact_mut(heads.width) {
            if let Some(norm) = norm {
                norm::in_place::<M>(norm, head);
            }
            let turned = &mut head[..2 * half];
            match pairing {
                Pairing::Halves => turn_halves::<M>(turned, cos, sin),
                Pairing::Neighbours => turn_neighbours::<M>(turned, cos, sin),
                Pairing::Quarters => {
                    let (first, second) = turned.split_at_mut(half);
                    turn_halves::<M>(first, &cos[..half / 2], &sin[..half / 2]);
                    turn_halves::<M>(second, &cos[half / 2..], &sin[half / 2..]);
                }
            }
        }
    }
}

/// (a, b) → (a cos - b sin, b cos + a sin)
#[inline(always)]
fn turn<M: MulAdd>(a: f32, b: f32, cos: f32, sin: f32) -> (f32, f32) {
    (M::mul_add(a, cos, -(b * sin)), M::mul_add(b, cos, a * sin))
}

#[inline(always)]
fn turn_halves<M: MulAdd>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = x.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        (*a, *b) = turn::<M>(*a, *b, *cos, *sin);
    }
}

#[inline(always)]
fn turn_neighbours<M: MulAdd>(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (pairs, _) = x.as_chunks_mut::<2>();
    for ([a, b], (cos, sin)) in pairs.iter_mut().zip(cos.iter().zip(sin)) {
        (*a, *b) = turn::<M>(*a, *b, *cos, *sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{close, random};

    /// One head, its rotation in f64.
    fn turned(head: &[f32], cos: &[f32], sin: &[f32], pairing: Pairing) -> Vec<f64> {
        let mut y: Vec<f64> = head.iter().map(|&x| f64::from(x)).collect();
        for i in 0..cos.len() {
            let [a, b] = match pairing {
                Pairing::Halves => [i, i + cos.len()],
                Pairing::Neighbours => [2 * i, 2 * i + 1],
                Pairing::Quarters => [i, i + cos.len() / 2].map(|at| if i < cos.len() / 2 { at } else { at + cos.len() / 2 }),
            };
            let (x, cos, sin) = ([y[a], y[b]], f64::from(cos[i]), f64::from(sin[i]));
            (y[a], y[b]) = (x[0] * cos - x[1] * sin, x[1] * cos + x[0] * sin);
        }
        y
    }

    #[test]
    fn heads_are_turned_by_their_row_and_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(3);
        for cpu in Cpu::each() {
            let odd = (1..=70).map(|half| (3, 2, 2 * half + half % 3, half, half % 5));
            for (rows, count, width, half, gap) in odd.chain([(1, 9, 64, 32, 384), (40, 14, 128, 64, 512), (5, 1, 1, 0, 0)]) {
                for pairing in [Pairing::Halves, Pairing::Neighbours, Pairing::Quarters] {
                    if pairing == Pairing::Quarters && half % 2 == 1 {
                        continue;
                    }
                    let heads = HeadLayout { rows, count, width, row_stride: count * width + gap };
                    let before = random(&mut rng, rows * heads.row_stride, 3.0);
                    let (cos, sin) = (random(&mut rng, rows * half, 1.0), random(&mut rng, rows * half, 1.0));
                    let mut x = before.clone();
                    rope(&cpu, &mut x, heads, Rotation { cos: &cos, sin: &sin, half, pairing }, None);
                    let expected = before.chunks(heads.row_stride).enumerate().flat_map(|(row, x)| {
                        let (inside, outside) = x.split_at(count * width);
                        let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
                        let heads = inside.chunks(width).flat_map(|head| turned(head, cos, sin, pairing));
                        heads.chain(outside.iter().map(|&x| f64::from(x))).collect::<Vec<_>>()
                    });
                    // Three roundings of sums below 6.
                    close(&x, expected, 1e-6, (&cpu, heads, half, pairing));
                }
            }
        }
    }

    #[test]
    fn a_norm_comes_first() {
        let mut rng = fastrand::Rng::with_seed(4);
        for cpu in Cpu::each() {
            for (rows, count, width, half) in [(1, 1, 128, 64), (3, 2, 72, 36), (20, 16, 256, 128), (2, 3, 96, 16)] {
                let heads = HeadLayout { rows, count, width, row_stride: count * width + 5 };
                let weight = random(&mut rng, width, 2.0);
                let (cos, sin) = (random(&mut rng, rows * half, 1.0), random(&mut rng, rows * half, 1.0));
                let rotation = Rotation { cos: &cos, sin: &sin, half, pairing: Pairing::Halves };
                let norm = Norm::rms(Some(&weight), 1e-6);
                let mut x = random(&mut rng, rows * heads.row_stride, 3.0);
                let mut apart = x.clone();
                rope(&cpu, &mut x, heads, rotation, Some(norm));
                norm::norm_heads(&cpu, norm, &mut apart, heads);
                rope(&cpu, &mut apart, heads, rotation, None);
                assert_eq!(x, apart, "{cpu:?} {heads:?}");
            }
        }
    }
}
