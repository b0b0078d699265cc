//! The supervisor: attaches roots, and attaches them again when that is needed.
//!
//! To attach a root means to watch it first and scan it second. A temp that is created in between is reported twice,
//! which is harmless. In the other order it could be missed. The same code serves the start, lost events, roots that
//! return, directories that appear, and the periodic scan of everything.
//!
//! - [`rescan_schedule`]: the times of the supervisor's own actions
//! - [`root_watch`]: the state of one root
//! - [`attach`]: roots that appear, disappear and change
//! - [`hot`]: directories that are scanned instead of watched, because temps are created in them too fast
//! - [`scan`]: watches and tracks the contents of a root

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};

use super::command::Command;
use super::panic_guard::PanicGuard;
use super::{ActiveRoots, CriticalThread, Existing, Shared, guard};
use crate::core::event::{Event, RescanCause, RootState};
use crate::core::rescan_schedule::RescanSchedule;
use crate::core::retention::{ClockTrust, NeededSpace};
use crate::core::time::{ClockJumpDetector, Mono, Wall};
use crate::engine::limits::{self, LimitContext};
use crate::evidence::UseChecker;
use crate::fs::dir::Dir;
use crate::fs::response;
use crate::fs::root::Root;
use crate::reap::quarantine::{self, Quarantine};
use crate::store::lock::RootLock;
use crate::sys::clock;
use crate::sys::idle_io::IdleIoPriority;
use crate::watch::coalesce::Coalescer;
use crate::watch::{CallbackContext, FsWatcher, Notification, mounts};
use root_watch::{LimitsDue, RootWatch};

mod attach;
mod hot;
mod root_watch;
mod scan;

/// Returns the parts of a rule that determine which directories below its root it covers.
fn rule_reach(root: Option<&Root>) -> Option<(bool, String)> {
    let policy = &root?.policy;
    Some((policy.recursive, policy.exclude.to_string()))
}

/// The interval at which the supervisor checks whether temps that were rejected have room now.
const CAPACITY_CHECK: Duration = Duration::from_secs(1);

/// The interval at which the free space beside a quarantine with files is checked. For lack of space, only files
/// that were moved more than an hour ago are dropped.
const SPACE_CHECK: Duration = Duration::from_secs(5 * 60);

/// The largest number of notifications that are processed before the next check for a stop.
const MAX_NOTIFICATIONS: usize = 4_096;

struct Supervisor {
    shared: Arc<Shared>,
    /// The rules in force. Only this thread changes them.
    active_roots: Arc<ActiveRoots>,
    watcher: FsWatcher,
    root_watches: Vec<RootWatch>,
    coalescer: Coalescer,
    /// Makes the use checks of recovered claims and of dropped files.
    use_checker: UseChecker,
    schedule: RescanSchedule,
    /// The next capacity check, if temps were rejected because of the tracking limit.
    next_capacity_check: Option<Instant>,
    /// A scan could not read everything, for lack of file descriptors or memory.
    scan_was_incomplete: bool,
    /// No watch can be relied on: all are re-established before the next scan of everything.
    reestablish_watches: bool,
    clocks: ClockJumpDetector,
    /// The start of the watch, by the monotonic clock.
    started: Mono,
    /// The same by the dates of files: files with earlier dates existed before the start.
    boundary: Wall,
    /// The scans of the start are complete. A root that is added later existed while this watcher ran, and may have
    /// been watched before.
    has_started: bool,
}

pub(super) fn run(
    shared: Arc<Shared>,
    callback_context: CallbackContext,
    locks: Vec<Option<RootLock>>,
    scheduler: JoinHandle<()>,
    notifications: &Receiver<Notification>,
    commands: &Receiver<Command>,
) {
    let (changed_tx, changed_rx) = unbounded();
    let _guard = PanicGuard::new(Arc::clone(&shared), None);
    let now = clock::now();
    // With `Take` old and new temps are treated alike, so there is no need to wait for a tick of the file system's
    // clock.
    let boundary = match shared.existing {
        Existing::Take => now.wall,
        Existing::Leave | Existing::Wait => clock::boundary(),
    };
    let mut clocks = ClockJumpDetector::default();
    clocks.read(now);
    let mount_tx = callback_context.notifications.clone();
    // The listener starts before any root is looked at, and ends with this function.
    let _mounts = mounts::listen(Box::new(move |paths| {
        let _ = mount_tx.send(Notification::Mounts(paths));
    }));
    let mut supervisor = Supervisor {
        watcher: FsWatcher::new(callback_context),
        root_watches: locks.into_iter().map(RootWatch::new).collect(),
        coalescer: Coalescer::new(changed_tx),
        use_checker: UseChecker::new(),
        schedule: RescanSchedule::default(),
        next_capacity_check: None,
        scan_was_incomplete: false,
        reestablish_watches: false,
        clocks,
        started: now.mono,
        boundary,
        has_started: false,
        active_roots: shared.active_roots(),
        shared,
    };
    supervisor.start();
    supervisor.listen(notifications, commands, &changed_rx);
    supervisor.end(scheduler);
}

