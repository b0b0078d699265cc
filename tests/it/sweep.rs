//! `orphand sweep`: one run over a root, and the files that remain.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use crate::fixture::report_skipped;
#[cfg(target_os = "linux")]
use crate::sandbox::BlockedOpens;
use crate::sandbox::{
    CommandResult, DEADLINE, Events, Sandbox, StartChild, WatchProcess, assert_held_by_us,
    in_parallel, kept, live_pid, signal,
};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

#[test]
fn older_temps_are_removed_and_younger_ones_kept() {
    let grace = Duration::from_secs(2);
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "old")
        .aged(grace);
    let stop = AtomicBool::new(false);
    // A thread keeps writing to it, so that it stays young however long this takes.
    let ran = thread::scope(|scope| {
        sandbox.write("young.tmp", "x");
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                sandbox.write("young.tmp", "y");
                thread::sleep(Duration::from_millis(5));
            }
        });
        let ran = sandbox.sweep(["--grace", "2s"]);
        stop.store(true, Ordering::SeqCst);
        ran.exit(0)
    });
    let events = ran.events();
    assert_eq!(events.names("reaped"), ["a.tmp"]);
    assert_eq!(events.about("young.tmp"), ["kept young"]);
    let young = events.one("kept");
    assert!(
        young["retry_ms"].is_null(),
        "a sweep does not look again: {young}"
    );
    assert_eq!(events.sums(), [1, 0, 1, 0]);
    assert_eq!(sandbox.listing(), ["a", "young.tmp"]);
}

/// A virus scanner delays the first open for longer than the grace, and the writer writes and closes the temp at the end
/// of that time. So the temp is young, although the look began long before.
#[cfg(target_os = "linux")]
#[test]
fn a_temp_that_is_written_during_a_look_is_young() {
    let grace = Duration::from_millis(500);
    let sandbox = Sandbox::new().file("a", "whole").file("a.tmp", "x");
    let temp = sandbox.path("a.tmp");
    let mut writer = fs::File::options().append(true).open(&temp).unwrap();
    let scanner = match BlockedOpens::new(&temp) {
        Ok(scanner) => scanner,
        Err(error) => return report_skipped(&format!("fanotify, which needs root: {error}")),
    };
    let args = ["sweep", "--yes", "--json", "--grace", "500ms", "root"];
    let sweeping = sandbox.command(args).start_child().unwrap();
    scanner.wait_for_open();
    thread::sleep(2 * grace);
    writer.write_all(b"y").unwrap();
    drop(writer);
    drop(scanner);
    let output = sweeping.wait_with_output().unwrap();
    let events = Events::of_lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(events.sums(), [0, 0, 1, 0]);
    assert_eq!(sandbox.content("a.tmp"), "xy");
}

/// A sweep does not wait for younger temps.
#[test]
fn a_long_grace_is_not_waited_for() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").file("b.tmp", "x");
    let events = sandbox.sweep(["--grace", "1d"]).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 2, 0]);
    assert_eq!(events.names("kept"), ["a.4194304.tmp", "b.tmp"]);
    // The default graces too: five minutes, or an hour for a fixed name.
    let events = sandbox.sweep([""; 0]).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 2, 0]);
}

/// The incident that orphand was made for, with its numbers.
#[test]
fn eight_thousand_orphans_beside_a_healthy_file() {
    const ORPHANS: usize = 8_662;
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("sessions.json", "{\"healthy\": true}");
        for n in 0..ORPHANS {
            sandbox.write(
                format!("sessions.json.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp"),
                "{\"heal",
            );
        }
        sandbox.age(OLD_ENOUGH);
        let start = Instant::now();
        let ran = sandbox.sweep(SHORT).exit(0);
        let took = start.elapsed();
        println!(
            "{ORPHANS} orphans removed in {took:?}, at most {} MB",
            ran.peak >> 20
        );
        let events = ran.events();
        assert_eq!(events.sums(), [ORPHANS as u64, 0, 0, 0]);
        assert_eq!(events.summary()["bytes"], 6 * ORPHANS);
        assert_eq!(sandbox.listing(), ["sessions.json"]);
        assert_eq!(sandbox.content("sessions.json"), "{\"healthy\": true}");
        assert!(ran.peak <= 96 << 20, "{} bytes of memory", ran.peak);
    });
}

