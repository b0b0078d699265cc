//! A hand: a thread that passes over what is due in one folder, and ends.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::panic_guard::PanicGuard;
use super::{Shared, supervisor};
use crate::clock;
use crate::decide::time::{ClockJumpDetector, Mono};
use crate::event::Event;
use crate::evidence::LeaseThread;
use crate::pass::{DirContext, Pass, PassItem};
use crate::temps::{Folder, Key};

/// What is due in a folder.
pub(super) struct Task {
    pub(super) folder: Folder,
    pub(super) due: Vec<Key>,
    /// What is known of the clocks until now.
    pub(super) clocks: ClockJumpDetector,
    /// Where it is said that it is through.
    pub(super) done: Sender<TaskDone>,
}

/// That a task is through.
pub(super) struct TaskDone {
    pub(super) folder: Folder,
    /// What is still known of, and when it is due next.
    pub(super) next: Vec<(Mono, Key)>,
    /// Something was quarantined to a quarantine.
    pub(super) quarantined: bool,
}

/// How many are taken up at a time: the sooner the first ones are told of, the sooner a stop works.
const BATCH: usize = 512;

/// Has `task` done by a new thread. It comes back where there can be none.
pub(super) fn start(
    shared: &Arc<Shared>,
    supervisor: &Sender<supervisor::Command>,
    task: Task,
) -> Result<(), Task> {
    // The closure is lost where the thread cannot be made: what it is to do is handed over after.
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
            log::debug!("no more threads: {error}");
            Err(task)
        }
    }
}

impl Task {
    /// Does it, in this thread.
    pub(super) fn run(mut self, shared: &Shared) {
        let lease_thread = LeaseThread::new();
        let (mut next, mut quarantined) = (Vec::new(), false);
        for batch in self.due.chunks(BATCH) {
            // A stop is heard between two parts; what is not taken up stays as it was.
            if shared.is_stopping() {
                break;
            }
            let mut emit = |event: Event| {
                quarantined |= matches!(event, Event::Quarantined { .. });
                shared.emit(event);
            };
            let folder = self.folder.as_path();
            process(
                shared,
                &lease_thread,
                &mut self.clocks,
                folder,
                batch,
                &mut emit,
                &mut next,
            );
        }
        let _ = self.done.send(TaskDone {
            folder: self.folder,
            next,
            quarantined,
        });
    }
}

fn process(
    shared: &Shared,
    lease_thread: &LeaseThread,
    clocks: &mut ClockJumpDetector,
    folder: &Path,
    batch: &[Key],
    emit: &mut dyn FnMut(Event),
    next: &mut Vec<(Mono, Key)>,
) {
    let now = clock::mono();
    let mut keys = Vec::with_capacity(batch.len());
    let mut items = Vec::with_capacity(batch.len());
    for key in batch {
        if let Some(temp) = shared.temps.check_out(key, now) {
            keys.push(key);
            items.push(PassItem {
                name: key.name().to_owned(),
                temp: Some(temp),
            });
        }
    }
    // A root that is away, or a directory that no rule covers any more: nothing is known of it.
    let active_roots = shared.active_roots();
    let dir_context = active_roots
        .root_of(folder)
        .and_then(|(index, root, below)| {
            let id = Some(active_roots.id(index)?);
            Some(DirContext { root, id, below })
        });
    match dir_context {
        Some(dir_context) => {
            Pass::new(&shared.engine, dir_context, lease_thread, emit).run(clocks, &mut items)
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
