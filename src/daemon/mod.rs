//! The watcher and its threads.
//!
//! - *notify's threads* call [`crate::watch`], which adds temps to the map and removes them from it.
//! - The *scheduler* sleeps until the next deadline, then dispatches due temps to workers.
//! - A *worker* processes due temps of one directory.
//! - The *supervisor* attaches roots: it watches and scans them. It does so again when a root returns, when events were
//!   lost, when directories appeared, and once an hour.
//!
//! All of them report their events through one channel to the consumer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};

use crate::core::event::{Event, Summary};
use crate::core::policy::Policy;
use crate::core::rate::Threshold;
use crate::core::retention::Limits;
use crate::core::time::Wall;
use crate::daemon::stats::{RootStats, Stats};
use crate::engine::pass::Engine;
use crate::evidence::container_pids::ContainerPids;
use crate::evidence::locks::Locks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::Listings;
use crate::evidence::writer_names::WriterNames;
use crate::fs::dir::RootId;
use crate::fs::response;
use crate::fs::root::{Refused, Root, absolute};
use crate::index;
use crate::index::{PendingCounts, Temps};
use crate::reap::{Hook, Reaper};
use crate::store::folders::Folders;
use crate::store::journal::Journal;
use crate::store::lock::{LockError, LockHolder, Locker, RootLock};
use crate::sys::clock;
use crate::watch::CallbackContext;

mod command;
mod panic_guard;
mod scheduler;
pub mod stats;
mod supervisor;
mod worker;

use command::Command;

/// The treatment of temps that existed before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// They are removed as soon as this is proven to be safe.
    #[default]
    Take,
    /// They wait for a whole grace, whatever their dates are.
    Wait,
    /// They are ignored.
    Leave,
}

/// The roots and their rules: everything that can change while the watcher runs.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The roots, each with its rule. A root may be missing; the watcher then waits for it.
    pub roots: Vec<(PathBuf, Arc<Policy>)>,
    /// Also accepts roots that hold files of more than one program.
    pub allow_broad_roots: bool,
    /// The limits of each quarantine.
    pub quarantine: Limits,
}

/// Settings for a [`Watcher`].
#[derive(Clone, Debug)]
pub struct Builder {
    rules: Rules,
    existing: Existing,
    folders: Folders,
    journal_cap: Option<u64>,
    rescan: Duration,
    verbose: bool,
    hook: Option<Hook>,
    max_tracked: usize,
    hot_from: Threshold,
}

/// The reason why a watcher does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No root was given.
    #[error("no directory to watch was given")]
    NoRoot,
    /// A root is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another orphand process uses a root, or a directory that overlaps with it.
    #[error("{}", busy_message(.root, .other))]
    Busy {
        /// The root.
        root: PathBuf,
        /// The process that holds the other lock.
        other: LockHolder,
    },
    /// No more threads can be started. pthread_create(3) fails with EAGAIN at the user's limit of processes, which
    /// counts threads, and at the limit of the control group.
    #[error(
        "cannot start a thread: {0}. Raise the limit of processes (ulimit -u, TasksMax= of a unit, \
         NumberOfProcesses of an agent)"
    )]
    Thread(#[from] io::Error),
}

/// Watches directories and removes orphaned temps, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watcher {
    events: Receiver<Event>,
    activity: Receiver<()>,
    shared: Arc<Shared>,
    stopper: Stopper,
    supervisor: Option<JoinHandle<()>>,
}

/// Stops a [`Watcher`] from another thread. The channel of events closes once the watcher has stopped.
#[derive(Clone, Debug)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    commands: Sender<Command>,
}

/// State that all threads share.
#[derive(Debug)]
struct Shared {
    /// Replaced only by the supervisor.
    active_roots: RwLock<Arc<ActiveRoots>>,
    temps: Arc<Temps>,
    engine: Engine,
    folders: Folders,
    existing: Existing,
    rescan: Duration,
    events: Mutex<Option<Sender<Event>>>,
    stats: Mutex<Stats>,
    /// The number of loops of the scheduler and of the supervisor, in the order of [`CriticalThread`].
    heartbeats: [AtomicU64; 2],
    /// Receives a message when the first temp is tracked after a time without any.
    activity_tx: Sender<()>,
    /// The consumer no longer reads its events.
    consumer_is_gone: AtomicBool,
    stopping: Arc<AtomicBool>,
}

