//! The supervisor's scans: directories below a root are watched, and temps in them are tracked.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::root_watch::{Watched, limit_advice, poll_interval};
use super::{CriticalThread, Existing, IdleIoPriority, Supervisor, guard};
use crate::core::event::{Event, RescanCause, Subject};
use crate::core::own_names;
use crate::core::policy;
use crate::core::time::{Wall, span};
use crate::core::tracker::Origin;
use crate::daemon::stats::LastScan;
use crate::engine::pass;
use crate::engine::pass::{DirContext, RecoveryOutcome};
use crate::fs::dir::{Dir, RootError};
use crate::fs::root::Root;
use crate::fs::walk;
use crate::fs::walk::ScanItem;
use crate::sys::clock;
use crate::watch::{RECURSIVE, WatchError};

impl Supervisor {
    /// Scans the directory `below` a root: watches the directories in it and tracks their temps. Returns whether that
    /// directory itself could be read.
    pub(super) fn scan(
        &mut self,
        index: usize,
        root: &Root,
        below: &Path,
        cause: RescanCause,
    ) -> bool {
        let is_start = cause == RescanCause::Startup;
        let is_first = matches!(cause, RescanCause::Startup | RescanCause::RootReturned);
        let (existing, has_started) = (self.shared.existing, self.has_started);
        // If nothing is missing, events or earlier scans have covered everything. A temp that is new now should have
        // been reported by an event.
        let expects_events = cause == RescanCause::Periodic && self.nothing_is_missing();
        let (shared, started) = (Arc::clone(&self.shared), clock::mono());
        let id = self.active_roots.id(index);
        let recovers = !root.policy.is_dry_run();
        let (boundary, now) = (self.boundary, clock::wall());
        let claims = Mutex::new(Vec::new());
        let denied = Mutex::new(Vec::new());
        let missed = Mutex::new(Vec::new());
        let elsewhere = Mutex::new(Vec::new());
        // The walk has several threads, but there is only one `FsWatcher`.
        let unwatched = Mutex::new(Vec::new());
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return false;
        };
        root_watch.begin_scan();
        let event_deadline = root_watch.event_deadline(root);
        let watches = Mutex::new((&mut self.watcher, root_watch));
        // Returns the time since which a directory has been watched, if it is.
        let watched_since = |dir: &Dir| {
            let (_, root_watch) = &*guard(&watches);
            let watched = root_watch.watched.get(dir.path())?;
            (!watched.hot.is_hot()).then_some(watched.since)
        };
        let on_item = |item: ScanItem<'_>| match item {
            ScanItem::Dir(dir) => {
                if cause == RescanCause::Periodic {
                    IdleIoPriority::apply_to_child();
                }
                if RECURSIVE && !dir.below().as_os_str().is_empty() {
                    return;
                }
                let (watcher, root_watch) = &mut *guard(&watches);
                if let Err(error) = root_watch.watch(watcher, root, dir.path(), dir.id()) {
                    guard(&unwatched).push((dir.path().to_owned(), error));
                }
            }
            ScanItem::Temp(dir, name) => {
                let (path, at) = (dir.path().join(name), clock::mono());
                if shared.temps.knows(&path) {
                    return;
                }
                // A temp that existed before the start may be found later, with its directory. It may also have a later
                // date, if the clock was set back.
                // RACE: a writer may rename the temp just after this look. Worst case: with `leave`, a later orphan of
                // that very name is ignored too, until an event reports the creation of a temp with that name.
                let existed = match existing {
                    Existing::Take => false,
                    _ => match existed_before(dir, name, boundary) {
                        Some(older) => older || rule!("at-start-whatever-its-date", is_start),
                        None => return,
                    },
                };
                let origin = match existing {
                    Existing::Leave if existed => return shared.temps.ignore(&path, at),
                    Existing::Wait if is_first || existed => Origin::FoundWithoutCredit,
                    _ if is_start
                        && rule!("later-root-has-no-start", !has_started, without: true) =>
                    {
                        Origin::Found
                    }
                    // An event should have reported the temp or its directory, or the root was added later. Its writer has as much time as if it
                    // had.
                    _ => Origin::FoundWithHalfCredit,
                };
                let is_new = shared.temps.record_found(&path, at, origin);
                if is_new
                    && expects_events
                    && let Some(since) = watched_since(dir)
                    && now.since(since) > event_deadline
                    && is_older_than(dir, name, now, event_deadline)
                {
                    guard(&missed).push(path);
                }
            }
            ScanItem::Claim(dir, name) if recovers => {
                guard(&claims).push((dir.below().to_owned(), name.to_owned()));
            }
            ScanItem::Denied(path, error) => {
                guard(&denied).push((path.to_owned(), crate::sys::error::copy(error)));
            }
            ScanItem::NotEntered(path) => guard(&elsewhere).push(path.to_owned()),
            // A long walk counts as progress.
            ScanItem::Done(_) => shared.beat(CriticalThread::Supervisor),
            ScanItem::Claim(..) => {}
        };
        let walked = walk::scan(root, id, below, &on_item, &|| false);
        let (claims, denied) = (into_inner(claims), into_inner(denied));
        let (unwatched, missed) = (into_inner(unwatched), into_inner(missed));
        let failed = denied.iter().map(|(_, error)| error);
        let failed = failed.chain(match &walked {
            Err(RootError::Io(error)) => Some(error),
            _ => None,
        });
        self.scan_was_incomplete |= failed.into_iter().any(is_shortage);
        let dir = root.path.join(below);
        let unread: Vec<&Path> = denied.iter().map(|(path, _)| path.as_path()).collect();
        let was_read = walked.is_ok() && !denied.iter().any(|(path, _)| *path == dir);
        let mut directories = 0;
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            if walked.is_ok() {
                root_watch.unwatch_unfound(&mut self.watcher, &dir, &unread);
            }
            if let Some(path) = missed.into_iter().next() {
                root_watch.missed.get_or_insert(path);
            }
            directories = root_watch.watched.len();
        }
        for (below, name) in claims {
            self.recover(index, root, &below, &name);
        }
        self.report_unwatched(index, root, &unwatched);
        self.report_not_entered(index, root, into_inner(elsewhere));
        for (path, error) in denied {
            self.report_failure(root, path, "read this directory", &error);
        }
        if let Err(RootError::Io(error)) = walked
            && (error.kind() == io::ErrorKind::PermissionDenied || is_shortage(&error))
        {
            self.report_failure(root, dir, "read this directory", &error);
        }
        let scan = LastScan {
            ended: clock::wall(),
            took: clock::mono().since(started),
        };
        guard(&self.shared.stats).record_scan(&root.path, scan, directories);
        if self.shared.temps.has_rejected() {
            self.note_limit_reached();
        }
        self.shared.temps.wake();
        was_read
    }

    /// Reports once that something cannot be watched, and then not again until all of the root is watched.
    fn report_unwatched(&mut self, index: usize, root: &Root, unwatched: &[(PathBuf, WatchError)]) {
        let mut failures = unwatched
            .iter()
            .filter(|(_, error)| !matches!(error, WatchError::Missing));
        let Some((first, reason)) = failures.next() else {
            return;
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if std::mem::replace(&mut root_watch.reported_unwatched, true) {
            return;
        }
        let more = failures.count();
        let interval = span(poll_interval(root));
        let reason = match reason {
            WatchError::Limit(limit) => limit_advice(*limit).to_owned(),
            WatchError::Other(error) => format!("{error}."),
            // These were filtered out above.
            WatchError::Missing => String::new(),
        };
        log::warn!(
            "cannot watch {first:?} and {more} more directories in {:?}. {reason} They are scanned every {interval} \
             until they can be watched: their temps are found later, but none is missed",
            root.path
        );
    }

    /// Reports each mount and subvolume that is not entered, once.
    fn report_not_entered(&mut self, index: usize, root: &Root, mut elsewhere: Vec<PathBuf>) {
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        elsewhere.retain(|path| root_watch.not_entered.insert(path.clone()));
        elsewhere.sort_unstable();
        if let Some(message) = walk::not_entered_message(root, &elsewhere) {
            log::warn!("{message}");
        }
    }

    fn report_failure(&self, root: &Root, path: PathBuf, action: &str, error: &io::Error) {
        self.shared.emit(Event::Failed {
            subject: Subject {
                path,
                root: root.path.clone(),
                size: None,
            },
            error: format!("cannot {action}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn recover(&self, index: usize, root: &Root, below: &Path, claim: &OsStr) {
        let dir = root.path.join(below);
        // A root inside another root has a rule of its own.
        if self.active_roots.root_of(&dir).map(|(owner, _, _)| owner) != Some(index) {
            return;
        }
        let id = self.active_roots.id(index);
        let dir_context = DirContext { root, id, below };
        let temps = &self.shared.temps;
        let ignored = self
            .ignored_name(dir_context, claim)
            .map(|name| dir.join(name))
            .filter(|path| temps.expect_put_back(path, clock::mono()));
        let mut emit = |event| self.shared.emit(event);
        let outcome = pass::recover(
            &self.shared.engine,
            dir_context,
            &self.use_checker,
            claim,
            &mut emit,
        );
        match (outcome, ignored) {
            (RecoveryOutcome::PutBack(_), Some(_)) | (RecoveryOutcome::Done, None) => {}
            (RecoveryOutcome::PutBack(name), None) => {
                _ = temps.record_created(&dir.join(name), clock::mono());
            }
            // A failed put-back of an ignored temp needs no entry: the next full scan finds the claim again.
            (outcome, Some(path)) => {
                temps.cancel_put_back(&path);
                if let RecoveryOutcome::Kept(reason) = outcome {
                    self.shared
                        .emit(pass::kept_claim(dir_context, claim, reason, None));
                }
            }
            (RecoveryOutcome::Kept(reason), None) => {
                if self.retry_claim(dir_context, claim) {
                    let retry =
                        policy::retry(root.policy.grace.shortest(), reason.ends_without_event(), 0);
                    let event = pass::kept_claim(dir_context, claim, reason, Some(retry));
                    self.shared.emit(event);
                }
            }
            (RecoveryOutcome::Failed, None) => _ = self.retry_claim(dir_context, claim),
        }
    }

    /// Schedules another attempt to put a claim back, at the deadline of its temp. Returns whether this is new.
    fn retry_claim(&self, dir_context: DirContext<'_>, claim: &OsStr) -> bool {
        let Ok(dir) = Dir::open_below(&dir_context.root.path, dir_context.id, dir_context.below)
        else {
            return false;
        };
        let original = own_names::parse_claim(claim).and_then(|claim| claim.original);
        // A claim whose original name was cut off is tracked by its present name.
        let name = original.as_deref().unwrap_or(claim);
        let claims = self.shared.engine.reaper.claims();
        let is_new = claims.add_pending(dir.id(), name, claim);
        let path = dir_context.root.path.join(dir_context.below).join(name);
        rule!(
            "held-claim-is-tried-again",
            self.shared.temps.record_claim_pending(&path, clock::mono()),
            without: (),
        );
        is_new
    }

    /// Returns the original name of a claim if temps that existed before the start are to be ignored and this is one of
    /// them. The put-back itself changes the dates of the file.
    fn ignored_name(&self, dir_context: DirContext<'_>, claim: &OsStr) -> Option<OsString> {
        let removes = self.shared.existing != Existing::Leave;
        if rule!("crash-leftover-is-left-alone", removes, without: true) {
            return None;
        }
        let dir =
            Dir::open_below(&dir_context.root.path, dir_context.id, dir_context.below).ok()?;
        let existed = existed_before(&dir, claim, self.boundary)?;
        own_names::parse_claim(claim)?
            .original
            .filter(|_| existed || rule!("claim-at-start-whatever-date", !self.has_started))
    }

    /// Processes an event at `path`, which may be a new directory or the path of a former one.
    pub(super) fn update_directory(&mut self, path: &Path) {
        let (shared, active_roots) = (Arc::clone(&self.shared), Arc::clone(&self.active_roots));
        let Some((index, root, below)) = active_roots.root_of(path) else {
            return;
        };
        if below.as_os_str().is_empty() {
            return self.check(index);
        }
        let now = Dir::open_below(&root.path, active_roots.id(index), below).map(|dir| dir.id());
        let is_same = |known: &Watched| now.as_ref().is_ok_and(|now| *now == known.id);
        if let Some(root_watch) = self.root_watches.get_mut(index)
            && !root_watch.watched.get(path).is_some_and(is_same)
        {
            for (dir, _) in root_watch
                .watched
                .extract_if(|dir, _| dir.starts_with(path))
            {
                self.watcher.unwatch(&dir);
                shared.temps.forget_below(&dir, |_| true);
            }
            root_watch.unwatched.retain(|dir| !dir.starts_with(path));
        }
        if now.is_ok() {
            self.scan(index, root, below, RescanCause::RootReturned);
        }
        self.update_state(index, root);
        self.poll_later(index, root);
    }
}

/// Returns whether a file existed before a [`clock::boundary`], or true if this is unknown. Returns `None` if the file
/// no longer exists. A move of its directory does not change its dates. A put-back does, and so would a change of its
/// mode. If its time of birth is known, that counts too.
fn existed_before(dir: &Dir, name: &OsStr, boundary: Wall) -> Option<bool> {
    match dir.observe(name) {
        Ok(Some(seen)) => {
            let seen = seen.fingerprint;
            let was_born_before = seen.btime.is_some_and(|btime| btime <= boundary);
            Some(seen.ctime <= boundary || rule!("returned-keeps-its-age", was_born_before))
        }
        Ok(None) => None,
        Err(_) => Some(true),
    }
}

/// Returns whether a file has had its name for longer than `age` before `now`, so that its event should have been
/// received. A wrong result, after the clock was set, costs one scan.
fn is_older_than(dir: &Dir, name: &OsStr, now: Wall, age: Duration) -> bool {
    match dir.observe(name) {
        Ok(Some(seen)) => now.since(seen.fingerprint.ctime) > age,
        _ => false,
    }
}

/// Returns whether an error is a temporary shortage, whose end no event would report.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
    )
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
