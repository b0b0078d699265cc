//! A temp after its verdict, and after its claim.

use std::io;

use super::claim::ClaimName;
use super::quarantine::Slot;
use super::types::{Candidate, held_reason};
use crate::core::judge::{Evidence, Reason, Target};
use crate::core::observation::{Observation, UseState};
use crate::evidence::{self, CheckedFile, ComparedTemp, EvidenceContext, FoundTarget};
use crate::fs::dir::Dir;

/// The facts of the verdict of [`Step::Judge`](super::Step::Judge).
pub(super) struct Judged {
    /// The evidence.
    pub(super) evidence: Evidence,
    /// The target at that time.
    pub(super) target: FoundTarget,
}

/// A temp that was renamed to its claim or into the quarantine.
pub(super) struct Claimed<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) checked: CheckedFile,
    pub(super) judged: Box<Judged>,
    /// The file right after the claim.
    pub(super) after: Observation,
    pub(super) at: ClaimedAt<'a>,
}

/// The location of a claimed temp.
pub(super) enum ClaimedAt<'a> {
    /// In its own directory, under this name.
    Here(ClaimName<'a>),
    /// In the quarantine.
    Slot(Slot),
}

impl Judged {
    /// Reports whether a lease has proved the file unused before the claim. If not, the policy allows the removal of
    /// open files.
    pub(super) fn is_proven(&self) -> bool {
        self.evidence.use_state == UseState::Unused
    }

    /// Returns the state of the target now. The temp is compared as it was judged, because a claim changes its ctime.
    pub(super) fn target_now(
        &self,
        dir: &Dir,
        context: EvidenceContext<'_>,
        candidate: &Candidate,
        checked: &CheckedFile,
    ) -> io::Result<Target> {
        let temp = ComparedTemp {
            seen: &self.evidence.observation,
            file: Some(checked.file()),
            companion_bytes: self.evidence.companion_bytes,
            shared: None,
            flushed: context.flushed,
        };
        let parsed = &candidate.temp_info.parsed;
        let now = evidence::recheck_target(dir, context.policy, parsed, temp, &self.target)?;
        Ok(now.target)
    }
}

impl Claimed<'_> {
    /// Requests the lease once more, or the locks if the policy allows the removal of open files. Returns the reason to
    /// keep the file, if there is one.
    pub(super) fn prove_last(&mut self) -> io::Result<Option<Reason>> {
        if self.judged.is_proven() {
            let use_state =
                rule!("proven-at-last", self.checked.check(), without: UseState::Unused);
            return Ok(held_reason(use_state));
        }
        Ok(rule!("lock-is-asked-again", self.checked.lock()?).then_some(Reason::Locked))
    }

    /// Observes the file at the claim, if there is one.
    pub(super) fn look(&self, dir: &Dir) -> io::Result<Option<Observation>> {
        match &self.at {
            ClaimedAt::Here(claim) => dir.observe(claim.name()),
            ClaimedAt::Slot(slot) => slot.observe(&self.candidate.temp_info.name),
        }
    }

    /// Reports whether the claim is the file that was judged. For a file that may be removed while it is open, only the
    /// identity counts, because its holder may still write.
    pub(super) fn is_same(&self, after: &Observation) -> bool {
        let (now, judged) = (&after.fingerprint, &self.judged.evidence.observation);
        match self.judged.is_proven() {
            true => now.is_same_after_rename(&judged.fingerprint) && after.mode == judged.mode,
            false => (now.dev, now.ino) == (judged.fingerprint.dev, judged.fingerprint.ino),
        }
    }

    /// Reports whether the file is unchanged since it was claimed.
    pub(super) fn is_untouched(&self, now: &Observation) -> bool {
        match self.judged.is_proven() {
            true => *now == self.after,
            false => self.is_same(now),
        }
    }
}
