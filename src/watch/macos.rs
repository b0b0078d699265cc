//! Properties of FSEvents, which has one stream for all roots. This code is type-checked but was never run; see
//! docs/platforms.md.

/// FSEvents does not report closes.
pub const CLOSE_EVENTS: bool = false;

/// One watch covers everything below a directory.
pub const RECURSIVE: bool = true;
