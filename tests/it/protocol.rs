//! The reaping protocol with somebody in every window of it.
//!
//! Before each step an attacker acts. Afterwards no byte of a file that is in use, or that took the
//! name meanwhile, may be lost: it lies under its name, or in the quarantine.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use orphand::clock;
use orphand::decide::judge::{Reason, Verdict};
use orphand::decide::observation::FileSize;
use orphand::event::Event;
use orphand::evidence::LeaseThread;
use orphand::reap::{Hook, Outcome, Reaper, Step};

use crate::fixture::*;

/// What another writer puts there.
const NEW: &[u8] = b"what a live writer is just writing";
/// What somebody adds to what is there.
const MORE: &[u8] = b", and more";

/// How an attacker gets at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By its name; after the claim nothing is there.
    Name,
    /// By a handle that it got before, which no lease can see (`O_PATH`): through it the file can
    /// be opened at any time.
    #[cfg(target_os = "linux")]
    Handle,
}

impl Way {
    const ALL: &[Way] = &[
        Way::Name,
        // Only Linux has such handles.
        #[cfg(target_os = "linux")]
        Way::Handle,
    ];
}

/// Somebody who does something to the temp at the worst moment.
struct Attacker {
    dir: PathBuf,
    root: PathBuf,
    outside: PathBuf,
    temp: PathBuf,
    target: PathBuf,
    ino: u64,
    step: Step,
    way: Way,
    /// What keeps `Way::Handle` open.
    handle: Option<File>,
}

/// What must be so afterwards.
enum Must {
    /// This content lies somewhere on the stage.
    Exist(Vec<u8>),
    /// It lies there.
    ExistAt(PathBuf, Vec<u8>),
    /// The file with this number still has a name.
    HaveName(u64),
    /// If this could be opened, it has a name, and under it what was written through it.
    BeWhole(JoinHandle<io::Result<File>>),
}

impl Attacker {
    fn new(fixture: &Fixture, step: Step, way: Way) -> Attacker {
        let handle = match way {
            Way::Name => None,
            #[cfg(target_os = "linux")]
            Way::Handle => {
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
            way,
            handle,
        }
    }

    /// A path to the old file.
    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        match &self.handle {
            None => self.temp.clone(),
            Some(handle) => format!("/proc/self/fd/{}", handle.as_raw_fd()).into(),
        }
    }

    /// Whether everything has been looked at for the last time.
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

    /// Opens it by `options` in a thread of its own, adds something, and goes on holding it. Comes
    /// back when it is open, or waits for our lease.
    fn open(&self, options: &fs::OpenOptions, adds: bool) -> Vec<Must> {
        let (path, options) = (self.path(), options.clone());
        let opener = std::thread::spawn(move || {
            let mut file = options.open(path)?;
            if adds {
                file.write_all(MORE)?;
            }
            Ok(file)
        });
        let ino = self.ino;
        wait_until("it is open, or waits", || {
            opener.is_finished() || waits_for_lease(ino)
        });
        vec![Must::BeWhole(opener)]
    }

    /// The way by a handle goes on after the claim, and leads to a file without a name when it is
    /// gone through in the last moment. What is open by then is seen, what opens then is not:
    /// that is the one RACE of the last step.
    fn would_come_too_late(&self) -> bool {
        self.is_too_late() && self.way != Way::Name
    }
}

/// Lets `attack` happen before each step, each way, to a temp that is to be removed and to one that
/// is to be moved, opened by the look before or only then, and looks what is left.
fn at_every_step(attack: fn(&Attacker) -> Vec<Must>) {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            for way in Way::ALL {
                for (sole, opened) in [(false, false), (false, true), (true, false), (true, true)] {
                    attacked(attack, step, *way, sole, opened);
                }
            }
        }
    });
}

