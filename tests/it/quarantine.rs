//! The quarantine: moved, not deleted; brought back, never over anything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::sandbox::{Begin, Ran, Sandbox, is, kept, mode};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD: Duration = Duration::from_millis(150);

/// Sweeps, and says what became of the only copy that was there.
#[track_caller]
fn moved(sandbox: &Sandbox) -> Value {
    sandbox.age(OLD);
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0).events();
    events.one("quarantined").clone()
}

fn id(event: &Value) -> &str {
    event["id"].as_str().unwrap()
}

fn listed(ran: &Ran) -> Vec<Value> {
    ran.stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn it_lies_there_as_it_was_and_comes_back_as_it_was() {
    Sandbox::each(|sandbox| {
        let sandbox = sandbox.file("sub/deep/a.tmp", "precious");
        let path = sandbox.path("sub/deep/a.tmp");
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_000);
        file.set_modified(then).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        drop(file);
        let before = fs::metadata(&path).unwrap();

        let event = moved(&sandbox);
        assert!(!path.exists());
        assert_eq!(event["bytes"], 8);
        assert_eq!(event["path"], path.to_str().unwrap());
        assert_eq!(
            event["target"],
            sandbox.path("sub/deep/a").to_str().unwrap()
        );
        let room = sandbox.path(".orphand");
        assert_eq!(mode(&room), 0o700);
        let there = room.join(id(&event)).join("sub/deep/a.tmp");
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
        assert!(!room.exists(), "gone when empty");
    });
}

#[test]
fn what_is_back_is_kept_until_it_changes() {
    Sandbox::each(|sandbox| {
        let sandbox = sandbox.file("a.tmp", "precious");
        let event = moved(&sandbox);
        sandbox.run(["restore", id(&event)]).exit(0);
        sandbox.age(OLD);
        for _ in 0..2 {
            let events = sandbox.sweep(SHORT).exit(0).events();
            assert_eq!(events.about("a.tmp"), ["kept restored"]);
        }
        let scan = sandbox.scan(SHORT).exit(0).stdout_json();
        assert_eq!(scan["temps"][0]["reason"], "restored");
        let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
        watching.wait_for(kept("a.tmp", "restored"));
        watching.outlive_a_sentinel(&sandbox);
        watching.stop().exit(0);
        assert_eq!(sandbox.content("a.tmp"), "precious");

        sandbox.write("a.tmp", "precious, and more");
        let event = moved(&sandbox);
        assert_eq!(event["bytes"], 18);
    });
}

/// It is brought back beside the watcher that took it, and that one leaves it alone now.
#[test]
fn restore_beside_a_watcher() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    sandbox.write("a.tmp", "precious");
    let event = watching.wait_for(is("quarantined", "a.tmp"));
    sandbox.run(["restore", id(&event)]).exit(0);
    watching.wait_for(kept("a.tmp", "restored"));
    for _ in 0..3 {
        watching.outlive_a_sentinel(&sandbox);
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
    let event = moved(&sandbox);
    sandbox.write("a.tmp", "second");
    let there = format!(".orphand/{}/a.tmp", id(&event));
    let ran = sandbox.run(["restore", id(&event)]).exit(1).silent();
    ran.complains("--to");
    assert_eq!(sandbox.content("a.tmp"), "second");
    assert_eq!(sandbox.content(&there), "first");
    sandbox.write("elsewhere", "third");
    sandbox
        .run(["restore", "--to", "root/elsewhere", id(&event)])
        .exit(1)
        .silent();
    assert_eq!(sandbox.content("elsewhere"), "third");
    sandbox
        .run(["restore", "--to", "root/no/such", id(&event)])
        .exit(1)
        .silent();
    assert_eq!(sandbox.content(&there), "first");
    sandbox
        .run(["restore", "--to", "root/a.kept", id(&event)])
        .exit(0);
    assert_eq!(sandbox.content("a.kept"), "first");
    assert!(!sandbox.has(".orphand"));
}

/// By the path that it had, from anywhere; and by its id without a journal, from the root.
#[test]
fn ways_to_name_what_is_to_come_back() {
    let again = |sandbox: &Sandbox| {
        // Changed, so that it may be taken again.
        sandbox.write("sub/a.tmp", format!("{:?}", SystemTime::now()));
        moved(sandbox)
    };
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious");
    moved(&sandbox);
    sandbox.run(["restore", "root/sub/a.tmp"]).exit(0);
    again(&sandbox);
    sandbox.run(["restore", "{base}/root/sub/a.tmp"]).exit(0);
    let event = again(&sandbox);
    fs::remove_dir_all(sandbox.base().join("state")).unwrap();
    sandbox
        .run(["restore", id(&event)])
        .exit(1)
        .complains("quarantine list");
    let mut command = sandbox.command(["restore", id(&event)]);
    command.current_dir(sandbox.root());
    sandbox.finish(command).exit(0);
    again(&sandbox);
    fs::remove_dir_all(sandbox.base().join("state")).unwrap();
    sandbox.run(["restore", "root/sub/a.tmp"]).exit(0);
    assert!(sandbox.has("sub/a.tmp"));
    // By a path that leads there though the configuration knows another one.
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
        .says("root/sub/a.tmp");
    assert!(sandbox.has("sub/a.tmp"));
    fs::remove_dir_all(&folder).unwrap();
    // Several at once.
    sandbox.write("b.tmp", "b");
    sandbox.write("c.tmp", "c");
    sandbox.age(OLD);
    sandbox.sweep(SHORT).exit(0);
    sandbox.run(["restore", "root/b.tmp", "root/c.tmp"]).exit(0);
    assert_eq!(sandbox.content("b.tmp") + &sandbox.content("c.tmp"), "bc");
}

