//! Names that no pattern takes by accident: reserved names, targets, and temps with a companion file.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use orphand::core::judge::Reason;
use orphand::core::reserved::{IncludedBy, LIST, ReservedName};
use orphand::reap::{Outcome, Reaper, Step};

use crate::fixture::*;
use crate::sandbox::{Events, Sandbox, is, kept, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);
const UUID: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

fn with<'a>(some: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [some, more].concat()
}

#[test]
fn a_glob_without_a_literal_character_is_refused() {
    let sandbox = Sandbox::new().file("a", "x").aged(OLD_ENOUGH);
    for glob in ["*", "**", "*.*", "?*", "[a-z]*", "[0-9A-F]???????", "*-_.~"] {
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

/// The rule matches the temp that names the target, and excludes it. So it does not remove that temp.
#[test]
fn an_excluded_temp_reserves_its_target() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "the last good state")
        .file("x.tmp.tmp", "half")
        .aged(OLD_ENOUGH);
    let options = ["-r", "--sole-copy", "reap", "--exclude", "x.tmp.tmp"];
    let options = with(&SHORT, &options);
    let rows = sandbox.scan(&options).exit(0).stdout_json();
    let rows = rows["temps"].as_array().unwrap();
    assert_eq!(rows.iter().map(name).collect::<Vec<_>>(), ["x.tmp"]);
    assert_eq!(rows[0]["reason"], "reserved");
    let events = sandbox.sweep(&options).exit(0).events();
    assert_eq!(events.about("x.tmp"), ["kept reserved"]);
    assert_eq!(sandbox.listing(), ["x.tmp", "x.tmp.tmp"]);
}

/// The temp that names the target is removed first, in another batch.
#[test]
fn a_young_temp_has_the_reason_of_the_first_gate() {
    let sandbox = Sandbox::new()
        .file("a.lock", "x")
        .file("x.tmp", "x")
        .file("x.tmp.tmp", "x")
        .file("y.tmp", "old")
        .aged(Duration::from_millis(150));
    sandbox
        .sweep(["--grace", "100ms", "--name", "y.tmp"])
        .exit(0);
    let stored = sandbox
        .run(["quarantine", "list", "--json", "root"])
        .exit(0)
        .stdout_json();
    let id = stored["id"].as_str().unwrap().to_owned();
    sandbox.run(["restore", &id]).exit(0);
    let args = ["--grace", "1d", "--name", "a.l*", "--name", "*.tmp"];
    let want = [
        ("a.lock", "reserved"),
        ("x.tmp", "reserved"),
        ("x.tmp.tmp", "young"),
        ("y.tmp", "restored"),
    ];
    let scan = sandbox.scan(args).exit(0).stdout_json();
    let events = sandbox.sweep(args).exit(0).events();
    for (file, reason) in want {
        let rows = scan["temps"].as_array().unwrap();
        let path = sandbox.path(file);
        let row = rows
            .iter()
            .find(|row| row["path"] == path.to_str().unwrap())
            .unwrap();
        assert_eq!(row["reason"], reason, "{file}");
        assert_eq!(events.about(file), [format!("kept {reason}")], "{file}");
    }
}

