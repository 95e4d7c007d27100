//! Rows of activations, laid out for a product.

#![allow(clippy::extra_unused_type_parameters)] // loops without a product have no use for how it is rounded

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::convert::to_bf16_pair;
use crate::disjoint::Disjoint;
use crate::isa::MulAdd;
use crate::product::{Input, Tiles};
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

/// Rows in tiles. A tile is `[words, rows]`, so that a kernel reads it from end to end, and rows whose distance is a multiple of 4
/// KiB do not share lines of the cache.
pub(super) struct Rows {
    laid: Vec<u32>,
    /// The first of them.
    first: usize,
    words: usize,
    tiles: Tiles,
}

impl Rows {
    /// Lays out the rows of tiles; `depth` is what inputs are padded to, with zeros.
    pub(super) fn lay(cpu: &Cpu, x: Input<'_>, tiles: Tiles, depth: usize, word: Word) -> Self {
        let words = if word == Word::F32 { depth } else { depth / 2 };
        let Range { start: first, end } = tiles.all();
        let mut laid = Vec::with_capacity((end - first) * words);
        let into = Disjoint::new(&mut laid.spare_capacity_mut()[..(end - first) * words]);
        let turn = |range: Range<usize>| {
            for rows in range.map(|tile| tiles.rows(tile)) {
                // SAFETY: tiles are disjoint, and each is taken once.
                let into = unsafe { into.part((rows.start - first) * words..(rows.end - first) * words) };
                turn_round(cpu.isa, x, rows, word, into);
            }
        };
        if (end - first) * x.width <= SERIAL {
            turn(0..tiles.count())
        } else {
            cpu.pool.split(tiles.count(), 1, turn)
        }
        // SAFETY: all tiles together are rows * words, and `turn_round` has written every word of each.
        unsafe { laid.set_len((end - first) * words) };
        Self { laid, first, words, tiles }
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.tiles.all().len()
    }

    /// Words of a row, an even number.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    pub(super) fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// The rows of a tile, and some of their words: `[words, rows]`.
    pub(super) fn tile(&self, tile: usize, words: Range<usize>) -> (Range<usize>, &[u32]) {
        let rows = self.tiles.rows(tile);
        let start = (rows.start - self.first) * self.words;
        let x = &self.laid[start + words.start * rows.len()..start + words.end * rows.len()];
        (rows, x)
    }
}

for_each_isa!(
    fn turn_round(x: Input<'_>, rows: Range<usize>, word: Word, into: &mut [MaybeUninit<u32>]) = turn_tile
);

/// A tile of rows to words `[words, rows]`; writes all of `into`.
#[inline(always)]
fn turn_tile<M: MulAdd>(x: Input<'_>, rows: Range<usize>, word: Word, into: &mut [MaybeUninit<u32>]) {
    let inputs = x.width;
    let per_word = if word == Word::F32 { 1 } else { 2 };
    let mut words = [0; CONVERTED];
    for (block, into) in into.chunks_mut(CONVERTED * rows.len()).enumerate() {
        let inputs_here = (block * CONVERTED * per_word).min(inputs)..((block + 1) * CONVERTED * per_word).min(inputs);
        for (i, row) in rows.clone().map(|row| x.row(row)).enumerate() {
            match word {
                Word::F32 => words_of(&row[inputs_here.clone()], &mut words, |[x]: [f32; 1]| x.to_bits()),
                Word::Bf16Pair => words_of(&row[inputs_here.clone()], &mut words, to_bf16_pair),
            }
            for (words_of_rows, word) in into.chunks_exact_mut(rows.len()).zip(words) {
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
