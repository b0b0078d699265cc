//! SIGINT, SIGTERM and SIGHUP end the watch; a second one ends it at once.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use orphand::daemon::{StartError, Stopper};

use super::failed;
use crate::cli::{Exit, Failure};

pub(super) struct Signals {
    pub(super) arrived: Receiver<()>,
    stopper: Sender<Stopper>,
}

impl Signals {
    pub(super) fn listen() -> Result<Signals, Failure> {
        let hangup_ignored = hangup_is_ignored();
        let (send, arrived) = bounded(1);
        let count = AtomicU32::new(0);
        ctrlc::set_handler(move || {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                std::process::exit(130);
            }
            let _ = send.try_send(());
        })
        .map_err(|error| match error {
            // EAGAIN: it starts a thread.
            ctrlc::Error::System(error) if error.kind() == ErrorKind::WouldBlock => {
                failed(&StartError::Thread(error))
            }
            ctrlc::Error::System(error) => unheard(&error),
            error => unheard(&error),
        })?;
        if hangup_ignored {
            // nohup's wish, which ctrlc does not see.
            ignore_hangup();
        }
        leave_to_handler();
        let (stopper, to_stop) = bounded::<Stopper>(1);
        let heard = arrived.clone();
        let thread = std::thread::Builder::new().name("orphand-signals".into());
        let spawned = thread.spawn(move || {
            let Ok(stopper) = to_stop.recv() else { return };
            if heard.recv().is_ok() {
                stopper.stop();
                // Whoever should read our lines does not: nothing is half done by now.
                std::thread::sleep(Duration::from_secs(20));
                std::process::exit(Exit::Failed as i32);
            }
        });
        // Before anything is watched: what cannot hear a signal can only be killed.
        spawned.map_err(|error| failed(&StartError::Thread(error)))?;
        Ok(Signals { arrived, stopper })
    }

    /// From now on a signal stops this.
    pub(super) fn stop(self, stopper: Stopper) {
        // There is room for one, and the thread waits for it.
        let _ = self.stopper.send(stopper);
    }
}

fn unheard(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
}

fn hangup_is_ignored() -> bool {
    // SAFETY: a null `act` only asks; `old` is valid for the call, which fills it.
    unsafe {
        let mut old = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Blocks the signals in this thread and in all that it starts, so that ctrlc's thread takes them. The kernel
/// prefers the main thread, and leaves a signal pending there for as long as that hangs in a system call.
fn leave_to_handler() {
    // SAFETY: the set is filled before it is read, and both calls get valid pointers.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

fn ignore_hangup() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of ours stands on SIGHUP but ctrlc's.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}
