//! No temp is missed: lost events, reached limits, threads that end or receive nothing, roots that are
//! removed, closed by permissions or mounted over. No test waits for the periodic scan, which comes once an
//! hour, unless its comment says so: everything that is noticed here comes from an event.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orphand::Watcher;
use orphand::core::event::{Event, RescanCause, RootState};
use orphand::core::policy::{Graces, Policy};
use serde_json::Value;

use crate::fake_env::{FakeEnv, ThreadFault};
use crate::fixture::{ALL_USERS, RunAs, in_own_process, remove_watched_dir, report_skipped};
use crate::sandbox::{DEADLINE, Sandbox, StartChild, WatchProcess, is, name, signal};

const SHORT: [&str; 2] = ["--grace", "200ms"];
const DEEP: [&str; 3] = ["--grace", "200ms", "-r"];

fn root_is(state: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["event"] == "root" && event["state"] == state
}

fn rescan(cause: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["event"] == "rescan" && event["cause"] == cause
}

fn count(watching: &WatchProcess, wanted: impl Fn(&Value) -> bool) -> usize {
    watching
        .events()
        .0
        .iter()
        .filter(|event| wanted(event))
        .count()
}

/// Creates a temp of this name, and waits until it is removed.
#[track_caller]
fn assert_new_temp_is_removed(watching: &mut WatchProcess, sandbox: &Sandbox, temp: &str) {
    sandbox.write(temp, "");
    wait_for_removal(watching, sandbox, temp);
}

#[track_caller]
fn wait_for_removal(watching: &mut WatchProcess, sandbox: &Sandbox, temp: &str) {
    let path = sandbox.path(temp);
    watching
        .wait_for(|event| event["event"] == "reaped" && event["path"] == path.to_str().unwrap());
}

/// Waits until no temp is left below the root.
#[track_caller]
fn wait_until_all_removed(watching: &WatchProcess, sandbox: &Sandbox) {
    loop {
        let left = temps(&sandbox.root());
        if left.is_empty() {
            return;
        }
        // Reading thousands of directories again and again would slow down the watcher.
        for temp in &left {
            // The deadline starts again with each removal.
            let end = Instant::now() + DEADLINE;
            while temp.symlink_metadata().is_ok() {
                assert!(
                    Instant::now() < end,
                    "{} temps were left, and this one is: {temp:?}\n{}",
                    left.len(),
                    watching.stderr()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn temps(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().is_some_and(|end| end == "tmp") {
            true => _ = found.insert(path),
            false => found.extend(temps(&path)),
        }
    }
    found
}

/// Returns the temps once no claim is among them: a temp that was claimed just before its directory was moved
/// away has its name back by then, or is removed.
fn stable_temps(dir: &Path) -> BTreeSet<PathBuf> {
    let is_claim = |path: &PathBuf| path.to_string_lossy().contains("/.orphand-");
    let end = Instant::now() + DEADLINE;
    let mut before = temps(dir);
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = temps(dir);
        if now == before && !now.iter().any(is_claim) {
            return now;
        }
        assert!(Instant::now() < end, "{now:?}");
        before = now;
    }
}

/// A process that is stopped until this is dropped.
struct PausedProcess(u32);

impl PausedProcess {
    fn new(watching: &WatchProcess) -> PausedProcess {
        watching.signal(libc::SIGSTOP);
        PausedProcess(watching.pid())
    }
}

impl Drop for PausedProcess {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

/// More events than the kernel's queue holds, while no process reads it; directories are created, deleted and
/// swapped at the same time.
#[test]
fn no_leak_is_missed_after_an_overflow() {
    let sandbox = Sandbox::in_memory_for(None)
        .dir("gone")
        .dir("left")
        .dir("right")
        .dir("old/deep");
    let mut watching = sandbox.watch(["--grace", "1s", "-r"]).ready();
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    // Each leak is at least one event.
    let leaks = queue.trim().parse::<usize>().unwrap() + 100;
    let stopped = PausedProcess::new(&watching);
    for n in 0..leaks {
        crate::sandbox::write(&sandbox.path(format!("t{n}.4194304.tmp")), "");
    }
    fs::remove_dir(sandbox.path("gone")).unwrap();
    sandbox.write("gone/a.4194304.tmp", "");
    fs::rename(sandbox.path("left"), sandbox.path("x")).unwrap();
    fs::rename(sandbox.path("right"), sandbox.path("left")).unwrap();
    fs::rename(sandbox.path("x"), sandbox.path("right")).unwrap();
    fs::rename(sandbox.path("old"), sandbox.path("new")).unwrap();
    for n in 0..200 {
        sandbox.write(format!("made/{n}/deep/b.4194304.tmp"), "");
    }
    drop(stopped);
    watching.wait_for(rescan("overflow"));
    wait_until_all_removed(&watching, &sandbox);
    // Each directory is watched under its current name.
    for dir in ["gone", "left", "right", "new/deep", "made/7/deep", "old"] {
        assert_new_temp_is_removed(&mut watching, &sandbox, &format!("{dir}/later.4194304.tmp"));
    }
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.of("failed").len(), 0);
    let rescans = stopped.events.of("rescan").len();
    assert!(rescans <= 4, "{rescans} scans for one loss");
}

/// A queue of eight events: nearly everything is lost. Scans are bundled, and cause no further loss.
#[test]
fn a_tiny_queue_is_made_up_for_by_scans() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    fake_env.set_queue(8);
    let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(args))).ready();
    let stopped = PausedProcess::new(&watching);
    for n in 0..500 {
        sandbox.write(format!("stopped/{n}/a.4194304.tmp"), "");
        sandbox.write(format!("t{n}.4194304.tmp"), "");
    }
    drop(stopped);
    wait_until_all_removed(&watching, &sandbox);
    // A persistent writer: events are lost all the time.
    let mut shell = sandbox.shell();
    let (began, before) = (Instant::now(), count(&watching, rescan("overflow")));
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(4) {
        rounds += 1;
        let line = format!(
            "mkdir -p storm/{rounds}; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do : > \
             storm/{rounds}/t$i.4194304.tmp; : > $i; mv $i $i.x; done"
        );
        assert!(shell.run(&line));
    }
    wait_until_all_removed(&watching, &sandbox);
    assert_new_temp_is_removed(&mut watching, &sandbox, "storm/1/later.4194304.tmp");
    let scans = count(&watching, rescan("overflow")) - before;
    // The delay is 100 ms and doubles each time: five scans within four seconds, and some for the rest.
    assert!(
        (1..=10).contains(&scans),
        "{scans} scans for {rounds} losses"
    );
    watching.stop().exit(0);
}

