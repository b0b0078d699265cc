//! Searches for quarantines: in the given directories, or in the roots of the configuration and of the journal, in the
//! current directory and in its parents.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use orphand::core::sort::set_of;
use orphand::fs::dir::RootError;
use orphand::fs::response;
use orphand::reap::quarantine::{FOLDER, Quarantine};
use orphand::store::journal::Journal;
use orphand::store::json::FileFields;

use super::plan::no_answer;
use crate::cli::config::Config;
use crate::cli::output::text;

/// The quarantines that were found.
#[derive(Debug, Default)]
pub(crate) struct Quarantines {
    /// One item per quarantine: all paths under which its root was found.
    pub(crate) found: Vec<Vec<PathBuf>>,
    /// The roots whose quarantines could not be opened, with the error.
    pub(crate) failed: Vec<(PathBuf, RootError)>,
    /// The directories whose file system does not answer.
    pub(crate) silent: Vec<PathBuf>,
    /// The searched directories.
    searched: BTreeSet<PathBuf>,
}

impl Quarantines {
    /// Returns the quarantines in `dirs`.
    pub(crate) fn in_dirs(dirs: impl IntoIterator<Item = PathBuf>) -> Quarantines {
        let mut quarantines = Quarantines::default();
        let mut by_folder = HashMap::new();
        let dirs: Vec<PathBuf> = dirs.into_iter().collect();
        // One call for all, so that the waiting times for file systems without an answer do not add up.
        let silent = response::unresponsive(dirs.iter().map(PathBuf::as_path));
        quarantines.silent = silent.iter().map(|root| root.to_path_buf()).collect();
        let silent: BTreeSet<PathBuf> = set_of(quarantines.silent.iter().cloned());
        for root in dirs.into_iter().filter(|root| !silent.contains(root)) {
            if !quarantines.searched.insert(root.clone()) {
                continue;
            }
            let quarantine = match Quarantine::open_existing(&root, None) {
                Ok(Some(quarantine)) => quarantine,
                Ok(None) => continue,
                Err(error) => {
                    // A directory without a quarantine is not a failure, whatever else is wrong with it.
                    if root.join(FOLDER).symlink_metadata().is_ok() {
                        quarantines.failed.push((root, error));
                    }
                    continue;
                }
            };
            // Two mounts may show the same quarantine, and a third mount may hide one of them.
            let Ok(folder) = quarantine.folder_id() else {
                continue;
            };
            let next = quarantines.found.len();
            let index = rule!("one-quarantine-by-each-mount",
                *by_folder.entry(folder).or_insert(next), without: next);
            match quarantines.found.get_mut(index) {
                Some(paths) => paths.push(root),
                None => quarantines.found.push(vec![root]),
            }
        }
        quarantines
    }

    /// Returns the quarantines in `dirs` and in the directories above them.
    pub(crate) fn enclosing(dirs: impl IntoIterator<Item = PathBuf>) -> Quarantines {
        let given: Vec<PathBuf> = dirs.into_iter().collect();
        let real = given.iter().filter_map(|dir| fs::canonicalize(dir).ok());
        let mut all = given.clone();
        for dir in given.iter().cloned().chain(real) {
            all.extend(dir.ancestors().skip(1).map(Path::to_owned));
        }
        Quarantines::in_dirs(all)
    }

    /// Returns the quarantines in the roots of the configuration and of the journal, in the current directory and its
    /// parents, and in the parents of `paths`.
    pub(crate) fn known<'p>(
        config: &Config,
        journal: &Journal,
        paths: impl IntoIterator<Item = &'p Path>,
    ) -> Quarantines {
        let mut roots = known_roots(config, journal);
        let here = std::env::current_dir().unwrap_or_default();
        roots.extend(here.ancestors().map(Path::to_owned));
        for path in paths {
            roots.extend(path.ancestors().skip(1).map(Path::to_owned));
        }
        roots.retain(|root| root.is_absolute());
        Quarantines::in_dirs(roots)
    }

    /// Returns one root for each quarantine: the path by which its files are listed.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.found.iter().filter_map(|paths| paths.first())
    }

    /// Reports the quarantines that could not be opened, and returns whether there were any.
    pub(crate) fn report_failures(&self) -> bool {
        for (root, error) in &self.failed {
            ::log::error!(
                "cannot open the quarantine {}: {error}; it must be a directory of yours with mode 0700",
                text::escaped(&root.join(FOLDER))
            );
        }
        for root in &self.silent {
            ::log::error!("{}", no_answer(root));
        }
        !self.failed.is_empty() || !self.silent.is_empty()
    }

    /// Returns the list of searched directories, for people.
    pub(crate) fn searched(&self) -> String {
        const SHOWN: usize = 20;
        if self.searched.is_empty() {
            return "no directory could be searched".to_owned();
        }
        let shown: Vec<String> = self
            .searched
            .iter()
            .take(SHOWN)
            .map(|root| text::escaped(root))
            .collect();
        let more = match self.searched.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {} more", text::count(more as u64)),
        };
        format!("searched {}{more}", shown.join(", "))
    }
}

/// Returns the roots of the configuration and of the journal.
pub(crate) fn known_roots(config: &Config, journal: &Journal) -> BTreeSet<PathBuf> {
    let mut roots: BTreeSet<PathBuf> = set_of(config.watch.iter().map(|rule| rule.path.clone()));
    let read = journal.outcomes(|file: FileFields<'_>| {
        roots.extend(file.root.map(Cow::into_owned));
    });
    if let Err(error) = read {
        ::log::warn!("cannot read the journal ({error}); its roots are not searched");
    }
    roots
}

/// The counts of a command that works on several files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QuarantineSum {
    pub(crate) requested: usize,
    pub(crate) done: usize,
    pub(crate) failed: usize,
}

impl QuarantineSum {
    /// Returns the line for people: `3 files: 2 deleted, 1 failed, 0 left`.
    pub(crate) fn line(&self, done: &str) -> String {
        let number = |number: usize| text::count(number as u64);
        let left = self.requested.saturating_sub(self.done + self.failed);
        format!(
            "{}: {} {done}, {} failed, {} left",
            text::counted(self.requested as u64, "file", "files"),
            number(self.done),
            number(self.failed),
            number(left)
        )
    }
}
