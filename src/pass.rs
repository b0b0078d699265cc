//! One pass over what is due in one directory: look, track, judge, reap, report.
//!
//! The timer thread and `sweep` go through this same door, dry runs included.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::decide::judge::{Evidence, LeaseCoverage, Reason, Target, Verdict, judge};
use crate::decide::observation::{FileSize, Kind, Observation, UseState};
use crate::decide::policy::Policy;
use crate::decide::reserved::Reserved;
use crate::decide::retention::{NeededSpace, Trust};
use crate::decide::time::{ClockJumpDetector, Mono, Now};
use crate::decide::tracker::{Look, Next, Tracked};
use crate::event::{Details, Disposed, Event, How, Subject};
use crate::evidence::container_pids::ContainerPids;
use crate::evidence::locks::Locks;
use crate::evidence::restore_marks::RestoreMarks;
use crate::evidence::siblings::{Listings, Siblings};
use crate::evidence::writer_names::WriterNames;
use crate::evidence::{
    self, EvidenceContext, FileId, LeaseThread, LeasedFile, ProcessScan, TempInfo,
};
use crate::journal::{Journal, Line};
use crate::json;
use crate::look::{self, Dir, RootError, RootId};
use crate::reap::quarantine::LimitContext;
use crate::reap::{self, BatchContext, Candidate, Outcome, Reaper, Recovered, quarantine};
use crate::root::Root;

/// What every pass needs.
#[derive(Debug)]
pub struct Engine {
    /// Removes.
    pub reaper: Reaper,
    /// Writes down.
    pub journal: Journal,
    /// Knows what was restored.
    pub marks: RestoreMarks,
    /// Knows who wrote what.
    pub writers: WriterNames,
    /// Knows who goes by which pid in a container.
    pub nested: ContainerPids,
    /// Knows which files are seen to be locked.
    pub locks: Locks,
    /// Knows what lies beside temps.
    pub listings: Listings,
    /// Whether settled temps are reported.
    pub verbose: bool,
}

/// The directory that a pass is over.
#[derive(Clone, Copy, Debug)]
pub struct DirContext<'a> {
    /// Its root.
    pub root: &'a Root,
    /// What the root was when it began to be watched.
    pub id: Option<RootId>,
    /// The way from the root to it.
    pub below: &'a Path,
}

/// One temp that is due.
#[derive(Debug)]
pub struct PassItem {
    /// Its base name.
    pub name: OsString,
    /// What is known of it. `None` after a pass: it is to be forgotten.
    pub temp: Option<Tracked>,
}

/// A pass in progress.
pub struct Pass<'a> {
    engine: &'a Engine,
    dir_context: DirContext<'a>,
    lease_thread: &'a LeaseThread,
    emit: &'a mut dyn FnMut(Event),
    /// The directory's path, for people.
    folder: PathBuf,
    /// The number of temps that are due.
    due: usize,
    /// Siblings of the temps; read when the first of them is to be judged.
    siblings: Option<Arc<Siblings>>,
}

/// A temp that it is time to judge.
struct ReadyTemp {
    /// Its place among what is due.
    index: usize,
    temp_info: TempInfo,
    evidence: Evidence,
    /// Which of the names that it may have been meant for is its target.
    target: Option<usize>,
    /// The file, nothing held of it: for the protocol, which would open it again.
    opened: Option<LeasedFile>,
}

/// A temp that is to go: its place among what is due, what was seen of it, and what is said of it.
struct Removal {
    index: usize,
    observation: Observation,
    disposed: Disposed,
}

/// How many threads may have passes of their own at once: two a core, because every batch waits for a
/// while, and each may have three files open for each temp of it.
#[must_use]
pub fn max_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (2 * cores)
        .min(MOST_WORKERS)
        .min(limit / (4 * reap::BATCH))
        .max(1)
}

/// More would only wait for the same disk.
const MOST_WORKERS: usize = 8;

