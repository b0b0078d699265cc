//! Counts of the temps in the map, for a status line.

use std::collections::BTreeMap;

use crate::core::judge::Reason;
use crate::core::time::Mono;
use crate::core::tracker::Tracked;

/// A summary of the map, for a status line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingCounts {
    /// The number of temps within their grace.
    pub waiting: usize,
    /// The number of temps that were judged and kept.
    pub held: usize,
    /// The total size of the kept temps, in bytes.
    pub held_bytes: u64,
    /// The next deadline of a waiting temp.
    pub next: Option<Mono>,
    /// The number of kept temps for each reason.
    pub reasons: BTreeMap<&'static str, usize>,
}

impl PendingCounts {
    pub(super) fn count(&mut self, temp: &Tracked) {
        match temp.kept_for() {
            // Its disposal failed or was only reported, in a dry run. It is counted there.
            Some(Reason::Young) => {}
            Some(reason) => {
                self.held += 1;
                let bytes = temp.bytes().unwrap_or(0);
                self.held_bytes = self.held_bytes.saturating_add(bytes);
                *self.reasons.entry(reason.as_str()).or_default() += 1;
            }
            None if temp.is_ignored() => {}
            None => {
                self.waiting += 1;
                let due = temp.due();
                self.next = Some(self.next.map_or(due, |next: Mono| next.min(due)));
            }
        }
    }
}
