//! `orphand scan` and `explain` report temps and verdicts, and change nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::UseState;
use orphand::core::policy::{Graces, Policy};
use serde_json::Value;

use crate::contract;
use crate::fixture::{Fixture, GRACE, RunAs, TEMP, TEMP_CONTENT, in_own_process};
use crate::sandbox::{
    CommandResult, Sandbox, assert_held_by_us, dead_pid, in_parallel, live_pid, name,
};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

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

/// A lease would delay a writer that is still at work.
#[cfg(target_os = "linux")]
#[test]
fn a_scan_leases_no_temp_that_it_keeps_anyway() {
    in_own_process(&[RunAs::CurrentUser], || {
        let (keep, long) = (Verdict::Keep, Duration::from_secs(3600));
        for (name, grace, verdict, use_state) in [
            (TEMP, GRACE, Verdict::Reap, UseState::Unused),
            (TEMP, long, keep(Reason::Young), UseState::Unknown),
            (
                "a.sqlite-x.tmp",
                GRACE,
                keep(Reason::Reserved),
                UseState::Unknown,
            ),
        ] {
            let fixture = Fixture::new().with_policy(Policy {
                grace: Graces::both(grace),
                ..Fixture::policy()
            });
            fs::write(fixture.dir.join(name), TEMP_CONTENT).unwrap();
            std::thread::sleep(GRACE);
            let judged = fixture.judge_all(vec![name.to_owned()]);
            assert_eq!(judged.len(), 1, "{name}");
            assert_eq!(judged[0].verdict, verdict, "{name}");
            assert_eq!(judged[0].evidence.use_state, use_state, "{name}");
            // Its target is found in any case.
            let is_known = judged[0].target == Some(fixture.target.clone());
            assert_eq!(is_known, name == TEMP, "{name}");
        }
    });
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
    let sandbox = sandbox.aged(OLD_ENOUGH);
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
        serde_json::json!({
            "temps": 5, "bytes": 16, "disk_bytes": document["total"]["disk_bytes"],
            "orphans": 3, "orphan_bytes": 14,
            "orphan_disk_bytes": document["total"]["orphan_disk_bytes"],
        })
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

    // Young temps are listed too.
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

    // In human output: one line for each temp, three about the directory and the symlink, the census, and the total.
    let human = sandbox.run(["scan", "--grace", "100ms", "root"]).exit(0);
    assert_eq!(human.stdout.lines().count(), 10, "{}", human.stdout);
    human.stdout_has("3 orphans, ").stdout_has("orphand sweep");
    assert_eq!(
        sandbox.snapshot(),
        before,
        "scan changed or created something"
    );
    drop(held);
}

/// A sweep does what the scan reported.
#[test]
fn scan_and_sweep_agree() {
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "orphan")
        .file("sole.tmp", "precious")
        .file("empty.4194304.tmp", "")
        .file(format!("a.{}.7.tmp", live_pid()), "x")
        .aged(OLD_ENOUGH);
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    let events = sandbox.sweep(SHORT).exit(0).events();
    for temp in scan["temps"].as_array().unwrap() {
        let result = match temp["verdict"].as_str().unwrap() {
            "reap" => "reaped".to_owned(),
            "quarantine" => "quarantined".to_owned(),
            _ => format!("kept {}", temp["reason"].as_str().unwrap()),
        };
        assert_eq!(events.about(name(temp)), [result], "{temp}");
    }
}

#[test]
fn a_scan_of_an_empty_root_finds_nothing() {
    let document = Sandbox::new().scan(SHORT).exit(0).stdout_json();
    contract::check_scan(&document);
    assert_eq!(document["temps"], serde_json::json!([]));
    Sandbox::new()
        .run(["scan", "root"])
        .exit(0)
        .stdout_has("no orphans");
}

