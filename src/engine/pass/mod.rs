//! Processes the due temps of one directory: look, track, judge, reap, report.
//!
//! The workers and `sweep` use this same code, dry runs included.

mod disposal;
mod judged;
mod looks;
mod report;
mod superseded;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use self::judged::find_mappings;
use self::superseded::SplitRemovals;
use crate::core::event::{Disposed, Event, Settlement, Subject};
use crate::core::judge::{Evidence, Reason, Verdict, judge_set};
use crate::core::observation::Observation;
use crate::core::policy::Policy;
use crate::core::time::ClockJumpDetector;
use crate::core::tracker::Tracked;
use crate::engine::clock_reading::ClockReading;
use crate::engine::context::{DirContext, Engine};
use crate::engine::groups::StoredCopies;
use crate::engine::recover::{RecoveryOutcome, recover};
use crate::evidence::guard::GuardChecks;
use crate::evidence::siblings::Siblings;
use crate::evidence::{self, EvidenceContext, FileId, SharedTargets, UseChecker};
use crate::fs::dir::{Dir, RootError};
use crate::reap::{Candidate, quarantine};
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
}
