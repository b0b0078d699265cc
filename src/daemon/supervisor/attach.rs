//! Roots that appear, disappear and change. The directory at a root's path is attached; a directory that is no longer
//! there is detached.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::root_watch::{limit_advice, poll_interval};
use super::{RootWatch, Supervisor};
use crate::core::event::{Event, RescanCause, RootState};
use crate::core::time::span;
use crate::fs::broad::leads_to_broad;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::response;
use crate::fs::root::Root;
use crate::reap::quarantine::Quarantine;
use crate::watch::{Coverage, WatchError};

/// The interval at which a root that does not respond is probed again.
const NO_ANSWER_RETRY: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Checks whether the directory at the root's path is still the attached one. If not, attaches the new one.
    pub(super) fn check(&mut self, index: usize) {
        let root = self.root(index);
        if !self.is_responding(index, &root) {
            return;
        }
        let known = self.active_roots.id(index);
        // The path to the root may have changed.
        self.watch_ancestors(index, &root);
        match (RootId::of(&root.path), known) {
            (Ok(now), Some(known)) if now == known && self.is_watched(index, &root) => {}
            (Err(RootError::Missing), None) if self.state(index) == Some(RootState::Gone) => {}
            _ => self.attach(index, RescanCause::RootReturned),
        }
        self.poll_later(index, &root);
    }

    fn watch_ancestors(&mut self, index: usize, root: &Root) {
        let coverage = self.watcher.watch_ancestors(&root.path);
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            if let Coverage::LimitReached(limit) = coverage
                && !matches!(root_watch.coverage, Coverage::LimitReached(_))
            {
                log::warn!(
                    "cannot watch the directories above {:?}. {} Until they can be watched, orphand checks every \
                     {} whether the root still exists",
                    root.path,
                    limit_advice(limit),
                    span(poll_interval(root))
                );
            }
            root_watch.coverage = coverage;
        }
    }

    fn is_watched(&self, index: usize, root: &Root) -> bool {
        let path = &root.path;
        let watched = |root_watch: &RootWatch| {
            root_watch.watched.contains_key(path) || root_watch.unwatched.contains(path)
        };
        self.root_watches.get(index).is_some_and(watched)
    }

    /// Watches a root and scans it. Forgets the temps of a different directory that was at its path before.
    pub(super) fn attach(&mut self, index: usize, cause: RescanCause) {
        let root = self.root(index);
        if self.is_responding(index, &root) {
            self.attach_root(index, &root, cause);
            self.poll_later(index, &root);
        }
    }

    /// Returns whether the file system of a root responds. If it does not, the root is detached until it does: a call
    /// to it may never return, and this thread serves all roots.
    pub(super) fn is_responding(&mut self, index: usize, root: &Root) -> bool {
        if response::responds(&root.path) {
            return true;
        }
        if self.state(index) != Some(RootState::NoAnswer) {
            self.detach(index, root);
            self.set_state(index, RootState::NoAnswer);
            log::warn!(
                "the file system of {:?} does not answer; orphand leaves the directory alone until it does",
                root.path
            );
        }
        self.poll_later(index, root);
        false
    }

    fn attach_root(&mut self, index: usize, root: &Root, cause: RescanCause) {
        self.watch_ancestors(index, root);
        let id = match RootId::of(&root.path) {
            Ok(id) => id,
            Err(error) => return self.mark_unavailable(index, root, &error),
        };
        // The root did not respond when the rules were loaded, so this check could not be made then.
        if response::was_unresponsive(&root.path)
            && let Some(what) = leads_to_broad(&root.path)
        {
            self.detach(index, root);
            if self.set_state(index, RootState::Denied) {
                log::error!(
                    "{:?} is not watched: it did not answer when the watch began, and it leads to {what}; give the \
                     directory in which the program leaves its temps",
                    root.path
                );
            }
            return;
        }
        let replaced = self.active_roots.id(index).is_some_and(|known| known != id);
        if replaced {
            self.detach(index, root);
        }
        let runtime = self.shared.folders.runtime.as_deref();
        let root_watch = self.root_watches.get_mut(index);
        if !root_watch.is_some_and(|root_watch| root_watch.try_lock(root, runtime)) {
            // The root may have been used without a lock, because none could be created. Its tracked temps must not be
            // removed any more.
            if rule!(
                "locked-root-is-detached",
                self.state(index) != Some(RootState::Denied)
            ) {
                self.detach(index, root);
            }
            self.set_state(index, RootState::Denied);
            return;
        }
        self.active_roots.set_id(index, Some(id));
        if let Ok(dir) = Dir::open_root(&root.path, Some(id)) {
            root.report_coarse_dates(dir.properties().dates);
        }
        let was_unavailable = matches!(
            self.state(index),
            Some(RootState::Gone | RootState::Denied | RootState::NoAnswer)
        );
        let cause = match cause {
            RescanCause::Periodic | RescanCause::Overflow if replaced || was_unavailable => {
                RescanCause::RootReturned
            }
            cause => cause,
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        root_watch.is_broken = false;
        root_watch.unwatched.clear();
        let watched = root_watch.watch(&mut self.watcher, root, &root.path, id);
        if let Err(WatchError::Missing) = watched {
            return self.mark_unavailable(index, root, &RootError::Missing);
        }
        let path = root.path.clone();
        self.shared.emit(Event::Rescan { root: path, cause });
        if cause == RescanCause::Startup && !root.policy.is_dry_run() {
            // No temps are tracked here yet, so none is on its way to the quarantine.
            if let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, Some(id)) {
                quarantine.remove_stale_slots();
            }
        }
        self.report_no_proof(index, root, id);
        self.scan(index, root, Path::new(""), cause);
        self.update_state(index, root);
    }

    /// Reports once if a root is on a file system that cannot prove that a file is unused.
    fn report_no_proof(&mut self, index: usize, root: &Root, id: RootId) {
        let Ok(dir) = Dir::open_root(&root.path, Some(id)) else {
            return;
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        let properties = dir.properties();
        if !properties.has_proof(&root.policy)
            && !std::mem::replace(&mut root_watch.reported_no_proof, true)
        {
            let name = &properties.file_system;
            log::warn!(
                "{:?} is on {name}: on this file system nothing can prove that a file is unused, and every temp is \
                 kept as network-fs. To trust it: network = [{:?}] in the configuration file",
                root.path,
                &**name
            );
        }
    }

    /// Sets an available root to `Watching` or `Polling`, and reports a change.
    pub(super) fn update_state(&mut self, index: usize, root: &Root) {
        // The root may have become unavailable in the meantime.
        if self.active_roots.id(index).is_none() {
            return;
        }
        let Some(root_watch) = self.root_watches.get(index) else {
            return;
        };
        let state = match root_watch.is_partly_unwatched() {
            true => RootState::Polling,
            false => RootState::Watching,
        };
        let before = root_watch.state;
        if self.set_state(index, state) && before == RootState::Polling {
            log::info!("all of {:?} is watched again", root.path);
        }
        if state == RootState::Watching
            && let Some(root_watch) = self.root_watches.get_mut(index)
        {
            root_watch.reported_unwatched = false;
        }
    }

    fn mark_unavailable(&mut self, index: usize, root: &Root, error: &RootError) {
        self.detach(index, root);
        let state = match error {
            RootError::Missing | RootError::Replaced => RootState::Gone,
            RootError::NotADirectory
            | RootError::Symlink { .. }
            | RootError::ForeignLink { .. }
            | RootError::Io(_) => RootState::Denied,
        };
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            // No event reports the end of a failure of the file system, or of a lack of file descriptors.
            root_watch.is_broken = match error {
                RootError::Io(error) => error.kind() != io::ErrorKind::PermissionDenied,
                _ => false,
            };
        }
        if self.set_state(index, state) && state == RootState::Denied {
            log::warn!("{:?} is not watched: {error}", root.path);
        }
    }

    fn detach(&mut self, index: usize, root: &Root) {
        self.active_roots.set_id(index, None);
        let active_roots = &self.active_roots;
        let is_own = |dir: &Path| {
            let covering = active_roots.root_of(dir);
            covering.is_none_or(|(covering, ..)| {
                rule!("inner-root-keeps-its-temps", covering == index, without: true)
            })
        };
        // A root inside this one is checked separately: it does not have to be missing too.
        self.shared.temps.forget_below(&root.path, is_own);
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        for (dir, _) in root_watch.watched.drain() {
            self.watcher.unwatch(&dir);
        }
        root_watch.unwatched.clear();
        root_watch.missed_scans = 0;
        root_watch.missed = None;
        // The lock was on a directory that is no longer there.
        root_watch.lock = None;
    }

    /// Processes a mount or an unmount at `path`, which hides or reveals a directory below a root. The roots themselves
    /// have already been checked.
    pub(super) fn remounted(&mut self, path: &Path) {
        for index in 0..self.root_watches.len() {
            let root = self.root(index);
            if !root.policy.recursive || !self.is_responding(index, &root) {
                continue;
            }
            // The kernel's table of mounts has no symlinks in its paths.
            let Ok(real) = std::fs::canonicalize(&root.path) else {
                continue;
            };
            match path.strip_prefix(real) {
                Ok(below) if !below.as_os_str().is_empty() => {
                    self.update_directory(&root.path.join(below));
                }
                _ => {}
            }
        }
    }

    /// Schedules a poll of a root if no event would report a change.
    pub(super) fn poll_later(&mut self, index: usize, root: &Root) {
        let Some(root_watch) = self.root_watches.get(index) else {
            return;
        };
        if root_watch.needs_polling() {
            let interval = match root_watch.state {
                RootState::NoAnswer => poll_interval(root).min(NO_ANSWER_RETRY),
                _ => poll_interval(root),
            };
            self.schedule.schedule_poll(Instant::now(), interval);
        }
    }

    /// Polls a root: scans the parts of it that are not watched, and watches them if that is possible now.
    pub(super) fn poll(&mut self, index: usize) {
        let root = self.root(index);
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if !root_watch.needs_polling() || !self.is_responding(index, &root) {
            return;
        }
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if root_watch.has_unreliable_events() {
            return self.attach(index, RescanCause::Periodic);
        }
        self.check(index);
        let dirs = match self.root_watches.get_mut(index) {
            Some(root_watch) => root_watch.take_unwatched(),
            None => return,
        };
        if !dirs.is_empty() {
            let path = root.path.clone();
            let cause = RescanCause::Periodic;
            self.shared.emit(Event::Rescan { root: path, cause });
        }
        for dir in dirs {
            if let Ok(below) = dir.strip_prefix(&root.path) {
                self.scan(index, &root, below, RescanCause::Periodic);
            }
        }
        self.update_state(index, &root);
        self.poll_later(index, &root);
    }

    /// Re-establishes all watches if the last periodic scan found a temp whose event did not arrive: the watches may
    /// not work although the kernel accepted them. If that was already tried, polls the root instead.
    pub(super) fn check_missed_events(&mut self) {
        let mut to_reestablish = Vec::new();
        for (index, root_watch) in self.root_watches.iter_mut().enumerate() {
            let missed = root_watch.missed.clone();
            if root_watch.end_periodic_scan() {
                to_reestablish.push(index);
            }
            if let Some(temp) = missed {
                log::error!(
                    "missed the create event of {temp:?} in a watched directory; {}",
                    match root_watch.has_unreliable_events() {
                        true => "polling its root from now on",
                        false => "re-establishing all watches",
                    }
                );
            }
        }
        for index in to_reestablish.iter().copied() {
            self.set_state(index, RootState::Polling);
        }
        if !to_reestablish.is_empty() {
            self.watcher.clear();
            self.root_watches
                .iter_mut()
                .for_each(RootWatch::forget_watches);
            self.rescan_all(RescanCause::Overflow);
        }
        for index in 0..self.root_watches.len() {
            let root = self.root(index);
            self.update_state(index, &root);
            self.poll_later(index, &root);
        }
    }
}
