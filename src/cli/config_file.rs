//! The configuration file: TOML in, plain values out.
//!
//! The parsed table is walked by hand, not by serde: so each mistake has the place of the very key
//! or value that is wrong, and names what was probably meant. Absent on purpose: the command line,
//! which the caller lays over the file, and what stands at the paths; a root may come later.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, fs, io};

use clap::ValueEnum;
use orphand::decide::policy::{
    Action, Closed, Graces, Open, Policy, PolicyError, SHORTEST_GRACE, SoleCopy,
};
use orphand::decide::retention::Limits;
use orphand::decide::temp_name::{NameError, Names};
use orphand::watch::CLOSE_EVENTS;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::{ActionArg, ClosedArg, OpenArg, SoleCopyArg};
use super::duration;

/// One rule's settings, each optional: what one place (the file, the command line) says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleSettings {
    pub(crate) names: Option<Vec<String>>,
    pub(crate) writers: Option<Vec<String>>,
    pub(crate) recursive: Option<bool>,
    pub(crate) grace: Option<Duration>,
    pub(crate) fixed_name_grace: Option<Duration>,
    pub(crate) closed: Option<Closed>,
    pub(crate) open: Option<Open>,
    pub(crate) sole_copy: Option<SoleCopy>,
    pub(crate) action: Option<Action>,
    /// File systems on which the proof is trusted too.
    pub(crate) network: Option<Vec<String>>,
    pub(crate) broad: Option<bool>,
}

/// Settings that make no rule.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    Names(#[from] NameError),
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
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) defaults: RuleSettings,
    pub(crate) watch: Vec<WatchRule>,
    pub(crate) quarantine: Limits,
    /// The file that was read, if there was one.
    pub(crate) path: Option<PathBuf>,
}

/// The first mistake in the file, or why it cannot be read.
#[derive(Debug)]
pub(crate) struct ConfigError {
    path: PathBuf,
    /// Line and column, from 1; the column in characters.
    place: Option<(usize, usize)>,
    what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
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
            recursive: self.recursive.or(lower.recursive),
            grace: self.grace.or(lower.grace),
            fixed_name_grace: self.fixed_name_grace.or(fixed_below),
            closed: self.closed.or(lower.closed),
            open: self.open.or(lower.open),
            sole_copy: self.sole_copy.or(lower.sole_copy),
            action: self.action.or(lower.action),
            network: self.network.or_else(|| lower.network.clone()),
            broad: self.broad.or(lower.broad),
        }
    }

    /// The rule, checked. What nobody gave is as everywhere.
    pub(crate) fn policy(&self) -> Result<Policy, SettingsError> {
        let names = self.names.as_deref().unwrap_or_default();
        let writers = self.writers.as_deref().unwrap_or_default();
        let given = self.grace.map(Graces::both).unwrap_or_default();
        let policy = Policy {
            names: Names::new(names, writers)?,
            grace: Graces {
                random: given.random,
                fixed: self.fixed_name_grace.unwrap_or(given.fixed),
            },
            closed: self.closed.unwrap_or_default(),
            open: self.open.unwrap_or_default(),
            sole_copy: self.sole_copy.unwrap_or_default(),
            action: self.action.unwrap_or_default(),
            recursive: self.recursive.unwrap_or_default(),
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
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if explicit.is_none() && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Config::default());
            }
            Err(error) => {
                let what = format!("cannot be read: {error}");
                let place = None;
                return Err(ConfigError { path, place, what });
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Config::parse(text, &path, absolute_variable("HOME").as_deref()),
            Err(_) => {
                let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                let mistake = Mistake::new(text.len(), "this is not UTF-8; save the file as UTF-8");
                Err(mistake.in_file(&path, text))
            }
        }
    }

    /// Where the file is looked for when none is named, on every system.
    pub(crate) fn usual_path() -> Option<PathBuf> {
        let folder = absolute_variable("XDG_CONFIG_HOME")
            .or_else(|| Some(absolute_variable("HOME")?.join(".config")))?;
        Some(folder.join("orphand/config.toml"))
    }

    /// Reads `text`, the content of the file `path`.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        home: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        // Editors do not show the mark, so it counts as no column.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let config = read(text, home).map_err(|mistake| mistake.in_file(path, text))?;
        Ok(Config {
            path: Some(path.to_owned()),
            ..config
        })
    }
}

/// A folder that the environment names. A relative one would mean another place in each directory
/// that orphand is started from; XDG says to ignore such.
fn absolute_variable(name: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os(name)?);
    folder.is_absolute().then_some(folder)
}

/// What is wrong, and at which byte of the text.
#[derive(Debug)]
struct Mistake {
    at: usize,
    what: String,
}

