//! The messages to the supervisor.

use super::ActiveRoots;

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
