//! Memory that was freed goes back to the system.

/// Gives back whole pages that hold nothing any more, wherever they lie.
///
/// The C library of GNU gives back by itself only what lies at the end of its heap: one live block
/// above a million freed ones keeps them all resident. Asking costs milliseconds, so it is done only
/// after a storm. Other C libraries are not known to need it.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
