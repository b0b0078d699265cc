//! The deletion protocol with an attacker in each of its windows.
//!
//! The attacker acts before each step. No byte of a file that is in use, or that took the temp's name in between, may
//! be lost afterwards: it is under its name or in the quarantine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::FileSize;
use orphand::evidence::UseChecker;
use orphand::reap::quarantine::Quarantine;
use orphand::reap::{Hook, Outcome, Reaper, Step};
use orphand::sys::clock;

use crate::fixture::*;

/// The content that another writer writes.
const NEW: &[u8] = b"what a live writer is just writing";
/// The content that another process appends.
const MORE: &[u8] = b", and more";

/// The way in which an attacker reaches the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// By its name, which does not exist after the claim.
    Name,
    /// By an `O_PATH` handle from before, which no lease can see. The file can be opened through it at any time.
    #[cfg(target_os = "linux")]
    Handle,
}

impl Access {
    const ALL: &[Access] = &[
        Access::Name,
        // Only Linux has such handles.
        #[cfg(target_os = "linux")]
        Access::Handle,
    ];
}

/// An attacker that changes the temp at the worst moment.
struct Attacker {
    dir: PathBuf,
    root: PathBuf,
    outside: PathBuf,
    temp: PathBuf,
    target: PathBuf,
    ino: u64,
    step: Step,
    access: Access,
    /// Keeps `Access::Handle` open.
    handle: Option<File>,
}

/// A condition that must hold afterwards.
enum Expectation {
    /// Some file has this content.
    Exists(Vec<u8>),
    /// The file at this path has this content.
    ExistsAt(PathBuf, Vec<u8>),
    /// The file with this inode number still has a name.
    HasName(u64),
    /// If the file could be opened, it has a name, and its content includes what was written through it.
    IsIntact(JoinHandle<io::Result<File>>),
}

impl Attacker {
    fn new(fixture: &Fixture, step: Step, access: Access) -> Attacker {
        let handle = match access {
            Access::Name => None,
            #[cfg(target_os = "linux")]
            Access::Handle => {
                let options = File::options()
                    .read(true)
                    .custom_flags(libc::O_PATH)
                    .clone();
                Some(options.open(&fixture.temp).unwrap())
            }
        };
        Attacker {
            dir: fixture.dir.clone(),
            root: fixture.root.path.clone(),
            outside: fixture.outside.clone(),
            temp: fixture.temp.clone(),
            target: fixture.target.clone(),
            ino: fs::metadata(&fixture.temp).unwrap().ino(),
            step,
            access,
            handle,
        }
    }

    /// Returns a path to the old file.
    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        match &self.handle {
            None => self.temp.clone(),
            Some(handle) => format!("/proc/self/fd/{}", handle.as_raw_fd()).into(),
        }
    }

    /// Reports whether all checks are done.
    fn is_too_late(&self) -> bool {
        self.step == Step::Unlink
    }

    fn claims(&self) -> Vec<PathBuf> {
        let mut claims = Vec::new();
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let here = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        claims.extend(
            here.map(|e| e.path())
                .filter(|p| name(p).starts_with(".orphand-")),
        );
        let ids = fs::read_dir(self.root.join(".orphand"))
            .into_iter()
            .flatten()
            .flatten();
        claims.extend(
            ids.map(|id| id.path().join(SUBDIR).join(TEMP))
                .filter(|p| p.exists()),
        );
        claims
    }

    /// Opens the file with `options` in a separate thread, appends something, and keeps it open. Returns when it is
    /// open, or waits for orphand's lease.
    fn open(&self, options: &fs::OpenOptions, adds: bool) -> Vec<Expectation> {
        let (path, options) = (self.path(), options.clone());
        let opener = std::thread::spawn(move || {
            let mut file = options.open(path)?;
            if adds {
                file.write_all(MORE)?;
            }
            Ok(file)
        });
        let ino = self.ino;
        wait_until("the file is open, or its opener waits", || {
            opener.is_finished() || waits_for_lease(ino)
        });
        vec![Expectation::IsIntact(opener)]
    }

    /// Reports whether the protocol cannot see an `open` at this step. A handle can be used after the claim too. Right
    /// before the last step it leads to a file that is about to lose its name: the protocol sees the files that are
    /// open by then, but not an `open` after that. That is the one RACE of the last step.
    fn is_unseen(&self) -> bool {
        self.is_too_late() && self.access != Access::Name
    }
}

/// Runs `attack` before each step, with each kind of access, on a temp to be removed and on one to be moved, opened by
/// the earlier look or only later, and checks the result.
fn before_every_step(attack: fn(&Attacker) -> Vec<Expectation>) {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            for access in Access::ALL {
                for look in LookBefore::ALL {
                    attack_at(attack, step, *access, false, look);
                }
                // The proof of a temp that is moved is never left to the protocol.
                for look in [LookBefore::Closed, LookBefore::Opened] {
                    attack_at(attack, step, *access, true, look);
                }
            }
        }
    });
}

