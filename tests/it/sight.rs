//! What a user sees of many temps: one line for each group, and sums that are right.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Child;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use regex_lite::Regex;
use rustix::event::{PollFd, PollFlags};
use serde_json::json;

use crate::sandbox::{DEADLINE, Sandbox, StartChild, signal, terminal};

const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Returns a uuid with the number `n`.
fn uuid(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// Returns a root with `leaks` temps of 100 bytes for `sessions.json`, and a few others.
fn with_leaks(leaks: usize) -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a/sessions.json", "x".repeat(300))
        .file("a/config.json", "whole, to the last byte of it")
        .file("a/config.json.tmp", "old")
        .file("b/gone.tmp", "the only copy");
    for n in 0..leaks {
        let name = format!("a/sessions.json.{}.tmp", uuid(n));
        sandbox.write(name, "y".repeat(100));
    }
    for n in 0..3 {
        sandbox.write(format!("b/lost.json.{}.tmp", uuid(n)), "precious");
    }
    sandbox.aged(OLD_ENOUGH)
}

/// Compares text, without what differs between runs.
#[track_caller]
fn check_text(sandbox: &Sandbox, text: &str, expected: &Expect) {
    let mut text = text.replace(sandbox.base().to_str().unwrap(), "BASE");
    for (form, name) in [
        (r"\b\d\d:\d\d:\d\d\b", "TIME"),
        (r"\b(m[0-9A-Za-z]{15})\b", "ID"),
        (r"orphans, [0-9.]+ [kM]?B", "orphans, SIZE"),
        (r"\([0-9.]+ [kM]B(;| freed|\))", "(SIZE$1"),
        (
            r"unused for [0-9.]+ m?s( to [0-9.]+ m?s)?",
            "unused for SPAN",
        ),
        (r"oldest [0-9.]+ m?s", "oldest SPAN"),
    ] {
        text = Regex::new(form)
            .unwrap()
            .replace_all(&text, name)
            .into_owned();
    }
    expected.assert_eq(&text);
}

