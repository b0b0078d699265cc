//! The whole protocol on each trusted file system, and the result for a temp where the kernel grants no
//! leases.
//!
//! The tests use loop mounts in a private mount namespace, so they need Linux and root. A file system is
//! skipped with a report if the kernel or the program that creates it is missing.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::policy::{Open, Policy};
use orphand::fs::dir::Dir;
use orphand::reap::quarantine::Quarantine;
use orphand::reap::{Reaper, Step};
use tempfile::TempDir;

use crate::fixture::*;
use crate::holders::{HoldKind, Holding};
use crate::incidents::refuse_leases;

/// The file systems of the list in docs/platforms.md.
const SYSTEMS: [&str; 6] = ["ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlayfs"];

/// A disk that is mounted until this is dropped.
struct MountedDisk {
    at: PathBuf,
    system: &'static str,
    base: TempDir,
}

impl MountedDisk {
    /// Creates a disk of at least `megabytes`; some file systems need more to be created at all.
    fn new(system: &'static str, megabytes: u64) -> Result<MountedDisk, String> {
        let base = TempDir::new().unwrap();
        let path = |name: &str| base.path().join(name);
        let at = path("disk");
        fs::create_dir(&at).unwrap();
        let (least, make): (u64, &[&str]) = match system {
            "ext4" => (8, &["mkfs.ext4", "-q", "-m", "0"]),
            "xfs" => (300, &["mkfs.xfs", "-q"]),
            "btrfs" => (114, &["mkfs.btrfs", "-q"]),
            "f2fs" => (64, &["mkfs.f2fs", "-q"]),
            _ => (0, &[]),
        };
        let size = megabytes.max(least) << 20;
        if let [program, options @ ..] = make {
            let image = path("image");
            File::create(&image).unwrap().set_len(size).unwrap();
            run_command(Command::new(program).args(options).arg(&image))?;
            run_command(
                Command::new("mount")
                    .args(["-o", "loop"])
                    .args([&image, &at]),
            )?;
        } else {
            try_mount("tmpfs", base.path(), "tmpfs", 0, &format!("size={size}"))
                .map_err(|error| error.to_string())?;
            fs::create_dir(&at).unwrap();
        }
        if system == "overlayfs" {
            let layers = ["lower", "upper", "work"].map(path);
            for layer in &layers {
                fs::create_dir(layer).unwrap();
            }
            let [lower, upper, work] = layers.map(|layer| layer.display().to_string());
            let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
            try_mount("overlay", &at, "overlay", 0, &options).map_err(|error| error.to_string())?;
        }
        Ok(MountedDisk { at, system, base })
    }

    fn fixture(&self) -> Fixture {
        Fixture::within(TempDir::new_in(&self.at).unwrap())
    }

    /// Asserts that an orphan was removed. On overlayfs it is moved to quarantine instead unless every
    /// process was seen. That fails in a container, and where processes start faster than they can be
    /// examined.
    #[track_caller]
    fn assert_removed(&self, event: &Event) {
        match event {
            Event::Reaped(_) => {}
            Event::Quarantined { reason, .. } => {
                let unseen = self.system == "overlayfs" && *reason == Some(Reason::CannotTell);
                assert!(unseen, "{}: {event:?}", self.system);
            }
            _ => panic!("{}: {event:?}", self.system),
        }
    }
}

