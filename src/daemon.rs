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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, unbounded};

use crate::decide::policy::Policy;
use crate::decide::retention::Limits;
use crate::event::{Event, Summary};
use crate::evidence::restored::Marks;
use crate::journal::Journal;
use crate::look::RootId;
use crate::pass::Tools;
use crate::reap::{Hook, Reaper};
use crate::root::{Refused, Root};
use crate::state::{Folders, LockError, RootLock};
use crate::temps::{Temps, Waiting};
use crate::watch::Inlet;

mod keeper;
mod timer;

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

/// Settings for a [`Watcher`].
#[derive(Clone, Debug)]
pub struct Builder {
    roots: Vec<(PathBuf, Arc<Policy>)>,
    broad: bool,
    existing: Existing,
    folders: Folders,
    limits: Limits,
    rescan: Duration,
    verbose: bool,
    hook: Option<Hook>,
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
    /// Another orphand works on a root.
    #[error("another orphand{} works on {root:?}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Busy {
        /// The root.
        root: PathBuf,
        /// The other's pid, if it could be read.
        pid: Option<u32>,
    },
    /// The system said no.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Watches directories and removes what is orphaned, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watcher {
    events: Receiver<Event>,
    stirred: Receiver<()>,
    shared: Arc<Shared>,
    stopper: Stopper,
    keeper: Option<JoinHandle<()>>,
}

/// Stops a [`Watcher`] from another thread. The channel of its events ends when it has.
#[derive(Clone, Debug)]
pub struct Stopper {
    stopping: Arc<AtomicBool>,
    bell: Sender<keeper::Word>,
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    roots: Arc<[Root]>,
    /// What each root was when it was last attached; `None` while it is away.
    ids: Vec<Mutex<Option<RootId>>>,
    temps: Arc<Temps>,
    tools: Tools,
    folders: Folders,
    limits: Limits,
    existing: Existing,
    rescan: Duration,
    events: Mutex<Option<Sender<Event>>>,
    summary: Mutex<Summary>,
    /// Rung when there is something to wait for again.
    stirring: Sender<()>,
    /// The consumer has stopped listening.
    unheard: AtomicBool,
    stopping: Arc<AtomicBool>,
}

/// How many events wait for a consumer that does not read, before the threads wait for it: what
/// cannot be told is not done.
const EVENTS: usize = 4096;

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            roots: Vec::new(),
            broad: false,
            existing: Existing::default(),
            folders: Folders::default(),
            limits: Limits::default(),
            rescan: Duration::from_secs(60 * 60),
            verbose: false,
            hook: None,
        }
    }
}

impl Builder {
    /// Watches the directory `path` by the rule `policy`. It may be missing; it is waited for then.
    #[must_use]
    pub fn root(mut self, path: impl Into<PathBuf>, policy: impl Into<Arc<Policy>>) -> Builder {
        self.roots.push((path.into(), policy.into()));
        self
    }

