//! Properties of the kernel's file system events that differ between the systems.
//!
//! Linux has inotify, which needs one watch for each directory. macOS has FSEvents, which has one stream for all roots.

/// A close by a writer is reported: inotify does (`IN_CLOSE_WRITE`), FSEvents does not.
pub const CLOSE_EVENTS: bool = cfg!(target_os = "linux");

/// One watch covers everything below a directory, as on macOS. On Linux it covers only the directory itself.
pub const RECURSIVE: bool = cfg!(target_os = "macos");
