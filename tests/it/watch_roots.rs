//! `orphand watch` while its directories are created, removed and moved.

use std::fs;

use serde_json::Value;

use crate::fixture::remove_watched_dir;
use crate::sandbox::{Sandbox, WatchProcess, is, name};

const SHORT: [&str; 2] = ["--grace", "200ms"];
const DEEP: [&str; 3] = ["--grace", "200ms", "-r"];

fn root_is(state: &str) -> impl Fn(&Value) -> bool + '_ {
    move |event| event["event"] == "root" && event["state"] == state
}

fn position(events: &[Value], wanted: impl Fn(&Value) -> bool) -> usize {
    events
        .iter()
        .position(wanted)
        .unwrap_or_else(|| panic!("{events:#?}"))
}

/// Creates a temp of this name, and waits until it is removed.
#[track_caller]
fn assert_new_temp_is_removed(watching: &mut WatchProcess, sandbox: &Sandbox, temp: &str) {
    sandbox.write(temp, "");
    let path = sandbox.path(temp);
    let gone = watching
        .wait_for(|event| event["event"] == "reaped" && event["path"] == path.to_str().unwrap());
    assert_eq!(gone["root"], sandbox.root().to_str().unwrap());
}

#[test]
fn a_missing_root_is_waited_for() {
    Sandbox::for_each_user(|sandbox| {
        fs::remove_dir(sandbox.root()).unwrap();
        let mut watching = sandbox.watch(SHORT).ready();
        let events = &watching.events().0;
        assert!(position(events, root_is("gone")) < position(events, |e| e["event"] == "ready"));
        sandbox.make_dir("");
        watching.wait_for(root_is("watching"));
        assert_new_temp_is_removed(&mut watching, &sandbox, "a.4194304.tmp");
        let stopped = watching.stop().exit(0);
        assert_eq!(stopped.events.one("rescan")["cause"], "root-returned");
    });
}

/// Its parents may be missing too, and the directories may be created one by one or all at once.
#[test]
fn a_root_with_missing_parents_is_waited_for() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox
        .watch_dirs(["--grace", "200ms", "root/a/b/c"])
        .ready();
    let mut shell = sandbox.shell();
    assert!(shell.run("mkdir -p a/b/c && : > a/b/c/x.4194304.tmp"));
    watching.wait_for(root_is("watching"));
    watching.wait_for(is("reaped", "x.4194304.tmp"));
    assert!(shell.run("rm -r a && mkdir a && mkdir a/b && mkdir a/b/c && : > a/b/c/y.4194304.tmp"));
    watching.wait_for(is("reaped", "y.4194304.tmp"));
    watching.stop().exit(0);
}

#[test]
fn a_recreated_root_is_watched_again() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(SHORT).ready();
    for round in 1..=3 {
        assert_new_temp_is_removed(&mut watching, &sandbox, &format!("{round}.a.4194304.tmp"));
        remove_watched_dir(&sandbox.root());
        watching.wait_for_nth(round, root_is("gone"));
        sandbox.write(format!("{round}.b.4194304.tmp"), "");
        watching.wait_for_nth(round, root_is("watching"));
        watching.wait_for(is("reaped", &format!("{round}.b.4194304.tmp")));
    }
    assert_new_temp_is_removed(&mut watching, &sandbox, "end.4194304.tmp");
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.of("ready").len(),
        1,
        "`ready` must come once"
    );
}

/// Deleted and recreated before a look: another directory, although the path was never seen missing.
#[test]
fn a_root_replaced_at_once_is_watched_again() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(SHORT).ready();
    let mut shell = sandbox.shell();
    let root = sandbox.root();
    for n in 0..5 {
        let line = format!(
            "rm -rf '{0}' && mkdir '{0}' && : > '{0}/{n}.x.4194304.tmp'",
            root.display()
        );
        assert!(shell.run(&line));
        watching.wait_for(is("reaped", &format!("{n}.x.4194304.tmp")));
    }
    assert_new_temp_is_removed(&mut watching, &sandbox, "end.4194304.tmp");
    watching.stop().exit(0);
}

/// A directory that was moved away is no longer below the root: nothing in it is touched.
#[test]
fn a_root_that_is_moved_away_is_not_touched() {
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(["--grace", "1s"]).ready();
    sandbox.write("a", "whole, to the last byte of it");
    sandbox.write("a.4194304.tmp", "x");
    let away = sandbox.base().join("away");
    fs::rename(sandbox.root(), &away).unwrap();
    watching.wait_for(root_is("gone"));
    sandbox.make_dir("");
    watching.wait_for(root_is("watching"));
    fs::write(away.join("b.4194304.tmp"), "").unwrap();
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(away.join("a.4194304.tmp").exists() && away.join("b.4194304.tmp").exists());
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.about("a.4194304.tmp"), [""; 0]);
}

