//! Places where a deletion would be wrong, or hard: other mounts, layers, protected files, full
//! disks. All of them are made by Linux means, most of them by root, in mounts of one's own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use orphand::decide::judge::{Reach, Reason, Verdict};
use orphand::decide::policy::Policy;
use orphand::event::Event;
use orphand::evidence::{self, Census, FileId};
use orphand::look::Dir;
use orphand::reap::{Hook, Outcome, Reaper, Step};
use tempfile::TempDir;

use crate::holders::{Hold, Holding};
use crate::stage::*;

/// Something that is mounted until this is dropped.
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

/// A folder to mount something on.
fn empty() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn stays(stage: &Stage, want: Reason, what: &str) {
    match stage.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want, "{what}"),
        event => panic!("{what}: {event:?}"),
    }
    assert!(stage.temp.exists(), "{what}");
}

/// A mounted file may be older than the temp, and yet have been mounted later: it counts only if it is as large.
#[test]
fn an_older_file_mounted_on_the_target() {
    alone(&[As::Mounts], || {
        for (content, is_moved) in [(&b"an older state"[..], true), (WHOLE, false)] {
            let stage = Stage::new();
            let older = stage.outside.join("older");
            fs::write(&older, content).unwrap();
            let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
            wait_until("the temp is newer by more than a tick", || {
                fs::write(&stage.temp, OLD).unwrap();
                changed(&stage.temp) > changed(&older) + std::time::Duration::from_millis(100)
            });
            let _mounted = Mounted::bind(&older, &stage.target);
            let event = stage.judge(TEMP);
            assert_eq!(
                matches!(event, Event::Quarantined { .. }),
                is_moved,
                "{event:?}"
            );
            assert!(!stage.temp.exists(), "{event:?}");
        }
    });
}

#[test]
fn a_file_mounted_on_the_temp() {
    alone(&[As::Mounts], || {
        let stage = Stage::new();
        let other = stage.outside.join("other");
        fs::write(&other, b"of another mount").unwrap();
        let mounted = Mounted::bind(&other, &stage.temp);
        stays(
            &stage,
            Reason::OtherMount,
            "the same file system, another mount",
        );
        drop(mounted);
        let mounted = Mounted::bind(&stage.temp, &stage.temp);
        stays(
            &stage,
            Reason::OtherMount,
            "the very same file, another mount",
        );
        drop(mounted);
        assert!(matches!(stage.judge(TEMP), Event::Reaped(_)));
        stage.has_only(b"of another mount", &other, "");
    });
}

fn is_after(step: Step, other: Step) -> bool {
    let place = |step| Step::ALL.iter().position(|known| *known == step);
    place(step) > place(other)
}

#[test]
fn something_is_mounted_on_it_at_any_step() {
    alone(&[As::Mounts], || {
        for step in Step::ALL {
            let stage = Stage::new();
            let temp = stage.temp.clone();
            let stunt = Stunt::new(step, move || {
                // After the claim nothing is there to mount on.
                if temp.exists() {
                    std::mem::forget(Mounted::bind(&temp, &temp));
                }
            });
            let outcome = stage.reap(stunt.hook);
            drop(Mounted(stage.temp.clone()));
            match outcome {
                Outcome::Reaped { .. } => assert!(is_after(step, Step::Claim), "{step:?}"),
                _ => stage.has_only(OLD, &stage.temp, &format!("{step:?}: {outcome:?}")),
            }
            stage.is_tidy(&format!("{step:?}"));
        }
    });
}

/// What lies in the directory is out of sight then, and outside of the root.
#[test]
fn something_is_mounted_on_its_directory_at_any_step() {
    alone(&[As::Mounts], || {
        for step in Step::ALL {
            let stage = Stage::new();
            let dir = stage.dir.clone();
            let stunt = Stunt::new(step, move || {
                std::mem::forget(Mounted::new("tmpfs", &dir, "tmpfs", 0, ""));
            });
            let outcome = stage.reap(stunt.hook);
            drop(Mounted(stage.dir.clone()));
            // After the last check it may go all the same, as when it is moved out of the root.
            if !is_after(step, Step::Breathe) {
                stage.has_only(OLD, &stage.temp, &format!("{step:?}: {outcome:?}"));
            }
            stage.is_tidy(&format!("{step:?}: {outcome:?}"));
        }
    });
}

