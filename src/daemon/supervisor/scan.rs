//! Scanning for the keeper: what is below a root is watched, and what is there is tracked.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::root_watch::{Watched, limit_advice, poll_interval};
use super::{CriticalThread, Existing, IdleIoPriority, Supervisor, guard};
use crate::clock;
use crate::decide::policy;
use crate::decide::time::{Wall, span};
use crate::decide::tracker::Origin;
use crate::event::{Cause, Event, Subject};
use crate::look::{Dir, RootError};
use crate::pass::{self, DirContext, Returned};
use crate::reap::claim;
use crate::root::Root;
use crate::scan::{self, Met};
use crate::stats::LastScan;
use crate::watch::{RECURSIVE, Unwatched};

impl Supervisor {
    /// Scans the directory `below` a root: watches what is below it, and tracks what is there.
    /// Says whether that directory itself could be read.
    pub(super) fn scan(&mut self, index: usize, root: &Root, below: &Path, cause: Cause) -> bool {
        let is_start = cause == Cause::Startup;
        let is_first = matches!(cause, Cause::Startup | Cause::RootReturned);
        let (existing, has_begun) = (self.shared.existing, self.has_begun);
        // There were events or scans for all of it: what none has told of now had to be heard of.
        let hears = cause == Cause::Periodic && self.nothing_is_missing();
        let (shared, started) = (Arc::clone(&self.shared), clock::mono());
        let id = self.active_roots.id(index);
        let recovers = !root.policy.is_dry_run();
        let (boundary, now) = (self.boundary, clock::wall());
        let claims = Mutex::new(Vec::new());
        let denied = Mutex::new(Vec::new());
        let unheard = Mutex::new(Vec::new());
        let elsewhere = Mutex::new(Vec::new());
        // The walk has several threads, the kernel's watcher has one door.
        let unwatched = Mutex::new(Vec::new());
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return false;
        };
        root_watch.begin_scan();
        let patience = root_watch.missed_after(root);
        let door = Mutex::new((&mut self.kernel, root_watch));
        // Since when a directory has been watched, where it has.
        let heard_since = |dir: &Dir| {
            let (_, root_watch) = &*guard(&door);
            let watched = root_watch.watched.get(dir.path())?;
            (!watched.hot.is_hot()).then_some(watched.since)
        };
        let met = |met: Met<'_>| match met {
            Met::Dir(dir) => {
                if cause == Cause::Periodic {
                    IdleIoPriority::here();
                }
                if RECURSIVE && !dir.below().as_os_str().is_empty() {
                    return;
                }
                let (kernel, root_watch) = &mut *guard(&door);
                if let Err(why) = root_watch.watch(kernel, root, dir.path(), dir.id()) {
                    guard(&unwatched).push((dir.path().to_owned(), why));
                }
            }
            Met::Temp(dir, name) => {
                let (path, at) = (dir.path().join(name), clock::mono());
                if shared.temps.knows(&path) {
                    return;
                }
                // What was there before may come later, with the directory that it is in; and it may have
                // a later date, where the clock was set back.
                // RACE: a writer may rename it just after this look; worst case: with `leave`, an orphan
                // of that very name is left alone too, until a creation of it is heard of.
                let was_there = match existing {
                    Existing::Take => false,
                    _ => match was_before(dir, name, boundary) {
                        Some(older) => older || rule!("at-start-whatever-its-date", is_start),
                        None => return,
                    },
                };
                let origin = match existing {
                    Existing::Leave if was_there => return shared.temps.ignore(&path, at),
                    Existing::Wait if is_first || was_there => Origin::FoundToWait,
                    _ if is_start
                        && rule!("later-root-has-no-start", !has_begun, without: true) =>
                    {
                        Origin::Found
                    }
                    // An event should have told of it or of its directory, and its writer has as long as
                    // if one had.
                    _ => Origin::FoundInTime,
                };
                let is_news = shared.temps.found(&path, at, origin);
                if is_news
                    && hears
                    && let Some(since) = heard_since(dir)
                    && now.since(since) > patience
                    && is_old(dir, name, now, patience)
                {
                    guard(&unheard).push(path);
                }
            }
            Met::Claim(dir, name) if recovers => {
                guard(&claims).push((dir.below().to_owned(), name.to_owned()));
            }
            Met::Denied(path, error) => {
                guard(&denied).push((path.to_owned(), crate::error::copy(error)));
            }
            Met::Elsewhere(path) => guard(&elsewhere).push(path.to_owned()),
            // A long walk is no hanging one.
            Met::Done(_) => shared.beat(CriticalThread::Supervisor),
            Met::Claim(..) => {}
        };
        let walked = scan::scan(root, id, below, &met, &|| false);
        let (claims, denied) = (into_inner(claims), into_inner(denied));
        let (unwatched, unheard) = (into_inner(unwatched), into_inner(unheard));
        let failed = denied.iter().map(|(_, error)| error);
        let failed = failed.chain(match &walked {
            Err(RootError::Io(error)) => Some(error),
            _ => None,
        });
        self.scan_was_incomplete |= failed.into_iter().any(is_want);
        let dir = root.path.join(below);
        let spared: Vec<&Path> = denied.iter().map(|(path, _)| path.as_path()).collect();
        let was_read = walked.is_ok() && !denied.iter().any(|(path, _)| *path == dir);
        let mut directories = 0;
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            if walked.is_ok() {
                root_watch.unwatch_unmet(&mut self.kernel, &dir, &spared);
            }
            if let Some(one) = unheard.into_iter().next() {
                root_watch.missed.get_or_insert(one);
            }
            directories = root_watch.watched.len();
        }
        for (below, name) in claims {
            self.recover(index, root, &below, &name);
        }
        self.report_unwatched(index, root, &unwatched);
        self.report_not_entered(index, root, into_inner(elsewhere));
        for (path, error) in denied {
            self.failed(root, path, "read this directory", &error);
        }
        if let Err(RootError::Io(error)) = walked
            && (error.kind() == io::ErrorKind::PermissionDenied || is_want(&error))
        {
            self.failed(root, dir, "read this directory", &error);
        }
        let scan = LastScan {
            ended: clock::wall(),
            took: clock::mono().since(started),
        };
        guard(&self.shared.stats).scanned(&root.path, scan, directories);
        if self.shared.temps.has_rejected() {
            self.note_limit_reached();
        }
        self.shared.temps.wake();
        was_read
    }

    /// Says once what cannot be watched, and nothing more until all of the root is watched again.
    fn report_unwatched(&mut self, index: usize, root: &Root, unwatched: &[(PathBuf, Unwatched)]) {
        let mut why = unwatched
            .iter()
            .filter(|(_, why)| !matches!(why, Unwatched::Gone));
        let Some((first, reason)) = why.next() else {
            return;
        };
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        if std::mem::replace(&mut root_watch.reported_unwatched, true) {
            return;
        }
        let more = why.count();
        let every = span(poll_interval(root));
        let reason = match reason {
            Unwatched::Limit(limit) => limit_advice(*limit).to_owned(),
            Unwatched::Other(error) => error.to_string(),
            // Those are left out above.
            Unwatched::Gone => String::new(),
        };
        log::warn!(
            "cannot watch {first:?} and {more} directories more in {:?}. {reason} Meanwhile they \
             are scanned every {every}, and watched when that is possible: nothing is missed, only \
             seen later",
            root.path
        );
    }

    /// Says once of each mount and subvolume below a root that it is not entered.
    fn report_not_entered(&mut self, index: usize, root: &Root, mut elsewhere: Vec<PathBuf>) {
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return;
        };
        elsewhere.retain(|path| root_watch.not_entered.insert(path.clone()));
        elsewhere.sort_unstable();
        if let Some(what) = scan::not_entered(root, &elsewhere) {
            log::warn!("{what}");
        }
    }

    fn failed(&self, root: &Root, path: PathBuf, doing: &str, error: &io::Error) {
        self.shared.emit(Event::Failed {
            subject: Subject {
                path,
                root: root.path.clone(),
                size: None,
            },
            error: format!("cannot {doing}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn recover(&self, index: usize, root: &Root, below: &Path, claim: &OsStr) {
        let folder = root.path.join(below);
        // A root inside another root has a rule of its own.
        if self
            .active_roots
            .root_of(&folder)
            .map(|(owner, _, _)| owner)
            != Some(index)
        {
            return;
        }
        let id = self.active_roots.id(index);
        let dir_context = DirContext { root, id, below };
        let temps = &self.shared.temps;
        let left = self
            .was_left(dir_context, claim)
            .map(|name| folder.join(name))
            .filter(|path| temps.expect_put_back(path, clock::mono()));
        let mut tell = |event| self.shared.emit(event);
        let back = pass::recover(
            &self.shared.engine,
            dir_context,
            &self.lease_thread,
            claim,
            &mut tell,
        );
        match (back, left) {
            (Returned::Back(_), Some(_)) | (Returned::Done, None) => {}
            (Returned::Back(name), None) => {
                _ = temps.created(&folder.join(name), clock::mono());
            }
            // What is left alone is not waited for: the next scan of everything finds it again.
            (returned, Some(path)) => {
                temps.cancel_put_back(&path);
                if let Returned::Kept(reason) = returned {
                    self.shared
                        .emit(pass::kept_claim(dir_context, claim, reason, None));
                }
            }
            (Returned::Kept(reason), None) => {
                if self.try_again(dir_context, claim) {
                    let retry =
                        policy::retry(root.policy.grace.shortest(), reason.ends_silently(), 0);
                    let event = pass::kept_claim(dir_context, claim, reason, Some(retry));
                    self.shared.emit(event);
                }
            }
            (Returned::Failed, None) => _ = self.try_again(dir_context, claim),
        }
    }

    /// Has the claim tried again when it is time for the temp that it was. Says whether that is news.
    fn try_again(&self, dir_context: DirContext<'_>, claim: &OsStr) -> bool {
        let Ok(dir) = Dir::open_below(&dir_context.root.path, dir_context.id, dir_context.below)
        else {
            return false;
        };
        let original = claim::parse(claim).and_then(|claim| claim.original);
        // What was cut is waited for by the name that it has now.
        let name = original.as_deref().unwrap_or(claim);
        let claims = self.shared.engine.reaper.claims();
        let is_news = claims.defer(dir.id(), name, claim);
        let path = dir_context.root.path.join(dir_context.below).join(name);
        rule!(
            "held-claim-is-tried-again",
            self.shared.temps.claim_pending(&path, clock::mono()),
            without: (),
        );
        is_news
    }

    /// The name that a claim is to have back, if what was there before this watch is to be left alone and it
    /// was. Giving its name back changes its dates.
    fn was_left(&self, dir_context: DirContext<'_>, claim: &OsStr) -> Option<OsString> {
        let takes = self.shared.existing != Existing::Leave;
        if rule!("crash-leftover-is-left-alone", takes, without: true) {
            return None;
        }
        let dir =
            Dir::open_below(&dir_context.root.path, dir_context.id, dir_context.below).ok()?;
        let was_there = was_before(&dir, claim, self.boundary)?;
        claim::parse(claim)?
            .original
            .filter(|_| was_there || rule!("claim-at-start-whatever-date", !self.has_begun))
    }

    /// Something happened at `path`: it may be a directory now, or none any more.
    pub(super) fn restructure(&mut self, path: &Path) {
        let (shared, active_roots) = (Arc::clone(&self.shared), Arc::clone(&self.active_roots));
        let Some((index, root, below)) = active_roots.root_of(path) else {
            return;
        };
        if below.as_os_str().is_empty() {
            return self.check(index);
        }
        let now = Dir::open_below(&root.path, active_roots.id(index), below).map(|dir| dir.id());
        let is_it = |known: &Watched| now.as_ref().is_ok_and(|now| *now == known.id);
        if let Some(root_watch) = self.root_watches.get_mut(index)
            && !root_watch.watched.get(path).is_some_and(is_it)
        {
            for (dir, _) in root_watch
                .watched
                .extract_if(|dir, _| dir.starts_with(path))
            {
                self.kernel.unwatch(&dir);
                shared.temps.forget_below(&dir, |_| true);
            }
            root_watch.unwatched.retain(|dir| !dir.starts_with(path));
        }
        if now.is_ok() {
            self.scan(index, root, below, Cause::RootReturned);
        }
        self.settle_state(index, root);
        self.poll_later(index, root);
    }
}

/// Whether a file was there before a [`clock::boundary`], or that cannot be told; `None`: it is there no more.
/// Moving the directory that it is in does not change its dates; giving it its name back does, as a change of
/// its mode would. Where its birth is known, that counts too.
fn was_before(dir: &Dir, name: &OsStr, boundary: Wall) -> Option<bool> {
    match dir.observe(name) {
        Ok(Some(seen)) => {
            let seen = seen.fingerprint;
            let born_before = seen.btime.is_some_and(|born| born <= boundary);
            Some(seen.ctime <= boundary || rule!("returned-keeps-its-age", born_before))
        }
        Ok(None) => None,
        Err(_) => Some(true),
    }
}

/// Whether a file came to its name so long before `now` that this must have been heard. A clock that
/// was set meanwhile makes a mistake here, which costs a scan.
fn is_old(dir: &Dir, name: &OsStr, now: Wall, patience: Duration) -> bool {
    match dir.observe(name) {
        Ok(Some(seen)) => now.since(seen.fingerprint.ctime) > patience,
        _ => false,
    }
}

/// Whether something failed for want of what there may be again in a moment: no event tells of that.
fn is_want(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN | libc::EINTR)
    )
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
