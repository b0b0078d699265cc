//! Files that have been in the quarantine for too long are dropped, under the same proof as any other
//! removal: some of them are there *because* nothing could prove that they are unused.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orphand::core::event::Event;
use orphand::core::judge::Verdict;
use orphand::core::policy::{Action, Policy};
use orphand::core::retention::{ClockTrust, Limits, NeededSpace};
use orphand::core::time::Wall;
use orphand::engine::limits::{self, LimitContext};
use orphand::evidence::{FlushedTargets, UseChecker};
use orphand::reap::quarantine::{MovedAs, NotReplaced, Quarantine, QuarantineUsage};
use orphand::reap::{Outcome, Reaper};
use orphand::store::journal::Journal;
use orphand::sys::clock;
use serde_json::Value;

use crate::fixture::*;
use crate::intercept::{self, Call, CallResponse, PendingCall};

/// Not shorter than [`TEMP_CONTENT`].
const NEWER_CONTENT: &[u8] = b"what a later writer wrote, and died";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NO_LIMITS: Limits = Limits {
    age: Duration::ZERO,
    percent: 0,
    min_free: 0,
};
/// An age limit that every file has passed.
pub(crate) const AT_ONCE: Duration = Duration::from_nanos(1);

/// Returns a fixture whose temp is in the quarantine, and its path there.
fn stored() -> (Fixture, PathBuf) {
    stored_after(|_| {})
}

/// Does the same, and calls `act` before the move.
fn stored_after(act: impl FnOnce(&Fixture)) -> (Fixture, PathBuf) {
    let fixture = Fixture::new().with_policy(Policy {
        action: Action::Quarantine,
        ..Fixture::policy()
    });
    act(&fixture);
    let moved = fixture.reap_as(&Reaper::new(), Verdict::Quarantine(None));
    let Outcome::Quarantined { id, .. } = moved else {
        panic!("{moved:?}");
    };
    let at = fixture.quarantine().join(id).join(SUBDIR).join(TEMP);
    let meta = fs::metadata(&at).unwrap();
    let since = Wall {
        sec: meta.ctime(),
        nsec: meta.ctime_nsec() as u32,
    };
    wait_until("the clock has passed its change time", || {
        clock::wall() > since
    });
    (fixture, at)
}

/// Stores another file beside the one at `at`, newer than it.
fn store_beside(at: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let file = at.with_file_name(name);
    let changed = |file: &Path| {
        let meta = fs::metadata(file).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    wait_until("it is newer", || {
        fs::write(&file, bytes).unwrap();
        changed(&file) > changed(at)
    });
    file
}

pub(crate) fn enforce_limits(fixture: &Fixture, age: Duration) -> Vec<Event> {
    let journal = Journal::new(Some(&fixture.home().join("state")));
    let usage = QuarantineUsage::default();
    usage.set_limits(Limits { age, ..NO_LIMITS });
    let context = LimitContext {
        usage: &usage,
        journal: &journal,
        use_checker: &UseChecker::new(),
        flushed_targets: &FlushedTargets::default(),
        trust: ClockTrust {
            running: DAY,
            since_jump: None,
        },
        wanted: NeededSpace::default(),
    };
    limits::enforce_limits(&fixture.root, None, context).events
}

fn dropped(events: &[Event]) -> Vec<PathBuf> {
    let path = |event: &Event| match event {
        Event::Purged { subject, .. } => subject.path.clone(),
        event => panic!("{event:?}"),
    };
    events.iter().map(path).collect()
}

#[test]
fn an_unused_overdue_copy_is_dropped() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Fixture, &Path) -> Option<File>;
        let rows: [(&str, Duration, Act, bool); 5] = [
            ("unused", AT_ONCE, |_, _| None, true),
            ("not overdue", DAY, |_, _| None, false),
            ("open", AT_ONCE, |_, at| File::open(at).ok(), false),
            (
                "its target is missing",
                AT_ONCE,
                |fixture, _| fs::remove_file(&fixture.target).map(|()| None).unwrap(),
                false,
            ),
            (
                "its target is empty",
                AT_ONCE,
                |fixture, _| File::create(&fixture.target).map(|_| None).unwrap(),
                false,
            ),
        ];
        for (what, age, act, is_dropped) in rows {
            let (fixture, at) = stored();
            let held = act(&fixture, &at);
            let events = enforce_limits(&fixture, age);
            drop(held);
            let mut written: Vec<Value> = Vec::new();
            let journal = Journal::new(Some(&fixture.home().join("state")));
            journal.outcomes(|line| written.push(line)).unwrap();
            match is_dropped {
                true => {
                    assert_eq!(
                        dropped(&events),
                        std::slice::from_ref(&fixture.temp),
                        "{what}"
                    );
                    assert!(fixture.copies(TEMP_CONTENT).is_empty(), "{what}");
                    assert!(!fixture.quarantine().exists(), "{what}");
                    assert_eq!(written.len(), 1, "{what}: {written:?}");
                    assert_eq!(written[0]["event"], "purged", "{what}");
                }
                false => {
                    assert!(events.is_empty(), "{what}: {events:?}");
                    assert!(written.is_empty(), "{what}: {written:?}");
                    fixture.assert_only_at(TEMP_CONTENT, &at, what);
                }
            }
        }
    });
}