/// The rules in force, and the directories at the paths of their roots.
#[derive(Debug)]
struct ActiveRoots {
    roots: Arc<[Root]>,
    /// For each root, the identity of the directory that was last attached at its path; `None` while it is unavailable.
    ids: Vec<Mutex<Option<RootId>>>,
    limits: Limits,
}

/// The number of events that the channel holds for a consumer that does not read. If it is full, the threads wait: an
/// action that cannot be reported is not done.
const EVENT_CAPACITY: usize = 4096;

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            rules: Rules::default(),
            existing: Existing::default(),
            folders: Folders::default(),
            journal_cap: None,
            rescan: Duration::from_secs(60 * 60),
            verbose: false,
            hook: None,
            max_tracked: index::MAX_TRACKED,
            hot_from: Threshold::default(),
        }
    }
}

impl Builder {
    /// Watches the directory `path` by the rule `policy`. The directory may be missing; the watcher then waits for it.
    #[must_use]
    pub fn root(mut self, path: impl Into<PathBuf>, policy: impl Into<Arc<Policy>>) -> Builder {
        self.rules.roots.push((path.into(), policy.into()));
        self
    }

    /// Also accepts roots that hold files of more than one program.
    #[must_use]
    pub fn allow_broad_roots(mut self, allow: bool) -> Builder {
        self.rules.allow_broad_roots = allow;
        self
    }

    /// Sets the limits of each quarantine.
    #[must_use]
    pub fn quarantine(mut self, limits: Limits) -> Builder {
        self.rules.quarantine = limits;
        self
    }

