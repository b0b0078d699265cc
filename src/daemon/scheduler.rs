//! The timer thread: sleeps until the nearest deadline, then has what is due passed over.
//!
//! It never polls. A sweep over the map at time *t* collects everything that is due before
//! *t + grace/2*; a temp that is created later cannot be due before that. If none was created since
//! the sweep, it also knows when the next one is due, however far that is, and sleeps until then: the
//! next creation wakes it.
//!
//! It touches no file itself. Each folder in which something is due is passed over by a thread of its
//! own, several folders at once, so that a slow disk holds up nobody else. A folder is in one hand at
//! a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, at, never, select, unbounded};

use super::worker::{self, Task};
use super::{CriticalThread, Shared, supervisor};
use crate::clock;
use crate::decide::time::{ClockJumpDetector, Mono};
use crate::pass;
use crate::temps::{Folder, Key};

/// What is due soon, in order.
#[derive(Default)]
struct DeadlineQueue {
    near: BinaryHeap<Reverse<(Mono, Key)>>,
    /// Everything that is due before this is in `near`, or in a folder that is in hand.
    horizon: Mono,
    /// Nothing else is due before this, but what was created since the sweep.
    next_after: Mono,
}

/// What is due, folder by folder.
#[derive(Default)]
struct WorkQueue {
    /// Those that wait for a hand, the one that has waited longest first.
    queue: VecDeque<Folder>,
    folders: HashMap<Folder, QueuedFolder>,
}

/// A folder that waits for a hand, or has one.
#[derive(Default)]
struct QueuedFolder {
    due: VecDeque<Key>,
    is_worked_on: bool,
    /// A sweep has passed it over meanwhile.
    was_left_out: bool,
}

/// The most that a sweep collects. What is due beyond that is collected when these are through, so
/// that a million that are due at once are not copied at once.
const MOST: usize = 32_768;

/// The most of one folder that a hand is given before others have their turn.
const TURN: usize = 4_096;

pub(super) fn run(
    shared: &Arc<Shared>,
    waker: &Receiver<()>,
    supervisor: &Sender<supervisor::Command>,
) {
    let _guard = worker::PanicGuard::new(Arc::clone(shared), supervisor.clone());
    let mut clocks = ClockJumpDetector::default();
    clocks.read(clock::now());
    let mut agenda = DeadlineQueue::default();
    let mut folders = WorkQueue::default();
    let (done, finished) = unbounded();
    let (mut workers, mut at_work) = (pass::max_workers(), 0);
    while !shared.is_stopping() {
        // Also while a hand hangs: a disk that does not answer is not mended by a new start.
        shared.beat(CriticalThread::Timer);
        agenda.refill(shared, &mut folders, clock::mono());
        agenda.take(clock::mono(), &mut folders);
        while at_work < workers
            && let Some((folder, due)) = folders.next()
        {
            clocks.read(clock::now());
            let job = Task {
                folder,
                due,
                clocks,
                done: done.clone(),
            };
            match worker::start(shared, supervisor, job) {
                Ok(()) => {}
                // There can be no more threads now: those that are there have to do.
                Err(job) if at_work > 0 => {
                    folders.requeue(job);
                    workers = at_work;
                    break;
                }
                Err(job) => job.run(shared),
            }
            at_work += 1;
        }
        // While folders wait for a hand, nothing can be done before one is free.
        let is_busy = !folders.queue.is_empty();
        let sleep = if is_busy {
            Mono(u64::MAX)
        } else {
            agenda.next()
        };
        let half = shared.temps.shortest() / 2;
        let sleeps_long = !is_busy && sleep > clock::mono().after(half);
        if sleeps_long && !shared.temps.fall_asleep() {
            agenda.note_creation();
            continue;
        }
        let was_empty = sleeps_long && shared.temps.is_empty();
        let schedule = match sleep {
            Mono(u64::MAX) => never(),
            moment => at(clock::instant(moment)),
        };
        select! {
            recv(waker) -> _ => {
                if shared.temps.is_stale() {
                    agenda.forget();
                } else {
                    agenda.note_creation();
                }
                if was_empty {
                    let _ = shared.activity_tx.try_send(());
                }
            }
            recv(finished) -> one => {
                if let Ok(one) = one {
                    at_work -= 1;
                    if one.moved {
                        let _ = supervisor.send(supervisor::Command::Quarantined);
                    }
                    for (at, key) in one.left {
                        agenda.put(at, key);
                    }
                    if folders.finish(&one.folder) {
                        agenda.forget();
                    }
                }
            }
            recv(schedule) -> _ => {}
        }
        if at_work == 0 {
            workers = pass::max_workers();
        }
    }
    // Whoever is at work ends after what it has begun; the channel ends with the last of them.
    drop(done);
    while finished.recv().is_ok() {}
}

