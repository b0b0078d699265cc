//! Receives file system events. Only this module uses `notify`.
//!
//! The callback runs on notify's own thread, and the kernel's event queue fills while it runs. For this reason the
//! callback does very little. It adds a created temp to the map, removes a renamed or removed temp from the map, and
//! sends every rarer event to a channel. It never calls stat(2) (except on macOS, where events are merged), never logs,
//! never blocks and cannot panic.

mod ancestors;
mod callback;
pub mod coalesce;
mod error;
pub mod file;
mod fs_watcher;
mod learn_feed;
pub mod mounts;
mod notification;
mod rate_probe;
mod root_writes;
pub mod translate;
mod watcher_handle;

pub use crate::sys::kernel_events::{CLOSE_EVENTS, RECURSIVE};
pub use ancestors::Coverage;
pub use callback::{CallbackContext, callback};
pub use error::{WatchError, WatchLimit};
pub use fs_watcher::FsWatcher;
pub use learn_feed::{LearnFeed, Seen};
pub use notification::Notification;
pub use rate_probe::RateProbe;
pub use root_writes::{RootWrites, SlowWrite};
