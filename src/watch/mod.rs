//! Receives file system events. Only this module uses `notify`.
//!
//! The callback runs on notify's own thread, and the kernel's event queue fills while it runs. For this reason the
//! callback does very little. It adds a created temp to the map, removes a renamed or removed temp from the map, and
//! sends every rarer event to a channel. It never calls stat(2) (except on macOS, where events are merged), never logs,
//! never blocks and cannot panic.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;
use notify::event::EventKindMask;
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use crate::core::event::{Event, Settlement, Subject};
use crate::core::own_names::is_own;
use crate::core::policy::Hot;
use crate::core::rate::{RateMeter, Threshold};
use crate::core::temp_name::Names;
use crate::fs::root::Root;
use crate::index::{SplitPath, Temps};
use crate::sys::clock;
use translate::{FsChange, NameCause, Translator};

mod ancestors;
pub mod coalesce;
pub mod file;
pub mod mounts;
mod rate_probe;
pub mod translate;
mod watcher_handle;

use ancestors::AncestorWatches;
use watcher_handle::WatcherHandle;

pub use crate::sys::kernel_events::{CLOSE_EVENTS, RECURSIVE};
pub use ancestors::Coverage;
pub use rate_probe::RateProbe;

/// A rare event that the callback sends to the supervisor.
#[derive(Debug)]
pub enum Notification {
    /// A directory may have been created, removed or moved at this path.
    DirectoryChanged(PathBuf),
    /// A watched directory itself was moved, removed or unmounted.
    SelfGone(PathBuf),
    /// A root or one of its ancestors was created, removed or moved. `None`: events about them were lost.
    Ancestor(Option<PathBuf>),
    /// The permissions of a root or of one of its ancestors have changed.
    PermissionsChanged,
    /// The paths at which file systems were mounted or unmounted.
    Mounts(Vec<PathBuf>),
    /// Temps are created in this directory so fast that one event for each costs more than a scan.
    Hot(PathBuf),
    /// Some temps could not be tracked because the limit was reached.
    LimitReached,
    /// Events arrive faster than a thread of notify reads them, so the thread had to end. Holds its generation.
    Overrun(u32),
    /// Events were lost.
    EventsLost,
    /// notify reported an error.
    Error(notify::Error),
    /// A thread of notify has ended. Holds the generation of its watcher.
    WatcherEnded(u32),
}

/// The reason for which a directory cannot be watched.
#[derive(Debug)]
pub enum WatchError {
    /// The path does not exist, or is not a directory.
    Missing,
    /// A limit is reached.
    Limit(WatchLimit),
    /// Any other error.
    Other(notify::Error),
}

/// A limit that prevents another watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchLimit {
    /// The user's limit of watches. Linux reports it as ENOSPC, "no space left on device", although it does not concern
    /// a disk.
    Watches,
    /// The user's limit of inotify instances.
    Instances,
    /// The limit of open files, of this process or of the system.
    Files,
    /// The limit of threads.
    Threads,
}

impl WatchLimit {
    /// Returns a sentence on the limit, and one on how to raise it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            WatchLimit::Instances => {
                "A kernel limit is reached: this user cannot have any more inotify instances. This has nothing to do with \
                 disk space. To raise the limit: sudo sysctl fs.inotify.max_user_instances=1024 (in a user namespace also \
                 user.max_inotify_instances)."
            }
            WatchLimit::Files => {
                "A limit is reached: no more files can be opened. To raise it: ulimit -n, LimitNOFILE= of a unit; for the \
                 whole system: sysctl fs.file-max."
            }
            WatchLimit::Threads => {
                "A limit is reached: no more threads can be started. To raise the limit of processes: ulimit -u, \
                 TasksMax= of a unit."
            }
            WatchLimit::Watches => {
                "A kernel limit is reached: this user cannot watch any more directories. This has nothing to do with disk \
                 space. To raise the limit: sudo sysctl fs.inotify.max_user_watches=524288 (in a user namespace also \
                 user.max_inotify_watches)."
            }
        }
    }
}

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
}

/// All notify watchers of this process: those of the roots' directories, and one for the roots' ancestors.
pub struct FsWatcher {
    callback_context: CallbackContext,
    /// Watches directories without reports of closes.
    without_closes: Option<WatcherHandle>,
    /// Watches directories with reports of closes.
    with_closes: Option<WatcherHandle>,
    ancestors: AncestorWatches,
    generation: u32,
}

impl std::fmt::Debug for FsWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FsWatcher")
    }
}

/// The events about names: half of the events that a watch reports by default. Opening, listing and reading do not wake
/// this process.
const NAME_EVENTS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME);

impl FsWatcher {
    /// Creates the set without any watch.
    #[must_use]
    pub fn new(callback_context: CallbackContext) -> FsWatcher {
        FsWatcher {
            callback_context,
            without_closes: None,
            with_closes: None,
            ancestors: AncestorWatches::default(),
            generation: 0,
        }
    }

