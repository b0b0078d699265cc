//! The verdicts on a temp that passes all gates, and on one that fails a single one.

use std::time::Duration;

use super::*;
use crate::core::observation::{Fingerprint, Kind, Observation, UseState};
use crate::core::policy::{Closed, Graces, Open, PID_VALIDITY, SoleCopy};
use crate::core::reserved::Reserved;
use crate::core::time::Wall;

const GRACE: Duration = Duration::from_secs(300);

/// A temp that passes every gate.
fn orphan() -> Evidence {
    let fingerprint = Fingerprint {
        dev: 1,
        ino: 7,
        kind: Kind::File,
        size: 10,
        mtime: Wall::default(),
        ctime: Wall::default(),
        btime: None,
        links: 1,
        uid: 1000,
    };
    Evidence {
        observation: Observation {
            fingerprint,
            mode: 0o100_600,
            mount: Some(3),
            mount_root: false,
            protected: false,
            dataless: false,
            allocated: 4096,
        },
        expected: Some(fingerprint),
        quiet: GRACE,
        grace: GRACE,
        unused: GRACE,
        dir: DirProperties {
            dev: 1,
            mount: Some(3),
            file_system: "ext4".into(),
            lease_coverage: LeaseCoverage::OpensAndMaps,
            dates: Dates::Fine,
            quarantine: true,
        },
        our_uid: 1000,
        writer: Writer::Gone(4711),
        closed: false,
        use_state: UseState::Unused,
        opened: true,
        mappings_examined: false,
        companion_bytes: 0,
        target: Target::Whole { same_file: false },
        discarded: false,
        by_shape: false,
        superseded: false,
        random_name: true,
        has_attributes: false,
        restored: false,
        reserved: None,
        guard: None,
    }
}

fn policy() -> Policy {
    Policy {
        grace: Graces::both(GRACE),
        ..Policy::default()
    }
}

fn settled() -> Policy {
    Policy {
        closed: Closed::Settled,
        open: Open::Reap,
        ..policy()
    }
}

fn with(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = orphan();
    change(&mut evidence);
    evidence
}

#[track_caller]
fn check(policy: &Policy, evidence: &Evidence, want: Verdict) {
    assert_eq!(judge(evidence, policy), want, "{evidence:#?}");
}

#[test]
fn an_orphan_is_removed() {
    check(&policy(), &orphan(), Verdict::Reap);
}

/// So this evidence need not be gathered for a temp that is too young or has a reserved name.
#[test]
fn the_later_evidence_does_not_count_for_a_young_or_reserved_temp() {
    let young: fn(&mut Evidence) = |e| e.quiet = GRACE - Duration::from_nanos(1);
    let reserved: fn(&mut Evidence) = |e| e.reserved = Some(Reserved::WasTarget);
    let writers = [Writer::NoPid, Writer::Alive(1), Writer::Unknown(1)];
    let uses = [UseState::Unknown, UseState::InUse, UseState::Locked];
    let targets = [Target::Unknown, Target::Absent, Target::Empty];
    for (change, reason) in [(young, Reason::Young), (reserved, Reason::Reserved)] {
        for (writer, use_state) in writers.into_iter().zip(uses) {
            for (target, opened) in targets.into_iter().zip([true, false, true]) {
                let evidence = with(|e| {
                    change(e);
                    (e.writer, e.use_state) = (writer, use_state);
                    (e.target, e.opened) = (target, opened);
                });
                for policy in [policy(), settled()] {
                    check(&policy, &evidence, Verdict::Keep(reason));
                }
            }
        }
    }
}

