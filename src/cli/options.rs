//! The options that several commands have in common.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use orphand::core::temp_name::writers;
use orphand::core::time::typed;
use orphand::fs::root::absolute;

use super::choices::{ActionArg, ClosedArg, LearnArg, OpenArg, SoleCopyArg};
use crate::cli::config::RuleSettings;
use crate::cli::output::duration;
use crate::cli::output::shell::Suggestion;

/// The options for the form and the amount of output, which every command has.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputOptions {
    /// Print JSON instead of text
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// When to use colors
    #[arg(
        long,
        global = true,
        help_heading = "Output",
        value_enum,
        default_value = "auto",
        env = "ORPHAND_COLOR"
    )]
    pub(crate) color: Color,
    /// Print less: only errors and the requested data
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Print more, for example one line for each temp
    #[arg(short, long, global = true, help_heading = "Output", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The options for the lines of a command that shows temps.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ListOptions {
    /// Print one line for each temp, even if there are many similar ones
    #[arg(long, help_heading = "Output")]
    pub(crate) list: bool,
    /// Print only the paths of the orphans to be removed, each followed by a zero byte
    #[arg(short = '0', long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) print0: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// The options of a command that applies a rule to directories: `scan`, `sweep` and `watch`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyOptions {
    #[command(flatten)]
    pub(crate) rule: RuleOptions,
    #[command(flatten)]
    recursive: RecursiveFlag,
    #[command(flatten)]
    action: ActionOptions,
}

/// The options that make up the rule for the directories. A field has the name of its key in the configuration file.
#[derive(Clone, Debug, Args)]
pub(crate) struct RuleOptions {
    /// The time for which a temp must be unused before it is removed: 250ms, 1.5s, 30s, 5m, 1h30m, 7d
    /// [default: 5m, and 1h for names without a random part]
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration::grace,
        env = "ORPHAND_GRACE",
        help_heading = "Which temps"
    )]
    grace: Option<Duration>,
    /// The names of temps, instead of *.tmp; may be repeated
    #[arg(long = "name", value_name = "GLOB", help_heading = "Which temps")]
    names: Vec<String>,
    /// Remove the temps of this program too; --writer list prints all programs; may be repeated
    #[arg(
        long = "writer",
        value_name = "WRITER",
        value_parser = WriterName,
        hide_possible_values = true,
        help_heading = "Which temps"
    )]
    pub(crate) writers: Vec<String>,
    /// Leave these files and folders alone, besides those of the configuration; may be repeated. A glob with a "/" is
    /// relative to DIR
    #[arg(long, value_name = "GLOB", help_heading = "Which temps")]
    exclude: Vec<String>,
    /// Treat a closed temp as an orphan or as finished (the kernel also closes the files of a killed writer)
    #[arg(
        long,
        value_enum,
        env = "ORPHAND_CLOSED",
        help_heading = "What is done"
    )]
    closed: Option<ClosedArg>,
    /// Keep, move or remove a temp that a running process has open
    #[arg(long, value_enum, env = "ORPHAND_OPEN", help_heading = "What is done")]
    open: Option<OpenArg>,
    /// Move, keep or remove a temp that may be the only copy of its data
    #[arg(
        long,
        value_enum,
        env = "ORPHAND_SOLE_COPY",
        help_heading = "What is done"
    )]
    sole_copy: Option<SoleCopyArg>,
    /// Learn the names of temps from healthy renames; also move temps with learned names that no --name matches
    #[arg(long, value_enum, env = "ORPHAND_LEARN", help_heading = "Which temps")]
    learn: Option<LearnArg>,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Allow broad directories, such as /, home directories and system directories
    #[arg(long = "allow-broad-root", help_heading = "Which temps")]
    broad: bool,
    /// Allow name patterns without a literal character other than ".", "-", "_" and "~", such as "*"
    #[arg(long = "allow-broad-name", help_heading = "Which temps")]
    broad_names: bool,
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
        env = "ORPHAND_RECURSIVE",
        help_heading = "Which temps"
    )]
    recursive: Option<bool>,
    /// Include subfolders, but only temps at most this many levels below DIR; 1 means directly in it
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Which temps")]
    max_depth: Option<u16>,
}

/// Parses the name of a writer. Completions propose the known ones; the configuration may have more.
#[derive(Clone)]
struct WriterName;

