//! Which `[[watch]]` rule holds in a directory that was given on the command line.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

use orphand::decide::policy::Policy;
use orphand::look::{Dir, RootError, RootId, answer};
use orphand::root::{absolute, is_own};

use super::{Config, RuleSettings, SettingsError, WatchRule, real};
use crate::cli::text::escaped;

/// A directory, and the policy that holds in it.
#[derive(Debug)]
pub(crate) struct Covered {
    /// Absolute, otherwise as it was given.
    pub(crate) path: PathBuf,
    pub(crate) policy: Policy,
    /// The rule that the policy is from; `None`: the `[defaults]`.
    pub(crate) rule: Option<RuleAt>,
    /// The rule is for this very directory, and allows that it is a broad one.
    pub(crate) broad: bool,
}

/// A `[[watch]]` rule, and its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleAt {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// The directory of the rule.
    pub(crate) root: PathBuf,
    /// The glob by which the rule excludes the directory in question, if it does.
    pub(crate) excluded: Option<String>,
}

impl fmt::Display for RuleAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escaped(&self.file), self.line)
    }
}

impl Config {
    /// Returns the policy for each of `dirs`, below what is `typed`: by the rule that covers the directory, or
    /// by the `[defaults]`. A folder below one of them that has a rule of its own comes after it.
    pub(crate) fn covered(
        &self,
        dirs: &[PathBuf],
        typed: &RuleSettings,
    ) -> Result<Vec<Covered>, SettingsError> {
        let rules = RuleSet::of(self);
        let mut found: Vec<Covered> = Vec::new();
        let mut todo: VecDeque<PathBuf> = dirs.iter().map(|dir| absolute(dir)).collect();
        while let Some(path) = todo.pop_front() {
            if found.iter().any(|known| known.path == path) {
                continue;
            }
            let (mut covered, inner) = rules.judge(path, typed)?;
            for (below, path) in inner.into_iter().rev() {
                if rule!("inner-rule-has-its-folder", true) {
                    covered.policy.exclude.add_folder(below);
                }
                todo.push_front(path);
            }
            found.push(covered);
        }
        Ok(found)
    }

    pub(crate) fn place_of(&self, rule: &WatchRule) -> RuleAt {
        RuleAt {
            file: self.path.clone().unwrap_or_default(),
            line: rule.place.0,
            root: rule.path.clone(),
            excluded: None,
        }
    }
}

/// The rules by where their directories really are: one directory may have several names.
struct RuleSet<'c> {
    config: &'c Config,
    by_path: BTreeMap<PathBuf, &'c WatchRule>,
}

/// A folder below a directory: the way to it, and its path.
type Inner = (PathBuf, PathBuf);

impl RuleSet<'_> {
    fn of(config: &Config) -> RuleSet<'_> {
        // All at once: those that do not answer are waited for together.
        let _ = answer::silent(config.watch.iter().map(|rule| rule.path.as_path()));
        // A watcher refuses these, so their rules hold nowhere.
        let is_root = |rule: &&WatchRule| {
            if !answer::answers(&rule.path) {
                return true;
            }
            let root = RootId::of(&rule.path);
            !matches!(
                root,
                Err(RootError::Symlink { .. } | RootError::NotADirectory)
            )
        };
        let rules = config.watch.iter().filter(is_root);
        RuleSet {
            config,
            by_path: rules.map(|rule| (real(&rule.path), rule)).collect(),
        }
    }

    /// Returns what holds at `path`, and the folders below it that are left to their own rules.
    fn judge(
        &self,
        path: PathBuf,
        typed: &RuleSettings,
    ) -> Result<(Covered, Vec<Inner>), SettingsError> {
        let place = real(&path);
        let found = self.covering(&place)?;
        let settings = match &found {
            Some((rule, _)) if rule!("rule-holds-where-it-covers", true) => {
                rule.settings.clone().over(&self.config.defaults)
            }
            _ => self.config.defaults.clone(),
        };
        let broad = settings.broad.unwrap_or(false);
        let mut policy = typed.clone().over(&settings).policy()?;
        let is_its_own = found
            .as_ref()
            .is_some_and(|(_, way)| way.as_os_str().is_empty());
        let rule = found.map(|(rule, way)| {
            let base =
                rule!("globs-from-the-rules-directory", way.as_path(), without: Path::new(""));
            policy.exclude = std::mem::take(&mut policy.exclude).within(base);
            RuleAt {
                excluded: policy.exclude.glob(Path::new("")).map(str::to_owned),
                ..self.config.place_of(rule)
            }
        });
        let inner = match policy.recursive {
            true => self.below(&place, &path, &policy),
            false => Vec::new(),
        };
        let covered = Covered {
            path,
            policy,
            rule,
            broad: broad && rule!("broad-for-its-directory-only", is_its_own, without: true),
        };
        Ok((covered, inner))
    }

    /// Returns the nearest rule that covers the directory at `place`, and the way to it from the directory of
    /// the rule. A rule that excludes it counts where no other covers it: what it says is that nothing there
    /// is taken.
    fn covering(&self, place: &Path) -> Result<Option<(&WatchRule, PathBuf)>, SettingsError> {
        let mut excluded = None;
        for above in place.ancestors() {
            let Some(&rule) = self.by_path.get(above) else {
                continue;
            };
            let way = place
                .strip_prefix(above)
                .unwrap_or(Path::new(""))
                .to_owned();
            if way.as_os_str().is_empty() {
                return Ok(Some((rule, way)));
            }
            // As the watcher has it, without what is typed.
            let policy = rule.settings.clone().over(&self.config.defaults).policy()?;
            let own = way.components().any(|part| is_own(part.as_os_str()));
            if !policy.recursive || own || is_elsewhere(above, &way) {
                continue;
            }
            match policy.exclude.excludes(&way) {
                true if rule!("excluded-though-named", true) => {
                    excluded = excluded.or(Some((rule, way)));
                }
                true => {}
                false => return Ok(Some((rule, way))),
            }
        }
        Ok(excluded)
    }

    /// Returns the folders below the directory at `place`, which was given as `path`, that have rules and that
    /// a walk by `policy` would come to.
    fn below(&self, place: &Path, path: &Path, policy: &Policy) -> Vec<Inner> {
        let after = (
            std::ops::Bound::Excluded(place.to_owned()),
            std::ops::Bound::Unbounded,
        );
        let rules = self.by_path.range(after);
        let below = rules.map_while(|(root, _)| root.strip_prefix(place).ok());
        below
            .filter(|way| !policy.exclude.excludes(way))
            .filter(|way| path.join(way).is_dir() && !is_elsewhere(place, way))
            .map(|way| (way.to_owned(), path.join(way)))
            .collect()
    }
}

/// Returns whether the directory `way` below `root` is on another mount, which a rule for `root` does not cover.
fn is_elsewhere(root: &Path, way: &Path) -> bool {
    match Dir::open_below(root, None, way) {
        Err(RootError::Io(error)) => error.kind() == std::io::ErrorKind::CrossesDevices,
        _ => false,
    }
}
