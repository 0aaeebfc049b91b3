//! Counts the allocations of a thread, to show that a declared length allocates nothing.

#![expect(unsafe_code, reason = "the allocator trait is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count per thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that this thread holds, and the maximum since the count began. Memory that another
    /// thread frees is not seen; no target uses two threads.
    static USAGE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(change: isize) {
    // A thread that ends allocates after its variables are gone; that is not counted.
    let counted = USAGE.try_with(|usage| {
        let (now, most) = usage.get();
        let now = now.wrapping_add(change);
        usage.set((now, most.max(now)));
    });
    counted.ok();
}

fn bytes(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor
// panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout.size()));
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-bytes(layout.size()));
        // SAFETY: `pointer` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist for a moment when it cannot grow in place.
        count(bytes(size));
        count(-bytes(layout.size()));
        // SAFETY: as in `dealloc`, and the caller's promises about `size` are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Returns the result of `work`, and the maximum that it held on this thread, in bytes.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    USAGE.with(|usage| usage.set((0, 0)));
    let value = work();
    let (_, most) = USAGE.with(Cell::get);
    (value, usize::try_from(most).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_for_a_moment_is_counted() {
        let (length, peak) = peak_of(|| vec![1_u8; 1 << 20].len());
        assert_eq!(length, 1 << 20);
        assert!((1 << 20..1 << 21).contains(&peak), "{peak}");
        let ((), peak) = peak_of(|| ());
        assert_eq!(peak, 0);
    }
}
