//! The configuration file: made, checked, shown, found; and what it excludes is left alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use orphand::decide::exclude::Exclude;
use orphand::decide::policy::Policy;
use orphand::reap::{Outcome, Reaper};
use serde_json::Value;

use crate::fixture::{BELOW, Fixture, OLD, TEMP};
use crate::sandbox::{Ran, Sandbox, Watching, is, mode, name, terminal};

const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Where the sandbox has its configuration, seen from its root.
const FILE: &str = "../config/orphand/config.toml";

/// A rule of the file for a directory of the sandbox.
fn rule(path: &str, rest: &str) -> String {
    format!("[[watch]]\npath = \"{{base}}/{path}\"\n{rest}\n")
}

/// With this configuration; `{base}` in it is where the sandbox is.
fn configured(sandbox: Sandbox, text: &str) -> Sandbox {
    let base = sandbox.base().to_str().unwrap().to_owned();
    sandbox.file(FILE, text.replace("{base}", &base))
}

/// It ended over the file, and says where.
#[track_caller]
fn wrong(ran: Ran, place: &str, words: &[&str]) {
    let ran = ran.exit(78).silent();
    words.iter().fold(
        ran.complains(&format!("config.toml:{place}: ")),
        |ran, words| ran.complains(words),
    );
}

fn value<'a>(shown: &'a Value, key: &str) -> (&'a Value, &'a str) {
    let entry = &shown[key];
    (&entry["value"], entry["origin"].as_str().unwrap_or("?"))
}

#[test]
fn a_file_is_made_once_and_switches_nothing_on() {
    Sandbox::each(|sandbox| {
        let file = sandbox.path(FILE);
        let file = sandbox
            .base()
            .join(file.strip_prefix(sandbox.path("..")).unwrap());
        sandbox
            .run(["config", "init"])
            .exit(0)
            .says(&format!("wrote {}", file.display()))
            .says("orphand config check");
        assert_eq!(mode(&file), 0o600, "it says what may be deleted");
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        let beside = fs::read_dir(file.parent().unwrap()).unwrap();
        assert_eq!(beside.count(), 1, "and no temp of ours");
        sandbox.run(["config", "check"]).exit(0).says("is valid");
        let json = sandbox.run(["config", "check", "--json"]).exit(0);
        assert_eq!(json.stdout_json()["roots"], serde_json::json!([]));
        // Whatever stands there by now is somebody's.
        fs::write(&file, "mine").unwrap();
        let again = sandbox.run(["config", "init"]).exit(1).silent();
        again.complains("already exists").complains("--config FILE");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    });
}

#[test]
fn a_file_is_made_where_it_is_wanted() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(["config", "init", "--json", "--config", "a/b/c.toml"]);
    let made = made.exit(0).stdout_json();
    let file = sandbox.base().join("a/b/c.toml");
    assert_eq!(made["path"], file.to_str().unwrap());
    assert!(file.exists() && !sandbox.has(FILE));
    let by_variable = Sandbox::new().env("ORPHAND_CONFIG", "v.toml");
    by_variable.run(["config", "init", "-q"]).exit(0).silent();
    assert!(by_variable.base().join("v.toml").exists());
    // A symlink that leads nowhere is followed nowhere.
    let sandbox = Sandbox::new();
    symlink("elsewhere", sandbox.base().join("link.toml")).unwrap();
    let linked = sandbox.run(["config", "init", "--config", "link.toml"]);
    linked.exit(1).complains("already exists");
    assert!(!sandbox.base().join("elsewhere").exists());
    let beyond = sandbox.run(["config", "init", "--config", "link.toml/x.toml"]);
    beyond
        .exit(1)
        .complains("cannot create")
        .complains("link.toml");
}

#[test]
fn a_file_that_may_not_be_made() {
    let sandbox = Sandbox::ordinary();
    let folder = sandbox.base().join("config");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let ran = sandbox.run(["config", "init"]).exit(1).silent();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    ran.complains("cannot create").complains("--config FILE");
    let nowhere = Sandbox::new().env("HOME", "").env("XDG_CONFIG_HOME", "x");
    for verb in ["init", "path"] {
        let ran = nowhere.run(["config", verb]).exit(1).silent();
        ran.complains("HOME").complains("--config FILE");
    }
}

