//! The knowledge from healthy renames: the shapes of temps.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::core::learn::{DirId, KnownShape, Learner, MAX_SHAPES};
use crate::core::sort::sort_by;
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
    /// The known shapes as this watch has last read or written them, ordered like those of [`Learning::known`].
    stored: Vec<KnownShape>,
}

/// The part of the known shapes that is not stored yet, which decides how soon it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsaved {
    /// Only the counts of healthy writes differ from the file.
    Counts,
    /// The shapes that are known or learned well enough differ from the file, or there is new evidence against one.
    Knowledge,
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

impl Content {
    /// Returns the known shapes, ordered by directory and target.
    fn known(&self) -> Vec<KnownShape> {
        let known = self.learner.known().into_iter();
        let with_dir = known.filter_map(|(shape, is_learned_well)| {
            Some(KnownShape {
                dir: self.dirs.get(&shape.place.dir)?.clone(),
                shape,
                is_learned_well,
            })
        });
        let mut known: Vec<KnownShape> = with_dir.collect();
        sort_by(&mut known, |a, b| {
            (&a.dir, &a.shape.place).cmp(&(&b.dir, &b.shape.place))
        });
        known
    }

    /// Returns the known shapes as they are after they were stored.
    fn known_to_store(&self) -> Vec<KnownShape> {
        let known = self.known().into_iter();
        let stored = known.map(|one| KnownShape {
            shape: one.shape.as_stored(),
            ..one
        });
        stored.collect()
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
        guard(&self.content).known()
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
                for KnownShape { dir, shape, .. } in stored.into_iter().flatten() {
                    content.dirs.insert(shape.place.dir, dir);
                    content.learner.add(shape);
                }
                content.stored = content.known_to_store();
            }
            Err(error) => log::warn!(
                "the learned shapes of temps in {state:?} are ignored, and learned again: {error}"
            ),
        }
    }

    /// Returns whether the known shapes differ from the stored ones. Every change shows there, whatever has caused it.
    pub(super) fn unsaved(&self) -> Option<Unsaved> {
        let content = guard(&self.content);
        let (known, stored) = (content.known_to_store(), &content.stored);
        let is_same = known.len() == stored.len()
            && known
                .iter()
                .zip(stored)
                .all(|(known, stored)| knowledge(known) == knowledge(stored));
        match (is_same, known == *stored) {
            (_, true) => None,
            (true, false) => Some(Unsaved::Counts),
            (false, false) => Some(Unsaved::Knowledge),
        }
    }

    /// Stores the known shapes, if they differ from the stored ones.
    ///
    /// RACE: another watch of this user may write the file between the read and the write (ms). Worst case: what that
    /// watch has learned is missing in the file until it stores a change again. If that is evidence against a shape, a
    /// file that only this shape matches may be moved or removed.
    pub(super) fn store(&self, state: &Path) -> io::Result<()> {
        let content = guard(&self.content);
        let (known, before) = (content.known_to_store(), content.stored.clone());
        drop(content);
        if known == before {
            return Ok(());
        }
        let in_file = shapes::read(state, clock::wall()).ok().flatten();
        let merged = merged(&before, &known, in_file.unwrap_or_else(|| before.clone()));
        shapes::write(state, &merged)?;
        guard(&self.content).stored = known;
        Ok(())
    }
}

/// Returns the part of a shape that must be in the file soon: all but the counts of healthy writes.
fn knowledge(known: &KnownShape) -> impl PartialEq + '_ {
    let KnownShape { dir, shape, .. } = known;
    let flags = [
        known.is_learned_well,
        shape.was_read,
        shape.has_other_target,
    ];
    let failed = shape.ended.saturating_sub(shape.renamed);
    (dir, &shape.place, &shape.form, flags, failed)
}

