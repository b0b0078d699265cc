//! Reads the configuration file: parses TOML and returns plain values.
//!
//! The parsed table is read key by key, not by serde. So each error has the position of the wrong key or value, and
//! proposes the value that was probably meant. Reading the file does not access the paths in it, because a root may be
//! created later; [`Config::roots`] checks them. The options of the command line are not part of this module: the
//! caller applies them with [`RuleSettings::over`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs, io};

use log::LevelFilter;
use orphand::core::exclude::{Exclude, ExcludeError};
use orphand::core::policy::{Action, Closed, Graces, Hot, Open, Policy, PolicyError, SoleCopy};
use orphand::core::retention::Limits;
use orphand::core::temp_name::{NameError, Names};
use orphand::fs::response;
use orphand::fs::root::{Refused, Root};
use orphand::store::regular_file::read_regular;
use orphand::watch::CLOSE_EVENTS;

use super::exit::{Exit, Failure};
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
use overlap::KnownRoots;
use spanned_error::{Position, SpannedError};

pub(crate) use rule_set::{CoveredDir, RuleLocation};
pub(crate) use section::{Lines, SECTIONS, Section};

mod entry;
mod overlap;
mod read;
mod rule_set;
mod section;
mod spanned_error;

/// The settings of one rule from one source (a section of the file, the command line). A setting that the source does
/// not have is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleSettings {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) writers: Option<Vec<String>>,
    /// Globs of folders that are not scanned, and of files that are not temps.
    pub(crate) exclude: Option<Vec<String>>,
    pub(crate) recursive: Option<bool>,
    pub(crate) grace: Option<Duration>,
    pub(crate) fixed_name_grace: Option<Duration>,
    pub(crate) closed: Option<Closed>,
    pub(crate) open: Option<Open>,
    pub(crate) sole_copy: Option<SoleCopy>,
    pub(crate) action: Option<Action>,
    pub(crate) hot: Option<Hot>,
    /// More file systems on which the proof is trusted.
    pub(crate) network: Option<Vec<String>>,
    /// True if the root may be a broad directory.
    pub(crate) broad: Option<bool>,
    /// True if `names` may have globs without a literal character.
    pub(crate) broad_names: Option<bool>,
}

/// An error in settings that are not a valid rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Names(#[from] NameError),
    #[error(transparent)]
    Exclude(#[from] ExcludeError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// A `[[watch]]` rule of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WatchRule {
    /// Absolute, with `~/` expanded.
    pub(crate) path: PathBuf,
    /// The settings of the rule itself, without the `[defaults]`.
    pub(crate) settings: RuleSettings,
    /// The position of the value of `path`.
    pub(crate) position: Position,
    pub(crate) lines: Lines,
}

/// The content of the configuration file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) defaults: RuleSettings,
    pub(crate) watch: Vec<WatchRule>,
    pub(crate) quarantine: Limits,
    pub(crate) journal: JournalSettings,
    pub(crate) log: LogSettings,
    pub(crate) metrics: MetricsSettings,
    /// The file that was read; `None` if there was none.
    pub(crate) path: Option<PathBuf>,
    /// The lines of the keys of each section, by the title of the section. The lines of a `[[watch]]` rule are in the
    /// rule.
    pub(crate) lines: BTreeMap<&'static str, Lines>,
}

/// The largest size of the file, in bytes.
const MAX_FILE_SIZE: u64 = 1_000_000;

/// The settings of the journal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JournalSettings {
    /// The size at which the journal is rotated, in bytes.
    pub(crate) max_size: u64,
}

impl Default for JournalSettings {
    fn default() -> JournalSettings {
        JournalSettings {
            max_size: 16_000_000,
        }
    }
}

/// The settings of the log of a background watcher.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogSettings {
    pub(crate) file: LogFile,
    /// The size at which the log file is rotated, in bytes.
    pub(crate) max_size: u64,
    pub(crate) level: LevelFilter,
    /// The interval at which the log sums up the programs that leave temps behind.
    pub(crate) leaks: Duration,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            file: LogFile::default(),
            max_size: 1_000_000,
            level: LevelFilter::Info,
            leaks: Duration::from_secs(60 * 60),
        }
    }
}

/// The log file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LogFile {
    /// The default file, unless stderr is a terminal or systemd's journal.
    #[default]
    Default,
    /// No file.
    Off,
    /// This file. Absolute, with `~/` expanded.
    At(PathBuf),
}

