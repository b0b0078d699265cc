//! The time that healthy writes take, from the creation of a temp to its rename. It shows whether a grace is long
//! enough for the writers.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// The number of bits that are exact in a counted time: a percentile is at most a sixteenth too long.
const EXACT_BITS: u32 = 4;
const PER_POWER: u64 = 1 << EXACT_BITS;

/// Longer times, of 12 days and more, are counted as this many microseconds.
const LONGEST_US: u64 = (1 << 40) - 1;

/// The times of all healthy writes in one root. It has a fixed maximum size, however many writes there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteTimes {
    /// The number of writes by time, on a scale with [`PER_POWER`] steps for each power of two. It ends with the
    /// longest time.
    counts: Vec<u64>,
    max: Duration,
    max_name: OsString,
}

/// A summary of the times of healthy writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteSummary {
    /// The number of writes.
    pub count: u64,
    /// The time within which half of the writes were complete. It may be up to a sixteenth too long.
    pub p50: Duration,
    /// The same for 99 % of the writes.
    pub p99: Duration,
    /// The longest time.
    pub max: Duration,
    /// The name of the temp that needed the longest time.
    pub max_name: OsString,
}

impl WriteTimes {
    /// Counts a write whose temp had the name `name`.
    pub fn record(&mut self, name: &OsStr, took: Duration) {
        let step = step(micros(took));
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(step) {
            *count = count.saturating_add(1);
        }
        if took > self.max || self.max_name.is_empty() {
            self.max = took;
            name.clone_into(&mut self.max_name);
        }
    }

    /// Adds the writes of another root.
    pub fn add(&mut self, other: &WriteTimes) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        if other.max > self.max || self.max_name.is_empty() {
            self.max = other.max;
            self.max_name.clone_from(&other.max_name);
        }
    }

    /// Returns the summary. `None` if there was no write.
    #[must_use]
    pub fn summary(&self) -> Option<WriteSummary> {
        let count = self.counts.iter().copied().fold(0, u64::saturating_add);
        (count > 0).then(|| WriteSummary {
            count,
            p50: self.percentile(count.div_ceil(2)),
            p99: self.percentile(count - count / 100),
            max: self.max,
            max_name: self.max_name.clone(),
        })
    }

    /// Returns the time within which `rank` writes were complete.
    fn percentile(&self, rank: u64) -> Duration {
        let mut complete: u64 = 0;
        for (step, count) in (0..).zip(&self.counts) {
            complete = complete.saturating_add(*count);
            if complete >= rank {
                return Duration::from_micros(last_micros(step)).min(self.max);
            }
        }
        self.max
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).map_or(LONGEST_US, |us| us.min(LONGEST_US))
}

/// Returns the step of the scale on which a time of `us` microseconds is counted.
fn step(us: u64) -> usize {
    let inexact_bits = (u64::BITS - us.leading_zeros()).saturating_sub(EXACT_BITS + 1);
    let step = u64::from(inexact_bits) * PER_POWER + (us >> inexact_bits);
    usize::try_from(step).unwrap_or(usize::MAX)
}

/// Returns the longest time that is counted on a step, in microseconds.
fn last_micros(step: u64) -> u64 {
    let inexact_bits = (step / PER_POWER).saturating_sub(1);
    let first = step - inexact_bits * PER_POWER;
    ((first + 1) << inexact_bits) - 1
}

/// The graces that are proposed, in seconds. Longer ones are whole hours.
const GRACES: [u64; 14] = [
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    2 * 60,
    5 * 60,
    10 * 60,
    15 * 60,
    30 * 60,
    60 * 60,
    2 * 60 * 60,
];

/// Returns whether a healthy write that took so long is a sign that `grace` is too short: it took more than half of it.
#[must_use]
pub fn is_long(took: Duration, grace: Duration) -> bool {
    took > grace / 2
}

