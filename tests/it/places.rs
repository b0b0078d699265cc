//! Environments in which a deletion would be wrong, or difficult: other mounts, layers, protected files, full
//! disks. They need Linux, and most of them root and a private mount namespace.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use orphand::core::event::Event;
use orphand::core::judge::{LeaseCoverage, Reason, Verdict};
use orphand::core::policy::{Action, Policy};
use orphand::evidence::{self, FileId, ProcessScan};
use orphand::fs::dir::Dir;
use orphand::reap::{Hook, Outcome, Reaper, Step};
use tempfile::TempDir;

use crate::fixture::*;
use crate::holders::{HoldKind, Holding};
use crate::overdue::{AT_ONCE, enforce_limits};
use crate::sandbox::Sandbox;

/// A mount that is removed when this is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(what: &str, on: &Path, kind: &str, flags: u64, options: &str) -> Mounted {
        mount(what, on, kind, flags, options);
        Mounted(on.to_owned())
    }

    fn bind(what: &Path, on: &Path) -> Mounted {
        Mounted::new(what.to_str().unwrap(), on, "", libc::MS_BIND, "")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = std::ffi::CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: the path ends in NUL and outlives the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Creates a folder to mount something on.
fn empty_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn assert_kept(fixture: &Fixture, want: Reason, what: &str) {
    match fixture.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want, "{what}"),
        event => panic!("{what}: {event:?}"),
    }
    assert!(fixture.temp.exists(), "{what}");
}

/// A mounted file may be older than the temp although it was mounted later: it counts only if it is at least
/// as large.
#[test]
fn a_file_mounted_on_the_target_counts_only_if_as_large() {
    in_own_process(&[RunAs::OwnMounts], || {
        for (content, is_moved) in [(&b"an older state"[..], true), (TARGET_CONTENT, false)] {
            let fixture = Fixture::new();
            let older = fixture.outside.join("older");
            fs::write(&older, content).unwrap();
            let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
            wait_until("the temp is newer by more than a tick", || {
                fs::write(&fixture.temp, TEMP_CONTENT).unwrap();
                changed(&fixture.temp) > changed(&older) + std::time::Duration::from_millis(100)
            });
            let _mounted = Mounted::bind(&older, &fixture.target);
            let event = fixture.judge(TEMP);
            assert_eq!(
                matches!(event, Event::Quarantined { .. }),
                is_moved,
                "{event:?}"
            );
            assert!(!fixture.temp.exists(), "{event:?}");
        }
    });
}

/// The target is the temp itself, mounted at the target's name. It disappears with the mount.
#[test]
fn the_temp_itself_is_no_target() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new();
        fs::write(&fixture.target, "").unwrap();
        let mounted = Mounted::bind(&fixture.temp, &fixture.target);
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Quarantined { .. }), "{event:?}");
        drop(mounted);
    });
}

/// A file that was mounted at the name of the target after the move may be older than the move.
#[test]
fn a_copy_stays_if_a_file_is_mounted_on_its_target_later() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new().with_policy(Policy {
            action: Action::Quarantine,
            ..Fixture::policy()
        });
        let older = fixture.outside.join("older");
        fs::write(&older, [TEMP_CONTENT; 9].concat()).unwrap();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Quarantined { .. }), "{event:?}");
        fs::write(&fixture.target, "").unwrap();
        let mounted = Mounted::bind(&older, &fixture.target);
        let events = enforce_limits(&fixture, AT_ONCE);
        assert!(events.is_empty(), "{events:?}");
        drop(mounted);
    });
}

#[test]
fn a_mounted_temp_is_kept() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new();
        let other = fixture.outside.join("other");
        fs::write(&other, b"of another mount").unwrap();
        let mounted = Mounted::bind(&other, &fixture.temp);
        assert_kept(
            &fixture,
            Reason::OtherMount,
            "the same file system, another mount",
        );
        drop(mounted);
        let mounted = Mounted::bind(&fixture.temp, &fixture.temp);
        assert_kept(&fixture, Reason::OtherMount, "the same file, another mount");
        drop(mounted);
        assert!(matches!(fixture.judge(TEMP), Event::Reaped(_)));
        fixture.assert_only_at(b"of another mount", &other, "");
    });
}

fn is_after(step: Step, other: Step) -> bool {
    let place = |step| Step::ALL.iter().position(|known| *known == step);
    place(step) > place(other)
}

