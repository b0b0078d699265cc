//! `orphand sweep`: one pass, and what is left after it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sandbox::{Sandbox, kept};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD: Duration = Duration::from_millis(150);

#[test]
fn what_is_older_goes_and_what_is_younger_stays() {
    let grace = Duration::from_secs(2);
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "old")
        .aged(grace);
    let stop = AtomicBool::new(false);
    // Somebody goes on touching it, so that it is young however long this takes.
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
    assert!(young["retry_ms"].is_null(), "nobody looks again: {young}");
    assert_eq!(events.sums(), [1, 0, 1, 0]);
    assert_eq!(sandbox.listing(), ["a", "young.tmp"]);
}

/// It does not wait for what is younger.
#[test]
fn a_long_grace_is_not_waited_for() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").file("b.tmp", "x");
    let events = sandbox.sweep(["--grace", "1d"]).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 2, 0]);
    assert_eq!(events.names("kept"), ["a.4194304.tmp", "b.tmp"]);
    // By default as well: five minutes, or an hour for a fixed name.
    let events = sandbox.sweep([""; 0]).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 2, 0]);
}

/// The origin's case, by its numbers.
#[test]
fn eight_thousand_orphans_beside_a_healthy_file() {
    const ORPHANS: usize = 8_662;
    Sandbox::each(|sandbox| {
        let sandbox = sandbox.file("sessions.json", "{\"healthy\": true}");
        for n in 0..ORPHANS {
            sandbox.write(
                format!("sessions.json.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp"),
                "{\"heal",
            );
        }
        sandbox.age(OLD);
        let start = Instant::now();
        let ran = sandbox.sweep(SHORT).exit(0);
        let took = start.elapsed();
        println!(
            "{ORPHANS} orphans are gone after {took:?}, {} MB at most",
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

fn a_bit_of_everything() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("whole", "whole, to the last byte of it")
        .file("whole.tmp", "x")
        .file("sole.tmp", "x")
        .file("empty.4194304.tmp", "")
        .file("linked.tmp", "x")
        .file(format!("whole.{}.1.tmp", std::process::id()), "x")
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
        // A dry run cannot be told to quarantine: by --action there is one or the other.
        let same_words = !options.contains(&"--action");
        let sandbox = a_bit_of_everything().aged(OLD);
        let _held = fs::File::open(sandbox.path("held.tmp")).unwrap();
        let list = |ran: crate::sandbox::Ran| {
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
fn what_is_kept_and_why() {
    let sandbox = a_bit_of_everything().aged(OLD);
    let _held = fs::File::open(sandbox.path("held.tmp")).unwrap();
    let ran = sandbox.sweep(SHORT).exit(0);
    let events = ran.events();
    let alive = format!("whole.{}.1.tmp", std::process::id());
    for (temp, said) in [
        ("whole.tmp", "reaped"),
        ("empty.tmp", "reaped"),
        ("sole.tmp", "quarantined"),
        ("linked.tmp", "kept hard-linked"),
        ("held.tmp", "kept in-use"),
        (&alive, "kept writer-alive"),
    ] {
        assert_eq!(events.about(temp), [said], "{temp}");
    }
    assert_eq!(events.sums(), [2, 1, 3, 0]);
    assert_eq!(
        events.summary()["bytes"],
        1,
        "what is in quarantine is not free"
    );
    assert!(sandbox.has("sub/deep/whole.tmp"), "not below it");
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
}

/// Two names, and the other one is the target itself: linked, then killed before the unlink.
#[test]
fn a_second_name_of_its_own_target() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    fs::hard_link(sandbox.path("a"), sandbox.path("a.tmp")).unwrap();
    let sandbox = sandbox.aged(OLD);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about("a.tmp"), ["reaped"]);
    assert_eq!(events.one("reaped")["bytes"], 30, "st_size");
    assert_eq!(events.summary()["bytes"], 0, "nothing came free");
    assert_eq!(sandbox.content("a"), "whole, to the last byte of it");
    assert_eq!(sandbox.listing(), ["a"]);
}

/// A crash between claim and unlink leaves a file under a name of ours.
#[test]
fn claims_that_a_crash_left_are_put_in_order() {
    const FREE: &str = ".orphand-0123456789abcdef-free.tmp";
    const TAKEN: &str = ".orphand-0123456789abcdef-taken.tmp";
    const HELD: &str = ".orphand-fedcba9876543210-held.tmp";
    Sandbox::each(|sandbox| {
        let sandbox = sandbox
            .file("free", "whole, to the last byte of it")
            .file("taken", "whole, to the last byte of it")
            .file(FREE, "free")
            .file(TAKEN, "claimed")
            .file("taken.tmp", "another's")
            .file(HELD, "held")
            .file(".orphand-nonsense.tmp", "whatever")
            .aged(OLD);
        let held = fs::File::open(sandbox.path(HELD)).unwrap();
        let before = sandbox.snapshot();
        sandbox.sweep(SHORT.iter().chain(&["-n"])).exit(0);
        assert_eq!(sandbox.snapshot(), before, "not by a dry run");

        // A grace that none of them has reached, and then one that they have.
        sandbox.sweep(["--grace", "1d"]).exit(0);
        assert_eq!(sandbox.content("free.tmp"), "free", "it has its name back");
        assert_eq!(
            sandbox.content("taken.tmp"),
            "another's",
            "nothing is overwritten"
        );
        assert!(!sandbox.has(FREE) && !sandbox.has(TAKEN));
        assert_eq!(sandbox.content(HELD), "held", "it may be in work");
        assert!(sandbox.has(".orphand-nonsense.tmp"), "no claim of ours");
        let stored = sandbox
            .run(["quarantine", "list", "--json", "root"])
            .exit(0);
        let stored: serde_json::Value = serde_json::from_str(stored.stdout.trim()).unwrap();
        let id = stored["id"].as_str().unwrap();
        assert_eq!(
            stored["path"],
            sandbox.path("taken.tmp").to_str().unwrap(),
            "where it came from"
        );
        assert_eq!(
            sandbox.content(format!(".orphand/{id}/taken.tmp")),
            "claimed"
        );

        drop(held);
        // Long enough that none of it passes between putting back and the second look, half of it
        // later, on a slow machine either.
        const GRACE: Duration = Duration::from_secs(2);
        sandbox.age(GRACE);
        sandbox.sweep(["--grace", "2s"]).exit(0);
        assert!(!sandbox.has("free.tmp") && !sandbox.has("taken.tmp"));
        assert_eq!(
            sandbox.content("held.tmp"),
            "held",
            "put back, so its grace starts again"
        );
    });
}

/// The same, by the watcher.
#[test]
fn claims_that_a_crash_left_are_put_in_order_by_a_watcher() {
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
        .aged(OLD);
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
        "the rest is done"
    );
    assert_eq!(events.sums(), [2, 0, 0, 1]);
    assert_eq!(dry.sums(), events.sums());
    assert_eq!(scan.stdout_json()["temps"].as_array().unwrap().len(), 0);
    scan.complains(shut.to_str().unwrap());
    assert!(sandbox.has("shut/b.4194304.tmp"));
}

/// A directory that may be read but not changed.
#[test]
fn a_directory_that_may_not_be_changed_is_exit_3() {
    let sandbox = Sandbox::ordinary()
        .file("ro/a.4194304.tmp", "")
        .file("b.4194304.tmp", "")
        .aged(OLD);
    let shut = sandbox.path("ro");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o500)).unwrap();
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(3).events();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(events.about("a.4194304.tmp"), ["failed"]);
    assert_eq!(events.about("b.4194304.tmp"), ["reaped"]);
    assert_eq!(events.sums(), [1, 0, 0, 1]);
    assert!(sandbox.has("ro/a.4194304.tmp"));
}

