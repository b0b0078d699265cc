//! The settings for one root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exclude::Exclude;
use super::temp_name::{Names, ParsedName};
use super::time::typed;

/// The meaning of a close (`--closed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Closed {
    /// A closed temp that was not renamed is an orphan after its grace.
    #[default]
    Orphan,
    /// A close ends the tracking: only a temp that is still open after its grace is considered.
    Settled,
}

/// The action for a temp that a process has open or mapped (`--open`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Open {
    /// It is kept, and its holder is reported.
    #[default]
    Keep,
    /// It is moved to the quarantine.
    Quarantine,
    /// It is removed without any proof that it is unused. Only an explicit option requests this.
    Reap,
}

/// The action for a temp that may be the only copy of its data (`--sole-copy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SoleCopy {
    /// It is moved to the quarantine, from which `restore` can put it back.
    #[default]
    Quarantine,
    /// It is kept where it is.
    Keep,
    /// It is removed like any other orphan.
    Reap,
}

/// The action for an orphan (`--action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Action {
    /// It is deleted.
    #[default]
    Delete,
    /// It is moved to the quarantine.
    Quarantine,
    /// It is only reported (a dry run).
    Report,
}

/// The treatment of a directory in which thousands of temps are created every second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Hot {
    /// It is scanned twice in each grace instead of being watched, until the rate has dropped. This does not slow its
    /// writers, and an orphan is removed at the same time as with a watch.
    #[default]
    Scan,
    /// It is watched like any other directory.
    Watch,
}

/// The use of the shapes of names that a watch learns from healthy renames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Learn {
    /// Nothing is learned, and no shape is used.
    Off,
    /// Shapes are learned and shown. One that is learned well enough tells the target of temps that the rule takes.
    #[default]
    Report,
    /// The same. A watch also moves temps to the quarantine whose names only such a shape matches, if it saw their
    /// creation.
    Take,
}

/// The shortest grace that a rule may have.
pub const SHORTEST_GRACE: Duration = Duration::from_millis(100);

/// The default grace of a name with a random part.
pub const GRACE: Duration = Duration::from_secs(5 * 60);

/// The default grace of a fixed name (`<t>.tmp`). It is long because scripts may append to such a file from time to
/// time without keeping it open. A long grace does no harm, because files with a
/// fixed name cannot accumulate.
pub const FIXED_NAME_GRACE: Duration = Duration::from_secs(60 * 60);

/// The shortest grace, in multiples of the lag of the file's dates. With this value, half the grace is longer than the
/// lag.
const GRACE_PER_LAG: u32 = 3;

/// The longest time until the next look at a temp that is kept for a reason that ends without an event.
const HELD_RETRY: Duration = Duration::from_secs(60);

/// The time without use after which the pid in a temp's name no longer counts. It is limited because pids repeat: a
/// container's process may have the pid 1 or 7 after every restart.
pub const PID_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);

/// The rule for one root. It is immutable; a reload creates a new one.
///
/// Later versions may add fields, so set some of them and take the others from the default:
///
/// ```
/// use orphand::settings::SoleCopy;
/// use orphand::{Names, Policy};
///
/// # fn main() -> Result<(), orphand::settings::NameError> {
/// let policy = Policy {
///     names: Names::new(&["*.tmp", "*.new"], &["git"])?,
///     sole_copy: SoleCopy::Keep,
///     recursive: true,
///     ..Policy::default()
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The base names of temps.
    pub names: Names,
    /// The paths below the root that are ignored, whatever their names.
    pub exclude: Exclude,
    /// The guard file: nothing is taken while a process has it open or locked. The path is absolute, or relative to the
    /// directory of the temp.
    pub unless_open: Option<PathBuf>,
    /// The time for which a temp must be quiet.
    pub grace: Graces,
    /// The meaning of a close.
    pub closed: Closed,
    /// The action for an open temp.
    pub open: Open,
    /// The action for a temp that may be the only copy.
    pub sole_copy: SoleCopy,
    /// The action for an orphan.
    pub action: Action,
    /// True if nothing is changed on disk, as with [`Action::Report`]: what `action` would do is only reported.
    pub dry_run: bool,
    /// True if directories below the root are watched too.
    pub recursive: bool,
    /// The treatment of a directory with a high rate of new temps.
    pub hot: Hot,
    /// The use of learned shapes.
    pub learn: Learn,
    /// Additional file systems on which the proof is trusted, by the kernel's names. The others are those on which the
    /// proof is known to hold.
    pub trusted_file_systems: Vec<String>,
}

