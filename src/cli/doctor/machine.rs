//! The checks of the machine that exist on every system: the configuration file, the clock, the limit of open files,
//! and the folders of orphand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orphand::core::time::Wall;
use orphand::store::folders::Folders;
use rustix::fs::{Access, AtFlags, CWD};

use super::check::Check;
use super::system::CLOCK_FIX;
use crate::cli::config::{Config, ConfigError};
use crate::cli::output::shell::{self, Suggestion};
use crate::cli::output::text;

/// 2020-01-01, in seconds since 1970. The program is younger than that.
const EARLIEST: i64 = 1_577_836_800;

/// A watcher has about thirty files open, and one eighth of the limit is for the temps that it checks at the same time.
const ENOUGH_FILES: u64 = 64;

/// Judges the configuration that was read. `default` is the default path of the file. `named` is `true` if directories
/// were given.
pub(super) fn config(
    read: &Result<Config, ConfigError>,
    default: Option<&Path>,
    named: bool,
) -> Check {
    let suggest = |command| Suggestion::new(command).configured();
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            return Check::error(
                "config",
                format!(
                    "{error}\nuntil that is fixed, the directories in the file are not watched"
                ),
                format!("correct that line, then: {}", suggest("config check")),
            );
        }
    };
    let (what, consequence, fix) = match (&config.path, config.watch.len() as u64) {
        (None, _) => (
            match default {
                Some(path) => format!(
                    "no configuration file; {} would be read",
                    text::escaped(path)
                ),
                None => "no configuration file; its path is not known, because HOME is not set"
                    .to_owned(),
            },
            "no directory is checked, and watch without DIR has nothing to do",
            format!(
                "orphand doctor DIR, or list directories: {}",
                suggest("config init")
            ),
        ),
        (Some(path), 0) => (
            format!("{}: valid, but lists no directory", text::escaped(path)),
            "watch without DIR has nothing to do",
            format!(
                "add to {} a [[watch]] section with a path",
                shell::word(path)
            ),
        ),
        (Some(path), roots) => {
            let roots = text::counted(roots, "directory", "directories");
            return Check::ok("config", format!("{}: valid, {roots}", text::escaped(path)));
        }
    };
    match named {
        true => Check::ok("config", what),
        false => Check::warning("config", format!("{what}: {consequence}"), fix),
    }
}

/// Judges the clock. `up` is the time since boot.
pub(super) fn clock(wall: Wall, up: Duration) -> Check {
    let now = jiff::Timestamp::from_second(wall.sec).map(|now| now.to_string());
    let now = now.unwrap_or_else(|_| format!("{} s since 1970", wall.sec));
    let problem = match wall.sec {
        sec if sec < i64::try_from(up.as_secs()).unwrap_or(i64::MAX) => {
            "by this clock the machine has been running since before 1970"
        }
        sec if sec < EARLIEST => "before 2020",
        _ => return Check::ok("clock", format!("{now}, running for {}", text::span(up))),
    };
    let what = format!(
        "{now}: {problem}. Ages are measured by a clock that counts from boot, so removals are only later; the journal \
         has wrong dates"
    );
    Check::warning("clock", what, CLOCK_FIX)
}

/// Judges the soft limit on open files; `None` means no limit.
pub(super) fn open_files(limit: Option<u64>) -> Check {
    let check = "open-files";
    match limit {
        Some(limit @ 0..ENOUGH_FILES) => Check::warning(
            check,
            format!(
                "at most {limit}: this limits the number of temps that are checked at the same time, so many orphans \
                 are removed more slowly"
            ),
            "ulimit -n 256; for a systemd service: LimitNOFILE=256",
        ),
        Some(limit) => Check::ok(
            check,
            format!("the limit is {}, which is enough", text::count(limit)),
        ),
        None => Check::ok(check, "no limit"),
    }
}

/// The result of the search for a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FoundFolder {
    /// The folder exists and is writable.
    Writable,
    /// The folder does not exist, and can be created in this ancestor.
    CanBeMade(PathBuf),
    /// This path, the folder or an ancestor, is not writable or not a folder.
    Blocked(PathBuf),
}

/// Judges the folders of the state and of the locks.
pub(super) fn folders(folders: &Folders) -> [Check; 2] {
    let found = |folder: &Option<PathBuf>| folder.clone().map(|folder| (find(&folder), folder));
    [
        folder("state", found(&folders.state)),
        folder("locks", found(&folders.runtime)),
    ]
}

