//! Groups: which copies of one target are moved, which are removed, and attacks on the copies that are kept.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use orphand::core::event::Event;
use orphand::core::exclude::Exclude;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::UseState;
use orphand::core::policy::{Graces, Open, Policy, SoleCopy};
use orphand::core::temp_name::Names;
use orphand::engine::Examined;
use orphand::engine::sweep::sweep;
use orphand::evidence::UseChecker;
use orphand::reap::quarantine::Quarantine;
use orphand::reap::{Hook, Step};
use orphand::sys::stop::Stop;

use crate::fixture::*;
use crate::overdue::enforce_limits;
use crate::sandbox::Sandbox;

/// Returns the name of a temp. A larger number is a later name.
fn temp(stem: &str, number: usize) -> String {
    format!("{stem}.{number:08x}-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp")
}

/// Creates a temp of each size, the oldest first. The first letter of the content is different in each.
fn leave(fixture: &Fixture, stem: &str, sizes: &[usize]) {
    for (number, &size) in sizes.iter().enumerate() {
        let letter = b'a' + u8::try_from(number % 26).unwrap();
        fs::write(fixture.dir.join(temp(stem, number)), vec![letter; size]).unwrap();
    }
}

/// Sweeps once no temp is too young. Temps that reach their grace in different sweeps are moved one by one.
fn sweep_all(fixture: &Fixture) -> Vec<Event> {
    std::thread::sleep(GRACE);
    fixture.sweep()
}

/// Returns a fixture without files.
fn empty() -> Fixture {
    let fixture = Fixture::in_memory().with_sole_copy();
    fs::remove_file(&fixture.temp).unwrap();
    fixture
}

/// Returns the names of the temps in the directory, and those in the quarantine, in order.
fn names(fixture: &Fixture) -> (Vec<String>, Vec<String>) {
    let (mut here, mut stored) = (Vec::new(), Vec::new());
    for file in fixture.files() {
        let name = file
            .path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        match file.path.starts_with(fixture.quarantine()) {
            true => stored.push(name),
            false => here.push(name),
        }
    }
    here.sort();
    stored.sort();
    (here, stored)
}

/// Another file may show that the target of one temp is longer. The temps of the shorter target do not supersede it.
#[test]
fn a_temp_with_a_longer_target_is_in_no_group() {
    let fixture = empty();
    let one = "sessions.json.2024.00000000-5a6b-4c7d-8e9f-0a1b2c3d4e5f.tmp";
    fs::write(fixture.dir.join(one), "the only copy").unwrap();
    fs::write(fixture.dir.join("sessions.json.2024"), "{}").unwrap();
    leave(&fixture, "sessions.json.4190001", &[400, 400, 400]);
    let events = sweep_all(&fixture);
    let reaped = events
        .iter()
        .find(|event| matches!(event, Event::Reaped(_)));
    assert!(reaped.is_none(), "{reaped:?}");
}

