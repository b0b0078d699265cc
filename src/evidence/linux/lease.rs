//! Proves by a lease that no process uses a file.

use std::ffi::OsStr;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::locks::{has_posix_lock, lock_whole_file};
use crate::core::observation::UseState;
use crate::fs::dir::Dir;
use crate::sys::own_process;

/// A file can be leased, which proves for as long as the lease lasts that no process uses it.
pub const HAS_LEASES: bool = true;

/// The flag of a descriptor by which it is checked whether a process uses the file: none, because the kernel does not
/// count the descriptor that requests the lease.
pub(crate) const CHECK_ONLY: OFlags = OFlags::empty();

/// Opens a file that was observed to be regular, to check whether another process uses it.
///
/// `RACE:` between the observation (in a sweep and a scan: between the listing of the directory) and this call the name
/// may be given to a FIFO, a socket or a device. `O_NONBLOCK` and `O_NOCTTY` make this call return at once. Worst case: a
/// device special file, put there by a user who has the right to create one, is opened and closed; or a program that
/// waits in open(2) to write to a FIFO gets EPIPE.
pub fn open_for_check(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    match open(dir, name, OFlags::NOATIME) {
        Err(Errno::PERM) => Ok(open(dir, name, OFlags::empty())?),
        opened => Ok(opened?),
    }
}

/// Does the same if it does not change the access time of the file, which is so for files of this user.
///
/// # Errors
///
/// The file is another user's, or the system reports an error.
pub fn open_own_for_check(dir: &Dir, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(open(dir, name, OFlags::NOATIME)?)
}

fn open(dir: &Dir, name: &OsStr, more: OFlags) -> Result<OwnedFd, Errno> {
    let no_wait = rule!("open-never-waits", OFlags::NONBLOCK, without: OFlags::empty());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | no_wait | OFlags::NOCTTY | OFlags::CLOEXEC;
    // O_NOATIME needs the owner's uid. Without it, opening the file changes its access time.
    rustix::fs::openat(dir.fd(), name, flags | more, Mode::empty())
}

/// Checks by leases whether files are used. While this value exists, SIGIO is blocked in this thread and in no other:
/// the kernel announces a broken lease by SIGIO, which kills the process by default. No setting of the whole process is
/// changed.
#[derive(Debug)]
pub struct UseChecker {
    /// The signal mask before SIGIO was blocked.
    previous_mask: libc::sigset_t,
    /// The id of this thread.
    tid: libc::pid_t,
    /// The signal mask belongs to one thread, so this value must not move to another one.
    _not_send: PhantomData<*const ()>,
}

impl Default for UseChecker {
    fn default() -> UseChecker {
        UseChecker::new()
    }
}

impl UseChecker {
    /// A file can be leased for a time. [`CheckedFile::recheck`] then shows every use of the file since it was leased.
    pub const HOLDS_LEASES: bool = true;

    /// Blocks SIGIO in this thread.
    #[must_use]
    pub fn new() -> UseChecker {
        let mut previous_mask = MaybeUninit::uninit();
        let sigio = sigio();
        // SAFETY: both sets are valid for the call, which fills `previous_mask` (pthread_sigmask(3)).
        let previous_mask = unsafe {
            let blocked =
                rule!("sigio-is-blocked-here", &raw const sigio, without: std::ptr::null());
            libc::pthread_sigmask(libc::SIG_BLOCK, blocked, previous_mask.as_mut_ptr());
            previous_mask.assume_init()
        };
        UseChecker {
            previous_mask,
            tid: rustix::thread::gettid().as_raw_nonzero().get(),
            _not_send: PhantomData,
        }
    }

    /// Checks with the kernel whether any other process has `file` open or mapped, by requesting a write lease.
    ///
    /// The kernel grants the lease only if no process on this machine uses the file: under any name, in any namespace,
    /// by a mapping whose descriptor is closed, or by a descriptor in flight over a socket (fcntl(2), and measured on
    /// ext4, xfs, btrfs and tmpfs). On overlayfs the lease does not cover mappings and users of the lower layers. A
    /// lease needs the owner's uid or `CAP_LEASE`.
    #[must_use]
    pub fn check(&self, file: OwnedFd) -> (UseState, CheckedFile) {
        let mut checked = self.unchecked(file);
        (checked.check(), checked)
    }

    /// Returns the file without a check.
    #[must_use]
    pub fn unchecked(&self, file: OwnedFd) -> CheckedFile {
        CheckedFile {
            file,
            tid: self.tid,
            has_lease: false,
            locked: false,
        }
    }

    /// Checks a file again that was checked before and released, maybe in another thread.
    pub fn check_again(&self, checked: &mut CheckedFile) -> UseState {
        checked.tid = self.tid;
        checked.check()
    }
}

impl Drop for UseChecker {
    fn drop(&mut self) {
        let sigio = sigio();
        let none = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the kernel filled `previous_mask`; `sigio` and `none` are valid for the calls.
        unsafe {
            if libc::sigismember(&raw const self.previous_mask, libc::SIGIO) == 0 {
                // A SIGIO that is pending from a broken lease must not be delivered when it is unblocked.
                libc::sigtimedwait(&raw const sigio, std::ptr::null_mut(), &raw const none);
            }
            let previous_mask = &raw const self.previous_mask;
            libc::pthread_sigmask(libc::SIG_SETMASK, previous_mask, std::ptr::null_mut());
        }
    }
}

fn sigio() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills the set, and sigaddset changes it. SIGIO is a valid signal.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
        set.assume_init()
    }
}