/// The settings of the metrics for a monitoring system.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsSettings {
    /// The `*.prom` file. Absolute, with `~/` expanded.
    pub(crate) textfile: Option<PathBuf>,
    /// The shortest interval at which the metrics are written.
    pub(crate) every: Duration,
}

impl Default for MetricsSettings {
    fn default() -> MetricsSettings {
        MetricsSettings {
            textfile: None,
            every: Duration::from_secs(15),
        }
    }
}

/// The first error in the file, or the reason why the file cannot be read.
#[derive(Debug)]
pub(crate) struct ConfigError {
    pub(crate) path: PathBuf,
    /// `None` if the error concerns the whole file.
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

/// The reason why the rules of the file cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// The options of the command line and the settings of the file together are not a valid rule.
    #[error(transparent)]
    Typed(#[from] SettingsError),
    #[error(transparent)]
    File(#[from] ConfigError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", text::escaped(&self.path))?;
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(Exit::Config, error)
    }
}

impl From<RootsError> for Failure {
    fn from(error: RootsError) -> Failure {
        match error {
            RootsError::Typed(error) => error.into(),
            RootsError::File(error) => error.into(),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Failure {
        Failure::new(Exit::Usage, error)
    }
}

impl RuleSettings {
    /// Returns the combination of two sources. A setting in `self` overrides the one in `lower`.
    pub(crate) fn over(self, lower: &RuleSettings) -> RuleSettings {
        // A `grace` applies to all names, so the `fixed_name_grace` of a lower source does not override it.
        let fixed_below = lower.fixed_name_grace.filter(|_| self.grace.is_none());
        RuleSettings {
            names: self.names.or_else(|| lower.names.clone()),
            writers: self.writers.or_else(|| lower.writers.clone()),
            exclude: self.exclude.or_else(|| lower.exclude.clone()),
            recursive: self.recursive.or(lower.recursive),
            grace: self.grace.or(lower.grace),
            fixed_name_grace: self.fixed_name_grace.or(fixed_below),
            closed: self.closed.or(lower.closed),
            open: self.open.or(lower.open),
            sole_copy: self.sole_copy.or(lower.sole_copy),
            action: self.action.or(lower.action),
            hot: self.hot.or(lower.hot),
            network: self.network.or_else(|| lower.network.clone()),
            broad: self.broad.or(lower.broad),
            broad_names: self.broad_names.or(lower.broad_names),
        }
    }

    /// Returns the rule for these settings, checked. Settings that are `None` have their defaults.
    pub(crate) fn policy(&self) -> Result<Policy, SettingsError> {
        let names = self.names.as_deref().unwrap_or_default();
        let writers = self.writers.as_deref().unwrap_or_default();
        let exclude = self.exclude.as_deref().unwrap_or_default();
        let given = self.grace.map(Graces::both).unwrap_or_default();
        let policy = Policy {
            names: match self.broad_names {
                Some(true) => Names::allowing_broad(names, writers)?,
                _ => Names::new(names, writers)?,
            },
            exclude: Exclude::new(exclude)?,
            grace: Graces {
                random: given.random,
                fixed: self.fixed_name_grace.unwrap_or(given.fixed),
            },
            closed: self.closed.unwrap_or_default(),
            open: self.open.unwrap_or_default(),
            sole_copy: self.sole_copy.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            recursive: self.recursive.unwrap_or_default(),
            hot: self.hot.unwrap_or_default(),
            trusted_file_systems: self.network.clone().unwrap_or_default(),
        };
        policy.check(CLOSE_EVENTS)?;
        Ok(policy)
    }
}

impl Config {
    /// Reads the file `explicit`, which must exist, or without it the default file, which need not exist.
    pub(crate) fn load(explicit: Option<&Path>) -> Result<Config, ConfigError> {
        let Some(path) = explicit.map(Path::to_owned).or_else(Config::default_path) else {
            return Ok(Config::default());
        };
        let bytes = match read_regular(&path, MAX_FILE_SIZE) {
            Ok(bytes) => bytes,
            Err(error) if explicit.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Config::default());
            }
            Err(error) => {
                let fix = match error.kind() {
                    io::ErrorKind::InvalidInput => {
                        "; write the configuration to a file and name that file: a pipe, <(...) or a \
                         device is not accepted"
                    }
                    io::ErrorKind::FileTooLarge => {
                        "; check that this is the configuration file, or reduce the number of its rules"
                    }
                    _ => "",
                };
                let message = match error.kind() {
                    io::ErrorKind::NotFound => {
                        "the file does not exist; check the name, or create it: orphand \
                                                config init --config FILE"
                            .to_owned()
                    }
                    _ => format!("cannot read the file: {error}{fix}"),
                };
                return Err(ConfigError {
                    path,
                    position: None,
                    message,
                });
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &path, absolute_variable("HOME").as_deref()),
            Err(_) => {
                let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                let error =
                    SpannedError::new(text.len(), "this is not UTF-8; save the file as UTF-8");
                Err(error.in_file(&path, text))
            }
        }
    }

