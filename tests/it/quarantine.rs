//! The quarantine: files are moved instead of deleted, and restored without overwriting anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::sandbox::{CommandResult, Sandbox, StartChild, is, kept, mode};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Sweeps, and returns the event about the only copy.
#[track_caller]
fn quarantine_only_copy(sandbox: &Sandbox) -> Value {
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0).events();
    events.one("quarantined").clone()
}

fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap()
}

fn parse_list(ran: &CommandResult) -> Vec<Value> {
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_file_is_stored_and_restored_unchanged() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("sub/deep/a.tmp", "precious");
        let path = sandbox.path("sub/deep/a.tmp");
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_000);
        file.set_modified(then).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        drop(file);
        let before = fs::metadata(&path).unwrap();

        let event = quarantine_only_copy(&sandbox);
        assert!(!path.exists());
        assert_eq!(event["bytes"], 8);
        assert_eq!(event["path"], path.to_str().unwrap());
        assert_eq!(
            event["target"],
            sandbox.path("sub/deep/a").to_str().unwrap()
        );
        let quarantine = sandbox.path(".orphand");
        assert_eq!(mode(&quarantine), 0o700);
        let there = quarantine.join(id(&event)).join("sub/deep/a.tmp");
        let same = |path: &std::path::Path| {
            let now = fs::metadata(path).unwrap();
            let of = |m: &fs::Metadata| {
                (
                    m.ino(),
                    m.mode(),
                    m.uid(),
                    m.gid(),
                    m.mtime(),
                    m.mtime_nsec(),
                    m.len(),
                )
            };
            assert_eq!(of(&now), of(&before), "{path:?}");
            assert_eq!(fs::read_to_string(path).unwrap(), "precious");
        };
        same(&there);

        sandbox.run(["restore", id(&event)]).exit(0);
        same(&path);
        assert!(
            !quarantine.exists(),
            "the quarantine was not removed when empty"
        );
    });
}

#[test]
fn a_restored_file_is_kept_until_it_changes() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("a.tmp", "precious");
        let event = quarantine_only_copy(&sandbox);
        sandbox.run(["restore", id(&event)]).exit(0);
        sandbox.age(OLD_ENOUGH);
        for _ in 0..2 {
            let events = sandbox.sweep(SHORT).exit(0).events();
            assert_eq!(events.about("a.tmp"), ["kept restored"]);
        }
        for grace in ["100ms", "1h"] {
            let scan = sandbox.scan(["--grace", grace]).exit(0).stdout_json();
            assert_eq!(scan["temps"][0]["reason"], "restored", "{grace}");
        }
        let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
        watching.wait_for(kept("a.tmp", "restored"));
        watching.wait_for_sentinel(&sandbox);
        watching.stop().exit(0);
        assert_eq!(sandbox.content("a.tmp"), "precious");

        sandbox.write("a.tmp", "precious, and more");
        let event = quarantine_only_copy(&sandbox);
        assert_eq!(event["bytes"], 18);
    });
}

/// The watcher that moved a file keeps it after it is restored.
#[test]
fn a_watcher_keeps_a_restored_file() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    sandbox.write("a.tmp", "precious");
    let event = watching.wait_for(is("quarantined", "a.tmp"));
    sandbox.run(["restore", id(&event)]).exit(0);
    watching.wait_for(kept("a.tmp", "restored"));
    for _ in 0..3 {
        watching.wait_for_sentinel(&sandbox);
    }
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.about("a.tmp"),
        ["quarantined", "kept restored"]
    );
    assert_eq!(sandbox.content("a.tmp"), "precious");
    assert!(!sandbox.has(".orphand"));
}

#[test]
fn restore_overwrites_nothing() {
    let sandbox = Sandbox::new().file("a.tmp", "first");
    let event = quarantine_only_copy(&sandbox);
    sandbox.write("a.tmp", "second");
    let there = format!(".orphand/{}/a.tmp", id(&event));
    let ran = sandbox
        .run(["restore", id(&event)])
        .exit(1)
        .prints_nothing();
    ran.stderr_has("--to");
    assert_eq!(sandbox.content("a.tmp"), "second");
    assert_eq!(sandbox.content(&there), "first");
    sandbox.write("elsewhere", "third");
    sandbox
        .run(["restore", "--to", "root/elsewhere", id(&event)])
        .exit(1)
        .prints_nothing();
    assert_eq!(sandbox.content("elsewhere"), "third");
    sandbox
        .run(["restore", "--to", "root/no/such", id(&event)])
        .exit(1)
        .prints_nothing();
    assert_eq!(sandbox.content(&there), "first");
    sandbox
        .run(["restore", "--to", "root/a.kept", id(&event)])
        .exit(0);
    assert_eq!(sandbox.content("a.kept"), "first");
    assert!(!sandbox.has(".orphand"));
}