#[test]
fn superseded_temps_are_removed() {
    let uneven = Policy {
        sole_copy: SoleCopy::Keep,
        ..Fixture::policy()
    };
    let without_writers = Policy {
        names: Names::new(&["*.tmp"], &[] as &[&str]).unwrap(),
        ..Fixture::policy()
    };
    /// The policy, the stem of the names, the sizes, and the numbers of the temps that stay in place and of those
    /// that are moved.
    type Case = (Policy, &'static str, &'static [usize], usize, usize);
    let cases: [Case; 9] = [
        (Fixture::policy(), "sessions.json", &[9; 10], 0, 3),
        (Fixture::policy(), "openclaw.json", &[9; 10], 0, 3),
        (Fixture::policy(), "sessions.json.2024", &[9; 5], 0, 3),
        // Each temp of a crash loop on a full disk is shorter than the one before.
        (
            Fixture::policy(),
            "sessions.json",
            &[9, 8, 7, 6, 5, 4],
            0,
            6,
        ),
        (Fixture::policy(), "sessions.json", &[9, 9, 9, 8, 8], 0, 5),
        (Fixture::policy(), "sessions.json", &[1, 2, 3, 4, 5], 0, 3),
        // The jobs of a spool: no writer is known, so each of them may be needed.
        (Fixture::policy(), "job", &[9; 10], 0, 10),
        (without_writers, "sessions.json", &[9; 10], 0, 10),
        (uneven, "sessions.json", &[9; 10], 10, 0),
    ];
    in_own_process(ALL_USERS, || {
        for (policy, stem, sizes, here, stored) in &cases {
            let fixture = empty().with_policy(policy.clone());
            leave(&fixture, stem, sizes);
            let events = sweep_all(&fixture);
            let found = names(&fixture);
            let what = format!("{stem} {sizes:?}");
            assert_eq!(
                (found.0.len(), found.1.len()),
                (*here, *stored),
                "{what}: {found:?}"
            );
            let newest = (sizes.len() - stored..sizes.len()).map(|number| temp(stem, number));
            assert_eq!(
                found.1,
                Vec::from_iter(newest),
                "{what}: the newest are moved"
            );
            for event in events {
                if let Event::Reaped(disposed) = event {
                    let better = disposed.superseded_by.expect("the path of a better copy");
                    assert!(better.starts_with(fixture.quarantine()), "{better:?}");
                    assert!(better.exists(), "{better:?}");
                }
            }
        }
    });
}

#[test]
fn copies_for_different_targets_and_owners_are_different_groups() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9; 3]);
        leave(&fixture, "openclaw.json", &[9; 3]);
        fs::create_dir(fixture.dir.join("other")).unwrap();
        for number in 0..3 {
            fs::write(
                fixture
                    .dir
                    .join("other")
                    .join(temp("sessions.json", 9 + number)),
                "123456789",
            )
            .unwrap();
        }
        let events = sweep_all(&fixture);
        assert_eq!(
            names(&fixture).1.len(),
            9,
            "three of each group: {events:?}"
        );
        if !crate::sandbox::is_root() {
            return;
        }
        // Another user's files cannot make ours look superseded.
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9; 8]);
        for number in 3..8 {
            let path = fixture.dir.join(temp("sessions.json", number));
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
        }
        sweep_all(&fixture);
        let expected: Vec<String> = [0, 1, 2, 5, 6, 7]
            .map(|number| temp("sessions.json", number))
            .into();
        assert_eq!(names(&fixture).1, expected, "three of each owner");
    });
}

#[test]
fn a_symlink_that_leads_to_nothing_is_no_target() {
    in_own_process(ALL_USERS, || {
        for (is_whole, stored) in [(false, 3), (true, 0)] {
            let fixture = empty();
            leave(&fixture, "sessions.json", &[9; 5]);
            if is_whole {
                fs::write(fixture.dir.join("whole.json"), "123456789").unwrap();
            }
            let link = fixture.dir.join("sessions.json");
            std::os::unix::fs::symlink("whole.json", &link).unwrap();
            sweep_all(&fixture);
            let found = names(&fixture);
            assert_eq!(found.1.len(), stored, "{is_whole}: {found:?}");
            let in_place = fixture.dir.join(temp("sessions.json", 0));
            assert!(!in_place.exists(), "{is_whole}: {found:?}");
            assert!(link.is_symlink());
        }
    });
}

/// An attack on the newest copy in the quarantine, or on the directory.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// A process opens the copy and keeps it open. It waits while the copy is leased.
    Open,
    /// The same, but the process does not wait.
    OpenAtOnce,
    /// A process has truncated the copy.
    Shrink,
    /// Another file of the same name and size takes the place of the copy.
    Replace,
    Remove,
    /// A second name of the copy, by which it can be changed later.
    Link,
    /// A short target appears.
    Target,
}

