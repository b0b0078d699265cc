//! `orphand watch`: the temps that it removes and keeps, and its output.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::contract;
use crate::sandbox::{Sandbox, StartChild, WatchProcess, in_parallel, is, kept, live_pid, name};

/// Short, but long enough for a test on a loaded machine to do something within it.
const GRACE: Duration = Duration::from_secs(1);
const WITH_GRACE: [&str; 2] = ["--grace", "1s"];
/// For steps that must be complete before the longer grace is over.
const SHORT: [&str; 2] = ["--grace", "200ms"];

fn millis(event: &Value, field: &str) -> u128 {
    event[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no {field} in {event}"))
        .into()
}

fn with<'a>(grace: [&'a str; 2], more: &[&'a str]) -> Vec<&'a str> {
    grace.iter().chain(more).copied().collect()
}

fn event_time(event: &Value) -> jiff::Timestamp {
    event["time"].as_str().unwrap().parse().unwrap()
}

/// The purpose of orphand: a writer is killed between its write and its rename.
#[test]
fn a_killed_writer_leaves_nothing() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("sessions.json", "the whole of it");
        let temp = "sessions.json.1b4e28ba-2fa1-11d2-883f-0016d3cca427.tmp";
        let mut watching = sandbox.watch(WITH_GRACE).ready();
        let mut writer = sandbox.shell();
        let started = jiff::Timestamp::now();
        assert!(writer.run(&format!("exec 3> {temp}; printf 'half of' >&3")));
        writer.kill();
        let reaped = watching.wait_for(is("reaped", temp));
        assert!(!sandbox.has(temp), "the event came before the removal");
        assert_eq!(reaped["path"], sandbox.path(temp).to_str().unwrap());
        assert_eq!(reaped["root"], sandbox.root().to_str().unwrap());
        assert_eq!(reaped["bytes"], 7);
        assert_eq!(
            reaped["target"],
            sandbox.path("sessions.json").to_str().unwrap()
        );
        assert_eq!(reaped["writer_pid"], Value::Null);
        assert_eq!(reaped["dry_run"], false);
        assert!(millis(&reaped, "quiet_ms") >= GRACE.as_millis(), "{reaped}");
        let grace = jiff::SignedDuration::try_from(GRACE).unwrap();
        let took = event_time(&reaped).duration_since(started);
        assert!(
            took >= grace - jiff::SignedDuration::from_millis(1),
            "removed after {took:?}"
        );
        assert!(took < grace * 20, "removed only after {took:?}");
        let stopped = watching.stop().exit(0);
        assert_eq!(stopped.events.sums(), [1, 0, 0, 0]);
        assert_eq!(stopped.events.summary()["bytes"], 7);
        assert_eq!(stopped.events.about(temp), ["reaped"]);
        assert_eq!(sandbox.listing(), ["sessions.json"]);
        assert_eq!(sandbox.content("sessions.json"), "the whole of it");
    });
}

/// Writes a temp, holds it for `hold`, closes it, and renames it after `pause`. Returns the real pause, and
/// whether the rename succeeded.
fn write_and_rename(
    sandbox: &Sandbox,
    name: &str,
    hold: Duration,
    pause: Duration,
) -> (Duration, bool) {
    let (temp, target) = (sandbox.path(format!("{name}.tmp")), sandbox.path(name));
    let mut file = fs::File::create(&temp).unwrap();
    sandbox.chown_to_user(&temp);
    file.write_all(b"new").unwrap();
    thread::sleep(hold);
    drop(file);
    let closed = Instant::now();
    thread::sleep(pause);
    let renamed = fs::rename(&temp, &target).is_ok();
    (closed.elapsed(), renamed)
}

