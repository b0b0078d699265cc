//! Hot directories: temps are created in them so fast that one event for each costs more than scans
//! ([`crate::core::rate`]). Their watch is removed, and they are scanned twice in each grace. After pauses
//! that grow, they are probed for a moment. Once they are calm, they are watched again.
//!
//! No orphan is missed, and none is removed late unless a scan is late. The first scan follows the end of the watch, so
//! it finds temps whose events were not read. A later orphan is found before half its grace has passed, and its
//! deadline is then set by its own dates. The dates give credit for at most half a grace
//! (`Origin::FoundWithHalfCredit`), so every writer has at least the other half. The price: after a late scan, orphans
//! are removed late. A temp that was tracked before and renamed since turns out to be missing when it is looked at. At
//! the end, the watch is established first and a last scan follows.
//!
//! A directory that is created below a hot one is found by a scan. The removal of the hot directory itself is reported
//! by the watch on its parent or, if the parent is hot too, found by the scan of the parent.

use std::path::Path;
use std::time::Instant;

use super::event_loop::Supervisor;
use super::hot_dir::{HotDir, exceed_scan_share, scan_interval, scan_share};
use super::root_watch::RootWatch;
use super::services::Services;
use crate::core::event::RescanCause;
use crate::core::rate::PROBE_TIME;
use crate::core::time::span;
use crate::sys::mutex::guard;
use crate::watch::WatchError;

impl Supervisor {
    /// Removes the watch of a directory that has become hot, and scans it at once.
    pub(super) fn enter_hot(&mut self, dir: &Path) {
        let mut watching = self.root_watches.iter_mut();
        let mut watching = watching
            .by_ref()
            .filter(|one| one.dirs.watched.contains_key(dir));
        // If one watch serves two roots, it stays.
        let (Some(root_watch), None) = (watching.next(), watching.next()) else {
            return;
        };
        let Some(interval) = scan_interval(&root_watch.active.root) else {
            return;
        };
        if !root_watch.dirs.begin_hot(dir, interval, Instant::now()) {
            return;
        }
        // RACE: pending events are lost with the watch. The scan finds temps whose creation was not read. A temp that
        // was renamed since stays in the map until its next look. Worst case: no event reports it as settled. Nothing
        // is removed because of it, because each removal follows a look at the file.
        let has_watcher = self.services.watcher.unwatch(dir);
        self.services.shared.learning.feed.note_lost();
        log::info!(
            "{dir:?} is hot: it is scanned every {} instead of being watched, until it is calm",
            span(interval)
        );
        // Otherwise all watched directories are scanned in a moment, and this one with them.
        if has_watcher {
            self.run_hot();
        }
    }

    /// Scans and probes the hot directories that are due.
    pub(super) fn run_hot(&mut self) {
        let share = |root_watch: &RootWatch| {
            scan_share(root_watch.dirs.hot_dirs().map(|(_, hot_dir)| hot_dir))
        };
        let mut total: f64 = self.root_watches.iter().map(share).sum();
        for root_watch in &mut self.root_watches {
            let others = total - share(root_watch);
            for dir in root_watch.dirs.due_hot(Instant::now()) {
                root_watch.run_one_hot(&mut self.services, &dir, others);
            }
            total = others + share(root_watch);
        }
        let mut stats = guard(&self.services.shared.stats);
        for root_watch in &self.root_watches {
            let hot = root_watch
                .dirs
                .hot_dirs()
                .filter(|(_, hot_dir)| hot_dir.is_hot());
            stats.record_hot(&root_watch.active.root.path, hot.count());
        }
    }
}

impl RootWatch {
    /// Scans and probes one hot directory. `others` is the share of the time that the scans of other roots take.
    fn run_one_hot(&mut self, services: &mut Services, dir: &Path, others: f64) {
        let Some(hot_dir) = self.dirs.hot_dir(dir) else {
            return;
        };
        if let Some(created) = hot_dir.probe_result(Instant::now()) {
            if services.watcher.hot_threshold().is_calm(created) {
                log::info!(
                    "{dir:?} is calm ({created} temps in {PROBE_TIME:?}): it is watched again"
                );
                return self.leave_hot(services, dir, HotDir::end);
            }
            hot_dir.extend_pause(Instant::now());
        }
        let began = Instant::now();
        if !hot_dir.take_due(began) {
            return;
        }
        let was_read = self.scan_hot(services, dir);
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let Some(hot_dir) = self.dirs.hot_dir(dir) else {
            return;
        };
        if !was_read {
            // It is treated like any other directory that cannot be read.
            return self.leave_hot(services, dir, HotDir::refuse);
        }
        hot_dir.note_scan_time(took);
        let wants_probe = hot_dir.wants_probe(now);
        let all = self.dirs.hot_dirs().map(|(_, hot_dir)| hot_dir);
        if exceed_scan_share(others, all) {
            log::warn!(
                "{dir:?} is hot, but scans of hot directories take too long (this one {}): it is watched again, which \
                 slows down its writers",
                span(took)
            );
            return self.leave_hot(services, dir, HotDir::refuse);
        }
        if wants_probe && let Some(hot_dir) = self.dirs.hot_dir(dir) {
            // If the probe cannot begin now, it is tried again after the next pause.
            hot_dir.begin_probe(services.watcher.probe_rate(dir).ok(), now);
        }
    }

    /// Scans a hot directory. Returns whether it could be read.
    fn scan_hot(&mut self, services: &mut Services, dir: &Path) -> bool {
        let below = dir.strip_prefix(&self.active.root.path);
        below.is_ok_and(|below| self.scan(services, below, RescanCause::Periodic))
    }

    /// Watches a directory again, then scans it to find temps that were created before the watch.
    fn leave_hot(&mut self, services: &mut Services, dir: &Path, stop: fn(&mut HotDir, Instant)) {
        if let Some(hot_dir) = self.dirs.hot_dir(dir) {
            stop(hot_dir, Instant::now());
        }
        let root = &self.active.root;
        // If the watch cannot be established, the directory is polled like any other that is not watched.
        if let Err(WatchError::Missing) = self.dirs.rewatch(&mut services.watcher, root, dir) {
            if let Ok(below) = dir.strip_prefix(&root.path) {
                self.update_directory(services, below);
            }
            return;
        }
        if rule!("scan-once-watched-again", true) {
            self.scan_hot(services, dir);
        }
        self.update_state(services);
        self.poll_later(services);
    }
}
