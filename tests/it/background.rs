//! A long-running watcher: changes of its configuration file, supervision by systemd, the log, metrics and
//! `status`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orphand::Watcher;
use orphand::core::policy::{Graces, Policy};
use orphand::reap::Hook;
use serde_json::Value;

use crate::sandbox::{
    DEADLINE, Sandbox, StartChild, WatchProcess, is, is_root, kept, signal, terminal,
};

/// Writes a configuration file for the roots `names`, all with the grace `grace`.
fn config(sandbox: &Sandbox, grace: &str, names: &[&str], more: &str) -> PathBuf {
    let mut text = format!("[defaults]\ngrace = \"{grace}\"\n{more}\n");
    for name in names {
        let path = sandbox.path(name);
        text.push_str(&format!("[[watch]]\npath = {path:?}\n"));
    }
    replace_config(sandbox, &text)
}

/// Replaces the configuration file with `text` as editors do: by a new file that is renamed.
fn replace_config(sandbox: &Sandbox, text: &str) -> PathBuf {
    let folder = sandbox.base().join("config/orphand");
    fs::create_dir_all(&folder).unwrap();
    sandbox.chown_to_user(&folder);
    let (new, path) = (folder.join("new"), folder.join("config.toml"));
    fs::write(&new, text).unwrap();
    sandbox.chown_to_user(&new);
    fs::rename(&new, &path).unwrap();
    path
}

fn watch(sandbox: &Sandbox) -> WatchProcess {
    WatchProcess::start(sandbox.command(["watch", "--json"]))
}

/// Puts a file at the path of the lock folder, so that no lock can be created.
fn block_locks(sandbox: &Sandbox) -> PathBuf {
    let runtime = sandbox.base().join("runtime");
    fs::create_dir_all(&runtime).unwrap();
    sandbox.chown_to_user(&runtime);
    let locks = runtime.join("orphand");
    fs::write(&locks, "no folder").unwrap();
    locks
}

fn two_roots() -> Sandbox {
    Sandbox::new().dir("a").dir("b")
}

/// Waits until the condition holds.
#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_reload_watches_new_roots_and_drops_removed_ones() {
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
    watch.wait_for_sentinel_in(&sandbox, "b");
    assert!(
        sandbox.has("a/left-alone.4194304.tmp"),
        "its rule was removed"
    );
    // Its lock is released too.
    sandbox
        .run(["sweep", "--yes", "--json", "--grace", "100ms", "root/a"])
        .exit(0);
    let stopped = watch.stop();
    assert_eq!(stopped.events.names("failed"), [""; 0]);
}

#[test]
fn tracked_temps_survive_a_rule_change() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    sandbox.write("a/long.4194304.tmp", "");
    // The holder stays known, and the shorter grace applies to temps that already wait.
    let mut shell = sandbox.shell();
    shell.run("exec 9>>a/held.tmp");
    config(&sandbox, "300ms", &["a"], "");
    watch.wait_for(is("reaped", "long.4194304.tmp"));
    watch.wait_for(kept("held.tmp", "in-use"));
    assert!(sandbox.has("a/held.tmp"));
    watch.stop();
}

/// Under the new rules a temp has at most half of the new grace as credit from the old ones: if its writer
/// closed it before the first look, half of the new grace is left when the rules change.
#[test]
fn a_shorter_grace_leaves_the_writer_half_of_it() {
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
    // At that time the other temp has used half its grace and has had its first look.
    watch.wait_for(is("reaped", "looked.tmp"));
    let changed = Instant::now();
    config(&sandbox, "5s", &["a"], "");
    watch.wait_for(is("reaped", name));
    let left = changed.elapsed();
    assert!(left >= half, "removed {left:?} after the rules changed");
    watch.stop();
}

/// A root that is added, or added again, may have live writers whose rename is still to come.
#[test]
fn writers_in_a_new_root_have_half_a_grace() {
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
    assert!(left >= Duration::from_secs(2), "removed after {left:?}");
    watch.stop();
}

