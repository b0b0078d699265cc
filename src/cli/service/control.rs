//! The common interface of launchd and systemd.

use super::paths::ServicePaths;
use super::tool::ToolError;
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
    fn full_state(&self) -> Result<ServiceState, Failure> {
        self.state()
    }

    /// Loads the service file that was just written, and starts the service.
    fn load(&self, found: &ServiceState) -> Result<(), Failure>;

    /// Starts the service. With `again`, it is stopped first if it is running.
    fn start(&self, found: &ServiceState, again: bool) -> Result<(), Failure>;

    /// Stops the service until the next login (system services: boot).
    fn stop(&self, found: &ServiceState) -> Result<(), Failure>;

    /// Stops the service and keeps it from starting again, before its file is removed.
    fn disable(&self, found: &ServiceState) -> Result<(), Failure> {
        self.stop(found)
    }

    /// Tells the service manager that the service file was removed.
    fn file_removed(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Returns the failure of a call without a result. `missing` is the advice if the program does not exist, `hangs` the
/// advice if it does not end.
pub(super) fn call_failure(error: &ToolError, missing: &str, hangs: &str) -> Failure {
    let advice = match error {
        ToolError::Start { path, .. } if !path.exists() => missing,
        ToolError::Start { .. } => "check that this user may run it",
        ToolError::TimedOut { .. } => hangs,
    };
    Failure::failed(format!("{error}\n  {advice}"))
}

/// Returns the error of a watcher that ended with `code`, for people.
pub(super) fn exit_error(code: impl std::fmt::Display, service: &ServicePaths) -> String {
    match code.to_string().as_str() {
        "75" => {
            "another orphand process watches one of its directories (75); end that one".to_owned()
        }
        code => format!(
            "it ended with exit code {code}; to find the cause:   {}",
            service.command("logs")
        ),
    }
}
