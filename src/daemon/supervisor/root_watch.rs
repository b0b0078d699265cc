//! One root, as it stands: what of it is watched and what is not.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock;
use crate::daemon;
use crate::decide::policy::Closed;
use crate::decide::time::Wall;
use crate::event::RootState;
use crate::look::RootId;
use crate::root::Root;
use crate::state::RootLock;
use crate::watch::{Coverage, FsWatcher, Limit, Unwatched};

use super::hot::HotDir;

pub(super) struct RootWatch {
    pub(super) state: RootState,
    pub(super) lock: Option<RootLock>,
    /// Directories that are watched, or scanned because they are hot.
    pub(super) watched: HashMap<PathBuf, Watched>,
    /// Those of them that have become hot. What is so no more is dropped when that is noticed.
    pub(super) hot: BTreeSet<PathBuf>,
    /// Directories that should be, and cannot.
    pub(super) unwatched: BTreeSet<PathBuf>,
    /// Mounts and subvolumes below it of which it was said that they are not entered.
    pub(super) not_entered: BTreeSet<PathBuf>,
    /// It was said that nothing proves a file unused on its file system.
    pub(super) reported_no_proof: bool,
    /// How much is heard of the way to it.
    pub(super) coverage: Coverage,
    /// Another orphand works on it.
    pub(super) is_busy: bool,
    /// The system says of it what no event takes back.
    pub(super) is_broken: bool,
    /// It was said that some of it cannot be watched, and that is still so.
    pub(super) reported_unwatched: bool,
    /// A temp that should have been heard of and was not, since the last scan of everything by time.
    pub(super) missed: Option<PathBuf>,
    /// How many scans of everything by time in a row have found one.
    pub(super) missed_scans: u32,
    /// The next look at its quarantine, if that may hold files.
    pub(super) limits_due: Option<LimitsDue>,
    /// How often it was scanned.
    scan_number: u64,
}

/// The next look at a quarantine.
#[derive(Clone, Copy)]
pub(super) struct LimitsDue {
    /// The moment when a file becomes too old; `None`: none will.
    pub(super) expiry: Option<Instant>,
    /// The moment to check the free space.
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
    /// What it was then.
    pub(super) id: RootId,
    /// When that was.
    pub(super) since: Wall,
    /// Whether it is hot: then it is scanned, and its watch is taken away.
    pub(super) hot: HotDir,
    /// The last scan that met it.
    scan_number: u64,
}

/// From so many silent scans on its events are not relied upon.
const MISSED_SCANS_LIMIT: u32 = 2;

