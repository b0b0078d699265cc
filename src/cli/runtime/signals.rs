//! Signal handling: the first SIGINT, SIGTERM or SIGHUP ends a watch or a sweep in order, a second one within a second.

use std::io::ErrorKind;
use std::process::exit;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use orphand::daemon::{StartError, Stopper};
use orphand::sys::stop::Stop;

use crate::cli::exit::{Exit, Failure};

/// The time limit for a watch or a sweep to end in order if its output is not read.
const ORDERLY_LIMIT: Duration = Duration::from_secs(20);
/// The longest time that a second signal waits for the orderly end of a watch, or for the batches of a sweep in flight, so
/// that no temp keeps the name of its claim.
const SECOND_SIGNAL_LIMIT: Duration = Duration::from_secs(1);

pub(crate) struct Signals {
    pub(crate) arrived: Receiver<()>,
    stopper: Sender<Stopper>,
}

impl Signals {
    pub(crate) fn listen() -> Result<Signals, Failure> {
        let (send, arrived) = bounded(1);
        // Some programs send one signal twice: timeout(1) sends it to the process and to its group.
        let leave = || {
            std::thread::sleep(SECOND_SIGNAL_LIMIT);
            exit(Exit::Interrupted as i32);
        };
        handle(move || _ = send.try_send(()), leave)?;
        // The kernel prefers the main thread for a signal, and the signal stays pending while that thread hangs in a
        // system call. So only the thread that waits below receives signals, because it never hangs.
        mask(libc::SIG_BLOCK);
        let (stopper, to_stop) = bounded::<Stopper>(1);
        let first_signal = arrived.clone();
        let thread = std::thread::Builder::new().name("orphand-signals".into());
        let spawned = thread.spawn(move || {
            mask(libc::SIG_UNBLOCK);
            let Ok(stopper) = to_stop.recv() else { return };
            if first_signal.recv().is_ok() {
                stopper.stop();
                // The output is not read, so the watch cannot end in order. By now no removal is unfinished.
                std::thread::sleep(ORDERLY_LIMIT);
                exit(Exit::Failed as i32);
            }
        });
        // This fails before the watch starts, because a watch without signal handling can only be killed.
        spawned.map_err(|error| Failure::from(&StartError::Thread(error)))?;
        Ok(Signals { arrived, stopper })
    }

    /// Sets the watch that a signal stops from now on.
    pub(crate) fn stop(self, stopper: Stopper) {
        // The channel has a capacity of one, and the thread waits for the message.
        let _ = self.stopper.send(stopper);
    }
}

/// Makes the first signal request the end of a sweep through `stop`, and a second one end the process as soon as no
/// temp has the name of a claim.
///
/// A sweep that cannot handle signals continues; then the first signal kills it.
pub(in crate::cli) fn end_sweep(stop: Stop) {
    let leave = |stop: &Stop, longest| {
        let _ = stop.wait_for_batches(longest);
        exit(first().map_or(Exit::Interrupted, |(exit, _)| exit) as i32);
    };
    let at_once = stop.clone();
    let in_order = move || {
        stop.stop();
        let stop = stop.clone();
        let thread = std::thread::Builder::new().name("orphand-signals".into());
        // If the thread cannot start and the output is not read, a second signal is needed.
        let _ = thread.spawn(move || {
            std::thread::sleep(ORDERLY_LIMIT);
            leave(&stop, Duration::MAX);
        });
    };
    if let Err(failure) = handle(in_order, move || leave(&at_once, SECOND_SIGNAL_LIMIT)) {
        ::log::warn!("{}; a signal will kill this sweep at once", failure.text);
    }
}

/// Returns the exit code and the name of the signal that arrived first.
pub(in crate::cli) fn first() -> Option<(Exit, &'static str)> {
    match FIRST.load(Ordering::SeqCst) {
        libc::SIGINT => Some((Exit::Interrupted, "SIGINT")),
        libc::SIGTERM => Some((Exit::Terminated, "SIGTERM")),
        libc::SIGHUP => Some((Exit::HungUp, "SIGHUP")),
        _ => None,
    }
}

