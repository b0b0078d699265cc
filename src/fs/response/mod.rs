//! Checks whether the file system of a path responds.
//!
//! A system call on a file system whose server has gone away (FUSE, NFS) may never return. A thread in such a call
//! cannot be ended, and its process cannot end either. For this reason a probe accesses the path first, and the path is
//! used only if the probe has ended. On Linux the probe is a process; on macOS it is a thread.
//!
//! A probe that does not end is left running, at most one for each path. The path counts as unresponsive until that
//! probe ends, and no second probe is started.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::core::sort::set_of;
use crate::sys::mutex::guard;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

#[cfg(not(target_os = "linux"))]
mod thread;

use system::Probe;

/// The time that a file system has to respond.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The time without progress after which the remaining paths get separate probes.
const STALL: Duration = Duration::from_millis(250);

/// The time for which a response is valid.
const RESPONSE_VALIDITY: Duration = Duration::from_secs(1);

/// The time for which a late response is valid. It is longer than the interval at which an unresponsive root is checked
/// again, so that a root on a slow file system is still served.
const LATE_RESPONSE_VALIDITY: Duration = Duration::from_secs(3);

/// The largest number of probes that are started at a time. Each of them may be left running. Further paths count as
/// unresponsive until the next check.
const MAX_PROBES: usize = 256;

/// The paths that were checked, and the results.
static KNOWN: LazyLock<Mutex<KnownPaths>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct KnownPaths {
    /// By path. A search in a sorted map compares the parts of many paths, which takes longer than everything else here.
    states: HashMap<PathBuf, ProbeState>,
    /// The paths that at least once did not respond in time.
    were_unresponsive: BTreeSet<PathBuf>,
}

enum ProbeState {
    /// The probe has not ended yet.
    Pending(Probe),
    /// The file system responded. The result is valid until this time.
    Responded(Instant),
}

/// Reports whether the file system of `path` responds. Waits at most [`RESPONSE_TIMEOUT`], and does not wait if an
/// earlier probe is still running.
///
/// `RACE:` the file system may stop responding right after this call. Worst case: the caller hangs, as it would without
/// this check.
#[must_use]
pub fn responds(path: &Path) -> bool {
    unresponsive([path].into_iter()).is_empty()
}

/// Returns those of `paths` whose file systems do not respond. Waits at most [`RESPONSE_TIMEOUT`] for all of them
/// together.
#[must_use]
pub fn unresponsive<'a>(paths: impl Iterator<Item = &'a Path>) -> BTreeSet<&'a Path> {
    let mut known = guard(&KNOWN);
    let paths: BTreeSet<&Path> = set_of(paths);
    known.unresponsive(&paths)
}

/// Asks many paths one after the other, so that each question finds a response that is still valid: the paths that are
/// left are probed together again before the last responses expire.
#[derive(Debug, Default)]
pub struct RepeatedProbe(Option<Instant>);

impl RepeatedProbe {
    /// Probes `paths`, the one that is used next and all later ones, if that was not done recently.
    pub fn refresh<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        if self
            .0
            .is_none_or(|last| last.elapsed() > RESPONSE_VALIDITY / 2)
        {
            let _ = unresponsive(paths);
            self.0 = Some(Instant::now());
        }
    }
}

/// Reports whether the file system of `path` at least once did not respond in time since this process started.
#[must_use]
pub fn was_unresponsive(path: &Path) -> bool {
    let known = guard(&KNOWN);
    known.were_unresponsive.contains(path)
}

