//! The roots that the file lists, checked on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orphand::fs::response;
use orphand::fs::root::{Refused, Root};

use super::error::{ConfigError, RootsError};
use super::overlap::KnownRoots;
use super::schema::{Config, RuleSettings, WatchRule};
use crate::cli::output::shell::{self, Suggestion};

impl Config {
    /// Returns the roots that the file lists, each with its own rule. The options `typed` override the rules. This
    /// accesses the paths: a root may be refused, and two paths may lead to the same directory.
    pub(crate) fn roots(&self, typed: &RuleSettings) -> Result<Vec<Root>, RootsError> {
        let mut roots: Vec<Root> = Vec::new();
        // By the paths in the file, and by the resolved paths.
        let mut known = [KnownRoots::default(), KnownRoots::default()];
        // All paths are probed at the same time: the directories that do not answer cost one wait in total.
        let mut probe = response::RepeatedProbe::default();
        for (index, rule) in self.watch.iter().enumerate() {
            let left = self.watch.iter().skip(index);
            probe.refresh(left.map(|rule| rule.path.as_path()));
            let settings = rule.settings.clone().over(&self.defaults);
            let settings = typed.clone().over(&settings);
            let policy = Arc::new(settings.policy()?);
            let broad = settings.broad.unwrap_or(false);
            let root = Root::new(&rule.path, Arc::clone(&policy), broad)
                .map_err(|refused| self.refused(rule, &refused))?;
            let path = resolved(&root.path);
            let both = [root.clone(), Root { path, policy }];
            let overlaps = known.iter().zip(&both);
            let overlaps = overlaps.filter_map(|(known, root)| known.overlap(root));
            // The message names the first such rule in the file, by the path in the file.
            let first = overlaps.min_by_key(|(first, _)| *first);
            if let Some((first, overlap)) = first
                && let Some(first) = self.watch.get(first)
            {
                return Err(self.error_at(rule, overlap.message(first, rule)).into());
            }
            for (known, root) in known.iter_mut().zip(both) {
                known.add(root);
            }
            roots.push(root);
        }
        Ok(roots)
    }

    /// Returns the error for a refused root. For a broad root it proposes the key, because the file has no flags.
    fn refused(&self, rule: &WatchRule, refused: &Refused) -> ConfigError {
        let what = match refused {
            Refused::NotADirectory(_) => {
                shell::refused_text(refused, Suggestion::new("explain").configured())
            }
            refused => refused.with_advice("set broad = true"),
        };
        self.error_at(rule, what)
    }

    /// Returns an error at the path of `rule`.
    fn error_at(&self, rule: &WatchRule, message: String) -> ConfigError {
        ConfigError {
            path: self.path.clone().unwrap_or_default(),
            position: Some(rule.position),
            message,
        }
    }
}

/// Returns `path` with the symlinks in its existing part resolved: two paths may lead to the same directory.
pub(super) fn resolved(path: &Path) -> PathBuf {
    if !response::responds(path) {
        return path.to_owned();
    }
    let resolve = |existing: &Path| {
        let rest = path.strip_prefix(existing).ok()?;
        Some(fs::canonicalize(existing).ok()?.join(rest))
    };
    let real = path.ancestors().find_map(resolve);
    // Roots are compared without a slash at the end.
    real.map_or_else(|| path.to_owned(), |real| real.components().collect())
}
