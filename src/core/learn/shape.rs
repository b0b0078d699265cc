//! The knowledge about one shape.

use std::time::Duration;

use super::evidence::{ENOUGH_FOR_WORDS, Sample, is_random};
use super::form::Form;
use crate::core::time::Wall;

/// The longest time from the creation to the rename of a healthy write from which a shape is learned.
pub const WRITE_TIME: Duration = Duration::from_secs(60);

/// The number of renames after which a shape is known.
const KNOWN_FROM: u64 = 3;

/// The number of files after which a shape may be learned well enough.
const LEARNED_FROM: u64 = 20;

/// The share of these files that must have been renamed, in percent.
const LEARNED_PERCENT: u64 = 95;

/// The number of samples that are kept for each shape.
const MAX_SAMPLES: usize = 32;

/// The time for which a shape is kept after the last healthy write.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A directory, also after it was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time. A directory that is removed and created again may get the same inode number.
    pub born: Option<Wall>,
}

/// The place that a shape belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The directory of temp and target.
    pub dir: DirId,
    /// The base name of the target.
    pub target: Vec<u8>,
    /// The owner of the files.
    pub owner: u32,
}

/// A shape of names, and the writes that it was learned from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedShape {
    /// The directory, target and owner.
    pub place: Place,
    /// The names.
    pub form: Form,
    /// The number of healthy writes.
    pub writes: u64,
    /// The number of files with this form whose end was seen: a rename, a removal, or none within [`WRITE_TIME`].
    pub ended: u64,
    /// The number of these files that were renamed to the target within [`WRITE_TIME`].
    pub renamed: u64,
    /// A file of this form was read long after its creation, so it is not only the source of a rename.
    pub was_read: bool,
    /// A file of this form was renamed to another name than the target, so a file of this form may be a temp of that one.
    pub has_other_target: bool,
    /// The time of the last healthy write.
    pub last_write: Wall,
    /// The last names, in the order of their creation. A shape that was read from a file has none.
    samples: Vec<Sample>,
    /// The shape was read from a file: its parts were random.
    is_stored: bool,
}

impl LearnedShape {
    /// Creates the shape of the first healthy write.
    #[must_use]
    pub fn new(place: Place, sample: Sample, at: Wall) -> LearnedShape {
        LearnedShape {
            place,
            form: Form::literal(sample.name()),
            writes: 1,
            ended: 1,
            renamed: 1,
            was_read: false,
            has_other_target: false,
            last_write: at,
            samples: vec![sample],
            is_stored: false,
        }
    }

    /// Creates a shape that was known when it was stored, with the number of its writes, without its other counts.
    #[must_use]
    pub fn stored(place: Place, form: Form, writes: u64, last_write: Wall) -> LearnedShape {
        LearnedShape {
            place,
            form,
            writes,
            ended: 0,
            renamed: 0,
            was_read: false,
            has_other_target: false,
            last_write,
            samples: Vec::new(),
            is_stored: true,
        }
    }

    /// Returns the shape as it is after it was stored and read again: without samples, and with whole seconds.
    #[must_use]
    pub fn as_stored(&self) -> LearnedShape {
        let last_write = Wall {
            nsec: 0,
            ..self.last_write
        };
        LearnedShape {
            last_write,
            samples: Vec::new(),
            is_stored: true,
            ..self.clone()
        }
    }

    /// Adds a healthy write, whose name must be in the form.
    pub(super) fn add_write(&mut self, sample: Sample, at: Wall) {
        self.writes = self.writes.saturating_add(1);
        self.renamed = self.renamed.saturating_add(1);
        self.last_write = at;
        self.add_ended(sample);
    }

    /// Adds a file that ended without a rename to the target, or that was renamed late.
    pub(super) fn add_ended(&mut self, sample: Sample) {
        self.ended = self.ended.saturating_add(1);
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.remove(0);
        }
        self.samples.push(sample);
    }

    /// Widens the form so that it includes `sample`, and adds that write. The files before were counted by a narrower
    /// form, so the count begins again. Returns false if no form includes both.
    pub(super) fn widen(&mut self, sample: &Sample, at: Wall) -> bool {
        let Some(form) = self.form.widened(sample.name()) else {
            return false;
        };
        if form == self.form {
            // The name could be a word or a date, so it is not of this form, and its end does not count.
            self.writes = self.writes.saturating_add(1);
            self.last_write = at;
            return true;
        }
        self.form = form;
        (self.ended, self.renamed) = (0, 0);
        self.add_write(sample.clone(), at);
        true
    }

    /// Reports whether the shape is known. `pending` are files of this form whose end was not seen yet, in the order of
    /// their creation.
    #[must_use]
    pub fn is_known(&self, pending: &[Sample]) -> bool {
        let samples = [&*self.samples, pending].concat();
        // The samples of a stored shape are not stored. It has to be proven again once there are enough new ones.
        let few = self.is_stored && samples.len() < ENOUGH_FOR_WORDS;
        self.writes >= KNOWN_FROM && (few || is_random(&self.form, &samples))
    }

    /// Reports whether the shape is learned well enough for more than a message: its names contain the target, and of
    /// at least 20 files 95 % were renamed to it, none to another name, and no file was read later. Its directory has a
    /// birth time: without one, another directory may get its inode number.
    #[must_use]
    pub fn is_learned_well(&self, pending: &[Sample]) -> bool {
        let percent = self.ended.saturating_mul(LEARNED_PERCENT);
        let is_dated = self.place.dir.born.is_some();
        self.ended >= LEARNED_FROM
            && rule!("shape-needs-a-dated-directory", is_dated, without: true)
            && rule!("nearly-all-are-renamed", self.renamed.saturating_mul(100) >= percent, without: true)
            && !rule!("read-files-are-no-temps", self.was_read)
            && !rule!("shape-has-one-target", self.has_other_target)
            && self.form.contains_target(&self.place.target)
            && self.is_known(pending)
    }

    /// Reports whether the last healthy write is too long ago.
    #[must_use]
    pub fn is_expired(&self, now: Wall) -> bool {
        now.since(self.last_write) > KEPT_FOR
    }
}