fn temps_of_every_kind() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("whole", "whole, to the last byte of it")
        .file("whole.tmp", "x")
        .file("sole.tmp", "x")
        .file("empty.4194304.tmp", "")
        .file("linked.tmp", "x")
        .file(format!("whole.{}.1.tmp", live_pid()), "x")
        .file("held.tmp", "x")
        .file("sub/deep/whole", "whole, to the last byte of it")
        .file("sub/deep/whole.tmp", "xyz");
    fs::hard_link(sandbox.path("linked.tmp"), sandbox.path("another name")).unwrap();
    sandbox
}

#[test]
fn a_dry_run_and_a_run_give_the_same_list() {
    for options in [
        &[][..],
        &["-r"],
        &["--sole-copy", "keep"],
        &["--sole-copy", "reap", "-r"],
        &["--action", "quarantine"],
        &["--open", "quarantine"],
    ] {
        // `--action` replaces the dry run, so the kinds of the events differ.
        let same_words = !options.contains(&"--action");
        let sandbox = temps_of_every_kind().aged(OLD_ENOUGH);
        let _held = fs::File::open(sandbox.path("held.tmp")).unwrap();
        let list = |ran: crate::sandbox::CommandResult| {
            let events = ran.exit(0).events();
            let mut list: Vec<_> = events
                .0
                .iter()
                .filter(|event| event["path"].is_string())
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
                    let skip = usize::from(!same_words);
                    fields[skip..]
                        .iter()
                        .map(|f| event[*f].to_string())
                        .collect::<Vec<_>>()
                })
                .collect();
            list.sort();
            (list, events.sums()[2..].to_vec())
        };
        let before = sandbox.snapshot();
        let dry = sandbox
            .sweep(SHORT.iter().chain(options).chain(&["-n"]))
            .events();
        assert!(
            dry.of("reaped")
                .iter()
                .chain(&dry.of("quarantined"))
                .all(|e| e["dry_run"] == true)
        );
        assert_eq!(
            sandbox.snapshot(),
            before,
            "{options:?}: a dry run changes nothing"
        );
        let dry = list(sandbox.sweep(SHORT.iter().chain(options).chain(&["-n"])));
        let wet = list(sandbox.sweep(SHORT.iter().chain(options)));
        assert_eq!(dry, wet, "{options:?}");
    }
}

#[test]
fn kept_temps_have_their_reasons() {
    let sandbox = temps_of_every_kind().aged(OLD_ENOUGH);
    let _held = fs::File::open(sandbox.path("held.tmp")).unwrap();
    let ran = sandbox.sweep(SHORT).exit(0);
    let events = ran.events();
    let alive = format!("whole.{}.1.tmp", live_pid());
    for (temp, result) in [
        ("whole.tmp", "reaped"),
        ("empty.4194304.tmp", "reaped"),
        ("sole.tmp", "quarantined"),
        ("linked.tmp", "kept hard-linked"),
        ("held.tmp", "kept in-use"),
        (&alive, "kept writer-alive"),
    ] {
        assert_eq!(events.about(temp), [result], "{temp}");
    }
    assert_eq!(events.sums(), [2, 1, 3, 0]);
    assert_eq!(
        events.summary()["bytes"],
        1,
        "quarantined bytes do not count as freed"
    );
    assert!(
        sandbox.has("sub/deep/whole.tmp"),
        "a temp below the root was removed"
    );
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
}

/// A temp with two links, the other of which is the target itself: linked, then killed before the unlink.
#[test]
fn a_hard_link_of_its_target_is_removed() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    fs::hard_link(sandbox.path("a"), sandbox.path("a.tmp")).unwrap();
    let sandbox = sandbox.aged(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about("a.tmp"), ["reaped"]);
    assert_eq!(events.one("reaped")["bytes"], 29, "st_size");
    assert_eq!(events.summary()["bytes"], 0, "no space was freed");
    assert_eq!(sandbox.content("a"), "whole, to the last byte of it");
    assert_eq!(sandbox.listing(), ["a"]);
}