/// With a queue of eight, any event that a scan caused would be lost, and would start another scan.
#[test]
fn scans_for_lost_events_do_not_cause_scans() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    fake_env.set_queue(8);
    for n in 0..50 {
        sandbox.make_dir(format!("{n}"));
    }
    let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(args))).ready();
    let stopped = PausedProcess::new(&watching);
    for n in 0..50 {
        sandbox.write(format!("{n}/no-temp"), "");
    }
    drop(stopped);
    watching.wait_for(rescan("overflow"));
    let mut scans = 0;
    // Further scans would come after 100, 200, 400 and 800 ms: all of them before a second passes without
    // one.
    while scans < count(&watching, rescan("overflow")) {
        scans = count(&watching, rescan("overflow"));
        for _ in 0..6 {
            watching.wait_for_sentinel(&sandbox);
        }
    }
    assert!(scans <= 3, "{scans} scans for one loss");
    watching.stop().exit(0);
}

/// A scan for lost events has no descriptor left to read the root: it is repeated.
#[test]
fn a_failed_scan_for_lost_events_is_repeated() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    fake_env.set_queue(8);
    let args = ["watch", "--json", "--grace", "200ms", "root"];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(args))).ready();
    // A descriptor that is open only for a moment would count as used.
    let (mut last, mut same) = (BTreeSet::new(), 0);
    crate::fixture::wait_until("its descriptors are stable", || {
        let now = open_descriptors(watching.pid());
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 200
    });
    let stopped = PausedProcess::new(&watching);
    for n in 0..50 {
        sandbox.write(format!("t{n}.4194304.tmp"), "");
    }
    // Enough to see that the root exists, but not to read it.
    let before = limit_descriptors(watching.pid(), |taken| {
        (0..)
            .filter(|number| !taken.contains(number))
            .nth(2)
            .unwrap()
    });
    drop(stopped);
    watching.wait_for(|event| {
        let error = event["error"].as_str().unwrap_or_default();
        event["event"] == "failed" && error.contains("Too many open files")
    });
    limit_descriptors(watching.pid(), |_| before);
    wait_until_all_removed(&watching, &sandbox);
    watching.stop().exit(3);
}

/// Limits the descriptors of a process to numbers below the result of `choose`, which receives the numbers in
/// use. Returns the previous limit.
fn limit_descriptors(pid: u32, choose: impl FnOnce(&BTreeSet<u64>) -> u64) -> u64 {
    let taken = open_descriptors(pid);
    let pid = libc::pid_t::try_from(pid).unwrap();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: each pointer is valid for its call; a null one is not accessed.
    let done = unsafe {
        let (none, resource) = (std::ptr::null(), libc::RLIMIT_NOFILE);
        let asked = libc::prlimit(pid, resource, none, &raw mut limit);
        let before = limit.rlim_cur;
        limit.rlim_cur = choose(&taken);
        let set = libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut());
        limit.rlim_cur = before;
        (asked, set)
    };
    assert_eq!(done, (0, 0), "{}", std::io::Error::last_os_error());
    limit.rlim_cur
}

fn open_descriptors(pid: u32) -> BTreeSet<u64> {
    let taken = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    taken.filter_map(number).collect()
}

#[test]
fn thousands_of_new_directories_are_watched() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(DEEP).ready();
    let mut shell = sandbox.shell();
    let make = "i=0; while [ $i -lt 3000 ]; do echo $((i % 30))/$i; i=$((i+1)); done > ../dirs; \
                xargs mkdir -p < ../dirs; sed 's/$/\\/a.4194304.tmp/' ../dirs | xargs touch";
    assert!(shell.run(make));
    wait_until_all_removed(&watching, &sandbox);
    for n in [0, 1, 1_499, 2_999] {
        assert_new_temp_is_removed(
            &mut watching,
            &sandbox,
            &format!("{}/{n}/b.4194304.tmp", n % 30),
        );
    }
    // All are deleted, and some are created again.
    assert!(shell.run("rm -rf * && mkdir -p 7/7 29/2999"));
    assert_new_temp_is_removed(&mut watching, &sandbox, "7/7/c.4194304.tmp");
    assert_new_temp_is_removed(&mut watching, &sandbox, "29/2999/c.4194304.tmp");
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.of("failed").len(), 0);
}

