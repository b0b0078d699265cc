//! The concurrent map of all temps that are known.
//!
//! The watcher's callback, the scanners and the timer thread meet in it. No guard of the map lives
//! across another call to the map, a system call, a log line or a send that may block.

use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::decide::time::Mono;
use crate::decide::tracker::{Origin, Tracked};
use crate::free_memory;
use key::{FolderSet, KeyParts};

pub(crate) use key::SplitPath;
pub use key::{Folder, Key};

mod key;

/// The map, and the bell that wakes the timer thread.
#[derive(Debug)]
pub struct Temps {
    /// Two words an entry: a table that has just grown is half empty.
    map: DashMap<Key, Box<Tracked>>,
    folders: Mutex<FolderSet>,
    /// The timer thread sleeps for so long that the next creation is to wake it.
    asleep: AtomicBool,
    /// The bell was rung because the whole map is to be looked at again.
    stale: AtomicBool,
    waker: Sender<()>,
    /// The shortest grace of any rule, nanoseconds.
    shortest_grace: AtomicU64,
    /// When a temp was last created, nanoseconds of the monotonic clock; 0: none yet.
    last_created: AtomicU64,
    /// When the first temp was created since the last [`Temps::due_before`]; 0: none was.
    first_created: AtomicU64,
    /// No more than about this many are kept.
    max_tracked: usize,
    /// How many were put in since the beginning.
    insertions: AtomicUsize,
    /// There are so many.
    is_full: AtomicBool,
    /// Some were turned away because of that.
    has_rejected: AtomicBool,
}

/// How many temps are kept track of, unless the builder says otherwise: 2 million take half a
/// gigabyte.
pub const MAX_TRACKED: usize = 2_000_000;

impl Temps {
    /// An empty map that keeps no more than about `max_tracked`, and what the timer thread is woken by.
    #[must_use]
    pub fn new(shortest_grace: Duration, max_tracked: usize) -> (Temps, Receiver<()>) {
        let (waker, wake_rx) = bounded(1);
        let temps = Temps {
            map: DashMap::new(),
            folders: Mutex::default(),
            asleep: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            waker,
            shortest_grace: AtomicU64::new(0),
            last_created: AtomicU64::new(0),
            first_created: AtomicU64::new(0),
            max_tracked,
            insertions: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            has_rejected: AtomicBool::new(false),
        };
        temps.set_shortest_grace(shortest_grace);
        (temps, wake_rx)
    }

    /// A temp was created, or renamed to this name. Whatever was known under it is another file's.
    /// `false`: there is no room for it, and none was turned away before.
    pub fn created(&self, path: &Path, now: Mono) -> bool {
        // What was known of this very name is replaced all the same.
        if self.is_full() && rule!("no-more-temps-than-room", !self.knows(path)) {
            return self.has_rejected.swap(true, Ordering::SeqCst);
        }
        let temp = Tracked::created(now, self.shortest_grace());
        let before = self.map.insert(self.key(path), Box::new(temp));
        // Whoever took the name of a claim lets go of it too, some time.
        // RACE: that may be heard of before the mark is set; worst case: the claim is forgotten with it, until
        // the next scan of everything.
        if before.is_some_and(|before| rule!("claim-outlives-its-name", before.is_claim_pending()))
            && let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts)
        {
            temp.set_claim_pending();
        }
        self.last_created.store(now.0, Ordering::Relaxed);
        // After the insertion: `due_before` first clears this and then reads the map, so it either
        // finds the temp or is told of it by this.
        if self.first_created.load(Ordering::Relaxed) == 0 {
            self.first_created.store(now.0.max(1), Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.notify();
        }
        true
    }

