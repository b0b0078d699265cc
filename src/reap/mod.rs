//! Reaping: the protocol by which an orphan is removed, in one place.
//!
//! Everything happens relative to an open directory and by bare names. Nothing is deleted under
//! the name that its writer knows: a temp is *claimed* first, by a rename that overwrites nothing,
//! and what is claimed can be put back as long as it has a name. So whatever turns up between the
//! verdict and the end — an opener, a replacement, a doubt — loses no byte.
//!
//! [`Step`] lists the steps; docs/safety.md argues for each of them.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::decide::judge::{Evidence, LeaseCoverage, Reason, Target, Verdict, judge};
use crate::decide::observation::{FileSize, Kind, Observation, UseState};
use crate::decide::policy::Open;
use crate::evidence::siblings::{self, Fresh};
use crate::evidence::{
    self, Compared, EvidenceContext, FileId, FoundTarget, LeaseThread, LeasedFile, ProcessScan,
    TempInfo,
};
use crate::look::{self, Dir, RootError, RootId};
use claim::{ClaimName, Claims};
use quarantine::{Quarantine, QuarantineDir, QuarantineUsage, Slot};

pub mod claim;
pub mod quarantine;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod calls;

/// Writes the enum and the list of all its variants from one list, so that neither can lack one.
macro_rules! steps {
    ($($(#[$what:meta])* $step:ident,)*) => {
        /// The steps of the protocol, in their order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $($(#[$what])* $step,)*
        }

        impl Step {
            /// All of them.
            pub const ALL: [Step; [$(Step::$step),*].len()] = [$(Step::$step),*];
        }
    };
}

steps! {
    /// The directory is still what its path below the root leads to.
    Resolve,
    /// The name still stands for what was looked at.
    Look,
    /// Open it; what was opened is the same.
    Open,
    /// Ask the kernel for the proof that nobody holds it.
    Prove,
    /// Look again, under the proof, and judge.
    Judge,
    /// Take the name from it, overwriting nothing.
    Claim,
    /// What was claimed is what was judged.
    Compare,
    /// Still nobody wants it.
    ProveAgain,
    /// Let go of the proof, so that whoever is inside an `open` comes out.
    LetGo,
    /// Wait for that; once for a whole batch.
    Breathe,
    /// Ask for the proof once more, and look once more.
    ProveLast,
    /// Remove the claim.
    Unlink,
}

/// Something to be called *before* each step of each temp: a test makes a window wide with it, or
/// lets an attacker in. An ordinary value, so that what is tested is what runs.
#[derive(Clone)]
pub struct Hook(Arc<Call>);

type Call = dyn Fn(Step, &OsStr) + Send + Sync;

impl Hook {
    /// Calls `at` with the step and the temp's base name.
    pub fn new(at: impl Fn(Step, &OsStr) + Send + Sync + 'static) -> Hook {
        Hook(Arc::new(at))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// What became of a temp.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// It is gone; this was freed (nothing where another name is left).
    Reaped {
        /// Bytes.
        freed: FileSize,
    },
    /// It is in the quarantine, under this id.
    Quarantined {
        /// The id.
        id: String,
    },
    /// It stays, or was put back.
    Kept(Reason),
    /// Its owner renamed or removed it meanwhile.
    Settled,
    /// The system said no. It stays, or was put back where that was possible.
    Failed {
        /// What was being done.
        step: Step,
        /// What the system said.
        error: io::Error,
    },
}

/// How many temps go through the protocol together: as many files are open at a time, and a
/// claimed one is away from its name for as long as the whole batch takes.
pub const BATCH: usize = 128;

/// How long to wait between letting go of the lease and asking for it again.
///
/// What gets past [`Step::ProveAgain`] is a thread inside one `open` call, between its look-up and
/// the moment it counts. With one thread re-opening the name without pause, 370 to 12,700 of a
/// million were lost without this wait, and none in 15,900 with 2 ms of it (measured on tmpfs and
/// ext4, two loaded cores).
pub const BREATH: Duration = Duration::from_millis(2);

/// The protocol, ready to run.
#[derive(Debug)]
pub struct Reaper {
    claims: Claims,
    breath: Duration,
    batch: usize,
    hook: Option<Hook>,
    usage: Arc<QuarantineUsage>,
}

/// Where a batch is reaped.
#[derive(Clone, Copy, Debug)]
pub struct BatchContext<'a> {
    /// The root's path.
    pub root: &'a Path,
    /// What the root was at the start.
    pub id: Option<RootId>,
    /// The directory that the temps lie in.
    pub dir: &'a Dir,
    /// What holds for all of them.
    pub context: EvidenceContext<'a>,
}

/// A temp that is to go, with the verdict that was found before the protocol began.
#[derive(Debug)]
pub struct Candidate {
    /// The temp.
    pub temp_info: TempInfo,
    /// What it was sentenced to.
    pub verdict: Verdict,
    /// The file as the look opened it that it was sentenced by, and nothing held: then it is not
    /// opened again. Whether its name still stands for it is asked all the same.
    pub opened: Option<LeasedFile>,
}

/// A temp that has lost its name.
struct Claimed<'a> {
    temp_info: &'a TempInfo,
    leased: LeasedFile,
    /// Nobody held it when it was claimed; otherwise it goes by the user's explicit wish.
    proven: bool,
    /// What it was judged by.
    evidence: Evidence,
    /// What was found at its target.
    target: FoundTarget,
    /// What it was right after the claim.
    after: Observation,
    at: ClaimedAt<'a>,
}