impl Drop for MountedDisk {
    fn drop(&mut self) {
        for path in [&self.at, self.base.path()] {
            let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the path ends in NUL and outlives the call. An error is fine: nothing may be mounted
            // there.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn run_command(command: &mut Command) -> Result<(), String> {
    match command.collect_output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Runs `test` on each file system that is available here.
fn for_each_file_system(megabytes: u64, test: impl Fn(&MountedDisk)) {
    in_own_process(&[RunAs::OwnMounts], || {
        for system in SYSTEMS {
            match MountedDisk::new(system, megabytes) {
                Ok(disk) => test(&disk),
                Err(why) => report_skipped(&format!("{system}: {why}")),
            }
        }
    });
}

#[test]
fn an_orphan_is_removed() {
    for_each_file_system(16, |disk| {
        let fixture = disk.fixture();
        let dir = Dir::open_root(&fixture.root.path, None).unwrap();
        assert_eq!(*dir.properties().file_system, *disk.system);
        let event = fixture.judge(TEMP);
        disk.assert_removed(&event);
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, disk.system);
        assert!(!fixture.temp.exists(), "{}", disk.system);
        let moved = usize::from(!matches!(event, Event::Reaped(_)));
        assert_eq!(fixture.files().len(), 1 + moved, "{}", disk.system);
    });
}

/// Judges the temp, which is in use. A file without a disk of its own also counts as locked while any process locks a
/// file with the same inode number, as another test may do. Then it is judged again.
fn judge_held(fixture: &Fixture, want: Reason) -> Event {
    let has_no_disk = rustix::fs::major(fs::metadata(&fixture.temp).unwrap().dev()) == 0;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let event = fixture.judge(TEMP);
        let is_locked = matches!(&event, Event::Kept { reason, .. } if *reason == Reason::Locked);
        if !(has_no_disk && is_locked && want != Reason::Locked && Instant::now() < end) {
            return event;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// On overlayfs a lease does not cover mappings: the temp is moved to quarantine unless no process is proven
/// to have one.
#[test]
fn a_held_temp_is_kept() {
    for_each_file_system(16, |disk| {
        for (how, want) in [
            (HoldKind::Read, Reason::InUse),
            (HoldKind::Write, Reason::InUse),
            (HoldKind::Map, Reason::InUse),
            (HoldKind::MapToWrite, Reason::InUse),
            (HoldKind::InFlight, Reason::InUse),
            (HoldKind::Flock, Reason::Locked),
            (HoldKind::Posix, Reason::Locked),
        ] {
            let fixture = disk.fixture();
            let what = format!("{}, {how:?}", disk.system);
            let holding = Holding::new(how, &fixture.temp);
            let unseen =
                disk.system == "overlayfs" && matches!(how, HoldKind::Map | HoldKind::MapToWrite);
            match judge_held(&fixture, want) {
                Event::Kept { reason, .. } if !unseen => {
                    // btrfs and overlayfs report other device numbers for their files than the table of
                    // locks. The file is in use all the same.
                    let is_expected = reason == want || reason == Reason::InUse;
                    assert!(is_expected, "{what}: {reason}");
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &what);
                }
                Event::Quarantined { reason, .. } if unseen => {
                    assert_eq!(reason, Some(Reason::CannotTell), "{what}");
                    assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1, "{what}");
                }
                event => panic!("{what}: {event:?}"),
            }
            drop(holding);
        }
    });
}

#[test]
fn the_only_copy_is_quarantined_and_restored_unchanged() {
    for_each_file_system(16, |disk| {
        let fixture = disk.fixture().with_sole_copy();
        fs::set_permissions(&fixture.temp, fs::Permissions::from_mode(0o640)).unwrap();
        let file = File::options().write(true).open(&fixture.temp).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_000_000);
        file.set_modified(long_ago).unwrap();
        drop(file);
        std::os::unix::fs::lchown(&fixture.temp, Some(NOBODY), Some(NOBODY)).unwrap();
        let was = |path: &Path| {
            let meta = fs::symlink_metadata(path).unwrap();
            let owner = (meta.uid(), meta.gid(), meta.mode(), meta.len());
            (
                owner,
                meta.mtime(),
                meta.mtime_nsec(),
                fs::read(path).unwrap(),
            )
        };
        let before = was(&fixture.temp);
        let Event::Quarantined { id: Some(id), .. } = fixture.judge(TEMP) else {
            panic!("{}: it is not moved", disk.system);
        };
        let moved = fixture.quarantine().join(&id).join(SUBDIR).join(TEMP);
        assert_eq!(was(&moved), before, "{}", disk.system);
        let quarantine = Quarantine::open_existing(&fixture.root.path, None)
            .unwrap()
            .unwrap();
        let dir = Dir::open_below(&fixture.root.path, None, Path::new(SUBDIR)).unwrap();
        let stored = quarantine.stored().unwrap();
        assert!(
            matches!(stored.as_slice(), [one] if one.id == id),
            "{stored:?}"
        );
        let restored = quarantine.restore(
            &stored[0],
            dir.fd().as_fd(),
            TEMP.as_ref(),
            |_, _| {},
            &fixture.root.policy,
        );
        assert!(restored.is_ok(), "{}: {restored:?}", disk.system);
        assert_eq!(was(&fixture.temp), before, "{}", disk.system);
        drop(quarantine);
        assert!(!fixture.quarantine().exists(), "{}", disk.system);
    });
}

#[test]
fn a_hard_linked_temp_is_kept() {
    for_each_file_system(16, |disk| {
        let fixture = disk.fixture();
        let other = fixture.outside.join("other");
        fs::hard_link(&fixture.temp, &other).unwrap();
        match fixture.judge(TEMP) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::HardLinked),
            event => panic!("{}: {event:?}", disk.system),
        }
        assert!(fixture.temp.exists() && other.exists(), "{}", disk.system);
    });
}

