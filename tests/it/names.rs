//! Names: their effect on terminals, the writers and targets in them, and names of things that are not files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::sandbox::is_root;
use crate::sandbox::{
    CommandResult, Sandbox, StartChild, dead_pid, fifo, in_parallel, live_pid, name,
    start_with_plain_pid,
};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// Names that would affect a terminal, or a program that misreads them.
fn names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        "new\nline",
        "\x1b[2Jcleared",
        "\x1b]0;title\x07",
        "carriage\rreturn",
        "bell\x07",
        "tab\there",
        "rtl\u{202e}cba",
        "c1\u{9b}31m",
        "zero\u{200b}width",
        "line\u{2028}separator",
        "back\\slash",
        "quote\"'`",
        " space ",
        "$(touch pwned)",
        "-rf",
        "--yes",
        "*",
        "größe",
        "{}",
        "%s%n",
    ]
    .map(OsString::from)
    .to_vec();
    // The longest possible name, with its suffix.
    names.push("x".repeat(251).into());
    // APFS accepts no name that is not UTF-8.
    #[cfg(target_os = "linux")]
    for name in [
        &b"caf\xe9"[..],
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"cut\xe2\x82",
    ] {
        names.push(crate::sandbox::name_from_bytes(name));
    }
    names
}

fn temp(target: &OsString) -> OsString {
    let mut temp = target.clone();
    temp.push(".tmp");
    temp
}

/// Asserts that no character moves a cursor, hides text or reverses it.
#[track_caller]
fn assert_harmless(text: &str) {
    let harmful = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200b}' | '\u{202e}' | '\u{2028}' | '\u{2029}')
    };
    let found: Vec<char> = text.chars().filter(harmful).collect();
    assert!(found.is_empty(), "{found:?} raw in {text:?}");
}

#[track_caller]
fn with_harmless_output(ran: CommandResult) -> CommandResult {
    assert_harmless(&ran.stdout);
    assert_harmless(&ran.stderr);
    ran
}

#[test]
fn every_name_is_swept_and_printed_escaped() {
    let names = names();
    let sandbox = Sandbox::new();
    for target in &names {
        sandbox.write(target, "whole, to the last byte of it");
        sandbox.write(temp(target), "x");
    }
    let sandbox = sandbox.aged(OLD_ENOUGH);
    let count = names.len();

    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    assert_eq!(scan["total"]["orphans"], count);
    for stored in scan["temps"].as_array().unwrap() {
        // The path itself, or its bytes, lead to the file.
        let path: OsString = match stored.get("path_b64") {
            Some(bytes) => crate::sandbox::name_from_bytes(&crate::contract::decode_base64(
                bytes.as_str().unwrap(),
            )),
            None => stored["path"].as_str().unwrap().into(),
        };
        assert!(Path::new(&path).exists(), "{stored}");
    }
    let list = ["scan", "--list", "--grace", "100ms", "root"];
    let human = with_harmless_output(sandbox.run(list).exit(0));
    assert_eq!(
        human.stdout.lines().count(),
        count + 1,
        "a line each: {}",
        human.stdout
    );
    for target in &names {
        let path = sandbox.path(temp(target));
        let ran = sandbox.run(["explain".as_ref(), "--".as_ref(), path.as_os_str()]);
        with_harmless_output(ran.exit(0));
    }
    let dry = with_harmless_output(
        sandbox
            .run(["sweep", "-n", "--grace", "100ms", "root"])
            .exit(0),
    );
    assert!(dry.stdout.lines().count() > count);
    // One half is swept with human output, the other with JSON.
    let (first, second) = names.split_at(count / 2);
    for target in second {
        fs::rename(
            sandbox.path(temp(target)),
            sandbox.base().join(temp(target)),
        )
        .unwrap();
    }
    sandbox.age(OLD_ENOUGH);
    with_harmless_output(
        sandbox
            .run(["sweep", "--yes", "--grace", "100ms", "root"])
            .exit(0),
    );
    for target in second {
        fs::rename(
            sandbox.base().join(temp(target)),
            sandbox.path(temp(target)),
        )
        .unwrap();
    }
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.sums(), [second.len() as u64, 0, 0, 0]);
    assert_eq!(
        sandbox.listing().len(),
        count,
        "the targets, and nothing else"
    );
    for target in first.iter().chain(second) {
        assert_eq!(sandbox.content(target), "whole, to the last byte of it");
    }
    with_harmless_output(sandbox.run(["history"]).exit(0));
    let history = sandbox.run(["history", "--json"]).exit(0).events();
    assert_eq!(history.0.len(), count);
}

