//! What has lain in the quarantine for too long is dropped, under the same proof as any other
//! removal: some of it is there *because* nobody could prove that it is unused.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orphand::clock;
use orphand::decide::judge::Verdict;
use orphand::decide::policy::{Action, Policy};
use orphand::decide::retention::{ClockTrust, Limits, NeededSpace};
use orphand::decide::time::Wall;
use orphand::event::Event;
use orphand::evidence::LeaseThread;
use orphand::journal::Journal;
use orphand::reap::quarantine::{self, LimitContext, Quarantine, QuarantineUsage};
use orphand::reap::{Outcome, Reaper};

use crate::fixture::*;
use crate::intercept::{self, Answer, Asked, Call};

/// No shorter than [`OLD`].
const LATER: &[u8] = b"what a later writer wrote, and died";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NO_LIMITS: Limits = Limits {
    age: Duration::ZERO,
    percent: 0,
    min_free: 0,
};
/// Everything is older.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// A stage on which the temp lies in the quarantine, and where.
fn stored() -> (Fixture, PathBuf) {
    stored_after(|_| {})
}

/// The same, after something else is done.
fn stored_after(act: impl FnOnce(&Fixture)) -> (Fixture, PathBuf) {
    let fixture = Fixture::new().with_policy(Policy {
        action: Action::Quarantine,
        ..Fixture::policy()
    });
    act(&fixture);
    let moved = fixture.reap_as(&Reaper::new(), Verdict::Quarantine(None));
    let Outcome::Quarantined { id } = moved else {
        panic!("{moved:?}");
    };
    let at = fixture.quarantine().join(id).join(BELOW).join(TEMP);
    let meta = fs::metadata(&at).unwrap();
    let since = Wall {
        sec: meta.ctime(),
        nsec: meta.ctime_nsec() as u32,
    };
    wait_until("it is older than nothing", || clock::wall() > since);
    (fixture, at)
}

/// Stores another file beside the one at `at`, which is older then.
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

fn tend(fixture: &Fixture, age: Duration) -> Vec<Event> {
    let journal = Journal::new(Some(&fixture.home().join("state")));
    let stock = QuarantineUsage::default();
    stock.set_limits(Limits { age, ..NO_LIMITS });
    let keeping = LimitContext {
        usage: &stock,
        journal: &journal,
        lease_thread: &LeaseThread::new(),
        trust: ClockTrust {
            running: DAY,
            since_jump: None,
        },
        wanted: NeededSpace::default(),
    };
    quarantine::enforce_limits(&fixture.root, None, keeping).events
}

fn dropped(events: &[Event]) -> Vec<PathBuf> {
    let path = |event: &Event| match event {
        Event::Purged { subject, .. } => subject.path.clone(),
        event => panic!("{event:?}"),
    };
    events.iter().map(path).collect()
}