#[test]
fn a_mount_on_the_temp_at_any_step_loses_nothing() {
    in_own_process(&[RunAs::OwnMounts], || {
        for step in Step::ALL {
            let fixture = Fixture::new();
            let temp = fixture.temp.clone();
            let at_step = AtStep::new(step, move || {
                // After the claim nothing exists at this path.
                if temp.exists() {
                    std::mem::forget(Mounted::bind(&temp, &temp));
                }
            });
            let outcome = fixture.reap(at_step.hook);
            drop(Mounted(fixture.temp.clone()));
            match outcome {
                Outcome::Reaped { .. } => assert!(is_after(step, Step::Claim), "{step:?}"),
                _ => fixture.assert_only_at(
                    TEMP_CONTENT,
                    &fixture.temp,
                    &format!("{step:?}: {outcome:?}"),
                ),
            }
            fixture.assert_no_leftovers(&format!("{step:?}"));
        }
    });
}

/// The mount covers the files in the directory, which are then outside the root.
#[test]
fn a_mount_on_the_directory_at_any_step_loses_nothing() {
    in_own_process(&[RunAs::OwnMounts], || {
        for step in Step::ALL {
            let fixture = Fixture::new();
            let dir = fixture.dir.clone();
            let at_step = AtStep::new(step, move || {
                std::mem::forget(Mounted::new("tmpfs", &dir, "tmpfs", 0, ""));
            });
            let outcome = fixture.reap(at_step.hook);
            drop(Mounted(fixture.dir.clone()));
            // After the last check it may still be removed, as when it is moved out of the root.
            if !is_after(step, Step::Wait) {
                fixture.assert_only_at(
                    TEMP_CONTENT,
                    &fixture.temp,
                    &format!("{step:?}: {outcome:?}"),
                );
            }
            fixture.assert_no_leftovers(&format!("{step:?}: {outcome:?}"));
        }
    });
}

#[test]
fn other_mounts_below_the_root_are_not_entered() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new();
        let (bound, other) = (fixture.dir.join("bound"), fixture.dir.join("tmpfs"));
        let elsewhere = fixture.outside.join("elsewhere");
        for dir in [&bound, &other, &elsewhere] {
            fs::create_dir(dir).unwrap();
        }
        let _bound = Mounted::bind(&elsewhere, &bound);
        let _other = Mounted::new("tmpfs", &other, "tmpfs", 0, "");
        for dir in [&bound, &other] {
            fs::write(dir.join(TARGET), TARGET_CONTENT).unwrap();
            fs::write(dir.join(TEMP), b"not in this root").unwrap();
        }
        let events = fixture.sweep();
        assert!(
            matches!(events.as_slice(), [Event::Reaped(_)]),
            "{events:?}"
        );
        assert!(!fixture.temp.exists());
        // One of them is found twice: at the source of the bind mount and at the mount.
        assert_eq!(fixture.copies(b"not in this root").len(), 3);
        // Nor can they be opened by path.
        for below in ["agent/bound", "agent/tmpfs"] {
            let dir = Dir::open_below(&fixture.root.path, None, Path::new(below));
            assert!(dir.is_err(), "{below}");
        }
    });
}

#[test]
fn a_directory_that_is_given_by_two_paths_is_named_as_such() {
    in_own_process(&[RunAs::OwnMounts], || {
        let sandbox = Sandbox::new().dir("../bound");
        let bound = sandbox.base().join("bound");
        let _bound = Mounted::bind(&sandbox.path(""), &bound);
        let dirs = ["--json", "root", "bound"];
        for command in [&["sweep", "--yes"][..], &["watch"]] {
            let ran = sandbox.run(command.iter().chain(&dirs)).exit(75);
            let ran = ran.stderr_has("are the same directory");
            assert!(!ran.stderr.contains("another orphand"), "{}", ran.stderr);
        }
    });
}

const IMMUTABLE: libc::c_long = 0x10;
const APPEND_ONLY: libc::c_long = 0x20;

/// A file with flags of chattr(1) until this is dropped.
struct Flagged(PathBuf);

impl Flagged {
    fn new(path: &Path, flags: libc::c_long) -> io::Result<Flagged> {
        set_flags(path, flags)?;
        Ok(Flagged(path.to_owned()))
    }
}

impl Drop for Flagged {
    fn drop(&mut self) {
        let _ = set_flags(&self.0, 0);
    }
}

fn set_flags(path: &Path, flags: libc::c_long) -> io::Result<()> {
    // Does not block on a lease that may be our own.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut now: libc::c_long = 0;
    // SAFETY: both calls take one number, which outlives them.
    unsafe {
        check_syscall(libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETFLAGS,
            &raw mut now,
        ))?;
        let now = (now & !(IMMUTABLE | APPEND_ONLY)) | flags;
        check_syscall(libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_SETFLAGS,
            &raw const now,
        ))
    }
}

