//! `orphand restore --as-target`: copies of stored files at the names of their targets.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::sandbox::{CommandResult, Sandbox};

const UUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// Sweeps, and returns the id of the file that was at `below`.
fn quarantine(sandbox: &Sandbox, below: &str, args: &[&str]) -> String {
    sandbox.age(Duration::from_millis(150));
    let args = ["--grace", "100ms", "-r"].iter().chain(args);
    let events = sandbox.sweep(args).exit(0).events();
    let path = sandbox.path(below);
    let moved = events.of("quarantined");
    let event = moved
        .iter()
        .find(|event| event["path"] == path.to_str().unwrap());
    event.expect("the file is moved")["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn restore(sandbox: &Sandbox, args: &[&str]) -> CommandResult {
    sandbox.run(["restore", "--as-target"].iter().chain(args))
}

/// Returns the number of files in the quarantine.
fn stored(sandbox: &Sandbox) -> usize {
    let listed = sandbox
        .run(["quarantine", "list", "--json", "root"])
        .exit(0);
    listed.stdout.lines().count()
}

/// The copy has the bytes, mode, owner and times of the stored file, which stays.
#[test]
fn a_target_is_restored_from_a_copy() {
    Sandbox::for_each_user(|sandbox| {
        let temp = format!("sub/sessions.json.4194000.{UUID}.tmp");
        let mut bytes = vec![b'x'; 100_000];
        bytes.extend(vec![0; 200_000]);
        let sandbox = sandbox.file(&temp, &bytes);
        let path = sandbox.path(&temp);
        let file = fs::File::options().write(true).open(&path).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_000);
        file.set_modified(then).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640))
            .unwrap();
        drop(file);
        let of = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
            )
        };
        let before = of(&path);
        let id = quarantine(&sandbox, &temp, &[]);
        let ran = restore(&sandbox, &["--json", &id]).exit(0);
        let events = ran.events();
        let event = events.one("restored");
        let target = sandbox.path("sub/sessions.json");
        assert_eq!(event["path"], target.to_str().unwrap());
        assert_eq!(event["id"], id.as_str());
        assert_eq!(of(&target), before);
        assert!(fs::read(&target).unwrap() == bytes, "other bytes");
        assert_eq!(stored(&sandbox), 1);
        // The target exists now, and is never overwritten.
        sandbox.write("sub/sessions.json", "newer");
        restore(&sandbox, &[&id])
            .exit(1)
            .prints_nothing()
            .stderr_has("already exists");
        assert_eq!(sandbox.content("sub/sessions.json"), "newer");
        assert_eq!(stored(&sandbox), 1);
        assert_eq!(fs::read_dir(sandbox.path("sub")).unwrap().count(), 1);
        // The copy is still restored to its old path.
        sandbox.run(["restore", &id]).exit(0);
        assert!(sandbox.has(&temp) && !sandbox.has(".orphand"));
    });
}

/// A symlink without a target is a file of that name too.
#[test]
fn a_dangling_link_is_not_followed() {
    let sandbox = Sandbox::new().file("a.json.tmp", "a");
    let id = quarantine(&sandbox, "a.json.tmp", &[]);
    std::os::unix::fs::symlink("elsewhere", sandbox.path("a.json")).unwrap();
    restore(&sandbox, &[&id])
        .exit(1)
        .stderr_has("already exists");
    assert!(!sandbox.has("elsewhere"));
    assert_eq!(stored(&sandbox), 1);
}

#[test]
fn a_name_without_a_target_is_refused() {
    let sandbox = Sandbox::new().file("tmpa1b2c3d4", "a");
    let id = quarantine(&sandbox, "tmpa1b2c3d4", &["--writer", "python"]);
    restore(&sandbox, &[&id])
        .exit(1)
        .prints_nothing()
        .stderr_has("does not contain the name of a target")
        .stderr_has(&format!("restore --to PATH {id}"));
    restore(&sandbox, &["--to", "root/a", &id]).exit(2);
    assert_eq!(stored(&sandbox), 1);
}

/// The grammars of writers that the configuration does not turn on are used too. Digits that belong to the target by
/// its siblings stay.
#[test]
fn the_target_is_the_one_of_the_rule() {
    let hex = "b.json.tmp.4194000.0123456789ab";
    let sandbox = Sandbox::new().file(hex, "b");
    let id = quarantine(&sandbox, hex, &["--writer", "claude-code"]);
    restore(&sandbox, &[&id]).exit(0);
    assert_eq!(sandbox.content("b.json"), "b");
    sandbox.write("metrics.4193999", "sibling");
    let numbered = format!("metrics.4194000.{UUID}.tmp");
    sandbox.write(&numbered, "m");
    let id = quarantine(&sandbox, &numbered, &[]);
    restore(&sandbox, &[&id]).exit(0);
    assert_eq!(sandbox.content("metrics.4194000"), "m");
    let hidden = format!(".p.json.4194000.{UUID}.tmp");
    sandbox.write(&hidden, "p");
    let id = quarantine(&sandbox, &hidden, &[]);
    restore(&sandbox, &[&id]).exit(0);
    assert_eq!(sandbox.content("p.json"), "p");
}

