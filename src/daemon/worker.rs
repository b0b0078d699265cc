//! A worker: a thread that processes due temps of one directory and ends.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::command::{Command, Moved};
use super::panic_guard::PanicGuard;
use super::shared::Shared;
use crate::core::event::{Disposed, Event};
use crate::core::time::{ClockJumpDetector, Mono};
use crate::engine::{DirContext, Pass, PassItem};
use crate::evidence::UseChecker;
use crate::index::{DirPath, Key};
use crate::sys::clock;

/// The due temps of one directory.
pub(super) struct Task {
    pub(super) dir: DirPath,
    pub(super) due: Vec<Key>,
    /// The clock readings so far.
    pub(super) clocks: ClockJumpDetector,
    /// Receives the result of the task.
    pub(super) done: Sender<TaskDone>,
}

/// The result of a task.
pub(super) struct TaskDone {
    pub(super) dir: DirPath,
    /// The temps that are still tracked, with their next deadlines.
    pub(super) next: Vec<(Mono, Key)>,
    /// The files that were moved to a quarantine, if any were.
    pub(super) moved: Option<Moved>,
}

/// The number of temps that are processed at a time. In a small chunk the first events are reported sooner, and a stop
/// takes effect sooner.
const CHUNK: usize = 512;

/// Runs `task` in a new thread. Returns the task if no thread can be started.
pub(super) fn start(
    shared: &Arc<Shared>,
    supervisor: &Sender<Command>,
    task: Task,
) -> Result<(), Task> {
    // The closure is lost if the thread cannot be started, so the task is sent to the thread afterwards.
    let (task_tx, task_rx) = crossbeam_channel::bounded::<Task>(1);
    let guard = PanicGuard::new(Arc::clone(shared), Some(supervisor.clone()));
    let thread = std::thread::Builder::new().name("orphand-worker".into());
    let started = thread.spawn(move || {
        if let Ok(task) = task_rx.recv() {
            task.run(&guard.shared);
        }
    });
    match started {
        Ok(_) => task_tx.send(task).map_err(|lost| lost.0),
        Err(error) => {
            log::debug!("cannot start a worker thread: {error}");
            Err(task)
        }
    }
}

impl Task {
    /// Runs the task in this thread.
    pub(super) fn run(self, shared: &Shared) {
        let mut worker = Worker {
            shared,
            use_checker: UseChecker::new(),
            dir: self.dir.as_path(),
            clocks: self.clocks,
            next: Vec::new(),
            moved: None,
        };
        for chunk in self.due.chunks(CHUNK) {
            // The worker checks for a stop between two chunks. Temps that are not checked out stay as they are.
            if shared.is_stopping() {
                break;
            }
            worker.process(chunk);
        }
        let Worker { next, moved, .. } = worker;
        let _ = self.done.send(TaskDone {
            dir: self.dir,
            next,
            moved,
        });
    }
}

/// A task that runs.
struct Worker<'a> {
    shared: &'a Shared,
    use_checker: UseChecker,
    dir: &'a Path,
    clocks: ClockJumpDetector,
    next: Vec<(Mono, Key)>,
    moved: Option<Moved>,
}

impl Worker<'_> {
    /// Processes the temps in `chunk` that are still tracked.
    fn process(&mut self, chunk: &[Key]) {
        let (shared, dir) = (self.shared, self.dir);
        let now = clock::mono();
        let mut keys = Vec::with_capacity(chunk.len());
        let mut items = Vec::with_capacity(chunk.len());
        for key in chunk {
            if let Some(temp) = shared.temps.check_out(key, now) {
                keys.push(key);
                items.push(PassItem::new(key.name().to_owned(), temp));
            }
        }
        // If the root is unavailable, or no rule covers the directory any more, its temps are forgotten.
        let active_roots = shared.active_roots();
        let dir_context = active_roots.root_of(dir).and_then(|(active, below)| {
            let id = Some(active.id()?);
            let root = &active.root;
            Some(DirContext { root, id, below })
        });
        let mut emit = |event: Event| {
            if let Event::Quarantined { disposed, .. } = &event {
                self.moved = self.moved.max(Some(kind_of(shared, dir, disposed)));
            }
            shared.emit(event);
        };
        match dir_context {
            Some(dir_context) => {
                Pass::new(&shared.engine, dir_context, &self.use_checker, &mut emit)
                    .run(&mut self.clocks, &mut items);
            }
            None => items.iter_mut().for_each(|item| item.temp = None),
        }
        for (key, item) in keys.into_iter().zip(items) {
            if let Some(temp) = &item.temp {
                self.next.push((temp.due(), key.clone()));
            }
            let temp = item.temp.map(|temp| temp.check_in());
            shared.temps.check_in(key, temp);
        }
    }
}

/// Returns the kind of a temp that was moved.
fn kind_of(shared: &Shared, dir: &Path, disposed: &Disposed) -> Moved {
    let name = disposed.subject.path.file_name().unwrap_or_default();
    let is_of_group = shared
        .active_roots()
        .root_of(dir)
        .is_some_and(|(active, _)| active.root.policy.names.shape(name).group.is_some());
    match is_of_group {
        true => Moved::OfGroup,
        false => Moved::Ungrouped,
    }
}