/// One quarantine, by whatever mount it is seen.
#[cfg(target_os = "linux")]
#[test]
fn two_mounts_of_one_root() {
    use crate::places::Mounted;
    use crate::stage::{As, alone};
    alone(&[As::Mounts], || {
        let sandbox = Sandbox::new();
        let other = sandbox.base().join("other");
        fs::create_dir(&other).unwrap();
        let root = sandbox.root();
        let _mounted = Mounted::new(root.to_str().unwrap(), &other, "", libc::MS_BIND, "");
        let (one, two) = ("one.tmp", "two.tmp");
        sandbox.write(one, "one");
        sandbox.write(two, "two");
        sandbox.age(OLD);
        let swept = sandbox.sweep(SHORT).exit(0).events();
        let ids: Vec<&str> = swept.of("quarantined").into_iter().map(id).collect();
        assert_eq!(ids.len(), 2, "{swept:?}");
        // From here on the journal knows both paths.
        sandbox.run(["restore", "other/one.tmp"]).exit(0);
        let left = listed(&sandbox.run(["quarantine", "list", "--json"]).exit(0));
        assert!(
            matches!(left.as_slice(), [one] if ids.contains(&id(one))),
            "{left:?}"
        );
        let left = id(&left[0]);
        sandbox
            .run(["quarantine", "list"])
            .exit(0)
            .says("1 file, 3 B");
        sandbox.run(["restore", left]).exit(0);
        assert_eq!(sandbox.content(one) + &sandbox.content(two), "onetwo");
    });
}

/// A directory that led to the old place may be a symlink by now.
#[test]
fn restore_does_not_leave_the_root() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious");
    let event = moved(&sandbox);
    fs::remove_dir(sandbox.path("sub")).unwrap();
    sandbox.make_dir("../outside");
    std::os::unix::fs::symlink("../outside", sandbox.path("sub")).unwrap();
    sandbox.run(["restore", id(&event)]).exit(1).silent();
    assert!(!sandbox.has("../outside/a.tmp"));
    assert_eq!(
        sandbox.content(format!(".orphand/{}/sub/a.tmp", id(&event))),
        "precious"
    );
}

#[test]
fn list_and_purge() {
    let sandbox = Sandbox::new()
        .file("a.tmp", "1")
        .file("b.tmp", "22")
        .file("sub/c.tmp", "333")
        .aged(OLD);
    let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0).events();
    assert_eq!(events.sums(), [0, 3, 0, 0]);
    let ran = sandbox.run(["quarantine", "list", "--json"]).exit(0);
    let all = listed(&ran);
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
    let people = sandbox.run(["quarantine", "list"]).exit(0);
    people.says("3 files, 6 B").says("orphand quarantine purge");

    let first = all[0]["id"].as_str().unwrap();
    // Nobody can be asked, so it has to be said.
    sandbox
        .run(["quarantine", "purge"])
        .exit(2)
        .complains("--yes");
    sandbox
        .run(["quarantine", "purge", "0000zzzz", first])
        .exit(1);
    assert_eq!(
        listed(&sandbox.run(["quarantine", "list", "--json"])).len(),
        3
    );
    sandbox.run(["quarantine", "purge", first]).exit(0);
    let left = listed(&sandbox.run(["quarantine", "list", "--json"]));
    assert_eq!(left, all[1..]);
    sandbox
        .run(["quarantine", "purge", "--yes", "--json"])
        .exit(0)
        .events();
    assert_eq!(sandbox.listing(), ["sub"], "gone when empty");
    sandbox.run(["quarantine", "list"]).exit(0).says("nothing");
}

/// Two copies of one name: the quarantine keeps both, each under an id of its own.
#[test]
fn the_same_name_twice() {
    let sandbox = Sandbox::new().file("a.tmp", "first");
    let first = moved(&sandbox);
    sandbox.write("a.tmp", "second");
    let second = moved(&sandbox);
    assert_ne!(id(&first), id(&second));
    sandbox.run(["restore", "root/a.tmp"]).exit(0);
    assert_eq!(
        sandbox.content("a.tmp"),
        "second",
        "the newest is the one that is meant"
    );
    sandbox
        .run(["restore", "--to", "root/older", id(&first)])
        .exit(0);
    assert_eq!(sandbox.content("older"), "first");
}

/// A root that was copied has the same ids.
#[test]
fn an_id_that_is_in_two_quarantines() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "precious").aged(OLD);
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
        .ended();
    assert!(copied.unwrap().success());
    for command in [&["quarantine", "purge", id][..], &["restore", id]] {
        within(command)
            .exit(1)
            .complains("more than one quarantine");
    }
    for root in ["sub", "copy"] {
        let path = format!("{root}/.orphand/{id}/a.tmp");
        assert_eq!(sandbox.content(path), "precious");
    }
}

/// Every file that is quarantined has a folder of its own, gone with it, while a watcher runs.
#[test]
fn the_room_comes_and_goes_beside_a_watcher() {
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
