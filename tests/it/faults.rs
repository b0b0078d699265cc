//! Every call that the protocol makes, answered with every error that the kernel may give.
//!
//! The calls are real and so is what meets their errors: see [`crate::intercept`]. What a fault
//! stops stays, is said, and goes when the fault is gone; what it need not stop goes all the same.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orphand::decide::judge::Reason;
use orphand::decide::policy::{Graces, Policy};
use orphand::reap::{Hook, Outcome, Step};
use orphand::root::Root;
use rustix::io::Errno;

use crate::intercept::{self, Answer, Asked, Call};
use crate::stage::*;

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
    const WAY: &[Call] = &[
        Call::OpenDir,
        Call::StatFd,
        Call::FileSystem,
        Call::OpenBelow,
    ];
    match (step, fate) {
        (Step::Resolve, Fate::Removed) => WAY,
        // The place in the quarantine is made before anything is held.
        (Step::Resolve, Fate::Moved) => &[
            Call::OpenDir,
            Call::StatFd,
            Call::FileSystem,
            Call::OpenBelow,
            Call::MakeDir,
        ],
        (Step::Look, _) => &[Call::StatName],
        (Step::Open, _) => &[Call::OpenFile],
        (Step::Prove, _) => &[Call::SetOwner, Call::SetLease],
        (Step::Judge, _) => &[Call::StatFd, Call::StatName, Call::Mark],
        (Step::Claim, _) => &[Call::Rename],
        (Step::Compare, _) => &[Call::StatName],
        (Step::ProveAgain, _) => &[Call::GetLease, Call::SetLease],
        (Step::LetGo, _) => &[Call::EndLease],
        (Step::Breathe, _) => WAY,
        (Step::ProveLast, _) => &[Call::SetOwner, Call::SetLease, Call::StatName],
        (Step::Unlink, Fate::Removed) => &[Call::Unlink, Call::StatFd, Call::EndLease],
        (Step::Unlink, Fate::Moved) => &[Call::EndLease, Call::RemoveDir],
    }
}

/// Whether this fault need not stop it.
fn is_harmless(step: Step, call: Call, errno: Errno, fate: Fate) -> bool {
    match (step, call) {
        // It ends when the file is closed, and till then an opener waits.
        (Step::LetGo | Step::Unlink, Call::EndLease) => true,
        // It is gone already, and this only counts what was freed; or an empty folder stays.
        (Step::Unlink, Call::StatFd | Call::RemoveDir) => true,
        // No such call in this kernel, or in this sandbox: there is another way.
        (Step::Resolve | Step::Breathe, Call::OpenBelow) => errno == Errno::NOSYS,
        // No such attributes on this file system.
        (Step::Judge, Call::Mark) => matches!(errno, Errno::NOSYS | Errno::OPNOTSUPP),
        // On a full disk it goes without a claim; what is to be moved needs one.
        (Step::Claim, Call::Rename) => errno == Errno::NOSPC && fate == Fate::Removed,
        _ => false,
    }
}

/// Calls and steps as they come.
type Log = Arc<Mutex<Vec<(Step, Call)>>>;

struct Trial {
    stage: Arc<Stage>,
    outcome: Outcome,
    log: Vec<(Step, Call)>,
}

/// Takes a temp through the protocol; `fault` is asked for an answer to its n-th call.
fn attempt(
    fate: Fate,
    fault: impl Fn(usize, Call) -> Option<Errno> + Send + 'static,
) -> Option<Trial> {
    let stage = Arc::new(match fate {
        Fate::Removed => Stage::new(),
        Fate::Moved => Stage::new().with_sole_copy(),
    });
    let log = Log::default();
    let at = Arc::new(AtomicUsize::new(usize::MAX));
    let now = Arc::clone(&at);
    let hook = Hook::new(move |step, _| {
        let index = Step::ALL.iter().position(|known| *known == step);
        now.store(index.unwrap(), Ordering::SeqCst);
    });
    let (actor, noted) = (Arc::clone(&stage), Arc::clone(&log));
    let answer = move |asked: &Asked| {
        let step = Step::ALL.get(at.load(Ordering::SeqCst));
        let (Some(step), false) = (step, asked.call == Call::Other) else {
            return Answer::Pass;
        };
        let mut noted = noted.lock().unwrap();
        noted.push((*step, asked.call));
        fault(noted.len() - 1, asked.call).map_or(Answer::Pass, Answer::Fail)
    };
    let outcome = match intercept::thread(move || actor.reap(hook), answer) {
        Ok(outcome) => outcome.expect("a fault is no reason to panic"),
        Err(error) => {
            skipped(&format!("seccomp: {error}"));
            return None;
        }
    };
    let log = std::mem::take(&mut *log.lock().unwrap());
    Some(Trial {
        stage,
        outcome,
        log,
    })
}

