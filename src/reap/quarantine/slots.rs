//! The places for files that are moved to a quarantine.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::folder::{MAX_DEPTH, Quarantine, is_linked, is_ours, lock, names, observe, open_dir};
use super::stamp::{MovedAs, Stamp};
use super::stored::is_old_id;
use super::usage::QuarantineUsage;
use crate::core::observation::{Kind, Observation};
use crate::core::own_names;
use crate::core::sort::sort_by;
use crate::core::time::Wall;
use crate::evidence;
use crate::fs::dir;
use crate::fs::dir::{Dir, RootError};
use crate::reap::calls;
use crate::sys::clock;

/// The number of the most recent folders that are tried before a new one is created.
const FOLDERS_TRIED: usize = 8;

/// A directory in a quarantine. It receives the files of one directory of the root.
#[derive(Debug)]
pub struct QuarantineDir {
    quarantine: Arc<Quarantine>,
    /// The folder's name.
    pub(super) folder_name: String,
    stamp: Stamp,
    /// The folder, locked so that it is not removed as an empty one.
    top: OwnedFd,
    /// The path of the directory, relative to the root.
    pub(super) below: PathBuf,
    /// The directory inside the folder.
    inner: OwnedFd,
}

/// A set that was claimed.
#[derive(Clone, Copy, Debug)]
pub(in crate::reap) struct ClaimedSet<'a> {
    /// The digits of its claims, if they are known.
    pub(in crate::reap) digits: Option<&'a str>,
    /// The time of the claims, or a later one.
    pub(in crate::reap) at: Wall,
}

/// A slot in a quarantine, for one file.
#[derive(Debug)]
pub struct Slot {
    pub(super) dir: Arc<QuarantineDir>,
    id: String,
    /// The usage and the bytes that are reserved for the file, until the file is kept.
    reserved: Option<(Arc<QuarantineUsage>, u64)>,
}

