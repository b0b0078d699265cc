//! The conditions under which a target counts, on real files: with data, of the right user, old enough, or
//! behind a symlink that no other user can change.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use crate::sandbox::*;

const UUID: &str = "4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
const GRACE: &str = "100ms";
/// Longer than the grace, and than a tick of the clock that dates files.
const AGE: Duration = Duration::from_millis(120);
const MIB: u64 = 1 << 20;

fn temp() -> String {
    format!("t.{UUID}.tmp")
}

/// Sweeps, and returns the result for the temp: `reaped`, `quarantined`, or `kept` with its reason.
#[track_caller]
fn sweep_result(sandbox: &Sandbox, name: &str) -> String {
    sandbox.age(AGE);
    let about = sandbox.sweep(["--grace", GRACE]).events().about(name);
    match &about[..] {
        [one] => one.clone(),
        _ => panic!("{name}: {about:?}"),
    }
}

/// Returns the evidence that `explain` prints for the gate against only copies.
#[track_caller]
fn explain_evidence(sandbox: &Sandbox, name: &str) -> String {
    let ran = sandbox.run(["explain", "--json", &format!("root/{name}")]);
    let document = ran.exit(0).stdout_json();
    let gates = document["temps"][0]["gates"].as_array().unwrap().clone();
    let gate = gates
        .iter()
        .find(|gate| gate["gate"] == "not the only copy")
        .unwrap();
    gate["evidence"].as_str().unwrap().to_owned()
}

type Make = fn(&Path);

/// Checks rows of: a description; a function that creates the target beside a temp of 20,000 bytes; the
/// result for the temp; the evidence of `explain`.
#[track_caller]
fn check(rows: &[(&str, Make, &str, &str)]) {
    in_parallel(rows, |(what, make, want, words)| {
        Sandbox::for_each_user(|sandbox| {
            let (name, target) = (temp(), sandbox.path("t"));
            make(&target);
            if target.symlink_metadata().is_ok() {
                sandbox.chown_to_user(&target);
            }
            // Written after the target, so that a target with less data may be the older version.
            sandbox.age(AGE);
            sandbox.write(&name, vec![b'x'; 20_000]);
            let evidence = explain_evidence(&sandbox, &name);
            assert!(evidence.contains(words), "{what}: {evidence}");
            assert_eq!(sweep_result(&sandbox, &name), *want, "{what}");
            assert!(!sandbox.has(&name), "{what}");
        });
    });
}

fn file_of_length(path: &Path, size: u64) -> File {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    file
}

#[test]
fn a_target_without_data_does_not_count() {
    check(&[
        ("empty", |t| write(t, ""), "quarantined", "has no content"),
        (
            "a hole",
            |t| drop(file_of_length(t, 20_000)),
            "quarantined",
            "has no content",
        ),
        (
            "a short hole",
            |t| drop(file_of_length(t, 2)),
            "quarantined",
            "has no content",
        ),
        (
            "whole",
            |t| write(t, vec![b'y'; 20_000]),
            "reaped",
            "exists and has content",
        ),
        (
            "older and shorter",
            |t| write(t, vec![b'y'; 15_000]),
            "reaped",
            "exists and has content",
        ),
        (
            "a word",
            |t| write(t, "{}"),
            "quarantined",
            "less than a sixteenth",
        ),
        (
            "a directory",
            |t| fs::create_dir(t).unwrap(),
            "quarantined",
            "is a directory",
        ),
        (
            "a FIFO",
            fifo,
            "quarantined",
            "is a FIFO, a socket or a device",
        ),
    ]);
}

#[cfg(target_os = "linux")]
#[test]
fn space_that_is_only_reserved_is_no_data() {
    use rustix::fs::{FallocateFlags, fallocate};
    check(&[(
        "reserved",
        |t| fallocate(File::create(t).unwrap(), FallocateFlags::empty(), 0, 20_000).unwrap(),
        "quarantined",
        "has no content",
    )]);
}

/// A hole of 1 MiB with one byte in it, beside a temp of 1 MiB.
#[test]
fn a_target_that_is_nearly_all_hole_does_not_count() {
    Sandbox::for_each_user(|sandbox| {
        let name = temp();
        let target = file_of_length(&sandbox.path("t"), MIB);
        target.write_all_at(b"x", MIB / 2).unwrap();
        drop(target);
        sandbox.chown_to_user(&sandbox.path("t"));
        sandbox.age(AGE);
        sandbox.write(&name, vec![b'x'; 1 << 20]);
        assert_eq!(sweep_result(&sandbox, &name), "quarantined");
    });
}