fn attacked(attack: fn(&Attacker) -> Vec<Must>, step: Step, way: Way, sole: bool, opened: bool) {
    let what = format!("before {step:?}, by {way:?}, sole copy: {sole}, opened before: {opened}");
    let fixture = match sole {
        false => Fixture::new(),
        true => Fixture::new().with_sole_copy(),
    };
    let attacker = Attacker::new(&fixture, step, way);
    let musts = Arc::new(Mutex::new(None));
    let result = Arc::clone(&musts);
    let stunt = AtStep::new(step, move || {
        let musts = attack(&attacker);
        *result.lock().unwrap() = Some(musts);
    });
    let outcome = match opened {
        false => fixture.reap(stunt.hook.clone()),
        true => fixture.reap_opened(stunt.hook.clone()),
    };
    let steps = stunt.steps();
    let musts = musts.lock().unwrap().take();
    let musts = musts.unwrap_or_else(|| panic!("{what}: it ended before, {outcome:?}, {steps:?}"));
    for must in musts {
        must.be(&fixture, &format!("{what}: {outcome:?} after {steps:?}"));
    }
    fixture.assert_no_leftovers(&format!("{what}: {outcome:?}"));
    // Whatever others do is no error.
    assert!(
        !matches!(outcome, Outcome::Failed { .. }),
        "{what}: {outcome:?}"
    );
}