/// Only temps from before the start may be removed after the minimum gap between two looks: the writer of a
/// temp that comes with its directory has half a grace.
#[test]
fn a_directory_moved_in_has_half_a_grace() {
    const GRACE: Duration = Duration::from_secs(4);
    let sandbox = Sandbox::new().dir("../outside");
    let outside = sandbox.base().join("outside");
    fs::write(outside.join("old.4194304.tmp"), "").unwrap();
    let mut watching = sandbox.watch(["--grace", "4s", "-r"]).ready();
    // Older than the grace by its dates.
    std::thread::sleep(GRACE);
    let moved = Instant::now();
    fs::rename(&outside, sandbox.path("inside")).unwrap();
    watching.wait_for(is("reaped", "old.4194304.tmp"));
    let had = moved.elapsed();
    assert!(had >= GRACE / 2, "removed after {had:?}");
    watching.stop().exit(0);
}

/// Directories that are created, moved, moved out, moved in and deleted at random: in the end no temp is left
/// below the root, and every temp outside it is still there.
#[test]
fn random_directory_changes_miss_no_temp() {
    let sandbox = Sandbox::new().dir("../outside");
    let mut watching = sandbox.watch(["--grace", "500ms", "-r"]).ready();
    let outside = sandbox.base().join("outside");
    // Any numbers work, as long as they are the same in each run.
    let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut made = 0;
    for n in 0..3_000 {
        let dir = |n: u64| match n % 3 {
            0 => format!("d{}", n / 3 % 5),
            1 => format!("d{}/e{}", n / 3 % 5, n / 15 % 3),
            _ => format!("d{}/e{}/f", n / 3 % 5, n / 15 % 3),
        };
        let (one, other) = (dir(random(45)), dir(random(45)));
        let (one, other) = (sandbox.path(one), sandbox.path(other));
        // Half of these fail, because a directory is missing or not empty. That is intended.
        let _ = match random(12) {
            0 => fs::remove_dir_all(&one),
            1 | 2 => fs::rename(&one, &other),
            3 => fs::rename(&one, outside.join(format!("o{}", random(4)))),
            4 => fs::rename(outside.join(format!("o{}", random(4))), &one),
            5..8 => fs::create_dir_all(&one),
            _ => {
                made += 1;
                fs::write(one.join(format!("t{n}.4194304.tmp")), "")
            }
        };
    }
    assert!(made > 500);
    let spared = stable_temps(&outside);
    assert!(
        !spared.is_empty(),
        "nothing was moved out: use another seed"
    );
    wait_until_all_removed(&watching, &sandbox);
    // Every existing directory is watched: no watch was lost.
    fs::create_dir_all(sandbox.path("d1/e1/f")).unwrap();
    let dirs: Vec<PathBuf> = dirs(&sandbox.root());
    for dir in &dirs {
        fs::write(dir.join("last.4194304.tmp"), "").unwrap();
    }
    watching.wait_for_nth(dirs.len(), is("reaped", "last.4194304.tmp"));
    watching.wait_for_sentinel(&sandbox);
    let (before, after) = (&spared, &temps(&outside));
    assert_eq!(before, after, "a temp outside the root was touched");
    watching.stop().exit(0);
}

fn dirs(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            found.extend(dirs(&entry.path()));
        }
    }
    found
}

/// A user namespace with limits of its own, which the process that created it may set.
struct LimitedNamespace<'a>(&'a Sandbox);

impl LimitedNamespace<'_> {
    /// Starts orphand in a namespace with this limit.
    #[track_caller]
    fn watch(&self, limit: &str, most: u32, args: &[&str]) -> WatchProcess {
        let script = format!("echo {most} > /proc/sys/user/{limit} && exec \"$@\"");
        let mut command = self.0.program("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
        command.arg(self.0.binary()).args(["watch", "--json"]);
        WatchProcess::start({
            command.args(args).arg("root");
            command
        })
    }

    /// Sets the limit of a watcher's namespace.
    #[track_caller]
    fn set(&self, watching: &WatchProcess, limit: &str, most: u32) {
        let mut command = self.0.program("nsenter");
        let namespace = format!("--user=/proc/{}/ns/user", watching.pid());
        let script = format!("echo {most} > /proc/sys/user/{limit}");
        command.args([&namespace, "--preserve-credentials", "sh", "-c", &script]);
        self.0.finish(command).exit(0);
    }
}

/// Runs `test` for each user, if user namespaces are available.
fn for_each_limited_user(test: impl Fn(&Sandbox, &LimitedNamespace<'_>) + Sync) {
    Sandbox::for_each_user(|sandbox| {
        let mut command = sandbox.program("unshare");
        command.args(["--user", "--map-root-user", "true"]);
        match command.collect_output() {
            Ok(ran) if ran.status.success() => test(&sandbox, &LimitedNamespace(&sandbox)),
            other => report_skipped(&format!("no user namespace: {other:?}")),
        }
    });
}

/// Asserts that the limit was reported once, with the fix, and in words that do not suggest a full disk.
#[track_caller]
fn assert_limit_message(stderr: &str, fix: &str) {
    let messages: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("cannot watch"))
        .collect();
    let [message] = messages.as_slice() else {
        panic!("{} times: {stderr}", messages.len());
    };
    assert!(
        message.contains("This has nothing to do with disk space"),
        "{message}"
    );
    assert!(message.contains(fix), "{message}");
    for wrong in ["No space", "no space", "ENOSPC", "os error 28", "full"] {
        assert!(!stderr.contains(wrong), "{wrong:?} in {stderr}");
    }
}

