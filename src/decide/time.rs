//! Moments as values: one clock that can be trusted for spans, one that says what date it is.

use std::time::Duration;

/// A moment on the monotonic clock that stands still while the machine sleeps: nanoseconds since
/// the machine booted (`CLOCK_MONOTONIC` on Linux, `CLOCK_UPTIME_RAW` on macOS).
///
/// Spans of it are what a grace is measured in: a suspended writer does not age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The moment `span` later; the end of time where that does not fit.
    #[must_use]
    pub fn after(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(span)))
    }

    /// The moment `span` earlier, at the earliest the boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(nanos(span)))
    }

    /// How long ago `earlier` was; zero where it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long the machine has been awake since it booted.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A date by the wall clock or by a file system: seconds and nanoseconds since 1970.
///
/// File systems and users may set any date, also one before 1970 or thousands of years ahead, so
/// nothing is computed from it without bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

impl Wall {
    /// How long ago `earlier` was; zero where it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Wall) -> Duration {
        let span = self.as_nanos() - earlier.as_nanos();
        let span = u64::try_from(span.max(0)).unwrap_or(u64::MAX);
        Duration::from_nanos(span)
    }

    pub(crate) fn as_nanos(self) -> i128 {
        i128::from(self.sec) * 1_000_000_000 + i128::from(self.nsec)
    }
}

/// Both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The clock that spans are measured with.
    pub mono: Mono,
    /// The clock that files are dated with.
    pub wall: Wall,
}

/// Notices when the wall clock and the monotonic clock part: the date was set, or the machine
/// slept. What a file's date says about its age is worth nothing beyond that moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockWatch {
    last: Option<Now>,
    parted: Option<Mono>,
}

/// By how much the two clocks may drift apart between two readings before it counts as a jump.
pub(super) const PARTED: Duration = Duration::from_secs(2);

impl ClockWatch {
    /// Takes a reading and says when the clocks last parted, if that was noticed.
    ///
    /// The jump may have happened at any time since the last reading; it counts as *now*, which
    /// makes every file's age the smallest that it can be.
    pub fn read(&mut self, now: Now) -> Option<Mono> {
        if let Some(last) = self.last {
            let walls = now.wall.as_nanos() - last.wall.as_nanos();
            let monos = i128::from(now.mono.0) - i128::from(last.mono.0);
            if (walls - monos).unsigned_abs() > PARTED.as_nanos() {
                self.parted = Some(now.mono);
            }
        }
        self.last = Some(now);
        self.parted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now {
            mono: Mono(mono_s * 1_000_000_000),
            wall: Wall {
                sec: wall_s,
                nsec: 0,
            },
        }
    }

    #[test]
    fn spans_never_go_below_zero_nor_overflow() {
        let early = Mono(5);
        let late = Mono(9);
        assert_eq!(late.since(early), Duration::from_nanos(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(Mono(u64::MAX).after(Duration::MAX), Mono(u64::MAX));
        assert_eq!(early.before(Duration::from_secs(1)), Mono(0));
        let far = Wall {
            sec: i64::MAX,
            nsec: 999_999_999,
        };
        let past = Wall {
            sec: i64::MIN,
            nsec: 0,
        };
        assert_eq!(past.since(far), Duration::ZERO);
        assert_eq!(far.since(past), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn clocks_that_go_together_have_not_parted() {
        let mut clocks = ClockWatch::default();
        assert_eq!(clocks.read(at(100, 1_000)), None);
        assert_eq!(clocks.read(at(200, 1_100)), None);
        assert_eq!(clocks.read(at(300, 1_202)), None, "2 s is slew, not a jump");
    }

    #[test]
    fn a_set_clock_or_a_sleep_is_noticed_and_remembered() {
        for wall in [i64::MIN / 2, 0, 1_000, 1_097, 1_103, 9_000_000_000] {
            let mut clocks = ClockWatch::default();
            clocks.read(at(100, 1_000));
            let jumped = at(200, wall);
            assert_eq!(clocks.read(jumped), Some(jumped.mono), "wall {wall}");
            let later = at(201, wall.saturating_add(1));
            assert_eq!(clocks.read(later), Some(jumped.mono), "wall {wall}");
        }
    }
}
