//! Attacks on sets: whatever happens at whatever step, a temp and its companions are never separated.
//!
//! Other processes open, map, change, rename and create members between any two steps; orphand is killed before each
//! call that changes something, and killed again while it recovers; and each such call fails once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::own_names;
use orphand::core::time::ClockJumpDetector;
use orphand::evidence::{Role, TempInfo};
use orphand::reap::{
    Candidate, Companion, CompanionResult, Hook, Outcome, Reaper, Recovered, Step,
};
use orphand::sys::clock;
use rustix::io::Errno;

use crate::fixture::{
    ALL_USERS, Fixture, RunAs, TEMP, TEMP_CONTENT, TIMEOUT, engine, in_own_process, in_parallel,
    join, report_skipped, wait_until, waits_for_lease,
};
use crate::intercept::{self, Call, CallResponse, PendingCall};
use crate::sandbox::{CommandResult, Sandbox};

const WAL: &[u8] = b"the log of the dead writer";
const SHM: &[u8] = b"the index of that log";

fn companion(ending: &str) -> String {
    format!("{TEMP}{ending}")
}

/// The members with their contents, the main file first.
fn members() -> [(String, &'static [u8]); 3] {
    [
        (TEMP.to_owned(), TEMP_CONTENT),
        (companion("-shm"), SHM),
        (companion("-wal"), WAL),
    ]
}

/// Where a member is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// At its name.
    Named,
    /// In this folder of the quarantine, at its path there.
    Stored(PathBuf),
    /// At another name in its directory.
    Elsewhere(PathBuf),
    Gone,
}

trait SetFixture {
    fn with_set(self) -> Fixture;
    fn set_candidate(&self, verdict: Verdict) -> Candidate;
    fn places(&self) -> Vec<Place>;
}

impl SetFixture for Fixture {
    fn with_set(self) -> Fixture {
        for (name, content) in members() {
            fs::write(self.dir.join(name), content).unwrap();
        }
        if self.target.exists() {
            fs::write(&self.target, [b'w'; 500]).unwrap();
        }
        self
    }

    fn set_candidate(&self, verdict: Verdict) -> Candidate {
        let mut main = self.candidate(verdict);
        let companion = |name: String| {
            let info = self.candidate_named(&name, verdict).temp_info;
            Companion {
                temp_info: TempInfo {
                    parsed: Default::default(),
                    role: Role::Companion,
                    ..info
                },
                result: CompanionResult::default(),
            }
        };
        let names = members().into_iter().skip(1).map(|(name, _)| name);
        main.companions = names.map(companion).collect();
        main.temp_info.role = Role::Main {
            companion_bytes: (WAL.len() + SHM.len()) as u64,
        };
        main
    }

    fn places(&self) -> Vec<Place> {
        let place = |(name, content): (String, &[u8])| {
            let copies: Vec<PathBuf> = self
                .files()
                .into_iter()
                .filter(|file| file.bytes.starts_with(content))
                .map(|file| file.path)
                .collect();
            assert!(copies.len() < 2, "{name:?} is at {copies:?}");
            match copies.into_iter().next() {
                None => Place::Gone,
                Some(path) if path == self.dir.join(&name) => Place::Named,
                Some(path) => match path.strip_prefix(self.quarantine()) {
                    Ok(below) => {
                        let mut parts = below.components();
                        let folder = parts.next().unwrap().as_os_str();
                        assert!(parts.as_path().ends_with(&name), "{path:?}");
                        Place::Stored(folder.into())
                    }
                    Err(_) => Place::Elsewhere(path),
                },
            }
        };
        members().into_iter().map(place).collect()
    }
}

/// The state that an attack leaves until the protocol has ended.
#[derive(Default)]
struct Attacker {
    /// Files that processes have opened or wait to open, if the name exists.
    opened: Vec<JoinHandle<Option<File>>>,
    maps: Vec<Map>,
    /// A file that another process wrote.
    new: Option<(PathBuf, &'static str)>,
    /// The member that another process renamed.
    renamed: Option<String>,
}

struct Map(*mut std::ffi::c_void);
// SAFETY: nothing accesses the mapping.
unsafe impl Send for Map {}

const NEW: &str = "what a live program writes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Open,
    Append,
    Map,
    Touch,
    Rename,
    AddMember,
    TakeMain,
    TakeMember,
}

impl Attack {
    const ALL: [Attack; 8] = [
        Attack::Open,
        Attack::Append,
        Attack::Map,
        Attack::Touch,
        Attack::Rename,
        Attack::AddMember,
        Attack::TakeMain,
        Attack::TakeMember,
    ];