/// A temp that is to be removed by its own name, without a claim.
struct Unclaimed<'a> {
    temp_info: &'a TempInfo,
    leased: &'a LeasedFile,
    /// What it was when it was judged.
    judged: Observation,
    /// What was found at its target then.
    target: FoundTarget,
}

/// Where a claimed temp lies.
enum ClaimedAt<'a> {
    /// In its own directory, under this name.
    Here(ClaimName<'a>),
    /// In the quarantine.
    Slot(Slot),
}

impl Default for Reaper {
    fn default() -> Reaper {
        Reaper::new()
    }
}

impl Reaper {
    /// A reaper whose claims nobody else's can be taken for.
    #[must_use]
    pub fn new() -> Reaper {
        Reaper {
            claims: Claims::new(random()),
            breath: BREATH,
            batch: affordable(),
            hook: None,
            usage: Arc::default(),
        }
    }

    /// Waits `breath` instead of [`BREATH`].
    #[must_use]
    pub fn with_breath(mut self, breath: Duration) -> Reaper {
        self.breath = breath;
        self
    }

    /// Calls `hook` before each step.
    #[must_use]
    pub fn with_hook(mut self, hook: Option<Hook>) -> Reaper {
        self.hook = hook;
        self
    }

    /// How many go through the protocol together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The limits of the quarantines that it moves temps to, and their sizes. A new reaper has no limits.
    #[must_use]
    pub fn usage(&self) -> &QuarantineUsage {
        &self.usage
    }