#[test]
fn without_recursion_nothing_below_is_touched() {
    let sandbox = Sandbox::new().file("before/a.4194304.tmp", "");
    let mut watching = sandbox.watch(SHORT).ready();
    sandbox.write("later/a.4194304.tmp", "");
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    let stopped = watching.stop().exit(0);
    assert_eq!(stopped.events.about("a.4194304.tmp"), [""; 0]);
    assert!(sandbox.has("before/a.4194304.tmp") && sandbox.has("later/a.4194304.tmp"));
}

#[test]
fn with_recursion_new_directories_are_watched() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox.file("before/deep/a.4194304.tmp", "");
        let outside = sandbox.base().join("outside");
        sandbox.make_dir("../outside/in/there");
        sandbox.write("../outside/in/there/moved.4194304.tmp", "");
        let mut watching = sandbox.watch(DEEP).ready();
        watching.wait_for(is("reaped", "a.4194304.tmp"));
        // One after the other, with time between them.
        sandbox.make_dir("one");
        assert_new_temp_is_removed(&mut watching, &sandbox, "one/b.4194304.tmp");
        sandbox.make_dir("one/two");
        assert_new_temp_is_removed(&mut watching, &sandbox, "one/two/c.4194304.tmp");
        // All at once, and the temp before any watch can be set.
        let mut shell = sandbox.shell();
        assert!(shell.run("mkdir -p x/y/z && : > x/y/z/d.4194304.tmp"));
        watching.wait_for(is("reaped", "d.4194304.tmp"));
        assert_new_temp_is_removed(&mut watching, &sandbox, "x/y/e.4194304.tmp");
        assert_new_temp_is_removed(&mut watching, &sandbox, "x/y/z/f.4194304.tmp");
        // Moved in, with its content.
        fs::rename(&outside, sandbox.path("inside")).unwrap();
        let moved = watching.wait_for(is("reaped", "moved.4194304.tmp"));
        assert_eq!(
            moved["path"],
            sandbox
                .path("inside/in/there/moved.4194304.tmp")
                .to_str()
                .unwrap()
        );
        assert_new_temp_is_removed(&mut watching, &sandbox, "inside/in/g.4194304.tmp");
        watching.stop().exit(0);
    });
}

#[test]
fn temps_in_a_renamed_directory_are_removed() {
    let sandbox = Sandbox::new().dir("from/deep");
    let mut watching = sandbox.watch(["--grace", "1s", "-r"]).ready();
    sandbox.write("from/a.4194304.tmp", "");
    sandbox.write("from/deep/b.4194304.tmp", "");
    fs::rename(sandbox.path("from"), sandbox.path("to")).unwrap();
    for (temp, at) in [
        ("a.4194304.tmp", "to/a.4194304.tmp"),
        ("b.4194304.tmp", "to/deep/b.4194304.tmp"),
    ] {
        let gone = watching.wait_for(is("reaped", temp));
        assert_eq!(
            gone["path"],
            sandbox.path(at).to_str().unwrap(),
            "by its current path"
        );
    }
    assert_new_temp_is_removed(&mut watching, &sandbox, "to/c.4194304.tmp");
    assert_new_temp_is_removed(&mut watching, &sandbox, "to/deep/d.4194304.tmp");
    // Another directory may get the old name at once.
    sandbox.make_dir("from");
    assert_new_temp_is_removed(&mut watching, &sandbox, "from/e.4194304.tmp");
    remove_watched_dir(&sandbox.path("to"));
    sandbox.make_dir("to");
    assert_new_temp_is_removed(&mut watching, &sandbox, "to/f.4194304.tmp");
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.of("failed").len(),
        0,
        "{:#?}",
        stopped.events
    );
}

/// A directory that was moved out of the root is no longer watched.
#[test]
fn a_directory_that_is_moved_out_is_not_touched() {
    let sandbox = Sandbox::new().file("sub/a", "whole, to the last byte of it");
    let mut watching = sandbox.watch(["--grace", "1s", "-r"]).ready();
    sandbox.write("sub/a.4194304.tmp", "x");
    let out = sandbox.base().join("out");
    fs::rename(sandbox.path("sub"), &out).unwrap();
    fs::write(out.join("b.4194304.tmp"), "").unwrap();
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(out.join("a.4194304.tmp").exists() && out.join("b.4194304.tmp").exists());
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.names("reaped"),
        [
            "sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
            "sentinel-2.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
        ]
    );
}

/// A symlink below the root is not followed, even if it replaces a watched directory.
#[test]
fn symlinks_below_the_root_are_not_followed() {
    let sandbox = Sandbox::new().dir("sub");
    sandbox.write("../outside/a.4194304.tmp", "");
    sandbox.write("../outside/b", "whole, to the last byte of it");
    sandbox.write("../outside/b.4194304.tmp", "x");
    let outside = sandbox.base().join("outside");
    std::os::unix::fs::symlink(&outside, sandbox.path("before")).unwrap();
    let mut watching = sandbox.watch(DEEP).ready();
    std::os::unix::fs::symlink(&outside, sandbox.path("later")).unwrap();
    sandbox.write("sub/b.4194304.tmp", "");
    fs::rename(sandbox.path("sub"), sandbox.base().join("sub")).unwrap();
    std::os::unix::fs::symlink(&outside, sandbox.path("sub")).unwrap();
    fs::write(outside.join("c.4194304.tmp"), "").unwrap();
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    for temp in ["a.4194304.tmp", "b.4194304.tmp", "c.4194304.tmp"] {
        assert!(
            outside.join(temp).exists(),
            "{temp}: {:#?}",
            watching.events()
        );
    }
    watching.stop().exit(0);
}

