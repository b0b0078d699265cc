//! Roots that appear, disappear and change. The directory at a root's path is attached; a directory that is no longer
//! there is detached.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::poll::poll_interval;
use super::root_watch::RootWatch;
use super::services::Services;
use crate::core::event::{Event, RescanCause, RootState};
use crate::core::time::span;
use crate::fs::broad::leads_to_broad;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::response;
use crate::reap::quarantine::Quarantine;
use crate::watch::{Coverage, WatchError};

impl RootWatch {
    /// Checks whether the directory at the root's path is still the attached one. If not, attaches the new one.
    pub(super) fn check(&mut self, services: &mut Services) {
        if !self.is_responding(services) {
            return;
        }
        let known = self.active.id();
        // The path to the root may have changed.
        self.watch_ancestors(services);
        let path = &self.active.root.path;
        match (RootId::of(path), known) {
            (Ok(now), Some(known)) if now == known && self.dirs.includes(path) => {}
            (Err(RootError::Missing), None) if self.state == RootState::Gone => {}
            _ => self.attach(services, RescanCause::RootReturned),
        }
        self.poll_later(services);
    }

    fn watch_ancestors(&mut self, services: &mut Services) {
        let root = &self.active.root;
        let coverage = services.watcher.watch_ancestors(&root.path);
        if let Coverage::LimitReached(limit) = coverage
            && !matches!(self.coverage, Coverage::LimitReached(_))
        {
            log::warn!(
                "cannot watch the directories above {:?}. {} Until they can be watched, orphand checks every {} \
                 whether the root still exists",
                root.path,
                limit.advice(),
                span(poll_interval(root))
            );
        }
        self.coverage = coverage;
    }

    /// Watches a root and scans it. Forgets the temps of a different directory that was at its path before.
    pub(super) fn attach(&mut self, services: &mut Services, cause: RescanCause) {
        if self.is_responding(services) {
            self.attach_responding(services, cause);
            self.poll_later(services);
        }
    }

    /// Returns whether the file system of a root responds. If it does not, the root is detached until it does: a call
    /// to it may never return, and this thread serves all roots.
    pub(super) fn is_responding(&mut self, services: &mut Services) -> bool {
        if response::responds(&self.active.root.path) {
            return true;
        }
        if self.state != RootState::NoAnswer {
            self.detach(services);
            self.set_state(services, RootState::NoAnswer);
            log::warn!(
                "the file system of {:?} does not answer; orphand leaves the directory alone until it does",
                self.active.root.path
            );
        }
        self.poll_later(services);
        false
    }