#[test]
fn other_mounts_below_the_root_are_not_entered() {
    alone(&[As::Mounts], || {
        let stage = Stage::new();
        let (bound, other) = (stage.dir.join("bound"), stage.dir.join("tmpfs"));
        let elsewhere = stage.outside.join("elsewhere");
        for dir in [&bound, &other, &elsewhere] {
            fs::create_dir(dir).unwrap();
        }
        let _bound = Mounted::bind(&elsewhere, &bound);
        let _other = Mounted::new("tmpfs", &other, "tmpfs", 0, "");
        for dir in [&bound, &other] {
            fs::write(dir.join(TARGET), WHOLE).unwrap();
            fs::write(dir.join(TEMP), b"not in this root").unwrap();
        }
        let events = stage.sweep();
        assert!(
            matches!(events.as_slice(), [Event::Reaped(_)]),
            "{events:?}"
        );
        assert!(!stage.temp.exists());
        // One of them is seen twice, where it is bound from and where to.
        assert_eq!(stage.copies(b"not in this root").len(), 3);
        // Nor by whoever knows its name already.
        for below in ["agent/bound", "agent/tmpfs"] {
            let dir = Dir::open_below(&stage.root.path, None, Path::new(below));
            assert!(dir.is_err(), "{below}");
        }
    });
}

const IMMUTABLE: libc::c_long = 0x10;
const APPEND_ONLY: libc::c_long = 0x20;

/// What has flags of chattr(1), until this is dropped.
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
    // Not waiting for a lease that may be our own.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut now: libc::c_long = 0;
    // SAFETY: both calls take one number, which outlives them.
    unsafe {
        check(libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETFLAGS,
            &raw mut now,
        ))?;
        let now = (now & !(IMMUTABLE | APPEND_ONLY)) | flags;
        check(libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_SETFLAGS,
            &raw const now,
        ))
    }
}

#[test]
fn protected_by_its_owner() {
    alone(&[As::Us], || {
        for (name, flags) in [("immutable", IMMUTABLE), ("append-only", APPEND_ONLY)] {
            let stage = Stage::new();
            let flagged = match Flagged::new(&stage.temp, flags) {
                Ok(flagged) => flagged,
                Err(error) => return skipped(&format!("chattr: {error}")),
            };
            stays(&stage, Reason::Protected, name);
            drop(flagged);

            // Protected only after it was looked at.
            for step in Step::ALL {
                let stage = Stage::new();
                let temp = stage.temp.clone();
                let flagged = std::sync::Arc::new(std::sync::Mutex::new(None));
                let later = std::sync::Arc::clone(&flagged);
                let stunt = Stunt::new(step, move || {
                    *later.lock().unwrap() = Flagged::new(&temp, flags).ok();
                });
                let outcome = stage.reap(stunt.hook);
                let was = flagged.lock().unwrap().take().is_some();
                if was {
                    stage.has_only(OLD, &stage.temp, &format!("{name} {step:?}: {outcome:?}"));
                }
                // From then on it is leased, and then its name is gone.
                assert_eq!(
                    was,
                    !is_after(step, Step::Prove),
                    "{name} {step:?}: {outcome:?}"
                );
            }

            // Its directory is: nothing can be claimed in there.
            let stage = Stage::new();
            let _flagged = Flagged::new(&stage.dir, flags).unwrap();
            let outcome = stage.reap(Stunt::new(Step::Look, || {}).hook);
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
            stage.has_only(OLD, &stage.temp, "");
        }
    });
}