    /// Sets the roots, the acceptance of broad roots and the limits of the quarantines at once.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Builder {
        self.rules = rules;
        self
    }

    /// Sets the treatment of temps that existed before the start.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Builder {
        self.existing = existing;
        self
    }

    /// Sets the folders of journal and locks. By default there are none: the embedding program decides.
    #[must_use]
    pub fn folders(mut self, folders: Folders) -> Builder {
        self.folders = folders;
        self
    }

    /// Sets the size in bytes at which the journal is rotated.
    #[must_use]
    pub fn journal_cap(mut self, bytes: u64) -> Builder {
        self.journal_cap = Some(bytes);
        self
    }

    /// Sets the interval at which every root is scanned, even if no events were lost. The default is an hour.
    #[must_use]
    pub fn rescan_every(mut self, interval: Duration) -> Builder {
        self.rescan = interval;
        self
    }

    /// Also reports every single temp that is tracked or settled.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Builder {
        self.verbose = verbose;
        self
    }

    /// Sets the approximate number of temps that are tracked at once. The default is 2 million, which need half a
    /// gigabyte. Temps beyond it are found by scans once there is room again.
    #[must_use]
    pub fn max_tracked(mut self, max: usize) -> Builder {
        self.max_tracked = max;
        self
    }

    /// Sets the rate that makes a directory hot. The default is 2,000 created temps per second.
    #[must_use]
    pub fn hot_from(mut self, threshold: Threshold) -> Builder {
        self.hot_from = threshold;
        self
    }

    /// Calls `hook` before each step of the removal protocol.
    #[doc(hidden)]
    #[must_use]
    pub fn hook(mut self, hook: Option<Hook>) -> Builder {
        self.hook = hook;
        self
    }

    /// Starts the watcher. Returns an error if anything is wrong with the roots. Later problems are reported as events.
    /// The first event is [`Event::Ready`].
    pub fn start(self) -> Result<Watcher, StartError> {
        let active_roots = ActiveRoots::new(&self.rules)?;
        let shortest_grace = active_roots.shortest_grace().ok_or(StartError::NoRoot)?;
        let locks = lock_roots(&active_roots.roots, self.folders.runtime.as_deref())?;
        let (temps, wake_rx) = Temps::new(shortest_grace, self.max_tracked);
        let temps = Arc::new(temps);
        let (event_tx, events) = bounded(EVENT_CAPACITY);
        let (notification_tx, notification_rx) = unbounded();
        let (command_tx, command_rx) = unbounded();
        let (activity_tx, activity_rx) = bounded(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let callback_context = CallbackContext {
            temps: Arc::clone(&temps),
            notifications: notification_tx,
            roots: Arc::clone(&active_roots.roots),
            hot_threshold: self.hot_from,
            event_tx: self.verbose.then(|| event_tx.clone()),
        };
        let state = self.folders.state.as_deref();
        let journal = Journal::new(state);
        let reaper = Reaper::new().with_hook(self.hook);
        reaper.usage().set_limits(active_roots.limits);
        let shared = Arc::new(Shared {
            active_roots: RwLock::new(Arc::new(active_roots)),
            temps,
            engine: Engine {
                reaper,
                journal: match self.journal_cap {
                    Some(bytes) => journal.with_cap(bytes),
                    None => journal,
                },
                marks: RestoreMarks::new(state),
                writers: WriterNames::default(),
                container_pids: ContainerPids::default(),
                locks: Locks::default(),
                listings: Listings::default(),
                verbose: self.verbose,
            },
            folders: self.folders.clone(),
            existing: self.existing,
            rescan: self.rescan,
            events: Mutex::new(Some(event_tx)),
            stats: Mutex::new(Stats::new(clock::wall())),
            heartbeats: Default::default(),
            activity_tx,
            consumer_is_gone: AtomicBool::new(false),
            stopping: Arc::clone(&stopping),
        });
        let scheduler = {
            let (shared, command_tx) = (Arc::clone(&shared), command_tx.clone());
            let scheduler = std::thread::Builder::new().name("orphand-scheduler".into());
            scheduler.spawn(move || scheduler::run(&shared, &wake_rx, &command_tx))?
        };
        let stopper = Stopper {
            stopping,
            commands: command_tx,
        };
        let supervisor = {
            let shared = Arc::clone(&shared);
            let supervisor = std::thread::Builder::new().name("orphand-supervisor".into());
            supervisor.spawn(move || {
                supervisor::run(
                    shared,
                    callback_context,
                    locks,
                    scheduler,
                    &notification_rx,
                    &command_rx,
                )
            })
        };
        // Otherwise the scheduler would wait forever.
        let supervisor = supervisor.inspect_err(|_| stopper.stop())?;
        Ok(Watcher {
            events,
            activity: activity_rx,
            shared,
            stopper,
            supervisor: Some(supervisor),
        })
    }
}

fn busy_message(root: &Path, other: &LockHolder) -> String {
    let pid = other.pid.map(|pid| format!(" (pid {pid})"));
    let pid = pid.unwrap_or_default();
    let path = other.root.as_ref().map(|root| &root.path);
    match path.filter(|path| !is_same(path, root)) {
        None => format!("another orphand process{pid} works on {root:?}"),
        Some(path) => {
            format!("another orphand process{pid} works on {path:?}, which overlaps with {root:?}")
        }
    }
}

fn is_same(path: &Path, root: &Path) -> bool {
    path == root
        || (response::responds(root) && std::fs::canonicalize(root).is_ok_and(|root| root == path))
}