const ATTACKS: [Attack; 7] = [
    Attack::Open,
    Attack::OpenAtOnce,
    Attack::Shrink,
    Attack::Replace,
    Attack::Remove,
    Attack::Link,
    Attack::Target,
];

impl Attack {
    /// Attacks, and returns the file that a process then has open.
    fn act(self, copy: &Path, dir: &Path) -> Option<File> {
        let other = dir.join("other");
        match self {
            Attack::Open => return Some(File::open(copy).unwrap()),
            Attack::OpenAtOnce => {
                let mut options = File::options();
                let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(copy);
                return opened.ok();
            }
            Attack::Shrink => {
                let file = File::options().write(true).open(copy).unwrap();
                file.set_len(1).unwrap();
            }
            Attack::Replace => {
                fs::write(&other, "Z".repeat(9)).unwrap();
                fs::rename(other, copy).unwrap();
            }
            Attack::Remove => fs::remove_file(copy).unwrap(),
            Attack::Link => fs::hard_link(copy, other).unwrap(),
            Attack::Target => fs::write(dir.join("sessions.json"), "{}").unwrap(),
        }
        None
    }
}

/// Returns the newest copy in the quarantine, if all three are there.
fn newest_stored(quarantine: &Path) -> Option<PathBuf> {
    let mut copies = Vec::new();
    for folder in fs::read_dir(quarantine).ok()?.flatten() {
        let files = fs::read_dir(folder.path().join(SUBDIR))
            .into_iter()
            .flatten()
            .flatten();
        copies.extend(files.map(|file| file.path()));
    }
    copies.sort_by_key(|path| path.file_name().unwrap().to_owned());
    (copies.len() == 3).then(|| copies.pop()).flatten()
}

/// Returns how many of the three superseded temps are removed if the attack takes place before this step of the one
/// with this number.
fn removed_despite(attack: Attack, step: Step, nth: usize) -> usize {
    match (attack, step) {
        // Only the next temp is kept, because the process has not got the leased copy.
        (Attack::OpenAtOnce, Step::Unlink) => 2 + nth / 2,
        (Attack::OpenAtOnce, Step::ProveLast) if nth > 0 => 2,
        // RACE in check_better_copies: after the last check of a temp, only the next temps are kept.
        (_, Step::Unlink) => nth + 1,
        (_, Step::ProveLast) => nth,
        // A short target does not count, so nothing is lost if a temp was not judged yet.
        (Attack::Target, Step::Resolve | Step::Look | Step::Open | Step::Prove | Step::Judge) => 3,
        (Attack::Target, Step::Claim | Step::Compare | Step::ProveAgain | Step::Release) => 2,
        _ => 0,
    }
}

/// Repeats the attack while fewer temps are removed than expected: a probe of another thread of this test may hold a
/// file for a moment, so that it counts as in use. Too many removals fail at once.
fn attack_at(attack: Attack, step: Step, nth: usize) {
    let end = Instant::now() + TIMEOUT;
    while !has_expected_result(attack, step, nth) {
        assert!(Instant::now() < end, "{attack:?} at {step:?} of temp {nth}");
    }
}

