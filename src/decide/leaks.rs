//! Who leaks: how much each writer left behind in each directory in the last hour.
//!
//! Kept in sums a minute each, so that a storm of leaks costs no more memory than a few.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use super::time::Mono;

/// How far it looks back.
pub const SPAN: Duration = Duration::from_secs(60 * 60);

/// How finely it looks.
const MINUTE: Duration = Duration::from_secs(60);

/// The most writers and directories that one minute tells apart; what is beyond is summed up.
const MOST: usize = 256;

/// Who left temps behind, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeakSource {
    /// The program of this name: it was seen while it lived.
    Program(String),
    /// Whoever writes the target of this base name.
    WriterOf(String),
    /// A name that does not say what it was to become.
    Unknown,
}

/// One writer in one directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leak {
    /// Who.
    pub source: LeakSource,
    /// Where; `None` for what was too much to be told apart.
    pub dir: Option<PathBuf>,
}

/// How much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeakSum {
    /// Temps.
    pub temps: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The sums of the last hour.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// The oldest first, each with when it began.
    minutes: VecDeque<(Mono, HashMap<Leak, LeakSum>)>,
}

impl Leaks {
    /// Notes at `now` that `leak` left one temp of so many bytes.
    pub fn record(&mut self, now: Mono, leak: Leak, bytes: u64) {
        self.forget(now);
        let fresh = |(began, _): &(Mono, _)| now.since(*began) < MINUTE;
        if !self.minutes.back().is_some_and(fresh) {
            self.minutes.push_back((now, HashMap::new()));
        }
        let Some((_, minute)) = self.minutes.back_mut() else {
            return;
        };
        let leak = match minute.len() < MOST || minute.contains_key(&leak) {
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

    /// The sums of the hour before `now`, the most bytes first.
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

    fn forget(&mut self, now: Mono) {
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
    fn an_hour_is_summed_up_and_what_is_older_forgotten() {
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
            // The first minute is over an hour ago now.
            (3600, "a", Some((2, 20))),
            (3660, "a", Some((1, 10))),
            (5400, "a", None),
            (5400, "b", None),
        ] {
            assert_eq!(sum(now, name), want, "{name} at {now} s");
        }
        let order: Vec<_> = leaks.in_last_hour(at(1800)).into_iter().collect();
        assert_eq!(order[0].0, program("b"), "the most bytes first");
    }

    #[test]
    fn many_writers_cost_no_more_than_some() {
        let mut leaks = Leaks::default();
        for n in 0..10 * MOST {
            leaks.record(at(0), program(&n.to_string()), 1);
        }
        let sums = leaks.in_last_hour(at(0));
        assert_eq!(sums.len(), MOST + 1);
        let temps: u64 = sums.iter().map(|(_, sum)| sum.temps).sum();
        assert_eq!(temps, 10 * MOST as u64, "none is lost");
        for hour in 0..100 {
            leaks.record(at(hour * 3600), program("a"), 1);
        }
        assert_eq!(leaks.minutes.len(), 1);
    }
}
