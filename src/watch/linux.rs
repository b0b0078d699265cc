//! Properties of inotify, which needs one watch for each directory.

/// A close by a writer is reported (`IN_CLOSE_WRITE`).
pub const CLOSE_EVENTS: bool = true;

/// One watch covers only the directory itself.
pub const RECURSIVE: bool = false;