    /// The names it gives.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    fn at(&self, step: Step, name: &OsStr) {
        if let Some(hook) = &self.hook {
            (hook.0)(step, name);
        }
    }

    /// Takes `batch` through the protocol. The answers are in its order.
    ///
    /// What is to be deleted goes before what is to be moved: on a full disk that makes the room
    /// which the quarantine may need.
    pub fn reap(
        &self,
        batch_context: BatchContext<'_>,
        lease_thread: &LeaseThread,
        batch: &mut [Candidate],
    ) -> Vec<Outcome> {
        let mut opened: Vec<Option<LeasedFile>> =
            batch.iter_mut().map(|c| c.opened.take()).collect();
        let batch = &*batch;
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|&i| batch.get(i).is_some_and(|c| c.verdict != Verdict::Reap));
        for part in order.chunks(self.batch) {
            let part = part
                .iter()
                .filter_map(|&i| Some((i, batch.get(i)?, opened.get_mut(i)?.take())))
                .collect();
            self.reap_part(batch_context, lease_thread, part, &mut outcomes);
        }
        let lost = || Outcome::Kept(Reason::Changed);
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(lost))
            .collect()
    }

    fn reap_part(
        &self,
        batch_context: BatchContext<'_>,
        lease_thread: &LeaseThread,
        part: Vec<(usize, &Candidate, Option<LeasedFile>)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        let mut set = |index: usize, outcome| {
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = Some(outcome);
            }
        };
        if let Some((_, first, _)) = part.first() {
            self.at(Step::Resolve, &first.temp_info.name);
        }
        let place = rule!("directory-not-moved", batch_context.is_where_it_was(), without: Ok(()));
        if let Err(error) = place {
            for (index, ..) in part {
                set(index, refused(Step::Resolve, &error));
            }
            return;
        }
        // Where the proof does not see mappings, every process is asked before and after the claim.
        let expected = part.iter().filter_map(|(_, one, _)| one.temp_info.expected);
        let files: Vec<FileId> = expected.map(|file| FileId::from(&file)).collect();
        let blind = batch_context.dir.reach() == LeaseCoverage::OpensOnly;
        let examine = || blind.then(|| evidence::scan_processes(&files, batch_context.dir.reach()));
        let before = examine();
        let batch_context = BatchContext {
            context: EvidenceContext {
                process_scan: before.as_ref(),
                ..batch_context.context
            },
            ..batch_context
        };
        let rooms = LazyQuarantine::new(batch_context);
        let mut claimed = Vec::with_capacity(part.len());
        for (index, candidate, opened) in part {
            match self.claim(batch_context, &rooms, lease_thread, candidate, opened) {
                Ok(one) => claimed.push((index, one)),
                Err(outcome) => set(index, outcome),
            }
        }
        let Some((_, first)) = claimed.first() else {
            return;
        };
        self.at(Step::Breathe, &first.temp_info.name);
        std::thread::sleep(self.breath);
        // RACE: the directory may be moved out of the root at any time. It is asked for once more
        // here; worst case, a temp that was judged in it is removed just after it was moved.
        let still =
            rule!("directory-not-moved-later", batch_context.is_where_it_was(), without: Ok(()));
        // By now the names are gone, so nobody new can come to map what is behind them.
        let after = examine();
        let mut fresh = Fresh::new(batch_context.dir, claimed.len());
        for (index, one) in claimed {
            let file = FileId::from(&one.after.fingerprint);
            // What no walk had to clear before needs none now.
            let cleared = |process_scan: &ProcessScan| {
                !one.evidence.mappings_examined || process_scan.proves_unmapped(file)
            };
            let outcome = match &still {
                Ok(()) if after.as_ref().is_none_or(cleared) => {
                    self.finish(batch_context, &rooms, one, &mut fresh)
                }
                Ok(()) => self.put_back(batch_context, &rooms, one, Reason::CannotTell),
                Err(error) => {
                    let why = refused(Step::Breathe, error);
                    self.put_back_because(batch_context, &rooms, one, why)
                }
            };
            set(index, outcome);
        }
    }

    /// Everything up to [`Step::LetGo`]; an outcome where it ends earlier.
    fn claim<'a>(
        &'a self,
        batch_context: BatchContext<'_>,
        rooms: &LazyQuarantine<'_>,
        lease_thread: &LeaseThread,
        candidate: &'a Candidate,
        opened: Option<LeasedFile>,
    ) -> Result<Claimed<'a>, Outcome> {
        let temp_info = &candidate.temp_info;
        let (dir, name) = (batch_context.dir, temp_info.name.as_os_str());
        // Asked at the last door too: what the rule does not name is not touched.
        let policy = batch_context.context.policy;
        if rule!(
            "only-named-files-reaped",
            !policy.is_temp(dir.below(), name)
        ) {
            return Err(Outcome::Settled);
        }
        // The quarantine's folders are made before anything is held: that takes time.
        let mut slot = match candidate.verdict {
            Verdict::Reap => None,
            Verdict::Quarantine(_) => Some(rooms.slot(name)?),
            Verdict::Keep(reason) => return Err(Outcome::Kept(reason)),
        };

        self.at(Step::Look, name);
        let seen = dir.observe(name).map_err(failed(Step::Look))?;
        let seen = seen.ok_or(Outcome::Settled)?;
        let is_other = |expected| expected != seen.fingerprint;
        if rule!(
            "same-file-by-name",
            temp_info.expected.is_some_and(is_other)
        ) {
            return Err(Outcome::Kept(Reason::Changed));
        }
        if rule!("quarantine-has-room", true)
            && let Some(slot) = &mut slot
            && !slot
                .reserve(&self.usage, seen.allocated)
                .map_err(failed(Step::Look))?
        {
            return Err(Outcome::Kept(Reason::QuarantineFull));
        }

        self.at(Step::Open, name);
        // One that was opened by the look cannot be another file by now, as long as it is open: so
        // it is what the name stands for, if Step::Judge finds it to be what Step::Look has seen.
        let opened = match opened {
            Some(leased) => Ok(leased),
            None => Err(
                evidence::open_to_ask(dir, name).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Outcome::Settled,
                    // Somebody else's lease is in the way: that is a holder.
                    io::ErrorKind::WouldBlock => Outcome::Kept(Reason::InUse),
                    _ => failed(Step::Open)(error),
                })?,
            ),
        };

        self.at(Step::Prove, name);
        let (mut hold, mut leased) = match opened {
            Ok(mut leased) => (lease_thread.lease_again(&mut leased), leased),
            Err(file) => lease_thread.lease(file),
        };
        // Where what is open may go, a lock is all that keeps it.
        let is_held = matches!(hold, UseState::InUse | UseState::Unknown);
        if rule!("lock-is-asked-for", is_held && policy.open != Open::Keep)
            && leased.lock().map_err(failed(Step::Prove))?
        {
            hold = UseState::Locked;
        }

        self.at(Step::Judge, name);
        let judged = look::observe_fd(leased.file()).map_err(failed(Step::Judge))?;
        if rule!("same-file-once-open", judged != seen) {
            return Err(Outcome::Kept(Reason::Changed));
        }
        let answer = (Some(&leased), hold);
        let (evidence, target) =
            evidence::gather(dir, temp_info, judged, answer, batch_context.context)
                .map_err(failed(Step::Judge))?;
        let verdict = rule!("judged-again", judge(&evidence, policy), without: candidate.verdict);
        match verdict {
            verdict if verdict == candidate.verdict => {}
            Verdict::Keep(reason) => return Err(Outcome::Kept(reason)),
            // It was sentenced to something else: it goes through all of this again, later.
            _ => return Err(Outcome::Kept(Reason::Changed)),
        }
        let proven = evidence.use_state == UseState::Unused;

        self.at(Step::Claim, name);
        let at = match slot {
            Some(slot) => {
                calls::rename(dir.fd(), name, slot.folder(), name).map(|()| ClaimedAt::Slot(slot))
            }
            None => {
                let claim = self.claims.name(name);
                calls::rename(dir.fd(), name, dir.fd(), claim.name())
                    .map(|()| ClaimedAt::Here(claim))
            }
        };
        let at = match at {
            Ok(at) => at,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The name, or the slot that somebody took for litter?
                return Err(match dir.observe(name) {
                    Ok(Some(_)) => Outcome::Kept(Reason::NoQuarantine),
                    Ok(None) => Outcome::Settled,
                    Err(error) => failed(Step::Claim)(error),
                });
            }
            // Not where mappings must be looked for once more behind the claim.
            Err(error)
                if is_full(&error)
                    && proven
                    && candidate.verdict == Verdict::Reap
                    && rule!("full-disk-lease-sees-mappings",
                        dir.reach() == LeaseCoverage::OpensAndMaps, without: true) =>
            {
                return Err(self.unlink_unclaimed(
                    batch_context,
                    Unclaimed {
                        temp_info,
                        leased: &leased,
                        judged,
                        target,
                    },
                ));
            }
            // No rename here that overwrites nothing: then there is no safe way to claim.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(Outcome::Kept(Reason::CannotTell));
            }
            Err(error) => return Err(failed(Step::Claim)(error)),
        };
        let mut one = Claimed {
            temp_info,
            leased,
            proven,
            evidence,
            target,
            after: judged,
            at,
        };

        self.at(Step::Compare, name);
        match one.look(dir) {
            Ok(Some(after)) if rule!("same-file-claimed", one.is_same(&after), without: true) => {
                one.after = after;
            }
            Ok(Some(_)) => return Err(self.put_back(batch_context, rooms, one, Reason::Changed)),
            // RACE: somebody renamed or removed the claim itself. Worst case, it has a name of
            // theirs now; nothing is done to it.
            Ok(None) => return Err(Outcome::Settled),
            Err(error) => {
                let why = failed(Step::Compare)(error);
                return Err(self.put_back_because(batch_context, rooms, one, why));
            }
        }

        self.at(Step::ProveAgain, name);
        if rule!("proven-again-after-claim", one.proven)
            && let Some(reason) = held(one.leased.still_held())
        {
            return Err(self.put_back(batch_context, rooms, one, reason));
        }

        self.at(Step::LetGo, name);
        one.leased.release();
        Ok(one)
    }

    /// Everything after [`Step::Breathe`].
    fn finish(
        &self,
        batch_context: BatchContext<'_>,
        rooms: &LazyQuarantine<'_>,
        mut one: Claimed<'_>,
        fresh: &mut Fresh<'_>,
    ) -> Outcome {
        let name = one.temp_info.name.as_os_str();
        self.at(Step::ProveLast, name);
        match one.ask_again() {
            Ok(None) => {}
            Ok(Some(reason)) => return self.put_back(batch_context, rooms, one, reason),
            Err(error) => {
                let why = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, rooms, one, why);
            }
        }
        match one.look(batch_context.dir) {
            Ok(Some(now)) if rule!("claim-untouched", one.is_untouched(&now), without: true) => {}
            Ok(Some(_)) => return self.put_back(batch_context, rooms, one, Reason::Changed),
            Ok(None) => return Outcome::Settled,
            Err(error) => {
                let why = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, rooms, one, why);
            }
        }
        // A temp that goes because its target is whole: it must still be.
        match one.target_now(batch_context) {
            Ok(target) if rule!("same-target", target == one.evidence.target, without: true) => {}
            // A symlink that led to the temp leads to nothing now. Nothing is lost by a move where still none counts.
            Ok(target) if matches!(one.at, ClaimedAt::Slot(_)) && !target.counts() => {}
            Ok(_) => return self.put_back(batch_context, rooms, one, Reason::Changed),
            Err(error) => {
                let why = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, rooms, one, why);
            }
        }

        // Nothing that protects it has come to lie beside its name.
        let names = &batch_context.context.policy.names;
        match rule!("new-companion-puts-back", fresh.protect(names, name), without: Ok(None)) {
            Ok(None) => {}
            Ok(Some(_)) => return self.put_back(batch_context, rooms, one, Reason::Reserved),
            Err(error) => {
                let why = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, rooms, one, why);
            }
        }

        self.at(Step::Unlink, name);
        let claim = match one.at {
            ClaimedAt::Slot(slot) => return Outcome::Quarantined { id: slot.keep() },
            ClaimedAt::Here(ref claim) => claim.name(),
        };
        // RACE: a thread that entered `open` before the claim and has not come out of it since
        // (Step::LetGo to Step::ProveLast, at least BREATH) loses the name of what it opens; and a
        // writer that closed the file, paused for longer than the rule allows and renames it now,
        // finds it gone. docs/safety.md gives both their measured rates.
        let gone = match one.proven {
            true => calls::unlink_proven(batch_context.dir.fd(), claim, &one.leased),
            false => calls::unlink(batch_context.dir.fd(), claim),
        };
        match gone {
            Ok(()) => {
                let size = one.after.size();
                let other_name = look::observe_fd(one.leased.file())
                    .is_ok_and(|left| left.fingerprint.links > 0);
                // Before another thread closes it: what announces a broken lease is blocked in this.
                one.leased.release();
                close(one.leased, size.bytes);
                let freed = if other_name {
                    FileSize::default()
                } else {
                    size
                };
                Outcome::Reaped { freed }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Settled,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.put_back(batch_context, rooms, one, Reason::InUse)
            }
            Err(error) => {
                let why = failed(Step::Unlink)(error);
                self.put_back_because(batch_context, rooms, one, why)
            }
        }
    }

    /// Gives a claimed temp its name back, and only then lets go of it.
    ///
    /// The name may have a new owner: then the claim goes to the quarantine, and nothing is
    /// overwritten or deleted.
    fn put_back(
        &self,
        batch_context: BatchContext<'_>,
        rooms: &LazyQuarantine<'_>,
        one: Claimed<'_>,
        reason: Reason,
    ) -> Outcome {
        let (dir, name) = (batch_context.dir, one.temp_info.name.as_os_str());
        let back = match &one.at {
            ClaimedAt::Here(claim) => rule!("put-back-not-deleted",
                calls::rename(dir.fd(), claim.name(), dir.fd(), name),
                without: calls::unlink(dir.fd(), claim.name())),
            ClaimedAt::Slot(slot) => calls::rename(slot.folder(), name, dir.fd(), name),
        };
        let error = match back {
            Ok(()) => return Outcome::Kept(reason),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::Settled,
            Err(error) => error,
        };
        let taken = error.kind() == io::ErrorKind::AlreadyExists;
        let claim = match one.at {
            ClaimedAt::Slot(slot) if taken => return Outcome::Quarantined { id: slot.keep() },
            ClaimedAt::Slot(slot) => {
                let id = slot.keep();
                log::error!(
                    "{name:?} could not be given its name back; it is in the quarantine: {id}"
                );
                return failed(Step::Claim)(error);
            }
            ClaimedAt::Here(claim) => claim,
        };
        let error = match taken.then(|| rooms.slot(name)) {
            None => error,
            Some(Err(Outcome::Failed { error, .. })) => error,
            Some(Err(_)) => error,
            Some(Ok(slot)) => match calls::rename(dir.fd(), claim.name(), slot.folder(), name) {
                Ok(()) => return Outcome::Quarantined { id: slot.keep() },
                Err(error) => error,
            },
        };
        log::error!(
            "{name:?} could not be given its name back, and is called {:?} until it can be",
            claim.name()
        );
        self.claims.defer(dir.id(), name, claim.name());
        failed(Step::Claim)(error)
    }

    /// The same because of `why`, which is what is told unless there is more to tell.
    fn put_back_because(
        &self,
        batch_context: BatchContext<'_>,
        rooms: &LazyQuarantine<'_>,
        one: Claimed<'_>,
        why: Outcome,
    ) -> Outcome {
        match self.put_back(batch_context, rooms, one, Reason::Changed) {
            Outcome::Kept(_) => why,
            more => more,
        }
    }

    /// On a full disk a rename may find no room for its entry, while removing one always works.
    /// Such a temp goes without a claim, under the proof.
    ///
    /// RACE: between the comparison and the unlink the name may come to stand for another file, and
    /// somebody may be inside an `open` of it, past the look-up and not yet counted; worst case, a
    /// file that was renamed onto it in these microseconds is lost, or what is written to the one
    /// that was opened. That is why it is done only where the claim says ENOSPC or EDQUOT (1 of
    /// 6,662 temps on a full ext4, 2 on xfs, 329 on btrfs).
    fn unlink_unclaimed(&self, batch_context: BatchContext<'_>, one: Unclaimed<'_>) -> Outcome {
        let Unclaimed {
            temp_info,
            leased,
            judged,
            target,
        } = one;
        let (dir, name) = (batch_context.dir, temp_info.name.as_os_str());
        self.at(Step::Compare, name);
        match dir.observe(name) {
            Ok(Some(now)) if rule!("full-disk-same-file", now == judged, without: true) => {}
            Ok(Some(_)) => return Outcome::Kept(Reason::Changed),
            Ok(None) => return Outcome::Settled,
            Err(error) => return failed(Step::Compare)(error),
        }
        let temp = Compared {
            seen: &judged,
            file: Some(leased.file()),
        };
        let policy = batch_context.context.policy;
        match evidence::target_again(dir, policy, &temp_info.parsed, temp, &target) {
            Ok(now) if rule!("full-disk-same-target", now == target.target, without: true) => {}
            Ok(_) => return Outcome::Kept(Reason::Changed),
            Err(error) => return failed(Step::Compare)(error),
        }
        match rule!("full-disk-no-companion", siblings::companion(dir, name), without: Ok(None)) {
            Ok(None) => {}
            Ok(Some(_)) => return Outcome::Kept(Reason::Reserved),
            Err(error) => return failed(Step::Compare)(error),
        }
        self.at(Step::ProveAgain, name);
        let hold = rule!("full-disk-proven-again", leased.still_held(), without: UseState::Unused);
        if let Some(reason) = held(hold) {
            return Outcome::Kept(reason);
        }
        self.at(Step::Unlink, name);
        match calls::unlink_proven(dir.fd(), name, leased) {
            Ok(()) => Outcome::Reaped {
                freed: judged.size(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Settled,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Outcome::Kept(Reason::InUse)
            }
            Err(error) => failed(Step::Unlink)(error),
        }
    }
}