fn attack_at(
    attack: fn(&Attacker) -> Vec<Expectation>,
    step: Step,
    access: Access,
    sole: bool,
    look: LookBefore,
) {
    let what = format!("before {step:?}, by {access:?}, sole copy: {sole}, {look:?}");
    let fixture = match sole {
        false => Fixture::in_memory(),
        true => Fixture::in_memory().with_sole_copy(),
    };
    let attacker = Attacker::new(&fixture, step, access);
    let expectations = Arc::new(Mutex::new(None));
    let result = Arc::clone(&expectations);
    let at_step = AtStep::new(step, move || {
        let expectations = attack(&attacker);
        *result.lock().unwrap() = Some(expectations);
    });
    let outcome = fixture.reap_after(look, at_step.hook.clone());
    let steps = at_step.steps();
    let expectations = expectations.lock().unwrap().take();
    let expectations = expectations
        .unwrap_or_else(|| panic!("{what}: the protocol ended earlier, {outcome:?}, {steps:?}"));
    for expectation in expectations {
        expectation.check(&fixture, &format!("{what}: {outcome:?} after {steps:?}"));
    }
    fixture.assert_no_leftovers(&format!("{what}: {outcome:?}"));
    // No action of another process is an error.
    assert!(
        !matches!(outcome, Outcome::Failed { .. }),
        "{what}: {outcome:?}"
    );
}

impl Expectation {
    fn check(self, fixture: &Fixture, what: &str) {
        let files = || {
            let describe = |f: FoundFile| {
                (
                    f.path,
                    f.ino,
                    String::from_utf8_lossy(&f.bytes).into_owned(),
                )
            };
            fixture
                .files()
                .into_iter()
                .map(describe)
                .collect::<Vec<_>>()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Expectation::Exists(bytes) => {
                let copies = fixture.copies(&bytes);
                assert_eq!(
                    copies.len(),
                    1,
                    "{what}: {:?} is lost: {:#?}",
                    text(&bytes),
                    files()
                );
            }
            Expectation::ExistsAt(path, bytes) => {
                let found = fs::read(&path);
                let kept = found.as_ref().is_ok_and(|found| *found == bytes);
                assert!(
                    kept,
                    "{what}: {path:?} contains {found:?}, not {:?}: {:#?}",
                    text(&bytes),
                    files()
                );
            }
            Expectation::HasName(ino) => {
                let named = fixture.files().iter().any(|file| file.ino == ino);
                assert!(named, "{what}: inode {ino} is lost: {:#?}", files());
            }
            Expectation::IsIntact(opener) => match join(opener) {
                Ok(mut file) => {
                    let seen = file.metadata().unwrap();
                    assert!(seen.nlink() > 0, "{what}: an open file has lost its name");
                    let named = fixture
                        .files()
                        .into_iter()
                        .find(|named| named.ino == seen.ino());
                    let named =
                        named.unwrap_or_else(|| panic!("{what}: the open file has no name"));
                    assert_eq!(named.bytes.len() as u64, seen.len(), "{what}");
                    let _ = file.flush();
                }
                Err(error) => {
                    let harmless = [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock];
                    assert!(harmless.contains(&error.kind()), "{what}: {error}");
                }
            },
        }
    }
}

/// A missing file has nothing to lose.
fn unless_gone(done: io::Result<()>, expectations: Vec<Expectation>) -> Vec<Expectation> {
    match done {
        Ok(()) => expectations,
        Err(error) => {
            let harmless = [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock];
            assert!(harmless.contains(&error.kind()), "{error}");
            Vec::new()
        }
    }
}

#[test]
fn an_undisturbed_temp_is_disposed_of() {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            let fixture = Fixture::in_memory();
            let at_step = AtStep::new(step, || {});
            let outcome = fixture.reap(at_step.hook.clone());
            let freed = TEMP_CONTENT.len() as u64;
            assert!(
                matches!(outcome, Outcome::Reaped { freed: f } if f.bytes == freed),
                "{outcome:?}"
            );
            assert_eq!(at_step.steps(), Step::ALL);
            assert_eq!(fixture.files().len(), 1, "the target");
            assert!(!fixture.quarantine().exists());

            let fixture = Fixture::in_memory().with_sole_copy();
            let outcome = fixture.reap(AtStep::new(step, || {}).hook);
            let Outcome::Quarantined { id, .. } = &outcome else {
                panic!("{outcome:?}");
            };
            let moved = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
            fixture.assert_only_at(TEMP_CONTENT, &moved, "");
        }
    });
}

#[test]
fn a_replacement_is_kept() {
    before_every_step(|a| {
        let other = a.dir.join("being-written");
        fs::write(&other, NEW).unwrap();
        fs::rename(&other, &a.temp).unwrap();
        vec![Expectation::ExistsAt(a.temp.clone(), NEW.to_vec())]
    });
}

#[test]
fn a_new_file_with_the_name_is_kept() {
    before_every_step(|a| {
        let _ = fs::remove_file(&a.temp);
        File::create_new(&a.temp).unwrap().write_all(NEW).unwrap();
        vec![Expectation::ExistsAt(a.temp.clone(), NEW.to_vec())]
    });
}

/// The same, by a writer that still has the file open.
#[test]
fn a_new_open_file_with_the_name_is_kept() {
    before_every_step(|a| {
        let _ = fs::remove_file(&a.temp);
        let mut file = File::create_new(&a.temp).unwrap();
        file.write_all(NEW).unwrap();
        let open = std::thread::spawn(move || Ok(file));
        vec![
            Expectation::ExistsAt(a.temp.clone(), NEW.to_vec()),
            Expectation::IsIntact(open),
        ]
    });
}

