//! Asks whether the file system behind a path answers.
//!
//! A call on a file system whose server is gone (FUSE, NFS) may never return, and a thread in such a call
//! cannot be ended: the process that it belongs to cannot end either. So a path is asked about by a probe,
//! and used only if the probe came back. On Linux the probe is a process; elsewhere it is a thread.
//!
//! A probe that does not come back is left behind, one for each path. It is not made again: the path counts
//! as silent until that probe ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

#[cfg(not(target_os = "linux"))]
mod thread;

use system::Probe;

/// The time that a file system has to answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The time after which the paths that follow a slow one get probes of their own.
const STALL: Duration = Duration::from_millis(250);

/// The time for which an answer holds.
const FRESH: Duration = Duration::from_secs(1);

/// The same for an answer that came late. It is longer than the interval at which a silent root is asked about
/// again, so that a slow file system is served.
const LATE: Duration = Duration::from_secs(3);

/// The largest number of probes that are started at a time, each of which may be left behind. Paths beyond
/// that are asked about the next time.
const MAX_PROBES: usize = 256;

/// The paths that were asked about, and their answers.
static KNOWN: Mutex<KnownPaths> = Mutex::new(KnownPaths {
    states: BTreeMap::new(),
    were_silent: BTreeSet::new(),
});

struct KnownPaths {
    states: BTreeMap<PathBuf, ProbeState>,
    /// Paths that did not answer in time at least once.
    were_silent: BTreeSet<PathBuf>,
}

enum ProbeState {
    /// The probe that has not come back yet.
    Pending(Probe),
    /// The answer holds until then.
    Answered(Instant),
}

/// Returns whether the file system behind `path` answers. Waits at most [`PATIENCE`], and not at all where
/// that was waited for before.
///
/// `RACE:` the file system may fall silent just after this; worst case: the caller hangs, as it would
/// without this question.
#[must_use]
pub fn answers(path: &Path) -> bool {
    silent([path].into_iter()).is_empty()
}

/// Returns those of `paths` that do not answer. Waits at most [`PATIENCE`] for all of them together.
#[must_use]
pub fn silent<'a>(paths: impl Iterator<Item = &'a Path>) -> BTreeSet<&'a Path> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let paths: BTreeSet<&Path> = paths.collect();
    known.silent(&paths)
}

/// Returns whether `path` did not answer in time at least once since the process began.
#[must_use]
pub fn was_silent(path: &Path) -> bool {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.were_silent.contains(path)
}

impl KnownPaths {
    fn silent<'a>(&mut self, paths: &BTreeSet<&'a Path>) -> BTreeSet<&'a Path> {
        let now = Instant::now();
        let unknown: Vec<PathBuf> = paths
            .iter()
            .filter(|path| !self.is_known(path, now) && !self.is_below_silent(path, now))
            .map(|&path| path.to_owned())
            .collect();
        if !unknown.is_empty() {
            self.drop_expired(now);
            self.ask(unknown, now + PATIENCE);
        }
        let is_silent =
            |path: &&Path| !matches!(self.states.get(*path), Some(ProbeState::Answered(_)));
        let silent: BTreeSet<&Path> = paths.iter().copied().filter(is_silent).collect();
        let owned = silent.iter().map(|&path| path.to_owned());
        self.were_silent.extend(owned);
        silent
    }

    /// Returns whether `path` is known to answer or to be silent. Takes in the answer if it has come since.
    fn is_known(&mut self, path: &Path, now: Instant) -> bool {
        match self.states.get_mut(path) {
            None => false,
            Some(ProbeState::Answered(until)) => now < *until,
            Some(state) => {
                if let ProbeState::Pending(probe) = state
                    && probe.has_ended(now)
                {
                    *state = ProbeState::Answered(now + LATE);
                }
                true
            }
        }
    }

    /// Drops the answers that do not hold any more.
    fn drop_expired(&mut self, now: Instant) {
        self.states.retain(|_, state| match state {
            ProbeState::Pending(_) => true,
            ProbeState::Answered(until) => now < *until,
        });
    }

    /// Returns whether the way to `path` leads through a directory that does not answer: no probe comes back from
    /// there.
    fn is_below_silent(&mut self, path: &Path, now: Instant) -> bool {
        let mut above = path.ancestors().skip(1);
        above.any(|above| {
            self.is_known(above, now)
                && matches!(self.states.get(above), Some(ProbeState::Pending(_)))
        })
    }

    /// Asks about `paths`, all by one probe. Where one of them does not answer at once, each of the rest has
    /// a probe of its own.
    fn ask(&mut self, paths: Vec<PathBuf>, deadline: Instant) {
        let Some(mut probe) = Probe::start(&paths) else {
            return self.note_answers(paths);
        };
        let mut reached = 0;
        loop {
            let stalled_at = deadline.min(Instant::now() + STALL);
            if probe.has_ended(stalled_at) {
                return self.note_answers(paths);
            }
            match probe.reached() {
                now if now > reached => reached = now,
                _ => break,
            }
        }
        probe.stop();
        let mut paths = paths.into_iter();
        self.note_answers(paths.by_ref().take(reached).collect());
        let mut rest = paths;
        let slow = rest.next();
        let mut asked: Vec<PathBuf> = Vec::new();
        if let Some(slow) = slow {
            self.states.insert(slow.clone(), ProbeState::Pending(probe));
            asked.push(slow);
        }
        for path in rest.take(MAX_PROBES) {
            match Probe::start(std::slice::from_ref(&path)) {
                Some(probe) => {
                    self.states.insert(path.clone(), ProbeState::Pending(probe));
                    asked.push(path);
                }
                None => self.note_answers(vec![path]),
            }
        }
        for path in asked {
            if let Some(ProbeState::Pending(probe)) = self.states.get_mut(&path)
                && probe.has_ended(deadline)
            {
                self.note_answers(vec![path]);
            }
        }
    }

    /// Notes that `paths` answer: their probe came back, or none can be made here.
    fn note_answers(&mut self, paths: Vec<PathBuf>) {
        let until = Instant::now() + FRESH;
        let answered = paths
            .into_iter()
            .map(|path| (path, ProbeState::Answered(until)));
        self.states.extend(answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_exist_and_paths_that_do_not_answer_alike() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let many: Vec<PathBuf> = (0..500).map(|n| dir.path().join(n.to_string())).collect();
        let paths = [dir.path(), &missing, &file, Path::new("/proc/self")];
        let all = paths.into_iter().chain(many.iter().map(PathBuf::as_path));
        assert_eq!(silent(all), BTreeSet::new());
        assert!(!was_silent(dir.path()));
    }

    /// A probe holds none of this process's files open, so it makes no file seem in use.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_probe_leaves_no_child_and_no_descriptor() {
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let dir = tempfile::tempdir().unwrap();
        for n in 0..20 {
            assert!(answers(&dir.path().join(n.to_string())));
        }
        let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", gettid()));
        assert_eq!(children.unwrap_or_default().trim(), "");
        // Other tests of this program open files beside this one.
        let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(after < before + 20, "{before} descriptors, then {after}");
    }

    #[cfg(target_os = "linux")]
    fn gettid() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }
}
