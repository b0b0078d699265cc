//! The quarantine: `.orphand/` in the root, mode 0700, for what may not be destroyed.
//!
//! A file lies there as `.orphand/<folder>/<its path below the root>`, with the bytes, mode, owner and
//! times that it had. The path shows where it came from, and the name of the folder (`stamp.rs`) when it
//! was moved, so that neither needs a record that could fail to be written. Files that are moved within
//! one hour share a folder, as long as no two of them had the same path. Each file has an id of its own,
//! which follows from the folder's name and the path.
//!
//! Older versions gave each file a folder, whose name is the file's id; these are read as well.
//!
//! The quarantine is made when it is needed and removed when it is empty. It must be ours and closed to
//! other users; otherwise there is no quarantine in this root.

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
use crate::clock;
use crate::decide::judge::{LeaseCoverage, Target};
use crate::decide::observation::{Kind, Observation, UseState};
use crate::decide::policy::Policy;
use crate::decide::retention::{
    self, ClockTrust, Entry, Limits, NeededSpace, Space, SupersededBy, TargetState,
};
use crate::decide::temp_name::strip_number;
use crate::decide::time::{Mono, Now, Wall};
use crate::event::{Event, Subject};
use crate::evidence::{self, Compared, FileId, LeaseThread};
use crate::journal::{Journal, LineKind};
use crate::json;
use crate::look::{self, Dir, RootError, RootId};
use crate::root::Root;
use stamp::Stamp;

mod copy;
mod stamp;

/// The name of the folder.
pub const FOLDER: &str = ".orphand";

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// The greatest depth of a quarantined file below its folder. A walk goes no deeper.
const DEEPEST: usize = 256;

/// The number of the youngest folders that are tried before another one is made.
const TRIED: usize = 8;

/// The most files that are dropped at a time: other work goes on in between.
const AT_ONCE: usize = 256;

/// The quarantine of one root, open.
#[derive(Debug)]
pub struct Quarantine {
    root: Dir,
    fd: OwnedFd,
}

/// A directory in a quarantine that files can be moved to: the place of one directory of the root.
#[derive(Debug)]
pub struct QuarantineDir {
    room: Arc<Quarantine>,
    /// The folder's name.
    folder: String,
    stamp: Stamp,
    /// The folder, locked, so that it is not removed as an empty one.
    top: OwnedFd,
    /// The directory's way from the root.
    below: PathBuf,
    /// The directory in the folder.
    inner: OwnedFd,
}

/// A place in a quarantine that one file may be moved to.
#[derive(Debug)]
pub struct Slot {
    place: Arc<QuarantineDir>,
    id: String,
    /// The space that is counted for it, until it is kept.
    reserved: Option<(Arc<QuarantineUsage>, u64)>,
}

/// A file in a quarantine.
#[derive(Debug)]
pub struct Stored {
    /// Its id.
    pub id: String,
    /// Its way from the root.
    pub below: PathBuf,
    /// What it is.
    pub seen: Observation,
    /// The folder that it lies in.
    folder: String,
}

/// Whether a quarantine is in `root`, or could be made there. Changes nothing.
#[must_use]
pub fn is_possible(root: &Dir) -> bool {
    match root.observe(OsStr::new(FOLDER)) {
        Ok(None) => true,
        Ok(Some(seen)) => is_ours(root, &seen),
        Err(_) => false,
    }
}

/// A directory of ours, closed to everybody else, on the root's own mount.
fn is_ours(root: &Dir, seen: &Observation) -> bool {
    let has_our_owner = || seen.fingerprint.uid == rustix::process::geteuid().as_raw();
    seen.fingerprint.kind == Kind::Dir
        && rule!("quarantine-has-our-owner", has_our_owner(), without: true)
        && rule!("quarantine-closed-to-others", seen.mode & 0o077 == 0, without: true)
        && seen.fingerprint.dev == root.id().dev
        && seen.mount == root.place().mount
        && !seen.mount_root
}

