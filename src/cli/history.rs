//! `orphand history`: what was done, from the journal.

use std::time::Duration;

use orphand::clock;
use orphand::journal::Journal;
use orphand::state::Folders;
use serde_json::Value;

use super::args::{History, Look};
use super::quarantines::path_of;
use super::report::Report;
use super::{Exit, Failure, text};

/// The events that are history; what else a journal may hold is its own business.
const TOLD: [&str; 4] = ["reaped", "quarantined", "restored", "purged"];

pub(super) fn run(command: &History, look: &Look) -> Result<Exit, Failure> {
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut report = Report::new(look, Vec::new());
    let from = command.since.map(since);
    let (mut told, mut bytes, mut end) = (0u64, 0u64, Ok(()));
    let read = journal.outcomes(|object| {
        let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let late = from.as_deref().is_some_and(|from| word("time") < from);
        if end.is_err() || late || !TOLD.contains(&word("event")) {
            return;
        }
        told += 1;
        if word("event") == "reaped" {
            let freed = object.get("bytes").and_then(Value::as_u64);
            bytes = freed.unwrap_or(0).saturating_add(bytes);
        }
        end = match look.json {
            true => report.line(&object.to_string()),
            false => report.line(&line(&object)),
        };
    });
    read.map_err(|error| {
        let path = journal.path().unwrap_or(std::path::Path::new(""));
        Failure::new(
            Exit::Failed,
            format!("cannot read the journal {path:?}: {error}"),
        )
    })?;
    end?;
    if !look.json && !look.quiet {
        let sum = match told {
            0 => "nothing was done yet".to_owned(),
            told => format!(
                "{}, {} freed",
                text::counted(told, "line", "lines"),
                text::size(bytes)
            ),
        };
        report.line(&sum)?;
    }
    Ok(Exit::Done)
}

/// The moment `span` ago. Times of one format compare as text.
fn since(span: Duration) -> String {
    let now = clock::wall();
    let secs = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    orphand::json::time(orphand::decide::time::Wall {
        sec: now.sec.saturating_sub(secs).max(0),
        nsec: now.nsec,
    })
}

fn line(object: &Value) -> String {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let time = word("time").parse::<jiff::Timestamp>().map_or_else(
        |_| word("time").to_owned(),
        |time| {
            let zone = jiff::tz::TimeZone::system();
            time.to_zoned(zone)
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    );
    // The exact bytes, also where they are not UTF-8.
    let path = text::escaped(&path_of(object, "path").unwrap_or_default());
    let bytes = object
        .get("bytes")
        .and_then(Value::as_u64)
        .map(text::size)
        .unwrap_or_default();
    let id = match word("id") {
        "" => String::new(),
        id => format!("  {id}"),
    };
    format!("{time}  {:<11}  {bytes:>8}  {path}{id}", word("event"))
}
