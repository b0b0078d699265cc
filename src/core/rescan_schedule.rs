//! The times of the supervisor's own actions. Pure: times are arguments.
//!
//! Scans because of lost events are combined: while one is due, or shortly after one, further losses cause no further
//! scan. This back-off grows with each scan and is at least four times as long as the scan took. A machine that
//! loses events all the time spends at most a fifth of its time on scans of up to 7.5 s. The wait never
//! exceeds 30 s, so longer scans take a larger part.

use std::time::{Duration, Instant};

#[derive(Default)]
pub(crate) struct RescanSchedule {
    /// The time of the scan of everything after lost events.
    recovery: Option<Instant>,
    /// The back-off before the next such scan.
    back_off: Duration,
    /// The end of the last such scan.
    recovered_at: Option<Instant>,
    /// The time of the next periodic scan of all roots.
    periodic: Option<Instant>,
    /// The time of the next poll of directories that are not watched.
    poll: Option<Instant>,
}

/// The shortest back-off between two scans because of lost events.
const MIN_BACK_OFF: Duration = Duration::from_millis(100);

/// The longest back-off.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

impl RescanSchedule {
    /// Schedules a scan of everything, because events were lost.
    pub(crate) fn events_lost(&mut self, now: Instant) {
        if self.recovery.is_some() {
            return;
        }
        // After a long time without losses the back-off starts again from zero.
        let is_long_ago = |last: Instant| now.saturating_duration_since(last) > MAX_BACK_OFF * 2;
        if self.recovered_at.is_none_or(is_long_ago) {
            self.back_off = Duration::ZERO;
        }
        self.recovery = Some(now + self.back_off);
    }

    pub(crate) fn is_recovery_due(&self, now: Instant) -> bool {
        is_due(self.recovery, now)
    }

    /// Returns whether scans have made up for all lost events.
    pub(crate) fn nothing_is_missing(&self) -> bool {
        self.recovery.is_none()
    }

    /// Records a scan of everything that took from `began` to `ended`.
    pub(crate) fn recovered(&mut self, began: Instant, ended: Instant) {
        self.recovery = None;
        self.recovered_at = Some(ended);
        let took = ended.saturating_duration_since(began);
        let back_off = (self.back_off * 2).max(took * 4);
        self.back_off = back_off.clamp(MIN_BACK_OFF, MAX_BACK_OFF);
    }

    /// Schedules the next periodic scan. It never comes if the time is beyond the range of the clock.
    pub(crate) fn schedule_periodic(&mut self, now: Instant, interval: Duration) {
        self.periodic = now.checked_add(interval);
    }

    pub(crate) fn is_periodic_due(&self, now: Instant) -> bool {
        is_due(self.periodic, now)
    }

    /// Schedules a poll of directories that are not watched, after this interval at the latest.
    pub(crate) fn schedule_poll(&mut self, now: Instant, interval: Duration) {
        let at = now + interval;
        self.poll = Some(self.poll.map_or(at, |known| known.min(at)));
    }

    /// Returns whether a poll is due, and clears it. Roots that still need polling schedule the next one.
    pub(crate) fn take_poll_due(&mut self, now: Instant) -> bool {
        self.poll.take_if(|at| *at <= now).is_some()
    }

    pub(crate) fn next(&self) -> Option<Instant> {
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

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor; only differences matter here"
    )]
    fn some_time() -> Instant {
        Instant::now()
    }

    const MS: Duration = Duration::from_millis(1);

    /// Loses events every millisecond for a minute, with scans that take `took`. Returns the start of each scan.
    fn lose_events_for_a_minute(took: Duration) -> Vec<Duration> {
        let start = some_time();
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
        assert!(
            quick.len() < 12,
            "the back-off doubles up to half a minute: {quick:?}"
        );
        let slow = lose_events_for_a_minute(Duration::from_secs(2));
        assert!(
            slow.len() as u32 * 2 <= 60 / 5 + 2,
            "at most a fifth of the time: {slow:?}"
        );
    }

    #[test]
    fn the_back_off_ends_after_a_time_without_losses() {
        let start = some_time();
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
        let start = some_time();
        let mut schedule = RescanSchedule::default();
        assert_eq!(schedule.next(), None, "no wake-up without an action");
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