impl Mistake {
    fn new(at: usize, what: impl fmt::Display) -> Mistake {
        let what = what.to_string();
        Mistake { at, what }
    }

    fn in_file(self, path: &Path, text: &str) -> ConfigError {
        ConfigError {
            path: path.to_owned(),
            place: Some(place(text, self.at)),
            what: self.what,
        }
    }
}

fn place(text: &str, at: usize) -> (usize, usize) {
    // A place within a character is none of ours, but nothing to panic about either.
    let at = at.min(text.len());
    let before = (0..=at).rev().find_map(|at| text.get(..at)).unwrap_or("");
    let lines = before.bytes().filter(|byte| *byte == b'\n').count();
    let line = before.rsplit('\n').next().unwrap_or("");
    (lines + 1, line.chars().count() + 1)
}

struct Section {
    title: &'static str,
    keys: &'static [&'static str],
}

#[rustfmt::skip]
const WATCH: Section = Section {
    title: "[[watch]]",
    keys: &[
        "path",
        "names", "writers", "recursive", "grace", "fixed_name_grace", "closed", "open",
        "sole_copy", "action", "network", "broad",
    ],
};

const DEFAULTS: Section = Section {
    title: "[defaults]",
    // All of it but the path.
    keys: WATCH.keys.split_at(1).1,
};

const QUARANTINE: Section = Section {
    title: "[quarantine]",
    keys: &["keep", "percent"],
};

/// `[defaults]` first: where a key fits two sections, that is the one to be told of.
const SECTIONS: [Section; 3] = [DEFAULTS, WATCH, QUARANTINE];

fn read(text: &str, home: Option<&Path>) -> Result<Config, Mistake> {
    let document = DeTable::parse(text).map_err(|error| syntax(&error, text))?;
    let mut config = Config::default();
    let mut watch: &[Spanned<DeValue<'_>>] = &[];
    for entry in entries(document.get_ref()) {
        match (entry.key, entry.value.get_ref()) {
            ("defaults", DeValue::Table(table)) => {
                config.defaults = rule(&DEFAULTS, table)?;
                check(&config.defaults, table)?;
            }
            ("watch", DeValue::Array(rules)) => watch = rules,
            ("quarantine", DeValue::Table(table)) => config.quarantine = quarantine(table)?,
            _ => return Err(entry.unknown(None)),
        }
    }
    // Only now, as the defaults may stand below the rules that they hold for.
    let mut lines = Vec::new();
    for value in watch {
        let key = "watch";
        let at = value.span().start;
        let DeValue::Table(table) = value.get_ref() else {
            return Err(Entry { key, at, value }.unknown(None));
        };
        let settings = rule(&WATCH, table)?;
        let Some(place_of_path) = table.get("path") else {
            let what = "this [[watch]] has no path; name the directory that it is for";
            return Err(Mistake::new(at, what));
        };
        let at = place_of_path.span().start;
        let path = root(place_of_path.get_ref(), home).map_err(|what| Mistake::new(at, what))?;
        let mut known = config.watch.iter().zip(&lines);
        if let Some((_, line)) = known.find(|(rule, _)| rule.path == path) {
            let what = format!("{path:?} has a rule already, in line {line}; make one of the two");
            return Err(Mistake::new(at, what));
        }
        check(&settings.clone().over(&config.defaults), table)?;
        lines.push(place(text, at).0);
        config.watch.push(WatchRule { path, settings });
    }
    Ok(config)
}

/// What the parser says; but the mistake that is made most often, a value without quotes, it takes
/// for a misspelt number or truth value, by its first letter.
fn syntax(error: &toml::de::Error, text: &str) -> Mistake {
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
        flag @ ("true" | "false") => format!("{word:?} is written small; did you mean {flag}?"),
        _ => format!("text stands in quotes; did you mean {word:?}?"),
    };
    Mistake::new(span.start, what)
}

/// For [`Names`], where only the other list is in question.
const NONE: [&str; 0] = [];

fn rule(section: &Section, table: &DeTable<'_>) -> Result<RuleSettings, Mistake> {
    let mut rule = RuleSettings::default();
    for entry in entries(table) {
        match entry.key {
            key if !section.keys.contains(&key) => return Err(entry.unknown(Some(section))),
            "names" => rule.names = Some(entry.names()?),
            "writers" => rule.writers = Some(entry.list(|name| Names::new(&NONE, &[name]))?),
            "recursive" => rule.recursive = Some(entry.flag()?),
            "grace" => rule.grace = Some(entry.grace()?),
            "fixed_name_grace" => rule.fixed_name_grace = Some(entry.grace()?),
            "closed" => rule.closed = Some(entry.choice::<ClosedArg, _>()?),
            "open" => rule.open = Some(entry.choice::<OpenArg, _>()?),
            "sole_copy" => rule.sole_copy = Some(entry.choice::<SoleCopyArg, _>()?),
            "action" => rule.action = Some(entry.choice::<ActionArg, _>()?),
            "network" => rule.network = Some(entry.list(|_| Ok(()))?),
            "broad" => rule.broad = Some(entry.flag()?),
            _ => {}
        }
    }
    Ok(rule)
}