/// Temps that existed at the start stay ignored after a rule change.
#[test]
fn ignored_temps_stay_ignored_after_a_rule_change() {
    let sandbox = two_roots();
    sandbox.write("a/a.4194304.tmp", "");
    config(&sandbox, "1h", &["a"], "");
    let leaving = sandbox.command(["watch", "--json", "--existing", "leave"]);
    let mut watch = WatchProcess::start(leaving).ready();
    sandbox.write("a/new.4194304.tmp", "");
    config(&sandbox, "200ms", &["a"], "");
    watch.wait_for(is("reaped", "new.4194304.tmp"));
    watch.wait_for_sentinel_in(&sandbox, "a");
    assert!(sandbox.has("a/a.4194304.tmp"));
    watch.stop();
}

#[test]
fn a_reload_to_report_only_stops_removals() {
    let sandbox = two_roots();
    config(&sandbox, "200ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    config(&sandbox, "200ms", &["a"], "action = \"report\"");
    // Reported, not removed: `dry_run` is true in the event.
    until_reported(&mut watch, &sandbox);
    watch.stop();
}

/// A report needs no lock. While another orphand process has the lock, a report-only root does not start to remove
/// files.
#[test]
fn a_reload_does_not_take_a_root_that_another_orphand_has_locked() {
    let sandbox = two_roots();
    // Applying the new rules takes longer than the grace.
    (0..10_000).for_each(|n| fs::create_dir(sandbox.path(format!("b/{n}"))).unwrap());
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = WatchProcess::start(other).ready();
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
    watch.wait_for_sentinel_in(&sandbox, "b");
    assert!(
        sandbox.has("a/a.4194304.tmp"),
        "the grace of the other orphand is one hour"
    );
    let by = format!("another orphand process (pid {}) works on", other.pid());
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

/// The inner root has a lock of its own, and may already have been scanned.
#[test]
fn a_denied_outer_root_leaves_the_inner_root_working() {
    let sandbox = Sandbox::new().dir("a").dir("a/inner");
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = WatchProcess::start(other).ready();
    let (outer, inner) = (sandbox.path("a"), sandbox.path("a/inner"));
    let rules = format!(
        "[defaults]\ngrace = \"200ms\"\nsole_copy = \"reap\"\n[[watch]]\npath = {inner:?}\n"
    );
    replace_config(&sandbox, &rules);
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    shell.run("exec 9>>a/inner/held.tmp");
    watch.wait_for(kept("held.tmp", "in-use"));
    let more = "recursive = true\nexclude = [\"inner/**\"]\n";
    replace_config(
        &sandbox,
        &format!("{rules}[[watch]]\npath = {outer:?}\n{more}"),
    );
    watch.wait_for(|event| event["event"] == "root" && event["state"] == "denied");
    shell.run("exec 9>&-");
    watch.wait_for(is("reaped", "held.tmp"));
    watch.stop();
    other.stop();
}

/// Its temps stay known although it has no lock: `kept` is reported once for each.
#[test]
fn a_root_without_a_lock_follows_a_rule_change() {
    let sandbox = two_roots();
    // Applying the new rules takes longer than the grace.
    (0..10_000).for_each(|n| fs::create_dir(sandbox.path(format!("b/{n}"))).unwrap());
    block_locks(&sandbox);
    let rules = "recursive = true\nsole_copy = \"reap\"\n";
    config(&sandbox, "100ms", &["b", "a"], rules);
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    shell.run("exec 9>>a/held.tmp");
    watch.wait_for(kept("held.tmp", "in-use"));
    config(&sandbox, "110ms", &["b", "a"], rules);
    watch.wait_for_nth(2, |event| {
        event["event"] == "rescan" && event["root"] == sandbox.path("a").to_str().unwrap()
    });
    watch.wait_for_sentinel_in(&sandbox, "a");
    let stopped = watch.stop();
    assert_eq!(stopped.events.names("kept"), ["held.tmp"]);
    assert!(
        stopped.stderr.contains("without a lock"),
        "{}",
        stopped.stderr
    );
}

/// If no lock could be created, another orphand process may create it later.
#[cfg(target_os = "linux")]
#[test]
fn a_root_that_another_orphand_locks_later_is_released() {
    use crate::fake_env::FakeEnv;
    let sandbox = two_roots();
    let fake_env = match FakeEnv::new(&sandbox) {
        Ok(fake_env) => fake_env,
        Err(why) => return crate::fixture::report_skipped(&why),
    };
    fake_env.set_queue(8);
    let locks = block_locks(&sandbox);
    let watch = sandbox.command(["watch", "--json", "--grace", "400ms", "root/a", "root/b"]);
    let mut watch = WatchProcess::start(fake_env.apply_to(watch)).ready();
    fs::remove_file(&locks).unwrap();
    let other = sandbox.command(["watch", "--json", "--grace", "1h", "root/a"]);
    let other = WatchProcess::start(other).ready();
    // It is tracked before events are lost; the loss starts a scan of everything.
    watch.signal(libc::SIGSTOP);
    sandbox.write("a/a", "whole, to the last byte of it");
    sandbox.write("a/a.4194304.tmp", "");
    for n in 0..50 {
        sandbox.write(format!("a/{n}"), "");
    }
    watch.signal(libc::SIGCONT);
    watch.wait_for(|event| event["event"] == "root" && event["state"] == "denied");
    watch.wait_for_sentinel_in(&sandbox, "b");
    watch.wait_for_sentinel_in(&sandbox, "b");
    assert!(
        sandbox.has("a/a.4194304.tmp"),
        "the grace of the other orphand is one hour"
    );
    watch.stop();
    other.stop();
}

/// Creates temps until one of them is only reported: by then the rule has changed.
fn until_reported(watch: &mut WatchProcess, sandbox: &Sandbox) {
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
fn an_invalid_file_keeps_the_old_rules_and_is_reported() {
    let sandbox = two_roots();
    let path = config(&sandbox, "200ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    replace_config(&sandbox, "[defaults]\ngrace = 3\n");
    let place = format!("{}:2:9: 3 has no unit", path.display());
    wait_until("the error on stderr", || watch.stderr().contains(&place));
    watch.wait_for_sentinel_in(&sandbox, "a");
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let error = status["watchers"][0]["config_error"].as_str().unwrap();
    assert!(error.contains(&place), "{error}");
    sandbox
        .run(["status"])
        .exit(0)
        .stdout_has("the previous rules are still in force");
    // A missing file does not stop the watch either.
    fs::remove_file(&path).unwrap();
    wait_until("the missing file on stderr", || {
        watch
            .stderr()
            .contains("config.toml\" does not exist; create it again")
    });
    watch.wait_for_sentinel_in(&sandbox, "a");
    // Once the file is valid again, its rules apply and the error is cleared.
    config(&sandbox, "200ms", &["a", "b"], "");
    sandbox.write("b/y.4194304.tmp", "");
    watch.wait_for(is("reaped", "y.4194304.tmp"));
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    assert_eq!(status["watchers"][0]["config_error"], Value::Null);
    assert_eq!(status["watchers"][0]["trouble"], Value::Array(vec![]));
    watch.stop();
}

#[test]
fn an_attached_watch_follows_changed_defaults() {
    let sandbox = two_roots();
    replace_config(&sandbox, "[defaults]\ngrace = \"1h\"\n");
    let mut watch = sandbox.watch_dirs(["root/a"]).ready();
    sandbox.write("a/x.4194304.tmp", "");
    replace_config(&sandbox, "[defaults]\ngrace = \"200ms\"\n");
    watch.wait_for(is("reaped", "x.4194304.tmp"));
    watch.stop();
}

/// Without the file an attached watch would fall back to the built-in defaults, and remove what the rules keep.
#[test]
fn a_missing_file_leaves_the_rules_of_an_attached_watch_in_force() {
    let sandbox = two_roots();
    let path = replace_config(
        &sandbox,
        "[defaults]\ngrace = \"200ms\"\naction = \"report\"\nexclude = [\"excluded.*\"]\n",
    );
    let mut watch = sandbox.watch_dirs(["--grace", "200ms", "root/a"]).ready();
    fs::remove_file(&path).unwrap();
    wait_until("the missing file on stderr", || {
        let stderr = watch.stderr();
        stderr.contains("config.toml\" does not exist; create it again")
            && stderr.contains("the old rules are still in force")
    });
    sandbox.write("a/excluded.4194304.tmp", "");
    sandbox.write("a/x.4194304.tmp", "");
    let reported = watch.wait_for(is("reaped", "x.4194304.tmp"));
    assert_eq!(reported["dry_run"], true);
    assert!(sandbox.has("a/x.4194304.tmp") && sandbox.has("a/excluded.4194304.tmp"));
    // The rules of a new file are in force again.
    replace_config(&sandbox, "[defaults]\nexclude = [\"excluded.*\"]\n");
    for n in 0.. {
        let name = format!("n{n}.4194304.tmp");
        sandbox.write(format!("a/{name}"), "");
        if watch.wait_for(is("reaped", &name))["dry_run"] == false {
            break;
        }
    }
    let stopped = watch.stop();
    assert_eq!(stopped.events.about("excluded.4194304.tmp"), [""; 0]);
    assert!(sandbox.has("a/excluded.4194304.tmp"));
}

#[test]
fn status_shows_running_watchers_and_their_counts() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.dir("a");
        let none = sandbox.run(["status", "--json"]).exit(1).stdout_json();
        assert_eq!(none["running"], false);
        assert_eq!(none["watchers"], Value::Array(vec![]));
        sandbox
            .run(["status"])
            .exit(1)
            .stdout_has("no watcher is running");
        config(&sandbox, "200ms", &["a"], "");
        let mut watch = watch(&sandbox).ready();
        sandbox.write("a/gone.json", "whole, to the last byte of it");
        sandbox.write("a/gone.json.tmp", "12345");
        sandbox.write("a/only.tmp", "678");
        watch.wait_for(is("reaped", "gone.json.tmp"));
        watch.wait_for(is("quarantined", "only.tmp"));
        let mut shell = sandbox.shell();
        shell.run("exec 9>>a/held.tmp");
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
        // Some file systems have no fixed number of inodes.
        let inodes = rustix::fs::statvfs(sandbox.path("a")).unwrap().f_files;
        let disk = &status["disks"][0];
        match disk["inodes"].as_u64() {
            Some(count) => {
                assert_eq!(count, inodes);
                assert!(disk["inodes_free"].as_u64().unwrap() <= count, "{disk}");
                assert!(disk["inodes_percent"].as_u64().unwrap() <= 100, "{disk}");
            }
            None => assert!(inodes == 0 && disk["inodes_free"].is_null(), "{disk}"),
        }
        let holder = &root["holders"][0];
        assert_eq!(holder["pid"], shell.pid(), "{root}");
        assert_eq!(holder["temps"], 1);
        let held = format!(
            "held by {}[{}] (1 temp)",
            holder["name"].as_str().unwrap(),
            shell.pid()
        );
        assert_eq!(status["freed_bytes"], 5);
        let leaks = watcher["leaks"].as_array().unwrap();
        assert_eq!(leaks.len(), 2, "{leaks:?}");
        sandbox
            .run(["status"])
            .exit(0)
            .stdout_has("1 kept as in-use")
            .stdout_has("1 temp removed, ")
            .stdout_has("% full")
            .stdout_has(&held)
            .stdout_has("1 file in quarantine (")
            .stdout_has("the writer of \"gone.json\" left 1 temp (5 B) in ");
        watch.stop();
        sandbox
            .run(["status"])
            .exit(1)
            .stdout_has("removed 1 temp, freed ");
    });
}

