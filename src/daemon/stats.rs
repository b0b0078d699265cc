//! Statistics of a watch: its totals, and the counts for each root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::census::{Lookalike, MAX_TREES, retain_outermost};
use crate::core::event::{Event, RescanCause, RootState, Subject, Summary};
use crate::core::judge::Reason;
use crate::core::observation::Kind;
use crate::core::time::Wall;

/// The statistics since the watch began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The time at which the watch began.
    pub since: Wall,
    /// The counts of all roots together.
    pub total: Summary,
    roots: BTreeMap<PathBuf, RootStats>,
}

/// The statistics of one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootStats {
    /// The counts of its events.
    pub summary: Summary,
    /// Its last reported state. `None` before the first report.
    pub state: Option<RootState>,
    /// The number of reports that a temp is kept, by reason. Each temp is reported once for each reason.
    pub kept: BTreeMap<&'static str, u64>,
    /// The number of its scans, by cause.
    pub rescans: BTreeMap<&'static str, u64>,
    /// The last scan that has ended.
    pub last_scan: Option<LastScan>,
    /// The number of its directories that are watched.
    pub directories: usize,
    /// The time at which a temp was last removed or moved to the quarantine.
    pub last_disposal: Option<Wall>,
    /// The number of its directories that are scanned instead of watched, because temps are created in them too fast.
    pub hot_directories: usize,
    /// Directories and special files whose names the rule matches, as paths relative to the root, with their type. The
    /// last scan found them.
    pub trees: Vec<(PathBuf, Kind)>,
    /// The files whose names look like temps although the rule does not match them. Their directories are relative to
    /// the root. The last scan of the whole root found them.
    pub lookalikes: Vec<Lookalike>,
}

/// A scan that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastScan {
    /// The time at which it ended.
    pub ended: Wall,
    /// Its duration.
    pub took: Duration,
}

impl Stats {
    /// Creates empty statistics that begin at `since`.
    #[must_use]
    pub fn new(since: Wall) -> Stats {
        Stats {
            since,
            total: Summary::default(),
            roots: BTreeMap::new(),
        }
    }

    /// Counts `event`, which happened at `at`.
    pub fn count(&mut self, event: &Event, at: Wall) {
        self.total.count(event);
        let Some(root) = root_of(event) else {
            return;
        };
        let root_stats = self.entry(root);
        root_stats.summary.count(event);
        match event {
            Event::Kept { reason, .. } => {
                *root_stats.kept.entry(Reason::as_str(*reason)).or_default() += 1
            }
            Event::Rescan { cause, .. } => {
                *root_stats
                    .rescans
                    .entry(RescanCause::as_str(*cause))
                    .or_default() += 1;
            }
            Event::Root { state, .. } => root_stats.state = Some(*state),
            Event::Reaped(disposed) | Event::Quarantined { disposed, .. } if !disposed.dry_run => {
                root_stats.last_disposal = Some(at);
            }
            _ => {}
        }
    }

    /// Records that `scan` of `root` has ended, and the number of its directories that are watched.
    pub fn record_scan(&mut self, root: &Path, scan: LastScan, directories: usize) {
        let root_stats = self.entry(root);
        root_stats.last_scan = Some(scan);
        root_stats.directories = directories;
    }

    /// Records the number of hot directories of a root.
    pub fn record_hot(&mut self, root: &Path, hot_directories: usize) {
        self.entry(root).hot_directories = hot_directories;
    }

    /// Records the directories and special files that a scan of the directory `below` the root has found.
    pub fn record_trees(&mut self, root: &Path, below: &Path, trees: Vec<(PathBuf, Kind)>) {
        let known = &mut self.entry(root).trees;
        known.retain(|(path, _)| !path.starts_with(below));
        known.extend(trees);
        retain_outermost(known);
        known.truncate(MAX_TREES);
    }

    /// Records the files whose names look like temps, after a scan of the whole root.
    pub fn record_lookalikes(&mut self, root: &Path, lookalikes: Vec<Lookalike>) {
        self.entry(root).lookalikes = lookalikes;
    }

    /// Returns the statistics of `root`.
    #[must_use]
    pub fn of(&self, root: &Path) -> RootStats {
        self.roots.get(root).cloned().unwrap_or_default()
    }

    fn entry(&mut self, root: &Path) -> &mut RootStats {
        self.roots.entry(root.to_owned()).or_default()
    }
}

fn root_of(event: &Event) -> Option<&Path> {
    match event {
        Event::Tracked { subject, .. }
        | Event::Settled { subject, .. }
        | Event::Kept { subject, .. }
        | Event::Restored { subject, .. }
        | Event::Purged { subject, .. }
        | Event::Failed { subject, .. } => Some(&subject.root),
        Event::Reaped(disposed) | Event::Quarantined { disposed, .. } => {
            let subject: &Subject = &disposed.subject;
            Some(&subject.root)
        }
        Event::Rescan { root, .. } | Event::Root { root, .. } => Some(root),
        Event::Ready { .. } | Event::Summary(_) => None,
    }
}