/// A program that has lost its file creates another one, which says nothing about the copy that was moved
/// before.
#[test]
fn a_target_newer_than_the_move_drops_no_copy() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Path);
        let acts: [(&str, Act); 2] = [
            ("changed", |target| {
                fs::write(target, [NEWER_CONTENT, NEWER_CONTENT].concat()).unwrap()
            }),
            ("replaced", |target| {
                let other = target.with_file_name("other");
                fs::copy(target, &other).unwrap();
                fs::rename(other, target).unwrap();
            }),
        ];
        for (what, act) in acts {
            let (fixture, at) = stored();
            act(&fixture.target);
            let events = enforce_limits(&fixture, AT_ONCE);
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.assert_only_at(TEMP_CONTENT, &at, what);
        }
    });
}

/// Another directory may get the name of the one that a copy was moved from, and hold files older than the
/// move.
#[test]
fn a_target_in_another_directory_drops_no_copy() {
    in_own_process(ALL_USERS, || {
        let other = |fixture: &Fixture| fixture.dir.with_file_name("other");
        let (fixture, at) = stored_after(|fixture| {
            fs::create_dir(other(fixture)).unwrap();
            let name = fixture.target.file_name().unwrap();
            fs::copy(&fixture.target, other(fixture).join(name)).unwrap();
        });
        let first = fixture.dir.with_file_name("first");
        fs::rename(&fixture.dir, &first).unwrap();
        fs::rename(other(&fixture), &fixture.dir).unwrap();
        assert!(enforce_limits(&fixture, AT_ONCE).is_empty());
        assert_eq!(fs::read(&at).unwrap(), TEMP_CONTENT);
        // A move from the other directory uses another folder.
        let quarantine = Arc::new(Quarantine::open_or_create(&fixture.root.path, None).unwrap());
        let slot = quarantine
            .new_slot(&Path::new(SUBDIR).join("next.tmp"), MovedAs::TargetCounted)
            .unwrap();
        assert_eq!(fs::read_dir(fixture.quarantine()).unwrap().count(), 2);
        drop(slot);
        fs::rename(&fixture.dir, other(&fixture)).unwrap();
        fs::rename(first, &fixture.dir).unwrap();
        assert_eq!(
            dropped(&enforce_limits(&fixture, AT_ONCE)),
            std::slice::from_ref(&fixture.temp)
        );
    });
}

/// Digits before a uuid are a pid, unless a file exists whose name is the target followed by digits.
#[test]
fn other_numbers_may_be_other_targets() {
    const OLDER: &str = "page.4000001.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    const NEWER: &str = "page.4000002.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        for sibling in [None, Some("page.4711"), Some("page.1.2"), Some("page.x")] {
            let (fixture, at) = stored();
            let older = store_beside(&at, OLDER, TEMP_CONTENT);
            store_beside(&older, NEWER, NEWER_CONTENT);
            fs::remove_file(&at).unwrap();
            if let Some(sibling) = sibling {
                fs::write(fixture.dir.join(sibling), "").unwrap();
            }
            let is_dropped = dropped(&enforce_limits(&fixture, AT_ONCE)).len();
            let wanted = match sibling {
                None | Some("page.x") => 1,
                _ => 0,
            };
            assert_eq!(is_dropped, wanted, "{sibling:?}");
        }
    });
}

const FIRST: &str = "page.4000001.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
const SECOND: &str = "page.4000002.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";

/// Sweeps these temps, which all must be moved.
fn move_temps(fixture: &Fixture, temps: &[&str]) {
    for name in temps {
        fs::write(fixture.dir.join(name), TEMP_CONTENT).unwrap();
    }
    std::thread::sleep(GRACE);
    let events = fixture.sweep();
    let moved = |event: &&Event| matches!(event, Event::Quarantined { .. });
    assert_eq!(
        events.iter().filter(moved).count(),
        temps.len(),
        "{events:?}"
    );
}

