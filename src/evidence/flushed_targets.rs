//! Writes targets to the disk before temps are removed because of them.
//!
//! A program may write its file anew without fsync(2). Until the kernel writes the data back, the temp is the only copy
//! on the disk: after a power failure the file may be empty, while the removal of the temp lasts.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

use super::FileId;
use crate::core::observation::{Fingerprint, Observation};
use crate::core::time::Wall;
use crate::sys::mutex::guard;

/// The age at which a change is on the disk by itself. Linux writes data back after 30 to 35 s (`dirty_expire_centisecs`
/// and `dirty_writeback_centisecs`), and later if the disk is slow.
const WRITTEN_BACK: Duration = Duration::from_secs(10 * 60);

/// The largest number of files that are remembered.
const MAX_FILES: usize = 10_000;

/// The targets that were written to the disk, so that each is written once.
#[derive(Debug, Default)]
pub struct FlushedTargets(Mutex<HashMap<FileId, Fingerprint>>);

impl FlushedTargets {
    /// Writes the open file `file` to the disk, unless its last change was long ago or it was written before. `seen` is
    /// its observation, and `now` the time.
    ///
    /// RACE: a change right after the observation may have the same dates. Worst case: after a power failure the file
    /// has the data that it had before that change.
    ///
    /// # Errors
    ///
    /// The data cannot be written (fsync(2)).
    pub(super) fn flush(&self, file: impl AsFd, seen: &Observation, now: Wall) -> io::Result<()> {
        let fingerprint = seen.fingerprint;
        let id = FileId::from(&fingerprint);
        let is_old = now.since(fingerprint.mtime.max(fingerprint.ctime)) >= WRITTEN_BACK;
        if is_old || guard(&self.0).get(&id) == Some(&fingerprint) {
            return Ok(());
        }
        rule!("target-is-on-the-disk", rustix::fs::fsync(file), without: Ok(()))?;
        let mut files = guard(&self.0);
        if files.len() >= MAX_FILES {
            files.clear();
        }
        files.insert(id, fingerprint);
        Ok(())
    }
}
