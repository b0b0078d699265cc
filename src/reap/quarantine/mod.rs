//! The quarantine: `.orphand/` in the root, mode 0700, for files that must not be destroyed.
//!
//! A file is stored as `.orphand/<folder>/<its path below the root>`, with its bytes, mode, owner and times unchanged.
//! The path shows where it came from, and the name of the folder (`stamp.rs`) shows when it was moved, so no record is
//! needed whose write could fail. Files that are moved within one hour share a folder, unless two of them had the same
//! path. Each file has its own id, which follows from the folder's name and the path.
//!
//! Older versions gave each file its own folder, with the file's id as its name. Such folders are read too.
//!
//! The quarantine is created when it is needed and removed when it is empty. It must belong to orphand's user and be
//! closed to other users. Otherwise the root has no quarantine.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Dir as Entries, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::calls;
use crate::core::event::{Event, Subject};
use crate::core::judge::{LeaseCoverage, Target};
use crate::core::observation::{Kind, Observation, UseState};
use crate::core::own_names;
use crate::core::policy::Policy;
use crate::core::retention;
use crate::core::retention::{
    ClockTrust, Entry, Limits, NeededSpace, Space, SupersededBy, TargetState,
};
use crate::core::temp_name::strip_number;
use crate::core::time::{Mono, Now, Wall};
use crate::evidence::{self, ComparedTemp, FileId, UseChecker};
use crate::fs::dir;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::store::journal::{Journal, LineKind};
use crate::store::json;
use crate::sys::clock;
use stamp::Stamp;

mod copy;
mod stamp;

/// The name of the folder.
pub const FOLDER: &str = own_names::OWN_PREFIX;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The maximum depth of a quarantined file below its folder. Files below it are not found.
const MAX_DEPTH: usize = 256;

/// The number of the most recent folders that are tried before a new one is created.
const FOLDERS_TRIED: usize = 8;

/// The maximum number of files that one call drops, so that other work is not delayed for long.
const MAX_DROPS: usize = 256;

/// The open quarantine of one root.
#[derive(Debug)]
pub struct Quarantine {
    root: Dir,
    fd: OwnedFd,
}

/// A directory in a quarantine. It receives the files of one directory of the root.
#[derive(Debug)]
pub struct QuarantineDir {
    quarantine: Arc<Quarantine>,
    /// The folder's name.
    folder_name: String,
    stamp: Stamp,
    /// The folder, locked so that it is not removed as an empty one.
    top: OwnedFd,
    /// The path of the directory, relative to the root.
    below: PathBuf,
    /// The directory inside the folder.
    inner: OwnedFd,
}

/// A slot in a quarantine, for one file.
#[derive(Debug)]
pub struct Slot {
    dir: Arc<QuarantineDir>,
    id: String,
    /// The usage and the bytes that are reserved for the file, until the file is kept.
    reserved: Option<(Arc<QuarantineUsage>, u64)>,
}

/// A file in a quarantine.
#[derive(Debug)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// Its original path, relative to the root.
    pub below: PathBuf,
    /// Its observation.
    pub seen: Observation,
    /// The name of its folder.
    folder_name: String,
}

/// Reports whether `root` has a quarantine or one could be created. Changes nothing.
#[must_use]
pub fn is_possible(root: &Dir) -> bool {
    match root.observe(OsStr::new(FOLDER)) {
        Ok(None) => true,
        Ok(Some(seen)) => is_ours(root, &seen),
        Err(_) => false,
    }
}

/// Reports whether this is a directory of orphand's user, closed to all others, on the root's own mount.
fn is_ours(root: &Dir, seen: &Observation) -> bool {
    let has_our_owner = || seen.fingerprint.uid == rustix::process::geteuid().as_raw();
    seen.fingerprint.kind == Kind::Dir
        && rule!("quarantine-has-our-owner", has_our_owner(), without: true)
        && rule!("quarantine-closed-to-others", seen.mode & 0o077 == 0, without: true)
        && seen.fingerprint.dev == root.id().dev
        && seen.mount == root.properties().mount
        && !seen.mount_root
}

