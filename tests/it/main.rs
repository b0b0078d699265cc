//! End to end: real files, real processes, real kills.
#![allow(clippy::unwrap_used, missing_docs)]
