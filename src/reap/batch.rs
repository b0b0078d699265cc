//! The steps of the protocol for one temp of a batch.

use std::ffi::OsStr;
use std::io;

use rustix::io::Errno;

use super::better_copies::BetterCopies;
use super::calls;
use super::claimed::{Claimed, ClaimedAt, Judged};
use super::lazy_quarantine::LazyQuarantine;
use super::quarantine::{HeldCopies, Slot};
use super::reaper::Reaper;
use super::types::{BatchContext, Candidate, EarlyEnd, Outcome, Step, failed, held_reason};
use crate::core::judge::{LeaseCoverage, Reason, Verdict, judge};
use crate::core::observation::{FileSize, Observation, UseState};
use crate::core::policy::{Open, Policy};
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::{self, FreshSibling, FreshSiblings};
use crate::evidence::{self, CheckedFile, FileUse, FoundTarget, KnownTarget};
use crate::fs::dir;
use crate::fs::dir::Dir;
use crate::sys::clock;

/// The facts that are read for a batch once its temps are claimed.
pub(super) struct AfterClaims<'a> {
    /// The names that may have appeared since.
    siblings: FreshSiblings<'a>,
    /// The guard files. A program that opens one after this check no longer finds the names of the temps.
    guards: GuardChecks,
}

impl<'a> AfterClaims<'a> {
    /// Creates the value for `claimed` temps of `dir`. Nothing is read before the first question.
    pub(super) fn new(dir: &'a Dir, claimed: usize) -> AfterClaims<'a> {
        AfterClaims {
            siblings: FreshSiblings::new(dir, claimed),
            guards: GuardChecks::default(),
        }
    }
}

/// A batch of temps of one directory that go through the protocol together.
pub(super) struct Batch<'a> {
    reaper: &'a Reaper,
    context: BatchContext<'a>,
    quarantine: LazyQuarantine<'a>,
    /// The copies that supersede the temp that is being removed.
    held: HeldCopies,
}

