//! Sets: a temp and its companions (`x.tmp-wal`, `x.tmp-shm`, `x.tmp-journal`) are removed, moved, restored and deleted
//! together, end to end.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orphand::core::event::Event;
use orphand::core::time::ClockJumpDetector;
use orphand::engine::PassItem;
use orphand::sys::clock;
use serde_json::Value;

use crate::fixture::{ALL_USERS, Fixture, GRACE, TEMP, engine, in_own_process};
use crate::sandbox::{Sandbox, assert_held_by_us, is, kept, name};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);
const ENDINGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates `x.tmp` with two companions. `x` exists if it has a target.
fn set(has_target: bool) -> Sandbox {
    let sandbox = Sandbox::new()
        .file("x.tmp", "half")
        .file("x.tmp-wal", "the rest of it")
        .file("x.tmp-shm", "");
    match has_target {
        true => sandbox.file("x", "whole, and longer than all parts of the temp"),
        false => sandbox,
    }
    .aged(OLD_ENOUGH)
}

fn names() -> Vec<&'static str> {
    vec!["x.tmp", "x.tmp-shm", "x.tmp-wal"]
}

/// Returns the path of each file in the quarantine, below its folder.
fn stored(sandbox: &Sandbox) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(folders) = fs::read_dir(sandbox.path(".orphand")) else {
        return found;
    };
    for folder in folders {
        let folder = folder.unwrap();
        for file in fs::read_dir(folder.path()).unwrap() {
            let text = |name: std::ffi::OsString| name.into_string().unwrap();
            let file = file.unwrap().file_name();
            found.push((text(folder.file_name()), text(file)));
        }
    }
    found.sort();
    found
}

/// Returns the names of the stored files. Asserts that all are in one folder.
fn stored_together(sandbox: &Sandbox) -> Vec<String> {
    let all = stored(sandbox);
    assert!(all.windows(2).all(|two| two[0].0 == two[1].0), "{all:?}");
    all.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn a_set_is_removed_together() {
    for ending in ENDINGS {
        let companion = format!("x.tmp{ending}");
        let sandbox = Sandbox::new()
            .file("x", "whole, and longer than the temp")
            .file("x.tmp", "half")
            .file(&companion, "rest")
            .aged(OLD_ENOUGH);
        let dry = sandbox.sweep(["--grace", "100ms", "-n"]).exit(0).events();
        assert_eq!(dry.names("reaped"), ["x.tmp", &companion], "{ending}");
        let swept = sandbox.sweep(SHORT).exit(0);
        assert_eq!(swept.events().names("reaped"), ["x.tmp", &companion]);
        assert_eq!(sandbox.listing(), ["x"], "{ending}: {swept:?}");
    }
}

#[test]
fn a_set_that_may_be_the_only_copy_is_moved_together() {
    Sandbox::for_each_user(|sandbox| {
        let sandbox = sandbox
            .file("x.tmp", "half")
            .file("x.tmp-wal", "the rest of it")
            .file("x.tmp-shm", "")
            .aged(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.names("quarantined"), names());
        let mut ids: Vec<&str> = events
            .of("quarantined")
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        assert_eq!(stored_together(&sandbox), names());
        assert_eq!(sandbox.listing(), [".orphand"]);
        let listed = sandbox
            .run(["quarantine", "list", "--json", "root"])
            .exit(0);
        let lines = listed.stdout.lines();
        let mut of_list: Vec<String> = lines
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect();
        of_list.sort();
        ids.sort_unstable();
        assert_eq!(of_list, ids);
    });
}

#[test]
fn a_watcher_takes_the_whole_set() {
    let sandbox = Sandbox::new().file("x", "whole, and longer than all parts");
    let mut watching = sandbox.watch(SHORT).ready();
    for name in names() {
        sandbox.write(name, "part");
    }
    for name in names() {
        watching.wait_for(is("reaped", name));
    }
    assert_eq!(sandbox.listing(), ["x"]);
    watching.stop();
}

/// The gate against sole copies is asked of the main file, with the sizes of all members.
#[test]
fn the_sizes_of_all_members_count_for_the_target() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "half")
        .file("x.tmp-wal", vec![b'w'; 100_000])
        .aged(OLD_ENOUGH)
        .file("x", "whole, and longer than the temp alone");
    let temp = &sandbox.scan(SHORT).exit(0).stdout_json()["temps"][0];
    assert_eq!(temp["verdict"], "quarantine", "{temp}");
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(stored_together(&sandbox), ["x.tmp", "x.tmp-wal"]);
    // An empty main file of a random name is not without content if its companion is not.
    let temp = "y.0f8fad5b-d9cb-469f-a165-70867728950e.tmp";
    let sandbox = Sandbox::new()
        .file(temp, "")
        .file(format!("{temp}-wal"), "content")
        .aged(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(stored_together(&sandbox).len(), 2);
}

