//! Finds the temps in the roots of a scan, and judges them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use orphand::core::census::Tree;
use orphand::core::judge::{Reason, Verdict};
use orphand::core::sums::{Outcome, SumKey, Summand, Sums, TempSum};
use orphand::engine::{self, DirContext, Examined, ScannedDir, groups};
use orphand::evidence::UseChecker;
use orphand::evidence::guard::GuardChecks;
use orphand::evidence::siblings::Listings;
use orphand::fs::dir::{Dir, RootError};
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::fs::walk::{self, Found};
use orphand::reap::quarantine;
use orphand::store::folders::Folders;

use crate::cli::exit::Failure;
use crate::cli::options::OutputOptions;
use crate::cli::output::census::Census;
use crate::cli::output::groups::Grouping;
use crate::cli::output::learned::{self, LearnedFiles};
use crate::cli::output::standard_streams::progress_bar;
use crate::cli::runtime::claims::FoundClaims;
use crate::cli::runtime::engine::{engine, known_shapes};
use crate::cli::runtime::plan::{cannot_scan, no_answer};
use crate::cli::runtime::trees::{measure, stored_in};

/// A temp, and the root in which it was found.
pub(super) struct Row<'a> {
    pub(super) root: &'a Root,
    pub(super) examined: Examined,
}

/// Temps of one directory with similar names and the same verdict.
pub(super) struct ScanGroup<'a> {
    pub(super) key: &'a SumKey,
    pub(super) sum: &'a TempSum,
    /// One of them.
    pub(super) first: &'a Row<'a>,
}

/// The result of a scan of all roots.
#[derive(Default)]
pub(super) struct ScanResult<'a> {
    pub(super) rows: Vec<Row<'a>>,
    /// The directories that were not entered because they are other mounts or subvolumes.
    pub(super) skipped: Vec<PathBuf>,
    /// Directories and special files whose names the rule matches.
    pub(super) trees: Vec<Tree>,
    /// The claims in each root.
    pub(super) claims: Vec<(&'a Root, FoundClaims)>,
    /// The known shapes of temps that files in the roots fit.
    pub(super) learned: Vec<LearnedFiles>,
    /// The number of directories that could not be read.
    pub(super) unread: u64,
    /// A temp could not be examined.
    failed: bool,
}

/// The sums of the groups of a scan.
#[derive(Default)]
pub(super) struct ScanSums<'a> {
    pub(super) sums: Sums,
    first: HashMap<SumKey, &'a Row<'a>>,
}

impl ScanSums<'_> {
    /// Returns the groups, the one with the most bytes first.
    pub(super) fn groups(&self) -> Vec<ScanGroup<'_>> {
        let sums = self.sums.largest_first().into_iter();
        sums.filter_map(|(key, sum)| {
            let first = self.first.get(key)?;
            Some(ScanGroup { key, sum, first })
        })
        .collect()
    }
}

pub(super) fn is_orphan(examined: &Examined) -> bool {
    !matches!(examined.verdict, Verdict::Keep(_))
}

impl<'a> ScanResult<'a> {
    /// Examines every temp of `root`, and counts the claims that a killed orphand left there.
    pub(super) fn scan(&mut self, root: &'a Root, output: &OutputOptions) -> Result<(), Failure> {
        if !response::responds(&root.path) {
            log::error!("{}", no_answer(&root.path));
            self.unread += 1;
            return Ok(());
        }
        let bar = progress_bar(output, "temps examined");
        if let Some(found) = self.find(root, &bar)? {
            if let Some(what) = walk::not_entered_message(root, &found.not_entered) {
                log::warn!("{what}");
            }
            self.skipped.extend(found.not_entered);
            self.trees.extend(measure([(root.clone(), found.trees)]));
            self.judge(root, &found.temps, &bar)?;
            bar.finish_and_clear();
            let claims = FoundClaims::still_present(root, &found.claims);
            self.claims.push((root, claims));
        }
        Ok(())
    }

