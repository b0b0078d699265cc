//! Verdicts on real files, through looks and all.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use orphand::decide::judge::{Reason, Verdict};
use orphand::decide::observation::Kind;
use orphand::decide::policy::{Closed, Open, Policy, SoleCopy};
use orphand::decide::temp_name::Names;
use orphand::event::Event;
use orphand::evidence::restored::Marks;
use orphand::look;
use orphand::reap::{Outcome, Reaper, Step};

use crate::stage::*;

#[track_caller]
fn stays(stage: &Stage, want: Reason) {
    match stage.judge(TEMP) {
        Event::Kept { reason, .. } => assert_eq!(reason, want),
        event => panic!("{event:?}"),
    }
    stage.has_only(OLD, &stage.temp, "");
}

/// What a person brought back stays until somebody writes to it.
#[test]
fn restored() {
    use std::os::fd::AsFd;
    alone(EVERYBODY, || {
        let stage = Stage::new();
        let file = File::options().append(true).open(&stage.temp).unwrap();
        let seen = look::observe_fd(file.as_fd()).unwrap();
        Marks::new(None)
            .put(file.as_fd(), &seen.fingerprint)
            .unwrap();
        drop(file);
        stays(&stage, Reason::Restored);
        let mut file = File::options().append(true).open(&stage.temp).unwrap();
        file.write_all(b", and more").unwrap();
        drop(file);
        let event = stage.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
    });
}

/// Whoever brings a verdict of their own is judged again where it counts.
#[test]
fn too_young() {
    alone(EVERYBODY, || {
        let stage = Stage::new();
        let mut candidate = stage.candidate(Verdict::Reap);
        candidate.suspect.quiet = GRACE / 2;
        let outcome = stage.reap_candidate(&Reaper::new(), candidate);
        assert!(
            matches!(outcome, Outcome::Kept(Reason::Young)),
            "{outcome:?}"
        );
        stage.has_only(OLD, &stage.temp, "");
    });
}

/// The rule that it was looked at by no longer names it.
#[test]
fn not_named_any_more() {
    alone(EVERYBODY, || {
        let stage = Stage::new();
        let candidate = stage.candidate(Verdict::Reap);
        let stage = stage.with_policy(Policy {
            names: Names::new(&["*.part"], &[] as &[&str]).unwrap(),
            ..Stage::policy()
        });
        let outcome = stage.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Settled), "{outcome:?}");
        stage.has_only(OLD, &stage.temp, "");
    });
}

/// Nobody holds it, so it was closed; and such a one is left alone by this rule.
#[test]
fn settled_by_a_close() {
    alone(EVERYBODY, || {
        if !orphand::watch::CLOSE_EVENTS {
            return;
        }
        let stage = Stage::new().with_policy(Policy {
            closed: Closed::Settled,
            open: Open::Reap,
            ..Stage::policy()
        });
        stays(&stage, Reason::Closed);
    });
}

/// The letter: what is open after its grace goes, whoever holds it.
#[test]
fn open_and_to_be_taken() {
    alone(EVERYBODY, || {
        let stage = Stage::new().with_policy(Policy {
            open: Open::Reap,
            ..Stage::policy()
        });
        let _holder = File::open(&stage.temp).unwrap();
        let event = stage.judge(TEMP);
        assert!(matches!(event, Event::Reaped(_)), "{event:?}");
        stage.has_only(WHOLE, &stage.target, "");
        stage.is_tidy("");

        let stage = Stage::new().with_policy(Policy {
            open: Open::Quarantine,
            ..Stage::policy()
        });
        let mut holder = File::options().append(true).open(&stage.temp).unwrap();
        let event = stage.judge(TEMP);
        let reason = Some(Reason::InUse);
        assert!(
            matches!(event, Event::Quarantined { reason: r, .. } if r == reason),
            "{event:?}"
        );
        // Its holder goes on writing, and nothing of that is lost.
        holder.write_all(b", and more").unwrap();
        assert_eq!(stage.copies(&[OLD, b", and more"].concat()).len(), 1);
    });
}