#[test]
fn scan_and_explain_show_the_set() {
    let sandbox = set(false).file("y.tmp", "alone").aged(OLD_ENOUGH);
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    let document = sandbox.scan(SHORT).exit(0).stdout_json();
    let temps = document["temps"].as_array().unwrap();
    assert_eq!(
        temps.len(),
        2,
        "companions are no temps of their own: {document}"
    );
    let of = |temps: &[Value], name: &str| {
        let temp = temps.iter().find(|temp| temp["path"] == path(name));
        temp.unwrap()["set"].clone()
    };
    let set: Vec<String> = names().into_iter().map(path).collect();
    assert_eq!(of(temps, "x.tmp"), Value::from(set.clone()));
    assert_eq!(of(temps, "y.tmp"), Value::Null);
    let explained = sandbox
        .run(["explain", "--grace", "100ms", "--json", "root/x.tmp"])
        .exit(0)
        .stdout_json();
    assert_eq!(explained["temps"][0]["set"], Value::from(set));
    sandbox
        .run(["explain", "--grace", "100ms", "root/x.tmp"])
        .exit(0)
        .stdout_has("x.tmp-wal, which shares its fate: passes every gate");
    let companion = sandbox.run(["explain", "root/x.tmp-wal"]).exit(0);
    companion.stdout_has("root/x.tmp, and is removed, moved or kept with it");
}

/// A companion that no look could have found harmless keeps the whole set.
#[test]
fn a_companion_that_is_kept_keeps_the_set() {
    type Change = fn(&Sandbox) -> Option<fs::File>;
    let open: Change = |sandbox| Some(fs::File::open(sandbox.path("x.tmp-wal")).unwrap());
    let locked: Change = |sandbox| {
        let file = fs::File::open(sandbox.path("x.tmp-wal")).unwrap();
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
        Some(file)
    };
    let linked: Change = |sandbox| {
        fs::hard_link(sandbox.path("x.tmp-wal"), sandbox.path("other")).unwrap();
        None
    };
    let a_symlink: Change = |sandbox| {
        symlink("x.tmp", sandbox.path("x.tmp-journal")).unwrap();
        None
    };
    let a_directory: Change = |sandbox| {
        fs::create_dir(sandbox.path("x.tmp-journal")).unwrap();
        None
    };
    for (reason, change) in [
        ("in-use", open),
        ("locked", locked),
        ("hard-linked", linked),
        ("not-regular", a_symlink),
        ("not-regular", a_directory),
    ] {
        for has_target in [true, false] {
            let sandbox = set(has_target);
            let _file = change(&sandbox);
            sandbox.age(OLD_ENOUGH);
            let before = sandbox.listing();
            let temp = &sandbox.scan(SHORT).stdout_json()["temps"][0];
            assert_eq!(temp["reason"], reason, "{temp}");
            let events = sandbox.sweep(SHORT).exit(0).events();
            assert_eq!(events.about("x.tmp"), [format!("kept {reason}")]);
            assert_eq!(sandbox.listing(), before, "{reason}");
            if reason == "in-use" {
                assert_held_by_us(&events.of("kept")[0]["holders"]);
            }
        }
    }
}

#[test]
fn purge_by_the_path_of_a_member_takes_the_whole_set() {
    for name in names() {
        let sandbox = set(false).file("y.tmp", "alone").aged(OLD_ENOUGH);
        sandbox.sweep(SHORT).exit(0);
        let path = format!("root/{name}");
        let purged = sandbox.run(["quarantine", "purge", "--yes", "--json", &path]);
        assert_eq!(purged.exit(0).events().names("purged"), names(), "{name}");
        assert_eq!(stored(&sandbox).len(), 1, "{name}");
    }
}

