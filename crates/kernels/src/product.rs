//! What products with weights of every kind have in common.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::DenseFormat;

/// Where a weight comes from: `[outputs, inputs]`, row after row.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// As f32.
    F32(&'a [f32]),
    /// As bf16.
    Bf16(&'a [bf16]),
    /// As f16.
    F16(&'a [f16]),
}

impl Source<'_> {
    /// Hands out the bytes of a file, little-endian, as numbers: where they lie, or copied when that is not at a multiple of their
    /// size. Bytes that make no whole number are left out.
    pub fn with_bytes<R>(bytes: &[u8], format: DenseFormat, work: impl FnOnce(Source<'_>) -> R) -> R {
        match format {
            DenseFormat::F32 => numbers(bytes, f32::from_le_bytes, |numbers| work(Source::F32(numbers))),
            DenseFormat::Bf16 => numbers(bytes, bf16::from_le_bytes, |numbers| work(Source::Bf16(numbers))),
            DenseFormat::F16 => numbers(bytes, f16::from_le_bytes, |numbers| work(Source::F16(numbers))),
        }
    }

    /// Some of the numbers, as f32.
    pub fn widen(self, range: Range<usize>, out: &mut [f32]) {
        match self {
            Self::F32(weights) => out.copy_from_slice(&weights[range]),
            Self::Bf16(weights) => weights[range].convert_to_f32_slice(out),
            Self::F16(weights) => weights[range].convert_to_f32_slice(out),
        }
    }

    /// Numbers of the weight.
    pub fn len(self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::Bf16(weights) => weights.len(),
            Self::F16(weights) => weights.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// Where a product goes: `[rows, outputs]`.
#[derive(Debug)]
pub enum Out<'a> {
    /// In place of what is there.
    Write(&'a mut [f32]),
    /// On top of what is there.
    Add(&'a mut [f32]),
}

/// `T` is a plain number of `N` bytes that any bits are a value of.
fn numbers<T, const N: usize, R>(bytes: &[u8], read: impl Fn([u8; N]) -> T, work: impl FnOnce(&[T]) -> R) -> R {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: all bits are a value of f32, bf16 and f16, for which alone this is called.
    let (before, here, _) = unsafe { bytes.align_to::<T>() };
    if cfg!(target_endian = "little") && before.is_empty() {
        return work(here);
    }
    let copied: Vec<T> = bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect();
    work(&copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_any_place() {
        let bytes: Vec<u8> = [1.0_f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
        for shift in 0..8 {
            let shifted = [vec![0; shift], bytes.clone()].concat();
            let read = |source: Source<'_>| matches!(source, Source::F32(numbers) if numbers == [1.0, -2.5]);
            assert!(Source::with_bytes(&shifted[shift..], DenseFormat::F32, read), "{shift}");
        }
        assert_eq!(Source::with_bytes(&[0x80, 0x3f, 0], DenseFormat::Bf16, |source| source.len()), 1);
    }
}
