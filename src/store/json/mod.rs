//! The wire format: the JSON of events, which `--json` prints and the journal records.
//!
//! Each object is a struct here, and every object has all its fields. Documents of single commands are structs beside
//! their commands.
//!
//! Paths are strings. If a path is not UTF-8, the string contains U+FFFD, and a second field contains the exact bytes
//! in standard base64 with padding. The name of that field ends with `_b64`. For other paths it is absent.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::core::census::{Likeness, Lookalike, Tree};
use crate::core::event::{Disposed, Event, Subject};
use crate::core::observation::{Holder, Kind};
use crate::core::process::Process;
use crate::core::write_times::WriteSummary;

pub mod field;
#[cfg(test)]
mod tests;
mod time;
mod writer;

pub use time::{TimeText, time};
pub use writer::{BySerde, Fields, append};

use writer::{field, fields};

/// A path in JSON. Its field needs `#[serde(flatten, with = "field::…")]` with the module in [`mod@field`] for its name.
pub type WirePath<'a> = Option<Cow<'a, Path>>;

/// An event that happened at a time, as it is printed and written to the journal.
#[derive(Debug)]
pub struct EventLine<'a> {
    event: &'static str,
    time: TimeText,
    fields: EventFields<'a>,
}

fields!(struct EventLine { event, time, fields: flat });

/// The fields of each kind of event.
#[derive(Debug)]
enum EventFields<'a> {
    Ready {
        roots: Vec<Cow<'a, str>>,
        tracked: usize,
        roots_b64: Option<Vec<String>>,
    },
    Tracked {
        file: FileFields<'a>,
        due_ms: u64,
    },
    Settled {
        file: FileFields<'a>,
        how: &'static str,
    },
    Kept {
        file: FileFields<'a>,
        reason: &'static str,
        holders: &'a [Holder],
        process: Option<ProcessFields<'a>>,
        retry_ms: Option<u64>,
    },
    Reaped {
        file: FileFields<'a>,
        disposal: DisposalFields<'a>,
        copy: BetterCopy<'a>,
    },
    Quarantined {
        file: FileFields<'a>,
        disposal: DisposalFields<'a>,
        id: Option<&'a str>,
    },
    Stored {
        file: FileFields<'a>,
        id: &'a str,
    },
    Failed {
        file: FileFields<'a>,
        error: &'a str,
        errno: Option<i32>,
    },
    Rescan {
        root: WirePath<'a>,
        cause: &'static str,
    },
    Root {
        root: WirePath<'a>,
        state: &'static str,
    },
    Summary {
        reaped: u64,
        quarantined: u64,
        kept: u64,
        failed: u64,
        bytes: u64,
        disk_bytes: u64,
        writes: Option<WriteFields<'a>>,
        trees: Option<Vec<TreeFields<'a>>>,
        lookalikes: Option<Vec<LookalikeFields<'a>>>,
    },
}

fields! {
    enum EventFields {
        Ready { roots: serde, tracked, roots_b64: if_some }
        Tracked { file: flat, due_ms }
        Settled { file: flat, how }
        Kept { file: flat, reason, holders: serde, process: serde, retry_ms }
        Reaped { file: flat, disposal: flat, copy: flat }
        Quarantined { file: flat, disposal: flat, id }
        Stored { file: flat, id }
        Failed { file: flat, error, errno }
        Rescan { root: path, cause }
        Root { root: path, state }
        Summary {
            reaped, quarantined, kept, failed, bytes, disk_bytes, writes: serde, trees: serde, lookalikes: serde
        }
    }
}

/// A line of the journal about an action that has ended, as `orphand history` reads and prints it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct HistoryLine {
    /// The name of the event.
    pub event: HistoryEvent,
    /// The time of the event, by RFC 3339.
    pub time: String,
    /// The file.
    #[serde(flatten)]
    pub file: FileFields<'static>,
    /// The details of a removal or a move to the quarantine.
    #[serde(flatten)]
    pub disposal: Option<DisposalFields<'static>>,
    /// The copy that superseded the temp. `None` if the temp was not removed.
    #[serde(flatten)]
    pub copy: Option<BetterCopy<'static>>,
    /// The id in the quarantine. `None` if the temp was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// The events in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HistoryEvent {
    /// A temp was removed.
    Reaped,
    /// A temp was moved to the quarantine.
    Quarantined,
    /// A file was restored from the quarantine.
    Restored,
    /// A file in the quarantine was deleted.
    Purged,
}