impl Quarantine {
    /// Opens the quarantine of the root at `root`; makes it where there is none.
    pub fn open_or_create(root: &Path, id: Option<RootId>) -> Result<Quarantine, RootError> {
        let root = Dir::open_root(root, id)?;
        match calls::make_dir(root.fd(), OsStr::new(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Quarantine::adopt(root),
        }
    }

    /// Opens the quarantine of the root at `root`, if there is one.
    pub fn open_existing(root: &Path, id: Option<RootId>) -> Result<Option<Quarantine>, RootError> {
        let root = Dir::open_root(root, id)?;
        match Quarantine::adopt(root) {
            Ok(room) => Ok(Some(room)),
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn adopt(root: Dir) -> Result<Quarantine, RootError> {
        let fd = open_dir(root.fd(), OsStr::new(FOLDER))?;
        let seen = look::observe_fd(fd.as_fd())?;
        if rule!("quarantine-is-ours", !is_ours(&root, &seen)) {
            return Err(RootError::Io(Errno::PERM.into()));
        }
        Ok(Quarantine { root, fd })
    }

    /// Which folder it is, by whatever mount.
    pub fn folder(&self) -> io::Result<FileId> {
        Ok(FileId::from(
            &look::observe_fd(self.fd.as_fd())?.fingerprint,
        ))
    }

    /// The root that it is in.
    #[must_use]
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Returns a place for the file that lies at `below` the root: in a folder that others are in already, if it
    /// can have its path there, else in a new one.
    pub fn place(self: &Arc<Quarantine>, below: &Path) -> io::Result<Slot> {
        // What lies deeper would never be found again.
        if below.components().count() >= DEEPEST {
            return Err(Errno::NAMETOOLONG.into());
        }
        let now = clock::now();
        let mut folders: Vec<(Stamp, String)> = Vec::new();
        for name in names(self.fd.as_fd())? {
            let Some(name) = name.to_str() else { continue };
            let stamp = Stamp::read(name).filter(|stamp| stamp.is_open(now));
            folders.extend(stamp.map(|stamp| (stamp, name.to_owned())));
        }
        folders.sort_by_key(|(stamp, _)| std::cmp::Reverse(stamp.since()));
        for (_, name) in folders.into_iter().take(TRIED) {
            if let Some(place) = QuarantineDir::open(self, &name, below)?
                && let Some(slot) = Arc::new(place).slot(below)?
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
            let place = match QuarantineDir::open(self, &name, below) {
                Ok(Some(place)) => Arc::new(place),
                failed => {
                    // Removes the new folder again.
                    self.clear(&name, below.parent().unwrap_or(Path::new("")));
                    failed?;
                    continue;
                }
            };
            return Ok(Slot {
                id: stamp.id(&name, below),
                place,
                reserved: None,
            });
        }
        Err(Errno::EXIST.into())
    }

    /// Removes the empty folders that a crash left between making a place and using it. Nobody else
    /// may be at work in this root.
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
            // Whatever is not an empty folder stays.
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

    /// Everything that lies in it, the oldest first. What was not put there by us is left out.
    pub fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for folder in names(self.fd.as_fd())? {
            let Some(folder) = folder.to_str() else {
                continue;
            };
            let read = match Stamp::read(folder) {
                Some(stamp) => self.read_folder(folder, stamp, &mut stored),
                None if is_old_id(folder) => self.read_old(folder, &mut stored),
                None => Ok(()),
            };
            match read {
                // It has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        stored.sort_by(|a, b| (a.since(), &a.id).cmp(&(b.since(), &b.id)));
        Ok(stored)
    }

    /// Reads a folder that several files may share. Each directory in it must be ours alone, and what is neither
    /// that nor a file is no business of ours.
    fn read_folder(&self, folder: &str, stamp: Stamp, stored: &mut Vec<Stored>) -> io::Result<()> {
        let top = open_dir(self.fd.as_fd(), OsStr::new(folder))?;
        let mut found = Vec::new();
        self.walk(top.as_fd(), &mut PathBuf::new(), &mut found)?;
        stored.extend(found.into_iter().map(|(below, seen)| Stored {
            id: stamp.id(folder, &below),
            below,
            seen,
            folder: folder.to_owned(),
        }));
        Ok(())
    }

    fn walk(
        &self,
        at: BorrowedFd<'_>,
        below: &mut PathBuf,
        found: &mut Vec<(PathBuf, Observation)>,
    ) -> io::Result<()> {
        let is_ours = is_ours(&self.root, &look::observe_fd(at)?);
        if rule!("folders-of-ours-alone", !is_ours) || below.components().count() >= DEEPEST {
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

    /// Reads a folder of an older version, which holds one file: one name in each folder, each folder ours alone.
    /// Anything else was not put there by us.
    fn read_old(&self, id: &str, stored: &mut Vec<Stored>) -> io::Result<()> {
        let mut folder = open_dir(self.fd.as_fd(), OsStr::new(id))?;
        let mut below = PathBuf::new();
        for _ in 0..DEEPEST {
            let folder_is = look::observe_fd(folder.as_fd())?;
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
                        folder: id.to_owned(),
                    });
                    return Ok(());
                }
                Kind::Symlink | Kind::Other => return Ok(()),
            }
        }
        Ok(())
    }

    /// Opens the directory that `one` lies in, and returns its name there and a new observation of it. Every
    /// directory on the way must be ours alone, and the file still a file.
    fn locate<'s>(&self, one: &'s Stored) -> io::Result<(OwnedFd, &'s OsStr, Observation)> {
        let mut at = open_dir(self.fd.as_fd(), OsStr::new(&one.folder))?;
        let check = |at: &OwnedFd| match is_ours(&self.root, &look::observe_fd(at.as_fd())?) {
            true => Ok(()),
            false => Err(io::Error::from(Errno::PERM)),
        };
        check(&at)?;
        for part in one.folder().components() {
            at = open_dir(at.as_fd(), part.as_os_str())?;
            check(&at)?;
        }
        let seen = observe(at.as_fd(), one.name())?;
        match seen.fingerprint.kind == Kind::File && is_same(&seen, &one.seen) {
            true => Ok((at, one.name(), seen)),
            false => Err(Errno::NOENT.into()),
        }
    }

    /// Brings `one` back to `name` in `to`, overwriting nothing. `mark` is called with the open file before it has
    /// its name back. Where `to` is on another file system, the file is copied, compared and then removed here.
    pub fn restore(
        &self,
        one: &Stored,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl Fn(BorrowedFd<'_>, &Observation),
    ) -> io::Result<Observation> {
        let (folder, stored, seen) = self.locate(one)?;
        let file = rustix::fs::openat(&folder, stored, FILE, Mode::empty());
        // Who may not read it can still have it back, without the mark.
        if let Ok(file) = &file {
            mark(file.as_fd(), &seen);
        }
        match calls::rename(folder.as_fd(), stored, to, name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy::across(file?.into(), &seen, to, name, &mark)?;
                // Only what was copied is removed.
                let (folder, stored, now) = self.locate(one)?;
                let of = |seen: &Observation| (seen.fingerprint.size, seen.fingerprint.mtime);
                if of(&now) != of(&seen) {
                    return Err(Errno::BUSY.into());
                }
                calls::unlink(folder.as_fd(), stored)?;
            }
            moved => moved?,
        }
        drop(folder);
        self.clear(&one.folder, one.folder());
        Ok(seen)
    }

    /// Whether it is proven that nobody holds `one`, and it is still what it was.
    fn is_proven_unused(&self, one: &Stored, policy: &Policy, lease_thread: &LeaseThread) -> bool {
        let Ok((folder, name, seen)) = self.locate(one) else {
            return false;
        };
        let Ok(file) = rustix::fs::openat(&folder, name, FILE, Mode::empty()) else {
            return false;
        };
        let (hold, leased) = lease_thread.lease(file);
        let same = look::observe_fd(leased.file()).is_ok_and(|now| now == seen && now == one.seen);
        let file = FileId::from(&seen.fingerprint);
        let reach = self.root.reach();
        let seen_whole = match reach {
            LeaseCoverage::OpensAndMaps => true,
            LeaseCoverage::OpensOnly => {
                evidence::scan_processes(&[file], reach).proves_unmapped(file)
            }
            LeaseCoverage::Unknown => {
                rule!("unproven-is-not-dropped", self.root.place().has_proof(policy), without: true)
            }
        };
        hold == UseState::Unused && same && seen_whole && leased.still_held() == UseState::Unused
    }

    /// Deletes `one` for good.
    pub fn purge(&self, one: &Stored) -> io::Result<()> {
        let (folder, name, _) = self.locate(one)?;
        calls::unlink(folder.as_fd(), name)?;
        drop(folder);
        self.clear(&one.folder, one.folder());
        Ok(())
    }

    /// Removes the empty directories of `folder`, from `below` outwards, unless another thread or process is about to
    /// use them.
    fn clear(&self, folder: &str, below: &Path) {
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
    /// An empty quarantine goes away. Where another orphand is just about to use it, that one's
    /// next call says ENOENT, and its temp stays.
    fn drop(&mut self) {
        let _ = calls::remove_empty_dir(self.root.fd(), OsStr::new(FOLDER));
    }
}

impl QuarantineDir {
    /// Opens the directory of the file at `below` in `folder`, and makes what is missing of it. `None`: it cannot be
    /// used, because it is being cleared away, is not ours, or a file stands where a directory is needed.
    fn open(
        room: &Arc<Quarantine>,
        folder: &str,
        below: &Path,
    ) -> io::Result<Option<QuarantineDir>> {
        let Some(stamp) = Stamp::read(folder) else {
            return Ok(None);
        };
        let usable = |opened: io::Result<OwnedFd>| match opened {
            Ok(fd) => Ok(is_ours(&room.root, &look::observe_fd(fd.as_fd())?).then_some(fd)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => Ok(None),
                _ => Err(error),
            },
        };
        let name = OsStr::new(folder);
        let Some(top) = usable(open_dir(room.fd.as_fd(), name))? else {
            return Ok(None);
        };
        if !lock(&top, FlockOperation::NonBlockingLockShared)? {
            return Ok(None);
        }
        // It may have been removed before it was locked.
        let opened = FileId::from(&look::observe_fd(top.as_fd())?.fingerprint);
        match observe(room.fd.as_fd(), name) {
            Ok(there) if FileId::from(&there.fingerprint) == opened => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(None),
        }
        let below = below.parent().unwrap_or(Path::new(""));
        let mut place = QuarantineDir {
            room: Arc::clone(room),
            folder: folder.to_owned(),
            stamp,
            inner: top.try_clone()?,
            top,
            below: PathBuf::new(),
        };
        // From here on what was made is removed again if this fails half-way.
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(Errno::INVAL.into());
            };
            let is_new = match calls::make_dir(place.inner.as_fd(), name) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            place.below.push(name);
            match usable(open_dir(place.inner.as_fd(), name))? {
                Some(inner) => place.inner = inner,
                None => return Ok(None),
            }
            if !place.is_of_this_directory(is_new)? {
                return Ok(None);
            }
        }
        Ok(Some(place))
    }

