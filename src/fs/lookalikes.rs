//! Counts the files of a scan whose names look like temps although the rule does not match them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::core::census::{Lookalike, LookalikeCounts};
use crate::core::exclude::Exclude;
use crate::core::policy::Policy;
use crate::core::temp_name::Lookalikes;
use crate::fs::dir::Dir;
use crate::sys::mutex::{guard, into_inner};

/// The largest number of files of one scan whose sizes are read. Further ones are only counted.
const MAX_SIZES: usize = 10_000;

/// Counts such files, in several threads at the same time.
#[derive(Debug)]
pub struct LookalikeCounter<'a> {
    lookalikes: Lookalikes<'a>,
    exclude: &'a Exclude,
    counts: Mutex<LookalikeCounts>,
    /// The number of files of which the size was read.
    sizes: AtomicUsize,
}

impl<'a> LookalikeCounter<'a> {
    /// Creates a counter for a rule.
    #[must_use]
    pub fn new(policy: &'a Policy) -> LookalikeCounter<'a> {
        LookalikeCounter {
            lookalikes: Lookalikes::new(&policy.names),
            exclude: &policy.exclude,
            counts: Mutex::default(),
            sizes: AtomicUsize::new(0),
        }
    }

    /// Counts the file `name` in the directory `dir`, if its name looks like a temp. The rule must not take it.
    pub fn see(&self, dir: &Dir, name: &OsStr) {
        let Some(likeness) = self.lookalikes.find(name.as_bytes()) else {
            return;
        };
        if self.exclude.excludes(&dir.below().join(name)) {
            return;
        }
        let is_sized = self.sizes.fetch_add(1, Ordering::Relaxed) < MAX_SIZES;
        let seen = is_sized.then(|| dir.observe(name).ok().flatten());
        let size = seen.flatten().map(|seen| seen.size());
        guard(&self.counts).add(likeness, dir.below(), size);
    }

    /// Returns the groups of files, the largest first. Their directories are relative to the root.
    #[must_use]
    pub fn largest_first(self) -> Vec<Lookalike> {
        into_inner(self.counts).largest_first()
    }
}
