//! The sets in a quarantine: a file with its [companions](crate::core::companions). They are restored and deleted
//! together.
//!
//! A set has a folder of its own, whose name begins with another letter than those of shared folders (`stamp.rs`). The
//! main file is the last one that is restored, and the first one that is deleted: wherever a crash ends this, no
//! program finds the main file without its companions.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::copied::{SetError, publish};
use super::folder::{Quarantine, check_neighbors};
use super::stamp::Stamp;
use super::stored::{Stored, open_to_read};
use crate::core::companions;
use crate::core::observation::{FileSize, Observation};
use crate::core::own_names;
use crate::core::policy::Policy;
use crate::core::temp_name::Names;
use crate::evidence::FileId;
use crate::fs::dir::{Buffer, Dir};
use crate::reap::calls;

/// A file in a quarantine, with its companions. Most files have none.
#[derive(Debug)]
pub struct StoredSet {
    /// The main file.
    pub main: Stored,
    /// Its companions.
    pub companions: Vec<Stored>,
}

impl StoredSet {
    /// Groups files into sets, in the order of their main files.
    #[must_use]
    pub fn group(files: Vec<Stored>) -> Vec<StoredSet> {
        let mains = mains(&files);
        let mut companions: HashMap<usize, Vec<Stored>> = HashMap::new();
        let mut sets = Vec::with_capacity(files.len());
        for (index, (file, main)) in files.into_iter().zip(mains).enumerate() {
            match main {
                Some(main) => companions.entry(main).or_default().push(file),
                None => sets.push((index, file)),
            }
        }
        let set = |(index, main)| StoredSet {
            main,
            companions: companions.remove(&index).unwrap_or_default(),
        };
        sets.into_iter().map(set).collect()
    }

    /// Returns all members, the main file first.
    #[must_use]
    pub fn members(&self) -> Vec<&Stored> {
        std::iter::once(&self.main)
            .chain(&self.companions)
            .collect()
    }

    /// Returns the sum of the sizes of its companions.
    #[must_use]
    pub fn companion_size(&self) -> FileSize {
        let sizes = self
            .companions
            .iter()
            .map(|companion| companion.seen.size());
        sizes.fold(FileSize::default(), FileSize::plus)
    }

    /// Returns the name for a member if the main file gets the name `main`: `b-wal` for the companion `a-wal` of `a`.
    #[must_use]
    pub fn name_beside(&self, member: &Stored, main: &OsStr) -> OsString {
        use std::os::unix::ffi::OsStrExt;
        let own = self.main.name().as_bytes();
        let end = member.name().as_bytes().strip_prefix(own);
        let mut name = main.to_owned();
        name.push(OsStr::from_bytes(end.unwrap_or_default()));
        name
    }
}

/// Returns for each file the index of the main file of its set, if it is a companion. Only a folder of a set contains
/// companions. Their names begin with the name of the main file.
fn mains(files: &[Stored]) -> Vec<Option<usize>> {
    let mut folders: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        if Stamp::is_of_set(file.folder_name()) {
            folders.entry(file.folder_name()).or_default().push(index);
        }
    }
    let mut mains = vec![None; files.len()];
    for members in folders.into_values() {
        let Some(&main) = members
            .iter()
            .min_by_key(|index| files[**index].name().len())
        else {
            continue;
        };
        let belongs = |index: &usize| {
            let (main, file) = (&files[main], &files[*index]);
            file.original_dir() == main.original_dir()
                && companions::may_belong(main.name(), file.name())
        };
        let companions = members.into_iter().filter(|index| belongs(index));
        for index in companions {
            mains[index] = rule!("stored-set-stays-together", Some(main), without: None);
        }
    }
    mains
}

impl Quarantine {
    /// Deletes a set permanently, the main file first. Calls `deleted` after each deletion.
    ///
    /// # Errors
    ///
    /// A member could not be deleted. The members after it are left.
    pub fn purge_set(
        &self,
        set: &StoredSet,
        deleted: &mut dyn FnMut(&Stored),
    ) -> Result<(), SetError> {
        for (member, stored) in set.members().into_iter().enumerate() {
            let purged = self.purge(stored);
            purged.map_err(|error| SetError { member, error })?;
            deleted(stored);
        }
        Ok(())
    }

