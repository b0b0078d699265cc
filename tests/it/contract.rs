//! The wire format: every field of every event, and its allowed values.

use base64::Engine as _;
use serde_json::{Map, Value};

/// The type of a field.
#[derive(Clone, Copy)]
enum FieldType {
    /// A string.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An absolute path. If it is not UTF-8, a second field holds its exact bytes.
    Path,
    /// An absolute path, or null.
    MaybePath,
    /// A list of absolute paths.
    Paths,
    /// A non-negative integer.
    Count,
    /// A non-negative integer, or null.
    MaybeCount,
    /// A number, or null.
    MaybeNumber,
    /// True or false.
    Flag,
    /// At most 16 letters and digits, or null in a dry run.
    Id,
    /// Null or a process.
    MaybeProcess,
    /// A list of pids and names.
    Holders,
    /// The times of healthy writes, or null.
    Writes,
}

use FieldType::*;

type Fields = &'static [(&'static str, FieldType)];

const FILE: Fields = &[
    ("path", Path),
    ("root", Path),
    ("bytes", MaybeCount),
    ("disk_bytes", MaybeCount),
];

pub(crate) const REASONS: &[&str] = &[
    "restored",
    "young",
    "changed",
    "not-regular",
    "other-mount",
    "protected",
    "hard-linked",
    "network-fs",
    "foreign-owner",
    "writer-alive",
    "closed",
    "locked",
    "in-use",
    "cannot-tell",
    "sole-copy",
    "no-quarantine",
    "quarantine-full",
    "reserved",
];

const VERDICTS: &[&str] = &["reap", "quarantine", "keep"];
const HOW: &[&str] = &["renamed", "removed"];
const CAUSES: &[&str] = &["startup", "overflow", "periodic", "root-returned"];
const STATES: &[&str] = &[
    "watching",
    "gone",
    "polling",
    "denied",
    "blind",
    "no-answer",
];

/// The event, whether it concerns a file, and its own fields.
const EVENTS: &[(&str, bool, Fields)] = &[
    ("ready", false, &[("roots", Paths), ("tracked", Count)]),
    ("tracked", true, &[("due_ms", Count)]),
    ("settled", true, &[("how", Word(HOW))]),
    (
        "kept",
        true,
        &[
            ("reason", Word(REASONS)),
            ("holders", Holders),
            ("process", MaybeProcess),
            ("retry_ms", MaybeCount),
        ],
    ),
    (
        "reaped",
        true,
        &[
            ("quiet_ms", Count),
            ("target", MaybePath),
            ("writer_pid", MaybeCount),
            ("process", MaybeProcess),
            ("dry_run", Flag),
        ],
    ),
    (
        "quarantined",
        true,
        &[
            ("id", Id),
            ("quiet_ms", Count),
            ("target", MaybePath),
            ("process", MaybeProcess),
            ("dry_run", Flag),
        ],
    ),
    ("restored", true, &[("id", Id)]),
    ("purged", true, &[("id", Id)]),
    ("failed", true, &[("error", Text), ("errno", MaybeNumber)]),
    ("rescan", false, &[("root", Path), ("cause", Word(CAUSES))]),
    ("root", false, &[("root", Path), ("state", Word(STATES))]),
    (
        "summary",
        false,
        &[
            ("reaped", Count),
            ("quarantined", Count),
            ("kept", Count),
            ("failed", Count),
            ("bytes", Count),
            ("disk_bytes", Count),
            ("writes", Writes),
        ],
    ),
];

/// A temp in a document of `scan` or `explain`.
const TEMP: Fields = &[
    ("path", Path),
    ("bytes", Count),
    ("disk_bytes", Count),
    ("quiet_ms", Count),
    ("verdict", Word(VERDICTS)),
    ("target", MaybePath),
    ("writer_pid", MaybeCount),
];

const TOTAL: Fields = &[
    ("temps", Count),
    ("bytes", Count),
    ("orphans", Count),
    ("orphan_bytes", Count),
    ("disk_bytes", Count),
    ("orphan_disk_bytes", Count),
];

/// Panics unless `event` is a complete event of the contract.
#[track_caller]
pub(crate) fn check_event(event: &Value) {
    let object = event
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {event}"));
    let name = event["event"].as_str().unwrap_or_default();
    let known = EVENTS.iter().find(|(known, ..)| *known == name);
    let (_, about_file, fields) = known.unwrap_or_else(|| panic!("no such event: {event}"));
    let time = event["time"].as_str().unwrap_or_default();
    assert!(is_time(time), "time {time:?} in {event}");
    if *about_file {
        check_fields(object, FILE);
        let (path, root) = (text(event, "path"), text(event, "root"));
        assert!(path.starts_with(root), "{path:?} is not below {root:?}");
    }
    check_fields(object, fields);
    if name == "quarantined" {
        let dry_run = event["dry_run"] == true;
        assert_eq!(
            event["id"].is_null(),
            dry_run,
            "an id if and only if it is no dry run: {event}"
        );
    }
}

