//! What a killed orphand leaves, and what the next one makes of it; and what a quarantine must be.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use orphand::daemon::Watcher;
use orphand::decide::judge::{Reason, Verdict};
use orphand::event::Event;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::look;
use orphand::reap::{Hook, Outcome, Reaper, Recovered, Step};

use crate::fixture::*;

/// What another writer puts there.
const NEW: &[u8] = b"what a live writer is just writing";

/// The ways through the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Removed,
    Moved,
    /// There is no room for a claim: it goes by its own name. (Only Linux can be told so.)
    #[cfg(target_os = "linux")]
    FullDisk,
}

impl Way {
    const ALL: &[Way] = &[
        Way::Removed,
        Way::Moved,
        #[cfg(target_os = "linux")]
        Way::FullDisk,
    ];

    /// Whether a step lies on it.
    fn has(self, step: Step) -> bool {
        match step {
            Step::Resolve
            | Step::Look
            | Step::Open
            | Step::Prove
            | Step::Judge
            | Step::Claim
            | Step::Compare
            | Step::ProveAgain
            | Step::Unlink => true,
            // What has not lost its name need not wait for who is about to look for it.
            Step::LetGo | Step::Breathe | Step::ProveLast => match self {
                Way::Removed | Way::Moved => true,
                #[cfg(target_os = "linux")]
                Way::FullDisk => false,
            },
        }
    }

    /// Goes it, and does not come back.
    fn go(self, fixture: Fixture, hook: Hook) -> Outcome {
        match self {
            Way::Removed | Way::Moved => fixture.reap(hook),
            #[cfg(target_os = "linux")]
            Way::FullDisk => {
                use crate::intercept::{self, Call, CallResponse};
                let answer = |asked: &intercept::PendingCall| match asked.call {
                    Call::Rename => CallResponse::Fail(rustix::io::Errno::NOSPC),
                    _ => CallResponse::Allow,
                };
                intercept::thread(move || fixture.reap(hook), answer)
                    .unwrap()
                    .unwrap()
            }
        }
    }
}

/// Killed at any step of any way, nothing is lost, and the next sweep or start puts everything in
/// order.
#[test]
fn killed_at_any_step() {
    const STEP: &str = "ORPHAND_TEST_KILLED_AT";
    const WAY: &str = "ORPHAND_TEST_WAY";
    const HOME: &str = "ORPHAND_TEST_HOME";
    #[cfg(target_os = "linux")]
    let full = crate::intercept::is_possible();
    #[cfg(not(target_os = "linux"))]
    let full = true;
    in_own_process(ALL_USERS, || {
        let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
        if let (Some(step), Some(way), Ok(home)) = (number(STEP), number(WAY), std::env::var(HOME))
        {
            let stunt = AtStep::new(Step::ALL[step], || {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
            });
            let outcome = Way::ALL[way].go(Fixture::at(home.into()), stunt.hook);
            panic!("it lives: {outcome:?}");
        }
        for (index, step) in Step::ALL.into_iter().enumerate() {
            for (number, way) in Way::ALL.iter().enumerate() {
                let what = format!("killed at {step:?}, {way:?}");
                if number > 1 && !full {
                    continue;
                }
                let fixture = match way {
                    Way::Moved => Fixture::new().with_sole_copy(),
                    _ => Fixture::new(),
                };
                let mut victim = test_command(&this_test());
                victim
                    .env(STEP, index.to_string())
                    .env(HOME, fixture.home());
                let ended = victim
                    .env(WAY, number.to_string())
                    .collect_output()
                    .unwrap();
                use std::os::unix::process::ExitStatusExt;
                if !way.has(step) {
                    let out = String::from_utf8_lossy(&ended.stderr);
                    assert!(out.contains("it lives: Reaped"), "{what}: {ended:?}");
                    continue;
                }
                assert_eq!(ended.status.signal(), Some(9), "{what}: {ended:?}");
                assert_eq!(
                    fixture.copies(TEMP_CONTENT).len(),
                    1,
                    "{what}: {:#?}",
                    fixture.files()
                );

                // One door as often as the other.
                let events = match (index + number) % 2 {
                    0 => fixture.sweep(),
                    _ => watched(&fixture),
                };
                let left = fixture.copies(TEMP_CONTENT);
                match way {
                    Way::Moved => {
                        assert_eq!(left.len(), 1, "{what}: {events:?}");
                        assert!(
                            left[0].starts_with(fixture.quarantine()),
                            "{what}: {left:?}"
                        );
                        assert!(
                            left[0].ends_with(format!("{SUBDIR}/{TEMP}")),
                            "{what}: {left:?}"
                        );
                    }
                    _ => assert!(left.is_empty(), "{what}: {left:?}, {events:?}"),
                }
                fixture.assert_no_leftovers(&format!("{what}: {events:?}"));
            }
        }
    });
}

