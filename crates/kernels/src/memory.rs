//! Memory that begins at a line of the cache.

use std::ops::{Deref, DerefMut};

/// A line of the cache, which vectors must not straddle.
const LINE: usize = 64;
/// A huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// A line of the cache, and a vector of AVX-512.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; LINE / 4]);

impl Line {
    pub const ZERO: Self = Self([0.0; LINE / 4]);

    pub fn bytes(lines: &[Self]) -> &[u8] {
        // SAFETY: lines are numbers, side by side.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }

    pub fn bytes_mut(lines: &mut [Self]) -> &mut [u8] {
        // SAFETY: as above, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
    }

    pub fn numbers_mut(lines: &mut [Self]) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LINE / 4) }
    }
}

/// For weights: zeroed bytes that begin at a line of the cache.
///
/// The system gives them out page by page, when a thread first writes there. Where they fill huge pages, they are asked for as
/// such: weights that stream from memory then come some 10 to 20 percent faster, since far fewer addresses are looked up.
pub struct Memory {
    room: Vec<u8>,
    start: usize,
    length: usize,
}

impl Memory {
    /// `length` bytes, all zero.
    pub fn zeroed(length: usize) -> Self {
        let alignment = if length < HUGE { LINE } else { HUGE };
        let mut room = vec![0; length + alignment];
        let start = room.as_ptr().align_offset(alignment).min(alignment);
        want_huge_pages(&mut room[start..start + length]);
        Self { room, start, length }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.room[self.start..self.start + self.length]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.length]
    }
}

/// Asks; a system that has none gives small ones.
#[cfg(target_os = "linux")]
fn want_huge_pages(bytes: &mut [u8]) {
    const MADV_HUGEPAGE: i32 = 14;
    unsafe extern "C" {
        fn madvise(start: *mut u8, length: usize, advice: i32) -> i32;
    }
    let whole = bytes.len() / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: the range is ours, and the advice changes nothing that is in it.
        unsafe { madvise(bytes.as_mut_ptr(), whole, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn want_huge_pages(_: &mut [u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_aligned() {
        for length in [0, 1, 64, 1000, HUGE - 1, HUGE, 3 * HUGE + 5] {
            let mut memory = Memory::zeroed(length);
            assert!(memory.len() == length && memory.as_ptr().addr().is_multiple_of(LINE));
            assert!(memory.iter().all(|byte| *byte == 0));
            memory.fill(1);
        }
    }
}