impl Quarantine {
    /// Returns a slot for the file at the path `below` the root. Uses a recent folder that can hold this path, or
    /// creates a new one.
    pub fn new_slot(self: &Arc<Quarantine>, below: &Path, moved_as: MovedAs) -> io::Result<Slot> {
        // A walk would not find a deeper file.
        if below.components().count() >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let now = clock::now();
        let mut folders: Vec<(Stamp, String)> = Vec::new();
        for name in names(self.fd.as_fd())? {
            let Some(name) = name.to_str() else { continue };
            let stamp = Stamp::parse(name).filter(|stamp| stamp.is_open(now, moved_as));
            folders.extend(stamp.map(|stamp| (stamp, name.to_owned())));
        }
        sort_by(&mut folders, |(one, _), (other, _)| {
            other.since().cmp(&one.since())
        });
        for (_, name) in folders.into_iter().take(FOLDERS_TRIED) {
            if let Some(dir) = QuarantineDir::open(self, &name, below)?
                && let Some(slot) = Arc::new(dir).slot(below)?
            {
                return Ok(slot);
            }
        }
        for number in 0..8 {
            let stamp = Stamp::new(now, number, below, moved_as);
            let name = stamp.name();
            match calls::make_dir(self.fd.as_fd(), OsStr::new(&name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let dir = match QuarantineDir::open(self, &name, below) {
                Ok(Some(dir)) => Arc::new(dir),
                failed => {
                    // Removes the new folder.
                    self.remove_empty(&name, below.parent().unwrap_or(Path::new("")));
                    failed?;
                    continue;
                }
            };
            return Ok(Slot {
                id: stamp.id(&name, below),
                dir,
                reserved: None,
            });
        }
        Err(Errno::EXIST.into())
    }

    /// Returns slots for the members of a set, which have these paths below the root, in a new folder of their own.
    pub(in crate::reap) fn new_set_slots(
        self: &Arc<Quarantine>,
        below: &[PathBuf],
        moved_as: MovedAs,
    ) -> io::Result<Vec<Slot>> {
        let Some(main) = below
            .first()
            .filter(|main| main.components().count() < MAX_DEPTH)
        else {
            return Err(Errno::NAMETOOLONG.into());
        };
        let now = clock::now();
        for stamp in (0..64).filter_map(|number| Stamp::of_set(now, below, number, moved_as)) {
            let name = stamp.name();
            match calls::make_dir(self.fd.as_fd(), OsStr::new(&name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let slots = QuarantineDir::open(self, &name, main).and_then(|dir| {
                let dir = Arc::new(dir.ok_or(Errno::NOENT)?);
                below.iter().map(|below| dir.set_slot(below)).collect()
            });
            if slots.is_err() {
                // Removes the new folder.
                self.remove_empty(&name, main.parent().unwrap_or(Path::new("")));
            }
            return slots;
        }
        Err(Errno::EXIST.into())
    }

    /// Returns a slot for a companion at the path `below` the root, in the folder of its set `set`, of which a killed orphand
    /// had moved the main file. Returns `None` if there is no such folder.
    ///
    /// The folder has the digits of the set in an attribute. Without attributes, the main file must have been born before
    /// the claim and moved after it.
    pub(in crate::reap) fn slot_beside(
        self: &Arc<Quarantine>,
        main: &Path,
        below: &Path,
        set: ClaimedSet<'_>,
    ) -> io::Result<Option<Slot>> {
        let claimed = set.at;
        let mut found: Option<(Wall, Arc<QuarantineDir>)> = None;
        for folder in names(self.fd.as_fd())? {
            let Some(folder) = folder.to_str().filter(|folder| Stamp::is_of_set(folder)) else {
                continue;
            };
            // This creates no directory where the main file is not stored.
            if self.observe_in(folder, main)?.is_none() {
                continue;
            }
            let Some(dir) = QuarantineDir::open(self, folder, main)? else {
                continue;
            };
            let Some(seen) = dir.observe(main.file_name().unwrap_or_default())? else {
                continue;
            };
            let recorded = evidence::read_mark(dir.inner.as_fd(), evidence::SET)?;
            let (moved, born) = (seen.fingerprint.ctime, seen.fingerprint.btime);
            if let Some(recorded) =
                rule!("folder-has-the-digits-of-its-set", recorded, without: None)
            {
                let is_of_set = set.digits.map(str::as_bytes) == Some(&recorded);
                if is_of_set
                    && dir
                        .observe(below.file_name().unwrap_or_default())?
                        .is_none()
                {
                    return Arc::new(dir).set_slot(below).map(Some);
                }
                continue;
            }
            // A main file that was created after the claim is another one.
            let is_older = born.is_some_and(|born| born < claimed);
            if !rule!("rest-follows-an-older-main", is_older, without: true) {
                continue;
            }
            let is_free = dir
                .observe(below.file_name().unwrap_or_default())?
                .is_none();
            let is_sooner = found.as_ref().is_none_or(|(known, _)| moved < *known);
            if is_free && moved >= claimed && is_sooner {
                found = Some((moved, Arc::new(dir)));
            }
        }
        found.map(|(_, dir)| dir.set_slot(below)).transpose()
    }

    /// Observes the file at `below` in `folder`, if there is one.
    fn observe_in(&self, folder: &str, below: &Path) -> io::Result<Option<Observation>> {
        let parent = below.parent().unwrap_or(Path::new(""));
        let seen = self
            .open_ours(folder, parent)
            .and_then(|dir| observe(dir.as_fd(), below.file_name().unwrap_or_default()));
        match seen {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the empty folders that a crash left between the creation of a slot and its use. No other process may be
    /// processing this root.
    pub fn remove_stale_slots(&self) {
        for folder in names(self.fd.as_fd()).unwrap_or_default() {
            let is_ours = folder.to_str().is_some_and(is_folder);
            let Ok(top) = open_dir(self.fd.as_fd(), &folder) else {
                continue;
            };
            let locked = || lock(&top, FlockOperation::NonBlockingLockExclusive);
            if !is_ours || !locked().unwrap_or(false) {
                continue;
            }
            prune(top.as_fd(), 0);
            // Anything but an empty folder is kept.
            let _ = calls::remove_empty_dir(self.fd.as_fd(), &folder);
        }
        if !self.is_creator {
            self.remove_if_empty();
        }
    }
}

impl QuarantineDir {
    /// Opens the directory for the file at `below` in `folder`, and creates its missing parts. Returns `None` if it
    /// cannot be used: another thread or process is removing it, it is not ours, or a file is where a directory is
    /// needed.
    fn open(
        quarantine: &Arc<Quarantine>,
        folder: &str,
        below: &Path,
    ) -> io::Result<Option<QuarantineDir>> {
        let Some(stamp) = Stamp::parse(folder) else {
            return Ok(None);
        };
        let usable = |opened: io::Result<OwnedFd>| match opened {
            Ok(fd) => Ok(is_ours(&quarantine.root, &dir::observe_fd(fd.as_fd())?).then_some(fd)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => Ok(None),
                _ => Err(error),
            },
        };
        let name = OsStr::new(folder);
        let Some(top) = usable(open_dir(quarantine.fd.as_fd(), name))? else {
            return Ok(None);
        };
        if !lock(&top, FlockOperation::NonBlockingLockShared)? {
            return Ok(None);
        }
        if !is_linked(quarantine.fd.as_fd(), name, &top)? {
            return Ok(None);
        }
        let below = below.parent().unwrap_or(Path::new(""));
        let mut dir = QuarantineDir {
            quarantine: Arc::clone(quarantine),
            folder_name: folder.to_owned(),
            stamp,
            inner: top.try_clone()?,
            top,
            below: PathBuf::new(),
        };
        // If a later step fails, dropping `dir` removes the new directories.
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(Errno::INVAL.into());
            };
            let is_new = match calls::make_dir(dir.inner.as_fd(), name) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            dir.below.push(name);
            match usable(open_dir(dir.inner.as_fd(), name))? {
                Some(inner) => dir.inner = inner,
                None => return Ok(None),
            }
            if !dir.note_origin(is_new)? {
                return Ok(None);
            }
        }
        Ok(Some(dir))
    }

    /// Records in an attribute of this directory which directory of the root its files come from. If that fails, no
    /// target of these files ever counts for the limits. Returns `false` if another directory is recorded.
    fn note_origin(&self, is_new: bool) -> io::Result<bool> {
        let inner = self.inner.as_fd();
        // RACE: the directory is replaced between the look at the temp and this one (µs to ms), and the new directory
        // is recorded. Worst case: a file in the new directory counts as the target, and the limits drop the copy once
        // it is older than the setting `keep`.
        let origin = match self.quarantine.root.open_within(&self.below) {
            Ok(dir) => dir.id().inode().unwrap_or_default(),
            Err(RootError::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error);
            }
            Err(_) => String::new(),
        };
        Ok(match evidence::read_mark(inner, evidence::ORIGIN)? {
            Some(recorded) => {
                rule!("folder-of-one-directory", recorded == origin.as_bytes(), without: true)
            }
            None if is_new => {
                if let Err(error) = evidence::set_mark(inner, evidence::ORIGIN, origin.as_bytes()) {
                    log::debug!("cannot record the origin of {:?}: {error}", self.below);
                }
                true
            }
            None => true,
        })
    }

    /// Returns a slot for another file of the same directory, or `None` if its path cannot be stored here.
    pub fn slot(self: &Arc<QuarantineDir>, below: &Path) -> io::Result<Option<Slot>> {
        let name = below.file_name().unwrap_or_default();
        // The id that equals the folder's name belongs to the file that the folder was created for.
        let is_first = self.stamp.is_made_for(below);
        if is_first || below.parent() != Some(&self.below) || self.observe(name)?.is_some() {
            return Ok(None);
        }
        Ok(Some(Slot {
            dir: Arc::clone(self),
            id: self.stamp.id(&self.folder_name, below),
            reserved: None,
        }))
    }

    /// Returns a slot for a member of the set that this folder is for.
    fn set_slot(self: &Arc<QuarantineDir>, below: &Path) -> io::Result<Slot> {
        let name = below.file_name().unwrap_or_default();
        if below.parent() != Some(&self.below) || self.observe(name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        Ok(Slot {
            dir: Arc::clone(self),
            id: self.stamp.id(&self.folder_name, below),
            reserved: None,
        })
    }

    /// Returns the reason for the move of its files.
    pub(in crate::reap) fn moved_as(&self) -> MovedAs {
        self.stamp.moved_as()
    }

    fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        match observe(self.inner.as_fd(), name) {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for QuarantineDir {
    fn drop(&mut self) {
        let _ = lock(&self.top, FlockOperation::Unlock);
        self.quarantine.remove_empty(&self.folder_name, &self.below);
    }
}

impl Slot {
    /// Returns the directory that the file is to be moved into, under its own name.
    #[must_use]
    pub fn inner_dir(&self) -> BorrowedFd<'_> {
        self.dir.inner.as_fd()
    }

    /// Moves the file `from` of `dir` into the slot, as `name`. Returns `false` if another process has removed or renamed
    /// the file.
    ///
    /// # Errors
    ///
    /// The file cannot be moved. If a user has removed the quarantine, the error is [`io::ErrorKind::NotFound`].
    pub(in crate::reap) fn receive(
        &self,
        dir: &Dir,
        from: &OsStr,
        name: &OsStr,
    ) -> io::Result<bool> {
        self.note_set(from);
        match calls::rename(dir.fd(), from, self.inner_dir(), name) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match dir.observe(from)? {
                None => Ok(false),
                Some(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Records in an attribute of the directory which set it is for, if `claim` is the claim of a member. Without it, the
    /// recovery after a kill relies on dates.
    fn note_set(&self, claim: &OsStr) {
        let digits = own_names::parse_claim(claim).and_then(|claim| claim.set);
        let digits = digits.filter(|_| Stamp::is_of_set(self.folder_name()));
        if let Some(digits) = digits
            && let Err(error) =
                evidence::set_mark(self.inner_dir(), evidence::SET, digits.as_bytes())
        {
            log::debug!("cannot record the set of {:?}: {error}", self.dir.below);
        }
    }

    /// Returns the directory, which has slots for other files of the same directory.
    pub(in crate::reap) fn dir(&self) -> &Arc<QuarantineDir> {
        &self.dir
    }

    /// Observes the file `name` in it, if there is one.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        self.dir.observe(name)
    }

    /// Reserves `bytes` for the file. Returns `false` if the quarantine has no space for them.
    pub(in crate::reap) fn reserve(
        &mut self,
        usage: &Arc<QuarantineUsage>,
        bytes: u64,
    ) -> io::Result<bool> {
        if !usage.reserve(&self.dir.quarantine, bytes)? {
            return Ok(false);
        }
        self.reserved = Some((Arc::clone(usage), bytes));
        Ok(true)
    }

    /// Returns the name of its folder.
    pub(in crate::reap) fn folder_name(&self) -> &str {
        &self.dir.folder_name
    }

    /// Marks the slot as used, and returns the id of its file.
    #[must_use]
    pub fn keep(mut self) -> String {
        self.reserved = None;
        std::mem::take(&mut self.id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((usage, bytes)) = self.reserved.take() {
            usage.release(self.dir.quarantine.root.id(), bytes);
        }
    }
}

/// Reports whether `folder` is a folder name of this version or of an older one.
fn is_folder(folder: &str) -> bool {
    Stamp::parse(folder).is_some() || is_old_id(folder)
}

/// Removes all empty directories in `dir`.
fn prune(dir: BorrowedFd<'_>, depth: usize) {
    if depth >= MAX_DEPTH {
        return;
    }
    for name in names(dir).unwrap_or_default() {
        let is_dir = |seen: Observation| seen.fingerprint.kind == Kind::Dir;
        if !observe(dir, &name).is_ok_and(is_dir) {
            continue;
        }
        if let Ok(inner) = open_dir(dir, &name) {
            prune(inner.as_fd(), depth + 1);
        }
        let _ = calls::remove_empty_dir(dir, &name);
    }
}
