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

use crate::product::{Input, Output, Tiles};
use crate::{Cpu, Isa, Memory, Out, Routes, Source};
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

/// A weight `[outputs, inputs]`, packed; or those of several experts, `[experts, outputs, inputs]`.
pub struct DenseMatrix {
    experts: usize,
    /// Of one expert.
    outputs: usize,
    inputs: usize,
    format: DenseFormat,
    /// `[experts, panels, depth, 16]` in f32 and f16, `[experts, panels, depth / 2, 16, 2]` in bf16.
    panels: Memory,
}

impl DenseMatrix {
    /// All zeros, to be filled with [`Self::pack_rows`].
    pub fn new(shape: (usize, usize), keep: DenseFormat) -> Self {
        Self::of_experts(1, shape, keep)
    }

    /// Weights of the same shape, whose outputs are counted through: those of expert `e` begin at `e * outputs`.
    pub fn of_experts(experts: usize, (outputs, inputs): (usize, usize), keep: DenseFormat) -> Self {
        assert!(outputs > 0 && inputs > 0, "a weight of {outputs} by {inputs}");
        let panels = Memory::zeroed(Self::bytes_of(experts, (outputs, inputs), keep));
        Self { experts, outputs, inputs, format: keep, panels }
    }

    /// Packs a weight `[outputs, inputs]`, converted to the format that it is kept in.
    pub fn pack(cpu: &Cpu, weight: Source<'_>, shape: (usize, usize), keep: DenseFormat) -> Self {
        assert_eq!(weight.len(), shape.0 * shape.1, "{shape:?}");
        let mut packed = Self::new(shape, keep);
        packed.pack_rows(cpu, 0, weight);
        packed
    }

    /// Packs some outputs of one expert, `[rows, inputs]`, which are to be those from `at_output` on: weights that share their inputs
    /// (query, key and value; gate and up) are stacked this way.
    pub fn pack_rows(&mut self, cpu: &Cpu, at_output: usize, weight: Source<'_>) {
        let rows = weight.len() / self.inputs;
        assert_eq!(weight.len(), rows * self.inputs, "rows of {}", self.inputs);
        let (expert, at) = (at_output / self.outputs, at_output % self.outputs);
        let fits = rows == 0 || expert < self.experts && at + rows <= self.outputs;
        assert!(fits, "{rows} rows from {at_output} on, {} times {}", self.experts, self.outputs);
        pack::pack_rows(self, cpu, (expert, at..at + rows), weight);
    }

    /// How many weights it is.
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Rows of one weight.
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

    /// Memory that weights of this shape would take.
    pub fn bytes_of(experts: usize, (outputs, inputs): (usize, usize), keep: DenseFormat) -> usize {
        experts * outputs.next_multiple_of(PANEL) * inputs.next_multiple_of(DEPTH) * keep.bytes()
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// y = x Wᵀ + bias, for `x [rows, inputs]`, `bias [outputs]` and `y [rows, outputs]`.
    ///
    /// A row's result depends neither on the rows beside it nor on the number of threads.
    pub fn matmul(&self, cpu: &Cpu, x: &[f32], bias: Option<&[f32]>, y: Out<'_>) {
        assert_eq!(self.experts, 1, "rows of several experts go by their routes");
        let x = Input { x, width: self.inputs, rows: None };
        let starts = [0, x.count()];
        self.multiply(cpu, x, &starts, Output::new(y, self.outputs, bias));
    }

    /// Rows of x by the experts that they are routed to: `x` is `[rows, inputs]`, `y` is `[pairs, outputs]`.
    pub fn dispatch(&self, cpu: &Cpu, x: &[f32], routes: Routes<'_>, y: &mut [f32]) {
        routes.check(self.experts, x.len() / self.inputs);
        let x = Input { x, width: self.inputs, rows: Some(routes.rows) };
        self.multiply(cpu, x, routes.starts, Output::new(Out::Write(y), self.outputs, None));
    }

    /// Adds what the experts make of their pairs, by their shares, to the rows that these came from: `x` is `[pairs, inputs]`, `y` is
    /// `[rows, outputs]`. A row gets its sums in the order of the experts.
    pub fn combine(&self, cpu: &Cpu, x: &[f32], routes: Routes<'_>, y: &mut [f32]) {
        routes.check(self.experts, y.len() / self.outputs);
        let x = Input { x, width: self.inputs, rows: None };
        self.multiply(cpu, x, routes.starts, Output::combine(y, self.outputs, routes));
    }

    fn multiply(&self, cpu: &Cpu, x: Input<'_>, starts: &[usize], y: Output<'_>) {
        let rows = x.count();
        assert_eq!(x.x.len() % self.inputs, 0, "rows of {}", self.inputs);
        assert_eq!(starts.last(), Some(&rows), "a row for each pair");
        assert!(y.holds(rows), "{rows} rows of {}", self.outputs);
        let method = method(cpu.isa, self.format);
        for first in (0..rows).step_by(ROWS_AT_A_TIME) {
            let tiles = Tiles::new(first..rows.min(first + ROWS_AT_A_TIME), starts, method.tile);
            let rows = Rows::lay(cpu, x, tiles, self.depth(), method.word);
            Product { matrix: self, rows: &rows, y: &y }.share_out(cpu, method.run);
        }
    }

    /// One output's weights, `[inputs]`, as they are kept.
    pub fn row(&self, output: usize, into: &mut [f32]) {
        let outputs = self.experts * self.outputs;
        assert!(output < outputs && into.len() == self.inputs, "row {output} of {outputs}, {} inputs", self.inputs);
        pack::unpack_row(self, output, into);
    }

    fn depth(&self) -> usize {
        self.inputs.next_multiple_of(DEPTH)
    }

    /// An expert's panel in units of `T`.
    fn panel<T: Plain>(&self, expert: usize, panel: usize) -> &[T] {
        let (size, panel) = (self.panel_bytes(), expert * self.outputs.div_ceil(PANEL) + panel);
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
        let tiles = self.rows.tiles().count();
        let panels = self.matrix.outputs.div_ceil(PANEL);
        let work = self.rows.words() * panels * (self.rows.count() + LOADING);
        let most = if cpu.pool.threads() == 1 { 1 } else { cpu.pool.threads() * PARTS_PER_THREAD };
        let parts = (work / WORTH_A_PART).clamp(1, most);
        // Panels first, since then only one thread reads a panel; rows as well where there are too few panels.
        let unit = self.rows.tiles().by_expert(0..tiles).map(|(_, tiles)| self.panels_at_a_time(&tiles)).max().unwrap_or(1);
        let units = panels.div_ceil(unit);
        let (panel_parts, tile_parts) = even(units, if self.y.is_apart() { tiles } else { 1 }, parts);
        cpu.pool.run(panel_parts * tile_parts, |part| {
            let (i, j) = (part / tile_parts, part % tile_parts);
            let cut = |i: usize| (i * units / panel_parts * unit).min(panels);
            // SAFETY: an `Isa` exists only where the machine has it; parts are disjoint, and each is done once. Those of the same
            // outputs are so because rows have places of their own.
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
        write!(f, "{}x{}x{} {:?}", self.experts, self.outputs, self.inputs, self.format)
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