/// Nobody may read it, not even its owner: that nobody holds it cannot be asked.
#[test]
fn a_file_that_may_not_be_read_cannot_be_told() {
    let sandbox = Sandbox::ordinary()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(OLD);
    fs::set_permissions(sandbox.path("a.tmp"), fs::Permissions::from_mode(0o0)).unwrap();
    sandbox.age(OLD);
    let events = sandbox.sweep(SHORT).exit(3).events();
    assert_eq!(events.about("a.tmp"), ["kept cannot-tell"]);
    assert!(sandbox.has("a.tmp"));
}

#[test]
fn several_roots_end_in_one_summary() {
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("../other/b.4194304.tmp", "")
        .aged(OLD);
    sandbox.age(OLD);
    let events = sandbox
        .run([
            "sweep", "--yes", "--json", "--grace", "100ms", "root", "other", "root/.",
        ])
        .exit(0)
        .events();
    assert_eq!(events.names("reaped"), ["a.4194304.tmp", "b.4194304.tmp"]);
    assert_eq!(events.sums(), [2, 0, 0, 0]);
}

/// `.orphand` stands there only as long as something lies in it.
#[test]
fn the_quarantine_is_gone_when_it_is_empty() {
    let sandbox = Sandbox::new()
        .dir(".orphand")
        .file("a.4194304.tmp", "")
        .aged(OLD);
    fs::set_permissions(sandbox.path(".orphand"), fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(sandbox.listing(), [""; 0]);
}

/// A quarantine that others may look into, or that is none, is not used.
#[test]
fn no_quarantine() {
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
            .aged(OLD);
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
        assert!(sandbox.has(".orphand"), "it is not ours to remove");
    }
}

