//! Scanning: a parallel walk over a root, by directory handles.
//!
//! It reads names and nothing else; looking is done later and elsewhere. No symlink is followed,
//! no other mount or subvolume entered, nothing of orphand's own walked into. The walk keeps a list
//! of directories still to read instead of a stack of open ones, so no depth is too deep for it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::fs::{Dir as Entries, FileType};

use crate::decide::observation::Kind;
use crate::error;
use crate::look::{Dir, RootError, RootId};
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
}

/// The largest number of threads that one walk uses.
const MOST_THREADS: usize = 8;

/// Walks from the directory `below` the root, and below it where the rule says so. `met` is called
/// from several threads at once.
pub fn scan(
    root: &Root,
    id: Option<RootId>,
    below: &Path,
    met: &(dyn Fn(Met<'_>) + Sync),
) -> Result<(), RootError> {
    // The first directory says whether there is anything to walk at all.
    let first = Dir::open_below(&root.path, id, below)?;
    let (todo, next) = unbounded();
    let walk = Walk {
        root,
        id,
        met,
        todo,
        left: AtomicUsize::new(1),
    };
    walk.read(&first);
    walk.done_with_one();
    if walk.left.load(Ordering::SeqCst) > 0 {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| walk.work(&next));
            }
            walk.work(&next);
        });
    }
    Ok(())
}

struct Walk<'a> {
    root: &'a Root,
    id: Option<RootId>,
    met: &'a (dyn Fn(Met<'_>) + Sync),
    todo: Sender<Option<PathBuf>>,
    left: AtomicUsize,
}

impl Walk<'_> {
    fn work(&self, next: &Receiver<Option<PathBuf>>) {
        while let Ok(Some(below)) = next.recv() {
            match Dir::open_below(&self.root.path, self.id, &below) {
                Ok(dir) => self.read(&dir),
                // Gone meanwhile, or replaced by something else: nothing to read.
                Err(RootError::Io(error)) if !RootError::is_gone_by(&error) => {
                    (self.met)(Met::Denied(&self.path(&below), &error));
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

    fn read(&self, dir: &Dir) {
        (self.met)(Met::Dir(dir));
        if let Err(error) = self.read_entries(dir) {
            (self.met)(Met::Denied(dir.path(), &error));
        }
        (self.met)(Met::Done(dir));
    }

    fn read_entries(&self, dir: &Dir) -> io::Result<()> {
        let policy = &self.root.policy;
        for entry in Entries::read_from(dir.fd())? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if is_own(name) {
                if claim::read(name).is_some() {
                    (self.met)(Met::Claim(dir, name));
                }
                continue;
            }
            let is_dir = match entry.file_type() {
                FileType::Directory => true,
                FileType::RegularFile => false,
                // Some file systems do not say.
                FileType::Unknown => kind(dir, name) == Some(Kind::Dir),
                _ => continue,
            };
            match is_dir {
                true if policy.recursive => {
                    let below = dir.below().join(name);
                    if !policy.exclude.excludes(&below) {
                        self.later(below);
                    }
                }
                false if policy.takes(dir.below(), name) => {
                    (self.met)(Met::Temp(dir, name));
                }
                _ => {}
            }
        }
        Ok(())
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

/// All temps below a root, as the directories they lie in and their names.
pub fn temps(
    root: &Root,
    denied: &mut dyn FnMut(&Path, &io::Error),
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<(PathBuf, Vec<OsString>)>, RootError> {
    enum Found {
        Temp(PathBuf, OsString),
        Denied(PathBuf, io::Error),
    }
    let (send, receive) = unbounded();
    let count = AtomicUsize::new(0);
    scan(root, None, Path::new(""), &|met| {
        let found = match met {
            Met::Temp(dir, name) => Found::Temp(dir.below().to_owned(), name.to_owned()),
            Met::Denied(path, error) => Found::Denied(path.to_owned(), error::copy(error)),
            Met::Done(_) => return progress(count.load(Ordering::Relaxed)),
            Met::Dir(_) | Met::Claim(..) => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let _ = send.send(found);
    })?;
    drop(send);
    let mut by_dir = std::collections::BTreeMap::<PathBuf, Vec<OsString>>::new();
    for found in receive {
        match found {
            Found::Temp(below, name) => by_dir.entry(below).or_default().push(name),
            Found::Denied(path, error) => denied(&path, &error),
        }
    }
    for names in by_dir.values_mut() {
        names.sort_unstable();
    }
    Ok(by_dir.into_iter().collect())
}
