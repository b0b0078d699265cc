//! Copies stored files to another directory, and removes them from the quarantine if it is proven that no process uses
//! them.
//!
//! A rename keeps what a process still writes to a stored file. A copy does not have it, so a stored file is removed
//! only by the same proof as a temp: on Linux, it is leased from before the copying until it is removed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::copy::{self, StagedCopy};
use super::folder::Quarantine;
use super::held::lock_released;
use super::stored::{Stored, open_to_read};
use crate::core::judge::LeaseCoverage;
use crate::core::observation::{Observation, UseState};
use crate::core::policy::Policy;
use crate::evidence::{self, CheckedFile, FileId, UseChecker};
use crate::fs::dir;
use crate::reap::calls;

/// A failure to restore a set.
#[derive(Debug)]
pub struct SetError {
    /// The index of the file that could not be restored; 0 is the main file.
    pub member: usize,
    /// The error.
    pub error: io::Error,
}

/// The reason why a stored file is not replaced by a copy on another file system.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// Another process uses it.
    #[error("{0} uses the stored file, and a copy would miss what it still writes")]
    InUse(String),
    /// The system cannot tell.
    #[error("it cannot be proven that no process uses the stored file")]
    CannotTell,
    /// It is another file or has other content than before.
    #[error("the stored file has changed while it was copied")]
    Changed,
    /// The name of the copy cannot be written to the disk.
    #[error("the directory of the copy cannot be written to the disk ({0})")]
    NotOnDisk(String),
    /// One of the other reasons was found when the copy already had its name.
    #[error("the copy is complete, but the stored file is not removed: {0}")]
    AfterCopy(Box<NotReplaced>),
}

impl NotReplaced {
    /// Returns the reason that an error contains.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&NotReplaced> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<NotReplaced> for io::Error {
    fn from(reason: NotReplaced) -> io::Error {
        io::Error::other(reason)
    }
}

/// A stored file that no other process used when this value was created, by proof.
#[derive(Debug)]
struct UnusedFile {
    checked: CheckedFile,
    seen: Observation,
    coverage: LeaseCoverage,
}

impl UnusedFile {
    /// Proves that no process has used the file since this value was created, and that the file is unchanged.
    fn prove_again(&mut self) -> Result<(), NotReplaced> {
        let is_same = dir::observe_fd(self.checked.file()).is_ok_and(|now| now == self.seen);
        if rule!("replaced-file-is-unchanged", !is_same) {
            return Err(NotReplaced::Changed);
        }
        self.check_maps()?;
        let use_state = match UseChecker::HOLDS_LEASES {
            true => self.checked.recheck(),
            false => {
                self.checked.release();
                self.checked.check()
            }
        };
        self.check_use(use_state)
    }

    fn check_use(&self, use_state: UseState) -> Result<(), NotReplaced> {
        let is_unused = use_state == UseState::Unused;
        if rule!("replaced-file-is-unused", is_unused, without: true) {
            return Ok(());
        }
        let id = FileId::from(&self.seen.fingerprint);
        let holders = evidence::scan_processes(&[id], self.coverage).holders_of(id);
        Err(match (use_state, holders.first()) {
            (UseState::Unknown, None) => NotReplaced::CannotTell,
            (_, Some(holder)) => NotReplaced::InUse(format!("{}[{}]", holder.name, holder.pid)),
            (_, None) => NotReplaced::InUse("another process".into()),
        })
    }

    /// Checks that no process has the file mapped, where a lease does not show that.
    fn check_maps(&self) -> Result<(), NotReplaced> {
        if self.coverage != LeaseCoverage::OpensOnly {
            return Ok(());
        }
        let id = FileId::from(&self.seen.fingerprint);
        let scan = evidence::scan_processes(&[id], self.coverage);
        match (scan.proves_unmapped(id), scan.holders_of(id).is_empty()) {
            (true, _) => Ok(()),
            (false, true) => Err(NotReplaced::CannotTell),
            (false, false) => self.check_use(UseState::InUse),
        }
    }
}

impl Quarantine {
    /// Proves that no other process uses `stored`.
    fn prove_unused(
        &self,
        stored: &Stored,
        policy: &Policy,
        use_checker: &UseChecker,
    ) -> io::Result<UnusedFile> {
        let _locked = lock_released(stored);
        let (dir, name, seen) = self.locate(stored)?;
        let (use_state, checked) = use_checker.check(open_to_read(dir.as_fd(), name)?);
        let mut file = UnusedFile {
            checked,
            seen,
            coverage: self.root.lease_coverage(),
        };
        file.check_use(use_state)?;
        let has_proof = self.root.properties().has_proof(policy);
        if rule!("replaced-only-with-a-proof", !has_proof) {
            return Err(NotReplaced::CannotTell.into());
        }
        file.prove_again()?;
        Ok(file)
    }