impl KnownPaths {
    fn unresponsive<'a>(&mut self, paths: &BTreeSet<&'a Path>) -> BTreeSet<&'a Path> {
        let now = Instant::now();
        let mut unknown: Vec<PathBuf> = paths
            .iter()
            .filter(|path| !self.is_known(path, now))
            .map(|&path| path.to_owned())
            .collect();
        // Only for unknown paths: most calls are for one path that is known, beside thousands of others.
        let is_pending = |state: &ProbeState| matches!(state, ProbeState::Pending(_));
        if !unknown.is_empty() && self.states.values().any(is_pending) {
            unknown.retain(|path| !self.is_below_unresponsive(path, now));
        }
        if !unknown.is_empty() {
            self.drop_expired(now);
            self.probe(unknown, now + RESPONSE_TIMEOUT);
        }
        let is_unresponsive =
            |path: &&Path| !matches!(self.states.get(*path), Some(ProbeState::Responded(_)));
        let unresponsive = set_of(paths.iter().copied().filter(is_unresponsive));
        let owned = unresponsive.iter().map(|&path| path.to_owned());
        self.were_unresponsive.extend(owned);
        unresponsive
    }

    /// Reports whether the state of `path` is known. If its probe has ended since the last call, the response is
    /// stored.
    fn is_known(&mut self, path: &Path, now: Instant) -> bool {
        match self.states.get_mut(path) {
            None => false,
            Some(ProbeState::Responded(until)) => now < *until,
            Some(state) => {
                if let ProbeState::Pending(probe) = state
                    && probe.has_ended(now)
                {
                    *state = ProbeState::Responded(now + LATE_RESPONSE_VALIDITY);
                }
                true
            }
        }
    }

    /// Drops the results that are no longer valid.
    fn drop_expired(&mut self, now: Instant) {
        self.states.retain(|_, state| match state {
            ProbeState::Pending(_) => true,
            ProbeState::Responded(until) => now < *until,
        });
    }

    /// Reports whether an ancestor of `path` does not respond. A probe of `path` would not end then.
    fn is_below_unresponsive(&mut self, path: &Path, now: Instant) -> bool {
        let mut ancestors = path.ancestors().skip(1);
        ancestors.any(|ancestor| {
            self.is_known(ancestor, now)
                && matches!(self.states.get(ancestor), Some(ProbeState::Pending(_)))
        })
    }

    /// Checks `paths` with one probe. If one of the paths does not respond at once, the others get separate probes.
    fn probe(&mut self, paths: Vec<PathBuf>, deadline: Instant) {
        let Some(mut probe) = Probe::start(&paths) else {
            return self.note_responses(paths);
        };
        let mut responded = 0;
        loop {
            let stalled_at = deadline.min(Instant::now() + STALL);
            if probe.has_ended(stalled_at) {
                return self.note_responses(paths);
            }
            match probe.responded() {
                now if now > responded => responded = now,
                _ => break,
            }
        }
        probe.stop();
        let mut paths = paths.into_iter();
        self.note_responses(paths.by_ref().take(responded).collect());
        let mut rest = paths;
        let slow = rest.next();
        let mut pending: Vec<PathBuf> = Vec::new();
        if let Some(slow) = slow {
            self.states.insert(slow.clone(), ProbeState::Pending(probe));
            pending.push(slow);
        }
        for path in rest.take(MAX_PROBES) {
            match Probe::start(std::slice::from_ref(&path)) {
                Some(probe) => {
                    self.states.insert(path.clone(), ProbeState::Pending(probe));
                    pending.push(path);
                }
                None => self.note_responses(vec![path]),
            }
        }
        for path in pending {
            if let Some(ProbeState::Pending(probe)) = self.states.get_mut(&path)
                && probe.has_ended(deadline)
            {
                self.note_responses(vec![path]);
            }
        }
    }

    /// Notes that `paths` respond: their probe has ended, or no probe can be started on this system.
    fn note_responses(&mut self, paths: Vec<PathBuf>) {
        let until = Instant::now() + RESPONSE_VALIDITY;
        let responded = paths
            .into_iter()
            .map(|path| (path, ProbeState::Responded(until)));
        self.states.extend(responded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_and_missing_paths_respond() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let many: Vec<PathBuf> = (0..500).map(|n| dir.path().join(n.to_string())).collect();
        let paths = [dir.path(), &missing, &file, Path::new("/proc/self")];
        let all = paths.into_iter().chain(many.iter().map(PathBuf::as_path));
        assert_eq!(unresponsive(all), BTreeSet::new());
        assert!(!was_unresponsive(dir.path()));
    }

    /// A probe has none of this process's files open, so it does not make a file look used.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_probe_leaves_no_child_and_no_descriptor() {
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let dir = tempfile::tempdir().unwrap();
        for n in 0..20 {
            assert!(responds(&dir.path().join(n.to_string())));
        }
        // A path counts as responding before its probe has ended. The next probe collects it then.
        let children = format!("/proc/self/task/{}/children", gettid());
        let end = Instant::now() + Duration::from_secs(60);
        while let Ok(left) = std::fs::read_to_string(&children)
            && !left.trim().is_empty()
        {
            assert!(Instant::now() < end, "probes are left: {left}");
            std::thread::sleep(Duration::from_millis(1));
            let path = dir.path().join(format!("{:?}", Instant::now()));
            assert!(responds(&path));
        }
        // Other tests of this program open files at the same time.
        let after = std::fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(after < before + 20, "{before} descriptors, then {after}");
    }

    #[cfg(target_os = "linux")]
    fn gettid() -> i32 {
        rustix::thread::gettid().as_raw_nonzero().get()
    }
}