/// A crash between claim and unlink leaves a file under the name of a claim.
#[test]
fn a_sweep_recovers_claims_after_a_crash() {
    const FREE: &str = ".orphand-0123456789abcdef-free.tmp";
    const TAKEN: &str = ".orphand-0123456789abcdef-taken.tmp";
    const HELD: &str = ".orphand-fedcba9876543210-held.tmp";
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("free", "whole, to the last byte of it")
            .file("taken", "whole, to the last byte of it")
            .file(FREE, "free")
            .file(TAKEN, "claimed")
            .file("taken.tmp", "another's")
            .file(HELD, "held")
            .file(".orphand-nonsense.tmp", "whatever")
            .aged(OLD_ENOUGH);
        let held = fs::File::open(sandbox.path(HELD)).unwrap();
        let before = sandbox.snapshot();
        sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0);
        assert_eq!(sandbox.snapshot(), before, "a dry run changed something");

        // First a grace that none of them has reached, later one that they have.
        sandbox.sweep(["--grace", "1d"]).exit(0);
        assert_eq!(
            sandbox.content("free.tmp"),
            "free",
            "the claim did not get its name back"
        );
        assert_eq!(
            sandbox.content("taken.tmp"),
            "another's",
            "nothing is overwritten"
        );
        assert!(!sandbox.has(FREE) && !sandbox.has(TAKEN));
        assert_eq!(sandbox.content(HELD), "held", "a held claim was touched");
        assert!(sandbox.has(".orphand-nonsense.tmp"), "it is not a claim");
        let stored = sandbox
            .run(["quarantine", "list", "--json", "root"])
            .exit(0);
        let stored: serde_json::Value = serde_json::from_str(stored.stdout.trim()).unwrap();
        let id = stored["id"].as_str().unwrap();
        assert_eq!(
            stored["path"],
            sandbox.path("taken.tmp").to_str().unwrap(),
            "the original path"
        );
        assert_eq!(
            sandbox.content(format!(".orphand/{id}/taken.tmp")),
            "claimed"
        );

        drop(held);
        // Long enough that, even on a slow machine, it does not pass between the put-back and the second
        // look, which comes half a grace later.
        const GRACE: Duration = Duration::from_secs(2);
        sandbox.age(GRACE);
        sandbox.sweep(["--grace", "2s"]).exit(0);
        assert!(!sandbox.has("free.tmp") && !sandbox.has("taken.tmp"));
        assert_eq!(
            sandbox.content("held.tmp"),
            "held",
            "its grace starts again after the put-back"
        );
    });
}

/// The watcher recovers claims too.
#[test]
fn a_watcher_recovers_claims_after_a_crash() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file(".orphand-0123456789abcdef-a.tmp", "x")
        .file("sub/.orphand-0123456789abcdef-b.tmp", "precious");
    let mut watching = sandbox.watch(["--grace", "200ms", "-r"]).ready();
    watching.wait_for(crate::sandbox::is("reaped", "a.tmp"));
    watching.wait_for(crate::sandbox::is("quarantined", "b.tmp"));
    watching.stop().exit(0);
}

#[test]
fn a_directory_that_may_not_be_read_is_exit_3() {
    let sandbox = Sandbox::ordinary()
        .file("a.4194304.tmp", "")
        .file("shut/b.4194304.tmp", "")
        .file("open/c.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    let shut = sandbox.path("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o0)).unwrap();
    let dry = sandbox
        .sweep(SHORT.iter().chain(&["-r", "-n"]))
        .exit(3)
        .events();
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(3).events();
    let scan = sandbox.scan(SHORT.iter().chain(&["-r"])).exit(3);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    let failed = events.one("failed");
    assert_eq!(failed["path"], shut.to_str().unwrap());
    assert_eq!(failed["errno"], libc::EACCES);
    assert_eq!(
        events.names("reaped"),
        ["a.4194304.tmp", "c.4194304.tmp"],
        "the other temps were not removed"
    );
    assert_eq!(events.sums(), [2, 0, 0, 1]);
    assert_eq!(dry.sums(), events.sums());
    assert_eq!(scan.stdout_json()["temps"].as_array().unwrap().len(), 0);
    scan.stderr_has(shut.to_str().unwrap());
    assert!(sandbox.has("shut/b.4194304.tmp"));
}

