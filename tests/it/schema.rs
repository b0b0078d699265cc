//! The JSON Schema of the events (docs/events.schema.json), and a validator for the keywords that it uses.
//!
//! The schema is strict: a field that it does not list is an error. A validator from a library would add some fifty
//! packages to each build of the tests.

use std::collections::HashMap;
use std::sync::OnceLock;

use regex_lite::Regex;
use serde_json::{Value, json};

const FILE: &str = "docs/events.schema.json";

/// A schema with its patterns compiled.
struct Schema {
    root: Value,
    patterns: HashMap<String, Regex>,
}

/// The keywords that the validator understands.
const KEYWORDS: &[&str] = &[
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "items",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
];

impl Schema {
    fn new(root: Value) -> Schema {
        let mut patterns = HashMap::new();
        for (_, definition) in root["$defs"].as_object().expect("definitions") {
            collect_patterns(definition, &mut patterns);
        }
        Schema { root, patterns }
    }

    /// Returns the definition with this name.
    fn definition(&self, name: &str) -> Option<&Value> {
        self.root["$defs"].get(name)
    }

    /// Returns the first mismatch between `value` and `schema`, with the `place` of the value. `None` means valid.
    fn mismatch(&self, schema: &Value, value: &Value, place: &str) -> Option<String> {
        let schema = schema.as_object().expect("a schema is an object");
        schema
            .iter()
            .find_map(|(keyword, rule)| self.keyword_mismatch(keyword, rule, value, place))
            .or_else(|| unlisted_field(schema, value, place))
    }

    fn keyword_mismatch(
        &self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        place: &str,
    ) -> Option<String> {
        let list = || rule.as_array().expect("a list");
        let is_valid = |schema: &&Value| self.mismatch(schema, value, place).is_none();
        let fine = match keyword {
            "description" | "additionalProperties" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|at| at.strip_prefix("#/$defs/"));
                let definition = name.and_then(|name| self.definition(name));
                let definition = definition.unwrap_or_else(|| panic!("{rule} is not in {FILE}"));
                return self.mismatch(definition, value, place);
            }
            "properties" => {
                let fields = rule.as_object().expect("properties").iter();
                return fields
                    .filter_map(|(name, schema)| Some((name, schema, value.get(name)?)))
                    .find_map(|(name, schema, value)| {
                        self.mismatch(schema, value, &format!("{place}.{name}"))
                    });
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                return items
                    .enumerate()
                    .find_map(|(n, item)| self.mismatch(rule, item, &format!("{place}[{n}]")));
            }
            "required" => {
                let names = list().iter().filter_map(Value::as_str);
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                let missing: Vec<&str> = missing.collect();
                let what = || format!("{place} has no field {missing:?}");
                return (!missing.is_empty()).then(what);
            }
            "anyOf" => list().iter().any(|schema| is_valid(&schema)),
            "oneOf" => list().iter().filter(is_valid).count() == 1,
            "const" => value == rule,
            "enum" => list().contains(value),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().expect("a number")),
            "pattern" => value
                .as_str()
                .is_none_or(|text| self.patterns[rule.as_str().expect("text")].is_match(text)),
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| has_type(name, value)),
                name => has_type(name, value),
            },
            _ => panic!("tests/it/schema.rs does not understand {keyword:?} in {FILE}"),
        };
        (!fine).then(|| format!("{place} is {value}, but {keyword} is {rule}"))
    }
}

fn collect_patterns(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(pattern)) = fields.get("pattern") {
                let compiled = Regex::new(pattern).expect("a pattern");
                patterns.insert(pattern.clone(), compiled);
            }
            fields
                .values()
                .for_each(|value| collect_patterns(value, patterns));
        }
        Value::Array(list) => list
            .iter()
            .for_each(|value| collect_patterns(value, patterns)),
        _ => {}
    }
}

fn has_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("the name of a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("tests/it/schema.rs does not understand the type {other:?} in {FILE}"),
    }
}

fn unlisted_field(
    schema: &serde_json::Map<String, Value>,
    value: &Value,
    place: &str,
) -> Option<String> {
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return None;
    }
    let listed = schema.get("properties").and_then(Value::as_object);
    let is_listed = |name: &String| listed.is_some_and(|fields| fields.contains_key(name));
    let name = value.as_object()?.keys().find(|name| !is_listed(name))?;
    Some(format!(
        "{place} has the field {name:?}, which the schema does not list"
    ))
}

fn events() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let text = include_str!("../../docs/events.schema.json");
        Schema::new(serde_json::from_str(text).expect("JSON"))
    })
}

/// Panics unless `event` conforms to the schema of its kind.
#[track_caller]
pub(crate) fn check_event(event: &Value) {
    let kind = event["event"].as_str().unwrap_or_default();
    let schema = events();
    let Some(definition) = schema.definition(kind) else {
        panic!("{FILE} has no event {kind:?}; add it there and to docs/json.md: {event}");
    };
    if let Some(mismatch) = schema.mismatch(definition, event, kind) {
        panic!(
            "{mismatch}.\nIf this is intended, change {FILE} and docs/json.md. The event: {event}"
        );
    }
}

