//! Mounts on macOS. FSEvents itself reports them, so there is no separate listener.
//!
//! This code was never run. It relies on FSEvents.h: a stream created with `kFSEventStreamCreateFlagWatchRoot` reports
//! `kFSEventStreamEventFlagRootChanged` when any part of the path of a root changes, also by a mount over it. It
//! reports `kFSEventStreamEventFlagMount` and `kFSEventStreamEventFlagUnmount` for a volume that is mounted or
//! unmounted below a root. notify passes on all three, and `translate.rs` handles them like the removal of the
//! directory at that path, so the path is looked at again.

use super::MountCallback;

/// The listener of macOS, of which there is no value.
#[derive(Debug)]
pub(super) enum Listener {}

pub(super) fn listen(_: MountCallback) -> Option<Listener> {
    None
}
