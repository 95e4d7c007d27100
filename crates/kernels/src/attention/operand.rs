//! What a panel's numbers are, and how they are multiplied.

use super::lanes::Lanes;
use crate::kv::{KvFormat, LANES};

/// The format of the right side of a product, a panel; and of the left side, queries or weights, which is read as f32 words:
/// a number, or a pair of bf16, that all lanes are multiplied by.
pub trait Operand<L: Lanes> {
    const FORMAT: KvFormat;
    /// Products per vector of a panel: where numbers share a lane, one for each unless an instruction takes all at once.
    const PASSES: usize;

    /// A panel's vector, for one of the passes.
    ///
    /// # Safety
    /// A vector can be read there.
    unsafe fn right(from: *const u8, pass: usize) -> L;
    /// left * right + sum
    #[inline(always)]
    fn multiply_add(left: L, right: L, sum: L) -> L {
        left.mul_add(right, sum)
    }
    /// Stores sixteen numbers of the left side: [`words`] of sixteen.
    ///
    /// # Safety
    /// They can be written there.
    #[inline(always)]
    unsafe fn store_left(to: *mut f32, numbers: L) {
        // SAFETY: as promised.
        unsafe { numbers.store(to) }
    }
}

/// Vectors of a panel that hold `numbers` (dimensions of keys, tokens of values).
pub const fn vectors<L: Lanes, F: Operand<L>>(numbers: usize) -> usize {
    numbers.div_ceil(F::FORMAT.numbers_per_lane())
}

/// Words that `numbers` take on the left side.
pub const fn words<L: Lanes, F: Operand<L>>(numbers: usize) -> usize {
    vectors::<L, F>(numbers) * F::PASSES
}

/// Bytes of a panel's vector.
pub const fn vector_bytes<L: Lanes, F: Operand<L>>() -> usize {
    LANES * F::FORMAT.numbers_per_lane() * F::FORMAT.number_bytes()
}

/// f32
pub struct Full;
/// bf16, widened.
pub struct Pairs;
/// f16, widened.
pub struct Halves;
/// Bytes, widened. Their scales are not seen here.
pub struct Bytes;

impl<L: Lanes> Operand<L> for Full {
    const FORMAT: KvFormat = KvFormat::F32;
    const PASSES: usize = 1;

    #[inline(always)]
    unsafe fn right(from: *const u8, _: usize) -> L {
        // SAFETY: as promised.
        unsafe { L::load(from.cast()) }
    }
}

impl<L: Lanes> Operand<L> for Pairs {
    const FORMAT: KvFormat = KvFormat::Bf16;
    const PASSES: usize = 2;

    #[inline(always)]
    unsafe fn right(from: *const u8, pass: usize) -> L {
        // SAFETY: as promised.
        unsafe { L::load_bf16(from.cast(), pass) }
    }
}

impl<L: Lanes> Operand<L> for Halves {
    const FORMAT: KvFormat = KvFormat::F16;
    const PASSES: usize = 1;

    #[inline(always)]
    unsafe fn right(from: *const u8, _: usize) -> L {
        // SAFETY: as promised.
        unsafe { L::load_f16(from.cast()) }
    }
}

impl<L: Lanes> Operand<L> for Bytes {
    const FORMAT: KvFormat = KvFormat::Q8;
    const PASSES: usize = 1;

    #[inline(always)]
    unsafe fn right(from: *const u8, _: usize) -> L {
        // SAFETY: as promised.
        unsafe { L::load_i8(from.cast()) }
    }
}