#[test]
fn immutable_and_append_only_files_are_kept() {
    in_own_process(&[RunAs::CurrentUser], || {
        for (name, flags) in [("immutable", IMMUTABLE), ("append-only", APPEND_ONLY)] {
            let fixture = Fixture::new();
            let flagged = match Flagged::new(&fixture.temp, flags) {
                Ok(flagged) => flagged,
                Err(error) => return report_skipped(&format!("chattr: {error}")),
            };
            assert_kept(&fixture, Reason::Protected, name);
            drop(flagged);

            // Protected only after the look.
            for step in Step::ALL {
                let fixture = Fixture::new();
                let temp = fixture.temp.clone();
                let flagged = std::sync::Arc::new(std::sync::Mutex::new(None));
                let later = std::sync::Arc::clone(&flagged);
                let at_step = AtStep::new(step, move || {
                    *later.lock().unwrap() = Flagged::new(&temp, flags).ok();
                });
                let outcome = fixture.reap(at_step.hook);
                let was = flagged.lock().unwrap().take().is_some();
                if was {
                    fixture.assert_only_at(
                        TEMP_CONTENT,
                        &fixture.temp,
                        &format!("{name} {step:?}: {outcome:?}"),
                    );
                }
                // After that step the file is leased, and later it has another name.
                assert_eq!(
                    was,
                    !is_after(step, Step::Prove),
                    "{name} {step:?}: {outcome:?}"
                );
            }

            // The directory is protected: nothing can be claimed in it.
            let fixture = Fixture::new();
            let _flagged = Flagged::new(&fixture.dir, flags).unwrap();
            let outcome = fixture.reap(AtStep::new(Step::Look, || {}).hook);
            assert!(
                matches!(
                    outcome,
                    Outcome::Failed {
                        step: Step::Claim,
                        ..
                    }
                ),
                "{outcome:?}"
            );
            fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
        }
    });
}

/// As an ordinary user in a directory of that user, with a file of another user in it.
#[test]
fn a_file_of_another_user_is_kept() {
    in_own_process(&[RunAs::CurrentUser], || {
        if !rustix::process::geteuid().is_root() {
            return report_skipped("only root can give files away");
        }
        let fixture = Fixture::new();
        for path in [
            fixture.home(),
            &fixture.root.path,
            &fixture.dir,
            &fixture.outside,
            &fixture.target,
        ] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // SAFETY: a system call on a number; this test has its own process.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
        for mode in [0o600, 0o666] {
            assert_kept(&fixture, Reason::ForeignOwner, &format!("{mode:o}"));
        }
    });
}

/// A mounted overlayfs.
struct Overlay {
    _merged: Mounted,
    _lower: Option<Mounted>,
    _layers: Mounted,
    base: TempDir,
}

/// The arrangement of the layers, which determines the inode numbers that overlayfs reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layers {
    /// Both layers on one file system.
    Together,
    /// On two file systems.
    Apart,
    /// On two file systems, and the inode numbers tell which.
    ApartAndNumbered,
}

impl Overlay {
    fn new(how: Layers) -> io::Result<Overlay> {
        let base = empty_dir();
        let layers = Mounted::new("tmpfs", base.path(), "tmpfs", 0, "");
        Overlay::on(base, layers, how)
    }

    /// Creates an overlayfs with its layers on the file system mounted at `base`.
    fn on(base: TempDir, layers: Mounted, how: Layers) -> io::Result<Overlay> {
        let at = |name: &str| base.path().join(name);
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(at(name))?;
        }
        let apart = how != Layers::Together;
        let on_lower = || Mounted::new("tmpfs", &at("lower"), "tmpfs", 0, "");
        let below = apart.then(on_lower);
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let options = format!(
            "lowerdir={},upperdir={},workdir={},xino={}",
            lower.display(),
            upper.display(),
            work.display(),
            match how {
                Layers::ApartAndNumbered => "on",
                _ => "off",
            }
        );
        try_mount("overlay", &at("merged"), "overlay", 0, &options)?;
        Ok(Overlay {
            _merged: Mounted(at("merged")),
            _lower: below,
            _layers: layers,
            base,
        })
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn fixture(&self) -> Fixture {
        Fixture::within(TempDir::new_in(self.layer("merged")).unwrap())
    }

    /// Returns a fixture in the lower layer, and the same fixture as seen in the overlay.
    fn fixture_in_lower_layer(&self) -> (Fixture, Fixture) {
        let below = Fixture::within(TempDir::new_in(self.layer("lower")).unwrap());
        let above = Fixture::at(self.layer("merged").join(below.home().file_name().unwrap()));
        (below, above)
    }

    /// Returns the path of a file of the fixture in the upper layer.
    fn upper(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.layer("merged")).unwrap();
        self.layer("upper").join(below)
    }
}

