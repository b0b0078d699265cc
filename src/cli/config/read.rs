//! Reads the sections of the file: converts parsed tables to plain values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use log::LevelFilter;
use orphand::core::exclude::Exclude;
use orphand::core::policy::{Policy, PolicyError};
use orphand::core::retention::Limits;
use orphand::core::temp_name::{NameError, Names};
use orphand::fs::root::Root;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entry::{ConfigEntry, NONE, entries, lines};
use super::overlap::KnownRoots;
use super::section::{DEFAULTS, JOURNAL, LOG, METRICS, QUARANTINE, SECTIONS, Section, WATCH};
use super::spanned_error::{LineIndex, SpannedError};
use super::{
    Config, JournalSettings, LogFile, LogSettings, MetricsSettings, RuleSettings, SettingsError,
    WatchRule,
};
use crate::cli::choices::{ActionArg, ClosedArg, HotArg, OpenArg, SoleCopyArg};

pub(super) fn read(text: &str, home: Option<&Path>) -> Result<Config, SpannedError> {
    let document = DeTable::parse(text).map_err(|error| syntax_error(&error, text))?;
    let index = LineIndex::new(text);
    let mut config = Config::default();
    let mut watch: &[Spanned<DeValue<'_>>] = &[];
    for entry in entries(document.get_ref()) {
        let section = SECTIONS.iter().find(|section| section.has_name(entry.key));
        if let (Some(section), DeValue::Table(table)) = (section, entry.value.get_ref()) {
            config
                .lines
                .insert(section.title, lines(section, table, &index));
        }
        match (entry.key, entry.value.get_ref()) {
            ("defaults", DeValue::Table(table)) => {
                config.defaults = rule(&DEFAULTS, table)?;
                checked_policy(&config.defaults, table)?;
            }
            ("watch", DeValue::Array(rules)) => watch = rules,
            ("quarantine", DeValue::Table(table)) => config.quarantine = quarantine(table)?,
            ("journal", DeValue::Table(table)) => config.journal = journal(table)?,
            ("log", DeValue::Table(table)) => config.log = log(table, home)?,
            ("metrics", DeValue::Table(table)) => config.metrics = metrics(table, home)?,
            _ => return Err(entry.unknown_key_error(None)),
        }
    }
    // The rules are read last, because `[defaults]` may follow them in the file.
    let mut known = KnownRoots::default();
    for value in watch {
        let key = "watch";
        let at = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            return Err(ConfigEntry { key, at, value }.unknown_key_error(None));
        };
        let settings = rule(&WATCH, table)?;
        let Some(path) = entries(table).into_iter().find(|entry| entry.key == "path") else {
            let what = "this [[watch]] has no path; add path = \"DIR\"";
            return Err(SpannedError::new(at, what));
        };
        let at = path.value.span().start;
        let path = path.path(home)?;
        let policy = checked_policy(&settings.clone().over(&config.defaults), table)?.into();
        let rule = WatchRule {
            path,
            settings,
            position: index.position_at(at),
            lines: lines(&WATCH, table, &index),
        };
        let path = rule.path.clone();
        let root = Root { path, policy };
        if let Some((first, overlap)) = known.overlap(&root)
            && let Some(first) = config.watch.get(first)
        {
            return Err(SpannedError::new(at, overlap.message(first, &rule)));
        }
        known.add(root);
        config.watch.push(rule);
    }
    Ok(config)
}

/// Returns the error of the TOML parser, with a better message for the most common error, a value without quotes:
/// the parser reports it as a misspelled number or boolean, depending on its first letter.
fn syntax_error(error: &toml::de::Error, text: &str) -> SpannedError {
    const UNQUOTED: [&str; 3] = [
        "string values must be quoted",
        "invalid boolean",
        "invalid float, expected `",
    ];
    let span = error.span().unwrap_or(text.len()..text.len());
    let message = error.message();
    let word = text.get(span.clone()).unwrap_or("");
    let what = match word.to_ascii_lowercase().as_str() {
        _ if !UNQUOTED.iter().any(|start| message.starts_with(start)) => message.to_owned(),
        "" => "the value is missing".to_owned(),
        flag @ ("true" | "false") => {
            format!("{word:?} must be in lower case; did you mean {flag}?")
        }
        _ => format!("text must be in quotes; did you mean {word:?}?"),
    };
    SpannedError::new(span.start, what)
}

fn rule(section: &Section, table: &DeTable<'_>) -> Result<RuleSettings, SpannedError> {
    let mut rule = RuleSettings::default();
    for entry in entries(table) {
        match entry.key {
            key if rule!("unknown-key-is-an-error", !section.keys.contains(&key)) => {
                return Err(entry.unknown_key_error(Some(section)));
            }
            "names" => rule.names = Some(entry.names()?),
            "writers" => rule.writers = Some(entry.list(|name| Names::new(&NONE, &[name]))?),
            "exclude" => rule.exclude = Some(entry.list(|glob| Exclude::new(&[glob]))?),
            "recursive" => rule.recursive = Some(entry.flag()?),
            "grace" => rule.grace = Some(entry.grace()?),
            "fixed_name_grace" => rule.fixed_name_grace = Some(entry.grace()?),
            "closed" => rule.closed = Some(entry.choice::<ClosedArg, _>()?),
            "open" => rule.open = Some(entry.choice::<OpenArg, _>()?),
            "sole_copy" => rule.sole_copy = Some(entry.choice::<SoleCopyArg, _>()?),
            "action" => rule.action = Some(entry.choice::<ActionArg, _>()?),
            "hot" => rule.hot = Some(entry.choice::<HotArg, _>()?),
            "network" => rule.network = Some(entry.list(|_| Ok::<_, NameError>(()))?),
            "broad" => rule.broad = Some(entry.flag()?),
            "broad_names" => rule.broad_names = Some(entry.flag()?),
            _ => {}
        }
    }
    Ok(rule)
}

