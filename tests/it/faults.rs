//! Answers every system call of the protocol with every error that the kernel may return.
//!
//! The calls are real, and so is the code that handles their errors: see [`crate::intercept`]. If a fault stops the
//! protocol, the temp is kept, the fault is reported, and the temp is removed once the fault is over. A fault that need
//! not stop the protocol does not.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orphand::core::judge::Reason;
use orphand::core::policy::{Graces, Open, Policy};
use orphand::fs::dir::Dir;
use orphand::fs::root::Root;
use orphand::reap::{Hook, Outcome, Step};
use orphand::sys::kernel_version;
use orphand::sys::stop::Stop;
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

/// The intended result for the temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposal {
    Removed,
    Moved,
    /// Removed while it is open, because the policy allows that.
    RemovedOpen,
}

/// The course of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultPattern {
    /// The call fails once.
    Once,
    /// From then on, every call of this kind fails.
    Lasting,
    /// After the claim, every rename fails too, so nothing can be put back.
    NoPutBack,
}

/// Returns the kinds of calls that each step makes, in the order of their first use. Calls between two steps belong to
/// the first of them.
fn calls(step: Step, disposal: Disposal) -> &'static [Call] {
    // Each component of the root's path is opened and observed, because it may be a symlink.
    const RESOLVE_CALLS: &[Call] = &[
        Call::OpenDir,
        Call::OpenFile,
        Call::StatFd,
        Call::FileSystem,
        Call::OpenBelow,
    ];
    match (step, disposal) {
        (Step::Resolve, Disposal::Removed | Disposal::RemovedOpen) => RESOLVE_CALLS,
        // The slot in the quarantine is created before the lease.
        (Step::Resolve, Disposal::Moved) => &[
            Call::OpenDir,
            Call::OpenFile,
            Call::StatFd,
            Call::FileSystem,
            Call::OpenBelow,
            Call::MakeDir,
            Call::Lock,
            Call::StatName,
            Call::List,
            Call::GetXattr,
        ],
        (Step::Look, Disposal::Removed) => &[],
        (Step::Look, _) => &[Call::StatName],
        (Step::Open, _) => &[Call::OpenFile],
        (Step::Prove, Disposal::RemovedOpen) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::Lock,
            Call::LockRange,
            Call::QueryLock,
        ],
        (Step::Prove, _) => &[Call::SetOwner, Call::SetLease],
        (Step::Judge, Disposal::Moved) => &[Call::StatFd, Call::StatName, Call::GetXattr],
        // The target is opened, written to the disk and measured.
        (Step::Judge, _) => &[
            Call::StatFd,
            Call::StatName,
            Call::OpenFile,
            Call::Sync,
            Call::Seek,
            Call::GetXattr,
        ],
        (Step::Claim, _) => &[Call::Rename],
        (Step::Compare, _) => &[Call::StatName],
        (Step::ProveAgain, Disposal::RemovedOpen) => &[],
        (Step::ProveAgain, _) => &[Call::GetLease, Call::SetLease],
        (Step::Release, Disposal::RemovedOpen) => &[Call::UnlockRange, Call::Unlock],
        (Step::Release, _) => &[Call::EndLease],
        (Step::Wait, _) => RESOLVE_CALLS,
        // A target that changed in the last seconds is measured again.
        (Step::ProveLast, Disposal::RemovedOpen) => &[
            Call::Lock,
            Call::LockRange,
            Call::QueryLock,
            Call::StatName,
            Call::Seek,
            Call::List,
            Call::OpenFile,
            Call::StatFd,
        ],
        (Step::ProveLast, Disposal::Removed) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::StatName,
            Call::Seek,
            Call::List,
            Call::OpenFile,
            Call::StatFd,
        ],
        (Step::ProveLast, Disposal::Moved) => &[
            Call::SetOwner,
            Call::SetLease,
            Call::StatName,
            Call::Seek,
            Call::List,
        ],
        (Step::Unlink, Disposal::Removed) => &[Call::Unlink, Call::StatFd, Call::EndLease],
        (Step::Unlink, Disposal::RemovedOpen) => {
            &[Call::Unlink, Call::StatFd, Call::UnlockRange, Call::Unlock]
        }
        // Then its folder is removed if it is empty.
        (Step::Unlink, Disposal::Moved) => &[
            Call::EndLease,
            Call::Unlock,
            Call::OpenDir,
            Call::Lock,
            Call::RemoveDir,
        ],
    }
}

