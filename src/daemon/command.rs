//! The messages to the supervisor.

use crossbeam_channel::Receiver;

use super::active_roots::ActiveRoots;
use crate::watch::Notification;

/// The kinds of temps that a task moved to a quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moved {
    /// Temps that belong to no group.
    Ungrouped,
    /// A temp of a group, which may supersede copies in the quarantine.
    OfGroup,
}

/// A message to the supervisor from another thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Temps were moved to a quarantine.
    Quarantined(Moved),
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
