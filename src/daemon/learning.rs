//! The knowledge from healthy renames: the shapes of temps.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
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

/// The number of leftovers that are observed. Further ones are not.
const MAX_LEFTOVERS: usize = 256;

impl Content {
    /// Observes a leftover from now on. If there are too many, those are forgotten that fit no shape: a read of them says
    /// nothing about one.
    pub(super) fn observe_later(&mut self, leftover: Leftover) {
        let (learner, leftovers) = (&self.learner, &mut self.leftovers);
        let is_full = leftovers.len() >= MAX_LEFTOVERS;
        if rule!("leftovers-of-shapes-come-first", is_full) {
            leftovers.retain(|known| {
                let name = known.path.file_name().unwrap_or_default();
                learner.fits_shape(known.dir, name.as_bytes())
            });
        }
        if leftovers.len() < MAX_LEFTOVERS {
            leftovers.push(leftover);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::learn::{Form, LearnedShape, Place};
    use crate::core::time::Wall;

    /// A directory has any number of files that are created and stay. They take no room from those that fit a shape.
    #[test]
    fn leftovers_that_fit_a_shape_are_observed_before_others() {
        let dir = DirId {
            dev: 1,
            ino: 2,
            born: None,
        };
        let place = Place {
            dir,
            target: b"data.json".to_vec(),
            owner: 1000,
        };
        let form = Form::literal(b"data.json.a0z9b1y8").widened(b"data.json.0a9z1b8y");
        let wall = Wall { sec: 1, nsec: 0 };
        let mut content = Content::default();
        let shape = LearnedShape::stored(place, form.unwrap(), 40, wall);
        content.learner.add(shape);
        let mut leave = |name: &str| {
            content.observe_later(Leftover {
                dir,
                path: Path::new("/srv").join(name),
                late_at: Mono(0),
                created: Mono(0),
            });
            let last = content.leftovers.last();
            let is_observed = last.is_some_and(|last| last.path.ends_with(name));
            (is_observed, content.leftovers.len())
        };
        for _ in 0..3 {
            (0..MAX_LEFTOVERS).for_each(|n| _ = leave(&format!("log.{n}")));
            assert!(leave("data.json.k3j9x2mq").0);
        }
        for n in 0..2 * MAX_LEFTOVERS {
            let (_, count) = leave(&format!("data.json.k3j{:04}q", n));
            assert!(count <= MAX_LEFTOVERS);
        }
    }
}