/// Only the process scan finds a mapping here, so it must identify the file by the number that a look
/// returns, in each layer.
#[test]
fn the_process_scan_finds_mappings_on_overlayfs() {
    in_own_process(&[RunAs::OwnMounts], || {
        for how in [Layers::Together, Layers::Apart, Layers::ApartAndNumbered] {
            let overlay = match Overlay::new(how) {
                Ok(overlay) => overlay,
                Err(error) => return report_skipped(&format!("overlayfs, {how:?}: {error}")),
            };
            let created = overlay.fixture();
            let (_below, lower) = overlay.fixture_in_lower_layer();
            let (_below, copied_up) = overlay.fixture_in_lower_layer();
            let append = File::options().append(true).open(&copied_up.temp);
            append.unwrap().write_all(b", and more").unwrap();
            for (what, fixture) in [
                ("created", &created),
                ("lower", &lower),
                ("copied up", &copied_up),
            ] {
                let holding = Holding::new(HoldKind::Map, &fixture.temp);
                let dir = Dir::open_below(&fixture.root.path, None, Path::new(SUBDIR)).unwrap();
                let seen = dir.observe(TEMP.as_ref()).unwrap().unwrap();
                let file = FileId::from(&seen.fingerprint);
                let process_scan = evidence::scan_processes(&[file], dir.lease_coverage());
                assert_found(&process_scan, file, &holding, &format!("{how:?}, {what}"));
            }
        }
    });
}

/// Asserts that the process scan has found the holder of `file`: by its device, or by an inode number alone,
/// which may belong to another file. No other process is named.
#[track_caller]
fn assert_found(process_scan: &ProcessScan, file: FileId, holding: &Holding, what: &str) {
    let named = process_scan.holders_of(file);
    let is_named = named.iter().any(|holder| holder.pid == holding.pid);
    assert_eq!(named.len(), usize::from(is_named), "{what}: {named:?}");
    let is_met = is_named || process_scan.uncertain.contains(&file);
    assert!(
        is_met && !process_scan.proves_unmapped(file),
        "{what}: {file:?}, {process_scan:?}"
    );
}

/// On two file systems, two files of one directory may have the same inode number.
#[test]
fn equal_inode_numbers_on_overlayfs_hide_no_holder() {
    in_own_process(&[RunAs::OwnMounts], || {
        let overlay = match Overlay::new(Layers::Apart) {
            Ok(overlay) => overlay,
            Err(error) => return report_skipped(&format!("overlayfs: {error}")),
        };
        let (below, fixture) = overlay.fixture_in_lower_layer();
        // A tmpfs assigns its numbers in sequence: use one that the upper layer has not assigned.
        fs::remove_file(&below.temp).unwrap();
        for n in 0..3_000 {
            fs::write(below.outside.join(n.to_string()), "").unwrap();
        }
        fs::write(&below.temp, TEMP_CONTENT).unwrap();
        let dir = Dir::open_below(&fixture.root.path, None, Path::new(SUBDIR)).unwrap();
        let id = |name: &str| {
            let seen = dir.observe(name.as_ref()).unwrap().unwrap();
            FileId::from(&seen.fingerprint)
        };
        let lower = id(TEMP);
        let mut tries = (0..10_000).map(|n| format!("{n}.tmp"));
        let upper = tries.find(|name| {
            fs::write(fixture.dir.join(name), TEMP_CONTENT).unwrap();
            id(name).ino == lower.ino
        });
        let Some(upper) = upper else {
            return report_skipped("no two files with one inode number were created");
        };
        assert_ne!(id(&upper).dev, lower.dev);
        let holding = Holding::new(HoldKind::Map, &fixture.temp);
        let both = [lower, id(&upper)];
        for wanted in [both, [both[1], both[0]]] {
            let process_scan = evidence::scan_processes(&wanted, dir.lease_coverage());
            assert_found(
                &process_scan,
                lower,
                &holding,
                &format!("asked for {wanted:?}"),
            );
        }
    });
}

