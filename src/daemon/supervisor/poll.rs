//! Roots whose changes cause no events: their directories are scanned often, until they can be watched.

use std::time::{Duration, Instant};

use super::event_loop::Supervisor;
use super::root_watch::RootWatch;
use super::services::Services;
use crate::core::event::{Event, RescanCause, RootState};
use crate::fs::root::Root;

/// The interval at which a root that does not respond is probed again.
const NO_ANSWER_RETRY: Duration = Duration::from_secs(1);

/// Returns the interval at which directories that cannot be watched are scanned. It is short enough to find a temp
/// before its grace is over.
pub(super) fn poll_interval(root: &Root) -> Duration {
    (root.policy.grace.shortest() / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

impl RootWatch {
    /// Schedules a poll of the root if no event would report a change.
    pub(super) fn poll_later(&self, services: &mut Services) {
        if self.needs_polling() {
            let interval = match self.state {
                RootState::NoAnswer => poll_interval(&self.active.root).min(NO_ANSWER_RETRY),
                _ => poll_interval(&self.active.root),
            };
            services.schedule.schedule_poll(Instant::now(), interval);
        }
    }

    /// Polls the root: scans the parts of it that are not watched, and watches them if that is possible now.
    pub(super) fn poll(&mut self, services: &mut Services) {
        if !self.needs_polling() || !self.is_responding(services) {
            return;
        }
        if self.has_unreliable_events() {
            return self.attach(services, RescanCause::Periodic);
        }
        self.check(services);
        let cause = RescanCause::Periodic;
        let dirs = self.dirs.take_unwatched();
        if !dirs.is_empty() {
            let root = self.active.root.path.clone();
            services.shared.emit(Event::Rescan { root, cause });
        }
        for dir in dirs {
            if let Ok(below) = dir.strip_prefix(&self.active.root.path) {
                self.scan(services, below, cause);
            }
        }
        self.update_state(services);
        self.poll_later(services);
    }
}

impl Supervisor {
    /// Re-establishes all watches if the last periodic scan found a temp whose event did not arrive: the watches may
    /// not work although the kernel accepted them. If that was already tried, polls the root instead.
    pub(super) fn check_missed_events(&mut self) {
        let mut reestablish = false;
        for root_watch in &mut self.root_watches {
            let missed = root_watch.missed.clone();
            let has_new_misses = root_watch.end_periodic_scan();
            if let Some(temp) = missed {
                log::error!(
                    "missed the create event of {temp:?} in a watched directory; {}",
                    match root_watch.has_unreliable_events() {
                        true => "polling its root from now on",
                        false => "re-establishing all watches",
                    }
                );
            }
            if has_new_misses {
                reestablish = true;
                root_watch.set_state(&self.services, RootState::Polling);
            }
        }
        if reestablish {
            self.services.watcher.clear();
            for root_watch in &mut self.root_watches {
                root_watch.dirs.forget();
            }
            self.attach_all(RescanCause::Overflow);
        }
        for root_watch in &mut self.root_watches {
            root_watch.update_state(&mut self.services);
            root_watch.poll_later(&mut self.services);
        }
    }
}
