//! The messages to the supervisor.

use crossbeam_channel::Receiver;

use super::active_roots::ActiveRoots;
use crate::watch::Notification;

/// A message to the supervisor from another thread.
#[derive(Debug)]
pub(super) enum Command {
    /// A temp was moved to a quarantine.
    Quarantined,
    /// Puts these rules in force.
    Reload(ActiveRoots),
    /// Requests one more loop of this thread.
    Heartbeat,
    /// Stops the watcher.
    Stop,
}

/// The channels that the supervisor receives from.
pub(super) struct Mailbox {
    /// Rare events, from the callback.
    pub(super) notifications: Receiver<Notification>,
    pub(super) commands: Receiver<Command>,
}
