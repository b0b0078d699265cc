//! The scheduler thread: sleeps until the next deadline, then dispatches due temps to workers.
//!
//! It never polls. At a time *t* it reads the map and queues, by deadline, the temps that are due before
//! *t + grace/2*, up to `MAX_READ` of them. A temp that is created later cannot be due before that time. If no temp
//! was created since the map was read, the scheduler also knows the next deadline, however distant it is, and sleeps
//! until then. The next creation wakes it.
//!
//! It does not access any file itself. Each directory with due temps is processed by a worker thread, several
//! directories in parallel, so that a slow disk delays only its own directories. At most one worker processes a
//! directory at a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, at, never, select, unbounded};

use super::command::Command;
use super::panic_guard::PanicGuard;
use super::shared::{CriticalThread, Shared};
use super::worker::{self, Task, TaskDone};
use crate::core::time::{ClockJumpDetector, Mono};
use crate::engine;
use crate::index::{DirPath, Key};
use crate::sys::clock;

/// The temps that are due soon, in order of their deadlines.
#[derive(Default)]
struct DeadlineQueue {
    near: BinaryHeap<Reverse<(Mono, Key)>>,
    /// Every temp that is due before this time is in `near`, or in a directory that is queued or has a worker.
    horizon: Mono,
    /// No other temp is due before this time, except those that were created since the map was read.
    next_after: Mono,
}

/// The due temps, grouped by directory.
#[derive(Default)]
struct WorkQueue {
    /// The directories that wait for a worker; the one that has waited longest is first.
    queue: VecDeque<DirPath>,
    dirs: HashMap<DirPath, QueuedDir>,
}

/// A directory that waits for a worker, or has one.
#[derive(Default)]
struct QueuedDir {
    due: VecDeque<Key>,
    has_worker: bool,
    /// A read of the map has skipped this directory since it was queued.
    was_skipped: bool,
}

/// The largest number of temps that are queued when the map is read. The rest is queued after these are processed, so
/// that the keys of a million due temps are not copied at once.
const MAX_READ: usize = 32_768;

/// The largest number of temps in one directory that a worker gets before other directories have their turn.
const MAX_PER_TASK: usize = 4_096;

/// The scheduler's state.
struct Scheduler<'a> {
    shared: &'a Arc<Shared>,
    supervisor: &'a Sender<Command>,
    clocks: ClockJumpDetector,
    queue: DeadlineQueue,
    work: WorkQueue,
    max_workers: usize,
    busy_workers: usize,
    done_tx: Sender<TaskDone>,
}

pub(super) fn run(shared: &Arc<Shared>, wake_rx: &Receiver<()>, supervisor: &Sender<Command>) {
    let _guard = PanicGuard::new(Arc::clone(shared), Some(supervisor.clone()));
    let (done_tx, done_rx) = unbounded();
    let mut scheduler = Scheduler {
        shared,
        supervisor,
        clocks: ClockJumpDetector::default(),
        queue: DeadlineQueue::default(),
        work: WorkQueue::default(),
        max_workers: engine::max_workers(),
        busy_workers: 0,
        done_tx,
    };
    scheduler.clocks.read(clock::now());
    while !shared.is_stopping() {
        // The heartbeat continues while a worker hangs: restarting the program would not repair a disk that does not
        // respond.
        shared.beat(CriticalThread::Scheduler);
        let now = clock::mono();
        scheduler.queue.refill(shared, &mut scheduler.work, now);
        scheduler.queue.take_due(clock::mono(), &mut scheduler.work);
        scheduler.start_workers();
        scheduler.sleep(wake_rx, &done_rx);
    }
    // The running workers end after their current chunk. The channel closes when the last one has ended.
    drop(scheduler);
    while done_rx.recv().is_ok() {}
}

