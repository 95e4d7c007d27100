//! The loops that all instruction sets share, around the few instructions in which they differ ([`Kernel`]).
//!
//! A tile is a few rows by a few panels whose sums stay in registers. Every sum is made in the same order whatever the tile: by
//! blocks of [`BLOCK`] words, words in order in a block, blocks in order. So a row's result depends neither on the rows beside
//! it nor on the number of threads.

use std::ops::Range;

use super::rows::Rows;
use super::{DenseMatrix, PANEL, Plain};
use crate::product::Output;

/// Most words of a row between two visits to the output. A tile of twelve rows is then 18 KiB, which stays in L1 while panels
/// stream by.
const BLOCK: usize = 384;
/// Panels that all tiles of rows are multiplied by before the next panels: a block of twelve, 288 KiB, stays in L2.
const PANELS_IN_CACHE: usize = 12;
/// One format on one instruction set: how sixteen outputs are multiplied by a word of a row.
///
/// # Safety
/// The functions may be called only where the machine has the instruction set.
pub(super) unsafe trait Kernel {
    /// Two words of a panel, as they lie in memory.
    type Pair: Plain;
    /// Sixteen weights (or pairs of weights) in registers.
    type Weights: Copy;
    /// A word of a row, in every lane.
    type Word: Copy;
    /// Sixteen sums in registers.
    type Sums: Copy;

    unsafe fn zero() -> Self::Sums;
    /// Those of the first or (`half` 1) the second word.
    unsafe fn weights(pair: &Self::Pair, half: usize) -> Self::Weights;
    unsafe fn word(word: u32) -> Self::Word;
    unsafe fn mul_add(weights: Self::Weights, word: Self::Word, sums: Self::Sums) -> Self::Sums;
    unsafe fn lanes(sums: Self::Sums) -> [f32; PANEL];

    /// Calls [`sweep`] with the shape of tile that suits the registers.
    unsafe fn sweep(product: &Product<'_>, block: &Block<'_>);
}

/// A product, as all threads see it.
pub(super) struct Product<'a> {
    pub matrix: &'a DenseMatrix,
    pub rows: &'a Rows,
    pub y: &'a Output<'a>,
}

impl Product<'_> {
    /// Panels that are multiplied by all tiles of an expert before the next ones are: those of one tile where there is no other,
    /// which are then read from end to end, with nothing between their blocks.
    pub(super) fn panels_at_a_time(&self, tiles: &Range<usize>) -> usize {
        if tiles.len() == 1 && self.rows.tiles().rows(tiles.start).len() <= 6 { 4 } else { PANELS_IN_CACHE }
    }
}

/// A tile of rows, and the words and panels that it is multiplied by.
pub(super) struct Block<'a> {
    rows: Range<usize>,
    /// `[words, rows]`
    x: &'a [u32],
    words: Range<usize>,
    expert: usize,
    panels: Range<usize>,
}

impl Block<'_> {
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }
}

/// Multiplies some tiles of rows by some panels.
///
/// # Safety
/// The machine has the kernel's instruction set, and nobody else uses these rows of these outputs.
#[inline(always)]
pub(super) unsafe fn multiply<K: Kernel>(product: &Product<'_>, tiles: Range<usize>, panels: Range<usize>) {
    let pairs = product.rows.words() / 2;
    let blocks = (2 * pairs).div_ceil(BLOCK);
    for (expert, tiles) in product.rows.tiles().by_expert(tiles) {
        let width = product.panels_at_a_time(&tiles);
        for first in panels.clone().step_by(width) {
            let panels = first..panels.end.min(first + width);
            for block in 0..blocks {
                let words = block * pairs / blocks * 2..(block + 1) * pairs / blocks * 2;
                for tile in tiles.clone() {
                    let (rows, x) = product.rows.tile(tile, words.clone());
                    let block = Block { rows, x, words: words.clone(), expert, panels: panels.clone() };
                    // SAFETY: the caller's promise.
                    unsafe { K::sweep(product, &block) };
                }
            }
        }
    }
}