/// By its original path, from any directory; and by its id without a journal, from the root.
#[test]
fn restore_accepts_paths_and_ids() {
    let again = |sandbox: &Sandbox| {
        // Changed, so that it may be moved again.
        sandbox.write("sub/a.tmp", format!("{:?}", SystemTime::now()));
        quarantine_only_copy(sandbox)
    };
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious");
    quarantine_only_copy(&sandbox);
    sandbox.run(["restore", "root/sub/a.tmp"]).exit(0);
    again(&sandbox);
    sandbox.run(["restore", "{base}/root/sub/a.tmp"]).exit(0);
    let event = again(&sandbox);
    fs::remove_dir_all(sandbox.base().join("state")).unwrap();
    sandbox
        .run(["restore", id(&event)])
        .exit(1)
        .stderr_has("quarantine list");
    let mut command = sandbox.command(["restore", id(&event)]);
    command.current_dir(sandbox.root());
    sandbox.finish(command).exit(0);
    again(&sandbox);
    fs::remove_dir_all(sandbox.base().join("state")).unwrap();
    sandbox.run(["restore", "root/sub/a.tmp"]).exit(0);
    assert!(sandbox.has("sub/a.tmp"));
    // By its path, although the configuration names the root by another path.
    let event = again(&sandbox);
    fs::remove_dir_all(sandbox.base().join("state")).unwrap();
    std::os::unix::fs::symlink(".", sandbox.base().join("alias")).unwrap();
    let rule = format!(
        "[[watch]]\npath = {:?}\n",
        sandbox.base().join("alias/root")
    );
    let folder = sandbox.base().join("config/orphand");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), rule).unwrap();
    sandbox
        .run(["restore", event["path"].as_str().unwrap()])
        .exit(0)
        .stdout_has("root/sub/a.tmp");
    assert!(sandbox.has("sub/a.tmp"));
    fs::remove_dir_all(&folder).unwrap();
    // Several at once.
    sandbox.write("b.tmp", "b");
    sandbox.write("c.tmp", "c");
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    sandbox.run(["restore", "root/b.tmp", "root/c.tmp"]).exit(0);
    assert_eq!(sandbox.content("b.tmp") + &sandbox.content("c.tmp"), "bc");
}

/// Two mounts of one root have one quarantine.
#[cfg(target_os = "linux")]
#[test]
fn two_mounts_of_one_root_share_a_quarantine() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        let other = sandbox.base().join("other");
        fs::create_dir(&other).unwrap();
        let root = sandbox.root();
        let _mounted = Mounted::new(root.to_str().unwrap(), &other, "", libc::MS_BIND, "");
        let (one, two) = ("one.tmp", "two.tmp");
        sandbox.write(one, "one");
        sandbox.write(two, "two");
        sandbox.age(OLD_ENOUGH);
        let swept = sandbox.sweep(SHORT).exit(0).events();
        let ids: Vec<&str> = swept.of("quarantined").into_iter().map(id).collect();
        assert_eq!(ids.len(), 2, "{swept:?}");
        // From now on the journal has both paths.
        sandbox.run(["restore", "other/one.tmp"]).exit(0);
        let left = parse_list(&sandbox.run(["quarantine", "list", "--json"]).exit(0));
        assert!(
            matches!(left.as_slice(), [one] if ids.contains(&id(one))),
            "{left:?}"
        );
        let left = id(&left[0]);
        sandbox
            .run(["quarantine", "list"])
            .exit(0)
            .stdout_has("1 file, 3 B");
        sandbox.run(["restore", left]).exit(0);
        assert_eq!(sandbox.content(one) + &sandbox.content(two), "onetwo");
    });
}

/// A directory of the original path may have become a symlink.
#[test]
fn restore_does_not_leave_the_root() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious");
    let event = quarantine_only_copy(&sandbox);
    fs::remove_dir(sandbox.path("sub")).unwrap();
    sandbox.make_dir("../outside");
    std::os::unix::fs::symlink("../outside", sandbox.path("sub")).unwrap();
    sandbox
        .run(["restore", id(&event)])
        .exit(1)
        .prints_nothing();
    assert!(!sandbox.has("../outside/a.tmp"));
    assert_eq!(
        sandbox.content(format!(".orphand/{}/sub/a.tmp", id(&event))),
        "precious"
    );
}

#[test]
fn purge_deletes_the_listed_files() {
    let sandbox = Sandbox::new()
        .file("a.tmp", "1")
        .file("b.tmp", "22")
        .file("sub/c.tmp", "333")
        .aged(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0).events();
    assert_eq!(events.sums(), [0, 3, 0, 0]);
    let ran = sandbox.run(["quarantine", "list", "--json"]).exit(0);
    let all = parse_list(&ran);
    assert_eq!(all.len(), 3);
    for stored in &all {
        let event = events
            .of("quarantined")
            .into_iter()
            .find(|e| e["id"] == stored["id"])
            .unwrap();
        for field in ["path", "root", "bytes"] {
            assert_eq!(stored[field], event[field], "{field}");
        }
    }
    let human = sandbox.run(["quarantine", "list"]).exit(0);
    human
        .stdout_has("3 files, 6 B")
        .stdout_has("orphand quarantine purge");

    let first = all[0]["id"].as_str().unwrap();
    // There is no terminal to ask on, so `--yes` is required.
    sandbox
        .run(["quarantine", "purge"])
        .exit(2)
        .stderr_has("--yes");
    let ran = sandbox.run(["quarantine", "purge", "0000zzzz"]).exit(1);
    ran.prints_nothing().stderr_has("0000zzzz");
    assert_eq!(
        parse_list(&sandbox.run(["quarantine", "list", "--json"])).len(),
        3
    );
    // Like restore: an unknown id does not keep the others, and counts as failed.
    sandbox
        .run(["quarantine", "purge", "0000zzzz", first])
        .exit(3)
        .stdout_has("2 files: 1 deleted, 1 failed, 0 left")
        .stderr_has("error: no file in quarantine has the id \"0000zzzz\"");
    let left = parse_list(&sandbox.run(["quarantine", "list", "--json"]));
    assert_eq!(left, all[1..]);
    sandbox
        .run(["quarantine", "purge", "--yes", "--json"])
        .exit(0)
        .events();
    assert_eq!(
        sandbox.listing(),
        ["sub"],
        "the quarantine was not removed when empty"
    );
    sandbox
        .run(["quarantine", "list"])
        .exit(0)
        .stdout_has("no files in quarantine");
}