/// A directory with read permission, but no write permission.
#[test]
fn a_directory_that_may_not_be_changed_is_exit_3() {
    let sandbox = Sandbox::ordinary()
        .file("ro/a.4194304.tmp", "")
        .file("b.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    let shut = sandbox.path("ro");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o500)).unwrap();
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(3).events();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(events.about("a.4194304.tmp"), ["failed"]);
    assert_eq!(events.about("b.4194304.tmp"), ["reaped"]);
    assert_eq!(events.sums(), [1, 0, 0, 1]);
    assert!(sandbox.has("ro/a.4194304.tmp"));
}

/// Not even its owner may read the file, so nothing can prove that it is unused.
#[test]
fn an_unreadable_file_is_kept() {
    let sandbox = Sandbox::ordinary()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(OLD_ENOUGH);
    fs::set_permissions(sandbox.path("a.tmp"), fs::Permissions::from_mode(0o0)).unwrap();
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(3).events();
    assert_eq!(events.about("a.tmp"), ["kept cannot-tell"]);
    assert!(sandbox.has("a.tmp"));
}

#[test]
fn several_roots_end_in_one_summary() {
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("../other/b.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    sandbox.age(OLD_ENOUGH);
    let events = sandbox
        .run([
            "sweep", "--yes", "--json", "--grace", "100ms", "root", "other", "root/.",
        ])
        .exit(0)
        .events();
    assert_eq!(events.names("reaped"), ["a.4194304.tmp", "b.4194304.tmp"]);
    assert_eq!(events.sums(), [2, 0, 0, 0]);
}

/// A directory in another one that is given too is searched once, by its own path.
#[test]
fn directories_in_each_other_report_each_temp_once() {
    let sandbox = Sandbox::new().dir("inner/deep").dir("other");
    let orphans = ["a", "inner/b", "inner/deep/c", "other/d"];
    for orphan in orphans {
        sandbox.write(format!("{orphan}.4194304.tmp"), "");
        sandbox.write(format!("{orphan}.b.tmp"), "");
    }
    sandbox.write("inner/a.sqlite-x.tmp", "");
    sandbox.age(Duration::from_millis(150));
    std::os::unix::fs::symlink("root", sandbox.base().join("link")).unwrap();
    let dirs = ["root/inner", "root", "link/inner/deep", "root/inner/"];
    let args = |options: &[&'static str]| [options, &["-r", "--grace", "100ms"], &dirs].concat();
    let root_of = |event: &serde_json::Value| event["root"].as_str().unwrap().to_owned();
    let base = sandbox.base().to_str().unwrap().to_owned();

    let document = sandbox.run(args(&["scan", "--json"])).exit(0).stdout_json();
    let counts = ["temps", "orphans"].map(|key| document["total"][key].as_u64().unwrap());
    assert_eq!(counts, [9, 8], "{document:#}");
    assert_eq!(document["temps"].as_array().unwrap().len(), 9);
    assert_eq!(document["census"]["kept"], 1);
    let want = ["root/inner", "root", "link/inner/deep"].map(|dir| format!("{base}/{dir}"));
    assert_eq!(document["roots"], serde_json::json!(want));

    for options in [
        &["sweep", "--json", "-n"][..],
        &["sweep", "--json", "--yes"],
    ] {
        let events = sandbox.run(args(options)).exit(0).events();
        let mut names = [events.names("reaped"), events.names("quarantined")].concat();
        names.sort_unstable();
        let want = ["a", "b", "c", "d"]
            .map(|name| [".4194304.tmp", ".b.tmp"].map(|end| format!("{name}{end}")));
        assert_eq!(names, want.concat(), "{options:?}");
        assert_eq!(events.names("kept"), ["a.sqlite-x.tmp"], "{options:?}");
        assert_eq!(events.summary()["kept"], 1, "{options:?}");
        for (name, root) in [
            ("a", "root"),
            ("b", "root/inner"),
            ("c", "link/inner/deep"),
            ("d", "root"),
        ] {
            let reaped = events
                .of("reaped")
                .into_iter()
                .find(|event| crate::sandbox::name(event) == format!("{name}.4194304.tmp"));
            assert_eq!(root_of(reaped.unwrap()), format!("{base}/{root}"), "{name}");
        }
    }
    // Without -r they do not contain each other.
    for file in ["a", "inner/b", "inner/deep/c"] {
        sandbox.write(format!("{file}.4194304.tmp"), "");
    }
    let flat = ["scan", "--json", "root", "root/inner"];
    let document = sandbox.run(flat).exit(0).stdout_json();
    assert_eq!(document["total"]["temps"], 3, "{document:#}");
    // Every one of them must exist, and none may be a symlink.
    for (dir, code) in [("root/inner/missing", 1), ("link", 2)] {
        sandbox.run(["scan", "-r", "root", dir]).exit(code);
        sandbox.run(["sweep", "-n", "-r", "root", dir]).exit(code);
    }
}

/// `.orphand` exists only while it holds a file.
#[test]
fn an_empty_quarantine_is_removed() {
    let sandbox = Sandbox::new()
        .dir(".orphand")
        .file("a.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    fs::set_permissions(sandbox.path(".orphand"), fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(sandbox.listing(), [""; 0]);
}

/// A quarantine that other users may read, or that is not a directory, is not used.
#[test]
fn an_unsuitable_quarantine_is_not_used() {
    for make in [
        |path: &std::path::Path| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        },
        |path: &std::path::Path| fs::write(path, "a file").unwrap(),
        |path: &std::path::Path| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
    ] {
        let sandbox = Sandbox::new()
            .file("sole.tmp", "precious")
            .file("b.4194304.tmp", "")
            .aged(OLD_ENOUGH);
        make(&sandbox.path(".orphand"));
        for dry_run in [&["-n"][..], &[]] {
            let events = sandbox.sweep(SHORT.iter().chain(dry_run)).exit(0).events();
            assert_eq!(
                events.about("sole.tmp"),
                ["kept no-quarantine"],
                "{dry_run:?}"
            );
            assert_eq!(events.about("b.4194304.tmp"), ["reaped"]);
        }
        assert_eq!(sandbox.content("sole.tmp"), "precious");
        assert!(
            sandbox.has(".orphand"),
            "an unsuitable quarantine was removed"
        );
    }
}

/// All files that orphand writes for itself may fail: the failure is reported, and stops nothing.
#[test]
fn an_unwritable_state_folder_stops_nothing() {
    let sandbox = Sandbox::ordinary()
        .file("a.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    for folder in ["state", "runtime", "home"] {
        let folder = sandbox.base().join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let ran = sandbox.sweep(SHORT).exit(0);
    assert_eq!(ran.events().sums(), [1, 0, 0, 0]);
    assert!(
        ran.stderr.contains("journal"),
        "the failure is not reported: {}",
        ran.stderr
    );
    for folder in ["state", "runtime", "home"] {
        let folder = sandbox.base().join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A locked temp is kept, and the reason is the lock.
// Linux only: the proofs of other systems do not distinguish a lock from other holders.
#[cfg(target_os = "linux")]
#[test]
fn a_locked_temp_is_kept_as_locked() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(OLD_ENOUGH);
    let file = fs::File::open(sandbox.path("a.tmp")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert!(events.0.iter().any(kept("a.tmp", "locked")), "{events:?}");
    assert_held_by_us(&events.one("kept")["holders"]);
    assert!(sandbox.has("a.tmp"));
}

/// A root that may not be opened is reported with exit code 3, and the next one is swept. A missing root is
/// exit code 1.
#[test]
fn a_root_that_may_not_be_opened_is_exit_3() {
    let sandbox = Sandbox::ordinary()
        .file("shut/a.4194304.tmp", "")
        .file("way/in/b.4194304.tmp", "")
        .file("open/c.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(sandbox.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (shut, closed) in [("root/shut", "shut"), ("root/way/in", "way")] {
        sandbox.write("open/c.4194304.tmp", "");
        sandbox.age(OLD_ENOUGH);
        mode(closed, 0o000);
        let sweep = ["sweep", "--yes", "--json", "--grace", "100ms"];
        let ran = sandbox.run(sweep.into_iter().chain([shut, "root/open"]));
        let events = ran.exit(3).events();
        assert_eq!(events.sums(), [1, 0, 0, 1], "{shut}");
        assert_eq!(events.names("reaped"), ["c.4194304.tmp"], "{shut}");
        let failed = events.one("failed");
        assert_eq!(failed["errno"], libc::EACCES, "{failed}");
        assert_eq!(failed["path"], failed["root"], "{failed}");
        let scan = ["scan", "--json", shut, "root/open"];
        let ran = sandbox.run(scan).exit(3).stderr_has("cannot read");
        assert_eq!(ran.stdout_json()["total"]["temps"], 0, "{shut}");
        mode(closed, 0o700);
    }
    let missing = ["sweep", "--yes", "--json", "root/nowhere"];
    sandbox.run(missing).exit(1).prints_nothing();
    assert_eq!(sandbox.listing(), ["open", "shut", "way"]);
    assert!(sandbox.has("shut/a.4194304.tmp") && sandbox.has("way/in/b.4194304.tmp"));
}

/// Two names of one file, both of them temps, and one the target of the other: the look at the first does not
/// make the second one look held.
#[test]
fn two_temps_of_one_inode_do_not_hold_each_other() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "one");
    fs::hard_link(sandbox.path("a.tmp"), sandbox.path("a.tmp.tmp")).unwrap();
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    // Kept because of its name: it may be the target of the other one.
    assert_eq!(events.about("a.tmp"), ["kept reserved"]);
    assert_eq!(events.names("reaped"), ["a.tmp.tmp"]);
    assert_eq!(sandbox.listing(), ["a", "a.tmp"]);
}

/// Creates many orphans on the fastest file system.
fn many_orphans(count: usize) -> Sandbox {
    let sandbox = Sandbox::in_memory().file("a", "whole");
    for n in 0..count {
        sandbox.write(format!("a.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp"), "x");
    }
    sandbox.aged(OLD_ENOUGH)
}

/// Returns the names of the claims in the root, and the number of temps in it.
fn claims_and_temps(sandbox: &Sandbox) -> (Vec<String>, usize) {
    let names = sandbox.listing();
    let claims = names.iter().filter(|name| name.starts_with(".orphand-"));
    let temps = names.iter().filter(|name| name.starts_with("a."));
    (claims.cloned().collect(), temps.count())
}

/// Waits until the process has installed its handler for this signal.
#[cfg(target_os = "linux")]
fn wait_until_it_handles(pid: u32, number: i32) {
    crate::fixture::wait_until("it has a handler", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
        caught & 1 << (number - 1) != 0
    });
}

const ENDING: [(i32, i32); 3] = [
    (libc::SIGINT, 130),
    (libc::SIGTERM, 143),
    (libc::SIGHUP, 129),
];

/// The current batch is finished or put back, the summary is the last line, and the exit code names the
/// signal.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_sweep_cleanly() {
    // More than the removals below, those whose lines fit into the pipe, and the batches in progress.
    const ORPHANS: usize = 4_000;
    // After 0: while it starts, scans or waits; otherwise after so many removals.
    for after in [0, 1, 300] {
        in_parallel(ENDING, |(number, code)| {
            let sandbox = many_orphans(ORPHANS);
            let args = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
            let mut command = sandbox.command(args);
            let mut sweeping = command.stderr(Stdio::null()).start_child().unwrap();
            // Until the signal it is read line by line, so the pipe limits how far the sweep is ahead.
            let mut output = BufReader::new(sweeping.stdout.take().unwrap());
            let mut lines = String::new();
            while lines.matches("\"event\":\"reaped\"").count() < after {
                assert!(output.read_line(&mut lines).unwrap() > 0, "{lines}");
            }
            if after == 0 {
                wait_until_it_handles(sweeping.id(), number);
            }
            signal(sweeping.id(), number);
            output.read_to_string(&mut lines).unwrap();
            assert_eq!(sweeping.wait().unwrap().code(), Some(code));
            let [reaped, moved, kept, failed] = Events::of_lines(&lines).sums();
            let (claims, left) = claims_and_temps(&sandbox);
            assert_eq!(claims, [""; 0], "signal {number} after {after}");
            assert_eq!(
                [moved, kept, failed],
                [0; 3],
                "signal {number} after {after}"
            );
            assert_eq!(
                reaped as usize + left,
                ORPHANS,
                "signal {number} after {after}"
            );
            assert!(reaped as usize >= after && left > 0, "{left} are left");
            sandbox.sweep(SHORT).exit(0);
            assert_eq!(sandbox.listing(), ["a"], "the next sweep removes the rest");
        });
    }
}

/// The second signal does not wait for the reader of the output. No claim is left either, unless the batches in progress
/// take longer than a second.
#[cfg(target_os = "linux")]
#[test]
fn a_second_signal_ends_a_sweep_at_once() {
    const ORPHANS: usize = 3_000;
    for (number, code) in ENDING {
        let sandbox = many_orphans(ORPHANS);
        let args = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
        // Its output is not read, so it soon blocks on the pipe.
        let mut child = sandbox
            .command(args)
            .stderr(Stdio::null())
            .start_child()
            .unwrap();
        crate::fixture::wait_until("it removes", || claims_and_temps(&sandbox).1 < ORPHANS);
        let sent = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(sent.elapsed() < DEADLINE, "it does not end");
            signal(child.id(), number);
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(status.code(), Some(code), "{status}");
        let (claims, left) = claims_and_temps(&sandbox);
        let is_slow = sent.elapsed() >= Duration::from_secs(1);
        assert!(claims.is_empty() || is_slow, "signal {number}: {claims:?}");
        assert!(left > 0, "it did not block on its output");
    }
}

/// A signal also ends the question on a terminal, and nothing is removed.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_the_question_of_a_sweep() {
    for (number, code) in ENDING {
        let sandbox = Sandbox::new().file("a.tmp", "").aged(OLD_ENOUGH);
        let (_ours, theirs) = crate::sandbox::terminal();
        let mut command = sandbox.command(["sweep", "--grace", "100ms", "root"]);
        command.stdin(theirs);
        let mut child = command.start_child().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let mut stderr_text = Vec::new();
        while !String::from_utf8_lossy(&stderr_text).contains("[y/N]") {
            let mut some = [0; 256];
            let length = stderr.read(&mut some).unwrap();
            assert!(length > 0, "it does not ask: {stderr_text:?}");
            stderr_text.extend_from_slice(&some[..length]);
        }
        signal(child.id(), number);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{:?}", ended.status);
        let out = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(out, "0 removed (0 B freed) · 0 kept\n");
        let mut stderr_text = String::new();
        stderr.read_to_string(&mut stderr_text).unwrap();
        assert!(stderr_text.contains("stopped by SIG"), "{stderr_text}");
        assert!(sandbox.has("a.tmp"));
    }
}

/// Under nohup a SIGHUP has no effect.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_under_nohup_continues() {
    const ORPHANS: usize = 1_000;
    let sandbox = many_orphans(ORPHANS);
    let mut command = sandbox.program("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(sandbox.binary())
        .args(["sweep", "--yes", "--json", "--grace", "100ms", "root"]);
    let mut sweeping = WatchProcess::start(command);
    sweeping.wait_for(|event| event["event"] == "reaped");
    sweeping.signal(libc::SIGHUP);
    let ended = sweeping.end().exit(0);
    assert_eq!(ended.events.sums(), [ORPHANS as u64, 0, 0, 0]);
}

/// Runs orphand with a stdout that is a closed pipe.
fn run_with_closed_stdout(sandbox: &Sandbox, args: &[&str]) -> CommandResult {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(args);
    command.stdout(writer);
    sandbox.finish(command)
}

/// A closed pipe ends only the output, without a message.
#[test]
fn a_sweep_continues_after_its_pipe_is_closed() {
    for options in [&["--json"][..], &[], &["-v"], &["-q"]] {
        let sandbox = many_orphans(600);
        let args = ["sweep", "--yes", "--grace", "100ms", "root"];
        let ran = run_with_closed_stdout(&sandbox, &[&args, options].concat()).exit(0);
        assert_eq!(sandbox.listing(), ["a"], "{options:?}");
        assert_eq!(ran.stderr, "", "{options:?}");
    }
    // The reader ends in the middle, as head(1) does.
    let sandbox = many_orphans(2_000);
    let mut child = sandbox
        .command(["sweep", "--yes", "--json", "--grace", "100ms", "root"])
        .start_child()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.status);
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(sandbox.listing(), ["a"]);
}

