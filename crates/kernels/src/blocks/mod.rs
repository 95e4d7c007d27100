//! llama.cpp's block formats, bit for bit: weights in blocks of 32 or 256 that share scales.
//!
//! Every format is read into, and written from, the same [`Parts`]: one unsigned code per weight, one small integer scale (and
//! minimum) per group of weights, one or two half-precision factors per block. What differs between the formats is where the
//! bits lie ([`k_quants`], [`legacy`]) and how a quantiser chooses the scales ([`search`]).
//!
//! The layouts are those of the `gguf` Python package (`gguf.quants`), which the golden file in `tests/` was made with.

mod k_quants;
mod legacy;
mod quantise;
mod search;

use half::f16;

use crate::disjoint::Disjoint;
use crate::{Cpu, Isa, Source};
pub(crate) use quantise::Batch;
pub(crate) use search::LANES;

/// A format of blocks. The names are llama.cpp's: the number counts the bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 32 weights, symmetric: `d * (q - 8)`.
    Q4_0,
    /// 32 weights: `d * q + m`.
    Q4_1,
    /// 32 weights, symmetric: `d * (q - 16)`.
    Q5_0,
    /// 32 weights: `d * q + m`.
    Q5_1,
    /// 32 weights, symmetric: `d * q`.
    Q8_0,
    /// 256 weights in groups of 16: `d * scale * q - dmin * min`, four bits for scale and minimum.
    Q2K,
    /// 256 weights in groups of 16: `d * scale * (q - 4)`, six bits for the scale.
    Q3K,
    /// 256 weights in groups of 32: `d * scale * q - dmin * min`, six bits for scale and minimum.
    Q4K,
    /// 256 weights in groups of 32: `d * scale * q - dmin * min`, six bits for scale and minimum.
    Q5K,
    /// 256 weights in groups of 16: `d * scale * (q - 32)`, eight bits for the scale.
    Q6K,
}

use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

impl BlockFormat {
    /// All of them.
    pub const ALL: [Self; 10] = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K];

    /// Weights in a block.
    pub const fn block_size(self) -> usize {
        match self {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q2K | Q3K | Q4K | Q5K | Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Q4_0 => 18,
            Q4_1 => 20,
            Q5_0 => 22,
            Q5_1 => 24,
            Q8_0 => 34,
            Q2K => 84,
            Q3K => 110,
            Q4K => 144,
            Q5K => 176,
            Q6K => 210,
        }
    }

    /// Neighbouring weights that share a scale.
    pub(crate) const fn group(self) -> usize {
        match self {
            Q2K | Q3K | Q6K => 16,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | Q4K | Q5K => 32,
        }
    }

    /// The code that stands for zero; none in formats with minima.
    pub(crate) const fn offset(self) -> u8 {
        match self {
            Q4_1 | Q5_1 | Q2K | Q4K | Q5K => 0,
            Q3K => 4,
            Q4_0 => 8,
            Q5_0 => 16,
            Q6K => 32,
            Q8_0 => 128,
        }
    }
}

/// A block taken apart: weight `k` is `scale * scales[k / group] * (codes[k] - offset) - min * mins[k / group]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    /// One per weight, in the order of the weights.
    pub codes: [u8; 256],
    /// One per group; 1 where a block is a single group.
    pub scales: [i8; 16],
    /// One per group; 1 where a block is a single group.
    pub mins: [u8; 16],
    /// Of the whole block.
    pub scale: f16,
    /// Of the whole block; zero in symmetric formats.
    pub min: f16,
}

impl Parts {
    pub(crate) const EMPTY: Self = Self { codes: [0; 256], scales: [1; 16], mins: [1; 16], scale: f16::ZERO, min: f16::ZERO };

    /// Takes the parts from a block.
    pub(crate) fn read(&mut self, format: BlockFormat, block: &[u8]) {
        assert_eq!(block.len(), format.block_bytes());
        match format {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => legacy::read(format, block, self),
            Q2K | Q3K | Q4K | Q5K | Q6K => k_quants::read(format, block, self),
        }
    }

    /// Puts a block together.
    pub(crate) fn write(&self, format: BlockFormat, block: &mut [u8]) {
        assert_eq!(block.len(), format.block_bytes());
        match format {
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => legacy::write(format, block, self),
            Q2K | Q3K | Q4K | Q5K | Q6K => k_quants::write(format, block, self),
        }
    }

    /// The weights of a block: `out` has its size.
    pub(crate) fn weights(&self, format: BlockFormat, out: &mut [f32]) {
        let (group, offset) = (format.group(), f32::from(format.offset()));
        let (scale, min) = (self.scale.to_f32(), self.min.to_f32());
        let groups = out.chunks_exact_mut(group).zip(self.codes.chunks_exact(group));
        for ((out, codes), (s, m)) in groups.zip(self.scales.iter().zip(&self.mins)) {
            let (s, m) = (scale * f32::from(*s), min * f32::from(*m));
            out.iter_mut().zip(codes).for_each(|(w, q)| *w = s * (f32::from(*q) - offset) - m);
        }
    }
}