/// Even then another file that took the name is not taken for it.
#[test]
fn open_and_to_be_taken_but_replaced() {
    alone(EVERYBODY, || {
        for open in [Open::Reap, Open::Quarantine] {
            for step in Step::ALL {
                let stage = Stage::new().with_policy(Policy {
                    open,
                    ..Stage::policy()
                });
                let _holder = File::open(&stage.temp).unwrap();
                let verdict = match open {
                    Open::Reap => Verdict::Reap,
                    _ => Verdict::Quarantine(Some(Reason::InUse)),
                };
                let temp = stage.temp.clone();
                let stunt = Stunt::new(step, move || {
                    let other = temp.with_extension("new");
                    fs::write(&other, b"another file").unwrap();
                    fs::rename(&other, &temp).unwrap();
                });
                let candidate = stage.candidate(verdict);
                let reaper = Reaper::new().with_hook(Some(stunt.hook));
                let outcome = stage.reap_candidate(&reaper, candidate);
                stage.has_only(
                    b"another file",
                    &stage.temp,
                    &format!("{step:?}: {outcome:?}"),
                );
                stage.is_tidy(&format!("{step:?}: {outcome:?}"));
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
                let stage = Stage::new().with_policy(Policy {
                    open,
                    ..Stage::policy()
                });
                let holder = File::options()
                    .read(true)
                    .append(true)
                    .open(&stage.temp)
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
                let outcome = stage.reap_candidate(&reaper, stage.candidate(verdict));
                let (_holder, locked) = it_has.recv().unwrap();
                let what = format!("{way} before {step:?}: {locked:?}, {outcome:?}");
                match locked {
                    Ok(()) if step == Step::Unlink => assert_eq!(way, "POSIX, shared", "{what}"),
                    Ok(()) => {
                        assert!(matches!(outcome, Outcome::Kept(Reason::Locked)), "{what}");
                        stage.has_only(OLD, &stage.temp, &what);
                    }
                    Err(error) => {
                        assert_eq!(error, rustix::io::Errno::AGAIN, "{what}");
                        let is_away = [Step::Breathe, Step::ProveLast].contains(&step);
                        assert!(way != "POSIX, shared" && !is_away, "{what}");
                    }
                }
                stage.is_tidy(&what);
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
            let stage = Stage::new().with_policy(Policy {
                open,
                ..Stage::policy()
            });
            fs::set_permissions(&stage.temp, fs::Permissions::from_mode(0o000)).unwrap();
            match stage.judge(TEMP) {
                Event::Kept { reason, .. } => assert_eq!(reason, Reason::CannotTell, "{open:?}"),
                event => panic!("{open:?}: {event:?}"),
            }
            assert!(stage.temp.exists());
        }
    });
}

#[test]
fn the_only_copy() {
    alone(EVERYBODY, || {
        let keep = Stage::new().with_sole_copy().with_policy(Policy {
            sole_copy: SoleCopy::Keep,
            ..Stage::policy()
        });
        stays(&keep, Reason::SoleCopy);
        let empty_target = Stage::new();
        File::create(&empty_target.target).unwrap();
        let event = empty_target.judge(TEMP);
        let reason = Some(Reason::SoleCopy);
        assert!(
            matches!(event, Event::Quarantined { reason: r, .. } if r == reason),
            "{event:?}"
        );
        assert_eq!(empty_target.copies(OLD).len(), 1);
        let empty = Stage::new().with_sole_copy();
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
            let stage = Stage::new();
            let temp = stage.dir.join(&name);
            fs::rename(&stage.temp, &temp).unwrap();
            if let Some(beside) = beside {
                fs::copy(&stage.target, stage.dir.join(beside)).unwrap();
            }
            if is_linked {
                fs::remove_file(&stage.target).unwrap();
                fs::hard_link(&temp, &stage.target).unwrap();
            }
            let event = stage.judge(&name);
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
        let stage = Stage::new();
        let dir = look::Dir::open_below(&stage.root.path, None, BELOW.as_ref()).unwrap();
        let mut candidate = stage.candidate(Verdict::Reap);
        fs::remove_file(&stage.temp).unwrap();
        fs::create_dir(&stage.temp).unwrap();
        let seen = dir.observe(TEMP.as_ref()).unwrap().unwrap();
        assert_eq!(seen.fingerprint.kind, Kind::Dir);
        candidate.suspect.expected = Some(seen.fingerprint);
        let outcome = stage.reap_candidate(&Reaper::new(), candidate);
        assert!(matches!(outcome, Outcome::Kept(_)), "{outcome:?}");
        assert!(stage.temp.is_dir());
    });
}
