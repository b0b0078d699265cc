//! The keeper: attaches roots, and attaches them again when that is needed.
//!
//! To attach is to watch first and scan second: what is created in between is heard of twice, which
//! is dull, instead of never. The same door serves the start, lost events, roots that return,
//! directories that appear, and the hourly look at everything.
//!
//! - [`alarm`]: what it does by itself, and when
//! - [`post`]: one root, as it stands
//! - [`attach`]: roots that come, go and change
//! - [`hot`]: directories that are scanned because they are written too fast to be watched
//! - [`scan`]: watches and tracks what is below a root

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};

use super::gentle::Gently;
use super::{Existing, Shared, Territory, Whose, guard};
use crate::clock;
use crate::decide::retention::{Trust, Wanted};
use crate::decide::time::{ClockWatch, Mono, Wall};
use crate::event::{Cause, Event, RootState};
use crate::evidence::Asker;
use crate::look::{Dir, answer};
use crate::reap::quarantine::{self, Keeping, Room};
use crate::root::Root;
use crate::state::RootLock;
use crate::watch::debounce::Calmer;
use crate::watch::{Inlet, Kernel, Rare, mounts};
use alarm::Alarm;
use post::{Post, Tending};

mod alarm;
mod attach;
mod hot;
mod post;
mod scan;

/// What the keeper is told by the other threads.
#[derive(Debug)]
pub(super) enum Word {
    /// Something was moved to a quarantine.
    Quarantined,
    /// Other rules are to hold.
    Territory(Territory),
    /// Somebody wants to know whether this thread comes round.
    Round,
    /// End.
    Stop,
}

/// Returns how far a rule reaches below its root.
fn reach(root: Option<&Root>) -> Option<(bool, String)> {
    let policy = &root?.policy;
    Some((policy.recursive, policy.exclude.to_string()))
}

/// How often it is seen whether there is room again for temps that were turned away.
const CROWDED: Duration = Duration::from_secs(1);

/// The interval at which the free space beside a quarantine with files is checked. For lack of space only files are
/// dropped that were moved more than an hour ago.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(5 * 60);

/// The most hints that are taken in at a time: a stop is heard in between.
const MOST_HINTS: usize = 4_096;

struct Keeper {
    shared: Arc<Shared>,
    /// The rules in force. Only this thread changes them.
    territory: Arc<Territory>,
    kernel: Kernel,
    posts: Vec<Post>,
    calmer: Calmer,
    /// Claims left by a crash are put in order under this thread's leases.
    asker: Asker,
    alarm: Alarm,
    /// There was no room for some temps; when it is seen whether there is now.
    crowded: Option<Instant>,
    /// A scan could not read all, for want of descriptors or memory.
    starved: bool,
    /// No watch is to be trusted: all are set anew before the next scan of everything.
    distrust: bool,
    clocks: ClockWatch,
    /// When the watch began, by the monotonic clock.
    began: Mono,
    /// The same by the dates of files.
    boundary: Wall,
    /// What was there before that has been found. A root that is listed later was there while this one
    /// ran, and may have been listed before.
    has_begun: bool,
}

pub(super) fn run(
    shared: Arc<Shared>,
    inlet: Inlet,
    locks: Vec<Option<RootLock>>,
    timer: JoinHandle<()>,
    rare: &Receiver<Rare>,
    words: &Receiver<Word>,
) {
    let (calm, calmed) = unbounded();
    let _guard = Guard(Arc::clone(&shared));
    let now = clock::now();
    // Who takes all has nothing to tell apart, and waits for no tick.
    let boundary = match shared.existing {
        Existing::Take => now.wall,
        Existing::Leave | Existing::Wait => clock::boundary(),
    };
    let mut clocks = ClockWatch::default();
    clocks.read(now);
    let mounted = inlet.rare.clone();
    // Before anything is looked at. It ends with this function.
    let _mounts = mounts::listen(Box::new(move |places| {
        let _ = mounted.send(Rare::Mounts(places));
    }));
    let mut keeper = Keeper {
        kernel: Kernel::new(inlet),
        posts: locks.into_iter().map(Post::new).collect(),
        calmer: Calmer::new(calm),
        asker: Asker::new(),
        alarm: Alarm::default(),
        crowded: None,
        starved: false,
        distrust: false,
        clocks,
        began: now.mono,
        boundary,
        has_begun: false,
        territory: shared.territory(),
        shared,
    };
    keeper.start();
    keeper.listen(rare, words, &calmed);
    keeper.end(timer);
}