#[test]
fn what_a_right_file_is_about() {
    let text = rule("root", "recursive = true\nexclude = [\"inner\"]")
        + &rule("root/inner", "grace = \"10s\"")
        + &rule("later", "");
    let sandbox = configured(Sandbox::new().dir("inner"), &text);
    let ran = sandbox.run(["config", "check"]).exit(0);
    let ran = ran.says("config.toml is valid and lists 3 directories:");
    let ran = ran.says("root (with subfolders, excluding inner) for *.tmp");
    let ran = ran.says("root/inner (without subfolders) for *.tmp; the grace is 10 s\n");
    ran.says("later (without subfolders)")
        .says("does not exist yet");
    let json = sandbox.run(["config", "check", "--json"]).exit(0);
    let base = sandbox.base();
    let roots = ["root", "root/inner", "later"].map(|root| base.join(root));
    let want = serde_json::json!({
        "path": base.join("config/orphand/config.toml"), "ok": true, "error": null, "roots": roots,
    });
    assert_eq!(json.stdout_json(), want);
    sandbox.run(["config", "check", "-q"]).exit(0).silent();
}

#[test]
fn without_a_file_it_is_said_where_it_was_looked_for() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["config", "check"]).exit(0);
    ran.says("there is no configuration file")
        .says("$XDG_CONFIG_HOME")
        .says("config/orphand/config.toml does not exist")
        .says("home/.config/orphand/config.toml does not exist");
    let json = sandbox.run(["config", "check", "--json"]).exit(0);
    let want = serde_json::json!({"path": null, "ok": true, "error": null, "roots": []});
    assert_eq!(json.stdout_json(), want);
    // One that is named must be there.
    let named = ["config", "check", "--config", "x.toml"];
    let ran = sandbox.run(named).exit(78).silent();
    ran.complains("x.toml: cannot read the file");
    let json = sandbox.run([&named[..], &["--json"]].concat()).exit(78);
    let error = &json.stdout_json()["error"];
    assert_eq!(
        (&error["line"], &error["column"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn the_first_mistake_has_a_line_and_a_column() {
    let sandbox = configured(Sandbox::new(), "[defaults]\n\nsole-copy = 1\nx = 1\n");
    wrong(
        sandbox.run(["config", "check"]),
        "3:1",
        &["did you mean \"sole_copy\"?"],
    );
    let json = sandbox.run(["config", "check", "--json"]).exit(78);
    let said = json.stdout_json();
    assert_eq!(said["ok"], false);
    assert_eq!(
        (&said["error"]["line"], &said["error"]["column"]),
        (&3.into(), &1.into())
    );
    assert!(
        said["error"]["what"]
            .as_str()
            .unwrap()
            .contains("sole_copy")
    );
    // A name that would do something to the terminal does not.
    sandbox.write("../\u{1b}[2J.toml", "x = 1");
    let ran = sandbox.run(["config", "check", "--config", "\u{1b}[2J.toml"]);
    ran.exit(78).complains(r"\u{1b}[2J.toml:1:1: ");
}

/// Two rules for one temp stop whoever reads the file.
#[test]
fn rules_that_overlap() {
    let text = rule("root", "recursive = true") + "\n" + &rule("root/inner", "");
    let sandbox = configured(Sandbox::new().file("a.4194304.tmp", ""), &text).aged(OLD_ENOUGH);
    let words = &[
        "line 2",
        "exclude = [\"inner/**\"]",
        "or merge the two rules",
    ];
    for args in [
        &["config", "check"][..],
        &["config", "show"],
        &["scan", "root"],
        &["sweep", "--yes", "--grace", "100ms", "root"],
        &["explain", "root/a.4194304.tmp"],
        &["watch", "root"],
        &["quarantine", "list"],
    ] {
        wrong(sandbox.run(args), "6:8", words);
    }
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch"]);
    command.stdin(theirs);
    wrong(sandbox.finish(command), "6:8", words);
    drop(ours);
    assert!(sandbox.has("a.4194304.tmp"));
    // Where it is looked for goes on working: it is how one finds the file to mend.
    sandbox.run(["config", "path"]).exit(0);
    // On the command line directories may lie in one another: they have one rule.
    sandbox.write(FILE, "");
    let args = [
        "sweep",
        "-n",
        "--grace",
        "100ms",
        "-r",
        "root",
        "root/inner",
    ];
    fs::create_dir(sandbox.path("inner")).unwrap();
    sandbox.run(args).exit(0);
}

/// A flag can make rules overlap that do not by themselves.
#[test]
fn rules_that_overlap_by_a_flag() {
    let text = rule("root", "") + &rule("root/inner", "");
    let sandbox = configured(Sandbox::new().dir("inner"), &text);
    sandbox.run(["config", "show"]).exit(0);
    let words = &["is recursive"];
    wrong(sandbox.run(["config", "show", "-r"]), "5:8", words);
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch", "-r"]);
    command.stdin(theirs);
    wrong(sandbox.finish(command), "5:8", words);
    drop(ours);
}

/// What stands at the paths is asked by who watches them or is to look at the file, and by nobody
/// else.
#[test]
fn roots_that_are_refused() {
    let sandbox = Sandbox::new().file("file", "").dir("deep/er");
    symlink("root", sandbox.base().join("link")).unwrap();
    for (text, place, words) in [
        (rule("link", ""), "2:8", &["is a symlink", "give"][..]),
        (rule("root/file", ""), "2:8", &["is not a directory"]),
        (
            "[[watch]]\n  path = \"/usr\"".to_owned(),
            "2:10",
            &["the system's own", "or set broad = true"],
        ),
        (
            rule("root/deep", "") + &rule("link/deep", ""),
            "5:8",
            &["leads to the same directory", "line 2"],
        ),
        (
            rule("link/deep", "recursive = true") + &rule("root/deep/er", ""),
            "5:8",
            &["is in", "exclude = [\"er/**\"]"],
        ),
    ] {
        let base = sandbox.base().to_str().unwrap();
        sandbox.write(FILE, text.replace("{base}", base));
        for verb in ["check", "show"] {
            wrong(sandbox.run(["config", verb]), place, words);
        }
        let (ours, theirs) = terminal();
        let mut command = sandbox.command(["watch"]);
        command.stdin(theirs);
        wrong(sandbox.finish(command), place, words);
        drop(ours);
        sandbox.run(["scan", "root"]).exit(0);
        sandbox.run(["sweep", "-n", "root"]).exit(0);
    }
    sandbox.write(FILE, "[[watch]]\npath = \"/usr\"\nbroad = true");
    sandbox.run(["config", "check"]).exit(0).says("/usr");
}

#[test]
fn what_is_in_force_and_who_said_so() {
    let text = "[defaults]\ngrace = \"30s\"\nopen = \"quarantine\"\nnames = [\"*.a\"]\n".to_owned()
        + &rule("root", "open = \"reap\"\nsole_copy = \"keep\"")
        + "[quarantine]\nkeep = \"1d\"\n[log]\nlevel = \"debug\"\n";
    let sandbox = configured(Sandbox::new(), &text)
        .env("ORPHAND_GRACE", "20s")
        .env("ORPHAND_SOLE_COPY", "reap")
        .env("ORPHAND_RECURSIVE", "true");
    let flags = [
        "--sole-copy",
        "quarantine",
        "--name",
        "*.b",
        "-n",
        "--writer",
        "git",
    ];
    let args = ["config", "show", "--json", "--allow-broad-root"];
    let shown = sandbox.run([&args[..], &flags].concat()).exit(0);
    let shown = shown.stdout_json();
    let rule = &shown["watch"][0];
    let root = sandbox.root();
    for (section, key, want, origin) in [
        (rule, "path", root.to_str().unwrap(), "line 6"),
        (rule, "grace", "20s", "ORPHAND_GRACE"),
        (rule, "fixed_name_grace", "20s", "ORPHAND_GRACE"),
        (rule, "open", "reap", "line 7"),
        (rule, "sole_copy", "quarantine", "--sole-copy"),
        (rule, "closed", "orphan", "default"),
        (rule, "action", "report", "--dry-run"),
        (&shown["defaults"], "open", "quarantine", "line 3"),
        (&shown["defaults"], "grace", "20s", "ORPHAND_GRACE"),
        (&shown["quarantine"], "keep", "1d", "line 10"),
        (&shown["journal"], "max_size", "16MB", "default"),
        (&shown["log"], "level", "debug", "line 12"),
        (&shown["log"], "leaks", "1h", "default"),
        (&shown["metrics"], "every", "15s", "default"),
    ] {
        assert_eq!(
            value(section, key),
            (&want.into(), origin),
            "{key}: {section}"
        );
    }
    assert_eq!(
        value(rule, "recursive"),
        (&true.into(), "ORPHAND_RECURSIVE")
    );
    assert_eq!(value(rule, "broad"), (&true.into(), "--allow-broad-root"));
    assert_eq!(
        value(rule, "names"),
        (&serde_json::json!(["*.b"]), "--name")
    );
    assert_eq!(
        value(rule, "writers"),
        (&serde_json::json!(["git"]), "--writer")
    );
    assert_eq!(value(rule, "exclude"), (&serde_json::json!([]), "default"));
    assert_eq!(
        value(&shown["quarantine"], "percent"),
        (&10.into(), "default")
    );
    assert_eq!(value(&shown["log"], "file"), (&Value::Null, "default"));
    assert_eq!(
        value(&shown["metrics"], "textfile"),
        (&Value::Null, "default")
    );
}

/// What is shown is a file that says the same.
#[test]
fn what_is_shown_can_be_used_as_the_file() {
    let text = "[defaults]\nfixed_name_grace = \"2h\"\n".to_owned()
        + &rule(
            "root",
            "exclude = [\"a/*.tmp\", \"c\"]\nrecursive = true\ngrace = \"90s\"",
        )
        + &rule(
            "la ter",
            "names = ['a\"\\\\*', '\u{202e}é']\nclosed = \"orphan\"",
        )
        + "[log]\nfile = \"~/x.log\"\nmax_size = \"1001kB\"\n[metrics]\ntextfile = \"/m/a.prom\"\n";
    let sandbox = configured(Sandbox::new(), &text);
    let shown = sandbox.run(["config", "show"]).exit(0);
    let shown = shown.says("grace = \"90s\"").says("# line 7\n").stdout;
    sandbox.write("../again.toml", &shown);
    let again = ["config", "show", "--json", "--config", "again.toml"];
    let again = sandbox.run(again).exit(0).stdout_json();
    let first = sandbox
        .run(["config", "show", "--json"])
        .exit(0)
        .stdout_json();
    assert_eq!(values(&first), values(&again));
    assert!(first["watch"].as_array().unwrap().len() == 2, "{first}");
    let from_line = |entry: &Value| entry["origin"].as_str().unwrap().starts_with("line ");
    let rule = again["watch"][0].as_object().unwrap();
    assert!(rule.values().all(from_line), "{again}");
}

/// What `config show --json` prints, without the file and the origins.
fn values(shown: &Value) -> Value {
    match shown {
        Value::Object(object) if object.contains_key("origin") => object["value"].clone(),
        Value::Object(object) => {
            let object = object
                .iter()
                .filter(|(key, _)| *key != "path" || shown["grace"].is_object());
            object
                .map(|(key, value)| (key.clone(), values(value)))
                .collect()
        }
        Value::Array(list) => list.iter().map(values).collect(),
        value => value.clone(),
    }
}

#[test]
fn settings_that_were_typed_wrong_are_wrong_usage() {
    let sandbox = configured(Sandbox::new(), &rule("root", ""));
    let ran = sandbox
        .run(["config", "show", "--closed", "settled"])
        .exit(2);
    ran.silent().complains("--open reap");
    let ran = sandbox.run(["config", "show", "--name", "["]).exit(2);
    ran.silent().complains("[");
    // Without a file, too.
    let sandbox = Sandbox::new();
    let shown = sandbox.run(["config", "show", "--grace", "7s"]).exit(0);
    shown
        .says("# no configuration file\n")
        .says("grace = \"7s\"");
    let ran = sandbox
        .run(["config", "show", "--closed", "settled"])
        .exit(2);
    ran.silent().complains("--open reap");
}

#[test]
fn where_the_file_is_looked_for() {
    let sandbox = Sandbox::new();
    let base = sandbox.base().to_str().unwrap().to_owned();
    let only = |ran: Ran, path: &str| {
        let ran = ran.exit(0);
        assert_eq!(ran.stdout, format!("{base}/{path}\n"));
        ran
    };
    let usual = "config/orphand/config.toml";
    only(sandbox.run(["config", "path"]), usual)
        .complains("config/orphand/config.toml does not exist  <-")
        .complains("home/.config/orphand/config.toml does not exist\n");
    sandbox.write(FILE, "wrong");
    only(sandbox.run(["config", "path"]), usual).complains("config/orphand/config.toml exists  <-");
    let named = ["config", "path", "--config", "x/y.toml"];
    only(sandbox.run(named), "x/y.toml").complains("--config: ");
    let quiet = only(sandbox.run(["config", "path", "-q"]), usual);
    assert_eq!(quiet.stderr, "");
    let json = sandbox
        .run(["config", "path", "--json"])
        .exit(0)
        .stdout_json();
    let want = serde_json::json!({"path": sandbox.base().join(usual), "exists": true});
    assert_eq!(json, want);
    // A relative folder would be another one in each directory.
    let sandbox = sandbox.env("XDG_CONFIG_HOME", "config");
    let ran = only(
        sandbox.run(["config", "path"]),
        "home/.config/orphand/config.toml",
    );
    ran.complains("its variable is not set");
    let sandbox = sandbox.env("ORPHAND_CONFIG", "z.toml");
    only(sandbox.run(["config", "path"]), "z.toml").complains("ORPHAND_CONFIG: ");
}

/// Temps that are excluded by a name, a way and a folder, and some that are not.
const EXCLUDE: &str = "exclude = [\"cache\", \"keep.*\", \"sub/a/**\", \"sub/*.x.tmp\"]\n";
const KEPT: [&str; 6] = [
    "keep.tmp",
    "sub/keep.tmp",
    "cache/a.4194304.tmp",
    "sub/deep/cache/b.4194304.tmp",
    "sub/a/c.tmp",
    "sub/d.x.tmp",
];
const TAKEN: [&str; 5] = [
    "e.4194304.tmp",
    "sub/f.4194304.tmp",
    "sub/deep/a/g.4194304.tmp",
    "h.x.4194304.tmp",
    "a/i.4194304.tmp",
];

fn with_exclude(rest: &str) -> Sandbox {
    let text = format!("[defaults]\ngrace = \"100ms\"\nrecursive = true\n{EXCLUDE}{rest}");
    let sandbox = configured(Sandbox::new(), &text);
    let files = KEPT.iter().chain(&TAKEN);
    let sandbox = files.fold(sandbox, |sandbox, file| sandbox.file(file, ""));
    sandbox.aged(OLD_ENOUGH)
}

#[track_caller]
fn only_those_that_are_excluded_are_left(sandbox: &Sandbox) {
    for file in KEPT {
        assert!(sandbox.has(file), "{file} is gone");
    }
    for file in TAKEN {
        assert!(!sandbox.has(file), "{file} is left");
    }
}

#[test]
fn a_scan_does_not_list_what_is_excluded() {
    let sandbox = with_exclude("");
    let document = sandbox.scan([""; 0]).exit(0).stdout_json();
    let mut names: Vec<&str> = document["temps"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "e.4194304.tmp",
            "f.4194304.tmp",
            "g.4194304.tmp",
            "h.x.4194304.tmp",
            "i.4194304.tmp"
        ]
    );
}

/// An excluded folder is not walked: that it may not be read is nobody's business.
#[test]
fn what_is_excluded_need_not_be_readable() {
    let text = "[defaults]\nrecursive = true\nexclude = [\"shut\"]\n";
    let sandbox = configured(Sandbox::ordinary().dir("shut"), text);
    let shut = sandbox.path("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o0)).unwrap();
    let scanned = sandbox.scan([""; 0]);
    let swept = sandbox.sweep([""; 0]);
    let watched = sandbox.watch([""; 0]).ready().stop();
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o700)).unwrap();
    scanned.exit(0);
    swept.exit(0);
    watched.exit(0);
}

#[test]
fn a_sweep_leaves_what_is_excluded() {
    let sandbox = with_exclude("");
    let swept = sandbox.sweep([""; 0]).exit(0);
    let events = swept.events();
    for file in KEPT {
        let name = file.rsplit('/').next().unwrap();
        assert_eq!(events.about(name), [""; 0], "nothing is said of it");
    }
    only_those_that_are_excluded_are_left(&sandbox);
}

#[test]
fn a_file_that_is_excluded_is_explained_as_none_of_ours() {
    let sandbox = with_exclude("");
    let ran = sandbox.run(["explain", "root/keep.tmp"]).exit(0);
    let last = ran.stdout.lines().last();
    assert_eq!(
        last,
        Some("not a temp: excluded by keep.*"),
        "{}",
        ran.stdout
    );
    for (file, matches) in [("keep.tmp", false), ("e.4194304.tmp", true)] {
        let file = format!("root/{file}");
        let ran = sandbox.run(["explain", "--json", &file]).exit(0);
        assert_eq!(ran.stdout_json()["temps"][0]["matches"], matches, "{file}");
    }
}

#[test]
fn a_watch_leaves_what_is_excluded() {
    let watch = |sandbox: &Sandbox, mut watching: Watching| {
        for file in TAKEN {
            watching.wait_for(is("reaped", file.rsplit('/').next().unwrap()));
        }
        only_those_that_are_excluded_are_left(sandbox);
        // The same of what comes later, in folders that were there, are new, and are renamed.
        for file in [
            "keep.2.tmp",
            "cache/j.4194304.tmp",
            "sub/k.x.tmp",
            "new/cache/l.tmp",
            "sub/a/m.tmp",
        ] {
            sandbox.write(file, "");
        }
        sandbox.write("new/n.4194304.tmp", "");
        watching.wait_for(is("reaped", "n.4194304.tmp"));
        watching.outlive_a_sentinel(sandbox);
        watching.outlive_a_sentinel_in(sandbox, "sub");
        watching.outlive_a_sentinel_in(sandbox, "new");
        for file in [
            "keep.2.tmp",
            "cache/j.4194304.tmp",
            "sub/k.x.tmp",
            "new/cache/l.tmp",
            "sub/a/m.tmp",
        ] {
            assert!(sandbox.has(file), "{file}: {:#?}", watching.events());
        }
        only_those_that_are_excluded_are_left(sandbox);
        // By another name it is excluded no longer.
        fs::rename(sandbox.path("cache"), sandbox.path("open")).unwrap();
        watching.wait_for(is("reaped", "a.4194304.tmp"));
        watching.wait_for(is("reaped", "j.4194304.tmp"));
        let stopped = watching.stop().exit(0);
        assert_eq!(stopped.events.of("failed").len(), 0);
        assert_eq!(stopped.events.about("keep.tmp"), [""; 0]);
    };
    let typed = with_exclude("");
    watch(&typed, typed.watch([""; 0]).ready());
    let listed = with_exclude(&rule("root", ""));
    watch(&listed, listed.watch_dirs([""; 0]).ready());
}

/// A folder that comes to be excluded while its temps wait: they stay.
#[test]
fn a_folder_that_gets_an_excluded_name() {
    let text = "[defaults]\nrecursive = true\nexclude = [\"cache\"]\n";
    let sandbox = configured(Sandbox::new().dir("sub"), text);
    let mut watching = sandbox.watch(["--grace", "1s"]).ready();
    sandbox.write("sub/a.4194304.tmp", "");
    fs::rename(sandbox.path("sub"), sandbox.path("cache")).unwrap();
    sandbox.write("cache/b.4194304.tmp", "");
    watching.outlive_a_sentinel(&sandbox);
    watching.outlive_a_sentinel(&sandbox);
    assert!(sandbox.has("cache/a.4194304.tmp") && sandbox.has("cache/b.4194304.tmp"));
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.names("reaped"),
        [
            "sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
            "sentinel-2.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
        ]
    );
}

