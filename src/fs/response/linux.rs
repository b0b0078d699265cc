//! A probe by a child process. A thread in a system call on a file system that does not respond keeps its whole process
//! from ending, even after SIGKILL if the server has read the request.

use std::ffi::CString;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use crate::sys::mutex::guard;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A process that lists one path after the other.
pub(super) struct Probe {
    process: OwnedFd,
    progress: NonNull<Progress>,
    has_ended: bool,
}

/// Memory that the probe shares with its parent.
struct Progress {
    /// The number of paths that have responded.
    responded: AtomicUsize,
    /// The probe must end after the current path.
    stop: AtomicBool,
}

// SAFETY: the pointer leads to a mapping that holds only atomics, and that only this value unmaps.
unsafe impl Send for Probe {}

impl Probe {
    /// Starts a probe of `paths`. Returns `None` if a limit is reached, or if the kernel is older than 5.9 or refuses
    /// the needed system calls.
    pub(super) fn start(paths: &[PathBuf]) -> Option<Probe> {
        let paths: Vec<CString> = paths
            .iter()
            // No file has a path with a NUL.
            .map(|path| CString::new(path.as_os_str().as_bytes()).unwrap_or_default())
            .collect();
        killed().retain(|process| !collect_child(process.as_raw_fd()));
        let progress = share()?;
        // SAFETY: the mapping exists, and only the probe's `drop` unmaps it.
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

    /// Waits until `deadline` for the end of the probe. Returns whether the probe has ended.
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
                    collect_child(self.process.as_raw_fd());
                    self.has_ended = true;
                }
                _ => return false,
            }
        }
        true
    }

    /// Returns the number of paths that have responded.
    pub(super) fn responded(&self) -> usize {
        self.progress().responded.load(Ordering::SeqCst)
    }

    /// Requests the probe to end after the current path.
    pub(super) fn stop(&self) {
        self.progress().stop.store(true, Ordering::SeqCst);
    }

    fn progress(&self) -> &Progress {
        // SAFETY: the mapping exists as long as this value.
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
            // The kernel may need some time to end it.
            if !collect_child(self.process.as_raw_fd())
                && let Ok(process) = self.process.try_clone()
            {
                killed().push(process);
            }
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
    // SAFETY: the mapping was created by `share`, and no reference into it is left.
    unsafe {
        libc::munmap(progress.as_ptr().cast(), size_of::<Progress>());
    }
}

/// The probes that were killed and had not ended by then. The next probe collects them, so that no zombie is left.
static KILLED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn killed() -> MutexGuard<'static, Vec<OwnedFd>> {
    guard(&KILLED)
}

/// Collects a child that has ended, so that no zombie is left. Returns `false` if the child is still running.
fn collect_child(process: RawFd) -> bool {
    // SAFETY: `info` is valid for the call, which fills it.
    unsafe {
        let mut info = std::mem::zeroed::<libc::siginfo_t>();
        let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
        let result = libc::waitid(libc::P_PIDFD, process as libc::id_t, &raw mut info, options);
        result != 0 || info.si_pid() != 0
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
/// The child shares the table of descriptors with this process (`CLONE_FILES`) until it drops all of them at once. A
/// fork would hold a second reference to each open file for a moment: leases would be refused, and locks would outlive
/// this process. The end of the child sends no signal, and a wait(2) of an embedding program does not return it.
///
/// # Safety
///
/// `progress` must point to memory that is shared with child processes.
#[inline(never)]
unsafe fn clone(paths: &[CString], progress: &Progress) -> Option<OwnedFd> {
    let mut process: RawFd = -1;
    let args = CloneArgs {
        flags: (libc::CLONE_FILES | libc::CLONE_PIDFD) as u64,
        pidfd: (&raw mut process) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the child has a copy of this thread's memory and stack. It only makes system calls with values that were
    // created before, and ends without returning.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) {
            0 => run_child(paths, progress),
            1.. => Some(OwnedFd::from_raw_fd(process)),
            _ => None,
        }
    }
}

/// Runs the child. It only makes system calls, because another thread may have held a lock of the allocator or of the C
/// library when this process was cloned.
///
/// # Safety
///
/// The caller is a child process that shares no memory with its parent except `progress`.
unsafe fn run_child(paths: &[CString], progress: &Progress) -> ! {
    // `CLOSE_RANGE_UNSHARE` of linux/close_range.h.
    const UNSHARE: libc::c_uint = 1 << 1;
    // SAFETY: all strings end in NUL, all buffers outlive the calls.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, UNSHARE) != 0 {
            // The table is still shared with the parent, so nothing may be opened or closed.
            libc::_exit(0);
        }
        libc::prctl(libc::PR_SET_NAME, c"orphand-probe".as_ptr());
        // Without its parent the probe has no purpose.
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
            progress.responded.fetch_add(1, Ordering::SeqCst);
            if progress.stop.load(Ordering::SeqCst) {
                break;
            }
        }
        libc::_exit(0)
    }
}