/// Also if it is not the last companion by its name.
#[test]
fn a_companion_that_is_no_file_does_not_make_the_set_look_changed() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "half")
        .file("x.tmp-wal", "rest")
        .dir("x.tmp-shm")
        .file("y.tmp", "half")
        .file("y.tmp-journal", "rest")
        .file("y.tmp-shm", "rest")
        .dir("y.tmp-wal")
        .aged(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    for name in ["x.tmp", "y.tmp"] {
        assert_eq!(events.about(name), ["kept not-regular"], "{name}");
    }
    let mut watching = sandbox.watch(SHORT).ready();
    for name in ["x.tmp", "y.tmp"] {
        watching.wait_for(kept(name, "not-regular"));
    }
    watching.stop().exit(0);
}

/// Also if the rule says that open files may be taken.
#[test]
fn a_set_in_use_is_kept_whatever_the_rule_says() {
    for open in ["reap", "quarantine"] {
        for held in ["x.tmp", "x.tmp-shm"] {
            let sandbox = set(true);
            let _file = fs::File::open(sandbox.path(held)).unwrap();
            let events = sandbox.sweep(["--grace", "100ms", "--open", open]);
            let events = events.exit(0).events();
            assert_eq!(events.about("x.tmp"), ["kept in-use"], "{open} {held}");
            assert!(sandbox.has("x.tmp") && sandbox.has("x.tmp-wal"));
        }
    }
}

#[test]
fn an_excluded_companion_keeps_the_set() {
    let sandbox = set(true);
    let config = "[defaults]\ngrace = \"100ms\"\nexclude = [\"*-wal\"]\n";
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
    let events = sandbox.sweep([] as [&str; 0]).exit(0).events();
    assert_eq!(events.about("x.tmp"), ["kept reserved"]);
    sandbox
        .run(["explain", "root/x.tmp"])
        .stdout_has("is excluded by the rule");
    assert!(sandbox.has("x.tmp") && sandbox.has("x.tmp-wal"));
}

#[test]
fn a_set_with_too_many_or_too_long_names_is_kept() {
    let long = "y".repeat(225) + ".tmp";
    let sandbox = Sandbox::new()
        .file(&long, "half")
        .file(format!("{long}-wal"), "rest")
        .aged(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about(&long), ["kept reserved"]);
    assert!(sandbox.has(&long) && sandbox.has(format!("{long}-wal")));
}

