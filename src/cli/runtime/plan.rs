//! The directories that a command works on, with their rules: from the command line, or from the configuration file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orphand::core::sort::{map_of, set_of};
use orphand::fs::dir::{RootError, RootId};
use orphand::fs::response;
use orphand::fs::root::{Refused, Root, absolute};

use crate::cli::config::{Config, CoveredDir, RuleLocation, RuleSettings};
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::{OutputOptions, RuleOptions};
use crate::cli::output::shell;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;

/// The settings and roots of a command that works on directories.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) roots: Vec<Root>,
    /// The `[[watch]]` rule of each root that has one, by the path of the root.
    pub(crate) rules: BTreeMap<PathBuf, RuleLocation>,
    /// The roots that are allowed to be broad directories.
    pub(crate) broad: BTreeSet<PathBuf>,
}

impl Plan {
    /// Returns the `[[watch]]` rule of a root.
    pub(crate) fn rule(&self, root: &Root) -> Option<&RuleLocation> {
        self.rules.get(&root.path)
    }

    /// Returns the reason why nothing may be removed in a root, if there is one.
    pub(crate) fn refusal_to_change(&self, root: &Root) -> Option<Refused> {
        root.refusal(self.broad.contains(&root.path))
    }

    /// Prints the rule of the configuration file that applies to each root, on stderr.
    pub(crate) fn report_rules(&self, output: &OutputOptions) {
        const MAX_LINES: usize = 20;
        let lines = self.roots.iter().filter_map(|root| {
            let path = text::escaped(&root.path);
            let rule = self.rule(root)?;
            Some(match &rule.excluded {
                Some(glob) => format!(
                    "{path} is left alone: the [[watch]] rule at {rule} excludes it ({glob})"
                ),
                None => format!("the [[watch]] rule at {rule} applies to {path}"),
            })
        });
        let mut lines: Vec<String> = lines.collect();
        let more = lines.len().saturating_sub(MAX_LINES);
        lines.truncate(MAX_LINES);
        if more > 0 {
            lines.push(format!("{more} more directories have [[watch]] rules"));
        }
        for line in lines.iter().filter(|_| !output.quiet) {
            // These lines only accompany the data: if they cannot be written, the command continues.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

/// The use that a command makes of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// The directory is watched by the `[defaults]`, even if it has a rule of its own.
    Watch,
    /// Files in the directory may be changed.
    Act,
    /// The directory is only read.
    Look,
}

/// Returns the settings and roots for `dirs`, or for the directories of the configuration file if there are none.
pub(crate) fn given_or_listed(
    rule: &RuleOptions,
    typed: RuleSettings,
    dirs: &[PathBuf],
    intent: Intent,
) -> Result<Plan, Failure> {
    match (dirs.is_empty(), intent) {
        (true, Intent::Look) => listed(rule, &typed, "scan"),
        (true, _) => listed(rule, &typed, "sweep"),
        (false, _) => plan(rule, typed, dirs, intent),
    }
}

/// Returns the settings and roots for the directories `dirs` of the command line.
pub(crate) fn plan(
    rule: &RuleOptions,
    typed: RuleSettings,
    dirs: &[PathBuf],
    intent: Intent,
) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    // A flag of the command line is meant for these directories; a `broad` in `[defaults]` is not.
    let typed_broad = typed.broad.unwrap_or(false);
    let covered = match intent {
        Intent::Watch => {
            let policy = typed.over(&config.defaults).policy()?;
            let covered = |dir: &PathBuf| CoveredDir {
                path: absolute(dir),
                policy: policy.clone(),
                rule: None,
                broad: false,
            };
            dirs.iter().map(covered).collect()
        }
        Intent::Act | Intent::Look => config.covered(dirs, &typed)?,
    };
    let mut roots: Vec<Root> = Vec::new();
    // All paths are probed at the same time: the directories that do not answer cost one wait in total.
    let _ = response::unresponsive(covered.iter().map(|one| one.path.as_path()));
    let (mut rules, mut broad) = (BTreeMap::new(), BTreeSet::new());
    for one in covered {
        let policy = Arc::new(one.policy);
        let root = match intent {
            Intent::Look => Root::for_inspection(&one.path, policy),
            Intent::Act | Intent::Watch => Root::new(&one.path, policy, typed_broad || one.broad),
        };
        let root = root.map_err(|why| {
            let explain = rule.append_to(Suggestion::new("explain"));
            Failure::new(Exit::Usage, shell::refused_text(&why, explain))
        })?;
        rules.extend(one.rule.map(|rule| (root.path.clone(), rule)));
        broad.extend((typed_broad || one.broad).then(|| root.path.clone()));
        if roots.iter().all(|known| known.path != root.path) {
            roots.push(root);
        }
    }
    Ok(Plan {
        config,
        roots,
        rules,
        broad,
    })
}

/// Returns the settings and roots for the directories that the configuration file lists. `verb` is the name of the
/// command, for the error message.
fn listed(rule: &RuleOptions, typed: &RuleSettings, verb: &str) -> Result<Plan, Failure> {
    let config = Config::load(rule.config.as_deref())?;
    let mut roots = config.roots(typed)?;
    if roots.is_empty() {
        return Err(nothing_listed(&config, verb));
    }
    let locations = config.watch.iter().map(|rule| config.location_of(rule));
    let rules = roots.iter().map(|root| root.path.clone()).zip(locations);
    let rules = map_of(rules);
    // `Config::roots` has already checked each root by the `broad` of its own rule.
    let broad = set_of(roots.iter().map(|root| root.path.clone()));
    // A watch waits for missing directories; these commands do not wait.
    for root in roots.extract_if(.., |root| is_missing(root)) {
        ::log::warn!("{:?} does not exist; skipping it", root.path);
    }
    Ok(Plan {
        config,
        roots,
        rules,
        broad,
    })
}

/// Returns the error for a command without a directory if the configuration file lists none. It names both fixes.
pub(crate) fn nothing_listed(config: &Config, verb: &str) -> Failure {
    let file = match &config.path {
        Some(path) => format!("{path:?} lists none"),
        None => match Config::default_path() {
            Some(path) => format!("{path:?} does not exist"),
            None => "there is no configuration file".to_owned(),
        },
    };
    let one = format!("to {verb} one now:");
    let init = Suggestion::new("config init").configured();
    let next = match config.path {
        Some(_) => "add to that file a [[watch]] section with `path` for each directory".to_owned(),
        None => format!(
            "{init}, then add to that file a [[watch]] section with `path` for each directory"
        ),
    };
    Failure::new(
        Exit::Usage,
        format!(
            "no directory was given, and {file}.\n\
             {one:<18}   orphand {verb} DIR\n\
             to list them:        {next}"
        ),
    )
}

/// Returns the error for a configuration file that has disappeared while its rules are in force.
pub(crate) fn config_missing(path: &Path) -> Failure {
    Failure::new(
        Exit::Config,
        format!("{path:?} does not exist; create it again"),
    )
}

/// Reports whether a root is known not to exist. A root whose file system does not answer may exist.
pub(crate) fn is_missing(root: &Root) -> bool {
    let path = &root.path;
    response::responds(path) && matches!(RootId::of(path), Err(RootError::Missing))
}

/// Returns the error for a missing directory, for commands that do not wait.
pub(crate) fn missing(path: &Path) -> Failure {
    Failure::failed(format!("{path:?} does not exist; check the name"))
}

/// Returns the message that the file system of `path` does not answer, with the command that finds the cause.
pub(crate) fn no_answer(path: &Path) -> String {
    format!(
        "{path:?} does not answer: no reply from its file system for {} s; to find the cause: \
         orphand doctor {path:?}",
        response::RESPONSE_TIMEOUT.as_secs()
    )
}

/// Returns the error for a root that cannot be scanned.
pub(crate) fn cannot_scan(root: &Root, error: &RootError) -> Failure {
    let path = &root.path;
    match error {
        RootError::Missing => missing(path),
        error => Failure::failed(format!("cannot read {path:?}: {error}")),
    }
}
