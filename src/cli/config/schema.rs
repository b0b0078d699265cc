//! The settings of the configuration file. A setting is a field here and a line of `template.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use orphand::core::exclude::Exclude;
use orphand::core::policy::{Graces, Policy};
use orphand::core::retention::Limits;
use orphand::core::temp_name::{Names, OwnWriters};
use orphand::watch::CLOSE_EVENTS;
use serde::{Deserialize, Serialize};

use super::error::{Position, SettingsError};
use super::value::{self, LogFile};
use crate::cli::choices::{ActionArg, ClosedArg, HotArg, LearnArg, LogLevel, OpenArg, SoleCopyArg};

/// The content of the configuration file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Config {
    pub(crate) defaults: RuleSettings,
    #[serde(skip)]
    pub(crate) watch: Vec<WatchRule>,
    /// The lines of the keys of each `[[writer]]`. The writers themselves are in `defaults`.
    #[serde(skip)]
    pub(crate) writer_lines: Vec<Lines>,
    #[serde(with = "Quarantine")]
    pub(crate) quarantine: Limits,
    pub(crate) journal: JournalSettings,
    pub(crate) log: LogSettings,
    pub(crate) metrics: MetricsSettings,
    pub(crate) alert: AlertSettings,
    /// The file that was read; `None` if there was none.
    #[serde(skip)]
    pub(crate) path: Option<PathBuf>,
    /// The lines of the keys of each section, by the title of the section. The lines of a `[[watch]]` rule are in the
    /// rule.
    #[serde(skip)]
    pub(crate) lines: BTreeMap<&'static str, Lines>,
}

/// The line number of each key of a section.
pub(crate) type Lines = BTreeMap<&'static str, usize>;

/// The settings of one rule from one source (a section of the file, the command line). A setting that the source does
/// not have is `None`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RuleSettings {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) writers: Option<Vec<String>>,
    /// True if a lower source turns off the writers that are on by default.
    #[serde(skip)]
    pub(crate) no_default_writers: bool,
    /// The writers of the `[[writer]]` sections, which `writers` can name.
    #[serde(skip)]
    pub(crate) own_writers: OwnWriters,
    /// Globs of folders that are not scanned, and of files that are not temps.
    pub(crate) exclude: Option<Vec<String>>,
    /// The guard file: absolute with `~/` expanded, or relative to the directory of the temp.
    #[serde(
        deserialize_with = "value::guard_file",
        serialize_with = "value::write_path"
    )]
    pub(crate) unless_open: Option<PathBuf>,
    /// More globs, which are relative to the root, from the command line.
    #[serde(skip)]
    pub(crate) own_exclude: Vec<String>,
    /// The largest number of levels below the root, from the command line.
    #[serde(skip)]
    pub(crate) max_depth: Option<usize>,
    pub(crate) recursive: Option<bool>,
    #[serde(
        deserialize_with = "value::grace",
        serialize_with = "value::write_duration"
    )]
    pub(crate) grace: Option<Duration>,
    #[serde(
        deserialize_with = "value::grace",
        serialize_with = "value::write_duration"
    )]
    pub(crate) fixed_name_grace: Option<Duration>,
    pub(crate) closed: Option<ClosedArg>,
    pub(crate) open: Option<OpenArg>,
    pub(crate) sole_copy: Option<SoleCopyArg>,
    pub(crate) action: Option<ActionArg>,
    /// True if nothing is changed, from the command line: what `action` would do is only reported.
    #[serde(skip)]
    pub(crate) dry_run: bool,
    pub(crate) hot: Option<HotArg>,
    pub(crate) learn: Option<LearnArg>,
    /// More file systems on which the proof is trusted.
    pub(crate) network: Option<Vec<String>>,
    /// True if the root may be a broad directory.
    pub(crate) broad: Option<bool>,
    /// True if `names` may have globs without a literal character.
    pub(crate) broad_names: Option<bool>,
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

/// The key of a `[[watch]]` rule that `[defaults]` does not have.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RulePath {
    #[serde(deserialize_with = "value::path")]
    pub(super) path: Option<PathBuf>,
}

/// The section `[quarantine]`.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct QuarantineSection(#[serde(with = "Quarantine")] pub(super) Limits);

/// The settings of the quarantine, as [`Limits`].
#[derive(Deserialize, Serialize)]
#[serde(default = "Limits::default", remote = "Limits")]
struct Quarantine {
    #[serde(rename = "keep")]
    #[serde(
        deserialize_with = "value::time_limit",
        serialize_with = "value::write_duration"
    )]
    age: Duration,
    #[serde(deserialize_with = "value::percent")]
    percent: u8,
    #[serde(
        deserialize_with = "value::min_free",
        serialize_with = "value::write_percent"
    )]
    min_free: u8,
}

/// The settings of the journal.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct JournalSettings {
    /// The size at which the journal is rotated, in bytes.
    #[serde(
        deserialize_with = "value::max_size",
        serialize_with = "value::write_size"
    )]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct LogSettings {
    pub(crate) file: LogFile,
    /// The size at which the log file is rotated, in bytes.
    #[serde(
        deserialize_with = "value::max_size",
        serialize_with = "value::write_size"
    )]
    pub(crate) max_size: u64,
    pub(crate) level: LogLevel,
    /// The interval at which the log sums up the programs that leave temps behind.
    #[serde(
        deserialize_with = "value::interval",
        serialize_with = "value::write_duration"
    )]
    pub(crate) leaks: Duration,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            file: LogFile::default(),
            max_size: 1_000_000,
            level: LogLevel::Info,
            leaks: Duration::from_secs(60 * 60),
        }
    }
}