    /// Notes at the directory which directory of the root its files lie in. Where that cannot be noted, none of them
    /// ever becomes old by its target. Returns `false` if another directory is noted there.
    fn is_of_this_directory(&self, is_new: bool) -> io::Result<bool> {
        let inner = self.inner.as_fd();
        // RACE: the directory is replaced between the look at the temp and this one (µs to ms). Its successor is noted.
        // Worst case: a file that counts in the successor frees the copy after `keep`.
        let origin = match self.room.root.open_within(&self.below) {
            Ok(dir) => dir.id().inode().unwrap_or_default(),
            Err(RootError::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error);
            }
            Err(_) => String::new(),
        };
        Ok(match evidence::mark(inner, evidence::ORIGIN)? {
            Some(noted) => {
                rule!("folder-of-one-directory", noted == origin.as_bytes(), without: true)
            }
            None if is_new => {
                if let Err(error) = evidence::set_mark(inner, evidence::ORIGIN, origin.as_bytes()) {
                    log::debug!("the origin of {:?} cannot be noted: {error}", self.below);
                }
                true
            }
            None => true,
        })
    }

    /// Returns a place for another file of the same directory; `None` where it cannot have its path here.
    pub fn slot(self: &Arc<QuarantineDir>, below: &Path) -> io::Result<Option<Slot>> {
        let name = below.file_name().unwrap_or_default();
        // The one file whose id is the folder's name is the one that the folder was made for.
        let is_first = self.stamp.is_made_for(below);
        if is_first || below.parent() != Some(&self.below) || self.observe(name)?.is_some() {
            return Ok(None);
        }
        Ok(Some(Slot {
            place: Arc::clone(self),
            id: self.stamp.id(&self.folder, below),
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
        self.room.clear(&self.folder, &self.below);
    }
}

impl Slot {
    /// The directory that the file is to be moved into, under its own name.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.place.inner.as_fd()
    }

    /// The place for other files of the same directory.
    pub(super) fn place(&self) -> &Arc<QuarantineDir> {
        &self.place
    }

    /// What stands at `name` in it.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        self.place.observe(name)
    }

    /// Counts `bytes` for it. Returns `false` if the quarantine has no room for them.
    pub(super) fn reserve(&mut self, stock: &Arc<QuarantineUsage>, bytes: u64) -> io::Result<bool> {
        if !stock.take(&self.place.room, bytes)? {
            return Ok(false);
        }
        self.reserved = Some((Arc::clone(stock), bytes));
        Ok(true)
    }

    /// Keeps its file, and returns the id.
    #[must_use]
    pub fn keep(mut self) -> String {
        self.reserved = None;
        std::mem::take(&mut self.id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((stock, bytes)) = self.reserved.take() {
            stock.give_back(self.place.room.root.id(), bytes);
        }
    }
}

impl Stored {
    /// When it was moved here: the rename set its `ctime`, and nothing else has since.
    #[must_use]
    pub fn since(&self) -> Wall {
        self.seen.fingerprint.ctime
    }

    /// The folder that it was in, from the root.
    fn folder(&self) -> &Path {
        self.below.parent().unwrap_or(Path::new(""))
    }

    fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }
}

