//! Watching: the only place that knows `notify`.
//!
//! The callback runs on notify's own thread, and while it runs the kernel's queue fills. So it does
//! next to nothing: a created temp goes into the map, a renamed or removed one comes out, and what
//! is rare goes to a channel. No stat (but on macOS, where events are merged), no log line, nothing
//! that blocks, nothing that can panic.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;
use notify::event::EventKindMask;
use notify::{RecursiveMode, WatchPathConfig, Watcher as _};

use crate::clock;
use crate::decide::policy::Hot;
use crate::decide::rate::{RateMeter, Threshold};
use crate::decide::temp_name::Names;
use crate::event::{Event, Settlement, Subject};
use crate::root::{Root, is_own};
use crate::temps::{SplitPath, Temps};
use translate::{By, FsChange, Translator};

mod ancestors;
pub mod coalesce;
pub mod file;
pub mod mounts;
mod rate_probe;
pub mod translate;
mod watcher_handle;

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

use ancestors::AncestorWatches;
use watcher_handle::WatcherHandle;

pub use ancestors::Coverage;
pub use rate_probe::RateProbe;
pub use system::{CLOSE_EVENTS, RECURSIVE};

/// What the callback passes on, because it is rare.
#[derive(Debug)]
pub enum Notification {
    /// A directory may have come, gone or moved at this name.
    Structure(PathBuf),
    /// A watched directory itself was moved, removed or unmounted.
    SelfGone(PathBuf),
    /// A root or a folder on the way to one came, went or moved; `None`: events about them were
    /// lost.
    Ancestor(Option<PathBuf>),
    /// The permissions of a root, or of a folder on the way to one, have changed.
    PermissionsChanged,
    /// Something was mounted or unmounted at these places.
    Mounts(Vec<PathBuf>),
    /// Temps are created in this directory faster than it is worth hearing of each.
    Hot(PathBuf),
    /// There was no room for some temps.
    LimitReached,
    /// Events come faster than a thread reads them, and it had to end to be heard; its generation.
    Overrun(u32),
    /// Events were lost.
    EventsLost,
    /// notify said no.
    Error(notify::Error),
    /// A thread of notify's is gone: one of the watchers of this generation.
    WatcherEnded(u32),
}

/// Why a directory is not watched.
#[derive(Debug)]
pub enum Unwatched {
    /// It is not there, or is no directory.
    Gone,
    /// A limit is reached.
    Limit(Limit),
    /// Anything else.
    Other(notify::Error),
}

/// A limit that leaves no room for another watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The user's limit of watches. Linux reports that as ENOSPC, "no space left on device"; the disk has
    /// nothing to do with it.
    Watches,
    /// The user's limit of inotify instances.
    Instances,
    /// The limit of open files, of this process or of the system.
    Files,
    /// The limit of threads.
    Threads,
}

/// Passed to the callback of every watcher.
#[derive(Clone)]
pub struct CallbackContext {
    /// Where temps go.
    pub temps: Arc<Temps>,
    /// Where rare things go. Unbounded: a callback must not block.
    pub notifications: Sender<Notification>,
    /// All roots.
    pub roots: Arc<[Root]>,
    /// What makes a directory hot.
    pub hot_from: Threshold,
    /// Where each single temp is reported, if anybody wants to know.
    pub tell: Option<Sender<Event>>,
}

/// The kernel's eyes: watchers for the directories of the roots, and one for their parents.
pub struct FsWatcher {
    callback_context: CallbackContext,
    plain: Option<WatcherHandle>,
    closing: Option<WatcherHandle>,
    ancestors: AncestorWatches,
    generation: u32,
}

impl std::fmt::Debug for FsWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kernel")
    }
}

/// Half of what a watch reports by default: looking, scanning and reading do not wake us.
const NAMES: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_NAME);