/// The time for which a temp must be quiet before it is judged, by the kind of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graces {
    /// The grace for names with a random part.
    pub random: Duration,
    /// The grace for fixed names.
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
    /// Returns the same grace for every kind of name.
    #[must_use]
    pub fn both(grace: Duration) -> Graces {
        Graces {
            random: grace,
            fixed: grace,
        }
    }

    /// Returns the grace for a parsed name.
    #[doc(hidden)]
    #[must_use]
    pub fn of(&self, parsed: &ParsedName) -> Duration {
        let is_slow = rule!("slow-writers-have-the-longer-grace", parsed.is_slow());
        if parsed.is_random && !is_slow {
            self.random
        } else {
            self.fixed
        }
    }

    /// Returns the shorter of the two.
    #[must_use]
    pub fn shortest(&self) -> Duration {
        self.random.min(self.fixed)
    }
}

/// A value, or a combination of values, that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No temp would ever be removed.
    #[error(
        "closed = \"settled\" with open = \"keep\" never removes anything: \
         closed temps are ignored, and open ones are kept; \
         add --open reap (or quarantine), or omit --closed settled"
    )]
    RemovesNothing,
    /// This system does not report closes.
    #[error(
        "closed = \"settled\" needs close events, which this system does not have (FSEvents does not report them); \
         omit it"
    )]
    NoCloseEvents,
    /// The grace is shorter than [`SHORTEST_GRACE`].
    #[error(
        "a grace of {} is too short; the shortest is {}",
        typed(*.0),
        typed(SHORTEST_GRACE)
    )]
    GraceTooShort(Duration),
}

impl Policy {
    /// Checks the values. `close_events` is true if this system reports closes.
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

    /// Reports whether nothing may be changed on disk.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.dry_run || self.action == Action::Report
    }
}

#[doc(hidden)]
impl Policy {
    /// Reports whether the file `name` in the folder `below` is a temp. `below` is relative to the root.
    #[must_use]
    pub fn is_temp(&self, below: &Path, name: &OsStr) -> bool {
        self.names.matches(name.as_bytes())
            && (self.exclude.is_empty() || !self.exclude.excludes(&below.join(name)))
    }

    /// Returns the guard files of the temp `name`: that of the rule, and those of all its writers that may have written a
    /// temp of this name.
    pub fn guard_files<'a>(&'a self, name: &'a OsStr) -> impl Iterator<Item = &'a Path> {
        let of_rule = self.unless_open.as_deref();
        let of_writers = self.names.guards_of(name.as_bytes());
        of_rule.into_iter().chain(of_writers.map(Path::new))
    }

    /// Returns the time for which a temp with the parsed name `parsed` must be quiet.
    ///
    /// The grace of fixed names is for files with content, to which a script appends. An empty file gets the grace of
    /// random names, because it may prevent its own program from starting. `lag` is the longest time by which a change
    /// may be later than the file's dates show; the grace is at least three times as long.
    #[must_use]
    pub fn grace_of(&self, parsed: &ParsedName, is_empty: bool, lag: Duration) -> Duration {
        let grace = match is_empty && !parsed.is_slow() {
            true => self.grace.random,
            false => self.grace.of(parsed),
        };
        let least =
            rule!("coarse-dates-raise-the-grace", lag * GRACE_PER_LAG, without: Duration::ZERO);
        grace.max(SHORTEST_GRACE).max(least)
    }

    /// Returns the grace to which shorter ones are raised if changes may be later by `lag` than the files' dates show;
    /// `None` if no grace is shorter.
    #[must_use]
    pub fn raised_grace(&self, lag: Duration) -> Option<Duration> {
        Some(lag * GRACE_PER_LAG).filter(|least| self.grace.shortest() < *least)
    }
}