    fn run(self, dir: &Path, member: &str, attacker: &mut Attacker) {
        let path = dir.join(member);
        let create = |name: &str, attacker: &mut Attacker| {
            let path = dir.join(name);
            if let Ok(mut file) = File::create_new(&path) {
                file.write_all(NEW.as_bytes()).unwrap();
                attacker.new = Some((path, NEW));
            }
        };
        match self {
            Attack::Open | Attack::Append => {
                let Ok(meta) = fs::metadata(&path) else {
                    return;
                };
                let opener = std::thread::spawn(move || {
                    let mut options = File::options();
                    let appends = self == Attack::Append;
                    let mut file = options.read(true).append(appends).open(path).ok()?;
                    if appends {
                        file.write_all(b", and more").unwrap();
                    }
                    Some(file)
                });
                wait_until("the file is open, or its lease is waited for", || {
                    opener.is_finished() || waits_for_lease(meta.ino())
                });
                attacker.opened.push(opener);
            }
            Attack::Map => {
                use std::os::fd::AsRawFd;
                let Ok(meta) = fs::metadata(&path) else {
                    return;
                };
                // An opener that is blocked until the lease ends maps the file then: see Attack::Open.
                if waits_for_lease(meta.ino()) {
                    return;
                }
                use std::os::unix::fs::OpenOptionsExt;
                let file = File::options()
                    .read(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&path);
                let Ok(file) = file else { return };
                // SAFETY: a new private mapping.
                let map = unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        1,
                        libc::PROT_READ,
                        libc::MAP_SHARED,
                        file.as_raw_fd(),
                        0,
                    )
                };
                assert_ne!(map, libc::MAP_FAILED);
                attacker.maps.push(Map(map));
            }
            Attack::Touch => {
                use std::os::unix::fs::PermissionsExt;
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o640));
            }
            Attack::Rename => {
                if fs::rename(&path, dir.join("renamed")).is_ok() {
                    attacker.renamed = Some(member.to_owned());
                }
            }
            Attack::AddMember => create(&companion("-journal"), attacker),
            Attack::TakeMain => create(TEMP, attacker),
            Attack::TakeMember => create(member, attacker),
        }
    }
}

/// Between any two steps, for any member.
#[test]
fn no_attack_at_any_step_separates_a_set() {
    in_own_process(ALL_USERS, || {
        let attacks = AtomicUsize::new(0);
        for has_target in [true, false] {
            in_parallel(steps(has_target), |(step, at)| {
                for attack in Attack::ALL {
                    // These attacks concern no existing member.
                    let is_same = matches!(attack, Attack::AddMember | Attack::TakeMain);
                    for (member, _) in members().into_iter().take(if is_same { 1 } else { 3 }) {
                        let attacked = attack_once(has_target, (step, &at), attack, &member);
                        attacks.fetch_add(attacked, Ordering::SeqCst);
                    }
                }
            });
        }
        let attacks = attacks.into_inner();
        assert!(attacks > 500, "only {attacks} attacks had an effect");
    });
}

fn fixture_and_verdict(has_target: bool) -> (Fixture, Verdict) {
    match has_target {
        true => (Fixture::in_memory().with_set(), Verdict::Reap),
        false => (
            Fixture::in_memory().with_sole_copy().with_set(),
            Verdict::Quarantine(Some(Reason::SoleCopy)),
        ),
    }
}

/// Returns the steps of a set, each with the name of its member.
fn steps(has_target: bool) -> Vec<(Step, String)> {
    let (fixture, verdict) = fixture_and_verdict(has_target);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let begun = Arc::clone(&steps);
    let hook = Hook::new(move |step, name| {
        let one = (step, name.to_str().unwrap().to_owned());
        let mut begun = begun.lock().unwrap();
        if !begun.contains(&one) {
            begun.push(one);
        }
    });
    let reaper = Reaper::new().with_hook(Some(hook));
    let outcome = fixture.reap_candidate(&reaper, fixture.set_candidate(verdict));
    let is_done = matches!(
        outcome,
        Outcome::Reaped { .. } | Outcome::Quarantined { .. }
    );
    assert!(is_done, "{outcome:?}");
    std::mem::take(&mut *steps.lock().unwrap())
}

/// Attacks one member before a step of one member. Returns 1 if that had an effect.
fn attack_once(has_target: bool, at: (Step, &str), attack: Attack, member: &str) -> usize {
    let (fixture, verdict) = fixture_and_verdict(has_target);
    let attacker = Arc::new(Mutex::new(Attacker::default()));
    let (shared, dir) = (Arc::clone(&attacker), fixture.dir.clone());
    let (at_step, at_name) = (at.0, at.1.to_owned());
    let (target, done) = (member.to_owned(), Mutex::new(false));
    let hook = Hook::new(move |step, name| {
        let mut done = done.lock().unwrap();
        if step == at_step && name == OsStr::new(&at_name) && !*done {
            *done = true;
            attack.run(&dir, &target, &mut shared.lock().unwrap());
        }
    });
    let reaper = Reaper::new().with_hook(Some(hook));
    let outcome = fixture.reap_candidate(&reaper, fixture.set_candidate(verdict));
    let mut attacker = attacker.lock().unwrap();
    let what = format!("{attack:?} of {member} before {at:?}: {outcome:?}");
    let opened: Vec<File> = std::mem::take(&mut attacker.opened)
        .into_iter()
        .filter_map(join)
        .collect();
    let places = fixture.places();
    // After the last proof nothing can be prevented: see the table of races in docs/safety.md.
    let is_late = at.0 == Step::Unlink;
    let has_effect = !opened.is_empty()
        || !attacker.maps.is_empty()
        || attacker.new.is_some()
        || attacker.renamed.is_some();
    let renamed = attacker.renamed.clone();
    let mut others: Vec<&Place> = members()
        .iter()
        .zip(&places)
        .filter(|((name, _), _)| renamed.as_ref() != Some(name))
        .map(|(_, place)| place)
        .collect();
    others.dedup();
    assert_eq!(others.len(), 1, "{what}: the set is separated: {places:?}");
    match others[0] {
        Place::Gone => {
            let may_be_removed = !has_effect || is_late;
            assert!(has_target && may_be_removed, "{what}: {places:?}");
        }
        Place::Elsewhere(path) => panic!("{what}: it is left at {path:?}"),
        Place::Named | Place::Stored(_) => {
            for file in &opened {
                assert!(
                    file.metadata().unwrap().nlink() > 0,
                    "{what}: its file is lost"
                );
            }
        }
    }
    if let Some(member) = &renamed {
        let index = members()
            .iter()
            .position(|(name, _)| name == member)
            .unwrap();
        assert!(
            matches!(places[index], Place::Elsewhere(_)),
            "{what}: {places:?}"
        );
    }
    if let Some((path, content)) = &attacker.new {
        assert_eq!(fs::read_to_string(path).unwrap(), *content, "{what}");
    }
    fixture.assert_no_leftovers(&what);
    for map in std::mem::take(&mut attacker.maps) {
        // SAFETY: the mapping was made above.
        unsafe { libc::munmap(map.0, 1) };
    }
    usize::from(has_effect)
}

