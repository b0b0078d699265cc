//! *Is a directory hot?* A pure decision: the moments of creations are arguments.
//!
//! In a hot directory temps are created at such a rate that the event of each costs more than it is worth. orphand
//! needs to know nothing about a temp before its grace is over. As long as the rate is low in all directories, counting
//! a creation is one addition.

use std::collections::HashMap;
use std::time::Duration;

use super::time::Mono;

/// The number of temps created in one directory per second that makes it hot, if it is reached in each of
/// [`CONSECUTIVE_SECONDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(pub u32);

/// The number of consecutive seconds in which a directory must reach the threshold.
pub const CONSECUTIVE_SECONDS: u8 = 3;

/// The time for which a hot directory is watched again, to find out whether it is calm.
pub const PROBE_TIME: Duration = Duration::from_millis(100);

impl Default for Threshold {
    fn default() -> Threshold {
        Threshold(2_000)
    }
}

impl Threshold {
    /// Returns the number within one second that makes a directory hot immediately. The events of a directory that is
    /// written at full speed would cost more in three seconds than scans do in minutes.
    fn immediate(self) -> u32 {
        self.0.saturating_mul(5)
    }

    /// Returns the number in all directories within one second above which each directory is counted separately. The
    /// creations before that are not counted for any directory.
    fn count_separately(self) -> u32 {
        self.0 / 2
    }

    /// Reports whether this number of creations within [`PROBE_TIME`] is calm. That is less than half the rate that
    /// makes a directory hot, so that a directory at the threshold does not change its state again and again.
    #[must_use]
    pub fn is_calm(self, created: u32) -> bool {
        created < self.0.div_ceil(20)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Counts the created temps of each second.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    threshold: Threshold,
    /// The start of the current second.
    second_start: Mono,
    /// The number of temps created in this second in all directories.
    total: u32,
    /// The counts of single directories. Empty while the rate is low.
    dirs: HashMap<Box<[u8]>, WindowCount>,
}

/// The count of one directory.
#[derive(Clone, Copy, Debug, Default)]
struct WindowCount {
    /// The number of temps created in this second.
    created: u32,
    /// The number of consecutive full seconds before this one that reached the threshold.
    seconds: u8,
}

impl RateMeter {
    /// Creates a meter that has counted no temps yet.
    #[must_use]
    pub fn new(threshold: Threshold) -> RateMeter {
        RateMeter {
            threshold,
            ..RateMeter::default()
        }
    }

    /// Counts a temp that was created in the directory `dir`. Reports whether that makes the directory hot. Returns
    /// true at most twice a second for each directory.
    pub fn count(&mut self, dir: &[u8], now: Mono) -> bool {
        if now.since(self.second_start) >= SECOND {
            self.begin_second(now);
        }
        self.total = self.total.saturating_add(1);
        if self.total <= self.threshold.count_separately() && self.dirs.is_empty() {
            return false;
        }
        let Some(count) = self.dirs.get_mut(dir) else {
            let first = WindowCount {
                created: 1,
                seconds: 0,
            };
            self.dirs.insert(dir.into(), first);
            return false;
        };
        count.created = count.created.saturating_add(1);
        count.created == self.threshold.immediate()
            || (count.created == self.threshold.0 && count.seconds + 1 >= CONSECUTIVE_SECONDS)
    }

    /// Begins the next second. A second without creations resets all counts.
    fn begin_second(&mut self, now: Mono) {
        let calm = now.since(self.second_start) >= SECOND * 2;
        self.second_start = if calm {
            now
        } else {
            self.second_start.after(SECOND)
        };
        self.total = 0;
        if calm {
            self.dirs = HashMap::new();
            return;
        }
        self.dirs.retain(|_, count| {
            let has_reached = count.created >= self.threshold.0;
            count.seconds = count.seconds.saturating_add(1).min(CONSECUTIVE_SECONDS);
            count.created = 0;
            has_reached
        });
        if self.dirs.is_empty() {
            // This frees the memory of directories that are no longer counted separately.
            self.dirs = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates temps in `/d` at even intervals, with one rate for each second, and `other` temps per second in
    /// `/other`. Returns the seconds in which `/d` became hot.
    fn hot_seconds(rates: &[u32], other: u32) -> Vec<usize> {
        let mut meter = RateMeter::default();
        let start = Mono(1_000_000_000_000);
        let mut seconds = Vec::new();
        for (second, &rate) in rates.iter().enumerate() {
            let began = start.after(SECOND * u32::try_from(second).unwrap());
            let most = rate.max(other);
            for n in 0..most {
                let now = began.after(SECOND * n / most);
                if n < other {
                    assert!(!meter.count(b"/other", now));
                }
                if n < rate && meter.count(b"/d", now) {
                    seconds.push(second);
                }
            }
        }
        seconds
    }

    #[test]
    fn three_seconds_at_the_threshold_or_one_at_full_speed_are_hot() {
        let check = |rates: &[u32], other: u32, want: &[usize], why: &str| {
            assert_eq!(hot_seconds(rates, other), want, "{why}");
        };
        check(&[500; 60], 0, &[], "calm");
        check(&[1_999; 60], 0, &[], "just below");
        check(
            &[3_001, 2_001, 2_001, 1],
            0,
            &[2],
            "three consecutive seconds",
        );
        check(
            &[3_001, 2_001, 1_999, 3_001, 2_001],
            0,
            &[],
            "one of the seconds is below the threshold",
        );
        check(
            &[3_001, 2_001, 0, 0, 2_001, 2_001],
            0,
            &[],
            "a pause resets the count",
        );
        check(&[10_999], 0, &[], "just below full speed");
        check(&[11_001], 0, &[0], "full speed");
        check(&[60_000], 0, &[0], "reported once a second");
        check(
            &[3_001; 5],
            0,
            &[2, 3, 4],
            "reported again while the rate lasts",
        );
        check(
            &[2_500; 10],
            0,
            &[],
            "creations before the separate count do not count",
        );
        check(&[1_000; 10], 1_900, &[], "others do not make it hot");
        check(
            &[3_001, 2_001, 2_001],
            1_900,
            &[2],
            "nor prevent it from being hot",
        );
    }

    #[test]
    fn calm_is_less_than_half_the_threshold() {
        let probes = u32::try_from(SECOND.as_millis() / PROBE_TIME.as_millis()).unwrap();
        let (threshold, calm) = (Threshold(2_000), 2_000 / probes / 2);
        assert!(threshold.is_calm(calm - 1) && !threshold.is_calm(calm));
        assert!(Threshold(1).is_calm(0) && !Threshold(1).is_calm(1));
    }

    #[test]
    fn counts_take_no_memory_afterwards() {
        let mut meter = RateMeter::default();
        let start = Mono(1_000_000_000_000);
        for n in 0..20_000u32 {
            meter.count(format!("/d/{n}").as_bytes(), start);
        }
        assert!(meter.dirs.len() > 10_000);
        meter.count(b"/d", start.after(SECOND));
        assert_eq!(meter.dirs.capacity(), 0);
    }
}
