//! Resolves the path of a root.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::common::{DIRECTORY, PathPart};
use super::root_error::RootError;
use super::system;

/// The number of symlinks that one path may contain on Linux. Other systems allow fewer.
pub(super) const MAX_LINKS: usize = 40;

pub(super) fn open_root(path: &Path) -> Result<OwnedFd, RootError> {
    let error = match walk_to(path) {
        Err(RootError::Io(error)) => error,
        result => return result,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT) => Err(RootError::Missing),
        Some(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => Err(RootError::Symlink {
                leads_to: std::fs::canonicalize(path).ok(),
            }),
            // One of its ancestors is a file: the root does not exist.
            Err(_) => Err(RootError::Missing),
            Ok(_) => Err(RootError::NotADirectory),
        },
        _ => Err(RootError::Io(error)),
    }
}

/// Opens the directory at `path`.
fn walk_to(path: &Path) -> Result<OwnedFd, RootError> {
    let (at, name) = walk_to_parent(path)?;
    // The path may be "/" or ".".
    let name = name.as_deref().unwrap_or(OsStr::new("."));
    Ok(open(at.as_fd(), name, DIRECTORY)?)
}

fn open(at: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    rustix::fs::openat(at, name, flags, Mode::empty()).map_err(io::Error::from)
}

/// Opens the directory that contains `path`, one component at a time. Also returns the last component, unless the path
/// is "/" or ".".
///
/// A symlink in the path is followed only if it belongs to root or to this user. Otherwise another user who can write
/// to a directory of the path could redirect it, and have files deleted that only this user may delete (CVE-2018-6954
/// and similar ones).
pub(super) fn walk_to_parent(path: &Path) -> Result<(OwnedFd, Option<OsString>), RootError> {
    let us = rustix::process::geteuid().as_raw();
    let start = |path: &Path| match path.is_absolute() {
        true => open(rustix::fs::CWD, OsStr::new("/"), system::TRAVERSED),
        false => open(rustix::fs::CWD, OsStr::new("."), system::TRAVERSED),
    };
    let parts = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        let parts = parts.filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let mut at = start(path)?;
    let mut rest = parts(path);
    let mut links = 0;
    // Used only in messages.
    let mut walked = PathBuf::from(if path.is_absolute() { "/" } else { "." });
    while let Some(name) = rest.pop() {
        if rest.is_empty() {
            return Ok((at, Some(name)));
        }
        match system::path_part(at.as_fd(), &name)? {
            PathPart::Plain => {
                at = open(at.as_fd(), &name, system::TRAVERSED)?;
                walked.push(&name);
            }
            PathPart::Link { owner, .. }
                if rule!("root-links-are-ours", owner != 0 && owner != us) =>
            {
                let link = walked.join(&name);
                return Err(RootError::ForeignLink { link, owner });
            }
            PathPart::Link { to: Some(to), .. } => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(RootError::Io(Errno::LOOP.into()));
                }
                let to = Path::new(&to);
                if to.is_absolute() {
                    at = start(to)?;
                    walked = PathBuf::from("/");
                }
                rest.extend(parts(to));
            }
            PathPart::Link { to: None, .. } => {
                at = open(at.as_fd(), &name, system::TRAVERSED - OFlags::NOFOLLOW)?;
                walked.push(&name);
            }
        }
    }
    Ok((at, None))
}