/// Files of every name can be quarantined, listed, restored and purged.
#[test]
fn every_name_can_be_quarantined_and_restored() {
    let sandbox = Sandbox::new();
    let names = names();
    for target in &names {
        sandbox.write(temp(target), target.as_encoded_bytes());
    }
    let sandbox = sandbox.aged(OLD_ENOUGH);
    let ran = with_harmless_output(
        sandbox
            .run(["sweep", "--yes", "--grace", "100ms", "root"])
            .exit(0),
    );
    assert_harmless(&ran.stdout);
    assert_eq!(sandbox.listing(), [".orphand"]);
    with_harmless_output(sandbox.run(["quarantine", "list"]).exit(0));
    let half = names.len() / 2;
    for target in &names[..half] {
        let path = sandbox.path(temp(target));
        let ran = sandbox.run(["restore".as_ref(), "--".as_ref(), path.as_os_str()]);
        with_harmless_output(ran.exit(0));
        assert_eq!(fs::read(path).unwrap(), target.as_encoded_bytes());
    }
    with_harmless_output(sandbox.run(["quarantine", "purge", "--yes"]).exit(0));
    assert_eq!(sandbox.listing().len(), half);
}

#[test]
fn a_watcher_escapes_names() {
    let sandbox = Sandbox::new();
    let command = sandbox.command(["watch", "--grace", "200ms", "-v", "root"]);
    let mut child = { command }.start_child().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let names = names();
    let mut seen = String::new();
    let mut round = 0;
    // Its watch may not be set yet: then the first scan finds them.
    for target in &names {
        // The longest name leaves no more room.
        let length = target.len().min(243);
        let mut random = crate::sandbox::name_from_bytes(&target.as_encoded_bytes()[..length]);
        random.push(".4194304");
        sandbox.write(temp(&random), "");
    }
    while round < names.len() {
        let mut line = String::new();
        assert!(
            std::io::BufRead::read_line(&mut stdout, &mut line).unwrap() > 0,
            "{seen}"
        );
        round += usize::from(line.contains("removed"));
        seen.push_str(&line);
    }
    crate::sandbox::signal(child.id(), libc::SIGTERM);
    let ended = child.wait_with_output().unwrap();
    assert_harmless(&seen);
    assert_harmless(&String::from_utf8(ended.stderr).unwrap());
    assert_eq!(sandbox.listing(), [""; 0]);
}

/// Names in error messages are escaped too.
#[test]
fn error_messages_escape_names() {
    let sandbox = Sandbox::new().file("../\x1b[2Jfile", "");
    sandbox.make_dir("../\x1b[2Jdir");
    symlink("root", sandbox.base().join("\x1b[2Jlink")).unwrap();
    for (args, exit) in [
        (["scan", "\x1b[2Jmissing"], 1),
        (["scan", "\x1b[2Jfile"], 2),
        (["explain", "\x1b[2Jmissing"], 1),
        (["explain", "\x1b[2Jdir"], 2),
        (["restore", "\x1b[2Jmissing"], 1),
        (["watch", "\x1b[2Jlink"], 2),
        (["watch", "\x1b[2Jfile"], 2),
    ] {
        with_harmless_output(sandbox.run(args).exit(exit).prints_nothing());
    }
    for args in [
        ["sweep", "-n", "\x1b[2Jmissing"],
        ["sweep", "-n", "\x1b[2Jlink"],
    ] {
        with_harmless_output(sandbox.run(args));
    }
}

/// Creates devices that do nothing: /dev/null, and a loop device that does not exist.
// Linux only: the device numbers are those of Linux.
#[cfg(target_os = "linux")]
fn create_devices(sandbox: &Sandbox) -> Vec<&'static str> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    if !is_root() {
        eprintln!("not root: no devices");
        return Vec::new();
    }
    let mode = Mode::from_raw_mode(0o600);
    let (char, block) = ("char.tmp", "block.tmp");
    let null = makedev(1, 3);
    mknodat(
        CWD,
        sandbox.path(char),
        FileType::CharacterDevice,
        mode,
        null,
    )
    .unwrap();
    mknodat(
        CWD,
        sandbox.path(block),
        FileType::BlockDevice,
        mode,
        makedev(7, 255),
    )
    .unwrap();
    vec![char, block]
}

#[cfg(not(target_os = "linux"))]
fn create_devices(_: &Sandbox) -> Vec<&'static str> {
    Vec::new()
}

