//! The texts that a user sees, each as a whole.
//!
//! After an intended change, `UPDATE_EXPECT=1 cargo test --test it texts::` writes the new texts into this file.
//! `transcript.rs` checks the transcripts in the documentation.

use std::time::Duration;

use expect_test::{Expect, expect};
use regex_lite::Regex;

use crate::sandbox::{CommandResult, Sandbox};

/// Text that differs between machines and runs, with its replacements.
const FORMS: &[(&str, &str)] = &[
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    // The column of a comment depends on the length of paths.
    (r" {2,}# ", "  # "),
    (r"\binode \d+", "inode INODE"),
    (r"\bmount \d+", "mount MOUNT"),
    (r"\buid \d+", "uid UID"),
    (r"\bfile system [a-z0-9]+\n", "file system TYPE\n"),
    // The space on the disk depends on the file system.
    (r", [0-9.]+ [kM]?B on the disk", ""),
    (r" \([0-9.]+ [kM]?B on the disk\)", ""),
    (r"orphans, [0-9.]+ [kM]?B", "orphans, SIZE"),
    (
        r"\b(unused for|quiet for|the oldest) [0-9.]+ m?s\b",
        "$1 SPAN",
    ),
];

fn old_sandbox() -> Sandbox {
    Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .file("b.4194304.tmp", "")
        .file("sole.tmp", "the only copy")
        .aged(Duration::from_millis(150))
}

/// Runs orphand, and compares its exit code and its output, stdout first.
#[track_caller]
fn check(sandbox: &Sandbox, args: &[&str], code: i32, expected: &Expect) {
    let CommandResult { stdout, stderr, .. } = sandbox.run(args).exit(code);
    let base = sandbox.base().to_str().unwrap();
    let mut text = (stdout + &stderr).replace(base, "BASE");
    for (form, name) in FORMS {
        text = Regex::new(form)
            .unwrap()
            .replace_all(&text, *name)
            .into_owned();
    }
    expected.assert_eq(&text);
}

