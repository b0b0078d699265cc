//! What the user wants for a root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::exclude::Exclude;
use super::temp_name::{Names, ParsedName};
use super::time::typed;

/// What a close means (`--closed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Closed {
    /// A closed temp that nobody renamed is an orphan after its grace.
    #[default]
    Orphan,
    /// A close ends the tracking: only what is still open after its grace is considered.
    Settled,
}

/// What happens to a temp that a live process holds (`--open`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Open {
    /// It stays, and its holder is named.
    #[default]
    Keep,
    /// It is moved to the quarantine.
    Quarantine,
    /// It is removed, without any proof that nobody needs it: the user's explicit wish.
    Reap,
}

/// What happens to a temp that may be the only copy of somebody's data (`--sole-copy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SoleCopy {
    /// It is moved to the quarantine, from where `restore` brings it back.
    #[default]
    Quarantine,
    /// It stays where it is.
    Keep,
    /// It is removed like any other.
    Reap,
}

/// What happens to an orphan (`--action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Action {
    /// It is deleted.
    #[default]
    Delete,
    /// It is moved to the quarantine.
    Quarantine,
    /// It is only reported: the dry run.
    Report,
}

/// How a directory is followed in which thousands of temps are created every second
/// ([`super::rate`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hot {
    /// It is scanned twice in each grace instead of being watched, until it is calm again: its
    /// writers are not slowed, and an orphan goes at the same time.
    #[default]
    Scan,
    /// It is watched like any other.
    Watch,
}

/// The shortest grace that is taken, in any rule.
pub const SHORTEST_GRACE: Duration = Duration::from_millis(100);

/// The default grace of a name with a random part.
pub const GRACE: Duration = Duration::from_secs(5 * 60);

/// The default grace of a fixed name (`<t>.tmp`): scripts append to such a file now and then
/// without holding it in between, and fixed names never pile up.
pub const FIXED_NAME_GRACE: Duration = Duration::from_secs(60 * 60);

/// So many times the lag of a file's dates its grace is, at the least: then half of it is longer than the lag.
const LAGS: u32 = 3;

/// How often a temp that somebody holds is looked at again, at the most.
const HELD_RETRY: Duration = Duration::from_secs(60);

/// How long after it was written no pid in a name counts any more: in a container the pid is 1 or
/// 7 after every restart.
pub const PID_FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// The rule for one root. Immutable once built; a reload makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Which base names are temps.
    pub names: Names,
    /// What is left alone below the root, whatever its name.
    pub exclude: Exclude,
    /// How long a temp must be quiet.
    pub grace: Graces,
    /// What a close means.
    pub closed: Closed,
    /// What happens to a held temp.
    pub open: Open,
    /// What happens to a possible only copy.
    pub sole_copy: SoleCopy,
    /// What happens to an orphan.
    pub action: Action,
    /// Whether directories below the root are watched too.
    pub recursive: bool,
    /// How a hot directory is followed.
    pub hot: Hot,
    /// File systems, by the name that the kernel gives them, on which the proof is trusted beside
    /// those where it is known to hold.
    pub trusted_file_systems: Vec<String>,
}

/// How long a temp must be quiet before it is judged, by the kind of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graces {
    /// For names with a random part.
    pub random: Duration,
    /// For fixed names.
    pub fixed: Duration,
}

impl Default for Graces {
    fn default() -> Graces {
        Graces {
            random: GRACE,
            fixed: FIXED_NAME_GRACE,
        }
    }
}

impl Graces {
    /// The same grace for every name.
    #[must_use]
    pub fn both(grace: Duration) -> Graces {
        Graces {
            random: grace,
            fixed: grace,
        }
    }

    /// The grace of the name that `parsed` was read from.
    #[must_use]
    pub fn of(&self, parsed: &ParsedName) -> Duration {
        if parsed.is_random {
            self.random
        } else {
            self.fixed
        }
    }

    /// The shorter of the two.
    #[must_use]
    pub fn shortest(&self) -> Duration {
        self.random.min(self.fixed)
    }
}