/// Why a file stays of which the kernel has said this.
fn held(hold: UseState) -> Option<Reason> {
    match hold {
        UseState::Unused => None,
        UseState::InUse | UseState::Locked => Some(Reason::InUse),
        UseState::Unknown => Some(Reason::CannotTell),
    }
}

impl Claimed<'_> {
    /// Why it stays, if it does: somebody holds it, or has locked what goes by the user's wish.
    fn ask_again(&mut self) -> io::Result<Option<Reason>> {
        if self.proven {
            let hold = rule!("proven-at-last", self.leased.acquire(), without: UseState::Unused);
            return Ok(held(hold));
        }
        Ok(rule!("lock-is-asked-again", self.leased.lock()?).then_some(Reason::Locked))
    }

    /// What is at its target now. The temp is compared as it was judged: the claim has set its ctime.
    fn target_now(&self, batch_context: BatchContext<'_>) -> io::Result<Target> {
        let temp = Compared {
            seen: &self.evidence.observation,
            file: Some(self.leased.file()),
        };
        let policy = batch_context.context.policy;
        evidence::target_again(
            batch_context.dir,
            policy,
            &self.temp_info.parsed,
            temp,
            &self.target,
        )
    }

    /// What stands at the claim now.
    fn look(&self, dir: &Dir) -> io::Result<Option<Observation>> {
        match &self.at {
            ClaimedAt::Here(claim) => dir.observe(claim.name()),
            ClaimedAt::Slot(slot) => slot.observe(&self.temp_info.name),
        }
    }

    /// Whether the claim is the file that was judged. Of a file that is open by the user's wish
    /// only the identity counts: its holder may go on writing.
    fn is_same(&self, after: &Observation) -> bool {
        let (now, judged) = (&after.fingerprint, &self.evidence.observation);
        match self.proven {
            true => now.is_same_after_rename(&judged.fingerprint) && after.mode == judged.mode,
            false => (now.dev, now.ino) == (judged.fingerprint.dev, judged.fingerprint.ino),
        }
    }

    /// Whether nothing has happened to it since it was claimed.
    fn is_untouched(&self, now: &Observation) -> bool {
        match self.proven {
            true => *now == self.after,
            false => self.is_same(now),
        }
    }
}