/// As an ordinary user in a directory of one's own, with somebody else's file in it.
#[test]
fn owned_by_somebody_else() {
    alone(&[As::Us], || {
        if !rustix::process::geteuid().is_root() {
            return skipped("only root can give files away");
        }
        let stage = Stage::new();
        for path in [
            stage.home(),
            &stage.root.path,
            &stage.dir,
            &stage.outside,
            &stage.target,
        ] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // SAFETY: a system call on a number; this process is this test's alone.
        assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
        for mode in [0o600, 0o666] {
            stays(&stage, Reason::ForeignOwner, &format!("{mode:o}"));
        }
    });
}

/// An overlayfs.
struct Overlay {
    _merged: Mounted,
    _lower: Option<Mounted>,
    _layers: Mounted,
    base: TempDir,
}

/// What an overlayfs makes of the numbers of its files depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layers {
    /// Both layers on one file system.
    Together,
    /// On two.
    Apart,
    /// On two, and the numbers say on which.
    ApartAndNumbered,
}

impl Overlay {
    fn new(how: Layers) -> io::Result<Overlay> {
        let base = empty();
        let layers = Mounted::new("tmpfs", base.path(), "tmpfs", 0, "");
        Overlay::on(base, layers, how)
    }

    /// With the layers on what is mounted at `base`.
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

    fn stage(&self) -> Stage {
        Stage::within(TempDir::new_in(self.layer("merged")).unwrap())
    }

    /// A stage that lies in the lower layer, and the same as it is seen from above.
    fn stage_below(&self) -> (Stage, Stage) {
        let below = Stage::within(TempDir::new_in(self.layer("lower")).unwrap());
        let above = Stage::at(self.layer("merged").join(below.home().file_name().unwrap()));
        (below, above)
    }

    /// Where a file of the stage lies in the upper layer.
    fn upper(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(self.layer("merged")).unwrap();
        self.layer("upper").join(below)
    }
}

/// The walk over the processes is all that shows a mapping here, so it must know the file by the
/// number that a look gives it, in whichever layer it lies.
#[test]
fn a_walk_knows_a_mapped_file_on_overlayfs() {
    alone(&[As::Mounts], || {
        for how in [Layers::Together, Layers::Apart, Layers::ApartAndNumbered] {
            let overlay = match Overlay::new(how) {
                Ok(overlay) => overlay,
                Err(error) => return skipped(&format!("overlayfs, {how:?}: {error}")),
            };
            let created = overlay.stage();
            let (_below, lower) = overlay.stage_below();
            let (_below, copied_up) = overlay.stage_below();
            let append = File::options().append(true).open(&copied_up.temp);
            append.unwrap().write_all(b", and more").unwrap();
            for (what, stage) in [
                ("created", &created),
                ("lower", &lower),
                ("copied up", &copied_up),
            ] {
                let holding = Holding::new(Hold::Map, &stage.temp);
                let dir = Dir::open_below(&stage.root.path, None, Path::new(BELOW)).unwrap();
                let seen = dir.observe(TEMP.as_ref()).unwrap().unwrap();
                let file = FileId::from(&seen.fingerprint);
                let census = evidence::census(&[file], dir.reach());
                is_met(&census, file, &holding, &format!("{how:?}, {what}"));
            }
        }
    });
}

/// The walk has met the holder of `file`: by the number of its device, or by a number alone, which may be
/// another file's. Nobody else is named.
#[track_caller]
fn is_met(census: &Census, file: FileId, holding: &Holding, what: &str) {
    let named = census.of(file);
    let is_named = named.iter().any(|holder| holder.pid == holding.pid);
    assert_eq!(named.len(), usize::from(is_named), "{what}: {named:?}");
    let is_met = is_named || census.doubtful.contains(&file);
    assert!(
        is_met && !census.clears(file),
        "{what}: {file:?}, {census:?}"
    );
}

