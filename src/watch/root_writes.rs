//! The times of healthy writes in each root.
//!
//! A write is measured from the event of the temp's creation to the event of its rename, by the time at which the
//! callback receives each. So a measured time is wrong by as much as the callback was late with one of the two.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::core::policy::Graces;
use crate::core::time::typed;
use crate::core::write_times::{WriteSummary, WriteTimes, fitting_grace, is_long};
use crate::fs::root::{Root, innermost};
use crate::index::SplitPath;
use crate::sys::mutex::guard;

/// The times of healthy writes in all roots, also in roots of former rules. The callbacks write it; the status reads
/// it.
#[derive(Debug, Default)]
pub struct RootWrites {
    roots: Mutex<BTreeMap<PathBuf, Arc<Mutex<Writes>>>>,
}

/// The writes in one root.
#[derive(Debug, Default)]
struct Writes {
    times: WriteTimes,
    /// The longest write that took more than half of its grace.
    slow: Option<SlowWrite>,
    /// A long write was reported when the rule had these graces.
    reported: Option<Graces>,
}

/// A healthy write that took more than half of its grace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowWrite {
    /// The path of the temp.
    pub path: PathBuf,
    /// The time from its creation to its rename.
    pub took: Duration,
    /// The grace of its name.
    pub grace: Duration,
}

impl SlowWrite {
    /// Returns the warning, with a grace that fits.
    #[must_use]
    pub fn message(&self) -> String {
        let took = match self.took {
            took if took < Duration::from_secs(10) => Duration::from_millis(millis(took)),
            took => Duration::from_secs(took.as_secs()),
        };
        format!(
            "{:?} was renamed {} after its creation, which is more than half of its grace of {}: a writer that pauses \
             for so long may lose its temp; to give it more time: --grace {fit} (grace = \"{fit}\")",
            self.path,
            typed(took),
            typed(self.grace),
            fit = typed(fitting_grace(self.took))
        )
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl RootWrites {
    /// Returns the summary of the writes in `root`. `None` if none was measured.
    #[must_use]
    pub fn summary_of(&self, root: &Path) -> Option<WriteSummary> {
        let writes = guard(&self.roots).get(root).cloned()?;
        guard(&writes).times.summary()
    }

    /// Returns the longest write in `root` that took more than half of the grace that it has by the current rule.
    #[must_use]
    pub fn slow_in(&self, root: &Root) -> Option<SlowWrite> {
        let writes = guard(&self.roots).get(&*root.path).cloned()?;
        let slow = guard(&writes).slow.clone()?;
        let grace = grace_of(root, slow.path.file_name()?);
        is_long(slow.took, grace).then_some(SlowWrite { grace, ..slow })
    }

    /// Returns the summary of the writes in all roots.
    #[must_use]
    pub fn total(&self) -> Option<WriteSummary> {
        let roots: Vec<Arc<Mutex<Writes>>> = guard(&self.roots).values().cloned().collect();
        let mut sum = WriteTimes::default();
        for writes in &roots {
            sum.add(&guard(writes).times);
        }
        sum.summary()
    }

    fn of(&self, root: &Path) -> Arc<Mutex<Writes>> {
        let mut roots = guard(&self.roots);
        Arc::clone(roots.entry(root.to_owned()).or_default())
    }
}

/// Returns the grace of a temp in `root`.
fn grace_of(root: &Root, name: &OsStr) -> Duration {
    let parsed = root.policy.names.parse(name);
    root.policy.grace_of(&parsed, false, Duration::ZERO)
}

/// Counts the writes that one callback receives.
pub(super) struct WriteRecorder {
    roots: Arc<[Root]>,
    /// The writes of each root, in the order of `roots`.
    writes: Vec<Arc<Mutex<Writes>>>,
    /// The index of the root of some directories.
    root_of: HashMap<Box<[u8]>, Option<usize>>,
}

/// The maximum number of directories whose root is remembered. When it is reached, all are forgotten.
const MAX_DIRS: usize = 1_024;

impl WriteRecorder {
    pub(super) fn new(all: &RootWrites, roots: &Arc<[Root]>) -> WriteRecorder {
        WriteRecorder {
            writes: roots.iter().map(|root| all.of(&root.path)).collect(),
            roots: Arc::clone(roots),
            root_of: HashMap::new(),
        }
    }

    /// Counts a write. Returns the write if it is the first one that is too long for the grace of its rule.
    pub(super) fn record(&mut self, path: &Path, took: Duration) -> Option<SlowWrite> {
        let parts = SplitPath::new(path);
        let index = self.root_of(parts.dir())?;
        let (root, writes) = (self.roots.get(index)?, self.writes.get(index)?);
        let mut writes = guard(writes);
        writes.times.record(parts.name(), took);
        if !is_long(took, root.policy.grace.shortest()) {
            return None;
        }
        let grace = grace_of(root, parts.name());
        if !is_long(took, grace) {
            return None;
        }
        let slow = SlowWrite {
            path: path.to_owned(),
            took,
            grace,
        };
        if writes
            .slow
            .as_ref()
            .is_none_or(|longest| longest.took < took)
        {
            writes.slow = Some(slow.clone());
        }
        let graces = root.policy.grace;
        (writes.reported.replace(graces) != Some(graces)).then_some(slow)
    }

    fn root_of(&mut self, dir: &Path) -> Option<usize> {
        if let [_] = *self.roots {
            return Some(0);
        }
        let bytes = dir.as_os_str().as_bytes();
        if let Some(index) = self.root_of.get(bytes) {
            return *index;
        }
        if self.root_of.len() >= MAX_DIRS {
            self.root_of = HashMap::new();
        }
        let nearest = innermost(self.roots.iter().enumerate(), |(_, root)| root, dir);
        let index = nearest.map(|(index, _)| index);
        self.root_of.insert(bytes.into(), index);
        index
    }
}
