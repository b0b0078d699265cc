use super::folder::MAX_DEPTH;
use super::stored::is_old_id;
use super::*;
use crate::core::policy::Policy;
use crate::evidence::UseChecker;
use crate::sys::clock;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fs::dir::Dir;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

#[test]
fn a_quarantine_must_be_ours_and_closed() {
    type Make = fn(&Path);
    fn with_mode(at: &Path, mode: u32) {
        fs::create_dir(at).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
    }
    let rows: [(&str, Make, bool, Option<bool>); 5] = [
        ("none", |_| {}, true, Some(false)),
        ("ours", |at| with_mode(at, 0o700), true, Some(true)),
        ("open to its group", |at| with_mode(at, 0o750), false, None),
        ("a file", |at| fs::write(at, "").unwrap(), false, None),
        (
            "a symlink",
            |at| std::os::unix::fs::symlink(".", at).unwrap(),
            false,
            None,
        ),
    ];
    for (what, make, possible, found) in rows {
        let (_folder, path) = folder();
        make(&path.join(FOLDER));
        let root = Dir::open_root(&path, None).unwrap();
        assert_eq!(is_possible(&root), possible, "{what}");
        let find = Quarantine::open_existing(&path, None).ok();
        assert_eq!(find.map(|quarantine| quarantine.is_some()), found, "{what}");
    }
}

#[test]
fn no_slot_is_made_too_deep() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let deep = |parts: usize| PathBuf::from_iter(vec!["d"; parts]).join("a.tmp");
    let error = quarantine
        .new_slot(&deep(MAX_DEPTH - 1), MovedAs::SoleCopy)
        .expect_err("too deep");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NAMETOOLONG));

    let slot = quarantine
        .new_slot(&deep(MAX_DEPTH - 2), MovedAs::SoleCopy)
        .unwrap();
    make(&slot, "a.tmp");
    let id = slot.keep();
    let stored = quarantine.stored().unwrap();
    let found: Vec<_> = stored.iter().map(|one| (&one.id, &one.below)).collect();
    assert_eq!(found, [(&id, &deep(MAX_DEPTH - 2))]);
}

fn make(slot: &Slot, name: &str) {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    rustix::fs::openat(slot.inner_dir(), name, flags, Mode::RUSR).unwrap();
}

fn folders(path: &Path) -> usize {
    fs::read_dir(path.join(FOLDER)).unwrap().count()
}

/// Files that are moved within one hour share a folder, each under its own id. Two files with the same path do not.
#[test]
fn files_share_a_folder() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let mut ids = HashSet::new();
    for name in ["a.tmp", "b.tmp", "sub/a.tmp", "sub/deep/a.tmp"] {
        let slot = quarantine
            .new_slot(Path::new(name), MovedAs::SoleCopy)
            .unwrap();
        make(
            &slot,
            Path::new(name).file_name().unwrap().to_str().unwrap(),
        );
        ids.insert(slot.keep());
    }
    assert_eq!(folders(&path), 1);
    let slot = quarantine
        .new_slot(Path::new("a.tmp"), MovedAs::SoleCopy)
        .unwrap();
    make(&slot, "a.tmp");
    ids.insert(slot.keep());
    assert_eq!(folders(&path), 2);
    // A file is where a directory would be needed.
    let slot = quarantine
        .new_slot(Path::new("b.tmp/c.tmp"), MovedAs::SoleCopy)
        .unwrap();
    make(&slot, "c.tmp");
    ids.insert(slot.keep());
    assert_eq!((folders(&path), ids.len()), (2, 6));
    assert!(ids.iter().all(|id| is_id(id)), "{ids:?}");

    let stored = quarantine.stored().unwrap();
    let found: HashSet<String> = stored.iter().map(|one| one.id.clone()).collect();
    assert_eq!(found, ids);
    for one in &stored {
        quarantine.purge(one).unwrap();
    }
    assert_eq!(folders(&path), 0);
    drop(quarantine);
    assert!(!path.join(FOLDER).exists());
}