/// On two file systems two files of one directory may have the same number.
#[test]
fn two_files_with_one_number_on_overlayfs() {
    alone(&[As::Mounts], || {
        let overlay = match Overlay::new(Layers::Apart) {
            Ok(overlay) => overlay,
            Err(error) => return skipped(&format!("overlayfs: {error}")),
        };
        let (below, stage) = overlay.stage_below();
        // A tmpfs gives its numbers out one after the other: one that the upper layer has not had.
        fs::remove_file(&below.temp).unwrap();
        for n in 0..3_000 {
            fs::write(below.outside.join(n.to_string()), "").unwrap();
        }
        fs::write(&below.temp, OLD).unwrap();
        let dir = Dir::open_below(&stage.root.path, None, Path::new(BELOW)).unwrap();
        let id = |name: &str| {
            let seen = dir.observe(name.as_ref()).unwrap().unwrap();
            FileId::from(&seen.fingerprint)
        };
        let lower = id(TEMP);
        let mut tries = (0..10_000).map(|n| format!("{n}.tmp"));
        let upper = tries.find(|name| {
            fs::write(stage.dir.join(name), OLD).unwrap();
            id(name).ino == lower.ino
        });
        let Some(upper) = upper else {
            return skipped("no two files with one number came about");
        };
        assert_ne!(id(&upper).dev, lower.dev);
        let holding = Holding::new(Hold::Map, &stage.temp);
        let both = [lower, id(&upper)];
        for wanted in [both, [both[1], both[0]]] {
            let census = evidence::census(&wanted, dir.reach());
            is_met(&census, lower, &holding, &format!("asked for {wanted:?}"));
        }
    });
}