/// A file at the name of the main file, at any step after its claim, moves the whole set to the quarantine, also if it
/// was to be removed.
#[test]
fn a_taken_main_name_moves_the_set() {
    in_own_process(ALL_USERS, || {
        for (step, at) in [
            (Step::Compare, TEMP.to_owned()),
            (Step::Claim, companion("-wal")),
            (Step::ProveAgain, TEMP.to_owned()),
            (Step::Wait, TEMP.to_owned()),
            (Step::ProveLast, companion("-wal")),
        ] {
            let fixture = Fixture::new().with_set();
            let path = fixture.dir.join(TEMP);
            let hook = Hook::new(move |now, name| {
                if now == step && name == OsStr::new(&at) {
                    fs::write(&path, NEW).unwrap();
                }
            });
            let reaper = Reaper::new().with_hook(Some(hook));
            let outcome = fixture.reap_candidate(&reaper, fixture.set_candidate(Verdict::Reap));
            let places = fixture.places();
            let is_stored = matches!(&places[0], Place::Stored(_));
            assert!(
                is_stored && places[0] == places[1] && places[0] == places[2],
                "{step:?}: {outcome:?}, {places:?}"
            );
            assert!(
                matches!(outcome, Outcome::Quarantined { .. }),
                "{step:?}: {outcome:?}"
            );
            assert_eq!(fs::read_to_string(&fixture.temp).unwrap(), NEW);
        }
    });
}

/// A user removes the quarantine in the last moment before the move.
#[test]
fn a_set_is_put_back_if_the_quarantine_disappears() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new().with_sole_copy().with_set();
        let quarantine = fixture.quarantine();
        let hook = Hook::new(move |now, _| {
            if now == Step::Unlink {
                fs::remove_dir_all(&quarantine).unwrap();
            }
        });
        let reaper = Reaper::new().with_hook(Some(hook));
        let verdict = Verdict::Quarantine(Some(Reason::SoleCopy));
        let outcome = fixture.reap_candidate(&reaper, fixture.set_candidate(verdict));
        assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
        assert_eq!(fixture.places(), vec![Place::Named; 3]);
        fixture.assert_no_leftovers("the quarantine was removed");
    });
}

/// The companions are moved even if the main file disappears before its own move, and the events say so.
#[test]
fn the_move_of_companions_without_their_main_file_is_reported() {
    in_own_process(&[RunAs::CurrentUser], || {
        let fixture = Fixture::new().with_sole_copy().with_set();
        let dir = fixture.dir.clone();
        let hook = Hook::new(move |now, name| {
            if now == Step::Unlink && name == OsStr::new(TEMP) {
                let is_main = |path: &&PathBuf| fs::read(path).unwrap() == TEMP_CONTENT;
                let main = claims(&dir).into_iter().find(|path| is_main(&path));
                fs::remove_file(main.unwrap()).unwrap();
            }
        });
        let engine = engine(Some(hook));
        let mut due = fixture.pass_items(TEMP);
        let mut clocks = ClockJumpDetector::default();
        let end = Instant::now() + TIMEOUT;
        let mut events = Vec::new();
        while let Some(temp) = &due[0].temp {
            assert!(Instant::now() < end, "{events:?}");
            std::thread::sleep(temp.due().since(clock::mono()));
            events.extend(fixture.pass(&engine, &mut clocks, &mut due));
        }
        let places = fixture.places();
        let stored = |place: &Place| matches!(place, Place::Stored(_));
        assert!(
            places[0] == Place::Gone && places[1..].iter().all(stored),
            "{places:?}"
        );
        let moved = |event: &&Event| matches!(event, Event::Quarantined { .. });
        assert_eq!(events.iter().filter(moved).count(), 2, "{events:?}");
    });
}

