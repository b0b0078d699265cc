//! Counts the temps that are created in one directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use notify::event::{EventKind, EventKindMask};
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use super::callback::{CallbackContext, WatcherContext, is_temp};
use super::error::WatchError;
use super::watcher_handle::WatcherHandle;

/// Counts until it is dropped. It has a separate watcher, so that its events do not change the map of temps.
pub struct RateProbe {
    created: Arc<AtomicU32>,
    _watcher_handle: WatcherHandle,
    /// Dropped after the watcher, so that notify's own request to end reaches the thread first.
    _end: ProbeEnd,
}

/// Ends the probe's thread when it is dropped, if it has not ended because the directory is not calm. notify handles no
/// request before it has read all events. If events arrive faster than it reads, its thread would otherwise run for as
/// long as the writers do.
struct ProbeEnd(Arc<AtomicBool>);

impl Drop for ProbeEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for RateProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RateProbe")
    }
}

impl RateProbe {
    pub(super) fn begin(context: WatcherContext<'_>, dir: &Path) -> Result<RateProbe, WatchError> {
        let created = Arc::new(AtomicU32::new(0));
        let end = ProbeEnd(Arc::default());
        let mut count = counter(context.callback, Arc::clone(&created), Arc::clone(&end.0));
        let mask = EventKindMask::CREATE;
        let mut watcher_handle = WatcherHandle::new(context, mask, |guard| {
            move |event: notify::Result<notify::Event>| {
                let _guard = &guard;
                count(event);
            }
        })?;
        let config =
            WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
        watcher_handle.request(|watcher| watcher.watch_with(dir, config))?;
        Ok(RateProbe {
            created,
            _watcher_handle: watcher_handle,
            _end: end,
        })
    }

    /// Creates a probe that has counted `created` temps, and counts no more.
    #[cfg(test)]
    pub(crate) fn with_count(created: u32) -> RateProbe {
        RateProbe {
            created: Arc::new(AtomicU32::new(created)),
            _watcher_handle: WatcherHandle::without_thread(),
            _end: ProbeEnd(Arc::default()),
        }
    }

    /// Returns the number of temps counted so far.
    #[must_use]
    pub fn created(&self) -> u32 {
        self.created.load(Ordering::Relaxed)
    }
}

/// Returns the function that notify's thread calls with each event. It ends that thread once the probe was dropped.
fn counter(
    callback_context: &CallbackContext,
    created: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    let roots = Arc::clone(&callback_context.roots);
    let threshold = callback_context.hot_threshold;
    let names: Vec<_> = roots.iter().map(|root| root.policy.names.clone()).collect();
    move |event| {
        // More events would only slow the writers.
        if is_over.load(Ordering::Relaxed) || !threshold.is_calm(created.load(Ordering::Relaxed)) {
            std::panic::resume_unwind(Box::new("the probe has ended"));
        }
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            // Events were lost because the kernel's queue was full, or could not be read. Either way the rate may be
            // high, so it counts as high.
            _ => return created.store(u32::MAX / 2, Ordering::Relaxed),
        };
        let is_created_temp = matches!(event.kind, EventKind::Create(_))
            && event
                .paths
                .first()
                .is_some_and(|path| is_temp(path, &names, &roots));
        if is_created_temp {
            created.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rate::Threshold;
    use crate::fs::root::Root;
    use crate::index::Temps;
    use crossbeam_channel::unbounded;
    use notify::event::CreateKind;
    use std::time::Duration;

    /// The thread ends although events are still unread, so that the probe does not slow the writers any longer.
    #[test]
    fn the_thread_ends_after_the_probe_or_once_the_directory_is_not_calm() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), 1);
        let root = Root {
            path: "/r".into(),
            policy: Arc::default(),
        };
        let threshold = Threshold(100);
        let callback_context = CallbackContext {
            temps: Arc::new(temps),
            notifications: unbounded().0,
            roots: [root].into(),
            hot_threshold: threshold,
            event_tx: None,
            writes: Arc::default(),
            learn: None,
        };
        let event = || {
            let created = EventKind::Create(CreateKind::File);
            Ok(notify::Event::new(created).add_path("/r/a.tmp".into()))
        };
        let lost = || Err(notify::Error::generic("the events cannot be read"));
        // The events before the thread ends, and whether the probe is dropped then.
        for (events, is_dropped) in [
            (vec![event()], true),
            (vec![event(), event(), event(), event(), event()], false),
            (vec![event(), lost()], false),
        ] {
            let (created, end) = (Arc::<AtomicU32>::default(), ProbeEnd(Arc::default()));
            let mut count = counter(&callback_context, Arc::clone(&created), Arc::clone(&end.0));
            events.into_iter().for_each(&mut count);
            let counted = created.load(Ordering::Relaxed);
            assert_eq!(threshold.is_calm(counted), is_dropped, "{counted}");
            let kept_end = (!is_dropped).then_some(end);
            let thread = std::thread::spawn(move || count(event()));
            assert!(thread.join().is_err(), "the thread has not ended");
            assert_eq!(created.load(Ordering::Relaxed), counted);
            drop(kept_end);
        }
    }
}
