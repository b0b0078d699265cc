//! The configuration file: TOML in, plain values out.
//!
//! The parsed table is walked by hand, not by serde: so each mistake has the place of the very key
//! or value that is wrong, and names what was probably meant. To read it asks nothing of what stands
//! at the paths, as a root may come later; whoever is to watch them does. Absent on purpose: the
//! command line, which the caller lays over the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fmt, fs, io};

use log::LevelFilter;
use orphand::decide::exclude::{Exclude, ExcludeError};
use orphand::decide::policy::{Action, Closed, Graces, Hot, Open, Policy, PolicyError, SoleCopy};
use orphand::decide::retention::Limits;
use orphand::decide::temp_name::{NameError, Names};
use orphand::look::answer;
use orphand::root::{Refused, Root};
use orphand::state::read_regular;
use orphand::watch::CLOSE_EVENTS;

use super::shell::{self, Suggestion};
use super::text;
use overlap::KnownRoot;
use spanned_error::{Position, SpannedError};

pub(crate) use rule_set::{Covered, RuleAt};
pub(crate) use section::{Lines, SECTIONS, Section};

mod entry;
mod overlap;
mod read;
mod rule_set;
mod section;
mod spanned_error;

/// One rule's settings, each optional: what one place (the file, the command line) says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleSettings {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) writers: Option<Vec<String>>,
    /// Globs: folders that are not walked, files that are no temps.
    pub(crate) exclude: Option<Vec<String>>,
    pub(crate) recursive: Option<bool>,
    pub(crate) grace: Option<Duration>,
    pub(crate) fixed_name_grace: Option<Duration>,
    pub(crate) closed: Option<Closed>,
    pub(crate) open: Option<Open>,
    pub(crate) sole_copy: Option<SoleCopy>,
    pub(crate) action: Option<Action>,
    pub(crate) hot: Option<Hot>,
    /// File systems on which the proof is trusted too.
    pub(crate) network: Option<Vec<String>>,
    pub(crate) broad: Option<bool>,
    /// Globs without a literal character of their own are taken, too.
    pub(crate) broad_names: Option<bool>,
}

/// Settings that make no rule.
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
    /// Absolute, `~/` expanded.
    pub(crate) path: PathBuf,
    /// Without the `[defaults]`.
    pub(crate) settings: RuleSettings,
    /// Where its path stands.
    pub(crate) place: Position,
    pub(crate) lines: Lines,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) defaults: RuleSettings,
    pub(crate) watch: Vec<WatchRule>,
    pub(crate) quarantine: Limits,
    pub(crate) journal: JournalSettings,
    pub(crate) log: LogSettings,
    pub(crate) metrics: MetricsSettings,
    /// The file that was read, if there was one.
    pub(crate) path: Option<PathBuf>,
    /// Where the keys of each section stand, by its title; those of the rules are with them.
    pub(crate) lines: BTreeMap<&'static str, Lines>,
}

/// The most that the file may have: bytes.
const LARGEST: u64 = 1_000_000;

/// The journal of what was done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JournalSettings {
    /// The size at which it is rotated, bytes.
    pub(crate) max_size: u64,
}

impl Default for JournalSettings {
    fn default() -> JournalSettings {
        JournalSettings {
            max_size: 16_000_000,
        }
    }
}

/// The log of a watcher.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogSettings {
    pub(crate) file: LogFile,
    /// The size at which it is rotated, bytes.
    pub(crate) max_size: u64,
    pub(crate) level: LevelFilter,
    /// How often it is summed up who leaks.
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

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum LogFile {
    /// To the usual place, where nobody else keeps it.
    #[default]
    Usual,
    /// To no file.
    Off,
    /// To this file. Absolute, `~/` expanded.
    At(PathBuf),
}

/// The figures for a monitoring system.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MetricsSettings {
    /// The `*.prom` file that they are written to. Absolute, `~/` expanded.
    pub(crate) textfile: Option<PathBuf>,
    /// How often.
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

/// The first mistake in the file, or why it cannot be read.
#[derive(Debug)]
pub(crate) struct ConfigError {
    pub(crate) path: PathBuf,
    /// `None`: it is the whole file.
    pub(crate) place: Option<Position>,
    pub(crate) what: String,
}

