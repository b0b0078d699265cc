//! Follows a symlink at the name of a target, if no other user can redirect it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::common::PathPart;
use super::handle::Dir;
use super::root_path::MAX_LINKS;
use super::system;
use crate::core::judge::LinkFault;
use crate::core::observation::{Kind, Observation};
use crate::core::own_names;

/// The file that a symlink leads to.
#[derive(Debug)]
pub struct Followed {
    /// The file's directory, open for look-ups only.
    pub dir: OwnedFd,
    /// The file's base name in `dir`.
    pub name: OsString,
    /// The observation of the file.
    pub seen: Observation,
}

/// The directory that a walk has reached, open for look-ups only.
struct WalkPosition<'a> {
    start: &'a Dir,
    owner: u32,
    fd: OwnedFd,
}

impl Dir {
    /// Follows the symlink `name`. It and each further symlink must belong to `owner` or root. Each directory of the
    /// walk, this one included, must belong to `owner` or root, and no other user may write to it. No mount is crossed.
    ///
    /// `RACE:` each component is opened by name and then observed by handle, so only the last name can be replaced
    /// between two calls, by `owner` or root. Worst case: that happens in the microseconds before a removal, and the
    /// temp is removed beside a symlink that leads elsewhere by then.
    ///
    /// # Errors
    ///
    /// The system reports an error.
    pub fn follow(&self, name: &OsStr, owner: u32) -> io::Result<Result<Followed, LinkFault>> {
        match self.walk(name, owner) {
            Ok(found) => Ok(Ok(found)),
            Err(WalkEnd::Fault(fault)) => Ok(Err(fault)),
            Err(WalkEnd::Io(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)) => {
                Ok(Err(LinkFault::Dangling))
            }
            Err(WalkEnd::Io(Errno::ACCESS | Errno::PERM)) => Ok(Err(LinkFault::Writable)),
            Err(WalkEnd::Io(error)) => Err(error.into()),
        }
    }

    fn walk(&self, name: &OsStr, owner: u32) -> Result<Followed, WalkEnd> {
        let mut at = WalkPosition::new(self, owner)?;
        let mut rest = vec![name.to_owned()];
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let part = system::path_part(at.fd.as_fd(), &name).map_err(WalkEnd::of)?;
            let PathPart::Link {
                owner: link_owner,
                to,
            } = part
            else {
                if rest.is_empty() {
                    return at.finish(name);
                }
                if own_names::is_own(&name) {
                    return Err(WalkEnd::Fault(LinkFault::Temp));
                }
                at.enter(&name)?;
                continue;
            };
            // Only the kernel knows the target of a link in /proc.
            let to = to.ok_or(WalkEnd::Fault(LinkFault::OtherMount))?;
            if rule!(
                "link-of-another-user",
                link_owner != owner && link_owner != 0
            ) {
                return Err(WalkEnd::Fault(LinkFault::Foreign));
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(WalkEnd::Fault(LinkFault::Dangling));
            }
            let to = Path::new(&to);
            if to.is_absolute() {
                at.enter(OsStr::new("/"))?;
            }
            let parts = to.components().rev();
            let parts =
                parts.filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
            rest.extend(parts.map(|part| part.as_os_str().to_owned()));
        }
        // The target is "/" or ".", a directory.
        at.finish(OsString::from("."))
    }
}

/// The reason for which a walk ends without a file.
enum WalkEnd {
    Fault(LinkFault),
    Io(Errno),
}

impl WalkEnd {
    fn of(error: io::Error) -> WalkEnd {
        WalkEnd::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl<'a> WalkPosition<'a> {
    fn new(start: &'a Dir, owner: u32) -> Result<WalkPosition<'a>, WalkEnd> {
        let fd = rustix::fs::openat(start.fd(), ".", system::TRAVERSED, Mode::empty());
        let at = WalkPosition {
            start,
            owner,
            fd: fd.map_err(WalkEnd::Io)?,
        };
        at.check()?;
        Ok(at)
    }

    fn enter(&mut self, name: &OsStr) -> Result<(), WalkEnd> {
        let flags = system::TRAVERSED | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        self.fd = fd.map_err(WalkEnd::Io)?;
        self.check()
    }

    /// Refuses a directory that another user could change, and one on another mount.
    fn check(&self) -> Result<(), WalkEnd> {
        let seen = system::observe_fd(self.fd.as_fd()).map_err(WalkEnd::Io)?;
        self.on_same_mount(&seen)?;
        let uid = seen.fingerprint.uid;
        let is_closed = rule!("others-write-on-the-way", !seen.others_may_write(), without: true);
        match (uid == self.owner || uid == 0) && is_closed {
            true => Ok(()),
            false => Err(WalkEnd::Fault(LinkFault::Writable)),
        }
    }

    fn on_same_mount(&self, seen: &Observation) -> Result<(), WalkEnd> {
        let start = self.start.properties();
        let same = match (seen.mount, start.mount) {
            (Some(there), Some(here)) => there == here,
            _ => seen.fingerprint.dev == start.dev,
        };
        match rule!("link-crosses-no-mount", same, without: true) {
            true => Ok(()),
            false => Err(WalkEnd::Fault(LinkFault::OtherMount)),
        }
    }

    fn finish(self, name: OsString) -> Result<Followed, WalkEnd> {
        let seen = system::observe_at(self.fd.as_fd(), &name).map_err(WalkEnd::Io)?;
        self.on_same_mount(&seen)?;
        // The name was not a symlink in the look before this one.
        if seen.fingerprint.kind == Kind::Symlink {
            return Err(WalkEnd::Fault(LinkFault::Dangling));
        }
        Ok(Followed {
            dir: self.fd,
            name,
            seen,
        })
    }
}
