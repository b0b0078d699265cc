//! `config show`: shows the settings in force, with the source of each value.

use std::path::Path;

use orphand::store::json::{WirePath, field};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::sources::{ValueSources, WithSources};
use crate::cli::choices::ActionArg;
use crate::cli::config::{Config, Lines, RuleSettings, Section, built_in, sections};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, PolicyOptions};
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::text;
use crate::cli::output::writer_list::list_writers;

/// The JSON of the command.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten, with = "field::path")]
    path: WirePath<'a>,
    #[serde(flatten, serialize_with = "by_name")]
    sections: Vec<&'a ShownSection>,
    watch: Vec<&'a ShownSection>,
    writer: Vec<&'a ShownSection>,
}

fn by_name<S: Serializer>(sections: &[&ShownSection], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(sections.iter().map(|shown| (shown.section.name(), shown)))
}

/// A section with all settings in force.
struct ShownSection {
    section: &'static Section,
    settings: Vec<(&'static str, Setting)>,
}

#[derive(Serialize)]
struct Setting {
    /// `null` if the key is not set and has no default.
    value: Value,
    /// The source of the value: `line 3`, `--grace`, `ORPHAND_GRACE` or `default`.
    origin: String,
}

impl Serialize for ShownSection {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.settings.iter().map(|(key, setting)| (key, setting)))
    }
}

pub(super) fn run(
    options: &WithSources<PolicyOptions>,
    output: &OutputOptions,
    printer: &mut EventPrinter,
) -> Result<Exit, Failure> {
    if list_writers(&options.options.rule, output)? {
        return Ok(Exit::Done);
    }
    let config = Config::load(options.options.rule.config.as_deref())?;
    let mut typed = options.options.settings();
    if typed.dry_run {
        typed.action = Some(ActionArg::Report);
    }
    // Checks the same as a watcher, so that no setting is shown as in force that a watcher would refuse.
    config.roots(&typed)?;
    typed.clone().over(&config.defaults).policy()?;
    let shown = shown_sections(&config, &typed, &options.sources);
    if output.json {
        let is_list = |shown: &&ShownSection| shown.section.title.starts_with("[[");
        let (lists, sections): (Vec<_>, Vec<_>) = shown.iter().partition(is_list);
        let is_rule = |shown: &&ShownSection| shown.section.name() == "watch";
        let (watch, writer) = lists.into_iter().partition(is_rule);
        let path = config.path.as_deref().map(Into::into);
        printer.json(&Document {
            path,
            sections,
            watch,
            writer,
        })?;
    } else {
        printer.line(&render_file(config.path.as_deref(), &shown))?;
    }
    Ok(Exit::Done)
}

/// Returns all sections, in the order in which they are shown.
fn shown_sections(
    config: &Config,
    typed: &RuleSettings,
    sources: &ValueSources,
) -> Vec<ShownSection> {
    let typed = Layer {
        values: values(typed),
        origin: Box::new(|key| typed_source(sources, key)),
    };
    let built_in = Layer::of_file(values(&built_in()), None);
    let mut values_of_sections = values(config);
    let mut of_file = |section: &Section| {
        let values = values_of_sections[section.name()].take();
        Layer::of_file(values, config.lines.get(section.title))
    };
    let mut defaults = None;
    let mut shown = Vec::new();
    for section in sections() {
        let layer = of_file(section);
        match (section.name(), &defaults) {
            ("defaults", _) => {
                shown.push(shown_section(section, &[&typed, &layer, &built_in]));
                defaults = Some(layer);
            }
            ("watch", Some(defaults)) => shown.extend(config.watch.iter().map(|rule| {
                let mut values = values(&rule.settings);
                values["path"] = rule.path.to_string_lossy().into();
                let own = Layer::of_file(values, Some(&rule.lines));
                shown_section(section, &[&typed, &own, defaults, &built_in])
            })),
            ("writer", _) => {
                let own = config.defaults.own_writers.iter().zip(&config.writer_lines);
                shown.extend(own.map(|(writer, lines)| {
                    let own = Layer::of_file(values(&**writer.row()), Some(lines));
                    shown_section(section, &[&own])
                }));
            }
            _ => shown.push(shown_section(section, &[&layer])),
        }
    }
    shown
}