/// Calls `first` when the first signal arrives, and `again` for each later one.
fn handle(
    mut first: impl FnMut() + Send + 'static,
    again: impl Fn() + Send + 'static,
) -> Result<(), Failure> {
    let hangup_ignored = hangup_is_ignored();
    // A signal between the setup of the two handlers would be handled without being noted.
    let _blocked = BlockedSignals::new();
    let before = ENDING.map(action);
    let count = AtomicU32::new(0);
    let set = ctrlc::set_handler(move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => first(),
        _ => again(),
    });
    if let Err(error) = set {
        // ctrlc may have set its handler although no thread reads from it.
        for (signal, before) in ENDING.into_iter().zip(before) {
            set_action(signal, before);
        }
        return Err(match error {
            // EAGAIN: the thread of ctrlc could not be started.
            ctrlc::Error::System(error) if error.kind() == ErrorKind::WouldBlock => {
                Failure::from(&StartError::Thread(error))
            }
            ctrlc::Error::System(error) => cannot_listen(&error),
            error => cannot_listen(&error),
        });
    }
    if hangup_ignored {
        // nohup ignores SIGHUP, and ctrlc has replaced that.
        ignore_hangup();
    }
    for signal in ENDING {
        if signal != libc::SIGHUP || !hangup_ignored {
            install_noting_handler(signal);
        }
    }
    Ok(())
}

fn cannot_listen(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}"))
}

fn hangup_is_ignored() -> bool {
    action(libc::SIGHUP).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

fn ignore_hangup() {
    // SAFETY: SIG_IGN is a valid disposition, and SIGHUP has no handler of this program except that of ctrlc.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Blocks the ending signals in this thread, and in the threads that it starts, until this is dropped. They are
/// delivered afterwards.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> BlockedSignals {
        BlockedSignals {
            before: mask(libc::SIG_BLOCK),
        }
    }
}

/// Blocks or unblocks the ending signals in this thread, and in the threads that it starts from now on. Returns the
/// previous set of blocked signals.
fn mask(how: libc::c_int) -> libc::sigset_t {
    // SAFETY: all zeroes are a valid set; both sets are valid for the calls, which fill them.
    unsafe {
        let mut before = std::mem::zeroed::<libc::sigset_t>();
        let mut ending = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut ending);
        for signal in ENDING {
            libc::sigaddset(&raw mut ending, signal);
        }
        libc::pthread_sigmask(how, &raw const ending, &raw mut before);
        before
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set is valid for the call, and the pointer for the previous set may be null.
        unsafe {
            libc::pthread_sigmask(
                libc::SIG_SETMASK,
                &raw const self.before,
                std::ptr::null_mut(),
            );
        }
    }
}

/// The signal that arrived first; 0 until then.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// The handler of ctrlc, which does not report which signal it handles.
static CTRLC: AtomicUsize = AtomicUsize::new(0);

/// Installs a handler that notes the signal, and then calls the handler of ctrlc.
fn install_noting_handler(signal: libc::c_int) {
    if let Some(mut action) = action(signal) {
        CTRLC.store(action.sa_sigaction, Ordering::SeqCst);
        // A function of the same kind: ctrlc sets no SA_SIGINFO.
        action.sa_sigaction = note_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        set_action(signal, Some(action));
    }
}

fn action(signal: libc::c_int) -> Option<libc::sigaction> {
    // SAFETY: with a null `act` the call only reads; `action` is valid for the call, which fills it.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        (libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0).then_some(action)
    }
}

fn set_action(signal: libc::c_int, action: Option<libc::sigaction>) {
    if let Some(action) = action {
        // SAFETY: it was read by `action`, and at most its handler was replaced by `note_signal`.
        unsafe {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// The signal handler. It only uses atomic numbers.
extern "C" fn note_signal(signal: libc::c_int) {
    let _ = FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
    // SAFETY: `install_noting_handler` has stored the previous handler.
    unsafe {
        let next: extern "C" fn(libc::c_int) = std::mem::transmute(CTRLC.load(Ordering::SeqCst));
        next(signal);
    }
}