/// The limits and sizes of the quarantines that this process works on, so that not every move needs a count.
#[derive(Debug)]
pub struct QuarantineUsage {
    limits: Mutex<Limits>,
    counted: Mutex<HashMap<RootId, Usage>>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    /// Bytes on the disk.
    used: u64,
    /// Those of the whole file system.
    size: u64,
    /// When that was counted, and how long it took.
    at: Mono,
    took: Duration,
}

/// A quarantine that was found full is not counted again within this time, nor within twenty times what the count
/// took.
const RECOUNT: Duration = Duration::from_millis(500);

impl Default for QuarantineUsage {
    /// Without limits.
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
    /// From now on these are the limits.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `bytes` more have no room in the quarantine of `root`, as far as is known, and it is time to see
    /// whether room can be made.
    #[must_use]
    pub fn is_short_of(&self, root: &Path, id: Option<RootId>, bytes: u64) -> bool {
        let limits = self.limits();
        if limits.percent == 0 {
            return false;
        }
        let known = id.and_then(|id| self.counts().get(&id).copied());
        let count = match known {
            Some(count) => count,
            None => match Quarantine::open_existing(root, id) {
                Ok(Some(room)) => match self.count(&room) {
                    Ok(count) => count,
                    Err(_) => return false,
                },
                _ => return false,
            },
        };
        count.used.saturating_add(bytes) > limits.max_bytes(count.size)
            && (known.is_none() || count.is_stale())
    }

