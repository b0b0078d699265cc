//! The exact text of each line: programs may depend on the order of its fields.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::core::census::TreeContent;
use crate::core::event::{Details, RescanCause, RootState, Settlement, Summary};
use crate::core::judge::{Reason, Target};
use crate::core::observation::FileSize;
use crate::core::process::{Ended, ExitStatus, Via};
use crate::core::time::Wall;

const AT: Wall = Wall {
    sec: 1_764_500_000,
    nsec: 7_654_321,
};

fn path(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name))
}

fn subject(name: &[u8]) -> Subject {
    Subject {
        path: path(b"/srv/app").join(path(name)),
        root: path(b"/srv/app"),
        size: Some(FileSize {
            bytes: 1,
            disk_bytes: 4096,
        }),
    }
}

fn process() -> Process {
    Process {
        pid: 4711,
        name: Some("node".into()),
        exe: Some(path(b"/usr/bin/\xffnode")),
        unit: None,
        ended: Some(Ended {
            status: ExitStatus::Signal(9),
            at: AT,
        }),
        via: Via::Name,
    }
}

fn disposed(name: &[u8]) -> Disposed {
    Disposed {
        subject: subject(name),
        quiet: Duration::from_millis(61_001),
        target: Some(path(b"/srv/app/a.json")),
        target_state: Target::Unknown,
        writer_pid: Some(4711),
        writer: None,
        process: Some(process()),
        freed: FileSize::default(),
        superseded: true,
        superseded_by: Some(path(b"/srv/app/q")),
        allowed: None,
        dry_run: false,
    }
}

fn summary() -> Summary {
    let size = FileSize {
        bytes: 3,
        disk_bytes: 8192,
    };
    Summary {
        reaped: 1,
        quarantined: 2,
        kept: 3,
        failed: 4,
        freed: size,
        trees: Some(vec![Tree {
            path: path(b"/srv/app/d.tmp"),
            kind: Kind::Dir,
            content: Some(TreeContent {
                files: 5,
                size,
                newest: Duration::from_secs(6),
                is_complete: true,
            }),
        }]),
        lookalikes: Some(vec![Lookalike {
            likeness: Likeness::Case("*.tmp".into()),
            files: 7,
            size,
            is_complete: false,
            dir: path(b"/srv/app"),
        }]),
        writes: Some(WriteSummary {
            count: 8,
            p50: Duration::from_micros(9),
            p99: Duration::from_micros(10),
            max: Duration::from_micros(11),
            max_name: "a.tmp".into(),
        }),
        ..Summary::default()
    }
}

fn events() -> Vec<Event> {
    let id = || "20251130-105320-1".to_owned();
    let stored = subject(b"a.tmp");
    vec![
        Event::Ready {
            roots: vec![path(b"/srv/app"), path(b"/srv/\xfe")],
            tracked: 12,
        },
        Event::Ready {
            roots: vec![path(b"/srv/app")],
            tracked: 0,
        },
        Event::Tracked {
            subject: Subject {
                size: None,
                ..subject(b"a\n\"\\.tmp")
            },
            due: Duration::from_millis(5),
        },
        Event::Settled {
            subject: subject("ä.tmp".as_bytes()),
            how: Settlement::Renamed,
        },
        Event::Kept {
            subject: subject(b"a\xff.tmp"),
            reason: Reason::InUse,
            holders: vec![Holder {
                pid: 1,
                name: "a\tb".into(),
            }],
            retry: None,
            reported_before: false,
            details: Details {
                process: Some(process()),
                ..Details::default()
            },
        },
        Event::Reaped(disposed(b"a.json.tmp")),
        Event::Reaped(Disposed {
            target: None,
            writer_pid: None,
            process: None,
            superseded: false,
            superseded_by: None,
            dry_run: true,
            ..disposed(b"a.json.tmp")
        }),
        Event::Quarantined {
            disposed: disposed(b"a.json.tmp"),
            id: Some(id()),
            reason: None,
        },
        Event::Restored {
            subject: stored.clone(),
            id: id(),
        },
        Event::Purged {
            subject: stored.clone(),
            id: id(),
        },
        Event::Failed {
            subject: stored,
            error: "cannot open it: \u{7f}".into(),
            errno: Some(13),
        },
        Event::Rescan {
            root: path(b"/srv/app"),
            cause: RescanCause::Startup,
        },
        Event::Root {
            root: path(b"/srv/\xfe"),
            state: RootState::Gone,
        },
        Event::Summary(summary()),
        Event::Summary(Summary::default()),
    ]
}

fn text(object: &impl Fields) -> String {
    let mut text = Vec::new();
    append(&mut text, object);
    text.push(b'\n');
    String::from_utf8(text).expect("UTF-8")
}

fn check(lines: &str, expected: Expect) {
    expected.assert_eq(lines);
}

