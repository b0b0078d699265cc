//! orphand is killed before each call that changes something in the root, and killed again before each such
//! call of the start that recovers.
//!
//! Nothing on the disk changes between two such calls, so these are all the states in which a kill can leave
//! it: during the protocol, during a put-back, and during recovery, which has no named steps.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use crate::fixture::report_skipped;
use crate::intercept::{self, Call, CallResponse, PendingCall};
use crate::sandbox::{CommandResult, Sandbox};

const DEAD_CONTENT: &str = "what the dead writer wrote";
const LIVE_CONTENT: &str = "what a live writer is just writing";
const SWEEP: [&str; 6] = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
/// Longer than the grace of `SWEEP`.
const AGE: Duration = Duration::from_millis(150);
const CLAIM: &str = ".orphand-0123456789abcdef-a.tmp";

/// The work that orphand does when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Removing,
    Moving,
    /// Removing without a claim: the disk is full.
    RemovingUnclaimed,
    /// Putting a claim back because of an error.
    PuttingBack,
    /// The same, while a writer has the original name.
    PuttingBackTaken,
    Recovering,
    RecoveringTaken,
    /// Recovering a claim whose name holds only a part of the original one.
    RecoveringCut,
}

impl Work {
    const ALL: [Work; 8] = [
        Work::Removing,
        Work::Moving,
        Work::RemovingUnclaimed,
        Work::PuttingBack,
        Work::PuttingBackTaken,
        Work::Recovering,
        Work::RecoveringTaken,
        Work::RecoveringCut,
    ];

    /// Creates the state in which the work begins.
    fn sandbox(self) -> Sandbox {
        let sandbox = match self {
            Work::Moving => Sandbox::in_memory_for(None),
            _ => Sandbox::in_memory_for(None).file("a", "whole, to the last byte of it"),
        };
        match self {
            Work::Recovering | Work::RecoveringTaken => sandbox.write(CLAIM, DEAD_CONTENT),
            Work::RecoveringCut => {
                let length = 255 - CLAIM.len();
                sandbox.write(
                    CLAIM.replace("a.tmp", &("x".repeat(length) + "a.tmp")),
                    DEAD_CONTENT,
                );
            }
            _ => sandbox.write("a.tmp", DEAD_CONTENT),
        }
        sandbox.age(AGE);
        sandbox
    }

    /// Reports whether the old file ends in the quarantine.
    fn moves(self) -> bool {
        match self {
            Work::Removing | Work::RemovingUnclaimed | Work::PuttingBack | Work::Recovering => {
                false
            }
            Work::Moving | Work::PuttingBackTaken | Work::RecoveringTaken | Work::RecoveringCut => {
                true
            }
        }
    }
}

/// The shared state of the runs in one root.
#[derive(Default)]
struct RunState {
    /// The file of a live writer that has taken the original name.
    holder: Mutex<Option<File>>,
    /// A file was removed.
    removed: AtomicBool,
}

/// Runs one sweep that is killed before its `last`-th change in the root.
fn sweep(sandbox: &Sandbox, work: Work, last: usize, state: &Arc<RunState>) -> CommandResult {
    let (root, changes) = (sandbox.root(), AtomicUsize::new(0));
    let state = Arc::clone(state);
    let mut command = sandbox.command(SWEEP);
    intercept::process(&mut command, move |asked: &PendingCall| {
        let path = asked.path();
        let is_claim = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(".orphand-")
        };
        if asked.call.changes_disk() && path.starts_with(&root) {
            if changes.fetch_add(1, Ordering::SeqCst) + 1 == last {
                return CallResponse::Kill;
            }
            if asked.call == Call::Unlink {
                state.removed.store(true, Ordering::SeqCst);
            }
        }
        let claims =
            asked.call == Call::Rename && asked.rename_target().is_some_and(|to| is_claim(&to));
        match work {
            Work::RemovingUnclaimed if claims => CallResponse::Fail(Errno::NOSPC),
            Work::PuttingBack | Work::PuttingBackTaken
                if asked.call == Call::StatName && is_claim(&path) =>
            {
                if work == Work::PuttingBackTaken {
                    state.take_name(&root);
                }
                CallResponse::Fail(Errno::IO)
            }
            _ => CallResponse::Allow,
        }
    });
    sandbox.finish(command)
}

impl RunState {
    fn take_name(&self, root: &Path) {
        if let Ok(mut file) = File::create_new(root.join("a.tmp")) {
            file.write_all(LIVE_CONTENT.as_bytes()).unwrap();
            *self.holder.lock().unwrap() = Some(file);
        }
    }