/// What a watcher says until it has disposed of the temp.
fn watched(fixture: &Fixture) -> Vec<Event> {
    let watcher = Watcher::builder().root(&fixture.root.path, Fixture::policy());
    let watcher = watcher.allow_broad_roots(true).start().unwrap();
    let mut events = Vec::new();
    let end = Instant::now() + TIMEOUT;
    // What was moved before the crash is there already, and nothing more is said of it.
    let is_over = |events: &[Event]| {
        let gone = |event: &Event| matches!(event, Event::Reaped(_) | Event::Quarantined { .. });
        let ready = |event: &Event| matches!(event, Event::Ready { .. });
        let moved = fixture
            .copies(TEMP_CONTENT)
            .iter()
            .all(|path| path.starts_with(fixture.quarantine()));
        events.iter().any(gone) || (events.iter().any(ready) && moved)
    };
    while !is_over(&events) {
        events.push(
            watcher
                .events()
                .recv_deadline(end)
                .expect("it is disposed of"),
        );
    }
    drop(watcher);
    events
}

/// The claim that a crash left, and a new file by its old name: both stay.
#[test]
fn a_claim_of_a_crash_whose_name_is_taken() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        fs::rename(
            &fixture.temp,
            fixture
                .dir
                .join(format!(".orphand-0123456789abcdef-{TEMP}")),
        )
        .unwrap();
        let mut writer = File::create_new(&fixture.temp).unwrap();
        writer.write_all(NEW).unwrap();
        fixture.sweep();
        fixture.assert_only_at(NEW, &fixture.temp, "");
        let moved = fixture.copies(TEMP_CONTENT);
        assert!(
            moved.len() == 1 && moved[0].starts_with(fixture.quarantine()),
            "{moved:?}"
        );
        fixture.assert_no_leftovers("");
        drop(writer);
    });
}

/// A claim that somebody holds may be another's at work: it is left alone, whatever is asked.
#[test]
fn a_claim_that_is_held_is_left_alone() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let claim = fixture
            .dir
            .join(format!(".orphand-0123456789abcdef-{TEMP}"));
        fs::rename(&fixture.temp, &claim).unwrap();
        let mut holder = File::open(&claim).unwrap();
        fixture.sweep();
        fixture.assert_only_at(TEMP_CONTENT, &claim, "");
        let mut read = Vec::new();
        holder.read_to_end(&mut read).unwrap();
        assert_eq!(read, TEMP_CONTENT);
    });
}

/// Anybody may make something by such a name: what is no file of ours is not even opened.
#[test]
fn what_only_has_the_name_of_a_claim_is_left_alone() {
    const HOME: &str = "ORPHAND_TEST_HOME";
    let claim = format!(".orphand-0123456789abcdef-{TEMP}");
    let left_alone = |fixture: &Fixture, what: &str| {
        let recovered = fixture.recover(&claim);
        assert!(matches!(recovered, Ok(None)), "{what}: {recovered:?}");
    };
    in_own_process(&[RunAs::CurrentUser], || {
        if let Some(home) = std::env::var_os(HOME) {
            return left_alone(&Fixture::at(home.into()), "somebody else's");
        }
        type Make = fn(&Path);
        let makes: [(&str, Make); 2] = [
            ("a symlink", |at| symlink(TEMP, at).unwrap()),
            ("a folder", |at| fs::create_dir(at).unwrap()),
        ];
        for (what, make) in makes {
            let fixture = Fixture::new();
            make(&fixture.dir.join(&claim));
            left_alone(&fixture, what);
            fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, what);
        }
        if rustix::process::geteuid().is_root() {
            let fixture = Fixture::new();
            let at = fixture.dir.join(&claim);
            fs::rename(&fixture.temp, &at).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(fixture.home(), fs::Permissions::from_mode(0o755)).unwrap();
            let mut other = test_command(&this_test());
            other.env(HOME, fixture.home());
            run_test(other, RunAs::Nobody);
            fixture.assert_only_at(TEMP_CONTENT, &at, "somebody else's");
        }
    });
}