/// The fields of an event about a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FileFields<'a> {
    /// Its path.
    #[serde(flatten, with = "field::path")]
    pub path: WirePath<'a>,
    /// The path of its root.
    #[serde(flatten, with = "field::root")]
    pub root: WirePath<'a>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Its space on the disk. Older versions did not write this field.
    pub disk_bytes: Option<u64>,
}

fields!(struct FileFields { path: path, root: path, bytes, disk_bytes });

/// The fields of a temp that was removed or moved to the quarantine.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DisposalFields<'a> {
    /// The time for which no process had used it, in milliseconds.
    pub quiet_ms: u64,
    /// The path of its target, if known.
    #[serde(flatten, with = "field::target")]
    pub target: WirePath<'a>,
    /// The pid in its name.
    pub writer_pid: Option<u32>,
    /// The process that wrote it. Older versions did not write this field.
    #[serde(default)]
    pub process: Option<ProcessFields<'a>>,
    /// True if nothing was changed, because this is a dry run.
    #[serde(default)]
    pub dry_run: bool,
}

fields!(struct DisposalFields { quiet_ms, target: path, writer_pid, process: serde, dry_run });

/// The process that wrote or holds a temp, as far as it is known.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProcessFields<'a> {
    /// Its pid.
    pub pid: u32,
    /// Its command name.
    pub name: Option<Cow<'a, str>>,
    /// The path of its program.
    #[serde(flatten, with = "field::exe")]
    pub exe: WirePath<'a>,
    /// The last part of its control group.
    pub unit: Option<Cow<'a, str>>,
    /// How it ended. `None` if that is unknown.
    pub ended: Option<EndedFields>,
    /// How it was found: `name` or `holder`.
    pub via: Cow<'a, str>,
}

/// The end of a process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EndedFields {
    /// The signal that killed it.
    pub signal: Option<u32>,
    /// Its exit code.
    pub code: Option<u32>,
    /// The time at which its end was noticed, by RFC 3339.
    pub at: String,
}

impl<'a> From<&'a Process> for ProcessFields<'a> {
    fn from(process: &'a Process) -> ProcessFields<'a> {
        ProcessFields {
            pid: process.pid,
            name: process.name.as_deref().map(Into::into),
            exe: process.exe.as_deref().map(Into::into),
            unit: process.unit.as_deref().map(Into::into),
            ended: process.ended.map(|ended| EndedFields {
                signal: ended.status.signal(),
                code: ended.status.code(),
                at: time(ended.at),
            }),
            via: process.via.as_str().into(),
        }
    }
}

/// The copy because of which a temp was not needed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BetterCopy<'a> {
    /// Its path in the quarantine. `None` if the temp was not superseded by a copy.
    #[serde(flatten, with = "field::superseded_by")]
    pub superseded_by: WirePath<'a>,
}

fields!(
    struct BetterCopy {
        superseded_by: path,
    }
);

/// A directory or special file whose name the rule matches. It is never touched.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TreeFields<'a> {
    /// Its path.
    #[serde(flatten, with = "field::path")]
    pub path: WirePath<'a>,
    /// Its type: `directory`, `symlink` or `special`.
    pub kind: Cow<'a, str>,
    /// The number of files in it. `None` if it could not be read.
    pub files: Option<u64>,
    /// The sum of their lengths.
    pub bytes: Option<u64>,
    /// The sum of their sizes on the disk.
    pub disk_bytes: Option<u64>,
    /// The time since the newest change in it.
    pub newest_ms: Option<u64>,
    /// Everything was counted: the limit was not reached, and every directory could be read.
    pub complete: bool,
}

impl<'a> From<&'a Tree> for TreeFields<'a> {
    fn from(tree: &'a Tree) -> TreeFields<'a> {
        let content = tree.content;
        TreeFields {
            path: Some(tree.path.as_path().into()),
            kind: kind_word(tree.kind).into(),
            files: content.map(|content| content.files),
            bytes: content.map(|content| content.size.bytes),
            disk_bytes: content.map(|content| content.size.disk_bytes),
            newest_ms: content.map(|content| ms(content.newest)),
            complete: content.is_some_and(|content| content.is_complete),
        }
    }
}

impl TreeFields<'_> {
    /// Returns the same fields without references.
    #[must_use]
    pub fn into_owned(self) -> TreeFields<'static> {
        TreeFields {
            path: self.path.map(|path| path.into_owned().into()),
            kind: self.kind.into_owned().into(),
            files: self.files,
            bytes: self.bytes,
            disk_bytes: self.disk_bytes,
            newest_ms: self.newest_ms,
            complete: self.complete,
        }
    }

    /// Returns the type of the file.
    #[must_use]
    pub fn file_kind(&self) -> Kind {
        let kinds = [Kind::File, Kind::Dir, Kind::Symlink, Kind::Other];
        let known = kinds.into_iter().find(|kind| kind_word(*kind) == self.kind);
        known.unwrap_or(Kind::Other)
    }
}

