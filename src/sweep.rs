//! One pass over what is there: look, wait a moment, look again, act, end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::clock;
use crate::decide::judge::Reason;
use crate::decide::observation::Observation;
use crate::decide::policy::min_observation_gap;
use crate::decide::time::ClockJumpDetector;
use crate::decide::tracker::{Origin, Tracked};
use crate::event::{Details, Event, Subject};
use crate::evidence::LeaseThread;
use crate::look::{Dir, RootError, RootId};
use crate::pass::{self, DirContext, Engine, Pass, PassItem, Returned};
use crate::reap;
use crate::reap::quarantine::Quarantine;
use crate::root::Root;
use crate::scan::{self, Found};
use crate::stop::Stop;

/// Sweeps `root`: takes what is older than its grace, and does not wait for what is younger.
///
/// `tell` is called with what happens. `progress` is called now and then with how many temps were
/// looked at and how many there are. `stop` ends the sweep early. Returns how many of the temps that
/// were found are left because of that.
pub fn sweep(
    root: &Root,
    engine: &Engine,
    stop: &Stop,
    tell: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<usize, RootError> {
    let mut clocks = ClockJumpDetector::default();
    clocks.read(clock::now());
    // What stands at the root's path may be swapped while this goes on.
    let id = Some(RootId::of(&root.path)?);
    let dates = Dir::open_root(&root.path, id)?.place().dates;
    root.report_coarse_dates(dates);
    let lag = dates.usual_lag();
    let mut denied = |path: &Path, error: &std::io::Error| {
        tell(Event::Failed {
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
    let mut found = scan::find(root, &mut denied, &|count| progress(0, count), &is_stopped)?;
    if let Some(what) = scan::not_entered(root, &found.not_entered) {
        log::warn!("{what}");
    }
    let around = Around {
        root,
        id,
        engine,
        stop,
        clocks,
    };
    if !root.policy.is_dry_run() {
        put_in_order(around, &mut found, tell);
    }
    let mut dirs: Vec<(PathBuf, Vec<PassItem>)> = Vec::with_capacity(found.temps.len());
    for (below, names) in found.temps {
        let now = clock::mono();
        // The sweep may remove the temp that shows that another one is its target.
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
    let mut tell = |event| match event {
        // Nobody looks again.
        Event::Kept {
            subject,
            reason,
            holders,
            reported_before: again,
            details,
            ..
        } => tell(Event::Kept {
            subject,
            reason,
            holders,
            retry: None,
            reported_before: again,
            details,
        }),
        event => tell(event),
    };
    for look in [Looking::First, Looking::Again] {
        if look == Looking::Again {
            wait_for(&dirs, root, lag, stop);
        }
        let parts = dirs.iter_mut().flat_map(|(below, due)| {
            let below = &*below;
            let part = move |due| Part { below, due };
            due.chunks_mut(reap::BATCH).map(part)
        });
        let around = Around { clocks, ..around };
        side_by_side(around, parts.collect(), &mut tell, progress);
        clocks.read(clock::now());
        for (_, due) in &mut dirs {
            due.retain(|one| one.temp.is_some());
        }
        if stop.is_stopped() {
            let due = dirs.iter().flat_map(|(_, due)| due);
            return Ok(due.filter(|one| is_untold(one)).count());
        }
    }
    for (below, due) in &dirs {
        let dir = Dir::open_below(&root.path, id, below).ok();
        for one in due.iter().filter(|one| is_untold(one)) {
            let path = root.path.join(below).join(&one.name);
            let seen = dir.as_ref().and_then(|dir| dir.observe(&one.name).ok()?);
            let size = seen.as_ref().map(Observation::size);
            let details = match (&dir, &seen) {
                (Some(dir), Some(seen)) => {
                    let young = Reason::Young;
                    pass::details(engine, &root.policy, dir, &one.name, seen, young)
                }
                _ => Details::default(),
            };
            let root = root.path.clone();
            tell(Event::Kept {
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
fn is_untold(one: &PassItem) -> bool {
    one.temp.as_ref().is_some_and(|temp| !temp.is_kept())
}

#[derive(PartialEq, Eq, Clone, Copy)]
enum Looking {
    First,
    Again,
}

/// Sleeps until the second look is due for everything that it can be due for, or until the end is asked
/// for.
fn wait_for(dirs: &[(PathBuf, Vec<PassItem>)], root: &Root, lag: Duration, stop: &Stop) {
    let longest = root.policy.grace.random.max(root.policy.grace.fixed);
    let now = clock::mono();
    // Where dates are of whole seconds, looks are further apart: by a second and a half at most.
    let soon = now.after(min_observation_gap(longest.max(lag * 3), lag));
    let temps = dirs
        .iter()
        .flat_map(|(_, due)| due)
        .filter_map(|one| one.temp.as_ref());
    let last = temps.map(Tracked::due).filter(|due| *due <= soon).max();
    if let Some(last) = last {
        // A millisecond more, because a sleep may end a little early by another clock.
        stop.sleep(last.since(now) + Duration::from_millis(1));
    }
}

/// Temps of one directory that are passed over together.
struct Part<'a> {
    below: &'a Path,
    due: &'a mut [PassItem],
}

/// What all parts have in common.
#[derive(Clone, Copy)]
struct Around<'a> {
    root: &'a Root,
    id: Option<RootId>,
    engine: &'a Engine,
    stop: &'a Stop,
    clocks: ClockJumpDetector,
}

impl Around<'_> {
    /// Processes one part after the other, until there is none left, the end is asked for, or `told` says
    /// no: it is given the part's number, what happened, and how many temps that were.
    fn work<'a>(
        mut self,
        todo: &Mutex<impl Iterator<Item = (usize, Part<'a>)>>,
        told: &mut dyn FnMut(usize, Vec<Event>, usize) -> bool,
    ) {
        let lease_thread = LeaseThread::new();
        let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
        // A part that is taken is processed to its end: the parts before it are.
        while let Some(batch) = self.stop.begin_batch()
            && let Some((index, part)) = next()
        {
            let dir_context = DirContext {
                root: self.root,
                id: self.id,
                below: part.below,
            };
            let mut events = Vec::new();
            let mut tell = |event| events.push(event);
            Pass::new(self.engine, dir_context, &lease_thread, &mut tell)
                .run(&mut self.clocks, part.due);
            drop(batch);
            if !told(index, events, part.due.len()) {
                return;
            }
        }
    }
}

/// Passes over all parts by several threads, and tells what happens here, in the order of the parts.
/// Each thread waits until the events of its part were told.
fn side_by_side(
    around: Around<'_>,
    parts: Vec<Part<'_>>,
    tell: &mut dyn FnMut(Event),
    progress: &(dyn Fn(usize, usize) + Sync),
) {
    let total = parts.iter().map(|part| part.due.len()).sum();
    let most = pass::max_workers().min(parts.len());
    let todo = Mutex::new(parts.into_iter().enumerate());
    let (send, receive) = bounded(most);
    let mut done = 0;
    std::thread::scope(|scope| {
        let mut go_on = Vec::with_capacity(most);
        // One part needs no other thread.
        while most > 1 && go_on.len() < most {
            let (go, may_go_on) = bounded(1);
            let (todo, send, thread) = (&todo, send.clone(), go_on.len());
            let work = move || {
                around.work(todo, &mut |index, events, count| {
                    let sent = send.send((index, thread, events, count));
                    sent.is_ok() && may_go_on.recv().is_ok()
                })
            };
            match std::thread::Builder::new().spawn_scoped(scope, work) {
                Ok(_) => go_on.push(go),
                Err(_) => break,
            }
        }
        drop(send);
        if go_on.is_empty() {
            return around.work(&todo, &mut |_, events, count| {
                events.into_iter().for_each(&mut *tell);
                done += count;
                progress(done, total);
                true
            });
        }
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (index, thread, events, count) in receive {
            early.insert(index, (thread, events, count));
            while let Some((thread, events, count)) = early.remove(&next) {
                next += 1;
                events.into_iter().for_each(&mut *tell);
                done += count;
                progress(done, total);
                _ = go_on.get(thread).map(|go| go.send(()));
            }
        }
    });
}

/// Gives the claims that a crash left their names back.
fn put_in_order(around: Around<'_>, found: &mut Found, tell: &mut dyn FnMut(Event)) {
    let Around {
        root,
        id,
        engine,
        stop,
        ..
    } = around;
    if stop.is_stopped() {
        return;
    }
    if let Ok(Some(room)) = Quarantine::open_existing(&root.path, id) {
        room.remove_stale_slots();
    }
    let lease_thread = LeaseThread::new();
    for (below, claim) in std::mem::take(&mut found.claims) {
        let Some(_batch) = stop.begin_batch() else {
            return;
        };
        let dir_context = DirContext {
            root,
            id,
            below: &below,
        };
        match pass::recover(engine, dir_context, &lease_thread, &claim, tell) {
            Returned::Back(name) => found.add(below, name),
            Returned::Kept(reason) => tell(pass::kept_claim(dir_context, &claim, reason, None)),
            Returned::Failed | Returned::Done => {}
        }
    }
}