impl Scheduler<'_> {
    /// Starts workers for the directories that wait.
    fn start_workers(&mut self) {
        while self.busy_workers < self.max_workers
            && let Some((dir, due)) = self.work.next()
        {
            self.clocks.read(clock::now());
            let task = Task {
                dir,
                due,
                clocks: self.clocks,
                done: self.done_tx.clone(),
            };
            match worker::start(self.shared, self.supervisor, task) {
                Ok(()) => {}
                // No more threads can be started now: the existing workers have to suffice.
                Err(task) if self.busy_workers > 0 => {
                    self.work.requeue(task);
                    self.max_workers = self.busy_workers;
                    return;
                }
                Err(task) => task.run(self.shared),
            }
            self.busy_workers += 1;
        }
    }

    /// Sleeps until the next deadline, or until the scheduler is woken or a task is done.
    fn sleep(&mut self, wake_rx: &Receiver<()>, done_rx: &Receiver<TaskDone>) {
        let temps = &self.shared.temps;
        // While directories wait for a worker, there is nothing to do until a worker is free.
        let has_backlog = !self.work.queue.is_empty();
        let wake_at = match has_backlog {
            true => Mono(u64::MAX),
            false => self.queue.next_deadline(),
        };
        let half = temps.shortest_grace() / 2;
        let is_long = !has_backlog && wake_at > clock::mono().after(half);
        if is_long && !temps.waker().fall_asleep() {
            return self.queue.note_creation();
        }
        let was_empty = is_long && temps.is_empty();
        let timer = match wake_at {
            Mono(u64::MAX) => never(),
            moment => at(clock::instant(moment)),
        };
        select! {
            recv(wake_rx) -> _ => {
                if temps.waker().take_stale() {
                    self.queue.forget();
                } else {
                    self.queue.note_creation();
                }
                if was_empty {
                    let _ = self.shared.activity_tx.try_send(());
                }
            }
            recv(done_rx) -> done => {
                if let Ok(done) = done {
                    self.finish(done);
                }
            }
            recv(timer) -> _ => {}
        }
        if self.busy_workers == 0 {
            self.max_workers = engine::max_workers();
        }
    }

    fn finish(&mut self, done: TaskDone) {
        self.busy_workers -= 1;
        if let Some(moved) = done.moved {
            let _ = self.supervisor.send(Command::Quarantined(moved));
        }
        for (at, key) in done.next {
            self.queue.insert(at, key);
        }
        if self.work.finish(&done.dir) {
            self.queue.forget();
        }
    }
}

impl DeadlineQueue {
    /// Moves the horizon forward if it has been reached, and reads the map again if that is needed.
    fn refill(&mut self, shared: &Shared, work: &mut WorkQueue, now: Mono) {
        if now < self.horizon || self.is_due(now) || !work.queue.is_empty() {
            return;
        }
        let temps = &shared.temps;
        let half = temps.shortest_grace() / 2;
        temps.shrink();
        // The first temp that was created since the map was read is due after this time, and all later ones are due
        // even later.
        let first_new = temps
            .waker()
            .first_created()
            .map_or(Mono(u64::MAX), |created| created.after(half));
        self.horizon = self.next_after.min(first_new);
        if now < self.horizon {
            return;
        }
        let is_queued = |dir: &DirPath| work.dirs.contains_key(dir);
        let is_empty = work.dirs.is_empty();
        let nearest =
            temps.due_before(now.after(half), MAX_READ, |dir| !is_empty && is_queued(dir));
        for dir in work.dirs.values_mut() {
            dir.was_skipped = true;
        }
        self.near = nearest.due.into_iter().map(Reverse).collect();
        self.horizon = nearest.horizon;
        self.next_after = nearest.next_after;
    }

    /// Discards the known deadlines, so that the next refill reads the map.
    fn forget(&mut self) {
        self.horizon = Mono::default();
        self.next_after = Mono::default();
    }

    /// Moves the horizon back to now, because a temp was created while the horizon was far away.
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
        match self.dirs.get_mut(key.dir()) {
            Some(dir) => dir.due.push_back(key),
            None => {
                let dir = Arc::clone(key.dir());
                self.queue.push_back(Arc::clone(&dir));
                let due = VecDeque::from([key]);
                let new = QueuedDir {
                    due,
                    ..QueuedDir::default()
                };
                self.dirs.insert(dir, new);
            }
        }
    }

    /// Returns the next directory to process, with at most [`MAX_PER_TASK`] of its due temps.
    fn next(&mut self) -> Option<(DirPath, Vec<Key>)> {
        let dir = self.queue.pop_front()?;
        let queued = self.dirs.get_mut(&dir)?;
        queued.has_worker = true;
        let count = queued.due.len().min(MAX_PER_TASK);
        Some((dir, queued.due.drain(..count).collect()))
    }

    /// Puts back a task that no worker could be started for.
    fn requeue(&mut self, task: Task) {
        if let Some(queued) = self.dirs.get_mut(&task.dir) {
            queued.has_worker = false;
            task.due
                .into_iter()
                .rev()
                .for_each(|key| queued.due.push_front(key));
            self.queue.push_front(task.dir);
        }
    }

    /// Marks a directory as free. Returns whether it may have due temps that the queue does not know.
    fn finish(&mut self, dir: &DirPath) -> bool {
        let Some(queued) = self.dirs.get_mut(dir) else {
            return false;
        };
        queued.has_worker = false;
        if !queued.due.is_empty() {
            self.queue.push_back(Arc::clone(dir));
            return false;
        }
        self.dirs
            .remove(dir)
            .is_some_and(|queued| queued.was_skipped)
    }
}
