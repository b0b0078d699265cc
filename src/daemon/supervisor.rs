//! The keeper: attaches roots, and attaches them again when that is needed.
//!
//! To attach is to watch first and scan second: what is created in between is heard of twice, which
//! is dull, instead of never. The same door serves the start, lost events, roots that return,
//! directories that appear, and the hourly look at everything.
//!
//! - [`rescan_schedule`]: what it does by itself, and when
//! - [`root_watch`]: one root, as it stands
//! - [`attach`]: roots that come, go and change
//! - [`hot`]: directories that are scanned because they are written too fast to be watched
//! - [`scan`]: watches and tracks what is below a root

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};

use super::idle_io::IdleIoPriority;
use super::{ActiveRoots, CriticalThread, Existing, Shared, guard};
use crate::clock;
use crate::decide::retention::{ClockTrust, NeededSpace};
use crate::decide::time::{ClockJumpDetector, Mono, Wall};
use crate::event::{Event, RescanCause, RootState};
use crate::evidence::LeaseThread;
use crate::look::{Dir, answer};
use crate::reap::quarantine::{self, LimitContext, Quarantine};
use crate::root::Root;
use crate::state::RootLock;
use crate::watch::coalesce::Coalescer;
use crate::watch::{CallbackContext, FsWatcher, Notification, mounts};
use rescan_schedule::RescanSchedule;
use root_watch::{LimitsDue, RootWatch};

mod attach;
mod hot;
mod rescan_schedule;
mod root_watch;
mod scan;

/// What the keeper is told by the other threads.
#[derive(Debug)]
pub(super) enum Command {
    /// Something was moved to a quarantine.
    Quarantined,
    /// Other rules are to hold.
    Reload(ActiveRoots),
    /// Somebody wants to know whether this thread comes round.
    Heartbeat,
    /// End.
    Stop,
}

/// Returns how far a rule reaches below its root.
fn rule_reach(root: Option<&Root>) -> Option<(bool, String)> {
    let policy = &root?.policy;
    Some((policy.recursive, policy.exclude.to_string()))
}

/// How often it is seen whether there is room again for temps that were turned away.
const CAPACITY_CHECK: Duration = Duration::from_secs(1);

/// The interval at which the free space beside a quarantine with files is checked. For lack of space only files are
/// dropped that were moved more than an hour ago.
const LOOK_FOR_SPACE: Duration = Duration::from_secs(5 * 60);

/// The most hints that are taken in at a time: a stop is heard in between.
const MOST_HINTS: usize = 4_096;

struct Supervisor {
    shared: Arc<Shared>,
    /// The rules in force. Only this thread changes them.
    active_roots: Arc<ActiveRoots>,
    kernel: FsWatcher,
    root_watches: Vec<RootWatch>,
    coalescer: Coalescer,
    /// Claims left by a crash are put in order under this thread's leases.
    lease_thread: LeaseThread,
    schedule: RescanSchedule,
    /// There was no room for some temps; when it is seen whether there is now.
    over_limit: Option<Instant>,
    /// A scan could not read all, for want of descriptors or memory.
    scan_was_incomplete: bool,
    /// No watch is to be trusted: all are set anew before the next scan of everything.
    rebuild_watches: bool,
    clocks: ClockJumpDetector,
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
    callback_context: CallbackContext,
    locks: Vec<Option<RootLock>>,
    timer: JoinHandle<()>,
    rare: &Receiver<Notification>,
    words: &Receiver<Command>,
) {
    let (calm, calmed) = unbounded();
    let _guard = SupervisorGuard(Arc::clone(&shared));
    let now = clock::now();
    // Who takes all has nothing to tell apart, and waits for no tick.
    let boundary = match shared.existing {
        Existing::Take => now.wall,
        Existing::Leave | Existing::Wait => clock::boundary(),
    };
    let mut clocks = ClockJumpDetector::default();
    clocks.read(now);
    let mounted = callback_context.notifications.clone();
    // Before anything is looked at. It ends with this function.
    let _mounts = mounts::listen(Box::new(move |places| {
        let _ = mounted.send(Notification::Mounts(places));
    }));
    let mut supervisor = Supervisor {
        kernel: FsWatcher::new(callback_context),
        root_watches: locks.into_iter().map(RootWatch::new).collect(),
        coalescer: Coalescer::new(calm),
        lease_thread: LeaseThread::new(),
        schedule: RescanSchedule::default(),
        over_limit: None,
        scan_was_incomplete: false,
        rebuild_watches: false,
        clocks,
        began: now.mono,
        boundary,
        has_begun: false,
        active_roots: shared.active_roots(),
        shared,
    };
    supervisor.start();
    supervisor.listen(rare, words, &calmed);
    supervisor.end(timer);
}

