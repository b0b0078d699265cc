//! Processes the due temps of one directory: look, track, judge, reap, report.
//!
//! The workers and `sweep` use this same code, dry runs included.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::core::event::{Details, Disposed, Event, Settlement, Subject};
use crate::core::judge::{Evidence, LeaseCoverage, Reason, Target, Verdict, judge};
use crate::core::observation::{FileSize, Kind, Observation, UseState};
use crate::core::policy::Policy;
use crate::core::reserved::Reserved;
use crate::core::retention::{ClockTrust, NeededSpace};
use crate::core::time::{ClockJumpDetector, Mono, Now};
use crate::core::tracker::{Look, Next, Tracked};
use crate::engine::limits::{self, LimitContext};
use crate::evidence::container_pids::ContainerPids;
use crate::evidence::locks::Locks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::{Listings, Siblings};
use crate::evidence::writer_names::WriterNames;
use crate::evidence::{
    self, CheckedFile, EvidenceContext, FileId, FileUse, ProcessScan, TempInfo, UseChecker,
};
use crate::fs::dir;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::reap::{self, BatchContext, Candidate, Outcome, Reaper, Recovered, quarantine};
use crate::store::journal::{Journal, LineKind};
use crate::store::json::{self, FileFields, IntentLine};
use crate::sys::clock;

/// The services that every pass needs.
#[derive(Debug)]
pub struct Engine {
    /// Removes files.
    pub reaper: Reaper,
    /// Records intents and outcomes.
    pub journal: Journal,
    /// Records the files that were restored.
    pub marks: RestoreMarks,
    /// Remembers the names of writers.
    pub writers: WriterNames,
    /// Resolves pids of containers.
    pub container_pids: ContainerPids,
    /// Finds files that are locked.
    pub locks: Locks,
    /// Lists the siblings of temps.
    pub listings: Listings,
    /// Reports settled temps too.
    pub verbose: bool,
}

/// The directory that a pass processes.
#[derive(Clone, Copy, Debug)]
pub struct DirContext<'a> {
    /// Its root.
    pub root: &'a Root,
    /// The identity that the directory at the root's path must have; `None` if any is accepted.
    pub id: Option<RootId>,
    /// The path from the root to the directory.
    pub below: &'a Path,
}

/// A due temp.
#[derive(Debug)]
pub struct PassItem {
    /// Its base name.
    pub name: OsString,
    /// Its tracking state. `None` after a pass if the temp is to be forgotten.
    pub temp: Option<Tracked>,
}

/// A pass in progress.
pub struct Pass<'a> {
    engine: &'a Engine,
    dir_context: DirContext<'a>,
    use_checker: &'a UseChecker,
    emit: &'a mut dyn FnMut(Event),
    /// The directory's path, for messages.
    folder: PathBuf,
    /// The number of due temps.
    due: usize,
    /// Siblings of the temps; read when the first of them is to be judged.
    siblings: Option<Arc<Siblings>>,
}

/// A temp that is ready to be judged.
struct ReadyTemp {
    /// Its index in the due temps.
    index: usize,
    temp_info: TempInfo,
    evidence: Evidence,
    /// The index of its target among the possible target names.
    target: Option<usize>,
    /// The open file, with no lease held on it, so that the protocol does not open it again.
    opened: Option<CheckedFile>,
}

/// A temp to be removed: its index in the due temps, its observation, and its report.
struct Removal {
    index: usize,
    observation: Observation,
    disposed: Disposed,
}

/// Returns the number of threads that may run passes at the same time: two for each core, because every batch waits for
/// some time. Each thread may have three open files for each temp of its batch, so the limit of open files counts too.
#[must_use]
pub fn max_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (2 * cores)
        .min(MAX_WORKERS)
        .min(limit / (4 * reap::BATCH))
        .max(1)
}

/// The largest number of workers: more would only wait for the same disk.
const MAX_WORKERS: usize = 8;

/// A reading of the clocks.
#[derive(Clone, Copy)]
struct ClockReading {
    now: Now,
    /// The last jump of the wall clock, if there was one.
    last_jump: Option<Mono>,
}

