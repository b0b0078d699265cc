//! `scan`, `sweep` and `explain` judge a directory by the `[[watch]]` rule that covers it, and name that
//! rule.

use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{CommandResult, Sandbox, name};

const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// The path of the sandbox's configuration, relative to its root.
const FILE: &str = "../config/orphand/config.toml";

/// Adds this configuration; `{base}` in it is replaced by the path of the sandbox.
fn with_config(sandbox: Sandbox, text: &str) -> Sandbox {
    let base = sandbox.base().to_str().unwrap().to_owned();
    sandbox
        .file(FILE, text.replace("{base}", &base))
        .aged(OLD_ENOUGH)
}

fn rule(path: &str, rest: &str) -> String {
    format!("[[watch]]\npath = \"{{base}}/{path}\"\n{rest}\n")
}

/// Returns the orphans that a scan lists, as paths relative to the sandbox, with the lines of their rules.
fn orphans(sandbox: &Sandbox, ran: &CommandResult) -> Vec<(String, Option<u64>)> {
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
fn assert_orphans(sandbox: &Sandbox, args: &[&str], want: &[(&str, u64)]) {
    let want: Vec<_> = want
        .iter()
        .map(|(path, line)| ((*path).to_owned(), (*line > 0).then_some(*line)))
        .collect();
    assert_eq!(scan(sandbox, args), want, "{args:?}");
}

/// A recursive rule with other names than the default and with exclusions.
const RECURSIVE_RULE: &str = "recursive = true\nnames = [\"*.new\"]\ngrace = \"100ms\"\n\
                    sole_copy = \"reap\"\nexclude = [\"sub/*.x.new\", \"cache\"]";

fn recursive_rule() -> Sandbox {
    let sandbox = Sandbox::new()
        .file("a.new", "x")
        .file("a.4194304.tmp", "")
        .file("sub/b.new", "x")
        .file("sub/b.x.new", "x")
        .file("sub/b.4194304.tmp", "")
        .file("sub/more/c.new", "x")
        .file("cache/d.new", "x")
        .file("cache/d.4194304.tmp", "");
    with_config(sandbox, &format!("\n{}", rule("root", RECURSIVE_RULE)))
}

#[test]
fn a_directory_is_judged_by_its_rule_which_is_named() {
    let sandbox = recursive_rule();
    assert_orphans(
        &sandbox,
        &["root"],
        &[
            ("root/a.new", 3),
            ("root/sub/b.new", 3),
            ("root/sub/more/c.new", 3),
        ],
    );
    // Its globs are relative to its own directory.
    let sub = [("root/sub/b.new", 3), ("root/sub/more/c.new", 3)];
    assert_orphans(&sandbox, &["root/sub"], &sub);
    assert_orphans(&sandbox, &["root/sub/more"], &sub[1..]);
    let ran = sandbox.run(["scan", "root/sub"]).exit(0);
    let named = format!("the [[watch]] rule at {}", sandbox.base().display());
    ran.stderr_has(&named)
        .stderr_has(&format!(
            "config.toml:3 applies to {}\n",
            sandbox.path("sub").display()
        ))
        .stdout_has("remove them: orphand sweep ");
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
            .stdout_has("by the [[watch]] rule for ")
            .stdout_has("config.toml:3\n");
        assert_eq!(ran.stdout.lines().last(), Some(last), "{file}");
        let ran = sandbox.run(["explain", "--json", &file]).exit(0);
        assert_eq!(ran.stdout_json()["temps"][0]["rule"]["line"], 3, "{file}");
    }
    let swept = sandbox
        .run(["sweep", "--yes", "--json", "root/sub"])
        .exit(0);
    let swept = swept.stderr_has("config.toml:3 applies to ");
    assert_eq!(swept.events().names("reaped"), ["b.new", "c.new"]);
    assert_eq!(swept.events().sums(), [2, 0, 0, 0]);
}