/// A directory within another one, each with a rule of its own, kept apart by `exclude`.
#[test]
fn a_directory_in_another_one_has_its_own_rule() {
    let text = rule(
        "root",
        "recursive = true\ngrace = \"200ms\"\nexclude = [\"inner/**\"]",
    ) + &rule(
        "root/inner",
        "names = [\"*.part\"]\ngrace = \"200ms\"\nsole_copy = \"reap\"",
    );
    let sandbox = configured(Sandbox::new().dir("inner/deep").dir("a/inner"), &text);
    let mut watching = sandbox.watch_dirs([""; 0]).ready();
    for kept in [
        "inner/a.4194304.tmp",
        "inner/deep/b.4194304.tmp",
        "inner/deep/c.part",
        "a/d.part",
    ] {
        sandbox.write(kept, "x");
    }
    sandbox.write("inner/e.part", "x");
    sandbox.write("a/inner/f.4194304.tmp", "");
    let gone = watching.wait_for(is("reaped", "e.part"));
    assert_eq!(gone["root"], sandbox.path("inner").to_str().unwrap());
    let gone = watching.wait_for(is("reaped", "f.4194304.tmp"));
    assert_eq!(
        gone["root"],
        sandbox.root().to_str().unwrap(),
        "another inner"
    );
    watching.outlive_a_sentinel(&sandbox);
    watching.outlive_a_sentinel(&sandbox);
    for kept in [
        "inner/a.4194304.tmp",
        "inner/deep/b.4194304.tmp",
        "inner/deep/c.part",
        "a/d.part",
    ] {
        assert!(sandbox.has(kept), "{kept}: {:#?}", watching.events());
    }
    watching.stop().exit(0);
}

