//! Roots that come, go and change: what stands at a root's path is attached, what does no more is
//! let go.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::root_watch::{limit_advice, poll_interval};
use super::{RootWatch, Supervisor};
use crate::decide::time::span;
use crate::event::{Event, RescanCause, RootState};
use crate::look::{Dir, RootError, RootId, answer};
use crate::reap::quarantine::Quarantine;
use crate::root::{Root, leads_to_broad};
use crate::watch::{Coverage, Unwatched};

/// The interval at which a root that does not answer is asked about again.
const NO_ANSWER: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Whether what stands at the root's path is still what was attached; if not, attaches that.
    pub(super) fn check(&mut self, index: usize) {
        let root = self.root(index);
        if !self.does_answer(index, &root) {
            return;
        }
        let known = self.active_roots.id(index);
        // What leads to it may have changed.
        self.watch_parents(index, &root);
        match (RootId::of(&root.path), known) {
            (Ok(now), Some(known)) if now == known && self.is_watched(index, &root) => {}
            (Err(RootError::Missing), None) if self.state(index) == Some(RootState::Gone) => {}
            _ => self.attach(index, RescanCause::RootReturned),
        }
        self.poll_later(index, &root);
    }

    fn watch_parents(&mut self, index: usize, root: &Root) {
        let hearing = self.kernel.watch_ancestors(&root.path);
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            if let Coverage::LimitReached(limit) = hearing
                && !matches!(root_watch.coverage, Coverage::LimitReached(_))
            {
                log::warn!(
                    "cannot watch the folders that lead to {:?}. {} Meanwhile it is looked every \
                     {} whether it is still there",
                    root.path,
                    limit_advice(limit),
                    span(poll_interval(root))
                );
            }
            root_watch.coverage = hearing;
        }
    }

    fn is_watched(&self, index: usize, root: &Root) -> bool {
        let path = &root.path;
        let watched = |root_watch: &RootWatch| {
            root_watch.watched.contains_key(path) || root_watch.unwatched.contains(path)
        };
        self.root_watches.get(index).is_some_and(watched)
    }

    /// Watches a root and scans it. What was known of another directory at its path is forgotten.
    pub(super) fn attach(&mut self, index: usize, cause: RescanCause) {
        let root = self.root(index);
        if self.does_answer(index, &root) {
            self.attach_root(index, &root, cause);
            self.poll_later(index, &root);
        }
    }

    /// Returns whether the file system of a root answers. One that does not is detached until it does: a call on it may
    /// never return, and this thread serves all roots.
    pub(super) fn does_answer(&mut self, index: usize, root: &Root) -> bool {
        if answer::answers(&root.path) {
            return true;
        }
        if self.state(index) != Some(RootState::NoAnswer) {
            self.detach(index, root);
            self.set_state(index, RootState::NoAnswer);
            log::warn!(
                "the file system of {:?} does not answer; the directory is left alone until it does",
                root.path
            );
        }
        self.poll_later(index, root);
        false
    }

    fn attach_root(&mut self, index: usize, root: &Root, cause: RescanCause) {
        self.watch_parents(index, root);
        let id = match RootId::of(&root.path) {
            Ok(id) => id,
            Err(error) => return self.away(index, root, &error),
        };
        // It could not be looked at when it was given.
        if answer::was_silent(&root.path)
            && let Some(what) = leads_to_broad(&root.path)
        {
            self.detach(index, root);
            if self.set_state(index, RootState::Denied) {
                log::error!(
                    "{:?} is not watched: it did not answer when the watch began, and leads to {what}; name the \
                     directory that the leaking program writes to",
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
            // It may have been worked on without a lock, because none could be made: what is known of it is
            // not ours to remove any more.
            if rule!(
                "taken-root-is-let-go",
                self.state(index) != Some(RootState::Denied)
            ) {
                self.detach(index, root);
            }
            self.set_state(index, RootState::Denied);
            return;
        }
        self.active_roots.set_id(index, Some(id));
        if let Ok(dir) = Dir::open_root(&root.path, Some(id)) {
            root.report_coarse_dates(dir.place().dates);
        }
        let was_away = matches!(
            self.state(index),
            Some(RootState::Gone | RootState::Denied | RootState::NoAnswer)
        );
        let cause = match cause {
            RescanCause::Periodic | RescanCause::Overflow if replaced || was_away => {
                RescanCause::RootReturned
            }
            cause => cause,
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        root_watch.is_broken = false;
        root_watch.unwatched.clear();
        let watched = root_watch.watch(&mut self.kernel, root, &root.path, id);
        if let Err(Unwatched::Gone) = watched {
            return self.away(index, root, &RootError::Missing);
        }
        let path = root.path.clone();
        self.shared.emit(Event::Rescan { root: path, cause });
        if cause == RescanCause::Startup && !root.policy.is_dry_run() {
            // Nothing is tracked here yet, so nothing is on its way to the quarantine.
            if let Ok(Some(room)) = Quarantine::open_existing(&root.path, Some(id)) {
                room.remove_stale_slots();
            }
        }
        self.report_no_proof(index, root, id);
        self.scan(index, root, Path::new(""), cause);
        self.settle_state(index, root);
    }

    /// Says once of a root that its file system is none on which a file can be proven unused.
    fn report_no_proof(&mut self, index: usize, root: &Root, id: RootId) {
        let Ok(dir) = Dir::open_root(&root.path, Some(id)) else {
            return;
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        let place = dir.place();
        if !place.has_proof(&root.policy)
            && !std::mem::replace(&mut root_watch.reported_no_proof, true)
        {
            let name = &place.file_system;
            log::warn!(
                "{:?} is on {name}: on this file system nothing can prove that a file is unused, and every temp is \
                 kept as network-fs. To trust it: network = [{:?}] in the configuration file",
                root.path,
                &**name
            );
        }
    }

    /// Says, if it is news, whether all of a root that is there is watched.
    pub(super) fn settle_state(&mut self, index: usize, root: &Root) {
        // It may have been found to be away meanwhile.
        if self.active_roots.id(index).is_none() {
            return;
        }
        let Some(root_watch) = self.root_watches.get(index) else {
            return;
        };
        let state = match root_watch.may_miss_events() {
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

    fn away(&mut self, index: usize, root: &Root, error: &RootError) {
        self.detach(index, root);
        let state = match error {
            RootError::Missing | RootError::Replaced => RootState::Gone,
            RootError::NotADirectory
            | RootError::Symlink { .. }
            | RootError::ForeignLink { .. }
            | RootError::Io(_) => RootState::Denied,
        };
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            // A file system that is out of order, or a lack of descriptors, ends without an event.
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
        let is_its = |folder: &Path| {
            let covering = active_roots.root_of(folder);
            covering.is_none_or(|(covering, ..)| {
                rule!("inner-root-keeps-its-temps", covering == index, without: true)
            })
        };
        // A root inside of it is not gone with it: that is looked for by itself.
        self.shared.temps.forget_below(&root.path, is_its);
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        for (dir, _) in root_watch.watched.drain() {
            self.kernel.unwatch(&dir);
        }
        root_watch.unwatched.clear();
        root_watch.missed_scans = 0;
        root_watch.missed = None;
        // The lock was on a directory that is not there any more.
        root_watch.lock = None;
    }

    /// Something was mounted or unmounted at `place`: below a root it shuts or opens a directory.
    /// The roots themselves have been checked.
    pub(super) fn remounted(&mut self, place: &Path) {
        for index in 0..self.root_watches.len() {
            let root = self.root(index);
            if !root.policy.recursive || !self.does_answer(index, &root) {
                continue;
            }
            // The kernel's table knows no symlinks.
            let Ok(real) = std::fs::canonicalize(&root.path) else {
                continue;
            };
            match place.strip_prefix(real) {
                Ok(below) if !below.as_os_str().is_empty() => {
                    self.restructure(&root.path.join(below));
                }
                _ => {}
            }
        }
    }

    /// Has a root visited by time, where no event would tell that something has changed.
    pub(super) fn poll_later(&mut self, index: usize, root: &Root) {
        let Some(root_watch) = self.root_watches.get(index) else {
            return;
        };
        if root_watch.needs_polling() {
            let interval = match root_watch.state {
                RootState::NoAnswer => poll_interval(root).min(NO_ANSWER),
                _ => poll_interval(root),
            };
            self.schedule.poll_in(Instant::now(), interval);
        }
    }

    /// The visit: what is not watched is scanned, and watched if there is room again.
    pub(super) fn poll(&mut self, index: usize) {
        let root = self.root(index);
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if !root_watch.needs_polling() || !self.does_answer(index, &root) {
            return;
        }
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if root_watch.misses_events() {
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
        self.settle_state(index, &root);
        self.poll_later(index, &root);
    }

    /// Everything was scanned by time. Where that has found what no event had told of, though it was
    /// watched, the watches may be dead, whatever the kernel says: they are set anew.
    pub(super) fn check_missed_events(&mut self) {
        let mut silent = Vec::new();
        for (index, root_watch) in self.root_watches.iter_mut().enumerate() {
            let unheard = root_watch.missed.clone();
            if root_watch.missed_events() {
                silent.push(index);
            }
            if let Some(temp) = unheard {
                log::error!(
                    "{temp:?} was never heard of though its directory is watched; {}",
                    match root_watch.misses_events() {
                        true => "its root is scanned by time, as if it were not",
                        false => "all watches are set anew",
                    }
                );
            }
        }
        for index in silent.iter().copied() {
            self.set_state(index, RootState::Polling);
        }
        if !silent.is_empty() {
            self.kernel.clear();
            self.root_watches
                .iter_mut()
                .for_each(RootWatch::forget_watches);
            self.rescan_all(RescanCause::Overflow);
        }
        for index in 0..self.root_watches.len() {
            let root = self.root(index);
            self.settle_state(index, &root);
            self.poll_later(index, &root);
        }
    }
}
