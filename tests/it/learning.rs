//! Learned writers: the shapes of temps that a watch derives from healthy renames.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::{DEADLINE, Sandbox, StartChild, WatchProcess};

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
    fs::remove_dir_all(sandbox.root()).unwrap();
    fs::rename(sandbox.base().join("before"), sandbox.root()).unwrap();
    assert_eq!(scanned(&sandbox, &[]), shown);
}