/// What a look at a name came to.
enum LookResult {
    /// Nothing is there.
    Nothing,
    /// Something that is never a temp.
    NoTemp,
    /// A file, who holds it, and the open file where one was needed to ask.
    File(Observation, UseState, Option<LeasedFile>),
}

impl<'a> Pass<'a> {
    /// A pass over `dir_context`. `tell` is called with what happens, in order.
    pub fn new(
        engine: &'a Engine,
        dir_context: DirContext<'a>,
        lease_thread: &'a LeaseThread,
        tell: &'a mut dyn FnMut(Event),
    ) -> Pass<'a> {
        Pass {
            engine,
            dir_context,
            lease_thread,
            emit: tell,
            folder: dir_context.root.path.join(dir_context.below),
            due: 0,
            siblings: None,
        }
    }

    /// Looks at everything in `due`, and deals with what it is time for.
    pub fn run(&mut self, clocks: &mut ClockJumpDetector, due: &mut [PassItem]) {
        let (dir, quarantine) = match self.open() {
            Ok(opened) => opened,
            Err(error) => return self.cannot_open(&error, due),
        };
        self.due = due.len();
        let marks = self.engine.marks.read();
        let no_siblings = Siblings::default();
        let context = EvidenceContext {
            policy: &self.dir_context.root.policy,
            our_uid: us(),
            marks: &marks,
            nested: &self.engine.nested,
            locks: &self.engine.locks,
            siblings: &no_siblings,
            since: clock::mono(),
            quarantine,
            process_scan: None,
        };
        let mut ready = Vec::new();
        for (index, one) in due.iter_mut().enumerate() {
            match (self.put_back_deferred(&dir, &one.name), &mut one.temp) {
                (None, _) => {}
                (Some(Returned::Kept(reason)), Some(temp)) => {
                    let grace = self.dir_context.root.policy.grace.shortest();
                    _ = temp.keep(reason, grace, clock::mono());
                    continue;
                }
                _ => {
                    self.put_aside(one);
                    continue;
                }
            }
            if let Some(temp) = &mut one.temp {
                temp.clear_claim_pending();
            }
            let now = clock::now();
            let last_jump = clocks.read(now);
            match self.look(&dir, (index, one), now, last_jump, context) {
                Ok(None) => {}
                Ok(Some(mut one)) => {
                    // No more files are open than the protocol has open anyway.
                    one.opened = one
                        .opened
                        .filter(|_| ready.len() < self.engine.reaper.batch());
                    ready.push(one);
                }
                Err(error) => {
                    let subject = self.subject(&one.name, None);
                    self.fail(subject, "look at it", &error);
                    self.put_aside(one);
                }
            }
        }
        find_mappings(&dir, &mut ready);
        let mut candidates = Vec::new();
        let mut kept = Vec::new();
        for one in ready {
            let observation = one.evidence.observation;
            match judge(&one.evidence, &self.dir_context.root.policy) {
                Verdict::Keep(reason) => kept.push((one.index, observation, reason)),
                verdict => {
                    let removal = Removal {
                        index: one.index,
                        observation,
                        disposed: self.disposed(&one),
                    };
                    let (temp_info, opened) = (one.temp_info, one.opened);
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
            self.report(due, candidates);
        } else {
            let siblings = self.siblings.clone().unwrap_or_default();
            let context = EvidenceContext {
                siblings: &siblings,
                ..context
            };
            self.dispose(&dir, due, candidates, &mut kept, context);
        }
        self.keep(&dir, due, kept);
    }

    /// Claims of `name` that could not be put back get it back now, before it is looked for. `None`: none is
    /// left.
    ///
    /// Only when it is time for that name: one that cannot be put back for long is tried as seldom as the temp.
    fn put_back_deferred(&mut self, dir: &Dir, name: &OsStr) -> Option<Returned> {
        let claims = self.engine.reaper.claims();
        let mut left = None;
        for claim in claims.take_deferred(dir.id(), name) {
            let returned = recover(
                self.engine,
                self.dir_context,
                self.lease_thread,
                &claim,
                self.emit,
            );
            if !matches!(dir.observe(&claim), Ok(None)) {
                claims.defer(dir.id(), name, &claim);
                left = Some(returned);
            }
        }
        left
    }

    /// The directory itself cannot be worked in.
    fn cannot_open(&mut self, error: &RootError, due: &mut [PassItem]) {
        let gone = error.is_gone();
        for one in due.iter_mut() {
            if gone {
                self.settle(one);
            } else {
                self.put_aside(one);
            }
        }
        if let (false, RootError::Io(error)) = (gone, error) {
            let path = self.dir_context.root.path.join(self.dir_context.below);
            let root = self.dir_context.root.path.clone();
            let subject = Subject {
                path,
                root,
                size: None,
            };
            self.fail(subject, "open this directory", error);
        }
    }

    /// Opens the directory, and says whether its root has a quarantine, or could have.
    fn open(&self) -> Result<(Dir, bool), RootError> {
        let root = Dir::open_root(&self.dir_context.root.path, self.dir_context.id)?;
        let quarantine = quarantine::is_possible(&root);
        let dir = match self.dir_context.below.as_os_str().is_empty() {
            true => root,
            false => root.open_within(self.dir_context.below)?,
        };
        Ok((dir, quarantine))
    }

    /// Looks at one temp. `Some` if it is time to judge it: with the evidence.
    fn look(
        &mut self,
        dir: &Dir,
        (index, one): (usize, &mut PassItem),
        now: Now,
        last_jump: Option<Mono>,
        context: EvidenceContext<'_>,
    ) -> io::Result<Option<ReadyTemp>> {
        let policy = &self.dir_context.root.policy;
        // The callback takes what any rule takes; what this one does not is not its temp.
        if !policy.takes(self.dir_context.below, &one.name) {
            one.temp = None;
            return Ok(None);
        }
        let parsed = policy.names.parse(&one.name);
        let Some(temp) = one.temp.as_mut() else {
            return Ok(None);
        };
        // Only a look tells whether it is empty. Until then the shorter grace holds.
        let grace = |is_empty| policy.grace_of(&parsed, is_empty, Duration::ZERO);
        if temp.put_off(grace(true).min(grace(false)), now.mono) {
            return Ok(None);
        }
        let (observation, hold, mut leased) =
            match see((dir, &one.name), policy, self.lease_thread, context.our_uid)? {
                LookResult::File(observation, hold, leased) => (observation, hold, leased),
                LookResult::Nothing => {
                    self.settle(one);
                    return Ok(None);
                }
                LookResult::NoTemp => {
                    one.temp = None;
                    return Ok(None);
                }
            };
        let file = &observation.fingerprint;
        let lag = dir.place().dates.lag(file);
        let grace = policy.grace_of(&parsed, file.size == 0, lag);
        if temp.put_off(grace, now.mono) {
            return Ok(None);
        }
        if let Some(pid) = parsed.pid {
            // For people; it may be dead by the time that this is judged.
            self.engine.writers.learn(pid, observation.fingerprint.uid);
        }
        let look = Look {
            now,
            last_jump,
            fingerprint: observation.fingerprint,
            lag,
            hold,
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
            name: one.name.clone(),
            reserved: match temp.was_target() {
                true => Some(Reserved::WasTarget),
                false => policy.names.reserved(one.name.as_bytes()),
            },
            parsed: siblings.parsed(parsed),
            expected: Some(quiet.fingerprint),
            quiet: quiet.quiet,
            unused: quiet.unused,
            grace,
            written: temp.written_by(&look),
            closed: temp.is_closed(),
        };
        let answer = (leased.as_ref(), hold);
        let (evidence, found) = evidence::gather(dir, &temp_info, observation, answer, context)?;
        // The next look may come after the removal of that other temp.
        let is_target = matches!(evidence.reserved, Some(Reserved::TargetOf(_)));
        if rule!("target-until-watch-ends", is_target) {
            temp.mark_target();
        }
        if let Some(leased) = &mut leased {
            leased.release();
        }
        // Another name of it may be due as well, and would be found held: by us.
        let opened = leased.filter(|_| observation.fingerprint.links == 1);
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
                self.engine.listings.of(dir, policy, self.due)?
            }
        };
        Ok(Arc::clone(self.siblings.insert(siblings)))
    }

    /// The dry run: says what would be done.
    fn report(&mut self, due: &mut [PassItem], candidates: Vec<(Removal, Candidate)>) {
        for (removal, candidate) in candidates {
            let Some(one) = due.get_mut(removal.index) else {
                continue;
            };
            let grace = candidate.temp_info.grace;
            let news = one
                .temp
                .as_mut()
                .map(|temp| temp.put_aside(grace, clock::mono()).news);
            if news != Some(true) {
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

    /// Journals, reaps, and says what came of it.
    fn dispose(
        &mut self,
        dir: &Dir,
        due: &mut [PassItem],
        candidates: Vec<(Removal, Candidate)>,
        kept: &mut Vec<(usize, Observation, Reason)>,
        context: EvidenceContext<'_>,
    ) {
        self.make_room(&candidates);
        let intents: Vec<json::Object> = candidates.iter().map(intent).collect();
        let (removal, mut batch): (Vec<Removal>, Vec<Candidate>) = candidates.into_iter().unzip();
        rule!(
            "intents-are-written-first",
            self.engine.journal.write(Line::Intent, &intents),
            without: (),
        );
        let batch_context = BatchContext {
            root: &self.dir_context.root.path,
            id: self.dir_context.id,
            dir,
            context,
        };
        let outcomes = self
            .engine
            .reaper
            .reap(batch_context, self.lease_thread, &mut batch);
        let mut written = Vec::new();
        let mut told = Vec::new();
        for ((removal, candidate), outcome) in removal.into_iter().zip(batch).zip(outcomes) {
            let Removal {
                index,
                observation,
                disposed,
            } = removal;
            let Some(one) = due.get_mut(index) else {
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
                    self.settle(one);
                    continue;
                }
                Outcome::Kept(Reason::Changed) => {
                    // What was touched meanwhile is somebody's: its grace starts again.
                    if let Some(temp) = one.temp.as_mut() {
                        temp.start_over(clock::mono(), grace);
                    }
                    kept.push((index, observation, Reason::Changed));
                    continue;
                }
                Outcome::Kept(reason) => {
                    let is_held = matches!(reason, Reason::InUse | Reason::Locked);
                    if rule!("late-holder-is-noted", is_held)
                        && let Some(temp) = &mut one.temp
                    {
                        temp.mark_held();
                    }
                    kept.push((index, observation, reason));
                    continue;
                }
                Outcome::Failed { step, error } => {
                    let subject = disposed.subject;
                    self.fail(subject, &format!("remove it (step {step:?})"), &error);
                    self.put_aside(one);
                    // The event of its claim may still be on its way.
                    if let Some(temp) = &mut one.temp {
                        temp.set_claim_pending();
                    }
                    continue;
                }
            };
            one.temp = None;
            written.push(json::event(&event, clock::wall()));
            told.push(event);
        }
        self.engine.journal.write(Line::Outcome, &written);
        told.into_iter().for_each(&mut *self.emit);
    }

    /// Makes room in the quarantine, as far as its limits permit, if the temps to be moved have none.
    fn make_room(&mut self, candidates: &[(Removal, Candidate)]) {
        let moves = candidates
            .iter()
            .filter(|(_, candidate)| matches!(candidate.verdict, Verdict::Quarantine(_)));
        let bytes = moves.map(|(removal, _)| removal.observation.allocated);
        let wanted = NeededSpace {
            all: bytes.clone().fold(0, u64::saturating_add),
            least: bytes.min().unwrap_or(0),
        };
        let (stock, dir_context) = (self.engine.reaper.usage(), self.dir_context);
        if wanted.all == 0
            || !stock.lacks_room_for(&dir_context.root.path, dir_context.id, wanted.all)
        {
            return;
        }
        let keeping = LimitContext {
            usage: stock,
            journal: &self.engine.journal,
            lease_thread: self.lease_thread,
            // Nothing is dropped for its age here.
            trust: Trust::default(),
            wanted,
        };
        loop {
            let tended = quarantine::enforce_limits(dir_context.root, dir_context.id, keeping);
            tended.events.into_iter().for_each(&mut *self.emit);
            if !tended.has_more {
                return;
            }
        }
    }

    /// Says what stays and why, once per temp and reason.
    fn keep(&mut self, dir: &Dir, due: &mut [PassItem], kept: Vec<(usize, Observation, Reason)>) {
        let policy = &self.dir_context.root.policy;
        let mut news = Vec::new();
        for (index, observation, reason) in kept {
            let Some(one) = due.get_mut(index) else {
                continue;
            };
            let Some(temp) = one.temp.as_mut() else {
                continue;
            };
            let file = &observation.fingerprint;
            let lag = dir.place().dates.lag(file);
            let parsed = policy.names.parse(&one.name);
            let grace = policy.grace_of(&parsed, file.size == 0, lag);
            let answer = temp.keep(reason, grace, clock::mono());
            if answer.news {
                news.push((one.name.clone(), observation, reason, answer));
            }
        }
        // One walk over the processes names the holders of all of them.
        let held = |reason| matches!(reason, Reason::InUse | Reason::Locked);
        let wanted: Vec<FileId> = news
            .iter()
            .filter(|(_, _, reason, _)| held(*reason))
            .map(|(_, observation, _, _)| FileId::from(&observation.fingerprint))
            .collect();
        let process_scan = match wanted.is_empty() {
            true => ProcessScan::default(),
            false => evidence::scan_processes(&wanted, dir.reach()),
        };
        for (name, observation, reason, answer) in news {
            let file = FileId::from(&observation.fingerprint);
            let holders = process_scan.of(file);
            self.engine.writers.learn_holders(file, &holders);
            let subject = self.subject(&name, Some(&observation));
            let details = details(self.engine, policy, dir, &name, &observation, reason);
            (self.emit)(Event::Kept {
                subject,
                reason,
                holders,
                retry: Some(answer.retry),
                again: answer.again,
                details,
            });
        }
    }

    fn settle(&mut self, one: &mut PassItem) {
        one.temp = None;
        if self.engine.verbose {
            let subject = self.subject(&one.name, None);
            let how = How::Removed;
            (self.emit)(Event::Settled { subject, how });
        }
    }

    fn put_aside(&self, one: &mut PassItem) {
        let grace = self.dir_context.root.policy.grace.shortest();
        if let Some(temp) = one.temp.as_mut() {
            temp.put_aside(grace, clock::mono());
        }
    }

    fn fail(&mut self, subject: Subject, doing: &str, error: &io::Error) {
        (self.emit)(Event::Failed {
            subject,
            error: format!("cannot {doing}: {error}"),
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

    fn disposed(&self, one: &ReadyTemp) -> Disposed {
        let (temp_info, seen) = (&one.temp_info, &one.evidence.observation);
        let name = evidence::target_name(&temp_info.parsed, one.target);
        let file = FileId::from(&seen.fingerprint);
        Disposed {
            subject: self.subject(&temp_info.name, Some(seen)),
            quiet: temp_info.quiet,
            target: name.map(|name| self.path(name)),
            target_is: one.evidence.target,
            writer_pid: temp_info.parsed.pid,
            writer: self.engine.writers.of(file, temp_info.parsed.pid),
            freed: FileSize::default(),
            dry_run: false,
        }
    }
}

/// What became of a claim that was to be put in order.
#[derive(Debug)]
pub enum Returned {
    /// It has this name again.
    Back(OsString),
    /// It stays for now, because of this: it is to be tried again.
    Kept(Reason),
    /// It could not be done, which was told: it is to be tried again.
    Failed,
    /// There is nothing to be done, or not any more.
    Done,
}

/// Puts a claim in order that nobody is at work on: a crash left it, or it could not be put back.
pub fn recover(
    engine: &Engine,
    dir_context: DirContext<'_>,
    lease_thread: &LeaseThread,
    claim: &OsStr,
    tell: &mut dyn FnMut(Event),
) -> Returned {
    if engine.reaper.claims().is_in_progress(claim) {
        return Returned::Done;
    }
    let (root, below) = (&dir_context.root.path, dir_context.below);
    let Ok(dir) = Dir::open_below(root, dir_context.id, below) else {
        return Returned::Done;
    };
    let batch_context = BatchContext {
        root,
        id: dir_context.id,
        dir: &dir,
        context: EvidenceContext {
            policy: &dir_context.root.policy,
            our_uid: us(),
            marks: &engine.marks,
            nested: &engine.nested,
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
    match reap::recover(batch_context, lease_thread, claim) {
        Ok(Some(Recovered::PutBack(name))) => {
            log::info!("{name:?} was being removed when orphand ended; it has its name back");
            Returned::Back(name)
        }
        Ok(Some(Recovered::Kept(reason))) => Returned::Kept(reason),
        Ok(Some(Recovered::Quarantined { id, name, size })) => {
            let event = Event::Quarantined {
                disposed: Disposed {
                    subject: subject(&name, Some(size)),
                    quiet: Duration::ZERO,
                    target: None,
                    target_is: Target::Unknown,
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
                .write(Line::Outcome, &[json::event(&event, clock::wall())]);
            tell(event);
            Returned::Done
        }
        Ok(None) => Returned::Done,
        Err(error) => {
            tell(Event::Failed {
                subject: subject(claim, None),
                error: format!("cannot give this claim its name back: {error}"),
                errno: error.raw_os_error(),
            });
            Returned::Failed
        }
    }
}

/// Says that a claim stays, and when it is tried again, if it is.
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
        again: false,
        details: Details::default(),
    }
}

/// Returns what people are told of a temp that is kept for `reason`.
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
            .of(FileId::from(&seen.fingerprint), Some(pid))
    });
    Details {
        file_system: dir.place().file_system.to_string(),
        writer_pid: pid,
        writer,
        is_dataless: seen.dataless,
        quiet: clock::wall().since(seen.fingerprint.newest()),
        grace: {
            let file = &seen.fingerprint;
            policy.grace_of(&parsed, file.size == 0, dir.place().dates.lag(file))
        },
    }
}

/// Where the proof does not see mappings, one walk over all processes is made for all of `ready`.
fn find_mappings(dir: &Dir, ready: &mut [ReadyTemp]) {
    if dir.reach() != LeaseCoverage::OpensOnly || ready.is_empty() {
        return;
    }
    let file = |evidence: &Evidence| FileId::from(&evidence.observation.fingerprint);
    let wanted: Vec<FileId> = ready.iter().map(|one| file(&one.evidence)).collect();
    let process_scan = evidence::scan_processes(&wanted, dir.reach());
    for ReadyTemp { evidence, .. } in ready {
        evidence.mappings_examined = process_scan.proves_unmapped(file(evidence));
    }
}

/// As whom everything is asked. Once for a pass: the kernel itself asks again at each call.
fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Looks at `name`: what it is, and, if it can be a temp of ours, who holds it.
fn see(
    (dir, name): (&Dir, &OsStr),
    policy: &Policy,
    lease_thread: &LeaseThread,
    our_uid: u32,
) -> io::Result<LookResult> {
    let Some(first) = dir.observe(name)? else {
        return Ok(LookResult::Nothing);
    };
    let file = &first.fingerprint;
    if rule!("only-files-are-temps", file.kind != Kind::File) {
        return Ok(LookResult::NoTemp);
    }
    let ours = our_uid == 0 || file.uid == our_uid;
    // Another's file gives no lease; one whose bytes are elsewhere would be fetched by opening it;
    // and where the proof does not count there is nothing to ask.
    if !ours || first.dataless || !dir.place().has_proof(policy) {
        return Ok(LookResult::File(first, UseState::Unknown, None));
    }
    let opened = match evidence::open_to_ask(dir, name) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(LookResult::Nothing),
                // Somebody else's lease is in the way: that is a holder.
                io::ErrorKind::WouldBlock => Ok(LookResult::File(first, UseState::InUse, None)),
                io::ErrorKind::PermissionDenied => {
                    Ok(LookResult::File(first, UseState::Unknown, None))
                }
                _ => Err(error),
            };
        }
    };
    let (hold, leased) = lease_thread.lease(opened);
    let second = look::observe_fd(leased.file())?;
    Ok(LookResult::File(second, hold, Some(leased)))
}

