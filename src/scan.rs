//! Scanning: a parallel walk over a root, by directory handles.
//!
//! It reads names and nothing else; looking is done later and elsewhere. No symlink is followed,
//! no other mount or subvolume entered, nothing of orphand's own walked into. The walk keeps a list
//! of directories still to read instead of a stack of open ones, so no depth is too deep for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::decide::observation::Kind;
use crate::error;
use crate::look::{Buffer, Dir, RootError, RootId};
use crate::reap::claim;
use crate::root::{Root, is_own};

/// Something that a scan met.
pub enum Met<'a> {
    /// It is about to read this directory.
    Dir(&'a Dir),
    /// A name in this directory that the rule takes.
    Temp(&'a Dir, &'a OsStr),
    /// A claim in this directory: a crash left it, or somebody is just at work on it.
    Claim(&'a Dir, &'a OsStr),
    /// This directory has been read to its end.
    Done(&'a Dir),
    /// This directory cannot be read.
    Denied(&'a Path, &'a io::Error),
    /// This directory is another mount or subvolume, which a walk does not enter.
    Elsewhere(&'a Path),
}

/// The largest number of threads that one walk uses.
const MOST_THREADS: usize = 8;

/// Walks from the directory `below` the root, and below it where the rule says so. `met` is called
/// from several threads at once. The walk ends early once `is_stopped` says so.
pub fn scan(
    root: &Root,
    id: Option<RootId>,
    below: &Path,
    met: &(dyn Fn(Met<'_>) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), RootError> {
    // The first directory says whether there is anything to walk at all.
    let base = Dir::open_root(&root.path, id)?;
    let first = match below.as_os_str().is_empty() {
        true => Dir::open_root(&root.path, Some(base.id()))?,
        false => base.open_within(below)?,
    };
    let (todo, next) = unbounded();
    let walk = ScanQueue {
        root,
        base,
        met,
        is_stopped,
        todo,
        left: AtomicUsize::new(1),
    };
    walk.read(&first, &mut Buffer::default());
    drop(first);
    walk.done_with_one();
    if walk.left.load(Ordering::SeqCst) > 0 {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where there can be no more threads this one does it all.
                let thread = std::thread::Builder::new();
                let _ = thread.spawn_scoped(scope, || walk.work(&next));
            }
            walk.work(&next);
        });
    }
    Ok(())
}

struct ScanQueue<'a> {
    root: &'a Root,
    /// The root, held open for as long as the walk lasts: each directory is opened from there by its
    /// way, so no more than one is open for each thread.
    base: Dir,
    met: &'a (dyn Fn(Met<'_>) + Sync),
    is_stopped: &'a (dyn Fn() -> bool + Sync),
    todo: Sender<Option<PathBuf>>,
    left: AtomicUsize,
}

impl ScanQueue<'_> {
    fn work(&self, next: &Receiver<Option<PathBuf>>) {
        let mut buffer = Buffer::default();
        while let Ok(Some(below)) = next.recv() {
            // Directories that are left are taken off the list, so that every thread ends.
            if (self.is_stopped)() {
                self.done_with_one();
                continue;
            }
            match self.base.open_within(&below) {
                Ok(dir) => self.read(&dir, &mut buffer),
                // Gone meanwhile, or replaced by something else: nothing to read.
                Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
                    (self.met)(Met::Denied(&self.path(&below), &error));
                }
                Err(RootError::Io(error)) if error.raw_os_error() == Some(libc::EXDEV) => {
                    (self.met)(Met::Elsewhere(&self.path(&below)));
                }
                Err(_) => {}
            }
            self.done_with_one();
        }
        // The end is passed on to the next thread.
        let _ = self.todo.send(None);
    }

    fn done_with_one(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.todo.send(None);
        }
    }

    fn path(&self, below: &Path) -> PathBuf {
        self.root.path.join(below)
    }

    fn read(&self, dir: &Dir, buffer: &mut Buffer) {
        (self.met)(Met::Dir(dir));
        match dir.read(buffer, &mut |name, kind| self.entry(dir, name, kind)) {
            // It was removed while it was read (getdents(2)).
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                (self.met)(Met::Denied(dir.path(), &error));
            }
            Ok(()) => {}
        }
        (self.met)(Met::Done(dir));
    }

    fn entry(&self, dir: &Dir, name: &OsStr, is: Option<Kind>) {
        if (self.is_stopped)() {
            return;
        }
        let policy = &self.root.policy;
        if is_own(name) {
            if claim::parse(name).is_some() {
                (self.met)(Met::Claim(dir, name));
            }
            return;
        }
        // Some file systems do not say: then it is looked at.
        match is.or_else(|| kind(dir, name)) {
            Some(Kind::Dir) if rule!("deeper-only-if-told", policy.recursive, without: true) => {
                let below = dir.below().join(name);
                if !policy.exclude.excludes(&below) {
                    rule!(
                        "walk-keeps-a-list",
                        self.later(below),
                        without: drop(
                            dir.open_child(name)
                                .map(|dir| self.read(&dir, &mut Buffer::default())),
                        ),
                    );
                }
            }
            Some(Kind::File) if policy.takes(dir.below(), name) => {
                (self.met)(Met::Temp(dir, name));
            }
            _ => {}
        }
    }

    fn later(&self, below: PathBuf) {
        self.left.fetch_add(1, Ordering::SeqCst);
        let _ = self.todo.send(Some(below));
    }
}

