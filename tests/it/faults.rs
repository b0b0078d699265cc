//! Every call that the protocol makes, answered with every error that the kernel may give.
//!
//! The calls are real and so is what meets their errors: see [`crate::intercept`]. What a fault
//! stops stays, is said, and goes when the fault is gone; what it need not stop goes all the same.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orphand::decide::judge::Reason;
use orphand::decide::policy::{Graces, Open, Policy};
use orphand::reap::{Hook, Outcome, Step};
use orphand::root::Root;
use orphand::stop::Stop;
use rustix::io::Errno;

use crate::fixture::*;
use crate::intercept::{self, Call, CallResponse, PendingCall};
use crate::sandbox::{Sandbox, WatchProcess, is_root, is_sanitized};

const ERRORS: [Errno; 10] = [
    Errno::IO,
    Errno::ACCESS,
    Errno::ROFS,
    Errno::NOSPC,
    Errno::MFILE,
    Errno::NOMEM,
    Errno::INTR,
    Errno::XDEV,
    Errno::NOSYS,
    Errno::OPNOTSUPP,
];

/// What is to become of the temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Removed,
    Moved,
    /// Removed though it is open, by the user's wish.
    Taken,
}

/// How the fault goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// The call fails once.
    Once,
    /// From then on every call of its sort fails.
    Lasting,
    /// The same after the claim, and nothing can be put back.
    Stranding,
}

/// The sorts of call that each step makes, in the order in which they are first made. What happens
/// between two steps belongs to the first of them.
fn calls(step: Step, fate: Fate) -> &'static [Call] {
    // Each part of the way to the root is opened and looked at: it may be a symlink.
    const WAY: &[Call] = &[
        Call::OpenDir,
        Call::OpenFile,
        Call::StatFd,
        Call::FileSystem,
        Call::OpenBelow,
    ];
    match (step, fate) {
        (Step::Resolve, Fate::Removed | Fate::Taken) => WAY,
        // The place in the quarantine is made before anything is held.
        (Step::Resolve, Fate::Moved) => &[
            Call::OpenDir,
            Call::OpenFile,
            Call::StatFd,
            Call::FileSystem,
            Call::OpenBelow,
            Call::MakeDir,
            Call::List,
            Call::Lock,
            Call::StatName,
            Call::GetXattr,
        ],
        (Step::Look, _) => &[Call::StatName],
        (Step::Open, _) => &[Call::OpenFile],
        (Step::Prove, Fate::Taken) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::Lock,
            Call::LockRange,
            Call::QueryLock,
        ],
        (Step::Prove, _) => &[Call::SetOwner, Call::SetLease],
        (Step::Judge, Fate::Moved) => &[Call::StatFd, Call::StatName, Call::GetXattr],
        // The target is opened, and asked how much data it holds.
        (Step::Judge, _) => &[
            Call::StatFd,
            Call::StatName,
            Call::OpenFile,
            Call::Seek,
            Call::GetXattr,
        ],
        (Step::Claim, _) => &[Call::Rename],
        (Step::Compare, _) => &[Call::StatName],
        (Step::ProveAgain, Fate::Taken) => &[],
        (Step::ProveAgain, _) => &[Call::GetLease, Call::SetLease],
        (Step::LetGo, Fate::Taken) => &[Call::UnlockRange, Call::Unlock],
        (Step::LetGo, _) => &[Call::EndLease],
        (Step::Breathe, _) => WAY,
        // A target that changed in the last seconds is measured again.
        (Step::ProveLast, Fate::Taken) => &[
            Call::Lock,
            Call::LockRange,
            Call::QueryLock,
            Call::StatName,
            Call::OpenFile,
            Call::StatFd,
            Call::Seek,
            Call::List,
        ],
        (Step::ProveLast, Fate::Removed) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::StatName,
            Call::OpenFile,
            Call::StatFd,
            Call::Seek,
            Call::List,
        ],
        (Step::ProveLast, Fate::Moved) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::StatName,
            Call::Seek,
            Call::List,
        ],
        (Step::Unlink, Fate::Removed) => &[Call::Unlink, Call::StatFd, Call::EndLease],
        (Step::Unlink, Fate::Taken) => {
            &[Call::Unlink, Call::StatFd, Call::UnlockRange, Call::Unlock]
        }
        // After that its folder is cleared away, if it is empty.
        (Step::Unlink, Fate::Moved) => &[
            Call::EndLease,
            Call::Unlock,
            Call::OpenDir,
            Call::Lock,
            Call::RemoveDir,
        ],
    }
}

