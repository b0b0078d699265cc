//! The services that every pass needs, and the directory that a pass processes.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::sets::TrackedSets;
use crate::core::event::Subject;
use crate::core::observation::FileSize;
use crate::core::policy::Policy;
use crate::evidence::EvidenceContext;
use crate::evidence::container_pids::ContainerPids;
use crate::evidence::guard::GuardChecks;
use crate::evidence::learned::LearnedShapes;
use crate::evidence::locks::Locks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::{Listings, Siblings};
use crate::evidence::writer_names::WriterNames;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::reap::{self, Reaper};
use crate::store::journal::Journal;
use crate::sys::clock;

/// The services that every pass needs.
#[derive(Debug)]
pub struct Engine {
    /// Removes files.
    pub reaper: Reaper,
    /// Records intents and outcomes.
    pub journal: Journal,
    /// Records the files that were restored.
    pub marks: RestoreMarks,
    /// Remembers the names of writers.
    pub writers: WriterNames,
    /// Resolves pids of containers.
    pub container_pids: ContainerPids,
    /// Finds files that are locked.
    pub locks: Locks,
    /// Lists the siblings of temps.
    pub listings: Listings,
    /// The learned shapes that tell targets.
    pub shapes: LearnedShapes,
    /// Tracks the companions of temps.
    pub sets: TrackedSets,
    /// Reports settled temps too.
    pub verbose: bool,
}

/// The directory that a pass processes.
#[derive(Clone, Copy, Debug)]
pub struct DirContext<'a> {
    /// Its root.
    pub root: &'a Root,
    /// The identity that the directory at the root's path must have; `None` if any is accepted.
    pub id: Option<RootId>,
    /// The path from the root to the directory.
    pub below: &'a Path,
}

impl Engine {
    /// Creates the services. The journal and the marks of restored files are in the folder `state`, and nothing is stored
    /// without one.
    #[must_use]
    pub fn new(state: Option<&Path>) -> Engine {
        Engine {
            reaper: Reaper::new(),
            journal: Journal::new(state),
            marks: RestoreMarks::new(state),
            writers: WriterNames::default(),
            container_pids: ContainerPids::default(),
            locks: Locks::default(),
            listings: Listings::default(),
            shapes: LearnedShapes::default(),
            sets: TrackedSets::default(),
            verbose: false,
        }
    }

    /// Returns the root of `dir_context` with the learned shapes of its directory. Without any, or if the directory
    /// cannot be opened, this is the same root.
    pub(super) fn root_in<'r>(&self, dir_context: DirContext<'r>) -> Cow<'r, Root> {
        let root = dir_context.root;
        if self.shapes.is_empty() {
            return Cow::Borrowed(root);
        }
        let dir = dir_context.open();
        dir.map_or(Cow::Borrowed(root), |dir| self.shapes.root_in(root, &dir))
    }

    /// Returns the context for evidence under `policy`, as of now, for a root that can have a quarantine.
    pub(super) fn evidence_context<'a>(
        &'a self,
        policy: &'a Policy,
        siblings: &'a Siblings,
        guards: &'a GuardChecks,
    ) -> EvidenceContext<'a> {
        EvidenceContext {
            policy,
            // It is read once for each pass; the kernel checks it anyway in each call.
            our_uid: rustix::process::geteuid().as_raw(),
            marks: &self.marks,
            container_pids: &self.container_pids,
            locks: &self.locks,
            siblings,
            guards,
            since: clock::mono(),
            quarantine: true,
            process_scan: None,
            flushed: (!policy.is_dry_run()).then(|| self.reaper.flushed_targets()),
        }
    }
}

impl DirContext<'_> {
    /// Opens the directory.
    ///
    /// # Errors
    ///
    /// The root or the directory cannot be opened, or another directory is at the root's path.
    pub fn open(&self) -> Result<Dir, RootError> {
        Dir::open_below(&self.root.path, self.id, self.below)
    }

    /// Returns the path of the file `name` in the directory.
    #[must_use]
    pub fn path(&self, name: &OsStr) -> PathBuf {
        let (root, below) = (self.root.path.as_os_str(), self.below.as_os_str());
        let mut path = OsString::with_capacity(root.len() + below.len() + name.len() + 2);
        path.push(root);
        for part in [below, name] {
            if !part.is_empty() {
                if path != "/" {
                    path.push("/");
                }
                path.push(part);
            }
        }
        path.into()
    }

    /// Returns the subject of an event about the file `name` in the directory.
    pub(super) fn subject(&self, name: &OsStr, size: Option<FileSize>) -> Subject {
        Subject {
            path: self.path(name),
            root: self.root.path.clone(),
            size,
        }
    }
}

/// The largest number of workers: more would only wait for the same disk.
const MAX_WORKERS: usize = 8;

/// Returns the number of threads that may run passes at the same time: two for each core, because every batch waits for
/// some time. Each thread may have three open files for each temp of its batch, so the limit of open files counts too.
#[must_use]
pub fn max_workers() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (2 * cores())
        .min(MAX_WORKERS)
        .min(limit / (4 * reap::affordable_batch()))
        .max(1)
}

/// The number of temps in a batch that take much longer than the time for which the batch waits.
const LONG_BATCH: usize = 128;

/// Returns the number of threads for batches that have `temps` temps on average. If they are long, one thread for each
/// core is enough. More would compete for the directory: the kernel makes one rename or unlink in it at a time.
#[must_use]
pub(super) fn workers_for(temps: usize) -> usize {
    match temps >= LONG_BATCH {
        true => max_workers().min(cores()),
        false => max_workers(),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
