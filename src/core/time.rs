//! Moments as values: a monotonic clock for durations, and the wall clock for dates.

use std::time::Duration;

/// A moment on the monotonic clock, in nanoseconds since the machine booted. The clock stops while the machine sleeps
/// (`CLOCK_MONOTONIC` on Linux, `CLOCK_UPTIME_RAW` on macOS).
///
/// Graces are measured with this clock, so the time of a suspended writer does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// Returns the moment `span` later, at most the largest value.
    #[must_use]
    pub fn after(self, span: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(span)))
    }

    /// Returns the moment `span` earlier, at the earliest the boot.
    #[must_use]
    pub fn before(self, span: Duration) -> Mono {
        Mono(self.0.saturating_sub(nanos(span)))
    }

    /// Returns the time since `earlier`; zero if that is in the future.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time for which the machine has been awake since it booted.
    #[must_use]
    pub fn since_boot(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// Returns `span` in words for people: `250 ms`, `1.5 s`, `1 min 30 s`, `1 h`, `2 days 7 h`, `3 months`.
///
/// Shows the two largest units, without a unit that is zero, and tenths below 10 s. The rest is truncated.
#[must_use]
pub fn span(span: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = span.as_secs();
    let two = |(unit, name): (u64, &str), (next, next_name): (u64, &str)| {
        let (number, rest) = (seconds / unit, seconds % unit / next);
        match rest {
            0 => format!("{number} {name}"),
            rest => format!("{number} {name} {rest} {next_name}"),
        }
    };
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..10 if span.subsec_millis() >= 100 => {
            format!("{seconds}.{} s", span.subsec_millis() / 100)
        }
        1..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => two((MINUTE, "min"), (1, "s")),
        HOUR..DAY => two((HOUR, "h"), (MINUTE, "min")),
        DAY..172_800 => two((DAY, "day"), (HOUR, "h")),
        172_800..5_184_000 => two((DAY, "days"), (HOUR, "h")),
        5_184_000..63_072_000 => format!("{} months", seconds / (30 * DAY)),
        _ => format!("{} years", seconds / (365 * DAY)),
    }
}

/// Returns `span` in the syntax of the command line and the configuration file: `250ms`, `90s`, `1h`. Uses the largest
/// unit that represents it exactly, down to milliseconds.
#[must_use]
pub fn typed(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let unit = units
        .iter()
        .find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A date by the wall clock or by a file system: seconds and nanoseconds since 1970.
///
/// File systems and users may set any date, also one before 1970 or thousands of years in the future. So every
/// computation with it has bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall {
    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

impl Wall {
    /// Returns the time since `earlier`; zero if that is in the future.
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
    /// The clock for durations.
    pub mono: Mono,
    /// The clock for the dates of files.
    pub wall: Wall,
}

/// Detects jumps of the wall clock relative to the monotonic clock: the date was set, or the machine slept. The date of
/// a file shows its age only back to the last jump.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockJumpDetector {
    last: Option<Now>,
    last_jump: Option<Mono>,
}

/// The largest difference between the two clocks' progress from one reading to the next that is not a jump.
pub(super) const JUMP: Duration = Duration::from_secs(2);

impl ClockJumpDetector {
    /// Takes a reading and returns the moment of the last jump, if one was detected.
    ///
    /// The jump may have happened at any time since the previous reading. It is dated to this reading, which gives
    /// every file the smallest possible age.
    pub fn read(&mut self, now: Now) -> Option<Mono> {
        if let Some(last) = self.last {
            let wall = now.wall.as_nanos() - last.wall.as_nanos();
            let mono = i128::from(now.mono.0) - i128::from(last.mono.0);
            if (wall - mono).unsigned_abs() > JUMP.as_nanos() {
                self.last_jump = Some(now.mono);
            }
        }
        self.last = Some(now);
        self.last_jump
    }

    /// Returns the moment of the last jump, if one was detected.
    #[must_use]
    pub fn last_jump(&self) -> Option<Mono> {
        self.last_jump
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
    fn spans_for_people() {
        for (ms, want) in [
            (0, "0 ms"),
            (100, "100 ms"),
            (1_000, "1 s"),
            (1_040, "1 s"),
            (1_500, "1.5 s"),
            (10_900, "10 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (90_000, "1 min 30 s"),
            (300_000, "5 min"),
            (3_599_000, "59 min 59 s"),
            (3_600_000, "1 h"),
            (3_601_000, "1 h"),
            (5_400_000, "1 h 30 min"),
            (86_400_000, "1 day"),
            (90_000_000, "1 day 1 h"),
            (200_000_000, "2 days 7 h"),
            (7_800_000_000, "3 months"),
            (70_000_000_000, "2 years"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), want, "{ms} ms");
        }
    }

    #[test]
    fn spans_in_config_syntax() {
        for (ms, want) in [
            (0, "0s"),
            (99, "99ms"),
            (1_500, "1500ms"),
            (90_000, "90s"),
            (300_000, "5m"),
            (3_600_000, "1h"),
            (90_000_000, "25h"),
            (604_800_000, "7d"),
        ] {
            assert_eq!(typed(Duration::from_millis(ms)), want, "{ms} ms");
        }
    }

    #[test]
    fn a_small_difference_is_no_jump() {
        let mut clocks = ClockJumpDetector::default();
        assert_eq!(clocks.read(at(100, 1_000)), None);
        assert_eq!(clocks.read(at(200, 1_100)), None);
        assert_eq!(clocks.read(at(300, 1_202)), None, "2 s is slew, not a jump");
    }

    #[test]
    fn a_jump_is_detected_and_remembered() {
        for wall in [i64::MIN / 2, 0, 1_000, 1_097, 1_103, 9_000_000_000] {
            let mut clocks = ClockJumpDetector::default();
            clocks.read(at(100, 1_000));
            let jumped = at(200, wall);
            assert_eq!(clocks.read(jumped), Some(jumped.mono), "wall {wall}");
            let later = at(201, wall.saturating_add(1));
            assert_eq!(clocks.read(later), Some(jumped.mono), "wall {wall}");
        }
    }
}
