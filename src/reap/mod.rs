//! The protocol that removes an orphan.
//!
//! All calls use an open directory and bare names. Except on a full disk (`unlink_unclaimed`), a file is not deleted
//! under the name that its writer knows. It is first *claimed*: renamed, without overwriting anything. A claimed file
//! can be put back until it is removed. So no byte is lost if the file is opened or replaced, or if a check fails,
//! between the verdict and the removal. The remaining races are marked `RACE:`.
//!
//! [`Step`] lists the steps. docs/safety.md gives the reason for each of them.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::core::judge::{Evidence, LeaseCoverage, Reason, Target, Verdict, judge};
use crate::core::observation::{FileSize, Kind, Observation, UseState};
use crate::core::own_names;
use crate::core::policy::Open;
use crate::evidence::siblings::{self, FreshSiblings};
use crate::evidence::{
    self, CheckedFile, ComparedTemp, EvidenceContext, FileId, FileUse, FoundTarget, ProcessScan,
    TempInfo, UseChecker,
};
use crate::fs::dir;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::sys::random::random_u64;
use claim::{ClaimName, Claims};
use quarantine::{Quarantine, QuarantineDir, QuarantineUsage, Slot};

pub mod claim;
pub mod quarantine;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod calls;

/// Defines the enum and the list of its variants together, so that the list is always complete.
macro_rules! steps {
    ($($(#[$what:meta])* $step:ident,)*) => {
        /// The steps of the protocol, in their order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Step {
            $($(#[$what])* $step,)*
        }

        impl Step {
            /// All steps, in their order.
            pub const ALL: [Step; [$(Step::$step),*].len()] = [$(Step::$step),*];
        }
    };
}

steps! {
    /// Check that the path of the directory, below the root, still leads to the same directory.
    Resolve,
    /// Check that the name still refers to the file that was looked at.
    Look,
    /// Open the file, and check that it is the same file.
    Open,
    /// Request a lease: the kernel's proof that no process holds the file.
    Prove,
    /// Observe the file again while it is leased, and judge it.
    Judge,
    /// Rename the file to its claim, or into the quarantine, without overwriting anything.
    Claim,
    /// Check that the claimed file is the file that was judged.
    Compare,
    /// Check that no process waits to open the file or is inside an `open` of it.
    ProveAgain,
    /// Release the lease, so that a process inside an `open` can finish it.
    Release,
    /// Wait for such processes, once for each batch, and resolve the directory again.
    Wait,
    /// Request the lease once more, and observe the file once more.
    ProveLast,
    /// Remove the claim.
    Unlink,
}

impl Step {
    /// Returns the action that failed if this step fails, for a message such as `cannot rename it`. A put-back and a
    /// move to the quarantine are renames too, and their failures are reported as [`Step::Claim`].
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Step::Resolve | Step::Wait => "check its directory",
            Step::Look | Step::Judge | Step::Compare => "examine it",
            Step::Open => "open it",
            Step::Prove | Step::ProveAgain | Step::Release => "check whether it is in use",
            Step::Claim => "rename it",
            Step::ProveLast => "check it again before its removal",
            Step::Unlink => "remove it",
        }
    }
}

/// A function that is called *before* each step of each temp; before `Resolve` and `Wait` once for each batch, with the
/// name of its first temp. Tests use it to act between two steps. It is an ordinary
/// value, so that the code under test is the code that runs in production.
#[derive(Clone)]
pub struct Hook(Arc<Call>);

type Call = dyn Fn(Step, &OsStr) + Send + Sync;

impl Hook {
    /// Creates a hook that calls `at` with the step and the temp's file name.
    pub fn new(at: impl Fn(Step, &OsStr) + Send + Sync + 'static) -> Hook {
        Hook(Arc::new(at))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The result of the protocol for one temp.
#[derive(Debug)]
#[must_use]
pub enum Outcome {
    /// The temp was removed, which freed this much space (none if the file has another hard link).
    Reaped {
        /// The freed space.
        freed: FileSize,
    },
    /// The temp was moved to the quarantine.
    Quarantined {
        /// Its id in the quarantine.
        id: String,
    },
    /// The temp was kept, or put back after its claim.
    Kept(Reason),
    /// Another process renamed or removed the temp during the protocol.
    Settled,
    /// A system call failed. The temp was kept, or was put back if possible.
    Failed {
        /// The step that failed.
        step: Step,
        /// The error of the system call.
        error: io::Error,
    },
}

/// The number of temps that go through the protocol together. Up to three files for each of them are open at a time,
/// and a claimed temp is without its name until the whole batch is done.
pub const BATCH: usize = 128;

/// The time between the release of the lease and the next request for it.
///
/// A thread inside one `open` call can pass [`Step::ProveAgain`] unseen, after it has looked up the name and before the
/// lease counts it. With one thread that opened the name again and again, 370 to 12,700 of a million files were lost
/// without this wait, and none in 15,900 with a wait of 2 ms (measured on tmpfs and ext4, two loaded cores).
pub const RELEASE_WAIT: Duration = Duration::from_millis(2);

/// Runs the protocol.
#[derive(Debug)]
pub struct Reaper {
    claims: Claims,
    release_wait: Duration,
    batch: usize,
    hook: Option<Hook>,
    usage: Arc<QuarantineUsage>,
}

/// The context of one batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchContext<'a> {
    /// The root's path.
    pub root: &'a Path,
    /// The identity that the directory at the root's path must have; `None` if any is accepted.
    pub id: Option<RootId>,
    /// The directory that contains the temps.
    pub dir: &'a Dir,
    /// The evidence that all temps of the batch share.
    pub context: EvidenceContext<'a>,
}

/// A temp to be removed or moved, with the verdict of the look before the protocol.
#[derive(Debug)]
pub struct Candidate {
    /// The temp.
    pub temp_info: TempInfo,
    /// The verdict.
    pub verdict: Verdict,
    /// The file, if it is still open since the look that led to the verdict. It is then not opened again, but the
    /// protocol still checks that the name refers to it.
    pub opened: Option<CheckedFile>,
}

/// A temp that was renamed to its claim or into the quarantine.
struct Claimed<'a> {
    temp_info: &'a TempInfo,
    checked: CheckedFile,
    /// A lease has proved the file unused before the claim. If `false`, the policy allows the removal of open files.
    proven: bool,
    /// The evidence of its verdict.
    evidence: Evidence,
    /// The target at the time of the verdict.
    target: FoundTarget,
    /// The file right after the claim.
    after: Observation,
    at: ClaimedAt<'a>,
}

/// A temp to be removed by its original name, without a claim.
struct Unclaimed<'a> {
    temp_info: &'a TempInfo,
    checked: &'a CheckedFile,
    /// The file at the time of the verdict.
    judged: Observation,
    /// The target at the time of the verdict.
    target: FoundTarget,
}

