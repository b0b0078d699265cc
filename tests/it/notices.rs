//! Reports about things that orphand does not do: directories that it does not enter, cannot read or cannot
//! prove anything in, and questions without an answer.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use crate::fixture::{RunAs, in_own_process, mount};
use crate::sandbox::{Sandbox, WatchProcess, terminal};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

#[cfg(target_os = "linux")]
#[test]
fn a_mount_below_a_root_is_reported_as_not_entered() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new()
            .file("a.tmp", "")
            .dir("in/mounted")
            .aged(OLD_ENOUGH);
        let mounted = sandbox.path("in/mounted");
        mount("tmpfs", &mounted, "tmpfs", 0, "size=1m");
        let assert_one_message = |stderr: &str| {
            let lines = stderr.lines().filter(|line| line.contains("not entered"));
            let lines: Vec<&str> = lines.collect();
            assert_eq!(lines.len(), 1, "{stderr}");
            assert!(lines[0].contains(mounted.to_str().unwrap()), "{stderr}");
            assert!(lines[0].contains("root of its own"), "{stderr}");
        };
        let deep = SHORT.into_iter().chain(["-r"]);
        let ran = sandbox.scan(deep.clone()).exit(0);
        assert_one_message(&ran.stderr);
        let document = ran.stdout_json();
        let want = serde_json::json!([{"path": mounted, "why": "other-mount"}]);
        assert_eq!(document["skipped"], want);
        let ran = sandbox.scan(SHORT).exit(0);
        assert_eq!(ran.stdout_json()["skipped"], serde_json::json!([]));
        assert_one_message(&sandbox.sweep(deep.clone()).exit(0).stderr);
        let mut watching = sandbox.watch(deep).ready();
        watching.wait_for_sentinel(&sandbox);
        assert_one_message(&watching.stop().exit(0).stderr);
        let at = std::ffi::CString::new(mounted.to_str().unwrap()).unwrap();
        // SAFETY: the path ends in NUL and outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    });
}

#[test]
fn the_last_line_of_a_scan_counts_unreadable_directories() {
    let sandbox = Sandbox::ordinary().file("shut/a.tmp", "");
    let shut = sandbox.path("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o0)).unwrap();
    let ran = sandbox
        .run(["scan", "-r", "--grace", "100ms", "root"])
        .exit(3);
    let last = ran.stdout.lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("1 directory could not be read"), "{ran:?}");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_system_without_proof_is_named_with_the_key_that_trusts_it() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        mount("ramfs", &sandbox.root(), "ramfs", 0, "");
        sandbox.write("a", "whole");
        sandbox.write("a.tmp", "x");
        std::thread::sleep(OLD_ENOUGH);
        let run = ["scan", "--grace", "100ms", "root"];
        let ran = sandbox.run(run).exit(0);
        let (system, key) = ("(ramfs)", "network = [\"ramfs\"]");
        assert!(
            ran.stdout.contains(system) && ran.stdout.contains(key),
            "{ran:?}"
        );
        let mut watching = sandbox.watch(SHORT).ready();
        watching.wait_for(crate::sandbox::kept("a.tmp", "network-fs"));
        let stderr = watching.stop().exit(0).stderr;
        assert!(stderr.contains("ramfs") && stderr.contains(key), "{stderr}");
        assert_eq!(stderr.matches("nothing can prove").count(), 1, "{stderr}");
        let at = std::ffi::CString::new(sandbox.root().to_str().unwrap()).unwrap();
        // SAFETY: the path ends in NUL and outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
    });
}

#[test]
fn a_declined_question_is_confirmed_in_words() {
    for (answer, removed, asked) in [
        ("n\n", false, 1),
        ("\n", false, 1),
        ("\u{4}", false, 1),
        ("perhaps\nno\n", false, 2),
        ("perhaps\n\u{4}", false, 2),
        ("perhaps\nYES\n", true, 2),
    ] {
        let sandbox = Sandbox::new().file("a.tmp", "").aged(OLD_ENOUGH);
        let (mut ours, theirs) = terminal();
        ours.write_all(answer.as_bytes()).unwrap();
        let mut command = sandbox.command(["sweep", "--grace", "100ms", "root"]);
        command.stdin(theirs);
        let ran = sandbox.finish(command).exit(0);
        assert_eq!(sandbox.has("a.tmp"), !removed, "{answer:?}: {ran:?}");
        assert_eq!(
            ran.stderr.contains("nothing was removed"),
            !removed,
            "{answer:?}: {ran:?}"
        );
        assert_eq!(
            ran.stderr.matches("[y/N]").count(),
            asked,
            "{answer:?}: {ran:?}"
        );
    }
}

/// A file that lists no directory is valid: both commands say so.
#[test]
fn config_check_and_watch_agree_on_a_file_that_lists_nothing() {
    let sandbox = Sandbox::new().file(
        "../config/orphand/config.toml",
        "[defaults]\ngrace = \"10s\"\n",
    );
    let ran = sandbox.run(["config", "check"]).exit(0);
    assert!(
        ran.stdout.contains("is valid but lists no directory"),
        "{ran:?}"
    );
    let watching = WatchProcess::start(sandbox.command(["watch", "--json"]));
    let end = Instant::now() + Duration::from_secs(60);
    while !watching.stderr().contains("lists a directory") {
        assert!(Instant::now() < end, "{}", watching.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    let stderr = watching.stderr();
    for wrong in ["degraded", "mended", "fixed", "ERROR"] {
        assert!(!stderr.contains(wrong), "{wrong:?} in {stderr}");
    }
    watching.signal(libc::SIGTERM);
    watching.end().exit(0);
}

#[test]
fn an_open_temp_does_not_advertise_its_removal() {
    let sandbox = Sandbox::new().file("a.tmp", "x").aged(OLD_ENOUGH);
    let held = fs::File::open(sandbox.path("a.tmp")).unwrap();
    for verb in [&["scan"][..], &["sweep", "--yes"]] {
        let ran = sandbox
            .run(verb.iter().chain(&SHORT).chain(&["root"]))
            .exit(0);
        assert!(ran.stdout.contains("open"), "{ran:?}");
        assert!(!ran.stdout.contains("--open reap"), "{ran:?}");
    }
    drop(held);
}
