//! The watcher: three threads, and what wakes them.
//!
//! - *notify's own* calls back into [`crate::watch`]: temps go into the map and come out of it.
//! - *the timer* sleeps until the nearest deadline and passes over what is due.
//! - *the keeper* attaches roots: it watches, scans, and does so again when a root
//!   comes back, events were lost, directories appeared, or an hour has passed.
//!
//! All of them tell what happens through one channel, the consumer's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};

use crate::clock;
use crate::decide::policy::Policy;
use crate::decide::rate::Threshold;
use crate::decide::retention::Limits;
use crate::decide::time::Wall;
use crate::event::{Event, Summary};
use crate::evidence::container_pids::ContainerPids;
use crate::evidence::locks::Locks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::Listings;
use crate::evidence::writer_names::WriterNames;
use crate::journal::Journal;
use crate::look::{RootId, answer};
use crate::pass::Engine;
use crate::reap::{Hook, Reaper};
use crate::root::{Refused, Root, absolute};
use crate::state::{Folders, LockError, LockHolder, Locker, RootLock};
use crate::stats::{RootStats, Stats};
use crate::temps::{self, PendingCounts, Temps};
use crate::watch::CallbackContext;

mod idle_io;
mod scheduler;
mod supervisor;
mod worker;

/// What becomes of temps that were there before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// They go as soon as it is proven that they may.
    #[default]
    Take,
    /// They wait for a whole grace, whatever their dates say.
    Wait,
    /// They are left alone.
    Leave,
}

/// What is watched, and by which rules: all that can change while it runs.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The roots, each with its rule. One may be missing; it is waited for then.
    pub roots: Vec<(PathBuf, Arc<Policy>)>,
    /// Takes roots that hold more than one program's files, too.
    pub allow_broad_roots: bool,
    /// How much a quarantine keeps.
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
    most: usize,
    hot_from: Threshold,
}

/// Why a watcher does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to watch.
    #[error("no directory to watch was given")]
    NoRoot,
    /// A root is refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another orphand works on a root, or on a directory that overlaps with it.
    #[error("{}", busy(.root, .other))]
    Busy {
        /// The root.
        root: PathBuf,
        /// The other's lock.
        other: LockHolder,
    },
    /// There can be no more threads: pthread_create(3) says EAGAIN at the user's limit of processes, which
    /// counts threads, and at that of the control group.
    #[error(
        "cannot start a thread: {0}. Raise the limit of processes (ulimit -u, TasksMax= of a unit, \
         NumberOfProcesses of an agent)"
    )]
    Thread(#[from] io::Error),
}

/// Watches directories and removes what is orphaned, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watcher {
    events: Receiver<Event>,
    activity: Receiver<()>,
    shared: Arc<Shared>,
    stopper: Stopper,
    supervisor: Option<JoinHandle<()>>,
}

/// Stops a [`Watcher`] from another thread. The channel of its events ends when it has.
#[derive(Clone, Debug)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    commands: Sender<supervisor::Command>,
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    /// Only the keeper puts another in its place.
    active_roots: RwLock<Arc<ActiveRoots>>,
    temps: Arc<Temps>,
    engine: Engine,
    folders: Folders,
    existing: Existing,
    rescan: Duration,
    events: Mutex<Option<Sender<Event>>>,
    stats: Mutex<Stats>,
    /// How often the timer and the keeper have come round.
    heartbeats: [AtomicU64; 2],
    /// Rung when there is something to wait for again.
    activity_tx: Sender<()>,
    /// The consumer has stopped listening.
    consumer_is_gone: AtomicBool,
    stopping: Arc<AtomicBool>,
}

/// The rules in force, and what stands at their roots.
#[derive(Debug)]
struct ActiveRoots {
    roots: Arc<[Root]>,
    /// What each root was when it was last attached; `None` while it is away.
    ids: Vec<Mutex<Option<RootId>>>,
    limits: Limits,
}

