//! One sweep over a root, without a watcher: look, wait a moment, look again, act, end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::core::event::{Details, Event, Subject};
use crate::core::judge::Reason;
use crate::core::observation::Observation;
use crate::core::policy::min_observation_gap;
use crate::core::time::ClockJumpDetector;
use crate::core::tracker::{Origin, Tracked};
use crate::engine::pass;
use crate::engine::pass::{DirContext, Engine, Pass, PassItem, RecoveryOutcome};
use crate::evidence::UseChecker;
use crate::fs::dir::{Dir, RootError, RootId};
use crate::fs::root::Root;
use crate::fs::walk;
use crate::fs::walk::Found;
use crate::reap;
use crate::reap::quarantine::Quarantine;
use crate::sys::clock;
use crate::sys::stop::Stop;

/// Sweeps `root`: removes temps that are older than their grace, and does not wait for younger ones.
///
/// `emit` receives the events. `progress` is called now and then with the number of temps that were looked at and the
/// number of all temps. `stop` ends the sweep early. Returns the number of temps that were found and, because of that,
/// not processed.
pub fn sweep(
    root: &Root,
    engine: &Engine,
    stop: &Stop,
    emit: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<usize, RootError> {
    let mut clocks = ClockJumpDetector::default();
    clocks.read(clock::now());
    // The directory at the root's path may be exchanged during the sweep.
    let id = Some(RootId::of(&root.path)?);
    let dates = Dir::open_root(&root.path, id)?.properties().dates;
    root.report_coarse_dates(dates);
    let lag = dates.usual_lag();
    let mut denied = |path: &Path, error: &std::io::Error| {
        emit(Event::Failed {
            subject: Subject {
                path: path.to_owned(),
                root: root.path.clone(),
                size: None,
            },
            error: format!("cannot read this directory: {error}"),
            errno: error.raw_os_error(),
        });
    };
    let is_stopped = || stop.is_stopped();
    let mut found = walk::find(root, &mut denied, &|count| progress(0, count), &is_stopped)?;
    if let Some(message) = walk::not_entered_message(root, &found.not_entered) {
        log::warn!("{message}");
    }
    let context = SweepContext {
        root,
        id,
        engine,
        stop,
        clocks,
    };
    if !root.policy.is_dry_run() {
        recover_claims(context, &mut found, emit);
    }
    let mut dirs: Vec<(PathBuf, Vec<PassItem>)> = Vec::with_capacity(found.temps.len());
    for (below, names) in found.temps {
        let now = clock::mono();
        // The sweep may remove a temp that shows that another one is its target.
        let targets = root
            .policy
            .names
            .targets_among(names.iter().map(AsRef::as_ref));
        let due = |name| {
            let mut temp = Tracked::found(now, Origin::Found);
            if rule!("target-until-sweep-ends", targets.contains_key(&name)) {
                temp.mark_target();
            }
            let temp = Some(temp);
            PassItem { name, temp }
        };
        dirs.push((below, names.into_iter().map(due).collect()));
    }
    let mut emit = |event| match event {
        // A sweep does not look at the temp again.
        Event::Kept {
            subject,
            reason,
            holders,
            reported_before,
            details,
            ..
        } => emit(Event::Kept {
            subject,
            reason,
            holders,
            retry: None,
            reported_before,
            details,
        }),
        event => emit(event),
    };
    for round in [LookRound::First, LookRound::Second] {
        if round == LookRound::Second {
            wait_for_second_look(&dirs, root, lag, stop);
        }
        let chunks = dirs.iter_mut().flat_map(|(below, due)| {
            let below = &*below;
            let chunk = move |due| Chunk { below, due };
            due.chunks_mut(reap::BATCH).map(chunk)
        });
        let context = SweepContext { clocks, ..context };
        process_chunks(context, chunks.collect(), &mut emit, progress);
        clocks.read(clock::now());
        for (_, due) in &mut dirs {
            due.retain(|item| item.temp.is_some());
        }
        if stop.is_stopped() {
            let due = dirs.iter().flat_map(|(_, due)| due);
            return Ok(due.filter(|item| is_unreported(item)).count());
        }
    }
    for (below, due) in &dirs {
        let dir = Dir::open_below(&root.path, id, below).ok();
        for item in due.iter().filter(|item| is_unreported(item)) {
            let path = root.path.join(below).join(&item.name);
            let seen = dir.as_ref().and_then(|dir| dir.observe(&item.name).ok()?);
            let size = seen.as_ref().map(Observation::size);
            let details = match (&dir, &seen) {
                (Some(dir), Some(seen)) => {
                    let young = Reason::Young;
                    pass::details(engine, &root.policy, dir, &item.name, seen, young)
                }
                _ => Details::default(),
            };
            let root = root.path.clone();
            emit(Event::Kept {
                subject: Subject { path, root, size },
                reason: Reason::Young,
                holders: Vec::new(),
                retry: None,
                reported_before: false,
                details,
            });
        }
    }
    Ok(0)
}

/// Returns whether no event was sent for the temp, which still exists as far as is known.
fn is_unreported(item: &PassItem) -> bool {
    item.temp.as_ref().is_some_and(|temp| !temp.is_kept())
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum LookRound {
    First,
    Second,
}

/// Sleeps until the second look is due for all temps that can be due soon, or until a stop is requested.
fn wait_for_second_look(
    dirs: &[(PathBuf, Vec<PassItem>)],
    root: &Root,
    lag: Duration,
    stop: &Stop,
) {
    let longest = root.policy.grace.random.max(root.policy.grace.fixed);
    let now = clock::mono();
    // If dates have whole seconds, looks are further apart, by a second and a half at most.
    let soon = now.after(min_observation_gap(longest.max(lag * 3), lag));
    let temps = dirs
        .iter()
        .flat_map(|(_, due)| due)
        .filter_map(|item| item.temp.as_ref());
    let last = temps.map(Tracked::due).filter(|due| *due <= soon).max();
    if let Some(last) = last {
        // One millisecond more, because a sleep may end slightly early by another clock.
        stop.sleep(last.since(now) + Duration::from_millis(1));
    }
}

/// Temps of one directory that are processed in one pass.
struct Chunk<'a> {
    below: &'a Path,
    due: &'a mut [PassItem],
}

/// The context that all chunks have in common.
#[derive(Clone, Copy)]
struct SweepContext<'a> {
    root: &'a Root,
    id: Option<RootId>,
    engine: &'a Engine,
    stop: &'a Stop,
    clocks: ClockJumpDetector,
}

