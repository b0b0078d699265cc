//! The locks that let only one orphand process work on a root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::core::exclude::Exclude;
use crate::core::policy::Policy;
use crate::fs::dir::{Dir, RootId};
use crate::fs::response;
use crate::fs::root::Root;
use crate::store::regular_file::open_own;
use crate::sys::mutex::guard;

/// The lock on one root. The kernel releases it when the process ends for any reason.
///
/// The lock file contains the root, so that no other process works on a root that overlaps with it. The roots of one
/// process may overlap.
#[derive(Debug)]
pub struct RootLock {
    file: File,
    path: PathBuf,
}

/// A lock that a running process holds.
#[derive(Clone, Debug)]
pub struct LockHolder {
    /// The pid of the process, if it could be read.
    pub pid: Option<u32>,
    /// It is this process.
    pub is_ours: bool,
    /// The directory, by its path without symlinks, and the reach of the rule below it. `None` if they could not be
    /// read.
    pub root: Option<Root>,
}

/// Another orphand process uses a root, or a directory that overlaps with it.
#[derive(Debug, thiserror::Error)]
#[error("{}", busy_message(.root, .other))]
pub struct RootBusy {
    /// The root.
    pub root: PathBuf,
    /// The process that holds the other lock.
    pub other: LockHolder,
}

/// The reason for which a root cannot be locked.
#[derive(Debug, thiserror::Error)]
enum LockError {
    /// Another orphand process works on it, or on a root that overlaps with it.
    #[error("another orphand process works on it")]
    Busy(LockHolder),
    /// The lock cannot be created. The lock only prevents two orphand processes from doing the same work; safety does
    /// not depend on it.
    #[error("cannot create its lock {path:?}: {error}")]
    Unavailable {
        /// The path of the lock file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
}

/// The paths of the lock files that this process holds.
static OWN_LOCKS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Locks roots in one folder. From its first lock on, and while it exists, no other process locks a root there.
#[derive(Debug)]
pub struct Locker {
    /// `None`: roots are not locked.
    runtime: Option<PathBuf>,
    /// Read once for all roots, and only if a lock is needed.
    folder: Option<LockFolder>,
}

/// The folder of the locks.
#[derive(Debug)]
struct LockFolder {
    runtime: PathBuf,
    /// The folder, which has a lock of its own. `None` if it could not be locked.
    _folder_lock: Option<File>,
    /// The locks of other processes. `None` until they are read.
    others: Option<Vec<LockHolder>>,
}

/// The longest wait for another process that is locking its roots.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// More bytes than a lock file has.
const MAX_LOCK_SIZE: u64 = 1 << 20;

impl Locker {
    /// Locks roots in the folder `runtime`. Without a folder, it locks none.
    #[must_use]
    pub fn new(runtime: Option<&Path>) -> Locker {
        Locker {
            runtime: runtime.map(Path::to_owned),
            folder: None,
        }
    }

    /// Locks `root` if it exists and can be locked. A root whose rule only reports needs no lock. Returns an error if
    /// another process uses the root, or a directory that overlaps with it.
    pub fn lock(&mut self, root: &Root) -> Result<Option<RootLock>, RootBusy> {
        // A root that does not respond is locked once it responds.
        if root.policy.is_dry_run() || !response::responds(&root.path) {
            return Ok(None);
        }
        let (Some(runtime), Ok(id)) = (&self.runtime, RootId::of(&root.path)) else {
            return Ok(None);
        };
        let folder = self.folder.get_or_insert_with(|| LockFolder::new(runtime));
        let path = &root.path;
        match folder.lock(root, id) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Busy(other)) => Err(RootBusy {
                root: path.clone(),
                other,
            }),
            Err(error) => {
                log::warn!("cannot lock {path:?}: {error}; continuing without a lock");
                Ok(None)
            }
        }
    }
}

fn busy_message(root: &Path, other: &LockHolder) -> String {
    // The same directory was given by another path, through a bind mount.
    if other.is_ours {
        let other = other.root.as_ref().map_or(root, |other| &other.path);
        return format!(
            "{root:?} and {other:?} are the same directory; give only one of these paths"
        );
    }
    let pid = other.pid.map(|pid| format!(" (pid {pid})"));
    let pid = pid.unwrap_or_default();
    let path = other.root.as_ref().map(|root| &root.path);
    match path.filter(|path| !is_same(path, root)) {
        None => format!("another orphand process{pid} works on {root:?}"),
        Some(path) => {
            format!("another orphand process{pid} works on {path:?}, which overlaps with {root:?}")
        }
    }
}

fn is_same(path: &Path, root: &Path) -> bool {
    path == root
        || (response::responds(root) && fs::canonicalize(root).is_ok_and(|root| root == path))
}

