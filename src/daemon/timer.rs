//! The timer thread: sleeps until the nearest deadline, then passes over what is due.
//!
//! It never polls. A sweep over the map at time *t* collects everything that is due before
//! *t + grace/2*; a temp that is created later cannot be due before that. So the map is swept once
//! in half a grace, and not at all while it is empty.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Shared, Whose, keeper};
use crate::clock;
use crate::decide::time::{ClockWatch, Mono};
use crate::event::Event;
use crate::evidence::Asker;
use crate::pass::{Due, Ground, Pass};

/// What is due soon, in order.
#[derive(Default)]
struct Agenda {
    near: BinaryHeap<Reverse<(Mono, PathBuf)>>,
    /// Everything that is due before this is in `near`.
    horizon: Mono,
}

/// How many are taken up at a time: the sooner the first ones are told of, the sooner a stop works.
const AT_ONCE: usize = 512;

pub(super) fn run(shared: &Shared, bell: &Receiver<()>, keeper: &Sender<keeper::Word>) {
    let _guard = Guard(shared, keeper);
    let asker = Asker::new();
    let mut clocks = ClockWatch::default();
    clocks.read(clock::now());
    let mut agenda = Agenda::default();
    while !shared.is_stopping() {
        shared.round(Whose::Timer);
        if clock::mono() >= agenda.horizon {
            // Only here, half a grace after the last time, and not whenever the map is empty: else
            // every healthy write would wake this thread.
            if shared.temps.is_empty() && shared.temps.fall_asleep() {
                shared.temps.shrink();
                // The ring may be the one that says to stop: nothing rings after it.
                if bell.recv().is_err() || shared.is_stopping() {
                    return;
                }
                let _ = shared.stirring.try_send(());
            }
            agenda.sweep(shared, clock::mono());
        }
        let due = agenda.take(clock::mono());
        if due.is_empty() {
            match bell.recv_deadline(clock::instant(agenda.next())) {
                Ok(()) => agenda.horizon = Mono::default(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            continue;
        }
        if pass_over(shared, &asker, &mut clocks, due, &mut agenda) {
            let _ = keeper.send(keeper::Word::Quarantined);
        }
        if bell.try_recv().is_ok() {
            agenda.horizon = Mono::default();
        }
    }
}

/// A timer thread that panics takes the whole watcher down with it, and says so: one that looks
/// alive and removes nothing would be worse.
struct Guard<'a>(&'a Shared, &'a Sender<keeper::Word>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a mistake in orphand has ended its timer thread; the watch ends with it");
            self.0
                .stopping
                .store(true, std::sync::atomic::Ordering::SeqCst);
            super::guard(&self.0.ledger).total.failed += 1;
            let _ = self.1.send(keeper::Word::Stop);
        }
    }
}

impl Agenda {
    fn sweep(&mut self, shared: &Shared, now: Mono) {
        self.horizon = now.after(shared.temps.shortest() / 2);
        self.near = shared
            .temps
            .due_before(self.horizon)
            .into_iter()
            .map(Reverse)
            .collect();
    }

    fn take(&mut self, now: Mono) -> Vec<PathBuf> {
        let mut due = Vec::new();
        while due.len() < AT_ONCE {
            match self.near.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => break,
            }
            due.extend(self.near.pop().map(|Reverse((_, path))| path));
        }
        due
    }

    fn next(&self) -> Mono {
        let nearest = self
            .near
            .peek()
            .map_or(self.horizon, |Reverse((at, _))| *at);
        nearest.min(self.horizon)
    }

    fn put(&mut self, at: Mono, path: PathBuf) {
        if at < self.horizon {
            self.near.push(Reverse((at, path)));
        }
    }
}

/// Passes over `due`, directory by directory. Says whether something was moved to a quarantine.
fn pass_over(
    shared: &Shared,
    asker: &Asker,
    clocks: &mut ClockWatch,
    due: Vec<PathBuf>,
    agenda: &mut Agenda,
) -> bool {
    let now = clock::mono();
    let mut by_dir: BTreeMap<PathBuf, Vec<Due>> = BTreeMap::new();
    for path in due {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let Some(temp) = shared.temps.take_up(&path, now) else {
            continue;
        };
        let due = Due {
            name: name.to_owned(),
            temp: Some(temp),
        };
        match by_dir.get_mut(dir) {
            Some(others) => others.push(due),
            None => _ = by_dir.insert(dir.to_owned(), vec![due]),
        }
    }
    let mut moved = false;
    for (dir, mut due) in by_dir {
        let mut tell = |event: Event| {
            moved |= matches!(event, Event::Quarantined { .. });
            shared.tell(event);
        };
        // A stop is heard between two directories; what is left is put down as it was.
        if !shared.is_stopping() {
            shared.round(Whose::Timer);
            pass_over_one(shared, asker, clocks, &dir, &mut due, &mut tell);
        }
        for one in due {
            let path = dir.join(&one.name);
            let at = one.temp.as_ref().map(|temp| temp.due());
            shared
                .temps
                .put_down(&path, one.temp.map(|temp| temp.settled_down()));
            if let Some(at) = at {
                agenda.put(at, path);
            }
        }
    }
    moved
}

fn pass_over_one(
    shared: &Shared,
    asker: &Asker,
    clocks: &mut ClockWatch,
    dir: &Path,
    due: &mut [Due],
    tell: &mut dyn FnMut(Event),
) {
    // A root that is away, or a directory that no rule covers any more: nothing is known of it.
    let territory = shared.territory();
    let ground = territory.root_of(dir).and_then(|(index, root, below)| {
        let id = Some(territory.id(index)?);
        Some(Ground { root, id, below })
    });
    match ground {
        Some(ground) => Pass::new(&shared.tools, ground, asker, tell).run(clocks, due),
        None => due.iter_mut().for_each(|one| one.temp = None),
    }
}
