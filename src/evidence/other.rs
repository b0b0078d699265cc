//! Evidence on any other Unix: none. There is no proof that nobody holds a file, so nobody's temp
//! is ever removed; the rest tells what can be told.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::{Census, FileId};
use crate::decide::judge::{Reach, Writer};
use crate::decide::observation::Hold;
use crate::decide::time::Mono;
use crate::look::Dir;

/// Opens a file whose type is known to be regular.
///
/// `RACE:` between the look that said *regular* and this call the name may come to stand for
/// something else. `O_NONBLOCK` and `O_NOCTTY` make a FIFO and a terminal harmless; worst case: a
/// device special file is opened and closed.
pub fn open_to_ask(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir.fd(), name, flags, Mode::empty())?)
}

/// Would ask, if there were anything to ask.
#[derive(Debug, Default)]
pub struct Asker {}

impl Asker {
    /// Needs nothing.
    #[must_use]
    pub fn new() -> Asker {
        Asker {}
    }

    /// Always [`Hold::CannotTell`].
    #[must_use]
    pub fn ask(&self, file: OwnedFd) -> (Hold, Proof) {
        (Hold::CannotTell, Proof { file })
    }

    /// Always [`Hold::CannotTell`].
    pub fn ask_again(&self, _: &mut Proof) -> Hold {
        Hold::CannotTell
    }
}

/// An open file about which nothing is proven.
#[derive(Debug)]
pub struct Proof {
    file: OwnedFd,
}

impl Proof {
    /// Always [`Hold::CannotTell`].
    pub fn take(&mut self) -> Hold {
        Hold::CannotTell
    }

    /// Never.
    #[must_use]
    pub fn again(&self) -> Hold {
        Hold::CannotTell
    }

    /// Not known.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn lock(&mut self) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Nothing is held.
    pub fn let_go(&mut self) {}

    /// The file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether the process whose pid a name carries is gone: only if there is none with that pid. A
/// zombie counts as alive, and start times are not compared: both differ from system to system.
#[must_use]
pub fn writer(pid: u32, _: Option<Mono>) -> Writer {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    match process.map(rustix::process::test_kill_process) {
        Some(Err(Errno::SRCH)) => Writer::Gone(pid),
        _ => Writer::Alive(pid),
    }
}

/// Not known.
pub(super) fn nested() -> io::Result<HashMap<u32, Vec<u32>>> {
    Ok(HashMap::new())
}

/// Not known.
pub(super) fn writer_name(_: u32, _: u32) -> Option<String> {
    None
}

/// Not known.
pub(super) fn is_locked(_: Option<&Proof>) -> Option<bool> {
    None
}

/// Not known.
pub(super) fn locked_files() -> io::Result<Vec<FileId>> {
    Ok(Vec::new())
}

/// One device, one number.
pub(super) fn may_be_device(listed: u64, dev: u64) -> bool {
    listed == dev
}

/// Nobody is seen, and that proves nothing.
#[must_use]
pub fn census(_: &[FileId], _: Reach) -> Census {
    Census::default()
}

/// Not relied on: the list in the state folder does it.
pub(super) fn set_mark(_: BorrowedFd<'_>, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Not relied on.
pub(super) fn mark(_: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    Ok(None)
}