/// No watch of the kernel's is spent on a folder that is excluded.
#[test]
#[cfg(target_os = "linux")]
fn a_folder_that_is_excluded_is_not_watched() {
    use std::os::unix::fs::MetadataExt;
    let text = "[defaults]\nrecursive = true\nexclude = [\"cache\"]\n";
    let sandbox = configured(Sandbox::new().dir("cache/deep").dir("sub/cache"), text);
    let watching = sandbox.watch(["--grace", "200ms"]).ready();
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", watching.pid())).unwrap();
    let info = |entry: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(entry.unwrap().path()).unwrap_or_default()
    };
    let infos: String = infos.map(info).collect();
    let is_watched = |folder: &str| {
        let number = fs::metadata(sandbox.path(folder)).unwrap().ino();
        infos.contains(&format!(" ino:{number:x} "))
    };
    assert!(is_watched("") && is_watched("sub"), "{infos}");
    for folder in ["cache", "cache/deep", "sub/cache"] {
        assert!(!is_watched(folder), "{folder}: {infos}");
    }
    watching.stop().exit(0);
}

/// Whatever led to it: at the last door before a removal it is asked once more.
#[test]
fn what_is_excluded_is_not_reaped_either() {
    let reap = |glob: &str| {
        let fixture = Fixture::new().with_policy(Policy {
            exclude: Exclude::new(&[glob]).unwrap(),
            ..Fixture::policy()
        });
        let outcome = fixture.reap_by(&Reaper::new());
        (outcome, fixture)
    };
    for glob in [BELOW, TEMP, "agent/*.tmp", "**/*.tmp", "sessions.*"] {
        let (outcome, fixture) = reap(glob);
        assert!(matches!(outcome, Outcome::Settled), "{glob}: {outcome:?}");
        fixture.has_only(OLD, &fixture.temp, glob);
        fixture.is_tidy(glob);
    }
    let (outcome, fixture) = reap("another/*.tmp");
    assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
    assert!(!fixture.temp.exists());
}

