//! The command line, as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use orphand::decide::policy::Action;

use super::choices::{ActionArg, ClosedArg, ExistingArg, OpenArg, SoleCopyArg};
use super::config_file::RuleSettings;
use super::duration;

/// Finds the temp files that killed atomic writers left behind, and removes them once it is proven
/// that nobody holds them, writes them, or needs them as the only copy.
#[derive(Debug, Parser)]
#[command(
    name = "orphand",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  orphand scan ~/.app/sessions                 what is there, and what would go; changes nothing
  orphand watch --grace 10s ~/.app/sessions    watch it, and say what happens and why
  orphand sweep -n ~/.app/sessions             what one pass would remove
  orphand explain ~/.app/sessions/x.json.tmp   every gate, its evidence, the verdict

Exit: 0 done, also where temps were kept · 1 failed · 2 wrong usage or a refused directory ·
3 something could not be read, removed or told · 4 the service is not installed ·
5 it runs, but not as it should · 10 orphans found (scan --exit-code) ·
75 another orphand works there · 78 the configuration is wrong")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How it is said.
#[derive(Clone, Debug, Args)]
pub(crate) struct Look {
    /// Print JSON: one object a line for watch and sweep, one document for scan and explain
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        env = "ORPHAND_COLOR"
    )]
    pub(crate) color: Color,
    /// Say only what failed
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more: also each temp that is tracked and settled
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch directories and remove what is orphaned, in the foreground
    Watch(Watch),
    /// Show what is there, with the verdict each temp would get now; changes nothing
    Scan(Scan),
    /// Make one pass over what is there, then end
    Sweep(Sweep),
    /// Show every gate, its evidence and the verdict for a file; changes nothing
    Explain(Explain),
    /// Show what was done, from the journal
    History(History),
    /// Bring files back out of the quarantine; never overwrites
    Restore(Restore),
    /// Show or empty the quarantine
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Show what the running watcher watches, holds back and has freed
    Status(super::status::Status),
    /// Install, start and stop it as a service of launchd or systemd
    Service(super::service::Service),
    /// Make, check and show the configuration file
    #[command(subcommand)]
    Config(super::config::Config),
    /// Look for what would keep orphand from working, each with its cure
    Doctor(super::doctor::Doctor),
    /// Print completions for a shell
    Completions(super::completions::Completions),
    /// Print the manual, or write its pages to a folder
    Man(super::man::Man),
}

/// The rule for the directories.
#[derive(Clone, Debug, Args)]
pub(crate) struct Rule {
    /// How long nobody may have used a temp: 250ms, 30s, 5m, 1h, 7d
    /// [default: 5m, and 1h for names without a random part]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, env = "ORPHAND_GRACE")]
    grace: Option<Duration>,
    /// Which names are temps, instead of *.tmp; may be repeated
    #[arg(long, value_name = "GLOB")]
    name: Vec<String>,
    /// Names of this writer too; "list" shows them; may be repeated
    #[arg(long, value_name = "GRAMMAR")]
    pub(crate) writer: Vec<String>,
    /// What a close means: the temp of a killed writer is closed too
    #[arg(long, value_enum, env = "ORPHAND_CLOSED")]
    closed: Option<ClosedArg>,
    /// What happens to a temp that a live process holds
    #[arg(long, value_enum, env = "ORPHAND_OPEN")]
    open: Option<OpenArg>,
    /// What happens to a temp that may be the only copy
    #[arg(long, value_enum, env = "ORPHAND_SOLE_COPY")]
    sole_copy: Option<SoleCopyArg>,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Take directories that hold more than one program's files, too
    #[arg(long)]
    pub(crate) allow_broad_root: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Depth {
    /// Below the directories too
    #[arg(short, long, env = "ORPHAND_RECURSIVE")]
    recursive: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Deed {
    /// What happens to an orphan
    #[arg(long, value_enum, env = "ORPHAND_ACTION")]
    action: Option<ActionArg>,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) rule: Rule,
    #[command(flatten)]
    pub(crate) depth: Depth,
    #[command(flatten)]
    pub(crate) deed: Deed,
    /// What becomes of temps that were there before [default: wait on a terminal, else take]
    #[arg(long, value_enum)]
    pub(crate) existing: Option<ExistingArg>,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) rule: Rule,
    #[command(flatten)]
    pub(crate) depth: Depth,
    #[command(flatten)]
    pub(crate) deed: Deed,
    /// Exit with 10 if there are orphans
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// The directories
    #[arg(value_name = "DIR", required_unless_present = "writer")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) rule: Rule,
    #[command(flatten)]
    pub(crate) depth: Depth,
    #[command(flatten)]
    pub(crate) deed: Deed,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// The directories
    #[arg(value_name = "DIR", required_unless_present = "writer")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) rule: Rule,
    /// Only say what would be done: explain never does more
    #[arg(short = 'n', long, hide = true)]
    pub(crate) dry_run: bool,
    /// The files
    #[arg(value_name = "FILE", required_unless_present = "writer")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Only what was done in this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// To this path instead of the one it had; into it, if it is a directory
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<PathBuf>,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Ids, or the paths that the files had
    #[arg(value_name = "ID|FILE", required = true)]
    pub(crate) which: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// Show what is held back
    List(Rooms),
    /// Delete it for good
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct Rooms {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The directories; without any, those of the journal, of the configuration, this one and those above it
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Ids, or directories to purge; without any, everything that is found in those of the journal, of the
    /// configuration, in this one and in those above it
    #[arg(value_name = "ID|DIR")]
    pub(crate) ids: Vec<PathBuf>,
}

impl Rule {
    /// What was typed, as settings.
    pub(crate) fn settings(&self, depth: Option<&Depth>, deed: Option<&Deed>) -> RuleSettings {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let action = deed.and_then(|deed| match deed.dry_run {
            true => Some(Action::Report),
            false => deed.action.map(Into::into),
        });
        RuleSettings {
            names: list(&self.name),
            writers: list(&self.writer),
            recursive: depth.and_then(|depth| depth.recursive.then_some(true)),
            grace: self.grace,
            // A grace that is typed holds for every name.
            fixed_name_grace: self.grace,
            closed: self.closed.map(Into::into),
            open: self.open.map(Into::into),
            sole_copy: self.sole_copy.map(Into::into),
            action,
            hot: None,
            network: None,
            exclude: None,
            broad: self.allow_broad_root.then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
