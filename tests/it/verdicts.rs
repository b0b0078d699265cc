//! Verdicts on real files, including the looks.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use orphand::core::event::Event;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::observation::Kind;
use orphand::core::policy::{Closed, Open, Policy, SoleCopy};
use orphand::core::temp_name::Names;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::fs::dir;
use orphand::reap::{Outcome, Reaper, Step};

use crate::fixture::*;

#[track_caller]
fn assert_kept(fixture: &Fixture, want: Reason) {
    match fixture.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want),
        event => panic!("{event:?}"),
    }
    fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
}

/// A restored file is kept until a process writes to it.
#[test]
fn a_restored_temp_is_kept_until_written() {
    use std::os::fd::AsFd;
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let file = File::options().append(true).open(&fixture.temp).unwrap();
        let seen = dir::observe_fd(file.as_fd()).unwrap();
        RestoreMarks::new(None)
            .put(file.as_fd(), &seen.fingerprint)
            .unwrap();
        drop(file);
        assert_kept(&fixture, Reason::Restored);
        let mut file = File::options().append(true).open(&fixture.temp).unwrap();
        file.write_all(b", and more").unwrap();
        drop(file);
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
    });
}

/// A candidate with a given verdict is judged again before it is removed.
#[test]
fn a_young_candidate_is_kept() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let mut candidate = fixture.candidate(Verdict::Reap);
        candidate.temp_info.quiet = GRACE / 2;
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(
            matches!(outcome, Outcome::Kept(Reason::Young)),
            "{outcome:?}"
        );
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
    });
}

/// The rule that named the temp at the look does not name it any more.
#[test]
fn a_candidate_that_the_rule_no_longer_names_is_kept() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let candidate = fixture.candidate(Verdict::Reap);
        let fixture = fixture.with_policy(Policy {
            names: Names::new(&["*.part"], &[] as &[&str]).unwrap(),
            ..Fixture::policy()
        });
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Settled), "{outcome:?}");
        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, "");
    });
}

/// No process holds the temp, so it was closed; this rule keeps closed temps.
#[test]
fn a_closed_temp_is_kept_where_a_close_settles() {
    in_own_process(ALL_USERS, || {
        if !orphand::watch::CLOSE_EVENTS {
            return;
        }
        let fixture = Fixture::new().with_policy(Policy {
            closed: Closed::Settled,
            open: Open::Reap,
            ..Fixture::policy()
        });
        assert_kept(&fixture, Reason::Closed);
    });
}

/// With `open = "reap"`, a temp that is open after its grace is removed, whichever process holds it.
#[test]
fn an_open_temp_is_taken_if_the_rule_says_so() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new().with_policy(Policy {
            open: Open::Reap,
            ..Fixture::policy()
        });
        let _holder = File::open(&fixture.temp).unwrap();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        fixture.assert_only_at(TARGET_CONTENT, &fixture.target, "");
        fixture.assert_no_leftovers("");

        let fixture = Fixture::new().with_policy(Policy {
            open: Open::Quarantine,
            ..Fixture::policy()
        });
        let mut holder = File::options().append(true).open(&fixture.temp).unwrap();
        let event = fixture.judge(TEMP);
        let reason = Some(Reason::InUse);
        assert!(
            matches!(event, Event::Quarantined { reason: r, .. } if r == reason),
            "{event:?}"
        );
        // Its holder continues to write, and no byte is lost.
        holder.write_all(b", and more").unwrap();
        assert_eq!(
            fixture
                .copies(&[TEMP_CONTENT, b", and more"].concat())
                .len(),
            1
        );
    });
}