/// Two files of one name are both stored, each under its own id.
#[test]
fn two_files_of_one_name_are_both_stored() {
    let sandbox = Sandbox::new().file("a.tmp", "first");
    let first = quarantine_only_copy(&sandbox);
    sandbox.write("a.tmp", "second");
    let second = quarantine_only_copy(&sandbox);
    assert_ne!(id(&first), id(&second));
    sandbox.run(["restore", "root/a.tmp"]).exit(0);
    assert_eq!(
        sandbox.content("a.tmp"),
        "second",
        "a path means the newest copy"
    );
    sandbox
        .run(["restore", "--to", "root/older", id(&first)])
        .exit(0);
    assert_eq!(sandbox.content("older"), "first");
}

/// A copied root has the same ids.
#[test]
fn an_ambiguous_id_is_refused() {
    let sandbox = Sandbox::new()
        .file("sub/a.tmp", "precious")
        .aged(OLD_ENOUGH);
    let within = |command: &[&str]| {
        let mut command = sandbox.command(command);
        command.current_dir(sandbox.path("copy"));
        sandbox.finish(command)
    };
    let ran = sandbox
        .run(["sweep", "--yes", "--json", "--grace", "100ms", "root/sub"])
        .exit(0);
    let events = ran.events();
    let id = id(events.one("quarantined"));
    let copied = sandbox
        .program("cp")
        .args(["-a", "root/sub", "root/copy"])
        .run_to_end();
    assert!(copied.unwrap().success());
    for (command, exit) in [
        (&["quarantine", "purge", id][..], 1),
        (&["quarantine", "purge", id, "0000zzzz"], 3),
        (&["restore", id], 1),
    ] {
        within(command)
            .exit(exit)
            .stderr_has("more than one quarantine");
    }
    for root in ["sub", "copy"] {
        let path = format!("{root}/.orphand/{id}/a.tmp");
        assert_eq!(sandbox.content(path), "precious");
    }
}

/// The quarantine is removed when it is empty, while a watcher runs.
#[test]
fn an_empty_quarantine_is_removed_beside_a_watcher() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    for n in 0..3 {
        let temp = format!("{n}.x.tmp");
        sandbox.write(&temp, "precious");
        let event = watching.wait_for(is("quarantined", &temp));
        assert_eq!(mode(&sandbox.path(".orphand")), 0o700);
        sandbox.run(["quarantine", "purge", id(&event)]).exit(0);
        assert!(!sandbox.has(".orphand"));
    }
    watching.stop().exit(0);
}

/// Writes the configuration of the sandbox.
fn configure(sandbox: &Sandbox, text: &str) {
    let folder = sandbox.base().join("config/orphand");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), text).unwrap();
}

/// Returns the original paths of the files in the quarantine, relative to the root.
#[track_caller]
fn stored_paths(sandbox: &Sandbox) -> Vec<String> {
    let ran = sandbox
        .run(["quarantine", "list", "--json", "root"])
        .exit(0);
    let root = format!("{}/", sandbox.root().display());
    let path = |one: &Value| one["path"].as_str().unwrap().replace(&root, "");
    let mut paths: Vec<String> = parse_list(&ran).iter().map(path).collect();
    paths.sort();
    paths
}

/// For names with a pid and names without a target, too, only the newest copy outlives `keep`, and copies
/// that are larger than it. The same applies in a sweep if the clock has not been set since the move.
#[test]
fn the_limits_apply_to_every_form_of_name() {
    let sandbox = Sandbox::new();
    configure(
        &sandbox,
        "[quarantine]\nkeep = \"300ms\"\n[defaults]\nwriters = [\"python\"]\n",
    );
    let names = |n: u32| {
        [
            format!("a.json.{}.tmp", 4_000_000 + n),
            format!("b.json.{}.{n}.tmp", 4_000_000 + n),
            format!(
                "c.json.{}.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633{n}.tmp",
                4_000_000 + n
            ),
            format!("tmpr3tea0k{n}"),
            format!("log.{}.tmp", 2_020 + n),
        ]
    };
    let moves = |n: u32, size: usize| {
        for name in names(n) {
            sandbox.write(name, "x".repeat(size));
        }
        sandbox.age(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.of("quarantined").len(), 5, "{events:?}");
    };
    moves(1, 20_000);
    moves(2, 5_000);
    moves(3, 5_000);
    sandbox.age(OLD_ENOUGH * 4);
    sandbox.sweep(SHORT).exit(0);
    let mut want: Vec<String> = [1, 3].into_iter().flat_map(names).collect();
    // A year is part of the target's name: this is the only copy of "log.2022".
    want.push("log.2022.tmp".into());
    want.sort();
    assert_eq!(stored_paths(&sandbox), want);
}

