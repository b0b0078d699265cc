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
/// It also raises the limit of open files for this process, so that batches can be larger, and enlarges the table of
/// open files.
pub fn take() {
    raise_descriptor_limit();
    #[cfg(target_os = "linux")]
    if is_single_thread() {
        enlarge_descriptor_table();
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

/// Makes the kernel's table of the open files of this process as large as two workers with full batches need it.
///
/// The table starts with 64 entries and is doubled when it is full. If the process has several threads, the open(2) that
/// doubles it waits for an RCU grace period, and other calls that open files wait for it (`expand_files` in the kernel's
/// fs/file.c). A sweep of 10,000 temps with batches of 512 took 80 ms longer for that (measured).
#[cfg(target_os = "linux")]
fn enlarge_descriptor_table() {
    const ENTRIES: u64 = 2_048;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let last = limit.unwrap_or(ENTRIES).min(ENTRIES).saturating_sub(1);
    if let (Ok(file), Ok(last)) = (std::fs::File::open("/"), i32::try_from(last)) {
        // The table keeps its size when the copy is closed. Without it the sweep only takes longer.
        let _ = rustix::io::fcntl_dupfd_cloexec(&file, last);
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
