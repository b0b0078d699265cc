//! A watcher as it runs for years: by a configuration file that changes under it, under a supervisor
//! that wants signs of life, with a log, metrics and `status`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orphand::Watcher;
use orphand::decide::policy::{Graces, Policy};
use orphand::reap::Hook;
use serde_json::Value;

use crate::sandbox::{Begin, DEADLINE, Sandbox, Watching, is, is_root, kept};

/// A configuration file for the roots `names`, all with the grace `grace`.
fn config(sandbox: &Sandbox, grace: &str, names: &[&str], more: &str) -> PathBuf {
    let mut text = format!("[defaults]\ngrace = \"{grace}\"\n{more}\n");
    for name in names {
        let path = sandbox.path(name);
        text.push_str(&format!("[[watch]]\npath = {path:?}\n"));
    }
    put(sandbox, &text)
}

/// Puts `text` in the place of the configuration file, as editors do: beside it, then renamed.
fn put(sandbox: &Sandbox, text: &str) -> PathBuf {
    let folder = sandbox.base().join("config/orphand");
    fs::create_dir_all(&folder).unwrap();
    sandbox.give(&folder);
    let (new, path) = (folder.join("new"), folder.join("config.toml"));
    fs::write(&new, text).unwrap();
    sandbox.give(&new);
    fs::rename(&new, &path).unwrap();
    path
}

fn watch(sandbox: &Sandbox) -> Watching {
    Watching::start(sandbox.command(["watch", "--json"]))
}

/// Puts something in the place of the folder of locks, so that none can be made.
fn no_locks(sandbox: &Sandbox) -> PathBuf {
    let runtime = sandbox.base().join("runtime");
    fs::create_dir_all(&runtime).unwrap();
    sandbox.give(&runtime);
    let locks = runtime.join("orphand");
    fs::write(&locks, "no folder").unwrap();
    locks
}

fn two_roots() -> Sandbox {
    Sandbox::new().dir("a").dir("b")
}

/// Waits until this holds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_root_that_is_listed_later_is_watched_and_one_that_is_not_any_more_is_left_alone() {
    let sandbox = two_roots();
    config(&sandbox, "200ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    sandbox.write("b/before.4194304.tmp", "");
    sandbox.write("a/x.4194304.tmp", "");
    watch.wait_for(is("reaped", "x.4194304.tmp"));
    config(&sandbox, "200ms", &["b"], "");
    watch.wait_for(is("reaped", "before.4194304.tmp"));
    sandbox.write("a/left-alone.4194304.tmp", "");
    sandbox.write("b/y.4194304.tmp", "");
    watch.wait_for(is("reaped", "y.4194304.tmp"));
    watch.outlive_a_sentinel_in(&sandbox, "b");
    assert!(sandbox.has("a/left-alone.4194304.tmp"), "its rule is gone");
    // Its lock is free as well.
    sandbox
        .run(["sweep", "--yes", "--json", "--grace", "100ms", "root/a"])
        .exit(0);
    let stopped = watch.stop();
    assert_eq!(stopped.events.names("failed"), [""; 0]);
}

#[test]
fn what_is_known_of_a_temp_stands_when_its_rule_changes() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    sandbox.write("a/long.4194304.tmp", "");
    // A holder is remembered, and a shorter grace holds for what waits already.
    let mut shell = sandbox.shell();
    shell.tell("exec 9>>a/held.tmp");
    config(&sandbox, "300ms", &["a"], "");
    watch.wait_for(is("reaped", "long.4194304.tmp"));
    watch.wait_for(kept("held.tmp", "in-use"));
    assert!(sandbox.has("a/held.tmp"));
    watch.stop();
}