/// The limits are enforced by a timer alone, without a move, a sweep or a scan.
#[test]
fn the_limits_apply_without_new_moves() {
    let sandbox = Sandbox::new();
    let config = "[quarantine]\nkeep = \"1s\"\n";
    configure(&sandbox, config);
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    for n in 1..=2 {
        let temp = format!("a.json.400000{n}.tmp");
        sandbox.write(&temp, "precious");
        watching.wait_for(is("quarantined", &temp));
    }
    watching.wait_for(is("purged", "a.json.4000001.tmp"));
    watching.stop().exit(0);
    assert_eq!(stored_paths(&sandbox), ["a.json.4000002.tmp"]);
}

/// A moved file needs no directory of its own, and keeps its relative path.
#[test]
fn a_sweep_creates_few_folders() {
    let sandbox = Sandbox::new();
    for n in 0..300 {
        sandbox.write(format!("sub/{n}.json.tmp"), "precious");
    }
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(["--grace", "100ms", "-r"]).exit(0).events();
    assert_eq!(events.sums(), [0, 300, 0, 0]);
    let mut ids: Vec<&str> = events.of("quarantined").into_iter().map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 300, "each has an id of its own");
    let mut folders = 0;
    let mut files = 0;
    let mut todo = vec![sandbox.path(".orphand")];
    while let Some(folder) = todo.pop() {
        folders += 1;
        assert_eq!(mode(&folder), 0o700);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false => files += 1,
            }
        }
    }
    assert_eq!(files, 300);
    assert!(folders < 20, "{folders} folders");
}

/// Every command works with 64 descriptors, and those for many files print a total.
#[test]
fn every_command_works_with_few_descriptors() {
    const FILES: usize = 400;
    let sandbox = Sandbox::new().with_descriptor_limit(64);
    for n in 0..FILES {
        sandbox.write(format!("sub/{n}.json.tmp"), "x");
    }
    sandbox.age(OLD_ENOUGH);
    let swept = sandbox.sweep(["--grace", "100ms", "-r"]).exit(0).events();
    assert_eq!(swept.sums(), [0, FILES as u64, 0, 0]);
    let list = sandbox.run(["quarantine", "list"]).exit(0);
    list.stdout_has("400 files, 400 B");
    sandbox
        .run(["status"])
        .exit(1)
        .stdout_has("400 files in quarantine");
    let all: Vec<String> = (0..4).map(|n| format!("root/sub/{n}.json.tmp")).collect();
    let args = ["restore".to_owned(), "root/nothing.tmp".into()];
    let restored = sandbox.run(args.iter().chain(&all)).exit(3);
    restored
        .stdout_has("5 files: 4 restored, 1 failed, 0 left")
        .stderr_has("nothing.tmp");
    sandbox.scan(["-r"]).exit(0);
    sandbox
        .run(["quarantine", "purge"])
        .exit(2)
        .stderr_has("--yes");
    let (_ours, theirs) = crate::sandbox::terminal();
    let mut command = sandbox.command(["quarantine", "purge", "--json"]);
    command.stdin(theirs);
    let ran = sandbox.finish(command).exit(2).stderr_has("--yes");
    ran.stderr_has("purge deletes files permanently and does not ask with --json; name the ids");
    let purged = sandbox.run(["quarantine", "purge", "--yes"]).exit(0);
    purged.stdout_has("396 files: 396 deleted, 0 failed, 0 left");
    assert!(!sandbox.has(".orphand"));
    assert!(sandbox.has("sub/0.json.tmp"));
}

