//! The definitions of the command line: commands, options and their help texts.

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

/// Finds the temp files that killed atomic writers left behind. Removes such a file only after proving three things:
/// no process has it open, its writer is gone, and its target has content.
#[derive(Debug, Parser)]
#[command(
    name = "orphand",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "\
Examples:
  orphand scan ~/.app/sessions                 list temps and what would be removed; changes nothing
  orphand watch --grace 10s ~/.app/sessions    watch it, and print each action with its reason
  orphand sweep -n ~/.app/sessions             show what one pass would remove
  orphand explain ~/.app/sessions/x.json.tmp   show every gate, its evidence and the verdict

Exit: 0 done, even if temps were kept · 1 failed · 2 wrong usage or a refused directory ·
3 something could not be read, removed or determined · 4 the service is not installed ·
5 it runs, but with a problem · 10 orphans found (scan --exit-code) ·
75 another orphand works on the directory · 78 the configuration is invalid ·
129 SIGHUP ended a sweep · 130 SIGINT did · 143 SIGTERM did")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputOptions,
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

/// The options for the form and the amount of output, which every command has.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputOptions {
    /// Print JSON: one object a line for watch and sweep, one document for scan and explain
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colors
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        env = "ORPHAND_COLOR"
    )]
    pub(crate) color: Color,
    /// Print only errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print more, such as each temp that is tracked or settled
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
    /// Move files out of the quarantine; never overwrites
    Restore(Restore),
    /// List or empty the quarantine
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Show the running watcher: its directories, its temps and the space it has freed
    Status(super::status::StatusOptions),
    /// Install, start and stop orphand as a service of launchd or systemd
    Service(super::service::Service),
    /// Create, check and show the configuration file
    #[command(subcommand)]
    Config(super::config::ConfigCommand),
    /// Find problems that prevent orphand from working, with a fix for each
    Doctor(super::doctor::Doctor),
    /// Print completions for a shell
    Completions(super::completions::Completions),
    /// Print the manual, or write its pages to a folder
    Man(super::man::Man),
}

/// The options that make up the rule for the directories.
#[derive(Clone, Debug, Args)]
pub(crate) struct RuleOptions {
    /// The time for which no process may have used a temp: 250ms, 1.5s, 30s, 5m, 1h30m, 7d
    /// [default: 5m, and 1h for names without a random part]
    #[arg(long, value_name = "TIME", value_parser = duration::grace, env = "ORPHAND_GRACE")]
    grace: Option<Duration>,
    /// The names of temps, instead of *.tmp; may be repeated
    #[arg(long, value_name = "GLOB")]
    name: Vec<String>,
    /// Process the temps of this writer too; "list" prints all writers; may be repeated
    #[arg(long, value_name = "GRAMMAR")]
    pub(crate) writer: Vec<String>,
    /// Treat a closed temp as orphan or as settled (the kernel also closes the files of a killed writer)
    #[arg(long, value_enum, env = "ORPHAND_CLOSED")]
    closed: Option<ClosedArg>,
    /// Keep, move or remove a temp that a running process has open
    #[arg(long, value_enum, env = "ORPHAND_OPEN")]
    open: Option<OpenArg>,
    /// Move, keep or remove a temp that may be the only copy of its data
    #[arg(long, value_enum, env = "ORPHAND_SOLE_COPY")]
    sole_copy: Option<SoleCopyArg>,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Allow directories that hold files of more than one program
    #[arg(long)]
    pub(crate) allow_broad_root: bool,
    /// Allow name patterns without a literal letter or digit, such as "*"
    #[arg(long)]
    allow_broad_name: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RecursiveFlag {
    /// Include subfolders; --recursive=false leaves them out, even if the configuration includes them
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

/// Parses the value of a flag or of a variable that is on or off.
fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("write 1, true, yes or on, or 0, false, no or off".to_owned()),
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ActionOptions {
    /// Delete, move or only report an orphan
    #[arg(long, value_enum, env = "ORPHAND_ACTION")]
    action: Option<ActionArg>,
    /// Only show what would be done
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
    /// Treatment of temps that exist at the start [default: wait on a terminal, else take]
    #[arg(long, value_enum)]
    pub(crate) existing: Option<ExistingArg>,
    /// Wait for a DIR that does not exist yet; without a terminal, watch always waits
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
    /// Do not ask for confirmation
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
    /// Only show what would be done; explain never does more
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
    /// Only actions since then: 90m or 7d ago, today, yesterday, 2026-11-28, 2026-11-28T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) since: Option<Moment>,
    /// Only actions until then; a day means its beginning, at 00:00 local time
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub(crate) until: Option<Moment>,
    /// Only actions in these directories and below them
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

/// Parses a number of lines.
fn number(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "write a whole number, like 20".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Restore to this path instead of the old one; into it, if it is a directory
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<PathBuf>,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Ids, or the old paths of the files
    #[arg(value_name = "ID|FILE", required = true)]
    pub(crate) which: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the files in quarantine
    List(QuarantineOptions),
    /// Delete files in quarantine permanently
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineOptions {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The directories; without any, those of the journal and of the configuration, the current one and those above it
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// Ids, or directories to purge; without any, all files in the quarantines of the directories of the journal and
    /// of the configuration, of the current directory and of those above it
    #[arg(value_name = "ID|DIR")]
    pub(crate) ids: Vec<PathBuf>,
}

/// Returns the word for `value` on the command line.
fn word<V: ValueEnum>(value: V) -> String {
    let word = value.to_possible_value();
    word.map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

impl RecursiveFlag {
    /// Appends this option to `command`.
    pub(crate) fn append_to(&self, command: Suggestion) -> Suggestion {
        match self.recursive {
            Some(false) => command.flag("--recursive=false", true),
            recursive => command.flag("-r", recursive.is_some()),
        }
    }
}

/// Returns the `sweep` command with these options and directories, without `-n` and `--yes`. `only_reports`: with the
/// action of the configuration, the sweep would only report.
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
    /// Returns the same options without the dry run.
    pub(crate) fn without_dry_run(&self) -> ActionOptions {
        ActionOptions {
            dry_run: false,
            ..self.clone()
        }
    }

    /// Appends the action to `command`, unless it only reports. `only_reports`: without an `--action`, the command
    /// would only report.
    pub(crate) fn append_to(&self, command: Suggestion, only_reports: bool) -> Suggestion {
        let deletes = only_reports.then_some(ActionArg::Delete);
        let given = self
            .action
            .filter(|action| !matches!(action, ActionArg::Report));
        command.option("--action", given.or(deletes).map(word))
    }
}

impl RuleOptions {
    /// Appends every option that a verdict depends on to `command`.
    pub(crate) fn append_to(&self, command: Suggestion) -> Suggestion {
        // A new option does not compile until it is handled here.
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

    /// Returns the options of the command line as settings.
    pub(crate) fn settings(
        &self,
        recursive: Option<&RecursiveFlag>,
        action: Option<&ActionOptions>,
    ) -> RuleSettings {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let action = action.and_then(|options| match options.dry_run {
            true => Some(Action::Report),
            false => options.action.map(Into::into),
        });
        RuleSettings {
            names: list(&self.name),
            writers: list(&self.writer),
            recursive: recursive.and_then(|flag| flag.recursive),
            grace: self.grace,
            // A grace on the command line applies to all names.
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
