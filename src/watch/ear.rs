//! A watcher of notify's, and whether its thread still lives.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use notify::event::EventKindMask;
use notify::{Config, RecommendedWatcher, Watcher as _};

use super::Rare;

/// A watcher that can be dropped whatever has become of its thread: notify's own panics then where
/// that has ended (9.0.0-rc.7, its `inotify.rs:1395`).
pub(super) struct Ear {
    watcher: Option<RecommendedWatcher>,
    is_dead: Arc<AtomicBool>,
}

/// Owned by a callback, and so by notify's thread: when that ends, for whatever reason, this does.
pub(super) struct Guard {
    ended: Arc<dyn Fn() + Send + Sync>,
    is_dead: Arc<AtomicBool>,
    /// There is a thread: before that only a callback ends, for which no thread could be had.
    has_begun: Arc<AtomicBool>,
}

impl Ear {
    /// Starts a thread that hears what `mask` says, and whose end is rare news. The handler that `make`
    /// makes must own the guard that it is given.
    pub(super) fn new<H: notify::EventHandler>(
        (rare, generation): (&Sender<Rare>, u32),
        mask: EventKindMask,
        make: impl FnOnce(Guard) -> H,
    ) -> notify::Result<Ear> {
        let rare = rare.clone();
        let ended = move || _ = rare.send(Rare::Dead(generation));
        Ear::telling(ended, mask, make)
    }

    /// The same; when the thread ends, `ended` is called, in it.
    pub(super) fn telling<H: notify::EventHandler>(
        ended: impl Fn() + Send + Sync + 'static,
        mask: EventKindMask,
        make: impl FnOnce(Guard) -> H,
    ) -> notify::Result<Ear> {
        let ended: Arc<dyn Fn() + Send + Sync> = Arc::new(ended);
        let is_dead = Arc::new(AtomicBool::new(false));
        let has_begun = Arc::new(AtomicBool::new(false));
        let guard = Guard {
            ended: Arc::clone(&ended),
            is_dead: Arc::clone(&is_dead),
            has_begun: Arc::clone(&has_begun),
        };
        let config = Config::default()
            .with_follow_symlinks(false)
            .with_event_kinds(mask);
        let watcher = RecommendedWatcher::new(make(guard), config)?;
        has_begun.store(true, Ordering::SeqCst);
        if is_dead.load(Ordering::SeqCst) {
            // It has ended already, before anybody could have known.
            ended();
        }
        Ok(Ear {
            watcher: Some(watcher),
            is_dead,
        })
    }

    /// Its thread has ended: nothing is heard any more.
    pub(super) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    /// One that hears nothing.
    #[cfg(test)]
    pub(super) fn deaf() -> Ear {
        Ear {
            watcher: None,
            is_dead: Arc::default(),
        }
    }

    /// The watcher itself.
    pub(super) fn watcher(&mut self) -> Option<&mut RecommendedWatcher> {
        self.watcher.as_mut()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let watcher = self.watcher.take();
        if self.is_dead() {
            // A descriptor and some memory are lost with it, once for each thread that dies.
            return std::mem::forget(watcher);
        }
        // RACE: its thread may end just now; worst case: a panic is printed that ends nothing.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(watcher)));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.is_dead.store(true, Ordering::SeqCst);
        if self.has_begun.load(Ordering::SeqCst) {
            (self.ended)();
        }
    }
}
