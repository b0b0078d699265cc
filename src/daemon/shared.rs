//! The state that all threads of a watcher share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::{SendTimeoutError, Sender};

use super::active_roots::ActiveRoots;
use super::existing::Existing;
use super::learning::Learning;
use super::stats::Stats;
use crate::core::event::{Event, Summary};
use crate::engine::Engine;
use crate::index::Temps;
use crate::store::folders::Folders;
use crate::sys::clock;
use crate::sys::mutex::guard;
use crate::watch::RootWrites;

/// State that all threads share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Replaced only by the supervisor.
    pub(super) active_roots: RwLock<Arc<ActiveRoots>>,
    pub(super) temps: Arc<Temps>,
    pub(super) engine: Engine,
    pub(super) folders: Folders,
    pub(super) existing: Existing,
    pub(super) rescan: Duration,
    pub(super) events: Mutex<Option<Sender<Event>>>,
    pub(super) stats: Mutex<Stats>,
    /// The knowledge from healthy renames.
    pub(super) learning: Learning,
    /// The times of healthy writes, which the callbacks measure.
    pub(super) writes: Arc<RootWrites>,
    /// The number of loops of the scheduler and of the supervisor, in the order of [`CriticalThread`].
    pub(super) heartbeats: [AtomicU64; 2],
    /// Receives a message when the first temp is tracked after a time without any.
    pub(super) activity_tx: Sender<()>,
    /// The consumer no longer reads its events.
    pub(super) consumer_is_gone: AtomicBool,
    pub(super) stopping: Arc<AtomicBool>,
}

/// A thread that must never hang.
#[derive(Clone, Copy, Debug)]
pub(super) enum CriticalThread {
    Scheduler,
    Supervisor,
}

impl Shared {
    /// Counts and reports an event. Waits for a consumer that does not read, unless the watcher is stopping.
    pub(super) fn emit(&self, event: Event) {
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

    /// Returns the totals of all roots.
    pub(super) fn summary(&self) -> Summary {
        let total = guard(&self.stats).total.clone();
        Summary {
            writes: self.writes.total(),
            ..total
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn active_roots(&self) -> Arc<ActiveRoots> {
        Arc::clone(
            &self
                .active_roots
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(super) fn set_active_roots(&self, active_roots: Arc<ActiveRoots>) {
        *self
            .active_roots
            .write()
            .unwrap_or_else(PoisonError::into_inner) = active_roots;
    }

    /// Counts a loop of a thread.
    pub(super) fn beat(&self, thread: CriticalThread) {
        if let Some(count) = self.heartbeats.get(thread as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
