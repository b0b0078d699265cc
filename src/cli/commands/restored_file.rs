//! The error and the mark of a file that is restored, to any path.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use orphand::core::observation::Observation;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::fs::dir::RootError;
use orphand::reap::quarantine::{NotReplaced, SetError, Stored, StoredSet};

use crate::cli::exit::Failure;
use crate::cli::output::shell::Suggestion;

/// Returns the error for a file that could not be restored to `to`.
pub(super) fn not_restored(stored: &Stored, to: &Path, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    if let Some(reason) = NotReplaced::of(&error) {
        return not_replaced(stored, to, reason);
    }
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let cause = "the path already exists, and restore never overwrites";
            failure(stored, to, &cause)
        }
        _ => failure(stored, to, &error),
    }
}

/// Returns the error for a file whose new directory could not be opened.
pub(super) fn no_directory(stored: &Stored, to: &Path, error: &RootError) -> Failure {
    let is_missing = match error {
        RootError::Missing => true,
        RootError::Io(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    };
    let dir = to.parent().unwrap_or(to);
    match is_missing {
        true => failure(stored, to, &format!("the directory {dir:?} does not exist")),
        false => failure(stored, to, &format!("the directory {dir:?}: {error}")),
    }
}

fn failure(stored: &Stored, to: &Path, cause: &dyn fmt::Display) -> Failure {
    let elsewhere = Suggestion::new("restore").configured();
    let id = &stored.id;
    Failure::failed(format!(
        "cannot restore {id} to {to:?}: {cause}; to restore it elsewhere: {elsewhere} --to PATH {id}"
    ))
}

/// Returns the error for a file that was not replaced by a copy on another file system.
fn not_replaced(stored: &Stored, to: &Path, reason: &NotReplaced) -> Failure {
    let (id, restore) = (&stored.id, Suggestion::new("restore").configured());
    let help = match reason {
        NotReplaced::AfterCopy(_) => "compare both, and delete one of them".to_owned(),
        NotReplaced::InUse(_) => format!(
            "restore it again when that process has ended, or to a path on its own file system, which loses nothing: \
             {restore} {id}"
        ),
        NotReplaced::CannotTell => format!(
            "restore it as its owner or root, or to a path on its own file system, which needs no proof: {restore} {id}"
        ),
        NotReplaced::Changed | NotReplaced::NotOnDisk(_) => {
            format!("to try again: {restore} --to PATH {id}")
        }
    };
    Failure::failed(format!(
        "cannot move {id} to {to:?}, which is on another file system: {reason}; the stored file stays in the \
             quarantine; {help}"
    ))
}

/// Returns the error for a set whose main file could not be restored to `to`. It names the member that failed.
pub(super) fn set_not_restored(set: &StoredSet, to: &Path, failure: SetError) -> Failure {
    let SetError { member, error } = failure;
    let members = set.members();
    let stored = members.get(member).copied().unwrap_or(&set.main);
    let name = set.name_beside(stored, to.file_name().unwrap_or_default());
    not_restored(stored, &to.with_file_name(name), error)
}

/// Returns the function that marks the file that is restored to `to`.
pub(super) fn marking(marks: &RestoreMarks, to: &Path) -> impl Fn(BorrowedFd<'_>, &Observation) {
    move |file, seen| {
        if let Err(error) = marks.put(file, &seen.fingerprint) {
            log::warn!("cannot mark {to:?} as restored ({error}): a watcher may remove it again");
        }
    }
}