#[test]
fn flags_override_the_rule() {
    let sandbox = recursive_rule();
    let empty = [("root/a.4194304.tmp", 3), ("root/sub/b.4194304.tmp", 3)];
    assert_orphans(&sandbox, &["--name", "*.tmp", "root"], &empty);
    assert_orphans(
        &sandbox,
        &["--recursive=false", "root"],
        &[("root/a.new", 3)],
    );
    assert_orphans(&sandbox, &["--grace", "1d", "root"], &[]);
    let swept = ["sweep", "--yes", "--json", "--sole-copy", "keep", "root"];
    let events = sandbox.run(swept).exit(0).events();
    assert_eq!(events.sums(), [0, 0, 3, 0]);
    let by_variable = recursive_rule().env("ORPHAND_RECURSIVE", "0");
    assert_orphans(&by_variable, &["root"], &[("root/a.new", 3)]);
}

/// Directories without a rule are judged by the `[defaults]`.
#[test]
fn a_rule_that_is_not_recursive_covers_no_subdirectory() {
    let text = "[defaults]\ngrace = \"100ms\"\n".to_owned() + &rule("root", "names = [\"*.new\"]");
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("sub/b.4194304.tmp", "")
        .file("b.new", "");
    let sandbox = with_config(sandbox, &text);
    assert_orphans(&sandbox, &["root"], &[("root/b.new", 4)]);
    assert_orphans(&sandbox, &["root/sub"], &[("root/sub/b.4194304.tmp", 0)]);
    let ran = sandbox.run(["scan", "root/sub"]).exit(0);
    assert_eq!(ran.stderr, "");
    let ran = sandbox.run(["explain", "root/sub/b.4194304.tmp"]).exit(0);
    ran.stdout_has("by the [defaults], because no [[watch]] rule covers it")
        .stdout_has("reap");
    let ran = sandbox
        .run(["explain", "--json", "root/sub/b.4194304.tmp"])
        .exit(0);
    assert_eq!(
        ran.stdout_json()["temps"][0].get("rule"),
        Some(&Value::Null)
    );
    // The flag makes the rule of "root" recursive, so it covers the subdirectories.
    assert_orphans(&sandbox, &["-r", "root"], &[("root/b.new", 4)]);
}

/// A directory under another path is the same directory.
#[test]
fn a_rule_covers_a_directory_by_any_of_its_names() {
    let sandbox = Sandbox::new().file("in/a.new", "");
    symlink(sandbox.base(), sandbox.base().join("alias")).unwrap();
    let rest = "names = [\"*.new\"]\ngrace = \"100ms\"\nrecursive = true";
    let sandbox = with_config(sandbox, &rule("alias/root", rest));
    assert_orphans(&sandbox, &["root"], &[("root/in/a.new", 2)]);
    assert_orphans(&sandbox, &["alias/root/in"], &[("alias/root/in/a.new", 2)]);
    sandbox.write(
        FILE,
        rule("root", rest).replace("{base}", sandbox.base().to_str().unwrap()),
    );
    assert_orphans(&sandbox, &["alias/root/in"], &[("alias/root/in/a.new", 2)]);
    // A symlink below the root of a rule leaves the rule: no watcher follows it.
    let outside = Sandbox::new()
        .file("../elsewhere/in/b.new", "")
        .file("../elsewhere/in/c.4194304.tmp", "");
    symlink("../elsewhere", outside.path("link")).unwrap();
    let text = "[defaults]\ngrace = \"100ms\"\n".to_owned() + &rule("root", rest);
    let outside = with_config(outside, &text);
    assert_orphans(
        &outside,
        &["root/link/in"],
        &[("root/link/in/c.4194304.tmp", 0)],
    );
}

