//! Products with matrices in llama.cpp's block formats: weights stay quantised, activations are rounded to 8 bits, sums are exact
//! integers per 16 or 32 inputs and f32 beyond.
//!
//! [`layout`] says how weights lie, [`activations`] how rows are rounded, and a file per instruction set holds the kernel: a tile of a
//! few rows by a panel of 16 outputs, over all inputs, with its sums in registers.

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod layout;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pack;
mod scalar;
mod scales;

use std::ops::Range;

use activations::{Activations, Unit};
use layout::{Layout, OUTPUTS};
use pack::{Rows, pack, quantise};

use crate::blocks::{BlockFormat, Parts};
use crate::disjoint::Disjoint;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::isa::Level;
use crate::product::{Input, Output, Tiles};
use crate::{Cpu, Isa, Memory, Out, Routes, Source};

/// A quantised weight, `[outputs, inputs]`, packed for products with rows of activations; or those of several experts,
/// `[experts, outputs, inputs]`.
pub struct QuantisedMatrix {
    layout: Layout,
    experts: usize,
    /// Of one expert.
    outputs: usize,
    /// One after the other; they are whole cache lines.
    panels: Memory,
}

impl std::fmt::Debug for QuantisedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} times {} by {} in {:?}", self.experts, self.outputs, self.inputs(), self.format())
    }
}

/// Activations that are multiplied with all panels before the next ones: they stay in a second-level cache, with panels and results
/// passing by.
const ACTIVATION_BYTES: usize = 256 * 1024;
/// Tiles that are multiplied at a time, if there are as many: weights are read again for the next ones, for 32 rows at some 3 to 5
/// GB/s per thread.
const TILES_MIN: usize = 4;

/// Weights below which a second thread does not pay.
const SERIAL: usize = 64 * 1024;
/// Parts per thread: enough that a thread that was held up does not hold up the others.
const PARTS: usize = 4;

impl QuantisedMatrix {
    /// All zero until rows are packed. `inputs` are whole blocks.
    pub fn new(format: BlockFormat, outputs: usize, inputs: usize) -> Self {
        Self::of_experts(1, format, outputs, inputs)
    }

    /// Weights of the same shape, whose outputs are counted through: those of expert `e` begin at `e * outputs`.
    pub fn of_experts(experts: usize, format: BlockFormat, outputs: usize, inputs: usize) -> Self {
        assert_eq!(inputs % format.block_size(), 0, "{format:?}: whole blocks");
        let panels = Memory::zeroed(Self::bytes_of(experts, format, outputs, inputs));
        Self { layout: Layout { format, units: inputs / layout::INPUTS }, experts, outputs, panels }
    }

    /// The format of its blocks.
    pub fn format(&self) -> BlockFormat {
        self.layout.format
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
        self.layout.units * layout::INPUTS
    }

