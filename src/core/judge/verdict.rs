//! The verdict on a temp, and the reasons for keeping one.

use std::fmt;

words! {
    /// The reason why a temp is kept. This is a closed list on which scripts rely.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Reason {
        /// It was restored from the quarantine and has not changed since.
        Restored = "restored",
        /// It has not been quiet for its grace yet.
        Young = "young",
        /// It is no longer in the state that the last look saw.
        Changed = "changed",
        /// It is not a regular file.
        NotRegular = "not-regular",
        /// It is on another mount than its directory.
        OtherMount = "other-mount",
        /// It is immutable or append-only, or its data is not on this disk.
        Protected = "protected",
        /// It has another hard link.
        HardLinked = "hard-linked",
        /// The proof that a file is unused is not known to be valid on its file system.
        NetworkFs = "network-fs",
        /// It belongs to another user.
        ForeignOwner = "foreign-owner",
        /// The process whose pid is in its name is running, or may be.
        WriterAlive = "writer-alive",
        /// It was closed, and the rule ignores closed temps.
        Closed = "closed",
        /// A process holds a lock on it.
        Locked = "locked",
        /// A process has it open or mapped.
        InUse = "in-use",
        /// It cannot be proven that no process uses it.
        CannotTell = "cannot-tell",
        /// It may be the only copy of its data.
        SoleCopy = "sole-copy",
        /// It would be moved to the quarantine, but no quarantine is possible here.
        NoQuarantine = "no-quarantine",
        /// It would be moved to the quarantine, which is full and contains nothing that may be dropped.
        QuarantineFull = "quarantine-full",
        /// Its name is reserved for locks, databases, transfers or backups, or is the name of another temp's target.
        Reserved = "reserved",
    }
}

impl Reason {
    /// Reports whether the reason is that a process uses the temp.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Reason::InUse | Reason::Locked)
    }

    /// Reports whether this reason can end without a file system event: a holder closes the file, a lock is released,
    /// or a writer exits.
    #[must_use]
    pub fn ends_without_event(self) -> bool {
        matches!(self, Reason::InUse | Reason::Locked | Reason::WriterAlive)
    }

    pub(crate) fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The decision on a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Delete it.
    Reap,
    /// Move it to the quarantine. `Some` if a gate requires that, with the reason.
    Quarantine(Option<Reason>),
    /// Keep it where it is.
    Keep(Reason),
}

impl Verdict {
    /// Returns its name in events and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Reap => "reap",
            Verdict::Quarantine(_) => "quarantine",
            Verdict::Keep(_) => "keep",
        }
    }

    /// Returns the reason, if a gate gave one.
    #[must_use]
    pub fn reason(self) -> Option<Reason> {
        match self {
            Verdict::Reap => None,
            Verdict::Quarantine(reason) => reason,
            Verdict::Keep(reason) => Some(reason),
        }
    }
}
