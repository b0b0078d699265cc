//! A watcher of notify's, and whether its thread still lives.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use notify::event::EventKindMask;
use notify::{Config, RecommendedWatcher, Watcher as _};

use super::Notification;
use crate::clock;
use crate::decide::time::Mono;

/// A watcher that can be dropped whatever has become of its thread: notify's own panics then where
/// that has ended (9.0.0-rc.7, its `inotify.rs:1395`).
pub(super) struct WatcherHandle {
    watcher: Option<RecommendedWatcher>,
    has_ended: Arc<AtomicBool>,
    pending: Arc<PendingRequest>,
}

/// Since when notify's thread is asked for something, nanoseconds of the monotonic clock; 0: it is not.
///
/// That thread hears of nothing before it has read all events (9.0.0-rc.7, its `inotify.rs:384`). Where
/// writers are faster than it reads, it never has, and whoever asked would wait for as long as they
/// write: so it ends then, by its own hand, at the next event.
#[derive(Debug, Default)]
struct PendingRequest {
    since: AtomicU64,
    was_overrun: AtomicBool,
}

/// For how long an answer is waited for: 16,384 events, all that the kernel's queue holds, are read in a
/// fifth of a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// After how many errors in a row a thread is given up. notify reads on after an error, and where every
/// read fails it never hears a word of ours, so its thread can be ended from inside only.
const MAX_ERRORS: u32 = 100;

impl PendingRequest {
    /// RACE: the answer may come just now; worst case: a thread ends that need not have, and all watches
    /// are set anew.
    fn end_if_overrun(&self) {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 && clock::mono().since(Mono(since)) > REQUEST_TIMEOUT {
            self.was_overrun.store(true, Ordering::SeqCst);
            resume_unwind(Box::new("writers are faster than their events are read"));
        }
    }
}

/// Owned by a callback, and so by notify's thread: when that ends, for whatever reason, this does.
pub(super) struct ExitGuard {
    ended: Arc<dyn Fn(bool) + Send + Sync>,
    is_dead: Arc<AtomicBool>,
    asked: Arc<PendingRequest>,
    /// There is a thread: before that only a callback ends, for which no thread could be had.
    has_begun: Arc<AtomicBool>,
}

impl WatcherHandle {
    /// Starts a thread that hears what `mask` says, and whose end is rare news. The handler that `make`
    /// makes must own the guard that it is given.
    pub(super) fn new<H: notify::EventHandler>(
        (rare, generation): (&Sender<Notification>, u32),
        mask: EventKindMask,
        make: impl FnOnce(ExitGuard) -> H,
    ) -> notify::Result<WatcherHandle> {
        let rare = rare.clone();
        let ended = move |was_outrun| {
            if was_outrun {
                let _ = rare.send(Notification::Overrun(generation));
            }
            let _ = rare.send(Notification::WatcherEnded(generation));
        };
        WatcherHandle::with_exit(ended, mask, make)
    }

    /// The same; when the thread ends, `ended` is called, in it: with `true`, where it could not read
    /// events as fast as they came.
    pub(super) fn with_exit<H: notify::EventHandler>(
        ended: impl Fn(bool) + Send + Sync + 'static,
        mask: EventKindMask,
        make: impl FnOnce(ExitGuard) -> H,
    ) -> notify::Result<WatcherHandle> {
        let asked = Arc::<PendingRequest>::default();
        let is_dead = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::new(AtomicBool::new(false));
        let guard = ExitGuard {
            ended: Arc::new(ended),
            is_dead: Arc::clone(&is_dead),
            asked: Arc::clone(&asked),
            has_begun: Arc::clone(&has_begun),
        };
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(mask);
        let (mut handler, check) = (make(guard), Arc::clone(&asked));
        let mut errors = 0;
        let handler = move |event: notify::Result<notify::Event>| {
            check.end_if_overrun();
            errors = if event.is_ok() { 0 } else { errors + 1 };
            if errors >= MAX_ERRORS {
                resume_unwind(Box::new("nothing but errors is read"));
            }
            handler.handle_event(event);
        };
        // Where there can be no more threads pthread_create(3) says EAGAIN, and notify ignores that on Linux
        // (9.0.0-rc.7, its `inotify.rs:243`). A watcher without a thread cannot be dropped, and would cost a
        // descriptor at each attempt: a thread of our own is tried first.
        let trial = std::thread::Builder::new().name("orphand-trial".into());
        let _ = trial.spawn(|| {}).map_err(notify::Error::io)?.join();
        let watcher = RecommendedWatcher::new(handler, config)?;
        has_begun.store(true, Ordering::SeqCst);
        if is_dead.load(Ordering::SeqCst) {
            // RACE: another thread took the place of the trial; worst case: a descriptor is lost.
            std::mem::forget(watcher);
            let why = std::io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(notify::Error::io(why));
        }
        Ok(WatcherHandle {
            watcher: Some(watcher),
            has_ended: is_dead,
            pending: asked,
        })
    }

    /// Its thread has ended: nothing is heard any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// One that hears nothing.
    #[cfg(test)]
    pub(super) fn without_thread() -> WatcherHandle {
        WatcherHandle {
            watcher: None,
            has_ended: Arc::default(),
            pending: Arc::default(),
        }
    }

    /// Has notify's thread do something. Where it cannot, because writers outrun it, it ends, and that
    /// is the error.
    pub(super) fn request<T>(
        &mut self,
        act: impl FnOnce(&mut RecommendedWatcher) -> notify::Result<T>,
    ) -> notify::Result<T> {
        let Some(watcher) = &mut self.watcher else {
            return Err(notify::Error::watch_not_found());
        };
        self.pending
            .since
            .store(clock::mono().0.max(1), Ordering::SeqCst);
        let done = act(watcher);
        self.pending.since.store(0, Ordering::SeqCst);
        done
    }
}

impl Drop for WatcherHandle {
    fn drop(&mut self) {
        let watcher = self.watcher.take();
        if self.has_ended() {
            // A descriptor and some memory are lost with it, once for each thread that dies.
            return std::mem::forget(watcher);
        }
        // RACE: its thread may end just now; worst case: a panic is printed that ends nothing.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.is_dead.store(true, Ordering::SeqCst);
        if self.has_begun.load(Ordering::SeqCst) {
            (self.ended)(self.asked.was_overrun.load(Ordering::SeqCst));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_outrun_ends_when_it_is_asked() {
        let asked = |since: Option<Mono>| {
            let since = AtomicU64::new(since.map_or(0, |since| since.0));
            let was_outrun = AtomicBool::new(false);
            let asked = PendingRequest {
                since,
                was_overrun: was_outrun,
            };
            let ended = catch_unwind(AssertUnwindSafe(|| asked.end_if_overrun())).is_err();
            assert_eq!(asked.was_overrun.load(Ordering::SeqCst), ended);
            ended
        };
        let now = clock::mono();
        assert!(!asked(None), "nobody asks");
        assert!(!asked(Some(now)), "it has time");
        assert!(asked(Some(now.before(REQUEST_TIMEOUT * 2))));
    }
}
