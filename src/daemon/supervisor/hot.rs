//! Hot directories: those in which temps are created faster than it is worth hearing of each
//! ([`crate::decide::rate`]). Their watch is taken away, they are scanned twice in each grace, and
//! listened to for a moment at growing intervals; once they are calm they are watched again.
//!
//! Nothing is missed, and nothing is late where its scans are not. A scan follows the end of the watch,
//! so what no event has told of is found; each later orphan is found before half its grace has passed,
//! and is then armed for its exact end by its own dates. These say no more than half a grace (`Origin::FoundInTime`):
//! where a scan comes late, its orphans go late, and no writer has less time for it. What was heard of
//! before and renamed since is found gone when it is looked at. At the end the watch comes first and a
//! last scan second.
//!
//! A directory that was made below a hot one is found by the scan; that the hot one itself goes is heard
//! of by the watch on its parent or, where that is hot too, found by the parent's scan.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{RootWatch, Supervisor};
use crate::decide::policy::{Closed, Hot};
use crate::decide::rate::PROBE_TIME;
use crate::decide::time::span;
use crate::event::RescanCause;
use crate::root::Root;
use crate::watch::{RateProbe, Unwatched};

/// How hot a watched directory is. Moments come in as arguments.
#[derive(Default)]
pub(super) struct HotDir {
    scanned: Option<HotScans>,
    /// How long it was waited before the last sample, and when it was watched again.
    before: Option<(Duration, Instant)>,
    /// It stays watched until then, however hot it is.
    refused: Option<Instant>,
}

/// A directory that is scanned because it is hot.
struct HotScans {
    /// When it is scanned next.
    at: Instant,
    /// How often that is.
    every: Duration,
    /// It is listened to again after a scan from then on.
    sample_at: Instant,
    /// How long it is waited after a sample that was not calm.
    pause: Duration,
    /// It is listened to until then.
    sample: Option<(RateProbe, Instant)>,
    /// How long its last scan took.
    took: Duration,
}

/// The first wait before it is listened to again.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest; and for how long after it is calm a directory that is hot again counts as one that
/// comes and goes.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The shortest grace of a rule whose directories may be hot: scans twice in each that were more
/// frequent would cost more than the events.
const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// The share of the keeper's time that scans of all hot directories may take together: it has other
/// things to do.
const MOST_SHARE: f64 = 0.25;

/// For how long a directory is not taken for hot again whose scans take too long.
const REFUSED: Duration = Duration::from_secs(10 * 60);

impl HotDir {
    /// Whether it is scanned instead of being watched.
    pub(super) fn is_hot(&self) -> bool {
        self.scanned.is_some()
    }

    /// It is hot, and scanned every so often from now on. Says whether that is so: not, while it is
    /// refused or already is.
    fn begin(&mut self, every: Duration, now: Instant) -> bool {
        if self.is_hot() || self.refused.is_some_and(|until| now < until) {
            return false;
        }
        self.refused = None;
        // Hot again soon after it was calm: the next sample can wait for longer.
        let pause = match self.before {
            Some((pause, cooled)) if now.saturating_duration_since(cooled) < LONGEST_PAUSE => {
                (pause * 2).min(LONGEST_PAUSE)
            }
            _ => FIRST_PAUSE,
        };
        self.scanned = Some(HotScans {
            at: now,
            every,
            sample_at: now + pause,
            pause,
            sample: None,
            took: Duration::ZERO,
        });
        true
    }

    /// It is watched again.
    fn end(&mut self, now: Instant) {
        if let Some(scanned) = self.scanned.take() {
            self.before = Some((scanned.pause, now));
        }
    }

    fn refuse(&mut self, now: Instant) {
        self.end(now);
        self.refused = Some(now + REFUSED);
    }

    fn next(&self) -> Option<Instant> {
        let scanned = self.scanned.as_ref()?;
        let sample = scanned.sample.as_ref().map(|(_, until)| *until);
        Some(sample.map_or(scanned.at, |until| until.min(scanned.at)))
    }