/// [`Kernel::sweep`] in tiles of R rows by P panels.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
pub(super) unsafe fn sweep<K: Kernel, const R: usize, const P: usize>(product: &Product<'_>, block: &Block<'_>) {
    let pairs = block.words.start / 2..block.words.end / 2;
    let x = block.x.as_chunks::<R>().0.as_chunks::<2>().0;
    for first in block.panels.clone().step_by(P) {
        // At the edge the last panel is multiplied several times over, which costs little and needs no other tile.
        let panel =
            |p: usize| &product.matrix.panel::<K::Pair>(block.expert, (first + p).min(block.panels.end - 1))[pairs.clone()];
        // SAFETY: the caller's promise.
        let sums = unsafe { tile::<K, R, P>(std::array::from_fn(panel), x) };
        // Out of the registers at once: what picks one by one keeps them from being registers.
        let mut lanes = [[[0.0; PANEL]; R]; P];
        for (row, sums) in sums.into_iter().enumerate() {
            for (panel, sums) in sums.into_iter().enumerate() {
                // SAFETY: the caller's promise.
                lanes[panel][row] = unsafe { K::lanes(sums) };
            }
        }
        for (panel, lanes) in (first..block.panels.end).zip(&lanes) {
            // SAFETY: the caller's promise.
            unsafe { product.y.put(block.rows.clone(), panel * PANEL, lanes, block.words.start == 0) };
        }
    }
}

/// # Safety
/// The machine has the kernel's instruction set.
#[inline(always)]
unsafe fn tile<K: Kernel, const R: usize, const P: usize>(panels: [&[K::Pair]; P], x: &[[[u32; R]; 2]]) -> [[K::Sums; P]; R] {
    for panel in panels {
        assert_eq!(panel.len(), x.len());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[K::zero(); P]; R];
        for (i, words) in x.iter().enumerate() {
            // One row asks for so much so fast that the processor fetches ahead without being told.
            if R > 1 {
                panels.iter().for_each(|panel| prefetch(&panel[i]));
            }
            for (half, words) in words.iter().enumerate() {
                let mut weights = [K::weights(&panels[0][i], half); P];
                for p in 1..P {
                    weights[p] = K::weights(&panels[p][i], half);
                }
                for (sums, word) in sums.iter_mut().zip(words) {
                    let word = K::word(*word);
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = K::mul_add(weights, word, *sum);
                    }
                }
            }
        }
        sums
    }
}

/// Asks for what lies ahead of a pair, to be brought into L2 while other work is done.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch<T>(pair: &T) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    /// In bytes: with four panels, 700 ns of what memory delivers.
    const AHEAD: usize = 4096;
    for line in (0..size_of::<T>()).step_by(64) {
        // SAFETY: SSE is on every such machine, and a hint reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(pair).wrapping_byte_add(AHEAD + line).cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch<T>(_: &T) {}

/// Picks a tile's shape by its number of rows.
macro_rules! shapes {
    ($kernel:ty, $product:expr, $block:expr, { $($rows:literal: $panels:literal),* }) => {
        match $block.rows() {
            // SAFETY: as for the caller.
            $($rows => unsafe { $crate::dense::tile::sweep::<$kernel, $rows, $panels>($product, $block) },)*
            rows => assert_eq!(rows, 0, "no tile has so many rows"),
        }
    };
}
pub(super) use shapes;

/// How weights of a format are multiplied by f32, by the kernels `F32`, `F16` and `Bf16` of an instruction set's module and with the
/// features that it stands for.
macro_rules! method {
    ($tile:expr $(, $features:literal)?) => {
        pub(super) fn method(format: $crate::DenseFormat) -> $crate::dense::Method {
            $(#[target_feature(enable = $features)])?
            unsafe fn by<K: Kernel>(product: &Product<'_>, tiles: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
                // SAFETY: the caller's promise.
                unsafe { $crate::dense::tile::multiply::<K>(product, tiles, panels) }
            }
            let run = match format {
                $crate::DenseFormat::F32 => by::<F32>,
                $crate::DenseFormat::F16 => by::<F16>,
                $crate::DenseFormat::Bf16 => by::<Bf16>,
            };
            $crate::dense::Method { word: $crate::dense::rows::Word::F32, tile: $tile, run }
        }
    };
}
pub(super) use method;