#[test]
fn at_the_watch_limit_a_root_is_polled() {
    for_each_limited_user(|sandbox, limited| {
        for n in 0..30 {
            sandbox.make_dir(format!("{n}/deep"));
        }
        // Enough for the path to the root, the root, and a few more.
        let most = sandbox.root().ancestors().count() + 5;
        let limit = "max_inotify_watches";
        let mut watching = limited.watch(limit, most as u32, &DEEP);
        watching.wait_for(root_is("polling"));
        let mut watching = watching.ready();
        for n in 0..30 {
            sandbox.write(format!("{n}/deep/a.4194304.tmp"), "");
        }
        // And for directories that are created later.
        sandbox.write("later/deep/a.4194304.tmp", "");
        watching.wait_for_nth(31, is("reaped", "a.4194304.tmp"));
        watching.wait_for_nth(3, rescan("periodic"));
        assert_eq!(count(&watching, root_is("polling")), 1, "once");
        assert_limit_message(&watching.stderr(), "sysctl fs.inotify.max_user_watches=");
        limited.set(&watching, limit, 10_000);
        watching.wait_for(root_is("watching"));
        for n in 0..30 {
            sandbox.write(format!("{n}/deep/b.4194304.tmp"), "");
        }
        watching.wait_for_nth(30, is("reaped", "b.4194304.tmp"));
        // Everything is watched, so periodic scans have stopped.
        let before = count(&watching, rescan("periodic"));
        for _ in 0..3 {
            watching.wait_for_sentinel_in(sandbox, "29/deep");
        }
        assert_eq!(count(&watching, rescan("periodic")), before);
        let stopped = watching.stop().exit(0);
        let states = stopped.events.of("root");
        let states: Vec<_> = states
            .iter()
            .map(|event| event["state"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["polling", "watching"]);
    });
}

#[test]
fn without_watches_a_root_is_polled() {
    for_each_limited_user(|sandbox, limited| {
        let instances = "fs.inotify.max_user_instances=";
        for (limit, most, fix) in [
            ("max_inotify_watches", 1, "fs.inotify.max_user_watches="),
            ("max_inotify_instances", 1, instances),
            ("max_inotify_instances", 0, instances),
        ] {
            let mut watching = limited.watch(limit, most, &SHORT);
            watching.wait_for(root_is("polling"));
            let mut watching = watching.ready();
            assert_new_temp_is_removed(&mut watching, sandbox, "a.4194304.tmp");
            let stderr = watching.stderr();
            let (about_ancestors, about_root): (Vec<_>, Vec<_>) = stderr
                .lines()
                .partition(|line| line.contains("directories above"));
            assert_limit_message(&about_root.join("\n"), fix);
            if !about_ancestors.is_empty() {
                assert_limit_message(&about_ancestors.join("\n"), fix);
            }
            // The root is replaced, and no event reports it.
            let away = sandbox.base().join(format!("{limit}-{most}"));
            fs::rename(sandbox.root(), &away).unwrap();
            sandbox.make_dir("");
            assert_new_temp_is_removed(&mut watching, sandbox, "b.4194304.tmp");
            fs::write(away.join("c.4194304.tmp"), "").unwrap();
            limited.set(&watching, limit, 1_000);
            watching.wait_for(root_is("watching"));
            watching.wait_for_sentinel(sandbox);
            watching.wait_for_sentinel(sandbox);
            assert!(
                away.join("c.4194304.tmp").exists(),
                "it is not at the root's path any more"
            );
            watching.stop().exit(0);
        }
    });
}

/// The notify thread ends because of a failed system call; another one replaces it.
#[test]
fn a_dead_notify_thread_is_replaced() {
    let sandbox = Sandbox::new().dir("sub");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    for fault in [
        ThreadFault::WaitFails,
        ThreadFault::ReadFails,
        ThreadFault::WaitFails,
    ] {
        let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
        let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(args))).ready();
        fake_env.inject_fault(fault);
        // The event is lost with the thread that should receive it.
        sandbox.write("sub/a.4194304.tmp", "");
        watching.wait_for(rescan("overflow"));
        wait_for_removal(&mut watching, &sandbox, "sub/a.4194304.tmp");
        assert!(fake_env.fault_has_occurred());
        assert_new_temp_is_removed(&mut watching, &sandbox, "sub/b.4194304.tmp");
        assert_new_temp_is_removed(&mut watching, &sandbox, "new/c.4194304.tmp");
        remove_watched_dir(&sandbox.path("new"));
        let stderr = watching.stderr();
        assert!(stderr.contains("re-establishing"), "{stderr}");
        // A thread that reads only errors has ended: those for roots and parents are left.
        let end = Instant::now() + DEADLINE;
        while notify_threads(watching.pid()) > 2 {
            assert!(Instant::now() < end, "a notify thread is still running");
            std::thread::sleep(Duration::from_millis(20));
        }
        watching.stop().exit(0);
    }
}

/// Returns the number of notify threads in a process.
fn notify_threads(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("notify")).count()
}

