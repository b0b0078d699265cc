//! The verdicts about the temps of a pass.

use std::io;

use super::{JudgedTemp, Pass, PassItem, ReadyTemp};
use crate::core::judge::{LeaseCoverage, Reason, Verdict};
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::engine::clock_reading::ClockReading;
use crate::engine::look::{Proof, SeenFile};
use crate::engine::sets::{self, SeenMember};
use crate::evidence::{self, EvidenceContext, FileId, FileUse, KnownTarget, TempInfo};
use crate::fs::dir::Dir;
use crate::reap::{Candidate, Companion, CompanionResult, Looked};

impl<'a> Pass<'a> {
    /// Gathers the evidence about a temp, and judges it. Returns `None` if the temp is to be looked at again later.
    pub(super) fn judge(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        mut seen: SeenFile,
        mut temp_info: TempInfo,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> io::Result<Option<Box<JudgedTemp>>> {
        let set = self.look_at_set(dir, item, &mut temp_info, clock_reading, context.our_uid)?;
        let Some((members, set_fault)) = set else {
            return Ok(None);
        };
        let siblings = self.siblings(dir)?;
        let context = EvidenceContext {
            siblings: &siblings,
            ..context
        };
        let observation = seen.observation;
        let (names, uid) = (&context.policy.names, observation.fingerprint.uid);
        let parsed = siblings.apply(temp_info.parsed, names, &item.name, uid);
        temp_info.parsed = evidence::with_longer_target(dir, parsed)?;
        let is_told = temp_info.parsed.owner.is_some();
        if rule!("taken-only-if-told", temp_info.by_shape && !is_told) {
            item.temp = None;
            return Ok(None);
        }
        let file_use = match seen.proof {
            Proof::Now | Proof::NotNeeded => seen.file_use(),
            Proof::ByProtocol => FileUse {
                target: KnownTarget::Shared(&self.targets),
                ..seen.file_use()
            },
        };
        let (evidence, found) = evidence::gather(dir, &temp_info, observation, file_use, context)?;
        // The other temp may be removed before the next look.
        let is_target = matches!(evidence.reserved, Some(Reserved::TargetOf(_)));
        if rule!("target-until-watch-ends", is_target)
            && let Some(temp) = &mut item.temp
        {
            temp.mark_target();
        }
        if let Some(checked) = &mut seen.checked {
            checked.release();
        }
        let companions = sets::gather_members(dir, &members, context)?;
        let is_single = members.is_empty();
        let companion = |member: SeenMember| Companion {
            temp_info: member.temp_info,
            result: CompanionResult::default(),
        };
        let mut judged = Box::new(JudgedTemp {
            candidate: Candidate {
                temp_info,
                verdict: Verdict::Keep(Reason::CannotTell),
                target_counts: evidence.target.counts(),
                better: None,
                frees_space: false,
                // Another name of the file may be due as well, and the file would be found in use: by this process.
                opened: seen
                    .checked
                    .filter(|_| is_single && observation.fingerprint.links == 1),
                looked: (seen.proof == Proof::ByProtocol).then_some(Looked {
                    observation,
                    target: Some(found),
                }),
                companions: members.into_iter().map(companion).collect(),
            },
            evidence,
            companions,
            set_fault,
            target: found.index,
        });
        judged.judge_again(context.policy);
        Ok(Some(judged))
    }
}

/// On file systems where a lease does not prove that a file is unmapped, makes one process scan for all of `ready`, and
/// judges them by its result.
pub(super) fn find_mappings(dir: &Dir, policy: &Policy, ready: &mut [ReadyTemp<'_>]) {
    if dir.lease_coverage() != LeaseCoverage::OpensOnly || ready.is_empty() {
        return;
    }
    let wanted: Vec<FileId> = ready.iter().flat_map(|temp| temp.judged.files()).collect();
    let process_scan = evidence::scan_processes(&wanted, dir.lease_coverage());
    for ReadyTemp { judged, .. } in ready {
        for evidence in std::iter::once(&mut judged.evidence).chain(&mut judged.companions) {
            let file = FileId::from(&evidence.observation.fingerprint);
            evidence.mappings_examined = process_scan.proves_unmapped(file);
        }
        judged.judge_again(policy);
    }
}