/// Panics unless `document` is what `scan --json` prints.
#[track_caller]
pub(crate) fn check_scan(document: &Value) {
    let object = document
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {document}"));
    check_fields(object, &[("roots", Paths)]);
    let temps = document["temps"]
        .as_array()
        .unwrap_or_else(|| panic!("no temps: {document}"));
    temps.iter().for_each(check_temp);
    check_fields(document["total"].as_object().expect("a total"), TOTAL);
    let claims = document["claims"].as_object().expect("claims");
    check_fields(claims, &[("count", Count), ("bytes", Count)]);
}

/// Panics unless `temp` is one of a document of `scan` or `explain`.
#[track_caller]
pub(crate) fn check_temp(temp: &Value) {
    let object = temp
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {temp}"));
    check_fields(object, TEMP);
    let reason = object
        .get("reason")
        .unwrap_or_else(|| panic!("no reason in {temp}"));
    match text(temp, "verdict") {
        "reap" => assert!(reason.is_null(), "{temp}"),
        "quarantine" => assert!(reason == "sole-copy" || reason == "in-use", "{temp}"),
        _ => assert!(
            REASONS.contains(&reason.as_str().unwrap_or_default()),
            "{temp}"
        ),
    }
}

#[track_caller]
fn check_fields(object: &Map<String, Value>, fields: Fields) {
    for (name, is) in fields {
        let value = object.get(*name);
        let value = value.unwrap_or_else(|| panic!("no field {name:?} in {object:?}"));
        assert!(
            matches_type(*is, name, value, object),
            "field {name:?} in {object:?}"
        );
    }
}

fn matches_type(is: FieldType, name: &str, value: &Value, object: &Map<String, Value>) -> bool {
    match is {
        Text => value.is_string(),
        Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        Path => is_path(value, object.get(&format!("{name}_b64"))),
        MaybePath => value.is_null() || is_path(value, object.get(&format!("{name}_b64"))),
        Paths => value
            .as_array()
            .is_some_and(|list| list.iter().all(|path| is_path(path, None))),
        Count => value.is_u64(),
        MaybeCount => value.is_null() || value.is_u64(),
        MaybeNumber => value.is_null() || value.is_i64() || value.is_u64(),
        Flag => value.is_boolean(),
        Id => {
            let is_id = |id: &str| {
                (1..=16).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric())
            };
            value.is_null() || value.as_str().is_some_and(is_id)
        }
        Writes => {
            let times = ["count", "p50_us", "p99_us", "max_us"];
            let is_complete = || times.into_iter().all(|field| value[field].is_u64());
            value.is_null() || (is_complete() && value["max_name"].is_string())
        }
        MaybeProcess => value.is_null() || is_process(value),
        Holders => value.as_array().is_some_and(|list| {
            list.iter()
                .all(|holder| holder["pid"].is_u64() && holder["name"].is_string())
        }),
    }
}

/// Checks a process and its end.
fn is_process(value: &Value) -> bool {
    let keys = |value: &Value| {
        value
            .as_object()
            .map(|object| object.keys().cloned().collect())
    };
    let keys = |value: &Value| -> Vec<String> { keys(value).unwrap_or_default() };
    let ended = &value["ended"];
    let is_ended = ended.is_null()
        || (keys(ended) == ["signal", "code", "at"]
            && ended["signal"].is_u64() != ended["code"].is_u64()
            && is_time(ended["at"].as_str().unwrap_or_default()));
    keys(value) == ["pid", "name", "exe", "unit", "ended", "via"]
        && value["pid"].is_u64()
        && ["name", "holder", "kernel"].contains(&value["via"].as_str().unwrap_or_default())
        && is_ended
}

/// Checks a path: the exact bytes must be present if and only if the text does not hold them.
fn is_path(text: &Value, bytes: Option<&Value>) -> bool {
    let Some(text) = text.as_str() else {
        return false;
    };
    let exact = match bytes {
        None => true,
        Some(bytes) => {
            let bytes = bytes.as_str().expect("base64 is a string");
            let bytes = decode_base64(bytes);
            std::str::from_utf8(&bytes).is_err() && String::from_utf8_lossy(&bytes) == text
        }
    };
    exact && text.starts_with('/')
}

/// Decodes standard base64 with padding.
pub(crate) fn decode_base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("standard base64")
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

/// Reports whether `time` is RFC 3339 in UTC, with milliseconds and `Z`.
pub(crate) fn is_time(time: &str) -> bool {
    let shape = time
        .bytes()
        .map(|b| if b.is_ascii_digit() { b'0' } else { b });
    shape.eq(*b"0000-00-00T00:00:00.000Z") && time.parse::<jiff::Timestamp>().is_ok()
}

#[test]
fn only_utc_with_milliseconds_is_a_time() {
    for (time, good) in [
        ("2025-11-22T17:46:04.123Z", true),
        ("2025-11-22T17:46:04Z", false),
        ("2025-11-22T17:46:04.123456Z", false),
        ("2025-11-22T17:46:04.123+00:00", false),
        ("2025-11-22 17:46:04.123Z", false),
        ("2025-13-22T17:46:04.123Z", false),
    ] {
        assert_eq!(is_time(time), good, "{time}");
    }
}
