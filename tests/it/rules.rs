//! The `[[watch]]` rule that covers a directory: `scan`, `sweep` and `explain` judge by it, and name it.

use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Ran, Sandbox, name};

const OLD: Duration = Duration::from_millis(150);

/// Where the sandbox has its configuration, seen from its root.
const FILE: &str = "../config/orphand/config.toml";

/// With this configuration; `{base}` in it is the sandbox.
fn configured(sandbox: Sandbox, text: &str) -> Sandbox {
    let base = sandbox.base().to_str().unwrap().to_owned();
    sandbox.file(FILE, text.replace("{base}", &base)).aged(OLD)
}

fn rule(path: &str, rest: &str) -> String {
    format!("[[watch]]\npath = \"{{base}}/{path}\"\n{rest}\n")
}

/// The orphans that a scan lists, as paths below the sandbox, and the lines of their rules.
fn orphans(sandbox: &Sandbox, ran: &Ran) -> Vec<(String, Option<u64>)> {
    let document = ran.stdout_json();
    let temps = document["temps"].as_array().unwrap().iter();
    let one = |temp: &Value| {
        let path = temp["path"].as_str().unwrap();
        let below = path.strip_prefix(sandbox.base().to_str().unwrap()).unwrap();
        let rule = &temp["rule"];
        if !rule.is_null() {
            let file = sandbox.base().join("config/orphand/config.toml");
            assert_eq!(rule["file"], file.to_str().unwrap());
        }
        (below[1..].to_owned(), rule["line"].as_u64())
    };
    let orphans = temps.filter(|temp| temp["verdict"] != "keep");
    let mut orphans: Vec<_> = orphans.map(one).collect();
    orphans.sort();
    orphans
}

fn scan(sandbox: &Sandbox, args: &[&str]) -> Vec<(String, Option<u64>)> {
    let ran = sandbox.run(["scan", "--json"].iter().chain(args)).exit(0);
    orphans(sandbox, &ran)
}

#[track_caller]
fn found(sandbox: &Sandbox, args: &[&str], want: &[(&str, u64)]) {
    let want: Vec<_> = want
        .iter()
        .map(|(path, line)| ((*path).to_owned(), (*line > 0).then_some(*line)))
        .collect();
    assert_eq!(scan(sandbox, args), want, "{args:?}");
}

/// A rule that takes other names than usual, below its directory too, and leaves something alone.
const DEEP: &str = "recursive = true\nnames = [\"*.new\"]\ngrace = \"100ms\"\n\
                    sole_copy = \"reap\"\nexclude = [\"sub/*.x.new\", \"cache\"]";

fn deep() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a.new", "x")
        .file("a.4194304.tmp", "")
        .file("sub/b.new", "x")
        .file("sub/b.x.new", "x")
        .file("sub/b.4194304.tmp", "")
        .file("sub/more/c.new", "x")
        .file("cache/d.new", "x")
        .file("cache/d.4194304.tmp", "");
    configured(sandbox, &format!("\n{}", rule("root", DEEP)))
}

#[test]
fn the_rule_that_covers_a_directory_holds_there_and_is_named() {
    let sandbox = deep();
    found(
        &sandbox,
        &["root"],
        &[
            ("root/a.new", 3),
            ("root/sub/b.new", 3),
            ("root/sub/more/c.new", 3),
        ],
    );
    // Its globs are meant from its own directory on.
    let sub = [("root/sub/b.new", 3), ("root/sub/more/c.new", 3)];
    found(&sandbox, &["root/sub"], &sub);
    found(&sandbox, &["root/sub/more"], &sub[1..]);
    let ran = sandbox.run(["scan", "root/sub"]).exit(0);
    let named = format!(
        "root/sub has its [[watch]] rule at {}",
        sandbox.base().display()
    );
    ran.complains(&named)
        .complains("config.toml:3\n")
        .says("remove them: orphand sweep ");
    let quiet = sandbox.run(["scan", "-q", "root/sub"]).exit(0);
    assert_eq!(quiet.stderr, "");
    for (file, last) in [
        ("sub/b.new", "reap: every gate passes"),
        ("sub/b.x.new", "not a temp: excluded by sub/*.x.new"),
        ("cache/d.new", "not a temp: excluded by cache"),
        (
            "sub/b.4194304.tmp",
            "not a temp: its name does not match *.new",
        ),
    ] {
        let file = format!("root/{file}");
        let ran = sandbox.run(["explain", &file]).exit(0);
        let ran = ran
            .says("by the [[watch]] rule for ")
            .says("config.toml:3\n");
        assert_eq!(ran.stdout.lines().last(), Some(last), "{file}");
        let ran = sandbox.run(["explain", "--json", &file]).exit(0);
        assert_eq!(ran.stdout_json()["temps"][0]["rule"]["line"], 3, "{file}");
    }
    let swept = sandbox
        .run(["sweep", "--yes", "--json", "root/sub"])
        .exit(0);
    let swept = swept.complains("config.toml:3\n");
    assert_eq!(swept.events().names("reaped"), ["b.new", "c.new"]);
    assert_eq!(swept.events().sums(), [2, 0, 0, 0]);
}

