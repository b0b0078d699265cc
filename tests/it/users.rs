//! Files of other users, and an ordinary user on a full disk.

use std::fs;
use std::time::Duration;

use crate::sandbox::{NOBODY, Sandbox, is_root};

const SHORT: [&str; 2] = ["--grace", "100ms"];
const OLD_ENOUGH: Duration = Duration::from_millis(150);

/// An orphand of an ordinary user keeps the temps of other users, even in a directory of its own user.
#[test]
fn files_of_other_users_are_kept() {
    if !is_root() {
        return eprintln!("skipped: changing the owner of a file needs root");
    }
    let sandbox = Sandbox::ordinary()
        .file("a", "whole, to the last byte of it")
        .file("own.4194304.tmp", "")
        .file("a.tmp", "x");
    std::os::unix::fs::lchown(sandbox.path("a.tmp"), Some(0), Some(0)).unwrap();
    sandbox.age(OLD_ENOUGH);
    let scan = sandbox.scan(SHORT).exit(0).stdout_json();
    let foreign = scan["temps"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["reason"] == "foreign-owner");
    assert!(foreign.is_some(), "{scan}");
    for options in [&[][..], &["--open", "reap"], &["--sole-copy", "reap"]] {
        let events = sandbox.sweep(SHORT.iter().chain(options)).exit(0).events();
        assert_eq!(events.about("a.tmp"), ["kept foreign-owner"], "{options:?}");
    }
    assert_eq!(sandbox.listing(), ["a", "a.tmp"]);
    let mut watching = sandbox.watch(["--grace", "200ms"]).ready();
    watching.wait_for(crate::sandbox::kept("a.tmp", "foreign-owner"));
    watching.wait_for_sentinel(&sandbox);
    watching.stop().exit(0);
    assert_eq!(sandbox.content("a.tmp"), "x");
}

#[test]
fn root_removes_files_of_any_user() {
    if !is_root() {
        return eprintln!("skipped: not root");
    }
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .file("sole.tmp", "precious");
    for temp in ["a.tmp", "sole.tmp"] {
        std::os::unix::fs::lchown(sandbox.path(temp), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.sums(), [1, 1, 0, 0]);
    // It is stored and restored unchanged.
    let id = events.one("quarantined")["id"].as_str().unwrap();
    let owner = |path: &std::path::Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().uid()
    };
    assert_eq!(
        owner(&sandbox.path(format!(".orphand/{id}/sole.tmp"))),
        NOBODY
    );
    sandbox.run(["restore", id]).exit(0);
    assert_eq!(owner(&sandbox.path("sole.tmp")), NOBODY);
}

/// A quarantine of another user is not used.
#[test]
fn a_quarantine_of_another_user_is_not_used() {
    if !is_root() {
        return eprintln!("skipped: changing the owner of a folder needs root");
    }
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new().dir(".orphand").file("sole.tmp", "precious");
    let quarantine = sandbox.path(".orphand");
    fs::set_permissions(&quarantine, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::lchown(&quarantine, Some(NOBODY), Some(NOBODY)).unwrap();
    sandbox.age(OLD_ENOUGH);
    let events = sandbox.sweep(SHORT).exit(0).events();
    assert_eq!(events.about("sole.tmp"), ["kept no-quarantine"]);
    assert!(sandbox.has(".orphand") && sandbox.has("sole.tmp"));
}

/// A full disk is when orphand is needed: nothing that orphand wants to write for itself may stop a deletion.
// Linux only: a private disk needs a mount namespace.
#[cfg(target_os = "linux")]
#[test]
fn on_a_full_disk_deletions_still_happen() {
    for (system, mount) in [
        (
            "tmpfs",
            "mount -t tmpfs -o size=4m,nr_inodes=1024,mode=755 none \"$1\"",
        ),
        (
            "ext4",
            "truncate -s 8M image && mkfs.ext4 -q -m 0 -N 1024 image && mount -o loop image \"$1\"",
        ),
    ] {
        match Sandbox::on_disk(mount) {
            Ok(sandbox) => assert_sweep_on_full_disk(&sandbox, system),
            Err(why) => eprintln!("skipped on {system}: {why}"),
        }
    }
}

#[cfg(target_os = "linux")]
fn assert_sweep_on_full_disk(sandbox: &Sandbox, system: &str) {
    const ORPHANS: u64 = 300;
    let on_it = |name: &str| sandbox.disk_path(name);
    let give = |name: &str| sandbox.chown_to_user(&on_it(name));
    fs::write(on_it("root/a"), "y".repeat(700)).unwrap();
    for n in 0..ORPHANS {
        let temp = format!("root/a.{n:08x}-2fa1-11d2-883f-0016d3cca427.tmp");
        fs::write(on_it(&temp), "x".repeat(600)).unwrap();
        give(&temp);
    }
    give("root/a");
    fill(&sandbox.disk_path(""));
    let refused = fs::create_dir(on_it("state/one")).map_err(|error| error.kind());
    assert_eq!(
        refused,
        Err(std::io::ErrorKind::StorageFull),
        "{system} is full"
    );

    std::thread::sleep(OLD_ENOUGH);
    let ran = sandbox
        .run(["sweep", "--yes", "--json", "--grace", "100ms", "disk/root"])
        .exit(0);
    assert_eq!(
        ran.events().sums(),
        [ORPHANS, 0, 0, 0],
        "{system}: {}",
        ran.stderr
    );
    let left: Vec<_> = fs::read_dir(on_it("root"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["a"], "{system}");
    assert_eq!(
        fs::read_to_string(on_it("root/a")).unwrap(),
        "y".repeat(700)
    );
    assert!(
        !ran.stderr.is_empty(),
        "{system}: the failed writes are not reported"
    );
    println!("{system}: {ORPHANS} orphans went from a full disk");
}

/// Fills the disk until there is no room for a byte or a name.
#[cfg(target_os = "linux")]
fn fill(disk: &std::path::Path) {
    use std::io::Write;
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    for size in [65_536, 4096, 512, 1] {
        while filler.write_all(&vec![b'x'; size]).is_ok() {}
    }
    let _ = filler.sync_all();
    for n in 0.. {
        if fs::File::create(disk.join(format!("filler-{n}"))).is_err() {
            break;
        }
    }
}
