//! Reports the temps of a pass that are kept, and those that a dry run would have taken, and finds the processes that use
//! them.

use super::{JudgedTemp, KeptTemp, Pass, ReadyTemp, Removal};
use crate::core::event::{Details, Disposed, Event};
use crate::core::judge::{Reason, Verdict};
use crate::core::observation::Holder;
use crate::core::sort::sort_by;
use crate::core::tracker::Kept;
use crate::engine::examine::{details, guard_for};
use crate::evidence::{self, FileId, ProcessScan};
use crate::fs::dir::Dir;
use crate::sys::clock;

impl<'a> Pass<'a> {
    /// Reports what a pass would do if it were not a dry run.
    pub(super) fn report_dry_run(&mut self, removals: Vec<Removal<'_>>) {
        for Removal { temp, disposed } in removals {
            let Some(tracked) = &mut temp.item.temp else {
                continue;
            };
            if !tracked
                .retry_later(temp.judged.grace(), clock::mono())
                .is_new
            {
                continue;
            }
            let companions = self.disposed_companions(&temp.judged, &disposed);
            for disposed in std::iter::once(disposed).chain(companions) {
                let disposed = Disposed {
                    dry_run: true,
                    ..disposed
                };
                (self.emit)(match temp.judged.candidate.verdict {
                    Verdict::Quarantine(reason) => Event::Quarantined {
                        disposed,
                        id: None,
                        reason,
                    },
                    _ => Event::Reaped(disposed),
                });
            }
        }
    }

    /// Reports the kept temps with their reasons, once for each temp and reason.
    pub(super) fn report_kept(&mut self, dir: &Dir, kept: Vec<KeptTemp<'_>>) {
        let reports: Vec<(KeptTemp<'_>, Kept)> = kept
            .into_iter()
            .filter_map(|one| {
                let tracked = one.temp.item.temp.as_mut()?;
                let kept = tracked.keep(one.reason, one.temp.judged.grace(), clock::mono());
                kept.is_new.then_some((one, kept))
            })
            .collect();
        // One process scan finds the holders of all these files.
        let held: Vec<FileId> = reports
            .iter()
            .filter(|(one, _)| one.reason.is_held())
            .flat_map(|(one, _)| files_in_use(&one.temp.judged, one.reason))
            .collect();
        let process_scan = match held.is_empty() {
            true => ProcessScan::default(),
            false => evidence::scan_processes(&held, dir.lease_coverage()),
        };
        for (KeptTemp { temp, reason }, kept) in reports {
            let (name, seen) = (&temp.item.name, temp.judged.observation());
            let guard = guard_for(&temp.judged.evidence, reason);
            let files = files_in_use(&temp.judged, reason);
            let mut holders: Vec<Holder> = files
                .into_iter()
                .flat_map(|file| process_scan.holders_of(file))
                .collect();
            sort_by(&mut holders, Ord::cmp);
            holders.dedup();
            // A process that uses the guard file did not write the temp.
            let holder = match guard {
                None => {
                    let writers = &self.engine.writers;
                    writers.holder_of(temp.judged.file(), &holders)
                }
                Some(_) => None,
            };
            let parsed = self.policy().names.parse(name);
            let details = details(self.engine, self.policy(), dir, &parsed, seen, reason);
            let details = Details {
                guard: guard.map(|guard| guard.path.clone()),
                process: holder.or_else(|| details.process.clone()),
                ..details
            };
            (self.emit)(Event::Kept {
                subject: self.dir_context.subject(name, Some(seen.size())),
                reason,
                holders,
                retry: Some(kept.retry),
                reported_before: kept.reported_before,
                details,
            });
        }
    }

    /// Learns which processes use the temps that are removed or moved although they are in use. After that, no process
    /// can be found by their names.
    pub(super) fn learn_holders(&self, dir: &Dir, ready: &[ReadyTemp<'_>]) {
        let is_taken = |judged: &JudgedTemp| {
            judged.evidence.use_state.is_held()
                && !matches!(judged.candidate.verdict, Verdict::Keep(_))
        };
        let held = ready.iter().filter(|temp| is_taken(&temp.judged));
        let held: Vec<FileId> = held.map(|temp| temp.judged.file()).collect();
        if held.is_empty() {
            return;
        }
        let process_scan = evidence::scan_processes(&held, dir.lease_coverage());
        for file in held {
            let holders = process_scan.holders_of(file);
            self.engine.writers.learn_holders(file, &holders);
        }
    }
}

/// Returns the files whose use keeps the temp for `reason`: the temp and its companions, or its guard file.
fn files_in_use(judged: &JudgedTemp, reason: Reason) -> Vec<FileId> {
    match guard_for(&judged.evidence, reason).and_then(|guard| guard.seen) {
        Some(seen) => vec![FileId::from(&seen)],
        None => judged.files().collect(),
    }
}
