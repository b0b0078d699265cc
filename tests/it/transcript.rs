//! The transcripts in README and docs are true: every command of a ```console block is run, in order, in one
//! home, and must print the text below it.
//!
//! Text that differs between days and machines (dates, pids, ids, the fill level of the disk) is compared by
//! its form. The systemctl is a script of this test, which really starts the watcher.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use crate::sandbox::{DEADLINE, Sandbox, signal};

/// A command and its output.
#[derive(Debug)]
struct TranscriptStep {
    /// Its line in the file.
    line: usize,
    command: String,
    expected: String,
}

/// Returns the commands of the ```console blocks of a file.
fn steps(text: &str) -> Vec<TranscriptStep> {
    let mut steps: Vec<TranscriptStep> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => inside = line == "```console",
            Some(command) if inside => steps.push(TranscriptStep {
                line: index + 1,
                command: command.to_owned(),
                expected: String::new(),
            }),
            None if inside => {
                let step = steps.last_mut().expect("a command comes first");
                step.expected.push_str(line);
                step.expected.push('\n');
            }
            _ => {}
        }
    }
    steps
}

/// Patterns of text that is compared only by its form, with their replacements.
const FORMS: &[(&str, &str)] = &[
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ", ""),
    (r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?)?", "DATE"),
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    (r"\bpid \d+", "pid PID"),
    (r"\b(m[0-9A-Za-z]{15}|n[0-9a-z]{13})\b", "ID"),
    (r"\b[0-9.]+ (ms|s|min|h|days?)( \d+ (s|min|h))?\b", "SPAN"),
    // The temps of a group may have the same age.
    (r"SPAN to SPAN", "SPAN"),
    (
        r"\d+ % full, [0-9.]+ [kMGT]?B (free|left)(, inodes \d+ % used)?",
        "DISK",
    ),
    (r"\b\d+\.\d+\.\d+\b", "VERSION"),
    (r" +", " "),
];

fn normalize(text: &str, home: &str) -> String {
    let mut text = text.replace(home, "~");
    for (pattern, form) in FORMS {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, *form)
            .into_owned();
    }
    // The warning about the temporary home of the test.
    let lines = text
        .lines()
        .filter(|line| !line.contains("is in a folder for temporary files"));
    lines
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
        .trim_end()
        .to_owned()
}

/// A systemctl that really starts the watcher, and returns once the watcher is ready.
const SYSTEMCTL: &str = r#"#!/bin/sh
at="${0%/*}/systemd"
[ "$1" != --user ] || shift
case $1 in
show)
    for what in loaded enabled; do [ ! -f "$at/$what" ] || eval "$what=1"; done
    echo "LoadState=${loaded:+loaded}"; echo "UnitFileState=${enabled:+enabled}"
    if [ -f "$at/pid" ]; then
        printf 'ActiveState=active\nSubState=running\nMainPID=%s\nResult=success\n' "$(cat "$at/pid")"
    else
        printf 'ActiveState=inactive\nSubState=dead\nMainPID=0\nResult=success\n'
    fi
    echo NeedDaemonReload=no
    ;;
daemon-reload) : > "$at/loaded" ;;
enable) : > "$at/enabled" ;;
start | restart)
    orphand watch < /dev/null > "$at/out" 2> "$at/err" &
    echo $! > "$at/pid"
    until orphand status > /dev/null 2>&1; do sleep 0.05; done
    ;;
stop | disable)
    [ "$1" != disable ] || rm -f "$at/enabled"
    [ -f "$at/pid" ] || exit 0
    kill "$(cat "$at/pid")"
    while orphand status > /dev/null 2>&1; do sleep 0.05; done
    rm "$at/pid"
    ;;
esac
"#;

/// Kills the watcher that the systemctl has started, unless the transcript ends it.
struct KillStarted(std::path::PathBuf);

impl Drop for KillStarted {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.0) {
            signal(pid.trim().parse().unwrap(), libc::SIGKILL);
        }
    }
}

fn put_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_all(text: &str) {
    let sandbox = Sandbox::ordinary();
    let base = sandbox.base().to_owned();
    let bin = base.join("home/.cargo/bin");
    for folder in ["../home/.cargo/bin", "../home/.config", "../systemd"] {
        sandbox.make_dir(folder);
    }
    fs::copy(sandbox.binary(), bin.join("orphand")).unwrap();
    put_program(&base.join("systemctl"), SYSTEMCTL);
    let path = std::env::var("PATH").unwrap();
    let sandbox = sandbox
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("XDG_CONFIG_HOME", "")
        .env("XDG_STATE_HOME", "")
        .env("ORPHAND_SYSTEMCTL", base.join("systemctl"))
        .env("USER", "ann");
    let started = KillStarted(base.join("systemd/pid"));
    let home = base.join("home");
    let shown = home.to_str().unwrap();
    for step in steps(text) {
        let end = Instant::now() + DEADLINE;
        loop {
            let mut command = sandbox.program("sh");
            command
                .args(["-c", &format!("{{ {}\n}} 2>&1", step.command)])
                .current_dir(&home);
            let ran = sandbox.finish(command);
            let (is, wanted) = (
                normalize(&ran.stdout, shown),
                normalize(&step.expected, shown),
            );
            if is == wanted {
                break;
            }
            // Commands that only query may be repeated: the watcher needs time.
            let queries = ["orphand status", "orphand history", "orphand scan"];
            let again = queries.iter().any(|start| step.command.starts_with(start));
            assert!(
                again && Instant::now() < end,
                "line {}: {}\n--- it prints\n{}\n--- instead of\n{}",
                step.line,
                step.command,
                ran.stdout,
                step.expected
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    drop(started);
}

#[test]
fn the_transcripts_in_the_operations_manual_are_true() {
    let text = include_str!("../../docs/operations.md");
    assert!(steps(text).len() >= 10, "too few commands were found");
    run_all(text);
}

#[test]
fn a_false_transcript_is_noticed() {
    let fails = |text: &str| {
        let text = text.to_owned();
        std::panic::catch_unwind(move || run_all(&text)).is_err()
    };
    assert!(fails("```console\n$ echo 1\n2\n```\n"));
    assert!(fails("```console\n$ echo 1\n```\n"));
    assert!(!fails("```console\n$ echo pid 12\npid 345\n```\n"));
}
