//! The command line: parses it, and runs the command. Each command has its own file.
//!
//! No other file of this folder imports this one.

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;

use args::{Cli, CliCommand};
use exit::Exit;

mod args;
mod choices;
mod completions;
mod config;
mod config_file;
mod doctor;
mod duration;
mod engine;
mod event_printer;
mod exit;
mod explain;
mod history;
mod log;
mod man;
mod messages;
mod metrics;
mod moment;
mod options;
mod plan;
mod program;
mod quarantine;
mod quarantines;
mod restore;
mod scan;
mod service;
mod service_notify;
mod shell;
mod size;
mod standard_streams;
mod status;
mod sweep;
mod text;
mod variables;
mod watch;
mod watch_status;
mod writer_list;

/// Runs the command that the command line names.
pub(crate) fn main() -> ExitCode {
    let cli = variables::parse::<Cli>().unwrap_or_else(|error| error.exit());
    log::init(&cli.output);
    let output = cli.output;
    let end = match cli.command {
        CliCommand::Watch(command) => watch::run(&command, &output),
        CliCommand::Scan(command) => scan::run(&command, &output),
        CliCommand::Sweep(command) => sweep::run(&command, &output),
        CliCommand::Explain(command) => explain::run(&command, &output),
        CliCommand::History(command) => history::run(&command, &output),
        CliCommand::Restore(command) => restore::run(&command, &output),
        CliCommand::Quarantine(command) => quarantine::run(&command, &output),
        CliCommand::Status(command) => status::run(&command, &output),
        CliCommand::Service(command) => service::run(&command, &output),
        CliCommand::Config(command) => config::run(&command, &output),
        CliCommand::Doctor(command) => doctor::run(&command, &output),
        CliCommand::Completions(command) => completions::run(&command, Cli::command()),
        CliCommand::Man(command) => man::run(&command, Cli::command()),
    };
    let exit = end.unwrap_or_else(|failure| {
        // An error in a file begins with the file's name, so that editors can jump to the position.
        let prefix = if failure.exit == Exit::Config {
            ""
        } else {
            "error: "
        };
        // If stderr cannot be written, there is no other place for the message.
        let _ = writeln!(anstream::stderr(), "{prefix}{}", failure.text);
        failure.exit
    });
    ExitCode::from(exit as u8)
}
