//! The supervisor's thread: reacts to messages and deadlines, until the watcher is stopped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};

use super::root_watch::RootWatch;
use super::services::Services;
use crate::core::event::{Event, RescanCause};
use crate::core::sort::set_of;
use crate::daemon::command::{Command, Mailbox};
use crate::daemon::learner;
use crate::daemon::panic_guard::PanicGuard;
use crate::daemon::shared::{CriticalThread, Shared};
use crate::sys::idle_io::IdleIoPriority;
use crate::sys::mutex::guard;
use crate::watch::coalesce::Coalescer;
use crate::watch::{CallbackContext, Notification, mounts};

pub(super) struct Supervisor {
    pub(super) services: Services,
    /// One for each root in force.
    pub(super) root_watches: Vec<RootWatch>,
    coalescer: Coalescer,
    /// No watch can be relied on: all are re-established before the next scan of everything.
    reestablish_watches: bool,
}

/// The largest number of notifications that are processed before the next check for a stop.
const MAX_NOTIFICATIONS: usize = 4_096;

/// The reactions to several notifications, which are made once for all of them.
#[derive(Default)]
struct Reactions {
    /// Something about a root or its ancestors has changed, so each root is checked.
    check: bool,
    mounted: BTreeSet<PathBuf>,
    hot: BTreeSet<PathBuf>,
}

pub(in crate::daemon) fn run(
    shared: Arc<Shared>,
    callback_context: CallbackContext,
    root_watches: Vec<RootWatch>,
    scheduler: JoinHandle<()>,
    mailbox: &Mailbox,
) {
    let (changed_tx, changed_rx) = unbounded();
    let _guard = PanicGuard::new(Arc::clone(&shared), None);
    let mount_tx = callback_context.notifications.clone();
    let services = Services::new(shared, callback_context);
    // The listener starts before any root is looked at, and ends with this function.
    let _mounts = mounts::listen(Box::new(move |paths| {
        let _ = mount_tx.send(Notification::Mounts(paths));
    }));
    let mut supervisor = Supervisor {
        services,
        root_watches,
        coalescer: Coalescer::new(changed_tx),
        reestablish_watches: false,
    };
    supervisor.start();
    let shared = Arc::clone(&supervisor.services.shared);
    let learner = learner::start(&shared);
    supervisor.listen(mailbox, &changed_rx);
    if let Some(learner) = learner {
        learner::end(&shared, learner);
    }
    supervisor.end(scheduler);
}

impl Supervisor {
    fn start(&mut self) {
        self.attach_all(RescanCause::Startup);
        self.services.has_started = true;
        self.enforce_all_limits();
        let services = &mut self.services;
        let roots = services.active_roots.roots();
        services.shared.emit(Event::Ready {
            roots: roots.map(|root| root.path.clone()).collect(),
            tracked: services.shared.temps.len(),
        });
        let interval = services.shared.rescan;
        services
            .schedule
            .schedule_periodic(Instant::now(), interval);
    }

    fn listen(&mut self, mailbox: &Mailbox, changed: &Receiver<Vec<PathBuf>>) {
        while !self.services.shared.is_stopping() {
            self.services.shared.beat(CriticalThread::Supervisor);
            // Deadlines are checked here too, in case messages never stop coming.
            if self.next_deadline().is_some_and(|at| at <= Instant::now()) {
                self.on_deadline();
            }
            // If a scan was incomplete, the next scan finds the rest, after a delay that grows. This check comes last
            // before the wait, because the scans of `on_deadline` above may have been incomplete too.
            if std::mem::take(&mut self.services.scan_was_incomplete) {
                self.services.note_lost_events();
            }
            let mut select = Select::new();
            let command = select.recv(&mailbox.commands);
            let notification = select.recv(&mailbox.notifications);
            let change = select.recv(changed);
            let ready = match self.next_deadline() {
                Some(at) => select.ready_deadline(at).ok(),
                None => Some(select.ready()),
            };
            match ready {
                None => self.on_deadline(),
                Some(i) if i == command => match mailbox.commands.try_recv() {
                    Ok(Command::Quarantined(moved)) => self.note_quarantined(moved),
                    Ok(Command::Reload(active_roots)) => self.reload(active_roots),
                    Ok(Command::Stop) => return,
                    Ok(Command::Heartbeat) | Err(_) => {}
                },
                Some(i) if i == notification => self.on_notifications(&mailbox.notifications),
                Some(i) if i == change => {
                    let paths: BTreeSet<PathBuf> = set_of(changed.try_iter().flatten());
                    paths.iter().for_each(|path| self.update_directory(path));
                }
                Some(_) => {}
            }
        }
    }

    /// Processes all pending notifications. A burst of them has one reaction.
    fn on_notifications(&mut self, notifications: &Receiver<Notification>) {
        let mut reactions = Reactions::default();
        for notification in notifications.try_iter().take(MAX_NOTIFICATIONS) {
            self.on_notification(notification, &mut reactions);
        }
        if self.services.shared.is_stopping() {
            return;
        }
        if reactions.check || !reactions.mounted.is_empty() {
            for root_watch in &mut self.root_watches {
                root_watch.check(&mut self.services);
            }
        }
        for path in reactions.mounted {
            self.remounted(&path);
        }
        for dir in reactions.hot {
            self.enter_hot(&dir);
        }
    }