/// Refuses what is right key by key and means nothing together. `settings` are in force, `table` is
/// where the last word on them was said.
///
/// `[defaults]` must mean something alone: a directory on the command line has nothing else.
fn check(settings: &RuleSettings, table: &DeTable<'_>) -> Result<(), Mistake> {
    let Err(error) = settings.policy() else {
        return Ok(());
    };
    let said = table.get("closed").or_else(|| table.get("open"));
    let at = said.map_or(0, |value| value.span().start);
    Err(match error {
        // The policy's own words are about the command line.
        SettingsError::Policy(PolicyError::RemovesNothing) => Mistake::new(
            at,
            "closed = \"settled\" with open = \"keep\" removes nothing, ever: what is closed is \
             left alone and what is open is kept; did you mean open = \"reap\"?",
        ),
        error => Mistake::new(at, error),
    })
}

fn root(value: &DeValue<'_>, home: Option<&Path>) -> Result<PathBuf, String> {
    let Some(text) = value.as_str() else {
        let found = value.type_str();
        return Err(format!("path must be a string, not this {found}"));
    };
    let path = match (text.strip_prefix("~/"), home) {
        // A slash more would make `join` forget the home directory.
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        (Some(_), None) => {
            return Err(format!(
                "{text:?} needs the variable HOME, which is not set"
            ));
        }
        (None, _) if text.starts_with('/') => PathBuf::from(text),
        (None, _) => {
            let strange =
                |part: &&str| matches!(*part, "" | "." | "..") || part.starts_with(['~', '$']);
            let parts: Vec<&str> = text.split('/').filter(|part| !strange(part)).collect();
            // Never the home directory itself.
            let below_home = if parts.is_empty() {
                "DIR".to_owned()
            } else {
                parts.join("/")
            };
            let meant = format!("~/{below_home}");
            return Err(format!(
                "the path {text:?} must be absolute or begin with ~/; did you mean {meant:?}?"
            ));
        }
    };
    // As roots are compared: without a slash at the end.
    Ok(path.components().collect())
}

fn quarantine(table: &DeTable<'_>) -> Result<Limits, Mistake> {
    let mut limits = Limits::default();
    for entry in entries(table) {
        match (entry.key, entry.integer()) {
            ("keep", Some(0)) => limits.age = Duration::ZERO,
            ("keep", _) => limits.age = entry.duration()?,
            ("percent", Some(percent @ 0..=100)) => limits.percent = percent as u8,
            ("percent", _) => {
                let what = "percent must be a whole number from 1 to 100, or 0 for no limit";
                return Err(entry.wrong(what));
            }
            _ => return Err(entry.unknown(Some(&QUARANTINE))),
        }
    }
    Ok(limits)
}

/// A key and its value.
#[derive(Clone, Copy)]
struct Entry<'t> {
    key: &'t str,
    /// Where the key stands.
    at: usize,
    value: &'t Spanned<DeValue<'t>>,
}