/// Also if the rule names it, and if no temp is beside it.
#[test]
fn a_companion_is_never_taken_without_its_temp() {
    let sandbox = Sandbox::new().file("y.tmp-wal", "alone").aged(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    let events = sandbox.sweep(["--grace", "100ms", "--name", "*-wal"]);
    assert_eq!(
        events.exit(0).events().about("y.tmp-wal"),
        ["kept reserved"]
    );
    assert_eq!(sandbox.listing(), ["y.tmp-wal"]);
    // Its whole name is a decision of the user, unless its temp is there.
    let args = ["--grace", "100ms", "--name", "x.tmp-wal", "--name", "*.tmp"];
    let sandbox = set(true);
    let _file = fs::File::open(sandbox.path("x.tmp")).unwrap();
    let events = sandbox.sweep(args).exit(0).events();
    assert_eq!(events.about("x.tmp-wal"), ["kept reserved"]);
    assert_eq!(events.about("x.tmp"), ["kept in-use"]);
    assert!(sandbox.has("x.tmp-wal"));
}

/// The numbered parts of an interrupted download share the fate of its main file, the empty one too.
#[test]
fn the_companions_of_a_row_belong_to_the_set() {
    let temp = format!("sha256-{}-partial", "0a".repeat(32));
    let config = r#"
[[writer]]
name = "model-downloads"
patterns = ["<t>-partial"]
companions = ["<temp>-<n>"]
[defaults]
grace = "100ms"
names = ["sha256-*-partial"]
writers = ["model-downloads"]
"#;
    let make = || {
        let sandbox = Sandbox::new().file(&temp, "");
        for n in 0..16 {
            let content = match n {
                7 => String::new(),
                _ => format!("part {n}"),
            };
            sandbox.write(format!("{temp}-{n}"), content);
        }
        // Not a part of this download.
        sandbox.write(format!("{temp}-x"), "other");
        fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
        fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
        sandbox.age(OLD_ENOUGH);
        sandbox
    };
    let sandbox = make();
    let held = fs::File::open(sandbox.path(format!("{temp}-7"))).unwrap();
    let events = sandbox.sweep([] as [&str; 0]).exit(0).events();
    assert_eq!(events.about(&temp), ["kept in-use"]);
    assert_eq!(sandbox.listing().len(), 18);
    drop(held);
    let moved = sandbox.sweep([] as [&str; 0]).exit(0).events();
    assert_eq!(moved.names("quarantined").len(), 17);
    assert_eq!(stored_together(&sandbox).len(), 17);
    assert_eq!(
        sandbox.listing(),
        [".orphand".to_owned(), format!("{temp}-x")]
    );
    let id = moved.of("quarantined")[3]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    sandbox.run(["restore", &id]).exit(0);
    assert_eq!(sandbox.listing().len(), 18);
    // A part without its main file is never taken.
    let sandbox = make();
    fs::remove_file(sandbox.path(&temp)).unwrap();
    assert_eq!(
        sandbox.sweep([] as [&str; 0]).exit(0).events().sums(),
        [0; 4]
    );
    assert_eq!(sandbox.listing().len(), 17);
}

/// The grace counts from the last change of any member.
#[test]
fn a_change_of_a_companion_restarts_the_grace() {
    let sandbox = set(true);
    sandbox.write("x.tmp-wal", "changed a moment ago");
    let args = ["--grace", "1h"];
    let temp = &sandbox.scan(args).exit(0).stdout_json()["temps"][0];
    assert_eq!(temp["reason"], "young", "{temp}");
    // On a slow machine, the grace may pass between two changes.
    let is_shown = [2, 8, 32].into_iter().any(are_changes_waited_for);
    assert!(
        is_shown,
        "two changes were always further apart than the grace"
    );
}

/// Changes a companion for longer than the grace of so many seconds. Returns false if the grace passed between two
/// changes.
fn are_changes_waited_for(seconds: u32) -> bool {
    let grace = Duration::from_secs(seconds.into());
    let sandbox = set(true);
    let mut last = Instant::now();
    sandbox.write("x.tmp-wal", "changed a moment ago");
    let mut watching = sandbox.watch(["--grace", &format!("{seconds}s")]).ready();
    // The main file is old enough long before.
    let mut is_kept = true;
    for n in 0..8 {
        std::thread::sleep(grace / 5);
        let start = Instant::now();
        sandbox.write("x.tmp-wal", format!("change {n}"));
        is_kept = is_kept && sandbox.has("x.tmp");
        if last.elapsed() >= grace {
            return false;
        }
        last = start;
    }
    assert!(is_kept, "it was taken during the changes");
    let taken = |event: &Value| name(event) == "x.tmp" && event["event"] != "kept";
    let event = watching.wait_for(taken);
    assert_eq!(event["event"], "reaped", "{event}");
    let quiet = Duration::from_millis(event["quiet_ms"].as_u64().unwrap());
    assert!(quiet >= grace / 2, "{event}");
    watching.wait_for(is("reaped", "x.tmp-wal"));
    watching.stop();
    true
}

#[test]
fn a_watcher_waits_for_the_holder_of_a_companion() {
    let sandbox = set(true);
    let file = fs::File::open(sandbox.path("x.tmp-shm")).unwrap();
    let mut watching = sandbox.watch(SHORT).ready();
    watching.wait_for(kept("x.tmp", "in-use"));
    assert!(sandbox.has("x.tmp") && sandbox.has("x.tmp-wal"));
    drop(file);
    watching.wait_for(is("reaped", "x.tmp-shm"));
    watching.stop();
    assert_eq!(sandbox.listing(), ["x"]);
}

/// The id of any member stands for the whole set.
#[test]
fn restore_and_purge_take_the_whole_set() {
    for member in 0..3 {
        let moved = || {
            let sandbox = set(false);
            let events = sandbox.sweep(SHORT).exit(0).events();
            let ids: Vec<String> = events
                .of("quarantined")
                .iter()
                .map(|event| event["id"].as_str().unwrap().to_owned())
                .collect();
            (sandbox, ids)
        };
        let (sandbox, ids) = moved();
        let restored = sandbox.run(["restore", "--json", &ids[member]]).exit(0);
        assert_eq!(restored.events().names("restored"), names());
        assert_eq!(sandbox.listing(), names());
        // A restored set stays.
        sandbox.age(OLD_ENOUGH);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(events.about("x.tmp"), ["kept restored"], "{member}");

        let (sandbox, ids) = moved();
        // All members at once, by their ids and paths.
        let all = ["restore", &ids[0], &ids[1], "root/x.tmp-wal"];
        // The set fails as a whole, and the sum says so.
        for option in ["--to=root/y/", "--as-target"] {
            for dir in ["y", "x", "y/x.tmp"] {
                sandbox.make_dir(dir);
            }
            sandbox
                .run(["restore", option, &ids[0], &ids[1]])
                .exit(3)
                .stdout_has("2 files: 0 restored, 2 failed")
                .stderr_has("already exists")
                .stderr_has("the same file or set");
            fs::remove_dir_all(sandbox.path("y")).unwrap();
            fs::remove_dir(sandbox.path("x")).unwrap();
        }
        sandbox.run(all).exit(0).stdout_has("3 files: 3 restored");
        assert_eq!(sandbox.listing(), names());

        let (sandbox, ids) = moved();
        let purged = sandbox.run(["quarantine", "purge", "--json", &ids[member]]);
        assert_eq!(purged.exit(0).events().names("purged"), names());
        assert_eq!(sandbox.listing(), [""; 0]);

        let (sandbox, ids) = moved();
        sandbox.write("x.tmp-shm", "of another program");
        sandbox
            .run(["restore", &ids[member]])
            .exit(1)
            .stderr_has("x.tmp-shm")
            .stderr_has("already exists");
        assert_eq!(sandbox.listing(), [".orphand", "x.tmp-shm"]);
        assert_eq!(stored_together(&sandbox), names());
        sandbox
            .run(["restore", "--to", "root/y", &ids[member]])
            .exit(0);
        let all = ["x.tmp-shm", "y", "y-shm", "y-wal"];
        assert_eq!(sandbox.listing(), all);
        assert_eq!(sandbox.content("y-wal"), "the rest of it");
    }
}

#[test]
fn a_set_is_restored_as_its_target() {
    let sandbox = set(false);
    let events = sandbox.sweep(SHORT).exit(0).events();
    let id = events.of("quarantined")[1]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let restore = || sandbox.run(["restore", "--as-target", "--json", &id]);
    // If one name exists, nothing is done.
    sandbox.write("x-wal", "of another program");
    restore()
        .exit(1)
        .stderr_has("x-wal")
        .stderr_has("already exists");
    assert_eq!(sandbox.listing(), [".orphand", "x-wal"]);
    fs::remove_file(sandbox.path("x-wal")).unwrap();
    let restored = restore().exit(0);
    assert_eq!(restored.events().names("restored"), ["x", "x-shm", "x-wal"]);
    assert_eq!(sandbox.content("x"), "half");
    assert_eq!(sandbox.content("x-wal"), "the rest of it");
    assert_eq!(stored_together(&sandbox), names(), "the originals stay");
}

/// To another file system all files are copied before the first one is removed.
#[test]
fn a_set_is_restored_to_another_file_system() {
    use crate::fixture::RunAs;
    use crate::places::Mounted;
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new()
            .file("x.tmp", vec![7; 400_000])
            .file("x.tmp-wal", vec![8; 200_000])
            .aged(OLD_ENOUGH);
        sandbox.make_dir("../other");
        let other = sandbox.base().join("other");
        let _mounted = Mounted::new("tmpfs", &other, "tmpfs", 0, "size=1m");
        let events = sandbox.sweep(SHORT).exit(0).events();
        let id = events.of("quarantined")[1]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let restore = || sandbox.run(["restore", "--to", "other/", &id]);
        // There is room for the companion, but not for the main file.
        fs::write(other.join("fill"), vec![1; 600_000]).unwrap();
        restore().exit(1).prints_nothing();
        let names = || fs::read_dir(&other).unwrap().count();
        assert_eq!((names(), stored_together(&sandbox).len()), (1, 2));
        fs::remove_file(other.join("fill")).unwrap();
        restore().exit(0);
        assert_eq!(fs::read(other.join("x.tmp")).unwrap(), vec![7; 400_000]);
        assert_eq!(fs::read(other.join("x.tmp-wal")).unwrap(), vec![8; 200_000]);
        assert_eq!(sandbox.listing(), [""; 0]);
    });
}