    fn attach_responding(&mut self, services: &mut Services, cause: RescanCause) {
        let active = Arc::clone(&self.active);
        let root = &active.root;
        self.watch_ancestors(services);
        let id = match RootId::of(&root.path) {
            Ok(id) => id,
            Err(error) => return self.mark_unavailable(services, &error),
        };
        if self.is_refused_late(services) {
            return;
        }
        let replaced = active.id().is_some_and(|known| known != id);
        if replaced {
            self.detach(services);
        }
        if !self.try_lock(services) {
            // The root may have been used without a lock, because none could be created. Its tracked temps must not be
            // removed any more.
            if rule!("locked-root-is-detached", self.state != RootState::Denied) {
                self.detach(services);
            }
            self.set_state(services, RootState::Denied);
            return;
        }
        active.set_id(Some(id));
        self.report_file_system(id);
        let cause = match (cause, self.state) {
            (
                RescanCause::Periodic | RescanCause::Overflow,
                RootState::Gone | RootState::Denied | RootState::NoAnswer,
            ) => RescanCause::RootReturned,
            (RescanCause::Periodic | RescanCause::Overflow, _) if replaced => {
                RescanCause::RootReturned
            }
            (cause, _) => cause,
        };
        self.is_broken = false;
        self.dirs.unwatched.clear();
        let watched = self.dirs.watch(&mut services.watcher, root, &root.path, id);
        if let Err(WatchError::Missing) = watched {
            return self.mark_unavailable(services, &RootError::Missing);
        }
        let path = root.path.clone();
        services.shared.emit(Event::Rescan { root: path, cause });
        if cause == RescanCause::Startup && !root.policy.is_dry_run() {
            // No temps are tracked here yet, so none is on its way to the quarantine.
            if let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, Some(id)) {
                quarantine.remove_stale_slots();
            }
        }
        self.scan(services, Path::new(""), cause);
        self.update_state(services);
    }

    /// Refuses a root that leads to a broad directory, if it did not respond when the rules were loaded: this check
    /// could not be made then. Returns whether the root is refused.
    fn is_refused_late(&mut self, services: &mut Services) -> bool {
        let active = Arc::clone(&self.active);
        let path = &active.root.path;
        if !response::was_unresponsive(path) {
            return false;
        }
        let Some(what) = leads_to_broad(path) else {
            return false;
        };
        self.detach(services);
        if self.set_state(services, RootState::Denied) {
            log::error!(
                "{path:?} is not watched: it did not answer when the watch began, and it leads to {what}; give the \
                 directory in which the program leaves its temps"
            );
        }
        true
    }

    /// Reports if dates on the root's file system are coarse, and once if it cannot prove that a file is unused.
    fn report_file_system(&mut self, id: RootId) {
        let root = &self.active.root;
        let Ok(dir) = Dir::open_root(&root.path, Some(id)) else {
            return;
        };
        let properties = dir.properties();
        root.report_coarse_dates(properties.dates);
        if !properties.has_proof(&root.policy)
            && !std::mem::replace(&mut self.reported_no_proof, true)
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
    pub(super) fn update_state(&mut self, services: &mut Services) {
        // The root may have become unavailable in the meantime.
        if self.active.id().is_none() {
            return;
        }
        let state = match self.is_partly_unwatched() {
            true => RootState::Polling,
            false => RootState::Watching,
        };
        let before = self.state;
        if self.set_state(services, state) && before == RootState::Polling {
            log::info!("all of {:?} is watched again", self.active.root.path);
        }
        self.reported_unwatched &= state != RootState::Watching;
    }

    fn mark_unavailable(&mut self, services: &mut Services, error: &RootError) {
        self.detach(services);
        let state = match error {
            RootError::Missing | RootError::Replaced => RootState::Gone,
            RootError::NotADirectory
            | RootError::Symlink { .. }
            | RootError::ForeignLink { .. }
            | RootError::Io(_) => RootState::Denied,
        };
        // No event reports the end of a failure of the file system, or of a lack of file descriptors.
        self.is_broken = match error {
            RootError::Io(error) => error.kind() != io::ErrorKind::PermissionDenied,
            _ => false,
        };
        if self.set_state(services, state) && state == RootState::Denied {
            log::warn!("{:?} is not watched: {error}", self.active.root.path);
        }
    }

    fn detach(&mut self, services: &mut Services) {
        self.active.set_id(None);
        let is_own = |dir: &Path| {
            let covering = services.active_roots.root_of(dir);
            covering.is_none_or(|(covering, _)| {
                rule!(
                    "inner-root-keeps-its-temps",
                    Arc::ptr_eq(covering, &self.active),
                    without: true
                )
            })
        };
        // A root inside this one is checked separately: it does not have to be missing too.
        let path = &self.active.root.path;
        services.shared.temps.forget_below(path, is_own);
        self.dirs.drop_all(&mut services.watcher);
        self.missed_scans = 0;
        self.missed = None;
        // The lock was on a directory that is no longer there.
        self.lock = None;
    }

    /// Returns the path of a mount or an unmount at `path`, if it is below the root and not the root itself. `path` has
    /// no symlinks, as in the kernel's table of mounts.
    pub(super) fn path_of_mount(
        &mut self,
        services: &mut Services,
        path: &Path,
    ) -> Option<PathBuf> {
        if !self.active.root.policy.recursive || !self.is_responding(services) {
            return None;
        }
        let root = &self.active.root.path;
        let below = path.strip_prefix(std::fs::canonicalize(root).ok()?).ok()?;
        (!below.as_os_str().is_empty()).then(|| root.join(below))
    }

    /// Processes an event about the directory `below` the root, which may be new or may have been removed.
    pub(super) fn update_directory(&mut self, services: &mut Services, below: &Path) {
        if below.as_os_str().is_empty() {
            return self.check(services);
        }
        let root = &self.active.root;
        let path = root.path.join(below);
        let now = Dir::open_below(&root.path, self.active.id(), below).map(|dir| dir.id());
        let known = self.dirs.watched.get(&path).map(|watched| watched.id);
        if known.is_none() || known != now.as_ref().ok().copied() {
            let dropped = self.dirs.drop_below(&mut services.watcher, &path);
            if !dropped.is_empty() {
                services.shared.temps.forget_below(&path, |_| true);
            }
        }
        if now.is_ok() {
            self.scan(services, below, RescanCause::RootReturned);
        }
        self.update_state(services);
        self.poll_later(services);
    }
}
