//! The journal: the intent and the outcome of every action.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Events, Sandbox, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

fn journal(sandbox: &Sandbox) -> PathBuf {
    sandbox.base().join("state/orphand/journal.jsonl")
}

/// Returns the lines of a journal. An empty line separates a line that a crash may have cut.
fn journal_lines(text: &str) -> Vec<Value> {
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

fn summaries(events: &Events) -> Vec<String> {
    events
        .0
        .iter()
        .map(|e| format!("{} {}", e["event"].as_str().unwrap(), name(e)))
        .collect()
}

/// Performs one action of each kind, in the order of [`LIFE`].
fn one_action_of_each_kind() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    for temp in ["b.tmp", "c.tmp"] {
        sandbox.write(temp, "precious");
        sandbox.age(OLD_ENOUGH);
        sandbox.sweep(SHORT).exit(0);
    }
    sandbox.run(["restore", "root/b.tmp"]).exit(0);
    sandbox.run(["quarantine", "purge", "--yes"]).exit(0);
    sandbox
}

const ACTIONS: [&str; 5] = [
    "reaped a.tmp",
    "quarantined b.tmp",
    "quarantined c.tmp",
    "restored b.tmp",
    "purged c.tmp",
];

#[test]
fn history_lists_every_action_oldest_first() {
    let sandbox = one_action_of_each_kind();
    let events = history(&sandbox, &[]);
    assert_eq!(summaries(&events), ACTIONS);
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
    // A dry run, a scan and kept files are not in the history.
    sandbox.write("d.4194304.tmp", "");
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0);
    sandbox.sweep(["--grace", "1d"]).exit(0);
    sandbox.scan(SHORT).exit(0);
    assert_eq!(summaries(&history(&sandbox, &[])), ACTIONS);
    let human = sandbox.run(["history"]).exit(0);
    for words in ["removed", "moved", "restored", "purged", "a.tmp"] {
        assert!(human.stdout.contains(words), "{words}: {}", human.stdout);
    }
}

#[test]
fn since_limits_the_period() {
    let sandbox = one_action_of_each_kind();
    let path = journal(&sandbox);
    // The first three become a day old.
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
    assert_eq!(summaries(&history(&sandbox, &["--since", "7d"])), ACTIONS);
    assert_eq!(summaries(&history(&sandbox, &["--since", "26h"])), ACTIONS);
    assert_eq!(
        summaries(&history(&sandbox, &["--since", "24h"])),
        ACTIONS[3..]
    );
}