#[test]
fn an_opener_for_writing_loses_nothing() {
    before_every_step(|a| {
        if a.is_unseen() {
            return Vec::new();
        }
        a.open(File::options().append(true), true)
    });
}

#[test]
fn an_opener_for_reading_loses_nothing() {
    before_every_step(|a| {
        if a.is_unseen() {
            return Vec::new();
        }
        a.open(File::options().read(true), false)
    });
}

#[test]
fn a_nonblocking_opener_loses_nothing() {
    before_every_step(|a| {
        a.open(
            File::options().append(true).custom_flags(libc::O_NONBLOCK),
            true,
        )
    });
}

#[test]
fn an_opener_with_o_creat_loses_nothing() {
    before_every_step(|a| {
        if a.is_unseen() {
            return Vec::new();
        }
        a.open(File::options().append(true).create(true), true)
    });
}

/// A mapping alone, without a descriptor.
#[test]
fn a_mapped_file_keeps_a_name() {
    before_every_step(|a| {
        let options = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .clone();
        let done = options.open(a.path()).map(crate::holders::map);
        unless_gone(done, vec![Expectation::HasName(a.ino)])
    });
}

/// No process holds the file when the next step checks it. Only the file itself shows the change.
#[test]
fn appended_bytes_are_kept() {
    before_every_step(|a| {
        let file = File::options()
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(a.path());
        let done = file.and_then(|mut file| file.write_all(MORE));
        unless_gone(
            done,
            vec![Expectation::Exists([TEMP_CONTENT, MORE].concat())],
        )
    });
}

/// The size is unchanged, and the date is set back.
#[test]
fn overwritten_bytes_with_an_old_date_are_kept() {
    before_every_step(|a| {
        let before = fs::metadata(a.path()).and_then(|meta| meta.modified());
        let file = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(a.path());
        let other = vec![b'x'; TEMP_CONTENT.len()];
        let done = file.and_then(|mut file| {
            file.write_all(&other)?;
            file.set_modified(before?)
        });
        unless_gone(done, vec![Expectation::Exists(other)])
    });
}

#[test]
fn a_truncated_file_keeps_a_name() {
    before_every_step(|a| {
        let options = File::options()
            .write(true)
            .truncate(true)
            .custom_flags(libc::O_NONBLOCK)
            .clone();
        unless_gone(
            options.open(a.path()).map(drop),
            vec![Expectation::HasName(a.ino)],
        )
    });
}

#[test]
fn a_new_hard_link_is_kept() {
    before_every_step(|a| {
        let other = a.dir.join("the-other-name");
        unless_gone(
            hard_link(a, &other),
            vec![Expectation::ExistsAt(other.clone(), TEMP_CONTENT.to_vec())],
        )
    });
}

/// Creates a hard link to the file that `path` leads to, which may be a link in `/proc`.
fn hard_link(a: &Attacker, other: &std::path::Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    Ok(rustix::fs::linkat(
        CWD,
        a.path(),
        CWD,
        other,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

/// A hard link that is created before the last look keeps the temp. One that is created right before the unlink keeps
/// its bytes, and no space is freed.
#[test]
fn a_hard_linked_temp_frees_nothing() {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            for access in Access::ALL {
                let fixture = Fixture::in_memory();
                let attacker = Attacker::new(&fixture, step, *access);
                let other = fixture.dir.join("the-other-name");
                let linked = Arc::new(Mutex::new(false));
                let done = Arc::clone(&linked);
                let at_step = AtStep::new(step, move || {
                    *done.lock().unwrap() = hard_link(&attacker, &other).is_ok();
                });
                let outcome = fixture.reap(at_step.hook);
                match (*linked.lock().unwrap(), outcome) {
                    (false, Outcome::Reaped { freed }) => {
                        assert_eq!(freed.bytes, TEMP_CONTENT.len() as u64)
                    }
                    (true, Outcome::Reaped { freed }) => {
                        assert_eq!(freed, FileSize::default());
                        assert_eq!(step, Step::Unlink);
                    }
                    (true, Outcome::Kept(Reason::HardLinked | Reason::Changed)) => {
                        assert_ne!(step, Step::Unlink);
                        assert_eq!(fixture.copies(TEMP_CONTENT).len(), 2, "{step:?}");
                    }
                    (linked, outcome) => panic!("{step:?} {access:?} {linked}: {outcome:?}"),
                }
            }
        }
    });
}

#[test]
fn a_changed_mode_keeps_the_temp() {
    before_every_step(|a| {
        let done = fs::set_permissions(a.path(), fs::Permissions::from_mode(0o640));
        match a.is_too_late() {
            true => Vec::new(),
            false => unless_gone(done, vec![Expectation::Exists(TEMP_CONTENT.to_vec())]),
        }
    });
}

#[test]
fn a_removed_target_keeps_the_temp() {
    before_every_step(|a| {
        let _ = fs::remove_file(&a.target);
        match a.is_too_late() {
            true => Vec::new(),
            false => vec![Expectation::Exists(TEMP_CONTENT.to_vec())],
        }
    });
}

