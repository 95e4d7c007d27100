//! How a matrix of blocks lies in memory so that a product reads it from front to back.
//!
//! A panel is 16 outputs. Along the inputs it is cut into units of 32: a unit's codes are 8 steps of 64 bytes, each with 4
//! neighbouring inputs of every output, which is what one dot-product instruction takes. Codes of fewer than 8 bits are cut into
//! fields; a field of b bits fills b planes of 64 bytes, and step i lies in plane `i % b` at shift `i / b * b`.
//!
//! One, two or eight units are a run: first the scales of its units, which fill whole cache lines, then their codes. So a panel, and a
//! whole matrix, is one stream of aligned lines, as which the memory is fastest.

use half::f16;

use crate::blocks::{BlockFormat, Parts};
use BlockFormat::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

/// Outputs of a panel: the 32-bit lanes of the widest register.
pub(super) const OUTPUTS: usize = 16;
/// Inputs of a unit.
pub(super) const INPUTS: usize = 32;
/// Steps of a unit.
pub(super) const STEPS: usize = 8;
/// Bytes of a step, and of a plane.
pub(super) const STEP_BYTES: usize = 64;
/// Units of a block of 256 weights.
pub(super) const UNITS: usize = 8;

/// How the scales of a run lie. Every entry is 16 times, once per output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// Per unit a half-precision scale.
    Half,
    /// Per unit a half-precision scale and a half-precision minimum.
    HalfMin,
    /// A half-precision factor, then per 16 inputs a signed byte.
    Signed,
    /// Half-precision factors for scales and minima, then per unit a byte for the scale, then per two units a pair of bytes for their
    /// minima.
    ByteMin,
    /// Half-precision factors for scales and minima, then per unit a pair of bytes, one for each 16 inputs: scale in the low nibble,
    /// minimum in the high one.
    NibbleMin,
}

/// Where things are in a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// What is packed.
    pub format: BlockFormat,
    /// Units along the inputs.
    pub units: usize,
}

/// How many bits of a code are in its first field and in its second.
pub(super) const fn code_bits(format: BlockFormat) -> [usize; 2] {
    match format {
        Q2K => [2, 0],
        Q3K => [2, 1],
        Q4_0 | Q4_1 | Q4K => [4, 0],
        Q5_0 | Q5_1 | Q5K => [4, 1],
        Q6K => [4, 2],
        Q8_0 => [8, 0],
    }
}

/// How the scales of a format lie.
const fn scales(format: BlockFormat) -> Scales {
    match format {
        Q4_0 | Q5_0 | Q8_0 => Scales::Half,
        Q4_1 | Q5_1 => Scales::HalfMin,
        Q3K | Q6K => Scales::Signed,
        Q4K | Q5K => Scales::ByteMin,
        Q2K => Scales::NibbleMin,
    }
}

impl Scales {
    /// Units of a run.
    pub(super) const fn units(self) -> usize {
        match self {
            Self::Half => 2,
            Self::HalfMin => 1,
            Self::Signed | Self::ByteMin | Self::NibbleMin => UNITS,
        }
    }

    /// Bytes before the codes of a run.
    pub(super) const fn bytes(self) -> usize {
        let bytes = match self {
            Self::Half => self.units() * 2 * OUTPUTS,
            Self::HalfMin => self.units() * 4 * OUTPUTS,
            Self::Signed => (2 + 2 * UNITS) * OUTPUTS,
            Self::ByteMin | Self::NibbleMin => (4 + 2 * UNITS) * OUTPUTS,
        };
        bytes.next_multiple_of(STEP_BYTES)
    }
}

impl Layout {
    /// Scales per unit: 16 or 32 inputs share one.
    pub(super) const fn halves(self) -> usize {
        INPUTS / self.format.group()
    }

    /// How the scales lie.
    pub(super) const fn scales(self) -> Scales {
        scales(self.format)
    }

