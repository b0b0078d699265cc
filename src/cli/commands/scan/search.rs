//! Finds the temps in the roots of a scan, and judges them while the search goes on.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use orphand::core::observation::Kind;
use orphand::fs::dir::{Dir, RootError, RootId, with_fix};
use orphand::fs::lookalikes::LookalikeCounter;
use orphand::fs::response;
use orphand::fs::root::Root;
use orphand::fs::walk::{self, ScanItem};
use orphand::reap::quarantine::{self, Quarantine};
use orphand::store::folders::Folders;
use orphand::sys::mutex::guard;

use super::dir_report::{DirReport, RootContext, ScanContext};
use super::output::ScanOutput;
use super::result::ScanResult;
use crate::cli::exit::Failure;
use crate::cli::options::OutputOptions;
use crate::cli::output::lookalikes::with_root;
use crate::cli::output::standard_streams::{
    progress_bar, progress_bar_beside_output, stdout_is_terminal,
};
use crate::cli::runtime::claims::FoundClaims;
use crate::cli::runtime::engine::engine;
use crate::cli::runtime::plan::{cannot_scan, no_answer};
use crate::cli::runtime::trees::measure;

/// The findings in one root that are processed after its scan.
#[derive(Default)]
struct RootFindings {
    claims: Vec<(PathBuf, OsString)>,
    trees: Vec<(PathBuf, Kind)>,
    not_entered: Vec<PathBuf>,
}

/// Returns the error for the first of `roots` that exists no more or is not a directory. A root that cannot be read does
/// not end the scan of the others.
pub(super) fn check_roots(roots: &[Root]) -> Result<(), Failure> {
    for root in roots.iter().filter(|root| response::responds(&root.path)) {
        match RootId::of(&root.path) {
            Err(error) if !is_unreadable(&error) => return Err(cannot_scan(root, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn is_unreadable(error: &RootError) -> bool {
    matches!(error, RootError::Io(error) if !RootError::is_missing_error(error))
}

/// Scans the roots.
pub(super) struct Search<'s, 'a> {
    pub(super) context: ScanContext<'a>,
    pub(super) result: &'s mut ScanResult<'a>,
    pub(super) output: &'s OutputOptions,
}

impl<'a> Search<'_, 'a> {
    /// Examines every temp of the root with this index, and counts the claims that a killed orphand left there.
    pub(super) fn scan(&mut self, index: usize, out: &mut ScanOutput<'_>) -> Result<(), Failure> {
        let context = self.context;
        let (Some(root), Some(narrower)) =
            (context.plan.roots.get(index), context.narrower.get(index))
        else {
            return Ok(());
        };
        if !response::responds(&root.path) {
            log::error!("{}", no_answer(&root.path));
            self.result.unread += 1;
            return Ok(());
        }
        let engine = engine(&Folders::from_env(), false);
        let what = "temps examined";
        let bar = match context.listing.is_stream() {
            true if stdout_is_terminal() => ProgressBar::hidden(),
            true => progress_bar_beside_output(self.output, what),
            false => progress_bar(self.output, what),
        };
        let has_quarantine = Dir::open_root(&root.path, None).is_ok_and(|dir| {
            root.report_coarse_dates(dir.properties().dates);
            quarantine::is_possible(&dir)
        });
        let min_size = Mutex::new(out.min_size());
        let lookalikes = LookalikeCounter::new(&root.policy);
        let root_context = RootContext {
            scan: context,
            root,
            narrower,
            engine: &engine,
            has_quarantine,
            quarantine: Quarantine::open_existing(&root.path, None).ok().flatten(),
            min_size: &min_size,
            lookalikes: &lookalikes,
            bar: &bar,
        };
        let findings = self.walk(&root_context, out)?;
        bar.finish_and_clear();
        if let Some(what) = walk::not_entered_message(root, &findings.not_entered) {
            log::warn!("{what}");
        }
        self.result.skipped.extend(findings.not_entered);
        self.result
            .trees
            .extend(measure([(root.clone(), findings.trees)]));
        let lookalikes = with_root(root, lookalikes.largest_first());
        self.result.lookalikes.extend(lookalikes);
        let claims = FoundClaims::still_present(root, &findings.claims);
        self.result.claims.push((root, claims));
        Ok(())
    }

    fn walk(
        &mut self,
        context: &RootContext<'_>,
        out: &mut ScanOutput<'_>,
    ) -> io::Result<RootFindings> {
        let root = context.root;
        let mut findings = RootFindings::default();
        let is_over = AtomicBool::default();
        let mut printed = Ok(());
        let on_item = |report: &mut DirReport, item: ScanItem<'_>| report.take(context, item);
        let mut emit = |mut report: DirReport| {
            if printed.is_ok() {
                printed = out.add(&mut report, root);
                *guard(context.min_size) = out.min_size();
                is_over.store(printed.is_err(), Ordering::Relaxed);
            }
            self.add(&mut findings, report);
        };
        let is_stopped = || is_over.load(Ordering::Relaxed);
        if let Err(error) = walk::scan_in_order(root, &on_item, &mut emit, &is_stopped) {
            self.result.unread += 1;
            log::error!("cannot read {:?}: {error}", root.path);
        }
        printed.map(|()| findings)
    }

    /// Adds the findings of one directory, except what was printed.
    fn add(&mut self, findings: &mut RootFindings, report: DirReport) {
        if let Some((path, error)) = &report.denied {
            self.result.unread += 1;
            log::error!("cannot read {path:?}: {}", with_fix(error));
        }
        for (path, error) in &report.failed {
            self.result.failed = true;
            log::error!("cannot examine {path:?}: {error}");
        }
        self.result.tally.merge(&report.tally);
        findings.claims.extend(report.claims);
        findings.trees.extend(report.trees);
        findings.not_entered.extend(report.not_entered);
    }
}
