//! Coalesces events about directories with `notify-debouncer-full`, so that a burst of events costs one look for each
//! directory.
//!
//! The debouncer has no watcher of its own. It is built around a [`NullWatcher`], and receives the events that the
//! callback reports as rare. Once created, a debouncer wakes at every tick until it is dropped (0.8.0-rc.2). For this
//! reason it is created at the first event, and dropped after ten timeouts without an event.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use notify::event::{CreateKind, Event, EventKind};
use notify::{Config, EventHandler, RecursiveMode, Watcher, WatcherKind};
use notify_debouncer_full::{DebounceEventResult, Debouncer, NoCache, new_debouncer_opt};

/// The time without an event about a path after which the path is passed on.
const TIMEOUT: Duration = Duration::from_millis(50);

/// The number of timeouts without an event after which the debouncer is dropped.
const IDLE_TIMEOUTS: u32 = 10;

type Handler = Box<dyn FnMut(notify::Result<Event>) + Send>;

thread_local! {
    /// The handler of the debouncer that is being created. The debouncer creates its watcher itself and passes the
    /// handler only to the watcher, which stores it here.
    static HANDLER_SLOT: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// A watcher that watches nothing. Its events come from [`Coalescer::add`].
#[derive(Debug)]
pub struct NullWatcher;

impl Watcher for NullWatcher {
    fn new<F: EventHandler>(mut handler: F, _: Config) -> notify::Result<NullWatcher> {
        let boxed: Handler = Box::new(move |event| handler.handle_event(event));
        HANDLER_SLOT.with(|slot| *slot.borrow_mut() = Some(boxed));
        Ok(NullWatcher)
    }

    fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
        Ok(())
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        Ok(())
    }

    fn kind() -> WatcherKind {
        WatcherKind::NullWatcher
    }
}

/// Combines a burst of events about one path into one message.
pub struct Coalescer {
    output: Sender<Vec<PathBuf>>,
    running: Option<RunningDebouncer>,
}

struct RunningDebouncer {
    debouncer: Debouncer<NullWatcher, NoCache>,
    handler: Handler,
    last_added: Instant,
}

impl std::fmt::Debug for Coalescer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coalescer")
    }
}

impl Coalescer {
    /// Creates a coalescer that sends to `output` the paths about which no more events arrive.
    #[must_use]
    pub fn new(output: Sender<Vec<PathBuf>>) -> Coalescer {
        Coalescer {
            output,
            running: None,
        }
    }

    /// Adds an event about `path`.
    pub fn add(&mut self, path: PathBuf) {
        if self.running.is_none() {
            self.running = self.start();
        }
        // Every event is passed as a creation. Debouncing by kinds can end with the wrong kind, and the receiver looks
        // at the path in any case.
        let event = Event::new(EventKind::Create(CreateKind::Folder)).add_path(path.clone());
        match &mut self.running {
            Some(running) => {
                running.last_added = Instant::now();
                (running.handler)(Ok(event));
            }
            // No thread could be started: the event is not coalesced.
            None => _ = self.output.send(vec![path]),
        }
    }

    fn start(&self) -> Option<RunningDebouncer> {
        let output = self.output.clone();
        let on_result = move |result: DebounceEventResult| {
            let events = result.unwrap_or_default();
            let paths = events
                .into_iter()
                .flat_map(|event| event.event.paths)
                .collect();
            let _ = output.send(paths);
        };
        let created =
            new_debouncer_opt(TIMEOUT, None, on_result, NoCache::new(), Config::default());
        let handler = HANDLER_SLOT.with(|slot| slot.borrow_mut().take())?;
        Some(RunningDebouncer {
            debouncer: created.ok()?,
            handler,
            last_added: Instant::now(),
        })
    }

    /// Returns the time at which [`Coalescer::stop_when_idle`] should be called.
    #[must_use]
    pub fn idle_at(&self) -> Option<Instant> {
        self.running
            .as_ref()
            .map(|running| running.last_added + TIMEOUT * IDLE_TIMEOUTS)
    }

    /// Drops the debouncer if no event was added for long enough.
    pub fn stop_when_idle(&mut self) {
        if self.idle_at().is_some_and(|at| at <= Instant::now())
            && let Some(running) = self.running.take()
        {
            running.debouncer.stop_nonblocking();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn a_burst_is_sent_once_and_then_the_debouncer_stops() {
        let (output, coalesced) = unbounded();
        let mut coalescer = Coalescer::new(output);
        assert!(
            coalescer.idle_at().is_none(),
            "no debouncer runs before the first event"
        );
        for _ in 0..1_000 {
            coalescer.add("/r/d".into());
        }
        let paths = coalesced
            .recv_timeout(Duration::from_secs(20))
            .expect("coalesced paths");
        assert_eq!(paths, [PathBuf::from("/r/d")]);
        let idle_at = coalescer.idle_at().expect("the debouncer runs");
        while Instant::now() < idle_at {
            std::thread::sleep(Duration::from_millis(10));
        }
        coalescer.stop_when_idle();
        assert!(coalescer.idle_at().is_none());
    }
}
