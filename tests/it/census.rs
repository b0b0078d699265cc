//! What a scan, a sweep and the status show beside temps: directories and special files with matching names, which are
//! never touched, and the numbers at the end.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, StartChild};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Makes a directory tree, a FIFO, a socket and a symlink with names of temps.
fn with_trees() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a.tmp", "old")
        .file("a", "whole")
        .file("lu48.tmp/one", "123")
        .file("lu48.tmp/deep/two", "4567")
        .file("lu48.tmp/lu49.tmp", "a temp in it")
        .dir("lu48.tmp/inner.tmp")
        .dir("sub/empty.tmp");
    let made = Command::new("mkfifo")
        .arg(sandbox.path("fifo.tmp"))
        .run_to_end();
    assert!(made.unwrap().success());
    drop(UnixListener::bind(sandbox.path("socket.tmp")).unwrap());
    symlink("a", sandbox.path("link.tmp")).unwrap();
    sandbox.aged(OLD_ENOUGH)
}

/// Returns the name, kind, files and bytes of each tree.
fn trees(sandbox: &Sandbox, trees: &Value) -> Vec<Value> {
    let row = |tree: &Value| {
        let path = tree["path"].as_str().unwrap();
        let below = std::path::Path::new(path)
            .strip_prefix(sandbox.root())
            .unwrap();
        assert!(tree["newest_ms"].as_u64().unwrap() >= 100, "{tree}");
        assert_eq!(tree["complete"], true, "{tree}");
        json!([below, tree["kind"], tree["files"], tree["bytes"]])
    };
    trees
        .as_array()
        .unwrap_or_else(|| panic!("{trees}"))
        .iter()
        .map(row)
        .collect()
}

#[test]
fn directories_and_special_files_are_listed_and_never_touched() {
    let sandbox = with_trees();
    let before = sandbox.snapshot();
    let flat = [
        json!(["fifo.tmp", "special", 0, 0]),
        json!(["link.tmp", "symlink", 0, 0]),
        json!(["lu48.tmp", "directory", 3, 19]),
        json!(["socket.tmp", "special", 0, 0]),
    ];
    let deep = [&flat[..], &[json!(["sub/empty.tmp", "directory", 0, 0])]].concat();
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    assert_eq!(trees(&sandbox, &scan["trees"]), flat);
    let scan = sandbox
        .scan(SHORT.into_iter().chain(["-r"]))
        .exit(0)
        .stdout_json();
    assert_eq!(trees(&sandbox, &scan["trees"]), deep, "the outermost ones");
    assert_eq!(sandbox.snapshot(), before);
    let ran = sandbox.run(["scan", "--grace", "100ms", "root"]).exit(0);
    let lines = ran.stdout_has(
        "1 directory and 3 special files have such names too; orphand never touches them:",
    );
    lines.stdout_has("lu48.tmp/   3 files, ");
    for args in [&["scan"][..], &["sweep", "-n"]] {
        let ran = sandbox.run(args.iter().chain(&["-r", "--grace", "100ms", "root"]));
        ran.exit(0).stdout_has(
            "2 directories and 3 special files have such names too; orphand never removes them, only temps in a \
             directory:",
        );
    }
    let swept = sandbox.sweep(SHORT).exit(0);
    assert_eq!(trees(&sandbox, &swept.events().summary()["trees"]), flat);
    assert_eq!(swept.events().names("reaped"), ["a.tmp"]);
    for left in [
        "lu48.tmp/one",
        "lu48.tmp/deep/two",
        "lu48.tmp/lu49.tmp",
        "lu48.tmp/inner.tmp",
    ] {
        assert!(sandbox.has(left), "{left}");
    }
    let mut watch = sandbox.watch(SHORT).ready();
    watch.wait_for_sentinel(&sandbox);
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    assert_eq!(
        trees(&sandbox, &status["watchers"][0]["roots"][0]["trees"]),
        flat
    );
    sandbox
        .run(["status"])
        .exit(0)
        .stdout_has("1 directory and 3 special files have such names too");
    // A tree that is gone is no longer listed.
    fs::remove_file(sandbox.path("fifo.tmp")).unwrap();
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let listed = trees(&sandbox, &status["watchers"][0]["roots"][0]["trees"]);
    assert_eq!(listed, flat[1..]);
    let stopped = watch.stop().exit(0);
    assert_eq!(stopped.events.summary()["trees"], Value::Null);
    for left in [
        "lu48.tmp/one",
        "lu48.tmp/deep/two",
        "lu48.tmp/lu49.tmp",
        "lu48.tmp/inner.tmp",
        "link.tmp",
        "socket.tmp",
    ] {
        assert!(sandbox.has(left), "{left}");
    }
}