impl Must {
    fn be(self, fixture: &Fixture, what: &str) {
        let files = || {
            let lies = |f: FoundFile| {
                (
                    f.path,
                    f.ino,
                    String::from_utf8_lossy(&f.bytes).into_owned(),
                )
            };
            fixture.files().into_iter().map(lies).collect::<Vec<_>>()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Must::Exist(bytes) => {
                let copies = fixture.copies(&bytes);
                assert_eq!(
                    copies.len(),
                    1,
                    "{what}: {:?} is lost: {:#?}",
                    text(&bytes),
                    files()
                );
            }
            Must::ExistAt(path, bytes) => {
                let there = fs::read(&path);
                let kept = there.as_ref().is_ok_and(|there| *there == bytes);
                assert!(
                    kept,
                    "{what}: {path:?} is {there:?}, not {:?}: {:#?}",
                    text(&bytes),
                    files()
                );
            }
            Must::HaveName(ino) => {
                let named = fixture.files().iter().any(|file| file.ino == ino);
                assert!(named, "{what}: inode {ino} is lost: {:#?}", files());
            }
            Must::BeWhole(opener) => match join(opener) {
                Ok(mut file) => {
                    let seen = file.metadata().unwrap();
                    assert!(seen.nlink() > 0, "{what}: an open file has lost its name");
                    let named = fixture
                        .files()
                        .into_iter()
                        .find(|named| named.ino == seen.ino());
                    let named = named.unwrap_or_else(|| panic!("{what}: it is nowhere"));
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

/// What is not there any more is nothing to lose.
fn unless_gone(done: io::Result<()>, musts: Vec<Must>) -> Vec<Must> {
    match done {
        Ok(()) => musts,
        Err(error) => {
            let harmless = [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock];
            assert!(harmless.contains(&error.kind()), "{error}");
            Vec::new()
        }
    }
}

#[test]
fn nobody_comes() {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            let fixture = Fixture::new();
            let stunt = AtStep::new(step, || {});
            let outcome = fixture.reap(stunt.hook.clone());
            let freed = TEMP_CONTENT.len() as u64;
            assert!(
                matches!(outcome, Outcome::Reaped { freed: f } if f.bytes == freed),
                "{outcome:?}"
            );
            assert_eq!(stunt.steps(), Step::ALL);
            assert_eq!(fixture.files().len(), 1, "the target");
            assert!(!fixture.quarantine().exists());

            let fixture = Fixture::new().with_sole_copy();
            let outcome = fixture.reap(AtStep::new(step, || {}).hook);
            let Outcome::Quarantined { id } = &outcome else {
                panic!("{outcome:?}");
            };
            let there = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
            fixture.assert_only_at(TEMP_CONTENT, &there, "");
        }
    });
}

#[test]
fn replaced_by_another() {
    at_every_step(|a| {
        let other = a.dir.join("being-written");
        fs::write(&other, NEW).unwrap();
        fs::rename(&other, &a.temp).unwrap();
        vec![Must::ExistAt(a.temp.clone(), NEW.to_vec())]
    });
}

#[test]
fn created_anew() {
    at_every_step(|a| {
        let _ = fs::remove_file(&a.temp);
        File::create_new(&a.temp).unwrap().write_all(NEW).unwrap();
        vec![Must::ExistAt(a.temp.clone(), NEW.to_vec())]
    });
}

/// The same, by a writer that is not done yet.
#[test]
fn created_anew_and_still_open() {
    at_every_step(|a| {
        let _ = fs::remove_file(&a.temp);
        let mut file = File::create_new(&a.temp).unwrap();
        file.write_all(NEW).unwrap();
        let open = std::thread::spawn(move || Ok(file));
        vec![
            Must::ExistAt(a.temp.clone(), NEW.to_vec()),
            Must::BeWhole(open),
        ]
    });
}

#[test]
fn opened_for_writing() {
    at_every_step(|a| {
        if a.would_come_too_late() {
            return Vec::new();
        }
        a.open(File::options().append(true), true)
    });
}

#[test]
fn opened_for_reading() {
    at_every_step(|a| {
        if a.would_come_too_late() {
            return Vec::new();
        }
        a.open(File::options().read(true), false)
    });
}

#[test]
fn opened_without_waiting() {
    at_every_step(|a| {
        a.open(
            File::options().append(true).custom_flags(libc::O_NONBLOCK),
            true,
        )
    });
}

#[test]
fn opened_or_created() {
    at_every_step(|a| {
        if a.would_come_too_late() {
            return Vec::new();
        }
        a.open(File::options().append(true).create(true), true)
    });
}

/// No descriptor is left: a mapping alone.
#[test]
fn mapped() {
    at_every_step(|a| {
        let options = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .clone();
        let done = options.open(a.path()).map(crate::holders::map);
        unless_gone(done, vec![Must::HaveName(a.ino)])
    });
}

/// Nobody holds it any more when the next step looks: only the file itself tells.
#[test]
fn written_to_and_closed() {
    at_every_step(|a| {
        let file = File::options()
            .append(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(a.path());
        let done = file.and_then(|mut file| file.write_all(MORE));
        unless_gone(done, vec![Must::Exist([TEMP_CONTENT, MORE].concat())])
    });
}

/// The same size, and its date set back.
#[test]
fn written_over_and_dated_back() {
    at_every_step(|a| {
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
        unless_gone(done, vec![Must::Exist(other)])
    });
}

#[test]
fn truncated() {
    at_every_step(|a| {
        let options = File::options()
            .write(true)
            .truncate(true)
            .custom_flags(libc::O_NONBLOCK)
            .clone();
        unless_gone(
            options.open(a.path()).map(drop),
            vec![Must::HaveName(a.ino)],
        )
    });
}

#[test]
fn given_another_name() {
    at_every_step(|a| {
        let other = a.dir.join("the-other-name");
        unless_gone(
            hard_link(a, &other),
            vec![Must::ExistAt(other.clone(), TEMP_CONTENT.to_vec())],
        )
    });
}

/// A link to whatever `path` leads to, which may be a link below `/proc`.
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

/// A name given to it before the last look keeps it; one given in the last moment keeps its bytes,
/// and then none were freed.
#[test]
fn what_has_another_name_frees_nothing() {
    in_own_process(ALL_USERS, || {
        for step in Step::ALL {
            for way in Way::ALL {
                let fixture = Fixture::new();
                let attacker = Attacker::new(&fixture, step, *way);
                let other = fixture.dir.join("the-other-name");
                let linked = Arc::new(Mutex::new(false));
                let done = Arc::clone(&linked);
                let stunt = AtStep::new(step, move || {
                    *done.lock().unwrap() = hard_link(&attacker, &other).is_ok();
                });
                let outcome = fixture.reap(stunt.hook);
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
                    (linked, outcome) => panic!("{step:?} {way:?} {linked}: {outcome:?}"),
                }
            }
        }
    });
}

#[test]
fn given_another_mode() {
    at_every_step(|a| {
        let done = fs::set_permissions(a.path(), fs::Permissions::from_mode(0o640));
        match a.is_too_late() {
            true => Vec::new(),
            false => unless_gone(done, vec![Must::Exist(TEMP_CONTENT.to_vec())]),
        }
    });
}

#[test]
fn its_target_goes() {
    at_every_step(|a| {
        let _ = fs::remove_file(&a.target);
        match a.is_too_late() {
            true => Vec::new(),
            false => vec![Must::Exist(TEMP_CONTENT.to_vec())],
        }
    });
}

#[test]
fn its_target_is_emptied() {
    at_every_step(|a| {
        File::create(&a.target).unwrap();
        match a.is_too_late() {
            true => Vec::new(),
            false => vec![Must::Exist(TEMP_CONTENT.to_vec())],
        }
    });
}

#[test]
fn its_target_comes() {
    at_every_step(|a| {
        let whole_before = a.target.exists();
        fs::write(&a.target, NEW).unwrap();
        let mut musts = vec![Must::ExistAt(a.target.clone(), NEW.to_vec())];
        if !whole_before {
            musts.push(Must::Exist(TEMP_CONTENT.to_vec()));
        }
        musts
    });
}

/// Its own writer was not dead.
#[test]
fn renamed_to_its_target() {
    at_every_step(|a| {
        let done = fs::rename(&a.temp, &a.target);
        unless_gone(
            done,
            vec![Must::ExistAt(a.target.clone(), TEMP_CONTENT.to_vec())],
        )
    });
}

/// What is outside of the root is not touched. (Moved after the last check it may be: a RACE.)
#[test]
fn its_directory_is_moved_out() {
    at_every_step(|a| {
        let outside = a.outside.join(SUBDIR);
        fs::rename(&a.dir, &outside).unwrap();
        match a.step {
            Step::ProveLast | Step::Unlink => Vec::new(),
            _ => vec![Must::ExistAt(outside.join(TEMP), TEMP_CONTENT.to_vec())],
        }
    });
}

#[test]
fn its_directory_becomes_a_symlink() {
    at_every_step(|a| {
        let (moved, other) = (a.outside.join(SUBDIR), a.outside.join("of-somebody-else"));
        fs::rename(&a.dir, &moved).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join(TEMP), NEW).unwrap();
        fs::write(other.join(TARGET), TARGET_CONTENT).unwrap();
        symlink(&other, &a.dir).unwrap();
        let mut musts = vec![Must::ExistAt(other.join(TEMP), NEW.to_vec())];
        if !matches!(a.step, Step::ProveLast | Step::Unlink) {
            musts.push(Must::ExistAt(moved.join(TEMP), TEMP_CONTENT.to_vec()));
        }
        musts
    });
}

/// The root itself is another directory now.
#[test]
fn its_root_is_replaced() {
    at_every_step(|a| {
        let moved = a.outside.join("the-old-root");
        fs::rename(&a.root, &moved).unwrap();
        fs::create_dir_all(&a.dir).unwrap();
        fs::write(&a.temp, NEW).unwrap();
        fs::write(&a.target, TARGET_CONTENT).unwrap();
        let mut musts = vec![Must::ExistAt(a.temp.clone(), NEW.to_vec())];
        if !matches!(a.step, Step::ProveLast | Step::Unlink) {
            musts.push(Must::ExistAt(
                moved.join(SUBDIR).join(TEMP),
                TEMP_CONTENT.to_vec(),
            ));
        }
        musts
    });
}

#[test]
fn its_claim_is_taken_away() {
    at_every_step(|a| {
        let stolen = a.outside.join("stolen");
        match a.claims().pop() {
            // What is in the quarantine for good is taken from there, and leaves its folder.
            Some(claim) if !(a.is_too_late() && claim.starts_with(a.root.join(".orphand"))) => {
                fs::rename(claim, &stolen).unwrap();
                vec![Must::ExistAt(stolen, TEMP_CONTENT.to_vec())]
            }
            _ => Vec::new(),
        }
    });
}

/// Somebody takes even the name of the claim. (After the last look nothing could be done.)
#[test]
fn its_claim_is_replaced() {
    at_every_step(|a| match a.claims().pop() {
        Some(claim) if !a.is_too_late() => {
            let other = a.dir.join("being-written");
            fs::write(&other, NEW).unwrap();
            fs::rename(&other, claim).unwrap();
            vec![Must::Exist(NEW.to_vec())]
        }
        _ => Vec::new(),
    });
}

/// What comes in place of a regular file is not opened for long, and never waited for.
#[test]
fn replaced_by_something_else() {
    in_own_process(ALL_USERS, || {
        type Make = fn(&std::path::Path);
        let makes: [(&str, Make); 4] = [
            ("FIFO", |path| {
                let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
                make_fifo(path, mode);
            }),
            ("socket", |path| {
                // A socket's path may not be long: from within its folder, in a process of our own.
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
                let fixture = Fixture::new();
                fs::write(fixture.outside.join("precious"), NEW).unwrap();
                let temp = fixture.temp.clone();
                let stunt = AtStep::new(step, move || {
                    let _ = fs::remove_file(&temp);
                    make(&temp);
                });
                let outcome = fixture.reap(stunt.hook);
                let there = fs::symlink_metadata(&fixture.temp);
                assert!(
                    there.is_ok_and(|there| !there.is_file()),
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

/// A look that has no hook: the name is a FIFO and a file in turns, as fast as can be.
#[test]
fn a_fifo_comes_and_goes() {
    in_own_process(ALL_USERS, || {
        use std::sync::atomic::{AtomicBool, Ordering};
        let fixture = Fixture::new();
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
        let mut clocks = orphand::decide::time::ClockJumpDetector::default();
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

/// Put back, but the name has a new owner: neither of the two is lost.
#[test]
fn put_back_overwrites_nothing() {
    in_own_process(ALL_USERS, || {
        for step in [
            Step::Compare,
            Step::ProveAgain,
            Step::LetGo,
            Step::Breathe,
            Step::ProveLast,
        ] {
            for sole in [false, true] {
                let fixture = match sole {
                    false => Fixture::new(),
                    true => Fixture::new().with_sole_copy(),
                };
                let temp = fixture.temp.clone();
                let attacker = Attacker::new(&fixture, step, Way::Name);
                let stunt = AtStep::new(step, move || {
                    fs::write(&temp, NEW).unwrap();
                    // Something is wrong with the claim.
                    let claim = attacker.claims().pop().unwrap();
                    fs::set_permissions(claim, fs::Permissions::from_mode(0o640)).unwrap();
                });
                let outcome = fixture.reap(stunt.hook);
                let Outcome::Quarantined { id } = &outcome else {
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

/// Another file is claimed in its place, and by the time it is put back the name is taken again.
#[test]
fn two_writers_one_after_the_other() {
    in_own_process(ALL_USERS, || {
        for sole in [false, true] {
            let fixture = match sole {
                false => Fixture::new(),
                true => Fixture::new().with_sole_copy(),
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

/// Where it stops, and with what answer: each check stops it where it stands, not a later one.
#[test]
fn each_check_stops_it_there() {
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
        // Whoever comes while it is leased and does not wait gets an error, and is noticed all the
        // same: what they try again in a moment should find its name.
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
        // Before which step, what happens, which step is the last that is begun, and the answer.
        let rows = [
            (Step::Resolve, move_out, Step::Resolve, changed),
            (Step::Look, replace, Step::Look, changed),
            (Step::Open, replace, Step::Judge, changed),
            (Step::Judge, lose_target, Step::Judge, changed),
            (Step::Claim, replace, Step::Compare, changed),
            (Step::Compare, touch_claim, Step::Compare, changed),
            (Step::Breathe, move_out, Step::Breathe, changed),
            (Step::ProveLast, touch_claim, Step::ProveLast, changed),
            // Leases are Linux's.
            #[cfg(target_os = "linux")]
            (Step::ProveAgain, try_claim, Step::ProveAgain, Reason::InUse),
        ];
        for ((step, act, last, want), opened) in
            rows.into_iter().flat_map(|row| [(row, false), (row, true)])
        {
            let fixture = Fixture::new();
            let attacker = Attacker::new(&fixture, step, Way::Name);
            let stunt = AtStep::new(step, move || act(&attacker));
            let outcome = match opened {
                false => fixture.reap(stunt.hook.clone()),
                true => fixture.reap_opened(stunt.hook.clone()),
            };
            assert_eq!(
                stunt.steps().last(),
                Some(&last),
                "before {step:?}: {outcome:?}"
            );
            let kept = matches!(outcome, Outcome::Kept(reason) if reason == want);
            assert!(kept, "before {step:?}: {outcome:?}");
        }
    });
}

/// On a full disk what is deleted makes the room that the quarantine needs. The answers keep the
/// order of the batch.
#[test]
fn what_is_deleted_goes_before_what_is_moved() {
    const SOLE: &str = "index.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join(SOLE), NEW).unwrap();
        let claimed = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&claimed);
        let hook = Hook::new(move |step, name: &OsStr| {
            if step == Step::Claim {
                names.lock().unwrap().push(name.to_owned());
            }
        });
        let mut batch = [
            fixture.candidate_named(SOLE, Verdict::Quarantine(Some(Reason::SoleCopy))),
            fixture.candidate(Verdict::Reap),
        ];
        let outcomes = fixture.reap_batch(&Reaper::new().with_hook(Some(hook)), &mut batch);
        let done = matches!(
            outcomes.as_slice(),
            [Outcome::Quarantined { .. }, Outcome::Reaped { .. }]
        );
        assert!(done, "{outcomes:?}");
        assert_eq!(*claimed.lock().unwrap(), [TEMP, SOLE]);
    });
}

/// Each temp of a batch is open until its end: a batch takes no more of them than there may be.
#[test]
fn a_batch_leaves_descriptors_for_others() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = Fixture::new();
        let name = |n: u32| format!("sessions.json.{n:08x}-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
        let mut batch: Vec<_> = (0..100)
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
        let outcomes = fixture.reap_batch(&Reaper::new(), &mut batch);
        let reaped = |outcome: &Outcome| matches!(outcome, Outcome::Reaped { .. });
        assert!(outcomes.iter().all(reaped), "{outcomes:?}");
    });
}

/// Whoever is inside an `open` when the proof is let go of has a breath to come out of it.
#[test]
fn it_lets_a_breath_pass() {
    in_own_process(ALL_USERS, || {
        let breath = Duration::from_millis(200);
        let fixture = Fixture::new();
        let steps = Arc::new(Mutex::new(Vec::new()));
        let begun = Arc::clone(&steps);
        let hook = Hook::new(move |step, _: &OsStr| {
            begun.lock().unwrap().push((step, Instant::now()));
        });
        let reaper = Reaper::new().with_breath(breath).with_hook(Some(hook));
        let outcome = fixture.reap_by(&reaper);
        assert!(matches!(outcome, Outcome::Reaped { .. }), "{outcome:?}");
        let steps = steps.lock().unwrap();
        let at = |step| steps.iter().find(|(begun, _)| *begun == step).unwrap().1;
        let waited = at(Step::ProveLast) - at(Step::Breathe);
        assert!(waited >= breath, "{waited:?}");
    });
}

/// Where nothing was looked at before, what is opened must still be what the first step saw.
#[test]
fn replaced_without_an_earlier_look() {
    in_own_process(ALL_USERS, || {
        for (step, opened) in Step::ALL
            .into_iter()
            .flat_map(|step| [(step, false), (step, true)])
        {
            let fixture = Fixture::new();
            let temp = fixture.temp.clone();
            let stunt = AtStep::new(step, move || {
                let other = temp.with_extension("new");
                fs::write(&other, NEW).unwrap();
                fs::rename(&other, &temp).unwrap();
            });
            let lease_thread = LeaseThread::new();
            let mut candidate = match opened {
                false => fixture.candidate(Verdict::Reap),
                true => fixture.opened(&lease_thread, Verdict::Reap),
            };
            candidate.temp_info.expected = None;
            let reaper = Reaper::new().with_hook(Some(stunt.hook));
            let outcome = fixture.reap_with(&lease_thread, &reaper, candidate);
            // Before the first step there is only one file, unless that is open.
            if opened || !matches!(step, Step::Resolve | Step::Look) {
                fixture.assert_only_at(NEW, &fixture.temp, &format!("{step:?}: {outcome:?}"));
            }
        }
    });
}

/// A holder that comes between the look and the claim counts as one: the grace starts again at the
/// first look that finds the temp free, though nothing about the file has changed.
#[test]
fn who_comes_late_is_a_holder_too() {
    in_own_process(ALL_USERS, || {
        for step in [Step::Open, Step::Prove] {
            let fixture = Fixture::new();
            let holder = Arc::new(Mutex::new(None));
            let (held, temp) = (Arc::clone(&holder), fixture.temp.clone());
            let stunt = AtStep::new(step, move || {
                *held.lock().unwrap() = Some(File::options().append(true).open(temp).unwrap());
            });
            let engine = engine(Some(stunt.hook));
            let mut clocks = orphand::decide::time::ClockJumpDetector::default();
            let mut due = fixture.pass_items(TEMP);
            let mut pass = |due: &mut Vec<_>| {
                let next =
                    |due: &[orphand::pass::PassItem]| due[0].temp.as_ref().map(|temp| temp.due());
                let at = next(due).expect("it is known");
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
                "before {step:?}: judged at the first free look: {events:?}"
            );
            assert!(
                next.is_some_and(|next| next >= at.after(GRACE)),
                "before {step:?}: {next:?}"
            );
        }
    });
}

/// The same through the whole program: put back, said, and taken when it is free again.
#[test]
fn a_watcher_puts_back_too() {
    in_own_process(ALL_USERS, || {
        use orphand::daemon::Watcher;
        let fixture = Fixture::new();
        let attacker = Attacker::new(&fixture, Step::ProveLast, *Way::ALL.last().unwrap());
        let holder = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&holder);
        let stunt = AtStep::new(Step::ProveLast, move || {
            let path = match attacker.way {
                Way::Name => attacker.claims().pop().unwrap(),
                #[cfg(target_os = "linux")]
                Way::Handle => attacker.path(),
            };
            let file = File::options().append(true).open(path).unwrap();
            held.lock().unwrap().push(file);
        });
        let watcher = Watcher::builder()
            .root(&fixture.root.path, Fixture::policy())
            .allow_broad_roots(true)
            .hook(Some(stunt.hook))
            .start()
            .unwrap();
        let said = |want: fn(&Event) -> bool| {
            let end = std::time::Instant::now() + TIMEOUT;
            loop {
                let event = watcher.events().recv_deadline(end).expect("it is said");
                match event {
                    Event::Failed { .. } | Event::Quarantined { .. } => panic!("{event:?}"),
                    event if want(&event) => return event,
                    _ => {}
                }
            }
        };
        let kept = said(|event| matches!(event, Event::Kept { .. } | Event::Reaped(_)));
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
        // And when it is let go it is an orphan again.
        let reaped = said(|event| matches!(event, Event::Reaped(_)));
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

/// Whoever is past the look-up of an open, but not yet counted by the lease, shows only when the
/// lease is asked for a second time. A virus scanner holds an opener there: fanotify(7), which is
/// Linux's and root's.
#[cfg(target_os = "linux")]
#[test]
fn an_opener_parked_by_a_virus_scanner() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    in_own_process(&[RunAs::CurrentUser], || {
        if !rustix::process::geteuid().is_root() {
            return report_skipped("fanotify needs root");
        }
        for sole in [false, true] {
            // SAFETY: makes a descriptor, which is nobody else's.
            let fan = unsafe {
                let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC;
                let fan = libc::fanotify_init(flags, libc::O_RDONLY as u32);
                if fan < 0 {
                    return report_skipped(&format!("fanotify: {}", io::Error::last_os_error()));
                }
                Arc::new(OwnedFd::from_raw_fd(fan))
            };
            let fixture = match sole {
                false => Fixture::new(),
                true => Fixture::new().with_sole_copy(),
            };
            let temp = fixture.temp.clone();
            let opener = Arc::new(Mutex::new(None));
            let (parked, scanner) = (Arc::clone(&opener), Arc::clone(&fan));
            let stunt = AtStep::new(Step::Claim, move || {
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
                // It waits for an answer now.
                let mut asked = libc::pollfd {
                    fd: scanner.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one pollfd, which outlives the call.
                let asks = unsafe { libc::poll(&raw mut asked, 1, TIMEOUT.as_millis() as i32) };
                assert_eq!(asks, 1, "nobody opens it");
            });
            let outcome = fixture.reap(stunt.hook.clone());
            assert_eq!(stunt.steps().last(), Some(&Step::ProveAgain), "{outcome:?}");
            assert!(
                matches!(outcome, Outcome::Kept(Reason::InUse)),
                "{outcome:?}"
            );
            // Without a scanner everybody may.
            drop(stunt);
            drop(fan);
            let mut file = join(opener.lock().unwrap().take().unwrap()).unwrap();
            file.write_all(MORE).unwrap();
            fixture.assert_only_at(&[TEMP_CONTENT, MORE].concat(), &fixture.temp, "");
        }
    });
}
