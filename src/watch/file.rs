//! Hears when one file comes, goes or is replaced: for configuration files.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// Rings when something may have happened to a file.
pub struct Changes {
    watcher: Option<RecommendedWatcher>,
    path: PathBuf,
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
            watcher: notify::recommended_watcher(handler).ok(),
            path: path.to_owned(),
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

    /// Watches the folders that exist now; to be called again after each ring.
    pub fn listen(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for folder in self.path.ancestors().skip(1) {
            let _ = watcher.unwatch(folder);
            let _ = watcher.watch(folder, RecursiveMode::NonRecursive);
        }
    }
}

fn handler(path: PathBuf, ring: Sender<()>) -> impl notify::EventHandler {
    move |event: notify::Result<notify::Event>| {
        let concerns = |other: &PathBuf| path.starts_with(other);
        let read = |event: &notify::Event| event.kind.is_access();
        let matters = event.is_ok_and(|event| {
            event.need_rescan() || (!read(&event) && event.paths.iter().any(concerns))
        });
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