/// Sweeps three superseded temps. The attack takes place before `step` of the one with the number `nth`.
fn has_expected_result(attack: Attack, step: Step, nth: usize) -> bool {
    let what = format!("{attack:?} at {step:?} of temp {nth}");
    let fixture = empty();
    leave(&fixture, "sessions.json", &[9; 6]);
    std::thread::sleep(GRACE);
    let superseded = [0, 1, 2].map(|number| temp("sessions.json", number));
    let attacker = Arc::new(Mutex::new(None));
    let hook = {
        let (quarantine, dir) = (fixture.quarantine(), fixture.dir.clone());
        let (attacker, superseded) = (Arc::clone(&attacker), superseded.clone());
        let count = Mutex::new(0);
        Hook::new(move |now, name| {
            let mut attacker = attacker.lock().unwrap();
            let is_superseded = superseded.iter().any(|one| name == one.as_str());
            if now == step
                && is_superseded
                && attacker.is_none()
                && let Some(copy) = newest_stored(&quarantine)
            {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count == nth + 1 {
                    let inode = fs::metadata(&copy).unwrap().ino();
                    let dir = dir.clone();
                    let thread = std::thread::spawn(move || attack.act(&copy, &dir));
                    wait_until("the attack is done or waits", || {
                        thread.is_finished() || is_lease_broken(inode)
                    });
                    *attacker = Some(thread);
                }
            }
        })
    };
    let mut removed = 0;
    let mut count = |event| removed += usize::from(matches!(event, Event::Reaped(_)));
    let engine = engine(Some(hook));
    sweep(
        &fixture.root,
        &engine,
        &Stop::default(),
        &mut count,
        &|_, _| {},
    )
    .unwrap();
    let Some(attacker) = attacker.lock().unwrap().take() else {
        return false;
    };
    // After the batch, nothing delays another process.
    wait_until("the attack is done", || attacker.is_finished());
    drop(attacker.join().unwrap());
    let expected = removed_despite(attack, step, nth);
    assert!(removed <= expected, "{what} removed {removed}");
    let files = fixture.files();
    let is_left = |name: &&String| files.iter().any(|file| file.path.ends_with(name));
    assert_eq!(
        superseded.iter().filter(is_left).count(),
        3 - removed,
        "{what}"
    );
    fixture.assert_no_leftovers(&what);
    removed == expected
}

/// Reports whether a process waits for the release of a lease on the file with this inode number, or tried to open it.
fn is_lease_broken(inode: u64) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let end = format!(":{inode} 0 EOF");
    let mut lines = locks.lines();
    lines.any(|line| line.contains(" BREAKING ") && line.ends_with(&end))
}

#[test]
fn an_attack_on_a_better_copy_keeps_the_superseded_temps() {
    in_own_process(&[RunAs::CurrentUser], || {
        in_parallel(ATTACKS, |attack| {
            in_parallel(Step::ALL, |step| attack_at(attack, step, 0));
        });
    });
}

/// The better copies are leased while the temps of a batch are removed one after the other.
#[test]
fn an_attack_on_a_leased_copy_keeps_the_next_temps() {
    in_own_process(&[RunAs::CurrentUser], || {
        in_parallel(ATTACKS, |attack| {
            for step in [Step::ProveLast, Step::Unlink] {
                attack_at(attack, step, 1);
                attack_at(attack, step, 2);
            }
        });
    });
}

/// A restore works while a batch leases the copy.
#[test]
fn a_restore_waits_for_a_leased_copy() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9; 3]);
        sweep_all(&fixture);
        let copy = newest_stored(&fixture.quarantine()).unwrap();
        let use_checker = UseChecker::new();
        let (use_state, mut checked) = use_checker.check(File::open(&copy).unwrap().into());
        assert_eq!(use_state, UseState::Unused);
        let quarantine = Quarantine::open_existing(&fixture.root.path, None).unwrap();
        let quarantine = quarantine.unwrap();
        let stored = quarantine.stored().unwrap();
        let stored = stored.into_iter().find(|one| copy.ends_with(&one.below));
        let stored = stored.unwrap();
        let inode = fs::metadata(&copy).unwrap().ino();
        std::thread::scope(|scope| {
            let restore = scope.spawn(|| {
                let marked = Cell::new(false);
                let to = File::open(&fixture.dir).unwrap();
                let name = OsStr::new("back");
                let result = quarantine.restore(
                    &stored,
                    to.as_fd(),
                    name,
                    |_, _| marked.set(true),
                    &Policy::default(),
                );
                result.unwrap();
                marked.get()
            });
            wait_until("the restore has broken the lease", || {
                is_lease_broken(inode)
            });
            checked.release();
            assert!(restore.join().unwrap(), "the restored file is marked");
        });
        assert_eq!(fs::read(fixture.dir.join("back")).unwrap(), [b'c'; 9]);
    });
}