/// Whether this fault need not stop it.
fn is_harmless(step: Step, call: Call, errno: Errno, fate: Fate) -> bool {
    match (step, call) {
        // It ends when the file is closed, and till then an opener waits.
        (Step::LetGo | Step::Unlink, Call::EndLease | Call::UnlockRange | Call::Unlock) => true,
        // Whether it is held or that cannot be told is the same to this wish.
        (Step::Prove, Call::SetOwner | Call::SetLease) => fate == Fate::Taken,
        // It is gone already, and this only counts what was freed; or an empty folder stays.
        (Step::Unlink, Call::StatFd | Call::RemoveDir) => true,
        // Where folders cannot be locked they are used without.
        (Step::Resolve, Call::Lock) => matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP),
        (Step::Unlink, Call::OpenDir | Call::Lock) => fate == Fate::Moved,
        // No such call in this kernel, or in this sandbox: there is another way.
        (Step::Resolve | Step::Breathe, Call::OpenBelow) => errno == Errno::NOSYS,
        // No such attributes on this file system.
        (Step::Judge | Step::Resolve, Call::GetXattr) => {
            matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP)
        }
        // On a full disk it goes without a claim; what is to be moved needs one.
        (Step::Claim, Call::Rename) => errno == Errno::NOSPC && fate == Fate::Removed,
        _ => false,
    }
}

/// Calls and steps as they come.
type Log = Arc<Mutex<Vec<(Step, Call)>>>;

struct LeaseProbe {
    fixture: Arc<Fixture>,
    outcome: Outcome,
    log: Vec<(Step, Call)>,
}

/// Takes a temp through the protocol; `fault` is asked for an answer to its n-th call.
fn attempt(
    fate: Fate,
    fault: impl Fn(usize, Call) -> Option<Errno> + Send + 'static,
) -> Option<LeaseProbe> {
    let fixture = Arc::new(match fate {
        Fate::Removed => Fixture::new(),
        Fate::Moved => Fixture::new().with_sole_copy(),
        Fate::Taken => Fixture::new().with_policy(Policy {
            open: Open::Reap,
            ..Fixture::policy()
        }),
    });
    let holder = (fate == Fate::Taken).then(|| File::open(&fixture.temp).unwrap());
    let log = Log::default();
    let at = Arc::new(AtomicUsize::new(usize::MAX));
    let now = Arc::clone(&at);
    let hook = Hook::new(move |step, _| {
        let index = Step::ALL.iter().position(|known| *known == step);
        now.store(index.unwrap(), Ordering::SeqCst);
    });
    let (actor, noted) = (Arc::clone(&fixture), Arc::clone(&log));
    let answer = move |asked: &PendingCall| {
        let step = Step::ALL.get(at.load(Ordering::SeqCst));
        let (Some(step), false) = (step, asked.call == Call::Other) else {
            return CallResponse::Allow;
        };
        let mut noted = noted.lock().unwrap();
        noted.push((*step, asked.call));
        fault(noted.len() - 1, asked.call).map_or(CallResponse::Allow, CallResponse::Fail)
    };
    let outcome = match intercept::thread(move || actor.reap(hook), answer) {
        Ok(outcome) => outcome.expect("a fault is no reason to panic"),
        Err(error) => {
            report_skipped(&format!("seccomp: {error}"));
            return None;
        }
    };
    drop(holder);
    let log = std::mem::take(&mut *log.lock().unwrap());
    Some(LeaseProbe {
        fixture,
        outcome,
        log,
    })
}