/// Reads blocks: `blocks` are any number of blocks, `out` has room for exactly their weights. Any bytes are valid.
pub fn dequantise(format: BlockFormat, blocks: &[u8], out: &mut [f32]) {
    let (bytes, size) = (format.block_bytes(), format.block_size());
    assert_eq!(blocks.len() % bytes, 0, "{format:?}: whole blocks");
    assert_eq!(blocks.len() / bytes * size, out.len(), "{format:?}: a place for every weight");
    let mut parts = Parts::EMPTY;
    for (block, out) in blocks.chunks_exact(bytes).zip(out.chunks_exact_mut(size)) {
        parts.read(format, block);
        parts.weights(format, out);
    }
}

/// Writes blocks: `x` are whole blocks of weights, any number of rows; `importance` says for every column of a row how much an
/// error of its weights costs (the mean square of its activations; llama.cpp's importance matrix), without it all are the same.
pub fn quantise(isa: Isa, format: BlockFormat, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let (bytes, size) = (format.block_bytes(), format.block_size());
    assert_eq!(x.len() % size, 0, "{format:?}: whole blocks");
    assert_eq!(x.len() / size * bytes, out.len(), "{format:?}: a place for every block");
    let columns = importance.map_or(size, <[f32]>::len);
    assert!(columns.is_multiple_of(size) && x.len().is_multiple_of(columns.max(1)), "{format:?}: importance of a whole row");
    let (mut batch, mut parts) = (Batch::new(), Parts::EMPTY);
    for (i, (x, out)) in x.chunks(size * LANES).zip(out.chunks_mut(bytes * LANES)).enumerate() {
        for (l, x) in x.chunks_exact(size).enumerate() {
            batch.load(l, x);
            if let Some(importance) = importance {
                let column = (i * LANES + l) * size % columns;
                batch.load_importance(l, &importance[column..column + size]);
            }
        }
        batch.quantise(isa, format);
        for (l, out) in out.chunks_exact_mut(bytes).enumerate() {
            batch.parts(format, l, &mut parts);
            parts.write(format, out);
        }
    }
}

/// Blocks of all rows `[.., columns]` of a weight, on all threads; `importance` (`[columns]`) as for [`quantise`].
pub fn quantise_weight(cpu: &Cpu, format: BlockFormat, weight: Source, columns: usize, importance: Option<&[f32]>) -> Vec<u8> {
    /// Rows that are quantised together.
    const ROWS: usize = 64;
    let rows = weight.len() / columns.max(1);
    assert!(columns.is_multiple_of(format.block_size()) && rows * columns == weight.len(), "{format:?}: whole rows of {columns}");
    let row_bytes = columns / format.block_size() * format.block_bytes();
    let mut blocks = vec![0; rows * row_bytes];
    let out = Disjoint::new(&mut blocks);
    cpu.pool.run(rows.div_ceil(ROWS), |part| {
        let rows = part * ROWS..rows.min((part + 1) * ROWS);
        let mut wide = vec![0.0; rows.len() * columns];
        weight.widen(rows.start * columns..rows.end * columns, &mut wide);
        // SAFETY: every row is written by one part only.
        let out = unsafe { out.part(rows.start * row_bytes..rows.end * row_bytes) };
        quantise(cpu.isa, format, &wide, importance, out);
    });
    blocks
}

/// The half-precision number in two bytes.
fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

fn put_half(block: &mut [u8], at: usize, value: f16) {
    block[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// A run of codes (or of a few bits of each) in a block: byte `at + k` holds bits of code `k`.
#[derive(Clone, Copy)]
struct Field {
    at: usize,
    /// Where in the byte.
    shift: u8,
    /// How many.
    bits: u8,
    /// Where in the code.
    up: u8,
}

impl Field {
    /// Adds these bits to the codes.
    fn read(self, block: &[u8], codes: &mut [u8]) {
        let mask = (1 << self.bits) - 1;
        codes.iter_mut().zip(&block[self.at..]).for_each(|(code, byte)| *code |= (byte >> self.shift & mask) << self.up);
    }

    /// Adds these bits of the codes to the block.
    fn write(self, block: &mut [u8], codes: &[u8]) {
        let mask = (1 << self.bits) - 1;
        codes.iter().zip(&mut block[self.at..]).for_each(|(code, byte)| *byte |= (code >> self.up & mask) << self.shift);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_put_together_as_they_were_taken_apart() {
        let mut rng = fastrand::Rng::with_seed(2);
        for format in BlockFormat::ALL {
            let (mut block, mut again) = (vec![0; format.block_bytes()], vec![0; format.block_bytes()]);
            let mut parts = Parts::EMPTY;
            for _ in 0..100 {
                rng.fill(&mut block);
                parts.read(format, &block);
                rng.fill(&mut again);
                parts.write(format, &mut again);
                assert_eq!(block, again, "{format:?}");
            }
        }
    }
}
