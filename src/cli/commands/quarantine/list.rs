//! `orphand quarantine list`: lists the files in quarantine.

use std::path::{Path, PathBuf};

use orphand::core::observation::FileSize;
use orphand::core::sort::sort_by;
use orphand::fs::root::absolute;
use orphand::reap::quarantine::Stored;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;
use orphand::store::json::{self, FileFields};
use serde::Serialize;

use super::{QuarantineOptions, check_dirs, find, is_from, read_all};
use crate::cli::commands::restore::stored_line;
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::{Suggestion, purge_command};
use crate::cli::output::text;
use crate::cli::runtime::dir_filter::DirFilter;

pub(super) fn run(command: &QuarantineOptions, output: &OutputOptions) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut report = EventPrinter::new(output);
    let (mut files, mut size) = (0, FileSize::default());
    let quarantines = find(&command.dirs, &config, &journal);
    let (all, failed) = read_all(&quarantines);
    let filter = DirFilter::new(&command.dirs);
    let mut rows = Vec::new();
    for (root, stored) in &all {
        let is_from_there = is_from(root, &filter);
        let asked = stored.iter().filter(|one| is_from_there(one));
        rows.extend(asked.map(|one| (root.join(&one.below), root, one)));
    }
    let paths: Vec<PathBuf> = rows.iter().map(|(path, ..)| path.clone()).collect();
    check_dirs(&command.dirs, &paths)?;
    // The oldest first, of the files that had the same path.
    sort_by(&mut rows, |(a, _, one), (b, _, other)| {
        (a, one.since(), &one.id).cmp(&(b, other.since(), &other.id))
    });
    for (_, root, stored) in rows {
        files += 1;
        size = size.plus(stored.seen.size());
        match output.json {
            true => report.json(&StoredFields::new(root, stored))?,
            false => report.line(&stored_line(root, stored))?,
        }
    }
    if !output.json && !output.quiet {
        let text = match files {
            0 => format!("no files in quarantine ({})", quarantines.searched()),
            files => format!(
                "{}, {}.   to restore: {} ID   to delete one: {} ID   to delete all: {}",
                text::counted(files, "file", "files"),
                text::size_with_disk(size),
                Suggestion::new("restore").configured(),
                Suggestion::new("quarantine purge").configured(),
                purge_command(command.dirs.iter().map(|dir| absolute(dir)))
            ),
        };
        report.line(&text)?;
    }
    Ok(match failed {
        true => Exit::Partial,
        false => Exit::Done,
    })
}

/// The JSON of a file in quarantine.
#[derive(Serialize)]
struct StoredFields<'a> {
    id: &'a str,
    #[serde(flatten)]
    file: FileFields<'a>,
    time: String,
}

impl StoredFields<'_> {
    fn new<'a>(root: &'a Path, stored: &'a Stored) -> StoredFields<'a> {
        StoredFields {
            id: &stored.id,
            file: FileFields {
                path: Some(root.join(&stored.below).into()),
                root: Some(root.into()),
                bytes: Some(stored.seen.fingerprint.size),
                disk_bytes: Some(stored.seen.allocated),
            },
            time: json::time(stored.since()),
        }
    }
}
