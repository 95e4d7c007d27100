//! What products with weights of every kind have in common.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::blocks::dequantise;
use crate::disjoint::Disjoint;
use crate::{BlockFormat, Cpu, DenseFormat};

/// Columns that are turned round at a time: a line of the cache for each stays in L1.
const TURNED: usize = 128;

/// Where a weight comes from: `[outputs, inputs]`, row after row.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// As f32.
    F32(&'a [f32]),
    /// As bf16.
    Bf16(&'a [bf16]),
    /// As f16.
    F16(&'a [f16]),
    /// As whole blocks of llama.cpp's.
    Blocks(BlockFormat, &'a [u8]),
}

impl Source<'_> {
    /// Hands out the bytes of a file, little-endian, as numbers: where they lie, or copied when that is not at a multiple of their
    /// size. Bytes that make no whole number are left out.
    pub fn with_bytes<R>(bytes: &[u8], format: DenseFormat, work: impl FnOnce(Source<'_>) -> R) -> R {
        match format {
            DenseFormat::F32 => numbers(bytes, f32::from_le_bytes, |numbers| work(Source::F32(numbers))),
            DenseFormat::Bf16 => numbers(bytes, bf16::from_le_bytes, |numbers| work(Source::Bf16(numbers))),
            DenseFormat::F16 => numbers(bytes, f16::from_le_bytes, |numbers| work(Source::F16(numbers))),
        }
    }

    /// Some of the numbers, as f32; of blocks whole ones.
    pub fn widen(self, range: Range<usize>, out: &mut [f32]) {
        match self {
            Self::F32(weights) => out.copy_from_slice(&weights[range]),
            Self::Bf16(weights) => weights[range].convert_to_f32_slice(out),
            Self::F16(weights) => weights[range].convert_to_f32_slice(out),
            Self::Blocks(format, _) => {
                let Self::Blocks(_, blocks) = self.part(range) else { return };
                dequantise(format, blocks, out);
            }
        }
    }

    /// Some of the numbers; of blocks whole ones.
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(weights) => Self::F32(&weights[range]),
            Self::Bf16(weights) => Self::Bf16(&weights[range]),
            Self::F16(weights) => Self::F16(&weights[range]),
            Self::Blocks(format, blocks) => {
                let (size, bytes) = (format.block_size(), format.block_bytes());
                assert!(range.start.is_multiple_of(size) && range.end.is_multiple_of(size), "{format:?}: whole blocks");
                Self::Blocks(format, &blocks[range.start / size * bytes..range.end / size * bytes])
            }
        }
    }

    /// The numbers as those of a matrix `[rows, columns]`, turned round and as f32: `[columns, rows]`.
    pub fn turned(self, cpu: &Cpu, (rows, columns): (usize, usize), out: &mut [f32]) {
        assert!(self.len() == rows * columns && out.len() == rows * columns, "{rows} by {columns}");
        if out.is_empty() {
            return;
        }
        let (out, width) = (Disjoint::new(out), columns);
        cpu.pool.run(columns.div_ceil(TURNED), |part| {
            let columns = part * TURNED..columns.min((part + 1) * TURNED);
            // SAFETY: every row of the result is written by one part only.
            let out = unsafe { out.part(columns.start * rows..columns.end * rows) };
            let mut line = [0.0; TURNED];
            let line = &mut line[..columns.len()];
            for row in 0..rows {
                self.widen(row * width + columns.start..row * width + columns.end, line);
                line.iter().enumerate().for_each(|(column, number)| out[column * rows + row] = *number);
            }
        });
    }

    /// Numbers of the weight.
    pub fn len(self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::Bf16(weights) => weights.len(),
            Self::F16(weights) => weights.len(),
            Self::Blocks(format, blocks) => blocks.len() / format.block_bytes() * format.block_size(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Where a product goes: `[rows, outputs]`.
#[derive(Debug)]
pub enum Out<'a> {
    /// In place of what is there.
    Write(&'a mut [f32]),
    /// On top of what is there.
    Add(&'a mut [f32]),
}

/// Which rows go to which expert: pairs of a row and an expert, sorted by expert.
#[derive(Debug, Clone, Copy)]
pub struct Routes<'a> {
    /// Where the pairs of each expert begin, and behind them how many there are in all: `[experts + 1]`.
    pub starts: &'a [usize],
    /// The row of each pair: `[pairs]`.
    pub rows: &'a [u32],
    /// What the expert's result counts for: `[pairs]`.
    pub shares: &'a [f32],
}

impl Routes<'_> {
    /// Asserts that they are routes of so many rows to so many experts.
    pub(crate) fn check(&self, experts: usize, rows: usize) {
        assert_eq!(self.starts.len(), experts + 1, "pairs of {experts} experts");
        assert!(self.starts[0] == 0 && self.starts.is_sorted(), "pairs sorted by expert");
        assert_eq!(self.starts[experts], self.rows.len(), "a row for each pair");
        assert_eq!(self.shares.len(), self.rows.len(), "a share for each pair");
        assert!(self.rows.iter().all(|row| (*row as usize) < rows), "one of {rows} rows");
    }
}

/// The rows that are multiplied.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// `[.., width]`
    pub x: &'a [f32],
    pub width: usize,
    /// Which rows of `x` they are; all in their order when absent.
    pub rows: Option<&'a [u32]>,
}

impl<'a> Input<'a> {
    pub fn count(&self) -> usize {
        self.rows.map_or_else(|| self.x.len() / self.width.max(1), <[u32]>::len)
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [f32] {
        let row = self.rows.map_or(row, |rows| rows[row] as usize);
        &self.x[row * self.width..(row + 1) * self.width]
    }
}

/// Rows cut into tiles of nearly the same height, none of which reaches from one expert's rows into another's.
pub(crate) struct Tiles {
    /// First row of each, and behind them the end of the last.
    starts: Vec<usize>,
    /// First tile of each expert, and behind them how many there are.
    of_expert: Vec<usize>,
}

impl Tiles {
    /// `experts` says where the rows of each begin, and where the last one's end; `most` is the height of a tile.
    pub fn new(rows: Range<usize>, experts: &[usize], most: usize) -> Self {
        let mut starts = Vec::with_capacity(rows.len() / most + experts.len());
        let mut of_expert = Vec::with_capacity(experts.len());
        for expert in experts.windows(2) {
            of_expert.push(starts.len());
            let [start, end] = [expert[0], expert[1]].map(|row| row.clamp(rows.start, rows.end));
            let tiles = (end - start).div_ceil(most);
            starts.extend((0..tiles).map(|tile| start + tile * (end - start) / tiles));
        }
        of_expert.push(starts.len());
        starts.push(rows.end);
        Self { starts, of_expert }
    }

    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows of all of them.
    pub fn all(&self) -> Range<usize> {
        self.starts[0]..self.starts[self.count()]
    }

    /// Rows of a tile.
    pub fn rows(&self, tile: usize) -> Range<usize> {
        self.starts[tile]..self.starts[tile + 1]
    }

    /// Some tiles by the expert that they belong to.
    pub fn by_expert(&self, tiles: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let own = self.of_expert.windows(2).enumerate();
        own.map(move |(expert, own)| (expert, own[0].max(tiles.start)..own[1].min(tiles.end))).filter(|(_, own)| !own.is_empty())
    }
}

/// Where the results of rows go, as all threads see it.
pub(crate) struct Output<'a> {
    /// `[.., width]`
    y: Disjoint<'a, f32>,
    width: usize,
    put: Put<'a>,
}

/// How a result is put in its place.
#[derive(Clone, Copy)]
enum Put<'a> {
    /// Into its own row, with a bias.
    Own { add: bool, bias: Option<&'a [f32]> },
    /// On top of the row that it was routed from, by its share.
    Combine { rows: &'a [u32], shares: &'a [f32] },
}

impl<'a> Output<'a> {
    /// Rows in their order.
    pub fn new(y: Out<'a>, width: usize, bias: Option<&'a [f32]>) -> Self {
        let (add, y) = match y {
            Out::Write(y) => (false, y),
            Out::Add(y) => (true, y),
        };
        assert!(bias.is_none_or(|bias| bias.len() == width), "a bias for every output");
        Self { y: Disjoint::new(y), width, put: Put::Own { add, bias } }
    }

    /// On top of the rows that they were routed from.
    pub fn combine(y: &'a mut [f32], width: usize, routes: Routes<'a>) -> Self {
        Self { y: Disjoint::new(y), width, put: Put::Combine { rows: routes.rows, shares: routes.shares } }
    }

    /// Whether there is a place for so many rows.
    pub fn holds(&self, rows: usize) -> bool {
        match self.put {
            Put::Own { .. } => self.y.len() == rows * self.width,
            Put::Combine { shares, .. } => shares.len() == rows && self.y.len().is_multiple_of(self.width.max(1)),
        }
    }

    /// Whether rows go to places of their own, so that several threads may share them out.
    pub fn is_apart(&self) -> bool {
        matches!(self.put, Put::Own { .. })
    }

    /// Brings sums of rows to their places, which begin at `column`; those beyond the width are padding. Sums of the first words of
    /// rows bring the bias along and overwrite what is there, if that is wanted; further ones are added.
    ///
    /// # Safety
    /// Nobody else uses these places.
    #[inline(always)]
    pub unsafe fn put<const N: usize>(&self, rows: Range<usize>, column: usize, sums: &[[f32; N]], first: bool) {
        let columns = column..self.width.min(column + N);
        // SAFETY: the caller's promise.
        let place = |row: usize| unsafe { self.y.part(row * self.width + columns.start..row * self.width + columns.end) };
        let each = rows.clone().zip(sums);
        match self.put {
            Put::Own { add, bias } => {
                let bias = bias.filter(|_| first).map(|bias| {
                    let mut wide = [0.0; N];
                    wide[..columns.len()].copy_from_slice(&bias[columns.clone()]);
                    wide
                });
                match (add || !first, bias) {
                    (false, None) => each.for_each(|(row, sums)| change(place(row), sums, |_, _, sum| sum)),
                    (true, None) => each.for_each(|(row, sums)| change(place(row), sums, |_, y, sum| sum + y)),
                    (false, Some(bias)) => each.for_each(|(row, sums)| change(place(row), sums, |i, _, sum| sum + bias[i])),
                    (true, Some(bias)) => each.for_each(|(row, sums)| change(place(row), sums, |i, y, sum| sum + bias[i] + y)),
                }
            }
            Put::Combine { rows: from, shares } => {
                for ((from, share), sums) in from[rows.clone()].iter().zip(&shares[rows]).zip(sums) {
                    change(place(*from as usize), sums, |_, y, sum| sum * share + y);
                }
            }
        }
    }
}

/// y = f(number, y, sum), for as many as there are of y.
#[inline(always)]
fn change<const N: usize>(y: &mut [f32], sums: &[f32; N], f: impl Fn(usize, f32, f32) -> f32) {
    // Known lengths become vectors.
    match y.as_chunks_mut::<N>() {
        ([whole], _) => (0..N).for_each(|i| whole[i] = f(i, whole[i], sums[i])),
        (_, part) => part.iter_mut().zip(sums).enumerate().for_each(|(i, (y, sum))| *y = f(i, *y, *sum)),
    }
}

/// `T` is a plain number of `N` bytes that any bits are a value of.
fn numbers<T, const N: usize, R>(bytes: &[u8], read: impl Fn([u8; N]) -> T, work: impl FnOnce(&[T]) -> R) -> R {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: all bits are a value of f32, bf16 and f16, for which alone this is called.
    let (before, here, _) = unsafe { bytes.align_to::<T>() };
    if cfg!(target_endian = "little") && before.is_empty() {
        return work(here);
    }
    let copied: Vec<T> = bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect();
    work(&copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_any_place() {
        let bytes: Vec<u8> = [1.0_f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        for shift in 0..8 {
            let shifted = [vec![0; shift], bytes.clone()].concat();
            let read = |source: Source<'_>| matches!(source, Source::F32(numbers) if numbers == [1.0, -2.5]);
            assert!(Source::with_bytes(&shifted[shift..], DenseFormat::F32, read), "{shift}");
        }
        assert_eq!(Source::with_bytes(&[0x80, 0x3f, 0], DenseFormat::Bf16, |source| source.len()), 1);
    }

    #[test]
    fn matrices_are_turned_round() {
        for cpu in Cpu::each() {
            for (rows, columns) in [(1, 1), (3, 5), (40, 300), (130, 129), (0, 4)] {
                let numbers: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
                let halves: Vec<bf16> = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
                let mut out = [vec![0.0; rows * columns], vec![0.0; rows * columns]];
                Source::F32(&numbers).turned(&cpu, (rows, columns), &mut out[0]);
                Source::Bf16(&halves).turned(&cpu, (rows, columns), &mut out[1]);
                for i in 0..rows * columns {
                    let from = i % rows * columns + i / rows;
                    assert!(out[0][i] == numbers[from] && out[1][i] == halves[from].to_f32(), "{rows} x {columns}");
                }
            }
        }
    }

    #[test]
    fn tiles_stay_within_an_expert() {
        let tiles = Tiles::new(2..19, &[0, 0, 4, 12, 12, 20], 4);
        let rows: Vec<Range<usize>> = (0..tiles.count()).map(|tile| tiles.rows(tile)).collect();
        assert_eq!(rows, [2..4, 4..8, 8..12, 12..15, 15..19]);
        assert_eq!(tiles.by_expert(0..5).collect::<Vec<_>>(), [(1, 0..1), (2, 1..3), (4, 3..5)]);
        assert_eq!(tiles.by_expert(2..4).collect::<Vec<_>>(), [(2, 2..3), (4, 3..4)]);
        assert_eq!(Tiles::new(0..0, &[0, 0], 4).count(), 0);
    }
}