/// The limits of the quarantine drop the whole set, and only if no process uses a member.
#[test]
fn the_limits_drop_the_whole_set() {
    let sandbox = Sandbox::new()
        .file("x.tmp", "half")
        .file("x.tmp-wal", "rest");
    let sandbox = sandbox.file("x", "whole, and longer than all parts of the temp");
    sandbox.age(OLD_ENOUGH);
    let args = ["--grace", "100ms", "--action", "quarantine"];
    sandbox.sweep(args).exit(0);
    assert_eq!(stored_together(&sandbox), ["x.tmp", "x.tmp-wal"]);
    let config = "[quarantine]\nkeep = \"1s\"\n[defaults]\ngrace = \"100ms\"\n";
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
    let (folder, file) = stored(&sandbox).pop().unwrap();
    let path: PathBuf = [".orphand", &folder, &file].iter().collect();
    let held = fs::File::open(sandbox.path(path)).unwrap();
    let mut watching = sandbox.watch([] as [&str; 0]).ready();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(
        stored_together(&sandbox),
        ["x.tmp", "x.tmp-wal"],
        "it is in use"
    );
    watching.stop();
    drop(held);
    watching = sandbox.watch([] as [&str; 0]).ready();
    watching.wait_for(is("purged", "x.tmp"));
    watching.wait_for(is("purged", "x.tmp-wal"));
    watching.stop();
    assert_eq!(sandbox.listing(), ["x"]);
}