/// Returns all schemas in `schema`, itself included.
fn schemas_in(schema: &Value) -> Vec<&Value> {
    let fields = |name: &str| schema[name].as_object().into_iter().flatten();
    let lists = ["anyOf", "oneOf"].map(|name| schema[name].as_array().into_iter().flatten());
    let parts = fields("properties")
        .chain(fields("$defs"))
        .map(|(_, part)| part);
    let parts = parts.chain(lists.into_iter().flatten());
    let parts = parts.chain(schema.get("items"));
    let mut all = vec![schema];
    parts.for_each(|part| all.extend(schemas_in(part)));
    all
}

#[test]
fn the_validator_understands_the_whole_schema() {
    let schema = events();
    for (name, definition) in schema.root["$defs"].as_object().unwrap() {
        for part in schemas_in(definition) {
            for (keyword, rule) in part.as_object().unwrap() {
                assert!(
                    KEYWORDS.contains(&keyword.as_str()),
                    "{keyword:?} in {name}"
                );
                if keyword == "$ref" {
                    let target = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    assert!(schema.definition(target).is_some(), "{target} in {name}");
                }
                if part["type"] == "object" {
                    assert_eq!(part["additionalProperties"], false, "{name} is not strict");
                }
            }
        }
    }
}

#[test]
fn the_root_of_the_schema_lists_every_event() {
    let schema = events();
    let listed = schema.root["oneOf"].as_array().unwrap();
    let listed: Vec<&str> = listed
        .iter()
        .map(|one| one["$ref"].as_str().unwrap())
        .collect();
    let definitions = schema.root["$defs"].as_object().unwrap();
    let events = definitions
        .iter()
        .filter(|(name, definition)| definition["properties"]["event"]["const"] == name.as_str());
    let events: Vec<String> = events.map(|(name, _)| format!("#/$defs/{name}")).collect();
    assert_eq!(listed, events);
    let documented = include_str!("../../docs/json.md");
    for event in events {
        let row = format!("`{}`", event.trim_start_matches("#/$defs/"));
        assert!(documented.contains(&row), "{row} is not in docs/json.md");
    }
}

/// Returns an event that conforms to the schema.
fn valid_event() -> Value {
    json!({
        "event": "kept", "time": "2026-11-29T10:00:00.000Z", "path": "/r/a.tmp", "root": "/r", "bytes": 1,
        "disk_bytes": null, "reason": "in-use", "holders": [{"pid": 1, "name": "x"}],
        "process": {"pid": 1, "name": "x", "exe": "/x", "unit": null, "ended": null, "via": "holder"}, "retry_ms": null
    })
}

#[test]
fn an_event_that_differs_from_the_schema_is_rejected() {
    let mismatch = |event: &Value| {
        let whole = events().mismatch(&json!({"oneOf": events().root["oneOf"]}), event, "kept");
        let one = events().mismatch(&json!({"$ref": "#/$defs/kept"}), event, "kept");
        assert_eq!(whole.is_some(), one.is_some(), "{whole:?}, {one:?}");
        one
    };
    assert_eq!(mismatch(&valid_event()), None);
    for (field, value, what) in [
        ("event", json!("keep"), "kept.event is \"keep\", but const"),
        ("time", json!("2026-11-29T10:00:00Z"), "but pattern is"),
        ("path", json!("a.tmp"), "kept.path is \"a.tmp\""),
        ("path_b64", json!("?"), "kept.path_b64 is \"?\""),
        ("bytes", json!(-1), "kept.bytes is -1"),
        ("bytes", json!(1.5), "kept.bytes is 1.5"),
        ("bytes", json!("1"), "kept.bytes is \"1\""),
        (
            "reason",
            json!("because"),
            "kept.reason is \"because\", but enum",
        ),
        ("reason", json!(null), "kept.reason is null"),
        ("holders", json!({}), "but type is \"array\""),
        (
            "holders",
            json!([{"pid": 1}]),
            "kept.holders[0] has no field [\"name\"]",
        ),
        (
            "holders",
            json!([{"pid": 1, "name": "x", "exe": "/x"}]),
            "the field \"exe\"",
        ),
        ("writer", json!("x"), "kept has the field \"writer\""),
    ] {
        let mut event = valid_event();
        event[field] = value;
        let found = mismatch(&event).unwrap_or_else(|| panic!("valid: {event}"));
        assert!(found.contains(what), "{what:?} is not in {found:?}");
    }
    for field in valid_event().as_object().unwrap().keys() {
        let mut event = valid_event();
        event.as_object_mut().unwrap().remove(field);
        let found = mismatch(&event).unwrap_or_else(|| panic!("valid without {field}"));
        let what = format!("kept has no field [{field:?}]");
        assert!(found.contains(&what), "{what:?} is not in {found:?}");
    }
}
