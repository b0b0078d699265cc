//! Processes the due temps of one directory: look, track, judge, reap, report.
//!
//! The workers and `sweep` use this same code, dry runs included.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::clock_reading::ClockReading;
use super::context::{DirContext, Engine};
use super::examine::{details, guard_for};
use super::groups::{GroupKey, GroupTemp, StoredCopies};
use super::limits::{self, LimitContext};
use super::look::{LookResult, Proof, SeenFile, look_at, look_at_listed};
use super::recover::{RecoveryOutcome, recover};
use super::sets::{self, MainLook, SeenMember, SetContext, SetState};
use crate::core::event::{Details, Disposed, Event, Settlement, Subject};
use crate::core::judge::{Evidence, LeaseCoverage, Reason, Verdict, judge_set};
use crate::core::observation::{FileSize, Holder, Observation, UseState};
use crate::core::policy::{Open, Policy};
use crate::core::reserved::Reserved;
use crate::core::retention::{ClockTrust, NeededSpace};
use crate::core::sort::sort_by;
use crate::core::temp_name::ParsedName;
use crate::core::time::ClockJumpDetector;
use crate::core::tracker::{Kept, Look, Next, Origin, Tracked};
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::Siblings;
use crate::evidence::{
    self, EvidenceContext, FileId, FileUse, KnownTarget, ProcessScan, Role, SharedTargets,
    TempInfo, UseChecker,
};
use crate::fs::dir::{Dir, RootError};
use crate::reap::better_copies::BetterCopies;
use crate::reap::{
    BatchContext, Candidate, Companion, CompanionResult, Looked, Outcome, quarantine,
};
use crate::store::journal::LineKind;
use crate::store::json::{self, FileFields, IntentLine, TimeText};
use crate::sys::clock;

/// A due temp.
#[derive(Debug)]
pub struct PassItem {
    /// Its base name.
    pub name: OsString,
    /// Its tracking state. `None` after a pass if the temp is to be forgotten.
    pub temp: Option<Tracked>,
    /// The file at the first look of a sweep, if the next look leaves everything to the protocol.
    looked: Option<Box<Observation>>,
}

impl PassItem {
    /// Creates a due temp.
    #[must_use]
    pub fn new(name: OsString, temp: Tracked) -> PassItem {
        PassItem {
            name,
            temp: Some(temp),
            looked: None,
        }
    }
}

/// The place of a pass in a watch or in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// It belongs to a watch.
    Watch,
    /// The first looks of a sweep, right after the directory was listed.
    First {
        /// The files are remembered for the second looks.
        remembers: bool,
    },
    /// The second looks of a sweep.
    Second,
}

/// A pass in progress.
pub struct Pass<'a> {
    engine: &'a Engine,
    dir_context: DirContext<'a>,
    use_checker: &'a UseChecker,
    emit: &'a mut dyn FnMut(Event),
    /// The number of due temps.
    due: usize,
    /// Siblings of the temps; read when the first of them is to be judged.
    siblings: Option<Arc<Siblings>>,
    /// The copies in the quarantine that come from this directory; read when the first temp of a group is judged.
    stored: Arc<StoredCopies>,
    round: Round,
    /// The looks at the targets of temps whose proof is left to the protocol.
    targets: SharedTargets,
}

/// A temp whose grace is over.
struct ReadyTemp<'i> {
    item: &'i mut PassItem,
    judged: Box<JudgedTemp>,
}

/// A temp with its verdict.
struct JudgedTemp {
    /// The temp for the protocol. Its file may still be open, with no lease held on it, so that the protocol does not
    /// open it again.
    candidate: Candidate,
    /// The evidence for the verdict.
    evidence: Evidence,
    /// The evidence about its companions, in their order in the candidate.
    companions: Vec<Evidence>,
    /// The reason for which the companions could not be judged.
    set_fault: Option<Reason>,
    /// The index of its target among the possible target names.
    target: Option<usize>,
}

/// A temp to be removed, with its report.
struct Removal<'i> {
    temp: ReadyTemp<'i>,
    disposed: Disposed,
}

impl AsMut<Candidate> for Removal<'_> {
    fn as_mut(&mut self) -> &mut Candidate {
        &mut self.temp.judged.candidate
    }
}

impl Removal<'_> {
    fn group_temp(&self) -> GroupTemp<'_> {
        GroupTemp {
            name: &self.temp.item.name,
            seen: self.temp.judged.observation(),
        }
    }

    /// Judges the temp again, as one that better copies supersede or do not.
    fn set_superseded(&mut self, is_superseded: bool, policy: &Policy) {
        self.disposed.superseded = is_superseded;
        let judged = &mut self.temp.judged;
        judged.evidence.superseded = is_superseded;
        judged.judge_again(policy);
    }
}

