//! The scans of a root: its directories are watched, and temps in them are tracked.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::dir_watches::DirWatches;
use super::poll::poll_interval;
use super::root_watch::RootWatch;
use super::services::Services;
use crate::core::event::{Event, RescanCause, Subject};
use crate::core::observation::Kind;
use crate::core::sort::sort_by;
use crate::core::time::{Wall, span};
use crate::core::tracker::Origin;
use crate::daemon::existing::Existing;
use crate::daemon::shared::{CriticalThread, Shared};
use crate::daemon::stats::LastScan;
use crate::fs::dir::{Dir, RootError, unreadable_message};
use crate::fs::lookalikes::LookalikeCounter;
use crate::fs::root::Root;
use crate::fs::walk;
use crate::fs::walk::ScanItem;
use crate::sys::clock;
use crate::sys::error;
use crate::sys::idle_io::IdleIoPriority;
use crate::sys::mutex::{guard, into_inner};
use crate::watch::{FsWatcher, RECURSIVE, WatchError};

/// One scan, as the threads of the walk see it.
struct Scan<'a> {
    root: &'a Root,
    shared: &'a Shared,
    cause: RescanCause,
    /// The value of [`Services::has_started`].
    has_started: bool,
    /// Files with earlier dates existed before the start of the watch.
    boundary: Wall,
    began: Wall,
    /// A temp should have been reported by an event before it reaches this age. `None` if events may be missing.
    event_deadline: Option<Duration>,
    /// The walk has several threads, but there is only one `FsWatcher`.
    watches: Mutex<(&'a mut FsWatcher, &'a mut DirWatches)>,
    findings: Mutex<Findings>,
    /// `None` if only a part of the root is scanned: that says nothing about the others.
    lookalikes: Option<LookalikeCounter<'a>>,
}

/// The results of a scan, except temps.
#[derive(Default)]
struct Findings {
    /// Claims, each with its directory as a path relative to the root.
    claims: Vec<(PathBuf, OsString)>,
    /// Directories that could not be read.
    denied: Vec<(PathBuf, io::Error)>,
    /// Directories that could not be watched.
    unwatched: Vec<(PathBuf, WatchError)>,
    not_entered: Vec<PathBuf>,
    /// Directories and special files whose names the rule matches.
    trees: Vec<(PathBuf, Kind)>,
    /// A temp whose event was missed.
    missed: Option<PathBuf>,
}

impl Scan<'_> {
    fn on_item(&self, item: ScanItem<'_>) {
        match item {
            ScanItem::Dir(dir) => self.on_dir(dir),
            ScanItem::Temp(dir, name) => self.on_temp(dir, name),
            ScanItem::Claim(dir, name) => {
                let claim = (dir.below().to_owned(), name.to_owned());
                guard(&self.findings).claims.push(claim);
            }
            ScanItem::Denied(path, error) => {
                let denied = (path.to_owned(), error::copy(error));
                guard(&self.findings).denied.push(denied);
            }
            ScanItem::NotEntered(path) => guard(&self.findings).not_entered.push(path.to_owned()),
            ScanItem::Tree(dir, name, kind) => {
                let tree = (dir.below().join(name), kind);
                guard(&self.findings).trees.push(tree);
            }
            ScanItem::Other(dir, name) => {
                if let Some(lookalikes) = &self.lookalikes {
                    lookalikes.see(dir, name);
                }
            }
            ScanItem::Name(_) => {}
            // A long walk counts as progress.
            ScanItem::Done(_) => self.shared.beat(CriticalThread::Supervisor),
        }
    }

    fn on_dir(&self, dir: &Dir) {
        if self.cause == RescanCause::Periodic {
            IdleIoPriority::apply_to_child();
        }
        if RECURSIVE && !dir.below().as_os_str().is_empty() {
            return;
        }
        let (watcher, dirs) = &mut *guard(&self.watches);
        if let Err(error) = dirs.watch(watcher, self.root, dir.path(), dir.id()) {
            let unwatched = (dir.path().to_owned(), error);
            guard(&self.findings).unwatched.push(unwatched);
        }
    }

    fn on_temp(&self, dir: &Dir, name: &OsStr) {
        let temps = &self.shared.temps;
        let (path, at) = (dir.path().join(name), clock::mono());
        if temps.knows(&path) {
            return;
        }
        // A temp that existed before the start may be found later, with its directory. It may also have a later date,
        // if the clock was set back.
        // RACE: a writer may rename the temp just after this look. Worst case: with `leave`, a later orphan of that
        // very name is ignored too, until an event reports the creation of a temp with that name.
        let is_start = self.cause == RescanCause::Startup;
        let is_first = is_start || self.cause == RescanCause::RootReturned;
        let existing = self.shared.existing;
        let existed = match existing {
            Existing::Take => false,
            _ => match existed_before(dir, name, self.boundary) {
                Some(older) => older || rule!("at-start-whatever-its-date", is_start),
                None => return,
            },
        };
        let origin = match existing {
            Existing::Leave if existed => return temps.ignore(&path, at),
            Existing::Wait if is_first || existed => Origin::FoundWithoutCredit,
            _ if is_start && rule!("later-root-has-no-start", !self.has_started, without: true) => {
                Origin::Found
            }
            // An event should have reported the temp or its directory, or the root was added later. Its writer has as
            // much time as if it had.
            _ => Origin::FoundWithHalfCredit,
        };
        if temps.record_found(&path, at, origin) && self.is_missed(dir, name) {
            guard(&self.findings).missed.get_or_insert(path);
        }
    }

    /// Returns whether an event should have reported a temp that was not known.
    fn is_missed(&self, dir: &Dir, name: &OsStr) -> bool {
        self.event_deadline.is_some_and(|deadline| {
            let is_watched = |since: Wall| self.began.since(since) > deadline;
            self.watched_since(dir).is_some_and(is_watched)
                && is_older_than(dir, name, self.began, deadline)
        })
    }

    /// Returns the time since which a directory has been watched, if it is.
    fn watched_since(&self, dir: &Dir) -> Option<Wall> {
        let (_, dirs) = &*guard(&self.watches);
        let watched = dirs.watched.get(dir.path())?;
        (!watched.hot.is_hot()).then_some(watched.since)
    }
}

