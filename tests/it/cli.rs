//! The command line as tables: arguments, exit code, stdout, stderr. Each case runs with a limit on memory
//! and on open descriptors.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::contract;
use crate::sandbox::{MAX_MEMORY, Sandbox, WatchProcess, fifo, in_parallel, terminal};

/// The expected content of a stream.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// The stream is empty.
    Nothing,
    /// The stream contains all of these.
    All(&'static [&'static str]),
    /// Any content.
    Anything,
}

use Expected::{All, Anything, Nothing};

struct Case {
    args: &'static [&'static str],
    exit: i32,
    stdout: Expected,
    stderr: Expected,
}

const fn case(
    args: &'static [&'static str],
    exit: i32,
    stdout: Expected,
    stderr: Expected,
) -> Case {
    Case {
        args,
        exit,
        stdout,
        stderr,
    }
}

/// The command is refused: exit code 2, nothing on stdout, and all of `why` on stderr.
const fn refused(args: &'static [&'static str], why: &'static [&'static str]) -> Case {
    case(args, 2, Nothing, All(why))
}

/// The descriptor limit, which is enough for each case.
const DESCRIPTOR_LIMIT: u64 = 40;

/// The sandbox of the cases: two orphans beside their targets, one of them old enough for the shortest grace,
/// and the directories that a case needs.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new()
        .with_descriptor_limit(DESCRIPTOR_LIMIT)
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "partial")
        .file("b.4194304.tmp", "")
        .file("../-rf.4194304.tmp", "")
        .file("../empty/nothing", "")
        .file(
            "../wrong.toml",
            "[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n",
        );
    symlink(sandbox.root(), sandbox.base().join("link")).unwrap();
    symlink("a", sandbox.base().join("link.tmp")).unwrap();
    fifo(&sandbox.base().join("fifo.tmp"));
    sandbox.aged(Duration::from_millis(200))
}

/// Checks each case in a sandbox of its own.
fn check_all(cases: impl IntoIterator<Item = Case>) {
    in_parallel(cases, |case| check_in(&sandbox(), &case));
}

#[track_caller]
fn check_in(sandbox: &Sandbox, case: &Case) {
    let ran = sandbox.run(case.args).exit(case.exit);
    for (stream, output, want) in [
        ("stdout", &ran.stdout, case.stdout),
        ("stderr", &ran.stderr, case.stderr),
    ] {
        match want {
            Nothing => assert_eq!(output, "", "{stream} of {:?}", case.args),
            All(words) => {
                for word in words {
                    let word = word.replace("{base}", sandbox.base().to_str().unwrap());
                    assert!(
                        output.contains(&word),
                        "{word:?} in {stream} of {:?}: {output}",
                        case.args
                    );
                }
            }
            Anything => {}
        }
    }
    assert!(
        ran.peak <= MAX_MEMORY,
        "{} bytes of memory: {:?}",
        ran.peak,
        case.args
    );
}

#[test]
fn invalid_durations_are_refused() {
    check_all([
        refused(&["watch", "--grace", "30", "root"], &["30s"]),
        refused(&["scan", "--grace", "30", "root"], &["30s"]),
        refused(&["sweep", "--yes", "--grace", "30", "root"], &["30s"]),
        refused(&["explain", "--grace", "30", "root/a.tmp"], &["30s"]),
        refused(&["history", "--since", "7"], &["7s"]),
        refused(&["watch", "--grace", "99ms", "root"], &["100ms"]),
        refused(&["sweep", "--yes", "--grace", "99ms", "root"], &["100ms"]),
        refused(&["sweep", "--yes", "--grace", "0s", "root"], &["100ms"]),
        refused(&["sweep", "--yes", "--grace", "1.5", "root"], &["1.5s"]),
        refused(&["sweep", "--yes", "--grace", "1h30", "root"], &["30s"]),
        refused(&["watch", "--grace", "30m1h", "root"], &["1h30m"]),
        refused(
            &["sweep", "--yes", "--grace", "1w", "root"],
            &["ms, s, m, h"],
        ),
        refused(&["sweep", "--yes", "--grace", "", "root"], &["--grace"]),
        refused(
            &["sweep", "--yes", "--grace", "99999999999999999999s", "root"],
            &["too long"],
        ),
        case(
            &["sweep", "-n", "--grace", "100ms", "root"],
            0,
            Anything,
            Nothing,
        ),
        case(
            &["sweep", "-n", "--grace", "213503982334d", "root"],
            0,
            Anything,
            Nothing,
        ),
        case(
            &["sweep", "-n", "--grace", "1h30m", "root"],
            0,
            Anything,
            Nothing,
        ),
        case(
            &["scan", "--exit-code", "--grace", "0.1s", "root"],
            10,
            Anything,
            Nothing,
        ),
    ]);
}

