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

pub(crate) use key::Cut;
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
    shortest: AtomicU64,
    /// When a temp was last created, nanoseconds of the monotonic clock; 0: none yet.
    last_created: AtomicU64,
    /// When the first temp was created since the last [`Temps::due_before`]; 0: none was.
    first_created: AtomicU64,
    /// No more than about this many are kept.
    most: usize,
    /// How many were put in since the beginning.
    put_in: AtomicUsize,
    /// There are so many.
    is_full: AtomicBool,
    /// Some were turned away because of that.
    has_rejected: AtomicBool,
}

/// How many temps are kept track of, unless the builder says otherwise: 2 million take half a
/// gigabyte.
pub const MOST: usize = 2_000_000;

impl Temps {
    /// An empty map that keeps no more than about `most`, and what the timer thread is woken by.
    #[must_use]
    pub fn new(shortest: Duration, most: usize) -> (Temps, Receiver<()>) {
        let (waker, wake_rx) = bounded(1);
        let temps = Temps {
            map: DashMap::new(),
            folders: Mutex::default(),
            asleep: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            waker,
            shortest: AtomicU64::new(0),
            last_created: AtomicU64::new(0),
            first_created: AtomicU64::new(0),
            most,
            put_in: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            has_rejected: AtomicBool::new(false),
        };
        temps.set_shortest(shortest);
        (temps, wake_rx)
    }

    /// A temp was created, or renamed to this name. Whatever was known under it is another file's.
    /// `false`: there is no room for it, and none was turned away before.
    pub fn created(&self, path: &Path, now: Mono) -> bool {
        // What was known of this very name is replaced all the same.
        if self.is_full() && rule!("no-more-temps-than-room", !self.knows(path)) {
            return self.has_rejected.swap(true, Ordering::SeqCst);
        }
        let temp = Tracked::created(now, self.shortest());
        let before = self.map.insert(self.key(path), Box::new(temp));
        // Whoever took the name of a claim lets go of it too, some time.
        // RACE: that may be heard of before the mark is set; worst case: the claim is forgotten with it, until
        // the next scan of everything.
        if before.is_some_and(|before| rule!("claim-outlives-its-name", before.is_claim_pending()))
            && let Some(mut temp) = self.map.get_mut(&Cut::new(path) as &dyn KeyParts)
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
        let known = self.map.get_mut(&Cut::new(path) as &dyn KeyParts);
        let is_ours = known.is_some_and(|mut temp| temp.take_put_back());
        rule!("given-back-is-not-new", is_ours) || self.created(path, now)
    }

