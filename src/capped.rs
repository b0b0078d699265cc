//! A file of lines that never grows beyond a cap: the journal, and the log where nobody else keeps
//! one.
//!
//! Several processes may append to the same one. It is not synced. When it has reached its cap it is
//! renamed aside, where it takes the place of the one before: so it takes twice its cap at most.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;

use crate::state::open_own;

/// The file, which is opened for each append: it may be moved away at any time.
#[derive(Debug)]
pub struct CappedFile {
    path: PathBuf,
    /// Bytes.
    cap: AtomicU64,
}

impl CappedFile {
    /// The file at `path`, rotated at `cap` bytes. Nothing is touched before the first append.
    #[must_use]
    pub fn new(path: PathBuf, cap: u64) -> CappedFile {
        CappedFile {
            path,
            cap: AtomicU64::new(cap),
        }
    }

    /// From now on it is rotated at `bytes`.
    pub fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Relaxed);
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the one before it is, if there is one.
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

    /// Appends `text`, which is whole lines; all of it or, on an error, nothing.
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
            // One of several rotates, the others notice.
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            let ours = file.metadata()?;
            match fs::metadata(&self.path) {
                Ok(there) if there.ino() == ours.ino() => {}
                _ => continue,
            }
            let before = ours.len();
            if before >= self.cap.load(Ordering::Relaxed) && before > 0 {
                fs::rename(&self.path, self.older_path())?;
                continue;
            }
            let text = match ends_a_line(&file, before) {
                true => text.to_vec(),
                // A crash tore the last line: it must join no other.
                false => [b"\n", text].concat(),
            };
            return match file.write_all(&text) {
                Ok(()) => Ok(()),
                Err(error) => {
                    // Half a line, on a full disk: take it out again, so that it joins no other.
                    let _ = file.set_len(before);
                    Err(error)
                }
            };
        }
    }
}

fn ends_a_line(file: &File, length: u64) -> bool {
    let mut last = [0];
    match length.checked_sub(1) {
        None => true,
        Some(at) => file.read_exact_at(&mut last, at).is_ok() && last == *b"\n",
    }
}