/// Returns how many temps of the fixture would be moved to the quarantine.
#[cfg(target_os = "linux")]
fn moved_by_scan(fixture: &Fixture) -> usize {
    let mut temps = names(fixture).0;
    temps.retain(|name| name.ends_with(".tmp"));
    let judged = fixture.judge_all(temps);
    let is_moved = |temp: &&Examined| matches!(temp.verdict, Verdict::Quarantine(_));
    judged.iter().filter(is_moved).count()
}

/// With its companions the size of a temp does not show how much it contains.
#[cfg(target_os = "linux")]
#[test]
fn a_set_is_not_compared_with_other_copies() {
    in_own_process(&[RunAs::CurrentUser], || {
        // (the copy with a companion, whether the oldest one is in use at first, the stored files)
        for (set, is_held, stored) in [(4, false, 3), (0, false, 5), (3, false, 5), (3, true, 5)] {
            let fixture = empty();
            leave(&fixture, "sessions.json", &[9; 4]);
            if set < 4 {
                let companion = temp("sessions.json", set) + "-wal";
                fs::write(fixture.dir.join(companion), "rest").unwrap();
            }
            let oldest = File::open(fixture.dir.join(temp("sessions.json", 0))).unwrap();
            let oldest = Some(oldest).filter(|_| is_held);
            std::thread::sleep(GRACE);
            assert_eq!(
                moved_by_scan(&fixture),
                if is_held {
                    3
                } else {
                    stored - usize::from(set < 4)
                }
            );
            sweep_all(&fixture);
            drop(oldest);
            sweep_all(&fixture);
            let found = names(&fixture);
            assert_eq!(
                (found.0.len(), found.1.len()),
                (0, stored),
                "{set} {is_held}: {found:?}"
            );
        }
    });
}

#[test]
fn a_copy_in_use_supersedes_nothing() {
    in_own_process(&[RunAs::CurrentUser], || {
        for (is_used, stored) in [(false, 3), (true, 4)] {
            let fixture = empty();
            leave(&fixture, "sessions.json", &[9; 4]);
            let oldest = File::open(fixture.dir.join(temp("sessions.json", 0))).unwrap();
            sweep_all(&fixture);
            assert_eq!(names(&fixture).1.len(), 3, "the oldest one is in use");
            drop(oldest);
            let copy = newest_stored(&fixture.quarantine()).unwrap();
            let held = is_used.then(|| File::open(copy).unwrap());
            sweep_all(&fixture);
            let found = names(&fixture);
            assert_eq!((found.0.len(), found.1.len()), (0, stored), "{found:?}");
            drop(held);
        }
    });
}

/// A temp that is too young is kept, and supersedes nothing: its writer may still change it.
#[test]
fn a_young_temp_supersedes_nothing() {
    in_own_process(&[RunAs::CurrentUser], || {
        // On a slow machine, the new temp may reach its grace before the sweep looks at it.
        let is_shown = [1, 4, 16].into_iter().any(is_young_temp_kept);
        assert!(is_shown, "each sweep took longer than the grace");
    });
}