/// Asserts that no live writer loses its temp under `watch` with these options.
#[track_caller]
fn assert_no_writer_loses_its_temp(options: &[&str]) {
    const GRACE: Duration = Duration::from_secs(2);
    // At most half a grace may pass between close and rename. If the machine stalled for longer than that,
    // nothing is proven, and the test repeats.
    for attempt in 0.. {
        assert!(attempt < 5, "this machine is too busy for this test");
        let sandbox = Sandbox::new();
        let args: Vec<&str> = ["--grace", "2s"].iter().chain(options).copied().collect();
        let mut watching = sandbox.watch(args).ready();
        let names = ["a", "b", "c", "d", "e", "f"];
        let held = [0.1, 0.4, 0.7, 0.85, 1.0, 1.6];
        for name in names {
            // The target has content: so a temp beside it is not the only copy, and would be removed.
            sandbox.write(name, "old");
        }
        let wrote: Vec<(Duration, bool)> = thread::scope(|scope| {
            let writers = names.iter().zip(held).map(|(name, held)| {
                let sandbox = &sandbox;
                scope.spawn(move || {
                    write_and_rename(sandbox, name, GRACE.mul_f64(held), GRACE.mul_f64(0.3))
                })
            });
            let writers: Vec<_> = writers.collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        watching.wait_for_sentinel(&sandbox);
        if wrote.iter().any(|(paused, _)| *paused >= GRACE / 2) {
            continue;
        }
        for (name, (_, renamed)) in names.iter().zip(wrote) {
            let temp = format!("{name}.tmp");
            assert!(renamed, "{temp}: {:#?}", watching.events().about(&temp));
            assert_eq!(sandbox.content(name), "new", "{name}");
        }
        let stopped = watching.stop();
        assert_eq!(
            stopped.events.names("reaped"),
            ["sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"]
        );
        assert_eq!(stopped.events.names("quarantined"), [""; 0]);
        return;
    }
}

#[test]
fn live_writers_lose_nothing() {
    assert_no_writer_loses_its_temp(&[]);
}

/// `--open quarantine` decides about a temp that is held when it is judged. A temp that its writer has just
/// closed must not be deleted because of that.
#[test]
fn live_writers_lose_nothing_with_open_quarantine() {
    let sandbox = Sandbox::new().file("a", "old");
    let grace = Duration::from_secs(2);
    let mut watching = sandbox
        .watch(["--grace", "2s", "--open", "quarantine"])
        .ready();
    // Held at the first look, after half the grace; closed shortly before the end of it.
    let (paused, renamed) = write_and_rename(&sandbox, "a", grace.mul_f64(0.8), grace.mul_f64(0.4));
    watching.wait_for_sentinel(&sandbox);
    let about = watching.events().about("a.tmp");
    assert!(
        !about.contains(&"reaped".to_owned()),
        "deleted {paused:?} after its close: {about:?}"
    );
    assert!(renamed || about == ["quarantined"], "{about:?}");
}

#[test]
fn existing_temps_are_removed() {
    // Removed as soon as there is proof, or after a whole grace.
    let cases = [
        (&[][..], true),
        (&["--existing", "take"], true),
        (&["--existing", "wait"], false),
    ];
    in_parallel(cases, |(existing, soon)| {
        let sandbox = Sandbox::new()
            .file("a", "whole, to the last byte of it")
            .file("a.tmp", "x")
            .aged(GRACE * 2);
        let started = jiff::Timestamp::now();
        let mut watching = sandbox.watch(with(["--grace", "2s"], existing)).ready();
        // Its grace begins after that of the existing temp.
        watching.wait_for_sentinel(&sandbox);
        let reaped = watching.wait_for(is("reaped", "a.tmp"));
        assert!(millis(&reaped, "quiet_ms") >= 2000, "{reaped}");
        let took = event_time(&reaped).duration_since(started);
        if !soon {
            assert!(
                took >= jiff::SignedDuration::from_millis(1999),
                "{existing:?}: {took:?}"
            );
        }
        let stopped = watching.stop().exit(0);
        let order: Vec<&str> = stopped.events.of("reaped").into_iter().map(name).collect();
        assert_eq!(
            order,
            [
                "a.tmp",
                "sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
            ],
            "{existing:?}"
        );
        assert_eq!(stopped.events.one("ready")["tracked"], 1, "{existing:?}");
        assert_eq!(stopped.events.one("rescan")["cause"], "startup");
    });
}

#[test]
fn existing_temps_are_ignored_on_request() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(GRACE);
    let mut watching = sandbox.watch(with(SHORT, &["--existing", "leave"])).ready();
    watching.wait_for_sentinel(&sandbox);
    assert!(sandbox.has("a.tmp"));
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.about("a.tmp"), [""; 0]);
}

/// The temps are ignored on request, and no later scan forgets that.
#[test]
fn ignored_temps_stay_ignored_in_later_scans() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(GRACE);
    let mut watching = sandbox.watch(with(SHORT, &["--existing", "leave"])).ready();
    let (root, away) = (sandbox.root(), sandbox.base().join("away"));
    fs::rename(&root, &away).unwrap();
    watching.wait_for(|event| event["event"] == "root" && event["state"] == "gone");
    fs::rename(&away, &root).unwrap();
    watching.wait_for(|event| event["event"] == "rescan" && event["cause"] == "root-returned");
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(sandbox.has("a.tmp"), "{:?}", watching.events());
}

/// Neither a change of its mode nor a rename of its folder makes a temp new.
#[test]
fn ignored_temps_are_not_new_by_their_dates() {
    let sandbox = Sandbox::new()
        .file("sub/a", "whole, to the last byte of it")
        .file("sub/a.tmp", "x")
        .aged(GRACE);
    if fs::metadata(sandbox.path("sub/a.tmp"))
        .unwrap()
        .created()
        .is_err()
    {
        return eprintln!("skipped: no file has a birth here");
    }
    let leave = ["-r", "--existing", "leave"];
    let mut watching = sandbox.watch(with(SHORT, &leave)).ready();
    fs::set_permissions(sandbox.path("sub/a.tmp"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(sandbox.path("sub"), sandbox.path("other")).unwrap();
    watching.wait_for_sentinel_in(&sandbox, "other");
    watching.wait_for_sentinel_in(&sandbox, "other");
    assert!(sandbox.has("other/a.tmp"));
    watching.stop().exit(0);
}

/// Claims of a killed orphand are ignored too.
#[test]
fn claims_after_a_crash_are_ignored_on_request() {
    let claim = ".orphand-0123456789abcdef-a.tmp";
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file(claim, "x")
        .file("sub/b", "whole, to the last byte of it")
        .file("sub/.orphand-0123456789abcdef-b.tmp", "x")
        .aged(GRACE);
    let leave = ["-r", "--existing", "leave"];
    let mut holder = sandbox.shell();
    let held = ".orphand-0123456789abcdef-c.tmp";
    assert!(holder.run(&format!("exec 3> {held}")));
    let mut watching = sandbox.watch(with(SHORT, &leave)).ready();
    watching.wait_for(kept(held, "in-use"));
    assert!(sandbox.has("a.tmp"), "it did not get its name back");
    assert!(sandbox.has("sub/b.tmp"), "it did not get its name back");
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(sandbox.has("a.tmp"));
    // Nor does a rename of its folder make it new.
    fs::rename(sandbox.path("sub"), sandbox.path("other")).unwrap();
    watching.wait_for_sentinel_in(&sandbox, "other");
    watching.wait_for_sentinel_in(&sandbox, "other");
    assert!(sandbox.has("other/b.tmp"));
    // A later file with its name is another file.
    sandbox.write("new", "x");
    fs::rename(sandbox.path("new"), sandbox.path("a.tmp")).unwrap();
    watching.wait_for(is("reaped", "a.tmp"));
    watching.stop().exit(0);
}

/// A claim whose original name was cut is moved to the quarantine as soon as its holder closes it.
#[test]
fn a_held_claim_with_a_cut_name_is_quarantined_later() {
    let claim = format!(".orphand-0123456789abcdef-{}.tmp", "x".repeat(225));
    assert_eq!(claim.len(), 255);
    let sandbox = Sandbox::new().file(&claim, "x").aged(GRACE);
    let mut holder = sandbox.shell();
    assert!(holder.run(&format!("exec 3>> {claim}")));
    let mut watching = sandbox.watch(SHORT).ready();
    watching.wait_for(kept(&claim, "in-use"));
    assert!(holder.run("exec 3>&-"));
    watching.wait_for(is("quarantined", &claim));
    watching.stop().exit(0);
}

/// A held claim is not recovered at the start, but as soon as its holder closes it.
#[test]
fn a_held_claim_is_recovered_later() {
    let claim = ".orphand-0123456789abcdef-a.tmp";
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("a", "whole, to the last byte of it")
            .file(claim, "x")
            .aged(GRACE);
        let mut holder = sandbox.shell();
        assert!(holder.run(&format!("exec 3>> {claim}")));
        let swept = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(swept.names("kept"), [claim]);
        let mut watching = sandbox.watch(SHORT).ready();
        let event = watching.wait_for(kept(claim, "in-use"));
        assert_eq!(millis(&event, "retry_ms"), 200, "looked at every grace");
        for _ in 0..3 {
            watching.wait_for_sentinel(&sandbox);
        }
        assert!(sandbox.has(claim));
        assert!(holder.run("exec 3>&-"));
        watching.wait_for(is("reaped", "a.tmp"));
        let ended = watching.stop().exit(0);
        assert_eq!(ended.events.names("kept"), [claim], "once");
    });
}