/// The settings of one source, and a function that returns the origin of a key in it.
struct Layer<'a> {
    values: Value,
    origin: Box<dyn Fn(&str) -> String + 'a>,
}

impl Layer<'_> {
    fn of_file(values: Value, lines: Option<&Lines>) -> Layer<'_> {
        let line = move |key: &str| lines.and_then(|lines| lines.get(key));
        let origin = move |key: &str| match line(key) {
            Some(number) => format!("line {number}"),
            None => DEFAULT.to_owned(),
        };
        let origin = Box::new(origin);
        Layer { values, origin }
    }

    fn setting(&self, key: &str) -> Option<Setting> {
        let value = self.values.get(key).filter(|value| !value.is_null())?;
        let (value, origin) = (value.clone(), (self.origin)(key));
        Some(Setting { value, origin })
    }
}

const DEFAULT: &str = "default";

/// Returns the settings as the values of the file.
fn values(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).unwrap_or_default()
}

/// Returns a section in which each value comes from the first of `layers` that sets it.
fn shown_section(section: &'static Section, layers: &[&Layer<'_>]) -> ShownSection {
    let setting = |&key: &&'static str| {
        // A `grace` also sets the grace of fixed names, unless the same layer has a `fixed_name_grace`.
        let other = if key == "fixed_name_grace" {
            "grace"
        } else {
            key
        };
        let found = layers
            .iter()
            .find_map(|layer| layer.setting(key).or_else(|| layer.setting(other)));
        let unset = || Setting {
            value: Value::Null,
            origin: DEFAULT.to_owned(),
        };
        (key, found.unwrap_or_else(unset))
    };
    let mut settings: Vec<_> = section.keys.iter().map(setting).collect();
    let names = layers.iter().filter_map(|layer| layer.setting("names"));
    turn_off_default_writers(&mut settings, names);
    ShownSection { section, settings }
}

/// Empties the default list of writers if it does not apply: if a source has other `names` than the default ones.
fn turn_off_default_writers(
    settings: &mut [(&str, Setting)],
    mut names: impl Iterator<Item = Setting>,
) {
    if names.any(|names| names.value != serde_json::json!(["*.tmp"])) {
        let is_default =
            |(key, setting): &&mut (&str, Setting)| *key == "writers" && setting.origin == DEFAULT;
        for (_, writers) in settings.iter_mut().filter(is_default) {
            writers.value = Value::Array(Vec::new());
        }
    }
}

/// Returns the option or the variable that sets `key`.
fn typed_source(sources: &ValueSources, key: &str) -> String {
    let option = match key {
        "action" if sources.contains_key("dry_run") => "dry_run",
        "fixed_name_grace" => "grace",
        key => key,
    };
    sources.get(option).cloned().unwrap_or_default()
}

/// Renders the sections as a valid configuration file, with the origin of each value in a comment.
fn render_file(path: Option<&Path>, shown: &[ShownSection]) -> String {
    let mut out = match path {
        Some(path) => format!("# {}\n", text::escaped(path)),
        None => "# no configuration file\n".to_owned(),
    };
    for section in shown {
        out.push_str(&format!("\n{}\n", section.section.title));
        let line = |(key, setting): &(&str, Setting)| match &setting.value {
            Value::Null => format!("# {key} is not set"),
            value => format!("{key} = {}", toml(value)),
        };
        let settings: Vec<String> = section.settings.iter().map(line).collect();
        let widths = settings.iter().map(|line| line.chars().count());
        let width = widths.max().unwrap_or(0).min(48);
        for (line, (_, setting)) in settings.iter().zip(&section.settings) {
            out.push_str(&format!("{line:<width$}  # {}\n", setting.origin));
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Returns `value` in TOML. Characters that a terminal would interpret are escaped.
fn toml(value: &Value) -> String {
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
    use serde_json::json;

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
}
