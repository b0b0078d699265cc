//! Returns freed memory to the operating system.

/// Returns all unused whole pages of the heap to the operating system.
///
/// By itself the GNU C library returns only free memory at the end of its heap. One live block above a million freed
/// ones keeps all of them resident. The call takes milliseconds, so it is made only after a storm of temps. No other C
/// library is known to need it.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
