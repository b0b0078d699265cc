//! The common interface of launchd and systemd.

use crate::cli::exit::Failure;

/// The state of the service by the service manager. Installed, enabled, loaded and running are four different states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceState {
    /// The service manager has read the service file.
    pub(super) loaded: bool,
    /// The service will start at the next login (system services: boot). `None` if unknown.
    pub(super) enabled: Option<bool>,
    /// The service has a process. `None` if unknown.
    pub(super) running: Option<bool>,
    pub(super) pid: Option<u32>,
    /// The error with which the last run ended, for people.
    pub(super) last_run_error: Option<String>,
    /// The service manager has read an older service file than the installed one.
    pub(super) is_stale: bool,
    /// The domain of launchd into which the job is loaded.
    pub(super) domain: Option<String>,
}

/// The actions on a service. Each gets the state that was found just before it.
pub(super) trait Control {
    /// Returns the state.
    fn state(&self) -> Result<ServiceState, Failure>;
    /// Returns the state with all fields that the service manager can report.
    fn full_state(&self) -> Result<ServiceState, Failure>;
    /// Loads the service file that was just written, and starts the service.
    fn load(&self, found: &ServiceState) -> Result<(), Failure>;
    /// Starts the service.
    fn start(&self, found: &ServiceState) -> Result<(), Failure>;
    /// Stops the service and starts it again.
    fn restart(&self, found: &ServiceState) -> Result<(), Failure>;
    /// Stops the service until the next login (system services: boot).
    fn stop(&self, found: &ServiceState) -> Result<(), Failure>;
    /// Stops the service and keeps it from starting again, before its file is removed.
    fn disable(&self, found: &ServiceState) -> Result<(), Failure>;
    /// Tells the service manager that the service file was removed.
    fn file_removed(&self) -> Result<(), Failure>;
}
