//! One key of the file with its value: reads the value, or returns an error that names valid ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use orphand::core::policy::{PolicyError, SHORTEST_GRACE};
use orphand::core::temp_name::Names;
use orphand::core::time::typed;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::section::{Lines, SECTIONS, Section};
use super::spanned_error::{LineIndex, SpannedError, choice_hint, did_you_mean};
use crate::cli::output::{duration, size};

/// A key and its value.
#[derive(Clone, Copy)]
pub(super) struct ConfigEntry<'t> {
    pub(super) key: &'t str,
    /// The byte offset of the key in the text.
    pub(super) at: usize,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

/// Returns the lines of the keys of a table.
pub(super) fn lines(section: &Section, table: &DeTable<'_>, index: &LineIndex<'_>) -> Lines {
    let line = |entry: ConfigEntry<'_>| {
        let key = section.keys.iter().find(|key| **key == entry.key)?;
        Some((*key, index.position_at(entry.at).0))
    };
    entries(table).into_iter().filter_map(line).collect()
}

/// Returns the entries of a table in the order of the file, so that the first error is reported.
pub(super) fn entries<'t>(table: &'t DeTable<'t>) -> Vec<ConfigEntry<'t>> {
    let entry = |(key, value): (&'t Spanned<_>, _)| {
        let at = key.span().start;
        let key: &std::borrow::Cow<'t, str> = key.get_ref();
        ConfigEntry { key, at, value }
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// An empty list for [`Names`], to check the other list alone.
pub(super) const NONE: [&str; 0] = [];

/// The shortest interval of a periodic action.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

impl ConfigEntry<'_> {
    pub(super) fn error(&self, what: impl fmt::Display) -> SpannedError {
        SpannedError::new(self.value.span().start, what)
    }

    pub(super) fn type_error(&self, wanted: &str) -> SpannedError {
        let found = with_article(self.value.get_ref().type_str());
        self.error(format!("{} must be {wanted}, not {found}", self.key))
    }

    pub(super) fn unknown_key_error(&self, section: Option<&Section>) -> SpannedError {
        let key = self.key;
        let right_section = SECTIONS.iter().find(|section| section.keys.contains(&key));
        let what = match (right_section, section) {
            (Some(Section { title, .. }), _) => {
                format!("the key {key:?} is not valid here; did you mean to put it in {title}?")
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
        SpannedError::new(self.at, what)
    }

    pub(super) fn flag(&self) -> Result<bool, SpannedError> {
        let flag = self.value.get_ref().as_bool();
        flag.ok_or_else(|| self.type_error("true or false"))
    }

    pub(super) fn integer(&self) -> Option<u64> {
        let integer = self.value.get_ref().as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    pub(super) fn duration(&self) -> Result<Duration, SpannedError> {
        match (self.value.get_ref(), self.integer()) {
            (DeValue::String(text), _) => duration::parse(text).map_err(|what| self.error(what)),
            (_, Some(number)) => {
                Err(self.error(format!("{number} has no unit; did you mean \"{number}s\"?")))
            }
            _ => Err(self.type_error("a duration, like \"30s\"")),
        }
    }

    /// Reads the interval of a periodic action.
    pub(super) fn interval(&self) -> Result<Duration, SpannedError> {
        match self.duration()? {
            every if every < SHORTEST_INTERVAL => {
                let key = self.key;
                Err(self.error(format!(
                    "{key} = {} is too short; the shortest is {}",
                    typed(every),
                    typed(SHORTEST_INTERVAL)
                )))
            }
            every => Ok(every),
        }
    }

    /// Reads a size in bytes, which is not 0.
    pub(super) fn size(&self) -> Result<u64, SpannedError> {
        let size = match (self.value.get_ref(), self.integer()) {
            (DeValue::String(text), _) => size::parse(text).map_err(|what| self.error(what))?,
            (_, Some(number)) => {
                let what = format!("{number} has no unit; did you mean \"{number}MB\"?");
                return Err(self.error(what));
            }
            _ => return Err(self.type_error("a size, like \"16MB\"")),
        };
        match size {
            0 => Err(self.error(format!("{} cannot be 0; the smallest is 1kB", self.key))),
            size => Ok(size),
        }
    }

    pub(super) fn text(&self) -> Result<&str, SpannedError> {
        let text = self.value.get_ref().as_str();
        text.ok_or_else(|| self.type_error("a string"))
    }

    /// Reads a path that does not depend on the working directory: absolute, or below `~/`.
    pub(super) fn path(&self, home: Option<&Path>) -> Result<PathBuf, SpannedError> {
        absolute(self.text()?, home).map_err(|what| self.error(what))
    }

    /// Reads such a path of a file, which need not exist.
    pub(super) fn file(&self, home: Option<&Path>) -> Result<PathBuf, SpannedError> {
        match self.text()? {
            text if text.ends_with('/') => {
                Err(self.error(format!("{text:?} is a directory; name a file in it")))
            }
            _ => self.path(home),
        }
    }

    pub(super) fn grace(&self) -> Result<Duration, SpannedError> {
        match self.duration()? {
            grace if grace < SHORTEST_GRACE => Err(self.error(PolicyError::GraceTooShort(grace))),
            grace => Ok(grace),
        }
    }

    /// Reads one of the values of an option of the command line.
    pub(super) fn choice<A: ValueEnum + Into<T>, T>(&self) -> Result<T, SpannedError> {
        let value = self.value.get_ref();
        let given = value.as_str();
        if let Some(Ok(choice)) = given.map(|word| A::from_str(word, false)) {
            return Ok(choice.into());
        }
        let choices = A::value_variants().iter().filter_map(A::to_possible_value);
        let choices = choices.map(|choice| format!("{:?}", choice.get_name()));
        let meant = choice_hint(given.unwrap_or_default(), choices.collect());
        let given = given.map(|word| format!("{word:?}"));
        let given = given.unwrap_or_else(|| with_article(value.type_str()));
        Err(self.error(format!("{} cannot be {given}; {meant}", self.key)))
    }

    /// Reads a list of strings that all pass `check`.
    pub(super) fn list<T, E: fmt::Display>(
        &self,
        check: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<String>, SpannedError> {
        let list = match self.value.get_ref() {
            DeValue::Array(list) => list,
            DeValue::String(one) => {
                let key = self.key;
                return Err(self.error(format!("{key} must be a list; did you mean [{one:?}]?")));
            }
            _ => return Err(self.type_error("a list of strings")),
        };
        let string = |value| {
            let element = ConfigEntry { value, ..*self };
            let text = value.get_ref().as_str();
            let text = text.ok_or_else(|| element.type_error("a list of strings"))?;
            check(text).map_err(|error| element.error(error))?;
            Ok(text.to_owned())
        };
        list.iter().map(string).collect()
    }

    /// Returns the byte offset of the string `text` in a list.
    pub(super) fn position_of(&self, text: &str) -> usize {
        let list = self.value.get_ref().as_array().into_iter().flatten();
        let mut found = list.filter(|value| value.get_ref().as_str() == Some(text));
        found.next().unwrap_or(self.value).span().start
    }

    pub(super) fn names(&self) -> Result<Vec<String>, SpannedError> {
        // Broad patterns are checked later, because another section may allow them.
        let names = self.list(|glob| Names::allowing_broad(&[glob], &NONE))?;
        // An empty list looks like "no names", but it would have the effect of the default.
        if names.is_empty() {
            let what =
                "names is empty; did you mean [\"*.tmp\"], which is the default without this line?";
            return Err(self.error(what));
        }
        Ok(names)
    }
}

/// Returns `text` as a path, with `~/` expanded.
fn absolute(text: &str, home: Option<&Path>) -> Result<PathBuf, String> {
    let path = match (text.strip_prefix("~/"), home) {
        // With a second slash, `join` would drop the home directory.
        (Some(rest), Some(home)) => home.join(rest.trim_start_matches('/')),
        (Some(_), None) => {
            return Err(format!(
                "{text:?} needs the variable HOME, which is not set"
            ));
        }
        (None, _) if text.starts_with('/') => PathBuf::from(text),
        (None, _) => return Err(not_absolute_error(text)),
    };
    // The meaning of ".." depends on symlinks in the path, and paths are compared as text.
    if text.split('/').any(|part| part == "..") {
        return Err(format!(
            "the path {text:?} contains \"..\"; write the path without it"
        ));
    }
    // Roots are compared without a slash at the end.
    Ok(path.components().collect())
}

/// Returns the error for a path that is neither absolute nor below `~/`. It proposes a path below `~/` unless the path
/// begins with another variable or another user's home directory.
fn not_absolute_error(text: &str) -> String {
    let first = text.split('/').next().unwrap_or_default();
    let rest = text.get(first.len()..).unwrap_or_default();
    let only_a_shell = |what: &str| {
        format!(
            "{text:?} begins with {what}, which only a shell expands; write the absolute path instead"
        )
    };
    let below_home = match first {
        "~" | "$HOME" | "${HOME}" => rest,
        user if user.starts_with('~') => return only_a_shell("another user's home directory"),
        variable if variable.starts_with('$') => return only_a_shell("a variable"),
        _ => text,
    };
    let strange = |part: &&str| matches!(*part, "" | "." | "..");
    let parts: Vec<&str> = below_home
        .split('/')
        .filter(|part| !strange(part))
        .collect();
    // The home directory itself is never proposed.
    let below_home = match parts.is_empty() {
        true => "DIR".to_owned(),
        false => parts.join("/"),
    };
    let meant = format!("~/{below_home}");
    format!("the path {text:?} must be absolute or begin with ~/; did you mean {meant:?}?")
}

/// Returns the name of a type with its article.
fn with_article(type_name: &str) -> String {
    match type_name.starts_with(['a', 'i']) {
        true => format!("an {type_name}"),
        false => format!("a {type_name}"),
    }
}
