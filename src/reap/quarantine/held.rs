//! Proves that no process uses a stored file. The copies that supersede temps stay leased while these are removed.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::folder::Quarantine;
use super::stored::{FILE, Stored};
use crate::core::judge::LeaseCoverage;
use crate::core::observation::UseState;
use crate::core::policy::Policy;
use crate::evidence::{self, CheckedFile, FileId, UseChecker};
use crate::fs::dir;
use crate::reap::calls;
use crate::sys::mutex::guard;

/// The leased copies of each directory, for all threads of this process. Two threads that open the same copy would take
/// each other for a process that uses it, so a stored file is opened for a proof only while its directory is locked
/// here.
static HELD: [Mutex<Vec<HeldCopy>>; 16] = [const { Mutex::new(Vec::new()) }; 16];

/// A copy that is leased.
#[derive(Debug)]
pub(super) struct HeldCopy {
    stored: Arc<Stored>,
    checked: CheckedFile,
    /// The thread that gets the signal if the lease is broken. It releases the lease before it unblocks the signal.
    thread: ThreadId,
}

/// The copies that this thread has leased for a batch. Other threads use the leases too.
///
/// The copies that supersede a temp stay leased until this thread removes a temp that needs other copies. So the proof
/// for the next temp only looks at the copies and rechecks the leases.
///
/// Another process that opens a leased copy waits, or gets EWOULDBLOCK if it must not wait. Its attempt breaks the
/// lease, and the next recheck then releases the copy. So it waits for the removal of one temp, or to the end of the
/// batch if no other temp needs the copy.
#[derive(Debug, Default)]
pub(in crate::reap) struct HeldCopies {
    /// The index of the directory in [`HELD`], if copies may be leased.
    at: Cell<Option<usize>>,
}

impl HeldCopies {
    /// Reports whether every copy is in the quarantine, unchanged, and used by no process, by proof. If so, the copies
    /// stay leased. All copies that are ever passed come from one directory.
    pub(in crate::reap) fn are_proven(
        &self,
        quarantine: &Quarantine,
        copies: &[Arc<Stored>],
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> bool {
        let Some(first) = copies.first() else {
            return false;
        };
        if !is_recheck_proof(quarantine.root().lease_coverage()) {
            let mut copies = copies.iter();
            return copies.all(|copy| quarantine.is_proven_unused(copy, policy, use_checker));
        }
        let (at, thread) = (index_of(first), thread::current().id());
        self.at.set(Some(at));
        let mut held = lock(at);
        let is_needed = |one: &HeldCopy| copies.iter().any(|copy| one.is(copy));
        held.retain(|one| one.thread != thread || is_needed(one));
        let are_held = copies.iter().all(|copy| {
            if held.iter().any(|one| one.is(copy)) {
                return true;
            }
            let new = quarantine.hold(copy, use_checker).ok().flatten();
            let is_leased = new.is_some();
            held.extend(new);
            is_leased
        });
        // A lease does not show a rename, a new link or new attributes.
        let are_proven = are_held
            && rule!("held-copies-are-unchanged", quarantine.are_unchanged(copies), without: true)
            && rule!("held-copies-are-unused",
                held.iter().filter(|one| is_needed(one)).all(HeldCopy::is_unused), without: true);
        if !are_proven {
            held.retain(|one| !is_needed(one));
        }
        are_proven
    }

    /// Releases the leases of this thread.
    pub(in crate::reap) fn release(&self) {
        if let Some(at) = self.at.take() {
            let thread = thread::current().id();
            lock(at).retain(|one| one.thread != thread);
        }
    }
}

impl Drop for HeldCopies {
    fn drop(&mut self) {
        self.release();
    }
}

impl HeldCopy {
    fn is(&self, stored: &Stored) -> bool {
        self.stored.seen == stored.seen
    }

    /// Reports whether no process has opened the copy since it was leased, and none is inside an `open` of it.
    fn is_unused(&self) -> bool {
        self.checked.recheck() == UseState::Unused
    }
}

impl Quarantine {
    /// Leases a copy. Returns `None` if a process uses it, or if it is another file. Its directory is locked.
    fn hold(&self, copy: &Arc<Stored>, use_checker: &UseChecker) -> io::Result<Option<HeldCopy>> {
        let (use_state, checked) = use_checker.check(self.open_copy(copy)?);
        let is_same = dir::observe_fd(checked.file())? == copy.seen;
        Ok(
            (use_state == UseState::Unused && is_same).then(|| HeldCopy {
                stored: Arc::clone(copy),
                checked,
                thread: thread::current().id(),
            }),
        )
    }

    /// Returns how many bytes of data `stored` has, as a lower bound.
    pub(crate) fn data_of(&self, stored: &Stored) -> io::Result<u64> {
        self.data(stored, |_| Ok(()))
    }

    /// Writes the data of `stored` to the disk, and returns how many bytes of data it has, as a lower bound.
    pub(crate) fn flushed_data(&self, stored: &Stored) -> io::Result<u64> {
        self.data(stored, |file| Ok(rustix::fs::fsync(file)?))
    }

