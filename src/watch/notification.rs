//! The rare events that a callback sends to the supervisor.

use std::path::PathBuf;

use super::root_writes::SlowWrite;

/// A rare event that the callback sends to the supervisor.
#[derive(Debug)]
pub enum Notification {
    /// A directory may have been created, removed or moved at this path.
    DirectoryChanged(PathBuf),
    /// A watched directory itself was moved, removed or unmounted.
    SelfGone(PathBuf),
    /// A root or one of its ancestors was created, removed or moved. `None`: events about them were lost.
    Ancestor(Option<PathBuf>),
    /// The permissions of a root or of one of its ancestors have changed.
    PermissionsChanged,
    /// The paths at which file systems were mounted or unmounted.
    Mounts(Vec<PathBuf>),
    /// Temps are created in this directory so fast that one event for each costs more than a scan.
    Hot(PathBuf),
    /// A healthy write took more than half of its grace. Sent once for each root and grace.
    SlowWrite(SlowWrite),
    /// Some temps could not be tracked because the limit was reached.
    LimitReached,
    /// Events arrive faster than a thread of notify reads them, so the thread had to end. Holds its generation.
    Overrun(u32),
    /// Events were lost.
    EventsLost,
    /// notify reported an error.
    Error(notify::Error),
    /// A thread of notify has ended. Holds the generation of its watcher.
    WatcherEnded(u32),
}
