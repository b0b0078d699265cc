//! One sweep over a root, without a watcher: look, wait a moment, look again, act, end.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::context::{DirContext, Engine, max_workers, workers_for};
use super::examine::{ScannedDir, SharedChecks, details, judge_now};
use super::groups::StoredCopies;
use super::pass::{Pass, PassItem, Round};
use super::recover::{RecoveryOutcome, kept_claim, recover};
use crate::core::census::Lookalike;
use crate::core::event::{Details, Event, Subject};
use crate::core::group::{ENOUGH, KEPT_PER_GROUP};
use crate::core::judge::{Reason, Verdict};
use crate::core::observation::{Kind, Observation};
use crate::core::policy::{Policy, min_observation_gap};
use crate::core::sort::sort_by;
use crate::core::time::{ClockJumpDetector, Mono, Wall};
use crate::core::tracker::{Origin, Tracked};
use crate::evidence::UseChecker;
use crate::evidence::siblings::Siblings;
use crate::fs::dir::{Dir, RootError, RootId, unreadable_message};
use crate::fs::root::Root;
use crate::fs::walk;
use crate::fs::walk::Found;
use crate::reap::quarantine::Quarantine;
use crate::sys::clock;
use crate::sys::mutex::guard;
use crate::sys::stop::Stop;

/// The largest number of temps whose first looks are remembered. 200 bytes are needed for each.
const MAX_REMEMBERED: usize = 200_000;

