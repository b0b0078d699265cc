//! The search for quarantines: in the directories that are named, in those of the configuration and of the
//! journal, in the current directory and in those above it.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use orphand::journal::Journal;
use orphand::look::{RootError, answer};
use orphand::reap::quarantine::{FOLDER, Quarantine};
use serde_json::Value;

use super::config_file::Config;
use super::{no_answer, text};

/// The quarantines that were found.
#[derive(Debug, Default)]
pub(super) struct Quarantines {
    /// One item for each, with all paths of its root.
    pub(super) found: Vec<Vec<PathBuf>>,
    /// Those that could not be opened, and why.
    pub(super) failed: Vec<(PathBuf, RootError)>,
    /// Those of which the file system does not answer.
    pub(super) silent: Vec<PathBuf>,
    /// The directories that were searched.
    searched: BTreeSet<PathBuf>,
}

impl Quarantines {
    /// Returns those in `dirs` and nowhere else.
    pub(super) fn in_dirs(dirs: impl IntoIterator<Item = PathBuf>) -> Quarantines {
        let mut quarantines = Quarantines::default();
        let mut places = HashMap::new();
        let dirs: Vec<PathBuf> = dirs.into_iter().collect();
        // All at once: those that do not answer are waited for together.
        let silent = answer::silent(dirs.iter().map(PathBuf::as_path));
        quarantines.silent = silent.iter().map(|root| root.to_path_buf()).collect();
        let silent: BTreeSet<PathBuf> = quarantines.silent.iter().cloned().collect();
        for root in dirs.into_iter().filter(|root| !silent.contains(root)) {
            if !quarantines.searched.insert(root.clone()) {
                continue;
            }
            let room = match Quarantine::open_existing(&root, None) {
                Ok(Some(room)) => room,
                Ok(None) => continue,
                Err(error) => {
                    // A directory without one is no failure, whatever else is wrong with it.
                    if root.join(FOLDER).symlink_metadata().is_ok() {
                        quarantines.failed.push((root, error));
                    }
                    continue;
                }
            };
            // Two mounts may show the same one; and one of them may be covered by a third.
            let Ok(folder) = room.folder() else {
                continue;
            };
            let next = quarantines.found.len();
            let place = rule!("one-quarantine-by-each-mount",
                *places.entry(folder).or_insert(next), without: next);
            match quarantines.found.get_mut(place) {
                Some(paths) => paths.push(root),
                None => quarantines.found.push(vec![root]),
            }
        }
        quarantines
    }

    /// Returns those of the configuration, of the journal, of the current directory and of those above it, and of
    /// those above `paths`.
    pub(super) fn known<'p>(
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

    /// The roots that files are listed by: one for each quarantine.
    pub(super) fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        self.found.iter().filter_map(|paths| paths.first())
    }

    /// Reports the quarantines that could not be opened, and returns whether there were any.
    pub(super) fn report_failures(&self) -> bool {
        for (root, error) in &self.failed {
            ::log::error!(
                "the quarantine {} cannot be opened: {error}; it must be a directory of yours with mode 0700",
                text::escaped(&root.join(FOLDER))
            );
        }
        for root in &self.silent {
            ::log::error!("{}", no_answer(root));
        }
        !self.failed.is_empty() || !self.silent.is_empty()
    }

    /// Returns the list of searched directories, for people.
    pub(super) fn searched(&self) -> String {
        const SHOWN: usize = 20;
        if self.searched.is_empty() {
            return "no directory could be searched".into();
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
        format!("looked in {}{more}", shown.join(", "))
    }
}

/// The roots of the configuration and of the journal.
pub(super) fn known_roots(config: &Config, journal: &Journal) -> BTreeSet<PathBuf> {
    let mut roots: BTreeSet<PathBuf> = config.watch.iter().map(|rule| rule.path.clone()).collect();
    let read = journal.outcomes(|object| {
        roots.extend(path_of(&object, "root"));
    });
    if let Err(error) = read {
        ::log::warn!("the journal cannot be read ({error}); its roots are not searched");
    }
    roots
}

/// A path out of an object on the wire, exact also where it is not UTF-8.
pub(super) fn path_of(object: &Value, key: &str) -> Option<PathBuf> {
    use base64::Engine as _;
    use std::os::unix::ffi::OsStrExt as _;
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    match text(&format!("{key}_b64")) {
        Some(encoded) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .ok()?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
        }
        None => text(key).map(PathBuf::from),
    }
}

/// The result of a command for several files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuarantineSum {
    pub(super) requested: usize,
    pub(super) done: usize,
    pub(super) failed: usize,
}

impl QuarantineSum {
    /// A line for people: `3 files: 2 deleted, 1 failed, 0 left`.
    pub(super) fn line(&self, done: &str) -> String {
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
