//! The sums of a scan.

use std::time::Duration;

use orphand::core::judge::{Reason, Verdict};
use orphand::engine::Examined;
use serde::Serialize;

use crate::cli::output::census::Census;

/// The sums of the temps of a directory, or of all roots.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) total: Totals,
    pub(super) census: Census,
    /// The orphans that a sweep would remove or move.
    pub(super) swept: OrphanCounts,
    /// The orphans that a sweep would only report, by their rule.
    pub(super) reported: OrphanCounts,
    /// The longest time for which an orphan was unused.
    pub(super) oldest: Duration,
    /// The verdict of a temp is not known.
    pub(super) cannot_tell: bool,
}

/// The number of orphans by their verdict.
#[derive(Clone, Copy, Default)]
pub(super) struct OrphanCounts {
    pub(super) removed: u64,
    pub(super) moved: u64,
}

impl OrphanCounts {
    pub(super) fn all(self) -> u64 {
        self.removed + self.moved
    }

    fn merge(&mut self, other: OrphanCounts) {
        self.removed += other.removed;
        self.moved += other.moved;
    }
}

/// The numbers and sizes of the temps and of the orphans among them.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Totals {
    pub(super) temps: u64,
    bytes: u64,
    disk_bytes: u64,
    pub(super) orphans: u64,
    orphan_bytes: u64,
    pub(super) orphan_disk_bytes: u64,
}

impl Totals {
    fn merge(&mut self, other: Totals) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.temps, other.temps);
        add(&mut self.bytes, other.bytes);
        add(&mut self.disk_bytes, other.disk_bytes);
        add(&mut self.orphans, other.orphans);
        add(&mut self.orphan_bytes, other.orphan_bytes);
        add(&mut self.orphan_disk_bytes, other.orphan_disk_bytes);
    }
}

impl Tally {
    /// Adds a temp. `only_reports` tells whether the rule of its root only reports.
    pub(super) fn add(&mut self, examined: &Examined, only_reports: bool) {
        let size = examined.evidence.observation.size();
        let temp_info = &examined.temp_info;
        let verdict = examined.verdict;
        let is_orphan = !matches!(verdict, Verdict::Keep(_));
        let of_orphans = |number| if is_orphan { number } else { 0 };
        self.total.merge(Totals {
            temps: 1,
            bytes: size.bytes,
            disk_bytes: size.disk_bytes,
            orphans: of_orphans(1),
            orphan_bytes: of_orphans(size.bytes),
            orphan_disk_bytes: of_orphans(size.disk_bytes),
        });
        self.census.add(verdict, temp_info.quiet, temp_info.grace);
        self.cannot_tell |= verdict == Verdict::Keep(Reason::CannotTell);
        if is_orphan {
            self.oldest = self.oldest.max(temp_info.quiet);
        }
        let counts = match only_reports {
            true => &mut self.reported,
            false => &mut self.swept,
        };
        match verdict {
            Verdict::Reap => counts.removed += 1,
            Verdict::Quarantine(_) => counts.moved += 1,
            Verdict::Keep(_) => {}
        }
    }

    /// Adds other sums.
    pub(super) fn merge(&mut self, other: &Tally) {
        self.total.merge(other.total);
        self.census.merge(other.census);
        self.swept.merge(other.swept);
        self.reported.merge(other.reported);
        self.oldest = self.oldest.max(other.oldest);
        self.cannot_tell |= other.cannot_tell;
    }
}