/// Sweeps `root`: removes temps that are older than their grace, and does not wait for younger ones.
///
/// `emit` receives the events. `progress` is called periodically with the number of temps that were looked at and the
/// number of all temps. `stop` ends the sweep early.
pub fn sweep(
    root: &Root,
    engine: &Engine,
    stop: &Stop,
    emit: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Swept, RootError> {
    let mut clocks = ClockJumpDetector::default();
    clocks.read(clock::now());
    // The directory at the root's path may be exchanged during the sweep.
    let id = Some(RootId::of(&root.path)?);
    let dates = Dir::open_root(&root.path, id)?.properties().dates;
    root.report_coarse_dates(dates);
    let mut found = find(root, stop, emit, progress)?;
    let trees = std::mem::take(&mut found.trees);
    let lookalikes = std::mem::take(&mut found.lookalikes);
    let mut context = SweepContext {
        root,
        id,
        engine,
        stop,
        clocks,
        round: Round::Second,
        waits_until: None,
    };
    let mut dirs = context.track(found, emit);
    let remembers = dirs.iter().map(|dir| dir.due.len()).sum::<usize>() <= MAX_REMEMBERED;
    for round in [Round::First { remembers }, Round::Second] {
        context.round = round;
        if round == Round::Second {
            context.waits_until = Some(end_of_wait(&root.policy, dates.usual_lag()));
            // This takes a part of the time for which the sweep waits anyway.
            for dir in &mut dirs {
                let below = &dir.below;
                let dir_context = DirContext { root, id, below };
                dir.newest = newest_of_groups(engine, dir_context, &mut dir.due);
            }
        }
        // The newest temps of a group come first. Otherwise each chunk would move its own best copies.
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for dir in &mut dirs {
            let (below, stored) = (dir.below.as_path(), &dir.stored);
            let (newest, others) = dir.due.split_at_mut(dir.newest);
            let chunk = |due| Chunk { below, due, stored };
            first.extend(newest.chunks_mut(engine.reaper.batch()).map(chunk));
            rest.extend(others.chunks_mut(engine.reaper.batch()).map(chunk));
        }
        let of_first = first.iter().map(|chunk| chunk.due.len()).sum::<usize>();
        let total = of_first + rest.iter().map(|chunk| chunk.due.len()).sum::<usize>();
        let mut emit = |event| emit(without_retry(event));
        process_chunks(context, first, &mut emit, &|done, _| progress(done, total));
        let progress_of_rest = |done, _| progress(of_first + done, total);
        process_chunks(context, rest, &mut emit, &progress_of_rest);
        context.clocks.read(clock::now());
        for dir in &mut dirs {
            dir.due.retain(|item| item.temp.is_some());
        }
        if stop.is_stopped() {
            let due = dirs.iter().flat_map(|dir| &dir.due);
            let left = due.filter(|item| is_unreported(item)).count();
            return Ok(Swept {
                left,
                trees,
                lookalikes,
            });
        }
    }
    for SweptDir { below, due, .. } in &dirs {
        let dir_context = DirContext { root, id, below };
        report_young(engine, dir_context, due, emit);
    }
    Ok(Swept {
        left: 0,
        trees,
        lookalikes,
    })
}

/// The work that a sweep has not done.
#[derive(Debug)]
pub struct Swept {
    /// The number of temps that were found but not processed, because the sweep was stopped.
    pub left: usize,
    /// Directories and special files whose names the rule matches, as paths relative to the root, with their type.
    pub trees: Vec<(PathBuf, Kind)>,
    /// The files whose names look like temps although the rule does not match them. Their directories are relative to
    /// the root.
    pub lookalikes: Vec<Lookalike>,
}

/// Moves the newest temps of each group, as far as the first look has seen them, to the front, and returns their
/// number. Leaves out groups of which the target seems to count, because their temps are not compared with each other.
fn newest_of_groups(engine: &Engine, dir_context: DirContext<'_>, due: &mut [PassItem]) -> usize {
    let root = engine.root_in(dir_context);
    let mut groups: HashMap<(OsString, u32), GroupOfSweep> = HashMap::new();
    for (index, item) in due.iter().enumerate() {
        if let Some(seen) = item.temp.as_ref().and_then(Tracked::seen)
            && let Some(target) = root.policy.names.group_of(&item.name, seen.uid())
        {
            let group = groups.entry((target, seen.uid())).or_default();
            group.largest = group.largest.max(seen.size());
            group.temps.push((seen.age_key(), index));
        }
    }
    groups.retain(|_, group| group.temps.len() > ENOUGH);
    if groups.is_empty() {
        return 0;
    }
    let dir = dir_context.open().ok();
    let size_of = |target: &OsStr| {
        let seen = dir.as_ref()?.observe(target).ok()??.fingerprint;
        (seen.kind == Kind::File).then_some(seen.size)
    };
    groups.retain(|(target, _), group| size_of(target).is_none_or(|size| size < group.largest));
    let mut is_newest = vec![false; due.len()];
    for GroupOfSweep { mut temps, .. } in groups.into_values() {
        sort_by(&mut temps, |a, b| b.cmp(a));
        for (_, index) in temps.into_iter().take(KEPT_PER_GROUP) {
            is_newest[index] = true;
        }
    }
    // The temps of one group that come first are in one chunk, or in two.
    let mut newest = 0;
    for (index, _) in is_newest.into_iter().enumerate().filter(|(_, is)| *is) {
        due.swap(newest, index);
        newest += 1;
    }
    newest
}

/// Finds the temps and the claims in `root`.
fn find(
    root: &Root,
    stop: &Stop,
    emit: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Found, RootError> {
    let mut denied = |path: &Path, error: &std::io::Error| {
        emit(Event::Failed {
            subject: Subject {
                path: path.to_owned(),
                root: root.path.clone(),
                size: None,
            },
            error: unreadable_message(error),
            errno: error.raw_os_error(),
        });
    };
    let is_stopped = || stop.is_stopped();
    let found = walk::find(root, &mut denied, &|count| progress(0, count), &is_stopped)?;
    if let Some(message) = walk::not_entered_message(root, &found.not_entered) {
        log::warn!("{message}");
    }
    Ok(found)
}

/// Returns the event without the time of the next look, because a sweep does not look at the temp again.
fn without_retry(mut event: Event) -> Event {
    if let Event::Kept { retry, .. } = &mut event {
        *retry = None;
    }
    event
}

/// Reports the temps of a directory that were not reported yet, because they are younger than their grace.
fn report_young(
    engine: &Engine,
    dir_context: DirContext<'_>,
    due: &[PassItem],
    emit: &mut dyn FnMut(Event),
) {
    let mut young = due.iter().filter(|item| is_unreported(item)).peekable();
    if young.peek().is_none() {
        return;
    }
    let root = dir_context.root;
    let dir = dir_context.open().ok();
    let names = &root.policy.names;
    let scanned = dir.as_ref().and_then(|dir| {
        let siblings = Siblings::of_dir(dir, names).ok()?;
        Some(ScannedDir::new(engine, dir, dir_context, siblings, false))
    });
    let checks = SharedChecks::of_listed();
    for item in young {
        let examined = scanned
            .as_ref()
            .and_then(|scanned| judge_now(engine, scanned, &checks, &item.name).ok()?);
        let reason = match examined.as_ref().map(|examined| &examined.verdict) {
            // Only these two gates come before the one of the grace.
            Some(Verdict::Keep(reason @ (Reason::Restored | Reason::Reserved))) => *reason,
            _ if item.temp.as_ref().is_some_and(Tracked::was_target) => Reason::Reserved,
            _ => Reason::Young,
        };
        let seen = examined.map(|examined| examined.evidence.observation);
        let details = match (&dir, &seen) {
            (Some(dir), Some(seen)) => {
                let parsed = names.parse(&item.name);
                details(engine, &root.policy, dir, &parsed, seen, reason)
            }
            _ => Details::default(),
        };
        emit(Event::Kept {
            subject: dir_context.subject(&item.name, seen.as_ref().map(Observation::size)),
            reason,
            holders: Vec::new(),
            retry: None,
            reported_before: false,
            details,
        });
    }
}

/// Returns whether no event was sent for the temp, which still exists as far as is known.
fn is_unreported(item: &PassItem) -> bool {
    let is_reported = |temp: &Tracked| temp.is_kept() || temp.was_reported();
    item.temp.as_ref().is_some_and(|temp| !is_reported(temp))
}

/// The birth time and the time of the last write of a temp.
type AgeKey = (Option<Wall>, Wall);

/// The temps of a group in one directory.
#[derive(Default)]
struct GroupOfSweep {
    /// The size of the largest one, in bytes.
    largest: u64,
    /// Their ages and their indices.
    temps: Vec<(AgeKey, usize)>,
}

/// Returns the latest time of a second look for which a sweep waits.
fn end_of_wait(policy: &Policy, lag: Duration) -> Mono {
    let longest = policy.grace.random.max(policy.grace.fixed);
    // If dates have whole seconds, looks are further apart, by a second and a half at most.
    clock::mono().after(min_observation_gap(longest.max(lag * 3), lag))
}

/// A directory with temps.
struct SweptDir {
    /// Its path, relative to the root.
    below: PathBuf,
    due: Vec<PassItem>,
    /// The number of temps at the start of `due` that are processed before all others.
    newest: usize,
    /// The copies in the quarantine that come from this directory.
    stored: Arc<StoredCopies>,
}

/// Temps of one directory that are processed in one pass.
struct Chunk<'a> {
    below: &'a Path,
    due: &'a mut [PassItem],
    /// The copies in the quarantine that come from this directory.
    stored: &'a Arc<StoredCopies>,
}

impl Chunk<'_> {
    /// Returns the time at which the next look is due for all of its temps that are due until `end`.
    fn due_until(&self, end: Mono) -> Option<Mono> {
        let temps = self.due.iter().filter_map(|item| item.temp.as_ref());
        let due = temps.map(Tracked::due).filter(|due| *due <= end);
        due.max()
    }
}