    fn name_is_taken(&self) -> bool {
        self.holder.lock().unwrap().is_some()
    }

    /// Asserts that nothing is lost: neither the dead writer's file nor the live writer's.
    fn check(&self, sandbox: &Sandbox, work: Work, what: &str) {
        let removed = self.removed.load(Ordering::SeqCst);
        assert!(!(removed && work.moves()), "{what}");
        let old = copies(&sandbox.root(), DEAD_CONTENT);
        assert_eq!(old.len(), usize::from(!removed), "{what}: {old:?}");
        if self.name_is_taken() {
            let new = copies(&sandbox.root(), LIVE_CONTENT);
            assert_eq!(new, [sandbox.path("a.tmp")], "{what}");
        }
    }
}

/// Returns all files in the root with this content.
fn copies(dir: &Path, content: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(copies(&path, content));
        } else if fs::read(&path).unwrap() == content.as_bytes() {
            found.push(path);
        }
    }
    found
}

/// Returns claims and empty folders. In the quarantine a file has its original name, which may look like a
/// claim.
fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default();
        let stored = dir.components().any(|part| part.as_os_str() == ".orphand");
        if name.to_string_lossy().starts_with(".orphand-") && !stored {
            found.push(path);
        } else if path.is_dir() {
            match fs::read_dir(&path).unwrap().next() {
                None => found.push(path),
                Some(_) => found.extend(leftovers(&path)),
            }
        }
    }
    found
}

#[test]
fn a_kill_before_each_change_loses_nothing() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let kills = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    // In parallel, because the runs mostly wait: for the second look, and for files to become old.
    std::thread::scope(|scope| {
        for _ in Work::ALL {
            scope.spawn(|| {
                while let Some(work) = Work::ALL.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let times = kill_twice(*work);
                    println!("{work:?}: {times} kills");
                    kills.fetch_add(times, Ordering::SeqCst);
                }
            });
        }
    });
    // Each kind of work changes something, and most of them more than once.
    assert!(kills.load(Ordering::SeqCst) > 3 * Work::ALL.len());
}

/// Kills the work at each pair of changes. Returns the number of kills.
fn kill_twice(work: Work) -> usize {
    let mut kills = 0;
    for first in 1.. {
        let mut was_killed = false;
        for second in 1.. {
            let what = format!("{work:?}, killed before change {first}, then {second}");
            let sandbox = work.sandbox();
            let state = Arc::<RunState>::default();
            if work == Work::RecoveringTaken {
                state.take_name(&sandbox.root());
            }
            let ran = sweep(&sandbox, work, first, &state);
            was_killed = ran.code().is_none();
            state.check(&sandbox, work, &format!("{what}: {ran:?}"));
            sandbox.age(AGE);
            let again = sweep(&sandbox, work, second, &state);
            let again_killed = again.code().is_none();
            let runs = format!("{what}: {ran:?}, {again:?}");
            state.check(&sandbox, work, &runs);
            kills += usize::from(was_killed) + usize::from(again_killed);
            assert_recovered(&sandbox, work, &state, &runs);
            if !again_killed {
                break;
            }
        }
        if !was_killed {
            break;
        }
    }
    kills
}

/// Asserts that one more start, without a kill and without a fault, completes the work.
fn assert_recovered(sandbox: &Sandbox, work: Work, state: &RunState, what: &str) {
    sandbox.run(SWEEP);
    sandbox.age(AGE);
    let last = sandbox.run(SWEEP).exit(0);
    let what = format!("{what}, {last:?}");
    assert_eq!(leftovers(&sandbox.root()), [] as [PathBuf; 0], "{what}");
    let old = copies(&sandbox.root(), DEAD_CONTENT);
    let taken = state.name_is_taken();
    match work.moves() && (work != Work::PuttingBackTaken || taken) {
        true => {
            assert_eq!(old.len(), 1, "{what}");
            assert!(
                old[0].starts_with(sandbox.path(".orphand")),
                "{what}: {old:?}"
            );
        }
        false => assert!(old.is_empty(), "{what}: {old:?}"),
    }
    if taken {
        let new = copies(&sandbox.root(), LIVE_CONTENT);
        assert_eq!(new, [sandbox.path("a.tmp")], "{what}");
    }
    if work != Work::Moving {
        assert_eq!(
            sandbox.content("a"),
            "whole, to the last byte of it",
            "{what}"
        );
    }
}
