//! The function that the thread of a watcher calls with each event.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::learn_feed::{Follower, LearnFeed};
use super::notification::Notification;
use super::root_writes::{RootWrites, WriteRecorder};
use super::translate::{FsChange, NameCause, Translator};
use crate::core::event::{Event, Settlement, Subject};
use crate::core::own_names::is_own;
use crate::core::policy::Hot;
use crate::core::rate::{RateMeter, Threshold};
use crate::core::temp_name::Names;
use crate::core::tracker::Origin;
use crate::fs::root::{Root, innermost};
use crate::index::{SplitPath, Temps};
use crate::sys::clock;
use crate::sys::kernel_events::RECURSIVE;

/// Data that the callback of every watcher uses.
#[derive(Clone)]
pub struct CallbackContext {
    /// The map of tracked temps.
    pub temps: Arc<Temps>,
    /// Channel for rare events. It is unbounded, because a callback must not block.
    pub notifications: Sender<Notification>,
    /// All roots.
    pub roots: Arc<[Root]>,
    /// The rate of creations from which a directory is hot.
    pub hot_threshold: Threshold,
    /// Channel for an event about each single temp, if such events were requested.
    pub event_tx: Option<Sender<Event>>,
    /// The times of healthy writes.
    pub writes: Arc<RootWrites>,
    /// The receiver of healthy writes for learning. `None` if nothing is learned.
    pub learn: Option<Arc<LearnFeed>>,
}

/// The values that a new watcher needs.
#[derive(Clone, Copy)]
pub(super) struct WatcherContext<'a> {
    pub(super) callback: &'a CallbackContext,
    /// The generation of the watcher, which its notifications carry.
    pub(super) generation: u32,
}

/// Returns the function that the thread of a watcher calls with each event. Benchmarks call it without a watcher.
#[doc(hidden)]
pub fn callback(
    context: CallbackContext,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    let mut callback = Callback::new(context);
    move |event| callback.handle(event)
}

struct Callback {
    context: CallbackContext,
    names: Vec<Names>,
    translator: Translator,
    /// Changes of directories below a root are reported: at least one root is recursive.
    reports_dirs: bool,
    /// `None` if no directory can become hot: because one watch covers a whole tree, or because no rule asks for it.
    meter: Option<RateMeter>,
    writes: WriteRecorder,
    follower: Option<Follower>,
    /// The last result was an error.
    last_failed: bool,
}

impl Callback {
    fn new(context: CallbackContext) -> Callback {
        let roots = &context.roots;
        let can_be_hot = !RECURSIVE && roots.iter().any(|root| root.policy.hot == Hot::Scan);
        Callback {
            names: roots.iter().map(|root| root.policy.names.clone()).collect(),
            translator: Translator::new(RECURSIVE),
            reports_dirs: roots.iter().any(|root| root.policy.recursive),
            meter: can_be_hot.then(|| RateMeter::new(context.hot_threshold)),
            writes: WriteRecorder::new(&context.writes, roots),
            follower: context.learn.clone().map(Follower::new),
            last_failed: false,
            context,
        }
    }

