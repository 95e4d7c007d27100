//! Filling panels: from llama.cpp's blocks, and from weights that are still to be quantised.

use std::ops::Range;

use super::layout::{Layout, OUTPUTS};
use crate::blocks::{Batch, LANES, Parts};
use crate::{Isa, Source};

/// Rows of a weight that are to become blocks.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub weights: Source<'a>,
    /// Of every column.
    pub importance: Option<&'a [f32]>,
    /// Columns.
    pub inputs: usize,
}

/// Puts rows of blocks into outputs of a panel.
pub(super) fn pack(layout: Layout, panel: &mut [u8], outputs: Range<usize>, rows: &[u8]) {
    let format = layout.format;
    let row_bytes = rows.len() / outputs.len();
    let mut parts = Parts::EMPTY;
    // Block by block, so that the lines which the outputs share stay in the cache.
    for block in 0..row_bytes / format.block_bytes() {
        for (output, row) in outputs.clone().zip(rows.chunks_exact(row_bytes)) {
            parts.read(format, &row[block * format.block_bytes()..(block + 1) * format.block_bytes()]);
            layout.put(panel, block, output, &parts);
        }
    }
}

/// Quantises rows into outputs of a panel: the quantiser's lanes are the panel's outputs.
pub(super) fn quantise(isa: Isa, layout: Layout, panel: &mut [u8], (outputs, first_row): (Range<usize>, usize), rows: Rows) {
    const { assert!(LANES == OUTPUTS) };
    let (format, size) = (layout.format, layout.format.block_size());
    let (mut batch, mut parts, mut block_weights) = (Batch::new(), Parts::EMPTY, [0.0; 256]);
    let block_weights = &mut block_weights[..size];
    for block in 0..rows.inputs / size {
        let columns = block * size..(block + 1) * size;
        for l in 0..outputs.len() {
            let start = (first_row + l) * rows.inputs;
            rows.weights.widen(start + columns.start..start + columns.end, block_weights);
            batch.load(l, block_weights);
            if let Some(importance) = rows.importance {
                batch.load_importance(l, &importance[columns.clone()]);
            }
        }
        batch.quantise(isa, format);
        for (l, output) in outputs.clone().enumerate() {
            batch.parts(format, l, &mut parts);
            layout.put(panel, block, output, &parts);
        }
    }
}
