//! Sums up how much each writer left behind in each directory in the last hour.
//!
//! There is one sum for each minute, writer and directory, so a storm of leaks needs no more memory than a few leaks.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::time::Mono;

/// The time for which leaks are remembered.
pub const SPAN: Duration = Duration::from_secs(60 * 60);

/// The time that one sum covers.
const MINUTE: Duration = Duration::from_secs(60);

/// The largest number of separate sums in one minute. All further leaks have one common sum.
const MAX_SUMS: usize = 256;

/// The writer that left temps behind, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeakSource {
    /// The program with this name, which was seen while it was running.
    Program(String),
    /// The unknown program that writes the target with this base name.
    WriterOf(String),
    /// Unknown: the name of the temp does not contain its target.
    Unknown,
}

/// A writer that left temps in one directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leak {
    /// The writer.
    pub source: LeakSource,
    /// The directory. `None` for the common sum.
    pub dir: Option<PathBuf>,
}

/// The sum of the leaks of one writer in one directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakSum {
    /// The number of temps.
    pub temps: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

/// The sums of the last hour.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// The sums of each minute, with the start of the minute. The oldest is first.
    minutes: VecDeque<(Mono, HashMap<Leak, LeakSum>)>,
}

impl Leaks {
    /// Records at `now` that the writer of `leak` left one temp with this number of bytes.
    pub fn record(&mut self, now: Mono, leak: Leak, bytes: u64) {
        self.remove_old(now);
        let is_current = |(began, _): &(Mono, _)| now.since(*began) < MINUTE;
        if !self.minutes.back().is_some_and(is_current) {
            self.minutes.push_back((now, HashMap::new()));
        }
        let Some((_, minute)) = self.minutes.back_mut() else {
            return;
        };
        let leak = match minute.len() < MAX_SUMS || minute.contains_key(&leak) {
            true => leak,
            false => Leak {
                source: LeakSource::Unknown,
                dir: None,
            },
        };
        let sum = minute.entry(leak).or_default();
        sum.temps += 1;
        sum.bytes = sum.bytes.saturating_add(bytes);
    }

    /// Returns the sums of the hour before `now`, the largest number of bytes first.
    #[must_use]
    pub fn in_last_hour(&self, now: Mono) -> Vec<(Leak, LeakSum)> {
        let mut sums: HashMap<&Leak, LeakSum> = HashMap::new();
        let recent = |(began, _): &&(Mono, _)| now.since(*began) < SPAN;
        for (leak, more) in self.minutes.iter().filter(recent).flat_map(|(_, m)| m) {
            let sum = sums.entry(leak).or_default();
            sum.temps += more.temps;
            sum.bytes = sum.bytes.saturating_add(more.bytes);
        }
        let mut sums: Vec<_> = sums.into_iter().map(|(l, sum)| (l.clone(), sum)).collect();
        sums.sort_by(|(a, x), (b, y)| {
            let order = (y.bytes, y.temps).cmp(&(x.bytes, x.temps));
            order.then_with(|| a.cmp(b))
        });
        sums
    }

    /// Removes the sums that are older than an hour.
    fn remove_old(&mut self, now: Mono) {
        while let Some((began, _)) = self.minutes.front()
            && now.since(*began) >= SPAN
        {
            self.minutes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Leak {
        Leak {
            source: LeakSource::Program(name.into()),
            dir: Some("/srv/x".into()),
        }
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    #[test]
    fn the_last_hour_is_summed_up() {
        let mut leaks = Leaks::default();
        for second in [0, 1, 59, 60, 1800] {
            leaks.record(at(second), program("a"), 10);
        }
        leaks.record(at(1800), program("b"), 1000);
        let sum = |now: u64, name: &str| {
            let all = leaks.in_last_hour(at(now));
            let found = all.into_iter().find(|(leak, _)| *leak == program(name));
            found.map(|(_, sum)| (sum.temps, sum.bytes))
        };
        for (now, name, want) in [
            (1800, "a", Some((5, 50))),
            (1800, "b", Some((1, 1000))),
            (3599, "a", Some((5, 50))),
            // Now the first minute is more than an hour ago.
            (3600, "a", Some((2, 20))),
            (3660, "a", Some((1, 10))),
            (5400, "a", None),
            (5400, "b", None),
        ] {
            assert_eq!(sum(now, name), want, "{name} at {now} s");
        }
        let order: Vec<_> = leaks.in_last_hour(at(1800)).into_iter().collect();
        assert_eq!(
            order[0].0,
            program("b"),
            "the largest number of bytes first"
        );
    }

    #[test]
    fn the_number_of_sums_is_limited() {
        let mut leaks = Leaks::default();
        for n in 0..10 * MAX_SUMS {
            leaks.record(at(0), program(&n.to_string()), 1);
        }
        let sums = leaks.in_last_hour(at(0));
        assert_eq!(sums.len(), MAX_SUMS + 1);
        let temps: u64 = sums.iter().map(|(_, sum)| sum.temps).sum();
        assert_eq!(temps, 10 * MAX_SUMS as u64, "none is lost");
        for hour in 0..100 {
            leaks.record(at(hour * 3600), program("a"), 1);
        }
        assert_eq!(leaks.minutes.len(), 1);
    }
}