/// Entries of a folder that orphand did not create are left out and kept.
#[test]
fn foreign_entries_in_a_folder_are_ignored() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let slot = quarantine
        .new_slot(Path::new("sub/a.tmp"), MovedAs::SoleCopy)
        .unwrap();
    make(&slot, "a.tmp");
    let at = path.join(FOLDER).join(&slot.dir.folder_name);
    let id = slot.keep();
    std::os::unix::fs::symlink("a.tmp", at.join("link")).unwrap();
    fs::create_dir(at.join("open")).unwrap();
    fs::set_permissions(at.join("open"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at.join("open/b.tmp"), "").unwrap();
    let stored = quarantine.stored().unwrap();
    assert_eq!(stored.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id]);
    fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(quarantine.stored().unwrap().is_empty());
    assert!(quarantine.purge(&stored[0]).is_err());
    let stored = Vec::from_iter(stored.into_iter().map(Arc::new));
    assert!(!quarantine.are_unchanged(&stored));
    fs::set_permissions(at.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(quarantine.are_unchanged(&stored));
    fs::set_permissions(&at, fs::Permissions::from_mode(0o701)).unwrap();
    assert!(quarantine.stored().unwrap().is_empty() && !quarantine.are_unchanged(&stored));
    assert!(at.join("sub/a.tmp").exists() && at.join("open/b.tmp").exists());
}

/// The limits delete a file only if no process uses it right before.
#[test]
fn a_used_or_changed_file_is_not_deleted() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let slot = quarantine
        .new_slot(Path::new("a.tmp"), MovedAs::SoleCopy)
        .unwrap();
    make(&slot, "a.tmp");
    drop(slot.keep());
    let use_checker = UseChecker::new();
    let stored = quarantine.stored().unwrap();
    let file = path.join(stored[0].path());
    let busy = |stored: &Stored| {
        let deleted = quarantine.delete_unused(stored, &use_checker);
        assert_eq!(deleted.unwrap_err().raw_os_error(), Some(libc::EBUSY));
        assert!(file.exists());
    };
    let mut open = fs::File::options().append(true).open(&file).unwrap();
    busy(&stored[0]);
    open.write_all(b"more").unwrap();
    drop(open);
    busy(&stored[0]);
    let stored = quarantine.stored().unwrap();
    quarantine.delete_unused(&stored[0], &use_checker).unwrap();
    assert!(!file.exists());
    assert_eq!(folders(&path), 0);
}

/// Empty folders are removed, but not while a file is about to be moved into one.
#[test]
fn empty_folders_are_removed_unless_in_use() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let slot = quarantine
        .new_slot(Path::new("sub/deep/a.tmp"), MovedAs::SoleCopy)
        .unwrap();
    for _ in 0..2 {
        quarantine.remove_stale_slots();
        quarantine.remove_empty(&slot.dir.folder_name, &slot.dir.below);
    }
    make(&slot, "a.tmp");
    drop(slot.keep());
    assert_eq!(quarantine.stored().unwrap().len(), 1);
    quarantine.remove_stale_slots();
    assert_eq!(quarantine.stored().unwrap().len(), 1);
    quarantine.purge(&quarantine.stored().unwrap()[0]).unwrap();
    drop(
        quarantine
            .new_slot(Path::new("sub/b.tmp"), MovedAs::SoleCopy)
            .unwrap(),
    );
    assert_eq!(folders(&path), 0);
    fs::create_dir_all(path.join(FOLDER).join("q0123abc/sub/deep")).unwrap();
    quarantine.remove_stale_slots();
    assert_eq!(folders(&path), 0);
}

#[test]
fn a_removed_quarantine_has_no_slots() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    fs::remove_dir(path.join(FOLDER)).unwrap();
    let error = quarantine
        .new_slot(Path::new("a.tmp"), MovedAs::SoleCopy)
        .expect_err("no folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn ids_have_a_fixed_form() {
    for (id, given, possible) in [
        ("q0123abc", true, true),
        ("x0123abc", false, true),
        ("q0123abg", false, true),
        ("q0123ABC", false, true),
        ("q0123ab", false, true),
        ("q0123abcd", false, true),
        ("0123456789abcdeF", false, true),
        ("0123456789abcdef0", false, false),
        ("", false, false),
        ("a/b", false, false),
        ("..", false, false),
        ("é", false, false),
    ] {
        assert_eq!((is_old_id(id), is_id(id)), (given, possible), "{id:?}");
    }
}

