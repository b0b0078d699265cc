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
use crate::decide::judge::{Evidence, Reach, Reason, Target, Verdict, judge};
use crate::decide::observation::{FileSize, Hold, Kind, Observation};
use crate::decide::policy::Policy;
use crate::decide::reserved::Reserved;
use crate::decide::retention::{Trust, Wanted};
use crate::decide::time::{ClockWatch, Mono, Now};
use crate::decide::tracker::{Look, Next, Tracked};
use crate::event::{Details, Disposed, Event, How, Subject};
use crate::evidence::locks::Locks;
use crate::evidence::namespaces::Nested;
use crate::evidence::restored::Marks;
use crate::evidence::siblings::{Listings, Siblings};
use crate::evidence::writers::Writers;
use crate::evidence::{self, Asker, Census, Circumstances, FileId, Proof, Suspect};
use crate::journal::{Journal, Line};
use crate::json;
use crate::look::{self, Dir, RootError, RootId};
use crate::reap::quarantine::Keeping;
use crate::reap::{self, Candidate, Outcome, Reaper, Recovered, Scene, quarantine};
use crate::root::Root;

/// What every pass needs.
#[derive(Debug)]
pub struct Tools {
    /// Removes.
    pub reaper: Reaper,
    /// Writes down.
    pub journal: Journal,
    /// Knows what was restored.
    pub marks: Marks,
    /// Knows who wrote what.
    pub writers: Writers,
    /// Knows who goes by which pid in a container.
    pub nested: Nested,
    /// Knows which files are seen to be locked.
    pub locks: Locks,
    /// Knows what lies beside temps.
    pub listings: Listings,
    /// Whether settled temps are reported.
    pub verbose: bool,
}

/// The directory that a pass is over.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Its root.
    pub root: &'a Root,
    /// What the root was when it began to be watched.
    pub id: Option<RootId>,
    /// The way from the root to it.
    pub below: &'a Path,
}

/// One temp that is due.
#[derive(Debug)]
pub struct Due {
    /// Its base name.
    pub name: OsString,
    /// What is known of it. `None` after a pass: it is to be forgotten.
    pub temp: Option<Tracked>,
}

/// A pass in progress.
pub struct Pass<'a> {
    tools: &'a Tools,
    ground: Ground<'a>,
    asker: &'a Asker,
    tell: &'a mut dyn FnMut(Event),
    /// The directory's path, for people.
    folder: PathBuf,
    /// The number of temps that are due.
    due: usize,
    /// Siblings of the temps; read when the first of them is to be judged.
    siblings: Option<Arc<Siblings>>,
}

/// A temp that it is time to judge.
struct Ripe {
    /// Its place among what is due.
    index: usize,
    suspect: Suspect,
    evidence: Evidence,
    /// Which of the names that it may have been meant for is its target.
    target: Option<usize>,
    /// The file, nothing held of it: for the protocol, which would open it again.
    opened: Option<Proof>,
}

/// A temp that is to go: its place among what is due, what was seen of it, and what is said of it.
struct Doomed {
    index: usize,
    observation: Observation,
    disposed: Disposed,
}

/// How many threads may have passes of their own at once: two a core, because every batch waits for a
/// while, and each may have three files open for each temp of it.
#[must_use]
pub fn hands() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    (2 * cores)
        .min(MOST_HANDS)
        .min(limit / (4 * reap::BATCH))
        .max(1)
}

/// More would only wait for the same disk.
const MOST_HANDS: usize = 8;

/// What a look at a name came to.
enum Seen {
    /// Nothing is there.
    Nothing,
    /// Something that is never a temp.
    NoTemp,
    /// A file, who holds it, and the open file where one was needed to ask.
    File(Observation, Hold, Option<Proof>),
}