/// Why the rules of the file cannot be followed as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    /// What was typed makes no rule with what the file says.
    #[error(transparent)]
    Typed(#[from] SettingsError),
    #[error(transparent)]
    File(#[from] ConfigError),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", text::escaped(&self.path))?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

impl RuleSettings {
    /// What is in force where both speak: `self` wins.
    pub(crate) fn over(self, lower: &RuleSettings) -> RuleSettings {
        // A grace holds for every name, so one given here is not undone by what stands below.
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

    /// The rule, checked. What nobody gave is as everywhere.
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
    /// Reads the file that was named, which must exist, or the usual one, which need not.
    pub(crate) fn load(explicit: Option<&Path>) -> Result<Config, ConfigError> {
        let Some(path) = explicit.map(Path::to_owned).or_else(Config::usual_path) else {
            return Ok(Config::default());
        };
        let bytes = match read_regular(&path, LARGEST) {
            Ok(bytes) => bytes,
            Err(error) if explicit.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Config::default());
            }
            Err(error) => {
                let fix = match error.kind() {
                    io::ErrorKind::InvalidInput => {
                        "; write the configuration to a file and name that: a pipe, <(...) or a \
                         device is not read"
                    }
                    io::ErrorKind::FileTooLarge => {
                        "; name the configuration file, or make fewer rules of it"
                    }
                    _ => "",
                };
                let what = format!("cannot be read: {error}{fix}");
                let place = None;
                return Err(ConfigError { path, place, what });
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &path, absolute_variable("HOME").as_deref()),
            Err(_) => {
                let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                let mistake =
                    SpannedError::new(text.len(), "this is not UTF-8; save the file as UTF-8");
                Err(mistake.in_file(&path, text))
            }
        }
    }

    /// The roots that the file lists, each with its own rule, below what is `typed`. Their paths are
    /// looked at: what stands there may be refused, and two of them may lead to one directory.
    pub(crate) fn roots(&self, typed: &RuleSettings) -> Result<Vec<Root>, RootsError> {
        let mut roots: Vec<Root> = Vec::new();
        // By the paths as they are written, and by those that they lead to.
        let mut known = [KnownRoot::default(), KnownRoot::default()];
        // All at once: those that do not answer are waited for together.
        let _ = answer::silent(self.watch.iter().map(|rule| rule.path.as_path()));
        for rule in &self.watch {
            let settings = rule.settings.clone().over(&self.defaults);
            let settings = typed.clone().over(&settings);
            let policy = Arc::new(settings.policy()?);
            let broad = settings.broad.unwrap_or(false);
            let root = Root::new(&rule.path, Arc::clone(&policy), broad)
                .map_err(|refused| self.refused(rule, &refused))?;
            let path = real(&root.path);
            let both = [root.clone(), Root { path, policy }];
            let overlaps = known.iter().zip(&both);
            let overlaps = overlaps.filter_map(|(known, root)| known.overlap(root));
            // The first rule in the file is named, and by its path as it is written.
            let first = overlaps.min_by_key(|(first, _)| *first);
            if let Some((first, overlap)) = first
                && let Some(first) = self.watch.get(first)
            {
                return Err(self.mistake(rule, overlap.say(first, rule)).into());
            }
            for (known, root) in known.iter_mut().zip(both) {
                known.add(root);
            }
            roots.push(root);
        }
        Ok(roots)
    }

    /// In the file there is no flag to take a broad root with, but a key.
    fn refused(&self, rule: &WatchRule, refused: &Refused) -> ConfigError {
        let what = match refused {
            Refused::NotADirectory(_) => {
                shell::refused(refused, Suggestion::new("explain").configured())
            }
            refused => refused.with_advice("set broad = true"),
        };
        self.mistake(rule, what)
    }

    fn mistake(&self, rule: &WatchRule, what: String) -> ConfigError {
        ConfigError {
            path: self.path.clone().unwrap_or_default(),
            place: Some(rule.place),
            what,
        }
    }

    /// Where the file is looked for when none is named, on every system.
    pub(crate) fn usual_path() -> Option<PathBuf> {
        Config::usual_paths().into_iter().find_map(|(_, path)| path)
    }

    /// The places for it, the first of which that is set counts: how each is written, and where it
    /// is here, if what it depends on is set.
    pub(crate) fn usual_paths() -> [(&'static str, Option<PathBuf>); 2] {
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

    /// Reads `text`, the content of the file `path`.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        home: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        // Editors do not show the mark, so it counts as no column.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let config = read::read(text, home).map_err(|mistake| mistake.in_file(path, text))?;
        Ok(Config {
            path: Some(path.to_owned()),
            ..config
        })
    }
}

/// Where `path` leads as far as it is there; symlinks on the way may make two of one.
fn real(path: &Path) -> PathBuf {
    if !answer::answers(path) {
        return path.to_owned();
    }
    let lead = |there: &Path| {
        let rest = path.strip_prefix(there).ok()?;
        Some(fs::canonicalize(there).ok()?.join(rest))
    };
    let real = path.ancestors().find_map(lead);
    // As roots are compared: without a slash at the end.
    real.map_or_else(|| path.to_owned(), |real| real.components().collect())
}

/// A folder that the environment names. A relative one would mean another place in each directory
/// that orphand is started from; XDG says to ignore such.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}

#[cfg(test)]
mod tests;
