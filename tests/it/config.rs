//! The configuration file: `config init`, `check`, `show` and `path`, and what `exclude` protects.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use orphand::core::exclude::Exclude;
use orphand::core::policy::Policy;
use orphand::reap::{Outcome, Reaper};
use serde_json::Value;

use crate::fixture::{Fixture, SUBDIR, TEMP, TEMP_CONTENT};
use crate::sandbox::{CommandResult, Sandbox, WatchProcess, is, mode, name, terminal};

const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// The path of the sandbox's configuration, relative to its root.
const FILE: &str = "../config/orphand/config.toml";

/// Returns a rule for a directory of the sandbox.
fn rule(path: &str, rest: &str) -> String {
    format!("[[watch]]\npath = \"{{base}}/{path}\"\n{rest}\n")
}

/// Adds this configuration; `{base}` in it is replaced by the path of the sandbox.
fn with_config(sandbox: Sandbox, text: &str) -> Sandbox {
    let base = sandbox.base().to_str().unwrap().to_owned();
    sandbox.file(FILE, text.replace("{base}", &base))
}

/// Asserts that the command ended because of the file, and printed the position.
#[track_caller]
fn assert_config_error(ran: CommandResult, place: &str, words: &[&str]) {
    let ran = ran.exit(78).prints_nothing();
    words.iter().fold(
        ran.stderr_has(&format!("config.toml:{place}: ")),
        |ran, words| ran.stderr_has(words),
    );
}

fn value<'a>(shown: &'a Value, key: &str) -> (&'a Value, &'a str) {
    let entry = &shown[key];
    (&entry["value"], entry["origin"].as_str().unwrap_or("?"))
}

#[test]
fn init_writes_a_file_once_that_watches_nothing() {
    Sandbox::for_each_user(|sandbox| {
        let file = sandbox.path(FILE);
        let file = sandbox
            .base()
            .join(file.strip_prefix(sandbox.path("..")).unwrap());
        sandbox
            .run(["config", "init"])
            .exit(0)
            .stdout_has(&format!(
                "Wrote {}. It lists no directory yet",
                file.display()
            ))
            .stdout_has("orphand config check");
        assert_eq!(mode(&file), 0o600, "the file says what may be deleted");
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        let beside = fs::read_dir(file.parent().unwrap()).unwrap();
        assert_eq!(beside.count(), 1, "a temporary file is left");
        sandbox
            .run(["config", "check"])
            .exit(0)
            .stdout_has("is valid");
        let json = sandbox.run(["config", "check", "--json"]).exit(0);
        assert_eq!(json.stdout_json()["roots"], serde_json::json!([]));
        // An existing file is never overwritten.
        fs::write(&file, "mine").unwrap();
        let again = sandbox.run(["config", "init"]).exit(1).prints_nothing();
        again
            .stderr_has("already exists")
            .stderr_has("--config FILE");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    });
}

#[test]
fn init_writes_to_the_given_path() {
    let sandbox = Sandbox::new();
    let made = sandbox.run(["config", "init", "--json", "--config", "a/b/c.toml"]);
    let made = made.exit(0).stdout_json();
    let file = sandbox.base().join("a/b/c.toml");
    assert_eq!(made["path"], file.to_str().unwrap());
    assert!(file.exists() && !sandbox.has(FILE));
    sandbox
        .run(["config", "init", "--config", "a/b/c.toml"])
        .exit(1)
        .stderr_has("to check it: orphand config check --config ");
    let by_variable = Sandbox::new().env("ORPHAND_CONFIG", "v.toml");
    by_variable
        .run(["config", "init", "-q"])
        .exit(0)
        .prints_nothing();
    assert!(by_variable.base().join("v.toml").exists());
    // A dangling symlink is not followed.
    let sandbox = Sandbox::new();
    symlink("elsewhere", sandbox.base().join("link.toml")).unwrap();
    let linked = sandbox.run(["config", "init", "--config", "link.toml"]);
    linked.exit(1).stderr_has("already exists");
    assert!(!sandbox.base().join("elsewhere").exists());
    let beyond = sandbox.run(["config", "init", "--config", "link.toml/x.toml"]);
    beyond
        .exit(1)
        .stderr_has("cannot create")
        .stderr_has("link.toml");
}