/// Returns the shapes to write. A shape that this watch has not changed since `before` stays as it is in the file: it may
/// be one that another watch of this user learns.
fn merged(
    before: &[KnownShape],
    known: &[KnownShape],
    in_file: Vec<KnownShape>,
) -> Vec<KnownShape> {
    let find = |shapes: &'_ [KnownShape], wanted: &KnownShape| {
        let is_wanted = |one: &&KnownShape| {
            one.shape.place == wanted.shape.place && one.shape.form == wanted.shape.form
        };
        shapes.iter().find(is_wanted).cloned()
    };
    let is_ours = |one: &KnownShape| {
        let is_changed = find(before, one) != find(known, one);
        rule!("other-watch-keeps-its-shapes", is_changed, without: true)
    };
    let mut merged = in_file;
    merged.retain(|one| !is_ours(one));
    merged.extend(known.iter().filter(|one| is_ours(one)).cloned());
    sort_by(&mut merged, |a, b| {
        b.shape.last_write.cmp(&a.shape.last_write)
    });
    merged.truncate(MAX_SHAPES);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::learn::{Created, Form, LearnedShape, Place, Renamed};
    use crate::core::time::Wall;
    use std::time::Duration;

    const DIR: DirId = DirId {
        dev: 1,
        ino: 2,
        born: Some(Wall { sec: 3, nsec: 4 }),
    };

    /// Returns the shape of the temps of a target in [`DIR`], which is learned well enough.
    fn well(target: &str) -> KnownShape {
        let name = |random: &str| format!("{target}.{random}").into_bytes();
        let place = Place {
            dir: DIR,
            target: target.into(),
            owner: 1000,
        };
        let form = Form::literal(&name("a0z9b1y8")).widened(&name("0a9z1b8y"));
        let mut shape = LearnedShape::stored(place, form.unwrap(), 40, clock::wall());
        (shape.ended, shape.renamed) = (38, 38);
        KnownShape {
            dir: "/srv".into(),
            shape: shape.as_stored(),
            is_learned_well: true,
        }
    }

    fn loaded(state: &Path) -> Learning {
        let learning = Learning::new(Arc::default());
        learning.load(Some(state));
        learning
    }

    /// Returns `ended`, `renamed` and whether it is learned well enough, for each shape in the file.
    fn in_file(state: &Path) -> Vec<(u64, u64, bool)> {
        let shapes = shapes::read(state, clock::wall()).unwrap().unwrap();
        let counts = |one: &KnownShape| (one.shape.ended, one.shape.renamed, one.is_learned_well);
        shapes.iter().map(counts).collect()
    }

    /// Whatever makes a shape worse is stored, also if no event has caused it.
    #[test]
    fn all_evidence_against_a_shape_is_stored() {
        const TEMP: &[u8] = b"data.json.k3j9x2mq";
        let minutes = |n: u64| Mono(0).after(Duration::from_secs(60 * n));
        let expire = |learner: &mut Learner, at: Mono| {
            learner.expire(at, clock::wall());
        };
        let renamed = |target: &'static str, at: Mono| Renamed {
            dir: DIR,
            temp: TEMP,
            target: target.as_bytes(),
            owner: 1000,
            born: Some(clock::wall()),
            at,
            wall: clock::wall(),
        };
        type Change<'a> = &'a dyn Fn(&mut Learner);
        type Want<'a> = &'a [(u64, u64, bool)];
        let rows: [(&str, Change<'_>, Want<'_>); 6] = [
            (
                "late",
                &|learner| expire(learner, minutes(2)),
                &[(41, 38, false)],
            ),
            (
                "removed",
                &|learner| learner.removed(DIR, TEMP),
                &[(39, 38, true)],
            ),
            (
                "another target",
                &|learner| learner.renamed(&renamed("other.json", minutes(0))),
                &[(39, 38, false)],
            ),
            (
                "renamed late",
                &|learner| learner.renamed(&renamed("data.json", minutes(2))),
                &[(39, 38, true)],
            ),
            (
                "read",
                &|learner| learner.was_read(DIR, TEMP),
                &[(38, 38, false)],
            ),
            (
                "expired",
                &|learner| {
                    let month = clock::wall().sec + 31 * 86_400;
                    learner.expire(
                        minutes(0),
                        Wall {
                            sec: month,
                            nsec: 0,
                        },
                    );
                },
                &[],
            ),
        ];
        for (what, change, want) in rows {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path();
            shapes::write(state, &[well("data.json")]).unwrap();
            let learning = loaded(state);
            assert_eq!(learning.unsaved(), None, "{what}");
            for name in [TEMP, b"data.json.a1b2c3d4", b"data.json.z9y8x7w6"] {
                let at = minutes(0);
                learning
                    .content()
                    .learner
                    .created(Created { dir: DIR, name, at });
            }
            assert_eq!(learning.unsaved(), None, "{what}");
            change(&mut learning.content().learner);
            assert_eq!(learning.unsaved(), Some(Unsaved::Knowledge), "{what}");
            learning.store(state).unwrap();
            assert_eq!(in_file(state), want, "{what}");
            assert_eq!(learning.unsaved(), None, "{what}");
        }
    }

    #[test]
    fn a_healthy_write_is_stored_later() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        shapes::write(state, &[well("data.json")]).unwrap();
        let learning = loaded(state);
        let (at, wall, temp) = (Mono(0), clock::wall(), b"data.json.k3j9x2mq");
        let renamed = Renamed {
            dir: DIR,
            temp,
            target: b"data.json",
            owner: 1000,
            born: Some(wall),
            at,
            wall,
        };
        let created = Created {
            dir: DIR,
            name: temp,
            at,
        };
        assert!(learning.content().learner.created(created));
        learning.content().learner.renamed(&renamed);
        assert_eq!(learning.unsaved(), Some(Unsaved::Counts));
        learning.store(state).unwrap();
        assert_eq!(in_file(state), [(39, 39, true)]);
    }

    /// Two watches of one user store their shapes in one file. What one of them has learned is not undone by the other.
    #[test]
    fn another_watch_keeps_what_it_has_learned() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        shapes::write(state, &[well("a.json"), well("b.json")]).unwrap();
        let (one, other) = (loaded(state), loaded(state));
        one.content().learner.was_read(DIR, b"a.json.k3j9x2mq");
        one.store(state).unwrap();
        other.content().learner.was_read(DIR, b"b.json.k3j9x2mq");
        other.store(state).unwrap();
        assert_eq!(in_file(state), [(38, 38, false); 2]);
    }

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
