//! The program that runs, and whether another one lies at its path by now.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// A program as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where it was started from, if that can be told.
    pub(crate) path: Option<PathBuf>,
    /// Which file that was.
    pub(crate) stamp: Option<String>,
}

impl Program {
    /// The one that runs this process.
    pub(crate) fn current() -> Program {
        let path = env::current_exe().ok();
        Program {
            stamp: path.as_deref().and_then(stamp),
            path,
        }
    }

    /// Whether another file, or none, lies at its path now.
    pub(crate) fn is_replaced(&self) -> bool {
        match (&self.path, &self.stamp) {
            (Some(path), Some(before)) => stamp(path).as_ref() != Some(before),
            _ => false,
        }
    }
}

/// What tells one build at a path from the next.
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
