//! The transcripts in README and docs are true: every command of a ```console block is run, in order,
//! in one home, and says what stands below it.
//!
//! What differs from one day and machine to the next (dates, pids, ids, how full the disk is) is
//! compared by its form. The supervisor is one of the test's own, which really starts the watcher.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use crate::sandbox::{DEADLINE, Sandbox, signal};

/// One command, and what it says.
#[derive(Debug)]
struct Step {
    /// The line of the file that it stands in.
    line: usize,
    command: String,
    says: String,
}

/// The commands of the ```console blocks of a file.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => inside = line == "```console",
            Some(command) if inside => steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                says: String::new(),
            }),
            None if inside => {
                let step = steps.last_mut().expect("a command comes first");
                step.says.push_str(line);
                step.says.push('\n');
            }
            _ => {}
        }
    }
    steps
}

/// What is compared by its form only.
const FORMS: &[(&str, &str)] = &[
    (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ", ""),
    (r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?)?", "DATE"),
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    (r"\bpid \d+", "pid PID"),
    (r"\b(m[0-9A-Za-z]{15}|n[0-9a-z]{13})\b", "ID"),
    (r"\b[0-9.]+ (ms|s|min|h|days?)( \d+ (s|min|h))?\b", "SPAN"),
    (r"\d+ % full, [0-9.]+ [kMGT]?B (free|left)", "DISK"),
    (r"\b\d+\.\d+\.\d+\b", "VERSION"),
    (r" +", " "),
];

fn form(text: &str, home: &str) -> String {
    let mut text = text.replace(home, "~");
    for (pattern, form) in FORMS {
        text = Regex::new(pattern)
            .unwrap()
            .replace_all(&text, *form)
            .into_owned();
    }
    // The home of a test is no place to stay, and it is told so.
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

/// A systemctl that really starts the watcher, and answers once that is ready.
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

/// Ends what the supervisor has started, if the transcript does not.
struct InstalledUnit(std::path::PathBuf);

impl Drop for InstalledUnit {
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
    let started = InstalledUnit(base.join("systemd/pid"));
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
            let (is, wanted) = (form(&ran.stdout, shown), form(&step.says, shown));
            if is == wanted {
                break;
            }
            // What only asks may be asked again: the watcher needs its time.
            let asks = ["orphand status", "orphand history", "orphand scan"];
            let again = asks.iter().any(|start| step.command.starts_with(start));
            assert!(
                again && Instant::now() < end,
                "line {}: {}\n--- it says\n{}\n--- and not\n{}",
                step.line,
                step.command,
                ran.stdout,
                step.says
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    drop(started);
}

#[test]
fn the_transcripts_in_the_operations_manual_are_true() {
    let text = include_str!("../../docs/operations.md");
    assert!(steps(text).len() >= 10, "they are found");
    run_all(text);
}

#[test]
fn a_transcript_that_is_not_true_is_noticed() {
    let said = |text: &str| {
        let text = text.to_owned();
        std::panic::catch_unwind(move || run_all(&text)).is_err()
    };
    assert!(said("```console\n$ echo 1\n2\n```\n"));
    assert!(said("```console\n$ echo 1\n```\n"));
    assert!(!said("```console\n$ echo pid 12\npid 345\n```\n"));
}