/// A FIFO would be waited for, and a device has no end.
#[test]
fn a_configuration_file_is_a_regular_file_of_at_most_1_mb() {
    let sandbox = Sandbox::new().file("a.tmp", "");
    crate::sandbox::fifo(&sandbox.base().join("fifo"));
    let text = |bytes: usize| "#".repeat(bytes - 1) + "\n";
    sandbox.write("../large.toml", text(1_000_001));
    sandbox.write("../largest.toml", text(1_000_000));
    let fix = "write the configuration to a file";
    let wrong: [(&str, &[&str]); 5] = [
        ("{base}/fifo", &["a FIFO", fix]),
        ("/dev/zero", &["a character device", fix]),
        ("/dev/stdin", &["a FIFO", fix]),
        ("{base}", &["a directory", fix]),
        (
            "{base}/large.toml",
            &["1000001 bytes", "1000000 is the most"],
        ),
    ];
    let verbs: [&[&str]; 6] = [
        &["config", "check"],
        &["config", "show"],
        &["scan", "root"],
        &["sweep", "--yes", "root"],
        &["watch", "--json", "root"],
        &["quarantine", "list"],
    ];
    for (file, words) in wrong {
        for verb in verbs {
            let mut command = sandbox.command(verb.iter().chain(&["--config", file]));
            // It stays open, as that of a terminal or of a program that goes on.
            let (reader, _writer) = std::io::pipe().unwrap();
            command.stdin(reader);
            let ran = sandbox.finish(command).exit(78).silent();
            for word in words {
                assert!(ran.stderr.contains(word), "{verb:?} {file}: {}", ran.stderr);
            }
        }
    }
    sandbox
        .run(["config", "check", "--config", "{base}/largest.toml"])
        .exit(0);
    sandbox
        .run(["scan", "root", "--config", "{base}/largest.toml"])
        .exit(0);
}