/// Everything that orphand wants for itself may fail: it is said, and stops nothing.
#[test]
fn a_state_folder_that_cannot_be_written_stops_nothing() {
    let sandbox = Sandbox::ordinary().file("a.4194304.tmp", "").aged(OLD);
    for folder in ["state", "runtime", "home"] {
        let folder = sandbox.base().join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    }
    let ran = sandbox.sweep(SHORT).exit(0);
    assert_eq!(ran.events().sums(), [1, 0, 0, 0]);
    assert!(ran.stderr.contains("journal"), "it is said: {}", ran.stderr);
    for folder in ["state", "runtime", "home"] {
        let folder = sandbox.base().join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// A lock that somebody holds keeps a temp, and says so.
// Linux only: other systems' proofs do not tell a lock from other holders.
#[cfg(target_os = "linux")]
#[test]
fn a_locked_temp_is_kept_as_locked() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(OLD);
    let file = fs::File::open(sandbox.path("a.tmp")).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert!(events.0.iter().any(kept("a.tmp", "locked")), "{events:?}");
    assert_eq!(events.one("kept")["holders"][0]["pid"], std::process::id());
    assert!(sandbox.has("a.tmp"));
}

/// A root that may not be opened is said and is exit 3; the next one is swept all the same. One that
/// is not there is exit 1.
#[test]
fn a_root_that_may_not_be_opened() {
    let sandbox = Sandbox::ordinary()
        .file("shut/a.4194304.tmp", "")
        .file("way/in/b.4194304.tmp", "")
        .file("open/c.4194304.tmp", "")
        .aged(OLD);
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(sandbox.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (shut, door) in [("root/shut", "shut"), ("root/way/in", "way")] {
        sandbox.write("open/c.4194304.tmp", "");
        sandbox.age(OLD);
        mode(door, 0o000);
        let sweep = ["sweep", "--yes", "--json", "--grace", "100ms"];
        let ran = sandbox.run(sweep.into_iter().chain([shut, "root/open"]));
        let events = ran.exit(3).events();
        assert_eq!(events.sums(), [1, 0, 0, 1], "{shut}");
        assert_eq!(events.names("reaped"), ["c.4194304.tmp"], "{shut}");
        let failed = events.one("failed");
        assert_eq!(failed["errno"], libc::EACCES, "{failed}");
        assert_eq!(failed["path"], failed["root"], "{failed}");
        let scan = ["scan", "--json", shut, "root/open"];
        let ran = sandbox.run(scan).exit(3).complains("cannot read");
        assert_eq!(ran.stdout_json()["total"]["temps"], 0, "{shut}");
        mode(door, 0o700);
    }
    let missing = ["sweep", "--yes", "--json", "root/nowhere"];
    sandbox.run(missing).exit(1).silent();
    assert_eq!(sandbox.listing(), ["open", "shut", "way"]);
    assert!(sandbox.has("shut/a.tmp") && sandbox.has("way/in/b.tmp"));
}

/// Two names of one file, both of them temps, and one the target of the other: looking at the first
/// is no reason to find the second held.
#[test]
fn two_temps_that_are_one_file() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "one");
    fs::hard_link(sandbox.path("a.tmp"), sandbox.path("a.tmp.tmp")).unwrap();
    sandbox.age(OLD);
    let events = sandbox.sweep(SHORT).exit(0).events();
    // Because of its name already: the other one may be meant for it.
    assert_eq!(events.about("a.tmp"), ["kept reserved"]);
    assert_eq!(events.names("reaped"), ["a.tmp.tmp"]);
    assert_eq!(sandbox.listing(), ["a", "a.tmp"]);
}