/// The limits take a set for no copy of another file: its sizes do not show how much it contains.
#[test]
fn the_limits_do_not_compare_a_set_with_other_copies() {
    let name = |n: usize| format!("x.0f8fad5b-d9cb-469f-a165-70867728950{n}.tmp");
    let sandbox = Sandbox::new();
    for (n, size) in [100, 101, 10_000].into_iter().enumerate() {
        sandbox.write(name(n), vec![b'a'; size]);
        std::thread::sleep(Duration::from_millis(20));
    }
    sandbox.write(format!("{}-wal", name(1)), "r");
    sandbox.age(OLD_ENOUGH);
    sandbox.sweep(SHORT).exit(0);
    assert_eq!(stored(&sandbox).len(), 4);
    let config = "[quarantine]\nkeep = \"1s\"\n[defaults]\ngrace = \"100ms\"\n";
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
    let mut watching = sandbox.watch([] as [&str; 0]).ready();
    let purged = watching.wait_for(|event| event["event"] == "purged");
    assert_eq!(purged["path"], sandbox.path(name(0)).to_str().unwrap());
    watching.wait_for_sentinel(&sandbox);
    watching.stop();
    let names: Vec<String> = stored(&sandbox).into_iter().map(|(_, name)| name).collect();
    for kept in [name(1), format!("{}-wal", name(1)), name(2)] {
        assert!(names.contains(&kept), "{names:?}");
    }
}

/// A companion that is gone changes the set, and the grace of the temp starts again.
#[test]
fn a_companion_that_disappears_restarts_the_grace() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        for ending in ["-wal", "-shm"] {
            fs::write(fixture.dir.join(format!("{TEMP}{ending}")), "part").unwrap();
        }
        fs::write(&fixture.target, [b'w'; 500]).unwrap();
        let engine = engine(None);
        let mut due = fixture.pass_items(TEMP);
        let mut clocks = ClockJumpDetector::default();
        let sleep = |due: &[PassItem]| {
            let temp = due[0].temp.as_ref().unwrap();
            std::thread::sleep(temp.due().since(clock::mono()));
        };
        assert!(fixture.pass(&engine, &mut clocks, &mut due).is_empty());
        sleep(&due);
        fs::remove_file(fixture.dir.join(format!("{TEMP}-shm"))).unwrap();
        let started = clock::mono();
        let events = fixture.pass(&engine, &mut clocks, &mut due);
        assert!(events.is_empty(), "{events:?}");
        loop {
            sleep(&due);
            let events = fixture.pass(&engine, &mut clocks, &mut due);
            if events.is_empty() {
                continue;
            }
            assert!(
                events.iter().all(|event| matches!(event, Event::Reaped(_))),
                "{events:?}"
            );
            assert!(clock::mono().since(started) >= GRACE, "{events:?}");
            break;
        }
    });
}

