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

use super::panic_guard::PanicGuard;
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
    has_worker: bool,
    /// A sweep has passed it over meanwhile.
    was_skipped: bool,
}

/// The most that a sweep collects. What is due beyond that is collected when these are through, so
/// that a million that are due at once are not copied at once.
const MAX_SWEPT: usize = 32_768;

/// The most of one folder that a hand is given before others have their count.
const MAX_PER_TASK: usize = 4_096;

pub(super) fn run(
    shared: &Arc<Shared>,
    waker: &Receiver<()>,
    supervisor: &Sender<supervisor::Command>,
) {
    let _guard = PanicGuard::new(Arc::clone(shared), Some(supervisor.clone()));
    let mut clocks = ClockJumpDetector::default();
    clocks.read(clock::now());
    let mut queue = DeadlineQueue::default();
    let mut work = WorkQueue::default();
    let (done_tx, done_rx) = unbounded();
    let (mut max_workers, mut busy_workers) = (pass::max_workers(), 0);
    while !shared.is_stopping() {
        // Also while a hand hangs: a disk that does not answer is not mended by a new start.
        shared.beat(CriticalThread::Scheduler);
        queue.refill(shared, &mut work, clock::mono());
        queue.take_due(clock::mono(), &mut work);
        while busy_workers < max_workers
            && let Some((folder, due)) = work.next()
        {
            clocks.read(clock::now());
            let task = Task {
                folder,
                due,
                clocks,
                done: done_tx.clone(),
            };
            match worker::start(shared, supervisor, task) {
                Ok(()) => {}
                // There can be no more threads now: those that are there have to do.
                Err(task) if busy_workers > 0 => {
                    work.requeue(task);
                    max_workers = busy_workers;
                    break;
                }
                Err(task) => task.run(shared),
            }
            busy_workers += 1;
        }
        // While folders wait for a hand, nothing can be done before one is free.
        let has_backlog = !work.queue.is_empty();
        let wake_at = if has_backlog {
            Mono(u64::MAX)
        } else {
            queue.next_deadline()
        };
        let half = shared.temps.shortest_grace() / 2;
        let is_long_sleep = !has_backlog && wake_at > clock::mono().after(half);
        if is_long_sleep && !shared.temps.fall_asleep() {
            queue.note_creation();
            continue;
        }
        let was_empty = is_long_sleep && shared.temps.is_empty();
        let timer = match wake_at {
            Mono(u64::MAX) => never(),
            moment => at(clock::instant(moment)),
        };
        select! {
            recv(waker) -> _ => {
                if shared.temps.take_stale() {
                    queue.forget();
                } else {
                    queue.note_creation();
                }
                if was_empty {
                    let _ = shared.activity_tx.try_send(());
                }
            }
            recv(done_rx) -> done => {
                if let Ok(done) = done {
                    busy_workers -= 1;
                    if done.quarantined {
                        let _ = supervisor.send(supervisor::Command::Quarantined);
                    }
                    for (at, key) in done.next {
                        queue.insert(at, key);
                    }
                    if work.finish(&done.folder) {
                        queue.forget();
                    }
                }
            }
            recv(timer) -> _ => {}
        }
        if busy_workers == 0 {
            max_workers = pass::max_workers();
        }
    }
    // Whoever is at work ends after what it has begun; the channel ends with the last of them.
    drop(done_tx);
    while done_rx.recv().is_ok() {}
}

impl DeadlineQueue {
    /// When the horizon has been reached: moves it on, by a new sweep where one is needed.
    fn refill(&mut self, shared: &Shared, work: &mut WorkQueue, now: Mono) {
        if now < self.horizon || self.is_due(now) || !work.queue.is_empty() {
            return;
        }
        let temps = &shared.temps;
        let half = temps.shortest_grace() / 2;
        temps.shrink();
        // What was created first since the sweep is due after this, and the rest after that.
        let first_new = temps
            .first_created()
            .map_or(Mono(u64::MAX), |created| created.after(half));
        self.horizon = self.next_after.min(first_new);
        if now < self.horizon {
            return;
        }
        let is_queued = |folder: &Folder| work.folders.contains_key(folder);
        let is_empty = work.folders.is_empty();
        let nearest = temps.due_before(now.after(half), MAX_SWEPT, |folder| {
            !is_empty && is_queued(folder)
        });
        for folder in work.folders.values_mut() {
            folder.was_skipped = true;
        }
        self.near = nearest.due.into_iter().map(Reverse).collect();
        self.horizon = nearest.horizon;
        self.next_after = nearest.next_after;
    }

    /// Nothing is queued any more of when what is due.
    fn forget(&mut self) {
        self.horizon = Mono::default();
        self.next_after = Mono::default();
    }

    /// Something was created while the horizon was far away.
    fn note_creation(&mut self) {
        self.horizon = self.horizon.min(clock::mono());
    }

    fn is_due(&self, now: Mono) -> bool {
        let nearest = self.near.peek();
        nearest.is_some_and(|Reverse((at, _))| *at <= now)
    }

    fn take_due(&mut self, now: Mono, work: &mut WorkQueue) {
        while self.is_due(now) {
            if let Some(Reverse((_, key))) = self.near.pop() {
                work.add(key);
            }
        }
    }

    fn next_deadline(&self) -> Mono {
        let nearest = self.near.peek();
        nearest.map_or(self.horizon, |Reverse((at, _))| self.horizon.min(*at))
    }

    fn insert(&mut self, at: Mono, key: Key) {
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
        let queued = self.folders.get_mut(&folder)?;
        queued.has_worker = true;
        let count = queued.due.len().min(MAX_PER_TASK);
        Some((folder, queued.due.drain(..count).collect()))
    }

    /// It could not be worked on now.
    fn requeue(&mut self, task: Task) {
        if let Some(queued) = self.folders.get_mut(&task.folder) {
            queued.has_worker = false;
            task.due
                .into_iter()
                .rev()
                .for_each(|key| queued.due.push_front(key));
            self.queue.push_front(task.folder);
        }
    }

    /// Its hand is free again. Says whether there may be something due in it that nobody knows of.
    fn finish(&mut self, folder: &Folder) -> bool {
        let Some(queued) = self.folders.get_mut(folder) else {
            return false;
        };
        queued.has_worker = false;
        if !queued.due.is_empty() {
            self.queue.push_back(Arc::clone(folder));
            return false;
        }
        self.folders
            .remove(folder)
            .is_some_and(|queued| queued.was_skipped)
    }
}
