//! The rate state of one directory: whether it is hot, and the times of its scans and probes. Times are arguments.

use std::time::{Duration, Instant};

use crate::core::policy::{Closed, Hot};
use crate::core::rate::PROBE_TIME;
use crate::fs::root::Root;
use crate::watch::RateProbe;

/// The rate state of a watched directory.
#[derive(Default)]
pub(super) struct HotDir {
    scans: Option<HotScans>,
    /// The last time that the directory was hot: the pause before its next probe, and the time at which it was watched
    /// again.
    last_hot: Option<(Duration, Instant)>,
    /// Until this time the directory stays watched, whatever its rate.
    refused_until: Option<Instant>,
}

/// The scans of a hot directory.
struct HotScans {
    /// The time of the next scan.
    next_scan: Instant,
    /// The interval between two scans.
    interval: Duration,
    /// The directory is probed after the first scan from this time on.
    next_probe: Instant,
    /// The pause after a probe that was not calm.
    pause: Duration,
    /// The running probe and the time at which it ends.
    probe: Option<(RateProbe, Instant)>,
    /// The duration of the last scan.
    scan_time: Duration,
}

/// The first pause before a probe.
const MIN_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause. A directory that becomes hot again within this time after it was calm is taken for one that
/// alternates between hot and calm.
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The shortest grace of a rule whose directories may be hot. With a shorter grace, two scans in each grace would cost
/// more than the events.
const MIN_GRACE: Duration = Duration::from_secs(1);

/// The largest share of the supervisor's time that the scans of all hot directories may take together. The rest is for
/// its other duties.
const MAX_SHARE: f64 = 0.25;

/// The time during which a directory whose scans took too long is not treated as hot again.
const REFUSAL: Duration = Duration::from_secs(10 * 60);

impl HotDir {
    /// Returns whether it is scanned instead of being watched.
    pub(super) fn is_hot(&self) -> bool {
        self.scans.is_some()
    }

    /// Makes the directory hot: from now on it is scanned once in each `interval`. Returns false if it is refused or
    /// already hot.
    pub(super) fn begin(&mut self, interval: Duration, now: Instant) -> bool {
        if self.is_hot() || self.refused_until.is_some_and(|until| now < until) {
            return false;
        }
        self.refused_until = None;
        // The directory became hot again soon after it was calm, so the pause before the next probe is longer.
        let pause = match self.last_hot {
            Some((pause, calm_since)) if now.saturating_duration_since(calm_since) < MAX_PAUSE => {
                (pause * 2).min(MAX_PAUSE)
            }
            _ => MIN_PAUSE,
        };
        self.scans = Some(HotScans {
            next_scan: now,
            interval,
            next_probe: now + pause,
            pause,
            probe: None,
            scan_time: Duration::ZERO,
        });
        true
    }

    /// Ends the hot state, because the directory is watched again.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(scans) = self.scans.take() {
            self.last_hot = Some((scans.pause, now));
        }
    }

    pub(super) fn refuse(&mut self, now: Instant) {
        self.end(now);
        self.refused_until = Some(now + REFUSAL);
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let scans = self.scans.as_ref()?;
        let probe_end = scans.probe.as_ref().map(|(_, until)| *until);
        Some(probe_end.map_or(scans.next_scan, |until| until.min(scans.next_scan)))
    }

    /// Returns whether a scan is due. If so, schedules the next one after the interval.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let due = self.scans.as_mut().filter(|scans| scans.next_scan <= now);
        due.map(|scans| scans.next_scan = now + scans.interval)
            .is_some()
    }

    /// Records the duration of a scan.
    pub(super) fn note_scan_time(&mut self, took: Duration) {
        if let Some(scans) = &mut self.scans {
            scans.scan_time = took;
        }
    }

    /// Returns the share of the time that its scans take.
    fn share(&self) -> f64 {
        let scans = self.scans.as_ref();
        scans.map_or(0.0, |scans| {
            scans.scan_time.div_duration_f64(scans.interval)
        })
    }

    /// Returns whether a probe should begin after this scan.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        let scans = self.scans.as_ref();
        scans.is_some_and(|scans| scans.probe.is_none() && scans.next_probe <= now)
    }

    pub(super) fn begin_probe(&mut self, probe: Option<RateProbe>, now: Instant) {
        if let Some(scans) = &mut self.scans {
            scans.next_probe = now + scans.pause;
            scans.probe = probe.map(|probe| (probe, now + PROBE_TIME));
        }
    }

    /// Returns the number of temps that were created during the probe, if it has ended.
    pub(super) fn probe_result(&mut self, now: Instant) -> Option<u32> {
        let scans = self.scans.as_mut()?;
        let (probe, _) = scans.probe.take_if(|(_, until)| *until <= now)?;
        Some(probe.created())
    }

    /// Makes the next pause longer, because a probe was not calm.
    pub(super) fn extend_pause(&mut self, now: Instant) {
        if let Some(scans) = &mut self.scans {
            scans.pause = (scans.pause * 2).min(MAX_PAUSE);
            scans.next_probe = now + scans.pause;
        }
    }
}