/// A file that a process has mapped without a descriptor, or uses through a layer, is invisible to the lease
/// here. It is never deleted: either the process scan finds the process, or the scan is known to be
/// incomplete.
#[test]
fn a_mapped_file_on_overlayfs_is_not_deleted() {
    const HOME: &str = "ORPHAND_TEST_HOME";
    in_own_process(&[RunAs::OwnMounts], || {
        if let Some(home) = std::env::var_os(HOME) {
            // In a pid namespace other processes are invisible, and nothing is proven.
            let fixture = Fixture::at(home.into());
            let event = fixture.judge(TEMP);
            let moved = |event: &Event| {
                matches!(
                    event,
                    Event::Quarantined {
                        reason: Some(Reason::CannotTell),
                        ..
                    }
                )
            };
            assert!(moved(&event), "{event:?}");
            return;
        }
        let overlay = match Overlay::new(Layers::Together) {
            Ok(overlay) => overlay,
            Err(error) => return report_skipped(&format!("overlayfs: {error}")),
        };
        let reach = Dir::open_root(&overlay.fixture().root.path, None)
            .unwrap()
            .lease_coverage();
        assert_eq!(reach, LeaseCoverage::OpensOnly);

        for how in [HoldKind::Map, HoldKind::MapToWrite, HoldKind::MapInThread] {
            let fixture = overlay.fixture();
            let holding = Holding::new(how, &fixture.temp);
            let event = fixture.judge(TEMP);
            let moved = matches!(
                event,
                Event::Quarantined {
                    reason: Some(Reason::CannotTell),
                    ..
                }
            );
            assert!(moved, "{how:?}: {event:?}");
            assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1, "{how:?}");
            drop(holding);
        }
        for how in [HoldKind::Read, HoldKind::Write, HoldKind::Map] {
            let fixture = overlay.fixture();
            let holding = Holding::new(how, &overlay.upper(&fixture.temp));
            let event = fixture.judge(TEMP);
            let moved = matches!(event, Event::Quarantined { .. } | Event::Kept { .. });
            assert!(moved, "{how:?} in the upper layer: {event:?}");
            assert_eq!(
                fixture.copies(TEMP_CONTENT).len(),
                1,
                "{how:?} in the upper layer"
            );
            drop(holding);
        }
        for how in [
            HoldKind::Read,
            HoldKind::Write,
            HoldKind::Flock,
            HoldKind::InFlight,
        ] {
            let fixture = overlay.fixture();
            let holding = Holding::new(how, &fixture.temp);
            let event = fixture.judge(TEMP);
            let kept = matches!(
                event,
                Event::Kept {
                    reason: Reason::InUse | Reason::Locked,
                    ..
                }
            );
            assert!(kept, "{how:?}: {event:?}");
            drop(holding);
        }
        // Neither held nor mapped: it is removed, or moved if not every process can be examined.
        let fixture = overlay.fixture();
        let event = fixture.judge(TEMP);
        let gone = matches!(event, Event::Reaped(_) | Event::Quarantined { .. });
        assert!(gone, "{event:?}");

        for how in [HoldKind::Map, HoldKind::Directory] {
            let fixture = overlay.fixture();
            let holding = Holding::new(how, &fixture.temp);
            let mut inside = test_command(&this_test());
            inside.env(HOME, fixture.home());
            run_test(inside, RunAs::OwnPidNamespace);
            assert_eq!(
                fixture.copies(TEMP_CONTENT).len(),
                1,
                "{how:?}, seen from a pid namespace"
            );
            drop(holding);
        }
    });
}

/// The directory of a file that another file is mounted over says nothing about the proof for that file.
#[test]
fn a_guard_file_on_another_mount_keeps_all_temps() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new().with_policy(Policy {
            unless_open: Some("LOCK".into()),
            ..Fixture::policy()
        });
        let guard = fixture.dir.join("LOCK");
        fs::write(&guard, "").unwrap();
        let mounted = Mounted::new("/proc/version", &guard, "", libc::MS_BIND, "");
        let event = fixture.judge(TEMP);
        let kept = matches!(
            event,
            Event::Kept {
                reason: Reason::CannotTell,
                ..
            }
        );
        assert!(kept, "{event:?}");
        drop(mounted);
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
    });
}

/// A mapping of the guard file is invisible to the lease here, too.
#[test]
fn a_mapped_guard_file_on_overlayfs_keeps_all_temps() {
    in_own_process(&[RunAs::OwnMounts], || {
        let overlay = match Overlay::new(Layers::Together) {
            Ok(overlay) => overlay,
            Err(error) => return report_skipped(&format!("overlayfs: {error}")),
        };
        let guard = overlay.layer("merged").join("LOCK");
        fs::write(&guard, "pid 4711").unwrap();
        // The temp itself is on another file system.
        let fixture = Fixture::new().with_policy(Policy {
            unless_open: Some(guard.clone()),
            ..Fixture::policy()
        });
        for (how, want) in [
            (HoldKind::Map, Reason::CannotTell),
            (HoldKind::Write, Reason::InUse),
        ] {
            let holding = Holding::new(how, &guard);
            let event = fixture.judge(TEMP);
            let kept = matches!(event, Event::Kept { reason, .. } if reason == want);
            assert!(kept, "{how:?}: {event:?}");
            drop(holding);
        }
    });
}