/// The context that all chunks have in common.
#[derive(Clone, Copy)]
struct SweepContext<'a> {
    root: &'a Root,
    id: Option<RootId>,
    engine: &'a Engine,
    stop: &'a Stop,
    clocks: ClockJumpDetector,
    round: Round,
    /// Each chunk waits for its looks that are due until then. `None`: none waits.
    waits_until: Option<Mono>,
}

impl SweepContext<'_> {
    /// Puts back the claims among `found`, and begins to track the temps. Returns the temps by directory.
    fn track(self, mut found: Found, emit: &mut dyn FnMut(Event)) -> Vec<SweptDir> {
        if !self.root.policy.is_dry_run() && !self.stop.is_stopped() {
            self.recover_claims(&mut found, emit);
        }
        let mut dirs = Vec::with_capacity(found.temps.len());
        for (below, temps) in found.temps {
            let now = clock::mono();
            let root = self.engine.root_in(DirContext {
                root: self.root,
                id: self.id,
                below: &below,
            });
            let names = &root.policy.names;
            // The sweep may remove a temp that shows that another one is its target.
            let targets = names.targets_among(temps.iter().map(AsRef::as_ref));
            let due = |name| {
                let mut temp = Tracked::found(now, Origin::Found);
                if rule!("target-until-sweep-ends", targets.contains_key(&name)) {
                    temp.mark_target();
                }
                PassItem::new(name, temp)
            };
            dirs.push(SweptDir {
                below,
                due: temps.into_iter().map(due).collect(),
                newest: 0,
                stored: Arc::default(),
            });
        }
        dirs
    }

    /// Puts back the claims that a crash left behind.
    fn recover_claims(self, found: &mut Found, emit: &mut dyn FnMut(Event)) {
        let (root, id) = (self.root, self.id);
        if let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, id) {
            quarantine.remove_stale_slots();
        }
        let use_checker = UseChecker::new();
        for (below, claim) in std::mem::take(&mut found.claims) {
            let Some(_batch) = self.stop.begin_batch() else {
                return;
            };
            let dir_context = DirContext {
                root,
                id,
                below: &below,
            };
            match recover(self.engine, dir_context, &use_checker, &claim, emit) {
                RecoveryOutcome::PutBack(name) => found.add(below, name),
                RecoveryOutcome::Kept(reason) => {
                    emit(kept_claim(dir_context, &claim, reason, None))
                }
                RecoveryOutcome::Failed | RecoveryOutcome::Done => {}
            }
        }
    }

    /// Sleeps until the looks at the temps of `chunk` are due, or until a stop is requested. The looks at the chunks before
    /// it were earlier, so these are processed meanwhile.
    fn wait_for(self, chunk: &Chunk<'_>) {
        if let Some(due) = self.waits_until.and_then(|end| chunk.due_until(end)) {
            // One millisecond more, because a sleep may end slightly early by another clock.
            let due = due.after(Duration::from_millis(1));
            self.stop.sleep(due.since(clock::mono()));
        }
    }

    /// Processes one chunk after the other, until no chunk is left, a stop is requested, or `done` returns false.
    /// `done` receives the index of the chunk, its events, and the number of its temps.
    fn work<'a>(
        mut self,
        todo: &Mutex<impl Iterator<Item = (usize, Chunk<'a>)>>,
        done: &mut dyn FnMut(usize, Vec<Event>, usize) -> bool,
    ) {
        let use_checker = UseChecker::new();
        let next = || guard(todo).next();
        while !self.stop.is_stopped()
            && let Some((index, chunk)) = next()
        {
            self.wait_for(&chunk);
            // A chunk that has been taken is always done, because the events of later ones come after its own.
            let Some(batch) = self.stop.begin_batch() else {
                done(index, Vec::new(), 0);
                return;
            };
            let dir_context = DirContext {
                root: self.root,
                id: self.id,
                below: chunk.below,
            };
            let mut events = Vec::new();
            let mut emit = |event| events.push(event);
            Pass::new(self.engine, dir_context, &use_checker, &mut emit)
                .sharing(chunk.stored)
                .in_round(self.round)
                .run(&mut self.clocks, chunk.due);
            drop(batch);
            if !done(index, events, chunk.due.len()) {
                return;
            }
        }
    }
}