#[test]
fn each_gate_alone_keeps() {
    let keep = Verdict::Keep;
    let cases: [(&str, Policy, Evidence, Verdict); 30] = [
        (
            "restored",
            policy(),
            with(|e| e.restored = true),
            keep(Reason::Restored),
        ),
        (
            "reserved",
            policy(),
            with(|e| e.reserved = Some(Reserved::WasTarget)),
            keep(Reason::Reserved),
        ),
        (
            "young",
            policy(),
            with(|e| e.quiet = GRACE - Duration::from_nanos(1)),
            keep(Reason::Young),
        ),
        (
            "changed",
            policy(),
            with(|e| e.observation.fingerprint.size = 11),
            keep(Reason::Changed),
        ),
        (
            "not regular",
            policy(),
            with(|e| {
                e.observation.fingerprint.kind = Kind::Other;
                e.expected = None;
            }),
            keep(Reason::NotRegular),
        ),
        (
            "a bind mount of the same file system",
            policy(),
            with(|e| e.observation.mount = Some(4)),
            keep(Reason::OtherMount),
        ),
        (
            "the root of a subvolume",
            policy(),
            with(|e| e.observation.mount_root = true),
            keep(Reason::OtherMount),
        ),
        (
            "another device, without mount ids",
            policy(),
            with(|e| {
                e.observation.mount = None;
                e.dir.dev = 2;
            }),
            keep(Reason::OtherMount),
        ),
        (
            "immutable",
            policy(),
            with(|e| e.observation.protected = true),
            keep(Reason::Protected),
        ),
        (
            "dataless",
            policy(),
            with(|e| e.observation.dataless = true),
            keep(Reason::Protected),
        ),
        (
            "another hard link",
            policy(),
            with(|e| {
                e.observation.fingerprint.links = 2;
                e.expected = None;
            }),
            keep(Reason::HardLinked),
        ),
        (
            "a third link beside the target",
            policy(),
            with(|e| {
                e.observation.fingerprint.links = 3;
                e.expected = None;
                e.target = Target::Whole { same_file: true };
            }),
            keep(Reason::HardLinked),
        ),
        (
            "a network file system",
            policy(),
            with(|e| {
                e.dir.lease_coverage = LeaseCoverage::Unknown;
                e.dir.file_system = "nfs".into();
            }),
            keep(Reason::NetworkFs),
        ),
        (
            "another owner",
            policy(),
            with(|e| e.our_uid = 1001),
            keep(Reason::ForeignOwner),
        ),
        (
            "a running writer",
            policy(),
            with(|e| e.writer = Writer::Alive(4711)),
            keep(Reason::WriterAlive),
        ),
        (
            "a running writer in a container",
            policy(),
            with(|e| {
                e.writer = Writer::InContainer(7);
                e.unused = PID_VALIDITY - Duration::from_nanos(1);
            }),
            keep(Reason::WriterAlive),
        ),
        (
            "containers that cannot be checked",
            policy(),
            with(|e| {
                e.writer = Writer::Unknown(7);
                e.unused = PID_VALIDITY - Duration::from_nanos(1);
            }),
            keep(Reason::WriterAlive),
        ),
        (
            "a close was reported",
            settled(),
            with(|e| {
                e.closed = true;
                e.use_state = UseState::InUse;
            }),
            keep(Reason::Closed),
        ),
        ("found closed", settled(), orphan(), keep(Reason::Closed)),
        (
            "locked",
            policy(),
            with(|e| e.use_state = UseState::Locked),
            keep(Reason::Locked),
        ),
        (
            "locked, with open = reap",
            Policy {
                open: Open::Reap,
                ..policy()
            },
            with(|e| e.use_state = UseState::Locked),
            keep(Reason::Locked),
        ),
        (
            "locks cannot be checked, with open = quarantine",
            Policy {
                open: Open::Quarantine,
                ..policy()
            },
            with(|e| {
                e.use_state = UseState::InUse;
                e.opened = false;
            }),
            keep(Reason::CannotTell),
        ),
        (
            "locks cannot be checked, with open = reap",
            Policy {
                open: Open::Reap,
                ..policy()
            },
            with(|e| {
                e.use_state = UseState::Unknown;
                e.opened = false;
            }),
            keep(Reason::CannotTell),
        ),
        (
            "open, and locks cannot be checked",
            policy(),
            with(|e| {
                e.use_state = UseState::InUse;
                e.opened = false;
            }),
            keep(Reason::InUse),
        ),
        (
            "open",
            policy(),
            with(|e| e.use_state = UseState::InUse),
            keep(Reason::InUse),
        ),
        (
            "not proven to be unused",
            policy(),
            with(|e| e.use_state = UseState::Unknown),
            keep(Reason::CannotTell),
        ),
        (
            "not proven to be unused, with open = quarantine",
            Policy {
                open: Open::Quarantine,
                ..policy()
            },
            with(|e| e.use_state = UseState::Unknown),
            keep(Reason::CannotTell),
        ),
        (
            "a sole copy, with sole_copy = keep",
            Policy {
                sole_copy: SoleCopy::Keep,
                ..policy()
            },
            with(|e| e.target = Target::Absent),
            keep(Reason::SoleCopy),
        ),
        (
            "a sole copy, without a quarantine",
            policy(),
            with(|e| {
                e.target = Target::Unknown;
                e.dir.quarantine = false;
            }),
            keep(Reason::NoQuarantine),
        ),
        (
            "action = quarantine, without a quarantine",
            Policy {
                action: Action::Quarantine,
                ..policy()
            },
            with(|e| e.dir.quarantine = false),
            keep(Reason::NoQuarantine),
        ),
    ];
    for (name, policy, evidence, want) in cases {
        assert_eq!(judge(&evidence, &policy), want, "{name}");
    }
}