/// Creates a database `x.db.tmp` whose writer was killed in a transaction: its journal is hot.
fn hot_database(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.path("x.db.tmp");
    let script = r#"
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = DELETE")
db.execute("PRAGMA cache_size = 2")
db.execute("CREATE TABLE t (n INTEGER, text TEXT)")
db.executemany("INSERT INTO t VALUES (?, ?)", [(n, "committed" * 50) for n in range(500)])
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE t SET text = 'torn'")
db.execute("INSERT INTO t SELECT n + 1000, text FROM t")
os.kill(os.getpid(), signal.SIGKILL)
"#;
    let mut python = Command::new("python3");
    let ended = python.arg("-c").arg(script).arg(&path).status().unwrap();
    assert!(!ended.success(), "it is killed");
    let journal = sandbox.path("x.db.tmp-journal");
    assert!(
        fs::metadata(&journal).unwrap().len() > 512,
        "the journal is hot"
    );
    sandbox.age(OLD_ENOUGH);
    path
}

/// Asserts that the database at `path` has what was committed, and nothing else.
#[track_caller]
fn assert_committed(path: &Path) {
    let script = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(db.execute("PRAGMA integrity_check").fetchone()[0])
print(db.execute("SELECT count(*), min(text) = max(text), min(text) LIKE 'committed%' FROM t").fetchone())
"#;
    let mut python = Command::new("python3");
    let out = python.arg("-c").arg(script).arg(path).output().unwrap();
    let out =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert_eq!(out, "ok\n(500, 1, 1)\n", "{path:?}");
}

fn has_sqlite() -> bool {
    let mut python = Command::new("python3");
    let found = python.args(["-c", "import sqlite3"]).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        crate::fixture::report_skipped("python3 with sqlite3 is missing");
    }
    found
}

/// Without its journal the database would be torn: this shows that the test can fail.
#[test]
fn a_database_is_torn_without_its_journal() {
    if !has_sqlite() {
        return;
    }
    let sandbox = Sandbox::new();
    let path = hot_database(&sandbox);
    fs::remove_file(sandbox.path("x.db.tmp-journal")).unwrap();
    let torn = std::panic::catch_unwind(|| assert_committed(&path));
    assert!(torn.is_err(), "the journal was not needed");
}

/// A database keeps its hot journal, wherever it is moved.
#[test]
fn a_hot_journal_stays_with_its_database() {
    if !has_sqlite() {
        return;
    }
    for restore in [
        &["restore"][..],
        &["restore", "--as-target"],
        &["restore", "--to", "root/y"],
    ] {
        let sandbox = Sandbox::new();
        hot_database(&sandbox);
        let events = sandbox.sweep(SHORT).exit(0).events();
        assert_eq!(
            events.names("quarantined"),
            ["x.db.tmp", "x.db.tmp-journal"]
        );
        let id = events.of("quarantined")[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        sandbox
            .run(restore.iter().copied().chain([id.as_str()]))
            .exit(0);
        let restored = match restore.last() {
            Some(&"restore") => "x.db.tmp",
            Some(&"--as-target") => "x.db",
            _ => "y",
        };
        assert!(sandbox.has(format!("{restored}-journal")));
        assert_committed(&sandbox.path(restored));
    }
    // A live program that opens the database keeps both.
    let sandbox = Sandbox::new();
    let path = hot_database(&sandbox);
    let _held = fs::File::open(&path).unwrap();
    sandbox.sweep(SHORT).exit(0);
    assert_committed(&path);
}

/// A log of another database would damage a restored one.
#[test]
fn nothing_is_restored_beside_a_foreign_companion() {
    let sandbox = Sandbox::new().file("a.db.tmp", "precious").aged(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    let id = events.one("quarantined")["id"].as_str().unwrap().to_owned();
    for (companion, args) in [
        ("a.db.tmp-wal", &["restore", &id][..]),
        ("a.db.tmp-journal", &["restore", &id]),
        ("b-shm", &["restore", "--to", "root/b", &id]),
        ("a.db-journal", &["restore", "--as-target", &id]),
    ] {
        sandbox.write(companion, "of another database");
        sandbox
            .run(args)
            .exit(1)
            .prints_nothing()
            .stderr_has(companion);
        assert_eq!(sandbox.listing(), [".orphand", companion]);
        fs::remove_file(sandbox.path(companion)).unwrap();
    }
    // A member of a set that is not in the set.
    let set = set(false);
    let events = set.sweep(SHORT).exit(0).events();
    let id = events.of("quarantined")[1]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    set.write("x.tmp-journal", "of another database");
    set.run(["restore", &id])
        .exit(1)
        .stderr_has("x.tmp-journal");
    assert_eq!(set.listing(), [".orphand", "x.tmp-journal"]);
    fs::remove_file(set.path("x.tmp-journal")).unwrap();
    set.run(["restore", &id]).exit(0);
}
