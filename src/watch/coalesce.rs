//! What comes in storms — directories made, moved and removed — goes through
//! `notify-debouncer-full`, so that a thousand of them cost one look each.
//!
//! It has no watcher of its own: it is built around a [`NullWatcher`] that hands on what our callback
//! found rare. Once made it wakes every tick for ever (0.8.0-rc.2), so it exists only while there is
//! something to calm down, and is dropped after ten silent timeouts.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use notify::event::{CreateKind, Event, EventKind};
use notify::{Config, EventHandler, RecursiveMode, Watcher, WatcherKind};
use notify_debouncer_full::{DebounceEventResult, Debouncer, NoCache, new_debouncer_opt};

/// How long a name must be quiet before it is passed on.
const TIMEOUT: Duration = Duration::from_millis(50);

/// After how many timeouts without an event the debouncer is taken down.
const IDLE_TIMEOUTS: u32 = 10;

type Handler = Box<dyn FnMut(notify::Result<Event>) + Send>;

thread_local! {
    /// The debouncer makes its watcher itself and gives it nothing but its handler: this is where
    /// the handler comes out.
    static OUTLET: RefCell<Option<Handler>> = const { RefCell::new(None) };
}

/// A watcher that watches nothing: it is fed.
#[derive(Debug)]
pub struct NullWatcher;

impl Watcher for NullWatcher {
    fn new<F: EventHandler>(mut handler: F, _: Config) -> notify::Result<NullWatcher> {
        let boxed: Handler = Box::new(move |event| handler.handle_event(event));
        OUTLET.with(|outlet| *outlet.borrow_mut() = Some(boxed));
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

/// Calms storms of names down to one message each.
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
        f.write_str("Calmer")
    }
}

impl Coalescer {
    /// Names that have calmed down go to `calm`.
    #[must_use]
    pub fn new(calm: Sender<Vec<PathBuf>>) -> Coalescer {
        Coalescer {
            output: calm,
            running: None,
        }
    }

    /// Something happened at `path`.
    pub fn add(&mut self, path: PathBuf) {
        if self.running.is_none() {
            self.running = self.start();
        }
        // Whatever happened is told as a creation: debouncing by kinds can end in the wrong one,
        // and whoever hears of it looks anyway.
        let event = Event::new(EventKind::Create(CreateKind::Folder)).add_path(path.clone());
        match &mut self.running {
            Some(running) => {
                running.last_added = Instant::now();
                (running.handler)(Ok(event));
            }
            // No thread is to be had: then there is no calm either.
            None => _ = self.output.send(vec![path]),
        }
    }

    fn start(&self) -> Option<RunningDebouncer> {
        let calm = self.output.clone();
        let on_calm = move |result: DebounceEventResult| {
            let events = result.unwrap_or_default();
            let paths = events
                .into_iter()
                .flat_map(|event| event.event.paths)
                .collect();
            let _ = calm.send(paths);
        };
        let made = new_debouncer_opt(TIMEOUT, None, on_calm, NoCache::new(), Config::default());
        let handler = OUTLET.with(|outlet| outlet.borrow_mut().take())?;
        let debouncer = made.ok()?;
        let fed = Instant::now();
        Some(RunningDebouncer {
            debouncer,
            handler,
            last_added: fed,
        })
    }

    /// When it is worth asking [`Coalescer::stop_when_idle`].
    #[must_use]
    pub fn idle_at(&self) -> Option<Instant> {
        self.running
            .as_ref()
            .map(|running| running.last_added + TIMEOUT * IDLE_TIMEOUTS)
    }

    /// Takes the debouncer down if nothing was heard for long enough.
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
    fn a_storm_comes_out_once_and_then_it_rests() {
        let (send, calm) = unbounded();
        let mut coalescer = Coalescer::new(send);
        assert!(
            coalescer.idle_at().is_none(),
            "nothing runs before there is anything to calm"
        );
        for _ in 0..1_000 {
            coalescer.add("/r/d".into());
        }
        let paths = calm
            .recv_timeout(Duration::from_secs(20))
            .expect("calm names");
        assert_eq!(paths, [PathBuf::from("/r/d")]);
        let rests_at = coalescer.idle_at().expect("it runs");
        while Instant::now() < rests_at {
            std::thread::sleep(Duration::from_millis(10));
        }
        coalescer.stop_when_idle();
        assert!(coalescer.idle_at().is_none());
    }
}