#[test]
fn the_command_line_wins_over_the_rule() {
    let sandbox = deep();
    let empty = [("root/a.4194304.tmp", 3), ("root/sub/b.4194304.tmp", 3)];
    found(&sandbox, &["--name", "*.tmp", "root"], &empty);
    found(
        &sandbox,
        &["--recursive=false", "root"],
        &[("root/a.new", 3)],
    );
    found(&sandbox, &["--grace", "1d", "root"], &[]);
    let swept = ["sweep", "--yes", "--json", "--sole-copy", "keep", "root"];
    let events = sandbox.run(swept).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 3, 0]);
    let by_variable = deep().env("ORPHAND_RECURSIVE", "0");
    found(&by_variable, &["root"], &[("root/a.new", 3)]);
}

/// What a rule does not cover is judged by the `[defaults]`, as before.
#[test]
fn a_rule_covers_nothing_below_that_is_not_recursive() {
    let text = "[defaults]\ngrace = \"100ms\"\n".to_owned() + &rule("root", "names = [\"*.new\"]");
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("sub/b.4194304.tmp", "")
        .file("b.new", "");
    let sandbox = configured(sandbox, &text);
    found(&sandbox, &["root"], &[("root/b.new", 4)]);
    found(&sandbox, &["root/sub"], &[("root/sub/b.4194304.tmp", 0)]);
    let ran = sandbox.run(["scan", "root/sub"]).exit(0);
    assert_eq!(ran.stderr, "");
    let ran = sandbox.run(["explain", "root/sub/b.4194304.tmp"]).exit(0);
    ran.says("by the [defaults], because no [[watch]] rule covers it")
        .says("reap");
    let ran = sandbox
        .run(["explain", "--json", "root/sub/b.4194304.tmp"])
        .exit(0);
    assert_eq!(
        ran.stdout_json()["temps"][0].get("rule"),
        Some(&Value::Null)
    );
    // What is typed makes the rule of "root" recursive, so it covers what is below.
    found(&sandbox, &["-r", "root"], &[("root/b.new", 4)]);
}

/// A directory by another name is the same directory.
#[test]
fn a_rule_covers_a_directory_by_any_of_its_names() {
    let sandbox = Sandbox::new().file("in/a.new", "");
    symlink(sandbox.base(), sandbox.base().join("alias")).unwrap();
    let rest = "names = [\"*.new\"]\ngrace = \"100ms\"\nrecursive = true";
    let sandbox = configured(sandbox, &rule("alias/root", rest));
    found(&sandbox, &["root"], &[("root/in/a.new", 2)]);
    found(&sandbox, &["alias/root/in"], &[("alias/root/in/a.new", 2)]);
    sandbox.write(
        FILE,
        rule("root", rest).replace("{base}", sandbox.base().to_str().unwrap()),
    );
    found(&sandbox, &["alias/root/in"], &[("alias/root/in/a.new", 2)]);
    // A symlink below the root of a rule leads out of it: no watcher goes there.
    let outside = Sandbox::new()
        .file("../elsewhere/in/b.new", "")
        .file("../elsewhere/in/c.4194304.tmp", "");
    symlink("../elsewhere", outside.path("link")).unwrap();
    let text = "[defaults]\ngrace = \"100ms\"\n".to_owned() + &rule("root", rest);
    let outside = configured(outside, &text);
    found(
        &outside,
        &["root/link/in"],
        &[("root/link/in/c.4194304.tmp", 0)],
    );
}

/// What is excluded is left alone, though it is named.
#[test]
fn a_directory_that_the_rule_excludes_is_left_alone() {
    let sandbox = deep();
    for dir in ["root/cache", "{base}/root/cache"] {
        let swept = [
            "sweep", "--yes", "--json", "--name", "*.tmp", "--grace", "100ms", dir,
        ];
        let swept = sandbox.run(swept).exit(0);
        let swept = swept
            .complains("nothing in ")
            .complains("config.toml:3 excludes it (cache)");
        assert_eq!(swept.events().sums(), [0; 4]);
    }
    assert!(sandbox.has("cache/d.new") && sandbox.has("cache/d.4194304.tmp"));
    found(&sandbox, &["root/cache"], &[]);
}

