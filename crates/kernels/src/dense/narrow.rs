//! Sixteen-bit floats to and from f32, without branches, so that loops over them vectorise. To the nearest, ties to even.

/// The bits of a bf16.
#[inline(always)]
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let quiet = bits | 1 << 22;
    ((if value.is_nan() { quiet } else { rounded }) >> 16) as u16
}

/// The bits of two bf16, the first one's below.
#[inline(always)]
pub(super) fn to_bf16_pair([first, second]: [f32; 2]) -> u32 {
    u32::from(to_bf16(first)) | u32::from(to_bf16(second)) << 16
}

/// The value of a bf16's bits.
#[inline(always)]
pub(super) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The values of what [`to_bf16_pair`] has made.
#[inline(always)]
pub(super) fn from_bf16_pair(bits: u32) -> [f32; 2] {
    [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
}

/// The bits of an f16.
#[inline(always)]
pub(super) fn to_f16(value: f32) -> u16 {
    /// The least that rounds to infinity, the least that is not subnormal, and what the exponents differ by.
    const INFINITE: f32 = 65520.0;
    const NORMAL: f32 = 6.103_515_6e-5;
    const REBIAS: u32 = (127 - 15) << 23;
    let bits = value.abs().to_bits();
    let normal = bits.wrapping_sub(REBIAS).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
    // One half has its last bit where a subnormal f16 has its own: the addition rounds there.
    let subnormal = (value.abs() + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if value.abs() < NORMAL { subnormal } else { normal };
    let special = if value.is_nan() { 0x7e00 } else { 0x7c00 };
    let magnitude = if value.abs() < INFINITE { finite } else { special };
    (value.to_bits() >> 16 & 0x8000 | magnitude) as u16
}

/// The value of an f16's bits.
#[inline(always)]
pub(super) fn from_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = bits << 13 & 0x0fff_e000;
    // The product moves the exponent's origin, and makes subnormals normal.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let special = magnitude | 0x7f80_0000;
    f32::from_bits((bits & 0x8000) << 16 | if bits & 0x7c00 == 0x7c00 { special } else { finite })
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn all_sixteen_bit_floats_come_back() {
        for bits in 0..=u16::MAX {
            let (b, h) = (from_bf16(bits), from_f16(bits));
            let (expected_b, expected_h) = (bf16::from_bits(bits).to_f32(), f16::from_bits(bits).to_f32());
            assert!(b.to_bits() == expected_b.to_bits() || b.is_nan() && expected_b.is_nan(), "bf16 {bits:x}");
            assert!(h.to_bits() == expected_h.to_bits() || h.is_nan() && expected_h.is_nan(), "f16 {bits:x}");
            assert!(to_bf16(b) == bits || b.is_nan() && bf16::from_bits(to_bf16(b)).is_nan(), "bf16 {bits:x}");
            assert!(to_f16(h) == bits || h.is_nan() && f16::from_bits(to_f16(h)).is_nan(), "f16 {bits:x}");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let mut random = fastrand::Rng::with_seed(1);
        let edges = [65519.99, 65520.0, 6.1035e-5, 5.96e-8, 2.98e-8, 2.99e-8, f32::MAX, f32::INFINITY, 1e-45];
        // A tie for every bf16 and every f16 that is not too large, and its neighbours.
        let ties = (0..=u16::MAX).flat_map(|b| [u32::from(b) << 16 | 0x8000, from_f16(b).to_bits() + 0x1000]);
        let near = ties.flat_map(|bits| [bits - 1, bits, bits + 1]);
        let any = (0..200_000).map(|_| random.u32(..));
        for value in edges.map(f32::to_bits).into_iter().chain(near).chain(any).map(f32::from_bits) {
            let (b, h) = (bf16::from_f32(value), f16::from_f32(value));
            assert!(to_bf16(value) == b.to_bits() || b.is_nan() && value.is_nan(), "{value:e} as bf16");
            assert!(to_f16(value) == h.to_bits() || h.is_nan() && value.is_nan(), "{value:e} as f16");
        }
    }
}
