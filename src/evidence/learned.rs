//! The learned shapes that are in force.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::core::learn::{DirId, KnownShape, TargetShape};
use crate::core::observation::Fingerprint;
use crate::core::policy::{Learn, Policy};
use crate::core::sort::sort_by;
use crate::core::temp_name::Names;
use crate::core::time::Wall;
use crate::fs::dir::Dir;
use crate::fs::root::Root;
use crate::sys::mutex::guard;

/// The learned shapes that tell the targets of temps, by directory. The learning thread of a watcher replaces them.
#[derive(Debug, Default)]
pub struct LearnedShapes {
    current: RwLock<Arc<Current>>,
    /// The files that the rule does not take, but a learned shape does, because their creation was seen.
    appeared: RwLock<HashMap<DirId, HashMap<OsString, AppearedFile>>>,
}

/// A file whose creation was seen, so that another file with its name is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppearedFile {
    ino: u64,
    born: Wall,
}

impl AppearedFile {
    /// Returns the file. `None` if the file system stores no creation times, because the next file may get the same inode
    /// number.
    #[must_use]
    pub fn new(seen: &Fingerprint) -> Option<AppearedFile> {
        Some(AppearedFile {
            ino: seen.ino,
            born: seen.btime?,
        })
    }

    /// Returns its creation time.
    #[must_use]
    pub fn born(&self) -> Wall {
        self.born
    }
}

#[derive(Debug, Default)]
struct Current {
    shapes: HashMap<DirId, Arc<[TargetShape]>>,
    /// The rules that were made for these directories.
    policies: Mutex<HashMap<DirId, DirPolicy>>,
}

/// The rule of one directory.
#[derive(Debug)]
struct DirPolicy {
    /// The rule of the root that it was made from.
    made_from: Arc<Policy>,
    policy: Arc<Policy>,
}

