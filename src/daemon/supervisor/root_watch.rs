//! The state of one root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dir_watches::DirWatches;
use super::services::Services;
use crate::core::event::{Event, RootState};
use crate::daemon::active_roots::{ActiveRoot, ActiveRoots};
use crate::store::lock::{Locker, RootBusy, RootLock};
use crate::watch::Coverage;

/// A root and everything that the supervisor knows about it.
pub(in crate::daemon) struct RootWatch {
    pub(super) active: Arc<ActiveRoot>,
    pub(super) state: RootState,
    pub(super) lock: Option<RootLock>,
    pub(super) dirs: DirWatches,
    /// Mounts and subvolumes below the root that were reported as not entered.
    pub(super) not_entered: BTreeSet<PathBuf>,
    /// It was reported that its file system cannot prove that a file is unused.
    pub(super) reported_no_proof: bool,
    /// The coverage of the watches on its ancestors.
    pub(super) coverage: Coverage,
    /// Another orphand uses it.
    pub(super) is_busy: bool,
    /// It fails with an error whose end no event would report.
    pub(super) is_broken: bool,
    /// It was reported that a part of it cannot be watched, and this is still the case.
    pub(super) reported_unwatched: bool,
    /// A temp whose event was missed, found since the last periodic scan of everything.
    pub(super) missed: Option<PathBuf>,
    /// The number of consecutive periodic scans that found such a temp.
    pub(super) missed_scans: u32,
    /// The next checks of its quarantine, if that may hold files.
    pub(super) limits_due: Option<LimitsDue>,
}

/// The next checks of a quarantine.
#[derive(Clone, Copy)]
pub(super) struct LimitsDue {
    /// The time at which the first file expires; `None` if none will.
    pub(super) expiry: Option<Instant>,
    /// The time to check the free space.
    pub(super) space_check: Instant,
}

impl LimitsDue {
    pub(super) fn next(&self) -> Instant {
        self.expiry
            .map_or(self.space_check, |expiry| expiry.min(self.space_check))
    }
}

/// After this many consecutive scans with missed events, the root is polled.
const MISSED_SCANS_LIMIT: u32 = 2;

/// The longest delay of the event of a created temp.
const EVENT_DELAY: Duration = Duration::from_secs(2);

/// Locks those of `active_roots` that exist and that can be locked. Returns an error if another process uses one of
/// them, or a directory that overlaps with it.
pub(in crate::daemon) fn lock_roots(
    active_roots: &ActiveRoots,
    runtime: Option<&Path>,
) -> Result<Vec<RootWatch>, RootBusy> {
    let mut locker = Locker::new(runtime);
    let watch = |active: &Arc<ActiveRoot>| {
        let lock = locker.lock(&active.root)?;
        Ok(RootWatch::new(Arc::clone(active), lock))
    };
    active_roots.roots.iter().map(watch).collect()
}

impl RootWatch {
    pub(super) fn new(active: Arc<ActiveRoot>, lock: Option<RootLock>) -> RootWatch {
        RootWatch {
            active,
            state: RootState::Watching,
            lock,
            dirs: DirWatches::default(),
            not_entered: BTreeSet::new(),
            reported_no_proof: false,
            coverage: Coverage::Full,
            is_busy: false,
            is_broken: false,
            reported_unwatched: false,
            missed: None,
            missed_scans: 0,
            limits_due: None,
        }
    }

    /// Sets the state, and reports a change. Returns whether it has changed.
    pub(super) fn set_state(&mut self, services: &Services, state: RootState) -> bool {
        let is_new = std::mem::replace(&mut self.state, state) != state;
        if is_new {
            let root = self.active.root.path.clone();
            services.shared.emit(Event::Root { root, state });
        }
        is_new
    }

    /// Returns whether no other process uses the root. Locks it if it is not locked and a lock can be created.
    pub(super) fn try_lock(&mut self, services: &Services) -> bool {
        if self.lock.is_some() {
            return true;
        }
        let runtime = services.shared.folders.runtime.as_deref();
        match Locker::new(runtime).lock(&self.active.root) {
            Ok(lock) => {
                self.lock = lock;
                self.is_busy = false;
            }
            Err(busy) => {
                if !std::mem::replace(&mut self.is_busy, true) {
                    log::warn!("{busy}");
                }
            }
        }
        !self.is_busy
    }