#[test]
fn what_is_unused_and_not_the_only_copy_goes() {
    alone(EVERYBODY, || {
        type Act = fn(&Fixture, &Path) -> Option<File>;
        let rows: [(&str, Duration, Act, bool); 5] = [
            ("unused", AT_ONCE, |_, _| None, true),
            ("not overdue", DAY, |_, _| None, false),
            ("open", AT_ONCE, |_, at| File::open(at).ok(), false),
            (
                "its target is gone",
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
        for (what, age, act, goes) in rows {
            let (fixture, at) = stored();
            let held = act(&fixture, &at);
            let events = tend(&fixture, age);
            drop(held);
            let mut written = Vec::new();
            let journal = Journal::new(Some(&fixture.home().join("state")));
            journal.outcomes(|line| written.push(line)).unwrap();
            match goes {
                true => {
                    assert_eq!(
                        dropped(&events),
                        std::slice::from_ref(&fixture.temp),
                        "{what}"
                    );
                    assert!(fixture.copies(OLD).is_empty(), "{what}");
                    assert!(!fixture.quarantine().exists(), "{what}");
                    assert_eq!(written.len(), 1, "{what}: {written:?}");
                    assert_eq!(written[0]["event"], "purged", "{what}");
                }
                false => {
                    assert!(events.is_empty(), "{what}: {events:?}");
                    assert!(written.is_empty(), "{what}: {written:?}");
                    fixture.has_only(OLD, &at, what);
                }
            }
        }
    });
}

/// A program that has lost its file makes another one: that says nothing of the copy that was moved before.
#[test]
fn a_target_that_came_after_the_move_frees_no_copy() {
    alone(EVERYBODY, || {
        type Act = fn(&Path);
        let acts: [(&str, Act); 2] = [
            ("changed", |target| {
                fs::write(target, [LATER, LATER].concat()).unwrap()
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
            let events = tend(&fixture, AT_ONCE);
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.has_only(OLD, &at, what);
        }
    });
}

/// Another directory may get the name of the one that a copy was moved from, with files older than the move.
#[test]
fn a_target_in_another_directory_frees_no_copy() {
    alone(EVERYBODY, || {
        let other = |fixture: &Fixture| fixture.dir.with_file_name("other");
        let (fixture, at) = stored_after(|fixture| {
            fs::create_dir(other(fixture)).unwrap();
            let name = fixture.target.file_name().unwrap();
            fs::copy(&fixture.target, other(fixture).join(name)).unwrap();
        });
        let first = fixture.dir.with_file_name("first");
        fs::rename(&fixture.dir, &first).unwrap();
        fs::rename(other(&fixture), &fixture.dir).unwrap();
        assert!(tend(&fixture, AT_ONCE).is_empty());
        assert_eq!(fs::read(&at).unwrap(), OLD);
        // A move from the other one goes to another folder.
        let room = Arc::new(Quarantine::open_or_create(&fixture.root.path, None).unwrap());
        let slot = room.new_slot(&Path::new(BELOW).join("next.tmp")).unwrap();
        assert_eq!(fs::read_dir(fixture.quarantine()).unwrap().count(), 2);
        drop(slot);
        fs::rename(&fixture.dir, other(&fixture)).unwrap();
        fs::rename(first, &fixture.dir).unwrap();
        assert_eq!(
            dropped(&tend(&fixture, AT_ONCE)),
            std::slice::from_ref(&fixture.temp)
        );
    });
}

/// Digits before a uuid are a pid, unless a name stands there that is the target with digits behind it.
#[test]
fn other_numbers_may_be_other_targets() {
    const OLDER: &str = "page.4000001.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    const NEWER: &str = "page.4000002.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    alone(EVERYBODY, || {
        for sibling in [None, Some("page.4711"), Some("page.1.2"), Some("page.x")] {
            let (fixture, at) = stored();
            let older = store_beside(&at, OLDER, OLD);
            store_beside(&older, NEWER, LATER);
            fs::remove_file(&at).unwrap();
            if let Some(sibling) = sibling {
                fs::write(fixture.dir.join(sibling), "").unwrap();
            }
            let is_dropped = dropped(&tend(&fixture, AT_ONCE)).len();
            let wanted = match sibling {
                None | Some("page.x") => 1,
                _ => 0,
            };
            assert_eq!(is_dropped, wanted, "{sibling:?}");
        }
    });
}

/// What is dropped is what was found overdue, and not what lies beside it.
#[test]
fn the_only_copy_beside_it_stays() {
    const SOLE: &str = "index.json.4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    alone(EVERYBODY, || {
        let (fixture, at) = stored();
        let sole = store_beside(&at, SOLE, b"there is no index.json");
        let events = tend(&fixture, AT_ONCE);
        assert_eq!(dropped(&events), std::slice::from_ref(&fixture.temp));
        assert!(fixture.copies(OLD).is_empty());
        fixture.has_only(b"there is no index.json", &sole, "");
    });
}

/// Where the directory is gone with the target, its newest copy stays, and only that; if it is one.
#[test]
fn of_the_copies_for_one_target_the_newest_stays() {
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    type Act = fn(&Path);
    let rows: [(&str, &[u8], Act, bool); 5] = [
        ("written later", LATER, |_| {}, true),
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
            "anybody's",
            LATER,
            |newer| std::os::unix::fs::chown(newer, Some(NOBODY), None).unwrap(),
            false,
        ),
    ];
    alone(EVERYBODY, || {
        for (what, bytes, act, is_copy) in rows {
            if what == "anybody's" && !rustix::process::geteuid().is_root() {
                skipped("only root can give files away");
                continue;
            }
            let (fixture, at) = stored();
            let newer = store_beside(&at, NEWER, bytes);
            act(&newer);
            fs::remove_dir_all(&fixture.dir).unwrap();
            let events = tend(&fixture, AT_ONCE);
            match is_copy {
                true => assert_eq!(
                    dropped(&events),
                    std::slice::from_ref(&fixture.temp),
                    "{what}"
                ),
                false => {
                    assert!(events.is_empty(), "{what}: {events:?}");
                    fixture.has_only(OLD, &at, what);
                }
            }
            assert!(newer.exists(), "{what}");
        }
    });
}

/// What stands under a name without its dot, and copies for that, are no copies of it.
#[test]
fn the_only_copy_for_a_dotted_target_stays() {
    const HIDDEN: &str = ".sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    alone(EVERYBODY, || {
        let (fixture, at) = stored();
        let hidden = at.with_file_name(HIDDEN);
        fs::rename(&at, &hidden).unwrap();
        fs::write(&fixture.target, "").unwrap();
        let newer = store_beside(&hidden, NEWER, LATER);
        assert!(dropped(&tend(&fixture, AT_ONCE)).is_empty());
        fixture.has_only(LATER, &newer, "");
        assert!(hidden.exists());
    });
}

