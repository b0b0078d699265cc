//! The ways to the roots: each folder above a root is watched, so that it is heard when a root
//! comes, goes, is shut or opened, or when one of these folders is moved, replaced or shut.
//!
//! Names and permissions are asked for. A change of permissions is reported for the folder and for
//! all that lies right in it: that is why it is asked for here and not on the roots themselves,
//! where every chmod of a temp would wake us.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use notify::event::{EventKind, EventKindMask, ModifyKind};
use notify::{RecursiveMode, Watcher as _};

use super::watcher_handle::WatcherHandle;
use super::{CallbackContext, NAME_EVENTS, Notification, WatchError, WatchLimit};
use crate::root::Root;

/// How much is heard of what happens on the way to a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every folder on it that is there is watched.
    Full,
    /// One of them may be passed through but not be read, or is a symlink that leads elsewhere.
    Partial,
    /// A limit leaves no room for another watch.
    LimitReached(WatchLimit),
}

impl Coverage {
    fn or_if_full(self, worse: Coverage) -> Coverage {
        match self {
            Coverage::Full => worse,
            known => known,
        }
    }
}

/// The watcher of all folders above roots.
#[derive(Default)]
pub(super) struct AncestorWatches {
    handle: Option<WatcherHandle>,
    /// What each folder was when it was watched.
    known: HashMap<PathBuf, Identity>,
}

/// Device, inode and birth.
type Identity = (u64, u64, Option<SystemTime>);

impl AncestorWatches {
    /// Watches what leads to `root`, as far as it exists. Whoever looks at the root afterwards
    /// hears of everything that happens after that look.
    pub(super) fn watch(
        &mut self,
        (callback_context, generation): (&CallbackContext, u32),
        root: &Path,
    ) -> Coverage {
        if self.handle.is_none() {
            let mask = NAME_EVENTS | EventKindMask::MODIFY_META;
            let watcher_handle = WatcherHandle::new(
                (&callback_context.notifications, generation),
                mask,
                |guard| {
                    let callback_context = callback_context.clone();
                    move |event| {
                        let _guard = &guard;
                        callback_context.on_ancestor_event(event);
                    }
                },
            );
            match watcher_handle.map_err(WatchError::from) {
                Ok(watcher_handle) => self.handle = Some(watcher_handle),
                Err(WatchError::Limit(limit)) => return Coverage::LimitReached(limit),
                Err(_) => return Coverage::Partial,
            }
        }
        let Some(watcher_handle) = &mut self.handle else {
            return Coverage::Partial;
        };
        let mut hearing = Coverage::Full;
        let mut ways: Vec<&Path> = root.ancestors().skip(1).collect();
        // From the top: what is missing now is then heard of when it comes.
        ways.reverse();
        for way in ways {
            // What a symlink leads to lies in folders that are not watched.
            if way.is_symlink() {
                hearing = hearing.or_if_full(Coverage::Partial);
            }
            let now = identify(way);
            let known = self.known.get(way).copied();
            if known.is_some() && known == now {
                continue;
            }
            // A folder that was deleted and made again is another one with the same path.
            self.known.remove(way);
            let _ = watcher_handle.request(|watcher| watcher.unwatch(way));
            match watcher_handle.request(|watcher| watcher.watch(way, RecursiveMode::NonRecursive))
            {
                Ok(()) => _ = now.map(|now| self.known.insert(way.to_owned(), now)),
                Err(error) => match WatchError::from(error) {
                    // It is heard when it comes: what it lies in is watched already.
                    WatchError::Missing => return hearing,
                    WatchError::Limit(limit) => hearing = Coverage::LimitReached(limit),
                    WatchError::Other(_) => hearing = hearing.or_if_full(Coverage::Partial),
                },
            }
        }
        hearing
    }

    /// The watches on `path` and on what lies below it may be dead, though what stands there looks
    /// the same. `None`: all of them.
    pub(super) fn distrust(&mut self, path: Option<&Path>) {
        self.known
            .retain(|known, _| path.is_some_and(|path| !known.starts_with(path)));
    }
}

fn identify(folder: &Path) -> Option<Identity> {
    let meta = std::fs::metadata(folder).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}

impl CallbackContext {
    /// An event in a parent of some root: it matters if it is about a root or a way to one.
    fn on_ancestor_event(&self, event: notify::Result<notify::Event>) {
        let Ok(event) = event else {
            return;
        };
        if event.need_rescan() {
            let _ = self.notifications.send(Notification::Ancestor(None));
            return;
        }
        // A change of permissions moves nothing: the watches stand.
        let stands = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        for path in event.paths {
            if !leads_to_a_root(&path, &self.roots) {
                continue;
            }
            let rare = match stands {
                true => Notification::PermissionsChanged,
                false => Notification::Ancestor(Some(path)),
            };
            let _ = self.notifications.send(rare);
        }
    }
}

fn leads_to_a_root(path: &Path, roots: &[Root]) -> bool {
    roots.iter().any(|root| root.path.starts_with(path))
}
