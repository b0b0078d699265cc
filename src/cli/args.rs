//! The definition of the command line: the list of the commands.

use clap::{Parser, Subcommand};

use super::doctor::Doctor;
use super::options::OutputOptions;
use super::service::Service;
use crate::cli::commands::completions::Completions;
use crate::cli::commands::config::ConfigCommand;
use crate::cli::commands::explain::Explain;
use crate::cli::commands::history::History;
use crate::cli::commands::man::Man;
use crate::cli::commands::quarantine::QuarantineCommand;
use crate::cli::commands::report::Report;
use crate::cli::commands::restore::Restore;
use crate::cli::commands::scan::Scan;
use crate::cli::commands::status::StatusOptions;
use crate::cli::commands::sweep::Sweep;
use crate::cli::commands::watch::Watch;

/// Finds the temp files that killed atomic writers left behind. By default, removes such a file only if
/// no process has it open, no process with the pid in its name is running, and it is not the only copy.
#[derive(Debug, Parser)]
#[command(
    name = "orphand",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "\
A temp is a file that a program writes and then renames. An orphan is a temp
whose program was killed before the rename.

Examples:
  orphand scan ~/.app/sessions            list the temps; changes nothing
  orphand watch --grace 10s ~/.app        watch it, and print each action
  orphand sweep -n ~/.app/sessions        show what one pass would remove
  orphand explain ~/.app/sessions/x.tmp   show every gate and the verdict

Exit: 0 done, even if temps were kept; 1 failed;
2 wrong usage or a refused directory;
3 something could not be read, removed or determined;
4 the service is not installed;
5 the service runs, but it cannot do its work;
10 orphans found (scan --exit-code);
75 another orphand process works on the directory;
78 the configuration is invalid;
129 SIGHUP ended a sweep; 130 SIGINT did; 143 SIGTERM did")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Watch directories and remove orphans, in the foreground
    Watch(Watch),
    /// List the temps, with the verdict each would get now; changes nothing
    Scan(Scan),
    /// Remove orphans in one pass, then exit
    Sweep(Sweep),
    /// Show every gate, its evidence and the verdict for a file; changes nothing
    Explain(Explain),
    /// Show past actions, from the journal
    History(History),
    /// Show who left how many temps, when, and what was done, from the journal
    Report(Report),
    /// Move files out of the quarantine; never overwrites
    Restore(Restore),
    /// List or empty the quarantine
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Show the running watchers, the usage of the disks, and the space that was freed
    Status(StatusOptions),
    /// Install, start and stop orphand as a service of launchd or systemd
    Service(Service),
    /// Create, check and show the configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Find problems that prevent orphand from working, with a fix for each
    Doctor(Doctor),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual, or write its pages to a folder
    Man(Man),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// clap wraps longer lines, which would break the commands in them. A terminal has at least 80 columns.
    #[test]
    fn the_notes_of_a_help_fit_into_78_columns() {
        let mut commands = vec![super::Cli::command()];
        let mut notes = 0;
        while let Some(command) = commands.pop() {
            let text = command.get_after_help().map(ToString::to_string);
            for line in text.iter().flat_map(|text| text.lines()) {
                let width = line.chars().count();
                assert!(width <= 78, "{}: {width}: {line}", command.get_name());
                notes += 1;
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(notes > 0);
    }

    /// A command that changes nothing does not say that it removes something.
    #[test]
    fn shared_options_are_described_for_their_command() {
        let help = |name: &str, option: &str| {
            let cli = super::Cli::command();
            let command = cli.find_subcommand(name).expect("a command");
            let arg = command.get_arguments().find(|arg| arg.get_id() == option);
            let arg = arg.unwrap_or_else(|| panic!("{name} has no {option}"));
            assert!(arg.get_long_help().is_none(), "{name} {option}");
            arg.get_help().expect("a text").to_string()
        };
        for (command, option, has) in [
            ("watch", "grace", "before it is removed"),
            ("sweep", "grace", "before it is removed"),
            ("scan", "grace", "Judge by this time"),
            ("explain", "grace", "Judge by this time"),
            ("sweep", "writers", "Remove the temps"),
            ("scan", "writers", "Judge the temps"),
            ("explain", "writers", "Judge the temps"),
            ("sweep", "closed", "Treat a closed temp"),
            ("scan", "closed", "Judge a closed temp"),
            ("explain", "closed", "Judge a closed temp"),
            ("sweep", "open", "Keep, move or remove"),
            ("scan", "open", "The verdict for a temp that a"),
            ("explain", "open", "The verdict for a temp that a"),
            ("watch", "sole_copy", "Move, keep or remove"),
            ("scan", "sole_copy", "The verdict for a temp that may"),
            ("explain", "sole_copy", "The verdict for a temp that may"),
            ("watch", "action", "Delete, move or only report"),
            ("scan", "action", "The verdict for an orphan"),
            ("sweep", "dry_run", "Only show what would be done"),
            ("scan", "dry_run", "Has no effect"),
            ("sweep", "exclude", "relative to DIR"),
            ("scan", "exclude", "Do not list"),
            ("explain", "exclude", "the folder of FILE"),
            ("scan", "print0", "the orphans to be removed"),
            ("sweep", "print0", "the removed orphans"),
            ("watch", "print0", "the removed orphans"),
        ] {
            let text = help(command, option);
            assert!(text.contains(has), "{command} {option}: {text}");
        }
    }
}
