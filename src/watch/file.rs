//! Reports when one file is created, written, removed or replaced. It is used for the configuration file.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::event::EventKindMask;
use notify::{RecursiveMode, Watcher as _};

use super::watcher_handle::{ExitGuard, NAME_EVENTS, WatcherHandle};
use crate::sys::kernel_events::CLOSE_EVENTS;

/// Sends a message when a file may have changed.
pub struct FileWatcher {
    watcher_handle: Option<WatcherHandle>,
    /// The number of times that notify's thread may still be restarted.
    restarts_left: u8,
    path: PathBuf,
    /// The directory that is watched.
    dir: Option<PathBuf>,
    /// Kept so that the channel stays connected: a disconnected channel would wake its receiver without end.
    wake_tx: Sender<()>,
    wake_rx: Receiver<()>,
}

/// A thread that has ended more often than this would end again.
const MAX_RESTARTS: u8 = 10;

impl std::fmt::Debug for FileWatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWatcher of {:?}", self.path)
    }
}

impl FileWatcher {
    /// Watches the file at `path`. The file and its directories may be missing.
    #[must_use]
    pub fn new(path: &Path) -> FileWatcher {
        let (wake_tx, wake_rx) = bounded(1);
        let mut watcher = FileWatcher {
            watcher_handle: None,
            restarts_left: MAX_RESTARTS,
            path: path.to_owned(),
            dir: None,
            wake_tx,
            wake_rx,
        };
        watcher.start();
        watcher.rewatch();
        watcher
    }

    fn start(&mut self) {
        self.dir = None;
        // The end of the thread sends a message too, because events may have been lost.
        let wake_tx = self.wake_tx.clone();
        let ended = move |_| _ = wake_tx.try_send(());
        let watcher_handle = WatcherHandle::with_exit(ended, mask(), |guard| {
            handler(self.path.clone(), self.wake_tx.clone(), guard)
        });
        if let Err(error) = &watcher_handle {
            log::warn!("cannot watch {:?} for changes: {error}", self.path);
        }
        self.watcher_handle = watcher_handle.ok();
    }

    /// Returns the channel that receives a message when the file may have changed.
    #[must_use]
    pub fn wake_rx(&self) -> &Receiver<()> {
        &self.wake_rx
    }

    /// Watches the directory of the file, or the closest ancestor that exists. The caller calls this again after each
    /// message, before it reads the file.
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
                None => log::error!(
                    "changes of {:?} are no longer noticed: its watcher has ended too often",
                    self.path
                ),
            }
        }
        let Some(watcher_handle) = &mut self.watcher_handle else {
            return;
        };
        if let Some(dir) = self.dir.take() {
            // The path may lead to a different directory by now.
            let _ = watcher_handle.request(|watcher| watcher.unwatch(&dir));
        }
        // RACE: a directory may be created between two of these attempts. Worst case: its parent is watched instead.
        // The parent's watch sends a message only when something else is created there, so the file is read late.
        self.dir = self
            .path
            .ancestors()
            .skip(1)
            .find(|dir| {
                let watched = watcher_handle
                    .request(|watcher| watcher.watch(dir, RecursiveMode::NonRecursive));
                watched.is_ok()
            })
            .map(Path::to_owned);
    }
}

/// Returns the events about names and about writes in place. Where closes are reported, a write is reported by its
/// close, so that a file is not read while it is half written.
fn mask() -> EventKindMask {
    let written = match CLOSE_EVENTS {
        true => EventKindMask::ACCESS_CLOSE,
        false => EventKindMask::MODIFY_DATA,
    };
    NAME_EVENTS | written
}

fn handler(path: PathBuf, wake_tx: Sender<()>, guard: ExitGuard) -> impl notify::EventHandler {
    move |event: notify::Result<notify::Event>| {
        let _guard = &guard;
        let Ok(event) = event else { return };
        if event.need_rescan() || event.paths.iter().any(|other| path.starts_with(other)) {
            // A full channel has a message already.
            let _ = wake_tx.try_send(());
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
    fn a_file_that_is_created_with_its_directory_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/config.toml");
        let mut watcher = FileWatcher::new(&path);
        let expect_message = |watcher: &FileWatcher| {
            let received = watcher.wake_rx().recv_timeout(Duration::from_secs(30));
            assert!(received.is_ok(), "no message was received");
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        expect_message(&watcher);
        watcher.rewatch();
        while watcher.wake_rx().try_recv().is_ok() {}
        fs::write(&path, "x").unwrap();
        expect_message(&watcher);
    }

    /// A thread that could not be started, or has ended and is not restarted, must not wake its receiver without end.
    #[test]
    fn a_watcher_without_a_thread_sends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = FileWatcher::new(&dir.path().join("config.toml"));
        watcher.watcher_handle = None;
        while watcher.wake_rx().try_recv().is_ok() {}
        watcher.rewatch();
        assert_eq!(watcher.wake_rx().try_recv(), Err(TryRecvError::Empty));
    }
}
