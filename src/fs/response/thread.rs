//! A probe by a thread, for systems where a process cannot be cloned safely.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

/// A thread that lists one path after the other.
pub(super) struct Probe {
    ended: Receiver<()>,
    progress: Arc<Progress>,
    has_ended: bool,
}

#[derive(Default)]
struct Progress {
    /// The number of paths that have responded.
    responded: AtomicUsize,
    /// The probe must end after the current path.
    stop: AtomicBool,
}

impl Probe {
    /// Starts a probe of `paths`. Returns `None` at the limit of threads.
    pub(super) fn start(paths: &[PathBuf]) -> Option<Probe> {
        let (end, ended) = bounded::<()>(1);
        let progress = Arc::<Progress>::default();
        let (paths, shared) = (paths.to_vec(), Arc::clone(&progress));
        let thread = std::thread::Builder::new().name("orphand-probe".into());
        let look = move || {
            let _end = end;
            for path in paths {
                let entries = std::fs::read_dir(path);
                let _ = entries.map(|mut entries| entries.next().is_some());
                shared.responded.fetch_add(1, Ordering::SeqCst);
                if shared.stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        };
        thread.spawn(look).ok()?;
        Some(Probe {
            ended,
            progress,
            has_ended: false,
        })
    }

    /// Waits until `deadline` for the end of the probe. Returns whether the probe has ended.
    pub(super) fn has_ended(&mut self, deadline: Instant) -> bool {
        let waited = |ended: &Receiver<()>| ended.recv_deadline(deadline);
        // Nothing is ever sent. The channel is disconnected when the thread ends.
        self.has_ended |= waited(&self.ended) != Err(RecvTimeoutError::Timeout);
        self.has_ended
    }

    /// Returns the number of paths that have responded.
    pub(super) fn responded(&self) -> usize {
        self.progress.responded.load(Ordering::SeqCst)
    }

    /// Requests the probe to end after the current path.
    pub(super) fn stop(&self) {
        self.progress.stop.store(true, Ordering::SeqCst);
    }
}