#[test]
fn an_emptied_target_keeps_the_temp() {
    before_every_step(|a| {
        File::create(&a.target).unwrap();
        match a.is_too_late() {
            true => Vec::new(),
            false => vec![Expectation::Exists(TEMP_CONTENT.to_vec())],
        }
    });
}

#[test]
fn a_new_target_is_kept() {
    before_every_step(|a| {
        let target_existed = a.target.exists();
        fs::write(&a.target, NEW).unwrap();
        let mut expectations = vec![Expectation::ExistsAt(a.target.clone(), NEW.to_vec())];
        if !target_existed {
            expectations.push(Expectation::Exists(TEMP_CONTENT.to_vec()));
        }
        expectations
    });
}

/// The temp's own writer was still running.
#[test]
fn a_rename_to_the_target_is_kept() {
    before_every_step(|a| {
        let done = fs::rename(&a.temp, &a.target);
        unless_gone(
            done,
            vec![Expectation::ExistsAt(
                a.target.clone(),
                TEMP_CONTENT.to_vec(),
            )],
        )
    });
}

/// Files outside the root are not touched. (After the last check the directory may be moved out: a RACE.)
#[test]
fn a_directory_moved_out_is_not_touched() {
    before_every_step(|a| {
        let outside = a.outside.join(SUBDIR);
        fs::rename(&a.dir, &outside).unwrap();
        match a.step {
            Step::ProveLast | Step::Unlink => Vec::new(),
            _ => vec![Expectation::ExistsAt(
                outside.join(TEMP),
                TEMP_CONTENT.to_vec(),
            )],
        }
    });
}

#[test]
fn a_directory_replaced_by_a_symlink_is_not_followed() {
    before_every_step(|a| {
        let (moved, other) = (a.outside.join(SUBDIR), a.outside.join("of-another-user"));
        fs::rename(&a.dir, &moved).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join(TEMP), NEW).unwrap();
        fs::write(other.join(TARGET), TARGET_CONTENT).unwrap();
        symlink(&other, &a.dir).unwrap();
        let mut expectations = vec![Expectation::ExistsAt(other.join(TEMP), NEW.to_vec())];
        if !matches!(a.step, Step::ProveLast | Step::Unlink) {
            expectations.push(Expectation::ExistsAt(
                moved.join(TEMP),
                TEMP_CONTENT.to_vec(),
            ));
        }
        expectations
    });
}

/// The root is now another directory.
#[test]
fn a_replaced_root_is_not_touched() {
    before_every_step(|a| {
        let moved = a.outside.join("the-old-root");
        fs::rename(&a.root, &moved).unwrap();
        fs::create_dir_all(&a.dir).unwrap();
        fs::write(&a.temp, NEW).unwrap();
        fs::write(&a.target, TARGET_CONTENT).unwrap();
        let mut expectations = vec![Expectation::ExistsAt(a.temp.clone(), NEW.to_vec())];
        if !matches!(a.step, Step::ProveLast | Step::Unlink) {
            expectations.push(Expectation::ExistsAt(
                moved.join(SUBDIR).join(TEMP),
                TEMP_CONTENT.to_vec(),
            ));
        }
        expectations
    });
}

#[test]
fn a_claim_moved_away_is_kept() {
    before_every_step(|a| {
        let stolen = a.outside.join("stolen");
        match a.claims().pop() {
            // At the last step a file is in the quarantine for good. Moving it away would leave its empty folder.
            Some(claim) if !(a.is_too_late() && claim.starts_with(a.root.join(".orphand"))) => {
                fs::rename(claim, &stolen).unwrap();
                vec![Expectation::ExistsAt(stolen, TEMP_CONTENT.to_vec())]
            }
            _ => Vec::new(),
        }
    });
}

/// Another file replaces the claim itself. (After the last look nothing could detect that.)
#[test]
fn a_replaced_claim_is_kept() {
    before_every_step(|a| match a.claims().pop() {
        Some(claim) if !a.is_too_late() => {
            let other = a.dir.join("being-written");
            fs::write(&other, NEW).unwrap();
            fs::rename(&other, claim).unwrap();
            vec![Expectation::Exists(NEW.to_vec())]
        }
        _ => Vec::new(),
    });
}

/// Something other than a regular file that replaces the temp is never waited for, and not kept open.
#[test]
fn a_non_file_with_the_name_is_kept() {
    in_own_process(ALL_USERS, || {
        type Make = fn(&std::path::Path);
        let makes: [(&str, Make); 4] = [
            ("FIFO", |path| {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                make_fifo(path, mode);
            }),
            ("socket", |path| {
                // The path of a socket must be short, so it is created from inside its folder, in a separate process.
                std::env::set_current_dir(path.parent().unwrap()).unwrap();
                drop(UnixListener::bind(path.file_name().unwrap()).unwrap());
            }),
            ("symlink to a precious file", |path| {
                symlink("../../outside/precious", path).unwrap()
            }),
            ("directory", |path| fs::create_dir(path).unwrap()),
        ];
        for (name, make) in makes {
            for step in Step::ALL {
                let fixture = Fixture::in_memory();
                fs::write(fixture.outside.join("precious"), NEW).unwrap();
                let temp = fixture.temp.clone();
                let at_step = AtStep::new(step, move || {
                    let _ = fs::remove_file(&temp);
                    make(&temp);
                });
                let outcome = fixture.reap(at_step.hook);
                let found = fs::symlink_metadata(&fixture.temp);
                assert!(
                    found.is_ok_and(|found| !found.is_file()),
                    "{name} {step:?} {outcome:?}"
                );
                assert_eq!(fixture.copies(NEW).len(), 1, "{name} {step:?} {outcome:?}");
                fixture.assert_no_leftovers(&format!("{name} {step:?} {outcome:?}"));
            }
        }
    });
}