/// The files are listed by their paths, and files of one path by their age. A directory below a root has its part of
/// the quarantine.
#[test]
fn the_list_is_sorted_and_limited_to_the_directory() {
    let sandbox = Sandbox::new();
    let mut ids = Vec::new();
    for below in [
        "sub/c.tmp",
        "sub/b.tmp",
        "subway/a.tmp",
        "sub/b.tmp",
        "a.tmp",
    ] {
        sandbox.write(below, format!("{:?}", SystemTime::now()));
        ids.push(id(&quarantine_only_copy(&sandbox)).to_owned());
    }
    std::os::unix::fs::symlink("root/sub", sandbox.base().join("alias")).unwrap();
    for (dirs, wanted) in [
        (&["root"][..], &[4, 1, 3, 0, 2][..]),
        (&[], &[4, 1, 3, 0, 2]),
        (&["root/sub"], &[1, 3, 0]),
        (&["root/subway/"], &[2]),
        (&["alias", "root/subway"], &[1, 3, 0, 2]),
        (&["home"], &[]),
    ] {
        let args = ["quarantine", "list", "--json"];
        let listed = parse_list(&sandbox.run(args.iter().chain(dirs)).exit(0));
        let listed: Vec<&str> = listed.iter().map(id).collect();
        let wanted: Vec<&str> = wanted.iter().map(|at| ids[*at].as_str()).collect();
        assert_eq!(listed, wanted, "{dirs:?}");
        let human = sandbox
            .run(["quarantine", "list"].iter().chain(dirs))
            .exit(0);
        let first = human.stdout.lines().map(|line| line.split(' ').next());
        let first: Vec<&str> = first.flatten().take(wanted.len()).collect();
        assert_eq!(first, wanted, "{dirs:?}");
    }
    let none = sandbox.run(["quarantine", "list", "home"]).exit(0);
    none.stdout_has("no files in quarantine (searched /, ");
    // A directory that is gone may still have files in a quarantine above it.
    sandbox.write("file", "");
    for (dirs, code, words) in [
        (&["nodir"][..], 1, "nodir\" does not exist; check the name"),
        (&["root", "root/nodir"], 1, "root/nodir\" does not exist"),
        (&["root/file"], 2, "root/file\" is not a directory"),
        (&["root/file/x"], 1, "root/file/x\" does not exist"),
    ] {
        for json in [
            &["quarantine", "list"][..],
            &["quarantine", "list", "--json"],
        ] {
            let ran = sandbox.run(json.iter().chain(dirs)).exit(code);
            ran.prints_nothing().stderr_has(words);
        }
    }
    std::fs::remove_dir_all(sandbox.path("sub")).unwrap();
    let gone = sandbox
        .run(["quarantine", "list", "--json", "root/sub"])
        .exit(0);
    assert_eq!(parse_list(&gone).len(), 3);
    // `purge` deletes what `list` has listed.
    let purge = |dir: &str| sandbox.run(["quarantine", "purge", "--yes", dir]);
    purge("root/nodir").exit(1).stderr_has("does not exist");
    purge("root/subway")
        .exit(0)
        .stdout_has("1 file: 1 deleted, 0 failed, 0 left");
    purge("root/sub")
        .exit(0)
        .stdout_has("3 files: 3 deleted, 0 failed, 0 left");
    let left = sandbox.run(["quarantine", "list", "--json"]).exit(0);
    assert_eq!(parse_list(&left).len(), 1);
}

/// Failures are counted and reported, and set the exit code.
#[test]
fn a_failed_purge_is_reported() {
    if crate::sandbox::is_root() {
        eprintln!("root may delete anything: tried as an ordinary user");
    }
    let sandbox = Sandbox::ordinary()
        .file("a.tmp", "1")
        .file("sub/b.tmp", "2");
    quarantine_all(&sandbox);
    let held = stored_path(&sandbox, "a.tmp");
    let folder = held.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o500)).unwrap();
    let ran = sandbox.run(["quarantine", "purge", "--yes"]).exit(3);
    ran.stdout_has("2 files: 1 deleted, 1 failed, 0 left")
        .stderr_has("cannot delete");
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(held.exists());
}

#[track_caller]
fn quarantine_all(sandbox: &Sandbox) {
    sandbox.age(OLD_ENOUGH);
    let mut kept: Vec<Value> = Vec::new();
    // A child process of another test has this process's open files for a moment, between its fork and its exec.
    for _ in 0..20 {
        let ran = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0);
        kept = ran.events().of("kept").into_iter().cloned().collect();
        kept.retain(|event| event["reason"] != "restored");
        if kept.iter().all(|event| event["reason"] != "in-use") {
            break;
        }
    }
    assert!(kept.is_empty(), "{kept:?}");
}

/// Returns the path in the quarantine of the file that was at `below`.
#[track_caller]
fn stored_path(sandbox: &Sandbox, below: &str) -> std::path::PathBuf {
    let folders = fs::read_dir(sandbox.path(".orphand")).unwrap();
    let mut paths = folders.map(|entry| entry.unwrap().path().join(below));
    paths
        .find(|path| path.exists())
        .expect("the file in the quarantine")
}

/// An older version stored each file in a folder of its own. The time of the move is unknown, so the file is
/// never too old.
#[test]
fn a_quarantine_of_an_older_version_is_usable() {
    let sandbox = Sandbox::new();
    configure(&sandbox, "[quarantine]\nkeep = \"100ms\"\n");
    let old = |id: &str, below: &str| {
        sandbox.write(format!(".orphand/{id}/{below}"), "precious");
        let mut folder = sandbox.path(format!(".orphand/{id}/{below}"));
        while folder.pop() && folder != sandbox.root() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
    };
    old("q0000001", "sub/a.tmp");
    old("q0000002", "sub/a.tmp");
    old("q0000003", "b.tmp");
    sandbox.age(OLD_ENOUGH * 2);
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(stored_paths(&sandbox), ["b.tmp", "sub/a.tmp", "sub/a.tmp"]);
    let within = |args: &[&str]| {
        let mut command = sandbox.command(args);
        command.current_dir(sandbox.root());
        sandbox.finish(command)
    };
    sandbox.make_dir("sub");
    within(&["restore", "q0000002"]).exit(0);
    assert_eq!(sandbox.content("sub/a.tmp"), "precious");
    within(&["quarantine", "purge", "q0000001"]).exit(0);
    within(&["quarantine", "purge", "--yes"]).exit(0);
    assert!(!sandbox.has(".orphand"));
}