#[test]
fn init_reports_a_file_that_cannot_be_created() {
    let sandbox = Sandbox::ordinary();
    let folder = sandbox.base().join("config");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let ran = sandbox.run(["config", "init"]).exit(1).prints_nothing();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    ran.stderr_has("cannot create").stderr_has("--config FILE");
    let nowhere = Sandbox::new().env("HOME", "").env("XDG_CONFIG_HOME", "x");
    for verb in ["init", "path"] {
        let ran = nowhere.run(["config", verb]).exit(1).prints_nothing();
        ran.stderr_has("HOME").stderr_has("--config FILE");
    }
}

#[test]
fn check_describes_a_valid_file() {
    let text = rule("root", "recursive = true\nexclude = [\"inner\"]")
        + &rule("root/inner", "grace = \"10s\"")
        + &rule("later", "");
    let sandbox = with_config(Sandbox::new().dir("inner"), &text);
    let ran = sandbox.run(["config", "check"]).exit(0);
    let ran = ran.stdout_has("config.toml is valid and lists 3 directories:");
    let ran = ran.stdout_has("root (with subfolders, excluding inner) for *.tmp");
    let ran = ran.stdout_has("root/inner (without subfolders) for *.tmp; the grace is 10 s\n");
    ran.stdout_has("later (without subfolders)")
        .stdout_has("does not exist yet");
    let json = sandbox.run(["config", "check", "--json"]).exit(0);
    let base = sandbox.base();
    let roots = ["root", "root/inner", "later"].map(|root| base.join(root));
    let want = serde_json::json!({
        "path": base.join("config/orphand/config.toml"), "ok": true, "error": null, "roots": roots,
    });
    assert_eq!(json.stdout_json(), want);
    sandbox
        .run(["config", "check", "-q"])
        .exit(0)
        .prints_nothing();
}