/// How many events wait for a consumer that does not read, before the threads wait for it: what
/// cannot be told is not done.
const EVENTS: usize = 4096;

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
            most: temps::MOST,
            hot_from: Threshold::default(),
        }
    }
}

impl Builder {
    /// Watches the directory `path` by the rule `policy`. It may be missing; it is waited for then.
    #[must_use]
    pub fn root(mut self, path: impl Into<PathBuf>, policy: impl Into<Arc<Policy>>) -> Builder {
        self.rules.roots.push((path.into(), policy.into()));
        self
    }

    /// Takes roots that hold more than one program's files, too.
    #[must_use]
    pub fn allow_broad_roots(mut self, allow: bool) -> Builder {
        self.rules.allow_broad_roots = allow;
        self
    }

    /// How much a quarantine keeps.
    #[must_use]
    pub fn quarantine(mut self, limits: Limits) -> Builder {
        self.rules.quarantine = limits;
        self
    }

    /// All three at once.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Builder {
        self.rules = rules;
        self
    }

    /// What becomes of temps that were there before.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Builder {
        self.existing = existing;
        self
    }

    /// Where journal and locks are. By default there are none: an embedding program decides.
    #[must_use]
    pub fn folders(mut self, folders: Folders) -> Builder {
        self.folders = folders;
        self
    }

    /// The size in bytes at which the journal is rotated.
    #[must_use]
    pub fn journal_cap(mut self, bytes: u64) -> Builder {
        self.journal_cap = Some(bytes);
        self
    }

    /// How often every root is scanned whatever was heard; an hour by default.
    #[must_use]
    pub fn rescan_every(mut self, interval: Duration) -> Builder {
        self.rescan = interval;
        self
    }

    /// Tells of every single temp that is tracked and settled.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Builder {
        self.verbose = verbose;
        self
    }

    /// About how many temps are kept track of at once, 2 million by default, which take half a gigabyte.
    /// What is more than that is found by scans when there is room again.
    #[must_use]
    pub fn most_tracked(mut self, most: usize) -> Builder {
        self.most = most;
        self
    }

    /// What makes a directory hot: 2,000 temps created a second by default.
    #[must_use]
    pub fn hot_from(mut self, threshold: Threshold) -> Builder {
        self.hot_from = threshold;
        self
    }

    /// Calls `hook` before each step of the reaping protocol.
    #[must_use]
    pub fn hook(mut self, hook: Option<Hook>) -> Builder {
        self.hook = hook;
        self
    }

    /// Starts. What can be wrong with the roots is found out here; what happens afterwards is told
    /// by events, beginning with [`Event::Ready`].
    pub fn start(self) -> Result<Watcher, StartError> {
        let active_roots = ActiveRoots::new(&self.rules)?;
        let shortest = active_roots.shortest().ok_or(StartError::NoRoot)?;
        let locks = lock(&active_roots.roots, self.folders.runtime.as_deref())?;
        let (temps, wake_rx) = Temps::new(shortest, self.most);
        let temps = Arc::new(temps);
        let (send, events) = bounded(EVENTS);
        let (rare, heard) = unbounded();
        let (waker, words) = unbounded();
        let (stirring, stirred) = bounded(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let callback_context = CallbackContext {
            temps: Arc::clone(&temps),
            notifications: rare,
            roots: Arc::clone(&active_roots.roots),
            hot_from: self.hot_from,
            tell: self.verbose.then(|| send.clone()),
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
                nested: ContainerPids::default(),
                locks: Locks::default(),
                listings: Listings::default(),
                verbose: self.verbose,
            },
            folders: self.folders.clone(),
            existing: self.existing,
            rescan: self.rescan,
            events: Mutex::new(Some(send)),
            stats: Mutex::new(Stats::new(clock::wall())),
            heartbeats: Default::default(),
            activity_tx: stirring,
            consumer_is_gone: AtomicBool::new(false),
            stopping: Arc::clone(&stopping),
        });
        let scheduler = {
            let (shared, waker) = (Arc::clone(&shared), waker.clone());
            let scheduler = std::thread::Builder::new().name("orphand-scheduler".into());
            scheduler.spawn(move || scheduler::run(&shared, &wake_rx, &waker))?
        };
        let stopper = Stopper {
            stopping,
            commands: waker,
        };
        let supervisor = {
            let shared = Arc::clone(&shared);
            let supervisor = std::thread::Builder::new().name("orphand-supervisor".into());
            supervisor.spawn(move || {
                supervisor::run(shared, callback_context, locks, scheduler, &heard, &words)
            })
        };
        // Else the timer would wait for ever.
        let supervisor = supervisor.inspect_err(|_| stopper.stop())?;
        Ok(Watcher {
            events,
            activity: stirred,
            shared,
            stopper,
            supervisor: Some(supervisor),
        })
    }
}

