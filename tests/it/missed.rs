//! Nothing is missed: events that are lost, limits that are reached, threads that die or hear
//! nothing, roots that go, are shut or are mounted over. No test here waits for the scan by time,
//! which comes once an hour, unless it says so: what is noticed was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orphand::Watcher;
use orphand::decide::policy::{Graces, Policy};
use orphand::event::{Cause, Event, RootState};
use serde_json::Value;

use crate::fake_env::{FakeEnv, Trouble};
use crate::fixture::{As, EVERYBODY, alone, skipped};
use crate::sandbox::{Begin, DEADLINE, Sandbox, Watching, is, name, signal};

const SHORT: [&str; 2] = ["--grace", "200ms"];
const DEEP: [&str; 3] = ["--grace", "200ms", "-r"];

fn root_is(state: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["event"] == "root" && event["state"] == state
}

fn rescan(cause: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["event"] == "rescan" && event["cause"] == cause
}

fn count(watching: &Watching, wanted: impl Fn(&Value) -> bool) -> usize {
    watching
        .events()
        .0
        .iter()
        .filter(|event| wanted(event))
        .count()
}

/// A temp of this name is made, and taken.
#[track_caller]
fn takes(watching: &mut Watching, sandbox: &Sandbox, temp: &str) {
    sandbox.write(temp, "");
    taken(watching, sandbox, temp);
}

#[track_caller]
fn taken(watching: &mut Watching, sandbox: &Sandbox, temp: &str) {
    let path = sandbox.path(temp);
    watching
        .wait_for(|event| event["event"] == "reaped" && event["path"] == path.to_str().unwrap());
}

/// Waits until no temp is left below the root.
#[track_caller]
fn all_taken(watching: &Watching, sandbox: &Sandbox) {
    let mut left = BTreeSet::new();
    // As long as something goes there is no hurry.
    let mut end = Instant::now() + DEADLINE;
    loop {
        let now = temps(&sandbox.root());
        if now.is_empty() {
            return;
        }
        if now != left {
            left = now;
            end = Instant::now() + DEADLINE;
        }
        assert!(
            Instant::now() < end,
            "{} are left: {:?}\n{}",
            left.len(),
            left.first(),
            watching.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
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

/// The same once no claim is among them: what was claimed just before its directory was moved away has its
/// name back by then, or is gone.
fn at_rest(dir: &Path) -> BTreeSet<PathBuf> {
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

/// Stopped, until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(watching: &Watching) -> Stopped {
        watching.signal(libc::SIGSTOP);
        Stopped(watching.pid())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

/// More than the queue of the kernel holds, while nobody reads it; directories among them come, go
/// and change places.
#[test]
fn twenty_thousand_leaks_while_it_is_stopped() {
    let sandbox = Sandbox::new()
        .dir("gone")
        .dir("left")
        .dir("right")
        .dir("old/deep");
    let mut watching = sandbox.watch(["--grace", "1s", "-r"]).ready();
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let leaks = queue.trim().parse::<usize>().unwrap().max(20_000) + 100;
    let stopped = Stopped::new(&watching);
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
    all_taken(&watching, &sandbox);
    // Whatever was done to the directories, each is heard by its name of now.
    for dir in ["gone", "left", "right", "new/deep", "made/7/deep", "old"] {
        takes(&mut watching, &sandbox, &format!("{dir}/later.4194304.tmp"));
    }
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.of("failed").len(), 0);
    let rescans = stopped.events.of("rescan").len();
    assert!(rescans <= 4, "one loss is one loss: {rescans} scans");
}

/// A queue of eight events: nearly everything is lost. Scans are bundled, and make none of it worse.
#[test]
fn a_queue_of_eight() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
    };
    fake_env.set_queue(8);
    let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
    let mut watching = Watching::start(fake_env.holds(sandbox.command(args))).ready();
    let stopped = Stopped::new(&watching);
    for n in 0..500 {
        sandbox.write(format!("stopped/{n}/a.4194304.tmp"), "");
        sandbox.write(format!("t{n}.4194304.tmp"), "");
    }
    drop(stopped);
    all_taken(&watching, &sandbox);
    // A writer that does not let go: every moment something is lost.
    let mut shell = sandbox.shell();
    let (began, before) = (Instant::now(), count(&watching, rescan("overflow")));
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(4) {
        rounds += 1;
        let line = format!(
            "mkdir -p storm/{rounds}; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do : > \
             storm/{rounds}/t$i.4194304.tmp; : > $i; mv $i $i.x; done"
        );
        assert!(shell.tell(&line));
    }
    all_taken(&watching, &sandbox);
    takes(&mut watching, &sandbox, "storm/1/later.4194304.tmp");
    let scans = count(&watching, rescan("overflow")) - before;
    // 100 ms, doubled each time: five within four seconds, and some for the rest.
    assert!(
        (1..=10).contains(&scans),
        "{scans} scans for {rounds} losses"
    );
    watching.stop().exit(0);
}

/// With a queue of eight the smallest event that a scan made would be lost, and be scanned for.
#[test]
fn scans_for_lost_events_do_not_feed_themselves() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
    };
    fake_env.set_queue(8);
    for n in 0..50 {
        sandbox.make_dir(format!("{n}"));
    }
    let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
    let mut watching = Watching::start(fake_env.holds(sandbox.command(args))).ready();
    let stopped = Stopped::new(&watching);
    for n in 0..50 {
        sandbox.write(format!("{n}/no-temp"), "");
    }
    drop(stopped);
    watching.wait_for(rescan("overflow"));
    let mut scans = 0;
    // They would come after 100, 200, 400 and 800 ms: all of them before more than a second is quiet.
    while scans < count(&watching, rescan("overflow")) {
        scans = count(&watching, rescan("overflow"));
        for _ in 0..6 {
            watching.outlive_a_sentinel(&sandbox);
        }
    }
    assert!(scans <= 3, "{scans} scans for one loss");
    watching.stop().exit(0);
}