    /// Takes roots that hold more than one program's files, too.
    #[must_use]
    pub fn allow_broad_roots(mut self, allow: bool) -> Builder {
        self.broad = allow;
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

    /// How much a quarantine keeps.
    #[must_use]
    pub fn quarantine(mut self, limits: Limits) -> Builder {
        self.limits = limits;
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

    /// Calls `hook` before each step of the reaping protocol.
    #[must_use]
    pub fn hook(mut self, hook: Option<Hook>) -> Builder {
        self.hook = hook;
        self
    }

    /// Starts. What can be wrong with the roots is found out here; what happens afterwards is told
    /// by events, beginning with [`Event::Ready`].
    pub fn start(self) -> Result<Watcher, StartError> {
        let mut roots: Vec<Root> = Vec::new();
        for (path, policy) in &self.roots {
            let root = Root::new(path, Arc::clone(policy), self.broad)?;
            if roots.iter().all(|known| known.path != root.path) {
                roots.push(root);
            }
        }
        let shortest = roots.iter().map(|root| root.policy.grace.shortest()).min();
        let shortest = shortest.ok_or(StartError::NoRoot)?;
        let locks = lock_all(&roots, self.folders.runtime.as_deref())?;
        let roots: Arc<[Root]> = roots.into();
        let (temps, rung) = Temps::new(shortest);
        let temps = Arc::new(temps);
        let (send, events) = bounded(EVENTS);
        let (rare, heard) = unbounded();
        let (bell, words) = unbounded();
        let (stirring, stirred) = bounded(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let inlet = Inlet {
            temps: Arc::clone(&temps),
            rare,
            roots: Arc::clone(&roots),
            tell: self.verbose.then(|| send.clone()),
        };
        let state = self.folders.state.as_deref();
        let shared = Arc::new(Shared {
            ids: roots.iter().map(|_| Mutex::new(None)).collect(),
            roots,
            temps,
            tools: Tools {
                reaper: Reaper::new().with_hook(self.hook),
                journal: Journal::new(state),
                marks: Marks::new(state),
                verbose: self.verbose,
            },
            folders: self.folders.clone(),
            limits: self.limits,
            existing: self.existing,
            rescan: self.rescan,
            events: Mutex::new(Some(send)),
            summary: Mutex::new(Summary::default()),
            stirring,
            unheard: AtomicBool::new(false),
            stopping: Arc::clone(&stopping),
        });
        let timer = {
            let (shared, bell) = (Arc::clone(&shared), bell.clone());
            let timer = std::thread::Builder::new().name("orphand-timer".into());
            timer.spawn(move || timer::run(&shared, &rung, &bell))?
        };
        let keeper = {
            let shared = Arc::clone(&shared);
            let keeper = std::thread::Builder::new().name("orphand-keeper".into());
            keeper.spawn(move || keeper::run(shared, inlet, locks, timer, &heard, &words))?
        };
        Ok(Watcher {
            events,
            stirred,
            shared,
            stopper: Stopper { stopping, bell },
            keeper: Some(keeper),
        })
    }
}

fn lock_all(roots: &[Root], runtime: Option<&Path>) -> Result<Vec<Option<RootLock>>, StartError> {
    let mut locks = Vec::new();
    for root in roots {
        locks.push(match lock(root, runtime) {
            Ok(lock) => lock,
            Err(pid) => {
                let root = root.path.clone();
                return Err(StartError::Busy { root, pid });
            }
        });
    }
    Ok(locks)
}

/// Locks `root`, if it is there and a lock can be made. `Err` with a pid: somebody else has it.
pub fn lock(root: &Root, runtime: Option<&Path>) -> Result<Option<RootLock>, Option<u32>> {
    let (Some(runtime), Ok(id), false) =
        (runtime, RootId::of(&root.path), root.policy.is_dry_run())
    else {
        return Ok(None);
    };
    match RootLock::take(runtime, id) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Busy { pid }) => Err(pid),
        Err(error) => {
            log::warn!("{:?} is worked on without a lock: {error}", root.path);
            Ok(None)
        }
    }
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
    pub fn stirred(&self) -> &Receiver<()> {
        &self.stirred
    }

    /// Something to stop it with from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What waits, what is held, and when the next one is due.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.shared.temps.census()
    }

    /// What has been done so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        *guard(&self.shared.summary)
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
        if let Some(keeper) = self.keeper.take() {
            // Whoever is waiting to tell something gives up within a moment.
            let _ = keeper.join();
        }
    }
}

impl Stopper {
    /// Stops. Returns at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = self.bell.send(keeper::Word::Stop);
    }
}

impl Shared {
    /// Counts and tells. A consumer that does not read is waited for, unless this is the end.
    fn tell(&self, event: Event) {
        guard(&self.summary).count(&event);
        let Some(sender) = guard(&self.events).clone() else {
            return;
        };
        let mut event = event;
        loop {
            let patience = match self.unheard.load(Ordering::Relaxed) {
                false => Duration::from_millis(200),
                true => Duration::ZERO,
            };
            match sender.send_timeout(event, patience) {
                Err(SendTimeoutError::Timeout(again)) if !self.is_stopping() => event = again,
                // It is the end, and nobody listens: the rest is said to nobody, and at once.
                Err(_) => return self.unheard.store(true, Ordering::Relaxed),
                Ok(()) => return,
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
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
