//! Products with dense weights, which are packed once, when they are loaded.
//!
//! A weight `[outputs, inputs]` is kept in panels of sixteen outputs: all inputs of a panel lie one after the other, sixteen
//! weights each, so that one row is multiplied at the speed at which the weights stream from memory, and many rows at the
//! speed of the multipliers. What is multiplied is summed in f32. Where the processor has dot products of bf16 pairs (AVX-512
//! BF16), inputs are rounded to bf16 for weights kept in bf16; everywhere else they stay f32.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod rows;
mod scalar;
#[cfg(test)]
mod tests;
mod tile;

use std::ops::Range;

use half::f16;

use crate::disjoint::Disjoint;
use crate::{Cpu, Isa, Memory, Out, Source};
use rows::{Rows, Word};
use tile::Product;

/// Outputs of a panel: a register of AVX-512.
const PANEL: usize = 16;
/// Inputs are padded to a multiple of this: two words of bf16 pairs.
const DEPTH: usize = 4;
/// Rows that are multiplied at a time: so many that reading the weights again costs nothing (1024 operations per weight), so
/// few that the rows stay in L3.
const ROWS_AT_A_TIME: usize = 512;
/// Parts per thread, enough for threads to finish at about the same time.
const PARTS_PER_THREAD: usize = 8;
/// Multiplications of a word by a panel, about one per cycle, that are worth handing over: some 4 microseconds.
const WORTH_A_PART: usize = 1 << 14;
/// Rows that could be multiplied while a panel is loaded.
const LOADING: usize = 3;

/// How a weight is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseFormat {
    /// Four bytes.
    F32,
    /// Two bytes: f32 without the lower half.
    Bf16,
    /// Two bytes: IEEE half precision.
    F16,
}

impl DenseFormat {
    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// A weight `[outputs, inputs]`, packed.
pub struct DenseMatrix {
    outputs: usize,
    inputs: usize,
    format: DenseFormat,
    /// `[panels, depth, 16]` in f32 and f16, `[panels, depth / 2, 16, 2]` in bf16.
    panels: Memory,
}

impl DenseMatrix {
    /// All zeros, to be filled with [`Self::pack_rows`].
    pub fn new((outputs, inputs): (usize, usize), keep: DenseFormat) -> Self {
        assert!(outputs > 0 && inputs > 0, "a weight of {outputs} by {inputs}");
        let length = outputs.next_multiple_of(PANEL) * inputs.next_multiple_of(DEPTH) * keep.bytes();
        Self { outputs, inputs, format: keep, panels: Memory::zeroed(length) }
    }

    /// Packs a weight `[outputs, inputs]`, converted to the format that it is kept in.
    pub fn pack(cpu: &Cpu, weight: Source<'_>, shape: (usize, usize), keep: DenseFormat) -> Self {
        assert_eq!(weight.len(), shape.0 * shape.1, "{shape:?}");
        let mut packed = Self::new(shape, keep);
        packed.pack_rows(cpu, 0, weight);
        packed
    }

