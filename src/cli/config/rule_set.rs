//! Finds the `[[watch]]` rule that applies to a directory of the command line.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use orphand::core::own_names::is_own;
use orphand::core::policy::Policy;
use orphand::fs::dir::{Dir, RootError, RootId};
use orphand::fs::response;
use orphand::fs::root::absolute;

use super::error::SettingsError;
use super::roots::resolved;
use super::schema::{Config, RuleSettings, WatchRule};
use crate::cli::output::text::escaped;

/// A directory and its policy.
#[derive(Debug)]
pub(crate) struct CoveredDir {
    /// The path as it was given, made absolute.
    pub(crate) path: PathBuf,
    pub(crate) policy: Policy,
    /// The rule that the policy comes from; `None` if only the `[defaults]` apply.
    pub(crate) rule: Option<RuleLocation>,
    /// True if the rule is for exactly this directory and allows a broad one.
    pub(crate) broad: bool,
}

/// The location of a `[[watch]]` rule in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleLocation {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// The directory of the rule.
    pub(crate) root: PathBuf,
    /// The glob of the rule that excludes the directory in question, if there is one.
    pub(crate) excluded: Option<String>,
}

impl fmt::Display for RuleLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escaped(&self.file), self.line)
    }
}

impl Config {
    /// Returns the policy for the files of one directory, by the rule that covers it or by the `[defaults]`.
    pub(crate) fn policy_in(&self, dir: PathBuf) -> Result<Policy, SettingsError> {
        let covered = self.covered(&[dir], &RuleSettings::default())?;
        Ok(covered
            .into_iter()
            .next()
            .map(|one| one.policy)
            .unwrap_or_default())
    }

