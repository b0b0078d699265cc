//! Watching on Linux: inotify, one watch for each directory.

/// A close by a writer is reported (IN_CLOSE_WRITE).
pub const CLOSE_EVENTS: bool = true;

/// One watch covers everything below a directory.
pub const RECURSIVE: bool = false;