/// A keeper that panics ends the watcher: nobody would attach a root again.
struct SupervisorGuard(Arc<Shared>);

impl Drop for SupervisorGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a mistake in orphand has ended its keeper thread; the watch ends with it");
            self.0
                .stopping
                .store(true, std::sync::atomic::Ordering::SeqCst);
            guard(&self.0.stats).total.failed += 1;
            self.0.temps.wake();
            *guard(&self.0.events) = None;
        }
    }
}

impl Supervisor {
    fn start(&mut self) {
        self.probe_all();
        for index in 0..self.root_watches.len() {
            self.attach(index, RescanCause::Startup);
        }
        self.has_begun = true;
        self.enforce_all_limits();
        self.shared.emit(Event::Ready {
            roots: self
                .active_roots
                .roots
                .iter()
                .map(|root| root.path.clone())
                .collect(),
            tracked: self.shared.temps.len(),
        });
        self.schedule
            .periodic_in(Instant::now(), self.shared.rescan);
    }

    fn listen(
        &mut self,
        rare: &Receiver<Notification>,
        words: &Receiver<Command>,
        calmed: &Receiver<Vec<PathBuf>>,
    ) {
        while !self.shared.is_stopping() {
            self.shared.beat(CriticalThread::Supervisor);
            // Also where there is always something to hear.
            if self.next_deadline().is_some_and(|at| at <= Instant::now()) {
                self.on_deadline();
            }
            // What a scan has left out the next one finds, after a wait that grows. This comes last before the wait: a
            // scan of the alarm above may have left something out too.
            if std::mem::take(&mut self.scan_was_incomplete) {
                self.note_lost_events();
            }
            let mut select = Select::new();
            let word = select.recv(words);
            let hint = select.recv(rare);
            let calm = select.recv(calmed);
            let ready = match self.next_deadline() {
                Some(at) => select.ready_deadline(at).ok(),
                None => Some(select.ready()),
            };
            match ready {
                None => self.on_deadline(),
                Some(i) if i == word => match words.try_recv() {
                    Ok(Command::Quarantined) => self.note_quarantined(),
                    Ok(Command::Reload(active_roots)) => self.reload(active_roots),
                    Ok(Command::Stop) => return,
                    Ok(Command::Heartbeat) | Err(_) => {}
                },
                Some(i) if i == hint => self.on_notifications(rare),
                Some(i) if i == calm => {
                    let paths: BTreeSet<PathBuf> = calmed.try_iter().flatten().collect();
                    paths.iter().for_each(|path| self.restructure(path));
                }
                Some(_) => {}
            }
        }
    }

    /// Takes in all hints that are there: a storm of them is answered once.
    fn on_notifications(&mut self, rare: &Receiver<Notification>) {
        let mut check = false;
        let (mut mounted, mut hot) = (BTreeSet::new(), BTreeSet::new());
        for hint in rare.try_iter().take(MOST_HINTS) {
            match hint {
                Notification::Structure(path) | Notification::SelfGone(path) => {
                    check |= self
                        .active_roots
                        .roots
                        .iter()
                        .any(|root| root.path.starts_with(&path));
                    self.drop_watch(&path);
                    self.coalescer.feed(path);
                }
                Notification::Ancestor(path) => {
                    self.kernel.distrust_ancestors(path.as_deref());
                    check = true;
                }
                Notification::PermissionsChanged => check = true,
                Notification::Mounts(places) => mounted.extend(places),
                Notification::Hot(dir) => _ = hot.insert(dir),
                Notification::LimitReached => self.note_limit_reached(),
                Notification::EventsLost => self.note_lost_events(),
                Notification::Error(error) => {
                    log::warn!("watching: {error}; all watches are set anew");
                    self.rebuild_watches = true;
                    self.note_lost_events();
                }
                Notification::Overrun(generation) if generation == self.kernel.generation() => {
                    log::warn!(
                        "writers are faster than their events are read: all watches are set anew"
                    );
                    self.rebuild_watches = true;
                    self.note_lost_events();
                }
                Notification::Overrun(_) => {}
                Notification::WatcherEnded(generation)
                    if generation == self.kernel.generation() =>
                {
                    if self.shared.is_stopping() {
                        return;
                    }
                    if !self.rebuild_watches {
                        log::error!(
                            "the thread that hears the kernel's events has ended; it is started anew"
                        );
                    }
                    self.rebuild_watches = true;
                    self.note_lost_events();
                }
                Notification::WatcherEnded(_) => {}
            }
        }
        if check || !mounted.is_empty() {
            for index in 0..self.root_watches.len() {
                self.check(index);
            }
        }
        for place in mounted {
            self.remounted(&place);
        }
        for dir in hot {
            self.enter_hot(&dir);
        }
    }