/// What a temp would be told now, by one look: the verdict of `scan` and `explain`.
pub fn examine(
    engine: &Engine,
    dir_context: DirContext<'_>,
    dir: &Dir,
    lease_thread: &LeaseThread,
    name: &OsStr,
    quarantine: bool,
) -> io::Result<Option<Examined>> {
    let policy = &dir_context.root.policy;
    let parsed = policy.names.parse(name);
    let our_uid = us();
    let LookResult::File(observation, hold, leased) =
        see((dir, name), policy, lease_thread, our_uid)?
    else {
        return Ok(None);
    };
    let now = clock::now();
    let file = &observation.fingerprint;
    let lag = dir.place().dates.lag(file);
    let grace = policy.grace_of(&parsed, file.size == 0, lag);
    let quiet = now.wall.since(file.newest()).saturating_sub(lag);
    let siblings = engine.listings.of(dir, policy, 1)?;
    let temp_info = TempInfo {
        name: name.to_owned(),
        reserved: policy.names.reserved(name.as_bytes()),
        parsed: siblings.parsed(parsed),
        expected: None,
        quiet,
        unused: quiet.min(now.mono.since_boot()),
        grace,
        written: None,
        closed: false,
    };
    let process_scan = (dir.reach() == LeaseCoverage::OpensOnly && hold == UseState::Unused)
        .then(|| evidence::scan_processes(&[FileId::from(&observation.fingerprint)], dir.reach()));
    let context = EvidenceContext {
        policy,
        our_uid,
        marks: &engine.marks,
        nested: &engine.nested,
        locks: &engine.locks,
        siblings: &siblings,
        since: now.mono,
        quarantine,
        process_scan: process_scan.as_ref(),
    };
    let answer = (leased.as_ref(), hold);
    let (evidence, found) = evidence::gather(dir, &temp_info, observation, answer, context)?;
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

/// What [`examine`] found.
#[derive(Debug)]
pub struct Examined {
    /// Where it is.
    pub path: PathBuf,
    /// What it was to become.
    pub target: Option<PathBuf>,
    /// What is known of it.
    pub temp_info: TempInfo,
    /// What the verdict rests on.
    pub evidence: Evidence,
    /// The verdict.
    pub verdict: Verdict,
    /// Details for people.
    pub details: Details,
}

fn intent((removal, candidate): &(Removal, Candidate)) -> json::Object {
    let Removal {
        observation: seen,
        disposed,
        ..
    } = removal;
    let file = &seen.fingerprint;
    let temp_info = &candidate.temp_info;
    json::Object::default()
        .with("time", json::time(clock::wall()))
        .with_path("path", Some(&disposed.subject.path))
        .with_path("root", Some(&disposed.subject.root))
        .with("bytes", file.size)
        .with("disk_bytes", seen.allocated)
        .with("verdict", candidate.verdict.as_str())
        .with("reason", candidate.verdict.reason().map(Reason::as_str))
        .with("grammar", temp_info.parsed.grammar)
        .with_ms("quiet_ms", Some(temp_info.quiet))
        .with_ms("grace_ms", Some(temp_info.grace))
        .with_path("target", disposed.target.as_deref())
        .with("writer_pid", temp_info.parsed.pid)
        .with("dev", file.dev)
        .with("ino", file.ino)
        .with("uid", file.uid)
        .with("mode", seen.mode)
        .with("links", file.links)
        .with("mtime", json::time(file.mtime))
        .with("ctime", json::time(file.ctime))
}