/// A program that lost its file starts again and writes an empty state; or a copy of the temp is cut off.
#[test]
fn a_target_that_came_later_and_is_shorter_does_not_count() {
    let whole = vec![b'x'; 20_000];
    let cases = [
        ("an empty state", &b"{}"[..], "quarantined"),
        (
            "a copy that was cut off at 60 %",
            &whole[..12_000],
            "quarantined",
        ),
        ("a copy that lacks a byte", &whole[..19_999], "quarantined"),
        ("a whole copy", &whole[..], "reaped"),
    ];
    in_parallel(cases, |(what, later, want)| {
        Sandbox::for_each_user(|sandbox| {
            sandbox.write(temp(), &whole);
            sandbox.age(AGE);
            sandbox.write("t", later);
            assert_eq!(sweep_result(&sandbox, &temp()), want, "{what}");
        });
    });
}

/// The empty file may be a flag or a lock. Only a random name or a target shows that it is not.
#[test]
fn an_empty_temp_with_a_fixed_name_is_moved() {
    let fresh = temp();
    let cases = [
        ("maintenance.tmp", None, "quarantined"),
        ("maintenance.tmp", Some("on"), "reaped"),
        ("maintenance.tmp", Some(""), "quarantined"),
        ("maintenance.202411.tmp", None, "quarantined"),
        ("maintenance.4194304.tmp", None, "reaped"),
        (fresh.as_str(), None, "reaped"),
    ];
    in_parallel(cases, |(name, target, want)| {
        Sandbox::for_each_user(|sandbox| {
            sandbox.write(name, "");
            if let Some(content) = target {
                sandbox.write("maintenance", content);
            }
            assert_eq!(sweep_result(&sandbox, name), want, "{name} {target:?}");
        });
    });
}

/// The grace of fixed names applies only to files with content.
#[test]
fn an_empty_temp_does_not_wait_for_the_grace_of_fixed_names() {
    Sandbox::for_each_user(|sandbox| {
        let config = "[defaults]\ngrace = \"100ms\"\nfixed_name_grace = \"1h\"\n";
        sandbox.write("../config/orphand/config.toml", config);
        for target in ["empty", "full"] {
            sandbox.write(target, "content");
        }
        sandbox.write("empty.tmp", "");
        sandbox.write("full.tmp", "more content");
        sandbox.age(AGE);
        let events = sandbox.sweep([] as [&str; 0]).events();
        assert_eq!(events.about("empty.tmp"), ["reaped"]);
        assert_eq!(events.about("full.tmp"), ["kept young"]);

        let mut watch = sandbox.watch([] as [&str; 0]).ready();
        sandbox.write("empty.tmp", "");
        watch.wait_for(is("reaped", "empty.tmp"));
        watch.stop().exit(0);
        assert!(sandbox.has("full.tmp"));
    });
}

/// A symlink counts if it leads to a file that counts, through symlinks of the owner or of root only.
#[test]
fn a_symlink_to_a_good_file_counts() {
    check(&[
        (
            "to a file beside it",
            |t| {
                write(&t.with_file_name("real"), vec![b'y'; 20_000]);
                symlink("real", t).unwrap();
            },
            "reaped",
            "exists and has content",
        ),
        (
            "through a folder and another symlink",
            |t| {
                let below = t.with_file_name("below");
                let _ = fs::create_dir(&below);
                write(&below.join("real"), vec![b'y'; 20_000]);
                let _ = fs::remove_file(t.with_file_name("further"));
                symlink("below/../below/real", t.with_file_name("further")).unwrap();
                symlink("further", t).unwrap();
            },
            "reaped",
            "exists and has content",
        ),
        (
            // An older version of the data, which was restored for the program.
            "to an older file with less data",
            |t| {
                write(&t.with_file_name("real"), vec![b'y'; 15_000]);
                symlink("real", t).unwrap();
            },
            "quarantined",
            "has less data, and is not older",
        ),
        (
            "to nothing",
            |t| symlink("missing", t).unwrap(),
            "quarantined",
            "is a symlink that leads to nothing",
        ),
        (
            "to itself",
            |t| symlink("t", t).unwrap(),
            "quarantined",
            "is a symlink that leads to nothing",
        ),
        (
            "to a short file",
            |t| {
                write(&t.with_file_name("real"), "{}");
                symlink("real", t).unwrap();
            },
            "quarantined",
            "less than a sixteenth",
        ),
        (
            "to a directory",
            |t| symlink(".", t).unwrap(),
            "quarantined",
            "is a directory",
        ),
        (
            "to the temp itself",
            |t| symlink(temp(), t).unwrap(),
            "quarantined",
            "is a symlink to another temp",
        ),
        (
            "to another mount",
            |t| symlink("/proc/version", t).unwrap(),
            "quarantined",
            match cfg!(target_os = "linux") {
                true => "is a symlink to another mount",
                false => "is a symlink",
            },
        ),
        (
            "to another temp",
            |t| {
                write(&t.with_file_name("other.tmp"), vec![b'y'; 20_000]);
                symlink("other.tmp", t).unwrap();
            },
            "quarantined",
            "is a symlink to another temp",
        ),
        (
            "through a folder that others can write",
            |t| {
                let below = t.with_file_name("open");
                let _ = fs::create_dir(&below);
                fs::set_permissions(&below, fs::Permissions::from_mode(0o777)).unwrap();
                write(&below.join("real"), vec![b'y'; 20_000]);
                symlink("open/real", t).unwrap();
            },
            "quarantined",
            "a directory that other users can write",
        ),
    ]);
}

