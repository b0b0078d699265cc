//! Owns a watcher of notify and records whether the watcher's thread still runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use notify::event::EventKindMask;
use notify::{Config, RecommendedWatcher, Watcher as _};

use super::callback::WatcherContext;
use super::notification::Notification;
use crate::core::time::Mono;
use crate::sys::clock;
use crate::sys::kernel_events::RECURSIVE;

/// The events about names: half of the events that a watch reports by default. Opening, listing and reading do not wake
/// this process.
pub(super) const NAME_EVENTS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME);

/// A watcher that can be dropped even if its thread has ended. notify's own watcher panics in that case (9.0.0-rc.7,
/// its `inotify.rs:1395`).
pub(super) struct WatcherHandle {
    watcher: Option<RecommendedWatcher>,
    has_ended: Arc<AtomicBool>,
    pending: Arc<PendingRequest>,
}

/// A request to notify's thread that has not been answered yet, on Linux.
///
/// The thread handles no request before it has read all events (9.0.0-rc.7, its `inotify.rs:384`). If events arrive
/// faster than it reads them, the caller would wait for as long as the writers write. For this reason the thread ends
/// itself at the next event.
#[derive(Debug, Default)]
struct PendingRequest {
    /// The time of the request, in nanoseconds of the monotonic clock. 0: there is no request.
    since: AtomicU64,
    was_overrun: AtomicBool,
}

/// The time that the thread has to answer a request. It reads 16,384 events, which is the size of the kernel's queue,
/// in a fifth of a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of consecutive errors after which the thread ends itself. notify goes on reading after an error. If every
/// read fails, it never handles a request, so only the callback can end the thread.
const MAX_ERRORS: u32 = 100;

impl PendingRequest {
    /// Ends the thread if a request has waited for longer than [`REQUEST_TIMEOUT`].
    ///
    /// RACE: the thread may be about to answer. Worst case: a thread ends without need, and all watches are
    /// re-established.
    fn end_if_overrun(&self) {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 && clock::mono().since(Mono(since)) > REQUEST_TIMEOUT {
            self.was_overrun.store(true, Ordering::SeqCst);
            resume_unwind(Box::new("events arrive faster than they are read"));
        }
    }
}

/// Reports the end of notify's thread. A callback owns it, and the thread owns the callback, so it is dropped when the
/// thread ends for any reason.
pub(super) struct ExitGuard {
    on_exit: Arc<dyn Fn(bool) + Send + Sync>,
    has_ended: Arc<AtomicBool>,
    pending: Arc<PendingRequest>,
    /// The thread was started. Before that, the guard is dropped with a callback for which no thread could be started.
    has_begun: Arc<AtomicBool>,
}

impl WatcherHandle {
    /// Starts a thread that receives the events of `mask`, and sends a notification when the thread ends. The handler
    /// that `make_handler` returns must own the guard that it receives.
    pub(super) fn new<H: notify::EventHandler>(
        context: WatcherContext<'_>,
        mask: EventKindMask,
        make_handler: impl FnOnce(ExitGuard) -> H,
    ) -> notify::Result<WatcherHandle> {
        let notifications = context.callback.notifications.clone();
        let generation = context.generation;
        let on_exit = move |was_overrun| {
            if was_overrun {
                let _ = notifications.send(Notification::Overrun(generation));
            }
            let _ = notifications.send(Notification::WatcherEnded(generation));
        };
        WatcherHandle::with_exit(on_exit, mask, make_handler)
    }

    /// Starts a thread that receives the events of `mask`, and calls `on_exit` in the thread when the thread ends. The
    /// argument of `on_exit` is `true` if the thread could not read events as fast as they arrived.
    pub(super) fn with_exit<H: notify::EventHandler>(
        on_exit: impl Fn(bool) + Send + Sync + 'static,
        mask: EventKindMask,
        make_handler: impl FnOnce(ExitGuard) -> H,
    ) -> notify::Result<WatcherHandle> {
        let pending = Arc::<PendingRequest>::default();
        let has_ended = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::new(AtomicBool::new(false));
        let guard = ExitGuard {
            on_exit: Arc::new(on_exit),
            has_ended: Arc::clone(&has_ended),
            pending: Arc::clone(&pending),
            has_begun: Arc::clone(&has_begun),
        };
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(mask);
        let (mut handler, request) = (make_handler(guard), Arc::clone(&pending));
        let mut errors = 0;
        let handler = move |event: notify::Result<notify::Event>| {
            // On macOS notify catches a panic and only drops the event, and a request waits for no other events.
            if !RECURSIVE {
                request.end_if_overrun();
                errors = if event.is_ok() { 0 } else { errors + 1 };
                if errors >= MAX_ERRORS {
                    resume_unwind(Box::new("every read fails"));
                }
            }
            handler.handle_event(event);
        };
        // At the limit of threads pthread_create(3) fails with EAGAIN, which notify ignores on Linux (9.0.0-rc.7, its
        // `inotify.rs:243`). A watcher without a thread cannot be dropped, and each attempt would leak a descriptor.
        // For this reason another thread is started first, as a trial.
        let trial = std::thread::Builder::new().name("orphand-trial".into());
        let _ = trial.spawn(|| {}).map_err(notify::Error::io)?.join();
        let watcher = RecommendedWatcher::new(handler, config)?;
        has_begun.store(true, Ordering::SeqCst);
        if has_ended.load(Ordering::SeqCst) {
            // RACE: another thread was started between the trial and this one. Worst case: a descriptor is leaked.
            std::mem::forget(watcher);
            let error = std::io::Error::from_raw_os_error(libc::EAGAIN);
            return Err(notify::Error::io(error));
        }
        Ok(WatcherHandle {
            watcher: Some(watcher),
            has_ended,
            pending,
        })
    }

    /// Reports whether the thread has ended. After that no events are received.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Creates a handle that receives no events.
    #[cfg(test)]
    pub(super) fn without_thread() -> WatcherHandle {
        WatcherHandle {
            watcher: None,
            has_ended: Arc::default(),
            pending: Arc::default(),
        }
    }

    /// Passes a request to notify's thread. If the thread cannot read events as fast as they arrive, it ends, and the
    /// request fails.
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
            // This leaks a descriptor and some memory, once for each thread that has ended.
            return std::mem::forget(watcher);
        }
        // RACE: the thread may end at this moment. Worst case: the message of a panic is printed, and nothing ends.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        if self.has_begun.load(Ordering::SeqCst) {
            (self.on_exit)(self.pending.was_overrun.load(Ordering::SeqCst));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_ends_when_a_request_has_waited_too_long() {
        let has_ended = |since: Option<Mono>| {
            let pending = PendingRequest {
                since: AtomicU64::new(since.map_or(0, |since| since.0)),
                was_overrun: AtomicBool::new(false),
            };
            let ended = catch_unwind(AssertUnwindSafe(|| pending.end_if_overrun())).is_err();
            assert_eq!(pending.was_overrun.load(Ordering::SeqCst), ended);
            ended
        };
        let now = clock::mono();
        assert!(!has_ended(None), "there is no request");
        assert!(!has_ended(Some(now)), "there is time left");
        assert!(has_ended(Some(now.before(REQUEST_TIMEOUT * 2))));
    }
}