fn busy(root: &Path, other: &LockHolder) -> String {
    let pid = other.pid.map(|pid| format!(" (pid {pid})"));
    let pid = pid.unwrap_or_default();
    let path = other.root.as_ref().map(|root| &root.path);
    match path.filter(|path| !is_same(path, root)) {
        None => format!("another orphand{pid} works on {root:?}"),
        Some(path) => {
            format!("another orphand{pid} works on {path:?}, which overlaps with {root:?}")
        }
    }
}

fn is_same(path: &Path, root: &Path) -> bool {
    path == root
        || (answer::answers(root) && std::fs::canonicalize(root).is_ok_and(|root| root == path))
}

/// Locks those of `roots` that are there and for which a lock can be made. An error: another process
/// works on one of them, or on a directory that overlaps with it.
pub fn lock(roots: &[Root], runtime: Option<&Path>) -> Result<Vec<Option<RootLock>>, StartError> {
    // The folder of locks is read once for all of them, and not where none is needed.
    let mut locker = None;
    let mut locks = Vec::with_capacity(roots.len());
    for root in roots {
        // One that does not answer is locked when it does.
        if root.policy.is_dry_run() || !answer::answers(&root.path) {
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
                log::warn!("{:?} is worked on without a lock: {error}", root.path);
                locks.push(None);
            }
        }
    }
    Ok(locks)
}

impl Watcher {
    /// Settings to start from.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// What happens. The channel ends after [`Event::Summary`]. Whoever does not read it brings the
    /// watcher to a stand when it is full.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Rings when the first temp is tracked after a time without any.
    #[must_use]
    pub fn activity(&self) -> &Receiver<()> {
        &self.activity
    }

    /// Something to stop it with from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What waits, what is held, and when the next one is due.
    #[must_use]
    pub fn pending(&self) -> PendingCounts {
        self.shared.temps.pending_counts()
    }

    /// What has been done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        guard(&self.shared.stats).total
    }

    /// Puts other rules in force. Roots that both name go on without a gap: what is known of their
    /// temps stands, and is looked at again by the new rule. A root that is refused changes nothing.
    ///
    /// `RACE:` a pass over one directory that has begun ends by the rule that it began with; worst
    /// case: one batch is still removed by the old rule.
    pub fn reload(&self, rules: &Rules) -> Result<(), Refused> {
        let active_roots = ActiveRoots::new(rules)?;
        let _ = self
            .stopper
            .commands
            .send(supervisor::Command::Reload(active_roots));
        Ok(())
    }

    /// The size in bytes at which the journal is rotated.
    pub fn set_journal_cap(&self, bytes: u64) {
        self.shared.engine.journal.set_cap(bytes);
    }

    /// Something to ask it with from another thread what it does.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Asks the timer and the keeper to come round once. Each adds one to its number here when it
    /// does: whoever sees both grow knows that neither hangs.
    #[must_use]
    pub fn heartbeats(&self) -> [u64; 2] {
        self.shared.temps.wake();
        let _ = self.stopper.commands.send(supervisor::Command::Heartbeat);
        self.shared
            .heartbeats
            .each_ref()
            .map(|n| n.load(Ordering::Relaxed))
    }

    /// How many temps are known.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.temps.len()
    }
}

