//! The journal: what was done, before and after it happened.

use std::fs;
use std::path::{Path, PathBuf};
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

/// Gives the lines of the journal these times, in their order: hours before now.
fn dated(sandbox: &Sandbox, hours: &[i64]) {
    let path = journal(sandbox);
    let now = jiff::Timestamp::now();
    let mut hours = hours.iter();
    let lines = written(&fs::read_to_string(&path).unwrap());
    let dated = lines.into_iter().map(|mut line| {
        if line["event"].is_string() {
            let hours = hours.next().expect("a time for each");
            let at = now - jiff::SignedDuration::from_hours(*hours);
            line["time"] = format!("{at:.3}").into();
        }
        format!("{line}\n")
    });
    fs::write(&path, dated.collect::<String>()).unwrap();
}

#[test]
fn the_last_lines() {
    let sandbox = a_life();
    for (n, want) in [
        ("0", &LIFE[5..]),
        ("2", &LIFE[3..]),
        ("5", &LIFE),
        ("99", &LIFE),
    ] {
        assert_eq!(told(&history(&sandbox, &["-n", n])), want, "{n}");
    }
    let people = sandbox.run(["history", "-n2"]).exit(0);
    people.says("2 lines, 0 B freed");
    for wrong in ["-1", "x", "1.5", ""] {
        let ran = sandbox.run(["history", &format!("-n={wrong}")]).exit(2);
        ran.silent().complains("a whole number, like 20");
    }
}

#[test]
fn from_then_on_and_until_then() {
    let sandbox = a_life();
    let zone = jiff::tz::TimeZone::UTC;
    let now = jiff::Timestamp::now().to_zoned(zone);
    let date = |days: i64| {
        let day = now.date() - jiff::SignedDuration::from_hours(24 * days);
        day.to_string()
    };
    // Three days ago, then a little more than two, and just now.
    let noon = i64::from(now.hour());
    dated(&sandbox, &[72 + noon, 48 + noon, 24 + noon, 2 + noon, 0]);
    let sandbox = sandbox.env("TZ", "UTC");
    let all = |args: &[&str]| told(&history(&sandbox, args));
    for (args, want) in [
        (&["--since", "yesterday"][..], &LIFE[2..]),
        (&["--since", "today"], &LIFE[4..]),
        (&["--until", "today"], &LIFE[..4]),
        (&["--until", "yesterday"], &LIFE[..2]),
        (&["--since", "yesterday", "--until", "today"], &LIFE[2..4]),
        (&["--since", &date(2)], &LIFE[1..]),
        (&["--until", &date(2)], &LIFE[..1]),
        (&["--since", &date(3), "--until", &date(2)], &LIFE[..1]),
        (&["--since", &format!("{}T00:00:00Z", date(0))], &LIFE[4..]),
        (
            &["--since", &format!("{}T01:00:00+01:00", date(0))],
            &LIFE[4..],
        ),
        (&["--until", "1h30m"], &LIFE[..4]),
        (&["--until", "365d"], &LIFE[5..]),
        (&["--since", "yesterday", "-n", "1"], &LIFE[4..]),
    ] {
        assert_eq!(all(args), want, "{args:?}");
    }
    sandbox
        .run(["history", "--until", "365d"])
        .exit(0)
        .says("nothing was removed or moved there in that time");
    // The day is one of the zone that is set, by rule or by name.
    let mut zones = vec![("XXX14", -14)];
    if Path::new("/usr/share/zoneinfo/Pacific/Kiritimati").exists() {
        zones.push(("Pacific/Kiritimati", 14));
    }
    for (zone, hours) in zones {
        let there = a_life();
        dated(&there, &[72, 48, 24, 24, 0]);
        let first = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(72);
        let offset = jiff::tz::TimeZone::fixed(jiff::tz::offset(hours));
        let local = first.to_zoned(offset).date();
        let (before, after) = (local.to_string(), local.tomorrow().unwrap().to_string());
        let there = there.env("TZ", zone);
        let args = ["--since", &before, "--until", &after];
        assert_eq!(told(&history(&there, &args)), LIFE[..1], "{zone}");
    }
    for wrong in ["soon", "2026-13-01", "12"] {
        for option in ["--since", "--until"] {
            let ran = sandbox.run(["history", option, wrong]).exit(2).silent();
            ran.complains(wrong);
        }
    }
    let ran = sandbox.run(["history", "--since", "soon"]).exit(2);
    ran.complains("today, yesterday, a date (2026-11-28)");
}

#[test]
fn of_a_directory_and_what_is_below_it() {
    let sandbox = Sandbox::new()
        .file("in/a.4194304.tmp", "")
        .file("in/deep/b.4194304.tmp", "")
        .file("inner/c.tmp", "x")
        .file("d.4194304.tmp", "")
        .aged(OLD);
    sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0);
    let all = |args: &[&str]| {
        let mut told = told(&history(&sandbox, args));
        told.sort();
        told
    };
    assert_eq!(
        all(&["root/in"]),
        ["reaped a.4194304.tmp", "reaped b.4194304.tmp"]
    );
    assert_eq!(all(&["./root/in/deep/"]), ["reaped b.4194304.tmp"]);
    assert_eq!(all(&["root/inner"]), ["quarantined c.tmp"]);
    assert_eq!(all(&["root/inner", "root/in/deep"]).len(), 2);
    assert_eq!(all(&["root"]).len(), 4);
    assert_eq!(all(&["{base}"]).len(), 4);
    assert_eq!(all(&["elsewhere"]), [""; 0]);
    std::os::unix::fs::symlink("root/in", sandbox.base().join("alias")).unwrap();
    assert_eq!(all(&["alias"]).len(), 2);
    // It was restored elsewhere, and is what was done in its directory all the same.
    fs::create_dir(sandbox.base().join("out")).unwrap();
    let restored = ["restore", "--to", "out/c", "root/inner/c.tmp"];
    sandbox.run(restored).exit(0);
    for (dir, restored) in [("root/inner", false), ("root", true), ("out", true)] {
        let ran = sandbox.run(["history", dir]).exit(0);
        assert_eq!(
            ran.stdout.contains("restored"),
            restored,
            "{dir}: {}",
            ran.stdout
        );
    }
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