impl LockFolder {
    /// Creates and locks the folder `runtime`.
    fn new(runtime: &Path) -> LockFolder {
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(runtime);
        LockFolder {
            _folder_lock: created.ok().and_then(|()| lock_folder(runtime)),
            runtime: runtime.to_owned(),
            others: None,
        }
    }

    /// Locks `root`, whose directory has the id `id`.
    fn lock(&mut self, root: &Root, id: RootId) -> Result<RootLock, LockError> {
        let path = self
            .runtime
            .join(format!("{PREFIX}{:x}-{:x}{SUFFIX}", id.dev, id.ino));
        let unavailable = |error| LockError::Unavailable {
            path: path.clone(),
            error,
        };
        let root = Root {
            path: fs::canonicalize(&root.path).unwrap_or_else(|_| root.path.clone()),
            policy: Arc::clone(&root.policy),
        };
        let lock = loop {
            let options = File::options()
                .read(true)
                .write(true)
                .create(true)
                .to_owned();
            let mut file = open_own(options, &path).map_err(unavailable)?;
            let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            match rule!("one-orphand-per-root", locked, without: Ok(())) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let is_ours = own_locks().contains(&path);
                    return Err(LockError::Busy(LockHolder {
                        is_ours,
                        ..read_lock_file(file)
                    }));
                }
                Err(error) => return Err(unavailable(error.into())),
            }
            // The previous holder may have removed the file between our open and our lock.
            let opened = file.metadata().map_err(unavailable)?.ino();
            if fs::metadata(&path).map(|current| current.ino()).ok() != Some(opened) {
                continue;
            }
            // On a full disk the content cannot be written. The lock holds without it.
            let _ = file.set_len(0);
            let _ = file.rewind();
            let _ = file.write_all(&lock_content(&root));
            own_locks().insert(path.clone());
            break RootLock { file, path };
        };
        // RACE: if another process does not release the lock of the folder, two processes may lock overlapping roots
        // at the same time. Each already holds its own lock, so at least one of them sees the other. If both do,
        // neither begins. Worst case, if the content of the other lock was not written yet: both process the same
        // directory. The protocol allows for that; the work is done twice.
        let others = self
            .others
            .get_or_insert_with(|| other_holders(&self.runtime));
        let overlaps = |held: &&LockHolder| {
            held.root
                .as_ref()
                .is_some_and(|other| overlap(other, &root))
        };
        match others.iter().find(overlaps) {
            Some(held) => Err(LockError::Busy(held.clone())),
            None => Ok(lock),
        }
    }
}

const PREFIX: &str = "root-";
const SUFFIX: &str = ".lock";

/// Returns the locks of other running processes in the folder `runtime`. Creates nothing.
#[must_use]
pub fn lock_holders(runtime: &Path) -> Vec<LockHolder> {
    // Testing a lock holds it for a moment. The lock of the folder prevents another process from finding it held.
    let _folder_lock = lock_folder(runtime);
    other_holders(runtime)
}

/// Locks the folder. Returns `None` if this fails, or if another process holds the lock for longer than [`MAX_WAIT`].
fn lock_folder(runtime: &Path) -> Option<File> {
    let folder = File::open(runtime).ok()?;
    let end = Instant::now() + MAX_WAIT;
    loop {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(Errno::WOULDBLOCK) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return None,
        }
    }
}

fn other_holders(runtime: &Path) -> Vec<LockHolder> {
    let entries = fs::read_dir(runtime).into_iter().flatten().flatten();
    let is_lock = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(is_lock_name) && !own_locks().contains(path)
    };
    let held = |path: PathBuf| {
        let file = open_own(File::options().read(true).to_owned(), &path).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            // The process that held it was killed.
            Ok(()) => None,
            Err(Errno::WOULDBLOCK) => Some(read_lock_file(file)),
            Err(_) => None,
        }
    };
    entries
        .map(|entry| entry.path())
        .filter(is_lock)
        .filter_map(held)
        .collect()
}

/// Reports whether a file with this name is the lock on a root.
#[must_use]
pub fn is_lock_name(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

fn own_locks() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    guard(&OWN_LOCKS)
}

/// Reports whether any directory is covered by both rules. Their paths must not contain symlinks.
#[must_use]
pub fn overlap(one: &Root, other: &Root) -> bool {
    covers(one, other) || covers(other, one)
}

fn covers(above: &Root, root: &Root) -> bool {
    match above.below(&root.path) {
        None => false,
        Some(below) if below.as_os_str().is_empty() => true,
        // A rule does not enter a directory on another mount. An unknown result counts as an overlap.
        Some(below) => match Dir::open_below(&above.path, None, below) {
            Ok(_) => true,
            Err(error) => !error.is_missing(),
        },
    }
}

/// Returns the content of the lock file of `root`: pid, depth, path and excluded globs, separated by NUL.
fn lock_content(root: &Root) -> Vec<u8> {
    let depth = match root.policy.recursive {
        true => DEEP,
        false => FLAT,
    };
    let pid = std::process::id().to_string();
    let mut parts = vec![pid.as_bytes(), depth, root.path.as_os_str().as_bytes()];
    parts.extend(root.policy.exclude.globs().map(str::as_bytes));
    parts.join(&0)
}

