//! The precision of dates, which limits the accuracy of ages.

use std::time::Duration;

use crate::core::observation::Fingerprint;

/// The precision of a file system's dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dates {
    /// Nanoseconds, from a clock that never runs backwards: the later of two changes never has the earlier date.
    Fine,
    /// `Fine` for a file that has a birth time, else whole seconds. In an inode of 128 bytes, ext4 has no space for the
    /// birth time and the fraction of a second; ext2 never stores them; overlayfs shows the dates of its layers.
    FineIfBorn,
    /// Whole seconds.
    WholeSeconds,
    /// The precision is not known.
    Unknown,
}

impl Dates {
    /// Returns the smallest difference between two different dates. Only if the dates of two changes differ is their
    /// order known.
    #[must_use]
    pub fn step(self, file: &Fingerprint) -> Duration {
        match (self, file.btime) {
            (Dates::Fine, _) | (Dates::FineIfBorn, Some(_)) => NANOSECOND,
            (Dates::FineIfBorn, None) | (Dates::WholeSeconds, _) => Duration::from_secs(1),
            // The step of FAT, the longest of all file systems on Linux and macOS.
            (Dates::Unknown, _) => Duration::from_secs(2),
        }
    }

    /// Returns the longest time by which a change of the file may be later than its dates show, as far as that matters
    /// for its grace: the step of coarse dates, else zero.
    #[must_use]
    pub fn lag(self, file: &Fingerprint) -> Duration {
        match self.step(file) {
            NANOSECOND => Duration::ZERO,
            step => step,
        }
    }

    /// Returns the lag of files with such dates, as far as it is known without looking at one of the files.
    #[must_use]
    pub fn usual_lag(self) -> Duration {
        match self {
            Dates::Fine | Dates::FineIfBorn => Duration::ZERO,
            Dates::WholeSeconds => Duration::from_secs(1),
            Dates::Unknown => Duration::from_secs(2),
        }
    }
}

/// The step of fine dates.
const NANOSECOND: Duration = Duration::from_nanos(1);