    /// Memory that weights of this shape would take.
    pub fn bytes_of(experts: usize, format: BlockFormat, outputs: usize, inputs: usize) -> usize {
        experts * outputs.div_ceil(OUTPUTS) * Layout { format, units: inputs / layout::INPUTS }.panel_bytes()
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// Takes whole rows of llama.cpp's blocks, from output `at_output` on and all of one expert. Any bytes are valid.
    pub fn pack_rows(&mut self, cpu: &Cpu, at_output: usize, rows_of_blocks: &[u8]) {
        let (layout, blocks) = (self.layout, self.blocks());
        let row_bytes = blocks * layout.format.block_bytes();
        let rows = rows_of_blocks.len() / row_bytes.max(1);
        assert_eq!(rows * row_bytes, rows_of_blocks.len(), "whole rows");
        self.each_panel(cpu, at_output..at_output + rows, |panel, outputs, rows| {
            pack(layout, panel, outputs, &rows_of_blocks[rows.start * row_bytes..rows.end * row_bytes]);
        });
    }

    /// Quantises whole rows, from output `at_output` on and all of one expert; `importance` (`[inputs]`) is that of [`crate::blocks::quantise`].
    ///
    /// What is in blocks of this format already stays as it is.
    pub fn quantise_rows(&mut self, cpu: &Cpu, at_output: usize, weights: Source, importance: Option<&[f32]>) {
        if let Source::Blocks(format, blocks) = weights
            && format == self.format()
        {
            return self.pack_rows(cpu, at_output, blocks);
        }
        let (layout, inputs) = (self.layout, self.inputs());
        let rows = weights.len() / inputs.max(1);
        assert_eq!(rows * inputs, weights.len(), "whole rows");
        assert!(importance.is_none_or(|importance| importance.len() == inputs), "an importance for every input");
        self.each_panel(cpu, at_output..at_output + rows, |panel, outputs, rows| {
            quantise(cpu.isa, layout, panel, (outputs, rows.start), Rows { weights, importance, inputs });
        });
    }

    /// Row `output` of the weight, as its blocks say: `[inputs]`.
    pub fn row(&self, output: usize, into: &mut [f32]) {
        assert!(output < self.experts * self.outputs, "no such row");
        assert_eq!(into.len(), self.inputs());
        let (expert, output) = (output / self.outputs, output % self.outputs);
        let panel = self.panel(expert, output / OUTPUTS);
        let mut parts = Parts::EMPTY;
        for (block, into) in into.chunks_exact_mut(self.format().block_size()).enumerate() {
            self.layout.get(panel, block, output % OUTPUTS, &mut parts);
            parts.weights(self.format(), into);
        }
    }

    /// `x` times the transposed weight, plus `bias` (`[outputs]`): `x` is `[rows, inputs]`, `y` is `[rows, outputs]`.
    pub fn matmul(&self, cpu: &Cpu, x: &[f32], bias: Option<&[f32]>, y: Out) {
        assert_eq!(self.experts, 1, "rows of several experts go by their routes");
        let x = Input { x, width: self.inputs(), rows: None };
        let starts = [0, x.count()];
        self.multiply(cpu, x, &starts, Output::new(y, self.outputs, bias));
    }

    /// Rows of x by the experts that they are routed to: `x` is `[rows, inputs]`, `y` is `[pairs, outputs]`.
    pub fn dispatch(&self, cpu: &Cpu, x: &[f32], routes: Routes, y: &mut [f32]) {
        routes.check(self.experts, x.len() / self.inputs().max(1));
        let x = Input { x, width: self.inputs(), rows: Some(routes.rows) };
        self.multiply(cpu, x, routes.starts, Output::new(Out::Write(y), self.outputs, None));
    }

    /// Adds what the experts make of their pairs, by their shares, to the rows that these came from: `x` is `[pairs, inputs]`, `y` is
    /// `[rows, outputs]`. A row gets its sums in the order of the experts.
    pub fn combine(&self, cpu: &Cpu, x: &[f32], routes: Routes, y: &mut [f32]) {
        routes.check(self.experts, y.len() / self.outputs.max(1));
        let x = Input { x, width: self.inputs(), rows: None };
        self.multiply(cpu, x, routes.starts, Output::combine(y, self.outputs, routes));
    }

    fn multiply(&self, cpu: &Cpu, x: Input, starts: &[usize], y: Output) {
        let rows = x.count();
        assert_eq!(x.x.len() % self.inputs().max(1), 0, "whole rows of activations");
        assert_eq!(starts.last(), Some(&rows), "a row for each pair");
        assert!(y.holds(rows), "whole rows of results");
        if rows == 0 || self.outputs == 0 {
            return;
        }
        let tiles = Tiles::new(0..rows, starts, tile_rows(cpu.isa));
        let x = Activations::new(cpu, self.layout, x, tiles);
        Product { isa: cpu.isa, weight: self, x: &x, y }.run(cpu);
    }

    fn blocks(&self) -> usize {
        self.inputs() / self.format().block_size()
    }

    /// The bytes of an expert's panel.
    fn panel(&self, expert: usize, panel: usize) -> &[u8] {
        let (bytes, panel) = (self.layout.panel_bytes(), expert * self.outputs.div_ceil(OUTPUTS) + panel);
        &self.panels[panel * bytes..(panel + 1) * bytes]
    }

    /// Calls `work` for every panel that holds some of `outputs`: with its bytes, those outputs within the panel, and their places
    /// within `outputs`.
    fn each_panel(&mut self, cpu: &Cpu, outputs: Range<usize>, work: impl Fn(&mut [u8], Range<usize>, Range<usize>) + Sync) {
        if outputs.is_empty() || self.panels.is_empty() {
            return;
        }
        let (expert, at) = (outputs.start / self.outputs, outputs.start % self.outputs);
        let outputs = at..at + outputs.len();
        assert!(expert < self.experts && outputs.end <= self.outputs, "more rows than the weight has");
        let bytes = self.layout.panel_bytes();
        let first = outputs.start / OUTPUTS;
        let own = expert * self.outputs.div_ceil(OUTPUTS);
        let panels = Disjoint::new(&mut self.panels);
        cpu.pool.run(outputs.end.div_ceil(OUTPUTS) - first, |i| {
            let start = (first + i) * OUTPUTS;
            let here = outputs.start.max(start)..outputs.end.min(start + OUTPUTS);
            // SAFETY: every panel is touched by one part only.
            let panel = unsafe { panels.part((own + first + i) * bytes..(own + first + i + 1) * bytes) };
            work(panel, here.start - start..here.end - start, here.start - outputs.start..here.end - outputs.start);
        });
    }
}

/// Rows of a tile.
fn tile_rows(isa: Isa) -> usize {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 => avx512::ROWS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::ROWS,
        #[cfg(target_arch = "aarch64")]
        level @ (Level::Neon | Level::Dotprod | Level::I8mm) => neon::rows(level),
        _ => scalar::ROWS,
    }
}

