//! `orphand doctor`: what would keep it from working, each with its cure.

use super::args::Look;
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {}

pub(super) fn run(_command: &Doctor, _look: &Look) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}