/// Hides the processes that not even root may examine here, such as the first one of a container: the scan
/// takes them for ended ones. The test must have its own mount namespace.
fn hide_unexaminable_processes() -> Vec<Mounted> {
    let processes = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path());
    let closed = |process: &PathBuf| {
        let maps = fs::read(process.join("maps"));
        let fds = fs::read_dir(process.join("fd"));
        [maps.err(), fds.err()]
            .into_iter()
            .flatten()
            .any(|e| e.kind() == io::ErrorKind::PermissionDenied)
    };
    let hidden = processes.filter(closed).collect::<Vec<_>>().into_iter();
    hidden
        .map(|process| Mounted::new("tmpfs", &process, "tmpfs", 0, ""))
        .collect()
}

/// Reports the test as skipped because not every process can be examined; panics if that is not the reason.
#[track_caller]
fn report_unexamined(fixture: &Fixture) {
    let temp = fixture.candidate(Verdict::Reap);
    let file = FileId::from(&temp.temp_info.expected.unwrap());
    let seen = evidence::scan_processes(&[file], LeaseCoverage::OpensOnly).proves_unmapped(file);
    assert!(!seen, "every process was examined, and the temp was kept");
    report_skipped("not every process can be examined");
}

/// A lease does not cover mappings here, so every process is examined before the claim and after it.
#[test]
fn overlayfs_needs_a_process_scan_before_and_after_the_claim() {
    in_own_process(&[RunAs::OwnMounts], || {
        let overlay = match Overlay::new(Layers::Together) {
            Ok(overlay) => overlay,
            Err(error) => return report_skipped(&format!("overlayfs: {error}")),
        };
        let _hidden = hide_unexaminable_processes();
        // A scan is incomplete while processes start faster than it proceeds. Then it proves nothing, and a
        // temp that was claimed after the first scan is put back.
        let proven = |hook: &dyn Fn(&Fixture) -> Hook, wanted: fn(&Outcome) -> bool| {
            let end = Instant::now() + TIMEOUT;
            while Instant::now() < end {
                let fixture = overlay.fixture();
                let candidate = fixture.candidate(Verdict::Reap);
                let reaper = Reaper::new().with_hook(Some(hook(&fixture)));
                let outcome = fixture.reap_candidate(&reaper, candidate);
                if wanted(&outcome) {
                    return Some((fixture, outcome));
                }
            }
            None
        };
        let Some((fixture, outcome)) = proven(&|_| Hook::new(|_, _| {}), |outcome| {
            !matches!(outcome, Outcome::Kept(Reason::Changed | Reason::CannotTell))
        }) else {
            return report_unexamined(&overlay.fixture());
        };
        assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
        assert!(!fixture.temp.exists());

        let mapping = Arc::new(Mutex::new(None));
        let (fixture, outcome) = proven(
            &|fixture| {
                let (mapping, dir) = (Arc::clone(&mapping), fixture.dir.clone());
                Hook::new(move |step, _| {
                    if step == Step::Wait {
                        let is_claim =
                            |path: &PathBuf| path.to_string_lossy().contains(".orphand-");
                        let mut names = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
                        let claim = names.find(is_claim).unwrap();
                        *mapping.lock().unwrap() = Some(Holding::new(HoldKind::Map, &claim));
                    }
                })
            },
            |outcome| !matches!(outcome, Outcome::Kept(Reason::Changed)),
        )
        .expect("as before");
        let kept = matches!(outcome, Outcome::Kept(Reason::CannotTell));
        assert!(kept, "{outcome:?}");
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
        drop(mapping.lock().unwrap().take());
    });
}

/// A claim copies a file of a lower layer up: its inode number may change, and its birth time does.
#[test]
fn a_temp_in_a_lower_layer_is_removed() {
    in_own_process(&[RunAs::OwnMounts], || {
        for how in [Layers::Together, Layers::Apart, Layers::ApartAndNumbered] {
            let overlay = match Overlay::new(how) {
                Ok(overlay) => overlay,
                Err(error) => return report_skipped(&format!("overlayfs, {how:?}: {error}")),
            };
            let (below, fixture) = overlay.fixture_in_lower_layer();
            // It may take two tries: after the first, the file is in the upper layer.
            let mut events = Vec::new();
            while fixture.temp.exists() {
                assert!(events.len() < 3, "{how:?}: {events:?}");
                events.push(fixture.judge(TEMP));
            }
            let last = events.last();
            let gone = matches!(last, Some(Event::Reaped(_) | Event::Quarantined { .. }));
            assert!(gone, "{how:?}: {events:?}");
            below.assert_only_at(TEMP_CONTENT, &below.temp, "the lower layer is unchanged");
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
            fixture.assert_no_leftovers("");
        }
    });
}