/// The scan for lost events finds no descriptor to read the root with: it is made again.
#[test]
fn a_scan_for_lost_events_that_cannot_read() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
    };
    fake_env.set_queue(8);
    let args = ["watch", "--json", "--grace", "200ms", "root"];
    let mut watching = Watching::start(fake_env.holds(sandbox.command(args))).ready();
    // One that is open for a moment only would count as taken.
    let (mut last, mut same) = (BTreeSet::new(), 0);
    crate::fixture::wait_until("its descriptors rest", || {
        let now = open_descriptors(watching.pid());
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 200
    });
    let stopped = Stopped::new(&watching);
    for n in 0..50 {
        sandbox.write(format!("t{n}.4194304.tmp"), "");
    }
    // Enough to see that the root is there, and not to read it.
    let before = descriptors(watching.pid(), |taken| {
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
    descriptors(watching.pid(), |_| before);
    all_taken(&watching, &sandbox);
    watching.stop().exit(3);
}

/// Limits the descriptors of a process to numbers below what `choose` says, which is told those that it
/// has. The limit before.
fn descriptors(pid: u32, choose: impl FnOnce(&BTreeSet<u64>) -> u64) -> u64 {
    let taken = open_descriptors(pid);
    let pid = libc::pid_t::try_from(pid).unwrap();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: each is valid for its call; a null one is not touched.
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
fn thousands_of_directories_at_once() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(DEEP).ready();
    let mut shell = sandbox.shell();
    let make = "i=0; while [ $i -lt 3000 ]; do echo $((i % 30))/$i; i=$((i+1)); done > ../dirs; \
                xargs mkdir -p < ../dirs; sed 's/$/\\/a.4194304.tmp/' ../dirs | xargs touch";
    assert!(shell.tell(make));
    all_taken(&watching, &sandbox);
    for n in [0, 1, 1_499, 2_999] {
        takes(
            &mut watching,
            &sandbox,
            &format!("{}/{n}/b.4194304.tmp", n % 30),
        );
    }
    // And away with them, and some of them again.
    assert!(shell.tell("rm -rf * && mkdir -p 7/7 29/2999"));
    takes(&mut watching, &sandbox, "7/7/c.4194304.tmp");
    takes(&mut watching, &sandbox, "29/2999/c.4194304.tmp");
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.of("failed").len(), 0);
}