/// A combination of values that cannot mean anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Nothing would ever be removed.
    #[error(
        "closed = \"settled\" with open = \"keep\" removes nothing, ever: \
         what is closed is left alone and what is open is kept; \
         say --open reap (or quarantine) too, or leave --closed settled out"
    )]
    RemovesNothing,
    /// A close is not reported here.
    #[error(
        "closed = \"settled\" needs a system that reports a close, and this one does not \
         (FSEvents has no such event); leave it out"
    )]
    NoCloseEvents,
    /// Shorter than [`SHORTEST_GRACE`].
    #[error(
        "a grace of {} is too short to prove anything; the shortest is {}",
        typed(*.0),
        typed(SHORTEST_GRACE)
    )]
    GraceTooShort(Duration),
}

impl Policy {
    /// Refuses what cannot mean anything.
    pub fn check(&self, close_events: bool) -> Result<(), PolicyError> {
        if self.closed == Closed::Settled {
            if self.open == Open::Keep {
                return Err(PolicyError::RemovesNothing);
            }
            if !close_events {
                return Err(PolicyError::NoCloseEvents);
            }
        }
        match self.grace.shortest() {
            grace if grace < SHORTEST_GRACE => Err(PolicyError::GraceTooShort(grace)),
            _ => Ok(()),
        }
    }

    /// Whether a file called `name` in the folder `below`, the way to it from the root, is a temp.
    #[must_use]
    pub fn takes(&self, below: &Path, name: &OsStr) -> bool {
        self.names.matches(name.as_bytes())
            && (self.exclude.is_empty() || !self.exclude.excludes(&below.join(name)))
    }

    /// Returns how long a temp must be quiet: one with a name that says `parsed`.
    ///
    /// The grace of fixed names is for files with content, to which a script appends. An empty one waits no longer than
    /// one with a random name: it may keep its own program from starting. Where a file may have changed by `lag` later
    /// than its dates say, the grace is three times as long at the least.
    #[must_use]
    pub fn grace_of(&self, parsed: &ParsedName, is_empty: bool, lag: Duration) -> Duration {
        let grace = match is_empty {
            true => self.grace.random,
            false => self.grace.of(parsed),
        };
        let least = rule!("coarse-dates-raise-the-grace", lag * LAGS, without: Duration::ZERO);
        grace.max(SHORTEST_GRACE).max(least)
    }

    /// Returns the grace that short ones are raised to where files may have changed by `lag` later than their dates say;
    /// `None` where none is shorter.
    #[must_use]
    pub fn raised_grace(&self, lag: Duration) -> Option<Duration> {
        Some(lag * LAGS).filter(|least| self.grace.shortest() < *least)
    }

    /// Whether nothing is to be changed on disk.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.action == Action::Report
    }
}

/// The span between the two looks that a temp found by a scan gets. `lag` is by how much later than its dates say a
/// file may have changed: the looks are further apart than that, or the second one could not see a change.
#[must_use]
pub fn min_observation_gap(grace: Duration, lag: Duration) -> Duration {
    let least = rule!("coarse-dates-part-the-looks", lag + lag / 2, without: Duration::ZERO);
    (grace / 2).min(Duration::from_secs(1).max(least))
}