#[test]
fn unknown_arguments_are_refused() {
    check_all([
        refused(&[], &["Usage"]),
        refused(&["swoop"], &["swoop"]),
        refused(&["sweep", "--garce", "1s", "root"], &["--garce", "--grace"]),
        refused(
            &["sweep", "--open", "maybe", "root"],
            &["keep", "quarantine", "reap"],
        ),
        refused(
            &["sweep", "--closed", "maybe", "root"],
            &["orphan", "settled"],
        ),
        refused(
            &["sweep", "--sole-copy", "maybe", "root"],
            &["quarantine", "keep", "reap"],
        ),
        refused(
            &["sweep", "--action", "maybe", "root"],
            &["delete", "quarantine", "report"],
        ),
        refused(
            &["watch", "--existing", "maybe", "root"],
            &["take", "wait", "leave"],
        ),
        // Options that the command does not have.
        refused(&["sweep", "--existing", "take", "root"], &["--existing"]),
        refused(&["watch", "--yes", "root"], &["--yes"]),
        refused(
            &["explain", "--action", "delete", "root/a.tmp"],
            &["--action"],
        ),
        refused(&["explain", "-r", "root/a.tmp"], &["-r"]),
        refused(&["scan"], &["DIR"]),
        refused(&["sweep", "--yes"], &["DIR"]),
        refused(&["explain"], &["FILE"]),
        refused(
            &["sweep", "-n", "--name", "sub/*.tmp", "root"],
            &["\"*.tmp\""],
        ),
        refused(&["sweep", "-n", "--name", "[", "root"], &["["]),
        refused(&["sweep", "-n", "--name", "", "root"], &["empty"]),
        refused(
            &["sweep", "-n", "--writer", "nobody", "root"],
            &["nobody", "--writer list"],
        ),
        case(
            &["watch", "--writer", "list"],
            0,
            All(&["claude-code", "atomically", "git"]),
            Nothing,
        ),
        case(
            &["scan", "--writer", "list"],
            0,
            All(&[
                "openclaw",
                "on by default",
                "claude-code",
                "atomically",
                "git",
            ]),
            Nothing,
        ),
        case(
            &["sweep", "--writer", "list"],
            0,
            All(&["claude-code", "atomically"]),
            Nothing,
        ),
        case(
            &["explain", "--writer", "list"],
            0,
            All(&["claude-code", "atomically"]),
            Nothing,
        ),
        case(&["--version"], 0, All(&["orphand 0."]), Nothing),
        case(
            &["--help"],
            0,
            All(&["watch", "scan", "sweep", "explain", "restore"]),
            Nothing,
        ),
    ]);
}

