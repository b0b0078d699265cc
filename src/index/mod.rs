//! The concurrent map of all tracked temps.
//!
//! The watcher's callback, the scans, the scheduler and the workers share it. No guard of the map is held across
//! another call to the map, a system call, a log line or a send that may block.

use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crossbeam_channel::Receiver;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::core::judge::Reason;
use crate::core::time::Mono;
use crate::core::tracker::{Origin, Tracked};
use crate::sys::free_memory;
use crate::sys::mutex::guard;
use key::{DirSet, KeyParts};

pub use key::{DirPath, Key, SplitPath};
pub use pending::PendingCounts;
pub use waker::Waker;

mod key;
mod pending;
mod waker;

/// The map, and the waker of the scheduler thread.
#[derive(Debug)]
pub struct Temps {
    /// An entry has two words, because a table that has just grown is half empty.
    map: DashMap<Key, Box<Tracked>>,
    dirs: Mutex<DirSet>,
    waker: Waker,
    /// The shortest grace of all rules, in nanoseconds.
    shortest_grace: AtomicU64,
    /// The approximate limit of tracked temps.
    max_tracked: usize,
    /// The number of insertions so far.
    insertions: AtomicUsize,
    /// The limit is reached.
    is_full: AtomicBool,
    /// Temps were rejected because of the limit.
    has_rejected: AtomicBool,
}

/// The default limit of tracked temps: 2 million, which need half a gigabyte.
pub const MAX_TRACKED: usize = 2_000_000;

impl Temps {
    /// Returns an empty map that tracks no more than about `max_tracked` temps, and the receiver that wakes the
    /// scheduler.
    #[must_use]
    pub fn new(shortest_grace: Duration, max_tracked: usize) -> (Temps, Receiver<()>) {
        let (waker, wake_rx) = Waker::new();
        let temps = Temps {
            map: DashMap::new(),
            dirs: Mutex::default(),
            waker,
            shortest_grace: AtomicU64::new(0),
            max_tracked,
            insertions: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            has_rejected: AtomicBool::new(false),
        };
        temps.set_shortest_grace(shortest_grace);
        (temps, wake_rx)
    }