/// Returns a round grace for a writer that needs `took`: at least twice that time.
#[must_use]
pub fn fitting_grace(took: Duration) -> Duration {
    let twice = took.saturating_mul(2);
    let grace = GRACES.map(Duration::from_secs).into_iter();
    let hours = || {
        let seconds = twice
            .as_secs()
            .saturating_add(u64::from(twice.subsec_nanos() > 0));
        Duration::from_secs(seconds.div_ceil(3600).saturating_mul(3600))
    };
    grace
        .filter(|grace| *grace >= twice)
        .min()
        .unwrap_or_else(hours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: impl IntoIterator<Item = u64>) -> WriteTimes {
        let mut times = WriteTimes::default();
        for us in micros {
            let name = format!("{us}.tmp");
            times.record(OsStr::new(&name), Duration::from_micros(us));
        }
        times
    }

    #[test]
    fn each_time_is_counted_on_the_step_that_contains_it() {
        let mut last = None;
        for us in
            (0..5_000).chain((12..40).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]))
        {
            let step = step(us) as u64;
            let end = last_micros(step);
            assert!(
                us <= end && end - us <= us / PER_POWER,
                "{us}: step {step} ends with {end}"
            );
            if let Some((before, step_before)) = last.replace((us, step)) {
                assert!(us <= before || step_before <= step, "{us}");
            }
        }
        assert!(step(LONGEST_US) < 700, "{}", step(LONGEST_US));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let check = |micros: &[u64], p50: u64, p99: u64, max: u64| {
            let summary = times(micros.iter().copied()).summary().expect("writes");
            let is_near = |got: Duration, want: u64| {
                let got = got.as_micros() as u64;
                (want..=want + want / 16).contains(&got)
            };
            assert_eq!(summary.count, micros.len() as u64);
            assert!(is_near(summary.p50, p50), "{:?}, not {p50}", summary.p50);
            assert!(is_near(summary.p99, p99), "{:?}, not {p99}", summary.p99);
            assert_eq!(summary.max, Duration::from_micros(max));
            assert_eq!(summary.max_name, OsString::from(format!("{max}.tmp")));
        };
        check(&[0], 0, 0, 0);
        check(&[7], 7, 7, 7);
        check(&[1, 2], 1, 2, 2);
        check(&[3_000, 1_000, 2_000], 2_000, 3_000, 3_000);
        let hundred: Vec<u64> = (1..=100).map(|n| n * 1_000).collect();
        check(&hundred, 50_000, 99_000, 100_000);
        let mut rare = vec![900; 999];
        rare.push(20_000_000);
        check(&rare, 900, 900, 20_000_000);
    }

    #[test]
    fn without_a_write_there_is_no_summary() {
        assert_eq!(WriteTimes::default().summary(), None);
    }

    #[test]
    fn the_sum_of_two_roots_is_the_summary_of_all_writes() {
        let (one, other) = (0..500, 400..90_000);
        let all = times(one.clone().chain(other.clone())).summary();
        for (first, second) in [(one.clone(), other.clone()), (other, one)] {
            let mut sum = times(first);
            sum.add(&times(second));
            assert_eq!(sum.summary(), all);
        }
        let mut sum = WriteTimes::default();
        sum.add(&WriteTimes::default());
        assert_eq!(sum.summary(), None);
    }

    #[test]
    fn very_long_times_need_no_more_memory() {
        let times = times([u64::MAX, LONGEST_US, 1]);
        assert!(times.counts.len() < 700);
        let summary = times.summary().expect("writes");
        assert_eq!(summary.max, Duration::from_micros(u64::MAX));
    }

    #[test]
    fn a_proposed_grace_is_at_least_twice_the_longest_write() {
        let seconds = Duration::from_secs_f64;
        for (took, want) in [
            (0.0, 1.0),
            (0.5, 1.0),
            (0.6, 2.0),
            (3.0, 10.0),
            (31.0, 120.0),
            (151.0, 600.0),
            (1_800.0, 3_600.0),
            (3_601.0, 10_800.0),
            (86_400.0, 172_800.0),
        ] {
            let grace = fitting_grace(seconds(took));
            assert_eq!(grace, seconds(want), "{took}");
            assert!(!is_long(seconds(took), grace), "{took}");
        }
        assert!(is_long(seconds(2.6), seconds(5.0)) && !is_long(seconds(2.5), seconds(5.0)));
    }
}