/// The thread that watches the parents of the roots ends: a root that is removed and recreated is noticed
/// nevertheless.
#[test]
fn a_dead_ancestor_watch_thread_is_replaced() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    let args = ["watch", "--json", "--grace", "200ms", "root"];
    let mut watching = WatchProcess::start(fake_env.apply_to(sandbox.command(args))).ready();
    fake_env.inject_fault(ThreadFault::WaitFails);
    // A change in the parent that concerns no root.
    sandbox.write("../beside", "");
    watching.wait_for(rescan("overflow"));
    remove_watched_dir(&sandbox.root());
    watching.wait_for(root_is("gone"));
    sandbox.make_dir("");
    watching.wait_for(root_is("watching"));
    assert_new_temp_is_removed(&mut watching, &sandbox, "a.4194304.tmp");
    watching.stop().exit(0);
}

/// The thread that watches the configuration file ends: a change at that moment is read, and later changes
/// are noticed.
#[test]
fn a_dead_configuration_watch_thread_is_replaced() {
    let sandbox = Sandbox::new().dir("a").dir("b");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return report_skipped(&why),
    };
    let folder = sandbox.base().join("config/orphand");
    fs::create_dir_all(&folder).unwrap();
    let configure = |name: &str| {
        let path = sandbox.path(name);
        let text = format!("[defaults]\ngrace = \"200ms\"\n[[watch]]\npath = {path:?}\n");
        fs::write(folder.join("config.toml"), text).unwrap();
    };
    configure("a");
    sandbox.write("b/y.4194304.tmp", "");
    let command = sandbox.command(["watch", "--json"]);
    let mut watching = WatchProcess::start(fake_env.apply_to(command)).ready();
    // No other thread receives an event now.
    fake_env.inject_fault(ThreadFault::WaitFails);
    configure("b");
    wait_for_removal(&mut watching, &sandbox, "b/y.4194304.tmp");
    assert!(fake_env.fault_has_occurred());
    sandbox.write("a/z.4194304.tmp", "");
    configure("a");
    wait_for_removal(&mut watching, &sandbox, "a/z.4194304.tmp");
    watching.stop().exit(0);
}

fn policy(grace: Duration) -> Policy {
    Policy {
        grace: Graces::both(grace),
        ..Policy::default()
    }
}

/// Waits for the next event that matches.
#[track_caller]
fn next(watcher: &Watcher, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let end = Instant::now() + DEADLINE;
    loop {
        match watcher.events().recv_deadline(end) {
            Ok(event) if wanted(&event) => return event,
            Ok(_) => {}
            Err(why) => panic!("{why}: the event did not come"),
        }
    }
}

/// Removes all inotify watches on a directory from this process, as the kernel may do without an event.
fn remove_watches(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    let inode = format!("ino:{:x} ", fs::metadata(dir).unwrap().ino());
    let mut dropped = 0;
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let watches = text.lines().filter(|line| line.starts_with("inotify wd:"));
        for line in watches.filter(|line| line.contains(&inode)) {
            let wd = line["inotify wd:".len()..].split(' ').next().unwrap();
            let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let wd = i32::from_str_radix(wd, 16).unwrap();
            // SAFETY: two numbers.
            assert_eq!(unsafe { libc::inotify_rm_watch(fd, wd) }, 0);
            dropped += 1;
        }
    }
    assert!(dropped > 0, "{dir:?} was not watched");
}

/// More leaks than the tracking limit: the rest is found once there is room.
#[test]
fn temps_over_the_tracking_limit_are_found_later() {
    in_own_process(ALL_USERS, || {
        let sandbox = Sandbox::new();
        for n in 0..100 {
            sandbox.write(format!("before-{n}.4194304.tmp"), "");
        }
        let watcher = Watcher::builder()
            .root(sandbox.root(), policy(Duration::from_millis(500)))
            .max_tracked(64)
            .start()
            .unwrap();
        let names = (0..100).map(|n| format!("before-{n}.4194304.tmp"));
        let names = names.chain((0..200).map(|n| format!("after-{n}.4194304.tmp")));
        // Not from a listing: on a slow machine some are already removed, and some have the names of claims.
        let mut left: BTreeSet<PathBuf> = names.map(|name| sandbox.path(name)).collect();
        let take = |left: &mut BTreeSet<PathBuf>, event: &Event| match event {
            Event::Reaped(reaped) => left.remove(&reaped.subject.path),
            _ => false,
        };
        next(&watcher, |event| {
            take(&mut left, event);
            matches!(event, Event::Ready { .. })
        });
        assert!(watcher.tracked() <= 65, "{}", watcher.tracked());
        for n in 0..200 {
            sandbox.write(format!("after-{n}.4194304.tmp"), "");
            assert!(watcher.tracked() <= 65, "{}", watcher.tracked());
        }
        while !left.is_empty() {
            next(&watcher, |event| take(&mut left, event));
        }
        assert!(temps(&sandbox.root()).is_empty());
    });
}

