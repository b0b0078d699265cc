//! From creations and renames to shapes, in bounded memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::evidence::Sample;
use super::shape::{DirId, LearnedShape, Place, WRITE_TIME};
use crate::core::own_names::is_own;
use crate::core::reserved;
use crate::core::sort::sort_by;
use crate::core::time::{Mono, Wall};

/// The number of created files whose end is awaited. Further ones are not followed: neither their creation nor their
/// rename counts.
pub const MAX_PENDING: usize = 4_096;

/// The number of shapes, known or not. The one whose last write is the oldest makes room for a new one.
pub const MAX_SHAPES: usize = 512;

/// The number of shapes of one directory, target and owner.
const MAX_SHAPES_OF_PLACE: usize = 8;

/// A file that was created in a watched directory.
#[derive(Clone, Copy, Debug)]
pub struct Created<'a> {
    /// The directory.
    pub dir: DirId,
    /// The base name.
    pub name: &'a [u8],
    /// The time of the creation.
    pub at: Mono,
}

/// A file that was renamed within its directory.
#[derive(Clone, Copy, Debug)]
pub struct Renamed<'a> {
    /// The directory.
    pub dir: DirId,
    /// Its name before.
    pub temp: &'a [u8],
    /// Its name afterwards.
    pub target: &'a [u8],
    /// The owner of the file.
    pub owner: u32,
    /// Its birth time.
    pub born: Option<Wall>,
    /// The time of the rename, by both clocks.
    pub at: Mono,
    /// The same by the wall clock.
    pub wall: Wall,
}

/// A file that was not renamed within [`WRITE_TIME`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateFile {
    /// The directory.
    pub dir: DirId,
    /// The base name.
    pub name: Vec<u8>,
    /// The time of its creation.
    pub created: Mono,
}

/// Learns shapes from what is seen of some or all files. A file is *followed* from [`Learner::created`] to its end.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    /// The followed files, with the time of their creation.
    pending: HashMap<DirId, BTreeMap<Vec<u8>, Mono>>,
    pending_count: usize,
    shapes: HashMap<DirId, Vec<LearnedShape>>,
    shape_count: usize,
}

impl Learner {
    /// Follows a file that was created. Returns false if it is not followed, because there are too many or because its
    /// name is never that of a temp.
    pub fn created(&mut self, file: Created<'_>) -> bool {
        if self.pending_count >= MAX_PENDING || is_never_learned(file.name) {
            return false;
        }
        let pending = self.pending.entry(file.dir).or_default();
        if pending.insert(file.name.to_vec(), file.at).is_none() {
            self.pending_count += 1;
        }
        true
    }

    /// Learns from a rename of a followed file.
    pub fn renamed(&mut self, file: &Renamed<'_>) {
        let Some(created) = self.take_pending(file.dir, file.temp) else {
            return;
        };
        let sample = Sample::new(file.temp, file.born);
        self.note_target(file);
        if file.at.since(created) > WRITE_TIME || file.temp == file.target {
            return self.end(file.dir, &sample);
        }
        let place = Place {
            dir: file.dir,
            target: file.target.to_vec(),
            owner: file.owner,
        };
        let shapes = self.shapes.entry(file.dir).or_default();
        // The file ends also for shapes of other targets and owners, which its name fits too.
        for other in shapes.iter_mut().filter(|shape| shape.place != place) {
            if other.form.matches(file.temp) {
                other.add_ended(sample.clone());
            }
        }
        let mut own: Vec<&mut LearnedShape> = shapes
            .iter_mut()
            .filter(|shape| shape.place == place)
            .collect();
        if let Some(shape) = own.iter_mut().find(|shape| shape.form.matches(file.temp)) {
            return shape.add_write(sample, file.wall);
        }
        if own.iter_mut().any(|shape| shape.widen(&sample, file.wall)) {
            return;
        }
        let is_full = own.len() >= MAX_SHAPES_OF_PLACE;
        if is_full {
            let oldest = shapes
                .iter()
                .enumerate()
                .filter(|(_, shape)| shape.place == place)
                .min_by_key(|(_, shape)| shape.last_write)
                .map(|(index, _)| index);
            oldest.map(|oldest| shapes.remove(oldest));
            self.shape_count = self.shape_count.saturating_sub(1);
        }
        shapes.push(LearnedShape::new(place, sample, file.wall));
        self.shape_count += 1;
        if self.shape_count > MAX_SHAPES {
            self.forget_oldest();
        }
    }

    /// Notes for the shapes of other targets that a file of their form was renamed to this one.
    fn note_target(&mut self, file: &Renamed<'_>) {
        for shape in self.shapes.get_mut(&file.dir).into_iter().flatten() {
            let is_other = shape.place.target != file.target;
            shape.has_other_target |= is_other && shape.form.matches(file.temp);
        }
    }

    /// Notes that a followed file was removed, or renamed to another directory.
    pub fn removed(&mut self, dir: DirId, name: &[u8]) {
        if self.take_pending(dir, name).is_some() {
            self.end(dir, &Sample::without_times(name));
        }
    }

    /// Notes that a file that was created long ago was read: its name is not only the source of a rename.
    pub fn was_read(&mut self, dir: DirId, name: &[u8]) {
        for shape in self.shapes.get_mut(&dir).into_iter().flatten() {
            shape.was_read |= shape.form.matches(name);
        }
    }

    /// Reports whether a name in a directory fits a shape, known or not.
    #[must_use]
    pub fn fits_shape(&self, dir: DirId, name: &[u8]) -> bool {
        let mut shapes = self.shapes.get(&dir).into_iter().flatten();
        shapes.any(|shape| shape.form.matches(name))
    }