    /// Bytes of a unit's codes.
    pub(super) const fn unit_bytes(self) -> usize {
        let [low, high] = code_bits(self.format);
        (low + high) * STEP_BYTES
    }

    /// Bytes of a run; the last one may be shorter.
    pub(super) const fn run_bytes(self) -> usize {
        self.scales().bytes() + self.scales().units() * self.unit_bytes()
    }

    /// Bytes of a panel: whole cache lines.
    pub(super) const fn panel_bytes(self) -> usize {
        self.units.div_ceil(self.scales().units()) * self.scales().bytes() + self.units * self.unit_bytes()
    }

    /// Where block `block` lies in a panel: where its run begins, and which unit of the run is its first.
    fn place(self, block: usize) -> (usize, usize) {
        let unit = block * self.format.block_size() / INPUTS;
        let units = self.scales().units();
        (unit / units * self.run_bytes(), unit % units)
    }

    /// Puts block `block` of output `output` of a panel in its place.
    pub(super) fn put(self, panel: &mut [u8], block: usize, output: usize, parts: &Parts) {
        let (run, first) = self.place(block);
        let (scale_bytes, codes) = panel[run..].split_at_mut(self.scales().bytes());
        put_scales(self.scales(), scale_bytes, first, output, parts);
        let units = codes.chunks_exact_mut(self.unit_bytes()).skip(first).take(self.format.block_size() / INPUTS);
        for (codes, unit) in parts.codes.chunks_exact(INPUTS).zip(units) {
            let mut steps = [0; STEPS];
            steps
                .iter_mut()
                .zip(codes.chunks_exact(4))
                .for_each(|(step, c)| *step = u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
            for (plane, word) in planes(self.format, &steps).enumerate() {
                let at = plane * STEP_BYTES + output * 4;
                unit[at..at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// Block `block` of output `output` of a panel, as it was put there.
    pub(super) fn get(self, panel: &[u8], block: usize, output: usize, parts: &mut Parts) {
        let (run, first) = self.place(block);
        let (scale_bytes, codes) = panel[run..].split_at(self.scales().bytes());
        get_scales(self.scales(), scale_bytes, first, output, parts);
        let units = codes.chunks_exact(self.unit_bytes()).skip(first).take(self.format.block_size() / INPUTS);
        for (codes, unit) in parts.codes.chunks_exact_mut(INPUTS).zip(units) {
            for (step, codes) in codes.chunks_exact_mut(4).enumerate() {
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = code_at(self.format, unit, step, output * 4 + i);
                }
            }
        }
    }
}

/// The planes of one output's unit, four codes in a word: every step's field goes to its shift.
fn planes(format: BlockFormat, steps: &[u32; STEPS]) -> impl Iterator<Item = u32> {
    let [low, high] = code_bits(format);
    let field = move |bits: usize, up: usize| {
        // 8 bits would not fit into the shift; there the mask keeps everything.
        let mask = 0x0101_0101 * ((1_u32 << bits) - 1);
        (0..bits)
            .map(move |plane| (0..STEPS / bits).fold(0, |word, i| word | (steps[plane + i * bits] >> up & mask) << (i * bits)))
    };
    field(low, 0).chain(field(high, low))
}

/// Byte `at` of a step.
fn code_at(format: BlockFormat, unit: &[u8], step: usize, at: usize) -> u8 {
    let [low, high] = code_bits(format);
    let field = |first: usize, bits: usize| {
        let byte = unit[(first + step % bits) * STEP_BYTES + at];
        byte >> (step / bits * bits) & ((1_u16 << bits) - 1) as u8
    };
    field(0, low) | if high > 0 { field(low, high) << low } else { 0 }
}

/// Where half-precision numbers of a unit lie: scale and, where there is one, minimum.
pub(super) const fn factors_at(scales: Scales, unit: usize) -> (usize, Option<usize>) {
    match scales {
        Scales::Half => (unit * 2 * OUTPUTS, None),
        Scales::HalfMin => (unit * 4 * OUTPUTS, Some((unit * 4 + 2) * OUTPUTS)),
        Scales::Signed => (0, None),
        Scales::ByteMin | Scales::NibbleMin => (0, Some(2 * OUTPUTS)),
    }
}

/// Where the bytes for the scales of a unit lie.
pub(super) const fn bytes_at(scales: Scales, unit: usize) -> usize {
    match scales {
        Scales::Half | Scales::HalfMin => 0,
        Scales::Signed => (2 + 2 * unit) * OUTPUTS,
        Scales::ByteMin => (4 + unit) * OUTPUTS,
        Scales::NibbleMin => (4 + 2 * unit) * OUTPUTS,
    }
}

/// Pairs of minima in a run.
pub(super) const fn min_pairs(scales: Scales) -> usize {
    match scales {
        Scales::Half | Scales::HalfMin | Scales::Signed => 0,
        Scales::ByteMin => UNITS / 2,
        Scales::NibbleMin => UNITS,
    }
}

/// Where a pair of minima lies, and at which shift.
pub(super) const fn min_pair_at(scales: Scales, pair: usize) -> (usize, u32) {
    match scales {
        Scales::NibbleMin => ((4 + 2 * pair) * OUTPUTS, 4),
        _ => ((4 + UNITS + 2 * pair) * OUTPUTS, 0),
    }
}

/// Where the bytes for scale and minimum of group `i` of a block lie.
const fn group_at(scales: Scales, i: usize, output: usize) -> [usize; 2] {
    let pair = i / 2 * 2 * OUTPUTS + output * 2 + i % 2;
    match scales {
        Scales::Half | Scales::HalfMin => [0, 0],
        Scales::Signed => [(2 + i) * OUTPUTS + output, 0],
        Scales::ByteMin => [(4 + i) * OUTPUTS + output, (4 + UNITS) * OUTPUTS + pair],
        Scales::NibbleMin => [4 * OUTPUTS + pair; 2],
    }
}

/// Groups of a block whose scales are bytes.
const fn groups(scales: Scales) -> usize {
    match scales {
        Scales::Half | Scales::HalfMin => 0,
        Scales::ByteMin => UNITS,
        Scales::Signed | Scales::NibbleMin => 2 * UNITS,
    }
}

fn put_scales(scales: Scales, run: &mut [u8], unit: usize, output: usize, parts: &Parts) {
    let (scale, min) = factors_at(scales, unit);
    let mut put_half = |at: usize, value: f16| run[at + 2 * output..][..2].copy_from_slice(&value.to_le_bytes());
    put_half(scale, parts.scale);
    if let Some(min) = min {
        put_half(min, parts.min);
    }
    for i in 0..groups(scales) {
        let [scale, min] = group_at(scales, i, output);
        match scales {
            Scales::ByteMin => (run[scale], run[min]) = (parts.scales[i] as u8, parts.mins[i]),
            Scales::NibbleMin => run[scale] = parts.scales[i] as u8 & 15 | parts.mins[i] << 4,
            _ => run[scale] = parts.scales[i] as u8,
        }
    }
}

fn get_scales(scales: Scales, run: &[u8], unit: usize, output: usize, parts: &mut Parts) {
    let (scale, min) = factors_at(scales, unit);
    let half = |at: usize| f16::from_le_bytes([run[at + 2 * output], run[at + 2 * output + 1]]);
    (parts.scale, parts.min) = (half(scale), min.map_or(f16::ZERO, half));
    for i in 0..groups(scales) {
        let [scale, min] = group_at(scales, i, output).map(|at| run[at]);
        (parts.scales[i], parts.mins[i]) = match scales {
            Scales::NibbleMin => ((scale & 15) as i8, min >> 4),
            _ => (scale as i8, min),
        };
    }
}
