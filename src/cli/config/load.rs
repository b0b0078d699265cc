//! Reads the file: parses its text, and checks the settings.

use std::path::{Path, PathBuf};
use std::{env, io};

use orphand::core::sort::map_of;
use orphand::core::temp_name::{OwnWriters, WriterGrammar};
use orphand::fs::root::Root;
use orphand::store::regular_file::read_regular;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::checked_policy;
use super::error::{ConfigError, LineIndex};
use super::keys::{Section, check_keys, sections, template_lines};
use super::overlap::KnownRoots;
use super::path::expand;
use super::reader::{Entry, SpannedError, entries, error_at, offset_of, read};
use super::schema::{Config, Lines, QuarantineSection, RulePath, RuleSettings, WatchRule};
use super::value::LogFile;

/// The largest size of the file, in bytes.
const MAX_FILE_SIZE: u64 = 1_000_000;

impl Config {
    /// Does the same as [`Config::load`] for a command that works without the file too. If there is an error, the
    /// configuration is the default one.
    pub(crate) fn load_or_default(explicit: Option<&Path>) -> (Config, Option<ConfigError>) {
        match Config::load(explicit) {
            Ok(config) => (config, None),
            Err(error) => (Config::default(), Some(error)),
        }
    }

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
                return Err(ConfigError {
                    path,
                    position: None,
                    message: unreadable(&error),
                });
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &path, absolute_variable("HOME").as_deref()),
            Err(_) => {
                let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                let error =
                    SpannedError::new(text.len(), "this is not UTF-8; save the file as UTF-8");
                Err(in_file(&error, &path, text))
            }
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
        let config = parse(text, home).map_err(|error| in_file(&error, path, text))?;
        Ok(Config {
            path: Some(path.to_owned()),
            ..config
        })
    }
}

/// Returns the default of every setting of a rule, as the template has them.
pub(crate) fn built_in() -> RuleSettings {
    let text = template_lines().collect::<Vec<_>>().join("\n");
    let config = parse(&text, Some(Path::new("/")));
    let defaults = config.map(|config| config.defaults).unwrap_or_default();
    RuleSettings {
        // The template has examples of these, because they have no default.
        own_writers: OwnWriters::default(),
        unless_open: None,
        ..defaults
    }
}

/// Returns the message for a file that cannot be read.
fn unreadable(error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::NotFound => {
            return "the file does not exist; check the name, or create it: orphand config init \
                    --config FILE"
                .to_owned();
        }
        io::ErrorKind::InvalidInput => {
            "; write the configuration to a file and name that file: a pipe, <(...) or a device is \
             not accepted"
        }
        io::ErrorKind::FileTooLarge => {
            "; check that this is the configuration file, or reduce the number of its rules"
        }
        _ => "",
    };
    format!("cannot read the file: {error}{fix}")
}

fn in_file(error: &SpannedError, path: &Path, text: &str) -> ConfigError {
    ConfigError {
        path: path.to_owned(),
        position: Some(LineIndex::new(text).position_at(error.at())),
        message: error.to_string(),
    }
}

fn parse(text: &str, home: Option<&Path>) -> Result<Config, SpannedError> {
    let document = DeTable::parse(text).map_err(|error| syntax_error(&error, text))?;
    let document = document.get_ref();
    let index = LineIndex::new(text);
    check_keys(document)?;
    let mut config = Config::default();
    for section in sections() {
        if let Some(DeValue::Table(table)) = document.get(section.name()).map(Spanned::get_ref) {
            let lines = lines(section, table, &index);
            config.lines.insert(section.title, lines);
        }
    }
    let own_writers = read_writers(&mut config, document, &index)?;
    config.defaults.own_writers = own_writers.clone();
    for entry in entries(document) {
        if let DeValue::Table(table) = entry.value.get_ref() {
            read_section(&mut config, entry.key, table, home)?;
        }
    }
    // The rules are read last, because `[defaults]` may follow them in the file.
    read_rules(&mut config, document, home, &index)?;
    Ok(config)
}

