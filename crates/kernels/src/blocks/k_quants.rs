//! Where the bits lie in blocks of 256 weights.
//!
//! Codes are cut into fields of bits; a run of 32 bytes holds one field of 32 neighbouring weights at a shift, and of other 32
//! weights at the other shifts.

use super::{BlockFormat, Field, Parts, half_at, put_half};
use BlockFormat::{Q2K, Q3K, Q4K, Q5K, Q6K};

/// Weights of one run.
const RUN: usize = 32;

/// The fields of run `r` of 8 in a block.
fn fields(format: BlockFormat, r: usize) -> [Option<Field>; 2] {
    // Runs go through the shifts of 32 bytes before they go on to the next.
    let run = |at: usize, bits: u8, up: u8| {
        let per_byte = 8 / bits as usize;
        Field { at: at + r / per_byte * RUN, shift: (r % per_byte) as u8 * bits, bits, up }
    };
    match format {
        Q2K => [Some(run(16, 2, 0)), None],
        Q3K => [Some(run(32, 2, 0)), Some(run(0, 1, 2))],
        Q4K => [Some(run(16, 4, 0)), None],
        Q5K => [Some(run(48, 4, 0)), Some(run(16, 1, 4))],
        // Nibbles: two runs side by side, then the high halves of the same bytes.
        _ => {
            let at = r / 4 * 2 * RUN + r % 2 * RUN;
            [Some(Field { at, shift: (r / 2 % 2) as u8 * 4, bits: 4, up: 0 }), Some(run(128, 2, 4))]
        }
    }
}

/// Where the bytes with codes begin and end.
const fn codes_at(format: BlockFormat) -> (usize, usize) {
    match format {
        Q2K => (16, 80),
        Q3K => (0, 96),
        Q4K => (16, 144),
        Q5K => (16, 176),
        _ => (0, 192),
    }
}

pub(super) fn read(format: BlockFormat, block: &[u8], parts: &mut Parts) {
    parts.codes.fill(0);
    for (r, codes) in parts.codes.chunks_exact_mut(RUN).enumerate() {
        fields(format, r).into_iter().flatten().for_each(|field| field.read(block, codes));
    }
    parts.min = half::f16::ZERO;
    match format {
        Q2K => {
            (parts.scale, parts.min) = (half_at(block, 80), half_at(block, 82));
            for (j, byte) in block[..16].iter().enumerate() {
                (parts.scales[j], parts.mins[j]) = ((byte & 15) as i8, byte >> 4);
            }
        }
        Q3K => {
            parts.scale = half_at(block, 108);
            for (j, scale) in parts.scales.iter_mut().enumerate() {
                let low = block[96 + j % 8] >> (j / 8 * 4) & 15;
                let high = block[104 + j % 4] >> (j / 4 * 2) & 3;
                *scale = (low | high << 4) as i8 - 32;
            }
        }
        Q6K => {
            parts.scale = half_at(block, 208);
            parts.scales.iter_mut().zip(&block[192..]).for_each(|(scale, byte)| *scale = *byte as i8);
        }
        _ => {
            (parts.scale, parts.min) = (half_at(block, 0), half_at(block, 2));
            read_six_bits(&block[4..16], parts);
        }
    }
}

pub(super) fn write(format: BlockFormat, block: &mut [u8], parts: &Parts) {
    let (start, end) = codes_at(format);
    block[start..end].fill(0);
    for (r, codes) in parts.codes.chunks_exact(RUN).enumerate() {
        fields(format, r).into_iter().flatten().for_each(|field| field.write(block, codes));
    }
    match format {
        Q2K => {
            put_half(block, 80, parts.scale);
            put_half(block, 82, parts.min);
            for (j, byte) in block[..16].iter_mut().enumerate() {
                *byte = parts.scales[j] as u8 & 15 | parts.mins[j] << 4;
            }
        }
        Q3K => {
            put_half(block, 108, parts.scale);
            block[96..108].fill(0);
            for (j, scale) in parts.scales.iter().enumerate() {
                let scale = (scale + 32) as u8;
                block[96 + j % 8] |= (scale & 15) << (j / 8 * 4);
                block[104 + j % 4] |= (scale >> 4 & 3) << (j / 4 * 2);
            }
        }
        Q6K => {
            put_half(block, 208, parts.scale);
            parts.scales.iter().zip(&mut block[192..]).for_each(|(scale, byte)| *byte = *scale as u8);
        }
        _ => {
            put_half(block, 0, parts.scale);
            put_half(block, 2, parts.min);
            write_six_bits(&mut block[4..16], parts);
        }
    }
}

/// Eight scales and eight minima of six bits in twelve bytes: the first four of each in the low six bits of bytes 0..4 and 4..8, the
/// others with their low nibbles in bytes 8..12 and their two high bits on top of the first.
fn read_six_bits(bytes: &[u8], parts: &mut Parts) {
    for j in 0..4 {
        let (scale, min, nibbles) = (bytes[j], bytes[j + 4], bytes[j + 8]);
        (parts.scales[j], parts.mins[j]) = ((scale & 63) as i8, min & 63);
        (parts.scales[j + 4], parts.mins[j + 4]) = ((nibbles & 15 | scale >> 6 << 4) as i8, nibbles >> 4 | min >> 6 << 4);
    }
}

fn write_six_bits(bytes: &mut [u8], parts: &Parts) {
    for j in 0..4 {
        let (scale, min) = (parts.scales[j + 4] as u8, parts.mins[j + 4]);
        bytes[j] = parts.scales[j] as u8 & 63 | scale >> 4 << 6;
        bytes[j + 4] = parts.mins[j] & 63 | min >> 4 << 6;
        bytes[j + 8] = scale & 15 | (min & 15) << 4;
    }
}
