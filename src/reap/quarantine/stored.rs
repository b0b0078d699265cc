//! The files in a quarantine: they are listed, restored and deleted.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::folder::{
    FOLDER, MAX_DEPTH, Quarantine, check_neighbors, is_ours, names, observe, open_dir,
};
use super::stamp::{MovedAs, Stamp};
use crate::core::observation::{FileSize, Kind, Observation};
use crate::core::policy::Policy;
use crate::core::sort::sort_by;
use crate::core::time::{Now, Wall};
use crate::evidence::{self, FileId};
use crate::fs::dir;
use crate::fs::dir::Dir;
use crate::reap::calls;

/// The flags by which a stored file is opened, to prove that no process uses it, or to read it.
pub(super) const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(evidence::CHECK_ONLY);

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

impl Quarantine {
    /// Returns all files in the quarantine, the oldest first. Entries that orphand did not create are left out.
    pub fn stored(&self) -> io::Result<Vec<Stored>> {
        self.read_folders(|folder, stamp, stored| self.read_folder(folder, stamp, stored))
    }

    /// Reads every folder, by `read` or as a folder of an older version. Returns the files, the oldest first.
    fn read_folders(
        &self,
        read: impl Fn(&str, Stamp, &mut Vec<Stored>) -> io::Result<()>,
    ) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for folder in names(self.fd.as_fd())? {
            let Some(folder) = folder.to_str() else {
                continue;
            };
            let read = match Stamp::parse(folder) {
                Some(stamp) => read(folder, stamp, &mut stored),
                None if is_old_id(folder) => self.read_old(folder, &mut stored),
                None => Ok(()),
            };
            match read {
                // The folder was removed in between, or has no files of the wanted directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        sort_by_age(&mut stored);
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
        if rule!("folders-of-ours-alone", !is_ours) {
            let folder = self.root.path().join(FOLDER);
            log::warn!(
                "files in {folder:?} are left out: a directory in it is not closed to other users; to close it: chmod -R \
                 go= {folder:?}"
            );
            return Ok(());
        }
        if below.components().count() >= MAX_DEPTH {
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

    /// Returns the files that come from the directory `below` the root and whose names `is_wanted` accepts, the oldest
    /// first.
    pub(crate) fn stored_from(
        &self,
        below: &Path,
        is_wanted: &dyn Fn(&OsStr) -> bool,
    ) -> io::Result<Vec<Stored>> {
        let names_in = |dir: BorrowedFd<'_>| {
            let mut names = names(dir)?;
            names.retain(|name| is_wanted(name));
            Ok(names)
        };
        let mut stored = self.read_folders(|folder, stamp, stored| {
            self.read_dir(folder, stamp, below, names_in, stored)
        })?;
        // A folder of an older version may contain a file of another directory.
        stored.retain(|one| one.original_dir() == below);
        Ok(stored)
    }

    /// Returns the files that come from the directory `below` the root and have these names, by their folders. The
    /// oldest file is first. Unlike [`Quarantine::stored_from`], it lists no directory and reads no other folder.
    pub(crate) fn stored_as(
        &self,
        below: &Path,
        moved: HashMap<String, Vec<OsString>>,
    ) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for (folder, names) in moved {
            let Some(stamp) = Stamp::parse(&folder) else {
                continue;
            };
            match self.read_dir(&folder, stamp, below, |_| Ok(names), &mut stored) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => read?,
            }
        }
        sort_by_age(&mut stored);
        Ok(stored)
    }

