//! A request to end early, and how it is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ends a [`sweep`](crate::sweep::sweep) early, from another thread: the batches in flight are finished,
/// and no other begins.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    stopped: AtomicBool,
    /// The number of batches in flight.
    busy: Mutex<usize>,
    changed: Condvar,
}

/// A batch in flight, until this is dropped.
#[derive(Debug)]
pub(crate) struct BatchGuard<'a>(&'a Stop);

impl Stop {
    /// Asks for the end. Returns at once.
    pub fn stop(&self) {
        // Under the lock, so that no batch begins after this has returned.
        let _busy = self.busy();
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// Returns whether the end was asked for.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Waits until no batch is in flight, for `longest` at most. Says whether that is so.
    #[must_use]
    pub fn wait_for_batches(&self, longest: Duration) -> bool {
        let busy = self.busy();
        let waited = self
            .0
            .changed
            .wait_timeout_while(busy, longest, |busy| *busy > 0);
        let (busy, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *busy == 0
    }

    /// Begins a batch. `None`: the end was asked for.
    pub(crate) fn begin_batch(&self) -> Option<BatchGuard<'_>> {
        let mut busy = self.busy();
        if self.is_stopped() {
            return None;
        }
        *busy += 1;
        Some(BatchGuard(self))
    }

    /// Sleeps for `span`, or until the end is asked for.
    pub(crate) fn sleep(&self, span: Duration) {
        let end = Instant::now() + span;
        let mut busy = self.busy();
        while !self.is_stopped() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(busy, rest);
            busy = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn busy(&self) -> MutexGuard<'_, usize> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BatchGuard<'_> {
    fn drop(&mut self) {
        *self.0.busy() -= 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_stop_waits_for_the_batch_in_flight_and_lets_no_other_begin() {
        let stop = Stop::default();
        let batch = stop.begin_batch();
        assert!(batch.is_some());
        stop.stop();
        assert!(stop.begin_batch().is_none());
        assert!(
            !stop.wait_for_batches(Duration::from_millis(1)),
            "it is in flight"
        );
        std::thread::scope(|scope| {
            let settled = scope.spawn(|| stop.wait_for_batches(LONG));
            drop(batch);
            assert!(settled.join().unwrap());
        });
    }

    #[test]
    fn a_stop_ends_a_sleep() {
        let stop = Stop::default();
        stop.sleep(Duration::from_millis(1));
        assert!(!stop.is_stopped());
        std::thread::scope(|scope| {
            let began = Instant::now();
            let slept = scope.spawn(|| stop.sleep(LONG));
            stop.stop();
            slept.join().unwrap();
            assert!(began.elapsed() < LONG);
        });
    }
}