#[test]
fn a_target_stays_reserved_until_the_sweep_ends() {
    let sandbox = Sandbox::in_memory_for(None)
        .file("x.tmp", "the last good state")
        .file(".x.tmp.tmp", "half");
    for n in 0..2_000 {
        sandbox.write(format!("m{n:04}.tmp"), "");
    }
    sandbox.age(OLD_ENOUGH);
    let args = ["sweep", "--yes", "--json", "--sole-copy", "reap", "root"];
    let mut sweeping = sandbox
        .command(with(&args, &SHORT))
        .stderr(Stdio::null())
        .start_child()
        .unwrap();
    // Until it is read further, the pipe holds the sweep back.
    let mut output = BufReader::new(sweeping.stdout.take().unwrap());
    let mut lines = String::new();
    while !lines.contains("/.x.tmp.tmp\"") {
        assert!(output.read_line(&mut lines).unwrap() > 0, "{lines}");
    }
    // By then a listing that still has that temp is no longer reused: without the rule the test fails. With the rule it
    // passes however long this takes.
    std::thread::sleep(Duration::from_secs(1));
    output.read_to_string(&mut lines).unwrap();
    assert_eq!(sweeping.wait().unwrap().code(), Some(0));
    let events = Events::of_lines(&lines);
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

/// Except if the new name is that of another step of the same write: `git repack` renames twice.
#[test]
fn the_second_name_of_a_pack_is_no_target() {
    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";
    let sandbox = Sandbox::new();
    let mut watching = sandbox.watch(SHORT).ready();
    // No process has this pid.
    let second = format!(".tmp-4194304-pack-{HASH}.pack");
    sandbox.write("tmp_pack_aB3xYz", "of a killed repack");
    fs::rename(sandbox.path("tmp_pack_aB3xYz"), sandbox.path(&second)).unwrap();
    watching.wait_for(is("reaped", &second));
    // This is the name of a temp only because the rule matches every one of them.
    sandbox.write("tmp_pack_cD5xYz", "renamed to a name that git does not use");
    fs::rename(sandbox.path("tmp_pack_cD5xYz"), sandbox.path("data.tmp")).unwrap();
    let event = watching.wait_for(is("kept", "data.tmp"));
    assert_eq!(event["reason"], "reserved", "{event}");
    watching.stop();
}

/// Both if the directory is listed for companions, and if it is too large for that.
#[test]
fn a_companion_that_appears_puts_the_temp_back() {
    in_own_process(ALL_USERS, || {
        for (step, others, has_target) in Step::ALL.into_iter().flat_map(|step| {
            [(0, true), (0, false), (200, true)].map(|(others, target)| (step, others, target))
        }) {
            let fixture = match has_target {
                true => Fixture::in_memory(),
                false => Fixture::in_memory().with_sole_copy(),
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
                (Outcome::Kept(Reason::Changed), _) => {
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &what)
                }
                _ => panic!("{what}: {outcome:?}"),
            }
            fixture.assert_no_leftovers(&what);
        }
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

/// Returns a name that the row reserves.
fn name_of(row: &ReservedName) -> String {
    let name = row.pattern.replace('*', "q7");
    let name = name.replace("<uuid>", UUID).replace("<n>", "12");
    name.replace("<x>", "C")
}

/// Returns a pattern of a writer that matches the name of the row.
fn pattern_of(row: &ReservedName) -> String {
    name_of(row).replacen("q7", "q<n>", 1)
}

/// Returns the glob that matches exactly this name, without any wildcard.
fn whole_glob(name: &str) -> String {
    let escaped = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_string(),
        false => format!("\\{c}"),
    };
    name.chars().map(escaped).collect()
}

/// Returns the options that replace the names of a rule by these globs.
fn named(globs: impl IntoIterator<Item = String>) -> Vec<String> {
    let each = globs
        .into_iter()
        .flat_map(|glob| ["--name".to_owned(), glob]);
    let more = [
        "--allow-broad-name",
        "--sole-copy",
        "reap",
        "--grace",
        "100ms",
    ];
    each.chain(more.map(str::to_owned)).collect()
}

fn with_all_names() -> Sandbox {
    let sandbox = Sandbox::new();
    for row in LIST {
        sandbox.write(name_of(row), "needed");
    }
    sandbox.aged(OLD_ENOUGH)
}

/// By the default names, by a glob for other names, by a glob that ends like them, or by a writer.
#[test]
fn no_listed_name_is_taken_by_accident() {
    let sandbox = with_all_names();
    let all = sandbox.listing();
    assert_eq!(all.len(), LIST.len(), "two rows have the same name");

    let events = sandbox.sweep(SHORT).exit(0).events();
    for row in LIST {
        let kept: &[&str] = match row.pattern.ends_with(".tmp") {
            true => &["kept reserved"],
            false => &[],
        };
        assert_eq!(events.about(&name_of(row)), kept, "{}", row.pattern);
    }
    let beginnings = LIST.iter().map(|row| {
        let name = name_of(row);
        // The last characters are matched by the wildcard.
        let end = name.char_indices().nth(1).map_or(name.len(), |(at, _)| at);
        format!("{}*", whole_glob(&name[..end]))
    });
    let with_last_wild = LIST.iter().map(|row| {
        let mut glob = whole_glob(&name_of(row));
        if glob.pop().is_some() && glob.ends_with('\\') {
            glob.pop();
        }
        glob + "?"
    });
    let first_group = LIST
        .iter()
        .filter(|row| row.included_by == IncludedBy::WholeName);
    let endings = first_group.map(|row| {
        let ending = row.pattern.rsplit('*').next().unwrap_or_default();
        format!("*{}", whole_glob(&ending.replace("<x>", "C")))
    });
    let list = sandbox.run(["scan", "--writer", "list", "--json"]).exit(0);
    let list = list.stdout_json();
    let rows = list["writers"].as_array().unwrap().iter();
    let writers = rows.flat_map(|row| ["--writer", row["name"].as_str().unwrap()]);
    let writers: Vec<String> = writers.map(str::to_owned).chain(named([])).collect();
    assert!(writers.len() > 20, "{writers:?}");
    // A user's own writer of such names.
    let config = sandbox.base().join("own.toml");
    let patterns: Vec<String> = LIST.iter().map(pattern_of).collect();
    let text = format!("[[writer]]\nname = 'own'\npatterns = {patterns:?}\n");
    fs::write(&config, text).unwrap();
    let own = ["--config", config.to_str().unwrap(), "--writer", "own"].map(str::to_owned);
    let own: Vec<String> = own.into_iter().chain(named([])).collect();
    for (what, options) in [
        ("by its beginning", named(beginnings)),
        ("but for its last character", named(with_last_wild)),
        ("by all names", named(["*".to_owned()])),
        ("by all writers", writers),
        ("by a writer of such names", own),
    ] {
        let events = sandbox.sweep(&options).exit(0).events();
        for row in LIST {
            let name = name_of(row);
            let about = events.about(&name);
            let is_kept = about.iter().all(|word| word == "kept reserved");
            assert!(
                is_kept && (!about.is_empty() || what == "by all writers"),
                "{what}: {name}: {about:?}"
            );
        }
        assert_eq!(sandbox.listing(), all, "{what}");
    }
    // A glob that ends like a name of the second group includes it, and is tried below.
    let events = sandbox.sweep(named(endings)).exit(0).events();
    for row in LIST
        .iter()
        .filter(|row| row.included_by == IncludedBy::WholeName)
    {
        assert_eq!(
            events.about(&name_of(row)),
            ["kept reserved"],
            "{}",
            row.pattern
        );
    }
}

/// A lock or a database only by its whole name; a backup or a transfer also by the end of its name.
#[test]
fn each_listed_name_is_taken_by_a_pattern_for_it() {
    let sandbox = with_all_names();
    let second = LIST
        .iter()
        .filter(|row| row.included_by == IncludedBy::Ending);
    let endings = second.clone().map(|row| {
        let ending = row.pattern.trim_start_matches('*');
        let ending = ending.replace("<uuid>", UUID).replace("<n>", "12");
        format!("*{}", whole_glob(&ending))
    });
    let events = sandbox.sweep(named(endings)).exit(0).events();
    let mut names: Vec<String> = second.map(name_of).collect();
    names.sort();
    assert_eq!(events.names("reaped"), names);

    let sandbox = with_all_names();
    let events = sandbox
        .sweep(named(LIST.iter().map(|row| whole_glob(&name_of(row)))))
        .exit(0)
        .events();
    let mut names: Vec<String> = LIST.iter().map(name_of).collect();
    names.sort();
    assert_eq!(events.names("reaped"), names);
    assert_eq!(sandbox.listing(), [""; 0]);
}

/// Situations of users that the list is for.
#[test]
fn names_of_reported_cases_are_reserved() {
    let digest = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let blob = format!("sha256-{digest}-partial");
    let part = format!("sha256-{digest}-partial-15");
    #[rustfmt::skip]
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        // The globs, the names that they take, and those that are kept.
        (&["sha256-*"], &[], &[&blob, &part]),
        (&["*-partial"], &[&blob], &[]),
        (&["*-partial*"], &[], &[&blob, &part]),
        (&["*-partial-15"], &[&part], &[]),
        (&["0000*"], &[], &["00000001000000020000004A.partial"]),
        (&["*.partial"], &["00000001000000020000004A.partial"], &[]),
        (&[".nfs*"], &[], &[".nfs00000000018e179a00000009"]),
        (&["CFNetworkDownload_*.tmp", "*.tmp"], &[], &["CFNetworkDownload_q1W2e3.tmp"]),
        (&["~WRD0003.tmp", "~$*"], &["~WRD0003.tmp"], &["~$port.docx"]),
    ];
    for (globs, taken, reserved) in rows {
        let sandbox = Sandbox::new();
        for name in taken.iter().chain(*reserved) {
            sandbox.write(name, "needed");
        }
        sandbox.age(OLD_ENOUGH);
        let globs = named(globs.iter().map(|glob| (*glob).to_owned()));
        let events = sandbox.sweep(globs).exit(0).events();
        assert_eq!(events.names("reaped"), *taken, "{taken:?}");
        assert_eq!(events.names("kept"), *reserved, "{reserved:?}");
        // An empty file is no exception.
        for name in *reserved {
            fs::write(sandbox.path(name), "").unwrap();
        }
        sandbox.age(OLD_ENOUGH);
        assert_eq!(
            sandbox.sweep(SHORT).exit(0).events().names("reaped"),
            [""; 0]
        );
    }
}
