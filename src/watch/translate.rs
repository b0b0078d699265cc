//! From the words of `notify` to ours. Pure: an event in, a hint out.
//!
//! A hint says that something may have changed, never that it did: the truth is what is seen when
//! somebody looks. Duplicated, reordered, merged and lost events must all be dull.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RenameMode};

use crate::event::Settlement;

/// What the kernel says, in our words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsChange {
    /// Nothing that concerns us.
    Nothing,
    /// A temp's name came to be: created, or renamed to.
    Appeared(PathBuf, By),
    /// A temp's name is gone.
    Gone(PathBuf, Settlement),
    /// A temp's name may be there or not (FSEvents merges what happened to it).
    Unsure(PathBuf),
    /// Somebody who could write a temp closed it.
    Closed(PathBuf),
    /// A directory may have come, gone or moved at this name.
    Structure(PathBuf),
    /// A watched directory itself was moved, removed or unmounted.
    SelfGone(PathBuf),
    /// Events were lost.
    Lost,
}

/// What gave a temp its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It was created as a file.
    Creation,
    /// A rename, of a file or of a directory.
    Rename,
    /// A rename of another temp: this name is its target.
    TempRename,
}

/// Translates one event after the other. It remembers which rename took a temp away: the name that
/// the same rename gives is a file's, not a directory's.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    renamed: Option<usize>,
}

impl Translator {
    /// What the last rename took away was no temp.
    pub fn forget(&mut self) {
        self.renamed = None;
    }

    /// What `event` says. `is_temp` tells whether a path's base name is one that some rule takes.
    pub fn translate(&mut self, mut event: Event, is_temp: impl FnOnce(&Path) -> bool) -> FsChange {
        // A lost event often comes without any path: it is asked for before any path is.
        if event.need_rescan() {
            return FsChange::Lost;
        }
        let tracker = event.tracker();
        // inotify reports the end of a mount; FSEvents both, and what changed on the way to a root.
        let remounted = matches!(event.info(), Some("mount" | "unmount" | "root changed"));
        let Some(path) = (!event.paths.is_empty()).then(|| event.paths.swap_remove(0)) else {
            return FsChange::Nothing;
        };
        if remounted {
            return FsChange::SelfGone(path);
        }
        match event.kind {
            EventKind::Create(CreateKind::Folder) => FsChange::Structure(path),
            EventKind::Create(_) => match is_temp(&path) {
                true => FsChange::Appeared(path, By::Creation),
                false => FsChange::Nothing,
            },
            EventKind::Remove(notify::event::RemoveKind::Folder) => FsChange::Structure(path),
            EventKind::Remove(_) => match is_temp(&path) {
                true => FsChange::Gone(path, Settlement::Removed),
                false => FsChange::Nothing,
            },
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => match tracker {
                None => FsChange::SelfGone(path),
                Some(_) if is_temp(&path) => {
                    self.renamed = tracker;
                    FsChange::Gone(path, Settlement::Renamed)
                }
                Some(_) => FsChange::Structure(path),
            },
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let is_temps = tracker.is_some() && tracker == self.renamed;
                match (is_temp(&path), is_temps) {
                    (true, true) => FsChange::Appeared(path, By::TempRename),
                    (true, false) => FsChange::Appeared(path, By::Rename),
                    (false, true) => FsChange::Nothing,
                    (false, false) => FsChange::Structure(path),
                }
            }
            // FSEvents says that one side of a rename is here, not which.
            EventKind::Modify(ModifyKind::Name(RenameMode::Any)) => match is_temp(&path) {
                true => FsChange::Unsure(path),
                false => FsChange::Structure(path),
            },
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => match is_temp(&path) {
                true => FsChange::Closed(path),
                false => FsChange::Nothing,
            },
            _ => FsChange::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, EventAttributes, Flag, RemoveKind};

    fn event(kind: EventKind, path: &str, tracker: Option<usize>) -> Event {
        let mut event = Event::new(kind).add_path(path.into());
        if let Some(tracker) = tracker {
            event = event.set_tracker(tracker);
        }
        event
    }

    fn name(mode: RenameMode) -> EventKind {
        EventKind::Modify(ModifyKind::Name(mode))
    }

