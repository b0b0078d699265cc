//! A probe on other systems: a thread.

pub(super) use super::thread::Probe;