/// One call of the protocol, and how it fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    fate: Fate,
    /// Which call it is, of all.
    index: usize,
    step: Step,
    call: Call,
    errno: Errno,
    course: Course,
}

/// Each call of each step, each error, once and for good: what is stopped is kept and said, nothing
/// is lost, and the next run without the fault puts all in order and takes it.
#[test]
fn each_call_of_each_step() {
    in_own_process(&[RunAs::CurrentUser], || {
        let mut faults = Vec::new();
        for fate in [Fate::Removed, Fate::Moved, Fate::Taken] {
            let Some(healthy) = attempt(fate, |_, _| None) else {
                return;
            };
            for step in Step::ALL {
                let mut made = Vec::new();
                for (_, call) in healthy.log.iter().filter(|(at, _)| *at == step) {
                    if !made.contains(call) {
                        made.push(*call);
                    }
                }
                assert_eq!(made, calls(step, fate), "{step:?} {fate:?}");
            }
            let claimed = healthy.log.iter().position(|(at, _)| *at == Step::Claim);
            for (index, (step, call)) in healthy.log.iter().copied().enumerate() {
                // What is not called again cannot fail again.
                let again = healthy.log[index + 1..]
                    .iter()
                    .any(|(_, next)| *next == call);
                let courses = [
                    (Course::Once, true),
                    (Course::Lasting, again || call == Call::Rename),
                    (Course::Stranding, Some(index) > claimed),
                ];
                // The library that reads directories asks again after a signal, for as long as there are signals.
                let is_retried = |errno| call == Call::List && errno == Errno::INTR;
                let errors = ERRORS.into_iter().filter(|errno| !is_retried(*errno));
                for (course, _) in courses.into_iter().filter(|(_, differs)| *differs) {
                    faults.extend(errors.clone().map(|errno| Fault {
                        fate,
                        index,
                        step,
                        call,
                        errno,
                        course,
                    }));
                }
            }
        }
        println!("{} faults", faults.len());
        assert!(faults.len() > 1_000);
        // Each waits for its own supervisor most of the time.
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some(fault) = faults.get(next.fetch_add(1, Ordering::SeqCst)) {
                        fault.strike();
                    }
                });
            }
        });
    });
}

impl Fault {
    fn strike(self) {
        let Fault {
            fate,
            index,
            step,
            call,
            errno,
            course,
        } = self;
        let what = format!("{self:?}");
        let trial = attempt(fate, move |now, asked| match course {
            _ if now == index => Some(errno),
            Course::Lasting if now > index && asked == call => Some(errno),
            Course::Stranding if now > index && asked == Call::Rename => Some(errno),
            _ => None,
        });
        let LeaseProbe {
            fixture,
            outcome,
            log,
        } = trial.expect("seccomp has worked before");
        assert_eq!(
            log.get(index),
            Some(&(step, call)),
            "{what}: it was not met"
        );
        let what = format!("{what}: {outcome:?}");
        let copies = fixture.copies(TEMP_CONTENT);
        if fate != Fate::Moved {
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, &what);
        }
        let harmless = is_harmless(step, call, errno, fate);
        match (&outcome, harmless, fate) {
            (Outcome::Reaped { freed }, true, Fate::Removed | Fate::Taken) => {
                assert_eq!(freed.bytes, TEMP_CONTENT.len() as u64, "{what}");
                assert!(copies.is_empty(), "{what}: {copies:?}");
            }
            (Outcome::Quarantined { id }, true, Fate::Moved) => {
                let moved = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
                assert_eq!(copies, [moved], "{what}");
            }
            (Outcome::Failed { error, .. }, false, _) => {
                assert_eq!(Errno::from_io_error(error), Some(errno), "{what}");
                assert_eq!(copies.len(), 1, "{what}: {copies:?}");
            }
            (Outcome::Kept(reason), false, _) => {
                // Said as what it means, where it means something.
                let means = match reason {
                    Reason::CannotTell => {
                        matches!(call, Call::SetOwner | Call::SetLease | Call::GetLease)
                            || (call, errno) == (Call::Rename, Errno::OPNOTSUPP)
                            || (call, errno) == (Call::Rename, Errno::NOSYS)
                    }
                    // That the system fails, or lends nothing more, is no answer.
                    Reason::NoQuarantine => {
                        let lent = [Errno::IO, Errno::MFILE, Errno::NOMEM, Errno::INTR];
                        step == Step::Resolve && fate == Fate::Moved && !lent.contains(&errno)
                    }
                    // A target that may not be read does not count any more.
                    Reason::Changed => {
                        let is_target = matches!(step, Step::Judge | Step::ProveLast);
                        let is_unreadable = is_target && call == Call::OpenFile;
                        errno == Errno::XDEV || (is_unreadable && errno == Errno::ACCESS)
                    }
                    _ => false,
                };
                assert!(means, "{what}");
                assert_eq!(copies, std::slice::from_ref(&fixture.temp), "{what}");
            }
            _ => panic!("{what}: {copies:?}, {log:?}"),
        }
        // The next start, without the fault. Where nothing is left over it has nothing to do.
        if copies != [fixture.temp.clone()] || fixture.quarantine().exists() {
            put_in_order(&fixture);
        }
        fixture.assert_no_leftovers(&what);
        let copies = fixture.copies(TEMP_CONTENT);
        match copies.as_slice() {
            [] => assert!(harmless && fate != Fate::Moved, "{what}"),
            [one] if one.starts_with(fixture.quarantine()) => {}
            [one] => {
                assert_eq!(*one, fixture.temp, "{what}");
                let outcome = fixture.reap(Hook::new(|_, _| {}));
                let went = match fate {
                    Fate::Removed | Fate::Taken => matches!(outcome, Outcome::Reaped { .. }),
                    Fate::Moved => matches!(outcome, Outcome::Quarantined { .. }),
                };
                assert!(went, "{what}, then {outcome:?}");
            }
            _ => panic!("{what}: {copies:?}"),
        }
        fixture.assert_no_leftovers(&what);
    }
}