/// Locks those of `roots` that exist and that can be locked. Returns an error if another process uses one of them, or a
/// directory that overlaps with it.
pub fn lock_roots(
    roots: &[Root],
    runtime: Option<&Path>,
) -> Result<Vec<Option<RootLock>>, StartError> {
    // The folder of locks is read once for all roots, and only if a lock is needed.
    let mut locker = None;
    let mut locks = Vec::with_capacity(roots.len());
    for root in roots {
        // A root that does not respond is locked once it responds.
        if root.policy.is_dry_run() || !response::responds(&root.path) {
            locks.push(None);
            continue;
        }
        let (Some(runtime), Ok(id)) = (runtime, RootId::of(&root.path)) else {
            locks.push(None);
            continue;
        };
        let locker = locker.get_or_insert_with(|| Locker::new(runtime));
        match locker.lock(root, id) {
            Ok(lock) => locks.push(Some(lock)),
            Err(LockError::Busy(other)) => {
                let root = root.path.clone();
                return Err(StartError::Busy { root, other });
            }
            Err(error) => {
                log::warn!(
                    "cannot lock {:?}: {error}; continuing without a lock",
                    root.path
                );
                locks.push(None);
            }
        }
    }
    Ok(locks)
}

impl Watcher {
    /// Returns a builder with the default settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the channel of events. It closes after [`Event::Summary`]. When it is full, the watcher waits until the
    /// caller reads from it.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Returns a channel that receives a message when the first temp is tracked after a time without any.
    #[must_use]
    pub fn activity(&self) -> &Receiver<()> {
        &self.activity
    }

    /// Returns a handle that stops the watcher from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns the numbers of waiting and of kept temps, and the time of the next deadline.
    #[must_use]
    pub fn pending(&self) -> PendingCounts {
        self.shared.temps.pending_counts()
    }

    /// Returns the totals so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        guard(&self.shared.stats).total
    }

    /// Puts other rules in force. Roots that exist in both the old and the new rules are served without a gap: their
    /// temps stay tracked and are looked at again by the new rule. If a root is refused, nothing changes.
    ///
    /// `RACE:` a pass that has begun in one directory is completed by the old rule. Worst case: one batch is still
    /// removed by the old rule.
    pub fn reload(&self, rules: &Rules) -> Result<(), Refused> {
        let active_roots = ActiveRoots::new(rules)?;
        let _ = self.stopper.commands.send(Command::Reload(active_roots));
        Ok(())
    }

    /// Sets the size in bytes at which the journal is rotated.
    pub fn set_journal_cap(&self, bytes: u64) {
        self.shared.engine.journal.set_cap(bytes);
    }

    /// Returns a handle that reports the status from another thread.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Wakes the scheduler and the supervisor, and returns the number of loops that each has made. If both numbers have
    /// grown at a later call, neither thread hangs.
    #[must_use]
    pub fn heartbeats(&self) -> [u64; 2] {
        self.shared.temps.wake();
        let _ = self.stopper.commands.send(Command::Heartbeat);
        self.shared
            .heartbeats
            .each_ref()
            .map(|n| n.load(Ordering::Relaxed))
    }

    /// Returns the number of tracked temps.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.temps.len()
    }
}

impl Drop for Watcher {
    /// Stops the watcher and waits until no operation is half done.
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(supervisor) = self.supervisor.take() {
            // A thread that waits to send an event gives up within a moment.
            let _ = supervisor.join();
        }
    }
}

/// Reports the status of a running [`Watcher`] from any thread.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    shared: Arc<Shared>,
}

/// The status of one root.
#[derive(Clone, Debug)]
pub struct RootStatus {
    /// The root and its rule.
    pub root: Root,
    /// The numbers of its waiting and kept temps.
    pub pending: PendingCounts,
    /// The counters of its events and scans.
    pub stats: RootStats,
}

impl StatusHandle {
    /// Returns the status of every root.
    #[must_use]
    pub fn roots(&self) -> Vec<RootStatus> {
        let active_roots = self.shared.active_roots();
        let part = |dir: &Path| Some(active_roots.root_of(dir)?.0);
        let pending = self
            .shared
            .temps
            .pending_counts_by(active_roots.roots.len(), part);
        let stats = guard(&self.shared.stats);
        let root_status = |(root, pending): (&Root, PendingCounts)| RootStatus {
            root: root.clone(),
            pending,
            stats: stats.of(&root.path),
        };
        active_roots
            .roots
            .iter()
            .zip(pending)
            .map(root_status)
            .collect()
    }