#[test]
fn nested_roots_report_each_temp_once() {
    let sandbox = Sandbox::new().dir("inner").dir("../other");
    let args = [
        "--grace",
        "200ms",
        "-r",
        "root",
        "root/inner",
        "other",
        "root/",
        "./other/.",
    ];
    let mut watching = sandbox.watch_dirs(args).ready();
    sandbox.write("a.4194304.tmp", "");
    sandbox.write("inner/b.4194304.tmp", "");
    sandbox.write("../other/c.4194304.tmp", "");
    for temp in ["a.4194304.tmp", "b.4194304.tmp", "c.4194304.tmp"] {
        watching.wait_for(is("reaped", temp));
    }
    let stopped = watching.stop().exit(0);
    let base = sandbox.base();
    let roots = &stopped.events.one("ready")["roots"];
    let want = ["root", "root/inner", "other"].map(|dir| base.join(dir));
    assert_eq!(*roots, serde_json::json!(want));
    assert_eq!(
        stopped.events.sums(),
        [3, 0, 0, 0],
        "each temp must be reported once"
    );
    let inner = stopped
        .events
        .of("reaped")
        .into_iter()
        .find(|event| name(event) == "b.4194304.tmp");
    assert_eq!(
        inner.unwrap()["root"],
        base.join("root/inner").to_str().unwrap()
    );
}

/// Each directory has its own rule: the names of one rule do not apply to another directory.
#[test]
fn each_root_takes_only_the_names_of_its_rule() {
    let sandbox = Sandbox::new().dir("inner").dir("../logs");
    let rule = |path: &str, names: &str| {
        let path = sandbox.base().join(path);
        format!(
            "[[watch]]\npath = {path:?}\nnames = [{names:?}]\nexclude = [\"inner\"]\ngrace = \"200ms\"\nsole_copy = \"reap\"\nrecursive = true\n"
        )
    };
    let config = rule("root", "*.tmp") + &rule("logs", "*.log") + &rule("root/inner", "*.part");
    sandbox.write("../config/orphand/config.toml", config);
    sandbox.write("before.log", "x");
    sandbox.write("inner/before.4194304.tmp", "x");
    let mut watching = sandbox.watch_dirs([""; 0]).ready();
    sandbox.write("later.log", "x");
    sandbox.write("inner/later.4194304.tmp", "x");
    sandbox.write("inner/later.log", "x");
    sandbox.write("../logs/later.4194304.tmp", "x");
    watching.wait_for_sentinel(&sandbox);
    for taken in ["../logs/a.log", "inner/a.part"] {
        sandbox.write(taken, "x");
        let name = taken.rsplit('/').next().unwrap();
        watching.wait_for(is("reaped", name));
    }
    watching.wait_for_sentinel(&sandbox);
    let kept = [
        "before.log",
        "later.log",
        "inner/before.4194304.tmp",
        "inner/later.4194304.tmp",
        "inner/later.log",
        "../logs/later.4194304.tmp",
    ];
    for name in kept {
        assert!(sandbox.has(name), "{name}: {:#?}", watching.events());
    }
    watching.stop().exit(0);
}

/// A directory without read permission is reported, and the others are watched.
#[test]
fn an_unreadable_directory_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::ordinary().file("shut/a.4194304.tmp", "");
    let shut = sandbox.path("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o0)).unwrap();
    let mut watching = sandbox.watch(DEEP).ready();
    let failed = watching.wait_for(|event| event["event"] == "failed");
    assert_eq!(failed["path"], shut.to_str().unwrap());
    assert_eq!(failed["errno"], libc::EACCES);
    assert_new_temp_is_removed(&mut watching, &sandbox, "b.4194304.tmp");
    let stopped = watching.stop().exit(3);
    assert_eq!(stopped.events.sums(), [1, 0, 0, 1]);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(sandbox.has("shut/a.4194304.tmp"));
}

/// Files in `.orphand` are ignored, even if another program has put them there.
#[test]
fn the_quarantine_is_not_watched() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new().file(".orphand/0001/a.4194304.tmp", "");
    fs::set_permissions(sandbox.path(".orphand"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut watching = sandbox.watch(DEEP).ready();
    sandbox.write(".orphand/0002/b.4194304.tmp", "");
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
    assert!(
        sandbox.has(".orphand/0001/a.4194304.tmp") && sandbox.has(".orphand/0002/b.4194304.tmp")
    );
    assert_eq!(watching.stop().exit(0).events.sums(), [2, 0, 0, 0]);
}