    /// Copies the members of a set to another file system, compares the copies, and then deletes the originals. `targets`
    /// are the names of the copies, the main file first.
    ///
    /// No copy has its name before it is proven that no process uses an original. No original is removed before the
    /// copies and their names are on the disk.
    pub(super) fn copy_and_remove(
        &self,
        members: &[&Stored],
        to: BorrowedFd<'_>,
        targets: &[OsString],
        mark: &dyn Fn(BorrowedFd<'_>, &Observation),
        policy: &Policy,
    ) -> Result<(), SetError> {
        let use_checker = UseChecker::new();
        let (mut files, mut staged) = (Vec::new(), Vec::new());
        for (member, stored) in members.iter().enumerate() {
            let file = self.prove_unused(stored, policy, &use_checker);
            files.push(file.map_err(|error| SetError { member, error })?);
        }
        for (member, file) in files.iter().enumerate() {
            // The lease belongs to the open file, of which this is another descriptor. A file that was opened again
            // would not get a lease.
            let copied = file
                .checked
                .file()
                .try_clone_to_owned()
                .and_then(|from| StagedCopy::new(&File::from(from), &file.seen, to, mark));
            staged.push(copied.map_err(|error| SetError { member, error })?);
        }
        for (member, file) in files.iter_mut().enumerate() {
            let proven = file.prove_again();
            proven.map_err(|reason| SetError {
                member,
                error: reason.into(),
            })?;
        }
        let made = publish(staged, to, targets)?;
        // The other file system may write the removal of an original to the disk before this one writes the copy's name.
        let on_disk =
            rule!("copy-has-its-name-on-the-disk", rustix::fs::fsync(to), without: Ok(()));
        on_disk.map_err(|error| {
            let reason = NotReplaced::NotOnDisk(io::Error::from(error).to_string());
            SetError {
                member: 0,
                error: NotReplaced::AfterCopy(Box::new(reason)).into(),
            }
        })?;
        check_published(to, targets, &made)?;
        for (member, (stored, file)) in members.iter().zip(&mut files).enumerate() {
            let removed = self.remove_unused(stored, file);
            removed.map_err(|error| SetError { member, error })?;
        }
        drop(files);
        for stored in members {
            self.remove_empty(stored.folder_name(), stored.original_dir());
        }
        Ok(())
    }

    /// Removes a stored file whose copy has its name.
    ///
    /// RACE: a process of our user may open or replace the stored file between the last check and the unlink (µs). Worst
    /// case: what it then writes, or the new file, is lost.
    fn remove_unused(&self, stored: &Stored, file: &mut UnusedFile) -> io::Result<()> {
        let after_copy = |reason| NotReplaced::AfterCopy(Box::new(reason));
        let (dir, name, now) = self.locate(stored)?;
        if now != file.seen {
            return Err(after_copy(NotReplaced::Changed).into());
        }
        file.prove_again().map_err(after_copy)?;
        calls::unlink_proven(dir.as_fd(), name, &file.checked)
    }

    /// Copies a member of a set that stays in the quarantine.
    pub(super) fn stage<'d>(
        &self,
        stored: &Stored,
        to: BorrowedFd<'d>,
        mark: &dyn Fn(BorrowedFd<'_>, &Observation),
    ) -> io::Result<StagedCopy<'d>> {
        let (dir, name, seen) = self.locate(stored)?;
        let file = File::from(open_to_read(dir.as_fd(), name)?);
        if dir::observe_fd(file.as_fd())? != seen {
            return Err(NotReplaced::Changed.into());
        }
        StagedCopy::new(&file, &seen, to, mark)
    }
}

/// Checks that each of the names `targets` refers to the copy `made`. Another user of the directory may have replaced a copy
/// before it got its name.
///
/// RACE: a copy may be replaced between this check and the removal of its original (µs). Worst case: the file is lost.
fn check_published(
    to: BorrowedFd<'_>,
    targets: &[OsString],
    made: &[FileId],
) -> Result<(), SetError> {
    for (member, (name, made)) in targets.iter().zip(made).enumerate() {
        let now = dir::observe_at(to, name);
        let is_ours = now.is_ok_and(|now| FileId::from(&now.fingerprint) == *made);
        if rule!("published-copy-is-ours", !is_ours) {
            let reason = NotReplaced::AfterCopy(Box::new(NotReplaced::Changed));
            return Err(SetError {
                member,
                error: reason.into(),
            });
        }
    }
    Ok(())
}

/// Gives copies their names, the main file's last, and returns their identities in the order of `targets`. If one of the
/// names is in use, all copies are removed.
pub(super) fn publish(
    staged: Vec<StagedCopy<'_>>,
    to: BorrowedFd<'_>,
    targets: &[OsString],
) -> Result<Vec<FileId>, SetError> {
    let mut published: Vec<(&OsStr, FileId)> = Vec::new();
    for (member, (copy, name)) in staged.into_iter().zip(targets).enumerate().rev() {
        match copy.publish(name) {
            Ok(made) => published.push((name, made)),
            Err(error) => {
                for (name, made) in published {
                    copy::remove(to, name, made);
                }
                return Err(SetError { member, error });
            }
        }
    }
    Ok(published.into_iter().rev().map(|(_, made)| made).collect())
}
