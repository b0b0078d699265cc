//! The values of the file that serde does not know: reads them, and writes them as the file has them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::core::time::typed;
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize, Serializer};
use toml::Value;

use super::path;
use crate::cli::output::{duration, size};

/// The shortest interval of a periodic action.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// A kind of values with a unit.
struct Quantity {
    wanted: &'static str,
    /// The unit that is proposed for a number without one.
    unit: &'static str,
}

const DURATION: Quantity = Quantity {
    wanted: "a duration, like \"30s\"",
    unit: "s",
};
const SIZE: Quantity = Quantity {
    wanted: "a size, like \"16MB\"",
    unit: "MB",
};

/// Reads a value with a unit by `parse`.
fn with_unit<T, E: Error>(
    value: Value,
    parse: fn(&str) -> Result<T, String>,
    quantity: &Quantity,
) -> Result<T, E> {
    let Quantity { wanted, unit } = quantity;
    match value {
        Value::String(text) => parse(&text).map_err(E::custom),
        Value::Integer(number @ 0..) => Err(E::custom(format!(
            "{number} has no unit; did you mean \"{number}{unit}\"?"
        ))),
        _ => Err(E::invalid_type(Unexpected::Unit, wanted)),
    }
}

pub(super) fn grace<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    with_unit(Value::deserialize(from)?, duration::grace, &DURATION).map(Some)
}

/// Reads the interval of a periodic action.
pub(super) fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let parse = |text: &str| match duration::parse(text)? {
        every if every < SHORTEST_INTERVAL => Err(format!(
            "an interval of {} is too short; the shortest is {}",
            typed(every),
            typed(SHORTEST_INTERVAL)
        )),
        every => Ok(every),
    };
    with_unit(Value::deserialize(from)?, parse, &DURATION)
}

/// Reads a duration for which 0 needs no unit, because it means no limit.
pub(super) fn time_limit<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    match Value::deserialize(from)? {
        Value::Integer(0) => Ok(Duration::ZERO),
        value => with_unit(value, duration::parse, &DURATION),
    }
}

/// Reads a size in bytes, which is not 0.
pub(super) fn max_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match with_unit(Value::deserialize(from)?, size::parse, &SIZE)? {
        0 => Err(Error::custom("max_size cannot be 0; the smallest is 1kB")),
        size => Ok(size),
    }
}

/// Reads a size for which 0 needs no unit, because it means no limit.
pub(super) fn size_limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Value::deserialize(from)? {
        Value::Integer(0) => Ok(0),
        value => with_unit(value, size::parse, &SIZE),
    }
}

/// Reads a command: a program and its arguments.
pub(super) fn command<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<String>>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(Some(words)),
        _ => Err(Error::custom(
            "command needs a program and its arguments, like [\"notify-send\", \"orphand\"]",
        )),
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
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = path::parse(&String::deserialize(from)?);
    path.map(Some).map_err(Error::custom)
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

/// Reads the path of a guard file.
pub(super) fn guard_file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = path::parse_guard(&String::deserialize(from)?);
    path.map(Some).map_err(Error::custom)
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
