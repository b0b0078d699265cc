//! Walks a root in parallel, by directory handles.
//!
//! A scan reads only names; other modules look at the files later. It follows no symlinks, and enters no other mounts
//! or subvolumes and none of orphand's own folders. It keeps a list of the directories still to read instead of a stack
//! of open ones, so the depth of a tree is not limited.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::core::observation::Kind;
use crate::core::own_names;
use crate::core::own_names::is_own;
use crate::fs::dir::{Buffer, Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::sys::error;

/// An item that a scan finds, or a step that it makes.
pub enum ScanItem<'a> {
    /// The scan is about to read this directory.
    Dir(&'a Dir),
    /// A name in this directory that the rule matches.
    Temp(&'a Dir, &'a OsStr),
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

/// Scans the directory `below`, a path relative to the root, and the directories below it if the rule is recursive.
/// Calls `on_item` from several threads at the same time. The scan ends early once `is_stopped` returns true.
pub fn scan(
    root: &Root,
    id: Option<RootId>,
    below: &Path,
    on_item: &(dyn Fn(ScanItem<'_>) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), RootError> {
    // If the first directory cannot be opened, this returns the error.
    let base = Dir::open_root(&root.path, id)?;
    let first = match below.as_os_str().is_empty() {
        true => Dir::open_root(&root.path, Some(base.id()))?,
        false => base.open_within(below)?,
    };
    let (todo, next) = unbounded();
    let queue = ScanQueue {
        root,
        base,
        on_item,
        is_stopped,
        todo,
        pending: AtomicUsize::new(1),
    };
    queue.read(&first, &mut Buffer::default());
    drop(first);
    queue.finish_one();
    if queue.pending.load(Ordering::SeqCst) > 0 {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // If no thread can be started, the present thread reads all directories.
                let thread = std::thread::Builder::new();
                let _ = thread.spawn_scoped(scope, || queue.work(&next));
            }
            queue.work(&next);
        });
    }
    Ok(())
}

struct ScanQueue<'a> {
    root: &'a Root,
    /// The root, which is open during the whole scan. Each directory is opened by its path from the root, so each
    /// thread has only one directory open.
    base: Dir,
    on_item: &'a (dyn Fn(ScanItem<'_>) + Sync),
    is_stopped: &'a (dyn Fn() -> bool + Sync),
    /// The directories still to read. `None` ends a thread.
    todo: Sender<Option<PathBuf>>,
    /// The number of directories that are not read yet.
    pending: AtomicUsize,
}

impl ScanQueue<'_> {
    fn work(&self, next: &Receiver<Option<PathBuf>>) {
        let mut buffer = Buffer::default();
        while let Ok(Some(below)) = next.recv() {
            // The rest of the list is emptied without reading, so that every thread ends.
            if (self.is_stopped)() {
                self.finish_one();
                continue;
            }
            match self.base.open_within(&below) {
                Ok(dir) => self.read(&dir, &mut buffer),
                // The directory was removed, or replaced by another file: there is nothing to read.
                Err(RootError::Io(error)) if !RootError::is_missing_error(&error) => {
                    (self.on_item)(ScanItem::Denied(&self.path(&below), &error));
                }
                Err(RootError::Io(error)) if error.raw_os_error() == Some(libc::EXDEV) => {
                    (self.on_item)(ScanItem::NotEntered(&self.path(&below)));
                }
                Err(_) => {}
            }
            self.finish_one();
        }
        // The next thread must end too.
        let _ = self.todo.send(None);
    }

    fn finish_one(&self) {
        if self.pending.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.todo.send(None);
        }
    }

    fn path(&self, below: &Path) -> PathBuf {
        self.root.path.join(below)
    }

    fn read(&self, dir: &Dir, buffer: &mut Buffer) {
        (self.on_item)(ScanItem::Dir(dir));
        match dir.read(buffer, &mut |name, kind| self.entry(dir, name, kind)) {
            // The directory was removed while it was read (getdents(2)).
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                (self.on_item)(ScanItem::Denied(dir.path(), &error));
            }
            Ok(()) => {}
        }
        (self.on_item)(ScanItem::Done(dir));
    }

    fn entry(&self, dir: &Dir, name: &OsStr, kind: Option<Kind>) {
        if (self.is_stopped)() {
            return;
        }
        let policy = &self.root.policy;
        if is_own(name) {
            if own_names::parse_claim(name).is_some() {
                (self.on_item)(ScanItem::Claim(dir, name));
            }
            return;
        }
        // Some file systems do not report the kind in the directory. Then a look at the file returns it.
        let kind = kind.or_else(|| observe_kind(dir, name));
        if let Some(kind @ (Kind::Dir | Kind::Symlink | Kind::Other)) = kind
            && policy.is_temp(dir.below(), name)
        {
            (self.on_item)(ScanItem::Tree(dir, name, kind));
        }
        match kind {
            Some(Kind::Dir) if rule!("recursion-only-if-set", policy.recursive, without: true) => {
                let below = dir.below().join(name);
                if !policy.exclude.excludes(&below) {
                    rule!(
                        "walk-keeps-a-list",
                        self.enqueue(below),
                        without: drop(
                            dir.open_child(name)
                                .map(|dir| self.read(&dir, &mut Buffer::default())),
                        ),
                    );
                }
            }
            Some(Kind::File) if policy.is_temp(dir.below(), name) => {
                (self.on_item)(ScanItem::Temp(dir, name));
            }
            _ => {}
        }
    }

    fn enqueue(&self, below: PathBuf) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        let _ = self.todo.send(Some(below));
    }
}