/// The result of [`look_at`].
enum LookResult {
    /// No file has this name.
    Missing,
    /// The name refers to something that is never a temp.
    NotATemp,
    /// A regular file, its use state, and its handle if it was opened.
    File {
        observation: Observation,
        use_state: UseState,
        checked: Option<CheckedFile>,
    },
}

impl<'a> Pass<'a> {
    /// Begins a pass over `dir_context`. `emit` receives the events in order.
    pub fn new(
        engine: &'a Engine,
        dir_context: DirContext<'a>,
        use_checker: &'a UseChecker,
        emit: &'a mut dyn FnMut(Event),
    ) -> Pass<'a> {
        Pass {
            engine,
            dir_context,
            use_checker,
            emit,
            folder: dir_context.root.path.join(dir_context.below),
            due: 0,
            siblings: None,
        }
    }

    /// Looks at every temp in `due`, and judges and removes those that are ready.
    pub fn run(&mut self, clocks: &mut ClockJumpDetector, due: &mut [PassItem]) {
        let (dir, quarantine) = match self.open() {
            Ok(opened) => opened,
            Err(error) => return self.cannot_open(&error, due),
        };
        self.due = due.len();
        let marks = self.engine.marks.with_list_read();
        let no_siblings = Siblings::default();
        let context = EvidenceContext {
            policy: &self.dir_context.root.policy,
            our_uid: effective_uid(),
            marks: &marks,
            container_pids: &self.engine.container_pids,
            locks: &self.engine.locks,
            siblings: &no_siblings,
            since: clock::mono(),
            quarantine,
            process_scan: None,
        };
        let mut ready = Vec::new();
        for (index, item) in due.iter_mut().enumerate() {
            match (self.put_back_pending(&dir, &item.name), &mut item.temp) {
                (None, _) => {}
                (Some(RecoveryOutcome::Kept(reason)), Some(temp)) => {
                    let grace = self.dir_context.root.policy.grace.shortest();
                    _ = temp.keep(reason, grace, clock::mono());
                    continue;
                }
                _ => {
                    self.retry_later(item);
                    continue;
                }
            }
            if let Some(temp) = &mut item.temp {
                temp.clear_claim_pending();
            }
            let now = clock::now();
            let clock_reading = ClockReading {
                now,
                last_jump: clocks.read(now),
            };
            match self.process_item(&dir, index, item, clock_reading, context) {
                Ok(None) => {}
                Ok(Some(mut ready_temp)) => {
                    // No more files are kept open than the protocol has open anyway.
                    ready_temp.opened = ready_temp
                        .opened
                        .filter(|_| ready.len() < self.engine.reaper.batch());
                    ready.push(ready_temp);
                }
                Err(error) => {
                    let subject = self.subject(&item.name, None);
                    self.report_failure(subject, "examine it", &error);
                    self.retry_later(item);
                }
            }
        }
        find_mappings(&dir, &mut ready);
        let mut candidates = Vec::new();
        let mut kept = Vec::new();
        for ready_temp in ready {
            let observation = ready_temp.evidence.observation;
            match judge(&ready_temp.evidence, &self.dir_context.root.policy) {
                Verdict::Keep(reason) => kept.push((ready_temp.index, observation, reason)),
                verdict => {
                    let removal = Removal {
                        index: ready_temp.index,
                        observation,
                        disposed: self.disposed(&ready_temp),
                    };
                    let (temp_info, opened) = (ready_temp.temp_info, ready_temp.opened);
                    let candidate = Candidate {
                        temp_info,
                        verdict,
                        opened,
                    };
                    candidates.push((removal, candidate));
                }
            }
        }
        if rule!(
            "dry-run-disposes-of-nothing",
            self.dir_context.root.policy.is_dry_run()
        ) {
            self.report_dry_run(due, candidates);
        } else {
            let siblings = self.siblings.clone().unwrap_or_default();
            let context = EvidenceContext {
                siblings: &siblings,
                ..context
            };
            self.dispose(&dir, due, candidates, &mut kept, context);
        }
        self.report_kept(&dir, due, kept);
    }

    /// Puts back the pending claims of `name`, which could not be put back before. This happens before the look at the
    /// temp. Returns `None` if no claim is left.
    ///
    /// It is called only when the temp of that name is due, so a claim that cannot be put back for a long time is tried
    /// again as rarely as a temp is looked at.
    fn put_back_pending(&mut self, dir: &Dir, name: &OsStr) -> Option<RecoveryOutcome> {
        let claims = self.engine.reaper.claims();
        let mut outcome = None;
        for claim in claims.take_pending(dir.id(), name) {
            let recovered = recover(
                self.engine,
                self.dir_context,
                self.use_checker,
                &claim,
                self.emit,
            );
            if !matches!(dir.observe(&claim), Ok(None)) {
                claims.add_pending(dir.id(), name, &claim);
                outcome = Some(recovered);
            }
        }
        outcome
    }

    /// Schedules a later look at all due temps, or forgets them, because the directory itself cannot be opened.
    fn cannot_open(&mut self, error: &RootError, due: &mut [PassItem]) {
        let is_missing = error.is_missing();
        for item in due.iter_mut() {
            if is_missing {
                self.settle(item);
            } else {
                self.retry_later(item);
            }
        }
        if let (false, RootError::Io(error)) = (is_missing, error) {
            let path = self.dir_context.root.path.join(self.dir_context.below);
            let root = self.dir_context.root.path.clone();
            let subject = Subject {
                path,
                root,
                size: None,
            };
            self.report_failure(subject, "open this directory", error);
        }
    }

    /// Opens the directory. Also returns whether its root has a quarantine, or could have one.
    fn open(&self) -> Result<(Dir, bool), RootError> {
        let root = Dir::open_root(&self.dir_context.root.path, self.dir_context.id)?;
        let quarantine = quarantine::is_possible(&root);
        let dir = match self.dir_context.below.as_os_str().is_empty() {
            true => root,
            false => root.open_within(self.dir_context.below)?,
        };
        Ok((dir, quarantine))
    }

    /// Looks at one temp, and updates its tracking state. Returns the temp with its evidence if it is ready to be
    /// judged.
    fn process_item(
        &mut self,
        dir: &Dir,
        index: usize,
        item: &mut PassItem,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> io::Result<Option<ReadyTemp>> {
        let policy = &self.dir_context.root.policy;
        // The callback accepts names that match any rule. A name that does not match this rule is not a temp of this
        // root.
        if !policy.is_temp(self.dir_context.below, &item.name) {
            item.temp = None;
            return Ok(None);
        }
        let parsed = policy.names.parse(&item.name);
        let Some(temp) = item.temp.as_mut() else {
            return Ok(None);
        };
        // Only a look shows whether the file is empty. Until then the shorter grace applies.
        let grace = |is_empty| policy.grace_of(&parsed, is_empty, Duration::ZERO);
        if temp.postpone_first_look(grace(true).min(grace(false)), clock_reading.now.mono) {
            return Ok(None);
        }
        let (observation, use_state, mut checked) =
            match look_at(dir, &item.name, policy, self.use_checker, context.our_uid)? {
                LookResult::File {
                    observation,
                    use_state,
                    checked,
                } => (observation, use_state, checked),
                LookResult::Missing => {
                    self.settle(item);
                    return Ok(None);
                }
                LookResult::NotATemp => {
                    item.temp = None;
                    return Ok(None);
                }
            };
        let file = &observation.fingerprint;
        let lag = dir.properties().dates.lag(file);
        let grace = policy.grace_of(&parsed, file.size == 0, lag);
        if temp.postpone_first_look(grace, clock_reading.now.mono) {
            return Ok(None);
        }
        if let Some(pid) = parsed.pid {
            // For messages: this process may have ended by the time the temp is judged.
            self.engine.writers.learn(pid, observation.fingerprint.uid);
        }
        let look = Look {
            now: clock_reading.now,
            last_jump: clock_reading.last_jump,
            fingerprint: observation.fingerprint,
            lag,
            use_state,
        };
        let quiet = match temp.look(&look, grace, policy.open) {
            Next::LookAt(_) => return Ok(None),
            Next::Judge(quiet) => quiet,
        };
        let siblings = self.siblings(dir)?;
        let context = EvidenceContext {
            siblings: &siblings,
            ..context
        };
        let temp_info = TempInfo {
            name: item.name.clone(),
            reserved: match temp.was_target() {
                true => Some(Reserved::WasTarget),
                false => policy.names.reserved(item.name.as_bytes()),
            },
            parsed: siblings.apply_numbered(parsed),
            expected: Some(quiet.fingerprint),
            quiet: quiet.quiet,
            unused: quiet.unused,
            grace,
            written: temp.written_by(&look),
            closed: temp.is_closed(),
        };
        let file_use = FileUse {
            state: use_state,
            file: checked.as_ref(),
        };
        let (evidence, found) = evidence::gather(dir, &temp_info, observation, file_use, context)?;
        // The other temp may be removed before the next look.
        let is_target = matches!(evidence.reserved, Some(Reserved::TargetOf(_)));
        if rule!("target-until-watch-ends", is_target) {
            temp.mark_target();
        }
        if let Some(checked) = &mut checked {
            checked.release();
        }
        // Another name of the file may be due as well, and the file would be found in use: by this process.
        let opened = checked.filter(|_| observation.fingerprint.links == 1);
        Ok(Some(ReadyTemp {
            index,
            temp_info,
            evidence,
            target: found.index,
            opened,
        }))
    }

    /// Returns the siblings of the temps of this pass.
    fn siblings(&mut self, dir: &Dir) -> io::Result<Arc<Siblings>> {
        let siblings = match &self.siblings {
            Some(siblings) => Arc::clone(siblings),
            None => {
                let policy = &self.dir_context.root.policy;
                self.engine.listings.siblings_of(dir, policy, self.due)?
            }
        };
        Ok(Arc::clone(self.siblings.insert(siblings)))
    }

    /// Reports what a pass would do if it were not a dry run.
    fn report_dry_run(&mut self, due: &mut [PassItem], candidates: Vec<(Removal, Candidate)>) {
        for (removal, candidate) in candidates {
            let Some(item) = due.get_mut(removal.index) else {
                continue;
            };
            let grace = candidate.temp_info.grace;
            let is_new = item
                .temp
                .as_mut()
                .map(|temp| temp.retry_later(grace, clock::mono()).is_new);
            if is_new != Some(true) {
                continue;
            }
            let disposed = Disposed {
                dry_run: true,
                ..removal.disposed
            };
            (self.emit)(match candidate.verdict {
                Verdict::Quarantine(reason) => Event::Quarantined {
                    disposed,
                    id: None,
                    reason,
                },
                _ => Event::Reaped(disposed),
            });
        }
    }

    /// Journals the intents, removes the temps, and reports the outcomes.
    fn dispose(
        &mut self,
        dir: &Dir,
        due: &mut [PassItem],
        candidates: Vec<(Removal, Candidate)>,
        kept: &mut Vec<(usize, Observation, Reason)>,
        context: EvidenceContext<'_>,
    ) {
        self.make_quarantine_space(&candidates);
        let intents: Vec<IntentLine<'_>> = candidates.iter().map(intent).collect();
        rule!(
            "intents-are-written-first",
            self.engine.journal.write(LineKind::Intent, &intents),
            without: (),
        );
        let (removal, mut batch): (Vec<Removal>, Vec<Candidate>) = candidates.into_iter().unzip();
        let batch_context = BatchContext {
            root: &self.dir_context.root.path,
            id: self.dir_context.id,
            dir,
            context,
        };
        let outcomes = self
            .engine
            .reaper
            .reap(batch_context, self.use_checker, &mut batch);
        let mut events = Vec::new();
        for ((removal, candidate), outcome) in removal.into_iter().zip(batch).zip(outcomes) {
            let Removal {
                index,
                observation,
                disposed,
            } = removal;
            let Some(item) = due.get_mut(index) else {
                continue;
            };
            let grace = candidate.temp_info.grace;
            let event = match outcome {
                Outcome::Reaped { freed } => Event::Reaped(Disposed { freed, ..disposed }),
                Outcome::Quarantined { id } => Event::Quarantined {
                    disposed,
                    id: Some(id),
                    reason: candidate.verdict.reason(),
                },
                Outcome::Settled => {
                    self.settle(item);
                    continue;
                }
                Outcome::Kept(Reason::Changed) => {
                    // The file was used by another process in the meantime, so its grace starts again.
                    if let Some(temp) = item.temp.as_mut() {
                        temp.reset(clock::mono(), grace);
                    }
                    kept.push((index, observation, Reason::Changed));
                    continue;
                }
                Outcome::Kept(reason) => {
                    let is_held = matches!(reason, Reason::InUse | Reason::Locked);
                    if rule!("late-holder-is-noted", is_held)
                        && let Some(temp) = &mut item.temp
                    {
                        temp.mark_held();
                    }
                    kept.push((index, observation, reason));
                    continue;
                }
                Outcome::Failed { step, error } => {
                    let subject = disposed.subject;
                    self.report_failure(subject, step.action(), &error);
                    self.retry_later(item);
                    // The event of its claim may not have been received yet.
                    if let Some(temp) = &mut item.temp {
                        temp.set_claim_pending();
                    }
                    continue;
                }
            };
            item.temp = None;
            events.push(event);
        }
        let now = clock::wall();
        let lines: Vec<_> = events.iter().map(|event| json::event(event, now)).collect();
        self.engine.journal.write(LineKind::Outcome, &lines);
        events.into_iter().for_each(&mut *self.emit);
    }

    /// Frees space in the quarantine, as far as its limits permit, if the temps to be moved do not fit.
    fn make_quarantine_space(&mut self, candidates: &[(Removal, Candidate)]) {
        let moves = candidates
            .iter()
            .filter(|(_, candidate)| matches!(candidate.verdict, Verdict::Quarantine(_)));
        let bytes = moves.map(|(removal, _)| removal.observation.allocated);
        let wanted = NeededSpace {
            total: bytes.clone().fold(0, u64::saturating_add),
            smallest: bytes.min().unwrap_or(0),
        };
        let (usage, dir_context) = (self.engine.reaper.usage(), self.dir_context);
        if wanted.total == 0
            || !usage.lacks_room_for(&dir_context.root.path, dir_context.id, wanted.total)
        {
            return;
        }
        let context = LimitContext {
            usage,
            journal: &self.engine.journal,
            use_checker: self.use_checker,
            // Nothing is dropped because of its age here.
            trust: ClockTrust::default(),
            wanted,
        };
        loop {
            let result = limits::enforce_limits(dir_context.root, dir_context.id, context);
            result.events.into_iter().for_each(&mut *self.emit);
            if !result.has_more {
                return;
            }
        }
    }

    /// Reports the kept temps with their reasons, once for each temp and reason.
    fn report_kept(
        &mut self,
        dir: &Dir,
        due: &mut [PassItem],
        kept: Vec<(usize, Observation, Reason)>,
    ) {
        let policy = &self.dir_context.root.policy;
        let mut reports = Vec::new();
        for (index, observation, reason) in kept {
            let Some(item) = due.get_mut(index) else {
                continue;
            };
            let Some(temp) = item.temp.as_mut() else {
                continue;
            };
            let file = &observation.fingerprint;
            let lag = dir.properties().dates.lag(file);
            let parsed = policy.names.parse(&item.name);
            let grace = policy.grace_of(&parsed, file.size == 0, lag);
            let kept = temp.keep(reason, grace, clock::mono());
            if kept.is_new {
                reports.push((item.name.clone(), observation, reason, kept));
            }
        }
        // One process scan finds the holders of all these files.
        let is_held = |reason| matches!(reason, Reason::InUse | Reason::Locked);
        let wanted: Vec<FileId> = reports
            .iter()
            .filter(|(_, _, reason, _)| is_held(*reason))
            .map(|(_, observation, _, _)| FileId::from(&observation.fingerprint))
            .collect();
        let process_scan = match wanted.is_empty() {
            true => ProcessScan::default(),
            false => evidence::scan_processes(&wanted, dir.lease_coverage()),
        };
        for (name, observation, reason, kept) in reports {
            let file = FileId::from(&observation.fingerprint);
            let holders = process_scan.holders_of(file);
            self.engine.writers.learn_holders(file, &holders);
            let subject = self.subject(&name, Some(&observation));
            let details = details(self.engine, policy, dir, &name, &observation, reason);
            (self.emit)(Event::Kept {
                subject,
                reason,
                holders,
                retry: Some(kept.retry),
                reported_before: kept.reported_before,
                details,
            });
        }
    }

    fn settle(&mut self, item: &mut PassItem) {
        item.temp = None;
        if self.engine.verbose {
            let subject = self.subject(&item.name, None);
            let how = Settlement::Removed;
            (self.emit)(Event::Settled { subject, how });
        }
    }

    /// Schedules a later look at the temp.
    fn retry_later(&self, item: &mut PassItem) {
        let grace = self.dir_context.root.policy.grace.shortest();
        if let Some(temp) = item.temp.as_mut() {
            temp.retry_later(grace, clock::mono());
        }
    }

    fn report_failure(&mut self, subject: Subject, action: &str, error: &io::Error) {
        (self.emit)(Event::Failed {
            subject,
            error: format!("cannot {action}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn subject(&self, name: &OsStr, seen: Option<&Observation>) -> Subject {
        Subject {
            path: self.path(name),
            root: self.dir_context.root.path.clone(),
            size: seen.map(Observation::size),
        }
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.folder.join(name)
    }

    fn disposed(&self, ready_temp: &ReadyTemp) -> Disposed {
        let (temp_info, seen) = (&ready_temp.temp_info, &ready_temp.evidence.observation);
        let name = evidence::target_name(&temp_info.parsed, ready_temp.target);
        let file = FileId::from(&seen.fingerprint);
        Disposed {
            subject: self.subject(&temp_info.name, Some(seen)),
            quiet: temp_info.quiet,
            target: name.map(|name| self.path(name)),
            target_state: ready_temp.evidence.target,
            writer_pid: temp_info.parsed.pid,
            writer: self.engine.writers.name_of(file, temp_info.parsed.pid),
            freed: FileSize::default(),
            dry_run: false,
        }
    }
}

/// The outcome of the recovery of a claim.
#[derive(Debug)]
pub enum RecoveryOutcome {
    /// The claim has this name again.
    PutBack(OsString),
    /// The claim is kept for now, for this reason. The recovery must be tried again.
    Kept(Reason),
    /// The recovery failed, and the failure was reported. It must be tried again.
    Failed,
    /// Nothing is left to do.
    Done,
}

/// Recovers a claim that is not in use by any thread: a crash left it, or it could not be put back.
pub fn recover(
    engine: &Engine,
    dir_context: DirContext<'_>,
    use_checker: &UseChecker,
    claim: &OsStr,
    emit: &mut dyn FnMut(Event),
) -> RecoveryOutcome {
    if engine.reaper.claims().is_in_progress(claim) {
        return RecoveryOutcome::Done;
    }
    let (root, below) = (&dir_context.root.path, dir_context.below);
    let Ok(dir) = Dir::open_below(root, dir_context.id, below) else {
        return RecoveryOutcome::Done;
    };
    let batch_context = BatchContext {
        root,
        id: dir_context.id,
        dir: &dir,
        context: EvidenceContext {
            policy: &dir_context.root.policy,
            our_uid: effective_uid(),
            marks: &engine.marks,
            container_pids: &engine.container_pids,
            locks: &engine.locks,
            siblings: &Siblings::default(),
            since: clock::mono(),
            quarantine: true,
            process_scan: None,
        },
    };
    let subject = |name: &OsStr, size| Subject {
        path: root.join(below).join(name),
        root: root.clone(),
        size,
    };
    match reap::recover(batch_context, use_checker, claim) {
        Ok(Some(Recovered::PutBack(name))) => {
            log::info!(
                "an unfinished removal of {name:?} was undone; the file has its original name again"
            );
            RecoveryOutcome::PutBack(name)
        }
        Ok(Some(Recovered::Kept(reason))) => RecoveryOutcome::Kept(reason),
        Ok(Some(Recovered::Quarantined { id, name, size })) => {
            let event = Event::Quarantined {
                disposed: Disposed {
                    subject: subject(&name, Some(size)),
                    quiet: Duration::ZERO,
                    target: None,
                    target_state: Target::Unknown,
                    writer_pid: None,
                    writer: None,
                    freed: FileSize::default(),
                    dry_run: false,
                },
                id: Some(id),
                reason: None,
            };
            engine
                .journal
                .write(LineKind::Outcome, &[json::event(&event, clock::wall())]);
            emit(event);
            RecoveryOutcome::Done
        }
        Ok(None) => RecoveryOutcome::Done,
        Err(error) => {
            emit(Event::Failed {
                subject: subject(claim, None),
                error: format!("cannot rename this claim back to its original name: {error}"),
                errno: error.raw_os_error(),
            });
            RecoveryOutcome::Failed
        }
    }
}

/// Returns the event that reports a kept claim. `retry` is the time until the next attempt, if there is one.
#[must_use]
pub fn kept_claim(
    dir_context: DirContext<'_>,
    claim: &OsStr,
    reason: Reason,
    retry: Option<Duration>,
) -> Event {
    Event::Kept {
        subject: Subject {
            path: dir_context.root.path.join(dir_context.below).join(claim),
            root: dir_context.root.path.clone(),
            size: None,
        },
        reason,
        holders: Vec::new(),
        retry,
        reported_before: false,
        details: Details::default(),
    }
}

/// Returns the details, for messages, of a temp that is kept for `reason`.
pub(crate) fn details(
    engine: &Engine,
    policy: &Policy,
    dir: &Dir,
    name: &OsStr,
    seen: &Observation,
    reason: Reason,
) -> Details {
    let parsed = policy.names.parse(name);
    let pid = parsed.pid.filter(|_| reason == Reason::WriterAlive);
    let writer = pid.and_then(|pid| {
        engine.writers.learn(pid, seen.fingerprint.uid);
        engine
            .writers
            .name_of(FileId::from(&seen.fingerprint), Some(pid))
    });
    Details {
        file_system: dir.properties().file_system.to_string(),
        writer_pid: pid,
        writer,
        is_dataless: seen.dataless,
        quiet: clock::wall().since(seen.fingerprint.newest()),
        grace: {
            let file = &seen.fingerprint;
            policy.grace_of(&parsed, file.size == 0, dir.properties().dates.lag(file))
        },
    }
}

/// On file systems where a lease does not prove that a file is unmapped, makes one process scan for all of `ready`, and
/// stores the result in their evidence.
fn find_mappings(dir: &Dir, ready: &mut [ReadyTemp]) {
    if dir.lease_coverage() != LeaseCoverage::OpensOnly || ready.is_empty() {
        return;
    }
    let file = |evidence: &Evidence| FileId::from(&evidence.observation.fingerprint);
    let wanted: Vec<FileId> = ready
        .iter()
        .map(|ready_temp| file(&ready_temp.evidence))
        .collect();
    let process_scan = evidence::scan_processes(&wanted, dir.lease_coverage());
    for ReadyTemp { evidence, .. } in ready {
        evidence.mappings_examined = process_scan.proves_unmapped(file(evidence));
    }
}

/// Returns the user id with which files are accessed. It is read once for each pass; the kernel checks it anyway in
/// each call.
fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Observes the file `name`, and checks whether a process uses it if it can be a temp of this user. Changes no state
/// and gathers no other evidence.
fn look_at(
    dir: &Dir,
    name: &OsStr,
    policy: &Policy,
    use_checker: &UseChecker,
    our_uid: u32,
) -> io::Result<LookResult> {
    let Some(first) = dir.observe(name)? else {
        return Ok(LookResult::Missing);
    };
    let file = &first.fingerprint;
    if rule!("only-files-are-temps", file.kind != Kind::File) {
        return Ok(LookResult::NotATemp);
    }
    let unopened = |use_state| LookResult::File {
        observation: first,
        use_state,
        checked: None,
    };
    let is_ours = our_uid == 0 || file.uid == our_uid;
    // A file of another user gives no lease. A file whose data is stored elsewhere would be fetched if it were opened.
    // On a file system whose proof does not count, the check would have no meaning.
    if !is_ours || first.dataless || !dir.properties().has_proof(policy) {
        return Ok(unopened(UseState::Unknown));
    }
    let opened = match evidence::open_for_check(dir, name) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(LookResult::Missing),
                // A lease of another process prevents the open: that process is a holder.
                io::ErrorKind::WouldBlock => Ok(unopened(UseState::InUse)),
                io::ErrorKind::PermissionDenied => Ok(unopened(UseState::Unknown)),
                _ => Err(error),
            };
        }
    };
    let (use_state, checked) = use_checker.check(opened);
    let observation = dir::observe_fd(checked.file())?;
    Ok(LookResult::File {
        observation,
        use_state,
        checked: Some(checked),
    })
}

