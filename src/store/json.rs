//! The JSON format of events: one object for each event, and every object has all its fields.
//!
//! Paths are strings. If a path is not UTF-8, the string contains U+FFFD, and a second field contains the exact bytes
//! in standard base64 with padding. The name of that field ends with `_b64`. For other paths it is absent.

use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::core::event::{Disposed, Event, Subject};
use crate::core::observation::Holder;
use crate::core::time::Wall;

/// The initial capacity of an object, in bytes: enough for an event about a file with a long path.
const CAPACITY: usize = 1024;

/// A JSON object whose fields are serialized as they are added, because there can be thousands of objects a second.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// The text of the object without its closing brace.
    text: Vec<u8>,
}

impl Object {
    /// Adds `value` under `key`. Keys are not escaped: all of them are constants of letters, digits and underscores.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Serialize) -> Object {
        self.put(key, &value);
        self
    }

    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        debug_assert!(key.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()));
        let start: &[u8] = match self.text.is_empty() {
            true => {
                self.text.reserve(CAPACITY);
                b"{\""
            }
            false => b",\"",
        };
        self.text.extend_from_slice(start);
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
        let value = serde_json::to_writer(&mut self.text, value);
        // Strings, numbers and lists of them can always be serialized, and writing to memory does not fail.
        debug_assert!(value.is_ok());
    }

    /// Adds `path` under `key`, and its bytes as a second field if it is not UTF-8.
    #[must_use]
    pub fn with_path(mut self, key: &str, path: Option<&Path>) -> Object {
        let Some(path) = path else {
            return self.with(key, Value::Null);
        };
        match path.to_str() {
            Some(path) => {
                self.put(key, path);
                self
            }
            None => {
                let bytes = STANDARD.encode(path.as_os_str().as_bytes());
                self.with(key, path.to_string_lossy())
                    .with(&format!("{key}_b64"), bytes)
            }
        }
    }

    /// Adds the duration `span` under `key`, in whole milliseconds.
    #[must_use]
    pub fn with_ms(self, key: &str, span: Option<Duration>) -> Object {
        let ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        self.with(key, ms)
    }

    fn with_subject(self, subject: &Subject) -> Object {
        self.with_path("path", Some(&subject.path))
            .with_path("root", Some(&subject.root))
            .with("bytes", subject.size.map(|size| size.bytes))
            .with("disk_bytes", subject.size.map(|size| size.disk_bytes))
    }

    fn with_disposed(self, disposed: &Disposed) -> Object {
        self.with_subject(&disposed.subject)
            .with_ms("quiet_ms", Some(disposed.quiet))
            .with_path("target", disposed.target.as_deref())
            .with("writer_pid", disposed.writer_pid)
            .with("dry_run", disposed.dry_run)
    }

    /// Converts the object to a [`Value`].
    #[must_use]
    pub fn into_value(self) -> Value {
        serde_json::from_str(&self.to_string()).unwrap_or_default()
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.text) {
            Ok("") => f.write_str("{}"),
            Ok(text) => {
                f.write_str(text)?;
                f.write_char('}')
            }
            // serde_json writes only UTF-8.
            Err(_) => Err(fmt::Error),
        }
    }
}

/// Formats `at` by RFC 3339, in UTC, with milliseconds and `Z`.
#[must_use]
pub fn time(at: Wall) -> String {
    let nanos = i32::try_from(at.nsec).unwrap_or(0);
    match jiff::Timestamp::new(at.sec, nanos) {
        Ok(at) => format!("{at:.3}"),
        // A time after the year 9999 or before the year -9999.
        Err(_) => "1970-01-01T00:00:00.000Z".to_owned(),
    }
}

/// Returns the holders of a file as a list of objects.
#[must_use]
pub fn holders(holders: &[Holder]) -> Value {
    let one = |holder: &Holder| json!({"pid": holder.pid, "name": holder.name});
    Value::Array(holders.iter().map(one).collect())
}

/// Returns the object for an event that happened at `at`, as it is printed and written to the journal.
#[must_use]
pub fn event(event: &Event, at: Wall) -> Object {
    let new = |name: &str| Object::default().with("event", name).with("time", time(at));
    match event {
        Event::Ready { roots, tracked } => {
            let lossy = |path: &std::path::PathBuf| Value::from(path.to_string_lossy());
            let paths: Vec<Value> = roots.iter().map(lossy).collect();
            let object = new("ready").with("roots", paths).with("tracked", *tracked);
            match roots.iter().all(|root| root.to_str().is_some()) {
                true => object,
                false => {
                    let bytes = |path: &std::path::PathBuf| {
                        Value::from(STANDARD.encode(path.as_os_str().as_bytes()))
                    };
                    object.with("roots_b64", roots.iter().map(bytes).collect::<Vec<_>>())
                }
            }
        }
        Event::Tracked { subject, due } => new("tracked")
            .with_subject(subject)
            .with_ms("due_ms", Some(*due)),
        Event::Settled { subject, how } => new("settled")
            .with_subject(subject)
            .with("how", how.as_str()),
        Event::Kept {
            subject,
            reason,
            holders: found,
            retry,
            reported_before: _,
            details: _,
        } => new("kept")
            .with_subject(subject)
            .with("reason", reason.as_str())
            .with("holders", holders(found))
            .with_ms("retry_ms", *retry),
        Event::Reaped(disposed) => new("reaped").with_disposed(disposed),
        Event::Quarantined { disposed, id, .. } => new("quarantined")
            .with_disposed(disposed)
            .with("id", id.as_deref()),
        Event::Restored { subject, id } => new("restored")
            .with_subject(subject)
            .with("id", id.as_str()),
        Event::Purged { subject, id } => {
            new("purged").with_subject(subject).with("id", id.as_str())
        }
        Event::Failed {
            subject,
            error,
            errno,
        } => new("failed")
            .with_subject(subject)
            .with("error", error.as_str())
            .with("errno", *errno),
        Event::Rescan { root, cause } => new("rescan")
            .with_path("root", Some(root))
            .with("cause", cause.as_str()),
        Event::Root { root, state } => new("root")
            .with_path("root", Some(root))
            .with("state", state.as_str()),
        Event::Summary(summary) => new("summary")
            .with("reaped", summary.reaped)
            .with("quarantined", summary.quarantined)
            .with("kept", summary.kept)
            .with("failed", summary.failed)
            .with("bytes", summary.freed.bytes)
            .with("disk_bytes", summary.freed.disk_bytes),
    }
}
