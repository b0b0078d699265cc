//! Hears when one file comes, goes or is replaced: for configuration files.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::event::EventKindMask;
use notify::{RecursiveMode, Watcher as _};

use super::watcher_handle::{ExitGuard, WatcherHandle};
use super::{CLOSE_EVENTS, NAME_EVENTS};

/// Rings when something may have happened to a file.
pub struct FileWatcher {
    watcher_handle: Option<WatcherHandle>,
    /// How often its thread may still be started anew.
    restarts_left: u8,
    path: PathBuf,
    /// The folder that is watched.
    folder: Option<PathBuf>,
    /// Kept, so that the end of the last thread is not heard as a ring without end.
    wake_tx: Sender<()>,
    wake_rx: Receiver<()>,
}

/// What ends a thread more often than this would end it again.
const MAX_RESTARTS: u8 = 10;

impl std::fmt::Debug for FileWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Changes of {:?}", self.path)
    }
}

impl FileWatcher {
    /// Listens for changes of the file at `path`, which may be missing, and its folders with it.
    #[must_use]
    pub fn new(path: &Path) -> FileWatcher {
        let (ring, wake_rx) = bounded(1);
        let mut changes = FileWatcher {
            watcher_handle: None,
            restarts_left: MAX_RESTARTS,
            path: path.to_owned(),
            folder: None,
            wake_tx: ring,
            wake_rx,
        };
        changes.start();
        changes.rewatch();
        changes
    }

    fn start(&mut self) {
        self.folder = None;
        // The end of the thread is a ring too: what was to be heard then is lost.
        let ring = self.wake_tx.clone();
        let ended = move |_| _ = ring.try_send(());
        let watcher_handle = WatcherHandle::with_exit(ended, mask(), |guard| {
            handler(self.path.clone(), self.wake_tx.clone(), guard)
        });
        if let Err(error) = &watcher_handle {
            log::warn!("changes of {:?} will not be heard: {error}", self.path);
        }
        self.watcher_handle = watcher_handle.ok();
    }

    /// Rung when something may have happened.
    #[must_use]
    pub fn wake_rx(&self) -> &Receiver<()> {
        &self.wake_rx
    }

    /// Watches the folder of the file or, while that is missing, the next one above it that is
    /// there. To be called again after each ring, before the file is read.
    pub fn rewatch(&mut self) {
        if self
            .watcher_handle
            .as_ref()
            .is_some_and(WatcherHandle::has_ended)
        {
            self.watcher_handle = None;
            match self.restarts_left.checked_sub(1) {
                Some(left) => {
                    self.restarts_left = left;
                    self.start();
                }
                None => log::error!("changes of {:?} will not be heard any more", self.path),
            }
        }
        let Some(watcher_handle) = &mut self.watcher_handle else {
            return;
        };
        if let Some(folder) = self.folder.take() {
            // It may be another one with the same path by now.
            let _ = watcher_handle.request(|watcher| watcher.unwatch(&folder));
        }
        // RACE: a folder may come between two of these attempts; worst case: the one above it is
        // watched, which rings when anything else comes there, and the file is read late.
        self.folder = self
            .path
            .ancestors()
            .skip(1)
            .find(|folder| {
                let watched = watcher_handle
                    .request(|watcher| watcher.watch(folder, RecursiveMode::NonRecursive));
                watched.is_ok()
            })
            .map(Path::to_owned);
    }
}

/// Names, and what tells that a file was written in place: where closes are reported, the close, so
/// that no half of a file is read.
fn mask() -> EventKindMask {
    let written = match CLOSE_EVENTS {
        true => EventKindMask::ACCESS_CLOSE,
        false => EventKindMask::MODIFY_DATA,
    };
    NAME_EVENTS | written
}

fn handler(path: PathBuf, ring: Sender<()>, guard: ExitGuard) -> impl notify::EventHandler {
    move |event: notify::Result<notify::Event>| {
        let _owned = &guard;
        let Ok(event) = event else { return };
        if event.need_rescan() || event.paths.iter().any(|other| path.starts_with(other)) {
            // A full channel has been rung already.
            let _ = ring.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::TryRecvError;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_file_that_comes_with_its_folder_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/config.toml");
        let mut changes = FileWatcher::new(&path);
        let heard = |changes: &FileWatcher| {
            let wake_rx = changes.wake_rx().recv_timeout(Duration::from_secs(30));
            assert!(wake_rx.is_ok(), "nothing was heard");
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        heard(&changes);
        changes.rewatch();
        while changes.wake_rx().try_recv().is_ok() {}
        fs::write(&path, "x").unwrap();
        heard(&changes);
    }

    /// What could not be had, or has ended for good, must not wake anybody for ever.
    #[test]
    fn where_nothing_can_be_heard_nothing_rings() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = FileWatcher::new(&dir.path().join("config.toml"));
        changes.watcher_handle = None;
        while changes.wake_rx().try_recv().is_ok() {}
        changes.rewatch();
        assert_eq!(changes.wake_rx().try_recv(), Err(TryRecvError::Empty));
    }
}