/// Mounts an ext4 of 4 MiB on a folder of its own.
fn small_disk() -> Result<(TempDir, Mounted), String> {
    let (base, on) = (empty_dir(), empty_dir());
    let image = base.path().join("image");
    File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let run = |program: &str, args: &[&str]| match Command::new(program).args(args).collect_output()
    {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{program}: {error}")),
    };
    let (image, disk) = (image.to_str().unwrap(), on.path().to_str().unwrap());
    let features = "^has_journal,^metadata_csum,^dir_index,^inline_data";
    run(
        "mkfs.ext4",
        &["-q", "-b", "1024", "-m", "0", "-O", features, image],
    )?;
    run("mount", &["-o", "loop", image, disk])?;
    let mounted = Mounted(disk.into());
    Ok((on, mounted))
}

/// A small ext4 without a free block, in which a claim finds no room for its name.
#[test]
fn a_full_disk_removes_without_a_claim() {
    in_own_process(&[RunAs::OwnMounts], || {
        type Then = Option<(Step, fn(&Path))>;
        let rows: [(&str, bool, Then); 4] = [
            ("left alone", false, None),
            ("the only copy", true, None),
            (
                "replaced just then",
                false,
                Some((Step::Claim, |temp| {
                    // There is no room for a new file: an existing one takes its name.
                    fs::rename(temp.with_file_name("spare"), temp).unwrap();
                })),
            ),
            (
                "opened just then",
                false,
                Some((Step::Claim, |temp| {
                    // It waits for our lease, and continues when the lease is released.
                    let (path, ino) = (temp.to_owned(), fs::metadata(temp).unwrap().ino());
                    let opener = std::thread::spawn(move || std::mem::forget(File::open(path)));
                    wait_until("the opener waits", || {
                        opener.is_finished() || waits_for_lease(ino)
                    });
                })),
            ),
        ];
        for (what, sole, then) in rows {
            let (base, _mounted) = match small_disk() {
                Ok(disk) => disk,
                Err(error) => return report_skipped(&format!("{what}: {error}")),
            };
            let fixture = Fixture::within(TempDir::new_in(base.path()).unwrap());
            if sole {
                fs::remove_file(&fixture.target).unwrap();
            }
            fs::write(fixture.dir.join("spare"), b"another file").unwrap();
            fill(&fixture.dir);
            let temp = fixture.temp.clone();
            let at_step = match then {
                None => AtStep::new(Step::Look, || {}),
                Some((step, act)) => AtStep::new(step, move || act(&temp)),
            };
            let outcome = fixture.reap(at_step.hook.clone());
            match what {
                "left alone" => {
                    let freed = TEMP_CONTENT.len() as u64;
                    assert!(
                        matches!(outcome, Outcome::Reaped { freed: f } if f.bytes == freed),
                        "{outcome:?}"
                    );
                    let after = at_step
                        .steps()
                        .into_iter()
                        .skip_while(|step| *step != Step::Claim);
                    let unclaimed = [Step::Claim, Step::Compare, Step::ProveAgain, Step::Unlink];
                    assert!(after.eq(unclaimed), "wrong steps for a full disk");
                    assert!(!fixture.temp.exists());
                    fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
                }
                "the only copy" => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::NoQuarantine)),
                        "{outcome:?}"
                    );
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
                }
                "replaced just then" => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::Changed)),
                        "{outcome:?}"
                    );
                    fixture.assert_only_at(b"another file", &fixture.temp, "");
                }
                _ => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::InUse)),
                        "{outcome:?}"
                    );
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
                }
            }
            fixture.assert_no_leftovers(what);
        }
    });
}

/// Only the scan after the claim would find a process that has mapped the file since the first scan, and on a
/// full disk there is no claim: the temp is kept, although its removal might have made room.
#[test]
fn a_full_overlayfs_keeps_the_temp() {
    in_own_process(&[RunAs::OwnMounts], || {
        let overlay = small_disk().and_then(|(base, disk)| {
            Overlay::on(base, disk, Layers::Together).map_err(|error| error.to_string())
        });
        let overlay = match overlay {
            Ok(overlay) => overlay,
            Err(error) => return report_skipped(&format!("overlayfs on a full disk: {error}")),
        };
        let _hidden = hide_unexaminable_processes();
        let fixture = overlay.fixture();
        fill(&fixture.dir);
        let end = Instant::now() + TIMEOUT;
        let (outcome, _mapping) = loop {
            let mapping = Arc::new(Mutex::new(None));
            let (later, temp) = (Arc::clone(&mapping), fixture.temp.clone());
            // After the first scan, and before the lease that would detect a process that opens the file.
            let at_step = AtStep::new(Step::Look, move || {
                *later.lock().unwrap() = Some(Holding::new(HoldKind::Map, &temp));
            });
            let outcome = fixture.reap(at_step.hook.clone());
            fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &format!("{outcome:?}"));
            if at_step.steps().contains(&Step::Claim) {
                break (outcome, mapping);
            }
            if Instant::now() > end {
                drop(mapping.lock().unwrap().take());
                return report_unexamined(&fixture);
            }
        };
        assert!(
            matches!(
                &outcome,
                Outcome::Failed { step: Step::Claim, error }
                    if error.kind() == io::ErrorKind::StorageFull
            ),
            "{outcome:?}"
        );
        fixture.assert_no_leftovers("");
    });
}