#[test]
fn quiet_is_counted_from_the_newest_date() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD_ENOUGH);
    let file = fs::File::options()
        .write(true)
        .open(sandbox.path("a.4194304.tmp"))
        .unwrap();
    // rsync and tar set the modification time back: that alone does not make a file old.
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
        .aged(OLD_ENOUGH);
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
    assert_held_by_us(&temp["holders"]);
    let gates = temp["gates"].as_array().unwrap();
    assert!(gates.len() >= 10, "{temp}");
    let failing: Vec<_> = gates
        .iter()
        .filter(|gate| gate["passes"] == false)
        .collect();
    assert_eq!(failing.len(), 1, "{temp}");
    assert_eq!(failing[0]["reason"], "in-use");
    assert!(gates.iter().all(|gate| gate["evidence"].is_string()));
    let human = sandbox
        .run(["explain", "--grace", "100ms", "root/a.tmp"])
        .exit(0);
    assert!(
        human.stdout.lines().count() > gates.len(),
        "{}",
        human.stdout
    );
    human
        .stdout_has("in-use")
        .stdout_has(&format!("[{}]", std::process::id()));
    assert_eq!(sandbox.snapshot(), before);
    drop(holder);
    // A file that no rule matches is explained too.
    sandbox.run(["explain", "root/a"]).exit(0);
}

/// Colors are printed only on request.
#[test]
fn colors_are_printed_only_on_request() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD_ENOUGH);
    for (args, colored) in [
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
            colored,
            "{args:?}: {}",
            ran.stdout
        );
    }
}

/// stdout has only data, stderr only messages.
#[test]
fn quiet_and_json_control_the_output() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD_ENOUGH);
    let ran = sandbox.sweep(SHORT.iter().chain(&["-n", "-v"])).exit(0);
    assert_eq!(ran.events().sums(), [1, 0, 0, 0]);
    sandbox
        .run(["sweep", "-n", "-q", "--grace", "100ms", "root"])
        .exit(0)
        .prints_nothing();
    sandbox
        .run(["sweep", "-n", "--grace", "100ms", "root"])
        .exit(0)
        .stdout_has("a.4194304.tmp");
}

/// A directory whose name a shell would split.
const ODD_DIR: &str = "root/it's a dir";

/// Creates temps of several kinds in the directory [`ODD`], with their targets.
fn odd_sandbox() -> Sandbox {
    let file = |name: &str| format!("../{ODD_DIR}/{name}");
    Sandbox::new()
        .file(file("a"), "whole, to the last byte of it")
        .file(file("a.tmp"), "orphan")
        .file(file("b.part"), "only copy")
        .file(file("b.tmp"), "only copy")
        .file(file("c d.4194304.tmp"), "")
        .file(file("below/e.4194304.tmp"), "")
        .file(file(&format!("a.tmp.{}.0123456789ab", dead_pid())), "x")
        .file(file("held.4194304.tmp"), "")
        .file("../my config.toml", "[defaults]\ngrace = \"100ms\"\n")
        .file(
            "../moving config.toml",
            "[defaults]\ngrace = \"100ms\"\naction = \"quarantine\"\n",
        )
        .aged(OLD_ENOUGH)
}

/// Returns the verdict of `scan` on each orphan, and the line with its suggested command.
fn orphans_and_command(
    sandbox: &Sandbox,
    args: &[&str],
    variables: &[(&str, &str)],
) -> (Vec<String>, String) {
    let run = |more: &[&str]| {
        let args = ["scan"].iter().chain(args).chain(more).chain(&[ODD_DIR]);
        let mut command = sandbox.command(args);
        command.envs(variables.iter().copied());
        sandbox.finish(command).exit(0)
    };
    let document = run(&["--json"]).stdout_json();
    let temps = document["temps"].as_array().unwrap().iter();
    let orphans = temps.filter(|temp| temp["verdict"] != "keep");
    let mut orphans: Vec<String> = orphans
        .map(|temp| {
            let word = |key: &str| temp[key].as_str().unwrap();
            format!("{} {}", word("verdict"), word("path"))
        })
        .collect();
    orphans.sort();
    let human = run(&[]).stdout;
    let last = human.lines().last().unwrap().to_owned();
    (orphans, last)
}

