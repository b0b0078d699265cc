//! Takes temps through the protocol, in batches. A temp with companions goes through it alone with them (`set.rs`).

use super::batch::{AfterClaims, Batch};
use super::claimed::Claimed;
use super::reaper::Reaper;
use super::types::{BatchContext, Candidate, EarlyEnd, Outcome, Step};
use crate::core::judge::{LeaseCoverage, Reason, Verdict};
use crate::core::sort::sort_by;
use crate::evidence::{self, EvidenceContext, FileId, FoundTarget, ProcessScan};
use crate::fs::dir::Dir;
use crate::sys::clock;

impl Reaper {
    /// Takes `candidates` through the protocol, and returns them with their outcomes, in the same order.
    ///
    /// Temps to be deleted come before temps to be moved: on a full disk that frees the space that the quarantine may
    /// need.
    pub fn reap<T: AsMut<Candidate>>(
        &self,
        batch_context: BatchContext<'_>,
        candidates: Vec<T>,
    ) -> Vec<(T, Outcome)> {
        let unprocessed = || Outcome::Kept(Reason::Changed);
        let mut all: Vec<(T, Outcome)> = candidates
            .into_iter()
            .map(|candidate| (candidate, unprocessed()))
            .collect();
        let (sets, mut order): (Vec<_>, Vec<_>) = all
            .iter_mut()
            .map(|(candidate, outcome)| (candidate.as_mut(), outcome))
            .partition(|(candidate, _)| !candidate.companions.is_empty());
        let is_moved = |(candidate, _): &(&mut Candidate, _)| candidate.verdict != Verdict::Reap;
        sort_by(&mut order, |one, other| is_moved(one).cmp(&is_moved(other)));
        for temps in order.chunks_mut(self.batch()) {
            self.reap_batch(batch_context, temps);
        }
        for (candidate, outcome) in sets {
            *outcome = self.reap_set(batch_context, candidate);
        }
        all
    }

    /// Takes one batch through the protocol, and sets the outcome of each temp.
    fn reap_batch(
        &self,
        batch_context: BatchContext<'_>,
        temps: &mut [(&mut Candidate, &mut Outcome)],
    ) {
        if let Some((first, _)) = temps.first() {
            self.before_step(Step::Resolve, &first.temp_info.name);
        }
        let unmoved =
            rule!("directory-not-moved", batch_context.check_not_moved(), without: Ok(()));
        if let Err(error) = unmoved {
            for (_, outcome) in temps {
                **outcome = EarlyEnd::from(&error).outcome(Step::Resolve);
            }
            return;
        }
        if let Some(flushed) = batch_context.context.flushed {
            let looked = temps.iter().filter_map(|(temp, _)| temp.looked.as_ref());
            let found = looked.filter_map(|looked| looked.target.as_ref());
            let targets = found.filter_map(FoundTarget::counting_file);
            flushed.flush_together(batch_context.dir, targets, clock::wall());
        }
        // If a lease does not show mappings, all processes are examined before the claim and again after it.
        let expected = temps
            .iter()
            .filter_map(|(candidate, _)| candidate.temp_info.expected);
        let files: Vec<FileId> = expected.map(|file| FileId::from(&file)).collect();
        let before = scan_mappings(batch_context.dir, &files);
        let context = EvidenceContext {
            process_scan: before.as_ref(),
            ..batch_context.context
        };
        let batch_context = BatchContext {
            context,
            ..batch_context
        };
        let batch = Batch::new(self, batch_context);
        let mut claimed = Vec::with_capacity(temps.len());
        for (candidate, outcome) in temps {
            let opened = candidate.opened.take();
            match batch.claim(candidate, opened) {
                Ok(temp) => claimed.push((temp, outcome)),
                Err(end) => **outcome = end,
            }
        }
        let Some((first, _)) = claimed.first() else {
            return;
        };
        self.before_step(Step::Wait, &first.candidate.temp_info.name);
        std::thread::sleep(self.release_wait);
        // RACE: the directory may be moved out of the root at any time. This is the last check. Worst case: a temp in
        // it is removed although the directory has just been moved.
        let unmoved =
            rule!("directory-not-moved-later", batch_context.check_not_moved(), without: Ok(()));
        // The names no longer exist, so no further process can open and map these files.
        let after = scan_mappings(batch_context.dir, &files);
        let mut fresh = AfterClaims::new(batch_context.dir, claimed.len());
        for (temp, outcome) in claimed {
            **outcome = match &unmoved {
                Ok(()) if is_unmapped(&temp, after.as_ref()) => batch.finish(temp, &mut fresh),
                Ok(()) => batch.put_back(temp, Reason::CannotTell),
                Err(error) => batch.end_early(temp, Step::Wait, EarlyEnd::from(error)),
            };
        }
    }
}

/// Scans all processes for mappings of `files`, if a lease does not show mappings in `dir`.
pub(super) fn scan_mappings(dir: &Dir, files: &[FileId]) -> Option<ProcessScan> {
    let coverage = dir.lease_coverage();
    (coverage == LeaseCoverage::OpensOnly).then(|| evidence::scan_processes(files, coverage))
}

/// Reports whether the temp is unmapped by the scan after its claim, if there was one. A file whose mappings were not
/// examined before the claim does not need that now.
fn is_unmapped(temp: &Claimed<'_>, after: Option<&ProcessScan>) -> bool {
    let file = FileId::from(&temp.after.fingerprint);
    let is_proven = |process_scan: &ProcessScan| process_scan.proves_unmapped(file);
    !temp.judged.evidence.mappings_examined || after.is_none_or(is_proven)
}