fn make_fifo(path: &std::path::Path, mode: rustix::fs::Mode) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in NUL and outlives the call.
    let made = unsafe { libc::mkfifo(path.as_ptr(), mode.bits() as libc::mode_t) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
}

/// Covers a look that has no hook: the name alternates between a FIFO and a file, as fast as possible.
#[test]
fn a_look_never_waits_for_a_fifo() {
    in_own_process(ALL_USERS, || {
        use std::sync::atomic::{AtomicBool, Ordering};
        let fixture = Fixture::in_memory();
        let (fifo, file) = (fixture.dir.join("a-fifo"), fixture.dir.join("a-file"));
        let (temp, end) = (fixture.temp.clone(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&end);
        let swapper = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stop.load(Ordering::SeqCst) {
                make_fifo(&fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
                fs::rename(&fifo, &temp).unwrap();
                fs::write(&file, TEMP_CONTENT).unwrap();
                fs::rename(&file, &temp).unwrap();
                swaps += 1;
            }
            swaps
        });
        let engine = engine(None);
        let mut clocks = orphand::core::time::ClockJumpDetector::default();
        for _ in 0..3_000 {
            let mut due = fixture.pass_items(TEMP);
            let events = fixture.pass(&engine, &mut clocks, &mut due);
            assert!(events.is_empty(), "{events:?}");
        }
        end.store(true, Ordering::SeqCst);
        assert!(join(swapper) > 0);
        assert!(fixture.temp.exists());
    });
}

/// The temp is put back while another file has its name: neither file is lost.
#[test]
fn put_back_overwrites_nothing() {
    in_own_process(ALL_USERS, || {
        for step in [
            Step::Compare,
            Step::ProveAgain,
            Step::Release,
            Step::Wait,
            Step::ProveLast,
        ] {
            for sole in [false, true] {
                let fixture = match sole {
                    false => Fixture::in_memory(),
                    true => Fixture::in_memory().with_sole_copy(),
                };
                let temp = fixture.temp.clone();
                let attacker = Attacker::new(&fixture, step, Access::Name);
                let at_step = AtStep::new(step, move || {
                    fs::write(&temp, NEW).unwrap();
                    // The claim has changed.
                    let claim = attacker.claims().pop().unwrap();
                    fs::set_permissions(claim, fs::Permissions::from_mode(0o640)).unwrap();
                });
                let outcome = fixture.reap(at_step.hook);
                let Outcome::Quarantined { id, .. } = &outcome else {
                    panic!("{step:?}: {outcome:?}");
                };
                let moved = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
                fixture.assert_only_at(TEMP_CONTENT, &moved, &format!("{step:?}"));
                fixture.assert_only_at(NEW, &fixture.temp, &format!("{step:?}"));
                fixture.assert_no_leftovers("");
            }
        }
    });
}

/// Another file is claimed instead of the temp, and the name is in use again when it is put back.
#[test]
fn two_writers_in_a_row_lose_nothing() {
    in_own_process(ALL_USERS, || {
        for sole in [false, true] {
            let fixture = match sole {
                false => Fixture::in_memory(),
                true => Fixture::in_memory().with_sole_copy(),
            };
            let temp = fixture.temp.clone();
            let hook = orphand::reap::Hook::new(move |step, _| match step {
                Step::Claim => {
                    let other = temp.with_extension("new");
                    fs::write(&other, NEW).unwrap();
                    fs::rename(&other, &temp).unwrap();
                }
                Step::Compare => fs::write(&temp, MORE).unwrap(),
                _ => {}
            });
            let outcome = fixture.reap(hook);
            assert!(
                matches!(outcome, Outcome::Quarantined { .. }),
                "{outcome:?}"
            );
            fixture.assert_only_at(MORE, &fixture.temp, "");
            let moved = fixture.copies(NEW);
            assert!(
                moved.len() == 1 && moved[0].starts_with(fixture.quarantine()),
                "{moved:?}"
            );
        }
    });
}

