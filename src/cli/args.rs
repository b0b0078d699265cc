//! The command line, as typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use orphand::decide::policy::Action;
use orphand::decide::time::typed;
use orphand::root::absolute;

use super::choices::{ActionArg, ClosedArg, ExistingArg, OpenArg, SoleCopyArg};
use super::config_file::RuleSettings;
use super::duration;
use super::moment::{self, Moment};
use super::shell::Suggestion;

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
75 another orphand works there · 78 the configuration is wrong ·
129 SIGHUP ended a sweep · 130 SIGINT did · 143 SIGTERM did")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// How it is said.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputOptions {
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
pub(crate) enum CliCommand {
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
    Quarantine(QuarantineCommand),
    /// Show what the running watcher watches, holds back and has freed
    Status(super::status::StatusOptions),
    /// Install, start and stop it as a service of launchd or systemd
    Service(super::service::Service),
    /// Make, check and show the configuration file
    #[command(subcommand)]
    Config(super::config::ConfigCommand),
    /// Look for what would keep orphand from working, each with its cure
    Doctor(super::doctor::Doctor),
    /// Print completions for a shell
    Completions(super::completions::Completions),
    /// Print the manual, or write its pages to a folder
    Man(super::man::Man),
}

/// The rule for the directories.
#[derive(Clone, Debug, Args)]
pub(crate) struct RuleOptions {
    /// How long no process may have used a temp: 250ms, 1.5s, 30s, 5m, 1h30m, 7d
    /// [default: 5m, and 1h for names without a random part]
    #[arg(long, value_name = "TIME", value_parser = duration::grace, env = "ORPHAND_GRACE")]
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
    /// Take name patterns without any letter or digit of their own, too, like "*"
    #[arg(long)]
    allow_broad_name: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RecursiveFlag {
    /// Below the directories too; --recursive=false: not, whatever the configuration says
    #[arg(
        short,
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = flag,
        env = "ORPHAND_RECURSIVE"
    )]
    recursive: Option<bool>,
}

/// Reads a variable that is on or off.
fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("say 1, true, yes or on, or 0, false, no or off".to_owned()),
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ActionOptions {
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
    pub(crate) rule: RuleOptions,
    #[command(flatten)]
    pub(crate) recursive: RecursiveFlag,
    #[command(flatten)]
    pub(crate) action: ActionOptions,
    /// What becomes of temps that were there before [default: wait on a terminal, else take]
    #[arg(long, value_enum)]
    pub(crate) existing: Option<ExistingArg>,
    /// Wait for a DIR that does not exist yet; without a terminal that needs no option
    #[arg(long)]
    pub(crate) wait: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    #[command(flatten)]
    pub(crate) recursive: RecursiveFlag,
    #[command(flatten)]
    pub(crate) action: ActionOptions,
    /// Exit with 10 if there are orphans
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    #[command(flatten)]
    pub(crate) recursive: RecursiveFlag,
    #[command(flatten)]
    pub(crate) action: ActionOptions,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// The directories; without any, those of the configuration file
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    /// Only say what would be done: explain never does more
    #[arg(short = 'n', long, hide = true)]
    pub(crate) dry_run: bool,
    /// The files
    #[arg(value_name = "FILE", required_unless_present = "writer")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// Only the last N lines
    #[arg(short = 'n', value_name = "N", value_parser = number)]
    pub(crate) last: Option<usize>,
    /// Only from then on: 90m or 7d ago, today, yesterday, 2026-11-28, 2026-11-28T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) since: Option<Moment>,
    /// Only until then; a day is its beginning, at 00:00 local time
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) until: Option<Moment>,
    /// Only what was done in these directories and below them
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

/// Reads how many lines.
fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "say a whole number, like 20".to_owned())
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
pub(crate) enum QuarantineCommand {
    /// Show what is held back
    List(QuarantineOptions),
    /// Delete it for good
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineOptions {
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

/// Returns the word that is typed for `value`.
fn word<V: ValueEnum>(value: V) -> String {
    let word = value.to_possible_value();
    word.map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

impl RecursiveFlag {
    /// Returns `command` with this option.
    pub(crate) fn append_to(&self, command: Suggestion) -> Suggestion {
        match self.recursive {
            Some(false) => command.flag("--recursive=false", true),
            recursive => command.flag("-r", recursive.is_some()),
        }
    }
}

/// Returns the command that sweeps what these options and directories say, but for `-n` and `--yes`.
/// `only_reports`: the configuration would make a dry run of it.
pub(crate) fn sweep_command(
    rule: &RuleOptions,
    recursive: &RecursiveFlag,
    action: &ActionOptions,
    dirs: &[PathBuf],
    only_reports: bool,
) -> Suggestion {
    let command = recursive.append_to(Suggestion::new("sweep"));
    let command = action.append_to(rule.append_to(command), only_reports);
    command.args(dirs.iter().map(|dir| absolute(dir)))
}

impl ActionOptions {
    /// The same without a dry run.
    pub(crate) fn without_dry_run(&self) -> ActionOptions {
        ActionOptions {
            dry_run: false,
            ..self.clone()
        }
    }

    /// Returns `command` with what is to happen to an orphan, but for a dry run. `only_reports`: without an
    /// option it would be one.
    pub(crate) fn append_to(&self, command: Suggestion, only_reports: bool) -> Suggestion {
        let deletes = only_reports.then_some(ActionArg::Delete);
        let given = self
            .action
            .filter(|action| !matches!(action, ActionArg::Report));
        command.option("--action", given.or(deletes).map(word))
    }
}

impl RuleOptions {
    /// Returns `command` with every option of these that a verdict depends on.
    pub(crate) fn append_to(&self, command: Suggestion) -> Suggestion {
        // A new option is an error here until it is repeated.
        let RuleOptions {
            grace,
            name,
            writer,
            closed,
            open,
            sole_copy,
            config: _,
            allow_broad_root,
            allow_broad_name,
        } = self;
        let each = |command: Suggestion, option, values: &[String]| {
            let one = |command: Suggestion, value| command.option(option, Some(value));
            values.iter().fold(command, one)
        };
        let command = command.option("--grace", grace.map(typed));
        let command = each(command, "--name", name);
        each(command, "--writer", writer)
            .option("--closed", closed.map(word))
            .option("--open", open.map(word))
            .option("--sole-copy", sole_copy.map(word))
            .configured()
            .flag("--allow-broad-root", *allow_broad_root)
            .flag("--allow-broad-name", *allow_broad_name)
    }

    /// What was typed, as settings.
    pub(crate) fn settings(
        &self,
        depth: Option<&RecursiveFlag>,
        deed: Option<&ActionOptions>,
    ) -> RuleSettings {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let action = deed.and_then(|deed| match deed.dry_run {
            true => Some(Action::Report),
            false => deed.action.map(Into::into),
        });
        RuleSettings {
            names: list(&self.name),
            writers: list(&self.writer),
            recursive: depth.and_then(|depth| depth.recursive),
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
            broad_names: self.allow_broad_name.then_some(true),
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