/// Files are restored into a directory under their own names.
#[test]
fn restore_into_a_directory_keeps_names() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "a").file("b.tmp", "b");
    quarantine_all(&sandbox);
    let ran = sandbox
        .run(["restore", "--to", "root/new/", "root/b.tmp"])
        .exit(1);
    let missing = sandbox.path("new");
    ran.prints_nothing().stderr_has(&format!(
        "the directory {missing:?} does not exist; to restore"
    ));
    sandbox.make_dir("out");
    sandbox
        .run([
            "restore",
            "--to",
            "root/out",
            "root/sub/a.tmp",
            "root/b.tmp",
        ])
        .exit(0)
        .stdout_has("2 files: 2 restored, 0 failed, 0 left");
    assert_eq!(
        sandbox.content("out/a.tmp") + &sandbox.content("out/b.tmp"),
        "ab"
    );
    assert!(!sandbox.has(".orphand"));
    sandbox.write("sub/b.tmp", "other");
    quarantine_all(&sandbox);
    sandbox
        .run(["restore", "--to", "root/out/", "root/sub/b.tmp"])
        .exit(1)
        .stderr_has("already exists");
    assert_eq!(sandbox.content("out/b.tmp"), "b");
}

/// A copy has the access control list and the attributes of the file, or there is no copy.
#[cfg(target_os = "linux")]
#[test]
fn a_restored_copy_keeps_its_attributes() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    const ACL: &str = "system.posix_acl_access";
    // acl(5): rw for the owner and for the user 1234, nothing for the group, the mask rw, and nothing for others.
    let entries = [
        (1u16, 6u16, !0u32),
        (2, 6, 1_234),
        (4, 0, !0),
        (16, 6, !0),
        (32, 0, !0),
    ];
    let acl: Vec<u8> = 2u32
        .to_le_bytes()
        .into_iter()
        .chain(entries.iter().flat_map(|(tag, mode, id)| {
            [
                &tag.to_le_bytes()[..],
                &mode.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        }))
        .collect();
    let flags = rustix::fs::XattrFlags::empty();
    in_own_process(&[RunAs::OwnMounts], || {
        for (kind, has_attributes) in [("tmpfs", true), ("ramfs", false)] {
            let sandbox = Sandbox::new().file("a.tmp", "content").dir("../other");
            let other = sandbox.base().join("other");
            let _mounted = Mounted::new(kind, &other, kind, 0, "");
            let path = sandbox.path("a.tmp");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            rustix::fs::setxattr(&path, ACL, &acl, flags).unwrap();
            rustix::fs::setxattr(&path, "user.note", b"a note", flags).unwrap();
            quarantine_all(&sandbox);
            let ran = sandbox.run(["restore", "--to", "other/a", "root/a.tmp"]);
            if !has_attributes {
                ran.exit(1).stderr_has("the copy cannot have the attribute");
                assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
                assert!(sandbox.has(".orphand"));
                continue;
            }
            ran.exit(0);
            let copy = other.join("a");
            for (name, value) in [(ACL, &acl[..]), ("user.note", b"a note")] {
                let mut found = [0; 128];
                let length = rustix::fs::getxattr(&copy, name, &mut found[..]).unwrap();
                assert_eq!(&found[..length], value, "{name}");
            }
            assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o660);
        }
    });
}

/// To another file system a file is copied, compared and then removed: with its bytes, mode, owner and times.
#[cfg(target_os = "linux")]
#[test]
fn restore_to_another_file_system_copies() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        sandbox.make_dir("../other");
        let other = sandbox.base().join("other");
        let _mounted = Mounted::new("tmpfs", &other, "tmpfs", 0, "size=1m");
        let mut bytes = vec![7; 100_000];
        bytes.extend(vec![0; 200_000]);
        bytes.extend(b"the end");
        sandbox.write("a.tmp", &bytes);
        let path = sandbox.path("a.tmp");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(1_234), Some(4_321)).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_000);
        file.set_modified(then).unwrap();
        drop(file);
        let of = |path: &std::path::Path| {
            let meta = fs::metadata(path).unwrap();
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
            )
        };
        let before = of(&path);
        let moved = quarantine_only_copy(&sandbox);
        // The other file system has no room for it.
        fs::write(other.join("fill"), vec![1; 900_000]).unwrap();
        sandbox
            .run(["restore", "--to", "other/", id(&moved)])
            .exit(1)
            .prints_nothing();
        assert!(!other.join("a.tmp").exists());
        assert_eq!(stored_paths(&sandbox), ["a.tmp"]);
        fs::remove_file(other.join("fill")).unwrap();
        sandbox
            .run(["restore", "--to", "other/", id(&moved)])
            .exit(0);
        assert_eq!(of(&other.join("a.tmp")), before);
        assert!(
            fs::read(other.join("a.tmp")).unwrap() == bytes,
            "other bytes"
        );
        assert!(!sandbox.has(".orphand"));
    });
}

