//! The running program, and whether its file has been replaced since the start.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{env, fs};

use orphand::store::json::{WirePath, field};
use serde::{Deserialize, Serialize};

/// A program file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Program {
    /// The path from which the program was started, if known.
    #[serde(flatten, with = "field::program")]
    pub(crate) path: WirePath<'static>,
    /// The identity of the file at that path; see [`stamp`].
    #[serde(rename = "program_stamp")]
    pub(crate) stamp: Option<String>,
}

impl Program {
    /// Returns the program of this process.
    pub(crate) fn current() -> Program {
        let path = env::current_exe().ok();
        Program {
            stamp: path.as_deref().and_then(stamp),
            path: path.map(Into::into),
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