/// Sweeps three old copies and one that is younger than the grace of so many seconds. Returns false if it was not.
fn is_young_temp_kept(seconds: u64) -> bool {
    let grace = Duration::from_secs(seconds);
    let fixture = empty().with_policy(Policy {
        grace: Graces::both(grace),
        ..Fixture::policy()
    });
    leave(&fixture, "sessions.json", &[9; 3]);
    std::thread::sleep(grace + GRACE);
    let start = Instant::now();
    let young = temp("sessions.json", 3);
    fs::write(fixture.dir.join(&young), "123456789").unwrap();
    let mut events = Vec::new();
    let mut emit = |event| events.push(event);
    let (engine, stop) = (engine(None), Stop::default());
    sweep(&fixture.root, &engine, &stop, &mut emit, &|_, _| {}).unwrap();
    if start.elapsed() >= grace {
        return false;
    }
    let is_young =
        |event: &Event| matches!(event, Event::Kept { reason, .. } if *reason == Reason::Young);
    assert!(events.iter().any(is_young), "{events:?}");
    let expected = [0, 1, 2].map(|number| temp("sessions.json", number));
    assert_eq!(
        names(&fixture),
        (vec![young], expected.to_vec()),
        "{events:?}"
    );
    true
}

#[test]
fn a_temp_in_use_is_moved_although_it_is_superseded() {
    in_own_process(&[RunAs::CurrentUser], || {
        let policy = Policy {
            open: Open::Reap,
            ..Fixture::policy()
        };
        let fixture = empty().with_policy(policy);
        leave(&fixture, "sessions.json", &[9; 5]);
        let oldest = fixture.dir.join(temp("sessions.json", 0));
        let mut held = File::options().append(true).open(oldest).unwrap();
        sweep_all(&fixture);
        // The holder writes more than the better copies contain.
        held.write_all(b"more than the others").unwrap();
        let expected = [0, 2, 3, 4].map(|number| temp("sessions.json", number));
        assert_eq!(names(&fixture).1, expected);
    });
}

/// The clock was ahead when the better copies were written, so the superseded temps may be later.
#[test]
fn copies_with_dates_in_the_future_supersede_nothing() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9; 6]);
        let held = [0, 1, 2].map(|number| {
            let path = fixture.dir.join(temp("sessions.json", number));
            File::open(path).unwrap()
        });
        sweep_all(&fixture);
        drop(held);
        let stored = fixture.files().into_iter();
        let stored = stored.filter(|file| file.path.starts_with(fixture.quarantine()));
        let stored: Vec<PathBuf> = stored.map(|file| file.path).collect();
        assert_eq!(stored.len(), 3);
        for path in stored {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() + Duration::from_secs(3_600))
                .unwrap();
        }
        sweep_all(&fixture);
        assert_eq!(names(&fixture).1.len(), 6, "{:?}", names(&fixture));
        enforce_limits(&fixture, Duration::ZERO);
        assert_eq!(names(&fixture).1.len(), 6, "{:?}", names(&fixture));
    });
}

/// A directory was renamed, and another one has its name now.
#[test]
fn copies_from_another_directory_supersede_nothing() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        let other = fixture.dir.with_file_name("other");
        fs::create_dir(&other).unwrap();
        for number in 0..2 {
            fs::write(other.join(temp("sessions.json", number)), "other").unwrap();
        }
        for number in 2..5 {
            fs::write(fixture.dir.join(temp("sessions.json", number)), "12345").unwrap();
        }
        let policy = Policy {
            exclude: Exclude::new(&["other"]).unwrap(),
            ..Fixture::policy()
        };
        let fixture = fixture.with_policy(policy);
        sweep_all(&fixture);
        assert_eq!(names(&fixture).1.len(), 3);
        fs::remove_dir(&fixture.dir).unwrap();
        fs::rename(&other, &fixture.dir).unwrap();
        sweep_all(&fixture);
        assert_eq!(names(&fixture).1.len(), 5, "{:?}", names(&fixture));
        enforce_limits(&fixture, Duration::ZERO);
        assert_eq!(names(&fixture).1.len(), 5, "{:?}", names(&fixture));
    });
}