#[test]
fn a_held_temp_is_reported_once_with_its_holder() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("a", "whole, to the last byte of it");
        let mut watching = sandbox.watch(SHORT).ready();
        let mut holder = sandbox.shell();
        assert!(holder.run("exec 3> a.tmp; printf x >&3"));
        let event = watching.wait_for(kept("a.tmp", "in-use"));
        let holders = event["holders"].as_array().unwrap();
        assert_eq!(holders.len(), 1, "{event}");
        assert_eq!(holders[0]["pid"], holder.pid());
        assert!(!holders[0]["name"].as_str().unwrap().is_empty());
        assert_eq!(millis(&event, "retry_ms"), 200, "looked at every grace");
        assert_eq!(event["bytes"], 1);
        for _ in 0..5 {
            watching.wait_for_sentinel(&sandbox);
        }
        assert_eq!(
            watching.events().about("a.tmp"),
            ["kept in-use"],
            "it was reported at every look"
        );
        let closed = jiff::Timestamp::now();
        assert!(holder.run("exec 3>&-"));
        let reaped = watching.wait_for(is("reaped", "a.tmp"));
        let took = event_time(&reaped).duration_since(closed);
        assert!(
            took >= jiff::SignedDuration::from_millis(199),
            "less than a whole grace: {took:?}"
        );
        let stopped = watching.stop().exit(0);
        assert_eq!(stopped.events.sums()[2], 1);
    });
}

/// By the contract, `summary.kept` counts temps, not events.
#[test]
fn a_temp_that_is_kept_for_two_reasons_is_one_temp() {
    let sandbox = Sandbox::new().file("a.tmp", "x");
    let file = fs::File::options()
        .append(true)
        .open(sandbox.path("a.tmp"))
        .unwrap();
    let mut watching = sandbox.watch(SHORT).ready();
    watching.wait_for(kept("a.tmp", "in-use"));
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    // On other systems the proof does not distinguish a lock from other holders.
    if cfg!(target_os = "linux") {
        watching.wait_for(kept("a.tmp", "locked"));
    }
    assert_eq!(watching.stop().exit(0).events.sums(), [0, 0, 1, 0]);
}

#[test]
fn signals_end_it_with_a_summary() {
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let sandbox = Sandbox::new();
        let mut watching = sandbox.watch(SHORT).ready();
        watching.wait_for_sentinel(&sandbox);
        let stopped = watching.stop_by(number).exit(0);
        assert_eq!(stopped.events.sums(), [1, 0, 0, 0], "signal {number}");
        assert_eq!(stopped.stderr, "", "signal {number}");
        assert_eq!(
            fs::read_dir(sandbox.base().join("runtime/orphand"))
                .unwrap()
                .count(),
            0
        );
    }
}

/// timeout(1) sends a signal to the process and to its group, so it arrives twice.
#[test]
fn a_signal_that_arrives_twice_ends_it_with_a_summary() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let sandbox = Sandbox::new();
        let mut watching = sandbox.watch(SHORT).ready();
        watching.wait_for_sentinel(&sandbox);
        watching.signal(number);
        std::thread::sleep(Duration::from_micros(300));
        let stopped = watching.stop_by(number).exit(0);
        assert_eq!(stopped.events.sums(), [1, 0, 0, 0], "signal {number}");
    }
}

/// nohup(1) ignores SIGHUP and starts the program: the signal stays ignored.
#[test]
fn an_ignored_sighup_stays_ignored() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.program("nohup");
    command
        .arg(sandbox.binary())
        .args(["watch", "--json", "--grace", "200ms", "root"]);
    let mut watching = WatchProcess::start(command).ready();
    watching.signal(libc::SIGHUP);
    watching.wait_for_sentinel(&sandbox);
    watching.signal(libc::SIGHUP);
    watching.wait_for_sentinel(&sandbox);
    assert_eq!(watching.stop().exit(0).events.sums(), [2, 0, 0, 0]);
}