const DEEP: &[u8] = b"recursive";
const FLAT: &[u8] = b"flat";

/// Parses the content of a lock file.
#[must_use]
pub fn read_lock_file(file: File) -> LockHolder {
    let mut bytes = Vec::new();
    let _ = file.take(MAX_LOCK_SIZE).read_to_end(&mut bytes);
    let mut parts = bytes.split(|byte| *byte == 0);
    let pid = parts.next().and_then(|pid| std::str::from_utf8(pid).ok());
    LockHolder {
        pid: pid.and_then(|pid| pid.trim().parse().ok()),
        is_ours: false,
        root: read_root(parts),
    }
}

fn read_root<'a>(mut parts: impl Iterator<Item = &'a [u8]>) -> Option<Root> {
    let depth = parts.next().filter(|depth| [DEEP, FLAT].contains(depth))?;
    let path = PathBuf::from(OsStr::from_bytes(parts.next()?));
    let globs: Result<Vec<&str>, _> = parts.map(std::str::from_utf8).collect();
    let policy = Policy {
        recursive: depth == DEEP,
        exclude: Exclude::new(&globs.ok()?).ok()?,
        ..Policy::default()
    };
    Some(Root {
        path,
        policy: Arc::new(policy),
    })
}

impl Drop for RootLock {
    fn drop(&mut self) {
        own_locks().remove(&self.path);
        // The file is removed before it is unlocked. Another process may then lock a file without a name, and `lock`
        // notices that.
        let _ = fs::remove_file(&self.path);
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    fn root(path: &Path, recursive: bool, exclude: &[&str]) -> Root {
        let policy = Policy {
            recursive,
            exclude: Exclude::new(exclude).unwrap(),
            ..Policy::default()
        };
        Root {
            path: fs::canonicalize(path).unwrap(),
            policy: Arc::new(policy),
        }
    }

    #[test]
    fn a_held_lock_names_its_holder_and_is_free_afterwards() {
        let runtime = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path(), true, &["a/**", "b"]);
        let id = RootId::of(&root.path).unwrap();
        let first = LockFolder::new(runtime.path()).lock(&root, id).unwrap();
        match LockFolder::new(runtime.path()).lock(&root, id) {
            Err(LockError::Busy(held)) => {
                assert_eq!(held.pid, Some(std::process::id()));
                let seen = held.root.unwrap();
                assert_eq!(seen.path, root.path);
                assert!(seen.policy.recursive);
                assert_eq!(seen.policy.exclude.to_string(), "a/**, b");
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        let again = LockFolder::new(runtime.path()).lock(&root, id);
        assert!(again.is_ok(), "{again:?}");
        drop(again);
        assert_eq!(
            fs::read_dir(runtime.path()).unwrap().count(),
            0,
            "no lock file is left"
        );
    }

    #[test]
    fn rules_overlap_if_both_cover_a_directory() {
        let base = tempfile::tempdir().unwrap();
        let path = |below: &str| base.path().join(below);
        fs::create_dir_all(path("in/deep")).unwrap();
        fs::create_dir_all(path("in-side")).unwrap();
        fs::create_dir_all(path(".orphand/x")).unwrap();
        let above = |recursive, exclude: &[&str]| root(base.path(), recursive, exclude);
        let below = |path_below: &str| root(&path(path_below), false, &[]);
        for (one, other, want) in [
            (above(false, &[]), above(false, &[]), true),
            (above(false, &[]), below("in"), false),
            (above(true, &[]), below("in"), true),
            (above(true, &[]), below("in/deep"), true),
            (above(true, &["in/**"]), below("in"), false),
            (above(true, &["in/**"]), below("in/deep"), false),
            (above(true, &["in/**"]), below("in-side"), true),
            (above(true, &["deep"]), below("in"), true),
            (above(true, &[]), below(".orphand/x"), false),
            (root(&path("in"), true, &[]), below("in-side"), false),
        ] {
            assert_eq!(overlap(&one, &other), want, "{one:?} {other:?}");
            assert_eq!(overlap(&other, &one), want, "{other:?} {one:?}");
        }
    }

    /// Another version may have written the file, and on a full disk it may be empty.
    #[test]
    fn a_lock_file_may_contain_only_a_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for (text, pid) in [
            (&b""[..], None),
            (b"4711", Some(4711)),
            (b"4711\0recursive", Some(4711)),
            (b"\xff\0flat\0/a\0[", None),
        ] {
            fs::write(&path, text).unwrap();
            let held = read_lock_file(File::open(&path).unwrap());
            assert_eq!(held.pid, pid);
            assert!(held.root.is_none(), "{text:?}");
        }
    }
}