/// Errors that say what has happened meanwhile.
#[test]
fn errors_with_a_meaning() {
    in_own_process(&[RunAs::CurrentUser], || {
        use Fate::*;
        // Which calls of their sort fail, and how; and what becomes of it.
        type Faults = &'static [(Call, usize, Errno)];
        #[rustfmt::skip]
        let rows: [(&str, Fate, Faults, &str); 8] = [
            ("no rename that overwrites nothing", Removed, &[(Call::Rename, 0, Errno::OPNOTSUPP)], "Kept(CannotTell)"),
            ("busy", Removed, &[(Call::Unlink, 0, Errno::BUSY)], "Kept(InUse)"),
            ("gone", Removed, &[(Call::Unlink, 0, Errno::NOENT)], "Settled"),
            ("gone when it was to be put back", Removed,
                &[(Call::Unlink, 0, Errno::IO), (Call::Rename, 1, Errno::NOENT)], "Settled"),
            ("busy on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::BUSY)], "Kept(InUse)"),
            ("gone on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::NOENT)], "Settled"),
            ("a fault on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::IO)], "Failed { step: Unlink"),
            // The first one makes the quarantine.
            ("the id is taken", Moved, &[(Call::MakeDir, 1, Errno::EXIST)], "Quarantined"),
        ];
        for (what, fate, faults, want) in rows {
            let made = Mutex::new(Vec::new());
            let trial = attempt(fate, move |_, asked| {
                let mut made = made.lock().unwrap();
                let before = made.iter().filter(|call| **call == asked).count();
                made.push(asked);
                let fault = faults
                    .iter()
                    .find(|(call, n, _)| (*call, *n) == (asked, before));
                fault.map(|(_, _, errno)| *errno)
            });
            let Some(LeaseProbe { outcome, .. }) = trial else {
                return;
            };
            let outcome = format!("{outcome:?}");
            assert!(outcome.starts_with(want), "{what}: {outcome}");
        }

        // Somebody else's lease is in the way; or it is gone.
        let opened = (Step::Open, Call::OpenFile);
        for (errno, want) in [(Errno::AGAIN, "Kept(InUse)"), (Errno::NOENT, "Settled")] {
            let Some(healthy) = attempt(Removed, |_, _| None) else {
                return;
            };
            let at = healthy.log.iter().position(|call| *call == opened);
            let trial = attempt(Removed, move |now, _| (Some(now) == at).then_some(errno));
            let outcome = format!("{:?}", trial.unwrap().outcome);
            assert_eq!(outcome, want, "{errno:?}");
        }
    });
}

/// A claim that a crash left stays as it is when it cannot be put in order, and why is told.
#[test]
fn a_claim_that_cannot_be_put_in_order() {
    in_own_process(&[RunAs::CurrentUser], || {
        for (taken, call, errno) in [
            (false, Call::Rename, Errno::ACCESS),
            (true, Call::MakeDir, Errno::IO),
        ] {
            let fixture = Arc::new(Fixture::new());
            let claim = format!(".orphand-0123456789abcdef-{TEMP}");
            let at = fixture.dir.join(&claim);
            fs::rename(&fixture.temp, &at).unwrap();
            if taken {
                fs::write(&fixture.temp, "another file").unwrap();
            }
            let (actor, met) = (Arc::clone(&fixture), AtomicBool::new(false));
            let once = move |asked: &PendingCall| match asked.call == call {
                true if !met.swap(true, Ordering::SeqCst) => CallResponse::Fail(errno),
                _ => CallResponse::Allow,
            };
            let error = match intercept::thread(move || actor.recover(&claim), once) {
                Ok(recovered) => recovered.unwrap().expect_err("it fails"),
                Err(error) => return report_skipped(&format!("seccomp: {error}")),
            };
            assert_eq!(Errno::from_io_error(&error), Some(errno), "{call:?}");
            fixture.assert_only_at(TEMP_CONTENT, &at, "");
        }
    });
}

/// On a full disk a temp goes by its own name. What is looked at there is looked at last.
#[test]
fn on_a_full_disk_somebody_comes() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Fixture);
        let replace: Act = |fixture| {
            let other = fixture.dir.join("being-written");
            fs::write(&other, "another file").unwrap();
            fs::rename(&other, &fixture.temp).unwrap();
        };
        let lose_target: Act = |fixture| fs::remove_file(&fixture.target).unwrap();
        let empty_target: Act = |fixture| drop(File::create(&fixture.target).unwrap());
        let touch: Act = |fixture| {
            fs::set_permissions(&fixture.temp, fs::Permissions::from_mode(0o640)).unwrap();
        };
        let companion: Act = |fixture| {
            fs::write(fixture.dir.join(format!("{TEMP}-wal")), "the rest of it").unwrap();
        };
        for (name, act, reason) in [
            ("replaced", replace, Reason::Changed),
            ("its target goes", lose_target, Reason::Changed),
            ("its target is emptied", empty_target, Reason::Changed),
            ("touched", touch, Reason::Changed),
            ("a companion comes", companion, Reason::Reserved),
        ] {
            let fixture = Arc::new(Fixture::new());
            let old = File::open(&fixture.temp).unwrap().metadata().unwrap().ino();
            let (actor, other) = (Arc::clone(&fixture), Arc::clone(&fixture));
            let hook = Hook::new(move |step, _| {
                if step == Step::Compare {
                    act(&other);
                }
            });
            let full = |asked: &PendingCall| match asked.call {
                Call::Rename if asked.rename_target().is_some_and(|to| is_claim(&to)) => {
                    CallResponse::Fail(Errno::NOSPC)
                }
                _ => CallResponse::Allow,
            };
            let outcome = match intercept::thread(move || actor.reap(hook), full) {
                Ok(outcome) => outcome.unwrap(),
                Err(error) => return report_skipped(&format!("seccomp: {error}")),
            };
            let kept = matches!(outcome, Outcome::Kept(why) if why == reason);
            assert!(kept, "{name}: {outcome:?}");
            let there = fixture
                .files()
                .into_iter()
                .find(|file| file.path == fixture.temp);
            let there = there.unwrap_or_else(|| panic!("{name}: it is gone"));
            assert_eq!(there.ino == old, name != "replaced", "{name}");
        }
    });
}

