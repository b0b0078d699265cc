//! Whether this process belongs to orphand alone, or to a program that embeds the library.

#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_os = "linux")]
static IS_OWN: AtomicBool = AtomicBool::new(false);

/// Prepares this process for leases, if no other thread runs yet: blocks SIGIO, by which the kernel announces a broken
/// lease, in this thread and so in all threads that it starts. Then no lease needs a thread as the receiver of its
/// signal.
///
/// Only a program that belongs to orphand may call this. It must start no child process that neither ends nor calls
/// `execve` at once: a child has copies of the open files, and a lease lasts as long as the last of them.
///
/// It also raises the limit of open files for this process, so that batches can be larger.
pub fn take() {
    raise_descriptor_limit();
    #[cfg(target_os = "linux")]
    if is_single_thread() {
        // SAFETY: the set is filled before it is used, and SIGIO is a valid signal (pthread_sigmask(3)).
        let blocked = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGIO);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) == 0
        };
        IS_OWN.store(blocked, Ordering::Relaxed);
    }
}

/// Raises the limit of open files to what eight workers with full batches need, as far as the system allows.
fn raise_descriptor_limit() {
    const ENOUGH: u64 = 8_192;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let current = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    if limit.current.is_some_and(|before| before < current) {
        let raised = rustix::process::Rlimit {
            current: Some(current),
            ..limit
        };
        // Batches are smaller with the old limit.
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    }
}

/// Reports whether SIGIO is blocked in all threads, and no child process keeps copies of open files.
#[cfg(target_os = "linux")]
pub(crate) fn is_own() -> bool {
    IS_OWN.load(Ordering::Relaxed)
}

#[cfg(target_os = "linux")]
fn is_single_thread() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.take(2).count() == 1)
}
