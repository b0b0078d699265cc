//! Names that no pattern takes by accident: reserved names, targets, and temps with a companion file.

use std::fs;
use std::time::Duration;

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::reap::{Outcome, Reaper, Step};

use crate::fixture::*;
use crate::sandbox::{Sandbox, is, kept, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);
const UUID: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

fn with<'a>(some: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [some, more].concat()
}

#[test]
fn a_glob_without_a_literal_character_is_refused() {
    let sandbox = Sandbox::new().file("a", "x").aged(OLD_ENOUGH);
    for glob in ["*", "**", "*.*", "?*", "[a-z]*", "*-_.~"] {
        for args in [
            &["sweep", "--yes", "--name", glob, "root"][..],
            &["scan", "--name", glob, "root"],
            &["watch", "-n", "--name", glob, "root"],
            &["explain", "--name", glob, "root/a"],
        ] {
            let ran = sandbox.run(args).exit(2).prints_nothing();
            ran.stderr_has(glob).stderr_has("--allow-broad-name");
        }
    }
    assert!(sandbox.has("a"));
    // A flag allows it. For the configuration file, `broad_names` has to be in that file.
    let broad = ["--name", "*", "--allow-broad-name"];
    sandbox
        .run(with(&["explain"], &with(&broad, &["root/a"])))
        .exit(0);
    let rows = sandbox.scan(with(&broad, &SHORT)).exit(0).stdout_json();
    assert_eq!(rows["temps"][0]["verdict"], "quarantine");
    let config = sandbox.base().join("config/orphand/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let root = sandbox.root();
    for (more, line) in [("", true), ("broad_names = true", false)] {
        let text = format!("[[watch]]\npath = {root:?}\nnames = ['*.tmp', '*']\n{more}");
        fs::write(&config, text).unwrap();
        let ran = sandbox.run(["config", "check"]);
        match line {
            true => {
                _ = ran
                    .exit(78)
                    .stderr_has(":3:19: ")
                    .stderr_has("broad_names = true")
            }
            false => _ = ran.exit(0),
        }
    }
}

#[test]
fn reserved_names_are_kept_and_explained() {
    let files = [
        "app.db-journal",
        "app.db-wal",
        "a.lock",
        "a.part",
        "a~",
        "CFNetworkDownload_x.tmp",
    ];
    let sandbox = Sandbox::new();
    for file in files {
        sandbox.write(file, "needed");
    }
    sandbox.age(OLD_ENOUGH);
    let broad = [
        "--name",
        "*-journal",
        "--name",
        "app*",
        "--name",
        "a*",
        "--name",
        "*.lock",
        "--name",
        "*.tmp",
    ];
    let rows = sandbox.scan(with(&broad, &SHORT)).exit(0).stdout_json();
    let rows = rows["temps"].as_array().unwrap();
    assert_eq!(rows.len(), files.len(), "{rows:?}");
    for row in rows {
        assert_eq!(
            (&row["verdict"], &row["reason"]),
            (&"keep".into(), &"reserved".into())
        );
    }
    for dry_run in [&["-n"][..], &[]] {
        let events = sandbox
            .sweep(with(&with(&broad, &SHORT), dry_run))
            .exit(0)
            .events();
        for file in files {
            assert_eq!(events.about(file), ["kept reserved"], "{file}");
        }
    }
    assert_eq!(sandbox.listing().len(), files.len());
    let explained = sandbox.run(["explain", "--name", "*-journal", "root/app.db-journal"]);
    explained
        .exit(0)
        .stdout_has("the rollback journal of a database")
        .stdout_has("keep: reserved");
    // The default names as well.
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.names("kept"), ["CFNetworkDownload_x.tmp"]);
    let mut watching = sandbox.watch(with(&broad, &SHORT)).ready();
    watching.wait_for(kept("app.db-journal", "reserved"));
    watching.wait_for(kept("CFNetworkDownload_x.tmp", "reserved"));
    watching.stop();
    assert_eq!(sandbox.listing().len(), files.len());
}