    /// Returns the policy for each of `dirs`, by the rule that covers the directory or by the `[defaults]`. The options
    /// `typed` override both. A folder below one of `dirs` that has a rule of its own is listed after it. Each file
    /// belongs to the innermost of these directories, and a directory with two paths is listed once.
    pub(crate) fn covered(
        &self,
        dirs: &[PathBuf],
        typed: &RuleSettings,
    ) -> Result<Vec<CoveredDir>, SettingsError> {
        let rules = RuleSet::of(self);
        let mut found: Vec<CoveredDir> = Vec::new();
        // The indices in `found`, by the resolved paths.
        let mut by_path: BTreeMap<PathBuf, usize> = BTreeMap::new();
        let mut todo: VecDeque<PathBuf> = dirs.iter().map(|dir| absolute(dir)).collect();
        while let Some(path) = todo.pop_front() {
            let real = resolved(&path);
            // A path that is a symlink itself is no second path of its target: as a root it is refused.
            let is_known = by_path.contains_key(&real) && (real == path || !path.is_symlink());
            if is_known || found.iter().any(|known| known.path == path) {
                continue;
            }
            let (mut covered, inner) = rules.resolve(path, &real, typed)?;
            for (below, path) in inner.into_iter().rev() {
                if rule!("inner-rule-has-its-folder", true) {
                    covered.policy.exclude.add_folder(below);
                }
                todo.push_front(path);
            }
            by_path.insert(real, found.len());
            found.push(covered);
        }
        for (real, index) in &by_path {
            let Some(covered) = found.get_mut(*index).filter(|one| one.policy.recursive) else {
                continue;
            };
            let exclude = &mut covered.policy.exclude;
            for (path, _) in by_path.range(after(real)) {
                let Ok(below) = path.strip_prefix(real) else {
                    break;
                };
                if !exclude.excludes(below) {
                    exclude.add_folder(below.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// Returns the location of a rule.
    pub(crate) fn location_of(&self, rule: &WatchRule) -> RuleLocation {
        RuleLocation {
            file: self.path.clone().unwrap_or_default(),
            line: rule.position.0,
            root: rule.path.clone(),
            excluded: None,
        }
    }
}

/// The rules by the resolved paths of their directories, because a directory may have several paths.
struct RuleSet<'c> {
    config: &'c Config,
    by_path: BTreeMap<PathBuf, &'c WatchRule>,
}

/// A folder below a directory: its relative path, and its full path.
type InnerDir = (PathBuf, PathBuf);

impl RuleSet<'_> {
    fn of(config: &Config) -> RuleSet<'_> {
        // A watcher refuses symlinks and files, so their rules apply to no directory.
        let is_root = |path: &Path| {
            if !response::responds(path) {
                return true;
            }
            !matches!(
                RootId::of(path),
                Err(RootError::Symlink { .. } | RootError::NotADirectory)
            )
        };
        // All paths are probed at the same time: the directories that do not answer cost one wait in total.
        let mut probe = response::RepeatedProbe::default();
        let mut by_path = BTreeMap::new();
        for (index, rule) in config.watch.iter().enumerate() {
            let left = config.watch.iter().skip(index);
            probe.refresh(left.map(|rule| rule.path.as_path()));
            if is_root(&rule.path) {
                by_path.insert(resolved(&rule.path), rule);
            }
        }
        RuleSet { config, by_path }
    }

    /// Returns the policy for `path`, and the folders below it that have rules of their own. `real` is its resolved
    /// path.
    fn resolve(
        &self,
        path: PathBuf,
        real: &Path,
        typed: &RuleSettings,
    ) -> Result<(CoveredDir, Vec<InnerDir>), SettingsError> {
        let found = self.covering(real)?;
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
            .is_some_and(|(_, below)| below.as_os_str().is_empty());
        let rule = found.map(|(rule, below)| {
            let base =
                rule!("globs-from-the-rules-directory", below.as_path(), without: Path::new(""));
            policy.exclude = std::mem::take(&mut policy.exclude).within(base);
            RuleLocation {
                excluded: policy.exclude.glob(Path::new("")).map(str::to_owned),
                ..self.config.location_of(rule)
            }
        });
        let inner = match policy.recursive {
            true => self.inner_rules(real, &path, &policy),
            false => Vec::new(),
        };
        let covered = CoveredDir {
            path,
            policy,
            rule,
            broad: broad && rule!("broad-for-its-directory-only", is_its_own, without: true),
        };
        Ok((covered, inner))
    }

    /// Returns the nearest rule that covers the directory with the resolved path `real`, and the path of the directory
    /// below the directory of the rule. If no rule covers it, returns the nearest rule that excludes it: by that rule
    /// the directory is left alone.
    fn covering(&self, real: &Path) -> Result<Option<(&WatchRule, PathBuf)>, SettingsError> {
        let mut excluded = None;
        for above in real.ancestors() {
            let Some(&rule) = self.by_path.get(above) else {
                continue;
            };
            let below = real.strip_prefix(above).unwrap_or(Path::new("")).to_owned();
            if below.as_os_str().is_empty() {
                return Ok(Some((rule, below)));
            }
            // The policy of the watcher, without the options of this command line.
            let policy = rule.settings.clone().over(&self.config.defaults).policy()?;
            let own = below.components().any(|part| is_own(part.as_os_str()));
            if !policy.recursive || own || is_on_other_mount(above, &below) {
                continue;
            }
            match policy.exclude.excludes(&below) {
                true if rule!("excluded-though-named", true) => {
                    excluded = excluded.or(Some((rule, below)));
                }
                true => {}
                false => return Ok(Some((rule, below))),
            }
        }
        Ok(excluded)
    }

    /// Returns the folders with rules of their own that a scan by `policy` would reach below the directory `path`.
    /// `real` is its resolved path.
    fn inner_rules(&self, real: &Path, path: &Path, policy: &Policy) -> Vec<InnerDir> {
        let rules = self.by_path.range(after(real));
        let below = rules.map_while(|(root, _)| root.strip_prefix(real).ok());
        below
            .filter(|below| !policy.exclude.excludes(below))
            .filter(|below| path.join(below).is_dir() && !is_on_other_mount(real, below))
            .map(|below| (below.to_owned(), path.join(below)))
            .collect()
    }
}

/// Returns the range of the paths after `path`. It begins with those below `path`.
fn after(path: &Path) -> (Bound<PathBuf>, Bound<PathBuf>) {
    (Bound::Excluded(path.to_owned()), Bound::Unbounded)
}

/// Reports whether the directory `below` in `root` is on another mount, which a rule for `root` does not cover.
fn is_on_other_mount(root: &Path, below: &Path) -> bool {
    match Dir::open_below(root, None, below) {
        Err(RootError::Io(error)) => error.kind() == std::io::ErrorKind::CrossesDevices,
        _ => false,
    }
}