/// The location of a claimed temp.
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
    /// Creates a reaper. Its claim names contain a random number, so that two processes do not choose the same names.
    #[must_use]
    pub fn new() -> Reaper {
        Reaper {
            claims: Claims::new(random_u64() as u32),
            release_wait: RELEASE_WAIT,
            batch: affordable_batch(),
            hook: None,
            usage: Arc::default(),
        }
    }

    /// Sets the time between the release of the lease and the next request for it; the default is [`RELEASE_WAIT`].
    #[must_use]
    pub fn with_release_wait(mut self, wait: Duration) -> Reaper {
        self.release_wait = wait;
        self
    }

    /// Sets a hook that is called before each step.
    #[must_use]
    pub fn with_hook(mut self, hook: Option<Hook>) -> Reaper {
        self.hook = hook;
        self
    }

    /// Returns the number of temps that go through the protocol together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the limits and sizes of the quarantines that receive temps. A new reaper has no limits.
    #[must_use]
    pub fn usage(&self) -> &QuarantineUsage {
        &self.usage
    }

    /// Returns the claim names of this reaper.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    fn before_step(&self, step: Step, name: &OsStr) {
        if let Some(hook) = &self.hook {
            (hook.0)(step, name);
        }
    }

    /// Takes `batch` through the protocol, and returns the outcomes in the order of the batch.
    ///
    /// Temps to be deleted come before temps to be moved: on a full disk that frees the space that the quarantine may
    /// need.
    pub fn reap(
        &self,
        batch_context: BatchContext<'_>,
        use_checker: &UseChecker,
        batch: &mut [Candidate],
    ) -> Vec<Outcome> {
        let mut opened: Vec<Option<CheckedFile>> =
            batch.iter_mut().map(|c| c.opened.take()).collect();
        let batch = &*batch;
        let mut outcomes: Vec<Option<Outcome>> = batch.iter().map(|_| None).collect();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|&i| batch.get(i).is_some_and(|c| c.verdict != Verdict::Reap));
        for chunk in order.chunks(self.batch) {
            let chunk = chunk
                .iter()
                .filter_map(|&i| Some((i, batch.get(i)?, opened.get_mut(i)?.take())))
                .collect();
            self.reap_chunk(batch_context, use_checker, chunk, &mut outcomes);
        }
        let lost = || Outcome::Kept(Reason::Changed);
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(lost))
            .collect()
    }

    fn reap_chunk(
        &self,
        batch_context: BatchContext<'_>,
        use_checker: &UseChecker,
        chunk: Vec<(usize, &Candidate, Option<CheckedFile>)>,
        outcomes: &mut [Option<Outcome>],
    ) {
        let mut set = |index: usize, outcome| {
            if let Some(slot) = outcomes.get_mut(index) {
                *slot = Some(outcome);
            }
        };
        if let Some((_, first, _)) = chunk.first() {
            self.before_step(Step::Resolve, &first.temp_info.name);
        }
        let unmoved =
            rule!("directory-not-moved", batch_context.check_not_moved(), without: Ok(()));
        if let Err(error) = unmoved {
            for (index, ..) in chunk {
                set(index, dir_failed(Step::Resolve, &error));
            }
            return;
        }
        // If a lease does not show mappings, all processes are examined before the claim and again after it.
        let expected = chunk
            .iter()
            .filter_map(|(_, candidate, _)| candidate.temp_info.expected);
        let files: Vec<FileId> = expected.map(|file| FileId::from(&file)).collect();
        let maps_unseen = batch_context.dir.lease_coverage() == LeaseCoverage::OpensOnly;
        let scan = || {
            maps_unseen
                .then(|| evidence::scan_processes(&files, batch_context.dir.lease_coverage()))
        };
        let before = scan();
        let batch_context = BatchContext {
            context: EvidenceContext {
                process_scan: before.as_ref(),
                ..batch_context.context
            },
            ..batch_context
        };
        let quarantine = LazyQuarantine::new(batch_context);
        let mut claimed = Vec::with_capacity(chunk.len());
        for (index, candidate, opened) in chunk {
            match self.claim(batch_context, &quarantine, use_checker, candidate, opened) {
                Ok(temp) => claimed.push((index, temp)),
                Err(outcome) => set(index, outcome),
            }
        }
        let Some((_, first)) = claimed.first() else {
            return;
        };
        self.before_step(Step::Wait, &first.temp_info.name);
        std::thread::sleep(self.release_wait);
        // RACE: the directory may be moved out of the root at any time. This is the last check. Worst case: a temp in
        // it is removed although the directory has just been moved.
        let unmoved =
            rule!("directory-not-moved-later", batch_context.check_not_moved(), without: Ok(()));
        // The names no longer exist, so no further process can open and map these files.
        let after = scan();
        let mut fresh = FreshSiblings::new(batch_context.dir, claimed.len());
        for (index, temp) in claimed {
            let file = FileId::from(&temp.after.fingerprint);
            // A file whose mappings were not examined before the claim does not need that now.
            let is_unmapped = |process_scan: &ProcessScan| {
                !temp.evidence.mappings_examined || process_scan.proves_unmapped(file)
            };
            let outcome = match &unmoved {
                Ok(()) if after.as_ref().is_none_or(is_unmapped) => {
                    self.finish(batch_context, &quarantine, temp, &mut fresh)
                }
                Ok(()) => self.put_back(batch_context, &quarantine, temp, Reason::CannotTell),
                Err(error) => {
                    let outcome = dir_failed(Step::Wait, error);
                    self.put_back_because(batch_context, &quarantine, temp, outcome)
                }
            };
            set(index, outcome);
        }
    }

    /// Runs the steps up to [`Step::Release`]. Returns an outcome if the protocol ends earlier.
    fn claim<'a>(
        &'a self,
        batch_context: BatchContext<'_>,
        quarantine: &LazyQuarantine<'_>,
        use_checker: &UseChecker,
        candidate: &'a Candidate,
        opened: Option<CheckedFile>,
    ) -> Result<Claimed<'a>, Outcome> {
        let temp_info = &candidate.temp_info;
        let (dir, name) = (batch_context.dir, temp_info.name.as_os_str());
        // Checked here too: a file that the rule does not name is never touched.
        let policy = batch_context.context.policy;
        if rule!(
            "only-named-files-reaped",
            !policy.is_temp(dir.below(), name)
        ) {
            return Err(Outcome::Settled);
        }
        // The quarantine's folders are created before the lease, because that takes time.
        let mut slot = match candidate.verdict {
            Verdict::Reap => None,
            Verdict::Quarantine(_) => Some(quarantine.slot(name)?),
            Verdict::Keep(reason) => return Err(Outcome::Kept(reason)),
        };

        self.before_step(Step::Look, name);
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

        self.before_step(Step::Open, name);
        // A file that the look has left open cannot be replaced by another file with the same inode number. So if
        // Step::Judge finds this file equal to the one that Step::Look saw, the name refers to it.
        let opened = match opened {
            Some(checked) => Ok(checked),
            None => Err(evidence::open_for_check(dir, name).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => Outcome::Settled,
                    // A lease of another process is in force: that process holds the file.
                    io::ErrorKind::WouldBlock => Outcome::Kept(Reason::InUse),
                    _ => failed(Step::Open)(error),
                }
            })?),
        };

        self.before_step(Step::Prove, name);
        let (mut use_state, mut checked) = match opened {
            Ok(mut checked) => (use_checker.check_again(&mut checked), checked),
            Err(file) => use_checker.check(file),
        };
        // If open files may be removed or moved, only a lock keeps them.
        let is_held = matches!(use_state, UseState::InUse | UseState::Unknown);
        if rule!("lock-is-asked-for", is_held && policy.open != Open::Keep)
            && checked.lock().map_err(failed(Step::Prove))?
        {
            use_state = UseState::Locked;
        }

        self.before_step(Step::Judge, name);
        let judged = dir::observe_fd(checked.file()).map_err(failed(Step::Judge))?;
        if rule!("same-file-once-open", judged != seen) {
            return Err(Outcome::Kept(Reason::Changed));
        }
        let file_use = FileUse {
            state: use_state,
            file: Some(&checked),
        };
        let (evidence, target) =
            evidence::gather(dir, temp_info, judged, file_use, batch_context.context)
                .map_err(failed(Step::Judge))?;
        let verdict = rule!("judged-again", judge(&evidence, policy), without: candidate.verdict);
        match verdict {
            verdict if verdict == candidate.verdict => {}
            Verdict::Keep(reason) => return Err(Outcome::Kept(reason)),
            // The verdict differs: a later pass runs the whole protocol again.
            _ => return Err(Outcome::Kept(Reason::Changed)),
        }
        let proven = evidence.use_state == UseState::Unused;

        self.before_step(Step::Claim, name);
        let at = match slot {
            Some(slot) => calls::rename(dir.fd(), name, slot.inner_dir(), name)
                .map(|()| ClaimedAt::Slot(slot)),
            None => {
                let claim = self.claims.name(name);
                calls::rename(dir.fd(), name, dir.fd(), claim.name())
                    .map(|()| ClaimedAt::Here(claim))
            }
        };
        let at = match at {
            Ok(at) => at,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Either the temp's name is missing, or the slot, which another process may have removed.
                return Err(match dir.observe(name) {
                    Ok(Some(_)) => Outcome::Kept(Reason::NoQuarantine),
                    Ok(None) => Outcome::Settled,
                    Err(error) => failed(Step::Claim)(error),
                });
            }
            // This is not done where mappings must be checked again after the claim.
            Err(error)
                if is_full(&error)
                    && proven
                    && candidate.verdict == Verdict::Reap
                    && rule!("full-disk-lease-sees-mappings",
                        dir.lease_coverage() == LeaseCoverage::OpensAndMaps, without: true) =>
            {
                return Err(self.unlink_unclaimed(
                    batch_context,
                    Unclaimed {
                        temp_info,
                        checked: &checked,
                        judged,
                        target,
                    },
                ));
            }
            // No rename that refuses to overwrite is possible here, so no claim is safe.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Err(Outcome::Kept(Reason::CannotTell));
            }
            Err(error) => return Err(failed(Step::Claim)(error)),
        };
        let mut claimed = Claimed {
            temp_info,
            checked,
            proven,
            evidence,
            target,
            after: judged,
            at,
        };

        self.before_step(Step::Compare, name);
        match claimed.look(dir) {
            Ok(Some(after)) if rule!("same-file-claimed", claimed.is_same(&after), without: true) =>
            {
                claimed.after = after;
            }
            Ok(Some(_)) => {
                return Err(self.put_back(batch_context, quarantine, claimed, Reason::Changed));
            }
            // RACE: another process renamed or removed the claim itself. Worst case: the file has a name that this
            // process gave it; orphand does nothing to it.
            Ok(None) => return Err(Outcome::Settled),
            Err(error) => {
                let outcome = failed(Step::Compare)(error);
                return Err(self.put_back_because(batch_context, quarantine, claimed, outcome));
            }
        }

        self.before_step(Step::ProveAgain, name);
        if rule!("proven-again-after-claim", claimed.proven)
            && let Some(reason) = held_reason(claimed.checked.recheck())
        {
            return Err(self.put_back(batch_context, quarantine, claimed, reason));
        }

        self.before_step(Step::Release, name);
        claimed.checked.release();
        Ok(claimed)
    }

    /// Runs the steps after [`Step::Wait`].
    fn finish(
        &self,
        batch_context: BatchContext<'_>,
        quarantine: &LazyQuarantine<'_>,
        mut claimed: Claimed<'_>,
        fresh: &mut FreshSiblings<'_>,
    ) -> Outcome {
        let name = claimed.temp_info.name.as_os_str();
        self.before_step(Step::ProveLast, name);
        match claimed.prove_last() {
            Ok(None) => {}
            Ok(Some(reason)) => return self.put_back(batch_context, quarantine, claimed, reason),
            Err(error) => {
                let outcome = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, quarantine, claimed, outcome);
            }
        }
        match claimed.look(batch_context.dir) {
            Ok(Some(now)) if rule!("claim-untouched", claimed.is_untouched(&now), without: true) => {
            }
            Ok(Some(_)) => {
                return self.put_back(batch_context, quarantine, claimed, Reason::Changed);
            }
            Ok(None) => return Outcome::Settled,
            Err(error) => {
                let outcome = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, quarantine, claimed, outcome);
            }
        }
        // A temp that is removed because its target counts: the target must still count.
        match claimed.target_now(batch_context) {
            Ok(target) if rule!("same-target", target == claimed.evidence.target, without: true) => {
            }
            // A symlink that led to the temp now leads nowhere. A move loses nothing as long as no target counts.
            Ok(target) if matches!(claimed.at, ClaimedAt::Slot(_)) && !target.counts() => {}
            Ok(_) => return self.put_back(batch_context, quarantine, claimed, Reason::Changed),
            Err(error) => {
                let outcome = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, quarantine, claimed, outcome);
            }
        }

        // No companion that protects the temp has appeared beside its name.
        let names = &batch_context.context.policy.names;
        match rule!("new-companion-puts-back", fresh.protect(names, name), without: Ok(None)) {
            Ok(None) => {}
            Ok(Some(_)) => {
                return self.put_back(batch_context, quarantine, claimed, Reason::Reserved);
            }
            Err(error) => {
                let outcome = failed(Step::ProveLast)(error);
                return self.put_back_because(batch_context, quarantine, claimed, outcome);
            }
        }

        self.before_step(Step::Unlink, name);
        let claim = match claimed.at {
            ClaimedAt::Slot(slot) => return Outcome::Quarantined { id: slot.keep() },
            ClaimedAt::Here(ref claim) => claim.name(),
        };
        // RACE: a thread may have entered `open` before the claim and still be inside it (from Step::Release to
        // Step::ProveLast, at least RELEASE_WAIT), and a writer that closed the file may have paused for longer than
        // the rule allows. Worst case: the thread opens a file that loses its name, with what it writes to it, and the
        // rename of the writer fails with ENOENT. docs/safety.md gives the measured rate of the first.
        let removed = match claimed.proven {
            true => calls::unlink_proven(batch_context.dir.fd(), claim, &claimed.checked),
            false => calls::unlink(batch_context.dir.fd(), claim),
        };
        match removed {
            Ok(()) => {
                let size = claimed.after.size();
                let other_name = dir::observe_fd(claimed.checked.file())
                    .is_ok_and(|left| left.fingerprint.links > 0);
                // Released before another thread closes the file: the signal that announces a broken lease is blocked
                // in this thread.
                claimed.checked.release();
                close(claimed.checked, size.bytes);
                let freed = if other_name {
                    FileSize::default()
                } else {
                    size
                };
                Outcome::Reaped { freed }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Settled,
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.put_back(batch_context, quarantine, claimed, Reason::InUse)
            }
            Err(error) => {
                let outcome = failed(Step::Unlink)(error);
                self.put_back_because(batch_context, quarantine, claimed, outcome)
            }
        }
    }

    /// Gives a claimed temp its name back, and only then releases the lease.
    ///
    /// If another file has the name, the claim is moved to the quarantine. Nothing is overwritten or deleted.
    fn put_back(
        &self,
        batch_context: BatchContext<'_>,
        quarantine: &LazyQuarantine<'_>,
        claimed: Claimed<'_>,
        reason: Reason,
    ) -> Outcome {
        let (dir, name) = (batch_context.dir, claimed.temp_info.name.as_os_str());
        let back = match &claimed.at {
            ClaimedAt::Here(claim) => rule!("put-back-not-deleted",
                calls::rename(dir.fd(), claim.name(), dir.fd(), name),
                without: calls::unlink(dir.fd(), claim.name())),
            ClaimedAt::Slot(slot) => calls::rename(slot.inner_dir(), name, dir.fd(), name),
        };
        let error = match back {
            Ok(()) => return Outcome::Kept(reason),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::Settled,
            Err(error) => error,
        };
        let name_is_taken = error.kind() == io::ErrorKind::AlreadyExists;
        let claim = match claimed.at {
            ClaimedAt::Slot(slot) if name_is_taken => {
                return Outcome::Quarantined { id: slot.keep() };
            }
            ClaimedAt::Slot(slot) => {
                let id = slot.keep();
                log::error!("cannot put back {name:?}; it is in the quarantine: {id}");
                return failed(Step::Claim)(error);
            }
            ClaimedAt::Here(claim) => claim,
        };
        let error = match name_is_taken.then(|| quarantine.slot(name)) {
            None => error,
            Some(Err(Outcome::Failed { error, .. })) => error,
            Some(Err(_)) => error,
            Some(Ok(slot)) => match calls::rename(dir.fd(), claim.name(), slot.inner_dir(), name) {
                Ok(()) => return Outcome::Quarantined { id: slot.keep() },
                Err(error) => error,
            },
        };
        log::error!(
            "cannot put back {name:?}; it keeps the name {:?} until a later attempt succeeds",
            claim.name()
        );
        self.claims.add_pending(dir.id(), name, claim.name());
        failed(Step::Claim)(error)
    }

    /// Puts the temp back. Returns `outcome` if that succeeds, and otherwise the result of the put-back.
    fn put_back_because(
        &self,
        batch_context: BatchContext<'_>,
        quarantine: &LazyQuarantine<'_>,
        claimed: Claimed<'_>,
        outcome: Outcome,
    ) -> Outcome {
        match self.put_back(batch_context, quarantine, claimed, Reason::Changed) {
            Outcome::Kept(_) => outcome,
            other => other,
        }
    }

    /// Removes a temp by its original name while it is leased. On a full disk a rename may find no space for the new
    /// entry, but an unlink always works.
    ///
    /// RACE: between the comparison and the unlink the name may come to refer to another file, and a process may be
    /// inside an `open` of it, after the look-up and before the lease counts it. Worst case: a file that was renamed
    /// onto the name in these microseconds is lost, or the data written to the file that was opened. So this is done
    /// only if the claim fails with ENOSPC or EDQUOT (1 of 6,662 temps on a full ext4, 2 on xfs, 329 on btrfs).
    fn unlink_unclaimed(
        &self,
        batch_context: BatchContext<'_>,
        unclaimed: Unclaimed<'_>,
    ) -> Outcome {
        let Unclaimed {
            temp_info,
            checked,
            judged,
            target,
        } = unclaimed;
        let (dir, name) = (batch_context.dir, temp_info.name.as_os_str());
        self.before_step(Step::Compare, name);
        match dir.observe(name) {
            Ok(Some(now)) if rule!("full-disk-same-file", now == judged, without: true) => {}
            Ok(Some(_)) => return Outcome::Kept(Reason::Changed),
            Ok(None) => return Outcome::Settled,
            Err(error) => return failed(Step::Compare)(error),
        }
        let temp = ComparedTemp {
            seen: &judged,
            file: Some(checked.file()),
        };
        let policy = batch_context.context.policy;
        match evidence::recheck_target(dir, policy, &temp_info.parsed, temp, &target) {
            Ok(now) if rule!("full-disk-same-target", now == target.target, without: true) => {}
            Ok(_) => return Outcome::Kept(Reason::Changed),
            Err(error) => return failed(Step::Compare)(error),
        }
        match rule!("full-disk-no-companion", siblings::find_companion(dir, name), without: Ok(None))
        {
            Ok(None) => {}
            Ok(Some(_)) => return Outcome::Kept(Reason::Reserved),
            Err(error) => return failed(Step::Compare)(error),
        }
        self.before_step(Step::ProveAgain, name);
        let use_state =
            rule!("full-disk-proven-again", checked.recheck(), without: UseState::Unused);
        if let Some(reason) = held_reason(use_state) {
            return Outcome::Kept(reason);
        }
        self.before_step(Step::Unlink, name);
        match calls::unlink_proven(dir.fd(), name, checked) {
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

/// Returns the reason to keep a file with this use state, if there is one.
fn held_reason(use_state: UseState) -> Option<Reason> {
    match use_state {
        UseState::Unused => None,
        UseState::InUse | UseState::Locked => Some(Reason::InUse),
        UseState::Unknown => Some(Reason::CannotTell),
    }
}

impl Claimed<'_> {
    /// Requests the lease once more, or the locks if the policy allows the removal of open files. Returns the reason to
    /// keep the file, if there is one.
    fn prove_last(&mut self) -> io::Result<Option<Reason>> {
        if self.proven {
            let use_state =
                rule!("proven-at-last", self.checked.check(), without: UseState::Unused);
            return Ok(held_reason(use_state));
        }
        Ok(rule!("lock-is-asked-again", self.checked.lock()?).then_some(Reason::Locked))
    }

    /// Returns the state of the target now. The temp is compared as it was judged, because the claim has changed its
    /// ctime.
    fn target_now(&self, batch_context: BatchContext<'_>) -> io::Result<Target> {
        let temp = ComparedTemp {
            seen: &self.evidence.observation,
            file: Some(self.checked.file()),
        };
        let policy = batch_context.context.policy;
        evidence::recheck_target(
            batch_context.dir,
            policy,
            &self.temp_info.parsed,
            temp,
            &self.target,
        )
    }

    /// Observes the file at the claim, if there is one.
    fn look(&self, dir: &Dir) -> io::Result<Option<Observation>> {
        match &self.at {
            ClaimedAt::Here(claim) => dir.observe(claim.name()),
            ClaimedAt::Slot(slot) => slot.observe(&self.temp_info.name),
        }
    }

    /// Reports whether the claim is the file that was judged. For a file that may be removed while it is open, only the
    /// identity counts, because its holder may still write.
    fn is_same(&self, after: &Observation) -> bool {
        let (now, judged) = (&after.fingerprint, &self.evidence.observation);
        match self.proven {
            true => now.is_same_after_rename(&judged.fingerprint) && after.mode == judged.mode,
            false => (now.dev, now.ino) == (judged.fingerprint.dev, judged.fingerprint.ino),
        }
    }

    /// Reports whether the file is unchanged since it was claimed.
    fn is_untouched(&self, now: &Observation) -> bool {
        match self.proven {
            true => *now == self.after,
            false => self.is_same(now),
        }
    }
}

/// Closes the file. The last close of a huge file frees its blocks, which takes long, so a separate thread does that.
fn close(checked: CheckedFile, bytes: u64) {
    const HUGE: u64 = 256 << 20;
    if bytes < HUGE {
        return drop(checked);
    }
    let closer = std::thread::Builder::new().name("orphand-close".into());
    // If no thread can be created, the closure is dropped and the file is closed here.
    let _ = closer.spawn(move || drop(checked));
}

/// Recovers a claim that a crash left: gives it its original name back, so that it is a temp like any other. If another
/// file has the name, or the name is not known, the claim is moved to the quarantine.
///
/// A held claim is kept: another orphand may be processing it. Returns `None` if the file is not a claim of ours.
pub fn recover(
    batch_context: BatchContext<'_>,
    use_checker: &UseChecker,
    claim: &OsStr,
) -> io::Result<Option<Recovered>> {
    let Some(parsed) = own_names::parse_claim(claim) else {
        return Ok(None);
    };
    let dir = batch_context.dir;
    match dir.observe(claim)? {
        Some(seen) if seen.fingerprint.kind == Kind::File && is_ours(&seen) => {}
        _ => return Ok(None),
    }
    let opened = match evidence::open_for_check(dir, claim) {
        // Another orphand has finished with it in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(Some(Recovered::Kept(Reason::InUse)));
        }
        opened => opened?,
    };
    let (use_state, checked) = use_checker.check(opened);
    let now = dir::observe_fd(checked.file())?;
    // A file that a user restored is kept, even under such a name.
    let marks = batch_context.context.marks;
    let is_restored = marks.has(checked.file(), &now.fingerprint)?;
    if rule!("restored-claim-stays", is_restored) {
        return Ok(None);
    }
    // Any user can create such a name, so a file that is not a temp by this rule is kept. A shortened name matches
    // other rules than the whole name did: the file is moved, because no rule would find it again.
    let is_temp = |name| batch_context.context.policy.is_temp(dir.below(), name);
    let is_of_others = parsed
        .original
        .as_deref()
        .is_some_and(|name| !is_temp(name));
    if rule!("claim-of-other-rules-stays", is_of_others) {
        return Ok(None);
    }
    if let Some(reason) =
        held_reason(rule!("held-claim-stays", use_state, without: UseState::Unused))
    {
        return Ok(Some(Recovered::Kept(reason)));
    }
    if let Some(name) = &parsed.original {
        match calls::rename(dir.fd(), claim, dir.fd(), name) {
            Ok(()) => return Ok(Some(Recovered::PutBack(name.clone()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let name = parsed.original.unwrap_or_else(|| claim.to_owned());
    let slot = LazyQuarantine::new(batch_context).slot(&name);
    let slot = slot.map_err(|outcome| match outcome {
        Outcome::Failed { error, .. } => error,
        _ => io::Error::other("another file has its name, and no quarantine is possible here"),
    })?;
    calls::rename(dir.fd(), claim, slot.inner_dir(), &name)?;
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

/// The result of the recovery of a claim.
#[derive(Debug)]
pub enum Recovered {
    /// The claim was kept: a process holds it, or that is unknown.
    Kept(Reason),
    /// The file has this name again.
    PutBack(OsString),
    /// The file was moved to the quarantine, because its name is in use or not known.
    Quarantined {
        /// Its id in the quarantine.
        id: String,
        /// Its name in the quarantine: the original name if that is known.
        name: OsString,
        /// Its size.
        size: FileSize,
    },
}

impl BatchContext<'_> {
    /// Checks that the directory's path below the root still leads to the same directory.
    fn check_not_moved(&self) -> Result<(), RootError> {
        let now = Dir::open_below(self.root, self.id, self.dir.below())?;
        match now.id() == self.dir.id() {
            true => Ok(()),
            false => Err(RootError::Replaced),
        }
    }
}

/// The quarantine of a batch, opened for the first temp that needs it.
struct LazyQuarantine<'a> {
    batch_context: BatchContext<'a>,
    quarantine: RefCell<Option<Arc<Quarantine>>>,
    /// The directory in the quarantine for the batch's directory, once a temp has a slot in it.
    dir: RefCell<Option<Arc<QuarantineDir>>>,
}

impl<'a> LazyQuarantine<'a> {
    fn new(batch_context: BatchContext<'a>) -> LazyQuarantine<'a> {
        LazyQuarantine {
            batch_context,
            quarantine: RefCell::default(),
            dir: RefCell::default(),
        }
    }

    /// Returns a slot for the temp `name`, or the outcome if there is none.
    fn slot(&self, name: &OsStr) -> Result<Slot, Outcome> {
        let below = self.batch_context.dir.below().join(name);
        let known = self.dir.borrow().as_ref().map(Arc::clone);
        if let Some(dir) = known
            && let Some(slot) = dir.slot(&below).map_err(no_quarantine)?
        {
            return Ok(slot);
        }
        let mut tries = 3;
        let slot = loop {
            match self.open()?.new_slot(&below) {
                // Another thread or process has removed the empty quarantine.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {
                    tries -= 1;
                    self.quarantine.take();
                }
                slot => break slot.map_err(no_quarantine)?,
            }
        };
        self.dir.replace(Some(Arc::clone(slot.dir())));
        Ok(slot)
    }

    fn open(&self) -> Result<Arc<Quarantine>, Outcome> {
        if let Some(quarantine) = &*self.quarantine.borrow() {
            return Ok(Arc::clone(quarantine));
        }
        let quarantine = Quarantine::open_or_create(self.batch_context.root, self.batch_context.id);
        let quarantine = Arc::new(quarantine.map_err(|error| match &error {
            RootError::Io(error) => no_quarantine(crate::sys::error::copy(error)),
            _ => Outcome::Kept(Reason::NoQuarantine),
        })?);
        self.quarantine.replace(Some(Arc::clone(&quarantine)));
        Ok(quarantine)
    }
}

/// Returns the outcome for a temp without a slot. If no quarantine is possible here, the temp is kept for that reason.
/// If the system fails or has run out of a resource, the error is reported instead.
fn no_quarantine(error: io::Error) -> Outcome {
    match Errno::from_io_error(&error) {
        Some(
            Errno::IO | Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::INTR | Errno::AGAIN,
        ) => failed(Step::Claim)(error),
        _ => Outcome::Kept(Reason::NoQuarantine),
    }
}

/// Returns the largest batch that the limit of open files allows. A temp that is moved to the quarantine needs three
/// files.
fn affordable_batch() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX);
    (limit / 8).clamp(1, BATCH)
}

fn failed(step: Step) -> impl Fn(io::Error) -> Outcome {
    move |error| Outcome::Failed { step, error }
}

/// Returns the outcome for a directory that was replaced or could not be checked.
fn dir_failed(step: Step, error: &RootError) -> Outcome {
    match error {
        RootError::Io(error) if !RootError::is_missing_error(error) => {
            failed(step)(crate::sys::error::copy(error))
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
