//! A probe on macOS: a thread.

pub(super) use super::thread::Probe;