/// A keeper that panics ends the watcher: nobody would attach a root again.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a mistake in orphand has ended its keeper thread; the watch ends with it");
            self.0
                .stopping
                .store(true, std::sync::atomic::Ordering::SeqCst);
            guard(&self.0.ledger).total.failed += 1;
            self.0.temps.wake();
            *guard(&self.0.events) = None;
        }
    }
}

impl Keeper {
    fn start(&mut self) {
        self.ask_all();
        for index in 0..self.posts.len() {
            self.attach(index, Cause::Startup);
        }
        self.has_begun = true;
        self.tend_quarantines();
        self.shared.tell(Event::Ready {
            roots: self
                .territory
                .roots
                .iter()
                .map(|root| root.path.clone())
                .collect(),
            tracked: self.shared.temps.len(),
        });
        self.alarm.periodic_in(Instant::now(), self.shared.rescan);
    }

    fn listen(
        &mut self,
        rare: &Receiver<Rare>,
        words: &Receiver<Word>,
        calmed: &Receiver<Vec<PathBuf>>,
    ) {
        while !self.shared.is_stopping() {
            self.shared.round(Whose::Keeper);
            // Also where there is always something to hear.
            if self.next_alarm().is_some_and(|at| at <= Instant::now()) {
                self.on_alarm();
            }
            // What a scan has left out the next one finds, after a wait that grows. This comes last before the wait: a
            // scan of the alarm above may have left something out too.
            if std::mem::take(&mut self.starved) {
                self.lost();
            }
            let mut select = Select::new();
            let word = select.recv(words);
            let hint = select.recv(rare);
            let calm = select.recv(calmed);
            let ready = match self.next_alarm() {
                Some(at) => select.ready_deadline(at).ok(),
                None => Some(select.ready()),
            };
            match ready {
                None => self.on_alarm(),
                Some(i) if i == word => match words.try_recv() {
                    Ok(Word::Quarantined) => self.expect_files(),
                    Ok(Word::Territory(territory)) => self.reload(territory),
                    Ok(Word::Stop) => return,
                    Ok(Word::Round) | Err(_) => {}
                },
                Some(i) if i == hint => self.on_hints(rare),
                Some(i) if i == calm => {
                    let paths: BTreeSet<PathBuf> = calmed.try_iter().flatten().collect();
                    paths.iter().for_each(|path| self.restructure(path));
                }
                Some(_) => {}
            }
        }
    }

    /// Takes in all hints that are there: a storm of them is answered once.
    fn on_hints(&mut self, rare: &Receiver<Rare>) {
        let mut check = false;
        let (mut mounted, mut hot) = (BTreeSet::new(), BTreeSet::new());
        for hint in rare.try_iter().take(MOST_HINTS) {
            match hint {
                Rare::Structure(path) | Rare::SelfGone(path) => {
                    check |= self
                        .territory
                        .roots
                        .iter()
                        .any(|root| root.path.starts_with(&path));
                    self.doubt(&path);
                    self.calmer.feed(path);
                }
                Rare::Parent(path) => {
                    self.kernel.doubt_parents(path.as_deref());
                    check = true;
                }
                Rare::Shut => check = true,
                Rare::Mounts(places) => mounted.extend(places),
                Rare::Hot(dir) => _ = hot.insert(dir),
                Rare::Full => self.crowd(),
                Rare::Lost => self.lost(),
                Rare::Error(error) => {
                    log::warn!("watching: {error}; all watches are set anew");
                    self.distrust = true;
                    self.lost();
                }
                Rare::Outrun(generation) if generation == self.kernel.generation() => {
                    log::warn!(
                        "writers are faster than their events are read: all watches are set anew"
                    );
                    self.distrust = true;
                    self.lost();
                }
                Rare::Outrun(_) => {}
                Rare::Dead(generation) if generation == self.kernel.generation() => {
                    if self.shared.is_stopping() {
                        return;
                    }
                    if !self.distrust {
                        log::error!(
                            "the thread that hears the kernel's events has ended; it is started anew"
                        );
                    }
                    self.distrust = true;
                    self.lost();
                }
                Rare::Dead(_) => {}
            }
        }
        if check || !mounted.is_empty() {
            for index in 0..self.posts.len() {
                self.check(index);
            }
        }
        for place in mounted {
            self.remounted(&place);
        }
        for dir in hot {
            self.heat_up(&dir);
        }
    }

    /// The watch on `path` may be dead with the directory that it was on, even where the next one
    /// there looks the same: it is set anew when that is attached.
    fn doubt(&mut self, path: &Path) {
        for post in &mut self.posts {
            if post.watched.remove(path).is_some() {
                self.kernel.unwatch(path);
            }
        }
    }

