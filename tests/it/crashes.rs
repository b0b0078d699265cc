//! The files that a killed orphand leaves, and their recovery by the next start; and the conditions for a quarantine.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::daemon::Watcher;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::fs::dir;
use orphand::reap::{Hook, Outcome, Reaper, Recovered, Step};

use crate::fixture::*;

/// The content that another writer writes.
const NEW: &[u8] = b"what a live writer is just writing";

/// The ways in which the protocol disposes of a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Removed,
    Moved,
    /// The disk has no space for a claim, so the temp is removed by its original name. (Only Linux can simulate this.)
    #[cfg(target_os = "linux")]
    FullDisk,
}

impl Route {
    const ALL: &[Route] = &[
        Route::Removed,
        Route::Moved,
        #[cfg(target_os = "linux")]
        Route::FullDisk,
    ];

    /// Reports whether this route includes the step.
    fn has_step(self, step: Step) -> bool {
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
            // A temp without a claim keeps its name, so nothing waits for processes that are about to look it up.
            Step::Release | Step::Wait | Step::ProveLast => match self {
                Route::Removed | Route::Moved => true,
                #[cfg(target_os = "linux")]
                Route::FullDisk => false,
            },
        }
    }

    /// Runs the protocol on this route. In a test of a kill, this does not return.
    fn run(self, fixture: Fixture, hook: Hook) -> Outcome {
        match self {
            Route::Removed | Route::Moved => fixture.reap(hook),
            #[cfg(target_os = "linux")]
            Route::FullDisk => {
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

/// Wherever orphand is killed, nothing is lost, and the next sweep or start recovers everything.
#[test]
fn a_kill_at_any_step_loses_nothing() {
    const STEP: &str = "ORPHAND_TEST_KILLED_AT";
    const ROUTE: &str = "ORPHAND_TEST_ROUTE";
    const HOME: &str = "ORPHAND_TEST_HOME";
    #[cfg(target_os = "linux")]
    let full = crate::intercept::is_possible();
    #[cfg(not(target_os = "linux"))]
    let full = true;
    in_own_process(ALL_USERS, || {
        let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
        if let (Some(step), Some(route), Ok(home)) =
            (number(STEP), number(ROUTE), std::env::var(HOME))
        {
            let at_step = AtStep::new(Step::ALL[step], || {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
            });
            let outcome = Route::ALL[route].run(Fixture::at(home.into()), at_step.hook);
            panic!("not killed: {outcome:?}");
        }
        for (index, step) in Step::ALL.into_iter().enumerate() {
            for (number, route) in Route::ALL.iter().enumerate() {
                let what = format!("killed at {step:?}, {route:?}");
                if number > 1 && !full {
                    continue;
                }
                let fixture = match route {
                    Route::Moved => Fixture::new().with_sole_copy(),
                    _ => Fixture::new(),
                };
                let mut victim = test_command(&this_test());
                victim
                    .env(STEP, index.to_string())
                    .env(HOME, fixture.home());
                let ended = victim
                    .env(ROUTE, number.to_string())
                    .collect_output()
                    .unwrap();
                use std::os::unix::process::ExitStatusExt;
                if !route.has_step(step) {
                    let out = String::from_utf8_lossy(&ended.stderr);
                    assert!(out.contains("not killed: Reaped"), "{what}: {ended:?}");
                    continue;
                }
                assert_eq!(ended.status.signal(), Some(9), "{what}: {ended:?}");
                assert_eq!(
                    fixture.copies(TEMP_CONTENT).len(),
                    1,
                    "{what}: {:#?}",
                    fixture.files()
                );

                // A sweep and a start recover equally often.
                let events = match (index + number) % 2 {
                    0 => fixture.sweep(),
                    _ => watched(&fixture),
                };
                let left = fixture.copies(TEMP_CONTENT);
                match route {
                    Route::Moved => {
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

/// Runs a watcher until it has disposed of the temp, and returns its events.
fn watched(fixture: &Fixture) -> Vec<Event> {
    let watcher = Watcher::builder().roots(vec![fixture.root.clone()]);
    let watcher = watcher.start().unwrap();
    let mut events = Vec::new();
    let end = Instant::now() + TIMEOUT;
    // A temp that was moved before the crash is in the quarantine already, and causes no further event.
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
                .expect("an event for the temp"),
        );
    }
    drop(watcher);
    events
}

/// A crash left a claim, and a new file has its original name: both are kept.
#[test]
fn a_crash_claim_whose_name_is_taken_is_moved() {
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

/// A held claim may be in use by another orphand. It is kept in any case.
#[test]
fn a_held_claim_is_kept() {
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

/// Any user can create something with such a name. It is not even opened unless it is a file of ours.
#[test]
fn other_things_named_like_a_claim_are_ignored() {
    const HOME: &str = "ORPHAND_TEST_HOME";
    let claim = format!(".orphand-0123456789abcdef-{TEMP}");
    let check_ignored = |fixture: &Fixture, what: &str| {
        let recovered = fixture.recover(&claim);
        assert!(matches!(recovered, Ok(None)), "{what}: {recovered:?}");
    };
    in_own_process(&[RunAs::CurrentUser], || {
        if let Some(home) = std::env::var_os(HOME) {
            return check_ignored(&Fixture::at(home.into()), "another user's");
        }
        type Make = fn(&Path);
        let makes: [(&str, Make); 2] = [
            ("a symlink", |at| symlink(TEMP, at).unwrap()),
            ("a folder", |at| fs::create_dir(at).unwrap()),
        ];
        for (what, make) in makes {
            let fixture = Fixture::new();
            make(&fixture.dir.join(&claim));
            check_ignored(&fixture, what);
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
            fixture.assert_only_at(TEMP_CONTENT, &at, "another user's");
        }
    });
}

/// Any user can create such a name, so only claims of temps that this rule takes are recovered. A long name may have
/// been cut: the rule's answer for the original name is unknown, and no rule would find the file under this name.
#[test]
fn a_claim_outside_the_rule_is_ignored() {
    in_own_process(ALL_USERS, || {
        // The maximum length of a name: a longer name may have been cut to this length.
        let long = |suffix: &str| format!("{:x<1$}{suffix}", "report", 229 - suffix.len());
        let rows = [
            ("its name is complete", "report.tmp".to_owned(), true),
            ("complete, and no temp", "report.doc".into(), false),
            ("its name may have been cut", long(".tmp"), true),
            ("cut, original unknown", long(".doc"), true),
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
                (Ok(Some(Recovered::Quarantined(stored))), true) => {
                    let names: Vec<_> = stored.iter().map(|one| &one.name).collect();
                    assert_eq!(names, [&*claim], "{what}");
                    assert_eq!(claim.len(), 255, "{what}");
                }
                _ => panic!("{what}: {recovered:?}"),
            }
            assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1, "{what}");
        }
    });
}

/// A file that a user restored is kept, even under such a name.
#[test]
fn a_restored_file_named_like_a_claim_is_kept() {
    in_own_process(ALL_USERS, || {
        let claim = format!(".orphand-0123456789abcdef-{TEMP}");
        for marked in [true, false] {
            let fixture = Fixture::new();
            let at = fixture.dir.join(&claim);
            fs::rename(&fixture.temp, &at).unwrap();
            if marked {
                let file = File::open(&at).unwrap();
                let seen = dir::observe_fd(file.as_fd()).unwrap().fingerprint;
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

/// The conditions for a quarantine. If no quarantine is possible, a sole copy is kept.
#[test]
fn a_foreign_quarantine_is_not_used() {
    in_own_process(ALL_USERS, || {
        type Make = fn(&Fixture);
        let makes: [(&str, Make); 6] = [
            ("open to its group", |fixture| {
                make_quarantine(fixture, 0o750)
            }),
            ("open to all users", |fixture| {
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
            ("another user's", |fixture| {
                make_quarantine(fixture, 0o700);
                if rustix::process::geteuid().is_root() {
                    std::os::unix::fs::chown(fixture.quarantine(), Some(NOBODY), None).unwrap();
                } else {
                    // An ordinary user cannot change the owner of a folder.
                    fs::set_permissions(fixture.quarantine(), fs::Permissions::from_mode(0o707))
                        .unwrap();
                }
            }),
        ];
        for (name, make) in makes {
            let fixture = Fixture::new().with_sole_copy();
            make(&fixture);
            // Also if the look found that a quarantine is possible.
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

/// A claim does not get its name back beside a companion that was created in the meantime: that may be the log of another
/// file.
#[test]
fn a_claim_is_not_put_back_beside_a_companion() {
    in_own_process(ALL_USERS, || {
        for has_companion in [true, false] {
            let fixture = Fixture::new();
            let claim = format!(".orphand-0123456701234567-{TEMP}");
            fs::rename(&fixture.temp, fixture.dir.join(&claim)).unwrap();
            if has_companion {
                fs::write(fixture.dir.join(format!("{TEMP}-wal")), "of another file").unwrap();
            }
            match fixture.recover(&claim) {
                Ok(Some(Recovered::PutBack(_))) if !has_companion => {}
                Ok(Some(Recovered::Quarantined(_))) if has_companion => {}
                recovered => panic!("{recovered:?}"),
            }
            assert_eq!(fixture.copies(TEMP_CONTENT).len(), 1);
        }
    });
}
