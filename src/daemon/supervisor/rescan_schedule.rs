//! When the keeper does something by itself. Pure: moments come in as arguments.
//!
//! Scans because of lost events are bundled: while one is due, or for a while after one, further
//! losses cost nothing. That while grows with each, and is at least four times as long as the scan
//! took, so that a machine which loses events all the time spends a fifth of it on scanning, no more.

use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct RescanSchedule {
    /// Events were lost: scan everything then.
    lost: Option<Instant>,
    /// How long to wait before that, the next time.
    back_off: Duration,
    /// The last time that everything was scanned because of it.
    last: Option<Instant>,
    /// Every root is due for its scan by time.
    periodic: Option<Instant>,
    /// What is not watched is looked at.
    polling: Option<Instant>,
}

/// The shortest wait between two scans because of lost events.
const SHORTEST_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

impl RescanSchedule {
    /// Events were lost.
    pub(super) fn lost(&mut self, now: Instant) {
        if self.lost.is_some() {
            return;
        }
        // Calm for long enough: no reason to wait any more.
        let is_calm = |last: Instant| now.saturating_duration_since(last) > LONGEST_BACK_OFF * 2;
        if self.last.is_none_or(is_calm) {
            self.back_off = Duration::ZERO;
        }
        self.lost = Some(now + self.back_off);
    }

    pub(super) fn is_lost(&self, now: Instant) -> bool {
        is_due(self.lost, now)
    }

    /// Whether all that there is was heard of or has been scanned since.
    pub(super) fn nothing_is_missing(&self) -> bool {
        self.lost.is_none()
    }

    /// Everything was scanned, which took from `began` to `ended`.
    pub(super) fn recovered(&mut self, began: Instant, ended: Instant) {
        self.lost = None;
        self.last = Some(ended);
        let took = ended.saturating_duration_since(began);
        let back_off = (self.back_off * 2).max(took * 4);
        self.back_off = back_off.clamp(SHORTEST_BACK_OFF, LONGEST_BACK_OFF);
    }

    /// The next scan by time is to be in so long; never, where that is beyond all time.
    pub(super) fn periodic_in(&mut self, now: Instant, interval: Duration) {
        self.periodic = now.checked_add(interval);
    }

    pub(super) fn is_periodic(&self, now: Instant) -> bool {
        is_due(self.periodic, now)
    }

    /// What is not watched is to be looked at in so long, at the latest.
    pub(super) fn poll_in(&mut self, now: Instant, interval: Duration) {
        let at = now + interval;
        self.polling = Some(self.polling.map_or(at, |known| known.min(at)));
    }

    /// Whether it is time for that. Whoever still has something to look at says so anew.
    pub(super) fn is_polling(&mut self, now: Instant) -> bool {
        self.polling.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let times = [self.lost, self.periodic, self.polling];
        times.into_iter().flatten().min()
    }
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Loses events every millisecond for a minute, with scans that take `took`. Says when each began.
    fn storm(took: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let (mut schedule, mut now, mut scans) = (RescanSchedule::default(), start, Vec::new());
        while now < start + Duration::from_secs(60) {
            schedule.lost(now);
            if schedule.is_lost(now) {
                scans.push(now - start);
                let began = now;
                now += took;
                schedule.recovered(began, now);
            }
            now += MS;
        }
        scans
    }

    #[test]
    fn the_first_loss_is_answered_at_once_and_a_storm_of_them_rarely() {
        let quick = storm(MS);
        assert_eq!(quick.first(), Some(&Duration::ZERO));
        assert!(quick.len() < 12, "doubling up to half a minute: {quick:?}");
        let slow = storm(Duration::from_secs(2));
        assert!(
            slow.len() as u32 * 2 <= 60 / 5 + 2,
            "a fifth of the time: {slow:?}"
        );
    }

    #[test]
    fn after_a_calm_time_there_is_no_waiting() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::default();
        for _ in 0..20 {
            schedule.lost(start);
            schedule.recovered(start, start);
        }
        schedule.lost(start + MS);
        assert_eq!(schedule.next(), Some(start + MS + LONGEST_BACK_OFF));
        schedule.recovered(start, start);
        let later = start + LONGEST_BACK_OFF * 2 + MS;
        schedule.lost(later);
        assert!(schedule.is_lost(later));
    }

    #[test]
    fn the_nearest_comes_first_and_polling_is_asked_for_anew() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::default();
        assert_eq!(schedule.next(), None, "nothing to do: no waking");
        schedule.periodic_in(start, MS * 100);
        schedule.poll_in(start, MS * 20);
        schedule.poll_in(start, MS * 50);
        assert_eq!(schedule.next(), Some(start + MS * 20));
        assert!(!schedule.is_polling(start) && schedule.is_polling(start + MS * 20));
        assert_eq!(schedule.next(), Some(start + MS * 100));
        assert!(!schedule.is_periodic(start) && schedule.is_periodic(start + MS * 100));
        schedule.periodic_in(start, Duration::MAX);
        assert_eq!(schedule.next(), None);
    }
}