    /// Reports whether companions of a set still have the names of their claims, because the orphand that moved the set
    /// was killed. The next start moves them beside the main file.
    ///
    /// # Errors
    ///
    /// The directory of the claims cannot be read.
    pub fn has_left_claims(&self, set: &StoredSet) -> io::Result<bool> {
        if !set.main.is_of_set() {
            return Ok(false);
        }
        let (root, below) = (self.root.path(), set.main.original_dir());
        let dir = match Dir::open_below(root, Some(self.root.id()), below) {
            Ok(dir) => dir,
            Err(error) if error.is_missing() => return Ok(false),
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut has_claim = false;
        dir.read_while(&mut Buffer::default(), &mut |name, _| {
            let claim = own_names::parse_claim(name).filter(|claim| claim.set.is_some());
            let original = claim.and_then(|claim| claim.original);
            let is_companion = |name: &OsString| companions::may_belong(set.main.name(), name);
            has_claim |= original.as_ref().is_some_and(is_companion);
            !has_claim
        })?;
        Ok(has_claim)
    }

    /// Returns the ids of files that may be companions of the main file of `set`, and that were moved as members of a set
    /// whose main file is not in their folder.
    ///
    /// # Errors
    ///
    /// The quarantine cannot be read.
    pub fn companions_apart(&self, set: &StoredSet, names: &Names) -> io::Result<Vec<String>> {
        let main = &set.main;
        if !main.is_of_set() {
            return Ok(Vec::new());
        }
        let may_belong = |other: &StoredSet| {
            let one = &other.main;
            one.is_of_set()
                && one.folder_name() != main.folder_name()
                && one.original_dir() == main.original_dir()
                && names.temps_of(one.name()).any(|temp| temp == main.name())
        };
        let all = StoredSet::group(self.stored()?);
        let apart = all.into_iter().filter(may_belong);
        Ok(apart.map(|other| other.main.id).collect())
    }

    /// Restores a set to `to`, without overwriting anything: the main file as `name`, and its companions beside it. If
    /// a name exists, nothing is restored. Calls `mark` with each open file before the file has its name back. If `to`
    /// is on another file system, the files are copied, the copies are compared, and the originals are removed, if it is
    /// proven that no process uses them.
    ///
    /// # Errors
    ///
    /// A member could not be restored. All members are in the quarantine, unless a put-back failed too.
    pub fn restore_set(
        &self,
        set: &StoredSet,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl Fn(BorrowedFd<'_>, &Observation),
        policy: &Policy,
    ) -> Result<(), SetError> {
        if set.companions.is_empty() {
            let restored = self.restore(&set.main, to, name, mark, policy);
            return restored
                .map(drop)
                .map_err(|error| SetError { member: 0, error });
        }
        let targets = self.check_targets(set, to, name, &policy.names)?;
        let mut moved: Vec<(&Stored, &OsStr)> = Vec::new();
        for (member, stored) in set.members().into_iter().enumerate().rev() {
            let new = targets[member].as_os_str();
            match self.move_out(stored, to, new, &mark) {
                Ok(()) => moved.push((stored, new)),
                Err(error) if moved.is_empty() && error.kind() == io::ErrorKind::CrossesDevices => {
                    return self.copy_and_remove(&set.members(), to, &targets, &mark, policy);
                }
                Err(error) => {
                    for (stored, new) in moved.into_iter().rev() {
                        self.move_in(stored, to, new);
                    }
                    return Err(SetError { member, error });
                }
            }
        }
        for stored in set.members() {
            self.remove_empty(stored.folder_name(), stored.original_dir());
        }
        Ok(())
    }

    /// Copies a set to `to`, without overwriting anything, and keeps it in the quarantine: the companions first, the
    /// main file as `name` last. If a name exists, nothing is copied.
    ///
    /// # Errors
    ///
    /// A member could not be copied. The copies that were made are removed.
    pub fn copy_set_out(
        &self,
        set: &StoredSet,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl Fn(BorrowedFd<'_>, &Observation),
        policy: &Policy,
    ) -> Result<(), SetError> {
        let targets = self.check_targets(set, to, name, &policy.names)?;
        let mut staged = Vec::new();
        for (member, stored) in set.members().into_iter().enumerate() {
            let copied = self.stage(stored, to, &mark);
            staged.push(copied.map_err(|error| SetError { member, error })?);
        }
        publish(staged, to, &targets).map(drop)
    }

    /// Returns the names that the members get, the main file first, if no file has one of them.
    fn check_targets(
        &self,
        set: &StoredSet,
        to: BorrowedFd<'_>,
        name: &OsStr,
        names: &Names,
    ) -> Result<Vec<OsString>, SetError> {
        let mut targets = Vec::new();
        for (member, stored) in set.members().into_iter().enumerate() {
            let failed = |error| SetError { member, error };
            self.locate(stored).map_err(failed)?;
            let target = set.name_beside(stored, name);
            match super::folder::observe(to, &target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
                Ok(_) => return Err(failed(Errno::EXIST.into())),
            }
            targets.push(target);
        }
        let free = check_neighbors(to, names, &targets);
        free.map_err(|error| SetError { member: 0, error })?;
        Ok(targets)
    }

    fn move_out(
        &self,
        stored: &Stored,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: &impl Fn(BorrowedFd<'_>, &Observation),
    ) -> io::Result<()> {
        let (dir, stored_name, seen) = self.locate(stored)?;
        // A user who may not read the file can still restore it, but without the mark.
        if let Ok(file) = open_to_read(dir.as_fd(), stored_name) {
            mark(file.as_fd(), &seen);
        }
        calls::rename(dir.as_fd(), stored_name, to, name)
    }

    /// Moves a restored file back, if it is still the same one.
    ///
    /// RACE: another process may give the name to another file between the check and the rename (µs). Worst case: that
    /// file is in the quarantine.
    fn move_in(&self, stored: &Stored, from: BorrowedFd<'_>, name: &OsStr) {
        let seen = super::folder::observe(from, name);
        let is_same = seen.is_ok_and(|seen| {
            FileId::from(&seen.fingerprint) == FileId::from(&stored.seen.fingerprint)
        });
        let back = || {
            let dir = self.open_ours(stored.folder_name(), stored.original_dir())?;
            calls::rename(from, name, dir.as_fd(), stored.name())
        };
        if is_same && let Err(error) = back() {
            log::error!(
                "cannot move {name:?} back to the quarantine ({error}); its set is incomplete there"
            );
        }
    }
}
