//! A file of lines with a size limit, used for the journal and for orphand's own log.
//!
//! Several processes may append to the same file. It is not synced. Once it has reached its limit, it is renamed, and
//! replaces the older file of that name. Both files together have at most about twice the limit.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

use crate::store::regular_file::open_own;

/// The file. It is opened for each append, because another process may rename it at any time.
#[derive(Debug)]
pub struct CappedFile {
    path: PathBuf,
    /// The size at which it is rotated, in bytes.
    cap: AtomicU64,
}

impl CappedFile {
    /// Returns the file at `path`, rotated at `cap` bytes. The file system is not accessed before the first append.
    #[must_use]
    pub fn new(path: PathBuf, cap: u64) -> CappedFile {
        CappedFile {
            path,
            cap: AtomicU64::new(cap),
        }
    }

    /// Sets the size at which the file is rotated, in bytes.
    pub fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Relaxed);
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the older file, which may not exist.
    #[must_use]
    pub fn older_path(&self) -> PathBuf {
        let mut name = self
            .path
            .file_name()
            .map(OsString::from)
            .unwrap_or_default();
        name.push(".1");
        self.path.with_file_name(name)
    }

    /// Appends `text`, which consists of whole lines. On an error no part of it is appended.
    pub fn append(&self, text: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        loop {
            let options = File::options()
                .read(true)
                .append(true)
                .create(true)
                .to_owned();
            let mut file = open_own(options, &self.path)?;
            // One of several processes rotates the file. The others notice that and open the new file.
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            let opened = file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(current) if current.ino() == opened.ino() => {}
                _ => continue,
            }
            let length = opened.len();
            if length >= self.cap.load(Ordering::Relaxed) && length > 0 {
                fs::rename(&self.path, self.older_path())?;
                continue;
            }
            let whole;
            let text = match ends_with_newline(&file, length) {
                true => text,
                // A crash truncated the last line. The new text must begin on a line of its own.
                false => {
                    whole = [b"\n", text].concat();
                    &whole
                }
            };
            return match file.write_all(text) {
                Ok(()) => Ok(()),
                Err(error) => {
                    // A full disk may take only a part of a line. It is removed, so that the next line is not joined to
                    // it.
                    let _ = file.set_len(length);
                    Err(error)
                }
            };
        }
    }
}

/// Reports whether the file, of this length, is empty or ends with a newline.
fn ends_with_newline(file: &File, length: u64) -> bool {
    let mut last = [0];
    match length.checked_sub(1) {
        None => true,
        Some(at) => file.read_exact_at(&mut last, at).is_ok() && last == *b"\n",
    }
}