    /// Whether its scan is due; the next one is due half a grace after this.
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.scanned.as_mut().filter(|scanned| scanned.at <= now);
        due.map(|scanned| scanned.at = now + scanned.every)
            .is_some()
    }

    /// A scan of it took so long.
    fn note_scan_time(&mut self, took: Duration) {
        if let Some(scanned) = &mut self.scanned {
            scanned.took = took;
        }
    }

    /// The share of all time that its scans take.
    fn share(&self) -> f64 {
        let scanned = self.scanned.as_ref();
        scanned.map_or(0.0, |scanned| scanned.took.div_duration_f64(scanned.every))
    }

    /// Whether it is to be listened to after a scan.
    fn wants_probe(&self, now: Instant) -> bool {
        let scanned = self.scanned.as_ref();
        scanned.is_some_and(|scanned| scanned.sample.is_none() && scanned.sample_at <= now)
    }

    fn begin_probe(&mut self, sample: Option<RateProbe>, now: Instant) {
        if let Some(scanned) = &mut self.scanned {
            scanned.sample_at = now + scanned.pause;
            scanned.sample = sample.map(|sample| (sample, now + PROBE_TIME));
        }
    }

    /// How many temps were created during a sample, if one has come to its end.
    fn probe_result(&mut self, now: Instant) -> Option<u32> {
        let scanned = self.scanned.as_mut()?;
        let (sample, _) = scanned.sample.take_if(|(_, until)| *until <= now)?;
        Some(sample.created())
    }

    /// A sample was not calm: the next one waits for longer.
    fn stays_hot(&mut self, now: Instant) {
        if let Some(scanned) = &mut self.scanned {
            scanned.pause = (scanned.pause * 2).min(LONGEST_PAUSE);
            scanned.sample_at = now + scanned.pause;
        }
    }
}

/// Whether the scans of all hot directories leave too little time for anything else.
fn exceed_scan_share<'a>(heats: impl Iterator<Item = &'a HotDir>) -> bool {
    heats.map(HotDir::share).sum::<f64>() > MOST_SHARE
}

/// How often a hot directory is scanned: often enough that each temp is found before half its grace
/// is over. `None`: it is not to be scanned instead of being watched.
fn every(root: &Root) -> Option<Duration> {
    let policy = &root.policy;
    let shortest = policy.grace.shortest();
    // Where a close matters, scans cannot tell of it.
    (policy.hot == Hot::Scan && policy.closed == Closed::Orphan && shortest >= SHORTEST_GRACE)
        .then_some(shortest / 2)
}

impl RootWatch {
    /// What it knows of its hot directories.
    fn hot_dirs(&self) -> impl Iterator<Item = (&PathBuf, &HotDir)> {
        let heat = |dir| Some((dir, &self.watched.get(dir)?.hot));
        self.hot.iter().filter_map(heat)
    }

    /// When something is to be done about one of them.
    pub(super) fn next_hot(&self) -> Option<Instant> {
        self.hot_dirs().filter_map(|(_, heat)| heat.next()).min()
    }
}

impl Supervisor {
    /// A directory has become hot: its watch is taken away, and it is scanned at once.
    pub(super) fn enter_hot(&mut self, dir: &Path) {
        let mut watching =
            self.root_watches
                .iter_mut()
                .enumerate()
                .filter_map(|(index, root_watch)| {
                    let watched = root_watch.watched.get_mut(dir)?;
                    Some((index, watched, &mut root_watch.hot))
                });
        // One watch may stand for two roots; it stays then.
        let (Some((index, watched, hot)), None) = (watching.next(), watching.next()) else {
            return;
        };
        let root = self.active_roots.roots.get(index);
        let Some(every) = root.and_then(every) else {
            return;
        };
        if !watched.hot.begin(every, Instant::now()) {
            return;
        }
        hot.insert(dir.to_owned());
        // RACE: events that are not read yet end with the watch. A temp that one of them was about is
        // found by the scan; one that was renamed since stays in the map until its next look, and is
        // told of as settled by nobody. No worse: looking is the truth.
        let hears = self.kernel.unwatch(dir);
        log::info!(
            "{dir:?} is hot: it is scanned every {} instead of being watched, until it is calm",
            span(every)
        );
        // Otherwise all that is watched is scanned in a moment, and this with it.
        if hears {
            self.run_hot(index);
        }
    }