fn kind(dir: &Dir, name: &OsStr) -> Option<Kind> {
    dir.observe(name)
        .ok()
        .flatten()
        .map(|seen| seen.fingerprint.kind)
}

/// What lies below a root, directory by directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Directories that temps lie in, by their way from the root, and the names of those.
    pub temps: Vec<(PathBuf, Vec<OsString>)>,
    /// Claims, and the directories they lie in.
    pub claims: Vec<(PathBuf, OsString)>,
    /// Directories that were not entered, because they are other mounts or subvolumes.
    pub elsewhere: Vec<PathBuf>,
}

impl Found {
    /// Adds the temp `name` in the directory `below`.
    pub fn add(&mut self, below: PathBuf, name: OsString) {
        match self.temps.binary_search_by(|(known, _)| known.cmp(&below)) {
            Ok(at) => self.temps[at].1.push(name),
            Err(at) => self.temps.insert(at, (below, vec![name])),
        }
    }
}

/// All temps and claims below a root, or those that were met before `is_stopped` said so.
pub fn find(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Found, RootError> {
    enum Heard {
        Temp(PathBuf, OsString),
        Claim(PathBuf, OsString),
        Denied(PathBuf, io::Error),
        Elsewhere(PathBuf),
    }
    let (send, receive) = unbounded();
    let count = AtomicUsize::new(0);
    let met = |met: Met<'_>| {
        let heard = match met {
            Met::Temp(dir, name) => Heard::Temp(dir.below().to_owned(), name.to_owned()),
            Met::Claim(dir, name) => Heard::Claim(dir.below().to_owned(), name.to_owned()),
            Met::Denied(path, error) => Heard::Denied(path.to_owned(), error::copy(error)),
            Met::Elsewhere(path) => Heard::Elsewhere(path.to_owned()),
            Met::Done(_) => return progress(count.load(Ordering::Relaxed)),
            Met::Dir(_) => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _ = send.send(heard);
    };
    scan(root, None, Path::new(""), &met, is_stopped)?;
    drop(send);
    let mut found = Found::default();
    let mut by_dir = std::collections::BTreeMap::<PathBuf, Vec<OsString>>::new();
    // Mostly one directory after the other: only where it changes is it looked up.
    let mut last: (PathBuf, Vec<OsString>) = Default::default();
    let mut close = |(below, names): (PathBuf, Vec<OsString>)| {
        if !names.is_empty() {
            by_dir.entry(below).or_default().extend(names);
        }
    };
    for heard in receive {
        match heard {
            Heard::Temp(below, name) if below.as_os_str() == last.0.as_os_str() => {
                last.1.push(name);
            }
            Heard::Temp(below, name) => close(std::mem::replace(&mut last, (below, vec![name]))),
            Heard::Claim(below, name) => found.claims.push((below, name)),
            Heard::Denied(path, error) => denied(&path, &error),
            Heard::Elsewhere(path) => found.elsewhere.push(path),
        }
    }
    close(last);
    for names in by_dir.values_mut() {
        names.sort_unstable();
    }
    found.temps = by_dir.into_iter().collect();
    found.elsewhere.sort_unstable();
    Ok(found)
}

/// Says of directories below a root that they were not entered, and how to have them looked at. Returns `None`
/// where there are none.
#[must_use]
pub fn not_entered(root: &Root, elsewhere: &[PathBuf]) -> Option<String> {
    const NAMED: usize = 3;
    let names: Vec<String> = elsewhere
        .iter()
        .take(NAMED)
        .map(|path| format!("{path:?}"))
        .collect();
    let first = names.join(", ");
    let more = match elsewhere.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = match elsewhere.len() {
        0 => return None,
        1 => "1 directory is another mount or subvolume and was".to_owned(),
        count => format!("{count} directories are other mounts or subvolumes and were"),
    };
    Some(format!(
        "below {:?}, {what} not entered: {first}{more}. Give such a directory as a root of its own to have it \
         looked at",
        root.path
    ))
}

/// All temps below a root, as the directories they lie in and their names.
pub fn temps(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(PathBuf, Vec<OsString>)>, RootError> {
    Ok(find(root, denied, progress, &|| false)?.temps)
}