/// Each call of each step, each error, once and for good: what is stopped is kept and said, nothing
/// is lost, and the next run without the fault puts all in order and takes it.
#[test]
fn each_call_of_each_step() {
    alone(&[As::Us], || {
        let mut tried = 0;
        for fate in [Fate::Removed, Fate::Moved] {
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
            for (index, (step, call)) in healthy.log.iter().enumerate() {
                for errno in ERRORS {
                    for course in [Course::Once, Course::Lasting, Course::Stranding] {
                        if course == Course::Stranding && Some(index) <= claimed {
                            continue;
                        }
                        one_fault(fate, (index, *step, *call), errno, course);
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 1_000, "{tried}");
        eprintln!("{tried} faults");
    });
}

fn one_fault(fate: Fate, (index, step, call): (usize, Step, Call), errno: Errno, course: Course) {
    let what = format!("{fate:?}: call {index}, {call:?} of {step:?}: {errno:?}, {course:?}");
    let trial = attempt(fate, move |now, asked| match course {
        _ if now == index => Some(errno),
        Course::Lasting if now > index && asked == call => Some(errno),
        Course::Stranding if now > index && asked == Call::Rename => Some(errno),
        _ => None,
    });
    let Trial {
        stage,
        outcome,
        log,
    } = trial.expect("seccomp has worked before");
    assert_eq!(
        log.get(index),
        Some(&(step, call)),
        "{what}: it was not met"
    );
    let what = format!("{what}: {outcome:?}");
    let copies = stage.copies(OLD);
    if fate == Fate::Removed {
        stage.has_only(WHOLE, &stage.target, &what);
    }
    let harmless = is_harmless(step, call, errno, fate);
    match (&outcome, harmless, fate) {
        (Outcome::Reaped { freed }, true, Fate::Removed) => {
            assert_eq!(*freed, OLD.len() as u64, "{what}");
            assert!(copies.is_empty(), "{what}: {copies:?}");
        }
        (Outcome::Quarantined { id }, true, Fate::Moved) => {
            let moved = stage.quarantine().join(id).join(BELOW).join(TEMP);
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
                Reason::NoQuarantine => step == Step::Resolve && fate == Fate::Moved,
                Reason::Changed => errno == Errno::XDEV,
                _ => false,
            };
            assert!(means, "{what}");
            assert_eq!(copies, [stage.temp.clone()], "{what}");
        }
        _ => panic!("{what}: {copies:?}, {log:?}"),
    }
    // The next start, without the fault. Where nothing is left over it has nothing to do.
    if copies != [stage.temp.clone()] || stage.quarantine().exists() {
        put_in_order(&stage);
    }
    stage.is_tidy(&what);
    let copies = stage.copies(OLD);
    match copies.as_slice() {
        [] => assert!(harmless && fate == Fate::Removed, "{what}"),
        [one] if one.starts_with(stage.quarantine()) => {}
        [one] => {
            assert_eq!(*one, stage.temp, "{what}");
            let outcome = stage.reap(Hook::new(|_, _| {}));
            let went = match fate {
                Fate::Removed => matches!(outcome, Outcome::Reaped { .. }),
                Fate::Moved => matches!(outcome, Outcome::Quarantined { .. }),
            };
            assert!(went, "{what}, then {outcome:?}");
        }
        _ => panic!("{what}: {copies:?}"),
    }
    stage.is_tidy(&what);
}

/// A sweep for which everything is too young: what it puts in order at its start is all it does.
fn put_in_order(stage: &Stage) {
    let policy = Policy {
        grace: Graces::both(Duration::from_secs(3_600)),
        ..Stage::policy()
    };
    let root = Root::new(&stage.root.path, Arc::new(policy), true).unwrap();
    orphand::sweep::sweep(&root, &tools(None), &mut |_| true, &|_, _| {}).unwrap();
}
