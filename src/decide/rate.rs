//! *Is a directory hot?* Pure: creations come in with their moments.
//!
//! A hot directory's temps come so fast that hearing of each costs more than it is worth: nothing
//! has to be known of a temp before its grace is over. As long as nothing is hot anywhere, counting
//! is one addition.

use std::collections::HashMap;
use std::time::Duration;

use super::time::Mono;

/// So many temps created in one directory within a second, and in each of [`SECONDS`] running, make
/// it hot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold(pub u32);

/// For how many seconds running.
pub const CONSECUTIVE_SECONDS: u8 = 3;

/// For how long a hot directory is listened to again, to hear whether it is calm.
pub const PROBE_TIME: Duration = Duration::from_millis(100);

impl Default for Threshold {
    fn default() -> Threshold {
        Threshold(2_000)
    }
}

impl Threshold {
    /// So many within one second make it hot at once: a directory that is written at full speed would
    /// cost more in three seconds of events than in minutes of scans.
    fn at_once(self) -> u32 {
        self.0.saturating_mul(10)
    }

    /// Directories are told apart from so many in all of them within a second on. What came before is
    /// not counted for any of them.
    fn warm(self) -> u32 {
        self.0 / 2
    }

    /// Whether so many within [`SAMPLE`] are calm: fewer than half of what makes a directory hot, so
    /// that one at the threshold does not come and go.
    #[must_use]
    pub fn is_calm(self, created: u32) -> bool {
        created < self.0.div_ceil(20)
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Counts the temps that are created, second by second.
#[derive(Clone, Debug, Default)]
pub struct RateMeter {
    threshold: Threshold,
    /// When the second began that is counted now.
    began: Mono,
    /// In all directories.
    total: u32,
    dirs: HashMap<Box<[u8]>, WindowCount>,
}

/// Of one directory.
#[derive(Clone, Copy, Debug, Default)]
struct WindowCount {
    /// In this second.
    created: u32,
    /// How many full seconds running came up to the threshold before it.
    running: u8,
}

impl RateMeter {
    /// Nothing was counted yet.
    #[must_use]
    pub fn new(threshold: Threshold) -> RateMeter {
        RateMeter {
            threshold,
            ..RateMeter::default()
        }
    }

    /// A temp was created in the directory `dir`. Says whether that makes it hot; at most twice a
    /// second for each.
    pub fn count(&mut self, dir: &[u8], now: Mono) -> bool {
        if now.since(self.began) >= SECOND {
            self.turn(now);
        }
        self.total = self.total.saturating_add(1);
        if self.total <= self.threshold.warm() && self.dirs.is_empty() {
            return false;
        }
        let Some(count) = self.dirs.get_mut(dir) else {
            let first = WindowCount {
                created: 1,
                running: 0,
            };
            self.dirs.insert(dir.into(), first);
            return false;
        };
        count.created = count.created.saturating_add(1);
        count.created == self.threshold.at_once()
            || (count.created == self.threshold.0 && count.running + 1 >= CONSECUTIVE_SECONDS)
    }

    /// The second is over. One in which nothing was created ends all that was running.
    fn turn(&mut self, now: Mono) {
        let calm = now.since(self.began) >= SECOND * 2;
        self.began = if calm { now } else { self.began.after(SECOND) };
        self.total = 0;
        if calm {
            self.dirs = HashMap::new();
            return;
        }
        self.dirs.retain(|_, count| {
            let goes_on = count.created >= self.threshold.0;
            count.running = count.running.saturating_add(1).min(CONSECUTIVE_SECONDS);
            count.created = 0;
            goes_on
        });
        if self.dirs.is_empty() {
            // A thousand directories that were warm once are not kept room for.
            self.dirs = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates `rates` temps in `/d`, one number a second, evenly, beside `beside` a second in
    /// `/other`. Says in which seconds it was hot.
    fn hot(rates: &[u32], beside: u32) -> Vec<usize> {
        let mut heat = RateMeter::default();
        let start = Mono(1_000_000_000_000);
        let mut seconds = Vec::new();
        for (second, &rate) in rates.iter().enumerate() {
            let began = start.after(SECOND * u32::try_from(second).unwrap());
            let most = rate.max(beside);
            for n in 0..most {
                let now = began.after(SECOND * n / most);
                if n < beside {
                    assert!(!heat.count(b"/other", now));
                }
                if n < rate && heat.count(b"/d", now) {
                    seconds.push(second);
                }
            }
        }
        seconds
    }

    #[test]
    fn three_seconds_running_are_hot_and_one_at_full_speed_is() {
        let check = |rates: &[u32], beside: u32, want: &[usize], why: &str| {
            assert_eq!(hot(rates, beside), want, "{why}");
        };
        check(&[500; 60], 0, &[], "calm");
        check(&[1_999; 60], 0, &[], "just below");
        check(&[3_001, 2_001, 2_001, 1], 0, &[2], "three seconds running");
        check(
            &[3_001, 2_001, 1_999, 3_001, 2_001],
            0,
            &[],
            "one of them was not",
        );
        check(
            &[3_001, 2_001, 0, 0, 2_001, 2_001],
            0,
            &[],
            "a pause ends it",
        );
        check(&[21_001], 0, &[0], "full speed");
        check(&[60_000], 0, &[0], "and that is said once a second");
        check(&[3_001; 5], 0, &[2, 3, 4], "again for as long as it lasts");
        check(
            &[2_500; 10],
            0,
            &[],
            "what came before it was warm counts not",
        );
        check(&[1_000; 10], 1_900, &[], "others do not make it hot");
        check(
            &[3_001, 2_001, 2_001],
            1_900,
            &[2],
            "nor keep it from being hot",
        );
    }

    #[test]
    fn calm_is_half_of_what_makes_it_hot() {
        let samples = u32::try_from(SECOND.as_millis() / PROBE_TIME.as_millis()).unwrap();
        let (threshold, calm) = (Threshold(2_000), 2_000 / samples / 2);
        assert!(threshold.is_calm(calm - 1) && !threshold.is_calm(calm));
        assert!(Threshold(1).is_calm(0) && !Threshold(1).is_calm(1));
    }

    #[test]
    fn what_was_warm_takes_no_room_afterwards() {
        let mut heat = RateMeter::default();
        let start = Mono(1_000_000_000_000);
        for n in 0..20_000u32 {
            heat.count(format!("/d/{n}").as_bytes(), start);
        }
        assert!(heat.dirs.len() > 10_000);
        heat.count(b"/d", start.after(SECOND));
        assert_eq!(heat.dirs.capacity(), 0);
    }
}