    /// Something was renamed to this name: as [`Temps::created`], but where we have given it back ourselves.
    ///
    /// `RACE:` the event of our own rename may be lost, or come after that of another's; worst case: what
    /// somebody else renames here is taken for it, and left alone until the watch ends.
    pub fn renamed_here(&self, path: &Path, now: Mono) -> bool {
        let known = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts);
        let is_ours = known.is_some_and(|mut temp| temp.take_put_back());
        rule!("given-back-is-not-new", is_ours) || self.created(path, now)
    }

    /// The name that is known at `path` is the target of another temp.
    pub fn mark_target(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.mark_target();
        }
    }

    /// Asked before each that is put in. To count them takes a look at all parts of the map, so it is
    /// done now and then.
    fn is_full(&self) -> bool {
        let insertions = self.insertions.fetch_add(1, Ordering::Relaxed);
        if insertions.is_multiple_of((self.max_tracked / 64).max(1)) {
            let is_full = self.map.len() >= self.max_tracked;
            self.is_full.store(is_full, Ordering::Relaxed);
        }
        self.is_full.load(Ordering::Relaxed)
    }

    /// Whether there was no room for some temps. They are to be found by a scan when there is.
    #[must_use]
    pub fn has_rejected(&self) -> bool {
        self.has_rejected.load(Ordering::SeqCst)
    }

    /// Whether there was no room for some temps, and is now: a quarter of it, so that it does not come
    /// and go. Says so once.
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
        let folder = self.folders().get(cut.folder());
        Key::new(folder, cut.name())
    }

    fn folders(&self) -> MutexGuard<'_, FolderSet> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything under this name.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.map
            .contains_key(&SplitPath::new(path) as &dyn KeyParts)
    }

    /// A temp's name is there, and it may have been for long. What is known of it stands.
    /// `false` as from [`Temps::created`].
    pub fn appeared(&self, path: &Path, now: Mono) -> bool {
        self.knows(path) || self.created(path, now)
    }

    /// The name is gone: renamed away or removed. Says whether it was known. One that is being
    /// disposed of stays, or that could not be: that is our own doing.
    pub fn removed(&self, path: &Path) -> bool {
        let is_ours = |temp: &Tracked| {
            let is_ours = temp.is_ours_to_name();
            rule!("nameless-is-not-gone", is_ours, without: temp.is_reaping())
        };
        self.map
            .remove_if(&SplitPath::new(path) as &dyn KeyParts, |_, temp| {
                !is_ours(temp)
            })
            .is_some()
    }

    /// A writer closed it.
    pub fn closed(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.close();
        }
    }

    /// A scan found it. What an event has said of it already stands. Says whether it is news.
    pub fn found(&self, path: &Path, now: Mono, origin: Origin) -> bool {
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

    /// A scan found it, and it is to be left alone. For this there is always room: its dates may change,
    /// and whoever is not known then is taken by the next scan.
    pub fn ignore(&self, path: &Path, now: Mono) {
        if let Entry::Vacant(vacant) = self.map.entry(self.key(path)) {
            vacant.insert(Box::new(Tracked::ignored(now)));
        }
    }

    /// A claim is about to get this name back, and is to be left alone then. Says whether nothing was
    /// known under it.
    pub fn expect_put_back(&self, path: &Path, now: Mono) -> bool {
        match self.map.entry(self.key(path)) {
            Entry::Vacant(vacant) => {
                vacant.insert(Box::new(Tracked::awaiting_put_back(now)));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// A claim of it waits to have this name back.
    pub fn claim_pending(&self, path: &Path, now: Mono) {
        if !self.knows(path) {
            _ = self.created(path, now);
        }
        if let Some(mut temp) = self.map.get_mut(&SplitPath::new(path) as &dyn KeyParts) {
            temp.set_claim_pending();
        }
    }

    /// The claim has not got this name back: what was to be left alone is forgotten, and what somebody has
    /// made here meanwhile is not.
    pub fn cancel_put_back(&self, path: &Path) {
        let is_expected = |temp: &mut Box<Tracked>| {
            let is_expected = temp.take_put_back();
            rule!("only-the-awaited-is-forgotten", is_expected, without: true)
        };
        self.map
            .remove_if_mut(&SplitPath::new(path) as &dyn KeyParts, |_, temp| {
                is_expected(temp)
            });
    }

    /// Forgets everything in `dir` and in those folders below it that `is_included`, but what is to be left alone.
    pub fn forget_below(&self, dir: &Path, is_included: impl Fn(&Path) -> bool) {
        let own_key: &dyn KeyParts = &SplitPath::new(dir);
        self.map.retain(|key, temp| {
            let (folder, key_parts): (&Path, &dyn KeyParts) = (key.folder(), key);
            let is_removed =
                (folder.starts_with(dir) && is_included(folder)) || key_parts == own_key;
            temp.is_ignored() || !is_removed
        });
    }

    /// New rules are in force: forgets what none of them covers, and makes all the rest due at once,
    /// also what is taken up just now. Each is armed again by its own new rule.
    pub fn review(&self, now: Mono, covers: impl Fn(&Path) -> bool) {
        self.map.retain(|key, temp| {
            temp.review(now);
            covers(&key.path())
        });
        self.wake();
    }

    /// Makes the timer thread look at the whole map again.
    pub fn wake(&self) {
        self.stale.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn notify(&self) {
        // A full bell has been rung already.
        let _ = self.waker.try_send(());
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// None is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The shortest grace of any rule.
    #[must_use]
    pub fn shortest_grace(&self) -> Duration {
        Duration::from_nanos(self.shortest_grace.load(Ordering::Relaxed))
    }

    /// From now on this is the shortest grace of any rule.
    pub fn set_shortest_grace(&self, shortest_grace: Duration) {
        let nanos = u64::try_from(shortest_grace.as_nanos()).unwrap_or(u64::MAX);
        self.shortest_grace.store(nanos, Ordering::Relaxed);
    }

    /// When a temp was last seen being created.
    #[must_use]
    pub fn last_created(&self) -> Option<Mono> {
        let created = self.last_created.load(Ordering::Relaxed);
        (created > 0).then_some(Mono(created))
    }

    /// Whether the bell was rung because the whole map is to be looked at again.
    #[must_use]
    pub fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::SeqCst)
    }

    /// When the first temp was created since the last [`Temps::due_before`], if one was.
    #[must_use]
    pub fn first_created(&self) -> Option<Mono> {
        let first = self.first_created.load(Ordering::SeqCst);
        (first > 0).then_some(Mono(first))
    }

    /// Before the timer thread sleeps for long: the next creation rings the bell. `false`: something
    /// has come meanwhile.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let is_calm = self.first_created().is_none();
        if !is_calm {
            self.asleep.store(false, Ordering::SeqCst);
        }
        is_calm
    }

    /// Temps due before `horizon`, the nearest `max_tracked` of them, and from when on there may be others.
    /// What lies in a folder that is `in_hand` is left out.
    #[must_use]
    pub fn due_before(
        &self,
        horizon: Mono,
        max: usize,
        is_skipped: impl Fn(&Folder) -> bool,
    ) -> DueTemps {
        self.first_created.store(0, Ordering::SeqCst);
        let mut due = BinaryHeap::new();
        let (mut horizon, mut next_after) = (horizon, Mono(u64::MAX));
        for temp in &self.map {
            if temp.is_reaping() || is_skipped(temp.key().folder()) {
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

    /// Takes up a temp if it is due: what is heard of its name from now on is our own doing, until
    /// [`Temps::check_in`].
    #[must_use]
    pub fn check_out(&self, key: &Key, now: Mono) -> Option<Tracked> {
        let mut temp = self.map.get_mut(key)?;
        if temp.due() > now || temp.is_reaping() {
            return None;
        }
        Some(temp.check_out())
    }

    /// Puts down what was taken up: with what is known now, or for good. If its name was given to
    /// another file meanwhile, that one's entry stands.
    pub fn check_in(&self, key: &Key, temp: Option<Tracked>) {
        match temp {
            Some(temp) => {
                if let Some(mut entry) = self.map.get_mut(key)
                    && entry.is_reaping()
                {
                    let before = std::mem::replace(&mut **entry, temp);
                    if before.is_closed() {
                        entry.close();
                    }
                    // It may have been looked at by the old rules.
                    if rule!("other-rules-reach-the-hand", before.is_reviewed()) {
                        entry.review(before.due());
                    }
                }
            }
            None => {
                self.map.remove_if(key, |_, entry| entry.is_reaping());
            }
        }
    }

    /// Gives memory back where there is room for many more than are known.
    pub fn shrink(&self) {
        let capacity = self.map.capacity();
        if capacity < SHRINK_FROM || self.len() > capacity / 4 {
            return;
        }
        self.map.shrink_to_fit();
        self.folders().shrink();
        free_memory::give_back();
    }

    /// How many wait, how many are kept and why, and when the next one is due: for people.
    #[must_use]
    pub fn pending_counts(&self) -> PendingCounts {
        self.pending_counts_by(1, |_| Some(0))
            .pop()
            .unwrap_or_default()
    }

    /// The same for each of `parts`; `part_of` says to which a folder belongs. It must not call the
    /// map.
    #[must_use]
    pub fn pending_counts_by(
        &self,
        parts: usize,
        part_of: impl Fn(&Path) -> Option<usize>,
    ) -> Vec<PendingCounts> {
        let mut all = vec![PendingCounts::default(); parts];
        for temp in &self.map {
            if let Some(counts) = part_of(temp.key().folder()).and_then(|part| all.get_mut(part)) {
                counts.count(&temp);
            }
        }
        all
    }
}

/// What [`Temps::due_before`] found.
#[derive(Debug)]
pub struct DueTemps {
    /// What is due when, in no order.
    pub due: Vec<(Mono, Key)>,
    /// All that is due before this is in it.
    pub horizon: Mono,
    /// Nothing else is due before this.
    pub next_after: Mono,
}

/// For how many temps there must be room for it to be worth giving back.
const SHRINK_FROM: usize = 10_000;

/// What the map holds, for a status line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingCounts {
    /// Temps within their grace.
    pub waiting: usize,
    /// Temps that were judged and kept.
    pub held: usize,
    /// Their bytes.
    pub held_bytes: u64,
    /// When the next waiting one is looked at.
    pub next: Option<Mono>,
    /// Why those that were kept were.
    pub reasons: BTreeMap<&'static str, usize>,
}

impl PendingCounts {
    fn count(&mut self, temp: &Tracked) {
        match temp.kept_for() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn shrinking_keeps_the_remaining_temps() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let path = |n: usize| PathBuf::from(format!("/r/{}/{n}.tmp", n % 100));
        for n in 0..30_000 {
            temps.created(&path(n), Mono(1));
        }
        let capacity = temps.map.capacity();
        temps.shrink();
        assert_eq!(temps.map.capacity(), capacity, "it is needed");
        for n in 10..30_000 {
            assert!(temps.removed(&path(n)));
        }
        temps.shrink();
        assert!(temps.map.capacity() < SHRINK_FROM);
        for n in 0..10 {
            assert!(temps.removed(&path(n)), "{n}");
        }
        assert!(temps.is_empty());
    }

    #[test]
    fn a_put_back_temp_is_still_ignored() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let (path, late) = (Path::new("/r/a.tmp"), Mono(u64::MAX / 2));
        assert!(temps.expect_put_back(path, Mono(1)));
        let key = temps.key(path);
        assert!(temps.renamed_here(path, Mono(2)));
        assert!(temps.check_out(&key, late).is_none(), "it is left alone");
        assert!(temps.renamed_here(path, Mono(3)));
        let is_due = temps.check_out(&key, late).is_some();
        assert!(is_due, "it is somebody else's by now");
    }

    #[test]
    fn no_temps_are_tracked_beyond_the_limit() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), 1);
        let (one, other) = (Path::new("/r/a.tmp"), Path::new("/r/b.tmp"));
        assert!(temps.created(one, Mono(1)));
        temps.created(other, Mono(2));
        assert!(!temps.knows(other) && temps.has_rejected());
        assert!(temps.created(one, Mono(3)), "what is known is replaced");
    }

    #[test]
    fn cancelling_a_put_back_keeps_a_new_temp() {
        let path = Path::new("/r/a.tmp");
        for made in [false, true] {
            let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
            assert!(temps.expect_put_back(path, Mono(1)));
            if made {
                temps.created(path, Mono(2));
            }
            temps.cancel_put_back(path);
            assert_eq!(temps.knows(path), made);
        }
    }

    /// The event of the claim may come when the hand has put it down already.
    #[test]
    fn a_temp_with_a_pending_claim_is_not_forgotten() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
        let (path, late) = (Path::new("/r/a.tmp"), Mono(u64::MAX / 2));
        temps.created(path, Mono(1));
        let key = temps.key(path);
        let mut taken = temps.check_out(&key, late).expect("it is due");
        assert!(!temps.removed(path), "it is in a hand");
        taken.set_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(!temps.removed(path), "it is looked for again");
        // Whoever takes its name meanwhile, and gives it up.
        temps.created(path, Mono(2));
        assert!(!temps.removed(path), "it is looked for again");
        let mut taken = temps.check_out(&key, late).expect("it is due");
        taken.clear_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(temps.removed(path));
    }

    /// What a hand has taken up may be looked at there by the old rules.
    #[test]
    fn new_rules_reach_a_checked_out_temp() {
        for is_checked_out in [false, true] {
            let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), MAX_TRACKED);
            let path = PathBuf::from("/r/a.tmp");
            let (now, late) = (Mono(1_000), Mono(u64::MAX / 2));
            temps.found(&path, now, Origin::Found);
            let key = temps.key(&path);
            let taken = temps.check_out(&key, now).expect("it is due");
            if is_checked_out {
                temps.review(now, |_| true);
            }
            let mut taken = taken.check_in();
            taken.keep(
                crate::decide::judge::Reason::Young,
                Duration::from_secs(9),
                now,
            );
            temps.check_in(&key, Some(taken));
            let taken = temps.check_out(&key, late).expect("it was put down");
            assert_eq!(taken.is_reviewed(), is_checked_out);
            assert_eq!(taken.due() <= now, is_checked_out, "at once");
            temps.check_in(&key, Some(taken.check_in()));
            let again = temps.check_out(&key, late).expect("it was put down");
            assert_eq!(again.is_reviewed(), is_checked_out, "nobody has looked");
        }
    }
}
