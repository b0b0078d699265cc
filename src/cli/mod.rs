//! The command line: parses it, and runs the command. Each command has its own file.
//!
//! No other file of this folder imports this one.

use std::process::ExitCode;

use clap::CommandFactory as _;

use args::{Cli, CliCommand};
use commands::{
    completions, explain, history, man, quarantine, report, restore, scan, status, sweep, watch,
};
use orphand::sys::own_process;
use runtime::log;

mod args;
mod choices;
mod commands;
mod config;
mod doctor;
mod exit;
mod options;
mod output;
mod runtime;
mod service;
mod variables;
mod wording;

/// Runs the command that the command line names.
pub(crate) fn main() -> ExitCode {
    own_process::take();
    let cli = variables::parse::<Cli>().unwrap_or_else(|error| error.exit());
    log::init(&cli.output);
    let output = cli.output;
    let end = match cli.command {
        CliCommand::Watch(command) => watch::run(&command, &output),
        CliCommand::Scan(command) => scan::run(&command, &output),
        CliCommand::Sweep(command) => sweep::run(&command, &output),
        CliCommand::Explain(command) => explain::run(&command, &output),
        CliCommand::History(command) => history::run(&command, &output),
        CliCommand::Report(command) => report::run(&command, &output),
        CliCommand::Restore(command) => restore::run(&command, &output),
        CliCommand::Quarantine(command) => quarantine::run(&command, &output),
        CliCommand::Status(command) => status::run(&command, &output),
        CliCommand::Service(command) => service::run(&command, &output),
        CliCommand::Config(command) => commands::config::run(&command, &output),
        CliCommand::Doctor(command) => doctor::run(&command, &output),
        CliCommand::Completions(command) => completions::run(&command, Cli::command()),
        CliCommand::Man(command) => man::run(&command, Cli::command()),
    };
    let exit = end.unwrap_or_else(|failure| {
        failure.report();
        failure.exit
    });
    ExitCode::from(exit as u8)
}