/// If the check failed, this test would still remove nothing: no file has such a name.
#[test]
fn broad_roots_are_refused() {
    let sandbox = sandbox();
    let none = ["--name", "no-such-temp-of-orphands-tests.*"];
    let folders = [
        "/", "/usr", "/etc", "/var", "/boot", "/dev", "/proc", "/sys", "/run", "/tmp", "/home",
    ];
    let there = |dir: &&str| Path::new(dir).is_dir() && !Path::new(dir).is_symlink();
    let system = folders.into_iter().filter(there).map(str::to_owned);
    // The home itself, written in several ways, and the folder that holds it.
    let home = [
        "{base}/home",
        "home",
        "./home/",
        "home/../home/.",
        "{base}",
        ".",
    ]
    .map(str::to_owned);
    for dir in system.chain(home) {
        for verb in [&["sweep", "--yes"][..], &["watch"]] {
            let args = [verb, &none, &[&dir]].concat();
            let ran = sandbox.run(args).exit(2).prints_nothing();
            assert!(
                ran.stderr.contains("--allow-broad-root"),
                "{verb:?} {dir}: {}",
                ran.stderr
            );
        }
    }
    for case in [
        case(
            &["sweep", "--yes", "--allow-broad-root", "home"],
            0,
            Anything,
            Nothing,
        ),
        case(
            &["sweep", "--yes", "--allow-broad-root", "."],
            0,
            Anything,
            Nothing,
        ),
        // Commands that change nothing accept any directory.
        case(&["scan", "home"], 0, Anything, Nothing),
        case(&["scan", "."], 0, Anything, Nothing),
        case(&["explain", "-rf.4194304.tmp"], 2, Nothing, Anything),
        case(&["explain", "./-rf.4194304.tmp"], 0, Anything, Nothing),
        case(&["sweep", "-n", "home"], 0, Anything, Nothing),
        case(&["sweep", "-n", "."], 0, Anything, Nothing),
        // A folder below a home is a normal root.
        case(
            &["sweep", "-n", "--name", "*.tmp", "root"],
            0,
            Anything,
            Nothing,
        ),
    ] {
        check_in(&sandbox, &case);
    }
}

#[test]
fn invalid_roots_are_refused() {
    let cases = [
        refused(&["sweep", "--yes", "link"], &["symlink", "{base}/root"]),
        refused(&["sweep", "--yes", "link/"], &["symlink", "{base}/root"]),
        refused(&["sweep", "-n", "link"], &["{base}/root"]),
        refused(&["watch", "link"], &["{base}/root"]),
        refused(&["scan", "root/a.tmp"], &["explain"]),
        refused(&["sweep", "--yes", "root/a.tmp"], &["explain"]),
        refused(&["watch", "root/a.tmp"], &["explain"]),
        case(&["scan", "no/such"], 1, Nothing, All(&["{base}/no/such"])),
        case(
            &["scan", "--json", "no/such"],
            1,
            Nothing,
            All(&["{base}/no/such"]),
        ),
        case(
            &["sweep", "--yes", "no/such"],
            1,
            Nothing,
            All(&["{base}/no/such"]),
        ),
        case(
            &["sweep", "-n", "no/such"],
            1,
            Nothing,
            All(&["{base}/no/such"]),
        ),
        case(
            &["sweep", "--yes", "root/a/b"],
            1,
            Nothing,
            All(&["{base}/root/a/b"]),
        ),
    ];
    in_parallel(cases, |case| {
        let sandbox = sandbox();
        check_in(&sandbox, &case);
        assert!(
            sandbox.has("a.tmp") && sandbox.has("b.4194304.tmp"),
            "{:?}",
            case.args
        );
    });
}

#[test]
fn sweep_without_a_terminal_needs_yes() {
    let short = ["--grace", "100ms", "root"];
    for (args, dry_run) in [
        (&["sweep"][..], false),
        (&["sweep", "--json"], false),
        (&["sweep", "-n"], true),
        (&["sweep", "-n", "--json"], true),
        (&["sweep", "--action", "report", "--json"], true),
    ] {
        let sandbox = sandbox();
        let ran = sandbox.run(args.iter().chain(&short));
        match dry_run {
            true => _ = ran.exit(0),
            false => _ = ran.exit(2).prints_nothing().stderr_has("--yes"),
        }
        assert_eq!(
            sandbox.listing(),
            ["a", "a.tmp", "b.4194304.tmp"],
            "{args:?}"
        );
    }
    let sandbox = sandbox();
    sandbox.run(["sweep", "--yes"].iter().chain(&short)).exit(0);
    assert_eq!(sandbox.listing(), ["a"]);
}

