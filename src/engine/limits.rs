//! Drops the files that the limits of a quarantine require.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::Engine;
use super::stored_targets::StoredTargets;
use crate::core::event::{Event, Subject};
use crate::core::retention;
use crate::core::retention::{ClockTrust, Entry, NeededSpace, Space, SupersededBy, TargetState};
use crate::evidence::{FlushedTargets, UseChecker};
use crate::fs::dir::RootId;
use crate::fs::root::Root;
use crate::reap::quarantine::{Quarantine, QuarantineUsage, Stored, StoredSet};
use crate::store::journal::{Journal, LineKind};
use crate::store::json;
use crate::sys::clock;

/// The maximum number of files that one call drops from a small quarantine, so that other work is not delayed for long.
const MAX_DROPS: usize = 256;

/// From a large quarantine, a call drops up to this fraction of its files (1/16), because each call reads all of them.
const MAX_DROPPED_PART: usize = 16;

/// The context for the limits of a quarantine.
#[derive(Clone, Copy, Debug)]
pub struct LimitContext<'a> {
    /// The limits, and the known sizes.
    pub usage: &'a QuarantineUsage,
    /// The journal, which records each drop before and after it.
    pub journal: &'a Journal,
    /// Checks that no process uses a file before it is dropped.
    pub use_checker: &'a UseChecker,
    /// The targets that are on the disk.
    pub flushed_targets: &'a FlushedTargets,
    /// The trust in the dates of files.
    pub trust: ClockTrust,
    /// The space for the files that are about to be moved into the quarantine.
    pub wanted: NeededSpace,
}

impl<'a> LimitContext<'a> {
    /// Returns the context for `engine`, in which no date is trusted and no space is wanted.
    #[must_use]
    pub fn new(engine: &'a Engine, use_checker: &'a UseChecker) -> LimitContext<'a> {
        LimitContext {
            usage: engine.reaper.usage(),
            journal: &engine.journal,
            use_checker,
            flushed_targets: engine.reaper.flushed_targets(),
            trust: ClockTrust::default(),
            wanted: NeededSpace::default(),
        }
    }
}

/// The result of enforcing the limits of a quarantine.
#[derive(Debug, Default)]
pub struct LimitsResult {
    /// The events for the dropped files.
    pub events: Vec<Event>,
    /// The quarantine still contains files.
    pub holds_files: bool,
    /// More files are to be dropped, by the next call.
    pub has_more: bool,
    /// The time until the next file is too old.
    pub next: Option<Duration>,
}

/// Drops the files that the limits of the quarantine of `root` require, and returns what was dropped.
///
/// A file may be here *because* it could not be proven unused, or although it was in use. So a file is dropped only
/// under the same proof as in any other removal.
pub fn enforce_limits(root: &Root, id: Option<RootId>, context: LimitContext<'_>) -> LimitsResult {
    let began = clock::mono();
    let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, id) else {
        // Without a quarantine there is no size.
        context.usage.forget(id);
        return LimitsResult::default();
    };
    let files = match quarantine.stored() {
        Ok(files) => StoredSet::group(files),
        Err(error) => {
            log::warn!("cannot read the quarantine of {:?}: {error}", root.path);
            return LimitsResult::default();
        }
    };
    let now = clock::now();
    let mut targets = StoredTargets::new(root, &quarantine, id, context.flushed_targets);
    let mut entries: Vec<Entry> = files
        .iter()
        .map(|set| targets.retention_entry(set, now))
        .collect();
    measure_groups(&quarantine, &files, &mut entries);
    let space = Space {
        needed: context.wanted,
        ..quarantine.space()
    };
    let limits = context.usage.limits();
    let plan = retention::plan(&entries, limits, space, now.wall, context.trust);
    let mut result = LimitsResult {
        next: plan.next,
        ..LimitsResult::default()
    };
    let mut limited = LimitedQuarantine {
        root,
        quarantine: &quarantine,
        context,
        by_id: by_id(&files),
        targets,
        flushed: RefCell::default(),
    };
    let mut dropped = HashSet::new();
    let max_drops = MAX_DROPS.max(files.len() / MAX_DROPPED_PART);
    for (entry, better) in plan.drops {
        if dropped.len() >= max_drops {
            result.has_more = true;
            break;
        }
        if let Some(set) = limited.stored(&entry.id) {
            let events = limited.drop_set(set, entry.target, better);
            if events.len() == set.members().len() {
                dropped.insert(set.main.id.as_str());
            }
            result.events.extend(events);
        }
    }
    result.holds_files = dropped.len() < files.len();
    let left = files
        .iter()
        .filter(|set| !dropped.contains(set.main.id.as_str()));
    let left = left.flat_map(StoredSet::members);
    context.usage.record(&quarantine, left, began);
    result
}

