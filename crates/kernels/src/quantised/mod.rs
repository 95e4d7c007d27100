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
use crate::{Cpu, Isa, Memory, Out, Source};

/// A quantised weight, `[outputs, inputs]`, packed for products with rows of activations.
pub struct QuantisedMatrix {
    layout: Layout,
    outputs: usize,
    /// One after the other; they are whole cache lines.
    panels: Memory,
}

impl std::fmt::Debug for QuantisedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {} in {:?}", self.outputs, self.inputs(), self.format())
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
        assert_eq!(inputs % format.block_size(), 0, "{format:?}: whole blocks");
        let layout = Layout { format, units: inputs / layout::INPUTS };
        let panels = Memory::zeroed(outputs.div_ceil(OUTPUTS) * layout.panel_bytes());
        Self { layout, outputs, panels }
    }

    /// The format of its blocks.
    pub fn format(&self) -> BlockFormat {
        self.layout.format
    }

    /// Rows of the weight.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of the weight.
    pub fn inputs(&self) -> usize {
        self.layout.units * layout::INPUTS
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        self.panels.len()
    }

    /// Takes whole rows of llama.cpp's blocks, from output `at_output` on. Any bytes are valid.
    pub fn pack_rows(&mut self, cpu: &Cpu, at_output: usize, rows_of_blocks: &[u8]) {
        let (layout, blocks) = (self.layout, self.blocks());
        let row_bytes = blocks * layout.format.block_bytes();
        let rows = rows_of_blocks.len() / row_bytes.max(1);
        assert_eq!(rows * row_bytes, rows_of_blocks.len(), "whole rows");
        self.each_panel(cpu, at_output..at_output + rows, |panel, outputs, rows| {
            pack(layout, panel, outputs, &rows_of_blocks[rows.start * row_bytes..rows.end * row_bytes]);
        });
    }

    /// Quantises whole rows, from output `at_output` on; `importance` (`[inputs]`) is that of [`crate::blocks::quantise`].
    pub fn quantise_rows(&mut self, cpu: &Cpu, at_output: usize, weights: Source, importance: Option<&[f32]>) {
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
        assert!(output < self.outputs, "no such row");
        assert_eq!(into.len(), self.inputs());
        let panel = self.panel(output / OUTPUTS);
        let mut parts = Parts::EMPTY;
        for (block, into) in into.chunks_exact_mut(self.format().block_size()).enumerate() {
            self.layout.get(panel, block, output % OUTPUTS, &mut parts);
            parts.weights(self.format(), into);
        }
    }

    /// `x` times the transposed weight, plus `bias` (`[outputs]`): `x` is `[rows, inputs]`, `y` is `[rows, outputs]`.
    pub fn matmul(&self, cpu: &Cpu, x: &[f32], bias: Option<&[f32]>, y: Out) {
        let (add, y) = match y {
            Out::Write(y) => (false, y),
            Out::Add(y) => (true, y),
        };
        let rows = x.len() / self.inputs().max(1);
        assert_eq!(rows * self.inputs(), x.len(), "whole rows of activations");
        assert_eq!(rows * self.outputs, y.len(), "whole rows of results");
        assert!(bias.is_none_or(|bias| bias.len() == self.outputs), "a bias for every output");
        if y.is_empty() {
            return;
        }
        let x = Activations::new(cpu, self.layout, x, tile_rows(cpu.isa));
        let product = Product { isa: cpu.isa, weight: self, x: &x, bias, y: Disjoint::new(y), add };
        product.run(cpu);
    }

    fn blocks(&self) -> usize {
        self.inputs() / self.format().block_size()
    }

    /// The bytes of a panel.
    fn panel(&self, panel: usize) -> &[u8] {
        let bytes = self.layout.panel_bytes();
        &self.panels[panel * bytes..(panel + 1) * bytes]
    }

    /// Calls `work` for every panel that holds some of `outputs`: with its bytes, those outputs within the panel, and their places
    /// within `outputs`.
    fn each_panel(&mut self, cpu: &Cpu, outputs: Range<usize>, work: impl Fn(&mut [u8], Range<usize>, Range<usize>) + Sync) {
        assert!(outputs.end <= self.outputs, "more rows than the weight has");
        if outputs.is_empty() || self.panels.is_empty() {
            return;
        }
        let bytes = self.layout.panel_bytes();
        let first = outputs.start / OUTPUTS;
        let panels = Disjoint::new(&mut self.panels);
        cpu.pool.run(outputs.end.div_ceil(OUTPUTS) - first, |i| {
            let start = (first + i) * OUTPUTS;
            let here = outputs.start.max(start)..outputs.end.min(start + OUTPUTS);
            // SAFETY: every panel is touched by one part only.
            let panel = unsafe { panels.part((first + i) * bytes..(first + i + 1) * bytes) };
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
    bias: Option<&'a [f32]>,
    y: Disjoint<'a, f32>,
    add: bool,
}

impl Product<'_> {
    fn run(&self, cpu: &Cpu) {
        let panels = self.weight.outputs.div_ceil(OUTPUTS);
        let tiles = self.x.tiles();
        if self.weight.outputs * self.weight.inputs() * tiles < SERIAL {
            return self.part(0..panels, 0..tiles);
        }
        let wanted = cpu.pool.threads() * PARTS;
        // Cut by outputs, so that each weight is read by one thread, and by rows when there are too few outputs.
        let across = panels.min(wanted);
        let down = (wanted / across).clamp(1, tiles);
        cpu.pool.run(across * down, |part| {
            let (i, j) = (part % across, part / across);
            self.part(i * panels / across..(i + 1) * panels / across, j * tiles / down..(j + 1) * tiles / down);
        });
    }

    fn part(&self, panels: Range<usize>, tiles: Range<usize>) {
        let mut sums = vec![[0.0; OUTPUTS]; tile_rows(self.isa)];
        let tile_bytes = size_of::<Unit>() * self.weight.layout.units * sums.len();
        let step = (ACTIVATION_BYTES / tile_bytes.max(1)).max(TILES_MIN);
        for first in tiles.clone().step_by(step) {
            for panel in panels.clone() {
                let weights = self.weight.panel(panel);
                for t in first..(first + step).min(tiles.end) {
                    let (rows, units) = self.x.tile(t);
                    let sums = &mut sums[..rows.len()];
                    compute(self.isa, self.weight.layout, weights, units, sums);
                    self.finish(panel, rows, sums);
                }
            }
        }
    }

    /// Adds the bias and brings a tile to its place.
    fn finish(&self, panel: usize, rows: Range<usize>, sums: &[[f32; OUTPUTS]]) {
        let outputs = self.weight.outputs;
        let columns = panel * OUTPUTS..(panel * OUTPUTS + OUTPUTS).min(outputs);
        let mut bias = [0.0; OUTPUTS];
        if let Some(all) = self.bias {
            bias[..columns.len()].copy_from_slice(&all[columns.clone()]);
        }
        for (row, sums) in rows.zip(sums) {
            // SAFETY: tiles do not overlap, and each is computed by one part only.
            let y = unsafe { self.y.part(row * outputs + columns.start..row * outputs + columns.end) };
            let sums: [f32; OUTPUTS] = std::array::from_fn(|o| sums[o] + bias[o]);
            if self.add {
                y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
            } else if let Some(y) = y.first_chunk_mut() {
                *y = sums;
            } else {
                y.copy_from_slice(&sums[..y.len()]);
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
