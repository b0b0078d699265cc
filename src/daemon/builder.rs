//! The settings of a watcher, and its start.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};

use super::active_roots::ActiveRoots;
use super::command::Mailbox;
use super::existing::Existing;
use super::learning::Learning;
use super::shared::Shared;
use super::stats::Stats;
use super::watcher::{Stopper, Watcher};
use super::{scheduler, supervisor};
use crate::core::policy::Policy;
use crate::core::rate::Threshold;
use crate::core::retention::Limits;
use crate::engine::Engine;
use crate::fs::response;
use crate::fs::root::{Refused, Root, absolute};
use crate::index;
use crate::index::Temps;
use crate::reap::{Hook, Reaper};
use crate::store::folders::Folders;
use crate::store::lock::RootBusy;
use crate::sys::clock;
use crate::watch::{CallbackContext, RECURSIVE};

/// Settings for a [`Watcher`].
#[derive(Clone, Debug)]
pub struct Builder {
    /// Roots that were not checked yet.
    unchecked: Vec<(PathBuf, Arc<Policy>)>,
    roots: Vec<Root>,
    quarantine: Limits,
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
    #[error(transparent)]
    Busy(#[from] RootBusy),
    /// No more threads can be started. pthread_create(3) fails with EAGAIN at the user's limit of processes, which
    /// counts threads, and at the limit of the control group.
    #[error(
        "cannot start a thread: {0}. Raise the limit of processes (ulimit -u, TasksMax= of a unit, \
         NumberOfProcesses of an agent)"
    )]
    Thread(#[from] io::Error),
}

/// The number of events that the channel holds for a consumer that does not read. If it is full, the threads wait: an
/// action that cannot be reported is not done. The channel has memory for all of them from its start.
const EVENT_CAPACITY: usize = 512;

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            unchecked: Vec::new(),
            roots: Vec::new(),
            quarantine: Limits::default(),
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

impl Watcher {
    /// Returns a builder with the default settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Watches the directory `path` by the rule `policy`. The directory may be missing; the watcher then waits for it.
    /// The start checks the directory as [`Root::new`] does, and refuses a broad one.
    #[must_use]
    pub fn root(mut self, path: impl Into<PathBuf>, policy: impl Into<Arc<Policy>>) -> Builder {
        self.unchecked.push((path.into(), policy.into()));
        self
    }

    /// Watches these roots. Of several roots with the same path, the first one counts.
    #[must_use]
    pub fn roots(mut self, roots: Vec<Root>) -> Builder {
        self.roots.extend(roots);
        self
    }

    /// Sets the limits of each quarantine.
    #[must_use]
    pub fn quarantine(mut self, limits: Limits) -> Builder {
        self.quarantine = limits;
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
    /// The first event is [`Event::Ready`](crate::core::event::Event::Ready).
    pub fn start(mut self) -> Result<Watcher, StartError> {
        self.check_roots()?;
        let active_roots = ActiveRoots::new(std::mem::take(&mut self.roots), self.quarantine);
        let shortest_grace = active_roots.shortest_grace().ok_or(StartError::NoRoot)?;
        let root_watches = supervisor::lock_roots(&active_roots, self.folders.runtime.as_deref())?;
        let (temps, wake_rx) = Temps::new(shortest_grace, self.max_tracked);
        let (event_tx, events) = bounded(EVENT_CAPACITY);
        let (notification_tx, notifications) = unbounded();
        let (commands, command_rx) = unbounded();
        let (activity_tx, activity) = bounded(1);
        let callback_context = CallbackContext {
            temps: Arc::new(temps),
            notifications: notification_tx,
            roots: active_roots.roots().cloned().collect(),
            hot_threshold: self.hot_from,
            event_tx: self.verbose.then(|| event_tx.clone()),
            writes: Arc::default(),
            // FSEvents does not show which side of a rename a name is.
            learn: (!RECURSIVE).then(Arc::default),
        };
        let stopper = Stopper {
            stopping: Arc::default(),
            commands,
        };
        let shared = Arc::new(Shared {
            active_roots: RwLock::new(Arc::new(active_roots)),
            temps: Arc::clone(&callback_context.temps),
            engine: self.engine(),
            folders: self.folders,
            existing: self.existing,
            rescan: self.rescan,
            events: Mutex::new(Some(event_tx)),
            stats: Mutex::new(Stats::new(clock::wall())),
            learning: Learning::new(callback_context.learn.clone().unwrap_or_default()),
            writes: Arc::clone(&callback_context.writes),
            heartbeats: Default::default(),
            activity_tx,
            consumer_is_gone: AtomicBool::new(false),
            stopping: Arc::clone(&stopper.stopping),
        });
        let scheduler = {
            let (shared, commands) = (Arc::clone(&shared), stopper.commands.clone());
            spawn("orphand-scheduler", move || {
                scheduler::run(&shared, &wake_rx, &commands);
            })?
        };
        let supervisor = {
            let (shared, mailbox) = (
                Arc::clone(&shared),
                Mailbox {
                    notifications,
                    commands: command_rx,
                },
            );
            spawn("orphand-supervisor", move || {
                supervisor::run(shared, callback_context, root_watches, scheduler, &mailbox);
            })
        };
        // Otherwise the scheduler would wait forever.
        let supervisor = supervisor.inspect_err(|_| stopper.stop())?;
        Ok(Watcher {
            events,
            activity,
            shared,
            stopper,
            supervisor: Some(supervisor),
        })
    }

    /// Checks the roots of [`Builder::root`], which then count as checked.
    fn check_roots(&mut self) -> Result<(), Refused> {
        let unchecked = std::mem::take(&mut self.unchecked);
        // All roots are probed at once, so that the waits for those that do not respond overlap.
        let paths: Vec<PathBuf> = unchecked.iter().map(|(path, _)| absolute(path)).collect();
        let _ = response::unresponsive(paths.iter().map(PathBuf::as_path));
        for (path, policy) in unchecked {
            self.roots.push(Root::new(&path, policy, false)?);
        }
        Ok(())
    }

    fn engine(&mut self) -> Engine {
        let mut engine = Engine {
            reaper: Reaper::new().with_hook(self.hook.take()),
            verbose: self.verbose,
            ..Engine::new(self.folders.state.as_deref())
        };
        engine.reaper.usage().set_limits(self.quarantine);
        if let Some(bytes) = self.journal_cap {
            engine.journal = engine.journal.with_cap(bytes);
        }
        engine
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn(run)
}