#[test]
fn a_scan_shows_groups_and_lists_each_temp_on_request() {
    let sandbox = with_leaks(300);
    let scan = ["scan", "-r", "--grace", "100ms", "root"];
    let with = |option| {
        sandbox
            .run(scan.iter().chain([option].iter()))
            .exit(0)
            .stdout
    };
    let groups = sandbox.run(scan).exit(0).stdout;
    check_text(
        &sandbox,
        &groups,
        &expect![[r#"
        remove  300   30.0 kB  a/sessions.json.<uuid>.tmp  unused for SPAN
        move      3      24 B  b/lost.json.<uuid>.tmp      maybe the only copy; unused for SPAN
        move      1      13 B  b/gone.tmp                  unused for SPAN; it may be the only copy
        remove    1       3 B  a/config.json.tmp           unused for SPAN
        305 orphans, SIZE, the oldest SPAN.   remove 301 and move 4 to the quarantine: orphand sweep -r --grace 100ms BASE/root
    "#]],
    );
    for option in ["--list", "-v"] {
        let list = with(option);
        assert_eq!(list.lines().count(), 306, "{option}: {list}");
        let one = format!("remove  a/sessions.json.{}.tmp", uuid(17));
        assert!(list.contains(&one), "{option}: {list}");
        let sum = list.lines().last().unwrap();
        assert!(sum.starts_with("305 orphans, "), "{option}: {sum}");
    }
    let paths = with("-0");
    let mut paths: Vec<&str> = paths.split('\0').collect();
    assert_eq!(paths.pop(), Some(""), "each path ends with a zero byte");
    assert_eq!(paths.len(), 301, "only those that would be removed");
    for path in paths {
        assert!(
            path.contains("/root/a/") && fs::exists(path).unwrap(),
            "{path}"
        );
    }
    let refused = sandbox.run(scan.iter().chain(&["-0", "--json"])).exit(2);
    refused.stderr_has("cannot be used with");
}

#[test]
fn a_scan_shows_at_most_twenty_groups() {
    let sandbox = Sandbox::new();
    for n in 0..26 {
        for copy in 0..2 {
            sandbox.write(format!("dir{n}/t-{copy}.tmp"), "");
        }
    }
    let sandbox = sandbox.aged(OLD_ENOUGH);
    let out = sandbox
        .run(["scan", "-r", "--grace", "100ms", "root"])
        .exit(0)
        .stdout;
    assert_eq!(out.lines().count(), 22, "{out}");
    assert!(out.contains("and 6 more groups (12 temps, 0 B)"), "{out}");
    let json = sandbox
        .scan(["-r", "--grace", "100ms"])
        .exit(0)
        .stdout_json();
    assert_eq!(json["groups"].as_array().unwrap().len(), 26, "JSON has all");
}

#[test]
fn the_document_of_a_scan_has_the_groups() {
    let sandbox = with_leaks(300);
    let json = sandbox
        .scan(["-r", "--grace", "100ms"])
        .exit(0)
        .stdout_json();
    let root = sandbox.root();
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let want = [
        json!({"root": path(""), "dir": path("a"), "shape": "sessions.json.<uuid>.tmp",
            "target": path("a/sessions.json"), "writer": "openclaw", "verdict": "reap", "reason": null,
            "temps": 300, "bytes": 30_000}),
        json!({"root": path(""), "dir": path("b"), "shape": "lost.json.<uuid>.tmp",
            "target": path("b/lost.json"), "writer": null, "verdict": "quarantine", "reason": "sole-copy",
            "temps": 3, "bytes": 24}),
        json!({"root": path(""), "dir": path("b"), "shape": "gone.tmp",
            "target": path("b/gone"), "writer": null, "verdict": "quarantine", "reason": "sole-copy",
            "temps": 1, "bytes": 13}),
        json!({"root": path(""), "dir": path("a"), "shape": "config.json.tmp",
            "target": path("a/config.json"), "writer": null, "verdict": "reap", "reason": null,
            "temps": 1, "bytes": 3}),
    ];
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(groups.len(), want.len(), "{groups:?}");
    for (group, want) in groups.iter().zip(want) {
        for (key, value) in want.as_object().unwrap() {
            let value = match key.as_str() {
                "root" => json!(root.to_str().unwrap()),
                _ => value.clone(),
            };
            assert_eq!(group[key], value, "{key} of {group}");
        }
        let ms = |key: &str| group[key].as_u64().unwrap();
        assert!(
            150 <= ms("newest_ms") && ms("newest_ms") <= ms("oldest_ms"),
            "{group}"
        );
        assert!(ms("disk_bytes") >= ms("temps"), "{group}");
    }
    let sum = |key: &str| groups.iter().map(|g| g[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(json["total"]["temps"], sum("temps"));
    assert_eq!(json["total"]["bytes"], sum("bytes"));
}

#[test]
fn a_sweep_shows_ten_of_a_group_and_a_line_about_the_others() {
    let sandbox = with_leaks(300);
    let sweep = ["sweep", "--yes", "-r", "--grace", "100ms", "root"];
    let dry = sandbox.run(sweep.iter().chain(&["-n"])).exit(0).stdout;
    // The order of the directory differs between file systems.
    let lines = |text: &str, word: &str| {
        let found = text.lines().filter(|line| line.contains(word));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&dry, "would remove").len(), 10 + 1 + 1, "{dry}");
    let all = sandbox
        .run(sweep.iter().chain(&["-n", "--list"]))
        .exit(0)
        .stdout;
    assert_eq!(lines(&all, "would remove").len(), 301, "{all}");
    let paths = sandbox
        .run(sweep.iter().chain(&["-n", "-0"]))
        .exit(0)
        .stdout;
    assert_eq!(paths.split_terminator('\0').count(), 301, "{paths:?}");
    let text = sandbox.run(sweep).exit(0).stdout;
    assert_eq!(lines(&text, "  removed  ").len(), 10 + 1 + 1, "{text}");
    let end: Vec<&str> = text.lines().rev().take(2).collect();
    check_text(
        &sandbox,
        &format!("{}\n{}\n", end[1], end[0]),
        &expect![[r#"
            TIME  removed  a/sessions.json.<uuid>.tmp  29.0 kB  290 more, unused for SPAN
            301 removed (SIZE freed) · 4 moved to the quarantine (SIZE; to delete: orphand quarantine purge) · 0 kept
        "#]],
    );
    assert_eq!(lines(&text, "  moved  ").len(), 4, "{text}");
}

#[test]
fn on_a_terminal_a_line_about_a_moved_temp_fits_into_80_columns() {
    let sandbox = with_leaks(0);
    let (mut ours, theirs) = terminal();
    let sweep = ["sweep", "--yes", "-r", "--grace", "100ms", "root"];
    let mut command = sandbox.command(sweep);
    command.stdout(theirs).env("NO_COLOR", "1");
    let mut child = command.start_child().unwrap();
    drop(command);
    let mut text = String::new();
    read_until(&mut ours, &mut text, |text| text.contains(" kept"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let moved: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("  moved "))
        .collect();
    assert_eq!(moved.len(), 4, "{text}");
    for line in &moved {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let gone = moved.iter().find(|line| line.contains("gone.tmp"));
    check_text(
        &sandbox,
        &format!("{}\n", gone.unwrap()),
        &expect![[r#"
        TIME  moved    b/gone.tmp             13 B  orphand restore ID
    "#]],
    );
}

#[test]
fn an_ascii_locale_gets_ascii() {
    let run = |locale: &str| {
        let sandbox = with_leaks(3)
            .env("LC_ALL", locale)
            .env("LANG", "en_US.UTF-8");
        let sweep = ["sweep", "--yes", "-r", "--grace", "100ms", "root"];
        let mut out = sandbox.run(sweep).exit(0).stdout;
        out += &sandbox.run(["quarantine", "list"]).exit(0).stdout;
        for help in [
            &["--help"][..],
            &["doctor", "--help"],
            &["service", "--help"],
            &["watch", "--help"],
        ] {
            out += &sandbox.run(help).exit(0).stdout;
        }
        out + &sandbox.run(["status"]).exit(1).stdout
    };
    assert!(run("en_US.UTF-8").contains(" · "));
    for locale in ["C", "POSIX", "de_DE.ISO-8859-1"] {
        let out = run(locale);
        assert!(out.is_ascii(), "{locale}: {out}");
        assert!(out.contains(" | 4 moved"), "{locale}: {out}");
    }
}

/// Reads from `from` until the text read so far fulfills `wanted`.
fn read_until(from: &mut (impl Read + AsFd), text: &mut String, wanted: impl Fn(&str) -> bool) {
    let end = Instant::now() + DEADLINE;
    let mut buffer = [0; 4096];
    while !wanted(text) {
        assert!(Instant::now() < end, "{text}");
        let mut fds = [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)];
        let second = rustix::time::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut fds, Some(&second)).unwrap() == 0 {
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => panic!("the output has ended: {text}"),
            Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
            Err(error) => panic!("{error}: {text}"),
        }
    }
}

/// A watch with text output.
struct TextWatch {
    child: Child,
    text: String,
}

impl TextWatch {
    fn start(sandbox: &Sandbox, args: &[&str]) -> TextWatch {
        let args = ["watch", "--grace", "200ms", "-r"]
            .iter()
            .chain(args)
            .chain(&["root"]);
        let mut command = sandbox.command(args);
        command.stdout(std::process::Stdio::piped());
        let child = command.start_child().unwrap();
        TextWatch {
            child,
            text: String::new(),
        }
    }

    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) {
        let mut out = self.child.stdout.take().unwrap();
        read_until(&mut out, &mut self.text, wanted);
        self.child.stdout = Some(out);
    }

    /// Ends the watch, and returns its output.
    fn stop(mut self) -> String {
        signal(self.child.id(), libc::SIGTERM);
        let mut rest = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut rest)
            .unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        self.text + &rest
    }
}

#[test]
fn a_watch_sums_up_bursts() {
    let sandbox = Sandbox::new();
    sandbox.write("s.json", "x".repeat(300));
    let mut watch = TextWatch::start(&sandbox, &[]);
    watch.wait_for(|text| text.contains("watching"));
    for n in 0..400 {
        sandbox.write(format!("s.json.{}.tmp", uuid(n)), "y".repeat(100));
    }
    // The line about the others comes without any further event.
    watch.wait_for(|text| counted(text) == 400);
    sandbox.write("s.json.tmp", "later");
    watch.wait_for(|text| text.contains("s.json.tmp"));
    let text = watch.stop();
    let removed = text
        .lines()
        .filter(|line| line.contains("  removed "))
        .count();
    assert!(removed < 60, "{removed} lines: {text}");
    assert!(text.contains("401 removed ("), "{text}");
    assert!(text.contains("removed  s.json.<uuid>.tmp"), "{text}");
}

/// Returns the number of temps with a uuid that the lines about removals speak of.
fn counted(text: &str) -> u64 {
    let lines = text
        .lines()
        .filter(|line| line.contains("  removed  s.json."));
    let sum = Regex::new(r"([\d,]+) (more|temps), ").unwrap();
    let of_line = |line: &str| match sum.captures(line) {
        Some(found) => found[1].replace(',', "").parse().unwrap(),
        None => 1,
    };
    lines.map(of_line).sum()
}

/// A temp that was kept and then removed counts once.
#[test]
#[cfg(target_os = "linux")]
fn the_last_line_counts_each_temp_once() {
    let sandbox = Sandbox::new();
    sandbox.write("a", "whole, to the last byte of it");
    let mut watch = TextWatch::start(&sandbox, &[]);
    watch.wait_for(|text| text.contains("watching"));
    let open = |name: &str| {
        let file = fs::File::create(sandbox.path(name)).unwrap();
        (&file).write_all(b"12345").unwrap();
        file
    };
    let names = [uuid(1), uuid(2)].map(|uuid| format!("a.{uuid}.tmp"));
    let [first, second] = names.clone().map(|name| open(&name));
    let is_kept = |text: &str| {
        names
            .iter()
            .all(|name| text.contains(&format!("kept     {name}")))
    };
    watch.wait_for(is_kept);
    drop(first);
    watch.wait_for(|text| text.contains(&format!("removed  {}", names[0])));
    let text = watch.stop();
    drop(second);
    let last = text.lines().last().unwrap();
    assert!(
        last.starts_with("1 removed (4.1 kB freed) · 1 kept (5 B)"),
        "{text}"
    );
}

/// After Ctrl-Z no piece of the status line is left, and after `fg` it is drawn again.
#[test]
#[cfg(target_os = "linux")]
fn a_suspended_watch_leaves_no_status_line() {
    let sandbox = Sandbox::new();
    let (mut ours, theirs) = terminal();
    let mut command = sandbox.command(["watch", "--grace", "200ms", "root"]);
    command.stdout(theirs).env("TERM", "xterm");
    let mut child = command.start_child().unwrap();
    drop(command);
    let mut text = String::new();
    read_until(&mut ours, &mut text, |text| text.contains("watching"));
    sandbox.write("x.json", "whole, to the last byte of it");
    sandbox.write(format!("x.json.{}.tmp", uuid(1)), "leak");
    read_until(&mut ours, &mut text, |text| {
        text.contains("freed 4.1 kB · last minute: 1 x.json.<uuid>.tmp (4 B)")
    });
    let held = fs::File::create(sandbox.path("a.tmp")).unwrap();
    read_until(&mut ours, &mut text, |text| text.contains("1 held"));
    text.clear();
    signal(child.id(), libc::SIGTSTP);
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next()
    };
    let end = Instant::now() + DEADLINE;
    while state() != Some('T') {
        assert!(Instant::now() < end, "it is not suspended");
        std::thread::yield_now();
    }
    read_until(&mut ours, &mut text, |text| text.ends_with("\r\u{1b}[K"));
    text.clear();
    signal(child.id(), libc::SIGCONT);
    read_until(&mut ours, &mut text, |text| text.contains("1 held"));
    // The terminal shows Ctrl-C where the cursor is.
    text.clear();
    signal(child.id(), libc::SIGINT);
    read_until(&mut ours, &mut text, |text| text.contains("kept"));
    drop(held);
    assert!(text.contains("\r\u{1b}[K1 removed"), "{text:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
