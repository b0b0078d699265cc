//! Shows the settings in force, with the source of each value.

use std::path::Path;

use orphand::store::json::Object;
use serde_json::Value;

use super::sources::ValueSources;
use super::value;
use crate::cli::config::{Config, Lines, RuleSettings, SECTIONS, Section};
use crate::cli::output::text;

/// A section with all settings in force.
pub(super) struct ShownSection {
    title: &'static str,
    entries: Vec<ShownEntry>,
}

struct ShownEntry {
    key: &'static str,
    /// `None` if the key is not set and has no default.
    value: Option<Value>,
    /// The source of the value: `line 3`, `--grace`, `ORPHAND_GRACE` or `default`.
    origin: String,
}

const DEFAULT: &str = "default";

/// Returns all sections, in the order in which they are shown.
pub(super) fn sections(
    config: &Config,
    typed: &RuleSettings,
    sources: &ValueSources,
) -> Vec<ShownSection> {
    let mut shown = Vec::new();
    let none = Lines::new();
    let built_in = value::built_in();
    for section in SECTIONS {
        let lines = config.lines.get(section.title).unwrap_or(&none);
        let simple = |of: &dyn Fn(&str) -> Option<Value>| ShownSection {
            title: section.title,
            entries: section
                .keys
                .iter()
                .map(|&key| ShownEntry {
                    key,
                    value: of(key),
                    origin: lines.get(key).map_or(DEFAULT.to_owned(), line_label),
                })
                .collect(),
        };
        let typed = Layer(typed, &|key| typed_source(sources, key));
        let defaults = Layer(&config.defaults, &|key| {
            origin_at(config.lines.get("[defaults]"), key)
        });
        let built_in = Layer(&built_in, &|_| DEFAULT.to_owned());
        match section.title {
            "[defaults]" => shown.push(rule_section(&section, &[typed, defaults, built_in])),
            "[[watch]]" => {
                for one in &config.watch {
                    let own = Layer(&one.settings, &|key| origin_at(Some(&one.lines), key));
                    let mut rule = rule_section(&section, &[typed, own, defaults, built_in]);
                    let path = ShownEntry {
                        key: "path",
                        value: Some(value::path(&one.path)),
                        origin: origin_at(Some(&one.lines), "path"),
                    };
                    rule.entries.insert(0, path);
                    shown.push(rule);
                }
            }
            "[quarantine]" => {
                shown.push(simple(&|key| value::quarantine(&config.quarantine, key)));
            }
            "[journal]" => shown.push(simple(&|key| value::journal(&config.journal, key))),
            "[log]" => shown.push(simple(&|key| value::log(&config.log, key))),
            "[metrics]" => shown.push(simple(&|key| value::metrics(&config.metrics, key))),
            _ => {}
        }
    }
    shown
}

/// The settings of one source, and a function that returns the origin of a key in it.
#[derive(Clone, Copy)]
struct Layer<'a>(&'a RuleSettings, &'a dyn Fn(&'static str) -> String);

/// Returns a section in which each value comes from the first of `layers` that sets it.
fn rule_section(section: &Section, layers: &[Layer<'_>]) -> ShownSection {
    let entry = |&key: &&'static str| {
        // A `grace` also sets the grace of fixed names, unless the same layer has a `fixed_name_grace`.
        let candidates: &[&'static str] = match key {
            "fixed_name_grace" => &["fixed_name_grace", "grace"],
            "path" => &[],
            _ => std::slice::from_ref(section.keys.iter().find(|known| **known == key)?),
        };
        let found = layers.iter().find_map(|Layer(settings, origin)| {
            let value = |key: &&'static str| Some((value::rule(settings, key)?, origin(key)));
            candidates.iter().find_map(value)
        });
        let (value, origin) = found?;
        let value = Some(value);
        Some(ShownEntry { key, value, origin })
    };
    ShownSection {
        title: section.title,
        entries: section.keys.iter().filter_map(entry).collect(),
    }
}

fn origin_at(lines: Option<&Lines>, key: &str) -> String {
    let number = lines.and_then(|lines| lines.get(key));
    number.map(line_label).unwrap_or_default()
}

fn line_label(number: &usize) -> String {
    format!("line {number}")
}

/// Returns the option or the variable that sets `key`. Some options have other names than their keys.
fn typed_source(sources: &ValueSources, key: &str) -> String {
    let options: &[&str] = match key {
        "names" => &["name"],
        "writers" => &["writer"],
        "action" => &["dry_run", "action"],
        "broad" => &["allow_broad_root"],
        "broad_names" => &["allow_broad_name"],
        "fixed_name_grace" => &["grace"],
        key => &[key],
    };
    let source = options.iter().find_map(|option| sources.get(*option));
    source.cloned().unwrap_or_default()
}

/// Renders the sections as a valid configuration file, with the origin of each value in a comment.
pub(super) fn render_file(path: Option<&Path>, shown: &[ShownSection]) -> String {
    let mut out = match path {
        Some(path) => format!("# {}\n", text::escaped(path)),
        None => "# no configuration file\n".to_owned(),
    };
    for section in shown {
        out.push_str(&format!("\n{}\n", section.title));
        let setting = |entry: &ShownEntry| match &entry.value {
            Some(value) => format!("{} = {}", entry.key, value::toml(value)),
            None => format!("# {} is not set", entry.key),
        };
        let settings: Vec<String> = section.entries.iter().map(setting).collect();
        let widths = settings.iter().map(|setting| setting.chars().count());
        let width = widths.max().unwrap_or(0).min(48);
        for (setting, entry) in settings.iter().zip(&section.entries) {
            out.push_str(&format!("{setting:<width$}  # {}\n", entry.origin));
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Renders the sections as one JSON object. The rules are a list in it.
pub(super) fn render_json(path: Option<&Path>, shown: &[ShownSection]) -> Value {
    let object = |section: &ShownSection| {
        let entries = section.entries.iter();
        let with = |object: Object, entry: &ShownEntry| {
            let value = Object::default()
                .with("value", entry.value.clone())
                .with("origin", entry.origin.clone());
            object.with(entry.key, value.into_value())
        };
        entries.fold(Object::default(), with).into_value()
    };
    let (rules, others): (Vec<_>, Vec<_>) = shown
        .iter()
        .partition(|section| section.title == "[[watch]]");
    let rules: Vec<Value> = rules.into_iter().map(object).collect();
    let mut document = Object::default().with_path("path", path);
    for section in others {
        document = document.with(section.title.trim_matches(['[', ']']), object(section));
    }
    document.with("watch", rules).into_value()
}