#[test]
fn a_temp_that_must_not_be_destroyed_is_moved() {
    let moved = |reason| Verdict::Quarantine(Some(reason));
    let sole = with(|e| e.target = Target::Absent);
    check(&policy(), &sole, moved(Reason::SoleCopy));
    let foreign = with(|e| e.target = Target::Foreign);
    check(&policy(), &foreign, moved(Reason::SoleCopy));
    let unknown = with(|e| e.target = Target::Unknown);
    check(&policy(), &unknown, moved(Reason::SoleCopy));
    let overlay = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
    check(&policy(), &overlay, moved(Reason::CannotTell));
    let action = Policy {
        action: Action::Quarantine,
        ..policy()
    };
    check(&action, &orphan(), Verdict::Quarantine(None));
    let held = with(|e| e.use_state = UseState::InUse);
    let move_open = Policy {
        open: Open::Quarantine,
        ..policy()
    };
    check(&move_open, &held, moved(Reason::InUse));
}

/// No setting weakens a guard file.
#[test]
fn a_guard_file_keeps_all_temps() {
    let guard = |state| {
        with(|e| {
            e.guard = Some(GuardFile {
                path: "LOCK".into(),
                state,
                seen: None,
            });
        })
    };
    let reap = Policy {
        open: Open::Reap,
        sole_copy: SoleCopy::Reap,
        ..policy()
    };
    for policy in [policy(), reap] {
        for (state, want) in [
            (GuardState::Unused, Verdict::Reap),
            (GuardState::Missing, Verdict::Reap),
            (GuardState::InUse, Verdict::Keep(Reason::InUse)),
            (GuardState::Unknown, Verdict::Keep(Reason::CannotTell)),
        ] {
            check(&policy, &guard(state), want);
        }
    }
}

/// An empty file with a fixed name may be a flag or the claim of a lock.
#[test]
fn an_empty_file_with_a_fixed_name_is_removed_only_beside_its_target() {
    let moved = Verdict::Quarantine(Some(Reason::SoleCopy));
    let whole = Target::Whole { same_file: false };
    for (random_name, target, want) in [
        (true, Target::Absent, Verdict::Reap),
        (true, Target::Unknown, Verdict::Reap),
        (false, whole, Verdict::Reap),
        (false, Target::Absent, moved),
        (false, Target::Unknown, moved),
        (false, Target::Empty, moved),
        (false, Target::Foreign, moved),
    ] {
        let empty = with(|e| {
            e.observation.fingerprint.size = 0;
            e.expected = None;
            e.random_name = random_name;
            e.target = target;
        });
        check(&policy(), &empty, want);
    }
}