    fn handle(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.report_error(error),
        };
        self.last_failed = false;
        if let Some(follower) = &mut self.follower {
            follower.note(&event, clock::mono);
        }
        let (names, roots) = (&self.names, &self.context.roots);
        let change = self
            .translator
            .translate(event, |path| is_temp(path, names, roots));
        match change {
            FsChange::Nothing => {}
            FsChange::Appeared(path, cause) => self.on_appeared(path, cause),
            FsChange::Gone(path, how) => self.on_gone(path, how),
            FsChange::Unsure(path) => self.on_unsure(path),
            FsChange::Closed(path) => self.context.temps.record_closed(&path),
            FsChange::DirectoryChanged(path) if self.reports_dirs => {
                self.notify(Notification::DirectoryChanged(path))
            }
            FsChange::DirectoryChanged(path) if self.is_root(&path) => {
                self.notify(Notification::SelfGone(path))
            }
            FsChange::DirectoryChanged(_) => {}
            FsChange::SelfGone(path) => self.notify(Notification::SelfGone(path)),
            FsChange::Lost => self.notify(Notification::EventsLost),
        }
    }

    fn on_appeared(&mut self, path: PathBuf, cause: NameCause) {
        // An event of a rename does not show whether a file or a directory was moved.
        if cause != NameCause::Creation && self.reports_dirs {
            self.notify(Notification::DirectoryChanged(path.clone()));
        }
        self.emit(&path, |subject, due| Event::Tracked { subject, due });
        let now = clock::mono();
        let temps = &self.context.temps;
        let limit_is_known = match cause {
            NameCause::Creation => temps.record_created(&path, now),
            NameCause::Rename | NameCause::TempRename => temps.record_renamed(&path, now),
        };
        if rule!(
            "renamed-temp-tells-a-target",
            cause == NameCause::TempRename && !self.is_intermediate(&path)
        ) {
            temps.mark_target(&path);
        }
        if !limit_is_known {
            self.notify(Notification::LimitReached);
        }
        if let Some(meter) = &mut self.meter
            && meter.count(SplitPath::new(&path).dir().as_os_str().as_bytes(), now)
        {
            self.notify(Notification::Hot(SplitPath::new(&path).dir().to_owned()));
        }
    }

    /// Handles an event that does not show whether a temp exists at `path`.
    fn on_unsure(&mut self, path: PathBuf) {
        let temps = &self.context.temps;
        match path.symlink_metadata() {
            // The event may be about an operation on a temp that is known.
            Ok(_) if temps.knows(&path) => {}
            Ok(_) => self.on_appeared(path, NameCause::Creation),
            Err(_) => {
                if temps.remove(&path).is_some() {
                    let how = Settlement::Removed;
                    self.emit(&path, |subject, _| Event::Settled { subject, how });
                }
            }
        }
    }

    /// Reports whether each rule that matches the file's name takes it for an intermediate file, such as git's
    /// `.tmp-<pid>-pack-<hash>.pack`, which was `tmp_pack_<random>` before.
    fn is_intermediate(&self, path: &Path) -> bool {
        let name = SplitPath::new(path).name();
        let mut rules = (self.names.iter()).filter(|names| names.matches(name.as_bytes()));
        rules.all(|names| names.is_intermediate(name))
    }

    fn on_gone(&mut self, path: PathBuf, how: Settlement) {
        let temps = &self.context.temps;
        if let Some(temp) = temps.remove(&path) {
            if how == Settlement::Renamed && temp.origin() == Origin::Created {
                let took = clock::mono().since(temp.discovered());
                if let Some(slow) = self.writes.record(&path, took) {
                    self.notify(Notification::SlowWrite(slow));
                }
            }
            self.emit(&path, |subject, _| Event::Settled { subject, how });
        } else if how == Settlement::Renamed && self.reports_dirs && !temps.has_rejected() {
            // The path was not tracked as a file, so it may have been a directory. This does not hold while some files
            // are not tracked because the limit was reached: every complete write would look like a moved directory. In
            // that case the watch on a moved directory reports the move, and the scan that follows finds the directory
            // at its new path.
            self.translator.forget();
            self.notify(Notification::DirectoryChanged(path));
        }
    }

    /// Reports `error`, unless the result before it was an error as well.
    fn report_error(&mut self, error: notify::Error) {
        if !std::mem::replace(&mut self.last_failed, true) {
            self.notify(Notification::Error(error));
        }
    }

    fn is_root(&self, path: &Path) -> bool {
        // This runs for every rename of a file that is not a temp, so the bytes are compared and not the components.
        let is_path = |root: &Root| root.path.as_os_str() == path.as_os_str();
        self.context.roots.iter().any(is_path)
    }

    fn notify(&self, notification: Notification) {
        // The receiver may be dropped before the watcher that this callback belongs to.
        let _ = self.context.notifications.send(notification);
    }

    fn emit(&self, path: &Path, event: impl FnOnce(Subject, std::time::Duration) -> Event) {
        let Some(event_tx) = &self.context.event_tx else {
            return;
        };
        let roots = self.context.roots.iter();
        let root = path
            .parent()
            .and_then(|dir| innermost(roots, |root| root, dir));
        if let Some(root) = root {
            let subject = Subject {
                path: path.to_owned(),
                root: root.path.clone(),
                size: None,
            };
            // If the receiver is too slow, this event is dropped. Waiting would lose events of the kernel instead.
            let _ = event_tx.try_send(event(subject, root.policy.grace.shortest() / 2));
        }
    }
}

pub(super) fn is_temp(path: &Path, names: &[Names], roots: &[Root]) -> bool {
    // This runs for every event. Splitting the path into components would take a third of the callback's time.
    let name = SplitPath::new(path).name().as_bytes();
    if !names.iter().any(|names| names.matches(name)) {
        return false;
    }
    // If one watch covers a whole tree, events also arrive from directories that no rule covers.
    !RECURSIVE
        || path
            .parent()
            .is_some_and(|dir| roots.iter().any(|root| root.below(dir).is_some()))
            && !path.components().any(|part| is_own(part.as_os_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Policy;
    use crossbeam_channel::unbounded;
    use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
    use std::time::Duration;

    /// Sends the events of the `n`-th temp's creation and rename.
    fn write(handle: &mut impl FnMut(notify::Result<notify::Event>), n: usize) {
        let path = PathBuf::from(format!("/r/t{n}.tmp"));
        let created = EventKind::Create(CreateKind::File);
        handle(Ok(notify::Event::new(created).add_path(path.clone())));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let renamed = notify::Event::new(renamed).add_path(path);
        handle(Ok(renamed.set_tracker(n)));
    }

    #[test]
    fn the_rename_of_an_untracked_temp_is_not_reported_as_a_directory() {
        let (temps, _wake_rx) = Temps::new(Duration::from_secs(1), 1);
        let (notifications, received) = unbounded();
        let policy = Policy {
            recursive: true,
            ..Policy::default()
        };
        let roots = [Root {
            path: "/r".into(),
            policy: Arc::new(policy),
        }];
        let mut handle = callback(CallbackContext {
            temps: Arc::new(temps),
            notifications,
            roots: roots.into(),
            hot_threshold: Threshold::default(),
            event_tx: None,
            writes: Arc::default(),
            learn: None,
        });
        let left = EventKind::Create(CreateKind::File);
        handle(Ok(notify::Event::new(left).add_path("/r/left.tmp".into())));
        (0..100).for_each(|n| write(&mut handle, n));
        let received: Vec<Notification> = received.try_iter().collect();
        assert!(
            matches!(received.as_slice(), [Notification::LimitReached]),
            "{received:?}"
        );
    }
}