struct Product<'a> {
    isa: Isa,
    weight: &'a QuantisedMatrix,
    x: &'a Activations,
    y: Output<'a>,
}

impl Product<'_> {
    fn run(&self, cpu: &Cpu) {
        let panels = self.weight.outputs.div_ceil(OUTPUTS);
        let tiles = self.x.tiles().count();
        if self.weight.outputs * self.weight.inputs() * tiles < SERIAL {
            return self.part(0..panels, 0..tiles);
        }
        let wanted = cpu.pool.threads() * PARTS;
        // Cut by outputs, so that each weight is read by one thread, and by rows when there are too few outputs.
        let across = panels.min(wanted);
        let down = if self.y.is_apart() { (wanted / across).clamp(1, tiles) } else { 1 };
        cpu.pool.run(across * down, |part| {
            let (i, j) = (part % across, part / across);
            self.part(i * panels / across..(i + 1) * panels / across, j * tiles / down..(j + 1) * tiles / down);
        });
    }

    fn part(&self, panels: Range<usize>, tiles: Range<usize>) {
        let mut sums = vec![[0.0; OUTPUTS]; tile_rows(self.isa)];
        let tile_bytes = size_of::<Unit>() * self.weight.layout.units * sums.len();
        let step = (ACTIVATION_BYTES / tile_bytes.max(1)).max(TILES_MIN);
        for (expert, tiles) in self.x.tiles().by_expert(tiles) {
            for first in tiles.clone().step_by(step) {
                for panel in panels.clone() {
                    let weights = self.weight.panel(expert, panel);
                    for t in first..(first + step).min(tiles.end) {
                        let (rows, units) = self.x.tile(t);
                        let sums = &mut sums[..rows.len()];
                        compute(self.isa, self.weight.layout, weights, units, sums);
                        // SAFETY: parts do not overlap in outputs, or not in rows, which have places of their own then.
                        unsafe { self.y.put(rows, panel * OUTPUTS, sums, true) };
                    }
                }
            }
        }
    }
}

/// One tile: `units` are those of `out.len()` rows.
fn compute(isa: Isa, layout: Layout, panel: &[u8], units: &[Unit], out: &mut [[f32; OUTPUTS]]) {
    assert!(!out.is_empty() && out.len() <= tile_rows(isa));
    assert_eq!(panel.len(), layout.panel_bytes());
    assert_eq!(units.len(), layout.units * out.len());
    match isa.level() {
        // SAFETY: the instruction set is there, and the lengths are those of a whole panel and whole rows.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx512Bf16 => unsafe { avx512::tile(layout, panel, units, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::tile(layout, panel, units, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        level @ (Level::Neon | Level::Dotprod | Level::I8mm) => unsafe { neon::tile(level, layout, panel, units, out) },
        _ => scalar::tile(layout, panel, units, out),
    }
}