/// Reads a section other than `[[watch]]`.
fn read_section(
    config: &mut Config,
    name: &str,
    table: &DeTable<'_>,
    home: Option<&Path>,
) -> Result<(), SpannedError> {
    match name {
        "defaults" => {
            let own_writers = std::mem::take(&mut config.defaults.own_writers);
            config.defaults = read_settings(table, home)?;
            config.defaults.own_writers = own_writers;
            // It must be valid alone, because a directory on the command line may have no other rule.
            checked_policy(&config.defaults, table)?;
        }
        "quarantine" => config.quarantine = read::<QuarantineSection>(table)?.0,
        "journal" => config.journal = read(table)?,
        "log" => {
            config.log = read(table)?;
            if let LogFile::At(path) = &mut config.log.file {
                expand(path, home).map_err(|what| error_at(table, "file", what))?;
            }
        }
        "metrics" => {
            config.metrics = read(table)?;
            if let Some(path) = &mut config.metrics.textfile {
                expand(path, home).map_err(|what| error_at(table, "textfile", what))?;
            }
        }
        "alert" => config.alert = read(table)?,
        _ => {}
    }
    Ok(())
}

/// Reads the settings of a rule.
fn read_settings(table: &DeTable<'_>, home: Option<&Path>) -> Result<RuleSettings, SpannedError> {
    let mut settings: RuleSettings = read(table)?;
    if let Some(path) = &mut settings.unless_open {
        expand(path, home).map_err(|what| error_at(table, "unless_open", what))?;
    }
    Ok(settings)
}

/// Returns the lines of the keys of a table.
fn lines(section: &Section, table: &DeTable<'_>, index: &LineIndex<'_>) -> Lines {
    let line = |entry: Entry<'_>| {
        let key = section.keys.iter().find(|key| **key == entry.key)?;
        Some((*key, index.position_at(entry.at).0))
    };
    map_of(entries(table).into_iter().filter_map(line))
}

/// Reads the `[[writer]]` sections.
fn read_writers(
    config: &mut Config,
    document: &DeTable<'_>,
    index: &LineIndex<'_>,
) -> Result<OwnWriters, SpannedError> {
    let Some(section) = sections().iter().find(|section| section.name() == "writer") else {
        return Ok(OwnWriters::default());
    };
    let writers = document.get(section.name());
    let writers = writers.and_then(|writers| writers.get_ref().as_array());
    let writers: Vec<_> = writers.into_iter().flatten().collect();
    let tables = writers
        .iter()
        .filter_map(|value| value.get_ref().as_table());
    let mut rows: Vec<WriterGrammar> = Vec::new();
    for table in tables {
        rows.push(read(table)?);
        config.writer_lines.push(lines(section, table, index));
    }
    OwnWriters::new(rows).map_err(|(at, error)| {
        let section = writers.get(at);
        let table = section.and_then(|value| value.get_ref().as_table());
        let value = error.key.and_then(|key| table?.get(key));
        let item = value.and_then(|value| value.get_ref().as_array()?.get(error.index));
        let at = item.or(value).map(|value| value.span().start);
        let section = || section.map_or(0, |value| value.span().start);
        SpannedError::new(at.unwrap_or_else(section), error)
    })
}

/// Reads the `[[watch]]` rules, which must not overlap.
fn read_rules(
    config: &mut Config,
    document: &DeTable<'_>,
    home: Option<&Path>,
    index: &LineIndex<'_>,
) -> Result<(), SpannedError> {
    let Some(section) = sections().iter().find(|section| section.name() == "watch") else {
        return Ok(());
    };
    let rules = document.get(section.name());
    let rules = rules.and_then(|rules| rules.get_ref().as_array());
    let mut known = KnownRoots::default();
    for value in rules.into_iter().flatten() {
        let DeValue::Table(table) = value.get_ref() else {
            continue; // `check_keys` has returned an error for it
        };
        let settings = read_settings(table, home)?;
        let RulePath {
            path: Some(mut path),
        } = read(table)?
        else {
            let what = "this [[watch]] has no path; add path = \"DIR\"";
            return Err(SpannedError::new(value.span().start, what));
        };
        expand(&mut path, home).map_err(|what| error_at(table, "path", what))?;
        let policy = checked_policy(&settings.clone().over(&config.defaults), table)?.into();
        let rule = WatchRule {
            path: path.clone(),
            settings,
            position: index.position_at(offset_of(table, "path")),
            lines: lines(section, table, index),
        };
        let root = Root { path, policy };
        if let Some((first, overlap)) = known.overlap(&root)
            && let Some(first) = config.watch.get(first)
        {
            return Err(error_at(table, "path", overlap.message(first, &rule)));
        }
        known.add(root);
        config.watch.push(rule);
    }
    Ok(())
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

/// Returns the folder that an environment variable names, if it is absolute. A relative one would be another folder in
/// each working directory; the XDG specification says to ignore it.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}