    /// Scans and listens to the hot directories of a root that are due.
    pub(super) fn run_hot(&mut self, index: usize) {
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if root_watch.hot.is_empty() {
            return;
        }
        let watched = &root_watch.watched;
        let is_hot = |dir: &PathBuf| watched.get(dir).is_some_and(|known| known.hot.is_hot());
        root_watch.hot.retain(is_hot);
        let now = Instant::now();
        let due = root_watch
            .hot_dirs()
            .filter(|(_, heat)| heat.next().is_some_and(|at| at <= now));
        let due: Vec<PathBuf> = due.map(|(dir, _)| dir.clone()).collect();
        let root = self.root(index);
        for dir in due {
            self.run_one_hot(index, &root, &dir);
        }
    }

    fn run_one_hot(&mut self, index: usize, root: &Root, dir: &Path) {
        let Some(heard) = self
            .hot_dir(index, dir)
            .map(|heat| heat.probe_result(Instant::now()))
        else {
            return;
        };
        if let Some(heard) = heard {
            if self.kernel.hot_from().is_calm(heard) {
                log::info!(
                    "{dir:?} is calm ({heard} temps in {PROBE_TIME:?}): it is watched again"
                );
                return self.leave_hot(index, root, dir, HotDir::end);
            }
            if let Some(heat) = self.hot_dir(index, dir) {
                heat.stays_hot(Instant::now());
            }
        }
        let began = Instant::now();
        if !self
            .hot_dir(index, dir)
            .is_some_and(|heat| heat.is_due(began))
        {
            return;
        }
        let was_read = self.scan_hot(index, root, dir);
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let Some(heat) = self.hot_dir(index, dir) else {
            return;
        };
        if !was_read {
            // It is treated as any other that cannot be read.
            return self.leave_hot(index, root, dir, HotDir::refuse);
        }
        heat.note_scan_time(took);
        let all = self.root_watches.iter().flat_map(RootWatch::hot_dirs);
        if exceed_scan_share(all.map(|(_, heat)| heat)) {
            log::warn!(
                "{dir:?} is hot, but scans of it, and of what else is hot, take too long (this one \
                 {}): it is watched again, which slows its writers",
                span(took)
            );
            return self.leave_hot(index, root, dir, HotDir::refuse);
        }
        if self
            .hot_dir(index, dir)
            .is_some_and(|heat| heat.wants_probe(now))
        {
            // No room for it now: it is tried again after the next pause.
            let sample = self.kernel.probe_rate(dir).ok();
            if let Some(heat) = self.hot_dir(index, dir) {
                heat.begin_probe(sample, now);
            }
        }
    }

    fn hot_dir(&mut self, index: usize, dir: &Path) -> Option<&mut HotDir> {
        let watched = self.root_watches.get_mut(index)?.watched.get_mut(dir)?;
        watched.hot.is_hot().then_some(&mut watched.hot)
    }

    /// Says whether it could be read.
    fn scan_hot(&mut self, index: usize, root: &Root, dir: &Path) -> bool {
        let below = dir.strip_prefix(&root.path);
        below.is_ok_and(|below| self.scan(index, root, below, RescanCause::Periodic))
    }

