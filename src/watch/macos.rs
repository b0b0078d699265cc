//! Watching on macOS: FSEvents, one stream for all roots. Type-checked only; see docs/platforms.md.

/// FSEvents reports no close.
pub const CLOSE_EVENTS: bool = false;

/// One watch covers everything below a directory.
pub const RECURSIVE: bool = true;
