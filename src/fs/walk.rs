//! Walks a root in parallel, by directory handles.
//!
//! A scan reads only names; other modules look at the files later. It follows no symlinks, and enters no other mounts
//! or subvolumes and none of orphand's own folders. It keeps a list of the directories still to read instead of a stack
//! of open ones, so the depth of a tree is not limited.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::census::Lookalike;
use crate::core::observation::Kind;
use crate::core::own_names;
use crate::core::own_names::is_own;
use crate::fs::dir::{Buffer, Dir, RootError, RootId};
use crate::fs::dir_queue::DirQueue;
pub use crate::fs::dir_queue::DirResult;
use crate::fs::lookalikes::LookalikeCounter;
use crate::fs::root::Root;
use crate::sys::error;

/// An item that a scan finds, or a step that it makes.
pub enum ScanItem<'a> {
    /// The scan is about to read this directory.
    Dir(&'a Dir),
    /// A name in this directory, of whatever kind. The other items about this name follow it.
    Name(&'a OsStr),
    /// A name in this directory that the rule matches.
    Temp(&'a Dir, &'a OsStr),
    /// A file in this directory that the rule does not take.
    Other(&'a Dir, &'a OsStr),
    /// A directory or special file in this directory, whose name the rule matches. It is never a temp.
    Tree(&'a Dir, &'a OsStr, Kind),
    /// A claim in this directory. A crash left it, or another process is removing that temp now.
    Claim(&'a Dir, &'a OsStr),
    /// The scan has read this directory completely.
    Done(&'a Dir),
    /// This directory cannot be read.
    Denied(&'a Path, &'a io::Error),
    /// This directory is another mount or subvolume, which a scan does not enter.
    NotEntered(&'a Path),
}

/// The largest number of threads of one scan.
const MAX_THREADS: usize = 8;

/// The number of directories in one directory that are read before other threads can take them.
const MAX_UNSHARED: usize = 64;

/// Scans the directory `below`, a path relative to the root, and the directories below it if the rule is recursive.
/// Calls `on_item` from several threads at the same time. The scan ends early once `is_stopped` returns true.
pub fn scan(
    root: &Root,
    id: Option<RootId>,
    below: &Path,
    on_item: &(dyn Fn(ScanItem<'_>) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), RootError> {
    let on_item = |(): &mut (), item: ScanItem<'_>| on_item(item);
    Walk::open(root, id, &on_item, is_stopped)?.read_all(below, &mut |()| {})
}

/// Scans the whole root. Calls `on_item` from several threads at the same time, each with the items of one directory
/// and a value that collects them. Then calls `emit` with these values, one at a time, in the order of the paths of the
/// directories.
pub fn scan_in_order<T: DirResult>(
    root: &Root,
    on_item: &(dyn Fn(&mut T, ScanItem<'_>) + Sync),
    emit: &mut (dyn FnMut(T) + Send),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), RootError> {
    Walk::open(root, None, on_item, is_stopped)?.read_all(Path::new(""), emit)
}

struct Walk<'a, T> {
    root: &'a Root,
    /// The root, which is open during the whole scan. Each directory is opened by its path from the root, so each
    /// thread has only one directory open.
    base: Dir,
    on_item: &'a (dyn Fn(&mut T, ScanItem<'_>) + Sync),
    is_stopped: &'a (dyn Fn() -> bool + Sync),
}

/// A directory that is being read.
struct DirRead<'a, 'e, T> {
    dir: &'a Dir,
    queue: &'a DirQueue<'e, T>,
    result: T,
    /// The directories in it that are not in the queue yet.
    inner: Vec<PathBuf>,
}

impl<'a, T: DirResult> Walk<'a, T> {
    fn open(
        root: &'a Root,
        id: Option<RootId>,
        on_item: &'a (dyn Fn(&mut T, ScanItem<'_>) + Sync),
        is_stopped: &'a (dyn Fn() -> bool + Sync),
    ) -> Result<Walk<'a, T>, RootError> {
        Ok(Walk {
            root,
            base: Dir::open_root(&root.path, id)?,
            on_item,
            is_stopped,
        })
    }

    fn read_all(&self, below: &Path, emit: &mut (dyn FnMut(T) + Send)) -> Result<(), RootError> {
        // If the first directory cannot be opened, this returns the error.
        let first = match below.as_os_str().is_empty() {
            true => self.base.reopen()?,
            false => self.base.open_within(below)?,
        };
        let queue = DirQueue::new(below, emit);
        let result = self.read(&first, &queue, &mut Buffer::default());
        drop(first);
        queue.finish(below.to_owned(), result);
        if !queue.is_done() {
            let threads =
                std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
            std::thread::scope(|scope| {
                for _ in 1..threads {
                    // If no thread can be started, the present thread reads all directories.
                    let thread = std::thread::Builder::new();
                    let _ = thread.spawn_scoped(scope, || self.work(&queue));
                }
                self.work(&queue);
            });
        }
        Ok(())
    }

    fn work(&self, queue: &DirQueue<'_, T>) {
        let mut buffer = Buffer::default();
        while let Some(below) = queue.take() {
            if (self.is_stopped)() {
                queue.stop();
                queue.finish(below, T::default());
                continue;
            }
            let result = match self.base.open_within(&below) {
                Ok(dir) => self.read(&dir, queue, &mut buffer),
                Err(error) => self.not_opened(&below, &error),
            };
            queue.finish(below, result);
        }
    }

    /// Returns the result for a directory that could not be opened.
    fn not_opened(&self, below: &Path, error: &RootError) -> T {
        let mut result = T::default();
        let path = self.root.path.join(below);
        match error {
            RootError::Io(error) if !RootError::is_missing_error(error) => {
                (self.on_item)(&mut result, ScanItem::Denied(&path, error));
            }
            RootError::Io(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                (self.on_item)(&mut result, ScanItem::NotEntered(&path));
            }
            // The directory was removed, or replaced by another file: there is nothing to read.
            _ => {}
        }
        result
    }

    fn read(&self, dir: &Dir, queue: &DirQueue<'_, T>, buffer: &mut Buffer) -> T {
        let mut read = DirRead {
            dir,
            queue,
            result: T::default(),
            inner: Vec::new(),
        };
        (self.on_item)(&mut read.result, ScanItem::Dir(dir));
        match dir.read(buffer, &mut |name, kind| self.entry(&mut read, name, kind)) {
            // The directory was removed while it was read (getdents(2)).
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                (self.on_item)(&mut read.result, ScanItem::Denied(dir.path(), &error));
            }
            Ok(()) => {}
        }
        queue.add(&mut read.inner);
        (self.on_item)(&mut read.result, ScanItem::Done(dir));
        read.result
    }

    fn entry(&self, read: &mut DirRead<'_, '_, T>, name: &OsStr, kind: Option<Kind>) {
        if (self.is_stopped)() {
            return;
        }
        let dir = read.dir;
        (self.on_item)(&mut read.result, ScanItem::Name(name));
        let policy = &self.root.policy;
        if is_own(name) {
            if own_names::parse_claim(name).is_some() {
                (self.on_item)(&mut read.result, ScanItem::Claim(dir, name));
            }
            return;
        }
        // Some file systems do not report the kind in the directory. Then a look at the file returns it.
        let kind = kind.or_else(|| observe_kind(dir, name));
        if let Some(kind @ (Kind::Dir | Kind::Symlink | Kind::Other)) = kind
            && policy.is_temp(dir.below(), name)
        {
            (self.on_item)(&mut read.result, ScanItem::Tree(dir, name, kind));
        }
        match kind {
            Some(Kind::Dir) if rule!("recursion-only-if-set", policy.recursive, without: true) => {
                let below = dir.below().join(name);
                if !policy.exclude.excludes(&below) {
                    rule!(
                        "walk-keeps-a-list",
                        read.add(below),
                        without: drop(dir.open_child(name).map(|dir| {
                            let inner = self.read(&dir, read.queue, &mut Buffer::default());
                            read.queue.finish(below, inner);
                        })),
                    );
                }
            }
            Some(Kind::File) if policy.is_temp(dir.below(), name) => {
                (self.on_item)(&mut read.result, ScanItem::Temp(dir, name));
            }
            Some(Kind::File) => (self.on_item)(&mut read.result, ScanItem::Other(dir, name)),
            _ => {}
        }
    }
}