/// Files whose names look like temps although the rule does not match them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LookalikeFields<'a> {
    /// The writer that the rule would have to turn on. `None` if the names differ only in letter case.
    pub writer: Option<Cow<'a, str>>,
    /// The glob that matches the names, if they differ only in letter case.
    pub name: Option<Cow<'a, str>>,
    /// The number of the files.
    pub files: u64,
    /// The sum of their lengths, as far as these were read.
    pub bytes: u64,
    /// The sum of their sizes on the disk.
    pub disk_bytes: u64,
    /// The sizes of all of them were read.
    pub complete: bool,
    /// A directory that contains one of them.
    #[serde(flatten, with = "field::dir")]
    pub dir: WirePath<'a>,
}

impl<'a> From<&'a Lookalike> for LookalikeFields<'a> {
    fn from(one: &'a Lookalike) -> LookalikeFields<'a> {
        let (writer, name) = match &one.likeness {
            Likeness::Writer(writer) => (Some(Cow::from(*writer)), None),
            Likeness::Case(glob) => (None, Some(Cow::from(glob))),
        };
        LookalikeFields {
            writer,
            name,
            files: one.files,
            bytes: one.size.bytes,
            disk_bytes: one.size.disk_bytes,
            complete: one.is_complete,
            dir: Some(one.dir.as_path().into()),
        }
    }
}

impl LookalikeFields<'_> {
    /// Returns the same fields without references.
    #[must_use]
    pub fn into_owned(self) -> LookalikeFields<'static> {
        let owned = |text: Option<Cow<'_, str>>| text.map(|text| text.into_owned().into());
        LookalikeFields {
            writer: owned(self.writer),
            name: owned(self.name),
            files: self.files,
            bytes: self.bytes,
            disk_bytes: self.disk_bytes,
            complete: self.complete,
            dir: self.dir.map(|dir| dir.into_owned().into()),
        }
    }
}

/// Returns the word for a type of file.
fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symlink",
        Kind::Other => "special",
    }
}

/// The times of healthy writes: from the creation of a temp to its rename.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct WriteFields<'a> {
    /// The number of writes.
    pub count: u64,
    /// The time within which half of them were complete, in microseconds.
    pub p50_us: u64,
    /// The time within which 99 % of them were complete, in microseconds.
    pub p99_us: u64,
    /// The longest time, in microseconds.
    pub max_us: u64,
    /// The name of the temp that needed the longest time.
    #[serde(flatten, with = "field::max_name")]
    pub max_name: WirePath<'a>,
}

/// A line of the journal about a temp that is about to be removed or moved to the quarantine.
#[derive(Debug)]
#[expect(
    missing_docs,
    reason = "the fields are those of the temp and of its verdict"
)]
pub struct IntentLine<'a> {
    pub time: TimeText,
    pub file: FileFields<'a>,
    pub verdict: &'static str,
    pub reason: Option<&'static str>,
    pub grammar: Option<&'a str>,
    pub quiet_ms: u64,
    pub grace_ms: u64,
    pub target: WirePath<'a>,
    pub writer_pid: Option<u32>,
    pub dev: u64,
    pub ino: u64,
    pub uid: u32,
    pub mode: u32,
    pub links: u64,
    pub mtime: TimeText,
    pub ctime: TimeText,
}

fields! {
    struct IntentLine {
        time, file: flat, verdict, reason, grammar, quiet_ms, grace_ms, target: path, writer_pid, dev, ino, uid, mode,
        links, mtime, ctime
    }
}

impl<'a> From<&'a Subject> for FileFields<'a> {
    fn from(subject: &'a Subject) -> FileFields<'a> {
        FileFields {
            path: Some(subject.path.as_path().into()),
            root: Some(subject.root.as_path().into()),
            bytes: subject.size.map(|size| size.bytes),
            disk_bytes: subject.size.map(|size| size.disk_bytes),
        }
    }
}

/// Returns the line for an event that happened at `at`.
#[must_use]
pub fn event(event: &Event, at: impl Into<TimeText>) -> EventLine<'_> {
    let (event, fields) = event_fields(event);
    EventLine {
        event,
        time: at.into(),
        fields,
    }
}