/// A name of that form can be given by anybody: only what this rule takes is put in order. A long name may have
/// been cut: what the rule would have said of it is not known, and under that name it would never be found.
#[test]
fn a_claim_that_this_rule_would_not_have_made() {
    in_own_process(ALL_USERS, || {
        // As long as a name may be: a longer one may have been cut to this.
        let long = |suffix: &str| format!("{:x<1$}{suffix}", "report", 229 - suffix.len());
        let rows = [
            ("its name is whole", "report.tmp".to_owned(), true),
            ("whole, and no temp's", "report.doc".into(), false),
            ("its name may have been cut", long(".tmp"), true),
            ("cut, and who knows whose", long(".doc"), true),
        ];
        for (what, name, takes) in rows {
            let fixture = Fixture::new();
            let claim = format!(".orphand-0123456789abcdef-{name}");
            fs::rename(&fixture.temp, fixture.dir.join(&claim)).unwrap();
            let recovered = fixture.recover(&claim);
            match (&recovered, takes) {
                (Ok(None), false) => {
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.dir.join(&claim), what)
                }
                (Ok(Some(Recovered::PutBack(back))), true) => {
                    assert_eq!(*back, *name, "{what}");
                    fixture.assert_only_at(TEMP_CONTENT, &fixture.dir.join(name), what);
                }
                (Ok(Some(Recovered::Quarantined { name, .. })), true) => {
                    assert_eq!(*name, *claim, "{what}");
                    assert_eq!(claim.len(), 255, "{what}");
                }
                _ => panic!("{what}: {recovered:?}"),
            }
            assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1, "{what}");
        }
    });
}

/// What a person brought back stays, even under such a name.
#[test]
fn a_restored_file_by_the_name_of_a_claim() {
    in_own_process(ALL_USERS, || {
        let claim = format!(".orphand-0123456789abcdef-{TEMP}");
        for marked in [true, false] {
            let fixture = Fixture::new();
            let at = fixture.dir.join(&claim);
            fs::rename(&fixture.temp, &at).unwrap();
            if marked {
                let file = File::open(&at).unwrap();
                let seen = look::observe_fd(file.as_fd()).unwrap().fingerprint;
                RestoreMarks::new(None).put(file.as_fd(), &seen).unwrap();
            }
            let recovered = fixture.recover(&claim);
            match marked {
                true => {
                    assert!(matches!(recovered, Ok(None)), "{recovered:?}");
                    fixture.assert_only_at(TEMP_CONTENT, &at, "");
                }
                false => {
                    let back = matches!(recovered, Ok(Some(Recovered::PutBack(_))));
                    assert!(back, "{recovered:?}");
                }
            }
        }
    });
}

/// What a quarantine must be. Where there can be none, a sole copy stays.
#[test]
fn a_quarantine_that_is_not_ours() {
    in_own_process(ALL_USERS, || {
        type Make = fn(&Fixture);
        let makes: [(&str, Make); 6] = [
            ("open to its group", |fixture| {
                make_quarantine(fixture, 0o750)
            }),
            ("open to everybody", |fixture| {
                make_quarantine(fixture, 0o701)
            }),
            ("a symlink", |fixture| {
                let elsewhere = fixture.outside.join("elsewhere");
                fs::create_dir(&elsewhere).unwrap();
                fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
                symlink(&elsewhere, fixture.quarantine()).unwrap();
            }),
            ("a file", |fixture| {
                fs::write(fixture.quarantine(), NEW).unwrap()
            }),
            ("a symlink to nowhere", |fixture| {
                symlink("nowhere", fixture.quarantine()).unwrap()
            }),
            ("somebody else's", |fixture| {
                make_quarantine(fixture, 0o700);
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(fixture.quarantine(), Some(NOBODY), None).unwrap();
                } else {
                    // An ordinary user cannot give a folder away.
                    fs::set_permissions(fixture.quarantine(), fs::Permissions::from_mode(0o707))
                        .unwrap();
                }
            }),
        ];
        for (name, make) in makes {
            let fixture = Fixture::new().with_sole_copy();
            make(&fixture);
            // Also when the look said that there can be one.
            for before in [false, true] {
                let outcome = match before {
                    false => fixture.reap(AtStep::new(Step::Look, || {}).hook),
                    true => {
                        let verdict = Verdict::Quarantine(Some(Reason::SoleCopy));
                        fixture.reap_as(&Reaper::new(), verdict)
                    }
                };
                let kept = matches!(outcome, Outcome::Kept(Reason::NoQuarantine));
                assert!(kept, "{name}: {outcome:?}");
                fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, name);
            }
        }
    });
}

fn make_quarantine(fixture: &Fixture, mode: u32) {
    fs::create_dir(fixture.quarantine()).unwrap();
    fs::set_permissions(fixture.quarantine(), fs::Permissions::from_mode(mode)).unwrap();
}
