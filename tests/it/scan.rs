//! `orphand scan` and `explain`: what is there, and what would become of it. They change nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::Value;

use crate::contract;
use crate::sandbox::{Sandbox, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD: Duration = Duration::from_millis(150);

fn temps(document: &Value) -> Vec<(&str, String)> {
    let temps = document["temps"].as_array().unwrap().iter();
    let mut temps: Vec<_> = temps
        .map(|temp| {
            let word = |key: &str| temp[key].as_str().unwrap_or("-");
            (
                name(temp),
                format!("{} {}", word("verdict"), word("reason")),
            )
        })
        .collect();
    temps.sort();
    temps
}

#[test]
fn everything_is_listed_with_its_verdict() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "orphan")
        .file("sole.tmp", "precious")
        .file("empty.4194304.tmp", "")
        .file("held.tmp", "x")
        .file("linked.tmp", "x")
        .file("not a temp", "x")
        .file("below/b.tmp", "x")
        .dir("dir.tmp");
    fs::hard_link(sandbox.path("linked.tmp"), sandbox.path("another name")).unwrap();
    symlink("a", sandbox.path("link.tmp")).unwrap();
    let sandbox = sandbox.aged(OLD);
    let held = fs::File::open(sandbox.path("held.tmp")).unwrap();
    let before = sandbox.snapshot();
    let ran = sandbox.scan(SHORT).exit(0);
    let document = ran.stdout_json();
    contract::check_scan(&document);
    let want = [
        ("a.tmp", "reap -"),
        ("empty.4194304.tmp", "reap -"),
        ("held.tmp", "keep in-use"),
        ("linked.tmp", "keep hard-linked"),
        ("sole.tmp", "quarantine sole-copy"),
    ];
    assert_eq!(
        temps(&document),
        want.map(|(name, what)| (name, what.to_owned()))
    );
    assert_eq!(
        document["total"],
        serde_json::json!({"temps": 5, "bytes": 16, "orphans": 3, "orphan_bytes": 14})
    );
    assert_eq!(
        document["roots"],
        serde_json::json!([sandbox.root().to_str().unwrap()])
    );
    let first = document["temps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| name(t) == "a.tmp")
        .unwrap();
    assert_eq!(first["path"], sandbox.path("a.tmp").to_str().unwrap());
    assert_eq!(first["target"], sandbox.path("a").to_str().unwrap());
    assert!(first["quiet_ms"].as_u64().unwrap() >= 150);

    // Young ones as well.
    let young = sandbox.scan(["--grace", "1d"]).exit(0).stdout_json();
    assert!(
        temps(&young).iter().all(|(_, what)| what == "keep young"),
        "{young}"
    );
    assert_eq!(young["total"]["orphans"], 0);
    assert_eq!(young["total"]["temps"], 5);

    let deep = sandbox
        .scan(SHORT.iter().chain(&["-r"]))
        .exit(0)
        .stdout_json();
    assert_eq!(deep["total"]["temps"], 6);

    // For people one line each, and the total.
    let people = sandbox.run(["scan", "--grace", "100ms", "root"]).exit(0);
    assert_eq!(people.stdout.lines().count(), 6, "{}", people.stdout);
    people.says("3 orphans, 14 B").says("orphand sweep");
    assert_eq!(
        sandbox.snapshot(),
        before,
        "nothing is changed, nor made for itself"
    );
    drop(held);
}

/// What scan says is what sweep does.
#[test]
fn scan_and_sweep_agree() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "orphan")
        .file("sole.tmp", "precious")
        .file("empty.4194304.tmp", "")
        .file(format!("a.{}.7.tmp", std::process::id()), "x")
        .aged(OLD);
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    let events = sandbox.sweep(SHORT).exit(0).events();
    for temp in scan["temps"].as_array().unwrap() {
        let said = match temp["verdict"].as_str().unwrap() {
            "reap" => "reaped".to_owned(),
            "quarantine" => "quarantined".to_owned(),
            _ => format!("kept {}", temp["reason"].as_str().unwrap()),
        };
        assert_eq!(events.about(name(temp)), [said], "{temp}");
    }
}

