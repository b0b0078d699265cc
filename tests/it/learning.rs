//! Learned writers: the shapes of temps that a watch derives from healthy renames.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use orphand::core::learn::{DirId, Form, KnownShape, LearnedShape, Place};
use orphand::fs::dir::RootId;
use orphand::store::shapes;
use orphand::sys::clock;
use serde_json::Value;

use crate::fixture::remove_watched_dir;
use crate::sandbox::{
    DEADLINE, Events, Sandbox, StartChild, WatchProcess, in_parallel, is, is_root,
};

/// Runs a shell script in the root. Skips nothing: the script must succeed.
fn shell(sandbox: &Sandbox, script: &str) {
    let ran = sandbox
        .program("/bin/bash")
        .arg("-ec")
        .arg(script)
        .current_dir(sandbox.root())
        .collect_output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Reports whether a program is installed.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").collect_output();
    let found = found.is_ok_and(|ran| ran.status.success());
    if !found {
        eprintln!("{program} is not installed: its writer is not tested");
    }
    found
}

/// Returns the learned shapes, each as `shape -> target`, with `!` before those that are learned well enough.
fn learned(sandbox: &Sandbox) -> Vec<String> {
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let learned = status["watchers"][0]["roots"][0]["learned"]
        .as_array()
        .unwrap()
        .clone();
    let text = |one: &Value| {
        let target = one["target"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let well = if one["learned_well"] == true { "!" } else { "" };
        format!("{well}{} -> {target}", one["shape"].as_str().unwrap())
    };
    learned.iter().map(text).collect()
}

#[track_caller]
fn wait_for_shape(sandbox: &Sandbox, want: &str) {
    let end = Instant::now() + DEADLINE;
    while !learned(sandbox).contains(&want.to_owned()) {
        assert!(
            Instant::now() < end,
            "{want} is not in {:?}",
            learned(sandbox)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a writer until its shape is known. Of many writes in one second, only some are followed.
#[track_caller]
fn teach(sandbox: &Sandbox, writer: &str, shape: &str) {
    let end = Instant::now() + DEADLINE;
    let mut next = Instant::now();
    while !learned(sandbox).contains(&shape.to_owned()) {
        let now = Instant::now();
        assert!(now < end, "{shape} is not in {:?}", learned(sandbox));
        if now >= next {
            shell(sandbox, writer);
            next = now + Duration::from_secs(3);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until everything that was seen before has been learned from: a further writer has become known.
#[track_caller]
fn wait_until_learned(sandbox: &Sandbox, watch: &mut WatchProcess) {
    watch.wait_for_sentinel(sandbox);
    shell(
        sandbox,
        "for n in 483920 102938 774411 230019 658102; do echo > marker.9$n; mv marker.9$n marker; done",
    );
    wait_for_shape(sandbox, "marker.9<[0-9]:6> -> marker");
}

/// Returns the shapes that `scan` shows, each as `shape -> target: files`, and checks its lines for people.
fn scanned(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    let document = sandbox.scan(args).exit(0).stdout_json();
    let all = document["learned"].as_array().unwrap().clone();
    let plain = ["scan"].iter().chain(args).chain(&["root"]);
    let mut lines = sandbox.run(plain).exit(0);
    for one in &all {
        lines = lines.stdout_has(&format!("{} file", one["files"]));
        lines = lines.stdout_has(one["shape"].as_str().unwrap());
        lines = lines.stdout_has(one["option"].as_str().unwrap_or(""));
    }
    let text = |one: &Value| {
        let target = one["target"].as_str().unwrap().rsplit('/').next().unwrap();
        format!(
            "{} -> {target}: {}",
            one["shape"].as_str().unwrap(),
            one["files"]
        )
    };
    all.iter().map(text).collect()
}

/// A writer of `data.json`, whose temps end in nine digits, and its shape.
const ATOMIC: &str = "for n in $(seq 40); do
    t=data.json.$(printf %09d $((100000000 + (RANDOM * 32768 + RANDOM) % 800000000)))
    echo $n > $t; mv $t data.json; done";
const SHAPE: &str = "!data.json.<[0-9]:9> -> data.json";

#[test]
fn unknown_writers_are_learned_live() {
    let sandbox = Sandbox::new().file("notes.txt", "a line\n");
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    teach(&sandbox, ATOMIC, SHAPE);
    // `sed -i` renames sedXXXXXX.
    let sed = "for n in $(seq 40); do sed -i s/line/line/ notes.txt; done";
    teach(&sandbox, sed, "sed<[0-9a-zA-Z]:6> -> notes.txt");
    if has("python3") {
        let python = "python3 -c '
import os, tempfile
for n in range(40):
    f = tempfile.NamedTemporaryFile(dir=\".\", prefix=\"cfg.json.\", suffix=\".tmp\", delete=False)
    f.close()
    os.replace(f.name, \"cfg.json\")
'";
        teach(&sandbox, python, "!cfg.json.<[0-9a-z]:8>.tmp -> cfg.json");
    }
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let all = status["watchers"][0]["roots"][0]["learned"]
        .as_array()
        .unwrap()
        .clone();
    let of = |shape: &str| {
        all.iter()
            .find(|one| one["shape"] == shape)
            .unwrap()
            .clone()
    };
    let unnamed = of("data.json.<[0-9]:9>");
    assert_eq!(unnamed["matched"], false, "{unnamed}");
    let option = format!("--name 'data.json.{}'", "[0-9]".repeat(9));
    assert_eq!(unnamed["option"], option, "{unnamed}");
    if has("python3") {
        let named = of("cfg.json.<[0-9a-z]:8>.tmp");
        assert_eq!(
            (&named["matched"], &named["option"]),
            (&Value::Bool(true), &Value::Null)
        );
    }
    sandbox
        .run(["status"])
        .exit(0)
        .stdout_has(&format!("to match them: {option}"));
    // Learning removes nothing.
    sandbox.write("data.json.123456789", "left by a killed writer");
    let stopped = watch.stop().exit(0);
    assert_eq!(stopped.events.sums(), [0, 0, 0, 0]);
    assert!(sandbox.has("data.json.123456789"));
}

/// A real writer of which no row is known: Python's `NamedTemporaryFile` with a prefix and a suffix, and `os.replace`.
/// Its names are learned, it is killed before a rename, and its temp is removed, because its target counts.
#[test]
fn a_killed_writer_is_cleaned_up_once_its_names_are_learned() {
    if !has("python3") {
        return;
    }
    let writer = |kill: bool| {
        let last = "
    random = os.path.basename(f.name)[9:-4]
    if kill and re.fullmatch(\"[a-z0-9]*[a-z][0-9]+[a-z][a-z0-9]*\", random):
        os.kill(os.getpid(), 9)";
        let writes = "
import os, re, sys, tempfile
kill = bool(sys.argv[1:])
for n in range(1000 if kill else 40):
    f = tempfile.NamedTemporaryFile(dir=\".\", prefix=\"cfg.json.\", suffix=\".tmp\", delete=False)
    f.write(b\"{}\")
    f.close()";
        let kill = if kill { " kill || true" } else { "" };
        format!("python3 -c '{writes}{last}\n    os.replace(f.name, \"cfg.json\")\n'{kill}")
    };
    let sandbox = Sandbox::new();
    let mut watch = sandbox.watch(["--grace", "1s"]).ready();
    teach(
        &sandbox,
        &writer(false),
        "!cfg.json.<[0-9a-z]:8>.tmp -> cfg.json",
    );
    shell(&sandbox, &writer(true));
    let reaped = watch.wait_for(|event| event["event"] == "reaped");
    assert!(
        reaped["path"].as_str().unwrap().contains("/cfg.json."),
        "{reaped}"
    );
    assert!(
        reaped["target"].as_str().unwrap().ends_with("/cfg.json"),
        "{reaped}"
    );
    assert_eq!(sandbox.listing(), ["cfg.json"]);
    let stopped = watch.stop().exit(0);
    assert_eq!(stopped.events.names("quarantined"), [""; 0]);
    assert_eq!(sandbox.content("cfg.json"), "{}");
}

/// What programs do with files beside atomic writes. None of it teaches a shape that may be used.
#[test]
fn ordinary_programs_teach_nothing_that_is_used() {
    let sandbox = Sandbox::new()
        .file("notes.txt", "a line\n")
        .file("app.log", "0\n");
    let mut watch = sandbox.watch(["--grace", "1s", "-r"]).ready();
    shell(
        &sandbox,
        r"
        for n in $(seq 25); do
            # A log is rotated.
            [ -e app.log.1 ] && mv app.log.1 app.log.2
            mv app.log app.log.1; echo $n > app.log
            # An editor keeps a backup.
            mv notes.txt notes.txt~; echo $n > notes.txt
            # Photos are imported, and a download is finished.
            echo > IMG_$n.jpg.$RANDOM$RANDOM; mv IMG_$n.jpg.* IMG_$n.jpg
            echo > report.pdf.part; mv report.pdf.part report-$n.pdf
            # A snapshot by date and a counter.
            echo > state.$(printf %08d $n); mv state.$(printf %08d $n) state
            echo > save.$(date +%s%N); mv save.1* save
        done",
    );
    if has("git") {
        shell(
            &sandbox,
            "git init -q repo && cd repo && git config user.email a@b && git config user.name a
            for n in $(seq 15); do
                echo $n > file$n; git add .; git commit -qm $n; git config some.key$n $n; git branch b$n
            done
            git gc -q; git checkout -q b3; git pack-refs --all",
        );
    }
    if has("python3") {
        shell(
            &sandbox,
            "python3 -c '
import sqlite3, shutil
for n in range(20):
    db = sqlite3.connect(\"some.db\")
    db.execute(\"create table if not exists t(x)\"); db.execute(\"insert into t values(?)\", (n,)); db.commit()
    db.execute(\"vacuum\"); db.close()
    shutil.make_archive(\"backup%d\" % n, \"tar\", \"repo\" if n % 2 else \".\") if n < 2 else None
'",
        );
    }
    shell(
        &sandbox,
        "tar cf all.tar *.txt *.jpg; mkdir out; for n in $(seq 5); do tar xf all.tar -C out; done; cp -r out copy",
    );
    wait_until_learned(&sandbox, &mut watch);
    let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
    let learned = status["watchers"][0]["roots"][0]["learned"]
        .as_array()
        .unwrap()
        .clone();
    let used: Vec<_> = learned
        .iter()
        .filter(|one| one["learned_well"] == true)
        .collect();
    assert!(used.is_empty(), "{used:#?}");
    watch.stop().exit(0);
}

#[test]
fn the_shapes_survive_a_restart_and_a_damaged_file() {
    let sandbox = Sandbox::new();
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    teach(&sandbox, ATOMIC, SHAPE);
    watch.stop().exit(0);
    let file = sandbox.base().join("state/orphand/shapes.json");
    let good = fs::read_to_string(&file).unwrap();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    wait_for_shape(&sandbox, SHAPE);
    watch.stop().exit(0);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        good,
        "nothing new was learned"
    );
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    teach(&sandbox, ATOMIC, SHAPE);
    let stopped = watch.stop().exit(0);
    assert!(
        stopped.stderr.contains("the learned shapes of temps in"),
        "{}",
        stopped.stderr
    );
    assert!(
        fs::read_to_string(&file).unwrap().contains("data.json"),
        "it was written again"
    );
}

/// A dry run creates no files, in no folder of orphand.
#[test]
fn a_dry_run_stores_no_shapes() {
    let sandbox = Sandbox::new();
    let mut watch = sandbox.watch(["--dry-run", "--grace", "1s"]).ready();
    shell(&sandbox, ATOMIC);
    // A dry run answers no `status`. What was seen is learned within two seconds, and stored at the end at the latest.
    for _ in 0..3 {
        watch.wait_for_sentinel(&sandbox);
    }
    watch.stop().exit(0);
    for folder in ["state", "runtime"] {
        let files = Command::new("find")
            .arg(sandbox.base().join(folder))
            .args(["-type", "f"])
            .collect_output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&files.stdout), "", "{folder}");
    }
}

/// The shapes of a file are only those of its own directory, and the file of shapes must be orphand's own.
#[test]
fn scan_and_explain_show_the_shapes_that_files_fit() {
    let sandbox = Sandbox::new().dir("sub").file("sub/data.json", "{}");
    let watch = sandbox.watch(["--grace", "1s", "-r"]).ready();
    teach(&sandbox, ATOMIC, SHAPE);
    watch.stop().exit(0);
    assert_eq!(scanned(&sandbox, &[]), [""; 0], "no file fits it");
    for name in [
        "data.json.741603160",
        "data.json.582190334",
        "sub/data.json.741603160",
        "data.json.20241130",
    ] {
        sandbox.write(name, "left by a killed writer");
    }
    let shown = ["data.json.<[0-9]:9> -> data.json: 2"];
    let explained = |name: &str| {
        let path = sandbox.path(name);
        let json = sandbox.run([
            OsStr::new("explain"),
            OsStr::new("--json"),
            path.as_os_str(),
        ]);
        let learned = json.exit(0).stdout_json()["temps"][0]["learned"].clone();
        let text = sandbox
            .run([OsStr::new("explain"), path.as_os_str()])
            .exit(0);
        if let Some(option) = learned["option"].as_str() {
            text.stdout_has("a learned shape: data.json.<[0-9]:9> in ")
                .stdout_has(option);
        }
        learned
    };
    for args in [&[][..], &["-r"]] {
        assert_eq!(scanned(&sandbox, args), shown, "{args:?}");
    }
    let known = explained("data.json.741603160");
    let option = format!("--name 'data.json.{}'", "[0-9]".repeat(9));
    assert_eq!(
        (&known["learned_well"], &known["matched"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(known["option"], option);
    for other in ["sub/data.json.741603160", "data.json.20241130", "data.json"] {
        assert_eq!(explained(other), Value::Null, "{other}");
    }
    // With that option the rule matches them.
    let pattern = format!("data.json.{}", "[0-9]".repeat(9));
    let by_name = sandbox.scan(["--name", &pattern]).exit(0).stdout_json();
    assert_eq!(
        (&by_name["learned"][0]["option"], &by_name["total"]["temps"]),
        (&Value::Null, &Value::from(2))
    );

    let file = sandbox.base().join("state/orphand/shapes.json");
    let good = fs::read_to_string(&file).unwrap();
    let last = good
        .split("\"last_write\":")
        .nth(1)
        .unwrap()
        .split(['}', ','])
        .next()
        .unwrap();
    let month_ago = last.parse::<i64>().unwrap() - 31 * 86_400;
    for (what, bad) in [
        ("damaged", good[..good.len() / 2].to_owned()),
        ("too old", good.replace(last, &month_ago.to_string())),
    ] {
        fs::write(&file, bad).unwrap();
        assert_eq!(scanned(&sandbox, &[]), [""; 0], "{what}");
        assert_eq!(explained("data.json.741603160"), Value::Null, "{what}");
    }
    fs::write(&file, &good).unwrap();
    assert_eq!(scanned(&sandbox, &[]), shown);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    sandbox
        .scan([""; 0])
        .exit(0)
        .stderr_has("another user owns it, or can write it");
    assert_eq!(scanned(&sandbox, &[]), [""; 0], "other users can write it");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    // Another directory with the same path and the same names.
    fs::rename(sandbox.root(), sandbox.base().join("before")).unwrap();
    fs::create_dir(sandbox.root()).unwrap();
    sandbox.write("data.json.741603160", "left by a killed writer");
    assert_eq!(scanned(&sandbox, &[]), [""; 0], "another directory");
    remove_watched_dir(&sandbox.root());
    fs::rename(sandbox.base().join("before"), sandbox.root()).unwrap();
    assert_eq!(scanned(&sandbox, &[]), shown);
}

/// A shape that is stored instead of learned: its names are `before`, eight random characters, and `after`.
#[derive(Clone, Copy)]
struct Stored {
    before: &'static str,
    after: &'static str,
    target: &'static str,
    /// The number of files, and of those that were renamed.
    files: u64,
    renamed: u64,
}

impl Stored {
    const fn well(before: &'static str, after: &'static str, target: &'static str) -> Stored {
        Stored {
            before,
            after,
            target,
            files: 40,
            renamed: 40,
        }
    }

    fn known(&self, dir: DirId, owner: u32) -> KnownShape {
        let name = |random: &str| [self.before, random, self.after].concat().into_bytes();
        let form = Form::literal(&name("a0z9b1y8"))
            .widened(&name("0a9z1b8y"))
            .unwrap();
        let target = self.target.as_bytes().to_vec();
        let place = Place { dir, target, owner };
        let mut shape = LearnedShape::stored(place, form, self.files, clock::wall());
        (shape.ended, shape.renamed) = (self.files, self.renamed);
        KnownShape {
            dir: "/elsewhere".into(),
            shape,
            is_learned_well: false,
        }
    }
}

/// Stores shapes of the root as if a watch had learned them.
fn store(sandbox: &Sandbox, stored: &[Stored]) {
    let dir = RootId::of(&sandbox.root()).unwrap().into();
    let owner = fs::metadata(sandbox.root()).unwrap().uid();
    let known: Vec<KnownShape> = stored.iter().map(|one| one.known(dir, owner)).collect();
    let state = sandbox.base().join("state/orphand");
    shapes::write(&state, &known).unwrap();
}

/// Returns the shapes that are stored.
fn stored(sandbox: &Sandbox) -> Vec<KnownShape> {
    let read = shapes::read(&sandbox.base().join("state/orphand"), clock::wall());
    read.unwrap().unwrap_or_default()
}

/// Waits until the stored shapes are as wanted.
#[track_caller]
fn wait_until_stored(sandbox: &Sandbox, is_wanted: impl Fn(&KnownShape) -> bool) {
    let end = Instant::now() + DEADLINE;
    while !stored(sandbox).iter().any(&is_wanted) {
        assert!(Instant::now() < end, "{:?}", stored(sandbox));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// `scan` and `explain` know a shape while the watch that has learned it runs, and a kill of that watch loses nothing.
#[test]
fn what_is_learned_is_stored_while_the_watch_is_idle() {
    let sandbox = Sandbox::new();
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    teach(&sandbox, ATOMIC, SHAPE);
    // No further event wakes the watch.
    wait_until_stored(&sandbox, |one| one.is_learned_well);
    sandbox.write("sub.json", "{}");
    fs::rename(
        sandbox.path("sub.json"),
        sandbox.path("data.json.741603160"),
    )
    .unwrap();
    assert_eq!(
        scanned(&sandbox, &[]),
        ["data.json.<[0-9]:9> -> data.json: 1"]
    );
    watch.signal(libc::SIGKILL);
    watch.end();
    wait_until_stored(&sandbox, |one| one.is_learned_well);
}

/// A shape that turns out to be wrong is not in force for other commands, also if the watch is killed.
#[test]
fn evidence_against_a_shape_is_stored_while_the_watch_is_idle() {
    let sandbox = Sandbox::new();
    store(&sandbox, &[CFG]);
    let watch = sandbox.watch(["--grace", "1s"]).ready();
    shell(
        &sandbox,
        &format!("echo > {CFG_TEMP}; mv {CFG_TEMP} other.json"),
    );
    wait_until_stored(&sandbox, |one| {
        one.shape.has_other_target && !one.is_learned_well
    });
    watch.signal(libc::SIGKILL);
    watch.end();
    assert_eq!(stored(&sandbox).len(), 1);
}

const CFG: Stored = Stored::well("cfg.json.", ".tmp", "cfg.json");
/// A name that fits it.
const CFG_TEMP: &str = "cfg.json.k3j9x2mq.tmp";

/// Longer than the grace in the tests of stored shapes.
const AGE: Duration = Duration::from_millis(250);

/// Returns the verdict of `scan` and `explain` on a file of the root, which must be the same, and the name of its target.
fn verdict(sandbox: &Sandbox, name: &str) -> (String, Option<String>) {
    let scanned = sandbox.scan(["--grace", "200ms"]).exit(0).stdout_json();
    let path = sandbox.path(name);
    let explained = sandbox.run([
        "explain",
        "--json",
        "--grace",
        "200ms",
        path.to_str().unwrap(),
    ]);
    let explained = explained.exit(0).stdout_json()["temps"][0].clone();
    let temps = scanned["temps"].as_array().unwrap();
    let found = temps
        .iter()
        .find(|temp| temp["path"] == path.to_str().unwrap());
    let found = found.unwrap_or_else(|| panic!("{name} is not in {scanned}"));
    for key in ["verdict", "reason", "target"] {
        assert_eq!(found[key], explained[key], "{name}: {key}");
    }
    let reason = found["reason"].as_str().map(|reason| format!(" {reason}"));
    let target = found["target"]
        .as_str()
        .map(|target| target.rsplit('/').next().unwrap().to_owned());
    let verdict = found["verdict"].as_str().unwrap();
    (format!("{verdict}{}", reason.unwrap_or_default()), target)
}

/// Gives a file to another user.
fn chown(path: PathBuf) {
    std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
}

/// The target that a shape tells must pass the same gates as any other target, and a name that may have a longer target
/// keeps that.
#[test]
fn a_learned_shape_tells_the_target_and_weakens_no_gate() {
    let (longest, sole) = ("cfg.json.k3j9x2mq", "quarantine sole-copy");
    type Change<'a> = &'a (dyn Fn(&Sandbox) + Sync);
    let few = |files, renamed| {
        let stored = Stored {
            files,
            renamed,
            ..CFG
        };
        move |at: &Sandbox| store(at, &[stored])
    };
    let (n19, n20, n95, n94) = (few(19, 19), few(20, 20), few(100, 95), few(100, 94));
    let mut rows: Vec<(&str, &str, &str, Change<'_>)> = vec![
        ("a killed writer's temp", "reap", "cfg.json", &|_| {}),
        ("no target", sole, "cfg.json", &|at| {
            fs::remove_file(at.path("cfg.json")).unwrap()
        }),
        ("an empty target", sole, "cfg.json", &|at| {
            at.write("cfg.json", "")
        }),
        ("a shorter target", sole, "cfg.json", &|at| {
            at.write("cfg.json", "{}")
        }),
        ("a directory as target", sole, "cfg.json", &|at| {
            fs::remove_file(at.path("cfg.json")).unwrap();
            at.make_dir("cfg.json");
        }),
        ("a numbered file", sole, longest, &|at| {
            at.write("cfg.json.1", "old")
        }),
        ("a target with a random name", sole, longest, &|at| {
            at.write("cfg.json.q8w7e6r5", "old")
        }),
        (
            "a target of another temp",
            "keep reserved",
            "cfg.json",
            &|at| {
                at.write(format!("{CFG_TEMP}.tmp"), "x");
            },
        ),
        ("19 files", sole, longest, &n19),
        ("20 files", "reap", "cfg.json", &n20),
        ("95 of 100", "reap", "cfg.json", &n95),
        ("94 of 100", sole, longest, &n94),
        ("two targets", sole, longest, &|at| {
            store(
                at,
                &[
                    CFG,
                    Stored {
                        target: "cfg",
                        ..CFG
                    },
                ],
            )
        }),
    ];
    if is_root() {
        let more: [(&str, &str, &str, Change<'_>); 5] = [
            ("a target of root", sole, "cfg.json", &|at| {
                let dir = RootId::of(&at.root()).unwrap().into();
                shapes::write(&at.base().join("state/orphand"), &[CFG.known(dir, 12_345)]).unwrap();
                chown(at.path(CFG_TEMP));
            }),
            ("a target of another owner", sole, "cfg.json", &|at| {
                chown(at.path("cfg.json"))
            }),
            ("a temp of another owner", sole, longest, &|at| {
                chown(at.path(CFG_TEMP))
            }),
            ("a shape of another owner", sole, longest, &|at| {
                let dir = RootId::of(&at.root()).unwrap().into();
                shapes::write(&at.base().join("state/orphand"), &[CFG.known(dir, 12_345)]).unwrap();
            }),
            ("shapes of another user", sole, longest, &|at| {
                chown(at.base().join("state/orphand/shapes.json"));
            }),
        ];
        rows.extend(more);
    }
    in_parallel(rows, |(what, want, target, change)| {
        let sandbox = Sandbox::new()
            .file("cfg.json", "whole")
            .file(CFG_TEMP, "torn");
        store(&sandbox, &[CFG]);
        change(&sandbox);
        sandbox.age(AGE);
        let found = verdict(&sandbox, CFG_TEMP);
        assert_eq!(
            (found.0.as_str(), found.1.as_deref()),
            (want, Some(target)),
            "{what}"
        );
    });
}

/// The same in a sweep and in a watch, where the temps of a shape form a group.
#[test]
fn sweep_and_watch_read_names_by_learned_shapes() {
    let temps = ["gone.json.k3j9x2mq.tmp", "gone.json.a1b2c3d4.tmp"];
    let new = || {
        let sandbox = Sandbox::new().file("cfg.json", "whole");
        store(
            &sandbox,
            &[CFG, Stored::well("gone.json.", ".tmp", "gone.json")],
        );
        sandbox
    };
    let write = |sandbox: &Sandbox| {
        for name in [
            CFG_TEMP,
            "cfg.json.before12.tmp",
            "cfg.json.20241130.tmp",
            temps[0],
            temps[1],
        ] {
            sandbox.write(name, "torn");
        }
    };
    let check = |events: &Events| {
        assert_eq!(events.names("reaped"), [CFG_TEMP]);
        let target = events.one("reaped")["target"].as_str().unwrap();
        assert!(target.ends_with("/cfg.json"), "{target}");
        let mut moved = events.names("quarantined");
        moved.sort_unstable();
        assert_eq!(
            moved,
            [
                "cfg.json.20241130.tmp",
                "cfg.json.before12.tmp",
                temps[1],
                temps[0]
            ]
        );
    };
    let sandbox = new();
    write(&sandbox);
    sandbox.age(AGE);
    let explained = sandbox.run([
        "explain",
        "--json",
        "--grace",
        "200ms",
        sandbox.path(temps[0]).to_str().unwrap(),
    ]);
    let group = &explained.exit(0).stdout_json()["temps"][0]["group"];
    assert_eq!(
        (&group["in_place"], &group["superseded"]),
        (&Value::from(2), &Value::Bool(false))
    );
    check(&sandbox.sweep(["--grace", "200ms"]).exit(0).events());
    // `restore --as-target` knows the target too.
    sandbox
        .run([
            "restore",
            "--as-target",
            sandbox.path(temps[0]).to_str().unwrap(),
        ])
        .exit(0);
    assert_eq!(sandbox.content("gone.json"), "torn");

    let sandbox = new();
    let mut watch = sandbox.watch(["--grace", "200ms"]).ready();
    write(&sandbox);
    watch.wait_for(|event| event["event"] == "reaped");
    watch.wait_for_nth(4, |event| event["event"] == "quarantined");
    check(watch.events());
    watch.stop().exit(0);
}

/// A shape of many writes, so that some files without a rename do not matter.
const DATA: Stored = Stored {
    files: 4_000,
    renamed: 4_000,
    ..Stored::well("data.json.", "", "data.json")
};

/// Lets a real program that has no row write `data.json` until it is killed before a rename: Python's
/// `NamedTemporaryFile`. Returns the name that it leaves.
fn leave_by_killed_program(sandbox: &Sandbox) -> String {
    const WRITER: &str = "
import os, re, tempfile
while True:
    f = tempfile.NamedTemporaryFile(dir=\".\", prefix=\"data.json.\", delete=False)
    f.write(b\"{}\")
    f.close()
    if re.fullmatch(\"[a-z]+[0-9]+[a-z]+[0-9][a-z0-9]*\", f.name.rsplit(\".\")[-1]):
        print(os.path.basename(f.name), flush=True)
        os.kill(os.getpid(), 9)
    os.replace(f.name, \"data.json\")";
    if !has("python3") {
        let name = "data.json.m1n2b3v4";
        leave(sandbox, name);
        return name.to_owned();
    }
    let ran = sandbox
        .program("python3")
        .args(["-c", WRITER])
        .current_dir(sandbox.root())
        .collect_output()
        .unwrap();
    assert_eq!(ran.status.signal(), Some(libc::SIGKILL), "{ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

/// The names of the shape that a watch must not take. A sandbox has them if it is for that case alone.
struct Untouched {
    name: &'static str,
    make: fn(&Sandbox, &str),
}

/// Creates the file that a killed writer leaves.
fn leave(sandbox: &Sandbox, name: &str) {
    sandbox.write(name, "{}");
}

const UNTOUCHED: &[Untouched] = &[
    // Words with a number.
    Untouched {
        name: "data.json.before12",
        make: leave,
    },
    Untouched {
        name: "data.json.2024copy",
        make: leave,
    },
    // A shape of one directory is not used in another.
    Untouched {
        name: "sub/data.json.k3j9x2mq",
        make: leave,
    },
    // A name that appeared by a rename, and a file that another one has replaced since its creation.
    Untouched {
        name: "data.json.z1y2x3w4",
        make: |sandbox, name| {
            fs::rename(sandbox.path("before"), sandbox.path(name)).unwrap();
        },
    },
    Untouched {
        name: "data.json.a1s2d3f4",
        make: |sandbox, name| {
            leave(sandbox, name);
            fs::rename(sandbox.path("before 2"), sandbox.path(name)).unwrap();
        },
    },
    // It is the target of a temp that the rule takes.
    Untouched {
        name: "data.json.b1n2m3v4",
        make: |sandbox, name| {
            leave(sandbox, name);
            // The second name keeps it.
            let temp = format!("{name}.tmp");
            leave(sandbox, &temp);
            fs::hard_link(sandbox.path(&temp), sandbox.path("second name")).unwrap();
        },
    },
];

/// A watch with `learn = "take"` moves what only a learned shape matches, and destroys nothing, whatever the other
/// settings are. A file must be left for a minute before it counts as not renamed, so all cases share that minute.
#[test]
fn take_moves_only_files_that_were_seen_created() {
    let new = |learn: &'static str| {
        let sandbox = Sandbox::new().dir("sub").file("data.json", "whole");
        for name in ["before", "before 2", "data.json.q8w7e6r5"] {
            sandbox.write(name, "{}");
        }
        store(&sandbox, &[DATA]);
        let args = [
            "-r",
            "--grace",
            "300ms",
            "--open",
            "reap",
            "--sole-copy",
            "reap",
            "--learn",
            learn,
        ];
        let watch = sandbox.watch(args).ready();
        (sandbox, watch)
    };
    let (taking, mut take) = new("take");
    let created = Instant::now();
    let (numbered, number) = new("take");
    let others = ["report", "off"].map(new);
    let all = [&taking, &others[0].0, &others[1].0];
    // Files that are renamed were created more than the delay of an event before.
    std::thread::sleep(Duration::from_millis(1_500).saturating_sub(created.elapsed()));
    for sandbox in all {
        UNTOUCHED
            .iter()
            .for_each(|file| (file.make)(sandbox, file.name));
        leave(sandbox, "data.json.k3j9x2mq");
    }
    leave(&taking, "data.json.h5j6k7l8");
    let held = fs::File::options()
        .append(true)
        .open(taking.path("data.json.h5j6k7l8"))
        .unwrap();
    // A numbered file shows that the target may be longer.
    leave(&numbered, "data.json.k3j9x2mq");
    leave(&numbered, "data.json.1");
    if is_root() {
        leave(&taking, "data.json.v1c2x3z4");
        chown(taking.path("data.json.v1c2x3z4"));
    }
    // These are due last, so all other files were judged before.
    std::thread::sleep(Duration::from_secs(3));
    let last = leave_by_killed_program(&taking);
    let moved = take.wait_for(is("quarantined", &last));
    assert!(
        moved["target"].as_str().unwrap().ends_with("/data.json"),
        "{moved}"
    );
    // That seven or eight files stayed is evidence against their shape, which is stored.
    let left = 7 + u64::from(is_root());
    wait_until_stored(&taking, |one| one.shape.ended - one.shape.renamed >= left);
    assert!(numbered.has("data.json.k3j9x2mq"), "numbered");
    assert!(!taking.has("data.json.k3j9x2mq"));
    assert!(
        taking.has("data.json.h5j6k7l8") && taking.has("data.json.q8w7e6r5"),
        "in use; older than the watch"
    );
    for sandbox in all {
        for file in UNTOUCHED {
            assert!(
                sandbox.has(file.name),
                "{}: {:?}",
                file.name,
                sandbox.listing()
            );
        }
        assert!(!is_root() || taking.has("data.json.v1c2x3z4"));
    }
    for (sandbox, learn) in [
        (&taking, "take"),
        (&others[0].0, "report"),
        (&others[1].0, "off"),
    ] {
        let status = sandbox.run(["status", "--json"]).exit(0).stdout_json();
        let root = &status["watchers"][0]["roots"][0];
        assert_eq!(root["learn"], learn);
        assert_eq!(
            root["learned"].as_array().unwrap().is_empty(),
            learn == "off",
            "{learn}"
        );
    }
    others[1]
        .0
        .run(["status"])
        .exit(0)
        .stdout_has("nothing is learned: learn = \"off\"");
    drop(held);
    let stopped = take.stop().exit(0);
    assert_eq!(stopped.events.names("reaped"), [""; 0]);
    number.stop().exit(0);
    for (sandbox, watch) in others {
        watch.stop().exit(0);
        assert!(sandbox.has("data.json.k3j9x2mq"));
    }
    // A sweep has seen no creation.
    leave(&taking, "data.json.k3j9x2mq");
    taking.age(AGE);
    taking
        .sweep(["--grace", "200ms", "--learn", "take"])
        .exit(0);
    assert!(taking.has("data.json.k3j9x2mq"));
    let path = taking.path("data.json.k3j9x2mq");
    let explained = taking.run(["explain", "--learn", "take", path.to_str().unwrap()]);
    explained
        .exit(0)
        .stdout_has("a watch moves it to the quarantine if it saw the file's creation");
    let explained = taking.run(["explain", path.to_str().unwrap()]);
    explained
        .exit(0)
        .stdout_has("a watch takes those that it sees created: --learn take");
}
