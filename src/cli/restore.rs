//! `orphand restore`: out of the quarantine, to where it was or elsewhere. It never overwrites.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::clock;
use orphand::decide::observation::Observation;
use orphand::event::{Event, Subject};
use orphand::evidence::restored::Marks;
use orphand::journal::{Journal, Line};
use orphand::json;
use orphand::look::Dir;
use orphand::reap::quarantine::{Room, Stored, is_id};
use orphand::root::absolute;
use orphand::state::Folders;

use super::args::{Look, Restore};
use super::config_file::Config;
use super::quarantines::{Quarantines, Sum};
use super::report::Report;
use super::{Exit, Failure, text};

pub(super) fn run(command: &Restore, look: &Look) -> Result<Exit, Failure> {
    let to_folder = command.to.as_deref().is_some_and(is_folder);
    if command.to.is_some() && command.which.len() > 1 && !to_folder {
        return Err(Failure::new(
            Exit::Usage,
            "--to names one path, and several files were named; name a directory, or restore them one by one",
        ));
    }
    let config = Config::load(command.config.as_deref())?;
    let folders = Folders::from_env();
    let restoring = Restoring {
        journal: Journal::new(folders.state.as_deref()),
        marks: Marks::new(folders.state.as_deref()),
        to: command.to.as_deref().map(absolute),
        to_folder,
        config,
    };
    let mut report = Report::new(look, Vec::new());
    let mut sum = Sum {
        asked: command.which.len(),
        ..Sum::default()
    };
    // That nobody reads what is said stops nothing.
    let mut told = Ok(());
    for which in &command.which {
        match restoring.restore(which) {
            Ok(event) => {
                sum.done += 1;
                told = told.and_then(|()| report.event(&event));
            }
            Err(failure) if sum.asked == 1 => return Err(failure),
            Err(failure) => {
                sum.failed += 1;
                log::error!("{}", failure.text);
            }
        }
    }
    if sum.asked > 1 {
        match look.json {
            true => eprintln!("{}", sum.line("restored")),
            false if !look.quiet => {
                told = told.and_then(|()| report.line(&sum.line("restored")));
            }
            false => {}
        }
    }
    told?;
    Ok(match sum.failed {
        0 => Exit::Done,
        _ => Exit::Partly,
    })
}

/// Whether a path that was typed means a directory that files are put into.
fn is_folder(typed: &Path) -> bool {
    typed.as_os_str().as_bytes().ends_with(b"/") || typed.is_dir()
}

/// What holds for all files that are brought back.
struct Restoring {
    config: Config,
    journal: Journal,
    marks: Marks,
    to: Option<PathBuf>,
    /// `to` is a directory.
    to_folder: bool,
}

impl Restoring {
    fn restore(&self, which: &Path) -> Result<Event, Failure> {
        let (room, stored) = find(which, &self.config, &self.journal)?;
        let root = room.root().path().to_owned();
        let to = match &self.to {
            Some(to) if self.to_folder => to.join(stored.below.file_name().unwrap_or_default()),
            Some(to) => to.clone(),
            None => root.join(&stored.below),
        };
        let seen = bring_back(&room, &stored, &to, self.to.is_none(), &self.marks)?;
        let event = Event::Restored {
            subject: Subject {
                path: to,
                root,
                size: Some(seen.size()),
            },
            id: stored.id,
        };
        let line = json::event(&event, clock::wall());
        self.journal.write(Line::Outcome, &[line]);
        Ok(event)
    }
}

fn bring_back(
    room: &Room,
    stored: &Stored,
    to: &Path,
    to_old_place: bool,
    marks: &Marks,
) -> Result<Observation, Failure> {
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(Failure::new(
            Exit::Usage,
            format!("{to:?} is not a path for a file"),
        ));
    };
    let failed = |error: &dyn std::fmt::Display| {
        let what = format!("cannot restore {} to {to:?}: {error}", stored.id);
        Failure::new(
            Exit::Failed,
            format!("{what}; to put it elsewhere: --to PATH"),
        )
    };
    let mark = |file: std::os::fd::BorrowedFd<'_>, seen: &_| {
        if let Err(error) = put(marks, file, seen) {
            log::warn!(
                "{to:?} cannot be marked as restored ({error}): a watcher may take it again"
            );
        }
    };
    // The old place is below the root, and no link must lead out of it. What is typed is taken.
    let dir = match to_old_place {
        true => {
            let below = stored.below.parent().unwrap_or(Path::new(""));
            Dir::open_below(room.root().path(), Some(room.root().id()), below)
        }
        false => Dir::open_root(parent, None),
    };
    let dir = dir.map_err(|error| failed(&error))?;
    let restored = room.restore(stored, dir.fd().as_fd(), name, mark);
    match restored {
        Ok(seen) => Ok(seen),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(failed(
            &"something exists there already, and nothing is overwritten",
        )),
        Err(error) => Err(failed(&error)),
    }
}

fn put(
    marks: &Marks,
    file: std::os::fd::BorrowedFd<'_>,
    seen: &Observation,
) -> std::io::Result<()> {
    marks.put(file, &seen.fingerprint)
}

/// Finds what `which` names: an id, or the path that the file had.
fn find(which: &Path, config: &Config, journal: &Journal) -> Result<(Room, Stored), Failure> {
    let id = which.to_str().filter(|id| is_id(id));
    let path = absolute(which);
    let mut found: Vec<(Room, Stored)> = Vec::new();
    let quarantines = Quarantines::known(config, journal, Some(&path));
    quarantines.say_what_failed();
    for paths in &quarantines.found {
        // By which of its paths the file is named, if by its path.
        let by_path = |one: &Stored| paths.iter().find(|root| root.join(&one.below) == path);
        let named = |one: &Stored| match Some(one.id.as_str()) == id {
            true => paths.first(),
            false => by_path(one),
        };
        let Some(Ok(Some(room))) = paths.first().map(|root| Room::find(root, None)) else {
            continue;
        };
        let stored = room.stored().unwrap_or_default();
        // Several may have had the same path: the newest is the one that is meant.
        let one = stored
            .into_iter()
            .rev()
            .find_map(|one| Some((named(&one)?, one)));
        if let Some((root, one)) = one
            && let Ok(Some(room)) = Room::find(root, None)
        {
            found.push((room, one));
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(one)) => Ok(one),
        (0, _) | (_, None) => Err(Failure::new(
            Exit::Failed,
            format!(
                "nothing in quarantine is {which:?}; what there is: orphand quarantine list ({})",
                quarantines.searched()
            ),
        )),
        (_, Some(_)) => Err(Failure::new(
            Exit::Failed,
            format!("{which:?} is in more than one quarantine; name it by the path that it had"),
        )),
    }
}

/// A line about a stored file.
pub(super) fn line(root: &Path, stored: &Stored) -> String {
    let bytes = text::size(stored.seen.fingerprint.size);
    let age = text::span(clock::wall().since(stored.since()));
    let path = text::escaped(&root.join(&stored.below));
    format!("{:<16}  {bytes:>8}  {age:>8}  {path}", stored.id)
}
