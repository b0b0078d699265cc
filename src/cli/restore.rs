//! `orphand restore`: out of the quarantine, to where it was or elsewhere. It never overwrites.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::clock;
use orphand::decide::observation::Observation;
use orphand::event::{Event, Subject};
use orphand::evidence::restored::Marks;
use orphand::journal::{Journal, Line};
use orphand::json;
use orphand::look::{Dir, answer};
use orphand::reap::quarantine::{Room, Stored, is_id};
use orphand::root::absolute;
use orphand::state::Folders;
use serde_json::Value;

use super::args::{Look, Restore};
use super::config_file::Config;
use super::report::Report;
use super::{Exit, Failure, no_answer, text};

pub(super) fn run(command: &Restore, look: &Look) -> Result<Exit, Failure> {
    if command.to.is_some() && command.which.len() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            "--to names one path, and several files were named; restore them one by one",
        ));
    }
    let config = Config::load(command.config.as_deref())?;
    let folders = Folders::from_env();
    let journal = Journal::new(folders.state.as_deref());
    let marks = Marks::new(folders.state.as_deref());
    let mut report = Report::new(look, Vec::new());
    for which in &command.which {
        let (room, stored) = find(which, &config, &journal)?;
        let root = room.root().path().to_owned();
        let to = match &command.to {
            Some(to) => absolute(to),
            None => root.join(&stored.below),
        };
        let seen = bring_back(&room, &stored, &to, command.to.is_none(), &marks)?;
        let event = Event::Restored {
            subject: Subject {
                path: to,
                root,
                size: Some(seen.size()),
            },
            id: stored.id,
        };
        journal.write(Line::Outcome, &[json::event(&event, clock::wall())]);
        report.event(&event)?;
    }
    Ok(Exit::Done)
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
    let restored = room.restore(&stored.id, dir.fd().as_fd(), name, mark);
    match restored {
        Ok(seen) => Ok(seen),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(failed(
            &"something exists there already, and nothing is overwritten",
        )),
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => Err(failed(
            &"it is on another file system; name a path on the same one",
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
    for paths in known_roots(config, journal, Some(&path)) {
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
                "nothing in quarantine is {which:?}; what there is: orphand quarantine list. \
                 (Searched: the roots of the journal and of the configuration, and here.)"
            ),
        )),
        (_, Some(_)) => Err(Failure::new(
            Exit::Failed,
            format!("{which:?} is in more than one quarantine; name it by the path that it had"),
        )),
    }
}

/// Where there is a quarantine, each once.
pub(super) fn roots(config: &Config, journal: &Journal) -> Vec<PathBuf> {
    let known = known_roots(config, journal, None);
    known
        .into_iter()
        .filter_map(|paths| paths.into_iter().next())
        .collect()
}

/// Where a quarantine is: among the roots of the journal and the configuration, this directory, and all parents
/// of `path`; each quarantine once, with all roots by which it is reached.
fn known_roots(config: &Config, journal: &Journal, path: Option<&Path>) -> Vec<Vec<PathBuf>> {
    let mut roots: BTreeSet<PathBuf> = config.watch.iter().map(|rule| rule.path.clone()).collect();
    roots.extend(std::env::current_dir());
    roots.extend(
        path.into_iter()
            .flat_map(Path::ancestors)
            .skip(1)
            .map(Path::to_owned),
    );
    let read = journal.outcomes(|object| {
        roots.extend(path_of(&object, "root"));
    });
    if let Err(error) = read {
        log::warn!("the journal cannot be read ({error}); its roots are not searched");
    }
    let (mut known, mut places) = (Vec::<Vec<PathBuf>>::new(), HashMap::new());
    let silent = answer::silent(roots.iter().map(PathBuf::as_path));
    for root in &silent {
        log::warn!("{}", no_answer(root));
    }
    let answering = roots.iter().filter(|root| !silent.contains(root.as_path()));
    for root in answering.cloned() {
        // Two mounts may show the same one; and one of them may be covered by a third.
        let room = Room::find(&root, None).ok().flatten();
        let Some(folder) = room.and_then(|room| room.folder().ok()) else {
            continue;
        };
        let place = *places.entry(folder).or_insert(known.len());
        match known.get_mut(place) {
            Some(paths) => paths.push(root),
            None => known.push(vec![root]),
        }
    }
    known
}

/// A path out of an object on the wire, exact also where it is not UTF-8.
pub(super) fn path_of(object: &Value, key: &str) -> Option<PathBuf> {
    use base64::Engine as _;
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    match text(&format!("{key}_b64")) {
        Some(encoded) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .ok()?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
        }
        None => text(key).map(PathBuf::from),
    }
}

/// A line about a stored file.
pub(super) fn line(root: &Path, stored: &Stored) -> String {
    let bytes = text::size(stored.seen.fingerprint.size);
    let age = text::span(clock::wall().since(stored.since()));
    let path = text::escaped(&root.join(&stored.below));
    format!("{:<16}  {bytes:>8}  {age:>8}  {path}", stored.id)
}
