//! `orphand completions`: prints completions for a shell, generated from the definitions of the command line.

use clap::Command;

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::standard_streams::print;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bash   orphand completions bash > ~/.local/share/bash-completion/completions/orphand
  zsh    orphand completions zsh > ~/.zfunc/_orphand      (with ~/.zfunc in fpath)
  fish   orphand completions fish > ~/.config/fish/completions/orphand.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(command: &Completions, mut cli: Command) -> Result<Exit, Failure> {
    // Not directly to stdout: clap panics if the reader has closed the pipe.
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut cli, "orphand", &mut script);
    Ok(print(&script)?)
}