/// Temps that a dry run has reported are neither removed nor kept.
#[test]
fn status_and_summary_of_a_dry_run_say_would() {
    let sandbox = two_roots();
    config(&sandbox, "200ms", &["a"], "action = \"report\"");
    for temp in ["a.4194304.tmp", "b.4194304.tmp", "only.tmp"] {
        sandbox.write(
            format!("a/{temp}"),
            if temp == "only.tmp" { "x" } else { "" },
        );
    }
    let mut shell = sandbox.shell();
    shell.run("exec 9>>a/held.tmp");
    let mut command = sandbox.command(["watch"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.start_child().unwrap();
    let counts = "0 waiting · 1 kept as in-use · 2 temps would be removed · 1 would be moved to the quarantine · ";
    wait_until("the status of the dry run", || {
        sandbox.run(["status"]).stdout.contains(counts)
    });
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let kept = &status["watchers"][0]["roots"][0]["kept"];
    assert_eq!(*kept, serde_json::json!({"in-use": 1}));
    signal(child.id(), libc::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let end = "2 would be removed (0 B) · 1 would be moved to the quarantine (1 B, 4.1 kB on the disk) · 1 kept (0 B)";
    assert_eq!(stdout.lines().last(), Some(end), "{stdout}");
}

/// A watch of the configuration on a terminal is in the foreground. The JSON says what it watches.
#[test]
fn a_watch_on_a_terminal_is_in_the_foreground() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch"]);
    command.stdin(theirs).stdout(Stdio::null());
    let mut child = command.start_child().unwrap();
    wait_until("the status of the watch", || {
        sandbox.run(["status"]).code() == Some(0)
    });
    let foreground = format!("is watching in the foreground   pid {}", child.id());
    sandbox.run(["status"]).exit(0).stdout_has(&foreground);
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    assert_eq!(status["watchers"][0]["background"], true);
    assert_eq!(status["watchers"][0]["terminal"], Value::Null);
    signal(child.id(), libc::SIGTERM);
    assert!(child.wait().unwrap().success());
    drop(ours);
    let background = watch(&sandbox).ready();
    let ran = sandbox.run(["status"]).exit(0);
    ran.stdout_has("is watching in the background   pid ");
    background.stop();
}

/// Without a watcher, the mistake is the reason for which the directories of the file are not shown.
#[test]
fn status_reports_an_invalid_file_if_no_watcher_does() {
    let sandbox = two_roots();
    let path = replace_config(&sandbox, "[defaults]\ngrase = 1\n");
    let place = format!("{}:2:1: unknown key \"grase\"", path.display());
    let ran = sandbox.run(["status"]).exit(78).stderr_has(&place);
    ran.stdout_has("no watcher is running");
    let ran = sandbox.run(["status", "--json"]).exit(78);
    assert_eq!(ran.stderr_has(&place).stdout_json()["running"], false);
    let watch = watch(&sandbox);
    wait_until("a degraded watcher", || {
        sandbox.run(["status"]).code() == Some(0)
    });
    let ran = sandbox.run(["status"]).exit(0);
    assert_eq!(ran.stderr, "");
    ran.stdout_has(&place);
    watch.signal(libc::SIGTERM);
    watch.end().exit(0);
    // `report` needs the file only for the shapes of names.
    for args in [&["report"][..], &["report", "--json"]] {
        let ran = sandbox.run(args).exit(78).stderr_has(&place);
        assert!(ran.stdout.contains("temps"), "{}", ran.stdout);
    }
    let missing = ["report", "--config", "x.toml"];
    let ran = sandbox.run(missing).exit(78);
    ran.stderr_has("x.toml: the file does not exist");
}

/// Whatever the watch did, its last line is the summary.
#[test]
fn a_watch_without_a_directory_ends_with_a_summary() {
    for (text, state) in [("[defaults]\ngrase = 1\n", "degraded: "), ("", "idle: ")] {
        let sandbox = Sandbox::new();
        replace_config(&sandbox, text);
        for number in [libc::SIGTERM, libc::SIGINT] {
            let watch = watch(&sandbox);
            wait_until(state, || watch.stderr().contains(state));
            watch.signal(number);
            let ended = watch.end().exit(0);
            assert_eq!(ended.events.sums(), [0; 4], "{state}");
        }
    }
}

#[test]
fn only_the_owner_can_query_a_watcher() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let watch = watch(&sandbox).ready();
    let folder = sandbox.base().join("runtime/orphand");
    let socket = folder.join(format!("watch-{}.sock", watch.pid()));
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&socket), 0o600);
    watch.stop();
    assert!(!socket.exists(), "the socket is removed with its watcher");
}