/// Reports whether this fault need not stop the protocol.
fn is_harmless(step: Step, call: Call, errno: Errno, disposal: Disposal) -> bool {
    match (step, call) {
        // It ends when the file is closed. Until then, an opener waits.
        (Step::Release | Step::Unlink, Call::EndLease | Call::UnlockRange | Call::Unlock) => true,
        // This policy treats "in use" and "unknown" alike.
        (Step::Prove, Call::SetOwner | Call::SetLease) => disposal == Disposal::RemovedOpen,
        // The file is removed already, and this call only counts the freed space; or an empty folder is left.
        (Step::Unlink, Call::StatFd | Call::RemoveDir) => true,
        // Folders that cannot be locked are used without a lock.
        (Step::Resolve, Call::Lock) => matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP),
        (Step::Unlink, Call::OpenDir | Call::Lock) => disposal == Disposal::Moved,
        // The kernel or the sandbox lacks this call; orphand has an alternative.
        (Step::Resolve | Step::Wait, Call::OpenBelow) => errno == Errno::NOSYS,
        // The file system has no such attributes.
        (Step::Judge | Step::Resolve, Call::GetXattr) => {
            matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP)
        }
        // On a full disk the temp is removed without a claim. A temp to be moved needs one.
        (Step::Claim, Call::Rename) => errno == Errno::NOSPC && disposal == Disposal::Removed,
        _ => false,
    }
}

/// The calls, each with its step, in their order.
type CallLog = Arc<Mutex<Vec<(Step, Call)>>>;

struct FaultRun {
    fixture: Arc<Fixture>,
    outcome: Outcome,
    log: Vec<(Step, Call)>,
}

/// Takes a temp through the protocol. `fault` returns the error for its n-th call, if any.
fn attempt(
    disposal: Disposal,
    fault: impl Fn(usize, Call) -> Option<Errno> + Send + 'static,
) -> Option<FaultRun> {
    let fixture = Arc::new(match disposal {
        Disposal::Removed => Fixture::in_memory(),
        Disposal::Moved => Fixture::in_memory().with_sole_copy(),
        Disposal::RemovedOpen => Fixture::in_memory().with_policy(Policy {
            open: Open::Reap,
            ..Fixture::policy()
        }),
    });
    if let Ok(target) = File::options().write(true).open(&fixture.target) {
        // As if it had changed just now, however long this takes: then it is always measured again.
        let later = std::time::SystemTime::now() + Duration::from_secs(3600);
        target.set_modified(later).unwrap();
    }
    let holder = (disposal == Disposal::RemovedOpen).then(|| File::open(&fixture.temp).unwrap());
    let log = CallLog::default();
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
    let look = match disposal {
        Disposal::Removed => LookBefore::Unproven,
        _ => LookBefore::Closed,
    };
    let reap = move || actor.reap_after(look, hook);
    let outcome = match intercept::thread(reap, answer) {
        Ok(outcome) => outcome.expect("no panic after a fault"),
        Err(error) => {
            report_skipped(&format!("seccomp: {error}"));
            return None;
        }
    };
    drop(holder);
    let log = std::mem::take(&mut *log.lock().unwrap());
    Some(FaultRun {
        fixture,
        outcome,
        log,
    })
}

/// Repeats `attempt` while the temp is kept because it is in use, which no fault causes.
///
/// Each new [`Root`] starts a probe. To drop the descriptors of this process, the probe's process calls close_range(2),
/// which first copies the lowest 64 of them. If another thread closes a temp at that moment, the temp is still open in
/// the probe.
fn retry_while_in_use<T>(attempt: impl Fn() -> T, outcome: impl Fn(&T) -> &Outcome) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        let result = attempt();
        let is_in_use = matches!(outcome(&result), Outcome::Kept(Reason::InUse));
        if !is_in_use || Instant::now() >= end {
            return result;
        }
    }
}

/// One call of the protocol, and its fault.
#[derive(Clone, Copy, Debug)]
struct Fault {
    disposal: Disposal,
    /// The number of the call in the whole run.
    index: usize,
    step: Step,
    call: Call,
    errno: Errno,
    pattern: FaultPattern,
}

