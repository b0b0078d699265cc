//! Takes a set through the protocol: a temp with its companions.
//!
//! All members are looked at, leased and judged before the first one is claimed. The main file is claimed first,
//! removed first and put back last: a program that can open it finds its companions. All claims of a set have the same
//! digits, so that the next start recovers the whole set after a crash. If anything differs, no member is removed.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;

use super::calls;
use super::claim::ClaimName;
use super::lazy_quarantine::LazyQuarantine;
use super::protocol::scan_mappings;
use super::quarantine::{MovedAs, Slot};
use super::reaper::Reaper;
use super::types::{
    BatchContext, Candidate, Companion, CompanionResult, EarlyEnd, Outcome, Step, failed,
    held_reason,
};
use crate::core::judge::{Evidence, Reason, Target, Verdict, judge_set};
use crate::core::observation::{FileSize, Observation, UseState};
use crate::core::sort::set_of;
use crate::core::temp_set::{SetNames, SetStep, after_claims, before_claims};
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::{FreshSibling, FreshSiblings, find_set};
use crate::evidence::{
    self, CheckedFile, ComparedTemp, EvidenceContext, FileId, FileUse, FoundTarget, KnownTarget,
    ProcessScan, TempInfo,
};
use crate::fs::dir;
use crate::fs::dir::Dir;
use crate::sys::clock;

impl Reaper {
    /// Takes a temp with its companions through the protocol.
    pub(super) fn reap_set(
        &self,
        batch_context: BatchContext<'_>,
        candidate: &mut Candidate,
    ) -> Outcome {
        self.before_step(Step::Resolve, &candidate.temp_info.name);
        if let Err(error) = batch_context.check_not_moved() {
            return EarlyEnd::from(&error).outcome(Step::Resolve);
        }
        // The main file may still be open since its last look. It is opened again with its companions.
        candidate.opened = None;
        let members = std::iter::once(&candidate.temp_info)
            .chain(candidate.companions.iter().map(|one| &one.temp_info));
        let expected = members.filter_map(|member| member.expected);
        let files: Vec<FileId> = expected.map(|file| FileId::from(&file)).collect();
        let before = scan_mappings(batch_context.dir, &files);
        let context = EvidenceContext {
            process_scan: before.as_ref(),
            ..batch_context.context
        };
        let removal = SetRemoval {
            reaper: self,
            context: BatchContext {
                context,
                ..batch_context
            },
            quarantine: LazyQuarantine::new(batch_context),
            files,
            verdict: candidate.verdict,
            moved_as: candidate.moved_as(),
        };
        let mut results = Vec::new();
        let members = candidate.companions.iter().map(|one| &one.temp_info);
        let members: Vec<&TempInfo> = std::iter::once(&candidate.temp_info)
            .chain(members)
            .collect();
        let outcome = match removal.run(&members, &mut results) {
            Ok(outcome) | Err(outcome) => outcome,
        };
        for (Companion { result, .. }, new) in candidate.companions.iter_mut().zip(results) {
            *result = new;
        }
        outcome
    }
}

/// The removal of one set.
struct SetRemoval<'a> {
    reaper: &'a Reaper,
    context: BatchContext<'a>,
    quarantine: LazyQuarantine<'a>,
    files: Vec<FileId>,
    verdict: Verdict,
    moved_as: MovedAs,
}

/// A member that is leased.
struct Leased<'t> {
    temp_info: &'t TempInfo,
    checked: CheckedFile,
    /// The observation with which it was judged.
    judged: Observation,
}

/// A member from its claim to its removal.
struct Member<'t, 'c> {
    temp_info: &'t TempInfo,
    checked: CheckedFile,
    judged: Observation,
    claim: ClaimName<'c>,
    /// The observation right after the claim.
    after: Observation,
    place: Place,
}

/// The place of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has its name.
    Named,
    /// It has the name of its claim.
    Claimed,
    /// It is in the quarantine.
    Stored,
    /// Another process has removed or renamed it.
    Gone,
}

impl Member<'_, '_> {
    fn name(&self) -> &OsStr {
        &self.temp_info.name
    }
}