    /// Counts `bytes` more in `room`; returns `false` if they have no room.
    fn take(&self, room: &Quarantine, bytes: u64) -> io::Result<bool> {
        let limits = self.limits();
        if limits.percent == 0 {
            return Ok(true);
        }
        let id = room.root.id();
        let fits = |count: &Usage| count.used.saturating_add(bytes) <= limits.max_bytes(count.size);
        let known = self.counts().get(&id).copied();
        match known {
            Some(count) if fits(&count) || !count.is_stale() => {}
            // Another process may have removed files.
            _ => _ = self.count(room)?,
        }
        let mut counts = self.counts();
        let has_room = counts.get_mut(&id).filter(|count| fits(count));
        Ok(has_room
            .map(|count| count.used = count.used.saturating_add(bytes))
            .is_some())
    }

    fn give_back(&self, id: RootId, bytes: u64) {
        if let Some(count) = self.counts().get_mut(&id) {
            count.used = count.used.saturating_sub(bytes);
        }
    }

    fn count(&self, room: &Quarantine) -> io::Result<Usage> {
        let began = clock::mono();
        let stored = room.stored()?;
        Ok(self.note(room, &stored, began))
    }

    /// Notes how much lies in `room`.
    fn note(&self, room: &Quarantine, stored: &[Stored], began: Mono) -> Usage {
        let bytes = stored.iter().map(|one| one.seen.allocated);
        let at = clock::mono();
        let count = Usage {
            used: bytes.fold(0, u64::saturating_add),
            size: space(room.root.fd()).size,
            at,
            took: at.since(began),
        };
        self.counts().insert(room.root.id(), count);
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

/// Returns whether the file system of `root` has less free than `limits` ask for.
#[must_use]
pub fn lacks_space(root: &Dir, limits: Limits) -> bool {
    let space = space(root.fd());
    limits.missing_free(space.size, space.free) > 0
        || limits.missing_free(space.inodes, space.inodes_free) > 0
}

/// What it takes to keep a quarantine within its limits.
#[derive(Clone, Copy, Debug)]
pub struct LimitContext<'a> {
    /// The limits, and the sizes that are known.
    pub usage: &'a QuarantineUsage,
    /// Where each drop is written down, before and after.
    pub journal: &'a Journal,
    /// Proves that nobody holds what is dropped.
    pub lease_thread: &'a LeaseThread,
    /// How far dates can be trusted.
    pub trust: ClockTrust,
    /// The files to be moved there now.
    pub wanted: NeededSpace,
}

/// The result of applying the limits to a quarantine.
#[derive(Debug, Default)]
pub struct LimitsResult {
    /// The dropped files.
    pub events: Vec<Event>,
    /// Files are left in it.
    pub holds_files: bool,
    /// There is more to drop, which was left for the next call.
    pub has_more: bool,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Drops from the quarantine of `root` what its limits ask for, and says what that was.
///
/// Some of it may have been moved here *because* nobody could prove that it is unused, or though it
/// was in use: so nothing is dropped but under the same proof as any other removal.
pub fn enforce_limits(root: &Root, id: Option<RootId>, keeping: LimitContext<'_>) -> LimitsResult {
    let mut tended = LimitsResult::default();
    let began = clock::mono();
    let Ok(Some(room)) = Quarantine::open_existing(&root.path, id) else {
        // Without a quarantine there is no size to know.
        keeping.usage.counts().retain(|known, _| Some(*known) != id);
        return tended;
    };
    let stored = match room.stored() {
        Ok(stored) => stored,
        Err(error) => {
            log::warn!("the quarantine of {:?} cannot be read: {error}", root.path);
            return tended;
        }
    };
    let limits = keeping.usage.limits();
    let now = clock::now();
    let mut targets = StoredTargets::new(root, &room, id);
    let entries: Vec<Entry> = stored
        .iter()
        .map(|one| entry(&mut targets, one, now))
        .collect();
    let space = Space {
        needed: keeping.wanted,
        ..space(room.root.fd())
    };
    let plan = retention::plan(&entries, limits, space, now.wall, keeping.trust);
    let mut by_id: HashMap<&OsStr, Vec<&Stored>> = HashMap::new();
    for one in &stored {
        by_id.entry(OsStr::new(&one.id)).or_default().push(one);
    }
    // An id that two files have names neither.
    let find = |id: &OsStr| match by_id.get(id).map(Vec::as_slice) {
        Some([one]) => Some(*one),
        _ => None,
    };
    let is_unused = |one: &Stored| room.is_proven_unused(one, &root.policy, keeping.lease_thread);
    tended.next = plan.next;
    let mut dropped = HashSet::new();
    for (one, better) in plan.drops {
        if dropped.len() >= AT_ONCE {
            tended.has_more = true;
            break;
        }
        let before = one.target;
        let Some(one) = find(&one.id) else {
            continue;
        };
        if !is_unused(one) {
            continue;
        }
        // What was a second copy when this began is the last one if the better one has gone meanwhile, or is
        // one that somebody may still change.
        // RACE: that may go between this look and the removal; worst case: both are gone. And who opens the
        // one that goes, by its path in here, which only we can, loses its name.
        let is_there = match better {
            SupersededBy::Target => rule!("dropped-while-target-counts",
                targets.stands(one) == TargetState::Counts, without: true),
            SupersededBy::Copies(newer) => {
                let is_unused =
                    |one: &Stored| rule!("dropped-while-newer-copy", is_unused(one), without: true);
                let is_there = |id: &OsString| find(id).is_some_and(is_unused);
                newer.iter().all(is_there) && targets.stands(one) == before
            }
        };
        if !is_there {
            continue;
        }
        let event = purged(root.path.as_path(), one);
        let line = |event: &Event| json::event(event, clock::wall());
        keeping.journal.write(LineKind::Intent, &[line(&event)]);
        if room.purge(one).is_ok() {
            keeping.journal.write(LineKind::Outcome, &[line(&event)]);
            tended.events.push(event);
            dropped.insert(one.id.as_str());
        }
    }
    drop(entries);
    let size = |one: &Stored| match dropped.contains(one.id.as_str()) {
        true => 0,
        false => one.seen.allocated,
    };
    tended.holds_files = dropped.len() < stored.len();
    let used = stored.iter().map(size).fold(0, u64::saturating_add);
    keeping.usage.note(&room, &stored, began);
    if let Some(count) = keeping.usage.counts().get_mut(&room.root.id()) {
        count.used = used;
    }
    tended
}

/// What is said of a file that was deleted for good.
#[must_use]
pub fn purged(root: &Path, stored: &Stored) -> Event {
    Event::Purged {
        subject: Subject {
            path: root.join(&stored.below),
            root: root.to_owned(),
            size: Some(stored.seen.size()),
        },
        id: stored.id.clone(),
    }
}

/// Looks at the targets of stored files.
struct StoredTargets<'a> {
    root: &'a Root,
    room: &'a Quarantine,
    id: Option<RootId>,
    /// For each directory, the names that also exist with digits or a uuid behind them; `None`: not readable.
    siblings: HashMap<PathBuf, Option<HashSet<OsString>>>,
}

impl<'a> StoredTargets<'a> {
    fn new(root: &'a Root, room: &'a Quarantine, id: Option<RootId>) -> StoredTargets<'a> {
        StoredTargets {
            root,
            room,
            id,
            siblings: HashMap::new(),
        }
    }

