//! A request to end a sweep early, and the wait for its running batches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::mutex::guard;

/// Ends a [`sweep`](crate::engine::sweep::sweep) early, from another thread. Batches in flight are finished, and no
/// other batch begins.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    stopped: AtomicBool,
    /// The number of batches in flight.
    in_flight: Mutex<usize>,
    changed: Condvar,
}

/// Counts one batch as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct BatchGuard<'a>(&'a Stop);

impl Stop {
    /// Requests the end of the sweep. Returns without waiting.
    pub fn stop(&self) {
        // Holding the lock ensures that no batch begins after this function has returned.
        let _in_flight = self.in_flight();
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// Reports whether the end was requested.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Waits at most `longest` until no batch is in flight. Reports whether none is.
    #[must_use]
    pub fn wait_for_batches(&self, longest: Duration) -> bool {
        let in_flight = self.in_flight();
        let waited = self
            .0
            .changed
            .wait_timeout_while(in_flight, longest, |in_flight| *in_flight > 0);
        let (in_flight, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *in_flight == 0
    }

    /// Begins a batch. Returns `None` if the end was requested.
    pub(crate) fn begin_batch(&self) -> Option<BatchGuard<'_>> {
        let mut in_flight = self.in_flight();
        if self.is_stopped() {
            return None;
        }
        *in_flight += 1;
        Some(BatchGuard(self))
    }

    /// Sleeps for `span`, or until the end is requested.
    pub(crate) fn sleep(&self, span: Duration) {
        let end = Instant::now() + span;
        let mut in_flight = self.in_flight();
        while !self.is_stopped() {
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(in_flight, rest);
            in_flight = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn in_flight(&self) -> MutexGuard<'_, usize> {
        guard(&self.0.in_flight)
    }
}

impl Drop for BatchGuard<'_> {
    fn drop(&mut self) {
        *self.0.in_flight() -= 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_stop_waits_for_the_batch_in_flight_and_prevents_others() {
        let stop = Stop::default();
        let batch = stop.begin_batch();
        assert!(batch.is_some());
        stop.stop();
        assert!(stop.begin_batch().is_none());
        assert!(
            !stop.wait_for_batches(Duration::from_millis(1)),
            "the batch is in flight"
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
            let start = Instant::now();
            let slept = scope.spawn(|| stop.sleep(LONG));
            stop.stop();
            slept.join().unwrap();
            assert!(start.elapsed() < LONG);
        });
    }
}
