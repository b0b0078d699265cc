//! The events that a watch or a sweep reports.
//!
//! To *dispose of* a temp means to remove it or to move it to the quarantine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::census::{Lookalike, Tree};
use crate::core::judge::{Reason, Target};
use crate::core::observation::{FileSize, Holder};
use crate::core::process::Process;
use crate::core::write_times::WriteSummary;

/// The file that an event concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its absolute path, which begins with the path of the root.
    pub path: PathBuf,
    /// The path of the root, as given and made absolute.
    pub root: PathBuf,
    /// Its size. `None` if orphand did not look at the file.
    pub size: Option<FileSize>,
}

/// Details of a temp that orphand disposed of: it was removed or moved to the quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disposed {
    /// The temp.
    pub subject: Subject,
    /// The time for which no process had used it.
    pub quiet: Duration,
    /// The path to which it was to be renamed, if that is known.
    pub target: Option<PathBuf>,
    /// The state of the target.
    pub target_state: Target,
    /// The pid in its name.
    pub writer_pid: Option<u32>,
    /// The name of the program that wrote it, if orphand learned that while the program was running.
    pub writer: Option<String>,
    /// The process that wrote it, as far as it is known.
    pub process: Option<Process>,
    /// The size that its removal freed. Zero if another hard link keeps the data.
    pub freed: FileSize,
    /// Its target does not count, but later copies with as much data make it superfluous.
    pub superseded: bool,
    /// The path of such a copy in the quarantine. `None` if its target counts, if it was moved, or in a dry run.
    pub superseded_by: Option<PathBuf>,
    /// The reason for which it would not be removed if a setting of its rule did not allow it.
    pub allowed: Option<Reason>,
    /// This is a dry run: the file was neither removed nor moved.
    pub dry_run: bool,
}

impl Disposed {
    /// Returns the details of a temp of which nothing else is known.
    #[must_use]
    pub fn new(subject: Subject) -> Disposed {
        Disposed {
            subject,
            quiet: Duration::ZERO,
            target: None,
            target_state: Target::Unknown,
            writer_pid: None,
            writer: None,
            process: None,
            freed: FileSize::default(),
            superseded: false,
            superseded_by: None,
            allowed: None,
            dry_run: false,
        }
    }
}

/// Details of a kept temp, for messages to the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The name of its file system, as in the key `network` of a rule.
    pub file_system: Arc<str>,
    /// The pid in its name.
    pub writer_pid: Option<u32>,
    /// The name of that process, if known.
    pub writer: Option<String>,
    /// The process that holds it, or whose pid is in its name.
    pub process: Option<Process>,
    /// Its data is not on this disk (macOS `SF_DATALESS`).
    pub is_dataless: bool,
    /// The time since it was last changed.
    pub quiet: Duration,
    /// The grace that its rule sets for its name.
    pub grace: Duration,
    /// The file because of which it is kept, if its rule has an `unless_open`.
    pub guard: Option<PathBuf>,
}

words! {
    /// The way in which a temp settled, without any action of orphand.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Settlement {
        /// It was renamed.
        Renamed = "renamed",
        /// It was removed, or is missing.
        Removed = "removed",
    }
}

words! {
    /// The cause of a scan of a root.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum RescanCause {
        /// The watch has started, or a reload has added the root.
        Startup = "startup",
        /// Events were lost or missed, an earlier scan was incomplete, or temps were rejected because of the tracking
        /// limit.
        Overflow = "overflow",
        /// A periodic scan, a poll or a scan of a hot directory was due, or a reload has kept the root.
        Periodic = "periodic",
        /// The root was unavailable or another directory before, or a directory has appeared below it.
        RootReturned = "root-returned",
    }
}

words! {
    /// The state of a root.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum RootState {
        /// It is watched, and its events arrive.
        Watching = "watching",
        /// It does not exist. orphand waits for it.
        Gone = "gone",
        /// Its events do not arrive. It is scanned periodically.
        Polling = "polling",
        /// It cannot be opened for lack of permission, or another orphand process works on it.
        Denied = "denied",
        /// Changes in it cannot be noticed. Reserved: never reported.
        Blind = "blind",
        /// Its file system does not answer.
        NoAnswer = "no-answer",
    }
}