/// Only what is there at the start may go after the moment between two looks: the writer of a temp that
/// comes with its directory has half a grace.
#[test]
fn a_directory_that_comes_later_has_half_a_grace() {
    const GRACE: Duration = Duration::from_secs(4);
    let sandbox = Sandbox::new().dir("../outside");
    let outside = sandbox.base().join("outside");
    fs::write(outside.join("old.4194304.tmp"), "").unwrap();
    let mut watching = sandbox.watch(["--grace", "4s", "-r"]).ready();
    // As old as it has to be, by its dates.
    std::thread::sleep(GRACE);
    let moved = Instant::now();
    fs::rename(&outside, sandbox.path("inside")).unwrap();
    watching.wait_for(is("reaped", "old.4194304.tmp"));
    let had = moved.elapsed();
    assert!(had >= GRACE / 2, "it went after {had:?}");
    watching.stop().exit(0);
}

/// Directories that are made, moved about, moved out, moved in and deleted, in no order: in the end
/// no temp is left below the root, and outside of it all are.
#[test]
fn a_storm_of_directories() {
    let sandbox = Sandbox::new().dir("../outside");
    let mut watching = sandbox.watch(["--grace", "500ms", "-r"]).ready();
    let outside = sandbox.base().join("outside");
    // Any numbers will do, as long as they are the same each time.
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
        // Half of these fail, because what they need is not there or not empty: so be it.
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
    let spared = at_rest(&outside);
    assert!(!spared.is_empty(), "nothing was moved out: another seed");
    all_taken(&watching, &sandbox);
    // What is there is heard: no watch was lost on the way.
    fs::create_dir_all(sandbox.path("d1/e1/f")).unwrap();
    let dirs: Vec<PathBuf> = dirs(&sandbox.root());
    for dir in &dirs {
        fs::write(dir.join("last.4194304.tmp"), "").unwrap();
    }
    watching.wait_for_nth(dirs.len(), is("reaped", "last.4194304.tmp"));
    watching.outlive_a_sentinel(&sandbox);
    let (before, after) = (&spared, &temps(&outside));
    assert_eq!(before, after, "what is outside is nobody's business");
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

/// A user namespace has limits of its own, which whoever made it may set.
struct Limited<'a>(&'a Sandbox);

impl Limited<'_> {
    /// orphand in a namespace with such a limit.
    #[track_caller]
    fn watch(&self, limit: &str, most: u32, args: &[&str]) -> Watching {
        let script = format!("echo {most} > /proc/sys/user/{limit} && exec \"$@\"");
        let mut command = self.0.program("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
        command.arg(self.0.binary()).args(["watch", "--json"]);
        Watching::start({
            command.args(args).arg("root");
            command
        })
    }

    /// Sets the limit of the namespace that a watcher runs in.
    #[track_caller]
    fn set(&self, watching: &Watching, limit: &str, most: u32) {
        let mut command = self.0.program("nsenter");
        let namespace = format!("--user=/proc/{}/ns/user", watching.pid());
        let script = format!("echo {most} > /proc/sys/user/{limit}");
        command.args([&namespace, "--preserve-credentials", "sh", "-c", &script]);
        self.0.finish(command).exit(0);
    }
}

