//! The result of the recovery of claims.

use std::ffi::OsString;

use crate::core::judge::Reason;
use crate::core::observation::{FileSize, Observation};

/// The result of the recovery of a claim.
#[derive(Debug)]
pub enum Recovered {
    /// The claim was kept: a process holds it, or that is unknown.
    Kept(Reason),
    /// The file has this name again.
    PutBack(OsString),
    /// These files were moved to the quarantine: a claim whose name is in use or not known, or the members of a set,
    /// one of whose names is in use, or whose main file was removed or moved before.
    Quarantined(Vec<StoredMember>),
}

/// A file that was moved to the quarantine.
#[derive(Debug)]
pub struct StoredMember {
    /// Its id in the quarantine.
    pub id: String,
    /// Its name in the quarantine: the original name if that is known.
    pub name: OsString,
    /// Its size.
    pub size: FileSize,
}

/// Reports whether this process may rename the file of a claim.
pub(super) fn is_ours(seen: &Observation) -> bool {
    let us = rustix::process::geteuid();
    us.is_root() || seen.fingerprint.uid == us.as_raw()
}