    /// Ends the files that were not renamed within [`WRITE_TIME`], and forgets the shapes without a write for a month.
    /// Returns these files.
    pub fn expire(&mut self, now: Mono, wall: Wall) -> Vec<LateFile> {
        let mut late = Vec::new();
        for (dir, pending) in &mut self.pending {
            let is_late = |_: &Vec<u8>, created: &mut Mono| now.since(*created) > WRITE_TIME;
            let mut ended: Vec<(Vec<u8>, Mono)> = Vec::new();
            pending.retain(|name, created| {
                let is_late = is_late(name, created);
                if is_late {
                    ended.push((name.clone(), *created));
                }
                !is_late
            });
            sort_by(&mut ended, |(_, a), (_, b)| a.cmp(b));
            late.extend(ended.into_iter().map(|(name, created)| LateFile {
                dir: *dir,
                name,
                created,
            }));
        }
        self.pending.retain(|_, pending| !pending.is_empty());
        self.pending_count -= late.len();
        for file in &late {
            self.end(file.dir, &Sample::without_times(&file.name));
        }
        for shapes in self.shapes.values_mut() {
            shapes.retain(|shape| !shape.is_expired(wall));
        }
        self.shapes.retain(|_, shapes| !shapes.is_empty());
        self.shape_count = self.shapes.values().map(Vec::len).sum();
        late
    }

    /// Forgets the followed files, because events were lost: their ends may never be seen.
    pub fn forget_pending(&mut self) {
        self.pending = HashMap::new();
        self.pending_count = 0;
    }

    /// Adds a shape that was stored.
    pub fn add(&mut self, shape: LearnedShape) {
        if self.shape_count < MAX_SHAPES {
            self.shapes.entry(shape.place.dir).or_default().push(shape);
            self.shape_count += 1;
        }
    }

    /// Returns the known shapes, each with true if it is learned well enough for more than a message.
    #[must_use]
    pub fn known(&self) -> Vec<(LearnedShape, bool)> {
        let mut known = Vec::new();
        for shape in self.shapes.values().flatten() {
            let pending = self.pending_of(shape);
            if shape.is_known(&pending) {
                known.push((shape.clone(), shape.is_learned_well(&pending)));
            }
        }
        known
    }

    /// Returns the shapes that are learned well enough for more than a message.
    #[must_use]
    pub fn learned_well(&self) -> Vec<&LearnedShape> {
        let is_well = |shape: &&LearnedShape| {
            // Most shapes are not, without the followed files.
            shape.is_learned_well(&[]) && shape.is_learned_well(&self.pending_of(shape))
        };
        self.shapes.values().flatten().filter(is_well).collect()
    }

    /// Returns the time until a followed file is late.
    #[must_use]
    pub fn next_late(&self, now: Mono) -> Option<Duration> {
        let created = self.pending.values().flat_map(BTreeMap::values).min()?;
        Some(created.after(WRITE_TIME).since(now))
    }

    /// Reports whether there are shapes or followed files in a directory.
    #[must_use]
    pub fn has_shapes_in(&self, dir: DirId) -> bool {
        self.shapes.contains_key(&dir) || self.pending.contains_key(&dir)
    }

    /// Returns the number of followed files.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.pending_count
    }

    /// Returns the number of shapes, known or not.
    #[must_use]
    pub fn shape_count(&self) -> usize {
        self.shape_count
    }

    fn take_pending(&mut self, dir: DirId, name: &[u8]) -> Option<Mono> {
        let pending = self.pending.get_mut(&dir)?;
        let created = pending.remove(name)?;
        if pending.is_empty() {
            self.pending.remove(&dir);
        }
        self.pending_count -= 1;
        Some(created)
    }

    /// Returns the followed files that fit the shape, in the order of their creation.
    fn pending_of(&self, shape: &LearnedShape) -> Vec<Sample> {
        let pending = self.pending.get(&shape.place.dir).into_iter().flatten();
        let mut fitting: Vec<_> = pending
            .filter(|(name, _)| shape.form.matches(name))
            .collect();
        sort_by(&mut fitting, |(_, a), (_, b)| a.cmp(b));
        // Their birth times are not known, but they are not needed: the names that were renamed have theirs.
        let samples = fitting.into_iter();
        samples
            .map(|(name, _)| Sample::without_times(name))
            .collect()
    }

    fn end(&mut self, dir: DirId, sample: &Sample) {
        for shape in self.shapes.get_mut(&dir).into_iter().flatten() {
            if shape.form.matches(sample.name()) {
                shape.add_ended(sample.clone());
            }
        }
    }

    fn forget_oldest(&mut self) {
        let all = self.shapes.iter();
        let all = all
            .flat_map(|(dir, shapes)| (0..).zip(shapes).map(|(index, shape)| (*dir, index, shape)));
        let oldest = all.min_by_key(|(_, _, shape)| shape.last_write);
        let Some((dir, index, _)) = oldest else {
            return;
        };
        if let Some(shapes) = self.shapes.get_mut(&dir) {
            shapes.remove(index);
            if shapes.is_empty() {
                self.shapes.remove(&dir);
            }
            self.shape_count -= 1;
        }
    }
}

/// Reports whether nothing is learned from files with this name: orphand's own, and reserved ones.
fn is_never_learned(name: &[u8]) -> bool {
    name.is_empty() || is_own(OsStr::from_bytes(name)) || reserved::rows(name).next().is_some()
}