impl FsWatcher {
    /// No directory is watched yet.
    #[must_use]
    pub fn new(callback_context: CallbackContext) -> FsWatcher {
        FsWatcher {
            callback_context,
            plain: None,
            closing: None,
            ancestors: AncestorWatches::default(),
            generation: 0,
        }
    }

    /// Watches the directory `dir` (on macOS, and everything below it). `closes`: a close by a
    /// writer matters; such directories have a watcher of their own, for the mask is per watcher.
    pub fn watch(&mut self, dir: &Path, closes: bool) -> Result<(), Unwatched> {
        let callback_context = (&self.callback_context, self.generation);
        let watcher_handle = match closes {
            true => started(
                &mut self.closing,
                callback_context,
                NAMES | EventKindMask::ACCESS_CLOSE,
            )?,
            false => started(&mut self.plain, callback_context, NAMES)?,
        };
        let mode = match RECURSIVE {
            true => RecursiveMode::Recursive,
            false => RecursiveMode::NonRecursive,
        };
        let how = WatchPathConfig::new(mode).with_dereference_symlinks(false);
        Ok(watcher_handle.ask(|watcher| watcher.watch_with(dir, how))?)
    }

    /// Watches no longer. That it was not watched any more anyway is fine. `false`: writers outran
    /// a thread, and it has ended with all its watches; [`Notification::Overrun`] says so as well.
    pub fn unwatch(&mut self, dir: &Path) -> bool {
        let ears = [&mut self.plain, &mut self.closing].into_iter().flatten();
        ears.fold(true, |hears, watcher_handle| {
            let _ = watcher_handle.ask(|watcher| watcher.unwatch(dir));
            hears && !watcher_handle.has_ended()
        })
    }

    /// Listens for a while how many temps are created in the directory `dir`, whether it is watched or
    /// not, and does nothing else with what it hears.
    pub fn probe_rate(&self, dir: &Path) -> Result<RateProbe, Unwatched> {
        // Of no generation that counts: that it ends is no news.
        let generation = self.generation.wrapping_sub(1);
        RateProbe::begin((&self.callback_context, generation), dir)
    }

    /// What makes a directory hot.
    #[must_use]
    pub fn hot_from(&self) -> Threshold {
        self.callback_context.hot_from
    }

    /// Watches the folders that lead to `root` as far as they exist, so that it is heard when the
    /// root comes, goes, is shut or opened, or one of them is.
    pub fn watch_ancestors(&mut self, root: &Path) -> Coverage {
        self.ancestors
            .watch((&self.callback_context, self.generation), root)
    }

    /// What is known of the watches on `path` and on the folders below it, all of them parents of
    /// roots, is not to be trusted. `None`: of all of them.
    pub fn distrust_ancestors(&mut self, path: Option<&Path>) {
        self.ancestors.distrust(path);
    }

    /// Which generation of watchers this is. Those of an older one end later, and that is no news.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Forgets every watch, and hears for these roots from now on.
    pub fn set_roots(&mut self, roots: Arc<[Root]>) {
        self.clear();
        self.callback_context.roots = roots;
    }

    /// Forgets every watch: what stands afterwards is built anew.
    pub fn clear(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.plain = None;
        self.closing = None;
        self.ancestors = AncestorWatches::default();
    }
}

fn started<'a>(
    slot: &'a mut Option<WatcherHandle>,
    (callback_context, generation): (&CallbackContext, u32),
    mask: EventKindMask,
) -> Result<&'a mut WatcherHandle, Unwatched> {
    match slot {
        Some(watcher_handle) => Ok(watcher_handle),
        None => {
            let watcher_handle = WatcherHandle::new(
                (&callback_context.notifications, generation),
                mask,
                |guard| {
                    let mut hear = callback(callback_context.clone());
                    move |event| {
                        let _owned = &guard;
                        hear(event);
                    }
                },
            )?;
            Ok(slot.insert(watcher_handle))
        }
    }
}

