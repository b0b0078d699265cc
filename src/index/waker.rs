//! Wakes the scheduler, and records the creations that it has to know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::core::time::Mono;

/// Wakes the scheduler when a temp is created while it sleeps for long, and when it has to read the map again.
#[derive(Debug)]
pub struct Waker {
    /// The scheduler sleeps so long that the next creation must wake it.
    asleep: AtomicBool,
    /// The scheduler was woken to read the whole map again.
    stale: AtomicBool,
    wake_tx: Sender<()>,
    /// The time of the last creation of a temp, in nanoseconds of the monotonic clock; 0 if there was none.
    last_created: AtomicU64,
    /// The time of the first creation of a temp since [`Waker::forget_first_created`]; 0 if there was none.
    first_created: AtomicU64,
}

impl Waker {
    /// Returns a waker, and the receiver that it wakes.
    pub(super) fn new() -> (Waker, Receiver<()>) {
        let (wake_tx, wake_rx) = bounded(1);
        let waker = Waker {
            asleep: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            wake_tx,
            last_created: AtomicU64::new(0),
            first_created: AtomicU64::new(0),
        };
        (waker, wake_rx)
    }

    /// Records the creation of a temp, which is already in the map. Wakes the scheduler if it sleeps for long.
    pub(super) fn note_created(&self, now: Mono) {
        self.last_created.store(now.0, Ordering::Relaxed);
        // This comes after the insertion. `due_before` first clears this time and then reads the map, so it either
        // finds the temp or finds this time set afterwards.
        if self.first_created.load(Ordering::Relaxed) == 0 {
            self.first_created.store(now.0.max(1), Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.notify();
        }
    }

    /// Makes the scheduler read the whole map again.
    pub fn wake(&self) {
        self.stale.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn notify(&self) {
        // If the channel is full, the scheduler already has a wake-up.
        let _ = self.wake_tx.try_send(());
    }

    /// Returns the time of the last reported creation of a temp.
    #[must_use]
    pub fn last_created(&self) -> Option<Mono> {
        let created = self.last_created.load(Ordering::Relaxed);
        (created > 0).then_some(Mono(created))
    }

    /// Returns whether the scheduler was woken to read the whole map again, and resets this.
    #[must_use]
    pub fn take_stale(&self) -> bool {
        self.stale.swap(false, Ordering::SeqCst)
    }

    /// Returns the time of the first creation of a temp since the map was last read, if there was one.
    #[must_use]
    pub fn first_created(&self) -> Option<Mono> {
        let first = self.first_created.load(Ordering::SeqCst);
        (first > 0).then_some(Mono(first))
    }

    /// Forgets the time of the first creation, because the map is about to be read.
    pub(super) fn forget_first_created(&self) {
        self.first_created.store(0, Ordering::SeqCst);
    }

    /// Announces that the scheduler is about to sleep for a long time, so that the next creation wakes it. Returns
    /// `false` if a temp was created in the meantime.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let is_calm = self.first_created().is_none();
        if !is_calm {
            self.asleep.store(false, Ordering::SeqCst);
        }
        is_calm
    }
}