/// Even then another file that has taken the name is not removed.
#[test]
fn a_replacement_of_an_open_temp_is_kept() {
    in_own_process(ALL_USERS, || {
        for open in [Open::Reap, Open::Quarantine] {
            for step in Step::ALL {
                let fixture = Fixture::new().with_policy(Policy {
                    open,
                    ..Fixture::policy()
                });
                let _holder = File::open(&fixture.temp).unwrap();
                let verdict = match open {
                    Open::Reap => Verdict::Reap,
                    _ => Verdict::Quarantine(Some(Reason::InUse)),
                };
                let temp = fixture.temp.clone();
                let at_step = AtStep::new(step, move || {
                    let other = temp.with_extension("new");
                    fs::write(&other, b"another file").unwrap();
                    fs::rename(&other, &temp).unwrap();
                });
                let candidate = fixture.candidate(verdict);
                let reaper = Reaper::new().with_hook(Some(at_step.hook));
                let outcome = fixture.reap_candidate(&reaper, candidate);
                fixture.assert_only_at(
                    b"another file",
                    &fixture.temp,
                    &format!("{step:?}: {outcome:?}"),
                );
                fixture.assert_no_leftovers(&format!("{step:?}: {outcome:?}"));
            }
        }
    });
}

/// Nor a file that is locked at any step: until the last step the protocol detects the lock, or the lock is
/// refused. (The protocol cannot prevent a POSIX read lock in the last window.)
#[cfg(target_os = "linux")]
#[test]
fn a_locked_open_temp_is_kept() {
    use rustix::fs::{FlockOperation, fcntl_lock, flock};
    use std::sync::mpsc::channel;
    type Lock = fn(&File) -> rustix::io::Result<()>;
    let locks: [(&str, Lock); 4] = [
        ("flock", |file| {
            flock(file, FlockOperation::NonBlockingLockExclusive)
        }),
        ("flock, shared", |file| {
            flock(file, FlockOperation::NonBlockingLockShared)
        }),
        ("POSIX", |file| {
            fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)
        }),
        ("POSIX, shared", |file| {
            fcntl_lock(file, FlockOperation::NonBlockingLockShared)
        }),
    ];
    in_own_process(ALL_USERS, || {
        for open in [Open::Reap, Open::Quarantine] {
            for (step, (kind, lock)) in Step::ALL
                .into_iter()
                .flat_map(|step| locks.map(|kind| (step, kind)))
            {
                let fixture = Fixture::new().with_policy(Policy {
                    open,
                    ..Fixture::policy()
                });
                let holder = File::options()
                    .read(true)
                    .append(true)
                    .open(&fixture.temp)
                    .unwrap();
                let (has_it, it_has) = channel();
                let at_step = AtStep::new(step, move || {
                    let locked = lock(&holder);
                    // Kept open until the test ends.
                    has_it.send((holder, locked)).unwrap();
                });
                let verdict = match open {
                    Open::Reap => Verdict::Reap,
                    _ => Verdict::Quarantine(Some(Reason::InUse)),
                };
                let reaper = Reaper::new().with_hook(Some(at_step.hook));
                let outcome = fixture.reap_candidate(&reaper, fixture.candidate(verdict));
                let (_holder, locked) = it_has.recv().unwrap();
                let what = format!("{kind} before {step:?}: {locked:?}, {outcome:?}");
                match locked {
                    Ok(()) if step == Step::Unlink => assert_eq!(kind, "POSIX, shared", "{what}"),
                    Ok(()) => {
                        assert!(matches!(outcome, Outcome::Kept(Reason::Locked)), "{what}");
                        fixture.assert_only_at(TEMP_CONTENT, &fixture.temp, &what);
                    }
                    Err(error) => {
                        assert_eq!(error, rustix::io::Errno::AGAIN, "{what}");
                        let is_away = [Step::Wait, Step::ProveLast].contains(&step);
                        assert!(kind != "POSIX, shared" && !is_away, "{what}");
                    }
                }
                fixture.assert_no_leftovers(&what);
            }
        }
    });
}

/// A file of our own user without read permission: nothing can be proven about it.
#[test]
fn an_unreadable_temp_is_kept() {
    in_own_process(ALL_USERS, || {
        if rustix::process::geteuid().is_root() {
            // Root opens everything.
            return;
        }
        // Nor can its locks be queried, which would keep it where open temps may be removed.
        for open in [Open::Keep, Open::Quarantine, Open::Reap] {
            let fixture = Fixture::new().with_policy(Policy {
                open,
                ..Fixture::policy()
            });
            fs::set_permissions(&fixture.temp, fs::Permissions::from_mode(0o000)).unwrap();
            match fixture.judge(TEMP) {
                Event::Kept { reason, .. } => assert_eq!(reason, Reason::CannotTell, "{open:?}"),
                event => panic!("{open:?}: {event:?}"),
            }
            assert!(fixture.temp.exists());
        }
    });
}