    /// Returns the temps in `root`, or `None` if it cannot be read: this does not end the scan of the other roots.
    fn find(&mut self, root: &Root, bar: &ProgressBar) -> Result<Option<Found>, Failure> {
        let mut denied = |path: &Path, error: &io::Error| {
            self.unread += 1;
            log::error!("cannot read {path:?}: {error}");
        };
        let progress = |count| bar.set_length(count as u64);
        match walk::find(root, &mut denied, &progress, &|| false) {
            Ok(found) => Ok(Some(found)),
            Err(RootError::Io(error)) if !RootError::is_missing_error(&error) => {
                denied(&root.path, &error);
                Ok(None)
            }
            Err(error) => Err(cannot_scan(root, &error)),
        }
    }

    fn judge(
        &mut self,
        root: &'a Root,
        temps: &[(PathBuf, Vec<OsString>)],
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let mut engine = engine(&Folders::from_env(), false)?;
        engine.listings = Listings::for_one_command();
        let use_checker = UseChecker::new();
        let has_quarantine = Dir::open_root(&root.path, None).is_ok_and(|dir| {
            root.report_coarse_dates(dir.properties().dates);
            quarantine::is_possible(&dir)
        });
        for (below, names) in temps {
            let dir = match Dir::open_below(&root.path, None, below) {
                Ok(dir) => dir,
                Err(error) => {
                    log::error!("cannot open {:?}: {error}", root.path.join(below));
                    self.unread += 1;
                    continue;
                }
            };
            let context = DirContext {
                root,
                id: None,
                below,
            };
            let guards = GuardChecks::default();
            let scanned = ScannedDir {
                dir: &dir,
                has_quarantine,
                guards: &guards,
            };
            let mut examined_temps = Vec::with_capacity(names.len());
            for name in names {
                bar.inc(1);
                match engine::judge_now(&engine, context, scanned, &use_checker, name) {
                    Ok(Some(examined)) => examined_temps.push(examined),
                    Ok(None) => {}
                    Err(error) => {
                        log::error!("cannot examine {:?}: {error}", dir.path().join(name));
                        self.failed = true;
                    }
                }
            }
            groups::judge_groups(context, &mut examined_temps);
            let rows = examined_temps.into_iter();
            self.rows
                .extend(rows.map(|examined| Row { root, examined }));
        }
        Ok(())
    }

    /// Returns the sums of the groups.
    pub(super) fn sums(&self, grouping: &Grouping) -> ScanSums<'_> {
        let mut all = ScanSums::default();
        for row in &self.rows {
            let examined = &row.examined;
            let outcome = Outcome::Judged(examined.verdict);
            let key = grouping.key(&row.root.path, &examined.path, outcome);
            all.first.entry(key.clone()).or_insert(row);
            let summand = Summand {
                size: examined.evidence.observation.size(),
                quiet: examined.temp_info.quiet,
                target: examined.target.clone(),
                program: examined.details.writer.clone(),
            };
            all.sums.add(key, summand);
        }
        all
    }

    /// Finds the learned shapes which files in `roots` fit.
    pub(super) fn find_learned(&mut self, roots: &[Root]) {
        let known = known_shapes(&Folders::from_env());
        for root in roots.iter().filter(|root| response::responds(&root.path)) {
            self.learned.extend(learned::find_files(root, &known));
        }
    }

    /// Reports whether a directory could not be read, or the verdict of a temp is not known.
    pub(super) fn is_partial(&self) -> bool {
        let cannot_tell = |row: &Row<'_>| row.examined.verdict == Verdict::Keep(Reason::CannotTell);
        self.failed || self.unread > 0 || self.rows.iter().any(cannot_tell)
    }

    /// Counts the temps by their verdicts, and the files in the quarantines of `roots`.
    pub(super) fn census(&self, roots: &[Root]) -> Census {
        let mut census = Census::default();
        for Row { examined, .. } in &self.rows {
            let temp_info = &examined.temp_info;
            census.add(examined.verdict, temp_info.quiet, temp_info.grace);
        }
        for root in roots.iter().filter(|root| response::responds(&root.path)) {
            let (files, size) = stored_in(&root.path);
            census.add_quarantine(files, size);
        }
        census
    }

    pub(super) fn total_claims(&self) -> FoundClaims {
        let claims = self.claims.iter().map(|(_, claims)| *claims);
        claims.fold(FoundClaims::default(), FoundClaims::plus)
    }
}