    /// Returns the state of the target of `one`.
    fn stands(&mut self, one: &Stored) -> TargetState {
        let mut parsed = self.root.policy.names.parse(one.name());
        if !parsed.numbered_targets.is_empty() {
            let targets = parsed.targets.clone();
            let mut targets = targets.iter();
            if targets.any(|target| self.has_sibling(one.folder(), target)) {
                parsed = parsed.with_numbered_targets();
            }
        }
        let dir = match Dir::open_below(&self.root.path, self.id, one.folder()) {
            Ok(dir) => dir,
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return TargetState::Nothing;
            }
            Err(_) => return TargetState::Other,
        };
        let temp = Compared {
            seen: &one.seen,
            file: None,
        };
        match evidence::target(&dir, &self.root.policy, &parsed, temp) {
            Ok(found) if matches!(found.target, Target::Absent | Target::Unknown) => {
                TargetState::Nothing
            }
            Ok(found) if found.target.counts() => {
                // A target that was born or changed after the move may have been made after a loss.
                let since = Stamp::read(&one.folder).and_then(Stamp::since);
                let is_older = found
                    .newest()
                    .zip(since)
                    .is_some_and(|(newest, since)| newest < since);
                let is_origin =
                    || rule!("same-directory-as-then", self.is_origin(&dir, one), without: true);
                match rule!("target-older-than-move", is_older, without: true) && is_origin() {
                    true => TargetState::Counts,
                    false => TargetState::Other,
                }
            }
            _ => TargetState::Other,
        }
    }

    /// Returns whether `dir` is the directory that `one` was moved from. Another one may have been given its name since,
    /// with files that are older than the move.
    fn is_origin(&self, dir: &Dir, one: &Stored) -> bool {
        let folder = one.folder();
        if folder.as_os_str().is_empty() {
            // The quarantine lies in it.
            return true;
        }
        let Some(origin) = dir.id().inode() else {
            return false;
        };
        let noted = self.room.open_inner(&Path::new(&one.folder).join(folder));
        let noted = noted.and_then(|inner| evidence::mark(inner.as_fd(), evidence::ORIGIN));
        noted.is_ok_and(|noted| noted == Some(origin.into_bytes()))
    }

    /// Returns whether the directory has a name that is `target` with digits or a uuid behind it. Then digits in a
    /// temp's name may be a part of its target's name too.
    fn has_sibling(&mut self, folder: &Path, target: &OsStr) -> bool {
        let (root, id) = (&self.root.path, self.id);
        let siblings = self.siblings.entry(folder.to_owned());
        let siblings = siblings.or_insert_with(|| siblings_in(root, id, folder));
        // A directory that cannot be read may have one.
        siblings.as_ref().is_none_or(|all| all.contains(target))
    }
}

