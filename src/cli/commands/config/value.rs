//! Converts settings to the values of the file, key by key. This is the inverse of reading the file.

use std::path::Path;

use clap::ValueEnum;
use log::LevelFilter;
use orphand::core::policy::{FIXED_NAME_GRACE, GRACE};
use orphand::core::retention::Limits;
use orphand::core::time::typed;
use serde_json::{Value, json};

use crate::cli::choices::{ActionArg, ClosedArg, HotArg, OpenArg, SoleCopyArg};
use crate::cli::config::{JournalSettings, LogFile, LogSettings, MetricsSettings, RuleSettings};
use crate::cli::output::{size, text};

/// Returns the built-in defaults, with a value for every key.
pub(super) fn built_in() -> RuleSettings {
    RuleSettings {
        names: Some(vec!["*.tmp".to_owned()]),
        writers: Some(Vec::new()),
        exclude: Some(Vec::new()),
        recursive: Some(false),
        grace: Some(GRACE),
        fixed_name_grace: Some(FIXED_NAME_GRACE),
        closed: Some(Default::default()),
        open: Some(Default::default()),
        sole_copy: Some(Default::default()),
        action: Some(Default::default()),
        hot: Some(Default::default()),
        network: Some(Vec::new()),
        broad: Some(false),
        broad_names: Some(false),
    }
}

/// Returns the value of one key of a rule, if it is set.
pub(super) fn rule(settings: &RuleSettings, key: &str) -> Option<Value> {
    // A new setting does not compile until it is handled here.
    let RuleSettings {
        names,
        writers,
        exclude,
        recursive,
        grace,
        fixed_name_grace,
        closed,
        open,
        sole_copy,
        action,
        hot,
        network,
        broad,
        broad_names,
    } = settings;
    let list = |list: &Option<Vec<String>>| list.as_ref().map(|list| json!(list));
    match key {
        "names" => list(names),
        "writers" => list(writers),
        "exclude" => list(exclude),
        "recursive" => recursive.map(Value::from),
        "grace" => grace.map(|grace| typed(grace).into()),
        "fixed_name_grace" => fixed_name_grace.map(|grace| typed(grace).into()),
        "closed" => closed.map(word::<ClosedArg, _>),
        "open" => open.map(word::<OpenArg, _>),
        "sole_copy" => sole_copy.map(word::<SoleCopyArg, _>),
        "action" => action.map(word::<ActionArg, _>),
        "hot" => hot.map(word::<HotArg, _>),
        "network" => list(network),
        "broad" => broad.map(Value::from),
        "broad_names" => broad_names.map(Value::from),
        _ => None,
    }
}

pub(super) fn quarantine(limits: &Limits, key: &str) -> Option<Value> {
    // A new setting does not compile until it is handled here.
    let Limits {
        age,
        percent,
        min_free,
    } = limits;
    match key {
        "keep" => Some(typed(*age).into()),
        "percent" => Some((*percent).into()),
        "min_free" => Some(format!("{min_free}%").into()),
        _ => None,
    }
}

pub(super) fn journal(settings: &JournalSettings, key: &str) -> Option<Value> {
    let JournalSettings { max_size } = settings;
    (key == "max_size").then(|| size::typed(*max_size).into())
}

pub(super) fn log(settings: &LogSettings, key: &str) -> Option<Value> {
    let LogSettings {
        file,
        max_size,
        level,
        leaks,
    } = settings;
    match (key, file) {
        ("file", LogFile::Default) => None,
        ("file", LogFile::Off) => Some("none".into()),
        ("file", LogFile::At(file)) => Some(path(file)),
        ("max_size", _) => Some(size::typed(*max_size).into()),
        ("level", _) => Some(level_word(*level)),
        ("leaks", _) => Some(typed(*leaks).into()),
        _ => None,
    }
}

pub(super) fn metrics(settings: &MetricsSettings, key: &str) -> Option<Value> {
    let MetricsSettings { textfile, every } = settings;
    match key {
        "textfile" => textfile.as_deref().map(path),
        "every" => Some(typed(*every).into()),
        _ => None,
    }
}

/// Returns a path as a string. The path in the file is UTF-8, but the home directory that replaced its `~` need not be.
pub(super) fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

fn level_word(level: LevelFilter) -> Value {
    level.as_str().to_ascii_lowercase().into()
}

/// Returns the word of the file for `value`.
fn word<A: ValueEnum + Into<T>, T: PartialEq>(value: T) -> Value {
    let matches = |choice: &&A| {
        let choice: A = (*choice).clone();
        choice.into() == value
    };
    let choice = A::value_variants().iter().find(matches);
    let word = choice.and_then(A::to_possible_value);
    word.map_or(Value::Null, |word| word.get_name().into())
}

/// Returns `value` in TOML. Characters that a terminal would interpret are escaped.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => text::quoted(text),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(toml).collect();
            format!("[{}]", list.join(", "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_a_round_trip() {
        for (text, want) in [
            ("/srv/größe", r#""/srv/größe""#),
            (r#"it's "a\b""#, r#""it's \"a\\b\"""#),
            ("a\nb\u{7f}", r#""a\U0000000Ab\U0000007F""#),
            ("a\u{202e}b", r#""a\U0000202Eb""#),
        ] {
            let written = toml(&text.into());
            assert_eq!(written, want);
            let read = toml::from_str::<toml::Table>(&format!("a = {written}")).expect(want);
            assert_eq!(read["a"].as_str(), Some(text));
        }
        assert_eq!(toml(&json!(["a", "b"])), r#"["a", "b"]"#);
        assert_eq!(
            (toml(&json!([])), toml(&json!(5))),
            ("[]".into(), "5".into())
        );
    }

    #[test]
    fn the_built_in_defaults_are_the_default_policy() {
        let built_in = built_in().policy().expect("a valid rule");
        let default = RuleSettings::default().policy().expect("a valid rule");
        assert_eq!(format!("{built_in:?}"), format!("{default:?}"));
    }
}
