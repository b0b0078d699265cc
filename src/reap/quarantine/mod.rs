//! The quarantine: `.orphand/` in the root, mode 0700, for files that must not be destroyed.
//!
//! A file is stored as `.orphand/<folder>/<its path below the root>`, with its bytes, mode, owner and times unchanged.
//! The path shows where it came from, and the name of the folder (`stamp.rs`) shows when it was moved, so no record is
//! needed whose write could fail. Files that are moved within one hour share a folder, unless two of them had the same
//! path. Each file has its own id, which follows from the folder's name and the path.
//!
//! A file and its companions form a set, whose members are in one folder (`sets.rs`).
//!
//! Older versions gave each file its own folder, with the file's id as its name. Such folders are read too.
//!
//! The quarantine is created when it is needed and removed when it is empty. It must belong to orphand's user and be
//! closed to other users. Otherwise the root has no quarantine.

mod copied;
mod copy;
mod folder;
mod held;
mod sets;
mod slots;
mod stamp;
mod stored;
#[cfg(test)]
mod tests;
mod usage;

pub use copied::{NotReplaced, SetError};
pub use folder::{FOLDER, Quarantine, is_possible};
pub(super) use held::HeldCopies;
pub use sets::StoredSet;
pub(in crate::reap) use slots::ClaimedSet;
pub use slots::{QuarantineDir, Slot};
pub use stamp::MovedAs;
pub(crate) use stored::origin_id;
pub use stored::{Stored, StoredSum, is_id};
pub use usage::{QuarantineUsage, lacks_space};
