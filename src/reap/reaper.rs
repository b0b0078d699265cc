//! The settings and the state with which the protocol runs.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Claims;
use super::quarantine::QuarantineUsage;
use super::types::{Hook, Step};
use crate::evidence::FlushedTargets;
use crate::sys::random::random_u64;

/// The largest number of temps that go through the protocol together. Up to three files for each of them are open at a
/// time, and a claimed temp is without its name until the whole batch is done: some 35 ms.
pub const BATCH: usize = 512;

/// The time between the release of the lease and the next request for it.
///
/// A thread inside one `open` call can pass [`Step::ProveAgain`] unseen, after it has looked up the name and before the
/// lease counts it. With one thread that opened the name again and again, 370 to 12,700 of a million files were lost
/// without this wait, and none in 15,900 with a wait of 2 ms (measured on tmpfs and ext4, two loaded cores).
pub const RELEASE_WAIT: Duration = Duration::from_millis(2);

/// Runs the protocol.
#[derive(Debug)]
pub struct Reaper {
    claims: Claims,
    pub(super) release_wait: Duration,
    batch: usize,
    hook: Option<Hook>,
    usage: Arc<QuarantineUsage>,
    flushed_targets: FlushedTargets,
}

impl Default for Reaper {
    fn default() -> Reaper {
        Reaper::new()
    }
}

impl Reaper {
    /// Creates a reaper. Its claim names contain a random number, so that two processes do not choose the same names.
    #[must_use]
    pub fn new() -> Reaper {
        Reaper {
            claims: Claims::new(random_u64() as u32),
            release_wait: RELEASE_WAIT,
            batch: affordable_batch(),
            hook: None,
            usage: Arc::default(),
            flushed_targets: FlushedTargets::default(),
        }
    }

    /// Sets the time between the release of the lease and the next request for it; the default is [`RELEASE_WAIT`].
    #[must_use]
    pub fn with_release_wait(mut self, wait: Duration) -> Reaper {
        self.release_wait = wait;
        self
    }

    /// Sets a hook that is called before each step.
    #[must_use]
    pub fn with_hook(mut self, hook: Option<Hook>) -> Reaper {
        self.hook = hook;
        self
    }

    /// Returns the number of temps that go through the protocol together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the limits and sizes of the quarantines that receive temps. A new reaper has no limits.
    #[must_use]
    pub fn usage(&self) -> &Arc<QuarantineUsage> {
        &self.usage
    }

    /// Returns the targets that are on the disk.
    #[must_use]
    pub fn flushed_targets(&self) -> &FlushedTargets {
        &self.flushed_targets
    }

    /// Returns the claim names of this reaper.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(super) fn before_step(&self, step: Step, name: &OsStr) {
        if let Some(hook) = &self.hook {
            hook.call(step, name);
        }
    }
}

/// Returns the largest batch that the limit of open files allows. A temp that is moved to the quarantine needs three
/// files.
pub(crate) fn affordable_batch() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    (limit / 8).clamp(1, BATCH)
}