/// Checks at which step the protocol stops, and with which outcome: each check stops it at once.
#[test]
fn each_check_stops_the_protocol_at_its_step() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Attacker);
        let replace: Act = |a| {
            let other = a.dir.join("being-written");
            fs::write(&other, NEW).unwrap();
            fs::rename(&other, &a.temp).unwrap();
        };
        let move_out: Act = |a| fs::rename(&a.dir, a.outside.join(SUBDIR)).unwrap();
        let touch_claim: Act = |a| {
            let claim = a.claims().pop().unwrap();
            fs::set_permissions(claim, fs::Permissions::from_mode(0o640)).unwrap();
        };
        let lose_target: Act = |a| fs::remove_file(&a.target).unwrap();
        // A process that opens the file without waiting while it is leased gets an error. Its attempt is noticed too,
        // because its next attempt should find the name.
        #[cfg(target_os = "linux")]
        let try_claim: Act = |a| {
            let claim = a.claims().pop().unwrap();
            let options = File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .clone();
            assert!(options.open(claim).is_err());
        };
        let changed = Reason::Changed;
        // The step before which something happens, what happens, the last step that begins, and the reason.
        let rows = [
            (Step::Resolve, move_out, Step::Resolve, changed),
            (Step::Look, replace, Step::Look, changed),
            (Step::Open, replace, Step::Judge, changed),
            (Step::Judge, lose_target, Step::Judge, changed),
            (Step::Claim, replace, Step::Compare, changed),
            (Step::Compare, touch_claim, Step::Compare, changed),
            (Step::Wait, move_out, Step::Wait, changed),
            (Step::ProveLast, touch_claim, Step::ProveLast, changed),
            // Only Linux has leases.
            #[cfg(target_os = "linux")]
            (Step::ProveAgain, try_claim, Step::ProveAgain, Reason::InUse),
        ];
        for ((step, act, last, want), look) in rows
            .into_iter()
            .flat_map(|row| LookBefore::ALL.map(|look| (row, look)))
        {
            let last = match (look, step) {
                // The name is not looked at before it is opened.
                (LookBefore::Unproven, Step::Look) => Step::Judge,
                _ => last,
            };
            let fixture = Fixture::in_memory();
            let attacker = Attacker::new(&fixture, step, Access::Name);
            let at_step = AtStep::new(step, move || act(&attacker));
            let outcome = fixture.reap_after(look, at_step.hook.clone());
            assert_eq!(
                at_step.steps().last(),
                Some(&last),
                "before {step:?}: {outcome:?}"
            );
            let kept = matches!(outcome, Outcome::Kept(reason) if reason == want);
            assert!(kept, "before {step:?}: {outcome:?}");
        }
    });
}

/// The temp was the only file of its directory. So another program can remove the directory once the temp is moved, and it
/// cannot be put back.
#[test]
fn a_temp_whose_directory_is_removed_stays_in_the_quarantine() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::in_memory().with_sole_copy();
        let dir = fixture.dir.clone();
        let at_step = AtStep::new(Step::Wait, move || fs::remove_dir(&dir).unwrap());
        let outcome = fixture.reap(at_step.hook.clone());
        assert!(
            matches!(outcome, Outcome::Quarantined { .. }),
            "{outcome:?}"
        );
        assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1);
    });
}

/// The second look of a sweep leaves the look to the protocol, so the name may refer to a file of another type by then.
#[test]
fn a_name_that_is_no_longer_a_file_is_settled() {
    in_own_process(ALL_USERS, || {
        for look in LookBefore::ALL {
            let fixture = Fixture::in_memory();
            let (temp, target) = (fixture.temp.clone(), fixture.target.clone());
            let at_step = AtStep::new(Step::Open, move || {
                fs::remove_file(&temp).unwrap();
                symlink(&target, &temp).unwrap();
            });
            let outcome = fixture.reap_after(look, at_step.hook.clone());
            let is_expected = match look {
                // The file is open, and the name is compared with it after the claim.
                LookBefore::Opened => matches!(outcome, Outcome::Kept(Reason::Changed)),
                _ => matches!(outcome, Outcome::Settled),
            };
            assert!(is_expected, "{look:?}: {outcome:?}");
            assert!(fixture.temp.is_symlink(), "{look:?}");
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        }
    });
}

/// On a full disk, removals free the space that the quarantine needs. The outcomes keep the order of the batch.
#[test]
fn removals_come_before_moves() {
    const SOLE: &str = "index.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::in_memory();
        fs::write(fixture.dir.join(SOLE), NEW).unwrap();
        let claimed = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&claimed);
        let hook = Hook::new(move |step, name: &OsStr| {
            if step == Step::Claim {
                names.lock().unwrap().push(name.to_owned());
            }
        });
        let batch = vec![
            fixture.candidate_named(SOLE, Verdict::Quarantine(Some(Reason::SoleCopy))),
            fixture.candidate(Verdict::Reap),
        ];
        let outcomes = fixture.reap_batch(&Reaper::new().with_hook(Some(hook)), batch);
        let is_expected = matches!(
            outcomes.as_slice(),
            [Outcome::Quarantined { .. }, Outcome::Reaped { .. }]
        );
        assert!(is_expected, "{outcomes:?}");
        assert_eq!(*claimed.lock().unwrap(), [TEMP, SOLE]);
    });
}