#[test]
fn two_orphands_cannot_share_a_root() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x");
    // One root with two paths: the lock identifies it by device and inode.
    symlink(sandbox.base(), sandbox.base().join("alias")).unwrap();
    let holder = fs::File::options()
        .append(true)
        .open(sandbox.path("a.tmp"))
        .unwrap();
    let mut watching = sandbox.watch(SHORT).ready();
    let first = watching.pid().to_string();
    let sentence =
        "the watcher does this by itself; to hurry it: orphand sweep -n shows what waits";
    for dir in ["root", "alias/root"] {
        let busy = sandbox
            .run(["watch", "--json", dir])
            .exit(75)
            .prints_nothing();
        assert!(busy.stderr.contains(&first), "{}", busy.stderr);
        let busy = sandbox
            .run(["sweep", "--yes", "--json", dir])
            .exit(75)
            .prints_nothing();
        assert!(busy.stderr.contains(&first), "{}", busy.stderr);
        let lines: Vec<&str> = busy.stderr.lines().collect();
        let [error, help, command] = lines[..] else {
            panic!("{}", busy.stderr);
        };
        let root = sandbox.base().join(dir);
        let cause = format!("error: another orphand process (pid {first}) works on {root:?}");
        assert!(error.starts_with(&cause), "{error}");
        assert_eq!(help, format!("help: {sentence}"));
        // The command alone, as it can be pasted.
        let path = root.display();
        assert_eq!(command.trim_start(), format!("orphand sweep {path} -n"));
        // Commands that change nothing work beside it.
        sandbox.run(["sweep", "-n", dir]).exit(0);
        sandbox.run(["scan", dir]).exit(0);
        sandbox.run(["explain", &format!("{dir}/a.tmp")]).exit(0);
    }
    drop(holder);
    watching.wait_for(is("reaped", "a.tmp"));
    watching.stop().exit(0);
    sandbox.sweep(SHORT).exit(0);
}

/// At most one orphand works on a directory, even if a recursive rule reaches it from above.
#[test]
fn overlapping_directories_belong_to_one_orphand() {
    let sandbox = Sandbox::new().dir("in/deep").dir("in-side");
    symlink(sandbox.base(), sandbox.base().join("alias")).unwrap();
    let (above, below): (&[&str], &[&str]) = (&["-r", "root"], &["root/in"]);
    for (first, seconds) in [
        (
            above,
            &[below, &["alias/root/in/deep"], &["-r", "root/in"]][..],
        ),
        (below, &[above, &["-r", "alias/root"]]),
    ] {
        let mut watching = sandbox.watch_dirs(with(SHORT, first)).ready();
        let dir = sandbox.base().join(first[first.len() - 1]);
        let named = [
            format!("(pid {})", watching.pid()),
            format!("works on {dir:?}, which overlaps with"),
        ];
        for second in seconds {
            for verb in [&["watch", "--json"][..], &["sweep", "--yes", "--json"]] {
                let ran = sandbox
                    .run(verb.iter().chain(*second))
                    .exit(75)
                    .prints_nothing();
                for words in &named {
                    assert!(ran.stderr.contains(words), "{second:?}: {}", ran.stderr);
                }
            }
            // Commands that change nothing work beside it.
            sandbox.run(["sweep", "-n"].iter().chain(*second)).exit(0);
            sandbox.run(["scan"].iter().chain(*second)).exit(0);
        }
        let locks = fs::read_dir(sandbox.base().join("runtime/orphand")).unwrap();
        assert_eq!(locks.count(), 2, "its lock and its socket");
        watching.wait_for_sentinel_in(&sandbox, "in");
        watching.stop().exit(0);
    }
}

/// A rule that does not reach the other's directory needs no common lock.
#[test]
fn separate_directories_may_have_several_orphands() {
    let sandbox = Sandbox::new().dir("in").dir("in-side").dir("out").file(
        "../config/orphand/config.toml",
        "[defaults]\nexclude = [\"out/**\"]\n",
    );
    let sweep = ["sweep", "--yes", "--json", "--grace", "100ms"];
    let inner = sandbox.watch_dirs(with(SHORT, &["root/in"])).ready();
    for other in [&["root"][..], &["-r", "root/in-side"], &["root/out"]] {
        sandbox.run(sweep.iter().chain(other)).exit(0);
    }
    inner.stop().exit(0);
    let outer = sandbox.watch_dirs(with(SHORT, &["-r", "root"])).ready();
    sandbox.run(sweep.iter().chain(&["root/out"])).exit(0);
    sandbox.run(sweep.iter().chain(&["root/in"])).exit(75);
    outer.stop().exit(0);
    // In one process they may overlap.
    sandbox
        .run(sweep.iter().chain(&["-r", "root", "root/in"]))
        .exit(0);
}

/// Watchers of other directories are not named, so the advice cannot end the wrong one.
#[test]
fn doctor_names_no_watcher_of_another_directory() {
    let sandbox = Sandbox::new().dir("a").dir("b");
    let one = sandbox.watch_dirs(with(SHORT, &["root/a"])).ready();
    let other = sandbox.watch_dirs(with(SHORT, &["root/b"])).ready();
    let orphands = |sandbox: &Sandbox, dir: &str| {
        let report = sandbox.run(["doctor", "--json", dir]).stdout_json();
        let checks = report["checks"].as_array().unwrap().clone();
        let of = |check: &Value| check["check"] == "orphands" || check["name"] == "orphands";
        checks.into_iter().find(of).unwrap()
    };
    for dir in ["root/a", "root/b", "root"] {
        assert_eq!(orphands(&sandbox, dir)["state"], "ok");
    }
    // With its own lock folder, it does not see the lock of the first one.
    let mut command = sandbox.command(["watch", "--json", "--grace", "200ms", "root/a"]);
    command.env("XDG_RUNTIME_DIR", sandbox.base().join("home"));
    let third = WatchProcess::start(command).ready();
    let report = orphands(&sandbox, "root/a");
    if cfg!(target_os = "linux") {
        assert_eq!(report["state"], "warning", "{report}");
        let report = report.to_string();
        for (watching, named) in [(&one, true), (&third, true), (&other, false)] {
            let is_named = report.contains(&watching.pid().to_string());
            assert_eq!(is_named, named, "{}: {report}", watching.pid());
        }
    }
    assert_eq!(orphands(&sandbox, "root/b")["state"], "ok");
    for watching in [one, other, third] {
        watching.stop().exit(0);
    }
}

