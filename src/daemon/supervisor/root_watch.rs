//! The state of one root: its lock, and the directories in it that are watched and not watched.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::core::event::RootState;
use crate::core::policy::Closed;
use crate::core::time::Wall;
use crate::daemon;
use crate::fs::dir::RootId;
use crate::fs::root::Root;
use crate::store::lock::RootLock;
use crate::sys::clock;
use crate::watch::{Coverage, FsWatcher, WatchError, WatchLimit};

use super::hot::HotDir;

pub(super) struct RootWatch {
    pub(super) state: RootState,
    pub(super) lock: Option<RootLock>,
    /// Directories that are watched, or scanned because they are hot.
    pub(super) watched: HashMap<PathBuf, Watched>,
    /// Those of them that have become hot. A directory that is no longer hot is removed from the set later.
    pub(super) hot: BTreeSet<PathBuf>,
    /// Directories that should be watched, and cannot be.
    pub(super) unwatched: BTreeSet<PathBuf>,
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
    /// The number of its scans.
    scan_number: u64,
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

/// A directory that is watched, or was until it became hot.
pub(super) struct Watched {
    /// Its identity at that time.
    pub(super) id: RootId,
    /// The time at which the watch was established.
    pub(super) since: Wall,
    /// Its rate state. A hot directory is scanned, and its watch is removed.
    pub(super) hot: HotDir,
    /// The number of the last scan that found it.
    scan_number: u64,
}

/// After this many consecutive scans with missed events, the root is polled.
const MISSED_SCANS_LIMIT: u32 = 2;

/// The longest delay of the event of a created temp.
const EVENT_DELAY: Duration = Duration::from_secs(2);

impl RootWatch {
    pub(super) fn new(lock: Option<RootLock>) -> RootWatch {
        RootWatch {
            state: RootState::Watching,
            lock,
            watched: HashMap::new(),
            hot: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            not_entered: BTreeSet::new(),
            reported_no_proof: false,
            coverage: Coverage::Full,
            is_busy: false,
            is_broken: false,
            reported_unwatched: false,
            missed: None,
            missed_scans: 0,
            limits_due: None,
            scan_number: 0,
        }
    }