    /// Events were lost: everything is to be scanned.
    fn lost(&mut self) {
        self.alarm.lost(Instant::now());
    }

    /// Whether nothing was lost or turned away that no scan has made good yet.
    fn has_heard_all(&self) -> bool {
        self.alarm.has_heard_all() && !self.shared.temps.has_turned_away()
    }

    /// Some temps were turned away because too many are known: once there is room, all is scanned.
    fn crowd(&mut self) {
        if self.crowded.is_none() {
            log::warn!(
                "{} temps are known, and for more there is no room: those are found by a scan when these \
                 are fewer",
                self.shared.temps.len()
            );
            self.crowded = Some(Instant::now() + CROWDED);
        }
    }

    fn tend_crowd(&mut self, now: Instant) {
        if self.crowded.is_none_or(|at| now < at) {
            return;
        }
        self.crowded = Some(now + CROWDED);
        if self.shared.temps.has_room_again() {
            self.crowded = None;
            self.lost();
        }
    }

    fn next_alarm(&self) -> Option<Instant> {
        let hot = self.posts.iter().filter_map(Post::next_hot).min();
        let tending = self.posts.iter().filter_map(|post| post.tending);
        let tending = tending.map(|tending| tending.next()).min();
        let times = [
            self.alarm.next(),
            self.calmer.rests_at(),
            hot,
            self.crowded,
            tending,
        ];
        times.into_iter().flatten().min()
    }

    fn on_alarm(&mut self) {
        let now = Instant::now();
        self.calmer.rest();
        self.tend_crowd(now);
        if self.alarm.is_lost(now) {
            if std::mem::take(&mut self.distrust) {
                self.kernel.clear();
                // What is hot stays so: its watch is what was too much.
                let posts = self.posts.iter_mut();
                posts.for_each(|post| post.watched.retain(|_, watched| watched.heat.is_hot()));
            }
            self.rescan_all(Cause::Overflow);
            self.alarm.recovered(now, Instant::now());
        }
        if self.alarm.is_periodic(now) {
            {
                let _gently = Gently::begin();
                self.rescan_all(Cause::Periodic);
            }
            self.hear_silence();
            self.tend_quarantines();
            self.alarm.periodic_in(Instant::now(), self.shared.rescan);
        }
        if self.alarm.is_polling(now) {
            for index in 0..self.posts.len() {
                self.visit(index);
            }
        }
        for index in 0..self.posts.len() {
            self.tend_hot(index);
            self.tend_in_time(index, now);
        }
    }

    /// Puts other rules in force: the roots that both have keep their locks, and what is known of
    /// their temps. All watches are set anew, because each hears names by all rules.
    fn reload(&mut self, territory: Territory) {
        let old = std::mem::replace(&mut self.territory, Arc::new(territory));
        let territory = Arc::clone(&self.territory);
        let mut posts: Vec<Option<Post>> = self.posts.drain(..).map(Some).collect();
        let mut known = Vec::new();
        for (index, root) in territory.roots.iter().enumerate() {
            let before = old.roots.iter().position(|old| old.path == root.path);
            let post = before.and_then(|before| posts.get_mut(before)?.take());
            known.push(post.is_some());
            let mut post = post.unwrap_or_else(|| Post::new(None));
            if before.is_some_and(|before| reach(old.roots.get(before)) != reach(Some(root))) {
                // Another orphand may work on what the rule reaches now.
                // RACE: another one may take the lock before it is taken again below; worst case: this root
                // waits until that one ends.
                post.lock = None;
            }
            // The timer works on it from here on. A report becomes more only where nobody else works.
            let id = before.and_then(|before| old.id(before));
            let runtime = self.shared.folders.runtime.as_deref();
            if id.is_some()
                && rule!("no-more-without-a-lock", post.may_work(root, runtime), without: true)
            {
                territory.set_id(index, id);
            }
            post.forget_watches();
            self.posts.push(post);
        }
        // The locks of roots that are listed no more end here.
        drop(posts);
        let stock = self.shared.tools.reaper.stock();
        stock.set_limits(territory.limits);
        if let Some(shortest) = territory.shortest() {
            self.shared.temps.set_shortest(shortest);
        }
        self.kernel.renew(Arc::clone(&territory.roots));
        self.shared.set_territory(Arc::clone(&territory));
        self.shared.temps.review(clock::mono(), |path| {
            path.parent()
                .is_some_and(|dir| territory.root_of(dir).is_some())
        });
        self.ask_all();
        for (index, known) in known.into_iter().enumerate() {
            self.attach(
                index,
                if known {
                    Cause::Periodic
                } else {
                    Cause::Startup
                },
            );
        }
        self.tend_quarantines();
    }