impl RootWatch {
    /// Scans the directory `below` the root: watches the directories in it and tracks their temps. Returns whether that
    /// directory itself could be read.
    pub(super) fn scan(
        &mut self,
        services: &mut Services,
        below: &Path,
        cause: RescanCause,
    ) -> bool {
        let began = clock::mono();
        let (active, shared) = (Arc::clone(&self.active), Arc::clone(&services.shared));
        // If nothing is missing, events or earlier scans have covered everything. A temp that is new now should have
        // been reported by an event.
        let expects_events = cause == RescanCause::Periodic && services.nothing_is_missing();
        let event_deadline = expects_events.then(|| self.event_deadline());
        self.dirs.begin_scan();
        let is_whole = below.as_os_str().is_empty();
        let scan = Scan {
            root: &active.root,
            shared: &shared,
            cause,
            has_started: services.has_started,
            boundary: services.boundary,
            began: clock::wall(),
            event_deadline,
            watches: Mutex::new((&mut services.watcher, &mut self.dirs)),
            findings: Mutex::default(),
            lookalikes: is_whole.then(|| LookalikeCounter::new(&active.root.policy)),
        };
        let on_item = |item: ScanItem<'_>| scan.on_item(item);
        let walked = walk::scan(&active.root, active.id(), below, &on_item, &|| false);
        let mut findings = into_inner(scan.findings);
        let lookalikes = scan.lookalikes.map(LookalikeCounter::largest_first);
        let trees = std::mem::take(&mut findings.trees);
        let was_read = self.process_findings(services, below, walked, findings);
        let scan = LastScan {
            ended: clock::wall(),
            took: clock::mono().since(began),
        };
        let directories = self.dirs.watched.len();
        let mut stats = guard(&shared.stats);
        stats.record_scan(&active.root.path, scan, directories);
        stats.record_trees(&active.root.path, below, trees);
        if let Some(lookalikes) = lookalikes {
            stats.record_lookalikes(&active.root.path, lookalikes);
        }
        drop(stats);
        if shared.temps.has_rejected() {
            services.note_limit_reached();
        }
        shared.temps.waker().wake();
        was_read
    }

    fn process_findings(
        &mut self,
        services: &mut Services,
        below: &Path,
        walked: Result<(), RootError>,
        findings: Findings,
    ) -> bool {
        let dir = self.active.root.path.join(below);
        let mut denied = findings.denied;
        let was_read = walked.is_ok() && denied.iter().all(|(path, _)| *path != dir);
        if walked.is_ok() {
            let unread: Vec<&Path> = denied.iter().map(|(path, _)| path.as_path()).collect();
            self.dirs
                .unwatch_unfound(&mut services.watcher, &dir, &unread);
        }
        if let Err(RootError::Io(error)) = walked
            && (error.kind() == io::ErrorKind::PermissionDenied || is_shortage(&error))
        {
            denied.push((dir, error));
        }
        services.scan_was_incomplete |= denied.iter().any(|(_, error)| is_shortage(error));
        self.missed = self.missed.take().or(findings.missed);
        if !self.active.root.policy.is_dry_run() {
            for (below, name) in findings.claims {
                self.recover(services, &below, &name);
            }
        }
        self.report_unwatched(&findings.unwatched);
        self.report_not_entered(findings.not_entered);
        for (path, error) in denied {
            let root = self.active.root.path.clone();
            services.shared.emit(Event::Failed {
                subject: Subject {
                    path,
                    root,
                    size: None,
                },
                error: unreadable_message(&error),
                errno: error.raw_os_error(),
            });
        }
        was_read
    }

    /// Reports once that something cannot be watched, and then not again until all of the root is watched.
    fn report_unwatched(&mut self, unwatched: &[(PathBuf, WatchError)]) {
        let mut failures = unwatched.iter().filter_map(|(path, error)| match error {
            WatchError::Limit(limit) => Some((path, limit.advice().to_owned())),
            WatchError::Other(error) => Some((path, format!("{error}."))),
            WatchError::Missing => None,
        });
        let Some((first, reason)) = failures.next() else {
            return;
        };
        if std::mem::replace(&mut self.reported_unwatched, true) {
            return;
        }
        let more = failures.count();
        let root = &self.active.root;
        let interval = span(poll_interval(root));
        log::warn!(
            "cannot watch {first:?} and {more} more directories in {:?}. {reason} They are scanned every {interval} \
             until they can be watched: their temps are found later, but none is missed",
            root.path
        );
    }

    /// Reports each mount and subvolume that is not entered, once.
    fn report_not_entered(&mut self, mut not_entered: Vec<PathBuf>) {
        not_entered.retain(|path| self.not_entered.insert(path.clone()));
        sort_by(&mut not_entered, Ord::cmp);
        if let Some(message) = walk::not_entered_message(&self.active.root, &not_entered) {
            log::warn!("{message}");
        }
    }
}

/// Returns whether a file existed before a [`clock::boundary`], or true if this is unknown. Returns `None` if the file
/// no longer exists. A move of its directory does not change its dates. A put-back does, and so would a change of its
/// mode. If its time of birth is known, that counts too.
pub(super) fn existed_before(dir: &Dir, name: &OsStr, boundary: Wall) -> Option<bool> {
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