/// A lock keeps the temp even where the rule takes open ones, whatever device number the table of locks has.
#[test]
fn a_locked_temp_is_kept() {
    for_each_file_system(16, |disk| {
        let fixture = disk.fixture().with_policy(Policy {
            open: Open::Reap,
            ..Fixture::policy()
        });
        let holding = Holding::new(HoldKind::Flock, &fixture.temp);
        match fixture.judge(TEMP) {
            Event::Kept { reason, .. } => assert_eq!(reason, Reason::Locked, "{}", disk.system),
            event => panic!("{}: {event:?}", disk.system),
        }
        drop(holding);
        assert!(fixture.temp.exists(), "{}", disk.system);
    });
}

/// A process that intervenes at any step finds the file, or creates another one that is kept.
#[test]
fn a_replacement_at_any_step_is_kept() {
    for_each_file_system(16, |disk| {
        for step in Step::ALL {
            // On overlayfs the verdict is known only after the process scan.
            let end = Instant::now() + TIMEOUT;
            let verdicts = [Verdict::Reap, Verdict::Quarantine(Some(Reason::CannotTell))];
            for verdict in verdicts.into_iter().cycle() {
                let fixture = disk.fixture();
                let temp = fixture.temp.clone();
                let at_step = AtStep::new(step, move || {
                    let other = temp.with_extension("new");
                    fs::write(&other, b"another file").unwrap();
                    fs::rename(&other, &temp).unwrap();
                });
                let reaper = Reaper::new().with_hook(Some(at_step.hook.clone()));
                let outcome = fixture.reap_as(&reaper, verdict);
                let what = format!("{}, before {step:?}: {outcome:?}", disk.system);
                fixture.assert_no_leftovers(&what);
                if at_step.steps().contains(&step) {
                    fixture.assert_only_at(b"another file", &fixture.temp, &what);
                    break;
                }
                assert_eq!(disk.system, "overlayfs", "{what}");
                assert!(Instant::now() < end, "{what}");
            }
        }
    });
}

/// A claim of a killed orphand gets its name back at the next start, and is removed like any other orphan.
#[test]
fn a_sweep_recovers_a_claim_after_a_crash() {
    for_each_file_system(16, |disk| {
        for sole in [false, true] {
            let fixture = match sole {
                false => disk.fixture(),
                true => disk.fixture().with_sole_copy(),
            };
            let claim = format!(".orphand-0123456789abcdef-{TEMP}");
            fs::rename(&fixture.temp, fixture.dir.join(claim)).unwrap();
            let events = fixture.sweep();
            let copies = fixture.copies(TEMP_CONTENT);
            let moved = events
                .iter()
                .any(|event| matches!(event, Event::Quarantined { .. }));
            match moved {
                false => assert!(copies.is_empty() && !sole, "{}: {events:?}", disk.system),
                true => {
                    assert_eq!(copies.len(), 1, "{}: {events:?}", disk.system);
                    assert!(copies[0].starts_with(fixture.quarantine()), "{copies:?}");
                }
            }
            assert!(
                sole || !moved || disk.system == "overlayfs",
                "{}",
                disk.system
            );
            fixture.assert_no_leftovers(disk.system);
        }
    });
}

/// A full disk is when orphand is needed most.
#[test]
fn orphans_are_removed_on_a_full_disk() {
    const ORPHANS: usize = 200;
    for_each_file_system(8, |disk| {
        let fixture = disk.fixture();
        fs::remove_file(&fixture.temp).unwrap();
        for n in 0..ORPHANS {
            let temp = format!("{TARGET}.{n:08x}-2fa1-41d2-883f-0016d3cca427.tmp");
            fs::write(fixture.dir.join(temp), vec![b'x'; 5_000]).unwrap();
        }
        let whole = vec![b'y'; 5_000];
        fs::write(&fixture.target, &whole).unwrap();
        fill(&fixture.outside);
        let events = fixture.sweep();
        assert_eq!(events.len(), ORPHANS, "{}: {events:?}", disk.system);
        events.iter().for_each(|event| disk.assert_removed(event));
        fixture.assert_only_at(&whole, &fixture.target, disk.system);
        assert_eq!(
            fs::read_dir(&fixture.dir).unwrap().count(),
            1,
            "{}",
            disk.system
        );
    });
}