/// Runs the command of a line in a shell, in another directory and without the variables of the scan.
fn run_pasted(sandbox: &Sandbox, line: &str) -> CommandResult {
    let at = line.find("orphand ");
    let at = at.unwrap_or_else(|| panic!("no command: {line}"));
    let mut shell = sandbox.program("sh");
    shell.args(["-c", &line[at..]]);
    let folder = sandbox.binary().parent().unwrap().to_str().unwrap();
    shell.env(
        "PATH",
        format!("{folder}:{}", std::env::var("PATH").unwrap()),
    );
    shell.current_dir("/");
    sandbox.finish(shell)
}

/// The command that `scan` suggests does in a shell exactly what `scan` has listed.
#[test]
fn the_suggested_command_does_what_was_listed() {
    let short = ["--grace", "100ms"];
    let with = |args: &[&'static str]| [&short[..], args].concat();
    type Variables = &'static [(&'static str, &'static str)];
    let cases: [(Vec<&str>, Variables, usize, &str); 15] = [
        (with(&[]), &[], 3, "remove 2 and move 1 to the quarantine: "),
        (with(&["-r"]), &[], 4, " -r "),
        (
            with(&["--name", "*.part"]),
            &[],
            1,
            "move them to the quarantine: ",
        ),
        (
            with(&["--name", "c*", "--name", "a.tmp"]),
            &[],
            2,
            "remove them: ",
        ),
        (
            with(&["--writer", "claude-code"]),
            &[],
            4,
            "--writer claude-code",
        ),
        (with(&["--sole-copy", "reap"]), &[], 3, "remove them: "),
        (with(&["--sole-copy", "keep"]), &[], 2, "remove them: "),
        (with(&["--open", "reap"]), &[], 4, "--open reap"),
        (
            with(&["--closed", "settled", "--open", "reap"]),
            &[],
            1,
            "--closed settled --open reap",
        ),
        (
            with(&["--action", "quarantine"]),
            &[],
            3,
            "move them to the quarantine: ",
        ),
        (with(&["-n"]), &[], 3, "remove 2"),
        (
            vec!["--config", "my config.toml"],
            &[],
            3,
            "my config.toml' ",
        ),
        (
            vec!["-n", "--config", "moving config.toml"],
            &[],
            3,
            "move them to the quarantine: ",
        ),
        (
            vec![],
            &[("ORPHAND_GRACE", "0.1s"), ("ORPHAND_RECURSIVE", "1")],
            4,
            " -r --grace 100ms ",
        ),
        (
            vec!["--recursive=false"],
            &[("ORPHAND_GRACE", "100ms"), ("ORPHAND_ACTION", "report")],
            3,
            "--action delete",
        ),
    ];
    in_parallel(cases, |(args, variables, count, words)| {
        let sandbox = odd_sandbox();
        let held = fs::File::open(sandbox.base().join(ODD_DIR).join("held.4194304.tmp")).unwrap();
        let (listed, last) = orphans_and_command(&sandbox, &args, variables);
        assert_eq!(listed.len(), count, "{args:?}: {listed:#?}");
        assert!(last.contains(words), "{words:?} for {args:?}: {last}");
        let ran = run_pasted(&sandbox, &format!("{last} --yes --json")).exit(0);
        let events = ran.events();
        let done = |event: &str, verdict: &str| {
            let done = events.of(event).into_iter();
            done.map(|event| format!("{verdict} {}", event["path"].as_str().unwrap()))
                .collect::<Vec<_>>()
        };
        let mut all = [done("reaped", "reap"), done("quarantined", "quarantine")].concat();
        all.sort();
        assert_eq!(all, listed, "{args:?} {variables:?}: {last}");
        drop(held);
    });
}

/// The suggested command has no option that the user did not give.
#[test]
fn no_command_is_suggested_that_would_be_refused() {
    let sandbox = Sandbox::new().file("a.4194304.tmp", "").aged(OLD_ENOUGH);
    let home = sandbox.root();
    let sandbox = sandbox.env("HOME", home);
    let ran = sandbox.run(["scan", "--grace", "100ms", "root"]).exit(0);
    let last = ran.stdout.lines().last().unwrap();
    assert!(!last.contains("orphand sweep"), "{last}");
    assert!(
        last.contains("sweep would remove nothing there") && last.contains("home directory"),
        "{last}"
    );
    let typed = ["scan", "--allow-broad-root", "--grace", "100ms", "root"];
    sandbox.run(typed).exit(0).stdout_has("--allow-broad-root");
    let sandbox = Sandbox::new()
        .file(".orphand/n/a.4194304.tmp", "")
        .aged(OLD_ENOUGH);
    let ran = sandbox.run(["scan", "--grace", "100ms", "root/.orphand/n"]);
    let ran = ran.exit(0).stdout_has("is in a quarantine");
    assert!(!ran.stdout.contains("orphand sweep"), "{}", ran.stdout);
}

#[test]
fn a_sweep_that_cannot_ask_names_the_whole_command() {
    let sandbox = odd_sandbox();
    let ran = sandbox.run(["sweep", "--grace", "100ms", "--name", "c*", ODD_DIR]);
    let ran = ran.exit(2).prints_nothing();
    for (word, option) in [("to remove:", " --yes"), ("to preview:", " -n")] {
        let line = ran
            .stderr
            .lines()
            .find(|line| line.starts_with(word))
            .unwrap();
        assert!(line.ends_with(option), "{line}");
        let events = run_pasted(&sandbox, &format!("{line} --json"))
            .exit(0)
            .events();
        assert_eq!(events.names("reaped"), ["c d.4194304.tmp"], "{line}");
        if option == " --yes" {
            sandbox.write(format!("../{ODD_DIR}/c d.4194304.tmp"), "");
            sandbox.age(OLD_ENOUGH);
        }
    }
}

#[test]
fn a_file_that_is_no_temp_has_no_verdict() {
    let sandbox = Sandbox::new()
        .file("sessions.json", "precious")
        .file("sessions.json.tmp", "x")
        .file("0.tmp", "x")
        .file(".orphand-0123456789abcdef-x.tmp", "x")
        .aged(OLD_ENOUGH);
    symlink("sessions.json", sandbox.path("link")).unwrap();
    symlink("sessions.json", sandbox.path("link.tmp")).unwrap();
    let short = ["--grace", "100ms"];
    for (file, last) in [
        ("sessions.json", "not a temp: its name does not match *.tmp"),
        ("link", "not a temp: its name does not match *.tmp"),
        (
            "0.tmp",
            "not a temp: its name does not match *.tmp (*.tmp excludes .syncthing.*.tmp, <digits>.tmp and .tmp)",
        ),
        (
            ".orphand-0123456789abcdef-x.tmp",
            "not a temp: it is the claim of an unfinished removal; the next watch or sweep gives the file its name back",
        ),
    ] {
        let path = format!("root/{file}");
        let ran = sandbox.run(["explain"].iter().chain(&short).chain(&[&*path]));
        assert_eq!(ran.exit(0).stdout.lines().last(), Some(last));
        let ran = sandbox.run(["explain", "--json"].iter().chain(&short).chain(&[&*path]));
        let temp = &ran.exit(0).stdout_json()["temps"][0];
        for key in ["verdict", "reason"] {
            assert_eq!(temp.get(key), Some(&Value::Null), "{key} of {temp}");
        }
        assert_eq!(temp["matches"], false, "{temp}");
    }
    for (file, verdict) in [("sessions.json.tmp", "reap"), ("link.tmp", "keep")] {
        let path = format!("root/{file}");
        let ran = sandbox.run(["explain", "--json"].iter().chain(&short).chain(&[&*path]));
        let temp = &ran.exit(0).stdout_json()["temps"][0];
        assert_eq!(
            (&temp["verdict"], &temp["matches"]),
            (&verdict.into(), &true.into())
        );
    }
    let named = [
        "explain",
        "--name",
        "*.part",
        "--writer",
        "git",
        "root/sessions.json.tmp",
    ];
    let ran = sandbox.run(named).exit(0);
    ran.stdout_has("not a temp: its name does not match *.part, tmp_obj_");
}

/// The directory is quoted, and the options are repeated.
#[test]
fn explain_refuses_a_directory() {
    let sandbox = odd_sandbox();
    let ran = sandbox
        .run(["explain", "--name", "c*", ODD_DIR])
        .exit(2)
        .prints_nothing();
    let want = format!(
        r"orphand scan --name 'c*' '{}/root/it'\''s a dir'",
        sandbox.base().display()
    );
    ran.stderr_has(&want);
}

/// A directory may have temps only in its subfolders, which are not examined without `-r`.
#[test]
fn subfolders_that_were_not_examined_are_mentioned() {
    let sandbox = odd_sandbox().file("deep/.orphand/x", "").file("flat/x", "");
    let deep = ["--grace", "100ms", "--exclude", "below", "root"];
    let with = |args: &[&'static str]| [args, &deep[..]].concat();
    let config = |args: &[&'static str]| [args, &["--config", "my config.toml", "root"]].concat();
    let rows: [(Vec<&str>, Option<&str>); 10] = [
        (
            with(&["scan"]),
            Some("scan -r --grace 100ms --exclude below BASE"),
        ),
        (
            with(&["scan", "--list"]),
            Some("scan -r --grace 100ms --exclude below BASE"),
        ),
        (
            config(&["sweep", "--yes"]),
            Some("sweep -r --config 'CONFIG' BASE"),
        ),
        (
            with(&["sweep", "-n"]),
            Some("sweep -r --grace 100ms --exclude below -n BASE"),
        ),
        (with(&["scan", "-q"]), None),
        (with(&["scan", "--json"]), None),
        (with(&["scan", "-0"]), None),
        (with(&["scan", "--recursive=false"]), None),
        (vec!["scan", "root/flat"], None),
        (vec!["scan", "root/deep"], None),
    ];
    for (args, want) in rows {
        let ran = sandbox.run(&args).exit(0);
        let line = (ran.stdout.lines())
            .find_map(|line| line.split_once("subfolders were not examined; to include them: "));
        let config = sandbox.base().join("my config.toml");
        let want = want.map(|want| {
            let want = want.replace("CONFIG", config.to_str().unwrap());
            format!(
                "orphand {}",
                want.replace("BASE", sandbox.root().to_str().unwrap())
            )
        });
        assert_eq!(
            line.map(|(_, command)| command),
            want.as_deref(),
            "{args:?}: {}",
            ran.stdout
        );
    }
}

/// A line about files in quarantine suggests a command that deletes these files and no others.
#[test]
fn a_suggested_purge_deletes_only_the_files_of_its_line() {
    let sweep: &[&str] = &["sweep", "--yes", "--grace", "100ms", ODD_DIR];
    let rows: [(&[&str], i32, &str); 5] = [
        (sweep, 0, " moved to the quarantine ("),
        (&["scan", ODD_DIR], 0, " in quarantine ("),
        (&["quarantine", "list", ODD_DIR], 0, "to delete all: "),
        (&["status"], 1, "disk "),
        (&["report"], 0, "disk "),
    ];
    for (args, code, line) in rows {
        let sandbox = odd_sandbox().file("other/c.tmp", "another only copy");
        sandbox.age(OLD_ENOUGH);
        let other = ["sweep", "--yes", "--grace", "100ms", "root/other"];
        sandbox.run(other).exit(0);
        if args != sweep {
            sandbox.run(sweep).exit(0);
        }
        let ran = sandbox.run(args).exit(code);
        let dir = |line: &str| line.contains("it'\\''s a dir'");
        let mut lines = (ran.stdout.lines()).filter(|one| one.contains(line) && dir(one));
        let line = lines.next().unwrap_or_else(|| panic!("{}", ran.stdout));
        let at = line.rfind("orphand quarantine purge").unwrap();
        let command = line[at..].split(')').next().unwrap();
        run_pasted(&sandbox, &format!("{command} --yes")).exit(0);
        let left = sandbox.run(["quarantine", "list", "--json", "root/other"]);
        left.exit(0).stdout_has("other/c.tmp");
        assert!(!sandbox.has(format!("../{ODD_DIR}/.orphand")), "{args:?}");
    }
}

/// Even if the directories are only in the file.
#[test]
fn every_hint_repeats_the_configuration_file() {
    let sandbox = odd_sandbox();
    let sweep = ["sweep", "--yes", "--config", "my config.toml", ODD_DIR];
    let ran = sandbox.run(sweep).exit(0);
    // Without the journal, a copy is found only through the directories of the file.
    fs::remove_dir_all(sandbox.base().join("state/orphand")).unwrap();
    let text = format!("[[watch]]\npath = {:?}\n", sandbox.base().join(ODD_DIR));
    sandbox.write("../my config.toml", text);
    let moved = ran.stdout.lines().find(|line| line.contains("  back: "));
    let moved = moved.unwrap_or_else(|| panic!("{}", ran.stdout));
    let (back, purge) = moved.split_once("   for good: ").unwrap();
    assert!(
        ran.stdout
            .contains("to delete: orphand quarantine purge --config '")
    );
    run_pasted(&sandbox, back).exit(0);
    assert_eq!(sandbox.content(format!("../{ODD_DIR}/b.tmp")), "only copy");
    // The copy is gone; the message suggests the list.
    let ran = run_pasted(&sandbox, purge).exit(1);
    let list = ran.stderr.split_once("to list the files: ").unwrap().1;
    run_pasted(&sandbox, list)
        .exit(0)
        .stdout_has("no files in quarantine");
    let init = ["config", "init", "--config", "a new.toml"];
    let ran = sandbox.run(init).exit(0);
    let check = ran.stdout.split_once("then run: ").unwrap().1;
    run_pasted(&sandbox, check)
        .exit(0)
        .stdout_has("a new.toml is valid");
    let ran = sandbox.run(["scan", "--config", "a new.toml"]).exit(2);
    ran.stderr_has("a new.toml").stderr_has("[[watch]]");
    // The same for a file in place of a directory.
    let file = sandbox.base().join(ODD_DIR).join("b.part");
    let scan = ["scan", "--config", "my config.toml", "--name", "*.part"];
    let ran = sandbox.run(
        scan.iter()
            .map(std::ffi::OsStr::new)
            .chain([file.as_os_str()]),
    );
    let explain = ran
        .exit(2)
        .stderr
        .split_once("verdict for a file: ")
        .unwrap()
        .1
        .to_owned();
    run_pasted(&sandbox, &explain)
        .exit(0)
        .stdout_has("b.part")
        .stdout_has("keep: young");
}

/// A stored copy is no temp: only the quarantine's own commands and limits act on it.
#[test]
fn explain_says_that_a_file_is_in_a_quarantine() {
    let sandbox = Sandbox::new().file("b.tmp", "x").aged(OLD_ENOUGH);
    sandbox.sweep(["--grace", "100ms"]).exit(0);
    let folder = fs::read_dir(sandbox.path(".orphand")).unwrap();
    let folder = folder.map(|entry| entry.unwrap().path()).next().unwrap();
    let path = folder.join("b.tmp").to_str().unwrap().to_owned();
    let ran = sandbox.run(["explain", "--grace", "100ms", &path]).exit(0);
    let list = format!("orphand quarantine list {}", sandbox.root().display());
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("not a temp: it is in a quarantine"),
        "{last}"
    );
    assert!(last.ends_with(&list), "{last}");
    let ran = sandbox.run(["explain", "--json", &path]).exit(0);
    assert_eq!(ran.stdout_json()["temps"][0]["verdict"], Value::Null);
}
