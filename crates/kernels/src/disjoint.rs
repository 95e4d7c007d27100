//! One slice, written by several threads, each its own places.

use std::marker::PhantomData;
use std::ops::Range;

/// A borrowed slice whose parts may be handed to different threads.
pub(crate) struct Disjoint<'a, T> {
    first: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out exclusive slices as `&mut [T]` would, and `part` makes its caller keep them apart.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { first: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// Numbers in all.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The numbers in `range`.
    ///
    /// # Safety
    /// Nobody else holds a part that overlaps.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "that is what it is for")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "a part outside of its slice");
        // SAFETY: inside the slice, and the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }
}
