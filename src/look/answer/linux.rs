//! A probe on Linux: a child process. A thread in a system call on a file system that does not answer keeps
//! its whole process from ending, also after SIGKILL where the server has read the request.

use std::ffi::CString;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A process that looks at paths, one after the other.
pub(super) struct Probe {
    process: OwnedFd,
    progress: NonNull<Progress>,
    has_ended: bool,
}

/// The part of memory that the probe and its parent share.
struct Progress {
    /// The number of paths that have answered.
    reached: AtomicUsize,
    /// The probe is to end after the path that it is at.
    stop: AtomicBool,
}

// SAFETY: the pointer leads to a mapping that only this value unmaps, and to atomics only.
unsafe impl Send for Probe {}

impl Probe {
    /// Starts a probe of `paths`. Returns `None` where there can be none: a limit is reached, or the kernel
    /// is older than 5.9 or hides what is needed.
    pub(super) fn start(paths: &[PathBuf]) -> Option<Probe> {
        let paths: Vec<CString> = paths
            .iter()
            // A path with a NUL in it leads nowhere.
            .map(|path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default())
            .collect();
        let progress = share()?;
        // SAFETY: the mapping is there, and is unmapped by the probe's `drop` only.
        match unsafe { clone(&paths, progress.as_ref()) } {
            Some(process) => Some(Probe {
                process,
                progress,
                has_ended: false,
            }),
            None => {
                unshare(progress);
                None
            }
        }
    }

    /// Waits until `deadline` for the end of the probe. Returns whether it has come.
    pub(super) fn has_ended(&mut self, deadline: Instant) -> bool {
        while !self.has_ended {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::from_borrowed_fd(
                self.process.as_fd(),
                PollFlags::IN,
            )];
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => {}
                Ok(1..) => {
                    reap(self.process.as_raw_fd());
                    self.has_ended = true;
                }
                _ => return false,
            }
        }
        true
    }

    /// Returns the number of paths that have answered.
    pub(super) fn reached(&self) -> usize {
        self.progress().reached.load(Ordering::SeqCst)
    }

    /// Has the probe end after the path that it is at.
    pub(super) fn stop(&self) {
        self.progress().stop.store(true, Ordering::SeqCst);
    }

    fn progress(&self) -> &Progress {
        // SAFETY: the mapping lives as long as this value.
        unsafe { self.progress.as_ref() }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if !self.has_ended {
            // SAFETY: a system call on integers; the descriptor is open.
            unsafe {
                let (signal, none) = (libc::SIGKILL, std::ptr::null::<libc::siginfo_t>());
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    self.process.as_raw_fd(),
                    signal,
                    none,
                    0,
                );
            }
            reap(self.process.as_raw_fd());
        }
        unshare(self.progress);
    }
}

fn share() -> Option<NonNull<Progress>> {
    // SAFETY: a new mapping, which touches no other memory. It is filled with zeros, which are valid values.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<Progress>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    match at == libc::MAP_FAILED {
        true => None,
        false => NonNull::new(at.cast()),
    }
}

fn unshare(progress: NonNull<Progress>) {
    // SAFETY: the mapping was made by `share`, and no reference into it is left.
    unsafe {
        libc::munmap(progress.as_ptr().cast(), size_of::<Progress>());
    }
}

/// Waits for a child that has ended, so that no zombie is left. One that has not ended is left alone.
fn reap(process: RawFd) {
    // SAFETY: `info` is valid for the call, which fills it.
    unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
        libc::waitid(libc::P_PIDFD, process as libc::id_t, &raw mut info, options);
    }
}

/// `struct clone_args` of clone3(2), as Linux 5.3 has it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// Starts the child.
///
/// It shares the table of descriptors until it lets go of all of them at once (`CLONE_FILES`). A fork would
/// hold a second reference to each open file for a moment: leases would be refused, and locks would outlive
/// this process. Its end makes no signal, and a `wait` of an embedding program does not see it.
///
/// # Safety
///
/// `progress` must lead to memory that is shared with children.
#[inline(never)]
unsafe fn clone(paths: &[CString], progress: &Progress) -> Option<OwnedFd> {
    let mut process: RawFd = -1;
    let args = CloneArgs {
        flags: (libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut process) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the child has a copy of this thread's memory and its stack. It makes system calls on what was
    // made before, and ends without returning.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) {
            0 => look(paths, progress),
            1.. => Some(OwnedFd::from_raw_fd(process)),
            _ => None,
        }
    }
}

/// The whole life of the child: system calls only, because another thread may have held a lock of the
/// allocator or of the C library when this process was cloned.
///
/// # Safety
///
/// To be called in a child that shares no memory with its parent but `progress`.
unsafe fn look(paths: &[CString], progress: &Progress) -> ! {
    // `CLOSE_RANGE_UNSHARE` of linux/close_range.h.
    const UNSHARE: libc::c_uint = 1 << 1;
    // SAFETY: all strings end in NUL, all buffers outlive the calls.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, UNSHARE) != 0 {
            // The table is still the parent's: nothing may be opened or closed.
            libc::_exit(0);
        }
        libc::prctl(libc::PR_SET_NAME, c"orphand-probe".as_ptr());
        // A probe without its parent is of no use.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut names = [0_u64; 512];
        let mut system = std::mem::zeroed::<libc::statfs>();
        for path in paths {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NONBLOCK | libc::O_CLOEXEC;
            let dir = libc::open(path.as_ptr(), flags);
            if dir >= 0 {
                libc::fstatfs(dir, &raw mut system);
                let size = size_of_val(&names);
                libc::syscall(libc::SYS_getdents64, dir, names.as_mut_ptr(), size);
                libc::close(dir);
            }
            progress.reached.fetch_add(1, Ordering::SeqCst);
            if progress.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        libc::_exit(0)
    }
}
