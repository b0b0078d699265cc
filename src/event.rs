//! What orphand tells: the events of a watch or a sweep, as values.

use std::path::PathBuf;
use std::time::Duration;

use crate::decide::judge::{Reason, Target};
use crate::decide::observation::{FileSize, Holder};

/// A file that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The root's path and the rest.
    pub path: PathBuf,
    /// The root's path, as given and made absolute.
    pub root: PathBuf,
    /// Its size, where it was looked at.
    pub size: Option<FileSize>,
}

/// What is said of a temp that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disposed {
    /// The temp.
    pub subject: Subject,
    /// For how long nobody had used it.
    pub quiet: Duration,
    /// What it was to become.
    pub target: Option<PathBuf>,
    /// What stands there.
    pub target_state: Target,
    /// The pid in its name.
    pub writer_pid: Option<u32>,
    /// The program that wrote it, where that was learnt while it lived.
    pub writer: Option<String>,
    /// The size of what was removed; zero where another link keeps the data.
    pub freed: FileSize,
    /// Nothing was done.
    pub dry_run: bool,
}

/// Details of a kept temp, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The name of its file system, as the key `network` of a rule has it.
    pub file_system: String,
    /// The pid in its name.
    pub writer_pid: Option<u32>,
    /// The name of that process, if it is known.
    pub writer: Option<String>,
    /// Its data is not on this disk.
    pub is_dataless: bool,
    /// The time since it was last changed.
    pub quiet: Duration,
    /// Its grace.
    pub grace: Duration,
}

/// How a temp came to its end without us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It was renamed away.
    Renamed,
    /// It was removed, or is no longer there.
    Removed,
}

/// Why a root is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescanCause {
    /// It is the start.
    Startup,
    /// The kernel lost events.
    Overflow,
    /// It is time.
    Periodic,
    /// The root was away.
    RootReturned,
}

/// The state of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootState {
    /// Its events arrive.
    Watching,
    /// It is not there; it is waited for.
    Gone,
    /// Its events do not arrive; it is scanned by time.
    Polling,
    /// It may not be opened.
    Denied,
    /// What happens in it cannot be told.
    Blind,
    /// Its file system does not answer.
    NoAnswer,
}

/// What a watch or a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Temps removed, or that would have been in a dry run.
    pub reaped: u64,
    /// Temps moved to the quarantine, or that would have been in a dry run.
    pub quarantined: u64,
    /// How many of those removed were only said to be.
    pub would_reap: u64,
    /// How many of those moved were only said to be.
    pub would_quarantine: u64,
    /// Temps kept.
    pub kept: u64,
    /// Temps that could not be dealt with, and directories that could not be read.
    pub failed: u64,
    /// The sizes of what was removed.
    pub freed: FileSize,
    /// The sizes of what was moved to the quarantine; its space is not free.
    pub held_back: FileSize,
    /// Something was kept because it cannot be told whether it is used.
    pub cannot_tell: bool,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Watches stand and the first scan is in. Said once.
    Ready {
        /// All roots.
        roots: Vec<PathBuf>,
        /// How many temps are known.
        tracked: usize,
    },
    /// A temp was created. Only on wish: a healthy write must cost nothing.
    Tracked {
        /// The temp.
        subject: Subject,
        /// When it is looked at first.
        due: Duration,
    },
    /// A temp is gone without us. Only on wish.
    Settled {
        /// The temp.
        subject: Subject,
        /// How.
        how: Settlement,
    },
    /// A temp would be judged orphaned, but stays. Once per temp and reason.
    Kept {
        /// The temp.
        subject: Subject,
        /// Why.
        reason: Reason,
        /// By whom it is held, as far as that can be seen.
        holders: Vec<Holder>,
        /// When it is looked at again; `None` where nobody will.
        retry: Option<Duration>,
        /// It was reported before, for another reason.
        reported_before: bool,
        /// Details for people.
        details: Details,
    },
    /// A temp was removed.
    Reaped(Disposed),
    /// A temp was moved to the quarantine.
    Quarantined {
        /// The temp.
        disposed: Disposed,
        /// Its id there; `None` in a dry run.
        id: Option<String>,
        /// Why it was not removed, where a gate asked for that.
        reason: Option<Reason>,
    },
    /// A file was brought back from the quarantine.
    Restored {
        /// Where it is now.
        subject: Subject,
        /// The id it had.
        id: String,
    },
    /// A file in the quarantine was deleted for good: on wish, or because its time or room was up.
    Purged {
        /// Where it once lay.
        subject: Subject,
        /// The id it had.
        id: String,
    },
    /// Something could not be done.
    Failed {
        /// With what.
        subject: Subject,
        /// In words.
        error: String,
        /// The system's number for it.
        errno: Option<i32>,
    },
    /// A root is being scanned.
    Rescan {
        /// The root.
        root: PathBuf,
        /// Why.
        cause: RescanCause,
    },
    /// A root's state changed.
    Root {
        /// The root.
        root: PathBuf,
        /// To what.
        state: RootState,
    },
    /// The end.
    Summary(Summary),
}

impl Settlement {
    /// The word that JSON carries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Settlement::Renamed => "renamed",
            Settlement::Removed => "removed",
        }
    }
}

impl RescanCause {
    /// The word that JSON carries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RescanCause::Startup => "startup",
            RescanCause::Overflow => "overflow",
            RescanCause::Periodic => "periodic",
            RescanCause::RootReturned => "root-returned",
        }
    }
}

impl RootState {
    /// The word that JSON carries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RootState::Watching => "watching",
            RootState::Gone => "gone",
            RootState::Polling => "polling",
            RootState::Denied => "denied",
            RootState::Blind => "blind",
            RootState::NoAnswer => "no-answer",
        }
    }
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
                    self.held_back = self.held_back.plus(size);
                }
            }
            Event::Kept {
                reason,
                reported_before: again,
                ..
            } => {
                self.kept += u64::from(!again);
                self.cannot_tell |= *reason == Reason::CannotTell;
            }
            Event::Failed { .. } => self.failed += 1,
            _ => {}
        }
    }
}