impl<'a> Batch<'a> {
    pub(super) fn new(reaper: &'a Reaper, context: BatchContext<'a>) -> Batch<'a> {
        Batch {
            reaper,
            context,
            quarantine: LazyQuarantine::new(context),
            held: HeldCopies::default(),
        }
    }

    fn dir(&self) -> &'a Dir {
        self.context.dir
    }

    fn policy(&self) -> &'a Policy {
        self.context.context.policy
    }

    /// Runs the steps up to [`Step::Release`]. Returns an outcome if the protocol ends earlier. `opened` is the file,
    /// if it is still open since the look that led to the verdict.
    pub(super) fn claim<'t>(
        &'t self,
        candidate: &'t Candidate,
        opened: Option<CheckedFile>,
    ) -> Result<Claimed<'t>, Outcome> {
        let name = candidate.temp_info.name.as_os_str();
        // Checked here too: a file that the rule does not name is never touched.
        if rule!(
            "only-named-files-reaped",
            !candidate.temp_info.by_shape && !self.policy().is_temp(self.dir().below(), name)
        ) {
            return Err(Outcome::Settled);
        }
        // The quarantine's folders are created before the lease, because that takes time.
        let mut slot = match candidate.verdict {
            Verdict::Reap => None,
            Verdict::Quarantine(_) => Some(self.quarantine.slot(name, candidate.moved_as())?),
            Verdict::Keep(reason) => return Err(Outcome::Kept(reason)),
        };
        let seen = self.look(candidate, slot.as_mut())?;
        let (use_state, checked) = self.prove(candidate, opened)?;
        let judged = self.judge(candidate, seen, use_state, &checked)?;
        let at = self.rename(candidate, slot, &judged, &checked)?;
        let claimed = Claimed {
            candidate,
            checked,
            after: judged.evidence.observation,
            judged,
            at,
        };
        let mut claimed = self.compare(claimed)?;

        self.before_step(Step::ProveAgain, name);
        if rule!("proven-again-after-claim", claimed.judged.is_proven())
            && let Some(reason) = held_reason(claimed.checked.recheck())
        {
            return Err(self.put_back(claimed, reason));
        }

        self.before_step(Step::Release, name);
        claimed.checked.release();
        Ok(claimed)
    }

    /// Returns the file at the name if it is the one that was looked at. Reserves space for it in the quarantine.
    fn look(&self, candidate: &Candidate, slot: Option<&mut Slot>) -> Result<Observation, Outcome> {
        let temp_info = &candidate.temp_info;
        self.before_step(Step::Look, &temp_info.name);
        // The file is opened by its name after this, and compared with what was seen.
        if let Some(looked) = &candidate.looked {
            return Ok(looked.observation);
        }
        let seen = self.dir().observe(&temp_info.name);
        let seen = seen.map_err(failed(Step::Look))?.ok_or(Outcome::Settled)?;
        let is_other = |expected| expected != seen.fingerprint;
        if rule!(
            "same-file-by-name",
            temp_info.expected.is_some_and(is_other)
        ) {
            return Err(Outcome::Kept(Reason::Changed));
        }
        if rule!("quarantine-has-room", true)
            && let Some(slot) = slot
            && !slot
                .reserve(self.reaper.usage(), seen.allocated)
                .map_err(failed(Step::Look))?
            && !candidate.frees_space
        {
            return Err(Outcome::Kept(Reason::QuarantineFull));
        }
        Ok(seen)
    }

    /// Opens the file, and checks whether a process uses it.
    ///
    /// A file that the look has left open cannot be replaced by another file with the same inode number. So if
    /// [`Step::Judge`] finds this file equal to the one that [`Step::Look`] saw, the name refers to it.
    fn prove(
        &self,
        candidate: &Candidate,
        opened: Option<CheckedFile>,
    ) -> Result<(UseState, CheckedFile), Outcome> {
        let name = candidate.temp_info.name.as_os_str();
        self.before_step(Step::Open, name);
        let opened =
            match opened {
                Some(checked) => Ok(checked),
                None => Err(evidence::open_for_check(self.dir(), name).map_err(
                    |error| match error.kind() {
                        io::ErrorKind::NotFound => Outcome::Settled,
                        // A lease of another process is in force: that process holds the file.
                        io::ErrorKind::WouldBlock => Outcome::Kept(Reason::InUse),
                        // Since the look the name was given to a symlink or a socket (open(2)).
                        _ if is_of_other_kind(&error) => Outcome::Settled,
                        // The full look of a file that cannot be opened ends in the same way.
                        io::ErrorKind::PermissionDenied if candidate.looked.is_some() => {
                            Outcome::Kept(Reason::CannotTell)
                        }
                        _ => failed(Step::Open)(error),
                    },
                )?),
            };

        self.before_step(Step::Prove, name);
        let use_checker = self.context.use_checker;
        let mut checked = opened.unwrap_or_else(|file| use_checker.unchecked(file));
        if let Verdict::Quarantine(_) = candidate.verdict {
            checked.expect_move();
        }
        let mut use_state = use_checker.check_again(&mut checked);
        // If open files may be removed or moved, only a lock keeps them.
        let is_held = matches!(use_state, UseState::InUse | UseState::Unknown);
        if rule!(
            "lock-is-asked-for",
            is_held && self.policy().open != Open::Keep
        ) && checked.lock().map_err(failed(Step::Prove))?
        {
            use_state = UseState::Locked;
        }
        Ok((use_state, checked))
    }

    /// Judges the temp again.
    fn judge(
        &self,
        candidate: &Candidate,
        seen: Observation,
        use_state: UseState,
        checked: &CheckedFile,
    ) -> Result<Box<Judged>, Outcome> {
        let temp_info = &candidate.temp_info;
        self.before_step(Step::Judge, &temp_info.name);
        let judged = dir::observe_fd(checked.file()).map_err(failed(Step::Judge))?;
        if rule!("same-file-once-open", judged != seen) {
            return Err(Outcome::Kept(Reason::Changed));
        }
        let found = candidate.looked.as_ref().and_then(|looked| looked.target);
        let is_on_disk = |found: &FoundTarget| {
            let flushed = self.context.context.flushed;
            flushed.is_none_or(|flushed| flushed.has(found, clock::wall()))
        };
        let found = found
            .filter(|found| rule!("known-target-is-on-the-disk", is_on_disk(found), without: true));
        let file_use = FileUse {
            state: use_state,
            file: Some(checked),
            // The target is looked at once more before the removal.
            target: found.map_or(KnownTarget::Nothing, KnownTarget::Found),
            is_needed: true,
        };
        let gathered = evidence::gather(
            self.dir(),
            temp_info,
            judged,
            file_use,
            self.context.context,
        );
        let (mut evidence, target) = gathered.map_err(failed(Step::Judge))?;
        let better = candidate.better.as_ref();
        evidence.superseded = better.is_some_and(BetterCopies::are_unchanged);
        match rule!("judged-again", judge(&evidence, self.policy()), without: candidate.verdict) {
            verdict if verdict == candidate.verdict => Ok(Box::new(Judged { evidence, target })),
            Verdict::Keep(reason) => Err(Outcome::Kept(reason)),
            // The verdict differs: a later pass runs the whole protocol again.
            _ => Err(Outcome::Kept(Reason::Changed)),
        }
    }

    /// Renames the file to its claim, or into its slot in the quarantine.
    fn rename(
        &self,
        candidate: &Candidate,
        slot: Option<Slot>,
        judged: &Judged,
        checked: &CheckedFile,
    ) -> Result<ClaimedAt<'_>, Outcome> {
        let (dir, name) = (self.dir(), candidate.temp_info.name.as_os_str());
        self.before_step(Step::Claim, name);
        let at = match slot {
            Some(slot) => calls::rename(dir.fd(), name, slot.inner_dir(), name)
                .map(|()| ClaimedAt::Slot(slot)),
            None => {
                let claim = self.reaper.claims().name(name);
                calls::rename(dir.fd(), name, dir.fd(), claim.name())
                    .map(|()| ClaimedAt::Here(claim))
            }
        };
        let error = match at {
            Ok(at) => return Ok(at),
            Err(error) => error,
        };
        Err(match error.kind() {
            // Either the temp's name is missing, or the slot, which another process may have removed.
            io::ErrorKind::NotFound => match dir.observe(name) {
                Ok(Some(_)) => Outcome::Kept(Reason::NoQuarantine),
                Ok(None) => Outcome::Settled,
                Err(error) => failed(Step::Claim)(error),
            },
            // This is not done where mappings must be checked again after the claim, or where only a process scan, which
            // takes long, proves that the file is unused.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                if judged.is_proven()
                    && checked.is_proven_by_kernel()
                    && candidate.verdict == Verdict::Reap
                    && rule!("full-disk-lease-sees-mappings",
                        dir.lease_coverage() == LeaseCoverage::OpensAndMaps, without: true) =>
            {
                let outcome = self.unlink_unclaimed(candidate, judged, checked);
                self.held.release();
                outcome
            }
            // No rename that refuses to overwrite is possible here, so no claim is safe.
            io::ErrorKind::Unsupported => Outcome::Kept(Reason::CannotTell),
            _ => failed(Step::Claim)(error),
        })
    }

    /// Checks that the claimed file is the one that was judged.
    fn compare<'t>(&self, mut claimed: Claimed<'t>) -> Result<Claimed<'t>, Outcome> {
        self.before_step(Step::Compare, &claimed.candidate.temp_info.name);
        let end = match claimed.look(self.dir()) {
            Ok(Some(after)) if rule!("same-file-claimed", claimed.is_same(&after), without: true) =>
            {
                claimed.after = after;
                return Ok(claimed);
            }
            Ok(Some(_)) => EarlyEnd::Keep(Reason::Changed),
            // RACE: another process renamed or removed the claim itself. Worst case: the file has a name that this
            // process gave it; orphand does nothing to it.
            Ok(None) => EarlyEnd::Settled,
            Err(error) => EarlyEnd::Failed(error),
        };
        Err(self.end_early(claimed, Step::Compare, end))
    }

    /// Runs the steps after [`Step::Wait`].
    pub(super) fn finish(&self, mut claimed: Claimed<'_>, after: &mut AfterClaims<'_>) -> Outcome {
        self.before_step(Step::ProveLast, &claimed.candidate.temp_info.name);
        match self.check_last(&mut claimed, after) {
            Ok(()) => self.unlink(claimed),
            Err(end) => self.end_early(claimed, Step::ProveLast, end),
        }
    }

    fn check_last(
        &self,
        claimed: &mut Claimed<'_>,
        after: &mut AfterClaims<'_>,
    ) -> Result<(), EarlyEnd> {
        if let Some(reason) = claimed.prove_last()? {
            return Err(EarlyEnd::Keep(reason));
        }
        match claimed.look(self.dir())? {
            Some(now) if rule!("claim-untouched", claimed.is_untouched(&now), without: true) => {}
            Some(_) => return Err(EarlyEnd::Keep(Reason::Changed)),
            None => return Err(EarlyEnd::Settled),
        }
        let (judged, candidate) = (&claimed.judged, claimed.candidate);
        // No companion has appeared beside its name, and no temp of which it is the target. This may list the directory,
        // so it comes before the looks at the files because of which the temp is not needed.
        let (names, name) = (&self.policy().names, &candidate.temp_info.name);
        let sibling = after.siblings.find(names, name);
        match rule!("new-companion-puts-back", sibling, without: Ok(FreshSibling::None))? {
            FreshSibling::None => {}
            FreshSibling::Companion => return Err(EarlyEnd::Keep(Reason::Changed)),
            FreshSibling::Reserved(_) => return Err(EarlyEnd::Keep(Reason::Reserved)),
        }
        rule!("guard-after-the-claims", self.check_guard(candidate, &after.guards), without: Ok(()))?;
        // A temp that is removed because its target counts: the target must still count.
        match judged.target_now(
            self.dir(),
            self.context.context,
            candidate,
            &claimed.checked,
        )? {
            target if rule!("same-target", target == judged.evidence.target, without: true) => {}
            // A symlink that led to the temp now leads nowhere. A move loses nothing as long as no target counts.
            target if matches!(claimed.at, ClaimedAt::Slot(_)) && !target.counts() => {}
            _ => return Err(EarlyEnd::Keep(Reason::Changed)),
        }
        self.check_better_copies(candidate)
    }

    /// Checks that no process uses a guard file of the temp.
    fn check_guard(&self, candidate: &Candidate, guards: &GuardChecks) -> Result<(), EarlyEnd> {
        let name = &candidate.temp_info.name;
        let guard = guards.check(self.context.context.for_guards(self.dir(), name));
        match guard.and_then(|guard| guard.state.reason()) {
            None => Ok(()),
            Some(reason) => Err(EarlyEnd::Keep(reason)),
        }
    }

    /// Checks that the copies that supersede the temp are still in the quarantine.
    ///
    /// RACE: a process of our user may open, change or remove such a copy between this check and the unlink. Worst
    /// case: one of the better copies is lost together with the temp.
    fn check_better_copies(&self, candidate: &Candidate) -> Result<(), EarlyEnd> {
        let Some(better) = &candidate.better else {
            self.held.release();
            return Ok(());
        };
        let are_proven = better.are_proven(&self.held, self.policy(), self.context.use_checker);
        match rule!("better-copies-are-proven", are_proven, without: true) {
            true => Ok(()),
            false => Err(EarlyEnd::Keep(Reason::Changed)),
        }
    }

    /// Removes the claim. A temp in the quarantine stays there.
    fn unlink(&self, claimed: Claimed<'_>) -> Outcome {
        self.before_step(Step::Unlink, &claimed.candidate.temp_info.name);
        let claim = match claimed.at {
            ClaimedAt::Slot(slot) => return quarantined(slot),
            ClaimedAt::Here(ref claim) => claim.name(),
        };
        // RACE: a thread may have entered `open` before the claim and still be inside it (from Step::Release to
        // Step::ProveLast, at least RELEASE_WAIT), and a writer that closed the file may have paused for longer than
        // the rule allows. Worst case: the thread opens a file that loses its name, with what it writes to it, and the
        // rename of the writer fails with ENOENT. docs/safety.md gives the measured rate of the first.
        let removed = match claimed.judged.is_proven() {
            true => calls::unlink_proven(self.dir().fd(), claim, &claimed.checked),
            false => calls::unlink(self.dir().fd(), claim),
        };
        if let Err(error) = removed {
            return self.end_early(claimed, Step::Unlink, EarlyEnd::of_removal(error));
        }
        let size = claimed.after.size();
        let other_name =
            dir::observe_fd(claimed.checked.file()).is_ok_and(|left| left.fingerprint.links > 0);
        close(claimed.checked, size.bytes);
        Outcome::Reaped {
            freed: match other_name {
                true => FileSize::default(),
                false => size,
            },
        }
    }

    /// Ends the protocol at `step` for a claimed temp. It is put back if it must be kept or a call failed.
    pub(super) fn end_early(&self, claimed: Claimed<'_>, step: Step, end: EarlyEnd) -> Outcome {
        match end {
            EarlyEnd::Keep(reason) => self.put_back(claimed, reason),
            EarlyEnd::Settled => Outcome::Settled,
            EarlyEnd::Failed(error) => match self.put_back(claimed, Reason::Changed) {
                Outcome::Kept(_) => failed(step)(error),
                other => other,
            },
        }
    }

    /// Gives a claimed temp its name back, and only then releases the lease.
    ///
    /// If another file has the name, the claim is moved to the quarantine. Nothing is overwritten or deleted.
    pub(super) fn put_back(&self, claimed: Claimed<'_>, reason: Reason) -> Outcome {
        let (dir, name) = (self.dir(), claimed.candidate.temp_info.name.as_os_str());
        let back = match &claimed.at {
            ClaimedAt::Here(claim) => rule!("put-back-not-deleted",
                calls::rename(dir.fd(), claim.name(), dir.fd(), name),
                without: calls::unlink(dir.fd(), claim.name())),
            ClaimedAt::Slot(slot) => calls::rename(slot.inner_dir(), name, dir.fd(), name),
        };
        let error = match back {
            Ok(()) => return Outcome::Kept(reason),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match claimed.at {
                    // The temp was the last file of its directory, which another process has removed since.
                    ClaimedAt::Slot(slot) if !matches!(slot.observe(name), Ok(None)) => {
                        quarantined(slot)
                    }
                    _ => Outcome::Settled,
                };
            }
            Err(error) => error,
        };
        let name_is_taken = error.kind() == io::ErrorKind::AlreadyExists;
        let claim = match claimed.at {
            ClaimedAt::Slot(slot) if name_is_taken => return quarantined(slot),
            ClaimedAt::Slot(slot) => {
                let id = slot.keep();
                log::error!("cannot put back {name:?}; it is in the quarantine: {id}");
                return failed(Step::Claim)(error);
            }
            ClaimedAt::Here(claim) => claim,
        };
        let error = match name_is_taken
            .then(|| self.quarantine.slot(name, claimed.candidate.moved_as()))
        {
            Some(Ok(slot)) => match calls::rename(dir.fd(), claim.name(), slot.inner_dir(), name) {
                Ok(()) => return quarantined(slot),
                Err(error) => error,
            },
            Some(Err(Outcome::Failed { error, .. })) => error,
            Some(Err(_)) | None => error,
        };
        log::error!(
            "cannot put back {name:?}; it keeps the name {:?} until a later attempt succeeds",
            claim.name()
        );
        let claims = self.reaper.claims();
        claims.add_pending(dir.id(), name, claim.name());
        failed(Step::Claim)(error)
    }

    /// Removes a temp by its original name while it is leased. On a full disk a rename may find no space for the new
    /// entry, but an unlink always works.
    ///
    /// RACE: between the comparison and the unlink the name may come to refer to another file, and a process may be
    /// inside an `open` of it, after the look-up and before the lease counts it. Worst case: a file that was renamed
    /// onto the name in these microseconds is lost, or the data written to the file that was opened. A program that
    /// opens its guard file in these microseconds may have found the name. So this is done only if the claim fails with
    /// ENOSPC or EDQUOT (1 of 6,662 temps on a full ext4, 2 on xfs, 329 on btrfs).
    fn unlink_unclaimed(
        &self,
        candidate: &Candidate,
        judged: &Judged,
        checked: &CheckedFile,
    ) -> Outcome {
        let name = candidate.temp_info.name.as_os_str();
        self.before_step(Step::Compare, name);
        if let Err(end) = self.compare_unclaimed(candidate, judged, checked) {
            return end.outcome(Step::Compare);
        }
        self.before_step(Step::ProveAgain, name);
        let use_state =
            rule!("full-disk-proven-again", checked.recheck(), without: UseState::Unused);
        if let Some(reason) = held_reason(use_state) {
            return Outcome::Kept(reason);
        }
        self.before_step(Step::Unlink, name);
        match calls::unlink_proven(self.dir().fd(), name, checked) {
            Ok(()) => Outcome::Reaped {
                freed: judged.evidence.observation.size(),
            },
            Err(error) => EarlyEnd::of_removal(error).outcome(Step::Unlink),
        }
    }

    /// Checks that the name still refers to the file that was judged, and that the verdict still holds.
    fn compare_unclaimed(
        &self,
        candidate: &Candidate,
        judged: &Judged,
        checked: &CheckedFile,
    ) -> Result<(), EarlyEnd> {
        let (dir, name) = (self.dir(), candidate.temp_info.name.as_os_str());
        let now = dir.observe(name)?.ok_or(EarlyEnd::Settled)?;
        if rule!("full-disk-same-file", now != judged.evidence.observation) {
            return Err(EarlyEnd::Keep(Reason::Changed));
        }
        let target = judged.target_now(dir, self.context.context, candidate, checked)?;
        if rule!("full-disk-same-target", target != judged.evidence.target) {
            return Err(EarlyEnd::Keep(Reason::Changed));
        }
        self.check_better_copies(candidate)?;
        let names = &self.policy().names;
        let has_companion = siblings::has_companion(dir, names, name);
        match rule!("full-disk-no-companion", has_companion, without: Ok(false))? {
            false => rule!(
                "full-disk-guard-is-unused",
                self.check_guard(candidate, &GuardChecks::default()),
                without: Ok(()),
            ),
            true => Err(EarlyEnd::Keep(Reason::Changed)),
        }
    }

    fn before_step(&self, step: Step, name: &OsStr) {
        self.reaper.before_step(step, name);
    }
}

/// Reports whether a file was not opened because it is a symlink or a socket.
fn is_of_other_kind(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::LOOP | Errno::NXIO))
}

/// Returns the outcome for a temp that is in its slot.
fn quarantined(slot: Slot) -> Outcome {
    let folder = slot.folder_name().to_owned();
    let id = slot.keep();
    Outcome::Quarantined { id, folder }
}

/// Closes the file. The last close of a huge file frees its blocks, which takes long, so a separate thread does that.
fn close(mut checked: CheckedFile, bytes: u64) {
    const HUGE: u64 = 256 << 20;
    if bytes < HUGE {
        return drop(checked);
    }
    // The signal that announces a broken lease is blocked in this thread.
    checked.release();
    let closer = std::thread::Builder::new().name("orphand-close".into());
    // If no thread can be created, the closure is dropped and the file is closed here.
    let _ = closer.spawn(move || drop(checked));
}