    fn data(
        &self,
        stored: &Stored,
        flush: impl FnOnce(&OwnedFd) -> io::Result<()>,
    ) -> io::Result<u64> {
        let _locked = lock_released(stored);
        let (dir, name, seen) = self.locate(stored)?;
        let file = rustix::fs::openat(&dir, name, FILE, Mode::empty())?;
        flush(&file)?;
        dir::data_at_least(file.as_fd(), &seen, seen.fingerprint.size)
    }

    /// Reports whether it is proven that no process uses `stored`, and whether the file is unchanged.
    pub(crate) fn is_proven_unused(
        &self,
        stored: &Stored,
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> bool {
        let _locked = match self.lock_or_recheck(stored) {
            Ok(locked) => locked,
            Err(is_proven) => return is_proven,
        };
        let Ok((dir, name, seen)) = self.locate(stored) else {
            return false;
        };
        let Ok(file) = rustix::fs::openat(&dir, name, FILE, Mode::empty()) else {
            return false;
        };
        let (use_state, checked) = use_checker.check(file);
        let same =
            dir::observe_fd(checked.file()).is_ok_and(|now| now == seen && now == stored.seen);
        let file = FileId::from(&seen.fingerprint);
        let coverage = self.root.lease_coverage();
        let is_unmapped = match coverage {
            LeaseCoverage::OpensAndMaps => true,
            LeaseCoverage::OpensOnly => {
                evidence::scan_processes(&[file], coverage).proves_unmapped(file)
            }
            LeaseCoverage::Unknown => {
                rule!("unproven-is-not-dropped", self.root.properties().has_proof(policy), without: true)
            }
        };
        use_state == UseState::Unused
            && same
            && is_unmapped
            && checked.recheck() == UseState::Unused
    }

    /// Deletes `stored` if it is proven, right before, that no process uses it.
    ///
    /// RACE: a process of our user may open or replace the file between this proof and the unlink (µs; on macOS, unless
    /// the kernel refuses to remove a file in use, the time of a process scan). Worst case: what it then writes, or the
    /// new file, is lost.
    ///
    /// # Errors
    ///
    /// A process uses the file, it is another file by now, or the system reports an error.
    pub(crate) fn delete_unused(
        &self,
        stored: &Stored,
        use_checker: &UseChecker,
    ) -> io::Result<()> {
        let _locked = lock_released(stored);
        let (dir, name, seen) = self.locate(stored)?;
        let file = rustix::fs::openat(&dir, name, FILE, Mode::empty())?;
        let mut checked = use_checker.unchecked(file);
        // Without leases, only a scan that begins from now on counts.
        checked.release();
        let is_same = seen == stored.seen && dir::observe_fd(checked.file())? == seen;
        let is_unused = is_same && checked.check() == UseState::Unused;
        if !rule!("deleted-copy-is-unused", is_unused, without: true) {
            return Err(Errno::BUSY.into());
        }
        calls::unlink_proven(dir.as_fd(), name, &checked)?;
        drop(dir);
        self.remove_empty(stored.folder_name(), stored.original_dir());
        Ok(())
    }

    /// Locks the directory of `stored`, so that the file can be opened for a proof. `Err` is the answer if the file is
    /// leased: whether it is unchanged and unused.
    fn lock_or_recheck(&self, stored: &Stored) -> Result<MutexGuard<'static, Vec<HeldCopy>>, bool> {
        let mut held = lock(index_of(stored));
        let Some(known) = held.iter().position(|one| one.is(stored)) else {
            return Ok(held);
        };
        let one = held.remove(known);
        let is_proven = self.are_unchanged(std::slice::from_ref(&one.stored)) && one.is_unused();
        if is_proven {
            held.push(one);
        }
        Err(is_proven)
    }
}

/// Locks the directory of `stored`, and releases the file if it is leased.
pub(super) fn lock_released(stored: &Stored) -> MutexGuard<'static, Vec<HeldCopy>> {
    let mut held = lock(index_of(stored));
    held.retain(|one| !one.is(stored));
    held
}

/// Reports whether a recheck shows every use of a file since it was leased.
fn is_recheck_proof(coverage: LeaseCoverage) -> bool {
    let sees_all = UseChecker::HOLDS_LEASES && coverage == LeaseCoverage::OpensAndMaps;
    rule!("held-where-recheck-is-proof", sees_all, without: true)
}

fn lock(at: usize) -> MutexGuard<'static, Vec<HeldCopy>> {
    guard(&HELD[at])
}

/// Returns the index in [`HELD`] of the directory that `stored` comes from.
fn index_of(stored: &Stored) -> usize {
    let mut hasher = DefaultHasher::new();
    stored.original_dir().hash(&mut hasher);
    hasher.finish() as usize % HELD.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_held_only_where_leases_show_all_uses() {
        for coverage in [LeaseCoverage::OpensOnly, LeaseCoverage::Unknown] {
            assert!(!is_recheck_proof(coverage), "{coverage:?}");
        }
        let sees_all = is_recheck_proof(LeaseCoverage::OpensAndMaps);
        assert_eq!(sees_all, cfg!(target_os = "linux"));
    }
}