/// With `--json` it does not ask, even on a terminal.
#[test]
fn sweep_on_a_terminal_asks() {
    for (args, answer, exit, left) in [
        (&["sweep"][..], "n\n", 0, true),
        (&["sweep"], "\n", 0, true),
        (&["sweep"], "y\n", 0, false),
        (&["sweep", "--yes"], "", 0, false),
        (&["sweep", "-n"], "", 0, true),
        (&["sweep", "--json"], "y\n", 2, true),
    ] {
        let sandbox = sandbox();
        let (mut ours, theirs) = terminal();
        ours.write_all(answer.as_bytes()).unwrap();
        let mut command = sandbox.command(args.iter().chain(&["--grace", "100ms", "root"]));
        command.stdin(theirs);
        let ran = sandbox.finish(command).exit(exit);
        let names_json = ran
            .stderr
            .contains("sweep removes files and does not ask with --json; add --yes");
        assert_eq!(names_json, args.contains(&"--json"), "{args:?}: {ran:?}");
        assert_eq!(sandbox.has("a.tmp"), left, "{args:?} {answer:?}: {ran:?}");
        assert_eq!(sandbox.has("b.4194304.tmp"), left, "{args:?} {answer:?}");
    }
}

/// On a terminal it names both remedies: a directory as the argument, and the configuration file.
#[test]
fn watch_without_directories_prints_help() {
    let sandbox = sandbox();
    let (ours, theirs) = terminal();
    let mut command = sandbox.command(["watch"]);
    command.stdin(theirs);
    let ran = sandbox.finish(command).exit(2).prints_nothing();
    drop(ours);
    ran.stderr_has("orphand watch DIR").stderr_has("[[watch]]");
}