impl<'a> Pass<'a> {
    /// A pass over `ground`. `tell` is called with what happens, in order.
    pub fn new(
        tools: &'a Tools,
        ground: Ground<'a>,
        asker: &'a Asker,
        tell: &'a mut dyn FnMut(Event),
    ) -> Pass<'a> {
        Pass {
            tools,
            ground,
            asker,
            tell,
            folder: ground.root.path.join(ground.below),
            due: 0,
            siblings: None,
        }
    }

    /// Looks at everything in `due`, and deals with what it is time for.
    pub fn run(&mut self, clocks: &mut ClockWatch, due: &mut [Due]) {
        let (dir, quarantine) = match self.open() {
            Ok(opened) => opened,
            Err(error) => return self.no_ground(&error, due),
        };
        self.due = due.len();
        let marks = self.tools.marks.read();
        let no_siblings = Siblings::default();
        let circumstances = Circumstances {
            policy: &self.ground.root.policy,
            our_uid: us(),
            marks: &marks,
            nested: &self.tools.nested,
            locks: &self.tools.locks,
            siblings: &no_siblings,
            since: clock::mono(),
            quarantine,
            census: None,
        };
        let mut ripe = Vec::new();
        for (index, one) in due.iter_mut().enumerate() {
            match (self.free_stranded(&dir, &one.name), &mut one.temp) {
                (None, _) => {}
                (Some(Returned::Kept(reason)), Some(temp)) => {
                    let grace = self.ground.root.policy.grace.shortest();
                    _ = temp.keep(reason, grace, clock::mono());
                    continue;
                }
                _ => {
                    self.put_aside(one);
                    continue;
                }
            }
            if let Some(temp) = &mut one.temp {
                temp.has_its_name();
            }
            let now = clock::now();
            let parted = clocks.read(now);
            match self.look(&dir, (index, one), now, parted, circumstances) {
                Ok(None) => {}
                Ok(Some(mut one)) => {
                    // No more files are open than the protocol has open anyway.
                    one.opened = one
                        .opened
                        .filter(|_| ripe.len() < self.tools.reaper.batch());
                    ripe.push(one);
                }
                Err(error) => {
                    let subject = self.subject(&one.name, None);
                    self.fail(subject, "look at it", &error);
                    self.put_aside(one);
                }
            }
        }
        examine_mappings(&dir, &mut ripe);
        let mut candidates = Vec::new();
        let mut kept = Vec::new();
        for one in ripe {
            let observation = one.evidence.observation;
            match judge(&one.evidence, &self.ground.root.policy) {
                Verdict::Keep(reason) => kept.push((one.index, observation, reason)),
                verdict => {
                    let doomed = Doomed {
                        index: one.index,
                        observation,
                        disposed: self.disposed(&one),
                    };
                    let (suspect, opened) = (one.suspect, one.opened);
                    let candidate = Candidate {
                        suspect,
                        verdict,
                        opened,
                    };
                    candidates.push((doomed, candidate));
                }
            }
        }
        if rule!(
            "dry-run-disposes-of-nothing",
            self.ground.root.policy.is_dry_run()
        ) {
            self.report(due, candidates);
        } else {
            let siblings = self.siblings.clone().unwrap_or_default();
            let circumstances = Circumstances {
                siblings: &siblings,
                ..circumstances
            };
            self.dispose(&dir, due, candidates, &mut kept, circumstances);
        }
        self.keep(&dir, due, kept);
    }

    /// Claims of `name` that could not be put back get it back now, before it is looked for. `None`: none is
    /// left.
    ///
    /// Only when it is time for that name: one that cannot be put back for long is tried as seldom as the temp.
    fn free_stranded(&mut self, dir: &Dir, name: &OsStr) -> Option<Returned> {
        let claims = self.tools.reaper.claims();
        let mut left = None;
        for claim in claims.stranded(dir.id(), name) {
            let returned = recover(self.tools, self.ground, self.asker, &claim, self.tell);
            if !matches!(dir.observe(&claim), Ok(None)) {
                claims.strand(dir.id(), name, &claim);
                left = Some(returned);
            }
        }
        left
    }

    /// The directory itself cannot be worked in.
    fn no_ground(&mut self, error: &RootError, due: &mut [Due]) {
        let gone = error.is_gone();
        for one in due.iter_mut() {
            if gone {
                self.settle(one);
            } else {
                self.put_aside(one);
            }
        }
        if let (false, RootError::Io(error)) = (gone, error) {
            let path = self.ground.root.path.join(self.ground.below);
            let root = self.ground.root.path.clone();
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
        let root = Dir::open_root(&self.ground.root.path, self.ground.id)?;
        let quarantine = quarantine::is_possible(&root);
        let dir = match self.ground.below.as_os_str().is_empty() {
            true => root,
            false => root.open_within(self.ground.below)?,
        };
        Ok((dir, quarantine))
    }

    /// Looks at one temp. `Some` if it is time to judge it: with the evidence.
    fn look(
        &mut self,
        dir: &Dir,
        (index, one): (usize, &mut Due),
        now: Now,
        parted: Option<Mono>,
        circumstances: Circumstances<'_>,
    ) -> io::Result<Option<Ripe>> {
        let policy = &self.ground.root.policy;
        // The callback takes what any rule takes; what this one does not is not its temp.
        if !policy.takes(self.ground.below, &one.name) {
            one.temp = None;
            return Ok(None);
        }
        let reading = policy.names.read(&one.name);
        let Some(temp) = one.temp.as_mut() else {
            return Ok(None);
        };
        // Only a look tells whether it is empty. Until then the shorter grace holds.
        let grace = |is_empty| policy.grace_of(&reading, is_empty, Duration::ZERO);
        if temp.put_off(grace(true).min(grace(false)), now.mono) {
            return Ok(None);
        }
        let (observation, hold, mut proof) =
            match see((dir, &one.name), policy, self.asker, circumstances.our_uid)? {
                Seen::File(observation, hold, proof) => (observation, hold, proof),
                Seen::Nothing => {
                    self.settle(one);
                    return Ok(None);
                }
                Seen::NoTemp => {
                    one.temp = None;
                    return Ok(None);
                }
            };
        let file = &observation.fingerprint;
        let lag = dir.place().dates.lag(file);
        let grace = policy.grace_of(&reading, file.size == 0, lag);
        if temp.put_off(grace, now.mono) {
            return Ok(None);
        }
        if let Some(pid) = reading.pid {
            // For people; it may be dead by the time that this is judged.
            self.tools.writers.meet(pid, observation.fingerprint.uid);
        }
        let look = Look {
            now,
            parted,
            fingerprint: observation.fingerprint,
            lag,
            hold,
        };
        let quiet = match temp.look(&look, grace, policy.open) {
            Next::LookAt(_) => return Ok(None),
            Next::Judge(quiet) => quiet,
        };
        let siblings = self.siblings(dir)?;
        let circumstances = Circumstances {
            siblings: &siblings,
            ..circumstances
        };
        let suspect = Suspect {
            name: one.name.clone(),
            reserved: match temp.was_target() {
                true => Some(Reserved::WasTarget),
                false => policy.names.reserved(one.name.as_bytes()),
            },
            reading: siblings.reading(reading),
            expected: Some(quiet.fingerprint),
            quiet: quiet.quiet,
            unused: quiet.unused,
            grace,
            written: temp.written_by(&look),
            closed: temp.is_closed(),
        };
        let answer = (proof.as_ref(), hold);
        let (evidence, found) =
            evidence::gather(dir, &suspect, observation, answer, circumstances)?;
        // The next look may come after the removal of that other temp.
        let is_target = matches!(evidence.reserved, Some(Reserved::TargetOf(_)));
        if rule!("target-until-watch-ends", is_target) {
            temp.is_a_target();
        }
        if let Some(proof) = &mut proof {
            proof.let_go();
        }
        // Another name of it may be due as well, and would be found held: by us.
        let opened = proof.filter(|_| observation.fingerprint.links == 1);
        Ok(Some(Ripe {
            index,
            suspect,
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
                let policy = &self.ground.root.policy;
                self.tools.listings.of(dir, policy, self.due)?
            }
        };
        Ok(Arc::clone(self.siblings.insert(siblings)))
    }

    /// The dry run: says what would be done.
    fn report(&mut self, due: &mut [Due], candidates: Vec<(Doomed, Candidate)>) {
        for (doomed, candidate) in candidates {
            let Some(one) = due.get_mut(doomed.index) else {
                continue;
            };
            let grace = candidate.suspect.grace;
            let news = one
                .temp
                .as_mut()
                .map(|temp| temp.put_aside(grace, clock::mono()).news);
            if news != Some(true) {
                continue;
            }
            let disposed = Disposed {
                dry_run: true,
                ..doomed.disposed
            };
            (self.tell)(match candidate.verdict {
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
        due: &mut [Due],
        candidates: Vec<(Doomed, Candidate)>,
        kept: &mut Vec<(usize, Observation, Reason)>,
        circumstances: Circumstances<'_>,
    ) {
        self.make_room(&candidates);
        let intents: Vec<json::Object> = candidates.iter().map(intent).collect();
        let (doomed, mut batch): (Vec<Doomed>, Vec<Candidate>) = candidates.into_iter().unzip();
        rule!(
            "intents-are-written-first",
            self.tools.journal.write(Line::Intent, &intents),
            without: (),
        );
        let scene = Scene {
            root: &self.ground.root.path,
            id: self.ground.id,
            dir,
            circumstances,
        };
        let outcomes = self.tools.reaper.reap(scene, self.asker, &mut batch);
        let mut written = Vec::new();
        let mut told = Vec::new();
        for ((doomed, candidate), outcome) in doomed.into_iter().zip(batch).zip(outcomes) {
            let Doomed {
                index,
                observation,
                disposed,
            } = doomed;
            let Some(one) = due.get_mut(index) else {
                continue;
            };
            let grace = candidate.suspect.grace;
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
                        temp.was_held();
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
                        temp.may_be_nameless();
                    }
                    continue;
                }
            };
            one.temp = None;
            written.push(json::event(&event, clock::wall()));
            told.push(event);
        }
        self.tools.journal.write(Line::Outcome, &written);
        told.into_iter().for_each(&mut *self.tell);
    }

    /// Makes room in the quarantine, as far as its limits permit, if the temps to be moved have none.
    fn make_room(&mut self, candidates: &[(Doomed, Candidate)]) {
        let moves = candidates
            .iter()
            .filter(|(_, candidate)| matches!(candidate.verdict, Verdict::Quarantine(_)));
        let bytes = moves.map(|(doomed, _)| doomed.observation.allocated);
        let wanted = Wanted {
            all: bytes.clone().fold(0, u64::saturating_add),
            least: bytes.min().unwrap_or(0),
        };
        let (stock, ground) = (self.tools.reaper.stock(), self.ground);
        if wanted.all == 0 || !stock.is_short_of(&ground.root.path, ground.id, wanted.all) {
            return;
        }
        let keeping = Keeping {
            stock,
            journal: &self.tools.journal,
            asker: self.asker,
            // Nothing is dropped for its age here.
            trust: Trust::default(),
            wanted,
        };
        loop {
            let tended = quarantine::tend(ground.root, ground.id, keeping);
            tended.events.into_iter().for_each(&mut *self.tell);
            if !tended.has_more {
                return;
            }
        }
    }

    /// Says what stays and why, once per temp and reason.
    fn keep(&mut self, dir: &Dir, due: &mut [Due], kept: Vec<(usize, Observation, Reason)>) {
        let policy = &self.ground.root.policy;
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
            let reading = policy.names.read(&one.name);
            let grace = policy.grace_of(&reading, file.size == 0, lag);
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
        let census = match wanted.is_empty() {
            true => Census::default(),
            false => evidence::census(&wanted, dir.reach()),
        };
        for (name, observation, reason, answer) in news {
            let file = FileId::from(&observation.fingerprint);
            let holders = census.of(file);
            self.tools.writers.holds(file, &holders);
            let subject = self.subject(&name, Some(&observation));
            let details = details(self.tools, policy, dir, &name, &observation, reason);
            (self.tell)(Event::Kept {
                subject,
                reason,
                holders,
                retry: Some(answer.retry),
                again: answer.again,
                details,
            });
        }
    }

    fn settle(&mut self, one: &mut Due) {
        one.temp = None;
        if self.tools.verbose {
            let subject = self.subject(&one.name, None);
            let how = How::Removed;
            (self.tell)(Event::Settled { subject, how });
        }
    }

    fn put_aside(&self, one: &mut Due) {
        let grace = self.ground.root.policy.grace.shortest();
        if let Some(temp) = one.temp.as_mut() {
            temp.put_aside(grace, clock::mono());
        }
    }

    fn fail(&mut self, subject: Subject, doing: &str, error: &io::Error) {
        (self.tell)(Event::Failed {
            subject,
            error: format!("cannot {doing}: {error}"),
            errno: error.raw_os_error(),
        });
    }

    fn subject(&self, name: &OsStr, seen: Option<&Observation>) -> Subject {
        Subject {
            path: self.path(name),
            root: self.ground.root.path.clone(),
            size: seen.map(Observation::size),
        }
    }

    fn path(&self, name: &OsStr) -> PathBuf {
        self.folder.join(name)
    }

    fn disposed(&self, one: &Ripe) -> Disposed {
        let (suspect, seen) = (&one.suspect, &one.evidence.observation);
        let name = evidence::target_name(&suspect.reading, one.target);
        let file = FileId::from(&seen.fingerprint);
        Disposed {
            subject: self.subject(&suspect.name, Some(seen)),
            quiet: suspect.quiet,
            target: name.map(|name| self.path(name)),
            target_is: one.evidence.target,
            writer_pid: suspect.reading.pid,
            writer: self.tools.writers.of(file, suspect.reading.pid),
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
    tools: &Tools,
    ground: Ground<'_>,
    asker: &Asker,
    claim: &OsStr,
    tell: &mut dyn FnMut(Event),
) -> Returned {
    if tools.reaper.claims().is_at_work(claim) {
        return Returned::Done;
    }
    let (root, below) = (&ground.root.path, ground.below);
    let Ok(dir) = Dir::open_below(root, ground.id, below) else {
        return Returned::Done;
    };
    let scene = Scene {
        root,
        id: ground.id,
        dir: &dir,
        circumstances: Circumstances {
            policy: &ground.root.policy,
            our_uid: us(),
            marks: &tools.marks,
            nested: &tools.nested,
            locks: &tools.locks,
            siblings: &Siblings::default(),
            since: clock::mono(),
            quarantine: true,
            census: None,
        },
    };
    let subject = |name: &OsStr, size| Subject {
        path: root.join(below).join(name),
        root: root.clone(),
        size,
    };
    match reap::recover(scene, asker, claim) {
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
            tools
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
    ground: Ground<'_>,
    claim: &OsStr,
    reason: Reason,
    retry: Option<Duration>,
) -> Event {
    Event::Kept {
        subject: Subject {
            path: ground.root.path.join(ground.below).join(claim),
            root: ground.root.path.clone(),
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
    tools: &Tools,
    policy: &Policy,
    dir: &Dir,
    name: &OsStr,
    seen: &Observation,
    reason: Reason,
) -> Details {
    let reading = policy.names.read(name);
    let pid = reading.pid.filter(|_| reason == Reason::WriterAlive);
    let writer = pid.and_then(|pid| {
        tools.writers.meet(pid, seen.fingerprint.uid);
        tools.writers.of(FileId::from(&seen.fingerprint), Some(pid))
    });
    Details {
        file_system: dir.place().file_system.to_string(),
        writer_pid: pid,
        writer,
        is_dataless: seen.dataless,
        quiet: clock::wall().since(seen.fingerprint.newest()),
        grace: {
            let file = &seen.fingerprint;
            policy.grace_of(&reading, file.size == 0, dir.place().dates.lag(file))
        },
    }
}

/// Where the proof does not see mappings, one walk over all processes is made for all of `ripe`.
fn examine_mappings(dir: &Dir, ripe: &mut [Ripe]) {
    if dir.reach() != Reach::OpenersOnly || ripe.is_empty() {
        return;
    }
    let file = |evidence: &Evidence| FileId::from(&evidence.observation.fingerprint);
    let wanted: Vec<FileId> = ripe.iter().map(|one| file(&one.evidence)).collect();
    let census = evidence::census(&wanted, dir.reach());
    for Ripe { evidence, .. } in ripe {
        evidence.mappings_examined = census.clears(file(evidence));
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
    asker: &Asker,
    our_uid: u32,
) -> io::Result<Seen> {
    let Some(first) = dir.observe(name)? else {
        return Ok(Seen::Nothing);
    };
    let file = &first.fingerprint;
    if rule!("only-files-are-temps", file.kind != Kind::File) {
        return Ok(Seen::NoTemp);
    }
    let ours = our_uid == 0 || file.uid == our_uid;
    // Another's file gives no lease; one whose bytes are elsewhere would be fetched by opening it;
    // and where the proof does not count there is nothing to ask.
    if !ours || first.dataless || !dir.place().has_proof(policy) {
        return Ok(Seen::File(first, Hold::CannotTell, None));
    }
    let opened = match evidence::open_to_ask(dir, name) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Seen::Nothing),
                // Somebody else's lease is in the way: that is a holder.
                io::ErrorKind::WouldBlock => Ok(Seen::File(first, Hold::Held, None)),
                io::ErrorKind::PermissionDenied => Ok(Seen::File(first, Hold::CannotTell, None)),
                _ => Err(error),
            };
        }
    };
    let (hold, proof) = asker.ask(opened);
    let second = look::observe_fd(proof.file())?;
    Ok(Seen::File(second, hold, Some(proof)))
}

/// What a temp would be told now, by one look: the verdict of `scan` and `explain`.
pub fn examine(
    tools: &Tools,
    ground: Ground<'_>,
    dir: &Dir,
    asker: &Asker,
    name: &OsStr,
    quarantine: bool,
) -> io::Result<Option<Examined>> {
    let policy = &ground.root.policy;
    let reading = policy.names.read(name);
    let our_uid = us();
    let Seen::File(observation, hold, proof) = see((dir, name), policy, asker, our_uid)? else {
        return Ok(None);
    };
    let now = clock::now();
    let file = &observation.fingerprint;
    let lag = dir.place().dates.lag(file);
    let grace = policy.grace_of(&reading, file.size == 0, lag);
    let quiet = now.wall.since(file.newest()).saturating_sub(lag);
    let siblings = tools.listings.of(dir, policy, 1)?;
    let suspect = Suspect {
        name: name.to_owned(),
        reserved: policy.names.reserved(name.as_bytes()),
        reading: siblings.reading(reading),
        expected: None,
        quiet,
        unused: quiet.min(now.mono.since_boot()),
        grace,
        written: None,
        closed: false,
    };
    let census = (dir.reach() == Reach::OpenersOnly && hold == Hold::Free)
        .then(|| evidence::census(&[FileId::from(&observation.fingerprint)], dir.reach()));
    let circumstances = Circumstances {
        policy,
        our_uid,
        marks: &tools.marks,
        nested: &tools.nested,
        locks: &tools.locks,
        siblings: &siblings,
        since: now.mono,
        quarantine,
        census: census.as_ref(),
    };
    let answer = (proof.as_ref(), hold);
    let (evidence, found) = evidence::gather(dir, &suspect, observation, answer, circumstances)?;
    let verdict = judge(&evidence, policy);
    let folder = ground.root.path.join(ground.below);
    Ok(Some(Examined {
        details: match verdict {
            Verdict::Keep(reason) => {
                details(tools, policy, dir, name, &evidence.observation, reason)
            }
            _ => Details::default(),
        },
        target: evidence::target_name(&suspect.reading, found.index).map(|name| folder.join(name)),
        path: folder.join(name),
        suspect,
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
    pub suspect: Suspect,
    /// What the verdict rests on.
    pub evidence: Evidence,
    /// The verdict.
    pub verdict: Verdict,
    /// Details for people.
    pub details: Details,
}

fn intent((doomed, candidate): &(Doomed, Candidate)) -> json::Object {
    let Doomed {
        observation: seen,
        disposed,
        ..
    } = doomed;
    let file = &seen.fingerprint;
    let suspect = &candidate.suspect;
    json::Object::default()
        .with("time", json::time(clock::wall()))
        .with_path("path", Some(&disposed.subject.path))
        .with_path("root", Some(&disposed.subject.root))
        .with("bytes", file.size)
        .with("disk_bytes", seen.allocated)
        .with("verdict", candidate.verdict.as_str())
        .with("reason", candidate.verdict.reason().map(Reason::as_str))
        .with("grammar", suspect.reading.grammar)
        .with_ms("quiet_ms", Some(suspect.quiet))
        .with_ms("grace_ms", Some(suspect.grace))
        .with_path("target", disposed.target.as_deref())
        .with("writer_pid", suspect.reading.pid)
        .with("dev", file.dev)
        .with("ino", file.ino)
        .with("uid", file.uid)
        .with("mode", seen.mode)
        .with("links", file.links)
        .with("mtime", json::time(file.mtime))
        .with("ctime", json::time(file.ctime))
}