#[test]
fn the_nearest_of_two_rules_holds() {
    let text = rule(
        "root",
        "recursive = true\ngrace = \"100ms\"\nexclude = [\"in/**\"]",
    ) + &rule("root/in", "names = [\"*.new\"]\ngrace = \"100ms\"");
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("in/b.4194304.tmp", "")
        .file("in/b.new", "")
        .file("in/below/c.4194304.tmp", "");
    let sandbox = configured(sandbox, &text);
    found(&sandbox, &["root/in"], &[("root/in/b.new", 7)]);
    found(&sandbox, &["root"], &[("root/a.4194304.tmp", 2)]);
    found(
        &sandbox,
        &["root", "root/in"],
        &[("root/a.4194304.tmp", 2), ("root/in/b.new", 7)],
    );
    // Excluded by the one, and not covered by the other.
    found(&sandbox, &["root/in/below"], &[]);
    let ran = sandbox
        .run(["explain", "root/in/below/c.4194304.tmp"])
        .exit(0);
    ran.says("not a temp: excluded by in/**");
}

/// A rule below the directory that was given keeps what it says.
#[test]
fn folders_below_a_directory_are_judged_by_their_own_rules() {
    let text = "[defaults]\ngrace = \"100ms\"\n".to_owned()
        + &rule(
            "root/app/in",
            "exclude = [\"keep.4194304.tmp\"]\nsole_copy = \"keep\"",
        )
        + &rule("root/app/in/deeper", "grace = \"1d\"")
        + &rule("root/slow", "grace = \"1d\"")
        + &rule("root/not there", "")
        + &rule("elsewhere", "");
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "x")
        .file("app/b.4194304.tmp", "")
        .file("app/in/c.4194304.tmp", "")
        .file("app/in/keep.4194304.tmp", "")
        .file("app/in/sole.tmp", "x")
        .file("app/in/below/d.4194304.tmp", "")
        .file("app/in/deeper/e.4194304.tmp", "")
        .file("slow/f.4194304.tmp", "")
        .file("slow/below/g.4194304.tmp", "");
    let sandbox = configured(sandbox, &text);
    let want = [
        ("root/a.4194304.tmp", 0),
        ("root/app/b.4194304.tmp", 0),
        ("root/app/in/below/d.4194304.tmp", 4),
        ("root/app/in/c.4194304.tmp", 4),
    ];
    found(&sandbox, &["-r", "root"], &want);
    found(&sandbox, &["root"], &want[..1]);
    let ran = sandbox.run(["scan", "-r", "root"]).exit(0);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines[0].contains("root/app/in has its [[watch]] rule at "),
        "{lines:?}"
    );
    assert!(lines[1].contains("root/app/in/deeper has its"), "{lines:?}");
    assert!(lines[2].contains("root/slow has its"), "{lines:?}");
    // What is typed wins there too.
    assert_eq!(scan(&sandbox, &["-r", "--grace", "100ms", "root"]).len(), 7);
    let swept = sandbox
        .run(["sweep", "-r", "--yes", "--json", "root"])
        .exit(0);
    assert_eq!(
        swept.events().names("reaped"),
        ["b.4194304.tmp", "c.4194304.tmp", "d.4194304.tmp"]
    );
    assert_eq!(swept.events().names("quarantined"), ["a.4194304.tmp"]);
    for kept in [
        "app/in/keep.4194304.tmp",
        "app/in/sole.tmp",
        "app/in/deeper/e.4194304.tmp",
        "slow/f.4194304.tmp",
        "slow/below/g.4194304.tmp",
    ] {
        assert!(sandbox.has(kept), "{kept}");
    }
    // One that the directory's own globs exclude is not come to.
    let text = "[defaults]\ngrace = \"100ms\"\nexclude = [\"slow\"]\n".to_owned()
        + &rule("root/slow", "grace = \"100ms\"\nexclude = []");
    let other = Sandbox::new()
        .file("slow/a.4194304.tmp", "")
        .file("b.4194304.tmp", "");
    let other = configured(other, &text);
    found(&other, &["-r", "root"], &[("root/b.4194304.tmp", 0)]);
    found(&other, &["root/slow"], &[("root/slow/a.4194304.tmp", 5)]);
}

