//! A worker: a thread that processes due temps of one directory and ends.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::command::Command;
use super::panic_guard::PanicGuard;
use super::shared::Shared;
use crate::core::event::Event;
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
    /// Something was moved to a quarantine.
    pub(super) quarantined: bool,
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
    pub(super) fn run(mut self, shared: &Shared) {
        let use_checker = UseChecker::new();
        let (mut next, mut quarantined) = (Vec::new(), false);
        for chunk in self.due.chunks(CHUNK) {
            // The worker checks for a stop between two chunks. Temps that are not checked out stay as they are.
            if shared.is_stopping() {
                break;
            }
            let mut emit = |event: Event| {
                quarantined |= matches!(event, Event::Quarantined { .. });
                shared.emit(event);
            };
            let dir = self.dir.as_path();
            process(
                shared,
                &use_checker,
                &mut self.clocks,
                dir,
                chunk,
                &mut emit,
                &mut next,
            );
        }
        let _ = self.done.send(TaskDone {
            dir: self.dir,
            next,
            quarantined,
        });
    }
}

fn process(
    shared: &Shared,
    use_checker: &UseChecker,
    clocks: &mut ClockJumpDetector,
    dir: &Path,
    chunk: &[Key],
    emit: &mut dyn FnMut(Event),
    next: &mut Vec<(Mono, Key)>,
) {
    let now = clock::mono();
    let mut keys = Vec::with_capacity(chunk.len());
    let mut items = Vec::with_capacity(chunk.len());
    for key in chunk {
        if let Some(temp) = shared.temps.check_out(key, now) {
            keys.push(key);
            items.push(PassItem {
                name: key.name().to_owned(),
                temp: Some(temp),
            });
        }
    }
    // If the root is unavailable, or no rule covers the directory any more, its temps are forgotten.
    let active_roots = shared.active_roots();
    let dir_context = active_roots.root_of(dir).and_then(|(active, below)| {
        let id = Some(active.id()?);
        let root = &active.root;
        Some(DirContext { root, id, below })
    });
    match dir_context {
        Some(dir_context) => {
            Pass::new(&shared.engine, dir_context, use_checker, emit).run(clocks, &mut items)
        }
        None => items.iter_mut().for_each(|item| item.temp = None),
    }
    for (key, item) in keys.into_iter().zip(items) {
        if let Some(temp) = &item.temp {
            next.push((temp.due(), key.clone()));
        }
        let temp = item.temp.map(|temp| temp.check_in());
        shared.temps.check_in(key, temp);
    }
}