    /// Watches the directory `dir` (on macOS, with everything below it). With `closes`, closes by writers are reported
    /// too. Such directories have a separate watcher, because notify has one event mask for each watcher.
    pub fn watch(&mut self, dir: &Path, closes: bool) -> Result<(), WatchError> {
        let context = WatcherContext {
            callback: &self.callback_context,
            generation: self.generation,
        };
        let watcher_handle = match closes {
            true => get_or_start(
                &mut self.with_closes,
                context,
                NAME_EVENTS | EventKindMask::ACCESS_CLOSE,
            )?,
            false => get_or_start(&mut self.without_closes, context, NAME_EVENTS)?,
        };
        let mode = match RECURSIVE {
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let config = WatchPathConfig::new(mode).with_dereference_symlinks(false);
        Ok(watcher_handle.request(|watcher| watcher.watch_with(dir, config))?)
    }

    /// Removes the watch on `dir`, if there is one. Returns `false` if a thread could not read events as fast as they
    /// arrived, and has ended with all its watches. [`Notification::Overrun`] reports that too.
    pub fn unwatch(&mut self, dir: &Path) -> bool {
        let handles = [&mut self.without_closes, &mut self.with_closes]
            .into_iter()
            .flatten();
        handles.fold(true, |are_running, watcher_handle| {
            let _ = watcher_handle.request(|watcher| watcher.unwatch(dir));
            are_running && !watcher_handle.has_ended()
        })
    }

    /// Begins to count the temps that are created in the directory `dir`, whether it is watched or not. The events are
    /// used for nothing else.
    pub fn probe_rate(&self, dir: &Path) -> Result<RateProbe, WatchError> {
        let context = WatcherContext {
            callback: &self.callback_context,
            // Not the current generation: the end of the probe's thread is ignored.
            generation: self.generation.wrapping_sub(1),
        };
        RateProbe::begin(context, dir)
    }

    /// Returns the rate of creations from which a directory is hot.
    #[must_use]
    pub fn hot_threshold(&self) -> Threshold {
        self.callback_context.hot_threshold
    }

    /// Watches the ancestors of `root` that exist. They report when the root or one of them is created or removed, and
    /// when its permissions change.
    pub fn watch_ancestors(&mut self, root: &Path) -> Coverage {
        let context = WatcherContext {
            callback: &self.callback_context,
            generation: self.generation,
        };
        self.ancestors.watch(context, root)
    }

    /// Forgets the watches on `path` and on the ancestors of roots below it, so that the next call of
    /// [`FsWatcher::watch_ancestors`] re-establishes them. `None`: all watches on ancestors.
    pub fn forget_ancestors(&mut self, path: Option<&Path>) {
        self.ancestors.forget(path);
    }

    /// Returns the generation of the current watchers. Watchers of older generations may end later; their end is
    /// ignored.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Drops every watch. New watches are for `roots`.
    pub fn set_roots(&mut self, roots: Arc<[Root]>) {
        self.clear();
        self.callback_context.roots = roots;
    }

    /// Drops every watch.
    pub fn clear(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.without_closes = None;
        self.with_closes = None;
        self.ancestors = AncestorWatches::default();
    }
}

/// The values that a new watcher needs.
#[derive(Clone, Copy)]
struct WatcherContext<'a> {
    callback: &'a CallbackContext,
    /// The generation of the watcher, which its notifications carry.
    generation: u32,
}

fn get_or_start<'a>(
    slot: &'a mut Option<WatcherHandle>,
    context: WatcherContext<'_>,
    mask: EventKindMask,
) -> Result<&'a mut WatcherHandle, WatchError> {
    match slot {
        Some(watcher_handle) => Ok(watcher_handle),
        None => {
            let watcher_handle = WatcherHandle::new(context, mask, |guard| {
                let mut handle = callback(context.callback.clone());
                move |event| {
                    let _guard = &guard;
                    handle(event);
                }
            })?;
            Ok(slot.insert(watcher_handle))
        }
    }
}

/// Returns the function that the thread of a watcher calls with each event. Benchmarks call it without a watcher.
#[doc(hidden)]
pub fn callback(
    callback_context: CallbackContext,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    let mut callback = Callback::new(callback_context);
    move |event| callback.handle(event)
}