/// Examines a folder and its ancestors, and creates nothing.
fn find(folder: &Path) -> FoundFolder {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    for path in folder.ancestors() {
        match rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS) {
            Err(rustix::io::Errno::NOENT) => {}
            Ok(()) if !path.is_dir() => return FoundFolder::Blocked(path.to_owned()),
            Ok(()) if path == folder => return FoundFolder::Writable,
            Ok(()) => return FoundFolder::CanBeMade(path.to_owned()),
            Err(_) => return FoundFolder::Blocked(path.to_owned()),
        }
    }
    FoundFolder::Blocked(folder.to_owned())
}

fn folder(check: &'static str, found: Option<(FoundFolder, PathBuf)>) -> Check {
    let (loses, variable) = match check {
        "state" => (
            "there is no journal, history shows nothing, and restored files are not remembered",
            "XDG_STATE_HOME",
        ),
        _ => (
            "nothing prevents two orphand processes from working on the same directory",
            "XDG_RUNTIME_DIR (after su or sudo it still belongs to the other user: unset it)",
        ),
    };
    let Some((found, folder)) = found else {
        return Check::warning(
            check,
            format!("no folder is known, because HOME is not set: {loses}"),
            "set HOME, or XDG_STATE_HOME",
        );
    };
    let shown = text::escaped(&folder);
    match found {
        FoundFolder::Writable => Check::ok(check, format!("{shown} is writable")),
        FoundFolder::CanBeMade(_) => {
            Check::ok(check, format!("{shown} will be created when needed"))
        }
        FoundFolder::Blocked(at) => Check::warning(
            check,
            format!(
                "{shown} is not writable, because of {}: {loses}",
                text::escaped(&at)
            ),
            format!(
                "sudo install -d -m 700 -o \"$(id -un)\" {}\nor name another folder: {variable}",
                shell::word(&folder)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckState;
    use super::*;

    #[test]
    fn a_wrong_configuration_is_an_error_and_an_empty_one_a_warning() {
        let path = Path::new("/etc/o.toml");
        let read = |text: &str| Config::parse(text, path, None);
        let one = "[[watch]]\npath = \"/srv/app\"\n";
        let wrong = "[[watch]]\npath = \"/srv/app\"\ngarce = \"10s\"\n";
        for (read, named, state, words) in [
            (
                read(one),
                false,
                CheckState::Ok,
                "/etc/o.toml: valid, 1 directory",
            ),
            (read(""), false, CheckState::Warning, "lists no directory"),
            (read(""), true, CheckState::Ok, "lists no directory"),
            (read(wrong), true, CheckState::Error, "/etc/o.toml:3:1: "),
            (
                Ok(Config::default()),
                false,
                CheckState::Warning,
                "/default would be read",
            ),
            (
                Ok(Config::default()),
                true,
                CheckState::Ok,
                "no configuration file",
            ),
        ] {
            let check = config(&read, Some(Path::new("/default")), named);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.what.contains(words), "{check:?}");
        }
    }

    #[test]
    fn a_clock_before_2020_is_a_warning() {
        for (sec, up, state) in [
            (1_800_000_000, 5, CheckState::Ok),
            (EARLIEST, 5, CheckState::Ok),
            (EARLIEST - 1, 5, CheckState::Warning),
            (100, 50, CheckState::Warning),
            (0, 60, CheckState::Warning),
            (-5, 60, CheckState::Warning),
            (i64::MAX, 5, CheckState::Ok),
        ] {
            let check = clock(Wall { sec, nsec: 0 }, Duration::from_secs(up));
            assert_eq!(check.state, state, "{check:?}");
            assert_eq!(check.fix.is_some(), state != CheckState::Ok);
        }
        let set = clock(Wall { sec: 0, nsec: 0 }, Duration::from_secs(60));
        assert!(set.what.contains("before 1970"), "{set:?}");
    }

    #[test]
    fn a_low_limit_is_a_warning() {
        for (limit, state) in [
            (Some(0), CheckState::Warning),
            (Some(63), CheckState::Warning),
            (Some(64), CheckState::Ok),
            (Some(256), CheckState::Ok),
            (None, CheckState::Ok),
        ] {
            assert_eq!(open_files(limit).state, state, "{limit:?}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_warning() {
        let at = |found| Some((found, PathBuf::from("/s/orphand")));
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
                let check = folder(check, found.clone());
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
