//! The quarantine: `.orphand/` in the root, mode 0700, for what may not be destroyed.
//!
//! A file lies there as `.orphand/<id>/<its path below the root>`, with the bytes, mode, owner and
//! times that it had. Where it came from is told by that path alone. The folder is made when it is
//! needed and removed when it is empty. It must be ours and closed to everybody else; otherwise
//! there is no quarantine in this root.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir as Entries, Mode, OFlags};
use rustix::io::Errno;

use super::calls;
use crate::clock;
use crate::decide::judge::Reach;
use crate::decide::observation::{Fingerprint, Hold, Kind, Observation};
use crate::decide::policy::Policy;
use crate::decide::retention::{self, Better, Entry, Limits, Trust};
use crate::decide::time::Wall;
use crate::event::{Event, Subject};
use crate::evidence::{self, Asker, Compared, FileId};
use crate::journal::{Journal, Line};
use crate::json;
use crate::look::{self, Dir, RootError, RootId};
use crate::root::Root;

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

/// How deep below its id a quarantined file may lie. A walk goes no deeper.
const DEEPEST: usize = 256;

/// The quarantine of one root, open.
#[derive(Debug)]
pub struct Room {
    root: Dir,
    fd: OwnedFd,
}

/// A place in a quarantine that one file may be moved to.
#[derive(Debug)]
pub struct Slot {
    room: Arc<Room>,
    id: String,
    /// The folders below the id.
    below: PathBuf,
    folder: OwnedFd,
    kept: bool,
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
    seen.fingerprint.kind == Kind::Dir
        && seen.fingerprint.uid == rustix::process::geteuid().as_raw()
        && seen.mode & 0o077 == 0
        && seen.fingerprint.dev == root.id().dev
        && seen.mount == root.place().mount
        && !seen.mount_root
}

impl Room {
    /// Opens the quarantine of the root at `root`; makes it where there is none.
    pub fn make(root: &Path, id: Option<RootId>) -> Result<Room, RootError> {
        let root = Dir::open_root(root, id)?;
        match calls::make_dir(root.fd(), OsStr::new(FOLDER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error.into()),
            _ => Room::adopt(root),
        }
    }