/// Only root can create a symlink of another user.
#[test]
fn a_symlink_of_another_user_does_not_count() {
    const STRANGER: u32 = 64_321;
    if !is_root() {
        return eprintln!("not root: skipped");
    }
    Sandbox::for_each_user(|sandbox| {
        let (name, link) = (temp(), sandbox.path("t"));
        sandbox.write("real", vec![b'y'; 20_000]);
        symlink("real", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(STRANGER), Some(STRANGER)).unwrap();
        sandbox.age(AGE);
        sandbox.write(&name, vec![b'x'; 20_000]);
        let evidence = explain_evidence(&sandbox, &name);
        assert!(evidence.contains("a symlink of another user"), "{evidence}");
        assert_eq!(sweep_result(&sandbox, &name), "quarantined");
    });
}

/// A sparse file uses less space than its length, and its removal frees no more.
#[test]
fn a_sparse_temp_frees_only_its_blocks() {
    Sandbox::for_each_user(|sandbox| {
        let (name, long) = (temp(), 50_000 * MIB);
        sandbox.write("t", vec![b'y'; 1 << 20]);
        sandbox.age(AGE);
        let file = file_of_length(&sandbox.path(&name), long);
        file.write_all_at(b"x", 0).unwrap();
        drop(file);
        sandbox.chown_to_user(&sandbox.path(&name));
        sandbox.age(AGE);
        let total = &sandbox.scan(["--grace", GRACE]).exit(0).stdout_json()["total"];
        assert_eq!(total["orphan_bytes"], long);
        assert!(
            total["orphan_disk_bytes"].as_u64().unwrap() <= MIB,
            "{total}"
        );
        let ran = sandbox
            .run(["sweep", "--yes", "--grace", GRACE, "root"])
            .exit(0);
        let output = &ran.stdout;
        assert!(
            output.contains("1 removed") && !output.contains("GB freed"),
            "{output}"
        );

        let file = file_of_length(&sandbox.path(&name), long);
        file.write_all_at(b"x", 0).unwrap();
        drop(file);
        sandbox.chown_to_user(&sandbox.path(&name));
        sandbox.age(AGE);
        let events = sandbox.sweep(["--grace", GRACE]).events();
        let reaped = events.one("reaped");
        assert_eq!(reaped["bytes"], long);
        assert!(reaped["disk_bytes"].as_u64().unwrap() <= MIB, "{reaped}");
        assert_eq!(events.summary()["disk_bytes"], reaped["disk_bytes"]);
    });
}