/// A name that matches `*.tmp` but is no regular file is not even opened.
#[test]
fn only_regular_files_are_touched() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("../outside", "whole, to the last byte of it")
            .file("dir.tmp/inside", "x");
        fifo(&sandbox.path("fifo.tmp"));
        let _socket = UnixListener::bind(sandbox.path("socket.tmp")).unwrap();
        symlink("../outside", sandbox.path("link.tmp")).unwrap();
        symlink("nowhere", sandbox.path("dangling.tmp")).unwrap();
        symlink("loop.tmp", sandbox.path("loop.tmp")).unwrap();
        let links = ["link.tmp", "dangling.tmp", "loop.tmp"];
        let mut special = vec!["fifo.tmp", "socket.tmp", "dir.tmp"];
        special.extend(links);
        special.extend(create_devices(&sandbox));
        for name in &special {
            sandbox.chown_to_user(&sandbox.path(name));
        }
        sandbox.age(OLD_ENOUGH);
        let before = sandbox.snapshot();

        let scan = sandbox
            .scan(SHORT.iter().chain(&["-r"]))
            .exit(0)
            .stdout_json();
        assert_eq!(scan["temps"], serde_json::json!([]), "they are no temps");
        let events = sandbox
            .sweep(SHORT.iter().chain(&["-r", "-n"]))
            .exit(0)
            .events();
        assert_eq!(events.0.len(), 1, "{events:?}");
        for name in special.iter().filter(|name| **name != "dir.tmp") {
            sandbox
                .run(["explain", &format!("root/{name}")])
                .exit(0)
                .stdout_has("not-regular");
        }
        assert_eq!(sandbox.snapshot(), before);
        sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0);
        let mut watching = sandbox.watch(["--grace", "200ms", "-r"]).ready();
        // The same while it watches.
        fifo(&sandbox.path("later.tmp"));
        symlink("../outside", sandbox.path("later-link.tmp")).unwrap();
        sandbox.make_dir("later-dir.tmp");
        watching.wait_for_sentinel(&sandbox);
        watching.wait_for_sentinel(&sandbox);
        let stopped = watching.stop().exit(0);
        assert_eq!(
            stopped.events.names("reaped"),
            [
                "sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
                "sentinel-2.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp"
            ]
        );
        assert_eq!(stopped.events.sums(), [2, 0, 0, 0]);
        for name in special
            .iter()
            .chain(&["later.tmp", "later-link.tmp", "later-dir.tmp"])
        {
            assert!(sandbox.has(name), "{name}");
        }
        assert!(
            fs::symlink_metadata(sandbox.path("fifo.tmp"))
                .unwrap()
                .file_type()
                .is_fifo()
        );
        assert_eq!(
            sandbox.content("../outside"),
            "whole, to the last byte of it"
        );
        assert_eq!(sandbox.content("dir.tmp/inside"), "x");
    });
}