/// Each call of each step fails with each error, once and permanently. A temp that is stopped is kept and reported,
/// nothing is lost, and the next run without the fault recovers everything and removes the temp.
#[test]
fn each_failing_call_of_the_protocol_keeps_the_temp() {
    in_own_process(&[RunAs::CurrentUser], || {
        let mut faults = Vec::new();
        for disposal in [Disposal::Removed, Disposal::Moved, Disposal::RemovedOpen] {
            let Some(healthy) = attempt(disposal, |_, _| None) else {
                return;
            };
            for step in Step::ALL {
                let mut made = Vec::new();
                for (_, call) in healthy.log.iter().filter(|(at, _)| *at == step) {
                    if !made.contains(call) {
                        made.push(*call);
                    }
                }
                assert_eq!(made, calls(step, disposal), "{step:?} {disposal:?}");
            }
            let claimed = healthy.log.iter().position(|(at, _)| *at == Step::Claim);
            for (index, (step, call)) in healthy.log.iter().copied().enumerate() {
                // A call that is not repeated cannot fail again.
                let again = healthy.log[index + 1..]
                    .iter()
                    .any(|(_, next)| *next == call);
                let patterns = [
                    (FaultPattern::Once, true),
                    (FaultPattern::Lasting, again || call == Call::Rename),
                    (FaultPattern::NoPutBack, Some(index) > claimed),
                ];
                // The library that reads directories repeats the call after a signal, as often as a signal comes.
                let is_retried = |errno| call == Call::List && errno == Errno::INTR;
                let errors = ERRORS.into_iter().filter(|errno| !is_retried(*errno));
                for (pattern, _) in patterns.into_iter().filter(|(_, differs)| *differs) {
                    faults.extend(errors.clone().map(|errno| Fault {
                        disposal,
                        index,
                        step,
                        call,
                        errno,
                        pattern,
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
                        fault.run();
                    }
                });
            }
        });
    });
}

impl Fault {
    fn run(self) {
        let Fault {
            disposal,
            index,
            step,
            call,
            errno,
            pattern,
        } = self;
        let what = format!("{self:?}");
        let attempt = || {
            let run = attempt(disposal, move |now, asked| match pattern {
                _ if now == index => Some(errno),
                FaultPattern::Lasting if now > index && asked == call => Some(errno),
                FaultPattern::NoPutBack if now > index && asked == Call::Rename => Some(errno),
                _ => None,
            });
            run.expect("seccomp worked before")
        };
        let FaultRun {
            fixture,
            outcome,
            log,
        } = retry_while_in_use(attempt, |run| &run.outcome);
        assert_eq!(
            log.get(index),
            Some(&(step, call)),
            "{what}: the call was not made"
        );
        let what = format!("{what}: {outcome:?}");
        let copies = fixture.copies(TEMP_CONTENT);
        if disposal != Disposal::Moved {
            fixture.assert_only_at(TARGET_CONTENT, &fixture.target, &what);
        }
        let harmless = is_harmless(step, call, errno, disposal);
        match (&outcome, harmless, disposal) {
            (Outcome::Reaped { freed }, true, Disposal::Removed | Disposal::RemovedOpen) => {
                assert_eq!(freed.bytes, TEMP_CONTENT.len() as u64, "{what}");
                assert!(copies.is_empty(), "{what}: {copies:?}");
            }
            (Outcome::Quarantined { id, .. }, true, Disposal::Moved) => {
                let moved = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
                assert_eq!(copies, [moved], "{what}");
            }
            (Outcome::Failed { error, .. }, false, _) => {
                assert_eq!(Errno::from_io_error(error), Some(errno), "{what}");
                assert_eq!(copies.len(), 1, "{what}: {copies:?}");
            }
            (Outcome::Kept(reason), false, _) => {
                // The reason is correct for this error.
                let is_right = match reason {
                    Reason::CannotTell => {
                        matches!(call, Call::SetOwner | Call::SetLease | Call::GetLease)
                            || (step, call, errno) == (Step::Open, Call::OpenFile, Errno::ACCESS)
                            || (call, errno) == (Call::Rename, Errno::OPNOTSUPP)
                            || (call, errno) == (Call::Rename, Errno::NOSYS)
                    }
                    // A failure of the system, or a lack of resources, is not an answer.
                    Reason::NoQuarantine => {
                        let failures = [Errno::IO, Errno::MFILE, Errno::NOMEM, Errno::INTR];
                        step == Step::Resolve
                            && disposal == Disposal::Moved
                            && !failures.contains(&errno)
                    }
                    // An unreadable target does not count any more.
                    Reason::Changed => {
                        let is_target = matches!(step, Step::Judge | Step::ProveLast);
                        let is_unreadable = is_target && call == Call::OpenFile;
                        errno == Errno::XDEV || (is_unreadable && errno == Errno::ACCESS)
                    }
                    _ => false,
                };
                assert!(is_right, "{what}");
                assert_eq!(copies, std::slice::from_ref(&fixture.temp), "{what}");
            }
            _ => panic!("{what}: {copies:?}, {log:?}"),
        }
        // The next start, without the fault. If nothing is left over, it has nothing to do.
        if copies != [fixture.temp.clone()] || fixture.quarantine().exists() {
            recover_only(&fixture);
        }
        fixture.assert_no_leftovers(&what);
        let copies = fixture.copies(TEMP_CONTENT);
        match copies.as_slice() {
            [] => assert!(harmless && disposal != Disposal::Moved, "{what}"),
            [one] if one.starts_with(fixture.quarantine()) => {}
            [one] => {
                assert_eq!(*one, fixture.temp, "{what}");
                let reap = || fixture.reap(Hook::new(|_, _| {}));
                let outcome = retry_while_in_use(reap, |outcome| outcome);
                let is_gone = match disposal {
                    Disposal::Removed | Disposal::RemovedOpen => {
                        matches!(outcome, Outcome::Reaped { .. })
                    }
                    Disposal::Moved => matches!(outcome, Outcome::Quarantined { .. }),
                };
                assert!(is_gone, "{what}, then {outcome:?}");
            }
            _ => panic!("{what}: {copies:?}"),
        }
        fixture.assert_no_leftovers(&what);
    }
}