    /// Packs some outputs, `[rows, inputs]`, which are to be those from `at_output` on: weights that share their inputs
    /// (query, key and value; gate and up) are stacked this way.
    pub fn pack_rows(&mut self, cpu: &Cpu, at_output: usize, weight: Source<'_>) {
        let rows = weight.len() / self.inputs;
        assert_eq!(weight.len(), rows * self.inputs, "rows of {}", self.inputs);
        assert!(at_output + rows <= self.outputs, "rows {at_output} to {} of {}", at_output + rows, self.outputs);
        pack::pack_rows(self, cpu, at_output..at_output + rows, weight);
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How it is kept.
    pub fn format(&self) -> DenseFormat {
        self.format
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// y = x Wᵀ + bias, for `x [rows, inputs]`, `bias [outputs]` and `y [rows, outputs]`.
    ///
    /// A row's result depends neither on the rows beside it nor on the number of threads.
    pub fn matmul(&self, cpu: &Cpu, x: &[f32], bias: Option<&[f32]>, y: Out<'_>) {
        let (add, y) = match y {
            Out::Write(y) => (false, y),
            Out::Add(y) => (true, y),
        };
        let rows = x.len() / self.inputs;
        assert_eq!(x.len(), rows * self.inputs, "rows of {}", self.inputs);
        assert_eq!(y.len(), rows * self.outputs, "{rows} rows of {}", self.outputs);
        assert!(bias.is_none_or(|bias| bias.len() == self.outputs), "a bias of {}", self.outputs);
        let method = method(cpu.isa, self.format);
        for (x, y) in x.chunks(ROWS_AT_A_TIME * self.inputs).zip(y.chunks_mut(ROWS_AT_A_TIME * self.outputs)) {
            let rows = Rows::lay(cpu, x, (self.inputs, self.depth()), &method);
            let product = Product { matrix: self, rows: &rows, bias, add, y: Disjoint::new(y) };
            product.share_out(cpu, method.run);
        }
    }

    /// One output's weights, `[inputs]`, as they are kept.
    pub fn row(&self, output: usize, into: &mut [f32]) {
        assert!(output < self.outputs && into.len() == self.inputs, "row {output} of {}, {} inputs", self.outputs, self.inputs);
        pack::unpack_row(self, output, into);
    }

    fn depth(&self) -> usize {
        self.inputs.next_multiple_of(DEPTH)
    }

    /// A panel in units of `T`.
    fn panel<T: Plain>(&self, panel: usize) -> &[T] {
        let size = self.panel_bytes();
        // SAFETY: all bits are good in `T`.
        unsafe { self.panels[panel * size..(panel + 1) * size].align_to().1 }
    }

    fn panel_bytes(&self) -> usize {
        PANEL * self.depth() * self.format.bytes()
    }
}

/// How an instruction set multiplies weights of one format.
struct Method {
    /// What it wants rows to be made of.
    word: Word,
    /// The most rows of a tile.
    tile: usize,
    /// Multiplies some tiles of rows by some panels.
    ///
    /// # Safety
    /// The machine has the instruction set, and nobody else uses these rows of these outputs.
    run: unsafe fn(&Product<'_>, tiles: Range<usize>, panels: Range<usize>),
}

#[cfg(target_arch = "x86_64")]
fn method(isa: Isa, format: DenseFormat) -> Method {
    use crate::isa::Level;
    match isa.level() {
        Level::Avx2 => avx2::method(format),
        Level::Avx512Bf16 if format == DenseFormat::Bf16 => avx512::bf16_pairs(),
        Level::Avx512 | Level::Avx512Bf16 => avx512::method(format),
        _ => scalar::method(format),
    }
}

#[cfg(target_arch = "aarch64")]
fn method(isa: Isa, format: DenseFormat) -> Method {
    use crate::isa::Level;
    if isa.level() == Level::Scalar { scalar::method(format) } else { neon::method(format) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn method(_: Isa, format: DenseFormat) -> Method {
    scalar::method(format)
}

impl Product<'_> {
    /// Multiplies in parts, on all threads when it is worth it.
    fn share_out(&self, cpu: &Cpu, run: unsafe fn(&Product<'_>, Range<usize>, Range<usize>)) {
        let tiles = self.rows.tiles();
        let panels = self.matrix.outputs.div_ceil(PANEL);
        let work = self.rows.words() * panels * (self.rows.count() + LOADING);
        let most = if cpu.pool.threads() == 1 { 1 } else { cpu.pool.threads() * PARTS_PER_THREAD };
        let parts = (work / WORTH_A_PART).clamp(1, most);
        // Panels first, since then only one thread reads a panel; rows as well where there are too few panels.
        let unit = self.panels_at_a_time();
        let units = panels.div_ceil(unit);
        let (panel_parts, tile_parts) = even(units, tiles, parts);
        cpu.pool.run(panel_parts * tile_parts, |part| {
            let (i, j) = (part / tile_parts, part % tile_parts);
            let cut = |i: usize| (i * units / panel_parts * unit).min(panels);
            // SAFETY: an `Isa` exists only where the machine has it; parts are disjoint, and each is done once.
            unsafe { run(self, j * tiles / tile_parts..(j + 1) * tiles / tile_parts, cut(i)..cut(i + 1)) }
        });
    }
}

/// How many parts to cut units of panels and tiles into, for about so many parts in all: the last thread to end decides, so the
/// largest part should be small. Among equals, more cuts of panels.
fn even(units: usize, tiles: usize, parts: usize) -> (usize, usize) {
    let cuts = (1..=units.min(parts)).rev().map(|across| (across, (parts / across).min(tiles)));
    let largest =
        |(across, down): &(usize, usize)| units.div_ceil(*across) * tiles.div_ceil(*down) * parts.div_ceil(across * down);
    cuts.min_by_key(largest).unwrap_or((1, 1))
}

impl std::fmt::Debug for DenseMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{} {:?}", self.outputs, self.inputs, self.format)
    }
}

/// Numbers, and arrays of them.
///
/// # Safety
/// All bits are good.
unsafe trait Plain: Copy {}

// SAFETY: a number.
unsafe impl Plain for f16 {}
// SAFETY: a number.
unsafe impl Plain for u32 {}
// SAFETY: a number.
unsafe impl Plain for f32 {}
// SAFETY: numbers, one after the other.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