/// A temp of a writer that only replaces needs no target, but an existing target that does not count decides.
#[test]
fn a_discarded_temp_needs_no_target() {
    let moved = Verdict::Quarantine(Some(Reason::SoleCopy));
    let keep_sole = Policy {
        sole_copy: SoleCopy::Keep,
        ..policy()
    };
    for (target, is_removed) in [
        (Target::Unknown, true),
        (Target::Absent, true),
        (Target::Whole { same_file: false }, true),
        (Target::Empty, false),
        (Target::Unreadable, false),
        (Target::NotRegular(Kind::Dir), false),
        (Target::Link(LinkFault::Temp), false),
        (Target::Foreign, false),
        (Target::FarSmaller, false),
        (Target::Short, false),
    ] {
        let temp = |discarded| {
            with(|e| {
                e.target = target;
                e.discarded = discarded;
            })
        };
        let want = if is_removed { Verdict::Reap } else { moved };
        check(&policy(), &temp(true), want);
        let without = if target.counts() {
            Verdict::Reap
        } else {
            moved
        };
        check(&policy(), &temp(false), without);
        if is_removed {
            check(&keep_sole, &temp(true), Verdict::Reap);
        }
        let held = Evidence {
            use_state: UseState::InUse,
            ..temp(true)
        };
        check(&policy(), &held, Verdict::Keep(Reason::InUse));
        let removes_open = Policy {
            open: Open::Reap,
            ..policy()
        };
        // Its holder may still put it in place.
        if !target.counts() {
            check(&removes_open, &held, moved);
        }
    }
}

/// Better copies replace the target, and no other gate.
#[test]
fn a_superseded_temp_needs_no_target() {
    let keep_sole = Policy {
        sole_copy: SoleCopy::Keep,
        ..policy()
    };
    for target in [
        Target::Unknown,
        Target::Absent,
        Target::Empty,
        Target::Unreadable,
        Target::NotRegular(Kind::Dir),
        Target::Link(LinkFault::Dangling),
        Target::Link(LinkFault::Foreign),
        Target::Link(LinkFault::Writable),
        Target::Link(LinkFault::OtherMount),
        Target::Link(LinkFault::Temp),
        Target::Foreign,
        Target::FarSmaller,
        Target::Short,
    ] {
        let temp = |superseded| {
            with(|e| {
                e.target = target;
                e.superseded = superseded;
            })
        };
        check(
            &policy(),
            &temp(false),
            Verdict::Quarantine(Some(Reason::SoleCopy)),
        );
        check(&policy(), &temp(true), Verdict::Reap);
        check(&keep_sole, &temp(true), Verdict::Keep(Reason::SoleCopy));
        let held = Evidence {
            use_state: UseState::InUse,
            ..temp(true)
        };
        check(&policy(), &held, Verdict::Keep(Reason::InUse));
        let young = Evidence {
            quiet: GRACE - Duration::from_nanos(1),
            ..temp(true)
        };
        check(&policy(), &young, Verdict::Keep(Reason::Young));
        // Its holder may still write more than the better copies contain.
        let removes_open = Policy {
            open: Open::Reap,
            ..policy()
        };
        for use_state in [UseState::InUse, UseState::Unknown] {
            let held = Evidence {
                use_state,
                ..held.clone()
            };
            let moved = Verdict::Quarantine(Some(Reason::SoleCopy));
            check(&removes_open, &held, moved);
        }
    }
}

#[test]
fn exceptions_are_removed() {
    let empty = with(|e| {
        e.observation.fingerprint.size = 0;
        e.expected = None;
        e.target = Target::Absent;
    });
    check(&policy(), &empty, Verdict::Reap);
    let own_target = with(|e| {
        e.observation.fingerprint.links = 2;
        e.expected = None;
        e.target = Target::Whole { same_file: true };
    });
    check(&policy(), &own_target, Verdict::Reap);
    let root = with(|e| e.our_uid = 0);
    check(&policy(), &root, Verdict::Reap);
    let old_pid = with(|e| {
        e.writer = Writer::Alive(7);
        e.unused = PID_VALIDITY;
    });
    check(&policy(), &old_pid, Verdict::Reap);
    for writer in [Writer::InContainer(7), Writer::Unknown(7)] {
        let old_container_pid = with(|e| {
            e.writer = writer;
            e.unused = PID_VALIDITY;
        });
        check(&policy(), &old_container_pid, Verdict::Reap);
    }
    let examined = with(|e| {
        e.dir.lease_coverage = LeaseCoverage::OpensOnly;
        e.mappings_examined = true;
    });
    check(&policy(), &examined, Verdict::Reap);
    let trusted = Policy {
        trusted_file_systems: vec!["nfs".into()],
        ..policy()
    };
    let nfs = with(|e| {
        e.dir.lease_coverage = LeaseCoverage::Unknown;
        e.dir.file_system = "nfs".into();
    });
    check(&trusted, &nfs, Verdict::Reap);
}