    fn is_temp(path: &Path) -> bool {
        path.extension().is_some_and(|e| e == "tmp")
    }

    #[test]
    fn one_event_at_a_time() {
        let temp = || PathBuf::from("/r/a.tmp");
        let other = || PathBuf::from("/r/a");
        let file = EventKind::Create(CreateKind::File);
        let folder = EventKind::Create(CreateKind::Folder);
        let removed = EventKind::Remove(RemoveKind::File);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for (kind, path, tracker, want) in [
            (
                file,
                "/r/a.tmp",
                None,
                FsChange::Appeared(temp(), By::Creation),
            ),
            (file, "/r/a", None, FsChange::Nothing),
            (folder, "/r/a.tmp", None, FsChange::Structure(temp())),
            (
                removed,
                "/r/a.tmp",
                None,
                FsChange::Gone(temp(), Settlement::Removed),
            ),
            (removed, "/r/a", None, FsChange::Nothing),
            (
                EventKind::Remove(RemoveKind::Folder),
                "/r/a",
                None,
                FsChange::Structure(other()),
            ),
            (
                name(RenameMode::From),
                "/r/a.tmp",
                Some(1),
                FsChange::Gone(temp(), Settlement::Renamed),
            ),
            (
                name(RenameMode::From),
                "/r/a",
                Some(1),
                FsChange::Structure(other()),
            ),
            (
                name(RenameMode::From),
                "/r/a.tmp",
                None,
                FsChange::SelfGone(temp()),
            ),
            (
                name(RenameMode::To),
                "/r/a.tmp",
                Some(1),
                FsChange::Appeared(temp(), By::Rename),
            ),
            (
                name(RenameMode::To),
                "/r/a",
                Some(1),
                FsChange::Structure(other()),
            ),
            (
                name(RenameMode::Both),
                "/r/a.tmp",
                Some(1),
                FsChange::Nothing,
            ),
            (
                name(RenameMode::Any),
                "/r/a.tmp",
                None,
                FsChange::Unsure(temp()),
            ),
            (
                name(RenameMode::Any),
                "/r/a",
                None,
                FsChange::Structure(other()),
            ),
            (closed, "/r/a.tmp", None, FsChange::Closed(temp())),
            (closed, "/r/a", None, FsChange::Nothing),
            (read, "/r/a.tmp", None, FsChange::Nothing),
            (data, "/r/a.tmp", None, FsChange::Nothing),
        ] {
            let hint = Translator::default().translate(event(kind, path, tracker), is_temp);
            assert_eq!(hint, want, "{kind:?} {path} {tracker:?}");
        }
    }

    #[test]
    fn a_lost_event_needs_no_path() {
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(
            Translator::default().translate(lost.clone(), is_temp),
            FsChange::Lost
        );
        let with_path = lost.add_path("/r".into());
        assert_eq!(
            Translator::default().translate(with_path, is_temp),
            FsChange::Lost
        );
    }

    #[test]
    fn the_target_of_a_temps_rename_is_no_directory() {
        let mut translator = Translator::default();
        translator.translate(event(name(RenameMode::From), "/r/a.tmp", Some(7)), is_temp);
        let same = event(name(RenameMode::To), "/r/a", Some(7));
        assert_eq!(translator.translate(same, is_temp), FsChange::Nothing);
        let temp = event(name(RenameMode::To), "/r/b.tmp", Some(7));
        assert_eq!(
            translator.translate(temp, is_temp),
            FsChange::Appeared("/r/b.tmp".into(), By::TempRename)
        );
        let another = event(name(RenameMode::To), "/r/d", Some(8));
        assert_eq!(
            translator.translate(another, is_temp),
            FsChange::Structure("/r/d".into())
        );
    }

    #[test]
    fn a_mount_that_comes_or_goes_is_the_end_of_a_directory() {
        for info in ["mount", "unmount", "root changed"] {
            let mut gone = event(EventKind::Remove(RemoveKind::Other), "/r", None);
            gone.attrs = EventAttributes::new();
            gone = gone.set_info(info);
            let hint = Translator::default().translate(gone, is_temp);
            assert_eq!(hint, FsChange::SelfGone("/r".into()), "{info}");
        }
    }
}