/// The temps to be removed, in two steps.
struct SplitRemovals<'i> {
    /// All temps that no other temp supersedes.
    first: Vec<Removal<'i>>,
    /// The temps that are superseded once `first` is in the quarantine.
    superseded: Vec<Removal<'i>>,
}

/// Separates the temps that form groups: those for which only the gate against sole copies does not pass, or passes
/// because they are superseded.
fn by_group<'i>(
    policy: &Policy,
    removals: Vec<Removal<'i>>,
) -> (Vec<Removal<'i>>, HashMap<GroupKey, Vec<Removal<'i>>>) {
    let (mut others, mut groups) = (Vec::new(), HashMap::<GroupKey, Vec<Removal<'i>>>::new());
    for removal in removals {
        let judged = &removal.temp.judged;
        let is_sole = judged.candidate.verdict == Verdict::Quarantine(Some(Reason::SoleCopy));
        let temp = removal.group_temp();
        let is_single = rule!("set-is-in-no-group", judged.companions.is_empty(), without: true);
        let key = (is_single && (is_sole || judged.evidence.superseded))
            .then(|| GroupKey::of_temp(policy, &judged.candidate.temp_info, temp.seen))
            .flatten();
        match key {
            Some(key) => groups.entry(key).or_default().push(removal),
            None => others.push(removal),
        }
    }
    (others, groups)
}

/// Returns the space of the temps on the disk, in bytes.
fn allocated(removals: &[Removal<'_>]) -> u64 {
    let temps = removals.iter().map(|removal| &removal.temp.judged);
    temps.fold(0, |sum, temp| sum.saturating_add(temp.allocated()))
}

impl JudgedTemp {
    fn observation(&self) -> &Observation {
        &self.evidence.observation
    }

    fn file(&self) -> FileId {
        FileId::from(&self.observation().fingerprint)
    }

    /// Returns the temp and its companions.
    fn files(&self) -> impl Iterator<Item = FileId> {
        let all = std::iter::once(&self.evidence).chain(&self.companions);
        all.map(|evidence| FileId::from(&evidence.observation.fingerprint))
    }

    /// Returns the space of the temp and its companions on the disk, in bytes.
    fn allocated(&self) -> u64 {
        let all = std::iter::once(&self.evidence).chain(&self.companions);
        let allocated = all.map(|evidence| evidence.observation.allocated);
        allocated.fold(0, u64::saturating_add)
    }

    fn judge_again(&mut self, policy: &Policy) {
        self.candidate.verdict = match self.set_fault {
            Some(reason) => Verdict::Keep(reason),
            None => judge_set(
                &self.evidence,
                &self.companions,
                policy,
                evidence::HAS_LEASES,
            ),
        };
    }

    fn grace(&self) -> Duration {
        self.candidate.temp_info.grace
    }

    /// Reports whether the protocol may make the proof for it: it is to be removed, and by itself.
    fn is_left_to_protocol(&self) -> bool {
        self.candidate.verdict == Verdict::Reap
            && self.companions.is_empty()
            && !self.evidence.superseded
    }
}

/// A temp that is kept, with the reason.
struct KeptTemp<'i> {
    temp: ReadyTemp<'i>,
    reason: Reason,
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
            due: 0,
            siblings: None,
            stored: Arc::default(),
            round: Round::Watch,
            targets: SharedTargets::default(),
        }
    }

    /// Makes the pass one of a sweep.
    #[must_use]
    pub(super) fn in_round(mut self, round: Round) -> Pass<'a> {
        self.round = round;
        self
    }

    /// Makes the pass use, and complete, the copies that another pass through the same directory has read.
    #[must_use]
    pub fn sharing(mut self, stored: &Arc<StoredCopies>) -> Pass<'a> {
        self.stored = Arc::clone(stored);
        self
    }

    /// Looks at every temp in `due`, and judges and removes those that are ready.
    pub fn run(&mut self, clocks: &mut ClockJumpDetector, due: &mut [PassItem]) {
        let (dir, quarantine) = match self.open() {
            Ok(opened) => opened,
            Err(error) => return self.cannot_open(&error, due),
        };
        let root = self.engine.shapes.root_in(self.dir_context.root, &dir);
        let mut pass = Pass {
            dir_context: DirContext {
                root: &root,
                ..self.dir_context
            },
            emit: &mut *self.emit,
            due: due.len(),
            siblings: None,
            stored: Arc::clone(&self.stored),
            targets: SharedTargets::default(),
            ..*self
        };
        pass.run_in(&dir, quarantine, clocks, due);
    }

    /// Does the same in the open directory `dir`.
    fn run_in(
        &mut self,
        dir: &Dir,
        quarantine: bool,
        clocks: &mut ClockJumpDetector,
        due: &mut [PassItem],
    ) {
        let marks = self.engine.marks.with_list_read();
        let (no_siblings, guards) = (Siblings::default(), GuardChecks::default());
        let context = EvidenceContext {
            marks: &marks,
            quarantine,
            ..self
                .engine
                .evidence_context(self.policy(), &no_siblings, &guards)
        };
        let mut ready = Vec::with_capacity(due.len());
        for item in due {
            if !self.put_back_pending(dir, item) {
                continue;
            }
            let clock_reading = ClockReading::take(clocks);
            if let Some(mut temp) = self.examine(dir, item, clock_reading, context) {
                // No more files are kept open than the protocol has open anyway. A later batch begins so late that it
                // looks at the targets again.
                if ready.len() >= self.engine.reaper.batch() {
                    temp.judged.candidate.opened = None;
                    if let Some(looked) = &mut temp.judged.candidate.looked {
                        looked.target = None;
                    }
                }
                ready.push(temp);
            }
        }
        find_mappings(dir, self.policy(), &mut ready);
        self.learn_holders(dir, &ready);
        let (mut removals, mut kept) = (Vec::with_capacity(ready.len()), Vec::new());
        for mut temp in ready {
            if let Verdict::Keep(reason) = temp.judged.candidate.verdict {
                temp.judged.candidate.opened = None;
                kept.push(KeptTemp { temp, reason });
            } else {
                let disposed = self.disposed(&temp.judged);
                removals.push(Removal { temp, disposed });
            }
        }
        let SplitRemovals { first, superseded } = self.split_superseded(removals);
        if rule!("dry-run-disposes-of-nothing", self.policy().is_dry_run()) {
            self.report_dry_run(first);
            self.report_dry_run(superseded);
        } else {
            let siblings = self.siblings.clone().unwrap_or_default();
            let context = EvidenceContext {
                siblings: &siblings,
                ..context
            };
            kept.extend(self.dispose(dir, first, context));
            // The better copies are in the quarantine now.
            if !superseded.is_empty() {
                let superseded = self.with_better_copies(superseded);
                kept.extend(self.dispose(dir, superseded, context));
            }
        }
        self.report_kept(dir, kept);
    }

    fn policy(&self) -> &'a Arc<Policy> {
        &self.dir_context.root.policy
    }

    /// Learns which processes use the temps that are removed or moved although they are in use. After that, no process
    /// can be found by their names.
    fn learn_holders(&self, dir: &Dir, ready: &[ReadyTemp<'_>]) {
        let is_held = |judged: &JudgedTemp| {
            let use_state = judged.evidence.use_state;
            matches!(use_state, UseState::InUse | UseState::Locked)
                && !matches!(judged.candidate.verdict, Verdict::Keep(_))
        };
        let held = ready.iter().filter(|temp| is_held(&temp.judged));
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

    /// Schedules a later look at all due temps, or forgets them, because the directory itself cannot be opened.
    fn cannot_open(&mut self, error: &RootError, due: &mut [PassItem]) {
        let is_missing = error.is_missing();
        for item in due {
            match is_missing {
                true => self.settle(item),
                false => self.retry_later(item),
            }
        }
        if let (false, RootError::Io(error)) = (is_missing, error) {
            let root = self.dir_context.root.path.clone();
            let path = root.join(self.dir_context.below);
            let size = None;
            self.report_failure(Subject { path, root, size }, "open this directory", error);
        }
    }

    /// Puts back the pending claims of the temp, which could not be put back before. This happens before the look at
    /// the temp. Returns `false` if a claim is left; the temp is looked at later then.
    ///
    /// It is called only when the temp is due, so a claim that cannot be put back for a long time is tried again as
    /// rarely as a temp is looked at.
    fn put_back_pending(&mut self, dir: &Dir, item: &mut PassItem) -> bool {
        let claims = self.engine.reaper.claims();
        let mut left = None;
        for claim in claims.take_pending(dir.id(), &item.name) {
            let (dir_context, use_checker) = (self.dir_context, self.use_checker);
            let outcome = recover(self.engine, dir_context, use_checker, &claim, self.emit);
            if !matches!(dir.observe(&claim), Ok(None)) {
                claims.add_pending(dir.id(), &item.name, &claim);
                left = Some(outcome);
            }
        }
        match (left, &mut item.temp) {
            (None, temp) => {
                if let Some(temp) = temp {
                    temp.clear_claim_pending();
                }
                return true;
            }
            (Some(RecoveryOutcome::Kept(reason)), Some(temp)) => {
                _ = temp.keep(reason, self.policy().grace.shortest(), clock::mono());
            }
            _ => self.retry_later(item),
        }
        false
    }

    /// Looks at one temp, and updates its tracking state. Returns the temp with its verdict if its grace is over.
    fn examine<'i>(
        &mut self,
        dir: &Dir,
        item: &'i mut PassItem,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> Option<ReadyTemp<'i>> {
        if let Some(judged) = self.judge_unproven(dir, item, clock_reading, context) {
            return Some(ReadyTemp { item, judged });
        }
        let was_looked_at = item.temp.as_ref().is_some_and(|temp| temp.seen().is_some());
        let judged = match self.track(dir, item, clock_reading, context.our_uid) {
            Ok(Some((seen, temp_info))) => {
                self.judge(dir, item, seen, temp_info, clock_reading, context)
            }
            Ok(None) if !was_looked_at => {
                let looked = self.look_at_found_set(dir, item, clock_reading, context.our_uid);
                looked.map(|()| None)
            }
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        match judged {
            Ok(Some(judged)) => Some(ReadyTemp { item, judged }),
            Ok(None) => None,
            Err(error) => {
                let subject = self.dir_context.subject(&item.name, None);
                self.report_failure(subject, "examine it", &error);
                self.retry_later(item);
                None
            }
        }
    }

    /// Judges a temp that lacks only the proof that no process uses it, as if it had the proof. Returns it if the
    /// verdict is to remove it: then the protocol makes the proof right afterwards, so this look skips it. Otherwise, and if
    /// any call fails, the caller looks at the temp in full.
    fn judge_unproven(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        context: EvidenceContext<'_>,
    ) -> Option<Box<JudgedTemp>> {
        let policy = self.policy();
        let looked = item.looked.take();
        let properties = dir.properties();
        let has_protocol = UseChecker::HOLDS_LEASES
            && policy.open == Open::Keep
            && !policy.is_dry_run()
            && properties.lease_coverage == LeaseCoverage::OpensAndMaps
            && policy.is_temp(self.dir_context.below, &item.name);
        let temp = item.temp.as_ref();
        let temp = temp.filter(|temp| has_protocol && temp.was_unused())?;
        let observation = match looked {
            Some(looked) => *looked,
            None => dir.observe(&item.name).ok()??,
        };
        let fingerprint = observation.fingerprint;
        let parsed = policy.names.parse(&item.name);
        let lag = properties.dates.lag(&fingerprint);
        let grace = policy.grace_of(&parsed, fingerprint.size == 0, lag);
        // Another name of the file may be due as well, and the file would be found in use: by this process. The extended
        // attributes of an empty file are only read once it is open.
        let is_candidate = fingerprint.links == 1
            && fingerprint.size > 0
            && (context.our_uid == 0 || fingerprint.uid == context.our_uid)
            && temp.lacks_only_proof(&fingerprint, clock_reading.now.mono, grace);
        if !is_candidate
            || !self
                .siblings(dir)
                .ok()?
                .companions_of(&item.name)
                .is_empty()
        {
            return None;
        }
        let look = Look {
            began: clock_reading.now,
            ended: clock_reading.now,
            last_jump: clock_reading.last_jump(),
            fingerprint,
            lag,
            use_state: UseState::Unused,
        };
        let temp_info = enter_look(policy, item, parsed, &look, grace)?;
        let seen = SeenFile {
            observation,
            use_state: UseState::Unused,
            checked: None,
            proof: Proof::ByProtocol,
        };
        let judged = self.judge(dir, item, seen, temp_info, clock_reading, context);
        judged.ok()?.filter(|judged| judged.is_left_to_protocol())
    }

    /// Looks at one temp, and updates its tracking state. Returns the file and its times if its grace is over.
    fn track(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<Option<(SeenFile, TempInfo)>> {
        let policy = self.policy();
        // The callback accepts names that match any rule. A name that does not match this rule is not a temp of this
        // root.
        let is_temp = policy.is_temp(self.dir_context.below, &item.name);
        let shapes = &self.engine.shapes;
        let by_shape = !is_temp && shapes.appeared(dir, &item.name).is_some();
        if !is_temp && !by_shape {
            item.temp = None;
        }
        let Some(temp) = item.temp.as_mut() else {
            return Ok(None);
        };
        let parsed = policy.names.parse(&item.name);
        // Only a look shows whether the file is empty. Until then the shorter grace applies.
        let grace = |is_empty| policy.grace_of(&parsed, is_empty, Duration::ZERO);
        let now = clock_reading.now;
        if temp.postpone_first_look(grace(true).min(grace(false)), now.mono) {
            return Ok(None);
        }
        let look = match self.round {
            Round::First { .. } => look_at_listed,
            Round::Watch | Round::Second => look_at,
        };
        let seen = match look(dir, &item.name, policy, self.use_checker, our_uid)? {
            LookResult::File(seen) => seen,
            LookResult::Missing => {
                self.settle(item);
                return Ok(None);
            }
            LookResult::NotATemp => {
                item.temp = None;
                return Ok(None);
            }
        };
        let ended = clock_reading.again();
        let fingerprint = seen.observation.fingerprint;
        if by_shape && !shapes.takes(dir, &policy.names, &item.name, &fingerprint)? {
            item.temp = None;
            return Ok(None);
        }
        let lag = dir.properties().dates.lag(&fingerprint);
        let grace = policy.grace_of(&parsed, fingerprint.size == 0, lag);
        if temp.postpone_first_look(grace, now.mono) {
            return Ok(None);
        }
        if let Some(pid) = parsed.pid {
            // For messages: this process may have ended by the time the temp is judged.
            self.engine.writers.learn(pid, fingerprint.uid);
        }
        let look = Look {
            began: now,
            ended: ended.now,
            last_jump: ended.last_jump(),
            fingerprint,
            lag,
            use_state: seen.use_state,
        };
        let temp_info = enter_look(policy, item, parsed, &look, grace);
        item.looked =
            (self.round == Round::First { remembers: true }).then(|| Box::new(seen.observation));
        Ok(temp_info.map(|temp_info| {
            (
                seen,
                TempInfo {
                    by_shape,
                    ..temp_info
                },
            )
        }))
    }

    /// Looks at the companions of a temp that a scan has found, at its own first look. So both are ready at the same
    /// time. The companions of a temp whose creation was seen are looked at once it is ready itself.
    fn look_at_found_set(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<()> {
        let temp = item.temp.as_mut();
        let Some(temp) = temp.filter(|temp| temp.seen().is_some()) else {
            return Ok(());
        };
        if temp.origin() == Origin::Created {
            return Ok(());
        }
        let names = self.siblings(dir)?.companions_of(&item.name);
        let context = self.set_context(dir, our_uid);
        if names.is_empty() || sets::reserved(context, &item.name, &names).is_some() {
            return Ok(());
        }
        let lag = temp_lag(dir);
        let parsed = self.policy().names.parse(&item.name);
        let main = MainLook {
            name: &item.name,
            clock_reading,
            grace: self.policy().grace_of(&parsed, false, lag),
            origin: temp.origin(),
        };
        if let SetState::Wait(at) = self.engine.sets.look(context, main, &names)? {
            temp.wait_until(at);
        }
        Ok(())
    }

    fn set_context<'d>(&self, dir: &'d Dir, our_uid: u32) -> SetContext<'d>
    where
        'a: 'd,
    {
        SetContext {
            dir,
            below: self.dir_context.below,
            policy: self.policy(),
            use_checker: self.use_checker,
            our_uid,
        }
    }

    /// Looks at the companions of a temp whose own grace is over. Returns `None` if the temp is to be looked at again
    /// later.
    fn look_at_set(
        &mut self,
        dir: &Dir,
        item: &mut PassItem,
        temp_info: &mut TempInfo,
        clock_reading: ClockReading,
        our_uid: u32,
    ) -> io::Result<Option<(Vec<SeenMember>, Option<Reason>)>> {
        let names = self.siblings(dir)?.companions_of(&item.name);
        let context = self.set_context(dir, our_uid);
        if temp_info.reserved.is_none() {
            temp_info.reserved = sets::reserved(context, &item.name, &names);
        }
        let Some(temp) = item.temp.as_mut().filter(|_| temp_info.reserved.is_none()) else {
            return Ok(Some((Vec::new(), None)));
        };
        let now = clock_reading.now;
        // With its companions an empty temp has content.
        if !names.is_empty() {
            let lag = temp_lag(dir);
            let grace = self.policy().grace_of(&temp_info.parsed, false, lag);
            temp_info.grace = grace.max(temp_info.grace);
        }
        let main = MainLook {
            name: &item.name,
            clock_reading,
            grace: temp_info.grace,
            origin: Origin::FoundWithHalfCredit,
        };
        let missing = temp_info.grace.saturating_sub(temp_info.quiet);
        Ok(match self.engine.sets.look(context, main, &names)? {
            SetState::Single => Some((Vec::new(), None)),
            SetState::Changed => {
                temp.reset(now.mono, temp_info.grace);
                None
            }
            SetState::Wait(at) => {
                temp.wait_until(at.max(now.mono.after(missing)));
                None
            }
            SetState::Ready(_) | SetState::Kept(_) if !missing.is_zero() => {
                temp.wait_until(now.mono.after(missing));
                None
            }
            SetState::Kept(reason) => Some((Vec::new(), Some(reason))),
            SetState::Ready(members) => {
                temp_info.role = Role::Main {
                    companion_bytes: sets::bytes_of(&members),
                };
                Some((members, None))
            }
        })
    }

    /// Gathers the evidence about a temp, and judges it. Returns `None` if the temp is to be looked at again later.
    fn judge(
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

    /// Separates the temps that will be superseded once the others are moved to the quarantine. They get the verdict
    /// that they will have then.
    fn split_superseded<'i>(&self, removals: Vec<Removal<'i>>) -> SplitRemovals<'i> {
        let policy = self.policy();
        let (mut first, groups) = by_group(policy, removals);
        let mut superseded = Vec::new();
        if groups.is_empty() {
            return SplitRemovals { first, superseded };
        }
        self.stored.read(self.dir_context);
        for (key, members) in groups {
            let temps: Vec<GroupTemp<'_>> = members.iter().map(Removal::group_temp).collect();
            let predicted = self.stored.predict(&key, &temps).superseded;
            let (mut removed, mut moved) = (Vec::new(), Vec::new());
            for (mut removal, is_superseded) in members.into_iter().zip(predicted) {
                removal.set_superseded(is_superseded, policy);
                match removal.temp.judged.candidate.verdict {
                    Verdict::Reap => removed.push(removal),
                    // Also one that the action of the rule moves although it is superseded.
                    _ => {
                        removal.set_superseded(false, policy);
                        moved.push(removal);
                    }
                }
            }
            if policy.is_dry_run() {
                let moved: Vec<GroupTemp<'_>> = moved.iter().map(Removal::group_temp).collect();
                self.stored.preview(key, &moved);
            }
            let frees_space = allocated(&removed) > allocated(&moved);
            for removal in &mut moved {
                removal.temp.judged.candidate.frees_space = frees_space;
            }
            first.extend(moved);
            superseded.extend(removed);
        }
        SplitRemovals { first, superseded }
    }

    /// Finds the copies in the quarantine that supersede these temps. A temp without such copies is to be moved.
    fn with_better_copies<'i>(&self, removals: Vec<Removal<'i>>) -> Vec<Removal<'i>> {
        let policy = self.policy();
        let (mut all, groups) = by_group(policy, removals);
        for (key, mut members) in groups {
            let temps: Vec<GroupTemp<'_>> = members.iter().map(Removal::group_temp).collect();
            let (stored, dir_context) = (&self.stored, self.dir_context);
            stored.read(dir_context);
            let better = stored.supersede(&key, &temps, dir_context, self.use_checker);
            for (removal, better) in members.iter_mut().zip(better) {
                let newest = better.as_ref().and_then(BetterCopies::newest);
                removal.disposed.superseded_by =
                    newest.map(|path| self.dir_context.root.path.join(path));
                removal.set_superseded(better.is_some(), policy);
                removal.temp.judged.candidate.better = better;
            }
            all.extend(members);
        }
        all
    }

    /// Returns the siblings of the temps of this pass.
    fn siblings(&mut self, dir: &Dir) -> io::Result<Arc<Siblings>> {
        let siblings = match &self.siblings {
            Some(siblings) => Arc::clone(siblings),
            None => {
                let listings = &self.engine.listings;
                listings.siblings_of(dir, self.policy(), self.due)?
            }
        };
        Ok(Arc::clone(self.siblings.insert(siblings)))
    }

    /// Reports what a pass would do if it were not a dry run.
    fn report_dry_run(&mut self, removals: Vec<Removal<'_>>) {
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

    /// Journals the intents, removes the temps, and reports the outcomes. Returns the temps that were kept.
    fn dispose<'i>(
        &mut self,
        dir: &Dir,
        removals: Vec<Removal<'i>>,
        context: EvidenceContext<'_>,
    ) -> Vec<KeptTemp<'i>> {
        self.make_quarantine_space(&removals);
        let members: Vec<Vec<Disposed>> = removals
            .iter()
            .map(|removal| self.disposed_companions(&removal.temp.judged, &removal.disposed))
            .collect();
        let now = clock::wall().into();
        let intents: Vec<Intent<'_>> = removals
            .iter()
            .zip(&members)
            .flat_map(|(removal, members)| intents(removal, members))
            .collect();
        let lines = intents.iter().map(|intent| intent.line(now));
        rule!(
            "intents-are-written-first",
            self.engine.journal.write(LineKind::Intent, lines),
            without: (),
        );
        drop(intents);
        drop(members);
        let batch_context = BatchContext {
            root: &self.dir_context.root.path,
            id: self.dir_context.id,
            dir,
            use_checker: self.use_checker,
            context,
        };
        let (mut events, mut kept) = (Vec::with_capacity(removals.len()), Vec::new());
        let mut moved: HashMap<String, Vec<OsString>> = HashMap::new();
        for (removal, outcome) in self.engine.reaper.reap(batch_context, removals) {
            let Removal { mut temp, disposed } = removal;
            let of_companions = self.companion_events(&mut temp.judged, &disposed);
            let event = match outcome {
                Outcome::Reaped { freed } => Event::Reaped(Disposed { freed, ..disposed }),
                Outcome::Quarantined { id, folder } => {
                    let name = temp.item.name.clone();
                    moved.entry(folder).or_default().push(name);
                    Event::Quarantined {
                        disposed,
                        id: Some(id),
                        reason: temp.judged.candidate.verdict.reason(),
                    }
                }
                Outcome::Settled => {
                    self.engine.sets.forget(dir.id(), &temp.item.name);
                    self.settle(temp.item);
                    // Another process has removed the main file when its companions were about to be moved.
                    events.extend(of_companions);
                    continue;
                }
                Outcome::Kept(reason) => {
                    kept.extend(self.put_back(temp, reason));
                    continue;
                }
                Outcome::Failed { step, error } => {
                    self.report_failure(disposed.subject, step.action(), &error);
                    self.retry_later(temp.item);
                    // The event of its claim may not have been received yet.
                    if let Some(tracked) = &mut temp.item.temp {
                        tracked.set_claim_pending();
                    }
                    continue;
                }
            };
            temp.item.temp = None;
            self.engine.sets.forget(dir.id(), &temp.item.name);
            events.push(event);
            events.extend(of_companions);
        }
        self.stored.add_moved(self.dir_context, moved);
        let now: TimeText = clock::wall().into();
        let lines = events.iter().map(|event| json::event(event, now));
        self.engine.journal.write(LineKind::Outcome, lines);
        events.into_iter().for_each(&mut *self.emit);
        kept
    }

    /// Updates the tracking state of a temp that the protocol kept or put back for `reason`. Returns the temp if that is
    /// to be reported.
    fn put_back<'i>(&self, temp: ReadyTemp<'i>, reason: Reason) -> Option<KeptTemp<'i>> {
        let is_first_proof = temp.judged.candidate.looked.is_some();
        if let Some(tracked) = &mut temp.item.temp {
            if reason == Reason::Changed {
                // The file was used by another process in the meantime, so its grace starts again.
                tracked.reset(clock::mono(), temp.judged.grace());
                // The sweep reports it as young at its end: it may have changed long before the protocol.
                if is_first_proof && self.round == Round::Second {
                    return None;
                }
            } else if rule!("late-holder-is-noted", is_held(reason))
                // A look that cannot determine the holders counts as one that saw a holder.
                || (is_first_proof && reason == Reason::CannotTell)
            {
                tracked.mark_held();
            }
        }
        Some(KeptTemp { temp, reason })
    }

    /// Returns what is reported about the companions of a temp.
    fn disposed_companions(&self, temp: &JudgedTemp, main: &Disposed) -> Vec<Disposed> {
        let companions = temp.candidate.companions.iter().zip(&temp.companions);
        let disposed = |(companion, evidence): (&Companion, &Evidence)| {
            let (temp_info, size) = (&companion.temp_info, evidence.observation.size());
            Disposed {
                subject: self.dir_context.subject(&temp_info.name, Some(size)),
                quiet: temp_info.quiet,
                ..main.clone()
            }
        };
        companions.map(disposed).collect()
    }

    /// Returns the events about the companions of a temp that went through the protocol.
    fn companion_events(&self, temp: &mut JudgedTemp, main: &Disposed) -> Vec<Event> {
        let all = self.disposed_companions(temp, main);
        let reason = temp.candidate.verdict.reason();
        let results = temp.candidate.companions.iter_mut();
        let results = results.map(|companion| std::mem::take(&mut companion.result));
        let event = |(disposed, result)| match result {
            CompanionResult::Left => None,
            CompanionResult::Reaped(freed) => Some(Event::Reaped(Disposed { freed, ..disposed })),
            CompanionResult::Quarantined(id) => Some(Event::Quarantined {
                disposed,
                id: Some(id),
                reason,
            }),
        };
        all.into_iter().zip(results).filter_map(event).collect()
    }

    /// Frees space in the quarantine, as far as its limits permit, if the temps to be moved do not fit.
    fn make_quarantine_space(&mut self, removals: &[Removal<'_>]) {
        let moves = removals
            .iter()
            .map(|removal| &*removal.temp.judged)
            .filter(|temp| matches!(temp.candidate.verdict, Verdict::Quarantine(_)));
        let bytes = moves.map(JudgedTemp::allocated);
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
            flushed_targets: self.engine.reaper.flushed_targets(),
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
    fn report_kept(&mut self, dir: &Dir, kept: Vec<KeptTemp<'_>>) {
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
            .filter(|(one, _)| is_held(one.reason))
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

    fn settle(&mut self, item: &mut PassItem) {
        item.temp = None;
        if self.engine.verbose {
            let subject = self.dir_context.subject(&item.name, None);
            let how = Settlement::Removed;
            (self.emit)(Event::Settled { subject, how });
        }
    }

    /// Schedules a later look at the temp.
    fn retry_later(&self, item: &mut PassItem) {
        if let Some(temp) = item.temp.as_mut() {
            temp.retry_later(self.policy().grace.shortest(), clock::mono());
        }
    }

    fn report_failure(&mut self, subject: Subject, action: &str, error: &io::Error) {
        (self.emit)(Event::Failed {
            subject,
            error: format!("cannot {action}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn disposed(&self, temp: &JudgedTemp) -> Disposed {
        let temp_info = &temp.candidate.temp_info;
        let (size, pid) = (temp.observation().size(), temp_info.parsed.pid);
        let target = evidence::target_name(&temp_info.parsed, temp.target);
        let process = self.engine.writers.process_of(temp.file(), pid);
        Disposed {
            subject: self.dir_context.subject(&temp_info.name, Some(size)),
            quiet: temp_info.quiet,
            target: target.map(|name| self.dir_context.path(name)),
            target_state: temp.evidence.target,
            writer_pid: pid,
            writer: process.as_ref().and_then(|process| process.name.clone()),
            process,
            freed: FileSize::default(),
            superseded: false,
            superseded_by: None,
            dry_run: false,
        }
    }
}

/// Enters a look into the tracking state of a temp. Returns the temp with its times if its grace is over.
fn enter_look(
    policy: &Policy,
    item: &mut PassItem,
    parsed: ParsedName,
    look: &Look,
    grace: Duration,
) -> Option<TempInfo> {
    let temp = item.temp.as_mut()?;
    let Next::Judge(quiet) = temp.look(look, grace, policy.open) else {
        return None;
    };
    Some(TempInfo {
        name: item.name.clone(),
        reserved: match temp.was_target() {
            true => Some(Reserved::WasTarget),
            false => policy.names.reserved(item.name.as_bytes()),
        },
        parsed,
        expected: Some(quiet.fingerprint),
        quiet: quiet.quiet,
        unused: quiet.unused,
        grace,
        written: temp.written_by(look),
        closed: temp.is_closed(),
        by_shape: false,
        role: Role::Single,
    })
}

/// Returns the longest time by which a change of a file in `dir` may be later than its dates show.
fn temp_lag(dir: &Dir) -> Duration {
    dir.properties().dates.usual_lag()
}

/// Returns the files whose use keeps the temp for `reason`: the temp and its companions, or its guard file.
fn files_in_use(judged: &JudgedTemp, reason: Reason) -> Vec<FileId> {
    match guard_for(&judged.evidence, reason).and_then(|guard| guard.seen) {
        Some(seen) => vec![FileId::from(&seen)],
        None => judged.files().collect(),
    }
}

fn is_held(reason: Reason) -> bool {
    matches!(reason, Reason::InUse | Reason::Locked)
}

/// On file systems where a lease does not prove that a file is unmapped, makes one process scan for all of `ready`, and
/// judges them by its result.
fn find_mappings(dir: &Dir, policy: &Policy, ready: &mut [ReadyTemp<'_>]) {
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

/// Returns the intents to remove a temp and its companions.
fn intents<'r>(
    removal: &'r Removal<'_>,
    companions: &'r [Disposed],
) -> impl Iterator<Item = Intent<'r>> {
    let temp = &*removal.temp.judged;
    let main = Intent {
        temp,
        disposed: &removal.disposed,
        temp_info: &temp.candidate.temp_info,
        seen: temp.observation(),
    };
    let members = temp.candidate.companions.iter().zip(&temp.companions);
    let companion =
        |(disposed, (companion, evidence)): (&'r Disposed, (&'r Companion, &'r Evidence))| Intent {
            temp,
            disposed,
            temp_info: &companion.temp_info,
            seen: &evidence.observation,
        };
    let companions = companions.iter().zip(members).map(companion);
    std::iter::once(main).chain(companions)
}

/// The intent to remove a temp or one of its companions.
struct Intent<'r> {
    /// The temp.
    temp: &'r JudgedTemp,
    /// What is reported about the file.
    disposed: &'r Disposed,
    temp_info: &'r TempInfo,
    seen: &'r Observation,
}

impl<'r> Intent<'r> {
    fn line(&self, now: TimeText) -> IntentLine<'r> {
        let Intent {
            temp,
            disposed,
            temp_info,
            seen,
        } = *self;
        let (file, candidate) = (&seen.fingerprint, &temp.candidate);
        IntentLine {
            time: now,
            file: FileFields {
                path: Some(disposed.subject.path.as_path().into()),
                root: Some(disposed.subject.root.as_path().into()),
                bytes: Some(file.size),
                disk_bytes: Some(seen.allocated),
            },
            verdict: candidate.verdict.as_str(),
            reason: candidate.verdict.reason().map(Reason::as_str),
            grammar: temp_info.parsed.grammar.as_deref(),
            quiet_ms: json::ms(temp_info.quiet),
            grace_ms: json::ms(temp_info.grace),
            target: disposed.target.as_deref().map(Into::into),
            writer_pid: temp_info.parsed.pid,
            dev: file.dev,
            ino: file.ino,
            uid: file.uid,
            mode: seen.mode,
            links: file.links,
            mtime: file.mtime.into(),
            ctime: file.ctime.into(),
        }
    }
}
