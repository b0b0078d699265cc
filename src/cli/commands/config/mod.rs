//! `orphand config`: creates, checks and shows the configuration file.

use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use path::CheckedFile;
use sources::WithSources;

mod check;
mod init;
mod path;
mod show;
mod sources;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a file that explains every setting and changes none; never overwrites
    Init(WithSources<CheckedFile>),
    /// Check the file: print a summary, or its first error
    Check(WithSources<CheckedFile>),
    /// Show the settings in force for each directory, and where each value comes from
    Show(WithSources<PolicyOptions>),
    /// Print the path of the file, and the places in which orphand looks for it
    Path(WithSources<CheckedFile>),
}

pub(crate) fn run(command: &ConfigCommand, output: &OutputOptions) -> Result<Exit, Failure> {
    let mut printer = EventPrinter::new(output);
    match command {
        ConfigCommand::Init(named) => init::run(&named.options, output, &mut printer),
        ConfigCommand::Check(named) => {
            check::run(named.options.config.as_deref(), output, &mut printer)
        }
        ConfigCommand::Show(options) => show::run(options, output, &mut printer),
        ConfigCommand::Path(named) => path::run(named, output, &mut printer),
    }
}