    /// Asks all roots at once whether they answer: those that do not are waited for together.
    fn ask_all(&self) {
        let roots = self.territory.roots.iter();
        let _ = answer::silent(roots.map(|root| root.path.as_path()));
    }

    fn rescan_all(&mut self, cause: Cause) {
        self.ask_all();
        for index in 0..self.posts.len() {
            self.attach(index, cause);
        }
    }

    fn state(&self, index: usize) -> Option<RootState> {
        self.posts.get(index).map(|post| post.state)
    }

    /// Says whether that is news.
    fn set_state(&mut self, index: usize, state: RootState) -> bool {
        let root = self.root(index).path;
        let Some(post) = self.posts.get_mut(index) else {
            return false;
        };
        let is_new = std::mem::replace(&mut post.state, state) != state;
        if is_new {
            self.shared.tell(Event::Root { root, state });
        }
        is_new
    }

    fn root(&self, index: usize) -> Root {
        // There is a post for each root, and both are changed together.
        #[allow(clippy::indexing_slicing)]
        self.territory.roots[index].clone()
    }

    /// Applies the limits to each quarantine.
    fn tend_quarantines(&mut self) {
        for index in 0..self.posts.len() {
            self.tend_quarantine(index);
        }
    }

    /// Schedules a look at the quarantines for the moment when a file that was moved now is too old. The space was
    /// checked before the move.
    fn expect_files(&mut self) {
        let now = Instant::now();
        let age = self.territory.limits.age;
        let due = (!age.is_zero()).then(|| now.checked_add(age)).flatten();
        for post in &mut self.posts {
            let look = now + LOOK_FOR_SPACE;
            let tending = post.tending.get_or_insert(Tending { due, look });
            tending.due = tending.due.or(due);
        }
    }

    /// Applies the limits to the quarantine of a root if a look at it is due.
    fn tend_in_time(&mut self, index: usize, now: Instant) {
        let Some(tending) = self.posts.get(index).and_then(|post| post.tending) else {
            return;
        };
        if tending.next() > now {
            return;
        }
        let is_due = tending.due.is_some_and(|due| due <= now);
        let (path, id) = (self.root(index).path, self.territory.id(index));
        let lacks_space = || {
            let dir = Dir::open_root(&path, id);
            dir.is_ok_and(|dir| quarantine::lacks_space(&dir, self.territory.limits))
        };
        if is_due || lacks_space() {
            return self.tend_quarantine(index);
        }
        let is_there = matches!(Room::find(&path, id), Ok(Some(_)));
        if let Some(post) = self.posts.get_mut(index) {
            let look = now + LOOK_FOR_SPACE;
            post.tending = is_there.then_some(Tending { look, ..tending });
        }
    }

    fn tend_quarantine(&mut self, index: usize) {
        let now = clock::now();
        let parted = self.clocks.read(now);
        let trust = Trust {
            running: now.mono.since(self.began),
            since_parted: parted.map(|parted| now.mono.since(parted)),
        };
        let (root, id) = (self.root(index), self.territory.id(index));
        let mut tending = None;
        if !root.policy.is_dry_run() && id.is_some() {
            let keeping = Keeping {
                stock: self.shared.tools.reaper.stock(),
                journal: &self.shared.tools.journal,
                asker: &self.asker,
                trust,
                wanted: Wanted::default(),
            };
            let tended = quarantine::tend(&root, id, keeping);
            tended
                .events
                .into_iter()
                .for_each(|event| self.shared.tell(event));
            let now = Instant::now();
            let next = match tended.has_more {
                true => Some(Duration::ZERO),
                false => tended.next,
            };
            tending = tended.holds_files.then(|| Tending {
                due: next.and_then(|next| now.checked_add(next)),
                look: now + LOOK_FOR_SPACE,
            });
        }
        if let Some(post) = self.posts.get_mut(index) {
            post.tending = tending;
        }
    }

    /// The timer ends first: nothing is half done then. Then the watchers, and the last word.
    fn end(mut self, timer: JoinHandle<()>) {
        // Rung again and again: a timer that slept for good takes the first ring for a new temp.
        while !timer.is_finished() {
            self.shared.temps.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = timer.join();
        self.kernel.clear();
        self.posts.clear();
        let summary = guard(&self.shared.ledger).total;
        self.shared.tell(Event::Summary(summary));
        *guard(&self.shared.events) = None;
    }
}