/// In the order of the file, so that the first mistake is said first.
fn entries<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let entry = |(key, value): (&'t Spanned<_>, _)| {
        let at = key.span().start;
        let key: &std::borrow::Cow<'t, str> = key.get_ref();
        Entry { key, at, value }
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

impl Entry<'_> {
    fn wrong(&self, what: impl fmt::Display) -> Mistake {
        Mistake::new(self.value.span().start, what)
    }

    fn wrong_type(&self, wanted: &str) -> Mistake {
        let found = self.value.get_ref().type_str();
        self.wrong(format!("{} must be {wanted}, not this {found}", self.key))
    }

    fn unknown(&self, section: Option<&Section>) -> Mistake {
        let key = self.key;
        let right_place = SECTIONS.iter().find(|section| section.keys.contains(&key));
        let what = match (right_place, section) {
            (Some(Section { title, .. }), _) => {
                format!("{key:?} means nothing here; did you mean to put it in {title}?")
            }
            (None, Some(Section { title, keys })) => {
                let meant = did_you_mean(key, keys.iter().map(|key| format!("{key:?}")));
                format!("unknown key {key:?} in {title}; {meant}")
            }
            (None, None) => {
                let titles = SECTIONS.iter().map(|section| section.title.to_owned());
                format!("unknown section {key:?}; {}", did_you_mean(key, titles))
            }
        };
        Mistake::new(self.at, what)
    }

    fn flag(&self) -> Result<bool, Mistake> {
        let flag = self.value.get_ref().as_bool();
        flag.ok_or_else(|| self.wrong_type("true or false"))
    }

    fn integer(&self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn duration(&self) -> Result<Duration, Mistake> {
        match (self.value.get_ref(), self.integer()) {
            (DeValue::String(text), _) => duration::parse(text).map_err(|what| self.wrong(what)),
            (_, Some(number)) => {
                Err(self.wrong(format!("{number} has no unit; did you mean \"{number}s\"?")))
            }
            _ => Err(self.wrong_type("a whole number and a unit, like \"30s\"")),
        }
    }

    fn grace(&self) -> Result<Duration, Mistake> {
        match self.duration()? {
            grace if grace < SHORTEST_GRACE => Err(self.wrong(PolicyError::GraceTooShort(grace))),
            grace => Ok(grace),
        }
    }

    /// One of the words that the command line knows.
    fn choice<A: ValueEnum + Into<T>, T>(&self) -> Result<T, Mistake> {
        let value = self.value.get_ref();
        let given = value.as_str();
        if let Some(Ok(choice)) = given.map(|word| A::from_str(word, false)) {
            return Ok(choice.into());
        }
        let choices = A::value_variants().iter().filter_map(A::to_possible_value);
        let choices = choices.map(|choice| format!("{:?}", choice.get_name()));
        let meant = did_you_mean(given.unwrap_or_default(), choices);
        let given = given.map(|word| format!("{word:?}"));
        let given = given.unwrap_or_else(|| format!("this {}", value.type_str()));
        Err(self.wrong(format!("{} cannot be {given}; {meant}", self.key)))
    }

    /// Strings, each of which `check` takes.
    fn list<T>(
        &self,
        check: impl Fn(&str) -> Result<T, NameError>,
    ) -> Result<Vec<String>, Mistake> {
        let list = match self.value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::String(one) => {
                let key = self.key;
                return Err(self.wrong(format!("{key} must be a list; did you mean [{one:?}]?")));
            }
            _ => return Err(self.wrong_type("a list of strings")),
        };
        let string = |value| {
            let element = Entry { value, ..*self };
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| element.wrong_type("a list of strings"))?;
            check(text).map_err(|error| element.wrong(error))?;
            Ok(text.to_owned())
        };
        list.iter().map(string).collect()
    }

    fn names(&self) -> Result<Vec<String>, Mistake> {
        let names = self.list(|glob| Names::new(&[glob], &NONE))?;
        // It reads as "no names", and would be the usual ones.
        if names.is_empty() {
            let what = "names is empty; did you mean [\"*.tmp\"], as without this line?";
            return Err(self.wrong(what));
        }
        Ok(names)
    }
}

/// Asks for the one of `known` that is like `word`, or, if none is, for any. They are as written in
/// the file; what encloses them there is not compared.
fn did_you_mean(word: &str, known: impl Iterator<Item = String>) -> String {
    let compared = |known: String| {
        let name = known.trim_matches(['"', '[', ']']);
        (strsim::levenshtein(word, name), name.len(), known)
    };
    let mut known: Vec<_> = known.map(compared).collect();
    if let Some((edits, len, name)) = known.iter().min()
        && edits * 2 <= *len
    {
        return format!("did you mean {name}?");
    }
    let last = known.pop().map(|(_, _, name)| name).unwrap_or_default();
    let others: Vec<_> = known.into_iter().map(|(_, _, name)| name).collect();
    format!("did you mean {} or {last}?", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOME: &str = "/home/ann";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("c.toml"), Some(Path::new(HOME)))
    }

    /// Every key, each value another than the default; closed = "settled" is in the other tests, as
    /// not every system has it.
    const FULL: &str = r#"
[defaults]                    # é
names = ["*.tmp", '*.part']
writers = ["git"]
recursive = true
grace = "30s"
fixed_name_grace = "2h"
closed = "orphan"
open = "quarantine"
sole_copy = "keep"
action = "report"
network = ["nfs4"]
broad = false

[quarantine]
keep = "3d"
percent = 0x5

[[watch]]
path = "~/.app/sessions"
writers = []
grace = "100ms"