/// The totals of a watch or a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of temps removed. In a dry run, those that would have been removed.
    pub reaped: u64,
    /// The number of temps moved to the quarantine. In a dry run, those that would have been moved.
    pub quarantined: u64,
    /// The part of `reaped` that comes from a dry run.
    pub would_reap: u64,
    /// The part of `quarantined` that comes from a dry run.
    pub would_quarantine: u64,
    /// The number of temps that were kept at least once. A watch may have removed them later.
    pub kept: u64,
    /// The number of temps that could not be processed and of directories that could not be read.
    pub failed: u64,
    /// The size freed by removals.
    pub freed: FileSize,
    /// The size of the files moved to the quarantine. Their space is not free.
    pub quarantined_size: FileSize,
    /// At least one temp was kept because orphand cannot tell whether it is used.
    pub cannot_tell: bool,
    /// Directories and special files whose names the rule matches. They are never touched. `None` in the summary of a
    /// watch, whose status has them.
    pub trees: Option<Vec<Tree>>,
    /// The files whose names look like temps although the rule does not match them, the largest group first. `None` in
    /// the summary of a watch, whose status has them.
    pub lookalikes: Option<Vec<Lookalike>>,
    /// The times that healthy writes took. `None` if none was measured, as in a sweep.
    pub writes: Option<WriteSummary>,
}

/// An event of a watch or a sweep.
///
/// Later versions may add variants and fields, so end each pattern with `..`, and ignore unknown events.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The watches are established and the first scan is complete. Sent once.
    Ready {
        /// The paths of all roots.
        roots: Vec<PathBuf>,
        /// The number of tracked temps.
        tracked: usize,
    },
    /// A temp was created. Sent only on request, because a healthy write must cost nothing.
    Tracked {
        /// The temp.
        subject: Subject,
        /// The time until orphand looks at it first.
        due: Duration,
    },
    /// A temp was renamed or removed by another process. Sent only on request.
    Settled {
        /// The temp.
        subject: Subject,
        /// The way in which it settled.
        how: Settlement,
    },
    /// A temp is due but is kept. Sent once for each temp and reason.
    Kept {
        /// The temp.
        subject: Subject,
        /// The reason for keeping it.
        reason: Reason,
        /// The processes that hold it, as far as they can be seen.
        holders: Vec<Holder>,
        /// The time until the next look. `None` if there is none.
        retry: Option<Duration>,
        /// It was already reported as kept, for another reason.
        reported_before: bool,
        /// Details for messages to the user.
        details: Details,
    },
    /// A temp was removed.
    Reaped(Disposed),
    /// A temp was moved to the quarantine.
    Quarantined {
        /// The temp.
        disposed: Disposed,
        /// Its id in the quarantine. `None` in a dry run.
        id: Option<String>,
        /// The reason for not removing it, if a gate requires that it is moved instead.
        reason: Option<Reason>,
    },
    /// A file was restored from the quarantine.
    Restored {
        /// The restored file, at its present path.
        subject: Subject,
        /// The id that it had in the quarantine.
        id: String,
    },
    /// A file in the quarantine was deleted for good, on request or by the limits of the quarantine.
    Purged {
        /// The file, at its path before it was moved to the quarantine.
        subject: Subject,
        /// The id that it had in the quarantine.
        id: String,
    },
    /// An action failed.
    Failed {
        /// The file or directory concerned.
        subject: Subject,
        /// The message.
        error: String,
        /// The error number of the operating system.
        errno: Option<i32>,
    },
    /// A root is being scanned.
    Rescan {
        /// The root.
        root: PathBuf,
        /// The cause.
        cause: RescanCause,
    },
    /// A root's state changed.
    Root {
        /// The root.
        root: PathBuf,
        /// The new state.
        state: RootState,
    },
    /// The totals. The last event.
    Summary(Summary),
}

impl Summary {
    /// Counts `event`.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Reaped(disposed) => {
                self.reaped += 1;
                self.would_reap += u64::from(disposed.dry_run);
                self.freed = self.freed.plus(disposed.freed);
            }
            Event::Quarantined { disposed, .. } => {
                self.quarantined += 1;
                self.would_quarantine += u64::from(disposed.dry_run);
                if !disposed.dry_run {
                    let size = disposed.subject.size.unwrap_or_default();
                    self.quarantined_size = self.quarantined_size.plus(size);
                }
            }
            Event::Kept {
                reason,
                reported_before,
                ..
            } => {
                self.kept += u64::from(!reported_before);
                self.cannot_tell |= *reason == Reason::CannotTell;
            }
            Event::Failed { .. } => self.failed += 1,
            _ => {}
        }
    }
}