/// The names in a directory that have a sibling with digits or a uuid behind them; `None`: it cannot be read.
fn siblings_in(root: &Path, id: Option<RootId>, folder: &Path) -> Option<HashSet<OsString>> {
    let dir = match Dir::open_below(root, id, folder) {
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

/// What the limits need to know of a stored file.
fn entry(targets: &mut StoredTargets<'_>, stored: &Stored, now: Now) -> Entry {
    let (folder, seen) = (stored.folder(), &stored.seen.fingerprint);
    let shape = targets.root.policy.names.shape(stored.name());
    let stamp = Stamp::read(&stored.folder);
    let since = stamp.and_then(Stamp::since);
    // Digits may be a part of the target's name.
    let longer = shape.numbered_target.filter(|longer| {
        let target = shape.target.as_deref();
        let has_sibling = |target| target != longer && targets.has_sibling(folder, target);
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
        copy_of: folder.join(copy_of),
        shape: is_known.then(|| folder.join(&shape.form)),
        target: targets.stands(stored),
    }
}

/// Whether `folder` is of a form that we give, or that older versions gave.
fn is_folder(folder: &str) -> bool {
    Stamp::read(folder).is_some() || is_old_id(folder)
}

/// Whether `id` is of the form that older versions gave: a letter that is no hexadecimal digit, so that it is no date
/// and no number, and seven digits of hexadecimal.
fn is_old_id(id: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    id.len() == 8
        && id
            .strip_prefix('q')
            .is_some_and(|digits| digits.bytes().all(hex))
}

/// Whether `id` can be one: at most 16 letters and digits.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Returns whether both are the same file, changed or not.
fn is_same(now: &Observation, before: &Observation) -> bool {
    FileId::from(&now.fingerprint) == FileId::from(&before.fingerprint)
}

/// Removes all empty directories in `dir`.
fn prune(dir: BorrowedFd<'_>, depth: usize) {
    if depth >= DEEPEST {
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

/// Locks a folder; returns `false` if another process or thread has locked it. On a file system without locks every
/// attempt succeeds.
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
    look::observe_at(at, name)
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
    fn where_there_is_one_and_where_one_could_be() {
        type Make = fn(&Path);
        fn with_mode(at: &Path, mode: u32) {
            fs::create_dir(at).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
        }
        let rows: [(&str, Make, bool, Option<bool>); 5] = [
            ("none", |_| {}, true, Some(false)),
            ("ours", |at| with_mode(at, 0o700), true, Some(true)),
            ("its group's too", |at| with_mode(at, 0o750), false, None),
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
            assert_eq!(find.map(|room| room.is_some()), found, "{what}");
        }
    }

    #[test]
    fn no_place_is_made_that_would_not_be_found_again() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let deep = |parts: usize| PathBuf::from_iter(vec!["d"; parts]).join("a.tmp");
        let error = room.place(&deep(DEEPEST - 1)).expect_err("too deep");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NAMETOOLONG));

        let slot = room.place(&deep(DEEPEST - 2)).unwrap();
        make(&slot, "a.tmp");
        let id = slot.keep();
        let stored = room.stored().unwrap();
        let found: Vec<_> = stored.iter().map(|one| (&one.id, &one.below)).collect();
        assert_eq!(found, [(&id, &deep(DEEPEST - 2))]);
    }

    fn make(slot: &Slot, name: &str) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        rustix::fs::openat(slot.folder(), name, flags, Mode::RUSR).unwrap();
    }

    fn folders(path: &Path) -> usize {
        fs::read_dir(path.join(FOLDER)).unwrap().count()
    }

    /// Files of one hour share a folder, each under an id of its own; two with one path do not.
    #[test]
    fn files_share_a_folder() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let mut ids = HashSet::new();
        for name in ["a.tmp", "b.tmp", "sub/a.tmp", "sub/deep/a.tmp"] {
            let slot = room.place(Path::new(name)).unwrap();
            make(
                &slot,
                Path::new(name).file_name().unwrap().to_str().unwrap(),
            );
            ids.insert(slot.keep());
        }
        assert_eq!(folders(&path), 1);
        let slot = room.place(Path::new("a.tmp")).unwrap();
        make(&slot, "a.tmp");
        ids.insert(slot.keep());
        assert_eq!(folders(&path), 2);
        // A file stands where a directory would have to be.
        let slot = room.place(Path::new("b.tmp/c.tmp")).unwrap();
        make(&slot, "c.tmp");
        ids.insert(slot.keep());
        assert_eq!((folders(&path), ids.len()), (2, 6));
        assert!(ids.iter().all(|id| is_id(id)), "{ids:?}");

        let stored = room.stored().unwrap();
        let found: HashSet<String> = stored.iter().map(|one| one.id.clone()).collect();
        assert_eq!(found, ids);
        for one in &stored {
            room.purge(one).unwrap();
        }
        assert_eq!(folders(&path), 0);
        drop(room);
        assert!(!path.join(FOLDER).exists());
    }

    /// Entries of a folder that we did not put there are left out, and stay.
    #[test]
    fn what_is_not_ours_in_a_folder() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let slot = room.place(Path::new("sub/a.tmp")).unwrap();
        make(&slot, "a.tmp");
        let at = path.join(FOLDER).join(&slot.place.folder);
        let id = slot.keep();
        std::os::unix::fs::symlink("a.tmp", at.join("link")).unwrap();
        fs::create_dir(at.join("open")).unwrap();
        fs::set_permissions(at.join("open"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at.join("open/b.tmp"), "").unwrap();
        let stored = room.stored().unwrap();
        assert_eq!(stored.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id]);
        fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(room.stored().unwrap().is_empty());
        assert!(room.purge(&stored[0]).is_err());
        fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o701)).unwrap();
        assert!(room.stored().unwrap().is_empty());
        assert!(at.join("sub/a.tmp").exists() && at.join("open/b.tmp").exists());
    }

    /// Empty folders are removed, but not while a file is about to be moved into one.
    #[test]
    fn empty_folders_are_cleared_unless_they_are_in_use() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let slot = room.place(Path::new("sub/deep/a.tmp")).unwrap();
        for _ in 0..2 {
            room.remove_stale_slots();
            room.clear(&slot.place.folder, &slot.place.below);
        }
        make(&slot, "a.tmp");
        drop(slot.keep());
        assert_eq!(room.stored().unwrap().len(), 1);
        room.remove_stale_slots();
        assert_eq!(room.stored().unwrap().len(), 1);
        room.purge(&room.stored().unwrap()[0]).unwrap();
        drop(room.place(Path::new("sub/b.tmp")).unwrap());
        assert_eq!(folders(&path), 0);
        fs::create_dir_all(path.join(FOLDER).join("q0123abc/sub/deep")).unwrap();
        room.remove_stale_slots();
        assert_eq!(folders(&path), 0);
    }

    #[test]
    fn a_stock_is_counted_once_and_again_when_it_seems_full() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        let stock = Arc::new(QuarantineUsage::default());
        let id = room.root.id();
        let size = space(room.root.fd()).size;
        assert!(stock.take(&room, u64::MAX).unwrap(), "no limit");
        stock.set_limits(Limits {
            percent: 10,
            ..Limits::default()
        });
        let tenth = size / 100 * 10;
        assert!(!stock.take(&room, tenth + 1).unwrap());
        let mut slot = room.place(Path::new("a.tmp")).unwrap();
        assert!(slot.reserve(&stock, tenth).unwrap());
        assert!(!stock.take(&room, 1).unwrap());
        drop(slot);
        assert!(stock.take(&room, tenth).unwrap(), "given back");
        // By now nothing of it is there.
        let used = |at| {
            stock.counts().insert(
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
        assert!(!stock.take(&room, 1).unwrap());
        used(clock::mono().before(RECOUNT));
        assert!(stock.take(&room, 1).unwrap());
    }

    #[test]
    fn names_with_digits_behind_them_are_siblings() {
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
            siblings_in(&path, None, Path::new("gone")),
            Some(HashSet::new())
        );
        assert_eq!(siblings_in(&path, None, Path::new("a.1")), None);
    }

    #[test]
    fn where_the_folder_is_gone_there_is_no_place() {
        let (_folder, path) = folder();
        let room = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
        fs::remove_dir(path.join(FOLDER)).unwrap();
        let error = room.place(Path::new("a.tmp")).expect_err("no folder");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn ids() {
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