/// The copy has the name only when it is complete, and replaces no file that got the name in between.
#[test]
fn a_copy_gets_its_name_last() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    fs::create_dir(path.join(".orphand/q0000001")).unwrap();
    fs::set_permissions(
        path.join(".orphand/q0000001"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    fs::write(path.join(".orphand/q0000001/a.tmp"), "stored").unwrap();
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let names = || {
        let names = fs::read_dir(&path).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let copy = |mark: &dyn Fn()| {
        let copied = quarantine.copy_set_out(
            &sets[0],
            dir.fd(),
            "a".as_ref(),
            |_, _| mark(),
            &Policy::default(),
        );
        copied.map_err(|error| error.error)
    };
    let taken = copy(&|| {
        let names = names();
        assert!(names.len() == 2, "{names:?}");
        for name in names {
            assert!(crate::core::own_names::is_own(&name), "{name:?}");
            assert_eq!(crate::core::own_names::parse_claim(&name), None);
        }
        fs::write(path.join("a"), "other").unwrap();
    });
    assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(names(), [".orphand", "a"]);
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "other");
    fs::remove_file(path.join("a")).unwrap();
    copy(&|| {}).unwrap();
    assert_eq!(names(), [".orphand", "a"]);
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "stored");
    assert_eq!(quarantine.stored().unwrap().len(), 1);
}

/// Stores a set of these names, the first of which is the main file. Returns the ids.
fn store_set(quarantine: &Arc<Quarantine>, names: &[&str]) -> Vec<String> {
    let below: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    let slots = quarantine.new_set_slots(&below, MovedAs::SoleCopy).unwrap();
    for (slot, name) in slots.iter().zip(names) {
        make(slot, name);
    }
    slots.into_iter().map(Slot::keep).collect()
}

/// Only files that were moved together form a set, whatever the names of others are.
#[test]
fn a_set_has_a_folder_of_its_own() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let store_single = |name: &str| {
        let slot = quarantine
            .new_slot(Path::new(name), MovedAs::SoleCopy)
            .unwrap();
        make(&slot, name);
        slot.keep()
    };
    let wal = store_single("a.tmp-wal");
    let set = store_set(&quarantine, &["a.tmp", "a.tmp-wal", "a.tmp-shm"]);
    let other = store_set(&quarantine, &["a.tmp", "a.tmp-wal"]);
    let single = store_single("a.tmp");
    let other_name = store_single("b.tmp");
    assert_eq!(folders(&path), 3);
    let all = quarantine.stored().unwrap();
    let of_name = all.iter().find(|one| one.id == other_name).unwrap();
    assert!(!of_name.is_of_set(), "the folder of a set is not shared");
    fs::remove_file(path.join(of_name.path())).unwrap();
    let ids: HashSet<&String> = set.iter().chain(&other).chain([&wal, &single]).collect();
    assert_eq!(ids.len(), 7, "each file has its own id");
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let mut found: Vec<Vec<&str>> = sets
        .iter()
        .map(|set| {
            set.members()
                .into_iter()
                .map(|one| one.id.as_str())
                .collect()
        })
        .collect();
    for ids in &mut found {
        ids[1..].sort_unstable();
    }
    found.sort();
    let singles = [vec![wal], vec![single]];
    let mut expected: Vec<Vec<&str>> = [&set, &other, &singles[0], &singles[1]]
        .map(|ids| ids.iter().map(String::as_str).collect())
        .to_vec();
    for ids in &mut expected {
        ids[1..].sort_unstable();
    }
    expected.sort();
    assert_eq!(found, expected);
}

/// Companions that a killed orphand left follow their main file, and not another one of the same name.
#[test]
fn a_companion_follows_its_main_file() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    let unborn = clock::wall();
    pause();
    let old = store_set(&quarantine, &["a.tmp"]);
    let new = store_set(&quarantine, &["a.tmp"]);
    pause();
    let claimed = clock::wall();
    for id in [&old[0], &new[0]] {
        pause();
        let all = quarantine.stored().unwrap();
        let one = all.into_iter().find(|one| one.id == *id).unwrap();
        // As if it had been moved just now.
        let rights = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path.join(one.path()), rights).unwrap();
    }
    let slot = |claimed| {
        let (main, wal) = (Path::new("a.tmp"), Path::new("a.tmp-wal"));
        let set = ClaimedSet {
            digits: None,
            at: claimed,
        };
        quarantine.slot_beside(main, wal, set).unwrap()
    };
    let folder_of = |id: &String| {
        let all = quarantine.stored().unwrap();
        let one = all.into_iter().find(|one| one.id == *id).unwrap();
        one.folder_name().to_owned()
    };
    let found = slot(claimed).expect("the folder of the first set");
    assert_eq!(found.dir().folder_name, folder_of(&old[0]));
    make(&found, "a.tmp-wal");
    drop(found);
    // The name is in use there.
    let found = slot(claimed).expect("the folder of the second set");
    assert_ne!(found.dir().folder_name, folder_of(&old[0]));
    drop(found);
    let newest = quarantine.stored().unwrap().iter().map(Stored::since).max();
    let later = crate::core::time::Wall {
        sec: newest.unwrap().sec + 1,
        nsec: 0,
    };
    assert!(slot(later).is_none(), "no main file was moved after that");
    assert!(slot(unborn).is_none(), "no main file had been born then");
}