/// Returns the paths of the claims in the directory of the fixture.
fn claims(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut claims: Vec<PathBuf> = entries.filter(|path| own_names::is_claim(path)).collect();
    claims.sort();
    claims
}

/// What changes after the verdict is found, whichever member it concerns.
#[test]
fn a_late_change_puts_the_set_back() {
    type Act = fn(&Path) -> Option<File>;
    let lose_target: Act = |dir| {
        fs::remove_file(dir.join(crate::fixture::TARGET)).unwrap();
        None
    };
    let touch_claim: Act = |dir| {
        use std::os::unix::fs::PermissionsExt;
        let claim = claims(dir).pop().unwrap();
        fs::set_permissions(claim, fs::Permissions::from_mode(0o640)).unwrap();
        None
    };
    let start_program: Act = |dir| Some(File::create(dir.join("LOCK")).unwrap());
    let open_claim: Act = |dir| Some(File::open(claims(dir).pop().unwrap()).unwrap());
    in_own_process(ALL_USERS, || {
        for (what, step, act, reason) in [
            (
                "its target is lost",
                Step::Open,
                lose_target,
                Reason::Changed,
            ),
            (
                "its target is lost late",
                Step::Wait,
                lose_target,
                Reason::Changed,
            ),
            (
                "a claim is touched",
                Step::Wait,
                touch_claim,
                Reason::Changed,
            ),
            (
                "its program starts",
                Step::Wait,
                start_program,
                Reason::InUse,
            ),
            ("a claim is opened", Step::Wait, open_claim, Reason::InUse),
        ] {
            let fixture = Fixture::new().with_set();
            let fixture = fixture.with_policy(orphand::core::policy::Policy {
                unless_open: Some("LOCK".into()),
                ..Fixture::policy()
            });
            let (dir, held) = (fixture.dir.clone(), Arc::new(Mutex::new(None)));
            let holds = Arc::clone(&held);
            let hook = Hook::new(move |now, name| {
                if now == step && name == OsStr::new(TEMP) {
                    *holds.lock().unwrap() = act(&dir);
                }
            });
            let reaper = Reaper::new().with_hook(Some(hook));
            let outcome = fixture.reap_candidate(&reaper, fixture.set_candidate(Verdict::Reap));
            let is_kept = matches!(outcome, Outcome::Kept(why) if why == reason);
            assert!(is_kept, "{what}: {outcome:?}");
            assert_eq!(fixture.places(), vec![Place::Named; 3], "{what}");
        }
    });
}

/// A file that the rule does not name is never touched, whatever the caller asks for.
#[test]
fn a_set_of_which_the_rule_takes_no_temp_is_not_touched() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new().with_set();
        let candidate = fixture.set_candidate(Verdict::Reap);
        let fixture = fixture.with_policy(orphand::core::policy::Policy {
            exclude: orphand::core::exclude::Exclude::new(&["*.tmp"]).unwrap(),
            ..Fixture::policy()
        });
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Settled), "{outcome:?}");
        assert_eq!(fixture.places(), vec![Place::Named; 3]);
    });
}

const SWEEP: [&str; 6] = ["sweep", "--yes", "--json", "--grace", "100ms", "root"];
/// Longer than the grace of `SWEEP`.
const AGE: Duration = Duration::from_millis(150);
const CONTENTS: [(&str, &str); 3] = [
    ("x.tmp", "what the dead writer wrote"),
    ("x.tmp-shm", "the index of its log"),
    ("x.tmp-wal", "what it wrote to its log"),
];

/// The work that orphand does when it is killed or a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Removing,
    Moving,
    /// Putting all back, because the last claim cannot be looked at.
    PuttingBack,
    /// The same, while a writer has the name of the main file.
    PuttingBackTaken,
    /// The same after the first claim: the companions still have their names.
    PuttingBackFirst,
}

impl Work {
    const ALL: [Work; 5] = [
        Work::Removing,
        Work::Moving,
        Work::PuttingBack,
        Work::PuttingBackTaken,
        Work::PuttingBackFirst,
    ];

    /// Returns the work of the next start. An error that kept the main file's claim would leave its companions to the
    /// other file.
    fn of_recovery(self) -> Work {
        match self {
            Work::PuttingBackFirst => Work::Removing,
            other => other,
        }
    }

    /// Creates the state in which the work begins, in memory.
    fn sandbox(self) -> Sandbox {
        self.set_up(Sandbox::in_memory_for(None))
    }

    fn set_up(self, sandbox: Sandbox) -> Sandbox {
        if self != Work::Moving {
            sandbox.write(
                "x",
                "whole, and longer than all parts of the temp together, to its last byte",
            );
        }
        for (name, content) in CONTENTS {
            sandbox.write(name, content);
        }
        sandbox.age(AGE);
        sandbox
    }
}