impl Drop for Watcher {
    /// Stops, and waits until nothing is half done.
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(supervisor) = self.supervisor.take() {
            // Whoever is waiting to tell something gives up within a moment.
            let _ = supervisor.join();
        }
    }
}

/// Asks a running [`Watcher`] what it does, from any thread.
#[derive(Clone, Debug)]
pub struct StatusHandle {
    shared: Arc<Shared>,
}

/// One root, as it stands.
#[derive(Clone, Debug)]
pub struct RootStatus {
    /// The root and its rule.
    pub root: Root,
    /// What its temps wait for.
    pub pending: PendingCounts,
    /// What was done in it.
    pub root_stats: RootStats,
}

impl StatusHandle {
    /// Every root, as it stands.
    #[must_use]
    pub fn roots(&self) -> Vec<RootStatus> {
        let active_roots = self.shared.active_roots();
        let part = |folder: &Path| Some(active_roots.root_of(folder)?.0);
        let waiting = self
            .shared
            .temps
            .pending_counts_by(active_roots.roots.len(), part);
        let stats = guard(&self.shared.stats);
        let root_status = |(root, waiting): (&Root, PendingCounts)| RootStatus {
            root: root.clone(),
            pending: waiting,
            root_stats: stats.of(&root.path),
        };
        active_roots
            .roots
            .iter()
            .zip(waiting)
            .map(root_status)
            .collect()
    }

    /// What was done in all of them.
    #[must_use]
    pub fn summary(&self) -> Summary {
        guard(&self.shared.stats).total
    }

    /// When the watch began.
    #[must_use]
    pub fn since(&self) -> Wall {
        guard(&self.shared.stats).since
    }

    /// How many temps are known.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.shared.temps.len()
    }

    /// How long ago a temp was last seen being created, if one was.
    #[must_use]
    pub fn last_created(&self) -> Option<Duration> {
        let heard = self.shared.temps.last_created()?;
        Some(clock::mono().since(heard))
    }
}

impl Stopper {
    /// Stops. Returns at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = self.commands.send(supervisor::Command::Stop);
    }
}

impl Shared {
    /// Counts and tells. A consumer that does not read is waited for, unless this is the end.
    fn emit(&self, event: Event) {
        guard(&self.stats).count(&event, clock::wall());
        let Some(sender) = guard(&self.events).clone() else {
            return;
        };
        let mut event = event;
        loop {
            let patience = match self.consumer_is_gone.load(Ordering::Relaxed) {
                false => Duration::from_millis(200),
                true => Duration::ZERO,
            };
            match sender.send_timeout(event, patience) {
                Err(SendTimeoutError::Timeout(again)) if !self.is_stopping() => event = again,
                // It is the end, and nobody listens: the rest is said to nobody, and at once.
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

    /// A thread of ours has come round.
    fn beat(&self, whose: CriticalThread) {
        if let Some(rounds) = self.heartbeats.get(whose as usize) {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One of the threads that must never hang.
#[derive(Clone, Copy, Debug)]
enum CriticalThread {
    Timer,
    Supervisor,
}

impl ActiveRoots {
    fn new(rules: &Rules) -> Result<ActiveRoots, Refused> {
        // All at once: those that do not answer are waited for together.
        let paths: Vec<PathBuf> = rules.roots.iter().map(|(path, _)| absolute(path)).collect();
        let _ = answer::silent(paths.iter().map(PathBuf::as_path));
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

    fn shortest(&self) -> Option<Duration> {
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

    /// The root whose rule covers the directory `dir`: the innermost, if there are several.
    fn root_of<'a>(&'a self, dir: &'a Path) -> Option<(usize, &'a Root, &'a Path)> {
        let covers = |(index, root): (usize, &'a Root)| Some((index, root, root.below(dir)?));
        let roots = self.roots.iter().enumerate().filter_map(covers);
        roots.max_by_key(|(_, root, _)| root.path.as_os_str().len())
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