#[test]
fn a_scan_of_nothing() {
    let document = Sandbox::new().scan(SHORT).exit(0).stdout_json();
    contract::check_scan(&document);
    assert_eq!(document["temps"], serde_json::json!([]));
    Sandbox::new()
        .run(["scan", "root"])
        .exit(0)
        .says("no orphans");
}

#[test]
fn quiet_is_counted_from_the_newest_date() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD);
    let file = fs::File::options()
        .write(true)
        .open(sandbox.path("a.4194304.tmp"))
        .unwrap();
    // rsync and tar set it back: that alone makes nothing old.
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    drop(file);
    let document = sandbox.scan(["--grace", "1d"]).exit(0).stdout_json();
    let quiet = document["temps"][0]["quiet_ms"].as_u64().unwrap();
    assert!(
        quiet < 1000 * 60 * 60,
        "quiet for {quiet} ms by its mtime alone"
    );
}

#[test]
fn explain_shows_every_gate() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .aged(OLD);
    let holder = fs::File::open(sandbox.path("a.tmp")).unwrap();
    let before = sandbox.snapshot();
    let document = sandbox
        .run(["explain", "--json", "--grace", "100ms", "root/a.tmp"])
        .exit(0)
        .stdout_json();
    let temp = &document["temps"][0];
    contract::check_temp(temp);
    assert_eq!(temp["root"], sandbox.root().to_str().unwrap());
    assert_eq!(
        (&temp["verdict"], &temp["reason"]),
        (&"keep".into(), &"in-use".into())
    );
    assert_eq!(temp["holders"][0]["pid"], std::process::id());
    let gates = temp["gates"].as_array().unwrap();
    assert!(gates.len() >= 10, "{temp}");
    let failing: Vec<_> = gates
        .iter()
        .filter(|gate| gate["passes"] == false)
        .collect();
    assert_eq!(failing.len(), 1, "{temp}");
    assert_eq!(failing[0]["reason"], "in-use");
    assert!(gates.iter().all(|gate| gate["evidence"].is_string()));
    let people = sandbox
        .run(["explain", "--grace", "100ms", "root/a.tmp"])
        .exit(0);
    assert!(
        people.stdout.lines().count() > gates.len(),
        "{}",
        people.stdout
    );
    people
        .says("in-use")
        .says(&format!("[{}]", std::process::id()));
    assert_eq!(sandbox.snapshot(), before);
    drop(holder);
    // A file that no rule takes is explained all the same.
    sandbox.run(["explain", "root/a"]).exit(0);
}

/// A terminal or not, colours are only where they are asked for.
#[test]
fn colours_on_wish() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD);
    for (args, coloured) in [
        (&["scan", "--grace", "100ms", "root"][..], false),
        (
            &["scan", "--color", "always", "--grace", "100ms", "root"],
            true,
        ),
        (
            &[
                "scan", "--color", "always", "--json", "--grace", "100ms", "root",
            ],
            false,
        ),
    ] {
        let ran = sandbox.run(args).exit(0);
        assert_eq!(
            ran.stdout.contains('\x1b'),
            coloured,
            "{args:?}: {}",
            ran.stdout
        );
    }
}

/// Nothing but data on stdout, nothing but words on stderr.
#[test]
fn quiet_and_json() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD);
    let ran = sandbox.sweep(SHORT.iter().chain(&["-n", "-v"])).exit(0);
    assert_eq!(ran.events().sums(), [1, 0, 0, 0]);
    sandbox
        .run(["sweep", "-n", "-q", "--grace", "100ms", "root"])
        .exit(0)
        .silent();
    sandbox
        .run(["sweep", "-n", "--grace", "100ms", "root"])
        .exit(0)
        .says("a.4194304.tmp");
}
