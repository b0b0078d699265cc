//! Checks whether settings are a valid rule, and finds the position of the wrong one.

use orphand::core::exclude::Exclude;
use orphand::core::policy::{Policy, PolicyError};
use orphand::core::temp_name::{NameError, Names, OwnWriters};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::SettingsError;
use super::reader::{SpannedError, entries, error_at, offset_of};
use super::schema::RuleSettings;

/// Returns the policy for the settings in force. `table` is the section that overrides the others: it has the position
/// of an error.
pub(super) fn checked_policy(
    settings: &RuleSettings,
    table: &DeTable<'_>,
) -> Result<Policy, SpannedError> {
    // An empty list looks like "no names", but it would have the effect of the default.
    if settings.names.as_ref().is_some_and(Vec::is_empty) {
        let what =
            "names is empty; did you mean [\"*.tmp\"], which is the default without this line?";
        return Err(error_at(table, "names", what));
    }
    settings.policy().map_err(|error| {
        let at = position_of(&error, table, &settings.own_writers);
        match error {
            // The policy's own message proposes options of the command line.
            SettingsError::Policy(PolicyError::RemovesNothing) => SpannedError::new(
                at,
                "closed = \"settled\" with open = \"keep\" never removes anything: closed temps are \
                 ignored, and open ones are kept; did you mean open = \"reap\"?",
            ),
            error => SpannedError::new(at, error),
        }
    })
}

/// Returns the byte offset of the string in a list, or of the other value, that causes `error`.
fn position_of(error: &SettingsError, table: &DeTable<'_>, own: &OwnWriters) -> usize {
    for entry in entries(table) {
        let mut list = entry.value.get_ref().as_array().into_iter().flatten();
        let is_cause = |value: &&Spanned<DeValue<'_>>| {
            let text = value.get_ref().as_str();
            text.is_some_and(|text| error_of(entry.key, text, own).as_ref() == Some(error))
        };
        if let Some(value) = list.find(is_cause) {
            return value.span().start;
        }
    }
    // A rule without `names` uses those of [defaults], and may forbid the broad ones by its own `broad_names`.
    let is_broad = matches!(error, SettingsError::Names(NameError::BroadGlob { .. }));
    let mut keys = entries(table).into_iter();
    match keys.find(|entry| is_broad && entry.key == "broad_names") {
        Some(entry) => entry.at,
        None if table.contains_key("closed") => offset_of(table, "closed"),
        None => offset_of(table, "open"),
    }
}

/// Returns the error for one string in the list of `key`.
fn error_of(key: &str, text: &str, own: &OwnWriters) -> Option<SettingsError> {
    const NONE: [&str; 0] = [];
    let names = match key {
        "names" => Names::new(&[text], &NONE),
        "writers" => Names::with_own_writers(&NONE, &[text], own, false),
        "exclude" => return Some(Exclude::new(&[text]).err()?.into()),
        _ => return None,
    };
    Some(names.err()?.into())
}