#[test]
fn open_reap_removes_open_temps() {
    let open_reap = Policy {
        open: Open::Reap,
        ..policy()
    };
    for use_state in [UseState::InUse, UseState::Unknown, UseState::Unused] {
        check(
            &open_reap,
            &with(|e| e.use_state = use_state),
            Verdict::Reap,
        );
    }
    let unexamined = with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly);
    check(&open_reap, &unexamined, Verdict::Reap);
    check(
        &settled(),
        &with(|e| e.use_state = UseState::InUse),
        Verdict::Reap,
    );
}

#[test]
fn the_first_gate_that_keeps_gives_the_reason() {
    let failing_all = with(|e| {
        e.quiet = Duration::ZERO;
        e.observation.fingerprint.links = 4;
        e.our_uid = 5;
        e.writer = Writer::Alive(1);
        e.use_state = UseState::Locked;
        e.target = Target::Absent;
    });
    check(&policy(), &failing_all, Verdict::Keep(Reason::Young));
    let held_sole = with(|e| {
        e.use_state = UseState::InUse;
        e.target = Target::Absent;
    });
    check(&policy(), &held_sole, Verdict::Keep(Reason::InUse));
}

#[test]
fn reasons_have_distinct_words_and_bits() {
    let words: std::collections::HashSet<_> = Reason::ALL.map(Reason::as_str).into();
    assert_eq!(words.len(), Reason::ALL.len());
    let bits = Reason::ALL
        .iter()
        .fold(0, |bits, reason| bits | reason.bit());
    assert_eq!(bits.count_ones() as usize, Reason::ALL.len());
}

#[test]
fn every_gate_describes_its_evidence() {
    for gate in GATES {
        assert!(!gate.describe(&orphan()).is_empty(), "{}", gate.name);
        assert_eq!(
            gate.check(&orphan(), &policy()),
            GateResult::Pass,
            "{}",
            gate.name
        );
    }
}

