//! The services and the state that all roots share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::rescan_schedule::RescanSchedule;
use crate::core::retention::ClockTrust;
use crate::core::time::{ClockJumpDetector, Mono, Wall};
use crate::daemon::active_roots::ActiveRoots;
use crate::daemon::existing::Existing;
use crate::daemon::shared::Shared;
use crate::evidence::UseChecker;
use crate::fs::response;
use crate::sys::clock;
use crate::watch::{CallbackContext, FsWatcher};

/// The services and the state that all roots of the supervisor share.
pub(super) struct Services {
    pub(super) shared: Arc<Shared>,
    /// The rules in force. Only this thread changes them.
    pub(super) active_roots: Arc<ActiveRoots>,
    pub(super) watcher: FsWatcher,
    /// Makes the use checks of recovered claims and of dropped files.
    pub(super) use_checker: UseChecker,
    pub(super) schedule: RescanSchedule,
    /// The next capacity check, if temps were rejected because of the tracking limit.
    pub(super) next_capacity_check: Option<Instant>,
    /// A scan could not read everything, for lack of file descriptors or memory.
    pub(super) scan_was_incomplete: bool,
    clocks: ClockJumpDetector,
    /// The start of the watch, by the monotonic clock.
    started: Mono,
    /// The same by the dates of files: files with earlier dates existed before the start.
    pub(super) boundary: Wall,
    /// The scans of the start are complete. A root that is added later existed while this watcher ran, and may have
    /// been watched before.
    pub(super) has_started: bool,
}

/// The interval at which the supervisor checks whether temps that were rejected have room now.
const CAPACITY_CHECK: Duration = Duration::from_secs(1);

impl Services {
    pub(super) fn new(shared: Arc<Shared>, callback_context: CallbackContext) -> Services {
        let now = clock::now();
        // With `Take` old and new temps are treated alike, so there is no need to wait for a tick of the file system's
        // clock.
        let boundary = match shared.existing {
            Existing::Take => now.wall,
            Existing::Leave | Existing::Wait => clock::boundary(),
        };
        let mut clocks = ClockJumpDetector::default();
        clocks.read(now);
        Services {
            active_roots: shared.active_roots(),
            shared,
            watcher: FsWatcher::new(callback_context),
            use_checker: UseChecker::new(),
            schedule: RescanSchedule::default(),
            next_capacity_check: None,
            scan_was_incomplete: false,
            clocks,
            started: now.mono,
            boundary,
            has_started: false,
        }
    }

    /// Probes all roots at once, so that the waits for those that do not respond overlap.
    pub(super) fn probe_all(&self) {
        let roots = self.active_roots.roots();
        let _ = response::unresponsive(roots.map(|root| root.path.as_path()));
    }

    /// Schedules a scan of everything, because events were lost.
    pub(super) fn note_lost_events(&mut self) {
        self.schedule.events_lost(Instant::now());
    }

    /// Returns whether scans have made up for all lost events and all rejected temps.
    pub(super) fn nothing_is_missing(&self) -> bool {
        self.schedule.nothing_is_missing() && !self.shared.temps.has_rejected()
    }

    /// Reports that temps were rejected because of the tracking limit. Everything is scanned once there is room.
    pub(super) fn note_limit_reached(&mut self) {
        if self.next_capacity_check.is_none() {
            log::warn!(
                "tracking limit reached ({} temps); the rest will be found by a rescan once there is room",
                self.shared.temps.len()
            );
            self.next_capacity_check = Some(Instant::now() + CAPACITY_CHECK);
        }
    }

    pub(super) fn check_capacity(&mut self, now: Instant) {
        if self.next_capacity_check.is_none_or(|at| now < at) {
            return;
        }
        self.next_capacity_check = Some(now + CAPACITY_CHECK);
        if self.shared.temps.has_capacity_again() {
            self.next_capacity_check = None;
            self.note_lost_events();
        }
    }

    /// Returns how far the wall clock can be trusted.
    pub(super) fn clock_trust(&mut self) -> ClockTrust {
        let now = clock::now();
        let last_jump = self.clocks.read(now);
        ClockTrust {
            running: now.mono.since(self.started),
            since_jump: last_jump.map(|last_jump| now.mono.since(last_jump)),
        }
    }
}