fn event_fields(event: &Event) -> (&'static str, EventFields<'_>) {
    match event {
        Event::Ready { roots, tracked } => {
            let fields = EventFields::Ready {
                roots: roots.iter().map(|root| root.to_string_lossy()).collect(),
                tracked: *tracked,
                roots_b64: paths_b64(roots),
            };
            ("ready", fields)
        }
        Event::Tracked { subject, due } => {
            let (file, due_ms) = (subject.into(), ms(*due));
            ("tracked", EventFields::Tracked { file, due_ms })
        }
        Event::Settled { subject, how } => {
            let (file, how) = (subject.into(), how.as_str());
            ("settled", EventFields::Settled { file, how })
        }
        Event::Kept {
            subject,
            reason,
            holders,
            retry,
            reported_before: _,
            details,
        } => {
            let fields = EventFields::Kept {
                file: subject.into(),
                reason: reason.as_str(),
                holders,
                process: details.process.as_ref().map(Into::into),
                retry_ms: retry.map(ms),
            };
            ("kept", fields)
        }
        Event::Reaped(disposed) => {
            let fields = EventFields::Reaped {
                file: (&disposed.subject).into(),
                disposal: disposed.into(),
                copy: BetterCopy {
                    superseded_by: disposed.superseded_by.as_deref().map(Into::into),
                },
            };
            ("reaped", fields)
        }
        Event::Quarantined { disposed, id, .. } => {
            let fields = EventFields::Quarantined {
                file: (&disposed.subject).into(),
                disposal: disposed.into(),
                id: id.as_deref(),
            };
            ("quarantined", fields)
        }
        Event::Restored { subject, id } => ("restored", stored_fields(subject, id)),
        Event::Purged { subject, id } => ("purged", stored_fields(subject, id)),
        Event::Failed {
            subject,
            error,
            errno,
        } => {
            let (file, errno) = (subject.into(), *errno);
            ("failed", EventFields::Failed { file, error, errno })
        }
        Event::Rescan { root, cause } => {
            let (root, cause) = (Some(root.into()), cause.as_str());
            ("rescan", EventFields::Rescan { root, cause })
        }
        Event::Root { root, state } => {
            let (root, state) = (Some(root.into()), state.as_str());
            ("root", EventFields::Root { root, state })
        }
        Event::Summary(summary) => {
            let fields = EventFields::Summary {
                reaped: summary.reaped,
                quarantined: summary.quarantined,
                kept: summary.kept,
                failed: summary.failed,
                bytes: summary.freed.bytes,
                disk_bytes: summary.freed.disk_bytes,
                writes: summary.writes.as_ref().map(Into::into),
                trees: (summary.trees.as_deref())
                    .map(|trees| trees.iter().map(Into::into).collect()),
                lookalikes: (summary.lookalikes.as_deref())
                    .map(|groups| groups.iter().map(Into::into).collect()),
            };
            ("summary", fields)
        }
    }
}

impl<'a> From<&'a Disposed> for DisposalFields<'a> {
    fn from(disposed: &'a Disposed) -> DisposalFields<'a> {
        DisposalFields {
            quiet_ms: ms(disposed.quiet),
            target: disposed.target.as_deref().map(Into::into),
            writer_pid: disposed.writer_pid,
            process: disposed.process.as_ref().map(Into::into),
            dry_run: disposed.dry_run,
        }
    }
}

impl<'a> From<&'a WriteSummary> for WriteFields<'a> {
    fn from(writes: &'a WriteSummary) -> WriteFields<'a> {
        WriteFields {
            count: writes.count,
            p50_us: us(writes.p50),
            p99_us: us(writes.p99),
            max_us: us(writes.max),
            max_name: Some(Path::new(&writes.max_name).into()),
        }
    }
}

fn stored_fields<'a>(subject: &'a Subject, id: &'a str) -> EventFields<'a> {
    let file = subject.into();
    EventFields::Stored { file, id }
}

/// Returns the exact bytes of `paths` in base64 if one of them is not UTF-8.
#[must_use]
pub fn paths_b64(paths: &[impl AsRef<Path>]) -> Option<Vec<String>> {
    let is_utf8 = |path: &Path| path.to_str().is_some();
    let bytes = |path: &Path| STANDARD.encode(path.as_os_str().as_bytes());
    let all = || paths.iter().map(AsRef::as_ref);
    (!all().all(is_utf8)).then(|| all().map(bytes).collect())
}

/// Returns `span` in whole milliseconds.
#[must_use]
pub fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns `span` in whole microseconds.
fn us(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