    /// The watch on `path` may be dead with the directory that it was on, even where the next one
    /// there looks the same: it is set anew when that is attached.
    fn drop_watch(&mut self, path: &Path) {
        for root_watch in &mut self.root_watches {
            if root_watch.watched.remove(path).is_some() {
                self.kernel.unwatch(path);
            }
        }
    }

    /// Events were lost: everything is to be scanned.
    fn note_lost_events(&mut self) {
        self.schedule.lost(Instant::now());
    }

    /// Whether nothing was lost or turned away that no scan has made good yet.
    fn nothing_is_missing(&self) -> bool {
        self.schedule.nothing_is_missing() && !self.shared.temps.has_rejected()
    }

    /// Some temps were turned away because too many are known: once there is room, all is scanned.
    fn note_limit_reached(&mut self) {
        if self.over_limit.is_none() {
            log::warn!(
                "{} temps are known, and for more there is no room: those are found by a scan when these \
                 are fewer",
                self.shared.temps.len()
            );
            self.over_limit = Some(Instant::now() + CAPACITY_CHECK);
        }
    }

    fn check_capacity(&mut self, now: Instant) {
        if self.over_limit.is_none_or(|at| now < at) {
            return;
        }
        self.over_limit = Some(now + CAPACITY_CHECK);
        if self.shared.temps.has_capacity_again() {
            self.over_limit = None;
            self.note_lost_events();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hot = self
            .root_watches
            .iter()
            .filter_map(RootWatch::next_hot)
            .min();
        let tending = self
            .root_watches
            .iter()
            .filter_map(|root_watch| root_watch.limits_due);
        let tending = tending.map(|tending| tending.next()).min();
        let times = [
            self.schedule.next(),
            self.coalescer.idle_at(),
            hot,
            self.over_limit,
            tending,
        ];
        times.into_iter().flatten().min()
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        self.coalescer.stop_when_idle();
        self.check_capacity(now);
        if self.schedule.is_lost(now) {
            if std::mem::take(&mut self.rebuild_watches) {
                self.kernel.clear();
                // What is hot stays so: its watch is what was too much.
                let root_watches = self.root_watches.iter_mut();
                root_watches.for_each(|root_watch| {
                    root_watch.watched.retain(|_, watched| watched.hot.is_hot())
                });
            }
            self.rescan_all(RescanCause::Overflow);
            self.schedule.recovered(now, Instant::now());
        }
        if self.schedule.is_periodic(now) {
            {
                let _gently = IdleIoPriority::begin();
                self.rescan_all(RescanCause::Periodic);
            }
            self.check_missed_events();
            self.enforce_all_limits();
            self.schedule
                .periodic_in(Instant::now(), self.shared.rescan);
        }
        if self.schedule.is_polling(now) {
            for index in 0..self.root_watches.len() {
                self.poll(index);
            }
        }
        for index in 0..self.root_watches.len() {
            self.run_hot(index);
            self.enforce_limits_when_due(index, now);
        }
    }

    /// Puts other rules in force: the roots that both have keep their locks, and what is known of
    /// their temps. All watches are set anew, because each hears names by all rules.
    fn reload(&mut self, active_roots: ActiveRoots) {
        let old = std::mem::replace(&mut self.active_roots, Arc::new(active_roots));
        let active_roots = Arc::clone(&self.active_roots);
        let mut root_watches: Vec<Option<RootWatch>> =
            self.root_watches.drain(..).map(Some).collect();
        let mut known = Vec::new();
        for (index, root) in active_roots.roots.iter().enumerate() {
            let before = old.roots.iter().position(|old| old.path == root.path);
            let root_watch = before.and_then(|before| root_watches.get_mut(before)?.take());
            known.push(root_watch.is_some());
            let mut root_watch = root_watch.unwrap_or_else(|| RootWatch::new(None));
            if before
                .is_some_and(|before| rule_reach(old.roots.get(before)) != rule_reach(Some(root)))
            {
                // Another orphand may work on what the rule reaches now.
                // RACE: another one may take the lock before it is taken again below; worst case: this root
                // waits until that one ends.
                root_watch.lock = None;
            }
            // The timer works on it from here on. A report becomes more only where nobody else works.
            let id = before.and_then(|before| old.id(before));
            let runtime = self.shared.folders.runtime.as_deref();
            if id.is_some()
                && rule!("no-more-without-a-lock", root_watch.try_lock(root, runtime), without: true)
            {
                active_roots.set_id(index, id);
            }
            root_watch.forget_watches();
            self.root_watches.push(root_watch);
        }
        // The locks of roots that are listed no more end here.
        drop(root_watches);
        let stock = self.shared.engine.reaper.usage();
        stock.set_limits(active_roots.limits);
        if let Some(shortest) = active_roots.shortest() {
            self.shared.temps.set_shortest(shortest);
        }
        self.kernel.set_roots(Arc::clone(&active_roots.roots));
        self.shared.set_active_roots(Arc::clone(&active_roots));
        self.shared.temps.review(clock::mono(), |path| {
            path.parent()
                .is_some_and(|dir| active_roots.root_of(dir).is_some())
        });
        self.probe_all();
        for (index, known) in known.into_iter().enumerate() {
            self.attach(
                index,
                if known {
                    RescanCause::Periodic
                } else {
                    RescanCause::Startup
                },
            );
        }
        self.enforce_all_limits();
    }

    /// Asks all roots at once whether they answer: those that do not are waited for together.
    fn probe_all(&self) {
        let roots = self.active_roots.roots.iter();
        let _ = answer::silent(roots.map(|root| root.path.as_path()));
    }

    fn rescan_all(&mut self, cause: RescanCause) {
        self.probe_all();
        for index in 0..self.root_watches.len() {
            self.attach(index, cause);
        }
    }

    fn state(&self, index: usize) -> Option<RootState> {
        self.root_watches
            .get(index)
            .map(|root_watch| root_watch.state)
    }

    /// Says whether that is news.
    fn set_state(&mut self, index: usize, state: RootState) -> bool {
        let root = self.root(index).path;
        let Some(root_watch) = self.root_watches.get_mut(index) else {
            return false;
        };
        let is_new = std::mem::replace(&mut root_watch.state, state) != state;
        if is_new {
            self.shared.emit(Event::Root { root, state });
        }
        is_new
    }

    fn root(&self, index: usize) -> Root {
        // There is a post for each root, and both are changed together.
        #[allow(clippy::indexing_slicing)]
        self.active_roots.roots[index].clone()
    }

    /// Applies the limits to each quarantine.
    fn enforce_all_limits(&mut self) {
        for index in 0..self.root_watches.len() {
            self.enforce_limits(index);
        }
    }

    /// Schedules a look at the quarantines for the moment when a file that was moved now is too old. The space was
    /// checked before the move.
    fn note_quarantined(&mut self) {
        let now = Instant::now();
        let age = self.active_roots.limits.age;
        let due = (!age.is_zero()).then(|| now.checked_add(age)).flatten();
        for root_watch in &mut self.root_watches {
            let look = now + LOOK_FOR_SPACE;
            let tending = root_watch.limits_due.get_or_insert(LimitsDue { due, look });
            tending.due = tending.due.or(due);
        }
    }

    /// Applies the limits to the quarantine of a root if a look at it is due.
    fn enforce_limits_when_due(&mut self, index: usize, now: Instant) {
        let Some(tending) = self
            .root_watches
            .get(index)
            .and_then(|root_watch| root_watch.limits_due)
        else {
            return;
        };
        if tending.next() > now {
            return;
        }
        let is_due = tending.due.is_some_and(|due| due <= now);
        let (path, id) = (self.root(index).path, self.active_roots.id(index));
        let lacks_space = || {
            let dir = Dir::open_root(&path, id);
            dir.is_ok_and(|dir| quarantine::lacks_space(&dir, self.active_roots.limits))
        };
        if is_due || lacks_space() {
            return self.enforce_limits(index);
        }
        let is_there = matches!(Quarantine::open_existing(&path, id), Ok(Some(_)));
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            let look = now + LOOK_FOR_SPACE;
            root_watch.limits_due = is_there.then_some(LimitsDue { look, ..tending });
        }
    }