impl LearnedShapes {
    /// Returns the shapes among `known` that are learned well enough.
    #[must_use]
    pub fn new<'k>(known: impl Iterator<Item = &'k KnownShape>) -> LearnedShapes {
        let learned = LearnedShapes::default();
        learned.set(known);
        learned
    }

    /// Puts the shapes among `known` in force that are learned well enough, instead of the ones before.
    pub fn set<'k>(&self, known: impl Iterator<Item = &'k KnownShape>) {
        let mut shapes = HashMap::<DirId, Vec<TargetShape>>::new();
        for known in known {
            let of_dir = shapes.entry(known.shape.place.dir).or_default();
            of_dir.extend(known.telling());
        }
        shapes.retain(|_, shapes| !shapes.is_empty());
        for shapes in shapes.values_mut() {
            sort_by(shapes, |a, b| {
                let of_one_target = || a.form.text().cmp(&b.form.text());
                a.target.cmp(&b.target).then_with(of_one_target)
            });
        }
        let shapes: HashMap<DirId, Arc<[TargetShape]>> = shapes
            .into_iter()
            .map(|(dir, shapes)| (dir, shapes.into()))
            .collect();
        // The rules are not made again if nothing has changed.
        if self.current().shapes != shapes {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(Current {
                shapes,
                policies: Mutex::default(),
            });
        }
    }

    /// Reports whether no shape is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current().shapes.is_empty()
    }

    /// Returns the root for work in the directory `dir`: its rule knows the shapes of this directory.
    #[must_use]
    pub fn root_in<'r>(&self, root: &'r Root, dir: &Dir) -> Cow<'r, Root> {
        if root.policy.learn == Learn::Off {
            return Cow::Borrowed(root);
        }
        let current = self.current();
        let id: DirId = dir.id().into();
        let Some(shapes) = current.shapes.get(&id) else {
            return Cow::Borrowed(root);
        };
        let mut policies = guard(&current.policies);
        let known = policies.get(&id);
        let known = known.filter(|known| Arc::ptr_eq(&known.made_from, &root.policy));
        let policy = match known {
            Some(known) => Arc::clone(&known.policy),
            None => {
                let made = Arc::new(Policy {
                    names: root.policy.names.with_shapes(Arc::clone(shapes)),
                    ..Policy::clone(&root.policy)
                });
                let (made_from, policy) = (Arc::clone(&root.policy), Arc::clone(&made));
                policies.insert(id, DirPolicy { made_from, policy });
                made
            }
        };
        Cow::Owned(Root {
            policy,
            ..root.clone()
        })
    }

    /// Replaces the files that only a learned shape takes.
    pub fn set_appeared(&self, files: HashMap<DirId, HashMap<OsString, AppearedFile>>) {
        let mut appeared = self
            .appeared
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *appeared = files;
    }

    /// Returns the file `name` of `dir` if its creation was seen and only a learned shape takes it.
    #[must_use]
    pub fn appeared(&self, dir: &Dir, name: &OsStr) -> Option<AppearedFile> {
        let appeared = self.appeared.read().unwrap_or_else(PoisonError::into_inner);
        // The usual case.
        if appeared.is_empty() {
            return None;
        }
        appeared.get(&dir.id().into())?.get(name).copied()
    }

    /// Reports whether a file is still the one whose creation was seen, whether a learned shape takes it, and whether no
    /// process has read it since its last write. A killed writer's temp is not read. An empty file may be a flag or a
    /// lock.
    pub fn takes(
        &self,
        dir: &Dir,
        names: &Names,
        name: &OsStr,
        seen: &Fingerprint,
    ) -> io::Result<bool> {
        let is_same = self.appeared(dir, name).is_some_and(|file| {
            rule!("appeared-file-is-the-same", AppearedFile::new(seen) == Some(file), without: true)
        });
        let is_told = || names.telling_shape(name.as_bytes(), seen.uid).is_some();
        let has_data = rule!("taken-files-have-data", seen.size > 0, without: true);
        Ok(is_same && has_data && is_told() && !dir.was_read_after_write(name)?)
    }

    fn current(&self) -> Arc<Current> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::time::Duration;

    use super::*;
    use crate::core::learn::{Form, LearnedShape, Place};

    /// A file is taken only as long as it is the one that was seen created, and unread.
    #[test]
    fn another_file_of_the_name_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let root = Root::new(&path, Arc::new(Policy::default()), false).unwrap();
        let dir = Dir::open_root(&path, None).unwrap();
        let name = OsStr::new("data.json.k3j9x2mq");
        fs::write(path.join(name), "{}").unwrap();
        let form = Form::literal(b"data.json.a0z9b1y8").widened(b"data.json.0a9z1b8y");
        let observe = || dir.observe(name).unwrap().unwrap().fingerprint;
        let place = Place {
            dir: dir.id().into(),
            target: b"data.json".to_vec(),
            owner: observe().uid,
        };
        let known = KnownShape {
            dir: path.clone(),
            shape: LearnedShape::stored(place, form.unwrap(), 40, Wall { sec: 1, nsec: 0 }),
            is_learned_well: true,
        };
        let shapes = LearnedShapes::new([&known].into_iter());
        let Some(file) = AppearedFile::new(&observe()) else {
            eprintln!("no creation times here: nothing is ever taken");
            return;
        };
        let takes = || {
            let root = shapes.root_in(&root, &dir);
            shapes
                .takes(&dir, &root.policy.names, name, &observe())
                .unwrap()
        };
        assert!(!takes(), "its creation was not seen");
        let of_dir = HashMap::from([(name.to_owned(), file)]);
        shapes.set_appeared(HashMap::from([(dir.id().into(), of_dir)]));
        assert!(takes());
        let off = Policy {
            learn: Learn::Off,
            ..Policy::default()
        };
        let root_off = Root::new(&path, Arc::new(off), false).unwrap();
        assert!(matches!(shapes.root_in(&root_off, &dir), Cow::Borrowed(_)));
        let opened = File::options().append(true).open(path.join(name)).unwrap();
        let written = opened.metadata().unwrap().modified().unwrap();
        let read = |at| opened.set_times(FileTimes::new().set_accessed(at)).unwrap();
        read(written + Duration::from_nanos(1_000));
        assert!(!takes(), "it was read");
        read(written);
        assert!(takes());
        opened.set_len(0).unwrap();
        assert!(!takes(), "it is empty");
        fs::write(path.join("new"), "{}").unwrap();
        fs::rename(path.join("new"), path.join(name)).unwrap();
        assert!(!takes(), "another file");
    }
}