/// Errors that show an action of another process.
#[test]
fn errors_are_translated_into_reasons() {
    in_own_process(&[RunAs::CurrentUser], || {
        use Disposal::*;
        // The number of the call among its kind, its error, and the expected result.
        type Faults = &'static [(Call, usize, Errno)];
        #[rustfmt::skip]
        let rows: [(&str, Disposal, Faults, &str); 8] = [
            ("no rename that overwrites nothing", Removed, &[(Call::Rename, 0, Errno::OPNOTSUPP)], "Kept(CannotTell)"),
            ("busy", Removed, &[(Call::Unlink, 0, Errno::BUSY)], "Kept(InUse)"),
            ("removed", Removed, &[(Call::Unlink, 0, Errno::NOENT)], "Settled"),
            ("removed before it could be put back", Removed,
                &[(Call::Unlink, 0, Errno::IO), (Call::Rename, 1, Errno::NOENT)], "Settled"),
            ("busy on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::BUSY)], "Kept(InUse)"),
            ("removed on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::NOENT)], "Settled"),
            ("a fault on a full disk", Removed,
                &[(Call::Rename, 0, Errno::NOSPC), (Call::Unlink, 0, Errno::IO)], "Failed { step: Unlink"),
            // The first call creates the quarantine.
            ("the id is taken", Moved, &[(Call::MakeDir, 1, Errno::EXIST)], "Quarantined"),
        ];
        for (what, disposal, faults, want) in rows {
            let made = Mutex::new(Vec::new());
            let run = attempt(disposal, move |_, asked| {
                let mut made = made.lock().unwrap();
                let before = made.iter().filter(|call| **call == asked).count();
                made.push(asked);
                let fault = faults
                    .iter()
                    .find(|(call, n, _)| (*call, *n) == (asked, before));
                fault.map(|(_, _, errno)| *errno)
            });
            let Some(FaultRun { outcome, .. }) = run else {
                return;
            };
            let outcome = format!("{outcome:?}");
            assert!(outcome.starts_with(want), "{what}: {outcome}");
        }

        // The lease of another process is in force, or the file is missing.
        let opened = (Step::Open, Call::OpenFile);
        for (errno, want) in [(Errno::AGAIN, "Kept(InUse)"), (Errno::NOENT, "Settled")] {
            let Some(healthy) = attempt(Removed, |_, _| None) else {
                return;
            };
            let at = healthy.log.iter().position(|call| *call == opened);
            let run = attempt(Removed, move |now, _| (Some(now) == at).then_some(errno));
            let outcome = format!("{:?}", run.unwrap().outcome);
            assert_eq!(outcome, want, "{errno:?}");
        }
    });
}

/// A claim that a crash left is kept if its recovery fails, and the reason is reported.
#[test]
fn a_claim_that_cannot_be_recovered_is_kept() {
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
                Ok(recovered) => recovered.unwrap().expect_err("an error"),
                Err(error) => return report_skipped(&format!("seccomp: {error}")),
            };
            assert_eq!(Errno::from_io_error(&error), Some(errno), "{call:?}");
            fixture.assert_only_at(TEMP_CONTENT, &at, "");
        }
    });
}