/// A rule that is extended to subdirectories needs a lock for them.
#[test]
fn a_rule_made_recursive_waits_for_the_orphand_below() {
    let sandbox = Sandbox::new().dir("in");
    let rule = |more: &str| {
        let root = sandbox.root();
        let text = format!("[[watch]]\npath = {root:?}\ngrace = \"200ms\"\n{more}");
        sandbox.write("../config/orphand/config.toml", text);
    };
    rule("");
    let mut watching = WatchProcess::start(sandbox.command(["watch", "--json"])).ready();
    let inner = sandbox.watch_dirs(with(SHORT, &["root/in"])).ready();
    watching.wait_for_sentinel(&sandbox);
    rule("recursive = true\n");
    let state = |state: &'static str| {
        move |event: &Value| event["event"] == "root" && event["state"] == state
    };
    watching.wait_for(state("denied"));
    inner.stop().exit(0);
    watching.wait_for(state("watching"));
    watching.wait_for_sentinel_in(&sandbox, "in");
    let stopped = watching.stop();
    assert!(
        stopped.stderr.contains("which overlaps with"),
        "{}",
        stopped.stderr
    );
}

/// The lock ends with its process, even after a kill.
#[test]
fn a_lock_does_not_outlive_its_process() {
    let sandbox = Sandbox::new();
    drop(sandbox.watch(SHORT).ready());
    sandbox.watch(SHORT).ready().stop().exit(0);
}

/// The simple rule as options: a temp that is still open after its grace is removed, and a closed one is
/// kept.
// Linux only: FSEvents reports no close.
#[cfg(target_os = "linux")]
#[test]
fn closed_settled_removes_open_temps() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("before.tmp", "x")
            .file("a", "whole, to the last byte of it")
            .file("b", "whole, to the last byte of it");
        let options = ["--closed", "settled", "--open", "reap"];
        let mut watching = sandbox.watch(with(SHORT, &options)).ready();
        watching.wait_for(kept("before.tmp", "closed"));
        let mut writer = sandbox.shell();
        assert!(writer.run("exec 3> a.tmp; printf open >&3; printf closed > b.tmp"));
        let reaped = watching.wait_for(is("reaped", "a.tmp"));
        assert_eq!(reaped["bytes"], 4);
        watching.wait_for(kept("b.tmp", "closed"));
        assert!(writer.run("printf more >&3"), "its holder could not write");
        // Created later and closed at once: its grace ends later.
        sandbox.write("late.4194304.tmp", "");
        watching.wait_for(kept("late.4194304.tmp", "closed"));
        let stopped = watching.stop().exit(0);
        assert_eq!(stopped.events.names("reaped"), ["a.tmp"]);
        assert_eq!(
            sandbox.listing(),
            ["a", "b", "b.tmp", "before.tmp", "late.4194304.tmp"]
        );
        assert_eq!(sandbox.content("b.tmp"), "closed");
    });
}

/// A close that was seen settles a temp even if a process opens it again later.
// Linux only: FSEvents reports no close.
#[cfg(target_os = "linux")]
#[test]
fn closed_settled_keeps_a_reopened_temp() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let options = ["--closed", "settled", "--open", "reap"];
    let mut watching = sandbox.watch(with(SHORT, &options)).ready();
    sandbox.write("a.tmp", "closed");
    let reader = fs::File::open(sandbox.path("a.tmp")).unwrap();
    watching.wait_for(kept("a.tmp", "closed"));
    drop(reader);
    assert_eq!(watching.stop().exit(0).events.names("reaped"), [""; 0]);
    assert_eq!(sandbox.content("a.tmp"), "closed");
}

#[test]
fn the_open_option_decides_about_open_temps() {
    for (open, want) in [
        ("keep", "kept in-use"),
        ("quarantine", "quarantined"),
        ("reap", "reaped"),
    ] {
        let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
        let mut watching = sandbox.watch(with(SHORT, &["--open", open])).ready();
        let mut holder = sandbox.shell();
        assert!(holder.run("exec 3> a.tmp; printf one >&3"));
        let event = watching.wait_for(|event| name(event) == "a.tmp");
        assert_eq!(watching.events().about("a.tmp"), [want]);
        assert!(holder.run("printf two >&3"), "its holder could not write");
        assert_eq!(sandbox.has("a.tmp"), open == "keep");
        if open == "quarantine" {
            let id = event["id"].as_str().unwrap();
            assert_eq!(sandbox.content(format!(".orphand/{id}/a.tmp")), "onetwo");
        }
        watching.stop().exit(0);
        assert_eq!(sandbox.content("a"), "whole, to the last byte of it");
    }
}

