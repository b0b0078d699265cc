//! Learned writers: the shapes of the names of temps, learned from healthy renames.
//!
//! A watch sees that `data.json.741603160` is created and renamed to `data.json`, then `data.json.582190334`, and so
//! on. From three such renames the *shape* of these names follows: `data.json.` and nine random digits. A shape belongs
//! to one directory, one target and one owner.
//!
//! A wrong shape can cost a file, so these are not random parts of a name: parts that only rise (counters), dates,
//! times since 1970 and related numbers, words, and parts of fewer than [`MIN_RANDOM`] characters. A shape is used for
//! more than a message only if it is *learned well enough*: see [`LearnedShape::is_learned_well`].
//!
//! - `form`: literals, exact lengths and classes: the names that a shape includes
//! - `evidence`: decides whether a part of these names is random
//! - `shape`: the knowledge about one shape
//! - `learner`: from creations and renames to shapes, in bounded memory
//! - `known`: the shape that a name fits
//! - `target_shape`: the target of a name

mod evidence;
mod form;
mod known;
mod learner;
mod shape;
mod target_shape;
#[cfg(test)]
mod tests;

pub use evidence::Sample;
pub use form::{Class, Form, MIN_RANDOM, Part};
pub use known::{KnownShape, KnownShapes};
pub use learner::{Created, LateFile, Learner, MAX_PENDING, MAX_SHAPES, Renamed};
pub use shape::{DirId, LearnedShape, Place, WRITE_TIME};
pub use target_shape::{TargetShape, telling};