/// The result of one chunk.
struct ChunkResult {
    /// The index of the chunk.
    index: usize,
    /// The index of the thread, which waits until the events were emitted.
    thread: usize,
    events: Vec<Event>,
    /// The number of the chunk's temps.
    count: usize,
}

/// Sends `None` if its thread panics. The result of that thread never arrives, and the other threads would wait for it
/// forever.
struct PanicReport(Sender<Option<ChunkResult>>);

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            _ = self.0.send(None);
        }
    }
}

/// Processes all chunks by several threads, and emits the events in this thread, in the order of the chunks. Each
/// thread waits until the events of its chunk were emitted.
///
/// # Panics
///
/// A thread has panicked. All others have ended their batches.
fn process_chunks(
    context: SweepContext<'_>,
    chunks: Vec<Chunk<'_>>,
    emit: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) {
    let total: usize = chunks.iter().map(|chunk| chunk.due.len()).sum();
    let max_threads = match context.round {
        Round::Second => workers_for(total / chunks.len().max(1)),
        _ => max_workers(),
    };
    let max_threads = max_threads.min(chunks.len());
    let todo = Mutex::new(chunks.into_iter().enumerate());
    let (result_tx, result_rx) = bounded(max_threads);
    let mut done = 0;
    std::thread::scope(|scope| {
        let mut resume = Vec::with_capacity(max_threads);
        // A single chunk needs no other thread.
        while max_threads > 1 && resume.len() < max_threads {
            let (resume_tx, resume_rx) = bounded(1);
            let (todo, panic_report) = (&todo, PanicReport(result_tx.clone()));
            let thread = resume.len();
            let work = move || {
                context.work(todo, &mut |index, events, count| {
                    let result = ChunkResult {
                        index,
                        thread,
                        events,
                        count,
                    };
                    panic_report.0.send(Some(result)).is_ok() && resume_rx.recv().is_ok()
                })
            };
            match std::thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => resume.push(resume_tx),
                Err(_) => break,
            }
        }
        drop(result_tx);
        if resume.is_empty() {
            return context.work(&todo, &mut |_, events, count| {
                events.into_iter().for_each(&mut *emit);
                done += count;
                progress(done, total);
                true
            });
        }
        let mut finished = BTreeMap::new();
        let mut next = 0;
        while let Ok(Some(result)) = result_rx.recv() {
            finished.insert(result.index, result);
            while let Some(result) = finished.remove(&next) {
                next += 1;
                result.events.into_iter().for_each(&mut *emit);
                done += result.count;
                progress(done, total);
                _ = resume.get(result.thread).map(|resume| resume.send(()));
            }
        }
        // After a panic of one thread, this ends the others.
        drop((result_rx, resume));
    });
}