/// Runs a sweep in which `respond` answers the `n`th call that changes the root.
fn sweep(sandbox: &Sandbox, work: Work, n: usize, respond: CallResponse) -> (CommandResult, usize) {
    let (root, changes) = (sandbox.root(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&changes);
    let mut command = sandbox.command(SWEEP);
    intercept::process(&mut command, move |asked: &PendingCall| {
        let path = asked.path();
        let claim = path.file_name().and_then(own_names::parse_claim);
        let original = claim.and_then(|claim| claim.original);
        let refused = match work {
            Work::Removing | Work::Moving => None,
            Work::PuttingBack | Work::PuttingBackTaken => Some(CONTENTS[2].0),
            Work::PuttingBackFirst => Some(CONTENTS[0].0),
        };
        if asked.call.changes_disk()
            && path.starts_with(&root)
            && counted.fetch_add(1, Ordering::SeqCst) + 1 == n
        {
            return respond;
        }
        if let Some(refused) = refused
            && asked.call == Call::StatName
            && original.as_deref() == Some(OsStr::new(refused))
        {
            if work != Work::PuttingBack {
                let _ = File::create_new(root.join("x.tmp"))
                    .and_then(|mut file| file.write_all(NEW.as_bytes()));
            }
            return CallResponse::Fail(Errno::IO);
        }
        CallResponse::Allow
    });
    let result = sandbox.finish(command);
    (result, changes.load(Ordering::SeqCst))
}

/// Returns the path of each member, by its name.
fn found(sandbox: &Sandbox) -> BTreeMap<&'static str, PathBuf> {
    fn walk(dir: &Path, found: &mut BTreeMap<&'static str, PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if let Ok(content) = fs::read_to_string(&path) {
                let member = CONTENTS.iter().find(|(_, of)| *of == content);
                if let Some((name, _)) = member {
                    let before = found.insert(name, path.clone());
                    assert_eq!(before, None, "{name} is at {path:?} too");
                }
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&sandbox.root(), &mut all);
    all
}

/// Asserts that no program that opens the main file lacks a companion, and that nothing is lost that was not to be
/// removed.
#[track_caller]
fn check(sandbox: &Sandbox, work: Work, what: &str) {
    let found = found(sandbox);
    let at_its_name = |name: &str| found.get(name) == Some(&sandbox.path(name));
    if at_its_name("x.tmp") {
        assert!(
            at_its_name("x.tmp-shm") && at_its_name("x.tmp-wal"),
            "{what}: {found:?}"
        );
    }
    if work == Work::Moving {
        assert_eq!(found.len(), 3, "{what}: {found:?}");
    }
    // A member is missing only after the main file was removed, and then its companions are not at their names.
    if found.len() < 3 {
        assert!(!found.contains_key("x.tmp"), "{what}: {found:?}");
        assert!(
            !at_its_name("x.tmp-shm") && !at_its_name("x.tmp-wal"),
            "{what}: {found:?}"
        );
    }
}

/// Asserts that one more start completes the work.
#[track_caller]
fn check_end(sandbox: &Sandbox, work: Work, what: &str) {
    sandbox.run(SWEEP);
    sandbox.age(AGE);
    let last = sandbox.run(SWEEP).exit(0);
    let what = format!("{what}, {last:?}");
    check(sandbox, work, &what);
    let found = found(sandbox);
    for (name, path) in &found {
        assert!(
            path.starts_with(sandbox.path(".orphand")),
            "{what}: {name} at {path:?}"
        );
    }
    let folders: BTreeSet<_> = found.values().map(|path| path.parent().unwrap()).collect();
    match found.contains_key("x.tmp") {
        true => assert_eq!((found.len(), folders.len()), (3, 1), "{what}: {found:?}"),
        // Companions whose main file was removed before the kill.
        false => assert!(work != Work::Moving && found.len() < 3, "{what}: {found:?}"),
    }
    let listing = sandbox.listing();
    assert!(
        !listing.iter().any(|name| name.starts_with(".orphand-")),
        "{what}: {listing:?}"
    );
}

/// Calls `test` with the number of each call that changes the root in a whole sweep, at the same time, and with the
/// numbers after these until it returns false: there was no such call.
fn for_each_change(work: Work, test: impl Fn(usize) -> bool + Sync) {
    let (_, changes) = sweep(&work.sandbox(), work, usize::MAX, CallResponse::Allow);
    in_parallel(1..=changes, |n| {
        test(n);
    });
    for n in changes + 1.. {
        if !test(n) {
            break;
        }
    }
}

/// The files and folders in the root, the oldest change first, and whether each is younger than the grace. The names
/// that orphand chose are replaced by numbers, so a start does the same in equal states.
fn state(sandbox: &Sandbox) -> Vec<String> {
    fn walk(dir: &Path, found: &mut Vec<(SystemTime, PathBuf)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let since = Duration::new(meta.ctime() as u64, meta.ctime_nsec() as u32);
            if meta.is_dir() {
                walk(&path, found);
            }
            found.push((SystemTime::UNIX_EPOCH + since, path));
        }
    }
    let root = sandbox.root();
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    let now = SystemTime::now();
    let mut chosen = Vec::new();
    let describe = |(changed, path): (SystemTime, PathBuf)| {
        let is_young = now.duration_since(changed).unwrap_or_default() < AGE;
        let below = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let below = number_chosen(below, &mut chosen);
        let content = fs::read(&path).unwrap_or_default();
        format!("{below} {is_young} {content:?}")
    };
    found.into_iter().map(describe).collect()
}

