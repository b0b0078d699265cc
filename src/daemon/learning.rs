//! The knowledge from healthy renames: the shapes of temps.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::core::learn::{DirId, KnownShape, Learner};
use crate::core::time::Mono;
use crate::store::shapes;
use crate::sys::clock;
use crate::sys::mutex::guard;
use crate::watch::LearnFeed;

/// The state of the learning, which the thread and the status share.
#[derive(Debug)]
pub(super) struct Learning {
    pub(super) feed: Arc<LearnFeed>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) learner: Learner,
    /// The paths of the directories of the shapes.
    pub(super) dirs: HashMap<DirId, PathBuf>,
    /// Files that were not renamed in time, with the time at which they were found late.
    pub(super) leftovers: Vec<Leftover>,
    /// Something was learned since the shapes were last stored.
    pub(super) has_changed: bool,
    /// There is a file of shapes.
    has_file: bool,
}

/// A file that was not renamed in time. If a process reads it later, its name is not only the source of a rename.
#[derive(Clone, Debug)]
pub(super) struct Leftover {
    pub(super) dir: DirId,
    pub(super) path: PathBuf,
    pub(super) late_at: Mono,
    /// The time of its creation.
    pub(super) created: Mono,
}

impl Learning {
    pub(super) fn new(feed: Arc<LearnFeed>) -> Learning {
        Learning {
            feed,
            content: Mutex::default(),
        }
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        guard(&self.content)
    }

    /// Returns the known shapes, ordered by directory and target.
    pub(super) fn known(&self) -> Vec<KnownShape> {
        let content = guard(&self.content);
        let known = content.learner.known().into_iter();
        let with_dir = known.filter_map(|(shape, is_learned_well)| {
            Some(KnownShape {
                dir: content.dirs.get(&shape.place.dir)?.clone(),
                shape,
                is_learned_well,
            })
        });
        let mut known: Vec<KnownShape> = with_dir.collect();
        known.sort_by(|a, b| (&a.dir, &a.shape.place).cmp(&(&b.dir, &b.shape.place)));
        known
    }

    /// Returns the shapes that are learned well enough, with the paths of their directories.
    pub(super) fn learned_well(&self) -> Vec<KnownShape> {
        let content = guard(&self.content);
        let learned = content.learner.learned_well().into_iter();
        let with_dir = learned.filter_map(|shape| {
            Some(KnownShape {
                dir: content.dirs.get(&shape.place.dir)?.clone(),
                shape: shape.clone(),
                is_learned_well: true,
            })
        });
        with_dir.collect()
    }

    /// Adds the shapes that an earlier watch has stored.
    pub(super) fn load(&self, state: Option<&Path>) {
        let Some(state) = state else {
            return;
        };
        match shapes::read(state, clock::wall()) {
            Ok(stored) => {
                let content = &mut *guard(&self.content);
                content.has_file = stored.is_some();
                for KnownShape { dir, shape, .. } in stored.into_iter().flatten() {
                    content.dirs.insert(shape.place.dir, dir);
                    content.learner.add(shape);
                }
            }
            Err(error) => log::warn!(
                "the learned shapes of temps in {state:?} are ignored, and learned again: {error}"
            ),
        }
    }

    /// Stores the known shapes, if something was learned.
    pub(super) fn store(&self, state: Option<&Path>) -> io::Result<()> {
        let Some(state) = state.filter(|_| std::mem::take(&mut guard(&self.content).has_changed))
        else {
            return Ok(());
        };
        let known = self.known();
        if known.is_empty() && !guard(&self.content).has_file {
            return Ok(());
        }
        guard(&self.content).has_file = true;
        shapes::write(state, &known)
    }
}
