//! A running watcher, and the handle that stops it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use super::active_roots::ActiveRoots;
use super::command::Command;
use super::shared::Shared;
use super::status::StatusHandle;
use crate::core::event::{Event, Summary};
use crate::core::retention::Limits;
use crate::fs::root::Root;
use crate::index::PendingCounts;

/// Watches directories and removes orphaned temps, until it is stopped or dropped.
#[derive(Debug)]
pub struct Watcher {
    pub(super) events: Receiver<Event>,
    pub(super) activity: Receiver<()>,
    pub(super) shared: Arc<Shared>,
    pub(super) stopper: Stopper,
    pub(super) supervisor: Option<JoinHandle<()>>,
}

/// Stops a [`Watcher`] from another thread. The channel of events closes once the watcher has stopped.
#[derive(Clone, Debug)]
pub struct Stopper {
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) commands: Sender<Command>,
}

impl Watcher {
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
        self.shared.summary()
    }

    /// Puts other roots and limits of their quarantines in force. Roots that are in both the old and the new list are
    /// served without a gap: their temps stay tracked and are looked at again by the new rule.
    ///
    /// `RACE:` a pass that has begun in one directory is completed by the old rule. Worst case: one batch is still
    /// removed by the old rule.
    pub fn reload(&self, roots: Vec<Root>, quarantine: Limits) {
        let active_roots = ActiveRoots::new(roots, quarantine);
        let _ = self.stopper.commands.send(Command::Reload(active_roots));
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
        self.shared.temps.waker().wake();
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

impl Stopper {
    /// Stops the watcher. Returns at once.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = self.commands.send(Command::Stop);
    }
}
