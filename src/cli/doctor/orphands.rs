//! Judges the watchers that are running on this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use orphand::core::sort::set_of;
use orphand::fs::root::Root;
use orphand::store::lock::{LockHolder, overlap};

use super::check::Check;
use super::system;
use crate::cli::output::text;

/// A watcher process, and its roots by the locks that can be read.
#[derive(Clone, Debug)]
pub(super) struct RunningWatcher {
    pid: u32,
    roots: Vec<Root>,
}

/// Returns the watchers with these pids. `held` has the locks of the lock folder of this user.
pub(super) fn running(pids: &[u32], held: &[LockHolder]) -> Vec<RunningWatcher> {
    let watcher = |&pid: &u32| {
        let of_it = held.iter().filter(|held| held.pid == Some(pid));
        let mut roots: Vec<Root> = of_it.filter_map(|held| held.root.clone()).collect();
        if roots.is_empty() {
            roots = system::watched_roots(pid);
        }
        RunningWatcher { pid, roots }
    };
    pids.iter().map(watcher).collect()
}

/// Judges whether two watchers work on the same directory. `dirs` are the directories to check; if it is empty, all are
/// checked.
pub(super) fn judge(watchers: &[RunningWatcher], dirs: &[PathBuf]) -> Check {
    let shared = shared(watchers, dirs);
    if shared.is_empty() {
        let pids = joined(watchers.iter().map(|one| one.pid), " ");
        let what = match watchers.len() {
            0 => "no watcher is visible".to_owned(),
            1 => format!("1 watcher: pid {pids}"),
            number => format!(
                "{number} watchers: pids {pids}; no two of them are known to share a directory"
            ),
        };
        return Check::ok("orphands", what);
    }
    let line = |(path, pids): (&&Path, &BTreeSet<u32>)| {
        let (path, number) = (text::escaped(path), pids.len());
        format!(
            "{number} watchers share {path}: pids {}",
            joined(pids.iter().copied(), " ")
        )
    };
    let lines: Vec<String> = shared.iter().map(line).collect();
    let all: BTreeSet<u32> = set_of(shared.values().flatten().copied());
    Check::warning(
        "orphands",
        format!(
            "{}. Two orphand processes of one user never share a directory. Those of different users, or with \
             different lock folders, do not see each other's locks and repeat each other's work",
            lines.join("\n")
        ),
        format!(
            "see the directories of each: ps -o pid,user,args -p {}\nstop the others: kill PID",
            joined(all.into_iter(), ",")
        ),
    )
}

/// Returns the directories on which several watchers work, each with their pids.
fn shared<'a>(
    watchers: &'a [RunningWatcher],
    dirs: &[PathBuf],
) -> BTreeMap<&'a Path, BTreeSet<u32>> {
    let concerns = |root: &Root| {
        let near = |dir: &PathBuf| root.path.starts_with(dir) || dir.starts_with(&root.path);
        dirs.is_empty() || dirs.iter().any(near)
    };
    let roots = |one: &'a RunningWatcher| one.roots.iter().map(|root| (one.pid, root));
    let mut shared = BTreeMap::<&Path, BTreeSet<u32>>::new();
    for (index, one) in watchers.iter().enumerate() {
        for (pid, here) in roots(one) {
            for (other, there) in watchers.iter().skip(index + 1).flat_map(roots) {
                if overlap(here, there) && (concerns(here) || concerns(there)) {
                    // Both work on the inner one of the two directories.
                    let here_is_inner = here.path.as_os_str().len() > there.path.as_os_str().len();
                    let inner = if here_is_inner { here } else { there };
                    shared.entry(&inner.path).or_default().extend([pid, other]);
                }
            }
        }
    }
    shared
}

fn joined(pids: impl Iterator<Item = u32>, separator: &str) -> String {
    let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
    pids.join(separator)
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