/// Runs for every user, where user namespaces can be had.
fn limited(test: impl Fn(&Sandbox, &Limited<'_>)) {
    Sandbox::each(|sandbox| {
        let mut command = sandbox.program("unshare");
        command.args(["--user", "--map-root-user", "true"]);
        match command.collect_output() {
            Ok(ran) if ran.status.success() => test(&sandbox, &Limited(&sandbox)),
            other => skipped(&format!("no user namespace can be had: {other:?}")),
        }
    });
}

/// It was said once, in words that nobody can take for a full disk, and with the cure.
#[track_caller]
fn says_the_limit(stderr: &str, fix: &str) {
    let said: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("cannot watch"))
        .collect();
    let [said] = said.as_slice() else {
        panic!("{} times: {stderr}", said.len());
    };
    assert!(
        said.contains("This has nothing to do with disk space"),
        "{said}"
    );
    assert!(said.contains(fix), "{said}");
    for wrong in ["No space", "no space", "ENOSPC", "os error 28", "full"] {
        assert!(!stderr.contains(wrong), "{wrong:?} in {stderr}");
    }
}

#[test]
fn no_room_for_another_watch() {
    limited(|sandbox, limited| {
        for n in 0..30 {
            sandbox.make_dir(format!("{n}/deep"));
        }
        // Enough for the way to the root, the root, and a few more.
        let room = sandbox.root().ancestors().count() + 5;
        let limit = "max_inotify_watches";
        let mut watching = limited.watch(limit, room as u32, &DEEP);
        watching.wait_for(root_is("polling"));
        let mut watching = watching.ready();
        for n in 0..30 {
            sandbox.write(format!("{n}/deep/a.4194304.tmp"), "");
        }
        // Directories that come meanwhile as well.
        sandbox.write("later/deep/a.4194304.tmp", "");
        watching.wait_for_nth(31, is("reaped", "a.4194304.tmp"));
        watching.wait_for_nth(3, rescan("periodic"));
        assert_eq!(count(&watching, root_is("polling")), 1, "once");
        says_the_limit(&watching.stderr(), "sysctl fs.inotify.max_user_watches=");
        limited.set(&watching, limit, 10_000);
        watching.wait_for(root_is("watching"));
        for n in 0..30 {
            sandbox.write(format!("{n}/deep/b.4194304.tmp"), "");
        }
        watching.wait_for_nth(30, is("reaped", "b.4194304.tmp"));
        // All is watched, so nothing is scanned any more.
        let before = count(&watching, rescan("periodic"));
        for _ in 0..3 {
            watching.outlive_a_sentinel_in(sandbox, "29/deep");
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
fn no_room_for_the_root_or_the_way_to_it() {
    limited(|sandbox, limited| {
        let instances = "fs.inotify.max_user_instances=";
        for (limit, most, fix) in [
            ("max_inotify_watches", 1, "fs.inotify.max_user_watches="),
            ("max_inotify_instances", 1, instances),
            ("max_inotify_instances", 0, instances),
        ] {
            let mut watching = limited.watch(limit, most, &SHORT);
            watching.wait_for(root_is("polling"));
            let mut watching = watching.ready();
            takes(&mut watching, sandbox, "a.4194304.tmp");
            let stderr = watching.stderr();
            let (about_way, about_root): (Vec<_>, Vec<_>) = stderr
                .lines()
                .partition(|line| line.contains("parent directories"));
            says_the_limit(&about_root.join("\n"), fix);
            if !about_way.is_empty() {
                says_the_limit(&about_way.join("\n"), fix);
            }
            // It is replaced, and nobody can hear that.
            let away = sandbox.base().join(format!("{limit}-{most}"));
            fs::rename(sandbox.root(), &away).unwrap();
            sandbox.make_dir("");
            takes(&mut watching, sandbox, "b.4194304.tmp");
            fs::write(away.join("c.4194304.tmp"), "").unwrap();
            limited.set(&watching, limit, 1_000);
            watching.wait_for(root_is("watching"));
            watching.outlive_a_sentinel(sandbox);
            watching.outlive_a_sentinel(sandbox);
            assert!(
                away.join("c.4194304.tmp").exists(),
                "no more at the root's path"
            );
            watching.stop().exit(0);
        }
    });
}

/// notify's thread ends over a system call that fails; another hears on.
#[test]
fn a_thread_of_notifys_that_dies() {
    let sandbox = Sandbox::new().dir("sub");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
    };
    for trouble in [Trouble::Die, Trouble::Error, Trouble::Die] {
        let args = ["watch", "--json", "--grace", "200ms", "-r", "root"];
        let mut watching = Watching::start(fake_env.holds(sandbox.command(args))).ready();
        fake_env.trouble(trouble);
        // Its event is lost with the thread that was to hear it.
        sandbox.write("sub/a.4194304.tmp", "");
        watching.wait_for(rescan("overflow"));
        taken(&mut watching, &sandbox, "sub/a.4194304.tmp");
        assert!(fake_env.has_struck());
        takes(&mut watching, &sandbox, "sub/b.4194304.tmp");
        takes(&mut watching, &sandbox, "new/c.4194304.tmp");
        fs::remove_dir_all(sandbox.path("new")).unwrap();
        let said = watching.stderr();
        assert!(said.contains("re-establishing"), "{said}");
        // One that reads nothing but errors is no more at it: those for roots and parents are left.
        let end = Instant::now() + DEADLINE;
        while listeners(watching.pid()) > 2 {
            assert!(Instant::now() < end, "a thread is still at it");
            std::thread::sleep(Duration::from_millis(20));
        }
        watching.stop().exit(0);
    }
}

/// How many threads of notify's a process has.
fn listeners(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("notify")).count()
}

/// The one that hears of the roots' parents dies: a root that goes and comes is heard all the same.
#[test]
fn the_thread_that_hears_of_parents_dies() {
    let sandbox = Sandbox::new();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
    };
    let args = ["watch", "--json", "--grace", "200ms", "root"];
    let mut watching = Watching::start(fake_env.holds(sandbox.command(args))).ready();
    fake_env.trouble(Trouble::Die);
    // Something in the parent that concerns nobody.
    sandbox.write("../beside", "");
    watching.wait_for(rescan("overflow"));
    fs::remove_dir_all(sandbox.root()).unwrap();
    watching.wait_for(root_is("gone"));
    sandbox.make_dir("");
    watching.wait_for(root_is("watching"));
    takes(&mut watching, &sandbox, "a.4194304.tmp");
    watching.stop().exit(0);
}

/// The one that hears of the configuration file dies: what changes just then is read, and what changes
/// later is heard.
#[test]
fn the_thread_that_hears_of_the_configuration_dies() {
    let sandbox = Sandbox::new().dir("a").dir("b");
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return skipped(&why),
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
    let mut watching = Watching::start(fake_env.holds(command)).ready();
    // Nobody else hears anything now.
    fake_env.trouble(Trouble::Die);
    configure("b");
    taken(&mut watching, &sandbox, "b/y.4194304.tmp");
    assert!(fake_env.has_struck());
    sandbox.write("a/z.4194304.tmp", "");
    configure("a");
    taken(&mut watching, &sandbox, "a/z.4194304.tmp");
    watching.stop().exit(0);
}

fn policy(grace: Duration) -> Policy {
    Policy {
        grace: Graces::both(grace),
        ..Policy::default()
    }
}

/// The next event for which this holds.
#[track_caller]
fn next(watcher: &Watcher, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let end = Instant::now() + DEADLINE;
    loop {
        match watcher.events().recv_deadline(end) {
            Ok(event) if wanted(&event) => return event,
            Ok(_) => {}
            Err(why) => panic!("{why}: it did not come"),
        }
    }
}

/// All watches on a directory are gone from this process, as the kernel takes them away: nobody is
/// told of it.
fn silence(dir: &Path) {
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

/// More leaks than are kept track of: the rest is found when there is room again.
#[test]
fn more_than_there_is_room_for() {
    alone(EVERYBODY, || {
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
        // Not what is there: on a slow machine some are gone by now, and some go by their claims' names.
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

/// A watch that is dead makes no event, not even about its end. The scan by time finds what it
/// should have told of, and that is the proof.
#[test]
fn a_watch_that_has_gone_silent() {
    alone(EVERYBODY, || {
        let sandbox = Sandbox::new();
        let grace = Duration::from_millis(500);
        let watcher = Watcher::builder()
            .root(sandbox.root(), policy(grace))
            // Longer than the time after which a temp should have been heard of.
            .rescan_every(Duration::from_secs(5))
            .verbose(true)
            .start()
            .unwrap();
        next(&watcher, |event| matches!(event, Event::Ready { .. }));
        silence(&sandbox.root());
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
                    cause: Cause::Overflow,
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
        // Only an event is told like this.
        next(&watcher, |event| match event {
            Event::Tracked { subject, .. } => subject.path.ends_with("b.4194304.tmp"),
            _ => false,
        });
    });
}

/// What is scanned by time is read when nobody else wants to read; after that the thread is as it
/// was.
#[test]
fn the_scan_by_time_gives_way() {
    alone(EVERYBODY, || {
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
            // None, idle, none again.
            let class = io_class(supervisor);
            let wanted = if seen.len() == 1 { 3 } else { 0 };
            if class == wanted {
                seen.insert((seen.len(), class));
            }
            while watcher.events().try_recv().is_ok() {}
        }
        // Its timer sleeps without a limit by now, or until half a minute is over.
        let stopping = Instant::now();
        drop(watcher);
        let took = stopping.elapsed();
        assert!(took < Duration::from_secs(10), "it took {took:?} to stop");
    });
}

/// The thread of this process that has such a name.
fn thread(name: &str) -> i32 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let is_it = |task: &fs::DirEntry| {
        let said = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        said.trim() == name
    };
    let task = tasks.into_iter().find(is_it).expect(name);
    task.file_name().to_str().unwrap().parse().unwrap()
}

/// The class of I/O priority of a thread: 0 none, 3 idle (linux/ioprio.h).
fn io_class(thread: i32) -> i64 {
    const WHO_THREAD: i32 = 1;
    // SAFETY: two numbers in, one out.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, thread) };
    assert!(priority >= 0, "{}", std::io::Error::last_os_error());
    priority >> 13
}

#[test]
fn a_parent_that_is_renamed_away_and_replaced() {
    let sandbox = Sandbox::new();
    let (way, away) = (sandbox.path("a"), sandbox.path("away"));
    sandbox.make_dir("a/b/c");
    let args = ["--grace", "500ms", "root/a/b/c"];
    let mut watching = sandbox.watch_dirs(args).ready();
    for round in 1..=3 {
        sandbox.write("a/b/c/kept.4194304.tmp", "");
        fs::rename(&way, &away).unwrap();
        sandbox.write(format!("a/b/c/t{round}.4194304.tmp"), "");
        watching.wait_for(is("reaped", &format!("t{round}.4194304.tmp")));
        let again = format!("t{round}.again.4194304.tmp");
        takes(&mut watching, &sandbox, &format!("a/b/c/{again}"));
        assert!(
            away.join("b/c/kept.4194304.tmp").exists(),
            "it is no more at the root's path"
        );
        fs::remove_dir_all(&away).unwrap();
    }
    // Back again, the very same: what was away is at the root's path again.
    fs::rename(&way, &away).unwrap();
    watching.wait_for(root_is("gone"));
    fs::write(away.join("b/c/back.4194304.tmp"), "").unwrap();
    fs::rename(&away, &way).unwrap();
    watching.wait_for(is("reaped", "back.4194304.tmp"));
    watching.stop().exit(0);
}

/// A root or a folder above it that may not be entered: said, left alone, and noticed when it may.
#[test]
fn a_root_that_is_shut_and_opened() {
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
        takes(
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

/// Waking up is what an idle watcher must not do: a chmod of what lies in a root is no news.
#[test]
fn what_does_not_matter_wakes_nobody() {
    let sandbox = Sandbox::new().file("a", "x").file("b", "x").dir("sub");
    let mut watching = sandbox.watch(SHORT).ready();
    watching.outlive_a_sentinel(&sandbox);
    let before = settled(watching.pid());
    for n in 0..500 {
        let mode = fs::Permissions::from_mode(0o600 + n % 2);
        fs::set_permissions(sandbox.path("a"), mode).unwrap();
        sandbox.write("b", n.to_string());
        sandbox.write("sub/c", n.to_string());
        fs::read_dir(sandbox.root()).unwrap().for_each(drop);
    }
    let after = settled(watching.pid());
    // One file was made in a directory that nobody watches; nothing else could be heard at all.
    assert_eq!(before, after, "how often its threads have slept");
    watching.stop().exit(0);
}

/// How often the threads of a process have gone to sleep, once that number stays. The first of
/// notify's is left out: it hears of the folders above the root, in which other tests are at work.
fn settled(pid: u32) -> BTreeMap<String, u64> {
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
        let first = first.expect("a thread of notify's").clone();
        threads.remove(&first);
        threads
    };
    let end = Instant::now() + DEADLINE;
    let mut last = (now(), Instant::now());
    // Longer than everything that comes by itself after something has happened.
    while last.1.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(20));
        let now = now();
        assert!(Instant::now() < end, "it never sleeps: {now:?}");
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
    assert!(command.arg(on).ended().unwrap().success());
}

fn umount(on: &Path, lazily: bool) {
    let mut command = Command::new("umount");
    if lazily {
        command.arg("--lazy");
    }
    assert!(command.arg(on).ended().unwrap().success());
}

/// What lies under a mount is not at the root's path: it is left alone until it is again.
#[test]
fn a_root_that_is_mounted_over_and_unmounted() {
    alone(&[As::Mounts], || {
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
            takes(&mut watching, &sandbox, "way/in/over.4194304.tmp");
            watching.outlive_a_sentinel_in(&sandbox, "way/in");
            let about = watching
                .events()
                .about(&format!("under-{lazily}.4194304.tmp"));
            assert_eq!(about, [""; 0], "it is not there to be seen");
            let open = fs::File::create(sandbox.path("way/in/open")).unwrap();
            let since = Instant::now();
            if !lazily {
                drop(open);
            }
            umount(&root, lazily);
            returned += 1;
            watching.wait_for_nth(returned, rescan("root-returned"));
            slowest = slowest.max(since.elapsed());
            taken(&mut watching, &sandbox, &under);
        }
        // A folder on the way to it.
        sandbox.write("way/in/under-way.4194304.tmp", "");
        let since = Instant::now();
        mount("tmpfs", &sandbox.path("way"));
        watching.wait_for(root_is("gone"));
        slowest = slowest.max(since.elapsed());
        takes(&mut watching, &sandbox, "way/in/new.4194304.tmp");
        let since = Instant::now();
        umount(&sandbox.path("way"), false);
        watching.wait_for(is("reaped", "under-way.4194304.tmp"));
        println!(
            "a mount was noticed within {slowest:?} at worst; the last one: {:?}",
            since.elapsed()
        );
        takes(&mut watching, &sandbox, "way/in/end.4194304.tmp");
        watching.stop().exit(0);
    });
}

/// A folder on the way to the root whose file system went and came back before anybody looked: it is
/// the same in all that can be seen of it, but its watch ended with the mount.
#[test]
fn a_parent_that_is_unmounted_and_mounted_again() {
    alone(&[As::Mounts], || {
        let sandbox = Sandbox::new().dir("way").dir("other");
        let disk = match Loop::new(&sandbox.base().join("image")) {
            Ok(disk) => disk,
            Err(why) => return skipped(&why),
        };
        let (way, root) = (sandbox.path("way"), sandbox.path("way/in"));
        disk.mount(&way);
        fs::create_dir(&root).unwrap();
        let args = ["--grace", "500ms", "root/way/in", "root/other"];
        let mut watching = sandbox.watch_dirs(args).ready();
        let stopped = Stopped::new(&watching);
        umount(&way, false);
        disk.mount(&way);
        drop(stopped);
        watching.wait_for(rescan("root-returned"));
        takes(&mut watching, &sandbox, "way/in/a.4194304.tmp");
        fs::remove_dir(&root).unwrap();
        watching.wait_for(root_is("gone"));
        // What follows from its going has been done then: only the watch on its parent tells of what
        // comes.
        watching.outlive_a_sentinel_in(&sandbox, "other");
        fs::create_dir(&root).unwrap();
        takes(&mut watching, &sandbox, "way/in/b.4194304.tmp");
        watching.stop().exit(0);
        umount(&way, true);
    });
}

/// A small disk, always the same device, until this is dropped.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Result<Loop, String> {
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
        Ok(Loop(String::from_utf8(device).unwrap().trim().to_owned()))
    }

    fn mount(&self, on: &Path) {
        let mounted = Command::new("mount").arg(&self.0).arg(on).ended();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Where it is still mounted it goes with the mount, and that with this process.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).ended();
    }
}

