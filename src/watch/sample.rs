//! A sample: how many temps are created in one directory, counted and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use notify::event::{EventKind, EventKindMask};
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use super::ear::Ear;
use super::{Inlet, Unwatched, is_temp};

/// Counts for as long as it lives. It is a watcher of its own, so that nothing of what it hears
/// reaches the map.
pub struct Sample {
    created: Arc<AtomicU32>,
    _ear: Ear,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sample")
    }
}

impl Sample {
    pub(super) fn begin(
        (inlet, generation): (&Inlet, u32),
        dir: &Path,
    ) -> Result<Sample, Unwatched> {
        let created = Arc::new(AtomicU32::new(0));
        let (count, roots) = (Arc::clone(&created), Arc::clone(&inlet.roots));
        let names: Vec<_> = roots.iter().map(|root| root.policy.names.clone()).collect();
        let mask = EventKindMask::CREATE;
        let mut ear = Ear::new((&inlet.rare, generation), mask, |guard| {
            move |event: notify::Result<notify::Event>| {
                let _alive = &guard;
                let Ok(event) = event else { return };
                let is_one = matches!(event.kind, EventKind::Create(_))
                    && event
                        .paths
                        .first()
                        .is_some_and(|path| is_temp(path, &names, &roots));
                if event.need_rescan() {
                    // More than the kernel's queue holds is not calm.
                    count.store(u32::MAX / 2, Ordering::Relaxed);
                } else if is_one {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        let how =
            WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
        match ear.watcher() {
            Some(watcher) => watcher.watch_with(dir, how)?,
            None => return Err(Unwatched::Gone),
        }
        Ok(Sample { created, _ear: ear })
    }

    /// One that has heard of so many, and hears of no more.
    #[cfg(test)]
    pub(crate) fn of(created: u32) -> Sample {
        Sample {
            created: Arc::new(AtomicU32::new(created)),
            _ear: Ear::deaf(),
        }
    }

    /// How many it has heard of so far.
    #[must_use]
    pub fn created(&self) -> u32 {
        self.created.load(Ordering::Relaxed)
    }
}