/// What a temp was given credit for by the old rule is no more than half the new grace: whoever closed it
/// before the first look has half of that left when the rules change.
#[test]
fn a_shorter_grace_leaves_its_writer_half_of_it() {
    let (name, half) = (
        "a.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b.tmp",
        Duration::from_millis(2_500),
    );
    let sandbox = two_roots();
    config(&sandbox, "10s", &["a"], "fixed_name_grace = \"5s\"");
    let mut watch = watch(&sandbox).ready();
    let path = format!("a/{name}");
    sandbox.write(&path, "");
    sandbox.write("a/looked", "whole, to the last byte of it");
    sandbox.write("a/looked.tmp", "old");
    // Half the other one's grace is over then, and it was looked at.
    watch.wait_for(is("reaped", "looked.tmp"));
    let changed = Instant::now();
    config(&sandbox, "5s", &["a"], "");
    watch.wait_for(is("reaped", name));
    let left = changed.elapsed();
    assert!(left >= half, "gone {left:?} after the rules had changed");
    watch.stop();
}

/// A root that is listed later, or again, may have live writers who never heard of the end of their grace.
#[test]
fn a_root_that_is_listed_later_leaves_its_writers_half_a_grace() {
    let sandbox = two_roots();
    config(&sandbox, "4s", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    sandbox.write("b/old.4194304.tmp", "");
    sandbox.write("a/a.4194304.tmp", "");
    watch.wait_for(is("reaped", "a.4194304.tmp"));
    let listed = Instant::now();
    config(&sandbox, "4s", &["a", "b"], "");
    watch.wait_for(is("reaped", "old.4194304.tmp"));
    let left = listed.elapsed();
    assert!(left >= Duration::from_secs(2), "gone after {left:?}");
    watch.stop();
}

/// What was there before is left alone by other rules too.
#[test]
fn what_is_left_alone_is_left_alone_by_other_rules() {
    let sandbox = two_roots();
    sandbox.write("a/a.4194304.tmp", "");
    config(&sandbox, "1h", &["a"], "");
    let leaving = sandbox.command(["watch", "--json", "--existing", "leave"]);
    let mut watch = Watching::start(leaving).ready();
    sandbox.write("a/new.4194304.tmp", "");
    config(&sandbox, "200ms", &["a"], "");
    watch.wait_for(is("reaped", "new.4194304.tmp"));
    watch.outlive_a_sentinel_in(&sandbox, "a");
    assert!(sandbox.has("a/a.4194304.tmp"));
    watch.stop();
}

#[test]
fn the_new_rule_holds_for_what_it_forbids() {
    let sandbox = two_roots();
    config(&sandbox, "200ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    config(&sandbox, "200ms", &["a"], "action = \"report\"");
    // Reported, not removed: the event says that nothing was done.
    until_reported(&mut watch, &sandbox);
    watch.stop();
}

/// A report needs no lock. Where another orphand has that, no report becomes more.
#[test]
fn a_root_that_another_works_on_is_not_ours_by_a_reload() {
    let sandbox = two_roots();
    // To take up the new rules takes longer than the grace.
    (0..10_000).for_each(|n| fs::create_dir(sandbox.path(format!("b/{n}"))).unwrap());
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = Watching::start(other).ready();
    let rules = "recursive = true\nsole_copy = \"reap\"\n";
    let report = format!("{rules}action = \"report\"");
    config(&sandbox, "100ms", &["b", "a"], &report);
    let mut watch = watch(&sandbox).ready();
    sandbox.write("a/a.4194304.tmp", "");
    watch.wait_for(is("reaped", "a.4194304.tmp"));
    config(&sandbox, "100ms", &["b", "a"], rules);
    let a = sandbox.path("a").to_str().unwrap().to_owned();
    let is_a = |state| {
        let a = a.clone();
        move |event: &Value| {
            event["event"] == "root" && event["root"] == a && event["state"] == state
        }
    };
    watch.wait_for(is_a("denied"));
    sandbox.write("b/b.4194304.tmp", "");
    let reaped = watch.wait_for(is("reaped", "b.4194304.tmp"));
    assert_eq!(reaped["dry_run"], false);
    watch.outlive_a_sentinel_in(&sandbox, "b");
    assert!(
        sandbox.has("a/a.4194304.tmp"),
        "the other one's grace is an hour"
    );
    let by = format!("another orphand (pid {}) works on", other.pid());
    assert!(watch.stderr().contains(&by), "{}", watch.stderr());
    other.stop();
    watch.wait_for_nth(2, is("reaped", "a.4194304.tmp"));
    assert!(!sandbox.has("a/a.4194304.tmp"));
    let stopped = watch.stop();
    let states: Vec<&str> = stopped
        .events
        .of("root")
        .into_iter()
        .filter(|event| event["root"] == a)
        .filter_map(|event| event["state"].as_str())
        .collect();
    assert_eq!(states, ["denied", "watching"]);
}

/// The root inside of it has a lock of its own, and may have been scanned already.
#[test]
fn a_root_that_another_works_on_takes_nothing_from_one_inside_of_it() {
    let sandbox = Sandbox::new().dir("a").dir("a/inner");
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = Watching::start(other).ready();
    let (outer, inner) = (sandbox.path("a"), sandbox.path("a/inner"));
    let rules = format!(
        "[defaults]\ngrace = \"200ms\"\nsole_copy = \"reap\"\n[[watch]]\npath = {inner:?}\n"
    );
    put(&sandbox, &rules);
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    shell.tell("exec 9>>a/inner/held.tmp");
    watch.wait_for(kept("held.tmp", "in-use"));
    let more = "recursive = true\nexclude = [\"inner/**\"]\n";
    put(
        &sandbox,
        &format!("{rules}[[watch]]\npath = {outer:?}\n{more}"),
    );
    watch.wait_for(|event| event["event"] == "root" && event["state"] == "denied");
    shell.tell("exec 9>&-");
    watch.wait_for(is("reaped", "held.tmp"));
    watch.stop();
    other.stop();
}

/// What is known of its temps stands though it has no lock: of each is said once why it is kept.
#[test]
fn a_root_without_a_lock_is_worked_on_by_other_rules_too() {
    let sandbox = two_roots();
    // To take up the new rules takes longer than the grace.
    (0..10_000).for_each(|n| fs::create_dir(sandbox.path(format!("b/{n}"))).unwrap());
    no_locks(&sandbox);
    let rules = "recursive = true\nsole_copy = \"reap\"\n";
    config(&sandbox, "100ms", &["b", "a"], rules);
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    shell.tell("exec 9>>a/held.tmp");
    watch.wait_for(kept("held.tmp", "in-use"));
    config(&sandbox, "110ms", &["b", "a"], rules);
    watch.wait_for_nth(2, |event| {
        event["event"] == "rescan" && event["root"] == sandbox.path("a").to_str().unwrap()
    });
    watch.outlive_a_sentinel_in(&sandbox, "a");
    let stopped = watch.stop();
    assert_eq!(stopped.events.names("kept"), ["held.tmp"]);
    assert!(
        stopped.stderr.contains("without a lock"),
        "{}",
        stopped.stderr
    );
}

/// Where no lock could be made, another one may be able to make it later.
#[cfg(target_os = "linux")]
#[test]
fn a_root_that_another_works_on_by_now_is_let_go() {
    use crate::fake_env::FakeEnv;
    let sandbox = two_roots();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return crate::fixture::skipped(&why),
    };
    fake_env.set_queue(8);
    let locks = no_locks(&sandbox);
    let watch = sandbox.command(["watch", "--json", "--grace", "400ms", "root/a", "root/b"]);
    let mut watch = Watching::start(fake_env.holds(watch)).ready();
    fs::remove_file(&locks).unwrap();
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = Watching::start(other).ready();
    // Known before events are lost, which makes it look at everything anew.
    watch.signal(libc::SIGSTOP);
    sandbox.write("a/a", "whole, to the last byte of it");
    sandbox.write("a/a.4194304.tmp", "");
    for n in 0..50 {
        sandbox.write(format!("a/{n}"), "");
    }
    watch.signal(libc::SIGCONT);
    watch.wait_for(|event| event["event"] == "root" && event["state"] == "denied");
    watch.outlive_a_sentinel_in(&sandbox, "b");
    watch.outlive_a_sentinel_in(&sandbox, "b");
    assert!(
        sandbox.has("a/a.4194304.tmp"),
        "the other one's grace is an hour"
    );
    watch.stop();
    other.stop();
}