/// A number in a name is the pid of the writer only if that process can have written the file.
#[cfg(target_os = "linux")]
#[test]
fn a_pid_counts_only_for_a_possible_writer() {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    const STRANGER: u32 = 64_322;
    if !is_root() {
        return eprintln!("not root: skipped");
    }
    let process = |uid: u32| {
        let mut command = Command::new("sleep");
        command.arg("600").uid(uid).gid(uid);
        start_with_plain_pid(&mut command)
    };
    let [root, stranger, nobody] = [0, STRANGER, NOBODY].map(process);
    let is_there = |pid: u32| Path::new(&format!("/proc/{pid}/stat")).exists();
    let is_kernels =
        |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty());
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    let mut rows = vec![
        (root.id(), NOBODY, "kept writer-alive"),
        (root.id(), 0, "kept writer-alive"),
        (nobody.id(), NOBODY, "kept writer-alive"),
        // Each may have dropped root privileges since, or changed the owner of the file.
        (nobody.id(), 0, "kept writer-alive"),
        (stranger.id(), NOBODY, "kept writer-alive"),
    ];
    if is_there(2) && is_kernels(2) {
        rows.push((2, 0, "reaped"));
    }
    if own == Path::new("pid:[4026531836]") {
        rows.push((1, 0, "reaped"));
    }
    let sandbox = Sandbox::new();
    sandbox.write("t", "whole, to the last byte of it");
    for (pid, owner, want) in rows {
        let name = format!("t.{pid}.{UUID}.tmp");
        sandbox.write(&name, "old");
        let path = sandbox.path(&name);
        std::os::unix::fs::lchown(&path, Some(owner), Some(owner)).unwrap();
        std::os::unix::fs::lchown(sandbox.path("t"), Some(owner), Some(owner)).unwrap();
        assert_eq!(
            sweep_result(&sandbox, &name),
            want,
            "pid {pid}, owner {owner}"
        );
        let _ = fs::remove_file(path);
    }
    for mut process in [root, stranger, nobody] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// A file whose name is that of the temp without `.tmp`, or is like it, shows that the target may be longer. Then both
/// targets must count.
#[test]
fn another_file_shows_that_a_uuid_belongs_to_the_target() {
    const OTHER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    const WHOLE: &str = "whole, and longer than the temp";
    let pid = 4_194_304;
    // The target by the grammar, the other file with its content, and the temp without `.tmp`.
    let rows = [
        ("app", "unrelated", "", "app.U", "reaped"),
        ("app", "app.U", "", "app.U", "quarantined"),
        ("app", "app.U", WHOLE, "app.U", "reaped"),
        ("", "app.U", WHOLE, "app.U", "quarantined"),
        ("app", "app.V", "", "app.U", "quarantined"),
        ("app", "app.V", "", "app.PID.U", "quarantined"),
        ("app", "app.7.V", "", "app.PID.U", "quarantined"),
        ("app.PID", "app.7.V", "", "app.PID.U", "quarantined"),
        ("app.U", "app.V.V", "", "app.U.U", "quarantined"),
        ("app", "app.PID.U", "", "app.PID.U", "quarantined"),
        (".app", ".app.U", "", ".app.U", "quarantined"),
        ("app", "other.U", "", "app.U", "reaped"),
        // By the grammar of a writer that is on.
        (
            "sessions.json",
            "unrelated",
            "",
            "sessions.json.PID.U",
            "reaped",
        ),
        (
            "sessions.json",
            "sessions.json.V",
            "",
            "sessions.json.U",
            "reaped",
        ),
        (
            "sessions.json",
            "sessions.json.V",
            "",
            "sessions.json.PID.U",
            "reaped",
        ),
        (
            "sessions.json",
            "sessions.json.U",
            "",
            "sessions.json.U",
            "quarantined",
        ),
        (
            "",
            "sessions.json.U",
            WHOLE,
            "sessions.json.U",
            "quarantined",
        ),
        (
            "sessions.json",
            "sessions.json.2024",
            "",
            "sessions.json.2024.U",
            "quarantined",
        ),
        (
            "sessions.json",
            "sessions.json.PID",
            "",
            "sessions.json.PID.U",
            "quarantined",
        ),
        ("x", "unrelated", "", "x.repair.PID.U", "reaped"),
        ("x", "x.V", "", "x.repair.PID.U", "reaped"),
        ("x", "x.repair", "", "x.repair.PID.U", "quarantined"),
        ("x", "x.repair", "", "x.repair.2024.U", "quarantined"),
        ("x", "x.repair", WHOLE, "x.repair.PID.U", "reaped"),
        ("", "x.repair", WHOLE, "x.repair.PID.U", "quarantined"),
    ];
    for (target, beside, content, temp, want) in rows {
        let name = |name: &str| {
            let name = name.replace("PID", &pid.to_string());
            name.replace('U', UUID).replace('V', OTHER)
        };
        let (beside, temp) = (name(beside), format!("{}.tmp", name(temp)));
        let mut sandbox = Sandbox::new();
        if !target.is_empty() {
            sandbox = sandbox.file(name(target), WHOLE);
        }
        let sandbox = sandbox.file(&beside, content).file(&temp, "new content");
        let result = sweep_result(&sandbox, &temp);
        assert_eq!(
            result, want,
            "{temp} beside {target} and {beside} {content:?}"
        );
    }
}