/// The settings of the metrics for a monitoring system.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct MetricsSettings {
    /// The `*.prom` file. Absolute, with `~/` expanded.
    #[serde(
        deserialize_with = "value::textfile",
        serialize_with = "value::write_path"
    )]
    pub(crate) textfile: Option<PathBuf>,
    /// The shortest interval at which the metrics are written.
    #[serde(
        deserialize_with = "value::interval",
        serialize_with = "value::write_duration"
    )]
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

/// The settings of the command that is run when there are many leaks.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct AlertSettings {
    /// The program and its arguments. `None`: there are no alerts.
    #[serde(deserialize_with = "value::command")]
    pub(crate) command: Option<Vec<String>>,
    /// The shortest interval between two alerts about one root, in which leaks are counted.
    #[serde(
        deserialize_with = "value::interval",
        serialize_with = "value::write_duration"
    )]
    pub(crate) every: Duration,
    /// The number of leaks that cause an alert; 0 for no limit.
    pub(crate) leaks: u64,
    /// The disk space of leaks that causes an alert, in bytes; 0 for no limit.
    #[serde(
        deserialize_with = "value::size_limit",
        serialize_with = "value::write_size"
    )]
    pub(crate) bytes: u64,
    /// The percentage of free space below which there is an alert; 0 for no limit.
    #[serde(
        deserialize_with = "value::min_free",
        serialize_with = "value::write_percent"
    )]
    pub(crate) min_free: u8,
}

impl Default for AlertSettings {
    fn default() -> AlertSettings {
        AlertSettings {
            command: None,
            every: Duration::from_secs(60 * 60),
            leaks: 0,
            bytes: 0,
            min_free: 0,
        }
    }
}

impl RuleSettings {
    /// Returns the combination of two sources. A setting in `self` overrides the one in `lower`.
    pub(crate) fn over(self, lower: &RuleSettings) -> RuleSettings {
        // A `grace` applies to all names, so the `fixed_name_grace` of a lower source does not override it.
        let fixed_below = lower.fixed_name_grace.filter(|_| self.grace.is_none());
        let no_default_writers =
            self.turns_off_default_writers() || lower.turns_off_default_writers();
        RuleSettings {
            names: self.names.or_else(|| lower.names.clone()),
            writers: self.writers.or_else(|| lower.writers.clone()),
            no_default_writers,
            // Only the file has them, so at most one of the two is not empty, or both are the same.
            own_writers: match self.own_writers.is_empty() {
                false => self.own_writers,
                true => lower.own_writers.clone(),
            },
            exclude: self.exclude.or_else(|| lower.exclude.clone()),
            unless_open: self.unless_open.or_else(|| lower.unless_open.clone()),
            own_exclude: [self.own_exclude, lower.own_exclude.clone()].concat(),
            max_depth: self.max_depth.or(lower.max_depth),
            recursive: self.recursive.or(lower.recursive),
            grace: self.grace.or(lower.grace),
            fixed_name_grace: self.fixed_name_grace.or(fixed_below),
            closed: self.closed.or(lower.closed),
            open: self.open.or(lower.open),
            sole_copy: self.sole_copy.or(lower.sole_copy),
            action: self.action.or(lower.action),
            dry_run: self.dry_run || lower.dry_run,
            hot: self.hot.or(lower.hot),
            learn: self.learn.or(lower.learn),
            network: self.network.or_else(|| lower.network.clone()),
            broad: self.broad.or(lower.broad),
            broad_names: self.broad_names.or(lower.broad_names),
        }
    }

    /// Reports whether the writers that are on by default are off: `writers = []` or other names than `*.tmp` do that.
    /// A higher source only adds to the writers.
    fn turns_off_default_writers(&self) -> bool {
        let has_other_names = |names: &[String]| names.iter().any(|name| name != "*.tmp");
        self.no_default_writers
            || self.writers.as_deref().is_some_and(<[_]>::is_empty)
            || self.names.as_deref().is_some_and(has_other_names)
    }

    /// Returns the rule for these settings, checked. Settings that are `None` have their defaults.
    pub(crate) fn policy(&self) -> Result<Policy, SettingsError> {
        let names = self.names.as_deref().unwrap_or_default();
        let writers = self.writers.as_deref().unwrap_or_default();
        let exclude = self.exclude.as_deref().unwrap_or_default();
        let mut exclude = Exclude::new(exclude)?;
        exclude.add_own(&self.own_exclude)?;
        if let Some(depth) = self.max_depth {
            exclude.set_max_depth(depth);
        }
        let given = self.grace.map(Graces::both).unwrap_or_default();
        let allow_broad = self.broad_names.unwrap_or(false);
        let names = Names::with_own_writers(names, writers, &self.own_writers, allow_broad)?;
        let policy = Policy {
            names: match self.turns_off_default_writers() {
                true => names,
                false => names.with_default_writers(),
            },
            exclude,
            unless_open: self.unless_open.clone(),
            grace: Graces {
                random: given.random,
                fixed: self.fixed_name_grace.unwrap_or(given.fixed),
            },
            closed: self.closed.map(Into::into).unwrap_or_default(),
            open: self.open.map(Into::into).unwrap_or_default(),
            sole_copy: self.sole_copy.map(Into::into).unwrap_or_default(),
            action: self.action.map(Into::into).unwrap_or_default(),
            dry_run: self.dry_run,
            recursive: self.recursive.unwrap_or_default(),
            hot: self.hot.map(Into::into).unwrap_or_default(),
            learn: self.learn.map(Into::into).unwrap_or_default(),
            trusted_file_systems: self.network.clone().unwrap_or_default(),
        };
        policy.check(CLOSE_EVENTS)?;
        Ok(policy)
    }
}
