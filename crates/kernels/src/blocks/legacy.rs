//! Where the bits lie in blocks of 32 weights: half-precision scale, half-precision minimum where there is one, 32 bits with the
//! fifth bit of every code where there is one, then the codes: low nibbles are the first 16 weights, high nibbles the others.

use super::{BlockFormat, Field, Parts, half_at, put_half};
use BlockFormat::{Q4_1, Q5_0, Q5_1, Q8_0};

/// Signed bytes are stored; codes are unsigned.
const SIGN: u8 = 0x80;

/// Where the minimum, the fifth bits and the nibbles are.
const fn places(format: BlockFormat) -> (Option<usize>, Option<usize>, usize) {
    match format {
        Q4_1 => (Some(2), None, 4),
        Q5_0 => (None, Some(2), 6),
        Q5_1 => (Some(2), Some(4), 8),
        _ => (None, None, 2),
    }
}

fn nibbles(at: usize) -> [Field; 2] {
    [0, 4].map(|shift| Field { at, shift, bits: 4, up: 0 })
}

pub(super) fn read(format: BlockFormat, block: &[u8], parts: &mut Parts) {
    let (min, fifth, codes) = places(format);
    parts.scale = half_at(block, 0);
    // The format adds it, we subtract.
    parts.min = min.map_or(half::f16::ZERO, |at| -half_at(block, at));
    if format == Q8_0 {
        parts.codes.iter_mut().zip(&block[codes..]).for_each(|(code, byte)| *code = byte ^ SIGN);
        return;
    }
    let (low, high) = parts.codes[..32].split_at_mut(16);
    for (codes, field) in [low, high].into_iter().zip(nibbles(codes)) {
        codes.fill(0);
        field.read(block, codes);
    }
    if let Some(at) = fifth {
        let bits = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        parts.codes[..32].iter_mut().enumerate().for_each(|(k, code)| *code |= ((bits >> k & 1) as u8) << 4);
    }
}

pub(super) fn write(format: BlockFormat, block: &mut [u8], parts: &Parts) {
    let (min, fifth, codes) = places(format);
    put_half(block, 0, parts.scale);
    if let Some(at) = min {
        put_half(block, at, -parts.min);
    }
    if format == Q8_0 {
        parts.codes.iter().zip(&mut block[codes..]).for_each(|(code, byte)| *byte = code ^ SIGN);
        return;
    }
    block[codes..].fill(0);
    for (codes, field) in parts.codes[..32].chunks_exact(16).zip(nibbles(codes)) {
        field.write(block, codes);
    }
    if let Some(at) = fifth {
        let bits = parts.codes[..32].iter().enumerate().fold(0, |bits, (k, code)| bits | u32::from(code >> 4 & 1) << k);
        block[at..at + 4].copy_from_slice(&bits.to_le_bytes());
    }
}