/// Digits before a uuid are the end of the target's name if they look like a date, or if the name of another
/// file ends like that.
#[test]
fn digits_before_a_uuid_may_belong_to_the_target() {
    const OTHER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for (number, beside, want) in [
        ("4194304", "unrelated", "reaped"),
        ("2024", "unrelated", "quarantined"),
        ("202411", "unrelated", "quarantined"),
        ("4194304", "metrics.4194303", "quarantined"),
        ("4194304", "metrics.4194303.1", "quarantined"),
        ("4194304", &format!("metrics.{OTHER}"), "quarantined"),
        ("4194304", "other.4194303", "reaped"),
    ] {
        let sandbox = Sandbox::new()
            .file("metrics", "the metrics of another year")
            .file(beside, "x")
            .file(format!("metrics.{number}.{UUID}.tmp"), "new metrics");
        let name = format!("metrics.{number}.{UUID}.tmp");
        assert_eq!(
            sweep_result(&sandbox, &name),
            want,
            "{number} beside {beside}"
        );
    }
}

/// A file that only a glob of the rule matches may be a target too, so it shows how targets end.
#[test]
fn a_file_of_a_glob_shows_that_digits_belong_to_the_target() {
    for (glob, want) in [("metrics.[0-9]*", "quarantined"), ("other", "quarantined")] {
        let temp = format!("metrics.4194304.{UUID}.tmp");
        let sandbox = Sandbox::new()
            .file("metrics", "the metrics of another year")
            .file("metrics.4194303", "old")
            .file(&temp, "new metrics");
        sandbox.age(AGE);
        let options = ["--grace", GRACE, "--name", "*.tmp", "--name", glob];
        let events = sandbox.sweep(options).events();
        assert_eq!(events.about(&temp), [want], "{glob}: {events:?}");
    }
}

/// Names that a person may have chosen: a date or a word at the place of the random part.
#[test]
fn dates_and_words_are_not_random() {
    for (writer, temp) in [
        ("atomically", "notes.tmp-1764612345123456"),
        ("atomically", "notes.tmp-2026120110150042"),
        ("pnpm", "notes.tmp-2026-11-30"),
        ("romp", "notes.tmp.2026.11.30"),
        ("nanotune", "notes.tmp-2026"),
        ("nix", "notes.tmp.2026.11"),
        ("redis-config", "notes.tmp-2026-11"),
        ("ccache", "notes.tmp.Backup"),
        ("ccache", "notes.tmp.sha256"),
        ("git-info", "refs_GitHub"),
        ("git-info", "packs_oldBox"),
    ] {
        let sandbox = Sandbox::new()
            .file("notes", "the notes of today, which are long enough")
            .file(temp, "other notes");
        sandbox.age(AGE);
        let events = sandbox
            .sweep(["--grace", GRACE, "--writer", writer])
            .events();
        assert_eq!(events.about(temp), ["quarantined"], "{temp}");
    }
}

/// A pid that follows the target after another separator than a dot, or none, may be a part of the target's name too.
#[test]
fn a_pid_after_any_separator_may_belong_to_the_target() {
    for (pattern, temp) in [
        ("<t>-<pid>.tmp", "report-2024.tmp".to_owned()),
        ("<t>-<pid>.tmp", "report-4194304.tmp".to_owned()),
        ("<t><pid>.tmp", "report2024.tmp".to_owned()),
        ("<t>-<pid>-<uuid>.tmp", format!("report-2024-{UUID}.tmp")),
    ] {
        let config = format!("[[writer]]\nname = \"own\"\npatterns = [\"{pattern}\"]\n");
        let sandbox = Sandbox::new()
            .file("report", "the report of all years, which is long enough")
            .file(&temp, "the report of one year");
        let path = sandbox.base().join("own.toml");
        fs::write(&path, config).unwrap();
        sandbox.age(AGE);
        let path = path.to_str().unwrap();
        let options = ["--grace", GRACE, "--config", path, "--writer", "own"];
        let events = sandbox.sweep(options).events();
        assert_eq!(events.about(&temp), ["quarantined"], "{pattern} {temp}");
    }
}

/// Another user may give a file of the temp's owner the name of the target.
#[test]
fn a_hard_link_counts_only_where_no_other_user_can_make_it() {
    let temp = temp();
    for (mode, want) in [(0o755, "reaped"), (0o775, "quarantined")] {
        let sandbox = Sandbox::new()
            .file("shared.log", "lines which are long enough, and much longer")
            .file(&temp, "new content");
        fs::hard_link(sandbox.path("shared.log"), sandbox.path("t")).unwrap();
        fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(sweep_result(&sandbox, &temp), want, "{mode:o}");
    }
}
