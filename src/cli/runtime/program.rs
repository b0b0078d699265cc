//! The running program, and whether its file has been replaced since the start.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A program file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The path from which the program was started, if known.
    pub(crate) path: Option<PathBuf>,
    /// The identity of the file at that path; see [`stamp`].
    pub(crate) stamp: Option<String>,
}

impl Program {
    /// Returns the program of this process.
    pub(crate) fn current() -> Program {
        let path = env::current_exe().ok();
        Program {
            stamp: path.as_deref().and_then(stamp),
            path,
        }
    }

    /// Returns whether the path now has another file, or none.
    pub(crate) fn is_replaced(&self) -> bool {
        match (&self.path, &self.stamp) {
            (Some(path), Some(before)) => stamp(path).as_ref() != Some(before),
            _ => false,
        }
    }
}

/// Returns a text that differs between two builds at the same path.
fn stamp(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    Some(format!(
        "{}:{}:{}.{}",
        meta.dev(),
        meta.ino(),
        meta.mtime(),
        meta.mtime_nsec()
    ))
}