    /// Returns whether no other process uses the root. Locks it if it is not locked and a lock can be created.
    pub(super) fn try_lock(&mut self, root: &Root, runtime: Option<&Path>) -> bool {
        if self.lock.is_some() {
            return true;
        }
        match daemon::lock_roots(std::slice::from_ref(root), runtime) {
            Ok(locks) => {
                self.lock = locks.into_iter().next().flatten();
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

    /// Forgets all watches, which are no longer in force.
    pub(super) fn forget_watches(&mut self) {
        self.watched.clear();
        self.unwatched.clear();
    }

    /// Returns whether some or all of its directories have no reliable watch.
    pub(super) fn is_partly_unwatched(&self) -> bool {
        !self.unwatched.is_empty() || self.has_unreliable_events()
    }

    /// Returns whether events were missed repeatedly although the root is watched.
    pub(super) fn has_unreliable_events(&self) -> bool {
        self.missed_scans >= MISSED_SCANS_LIMIT
    }

    /// Returns the age at which the event of a temp should have arrived. An older temp without an event was missed.
    pub(super) fn event_deadline(&self, root: &Root) -> Duration {
        match self.has_unreliable_events() {
            // The root is scanned often, so temps are found while they are young.
            true => EVENT_DELAY,
            false => root.policy.grace.shortest().max(EVENT_DELAY),
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

    /// Begins a scan.
    pub(super) fn begin_scan(&mut self) {
        self.scan_number += 1;
    }

    /// Watches a directory, unless it is already watched. Returns whether it was.
    pub(super) fn watch(
        &mut self,
        watcher: &mut FsWatcher,
        root: &Root,
        dir: &Path,
        id: RootId,
    ) -> Result<bool, WatchError> {
        match self.watched.get_mut(dir) {
            Some(known) if known.id == id => {
                known.scan_number = self.scan_number;
                return Ok(true);
            }
            // A different directory is at this path now. notify ignores a request to watch a path that it already
            // watches.
            Some(_) => {
                self.watched.remove(dir);
                watcher.unwatch(dir);
            }
            None => {}
        }
        let closes = root.policy.closed == Closed::Settled;
        if let Err(error) = watcher.watch(dir, closes) {
            match error {
                WatchError::Missing => _ = self.unwatched.remove(dir),
                _ => _ = self.unwatched.insert(dir.to_owned()),
            }
            return Err(error);
        }
        self.unwatched.remove(dir);
        let watched = Watched {
            id,
            since: clock::wall(),
            hot: HotDir::default(),
            scan_number: self.scan_number,
        };
        self.watched.insert(dir.to_owned(), watched);
        Ok(false)
    }

    /// Watches a directory again that was scanned because it was hot.
    pub(super) fn rewatch(
        &mut self,
        watcher: &mut FsWatcher,
        root: &Root,
        dir: &Path,
    ) -> Result<(), WatchError> {
        let Some(known) = self.watched.remove(dir) else {
            return Ok(());
        };
        self.watch(watcher, root, dir, known.id)?;
        if let Some(now) = self.watched.get_mut(dir) {
            now.hot = known.hot;
        }
        Ok(())
    }

    /// Removes the watches of directories below `dir` that the current scan has not found, except below the directories
    /// in `unread`, which could not be read.
    pub(super) fn unwatch_unfound(
        &mut self,
        watcher: &mut FsWatcher,
        dir: &Path,
        unread: &[&Path],
    ) {
        let scan_number = self.scan_number;
        self.watched.retain(|path, watched| {
            let is_kept = watched.scan_number == scan_number
                || !path.starts_with(dir)
                || unread.iter().any(|unread| path.starts_with(unread));
            if !is_kept {
                watcher.unwatch(path);
            }
            is_kept
        });
    }

    /// Takes the directories that are not watched, without those that are below another one of them.
    pub(super) fn take_unwatched(&mut self) -> Vec<PathBuf> {
        let mut tops: Vec<PathBuf> = Vec::new();
        // In this order the contents of a directory follow it.
        for dir in std::mem::take(&mut self.unwatched) {
            if tops.last().is_none_or(|top| !dir.starts_with(top)) {
                tops.push(dir);
            }
        }
        tops
    }
}

/// Returns the interval at which directories that cannot be watched are scanned. It is short enough to find a temp
/// before its grace is over.
pub(super) fn poll_interval(root: &Root) -> Duration {
    (root.policy.grace.shortest() / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

/// Returns a sentence on the limit that prevents another watch, and one on how to raise it.
pub(super) fn limit_advice(limit: WatchLimit) -> &'static str {
    match limit {
        WatchLimit::Instances => {
            "A kernel limit is reached: this user cannot have any more inotify instances. This has nothing to do with \
             disk space. To raise the limit: sudo sysctl fs.inotify.max_user_instances=1024 (in a user namespace also \
             user.max_inotify_instances)."
        }
        WatchLimit::Files => {
            "A limit is reached: no more files can be opened. To raise it: ulimit -n, LimitNOFILE= of a unit; for the \
             whole system: sysctl fs.file-max."
        }
        WatchLimit::Threads => {
            "A limit is reached: no more threads can be started. To raise the limit of processes: ulimit -u, \
             TasksMax= of a unit."
        }
        WatchLimit::Watches => {
            "A kernel limit is reached: this user cannot watch any more directories. This has nothing to do with disk \
             space. To raise the limit: sudo sysctl fs.inotify.max_user_watches=524288 (in a user namespace also \
             user.max_inotify_watches)."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_topmost_unwatched_directories_are_scanned() {
        let mut root_watch = RootWatch::new(None);
        let all = ["/r/a", "/r/a/b", "/r/a/b/c", "/r/a-b", "/r/b/c", "/r/b/c/d"];
        root_watch.unwatched = all.map(PathBuf::from).into();
        let tops = ["/r/a", "/r/a-b", "/r/b/c"].map(PathBuf::from);
        assert_eq!(root_watch.take_unwatched(), tops);
        assert!(root_watch.take_unwatched().is_empty() && !root_watch.needs_polling());
    }

    #[test]
    fn after_missed_events_the_watches_are_reestablished_once_and_then_the_root_is_polled() {
        let mut root_watch = RootWatch::new(None);
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
            let mut root_watch = RootWatch::new(None);
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
