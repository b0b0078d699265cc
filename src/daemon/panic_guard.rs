//! Shuts the watcher down if one of its threads panics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;

use super::command::Command;
use super::shared::Shared;
use crate::sys::mutex::guard;

/// Shuts the whole watcher down and reports it if its thread panics. A watcher that seems to run and removes nothing
/// would be worse.
pub(super) struct PanicGuard {
    pub(super) shared: Arc<Shared>,
    /// Commands to the supervisor, which then ends everything; `None` in the supervisor thread itself.
    supervisor: Option<Sender<Command>>,
}

impl PanicGuard {
    pub(super) fn new(shared: Arc<Shared>, supervisor: Option<Sender<Command>>) -> PanicGuard {
        PanicGuard { shared, supervisor }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        log::error!(
            "internal error: the {} thread panicked; shutting down",
            name.strip_prefix("orphand-").unwrap_or(name)
        );
        self.shared.stopping.store(true, Ordering::SeqCst);
        guard(&self.shared.stats).total.failed += 1;
        self.shared.temps.waker().wake();
        match &self.supervisor {
            Some(supervisor) => _ = supervisor.send(Command::Stop),
            // No other thread would end the channel of events.
            None => *guard(&self.shared.events) = None,
        }
    }
}