impl<T: DirResult> DirRead<'_, '_, T> {
    fn add(&mut self, below: PathBuf) {
        self.inner.push(below);
        if self.inner.len() >= MAX_UNSHARED {
            self.queue.add(&mut self.inner);
        }
    }
}

fn observe_kind(dir: &Dir, name: &OsStr) -> Option<Kind> {
    dir.observe(name)
        .ok()
        .flatten()
        .map(|seen| seen.fingerprint.kind)
}

/// Reports whether the root has folders that a scan does not enter only because the rule is not recursive.
#[must_use]
pub fn has_unread_folders(root: &Root) -> bool {
    let policy = &root.policy;
    let dir = match Dir::open_root(&root.path, None) {
        Ok(dir) if !policy.recursive => dir,
        _ => return false,
    };
    let mut is_found = false;
    let is_folder = |name: &OsStr, kind: Option<Kind>| {
        let kind = kind.or_else(|| observe_kind(&dir, name));
        kind == Some(Kind::Dir) && !is_own(name) && !policy.exclude.excludes(Path::new(name))
    };
    let read = dir.read_while(&mut Buffer::default(), &mut |name, kind| {
        is_found = is_folder(name, kind);
        !is_found
    });
    read.is_ok() && is_found
}

/// The temps and claims below a root, grouped by directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Directories that contain temps, as sorted paths relative to the root, each with the names of its temps.
    pub temps: Vec<(PathBuf, Vec<OsString>)>,
    /// Claims, each with its directory as a path relative to the root.
    pub claims: Vec<(PathBuf, OsString)>,
    /// Directories that were not entered because they are other mounts or subvolumes.
    pub not_entered: Vec<PathBuf>,
    /// Directories and special files whose names the rule matches, as paths relative to the root, with their type.
    pub trees: Vec<(PathBuf, Kind)>,
    /// The files whose names look like temps although the rule does not match them. Their directories are relative to
    /// the root.
    pub lookalikes: Vec<Lookalike>,
}

