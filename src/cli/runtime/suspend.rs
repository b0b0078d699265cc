//! Removes the status line before another text is written behind it: by the shell after Ctrl-Z, or by a message on stderr.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

/// A status line is shown.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);
/// The status line was removed since the last call of [`take_removed`].
static WAS_REMOVED: AtomicBool = AtomicBool::new(false);

/// The characters that remove the current line of a terminal.
pub(crate) const ERASE_LINE: &str = "\r\x1b[K";

/// Stores whether a status line is shown.
pub(crate) fn set_shown(is_shown: bool) {
    IS_SHOWN.store(is_shown, Ordering::SeqCst);
}

/// Returns whether the status line was removed since the last call.
pub(crate) fn take_removed() -> bool {
    WAS_REMOVED.swap(false, Ordering::SeqCst)
}

/// Removes the status line before a message is written to the terminal.
pub(crate) fn make_room_for_message() {
    // The lock keeps other threads from drawing the line until it is removed.
    let mut out = io::stdout().lock();
    if IS_SHOWN.swap(false, Ordering::SeqCst) {
        // If the terminal cannot be written to, nothing is left to do.
        let _ = out.write_all(ERASE_LINE.as_bytes());
        let _ = out.flush();
        WAS_REMOVED.store(true, Ordering::SeqCst);
    }
}

/// Handles SIGTSTP from now on, unless it is ignored.
pub(crate) fn listen() {
    // SAFETY: with a null `act` the first call only reads, and fills `before`. The handler only uses functions that a
    // signal handler may call.
    unsafe {
        let mut before = std::mem::zeroed::<libc::sigaction>();
        let read = libc::sigaction(libc::SIGTSTP, std::ptr::null(), &raw mut before);
        if read != 0 || before.sa_sigaction == libc::SIG_IGN {
            return;
        }
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = suspend as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGTSTP, &raw const action, std::ptr::null_mut());
    }
}

/// The signal handler. It returns when the process is continued.
extern "C" fn suspend(_signal: libc::c_int) {
    // SAFETY: the bytes are valid for the call. write(2), getpid(2) and kill(2) may be called in a signal handler.
    unsafe {
        if IS_SHOWN.swap(false, Ordering::SeqCst) {
            // If the terminal cannot be written to, nothing is left to do.
            let _ = libc::write(
                libc::STDOUT_FILENO,
                ERASE_LINE.as_ptr().cast(),
                ERASE_LINE.len(),
            );
        }
        WAS_REMOVED.store(true, Ordering::SeqCst);
        libc::kill(libc::getpid(), libc::SIGSTOP);
    }
}
