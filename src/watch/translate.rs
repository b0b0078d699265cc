//! Translates events of `notify` to [`FsChange`]. This module is pure.
//!
//! A change means that something may have changed on disk, not that it did. Only a look at the disk decides. So
//! duplicated, reordered, merged and lost events must do no harm.

use std::path::{Path, PathBuf};

use notify::event::{
    AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind, RenameMode,
};

use crate::core::event::Settlement;

/// A possible change of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsChange {
    /// The event is irrelevant.
    Nothing,
    /// A temp was created at this path, or a file or directory was renamed to it.
    Appeared(PathBuf, NameCause),
    /// A temp was removed from this path or renamed.
    Gone(PathBuf, Settlement),
    /// A temp may or may not exist at this path (FSEvents merges several events).
    Unsure(PathBuf),
    /// A descriptor that could write the temp was closed.
    Closed(PathBuf),
    /// A directory may have been created, removed or moved at this path.
    DirectoryChanged(PathBuf),
    /// A watched directory itself was moved, removed or unmounted.
    SelfGone(PathBuf),
    /// Events were lost.
    Lost,
}

/// The operation that created the name of a temp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameCause {
    /// The creation of a file.
    Creation,
    /// A rename of a file or directory.
    Rename,
    /// A rename of another temp, which has this name as its target.
    TempRename,
}

/// Translates one event after the other. It remembers the last rename of a temp, because the new name of that rename is
/// the name of a file and not of a directory.
#[derive(Clone, Debug, Default)]
pub struct Translator {
    /// notify's number of the last rename of a temp.
    renamed: Option<usize>,
    /// One event of the kernel may report several operations, as on macOS.
    merges_events: bool,
}

impl Translator {
    /// Returns a translator for a kernel that reports several operations in one event, or each in its own.
    #[must_use]
    pub fn new(merges_events: bool) -> Translator {
        Translator {
            renamed: None,
            merges_events,
        }
    }

    /// Forgets the last rename: it did not rename a temp.
    pub fn forget(&mut self) {
        self.renamed = None;
    }

    /// Returns the change that `event` reports. `is_temp` returns whether the base name of a path matches a rule.
    pub fn translate(&mut self, mut event: Event, is_temp: impl FnOnce(&Path) -> bool) -> FsChange {
        // A report of lost events often has no path, so this comes before the path is read.
        if event.need_rescan() {
            return FsChange::Lost;
        }
        let tracker = event.tracker();
        // inotify reports an unmount. FSEvents reports mounts, unmounts and changes of a root's ancestors.
        let remounted = matches!(event.info(), Some("mount" | "unmount" | "root changed"));
        let Some(path) = (!event.paths.is_empty()).then(|| event.paths.swap_remove(0)) else {
            return FsChange::Nothing;
        };
        if remounted {
            return FsChange::SelfGone(path);
        }
        match event.kind {
            EventKind::Create(CreateKind::Folder) => FsChange::DirectoryChanged(path),
            EventKind::Remove(RemoveKind::Folder) => FsChange::DirectoryChanged(path),
            // FSEvents merges the flags of several operations, and notify then reports each one in a fixed order. Only
            // the disk shows which was the last.
            EventKind::Create(_) | EventKind::Remove(_) if self.merges_events => {
                match is_temp(&path) {
                    true => FsChange::Unsure(path),
                    false => FsChange::Nothing,
                }
            }
            EventKind::Create(_) => match is_temp(&path) {
                true => FsChange::Appeared(path, NameCause::Creation),
                false => FsChange::Nothing,
            },
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
                Some(_) => FsChange::DirectoryChanged(path),
            },
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let renames_temp = tracker.is_some() && tracker == self.renamed;
                match (is_temp(&path), renames_temp) {
                    (true, true) => FsChange::Appeared(path, NameCause::TempRename),
                    (true, false) => FsChange::Appeared(path, NameCause::Rename),
                    (false, true) => FsChange::Nothing,
                    (false, false) => FsChange::DirectoryChanged(path),
                }
            }
            // FSEvents reports one side of a rename, but not which side.
            EventKind::Modify(ModifyKind::Name(RenameMode::Any)) => match is_temp(&path) {
                true => FsChange::Unsure(path),
                false => FsChange::DirectoryChanged(path),
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
    use notify::event::{DataChange, EventAttributes, Flag};

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
    fn single_events_are_translated() {
        let temp = || PathBuf::from("/r/a.tmp");
        let other = || PathBuf::from("/r/a");
        let file = EventKind::Create(CreateKind::File);
        let created_dir = EventKind::Create(CreateKind::Folder);
        let removed = EventKind::Remove(RemoveKind::File);
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let read = EventKind::Access(AccessKind::Close(AccessMode::Read));
        let data = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for (kind, path, tracker, want) in [
            (
                file,
                "/r/a.tmp",
                None,
                FsChange::Appeared(temp(), NameCause::Creation),
            ),
            (file, "/r/a", None, FsChange::Nothing),
            (
                created_dir,
                "/r/a.tmp",
                None,
                FsChange::DirectoryChanged(temp()),
            ),
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
                FsChange::DirectoryChanged(other()),
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
                FsChange::DirectoryChanged(other()),
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
                FsChange::Appeared(temp(), NameCause::Rename),
            ),
            (
                name(RenameMode::To),
                "/r/a",
                Some(1),
                FsChange::DirectoryChanged(other()),
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
                FsChange::DirectoryChanged(other()),
            ),
            (closed, "/r/a.tmp", None, FsChange::Closed(temp())),
            (closed, "/r/a", None, FsChange::Nothing),
            (read, "/r/a.tmp", None, FsChange::Nothing),
            (data, "/r/a.tmp", None, FsChange::Nothing),
        ] {
            let change = Translator::default().translate(event(kind, path, tracker), is_temp);
            assert_eq!(change, want, "{kind:?} {path} {tracker:?}");
        }
    }

    #[test]
    fn a_report_of_lost_events_needs_no_path() {
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
            FsChange::Appeared("/r/b.tmp".into(), NameCause::TempRename)
        );
        let another = event(name(RenameMode::To), "/r/d", Some(8));
        assert_eq!(
            translator.translate(another, is_temp),
            FsChange::DirectoryChanged("/r/d".into())
        );
    }

    /// A temp that was removed and created again is reported as created and then as removed.
    #[test]
    fn a_merged_event_shows_only_that_something_happened() {
        let mut translator = Translator::new(true);
        for kind in [
            EventKind::Create(CreateKind::File),
            EventKind::Remove(RemoveKind::File),
        ] {
            let mut change_of = |path| translator.translate(event(kind, path, None), is_temp);
            assert_eq!(change_of("/r/a.tmp"), FsChange::Unsure("/r/a.tmp".into()));
            assert_eq!(change_of("/r/a"), FsChange::Nothing);
        }
        let folder = event(EventKind::Remove(RemoveKind::Folder), "/r/d", None);
        assert_eq!(
            translator.translate(folder, is_temp),
            FsChange::DirectoryChanged("/r/d".into())
        );
    }

    #[test]
    fn a_mount_or_unmount_is_the_end_of_a_directory() {
        for info in ["mount", "unmount", "root changed"] {
            let mut gone = event(EventKind::Remove(RemoveKind::Other), "/r", None);
            gone.attrs = EventAttributes::new();
            gone = gone.set_info(info);
            let change = Translator::default().translate(gone, is_temp);
            assert_eq!(change, FsChange::SelfGone("/r".into()), "{info}");
        }
    }
}
