//! Checks whether a process uses a guard file.

use std::ffi::OsStr;
use std::io;

use super::lease::{UseChecker, open_for_check};
use crate::core::observation::UseState;
use crate::fs::dir::Dir;

/// Returns the use state of the file `name` in `at`, which was observed to be regular.
///
/// No lock is taken. A process that holds a lock on the file has it open, so the lease is refused. A granted lease is
/// released at once.
///
/// `RACE:` a program may open the file between these two calls (µs; if this process is stopped there, up to
/// `/proc/sys/fs/lease-break-time`, 45 s). Worst case: its open waits for that time, or fails with EWOULDBLOCK if it
/// has `O_NONBLOCK`.
pub(in crate::evidence) fn guard_use(at: &Dir, name: &OsStr) -> UseState {
    let file = match open_for_check(at, name) {
        Ok(file) => file,
        // A lease of another process prevents the open: that process has the file open.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return UseState::InUse,
        Err(_) => return UseState::Unknown,
    };
    let (use_state, mut checked) = UseChecker::new().check(file);
    checked.release();
    use_state
}