/// Any other write error makes only the output fail.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_continues_when_its_output_cannot_be_written() {
    let sandbox = many_orphans(600);
    let mut command = sandbox.command(["sweep", "--yes", "--json", "--grace", "100ms", "root"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    sandbox
        .finish(command)
        .exit(1)
        .stderr_has("cannot write the output");
    assert_eq!(sandbox.listing(), ["a"]);
}

/// The claims of a killed orphand are counted, with the command that recovers them.
#[test]
fn claims_that_a_killed_orphand_left_are_counted() {
    let sandbox = Sandbox::new()
        .file("a", "whole")
        .file("a.tmp", "x")
        .file(".orphand-0123456789abcdef-b.tmp", "12")
        .file("below/.orphand-0123456789abcdef-c.tmp", "345")
        .file(".orphand-nonsense", "no claim");
    for (options, claims, bytes) in [(&[][..], 1, 2), (&["-r"], 2, 5)] {
        let document = sandbox.scan(options).exit(0).stdout_json();
        assert_eq!(document["claims"]["count"], claims, "{document}");
        assert_eq!(document["claims"]["bytes"], bytes, "{document}");
        let temps = &document["total"]["temps"];
        assert_eq!(*temps, 1, "a claim counts as a temp: {document}");
        let root = sandbox.root();
        let ran = sandbox.run(["scan"].iter().chain(options).chain(&["root"]));
        let deep = if claims == 2 { "-r " } else { "" };
        ran.stdout_has(&format!("orphand sweep {deep}{}", root.display()));
    }
    let claims_check = |sandbox: &Sandbox| {
        let ran = sandbox.run(["doctor", "--json", "root"]);
        let claims_check = ran.stdout_json()["checks"].as_array().unwrap().clone();
        let claims = claims_check
            .into_iter()
            .find(|check| check.to_string().contains("\"claims\""));
        claims.unwrap()
    };
    let warned = claims_check(&sandbox);
    assert_eq!(warned["state"], "warning", "{warned}");
    assert!(warned.to_string().contains("orphand sweep "), "{warned}");
    sandbox.sweep(["-r", "--grace", "1d"]).exit(0);
    let document = sandbox.scan(["-r"]).exit(0).stdout_json();
    assert_eq!(document["claims"]["count"], 0);
    assert_eq!(document["total"]["temps"], 3);
    assert_eq!(claims_check(&sandbox)["state"], "ok");
}

/// A kill in the middle of a batch leaves claims, which the next sweep recovers.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_recovers_the_claims_of_a_killed_one() {
    const ORPHANS: usize = 4_000;
    let sandbox = many_orphans(ORPHANS);
    let args = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
    let mut sweeping = WatchProcess::start(sandbox.command(args));
    sweeping.wait_for(|event| event["event"] == "reaped");
    let mut claims = Vec::new();
    crate::fixture::wait_until("it is in the middle of a batch", || {
        sweeping.signal(libc::SIGSTOP);
        claims = claims_and_temps(&sandbox).0;
        if claims.is_empty() {
            sweeping.signal(libc::SIGCONT);
        }
        !claims.is_empty()
    });
    sweeping.signal(libc::SIGKILL);
    drop(sweeping);
    let scan = sandbox.scan([""; 0]).exit(0).stdout_json();
    assert_eq!(scan["claims"]["count"], claims.len());
    sandbox.sweep(["--grace", "1d"]).exit(0);
    assert_eq!(claims_and_temps(&sandbox).0, [""; 0]);
    let scan = sandbox.scan([""; 0]).exit(0).stdout_json();
    assert_eq!(scan["claims"]["count"], 0);
}