    /// Records that a temp was created at `path` or renamed to it. An entry under this name belongs to another file and
    /// is replaced. Returns `false` only for the first temp that is rejected because of the limit, so that the limit is
    /// reported once.
    pub fn record_created(&self, path: &Path, now: Mono) -> bool {
        // A known name is replaced even if the map is full.
        if self.is_full() && rule!("no-more-temps-than-room", !self.knows(path)) {
            return self.has_rejected.swap(true, Ordering::SeqCst);
        }
        let temp = Tracked::created(now, self.shortest_grace());
        let before = self.map.insert(self.key(path), Box::new(temp));
        // A pending claim of this name has to be put back later, even if another file has taken the name.
        // RACE: the removal of the other file may be received before the mark is set. Worst case: the claim is
        // forgotten with it, until the next scan of everything.
        if before.is_some_and(|before| rule!("claim-outlives-its-name", before.is_claim_pending()))
            && let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts)
        {
            temp.set_claim_pending();
        }
        self.waker.note_created(now);
        true
    }

    /// Records that a file was renamed to `path`, in the same way as [`Temps::record_created`], unless orphand itself
    /// has put the file back.
    ///
    /// `RACE:` the event of orphand's own rename may be lost, or come after the event of another process's rename.
    /// Worst case: a file that another process renames to this name is taken for the one that was put back, and ignored
    /// until the watch ends.
    pub fn record_renamed(&self, path: &Path, now: Mono) -> bool {
        let known = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts);
        let is_ours = known.is_some_and(|mut temp| temp.take_expected_put_back());
        rule!("put-back-is-not-new", is_ours) || self.record_created(path, now)
    }

    /// Marks the temp at `path`, if it is tracked, as the target of another temp.
    pub fn mark_target(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.mark_target();
        }
    }

    /// Returns whether the map is full. It is called before each insertion. The entries are counted only now and then,
    /// because counting visits all shards of the map.
    fn is_full(&self) -> bool {
        let insertions = self.insertions.fetch_add(1, Ordering::Relaxed);
        if insertions.is_multiple_of((self.max_tracked / 64).max(1)) {
            let is_full = self.map.len() >= self.max_tracked;
            self.is_full.store(is_full, Ordering::Relaxed);
        }
        self.is_full.load(Ordering::Relaxed)
    }

    /// Returns whether temps were rejected because of the limit. A scan finds them once there is room.
    #[must_use]
    pub fn has_rejected(&self) -> bool {
        self.has_rejected.load(Ordering::SeqCst)
    }

    /// Returns true once if temps were rejected and there is room again. A quarter of the map must be free, so that the
    /// result does not alternate.
    #[must_use]
    pub fn has_capacity_again(&self) -> bool {
        let has_capacity = self.len() <= self.max_tracked - self.max_tracked / 4;
        if has_capacity {
            self.is_full.store(false, Ordering::Relaxed);
        }
        has_capacity && self.has_rejected.swap(false, Ordering::SeqCst)
    }

    fn key(&self, path: &Path) -> Key {
        let cut = SplitPath::new(path);
        let dir = self.dirs().get(cut.dir());
        Key::new(dir, cut.name())
    }

    fn dirs(&self) -> MutexGuard<'_, DirSet> {
        guard(&self.dirs)
    }

    /// Returns whether there is an entry under this name.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.map
            .contains_key(&SplitPath::new(path) as &dyn KeyParts)
    }

    /// Returns the reason of the last verdict about the temp, if that kept it.
    #[must_use]
    pub fn kept_for(&self, path: &Path) -> Option<Reason> {
        let temp = self.map.get(&SplitPath::new(path) as &dyn KeyParts)?;
        temp.kept_for()
    }

    /// Records that a file has this name now, perhaps for a long time. An existing entry is kept. Returns `false` as
    /// [`Temps::record_created`] does.
    pub fn record_appeared(&self, path: &Path, now: Mono) -> bool {
        self.knows(path) || self.record_created(path, now)
    }

    /// Records that the name was removed or renamed, and returns its entry, if it was tracked. An entry is kept if its temp
    /// is being removed or has a pending claim: in these cases orphand itself has renamed the file.
    pub fn remove(&self, path: &Path) -> Option<Box<Tracked>> {
        let is_ours = |temp: &Tracked| {
            let is_ours = temp.may_be_claimed();
            rule!("pending-claim-keeps-entry", is_ours, without: temp.is_checked_out())
        };
        self.map
            .remove_if(&SplitPath::new(path) as &dyn KeyParts, |_, temp| {
                !is_ours(temp)
            })
            .map(|(_, temp)| temp)
    }

    /// Records that a writer closed the file.
    pub fn record_closed(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.close();
        }
    }

    /// Records that a scan found the temp. An existing entry is kept. Returns whether the temp is new.
    pub fn record_found(&self, path: &Path, now: Mono, origin: Origin) -> bool {
        if self.is_full() {
            if !self.knows(path) {
                self.has_rejected.store(true, Ordering::SeqCst);
            }
            return false;
        }
        match self.map.entry(self.key(path)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Box::new(Tracked::found(now, origin)));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Records that a scan found the temp, and that it is ignored. The limit does not apply: the dates of the temp may
    /// change, and if it had no entry, the next scan would treat it as new.
    pub fn ignore(&self, path: &Path, now: Mono) {
        if let Entry::Vacant(vacant) = self.map.entry(self.key(path)) {
            vacant.insert(Box::new(Tracked::ignored(now)));
        }
    }

    /// Records that a claim is about to be put back to this name, and that its file is ignored from then on. Returns
    /// whether the name had no entry.
    pub fn expect_put_back(&self, path: &Path, now: Mono) -> bool {
        match self.map.entry(self.key(path)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Box::new(Tracked::awaiting_put_back(now)));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Records that a claim of this temp waits to be put back to this name.
    pub fn record_claim_pending(&self, path: &Path, now: Mono) {
        if !self.knows(path) {
            _ = self.record_created(path, now);
        }
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.set_claim_pending();
        }
    }

    /// Forgets the entry that waits for a put-back to this name, because the claim was not put back. The entry of a
    /// file that another process has created here since is kept.
    pub fn cancel_put_back(&self, path: &Path) {
        let is_expected = |temp: &mut Box<Tracked>| {
            let is_expected = temp.take_expected_put_back();
            rule!("only-the-awaited-is-forgotten", is_expected, without: true)
        };
        self.map
            .remove_if_mut(&SplitPath::new(path) as &dyn KeyParts, |_, temp| {
                is_expected(temp)
            });
    }

    /// Forgets all entries in `dir`, and in those directories below it for which `is_included` returns true, except
    /// ignored ones.
    pub fn forget_below(&self, dir: &Path, is_included: impl Fn(&Path) -> bool) {
        let own_key: &dyn KeyParts = &SplitPath::new(dir);
        self.map.retain(|key, temp| {
            let (parent, key_parts): (&Path, &dyn KeyParts) = (key.dir(), key);
            let is_removed =
                (parent.starts_with(dir) && is_included(parent)) || key_parts == own_key;
            temp.is_ignored() || !is_removed
        });
    }

    /// Applies new rules: forgets the temps that none of them covers, and makes all others due at once, including those
    /// that are checked out. Each gets its next deadline by its new rule.
    pub fn apply_rules(&self, now: Mono, covers: impl Fn(&Path) -> bool) {
        self.map.retain(|key, temp| {
            temp.mark_rules_changed(now);
            covers(&key.path())
        });
        self.waker.wake();
    }

    /// Returns the waker of the scheduler.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Returns the number of tracked temps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether no temp is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Returns the shortest grace of all rules.
    #[must_use]
    pub fn shortest_grace(&self) -> Duration {
        Duration::from_nanos(self.shortest_grace.load(Ordering::Relaxed))
    }

    /// Sets the shortest grace of all rules.
    pub fn set_shortest_grace(&self, shortest_grace: Duration) {
        let nanos = u64::try_from(shortest_grace.as_nanos()).unwrap_or(u64::MAX);
        self.shortest_grace.store(nanos, Ordering::Relaxed);
    }

    /// Returns the temps that are due before `horizon`, but at most the nearest `max` of them, and the time from which
    /// on there may be others. Directories for which `is_skipped` returns true are left out.
    #[must_use]
    pub fn due_before(
        &self,
        horizon: Mono,
        max: usize,
        is_skipped: impl Fn(&DirPath) -> bool,
    ) -> DueTemps {
        self.waker.forget_first_created();
        let mut due = BinaryHeap::new();
        let (mut horizon, mut next_after) = (horizon, Mono(u64::MAX));
        for temp in &self.map {
            if temp.is_checked_out() || is_skipped(temp.key().dir()) {
                continue;
            }
            if temp.due() >= horizon {
                next_after = next_after.min(temp.due());
                continue;
            }
            due.push((temp.due(), temp.key().clone()));
            if due.len() > max
                && let Some((last, _)) = due.pop()
            {
                horizon = last;
                next_after = last;
            }
        }
        DueTemps {
            due: due.into_vec(),
            horizon,
            next_after,
        }
    }

    /// Checks a temp out if it is due. From now on events about its name come from orphand's own actions, until
    /// [`Temps::check_in`].
    #[must_use]
    pub fn check_out(&self, key: &Key, now: Mono) -> Option<Tracked> {
        let mut temp = self.map.get_mut(key)?;
        if temp.due() > now || temp.is_checked_out() {
            return None;
        }
        Some(temp.check_out())
    }

    /// Checks a temp in: with its new state, or with `None` to forget it. If its name was given to another file in the
    /// meantime, the entry of that file is kept.
    pub fn check_in(&self, key: &Key, temp: Option<Tracked>) {
        match temp {
            Some(temp) => {
                if let Some(mut entry) = self.map.get_mut(key)
                    && entry.is_checked_out()
                {
                    let before = std::mem::replace(&mut **entry, temp);
                    if before.is_closed() {
                        entry.close();
                    }
                    // The worker may have looked at the temp by the old rules.
                    if rule!("reload-reaches-checked-out-temp", before.has_new_rules()) {
                        entry.mark_rules_changed(before.due());
                    }
                }
            }
            None => {
                self.map.remove_if(key, |_, entry| entry.is_checked_out());
            }
        }
    }

    /// Returns memory to the system if the map has room for many more temps than it holds.
    pub fn shrink(&self) {
        let capacity = self.map.capacity();
        if capacity < SHRINK_FROM || self.len() > capacity / 4 {
            return;
        }
        self.map.shrink_to_fit();
        self.dirs().shrink();
        free_memory::trim();
    }

    /// Returns the numbers of waiting and of kept temps, the reasons, and the next deadline, for messages.
    #[must_use]
    pub fn pending_counts(&self) -> PendingCounts {
        let all = self.pending_counts_by(|_| Some(()));
        all.into_values().next().unwrap_or_default()
    }

    /// Returns these counts by the part that a directory belongs to. `part_of` returns that part, and must not call the
    /// map.
    #[must_use]
    pub fn pending_counts_by<Part: Ord>(
        &self,
        part_of: impl Fn(&Path) -> Option<Part>,
    ) -> BTreeMap<Part, PendingCounts> {
        let mut counts = BTreeMap::<Part, PendingCounts>::new();
        for temp in &self.map {
            if let Some(part) = part_of(temp.key().dir()) {
                counts.entry(part).or_default().count(&temp);
            }
        }
        counts
    }
}

