//! Watching on any other Unix: kqueue, one watch for each directory, as far as `notify` carries it.

/// Not relied on.
pub const CLOSE_EVENTS: bool = false;

/// One watch covers everything below a directory.
pub const RECURSIVE: bool = false;
