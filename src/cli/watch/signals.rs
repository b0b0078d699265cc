//! SIGINT, SIGTERM and SIGHUP end the watch; a second one ends it at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use orphand::daemon::Stopper;

use crate::cli::{Exit, Failure};

pub(super) struct Signals {
    pub(super) arrived: crossbeam_channel::Receiver<()>,
}

impl Signals {
    pub(super) fn listen() -> Result<Signals, Failure> {
        let hangup_ignored = hangup_is_ignored();
        let (send, arrived) = crossbeam_channel::bounded(1);
        let count = AtomicU32::new(0);
        ctrlc::set_handler(move || {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                std::process::exit(130);
            }
            let _ = send.try_send(());
        })
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
        })?;
        if hangup_ignored {
            // nohup's wish, which ctrlc does not see.
            ignore_hangup();
        }
        Ok(Signals { arrived })
    }

    pub(super) fn stop(self, stopper: Stopper) {
        let thread = std::thread::Builder::new().name("orphand-signals".into());
        let spawned = thread.spawn(move || {
            if self.arrived.recv().is_ok() {
                stopper.stop();
                // Whoever should read our lines does not: nothing is half done by now.
                std::thread::sleep(Duration::from_secs(20));
                std::process::exit(Exit::Failed as i32);
            }
        });
        if let Err(error) = spawned {
            log::error!("signals will not be heard: {error}");
        }
    }
}

fn hangup_is_ignored() -> bool {
    // SAFETY: a null `act` only asks; `old` is valid for the call, which fills it.
    unsafe {
        let mut old = std::mem::zeroed::<libc::sigaction>();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

fn ignore_hangup() {
    // SAFETY: SIG_IGN is a valid disposition, and no handler of ours stands on SIGHUP but ctrlc's.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}
