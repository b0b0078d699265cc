//! The values of the file that serde does not know: reads them, and writes them as the file has them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::core::exclude::Exclude;
use orphand::core::policy::{PolicyError, SHORTEST_GRACE};
use orphand::core::temp_name::Names;
use orphand::core::time::typed;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use toml::Value;

use super::path;
use crate::cli::output::{duration, size};

/// The shortest interval of a periodic action.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads a value with a unit, like `example`. `unit` is proposed for a number without one.
fn with_unit<T, E: Error>(
    value: Value,
    parse: fn(&str) -> Result<T, String>,
    unit: &str,
    expected: &str,
) -> Result<T, E> {
    match value {
        Value::String(text) => parse(&text).map_err(E::custom),
        Value::Integer(number @ 0..) => Err(E::custom(format!(
            "{number} has no unit; did you mean \"{number}{unit}\"?"
        ))),
        _ => Err(E::invalid_type(Unexpected::Unit, &expected)),
    }
}

fn duration<E: Error>(value: Value) -> Result<Duration, E> {
    with_unit(value, duration::parse, "s", "a duration, like \"30s\"")
}

pub(super) fn grace<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    match duration(Value::deserialize(from)?)? {
        grace if grace < SHORTEST_GRACE => Err(Error::custom(PolicyError::GraceTooShort(grace))),
        grace => Ok(Some(grace)),
    }
}

/// Reads the interval of a periodic action.
pub(super) fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match duration(Value::deserialize(from)?)? {
        every if every < SHORTEST_INTERVAL => Err(Error::custom(format!(
            "an interval of {} is too short; the shortest is {}",
            typed(every),
            typed(SHORTEST_INTERVAL)
        ))),
        every => Ok(every),
    }
}

/// Reads a duration for which 0 needs no unit, because it means no limit.
pub(super) fn time_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match Value::deserialize(from)? {
        Value::Integer(0) => Ok(Duration::ZERO),
        value => duration(value),
    }
}

/// Reads a size in bytes, which is not 0.
pub(super) fn max_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    match with_unit(value, size::parse, "MB", "a size, like \"16MB\"")? {
        0 => Err(Error::custom("max_size cannot be 0; the smallest is 1kB")),
        size => Ok(size),
    }
}

pub(super) fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let wanted = "a whole number from 1 to 100, or 0 for no limit";
    let value = Value::deserialize(from)?.as_integer();
    let percent = value.and_then(|number| u8::try_from(number).ok());
    let percent = percent.filter(|percent| *percent <= 100);
    percent.ok_or_else(|| Error::invalid_value(Unexpected::Unit, &wanted))
}

/// Reads a percentage such as "5%". "0" is the same as "0%".
pub(super) fn min_free<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let wanted = "a percentage from \"1%\" to \"100%\", or \"0\" for no limit";
    let parse = |text: &str| {
        let number = text.strip_suffix('%').or((text == "0").then_some(text))?;
        let digits = number.bytes().all(|b| b.is_ascii_digit());
        let number: u8 = digits.then(|| number.parse().ok()).flatten()?;
        (number <= 100).then_some(number)
    };
    let percent = match Value::deserialize(from)? {
        Value::Integer(0) => Some(0),
        value => value.as_str().and_then(parse),
    };
    percent.ok_or_else(|| Error::invalid_value(Unexpected::Unit, &wanted))
}

/// Reads an absolute path, or one below `~/`.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    path::parse(&String::deserialize(from)?).map_err(Error::custom)
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

impl<'de> Deserialize<'de> for LogFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<LogFile, D::Error> {
        match &String::deserialize(from)?[..] {
            "none" => Ok(LogFile::Off),
            // A word without "/" is more likely another word for "none" than a file name.
            word if !word.contains('/') => Err(Error::custom(format!(
                "file cannot be {word:?}; did you mean \"none\", or a path that begins with / or ~/?"
            ))),
            text => path::parse_file(text)
                .map(LogFile::At)
                .map_err(Error::custom),
        }
    }
}

impl Serialize for LogFile {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            LogFile::Default => to.serialize_none(),
            LogFile::Off => to.serialize_str("none"),
            LogFile::At(path) => to.serialize_str(&path.to_string_lossy()),
        }
    }
}

/// Reads the path of the metrics file. The collector reads only files whose names end in `.prom`.
pub(super) fn textfile<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    let path = path::parse_file(&text).map_err(Error::custom)?;
    if path.extension().is_some_and(|end| end == "prom") {
        return Ok(Some(path));
    }
    let stem = text.strip_suffix(".txt").unwrap_or(&text);
    Err(Error::custom(format!(
        "{text:?} does not end in .prom, so no collector would read it; did you mean \"{stem}.prom\"?"
    )))
}

type Strings = Option<Vec<String>>;

pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Strings, D::Error> {
    // Broad patterns are checked later, because another section may allow them.
    let names = strings(from, |glob| error(Names::allowing_broad(&[glob], &NONE)))?;
    // An empty list looks like "no names", but it would have the effect of the default.
    if names.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::custom(
            "names is empty; did you mean [\"*.tmp\"], which is the default without this line?",
        ));
    }
    Ok(names)
}

pub(super) fn writers<'de, D: Deserializer<'de>>(from: D) -> Result<Strings, D::Error> {
    strings(from, |name| error(Names::new(&NONE, &[name])))
}

pub(super) fn exclude<'de, D: Deserializer<'de>>(from: D) -> Result<Strings, D::Error> {
    strings(from, |glob| error(Exclude::new(&[glob])))
}

pub(super) fn file_systems<'de, D: Deserializer<'de>>(from: D) -> Result<Strings, D::Error> {
    strings(from, |_| None)
}

/// An empty list for [`Names`], to check the other list alone.
const NONE: [&str; 0] = [];

fn error<T, E: fmt::Display>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

/// Reads a list of strings for which `check` returns no error.
fn strings<'de, D: Deserializer<'de>>(from: D, check: Check) -> Result<Strings, D::Error> {
    from.deserialize_seq(ListOf(check)).map(Some)
}

type Check = fn(&str) -> Option<String>;

struct ListOf(Check);

impl<'de> Visitor<'de> for ListOf {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
        let mut strings = Vec::new();
        while let Some(string) = list.next_element_seed(Element(self.0))? {
            strings.push(string);
        }
        Ok(strings)
    }

    fn visit_str<E: Error>(self, one: &str) -> Result<Vec<String>, E> {
        let wanted = format!("a list; did you mean [{one:?}]?");
        Err(E::invalid_value(Unexpected::Str(one), &wanted.as_str()))
    }
}

/// One string of such a list.
struct Element(Check);

impl<'de> DeserializeSeed<'de> for Element {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Element {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        match (self.0)(text) {
            Some(error) => Err(E::custom(error)),
            None => Ok(text.to_owned()),
        }
    }
}

/// Writes a duration, or an optional one.
pub(super) fn write_duration<T, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error>
where
    T: Copy + Into<Option<Duration>>,
{
    let value: Option<Duration> = (*value).into();
    value.map(typed).serialize(to)
}

pub(super) fn write_size<S: Serializer>(size: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&size::typed(*size))
}

pub(super) fn write_percent<S: Serializer>(percent: &u8, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{percent}%"))
}

/// Writes a path. The path in the file is UTF-8, but the home directory that replaced its `~` need not be.
pub(super) fn write_path<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
    path.as_deref().map(Path::to_string_lossy).serialize(to)
}