    /// Returns the totals of all roots.
    #[must_use]
    pub fn summary(&self) -> Summary {
        guard(&self.shared.stats).total
    }

    /// Returns the time at which the watch began.
    #[must_use]
    pub fn since(&self) -> Wall {
        guard(&self.shared.stats).since
    }

    /// Returns the number of tracked temps.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.temps.len()
    }

    /// Returns the time since the last reported creation of a temp, if there was one.
    #[must_use]
    pub fn last_created(&self) -> Option<Duration> {
        let created = self.shared.temps.last_created()?;
        Some(clock::mono().since(created))
    }
}

impl Stopper {
    /// Stops the watcher. Returns at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = self.commands.send(Command::Stop);
    }
}

impl Shared {
    /// Counts and reports an event. Waits for a consumer that does not read, unless the watcher is stopping.
    fn emit(&self, event: Event) {
        guard(&self.stats).count(&event, clock::wall());
        let Some(sender) = guard(&self.events).clone() else {
            return;
        };
        let mut event = event;
        loop {
            let timeout = match self.consumer_is_gone.load(Ordering::Relaxed) {
                false => Duration::from_millis(200),
                true => Duration::ZERO,
            };
            match sender.send_timeout(event, timeout) {
                Err(SendTimeoutError::Timeout(unsent)) if !self.is_stopping() => event = unsent,
                // The channel is closed, or the watcher is stopping and the consumer does not read: this event is
                // dropped, and later events no longer wait.
                Err(_) => return self.consumer_is_gone.store(true, Ordering::Relaxed),
                Ok(()) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn active_roots(&self) -> Arc<ActiveRoots> {
        Arc::clone(
            &self
                .active_roots
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn set_active_roots(&self, active_roots: Arc<ActiveRoots>) {
        *self
            .active_roots
            .write()
            .unwrap_or_else(PoisonError::into_inner) = active_roots;
    }

    /// Counts a loop of a thread.
    fn beat(&self, thread: CriticalThread) {
        if let Some(count) = self.heartbeats.get(thread as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A thread that must never hang.
#[derive(Clone, Copy, Debug)]
enum CriticalThread {
    Scheduler,
    Supervisor,
}

impl ActiveRoots {
    fn new(rules: &Rules) -> Result<ActiveRoots, Refused> {
        // All roots are probed at once, so that the waits for those that do not respond overlap.
        let paths: Vec<PathBuf> = rules.roots.iter().map(|(path, _)| absolute(path)).collect();
        let _ = response::unresponsive(paths.iter().map(PathBuf::as_path));
        let mut roots: Vec<Root> = Vec::new();
        for (path, policy) in &rules.roots {
            let root = Root::new(path, Arc::clone(policy), rules.allow_broad_roots)?;
            if roots.iter().all(|known| known.path != root.path) {
                roots.push(root);
            }
        }
        Ok(ActiveRoots {
            ids: roots.iter().map(|_| Mutex::new(None)).collect(),
            roots: roots.into(),
            limits: rules.quarantine,
        })
    }

    fn shortest_grace(&self) -> Option<Duration> {
        let graces = self.roots.iter().map(|root| root.policy.grace.shortest());
        graces.min()
    }

    fn id(&self, root: usize) -> Option<RootId> {
        self.ids.get(root).and_then(|id| *guard(id))
    }

    fn set_id(&self, root: usize, id: Option<RootId>) {
        if let Some(slot) = self.ids.get(root) {
            *guard(slot) = id;
        }
    }

    /// Returns the root whose rule covers the directory `dir`: the innermost root if there are several.
    fn root_of<'a>(&'a self, dir: &'a Path) -> Option<(usize, &'a Root, &'a Path)> {
        let covers = |(index, root): (usize, &'a Root)| Some((index, root, root.below(dir)?));
        let roots = self.roots.iter().enumerate().filter_map(covers);
        roots.max_by_key(|(_, root, _)| root.path.as_os_str().len())
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