/// A copy would miss what a process still writes to a stored file, so the file is not replaced by one.
#[cfg(target_os = "linux")]
#[test]
fn a_file_in_use_is_not_replaced_by_a_copy() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    use std::io::Write;
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().file("a.tmp", "one\n");
        sandbox.make_dir("../other");
        let other = sandbox.base().join("other");
        let _mounted = Mounted::new("tmpfs", &other, "tmpfs", 0, "size=1m");
        let mut writer = fs::File::options()
            .append(true)
            .open(sandbox.path("a.tmp"))
            .unwrap();
        sandbox.age(OLD_ENOUGH);
        let args = SHORT.iter().chain(&["--open", "quarantine"]);
        let moved = sandbox.sweep(args).exit(0).events();
        let moved = moved.one("quarantined").clone();
        let restore = || sandbox.run(["restore", "--to", "other/", id(&moved)]);
        restore()
            .exit(1)
            .prints_nothing()
            .stderr_has(&format!("[{}] uses the stored file", std::process::id()))
            .stderr_has("stays in the quarantine")
            .stderr_has(&format!("restore {}", id(&moved)));
        assert_eq!(fs::read_dir(&other).unwrap().count(), 0);
        writer.write_all(b"two\n").unwrap();
        assert_eq!(stored_paths(&sandbox), ["a.tmp"]);
        drop(writer);
        restore().exit(0);
        assert_eq!(fs::read(other.join("a.tmp")).unwrap(), b"one\ntwo\n");
        assert!(!sandbox.has(".orphand"));
    });
}

/// The quarantine is full before the move: a temp without room is kept, with the reason. Copies of a known
/// form make room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_quarantine_takes_no_more() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new();
        configure(&sandbox, "[quarantine]\nmin_free = \"0\"\n");
        let _mounted = Mounted::new("tmpfs", &sandbox.root(), "tmpfs", 0, "size=10m,mode=755");
        const PIECE: usize = 100 << 10;
        for n in 0..12 {
            sandbox.write(format!("{n:02}.json.tmp"), vec![n; PIECE]);
        }
        sandbox.age(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.sums(), [0, 10, 2, 0], "a tenth of 10 MiB");
        let kept = events.of("kept");
        assert!(
            kept.iter().all(|one| one["reason"] == "quarantine-full"),
            "{kept:?}"
        );
        assert!(
            events.of("purged").is_empty(),
            "no only copy may be dropped"
        );
        sandbox.run(["quarantine", "purge", "--yes"]).exit(0);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.sums(), [0, 2, 0, 0], "there is room again");

        sandbox.run(["quarantine", "purge", "--yes"]).exit(0);
        let name = |n: u8| format!("s.json.1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7{n:04}.tmp");
        for n in 0..14 {
            sandbox.write(name(n), vec![n; PIECE]);
            sandbox.age(Duration::from_millis(1));
            if n == 9 {
                quarantine_all(&sandbox);
            }
        }
        sandbox.age(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        // As many fit as were dropped: eight are kept.
        assert_eq!(events.sums(), [0, 2, 2, 0]);
        let mut dropped: Vec<&str> = events
            .of("purged")
            .into_iter()
            .map(|one| one["path"].as_str().unwrap())
            .collect();
        dropped.sort_unstable();
        let ends = |(path, n): (&&str, u8)| path.ends_with(&name(n));
        assert_eq!(dropped.len(), 2, "{events:?}");
        assert!(dropped.iter().zip(0..).all(ends), "the oldest: {dropped:?}");
        // By now two more of the old ones have eight newer copies.
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.sums(), [0, 2, 0, 0]);
        let newest: Vec<String> = (4..14).map(name).collect();
        assert_eq!(stored_paths(&sandbox), newest);
    });
}

/// On a disk without inodes or space a sweep completes, and a journal that cannot be written is reported
/// once.
#[cfg(target_os = "linux")]
#[test]
fn a_sweep_survives_a_disk_without_inodes_or_space() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    in_own_process(&[RunAs::OwnMounts], || {
        for options in [
            "size=4m,nr_inodes=200,mode=755",
            "size=2m,nr_inodes=2k,mode=755",
        ] {
            let sandbox = Sandbox::new();
            let _mounted = Mounted::new("tmpfs", &sandbox.root(), "tmpfs", 0, options);
            sandbox.make_dir("state");
            for n in 0..150 {
                sandbox.write(format!("{n}.json.tmp"), "x");
            }
            for n in 0..100 {
                if fs::write(sandbox.path(format!("{n}.fill")), "x").is_err() {
                    break;
                }
            }
            // The first of these files may have used the last inode.
            let mut fill = fs::File::create(sandbox.path("0.fill")).unwrap();
            while std::io::Write::write_all(&mut fill, &[1; 1 << 10]).is_ok() {}
            sandbox.age(OLD_ENOUGH);
            let state = sandbox.path("state");
            let sandbox = sandbox.env("XDG_STATE_HOME", state);
            let ran = sandbox.sweep(SHORT).exit(0);
            let sums = ran.events().sums();
            assert_eq!(sums[0] + sums[1] + sums[2], 150, "{options}: {sums:?}");
            let lines = ran.stderr.lines().count();
            assert!(lines <= 20, "{options}: {lines} lines: {}", ran.stderr);
        }
    });
}

