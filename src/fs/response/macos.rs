//! The probe of macOS, which is a thread.

pub(super) use super::thread::Probe;