/// The folder of a set has the digits of its claims, so a change of dates leads no companion to another set.
#[test]
fn a_companion_follows_the_digits_of_its_set() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let (main, wal) = (Path::new("a.tmp"), Path::new("a.tmp-wal"));
    let claim = OsStr::new(".orphand-0123456789abcdef-a.tmp");
    fs::write(path.join(claim), "content").unwrap();
    let slots = quarantine.new_set_slots(&[main.to_owned()], MovedAs::SoleCopy);
    let slot = slots.unwrap().remove(0);
    assert!(slot.receive(&dir, claim, main.as_os_str()).unwrap());
    let folder = slot.dir().folder_name.clone();
    drop(slot.keep());
    let beside = |digits, at| {
        let set = ClaimedSet {
            digits: Some(digits),
            at,
        };
        let slot = quarantine.slot_beside(main, wal, set).unwrap();
        slot.map(|slot| slot.dir().folder_name.clone())
    };
    let long_ago = crate::core::time::Wall::default();
    let later = crate::core::time::Wall {
        sec: clock::wall().sec + 1000,
        nsec: 0,
    };
    assert_eq!(beside("0123456789abcde0", long_ago), None);
    assert_eq!(beside("0123456789abcdef", later), Some(folder));
}

/// A restored log would be read as a part of the database beside it.
#[test]
fn a_companion_is_not_restored_beside_another_main_file() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    store_set(&quarantine, &["a.tmp-journal"]);
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let restore = |name: &str| {
        let policy = Policy::default();
        quarantine.restore_set(&sets[0], dir.fd(), name.as_ref(), |_, _| {}, &policy)
    };
    fs::write(path.join("a.tmp"), "another database").unwrap();
    let error = restore("a.tmp-journal").expect_err("a.tmp exists").error;
    assert!(error.to_string().contains("a.tmp"), "{error}");
    fs::remove_file(path.join("a.tmp")).unwrap();
    restore("a.tmp-journal").unwrap();
}

/// Another user of the directory may replace a copy before it has its name.
#[test]
fn a_replaced_copy_does_not_replace_the_original() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    store_set(&quarantine, &["a.tmp"]);
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let replace = |_: rustix::fd::BorrowedFd<'_>, _: &crate::core::observation::Observation| {
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap();
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(b".orphand-restore-")
            {
                fs::remove_file(entry.path()).unwrap();
                fs::write(entry.path(), "something else").unwrap();
            }
        }
    };
    let members = sets[0].members();
    let targets = ["b".into()];
    let policy = Policy::default();
    let copied = quarantine.copy_and_remove(&members, dir.fd(), &targets, &replace, &policy);
    assert!(copied.is_err());
    assert!(path.join(sets[0].main.path()).exists());
}