/// What makes it dispensable goes while it is being dropped: its target, or its newer copy.
#[test]
fn the_better_copy_goes_just_then() {
    const NEWER: &str = "sessions.json.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    alone(EVERYBODY, || {
        for (what, has_target, goes) in [
            ("its target", true, true),
            ("its newer copy", false, true),
            ("its newer copy, which somebody may write to", false, false),
        ] {
            let (fixture, at) = stored();
            let better = match has_target {
                true => fixture.target.clone(),
                false => {
                    fs::remove_file(&fixture.target).unwrap();
                    store_beside(&at, NEWER, LATER)
                }
            };
            let fixture = Arc::new(fixture);
            let held = Arc::new(Mutex::new(None));
            let holder = Arc::clone(&held);
            let act = move |_| match goes {
                true => fs::remove_file(&better).unwrap(),
                false => *holder.lock().unwrap() = Some(File::open(&better).unwrap()),
            };
            let Some((events, met)) = tend_while(&fixture, Call::GetLease, &at, act) else {
                return;
            };
            assert_eq!(met, 1, "{what}");
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.has_only(OLD, &at, what);
        }
    });
}

/// Tends the quarantine; `act` is told before each `call` on the file `at` how many there were before. How
/// many there were in the end. `None`: it is skipped.
fn tend_while(
    fixture: &Arc<Fixture>,
    call: Call,
    at: &Path,
    mut act: impl FnMut(usize) + Send + 'static,
) -> Option<(Vec<Event>, usize)> {
    let (actor, path) = (Arc::clone(fixture), at.to_owned());
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let answer = move |asked: &Asked| {
        if asked.call == call && asked.path() == path {
            act(counted.fetch_add(1, Ordering::SeqCst));
        }
        Answer::Pass
    };
    match intercept::thread(move || tend(&actor, AT_ONCE), answer) {
        Ok(events) => Some((events.unwrap(), made.load(Ordering::SeqCst))),
        Err(error) => {
            skipped(&format!("seccomp: {error}"));
            None
        }
    }
}

/// Whoever comes between the list and the proof, or under the proof, keeps it.
#[test]
fn somebody_comes_just_then() {
    alone(EVERYBODY, || {
        type Act = fn(&Path);
        let touch: Act = |at| fs::set_permissions(at, fs::Permissions::from_mode(0o640)).unwrap();
        let try_it: Act = |at| {
            let options = File::options()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .clone();
            assert!(options.open(at).is_err(), "it waits for our lease");
        };
        // Before which of the calls of its sort on the stored file.
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
            let Some((events, made)) = tend_while(&fixture, call, &at, act) else {
                return;
            };
            assert!(made > number, "{what}");
            assert!(events.is_empty(), "{what}: {events:?}");
            fixture.has_only(OLD, &at, what);
        }
    });
}

/// Where no proof is known to hold nothing is dropped, until the rule trusts it.
#[cfg(target_os = "linux")]
#[test]
fn where_nothing_is_proven() {
    use crate::places::Mounted;
    alone(&[As::Mounts], || {
        let base = tempfile::tempdir().unwrap();
        let _mounted = Mounted::new("ramfs", base.path(), "ramfs", 0, "");
        let fixture = Fixture::within(tempfile::tempdir_in(base.path()).unwrap());
        // This file system keeps no births: only the root itself is known to be the directory from before the move.
        fs::rename(&fixture.target, fixture.root.path.join(TARGET)).unwrap();
        let room = Arc::new(Quarantine::open_or_create(&fixture.root.path, None).unwrap());
        let slot = room.new_slot(Path::new(TEMP)).unwrap();
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
        wait_until("it is older than nothing", || clock::wall() > moved);
        let events = tend(&fixture, AT_ONCE);
        assert!(events.is_empty(), "{events:?}");
        fixture.has_only(OLD, &at, "");
        let fixture = fixture.with_policy(Policy {
            trusted_file_systems: vec!["ramfs".to_owned()],
            ..Fixture::policy()
        });
        assert_eq!(dropped(&tend(&fixture, AT_ONCE)).len(), 1);
        assert!(!at.exists());
    });
}
