//! `orphand quarantine`: what is held back, and how to be rid of it.

use std::path::PathBuf;

use orphand::clock;
use orphand::journal::{Journal, Line};
use orphand::json;
use orphand::look::answer;
use orphand::reap::quarantine::{FOLDER, Room, purged};
use orphand::root::absolute;
use orphand::state::Folders;

use super::args::{Look, Purge, Quarantine, Rooms};
use super::config_file::Config;
use super::report::Report;
use super::restore::{line, roots};
use super::{Exit, Failure, confirmed, no_answer, stdin_is_terminal, text};

pub(super) fn run(command: &Quarantine, look: &Look) -> Result<Exit, Failure> {
    match command {
        Quarantine::List(rooms) => list(rooms, look),
        Quarantine::Purge(command) => purge(command, look),
    }
}

fn list(command: &Rooms, look: &Look) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut report = Report::new(look, Vec::new());
    let (mut files, mut bytes, mut exit) = (0, 0, Exit::Done);
    let roots = match command.dirs.is_empty() {
        true => roots(&config, &journal),
        false => command.dirs.iter().map(|dir| absolute(dir)).collect(),
    };
    for root in roots {
        if !answer::answers(&root) {
            log::error!("{}", no_answer(&root));
            exit = Exit::Partly;
            continue;
        }
        let Ok(Some(room)) = Room::find(&root, None) else {
            continue;
        };
        for stored in room.stored()? {
            files += 1;
            bytes = stored.seen.fingerprint.size.saturating_add(bytes);
            let text = match look.json {
                true => json::Object::default()
                    .with("id", stored.id.as_str())
                    .with_path("path", Some(&root.join(&stored.below)))
                    .with_path("root", Some(&root))
                    .with("bytes", stored.seen.fingerprint.size)
                    .with("time", json::time(stored.since()))
                    .into_value()
                    .to_string(),
                false => line(&root, &stored),
            };
            report.line(&text)?;
        }
    }
    if !look.json && !look.quiet {
        let text = match files {
            0 => "nothing is in quarantine".to_owned(),
            files => format!(
                "{}, {}.   back: orphand restore ID   for good: orphand quarantine purge [ID]",
                text::counted(files, "file", "files"),
                text::size(bytes)
            ),
        };
        report.line(&text)?;
    }
    Ok(exit)
}

/// A root that was copied with its quarantine has the same ids: which file is meant cannot be told.
fn only_one(id: &str, wanted: &[(PathBuf, Room, String)]) -> Result<(), Failure> {
    let of_it = wanted.iter().filter(|(_, _, other)| other == id);
    let places: Vec<String> = of_it
        .map(|(root, ..)| format!("{:?}", root.join(FOLDER).join(id)))
        .collect();
    if places.len() < 2 {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!(
            "{id:?} is in more than one quarantine, and nothing was deleted: {}; remove the one \
             that is not wanted by hand",
            places.join(", ")
        ),
    ))
}

fn purge(command: &Purge, look: &Look) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut wanted: Vec<(PathBuf, Room, String)> = Vec::new();
    let (mut found, mut bytes) = (Vec::new(), 0);
    for root in roots(&config, &journal) {
        let Ok(Some(room)) = Room::find(&root, None) else {
            continue;
        };
        for stored in room.stored()? {
            if command.ids.is_empty() || command.ids.contains(&stored.id) {
                bytes = stored.seen.fingerprint.size.saturating_add(bytes);
                found.push(stored.id.clone());
                if let Ok(Some(room)) = Room::find(&root, None) {
                    wanted.push((root.clone(), room, stored.id));
                }
            }
        }
    }
    if let Some(id) = command.ids.iter().find(|id| !found.contains(id)) {
        return Err(Failure::new(
            Exit::Failed,
            format!("nothing in quarantine is {id:?}; what there is: orphand quarantine list"),
        ));
    }
    for id in &command.ids {
        only_one(id, &wanted)?;
    }
    // An id says exactly what is meant; everything is asked for once.
    if command.ids.is_empty() && !command.yes && !wanted.is_empty() {
        if !stdin_is_terminal() || look.json {
            return Err(Failure::new(
                Exit::Usage,
                "purge deletes for good, and nobody can be asked here: say --yes, or name the ids",
            ));
        }
        let files = text::counted(wanted.len() as u64, "file", "files");
        if !confirmed(&format!("Delete {files} ({}) for good?", text::size(bytes))) {
            return Ok(Exit::Done);
        }
    }
    let mut report = Report::new(look, Vec::new());
    let mut exit = Exit::Done;
    for (root, room, id) in wanted {
        match room.purge(&id) {
            Ok(stored) => {
                let event = purged(&root, &stored);
                journal.write(Line::Outcome, &[json::event(&event, clock::wall())]);
                report.event(&event)?;
            }
            Err(error) => {
                log::error!("{id} in {root:?} cannot be deleted: {error}");
                exit = Exit::Partly;
            }
        }
    }
    Ok(exit)
}