/// Below a root another mount is not entered; when it goes, what was under it is heard of again.
#[test]
fn a_directory_below_that_is_mounted_over() {
    alone(&[As::Mounts], || {
        let sandbox = Sandbox::new().dir("sub/deep").dir("with space");
        let (sub, space) = (sandbox.path("sub"), sandbox.path("with space"));
        mount("tmpfs", &space);
        let mut watching = sandbox.watch(["--grace", "500ms", "-r"]).ready();
        sandbox.write("sub/deep/under.4194304.tmp", "");
        mount("tmpfs", &sub);
        sandbox.write("sub/over.4194304.tmp", "");
        sandbox.write("with space/over.4194304.tmp", "");
        watching.outlive_a_sentinel(&sandbox);
        watching.outlive_a_sentinel(&sandbox);
        for file in ["under.4194304.tmp", "over.4194304.tmp"] {
            assert_eq!(watching.events().about(file), [""; 0]);
        }
        umount(&sub, false);
        taken(&mut watching, &sandbox, "sub/deep/under.4194304.tmp");
        takes(&mut watching, &sandbox, "sub/deep/a.4194304.tmp");
        // It was mounted over when the watch began.
        umount(&space, false);
        // Its watch stands within the moment; until then a temp is found by the scan after it.
        takes(&mut watching, &sandbox, "with space/b.4194304.tmp");
        let (outside, root) = (sandbox.base().join("outside"), sandbox.root());
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("bound.4194304.tmp"), "").unwrap();
        mount(outside.to_str().unwrap(), &root.join("sub"));
        watching.outlive_a_sentinel(&sandbox);
        watching.outlive_a_sentinel(&sandbox);
        assert!(outside.join("bound.4194304.tmp").exists());
        watching.stop().exit(0);
    });
}

/// A mount that has nothing to do with any root is looked at and forgotten.
#[test]
fn a_mount_elsewhere_is_no_news() {
    alone(&[As::Mounts], || {
        let sandbox = Sandbox::new().dir("../elsewhere");
        let mut watching = sandbox.watch(DEEP).ready();
        for _ in 0..5 {
            mount("tmpfs", &sandbox.base().join("elsewhere"));
            umount(&sandbox.base().join("elsewhere"), false);
        }
        watching.outlive_a_sentinel(&sandbox);
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