/// Fills every free block.
fn fill(dir: &Path) {
    let mut ballast = File::create(dir.join("ballast")).unwrap();
    for size in [1 << 20, 1 << 16, 1 << 12, 1] {
        let some = vec![b'x'; size];
        loop {
            // Some file systems accept more than they can store, and report it at the sync.
            let wrote = ballast.write_all(&some).and_then(|()| match size {
                1 => Ok(()),
                _ => ballast.sync_data(),
            });
            if wrote.is_err() {
                break;
            }
        }
    }
}

/// Without a lease there is no proof: a temp is kept where it would otherwise be removed or moved.
#[test]
fn without_leases_everything_is_kept() {
    for_each_file_system(16, |disk| {
        let stages = [disk.fixture(), disk.fixture().with_sole_copy()];
        let check = move || {
            refuse_leases();
            for fixture in &stages {
                match fixture.judge(TEMP) {
                    Event::Kept { reason, .. } => {
                        // The table of locks may have another device number for this disk. Then a foreign
                        // lock on a file with the same inode number counts.
                        let any_device =
                            rustix::fs::major(fs::metadata(&fixture.temp).unwrap().dev()) == 0;
                        let may_seem_locked = any_device && reason == Reason::Locked;
                        assert!(reason == Reason::CannotTell || may_seem_locked, "{reason}");
                    }
                    event => panic!("{event:?}"),
                }
                fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
            }
        };
        // The filter of a thread cannot be removed.
        let checked = std::thread::scope(|scope| scope.spawn(check).join());
        assert!(checked.is_ok(), "{}", disk.system);
    });
}

/// Creates an ext4 with inodes of 128 bytes, which have no room for the fraction of a second.
fn disk_with_whole_seconds() -> Result<MountedDisk, String> {
    let base = TempDir::new().unwrap();
    let (at, image) = (base.path().join("disk"), base.path().join("image"));
    fs::create_dir(&at).unwrap();
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let mut make = Command::new("mkfs.ext4");
    run_command(make.args(["-q", "-m", "0", "-I", "128"]).arg(&image))?;
    run_command(
        Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &at]),
    )?;
    Ok(MountedDisk {
        at,
        system: "ext4",
        base,
    })
}

/// A writer that replaces its temp with one of equal length within the same second changes none of its dates.
/// It loses no write, although its temp is older than a short grace at every look.
#[test]
fn whole_second_dates_do_not_lose_a_rewritten_temp() {
    in_own_process(&[RunAs::OwnMounts], || {
        let disk = match disk_with_whole_seconds() {
            Ok(disk) => disk,
            Err(why) => return report_skipped(&why),
        };
        let grace = Duration::from_millis(500);
        let policy = Policy {
            grace: orphand::core::policy::Graces::both(grace),
            ..Fixture::policy()
        };
        let fixture = disk.fixture().with_policy(policy);
        let dir = Dir::open_root(&fixture.root.path, None).unwrap();
        assert_eq!(
            dir.properties().dates,
            orphand::core::judge::Dates::WholeSeconds
        );
        let writer = {
            let (temp, target) = (fixture.temp.clone(), fixture.target.clone());
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_secs(8);
                let (mut writes, mut lost) = (0, 0);
                while Instant::now() < end {
                    fs::write(&temp, TEMP_CONTENT).unwrap();
                    // Longer than half the configured grace, shorter than half the raised one.
                    std::thread::sleep(Duration::from_millis(700));
                    writes += 1;
                    lost += usize::from(fs::rename(&temp, &target).is_err());
                }
                (writes, lost)
            })
        };
        let mut reaped = Vec::new();
        while !writer.is_finished() {
            let events = fixture.sweep();
            reaped.extend(
                events
                    .into_iter()
                    .filter(|event| matches!(event, Event::Reaped(_))),
            );
        }
        let (writes, lost) = join(writer);
        assert!(writes > 5, "{writes}");
        assert_eq!(
            (lost, reaped.len()),
            (0, 0),
            "of {writes} writes: {reaped:?}"
        );
        // A real orphan is removed when its raised grace is over.
        fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
        let written = Instant::now();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        assert!(
            written.elapsed() >= 3 * Duration::from_secs(1),
            "{:?}",
            written.elapsed()
        );
    });
}