impl Found {
    /// Adds the temp `name` in the directory `below`, a path relative to the root.
    pub fn add(&mut self, below: PathBuf, name: OsString) {
        match self.temps.binary_search_by(|(known, _)| known.cmp(&below)) {
            Ok(at) => self.temps[at].1.push(name),
            Err(at) => self.temps.insert(at, (below, vec![name])),
        }
    }
}

/// The items of one directory.
#[derive(Default)]
struct FoundInDir {
    below: PathBuf,
    temps: Vec<OsString>,
    claims: Vec<OsString>,
    trees: Vec<(PathBuf, Kind)>,
    denied: Option<(PathBuf, io::Error)>,
    not_entered: Option<PathBuf>,
}

impl DirResult for FoundInDir {}

/// Returns all temps and claims below a root, or those that were found before `is_stopped` returned true.
///
/// Calls `denied` with each directory that cannot be read, and `progress` periodically with the number of items found.
pub fn find(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Found, RootError> {
    let count = AtomicUsize::new(0);
    let lookalikes = LookalikeCounter::new(&root.policy);
    let on_item = |found: &mut FoundInDir, item: ScanItem<'_>| match item {
        ScanItem::Temp(_, name) => found.temps.push(name.to_owned()),
        ScanItem::Claim(_, name) => found.claims.push(name.to_owned()),
        ScanItem::Tree(dir, name, kind) => found.trees.push((dir.below().join(name), kind)),
        ScanItem::Denied(path, error) => {
            found.denied = Some((path.to_owned(), error::copy(error)));
        }
        ScanItem::NotEntered(path) => found.not_entered = Some(path.to_owned()),
        ScanItem::Done(dir) => {
            found.below = dir.below().to_owned();
            found.temps.sort_unstable();
            let items = found.temps.len() + found.claims.len() + found.trees.len();
            progress(count.fetch_add(items, Ordering::Relaxed) + items);
        }
        ScanItem::Other(dir, name) => lookalikes.see(dir, name),
        ScanItem::Dir(_) | ScanItem::Name(_) => {}
    };
    let mut found = Found::default();
    let mut all_denied = Vec::new();
    let mut emit = |one: FoundInDir| {
        let claims = one.claims.into_iter();
        found
            .claims
            .extend(claims.map(|claim| (one.below.clone(), claim)));
        found.not_entered.extend(one.not_entered);
        found.trees.extend(one.trees);
        all_denied.extend(one.denied);
        if !one.temps.is_empty() {
            found.temps.push((one.below, one.temps));
        }
    };
    scan_in_order(root, &on_item, &mut emit, is_stopped)?;
    for (path, error) in &all_denied {
        denied(path, error);
    }
    found.lookalikes = lookalikes.largest_first();
    Ok(found)
}

/// Returns a message about directories below a root that were not entered, with advice on how to include them. Returns
/// `None` if there are no such directories.
#[must_use]
pub fn not_entered_message(root: &Root, directories: &[PathBuf]) -> Option<String> {
    const MAX_NAMED: usize = 3;
    let names: Vec<String> = directories
        .iter()
        .take(MAX_NAMED)
        .map(|path| format!("{path:?}"))
        .collect();
    let first = names.join(", ");
    let more = match directories.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match directories.len() {
        0 => return None,
        1 => "1 directory is another mount or subvolume and was".to_owned(),
        count => format!("{count} directories are other mounts or subvolumes and were"),
    };
    Some(format!(
        "below {:?}, {what} not entered: {first}{more}. To include such a directory, give it as a root \
         of its own",
        root.path
    ))
}

/// Returns all temps below a root: their directories, as paths relative to the root, each with the names of its temps.
pub fn find_temps(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(PathBuf, Vec<OsString>)>, RootError> {
    Ok(find(root, denied, progress, &|| false)?.temps)
}