/// A file that somebody has mapped without a descriptor, or uses through a layer, is not seen by
/// the lease here. It is never deleted: either the walk over the processes sees it, or the walk
/// is known not to see everything.
#[test]
fn mapped_on_overlayfs() {
    const HOME: &str = "ORPHAND_TEST_HOME";
    alone(&[As::Mounts], || {
        if let Some(home) = std::env::var_os(HOME) {
            // In a pid namespace nothing is seen, and nothing is proven.
            let stage = Stage::at(home.into());
            let event = stage.judge(TEMP);
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
            Err(error) => return skipped(&format!("overlayfs: {error}")),
        };
        let reach = Dir::open_root(&overlay.stage().root.path, None)
            .unwrap()
            .reach();
        assert_eq!(reach, Reach::OpenersOnly);

        for how in [Hold::Map, Hold::MapToWrite, Hold::MapInThread] {
            let stage = overlay.stage();
            let holding = Holding::new(how, &stage.temp);
            let event = stage.judge(TEMP);
            let moved = matches!(
                event,
                Event::Quarantined {
                    reason: Some(Reason::CannotTell),
                    ..
                }
            );
            assert!(moved, "{how:?}: {event:?}");
            assert_eq!(stage.copies(OLD).len(), 1, "{how:?}");
            drop(holding);
        }
        for how in [Hold::Read, Hold::Write, Hold::Map] {
            let stage = overlay.stage();
            let holding = Holding::new(how, &overlay.upper(&stage.temp));
            let event = stage.judge(TEMP);
            let moved = matches!(event, Event::Quarantined { .. } | Event::Kept { .. });
            assert!(moved, "{how:?} in the upper layer: {event:?}");
            assert_eq!(stage.copies(OLD).len(), 1, "{how:?} in the upper layer");
            drop(holding);
        }
        for how in [Hold::Read, Hold::Write, Hold::Flock, Hold::Flight] {
            let stage = overlay.stage();
            let holding = Holding::new(how, &stage.temp);
            let event = stage.judge(TEMP);
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
        // Neither held nor mapped: it goes, or is moved where not every process can be examined.
        let stage = overlay.stage();
        let event = stage.judge(TEMP);
        let gone = matches!(event, Event::Reaped(_) | Event::Quarantined { .. });
        assert!(gone, "{event:?}");

        for how in [Hold::Map, Hold::Directory] {
            let stage = overlay.stage();
            let holding = Holding::new(how, &stage.temp);
            let mut inside = again(&this_test());
            inside.env(HOME, stage.home());
            run(inside, As::PidNamespace);
            assert_eq!(
                stage.copies(OLD).len(),
                1,
                "{how:?}, seen from a pid namespace"
            );
            drop(holding);
        }
    });
}

/// Hides the processes that not even root may look into here, such as the first one of a container:
/// to a walk they have ended. For who is alone with the mounts.
fn without_those_that_nobody_may_examine() -> Vec<Mounted> {
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

/// Says that this is why the temp has not gone, if it is.
#[track_caller]
fn not_examined(stage: &Stage) {
    let temp = stage.candidate(Verdict::Reap);
    let file = FileId::from(&temp.suspect.expected.unwrap());
    let seen = evidence::census(&[file], Reach::OpenersOnly).clears(file);
    assert!(!seen, "every process is seen, and it came to nothing");
    skipped("not every process can be examined");
}

/// The lease sees no mapping here, so every process is asked, before the claim and after it.
#[test]
fn a_walk_before_the_claim_and_one_after_it() {
    alone(&[As::Mounts], || {
        let overlay = match Overlay::new(Layers::Together) {
            Ok(overlay) => overlay,
            Err(error) => return skipped(&format!("overlayfs: {error}")),
        };
        let _hidden = without_those_that_nobody_may_examine();
        // A walk is incomplete while processes come faster than it goes: then it proves nothing, and
        // what was claimed on the word of the one before is put back.
        let proven = |hook: &dyn Fn(&Stage) -> Hook, wanted: fn(&Outcome) -> bool| {
            let end = Instant::now() + LONG;
            while Instant::now() < end {
                let stage = overlay.stage();
                let candidate = stage.candidate(Verdict::Reap);
                let reaper = Reaper::new().with_hook(Some(hook(&stage)));
                let outcome = stage.reap_candidate(&reaper, candidate);
                if wanted(&outcome) {
                    return Some((stage, outcome));
                }
            }
            None
        };
        let Some((stage, outcome)) = proven(&|_| Hook::new(|_, _| {}), |outcome| {
            !matches!(outcome, Outcome::Kept(Reason::Changed | Reason::CannotTell))
        }) else {
            return not_examined(&overlay.stage());
        };
        assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
        assert!(!stage.temp.exists());

        let mapping = Arc::new(Mutex::new(None));
        let (stage, outcome) = proven(
            &|stage| {
                let (mapping, dir) = (Arc::clone(&mapping), stage.dir.clone());
                Hook::new(move |step, _| {
                    if step == Step::Breathe {
                        let is_claim =
                            |path: &PathBuf| path.to_string_lossy().contains(".orphand-");
                        let mut names = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
                        let claim = names.find(is_claim).unwrap();
                        *mapping.lock().unwrap() = Some(Holding::new(Hold::Map, &claim));
                    }
                })
            },
            |outcome| !matches!(outcome, Outcome::Kept(Reason::Changed)),
        )
        .expect("as before");
        let kept = matches!(outcome, Outcome::Kept(Reason::CannotTell));
        assert!(kept, "{outcome:?}");
        stage.has_only(OLD, &stage.temp, "");
        drop(mapping.lock().unwrap().take());
    });
}

/// A claim copies a file of a lower layer up: its number may be another then, and its birth is.
#[test]
fn in_a_lower_layer() {
    alone(&[As::Mounts], || {
        for how in [Layers::Together, Layers::Apart, Layers::ApartAndNumbered] {
            let overlay = match Overlay::new(how) {
                Ok(overlay) => overlay,
                Err(error) => return skipped(&format!("overlayfs, {how:?}: {error}")),
            };
            let (below, stage) = overlay.stage_below();
            // It may take two tries: after the first it lies in the upper layer.
            let mut events = Vec::new();
            while stage.temp.exists() {
                assert!(events.len() < 3, "{how:?}: {events:?}");
                events.push(stage.judge(TEMP));
            }
            let last = events.last();
            let gone = matches!(last, Some(Event::Reaped(_) | Event::Quarantined { .. }));
            assert!(gone, "{how:?}: {events:?}");
            below.has_only(OLD, &below.temp, "the lower layer is as it was");
            stage.has_only(WHOLE, &stage.target, "");
            stage.is_tidy("");
        }
    });
}

/// An ext4 of 4 MiB, mounted on a folder of its own.
fn small_disk() -> Result<(TempDir, Mounted), String> {
    let (base, on) = (empty(), empty());
    let image = base.path().join("image");
    File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let run = |program: &str, args: &[&str]| match Command::new(program).args(args).said() {
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

/// A small ext4 without room for one more block, in which a claim finds no room for its name.
#[test]
fn no_room_for_a_claim() {
    alone(&[As::Mounts], || {
        type Then = Option<(Step, fn(&Path))>;
        let rows: [(&str, bool, Then); 4] = [
            ("left alone", false, None),
            ("the only copy", true, None),
            (
                "replaced just then",
                false,
                Some((Step::Claim, |temp| {
                    // There is room for no new file: one that was there takes its name.
                    fs::rename(temp.with_file_name("spare"), temp).unwrap();
                })),
            ),
            (
                "opened just then",
                false,
                Some((Step::Claim, |temp| {
                    // It waits for our lease, and goes on when that is let go.
                    let (path, ino) = (temp.to_owned(), fs::metadata(temp).unwrap().ino());
                    let opener = std::thread::spawn(move || std::mem::forget(File::open(path)));
                    wait_until("it waits", || opener.is_finished() || waits_for_lease(ino));
                })),
            ),
        ];
        for (what, sole, then) in rows {
            let (base, _mounted) = match small_disk() {
                Ok(disk) => disk,
                Err(error) => return skipped(&format!("{what}: {error}")),
            };
            let stage = Stage::within(TempDir::new_in(base.path()).unwrap());
            if sole {
                fs::remove_file(&stage.target).unwrap();
            }
            fs::write(stage.dir.join("spare"), b"another file").unwrap();
            fill(&stage.dir);
            let temp = stage.temp.clone();
            let stunt = match then {
                None => Stunt::new(Step::Look, || {}),
                Some((step, act)) => Stunt::new(step, move || act(&temp)),
            };
            let outcome = stage.reap(stunt.hook.clone());
            match what {
                "left alone" => {
                    let freed = OLD.len() as u64;
                    assert!(
                        matches!(outcome, Outcome::Reaped { freed: f } if f.bytes == freed),
                        "{outcome:?}"
                    );
                    let after = stunt
                        .steps()
                        .into_iter()
                        .skip_while(|step| *step != Step::Claim);
                    let unclaimed = [Step::Claim, Step::Compare, Step::ProveAgain, Step::Unlink];
                    assert!(after.eq(unclaimed), "it found no room");
                    assert!(!stage.temp.exists());
                    stage.has_only(WHOLE, &stage.target, "");
                }
                "the only copy" => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::NoQuarantine)),
                        "{outcome:?}"
                    );
                    stage.has_only(OLD, &stage.temp, "");
                }
                "replaced just then" => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::Changed)),
                        "{outcome:?}"
                    );
                    stage.has_only(b"another file", &stage.temp, "");
                }
                _ => {
                    assert!(
                        matches!(outcome, Outcome::Kept(Reason::InUse)),
                        "{outcome:?}"
                    );
                    stage.has_only(OLD, &stage.temp, "");
                }
            }
            stage.is_tidy(what);
        }
    });
}