/// Other threads and processes open and remove the empty quarantine while a temp is moved into it.
#[test]
fn a_quarantine_that_is_removed_as_empty_is_created_again() {
    const SOLE: &str = "index.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = Fixture::in_memory();
        let root = &fixture.root.path;
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    drop(Quarantine::open_or_create(root, None));
                }
            });
            for n in 0..200 {
                fs::write(fixture.dir.join(SOLE), NEW).unwrap();
                let candidate =
                    fixture.candidate_named(SOLE, Verdict::Quarantine(Some(Reason::SoleCopy)));
                let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
                if !matches!(outcome, Outcome::Quarantined { .. }) {
                    ended.store(true, Ordering::Relaxed);
                    panic!("temp {n}: {outcome:?}");
                }
                let quarantine = Quarantine::open_existing(root, None).unwrap().unwrap();
                let stored = quarantine.stored().unwrap();
                assert_eq!(stored.len(), 1);
                quarantine.purge(&stored[0]).unwrap();
            }
            ended.store(true, Ordering::Relaxed);
        });
    });
}

/// Each temp of a batch is open until the end of the batch, so the limit of open files limits the batch.
#[test]
fn a_batch_leaves_file_descriptors_free() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = Fixture::in_memory();
        let name = |n: u32| format!("sessions.json.{n:08x}-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
        let batch: Vec<_> = (0..100)
            .map(|n| {
                fs::write(fixture.dir.join(name(n)), TEMP_CONTENT).unwrap();
                fixture.candidate_named(&name(n), Verdict::Reap)
            })
            .collect();
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let few = Rlimit {
            current: Some(64),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let outcomes = fixture.reap_batch(&Reaper::new(), batch);
        let reaped = |outcome: &Outcome| matches!(outcome, Outcome::Reaped { .. });
        assert!(outcomes.iter().all(reaped), "{outcomes:?}");
    });
}

/// A process that is inside an `open` when the lease is released has time to finish it.
#[test]
fn the_protocol_waits_after_the_release() {
    in_own_process(ALL_USERS, || {
        let wait = Duration::from_millis(200);
        let fixture = Fixture::in_memory();
        let steps = Arc::new(Mutex::new(Vec::new()));
        let begun = Arc::clone(&steps);
        let hook = Hook::new(move |step, _: &OsStr| {
            begun.lock().unwrap().push((step, Instant::now()));
        });
        let reaper = Reaper::new().with_release_wait(wait).with_hook(Some(hook));
        let outcome = fixture.reap_by(&reaper);
        assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
        let steps = steps.lock().unwrap();
        let at = |step| steps.iter().find(|(begun, _)| *begun == step).unwrap().1;
        let waited = at(Step::ProveLast) - at(Step::Wait);
        assert!(waited >= wait, "{waited:?}");
    });
}

/// Without an earlier look, the opened file must still be the file that the first step saw.
#[test]
fn a_replacement_without_an_earlier_look_is_kept() {
    in_own_process(ALL_USERS, || {
        for (step, opened) in Step::ALL
            .into_iter()
            .flat_map(|step| [(step, false), (step, true)])
        {
            let fixture = Fixture::in_memory();
            let temp = fixture.temp.clone();
            let at_step = AtStep::new(step, move || {
                let other = temp.with_extension("new");
                fs::write(&other, NEW).unwrap();
                fs::rename(&other, &temp).unwrap();
            });
            let use_checker = UseChecker::new();
            let mut candidate = match opened {
                false => fixture.candidate(Verdict::Reap),
                true => fixture.opened(&use_checker, Verdict::Reap),
            };
            candidate.temp_info.expected = None;
            let reaper = Reaper::new().with_hook(Some(at_step.hook));
            let outcome = fixture.reap_with(&use_checker, &reaper, candidate);
            // Before the first step only one file has had the name, unless the old one is open.
            if opened || !matches!(step, Step::Resolve | Step::Look) {
                fixture.assert_only_at(NEW, &fixture.temp, &format!("{step:?}: {outcome:?}"));
            }
        }
    });
}

/// A process that opens the temp between the look and the claim counts as a holder: the grace starts again at the first
/// look that finds the temp unused, although the file itself is unchanged.
#[test]
fn a_late_holder_restarts_the_grace() {
    in_own_process(ALL_USERS, || {
        for step in [Step::Open, Step::Prove] {
            let fixture = Fixture::in_memory();
            let holder = Arc::new(Mutex::new(None));
            let (held, temp) = (Arc::clone(&holder), fixture.temp.clone());
            let at_step = AtStep::new(step, move || {
                *held.lock().unwrap() = Some(File::options().append(true).open(temp).unwrap());
            });
            let engine = engine(Some(at_step.hook));
            let mut clocks = orphand::core::time::ClockJumpDetector::default();
            let mut due = fixture.pass_items(TEMP);
            let mut pass = |due: &mut Vec<_>| {
                let next =
                    |due: &[orphand::engine::PassItem]| due[0].temp.as_ref().map(|temp| temp.due());
                let at = next(due).expect("a tracked temp");
                std::thread::sleep(at.since(clock::mono()));
                let before = clock::mono();
                let events = fixture.pass(&engine, &mut clocks, due);
                (before, events, next(due))
            };
            let kept = loop {
                let (_, mut events, _) = pass(&mut due);
                if let Some(event) = events.pop() {
                    break event;
                }
            };
            assert!(
                matches!(
                    kept,
                    Event::Kept {
                        reason: Reason::InUse,
                        ..
                    }
                ),
                "{kept:?}"
            );
            drop(holder.lock().unwrap().take().unwrap());
            let (at, events, next) = pass(&mut due);
            assert!(
                events.is_empty(),
                "before {step:?}: judged at the first look that finds it unused: {events:?}"
            );
            assert!(
                next.is_some_and(|next| next >= at.after(GRACE)),
                "before {step:?}: {next:?}"
            );
        }
    });
}

