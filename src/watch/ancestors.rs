//! Watches the ancestors of the roots.
//!
//! Their watches report when a root is created or removed, when one of its ancestors is moved or replaced, and when the
//! permissions of one of these directories change.
//!
//! On macOS no ancestor is watched: a stream of FSEvents covers a whole tree, so the one for `/` would receive every event
//! of the machine. FSEvents reports a move of a root's ancestor to the root's own stream (`kFSEventStreamCreateFlagWatchRoot`),
//! and a root that is missing or cannot be read is polled.
//!
//! The event mask has names and permissions. inotify reports a change of permissions for the watched directory and for
//! its direct children. The roots themselves are not watched for it, because every chmod of a temp would wake this
//! process.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::event::{EventKind, EventKindMask, ModifyKind};
use notify::{RecursiveMode, Watcher as _};

use super::callback::{CallbackContext, WatcherContext};
use super::error::{WatchError, WatchLimit};
use super::notification::Notification;
use super::watcher_handle::{NAME_EVENTS, WatcherHandle};
use crate::fs::root::Root;
use crate::sys::kernel_events::RECURSIVE;

/// The part of a root's ancestors that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every ancestor that exists is watched.
    Full,
    /// One ancestor is not watched, because it can be searched but not read, or is a symlink that leads elsewhere. On
    /// macOS none is watched.
    Partial,
    /// A limit prevents another watch.
    LimitReached(WatchLimit),
}

impl Coverage {
    /// Returns this coverage, or `Partial` instead of `Full`.
    fn or_partial(self) -> Coverage {
        match self {
            Coverage::Full => Coverage::Partial,
            known => known,
        }
    }
}

/// The watcher of all ancestors of roots.
#[derive(Default)]
pub(super) struct AncestorWatches {
    handle: Option<WatcherHandle>,
    /// The identity of each directory when its watch was established.
    known: HashMap<PathBuf, Identity>,
}

/// Device, inode and birth.
type Identity = (u64, u64, Option<SystemTime>);

impl AncestorWatches {
    /// Watches the ancestors of `root` that exist. A caller that looks at the root after this call receives an event
    /// for every change after that look.
    pub(super) fn watch(&mut self, context: WatcherContext<'_>, root: &Path) -> Coverage {
        if RECURSIVE {
            return Coverage::Partial;
        }
        if self.handle.is_none() {
            let mask = NAME_EVENTS | EventKindMask::MODIFY_META;
            let watcher_handle = WatcherHandle::new(context, mask, |guard| {
                let callback_context = context.callback.clone();
                move |event| {
                    let _guard = &guard;
                    callback_context.on_ancestor_event(event);
                }
            });
            match watcher_handle.map_err(WatchError::from) {
                Ok(watcher_handle) => self.handle = Some(watcher_handle),
                Err(WatchError::Limit(limit)) => return Coverage::LimitReached(limit),
                Err(_) => return Coverage::Partial,
            }
        }
        let Some(watcher_handle) = &mut self.handle else {
            return Coverage::Partial;
        };
        let mut coverage = Coverage::Full;
        let mut dirs: Vec<&Path> = root.ancestors().skip(1).collect();
        // From the top: the creation of a directory that is missing now is then reported by its parent's watch.
        dirs.reverse();
        for dir in dirs {
            // The ancestors of a symlink's target are not watched.
            if dir.is_symlink() {
                coverage = coverage.or_partial();
            }
            let now = identify(dir);
            let known = self.known.get(dir).copied();
            if known.is_some() && known == now {
                continue;
            }
            // A directory that was deleted and created again is a different directory at the same path.
            self.known.remove(dir);
            let _ = watcher_handle.request(|watcher| watcher.unwatch(dir));
            let watched =
                watcher_handle.request(|watcher| watcher.watch(dir, RecursiveMode::NonRecursive));
            match watched {
                Ok(()) => _ = now.map(|now| self.known.insert(dir.to_owned(), now)),
                Err(error) => match WatchError::from(error) {
                    // Its creation is reported, because its parent is watched already.
                    WatchError::Missing => return coverage,
                    WatchError::Limit(limit) => coverage = Coverage::LimitReached(limit),
                    WatchError::Other(_) => coverage = coverage.or_partial(),
                },
            }
        }
        coverage
    }

    /// Forgets the watches on `path` and on the directories below it, so that they are re-established. Such a watch may
    /// have ended although the directory looks the same. `None`: all watches.
    pub(super) fn forget(&mut self, path: Option<&Path>) {
        self.known
            .retain(|known, _| path.is_some_and(|path| !known.starts_with(path)));
    }
}

fn identify(dir: &Path) -> Option<Identity> {
    let meta = std::fs::metadata(dir).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}

impl CallbackContext {
    /// Handles an event in an ancestor of a root. Only events about a root or one of its ancestors are passed on.
    fn on_ancestor_event(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else {
            return;
        };
        if event.need_rescan() {
            let _ = self.notifications.send(Notification::Ancestor(None));
            return;
        }
        // A change of permissions moves nothing, so the watches stay valid.
        let is_metadata = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        for path in event.paths {
            if !leads_to_a_root(&path, &self.roots) {
                continue;
            }
            let notification = match is_metadata {
                true => Notification::PermissionsChanged,
                false => Notification::Ancestor(Some(path)),
            };
            let _ = self.notifications.send(notification);
        }
    }
}

fn leads_to_a_root(path: &Path, roots: &[Root]) -> bool {
    roots.iter().any(|root| root.path.starts_with(path))
}