/// A sweep for which everything is too young: what it puts in order at its start is all it does.
fn put_in_order(fixture: &Fixture) {
    let policy = Policy {
        grace: Graces::both(Duration::from_secs(3_600)),
        ..Fixture::policy()
    };
    let root = Root::new(&fixture.root.path, Arc::new(policy), true).unwrap();
    let stop = Stop::default();
    orphand::sweep::sweep(&root, &engine(None), &stop, &mut |_| {}, &|_, _| {}).unwrap();
}

/// A call of the whole program, from its start to its end.
struct Place {
    name: &'static str,
    is: fn(&PendingCall) -> bool,
    /// Whether this error need not stop it.
    is_harmless: fn(Errno) -> bool,
    /// Without it there is no root to work on.
    is_root: bool,
}

const NEVER: fn(Errno) -> bool = |_| false;
const ALWAYS: fn(Errno) -> bool = |_| true;
const TEMP_FILE: &str = "root/a.tmp";

const fn place(
    name: &'static str,
    is: fn(&PendingCall) -> bool,
    is_harmless: fn(Errno) -> bool,
) -> Place {
    Place {
        name,
        is,
        is_harmless,
        is_root: false,
    }
}

const PLACES: &[Place] = &[
    Place {
        is_root: true,
        ..place(
            "open the root",
            |asked| asked.call == Call::OpenDir && asked.path().ends_with("root"),
            NEVER,
        )
    },
    place(
        "read the root",
        |asked| asked.call == Call::List && asked.path().ends_with("root"),
        NEVER,
    ),
    Place {
        is_root: true,
        ..place(
            "identify the root",
            |asked| asked.call == Call::StatFd && asked.path().ends_with("root"),
            NEVER,
        )
    },
    Place {
        is_root: true,
        ..place(
            "ask for its file system",
            |asked| asked.call == Call::FileSystem,
            NEVER,
        )
    },
    place(
        "look at the temp",
        |asked| asked.call == Call::StatName && asked.path().ends_with(TEMP_FILE),
        NEVER,
    ),
    place(
        "open the temp",
        |asked| asked.call == Call::OpenFile && asked.path().ends_with(TEMP_FILE),
        NEVER,
    ),
    place(
        "look at the open temp",
        |asked| asked.call == Call::StatFd && asked.path().ends_with(TEMP_FILE),
        NEVER,
    ),
    place("own the lease", |asked| asked.call == Call::SetOwner, NEVER),
    place(
        "take the lease",
        |asked| asked.call == Call::SetLease,
        NEVER,
    ),
    place(
        "ask for the lease",
        |asked| asked.call == Call::GetLease,
        NEVER,
    ),
    place(
        "end the lease",
        |asked| asked.call == Call::EndLease,
        ALWAYS,
    ),
    place(
        "read the mark",
        |asked| asked.call == Call::GetXattr,
        |errno| matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP),
    ),
    place(
        "look at the target",
        |asked| asked.call == Call::StatName && asked.path().ends_with("root/a"),
        NEVER,
    ),
    place(
        "claim",
        |asked| asked.call == Call::Rename && asked.path().ends_with(TEMP_FILE),
        |errno| errno == Errno::NOSPC,
    ),
    place(
        "look at the claim",
        |asked| asked.call == Call::StatName && is_claim(&asked.path()),
        NEVER,
    ),
    place(
        "remove the claim",
        |asked| asked.call == Call::Unlink && is_claim(&asked.path()),
        NEVER,
    ),
    // What orphand wants for itself stops nothing.
    place(
        "make its folders",
        |asked| asked.call == Call::MakeDir && is_its_own(asked),
        ALWAYS,
    ),
    place(
        "open its files",
        |asked| asked.call == Call::Create && is_its_own(asked),
        ALWAYS,
    ),
    place("lock its files", |asked| asked.call == Call::Lock, ALWAYS),
    place(
        "write its files",
        |asked| asked.call == Call::Write && is_its_own(asked),
        ALWAYS,
    ),
    place(
        "shorten its files",
        |asked| asked.call == Call::Truncate && is_its_own(asked),
        ALWAYS,
    ),
];