/// The proven members, the first of which is the main file, and what the verdict on them is based on.
struct JudgedSet<'t> {
    members: Vec<Leased<'t>>,
    evidence: Evidence,
    target: FoundTarget,
}

impl<'a> SetRemoval<'a> {
    fn dir(&self) -> &'a Dir {
        self.context.dir
    }

    fn before_step(&self, step: Step, name: &OsStr) {
        self.reaper.before_step(step, name);
    }

    /// Runs all steps. `members` begins with the main file. If that was removed or moved, `results` gets the results of
    /// the companions.
    fn run<'t>(
        &'t self,
        members: &[&'t TempInfo],
        results: &mut Vec<CompanionResult>,
    ) -> Result<Outcome, Outcome> {
        let policy = self.context.context.policy;
        let (dir, main) = (self.dir(), members.first().ok_or(Outcome::Settled)?);
        let is_named = policy.is_temp(dir.below(), &main.name);
        if rule!("only-named-sets-are-taken", !is_named) {
            return Err(Outcome::Settled);
        }
        if let Verdict::Keep(reason) = self.verdict {
            return Err(Outcome::Kept(reason));
        }
        let seen = self.look(members)?;
        let slots = self.slots(members, &seen)?;
        let leased = self.prove(members, seen)?;
        let judged = self.judge(leased)?;
        self.check_names_before(&judged)?;
        let JudgedSet {
            members,
            evidence,
            target,
        } = judged;
        let mut claimed = self.claim_all(members, results)?;
        if let Err((step, end)) = self.check_claimed(&mut claimed) {
            return Err(self.end_early(claimed, step, end, results));
        }
        self.before_step(Step::Wait, &main.name);
        std::thread::sleep(self.reaper.release_wait);
        let checked = self
            .check_last(&mut claimed)
            .and_then(|()| self.check_target(&claimed, &evidence, &target));
        if let Err((step, end)) = checked {
            return Err(self.end_early(claimed, step, end, results));
        }
        Ok(match slots {
            Some(slots) => self.store(claimed, slots, results),
            None => self.unlink(claimed, results),
        })
    }

    /// Returns the observations of all members if each is the file that was looked at.
    fn look(&self, members: &[&TempInfo]) -> Result<Vec<Observation>, Outcome> {
        let mut all = Vec::with_capacity(members.len());
        for (index, member) in members.iter().enumerate() {
            self.before_step(Step::Look, &member.name);
            let seen = self.dir().observe(&member.name);
            let seen = match seen.map_err(failed(Step::Look))? {
                Some(seen) => seen,
                None if index == 0 => return Err(Outcome::Settled),
                None => return Err(Outcome::Kept(Reason::Changed)),
            };
            let is_same = member.expected == Some(seen.fingerprint);
            if !is_same {
                return Err(Outcome::Kept(Reason::Changed));
            }
            all.push(seen);
        }
        Ok(all)
    }

    /// Returns slots in the quarantine for all members, if the set is to be moved. They are created before the leases,
    /// because that takes time.
    fn slots(
        &self,
        members: &[&TempInfo],
        seen: &[Observation],
    ) -> Result<Option<Vec<Slot>>, Outcome> {
        if self.verdict == Verdict::Reap {
            return Ok(None);
        }
        let names: Vec<&OsStr> = members.iter().map(|member| &*member.name).collect();
        let mut slots = self.quarantine.set_slots(&names, self.moved_as)?;
        let bytes = seen.iter().map(|seen| seen.allocated);
        let bytes = bytes.fold(0, u64::saturating_add);
        let has_room = match slots.first_mut() {
            Some(slot) => slot.reserve(self.reaper.usage(), bytes),
            None => Ok(false),
        };
        match has_room.map_err(failed(Step::Look))? {
            true => Ok(Some(slots)),
            false => Err(Outcome::Kept(Reason::QuarantineFull)),
        }
    }

    /// Opens and leases all members.
    fn prove<'t>(
        &self,
        members: &[&'t TempInfo],
        seen: Vec<Observation>,
    ) -> Result<Vec<Leased<'t>>, Outcome> {
        let mut leased = Vec::with_capacity(members.len());
        for (member, judged) in members.iter().zip(seen) {
            self.before_step(Step::Open, &member.name);
            let opened = evidence::open_for_check(self.dir(), &member.name);
            let opened = opened.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Outcome::Kept(Reason::Changed),
                // A lease of another process is in force: that process holds the file.
                io::ErrorKind::WouldBlock => Outcome::Kept(Reason::InUse),
                _ => failed(Step::Open)(error),
            })?;
            self.before_step(Step::Prove, &member.name);
            let (use_state, checked) = self.context.use_checker.check(opened);
            if let Some(reason) = held_reason(use_state) {
                return Err(Outcome::Kept(reason));
            }
            leased.push(Leased {
                temp_info: member,
                checked,
                judged,
            });
        }
        Ok(leased)
    }

    /// Judges all members again while they are leased.
    fn judge<'t>(&self, members: Vec<Leased<'t>>) -> Result<JudgedSet<'t>, Outcome> {
        let mut all = Vec::with_capacity(members.len());
        for member in &members {
            self.before_step(Step::Judge, &member.temp_info.name);
            let now = dir::observe_fd(member.checked.file()).map_err(failed(Step::Judge))?;
            if now != member.judged {
                return Err(Outcome::Kept(Reason::Changed));
            }
            let file_use = FileUse {
                state: UseState::Unused,
                file: Some(&member.checked),
                target: KnownTarget::Nothing,
                is_needed: true,
            };
            let gathered = evidence::gather(
                self.dir(),
                member.temp_info,
                now,
                file_use,
                self.context.context,
            );
            all.push(gathered.map_err(failed(Step::Judge))?);
        }
        let mut all = all.into_iter();
        let (evidence, target) = all.next().ok_or(Outcome::Settled)?;
        let companions: Vec<Evidence> = all.map(|(evidence, _)| evidence).collect();
        let policy = self.context.context.policy;
        let verdict = judge_set(&evidence, &companions, policy, evidence::HAS_LEASES);
        match rule!("set-is-judged-again", verdict, without: self.verdict) {
            verdict if verdict == self.verdict => Ok(JudgedSet {
                members,
                evidence,
                target,
            }),
            Verdict::Keep(reason) => Err(Outcome::Kept(reason)),
            _ => Err(Outcome::Kept(Reason::Changed)),
        }
    }

    /// Reads the directory again before the first claim. The set must be complete, and nothing may have been added.
    fn check_names_before(&self, judged: &JudgedSet<'_>) -> Result<(), Outcome> {
        let mut names = judged.members.iter().map(|member| &member.temp_info.name);
        let main = names.next().ok_or(Outcome::Settled)?;
        let companions: BTreeSet<OsString> = set_of(names.cloned());
        let now = self.names(main).map_err(failed(Step::Judge))?;
        let step = before_claims(&companions, &now);
        match step {
            SetStep::Continue => Ok(()),
            _ => Err(Outcome::Kept(Reason::Changed)),
        }
    }

    fn names(&self, main: &OsStr) -> io::Result<SetNames> {
        find_set(self.dir(), &self.context.context.policy.names, main)
    }

    /// Claims all members, the main file first. If one cannot be claimed, all are put back.
    fn claim_all<'t>(
        &'t self,
        leased: Vec<Leased<'t>>,
        results: &mut Vec<CompanionResult>,
    ) -> Result<Vec<Member<'t, 't>>, Outcome> {
        let names = leased.iter().map(|member| &*member.temp_info.name);
        let claims = self.reaper.claims().names_of_set(clock::wall(), names);
        let member = |(leased, claim): (Leased<'t>, ClaimName<'t>)| Member {
            temp_info: leased.temp_info,
            checked: leased.checked,
            judged: leased.judged,
            claim,
            after: leased.judged,
            place: Place::Named,
        };
        let mut members: Vec<Member<'t, 't>> = leased.into_iter().zip(claims).map(member).collect();
        for index in 0..members.len() {
            let claimed = members.get_mut(index).map(|member| self.claim(member));
            if let Some(Err((step, end))) = claimed {
                let end = match end {
                    EarlyEnd::Settled if index > 0 => EarlyEnd::Keep(Reason::Changed),
                    end => end,
                };
                return Err(self.end_early(members, step, end, results));
            }
        }
        Ok(members)
    }

    fn claim(&self, member: &mut Member<'_, '_>) -> Result<(), (Step, EarlyEnd)> {
        let (dir, name) = (self.dir(), &member.temp_info.name);
        self.before_step(Step::Claim, name);
        match calls::rename(dir.fd(), name, dir.fd(), member.claim.name()) {
            Ok(()) => member.place = Place::Claimed,
            Err(error) => {
                let end = match error.kind() {
                    io::ErrorKind::NotFound => {
                        member.place = Place::Gone;
                        EarlyEnd::Settled
                    }
                    // No rename that refuses to overwrite is possible here, so no claim is safe.
                    io::ErrorKind::Unsupported => EarlyEnd::Keep(Reason::CannotTell),
                    _ => EarlyEnd::Failed(error),
                };
                return Err((Step::Claim, end));
            }
        }
        self.compare(member).map_err(|end| (Step::Compare, end))
    }

    /// Checks that the claimed file is the one that was judged.
    fn compare(&self, member: &mut Member<'_, '_>) -> Result<(), EarlyEnd> {
        self.before_step(Step::Compare, &member.temp_info.name);
        let after = self.dir().observe(member.claim.name())?;
        let after = after.ok_or(EarlyEnd::Keep(Reason::Changed))?;
        let is_same = after
            .fingerprint
            .is_same_after_rename(&member.judged.fingerprint)
            && after.mode == member.judged.mode;
        if !is_same {
            return Err(EarlyEnd::Keep(Reason::Changed));
        }
        member.after = after;
        Ok(())
    }

    /// Reads the directory again after the last claim, checks the leases, and releases them.
    fn check_claimed(&self, members: &mut [Member<'_, '_>]) -> Result<(), (Step, EarlyEnd)> {
        self.check_names_after(members)
            .map_err(|end| (Step::Compare, end))?;
        for member in &*members {
            self.before_step(Step::ProveAgain, member.name());
            if let Some(reason) = held_reason(member.checked.recheck()) {
                return Err((Step::ProveAgain, EarlyEnd::Keep(reason)));
            }
        }
        for member in members {
            self.before_step(Step::Release, &member.temp_info.name);
            member.checked.release();
        }
        Ok(())
    }

    /// Checks that no file has a name of the set. A file with the name of the main file is found again by
    /// [`SetRemoval::put_back`], which then moves the set to the quarantine.
    fn check_names_after(&self, members: &[Member<'_, '_>]) -> Result<(), EarlyEnd> {
        let main = members.first().ok_or(EarlyEnd::Settled)?;
        let step = after_claims(&self.names(main.name())?);
        match rule!("no-new-member-after-claims", step, without: SetStep::Continue) {
            SetStep::Continue => Ok(()),
            SetStep::PutBack | SetStep::Quarantine => Err(EarlyEnd::Keep(Reason::Changed)),
        }
    }

    /// Makes the last checks: the directory, the leases, the files, the names.
    fn check_last(&self, members: &mut [Member<'_, '_>]) -> Result<(), (Step, EarlyEnd)> {
        // RACE: the directory may be moved out of the root at any time. Worst case: a set in it is removed although the
        // directory has just been moved.
        let unmoved = self.context.check_not_moved();
        unmoved.map_err(|error| (Step::Wait, EarlyEnd::from(&error)))?;
        let scanned = scan_mappings(self.dir(), &self.files);
        for member in &mut *members {
            self.before_step(Step::ProveLast, &member.temp_info.name);
            self.check_member_last(member, scanned.as_ref())
                .map_err(|end| (Step::ProveLast, end))?;
        }
        self.check_names_after(members)
            .map_err(|end| (Step::ProveLast, end))
    }

    fn check_member_last(
        &self,
        member: &mut Member<'_, '_>,
        scanned: Option<&ProcessScan>,
    ) -> Result<(), EarlyEnd> {
        let use_state =
            rule!("members-are-proven-at-last", member.checked.check(), without: UseState::Unused);
        if let Some(reason) = held_reason(use_state) {
            return Err(EarlyEnd::Keep(reason));
        }
        let file = FileId::from(&member.after.fingerprint);
        let is_unmapped = scanned.is_none_or(|scan| scan.proves_unmapped(file));
        // Otherwise the set is moved, because that was not proven before either.
        if !is_unmapped && self.verdict == Verdict::Reap {
            return Err(EarlyEnd::Keep(Reason::CannotTell));
        }
        let now = self.dir().observe(member.claim.name())?;
        match rule!("claimed-members-untouched", now == Some(member.after), without: true) {
            true => Ok(()),
            false => Err(EarlyEnd::Keep(Reason::Changed)),
        }
    }

    /// Checks that the target is in the state in which it was judged, and that the main file is no target of another
    /// temp.
    fn check_target(
        &self,
        members: &[Member<'_, '_>],
        evidence: &Evidence,
        found: &FoundTarget,
    ) -> Result<(), (Step, EarlyEnd)> {
        let check = || {
            let main = members.first().ok_or(EarlyEnd::Settled)?;
            let (dir, policy) = (self.dir(), self.context.context.policy);
            let temp = ComparedTemp {
                seen: &main.judged,
                file: Some(main.checked.file()),
                companion_bytes: evidence.companion_bytes,
                shared: None,
                flushed: self.context.context.flushed,
            };
            let parsed = &main.temp_info.parsed;
            let target = evidence::recheck_target(dir, policy, parsed, temp, found)?.target;
            let is_same = |target: Target| match self.verdict {
                Verdict::Reap => target == evidence.target,
                // A move loses nothing as long as no target counts.
                _ => target == evidence.target || !target.counts(),
            };
            if !rule!("same-target-of-a-set", is_same(target), without: true) {
                return Err(EarlyEnd::Keep(Reason::Changed));
            }
            let sibling = FreshSiblings::new(dir, 1).find(&policy.names, main.name())?;
            match sibling {
                FreshSibling::Reserved(_) => return Err(EarlyEnd::Keep(Reason::Reserved)),
                FreshSibling::Companion => return Err(EarlyEnd::Keep(Reason::Changed)),
                FreshSibling::None => {}
            }
            let context = self.context.context.for_guards(dir, main.name());
            let guard = GuardChecks::default().check(context);
            let reason = guard.and_then(|guard| guard.state.reason());
            match rule!("guard-after-the-claims-of-a-set", reason, without: None) {
                Some(reason) => Err(EarlyEnd::Keep(reason)),
                None => Ok(()),
            }
        };
        check().map_err(|end| (Step::ProveLast, end))
    }

    /// Removes the claims, the main file's first. If that fails, all members are put back. A companion that cannot be
    /// removed after that is moved to the quarantine by the next recovery.
    fn unlink(
        &self,
        mut members: Vec<Member<'_, '_>>,
        results: &mut Vec<CompanionResult>,
    ) -> Outcome {
        let mut freed_by_main = FileSize::default();
        let main = members.first().map(|main| main.temp_info.name.clone());
        for index in 0..members.len() {
            let Some(member) = members.get_mut(index) else {
                break;
            };
            let name = member.temp_info.name.clone();
            self.before_step(Step::Unlink, &name);
            // RACE: a thread may still be inside `open`, and a writer may have paused for longer than the rule allows,
            // as for a single temp. Worst case: the thread opens a file that loses its name, with what it writes to it,
            // and the rename of the writer fails with ENOENT.
            let removed =
                calls::unlink_proven(self.dir().fd(), member.claim.name(), &member.checked);
            let size = member.after.size();
            match removed {
                Ok(()) if index == 0 => freed_by_main = size,
                Ok(()) => results.push(CompanionResult::Reaped(size)),
                Err(error) if index == 0 => {
                    let end = EarlyEnd::of_removal(error);
                    return self.end_early(members, Step::Unlink, end, results);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    results.push(CompanionResult::Left);
                }
                Err(error) => {
                    log::error!(
                        "cannot remove {name:?} after its temp ({error}); it keeps the name {:?} until the next start",
                        member.claim.name()
                    );
                    let main = main.as_deref().unwrap_or(&name);
                    let claims = self.reaper.claims();
                    claims.add_pending(self.dir().id(), main, member.claim.name());
                    results.push(CompanionResult::Left);
                }
            }
        }
        for mut member in members {
            // Released before the file is closed: see the protocol of a single temp.
            member.checked.release();
        }
        Outcome::Reaped {
            freed: freed_by_main,
        }
    }

    /// Moves the claims to the quarantine, the main file's first. If a move fails, all members are put back.
    fn store(
        &self,
        mut members: Vec<Member<'_, '_>>,
        slots: Vec<Slot>,
        results: &mut Vec<CompanionResult>,
    ) -> Outcome {
        if let Some(main) = members.first() {
            self.before_step(Step::Unlink, main.name());
        }
        match self.move_all(&mut members, &slots) {
            Ok(()) => stored(&members, slots, results),
            Err(error) => self.end_early(members, Step::Claim, EarlyEnd::Failed(error), results),
        }
    }

    /// Moves all members to their slots, the main file first. If one cannot be moved, those before it get the names of
    /// their claims again.
    fn move_all(&self, members: &mut [Member<'_, '_>], slots: &[Slot]) -> io::Result<()> {
        let dir = self.dir();
        let failed = members.iter_mut().zip(slots).find_map(|(member, slot)| {
            let name = &member.temp_info.name;
            let now = match member.place {
                Place::Claimed => member.claim.name(),
                Place::Named => name,
                Place::Stored | Place::Gone => return None,
            };
            match slot.receive(dir, now, name) {
                Ok(true) => member.place = Place::Stored,
                Ok(false) => member.place = Place::Gone,
                Err(error) => return Some(error),
            }
            None
        });
        let Some(error) = failed else {
            return Ok(());
        };
        for (member, slot) in members.iter_mut().zip(slots).rev() {
            let (name, claim) = (&member.temp_info.name, member.claim.name());
            if member.place != Place::Stored {
                continue;
            }
            match calls::rename(slot.inner_dir(), name, dir.fd(), claim) {
                Ok(()) => member.place = Place::Claimed,
                Err(error) => log::error!("cannot take {name:?} out of the quarantine: {error}"),
            }
        }
        Err(error)
    }

    /// Claims the members that have their names. Otherwise a crash during the move would leave them beside another main
    /// file.
    ///
    /// RACE: another process may give the name to another file between the check and the rename (µs). Worst case: that
    /// file is in the quarantine.
    fn claim_named(&self, members: &mut [Member<'_, '_>]) -> io::Result<()> {
        for member in members.iter_mut().filter(|one| one.place == Place::Named) {
            if !self.is_at_its_name(member) {
                member.place = Place::Gone;
                continue;
            }
            let (fd, name) = (self.dir().fd(), &member.temp_info.name);
            match calls::rename(fd, name, fd, member.claim.name()) {
                Ok(()) => member.place = Place::Claimed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => member.place = Place::Gone,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reports whether the member has its name.
    fn is_at_its_name(&self, member: &Member<'_, '_>) -> bool {
        let seen = self.dir().observe(member.name());
        let file = FileId::from(&member.judged.fingerprint);
        seen.is_ok_and(|seen| seen.is_some_and(|seen| FileId::from(&seen.fingerprint) == file))
    }

    /// Ends the protocol for a set of which the first members are claimed.
    fn end_early(
        &self,
        members: Vec<Member<'_, '_>>,
        step: Step,
        end: EarlyEnd,
        results: &mut Vec<CompanionResult>,
    ) -> Outcome {
        match end {
            EarlyEnd::Keep(reason) => self.put_back(members, reason, results),
            EarlyEnd::Settled if members.is_empty() => Outcome::Settled,
            EarlyEnd::Settled => self.put_back(members, Reason::Changed, results),
            EarlyEnd::Failed(error) => match self.put_back(members, Reason::Changed, results) {
                Outcome::Kept(_) => failed(step)(error),
                other => other,
            },
        }
    }

    /// Gives all claimed members their names back, the main file last, and only then releases the leases. If another
    /// file has one of the names, all members are moved to the quarantine.
    fn put_back(
        &self,
        mut members: Vec<Member<'_, '_>>,
        reason: Reason,
        results: &mut Vec<CompanionResult>,
    ) -> Outcome {
        let dir = self.dir();
        let is_taken = |name: &OsStr| matches!(dir.observe(name), Ok(Some(_)));
        let main_is_taken = members
            .first()
            .is_some_and(|main| main.place == Place::Claimed && is_taken(main.name()));
        if main_is_taken {
            return self.quarantine_all(members, results);
        }
        // Beside a main file in the quarantine the others wait for the recovery, which moves them there too.
        if members.iter().any(|member| member.place == Place::Stored) {
            return self.leave_claims(&members, io::ErrorKind::Other.into());
        }
        for index in rule!("main-is-put-back-last", (0..members.len()).rev().collect::<Vec<_>>(),
            without: (0..members.len()).collect())
        {
            let Some(member) = members.get_mut(index) else {
                break;
            };
            if member.place != Place::Claimed {
                continue;
            }
            let claim = member.claim.name();
            match calls::rename(dir.fd(), claim, dir.fd(), &member.temp_info.name) {
                Ok(()) => member.place = Place::Named,
                Err(error) if error.kind() == io::ErrorKind::NotFound => member.place = Place::Gone,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return self.quarantine_all(members, results);
                }
                Err(error) => return self.leave_claims(&members, error),
            }
        }
        match members.first().map(|main| main.place) {
            Some(Place::Gone) => Outcome::Settled,
            _ => Outcome::Kept(reason),
        }
    }

    /// Moves all members to the quarantine.
    fn quarantine_all(
        &self,
        mut members: Vec<Member<'_, '_>>,
        results: &mut Vec<CompanionResult>,
    ) -> Outcome {
        let claimed =
            rule!("set-is-moved-from-its-claims", self.claim_named(&mut members), without: Ok(()));
        if let Err(error) = claimed {
            return self.leave_claims(&members, error);
        }
        let names: Vec<&OsStr> = members.iter().map(Member::name).collect();
        let slots = self.quarantine.set_slots(&names, self.moved_as);
        let moved = match slots {
            Ok(slots) => self.move_all(&mut members, &slots).map(|()| slots),
            Err(Outcome::Failed { error, .. }) => Err(error),
            Err(_) => Err(io::Error::other(
                "another file has its name, and no quarantine is possible here",
            )),
        };
        match moved {
            Ok(slots) => stored(&members, slots, results),
            Err(error) => self.leave_claims(&members, error),
        }
    }

    /// Leaves members that could not be put back under the names of their claims. The put-back is tried again when the
    /// main file is due, and at the next start.
    fn leave_claims(&self, members: &[Member<'_, '_>], error: io::Error) -> Outcome {
        let Some(main) = members.first() else {
            return failed(Step::Claim)(error);
        };
        for member in members.iter().filter(|one| one.place == Place::Claimed) {
            let claim = member.claim.name();
            log::error!(
                "cannot put back {:?}; it keeps the name {claim:?} until a later attempt succeeds",
                member.name()
            );
            let claims = self.reaper.claims();
            claims.add_pending(self.dir().id(), main.name(), claim);
        }
        failed(Step::Claim)(error)
    }
}

/// Returns the outcome for a set that was moved to the quarantine.
fn stored(
    members: &[Member<'_, '_>],
    slots: Vec<Slot>,
    results: &mut Vec<CompanionResult>,
) -> Outcome {
    // Another process may have removed a member.
    let id = |(member, slot): (&Member<'_, '_>, Slot)| {
        (member.place == Place::Stored).then(|| slot.keep())
    };
    let folder = slots.first().map(|slot| slot.folder_name().to_owned());
    let folder = folder.unwrap_or_default();
    let mut ids = members.iter().zip(slots).map(id);
    let main = ids.next().flatten();
    results.extend(ids.map(|id| id.map_or(CompanionResult::Left, CompanionResult::Quarantined)));
    main.map_or(Outcome::Settled, |id| Outcome::Quarantined { id, folder })
}