[[watch]]
path = "/srv//app/./x/"
action = "delete"
"#;

    #[test]
    #[rustfmt::skip] // one row a line
    fn mistakes_are_placed_and_say_what_was_meant() {
        let rows: &[(&str, &str)] = &[
            // What TOML itself refuses.
            ("[defaults]\ngrace = 30s\n", "2:9: text stands in quotes; did you mean \"30s\"?"),
            ("[defaults]\nopen = keep", "2:8: text stands in quotes; did you mean \"keep\"?"),
            ("[defaults]\nrecursive = True", "2:13: \"True\" is written small; did you mean true?"),
            ("[defaults]\nnames = [tmp]", "2:10: text stands in quotes; did you mean \"tmp\"?"),
            ("[defaults]\ngrace = 1.5s", "2:12: invalid float, expected nothing"),
            ("[defaults]\r\ngrace = \r\n", "2:9: the value is missing"),
            ("[defaults\n", "1:10: unclosed table, expected `]`"),
            ("[defaults]\n\n[defaults]", "3:2: duplicate key"),
            ("[defaults]\nopen = 'kéép' x", "2:15: unexpected key or value, expected newline, `#`"),
            // Sections.
            ("[default]\n", "1:2: unknown section \"default\"; did you mean [defaults]?"),
            ("[[watches]]\n", "1:3: unknown section \"watches\"; did you mean [[watch]]?"),
            ("\n  [journal]\nx = 1", "2:4: unknown section \"journal\"; did you mean [defaults], [[watch]] or [quarantine]?"),
            ("[watch]\npath = '/a'", "1:2: unknown section \"watch\"; did you mean [[watch]]?"),
            ("watch = [{path = '/a'}, 1]", "1:25: unknown section \"watch\"; did you mean [[watch]]?"),
            ("[[defaults]]", "1:3: unknown section \"defaults\"; did you mean [defaults]?"),
            ("quarantine = true", "1:1: unknown section \"quarantine\"; did you mean [quarantine]?"),
            // Keys.
            ("[defaults]\ngrase = 1", "2:1: unknown key \"grase\" in [defaults]; did you mean \"grace\"?"),
            ("[defaults]\n'sole-copy' = 1", "2:1: unknown key \"sole-copy\" in [defaults]; did you mean \"sole_copy\"?"),
            ("[defaults]\n\"\\u001b[2J\" = 1", "2:1: unknown key \"\\u{1b}[2J\" in [defaults]; did you mean \"names\", \"writers\", \"recursive\", \"grace\", \"fixed_name_grace\", \"closed\", \"open\", \"sole_copy\", \"action\", \"network\" or \"broad\"?"),
            ("defaults.é = 1", "1:10: invalid unquoted key, expected letters, numbers, `-`, `_`"),
            ("[[watch]]\npath = '/a'\nname = 1", "3:1: unknown key \"name\" in [[watch]]; did you mean \"names\"?"),
            ("[quarantine]\nkeeep = 1", "2:1: unknown key \"keeep\" in [quarantine]; did you mean \"keep\"?"),
            ("[quarantine]\nsize = 1", "2:1: unknown key \"size\" in [quarantine]; did you mean \"keep\" or \"percent\"?"),
            ("grace = '1s'", "1:1: \"grace\" means nothing here; did you mean to put it in [defaults]?"),
            ("path = '/a'", "1:1: \"path\" means nothing here; did you mean to put it in [[watch]]?"),
            ("[defaults]\npath = '/a'", "2:1: \"path\" means nothing here; did you mean to put it in [[watch]]?"),
            ("[defaults]\npercent = 1", "2:1: \"percent\" means nothing here; did you mean to put it in [quarantine]?"),
            // The first in the file, not in the alphabet.
            ("[defaults]\nzzz = 1\naaa = 1\nopen = 1\n[quarantine]\nx = 1", "2:1: unknown key \"zzz\" in [defaults]; did you mean \"names\", \"writers\", \"recursive\", \"grace\", \"fixed_name_grace\", \"closed\", \"open\", \"sole_copy\", \"action\", \"network\" or \"broad\"?"),
            ("[quarantine]\nkeep = 1\n[defaults]\nopen = 1", "2:8: 1 has no unit; did you mean \"1s\"?"),
            // Values.
            ("[defaults]\nrecursive = 'yes'", "2:13: recursive must be true or false, not this string"),
            ("[defaults]\nbroad = 1", "2:9: broad must be true or false, not this integer"),
            ("[defaults]\ngrace = 30", "2:9: 30 has no unit; did you mean \"30s\"?"),
            ("[defaults]\ngrace = '30'", "2:9: \"30\" has no unit; did you mean 30s?"),
            ("[defaults]\ngrace = '5 min'", "2:9: \" min\" is not a unit; there are ms, s, m, h and d"),
            ("[defaults]\ngrace = 1.5", "2:9: grace must be a whole number and a unit, like \"30s\", not this float"),
            ("[defaults]\ngrace = -3", "2:9: grace must be a whole number and a unit, like \"30s\", not this integer"),
            ("[defaults.grace]\nx = 1", "1:1: grace must be a whole number and a unit, like \"30s\", not this table"),
            ("[defaults]\ngrace = '99ms'", "2:9: a grace of 99ms is too short to prove anything; the shortest is 100ms"),
            ("[defaults]\nfixed_name_grace = '0s'", "2:20: a grace of 0ns is too short to prove anything; the shortest is 100ms"),
            ("[defaults]\nclosed = 'setled'", "2:10: closed cannot be \"setled\"; did you mean \"settled\"?"),
            ("[defaults]\nopen = 'Reap'", "2:8: open cannot be \"Reap\"; did you mean \"reap\"?"),
            ("[defaults]\nsole_copy = ''", "2:13: sole_copy cannot be \"\"; did you mean \"quarantine\", \"keep\" or \"reap\"?"),
            ("[defaults]\naction = false", "2:10: action cannot be this boolean; did you mean \"delete\", \"quarantine\" or \"report\"?"),
            ("[defaults]\nnames = '*.part'", "2:9: names must be a list; did you mean [\"*.part\"]?"),
            ("[defaults]\nnames = 1", "2:9: names must be a list of strings, not this integer"),
            ("[defaults]\nnames = [\n  '*.é', 1,\n]", "3:10: names must be a list of strings, not this integer"),
            ("[defaults]\nnames = []", "2:9: names is empty; did you mean [\"*.tmp\"], as without this line?"),
            ("[defaults]\nnames = ['a', '']", "2:15: a name pattern is empty and would match nothing; leave it out (then it is \"*.tmp\")"),
            ("[defaults]\nnames = ['a/*.part']", "2:10: the name pattern \"a/*.part\" contains a \"/\", but only the last part of a path is compared; write \"*.part\" and give the directory as the root"),
            ("[defaults]\nnames = ['[a']", "2:10: the name pattern \"[a\" cannot be read: unclosed character class; missing ']'; put a backslash before a special character that stands for itself"),
            ("[defaults]\nwriters = ['git', 'claude']", "2:19: no writer is called \"claude\"; did you mean \"claude-code\"? `--writer list` shows them all"),
            ("[defaults]\nnetwork = [nfs]", "2:12: text stands in quotes; did you mean \"nfs\"?"),
            ("[quarantine]\nkeep = '1w'", "2:8: \"w\" is not a unit; there are ms, s, m, h and d"),
            ("[quarantine]\nkeep = 7", "2:8: 7 has no unit; did you mean \"7s\"?"),
            ("[quarantine]\npercent = 101", "2:11: percent must be a whole number from 1 to 100, or 0 for no limit"),
            ("[quarantine]\npercent = '10%'", "2:11: percent must be a whole number from 1 to 100, or 0 for no limit"),
            // Paths.
            ("[[watch]]\ngrace = '1s'\n", "1:1: this [[watch]] has no path; name the directory that it is for"),
            ("[[watch]]\npath = 1", "2:8: path must be a string, not this integer"),
            ("[[watch]]\npath = 'app/x'", "2:8: the path \"app/x\" must be absolute or begin with ~/; did you mean \"~/app/x\"?"),
            ("[[watch]]\npath = './x'", "2:8: the path \"./x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
            ("[[watch]]\npath = '$HOME/x'", "2:8: the path \"$HOME/x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
            ("[[watch]]\npath = '~'", "2:8: the path \"~\" must be absolute or begin with ~/; did you mean \"~/DIR\"?"),
            ("[[watch]]\npath = '~bob/x'", "2:8: the path \"~bob/x\" must be absolute or begin with ~/; did you mean \"~/x\"?"),
            ("[[watch]]\npath = '.a/../b'", "2:8: the path \".a/../b\" must be absolute or begin with ~/; did you mean \"~/.a/b\"?"),
            ("[[watch]]\npath = ''", "2:8: the path \"\" must be absolute or begin with ~/; did you mean \"~/DIR\"?"),
            ("[[watch]]\npath = '/a/b'\n[[watch]]\nbroad = true\npath = '/a//b/'", "5:8: \"/a/b\" has a rule already, in line 2; make one of the two"),
            ("[[watch]]\npath = '~/x'\n[[watch]]\npath = '/home/ann/x'", "4:8: \"/home/ann/x\" has a rule already, in line 2; make one of the two"),
            // Together.
            ("[defaults]\nopen = 'keep'\nclosed = 'settled'", "3:10: closed = \"settled\" with open = \"keep\" removes nothing, ever: what is closed is left alone and what is open is kept; did you mean open = \"reap\"?"),
            ("[[watch]]\npath = '/a'\nclosed = 'settled'\n[defaults]\ngrace = '1s'", "3:10: closed = \"settled\" with open = \"keep\" removes nothing, ever: what is closed is left alone and what is open is kept; did you mean open = \"reap\"?"),
        ];
        for (text, expected) in rows {
            let error = parse(text).expect_err(text).to_string();
            assert_eq!(error, format!("c.toml:{expected}"), "{text}");
        }
        // An editor shows no byte order mark.
        assert_eq!(parse("\u{feff}x = 1").expect_err("x").place, Some((1, 1)));
    }

    #[test]
    fn what_is_kept_or_settled_depends_on_all_that_is_in_force() {
        let both =
            "[[watch]]\npath = '/a'\nopen = 'keep'\n[defaults]\nclosed = 'settled'\nopen = 'reap'";
        let place = if CLOSE_EVENTS { (3, 8) } else { (5, 10) };
        assert_eq!(parse(both).expect_err("a mistake").place, Some(place));
        let letter = parse("[defaults]\nopen = 'reap'\n[[watch]]\npath = '/a'\nclosed = 'settled'");
        match letter {
            Ok(config) => assert_eq!(config.watch[0].settings.closed, Some(Closed::Settled)),
            Err(error) => assert_eq!((CLOSE_EVENTS, error.place), (false, Some((5, 10)))),
        }
    }

    #[test]
    fn files_that_are_right() {
        let second = Duration::from_secs;
        let strings = |strings: &[&str]| Some(strings.iter().map(|s| s.to_string()).collect());
        let config = |defaults, watch, quarantine| Config {
            defaults,
            watch,
            quarantine,
            path: Some("c.toml".into()),
        };
        let rule = |path: &str, settings| WatchRule {
            path: path.into(),
            settings,
        };
        let none = RuleSettings::default;
        let full = RuleSettings {
            names: strings(&["*.tmp", "*.part"]),
            writers: strings(&["git"]),
            recursive: Some(true),
            grace: Some(second(30)),
            fixed_name_grace: Some(second(7200)),
            closed: Some(Closed::Orphan),
            open: Some(Open::Quarantine),
            sole_copy: Some(SoleCopy::Keep),
            action: Some(Action::Report),
            network: strings(&["nfs4"]),
            broad: Some(false),
        };
        let hasty = RuleSettings {
            writers: strings(&[]),
            grace: Some(Duration::from_millis(100)),
            ..none()
        };
        let delete = RuleSettings {
            action: Some(Action::Delete),
            ..none()
        };
        let rules = vec![
            rule("/home/ann/.app/sessions", hasty),
            rule("/srv/app/x", delete),
        ];
        let limits = |seconds, percent| Limits {
            age: second(seconds),
            percent,
        };
        for (text, expected) in [
            ("", config(none(), vec![], Limits::default())),
            ("\u{feff}# é\r\n", config(none(), vec![], Limits::default())),
            (
                "watch = []\n[defaults]",
                config(none(), vec![], Limits::default()),
            ),
            (FULL, config(full, rules, limits(3 * 24 * 60 * 60, 5))),
            (
                "quarantine = { keep = 0, percent = 0 }",
                config(none(), vec![], limits(0, 0)),
            ),
            (
                "quarantine.keep = '0s'",
                config(none(), vec![], limits(0, 10)),
            ),
            // Two slashes do not lead out of the home directory.
            (
                "watch = [{ path = '~//x' }, { path = '~/' }]",
                config(
                    none(),
                    vec![rule("/home/ann/x", none()), rule(HOME, none())],
                    Limits::default(),
                ),
            ),
        ] {
            assert_eq!(
                parse(text).map_err(|error| error.to_string()),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn every_key_that_is_proposed_is_known() {
        for section in SECTIONS {
            for key in section.keys {
                let text = format!("{}\n{key} = nan", section.title);
                let error = parse(&text).expect_err(key).to_string();
                assert!(
                    error.contains(&format!(":2:{}: {key} ", key.len() + 4)),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn without_a_home_there_is_no_tilde() {
        let error = Config::parse("[[watch]]\npath = '~/x'", Path::new("a b.toml"), None);
        let expected = "a b.toml:2:8: \"~/x\" needs the variable HOME, which is not set";
        assert_eq!(error.expect_err("no home").to_string(), expected);
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_be_text() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.toml");
        let error = |file: &Path| Config::load(Some(file)).expect_err("a mistake").to_string();
        let shown = file.display();
        let missing = format!("{shown}: cannot be read: No such file or directory (os error 2)");
        assert_eq!(error(&file), missing);
        fs::write(&file, b"# \xc3\xa9\n# \xc3\xa9\xff").expect("written");
        assert_eq!(
            error(&file),
            format!("{shown}:2:4: this is not UTF-8; save the file as UTF-8")
        );
        fs::write(&file, FULL).expect("written");
        assert_eq!(Config::load(Some(&file)).expect("right").path, Some(file));
    }

    #[test]
    fn a_grace_holds_for_every_name_unless_the_same_place_says_otherwise() {
        let graces = |layers: &[(Option<u64>, Option<u64>)]| {
            let settings = layers
                .iter()
                .fold(RuleSettings::default(), |upper, (both, fixed)| {
                    upper.over(&RuleSettings {
                        grace: both.map(Duration::from_secs),
                        fixed_name_grace: fixed.map(Duration::from_secs),
                        ..RuleSettings::default()
                    })
                });
            let grace = settings.policy().expect("a rule").grace;
            (grace.random.as_secs(), grace.fixed.as_secs())
        };
        assert_eq!(graces(&[]), (300, 3600));
        assert_eq!(graces(&[(Some(10), None)]), (10, 10));
        assert_eq!(graces(&[(None, Some(20))]), (300, 20));
        assert_eq!(graces(&[(Some(10), Some(20))]), (10, 20));
        // Upper first.
        assert_eq!(graces(&[(Some(10), None), (None, Some(20))]), (10, 10));
        assert_eq!(graces(&[(None, Some(20)), (Some(10), None)]), (10, 20));
        assert_eq!(graces(&[(None, None), (Some(10), Some(20))]), (10, 20));
        assert_eq!(
            graces(&[(Some(5), None), (None, None), (Some(10), Some(20))]),
            (5, 5)
        );
    }

    #[test]
    fn what_is_above_wins_and_what_it_leaves_out_stays() {
        let config = parse(FULL).expect("right");
        let settings = config.watch[0].settings.clone().over(&config.defaults);
        let policy = settings.policy().expect("a rule");
        assert_eq!(policy.grace, Graces::both(Duration::from_millis(100)));
        assert!(policy.recursive && policy.names.matches(b"a.part"));
        assert!(
            !policy.names.matches(b"tmp_obj_Ab3dE6"),
            "the rule's empty list wins"
        );
        assert_eq!(policy.trusted_file_systems, ["nfs4"]);
        let expected = (Open::Quarantine, SoleCopy::Keep, Action::Report);
        assert_eq!((policy.open, policy.sole_copy, policy.action), expected);
        let wrong = RuleSettings {
            writers: Some(vec!["gti".to_owned()]),
            ..settings
        };
        assert!(matches!(wrong.policy(), Err(SettingsError::Names(_))));
    }

    #[test]
    fn the_start_of_a_right_file_and_what_is_deep_do_not_panic() {
        for end in (0..FULL.len()).filter(|end| FULL.is_char_boundary(*end)) {
            parse(&FULL[..end]).map_err(|error| error.to_string()).ok();
        }
        let deep = 100_000;
        for text in [
            format!("a={}", "[".repeat(deep)),
            format!("a={}", "{a=".repeat(deep)),
            format!("[{}a]", "a.".repeat(deep)),
            format!("{}a=1", "a.".repeat(deep)),
        ] {
            parse(&text).expect_err("too deep");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*|(?s:.*)") {
            parse(&text).map_err(|error| error.to_string()).ok();
        }

        /// Near enough to a right file to get past the parser.
        #[test]
        fn any_lines_are_read_without_a_panic(
            lines in prop::collection::vec((
                prop::sample::select(&["[defaults]", "[[watch]]", "[quarantine]", "[watch]", "[defaults.names]", ""][..]),
                prop::sample::select(WATCH.keys).prop_union(prop::sample::select(QUARANTINE.keys)),
                "'[~/a-zé0-9*\\[{]*'|-?[0-9]{1,30}|0x[0-9a-f]{1,20}|\\[('[a-z*\\[{]*',? ?){0,3}\\]|[a-z0-9:.-]*|\\PC*",
            ), 0..8),
        ) {
            let text = lines.iter().map(|(header, key, value)| format!("{header}\n{key} = {value}\n"));
            let text = text.collect::<String>();
            if let Err(error) = parse(&text) {
                let (line, column) = error.place.expect("a place");
                prop_assert!(line <= text.split('\n').count() && column <= text.chars().count() + 1);
            }
        }
    }
}
