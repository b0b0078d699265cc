//! The age of a stored file, as far as its dates can be trusted.

use std::time::Duration;

use super::entry::Entry;
use crate::core::time::Wall;

/// The trust in the dates in a quarantine. The default trusts only [steady](Entry::is_steady) dates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockTrust {
    /// The time for which this process has run. If a clock was set just before its start, all files would be old at
    /// once. So no file is dropped for its age in the first hour, or in the first tenth of a shorter limit, unless the
    /// clocks are known to be [steady](Entry::is_steady).
    pub running: Duration,
    /// The time since the last clock jump (the wall clock and the monotonic clock diverged), if one was noticed. No
    /// file counts as older than that.
    pub since_jump: Option<Duration>,
}

/// The time that [`ClockTrust::running`] must reach at most before ages count.
pub(super) const MIN_RUNNING: Duration = Duration::from_secs(60 * 60);

impl ClockTrust {
    /// Returns the time since `entry` was moved, as far as its date can be trusted.
    fn age(&self, entry: &Entry, now: Wall) -> Duration {
        let unknown = rule!("unknown-move-was-just-now", Duration::ZERO, without: Duration::MAX);
        let age = entry.moved.map_or(unknown, |moved| now.since(moved));
        match (entry.is_steady, self.since_jump) {
            (false, Some(last_jump)) => age.min(last_jump),
            _ => age,
        }
    }

    /// Returns the time until ages up to `limit` count for `entry`.
    fn time_until_trusted(&self, entry: &Entry, limit: Duration) -> Duration {
        match entry.is_steady {
            true => Duration::ZERO,
            false => MIN_RUNNING.min(limit / 10).saturating_sub(self.running),
        }
    }

    /// Returns the time until `entry` is older than `limit`. Zero if it already is.
    fn time_until_older(&self, entry: &Entry, now: Wall, limit: Duration) -> Duration {
        let left = limit.saturating_sub(self.age(entry, now));
        left.max(self.time_until_trusted(entry, limit))
    }
}

/// Compares the ages of stored files with the limit.
#[derive(Clone, Copy)]
pub(super) struct AgeLimit {
    /// The longest time for which a file is kept. Zero means no limit.
    pub(super) longest: Duration,
    pub(super) now: Wall,
    pub(super) trust: ClockTrust,
}

impl AgeLimit {
    /// Reports whether `entry` was kept for longer than the limit.
    pub(super) fn is_exceeded(&self, entry: &Entry) -> bool {
        !self.longest.is_zero() && self.time_left(entry).is_zero()
    }

    /// Returns the time until `entry` is too old. `None` if it already is, or never will be.
    pub(super) fn time_until_exceeded(&self, entry: &Entry) -> Option<Duration> {
        let is_ahead = !self.longest.is_zero() && entry.moved.is_some() && !self.is_exceeded(entry);
        is_ahead.then(|| self.time_left(entry))
    }

    /// Reports whether `entry` was moved at least `span` ago.
    pub(super) fn is_older(&self, entry: &Entry, span: Duration) -> bool {
        let left = self.trust.time_until_older(entry, self.now, span);
        left.is_zero()
    }

    fn time_left(&self, entry: &Entry) -> Duration {
        self.trust.time_until_older(entry, self.now, self.longest)
    }
}