/// Replaces the digits of a claim or the name of a folder of the quarantine by its position in `chosen`.
fn number_chosen(below: &str, chosen: &mut Vec<String>) -> String {
    let part = match below.strip_prefix(".orphand") {
        Some(rest) if rest.starts_with('-') => rest[1..].split('-').next(),
        Some(rest) if rest.starts_with('/') => rest[1..].split('/').next(),
        _ => None,
    };
    let Some(part) = part else {
        return below.to_owned();
    };
    if !chosen.iter().any(|other| other == part) {
        chosen.push(part.to_owned());
    }
    let number = chosen.iter().position(|other| other == part).unwrap();
    below.replace(part, &number.to_string())
}

/// The states from which the rest was checked, because a start depends on nothing else.
#[derive(Default)]
struct Checked {
    after_first: Mutex<BTreeSet<Vec<String>>>,
    after_second: Mutex<BTreeSet<Vec<String>>>,
    kills: AtomicUsize,
}

/// Kills a sweep before its change number `first`, and the next one before each of its changes. Reports whether the
/// first sweep was killed.
fn kill_twice(work: Work, first: usize, checked: &Checked) -> bool {
    let is_new = |states: &Mutex<BTreeSet<_>>, sandbox: &Sandbox| {
        let state = state(sandbox);
        states.lock().unwrap().insert(state)
    };
    let mut was_killed = false;
    for second in 1.. {
        let sandbox = work.sandbox();
        let (ran, _) = sweep(&sandbox, work, first, CallResponse::Kill);
        was_killed = ran.code().is_none();
        let what = format!("{work:?}, killed before change {first}, then {second}: {ran:?}");
        check(&sandbox, work, &what);
        sandbox.age(AGE);
        if second == 1 && !is_new(&checked.after_first, &sandbox) {
            break;
        }
        let (again, _) = sweep(&sandbox, work.of_recovery(), second, CallResponse::Kill);
        let again_killed = again.code().is_none();
        let what = format!("{what}, {again:?}");
        check(&sandbox, work, &what);
        let kills = usize::from(was_killed) + usize::from(again_killed);
        checked.kills.fetch_add(kills, Ordering::SeqCst);
        if is_new(&checked.after_second, &sandbox) {
            check_end(&sandbox, work, &what);
        }
        if !again_killed {
            break;
        }
    }
    was_killed
}

#[test]
fn no_kill_separates_a_set() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    in_parallel(Work::ALL, |work| {
        let checked = Checked::default();
        for_each_change(work, |first| kill_twice(work, first, &checked));
        let kills = checked.kills.into_inner();
        assert!(kills > 10, "{work:?}: {kills} kills");
    });
}

/// A full disk, or an error of the disk, at any change.
#[test]
fn no_failure_separates_a_set() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    in_parallel(Work::ALL, |work| {
        for error in [Errno::NOSPC, Errno::IO] {
            for_each_change(work, |n| {
                let sandbox = work.sandbox();
                let (ran, changes) = sweep(&sandbox, work, n, CallResponse::Fail(error));
                let what = format!("{work:?}, change {n} fails with {error:?}: {ran:?}");
                check(&sandbox, work, &what);
                sandbox.age(AGE);
                check_end(&sandbox, work, &what);
                changes >= n
            });
        }
    });
}

/// A set of which only the main file is in the quarantine is not restored: a program would find it without its
/// companions. The next start moves these beside it.
#[test]
fn an_incomplete_set_is_not_restored() {
    if !intercept::is_possible() {
        return report_skipped("seccomp");
    }
    let mut incomplete = 0;
    for n in 1.. {
        let sandbox = Work::Moving.set_up(Sandbox::new());
        let (ran, _) = sweep(&sandbox, Work::Moving, n, CallResponse::Kill);
        if ran.code().is_some() {
            break;
        }
        let found = found(&sandbox);
        let is_stored = |path: &PathBuf| path.starts_with(sandbox.path(".orphand"));
        if !is_stored(&found["x.tmp"]) || found.values().all(is_stored) {
            continue;
        }
        incomplete += 1;
        sandbox
            .run(["restore", "root/x.tmp"])
            .exit(1)
            .stderr_has("orphand was killed while it moved this file");
        assert!(!sandbox.has("x.tmp"));
        sandbox.run(SWEEP).exit(0);
        sandbox.run(["restore", "root/x.tmp"]).exit(0);
        for (name, content) in CONTENTS {
            assert_eq!(sandbox.content(name), content);
        }
    }
    assert!(incomplete > 0, "no kill left a set incomplete");
}