/// Returns the policy, or an error if the settings make no sense together though each key is valid. `settings` are the
/// settings in force, `table` is the section that overrides the others.
///
/// `[defaults]` must be valid alone, because a directory on the command line may have no other rule.
fn checked_policy(settings: &RuleSettings, table: &DeTable<'_>) -> Result<Policy, SpannedError> {
    let error = match settings.policy() {
        Ok(policy) => return Ok(policy),
        Err(error) => error,
    };
    let value = table.get("closed").or_else(|| table.get("open"));
    let at = value.map_or(0, |value| value.span().start);
    Err(match error {
        // The policy's own message proposes options of the command line.
        SettingsError::Policy(PolicyError::RemovesNothing) => SpannedError::new(
            at,
            "closed = \"settled\" with open = \"keep\" never removes anything: closed temps are \
             ignored, and open ones are kept; did you mean open = \"reap\"?",
        ),
        // A rule without `names` uses those of [defaults], and may forbid the broad ones by its own `broad_names`.
        SettingsError::Names(NameError::BroadGlob { glob }) => {
            let entries = entries(table);
            let entry = |key| entries.iter().find(|entry| entry.key == key);
            let found = entry("names").map(|entry| entry.position_of(&glob));
            let found = found.or_else(|| entry("broad_names").map(|entry| entry.at));
            let at = found.unwrap_or(at);
            SpannedError::new(at, NameError::BroadGlob { glob })
        }
        error => SpannedError::new(at, error),
    })
}

/// Parses a percentage such as "5%". "0" is the same as "0%".
fn percent(text: &str) -> Option<u8> {
    let number = match text.strip_suffix('%') {
        Some(number) => number,
        None if text == "0" => text,
        None => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number: u8 = digits.then(|| number.parse().ok()).flatten()?;
    (number <= 100).then_some(number)
}

fn quarantine(table: &DeTable<'_>) -> Result<Limits, SpannedError> {
    let mut limits = Limits::default();
    for entry in entries(table) {
        match (entry.key, entry.integer()) {
            ("keep", Some(0)) => limits.age = Duration::ZERO,
            ("keep", _) => limits.age = entry.duration()?,
            ("percent", Some(percent @ 0..=100)) => limits.percent = percent as u8,
            ("percent", _) => {
                let what = "percent must be a whole number from 1 to 100, or 0 for no limit";
                return Err(entry.error(what));
            }
            ("min_free", Some(0)) => limits.min_free = 0,
            ("min_free", _) => match entry.value.get_ref().as_str().and_then(percent) {
                Some(percent) => limits.min_free = percent,
                None => {
                    let what = "min_free must be a percentage from \"1%\" to \"100%\", or \"0\" for \
                                no limit";
                    return Err(entry.error(what));
                }
            },
            _ => return Err(entry.unknown_key_error(Some(&QUARANTINE))),
        }
    }
    Ok(limits)
}

fn journal(table: &DeTable<'_>) -> Result<JournalSettings, SpannedError> {
    let mut journal = JournalSettings::default();
    for entry in entries(table) {
        match entry.key {
            "max_size" => journal.max_size = entry.size()?,
            _ => return Err(entry.unknown_key_error(Some(&JOURNAL))),
        }
    }
    Ok(journal)
}

fn log(table: &DeTable<'_>, home: Option<&Path>) -> Result<LogSettings, SpannedError> {
    let mut log = LogSettings::default();
    for entry in entries(table) {
        match entry.key {
            "file" => log.file = log_file(entry, home)?,
            "max_size" => log.max_size = entry.size()?,
            "level" => log.level = entry.choice::<Level, _>()?,
            "leaks" => log.leaks = entry.interval()?,
            _ => return Err(entry.unknown_key_error(Some(&LOG))),
        }
    }
    Ok(log)
}

fn log_file(entry: ConfigEntry<'_>, home: Option<&Path>) -> Result<LogFile, SpannedError> {
    match entry.text()? {
        "none" => Ok(LogFile::Off),
        // A word without "/" is more likely another word for "none" than a file name.
        word if !word.contains('/') => Err(entry.error(format!(
            "file cannot be {word:?}; did you mean \"none\", or a path that begins with / or ~/?"
        ))),
        _ => entry.file(home).map(LogFile::At),
    }
}

/// The values of `level`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Debug => LevelFilter::Debug,
        }
    }
}

fn metrics(table: &DeTable<'_>, home: Option<&Path>) -> Result<MetricsSettings, SpannedError> {
    let mut metrics = MetricsSettings::default();
    for entry in entries(table) {
        match entry.key {
            "textfile" => metrics.textfile = Some(textfile(entry, home)?),
            "every" => metrics.every = entry.interval()?,
            _ => return Err(entry.unknown_key_error(Some(&METRICS))),
        }
    }
    Ok(metrics)
}

/// Reads the path of the metrics file. The collector reads only files whose names end in `.prom`.
fn textfile(entry: ConfigEntry<'_>, home: Option<&Path>) -> Result<PathBuf, SpannedError> {
    let path = entry.file(home)?;
    if path.extension().is_some_and(|end| end == "prom") {
        return Ok(path);
    }
    let text = entry.text()?;
    let stem = text.strip_suffix(".txt").unwrap_or(text);
    Err(entry.error(format!(
        "{text:?} does not end in .prom, so no collector would read it; did you mean \"{stem}.prom\"?"
    )))
}