/// Only the walk behind the claim would see who has mapped it since the one before it, and on a full
/// disk there is no claim: then it stays, though it might have made room.
#[test]
fn no_room_for_a_claim_on_overlayfs() {
    alone(&[As::Mounts], || {
        let overlay = small_disk().and_then(|(base, disk)| {
            Overlay::on(base, disk, Layers::Together).map_err(|error| error.to_string())
        });
        let overlay = match overlay {
            Ok(overlay) => overlay,
            Err(error) => return skipped(&format!("overlayfs on a full disk: {error}")),
        };
        let _hidden = without_those_that_nobody_may_examine();
        let stage = overlay.stage();
        fill(&stage.dir);
        let end = Instant::now() + LONG;
        let (outcome, _mapping) = loop {
            let mapping = Arc::new(Mutex::new(None));
            let (later, temp) = (Arc::clone(&mapping), stage.temp.clone());
            // After the first walk, and before the lease that would see who opens it.
            let stunt = Stunt::new(Step::Look, move || {
                *later.lock().unwrap() = Some(Holding::new(Hold::Map, &temp));
            });
            let outcome = stage.reap(stunt.hook.clone());
            stage.has_only(OLD, &stage.temp, &format!("{outcome:?}"));
            if stunt.steps().contains(&Step::Claim) {
                break (outcome, mapping);
            }
            if Instant::now() > end {
                drop(mapping.lock().unwrap().take());
                return not_examined(&stage);
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
        stage.is_tidy("");
    });
}

/// Takes every free block, and then every gap in the directory that would hold a claim's name.
fn fill(dir: &Path) {
    let mut ballast = File::create(dir.join("ballast")).unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        while ballast.write_all(&vec![b'x'; size]).is_ok() {}
        // What was kept back until it was known where the blocks lie is free from here on.
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

/// No inode is free: a claim needs none, a quarantine would.
#[test]
fn no_inode_for_a_quarantine() {
    alone(&[As::Mounts], || {
        let base = empty();
        for sole in [false, true] {
            let mounted = Mounted::new("tmpfs", base.path(), "tmpfs", 0, "nr_inodes=64");
            let stage = Stage::within(TempDir::new_in(base.path()).unwrap());
            if sole {
                fs::remove_file(&stage.target).unwrap();
            }
            let full = (0..100).find_map(|n| File::create(stage.outside.join(n.to_string())).err());
            assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
            let event = stage.judge(TEMP);
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
                    stage.has_only(OLD, &stage.temp, "");
                }
            }
            drop((stage, mounted));
        }
    });
}

/// A quarantine would be no place of the root's own.
#[test]
fn a_quarantine_that_is_a_mount() {
    alone(&[As::Mounts], || {
        let stage = Stage::new().with_sole_copy();
        fs::create_dir(stage.quarantine()).unwrap();
        let elsewhere = stage.outside.join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        for other_file_system in [true, false] {
            let mounted = match other_file_system {
                true => Mounted::new("tmpfs", &stage.quarantine(), "tmpfs", 0, ""),
                false => Mounted::bind(&elsewhere, &stage.quarantine()),
            };
            fs::set_permissions(stage.quarantine(), fs::Permissions::from_mode(0o700)).unwrap();
            stays(&stage, Reason::NoQuarantine, "as a look finds");
            let outcome = stage.reap(Stunt::new(Step::Look, || {}).hook);
            let kept = matches!(outcome, Outcome::Kept(Reason::NoQuarantine));
            assert!(kept, "{outcome:?}");
            stage.has_only(OLD, &stage.temp, "");
            drop(mounted);
        }
    });
}

/// Where no proof is known to hold: ramfs has leases like any other, and nobody has measured them.
#[test]
fn a_file_system_that_nobody_has_tried() {
    alone(&[As::Mounts], || {
        let base = empty();
        let _mounted = Mounted::new("ramfs", base.path(), "ramfs", 0, "");
        let stage = Stage::within(TempDir::new_in(base.path()).unwrap());
        stays(&stage, Reason::NetworkFs, "ramfs");
        // Whoever comes with a verdict of their own is asked again.
        let outcome = stage.reap_as(&Reaper::new(), Verdict::Reap);
        assert!(
            matches!(outcome, Outcome::Kept(Reason::NetworkFs)),
            "{outcome:?}"
        );
        stage.has_only(OLD, &stage.temp, "");

        // Who knows that it holds there says so in the rule. What is held stays.
        let stage = stage.with_policy(Policy {
            trusted_file_systems: vec!["ramfs".to_owned()],
            ..Stage::policy()
        });
        let holding = Holding::new(Hold::Map, &stage.temp);
        stays(&stage, Reason::InUse, "mapped");
        drop(holding);
        let event = stage.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        stage.has_only(WHOLE, &stage.target, "");
    });
}