impl DeadlineQueue {
    /// When the horizon has been reached: moves it on, by a new sweep where one is needed.
    fn refill(&mut self, shared: &Shared, folders: &mut WorkQueue, now: Mono) {
        if now < self.horizon || self.is_due(now) || !folders.queue.is_empty() {
            return;
        }
        let temps = &shared.temps;
        let half = temps.shortest() / 2;
        temps.shrink();
        // What was created first since the sweep is due after this, and the rest after that.
        let news = temps
            .first_created()
            .map_or(Mono(u64::MAX), |news| news.after(half));
        self.horizon = self.next_after.min(news);
        if now < self.horizon {
            return;
        }
        let in_hand = |folder: &Folder| folders.folders.contains_key(folder);
        let nothing_in_hand = folders.folders.is_empty();
        let nearest = temps.due_before(now.after(half), MOST, |folder| {
            !nothing_in_hand && in_hand(folder)
        });
        for folder in folders.folders.values_mut() {
            folder.was_left_out = true;
        }
        self.near = nearest.due.into_iter().map(Reverse).collect();
        self.horizon = nearest.horizon;
        self.next_after = nearest.next_after;
    }

    /// Nothing is known any more of when what is due.
    fn forget(&mut self) {
        self.horizon = Mono::default();
        self.next_after = Mono::default();
    }

    /// Something was created while the horizon was far away.
    fn note_creation(&mut self) {
        self.horizon = self.horizon.min(clock::mono());
    }

    fn is_due(&self, now: Mono) -> bool {
        let first = self.near.peek();
        first.is_some_and(|Reverse((at, _))| *at <= now)
    }

    fn take(&mut self, now: Mono, folders: &mut WorkQueue) {
        while self.is_due(now) {
            if let Some(Reverse((_, key))) = self.near.pop() {
                folders.add(key);
            }
        }
    }

    fn next(&self) -> Mono {
        let nearest = self.near.peek();
        nearest.map_or(self.horizon, |Reverse((at, _))| self.horizon.min(*at))
    }

    fn put(&mut self, at: Mono, key: Key) {
        if at < self.horizon {
            self.near.push(Reverse((at, key)));
        } else {
            self.next_after = self.next_after.min(at);
        }
    }
}

impl WorkQueue {
    fn add(&mut self, key: Key) {
        match self.folders.get_mut(key.folder()) {
            Some(folder) => folder.due.push_back(key),
            None => {
                let folder = Arc::clone(key.folder());
                self.queue.push_back(Arc::clone(&folder));
                let due = VecDeque::from([key]);
                let new = QueuedFolder {
                    due,
                    ..QueuedFolder::default()
                };
                self.folders.insert(folder, new);
            }
        }
    }

    /// The next folder to be worked on, and what is due in it, as much as it is given at a time.
    fn next(&mut self) -> Option<(Folder, Vec<Key>)> {
        let folder = self.queue.pop_front()?;
        let known = self.folders.get_mut(&folder)?;
        known.is_worked_on = true;
        let turn = known.due.len().min(TURN);
        Some((folder, known.due.drain(..turn).collect()))
    }

    /// It could not be worked on now.
    fn requeue(&mut self, job: Task) {
        if let Some(known) = self.folders.get_mut(&job.folder) {
            known.is_worked_on = false;
            job.due
                .into_iter()
                .rev()
                .for_each(|key| known.due.push_front(key));
            self.queue.push_front(job.folder);
        }
    }

    /// Its hand is free again. Says whether there may be something due in it that nobody knows of.
    fn finish(&mut self, folder: &Folder) -> bool {
        let Some(known) = self.folders.get_mut(folder) else {
            return false;
        };
        known.is_worked_on = false;
        if !known.due.is_empty() {
            self.queue.push_back(Arc::clone(folder));
            return false;
        }
        self.folders
            .remove(folder)
            .is_some_and(|known| known.was_left_out)
    }
}
