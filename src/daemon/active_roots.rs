//! The roots and rules in force, which the supervisor replaces and the workers read.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::core::retention::Limits;
use crate::fs::dir::RootId;
use crate::fs::root::{Root, innermost};
use crate::sys::mutex::guard;

/// The rules in force.
#[derive(Debug)]
pub(super) struct ActiveRoots {
    pub(super) roots: Vec<Arc<ActiveRoot>>,
    /// The limits of each quarantine.
    pub(super) limits: Limits,
}

/// A root, and the directory at its path.
#[derive(Debug)]
pub(super) struct ActiveRoot {
    pub(super) root: Root,
    /// The identity of the directory that was last attached at the root's path; `None` while it is unavailable.
    id: Mutex<Option<RootId>>,
}

impl ActiveRoot {
    pub(super) fn id(&self) -> Option<RootId> {
        *guard(&self.id)
    }

    pub(super) fn set_id(&self, id: Option<RootId>) {
        *guard(&self.id) = id;
    }
}

impl ActiveRoots {
    /// Of several roots with the same path, the first one counts.
    pub(super) fn new(mut roots: Vec<Root>, limits: Limits) -> ActiveRoots {
        let mut known = HashSet::new();
        roots.retain(|root| known.insert(root.path.clone()));
        let active = |root| ActiveRoot {
            root,
            id: Mutex::new(None),
        };
        ActiveRoots {
            roots: roots.into_iter().map(active).map(Arc::new).collect(),
            limits,
        }
    }

    pub(super) fn shortest_grace(&self) -> Option<Duration> {
        self.roots().map(|root| root.policy.grace.shortest()).min()
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter().map(|active| &active.root)
    }

    /// Returns the root whose rule covers the directory `dir`, and the path of `dir` relative to it: the innermost root
    /// if there are several.
    pub(super) fn root_of<'a>(&self, dir: &'a Path) -> Option<(&Arc<ActiveRoot>, &'a Path)> {
        let active = innermost(self.roots.iter(), |active| &active.root, dir)?;
        Some((active, active.root.below(dir)?))
    }
}
