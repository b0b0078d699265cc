//! Opens directories and observes files. Only this module turns a path into a fingerprint.
//!
//! A directory is opened through its root at the time of the look. Every file in it is accessed by that handle and a
//! base name, so no path is resolved twice. A symlink is never followed at a root or below it. A symlink in the path of
//! a root is followed only if no other user could replace it. No other mount and no other subvolume is entered.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

mod common;
mod data;
mod follow;
mod handle;
mod identity;
mod root_error;
mod root_path;

pub use data::{data_at_least, data_at_most};
pub use follow::Followed;
pub use handle::{Dir, observe_at, observe_fd, open_to_measure};
pub use identity::RootId;
pub use root_error::{RootError, unreadable_message, with_fix};
pub use system::{Buffer, PROC, has_access_times};