/// A killed orphand had claimed only the main file, and another program has created a file of its name. The companions
/// that belong to the old file go with it, and those of the new one stay.
#[test]
fn a_left_set_whose_name_is_taken_is_moved_with_what_belongs_to_it() {
    let sandbox = Sandbox::new();
    for (name, content) in &CONTENTS[1..] {
        sandbox.write(name, content);
    }
    // In the same tick of the kernel's clock, the companions would not be older than the claim.
    sandbox.age(Duration::ZERO);
    sandbox.write(".orphand-0123456789abcdef-x.tmp", CONTENTS[0].1);
    sandbox.age(AGE);
    sandbox.write("x.tmp", NEW);
    sandbox.write("x.tmp-journal", NEW);
    let _held = File::open(sandbox.path("x.tmp")).unwrap();
    sandbox.run(SWEEP).exit(0);
    let found = found(&sandbox);
    let folder = found["x.tmp"].parent().unwrap();
    assert!(folder.starts_with(sandbox.path(".orphand")), "{found:?}");
    assert!(
        found.values().all(|path| path.parent() == Some(folder)),
        "{found:?}"
    );
    assert_eq!(found.len(), 3);
    assert_eq!(sandbox.content("x.tmp"), NEW);
    assert_eq!(sandbox.content("x.tmp-journal"), NEW);
}

/// Returns the digits of a set that is claimed now, as orphand makes them.
fn digits_of_now() -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let number = u64::try_from(now.as_micros()).unwrap() << 11;
    let (high, low) = (number >> 31, number & 0x7fff_ffff);
    format!("{:016x}", (high << 32) | 0x8000_0000 | low)
}

/// A change of the rights changes the ctime of a claim. A companion that another program created before that change is not
/// taken for an older one.
#[test]
fn a_claim_with_a_new_ctime_is_not_put_back_beside_a_newer_companion() {
    let sandbox = Sandbox::new();
    let claim = format!(".orphand-{}-x.tmp", digits_of_now());
    sandbox.write(&claim, CONTENTS[0].1);
    sandbox.age(Duration::from_millis(50));
    sandbox.write("x.tmp-wal", NEW);
    sandbox.age(Duration::from_millis(50));
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(sandbox.path(&claim), rights).unwrap();
    sandbox.age(AGE);
    sandbox.run(SWEEP).exit(0);
    let main = found(&sandbox)["x.tmp"].clone();
    assert!(main.starts_with(sandbox.path(".orphand")), "{main:?}");
    assert_eq!(sandbox.content("x.tmp-wal"), NEW);
}

/// Nor do such companions stay beside a file that has taken the name of their main file.
#[test]
fn a_left_set_is_moved_whole_after_a_change_of_rights() {
    let sandbox = Sandbox::new();
    sandbox.write("x.tmp-wal", CONTENTS[2].1);
    sandbox.age(Duration::from_millis(50));
    sandbox.write(format!(".orphand-{}-x.tmp", digits_of_now()), CONTENTS[0].1);
    sandbox.age(Duration::from_millis(50));
    let rights = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(sandbox.path("x.tmp-wal"), rights).unwrap();
    sandbox.write("x.tmp", NEW);
    let _held = File::open(sandbox.path("x.tmp")).unwrap();
    sandbox.age(AGE);
    sandbox.run(SWEEP).exit(0);
    let found = found(&sandbox);
    assert_eq!(
        found["x.tmp"].parent(),
        found["x.tmp-wal"].parent(),
        "{found:?}"
    );
    assert_eq!(sandbox.content("x.tmp"), NEW);
}

/// Companions that a kill has separated from their main file are restored before it, or to another place.
#[test]
fn a_main_file_is_not_restored_without_a_companion_that_may_be_its_own() {
    let sandbox = Sandbox::new();
    for (digits, name) in [
        ("0123456789abcdef", CONTENTS[0].0),
        ("0123456789abcdef", CONTENTS[1].0),
        ("1123456789abcdef", CONTENTS[2].0),
    ] {
        let content = CONTENTS.iter().find(|(of, _)| *of == name).unwrap().1;
        sandbox.write(format!(".orphand-{digits}-{name}"), content);
    }
    sandbox.write("x.tmp", NEW);
    let held = File::open(sandbox.path("x.tmp")).unwrap();
    sandbox.age(AGE);
    sandbox.run(SWEEP).exit(0);
    let stored = found(&sandbox);
    assert_ne!(
        stored["x.tmp"].parent(),
        stored["x.tmp-wal"].parent(),
        "{stored:?}"
    );
    drop(held);
    fs::remove_file(sandbox.path("x.tmp")).unwrap();
    let refused = sandbox.run(["restore", "root/x.tmp"]).exit(1);
    refused.stderr_has("apart from it");
    let hidden = sandbox.run(["restore", "--to", "root/.orphand/", "root/x.tmp-wal"]);
    hidden.exit(2).stderr_has("is in a quarantine");
    fs::create_dir(sandbox.base().join("elsewhere")).unwrap();
    sandbox
        .run(["restore", "--to", "elsewhere/", "root/x.tmp-wal"])
        .exit(0);
    sandbox.run(["restore", "root/x.tmp"]).exit(0);
    assert_eq!(sandbox.content("x.tmp"), CONTENTS[0].1);
}

/// A set of claims that a user or another rule may have made is left alone.
#[test]
fn claims_of_other_rules_stay() {
    let sandbox = Sandbox::new();
    for (name, content) in CONTENTS {
        let name = name.replace("x.tmp", "x.db");
        sandbox.write(format!(".orphand-0123456789abcdef-{name}"), content);
    }
    sandbox.age(AGE);
    let before = sandbox.listing();
    sandbox.run(SWEEP).exit(0);
    assert_eq!(sandbox.listing(), before);
}