impl SweepContext<'_> {
    /// Processes one chunk after the other, until no chunk is left, a stop is requested, or `done` returns false.
    /// `done` receives the index of the chunk, its events, and the number of its temps.
    fn work<'a>(
        mut self,
        todo: &Mutex<impl Iterator<Item = (usize, Chunk<'a>)>>,
        done: &mut dyn FnMut(usize, Vec<Event>, usize) -> bool,
    ) {
        let use_checker = UseChecker::new();
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
        // A chunk that has been taken is always completed, because the chunks before it are too.
        while let Some(batch) = self.stop.begin_batch()
            && let Some((index, chunk)) = next()
        {
            let dir_context = DirContext {
                root: self.root,
                id: self.id,
                below: chunk.below,
            };
            let mut events = Vec::new();
            let mut emit = |event| events.push(event);
            Pass::new(self.engine, dir_context, &use_checker, &mut emit)
                .run(&mut self.clocks, chunk.due);
            drop(batch);
            if !done(index, events, chunk.due.len()) {
                return;
            }
        }
    }
}

/// Processes all chunks by several threads, and emits the events in this thread, in the order of the chunks. Each
/// thread waits until the events of its chunk were emitted.
fn process_chunks(
    context: SweepContext<'_>,
    chunks: Vec<Chunk<'_>>,
    emit: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) {
    let total = chunks.iter().map(|chunk| chunk.due.len()).sum();
    let max_threads = pass::max_workers().min(chunks.len());
    let todo = Mutex::new(chunks.into_iter().enumerate());
    let (result_tx, result_rx) = bounded(max_threads);
    let mut done = 0;
    std::thread::scope(|scope| {
        let mut resume = Vec::with_capacity(max_threads);
        // A single chunk needs no other thread.
        while max_threads > 1 && resume.len() < max_threads {
            let (resume_tx, resume_rx) = bounded(1);
            let (todo, result_tx, thread) = (&todo, result_tx.clone(), resume.len());
            let work = move || {
                context.work(todo, &mut |index, events, count| {
                    let sent = result_tx.send((index, thread, events, count));
                    sent.is_ok() && resume_rx.recv().is_ok()
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
        for (index, thread, events, count) in result_rx {
            finished.insert(index, (thread, events, count));
            while let Some((thread, events, count)) = finished.remove(&next) {
                next += 1;
                events.into_iter().for_each(&mut *emit);
                done += count;
                progress(done, total);
                _ = resume.get(thread).map(|resume| resume.send(()));
            }
        }
    });
}

/// Puts back the claims that a crash left behind.
fn recover_claims(context: SweepContext<'_>, found: &mut Found, emit: &mut dyn FnMut(Event)) {
    let SweepContext {
        root,
        id,
        engine,
        stop,
        ..
    } = context;
    if stop.is_stopped() {
        return;
    }
    if let Ok(Some(quarantine)) = Quarantine::open_existing(&root.path, id) {
        quarantine.remove_stale_slots();
    }
    let use_checker = UseChecker::new();
    for (below, claim) in std::mem::take(&mut found.claims) {
        let Some(_batch) = stop.begin_batch() else {
            return;
        };
        let dir_context = DirContext {
            root,
            id,
            below: &below,
        };
        match pass::recover(engine, dir_context, &use_checker, &claim, emit) {
            RecoveryOutcome::PutBack(name) => found.add(below, name),
            RecoveryOutcome::Kept(reason) => {
                emit(pass::kept_claim(dir_context, &claim, reason, None))
            }
            RecoveryOutcome::Failed | RecoveryOutcome::Done => {}
        }
    }
}