/// Makes temps until one of them is only reported: the rule has changed by then.
fn until_reported(watch: &mut Watching, sandbox: &Sandbox) {
    for n in 0.. {
        let name = format!("n{n}.4194304.tmp");
        sandbox.write(format!("a/{name}"), "");
        let event = watch.wait_for(is("reaped", &name));
        if event["dry_run"] == true {
            assert!(sandbox.has(format!("a/{name}")));
            return;
        }
    }
}

#[test]
fn a_wrong_file_leaves_the_rules_in_force_and_is_said() {
    let sandbox = two_roots();
    let path = config(&sandbox, "200ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    put(&sandbox, "[defaults]\ngrace = 3\n");
    let place = format!("{}:2:9: 3 has no unit", path.display());
    until("the mistake on stderr", || watch.stderr().contains(&place));
    watch.outlive_a_sentinel_in(&sandbox, "a");
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let error = status["watchers"][0]["config_error"].as_str().unwrap();
    assert!(error.contains(&place), "{error}");
    sandbox
        .run(["status"])
        .exit(0)
        .says("the previous rules are still in force");
    // A file that is gone is no wish to stop either.
    fs::remove_file(&path).unwrap();
    until("the missing file on stderr", || {
        watch
            .stderr()
            .contains("no directory to watch: none was given, and there is no ")
    });
    watch.outlive_a_sentinel_in(&sandbox, "a");
    // Mended, it holds, and nothing is left of the mistake.
    config(&sandbox, "200ms", &["a", "b"], "");
    sandbox.write("b/y.4194304.tmp", "");
    watch.wait_for(is("reaped", "y.4194304.tmp"));
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    assert_eq!(status["watchers"][0]["config_error"], Value::Null);
    assert_eq!(status["watchers"][0]["trouble"], Value::Array(vec![]));
    watch.stop();
}

#[test]
fn the_defaults_of_an_attached_watch_change_too() {
    let sandbox = two_roots();
    put(&sandbox, "[defaults]\ngrace = \"1h\"\n");
    let mut watch = sandbox.watch_dirs(["root/a"]).ready();
    sandbox.write("a/x.4194304.tmp", "");
    put(&sandbox, "[defaults]\ngrace = \"200ms\"\n");
    watch.wait_for(is("reaped", "x.4194304.tmp"));
    watch.stop();
}

#[test]
fn status_tells_what_runs_and_what_it_does() {
    Sandbox::each(|sandbox| {
        let sandbox = sandbox.dir("a");
        let none = sandbox.run(["status", "--json"]).exit(1).stdout_json();
        assert_eq!(none["running"], false);
        assert_eq!(none["watchers"], Value::Array(vec![]));
        sandbox
            .run(["status"])
            .exit(1)
            .says("no orphand is watching");
        config(&sandbox, "200ms", &["a"], "");
        let mut watch = watch(&sandbox).ready();
        sandbox.write("a/gone.json", "whole, to the last byte of it");
        sandbox.write("a/gone.json.tmp", "12345");
        sandbox.write("a/only.tmp", "678");
        watch.wait_for(is("reaped", "gone.json.tmp"));
        watch.wait_for(is("quarantined", "only.tmp"));
        let mut shell = sandbox.shell();
        shell.tell("exec 9>>a/held.tmp");
        watch.wait_for(kept("held.tmp", "in-use"));
        let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
        let watcher = &status["watchers"][0];
        assert_eq!(watcher["pid"], watch.pid());
        assert_eq!(watcher["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(watcher["background"], true);
        assert_eq!(watcher["outdated"], false);
        let root = &watcher["roots"][0];
        assert_eq!(root["root"], sandbox.path("a").to_str().unwrap());
        assert_eq!(root["state"], "watching");
        assert_eq!(root["reaped"], 1);
        assert_eq!(root["bytes"], 5);
        assert_eq!(root["quarantined"], 1);
        assert_eq!(root["kept"]["in-use"], 1);
        assert!(root["last_scan"].is_string(), "{root}");
        assert_eq!(status["disks"][0]["quarantined"], 1);
        assert_eq!(status["disks"][0]["quarantined_bytes"], 3);
        assert!(status["disks"][0]["percent"].as_u64().unwrap() <= 100);
        assert_eq!(status["freed_bytes"], 5);
        let leaks = watcher["leaks"].as_array().unwrap();
        assert_eq!(leaks.len(), 2, "{leaks:?}");
        sandbox
            .run(["status"])
            .exit(0)
            .says("1 kept as in-use")
            .says(" freed in 1 temp")
            .says("% full")
            .says("1 file in quarantine (")
            .says("the writer of \"gone.json\" left 1 temp (5 B) in ");
        watch.stop();
        sandbox.run(["status"]).exit(1).says(" in 1 temp");
    });
}

#[test]
fn only_its_user_can_ask_a_watcher() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let watch = watch(&sandbox).ready();
    let folder = sandbox.base().join("runtime/orphand");
    let socket = folder.join(format!("watch-{}.sock", watch.pid()));
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&socket), 0o600);
    watch.stop();
    assert!(!socket.exists(), "gone with its watcher");
}