/// Claims with the same digits form a set only with the names of a temp and its companions. All others are recovered
/// one by one.
#[test]
fn only_the_claims_of_one_temp_are_recovered_together() {
    /// The original names of the claims, the claim that is recovered, the name that it reports and those that are back.
    type Row = (
        &'static [&'static str],
        &'static str,
        &'static [&'static str],
    );
    const PAIR: &[&str] = &["free.tmp", "taken.tmp"];
    const SET_AND_OTHER: &[&str] = &["a.tmp", "a.tmp-wal", "b.tmp"];
    const TWO_SETS: &[&str] = &["a.tmp", "a.tmp-wal", "b.tmp", "b.tmp-wal"];
    let rows: [Row; 7] = [
        (PAIR, "free.tmp", &["free.tmp"]),
        (PAIR, "taken.tmp", &["taken.tmp"]),
        (SET_AND_OTHER, "b.tmp", &["b.tmp"]),
        (SET_AND_OTHER, "a.tmp", &["a.tmp", "a.tmp-wal"]),
        (SET_AND_OTHER, "a.tmp-wal", &["a.tmp", "a.tmp-wal"]),
        (TWO_SETS, "a.tmp-wal", &["a.tmp", "a.tmp-wal"]),
        (TWO_SETS, "b.tmp", &["b.tmp", "b.tmp-wal"]),
    ];
    in_own_process(ALL_USERS, || {
        let claim = |name: &str| format!(".orphand-0123456789abcdef-{name}");
        for (names, recovered, back) in rows {
            let what = format!("{recovered} of {names:?}");
            let fixture = Fixture::new();
            for name in names {
                fs::write(fixture.dir.join(claim(name)), name).unwrap();
            }
            let result = fixture.recover(&claim(recovered));
            let is_put_back =
                matches!(&result, Ok(Some(Recovered::PutBack(name))) if *name == *back[0]);
            assert!(is_put_back, "{what}: {result:?}");
            for name in names {
                let at = match back.contains(name) {
                    true => fixture.dir.join(name),
                    false => fixture.dir.join(claim(name)),
                };
                fixture.assert_only_at(name.as_bytes(), &at, &what);
            }
        }
    });
}

/// While a process holds a member, the claims of a set stay.
#[test]
fn a_left_set_in_use_is_put_back_later() {
    for held in [CONTENTS[0].0, CONTENTS[2].0] {
        let sandbox = Sandbox::new();
        let claim = |name: &str| format!(".orphand-0123456789abcdef-{name}");
        for (name, content) in CONTENTS {
            sandbox.write(claim(name), content);
        }
        sandbox.age(AGE);
        let file = File::open(sandbox.path(claim(held))).unwrap();
        let before = sandbox.listing();
        sandbox.run(SWEEP).exit(0);
        assert_eq!(sandbox.listing(), before, "{held}");
        let mut watching = sandbox.watch(["--grace", "1h"]).ready();
        drop(file);
        watching.stop();
        watching = sandbox.watch(["--grace", "1h"]).ready();
        for (name, content) in CONTENTS {
            assert_eq!(sandbox.content(name), content, "{held}");
        }
        watching.stop();
    }
}

/// A restored set stays, also under the names of claims.
#[test]
fn claims_of_a_restored_set_stay() {
    let sandbox = Work::Moving.set_up(Sandbox::new());
    sandbox.run(SWEEP).exit(0);
    sandbox.run(["restore", "root/x.tmp"]).exit(0);
    for (name, _) in CONTENTS {
        let claim = format!(".orphand-0123456789abcdef-{name}");
        fs::rename(sandbox.path(name), sandbox.path(claim)).unwrap();
    }
    sandbox.age(AGE);
    let before = sandbox.listing();
    sandbox.run(SWEEP).exit(0);
    assert_eq!(sandbox.listing(), before);
}

/// A companion that was created after the crash may belong to another main file, and would damage this one. One that the
/// crash left in place does not.
#[test]
fn a_left_set_is_not_put_back_beside_a_foreign_companion() {
    for is_foreign in [true, false] {
        let sandbox = Sandbox::new();
        let claim = |name: &str| format!(".orphand-0123456789abcdef-{name}");
        let journal = || sandbox.write("x.tmp-journal", "of some file");
        if !is_foreign {
            journal();
        }
        for name in ["x.tmp", "x.tmp-wal"] {
            sandbox.write(name, name);
        }
        sandbox.age(AGE);
        for name in ["x.tmp", "x.tmp-wal"] {
            fs::rename(sandbox.path(name), sandbox.path(claim(name))).unwrap();
        }
        if is_foreign {
            std::thread::sleep(Duration::from_millis(20));
            journal();
        }
        sandbox.watch(["--grace", "1h"]).ready().stop().exit(0);
        let mut in_place = sandbox.listing();
        in_place.retain(|name| name.starts_with("x.tmp") || name == ".orphand");
        match is_foreign {
            true => assert_eq!(in_place, [".orphand", "x.tmp-journal"]),
            false => assert_eq!(in_place, ["x.tmp", "x.tmp-journal", "x.tmp-wal"]),
        }
    }
}