/// The result of [`Temps::due_before`].
#[derive(Debug)]
pub struct DueTemps {
    /// The temps with their deadlines, in no particular order.
    pub due: Vec<(Mono, Key)>,
    /// Contains all temps that are due before this time.
    pub horizon: Mono,
    /// No other temp is due before this time.
    pub next_after: Mono,
}

/// The capacity from which on shrinking is worth its cost.
const SHRINK_FROM: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn shrinking_keeps_the_remaining_temps() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let path = |n: usize| PathBuf::from(format!("/r/{}/{n}.tmp", n % 100));
        for n in 0..30_000 {
            temps.record_created(&path(n), Mono(1));
        }
        let capacity = temps.map.capacity();
        temps.shrink();
        assert_eq!(temps.map.capacity(), capacity, "the capacity is needed");
        for n in 10..30_000 {
            assert!(temps.remove(&path(n)).is_some());
        }
        temps.shrink();
        assert!(temps.map.capacity() < SHRINK_FROM);
        for n in 0..10 {
            assert!(temps.remove(&path(n)).is_some(), "{n}");
        }
        assert!(temps.is_empty());
    }

    #[test]
    fn a_put_back_temp_is_still_ignored() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let (path, late) = (Path::new("/r/a.tmp"), Mono(u64::MAX / 2));
        assert!(temps.expect_put_back(path, Mono(1)));
        let key = temps.key(path);
        assert!(temps.record_renamed(path, Mono(2)));
        assert!(temps.check_out(&key, late).is_none(), "it is ignored");
        assert!(temps.record_renamed(path, Mono(3)));
        let is_due = temps.check_out(&key, late).is_some();
        assert!(is_due, "it now belongs to another process");
    }

    #[test]
    fn no_temps_are_tracked_beyond_the_limit() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), 1);
        let (one, other) = (Path::new("/r/a.tmp"), Path::new("/r/b.tmp"));
        assert!(temps.record_created(one, Mono(1)));
        temps.record_created(other, Mono(2));
        assert!(!temps.knows(other) && temps.has_rejected());
        assert!(
            temps.record_created(one, Mono(3)),
            "a known name is replaced"
        );
    }

    #[test]
    fn cancelling_a_put_back_keeps_a_new_temp() {
        let path = Path::new("/r/a.tmp");
        for made in [false, true] {
            let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
            assert!(temps.expect_put_back(path, Mono(1)));
            if made {
                temps.record_created(path, Mono(2));
            }
            temps.cancel_put_back(path);
            assert_eq!(temps.knows(path), made);
        }
    }

    /// The event of the claim may come after the worker has checked the temp in.
    #[test]
    fn a_temp_with_a_pending_claim_is_not_forgotten() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let (path, late) = (Path::new("/r/a.tmp"), Mono(u64::MAX / 2));
        temps.record_created(path, Mono(1));
        let key = temps.key(path);
        let mut taken = temps.check_out(&key, late).expect("it is due");
        assert!(temps.remove(path).is_none(), "it is checked out");
        taken.set_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(temps.remove(path).is_none(), "its claim is pending");
        // Another process takes the name in the meantime, and removes it again.
        temps.record_created(path, Mono(2));
        assert!(temps.remove(path).is_none(), "its claim is pending");
        let mut taken = temps.check_out(&key, late).expect("it is due");
        taken.clear_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(temps.remove(path).is_some());
    }

    /// A worker may look at a temp that it has checked out by the old rules.
    #[test]
    fn new_rules_reach_a_checked_out_temp() {
        for is_checked_out in [false, true] {
            let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
            let path = PathBuf::from("/r/a.tmp");
            let (now, late) = (Mono(1_000), Mono(u64::MAX / 2));
            temps.record_found(&path, now, Origin::Found);
            let key = temps.key(&path);
            let taken = temps.check_out(&key, now).expect("it is due");
            if is_checked_out {
                temps.apply_rules(now, |_| true);
            }
            let mut taken = taken.check_in();
            taken.keep(
                crate::core::judge::Reason::Young,
                Duration::from_secs(9),
                now,
            );
            temps.check_in(&key, Some(taken));
            let taken = temps.check_out(&key, late).expect("it was checked in");
            assert_eq!(taken.has_new_rules(), is_checked_out);
            assert_eq!(taken.due() <= now, is_checked_out, "at once");
            temps.check_in(&key, Some(taken.check_in()));
            let again = temps.check_out(&key, late).expect("it was checked in");
            assert_eq!(
                again.has_new_rules(),
                is_checked_out,
                "no look has happened since"
            );
        }
    }
}