#[test]
fn status_ignores_the_socket_of_a_killed_watcher() {
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

/// A watcher that starts has its socket for a moment before it listens.
#[test]
fn status_keeps_the_socket_of_a_running_process() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    watch(&sandbox).ready().stop();
    let folder = sandbox.base().join("runtime/orphand");
    let mut child = sandbox.program("sleep");
    let mut child = child.arg("600").start_child().unwrap();
    let socket = folder.join(format!("watch-{}.sock", child.id()));
    fs::create_dir_all(&folder).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    sandbox.run(["status"]).exit(1);
    assert!(socket.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    sandbox.run(["status"]).exit(1);
    assert!(!socket.exists());
}

#[test]
fn status_reports_an_outdated_watcher() {
    let sandbox = two_roots();
    config(&sandbox, "1h", &["a"], "");
    let program = sandbox.base().join("orphand-upgraded");
    fs::copy(sandbox.binary(), &program).unwrap();
    let mut command = sandbox.program(&program);
    command.args(["watch", "--json"]);
    let watch = WatchProcess::start(command).ready();
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
        .stdout_has("fix: orphand service restart");
    watch.stop();
}

#[test]
fn an_invalid_file_at_the_start_degrades_the_watcher() {
    let sandbox = two_roots();
    replace_config(&sandbox, "[defaults]\ngrase = 1\n");
    let mut watch = watch(&sandbox);
    wait_until("a degraded watcher", || {
        let status = sandbox.run(["status", "--json"]).stdout_json();
        let line = status["watchers"][0]["line"].as_str().unwrap_or_default();
        line.starts_with("degraded: ") && line.contains(":2:1: unknown key \"grase\"")
    });
    sandbox.write("a/x.4194304.tmp", "");
    config(&sandbox, "200ms", &["a"], "");
    watch.wait_for(is("reaped", "x.4194304.tmp"));
    watch.stop();
}

/// The receiver of a watcher's messages to systemd.
struct NotifySocket {
    socket: UnixDatagram,
    received: Vec<String>,
}

impl NotifySocket {
    fn bind(sandbox: &Sandbox) -> (NotifySocket, PathBuf) {
        let path = sandbox.base().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        if is_root() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let received = Vec::new();
        (NotifySocket { socket, received }, path)
    }

    /// Receives the next line that begins with `start`.
    #[track_caller]
    fn receive(&mut self, start: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < end, "no {start}: {:?}", self.received);
            if let Some(at) = self
                .received
                .iter()
                .position(|line| line.starts_with(start))
            {
                return self.received.drain(..=at).next_back().unwrap();
            }
            let mut buffer = [0; 4096];
            let length = self.socket.recv(&mut buffer);
            let length = length.unwrap_or_else(|error| panic!("no {start}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.received.extend(text.lines().map(str::to_owned));
        }
    }
}

/// A watch with systemd's variables. This process has another pid than systemd, so `WATCHDOG_PID` is left
/// out.
fn supervised(sandbox: &Sandbox, notify: &std::path::Path) -> std::process::Command {
    let mut command = sandbox.command(["watch", "--json"]);
    command.env("NOTIFY_SOCKET", notify);
    command.env("WATCHDOG_USEC", "400000");
    command
}

#[test]
fn systemd_receives_ready_watchdog_and_stopping() {
    let sandbox = two_roots();
    config(&sandbox, "100ms", &["a", "b"], "");
    let (mut systemd, notify) = NotifySocket::bind(&sandbox);
    let mut watch = WatchProcess::start(supervised(&sandbox, &notify));
    systemd.receive("READY=1");
    assert_eq!(
        systemd.receive("STATUS="),
        "STATUS=watching 2 directories, 0 waiting, 0 kept, 0 B freed"
    );
    // `READY=1` comes only after the watches are set: a new temp is now seen by its event.
    watch.wait_for(|event| event["event"] == "ready");
    for _ in 0..3 {
        systemd.receive("WATCHDOG=1");
    }
    sandbox.write("a/x.json", "whole, to the last byte of it");
    sandbox.write("a/x.json.tmp", "12");
    assert_eq!(
        systemd.receive("STATUS=watching 2 directories, 0 waiting, 0 kept, 4"),
        "STATUS=watching 2 directories, 0 waiting, 0 kept, 4.1 kB freed"
    );
    watch.signal(libc::SIGTERM);
    systemd.receive("STOPPING=1");
    watch.end();
}

#[test]
fn a_degraded_start_reports_ready_and_the_reason() {
    let sandbox = two_roots();
    replace_config(&sandbox, "grase = 1\n");
    let (mut systemd, notify) = NotifySocket::bind(&sandbox);
    let mut watch = WatchProcess::start(supervised(&sandbox, &notify));
    systemd.receive("READY=1");
    let status = systemd.receive("STATUS=");
    assert!(status.starts_with("STATUS=degraded: "), "{status}");
    for _ in 0..3 {
        systemd.receive("WATCHDOG=1");
    }
    config(&sandbox, "100ms", &["a"], "");
    systemd.receive("STATUS=watching 1 directory");
    watch.wait_for(|event| event["event"] == "ready");
    systemd.receive("WATCHDOG=1");
    watch.stop();
}

/// Returns the first number of the line of `/proc/PID/status` that begins with `key`.
#[cfg(target_os = "linux")]
fn status_number(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let number = line.split_ascii_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// The memory for code that only the start needed is returned.
#[cfg(target_os = "linux")]
#[test]
fn an_idle_watch_is_smaller_than_its_start() {
    let sandbox = Sandbox::new();
    let mut watch = sandbox.watch(["--grace", "1h"]);
    watch.wait_for(|event| event["event"] == "ready");
    let pid = watch.pid();
    let is_small = || status_number(pid, "VmRSS:") < status_number(pid, "VmHWM:") * 3 / 4;
    wait_until("less memory", is_small);
}

/// The table of open files is not doubled later, when several threads would wait for it.
#[cfg(target_os = "linux")]
#[test]
fn the_table_of_open_files_is_large_from_the_start() {
    let sandbox = Sandbox::new();
    let mut watch = sandbox.watch(["--grace", "1h"]);
    watch.wait_for(|event| event["event"] == "ready");
    assert_eq!(status_number(watch.pid(), "FDSize:"), 2_048);
}

/// The timer stops at once, whatever it waits for and for however long.
#[test]
fn an_idle_watcher_stops_at_once() {
    // Each heartbeat moves the timer from one of its two waits to the other.
    for heartbeats in 0..4 {
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
        for _ in 0..heartbeats {
            let before = watcher.heartbeats();
            wait_until("a heartbeat", || watcher.heartbeats()[0] > before[0]);
        }
        let (ended, end) = channel();
        std::thread::spawn(move || {
            drop(watcher);
            let _ = ended.send(());
        });
        assert!(
            end.recv_timeout(DEADLINE).is_ok(),
            "after {heartbeats} heartbeats"
        );
    }
}

/// A directory on a disk that does not answer does not block the others, and the timer keeps its heartbeat.
#[test]
fn a_directory_that_hangs_blocks_no_other() {
    let sandbox = two_roots();
    let (entered, wait_for_entry) = channel();
    let (unblock, blocked) = channel::<()>();
    let blocked = Mutex::new(blocked);
    let hook = Hook::new(move |_, name| {
        if name == "hangs.4194304.tmp" {
            let _ = entered.send(());
            // Blocks until the test drops the sender.
            let _ = blocked.lock().unwrap().recv();
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
    // Dropped before the watcher, even if an assertion fails.
    let unblock = unblock;
    sandbox.write("a/hangs.4194304.tmp", "");
    wait_for_entry.recv_timeout(DEADLINE).unwrap();
    for which in [0, 1] {
        let before = watcher.heartbeats();
        wait_until("a heartbeat", || {
            watcher.heartbeats()[which] > before[which]
        });
    }
    for n in 0..3 {
        let name = format!("b/n{n}.tmp");
        sandbox.write(&name, "");
        wait_until("its removal", || !sandbox.has(&name));
    }
    assert!(sandbox.has("a/hangs.4194304.tmp"));
    drop(unblock);
    wait_until("its removal", || !sandbox.has("a/hangs.4194304.tmp"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_blocked_output_stops_the_watchdog_pings() {
    let sandbox = two_roots();
    config(&sandbox, "100ms", &["a"], "");
    let (mut systemd, notify) = NotifySocket::bind(&sandbox);
    let mut command = supervised(&sandbox, &notify);
    // No process reads its events: when the pipe is full, the timer waits.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    command.stdout(writer);
    let mut child = command.start_child().unwrap();
    drop(command);
    systemd.receive("WATCHDOG=1");
    for n in 0..100 {
        sandbox.write(
            format!("a/{n}-with-a-long-name-{}.tmp", "x".repeat(100)),
            "",
        );
    }
    // The pings stop: nothing is received for longer than the watchdog's time.
    let silence = Duration::from_millis(800);
    systemd.socket.set_read_timeout(Some(silence)).unwrap();
    let mut buffer = [0; 4096];
    let end = Instant::now() + DEADLINE;
    while systemd.socket.recv(&mut buffer).is_ok() {
        assert!(Instant::now() < end, "the watchdog pings continue");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(reader);
}

#[test]
fn metrics_name_only_roots_and_reasons() {
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
    shell.run("exec 9>>a/held.tmp");
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
    wait_until("the metrics", || {
        let text = read();
        lines
            .iter()
            .all(|line| text.lines().any(|seen| seen == line))
    });
    // node_exporter runs as another user; a service has the umask 077.
    assert_eq!(crate::sandbox::mode(&file) & 0o777, 0o644);
    let text = read();
    for word in ["gone.json", "4194000", &watch.pid().to_string()] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    watch.stop();
    assert!(!sandbox.base().join(".orphand.prom.new").exists());
    promtool(&file);
}

/// Checks the file with Prometheus's own tool if it is installed; .ci/run installs it.
fn promtool(file: &std::path::Path) {
    let program = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    let run = std::process::Command::new(program)
        .args(["check", "metrics"])
        .stdin(fs::File::open(file).unwrap())
        .collect_output();
    match run {
        Ok(run) => {
            let output = String::from_utf8_lossy(&run.stderr).into_owned();
            assert!(run.status.success() && output.is_empty(), "{output}");
        }
        Err(error) => eprintln!("promtool did not run: {error}"),
    }
}

#[test]
fn without_a_journal_the_log_file_is_capped() {
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
    wait_until("the leak report", || {
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
    watch.wait_for_sentinel_in(&sandbox, "a");
    let stopped = watch.stop();
    assert!(
        stopped.stderr.contains("/dev/full/x.prom"),
        "{}",
        stopped.stderr
    );
}

/// systemd's journal is a stream whose device and inode are in the environment. Here it is a pipe.
#[test]
#[cfg(target_os = "linux")]
fn journal_lines_begin_with_a_priority() {
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
    wait_until("its removal", || !sandbox.has("a/x.4194304.tmp"));
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
        "the journal has the messages"
    );
}

/// The name of the program is known if it was seen running; it cannot be read after a kill.
#[test]
#[cfg(target_os = "linux")]
fn a_writer_seen_running_is_named() {
    let sandbox = two_roots();
    config(&sandbox, "300ms", &["a"], "");
    let mut watch = watch(&sandbox).ready();
    let mut shell = sandbox.shell();
    sandbox.write("a/s.json", "whole, to the last byte of it");
    shell.run("exec 9>a/s.json.$$.tmp");
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