impl Supervisor {
    fn start(&mut self) {
        self.probe_all();
        for index in 0..self.root_watches.len() {
            self.attach(index, RescanCause::Startup);
        }
        self.has_started = true;
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
            .schedule_periodic(Instant::now(), self.shared.rescan);
    }

    fn listen(
        &mut self,
        notifications: &Receiver<Notification>,
        commands: &Receiver<Command>,
        changed: &Receiver<Vec<PathBuf>>,
    ) {
        while !self.shared.is_stopping() {
            self.shared.beat(CriticalThread::Supervisor);
            // Deadlines are checked here too, in case messages never stop coming.
            if self.next_deadline().is_some_and(|at| at <= Instant::now()) {
                self.on_deadline();
            }
            // If a scan was incomplete, the next scan finds the rest, after a delay that grows. This check comes last
            // before the wait, because the scans of `on_deadline` above may have been incomplete too.
            if std::mem::take(&mut self.scan_was_incomplete) {
                self.note_lost_events();
            }
            let mut select = Select::new();
            let command = select.recv(commands);
            let notification = select.recv(notifications);
            let change = select.recv(changed);
            let ready = match self.next_deadline() {
                Some(at) => select.ready_deadline(at).ok(),
                None => Some(select.ready()),
            };
            match ready {
                None => self.on_deadline(),
                Some(i) if i == command => match commands.try_recv() {
                    Ok(Command::Quarantined) => self.note_quarantined(),
                    Ok(Command::Reload(active_roots)) => self.reload(active_roots),
                    Ok(Command::Stop) => return,
                    Ok(Command::Heartbeat) | Err(_) => {}
                },
                Some(i) if i == notification => self.on_notifications(notifications),
                Some(i) if i == change => {
                    let paths: BTreeSet<PathBuf> = changed.try_iter().flatten().collect();
                    paths.iter().for_each(|path| self.update_directory(path));
                }
                Some(_) => {}
            }
        }
    }