/// The meaning of the digits in a name, for each grammar.
#[test]
fn names_give_pids_and_targets() {
    const UUID: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
    let (live, dead) = (live_pid(), dead_pid());
    let cases = [
        // The pid is where the grammar expects it, and that process is running.
        (
            format!("a.{live}.{UUID}.tmp"),
            "x",
            "kept writer-alive",
            None,
            None,
        ),
        (
            format!(".a.{live}.{UUID}.tmp"),
            "x",
            "kept writer-alive",
            None,
            None,
        ),
        (
            format!("a.{live}.tmp"),
            "x",
            "kept writer-alive",
            None,
            None,
        ),
        (
            format!("a.{live}.7.tmp"),
            "x",
            "kept writer-alive",
            None,
            None,
        ),
        (format!("a.{live}.tmp"), "", "kept writer-alive", None, None),
        // That process has ended.
        (
            format!("a.{dead}.{UUID}.tmp"),
            "x",
            "reaped",
            Some("a".to_owned()),
            Some(dead),
        ),
        (
            format!(".a.{dead}.{UUID}.tmp"),
            "x",
            "reaped",
            Some("a".to_owned()),
            Some(dead),
        ),
        (
            format!("a.{UUID}.tmp"),
            "x",
            "reaped",
            Some("a".to_owned()),
            None,
        ),
        // A leading dot may belong to the target.
        (
            format!(".hidden.{UUID}.tmp"),
            "x",
            "reaped",
            Some(".hidden".to_owned()),
            None,
        ),
        (
            ".hidden.tmp".to_owned(),
            "x",
            "reaped",
            Some(".hidden".to_owned()),
            None,
        ),
        // Digits without a uuid may be a pid or the end of the target's name: the longest target
        // decides whether this is the only copy.
        (
            format!("a.{dead}.tmp"),
            "x",
            "quarantined",
            Some(format!("a.{dead}")),
            None,
        ),
        (
            format!("a.{dead}.7.tmp"),
            "x",
            "quarantined",
            Some(format!("a.{dead}.7")),
            None,
        ),
        (format!("a.{dead}.tmp"), "", "reaped", None, None),
        (
            "report.2024.1.tmp".to_owned(),
            "x",
            "quarantined",
            Some("report.2024.1".to_owned()),
            None,
        ),
        (
            "report.99999999.tmp".to_owned(),
            "x",
            "quarantined",
            Some("report.99999999".to_owned()),
            None,
        ),
        (
            "report.0123.tmp".to_owned(),
            "x",
            "quarantined",
            Some("report.0123".to_owned()),
            None,
        ),
        // No pid.
        (
            "a.tmp".to_owned(),
            "x",
            "reaped",
            Some("a".to_owned()),
            None,
        ),
        (
            "a.b.tmp".to_owned(),
            "x",
            "quarantined",
            Some("a.b".to_owned()),
            None,
        ),
    ];
    in_parallel(cases, |(temp, content, result, target, pid)| {
        let sandbox = Sandbox::new()
            .file("a", "whole, to the last byte of it")
            .file("report", "whole, to the last byte of it")
            .file(".hidden", "whole, to the last byte of it")
            .file("hidden", "whole, to the last byte of it")
            .file(&temp, content)
            .aged(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.about(&temp), [result], "{temp} with {content:?}");
        let event = events.0.iter().find(|event| name(event) == temp).unwrap();
        if let Some(target) = target {
            assert_eq!(
                event["target"],
                sandbox.path(target).to_str().unwrap(),
                "{temp}"
            );
        }
        if let Some(pid) = pid {
            assert_eq!(event["writer_pid"], pid, "{temp}");
        }
        for whole in ["a", "report", ".hidden", "hidden"] {
            assert_eq!(sandbox.content(whole), "whole, to the last byte of it");
        }
    });
}

