//! The C library's heap, told to give memory back: models come and go, and what they held shall be
//! everybody's again.
//!
//! As it comes, glibc raises the size from which a block has a mapping of its own, up to 32 MiB, each time
//! such a block is freed; caches of that size are then cut from the heap, and stay there when they are freed:
//! 1.2 GB were left of an 8B and a 7B model that had taken turns. Holding that size down instead would have
//! every step's larger tensors mapped and cleared anew.

/// Gives free pages of the heap back to the system. Looks at all of the heap: for after a model has left.
pub fn return_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: takes a number and may be called at any time, from any thread.
        unsafe { libc::malloc_trim(0) };
    }
}