#[test]
fn the_sole_copy_option_decides_about_only_copies() {
    for (options, want) in [
        (&[][..], "quarantined"),
        (&["--sole-copy", "quarantine"], "quarantined"),
        (&["--sole-copy", "keep"], "kept sole-copy"),
        (&["--sole-copy", "reap"], "reaped"),
    ] {
        // No target, an empty one, and one that is not a file: in each case the temp may be the only copy.
        let sandbox = Sandbox::new().file("b", "").dir("c");
        symlink("b", sandbox.path("d")).unwrap();
        let mut watching = sandbox.watch(with(SHORT, options)).ready();
        for temp in ["a.tmp", "b.tmp", "c.tmp", "d.tmp"] {
            sandbox.write(temp, "precious");
        }
        watching.wait_for_sentinel(&sandbox);
        for temp in ["a.tmp", "b.tmp", "c.tmp", "d.tmp"] {
            watching.wait_for(|event| name(event) == temp);
            assert_eq!(watching.events().about(temp), [want], "{options:?} {temp}");
            assert_eq!(
                sandbox.has(temp),
                want.starts_with("kept"),
                "{options:?} {temp}"
            );
        }
        // An empty temp has nothing to lose.
        let stopped = watching.stop().exit(0);
        assert_eq!(
            stopped
                .events
                .about("sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"),
            ["reaped"]
        );
        let freed = if want == "reaped" { 32 } else { 0 };
        assert_eq!(
            stopped.events.summary()["bytes"],
            freed,
            "quarantined bytes do not count as freed"
        );
    }
}

#[test]
fn the_action_option_decides_about_orphans() {
    let cases = [
        (&["--action", "delete"][..], "reaped", false),
        (&["--action", "quarantine"], "quarantined", false),
        (&["--action", "report"], "reaped", true),
        (&["-n"], "reaped", true),
        (&["--dry-run"], "reaped", true),
    ];
    in_parallel(cases, |(options, event, is_kept)| {
        let sandbox = Sandbox::new()
            .file("a", "whole, to the last byte of it")
            .file("a.tmp", "x");
        let mut watching = sandbox.watch(with(SHORT, options)).ready();
        let event_seen = watching.wait_for(is(event, "a.tmp"));
        assert_eq!(event_seen["dry_run"], is_kept, "{options:?}");
        // Judged several times, reported once.
        for n in 0..3 {
            let temp = format!("later-{n}.tmp");
            sandbox.write(&temp, "");
            watching.wait_for(|event| name(event) == temp);
        }
        assert_eq!(watching.events().about("a.tmp").len(), 1, "{options:?}");
        assert_eq!(sandbox.has("a.tmp"), is_kept, "{options:?}");
        watching.stop().exit(0);
    });
}

/// A dry run reports the same as a real run.
#[test]
fn a_dry_run_reports_the_same_as_a_run() {
    let sandbox = Sandbox::new()
        .file("whole", "whole, to the last byte of it")
        .file("whole.tmp", "x")
        .file("sole.tmp", "x")
        .file("empty.4194304.tmp", "")
        .file("linked.tmp", "x")
        .file("whole.1b4e28ba-2fa1-11d2-883f-0016d3cca427.tmp", "x")
        .file(format!("whole.{}.1.tmp", live_pid()), "x")
        .file("held.tmp", "x");
    fs::hard_link(sandbox.path("linked.tmp"), sandbox.path("another name")).unwrap();
    let _held = fs::File::open(sandbox.path("held.tmp")).unwrap();
    let watch = |options: &[&str]| {
        let mut watching = sandbox.watch(with(SHORT, options)).ready();
        // Seven temps, with one event each.
        for n in 1..=7 {
            watching.wait_for_nth(n, |event| event["path"].is_string());
        }
        let stopped = watching.stop().exit(0);
        let reported = stopped
            .events
            .0
            .iter()
            .filter(|event| event["path"].is_string());
        let mut reported: Vec<_> = reported
            .map(|event| {
                let fields = [
                    "event",
                    "path",
                    "root",
                    "bytes",
                    "reason",
                    "target",
                    "writer_pid",
                ];
                fields
                    .map(|field| event[field].clone())
                    .map(|value| value.to_string())
            })
            .collect();
        reported.sort();
        (reported, stopped.events.sums())
    };
    let before = sandbox.snapshot();
    let dry = watch(&["-n"]);
    assert_eq!(
        sandbox.snapshot(),
        before,
        "a dry run changes nothing, not even its own state"
    );
    let wet = watch(&[]);
    assert_eq!(dry, wet);
    assert_eq!(dry.1, [3, 1, 3, 0]);
}

#[test]
fn verbose_reports_every_temp() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(["--grace", "1h", "-v"]).ready();
    sandbox.write("a.tmp", "x");
    let tracked = watching.wait_for(is("tracked", "a.tmp"));
    assert_eq!(millis(&tracked, "due_ms"), 1_800_000, "its first look");
    fs::rename(sandbox.path("a.tmp"), sandbox.path("a")).unwrap();
    assert_eq!(watching.wait_for(is("settled", "a.tmp"))["how"], "renamed");
    sandbox.write("b.tmp", "x");
    watching.wait_for(is("tracked", "b.tmp"));
    fs::remove_file(sandbox.path("b.tmp")).unwrap();
    assert_eq!(watching.wait_for(is("settled", "b.tmp"))["how"], "removed");
    assert_eq!(watching.stop().exit(0).events.sums(), [0, 0, 0, 0]);
}

/// A healthy write is not reported.
#[test]
fn healthy_writes_are_reported_only_with_verbose() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(SHORT).ready();
    let mut writer = sandbox.shell();
    assert!(writer.run("i=0; while [ $i -lt 200 ]; do : > t.tmp; mv t.tmp t; i=$((i+1)); done"));
    watching.wait_for_sentinel(&sandbox);
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.about("t.tmp"), [""; 0]);
    assert_eq!(
        stopped.events.of("settled").len() + stopped.events.of("tracked").len(),
        0
    );
    // Our own claims are not reported either.
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(with(SHORT, &["-v"])).ready();
    watching.wait_for_sentinel(&sandbox);
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped
            .events
            .about("sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"),
        ["tracked", "reaped"]
    );
    assert_eq!(stopped.events.of("settled").len(), 0);
}

