//! What a user sees of many temps: one line for each group, and sums that are right.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use regex_lite::Regex;
use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use crate::manual::is_installed;
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
        (r", [0-9.]+ [kM]?B on the disk", ""),
        (r" \([0-9.]+ [kM]?B on the disk\)", ""),
        (r"orphans, [0-9.]+ [kM]?B", "orphans, SIZE"),
        (r"\([0-9.]+ [kM]?B(;| freed|\))", "(SIZE$1"),
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
    let more = "and 6 more groups (12 temps, 0 B); to list each temp: --list";
    assert!(out.contains(more), "{out}");
    let json = sandbox
        .scan(["-r", "--grace", "100ms"])
        .exit(0)
        .stdout_json();
    assert_eq!(json["groups"].as_array().unwrap().len(), 26, "JSON has all");
    let sweep = ["sweep", "--yes", "-r", "--grace", "100ms", "root"];
    sandbox.run(sweep).exit(0);
    let report = sandbox.run(["report"]).exit(0).stdout;
    assert!(
        report.contains("and 6 more groups (12 temps, 0 B)\n"),
        "{report}"
    );
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
    // On a slow machine the sweep takes several seconds, each with its lines.
    let removed = lines(&text, "  removed  ");
    assert!(removed.len() < 60, "{text}");
    let one =
        Regex::new(r"sessions\.json\.<uuid>\.tmp +[0-9.]+ k?B  [0-9,]+ (more|temps), unused for")
            .unwrap();
    assert!(removed.iter().any(|line| one.is_match(line)), "{text}");
    assert_eq!(
        counted_in(&text, "  removed  a/sessions.json."),
        300,
        "{text}"
    );
    let last = text.lines().last().unwrap_or_default();
    check_text(
        &sandbox,
        &format!("{last}\n"),
        &expect![[r#"
            301 removed (SIZE freed) · 4 moved to the quarantine (SIZE; to delete: orphand quarantine purge BASE/root) · 0 kept
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

/// The reader of a pipe may write to the same terminal, and no bar may be left beside its lines.
#[test]
fn a_progress_bar_is_not_mixed_with_piped_lines() {
    let sandbox = with_leaks(20);
    let scan: &[&str] = &["scan", "-r", "--grace", "100ms", "root"];
    let sweep: &[&str] = &["sweep", "--yes", "-r", "--grace", "100ms", "root"];
    let rows = [
        (scan, None, true),
        (scan, Some("--list"), false),
        (scan, Some("--json"), false),
        (sweep, None, false),
    ];
    for (args, option, has_bar) in rows {
        let (mut ours, theirs) = terminal();
        let mut command = sandbox.command(args.iter().copied().chain(option));
        command
            .stdout(Stdio::piped())
            .stderr(theirs)
            .env("TERM", "xterm");
        let mut child = command.start_child().unwrap();
        drop(command);
        std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut shown = Vec::new();
        // The end of a terminal is an error on Linux.
        let _ = ours.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown);
        assert_eq!(
            shown.contains("temps examined"),
            has_bar,
            "{args:?} {option:?}: {shown}"
        );
    }
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
    counted_in(text, "  removed  s.json.")
}

/// Returns the number of temps that the lines with `start` speak of.
fn counted_in(text: &str, start: &str) -> u64 {
    let lines = text.lines().filter(|line| line.contains(start));
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

/// The status line is drawn again below the line of each event, not only when its text is next updated.
#[test]
fn the_status_line_stays_below_the_lines_of_events() {
    let sandbox = Sandbox::new().file("x.json", "whole, to the last byte of it");
    let (mut ours, theirs) = terminal();
    let mut command = sandbox.command(["watch", "--grace", "1500ms", "root"]);
    command
        .stdout(theirs)
        .env("TERM", "xterm")
        .env("NO_COLOR", "1");
    let mut child = command.start_child().unwrap();
    drop(command);
    let mut text = String::new();
    read_until(&mut ours, &mut text, |text| text.contains("watching"));
    let held = fs::File::create(sandbox.path("held.tmp")).unwrap();
    read_until(&mut ours, &mut text, |text| text.contains("1 held"));
    const TEMPS: usize = 8;
    for n in 0..TEMPS {
        sandbox.write(format!("x.json.{}.tmp", uuid(n)), "leak");
        std::thread::sleep(Duration::from_millis(120));
    }
    let removed = |text: &str| text.matches("  removed ").count();
    read_until(&mut ours, &mut text, |text| removed(text) == TEMPS);
    let after_each = text.split("  removed ").skip(1);
    let with_status = after_each.filter(|after| after.contains("1 held"));
    // A slow machine may print several events at once.
    assert!(with_status.count() > TEMPS / 2, "{text}");
    signal(child.id(), libc::SIGTERM);
    child.wait().unwrap();
    drop(held);
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
    sandbox.write("lost.tmp", "the only copy");
    read_until(&mut ours, &mut text, |text| {
        text.contains("freed 4.1 kB · moved 4.1 kB · last minute: 1 lost.tmp (13 B)")
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

/// Returns a watch with JSON output on a root with a target.
fn watched() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("s.json", "whole, to the last byte of it");
    sandbox
}

/// A temp that is removed or moved although a process has it open: the event names that process.
#[test]
#[cfg(target_os = "linux")]
fn the_process_of_a_temp_that_is_taken_while_in_use_is_reported() {
    for (open, event) in [("reap", "reaped"), ("quarantine", "quarantined")] {
        for is_watch in [true, false] {
            let sandbox = watched();
            let mut shell = sandbox.shell();
            let temp = format!("s.json.{}.tmp", uuid(1));
            shell.run(&format!("exec 9>{temp}; printf x >&9"));
            sandbox.age(Duration::from_millis(150));
            let args = ["--grace", "100ms", "--open", open];
            let found = match is_watch {
                true => {
                    let mut watch = sandbox.watch(args).ready();
                    watch.wait_for(crate::sandbox::is(event, &temp))
                }
                false => sandbox.sweep(args).exit(0).events().one(event).clone(),
            };
            let process = &found["process"];
            assert_eq!(process["pid"], shell.pid(), "{open}: {found}");
            assert_eq!(process["via"], "holder", "{open}: {found}");
        }
    }
}

/// The process that held a temp is reported with its program, and with the signal that killed it.
#[test]
#[cfg(target_os = "linux")]
fn the_process_that_held_a_temp_is_reported() {
    let sandbox = watched();
    let mut watch = sandbox.watch(["--grace", "300ms"]).ready();
    let mut shell = sandbox.shell();
    let temp = format!("s.json.{}.tmp", uuid(1));
    shell.run(&format!("exec 9>{temp}"));
    let pid = shell.pid();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let kept = watch.wait_for(crate::sandbox::kept(&temp, "in-use"));
    let process = &kept["process"];
    assert_eq!(process["pid"], pid, "{kept}");
    assert_eq!(process["name"], name.trim_end());
    assert_eq!(process["exe"], exe.to_str().unwrap());
    assert_eq!(process["via"], "holder");
    assert!(process["ended"].is_null(), "{kept}");
    let unit = process["unit"].as_str();
    assert!(unit.is_none_or(|unit| groups.contains(unit)), "{kept}");
    assert!(process.as_object().unwrap().contains_key("unit"), "{kept}");
    let path = format!("root/{temp}");
    let explained = sandbox.run(["explain", &path]).exit(0);
    let line = format!("  process: {}[{pid}], {}", name.trim_end(), exe.display());
    explained.stdout_has(&line).stdout_has("it holds the temp");
    let explained = sandbox
        .run(["explain", "--json", &path])
        .exit(0)
        .stdout_json();
    assert_eq!(explained["temps"][0]["process"]["pid"], pid, "{explained}");

    shell.kill();
    let reaped = watch.wait_for(crate::sandbox::is("reaped", &temp));
    let process = &reaped["process"];
    assert_eq!(
        (&process["pid"], &process["via"]),
        (&json!(pid), &json!("holder"))
    );
    assert_eq!(process["exe"], exe.to_str().unwrap());
    // Before Linux 6.15 the kernel does not tell how the child of another process ended.
    let ended = &process["ended"];
    if tells_exits() || !ended.is_null() {
        assert_eq!(
            (&ended["signal"], &ended["code"]),
            (&json!(9), &Value::Null),
            "{reaped}"
        );
        assert!(
            ended["at"].as_str().is_some_and(|at| at.ends_with('Z')),
            "{reaped}"
        );
    }
    watch.stop();
    let history = sandbox.run(["history", "--json"]).exit(0).events();
    assert_eq!(
        history.one("reaped")["process"],
        reaped["process"],
        "the journal has it too"
    );
}

/// Reports whether the kernel tells how a process ended that is not a child.
#[cfg(target_os = "linux")]
fn tells_exits() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

#[test]
fn the_process_in_the_name_of_a_temp_is_reported() {
    let sandbox = watched().file("s.json.4194304.tmp", "").aged(OLD_ENOUGH);
    sandbox.write(format!("s.json.{}.tmp", uuid(1)), "x");
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(["--grace", "100ms"]).exit(0).events();
    let of = |name: &str| {
        let reaped = events.of("reaped");
        let found = reaped
            .into_iter()
            .find(|event| crate::sandbox::name(event) == name);
        found.unwrap()["process"].clone()
    };
    let want = json!({"pid": 4194304, "name": null, "exe": null, "unit": null, "ended": null, "via": "name"});
    assert_eq!(of("s.json.4194304.tmp"), want);
    assert_eq!(of(&format!("s.json.{}.tmp", uuid(1))), Value::Null);
}

/// Returns a sandbox in whose root temps were removed and moved, and a name that is HTML.
fn with_history() -> Sandbox {
    let sandbox = with_leaks(40);
    sandbox.write("b/<script>alert()&\".tmp", "the only copy");
    sandbox.age(OLD_ENOUGH);
    sandbox
        .run(["sweep", "--yes", "-r", "--grace", "100ms", "root"])
        .exit(0);
    sandbox
}

#[test]
fn a_report_sums_up_the_journal() {
    let sandbox = with_history();
    let text = sandbox.run(["report"]).exit(0).stdout;
    let mut shown: Vec<&str> = text.lines().filter(|line| line.contains("root/")).collect();
    shown.insert(0, text.lines().next().unwrap());
    let dates = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d").unwrap();
    let shown = dates.replace_all(&shown.join("\n"), "DATE").into_owned() + "\n";
    check_text(
        &sandbox,
        &shown,
        &expect![[r#"
            46 temps (SIZE) since DATE: 41 removed, 5 moved to quarantine; 168 kB freed
            removed                   40    4.0 kB  BASE/root/a/sessions.json.<uuid>.tmp
            moved to quarantine        3      24 B  BASE/root/b/lost.json.<uuid>.tmp
            moved to quarantine        1      13 B  BASE/root/b/<script>alert()&".tmp
            moved to quarantine        1      13 B  BASE/root/b/gone.tmp
            removed                    1       3 B  BASE/root/a/config.json.tmp
        "#]],
    );

    let json = sandbox.run(["report", "--json"]).exit(0).stdout_json();
    assert_eq!(json["total"]["temps"], 46, "{json}");
    assert_eq!(
        (&json["total"]["reaped"], &json["total"]["quarantined"]),
        (&json!(41), &json!(5))
    );
    let groups = json["groups"].as_array().unwrap();
    let first = &groups[0];
    assert_eq!(first["shape"], "sessions.json.<uuid>.tmp", "{first}");
    assert_eq!(
        (&first["temps"], &first["verdict"]),
        (&json!(40), &json!("reap"))
    );
    assert_eq!(first["dir"], sandbox.path("a").to_str().unwrap());
    let counts = json["timeline"]["temps"].as_array().unwrap().iter();
    assert_eq!(counts.map(|n| n.as_u64().unwrap()).sum::<u64>(), 46);
    assert!(json["disks"][0]["free"].as_u64().is_some(), "{json}");

    // A directory and a time limit it.
    let b = sandbox.path("b");
    let only = sandbox
        .run(["report".as_ref(), "--json".as_ref(), b.as_os_str()])
        .exit(0);
    assert_eq!(only.stdout_json()["total"]["temps"], 5);
    let none = sandbox.run(["report", "--since", "0s"]).exit(0);
    none.stdout_has("no temps were removed or moved since ");
    sandbox
        .run(["report", "--json", "--html", "x.html"])
        .exit(2);
}

/// Returns the page of a report.
fn page(sandbox: &Sandbox) -> String {
    let html = sandbox.base().join("report.html");
    sandbox
        .run(["report".as_ref(), "--html".as_ref(), html.as_os_str()])
        .exit(0)
        .stdout_has("wrote ");
    fs::read_to_string(html).unwrap()
}

/// An old page is replaced only by a complete one, and `-` means stdout.
#[test]
fn the_page_of_a_report_is_replaced_as_a_whole() {
    let sandbox = with_history();
    let printed = sandbox.run(["report", "--html", "-"]).exit(0);
    assert!(
        printed.stdout.trim_end().ends_with("</html>"),
        "{printed:?}"
    );
    assert!(!sandbox.base().join("-").exists());
    let (folder, old) = (
        sandbox.base().join("pages"),
        sandbox.base().join("pages/old.html"),
    );
    fs::create_dir(&folder).unwrap();
    fs::write(&old, "the old page").unwrap();
    // The new page cannot be created beside it.
    fs::create_dir(sandbox.base().join("pages/old.html.new")).unwrap();
    let failed = sandbox.run(["report", "--html", "pages/old.html"]).exit(1);
    failed.stderr_has("cannot write");
    assert_eq!(fs::read_to_string(&old).unwrap(), "the old page");
    fs::remove_dir(sandbox.base().join("pages/old.html.new")).unwrap();
    sandbox.run(["report", "--html", "pages/old.html"]).exit(0);
    assert_ne!(fs::read_to_string(&old).unwrap(), "the old page");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn the_page_of_a_report_is_one_file_without_scripts() {
    let page = page(&with_history());
    for forbidden in [
        "<script", "http:", "https:", "src=", "href=", "url(", "@import", "onload",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}: {page}");
    }
    for wanted in [
        "<!doctype html>",
        "name=\"viewport\"",
        "prefers-color-scheme: dark",
        "default-src 'none'",
        "<svg",
        "sessions.json.&lt;uuid&gt;.tmp",
        "&lt;script&gt;alert()&amp;&quot;.tmp",
        "moved to quarantine",
    ] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    // Each element that is opened is closed.
    for element in [
        "table", "tr", "td", "svg", "rect", "figure", "ul", "li", "div", "code",
    ] {
        let opened = page.matches(&format!("<{element}>")).count()
            + page.matches(&format!("<{element} ")).count();
        assert_eq!(
            opened,
            page.matches(&format!("</{element}>")).count(),
            "{element}"
        );
        assert!(opened > 0, "{element}");
    }
}

/// Returns the path of a browser, or reports that the test is skipped.
fn browser() -> Option<&'static str> {
    let found = [
        "/usr/bin/chromium",
        "/usr/bin/chromium-browser",
        "/usr/bin/google-chrome",
    ];
    let found = found
        .into_iter()
        .find(|path| fs::exists(path).is_ok_and(|is| is));
    if found.is_none() {
        eprintln!("SKIPPED: chromium is not installed");
    }
    found
}

/// A real browser shows the page at the width of a phone and of a desktop, in both color schemes: nothing is wider than
/// the window, and the colors are those of the scheme.
#[test]
#[cfg(target_os = "linux")]
fn a_browser_shows_the_page_of_a_report() {
    let Some(browser) = browser() else { return };
    let sandbox = with_history();
    page(&sandbox);
    // The probe is not part of the report. It writes what the browser has laid out into the title.
    let probe = "<script>addEventListener('load', () => { \
        const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg') && \
            e.getBoundingClientRect().right > innerWidth + 1).length; \
        const style = getComputedStyle(document.body); \
        const bars = [...document.querySelectorAll('rect')].filter(e => e.getBoundingClientRect().height > 0).length; \
        document.title = ['w' + innerWidth, 'scroll' + document.documentElement.scrollWidth, 'wide' + wide, \
            'bars' + bars, style.backgroundColor, style.color, \
            'head' + getComputedStyle(document.querySelector('thead')).display].join(' '); })</script>";
    let html = fs::read_to_string(sandbox.base().join("report.html")).unwrap();
    let html = html
        .replace("default-src 'none'; ", "")
        .replace("</html>", &format!("{probe}</html>"));
    sandbox.write("../probe.html", html);
    let url = format!("file://{}", sandbox.base().join("probe.html").display());
    for (width, dark) in [(500, false), (1280, false), (500, true), (1280, true)] {
        let profile = sandbox.base().join(format!("profile-{width}-{dark}"));
        let mut command = sandbox.program(browser);
        command
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={width},900"))
            .args(dark.then_some("--force-dark-mode"))
            .args(["--dump-dom", &url]);
        let dom = sandbox.finish(command).stdout;
        let title = dom
            .split("<title>")
            .nth(1)
            .and_then(|rest| rest.split("</title>").next());
        let title = title.unwrap_or_else(|| panic!("no title: {dom}"));
        // A scrollbar takes a part of the width.
        let scroll = Regex::new(r"scroll(\d+) wide0").unwrap();
        let scroll = scroll
            .captures(title)
            .map(|found| found[1].parse::<u32>().unwrap());
        assert!(title.starts_with(&format!("w{width} ")), "{width}: {title}");
        assert!(
            scroll.is_some_and(|scroll| scroll <= width),
            "{width}: {title}"
        );
        assert!(!title.contains("bars0"), "{title}");
        let (background, head) = match (dark, width) {
            (false, 500) => ("rgb(255, 255, 255)", "headnone"),
            (false, _) => ("rgb(255, 255, 255)", "headtable-header-group"),
            (true, 500) => ("rgb(20, 24, 28)", "headnone"),
            (true, _) => ("rgb(20, 24, 28)", "headtable-header-group"),
        };
        assert!(
            title.contains(background) && title.contains(head),
            "{width} {dark}: {title}"
        );
    }
}

/// The command of an alert gets one object, and runs at most once in its interval for each root.
#[test]
fn an_alert_runs_a_command_once() {
    let sandbox = watched();
    let out = sandbox.base().join("alerts");
    let script = sandbox.base().join("alert.sh");
    sandbox.write(
        "../alert.sh",
        format!("#!/bin/sh\ncat >> {}\n", out.display()),
    );
    let text = format!(
        "[alert]\ncommand = [\"sh\", {script:?}]\nleaks = 5\n[[watch]]\npath = {:?}\ngrace = \"200ms\"\n",
        sandbox.root()
    );
    sandbox.write("../config/orphand/config.toml", text);
    let mut watch = sandbox.watch_dirs([""; 0]).ready();
    let mut leak = |from: usize, to: usize| {
        for n in from..to {
            sandbox.write(format!("s.json.{}.tmp", uuid(n)), "x");
        }
        watch.wait_for_nth(to, |event| event["event"] == "reaped");
    };
    leak(0, 4);
    leak(4, 6);
    let end = Instant::now() + DEADLINE;
    let read = || fs::read_to_string(&out).unwrap_or_default();
    while !read().ends_with('\n') {
        assert!(Instant::now() < end, "no alert");
        std::thread::sleep(Duration::from_millis(20));
    }
    leak(6, 20);
    watch.stop();
    let alerts = read();
    assert_eq!(alerts.lines().count(), 1, "{alerts}");
    let alert: Value = serde_json::from_str(&alerts).unwrap();
    assert_eq!(
        (&alert["event"], &alert["cause"]),
        (&json!("alert"), &json!("leaks"))
    );
    assert_eq!(alert["root"], sandbox.root().to_str().unwrap());
    let leaks = alert["leaks"].as_u64().unwrap();
    assert!((5..=6).contains(&leaks), "{alert}");
    assert_eq!(alert["groups"][0]["shape"], "s.json.<uuid>.tmp");
    assert!(
        alert["text"]
            .as_str()
            .unwrap()
            .contains(" temps left behind"),
        "{alert}"
    );
}

/// The command of an alert, and what it has started, does not outlive the watch.
#[test]
fn an_alert_ends_with_the_watch() {
    let sandbox = watched();
    let pids = sandbox.base().join("pids");
    let script = sandbox.base().join("alert.sh");
    sandbox.write(
        "../alert.sh",
        format!("sleep 10000 &\necho $$ $! > {}\nwait\n", pids.display()),
    );
    let text = format!(
        "[alert]\ncommand = [\"sh\", {script:?}]\n[[watch]]\npath = {:?}\ngrace = \"200ms\"\n",
        sandbox.root()
    );
    sandbox.write("../config/orphand/config.toml", text);
    let mut watch = sandbox.watch_dirs([""; 0]).ready();
    sandbox.write(format!("s.json.{}.tmp", uuid(0)), "x");
    watch.wait_for(|event| event["event"] == "reaped");
    let end = Instant::now() + DEADLINE;
    let read = || fs::read_to_string(&pids).unwrap_or_default();
    while !read().ends_with('\n') {
        assert!(Instant::now() < end, "no alert");
        std::thread::sleep(Duration::from_millis(20));
    }
    let stopped = watch.stop().exit(0);
    assert!(
        stopped
            .stderr
            .contains("was killed at the end of the watch"),
        "{}",
        stopped.stderr
    );
    for pid in read().split_whitespace() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        // A process that has ended may be a zombie for a moment.
        while rustix::process::test_kill_process(pid).is_ok() {
            assert!(Instant::now() < end, "{pid:?} still runs");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn options_exclude_files_and_limit_the_depth() {
    let sandbox = Sandbox::new();
    for dir in ["", "a/", "a/b/", "a/b/c/", "cache/"] {
        sandbox.write(format!("{dir}t.4194304.tmp"), "");
        sandbox.write(format!("{dir}u.bak.4194304.tmp"), "");
    }
    sandbox.age(OLD_ENOUGH);
    let found = |options: &[&str]| {
        let scan = ["--grace", "100ms"].iter().chain(options);
        let json = sandbox.scan(scan).exit(0).stdout_json();
        let root = sandbox.root();
        let path = |temp: &Value| {
            temp["path"]
                .as_str()
                .unwrap()
                .replace(root.to_str().unwrap(), "")
        };
        let mut paths: Vec<String> = json["temps"].as_array().unwrap().iter().map(path).collect();
        paths.retain(|path| path.contains("/t."));
        paths.sort();
        paths.join(" ").replace("t.4194304.tmp", "t")
    };
    for (options, want) in [
        (&[][..], "/t"),
        (&["-r"], "/a/b/c/t /a/b/t /a/t /cache/t /t"),
        (&["--max-depth", "1"], "/t"),
        (&["--max-depth", "2"], "/a/t /cache/t /t"),
        (&["--max-depth", "3"], "/a/b/t /a/t /cache/t /t"),
        (&["-r", "--exclude", "cache"], "/a/b/c/t /a/b/t /a/t /t"),
        (&["-r", "--exclude", "a/b", "--exclude", "cache"], "/a/t /t"),
        (&["-r", "--exclude", "a/b/*"], "/a/t /cache/t /t"),
    ] {
        assert_eq!(found(options), want, "{options:?}");
    }
    let scan = [
        "scan",
        "--grace",
        "100ms",
        "--max-depth",
        "2",
        "--exclude",
        "*.bak.*",
        "root",
    ];
    let out = sandbox.run(scan).exit(0);
    out.stdout_has("orphand sweep --max-depth 2 --grace 100ms --exclude '*.bak.*' ");
    sandbox.run(["scan", "--max-depth", "0", "root"]).exit(2);
    sandbox
        .run(["scan", "--exclude", "/x", "root"])
        .exit(2)
        .stderr_has("would exclude nothing");

    // They do not replace what the configuration excludes, also where a rule of a directory above applies.
    let text = format!(
        "[[watch]]\npath = {:?}\nrecursive = true\nexclude = [\"a/b\"]\n",
        sandbox.root()
    );
    sandbox.write("../config/orphand/config.toml", text);
    assert_eq!(found(&["--exclude", "cache"]), "/a/t /t");
    let below = sandbox.run([
        "scan",
        "--json",
        "--grace",
        "100ms",
        "--max-depth",
        "1",
        "root/a",
    ]);
    assert_eq!(below.exit(0).stdout_json()["total"]["temps"], 2);
    sandbox
        .run([
            "sweep",
            "--yes",
            "--grace",
            "100ms",
            "--exclude",
            "t.*",
            "root",
        ])
        .exit(0);
    assert!(sandbox.has("t.4194304.tmp") && sandbox.has("a/b/u.bak.4194304.tmp"));
    assert!(!sandbox.has("a/u.bak.4194304.tmp"));
}

#[test]
fn the_status_is_shown_again_each_second() {
    let sandbox = watched();
    let watch = sandbox.watch(["--grace", "300ms"]).ready();
    let mut command = sandbox.command(["status", "--watch", "--json"]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.start_child().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    read_until(&mut out, &mut text, |text| {
        text.lines().count() >= 3 && text.ends_with('\n')
    });
    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for line in text.lines() {
        let status: Value = serde_json::from_str(line).unwrap();
        assert_eq!(status["running"], true, "{status}");
    }
    let mut command = sandbox.command(["status", "--watch"]);
    command.stdout(std::process::Stdio::piped());
    let mut child = command.start_child().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let wanted = "0.0 leaks a second · 0.0 healthy writes a second";
    read_until(&mut out, &mut text, |text| text.contains(wanted));
    signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // On a terminal, the line with "^C" ends, so that the prompt of the shell has a line of its own.
    let (mut ours, theirs) = terminal();
    let mut command = sandbox.command(["status", "--watch"]);
    command.stdout(theirs);
    let mut child = command.start_child().unwrap();
    drop(command);
    let mut text = String::new();
    read_until(&mut ours, &mut text, |text| text.contains(wanted));
    signal(child.id(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    read_until(&mut ours, &mut text, |text| text.ends_with("\r\n\r\n"));
    watch.stop();
}

#[test]
fn completions_propose_writers_and_ids() {
    let sandbox = with_leaks(0);
    sandbox
        .run(["sweep", "--yes", "-r", "--grace", "100ms", "root"])
        .exit(0);
    let list = sandbox.run(["quarantine", "list", "--json"]).exit(0).stdout;
    let first: Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    let id = first["id"].as_str().unwrap().to_owned();
    let script = sandbox.run(["completions", "bash"]).exit(0).stdout;
    sandbox.write("../orphand.bash", script);
    let bin = sandbox.binary().parent().unwrap().to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let complete = |words: &str| {
        let mut command = sandbox.program("bash");
        let text = format!(
            "source ../orphand.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _orphand_with_ids orphand \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        command
            .args(["-c", &text])
            .current_dir(sandbox.root())
            .env("PATH", &path);
        sandbox.finish(command).exit(0).stdout
    };
    let restored = complete("orphand restore ''");
    assert!(
        restored.lines().any(|line| line == id),
        "{id} is not in {restored}"
    );
    let writers = complete("orphand scan --writer ''");
    assert!(writers.lines().any(|line| line == "openclaw"), "{writers}");
    assert!(!writers.contains(&id), "{writers}");
    let fish = sandbox.run(["completions", "fish"]).exit(0).stdout;
    assert!(fish.contains("orphand quarantine list --json"), "{fish}");
    let zsh = sandbox.run(["completions", "zsh"]).exit(0).stdout;
    assert_eq!(zsh.matches(":_orphand_ids' ").count(), 2, "{zsh}");
    if !is_installed("zsh") {
        return;
    }
    sandbox.make_dir("../zsh");
    sandbox.write("../zsh/_orphand", zsh);
    for words in ["restore", "quarantine purge"] {
        let mut command = sandbox.program("zsh");
        // The tab key completes the rest of the id.
        let typed = format!("orphand {words} {}\t", &id[..id.len() - 1]);
        command
            .args(["-f", "-c", ZSH_TAB, "zsh", &typed, &id])
            .current_dir(sandbox.root())
            .env("PATH", &path)
            .env("TERM", "dumb");
        sandbox.finish(command).exit(0).stdout_has(&id);
    }
}

/// Presses keys in a new zsh with completions, and prints what that shows until it shows a text.
const ZSH_TAB: &str = r#"
    zmodload zsh/zpty || exit 9
    zpty shell zsh -f -i
    zpty -w shell 'PS1=; fpath=(../zsh $fpath); autoload -Uz compinit; compinit -u -D; print READ""Y'
    zpty -r -m shell shown '*READY*' || exit 8
    zpty -w -n shell "$1"
    zpty -r -m shell shown "*$2*" || exit 7
    print -r -- "$shown"
    zpty -d shell
"#;

#[test]
fn the_help_has_headings() {
    let sandbox = Sandbox::new();
    for command in ["watch", "scan", "sweep", "explain"] {
        let help = sandbox.run([command, "--help"]).exit(0).stdout;
        for heading in ["\nWhich temps:\n", "\nWhat is done:\n", "\nOutput:\n"] {
            assert!(help.contains(heading), "no {heading:?}: {help}");
        }
        assert!(!help.contains("possible values: list"), "{help}");
    }
}
