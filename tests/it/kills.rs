//! orphand killed before each call that changes something in the root, and killed again before each
//! such call of the start that puts that in order.
//!
//! Between two such calls nothing on the disk changes, so these are all the states in which a kill
//! can leave it: of the protocol, of putting back, and of recovery, which has no named steps.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use crate::intercept::{self, Answer, Asked, Call};
use crate::sandbox::{Ran, Sandbox};
use crate::stage::skipped;

const OLD: &str = "what the dead writer wrote";
const NEW: &str = "what a live writer is just writing";
const SWEEP: [&str; 6] = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
/// Longer than that grace.
const AGE: Duration = Duration::from_millis(150);
const CLAIM: &str = ".orphand-0123456789abcdef-a.tmp";

/// What orphand is at when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Removing,
    Moving,
    /// The disk is full.
    RemovingUnclaimed,
    /// Something is wrong with the claim.
    PuttingBack,
    /// The same, and somebody has its name.
    PuttingBackTaken,
    Recovering,
    RecoveringTaken,
    /// The claim's name does not tell the whole of the first.
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

    /// Where it begins.
    fn sandbox(self) -> Sandbox {
        let sandbox = match self {
            Work::Moving => Sandbox::new(),
            _ => Sandbox::new().file("a", "whole"),
        };
        match self {
            Work::Recovering | Work::RecoveringTaken => sandbox.write(CLAIM, OLD),
            Work::RecoveringCut => {
                let length = 255 - CLAIM.len();
                sandbox.write(CLAIM.replace("a.tmp", &("x".repeat(length) + "a.tmp")), OLD);
            }
            _ => sandbox.write("a.tmp", OLD),
        }
        sandbox.age(AGE);
        sandbox
    }

    /// Whether the old file ends in the quarantine.
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

/// One sweep, killed before its `last`-th change in the root.
fn sweep(sandbox: &Sandbox, work: Work, last: usize, holder: &Arc<Mutex<Option<File>>>) -> Ran {
    let (root, changes) = (sandbox.root(), AtomicUsize::new(0));
    let holder = Arc::clone(holder);
    let mut command = sandbox.command(SWEEP);
    intercept::process(&mut command, move |asked: &Asked| {
        let path = asked.path();
        let is_claim = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(".orphand-")
        };
        if asked.call.is_change() && path.starts_with(&root) {
            match changes.fetch_add(1, Ordering::SeqCst) + 1 {
                change if change == last => return Answer::Kill,
                _ => {}
            }
        }
        let claims = asked.call == Call::Rename && asked.to().is_some_and(|to| is_claim(&to));
        match work {
            Work::RemovingUnclaimed if claims => Answer::Fail(Errno::NOSPC),
            Work::PuttingBack | Work::PuttingBackTaken
                if asked.call == Call::StatName && is_claim(&path) =>
            {
                if work == Work::PuttingBackTaken {
                    take_name(&root, &holder);
                }
                Answer::Fail(Errno::IO)
            }
            _ => Answer::Pass,
        }
    });
    sandbox.finish(command)
}

/// Somebody else has the name now, and is not done yet.
fn take_name(root: &Path, holder: &Mutex<Option<File>>) {
    if let Ok(mut file) = File::create_new(root.join("a.tmp")) {
        file.write_all(NEW.as_bytes()).unwrap();
        *holder.lock().unwrap() = Some(file);
    }
}

/// Everything in the root that has this content.
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

/// Claims, and folders without a file in them. (In the quarantine a file has the name that it had.)
fn litter(dir: &Path) -> Vec<PathBuf> {
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
                Some(_) => found.extend(litter(&path)),
            }
        }
    }
    found
}

#[test]
fn before_each_change() {
    if !intercept::is_possible() {
        return skipped("seccomp");
    }
    let kills = AtomicUsize::new(0);
    let next = AtomicUsize::new(0);
    // They mostly wait: for the second look, and for files to become old.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some(work) = Work::ALL.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let times = killed_twice(*work);
                    println!("{work:?}: {times} kills");
                    kills.fetch_add(times, Ordering::SeqCst);
                }
            });
        }
    });
    // Each kind of work changes something, and most of them more than once.
    assert!(kills.load(Ordering::SeqCst) > 3 * Work::ALL.len());
}

/// How often it was killed.
fn killed_twice(work: Work) -> usize {
    let mut kills = 0;
    for first in 1.. {
        let mut was_killed = false;
        for second in 1.. {
            let what = format!("{work:?}, killed before change {first}, then {second}");
            let sandbox = work.sandbox();
            let holder = Arc::default();
            if work == Work::RecoveringTaken {
                take_name(&sandbox.root(), &holder);
            }
            let ran = sweep(&sandbox, work, first, &holder);
            was_killed = ran.code().is_none();
            check(
                &sandbox,
                work,
                &holder,
                was_killed,
                &format!("{what}: {ran:?}"),
            );
            sandbox.age(AGE);
            let again = sweep(&sandbox, work, second, &holder);
            let again_killed = again.code().is_none();
            let told = format!("{what}: {ran:?}, {again:?}");
            check(&sandbox, work, &holder, again_killed, &told);
            kills += usize::from(was_killed) + usize::from(again_killed);
            put_right(&sandbox, work, &holder, &told);
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

/// Nothing is lost: neither what the dead writer left nor what the live one writes.
fn check(
    sandbox: &Sandbox,
    work: Work,
    holder: &Mutex<Option<File>>,
    was_killed: bool,
    what: &str,
) {
    let old = copies(&sandbox.root(), OLD);
    // Only one that went its whole way may have removed it.
    let may_be_gone = !work.moves() || !was_killed;
    assert!(
        old.len() == 1 || (old.is_empty() && may_be_gone),
        "{what}: {old:?}"
    );
    if work.moves() {
        assert_eq!(old.len(), 1, "{what}");
    }
    if holder.lock().unwrap().is_some() {
        assert_eq!(
            copies(&sandbox.root(), NEW),
            [sandbox.path("a.tmp")],
            "{what}"
        );
    }
}

/// One more start, without a kill and without a fault, and all is as it should be.
fn put_right(sandbox: &Sandbox, work: Work, holder: &Mutex<Option<File>>, what: &str) {
    sandbox.run(SWEEP);
    sandbox.age(AGE);
    let last = sandbox.run(SWEEP).exit(0);
    let what = format!("{what}, {last:?}");
    assert_eq!(litter(&sandbox.root()), [] as [PathBuf; 0], "{what}");
    let old = copies(&sandbox.root(), OLD);
    let taken = holder.lock().unwrap().is_some();
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
        assert_eq!(
            copies(&sandbox.root(), NEW),
            [sandbox.path("a.tmp")],
            "{what}"
        );
    }
    if work != Work::Moving {
        assert_eq!(sandbox.content("a"), "whole", "{what}");
    }
}