/// Whichever verb writes it.
#[test]
fn the_journal_is_rotated_at_its_size_by_every_verb() {
    let config = "[journal]\nmax_size = \"2kB\"\n[defaults]\ngrace = \"100ms\"\n";
    for verb in ["sweep", "watch", "restore", "purge"] {
        let sandbox = Sandbox::new()
            .file("../config/orphand/config.toml", config)
            .file("a.tmp", "the only copy")
            .aged(Duration::from_millis(150));
        if matches!(verb, "restore" | "purge") {
            sandbox.run(["sweep", "--yes", "root"]).exit(0);
        }
        let journal = sandbox.base().join("state/orphand/journal.jsonl");
        let before = fs::read_to_string(&journal).unwrap_or_default();
        let filler = "{\"journal\":\"intent\"}\n".repeat(200);
        sandbox.write("../state/orphand/journal.jsonl", before + &filler);
        match verb {
            "sweep" => _ = sandbox.run(["sweep", "--yes", "root"]).exit(0),
            "restore" => _ = sandbox.run(["restore", "{base}/root/a.tmp"]).exit(0),
            "purge" => _ = sandbox.run(["quarantine", "purge", "--yes"]).exit(0),
            _ => {
                let mut watching = sandbox.watch([""; 0]).ready();
                watching.wait_for(crate::sandbox::is("quarantined", "a.tmp"));
                watching.stop().exit(0);
            }
        }
        let older = fs::read_to_string(journal.with_extension("jsonl.1"));
        assert!(older.is_ok_and(|text| text.ends_with(&filler)), "{verb}");
        let now = fs::read_to_string(&journal).unwrap();
        assert!(now.lines().count() <= 3 && !now.is_empty(), "{verb}: {now}");
    }
}