#[test]
fn a_sparse_copy_supersedes_nothing() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9000; 4]);
        for number in 4..8 {
            let mut file = File::create(fixture.dir.join(temp("sessions.json", number))).unwrap();
            file.write_all(b"x").unwrap();
            file.set_len(9000).unwrap();
        }
        sweep_all(&fixture);
        let (here, stored) = names(&fixture);
        assert!(here.is_empty(), "{here:?}");
        // The holes are found after the move, so the five oldest are moved then. The limits, which drop the oldest one,
        // are not part of this sweep.
        assert_eq!(stored.len(), 8, "{stored:?}");
    });
}

#[test]
fn thousands_of_copies_of_a_missing_target_free_their_space() {
    const COPIES: usize = 2_000;
    Sandbox::for_each_user_in_memory(|sandbox| {
        for number in 0..COPIES {
            sandbox.write(temp("sessions.json", number), "x".repeat(5000));
        }
        sandbox.age(Duration::from_millis(150));
        let ran = sandbox.scan(["--grace", "100ms"]).exit(0);
        let total = &ran.stdout_json()["total"];
        assert_eq!(total["orphans"], COPIES);
        let [would_remove, would_move, ..] = sandbox
            .sweep(["-n", "--grace", "100ms"])
            .exit(0)
            .events()
            .sums();
        assert_eq!(would_remove + would_move, COPIES as u64);
        assert!(would_move <= 8, "{would_move} would be moved");
        let events = sandbox.sweep(["--grace", "100ms"]).exit(0).events();
        let [removed, moved, kept, failed] = events.sums();
        assert_eq!((removed + moved, kept, failed), (COPIES as u64, 0, 0));
        let purged = events.of("purged").len() as u64;
        assert!(moved - purged <= 8, "{moved} moved, {purged} dropped again");
        let in_place = sandbox
            .listing()
            .into_iter()
            .filter(|name| name.ends_with(".tmp"));
        assert_eq!(in_place.count(), 0);
        for event in events.of("reaped") {
            assert!(event["superseded_by"].is_string(), "{event}");
        }
    });
}

#[test]
fn explain_names_the_group() {
    let sandbox = Sandbox::new();
    for number in 0..5 {
        sandbox.write(temp("sessions.json", number), "12345");
    }
    sandbox.age(Duration::from_millis(150));
    let explain = |number: usize| {
        let file = sandbox.path(temp("sessions.json", number));
        let ran = sandbox.run(
            ["explain", "--json", "--grace", "100ms"]
                .map(Into::into)
                .into_iter()
                .chain([file.into_os_string()]),
        );
        ran.exit(0).stdout_json()["temps"][0].clone()
    };
    for (number, superseded) in [(0, true), (1, true), (2, false), (4, false)] {
        let temp = explain(number);
        let group = &temp["group"];
        assert_eq!(group["superseded"], superseded, "{temp}");
        assert_eq!(
            (group["in_place"].as_u64(), group["stored"].as_u64()),
            (Some(5), Some(0))
        );
        assert_eq!(group["best"].as_array().unwrap().len(), 3);
        let verdict = if superseded { "reap" } else { "quarantine" };
        assert_eq!(temp["verdict"], verdict);
    }
}

/// The copies of a subdirectory are in the quarantine of the rule's root.
#[test]
fn explain_finds_the_stored_copies_of_a_subdirectory() {
    let sandbox = Sandbox::new();
    let name = |number: usize| format!("sub/{}", temp("sessions.json", number));
    sandbox.write(name(9), "123");
    for number in 0..3 {
        sandbox.write(name(number), "12345");
    }
    let config = format!(
        "[[watch]]\npath = {:?}\ngrace = \"100ms\"\nrecursive = true\n",
        sandbox.root()
    );
    fs::create_dir(sandbox.base().join("config/orphand")).unwrap();
    fs::write(sandbox.base().join("config/orphand/config.toml"), config).unwrap();
    let (old, elsewhere) = (sandbox.path(name(9)), sandbox.base().join("elsewhere"));
    fs::rename(&old, &elsewhere).unwrap();
    sandbox.age(Duration::from_millis(150));
    sandbox.run(["sweep", "--yes"]).exit(0);
    fs::rename(&elsewhere, &old).unwrap();
    sandbox.age(Duration::from_millis(150));
    let ran = sandbox.run(["explain".as_ref(), "--json".as_ref(), old.as_os_str()]);
    let temp = ran.exit(0).stdout_json()["temps"][0].clone();
    assert_eq!(temp["group"]["stored"], 3, "{temp}");
    assert_eq!(temp["verdict"], "reap", "{temp}");
}

