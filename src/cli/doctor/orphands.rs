//! Judges the watchers that are running on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use orphand::fs::root::Root;
use orphand::store::lock::{LockHolder, overlap};

use super::check::Check;
use super::system;
use crate::cli::output::text;

/// A watcher process, and its roots by the locks that can be read.
#[derive(Clone, Debug)]
pub(super) struct RunningWatcher {
    pub(super) pid: u32,
    pub(super) roots: Vec<Root>,
}

/// Returns the watchers with these pids. `held` has the locks of the lock folder of this user.
pub(super) fn running(pids: &[u32], held: &[LockHolder]) -> Vec<RunningWatcher> {
    let known = |pid: u32| {
        let of_it = held.iter().filter(|held| held.pid == Some(pid));
        of_it
            .filter_map(|held| held.root.clone())
            .collect::<Vec<_>>()
    };
    let watcher = |&pid: &u32| {
        let roots = match known(pid) {
            roots if roots.is_empty() => system::watched_roots(pid),
            roots => roots,
        };
        RunningWatcher { pid, roots }
    };
    pids.iter().map(watcher).collect()
}

/// Judges whether two watchers work on the same directory. `dirs` are the directories to check; if it is empty, all are
/// checked.
pub(super) fn judge(watchers: &[RunningWatcher], dirs: &[PathBuf]) -> Check {
    let check = "orphands";
    let concerns = |root: &Root| {
        let near = |dir: &PathBuf| root.path.starts_with(dir) || dir.starts_with(&root.path);
        dirs.is_empty() || dirs.iter().any(near)
    };
    let mut twice = BTreeMap::<&Path, BTreeSet<u32>>::new();
    for (index, one) in watchers.iter().enumerate() {
        for other in watchers.iter().skip(index + 1) {
            for (here, there) in one
                .roots
                .iter()
                .flat_map(|a| other.roots.iter().map(move |b| (a, b)))
            {
                if overlap(here, there) && (concerns(here) || concerns(there)) {
                    // Both work on the inner one of the two directories.
                    let inner = [here, there]
                        .into_iter()
                        .max_by_key(|root| root.path.as_os_str().len());
                    let inner = inner.unwrap_or(here);
                    twice
                        .entry(&inner.path)
                        .or_default()
                        .extend([one.pid, other.pid]);
                }
            }
        }
    }
    if twice.is_empty() {
        let pids: Vec<String> = watchers.iter().map(|one| one.pid.to_string()).collect();
        return Check::ok(
            check,
            match pids.as_slice() {
                [] => "no watcher is visible".to_owned(),
                [pid] => format!("1 watcher: pid {pid}"),
                pids => format!(
                    "{} watchers: pids {}; no two of them are known to share a directory",
                    pids.len(),
                    pids.join(" ")
                ),
            },
        );
    }
    let list = |pids: &BTreeSet<u32>, by: &str| {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        pids.join(by)
    };
    let lines = twice.iter().map(|(path, pids)| {
        let (number, pids) = (pids.len(), list(pids, " "));
        format!(
            "{number} watchers share {}: pids {pids}",
            text::escaped(path)
        )
    });
    let all: BTreeSet<u32> = twice.values().flatten().copied().collect();
    Check::warning(
        check,
        format!(
            "{}. Two orphand processes of one user never share a directory. Those of different users, or with \
             different lock folders, do not see each other's locks and repeat each other's work",
            lines.collect::<Vec<_>>().join("\n")
        ),
        format!(
            "see the directories of each: ps -o pid,user,args -p {}\nstop the others: kill PID",
            list(&all, ",")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;
    use orphand::core::policy::Policy;
    use std::sync::Arc;

    fn watcher(pid: u32, roots: &[(&str, bool)]) -> RunningWatcher {
        let root = |(path, recursive): &(&str, bool)| Root {
            path: path.into(),
            policy: Arc::new(Policy {
                recursive: *recursive,
                ..Policy::default()
            }),
        };
        RunningWatcher {
            pid,
            roots: roots.iter().map(root).collect(),
        }
    }

    #[test]
    fn watchers_of_different_directories_are_ok() {
        let elsewhere = watcher(9, &[("/srv/b", false)]);
        let unknown = watcher(11, &[]);
        for (watchers, words) in [
            (vec![], "no watcher"),
            (vec![watcher(7, &[("/srv/a", false)])], "pid 7"),
            (
                vec![watcher(7, &[("/srv/a", false)]), elsewhere],
                "pids 7 9",
            ),
            (vec![watcher(7, &[("/srv/a", true)]), unknown], "pids 7 11"),
        ] {
            let check = judge(&watchers, &[]);
            assert_eq!(check.state, CheckState::Ok, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
    }

    /// Watchers of other directories are fine, and must not be named as superfluous.
    #[test]
    fn only_watchers_of_one_directory_are_named() {
        let watchers = [
            watcher(7, &[("/srv/a", false), ("/srv/c", false)]),
            watcher(9, &[("/srv/b", false)]),
            watcher(11, &[("/srv/a", false)]),
        ];
        let check = judge(&watchers, &[]);
        assert_eq!(check.state, CheckState::Warning);
        assert!(
            check
                .what
                .starts_with("2 watchers share /srv/a: pids 7 11."),
            "{check:?}"
        );
        let fix = check.fix.unwrap();
        assert!(fix.contains("-p 7,11\n"), "{fix}");
        let about = |dir: &str| judge(&watchers, &[dir.into()]).state;
        assert_eq!(about("/srv/a"), CheckState::Warning);
        assert_eq!(about("/srv/b"), CheckState::Ok);
        assert_eq!(about("/srv"), CheckState::Warning);
    }
}
