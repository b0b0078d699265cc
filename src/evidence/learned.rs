//! The learned shapes that are in force.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::core::learn::{DirId, KnownShape, TargetShape};
use crate::core::policy::Policy;
use crate::fs::dir::Dir;
use crate::fs::root::Root;
use crate::sys::mutex::guard;

/// The learned shapes that tell the targets of temps, by directory. The learning thread of a watcher replaces them.
#[derive(Debug, Default)]
pub struct LearnedShapes {
    current: RwLock<Arc<Current>>,
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
            shapes.sort_by(|a, b| (&a.target, a.form.text()).cmp(&(&b.target, b.form.text())));
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

    fn current(&self) -> Arc<Current> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}