#[test]
fn the_only_copy_is_not_deleted() {
    in_own_process(ALL_USERS, || {
        let keep = Fixture::new().with_sole_copy().with_policy(Policy {
            sole_copy: SoleCopy::Keep,
            ..Fixture::policy()
        });
        assert_kept(&keep, Reason::SoleCopy);
        let empty_target = Fixture::new();
        File::create(&empty_target.target).unwrap();
        let event = empty_target.judge(TEMP);
        let reason = Some(Reason::SoleCopy);
        assert!(
            matches!(event, Event::Quarantined { reason: r, .. } if r == reason),
            "{event:?}"
        );
        assert_eq!(empty_target.copies(TEMP_CONTENT).len(), 1);
        let empty = Fixture::new().with_sole_copy();
        File::create(&empty.temp).unwrap();
        let event = empty.judge(TEMP);
        assert!(
            matches!(event, Event::Reaped(_)),
            "an empty one is no copy: {event:?}"
        );
    });
}

/// `.config.tmp` may be the only copy of `.config`, whatever exists at `config`. With a pid and a uuid, the
/// owner of the dot is known. One file under both names is `config`.
#[test]
fn a_file_without_the_dot_is_no_copy_of_a_dotted_one() {
    in_own_process(ALL_USERS, || {
        let uuid = "4f1c2d3e-5a6b-4c7d-8e9f-0a1b2c3d4e5f";
        let hidden = format!(".{TARGET}");
        for (name, beside, is_linked, moved) in [
            (format!("{hidden}.tmp"), None, false, true),
            (format!("{hidden}.tmp"), Some(&hidden), false, false),
            (format!("{hidden}.tmp"), None, true, false),
            (format!("{hidden}.{uuid}.tmp"), None, false, true),
            (format!("{hidden}.{uuid}.tmp"), Some(&hidden), false, false),
            (format!("{hidden}.4194000.{uuid}.tmp"), None, false, false),
            (format!("{TARGET}.tmp"), None, false, false),
        ] {
            let fixture = Fixture::new();
            let temp = fixture.dir.join(&name);
            fs::rename(&fixture.temp, &temp).unwrap();
            if let Some(beside) = beside {
                fs::copy(&fixture.target, fixture.dir.join(beside)).unwrap();
            }
            if is_linked {
                fs::remove_file(&fixture.target).unwrap();
                fs::hard_link(&temp, &fixture.target).unwrap();
            }
            let event = fixture.judge(&name);
            let reason = Some(Reason::SoleCopy);
            let was_moved = matches!(event, Event::Quarantined { reason: r, .. } if r == reason);
            let was_reaped = matches!(event, Event::Reaped(_));
            assert_eq!(
                (was_moved, was_reaped),
                (moved, !moved),
                "{name}: {event:?}"
            );
        }
    });
}

/// Only a regular file can be a temp, whatever its name.
#[test]
fn a_directory_is_kept() {
    in_own_process(ALL_USERS, || {
        let fixture = Fixture::new();
        let dir = dir::Dir::open_below(&fixture.root.path, None, SUBDIR.as_ref()).unwrap();
        let mut candidate = fixture.candidate(Verdict::Reap);
        fs::remove_file(&fixture.temp).unwrap();
        fs::create_dir(&fixture.temp).unwrap();
        let seen = dir.observe(TEMP.as_ref()).unwrap().unwrap();
        assert_eq!(seen.fingerprint.kind, Kind::Dir);
        candidate.temp_info.expected = Some(seen.fingerprint);
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Kept(_)), "{outcome:?}");
        assert!(fixture.temp.is_dir());
    });
}
