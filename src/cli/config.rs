//! `orphand config`: makes, checks and shows the configuration file.

use super::args::Look;
use super::{Exit, Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Config {
    /// Show where the file is looked for, and which is read
    Path,
}

pub(super) fn run(_command: &Config, _look: &Look) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "not there yet"))
}