    /// Watches a directory again, then scans it: what was created before the watch stood is found.
    fn leave_hot(&mut self, index: usize, root: &Root, dir: &Path, how: fn(&mut HotDir, Instant)) {
        if let Some(heat) = self.hot_dir(index, dir) {
            how(heat, Instant::now());
        }
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        // Where there is no room for the watch it is scanned by time, like all that has none.
        if let Err(Unwatched::Gone) = root_watch.rewatch(&mut self.kernel, root, dir) {
            return self.restructure(dir);
        }
        if rule!("scan-once-watched-again", true) {
            self.scan_hot(index, root, dir);
        }
        self.settle_state(index, root);
        self.poll_later(index, root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::{Graces, Policy};
    use crate::decide::rate;
    use crate::decide::time::Mono;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_scanned_at_once_and_then_twice_in_each_grace() {
        let start = Instant::now();
        let mut heat = HotDir::default();
        assert_eq!((heat.is_hot(), heat.next()), (false, None));
        assert!(heat.begin(S * 5, start) && !heat.begin(S * 5, start));
        assert!(heat.is_due(start) && !heat.is_due(start));
        assert_eq!(heat.next(), Some(start + S * 5));
        assert!(!heat.is_due(start + S * 4) && heat.is_due(start + S * 5));
    }

    #[test]
    fn scans_of_all_that_is_hot_take_a_quarter_of_the_time_at_most() {
        let start = Instant::now();
        let hot = |took| {
            let mut heat = HotDir::default();
            assert!(heat.begin(S * 4, start));
            heat.note_scan_time(took);
            heat
        };
        let check = |took: &[Duration], want: bool| {
            let mut heats: Vec<HotDir> = took.iter().map(|took| hot(*took)).collect();
            assert_eq!(exceed_scan_share(heats.iter()), want, "{took:?} every 4 s");
            for heat in &mut heats {
                heat.end(start);
            }
            assert!(!exceed_scan_share(heats.iter()), "they are watched again");
        };
        check(&[], false);
        check(&[S], false);
        check(&[S + S / 8], true);
        check(&[S / 2, S / 2], false);
        check(&[S / 2, S / 2, S / 8], true);
    }

    #[test]
    fn whoever_comes_and_goes_is_listened_to_ever_more_rarely() {
        let mut now = Instant::now();
        let (mut heat, mut waits) = (HotDir::default(), Vec::new());
        for _ in 0..10 {
            assert!(heat.begin(S, now));
            let wait = (1..).find(|n| heat.wants_probe(now + S * *n)).unwrap();
            waits.push(wait);
            now += S * wait;
            heat.end(now);
            now += S * 3;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // After a long calm it begins anew.
        now += LONGEST_PAUSE * 4 - S * 3;
        assert!(heat.begin(S, now));
        assert!(heat.wants_probe(now + FIRST_PAUSE));
    }

    /// A writer of so many temps in each millisecond of a minute, over and over for 20. Says how
    /// often its directory became hot, and for how much of the time it was.
    fn twenty_minutes(rate: impl Fn(u64) -> u32) -> (u32, f64) {
        let start = Instant::now();
        let mut counted = rate::RateMeter::default();
        let (mut heat, mut sample) = (HotDir::default(), None);
        let (mut times, mut hot) = (0, 0_u64);
        for ms in 0..1_200_000 {
            let (now, created) = (start + Duration::from_millis(ms), rate(ms % 60_000));
            let mono = Mono(1_000_000_000_000).after(Duration::from_millis(ms));
            if heat.is_hot() {
                hot += 1;
            } else {
                let says = (0..created).fold(false, |says, _| counted.count(b"/d", mono) || says);
                times += u32::from(says && heat.begin(S * 5, now));
            }
            sample = match sample {
                Some((heard, until)) if until <= now => {
                    match rate::Threshold::default().is_calm(heard) {
                        true => heat.end(now),
                        false => heat.stays_hot(now),
                    }
                    None
                }
                Some((heard, until)) => Some((heard + created, until)),
                None if heat.is_hot() && heat.is_due(now) && heat.wants_probe(now) => {
                    heat.begin_probe(None, now);
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
            |what: &str, most: u32, share: std::ops::RangeInclusive<f64>, story: (u32, f64)| {
                let (times, hot) = story;
                assert!(times <= most, "{what}: hot {times} times");
                assert!(share.contains(&hot), "{what}: hot for {hot:.3} of the time");
            };
        check(
            "below it",
            0,
            0.0..=0.0,
            twenty_minutes(|ms| u32::from(ms % 2 == 0) * 3),
        );
        check("just above it", 1, 0.99..=1.0, twenty_minutes(|_| 3));
        let around = |ms: u64| 1 + (ms % 2) as u32 + (ms / 5_000 % 2) as u32 * 3;
        check(
            "1,500 and 4,500 in turn",
            1,
            0.99..=1.0,
            twenty_minutes(around),
        );
        let in_bursts = |ms: u64| u32::from(ms % 20_000 < 4_000) * 10;
        check("4 of 20 s", 12, 0.0..=1.0, twenty_minutes(in_bursts));
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
    fn where_a_scan_takes_too_long_it_stays_watched() {
        let start = Instant::now();
        let mut heat = HotDir::default();
        assert!(heat.begin(S, start));
        heat.refuse(start);
        assert!(!heat.is_hot() && !heat.begin(S, start + REFUSED - S));
        assert!(heat.begin(S, start + REFUSED));
    }

    #[test]
    fn a_sample_that_is_not_calm_is_followed_by_a_longer_wait() {
        let start = Instant::now();
        let just_before = |at: Instant| at - Duration::from_nanos(1);
        for heard in [0, u32::MAX] {
            let mut heat = HotDir::default();
            assert!(heat.begin(S * 60, start) && heat.is_due(start));
            let now = start + FIRST_PAUSE;
            let end = now + PROBE_TIME;
            heat.begin_probe(Some(RateProbe::of(heard)), now);
            assert_eq!(heat.next(), Some(end));
            assert!(!heat.wants_probe(now + LONGEST_PAUSE), "one at a time");
            assert_eq!(heat.probe_result(just_before(end)), None);
            assert_eq!(heat.probe_result(end), Some(heard));
            assert_eq!(heat.probe_result(end), None, "once");
        }
        let mut heat = HotDir::default();
        assert!(heat.begin(S * 60, start));
        let end = start + FIRST_PAUSE + PROBE_TIME;
        heat.stays_hot(end);
        let again = end + FIRST_PAUSE * 2;
        assert!(!heat.wants_probe(just_before(again)) && heat.wants_probe(again));
    }

    #[test]
    fn where_there_is_no_room_to_listen_it_waits_for_as_long_as_before() {
        let start = Instant::now();
        let mut heat = HotDir::default();
        assert!(heat.begin(S, start));
        let now = start + FIRST_PAUSE;
        assert!(heat.wants_probe(now));
        heat.begin_probe(None, now);
        assert!(!heat.wants_probe(now + FIRST_PAUSE - S));
        assert!(heat.wants_probe(now + FIRST_PAUSE));
        assert_eq!(heat.probe_result(now + LONGEST_PAUSE), None);
    }

    #[test]
    fn what_is_scanned_instead_of_being_watched() {
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
        let just_less = SHORTEST_GRACE - Duration::from_nanos(1);
        for (random, fixed, closed, hot, want) in [
            (S * 300, S * 10, orphan, Hot::Scan, Some(S * 5)),
            (S * 10, S * 300, orphan, Hot::Scan, Some(S * 5)),
            (S * 300, SHORTEST_GRACE, orphan, Hot::Scan, Some(S / 2)),
            (S * 300, just_less, orphan, Hot::Scan, None),
            (S * 300, S * 10, orphan, Hot::Watch, None),
            (S * 300, S * 10, settled, Hot::Scan, None),
        ] {
            let root = rule(random, fixed, closed, hot);
            assert_eq!(every(&root), want, "{:?}", root.policy);
        }
    }
}