#[test]
fn the_socket_of_a_killed_watcher_is_taken_for_none() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let killed = watch(&sandbox).ready();
    let socket = format!("runtime/orphand/watch-{}.sock", killed.pid());
    killed.signal(libc::SIGKILL);
    drop(killed);
    assert!(sandbox.base().join(&socket).exists());
    sandbox.run(["status"]).exit(1);
    assert!(!sandbox.base().join(&socket).exists());
}

#[test]
fn an_older_program_that_still_runs_is_said() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let program = sandbox.base().join("orphand-upgraded");
    fs::copy(sandbox.binary(), &program).unwrap();
    let mut command = sandbox.program(&program);
    command.args(["watch", "--json"]);
    let watch = Watching::start(command).ready();
    let outdated = || {
        let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
        status["watchers"][0]["outdated"].clone()
    };
    assert_eq!(outdated(), false);
    let next = sandbox.base().join("next");
    fs::copy(sandbox.binary(), &next).unwrap();
    fs::rename(&next, &program).unwrap();
    assert_eq!(outdated(), true);
    sandbox
        .run(["status"])
        .exit(0)
        .says("fix: orphand service restart");
    watch.stop();
}

#[test]
fn a_wrong_file_at_the_start_is_waited_for_and_status_says_so() {
    let sandbox = two_roots();
    put(&sandbox, "[defaults]\ngrase = 1\n");
    let mut watch = watch(&sandbox);
    until("a degraded watcher", || {
        let status = sandbox.run(["status", "--json"]).stdout_json();
        let line = status["watchers"][0]["line"].as_str().unwrap_or_default();
        line.starts_with("degraded: ") && line.contains(":2:1: unknown key \"grase\"")
    });
    sandbox.write("a/x.4194304.tmp", "");
    config(&sandbox, "200ms", &["a"], "");
    watch.wait_for(is("reaped", "x.4194304.tmp"));
    watch.stop();
}