#[test]
fn check_lists_the_searched_paths_without_a_file() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["config", "check"]).exit(0);
    ran.stdout_has("there is no configuration file")
        .stdout_has("$XDG_CONFIG_HOME")
        .stdout_has("config/orphand/config.toml does not exist")
        .stdout_has("home/.config/orphand/config.toml does not exist");
    let json = sandbox.run(["config", "check", "--json"]).exit(0);
    let want = serde_json::json!({"path": null, "ok": true, "error": null, "roots": []});
    assert_eq!(json.stdout_json(), want);
    // A file that is named must exist.
    let named = ["config", "check", "--config", "x.toml"];
    let ran = sandbox.run(named).exit(78).prints_nothing();
    ran.stderr_has("x.toml: the file does not exist");
    let json = sandbox.run([&named[..], &["--json"]].concat()).exit(78);
    let error = &json.stdout_json()["error"];
    assert_eq!(
        (&error["line"], &error["column"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn the_first_error_has_a_line_and_a_column() {
    let sandbox = with_config(Sandbox::new(), "[defaults]\n\nsole-copy = 1\nx = 1\n");
    assert_config_error(
        sandbox.run(["config", "check"]),
        "3:1",
        &["did you mean \"sole_copy\"?"],
    );
    let json = sandbox.run(["config", "check", "--json"]).exit(78);
    let report = json.stdout_json();
    assert_eq!(report["ok"], false);
    assert_eq!(
        (&report["error"]["line"], &report["error"]["column"]),
        (&3.into(), &1.into())
    );
    assert!(
        report["error"]["what"]
            .as_str()
            .unwrap()
            .contains("sole_copy")
    );
    // Control characters in a name are escaped.
    sandbox.write("../\u{1b}[2J.toml", "x = 1");
    let ran = sandbox.run(["config", "check", "--config", "\u{1b}[2J.toml"]);
    ran.exit(78).stderr_has(r"\u{1b}[2J.toml:1:1: ");
}

/// Two rules for one temp stop every command that reads the file.
#[test]
fn overlapping_rules_are_an_error() {
    let text = rule("root", "recursive = true") + "\n" + &rule("root/inner", "");
    let sandbox = with_config(Sandbox::new().file("a.4194304.tmp", ""), &text).aged(OLD_ENOUGH);
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
        assert_config_error(sandbox.run(args), "6:8", words);
    }
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch"]);
    command.stdin(theirs);
    assert_config_error(sandbox.finish(command), "6:8", words);
    drop(ours);
    assert!(sandbox.has("a.4194304.tmp"));
    // `config path` still works: it shows which file to fix.
    sandbox.run(["config", "path"]).exit(0);
    // On the command line, directories may be nested: they have one rule.
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

/// Rules that do not overlap may overlap because of a flag.
#[test]
fn a_flag_can_make_rules_overlap() {
    let text = rule("root", "") + &rule("root/inner", "");
    let sandbox = with_config(Sandbox::new().dir("inner"), &text);
    sandbox.run(["config", "show"]).exit(0);
    let words = &["is recursive"];
    assert_config_error(sandbox.run(["config", "show", "-r"]), "5:8", words);
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch", "-r"]);
    command.stdin(theirs);
    assert_config_error(sandbox.finish(command), "5:8", words);
    drop(ours);
}

/// Only commands that watch the paths or check the file look at what exists there.
#[test]
fn invalid_roots_in_the_file_are_errors() {
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
            assert_config_error(sandbox.run(["config", verb]), place, words);
        }
        let (ours, theirs) = terminal();
        let mut command = sandbox.command(["watch"]);
        command.stdin(theirs);
        assert_config_error(sandbox.finish(command), place, words);
        drop(ours);
        sandbox.run(["scan", "root"]).exit(0);
        sandbox.run(["sweep", "-n", "root"]).exit(0);
    }
    sandbox.write(FILE, "[[watch]]\npath = \"/usr\"\nbroad = true");
    sandbox.run(["config", "check"]).exit(0).stdout_has("/usr");
}

#[test]
fn show_prints_values_with_their_origins() {
    let text = "[defaults]\ngrace = \"30s\"\nopen = \"quarantine\"\nnames = [\"*.a\"]\n".to_owned()
        + &rule("root", "open = \"reap\"\nsole_copy = \"keep\"")
        + "[quarantine]\nkeep = \"1d\"\n[log]\nlevel = \"debug\"\n";
    let sandbox = with_config(Sandbox::new(), &text)
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

/// The output of `config show` is a file with the same settings.
#[test]
fn the_output_of_show_is_a_valid_file() {
    let text = "[defaults]\nfixed_name_grace = \"2h\"\n".to_owned()
        + &rule(
            "root",
            "exclude = [\"a/*.tmp\", \"c\"]\nunless_open = \"LOCK\"\nrecursive = true\ngrace = \"90s\"",
        )
        + &rule(
            "la ter",
            "names = ['a\"\\\\*', '\u{202e}é']\nclosed = \"orphan\"",
        )
        + "[log]\nfile = \"~/x.log\"\nmax_size = \"1001kB\"\n[metrics]\ntextfile = \"/m/a.prom\"\n";
    let sandbox = with_config(Sandbox::new(), &text);
    let shown = sandbox.run(["config", "show"]).exit(0);
    let shown = shown
        .stdout_has("grace = \"90s\"")
        .stdout_has("# line 8\n")
        .stdout;
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

/// Returns what `config show --json` prints, without the file and the origins.
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
fn invalid_flags_are_usage_errors() {
    let sandbox = with_config(Sandbox::new(), &rule("root", ""));
    let ran = sandbox
        .run(["config", "show", "--closed", "settled"])
        .exit(2);
    ran.prints_nothing().stderr_has("--open reap");
    let ran = sandbox.run(["config", "show", "--name", "["]).exit(2);
    ran.prints_nothing().stderr_has("[");
    // The same without a file.
    let sandbox = Sandbox::new();
    let shown = sandbox.run(["config", "show", "--grace", "7s"]).exit(0);
    shown
        .stdout_has("# no configuration file\n")
        .stdout_has("grace = \"7s\"");
    let ran = sandbox
        .run(["config", "show", "--closed", "settled"])
        .exit(2);
    ran.prints_nothing().stderr_has("--open reap");
}

#[test]
fn path_prints_the_file_in_use() {
    let sandbox = Sandbox::new();
    let base = sandbox.base().to_str().unwrap().to_owned();
    let only = |ran: CommandResult, path: &str| {
        let ran = ran.exit(0);
        assert_eq!(ran.stdout, format!("{base}/{path}\n"));
        ran
    };
    let usual = "config/orphand/config.toml";
    only(sandbox.run(["config", "path"]), usual)
        .stderr_has("config/orphand/config.toml does not exist  <-")
        .stderr_has("home/.config/orphand/config.toml does not exist\n");
    sandbox.write(FILE, "wrong");
    only(sandbox.run(["config", "path"]), usual)
        .stderr_has("config/orphand/config.toml exists  <-");
    let named = ["config", "path", "--config", "x/y.toml"];
    only(sandbox.run(named), "x/y.toml").stderr_has("--config: ");
    let quiet = only(sandbox.run(["config", "path", "-q"]), usual);
    assert_eq!(quiet.stderr, "");
    let json = sandbox
        .run(["config", "path", "--json"])
        .exit(0)
        .stdout_json();
    let want = serde_json::json!({"path": sandbox.base().join(usual), "exists": true});
    assert_eq!(json, want);
    // A relative folder would differ between working directories.
    let sandbox = sandbox.env("XDG_CONFIG_HOME", "config");
    let ran = only(
        sandbox.run(["config", "path"]),
        "home/.config/orphand/config.toml",
    );
    ran.stderr_has("XDG_CONFIG_HOME is not set to an absolute path");
    let sandbox = sandbox.env("ORPHAND_CONFIG", "z.toml");
    only(sandbox.run(["config", "path"]), "z.toml").stderr_has("ORPHAND_CONFIG: ");
}

/// Temps that are excluded by a name, a path and a folder, and some that are not.
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
    let sandbox = with_config(Sandbox::new(), &text);
    let files = KEPT.iter().chain(&TAKEN);
    let sandbox = files.fold(sandbox, |sandbox, file| sandbox.file(file, ""));
    sandbox.aged(OLD_ENOUGH)
}

#[track_caller]
fn assert_only_excluded_files_are_left(sandbox: &Sandbox) {
    for file in KEPT {
        assert!(sandbox.has(file), "{file} was removed");
    }
    for file in TAKEN {
        assert!(!sandbox.has(file), "{file} is left");
    }
}

#[test]
fn scan_does_not_list_excluded_files() {
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

/// An excluded folder is not walked, so a denied permission in it is not reported.
#[test]
fn an_excluded_directory_need_not_be_readable() {
    let text = "[defaults]\nrecursive = true\nexclude = [\"shut\"]\n";
    let sandbox = with_config(Sandbox::ordinary().dir("shut"), text);
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
fn sweep_keeps_excluded_files() {
    let sandbox = with_exclude("");
    let swept = sandbox.sweep([""; 0]).exit(0);
    let events = swept.events();
    for file in KEPT {
        let name = file.rsplit('/').next().unwrap();
        assert_eq!(events.about(name), [""; 0], "no event is about it");
    }
    assert_only_excluded_files_are_left(&sandbox);
}

#[test]
fn explain_says_that_a_file_is_excluded() {
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
fn watch_keeps_excluded_files() {
    let watch = |sandbox: &Sandbox, mut watching: WatchProcess| {
        for file in TAKEN {
            watching.wait_for(is("reaped", file.rsplit('/').next().unwrap()));
        }
        assert_only_excluded_files_are_left(sandbox);
        // The same for later files, in folders that existed, are new, and are renamed.
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
        watching.wait_for_sentinel(sandbox);
        watching.wait_for_sentinel_in(sandbox, "sub");
        watching.wait_for_sentinel_in(sandbox, "new");
        for file in [
            "keep.2.tmp",
            "cache/j.4194304.tmp",
            "sub/k.x.tmp",
            "new/cache/l.tmp",
            "sub/a/m.tmp",
        ] {
            assert!(sandbox.has(file), "{file}: {:#?}", watching.events());
        }
        assert_only_excluded_files_are_left(sandbox);
        // Under another name it is no longer excluded.
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

/// A folder is renamed to an excluded name while its temps wait: they are kept.
#[test]
fn a_directory_renamed_to_an_excluded_name_is_kept() {
    let text = "[defaults]\nrecursive = true\nexclude = [\"cache\"]\n";
    let sandbox = with_config(Sandbox::new().dir("sub"), text);
    let mut watching = sandbox.watch(["--grace", "1s"]).ready();
    sandbox.write("sub/a.4194304.tmp", "");
    fs::rename(sandbox.path("sub"), sandbox.path("cache")).unwrap();
    sandbox.write("cache/b.4194304.tmp", "");
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
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

/// A directory in another one, each with a rule of its own, separated by `exclude`.
#[test]
fn a_nested_directory_has_its_own_rule() {
    let text = rule(
        "root",
        "recursive = true\ngrace = \"200ms\"\nexclude = [\"inner/**\"]",
    ) + &rule(
        "root/inner",
        "names = [\"*.part\"]\ngrace = \"200ms\"\nsole_copy = \"reap\"",
    );
    let sandbox = with_config(Sandbox::new().dir("inner/deep").dir("a/inner"), &text);
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
        "the other directory of that name"
    );
    watching.wait_for_sentinel(&sandbox);
    watching.wait_for_sentinel(&sandbox);
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

/// An excluded folder uses no inotify watch.
#[test]
#[cfg(target_os = "linux")]
fn an_excluded_directory_is_not_watched() {
    use std::os::unix::fs::MetadataExt;
    let text = "[defaults]\nrecursive = true\nexclude = [\"cache\"]\n";
    let sandbox = with_config(Sandbox::new().dir("cache/deep").dir("sub/cache"), text);
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

/// The exclusion is checked once more immediately before a removal.
#[test]
fn an_excluded_file_is_not_reaped() {
    let reap = |glob: &str| {
        let fixture = Fixture::new().with_policy(Policy {
            exclude: Exclude::new(&[glob]).unwrap(),
            ..Fixture::policy()
        });
        let outcome = fixture.reap_by(&Reaper::new());
        (outcome, fixture)
    };
    for glob in [SUBDIR, TEMP, "agent/*.tmp", "**/*.tmp", "sessions.*"] {
        let (outcome, fixture) = reap(glob);
        assert!(matches!(outcome, Outcome::Settled), "{glob}: {outcome:?}");
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, glob);
        fixture.assert_no_leftovers(glob);
    }
    let (outcome, fixture) = reap("another/*.tmp");
    assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
    assert!(!fixture.temp.exists());
}

/// Reading a FIFO would block, and a device has no end.
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
            // It stays open, like the stdin of a terminal or of a program that keeps running.
            let (reader, _writer) = std::io::pipe().unwrap();
            command.stdin(reader);
            let ran = sandbox.finish(command).exit(78).prints_nothing();
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

#[test]
fn every_command_rotates_the_journal() {
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