/// Returns the share of the time that the scans of `hot_dirs` take.
pub(super) fn scan_share<'a>(hot_dirs: impl Iterator<Item = &'a HotDir>) -> f64 {
    hot_dirs.map(HotDir::share).sum()
}

/// Returns whether the scans of all hot directories take more than their share of the time. `others` is the share of
/// those that are not in `hot_dirs`.
pub(super) fn exceed_scan_share<'a>(
    others: f64,
    hot_dirs: impl Iterator<Item = &'a HotDir>,
) -> bool {
    others + scan_share(hot_dirs) > MAX_SHARE
}

/// Returns the interval of the scans of a hot directory, which is short enough to find each temp before half its grace
/// has passed. `None`: directories of this rule are always watched.
pub(super) fn scan_interval(root: &Root) -> Option<Duration> {
    let policy = &root.policy;
    let shortest = policy.grace.shortest();
    // Scans do not report closes. If closes matter, the directory must be watched.
    (policy.hot == Hot::Scan && policy.closed == Closed::Orphan && shortest >= MIN_GRACE)
        .then_some(shortest / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{Graces, Policy};
    use crate::core::rate;
    use crate::core::time::Mono;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_hot_directory_is_scanned_at_once_and_then_twice_in_each_grace() {
        let start = Instant::now();
        let mut hot_dir = HotDir::default();
        assert_eq!((hot_dir.is_hot(), hot_dir.next()), (false, None));
        assert!(hot_dir.begin(S * 5, start) && !hot_dir.begin(S * 5, start));
        assert!(hot_dir.take_due(start) && !hot_dir.take_due(start));
        assert_eq!(hot_dir.next(), Some(start + S * 5));
        assert!(!hot_dir.take_due(start + S * 4) && hot_dir.take_due(start + S * 5));
    }

    #[test]
    fn scans_of_hot_directories_take_at_most_a_quarter_of_the_time() {
        let start = Instant::now();
        let hot = |took| {
            let mut hot_dir = HotDir::default();
            assert!(hot_dir.begin(S * 4, start));
            hot_dir.note_scan_time(took);
            hot_dir
        };
        let check = |took: &[Duration], want: bool| {
            let mut hot_dirs: Vec<HotDir> = took.iter().map(|took| hot(*took)).collect();
            assert_eq!(
                exceed_scan_share(0.0, hot_dirs.iter()),
                want,
                "scans of {took:?} every 4 s"
            );
            for hot_dir in &mut hot_dirs {
                hot_dir.end(start);
            }
            assert!(
                !exceed_scan_share(0.0, hot_dirs.iter()),
                "all are watched again"
            );
        };
        check(&[], false);
        check(&[S], false);
        check(&[S + S / 8], true);
        check(&[S / 2, S / 2], false);
        check(&[S / 2, S / 2, S / 8], true);
    }

    #[test]
    fn a_directory_that_becomes_hot_again_is_probed_more_rarely() {
        let mut now = Instant::now();
        let (mut hot_dir, mut pauses) = (HotDir::default(), Vec::new());
        for _ in 0..10 {
            assert!(hot_dir.begin(S, now));
            let pause = (1..).find(|n| hot_dir.wants_probe(now + S * *n)).unwrap();
            pauses.push(pause);
            now += S * pause;
            hot_dir.end(now);
            now += S * 3;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // After a long calm the pauses start again with the shortest.
        now += MAX_PAUSE * 4 - S * 3;
        assert!(hot_dir.begin(S, now));
        assert!(hot_dir.wants_probe(now + MIN_PAUSE));
    }

    /// Simulates a writer for 20 minutes. `rate` returns the number of temps it creates in each millisecond of a
    /// minute. Returns how often its directory became hot, and the share of the time during which it was hot.
    fn twenty_minutes(rate: impl Fn(u64) -> u32) -> (u32, f64) {
        let start = Instant::now();
        let mut meter = rate::RateMeter::default();
        let (mut hot_dir, mut probe) = (HotDir::default(), None);
        let (mut times, mut hot) = (0, 0_u64);
        for ms in 0..1_200_000 {
            let (now, created) = (start + Duration::from_millis(ms), rate(ms % 60_000));
            let mono = Mono(1_000_000_000_000).after(Duration::from_millis(ms));
            if hot_dir.is_hot() {
                hot += 1;
            } else {
                let became_hot =
                    (0..created).fold(false, |is_hot, _| meter.count(b"/d", mono) || is_hot);
                times += u32::from(became_hot && hot_dir.begin(S * 5, now));
            }
            probe = match probe {
                Some((counted, until)) if until <= now => {
                    match rate::Threshold::default().is_calm(counted) {
                        true => hot_dir.end(now),
                        false => hot_dir.extend_pause(now),
                    }
                    None
                }
                Some((counted, until)) => Some((counted + created, until)),
                None if hot_dir.is_hot() && hot_dir.take_due(now) && hot_dir.wants_probe(now) => {
                    hot_dir.begin_probe(None, now);
                    Some((0, now + PROBE_TIME))
                }
                None => None,
            };
        }
        (times, hot as f64 / f64::from(1_200_000))
    }

    #[test]
    fn the_threshold_does_not_flap() {
        let check =
            |writer: &str, max: u32, share: std::ops::RangeInclusive<f64>, result: (u32, f64)| {
                let (times, hot) = result;
                assert!(times <= max, "{writer}: hot {times} times");
                assert!(
                    share.contains(&hot),
                    "{writer}: hot for {hot:.3} of the time"
                );
            };
        check(
            "below the threshold",
            0,
            0.0..=0.0,
            twenty_minutes(|ms| u32::from(ms % 2 == 0) * 3),
        );
        check(
            "just above the threshold",
            1,
            0.99..=1.0,
            twenty_minutes(|_| 3),
        );
        let around = |ms: u64| 1 + (ms % 2) as u32 + (ms / 5_000 % 2) as u32 * 3;
        check(
            "1,500 and 4,500 in turn",
            1,
            0.99..=1.0,
            twenty_minutes(around),
        );
        let in_bursts = |ms: u64| u32::from(ms % 20_000 < 4_000) * 10;
        check(
            "full speed for 4 of 20 s",
            12,
            0.0..=1.0,
            twenty_minutes(in_bursts),
        );
        let once_a_minute = |ms: u64| u32::from(ms < 1_000) * 40;
        check(
            "full speed, once a minute",
            25,
            0.0..=1.0,
            twenty_minutes(once_a_minute),
        );
        let rarely_calm = |ms: u64| u32::from(ms > 5_000) * 10;
        check(
            "calm for 5 s a minute",
            12,
            0.5..=1.0,
            twenty_minutes(rarely_calm),
        );
    }

    #[test]
    fn a_directory_whose_scans_take_too_long_stays_watched() {
        let start = Instant::now();
        let mut hot_dir = HotDir::default();
        assert!(hot_dir.begin(S, start));
        hot_dir.refuse(start);
        assert!(!hot_dir.is_hot() && !hot_dir.begin(S, start + REFUSAL - S));
        assert!(hot_dir.begin(S, start + REFUSAL));
    }

    #[test]
    fn a_probe_that_is_not_calm_is_followed_by_a_longer_pause() {
        let start = Instant::now();
        let just_before = |at: Instant| at - Duration::from_nanos(1);
        for counted in [0, u32::MAX] {
            let mut hot_dir = HotDir::default();
            assert!(hot_dir.begin(S * 60, start) && hot_dir.take_due(start));
            let now = start + MIN_PAUSE;
            let end = now + PROBE_TIME;
            hot_dir.begin_probe(Some(RateProbe::with_count(counted)), now);
            assert_eq!(hot_dir.next(), Some(end));
            assert!(!hot_dir.wants_probe(now + MAX_PAUSE), "one probe at a time");
            assert_eq!(hot_dir.probe_result(just_before(end)), None);
            assert_eq!(hot_dir.probe_result(end), Some(counted));
            assert_eq!(hot_dir.probe_result(end), None, "once");
        }
        let mut hot_dir = HotDir::default();
        assert!(hot_dir.begin(S * 60, start));
        let end = start + MIN_PAUSE + PROBE_TIME;
        hot_dir.extend_pause(end);
        let again = end + MIN_PAUSE * 2;
        assert!(!hot_dir.wants_probe(just_before(again)) && hot_dir.wants_probe(again));
    }

    #[test]
    fn a_failed_probe_is_followed_by_an_equal_pause() {
        let start = Instant::now();
        let mut hot_dir = HotDir::default();
        assert!(hot_dir.begin(S, start));
        let now = start + MIN_PAUSE;
        assert!(hot_dir.wants_probe(now));
        hot_dir.begin_probe(None, now);
        assert!(!hot_dir.wants_probe(now + MIN_PAUSE - S));
        assert!(hot_dir.wants_probe(now + MIN_PAUSE));
        assert_eq!(hot_dir.probe_result(now + MAX_PAUSE), None);
    }

    #[test]
    fn only_rules_with_long_graces_have_hot_directories() {
        let rule = |random, fixed, closed, hot| Root {
            path: "/r".into(),
            policy: std::sync::Arc::new(Policy {
                grace: Graces { random, fixed },
                closed,
                hot,
                ..Policy::default()
            }),
        };
        let (orphan, settled) = (Closed::Orphan, Closed::Settled);
        let just_less = MIN_GRACE - Duration::from_nanos(1);
        for (random, fixed, closed, hot, want) in [
            (S * 300, S * 10, orphan, Hot::Scan, Some(S * 5)),
            (S * 10, S * 300, orphan, Hot::Scan, Some(S * 5)),
            (S * 300, MIN_GRACE, orphan, Hot::Scan, Some(S / 2)),
            (S * 300, just_less, orphan, Hot::Scan, None),
            (S * 300, S * 10, orphan, Hot::Watch, None),
            (S * 300, S * 10, settled, Hot::Scan, None),
        ] {
            let root = rule(random, fixed, closed, hot);
            assert_eq!(scan_interval(&root), want, "{:?}", root.policy);
        }
    }
}