/// Of two copies of one target, only the first one that is named is restored.
#[test]
fn several_files_end_with_a_sum() {
    let other = UUID.replace('0', "1");
    let (one, two) = (format!("s.json.{UUID}.tmp"), format!("s.json.{other}.tmp"));
    let sandbox = Sandbox::new().file(&one, "one").file(&two, "two");
    sandbox.write("c.tmp", "c");
    quarantine(&sandbox, &one, &[]);
    let path = |name: &str| format!("root/{name}");
    restore(&sandbox, &[&path(&one), &path(&two), &path("c.tmp")])
        .exit(3)
        .stdout_has("  copied   ")
        .stdout_has(" is still in the quarantine\n")
        .stdout_has("3 files: 2 restored, 1 failed, 0 left");
    let quiet = restore(&sandbox, &["-q", &path(&two)]).exit(1);
    quiet.prints_nothing();
    assert_eq!(sandbox.content("s.json"), "one");
    assert_eq!(sandbox.content("c"), "c");
    assert_eq!(stored(&sandbox), 3);
}

/// A symlink in the place of a directory does not lead out of the root.
#[test]
fn a_target_is_not_restored_outside_the_root() {
    let sandbox = Sandbox::new().file("sub/a.tmp", "a");
    let id = quarantine(&sandbox, "sub/a.tmp", &[]);
    fs::remove_dir(sandbox.path("sub")).unwrap();
    sandbox.make_dir("../outside");
    std::os::unix::fs::symlink("../outside", sandbox.path("sub")).unwrap();
    restore(&sandbox, &[&id]).exit(1).prints_nothing();
    assert!(!sandbox.has("../outside/a"));
}

#[cfg(target_os = "linux")]
#[test]
fn an_open_directory_is_reported() {
    let sandbox = Sandbox::new().file("a.tmp", "a");
    let id = quarantine(&sandbox, "a.tmp", &[]);
    let _open = fs::File::open(sandbox.root()).unwrap();
    restore(&sandbox, &[&id])
        .exit(0)
        .stderr_has(&format!("[{}]", std::process::id()));
    assert_eq!(sandbox.content("a"), "a");
}

/// A watcher leaves a restored target alone, even if its rule matches the target's name.
#[test]
fn a_watcher_keeps_a_restored_target() {
    let sandbox = Sandbox::new().file("a.tmp.tmp", "a");
    let id = quarantine(&sandbox, "a.tmp.tmp", &[]);
    restore(&sandbox, &[&id]).exit(0);
    sandbox.age(Duration::from_millis(150));
    let events = sandbox.sweep(["--grace", "100ms"]).exit(0).events();
    assert_eq!(events.about("a.tmp"), ["kept restored"]);
}

/// Another file may show that the target has a longer name. Once that file is gone, the target is not known.
#[test]
fn a_longer_target_is_restored_or_none() {
    let other = "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b";
    for (sibling, temp, target) in [
        (
            format!("app.{other}"),
            format!("app.{UUID}.tmp"),
            format!("app.{UUID}"),
        ),
        (
            format!("app.4194000.{other}"),
            format!("app.4194000.{UUID}.tmp"),
            format!("app.4194000.{UUID}"),
        ),
        (
            "app.4193999".into(),
            format!("app.4194000.{UUID}.tmp"),
            "app.4194000".into(),
        ),
    ] {
        let sandbox = Sandbox::new()
            .file(&temp, "data")
            .file(&sibling, "another file");
        let id = quarantine(&sandbox, &temp, &[]);
        let hidden = sandbox.base().join("hidden");
        fs::rename(sandbox.path(&sibling), &hidden).unwrap();
        restore(&sandbox, &[&id])
            .exit(1)
            .prints_nothing()
            .stderr_has("has a longer name")
            .stderr_has(&format!("restore --to PATH {id}"));
        fs::rename(&hidden, sandbox.path(&sibling)).unwrap();
        restore(&sandbox, &[&id]).exit(0);
        assert_eq!(sandbox.content(&target), "data", "{temp}");
    }
}

/// Two targets can have temps of the same name.
#[test]
fn a_name_of_several_targets_is_refused() {
    let temp = ".bashrc.Ab3xYz";
    let sandbox = Sandbox::new().file(temp, "data");
    let config = "[defaults]\nwriters = [\"rsync\"]\n";
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
    let id = quarantine(&sandbox, temp, &[]);
    restore(&sandbox, &[&id])
        .exit(1)
        .prints_nothing()
        .stderr_has("\"bashrc\"")
        .stderr_has("\".bashrc\"");
    assert_eq!(stored(&sandbox), 1);
}

/// A user who is not in the group of a file cannot give it to the copy. The group of the copy then gets no rights. Needs
/// root, for a file of another group.
#[test]
fn a_copy_gives_no_rights_to_another_group() {
    Sandbox::for_each_user(|sandbox| {
        let Some(uid) = sandbox.user() else {
            return;
        };
        let sandbox = sandbox.file("a.json.tmp", "secret");
        let path = sandbox.path("a.json.tmp");
        std::os::unix::fs::chown(&path, Some(uid), Some(uid + 1)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let id = quarantine(&sandbox, "a.json.tmp", &[]);
        restore(&sandbox, &[&id]).exit(0);
        let copy = fs::metadata(sandbox.path("a.json")).unwrap();
        assert_ne!(copy.gid(), uid + 1);
        assert_eq!(copy.mode() & 0o777, 0o600);
    });
}