/// The reason for the removal of a temp without a target is shown before anything is removed.
#[test]
fn a_preview_names_the_reason_for_superseded_temps() {
    let sandbox = Sandbox::new();
    for number in 0..5 {
        sandbox.write(temp("sessions.json", number), "12345");
    }
    sandbox.age(Duration::from_millis(150));
    let one = "; later copies supersede it";
    let rows: [(&[&str], &str, usize); 4] = [
        (&["scan"], "; later copies supersede them", 1),
        (&["scan", "--list"], one, 2),
        (&["sweep", "-n"], one, 2),
        (&["sweep", "-n", "--list"], one, 2),
    ];
    for (args, reason, lines) in rows {
        let ran = sandbox.run([args, &["--grace", "100ms", "root"]].concat());
        let text = ran.exit(0).stdout;
        assert_eq!(text.matches(reason).count(), lines, "{args:?}: {text}");
    }
}

#[test]
fn stored_copies_supersede_nothing_if_sole_copies_are_kept() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = empty();
        leave(&fixture, "sessions.json", &[9; 3]);
        std::thread::sleep(GRACE);
        fixture.sweep();
        fs::write(fixture.dir.join(temp("sessions.json", 9)), "123456789").unwrap();
        std::thread::sleep(GRACE);
        fixture.sweep();
        assert_eq!(names(&fixture).1.len(), 4);
        let keeps = Policy {
            sole_copy: SoleCopy::Keep,
            ..Fixture::policy()
        };
        let fixture = fixture.with_policy(keeps);
        assert!(enforce_limits(&fixture, Duration::ZERO).is_empty());
        let fixture = fixture.with_policy(Fixture::policy());
        assert_eq!(enforce_limits(&fixture, Duration::ZERO).len(), 1);
        assert_eq!(names(&fixture).1.len(), 3);
    });
}

/// A watch processes temps in portions, so it moves more than it keeps in the end.
#[test]
fn a_watch_keeps_few_copies() {
    const COPIES: usize = 1_200;
    Sandbox::for_each_user_in_memory(|sandbox| {
        for number in 0..COPIES {
            sandbox.write(temp("sessions.json", number), "x".repeat(50));
        }
        sandbox.age(Duration::from_millis(150));
        let watch = sandbox.watch(["--grace", "100ms", "--existing", "take"]);
        wait_until("at most 8 copies are left", || {
            let in_place = sandbox.listing().iter().any(|name| name.ends_with(".tmp"));
            !in_place && (1..=8).contains(&count_files(&sandbox.path(".orphand")))
        });
        watch.stop();
        assert!((3..=8).contains(&count_files(&sandbox.path(".orphand"))));
    });
}

fn count_files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let count = |entry: fs::DirEntry| match entry.path() {
        path if path.is_dir() => count_files(&path),
        _ => 1,
    };
    entries.map(count).sum()
}

/// If the action is to move all orphans, those that better copies supersede are moved too, at once.
#[test]
fn superseded_temps_are_moved_if_the_action_says_so() {
    let sandbox = Sandbox::new();
    for number in 0..6 {
        sandbox.write(temp("sessions.json", number), "12345");
    }
    sandbox.age(Duration::from_millis(150));
    let args = ["--grace", "100ms", "--action", "quarantine"];
    let events = sandbox.sweep(args).exit(0).events();
    assert_eq!(events.sums(), [0, 6, 0, 0]);
}
