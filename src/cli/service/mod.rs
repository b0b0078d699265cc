//! `orphand service`: as a launchd agent or a systemd unit.

use super::args::Look;
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Service {}

pub(super) fn run(_command: &Service, _look: &Look) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}