/// What showed that the target is missing may disappear. A file that then seems to be the target, and is older than the
/// move, was none.
#[test]
fn a_copy_stays_if_another_file_takes_the_place_of_its_target() {
    type Act = fn(&Path);
    let prefixed = ".page.4000001.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    let whole = [TEMP_CONTENT; 9].concat();
    in_own_process(ALL_USERS, || {
        let rows: [(&str, &str, Act); 2] = [
            (FIRST, "page.1", |dir| {
                fs::remove_file(dir.join("page.1")).unwrap();
            }),
            (prefixed, ".page", |dir| {
                fs::remove_file(dir.join(".page")).unwrap();
            }),
        ];
        for (name, beside, act) in rows {
            let fixture = Fixture::new();
            fs::write(fixture.dir.join("page"), &whole).unwrap();
            fs::write(fixture.dir.join(beside), "").unwrap();
            move_temps(&fixture, &[name]);
            act(&fixture.dir);
            let events = enforce_limits(&fixture, AT_ONCE);
            assert!(events.is_empty(), "{name}: {events:?}");
        }
    });
}

/// Two files that were copies of two targets do not become copies of one.
#[test]
fn a_copy_stays_if_the_file_that_showed_its_target_disappears() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join("page.1"), "").unwrap();
        move_temps(&fixture, &[FIRST, SECOND]);
        fs::remove_file(fixture.dir.join("page.1")).unwrap();
        let events = enforce_limits(&fixture, AT_ONCE);
        assert!(events.is_empty(), "{events:?}");
    });
}

/// The journal may wait for another process for as long as it likes. So nothing is written to it between the last look at
/// the target and the deletion.
#[test]
fn a_copy_is_kept_if_its_target_disappears_while_the_journal_waits() {
    in_own_process(ALL_USERS, || {
        let (fixture, at) = stored();
        let state = fixture.home().join("state");
        fs::create_dir_all(&state).unwrap();
        let journal = state.join("journal.jsonl");
        let journal = File::options()
            .create(true)
            .append(true)
            .open(journal)
            .unwrap();
        rustix::fs::flock(&journal, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let inode = journal.metadata().unwrap().ino();
        let target = fixture.target.clone();
        let other = std::thread::spawn(move || {
            wait_until("the journal waits", || waits_for_lock(inode));
            fs::remove_file(target).unwrap();
            drop(journal);
        });
        let events = enforce_limits(&fixture, AT_ONCE);
        other.join().unwrap();
        assert!(events.is_empty() && at.exists(), "{events:?}");
    });
}

/// A temp whose digits may be a part of its target's name was judged as one of the longest target.
#[test]
fn a_copy_of_an_uncertain_target_is_no_copy_of_a_certain_one() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        move_temps(&fixture, &[FIRST]);
        move_temps(&fixture, &["page.4711.tmp"]);
        let events = enforce_limits(&fixture, AT_ONCE);
        assert!(events.is_empty(), "{events:?}");
    });
}

/// Nor do temps of the shorter target supersede it, which form a group.
#[test]
fn a_copy_with_a_longer_target_is_of_no_group() {
    let temp = |n: usize| format!("x.repair.400000{n}.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp");
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::write(fixture.dir.join("x.repair"), "").unwrap();
        move_temps(&fixture, &[&temp(0)]);
        fs::remove_file(fixture.dir.join("x.repair")).unwrap();
        let later = [1, 2, 3, 4].map(temp);
        move_temps(&fixture, &later.each_ref().map(String::as_str)[1..]);
        let events = enforce_limits(&fixture, Duration::ZERO);
        assert!(events.is_empty(), "{events:?}");
    });
}

/// A copy that was moved for another reason than its target.
#[test]
fn a_copy_of_a_hidden_file_stays_if_that_file_disappears() {
    let name = ".page.4000001.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        for (beside, is_dropped) in [(".page", false), ("unrelated", true)] {
            let fixture = Fixture::new().with_policy(Policy {
                action: Action::Quarantine,
                ..Fixture::policy()
            });
            fs::remove_file(&fixture.temp).unwrap();
            for target in [".page", "page", beside] {
                fs::write(fixture.dir.join(target), [TEMP_CONTENT; 9].concat()).unwrap();
            }
            move_temps(&fixture, &[name]);
            if !is_dropped {
                fs::remove_file(fixture.dir.join(beside)).unwrap();
            }
            let events = enforce_limits(&fixture, AT_ONCE);
            assert_eq!(!events.is_empty(), is_dropped, "{beside}: {events:?}");
        }
    });
}