/// A dead watch reports no event, not even its own end. The periodic scan finds temps that the watch missed,
/// which proves that it is dead.
#[test]
fn a_silent_watch_is_detected_and_renewed() {
    in_own_process(ALL_USERS, || {
        let sandbox = Sandbox::new();
        let grace = Duration::from_millis(500);
        let watcher = Watcher::builder()
            .root(sandbox.root(), policy(grace))
            // Longer than the time after which a temp should have been reported.
            .rescan_every(Duration::from_secs(5))
            .verbose(true)
            .start()
            .unwrap();
        next(&watcher, |event| matches!(event, Event::Ready { .. }));
        remove_watches(&sandbox.root());
        sandbox.write("a.4194304.tmp", "");
        next(&watcher, |event| {
            matches!(
                event,
                Event::Root {
                    state: RootState::Polling,
                    ..
                }
            )
        });
        next(&watcher, |event| {
            matches!(
                event,
                Event::Rescan {
                    cause: RescanCause::Overflow,
                    ..
                }
            )
        });
        next(&watcher, |event| {
            matches!(
                event,
                Event::Root {
                    state: RootState::Watching,
                    ..
                }
            )
        });
        sandbox.write("b.4194304.tmp", "");
        // Only a temp that was reported by an event is announced like this.
        next(&watcher, |event| match event {
            Event::Tracked { subject, .. } => subject.path.ends_with("b.4194304.tmp"),
            _ => false,
        });
    });
}

/// Periodic scans read with idle I/O priority, and reset the priority of their thread afterwards.
#[test]
fn periodic_scans_use_idle_io_priority() {
    in_own_process(ALL_USERS, || {
        let sandbox = Sandbox::new();
        for n in 0..300 {
            sandbox.make_dir(n.to_string());
        }
        let recursive = Policy {
            recursive: true,
            ..policy(Duration::from_secs(60))
        };
        let watcher = Watcher::builder()
            .root(sandbox.root(), recursive)
            .rescan_every(Duration::from_millis(100))
            .start()
            .unwrap();
        next(&watcher, |event| matches!(event, Event::Ready { .. }));
        // The kernel keeps 15 bytes of a name (prctl(2)).
        let supervisor = thread("orphand-supervi");
        let mut seen = BTreeSet::new();
        let end = Instant::now() + DEADLINE;
        while seen.len() < 3 {
            assert!(Instant::now() < end, "{seen:?}");
            // No class, idle, no class again.
            let class = io_class(supervisor);
            let wanted = if seen.len() == 1 { 3 } else { 0 };
            if class == wanted {
                seen.insert((seen.len(), class));
            }
            while watcher.events().try_recv().is_ok() {}
        }
        // By now its timer sleeps without a limit, or for up to half a minute.
        let stopping = Instant::now();
        drop(watcher);
        let took = stopping.elapsed();
        assert!(took < Duration::from_secs(10), "it took {took:?} to stop");
    });
}

/// Returns the thread of this process with this name.
fn thread(name: &str) -> i32 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_it = |task: &fs::DirEntry| {
        let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        comm.trim() == name
    };
    let task = tasks.into_iter().find(is_it).expect(name);
    task.file_name().to_str().unwrap().parse().unwrap()
}

/// Returns the I/O priority class of a thread: 0 for none, 3 for idle (linux/ioprio.h).
fn io_class(thread: i32) -> i64 {
    const WHO_THREAD: i32 = 1;
    // SAFETY: two numbers in, one out.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, thread) };
    assert!(priority >= 0, "{}", std::io::Error::last_os_error());
    priority >> 13
}

#[test]
fn a_replaced_parent_is_noticed() {
    let sandbox = Sandbox::new();
    let (parent, away) = (sandbox.path("a"), sandbox.path("away"));
    sandbox.make_dir("a/b/c");
    let args = ["--grace", "500ms", "root/a/b/c"];
    let mut watching = sandbox.watch_dirs(args).ready();
    for round in 1..=3 {
        sandbox.write("a/b/c/kept.4194304.tmp", "");
        fs::rename(&parent, &away).unwrap();
        sandbox.write(format!("a/b/c/t{round}.4194304.tmp"), "");
        watching.wait_for(is("reaped", &format!("t{round}.4194304.tmp")));
        let again = format!("t{round}.again.4194304.tmp");
        assert_new_temp_is_removed(&mut watching, &sandbox, &format!("a/b/c/{again}"));
        assert!(
            away.join("b/c/kept.4194304.tmp").exists(),
            "it is not at the root's path any more"
        );
        fs::remove_dir_all(&away).unwrap();
    }
    // The original directory returns: its temps are at the root's path again.
    fs::rename(&parent, &away).unwrap();
    watching.wait_for(root_is("gone"));
    fs::write(away.join("b/c/back.4194304.tmp"), "").unwrap();
    fs::rename(&away, &parent).unwrap();
    watching.wait_for(is("reaped", "back.4194304.tmp"));
    watching.stop().exit(0);
}