    /// Opens the quarantine of the root at `root`, if there is one.
    pub fn find(root: &Path, id: Option<RootId>) -> Result<Option<Room>, RootError> {
        let root = Dir::open_root(root, id)?;
        match Room::adopt(root) {
            Ok(room) => Ok(Some(room)),
            Err(RootError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn adopt(root: Dir) -> Result<Room, RootError> {
        let fd = open_dir(root.fd(), OsStr::new(FOLDER))?;
        let seen = look::observe_fd(fd.as_fd())?;
        if !is_ours(&root, &seen) {
            return Err(RootError::Io(Errno::PERM.into()));
        }
        Ok(Room { root, fd })
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

    /// Makes a place for one file that lies in the directory `below` the root.
    pub fn slot(self: &Arc<Room>, below: &Path) -> io::Result<Slot> {
        // What lies deeper would never be found again.
        if below.components().count() + 1 >= DEEPEST {
            return Err(Errno::NAMETOOLONG.into());
        }
        for _ in 0..8 {
            let id = new_id();
            match calls::make_dir(self.fd.as_fd(), OsStr::new(&id)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // From here on what was made is removed again if this fails half-way.
            let mut slot = Slot {
                folder: open_dir(self.fd.as_fd(), OsStr::new(&id))?,
                room: Arc::clone(self),
                id,
                below: PathBuf::new(),
                kept: false,
            };
            for part in below.components() {
                let Component::Normal(name) = part else {
                    return Err(Errno::INVAL.into());
                };
                calls::make_dir(slot.folder(), name)?;
                slot.below.push(name);
                slot.folder = open_dir(slot.folder(), name)?;
            }
            return Ok(slot);
        }
        Err(Errno::EXIST.into())
    }

    /// Removes the empty folders that a crash left between making a place and using it. Nobody else
    /// may be at work in this root.
    pub fn tidy(&self) {
        for id in names(self.fd.as_fd()).unwrap_or_default() {
            let Some(id) = id.to_str().filter(|id| is_new_id(id)) else {
                continue;
            };
            let mut below = PathBuf::new();
            while below.components().count() < DEEPEST {
                let at = self.open_inner(&PathBuf::from(id).join(&below));
                let inside = at.and_then(|at| names(at.as_fd())).unwrap_or_default();
                match inside.as_slice() {
                    [] => break,
                    [one, ..] => below.push(one),
                }
            }
            // Whatever is not an empty folder stays.
            self.clear(id, &below);
        }
    }

    fn open_inner(&self, inner: &Path) -> io::Result<OwnedFd> {
        inner
            .components()
            .try_fold(self.fd.try_clone()?, |fd, part| {
                open_dir(fd.as_fd(), part.as_os_str())
            })
    }

    /// Everything that lies in it. What cannot be read is passed over.
    pub fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for id in names(self.fd.as_fd())? {
            let Some(id) = id.to_str().filter(|id| is_new_id(id)).map(str::to_owned) else {
                continue;
            };
            if let Ok(Some((below, _, seen))) = self.find_file(&id) {
                stored.push(Stored { id, below, seen });
            }
        }
        stored.sort_by(|a, b| (a.since(), &a.id).cmp(&(b.since(), &b.id)));
        Ok(stored)
    }

    /// The one file below `id`: its way from the root, the folder it lies in, and what it is.
    fn find_file(&self, id: &str) -> io::Result<Option<(PathBuf, OwnedFd, Observation)>> {
        let mut folder = open_dir(self.fd.as_fd(), OsStr::new(id))?;
        let mut below = PathBuf::new();
        for _ in 0..DEEPEST {
            // One name in each folder, each folder ours alone: anything else was not put here by us.
            let folder_is = look::observe_fd(folder.as_fd())?;
            let mut names = names(folder.as_fd())?;
            let (Some(name), true) = (names.pop(), is_ours(&self.root, &folder_is)) else {
                return Ok(None);
            };
            if !names.is_empty() {
                return Ok(None);
            }
            let seen = observe(folder.as_fd(), &name)?;
            below.push(&name);
            match seen.fingerprint.kind {
                Kind::Dir => folder = open_dir(folder.as_fd(), &name)?,
                Kind::File => return Ok(Some((below, folder, seen))),
                Kind::Symlink | Kind::Other => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Brings the file `id` back to `name` in `to`, overwriting nothing. `mark` is called with the
    /// open file before it has its name back.
    pub fn restore(
        &self,
        id: &str,
        to: BorrowedFd<'_>,
        name: &OsStr,
        mark: impl FnOnce(BorrowedFd<'_>, &Observation),
    ) -> io::Result<Observation> {
        let (below, folder, seen) = self.find_file(id)?.ok_or(Errno::NOENT)?;
        let stored = below.file_name().ok_or(Errno::NOENT)?;
        // Who may not read it can still have it back, without the mark.
        if let Ok(file) = rustix::fs::openat(&folder, stored, FILE, Mode::empty()) {
            mark(file.as_fd(), &seen);
        }
        calls::rename(folder.as_fd(), stored, to, name)?;
        drop(folder);
        self.clear(id, below.parent().unwrap_or(Path::new("")));
        Ok(seen)
    }

    /// Whether it is proven that nobody holds `one`, and it is still what it was.
    fn is_proven_unused(&self, one: &Stored, policy: &Policy, asker: &Asker) -> bool {
        let Ok(Some((below, folder, seen))) = self.find_file(&one.id) else {
            return false;
        };
        let Some(name) = below.file_name() else {
            return false;
        };
        let Ok(file) = rustix::fs::openat(&folder, name, FILE, Mode::empty()) else {
            return false;
        };
        let (hold, proof) = asker.ask(file);
        let same = look::observe_fd(proof.file()).is_ok_and(|now| now == seen && now == one.seen);
        let file = FileId::from(&seen.fingerprint);
        let reach = self.root.reach();
        let seen_whole = match reach {
            Reach::Whole => true,
            Reach::OpenersOnly => evidence::census(&[file], reach).clears(file),
            Reach::Unknown => self.root.place().has_proof(policy),
        };
        hold == Hold::Free && same && seen_whole && proof.again() == Hold::Free
    }

    /// How much of the file system `one` takes, bytes; 0 if that cannot be told.
    fn allocated(&self, one: &Stored) -> u64 {
        const BLOCK: u64 = 512;
        let stat = |(below, folder, _): (PathBuf, OwnedFd, Observation)| {
            rustix::fs::statat(
                folder,
                below.file_name()?,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .ok()
        };
        let stat = self.find_file(&one.id).ok().flatten().and_then(stat);
        let blocks = stat.and_then(|stat| u64::try_from(stat.st_blocks).ok());
        blocks.unwrap_or(0).saturating_mul(BLOCK)
    }

    /// Deletes the file `id` for good.
    pub fn purge(&self, id: &str) -> io::Result<Stored> {
        let (below, folder, seen) = self.find_file(id)?.ok_or(Errno::NOENT)?;
        let name = below.file_name().ok_or(Errno::NOENT)?;
        calls::unlink(folder.as_fd(), name)?;
        drop(folder);
        self.clear(id, below.parent().unwrap_or(Path::new("")));
        let id = id.to_owned();
        Ok(Stored { id, below, seen })
    }

    /// Removes the empty folders of `id`, from the innermost outwards.
    fn clear(&self, id: &str, below: &Path) {
        let mut at = PathBuf::from(id).join(below);
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

impl Drop for Room {
    /// An empty quarantine goes away. Where another orphand is just about to use it, that one's
    /// next call says ENOENT, and its temp stays.
    fn drop(&mut self) {
        let _ = calls::remove_empty_dir(self.root.fd(), OsStr::new(FOLDER));
    }
}

impl Slot {
    /// The folder that the file is to be moved into, under its own name.
    #[must_use]
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// What stands at `name` in it.
    pub fn observe(&self, name: &OsStr) -> io::Result<Option<Observation>> {
        match observe(self.folder(), name) {
            Ok(seen) => Ok(Some(seen)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its file is to stay. The id.
    #[must_use]
    pub fn keep(mut self) -> String {
        self.kept = true;
        std::mem::take(&mut self.id)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.kept {
            self.room.clear(&self.id, &self.below);
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

/// What it takes to keep a quarantine within its limits.
#[derive(Clone, Copy, Debug)]
pub struct Keeping<'a> {
    /// How much it may keep.
    pub limits: Limits,
    /// Where each drop is written down, before and after.
    pub journal: &'a Journal,
    /// Proves that nobody holds what is dropped.
    pub asker: &'a Asker,
    /// How far dates can be trusted.
    pub trust: Trust,
}

/// Drops from the quarantine of `root` what is overdue, and says what that was.
///
/// Some of it may have been moved here *because* nobody could prove that it is unused, or though it
/// was in use: so nothing is dropped but under the same proof as any other removal.
pub fn tend(root: &Root, id: Option<RootId>, keeping: Keeping<'_>) -> Vec<Event> {
    let Ok(Some(room)) = Room::find(&root.path, id) else {
        return Vec::new();
    };
    let Ok(stored) = room.stored() else {
        return Vec::new();
    };
    let is_whole = |one: &Stored| has_whole_target(root, id, one);
    let entries: Vec<Entry> = stored
        .iter()
        .map(|one| match is_whole(one) {
            // Its target is what makes it dispensable, whatever it takes itself.
            true => entry(root, one, true, 0),
            false => entry(root, one, false, room.allocated(one)),
        })
        .collect();
    let size = rustix::fs::fstatvfs(room.root.fd());
    let size = size.map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
    let mut events = Vec::new();
    let overdue = retention::overdue(&entries, keeping.limits, clock::wall(), keeping.trust, size);
    let by_id: HashMap<&OsStr, &Stored> = stored
        .iter()
        .map(|one| (OsStr::new(&one.id), one))
        .collect();
    for (one, better) in overdue {
        let Some(one) = by_id.get(one.id.as_os_str()) else {
            continue;
        };
        if !room.is_proven_unused(one, &root.policy, keeping.asker) {
            continue;
        }
        // What was a second copy when this began is the last one if the better one has gone meanwhile, or is
        // one that somebody may still change.
        // RACE: that may go between this look and the removal; worst case: both are gone. And who opens the
        // one that goes, by its path in here, which only we can, loses its name.
        let is_there = match better {
            Better::Target => is_whole(one),
            Better::Copy(newer) => by_id
                .get(newer.as_os_str())
                .is_some_and(|copy| room.is_proven_unused(copy, &root.policy, keeping.asker)),
        };
        if !is_there {
            continue;
        }
        let event = purged(root.path.as_path(), one);
        let line = |event: &Event| json::event(event, clock::wall());
        keeping.journal.write(Line::Intent, &[line(&event)]);
        if room.purge(&one.id).is_ok() {
            keeping.journal.write(Line::Outcome, &[line(&event)]);
            events.push(event);
        }
    }
    events
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

/// Whether its target stands, with content.
fn has_whole_target(root: &Root, id: Option<RootId>, stored: &Stored) -> bool {
    let (folder, reading) = (stored.folder(), root.policy.names.read(stored.name()));
    let temp = Compared {
        seen: &stored.seen,
        file: None,
    };
    let target = Dir::open_below(&root.path, id, folder)
        .and_then(|dir| Ok(evidence::target(&dir, &root.policy, &reading, temp)?));
    target.is_ok_and(|found| found.target.counts())
}

/// What the limits need to know of a stored file.
fn entry(root: &Root, stored: &Stored, target_whole: bool, allocated: u64) -> Entry {
    let name = stored.name();
    let reading = root.policy.names.read(name);
    // The longest that could be meant: what stands under a shorter name is no copy of that.
    let target_name = evidence::target_name(&reading, Some(0)).unwrap_or(name);
    Entry {
        id: stored.id.clone().into(),
        below: stored.below.clone(),
        bytes: stored.seen.fingerprint.size,
        allocated,
        since: stored.since(),
        written: written(&stored.seen.fingerprint),
        pid: reading.pid,
        uid: stored.seen.fingerprint.uid,
        copy_of: stored.folder().join(target_name),
        target_whole,
    }
}

/// The newest date of a file that moving it does not change.
fn written(seen: &Fingerprint) -> Wall {
    seen.btime.map_or(seen.mtime, |born| born.max(seen.mtime))
}

/// A letter that is no hexadecimal digit, so that it is no date and no number, and seven digits of
/// hexadecimal, drawn at random.
fn new_id() -> String {
    format!("q{:07x}", super::random() & 0x0FFF_FFFF)
}

/// Whether `id` is of the form that [`Room::slot`] gives.
fn is_new_id(id: &str) -> bool {
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
            let find = Room::find(&path, None).ok();
            assert_eq!(find.map(|room| room.is_some()), found, "{what}");
        }
    }

    #[test]
    fn no_place_is_made_that_would_not_be_found_again() {
        let (_folder, path) = folder();
        let room = Arc::new(Room::make(&path, None).unwrap());
        let deep = |parts: usize| PathBuf::from_iter(vec!["d"; parts]);
        let error = room.slot(&deep(DEEPEST - 1)).expect_err("too deep");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::NAMETOOLONG));

        let slot = room.slot(&deep(DEEPEST - 2)).unwrap();
        let made = rustix::fs::openat(
            slot.folder(),
            "a.tmp",
            OFlags::CREATE | OFlags::WRONLY,
            Mode::RUSR,
        );
        drop(made.unwrap());
        let id = slot.keep();
        let stored = room.stored().unwrap();
        let found: Vec<_> = stored.iter().map(|one| (&one.id, &one.below)).collect();
        assert_eq!(found, [(&id, &deep(DEEPEST - 2).join("a.tmp"))]);
    }

    #[test]
    fn where_the_folder_is_gone_there_is_no_place() {
        let (_folder, path) = folder();
        let room = Arc::new(Room::make(&path, None).unwrap());
        fs::remove_dir(path.join(FOLDER)).unwrap();
        let error = room.slot(Path::new("")).expect_err("no folder");
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
            assert_eq!((is_new_id(id), is_id(id)), (given, possible), "{id:?}");
        }
        assert!(is_new_id(&new_id()));
    }
}
