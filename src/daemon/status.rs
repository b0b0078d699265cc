//! The status of a running watcher.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::stats::RootStats;
use crate::core::event::Summary;
use crate::core::judge::Reason;
use crate::core::learn::KnownShape;
use crate::core::time::Wall;
use crate::core::write_times::WriteSummary;
use crate::fs::root::Root;
use crate::index::PendingCounts;
use crate::sys::clock;
use crate::sys::mutex::guard;
use crate::watch::SlowWrite;

/// Reports the status of a running [`Watcher`](super::Watcher) from any thread.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    pub(super) shared: Arc<Shared>,
}

/// The status of one root.
#[derive(Clone, Debug)]
pub struct RootStatus {
    /// The root and its rule.
    pub root: Root,
    /// The numbers of its waiting and kept temps.
    pub pending: PendingCounts,
    /// The counters of its events and scans.
    pub stats: RootStats,
    /// The times that healthy writes took. `None` if none was measured.
    pub writes: Option<WriteSummary>,
    /// The longest healthy write, if it took more than half of its grace.
    pub slow_write: Option<SlowWrite>,
}

impl StatusHandle {
    /// Returns the status of every root.
    #[must_use]
    pub fn roots(&self) -> Vec<RootStatus> {
        let active_roots = self.shared.active_roots();
        let root_of = |dir: &Path| Some(&*active_roots.root_of(dir)?.0.root.path);
        let mut pending = self.shared.temps.pending_counts_by(root_of);
        let stats = guard(&self.shared.stats);
        let root_status = |root: &Root| RootStatus {
            root: root.clone(),
            pending: pending.remove(&*root.path).unwrap_or_default(),
            stats: stats.of(&root.path),
            writes: self.shared.writes.summary_of(&root.path),
            slow_write: self.shared.writes.slow_in(root),
        };
        active_roots.roots().map(root_status).collect()
    }

    /// Returns the totals of all roots.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.shared.summary()
    }

    /// Returns the time at which the watch began.
    #[must_use]
    pub fn since(&self) -> Wall {
        guard(&self.shared.stats).since
    }

    /// Returns the shapes of temps that are known from healthy renames.
    #[must_use]
    pub fn known_shapes(&self) -> Vec<KnownShape> {
        self.shared.learning.known()
    }

    /// Returns the number of tracked temps.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.temps.len()
    }

    /// Returns the reason for which the temp at `path` is kept. `None` if it is not kept or not known.
    #[must_use]
    pub fn kept_for(&self, path: &Path) -> Option<Reason> {
        self.shared.temps.kept_for(path)
    }

    /// Returns the time since the last reported creation of a temp, if there was one.
    #[must_use]
    pub fn last_created(&self) -> Option<Duration> {
        let created = self.shared.temps.waker().last_created()?;
        Some(clock::mono().since(created))
    }
}