/// On a full disk a temp is removed by its original name. The last look is the look at that name.
#[test]
fn changes_on_a_full_disk_keep_the_temp() {
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
        // The program that starts runs until the end of this test.
        let start: Act = |fixture| {
            let lock = fixture.root.policy.unless_open.as_ref();
            std::mem::forget(File::create(fixture.dir.join(lock.unwrap())).unwrap());
        };
        for (name, act, reason) in [
            ("replaced", replace, Reason::Changed),
            ("its target is removed", lose_target, Reason::Changed),
            ("its target is emptied", empty_target, Reason::Changed),
            ("touched", touch, Reason::Changed),
            ("a companion appears", companion, Reason::Changed),
            ("its program starts", start, Reason::InUse),
        ] {
            let policy = Policy {
                unless_open: Some("LOCK".into()),
                ..Fixture::policy()
            };
            let fixture = Arc::new(Fixture::new().with_policy(policy));
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
            let found = fixture
                .files()
                .into_iter()
                .find(|file| file.path == fixture.temp);
            let found = found.unwrap_or_else(|| panic!("{name}: the temp is missing"));
            assert_eq!(found.ino == old, name != "replaced", "{name}");
        }
    });
}

/// The last listing of a directory takes long if the directory is large. A target that is lost meanwhile keeps its temp,
/// because it is looked at after the listing.
#[test]
fn a_target_that_is_lost_during_the_last_listing_keeps_the_temp() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Fixture);
        let acts: [(&str, Act); 3] = [
            ("removed", |at| fs::remove_file(&at.target).unwrap()),
            ("emptied", |at| drop(File::create(&at.target).unwrap())),
            ("replaced", |at| {
                let other = at.dir.join("other");
                fs::write(&other, "x").unwrap();
                fs::rename(&other, &at.target).unwrap();
            }),
        ];
        for (what, act) in acts {
            let fixture = Arc::new(Fixture::new());
            let (actor, other) = (Arc::clone(&fixture), Arc::clone(&fixture));
            let is_last = Arc::new(AtomicBool::new(false));
            let now = Arc::clone(&is_last);
            let hook = Hook::new(move |step, _| {
                now.store(step == Step::ProveLast, Ordering::SeqCst);
            });
            let lose = move |asked: &PendingCall| {
                if asked.call == Call::List && is_last.swap(false, Ordering::SeqCst) {
                    act(&other);
                }
                CallResponse::Allow
            };
            let reap = move || actor.reap_after(LookBefore::Unproven, hook);
            let outcome = match intercept::thread(reap, lose) {
                Ok(outcome) => outcome.unwrap(),
                Err(error) => return report_skipped(&format!("seccomp: {error}")),
            };
            let kept = matches!(outcome, Outcome::Kept(Reason::Changed));
            assert!(kept, "{what}: {outcome:?}");
            assert!(fixture.temp.exists(), "{what}");
        }
    });
}

/// Runs a sweep for which all temps are too young, so that it does nothing but the recovery at its start.
fn recover_only(fixture: &Fixture) {
    let policy = Policy {
        grace: Graces::both(Duration::from_secs(3_600)),
        ..Fixture::policy()
    };
    let root = Root::new(&fixture.root.path, Arc::new(policy), true).unwrap();
    let stop = Stop::default();
    orphand::engine::sweep::sweep(&root, &engine(None), &stop, &mut |_| {}, &|_, _| {}).unwrap();
}

/// An internal error in one thread of a sweep ends the sweep, which would otherwise wait for that thread forever.
#[test]
fn a_panic_in_a_thread_ends_the_sweep() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = Fixture::new();
        for number in 0..4 {
            let dir = fixture.root.path.join(format!("d{number}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(TEMP), TEMP_CONTENT).unwrap();
            fs::write(dir.join(TARGET), TARGET_CONTENT).unwrap();
        }
        std::thread::sleep(GRACE);
        let is_first = AtomicBool::new(true);
        let hook = Hook::new(move |step, _| {
            let panics = step == Step::Claim && is_first.swap(false, Ordering::SeqCst);
            assert!(!panics, "the fault of this test");
        });
        let root = fixture.root.clone();
        let sweep = std::thread::spawn(move || {
            let (engine, stop) = (engine(Some(hook)), Stop::default());
            orphand::engine::sweep::sweep(&root, &engine, &stop, &mut |_| {}, &|_, _| {})
        });
        wait_until("the sweep ends", || sweep.is_finished());
        assert!(sweep.join().is_err());
    });
}

/// A call of the whole program, from its start to its end.
struct SweepCall {
    name: &'static str,
    matches: fn(&PendingCall) -> bool,
    /// Reports whether this error need not stop the sweep.
    is_harmless: fn(Errno) -> bool,
    /// Without this call there is no usable root.
    is_root: bool,
}

const NEVER: fn(Errno) -> bool = |_| false;
const ALWAYS: fn(Errno) -> bool = |_| true;
const TEMP_FILE: &str = "root/a.tmp";