fn is_claim(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with(".orphand-")
}

fn is_its_own(asked: &PendingCall) -> bool {
    let path = asked.path();
    ["state", "runtime"].iter().any(|folder| {
        path.components()
            .any(|part| part.as_os_str() == std::ffi::OsStr::new(folder))
    })
}

const SHORT: [&str; 7] = ["sweep", "--yes", "--json", "--grace", "100ms", "root", "-v"];

/// The whole program, and its exit code: 3 where a fault stopped it, 0 where it need not.
#[test]
fn each_call_of_a_sweep() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let next = AtomicUsize::new(0);
    let all: Vec<(&Place, Errno)> = PLACES
        .iter()
        .flat_map(|place| ERRORS.map(|errno| (place, errno)))
        .collect();
    // They mostly wait for the second look.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((place, errno)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    a_sweep_with(place, *errno);
                }
            });
        }
    });
}

fn a_sweep_with(place: &'static Place, errno: Errno) {
    let what = format!("{}: {errno:?}", place.name);
    let sandbox = Sandbox::new()
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(Duration::from_millis(150));
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    let mut command = sandbox.command(SHORT);
    intercept::process(&mut command, move |asked| {
        if !(place.is)(asked) {
            return CallResponse::Allow;
        }
        // Who is interrupted may try again, and is not interrupted for ever.
        match (count.fetch_add(1, Ordering::SeqCst), errno) {
            (1.., Errno::INTR) => CallResponse::Allow,
            _ => CallResponse::Fail(errno),
        }
    });
    let ran = sandbox.finish(command);
    assert!(met.load(Ordering::SeqCst) > 0, "{what}: it was not met");
    let said = format!("{what}: {ran:?}");
    assert_eq!(
        sandbox.content("a"),
        "whole, to the last byte of it",
        "{said}"
    );
    let harmless = (place.is_harmless)(errno) || errno == Errno::INTR;
    // Nobody could tell at the first look who holds it. Its grace begins at the second.
    let unanswered =
        errno == Errno::INTR && ["own the lease", "take the lease"].contains(&place.name);
    match ran.code() {
        Some(0) if unanswered => {
            let events = ran.events();
            assert_eq!(events.one("kept")["reason"], "young", "{said}");
        }
        Some(0) if harmless => {
            assert_eq!(ran.events().names("reaped"), ["a.tmp"], "{said}");
            assert_eq!(sandbox.listing(), ["a"], "{said}");
            return;
        }
        Some(3) if !(place.is_harmless)(errno) => {
            let told = ran.events().0.iter().any(|event| {
                event["event"] == "failed"
                    || (event["event"] == "kept" && event["reason"] == "cannot-tell")
            });
            assert!(told, "{said}");
        }
        // Not even the root could be had.
        Some(1) if place.is_root && ran.stderr.contains("root") => {}
        _ => panic!("{said}"),
    }
    assert_eq!(sandbox.content("a.tmp"), "xyz", "{said}");
    // Tried again without the fault. What was put back begins a new grace.
    sandbox.age(Duration::from_millis(150));
    let again = sandbox.run(SHORT).exit(0);
    assert_eq!(again.events().names("reaped"), ["a.tmp"], "{said}");
    assert_eq!(sandbox.listing(), ["a"], "{said}");
}