#[test]
fn each_event_has_its_fields_in_their_order() {
    let lines: String = events().iter().map(|one| text(&event(one, AT))).collect();
    check(
        &lines,
        expect![[r#"
        {"event":"ready","time":"2025-11-30T10:53:20.007Z","roots":["/srv/app","/srv/�"],"tracked":12,"roots_b64":["L3Nydi9hcHA=","L3Nydi/+"]}
        {"event":"ready","time":"2025-11-30T10:53:20.007Z","roots":["/srv/app"],"tracked":0}
        {"event":"tracked","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a\n\"\\.tmp","root":"/srv/app","bytes":null,"disk_bytes":null,"due_ms":5}
        {"event":"settled","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/ä.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"how":"renamed"}
        {"event":"kept","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a�.tmp","path_b64":"L3Nydi9hcHAvYf8udG1w","root":"/srv/app","bytes":1,"disk_bytes":4096,"reason":"in-use","holders":[{"pid":1,"name":"a\tb"}],"process":{"pid":4711,"name":"node","exe":"/usr/bin/�node","exe_b64":"L3Vzci9iaW4v/25vZGU=","unit":null,"ended":{"signal":9,"code":null,"at":"2025-11-30T10:53:20.007Z"},"via":"name"},"retry_ms":null}
        {"event":"reaped","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.json.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"quiet_ms":61001,"target":"/srv/app/a.json","writer_pid":4711,"process":{"pid":4711,"name":"node","exe":"/usr/bin/�node","exe_b64":"L3Vzci9iaW4v/25vZGU=","unit":null,"ended":{"signal":9,"code":null,"at":"2025-11-30T10:53:20.007Z"},"via":"name"},"dry_run":false,"superseded_by":"/srv/app/q"}
        {"event":"reaped","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.json.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"quiet_ms":61001,"target":null,"writer_pid":null,"process":null,"dry_run":true,"superseded_by":null}
        {"event":"quarantined","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.json.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"quiet_ms":61001,"target":"/srv/app/a.json","writer_pid":4711,"process":{"pid":4711,"name":"node","exe":"/usr/bin/�node","exe_b64":"L3Vzci9iaW4v/25vZGU=","unit":null,"ended":{"signal":9,"code":null,"at":"2025-11-30T10:53:20.007Z"},"via":"name"},"dry_run":false,"id":"20251130-105320-1"}
        {"event":"restored","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"id":"20251130-105320-1"}
        {"event":"purged","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"id":"20251130-105320-1"}
        {"event":"failed","time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"error":"cannot open it: ","errno":13}
        {"event":"rescan","time":"2025-11-30T10:53:20.007Z","root":"/srv/app","cause":"startup"}
        {"event":"root","time":"2025-11-30T10:53:20.007Z","root":"/srv/�","root_b64":"L3Nydi/+","state":"gone"}
        {"event":"summary","time":"2025-11-30T10:53:20.007Z","reaped":1,"quarantined":2,"kept":3,"failed":4,"bytes":3,"disk_bytes":8192,"writes":{"count":8,"p50_us":9,"p99_us":10,"max_us":11,"max_name":"a.tmp"},"trees":[{"path":"/srv/app/d.tmp","kind":"directory","files":5,"bytes":3,"disk_bytes":8192,"newest_ms":6000,"complete":true}],"lookalikes":[{"writer":null,"name":"*.tmp","files":7,"bytes":3,"disk_bytes":8192,"complete":false,"dir":"/srv/app"}]}
        {"event":"summary","time":"2025-11-30T10:53:20.007Z","reaped":0,"quarantined":0,"kept":0,"failed":0,"bytes":0,"disk_bytes":0,"writes":null,"trees":null,"lookalikes":null}
    "#]],
    );
}

#[test]
fn an_intent_has_its_fields_in_their_order() {
    let disposed = disposed(b"a.json.tmp");
    let line = IntentLine {
        time: AT.into(),
        file: (&disposed.subject).into(),
        verdict: "reap",
        reason: None,
        grammar: Some("<t>.tmp"),
        quiet_ms: 1,
        grace_ms: 2,
        target: disposed.target.as_deref().map(Into::into),
        writer_pid: Some(3),
        dev: 4,
        ino: 5,
        uid: 6,
        mode: 7,
        links: 1,
        mtime: AT.into(),
        ctime: AT.into(),
    };
    check(
        &text(&line),
        expect![[r#"
        {"time":"2025-11-30T10:53:20.007Z","path":"/srv/app/a.json.tmp","root":"/srv/app","bytes":1,"disk_bytes":4096,"verdict":"reap","reason":null,"grammar":"<t>.tmp","quiet_ms":1,"grace_ms":2,"target":"/srv/app/a.json","writer_pid":3,"dev":4,"ino":5,"uid":6,"mode":7,"links":1,"mtime":"2025-11-30T10:53:20.007Z","ctime":"2025-11-30T10:53:20.007Z"}
    "#]],
    );
}

/// These structs are also read and written by serde, for `orphand history`.
#[test]
fn serde_writes_the_same_fields() {
    let disposed = disposed(b"\xff.tmp");
    let file = FileFields::from(&disposed.subject);
    let disposal = DisposalFields::from(&disposed);
    let copy = BetterCopy {
        superseded_by: disposed.superseded_by.as_deref().map(Into::into),
    };
    assert_eq!(text(&file), text(&BySerde(&file)));
    assert_eq!(text(&disposal), text(&BySerde(&disposal)));
    assert_eq!(text(&copy), text(&BySerde(&copy)));
}
