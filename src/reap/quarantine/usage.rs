//! The limits and sizes of quarantines.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::folder::Quarantine;
use super::stored::Stored;
use crate::core::retention::{Limits, NeededSpace, Space};
use crate::core::time::Mono;
use crate::fs::dir::{Dir, RootId};
use crate::sys::clock;
use crate::sys::mutex::guard;

/// The limits and sizes of the quarantines that this process uses. They are cached, so that not every move needs a
/// walk.
#[derive(Debug)]
pub struct QuarantineUsage {
    limits: Mutex<Limits>,
    counted: Mutex<HashMap<RootId, Usage>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// The allocated bytes of all stored files.
    used: u64,
    /// The bytes of the whole file system.
    size: u64,
    /// The time of the measurement and its duration.
    at: Mono,
    took: Duration,
}

/// A full quarantine is not measured again within this time, nor within twenty times the duration of its last
/// measurement.
const RECOUNT: Duration = Duration::from_millis(500);

impl Default for QuarantineUsage {
    /// Creates a usage without limits.
    fn default() -> QuarantineUsage {
        let limits = Limits {
            age: Duration::ZERO,
            percent: 0,
            min_free: 0,
        };
        QuarantineUsage {
            limits: Mutex::new(limits),
            counted: Mutex::default(),
        }
    }
}

impl QuarantineUsage {
    /// Sets the limits.
    pub fn set_limits(&self, limits: Limits) {
        *guard(&self.limits) = limits;
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *guard(&self.limits)
    }

    /// Reports whether the quarantine of `root` is known to have no space for `bytes` more, and whether it is time to
    /// try to free some.
    #[must_use]
    pub fn lacks_room_for(&self, root: &Path, id: Option<RootId>, bytes: u64) -> bool {
        let limits = self.limits();
        if limits.percent == 0 {
            return false;
        }
        let known = id.and_then(|id| self.counts().get(&id).copied());
        let count = match known {
            Some(count) => count,
            None => match Quarantine::open_existing(root, id) {
                Ok(Some(quarantine)) => match self.count(&quarantine) {
                    Ok(count) => count,
                    Err(_) => return false,
                },
                _ => return false,
            },
        };
        count.used.saturating_add(bytes) > limits.max_bytes(count.size)
            && (known.is_none() || count.is_stale())
    }

    /// Reserves `bytes` more in `quarantine`. Returns `false` if it has no space for them.
    pub(super) fn reserve(&self, quarantine: &Quarantine, bytes: u64) -> io::Result<bool> {
        let limits = self.limits();
        if limits.percent == 0 {
            return Ok(true);
        }
        let id = quarantine.root.id();
        let fits = |count: &Usage| count.used.saturating_add(bytes) <= limits.max_bytes(count.size);
        let known = self.counts().get(&id).copied();
        match known {
            Some(count) if fits(&count) || !count.is_stale() => {}
            // Another process may have removed files.
            _ => _ = self.count(quarantine)?,
        }
        let mut counts = self.counts();
        let fitting = counts.get_mut(&id).filter(|count| fits(count));
        Ok(fitting
            .map(|count| count.used = count.used.saturating_add(bytes))
            .is_some())
    }

    pub(super) fn release(&self, id: RootId, bytes: u64) {
        if let Some(count) = self.counts().get_mut(&id) {
            count.used = count.used.saturating_sub(bytes);
        }
    }

    fn count(&self, quarantine: &Quarantine) -> io::Result<Usage> {
        let began = clock::mono();
        let stored = quarantine.stored()?;
        Ok(self.record(quarantine, stored.iter(), began))
    }

    /// Records the size of `quarantine`, which contains the files `stored`. Its measurement began at `began`.
    pub(crate) fn record<'s>(
        &self,
        quarantine: &Quarantine,
        stored: impl Iterator<Item = &'s Stored>,
        began: Mono,
    ) -> Usage {
        let at = clock::mono();
        let bytes = stored.map(|one| one.seen.allocated);
        let count = Usage {
            used: bytes.fold(0, u64::saturating_add),
            size: quarantine.space().size,
            at,
            took: at.since(began),
        };
        self.counts().insert(quarantine.root.id(), count);
        count
    }

    /// Forgets the size of the quarantine of the root `id`.
    pub(crate) fn forget(&self, id: Option<RootId>) {
        self.counts().retain(|known, _| Some(*known) != id);
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<RootId, Usage>> {
        guard(&self.counted)
    }
}

impl Quarantine {
    /// Returns the space on its file system.
    pub(crate) fn space(&self) -> Space {
        space(self.root.fd())
    }
}

impl Usage {
    fn is_stale(&self) -> bool {
        clock::mono().since(self.at) >= RECOUNT.max(self.took * 20)
    }
}

/// Returns the space on the file system of `fd`.
fn space(fd: BorrowedFd<'_>) -> Space {
    let Ok(seen) = rustix::fs::fstatvfs(fd) else {
        return Space::default();
    };
    Space {
        size: seen.f_blocks.saturating_mul(seen.f_frsize),
        free: seen.f_bavail.saturating_mul(seen.f_frsize),
        inodes: seen.f_files,
        inodes_free: seen.f_ffree,
        needed: NeededSpace::default(),
    }
}

/// Reports whether the file system of `root` has less free space than `limits` require.
#[must_use]
pub fn lacks_space(root: &Dir, limits: Limits) -> bool {
    let space = space(root.fd());
    limits.missing_free(space.size, space.free) > 0
        || limits.missing_free(space.inodes, space.inodes_free) > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_full_quarantine_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let usage = Arc::new(QuarantineUsage::default());
        let id = quarantine.root.id();
        let size = space(quarantine.root.fd()).size;
        assert!(usage.reserve(&quarantine, u64::MAX).unwrap(), "no limit");
        usage.set_limits(Limits {
            percent: 10,
            ..Limits::default()
        });
        let tenth = size / 100 * 10;
        assert!(!usage.reserve(&quarantine, tenth + 1).unwrap());
        let mut slot = quarantine
            .new_slot(Path::new("a.tmp"), super::super::MovedAs::SoleCopy)
            .unwrap();
        assert!(slot.reserve(&usage, tenth).unwrap());
        assert!(!usage.reserve(&quarantine, 1).unwrap());
        drop(slot);
        assert!(usage.reserve(&quarantine, tenth).unwrap(), "released");
        // None of these bytes is in the quarantine.
        let used = |at| {
            usage.counts().insert(
                id,
                Usage {
                    used: tenth,
                    size,
                    at,
                    took: Duration::ZERO,
                },
            )
        };
        used(clock::mono());
        assert!(!usage.reserve(&quarantine, 1).unwrap());
        used(clock::mono().before(RECOUNT));
        assert!(usage.reserve(&quarantine, 1).unwrap());
    }
}