const fn sweep_call(
    name: &'static str,
    is: fn(&PendingCall) -> bool,
    is_harmless: fn(Errno) -> bool,
) -> SweepCall {
    SweepCall {
        name,
        matches: is,
        is_harmless,
        is_root: false,
    }
}

/// A sweep looks by name only at files that it cannot open as their owner.
const LOOK_BY_NAME: SweepCall = sweep_call(
    "look at the temp",
    |asked| asked.call == Call::StatName && asked.path().ends_with(TEMP_FILE),
    NEVER,
);

const SWEEP_CALLS: &[SweepCall] = &[
    SweepCall {
        is_root: true,
        ..sweep_call(
            "open the root",
            |asked| asked.call == Call::OpenDir && asked.path().ends_with("root"),
            NEVER,
        )
    },
    sweep_call(
        "read the root",
        |asked| asked.call == Call::List && asked.path().ends_with("root"),
        NEVER,
    ),
    SweepCall {
        is_root: true,
        ..sweep_call(
            "identify the root",
            |asked| asked.call == Call::StatFd && asked.path().ends_with("root"),
            NEVER,
        )
    },
    SweepCall {
        is_root: true,
        ..sweep_call(
            "ask for its file system",
            |asked| asked.call == Call::FileSystem,
            NEVER,
        )
    },
    sweep_call(
        "open the temp",
        |asked| asked.call == Call::OpenFile && asked.path().ends_with(TEMP_FILE),
        NEVER,
    ),
    sweep_call(
        "look at the open temp",
        |asked| asked.call == Call::StatFd && asked.path().ends_with(TEMP_FILE),
        NEVER,
    ),
    sweep_call(
        "take the lease",
        |asked| asked.call == Call::SetLease,
        NEVER,
    ),
    sweep_call(
        "ask for the lease",
        |asked| asked.call == Call::GetLease,
        NEVER,
    ),
    sweep_call(
        "end the lease",
        |asked| asked.call == Call::EndLease,
        ALWAYS,
    ),
    sweep_call(
        "read the mark",
        |asked| asked.call == Call::GetXattr,
        |errno| matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP),
    ),
    sweep_call(
        "look at the target",
        |asked| asked.call == Call::StatName && asked.path().ends_with("root/a"),
        NEVER,
    ),
    sweep_call(
        "claim",
        |asked| asked.call == Call::Rename && asked.path().ends_with(TEMP_FILE),
        |errno| errno == Errno::NOSPC,
    ),
    sweep_call(
        "look at the claim",
        |asked| asked.call == Call::StatName && is_claim(&asked.path()),
        NEVER,
    ),
    sweep_call(
        "remove the claim",
        |asked| asked.call == Call::Unlink && is_claim(&asked.path()),
        NEVER,
    ),
    // Faults of orphand's own files stop nothing.
    sweep_call(
        "make its folders",
        |asked| asked.call == Call::MakeDir && is_its_own(asked),
        ALWAYS,
    ),
    sweep_call(
        "open its files",
        |asked| asked.call == Call::Create && is_its_own(asked),
        ALWAYS,
    ),
    sweep_call("lock its files", |asked| asked.call == Call::Lock, ALWAYS),
    sweep_call(
        "write its files",
        |asked| asked.call == Call::Write && is_its_own(asked),
        ALWAYS,
    ),
    sweep_call(
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

/// The whole program and its exit code: 3 if a fault stopped it, 0 if the fault need not.
#[test]
fn each_failing_call_of_a_sweep_is_reported() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let next = AtomicUsize::new(0);
    let all: Vec<(&SweepCall, Errno)> = SWEEP_CALLS
        .iter()
        .flat_map(|call| ERRORS.map(|errno| (call, errno)))
        .collect();
    // They mostly wait for the second look.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((call, errno)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                    a_sweep_with(call, *errno);
                }
            });
        }
    });
}