fn observe_kind(dir: &Dir, name: &OsStr) -> Option<Kind> {
    dir.observe(name)
        .ok()
        .flatten()
        .map(|seen| seen.fingerprint.kind)
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

/// Returns all temps and claims below a root, or those that were found before `is_stopped` returned true.
///
/// Calls `denied` with each directory that cannot be read, and `progress` now and then with the number of items found.
pub fn find(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Found, RootError> {
    enum FoundItem {
        Temp(PathBuf, OsString),
        Claim(PathBuf, OsString),
        Denied(PathBuf, io::Error),
        NotEntered(PathBuf),
        Tree(PathBuf, Kind),
    }
    let (send, receive) = unbounded();
    let count = AtomicUsize::new(0);
    let on_item = |item: ScanItem<'_>| {
        let found = match item {
            ScanItem::Temp(dir, name) => FoundItem::Temp(dir.below().to_owned(), name.to_owned()),
            ScanItem::Claim(dir, name) => FoundItem::Claim(dir.below().to_owned(), name.to_owned()),
            ScanItem::Denied(path, error) => FoundItem::Denied(path.to_owned(), error::copy(error)),
            ScanItem::NotEntered(path) => FoundItem::NotEntered(path.to_owned()),
            ScanItem::Tree(dir, name, kind) => FoundItem::Tree(dir.below().join(name), kind),
            ScanItem::Done(_) => return progress(count.load(Ordering::Relaxed)),
            ScanItem::Dir(_) => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _ = send.send(found);
    };
    scan(root, None, Path::new(""), &on_item, is_stopped)?;
    drop(send);
    let mut found = Found::default();
    let mut by_dir = std::collections::BTreeMap::<PathBuf, Vec<OsString>>::new();
    // Most items of one directory come together. The map is only accessed when the directory changes.
    let mut last: (PathBuf, Vec<OsString>) = Default::default();
    let mut close = |(below, names): (PathBuf, Vec<OsString>)| {
        if !names.is_empty() {
            by_dir.entry(below).or_default().extend(names);
        }
    };
    for item in receive {
        match item {
            FoundItem::Temp(below, name) if below.as_os_str() == last.0.as_os_str() => {
                last.1.push(name);
            }
            FoundItem::Temp(below, name) => {
                close(std::mem::replace(&mut last, (below, vec![name])))
            }
            FoundItem::Claim(below, name) => found.claims.push((below, name)),
            FoundItem::Denied(path, error) => denied(&path, &error),
            FoundItem::NotEntered(path) => found.not_entered.push(path),
            FoundItem::Tree(below, kind) => found.trees.push((below, kind)),
        }
    }
    close(last);
    for names in by_dir.values_mut() {
        names.sort_unstable();
    }
    found.temps = by_dir.into_iter().collect();
    found.not_entered.sort_unstable();
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
