//! Verdicts on real files, through looks and all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use orphand::decide::judge::{Reason, Verdict};
use orphand::decide::observation::Kind;
use orphand::decide::policy::{Closed, Open, Policy, SoleCopy};
use orphand::decide::temp_name::Names;
use orphand::event::Event;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::look;
use orphand::reap::{Outcome, Reaper, Step};

use crate::fixture::*;

#[track_caller]
fn stays(fixture: &Fixture, want: Reason) {
    match fixture.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want),
        event => panic!("{event:?}"),
    }
    fixture.has_only(OLD, &fixture.temp, "");
}

/// What a person brought back stays until somebody writes to it.
#[test]
fn restored() {
    use std::os::fd::AsFd;
    alone(EVERYBODY, || {
        let fixture = Fixture::new();
        let file = File::options().append(true).open(&fixture.temp).unwrap();
        let seen = look::observe_fd(file.as_fd()).unwrap();
        RestoreMarks::new(None)
            .put(file.as_fd(), &seen.fingerprint)
            .unwrap();
        drop(file);
        stays(&fixture, Reason::Restored);
        let mut file = File::options().append(true).open(&fixture.temp).unwrap();
        file.write_all(b", and more").unwrap();
        drop(file);
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
    });
}

/// Whoever brings a verdict of their own is judged again where it counts.
#[test]
fn too_young() {
    alone(EVERYBODY, || {
        let fixture = Fixture::new();
        let mut candidate = fixture.candidate(Verdict::Reap);
        candidate.temp_info.quiet = GRACE / 2;
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(
            matches!(outcome, Outcome::Kept(Reason::Young)),
            "{outcome:?}"
        );
        fixture.has_only(OLD, &fixture.temp, "");
    });
}

/// The rule that it was looked at by no longer names it.
#[test]
fn not_named_any_more() {
    alone(EVERYBODY, || {
        let fixture = Fixture::new();
        let candidate = fixture.candidate(Verdict::Reap);
        let fixture = fixture.with_policy(Policy {
            names: Names::new(&["*.part"], &[] as &[&str]).unwrap(),
            ..Fixture::policy()
        });
        let outcome = fixture.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Settled), "{outcome:?}");
        fixture.has_only(OLD, &fixture.temp, "");
    });
}

/// Nobody holds it, so it was closed; and such a one is left alone by this rule.
#[test]
fn settled_by_a_close() {
    alone(EVERYBODY, || {
        if !orphand::watch::CLOSE_EVENTS {
            return;
        }
        let fixture = Fixture::new().with_policy(Policy {
            closed: Closed::Settled,
            open: Open::Reap,
            ..Fixture::policy()
        });
        stays(&fixture, Reason::Closed);
    });
}

/// The letter: what is open after its grace goes, whoever holds it.
#[test]
fn open_and_to_be_taken() {
    alone(EVERYBODY, || {
        let fixture = Fixture::new().with_policy(Policy {
            open: Open::Reap,
            ..Fixture::policy()
        });
        let _holder = File::open(&fixture.temp).unwrap();
        let event = fixture.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        fixture.has_only(WHOLE, &fixture.target, "");
        fixture.is_tidy("");

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
        // Its holder goes on writing, and nothing of that is lost.
        holder.write_all(b", and more").unwrap();
        assert_eq!(fixture.copies(&[OLD, b", and more"].concat()).len(), 1);
    });
}

/// Even then another file that took the name is not taken for it.
#[test]
fn open_and_to_be_taken_but_replaced() {
    alone(EVERYBODY, || {
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
                let stunt = Stunt::new(step, move || {
                    let other = temp.with_extension("new");
                    fs::write(&other, b"another file").unwrap();
                    fs::rename(&other, &temp).unwrap();
                });
                let candidate = fixture.candidate(verdict);
                let reaper = Reaper::new().with_hook(Some(stunt.hook));
                let outcome = fixture.reap_candidate(&reaper, candidate);
                fixture.has_only(
                    b"another file",
                    &fixture.temp,
                    &format!("{step:?}: {outcome:?}"),
                );
                fixture.is_tidy(&format!("{step:?}: {outcome:?}"));
            }
        }
    });
}