/// A watcher that a fault has stopped takes the temp when the fault is gone, without being told.
#[test]
fn a_watcher_tries_again() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let named = |name: &str| PLACES.iter().find(|place| place.name == name).unwrap().is;
    let rows: [(&str, Errno, bool); 7] = [
        ("look at the temp", Errno::IO, false),
        ("open the temp", Errno::MFILE, false),
        ("take the lease", Errno::NOMEM, false),
        ("claim", Errno::ACCESS, false),
        ("look at the claim", Errno::IO, false),
        ("remove the claim", Errno::ROFS, false),
        // It cannot even be put back: it lies there under its claim's name until it can.
        ("remove the claim", Errno::IO, true),
    ];
    for (name, errno, strands) in rows {
        let what = format!("{name}: {errno:?}, strands: {strands}");
        let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
        let mut command = sandbox.command(["watch", "--json", "--grace", "200ms", "root"]);
        let lasts = Arc::new(AtomicBool::new(false));
        let (is, fault) = (named(name), Arc::clone(&lasts));
        intercept::process(&mut command, move |asked| {
            let put_back = asked.call == Call::Rename && is_claim(&asked.path());
            let fails = is(asked) || (strands && put_back);
            match fault.load(Ordering::SeqCst) && fails {
                true => CallResponse::Fail(errno),
                false => CallResponse::Allow,
            }
        });
        let mut watching = WatchProcess::start(command).ready();
        lasts.store(true, Ordering::SeqCst);
        sandbox.write("a.tmp", "xyz");
        watching.wait_for(|event| {
            let said = ["failed", "kept"]
                .iter()
                .any(|said| event["event"] == **said);
            said && crate::sandbox::name(event) == "a.tmp"
        });
        let claims = sandbox.listing().into_iter();
        let stranded = claims.filter(|name| name.starts_with(".orphand-")).count();
        assert_eq!(stranded, usize::from(strands), "{what}");
        assert_eq!(sandbox.listing().len(), 2, "{what}");
        lasts.store(false, Ordering::SeqCst);
        watching.wait_for(crate::sandbox::is("reaped", "a.tmp"));
        watching.stop();
        assert_eq!(sandbox.listing(), ["a"], "{what}");
    }
}