    /// Reads files of one directory in a folder that several files may share.
    fn read_dir(
        &self,
        folder: &str,
        stamp: Stamp,
        below: &Path,
        names_in: impl FnOnce(BorrowedFd<'_>) -> io::Result<Vec<OsString>>,
        stored: &mut Vec<Stored>,
    ) -> io::Result<()> {
        let dir = self.open_ours(folder, below)?;
        for name in names_in(dir.as_fd())? {
            let seen = match observe(dir.as_fd(), &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                seen => seen?,
            };
            if seen.fingerprint.kind == Kind::File {
                let below = below.join(&name);
                stored.push(Stored {
                    id: stamp.id(folder, &below),
                    below,
                    seen,
                    folder_name: folder.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Opens the directory `below` in `folder`. Each directory on the path must belong to orphand's user alone.
    pub(super) fn open_ours(&self, folder: &str, below: &Path) -> io::Result<OwnedFd> {
        let mut at = open_dir(self.fd.as_fd(), OsStr::new(folder))?;
        let check = |at: &OwnedFd| {
            let is_ours = is_ours(&self.root, &dir::observe_fd(at.as_fd())?);
            match rule!("stored-path-is-ours", is_ours, without: true) {
                true => Ok(()),
                false => Err(io::Error::from(Errno::PERM)),
            }
        };
        check(&at)?;
        for part in below.components() {
            at = open_dir(at.as_fd(), part.as_os_str())?;
            check(&at)?;
        }
        Ok(at)
    }

    /// Reports whether all `copies` are in the quarantine and unchanged. Each directory on their paths must belong to
    /// orphand's user alone.
    pub(in crate::reap) fn are_unchanged(&self, copies: &[Arc<Stored>]) -> bool {
        let mut last = None;
        copies.iter().all(|copy| {
            let dir = (copy.folder_name(), copy.original_dir());
            // One look at the directories is enough for all copies in them.
            let is_ours = last == Some(dir) || self.is_ours_on_path(dir.0, dir.1);
            last = Some(dir);
            let path = Path::new(copy.folder_name()).join(&copy.below);
            let seen = observe(self.fd.as_fd(), path.as_os_str());
            is_ours && seen.is_ok_and(|seen| seen == copy.seen)
        })
    }

    /// Reports whether the directory `below` in `folder`, and each directory on the path to it, belongs to orphand's
    /// user alone. Opens nothing.
    fn is_ours_on_path(&self, folder: &str, below: &Path) -> bool {
        let is_ours = |path: &Path| {
            let seen = observe(self.fd.as_fd(), path.as_os_str());
            let is_ours = seen.is_ok_and(|seen| is_ours(&self.root, &seen));
            rule!("stored-path-is-ours", is_ours, without: true)
        };
        let mut path = PathBuf::from(folder);
        is_ours(&path)
            && below.components().all(|part| {
                path.push(part);
                is_ours(&path)
            })
    }

    /// Opens `copy` for a proof that it is unused. The caller has locked its directory.
    pub(super) fn open_copy(&self, copy: &Stored) -> io::Result<OwnedFd> {
        let (dir, name, _) = self.locate(copy)?;
        Ok(rustix::fs::openat(&dir, name, FILE, Mode::empty())?)
    }

    /// Opens the directory that contains `stored`, and returns it with the file's name and a new observation of the
    /// file. Each directory on the path must belong to orphand's user alone, and the file must still be the same
    /// regular file.
    pub(super) fn locate<'s>(
        &self,
        stored: &'s Stored,
    ) -> io::Result<(OwnedFd, &'s OsStr, Observation)> {
        let at = self.open_ours(&stored.folder_name, stored.original_dir())?;
        let seen = observe(at.as_fd(), stored.name())?;
        match seen.fingerprint.kind == Kind::File && is_same(&seen, &stored.seen) {
            true => Ok((at, stored.name(), seen)),
            false => Err(Errno::NOENT.into()),
        }
    }

    /// Restores `stored` as `name` in `to`, without overwriting anything. Calls `mark` with the open file before the
    /// file has its name back. If `to` is on another file system, the file is copied, the copy is compared, and the
    /// original is removed, if it is proven that no process uses it.
    pub fn restore(
        &self,
        stored: &Stored,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl Fn(BorrowedFd<'_>, &Observation),
        policy: &Policy,
    ) -> io::Result<Observation> {
        let (dir, stored_name, seen) = self.locate(stored)?;
        check_neighbors(to, &policy.names, &[name.to_owned()])?;
        let copy = || {
            let copied = self.copy_and_remove(&[stored], to, &[name.to_owned()], &mark, policy);
            copied.map(|()| seen).map_err(|failure| failure.error)
        };
        let device =
            |dir: BorrowedFd<'_>| Ok::<_, io::Error>(dir::observe_fd(dir)?.fingerprint.dev);
        if device(dir.as_fd())? != device(to)? {
            return copy();
        }
        // A user who may not read the file can still restore it, but without the mark.
        if let Ok(file) = open_to_read(dir.as_fd(), stored_name) {
            mark(file.as_fd(), &seen);
        }
        match calls::rename(dir.as_fd(), stored_name, to, name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return copy(),
            moved => moved?,
        }
        drop(dir);
        self.remove_empty(&stored.folder_name, stored.original_dir());
        Ok(seen)
    }

    /// Returns the id of the directory that `stored` was moved from, if it was recorded. It is empty for the root,
    /// which contains the quarantine.
    pub(crate) fn origin_of(&self, stored: &Stored) -> Option<Vec<u8>> {
        if stored.original_dir().as_os_str().is_empty() {
            return Some(Vec::new());
        }
        let path = Path::new(&stored.folder_name).join(stored.original_dir());
        let inner = self.open_inner(&path).ok()?;
        let recorded = evidence::read_mark(inner.as_fd(), evidence::ORIGIN).ok()?;
        recorded.filter(|id| !id.is_empty())
    }

    /// Deletes `stored` permanently.
    pub fn purge(&self, stored: &Stored) -> io::Result<()> {
        let (dir, name, _) = self.locate(stored)?;
        calls::unlink(dir.as_fd(), name)?;
        drop(dir);
        self.remove_empty(&stored.folder_name, stored.original_dir());
        Ok(())
    }
}

/// Returns the id of `dir` that [`Quarantine::origin_of`] returns for the files that were moved from it.
pub(crate) fn origin_id(dir: &Dir) -> Option<Vec<u8>> {
    match dir.below().as_os_str().is_empty() {
        true => Some(Vec::new()),
        false => dir.id().inode().map(String::into_bytes),
    }
}

/// The files in a quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredSum {
    /// Their number.
    pub files: u64,
    /// The sum of their sizes.
    pub size: FileSize,
}

impl StoredSum {
    /// Returns the files in the quarantine of `root`: none if there is no quarantine, or if it cannot be read.
    #[must_use]
    pub fn in_root(root: &Path) -> StoredSum {
        let quarantine = Quarantine::open_existing(root, None).ok().flatten();
        let sum = quarantine.and_then(|quarantine| quarantine.sum().ok());
        sum.unwrap_or_default()
    }
}

impl Quarantine {
    /// Returns the number and the sizes of all files.
    ///
    /// # Errors
    ///
    /// The quarantine cannot be read.
    pub fn sum(&self) -> io::Result<StoredSum> {
        let stored = self.stored()?;
        let sizes = stored.iter().map(|one| one.seen.size());
        Ok(StoredSum {
            files: stored.len() as u64,
            size: sizes.fold(FileSize::default(), FileSize::plus),
        })
    }
}

impl Stored {
    /// Returns the time of the move. The rename set the file's `ctime`, and nothing else has changed it since.
    #[must_use]
    pub fn since(&self) -> Wall {
        self.seen.fingerprint.ctime
    }

    /// Returns the time when its folder was created, if it is known. The file was not moved earlier.
    pub(crate) fn folder_since(&self) -> Option<Wall> {
        Stamp::parse(&self.folder_name).and_then(Stamp::since)
    }

    /// Reports whether no clock was set since its folder was created, as far as that is known.
    pub(crate) fn is_steady(&self, now: Now) -> bool {
        Stamp::parse(&self.folder_name).is_some_and(|stamp| stamp.is_steady(now))
    }

    /// Returns its present path, relative to the root.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.folder_name).join(&self.below)
    }

    /// Returns its original directory, relative to the root.
    pub(crate) fn original_dir(&self) -> &Path {
        self.below.parent().unwrap_or(Path::new(""))
    }

    /// Returns the name of its folder. All its files of one original directory come from the same directory.
    pub(crate) fn folder_name(&self) -> &str {
        &self.folder_name
    }

    /// Reports whether it is, or was, a member of a set.
    pub(crate) fn is_of_set(&self) -> bool {
        Stamp::is_of_set(&self.folder_name)
    }

    /// Reports whether it may supersede other files, or be superseded: it is no set, and its name alone shows its target.
    pub(crate) fn may_be_of_group(&self) -> bool {
        let is_longest = rule!("longest-name-is-of-no-group", self.has_longest_name());
        rule!("set-is-of-no-group", !self.is_of_set(), without: true) && !is_longest
    }

    /// Reports whether another file showed at its move that its target may have a longer name.
    #[must_use]
    pub fn has_longest_name(&self) -> bool {
        self.moved_as() == Some(MovedAs::LongestName)
    }

    /// Reports whether its target counted when it was moved.
    pub(crate) fn had_target(&self) -> bool {
        self.moved_as() == Some(MovedAs::TargetCounted)
    }

    /// Returns the reason for its move. `None` if its folder has a name of an old form, which does not show it.
    fn moved_as(&self) -> Option<MovedAs> {
        Stamp::parse(&self.folder_name).map(Stamp::moved_as)
    }

    /// Returns its base name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.below.file_name().unwrap_or_default()
    }
}

/// Sorts the files, the oldest first.
fn sort_by_age(stored: &mut [Stored]) {
    sort_by(stored, |a, b| (a.since(), &a.id).cmp(&(b.since(), &b.id)));
}

/// Reports whether `id` has the form of older versions: a letter that is not a hexadecimal digit, so that it cannot be
/// a date or a number, and seven hexadecimal digits.
pub(super) fn is_old_id(id: &str) -> bool {
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

/// Opens a stored file to mark or copy it. Another orphand may lease it at the moment, to prove that it is unused. This
/// attempt makes it release the file.
pub(super) fn open_to_read(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    const LONGEST: Duration = Duration::from_secs(5);
    let end = Instant::now() + LONGEST;
    loop {
        match rustix::fs::openat(dir, name, FILE, Mode::empty()) {
            Err(Errno::AGAIN) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Reports whether both are the same file, changed or not.
fn is_same(now: &Observation, before: &Observation) -> bool {
    FileId::from(&now.fingerprint) == FileId::from(&before.fingerprint)
}