/// A root, or a folder above it, without permission to enter: it is reported, ignored, and watched once the
/// permission is granted.
#[test]
fn a_root_is_watched_once_permission_is_granted() {
    let sandbox = Sandbox::ordinary();
    sandbox.make_dir("way/in");
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(sandbox.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("way/in", 0o000);
    let mut watching = sandbox
        .watch_dirs(["--grace", "200ms", "root/way/in"])
        .ready();
    watching.wait_for(root_is("denied"));
    let mut slowest = Duration::ZERO;
    for (round, shut) in ["way/in", "way/in", "way", "way"].into_iter().enumerate() {
        mode(shut, 0o700);
        let (watched, denied) = (round + 1, round + 2);
        let since = Instant::now();
        if round == 0 {
            watching.wait_for(root_is("watching"));
        } else {
            mode("way/in", 0o700);
            watching.wait_for_nth(watched, root_is("watching"));
        }
        slowest = slowest.max(since.elapsed());
        assert_new_temp_is_removed(
            &mut watching,
            &sandbox,
            &format!("way/in/t{round}.4194304.tmp"),
        );
        let next = ["way/in", "way", "way", "way"][round];
        let since = Instant::now();
        mode(next, 0o000);
        watching.wait_for_nth(denied, root_is("denied"));
        slowest = slowest.max(since.elapsed());
    }
    mode("way", 0o700);
    watching.wait_for_nth(5, root_is("watching"));
    println!("a chmod was noticed within {slowest:?} at worst");
    watching.stop().exit(0);
}

/// The exit code of a watch shows that a root was not watched in the end.
#[test]
fn a_root_that_cannot_be_read_is_a_failure() {
    let sandbox = Sandbox::ordinary();
    sandbox.make_dir("in");
    let mode = |mode: u32| {
        fs::set_permissions(sandbox.path("in"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o000);
    let args = ["--grace", "200ms", "root", "root/in"];
    let mut watching = sandbox.watch_dirs(args).ready();
    watching.wait_for(root_is("denied"));
    watching.wait_for_sentinel(&sandbox);
    watching.stop().exit(3);
    mode(0o700);
}

/// An idle watcher must not wake up: a chmod of a file in a root is ignored.
#[test]
fn irrelevant_changes_wake_no_thread() {
    let sandbox = Sandbox::new().file("a", "x").file("b", "x").dir("sub");
    let mut watching = sandbox.watch(SHORT).ready();
    watching.wait_for_sentinel(&sandbox);
    let before = stable_sleep_counts(watching.pid());
    for n in 0..500 {
        let mode = fs::Permissions::from_mode(0o600 + n % 2);
        fs::set_permissions(sandbox.path("a"), mode).unwrap();
        sandbox.write("b", n.to_string());
        sandbox.write("sub/c", n.to_string());
        fs::read_dir(sandbox.root()).unwrap().for_each(drop);
    }
    let after = stable_sleep_counts(watching.pid());
    // One file was created in an unwatched directory; no other change causes an event at all.
    assert_eq!(before, after, "a thread was woken");
    watching.stop().exit(0);
}

/// Returns the number of sleeps of each thread of a process, once these numbers are stable. The first notify
/// thread is left out: it watches the folders above the root, in which other tests work.
fn stable_sleep_counts(pid: u32) -> BTreeMap<String, u64> {
    let now = || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let sleeps = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let word = |of: &str| {
                let line = status.lines().find(|line| line.starts_with(of))?;
                Some(line[of.len()..].trim().to_owned())
            };
            let name = format!("{} {:>9}", word("Name:")?, word("Pid:")?);
            let times = word("voluntary_ctxt_switches:")?;
            Some((name, times.parse::<u64>().ok()?))
        };
        let mut threads: BTreeMap<String, u64> = tasks.filter_map(sleeps).collect();
        let first = threads.keys().find(|name| name.starts_with("notify"));
        let first = first.expect("a notify thread").clone();
        threads.remove(&first);
        threads
    };
    let end = Instant::now() + DEADLINE;
    let mut last = (now(), Instant::now());
    // Longer than any delayed work after an event.
    while last.1.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
        let now = now();
        assert!(Instant::now() < end, "its threads never rest: {now:?}");
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

fn mount(what: &str, on: &Path) {
    let mut command = Command::new("mount");
    match what {
        "tmpfs" => command.args(["-t", "tmpfs", "tmpfs"]),
        other => command.args(["--bind", other]),
    };
    assert!(command.arg(on).run_to_end().unwrap().success());
}

fn umount(on: &Path, lazily: bool) {
    let mut command = Command::new("umount");
    if lazily {
        command.arg("--lazy");
    }
    assert!(command.arg(on).run_to_end().unwrap().success());
}

/// Files under a mount are not at the root's path: they are ignored until the mount is removed.
#[test]
fn a_mount_over_the_root_is_noticed() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().dir("way/in");
        let root = sandbox.path("way/in");
        let mut watching = sandbox.watch_dirs(["--grace", "1s", "root/way/in"]).ready();
        let mut slowest = Duration::ZERO;
        let mut returned = 0;
        for lazily in [false, true] {
            let under = format!("way/in/under-{lazily}.4194304.tmp");
            sandbox.write(&under, "");
            let since = Instant::now();
            mount("tmpfs", &root);
            returned += 1;
            watching.wait_for_nth(returned, rescan("root-returned"));
            slowest = slowest.max(since.elapsed());
            assert_new_temp_is_removed(&mut watching, &sandbox, "way/in/over.4194304.tmp");
            watching.wait_for_sentinel_in(&sandbox, "way/in");
            let about = watching
                .events()
                .about(&format!("under-{lazily}.4194304.tmp"));
            assert_eq!(about, [""; 0], "a covered temp was reported");
            let open = fs::File::create(sandbox.path("way/in/open")).unwrap();
            let since = Instant::now();
            if !lazily {
                drop(open);
            }
            umount(&root, lazily);
            returned += 1;
            watching.wait_for_nth(returned, rescan("root-returned"));
            slowest = slowest.max(since.elapsed());
            wait_for_removal(&mut watching, &sandbox, &under);
        }
        // A folder on the path to it.
        sandbox.write("way/in/under-way.4194304.tmp", "");
        let since = Instant::now();
        mount("tmpfs", &sandbox.path("way"));
        watching.wait_for(root_is("gone"));
        slowest = slowest.max(since.elapsed());
        assert_new_temp_is_removed(&mut watching, &sandbox, "way/in/new.4194304.tmp");
        let since = Instant::now();
        umount(&sandbox.path("way"), false);
        watching.wait_for(is("reaped", "under-way.4194304.tmp"));
        println!(
            "a mount was noticed within {slowest:?} at worst; the last one: {:?}",
            since.elapsed()
        );
        assert_new_temp_is_removed(&mut watching, &sandbox, "way/in/end.4194304.tmp");
        watching.stop().exit(0);
    });
}

