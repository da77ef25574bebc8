//! One slice written by many tasks, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts go to different tasks.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out `&mut [T]` to other threads, which `T: Send` allows; that no two of them
// overlap is what `slice_mut` demands.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The part `range`, which must lie within the slice.
    ///
    /// # Safety
    /// No two parts that are alive at once may overlap.
    #[expect(
        clippy::mut_from_ref,
        reason = "the parts are disjoint: the caller promises it"
    )]
    pub(crate) unsafe fn slice_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "a part outside of the slice"
        );
        // SAFETY: the range was checked to lie within the slice.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: within the slice, which is borrowed for 'a, and nobody else has this part.
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }
}