/// What the thread of a watcher calls with each event. To be called without one where it is counted
/// what that costs.
#[doc(hidden)]
pub fn callback(
    callback_context: CallbackContext,
) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    let mut callback = Callback::new(callback_context);
    move |event| callback.handle(event)
}

impl From<notify::Error> for Unwatched {
    fn from(error: notify::Error) -> Unwatched {
        use notify::ErrorKind;
        let number = match &error.kind {
            ErrorKind::MaxFilesWatch => return Unwatched::Limit(Limit::Watches),
            ErrorKind::PathNotFound | ErrorKind::WatchNotFound => return Unwatched::Gone,
            ErrorKind::Io(io) => io.raw_os_error(),
            _ => None,
        };
        match number {
            Some(libc::ENOENT | libc::ENOTDIR) => Unwatched::Gone,
            Some(libc::ENOSPC) => Unwatched::Limit(Limit::Watches),
            Some(libc::ENFILE) => Unwatched::Limit(Limit::Files),
            // Linux says the same where the user may have no more inotify instances.
            Some(libc::EMFILE) => match std::fs::File::open("/dev/null") {
                Ok(_) => Unwatched::Limit(Limit::Instances),
                Err(_) => Unwatched::Limit(Limit::Files),
            },
            Some(libc::EAGAIN) => Unwatched::Limit(Limit::Threads),
            _ => Unwatched::Other(error),
        }
    }
}

struct Callback {
    callback_context: CallbackContext,
    names: Vec<Names>,
    translator: Translator,
    /// Directories below a root matter.
    structure: bool,
    /// `None` where no directory leaves the event path: one watch may cover a whole tree, or no rule
    /// wants it.
    meter: Option<RateMeter>,
    /// The last that came was an error.
    fails: bool,
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
            structure: callback_context
                .roots
                .iter()
                .any(|root| root.policy.recursive),
            meter: (!RECURSIVE
                && callback_context
                    .roots
                    .iter()
                    .any(|root| root.policy.hot == Hot::Scan))
            .then(|| RateMeter::new(callback_context.hot_from)),
            fails: false,
            callback_context,
        }
    }

    fn handle(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.error(error),
        };
        self.fails = false;
        let (names, roots) = (&self.names, &self.callback_context.roots);
        let hint = self
            .translator
            .translate(event, |path| is_temp(path, names, roots));
        match hint {
            FsChange::Nothing => {}
            FsChange::Appeared(path, by) => {
                // A rename does not say whether it moved a file or a directory.
                if by != By::Creation && self.structure {
                    self.notify(Notification::Structure(path.clone()));
                }
                self.tell(&path, |subject, due| Event::Tracked { subject, due });
                let now = clock::mono();
                let temps = &self.callback_context.temps;
                let has_room = match by {
                    By::Creation => temps.created(&path, now),
                    By::Rename | By::TempRename => temps.renamed_here(&path, now),
                };
                if rule!("renamed-temp-tells-a-target", by == By::TempRename) {
                    temps.mark_target(&path);
                }
                if !has_room {
                    self.notify(Notification::LimitReached);
                }
                if let Some(heat) = &mut self.meter
                    && heat.count(SplitPath::new(&path).folder().as_os_str().as_bytes(), now)
                {
                    self.notify(Notification::Hot(SplitPath::new(&path).folder().to_owned()));
                }
            }
            FsChange::Gone(path, how) => {
                if self.callback_context.temps.removed(&path) {
                    self.tell(&path, |subject, _| Event::Settled { subject, how });
                } else if how == Settlement::Renamed
                    && self.structure
                    && !self.callback_context.temps.has_rejected()
                {
                    // It was not known as a file: it may have been a directory. Where some files are
                    // not known either, each healthy write would be taken for one; a directory
                    // with such a name then tells of its move by its own watch, and is found at its
                    // new name by the scan that follows.
                    self.translator.forget();
                    self.notify(Notification::Structure(path));
                }
            }
            FsChange::Unsure(path) => match path.symlink_metadata() {
                Ok(_) => {
                    if !self.callback_context.temps.appeared(&path, clock::mono()) {
                        self.notify(Notification::LimitReached);
                    }
                }
                Err(_) => _ = self.callback_context.temps.removed(&path),
            },
            FsChange::Closed(path) => self.callback_context.temps.closed(&path),
            FsChange::Structure(path) if self.structure => {
                self.notify(Notification::Structure(path))
            }
            FsChange::Structure(path) if self.is_root(&path) => {
                self.notify(Notification::SelfGone(path))
            }
            FsChange::Structure(_) => {}
            FsChange::SelfGone(path) => self.notify(Notification::SelfGone(path)),
            FsChange::Lost => self.notify(Notification::EventsLost),
        }
    }

    /// One says it for all that follow it.
    fn error(&mut self, error: notify::Error) {
        if !std::mem::replace(&mut self.fails, true) {
            self.notify(Notification::Error(error));
        }
    }

    fn is_root(&self, path: &Path) -> bool {
        self.callback_context
            .roots
            .iter()
            .any(|root| root.path == path)
    }

    fn notify(&self, rare: Notification) {
        // The receiver ends with the watcher that this callback belongs to.
        let _ = self.callback_context.notifications.send(rare);
    }

    fn tell(&self, path: &Path, event: impl FnOnce(Subject, std::time::Duration) -> Event) {
        let Some(tell) = &self.callback_context.tell else {
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
            // Where nobody reads fast enough a line is lost rather than an event of the kernel.
            let _ = tell.try_send(event(subject, root.policy.grace.shortest() / 2));
        }
    }
}