/// `orphand explain` prints these descriptions, so they must not contradict the result of the gate.
#[test]
fn descriptions_match_the_evidence() {
    #[track_caller]
    fn assert_describes(gate: &str, evidence: &Evidence, end: &str) {
        let gate = GATES.iter().find(|g| g.name == gate).expect("a gate");
        let text = gate.describe(evidence);
        assert!(text.ends_with(end), "{}: {text:?}, not {end:?}", gate.name);
    }

    let mut superseded = orphan();
    superseded.target = Target::Absent;
    superseded.superseded = true;
    assert_describes(
        "not the only copy",
        &superseded,
        "are in the quarantine or are moved there first",
    );
    assert_describes("not restored", &orphan(), "no mark of a restored file");
    let restored = with(|e| e.restored = true);
    assert_describes("not restored", &restored, "has not changed since");
    assert_describes(
        "quiet for its grace",
        &orphan(),
        "quiet for 5 min; its grace is 5 min",
    );

    assert_describes(
        "unchanged",
        &orphan(),
        "the same at two looks: inode 7, 10 bytes",
    );
    let once = with(|e| e.expected = None);
    assert_describes("unchanged", &once, "one look: inode 7, 10 bytes");
    let grown = with(|e| e.observation.fingerprint.size = 11);
    assert_describes(
        "unchanged",
        &grown,
        "changed between two looks: inode 7, 11 bytes",
    );

    for (kind, word) in [
        (Kind::File, "regular file"),
        (Kind::Dir, "directory"),
        (Kind::Symlink, "symbolic link"),
        (Kind::Other, "a FIFO, a socket or a device"),
    ] {
        let other = with(|e| e.observation.fingerprint.kind = kind);
        assert_describes("regular file", &other, word);
    }

    let elsewhere = with(|e| e.observation.mount = None);
    let mounts = "the file is on a mount without an id, its directory on mount 3";
    assert_describes("same mount as its directory", &elsewhere, mounts);

    assert_describes(
        "not protected, data on this disk",
        &orphan(),
        "neither immutable nor append-only",
    );
    let immutable = with(|e| e.observation.protected = true);
    assert_describes(
        "not protected, data on this disk",
        &immutable,
        "immutable or append-only",
    );
    let dataless = with(|e| e.observation.dataless = true);
    assert_describes(
        "not protected, data on this disk",
        &dataless,
        "its data is not on this disk",
    );

    for (links, same_file, words) in [
        (1, false, "1 link"),
        (2, true, "2 links; the other one is its target"),
        (2, false, "2 links"),
        (3, true, "3 links"),
    ] {
        let linked = with(|e| {
            e.observation.fingerprint.links = links;
            e.target = Target::Whole { same_file };
        });
        assert_describes("one link", &linked, words);
    }

    assert_describes("supported file system", &orphan(), "file system ext4");
    let owner = "owned by uid 1000; orphand runs as uid 5";
    assert_describes(
        "same owner, or run as root",
        &with(|e| e.our_uid = 5),
        owner,
    );

    let pid = |writer, unused| {
        with(|e| {
            e.writer = writer;
            e.unused = unused;
        })
    };
    let just_before = PID_VALIDITY - Duration::from_nanos(1);
    for (writer, unused, words) in [
        (Writer::NoPid, GRACE, "no pid"),
        (
            Writer::Gone(7),
            GRACE,
            "no running process with pid 7 can have written it",
        ),
        (Writer::Alive(7), just_before, "pid 7 is running"),
        (
            Writer::Alive(7),
            PID_VALIDITY,
            "pid 7 is running, but the file has not been used for 24 h",
        ),
        (
            Writer::InContainer(7),
            just_before,
            "pid 7 of a container is running",
        ),
        (
            Writer::InContainer(7),
            PID_VALIDITY,
            "pid 7 of a container is running, but the file has not been used for 24 h",
        ),
        (
            Writer::Unknown(7),
            just_before,
            "pid 7 of a container may be running; this cannot be checked",
        ),
        (
            Writer::Unknown(7),
            PID_VALIDITY,
            "pid 7 of a container may be running, but the file has not been used for 24 h",
        ),
    ] {
        assert_describes("writer gone", &pid(writer, unused), words);
    }

    let close = |closed, use_state| {
        with(|e| {
            e.closed = closed;
            e.use_state = use_state;
        })
    };
    for (closed, use_state, words) in [
        (true, UseState::InUse, "a close was reported"),
        (false, UseState::Unused, "no process has it open"),
        (false, UseState::InUse, "no close was reported"),
    ] {
        assert_describes(
            "not ignored after a close",
            &close(closed, use_state),
            words,
        );
    }

    for (use_state, holder, leased) in [
        (
            UseState::Unused,
            "no process on this kernel has it open or mapped",
            "a conclusive answer",
        ),
        (
            UseState::InUse,
            "a process has it open or mapped",
            "a conclusive answer",
        ),
        (UseState::Locked, "a lock on it", "a conclusive answer"),
        (
            UseState::Unknown,
            "no process was found that has it open or mapped",
            "no conclusive answer",
        ),
    ] {
        let held = with(|e| e.use_state = use_state);
        let lock = match use_state {
            UseState::Unused | UseState::Locked => holder,
            UseState::InUse | UseState::Unknown => "locks are checked again before the removal",
        };
        assert_describes("not locked", &held, lock);
        assert_describes("not open or mapped", &held, holder);
        assert_describes("use state known", &held, leased);
    }

    let unseen = with(|e| {
        e.use_state = UseState::InUse;
        e.opened = false;
    });
    assert_describes("not locked", &unseen, "its locks cannot be checked");
    let unlocked = with(|e| e.opened = false);
    assert_describes("not locked", &unlocked, "has it open or mapped");

    for (reach, examined, words) in [
        (
            LeaseCoverage::OpensAndMaps,
            false,
            "the proof covers mappings on this file system",
        ),
        (LeaseCoverage::OpensOnly, true, "and none has it mapped"),
        (
            LeaseCoverage::OpensOnly,
            false,
            "not every process could be examined for mappings",
        ),
    ] {
        let mapped = with(|e| {
            e.dir.lease_coverage = reach;
            e.mappings_examined = examined;
        });
        assert_describes("mappings covered", &mapped, words);
    }

    let same_file = false;
    let link = Target::Link;
    #[rustfmt::skip]
    let rows = [
        (0, true, Target::Absent, "its name has a random part"),
        (0, false, Target::Absent, "it is empty and may be a flag: its target is missing"),
        (0, false, Target::Unknown, "may be a flag: its name does not identify its target"),
        (0, false, Target::Whole { same_file }, "its target exists and has content"),
        (1, true, Target::Unknown, "its name does not identify its target"),
        (1, true, Target::Absent, "its target is missing"),
        (1, true, Target::Empty, "its target has no content"),
        (1, true, Target::Unreadable, "its target cannot be read"),
        (1, true, Target::NotRegular(Kind::Dir), "its target is a directory"),
        (1, true, Target::NotRegular(Kind::Other), "its target is a FIFO, a socket or a device"),
        (1, true, link(LinkFault::Dangling), "is a symlink that leads to nothing"),
        (1, true, link(LinkFault::Foreign), "leads through a symlink of another user"),
        (1, true, link(LinkFault::Writable), "a directory that other users can write"),
        (1, true, link(LinkFault::OtherMount), "is a symlink to another mount"),
        (1, true, link(LinkFault::Temp), "is a symlink to another temp"),
        (1, true, Target::Foreign, "its target belongs to another user"),
        (1, true, Target::FarSmaller, "has less than a sixteenth of the temp's data"),
        (1, true, Target::Short, "has less data, and is not older"),
        (1, true, Target::Whole { same_file }, "its target exists and has content"),
    ];
    for (size, random_name, target, words) in rows {
        let copy = with(|e| {
            e.observation.fingerprint.size = size;
            e.random_name = random_name;
            e.target = target;
        });
        assert_describes("not the only copy", &copy, words);
    }
}

