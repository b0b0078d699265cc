//! `orphand completions`: for shells, out of the same definitions as the command line.

use std::io;

use clap::CommandFactory as _;

use super::args::Cli;
use super::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// For which shell
    shell: clap_complete::Shell,
}

pub(super) fn run(command: &Completions) -> Result<Exit, Failure> {
    clap_complete::generate(
        command.shell,
        &mut Cli::command(),
        "orphand",
        &mut io::stdout(),
    );
    Ok(Exit::Done)
}