/// The last close of a huge file takes long (its blocks are freed then): it is left to a thread of
/// its own.
fn close(leased: LeasedFile, bytes: u64) {
    const HUGE: u64 = 256 << 20;
    if bytes < HUGE {
        return drop(leased);
    }
    let closer = std::thread::Builder::new().name("orphand-close".into());
    // Where there can be no thread the closure is dropped, and the file closed, right here.
    let _ = closer.spawn(move || drop(leased));
}

/// What a crash left behind is put in order: a claim gets its name back, and is then a temp like
/// any other; where the name has a new owner, or cannot be told, the claim goes to the quarantine.
///
/// A claim that is held is left alone: it may be another orphand's, at work. `None`: it is none of ours.
pub fn recover(
    batch_context: BatchContext<'_>,
    lease_thread: &LeaseThread,
    claim: &OsStr,
) -> io::Result<Option<Recovered>> {
    let Some(read) = claim::read(claim) else {
        return Ok(None);
    };
    let dir = batch_context.dir;
    match dir.observe(claim)? {
        Some(seen) if seen.fingerprint.kind == Kind::File && is_ours(&seen) => {}
        _ => return Ok(None),
    }
    let opened = match evidence::open_to_ask(dir, claim) {
        // Whoever was at work on it has ended that meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(Some(Recovered::Kept(Reason::InUse)));
        }
        opened => opened?,
    };
    let (hold, leased) = lease_thread.lease(opened);
    let now = look::observe_fd(leased.file())?;
    // What a person brought back stays, even under such a name.
    let marks = batch_context.context.marks;
    let is_restored = marks.has(leased.file(), &now.fingerprint)?;
    if rule!("restored-claim-stays", is_restored) {
        return Ok(None);
    }
    // A name of this form can be given by anybody: what this rule would not have claimed stays. One that was
    // cut fits other rules than it did whole: it is moved, for it would never be found again.
    let takes = |name| batch_context.context.policy.is_temp(dir.below(), name);
    let is_of_others = read.original.as_deref().is_some_and(|name| !takes(name));
    if rule!("claim-of-other-rules-stays", is_of_others) {
        return Ok(None);
    }
    if let Some(reason) = held(rule!("held-claim-stays", hold, without: UseState::Unused)) {
        return Ok(Some(Recovered::Kept(reason)));
    }
    if let Some(name) = &read.original {
        match calls::rename(dir.fd(), claim, dir.fd(), name) {
            Ok(()) => return Ok(Some(Recovered::PutBack(name.clone()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let name = read.original.unwrap_or_else(|| claim.to_owned());
    let slot = LazyQuarantine::new(batch_context).slot(&name);
    let slot = slot.map_err(|outcome| match outcome {
        Outcome::Failed { error, .. } => error,
        _ => io::Error::other("it has a new owner, and there can be no quarantine here"),
    })?;
    calls::rename(dir.fd(), claim, slot.folder(), &name)?;
    Ok(Some(Recovered::Quarantined {
        id: slot.keep(),
        name,
        size: now.size(),
    }))
}

fn is_ours(seen: &Observation) -> bool {
    let us = rustix::process::geteuid();
    us.is_root() || seen.fingerprint.uid == us.as_raw()
}

/// What became of a claim that a crash left.
#[derive(Debug)]
pub enum Recovered {
    /// It stays as it is: somebody holds it, or that cannot be told.
    Kept(Reason),
    /// It has this name again.
    PutBack(OsString),
    /// Its name has a new owner, or cannot be told: it is in the quarantine.
    Quarantined {
        /// Its id there.
        id: String,
        /// The name that it has there: the one it had, where that can be told.
        name: OsString,
        /// Its size.
        size: FileSize,
    },
}

impl BatchContext<'_> {
    /// Whether the directory is still what its path below the root leads to.
    fn is_where_it_was(&self) -> Result<(), RootError> {
        let now = Dir::open_below(self.root, self.id, self.dir.below())?;
        match now.id() == self.dir.id() {
            true => Ok(()),
            false => Err(RootError::Replaced),
        }
    }
}

/// The quarantine of a batch, opened when the first temp needs it.
struct LazyQuarantine<'a> {
    batch_context: BatchContext<'a>,
    room: RefCell<Option<Arc<Quarantine>>>,
    /// The place of the batch's directory, where one temp has found room already.
    place: RefCell<Option<Arc<QuarantineDir>>>,
}

impl<'a> LazyQuarantine<'a> {
    fn new(batch_context: BatchContext<'a>) -> LazyQuarantine<'a> {
        LazyQuarantine {
            batch_context,
            room: RefCell::default(),
            place: RefCell::default(),
        }
    }

    /// A place for the temp `name`; why it stays where there is none.
    fn slot(&self, name: &OsStr) -> Result<Slot, Outcome> {
        let below = self.batch_context.dir.below().join(name);
        let known = self.place.borrow().as_ref().map(Arc::clone);
        if let Some(place) = known
            && let Some(slot) = place.slot(&below).map_err(no_room)?
        {
            return Ok(slot);
        }
        let mut tries = 3;
        let slot = loop {
            match self.room()?.place(&below) {
                // Another thread or process has emptied the quarantine and removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
                    tries -= 1;
                    self.room.take();
                }
                slot => break slot.map_err(no_room)?,
            }
        };
        self.place.replace(Some(Arc::clone(slot.place())));
        Ok(slot)
    }

    fn room(&self) -> Result<Arc<Quarantine>, Outcome> {
        if let Some(room) = &*self.room.borrow() {
            return Ok(Arc::clone(room));
        }
        let made = Quarantine::open_or_create(self.batch_context.root, self.batch_context.id);
        let made = Arc::new(made.map_err(|error| match &error {
            RootError::Io(error) => no_room(crate::error::copy(error)),
            _ => Outcome::Kept(Reason::NoQuarantine),
        })?);
        self.room.replace(Some(Arc::clone(&made)));
        Ok(made)
    }
}

/// That there can be no quarantine here is a reason to keep. That the system fails, or runs out of
/// what it lends to processes, is no answer.
fn no_room(error: io::Error) -> Outcome {
    match Errno::from_io_error(&error) {
        Some(
            Errno::IO | Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN,
        ) => failed(Step::Claim)(error),
        _ => Outcome::Kept(Reason::NoQuarantine),
    }
}

/// As large a batch as the limit of open files allows: one that goes to the quarantine takes three.
fn affordable() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    (limit / 8).clamp(1, BATCH)
}

/// A number that nobody else draws: the standard library seeds its hash maps from the system.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let seeded = std::collections::hash_map::RandomState::new();
    let number = seeded.build_hasher().finish();
    (number ^ (number >> 32)) as u32
}

fn failed(step: Step) -> impl Fn(io::Error) -> Outcome {
    move |error| Outcome::Failed { step, error }
}

/// The directory is not what it was, or that could not be found out.
fn refused(step: Step, error: &RootError) -> Outcome {
    match error {
        RootError::Io(error) if !RootError::is_gone_by(error) => {
            failed(step)(crate::error::copy(error))
        }
        _ => Outcome::Kept(Reason::Changed),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