/// Measures the data of the copies of each group that is large enough for a copy to be dropped because of another one.
fn measure_groups(quarantine: &Quarantine, files: &[StoredSet], entries: &mut [Entry]) {
    let mut sizes: HashMap<(PathBuf, u32), usize> = HashMap::new();
    let key = |entry: &Entry| Some((entry.group.clone()?, entry.uid));
    for key in entries.iter().filter_map(key) {
        *sizes.entry(key).or_default() += 1;
    }
    for (set, entry) in files.iter().zip(entries) {
        if key(entry).is_some_and(|key| sizes[&key] > 1) {
            entry.data = quarantine.data_of(&set.main).unwrap_or(0);
        }
    }
}

/// Returns the files by their ids. An id that two files share identifies neither.
fn by_id(files: &[StoredSet]) -> HashMap<&OsStr, Option<&StoredSet>> {
    let mut by_id = HashMap::new();
    for set in files {
        by_id
            .entry(OsStr::new(&set.main.id))
            .and_modify(|known| *known = None)
            .or_insert(Some(set));
    }
    by_id
}

/// A quarantine whose limits are being enforced.
struct LimitedQuarantine<'a> {
    root: &'a Root,
    quarantine: &'a Quarantine,
    context: LimitContext<'a>,
    by_id: HashMap<&'a OsStr, Option<&'a StoredSet>>,
    targets: StoredTargets<'a>,
    /// The ids of the better copies whose data is on the disk.
    flushed: RefCell<HashSet<String>>,
}

impl<'a> LimitedQuarantine<'a> {
    fn stored(&self, id: &OsStr) -> Option<&'a StoredSet> {
        self.by_id.get(id).copied().flatten()
    }

    fn is_unused(&self, stored: &Stored) -> bool {
        let use_checker = self.context.use_checker;
        self.quarantine
            .is_proven_unused(stored, &self.root.policy, use_checker)
    }

    /// Drops `set` if all its members are unused and it is still superseded. `target` was the state of its target when
    /// this call of [`enforce_limits`] began. Returns the events of the members that were dropped.
    fn drop_set(
        &mut self,
        set: &StoredSet,
        target: TargetState,
        better: SupersededBy,
    ) -> Vec<Event> {
        let is_unused = |stored: &Stored| {
            let is_main = std::ptr::eq(stored, &set.main);
            match is_main {
                true => self.is_unused(stored),
                false => {
                    rule!("dropped-companions-are-unused", self.is_unused(stored), without: true)
                }
            }
        };
        if !set.members().into_iter().all(is_unused) {
            return Vec::new();
        }
        let journal = self.context.journal;
        let purged = |stored: &Stored| purged_event(&self.root.path, stored);
        let mut events: Vec<Event> = set.members().into_iter().map(purged).collect();
        // The journal may wait for another process, so nothing is written between the last check and the removal.
        write_events(journal, LineKind::Intent, &events);
        let mut deleted = 0;
        if self.is_still_superseded(set, target, better) {
            let use_checker = self.context.use_checker;
            let members = set.members().into_iter();
            deleted = members
                .take_while(|stored| self.quarantine.delete_unused(stored, use_checker).is_ok())
                .count();
        }
        events.truncate(deleted);
        write_events(journal, LineKind::Outcome, &events);
        events
    }

    /// Reports whether there still is a better copy of `stored`. It was superseded when this call of [`enforce_limits`]
    /// began. It may be the last copy by now, if the better copy was removed or another process may still change it.
    ///
    /// RACE: the better copy may be removed between this check and the removal. Worst case: both copies are lost.
    fn is_still_superseded(
        &mut self,
        set: &StoredSet,
        target: TargetState,
        better: SupersededBy,
    ) -> bool {
        match better {
            SupersededBy::Target => rule!("dropped-while-target-counts",
                self.targets.state(set) == TargetState::Counts, without: true),
            SupersededBy::Copies(newer) => {
                let is_unused = |stored: &Stored| rule!("dropped-while-newer-copy", self.is_unused(stored), without: true);
                let quarantine = self.quarantine;
                let flushed = &self.flushed;
                let is_flushed = |stored: &Stored| {
                    let mut flushed = flushed.borrow_mut();
                    flushed.contains(&stored.id)
                        || quarantine.flushed_data(stored).is_ok()
                            && flushed.insert(stored.id.clone())
                };
                let is_kept = |id: &OsString| {
                    let stored = self.stored(id).map(|set| &set.main);
                    stored.is_some_and(|stored| is_flushed(stored) && is_unused(stored))
                };
                newer.iter().all(is_kept) && self.targets.state(set) == target
            }
        }
    }
}

fn write_events(journal: &Journal, kind: LineKind, events: &[Event]) {
    let now = clock::wall();
    let lines: Vec<_> = events.iter().map(|event| json::event(event, now)).collect();
    journal.write(kind, &lines);
}

/// Returns the event for a file that was deleted permanently.
#[must_use]
pub fn purged_event(root: &Path, stored: &Stored) -> Event {
    Event::Purged {
        subject: Subject {
            path: root.join(&stored.below),
            root: root.to_owned(),
            size: Some(stored.seen.size()),
        },
        id: stored.id.clone(),
    }
}