#[test]
fn a_pattern_may_name_a_reserved_file_or_its_ending() {
    let sandbox = Sandbox::new()
        .file("a.lock", "")
        .file("b.lock", "")
        .file("a.part", "x")
        .file("a.backup-x", "x")
        .aged(OLD_ENOUGH);
    let names = [
        "--name",
        "a.lock",
        "--name",
        "*.part",
        "--name",
        "a.backup-*",
    ];
    let sole = ["--sole-copy", "reap"];
    let events = sandbox
        .sweep(with(&with(&names, &sole), &SHORT))
        .exit(0)
        .events();
    assert_eq!(events.names("reaped"), ["a.backup-x", "a.lock", "a.part"]);
    assert_eq!(sandbox.listing(), ["b.lock"]);
}

#[test]
fn the_target_of_another_temp_is_reserved() {
    let temp = format!("sessions.json.{UUID}.tmp");
    for (names, target, other) in [
        (
            &["--name", "sessions.json*"][..],
            "sessions.json",
            temp.as_str(),
        ),
        (
            &["--name", "s*.json", "--name", "*.tmp"],
            "sessions.json",
            &temp,
        ),
        (&[], "x.tmp", "x.tmp.tmp"),
        (&["--name", "*.tm?"], "x.tmp", ".x.tmp.tmp"),
    ] {
        let sandbox = Sandbox::new()
            .file(target, "the last good state")
            .file(other, "half")
            .aged(OLD_ENOUGH);
        let options = with(&with(names, &SHORT), &["--sole-copy", "reap"]);
        let rows = sandbox.scan(&options).exit(0).stdout_json();
        let rows = rows["temps"].as_array().unwrap();
        let row = rows.iter().find(|row| name(row) == target).unwrap();
        assert_eq!(row["reason"], "reserved", "{names:?}");
        let path = format!("root/{target}");
        let explain = with(&with(&["explain"], &options), &[&path]);
        sandbox.run(explain).exit(0).stdout_has("keep: reserved");
        let events = sandbox.sweep(&options).exit(0).events();
        assert_eq!(events.about(target), ["kept reserved"], "{names:?}");
        assert_eq!(events.about(other), ["reaped"], "{names:?}");
        assert_eq!(sandbox.content(target), "the last good state");
    }
}

/// The temp that names the target is removed first, in another batch.
#[test]
fn a_target_stays_reserved_until_the_sweep_ends() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "the last good state")
        .file(".x.tmp.tmp", "half");
    for n in 0..2_000 {
        sandbox.write(format!("m{n:04}.tmp"), "");
    }
    sandbox.age(OLD_ENOUGH);
    let options = with(&SHORT, &["--sole-copy", "reap"]);
    let events = sandbox.sweep(options).exit(0).events();
    assert_eq!(events.about(".x.tmp.tmp"), ["reaped"]);
    assert_eq!(events.about("x.tmp"), ["kept reserved"]);
    assert_eq!(sandbox.listing(), ["x.tmp"]);
}