    /// The name that is known at `path` is the target of another temp.
    pub fn mark_target(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&Cut::new(path) as &dyn KeyParts) {
            temp.mark_target();
        }
    }

    /// Asked before each that is put in. To count them takes a look at all parts of the map, so it is
    /// done now and then.
    fn is_full(&self) -> bool {
        let put_in = self.put_in.fetch_add(1, Ordering::Relaxed);
        if put_in.is_multiple_of((self.most / 64).max(1)) {
            let is_full = self.map.len() >= self.most;
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
        let has_room = self.len() <= self.most - self.most / 4;
        if has_room {
            self.is_full.store(false, Ordering::Relaxed);
        }
        has_room && self.has_rejected.swap(false, Ordering::SeqCst)
    }

    fn key(&self, path: &Path) -> Key {
        let cut = Cut::new(path);
        let folder = self.folders().get(cut.folder());
        Key::new(folder, cut.name())
    }

    fn folders(&self) -> MutexGuard<'_, FolderSet> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything under this name.
    #[must_use]
    pub fn knows(&self, path: &Path) -> bool {
        self.map.contains_key(&Cut::new(path) as &dyn KeyParts)
    }

    /// A temp's name is there, and it may have been for long. What is known of it stands.
    /// `false` as from [`Temps::created`].
    pub fn appeared(&self, path: &Path, now: Mono) -> bool {
        self.knows(path) || self.created(path, now)
    }

    /// The name is gone: renamed away or removed. Says whether it was known. One that is being
    /// disposed of stays, or that could not be: that is our own doing.
    pub fn gone(&self, path: &Path) -> bool {
        let is_ours = |temp: &Tracked| {
            let is_ours = temp.is_ours_to_name();
            rule!("nameless-is-not-gone", is_ours, without: temp.is_reaping())
        };
        self.map
            .remove_if(&Cut::new(path) as &dyn KeyParts, |_, temp| !is_ours(temp))
            .is_some()
    }

    /// A writer closed it.
    pub fn closed(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(&Cut::new(path) as &dyn KeyParts) {
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
        if let Some(mut temp) = self.map.get_mut(&Cut::new(path) as &dyn KeyParts) {
            temp.set_claim_pending();
        }
    }

    /// The claim has not got this name back: what was to be left alone is forgotten, and what somebody has
    /// made here meanwhile is not.
    pub fn cancel_put_back(&self, path: &Path) {
        let is_awaited = |temp: &mut Box<Tracked>| {
            let is_it = temp.take_put_back();
            rule!("only-the-awaited-is-forgotten", is_it, without: true)
        };
        self.map
            .remove_if_mut(&Cut::new(path) as &dyn KeyParts, |_, temp| is_awaited(temp));
    }

    /// Forgets everything in `dir` and in those folders below it that `is_its`, but what is to be left alone.
    pub fn forget_below(&self, dir: &Path, is_its: impl Fn(&Path) -> bool) {
        let itself: &dyn KeyParts = &Cut::new(dir);
        self.map.retain(|key, temp| {
            let (folder, key_parts): (&Path, &dyn KeyParts) = (key.folder(), key);
            let goes = (folder.starts_with(dir) && is_its(folder)) || key_parts == itself;
            temp.is_ignored() || !goes
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
    pub fn shortest(&self) -> Duration {
        Duration::from_nanos(self.shortest.load(Ordering::Relaxed))
    }

    /// From now on this is the shortest grace of any rule.
    pub fn set_shortest(&self, shortest: Duration) {
        let nanos = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
        self.shortest.store(nanos, Ordering::Relaxed);
    }

    /// When a temp was last seen being created.
    #[must_use]
    pub fn last_created(&self) -> Option<Mono> {
        let heard = self.last_created.load(Ordering::Relaxed);
        (heard > 0).then_some(Mono(heard))
    }

    /// Whether the bell was rung because the whole map is to be looked at again.
    #[must_use]
    pub fn is_stale(&self) -> bool {
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
        let calm = self.first_created().is_none();
        if !calm {
            self.asleep.store(false, Ordering::SeqCst);
        }
        calm
    }

    /// Temps due before `horizon`, the nearest `most` of them, and from when on there may be others.
    /// What lies in a folder that is `in_hand` is left out.
    #[must_use]
    pub fn due_before(
        &self,
        horizon: Mono,
        most: usize,
        in_hand: impl Fn(&Folder) -> bool,
    ) -> Nearest {
        self.first_created.store(0, Ordering::SeqCst);
        let mut due = BinaryHeap::new();
        let (mut horizon, mut later) = (horizon, Mono(u64::MAX));
        for temp in &self.map {
            if temp.is_reaping() || in_hand(temp.key().folder()) {
                continue;
            }
            if temp.due() >= horizon {
                later = later.min(temp.due());
                continue;
            }
            due.push((temp.due(), temp.key().clone()));
            if due.len() > most
                && let Some((last, _)) = due.pop()
            {
                horizon = last;
                later = last;
            }
        }
        Nearest {
            due: due.into_vec(),
            horizon,
            next_after: later,
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
        let room = self.map.capacity();
        if room < WORTH_IT || self.len() > room / 4 {
            return;
        }
        self.map.shrink_to_fit();
        self.folders().shrink();
        free_memory::trim();
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
            if let Some(waiting) = part_of(temp.key().folder()).and_then(|part| all.get_mut(part)) {
                waiting.count(&temp);
            }
        }
        all
    }
}

/// What [`Temps::due_before`] found.
#[derive(Debug)]
pub struct Nearest {
    /// What is due when, in no order.
    pub due: Vec<(Mono, Key)>,
    /// All that is due before this is in it.
    pub horizon: Mono,
    /// Nothing else is due before this.
    pub next_after: Mono,
}

/// For how many temps there must be room for it to be worth giving back.
const WORTH_IT: usize = 10_000;

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
    fn what_is_left_after_a_storm_is_still_known() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), MOST);
        let path = |n: usize| PathBuf::from(format!("/r/{}/{n}.tmp", n % 100));
        for n in 0..30_000 {
            temps.created(&path(n), Mono(1));
        }
        let room = temps.map.capacity();
        temps.shrink();
        assert_eq!(temps.map.capacity(), room, "it is needed");
        for n in 10..30_000 {
            assert!(temps.gone(&path(n)));
        }
        temps.shrink();
        assert!(temps.map.capacity() < WORTH_IT);
        for n in 0..10 {
            assert!(temps.gone(&path(n)), "{n}");
        }
        assert!(temps.is_empty());
    }

    #[test]
    fn what_we_give_back_stays_left_alone() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), MOST);
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
    fn no_more_are_known_than_there_is_room_for() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), 1);
        let (one, other) = (Path::new("/r/a.tmp"), Path::new("/r/b.tmp"));
        assert!(temps.created(one, Mono(1)));
        temps.created(other, Mono(2));
        assert!(!temps.knows(other) && temps.has_rejected());
        assert!(temps.created(one, Mono(3)), "what is known is replaced");
    }

    #[test]
    fn what_somebody_makes_is_not_what_was_to_return() {
        let path = Path::new("/r/a.tmp");
        for made in [false, true] {
            let (temps, _bell) = Temps::new(Duration::from_secs(1), MOST);
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
    fn what_could_not_get_its_name_back_is_not_gone() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), MOST);
        let (path, late) = (Path::new("/r/a.tmp"), Mono(u64::MAX / 2));
        temps.created(path, Mono(1));
        let key = temps.key(path);
        let mut taken = temps.check_out(&key, late).expect("it is due");
        assert!(!temps.gone(path), "it is in a hand");
        taken.set_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(!temps.gone(path), "it is looked for again");
        // Whoever takes its name meanwhile, and gives it up.
        temps.created(path, Mono(2));
        assert!(!temps.gone(path), "it is looked for again");
        let mut taken = temps.check_out(&key, late).expect("it is due");
        taken.clear_claim_pending();
        temps.check_in(&key, Some(taken.check_in()));
        assert!(temps.gone(path));
    }

    /// What a hand has taken up may be looked at there by the old rules.
    #[test]
    fn other_rules_reach_what_is_in_a_hand() {
        for in_hand in [false, true] {
            let (temps, _bell) = Temps::new(Duration::from_secs(1), MOST);
            let path = PathBuf::from("/r/a.tmp");
            let (now, late) = (Mono(1_000), Mono(u64::MAX / 2));
            temps.found(&path, now, Origin::Found);
            let key = temps.key(&path);
            let taken = temps.check_out(&key, now).expect("it is due");
            if in_hand {
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
            assert_eq!(taken.is_reviewed(), in_hand);
            assert_eq!(taken.due() <= now, in_hand, "at once");
            temps.check_in(&key, Some(taken.check_in()));
            let again = temps.check_out(&key, late).expect("it was put down");
            assert_eq!(again.is_reviewed(), in_hand, "nobody has looked");
        }
    }
}