impl TypedValueParser for WriterName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let known = writers().map(|writer| PossibleValue::new(&*writer.name));
        let list = std::iter::once(PossibleValue::new("list"));
        Some(Box::new(list.chain(known)))
    }
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
    #[arg(
        long,
        value_enum,
        env = "ORPHAND_ACTION",
        help_heading = "What is done"
    )]
    action: Option<ActionArg>,
    /// Only show what would be done
    #[arg(
        short = 'n',
        long,
        value_parser = flag,
        env = "ORPHAND_DRY_RUN",
        help_heading = "What is done"
    )]
    dry_run: bool,
}

/// Returns the word for `value` on the command line.
fn word<V: ValueEnum>(value: V) -> String {
    let word = value.to_possible_value();
    word.map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

impl RecursiveFlag {
    /// Appends this option to `command`.
    fn append_to(&self, command: Suggestion) -> Suggestion {
        let command = match self.recursive {
            Some(false) => command.flag("--recursive=false", true),
            recursive => command.flag("-r", recursive.is_some()),
        };
        command.option("--max-depth", self.max_depth.map(|depth| depth.to_string()))
    }
}

impl PolicyOptions {
    /// Returns the `sweep` command with these options and directories, without `-n` and `--yes`. `only_reports`: with
    /// the action of the configuration, the sweep would only report.
    pub(crate) fn sweep_command(&self, dirs: &[PathBuf], only_reports: bool) -> Suggestion {
        let command = self.recursive.append_to(Suggestion::new("sweep"));
        let command = self.rule.append_to(command);
        let command = self.action.append_to(command, only_reports);
        command.args(dirs.iter().map(|dir| absolute(dir)))
    }

    /// Returns the command `scan` or `sweep` with these options, which includes the subfolders of `dirs`. It changes
    /// nothing if this one does not. `None` if an option says whether subfolders are included.
    pub(crate) fn recursive_command(&self, command: &str, dirs: &[PathBuf]) -> Option<Suggestion> {
        let RecursiveFlag {
            recursive: None, ..
        } = self.recursive
        else {
            return None;
        };
        let only_reports = self.action.dry_run || self.action.action == Some(ActionArg::Report);
        let command = Suggestion::new(command).flag("-r", true);
        let command = self.rule.append_to(command);
        let command = self.action.append_to(command, false);
        Some(command.flag("-n", only_reports).args(dirs))
    }

    /// Returns the options of the command line as settings.
    pub(crate) fn settings(&self) -> RuleSettings {
        RuleSettings {
            dry_run: self.action.dry_run,
            ..self.settings_without_dry_run()
        }
    }

    /// Returns the same settings as if no dry run was asked for.
    pub(crate) fn settings_without_dry_run(&self) -> RuleSettings {
        RuleSettings {
            recursive: match (self.recursive.recursive, self.recursive.max_depth) {
                (None, Some(_)) => Some(true),
                (recursive, _) => recursive,
            },
            max_depth: self.recursive.max_depth.map(usize::from),
            action: self.action.action,
            ..self.rule.settings()
        }
    }
}

impl ActionOptions {
    /// Appends the action to `command`, unless it only reports. `only_reports`: without an `--action`, the command
    /// would only report.
    fn append_to(&self, command: Suggestion, only_reports: bool) -> Suggestion {
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
            names,
            writers,
            exclude,
            closed,
            open,
            sole_copy,
            learn,
            config: _,
            broad,
            broad_names,
        } = self;
        let each = |command: Suggestion, option, values: &[String]| {
            let one = |command: Suggestion, value| command.option(option, Some(value));
            values.iter().fold(command, one)
        };
        let command = command.option("--grace", grace.map(typed));
        let command = each(command, "--name", names);
        let command = each(command, "--writer", writers);
        each(command, "--exclude", exclude)
            .option("--closed", closed.map(word))
            .option("--open", open.map(word))
            .option("--sole-copy", sole_copy.map(word))
            .option("--learn", learn.map(word))
            .configured()
            .flag("--allow-broad-root", *broad)
            .flag("--allow-broad-name", *broad_names)
    }

    /// Returns the options of the command line as settings.
    pub(crate) fn settings(&self) -> RuleSettings {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        RuleSettings {
            names: list(&self.names),
            writers: list(&self.writers),
            own_exclude: self.exclude.clone(),
            grace: self.grace,
            // A grace on the command line applies to all names.
            fixed_name_grace: self.grace,
            closed: self.closed,
            open: self.open,
            sole_copy: self.sole_copy,
            learn: self.learn,
            broad: self.broad.then_some(true),
            broad_names: self.broad_names.then_some(true),
            ..RuleSettings::default()
        }
    }
}
