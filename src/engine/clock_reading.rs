//! Readings of the clocks during a pass.

use crate::core::time::{ClockJumpDetector, Mono, Now};
use crate::sys::clock;

/// A reading of both clocks, with the jumps that were detected until then.
#[derive(Clone, Copy)]
pub(super) struct ClockReading {
    pub(super) now: Now,
    clocks: ClockJumpDetector,
}

impl ClockReading {
    /// Reads the clocks.
    pub(super) fn take(clocks: &mut ClockJumpDetector) -> ClockReading {
        let now = clock::now();
        clocks.read(now);
        ClockReading {
            now,
            clocks: *clocks,
        }
    }

    /// Reads the clocks once more, for example after a look.
    pub(super) fn again(mut self) -> ClockReading {
        ClockReading::take(&mut self.clocks)
    }

    /// Returns the last jump of the wall clock, if there was one.
    pub(super) fn last_jump(&self) -> Option<Mono> {
        self.clocks.last_jump()
    }
}