/// What a watcher says to systemd, as systemd hears it.
struct Systemd {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Systemd {
    fn listen(sandbox: &Sandbox) -> (Systemd, PathBuf) {
        let path = sandbox.base().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        if is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let heard = Vec::new();
        (Systemd { socket, heard }, path)
    }

    /// The next line that begins so.
    #[track_caller]
    fn hear(&mut self, start: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < end, "no {start}: {:?}", self.heard);
            if let Some(at) = self.heard.iter().position(|line| line.starts_with(start)) {
                return self.heard.drain(..=at).next_back().unwrap();
            }
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("no {start}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
    }
}

/// The watchdog that it is told of: this process is none of systemd's, so the pid is left out.
fn supervised(sandbox: &Sandbox, notify: &std::path::Path) -> std::process::Command {
    let mut command = sandbox.command(["watch", "--json"]);
    command.env("NOTIFY_SOCKET", notify);
    command.env("WATCHDOG_USEC", "400000");
    command
}

#[test]
fn systemd_hears_when_it_is_ready_that_it_lives_and_that_it_ends() {
    let sandbox = two_roots();
    config(&sandbox, "100ms", &["a", "b"], "");
    let (mut systemd, notify) = Systemd::listen(&sandbox);
    let mut watch = Watching::start(supervised(&sandbox, &notify));
    systemd.hear("READY=1");
    assert_eq!(
        systemd.hear("STATUS="),
        "STATUS=watching 2 roots, 0 waiting, 0 kept, 0 B freed"
    );
    // Not before the watches stand: what is made now is seen by event.
    watch.wait_for(|event| event["event"] == "ready");
    for _ in 0..3 {
        systemd.hear("WATCHDOG=1");
    }
    sandbox.write("a/x.json", "whole, to the last byte of it");
    sandbox.write("a/x.json.tmp", "12");
    assert_eq!(
        systemd.hear("STATUS=watching 2 roots, 0 waiting, 0 kept, 4"),
        "STATUS=watching 2 roots, 0 waiting, 0 kept, 4.1 kB freed"
    );
    watch.signal(libc::SIGTERM);
    systemd.hear("STOPPING=1");
    watch.end();
}

#[test]
fn a_degraded_start_is_ready_and_says_why_it_does_nothing() {
    let sandbox = two_roots();
    put(&sandbox, "grase = 1\n");
    let (mut systemd, notify) = Systemd::listen(&sandbox);
    let mut watch = Watching::start(supervised(&sandbox, &notify));
    systemd.hear("READY=1");
    let status = systemd.hear("STATUS=");
    assert!(status.starts_with("STATUS=degraded: "), "{status}");
    for _ in 0..3 {
        systemd.hear("WATCHDOG=1");
    }
    config(&sandbox, "100ms", &["a"], "");
    systemd.hear("STATUS=watching 1 root");
    watch.wait_for(|event| event["event"] == "ready");
    systemd.hear("WATCHDOG=1");
    watch.stop();
}

/// Whatever the timer waits for when it is told to stop, and however long that would be.
#[test]
fn an_idle_watcher_stops_at_once() {
    // Each ring takes the timer from one of its two waits to the other.
    for rings in 0..4 {
        let sandbox = Sandbox::new();
        let policy = Policy {
            grace: Graces::both(Duration::from_secs(24 * 60 * 60)),
            ..Policy::default()
        };
        let builder = Watcher::builder().root(sandbox.root(), policy);
        let watcher = builder.start().unwrap();
        let ready = watcher.events().iter();
        let mut ready = ready.filter(|event| matches!(event, orphand::Event::Ready { .. }));
        assert!(ready.next().is_some());
        for _ in 0..rings {
            let before = watcher.heartbeats();
            until("a round", || watcher.heartbeats()[0] > before[0]);
        }
        let (ended, end) = channel();
        std::thread::spawn(move || {
            drop(watcher);
            let _ = ended.send(());
        });
        assert!(end.recv_timeout(DEADLINE).is_ok(), "after {rings} rings");
    }
}

/// A folder on a disk that does not answer holds up no other, and the timer still comes round.
#[test]
fn a_folder_that_hangs_holds_up_nobody_else() {
    let sandbox = two_roots();
    let (entered, wait_for_entry) = channel();
    let (let_go, held) = channel::<()>();
    let held = Mutex::new(held);
    let hook = Hook::new(move |_, name| {
        if name == "hangs.4194304.tmp" {
            let _ = entered.send(());
            // Until the test has seen enough.
            let _ = held.lock().unwrap().recv();
        }
    });
    let policy = Arc::new(Policy {
        grace: Graces::both(Duration::from_millis(100)),
        ..Policy::default()
    });
    let builder = Watcher::builder()
        .root(sandbox.path("a"), Arc::clone(&policy))
        .root(sandbox.path("b"), policy);
    let watcher = builder.hook(Some(hook)).start().unwrap();
    // Let go of before the watcher ends, also where an assertion fails.
    let let_go = let_go;
    sandbox.write("a/hangs.4194304.tmp", "");
    wait_for_entry.recv_timeout(DEADLINE).unwrap();
    for which in [0, 1] {
        let before = watcher.heartbeats();
        until("a round", || watcher.heartbeats()[which] > before[which]);
    }
    for n in 0..3 {
        let name = format!("b/n{n}.tmp");
        sandbox.write(&name, "");
        until("its removal", || !sandbox.has(&name));
    }
    assert!(sandbox.has("a/hangs.4194304.tmp"));
    drop(let_go);
    until("its removal", || !sandbox.has("a/hangs.4194304.tmp"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_watcher_that_nobody_reads_gives_no_sign_of_life() {
    let sandbox = two_roots();
    config(&sandbox, "100ms", &["a"], "");
    let (mut systemd, notify) = Systemd::listen(&sandbox);
    let mut command = supervised(&sandbox, &notify);
    // Its events go where nobody reads: when that is full, the timer waits.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    command.stdout(writer);
    let mut child = command.start_child().unwrap();
    drop(command);
    systemd.hear("WATCHDOG=1");
    for n in 0..100 {
        sandbox.write(
            format!("a/{n}-with-a-long-name-{}.tmp", "x".repeat(100)),
            "",
        );
    }
    // The pings stop: nothing is heard for longer than the watchdog's time.
    let silence = Duration::from_millis(800);
    systemd.socket.set_read_timeout(Some(silence)).unwrap();
    let mut buffer = [0; 4096];
    let end = Instant::now() + DEADLINE;
    while systemd.socket.recv(&mut buffer).is_ok() {
        assert!(Instant::now() < end, "it goes on saying that it lives");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(reader);
}

#[test]
fn metrics_are_written_and_name_roots_and_reasons_only() {
    let sandbox = two_roots();
    let file = sandbox.base().join("orphand.prom");
    config(
        &sandbox,
        "200ms",
        &["a"],
        &format!("[metrics]\ntextfile = {file:?}\nevery = \"1s\"\n[log]\nlevel = \"warn\""),
    );
    let mut watch = watch(&sandbox).ready();
    sandbox.write("a/gone.json", "whole, to the last byte of it");
    sandbox.write(
        "a/gone.json.4194000.0f8fad5b-d9cb-469f-a165-70867728950e.tmp",
        "12345",
    );
    let mut shell = sandbox.shell();
    shell.tell("exec 9>>a/held.tmp");
    watch.wait_for(is(
        "reaped",
        "gone.json.4194000.0f8fad5b-d9cb-469f-a165-70867728950e.tmp",
    ));
    watch.wait_for(kept("held.tmp", "in-use"));
    let root = sandbox.path("a").to_str().unwrap().to_owned();
    let lines = [
        format!("orphand_removed_files_total{{root=\"{root}\"}} 1"),
        format!("orphand_reclaimed_bytes_total{{root=\"{root}\"}} 5"),
        format!("orphand_kept_total{{root=\"{root}\",reason=\"in-use\"}} 1"),
        format!("orphand_orphan_files{{root=\"{root}\"}} 1"),
        format!("orphand_root_state{{root=\"{root}\",reason=\"watching\"}} 1"),
        "orphand_blind 0".to_owned(),
        "orphand_config_ok 1".to_owned(),
    ];
    let read = || fs::read_to_string(&file).unwrap_or_default();
    until("the metrics", || {
        let text = read();
        lines
            .iter()
            .all(|line| text.lines().any(|seen| seen == line))
    });
    let text = read();
    for word in ["gone.json", "4194000", &watch.pid().to_string()] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    watch.stop();
    assert!(!sandbox.base().join(".orphand.prom.new").exists());
    promtool(&file);
}

/// Prometheus's own word on the file, where its tool is: .ci/run brings it.
fn promtool(file: &std::path::Path) {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let run = std::process::Command::new(program)
        .args(["check", "metrics"])
        .stdin(fs::File::open(file).unwrap())
        .collect_output();
    match run {
        Ok(run) => {
            let said = String::from_utf8_lossy(&run.stderr).into_owned();
            assert!(run.status.success() && said.is_empty(), "{said}");
        }
        Err(error) => eprintln!("promtool was not asked: {error}"),
    }
}

#[test]
fn where_nobody_keeps_a_log_it_keeps_one_that_never_fills_the_disk() {
    let sandbox = two_roots();
    config(
        &sandbox,
        "100ms",
        &["a"],
        "[log]\nmax_size = \"4kB\"\nleaks = \"1s\"",
    );
    let mut watch = watch(&sandbox).ready();
    for n in 0..200 {
        sandbox.write(format!("a/n{n}.4194304.tmp"), "");
    }
    watch.wait_for_nth(200, |event| event["event"] == "reaped");
    let log = sandbox.base().join("state/orphand/orphand.log");
    let older = sandbox.base().join("state/orphand/orphand.log.1");
    let both = || {
        let read = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        read(&older) + &read(&log)
    };
    until("who leaks, in words", || {
        both().contains("left 1 temp (0 B) in ") && both().contains(" in the last hour")
    });
    watch.stop();
    assert!(older.exists());
    for file in [&log, &older] {
        let length = fs::metadata(file).unwrap().len();
        assert!(length < 4_000 + 1_000, "{length} bytes in {file:?}");
    }
}

#[test]
fn a_full_disk_for_log_and_metrics_stops_nothing() {
    let sandbox = two_roots();
    config(
        &sandbox,
        "100ms",
        &["a"],
        "[log]\nfile = \"/dev/full/x\"\n[metrics]\ntextfile = \"/dev/full/x.prom\"\nevery = \"1s\"",
    );
    let mut watch = watch(&sandbox).ready();
    watch.outlive_a_sentinel_in(&sandbox, "a");
    let stopped = watch.stop();
    assert!(
        stopped.stderr.contains("/dev/full/x.prom"),
        "{}",
        stopped.stderr
    );
}

/// A journal is a stream whose device and inode the environment names. Here it is a pipe.
#[test]
#[cfg(target_os = "linux")]
fn lines_for_the_journal_begin_with_how_much_they_matter() {
    use std::io::Read;
    use std::os::fd::AsFd;
    let sandbox = two_roots();
    config(&sandbox, "100ms", &["a"], "");
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let seen = rustix::fs::fstat(writer.as_fd()).unwrap();
    let mut command = sandbox.command(["watch"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", seen.st_dev, seen.st_ino));
    command.stderr(writer.try_clone().unwrap());
    command.stdout(writer);
    let mut child = command.start_child().unwrap();
    drop(command);
    sandbox.write("a/x.4194304.tmp", "");
    until("its removal", || !sandbox.has("a/x.4194304.tmp"));
    crate::sandbox::signal(child.id(), libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut text = String::new();
    fs::File::from(reader).read_to_string(&mut text).unwrap();
    for line in text.lines() {
        let bytes = line.as_bytes();
        assert!(
            bytes.first() == Some(&b'<') && bytes.get(2) == Some(&b'>'),
            "{line}"
        );
    }
    assert!(text.contains("<5>removed "), "{text}");
    assert!(
        !sandbox.base().join("state/orphand/orphand.log").exists(),
        "the journal keeps it"
    );
}

/// The name of the program, where it was seen while it lived; a killed one cannot be asked.
#[test]
#[cfg(target_os = "linux")]
fn a_writer_that_was_seen_is_named() {
    let sandbox = two_roots();
    config(&sandbox, "300ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    sandbox.write("a/s.json", "whole, to the last byte of it");
    shell.tell("exec 9>a/s.json.$$.tmp");
    let temp = format!("s.json.{}.tmp", shell.pid());
    watch.wait_for(|event| event["event"] == "kept" && crate::sandbox::name(event) == temp);
    shell.kill();
    watch.wait_for(is("reaped", &temp));
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let leak = &status["watchers"][0]["leaks"][0];
    assert!(leak["program"].is_string(), "{leak}");
    let line = leak["line"].as_str().unwrap();
    assert!(line.ends_with("in the last hour"), "{line}");
    assert!(!line.starts_with("the writer of"), "{line}");
    watch.stop();
}
