//! From a due temp to its removal: one pass over a directory, and the sweep of a whole root.

pub mod limits;
pub mod pass;
mod stored_targets;
pub mod sweep;