/// How long the news of a temp may take in the worst case.
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

    /// Whether nobody else works on it. Locks it, if it is not and can be.
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

    /// Nothing of it is watched any more.
    pub(super) fn forget_watches(&mut self) {
        self.watched.clear();
        self.unwatched.clear();
    }

    /// Whether its events may not arrive, all of them or some.
    pub(super) fn may_miss_events(&self) -> bool {
        !self.unwatched.is_empty() || self.misses_events()
    }

    /// Whether it was watched and nothing was heard, again and again.
    pub(super) fn misses_events(&self) -> bool {
        self.missed_scans >= MISSED_SCANS_LIMIT
    }

    /// How old a temp must be before it can be said that it was not heard of.
    pub(super) fn missed_after(&self, root: &Root) -> Duration {
        match self.misses_events() {
            // It is looked at often, so that nothing gets old before it is found.
            true => EVENT_DELAY,
            false => root.policy.grace.shortest().max(EVENT_DELAY),
        }
    }

    /// Everything was scanned by time. Says whether its watches should be set anew.
    pub(super) fn missed_events(&mut self) -> bool {
        match self.missed.take() {
            Some(_) => self.missed_scans += 1,
            None => self.missed_scans = 0,
        }
        // Where that did not help the last time, it is looked at by time instead.
        self.missed_scans == 1
    }

    /// Whether it has to be looked at by time, because something about it makes no event.
    pub(super) fn needs_polling(&self) -> bool {
        let is_unavailable = matches!(self.state, RootState::Gone | RootState::Denied);
        self.may_miss_events()
            || self.state == RootState::NoAnswer
            || self.is_busy
            || self.is_broken
            || matches!(self.coverage, Coverage::LimitReached(_))
            || (self.coverage == Coverage::Partial && is_unavailable)
    }

    /// A scan begins.
    pub(super) fn begin_scan(&mut self) {
        self.scan_number += 1;
    }

    /// Watches one directory, unless it is the one that is watched already. Says whether it was.
    pub(super) fn watch(
        &mut self,
        watcher: &mut FsWatcher,
        root: &Root,
        dir: &Path,
        id: RootId,
    ) -> Result<bool, Unwatched> {
        match self.watched.get_mut(dir) {
            Some(known) if known.id == id => {
                known.scan_number = self.scan_number;
                return Ok(true);
            }
            // Another directory stands there now. Watching a watched path is no news to notify.
            Some(_) => {
                self.watched.remove(dir);
                watcher.unwatch(dir);
            }
            None => {}
        }
        let closes = root.policy.closed == Closed::Settled;
        if let Err(error) = watcher.watch(dir, closes) {
            match error {
                Unwatched::Gone => _ = self.unwatched.remove(dir),
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
    ) -> Result<(), Unwatched> {
        let Some(known) = self.watched.remove(dir) else {
            return Ok(());
        };
        self.watch(watcher, root, dir, known.id)?;
        if let Some(now) = self.watched.get_mut(dir) {
            now.hot = known.hot;
        }
        Ok(())
    }

    /// Gives up what stands below `dir` and was not met by the scan that has just ended, but what is
    /// below one of `spared`: that could not be read.
    pub(super) fn unwatch_unmet(&mut self, watcher: &mut FsWatcher, dir: &Path, unread: &[&Path]) {
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

    /// The directories that are not watched, and none that is below another one of them.
    pub(super) fn take_unwatched(&mut self) -> Vec<PathBuf> {
        let mut tops: Vec<PathBuf> = Vec::new();
        // In this order what is below a directory follows it.
        for dir in std::mem::take(&mut self.unwatched) {
            if tops.last().is_none_or(|top| !dir.starts_with(top)) {
                tops.push(dir);
            }
        }
        tops
    }
}

/// How often what cannot be watched is scanned: often enough that a temp is seen before its grace
/// is over.
pub(super) fn poll_interval(root: &Root) -> Duration {
    (root.policy.grace.shortest() / 2).clamp(Duration::from_millis(200), Duration::from_secs(60))
}

/// Says which limit leaves no room for another watch, and how to raise it.
pub(super) fn limit_advice(limit: Limit) -> &'static str {
    match limit {
        Limit::Instances => {
            "A limit of the kernel's is reached: this user may have no more inotify instances. Disks have \
             nothing to do with it. The cure: sudo sysctl fs.inotify.max_user_instances=1024 (in a user \
             namespace also user.max_inotify_instances)."
        }
        Limit::Files => {
            "A limit is reached: there can be no more open files. The cure: a higher limit (ulimit -n, \
             LimitNOFILE= of a unit; of the whole system: sysctl fs.file-max)."
        }
        Limit::Threads => {
            "There can be no more threads. The cure: a higher limit of processes (ulimit -u, TasksMax= \
             of a unit)."
        }
        Limit::Watches => {
            "A limit of the kernel's is reached: this user may watch no more directories. Disks have \
             nothing to do with it. The cure: sudo sysctl fs.inotify.max_user_watches=524288 (in a user \
             namespace also user.max_inotify_watches)."
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
    fn missed_events_rebuild_the_watches_once_and_then_cause_polling() {
        let mut root_watch = RootWatch::new(None);
        let mut scan = |missed: bool| {
            root_watch.missed = missed.then(|| "/r/a.tmp".into());
            (root_watch.missed_events(), root_watch.misses_events())
        };
        assert_eq!(scan(false), (false, false));
        assert_eq!(scan(true), (true, false), "the watches are set anew");
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
            "its coming is heard",
        );
        check(
            |root_watch| root_watch.state = RootState::Denied,
            false,
            "a chmod is heard",
        );
        check(
            |root_watch| root_watch.coverage = Coverage::Partial,
            false,
            "its own watch tells of it",
        );
        let returns_unseen = |root_watch: &mut RootWatch| {
            root_watch.coverage = Coverage::Partial;
            root_watch.state = RootState::Gone;
        };
        check(returns_unseen, true, "its coming is not heard");
        check(
            |root_watch| root_watch.coverage = Coverage::LimitReached(Limit::Watches),
            true,
            "nor its being replaced",
        );
        check(
            |root_watch| root_watch.is_busy = true,
            true,
            "a lock makes no event",
        );
        check(
            |root_watch| root_watch.state = RootState::NoAnswer,
            true,
            "an answer makes no event",
        );
        check(
            |root_watch| root_watch.missed_scans = 1,
            false,
            "its watches were set anew",
        );
        check(
            |root_watch| root_watch.missed_scans = 2,
            true,
            "that did not help",
        );
    }
}
