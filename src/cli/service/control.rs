//! What can be asked of a supervisor, whichever it is.

use super::launchctl::Launchctl;
use super::paths::{ServiceManager, ServicePaths};
use super::systemctl::Systemctl;
use crate::cli::Failure;

/// What a supervisor knows of the service. Installed, enabled, loaded and running are four things.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitState {
    /// It knows the service file.
    pub(super) loaded: bool,
    /// It will start it by itself next time. None: it does not tell.
    pub(super) enabled: Option<bool>,
    /// None: it does not tell.
    pub(super) running: Option<bool>,
    pub(super) pid: Option<u32>,
    /// How the last run ended, if that was not well; in words.
    pub(super) last_run_error: Option<String>,
    /// It knows another service file than the one that is there.
    pub(super) is_stale: bool,
    /// launchd's name for where it is loaded.
    pub(super) domain: Option<String>,
}

/// The verbs. Each starts from the state that was found just before.
pub(super) trait Control {
    /// What it knows.
    fn state(&self) -> Result<UnitState, Failure>;
    /// The same, with all that a person may want to know.
    fn full_state(&self) -> Result<UnitState, Failure>;
    /// Takes the service file that was written just now, and starts what it says.
    fn load(&self, found: &UnitState) -> Result<(), Failure>;
    /// Starts it.
    fn start(&self, found: &UnitState) -> Result<(), Failure>;
    /// Ends it, and starts it again.
    fn restart(&self, found: &UnitState) -> Result<(), Failure>;
    /// Ends it until the next login or boot.
    fn stop(&self, found: &UnitState) -> Result<(), Failure>;
    /// Ends it for good; its file is removed next.
    fn disable(&self, found: &UnitState) -> Result<(), Failure>;
    /// Its file was removed.
    fn file_removed(&self) -> Result<(), Failure>;
}

/// The supervisor of a place.
pub(super) fn of(place: &ServicePaths) -> Box<dyn Control + '_> {
    match place.manager {
        ServiceManager::Launchd => Box::new(Launchctl::new(place)),
        ServiceManager::Systemd => Box::new(Systemctl::new(place)),
    }
}
