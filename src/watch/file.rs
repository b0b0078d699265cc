//! Hears when one file comes, goes or is replaced: for configuration files.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::event::EventKindMask;
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{CLOSE_EVENTS, NAMES};

/// Rings when something may have happened to a file.
pub struct Changes {
    watcher: Option<RecommendedWatcher>,
    path: PathBuf,
    /// The folder that is watched.
    folder: Option<PathBuf>,
    rung: Receiver<()>,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Changes of {:?}", self.path)
    }
}

impl Changes {
    /// Listens for changes of the file at `path`, which may be missing, and its folders with it.
    #[must_use]
    pub fn of(path: &Path) -> Changes {
        let (ring, rung) = bounded(1);
        let handler = handler(path.to_owned(), ring);
        let mut changes = Changes {
            watcher: RecommendedWatcher::new(handler, config()).ok(),
            path: path.to_owned(),
            folder: None,
            rung,
        };
        changes.listen();
        changes
    }

    /// Rung when something may have happened.
    #[must_use]
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }

    /// Watches the folder of the file or, while that is missing, the next one above it that is
    /// there. To be called again after each ring, before the file is read.
    pub fn listen(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        if let Some(folder) = self.folder.take() {
            // It may be another one with the same path by now.
            let _ = watcher.unwatch(&folder);
        }
        // RACE: a folder may come between two of these attempts; worst case: the one above it is
        // watched, which rings when anything else comes there, and the file is read late.
        self.folder = self
            .path
            .ancestors()
            .skip(1)
            .find(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).is_ok())
            .map(Path::to_owned);
    }
}

/// Names, and what tells that a file was written in place: where closes are reported, the close, so
/// that no half of a file is read.
fn config() -> Config {
    let written = match CLOSE_EVENTS {
        true => EventKindMask::ACCESS_CLOSE,
        false => EventKindMask::MODIFY_DATA,
    };
    Config::default().with_event_kinds(NAMES | written)
}

fn handler(path: PathBuf, ring: Sender<()>) -> impl notify::EventHandler {
    move |event: notify::Result<notify::Event>| {
        let concerns = |other: &PathBuf| path.starts_with(other);
        let matters =
            event.is_ok_and(|event| event.need_rescan() || event.paths.iter().any(concerns));
        if matters {
            // A full channel has been rung already.
            let _ = ring.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn a_file_that_comes_with_its_folder_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/config.toml");
        let mut changes = Changes::of(&path);
        let heard = |changes: &Changes| {
            let rung = changes.rung().recv_timeout(Duration::from_secs(30));
            assert!(rung.is_ok(), "nothing was heard");
        };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        heard(&changes);
        changes.listen();
        while changes.rung().try_recv().is_ok() {}
        fs::write(&path, "x").unwrap();
        heard(&changes);
    }
}