    /// Processes all pending notifications. A burst of them has one reaction.
    fn on_notifications(&mut self, notifications: &Receiver<Notification>) {
        let mut check = false;
        let (mut mounted, mut hot) = (BTreeSet::new(), BTreeSet::new());
        for notification in notifications.try_iter().take(MAX_NOTIFICATIONS) {
            match notification {
                Notification::DirectoryChanged(path) | Notification::SelfGone(path) => {
                    check |= self
                        .active_roots
                        .roots
                        .iter()
                        .any(|root| root.path.starts_with(&path));
                    self.drop_watch(&path);
                    self.coalescer.add(path);
                }
                Notification::Ancestor(path) => {
                    self.watcher.forget_ancestors(path.as_deref());
                    check = true;
                }
                Notification::PermissionsChanged => check = true,
                Notification::Mounts(paths) => mounted.extend(paths),
                Notification::Hot(dir) => _ = hot.insert(dir),
                Notification::LimitReached => self.note_limit_reached(),
                Notification::EventsLost => self.note_lost_events(),
                Notification::Error(error) => {
                    log::warn!("watch error: {error}; re-establishing all watches");
                    self.reestablish_watches = true;
                    self.note_lost_events();
                }
                Notification::Overrun(generation) if generation == self.watcher.generation() => {
                    log::warn!(
                        "events arrive faster than they are read; re-establishing all watches"
                    );
                    self.reestablish_watches = true;
                    self.note_lost_events();
                }
                Notification::Overrun(_) => {}
                Notification::WatcherEnded(generation)
                    if generation == self.watcher.generation() =>
                {
                    if self.shared.is_stopping() {
                        return;
                    }
                    if !self.reestablish_watches {
                        log::error!(
                            "the thread that reads the kernel's events has ended; re-establishing all watches"
                        );
                    }
                    self.reestablish_watches = true;
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
        for path in mounted {
            self.remounted(&path);
        }
        for dir in hot {
            self.enter_hot(&dir);
        }
    }

    /// Drops the watch on `path`, which may have ended with its directory even if the new directory looks the same. The
    /// watch is re-established when that directory is attached.
    fn drop_watch(&mut self, path: &Path) {
        for root_watch in &mut self.root_watches {
            if root_watch.watched.remove(path).is_some() {
                self.watcher.unwatch(path);
            }
        }
    }

    /// Schedules a scan of everything, because events were lost.
    fn note_lost_events(&mut self) {
        self.schedule.events_lost(Instant::now());
    }

    /// Returns whether scans have made up for all lost events and all rejected temps.
    fn nothing_is_missing(&self) -> bool {
        self.schedule.nothing_is_missing() && !self.shared.temps.has_rejected()
    }

    /// Reports that temps were rejected because of the tracking limit. Everything is scanned once there is room.
    fn note_limit_reached(&mut self) {
        if self.next_capacity_check.is_none() {
            log::warn!(
                "tracking limit reached ({} temps); the rest will be found by a rescan once there is room",
                self.shared.temps.len()
            );
            self.next_capacity_check = Some(Instant::now() + CAPACITY_CHECK);
        }
    }

    fn check_capacity(&mut self, now: Instant) {
        if self.next_capacity_check.is_none_or(|at| now < at) {
            return;
        }
        self.next_capacity_check = Some(now + CAPACITY_CHECK);
        if self.shared.temps.has_capacity_again() {
            self.next_capacity_check = None;
            self.note_lost_events();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hot = self
            .root_watches
            .iter()
            .filter_map(RootWatch::next_hot)
            .min();
        let limits = self
            .root_watches
            .iter()
            .filter_map(|root_watch| root_watch.limits_due);
        let limits = limits.map(|limits| limits.next()).min();
        let times = [
            self.schedule.next(),
            self.coalescer.idle_at(),
            hot,
            self.next_capacity_check,
            limits,
        ];
        times.into_iter().flatten().min()
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        self.coalescer.stop_when_idle();
        self.check_capacity(now);
        if self.schedule.is_recovery_due(now) {
            if std::mem::take(&mut self.reestablish_watches) {
                self.watcher.clear();
                // Hot directories stay hot: their watches were the cause of the overload.
                let root_watches = self.root_watches.iter_mut();
                root_watches.for_each(|root_watch| {
                    root_watch.watched.retain(|_, watched| watched.hot.is_hot())
                });
            }
            self.rescan_all(RescanCause::Overflow);
            self.schedule.recovered(now, Instant::now());
        }
        if self.schedule.is_periodic_due(now) {
            {
                let _idle_io = IdleIoPriority::begin();
                self.rescan_all(RescanCause::Periodic);
            }
            self.check_missed_events();
            self.enforce_all_limits();
            self.schedule
                .schedule_periodic(Instant::now(), self.shared.rescan);
        }
        if self.schedule.take_poll_due(now) {
            for index in 0..self.root_watches.len() {
                self.poll(index);
            }
        }
        for index in 0..self.root_watches.len() {
            self.run_hot(index);
            self.enforce_limits_when_due(index, now);
        }
    }

    /// Puts other rules in force. Roots that exist in both the old and the new rules keep their locks and their tracked
    /// temps. All watches are re-established, because each watch reports names by all rules.
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
                // Another orphand may use directories that the rule covers only now.
                // RACE: another process may take the lock before it is taken again below. Worst case: this root waits
                // until that process ends.
                root_watch.lock = None;
            }
            // From here on workers process this root. A root whose old rule was a dry run starts removing files only if
            // its lock can be acquired.
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
        // This releases the locks of roots that are no longer configured.
        drop(root_watches);
        let usage = self.shared.engine.reaper.usage();
        usage.set_limits(active_roots.limits);
        if let Some(shortest_grace) = active_roots.shortest_grace() {
            self.shared.temps.set_shortest_grace(shortest_grace);
        }
        self.watcher.set_roots(Arc::clone(&active_roots.roots));
        self.shared.set_active_roots(Arc::clone(&active_roots));
        self.shared.temps.apply_rules(clock::mono(), |path| {
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

    /// Probes all roots at once, so that the waits for those that do not respond overlap.
    fn probe_all(&self) {
        let roots = self.active_roots.roots.iter();
        let _ = response::unresponsive(roots.map(|root| root.path.as_path()));
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

    /// Sets the state of a root. Returns whether it has changed.
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
        // Both lists always have one entry for each root.
        #[allow(clippy::indexing_slicing)]
        self.active_roots.roots[index].clone()
    }

    /// Applies the limits to each quarantine.
    fn enforce_all_limits(&mut self) {
        for index in 0..self.root_watches.len() {
            self.enforce_limits(index);
        }
    }

    /// Schedules a check of the quarantines for the moment when a file that was moved now expires. The space was
    /// checked before the move.
    fn note_quarantined(&mut self) {
        let now = Instant::now();
        let age = self.active_roots.limits.age;
        let expiry = (!age.is_zero()).then(|| now.checked_add(age)).flatten();
        for root_watch in &mut self.root_watches {
            let space_check = now + SPACE_CHECK;
            let limits_due = root_watch.limits_due.get_or_insert(LimitsDue {
                expiry,
                space_check,
            });
            limits_due.expiry = limits_due.expiry.or(expiry);
        }
    }

    /// Applies the limits to the quarantine of a root if a check is due.
    fn enforce_limits_when_due(&mut self, index: usize, now: Instant) {
        let Some(limits_due) = self
            .root_watches
            .get(index)
            .and_then(|root_watch| root_watch.limits_due)
        else {
            return;
        };
        if limits_due.next() > now {
            return;
        }
        let has_expired = limits_due.expiry.is_some_and(|expiry| expiry <= now);
        let (path, id) = (self.root(index).path, self.active_roots.id(index));
        let lacks_space = || {
            let dir = Dir::open_root(&path, id);
            dir.is_ok_and(|dir| quarantine::lacks_space(&dir, self.active_roots.limits))
        };
        if has_expired || lacks_space() {
            return self.enforce_limits(index);
        }
        let has_quarantine = matches!(Quarantine::open_existing(&path, id), Ok(Some(_)));
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            root_watch.limits_due = has_quarantine.then_some(LimitsDue {
                space_check: now + SPACE_CHECK,
                ..limits_due
            });
        }
    }

    fn enforce_limits(&mut self, index: usize) {
        let now = clock::now();
        let last_jump = self.clocks.read(now);
        let trust = ClockTrust {
            running: now.mono.since(self.started),
            since_jump: last_jump.map(|last_jump| now.mono.since(last_jump)),
        };
        let (root, id) = (self.root(index), self.active_roots.id(index));
        let mut limits_due = None;
        if !root.policy.is_dry_run() && id.is_some() {
            let context = LimitContext {
                usage: self.shared.engine.reaper.usage(),
                journal: &self.shared.engine.journal,
                use_checker: &self.use_checker,
                trust,
                wanted: NeededSpace::default(),
            };
            let result = limits::enforce_limits(&root, id, context);
            result
                .events
                .into_iter()
                .for_each(|event| self.shared.emit(event));
            let now = Instant::now();
            let next = match result.has_more {
                true => Some(Duration::ZERO),
                false => result.next,
            };
            limits_due = result.holds_files.then(|| LimitsDue {
                expiry: next.and_then(|next| now.checked_add(next)),
                space_check: now + SPACE_CHECK,
            });
        }
        if let Some(root_watch) = self.root_watches.get_mut(index) {
            root_watch.limits_due = limits_due;
        }
    }

    /// Ends the scheduler first, so that no removal is half done. Then ends the watches and emits the summary.
    fn end(mut self, scheduler: JoinHandle<()>) {
        // The wake-up is repeated, because the scheduler may treat the first one as a new temp.
        while !scheduler.is_finished() {
            self.shared.temps.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = scheduler.join();
        self.watcher.clear();
        self.root_watches.clear();
        let summary = guard(&self.shared.stats).total;
        self.shared.emit(Event::Summary(summary));
        *guard(&self.shared.events) = None;
    }
}