#[test]
fn a_verdict_has_a_word_and_a_reason() {
    let (held, sole) = (Reason::InUse, Reason::SoleCopy);
    for (verdict, word, reason) in [
        (Verdict::Reap, "reap", None),
        (Verdict::Quarantine(None), "quarantine", None),
        (Verdict::Quarantine(Some(sole)), "quarantine", Some(sole)),
        (Verdict::Keep(held), "keep", Some(held)),
    ] {
        assert_eq!((verdict.as_str(), verdict.reason()), (word, reason));
    }
    assert_eq!(held.to_string(), "in-use");
    assert_eq!(Writer::NoPid.pid(), None);
    assert_eq!(
        [Writer::Gone(7), Writer::Alive(8), Writer::InContainer(9)].map(Writer::pid),
        [Some(7), Some(8), Some(9)]
    );
    assert_eq!(Writer::Unknown(7).pid(), Some(7));
}

/// Each gate that keeps a temp keeps its set too, if it keeps a companion. Only the main file can be the only copy.
#[test]
fn a_companion_that_is_kept_keeps_its_set() {
    let set = |companion: &Evidence| {
        judge_set(&orphan(), &[orphan(), companion.clone()], &policy(), true)
    };
    assert_eq!(set(&orphan()), Verdict::Reap);
    let rows: [(Evidence, Verdict); 11] = [
        (with(|e| e.quiet = GRACE / 2), Verdict::Keep(Reason::Young)),
        (with(|e| e.restored = true), Verdict::Keep(Reason::Restored)),
        (
            with(|e| e.reserved = Some(Reserved::WasTarget)),
            Verdict::Keep(Reason::Reserved),
        ),
        (
            with(|e| e.observation.fingerprint.kind = Kind::Symlink),
            Verdict::Keep(Reason::Changed),
        ),
        (
            with(|e| e.observation.protected = true),
            Verdict::Keep(Reason::Protected),
        ),
        (with(|e| e.our_uid = 7), Verdict::Keep(Reason::ForeignOwner)),
        (
            with(|e| e.use_state = UseState::Locked),
            Verdict::Keep(Reason::Locked),
        ),
        (
            with(|e| e.use_state = UseState::InUse),
            Verdict::Keep(Reason::InUse),
        ),
        (
            with(|e| e.use_state = UseState::Unknown),
            Verdict::Keep(Reason::CannotTell),
        ),
        (
            with(|e| e.dir.lease_coverage = LeaseCoverage::OpensOnly),
            Verdict::Quarantine(Some(Reason::CannotTell)),
        ),
        (with(|e| e.target = Target::Absent), Verdict::Reap),
    ];
    for (companion, verdict) in rows {
        assert_eq!(set(&companion), verdict, "{companion:?}");
    }
}

