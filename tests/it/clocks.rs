//! Wrong clocks: whatever they show, no temp is removed before its real grace, and every orphan is removed in
//! the end. The real time is that of this process; the machine's clocks do not change.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fake_env::FakeEnv;
use crate::fixture::report_skipped;
use crate::sandbox::{Sandbox, StartChild, WatchProcess, in_parallel, is, kept};

const GRACE: Duration = Duration::from_secs(2);
/// The longest time between two ticks of the clock that dates files.
const TICK: Duration = Duration::from_millis(10);
const WATCH: [&str; 5] = ["watch", "--json", "root", "--grace", "2s"];

/// Changes the clock while a temp waits.
type ClockChange = fn(&FakeEnv, &mut WatchProcess, &Sandbox);

/// The clock changes, each with a description.
fn changes() -> [(&'static str, ClockChange); 6] {
    fn nothing(_: &FakeEnv, _: &mut WatchProcess, _: &Sandbox) {}
    fn forward(fake_env: &FakeEnv, _: &mut WatchProcess, _: &Sandbox) {
        fake_env.set_clock(10);
    }
    fn back(fake_env: &FakeEnv, _: &mut WatchProcess, _: &Sandbox) {
        fake_env.set_clock(-10);
    }
    fn there_and_back(fake_env: &FakeEnv, watching: &mut WatchProcess, sandbox: &Sandbox) {
        forward(fake_env, watching, sandbox);
        // Long enough for a look at the temp.
        std::thread::sleep(GRACE / 4);
        back(fake_env, watching, sandbox);
    }
    /// A scan finds the temp, with a date that is ten years old by then.
    fn forward_and_lost(fake_env: &FakeEnv, watching: &mut WatchProcess, sandbox: &Sandbox) {
        forward(fake_env, watching, sandbox);
        overflow_queue(watching, sandbox);
    }
    fn back_and_lost(fake_env: &FakeEnv, watching: &mut WatchProcess, sandbox: &Sandbox) {
        back(fake_env, watching, sandbox);
        overflow_queue(watching, sandbox);
    }
    [
        ("none", nothing),
        ("forward by ten years", forward),
        ("back by ten years", back),
        ("forward, then back", there_and_back),
        ("forward, and events are lost", forward_and_lost),
        ("back, and events are lost", back_and_lost),
    ]
}

/// Overflows the event queue.
fn overflow_queue(watching: &mut WatchProcess, sandbox: &Sandbox) {
    watching.signal(libc::SIGSTOP);
    for n in 0..50 {
        sandbox.write(n.to_string(), "");
    }
    watching.signal(libc::SIGCONT);
    watching.wait_for(|event| event["cause"] == "overflow");
}

/// Asserts that a new temp is removed, but not before its grace by the real clock.
#[track_caller]
fn is_removed_after_its_grace(
    watching: &mut WatchProcess,
    sandbox: &Sandbox,
    temp: &str,
    what: &str,
    meanwhile: impl FnOnce(&mut WatchProcess),
) {
    let made = Instant::now();
    sandbox.write(temp, "");
    meanwhile(watching);
    watching.wait_for(is("reaped", temp));
    let took = made.elapsed();
    assert!(took >= GRACE, "{what}: {temp} was removed after {took:?}");
}

/// The wall clock is set while a temp waits, and keeps the new time for the next one.
#[test]
fn setting_the_wall_clock_by_years_keeps_the_grace() {
    in_parallel(changes(), |(what, step)| {
        let sandbox = Sandbox::new();
        let fake_env = match FakeEnv::new(&sandbox) {
            Ok(fake_env) => fake_env,
            Err(why) => return report_skipped(&why),
        };
        fake_env.set_queue(30);
        let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(WATCH))).ready();
        is_removed_after_its_grace(&mut watching, &sandbox, "a.4194304.tmp", what, |watching| {
            std::thread::sleep(GRACE / 4);
            step(&fake_env, watching, &sandbox);
        });
        is_removed_after_its_grace(&mut watching, &sandbox, "b.4194304.tmp", what, |_| {});
        // Near the end of the grace, after the last look but one.
        is_removed_after_its_grace(&mut watching, &sandbox, "c.4194304.tmp", what, |watching| {
            std::thread::sleep(GRACE * 3 / 4);
            fake_env.set_clock(0);
            step(&fake_env, watching, &sandbox);
        });
        watching.stop().exit(0);
    });
}

/// Temps that existed at the start are ignored on request, even if all of their dates are later than the
/// start.
#[test]
fn ignored_temps_may_have_dates_in_the_future() {
    let claim = ".orphand-0123456789abcdef-b.4194304.tmp";
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").file(claim, "");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    fake_env.set_clock(-10);
    let leave = [
        "watch",
        "--json",
        "root",
        "--grace",
        "200ms",
        "--existing",
        "leave",
    ];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(leave))).ready();
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(sandbox.has("a.4194304.tmp"));
    assert!(
        sandbox.has("b.4194304.tmp"),
        "the claim has its original name again"
    );
    watching.stop().exit(0);
}

