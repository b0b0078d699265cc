//! `orphand status`: what the running watcher does.

use super::args::Look;
use super::{Exit, Failure};

pub(crate) mod client;

#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

pub(super) fn run(_command: &Status, _look: &Look) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}