#[test]
fn a_set_is_restored_or_copied_if_all_names_are_free() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    store_set(&quarantine, &["a.tmp", "a.tmp-wal"]);
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let names = || {
        let names = fs::read_dir(&path).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for taken in ["b-wal", "b"] {
        fs::write(path.join(taken), "other").unwrap();
        for copies in [true, false] {
            let done = match copies {
                true => quarantine.copy_set_out(
                    &sets[0],
                    dir.fd(),
                    "b".as_ref(),
                    |_, _| {},
                    &Policy::default(),
                ),
                false => quarantine.restore_set(
                    &sets[0],
                    dir.fd(),
                    "b".as_ref(),
                    |_, _| {},
                    &Policy::default(),
                ),
            };
            let error = done.expect_err("a name exists");
            assert_eq!(error.error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(names(), [".orphand", taken]);
        }
        fs::remove_file(path.join(taken)).unwrap();
    }
    quarantine
        .copy_set_out(
            &sets[0],
            dir.fd(),
            "b".as_ref(),
            |_, _| {},
            &Policy::default(),
        )
        .unwrap();
    assert_eq!(names(), [".orphand", "b", "b-wal"]);
    // The main file's name is taken at the last moment: the companion is taken back.
    let take = |_: rustix::fd::BorrowedFd<'_>, _: &crate::core::observation::Observation| {
        let _ = fs::write(path.join("c"), "other");
    };
    for copies in [true, false] {
        let done = match copies {
            true => {
                quarantine.copy_set_out(&sets[0], dir.fd(), "c".as_ref(), take, &Policy::default())
            }
            false => {
                quarantine.restore_set(&sets[0], dir.fd(), "c".as_ref(), take, &Policy::default())
            }
        };
        assert_eq!(done.expect_err("the name exists").member, 0);
        assert_eq!(names(), [".orphand", "b", "b-wal", "c"], "{copies}");
        fs::remove_file(path.join("c")).unwrap();
    }
    assert_eq!(quarantine.stored().unwrap().len(), 2);
    quarantine
        .restore_set(
            &sets[0],
            dir.fd(),
            "c".as_ref(),
            |_, _| {},
            &Policy::default(),
        )
        .unwrap();
    assert_eq!(names(), [".orphand", "b", "b-wal", "c", "c-wal"]);
    assert_eq!(folders(&path), 0);
}

/// A copy replaces a stored file only if no process uses that file, and if nothing has changed it while it was copied.
#[test]
fn a_copy_replaces_only_an_unused_and_unchanged_file() {
    let (_folder, path) = folder();
    let quarantine = Arc::new(Quarantine::open_or_create(&path, None).unwrap());
    store_set(&quarantine, &["a.tmp", "a.tmp-wal"]);
    let sets = StoredSet::group(quarantine.stored().unwrap());
    let dir = Dir::open_root(&path, None).unwrap();
    let wal = path.join(sets[0].companions[0].path());
    let targets = ["b", "b-wal"].map(Into::into);
    let copy = |mark: &dyn Fn()| {
        let members = sets[0].members();
        let mark =
            |_: rustix::fd::BorrowedFd<'_>, _: &crate::core::observation::Observation| mark();
        quarantine.copy_and_remove(&members, dir.fd(), &targets, &mark, &Policy::default())
    };
    let open = || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::File::options();
        options.append(true).custom_flags(libc::O_NONBLOCK);
        options.open(&wal)
    };
    let refused = |done: Result<(), SetError>, what: &str| {
        let failure = done.expect_err(what);
        assert_eq!(failure.member, 1, "{what}");
        let names = fs::read_dir(&path).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [".orphand"], "{what}");
        assert_eq!(quarantine.stored().unwrap().len(), 2, "{what}");
        NotReplaced::of(&failure.error).expect(what).to_string()
    };
    // Each is done twice, once for each member that is copied.
    let changed = refused(
        copy(&|| fs::set_permissions(&wal, fs::Permissions::from_mode(0o640)).unwrap()),
        "changed",
    );
    assert!(changed.contains("has changed"), "{changed}");
    #[cfg(target_os = "linux")]
    {
        let opened = refused(copy(&|| assert!(open().is_err())), "opened");
        assert!(opened.contains("uses the stored file"), "{opened}");
    }
    let held = open().unwrap();
    let used = refused(copy(&|| {}), "in use");
    assert!(used.contains("uses the stored file"), "{used}");
    drop(held);
    // fsync(2) fails for a directory that was opened only as a path.
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsFd;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let unwritten = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        let targets = ["c", "c-wal"].map(Into::into);
        let policy = Policy::default();
        let members = sets[0].members();
        let copied =
            quarantine.copy_and_remove(&members, unwritten.as_fd(), &targets, &|_, _| {}, &policy);
        let error = copied
            .expect_err("the copy's name is not on the disk")
            .error;
        let reason = NotReplaced::of(&error).expect("a reason").to_string();
        assert!(
            reason.contains("the copy is complete") && reason.contains("to the disk"),
            "{reason}"
        );
        assert_eq!(quarantine.stored().unwrap().len(), 2);
    }
    copy(&|| {}).unwrap();
    assert_eq!(folders(&path), 0);
}
