//! The ledger: what a watch has done so far, in all and root by root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::decide::judge::Reason;
use crate::decide::time::Wall;
use crate::event::{Event, RescanCause, RootState, Subject, Summary};

/// What was done since the watch began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// When it began.
    pub since: Wall,
    /// In all roots.
    pub total: Summary,
    roots: BTreeMap<PathBuf, RootStats>,
}

/// What was done in one root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootStats {
    /// The sums.
    pub summary: Summary,
    /// Its state, once something was said of it.
    pub state: Option<RootState>,
    /// How often a temp was kept, by reason: once per temp and reason.
    pub kept: BTreeMap<&'static str, u64>,
    /// How often it was scanned, by cause.
    pub rescans: BTreeMap<&'static str, u64>,
    /// The last scan that came to its end.
    pub last_scan: Option<LastScan>,
    /// How many of its directories are watched.
    pub directories: usize,
    /// When a temp was last removed or moved to the quarantine.
    pub last_disposal: Option<Wall>,
}

/// A scan that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastScan {
    /// When.
    pub ended: Wall,
    /// How long it took.
    pub took: Duration,
}

impl Stats {
    /// A ledger that begins at `since`.
    #[must_use]
    pub fn new(since: Wall) -> Stats {
        Stats {
            since,
            total: Summary::default(),
            roots: BTreeMap::new(),
        }
    }

    /// Enters `event`, which happened at `at`.
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

    /// A scan of `root` has ended, and so many of its directories are watched.
    pub fn record_scan(&mut self, root: &Path, scan: LastScan, directories: usize) {
        let root_stats = self.entry(root);
        root_stats.last_scan = Some(scan);
        root_stats.directories = directories;
    }

    /// What was done in `root`.
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