#[test]
fn a_set_is_the_only_copy_if_its_main_file_is() {
    let main = with(|e| e.target = Target::Absent);
    let moved = Verdict::Quarantine(Some(Reason::SoleCopy));
    assert_eq!(judge_set(&main, &[orphan()], &policy(), true), moved);
    // With a companion that has content, an empty main file is not without content.
    let empty = |companion_bytes| {
        with(|e| {
            e.observation.fingerprint.size = 0;
            e.expected = None;
            e.target = Target::Absent;
            e.companion_bytes = companion_bytes;
        })
    };
    for (bytes, verdict) in [(0, Verdict::Reap), (1, moved)] {
        assert_eq!(
            judge_set(&empty(bytes), &[orphan()], &policy(), true),
            verdict
        );
    }
}

/// Whatever the rule says about open files.
#[test]
fn a_set_in_use_is_kept() {
    let policy = Policy {
        open: Open::Reap,
        ..policy()
    };
    let held = with(|e| e.use_state = UseState::InUse);
    assert_eq!(judge_set(&held, &[], &policy, true), Verdict::Reap);
    for (main, companion) in [(&held, &orphan()), (&orphan(), &held)] {
        let verdict = judge_set(main, std::slice::from_ref(companion), &policy, true);
        assert_eq!(verdict, Verdict::Keep(Reason::InUse));
    }
}

#[test]
fn without_leases_every_set_is_kept() {
    let verdict = |companions: &[Evidence]| judge_set(&orphan(), companions, &policy(), false);
    assert_eq!(verdict(&[]), Verdict::Reap);
    assert_eq!(verdict(&[orphan()]), Verdict::Keep(Reason::CannotTell));
}

/// A file whose name only a learned shape matches may be one that a person made.
#[test]
fn a_temp_by_a_learned_shape_is_only_moved() {
    let by_shape = |change: &dyn Fn(&mut Evidence)| {
        with(|e| {
            e.by_shape = true;
            change(e);
        })
    };
    let reap = Policy {
        sole_copy: SoleCopy::Reap,
        open: Open::Reap,
        ..policy()
    };
    let keep = Policy {
        sole_copy: SoleCopy::Keep,
        ..policy()
    };
    let whole = |e: &mut Evidence| e.target = Target::Whole { same_file: false };
    let empty = |e: &mut Evidence| {
        e.observation.fingerprint.size = 0;
        e.expected = Some(e.observation.fingerprint);
    };
    let superseded = |e: &mut Evidence| e.superseded = true;
    for change in [&whole as &dyn Fn(&mut Evidence), &empty, &superseded] {
        for policy in [&policy(), &reap] {
            check(
                policy,
                &by_shape(change),
                Verdict::Quarantine(Some(Reason::SoleCopy)),
            );
        }
        check(&keep, &by_shape(change), Verdict::Keep(Reason::SoleCopy));
    }
    for (use_state, reason) in [
        (UseState::InUse, Reason::InUse),
        (UseState::Unknown, Reason::CannotTell),
    ] {
        let used = by_shape(&|e| e.use_state = use_state);
        check(&reap, &used, Verdict::Keep(reason));
    }
}

#[test]
fn a_removal_that_only_a_setting_allows_has_its_reason() {
    let in_use = with(|e| e.use_state = UseState::InUse);
    let unproven = with(|e| e.use_state = UseState::Unknown);
    let sole = with(|e| e.target = Target::Absent);
    let open = Policy {
        open: Open::Reap,
        ..policy()
    };
    let sole_copy = Policy {
        sole_copy: SoleCopy::Reap,
        ..policy()
    };
    for (evidence, policy, want) in [
        (&in_use, &open, Some(Reason::InUse)),
        (&unproven, &open, Some(Reason::CannotTell)),
        (&sole, &sole_copy, Some(Reason::SoleCopy)),
        (&orphan(), &open, None),
        (&orphan(), &sole_copy, None),
    ] {
        assert_eq!(judge(evidence, policy), Verdict::Reap);
        assert_eq!(allowed(evidence, policy), want);
    }
}
