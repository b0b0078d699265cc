//! The known shapes, by directory.

use crate::core::sort::sort_by;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::shape::{DirId, LearnedShape};
use super::target_shape::TargetShape;

/// A known shape of the names of temps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownShape {
    /// The path of its directory when it was last seen. It is for messages: the identity is in the shape.
    pub dir: PathBuf,
    /// The shape.
    pub shape: LearnedShape,
    /// It is learned well enough for more than a message.
    pub is_learned_well: bool,
}

impl KnownShape {
    /// Returns the shape as one that tells targets, if it is learned well enough.
    #[must_use]
    pub fn telling(&self) -> Option<TargetShape> {
        let is_well = rule!("shape-is-learned-well", self.is_learned_well, without: true);
        is_well.then(|| TargetShape {
            form: self.shape.form.clone(),
            target: self.shape.place.target.clone(),
            owner: self.shape.place.owner,
        })
    }
}

/// The known shapes of all directories.
#[derive(Clone, Debug, Default)]
pub struct KnownShapes {
    dirs: HashMap<DirId, Vec<KnownShape>>,
}

impl FromIterator<KnownShape> for KnownShapes {
    fn from_iter<I: IntoIterator<Item = KnownShape>>(shapes: I) -> KnownShapes {
        let mut dirs = HashMap::<DirId, Vec<KnownShape>>::new();
        for known in shapes {
            dirs.entry(known.shape.place.dir).or_default().push(known);
        }
        for shapes in dirs.values_mut() {
            sort_by(shapes, |a, b| b.is_learned_well.cmp(&a.is_learned_well));
        }
        KnownShapes { dirs }
    }
}

impl KnownShapes {
    /// Returns the shape of the directory `dir` that `name` fits, if there is one: one that is learned well enough
    /// before all others.
    #[must_use]
    pub fn fitting(&self, dir: DirId, name: &[u8]) -> Option<&KnownShape> {
        let mut shapes = self.of_dir(dir).iter();
        shapes.find(|known| known.shape.form.matches(name))
    }

    /// Returns the known shapes of the directory `dir`.
    #[must_use]
    pub fn of_dir(&self, dir: DirId) -> &[KnownShape] {
        self.dirs.get(&dir).map_or(&[], Vec::as_slice)
    }

    /// Returns the shapes of the directory `dir` that tell targets.
    #[must_use]
    pub fn telling_in(&self, dir: DirId) -> Arc<[TargetShape]> {
        self.of_dir(dir)
            .iter()
            .filter_map(KnownShape::telling)
            .collect()
    }

    /// Returns the known shapes of all directories, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &KnownShape> {
        self.dirs.values().flatten()
    }
}