/// Nor one that is locked meanwhile: until its last step the protocol sees it, or the lock is not to be had.
/// (What it cannot keep anybody from is a POSIX lock to read in the last window.)
#[cfg(target_os = "linux")]
#[test]
fn open_and_to_be_taken_but_locked() {
    use rustix::fs::{FlockOperation, fcntl_lock, flock};
    use std::sync::mpsc::channel;
    type Lock = fn(&File) -> rustix::io::Result<()>;
    let ways: [(&str, Lock); 4] = [
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
    alone(EVERYBODY, || {
        for open in [Open::Reap, Open::Quarantine] {
            for (step, (way, lock)) in Step::ALL
                .into_iter()
                .flat_map(|step| ways.map(|way| (step, way)))
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
                let stunt = Stunt::new(step, move || {
                    let locked = lock(&holder);
                    // Held on to until the test ends.
                    has_it.send((holder, locked)).unwrap();
                });
                let verdict = match open {
                    Open::Reap => Verdict::Reap,
                    _ => Verdict::Quarantine(Some(Reason::InUse)),
                };
                let reaper = Reaper::new().with_hook(Some(stunt.hook));
                let outcome = fixture.reap_candidate(&reaper, fixture.candidate(verdict));
                let (_holder, locked) = it_has.recv().unwrap();
                let what = format!("{way} before {step:?}: {locked:?}, {outcome:?}");
                match locked {
                    Ok(()) if step == Step::Unlink => assert_eq!(way, "POSIX, shared", "{what}"),
                    Ok(()) => {
                        assert!(matches!(outcome, Outcome::Kept(Reason::Locked)), "{what}");
                        fixture.has_only(OLD, &fixture.temp, &what);
                    }
                    Err(error) => {
                        assert_eq!(error, rustix::io::Errno::AGAIN, "{what}");
                        let is_away = [Step::Wait, Step::ProveLast].contains(&step);
                        assert!(way != "POSIX, shared" && !is_away, "{what}");
                    }
                }
                fixture.is_tidy(&what);
            }
        }
    });
}

/// One's own file that one may not read: nothing can be asked, so nothing is proven.
#[test]
fn a_file_that_cannot_be_opened() {
    alone(EVERYBODY, || {
        if rustix::process::geteuid().is_root() {
            // Root opens everything.
            return;
        }
        // Nor can it be asked for the locks that would keep it where what is open may go.
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
fn the_only_copy() {
    alone(EVERYBODY, || {
        let keep = Fixture::new().with_sole_copy().with_policy(Policy {
            sole_copy: SoleCopy::Keep,
            ..Fixture::policy()
        });
        stays(&keep, Reason::SoleCopy);
        let empty_target = Fixture::new();
        File::create(&empty_target.target).unwrap();
        let event = empty_target.judge(TEMP);
        let reason = Some(Reason::SoleCopy);
        assert!(
            matches!(event, Event::Quarantined { reason: r, .. } if r == reason),
            "{event:?}"
        );
        assert_eq!(empty_target.copies(OLD).len(), 1);
        let empty = Fixture::new().with_sole_copy();
        File::create(&empty.temp).unwrap();
        let event = empty.judge(TEMP);
        assert!(
            matches!(event, Event::Reaped(_)),
            "an empty one is no copy: {event:?}"
        );
    });
}

/// `.config.tmp` may be all that there is of `.config`, whatever stands at `config`. With pid and uuid it is
/// known whose the dot is, and one file under both names is `config`.
#[test]
fn the_only_copy_beside_a_namesake() {
    alone(EVERYBODY, || {
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

/// Whatever is not a regular file is no temp, whatever its name: it is not even looked at for long.
#[test]
fn what_is_no_file() {
    alone(EVERYBODY, || {
        let fixture = Fixture::new();
        let dir = look::Dir::open_below(&fixture.root.path, None, BELOW.as_ref()).unwrap();
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