/// Gives the lines of the journal these times, in order: hours before now.
fn set_times(sandbox: &Sandbox, hours: &[i64]) {
    let path = journal(sandbox);
    let now = jiff::Timestamp::now();
    let mut hours = hours.iter();
    let lines = journal_lines(&fs::read_to_string(&path).unwrap());
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
fn n_limits_the_number_of_actions() {
    let sandbox = one_action_of_each_kind();
    for (n, want) in [
        ("0", &ACTIONS[5..]),
        ("2", &ACTIONS[3..]),
        ("5", &ACTIONS),
        ("99", &ACTIONS),
    ] {
        assert_eq!(summaries(&history(&sandbox, &["-n", n])), want, "{n}");
    }
    for (args, sum) in [
        (&["-n2"][..], "2 actions, 0 B freed"),
        (&["-n0"], "5 actions, none of them shown (-n 0)"),
        (&["elsewhere"], "nothing was removed or moved there"),
        (
            &["--until", "365d", "elsewhere"],
            "nothing was removed or moved there in that time",
        ),
        (
            &["--until", "365d"],
            "nothing was removed or moved in that time",
        ),
    ] {
        let human = sandbox.run(["history"].iter().chain(args)).exit(0);
        assert_eq!(human.stdout.lines().last(), Some(sum), "{args:?}");
    }
    // The space on the disk counts, as in the sums of the other commands; a line without it has the length.
    let field = format!(
        "\"disk_bytes\":{},",
        history(&sandbox, &[]).one("reaped")["disk_bytes"]
    );
    let text = fs::read_to_string(journal(&sandbox)).unwrap();
    assert!(text.contains(&field), "{text}");
    for (other, freed) in [("\"disk_bytes\":8192,", "8.2 kB"), ("", "3 B")] {
        fs::write(journal(&sandbox), text.replace(&field, other)).unwrap();
        let human = sandbox.run(["history"]).exit(0);
        human.stdout_has(&format!("5 actions, {freed} freed"));
    }
    let empty = Sandbox::new().run(["history"]).exit(0);
    empty.stdout_has("nothing has been removed or moved yet");
    for wrong in ["-1", "x", "1.5", ""] {
        let ran = sandbox.run(["history", &format!("-n={wrong}")]).exit(2);
        ran.prints_nothing().stderr_has("a whole number, like 20");
    }
}

#[test]
fn since_and_until_accept_dates() {
    let sandbox = one_action_of_each_kind();
    let zone = jiff::tz::TimeZone::UTC;
    let now = jiff::Timestamp::now().to_zoned(zone);
    let date = |days: i64| {
        let day = now.date() - jiff::SignedDuration::from_hours(24 * days);
        day.to_string()
    };
    // From three days ago to just now.
    let noon = i64::from(now.hour());
    set_times(&sandbox, &[72 + noon, 48 + noon, 24 + noon, 2 + noon, 0]);
    let sandbox = sandbox.env("TZ", "UTC");
    let all = |args: &[&str]| summaries(&history(&sandbox, args));
    for (args, want) in [
        (&["--since", "yesterday"][..], &ACTIONS[2..]),
        (&["--since", "today"], &ACTIONS[4..]),
        (&["--until", "today"], &ACTIONS[..4]),
        (&["--until", "yesterday"], &ACTIONS[..2]),
        (
            &["--since", "yesterday", "--until", "today"],
            &ACTIONS[2..4],
        ),
        (&["--since", &date(2)], &ACTIONS[1..]),
        (&["--until", &date(2)], &ACTIONS[..1]),
        (&["--since", &date(3), "--until", &date(2)], &ACTIONS[..1]),
        (
            &["--since", &format!("{}T00:00:00Z", date(0))],
            &ACTIONS[4..],
        ),
        (
            &["--since", &format!("{}T01:00:00+01:00", date(0))],
            &ACTIONS[4..],
        ),
        (&["--until", "1h30m"], &ACTIONS[..4]),
        (&["--until", "365d"], &ACTIONS[5..]),
        (&["--since", "yesterday", "-n", "1"], &ACTIONS[4..]),
    ] {
        assert_eq!(all(args), want, "{args:?}");
    }
    // Days are those of the configured time zone, given as a rule or by name.
    let mut zones = vec![("XXX14", -14)];
    if Path::new("/usr/share/zoneinfo/Pacific/Kiritimati").exists() {
        zones.push(("Pacific/Kiritimati", 14));
    }
    for (zone, hours) in zones {
        let there = one_action_of_each_kind();
        set_times(&there, &[72, 48, 24, 24, 0]);
        let first = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(72);
        let offset = jiff::tz::TimeZone::fixed(jiff::tz::offset(hours));
        let local = first.to_zoned(offset).date();
        let (before, after) = (local.to_string(), local.tomorrow().unwrap().to_string());
        let there = there.env("TZ", zone);
        let args = ["--since", &before, "--until", &after];
        assert_eq!(summaries(&history(&there, &args)), ACTIONS[..1], "{zone}");
    }
    for wrong in ["soon", "2026-13-01", "12"] {
        for option in ["--since", "--until"] {
            let ran = sandbox
                .run(["history", option, wrong])
                .exit(2)
                .prints_nothing();
            ran.stderr_has(wrong);
        }
    }
    for (since, until) in [("1h", "2h"), ("today", "yesterday"), (&date(1), &date(2))] {
        let args = ["history", "--since", since, "--until", until];
        let ran = sandbox.run(args).exit(2).prints_nothing();
        ran.stderr_has("--since is later than --until");
    }
    let ran = sandbox.run(["history", "--since", "soon"]).exit(2);
    ran.stderr_has("today, yesterday, a date (2026-11-28)");
}

#[test]
fn a_directory_limits_the_history() {
    let sandbox = Sandbox::new()
        .file("in/a.4194304.tmp", "")
        .file("in/deep/b.4194304.tmp", "")
        .file("inner/c.tmp", "x")
        .file("d.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0);
    let all = |args: &[&str]| {
        let mut lines = summaries(&history(&sandbox, args));
        lines.sort();
        lines
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
    // It was restored to another directory, and counts for its own directory too.
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

/// The intent is written before an action, the outcome after it.
#[test]
fn the_journal_has_intent_and_outcome() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    let text = fs::read_to_string(journal(&sandbox)).unwrap();
    let lines: Vec<Value> = journal_lines(&text);
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
    assert_eq!(mode & 0o077, 0, "only the owner may read it");
}

/// A line that a crash cut is skipped, and does not join the next one.
#[test]
fn a_torn_line_is_skipped() {
    let sandbox = one_action_of_each_kind();
    let path = journal(&sandbox);
    let mut text = fs::read(&path).unwrap();
    text.truncate(text.len() - 10);
    fs::write(&path, text).unwrap();
    assert_eq!(summaries(&history(&sandbox, &[])), ACTIONS[..4]);
    sandbox.write("d.4194304.tmp", "");
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    let lines = summaries(&history(&sandbox, &[]));
    assert_eq!(lines[..4], ACTIONS[..4]);
    assert_eq!(lines[4..], ["reaped d.4194304.tmp"]);
}

/// The watcher writes its actions to the journal.
#[test]
fn a_watcher_writes_the_journal() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    sandbox.write("a.tmp", "x");
    watching.wait_for_sentinel(&sandbox);
    watching.stop().exit(0);
    let mut lines = summaries(&history(&sandbox, &[]));
    lines.sort();
    assert_eq!(
        lines,
        [
            "reaped a.tmp",
            "reaped sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
        ]
    );
}
