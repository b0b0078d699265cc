//! The mark that `restore` leaves on a file, so that no watcher takes it again by itself.
//!
//! It is an extended attribute, because it must be seen by every orphand of every user, and it
//! names the state that the file was in: any change of the content makes it void. Where a file
//! system has no such attributes, a list in the state folder does the same for one user.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::system;
use crate::decide::observation::Fingerprint;
use crate::error;
use crate::state::{open_own, read_own};

/// The most that the list may have, bytes. One that is larger is not read, and every file in question is kept.
const MAX_LIST_BYTES: u64 = 64_000_000;

/// Where the marks are kept that a file cannot carry itself.
#[derive(Clone, Debug)]
pub struct RestoreMarks {
    list: Option<PathBuf>,
    /// What the list said when it was read for all of a batch.
    cached: Option<Arc<io::Result<String>>>,
}

impl RestoreMarks {
    /// `state` is the state folder, where there is one.
    #[must_use]
    pub fn new(state: Option<&Path>) -> RestoreMarks {
        RestoreMarks {
            list: state.map(|state| state.join("restored")),
            cached: None,
        }
    }

    /// The same, with the list as it is now: it is not read again for each file of a batch.
    ///
    /// A mark is put before the file gets its old name back, and giving that sets the time of its
    /// last change. So a file that an *earlier* look saw in the state that it is in now was marked
    /// before this call, if ever.
    #[must_use]
    pub fn with_list_read(&self) -> RestoreMarks {
        RestoreMarks {
            cached: Some(Arc::new(self.read_list())),
            list: self.list.clone(),
        }
    }

    /// Marks `file`, which is in the state `seen`.
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
        let line = format!("{} {mark}\n", seen.dev);
        let options = File::options().append(true).create(true).to_owned();
        let mut list = open_own(options, list)?;
        list.write_all(line.as_bytes())
    }

    /// The list as it is. A state folder that may not be read is done without, and so is what we have
    /// not written.
    fn read_list(&self) -> io::Result<String> {
        let Some(list) = &self.list else {
            return Ok(String::new());
        };
        let text = |bytes| {
            String::from_utf8(bytes)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        };
        match read_own(list, MAX_LIST_BYTES).and_then(text) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(String::new())
            }
            answer => answer,
        }
    }

    /// Whether `file` carries the mark of the very state that it is in.
    pub fn has(&self, file: BorrowedFd<'_>, seen: &Fingerprint) -> io::Result<bool> {
        if let Some(found) = system::read_mark(file, system::RESTORED)? {
            return Ok(found == format_mark(seen).as_bytes());
        }
        let lists = |list: &str| {
            // Mostly there is nothing in it to be compared with.
            !list.is_empty() && {
                let line = format!("{} {}", seen.dev, format_mark(seen));
                list.lines().any(|known| known == line)
            }
        };
        match &self.cached {
            Some(said) => match said.as_ref() {
                Ok(list) => Ok(lists(list)),
                Err(error) => Err(error::copy(error)),
            },
            None => Ok(lists(&self.read_list()?)),
        }
    }
}

/// Inode, size and time of the last change of content. Not `ctime`: putting the mark sets it.
fn format_mark(seen: &Fingerprint) -> String {
    let (sec, nsec) = (seen.mtime.sec, seen.mtime.nsec);
    format!("1 {} {} {sec}.{nsec:09}", seen.ino, seen.size)
}