fn is_temp(path: &Path, names: &[Names], roots: &[Root]) -> bool {
    // Asked for every event. To take a path apart into components would be a third of all that is done.
    let name = SplitPath::new(path).name().as_bytes();
    if !names.iter().any(|names| names.matches(name)) {
        return false;
    }
    // Where one watch covers a whole tree, its events come from directories that no rule covers.
    !RECURSIVE
        || path
            .parent()
            .is_some_and(|dir| roots.iter().any(|root| root.below(dir).is_some()))
            && !path.components().any(|part| is_own(part.as_os_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::policy::Policy;
    use crossbeam_channel::unbounded;
    use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
    use std::time::Duration;

    /// What is told of a temp's creation and its rename, of the `n`-th temp.
    fn write(hear: &mut impl FnMut(notify::Result<notify::Event>), n: usize) {
        let path = PathBuf::from(format!("/r/t{n}.tmp"));
        let created = EventKind::Create(CreateKind::File);
        hear(Ok(notify::Event::new(created).add_path(path.clone())));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        let renamed = notify::Event::new(renamed).add_path(path);
        hear(Ok(renamed.set_tracker(n)));
    }

    /// Where there is no room for a temp its rename is no news of a directory.
    #[test]
    fn a_healthy_write_is_no_rare_thing_where_there_is_no_room() {
        let (temps, _bell) = Temps::new(Duration::from_secs(1), 1);
        let (rare, heard) = unbounded();
        let policy = Policy {
            recursive: true,
            ..Policy::default()
        };
        let roots = [Root {
            path: "/r".into(),
            policy: Arc::new(policy),
        }];
        let mut hear = callback(CallbackContext {
            temps: Arc::new(temps),
            notifications: rare,
            roots: roots.into(),
            hot_from: Threshold::default(),
            tell: None,
        });
        let left = EventKind::Create(CreateKind::File);
        hear(Ok(notify::Event::new(left).add_path("/r/left.tmp".into())));
        (0..100).for_each(|n| write(&mut hear, n));
        let heard: Vec<Notification> = heard.try_iter().collect();
        assert!(
            matches!(heard.as_slice(), [Notification::LimitReached]),
            "{heard:?}"
        );
    }
}
