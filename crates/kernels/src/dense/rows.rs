//! Rows of activations, laid out for a product.

#![allow(clippy::extra_unused_type_parameters)] // loops without a product have no use for how it is rounded

use std::mem::MaybeUninit;
use std::ops::Range;

use super::Method;
use crate::convert::to_bf16_pair;
use crate::disjoint::Disjoint;
use crate::isa::MulAdd;
use crate::{Cpu, for_each_isa};

/// What the words of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// One input.
    F32,
    /// Two inputs, rounded.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code))]
    Bf16Pair,
}

/// Words of a row that are converted at a time: with those of twelve rows among which they are put, they lie in L1.
const CONVERTED: usize = 128;
/// Inputs that one thread converts while others would just wake up.
const SERIAL: usize = 1 << 14;

/// Rows, cut into tiles of nearly the same height. A tile is `[words, rows]`, so that a kernel reads it from end to end, and rows
/// whose distance is a multiple of 4 KiB do not share lines of the cache.
pub(super) struct Rows {
    laid: Vec<u32>,
    rows: usize,
    words: usize,
    tiles: usize,
}

impl Rows {
    /// Lays out `x [rows, inputs]`; `depth` is what inputs are padded to, with zeros.
    pub(super) fn lay(cpu: &Cpu, x: &[f32], (inputs, depth): (usize, usize), method: &Method) -> Self {
        let rows = x.len() / inputs;
        let words = if method.word == Word::F32 { depth } else { depth / 2 };
        let tiles = rows.div_ceil(method.tile);
        let mut laid = Vec::with_capacity(rows * words);
        let into = Disjoint::new(&mut laid.spare_capacity_mut()[..rows * words]);
        let turn = |range: Range<usize>| {
            for tile in range {
                let rows = cut(rows, tiles, tile);
                // SAFETY: tiles are disjoint, and each is taken once.
                let into = unsafe { into.part(rows.start * words..rows.end * words) };
                turn_round(cpu.isa, &x[rows.start * inputs..rows.end * inputs], inputs, method.word, into);
            }
        };
        if x.len() <= SERIAL {
            turn(0..tiles)
        } else {
            cpu.pool.split(tiles, 1, turn)
        }
        // SAFETY: all tiles together are rows * words, and `turn_round` has written every word of each.
        unsafe { laid.set_len(rows * words) };
        Self { laid, rows, words, tiles }
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.rows
    }

    /// Words of a row, an even number.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn tiles(&self) -> usize {
        self.tiles
    }

    /// The rows of a tile, and some of their words: `[words, rows]`.
    pub(super) fn tile(&self, tile: usize, words: Range<usize>) -> (Range<usize>, &[u32]) {
        let rows = cut(self.rows, self.tiles, tile);
        let start = rows.start * self.words;
        let x = &self.laid[start + words.start * rows.len()..start + words.end * rows.len()];
        (rows, x)
    }
}

/// The rows of one of `tiles` tiles.
fn cut(rows: usize, tiles: usize, tile: usize) -> Range<usize> {
    tile * rows / tiles..(tile + 1) * rows / tiles
}

for_each_isa!(
    fn turn_round(x: &[f32], inputs: usize, word: Word, into: &mut [MaybeUninit<u32>]) = turn_tile
);

/// A tile `x [rows, inputs]` to words `[words, rows]`; writes all of `into`.
#[inline(always)]
fn turn_tile<M: MulAdd>(x: &[f32], inputs: usize, word: Word, into: &mut [MaybeUninit<u32>]) {
    let rows = x.len() / inputs;
    let per_word = if word == Word::F32 { 1 } else { 2 };
    let mut words = [0; CONVERTED];
    for (block, into) in into.chunks_mut(CONVERTED * rows).enumerate() {
        let inputs_here = (block * CONVERTED * per_word).min(inputs)..((block + 1) * CONVERTED * per_word).min(inputs);
        for (i, row) in x.chunks_exact(inputs).enumerate() {
            match word {
                Word::F32 => words_of(&row[inputs_here.clone()], &mut words, |[x]: [f32; 1]| x.to_bits()),
                Word::Bf16Pair => words_of(&row[inputs_here.clone()], &mut words, to_bf16_pair),
            }
            for (words_of_rows, word) in into.chunks_exact_mut(rows).zip(words) {
                words_of_rows[i].write(word);
            }
        }
    }
}

/// Words of one row's inputs, and zeros where there are no more inputs.
#[inline(always)]
fn words_of<const N: usize>(inputs: &[f32], words: &mut [u32; CONVERTED], word: impl Fn([f32; N]) -> u32) {
    let (whole, rest) = inputs.as_chunks::<N>();
    words.iter_mut().zip(whole).for_each(|(to, inputs)| *to = word(*inputs));
    let mut last = [0.0; N];
    last[..rest.len()].copy_from_slice(rest);
    words.iter_mut().skip(whole.len()).enumerate().for_each(|(i, to)| *to = if i == 0 { word(last) } else { 0 });
}