/// A closed pipe ends only the output.
#[test]
fn a_watch_continues_after_its_pipe_is_closed() {
    for json in [true, false] {
        let sandbox = Sandbox::new();
        let options = ["--grace", "200ms", "root", "--json"];
        let options = &options[..if json { 4 } else { 3 }];
        let mut child = sandbox
            .command(["watch"].iter().chain(options))
            .start_child()
            .unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut watching = KillOnDrop(child);
        sandbox.write("first.tmp", "");
        let mut line = String::new();
        while !line.contains("first.tmp") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut stdout, &mut line).unwrap() > 0);
        }
        drop(stdout);
        // The first removal detects the closed pipe; the second comes after that.
        for name in ["second.tmp", "third.tmp"] {
            sandbox.write(name, "");
            crate::fixture::wait_until("it is removed", || !sandbox.has(name));
        }
        crate::sandbox::signal(watching.0.id(), libc::SIGTERM);
        assert_eq!(watching.0.wait().unwrap().code(), Some(0));
        let mut stderr_text = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut stderr_text).unwrap();
        assert_eq!(stderr_text, "");
    }
}

/// A full disk that refuses the output does not stop the watch.
#[cfg(target_os = "linux")]
#[test]
fn a_watch_continues_when_its_output_cannot_be_written() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(["watch", "--grace", "200ms", "root"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let mut watching = KillOnDrop(command.start_child().unwrap());
    for name in ["first.tmp", "second.tmp"] {
        sandbox.write(name, "");
        crate::fixture::wait_until("it is removed", || !sandbox.has(name));
    }
    crate::sandbox::signal(watching.0.id(), libc::SIGTERM);
    assert_eq!(watching.0.wait().unwrap().code(), Some(1));
    let mut stderr_text = String::new();
    let mut stderr = watching.0.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut stderr_text).unwrap();
    assert_eq!(
        stderr_text.matches("cannot write the output").count(),
        1,
        "{stderr_text}"
    );
}

/// The line is printed to a pipe, a file or a container's log too: without it a quiet watch looks like a
/// hanging one.
#[test]
fn the_first_line_describes_the_watch() {
    for (options, does) in [
        (
            &["--grace", "10s"][..],
            "(without subfolders): removes *.tmp files unused for 10 s",
        ),
        (
            &["-r", "-n", "--grace", "1m", "--name", "*.part"],
            "(with subfolders): only reports *.part files unused for 1 min",
        ),
        (
            &["--action", "quarantine", "--grace", "1h"],
            "(without subfolders): moves *.tmp files unused for 1 h to the quarantine",
        ),
        (&["--json"], ""),
        (&["-q"], ""),
    ] {
        let sandbox = Sandbox::new();
        let args = ["watch"].iter().chain(options).chain(&["root"]);
        let mut child = sandbox.command(args).start_child().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut watching = KillOnDrop(child);
        let mut first = String::new();
        if !does.is_empty() || options == ["--json"] {
            std::io::BufRead::read_line(&mut stdout, &mut first).unwrap();
        }
        let root = sandbox.root();
        match does {
            "" => assert!(!first.contains("watching "), "{options:?}: {first}"),
            does => assert_eq!(first, format!("watching {} {does}\n", root.display())),
        }
        crate::fixture::wait_until("it answers status queries", || {
            sandbox.run(["status"]).code() == Some(0) || options.contains(&"-n")
        });
        if options.contains(&"-n") {
            let status = sandbox.run(["status"]).exit(1);
            status.stdout_has("no watcher is running (a dry run of watch DIR is not listed)");
        }
        crate::sandbox::signal(watching.0.id(), libc::SIGTERM);
        assert_eq!(watching.0.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
        assert!(!rest.contains("watching "), "{options:?}: once, not {rest}");
        assert!(options != ["-q"] || rest.is_empty(), "{rest}");
        let names_writer = rest.contains(
            "writers that are on by default: atomically, fs-safe, git, openclaw, openclaw-files;",
        );
        let has_default_names = does.contains("*.tmp");
        assert_eq!(names_writer, has_default_names, "{options:?}: {rest}");
    }
}

/// A user who has mistyped a name would wait in vain. A service waits for its directory.
#[test]
fn a_missing_directory_is_an_error_on_a_terminal() {
    let sandbox = Sandbox::new();
    for options in [&[][..], &["--json"], &["-n"]] {
        let (ours, theirs) = crate::sandbox::terminal();
        let mut command = sandbox.command(["watch"].iter().chain(options).chain(&["DIR"]));
        command.stdin(theirs);
        let ran = sandbox.finish(command).exit(1).prints_nothing();
        drop(ours);
        let dir = sandbox.base().join("DIR");
        ran.stderr_has(&format!("{dir:?} does not exist"))
            .stderr_has("--wait");
    }
    for on_a_terminal in [true, false] {
        let wait = ["--wait"];
        let wait = &wait[..usize::from(on_a_terminal)];
        let later = if on_a_terminal {
            "later"
        } else {
            "later still"
        };
        let mut command = sandbox.command(
            ["watch", "--json", "--grace", "200ms"]
                .iter()
                .chain(wait)
                .chain(&[later]),
        );
        let (_ours, theirs) = crate::sandbox::terminal();
        if on_a_terminal {
            command.stdin(theirs);
        }
        let mut watching = WatchProcess::start(command);
        watching.wait_for(|event| event["event"] == "root" && event["state"] == "gone");
        watching = watching.ready();
        sandbox.write(format!("../{later}/a.4194304.tmp"), "");
        watching.wait_for(is("reaped", "a.4194304.tmp"));
        watching.stop().exit(0);
    }
}

/// Kills its child when the test ends, even by a panic.
struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without `--json`, plain lines for people.
#[test]
fn human_output_has_one_line_per_event() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .file("b.tmp", "xx");
    let command = sandbox.command(["watch", "--grace", "200ms", "root"]);
    let mut child = { command }.start_child().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut watching = KillOnDrop(child);
    let mut lines = Vec::new();
    // The first two lines describe the watch.
    while lines.len() < 4 {
        let mut line = String::new();
        assert!(std::io::BufRead::read_line(&mut stdout, &mut line).unwrap() > 0);
        lines.push(line);
    }
    crate::sandbox::signal(watching.0.id(), libc::SIGTERM);
    watching.0.wait().unwrap();
    let line = |word: &str| lines.iter().find(|line| line.contains(word)).unwrap();
    assert!(line(" removed ").contains(" a.tmp "), "{lines:?}");
    let moved = line(" moved ");
    for words in [
        " b.tmp ",
        "2 B",
        "orphand restore ",
        "orphand quarantine purge ",
    ] {
        assert!(moved.contains(words), "{words:?} in {moved:?}");
    }
    assert!(
        lines.iter().all(|line| !line.contains('\x1b')),
        "colors in a pipe: {lines:?}"
    );
}

