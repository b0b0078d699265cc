//! The journal: what was done, before and after it happened.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Events, Sandbox, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD: Duration = Duration::from_millis(150);

fn journal(sandbox: &Sandbox) -> PathBuf {
    sandbox.base().join("state/orphand/journal.jsonl")
}

/// The lines of a journal. An empty one separates what a crash may have torn.
fn written(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn history(sandbox: &Sandbox, args: &[&str]) -> Events {
    sandbox
        .run(["history", "--json"].iter().chain(args))
        .exit(0)
        .events()
}

fn told(events: &Events) -> Vec<String> {
    events
        .0
        .iter()
        .map(|e| format!("{} {}", e["event"].as_str().unwrap(), name(e)))
        .collect()
}

/// One of each sort, in this order.
fn a_life() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(OLD);
    sandbox.sweep(SHORT).exit(0);
    for temp in ["b.tmp", "c.tmp"] {
        sandbox.write(temp, "precious");
        sandbox.age(OLD);
        sandbox.sweep(SHORT).exit(0);
    }
    sandbox.run(["restore", "root/b.tmp"]).exit(0);
    sandbox.run(["quarantine", "purge", "--yes"]).exit(0);
    sandbox
}

const LIFE: [&str; 5] = [
    "reaped a.tmp",
    "quarantined b.tmp",
    "quarantined c.tmp",
    "restored b.tmp",
    "purged c.tmp",
];

#[test]
fn everything_that_was_done_oldest_first() {
    let sandbox = a_life();
    let events = history(&sandbox, &[]);
    assert_eq!(told(&events), LIFE);
    let times: Vec<&str> = events
        .0
        .iter()
        .map(|e| e["time"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let reaped = events.one("reaped");
    assert_eq!(reaped["bytes"], 3);
    assert_eq!(reaped["path"], sandbox.path("a.tmp").to_str().unwrap());
    assert_eq!(reaped["target"], sandbox.path("a").to_str().unwrap());
    // A dry run, a look and what was kept are no history.
    sandbox.write("d.4194304.tmp", "");
    sandbox.age(OLD);
    sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0);
    sandbox.sweep(["--grace", "1d"]).exit(0);
    sandbox.scan(SHORT).exit(0);
    assert_eq!(told(&history(&sandbox, &[])), LIFE);
    let people = sandbox.run(["history"]).exit(0);
    for words in ["reaped", "quarantined", "restored", "purged", "a.tmp"] {
        assert!(people.stdout.contains(words), "{words}: {}", people.stdout);
    }
}

#[test]
fn since() {
    let sandbox = a_life();
    let path = journal(&sandbox);
    // A day passes for the first three.
    let text = fs::read_to_string(&path).unwrap();
    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(25);
    let yesterday = format!("{yesterday:.3}");
    let older = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        if value["event"] == "reaped" || value["event"] == "quarantined" {
            value["time"] = yesterday.as_str().into();
        }
        format!("{value}\n")
    };
    fs::write(
        &path,
        text.lines()
            .filter(|line| !line.is_empty())
            .map(older)
            .collect::<String>(),
    )
    .unwrap();
    assert_eq!(told(&history(&sandbox, &["--since", "7d"])), LIFE);
    assert_eq!(told(&history(&sandbox, &["--since", "26h"])), LIFE);
    assert_eq!(told(&history(&sandbox, &["--since", "24h"])), LIFE[3..]);
}

/// The intent is there before anything happens, the outcome after it.
#[test]
fn a_line_before_and_a_line_after() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(OLD);
    sandbox.sweep(SHORT).exit(0);
    let text = fs::read_to_string(journal(&sandbox)).unwrap();
    let lines: Vec<Value> = written(&text);
    assert_eq!(lines.len(), 2, "{text}");
    for line in &lines {
        assert_eq!(line["path"], sandbox.path("a.tmp").to_str().unwrap());
        assert!(line["time"].is_string());
    }
    assert_eq!(lines[0]["verdict"], "reap");
    for field in ["ino", "dev", "bytes", "mtime"] {
        assert!(
            !lines[0][field].is_null(),
            "the fingerprint has {field}: {text}"
        );
    }
    assert_eq!(lines[1]["event"], "reaped");
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(journal(&sandbox))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "nobody else's business");
}

/// A line that a crash tore is passed over, and joins no other.
#[test]
fn a_torn_line() {
    let sandbox = a_life();
    let path = journal(&sandbox);
    let mut text = fs::read(&path).unwrap();
    text.truncate(text.len() - 10);
    fs::write(&path, text).unwrap();
    assert_eq!(told(&history(&sandbox, &[])), LIFE[..4]);
    sandbox.write("d.4194304.tmp", "");
    sandbox.age(OLD);
    sandbox.sweep(SHORT).exit(0);
    let told = told(&history(&sandbox, &[]));
    assert_eq!(told[..4], LIFE[..4]);
    assert_eq!(told[4..], ["reaped d.4194304.tmp"]);
}

/// What the watcher does is written down like anything else.
#[test]
fn of_a_watcher() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    sandbox.write("a.tmp", "x");
    watching.outlive_a_sentinel(&sandbox);
    watching.stop().exit(0);
    let mut told = told(&history(&sandbox, &[]));
    told.sort();
    assert_eq!(
        told,
        [
            "reaped a.tmp",
            "reaped sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
        ]
    );
}