fn a_sweep_with(call: &'static SweepCall, errno: Errno) {
    let what = format!("{}: {errno:?}", call.name);
    let sandbox = Sandbox::in_memory_for(None)
        .file("a", "whole, to the last byte of it")
        .file("a.tmp", "xyz")
        .aged(Duration::from_millis(150));
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    let mut command = sandbox.command(SHORT);
    intercept::process(&mut command, move |asked| {
        if !(call.matches)(asked) {
            return CallResponse::Allow;
        }
        // An interrupted call may be repeated, and is not interrupted again.
        match (count.fetch_add(1, Ordering::SeqCst), errno) {
            (1.., Errno::INTR) => CallResponse::Allow,
            _ => CallResponse::Fail(errno),
        }
    });
    let ran = sandbox.finish(command);
    assert!(
        met.load(Ordering::SeqCst) > 0,
        "{what}: the call was not made"
    );
    let context = format!("{what}: {ran:?}");
    assert_eq!(
        sandbox.content("a"),
        "whole, to the last byte of it",
        "{context}"
    );
    let harmless = (call.is_harmless)(errno) || errno == Errno::INTR;
    // The first look could not find out who holds the temp, so its grace starts at the second look.
    let unanswered = errno == Errno::INTR && call.name == "take the lease";
    match ran.code() {
        Some(0) if unanswered => {
            let events = ran.events();
            assert_eq!(events.one("kept")["reason"], "young", "{context}");
        }
        Some(0) if harmless => {
            assert_eq!(ran.events().names("reaped"), ["a.tmp"], "{context}");
            assert_eq!(sandbox.listing(), ["a"], "{context}");
            return;
        }
        Some(3) if !(call.is_harmless)(errno) => {
            let is_reported = ran.events().0.iter().any(|event| {
                event["event"] == "failed"
                    || (event["event"] == "kept" && event["reason"] == "cannot-tell")
            });
            assert!(is_reported, "{context}");
        }
        // Not even the root could be opened.
        Some(1) if call.is_root && ran.stderr.contains("root") => {}
        _ => panic!("{context}"),
    }
    assert_eq!(sandbox.content("a.tmp"), "xyz", "{context}");
    // Repeated without the fault. A temp that was put back starts a new grace.
    sandbox.age(Duration::from_millis(150));
    let again = sandbox.run(SHORT).exit(0);
    assert_eq!(again.events().names("reaped"), ["a.tmp"], "{context}");
    assert_eq!(sandbox.listing(), ["a"], "{context}");
}

/// Which calls fail while a sweep removes many temps with new targets, and what follows.
struct FlushCase {
    name: &'static str,
    temps: usize,
    fails: fn(&PendingCall) -> bool,
    /// The file system was written to the disk.
    together: bool,
    /// Each target was written to the disk alone.
    alone: bool,
    removed: bool,
}

/// The number of temps from which on their targets are written together.
const MANY_TARGETS: usize = 16;

fn is_target(asked: &PendingCall) -> bool {
    let path = asked.path();
    asked.call == Call::Sync
        && path
            .extension()
            .is_some_and(|extension| extension == "json")
}

/// Before temps are removed because of their targets, the targets are written to the disk: many of them by writing the
/// file system, and if that fails, each alone. If that fails as well, the temps are kept.
#[test]
fn new_targets_are_written_to_the_disk() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let cases = [
        FlushCase {
            name: "nothing fails",
            temps: MANY_TARGETS,
            fails: |_| false,
            together: true,
            alone: false,
            removed: true,
        },
        FlushCase {
            name: "few targets",
            temps: MANY_TARGETS - 1,
            fails: |_| false,
            together: false,
            alone: true,
            removed: true,
        },
        FlushCase {
            name: "the file system is not written",
            temps: MANY_TARGETS,
            fails: |asked| asked.call == Call::SyncAll,
            together: true,
            alone: true,
            removed: true,
        },
        FlushCase {
            name: "the cache of the disk is not written",
            temps: MANY_TARGETS,
            fails: |asked| asked.call == Call::Sync && !is_target(asked),
            together: true,
            alone: true,
            removed: true,
        },
        FlushCase {
            name: "nothing is written",
            temps: MANY_TARGETS,
            fails: |asked| matches!(asked.call, Call::Sync | Call::SyncAll),
            together: true,
            alone: true,
            removed: false,
        },
    ];
    for case in cases {
        let mut sandbox = Sandbox::new();
        for n in 0..case.temps {
            sandbox = sandbox
                .file(format!("{n}.json"), "whole")
                .file(format!("{n}.json.tmp"), "xyz");
        }
        let sandbox = sandbox.aged(Duration::from_millis(150));
        let root = Dir::open_below(&sandbox.root(), None, Path::new("")).unwrap();
        let is_known = ["ext4", "xfs", "btrfs"].contains(&&*root.properties().file_system);
        let has_together = is_known && kernel_version::is_at_least((5, 17));
        let (together, alone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (all, each) = (Arc::clone(&together), Arc::clone(&alone));
        let mut command = sandbox.command(SHORT);
        intercept::process(&mut command, move |asked| {
            all.fetch_add(usize::from(asked.call == Call::SyncAll), Ordering::SeqCst);
            each.fetch_add(usize::from(is_target(asked)), Ordering::SeqCst);
            match (case.fails)(asked) {
                true => CallResponse::Fail(Errno::IO),
                false => CallResponse::Allow,
            }
        });
        let ran = sandbox.finish(command);
        let context = format!("{}: {ran:?}", case.name);
        let removed = ran.events().names("reaped").len();
        assert_eq!(removed, case.temps * usize::from(case.removed), "{context}");
        let together = together.load(Ordering::SeqCst) > 0;
        assert_eq!(together, case.together && has_together, "{context}");
        let alone = alone.load(Ordering::SeqCst);
        let want = case.temps * usize::from(case.alone || !has_together);
        assert_eq!(alone, want, "{context}");
        assert_eq!(
            ran.code(),
            Some(if case.removed { 0 } else { 3 }),
            "{context}"
        );
    }
}

