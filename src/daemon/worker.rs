//! A hand: a thread that passes over what is due in one folder, and ends.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

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

/// That a job is through.
pub(super) struct TaskDone {
    pub(super) folder: Folder,
    /// What is still known of, and when it is due next.
    pub(super) left: Vec<(Mono, Key)>,
    /// Something was moved to a quarantine.
    pub(super) moved: bool,
}

/// How many are taken up at a time: the sooner the first ones are told of, the sooner a stop works.
const AT_ONCE: usize = 512;

/// Has `job` done by a new thread. It comes back where there can be none.
pub(super) fn start(
    shared: &Arc<Shared>,
    supervisor: &Sender<supervisor::Command>,
    job: Task,
) -> Result<(), Task> {
    // The closure is lost where the thread cannot be made: what it is to do is handed over after.
    let (give, take) = crossbeam_channel::bounded::<Task>(1);
    let guard = PanicGuard::new(Arc::clone(shared), supervisor.clone());
    let name = std::thread::Builder::new().name("orphand-worker".into());
    let started = name.spawn(move || {
        if let Ok(job) = take.recv() {
            job.run(&guard.shared);
        }
    });
    match started {
        Ok(_) => give.send(job).map_err(|lost| lost.0),
        Err(error) => {
            log::debug!("no more threads: {error}");
            Err(job)
        }
    }
}

/// A thread that panics takes the whole watcher down with it, and says so: one that looks alive and
/// removes nothing would be worse.
pub(super) struct PanicGuard {
    shared: Arc<Shared>,
    supervisor: Sender<supervisor::Command>,
}

impl PanicGuard {
    pub(super) fn new(shared: Arc<Shared>, supervisor: Sender<supervisor::Command>) -> PanicGuard {
        PanicGuard { shared, supervisor }
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            log::error!("a mistake in orphand has ended its thread {name}; the watch ends with it");
            self.shared
                .stopping
                .store(true, std::sync::atomic::Ordering::SeqCst);
            super::guard(&self.shared.stats).total.failed += 1;
            self.shared.temps.wake();
            let _ = self.supervisor.send(supervisor::Command::Stop);
        }
    }
}

impl Task {
    /// Does it, in this thread.
    pub(super) fn run(mut self, shared: &Shared) {
        let lease_thread = LeaseThread::new();
        let (mut left, mut moved) = (Vec::new(), false);
        for part in self.due.chunks(AT_ONCE) {
            // A stop is heard between two parts; what is not taken up stays as it was.
            if shared.is_stopping() {
                break;
            }
            let mut tell = |event: Event| {
                moved |= matches!(event, Event::Quarantined { .. });
                shared.emit(event);
            };
            let folder = self.folder.as_path();
            process(
                shared,
                &lease_thread,
                &mut self.clocks,
                (folder, part),
                &mut tell,
                &mut left,
            );
        }
        let _ = self.done.send(TaskDone {
            folder: self.folder,
            left,
            moved,
        });
    }
}

fn process(
    shared: &Shared,
    lease_thread: &LeaseThread,
    clocks: &mut ClockJumpDetector,
    (folder, part): (&Path, &[Key]),
    tell: &mut dyn FnMut(Event),
    left: &mut Vec<(Mono, Key)>,
) {
    let now = clock::mono();
    let mut keys = Vec::with_capacity(part.len());
    let mut due = Vec::with_capacity(part.len());
    for key in part {
        if let Some(temp) = shared.temps.check_out(key, now) {
            keys.push(key);
            due.push(PassItem {
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
            Pass::new(&shared.engine, dir_context, lease_thread, tell).run(clocks, &mut due)
        }
        None => due.iter_mut().for_each(|one| one.temp = None),
    }
    for (key, one) in keys.into_iter().zip(due) {
        if let Some(temp) = &one.temp {
            left.push((temp.due(), key.clone()));
        }
        let temp = one.temp.map(|temp| temp.check_in());
        shared.temps.check_in(key, temp);
    }
}