/// An open file, with a lease or a lock on it.
///
/// While the file is leased, another process that opens it waits: for at most `/proc/sys/fs/lease-break-time`, 45 s, if
/// this process is stopped at that moment. While it is locked, another process that locks it waits.
#[derive(Debug)]
pub struct CheckedFile {
    file: OwnedFd,
    /// The thread that requests leases, in which SIGIO is blocked.
    tid: libc::pid_t,
    has_lease: bool,
    /// This process holds a lock on the file.
    locked: bool,
}

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
struct FileOwner {
    kind: libc::c_int,
    pid: libc::pid_t,
}
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

impl CheckedFile {
    fn set_owner(&self) -> bool {
        let owner = FileOwner {
            kind: F_OWNER_TID,
            pid: rule!(
                "sigio-to-this-thread",
                self.tid,
                without: std::process::id() as libc::pid_t,
            ),
        };
        // SAFETY: F_SETOWN_EX reads one `struct f_owner_ex`, which outlives the call.
        unsafe { libc::fcntl(self.file.as_raw_fd(), F_SETOWN_EX, &raw const owner) == 0 }
    }

    fn set_lease(&self, kind: libc::c_int) -> Result<(), Errno> {
        // SAFETY: F_SETLEASE takes an int.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, kind) } {
            0 => Ok(()),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    /// Checks whether another process uses the file, by requesting the lease. This is also allowed after
    /// [`CheckedFile::release`]. It must be called in the thread of the last [`UseChecker::check`] or
    /// [`UseChecker::check_again`].
    pub fn check(&mut self) -> UseState {
        // The signal must go to this thread, where it is blocked, before there is a lease that can be broken. This is
        // needed each time, because releasing a lease clears the owner. Without an owner the kernel sends the signal to
        // the process, which is harmless if every thread blocks it.
        if !own_process::is_own() && !self.set_owner() {
            return UseState::Unknown;
        }
        let use_state = self.request_lease();
        self.has_lease |= use_state == UseState::Unused;
        use_state
    }

    fn request_lease(&self) -> UseState {
        match self.set_lease(libc::F_WRLCK) {
            Ok(()) => UseState::Unused,
            Err(Errno::AGAIN | Errno::TXTBSY) => {
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused)
            }
            Err(_) => {
                rule!("no-answer-is-not-unused", UseState::Unknown, without: UseState::Unused)
            }
        }
    }

    /// Checks whether the leased file is still unused.
    ///
    /// Two checks are needed. `F_GETLEASE` shows a process that waits in an open until the lease is released (as
    /// `F_RDLCK` or `F_UNLCK`). A second request for the lease shows a process whose open has looked up the name but
    /// not checked the lease yet, for example because an on-access scanner delays it.
    #[must_use]
    pub fn recheck(&self) -> UseState {
        // SAFETY: F_GETLEASE takes no argument.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETLEASE) } {
            libc::F_WRLCK => {
                rule!("opener-past-its-lookup", self.request_lease(), without: UseState::Unused)
            }
            -1 => UseState::Unknown,
            _ => rule!(
                "opener-that-waits",
                rule!("refused-lease-is-held", UseState::InUse, without: UseState::Unused),
                without: self.request_lease(),
            ),
        }
    }

    /// Locks the file. Returns `true` if another process holds a BSD or POSIX lock on it. Otherwise no other process
    /// can get a BSD lock, or a POSIX or OFD write lock, before [`CheckedFile::release`].
    ///
    /// This is only for files that are removed even if a process may use them. A BSD lock can be detected only by
    /// taking it (`/proc/locks` is incomplete), and a live program that tries to lock the file in the meantime fails.
    ///
    /// RACE: another process may take a POSIX read lock right after this call, because a file that is open only for
    /// reading cannot be locked against readers. Worst case: on the user's request a file is removed that was locked a
    /// moment before.
    ///
    /// # Errors
    ///
    /// The kernel reports an error, for example because it has no memory left.
    pub fn lock(&mut self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.locked = rule!(
                    "locked-to-the-end",
                    true,
                    without: rustix::fs::flock(&self.file, FlockOperation::Unlock).is_ok(),
                );
            }
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        match rule!(
            "no-lock-to-write-meanwhile",
            lock_whole_file(self.file(), libc::F_OFD_SETLK, libc::F_RDLCK),
            without: Ok(0),
        ) {
            Ok(_) => {
                rule!("posix-locks-are-asked-for", has_posix_lock(self.file()), without: Ok(false))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Releases lease and lock, and keeps the file open. Closing the file would not release them while a forked child
    /// has the descriptor.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.has_lease) {
            let _ = self.set_lease(libc::F_UNLCK);
        }
        if std::mem::take(&mut self.locked) {
            let _ = lock_whole_file(self.file(), libc::F_OFD_SETLK, libc::F_UNLCK);
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }

    /// Prepares the file for a move. A lease proves that it is unused, whatever is done to it.
    pub(crate) fn expect_move(&mut self) {}

    /// Reports whether the kernel itself proves that the file is unused.
    #[must_use]
    pub fn is_proven_by_kernel(&self) -> bool {
        true
    }

    /// Returns the open file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for CheckedFile {
    fn drop(&mut self) {
        // The close releases lease and lock, unless a child process has a copy of the open file.
        if !own_process::is_own() {
            self.release();
        }
    }
}

/// Returns whether another process holds a BSD or POSIX lock on the file. Returns `None` if the open file does not show
/// that.
pub(in crate::evidence) fn is_locked(checked: Option<&CheckedFile>) -> Option<bool> {
    let checked = checked?;
    // While this process holds the lock, no other process can, and the lock that is visible is ours.
    let ours = checked.locked.then_some(false);
    ours.or_else(|| has_posix_lock(checked.file()).ok().filter(|locked| *locked))
}