#[test]
fn a_tree_that_cannot_be_read_has_no_count() {
    let sandbox = Sandbox::ordinary()
        .file("shut.tmp/a", "1")
        .file("part.tmp/shut/a", "1")
        .file("part.tmp/b", "22");
    for shut in ["shut.tmp", "part.tmp/shut"] {
        fs::set_permissions(sandbox.path(shut), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    let [part, shut] = scan["trees"].as_array().unwrap().as_slice() else {
        panic!("{scan:#}")
    };
    assert_eq!(
        (&part["files"], &part["bytes"], &part["complete"]),
        (&json!(1), &json!(2), &json!(false))
    );
    assert_eq!(
        (&shut["files"], &shut["bytes"], &shut["complete"]),
        (&Value::Null, &Value::Null, &json!(false))
    );
    let ran = sandbox.run(["scan", "--grace", "100ms", "root"]).exit(0);
    ran.stdout_has("part.tmp/   at least 1 file, ")
        .stdout_has("shut.tmp/   cannot be read");
    for shut in ["shut.tmp", "part.tmp/shut"] {
        fs::set_permissions(sandbox.path(shut), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn the_census_counts_each_temp_once() {
    let sandbox = Sandbox::new()
        .file("a.tmp", "old")
        .file("a", "whole")
        .file("sole.tmp", "the only copy")
        .file("other.tmp", "the next only copy")
        .file("b.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    sandbox
        .sweep(SHORT.into_iter().chain(["--name", "other.tmp"]))
        .exit(0);
    let long = ["--grace", "1h"];
    let scan = sandbox.scan(long).exit(0).stdout_json();
    let census = &scan["census"];
    assert_eq!(
        (&census["young"], &census["to_remove"]),
        (&json!(3), &json!(0)),
        "{census}"
    );
    let next = census["next_ms"].as_u64().unwrap();
    assert!((3_000_000..3_600_000).contains(&next), "{census}");
    assert_eq!(
        (&census["quarantined"], &census["quarantined_bytes"]),
        (&json!(1), &json!(18)),
        "{census}"
    );
    let ran = sandbox.run(["scan", "--grace", "1h", "root"]).exit(0);
    ran.stdout_has("looked at 3 temps: 3 too young (the next is due in 59 min")
        .stdout_has("1 file in quarantine");
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    let census = &scan["census"];
    assert_eq!(
        (
            &census["young"],
            &census["to_remove"],
            &census["to_move"],
            &census["next_ms"]
        ),
        (&json!(0), &json!(2), &json!(1), &Value::Null),
        "{census}"
    );
    let ran = sandbox
        .run(["sweep", "--yes", "--grace", "1h", "root"])
        .exit(0);
    ran.stdout_has("of the 3 kept temps, 3 are too young (the next is due in 59 min")
        .stdout_has("1 file in quarantine");
}

/// Names of writers that are not on, and names in another letter case, are counted with the option that matches them.
#[test]
fn names_like_temps_are_counted() {
    let sandbox = Sandbox::new()
        .file("a.tmp", "taken")
        .file("a", "whole")
        .file("b.TMP", "1")
        .file("sub/c.TMP", "22")
        .file("sub/d.Tmp", "333")
        .file("sub/.big.iso.aB3xYz", "of rsync, or another")
        .file("sub/0.TMP", "never taken")
        .file("sub/a.lock", "reserved")
        .file("out/e.TMP", "excluded")
        .file("f.txt", "no temp")
        .aged(OLD_ENOUGH);
    let options = SHORT.into_iter().chain(["-r", "--exclude", "out"]);
    let options: Vec<&str> = options.collect();
    let row = |writer: Value, name: Value, files: u64, bytes: u64, dir: &str| {
        let dir = sandbox.root().join(dir);
        let dir = dir.to_str().unwrap().trim_end_matches('/');
        json!([writer, name, files, bytes, true, dir])
    };
    let expected = [
        row(json!(null), json!("*.TMP"), 2, 3, ""),
        row(json!("atomic-write-file"), json!(null), 1, 20, "sub"),
        row(json!(null), json!("*.Tmp"), 1, 3, "sub"),
    ];
    let rows = |groups: &Value| -> Vec<Value> {
        let groups = groups.as_array().unwrap_or_else(|| panic!("{groups}"));
        let row = |group: &Value| {
            assert!(group["disk_bytes"].is_u64(), "{group}");
            let fields = ["writer", "name", "files", "bytes", "complete", "dir"];
            Value::from_iter(fields.map(|field| group[field].clone()))
        };
        groups.iter().map(row).collect()
    };
    let scan = sandbox.scan(options.clone()).exit(0).stdout_json();
    assert_eq!(rows(&scan["lookalikes"]), expected);
    let ran = ["scan", "--grace", "100ms", "-r", "--exclude", "out", "root"];
    let ran = sandbox.run(ran).exit(0);
    ran.stdout_has("4 files have names like temps that the rule does not match:")
        .stdout_has("  2 files, ")
        .stdout_has("   *.TMP, as in ")
        .stdout_has("   to match them: --name '*.TMP'")
        .stdout_has("   of the writer atomic-write-file, as in ")
        .stdout_has("/sub/   to match them: --writer atomic-write-file");
    let swept = sandbox.sweep(options.clone()).exit(0);
    assert_eq!(rows(&swept.events().summary()["lookalikes"]), expected);
    assert_eq!(swept.events().names("reaped"), ["a.tmp"]);
    // The options match them.
    let more = options
        .into_iter()
        .chain(["--name", "*.TMP", "--writer", "atomic-write-file"]);
    let scan = sandbox.scan(more).exit(0).stdout_json();
    let names: Vec<&str> = (scan["temps"].as_array().unwrap().iter())
        .map(|temp| temp["path"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["b.TMP", ".big.iso.aB3xYz", "0.TMP", "c.TMP"]);
    let watch = sandbox
        .watch(["--grace", "1h", "-r", "--exclude", "out"])
        .ready();
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    assert_eq!(
        rows(&status["watchers"][0]["roots"][0]["lookalikes"]),
        expected
    );
    sandbox
        .run(["status"])
        .exit(0)
        .stdout_has("4 files have names like temps that the rule does not match:");
    let stopped = watch.stop().exit(0);
    assert_eq!(stopped.events.summary()["lookalikes"], Value::Null);
}