/// A temp whose event was lost, and whose date is ten years off when a scan finds it.
#[test]
fn a_temp_found_after_a_clock_change_has_its_grace() {
    in_parallel([10, -10], |years| {
        let sandbox = Sandbox::new();
        let fake_env = match FakeEnv::new(&sandbox) {
            Ok(fake_env) => fake_env,
            Err(why) => return report_skipped(&why),
        };
        fake_env.set_queue(8);
        let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(WATCH))).ready();
        let what = format!("{years} years");
        watching.signal(libc::SIGSTOP);
        for n in 0..20 {
            sandbox.write(n.to_string(), "");
        }
        fake_env.set_clock(years);
        is_removed_after_its_grace(
            &mut watching,
            &sandbox,
            "a.4194304.tmp",
            &what,
            |watching| {
                watching.signal(libc::SIGCONT);
                watching.wait_for(|event| event["cause"] == "overflow");
            },
        );
        watching.stop().exit(0);
    });
}

/// A temp that is held while the clock jumps: its grace begins when its holder closes it.
#[test]
fn a_clock_jump_does_not_shorten_the_grace_of_a_held_temp() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(WATCH))).ready();
    let mut shell = sandbox.shell();
    assert!(shell.run("exec 3> a.4194304.tmp"));
    watching.wait_for(kept("a.4194304.tmp", "in-use"));
    fake_env.set_clock(10);
    assert!(shell.run("exec 3>&-"));
    let closed = Instant::now();
    fake_env.set_clock(-10);
    watching.wait_for(is("reaped", "a.4194304.tmp"));
    assert!(closed.elapsed() >= GRACE, "{:?}", closed.elapsed());
    watching.stop().exit(0);
}

/// A file stays in the quarantine for a week of real time, whatever the clock is set to.
#[test]
fn a_clock_that_is_set_forward_empties_no_quarantine() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    let watch = ["watch", "--json", "root", "--grace", "200ms"];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(watch))).ready();
    for (n, years) in [0, 10, -10, 20].into_iter().enumerate() {
        fake_env.set_clock(years);
        sandbox.write(format!("t{n}.4194304.tmp"), "the only copy");
        // Each move checks the age of everything in the quarantine.
        watching.wait_for(is("quarantined", &format!("t{n}.4194304.tmp")));
        // The newest copy of a missing target would be kept at any age.
        sandbox.write(format!("t{n}"), "whole, to the last byte of it");
    }
    watching.stop().exit(0);
    let list = sandbox.run(["quarantine", "list", "root"]).exit(0).stdout;
    for n in 0..4 {
        assert!(
            list.contains(&format!("t{n}.4194304.tmp")),
            "{n}.tmp is not in {list}"
        );
    }
}

/// A machine that has been running for years, or just booted: clocks of a time namespace.
#[test]
fn a_shifted_boot_clock_keeps_the_grace() {
    Sandbox::for_each_user(|sandbox| {
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
        let years = 10 * 365 * 24 * 60 * 60;
        // The monotonic clock begins at 0 with the machine; in the last case it reads one second.
        let just_booted = 1 - up as i64;
        for (monotonic, boot) in [
            (years, years),
            (years, 0),
            (0, years),
            (just_booted, just_booted),
        ] {
            let Some(mut command) = watch_with_shifted_clocks(&sandbox, monotonic, boot) else {
                return;
            };
            command.args(["--grace", "2s"]);
            let what = format!("monotonic {monotonic}, boot {boot}");
            // An existing young temp: its date is right, and the clocks are wrong.
            let before = Instant::now();
            sandbox.write("before.4194304.tmp", "");
            let mut watching = WatchProcess::start(command);
            watching.wait_for(is("reaped", "before.4194304.tmp"));
            // The kernel dates a file by its last tick, so the file looks that much older.
            let took = before.elapsed() + TICK;
            assert!(took >= GRACE, "{what}: removed after {took:?}");
            is_removed_after_its_grace(&mut watching, &sandbox, "a.4194304.tmp", &what, |_| {});
            watching.stop().exit(0);
        }
    });
}

/// A temp that is older than the boot has to wait: dates from before the boot come from another clock.
#[test]
fn after_a_boot_an_old_temp_waits_its_grace() {
    // Much longer than any temp has to wait after it is found.
    const GRACE: Duration = Duration::from_secs(5);
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("a.4194304.tmp", "").aged(GRACE);
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
        // The clock starts at less than a second.
        let Some(mut command) = watch_with_shifted_clocks(&sandbox, -(up as i64), 0) else {
            return;
        };
        command.args(["--grace", "5s"]);
        let began = Instant::now();
        let mut watching = WatchProcess::start(command);
        watching.wait_for(is("reaped", "a.4194304.tmp"));
        let took = began.elapsed();
        assert!(
            took + Duration::from_secs(1) >= GRACE,
            "removed after {took:?}"
        );
        watching.stop().exit(0);
    });
}

/// Returns a command that watches the root with clocks that are so many seconds ahead. The caller adds the
/// grace. Returns `None` if there are no time namespaces.
fn watch_with_shifted_clocks(sandbox: &Sandbox, monotonic: i64, boot: i64) -> Option<Command> {
    let unshare = |program: &Path, args: &[&str]| {
        let mut command = sandbox.program("unshare");
        command.args(["--user", "--map-root-user", "--time"]);
        command.args(["--monotonic", &monotonic.to_string()]);
        command.args(["--boottime", &boot.to_string()]);
        command.arg(program).args(args);
        command
    };
    match unshare(Path::new("true"), &[]).collect_output() {
        Ok(ran) if ran.status.success() => Some(unshare(sandbox.binary(), &WATCH[..3])),
        other => {
            report_skipped(&format!("no time namespaces: {other:?}"));
            None
        }
    }
}
