//! The directories of one root that are watched, and those that are not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::hot_dir::HotDir;
use crate::core::policy::Closed;
use crate::core::time::Wall;
use crate::fs::dir::RootId;
use crate::fs::root::Root;
use crate::sys::clock;
use crate::watch::{FsWatcher, WatchError};

#[derive(Default)]
pub(super) struct DirWatches {
    /// Directories that are watched, or scanned because they are hot. A directory is followed by those below it.
    pub(super) watched: BTreeMap<PathBuf, Watched>,
    /// Those of them that have become hot. A directory that is no longer hot is removed from the set later.
    hot: BTreeSet<PathBuf>,
    /// Directories that should be watched, and cannot be.
    pub(super) unwatched: BTreeSet<PathBuf>,
    /// The number of scans of the root.
    scan_number: u64,
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

impl DirWatches {
    /// Returns whether `dir` is watched, or polled because it cannot be watched.
    pub(super) fn includes(&self, dir: &Path) -> bool {
        self.watched.contains_key(dir) || self.unwatched.contains(dir)
    }

    /// Forgets all watches, which are no longer in force.
    pub(super) fn forget(&mut self) {
        self.watched.clear();
        self.unwatched.clear();
    }

    /// Forgets all watches, but keeps hot directories: their watches were the cause of the overload.
    pub(super) fn forget_cold(&mut self) {
        self.watched.retain(|_, watched| watched.hot.is_hot());
    }

    /// Drops all watches.
    pub(super) fn drop_all(&mut self, watcher: &mut FsWatcher) {
        for dir in std::mem::take(&mut self.watched).into_keys() {
            watcher.unwatch(&dir);
        }
        self.unwatched.clear();
    }

    /// Drops the watch on `path`, which may have ended with its directory even if the new directory looks the same. The
    /// watch is re-established when that directory is attached.
    pub(super) fn drop_watch(&mut self, watcher: &mut FsWatcher, path: &Path) {
        if self.watched.remove(path).is_some() {
            watcher.unwatch(path);
        }
    }

    /// Drops the watches on `path` and below it, and returns their directories.
    pub(super) fn drop_below(&mut self, watcher: &mut FsWatcher, path: &Path) -> Vec<PathBuf> {
        let after = (Bound::Included(path), Bound::Unbounded);
        for dir in first_below(self.unwatched.range::<Path, _>(after), path) {
            self.unwatched.remove(&dir);
        }
        let watched = self.watched.range::<Path, _>(after);
        let below = first_below(watched.map(|(dir, _)| dir), path);
        for dir in &below {
            self.watched.remove(dir);
            watcher.unwatch(dir);
        }
        below
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
        let after = (Bound::Included(dir), Bound::Unbounded);
        let below = self.watched.range::<Path, _>(after);
        let below = below.take_while(|(path, _)| path.starts_with(dir));
        let unfound = below.filter(|(path, watched)| {
            watched.scan_number != self.scan_number
                && !unread.iter().any(|unread| path.starts_with(unread))
        });
        let unfound: Vec<PathBuf> = unfound.map(|(path, _)| path.clone()).collect();
        for path in unfound {
            self.watched.remove(&path);
            watcher.unwatch(&path);
        }
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
    /// Makes a watched directory hot: from now on it is scanned once in each `interval`. Returns false if it is refused
    /// or already hot.
    pub(super) fn begin_hot(&mut self, dir: &Path, interval: Duration, now: Instant) -> bool {
        let watched = self.watched.get_mut(dir);
        let began = watched.is_some_and(|watched| watched.hot.begin(interval, now));
        if began {
            self.hot.insert(dir.to_owned());
        }
        began
    }

    /// Returns the directories that are hot, with their scans.
    pub(super) fn hot_dirs(&self) -> impl Iterator<Item = (&PathBuf, &HotDir)> {
        let hot_dir = |dir| Some((dir, &self.watched.get(dir)?.hot));
        self.hot.iter().filter_map(hot_dir)
    }

    /// Returns the scans of `dir` if it is hot.
    pub(super) fn hot_dir(&mut self, dir: &Path) -> Option<&mut HotDir> {
        let watched = self.watched.get_mut(dir)?;
        watched.hot.is_hot().then_some(&mut watched.hot)
    }

    /// Returns the hot directories that need a scan or the end of a probe.
    pub(super) fn due_hot(&mut self, now: Instant) -> Vec<PathBuf> {
        let watched = &self.watched;
        let is_hot = |dir: &PathBuf| watched.get(dir).is_some_and(|known| known.hot.is_hot());
        self.hot.retain(is_hot);
        let due = self.hot_dirs();
        let due = due.filter(|(_, hot_dir)| hot_dir.next().is_some_and(|at| at <= now));
        due.map(|(dir, _)| dir.clone()).collect()
    }

    /// Returns the next time at which a hot directory needs a scan or the end of a probe.
    pub(super) fn next_hot(&self) -> Option<Instant> {
        let times = self.hot_dirs().filter_map(|(_, hot_dir)| hot_dir.next());
        times.min()
    }
}

/// Returns the first ones of sorted directories, as long as they are `path` or below it.
fn first_below<'a>(sorted: impl Iterator<Item = &'a PathBuf>, path: &Path) -> Vec<PathBuf> {
    let below = sorted.take_while(|dir| dir.starts_with(path));
    below.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_below_another_one_follow_it() {
        let all = [
            "/r", "/r/a", "/r/a-b", "/r/a/b", "/r/a/b/c", "/r/a.b", "/r/b",
        ];
        let all: BTreeSet<PathBuf> = all.map(PathBuf::from).into();
        for path in &all {
            let after = all.range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded));
            let expected: Vec<_> = all.iter().filter(|dir| dir.starts_with(path)).collect();
            assert_eq!(
                first_below(after, path).iter().collect::<Vec<_>>(),
                expected
            );
        }
    }

    #[test]
    fn only_the_topmost_unwatched_directories_are_scanned() {
        let mut dirs = DirWatches::default();
        let all = ["/r/a", "/r/a/b", "/r/a/b/c", "/r/a-b", "/r/b/c", "/r/b/c/d"];
        dirs.unwatched = all.map(PathBuf::from).into();
        let tops = ["/r/a", "/r/a-b", "/r/b/c"].map(PathBuf::from);
        assert_eq!(dirs.take_unwatched(), tops);
        assert!(dirs.take_unwatched().is_empty());
    }
}