impl From<notify::Error> for WatchError {
    fn from(error: notify::Error) -> WatchError {
        use notify::ErrorKind;
        let number = match &error.kind {
            ErrorKind::MaxFilesWatch => return WatchError::Limit(WatchLimit::Watches),
            ErrorKind::PathNotFound | ErrorKind::WatchNotFound => return WatchError::Missing,
            ErrorKind::Io(io) => io.raw_os_error(),
            _ => None,
        };
        match number {
            Some(libc::ENOENT | libc::ENOTDIR) => WatchError::Missing,
            Some(libc::ENOSPC) => WatchError::Limit(WatchLimit::Watches),
            Some(libc::ENFILE) => WatchError::Limit(WatchLimit::Files),
            // Linux reports the limit of inotify instances by the same number.
            Some(libc::EMFILE) => match std::fs::File::open("/dev/null") {
                Ok(_) => WatchError::Limit(WatchLimit::Instances),
                Err(_) => WatchError::Limit(WatchLimit::Files),
            },
            Some(libc::EAGAIN) => WatchError::Limit(WatchLimit::Threads),
            _ => WatchError::Other(error),
        }
    }
}

struct Callback {
    callback_context: CallbackContext,
    names: Vec<Names>,
    translator: Translator,
    /// Changes of directories below a root are reported: at least one root is recursive.
    reports_dirs: bool,
    /// `None` if no directory can become hot: because one watch covers a whole tree, or because no rule asks for it.
    meter: Option<RateMeter>,
    /// The last result was an error.
    last_failed: bool,
}

impl Callback {
    fn new(callback_context: CallbackContext) -> Callback {
        Callback {
            names: callback_context
                .roots
                .iter()
                .map(|root| root.policy.names.clone())
                .collect(),
            translator: Translator::default(),
            reports_dirs: callback_context
                .roots
                .iter()
                .any(|root| root.policy.recursive),
            meter: (!RECURSIVE
                && callback_context
                    .roots
                    .iter()
                    .any(|root| root.policy.hot == Hot::Scan))
            .then(|| RateMeter::new(callback_context.hot_threshold)),
            last_failed: false,
            callback_context,
        }
    }

    fn handle(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.report_error(error),
        };
        self.last_failed = false;
        let (names, roots) = (&self.names, &self.callback_context.roots);
        let change = self
            .translator
            .translate(event, |path| is_temp(path, names, roots));
        match change {
            FsChange::Nothing => {}
            FsChange::Appeared(path, cause) => {
                // An event of a rename does not show whether a file or a directory was moved.
                if cause != NameCause::Creation && self.reports_dirs {
                    self.notify(Notification::DirectoryChanged(path.clone()));
                }
                self.emit(&path, |subject, due| Event::Tracked { subject, due });
                let now = clock::mono();
                let temps = &self.callback_context.temps;
                let limit_is_known = match cause {
                    NameCause::Creation => temps.record_created(&path, now),
                    NameCause::Rename | NameCause::TempRename => temps.record_renamed(&path, now),
                };
                if rule!(
                    "renamed-temp-tells-a-target",
                    cause == NameCause::TempRename
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
            FsChange::Gone(path, how) => {
                if self.callback_context.temps.record_removed(&path) {
                    self.emit(&path, |subject, _| Event::Settled { subject, how });
                } else if how == Settlement::Renamed
                    && self.reports_dirs
                    && !self.callback_context.temps.has_rejected()
                {
                    // The path was not tracked as a file, so it may have been a directory. This does not hold while
                    // some files are not tracked because the limit was reached: every complete write would look like
                    // a moved directory. In that case the watch on a moved directory reports the move, and the scan
                    // that follows finds the directory at its new path.
                    self.translator.forget();
                    self.notify(Notification::DirectoryChanged(path));
                }
            }
            FsChange::Unsure(path) => match path.symlink_metadata() {
                Ok(_) => {
                    if !self
                        .callback_context
                        .temps
                        .record_appeared(&path, clock::mono())
                    {
                        self.notify(Notification::LimitReached);
                    }
                }
                Err(_) => _ = self.callback_context.temps.record_removed(&path),
            },
            FsChange::Closed(path) => self.callback_context.temps.record_closed(&path),
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

    /// Reports `error`, unless the result before it was an error as well.
    fn report_error(&mut self, error: notify::Error) {
        if !std::mem::replace(&mut self.last_failed, true) {
            self.notify(Notification::Error(error));
        }
    }

    fn is_root(&self, path: &Path) -> bool {
        self.callback_context
            .roots
            .iter()
            .any(|root| root.path == path)
    }

    fn notify(&self, notification: Notification) {
        // The receiver may be dropped before the watcher that this callback belongs to.
        let _ = self.callback_context.notifications.send(notification);
    }

    fn emit(&self, path: &Path, event: impl FnOnce(Subject, std::time::Duration) -> Event) {
        let Some(event_tx) = &self.callback_context.event_tx else {
            return;
        };
        let root = path.parent().and_then(|dir| {
            let covers = |root: &&Root| root.below(dir).is_some();
            self.callback_context
                .roots
                .iter()
                .filter(covers)
                .max_by_key(|root| root.path.as_os_str().len())
        });
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

fn is_temp(path: &Path, names: &[Names], roots: &[Root]) -> bool {
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