    fn on_notification(&mut self, notification: Notification, reactions: &mut Reactions) {
        let services = &mut self.services;
        match notification {
            Notification::DirectoryChanged(path) | Notification::SelfGone(path) => {
                let mut roots = services.active_roots.roots();
                reactions.check |= roots.any(|root| root.path.starts_with(&path));
                for root_watch in &mut self.root_watches {
                    root_watch.dirs.drop_watch(&mut services.watcher, &path);
                }
                self.coalescer.add(path);
            }
            Notification::Ancestor(path) => {
                services.watcher.forget_ancestors(path.as_deref());
                reactions.check = true;
            }
            Notification::PermissionsChanged => reactions.check = true,
            Notification::Mounts(paths) => reactions.mounted.extend(paths),
            Notification::Hot(dir) => _ = reactions.hot.insert(dir),
            Notification::SlowWrite(slow) => log::warn!("{}", slow.message()),
            Notification::LimitReached => services.note_limit_reached(),
            Notification::EventsLost => services.note_lost_events(),
            Notification::Error(error) => {
                log::warn!("watch error: {error}; re-establishing all watches");
                self.note_lost_watches();
            }
            Notification::Overrun(generation) | Notification::WatcherEnded(generation)
                if generation != services.watcher.generation() => {}
            Notification::Overrun(_) => {
                log::warn!("events arrive faster than they are read; re-establishing all watches");
                self.note_lost_watches();
            }
            Notification::WatcherEnded(_) if services.shared.is_stopping() => {}
            Notification::WatcherEnded(_) => {
                if !self.reestablish_watches {
                    log::error!(
                        "the thread that reads the kernel's events has ended; re-establishing all watches"
                    );
                }
                self.note_lost_watches();
            }
        }
    }

    fn note_lost_watches(&mut self) {
        self.reestablish_watches = true;
        self.services.note_lost_events();
    }

    /// Processes a mount or an unmount at `path`, which hides or reveals a directory below a root. The roots themselves
    /// have already been checked.
    fn remounted(&mut self, path: &Path) {
        let services = &mut self.services;
        let watches = self.root_watches.iter_mut();
        let dirs = watches.filter_map(|root_watch| root_watch.path_of_mount(services, path));
        for dir in dirs.collect::<Vec<PathBuf>>() {
            self.update_directory(&dir);
        }
    }

    /// Processes an event at `path`, which may be a new directory or the path of a former one.
    fn update_directory(&mut self, path: &Path) {
        let active_roots = Arc::clone(&self.services.active_roots);
        let Some((active, below)) = active_roots.root_of(path) else {
            return;
        };
        let mut watches = self.root_watches.iter_mut();
        if let Some(root_watch) = watches.find(|one| Arc::ptr_eq(&one.active, active)) {
            root_watch.update_directory(&mut self.services, below);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let hot = self.root_watches.iter();
        let hot = hot.filter_map(|root_watch| root_watch.dirs.next_hot());
        let limits = self.root_watches.iter();
        let limits = limits.filter_map(|root_watch| Some(root_watch.limits_due?.next()));
        let times = [
            self.services.schedule.next(),
            self.coalescer.idle_at(),
            hot.min(),
            self.services.next_capacity_check,
            limits.min(),
        ];
        times.into_iter().flatten().min()
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        self.coalescer.stop_when_idle();
        self.services.check_capacity(now);
        if self.services.schedule.is_recovery_due(now) {
            if std::mem::take(&mut self.reestablish_watches) {
                self.services.watcher.clear();
                for root_watch in &mut self.root_watches {
                    root_watch.dirs.forget_cold();
                }
            }
            self.attach_all(RescanCause::Overflow);
            self.services.schedule.recovered(now, Instant::now());
        }
        if self.services.schedule.is_periodic_due(now) {
            self.scan_periodically();
        }
        if self.services.schedule.take_poll_due(now) {
            for root_watch in &mut self.root_watches {
                root_watch.poll(&mut self.services);
            }
        }
        self.run_hot();
        for root_watch in &mut self.root_watches {
            root_watch.enforce_limits_when_due(&mut self.services, now);
        }
    }

    fn scan_periodically(&mut self) {
        {
            let _idle_io = IdleIoPriority::begin();
            self.attach_all(RescanCause::Periodic);
        }
        self.check_missed_events();
        self.enforce_all_limits();
        let interval = self.services.shared.rescan;
        let schedule = &mut self.services.schedule;
        schedule.schedule_periodic(Instant::now(), interval);
    }

    /// Attaches each root, which scans it.
    pub(super) fn attach_all(&mut self, cause: RescanCause) {
        self.services.probe_all();
        for root_watch in &mut self.root_watches {
            root_watch.attach(&mut self.services, cause);
        }
    }

    /// Ends the scheduler first, so that no removal is half done. Then ends the watches and emits the summary.
    fn end(mut self, scheduler: JoinHandle<()>) {
        let shared = Arc::clone(&self.services.shared);
        // The wake-up is repeated, because the scheduler may treat the first one as a new temp.
        while !scheduler.is_finished() {
            shared.temps.waker().wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = scheduler.join();
        self.services.watcher.clear();
        self.root_watches.clear();
        shared.emit(Event::Summary(shared.summary()));
        *guard(&shared.events) = None;
    }
}