/// An excluded directory is ignored, even if it is given as an argument.
#[test]
fn an_excluded_directory_is_ignored_even_if_named() {
    let sandbox = recursive_rule()
        .file("deep/cache/e.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    let config = sandbox.content(FILE);
    for (glob, dir) in [
        ("cache", "root/cache"),
        ("cache", "{base}/root/cache"),
        ("cache/**", "root/cache"),
        ("deep/cache", "root/deep/cache"),
        ("deep/cache/**", "root/deep/cache"),
    ] {
        sandbox.write(FILE, config.replace("\"cache\"", &format!("{glob:?}")));
        let swept = [
            "sweep", "--yes", "--json", "--name", "*.tmp", "--grace", "100ms", dir,
        ];
        let swept = sandbox.run(swept).exit(0);
        let swept = swept
            .stderr_has("is left alone: the [[watch]] rule")
            .stderr_has(&format!("config.toml:3 excludes it ({glob})"));
        assert_eq!(swept.events().sums(), [0; 4]);
        assert_orphans(&sandbox, &[dir], &[]);
    }
    for temp in [
        "cache/d.new",
        "cache/d.4194304.tmp",
        "deep/cache/e.4194304.tmp",
    ] {
        assert!(sandbox.has(temp), "{temp}");
    }
}

#[test]
fn the_nearest_rule_applies() {
    let text = rule(
        "root",
        "recursive = true\ngrace = \"100ms\"\nexclude = [\"in/**\"]",
    ) + &rule("root/in", "names = [\"*.new\"]\ngrace = \"100ms\"");
    let sandbox = Sandbox::new()
        .file("a.4194304.tmp", "")
        .file("in/b.4194304.tmp", "")
        .file("in/b.new", "")
        .file("in/below/c.4194304.tmp", "");
    let sandbox = with_config(sandbox, &text);
    assert_orphans(&sandbox, &["root/in"], &[("root/in/b.new", 7)]);
    assert_orphans(&sandbox, &["root"], &[("root/a.4194304.tmp", 2)]);
    assert_orphans(
        &sandbox,
        &["root", "root/in"],
        &[("root/a.4194304.tmp", 2), ("root/in/b.new", 7)],
    );
    // Excluded by one rule, and not covered by the other.
    assert_orphans(&sandbox, &["root/in/below"], &[]);
    let ran = sandbox
        .run(["explain", "root/in/below/c.4194304.tmp"])
        .exit(0);
    ran.stdout_has("not a temp: excluded by in/**");
}

/// A rule for a directory below the given one still applies there.
#[test]
fn subdirectories_are_judged_by_their_own_rules() {
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
    let sandbox = with_config(sandbox, &text);
    let want = [
        ("root/a.4194304.tmp", 0),
        ("root/app/b.4194304.tmp", 0),
        ("root/app/in/below/d.4194304.tmp", 4),
        ("root/app/in/c.4194304.tmp", 4),
    ];
    assert_orphans(&sandbox, &["-r", "root"], &want);
    assert_orphans(&sandbox, &["root"], &want[..1]);
    let ran = sandbox.run(["scan", "-r", "root"]).exit(0);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].ends_with("root/app/in"), "{lines:?}");
    assert!(lines[1].ends_with("root/app/in/deeper"), "{lines:?}");
    assert!(lines[2].ends_with("root/slow"), "{lines:?}");
    // Flags override those rules too.
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
    // A directory that the globs of the outer one exclude is not reached.
    let text = "[defaults]\ngrace = \"100ms\"\nexclude = [\"slow\"]\n".to_owned()
        + &rule("root/slow", "grace = \"100ms\"\nexclude = []");
    let other = Sandbox::new()
        .file("slow/a.4194304.tmp", "")
        .file("b.4194304.tmp", "");
    let other = with_config(other, &text);
    assert_orphans(&other, &["-r", "root"], &[("root/b.4194304.tmp", 0)]);
    assert_orphans(&other, &["root/slow"], &[("root/slow/a.4194304.tmp", 5)]);
}

/// A sweep needs the locks of all directories that it would sweep.
#[test]
fn a_sweep_is_refused_beside_a_watcher_of_a_subdirectory() {
    let sandbox = Sandbox::new().file("in/a.4194304.tmp", "");
    let sandbox = with_config(sandbox, &rule("root/in", "grace = \"1d\""));
    let watching = sandbox.watch_dirs([""; 0]).ready();
    let swept = ["sweep", "-r", "--yes", "--json", "--grace", "100ms", "root"];
    let ran = sandbox.run(swept).exit(75).prints_nothing();
    ran.stderr_has(&watching.pid().to_string())
        .stderr_has("orphand sweep -r --grace 100ms ");
    assert!(sandbox.has("in/a.4194304.tmp"));
    watching.stop().exit(0);
}