#[test]
fn paths_are_printed_as_they_were_given() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x");
    symlink(sandbox.base(), sandbox.base().join("alias")).unwrap();
    // A relative path, through a symlink, with a dot and a trailing slash.
    let given = "./alias/root/";
    let absolute = sandbox.base().join("alias/root");
    let mut watching = sandbox.watch_dirs(with(SHORT, &[given])).ready();
    let reaped = watching.wait_for(is("reaped", "a.tmp"));
    let path = |name: &str| absolute.join(name).to_str().unwrap().to_owned();
    assert_eq!(reaped["root"], absolute.to_str().unwrap());
    assert_eq!(reaped["path"], path("a.tmp"));
    assert_eq!(reaped["target"], path("a"));
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.one("ready")["roots"][0],
        absolute.to_str().unwrap()
    );
    assert_eq!(
        stopped.events.one("rescan")["root"],
        absolute.to_str().unwrap()
    );
}

// Linux only: APFS accepts no name that is not UTF-8.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_printed_exactly() {
    use crate::sandbox::{name_from_bytes, path_bytes};
    let sandbox = Sandbox::new();
    let (target, temp) = (name_from_bytes(b"caf\xe9"), name_from_bytes(b"caf\xe9.tmp"));
    sandbox.write(&target, "whole, to the last byte of it");
    sandbox.write(&temp, "x");
    let mut watching = sandbox.watch(SHORT).ready();
    let reaped = watching.wait_for(|event| event["event"] == "reaped");
    let exact = |field: &str| contract::decode_base64(reaped[field].as_str().unwrap());
    assert_eq!(exact("path_b64"), path_bytes(&sandbox.path(&temp)));
    assert_eq!(exact("target_b64"), path_bytes(&sandbox.path(&target)));
    assert!(
        reaped["path"]
            .as_str()
            .unwrap()
            .ends_with("/caf\u{fffd}.tmp")
    );
    assert!(reaped.get("root_b64").is_none(), "the root is text");
    watching.stop().exit(0);
    assert!(!sandbox.has(&temp));
}

/// The kernel's queue is limited. Events that do not fit are lost, and the loss is noticed.
// Linux only: other systems' queues have no length that a test can fill.
#[cfg(target_os = "linux")]
#[test]
fn lost_events_are_found_by_a_scan() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 100_000 {
        return eprintln!("skipped: {limit} events fit the kernel's queue here");
    }
    let sandbox = Sandbox::new()
        .file("old", "whole, to the last byte of it")
        .file("old.tmp", "x");
    let mut watching = sandbox.watch(with(SHORT, &["--existing", "leave"])).ready();
    watching.signal(libc::SIGSTOP);
    for n in 0..=limit {
        // Two events each. Each file has its own name, because the kernel merges equal events.
        let path = sandbox.path(format!("flood-{n}"));
        crate::sandbox::write(&path, "");
        fs::remove_file(&path).unwrap();
    }
    sandbox.write("lost.4194304.tmp", "");
    watching.signal(libc::SIGCONT);
    watching.wait_for(|event| event["event"] == "rescan" && event["cause"] == "overflow");
    watching.wait_for(is("reaped", "lost.4194304.tmp"));
    watching.wait_for_sentinel(&sandbox);
    assert!(sandbox.has("old.tmp"), "an ignored temp was removed");
    watching.stop().exit(0);
}

/// After its work it holds no additional memory and no additional descriptor.
#[test]
fn a_thousand_orphans_leave_no_trace() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(SHORT).ready();
    for n in 0..1000 {
        sandbox.write(format!("{n}.x.4194304.tmp"), "");
    }
    watching.wait_for_nth(1000, |event| event["event"] == "reaped");
    assert_eq!(watching.stop().exit(0).events.sums(), [1000, 0, 0, 0]);
    assert_eq!(sandbox.listing(), [""; 0]);
}

/// `sleep` ignores its stdout: this process holds a temp only by the inherited descriptor.
#[test]
fn a_process_that_inherited_the_file_is_a_holder() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let mut watching = sandbox.watch(SHORT).ready();
    let file = fs::File::create(sandbox.path("a.tmp")).unwrap();
    let child = Command::new("sleep")
        .arg("1000")
        .stdout(file)
        .start_child()
        .unwrap();
    let mut holder = KillOnDrop(child);
    let event = watching.wait_for(kept("a.tmp", "in-use"));
    // Another test may be starting a program that has this file open for a moment.
    let holders = event["holders"].as_array().unwrap();
    let is_it = |seen: &serde_json::Value| seen["pid"] == holder.0.id();
    assert!(holders.iter().any(is_it), "{event}");
    holder.0.kill().unwrap();
    watching.wait_for(is("reaped", "a.tmp"));
    watching.stop().exit(0);
}