/// Where a user can have no more threads one does it all; a watch that could not be stopped is not begun,
/// one that cannot hear of anything scans by time. Nothing is left, and nothing hangs.
#[test]
fn no_more_threads() {
    if !is_root() {
        return report_skipped("a user of its own needs root");
    }
    if is_sanitized() {
        return report_skipped("a sanitizer has threads of its own");
    }
    let sandbox = Sandbox::with_thread_limit(1)
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "x")
        .file("b/b.4194304.tmp", "")
        .file("b/c/c.4194304.tmp", "")
        .aged(Duration::from_millis(150));
    let options = ["-r", "--grace", "100ms"];
    let temps = sandbox.scan(options).exit(0).stdout_json()["temps"].clone();
    assert_eq!(temps.as_array().map(Vec::len), Some(3), "{temps}");
    let events = sandbox.sweep(options).exit(0).events();
    assert_eq!(events.of("reaped").len(), 3, "{events:?}");

    let mut began = Vec::new();
    for most in (1..=9).chain([64]) {
        let sandbox = Sandbox::with_thread_limit(most).file("b/a", "whole, to the last byte of it");
        let options = ["watch", "--json", "-r", "--grace", "400ms", "root"];
        let command = sandbox.command(options);
        if most < ENOUGH {
            sandbox.finish(command).exit(1).stderr_has("ulimit -u");
            continue;
        }
        let mut watching = WatchProcess::start(command).ready();
        sandbox.write("b/a.tmp", "x");
        watching.wait_for_sentinel_in(&sandbox, "b");
        watching.wait_for(crate::sandbox::is("reaped", "a.tmp"));
        let stopped = watching.stop();
        // The threads that hear events did not end: they never began. That is told once of the root, and once
        // of the way to it.
        let said = &stopped.stderr;
        assert!(!said.contains("has ended"), "{most} threads: {said}");
        let causes = said.matches("no more threads can be started.").count();
        assert!(causes <= 2, "{most} threads: {said}");
        began.push((
            most,
            stopped.stderr.contains("no more threads can be started."),
        ));
        assert_eq!(
            sandbox.content("b/a"),
            "whole, to the last byte of it",
            "{most} threads"
        );
    }
    assert_eq!(began.first(), Some(&(ENOUGH, true)), "it scans by time");
    assert_eq!(began.last(), Some(&(64, false)), "it watches");
}

/// The main thread, ctrlc's and the one that is told by it, the timer and the keeper: without one of them
/// there is no watch.
const ENOUGH: u64 = 5;