    /// Returns whether some or all of its directories have no reliable watch.
    pub(super) fn is_partly_unwatched(&self) -> bool {
        !self.dirs.unwatched.is_empty() || self.has_unreliable_events()
    }

    /// Returns whether events were missed repeatedly although the root is watched.
    pub(super) fn has_unreliable_events(&self) -> bool {
        self.missed_scans >= MISSED_SCANS_LIMIT
    }

    /// Returns the age at which the event of a temp should have arrived. An older temp without an event was missed.
    pub(super) fn event_deadline(&self) -> Duration {
        match self.has_unreliable_events() {
            // The root is scanned often, so temps are found while they are young.
            true => EVENT_DELAY,
            false => self.active.root.policy.grace.shortest().max(EVENT_DELAY),
        }
    }

    /// Records the end of a periodic scan of everything. Returns whether all watches should be re-established.
    pub(super) fn end_periodic_scan(&mut self) -> bool {
        match self.missed.take() {
            Some(_) => self.missed_scans += 1,
            None => self.missed_scans = 0,
        }
        // If this did not help the last time, the root is polled instead.
        self.missed_scans == 1
    }

    /// Returns whether the root has to be polled, because some change of it causes no event.
    pub(super) fn needs_polling(&self) -> bool {
        let is_unavailable = matches!(self.state, RootState::Gone | RootState::Denied);
        self.is_partly_unwatched()
            || self.state == RootState::NoAnswer
            || self.is_busy
            || self.is_broken
            || matches!(self.coverage, Coverage::LimitReached(_))
            || (self.coverage == Coverage::Partial && is_unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::root::Root;
    use crate::watch::WatchLimit;

    fn root_watch() -> RootWatch {
        let root = Root {
            path: "/r".into(),
            policy: Arc::default(),
        };
        let active_roots = ActiveRoots::new(vec![root], Default::default());
        let mut root_watches = lock_roots(&active_roots, None).unwrap();
        root_watches.pop().unwrap()
    }

    #[test]
    fn after_missed_events_the_watches_are_reestablished_once_and_then_the_root_is_polled() {
        let mut root_watch = root_watch();
        let mut scan = |missed: bool| {
            root_watch.missed = missed.then(|| "/r/a.tmp".into());
            (
                root_watch.end_periodic_scan(),
                root_watch.has_unreliable_events(),
            )
        };
        assert_eq!(scan(false), (false, false));
        assert_eq!(scan(true), (true, false), "the watches are re-established");
        assert_eq!(scan(false), (false, false), "that helped");
        assert_eq!(scan(true), (true, false));
        assert_eq!(scan(true), (false, true), "that did not help");
        assert_eq!(scan(true), (false, true));
        assert_eq!(scan(false), (false, false));
    }

    #[test]
    fn a_root_is_polled_only_if_no_event_would_report_a_change() {
        let check = |change: fn(&mut RootWatch), expected: bool, reason: &str| {
            let mut root_watch = root_watch();
            change(&mut root_watch);
            assert_eq!(root_watch.needs_polling(), expected, "{reason}");
        };
        check(|_| {}, false, "it is watched");
        check(
            |root_watch| root_watch.state = RootState::Gone,
            false,
            "its return is reported",
        );
        check(
            |root_watch| root_watch.state = RootState::Denied,
            false,
            "a chmod is reported",
        );
        check(
            |root_watch| root_watch.coverage = Coverage::Partial,
            false,
            "its own watch reports changes",
        );
        let returns_unseen = |root_watch: &mut RootWatch| {
            root_watch.coverage = Coverage::Partial;
            root_watch.state = RootState::Gone;
        };
        check(returns_unseen, true, "its return is not reported");
        check(
            |root_watch| root_watch.coverage = Coverage::LimitReached(WatchLimit::Watches),
            true,
            "its replacement is not reported",
        );
        check(
            |root_watch| root_watch.is_busy = true,
            true,
            "the release of a lock causes no event",
        );
        check(
            |root_watch| root_watch.state = RootState::NoAnswer,
            true,
            "an answer causes no event",
        );
        check(
            |root_watch| root_watch.missed_scans = 1,
            false,
            "its watches were re-established",
        );
        check(
            |root_watch| root_watch.missed_scans = 2,
            true,
            "that did not help",
        );
    }
}