/// A claim whose original name the rule does not match stays, and the output says so.
#[test]
fn a_claim_of_another_rule_is_reported() {
    const CLAIM: &str = ".orphand-00000000000000aa-a.new";
    let sandbox = Sandbox::new().file(CLAIM, "x");
    sandbox
        .sweep(SHORT)
        .exit(0)
        .stderr_has("the rule does not match that name");
    assert_eq!(sandbox.listing(), [CLAIM]);
    sandbox.sweep(["--name", "*.new", "--grace", "1d"]).exit(0);
    assert_eq!(sandbox.listing(), ["a.new"]);
}

/// A dry run says what its run would do, also if the action is to move all orphans.
#[test]
fn a_dry_run_of_a_move_reports_a_move() {
    let sandbox = Sandbox::new()
        .file("a", "whole and long")
        .file("a.tmp", "half");
    let sandbox = sandbox.aged(OLD_ENOUGH);
    let of = |args: &[&str]| {
        let args = ["--grace", "100ms"].iter().chain(args);
        let events = sandbox.sweep(args).exit(0).events();
        (events.about("a.tmp"), events.sums())
    };
    for args in [
        &["-n", "--action", "quarantine"][..],
        &["--action", "quarantine", "-n"],
    ] {
        assert_eq!(of(args), (vec!["quarantined".to_owned()], [0, 1, 0, 0]));
        assert_eq!(sandbox.listing(), ["a", "a.tmp"]);
    }
    for args in [
        &["-n"][..],
        &["--action", "report"],
        &["-n", "--action", "report"],
    ] {
        assert_eq!(of(args), (vec!["reaped".to_owned()], [1, 0, 0, 0]));
        assert_eq!(sandbox.listing(), ["a", "a.tmp"]);
    }
    assert_eq!(of(&["--action", "quarantine"]).1, [0, 1, 0, 0]);
    assert_eq!(sandbox.listing(), [".orphand", "a"]);
}

/// An empty file has no data, but its extended attributes may.
#[cfg(target_os = "linux")]
#[test]
fn an_empty_temp_with_attributes_is_moved() {
    let flags = rustix::fs::XattrFlags::empty();
    for (attribute, want) in [
        ("user.DosStream.notes:$DATA", "quarantined"),
        ("user.orphand.test", "reaped"),
    ] {
        let temp = "a.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp";
        let sandbox = Sandbox::new().file(temp, "");
        rustix::fs::setxattr(sandbox.path(temp), attribute, b"data", flags).unwrap();
        let sandbox = sandbox.aged(OLD_ENOUGH);
        let events = sandbox.sweep(["--grace", "100ms"]).exit(0).events();
        assert_eq!(events.about(temp), [want], "{attribute}");
    }
}