/// Looks at a temp once, gathers its evidence, and returns the verdict that it would get now, for `scan` and `explain`.
/// No tracking state is used.
pub fn judge_now(
    engine: &Engine,
    dir_context: DirContext<'_>,
    dir: &Dir,
    use_checker: &UseChecker,
    name: &OsStr,
    quarantine: bool,
) -> io::Result<Option<Examined>> {
    let policy = &dir_context.root.policy;
    let parsed = policy.names.parse(name);
    let our_uid = effective_uid();
    let LookResult::File {
        observation,
        use_state,
        checked,
    } = look_at(dir, name, policy, use_checker, our_uid)?
    else {
        return Ok(None);
    };
    let now = clock::now();
    let file = &observation.fingerprint;
    let lag = dir.properties().dates.lag(file);
    let grace = policy.grace_of(&parsed, file.size == 0, lag);
    let quiet = now.wall.since(file.newest()).saturating_sub(lag);
    let siblings = engine.listings.siblings_of(dir, policy, 1)?;
    let temp_info = TempInfo {
        name: name.to_owned(),
        reserved: policy.names.reserved(name.as_bytes()),
        parsed: siblings.apply_numbered(parsed),
        expected: None,
        quiet,
        unused: quiet.min(now.mono.since_boot()),
        grace,
        written: None,
        closed: false,
    };
    let process_scan = (dir.lease_coverage() == LeaseCoverage::OpensOnly
        && use_state == UseState::Unused)
        .then(|| {
            evidence::scan_processes(
                &[FileId::from(&observation.fingerprint)],
                dir.lease_coverage(),
            )
        });
    let context = EvidenceContext {
        policy,
        our_uid,
        marks: &engine.marks,
        container_pids: &engine.container_pids,
        locks: &engine.locks,
        siblings: &siblings,
        since: now.mono,
        quarantine,
        process_scan: process_scan.as_ref(),
    };
    let file_use = FileUse {
        state: use_state,
        file: checked.as_ref(),
    };
    let (evidence, found) = evidence::gather(dir, &temp_info, observation, file_use, context)?;
    let verdict = judge(&evidence, policy);
    let folder = dir_context.root.path.join(dir_context.below);
    Ok(Some(Examined {
        details: match verdict {
            Verdict::Keep(reason) => {
                details(engine, policy, dir, name, &evidence.observation, reason)
            }
            _ => Details::default(),
        },
        target: evidence::target_name(&temp_info.parsed, found.index).map(|name| folder.join(name)),
        path: folder.join(name),
        temp_info,
        evidence,
        verdict,
    }))
}