/// Only the overdue file is dropped, not the one beside it.
#[test]
fn the_only_copy_beside_an_overdue_one_is_kept() {
    const SOLE: &str = "index.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        let (fixture, at) = stored();
        let sole = store_beside(&at, SOLE, b"there is no index.json");
        let events = enforce_limits(&fixture, AT_ONCE);
        assert_eq!(dropped(&events), std::slice::from_ref(&fixture.temp));
        assert!(fixture.copies(TEMP_CONTENT).is_empty());
        fixture.assert_only_at(b"there is no index.json", &sole, "");
    });
}

/// If the directory and the target are missing, only the newest copy is kept, if it is a copy.
#[test]
fn the_newest_copy_of_a_target_is_kept() {
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    type Act = fn(&Path);
    let rows: [(&str, &[u8], Act, bool); 5] = [
        ("written later", NEWER_CONTENT, |_| {}, true),
        ("without content", b"", |_| {}, false),
        ("only begun", b"what a", |_| {}, false),
        (
            "of which only the length was set",
            b"",
            |newer| {
                let newer = File::options().write(true).open(newer).unwrap();
                newer.set_len(1 << 20).unwrap();
            },
            false,
        ),
        (
            "of another user",
            NEWER_CONTENT,
            |newer| std::os::unix::fs::chown(newer, Some(NOBODY), None).unwrap(),
            false,
        ),
    ];
    in_own_process(ALL_USERS, || {
        for (what, bytes, act, is_copy) in rows {
            if what == "of another user" && !rustix::process::geteuid().is_root() {
                report_skipped("only root can give files away");
                continue;
            }
            let (fixture, at) = stored();
            let newer = store_beside(&at, NEWER, bytes);
            act(&newer);
            fs::remove_dir_all(&fixture.dir).unwrap();
            let events = enforce_limits(&fixture, AT_ONCE);
            match is_copy {
                true => assert_eq!(
                    dropped(&events),
                    std::slice::from_ref(&fixture.temp),
                    "{what}"
                ),
                false => {
                    assert!(events.is_empty(), "{what}: {events:?}");
                    fixture.assert_only_at(TEMP_CONTENT, &at, what);
                }
            }
            assert!(newer.exists(), "{what}");
        }
    });
}

/// A file with the same name without the dot, and copies of that file, are not copies of the dotted target.
#[test]
fn the_only_copy_of_a_dotted_target_is_kept() {
    const HIDDEN: &str = ".sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        let (fixture, at) = stored();
        let hidden = at.with_file_name(HIDDEN);
        fs::rename(&at, &hidden).unwrap();
        fs::write(&fixture.target, "").unwrap();
        let newer = store_beside(&hidden, NEWER, NEWER_CONTENT);
        assert!(dropped(&enforce_limits(&fixture, AT_ONCE)).is_empty());
        fixture.assert_only_at(NEWER_CONTENT, &newer, "");
        assert!(hidden.exists());
    });
}

/// The file that makes a copy dispensable disappears while the copy is being dropped: its target, or its
/// newer copy.
#[test]
fn a_copy_is_kept_if_the_better_one_disappears() {
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    in_own_process(ALL_USERS, || {
        for (what, has_target, disappears) in [
            ("its target", true, true),
            ("its newer copy", false, true),
            ("its newer copy, which a process has open", false, false),
        ] {
            let (fixture, at) = stored();
            let better = match has_target {
                true => fixture.target.clone(),
                false => {
                    fs::remove_file(&fixture.target).unwrap();
                    store_beside(&at, NEWER, NEWER_CONTENT)
                }
            };
            let fixture = Arc::new(fixture);
            let held = Arc::new(Mutex::new(None));
            let holder = Arc::clone(&held);
            let act = move |_| match disappears {
                true => fs::remove_file(&better).unwrap(),
                false => *holder.lock().unwrap() = Some(File::open(&better).unwrap()),
            };
            let Some((events, met)) = enforce_limits_while(&fixture, Call::GetLease, &at, act)
            else {
                return;
            };
            assert_eq!(met, 1, "{what}");
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.assert_only_at(TEMP_CONTENT, &at, what);
        }
    });
}