/// The file system of a folder on the path to the root was unmounted and mounted again unnoticed: the folder
/// looks the same, but its watch ended with the mount.
#[test]
fn a_remounted_parent_is_watched_again() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().dir("way").dir("other");
        let disk = match LoopDisk::new(&sandbox.base().join("image")) {
            Ok(disk) => disk,
            Err(why) => return report_skipped(&why),
        };
        let (parent, root) = (sandbox.path("way"), sandbox.path("way/in"));
        disk.mount(&parent);
        fs::create_dir(&root).unwrap();
        let args = ["--grace", "500ms", "root/way/in", "root/other"];
        let mut watching = sandbox.watch_dirs(args).ready();
        let stopped = PausedProcess::new(&watching);
        umount(&parent, false);
        disk.mount(&parent);
        drop(stopped);
        watching.wait_for(rescan("root-returned"));
        assert_new_temp_is_removed(&mut watching, &sandbox, "way/in/a.4194304.tmp");
        fs::remove_dir(&root).unwrap();
        watching.wait_for(root_is("gone"));
        // By then the consequences of its removal are done: only the watch on its parent reports what is
        // created later.
        watching.wait_for_sentinel_in(&sandbox, "other");
        fs::create_dir(&root).unwrap();
        assert_new_temp_is_removed(&mut watching, &sandbox, "way/in/b.4194304.tmp");
        watching.stop().exit(0);
        umount(&parent, true);
    });
}

/// A small disk, always on the same device, until this is dropped.
struct LoopDisk(String);

impl LoopDisk {
    fn new(image: &Path) -> Result<LoopDisk, String> {
        fs::File::create(image).unwrap().set_len(8 << 20).unwrap();
        let done = |command: &mut Command| match command.collect_output() {
            Ok(done) if done.status.success() => Ok(done.stdout),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
            Err(error) => Err(format!("{command:?}: {error}")),
        };
        done(Command::new("mkfs.ext4").arg("-q").arg(image))?;
        let device = done(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(image),
        )?;
        Ok(LoopDisk(
            String::from_utf8(device).unwrap().trim().to_owned(),
        ))
    }

    fn mount(&self, on: &Path) {
        let mounted = Command::new("mount").arg(&self.0).arg(on).run_to_end();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // If it is still mounted, it is detached with the mount, which ends with this process.
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .run_to_end();
    }
}

/// Another mount below a root is not entered; when it is removed, the files under it are watched again.
#[test]
fn a_mount_below_the_root_is_not_entered() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().dir("sub/deep").dir("with space");
        let (sub, space) = (sandbox.path("sub"), sandbox.path("with space"));
        mount("tmpfs", &space);
        let mut watching = sandbox.watch(["--grace", "500ms", "-r"]).ready();
        sandbox.write("sub/deep/under.4194304.tmp", "");
        mount("tmpfs", &sub);
        sandbox.write("sub/over.4194304.tmp", "");
        sandbox.write("with space/over.4194304.tmp", "");
        watching.wait_for_sentinel(&sandbox);
        watching.wait_for_sentinel(&sandbox);
        for file in ["under.4194304.tmp", "over.4194304.tmp"] {
            assert_eq!(watching.events().about(file), [""; 0]);
        }
        umount(&sub, false);
        wait_for_removal(&mut watching, &sandbox, "sub/deep/under.4194304.tmp");
        assert_new_temp_is_removed(&mut watching, &sandbox, "sub/deep/a.4194304.tmp");
        // A mount covered it when the watch began.
        umount(&space, false);
        // Its watch is set shortly after; until then a scan finds a new temp.
        assert_new_temp_is_removed(&mut watching, &sandbox, "with space/b.4194304.tmp");
        let (outside, root) = (sandbox.base().join("outside"), sandbox.root());
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("bound.4194304.tmp"), "").unwrap();
        mount(outside.to_str().unwrap(), &root.join("sub"));
        watching.wait_for_sentinel(&sandbox);
        watching.wait_for_sentinel(&sandbox);
        assert!(outside.join("bound.4194304.tmp").exists());
        watching.stop().exit(0);
    });
}

/// A mount outside every root is checked and ignored.
#[test]
fn a_mount_elsewhere_is_ignored() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().dir("../elsewhere");
        let mut watching = sandbox.watch(DEEP).ready();
        for _ in 0..5 {
            mount("tmpfs", &sandbox.base().join("elsewhere"));
            umount(&sandbox.base().join("elsewhere"), false);
        }
        watching.wait_for_sentinel(&sandbox);
        let events = watching.stop().exit(0).events;
        assert_eq!(events.of("rescan").len(), 1, "the one at the start");
        assert_eq!(events.of("root").len(), 0);
        assert_eq!(events.of("reaped").len(), 1);
        assert!(
            events
                .of("reaped")
                .into_iter()
                .all(|event| name(event).starts_with("sentinel"))
        );
    });
}
