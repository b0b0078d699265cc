//! Connects a service to its service manager: launchd or systemd.

use super::control::Control;
use super::launchctl::Launchctl;
use super::paths::{ServiceManager, ServicePaths};
use super::systemctl::Systemctl;

/// Returns the control of a service.
pub(super) fn control_of(service: &ServicePaths) -> Box<dyn Control + '_> {
    match service.manager {
        ServiceManager::Launchd => Box::new(Launchctl::new(service)),
        ServiceManager::Systemd => Box::new(Systemctl::new(service)),
    }
}