/// A watcher that a fault has stopped removes the temp once the fault is over, without any request.
#[test]
fn a_watcher_retries() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let named = |name: &str| {
        let mut all = SWEEP_CALLS.iter().chain([&LOOK_BY_NAME]);
        all.find(|call| call.name == name).unwrap().matches
    };
    let rows: [(&str, Errno, bool); 7] = [
        ("look at the temp", Errno::IO, false),
        ("open the temp", Errno::MFILE, false),
        ("take the lease", Errno::NOMEM, false),
        ("claim", Errno::ACCESS, false),
        ("look at the claim", Errno::IO, false),
        ("remove the claim", Errno::ROFS, false),
        // The temp cannot even be put back. It keeps the name of its claim until it can.
        ("remove the claim", Errno::IO, true),
    ];
    for (name, errno, no_put_back) in rows {
        let what = format!("{name}: {errno:?}, no_put_back: {no_put_back}");
        let sandbox = Sandbox::new().file("a", "whole, to the last byte of it");
        let mut command = sandbox.command(["watch", "--json", "--grace", "200ms", "root"]);
        let lasts = Arc::new(AtomicBool::new(false));
        let (is, fault) = (named(name), Arc::clone(&lasts));
        intercept::process(&mut command, move |asked| {
            let put_back = asked.call == Call::Rename && is_claim(&asked.path());
            let fails = is(asked) || (no_put_back && put_back);
            match fault.load(Ordering::SeqCst) && fails {
                true => CallResponse::Fail(errno),
                false => CallResponse::Allow,
            }
        });
        let mut watching = WatchProcess::start(command).ready();
        lasts.store(true, Ordering::SeqCst);
        sandbox.write("a.tmp", "xyz");
        watching.wait_for(|event| {
            let is_report = ["failed", "kept"]
                .iter()
                .any(|kind| event["event"] == **kind);
            is_report && crate::sandbox::name(event) == "a.tmp"
        });
        let claims = sandbox.listing().into_iter();
        let left = claims.filter(|name| name.starts_with(".orphand-")).count();
        assert_eq!(left, usize::from(no_put_back), "{what}");
        assert_eq!(sandbox.listing().len(), 2, "{what}");
        lasts.store(false, Ordering::SeqCst);
        watching.wait_for(crate::sandbox::is("reaped", "a.tmp"));
        watching.stop();
        assert_eq!(sandbox.listing(), ["a"], "{what}");
    }
}

/// If a user cannot have more threads, one thread does all the work. A watch that could not be stopped is not started,
/// and one that cannot receive events scans periodically. Nothing is left over, and nothing hangs.
#[test]
fn a_thread_limit_is_handled() {
    if !is_root() {
        return report_skipped("a separate user needs root");
    }
    if is_sanitized() {
        return report_skipped("a sanitizer creates threads");
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
        if most < THREADS_NEEDED {
            sandbox.finish(command).exit(1).stderr_has("ulimit -u");
            continue;
        }
        let mut watching = WatchProcess::start(command).ready();
        sandbox.write("b/a.tmp", "x");
        watching.wait_for_sentinel_in(&sandbox, "b");
        watching.wait_for(crate::sandbox::is("reaped", "a.tmp"));
        let stopped = watching.stop();
        // The threads that receive events have not ended: they were never started. This is reported once for the root
        // and once for its ancestors.
        let stderr = &stopped.stderr;
        assert!(!stderr.contains("has ended"), "{most} threads: {stderr}");
        let causes = stderr.matches("no more threads can be started.").count();
        assert!(causes <= 2, "{most} threads: {stderr}");
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
    assert_eq!(
        began.first(),
        Some(&(THREADS_NEEDED, true)),
        "it scans periodically"
    );
    assert_eq!(began.last(), Some(&(64, false)), "it watches");
}

/// The number of threads that a watch needs: the main thread, the thread of ctrlc and the one that it notifies, the
/// timer and the supervisor.
const THREADS_NEEDED: u64 = 5;