#[test]
fn scan_lists_orphans_and_the_command() {
    check(
        &old_sandbox(),
        &["scan", "--grace", "100ms", "root"],
        0,
        &expect![[r#"
            move    1      13 B  sole.tmp       unused for SPAN; it may be the only copy
            remove  1       1 B  a.tmp          unused for SPAN
            remove  1       0 B  b.4194304.tmp  unused for SPAN
            3 orphans, SIZE, the oldest SPAN.   remove 2 and move 1 to the quarantine: orphand sweep --grace 100ms BASE/root
        "#]],
    );
}

#[test]
fn a_dry_run_lists_actions_and_the_sums() {
    check(
        &old_sandbox(),
        &["sweep", "-n", "--grace", "100ms", "root"],
        0,
        &expect![[r#"
            TIME  would remove a.tmp                         1 B  unused for SPAN
            TIME  would remove b.4194304.tmp                 0 B  empty, unused for SPAN
            TIME  would move   sole.tmp                     13 B  there is no "sole": it may be the only copy.
            2 would be removed (1 B) · 1 would be moved to the quarantine (13 B) · 0 kept
            Nothing was changed (dry run).
        "#]],
    );
}

// Only on Linux do leases give the evidence.
#[cfg(target_os = "linux")]
#[test]
fn explain_gives_the_evidence_of_each_gate() {
    let sandbox = old_sandbox();
    let explain = |file| ["explain", "--grace", "100ms", file];
    check(
        &sandbox,
        &explain("root/a.tmp"),
        0,
        &expect![[r#"
        BASE/root/a.tmp
        its target: BASE/root/a, 29 B
          passes  not restored                    it has no mark of a restored file
          passes  name not reserved               its name is not reserved
          passes  quiet for its grace             quiet for SPAN; its grace is 100 ms
          passes  unchanged                       one look: inode INODE, 1 bytes
          passes  regular file                    a regular file
          passes  same mount as its directory     the file is on mount MOUNT, its directory on mount MOUNT
          passes  not protected, data on this disk  neither immutable nor append-only
          passes  one link                        1 link
          passes  supported file system           file system TYPE
          passes  same owner, or run as root      owned by uid UID; orphand runs as uid UID
          passes  writer gone                     its name contains no pid
          passes  not ignored after a close       no process has it open
          passes  not locked                      no process on this kernel has it open or mapped
          passes  not open or mapped              no process on this kernel has it open or mapped
          passes  use state known                 the kernel gave a conclusive answer
          passes  unless_open file unused         its rule has no unless_open
          passes  mappings covered                the proof covers mappings on this file system
          passes  not the only copy               its target exists and has content
        reap: every gate passes
    "#]],
    );
    check(
        &sandbox,
        &explain("root/sole.tmp"),
        0,
        &expect![[r#"
        BASE/root/sole.tmp
        its target: BASE/root/sole, which does not exist
          passes  not restored                    it has no mark of a restored file
          passes  name not reserved               its name is not reserved
          passes  quiet for its grace             quiet for SPAN; its grace is 100 ms
          passes  unchanged                       one look: inode INODE, 13 bytes
          passes  regular file                    a regular file
          passes  same mount as its directory     the file is on mount MOUNT, its directory on mount MOUNT
          passes  not protected, data on this disk  neither immutable nor append-only
          passes  one link                        1 link
          passes  supported file system           file system TYPE
          passes  same owner, or run as root      owned by uid UID; orphand runs as uid UID
          passes  writer gone                     its name contains no pid
          passes  not ignored after a close       no process has it open
          passes  not locked                      no process on this kernel has it open or mapped
          passes  not open or mapped              no process on this kernel has it open or mapped
          passes  use state known                 the kernel gave a conclusive answer
          passes  unless_open file unused         its rule has no unless_open
          passes  mappings covered                the proof covers mappings on this file system
          moves   not the only copy               its target is missing
        quarantine: sole-copy (it may be the only copy)
    "#]],
    );
    for (sole_copy, last) in [
        (
            "quarantine",
            "quarantine: sole-copy (it may be the only copy)",
        ),
        (
            "keep",
            "keep: sole-copy (it may be the only copy).  to move such temps: --sole-copy quarantine",
        ),
    ] {
        let args = ["--sole-copy", sole_copy];
        let ran = sandbox.run(explain("root/sole.tmp").iter().chain(&args));
        assert_eq!(ran.exit(0).stdout.lines().last(), Some(last));
    }
}

#[test]
fn config_show_gives_each_value_and_its_source() {
    let config = "[defaults]\ngrace = \"10m\"\n[[watch]]\npath = \"~/app\"\nrecursive = true\n";
    let sandbox = Sandbox::new()
        .file("../config/orphand/config.toml", config)
        .dir("../home/app")
        .env("ORPHAND_SOLE_COPY", "keep");
    check(
        &sandbox,
        &["config", "show"],
        0,
        &expect![[r##"
            # BASE/config/orphand/config.toml

            [defaults]
            names = ["*.tmp"]  # default
            writers = ["openclaw", "openclaw-files", "fs-safe", "atomically", "git"]  # default
            exclude = []  # default
            # unless_open is not set  # default
            recursive = false  # default
            grace = "10m"  # line 2
            fixed_name_grace = "10m"  # line 2
            closed = "orphan"  # default
            open = "keep"  # default
            sole_copy = "keep"  # ORPHAND_SOLE_COPY
            action = "delete"  # default
            hot = "scan"  # default
            learn = "report"  # default
            network = []  # default
            broad = false  # default
            broad_names = false  # default

            [[watch]]
            path = "BASE/home/app"  # line 4
            names = ["*.tmp"]  # default
            writers = ["openclaw", "openclaw-files", "fs-safe", "atomically", "git"]  # default
            exclude = []  # default
            # unless_open is not set  # default
            recursive = true  # line 5
            grace = "10m"  # line 2
            fixed_name_grace = "10m"  # line 2
            closed = "orphan"  # default
            open = "keep"  # default
            sole_copy = "keep"  # ORPHAND_SOLE_COPY
            action = "delete"  # default
            hot = "scan"  # default
            learn = "report"  # default
            network = []  # default
            broad = false  # default
            broad_names = false  # default

            [quarantine]
            keep = "7d"  # default
            percent = 10  # default
            min_free = "5%"  # default

            [journal]
            max_size = "16MB"  # default

            [log]
            # file is not set  # default
            max_size = "1MB"  # default
            level = "info"  # default
            leaks = "1h"  # default

            [metrics]
            # textfile is not set  # default
            every = "15s"  # default

            [alert]
            # command is not set  # default
            every = "1h"  # default
            leaks = 0  # default
            bytes = "0kB"  # default
            min_free = "0%"  # default
        "##]],
    );
}

#[test]
fn messages_name_the_cause_and_the_fix() {
    let sandbox = Sandbox::new().file(
        "../wrong.toml",
        "[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n",
    );
    let rows: [(&[&str], i32, Expect); 5] = [
        (
            &["sweep", "--garce", "1s", "root"],
            2,
            expect![[r#"
            error: unexpected argument '--garce' found

              tip: a similar argument exists: '--grace'

            Usage: orphand sweep --grace <TIME> [DIR]...

            For more information, try '--help'.
        "#]],
        ),
        (
            &["scan", "--grace", "30", "root"],
            2,
            expect![[r#"
            error: invalid value '30' for '--grace <TIME>': "30" has no unit; did you mean "30s"?

            For more information, try '--help'.
        "#]],
        ),
        (
            &["scan", "no/such"],
            1,
            expect![[r#"
            error: "BASE/no/such" does not exist; check the name
        "#]],
        ),
        (
            &["config", "check", "--config", "wrong.toml"],
            78,
            expect![[r#"
                wrong.toml:3:1: unknown key "garce" in [[watch]]; did you mean "grace"?
            "#]],
        ),
        (
            &["sweep", "--yes", "/"],
            2,
            expect![[r#"
            error: "/" is one of the system's own top folders: too broad for a tool that deletes files; give the directory in which the program leaves its temps, or use --allow-broad-root
        "#]],
        ),
    ];
    for (args, code, expected) in rows {
        check(&sandbox, args, code, &expected);
    }
}