/// Returns the minimum gap: the shortest time between the two looks that a removal needs. A temp that existed at the
/// start, or that a sweep found, may be judged after this gap.
///
/// `lag` is the longest time by which a change may be later than the file's dates show. The gap is longer than that:
/// otherwise the second look could miss a change.
#[must_use]
pub fn min_observation_gap(grace: Duration, lag: Duration) -> Duration {
    let least = rule!("coarse-dates-widen-the-gap", lag + lag / 2, without: Duration::ZERO);
    (grace / 2).min(Duration::from_secs(1).max(least))
}

/// Returns the time until the next look at a temp that was kept.
///
/// No event reports that a holder closes a file, a lock is released or a writer exits, and a look costs microseconds.
/// After such a reason (`ends_without_event`) the next look is soon, without doubling. After any other reason it is
/// after the grace, doubled for each of the `times_before` that the temp was kept, up to an hour.
#[must_use]
pub fn retry(grace: Duration, ends_without_event: bool, times_before: u32) -> Duration {
    if ends_without_event {
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
    fn when_a_kept_temp_is_retried() {
        let s = Duration::from_secs;
        for (grace, without_event, before, want) in [
            (s(10), true, 0, s(10)),
            (s(10), true, 9, s(10)),
            (s(300), true, 3, s(60)),
            (s(10), false, 0, s(10)),
            (s(10), false, 3, s(80)),
            (s(10), false, 40, s(3600)),
            (s(7200), false, 5, s(7200)),
        ] {
            assert_eq!(
                retry(grace, without_event, before),
                want,
                "{grace:?} {without_event} {before}"
            );
        }
    }

    #[test]
    fn the_gap_between_looks_is_longer_than_the_lag() {
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
            assert!(
                found > ms(lag),
                "{grace} {lag}: the second look could miss a change"
            );
        }
    }

    #[test]
    fn the_grace_depends_on_name_size_and_lag() {
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
            // An empty file may prevent its program from starting.
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
    fn invalid_values_are_refused() {
        let settled = Policy {
            closed: Closed::Settled,
            ..Policy::default()
        };
        assert_eq!(settled.check(true), Err(PolicyError::RemovesNothing));
        let open_reap = Policy {
            open: Open::Reap,
            ..settled
        };
        assert_eq!(open_reap.check(true), Ok(()));
        assert_eq!(open_reap.check(false), Err(PolicyError::NoCloseEvents));
        let ms = Duration::from_millis;
        let grace = ms(99);
        let (random, fixed) = (grace, grace);
        assert_eq!(Graces::both(grace), Graces { random, fixed });
        for (random, fixed, want) in [
            (100, 100, Ok(())),
            (99, 100, Err(PolicyError::GraceTooShort(ms(99)))),
            (100, 99, Err(PolicyError::GraceTooShort(ms(99)))),
        ] {
            let (random, fixed) = (ms(random), ms(fixed));
            let short = Policy {
                grace: Graces { random, fixed },
                ..Policy::default()
            };
            assert_eq!(short.check(true), want);
        }
        assert_eq!(Policy::default().check(false), Ok(()));
    }

    /// The defaults that the manual states.
    #[test]
    fn the_defaults_are_as_documented() {
        let policy = Policy::default();
        let grace = |name: &str| policy.grace.of(&policy.names.parse(OsStr::new(name)));
        let s = Duration::from_secs;
        assert_eq!(grace("a.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp"), s(300));
        assert_eq!(grace("a.tmp"), s(3_600));
        assert_eq!(policy.grace.shortest(), s(300));
        assert_eq!(PID_VALIDITY, s(86_400));
    }

    #[test]
    fn excluded_paths_are_no_temps() {
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
            let is_temp = policy.is_temp(Path::new(below), OsStr::new(name));
            assert_eq!(is_temp, want, "{:?} {below} {name}", policy.exclude);
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
            let policy = Policy {
                dry_run: true,
                ..policy
            };
            assert!(policy.is_dry_run(), "{action:?}");
        }
    }
}
