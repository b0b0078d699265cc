//! `orphand man`: the manual, out of the same definitions as the command line.

use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Man {}

pub(super) fn run(_command: &Man) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}