/// Even after orphand has removed the temp that names the target.
#[test]
fn a_target_stays_reserved_until_the_watch_ends() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "the last good state")
        .file("x.tmp.tmp", "half")
        .aged(OLD_ENOUGH);
    let options = with(&SHORT, &["--sole-copy", "reap"]);
    let mut watching = sandbox.watch(options).ready();
    watching.wait_for(is("reaped", "x.tmp.tmp"));
    watching.wait_for(kept("x.tmp", "reserved"));
    // Several more looks at the file.
    for _ in 0..3 {
        watching.wait_for_sentinel(&sandbox);
    }
    let stopped = watching.stop();
    assert_eq!(stopped.events.about("x.tmp"), ["kept reserved"]);
    assert!(sandbox.has("x.tmp"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_new_name_of_a_renamed_temp_is_reserved() {
    let sandbox = Sandbox::new();
    let options = with(&SHORT, &["--sole-copy", "reap"]);
    let mut watching = sandbox.watch(options).ready();
    sandbox.write("new.tmp", "the next good state");
    fs::rename(sandbox.path("new.tmp"), sandbox.path("data.tmp")).unwrap();
    let event = watching.wait_for(|event| {
        let words = ["kept", "reaped", "quarantined"];
        name(event) == "data.tmp" && words.iter().any(|word| event["event"] == *word)
    });
    assert_eq!(event["reason"], "reserved", "{event}");
    watching.wait_for_sentinel(&sandbox);
    assert_eq!(sandbox.content("data.tmp"), "the next good state");
    // Until that file is removed: another file of this name is a temp like any other.
    fs::remove_file(sandbox.path("data.tmp")).unwrap();
    sandbox.write("data.tmp", "half");
    watching.wait_for(is("reaped", "data.tmp"));
    watching.stop();
}

#[test]
fn a_temp_with_a_companion_is_kept() {
    for ending in ["-wal", "-shm", "-journal"] {
        let companion = format!("cache.tmp{ending}");
        let sandbox = Sandbox::new()
            .file("cache", "whole")
            .file("cache.tmp", "half")
            .file(&companion, "the rest of it")
            .aged(OLD_ENOUGH);
        let rows = sandbox.scan(SHORT).exit(0).stdout_json();
        assert_eq!(rows["temps"][0]["reason"], "reserved", "{ending}");
        let explained = sandbox.run(["explain", "--grace", "100ms", "root/cache.tmp"]);
        explained
            .exit(0)
            .stdout_has(&companion)
            .stdout_has("keep: reserved");
        for dry_run in [&["-n"][..], &[]] {
            let events = sandbox.sweep(with(&SHORT, dry_run)).exit(0).events();
            assert_eq!(events.about("cache.tmp"), ["kept reserved"], "{ending}");
        }
        let mut watching = sandbox.watch(SHORT).ready();
        watching.wait_for(kept("cache.tmp", "reserved"));
        assert!(sandbox.has("cache.tmp") && sandbox.has(&companion));
        // Without its companion it is a temp like any other.
        fs::remove_file(sandbox.path(&companion)).unwrap();
        watching.wait_for(is("reaped", "cache.tmp"));
        watching.stop();
    }
}

/// Both if the directory is listed for companions, and if it is too large for that.
#[test]
fn a_companion_that_appears_puts_the_temp_back() {
    in_own_process(ALL_USERS, || {
        for (step, others, has_target) in Step::ALL.into_iter().flat_map(|step| {
            [(0, true), (0, false), (200, true)].map(|(others, target)| (step, others, target))
        }) {
            let fixture = match has_target {
                true => Fixture::new(),
                false => Fixture::new().with_sole_copy(),
            };
            for n in 0..others {
                fs::write(fixture.dir.join(format!("other-{n}")), "").unwrap();
            }
            let companion = fixture.dir.join(format!("{TEMP}-wal"));
            let at_step = AtStep::new(step, move || {
                fs::write(companion, "the rest of it").unwrap()
            });
            let outcome = fixture.reap_by(&Reaper::new().with_hook(Some(at_step.hook.clone())));
            let what = format!("{step:?} {others} {has_target}");
            match (&outcome, step) {
                (Outcome::Reaped { .. } | Outcome::Quarantined { .. }, Step::Unlink) => {}
                (Outcome::Kept(Reason::Reserved), _) => {
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &what)
                }
                _ => panic!("{what}: {outcome:?}"),
            }
            fixture.assert_no_leftovers(&what);
        }
    });
}

/// A directory with many names is listed once for many looks; the look before the removal checks for itself.
#[test]
fn a_companion_in_a_large_directory_is_found() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        for n in 0..5_000 {
            fs::write(fixture.dir.join(format!("other-{n}")), "").unwrap();
        }
        let companion = fixture.dir.join(format!("{TEMP}-journal"));
        fs::write(&companion, "the rest of it").unwrap();
        let event = fixture.judge(TEMP);
        let is_kept = matches!(
            event,
            Event::Kept {
                reason: Reason::Reserved,
                ..
            }
        );
        assert!(is_kept, "{event:?}");
        fs::remove_file(companion).unwrap();
        let outcome = fixture.reap_as(&Reaper::new(), Verdict::Reap);
        assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
    });
}

