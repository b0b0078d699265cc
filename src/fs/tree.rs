//! Counts the files in a directory tree, without a change to it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::dir::{Buffer, Dir, RootError};
use crate::core::census::{Tree, TreeContent, retain_outermost};
use crate::core::observation::Kind;
use crate::core::time::Wall;

/// The maximum number of entries that are looked at in all trees of one root. It takes less than a second.
pub const MAX_ENTRIES: usize = 100_000;

/// Counts the files in `trees`, which have paths relative to `root`. Trees that no longer exist are left out, and those
/// within another one.
///
/// Symlinks are not followed, and other mounts are not entered. Only directories are opened. At most `max` entries are
/// looked at.
#[must_use]
pub fn measure(root: &Path, mut trees: Vec<(PathBuf, Kind)>, max: usize, now: Wall) -> Vec<Tree> {
    retain_outermost(&mut trees);
    let Ok(base) = Dir::open_root(root, None) else {
        return Vec::new();
    };
    let mut left = max;
    let mut content = |below: &Path, kind| match kind {
        Kind::Dir => count(&base, below, &mut left, now),
        _ => observe(&base, below, now),
    };
    let mut measured = Vec::with_capacity(trees.len());
    for (below, kind) in trees {
        let content = match content(&below, kind) {
            Err(error) if is_gone(&error) => continue,
            content => content.ok(),
        };
        measured.push(Tree {
            path: root.join(&below),
            kind,
            content,
        });
    }
    measured
}

/// Returns the age of a special file.
fn observe(base: &Dir, below: &Path, now: Wall) -> io::Result<TreeContent> {
    let dir = open(base, below.parent().unwrap_or(Path::new("")))?;
    let seen = dir.observe(below.file_name().unwrap_or_default())?;
    let seen = seen.ok_or(io::ErrorKind::NotFound)?;
    Ok(TreeContent {
        newest: now.since(seen.fingerprint.newest()),
        is_complete: true,
        ..TreeContent::default()
    })
}

fn count(base: &Dir, below: &Path, left: &mut usize, now: Wall) -> io::Result<TreeContent> {
    let mut content = TreeContent {
        is_complete: true,
        ..TreeContent::default()
    };
    let mut newest = Wall::default();
    let mut buffer = Buffer::default();
    let mut todo = vec![below.to_owned()];
    let mut is_first = true;
    while let Some(below) = todo.pop() {
        let is_first = std::mem::replace(&mut is_first, false);
        let mut names: Vec<OsString> = Vec::new();
        let read = open(base, &below).and_then(|dir| {
            dir.read_while(&mut buffer, &mut |name, _| {
                let is_within = names.len() < *left;
                if is_within {
                    names.push(name.to_owned());
                } else {
                    content.is_complete = false;
                }
                is_within
            })?;
            Ok(dir)
        });
        let dir = match read {
            Ok(dir) => dir,
            Err(error) if is_first => return Err(error),
            // It was removed in the meantime.
            Err(error) if is_gone(&error) => continue,
            Err(_) => {
                content.is_complete = false;
                continue;
            }
        };
        *left -= names.len();
        if let Some(last) = below.file_name().filter(|_| is_first)
            && let Ok(parent) = open(base, below.parent().unwrap_or(Path::new("")))
            && let Ok(Some(seen)) = parent.observe(last)
        {
            newest = seen.fingerprint.newest();
        }
        for name in names {
            let Ok(Some(seen)) = dir.observe(&name) else {
                continue;
            };
            newest = newest.max(seen.fingerprint.newest());
            match seen.fingerprint.kind {
                Kind::Dir => todo.push(below.join(&name)),
                Kind::File => {
                    content.files += 1;
                    content.size = content.size.plus(seen.size());
                }
                Kind::Symlink | Kind::Other => content.files += 1,
            }
        }
    }
    content.newest = now.since(newest);
    Ok(content)
}

/// Returns whether there is no directory at the path any more.
fn is_gone(error: &io::Error) -> bool {
    let is_mount = error.raw_os_error() == Some(libc::EXDEV);
    error.kind() == io::ErrorKind::NotFound || (RootError::is_missing_error(error) && !is_mount)
}

fn open(base: &Dir, below: &Path) -> io::Result<Dir> {
    let opened = match below.as_os_str().is_empty() {
        true => Dir::open_root(base.path(), Some(base.id())),
        false => base.open_within(below),
    };
    opened.map_err(|error| match error {
        RootError::Io(error) => error,
        error => io::Error::other(error.to_string()),
    })
}