/// The same with a whole watcher: the temp is put back and reported, and removed when it is unused again.
#[test]
fn a_watcher_puts_a_held_temp_back() {
    in_own_process(ALL_USERS, || {
        use orphand::daemon::Watcher;
        let fixture = Fixture::in_memory();
        let attacker = Attacker::new(&fixture, Step::ProveLast, *Access::ALL.last().unwrap());
        let holder = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&holder);
        let at_step = AtStep::new(Step::ProveLast, move || {
            let path = match attacker.access {
                Access::Name => attacker.claims().pop().unwrap(),
                #[cfg(target_os = "linux")]
                Access::Handle => attacker.path(),
            };
            let file = File::options().append(true).open(path).unwrap();
            held.lock().unwrap().push(file);
        });
        let watcher = Watcher::builder()
            .roots(vec![fixture.root.clone()])
            .hook(Some(at_step.hook))
            .start()
            .unwrap();
        let wait_for = |want: fn(&Event) -> bool| {
            let end = std::time::Instant::now() + TIMEOUT;
            loop {
                let event = watcher.events().recv_deadline(end).expect("the event");
                match event {
                    Event::Failed { .. } | Event::Quarantined { .. } => panic!("{event:?}"),
                    event if want(&event) => return event,
                    _ => {}
                }
            }
        };
        let kept = wait_for(|event| matches!(event, Event::Kept { .. } | Event::Reaped(_)));
        assert!(
            matches!(
                kept,
                Event::Kept {
                    reason: Reason::InUse,
                    ..
                }
            ),
            "{kept:?}"
        );
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
        let mut file = holder.lock().unwrap().pop().unwrap();
        file.write_all(MORE).unwrap();
        drop(file);
        // After the holder has closed it, the temp is an orphan again.
        let reaped = wait_for(|event| matches!(event, Event::Reaped(_)));
        let Event::Reaped(disposed) = reaped else {
            unreachable!();
        };
        assert_eq!(
            disposed.freed.bytes,
            (TEMP_CONTENT.len() + MORE.len()) as u64
        );
        fixture.assert_no_leftovers("");
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
    });
}

/// A process that has looked up the name for an `open`, but that the lease does not count yet, is seen only when the
/// lease is requested a second time. A virus scanner stops an opener at this point, by fanotify(7), which only root on
/// Linux can use.
#[cfg(target_os = "linux")]
#[test]
fn an_opener_stopped_by_a_virus_scanner_is_seen() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    in_own_process(&[RunAs::CurrentUser], || {
        if !rustix::process::geteuid().is_root() {
            return report_skipped("fanotify needs root");
        }
        for sole in [false, true] {
            // SAFETY: creates a descriptor that nothing else uses.
            let fan = unsafe {
                let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
                let fan = libc::fanotify_init(flags, libc::O_RDONLY as u32);
                if fan < 0 {
                    return report_skipped(&format!("fanotify: {}", io::Error::last_os_error()));
                }
                Arc::new(OwnedFd::from_raw_fd(fan))
            };
            let fixture = match sole {
                false => Fixture::in_memory(),
                true => Fixture::in_memory().with_sole_copy(),
            };
            let temp = fixture.temp.clone();
            let opener = Arc::new(Mutex::new(None));
            let (parked, scanner) = (Arc::clone(&opener), Arc::clone(&fan));
            let at_step = AtStep::new(Step::Claim, move || {
                let path = std::ffi::CString::new(temp.to_str().unwrap()).unwrap();
                // SAFETY: the path ends in NUL and outlives the call.
                let marked = unsafe {
                    let (fan, mask) = (scanner.as_raw_fd(), libc::FAN_OPEN_PERM);
                    libc::fanotify_mark(
                        fan,
                        libc::FAN_MARK_ADD,
                        mask,
                        libc::AT_FDCWD,
                        path.as_ptr(),
                    )
                };
                assert_eq!(marked, 0, "{}", io::Error::last_os_error());
                let open = std::thread::spawn(move || File::options().append(true).open(temp));
                *parked.lock().unwrap() = Some(open);
                // The opener now waits for an answer.
                let mut asked = libc::pollfd {
                    fd: scanner.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one pollfd, which outlives the call.
                let asks = unsafe { libc::poll(&raw mut asked, 1, TIMEOUT.as_millis() as i32) };
                assert_eq!(asks, 1, "no process opens the file");
            });
            let outcome = fixture.reap(at_step.hook.clone());
            assert_eq!(
                at_step.steps().last(),
                Some(&Step::ProveAgain),
                "{outcome:?}"
            );
            assert!(
                matches!(outcome, Outcome::Kept(Reason::InUse)),
                "{outcome:?}"
            );
            // Without the scanner every process may open the file.
            drop(at_step);
            drop(fan);
            let mut file = join(opener.lock().unwrap().take().unwrap()).unwrap();
            file.write_all(MORE).unwrap();
            fixture.assert_only_at(&[TEMP_CONTENT, MORE].concat(), &fixture.temp, "");
        }
    });
}