#[test]
fn a_narrower_pattern_is_proposed() {
    let temp = format!("sessions.json.{UUID}.tmp");
    let sandbox = Sandbox::new()
        .file("sessions.json", "whole")
        .file(&temp, "half")
        .aged(OLD_ENOUGH);
    let narrower = "\"sessions.json.*.tmp\" is enough";
    let scan = |glob: &str| sandbox.scan(["--name", glob]).exit(0);
    scan("sessions.json*").stderr_has(narrower);
    assert_eq!(scan("sessions.json.*.tmp").stderr, "");
    // No proposal that would miss a temp.
    sandbox.write("sessions.json.new", "half");
    assert_eq!(scan("sessions.json*").stderr, "");
    let config = sandbox.base().join("config/orphand/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    let root = sandbox.root();
    let text = format!("[[watch]]\npath = {root:?}\nnames = ['sessions.json*']");
    fs::write(&config, text).unwrap();
    sandbox
        .run(["config", "check"])
        .exit(0)
        .stdout_has(narrower);
    let text = format!("[[watch]]\npath = {root:?}\nnames = ['*-journal']");
    fs::write(&config, text).unwrap();
    let checked = sandbox.run(["config", "check"]).exit(0);
    checked.stdout_has("the name pattern \"*-journal\" has no effect");
}

/// If the check failed, this test would still remove nothing: no file has such a name.
#[test]
fn folders_of_the_system_are_refused_at_any_depth() {
    let sandbox = Sandbox::new();
    let none = [
        "--name",
        "no-such-temp-of-orphands-tests.*",
        "--grace",
        "7d",
    ];
    for dir in [
        "/usr/share",
        "/etc",
        "/usr/lib/",
        "/usr/local/bin",
        "/var/lib/dpkg",
    ] {
        if !std::path::Path::new(dir).is_dir() {
            continue;
        }
        for verb in [&["sweep", "--yes"][..], &["watch"]] {
            let ran = sandbox.run(with(&with(verb, &none), &[dir]));
            ran.exit(2)
                .stderr_has("--allow-broad-root")
                .prints_nothing();
        }
        // Commands that change nothing accept any directory, in each form of such a command.
        sandbox
            .run(with(&with(&["sweep", "-n"], &none), &[dir]))
            .exit(0);
        sandbox
            .run(with(
                &with(&["sweep", "--yes", "--action", "report"], &none),
                &[dir],
            ))
            .exit(0);
        sandbox.run(with(&with(&["scan"], &none), &[dir])).exit(0);
    }
}

#[test]
fn a_folder_for_temporary_files_is_refused_where_others_may_write() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new()
        .file("a", "whole")
        .file("a.tmp", "half")
        .aged(OLD_ENOUGH);
    let base = sandbox.base().to_owned();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o711)).unwrap();
    // Makes the sandbox a subdirectory of the folder for temporary files.
    let sandbox = sandbox.env("TMPDIR", base);
    let mode =
        |mode| fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(mode)).unwrap();
    for refused in [0o777, 0o1777] {
        mode(refused);
        sandbox
            .sweep(SHORT)
            .exit(2)
            .stderr_has("other users may write to it");
        sandbox.sweep(with(&SHORT, &["-n"])).exit(0);
        assert!(sandbox.has("a.tmp"));
    }
    mode(0o755);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.names("reaped"), ["a.tmp"]);
}
