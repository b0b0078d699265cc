//! Judges the folders in which orphand keeps its state and its locks.

use std::path::{Path, PathBuf};

use orphand::store::folders::Folders;
use rustix::fs::{Access, AtFlags, CWD};

use super::check::Check;
use crate::cli::output::{shell, text};

/// The result of the search for a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FoundFolder {
    /// The folder exists and is writable.
    Writable,
    /// The folder does not exist, and can be created in this ancestor.
    CanBeMade(PathBuf),
    /// This path, the folder or an ancestor, is not writable or not a folder.
    Blocked(PathBuf),
}

/// Examines a folder and its ancestors, and creates nothing.
fn find(folder: &Path) -> FoundFolder {
    for (above, path) in folder.ancestors().enumerate() {
        let may = rustix::fs::accessat(
            CWD,
            path,
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::EACCESS,
        );
        match may {
            Ok(()) if !path.is_dir() => return FoundFolder::Blocked(path.to_owned()),
            Ok(()) if above == 0 => return FoundFolder::Writable,
            Ok(()) => return FoundFolder::CanBeMade(path.to_owned()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => return FoundFolder::Blocked(path.to_owned()),
        }
    }
    FoundFolder::Blocked(folder.to_owned())
}

pub(super) fn checks(folders: &Folders) -> [Check; 2] {
    let found = |folder: &Option<PathBuf>| {
        let folder = folder.clone()?;
        let found = find(&folder);
        Some((folder, found))
    };
    [
        judge("state", found(&folders.state)),
        judge("locks", found(&folders.runtime)),
    ]
}

fn judge(check: &'static str, found: Option<(PathBuf, FoundFolder)>) -> Check {
    let loses = match check {
        "state" => {
            "there is no journal, history shows nothing, and restored files are not remembered"
        }
        _ => "nothing prevents two orphand processes from working on the same directory",
    };
    match found {
        None => Check::warning(
            check,
            format!("no folder is known, because HOME is not set: {loses}"),
            "set HOME, or XDG_STATE_HOME",
        ),
        Some((folder, FoundFolder::Writable)) => {
            Check::ok(check, format!("{} is writable", text::escaped(&folder)))
        }
        Some((folder, FoundFolder::CanBeMade(_))) => Check::ok(
            check,
            format!("{} will be created when needed", text::escaped(&folder)),
        ),
        Some((folder, FoundFolder::Blocked(at))) => {
            let (shown, folder) = (text::escaped(&folder), shell::word(&folder));
            Check::warning(
                check,
                format!(
                    "{shown} is not writable, because of {}: {loses}",
                    text::escaped(&at)
                ),
                format!(
                    "sudo install -d -m 700 -o \"$(id -un)\" {folder}\n\
                     or name another folder: {}",
                    match check {
                        "state" => "XDG_STATE_HOME",
                        _ =>
                            "XDG_RUNTIME_DIR (after su or sudo it still belongs to the other user: unset it)",
                    }
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_a_warning() {
        let at = |found| Some((PathBuf::from("/s/orphand"), found));
        for (found, state, words) in [
            (at(FoundFolder::Writable), CheckState::Ok, "is writable"),
            (
                at(FoundFolder::CanBeMade("/s".into())),
                CheckState::Ok,
                "will be created when",
            ),
            (
                at(FoundFolder::Blocked("/s".into())),
                CheckState::Warning,
                "because of /s",
            ),
            (None, CheckState::Warning, "HOME"),
        ] {
            for check in ["state", "locks"] {
                let check = judge(check, found.clone());
                assert_eq!(check.state, state, "{check:?}");
                assert!(check.what.contains(words), "{check:?}");
            }
        }
    }

    #[test]
    fn the_search_creates_nothing() {
        let existing = tempfile::tempdir().unwrap();
        let file = existing.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, want) in [
            (existing.path().to_owned(), FoundFolder::Writable),
            (
                existing.path().join("a/b"),
                FoundFolder::CanBeMade(existing.path().to_owned()),
            ),
            (file.clone(), FoundFolder::Blocked(file.clone())),
            (file.join("a"), FoundFolder::Blocked(file.join("a"))),
        ] {
            assert_eq!(find(&path), want, "{path:?}");
        }
        assert_eq!(std::fs::read_dir(existing.path()).unwrap().count(), 1);
    }
}
