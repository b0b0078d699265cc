//! The mark that `restore` puts on a file, so that no watcher removes the file again.
//!
//! The mark is an extended attribute, because the orphand of every user must see it. It names the state of the file, so
//! any change of the content makes it invalid. On a file system without extended attributes, a list in the state folder
//! replaces it for one user.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::system;
use crate::core::observation::Fingerprint;
use crate::store::regular_file::{open_own, read_own};
use crate::sys::error;

/// The largest size of the list, in bytes. A larger list is not read, and every file that it could name is kept.
const MAX_LIST_BYTES: u64 = 64_000_000;

/// Reads and writes the marks of restored files.
#[derive(Clone, Debug)]
pub struct RestoreMarks {
    /// The list of the marks that could not be stored as extended attributes.
    list: Option<PathBuf>,
    /// The content of the list, if it was read once for a whole batch.
    cached: Option<Arc<io::Result<Vec<u8>>>>,
}

impl RestoreMarks {
    /// Creates the marks. `state` is the state folder, if there is one.
    #[must_use]
    pub fn new(state: Option<&Path>) -> RestoreMarks {
        RestoreMarks {
            list: state.map(|state| state.join("restored")),
            cached: None,
        }
    }

    /// Returns a copy that holds the current content of the list, so that the list is not read again for each file of a
    /// batch.
    ///
    /// A file is marked before it gets its original name back, and the rename sets its ctime. So if an *earlier* look
    /// has seen the file in its current state, any mark was stored before this call.
    #[must_use]
    pub fn with_list_read(&self) -> RestoreMarks {
        RestoreMarks {
            cached: Some(Arc::new(self.read_list())),
            list: self.list.clone(),
        }
    }

    /// Marks `file`, whose state is `seen`.
    pub fn put(&self, file: BorrowedFd<'_>, seen: &Fingerprint) -> io::Result<()> {
        let mark = format_mark(seen);
        match system::set_mark(file, system::RESTORED, mark.as_bytes()) {
            Ok(()) => Ok(()),
            Err(error) => self.append_to_list(seen, &mark).map_err(|_| error),
        }
    }

    fn append_to_list(&self, seen: &Fingerprint, mark: &str) -> io::Result<()> {
        let list = self.list.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if let Some(folder) = list.parent() {
            fs::create_dir_all(folder)?;
        }
        // A write that was cut off, for example on a full disk, leaves a line without its end.
        let line = format!("\n{} {mark}\n", seen.dev);
        let options = File::options().append(true).create(true).to_owned();
        let mut list = open_own(options, list)?;
        list.write_all(line.as_bytes())
    }

    /// Returns the content of the list. It is empty if the state folder cannot be read, and if the list was not written
    /// by orphand.
    fn read_list(&self) -> io::Result<Vec<u8>> {
        let Some(list) = &self.list else {
            return Ok(Vec::new());
        };
        match read_own(list, MAX_LIST_BYTES) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(Vec::new())
            }
            list => list,
        }
    }

    /// Reports whether `file` has a mark for its current state.
    pub fn has(&self, file: BorrowedFd<'_>, seen: &Fingerprint) -> io::Result<bool> {
        // An older mark may be left: a file that its owner cannot write to gets no new attribute, only a line in the list.
        let found = system::read_mark(file, system::RESTORED)?;
        if found.is_some_and(|found| found == format_mark(seen).as_bytes()) {
            return Ok(true);
        }
        let is_listed = |list: &[u8]| {
            // The list is nearly always empty.
            !list.is_empty() && {
                let line = format!("{} {}", seen.dev, format_mark(seen));
                list.split(|byte| *byte == b'\n')
                    .any(|known| known == line.as_bytes())
            }
        };
        match &self.cached {
            Some(cached) => match cached.as_ref() {
                Ok(list) => Ok(is_listed(list)),
                Err(error) => Err(error::copy(error)),
            },
            None => Ok(is_listed(&self.read_list()?)),
        }
    }
}

/// Returns the mark for the state `seen`: inode number, size and mtime. It does not contain the ctime, which changes
/// when the mark is stored.
fn format_mark(seen: &Fingerprint) -> String {
    let (sec, nsec) = (seen.mtime.sec, seen.mtime.nsec);
    format!("1 {} {} {sec}.{nsec:09}", seen.ino, seen.size)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::fs::dir;

    #[test]
    fn a_mark_is_found_in_the_list_beside_an_old_attribute_and_damaged_lines() {
        let folder = tempfile::tempdir().unwrap();
        let marks = RestoreMarks::new(Some(folder.path()));
        let path = folder.path().join("a.tmp");
        fs::write(&path, "1").unwrap();
        let file = File::open(&path).unwrap();
        let seen = || dir::observe_fd(file.as_fd()).unwrap().fingerprint;
        let has = || {
            let now = marks.has(file.as_fd(), &seen()).unwrap();
            let read_once = marks.with_list_read().has(file.as_fd(), &seen()).unwrap();
            assert_eq!(now, read_once);
            now
        };
        assert!(!has());
        marks.put(file.as_fd(), &seen()).unwrap();
        assert!(has());
        fs::write(&path, "12").unwrap();
        assert!(!has());
        fs::write(folder.path().join("restored"), b"1 \xff\n12 1 34").unwrap();
        assert!(!has());
        marks
            .append_to_list(&seen(), &format_mark(&seen()))
            .unwrap();
        assert!(has());
        fs::write(&path, "123").unwrap();
        assert!(!has());
    }
}