/// The locks are those of the directories that are swept.
#[test]
fn a_sweep_beside_a_watcher_of_a_folder_below() {
    let sandbox = Sandbox::new().file("in/a.4194304.tmp", "");
    let sandbox = configured(sandbox, &rule("root/in", "grace = \"1d\""));
    let watching = sandbox.watch_dirs([""; 0]).ready();
    let swept = ["sweep", "-r", "--yes", "--json", "--grace", "100ms", "root"];
    let ran = sandbox.run(swept).exit(75).silent();
    ran.complains(&watching.pid().to_string())
        .complains("orphand sweep -r --grace 100ms ");
    assert!(sandbox.has("in/a.4194304.tmp"));
    watching.stop().exit(0);
}

#[test]
fn without_a_directory_those_of_the_file_are_taken() {
    let text = rule("root", "names = [\"*.new\"]\ngrace = \"100ms\"")
        + &rule("other", "grace = \"100ms\"")
        + &rule("not there", "");
    let sandbox = Sandbox::new()
        .file("a.new", "")
        .file("a.4194304.tmp", "")
        .file("../other/b.4194304.tmp", "");
    let sandbox = configured(sandbox, &text);
    found(
        &sandbox,
        &[],
        &[("other/b.4194304.tmp", 6), ("root/a.new", 2)],
    );
    let ran = sandbox.run(["scan"]).exit(0);
    let ran = ran.complains("not there\" does not exist, and is left out");
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.ends_with("remove 1 and move 1 to quarantine: orphand sweep"),
        "{last}"
    );
    sandbox
        .run(["sweep", "--json"])
        .exit(2)
        .silent()
        .complains("--yes");
    found(&sandbox, &["--grace", "1d"], &[]);
    let swept = sandbox.run(["sweep", "--yes", "--json"]).exit(0);
    assert_eq!(swept.events().names("reaped"), ["b.4194304.tmp"]);
    assert_eq!(swept.events().names("quarantined"), ["a.new"]);
    assert!(sandbox.has("a.4194304.tmp"));
    // Nothing is listed, or there is no file: both ways out are named.
    for text in [None, Some("")] {
        let sandbox = Sandbox::new();
        if let Some(text) = text {
            sandbox.write(FILE, text);
        }
        for verb in ["scan", "sweep"] {
            let ran = sandbox.run([verb, "--json"]).exit(2).silent();
            ran.complains(&format!("orphand {verb} DIR"))
                .complains("[[watch]]");
        }
    }
    let wrong = Sandbox::new().file(FILE, "[[watch]]\npath = 1\n");
    for verb in [&["scan"][..], &["sweep", "--yes"]] {
        wrong
            .run(verb)
            .exit(78)
            .silent()
            .complains("config.toml:2:8: ");
    }
}

/// Only what is listed is watched by its rule: a directory that is typed has the `[defaults]`.
#[test]
fn a_watch_of_a_typed_directory_takes_no_rule() {
    let text = "[defaults]\ngrace = \"200ms\"\n".to_owned()
        + &rule("root", "names = [\"*.new\"]\ngrace = \"1d\"");
    let sandbox = configured(Sandbox::new().file("a.new", ""), &text);
    let mut watching = sandbox.watch([""; 0]).ready();
    sandbox.write("b.4194304.tmp", "");
    watching.wait_for(|event| event["event"] == "reaped" && name(event) == "b.4194304.tmp");
    watching.stop().exit(0);
    assert!(sandbox.has("a.new"));
}

/// A rule may allow its own broad directory, and no other.
#[test]
fn a_rule_allows_its_own_broad_directory() {
    let file = "names = [\"*.new\"]\ngrace = \"100ms\"\nrecursive = true\nbroad = true";
    let sandbox = configured(
        Sandbox::new().file("a.new", "").dir("home"),
        &rule("root", file),
    );
    let home = sandbox.root();
    let sandbox = sandbox.env("HOME", home);
    sandbox.run(["sweep", "-n", "root"]).exit(0).says("a.new");
    // Here the home is below the directory of the rule.
    let below = sandbox.path("home");
    let sandbox = sandbox.env("HOME", below);
    sandbox
        .run(["sweep", "--yes", "root/home"])
        .exit(2)
        .complains("a home directory");
    // A default is meant for no directory.
    let text = "[defaults]\nbroad = true\n";
    let sandbox = configured(Sandbox::new(), text);
    let home = sandbox.root();
    let sandbox = sandbox.env("HOME", home);
    sandbox
        .run(["sweep", "--yes", "root"])
        .exit(2)
        .complains("--allow-broad-root");
}
