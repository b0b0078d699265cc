//! A sample: how many temps are created in one directory, counted and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use notify::event::{EventKind, EventKindMask};
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use super::watcher_handle::WatcherHandle;
use super::{CallbackContext, WatchError, is_temp};

/// Counts for as long as it lives. It is a watcher of its own, so that nothing of what it hears
/// reaches the map.
pub struct RateProbe {
    created: Arc<AtomicU32>,
    _ear: WatcherHandle,
    /// After the watcher: its thread is told the usual way first.
    _over: ProbeEnd,
}

/// Says when it is dropped that the sample is over. notify hears no word of ours before it has read
/// everything; where a writer is faster than that, its thread would go on for as long as the writer.
struct ProbeEnd(Arc<AtomicBool>);

impl Drop for ProbeEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for RateProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sample")
    }
}

impl RateProbe {
    pub(super) fn begin(
        (callback_context, generation): (&CallbackContext, u32),
        dir: &Path,
    ) -> Result<RateProbe, WatchError> {
        let created = Arc::new(AtomicU32::new(0));
        let over = ProbeEnd(Arc::default());
        let mut count = counter(callback_context, Arc::clone(&created), Arc::clone(&over.0));
        let mask = EventKindMask::CREATE;
        let mut watcher_handle = WatcherHandle::new(
            (&callback_context.notifications, generation),
            mask,
            |guard| {
                move |event: notify::Result<notify::Event>| {
                    let _alive = &guard;
                    count(event);
                }
            },
        )?;
        let how =
            WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
        watcher_handle.request(|watcher| watcher.watch_with(dir, how))?;
        Ok(RateProbe {
            created,
            _ear: watcher_handle,
            _over: over,
        })
    }

    /// One that has heard of so many, and hears of no more.
    #[cfg(test)]
    pub(crate) fn with_count(created: u32) -> RateProbe {
        RateProbe {
            created: Arc::new(AtomicU32::new(created)),
            _ear: WatcherHandle::without_thread(),
            _over: ProbeEnd(Arc::default()),
        }
    }

    /// How many it has heard of so far.
    #[must_use]
    pub fn created(&self) -> u32 {
        self.created.load(Ordering::Relaxed)
    }
}

/// What notify's thread calls with each event. It ends that thread once the sample is over.
fn counter(
    callback_context: &CallbackContext,
    created: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    let roots = Arc::clone(&callback_context.roots);
    let names: Vec<_> = roots.iter().map(|root| root.policy.names.clone()).collect();
    move |event| {
        if over.load(Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("the sample is over"));
        }
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            // More than the kernel's queue holds is not calm, and what cannot be read may not be.
            _ => return created.store(u32::MAX / 2, Ordering::Relaxed),
        };
        let is_one = matches!(event.kind, EventKind::Create(_))
            && event
                .paths
                .first()
                .is_some_and(|path| is_temp(path, &names, &roots));
        if is_one {
            created.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::rate::Threshold;
    use crate::root::Root;
    use crate::temps::Temps;
    use crossbeam_channel::unbounded;
    use notify::event::CreateKind;
    use std::time::Duration;

    /// Whatever is still to be read: whoever does not count any more does not slow the writers.
    #[test]
    fn its_thread_ends_with_it_however_fast_the_events_come() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), 1);
        let root = Root {
            path: "/r".into(),
            policy: Arc::default(),
        };
        let callback_context = CallbackContext {
            temps: Arc::new(temps),
            notifications: unbounded().0,
            roots: [root].into(),
            hot_threshold: Threshold::default(),
            event_tx: None,
        };
        let (created, over) = (Arc::<AtomicU32>::default(), ProbeEnd(Arc::default()));
        let mut count = counter(&callback_context, Arc::clone(&created), Arc::clone(&over.0));
        let event = || {
            let created = EventKind::Create(CreateKind::File);
            Ok(notify::Event::new(created).add_path("/r/a.tmp".into()))
        };
        count(event());
        assert_eq!(created.load(Ordering::Relaxed), 1);
        count(Err(notify::Error::generic("nothing can be read")));
        let heard = created.load(Ordering::Relaxed);
        assert!(!Threshold::default().is_calm(heard), "who knows?");
        drop(over);
        let thread = std::thread::spawn(move || count(event()));
        assert!(thread.join().is_err(), "it reads on");
        assert_eq!(created.load(Ordering::Relaxed), heard);
    }
}