/// All commands print a name that is not UTF-8 in the same way.
#[test]
fn history_and_list_escape_names_alike() {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"a\xff\x1b.tmp");
    let sandbox = Sandbox::new().file(name, "precious");
    quarantine_all(&sandbox);
    let escaped = r"a\xff\u{1b}.tmp";
    for verb in [&["quarantine", "list"][..], &["history"]] {
        sandbox.run(verb).exit(0).stdout_has(escaped);
    }
}

/// Quarantines are found with another state folder, and from a directory below the root; if none is found,
/// the message names the searched places.
#[test]
fn quarantines_are_found_without_the_journal() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious");
    quarantine_all(&sandbox);
    let status = sandbox.run(["status"]).exit(1);
    status.stdout_has("1 file in quarantine");
    let json = sandbox.run(["status", "--json"]).exit(1).stdout_json();
    assert_eq!(json["disks"][0]["quarantined"], 1, "{json}");
    let other = sandbox.base().join("home/other-state");
    let sandbox = sandbox.env("XDG_STATE_HOME", other);
    let within = |dir: &str, args: &[&str]| {
        let mut command = sandbox.command(args);
        command.current_dir(sandbox.base().join(dir));
        sandbox.finish(command)
    };
    for verb in ["list", "purge"] {
        let ran = within("home", &["quarantine", verb]).exit(0);
        ran.stdout_has("no files in quarantine (searched /, ")
            .stdout_has(sandbox.base().join("home").to_str().unwrap());
    }
    within("root/sub", &["quarantine", "list"])
        .exit(0)
        .stdout_has("root/sub/a.tmp");
    within("home", &["quarantine", "list", "../root"])
        .exit(0)
        .stdout_has("root/sub/a.tmp");
    configure(
        &sandbox,
        &format!("[[watch]]\npath = {:?}\n", sandbox.root()),
    );
    within("home", &["quarantine", "list"])
        .exit(0)
        .stdout_has("root/sub/a.tmp");
    within("home", &["status"])
        .exit(1)
        .stdout_has("1 file in quarantine");
    fs::remove_dir_all(sandbox.base().join("config/orphand")).unwrap();
    within("home", &["quarantine", "purge", "--yes", "../root"])
        .exit(0)
        .stdout_has("deleted");
    assert!(!sandbox.has(".orphand"));
}

/// A name that several targets share, or that has only a part of its target, does not show that two files are copies of
/// one target.
#[test]
fn files_of_different_targets_are_no_copies() {
    let sandbox = Sandbox::new();
    configure(
        &sandbox,
        "[quarantine]\nkeep = \"300ms\"\n[defaults]\nwriters = [\"rsync\"]\n",
    );
    let long = "x".repeat(128);
    let names = [
        ".bashrc.Ab3xYz".to_owned(),
        ".bashrc.Qw9eRt".to_owned(),
        format!("{long}.tmp-8123456789a1b2c3"),
        format!("{long}.tmp-8123456999d4e5f6"),
    ];
    for name in &names {
        sandbox.write(name, "precious");
    }
    quarantine_all(&sandbox);
    sandbox.age(OLD_ENOUGH * 4);
    sandbox.sweep(SHORT).exit(0);
    let mut want = names.to_vec();
    want.sort();
    assert_eq!(stored_paths(&sandbox), want);
}

/// A copy gets neither the default list of its new directory nor, for another group than that of the file, any rights.
#[cfg(target_os = "linux")]
#[test]
fn a_restored_copy_gets_no_other_rights() {
    use crate::fixture::{RunAs, in_own_process};
    use crate::places::Mounted;
    // acl(5): all rights for the owner, the user 1234, the group and the mask, and none for others.
    let entries = [(1u16, !0u32), (2, 1_234), (4, !0), (16, !0), (32, !0)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, id) in entries {
        let rights: u16 = if tag == 32 { 0 } else { 7 };
        acl.extend(
            [
                &tag.to_le_bytes()[..],
                &rights.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat(),
        );
    }
    let flags = rustix::fs::XattrFlags::empty();
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().file("a.tmp", "secret").dir("../other");
        let other = sandbox.base().join("other");
        let _mounted = Mounted::new("tmpfs", &other, "tmpfs", 0, "");
        rustix::fs::setxattr(&other, "system.posix_acl_default", &acl, flags).unwrap();
        let path = sandbox.path("a.tmp");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        quarantine_all(&sandbox);
        sandbox
            .run(["restore", "--to", "other/a", "root/a.tmp"])
            .exit(0);
        let copy = other.join("a");
        let mut found = [0; 128];
        let list = rustix::fs::getxattr(&copy, "system.posix_acl_access", &mut found[..]);
        assert_eq!(list, Err(rustix::io::Errno::NODATA));
        assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o777, 0o640);
    });
}