/// `report.2024.tmp` beside `report` may be the new `report.2024`.
#[test]
fn a_year_in_a_name_is_not_a_pid() {
    // Each of these may be the pid of a running process: then the temp is kept for that reason.
    for year in ["1987", "1999", "2024", "2055"] {
        let temp = format!("report.{year}.tmp");
        let sandbox = Sandbox::new()
            .file("report", "whole, to the last byte of it")
            .file(&temp, "x")
            .aged(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(sandbox.content("report"), "whole, to the last byte of it");
        match events.about(&temp).as_slice() {
            [kept] if kept == "kept writer-alive" => {}
            result => return assert_eq!(result, ["quarantined"]),
        }
    }
    panic!("a process is running for each of these years");
}

/// A zombie writes nothing.
#[test]
fn a_zombie_writer_counts_as_ended() {
    let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
    let mut sleep = std::process::Command::new("sleep");
    let mut child = start_with_plain_pid(sleep.arg("1000"));
    let temp = format!("a.{}.1b4e28ba-2fa1-11d2-883f-0016d3cca427.tmp", child.id());
    sandbox.write(&temp, "x");
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    watching.wait_for(crate::sandbox::kept(&temp, "writer-alive"));
    child.kill().unwrap();
    watching.wait_for(crate::sandbox::is("reaped", &temp));
    child.wait().unwrap();
    watching.stop().exit(0);
}

/// Names that `*.tmp` matches but must not take unless they are given explicitly.
#[test]
fn names_that_the_default_leaves_out_are_ignored() {
    let left = [
        ".tmp",
        "0.tmp",
        "1.tmp",
        "000123.tmp",
        ".syncthing.x.tmp",
        ".syncthing..tmp",
    ];
    let mut sandbox = Sandbox::new().file("x.4194304.tmp", "");
    for name in left {
        sandbox = sandbox.file(name, "x");
    }
    let sandbox = sandbox.aged(OLD_ENOUGH);
    for names in [
        &[][..],
        &["--name", "*.tmp"],
        &["--name", "*", "--allow-broad-name"],
        &["--name", "*.t*"],
    ] {
        let scan = sandbox
            .scan(SHORT.iter().chain(names))
            .exit(0)
            .stdout_json();
        let listed: Vec<&str> = scan["temps"].as_array().unwrap().iter().map(name).collect();
        assert_eq!(listed, ["x.4194304.tmp"], "{names:?}");
    }
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    sandbox.write("2.tmp", "");
    watching.wait_for_sentinel(&sandbox);
    let stopped = watching.stop().exit(0);
    assert_eq!(
        stopped.events.names("reaped"),
        [
            "sentinel-1.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp",
            "x.4194304.tmp"
        ]
    );
    for name in left.iter().chain(&["2.tmp"]) {
        assert!(sandbox.has(name), "{name}");
    }
    // Given explicitly, they are temps like any other.
    let scan = sandbox
        .scan(SHORT.iter().chain(&["--name", "[0-9]*.tmp"]))
        .exit(0)
        .stdout_json();
    assert_eq!(scan["total"]["temps"], 4);
}

#[test]
fn names_replace_the_default() {
    let sandbox = Sandbox::new()
        .file("a.tmp", "")
        .file("b.part", "")
        .file("c.partly", "")
        .aged(OLD_ENOUGH);
    let args = SHORT
        .iter()
        .chain(&["--name", "*.part", "--name", "*.partly"]);
    let events = sandbox.sweep(args).exit(0).events();
    // Their kind is unknown, so they are moved.
    assert_eq!(events.names("quarantined"), ["b.part", "c.partly"]);
    assert_eq!(sandbox.listing(), [".orphand", "a.tmp"]);
}

/// `bashrc` and `.bashrc` have temps of the same name. The temp may be the only copy of either.
#[test]
fn every_target_of_a_shared_name_counts() {
    let temp = ".bashrc.wdAdVS";
    for (present, result) in [
        (&["bashrc", ".bashrc"][..], "reaped"),
        (&["bashrc"], "quarantined"),
        (&[".bashrc"], "quarantined"),
        (&[], "quarantined"),
    ] {
        let mut sandbox = Sandbox::new().file(temp, "x");
        for name in present {
            sandbox = sandbox.file(name, "whole, to the last byte of it");
        }
        let sandbox = sandbox.aged(OLD_ENOUGH);
        let args = SHORT.iter().chain(&["--writer", "rsync"]);
        let events = sandbox.sweep(args).exit(0).events();
        assert_eq!(events.about(temp), [result], "{present:?}");
    }
}

/// Each name is that of a file that a person or a program needs, although a shorter name beside it is whole. None is
/// removed, by the default names and by the writer whose pattern is the most similar.
#[test]
fn ordinary_names_are_not_removed() {
    for (name, shorter, writer, results) in [
        (
            "notes.markdown.tmp",
            "notes",
            "python-suffix",
            ["quarantined"; 2],
        ),
        (
            "app.settings.tmp",
            "app",
            "python-suffix",
            ["quarantined"; 2],
        ),
        (
            "log.20261129.tmp",
            "log",
            "python-suffix",
            ["quarantined"; 2],
        ),
        (
            "app.version2.tmp",
            "app",
            "python-suffix",
            ["quarantined"; 2],
        ),
        ("main.stable", "main", "glib", ["", ""]),
        ("main.STABLE", "main", "glib", ["", ""]),
        ("notes.latest", "notes", "qt", ["", ""]),
        ("notes.Latest", "notes", "qt", ["", "quarantined"]),
        (
            "app.log.2026112900",
            "app.log",
            "write-file-atomic",
            ["", ""],
        ),
        ("dump.1712345678", "dump", "write-file-atomic", ["", ""]),
        (
            "invoice.741603160",
            "invoice",
            "write-file-atomic",
            ["", "quarantined"],
        ),
        ("lib.so.1", "lib.so", "write-file-atomic", ["", ""]),
        (".config.tmp", "config", "rsync", ["quarantined"; 2]),
        (".bash_history1", "bash_history", "renameio", ["", ""]),
        ("tmp_obj_backup", "tmp_obj", "git", ["", ""]),
    ] {
        let defaults: &[&str] = &[];
        for (args, result) in [defaults, &["--writer", writer]].iter().zip(results) {
            let sandbox = Sandbox::new()
                .file(name, "needed")
                .file(shorter, "whole, to the last byte of it")
                .aged(OLD_ENOUGH);
            let events = sandbox.sweep(SHORT.iter().chain(*args)).exit(0).events();
            let found = events.about(name);
            assert_eq!(
                found.first().map_or("", String::as_str),
                result,
                "{name} {args:?}"
            );
        }
    }
}

/// The writers that are on by default process names that do not end in `.tmp`. Where the writer discards, a temp
/// without a target is removed.
#[test]
fn default_writers_need_no_option() {
    let pid = dead_pid();
    let uuid = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
    for (temp, result, target) in [
        (
            "config.json.tmp-8123456789a1b2c3".to_owned(),
            "reaped",
            Some("config.json"),
        ),
        (
            "other.json.tmp-8123456789a1b2c3".to_owned(),
            "quarantined",
            Some("other.json"),
        ),
        (
            format!("config.json.repair.{pid}.{uuid}.tmp"),
            "reaped",
            Some("config.json"),
        ),
        (
            format!(".fs-safe-replace.{pid}.{uuid}.tmp"),
            "quarantined",
            None,
        ),
        ("tmp_obj_aB3xYz".to_owned(), "reaped", None),
        ("tmp_pack_aB3xYz".to_owned(), "reaped", None),
        ("tmp_idx_aB3xYz".to_owned(), "reaped", None),
        ("tmp_rev_aB3xYz".to_owned(), "reaped", None),
    ] {
        let sandbox = Sandbox::new()
            .file("config.json", "whole, to the last byte of it")
            .file(&temp, "x")
            .aged(OLD_ENOUGH);
        for (args, takes) in [
            (&["--name", "*.part"][..], false),
            (&["-n"], true),
            (&[], true),
        ] {
            let args = SHORT.iter().chain(args);
            let events = sandbox.sweep(args).exit(0).events();
            let found = events.about(&temp);
            assert_eq!(found, if takes { vec![result] } else { vec![] }, "{temp}");
            if takes {
                let target = target.map(|name| sandbox.path(name));
                let target = target.as_deref().and_then(|path| path.to_str());
                assert_eq!(events.one(result)["target"].as_str(), target, "{temp}");
            }
        }
        assert!(!sandbox.has(&temp));
    }
}

/// A person may choose such a name. git's own are in a directory `objects`.
#[test]
fn a_name_that_may_be_a_word_is_discarded_only_in_the_directory_of_the_writer() {
    for (name, in_any) in [
        ("tmp_pack_aB3xYz", true),
        ("tmp_pack_GitHub", false),
        ("tmp_idx_v2test", false),
        ("tmp_obj_3DCube", false),
        ("tmp_rev_MacM1x", false),
    ] {
        for (dir, is_own) in [
            ("objects/incoming/pack", true),
            ("objects/pack", true),
            ("objects", true),
            ("data/pack", false),
        ] {
            let sandbox = Sandbox::new().file(format!("{dir}/{name}"), "x");
            let sandbox = sandbox.aged(OLD_ENOUGH);
            let events = sandbox.sweep(SHORT.iter().chain(&["-r"])).exit(0).events();
            let want = match in_any || is_own {
                true => "reaped",
                false => "quarantined",
            };
            assert_eq!(events.about(name), [want], "{dir}/{name}");
        }
    }
}

/// The grammars of named writers are off until a rule enables them.
#[test]
fn named_writers_are_opt_in() {
    let (live, dead) = (live_pid(), dead_pid());
    for (writer, temp, result, target) in [
        (
            "claude-code",
            format!(".claude.json.tmp.{dead}.0123456789ab"),
            "reaped",
            Some(".claude.json"),
        ),
        (
            "claude-code",
            format!(".claude.json.tmp.{live}.0123456789ab"),
            "kept writer-alive",
            None,
        ),
        (
            "vscode",
            "config.json.vsctmp".to_owned(),
            "reaped",
            Some("config.json"),
        ),
        ("python", "tmpr3tea0ke".to_owned(), "quarantined", None),
        (
            "restic",
            format!("{}-tmp-31", "0123456789abcdef".repeat(4)),
            "reaped",
            None,
        ),
    ] {
        let sandbox = Sandbox::new()
            .file(".claude.json", "whole, to the last byte of it")
            .file("config.json", "whole, to the last byte of it")
            .file(&temp, "x")
            .aged(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.about(&temp), [""; 0], "not without --writer");
        assert!(sandbox.has(&temp));
        let events = sandbox
            .sweep(SHORT.iter().chain(&["--writer", writer]))
            .exit(0)
            .events();
        assert_eq!(events.about(&temp), [result], "{temp}");
        if let Some(target) = target {
            let target = sandbox.path(target);
            assert_eq!(events.one("reaped")["target"], target.to_str().unwrap());
        }
        assert_eq!(
            sandbox.content(".claude.json"),
            "whole, to the last byte of it"
        );
    }
}