/// Fills every free block, and then every gap in the directory that would hold a claim's name.
fn fill(dir: &Path) {
    let mut ballast = File::create(dir.join("ballast")).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        while ballast.write_all(&vec![b'x'; size]).is_ok() {}
        // Blocks that were reserved for delayed allocation are free after this.
        ballast.sync_all().unwrap();
    }
    let length = TEMP.len() + ".orphand-0123456789abcdef-".len();
    for number in 0.. {
        let name = dir.join(format!("{number:0length$}"));
        match fs::hard_link(dir.join("ballast"), name) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                break;
            }
        }
    }
}

/// Without a free inode a claim is possible, but a quarantine is not.
#[test]
fn without_inodes_the_only_copy_is_kept() {
    in_own_process(&[RunAs::OwnMounts], || {
        let base = empty_dir();
        for sole in [false, true] {
            let mounted = Mounted::new("tmpfs", base.path(), "tmpfs", 0, "nr_inodes=64");
            let fixture = Fixture::within(TempDir::new_in(base.path()).unwrap());
            if sole {
                fs::remove_file(&fixture.target).unwrap();
            }
            let full =
                (0..100).find_map(|n| File::create(fixture.outside.join(n.to_string())).err());
            assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
            let event = fixture.judge(TEMP);
            match sole {
                false => assert!(matches!(event, Event::Reaped(_)), "{event:?}"),
                true => {
                    let kept = matches!(
                        event,
                        Event::Kept {
                            reason: Reason::NoQuarantine,
                            ..
                        }
                    );
                    assert!(kept, "{event:?}");
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
                }
            }
            drop((fixture, mounted));
        }
    });
}

/// A mounted quarantine would not belong to the root.
#[test]
fn a_mounted_quarantine_is_not_used() {
    in_own_process(&[RunAs::OwnMounts], || {
        let fixture = Fixture::new().with_sole_copy();
        fs::create_dir(fixture.quarantine()).unwrap();
        let elsewhere = fixture.outside.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for other_file_system in [true, false] {
            let mounted = match other_file_system {
                true => Mounted::new("tmpfs", &fixture.quarantine(), "tmpfs", 0, ""),
                false => Mounted::bind(&elsewhere, &fixture.quarantine()),
            };
            fs::set_permissions(fixture.quarantine(), fs::Permissions::from_mode(0o700)).unwrap();
            assert_kept(&fixture, Reason::NoQuarantine, "as a look sees it");
            let outcome = fixture.reap(AtStep::new(Step::Look, || {}).hook);
            let kept = matches!(outcome, Outcome::Kept(Reason::NoQuarantine));
            assert!(kept, "{outcome:?}");
            fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
            drop(mounted);
        }
    });
}

/// An untested file system: ramfs has leases like any other, but they are not known to prove anything.
#[test]
fn an_untested_file_system_keeps_everything() {
    in_own_process(&[RunAs::OwnMounts], || {
        let base = empty_dir();
        let _mounted = Mounted::new("ramfs", base.path(), "ramfs", 0, "");
        let fixture = Fixture::within(TempDir::new_in(base.path()).unwrap());
        assert_kept(&fixture, Reason::NetworkFs, "ramfs");
        // A verdict from elsewhere is judged again.
        let outcome = fixture.reap_as(&Reaper::new(), Verdict::Reap);
        assert!(
            matches!(outcome, Outcome::Kept(Reason::NetworkFs)),
            "{outcome:?}"
        );
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");

        // A rule may trust the file system. A temp in use is kept.
        let fixture = fixture.with_policy(Policy {
            trusted_file_systems: vec!["ramfs".to_owned()],
            ..Fixture::policy()
        });
        let holding = Holding::new(HoldKind::Map, &fixture.temp);
        assert_kept(&fixture, Reason::InUse, "mapped");
        drop(holding);
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
    });
}
