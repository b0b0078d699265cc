//! Mounts on macOS: FSEvents itself tells of them, so there is nothing to listen to beside it.
//!
//! Relied on (FSEvents.h; type-checked only): a stream made with `kFSEventStreamCreateFlagWatchRoot`
//! reports `kFSEventStreamEventFlagRootChanged` when any part of the way to a root changes, a mount
//! over it included, and `kFSEventStreamEventFlagMount` and `…Unmount` for a volume that comes or
//! goes below a root. notify passes all three on, and `translate.rs` takes them for the end of the
//! directory at that place: it is looked at again.

use super::MountCallback;

/// There is none.
#[derive(Debug)]
pub(super) enum Listener {}

pub(super) fn listen(_: MountCallback) -> Option<Listener> {
    None
}