/// Enforces the limits of the quarantine. Before each `call` on the file `at`, `act` receives the number of
/// such calls so far. Returns the events and the number of calls, or `None` if the test is skipped.
fn enforce_limits_while(
    fixture: &Arc<Fixture>,
    call: Call,
    at: &Path,
    mut act: impl FnMut(usize) + Send + 'static,
) -> Option<(Vec<Event>, usize)> {
    let (actor, path) = (Arc::clone(fixture), at.to_owned());
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let answer = move |asked: &PendingCall| {
        if asked.call == call && asked.path() == path {
            act(counted.fetch_add(1, Ordering::SeqCst));
        }
        CallResponse::Allow
    };
    match intercept::thread(move || enforce_limits(&actor, AT_ONCE), answer) {
        Ok(events) => Some((events.unwrap(), made.load(Ordering::SeqCst))),
        Err(error) => {
            report_skipped(&format!("seccomp: {error}"));
            None
        }
    }
}

/// A process that uses the file between the listing and the proof, or during the proof, keeps it.
#[test]
fn a_late_user_keeps_the_copy() {
    in_own_process(ALL_USERS, || {
        type Act = fn(&Path);
        let touch: Act = |at| fs::set_permissions(at, fs::Permissions::from_mode(0o640)).unwrap();
        let try_it: Act = |at| {
            let options = File::options()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .clone();
            assert!(options.open(at).is_err(), "it waits for our lease");
        };
        // `number` is the index of the call of this kind on the stored file before which the file is used.
        for (what, call, number, act) in [
            ("touched", Call::StatName, 1, touch),
            ("opened", Call::GetLease, 0, try_it),
        ] {
            let (fixture, at) = stored();
            let fixture = Arc::new(fixture);
            let path = at.clone();
            let act = move |before| {
                if before == number {
                    act(&path);
                }
            };
            let Some((events, made)) = enforce_limits_while(&fixture, call, &at, act) else {
                return;
            };
            assert!(made > number, "{what}");
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.assert_only_at(TEMP_CONTENT, &at, what);
        }
    });
}

/// If nothing can prove that a file is unused, it is not dropped until the rule trusts the file system.
#[cfg(target_os = "linux")]
#[test]
fn without_proof_nothing_is_dropped() {
    use crate::places::Mounted;
    use std::os::fd::AsFd;
    in_own_process(&[RunAs::OwnMounts], || {
        let base = tempfile::tempdir().unwrap();
        let _mounted = Mounted::new("ramfs", base.path(), "ramfs", 0, "");
        let fixture = Fixture::within(tempfile::tempdir_in(base.path()).unwrap());
        // This file system has no birth times: only the root itself is known to be the same directory as
        // before the move.
        fs::rename(&fixture.target, fixture.root.path.join(TARGET)).unwrap();
        let quarantine = Arc::new(Quarantine::open_or_create(&fixture.root.path, None).unwrap());
        let slot = quarantine
            .new_slot(Path::new(TEMP), MovedAs::TargetCounted)
            .unwrap();
        let at = fixture.quarantine().join(slot.keep()).join(TEMP);
        let folder = at.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&fixture.temp, &at).unwrap();
        let meta = fs::metadata(&at).unwrap();
        let moved = Wall {
            sec: meta.ctime(),
            nsec: meta.ctime_nsec() as u32,
        };
        wait_until("the clock has passed its change time", || {
            clock::wall() > moved
        });
        let events = enforce_limits(&fixture, AT_ONCE);
        assert!(events.is_empty(), "{events:?}");
        fixture.assert_only_at(TEMP_CONTENT, &at, "");
        // A copy on another file system does not replace it either.
        let elsewhere = tempfile::tempdir().unwrap();
        let to = fs::File::open(elsewhere.path()).unwrap();
        let stored = quarantine.stored().unwrap();
        let policy = Fixture::policy();
        let restored = quarantine.restore(&stored[0], to.as_fd(), "a".as_ref(), |_, _| {}, &policy);
        let error = restored.unwrap_err();
        assert!(
            matches!(NotReplaced::of(&error), Some(NotReplaced::CannotTell)),
            "{error}"
        );
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        fixture.assert_only_at(TEMP_CONTENT, &at, "");
        let fixture = fixture.with_policy(Policy {
            trusted_file_systems: vec!["ramfs".to_owned()],
            ..Fixture::policy()
        });
        assert_eq!(dropped(&enforce_limits(&fixture, AT_ONCE)).len(), 1);
        assert!(!at.exists());
    });
}