/// The result of [`judge_now`].
#[derive(Debug)]
pub struct Examined {
    /// The path of the temp.
    pub path: PathBuf,
    /// The path of its target.
    pub target: Option<PathBuf>,
    /// Its name and ages.
    pub temp_info: TempInfo,
    /// The evidence for the verdict.
    pub evidence: Evidence,
    /// The verdict.
    pub verdict: Verdict,
    /// Details for messages.
    pub details: Details,
}

fn intent((removal, candidate): &(Removal, Candidate)) -> IntentLine<'_> {
    let Removal {
        observation: seen,
        disposed,
        ..
    } = removal;
    let file = &seen.fingerprint;
    let temp_info = &candidate.temp_info;
    IntentLine {
        time: json::time(clock::wall()),
        file: FileFields {
            path: Some(disposed.subject.path.as_path().into()),
            root: Some(disposed.subject.root.as_path().into()),
            bytes: Some(file.size),
            disk_bytes: Some(seen.allocated),
        },
        verdict: candidate.verdict.as_str(),
        reason: candidate.verdict.reason().map(Reason::as_str),
        grammar: temp_info.parsed.grammar,
        quiet_ms: json::ms(temp_info.quiet),
        grace_ms: json::ms(temp_info.grace),
        target: disposed.target.as_deref().map(Into::into),
        writer_pid: temp_info.parsed.pid,
        dev: file.dev,
        ino: file.ino,
        uid: file.uid,
        mode: seen.mode,
        links: file.links,
        mtime: json::time(file.mtime),
        ctime: json::time(file.ctime),
    }
}
