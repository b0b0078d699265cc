//! When the keeper does something by itself. Pure: moments come in as arguments.
//!
//! Scans because of lost events are bundled: while one is due, or for a while after one, further
//! losses cost nothing. That while grows with each, and is at least four times as long as the scan
//! took, so that a machine which loses events all the time spends a fifth of it on scanning, no more.

use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct RescanSchedule {
    /// Events were lost: scan everything then.
    recovery: Option<Instant>,
    /// How long to wait before that, the next time.
    back_off: Duration,
    /// The last time that everything was scanned because of it.
    recovered_at: Option<Instant>,
    /// Every root is due for its scan by time.
    periodic: Option<Instant>,
    /// What is not watched is looked at.
    poll: Option<Instant>,
}

/// The shortest wait between two scans because of lost events.
const MIN_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

impl RescanSchedule {
    /// Events were lost.
    pub(super) fn events_lost(&mut self, now: Instant) {
        if self.recovery.is_some() {
            return;
        }
        // Calm for long enough: no reason to wait any more.
        let is_long_ago = |last: Instant| now.saturating_duration_since(last) > MAX_BACK_OFF * 2;
        if self.recovered_at.is_none_or(is_long_ago) {
            self.back_off = Duration::ZERO;
        }
        self.recovery = Some(now + self.back_off);
    }

    pub(super) fn is_recovery_due(&self, now: Instant) -> bool {
        is_due(self.recovery, now)
    }

    /// Whether all that there is was heard of or has been scanned since.
    pub(super) fn nothing_is_missing(&self) -> bool {
        self.recovery.is_none()
    }

    /// Everything was scanned, which took from `began` to `ended`.
    pub(super) fn recovered(&mut self, began: Instant, ended: Instant) {
        self.recovery = None;
        self.recovered_at = Some(ended);
        let took = ended.saturating_duration_since(began);
        let back_off = (self.back_off * 2).max(took * 4);
        self.back_off = back_off.clamp(MIN_BACK_OFF, MAX_BACK_OFF);
    }

    /// The next scan by time is to be in so long; never, where that is beyond all time.
    pub(super) fn schedule_periodic(&mut self, now: Instant, interval: Duration) {
        self.periodic = now.checked_add(interval);
    }

    pub(super) fn is_periodic_due(&self, now: Instant) -> bool {
        is_due(self.periodic, now)
    }

    /// What is not watched is to be looked at in so long, at the latest.
    pub(super) fn schedule_poll(&mut self, now: Instant, interval: Duration) {
        let at = now + interval;
        self.poll = Some(self.poll.map_or(at, |known| known.min(at)));
    }

    /// Whether it is time for that. Whoever still has something to look at says so anew.
    pub(super) fn take_poll_due(&mut self, now: Instant) -> bool {
        self.poll.take_if(|at| *at <= now).is_some()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let times = [self.recovery, self.periodic, self.poll];
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
    fn lose_events_for_a_minute(took: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let (mut schedule, mut now, mut scans) = (RescanSchedule::default(), start, Vec::new());
        while now < start + Duration::from_secs(60) {
            schedule.events_lost(now);
            if schedule.is_recovery_due(now) {
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
    fn the_first_loss_is_handled_at_once_and_repeated_losses_rarely() {
        let quick = lose_events_for_a_minute(MS);
        assert_eq!(quick.first(), Some(&Duration::ZERO));
        assert!(quick.len() < 12, "doubling up to half a minute: {quick:?}");
        let slow = lose_events_for_a_minute(Duration::from_secs(2));
        assert!(
            slow.len() as u32 * 2 <= 60 / 5 + 2,
            "a fifth of the time: {slow:?}"
        );
    }

    #[test]
    fn the_back_off_ends_after_a_time_without_losses() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::default();
        for _ in 0..20 {
            schedule.events_lost(start);
            schedule.recovered(start, start);
        }
        schedule.events_lost(start + MS);
        assert_eq!(schedule.next(), Some(start + MS + MAX_BACK_OFF));
        schedule.recovered(start, start);
        let later = start + MAX_BACK_OFF * 2 + MS;
        schedule.events_lost(later);
        assert!(schedule.is_recovery_due(later));
    }

    #[test]
    fn the_next_deadline_is_the_earliest_and_a_poll_fires_once() {
        let start = Instant::now();
        let mut schedule = RescanSchedule::default();
        assert_eq!(schedule.next(), None, "nothing to do: no waking");
        schedule.schedule_periodic(start, MS * 100);
        schedule.schedule_poll(start, MS * 20);
        schedule.schedule_poll(start, MS * 50);
        assert_eq!(schedule.next(), Some(start + MS * 20));
        assert!(!schedule.take_poll_due(start) && schedule.take_poll_due(start + MS * 20));
        assert_eq!(schedule.next(), Some(start + MS * 100));
        assert!(!schedule.is_periodic_due(start) && schedule.is_periodic_due(start + MS * 100));
        schedule.schedule_periodic(start, Duration::MAX);
        assert_eq!(schedule.next(), None);
    }
}
