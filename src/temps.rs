//! The concurrent map of all temps that are known.
//!
//! The watcher's callback, the scanners and the timer thread meet in it. No guard of the map lives
//! across another call to the map, a system call, a log line or a send that may block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::decide::time::Mono;
use crate::decide::tracker::{Origin, Tracked};

/// The map, and the bell that wakes the timer thread.
#[derive(Debug)]
pub struct Temps {
    map: DashMap<PathBuf, Tracked>,
    /// The timer thread sleeps without a limit, because the map was empty.
    asleep: AtomicBool,
    bell: Sender<()>,
    /// The shortest grace of any rule, nanoseconds.
    shortest: AtomicU64,
    /// When a temp was last created, nanoseconds of the monotonic clock; 0: none yet.
    heard: AtomicU64,
}

impl Temps {
    /// An empty map, and what the timer thread is woken by.
    #[must_use]
    pub fn new(shortest: Duration) -> (Temps, Receiver<()>) {
        let (bell, rung) = bounded(1);
        let temps = Temps {
            map: DashMap::new(),
            asleep: AtomicBool::new(false),
            bell,
            shortest: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        };
        temps.set_shortest(shortest);
        (temps, rung)
    }

    /// A temp was created, or renamed to this name. Whatever was known under it is another file's.
    pub fn created(&self, path: PathBuf, now: Mono) {
        self.map
            .insert(path, Tracked::created(now, self.shortest()));
        self.heard.store(now.0, Ordering::Relaxed);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// A temp's name is there, and it may have been for long. What is known of it stands.
    pub fn appeared(&self, path: PathBuf, now: Mono) {
        if !self.map.contains_key(&path) {
            self.created(path, now);
        }
    }

    /// The name is gone: renamed away or removed. Says whether it was known. One that is being
    /// disposed of stays: that is our own doing.
    pub fn gone(&self, path: &Path) -> bool {
        self.map
            .remove_if(path, |_, temp| !temp.is_reaping())
            .is_some()
    }

    /// A writer closed it.
    pub fn closed(&self, path: &Path) {
        if let Some(mut temp) = self.map.get_mut(path) {
            temp.close();
        }
    }

    /// A scan found it. What an event has said of it already stands. Says whether it is news.
    pub fn found(&self, path: PathBuf, now: Mono, origin: Origin) -> bool {
        match self.map.entry(path) {
            Entry::Vacant(vacant) => {
                vacant.insert(Tracked::found(now, origin));
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// A scan found it, and it is to be left alone.
    pub fn leave(&self, path: PathBuf, now: Mono) {
        if let Entry::Vacant(vacant) = self.map.entry(path) {
            vacant.insert(Tracked::left_alone(now));
        }
    }

    /// Forgets everything in `dir` and below it, but what is to be left alone.
    pub fn forget_below(&self, dir: &Path) {
        self.map
            .retain(|path, temp| temp.is_left_alone() || !path.starts_with(dir));
    }

    /// New rules are in force: forgets what none of them covers, and makes all the rest due at once.
    /// A look that comes early is dull: each temp is armed again by its own new rule.
    pub fn review(&self, now: Mono, covers: impl Fn(&Path) -> bool) {
        self.map.retain(|path, temp| {
            temp.review(now);
            covers(path)
        });
        self.wake();
    }

    /// Makes the timer thread look at the whole map again.
    pub fn wake(&self) {
        // A full bell has been rung already.
        let _ = self.bell.try_send(());
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
    pub fn last_heard(&self) -> Option<Mono> {
        let heard = self.heard.load(Ordering::Relaxed);
        (heard > 0).then_some(Mono(heard))
    }

    /// Before the timer thread sleeps without a limit. `false`: something has come meanwhile.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let empty = self.map.is_empty();
        if !empty {
            self.asleep.store(false, Ordering::SeqCst);
        }
        empty
    }

    /// All temps due before `horizon`, with their moments.
    #[must_use]
    pub fn due_before(&self, horizon: Mono) -> Vec<(Mono, PathBuf)> {
        let early = self
            .map
            .iter()
            .filter(|temp| temp.due() < horizon && !temp.is_reaping());
        early.map(|temp| (temp.due(), temp.key().clone())).collect()
    }

    /// Takes up `path` if it is due: what is heard of its name from now on is our own doing, until
    /// [`Temps::put_down`].
    #[must_use]
    pub fn take_up(&self, path: &Path, now: Mono) -> Option<Tracked> {
        let mut temp = self.map.get_mut(path)?;
        if temp.due() > now || temp.is_reaping() {
            return None;
        }
        temp.start_reaping();
        Some(temp.clone())
    }

    /// Puts down what was taken up: with what is known now, or for good. If its name was given to
    /// another file meanwhile, that one's entry stands.
    pub fn put_down(&self, path: &Path, temp: Option<Tracked>) {
        match temp {
            Some(temp) => {
                if let Some(mut entry) = self.map.get_mut(path)
                    && entry.is_reaping()
                {
                    let closed = entry.is_closed();
                    *entry = temp;
                    if closed {
                        entry.close();
                    }
                }
            }
            None => {
                self.map.remove_if(path, |_, entry| entry.is_reaping());
            }
        }
    }

    /// Gives memory back after many have gone.
    pub fn shrink(&self) {
        self.map.shrink_to_fit();
    }

    /// How many wait, how many are kept and why, and when the next one is due: for people.
    #[must_use]
    pub fn census(&self) -> Waiting {
        self.census_by(1, |_| Some(0)).pop().unwrap_or_default()
    }

    /// The same for each of `parts`; `part_of` says to which a path belongs. It must not call the
    /// map.
    #[must_use]
    pub fn census_by(
        &self,
        parts: usize,
        part_of: impl Fn(&Path) -> Option<usize>,
    ) -> Vec<Waiting> {
        let mut all = vec![Waiting::default(); parts];
        for temp in &self.map {
            if let Some(waiting) = part_of(temp.key()).and_then(|part| all.get_mut(part)) {
                waiting.count(&temp);
            }
        }
        all
    }
}

/// What the map holds, for a status line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
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

impl Waiting {
    fn count(&mut self, temp: &Tracked) {
        match temp.kept_for() {
            Some(reason) => {
                self.held += 1;
                let bytes = temp.bytes().unwrap_or(0);
                self.held_bytes = self.held_bytes.saturating_add(bytes);
                *self.reasons.entry(reason.as_str()).or_default() += 1;
            }
            None if temp.is_left_alone() => {}
            None => {
                self.waiting += 1;
                let due = temp.due();
                self.next = Some(self.next.map_or(due, |next: Mono| next.min(due)));
            }
        }
    }
}