    fn enforce_limits(&mut self, index: usize) {
        let now = clock::now();
        let last_jump = self.clocks.read(now);
        let trust = ClockTrust {
            running: now.mono.since(self.began),
            since_jump: last_jump.map(|last_jump| now.mono.since(last_jump)),
        };
        let (root, id) = (self.root(index), self.active_roots.id(index));
        let mut tending = None;
        if !root.policy.is_dry_run() && id.is_some() {
            let keeping = LimitContext {
                usage: self.shared.engine.reaper.usage(),
                journal: &self.shared.engine.journal,
                lease_thread: &self.lease_thread,
                trust,
                wanted: NeededSpace::default(),
            };
            let tended = quarantine::enforce_limits(&root, id, keeping);
            tended
                .events
                .into_iter()
                .for_each(|event| self.shared.emit(event));
            let now = Instant::now();
            let next = match tended.has_more {
                true => Some(Duration::ZERO),
                false => tended.next,
            };
            tending = tended.holds_files.then(|| LimitsDue {
                due: next.and_then(|next| now.checked_add(next)),
                look: now + LOOK_FOR_SPACE,
            });
        }
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            root_watch.limits_due = tending;
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
        self.root_watches.clear();
        let summary = guard(&self.shared.stats).total;
        self.shared.emit(Event::Summary(summary));
        *guard(&self.shared.events) = None;
    }
}