/// How long until a temp that was kept for `reason_ends_silently` is looked at again.
///
/// A holder, a lock and a live writer end without an event, and a look costs microseconds: these
/// are asked for again soon, without doubling. Everything else waits the grace, doubled for each
/// time before, up to an hour.
#[must_use]
pub fn retry(grace: Duration, reason_ends_silently: bool, times_before: u32) -> Duration {
    if reason_ends_silently {
        return grace.min(HELD_RETRY);
    }
    let hour = Duration::from_secs(60 * 60);
    let factor = 1u32.checked_shl(times_before.min(31)).unwrap_or(u32::MAX);
    grace.saturating_mul(factor).min(hour.max(grace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries() {
        let s = Duration::from_secs;
        for (grace, silent, before, want) in [
            (s(10), true, 0, s(10)),
            (s(10), true, 9, s(10)),
            (s(300), true, 3, s(60)),
            (s(10), false, 0, s(10)),
            (s(10), false, 3, s(80)),
            (s(10), false, 40, s(3600)),
            (s(7200), false, 5, s(7200)),
        ] {
            assert_eq!(
                retry(grace, silent, before),
                want,
                "{grace:?} {silent} {before}"
            );
        }
    }

    #[test]
    fn confirms() {
        let ms = Duration::from_millis;
        for (grace, lag, want) in [
            (100, 0, 50),
            (300_000, 0, 1_000),
            (3_000, 1_000, 1_500),
            (300_000, 1_000, 1_500),
            (6_000, 2_000, 3_000),
        ] {
            let found = min_observation_gap(ms(grace), ms(lag));
            assert_eq!(found, ms(want), "{grace} {lag}");
            assert!(found > ms(lag), "{grace} {lag}: a change would not be seen");
        }
    }

    #[test]
    fn which_grace_holds() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        let default = Policy::default();
        let short = Policy {
            grace: Graces::both(ms(500)),
            ..Policy::default()
        };
        let uuid = "a.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp";
        for (policy, name, is_empty, lag, want) in [
            (&default, uuid, false, 0, s(300)),
            (&default, uuid, true, 0, s(300)),
            (&default, "a.tmp", false, 0, s(3_600)),
            // An empty one may keep its program from starting.
            (&default, "a.tmp", true, 0, s(300)),
            (&short, "a.tmp", false, 0, ms(500)),
            // Dates of whole seconds.
            (&short, "a.tmp", false, 1, s(3)),
            (&short, uuid, true, 2, s(6)),
            (&default, uuid, false, 1, s(300)),
        ] {
            let parsed = policy.names.parse(OsStr::new(name));
            let found = policy.grace_of(&parsed, is_empty, s(lag));
            assert_eq!(found, want, "{name} {is_empty} {lag}");
        }
        assert_eq!(short.raised_grace(s(1)), Some(s(3)));
        assert_eq!(short.raised_grace(Duration::ZERO), None);
        assert_eq!(default.raised_grace(s(1)), None);
    }

    #[test]
    fn combinations_that_mean_nothing_are_refused() {
        let settled = Policy {
            closed: Closed::Settled,
            ..Policy::default()
        };
        assert_eq!(settled.check(true), Err(PolicyError::RemovesNothing));
        let letter = Policy {
            open: Open::Reap,
            ..settled
        };
        assert_eq!(letter.check(true), Ok(()));
        assert_eq!(letter.check(false), Err(PolicyError::NoCloseEvents));
        let ms = Duration::from_millis;
        let one = ms(99);
        let (random, fixed) = (one, one);
        assert_eq!(Graces::both(one), Graces { random, fixed });
        for (random, fixed, want) in [
            (100, 100, Ok(())),
            (99, 100, Err(PolicyError::GraceTooShort(ms(99)))),
            (100, 99, Err(PolicyError::GraceTooShort(ms(99)))),
        ] {
            let (random, fixed) = (ms(random), ms(fixed));
            let hasty = Policy {
                grace: Graces { random, fixed },
                ..Policy::default()
            };
            assert_eq!(hasty.check(true), want);
        }
        assert_eq!(Policy::default().check(false), Ok(()));
    }

    /// The figures that the manual gives.
    #[test]
    fn what_holds_without_a_rule() {
        let policy = Policy::default();
        let grace = |name: &str| policy.grace.of(&policy.names.parse(OsStr::new(name)));
        let s = Duration::from_secs;
        assert_eq!(grace("a.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp"), s(300));
        assert_eq!(grace("a.tmp"), s(3_600));
        assert_eq!(policy.grace.shortest(), s(300));
        assert_eq!(PID_FORGOTTEN, s(86_400));
    }

    #[test]
    fn what_a_rule_takes_below_its_root() {
        let excluding = Policy {
            exclude: Exclude::new(&["cache"]).expect("a glob"),
            ..Policy::default()
        };
        for (policy, below, name, want) in [
            (&Policy::default(), "cache", "a.tmp", true),
            (&Policy::default(), "", "a.txt", false),
            (&excluding, "", "a.tmp", true),
            (&excluding, "a", "a.tmp", true),
            (&excluding, "a", "a.txt", false),
            (&excluding, "cache/b", "a.tmp", false),
            (&excluding, "cache", "a.txt", false),
        ] {
            let taken = policy.takes(Path::new(below), OsStr::new(name));
            assert_eq!(taken, want, "{:?} {below} {name}", policy.exclude);
        }
    }

    #[test]
    fn only_a_report_is_a_dry_run() {
        for (action, want) in [
            (Action::Delete, false),
            (Action::Quarantine, false),
            (Action::Report, true),
        ] {
            let policy = Policy {
                action,
                ..Policy::default()
            };
            assert_eq!(policy.is_dry_run(), want, "{action:?}");
        }
    }
}