#[test]
fn without_arguments_the_directories_of_the_file_are_used() {
    let text = rule("root", "names = [\"*.new\"]\ngrace = \"100ms\"")
        + &rule("other", "grace = \"100ms\"")
        + &rule("not there", "");
    let sandbox = Sandbox::new()
        .file("a.new", "")
        .file("a.4194304.tmp", "")
        .file("../other/b.4194304.tmp", "");
    let sandbox = with_config(sandbox, &text);
    assert_orphans(
        &sandbox,
        &[],
        &[("other/b.4194304.tmp", 6), ("root/a.new", 2)],
    );
    let ran = sandbox.run(["scan"]).exit(0);
    let ran = ran.stderr_has("not there\" does not exist; skipping it");
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.ends_with("remove 1 and move 1 to the quarantine: orphand sweep"),
        "{last}"
    );
    sandbox
        .run(["sweep", "--json"])
        .exit(2)
        .prints_nothing()
        .stderr_has("--yes");
    assert_orphans(&sandbox, &["--grace", "1d"], &[]);
    let swept = sandbox.run(["sweep", "--yes", "--json"]).exit(0);
    assert_eq!(swept.events().names("reaped"), ["b.4194304.tmp"]);
    assert_eq!(swept.events().names("quarantined"), ["a.new"]);
    assert!(sandbox.has("a.4194304.tmp"));
    // No directory is listed, or there is no file: both remedies are named.
    for text in [None, Some("")] {
        let sandbox = Sandbox::new();
        if let Some(text) = text {
            sandbox.write(FILE, text);
        }
        for verb in ["scan", "sweep"] {
            let ran = sandbox.run([verb, "--json"]).exit(2).prints_nothing();
            ran.stderr_has(&format!("orphand {verb} DIR"))
                .stderr_has("[[watch]]");
        }
    }
    let wrong = Sandbox::new().file(FILE, "[[watch]]\npath = 1\n");
    for verb in [&["scan"][..], &["sweep", "--yes"]] {
        wrong
            .run(verb)
            .exit(78)
            .prints_nothing()
            .stderr_has("config.toml:2:8: ");
    }
}

/// Only listed directories are watched by their rules: a directory that is given as an argument uses the
/// `[defaults]`.
#[test]
fn a_watch_of_a_given_directory_uses_the_defaults() {
    let text = "[defaults]\ngrace = \"200ms\"\n".to_owned()
        + &rule("root", "names = [\"*.new\"]\ngrace = \"1d\"");
    let sandbox = with_config(Sandbox::new().file("a.new", ""), &text);
    let mut watching = sandbox.watch([""; 0]).ready();
    sandbox.write("b.4194304.tmp", "");
    watching.wait_for(|event| event["event"] == "reaped" && name(event) == "b.4194304.tmp");
    watching.stop().exit(0);
    assert!(sandbox.has("a.new"));
}

/// A rule may allow its own broad directory, but no other.
#[test]
fn a_rule_allows_its_own_broad_directory() {
    let file = "names = [\"*.new\"]\ngrace = \"100ms\"\nrecursive = true\nbroad = true";
    let sandbox = with_config(
        Sandbox::new().file("a.new", "").dir("home"),
        &rule("root", file),
    );
    let home = sandbox.root();
    let sandbox = sandbox.env("HOME", home);
    sandbox
        .run(["sweep", "-n", "root"])
        .exit(0)
        .stdout_has("a.new");
    // Now the home is below the directory of the rule.
    let below = sandbox.path("home");
    let sandbox = sandbox.env("HOME", below);
    sandbox
        .run(["sweep", "--yes", "root/home"])
        .exit(2)
        .stderr_has("a home directory");
    // A default allows no directory.
    let text = "[defaults]\nbroad = true\n";
    let sandbox = with_config(Sandbox::new(), text);
    let home = sandbox.root();
    let sandbox = sandbox.env("HOME", home);
    sandbox
        .run(["sweep", "--yes", "root"])
        .exit(2)
        .stderr_has("--allow-broad-root");
}