    /// Returns the roots that the file lists, each with its own rule. The options `typed` override the rules. This
    /// accesses the paths: a root may be refused, and two paths may lead to the same directory.
    pub(crate) fn roots(&self, typed: &RuleSettings) -> Result<Vec<Root>, RootsError> {
        let mut roots: Vec<Root> = Vec::new();
        // By the paths in the file, and by the resolved paths.
        let mut known = [KnownRoots::default(), KnownRoots::default()];
        // All paths are probed at the same time: the directories that do not answer cost one wait in total.
        let _ = response::unresponsive(self.watch.iter().map(|rule| rule.path.as_path()));
        for rule in &self.watch {
            let settings = rule.settings.clone().over(&self.defaults);
            let settings = typed.clone().over(&settings);
            let policy = Arc::new(settings.policy()?);
            let broad = settings.broad.unwrap_or(false);
            let root = Root::new(&rule.path, Arc::clone(&policy), broad)
                .map_err(|refused| self.refused(rule, &refused))?;
            let path = resolved(&root.path);
            let both = [root.clone(), Root { path, policy }];
            let overlaps = known.iter().zip(&both);
            let overlaps = overlaps.filter_map(|(known, root)| known.overlap(root));
            // The message names the first such rule in the file, by the path in the file.
            let first = overlaps.min_by_key(|(first, _)| *first);
            if let Some((first, overlap)) = first
                && let Some(first) = self.watch.get(first)
            {
                return Err(self.error_at(rule, overlap.message(first, rule)).into());
            }
            for (known, root) in known.iter_mut().zip(both) {
                known.add(root);
            }
            roots.push(root);
        }
        Ok(roots)
    }

    /// Returns the error for a refused root. For a broad root it proposes the key, because the file has no flags.
    fn refused(&self, rule: &WatchRule, refused: &Refused) -> ConfigError {
        let what = match refused {
            Refused::NotADirectory(_) => {
                shell::refused_text(refused, Suggestion::new("explain").configured())
            }
            refused => refused.with_advice("set broad = true"),
        };
        self.error_at(rule, what)
    }

    /// Returns an error at the path of `rule`.
    fn error_at(&self, rule: &WatchRule, message: String) -> ConfigError {
        ConfigError {
            path: self.path.clone().unwrap_or_default(),
            position: Some(rule.position),
            message,
        }
    }

    /// Returns the path of the file if the command line names none. It is the same on every system.
    pub(crate) fn default_path() -> Option<PathBuf> {
        Config::default_paths()
            .into_iter()
            .find_map(|(_, path)| path)
    }

    /// Returns the candidates for the default path: each as documentation writes it, and its value if the variable that
    /// it depends on is set. The first one with a value is used.
    pub(crate) fn default_paths() -> [(&'static str, Option<PathBuf>); 2] {
        let file = |variable, below: &str| Some(absolute_variable(variable)?.join(below));
        [
            (
                "$XDG_CONFIG_HOME/orphand/config.toml",
                file("XDG_CONFIG_HOME", "orphand/config.toml"),
            ),
            (
                "~/.config/orphand/config.toml",
                file("HOME", ".config/orphand/config.toml"),
            ),
        ]
    }

    /// Parses `text`, the content of the file `path`.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        home: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        // Editors do not show the byte order mark, so it does not count as a column.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let config = read::read(text, home).map_err(|error| error.in_file(path, text))?;
        Ok(Config {
            path: Some(path.to_owned()),
            ..config
        })
    }
}

/// Returns `path` with the symlinks in its existing part resolved: two paths may lead to the same directory.
fn resolved(path: &Path) -> PathBuf {
    if !response::responds(path) {
        return path.to_owned();
    }
    let resolve = |existing: &Path| {
        let rest = path.strip_prefix(existing).ok()?;
        Some(fs::canonicalize(existing).ok()?.join(rest))
    };
    let real = path.ancestors().find_map(resolve);
    // Roots are compared without a slash at the end.
    real.map_or_else(|| path.to_owned(), |real| real.components().collect())
}

/// Returns the folder that an environment variable names, if it is absolute. A relative one would be another folder in
/// each working directory; the XDG specification says to ignore it.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}

#[cfg(test)]
mod tests;