impl Quarantine {
    /// Opens the quarantine of the root at `root`. Creates it if it does not exist.
    pub fn open_or_create(root: &Path, id: Option<RootId>) -> Result<Quarantine, RootError> {
        let root = Dir::open_root(root, id)?;
        match calls::make_dir(root.fd(), OsStr::new(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Quarantine::open_in(root),
        }
    }

    /// Opens the quarantine of the root at `root`, if it exists.
    pub fn open_existing(root: &Path, id: Option<RootId>) -> Result<Option<Quarantine>, RootError> {
        let root = Dir::open_root(root, id)?;
        match Quarantine::open_in(root) {
            Ok(quarantine) => Ok(Some(quarantine)),
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_in(root: Dir) -> Result<Quarantine, RootError> {
        let fd = open_dir(root.fd(), OsStr::new(FOLDER))?;
        let seen = dir::observe_fd(fd.as_fd())?;
        if rule!("quarantine-is-ours", !is_ours(&root, &seen)) {
            return Err(RootError::Io(Errno::PERM.into()));
        }
        Ok(Quarantine { root, fd })
    }

    /// Returns the identity of its folder, which is the same for all mounts of it.
    pub fn folder_id(&self) -> io::Result<FileId> {
        Ok(FileId::from(&dir::observe_fd(self.fd.as_fd())?.fingerprint))
    }

    /// Returns the root that contains it.
    #[must_use]
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Returns a slot for the file at the path `below` the root. Uses a recent folder that can hold this path, or
    /// creates a new one.
    pub fn new_slot(self: &Arc<Quarantine>, below: &Path) -> io::Result<Slot> {
        // A walk would not find a deeper file.
        if below.components().count() >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let now = clock::now();
        let mut folders: Vec<(Stamp, String)> = Vec::new();
        for name in names(self.fd.as_fd())? {
            let Some(name) = name.to_str() else { continue };
            let stamp = Stamp::parse(name).filter(|stamp| stamp.is_open(now));
            folders.extend(stamp.map(|stamp| (stamp, name.to_owned())));
        }
        folders.sort_by_key(|(stamp, _)| std::cmp::Reverse(stamp.since()));
        for (_, name) in folders.into_iter().take(FOLDERS_TRIED) {
            if let Some(dir) = QuarantineDir::open(self, &name, below)?
                && let Some(slot) = Arc::new(dir).slot(below)?
            {
                return Ok(slot);
            }
        }
        for number in 0..8 {
            let stamp = Stamp::new(now, number, below);
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
    }

    fn open_inner(&self, inner: &Path) -> io::Result<OwnedFd> {
        inner
            .components()
            .try_fold(self.fd.try_clone()?, |fd, part| {
                open_dir(fd.as_fd(), part.as_os_str())
            })
    }

    /// Returns all files in the quarantine, the oldest first. Entries that orphand did not create are left out.
    pub fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for folder in names(self.fd.as_fd())? {
            let Some(folder) = folder.to_str() else {
                continue;
            };
            let read = match Stamp::parse(folder) {
                Some(stamp) => self.read_folder(folder, stamp, &mut stored),
                None if is_old_id(folder) => self.read_old(folder, &mut stored),
                None => Ok(()),
            };
            match read {
                // The folder was removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        stored.sort_by(|a, b| (a.since(), &a.id).cmp(&(b.since(), &b.id)));
        Ok(stored)
    }

    /// Reads a folder that several files may share. Each directory in it must belong to orphand's user alone. Entries
    /// that are neither directories nor files are ignored.
    fn read_folder(&self, folder: &str, stamp: Stamp, stored: &mut Vec<Stored>) -> io::Result<()> {
        let top = open_dir(self.fd.as_fd(), OsStr::new(folder))?;
        let mut found = Vec::new();
        self.walk(top.as_fd(), &mut PathBuf::new(), &mut found)?;
        stored.extend(found.into_iter().map(|(below, seen)| Stored {
            id: stamp.id(folder, &below),
            below,
            seen,
            folder_name: folder.to_owned(),
        }));
        Ok(())
    }

    fn walk(
        &self,
        at: BorrowedFd<'_>,
        below: &mut PathBuf,
        found: &mut Vec<(PathBuf, Observation)>,
    ) -> io::Result<()> {
        let is_ours = is_ours(&self.root, &dir::observe_fd(at)?);
        if rule!("folders-of-ours-alone", !is_ours) || below.components().count() >= MAX_DEPTH {
            return Ok(());
        }
        for name in names(at)? {
            let seen = match observe(at, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                seen => seen?,
            };
            below.push(&name);
            match seen.fingerprint.kind {
                Kind::File => found.push((below.clone(), seen)),
                Kind::Dir => match open_dir(at, &name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    inner => self.walk(inner?.as_fd(), below, found)?,
                },
                Kind::Symlink | Kind::Other => {}
            }
            below.pop();
        }
        Ok(())
    }

    /// Reads a folder of an older version. It contains one file, and each directory contains one name and belongs to
    /// orphand's user alone. Anything else is ignored.
    fn read_old(&self, id: &str, stored: &mut Vec<Stored>) -> io::Result<()> {
        let mut folder = open_dir(self.fd.as_fd(), OsStr::new(id))?;
        let mut below = PathBuf::new();
        for _ in 0..MAX_DEPTH {
            let folder_is = dir::observe_fd(folder.as_fd())?;
            let mut names = names(folder.as_fd())?;
            let (Some(name), true) = (names.pop(), is_ours(&self.root, &folder_is)) else {
                return Ok(());
            };
            if !names.is_empty() {
                return Ok(());
            }
            let seen = observe(folder.as_fd(), &name)?;
            below.push(&name);
            match seen.fingerprint.kind {
                Kind::Dir => folder = open_dir(folder.as_fd(), &name)?,
                Kind::File => {
                    stored.push(Stored {
                        id: id.to_owned(),
                        below,
                        seen,
                        folder_name: id.to_owned(),
                    });
                    return Ok(());
                }
                Kind::Symlink | Kind::Other => return Ok(()),
            }
        }
        Ok(())
    }

    /// Opens the directory that contains `stored`, and returns it with the file's name and a new observation of the
    /// file. Each directory on the path must belong to orphand's user alone, and the file must still be the same
    /// regular file.
    fn locate<'s>(&self, stored: &'s Stored) -> io::Result<(OwnedFd, &'s OsStr, Observation)> {
        let mut at = open_dir(self.fd.as_fd(), OsStr::new(&stored.folder_name))?;
        let check = |at: &OwnedFd| match is_ours(&self.root, &dir::observe_fd(at.as_fd())?) {
            true => Ok(()),
            false => Err(io::Error::from(Errno::PERM)),
        };
        check(&at)?;
        for part in stored.original_dir().components() {
            at = open_dir(at.as_fd(), part.as_os_str())?;
            check(&at)?;
        }
        let seen = observe(at.as_fd(), stored.name())?;
        match seen.fingerprint.kind == Kind::File && is_same(&seen, &stored.seen) {
            true => Ok((at, stored.name(), seen)),
            false => Err(Errno::NOENT.into()),
        }
    }

    /// Restores `stored` as `name` in `to`, without overwriting anything. Calls `mark` with the open file before the
    /// file has its name back. If `to` is on another file system, the file is copied, the copy is compared, and the
    /// original is removed.
    pub fn restore(
        &self,
        stored: &Stored,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl Fn(BorrowedFd<'_>, &Observation),
    ) -> io::Result<Observation> {
        let (dir, stored_name, seen) = self.locate(stored)?;
        let file = rustix::fs::openat(&dir, stored_name, FILE, Mode::empty());
        // A user who may not read the file can still restore it, but without the mark.
        if let Ok(file) = &file {
            mark(file.as_fd(), &seen);
        }
        match calls::rename(dir.as_fd(), stored_name, to, name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy::across(file?.into(), &seen, to, name, &mark)?;
                // Only the file that was copied is removed.
                let (dir, stored_name, now) = self.locate(stored)?;
                let of = |seen: &Observation| (seen.fingerprint.size, seen.fingerprint.mtime);
                if of(&now) != of(&seen) {
                    return Err(Errno::BUSY.into());
                }
                calls::unlink(dir.as_fd(), stored_name)?;
            }
            moved => moved?,
        }
        drop(dir);
        self.remove_empty(&stored.folder_name, stored.original_dir());
        Ok(seen)
    }

    /// Reports whether it is proven that no process uses `stored`, and whether the file is unchanged.
    fn is_proven_unused(&self, stored: &Stored, policy: &Policy, use_checker: &UseChecker) -> bool {
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

    /// Deletes `stored` permanently.
    pub fn purge(&self, stored: &Stored) -> io::Result<()> {
        let (dir, name, _) = self.locate(stored)?;
        calls::unlink(dir.as_fd(), name)?;
        drop(dir);
        self.remove_empty(&stored.folder_name, stored.original_dir());
        Ok(())
    }

    /// Removes the empty directories of `folder`, from `below` upwards, unless another thread or process is about to
    /// use them.
    fn remove_empty(&self, folder: &str, below: &Path) {
        let Ok(top) = open_dir(self.fd.as_fd(), OsStr::new(folder)) else {
            return;
        };
        let is_locked = lock(&top, FlockOperation::NonBlockingLockExclusive).unwrap_or(false);
        if rule!("folder-in-use-stays", !is_locked) {
            return;
        }
        let mut at = PathBuf::from(folder).join(below);
        while let Some(name) = at.file_name().map(OsStr::to_owned) {
            at.pop();
            let Ok(parent) = self.open_inner(&at) else {
                return;
            };
            if calls::remove_empty_dir(parent.as_fd(), &name).is_err() {
                return;
            }
        }
    }
}

impl Drop for Quarantine {
    /// Removes the quarantine if it is empty. If another orphand is about to use it, its next call fails with ENOENT,
    /// and its temp is kept.
    fn drop(&mut self) {
        let _ = calls::remove_empty_dir(self.root.fd(), OsStr::new(FOLDER));
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
        // The folder may have been removed before it was locked.
        let opened = FileId::from(&dir::observe_fd(top.as_fd())?.fingerprint);
        match observe(quarantine.fd.as_fd(), name) {
            Ok(there) if FileId::from(&there.fingerprint) == opened => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(None),
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

    /// Returns the directory, which has slots for other files of the same directory.
    pub(super) fn dir(&self) -> &Arc<QuarantineDir> {
        &self.dir
    }

    /// Observes the file `name` in it, if there is one.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        self.dir.observe(name)
    }

    /// Reserves `bytes` for the file. Returns `false` if the quarantine has no space for them.
    pub(super) fn reserve(&mut self, usage: &Arc<QuarantineUsage>, bytes: u64) -> io::Result<bool> {
        if !usage.reserve(&self.dir.quarantine, bytes)? {
            return Ok(false);
        }
        self.reserved = Some((Arc::clone(usage), bytes));
        Ok(true)
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

impl Stored {
    /// Returns the time of the move. The rename set the file's `ctime`, and nothing else has changed it since.
    #[must_use]
    pub fn since(&self) -> Wall {
        self.seen.fingerprint.ctime
    }

    /// Returns its original directory, relative to the root.
    fn original_dir(&self) -> &Path {
        self.below.parent().unwrap_or(Path::new(""))
    }

    fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }
}

/// The limits and sizes of the quarantines that this process uses. They are cached, so that not every move needs a
/// walk.
#[derive(Debug)]
pub struct QuarantineUsage {
    limits: Mutex<Limits>,
    counted: Mutex<HashMap<RootId, Usage>>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
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
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Returns the limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn reserve(&self, quarantine: &Quarantine, bytes: u64) -> io::Result<bool> {
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

    fn release(&self, id: RootId, bytes: u64) {
        if let Some(count) = self.counts().get_mut(&id) {
            count.used = count.used.saturating_sub(bytes);
        }
    }

    fn count(&self, quarantine: &Quarantine) -> io::Result<Usage> {
        let began = clock::mono();
        let stored = quarantine.stored()?;
        Ok(self.record(quarantine, &stored, began))
    }

    /// Records the size of `quarantine`.
    fn record(&self, quarantine: &Quarantine, stored: &[Stored], began: Mono) -> Usage {
        let bytes = stored.iter().map(|one| one.seen.allocated);
        let at = clock::mono();
        let count = Usage {
            used: bytes.fold(0, u64::saturating_add),
            size: space(quarantine.root.fd()).size,
            at,
            took: at.since(began),
        };
        self.counts().insert(quarantine.root.id(), count);
        count
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<RootId, Usage>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The context for the limits of a quarantine.
#[derive(Clone, Copy, Debug)]
pub struct LimitContext<'a> {
    /// The limits, and the known sizes.
    pub usage: &'a QuarantineUsage,
    /// The journal, which records each drop before and after it.
    pub journal: &'a Journal,
    /// Checks that no process uses a file before it is dropped.
    pub use_checker: &'a UseChecker,
    /// The trust in the dates of files.
    pub trust: ClockTrust,
    /// The space for the files that are about to be moved into the quarantine.
    pub wanted: NeededSpace,
}

/// The result of enforcing the limits of a quarantine.
#[derive(Debug, Default)]
pub struct LimitsResult {
    /// The events for the dropped files.
    pub events: Vec<Event>,
    /// The quarantine still contains files.
    pub holds_files: bool,
    /// More files are to be dropped, by the next call.
    pub has_more: bool,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Drops the files that the limits of the quarantine of `root` require, and returns what was dropped.
///
/// A file may be here *because* it could not be proven unused, or although it was in use. So a file is dropped only
/// under the same proof as in any other removal.
pub fn enforce_limits(root: &Root, id: Option<RootId>, context: LimitContext<'_>) -> LimitsResult {
    let mut result = LimitsResult::default();
    let began = clock::mono();
    let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, id) else {
        // Without a quarantine there is no size.
        context.usage.counts().retain(|known, _| Some(*known) != id);
        return result;
    };
    let files = match quarantine.stored() {
        Ok(files) => files,
        Err(error) => {
            log::warn!("cannot read the quarantine of {:?}: {error}", root.path);
            return result;
        }
    };
    let limits = context.usage.limits();
    let now = clock::now();
    let mut targets = StoredTargets::new(root, &quarantine, id);
    let entries: Vec<Entry> = files
        .iter()
        .map(|stored| retention_entry(&mut targets, stored, now))
        .collect();
    let space = Space {
        needed: context.wanted,
        ..space(quarantine.root.fd())
    };
    let plan = retention::plan(&entries, limits, space, now.wall, context.trust);
    let mut by_id: HashMap<&OsStr, Vec<&Stored>> = HashMap::new();
    for stored in &files {
        by_id
            .entry(OsStr::new(&stored.id))
            .or_default()
            .push(stored);
    }
    // An id that two files share identifies neither.
    let stored_by_id = |id: &OsStr| match by_id.get(id).map(Vec::as_slice) {
        Some([stored]) => Some(*stored),
        _ => None,
    };
    let is_unused =
        |stored: &Stored| quarantine.is_proven_unused(stored, &root.policy, context.use_checker);
    result.next = plan.next;
    let mut dropped = HashSet::new();
    for (entry, better) in plan.drops {
        if dropped.len() >= MAX_DROPS {
            result.has_more = true;
            break;
        }
        let before = entry.target;
        let Some(stored) = stored_by_id(&entry.id) else {
            continue;
        };
        if !is_unused(stored) {
            continue;
        }
        // The file was superseded when this call began. It may be the last copy by now, if the better copy was removed
        // or another process may still change it.
        // RACE: the better copy may be removed between this check and the removal. Worst case: both copies are lost. A
        // process that opens the dropped file by its path in the quarantine, which only our user can do, loses the name
        // of that file.
        let still_superseded = match better {
            SupersededBy::Target => rule!("dropped-while-target-counts",
                targets.state(stored) == TargetState::Counts, without: true),
            SupersededBy::Copies(newer) => {
                let is_unused = |stored: &Stored| rule!("dropped-while-newer-copy", is_unused(stored), without: true);
                let is_kept = |id: &OsString| stored_by_id(id).is_some_and(is_unused);
                newer.iter().all(is_kept) && targets.state(stored) == before
            }
        };
        if !still_superseded {
            continue;
        }
        let event = purged_event(root.path.as_path(), stored);
        let line = |event: &Event| json::event(event, clock::wall());
        context.journal.write(LineKind::Intent, &[line(&event)]);
        if quarantine.purge(stored).is_ok() {
            context.journal.write(LineKind::Outcome, &[line(&event)]);
            result.events.push(event);
            dropped.insert(stored.id.as_str());
        }
    }
    drop(entries);
    let size = |stored: &Stored| match dropped.contains(stored.id.as_str()) {
        true => 0,
        false => stored.seen.allocated,
    };
    result.holds_files = dropped.len() < files.len();
    let used = files.iter().map(size).fold(0, u64::saturating_add);
    context.usage.record(&quarantine, &files, began);
    if let Some(count) = context.usage.counts().get_mut(&quarantine.root.id()) {
        count.used = used;
    }
    result
}

/// Returns the event for a file that was deleted permanently.
#[must_use]
pub fn purged_event(root: &Path, stored: &Stored) -> Event {
    Event::Purged {
        subject: Subject {
            path: root.join(&stored.below),
            root: root.to_owned(),
            size: Some(stored.seen.size()),
        },
        id: stored.id.clone(),
    }
}

/// Checks the targets of stored files.
struct StoredTargets<'a> {
    root: &'a Root,
    quarantine: &'a Quarantine,
    id: Option<RootId>,
    /// For each directory, the names that also exist with digits or a uuid appended; `None` if the directory cannot be
    /// read.
    siblings: HashMap<PathBuf, Option<HashSet<OsString>>>,
}

impl<'a> StoredTargets<'a> {
    fn new(root: &'a Root, quarantine: &'a Quarantine, id: Option<RootId>) -> StoredTargets<'a> {
        StoredTargets {
            root,
            quarantine,
            id,
            siblings: HashMap::new(),
        }
    }

    /// Returns the state of the target of `stored`.
    fn state(&mut self, stored: &Stored) -> TargetState {
        let mut parsed = self.root.policy.names.parse(stored.name());
        if !parsed.numbered_targets.is_empty() {
            let targets = parsed.targets.clone();
            let mut targets = targets.iter();
            if targets.any(|target| self.has_sibling(stored.original_dir(), target)) {
                parsed = parsed.with_numbered_targets();
            }
        }
        let dir = match Dir::open_below(&self.root.path, self.id, stored.original_dir()) {
            Ok(dir) => dir,
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return TargetState::Nothing;
            }
            Err(_) => return TargetState::Other,
        };
        let temp = ComparedTemp {
            seen: &stored.seen,
            file: None,
        };
        match evidence::find_target(&dir, &self.root.policy, &parsed, temp) {
            Ok(found) if matches!(found.target, Target::Absent | Target::Unknown) => {
                TargetState::Nothing
            }
            Ok(found) if found.target.counts() => {
                // A target that was created or changed after the move may have been made after a loss.
                let since = Stamp::parse(&stored.folder_name).and_then(Stamp::since);
                let is_older = found
                    .newest_date()
                    .zip(since)
                    .is_some_and(|(newest, since)| newest < since);
                let is_origin =
                    || rule!("same-directory-as-then", self.is_origin(&dir, stored), without: true);
                match rule!("target-older-than-move", is_older, without: true) && is_origin() {
                    true => TargetState::Counts,
                    false => TargetState::Other,
                }
            }
            _ => TargetState::Other,
        }
    }

    /// Reports whether `dir` is the directory that `stored` was moved from. The name may have been given to another
    /// directory, with files that are older than the move.
    fn is_origin(&self, dir: &Dir, stored: &Stored) -> bool {
        let original_dir = stored.original_dir();
        if original_dir.as_os_str().is_empty() {
            // The quarantine is in this directory.
            return true;
        }
        let Some(origin) = dir.id().inode() else {
            return false;
        };
        let recorded = self
            .quarantine
            .open_inner(&Path::new(&stored.folder_name).join(original_dir));
        let recorded =
            recorded.and_then(|inner| evidence::read_mark(inner.as_fd(), evidence::ORIGIN));
        recorded.is_ok_and(|recorded| recorded == Some(origin.into_bytes()))
    }

    /// Reports whether the directory contains a name that is `target` with digits or a uuid appended. Digits in the
    /// name of a temp may then be part of its target's name.
    fn has_sibling(&mut self, dir: &Path, target: &OsStr) -> bool {
        let (root, id) = (&self.root.path, self.id);
        let siblings = self.siblings.entry(dir.to_owned());
        let siblings = siblings.or_insert_with(|| siblings_in(root, id, dir));
        // A directory that cannot be read may contain one.
        siblings.as_ref().is_none_or(|all| all.contains(target))
    }
}

/// Returns the names that also exist in the directory with digits or a uuid appended, or `None` if the directory cannot
/// be read.
fn siblings_in(root: &Path, id: Option<RootId>, below: &Path) -> Option<HashSet<OsString>> {
    let dir = match Dir::open_below(root, id, below) {
        Ok(dir) => dir,
        Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Some(HashSet::new());
        }
        Err(_) => return None,
    };
    let mut all = HashSet::new();
    for name in names(dir.fd()).ok()? {
        let mut rest = name.as_bytes();
        while let Some(before) = strip_number(rest) {
            all.insert(OsStr::from_bytes(before).to_owned());
            rest = before;
        }
    }
    Some(all)
}

/// Returns the data of a stored file that the limits need.
fn retention_entry(targets: &mut StoredTargets<'_>, stored: &Stored, now: Now) -> Entry {
    let (original_dir, seen) = (stored.original_dir(), &stored.seen.fingerprint);
    let shape = targets.root.policy.names.shape(stored.name());
    let stamp = Stamp::parse(&stored.folder_name);
    let since = stamp.and_then(Stamp::since);
    // Digits may be part of the target's name.
    let longer = shape.numbered_target.filter(|longer| {
        let target = shape.target.as_deref();
        let has_sibling = |target| target != longer && targets.has_sibling(original_dir, target);
        rule!("digits-like-a-sibling", target.is_some_and(has_sibling))
    });
    let is_known = shape.is_known && longer.is_none();
    let longest = longer
        .or(shape.target)
        .unwrap_or_else(|| shape.form.clone());
    let copy_of = rule!("copy-of-longest-name", longest,
        without: longest.to_string_lossy().trim_start_matches('.').into());
    Entry {
        id: stored.id.clone().into(),
        below: stored.below.clone(),
        bytes: seen.size,
        allocated: stored.seen.allocated,
        moved: since.map(|since| since.max(seen.ctime)),
        is_steady: stamp.is_some_and(|stamp| stamp.is_steady(now)),
        born: seen.btime,
        written: seen.mtime,
        uid: seen.uid,
        copy_of: original_dir.join(copy_of),
        shape: is_known.then(|| original_dir.join(&shape.form)),
        target: targets.state(stored),
    }
}

/// Reports whether `folder` is a folder name of this version or of an older one.
fn is_folder(folder: &str) -> bool {
    Stamp::parse(folder).is_some() || is_old_id(folder)
}

/// Reports whether `id` has the form of older versions: a letter that is not a hexadecimal digit, so that it cannot be
/// a date or a number, and seven hexadecimal digits.
fn is_old_id(id: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    id.len() == 8
        && id
            .strip_prefix('q')
            .is_some_and(|digits| digits.bytes().all(hex))
}

/// Reports whether `id` can be an id: 1 to 16 letters and digits.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Reports whether both are the same file, changed or not.
fn is_same(now: &Observation, before: &Observation) -> bool {
    FileId::from(&now.fingerprint) == FileId::from(&before.fingerprint)
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

/// Locks a folder. Returns `false` if another process or thread has locked it. On a file system without locks it always
/// succeeds.
fn lock(folder: &OwnedFd, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(folder, how) {
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(at, name, DIRECTORY, Mode::empty())?)
}

fn observe(at: BorrowedFd<'_>, name: &OsStr) -> io::Result<Observation> {
    dir::observe_at(at, name)
}

fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Entries::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn a_quarantine_must_be_ours_and_closed() {
        type Make = fn(&Path);
        fn with_mode(at: &Path, mode: u32) {
            fs::create_dir(at).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
        }
        let rows: [(&str, Make, bool, Option<bool>); 5] = [
            ("none", |_| {}, true, Some(false)),
            ("ours", |at| with_mode(at, 0o700), true, Some(true)),
            ("open to its group", |at| with_mode(at, 0o750), false, None),
            ("a file", |at| fs::write(at, "").unwrap(), false, None),
            (
                "a symlink",
                |at| std::os::unix::fs::symlink(".", at).unwrap(),
                false,
                None,
            ),
        ];
        for (what, make, possible, found) in rows {
            let (_folder, path) = folder();
            make(&path.join(FOLDER));
            let root = Dir::open_root(&path, None).unwrap();
            assert_eq!(is_possible(&root), possible, "{what}");
            let find = Quarantine::open_existing(&path, None).ok();
            assert_eq!(find.map(|quarantine| quarantine.is_some()), found, "{what}");
        }
    }

    #[test]
    fn no_slot_is_made_too_deep() {
        let (_folder, path) = folder();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let deep = |parts: usize| PathBuf::from_iter(vec!["d"; parts]).join("a.tmp");
        let error = quarantine
            .new_slot(&deep(MAX_DEPTH - 1))
            .expect_err("too deep");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NAMETOOLONG));

        let slot = quarantine.new_slot(&deep(MAX_DEPTH - 2)).unwrap();
        make(&slot, "a.tmp");
        let id = slot.keep();
        let stored = quarantine.stored().unwrap();
        let found: Vec<_> = stored.iter().map(|one| (&one.id, &one.below)).collect();
        assert_eq!(found, [(&id, &deep(MAX_DEPTH - 2))]);
    }

    fn make(slot: &Slot, name: &str) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        rustix::fs::openat(slot.inner_dir(), name, flags, Mode::RUSR).unwrap();
    }

    fn folders(path: &Path) -> usize {
        fs::read_dir(path.join(FOLDER)).unwrap().count()
    }

    /// Files that are moved within one hour share a folder, each under its own id. Two files with the same path do not.
    #[test]
    fn files_share_a_folder() {
        let (_folder, path) = folder();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let mut ids = HashSet::new();
        for name in ["a.tmp", "b.tmp", "sub/a.tmp", "sub/deep/a.tmp"] {
            let slot = quarantine.new_slot(Path::new(name)).unwrap();
            make(
                &slot,
                Path::new(name).file_name().unwrap().to_str().unwrap(),
            );
            ids.insert(slot.keep());
        }
        assert_eq!(folders(&path), 1);
        let slot = quarantine.new_slot(Path::new("a.tmp")).unwrap();
        make(&slot, "a.tmp");
        ids.insert(slot.keep());
        assert_eq!(folders(&path), 2);
        // A file is where a directory would be needed.
        let slot = quarantine.new_slot(Path::new("b.tmp/c.tmp")).unwrap();
        make(&slot, "c.tmp");
        ids.insert(slot.keep());
        assert_eq!((folders(&path), ids.len()), (2, 6));
        assert!(ids.iter().all(|id| is_id(id)), "{ids:?}");

        let stored = quarantine.stored().unwrap();
        let found: HashSet<String> = stored.iter().map(|one| one.id.clone()).collect();
        assert_eq!(found, ids);
        for one in &stored {
            quarantine.purge(one).unwrap();
        }
        assert_eq!(folders(&path), 0);
        drop(quarantine);
        assert!(!path.join(FOLDER).exists());
    }

    /// Entries of a folder that orphand did not create are left out and kept.
    #[test]
    fn foreign_entries_in_a_folder_are_ignored() {
        let (_folder, path) = folder();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let slot = quarantine.new_slot(Path::new("sub/a.tmp")).unwrap();
        make(&slot, "a.tmp");
        let at = path.join(FOLDER).join(&slot.dir.folder_name);
        let id = slot.keep();
        std::os::unix::fs::symlink("a.tmp", at.join("link")).unwrap();
        fs::create_dir(at.join("open")).unwrap();
        fs::set_permissions(at.join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at.join("open/b.tmp"), "").unwrap();
        let stored = quarantine.stored().unwrap();
        assert_eq!(stored.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id]);
        fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(quarantine.stored().unwrap().is_empty());
        assert!(quarantine.purge(&stored[0]).is_err());
        fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o701)).unwrap();
        assert!(quarantine.stored().unwrap().is_empty());
        assert!(at.join("sub/a.tmp").exists() && at.join("open/b.tmp").exists());
    }

    /// Empty folders are removed, but not while a file is about to be moved into one.
    #[test]
    fn empty_folders_are_removed_unless_in_use() {
        let (_folder, path) = folder();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let slot = quarantine.new_slot(Path::new("sub/deep/a.tmp")).unwrap();
        for _ in 0..2 {
            quarantine.remove_stale_slots();
            quarantine.remove_empty(&slot.dir.folder_name, &slot.dir.below);
        }
        make(&slot, "a.tmp");
        drop(slot.keep());
        assert_eq!(quarantine.stored().unwrap().len(), 1);
        quarantine.remove_stale_slots();
        assert_eq!(quarantine.stored().unwrap().len(), 1);
        quarantine.purge(&quarantine.stored().unwrap()[0]).unwrap();
        drop(quarantine.new_slot(Path::new("sub/b.tmp")).unwrap());
        assert_eq!(folders(&path), 0);
        fs::create_dir_all(path.join(FOLDER).join("q0123abc/sub/deep")).unwrap();
        quarantine.remove_stale_slots();
        assert_eq!(folders(&path), 0);
    }

    #[test]
    fn a_full_quarantine_is_measured_again() {
        let (_folder, path) = folder();
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
        let mut slot = quarantine.new_slot(Path::new("a.tmp")).unwrap();
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

    #[test]
    fn names_with_trailing_digits_are_siblings() {
        let (_folder, path) = folder();
        let uuid = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
        for name in ["a.1", "b.1.2", &format!("c.{uuid}"), "d.tmp", "e.1x", "f."] {
            fs::write(path.join(name), "").unwrap();
        }
        let mut found: Vec<_> = siblings_in(&path, None, Path::new(""))
            .unwrap()
            .into_iter()
            .collect();
        found.sort();
        assert_eq!(found, ["a", "b", "b.1", "c"]);
        assert_eq!(
            siblings_in(&path, None, Path::new("missing")),
            Some(HashSet::new())
        );
        assert_eq!(siblings_in(&path, None, Path::new("a.1")), None);
    }

    #[test]
    fn a_removed_quarantine_has_no_slots() {
        let (_folder, path) = folder();
        let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        fs::remove_dir(path.join(FOLDER)).unwrap();
        let error = quarantine
            .new_slot(Path::new("a.tmp"))
            .expect_err("no folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ids_have_a_fixed_form() {
        for (id, given, possible) in [
            ("q0123abc", true, true),
            ("x0123abc", false, true),
            ("q0123abg", false, true),
            ("q0123ABC", false, true),
            ("q0123ab", false, true),
            ("q0123abcd", false, true),
            ("0123456789abcdeF", false, true),
            ("0123456789abcdef0", false, false),
            ("", false, false),
            ("a/b", false, false),
            ("..", false, false),
            ("é", false, false),
        ] {
            assert_eq!((is_old_id(id), is_id(id)), (given, possible), "{id:?}");
        }
    }
}