/// A supervisor would restart it in a loop, so without a terminal it keeps running and waits for the file.
#[test]
fn a_supervised_watch_waits_for_its_configuration() {
    let sandbox = sandbox();
    let mut watching = WatchProcess::start(sandbox.command(["watch", "--json"]));
    let wait_for_stderr = |watching: &WatchProcess, words: &str| {
        let end = Instant::now() + Duration::from_secs(60);
        while !watching.stderr().contains(words) {
            assert!(Instant::now() < end, "{words:?}: {}", watching.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for_stderr(&watching, "degraded");
    let root = sandbox.root();
    let rule = |grace: &str| format!("[[watch]]\npath = {root:?}\ngrace = \"{grace}\"\n");
    sandbox.write("../config/orphand/config.toml", rule("100"));
    wait_for_stderr(&watching, "config.toml:3:9:");
    assert!(watching.events().of("ready").is_empty());
    sandbox.write("../config/orphand/config.toml", rule("100ms"));
    watching = watching.ready();
    watching.wait_for_sentinel(&sandbox);
    watching.stop();
}

#[test]
fn settings_that_remove_nothing_are_refused() {
    let why: &[&str] = &["--open reap"];
    check_all([
        refused(&["watch", "--closed", "settled", "root"], why),
        refused(
            &["watch", "--closed", "settled", "--open", "keep", "root"],
            why,
        ),
        refused(
            &[
                "sweep", "--yes", "--closed", "settled", "--open", "keep", "root",
            ],
            why,
        ),
    ]);
}

#[test]
fn scan_exit_code_reports_orphans() {
    let short = ["--grace", "100ms"];
    for (args, exit) in [
        (&["scan", "root"][..], 0),
        (&["scan", "--exit-code", "root"], 10),
        (&["scan", "--exit-code", "--json", "root"], 10),
        (&["scan", "--exit-code", "empty"], 0),
        (&["scan", "--exit-code", "--grace", "1d", "root"], 0),
    ] {
        let with_grace = !args.contains(&"--grace");
        let grace = short.iter().filter(|_| with_grace);
        let sandbox = sandbox();
        let before = sandbox.snapshot();
        let ran = sandbox.run(args.iter().chain(grace)).exit(exit);
        assert_eq!(sandbox.snapshot(), before, "scan changes nothing");
        assert!(ran.peak <= MAX_MEMORY, "{} bytes", ran.peak);
    }
    sandbox()
        .run(["scan", "--grace", "100ms", "root"])
        .exit(0)
        .stdout_has("2 orphans, ")
        .stdout_has("remove them: orphand sweep");
}

#[test]
fn explain_handles_every_kind_of_file() {
    check_all([
        case(&["explain", "root/a.tmp"], 0, All(&["young"]), Nothing),
        case(
            &["explain", "--grace", "100ms", "root/a.tmp"],
            0,
            All(&["reap"]),
            Nothing,
        ),
        case(
            &[
                "explain",
                "--grace",
                "100ms",
                "root/a",
                "root/b.4194304.tmp",
            ],
            0,
            Anything,
            Nothing,
        ),
        case(&["explain", "no.tmp"], 1, Nothing, All(&["{base}/no.tmp"])),
        case(
            &["explain", "no/such.tmp"],
            1,
            Nothing,
            All(&["{base}/no/such.tmp"]),
        ),
        refused(&["explain", "root"], &["orphand scan"]),
        // The others are explained too, and the worst of the errors gives the exit code.
        case(
            &["explain", "no.tmp", "root/a.tmp", "no/such.tmp"],
            1,
            All(&["young"]),
            All(&["error: \"{base}/no.tmp\"", "error: \"{base}/no/such.tmp\""]),
        ),
        case(
            &["explain", "--json", "no.tmp", "root", "root/a.tmp"],
            2,
            All(&["young"]),
            All(&["{base}/no.tmp", "orphand scan"]),
        ),
        case(
            &["explain", "--json", "no.tmp", "no/such.tmp"],
            1,
            Nothing,
            All(&["{base}/no.tmp", "{base}/no/such.tmp"]),
        ),
        case(&["explain", "fifo.tmp"], 0, All(&["not-regular"]), Nothing),
        case(&["explain", "link.tmp"], 0, All(&["not-regular"]), Nothing),
        case(
            &["explain", "--", "-rf.4194304.tmp"],
            0,
            All(&["-rf.4194304.tmp"]),
            Nothing,
        ),
        case(
            &["sweep", "-n", "--", "-r"],
            1,
            Nothing,
            All(&["{base}/-r"]),
        ),
    ]);
}

#[test]
fn explain_json_has_every_field_whatever_the_file_is() {
    let sandbox = sandbox();
    let files = ["root/a.tmp", "root/b.4194304.tmp", "fifo.tmp", "link.tmp"];
    let document = sandbox
        .run(["explain", "--json"].iter().chain(&files))
        .exit(0)
        .stdout_json();
    let temps = document["temps"].as_array().unwrap();
    assert_eq!(temps.len(), files.len());
    let keys = |temp: &serde_json::Value| {
        temp.as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    for (temp, file) in temps.iter().zip(files) {
        let path = sandbox.base().join(file);
        assert_eq!(temp["path"], path.to_str().unwrap());
        contract::check_temp(temp);
        assert_eq!(keys(temp), keys(&temps[0]), "the fields of {file}");
    }
    assert_eq!(temps[2]["reason"], "not-regular");
    assert_eq!(temps[3]["reason"], "not-regular");
}

#[test]
fn unknown_quarantine_ids_are_errors() {
    check_all([
        case(
            &["restore", "7f3a"],
            1,
            Nothing,
            All(&["7f3a", "orphand quarantine list"]),
        ),
        case(
            &["restore", "root/x.tmp"],
            1,
            Nothing,
            All(&["orphand quarantine list"]),
        ),
        case(
            &["restore", "--to", "x", "1", "2"],
            2,
            Nothing,
            All(&["--to"]),
        ),
        refused(&["restore"], &["ID"]),
        case(&["quarantine", "list"], 0, Anything, Nothing),
        case(&["quarantine", "list", "--json"], 0, Nothing, Nothing),
        case(&["quarantine", "purge", "--yes"], 0, Anything, Nothing),
        case(
            &["quarantine", "purge", "7f3a"],
            1,
            Nothing,
            All(&["orphand quarantine list"]),
        ),
        case(&["history"], 0, Anything, Nothing),
        case(&["history", "--json"], 0, Nothing, Nothing),
        case(&["history", "--json", "--since", "7d"], 0, Nothing, Nothing),
    ]);
}

#[test]
fn flags_override_variables_and_variables_the_file() {
    let short = || sandbox().env("ORPHAND_GRACE", "100ms");
    short().run(["scan", "--exit-code", "root"]).exit(10);
    short()
        .run(["scan", "--exit-code", "--grace", "1d", "root"])
        .exit(0);
    let wrong = sandbox().env("ORPHAND_GRACE", "30");
    wrong.run(["scan", "root"]).exit(2).stderr_has("30s");
    let kept = short().env("ORPHAND_ACTION", "report");
    kept.run(["sweep", "--yes", "root"]).exit(0);
    assert_eq!(kept.listing(), ["a", "a.tmp", "b.4194304.tmp"]);
}

/// All commands print one duration in the same way.
#[test]
fn durations_are_printed_uniformly() {
    for (grace, printed, typed) in [
        ("60m", "1 h", "1h"),
        ("1h30m", "1 h 30 min", "90m"),
        ("90s", "1 min 30 s", "90s"),
        ("1.5s", "1.5 s", "1500ms"),
    ] {
        let sandbox = sandbox();
        let rule = |grace| {
            format!(
                "[[watch]]\npath = {:?}\ngrace = \"{grace}\"\n",
                sandbox.root()
            )
        };
        sandbox.write("../config/orphand/config.toml", rule(grace));
        let grace_is = format!("the grace is {printed}\n");
        sandbox
            .run(["config", "check"])
            .exit(0)
            .stdout_has(&grace_is);
        let explained = sandbox.run(["explain", "root/a.tmp"]).exit(0);
        explained.stdout_has(&format!("its grace is {printed}\n"));
        let shown = sandbox.run(["config", "show"]).exit(0);
        shown.stdout_has(&format!("grace = \"{typed}\""));
    }
    let sandbox = sandbox();
    let (mut ours, theirs) = terminal();
    ours.write_all(b"n\n").unwrap();
    let mut command = sandbox.command(["sweep", "--grace", "60m", "root"]);
    command.stdin(theirs);
    let asked = sandbox.finish(command).exit(0);
    asked.stderr_has("that no process has used for 1 h?");
    // The proposed grace is accepted.
    let ran = sandbox.run(["sweep", "-n", "--grace", "0", "root"]).exit(2);
    ran.stderr_has("did you mean \"100ms\", the shortest grace?");
    sandbox
        .run(["sweep", "-n", "--grace", "100ms", "root"])
        .exit(0);
}

#[test]
fn an_invalid_variable_is_named() {
    for (name, value, words) in [
        ("ORPHAND_GRACE", "bogus", "like 30s or 1h30m"),
        ("ORPHAND_GRACE", "30", "30s"),
        ("ORPHAND_GRACE", "50ms", "100ms"),
        ("ORPHAND_OPEN", "maybe", "keep, quarantine, reap"),
        ("ORPHAND_CLOSED", "maybe", "orphan, settled"),
        ("ORPHAND_SOLE_COPY", "maybe", "quarantine, keep, reap"),
        ("ORPHAND_ACTION", "maybe", "delete, quarantine, report"),
        ("ORPHAND_COLOR", "maybe", "auto, always, never"),
        ("ORPHAND_RECURSIVE", "maybe", "1, true, yes or on"),
    ] {
        let wrong = sandbox().env(name, value);
        let ran = wrong.run(["scan", "root"]).exit(2).prints_nothing();
        assert!(!ran.stderr.contains("for '--"), "{name}: {}", ran.stderr);
        ran.stderr_has(&format!("'{value}' for '{name}'"))
            .stderr_has(words);
    }
    // An error in a flag names the flag.
    let typed = sandbox().env("ORPHAND_GRACE", "bogus");
    let ran = typed.run(["scan", "--grace", "nonsense", "root"]).exit(2);
    ran.stderr_has("'nonsense' for '--grace <TIME>'");
    let both = sandbox().env("ORPHAND_GRACE", "7");
    let ran = both.run(["scan", "--grace", "7", "root"]).exit(2);
    ran.stderr_has("'7' for '--grace <TIME>'");
    // It names the right one of two variables with the same value.
    let two = sandbox()
        .env("ORPHAND_OPEN", "x")
        .env("ORPHAND_CLOSED", "x");
    let ran = two.run(["scan", "--closed", "orphan", "root"]).exit(2);
    ran.stderr_has("'x' for 'ORPHAND_OPEN'");
    use std::os::unix::ffi::OsStringExt;
    let bytes = std::ffi::OsString::from_vec(vec![0xff]);
    let ran = sandbox().env("ORPHAND_GRACE", bytes).run(["scan", "root"]);
    ran.exit(2).stderr_has("ORPHAND_GRACE is not UTF-8");
    let ran = sandbox().env("ORPHAND_LOG", "bogus").run(["scan", "root"]);
    ran.exit(0).stderr_has("ORPHAND_LOG").stderr_has("warn");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let names = [
        "ORPHAND_GRACE",
        "ORPHAND_CLOSED",
        "ORPHAND_OPEN",
        "ORPHAND_SOLE_COPY",
        "ORPHAND_ACTION",
        "ORPHAND_CONFIG",
        "ORPHAND_RECURSIVE",
        "ORPHAND_COLOR",
        "ORPHAND_LOG",
    ];
    let empty = names
        .iter()
        .fold(sandbox(), |sandbox, name| sandbox.env(name, ""));
    for args in [
        &["scan", "--exit-code", "--grace", "100ms", "root"][..],
        &["scan", "--exit-code", "-r", "--grace", "100ms", "root"],
    ] {
        let ran = empty.run(args).exit(10);
        assert_eq!(ran.stderr, "", "{args:?}");
    }
    empty
        .run(["explain", "root/a.tmp"])
        .exit(0)
        .stdout_has("young");
    empty.run(["quarantine", "list"]).exit(0);
    let shown = empty.run(["config", "show"]).exit(0);
    assert!(!shown.stdout.contains("ORPHAND_"), "{}", shown.stdout);
}

#[test]
fn recursion_is_switched_by_flag_variable_and_file() {
    let sandbox = || {
        sandbox()
            .file("below/c.tmp", "")
            .aged(Duration::from_millis(200))
    };
    let orphans = |sandbox: &Sandbox, args: &[&str]| {
        let all = ["scan", "--json", "--grace", "100ms"];
        let ran = sandbox.run(all.iter().chain(args).chain(&["root"])).exit(0);
        ran.stdout_json()["total"]["orphans"].as_u64().unwrap()
    };
    for on in ["1", "true", "yes", "on", "TRUE"] {
        let sandbox = sandbox().env("ORPHAND_RECURSIVE", on);
        assert_eq!(orphans(&sandbox, &[]), 3, "{on}");
        assert_eq!(orphans(&sandbox, &["--recursive=false"]), 2, "{on}");
    }
    let deep = "[defaults]\nrecursive = true\n";
    for off in ["0", "false", "no", "off"] {
        let sandbox = sandbox()
            .file("../config/orphand/config.toml", deep)
            .env("ORPHAND_RECURSIVE", off);
        assert_eq!(orphans(&sandbox, &[]), 2, "{off}");
        assert_eq!(orphans(&sandbox, &["-r"]), 3, "{off}");
        assert_eq!(orphans(&sandbox, &["--recursive=yes"]), 3, "{off}");
    }
    // The flag alone, combined with others, and before the directory.
    for args in [&["-rv"][..], &["-vr"], &["--recursive"], &["-r"]] {
        assert_eq!(orphans(&sandbox(), args), 3, "{args:?}");
    }
    let filed = sandbox().file("../config/orphand/config.toml", deep);
    assert_eq!(orphans(&filed, &[]), 3);
    let ran = filed.run(["scan", "--recursive=perhaps", "root"]).exit(2);
    ran.stderr_has("'--recursive")
        .stderr_has("write 1, true, yes or on");
}

/// An invalid configuration stops every command that reads it, with the position of the error.
#[test]
fn an_invalid_configuration_stops_every_command() {
    for verb in [
        &["scan", "root"][..],
        &["sweep", "--yes", "root"],
        &["explain", "root/a.tmp"],
    ] {
        let sandbox = sandbox();
        let args = verb.iter().chain(&["--config", "wrong.toml"]);
        let ran = sandbox.run(args).exit(78).prints_nothing();
        ran.stderr_has("wrong.toml:3:1:")
            .stderr_has("did you mean")
            .stderr_has("grace");
        assert!(sandbox.has("a.tmp"));
    }
    let sandbox = sandbox().file(
        "../config/orphand/config.toml",
        "[defaults]\ngrace = \"30\"\n",
    );
    let ran = sandbox.run(["scan", "root"]).exit(78).prints_nothing();
    ran.stderr_has("config.toml:2:").stderr_has("30s");
}

#[test]
fn flags_override_the_defaults_of_the_configuration() {
    let sandbox = sandbox().file(
        "../config/orphand/config.toml",
        "[defaults]\ngrace = \"100ms\"\n",
    );
    sandbox.run(["scan", "--exit-code", "root"]).exit(10);
    sandbox
        .run(["scan", "--exit-code", "--grace", "1d", "root"])
        .exit(0);
}

/// The reader of a pipe may end before the output does: no command fails or prints a message because of
/// that, and its exit code is the same.
#[test]
fn a_closed_pipe_ends_only_the_output() {
    let config = "[[watch]]\npath = \"/srv/none\"\n";
    let commands: [(&[&str], i32); 30] = [
        (&["scan", "--json", "root"], 0),
        (&["scan", "root"], 0),
        (&["scan", "--grace", "100ms", "--exit-code", "root"], 10),
        (&["scan", "--writer", "list"], 0),
        (&["sweep", "-n", "root"], 0),
        (&["sweep", "-n", "--json", "root"], 0),
        (&["sweep", "--yes", "root"], 0),
        (&["explain", "root/a.tmp"], 0),
        (&["explain", "--json", "root/a.tmp"], 0),
        (&["history"], 0),
        (&["history", "--json"], 0),
        (&["status"], 1),
        (&["status", "--json"], 1),
        (&["quarantine", "list", "root"], 0),
        (&["quarantine", "list", "--json", "root"], 0),
        (&["quarantine", "purge", "--yes"], 0),
        (&["config", "check"], 0),
        (&["config", "check", "--json"], 0),
        (&["config", "show"], 0),
        (&["config", "show", "--json"], 0),
        (&["config", "path"], 0),
        (&["config", "path", "--json"], 0),
        (&["config", "init", "--config", "{base}/new.toml"], 0),
        (&["doctor", "root"], 0),
        (&["service", "print", "--systemd"], 0),
        (&["service", "print", "--launchd"], 0),
        (&["service", "status", "--systemd"], 4),
        (&["man"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
    ];
    in_parallel(commands, |(args, exit)| {
        for both in [false, true] {
            let sandbox = sandbox().file("../config/orphand/config.toml", config);
            // Closed before the program starts: it might write everything before a later close.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = sandbox.command(args);
            if both {
                command.stderr(writer.try_clone().unwrap());
            }
            command.stdout(writer);
            let ran = sandbox.finish(command).exit(exit);
            let asked = args.starts_with(&["config", "path"]);
            assert!(ran.stderr.is_empty() || asked, "{args:?}: {}", ran.stderr);
        }
    });
}
