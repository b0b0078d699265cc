//! `orphand quarantine`: lists the files in quarantine, and deletes them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use orphand::core::observation::FileSize;
use orphand::core::sort::sort_by;
use orphand::engine::limits::purged_event;
use orphand::fs::dir::RootError;
use orphand::fs::response;
use orphand::fs::root::{Refused, absolute};
use orphand::reap::quarantine::{FOLDER, Quarantine, SetError, Stored, StoredSet, is_id};
use orphand::store::folders::Folders;
use orphand::store::journal::{Journal, LineKind};
use orphand::store::json::{self, FileFields};
use orphand::sys::clock;
use serde::Serialize;

use super::restore::stored_line;
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::{Suggestion, purge_command};
use crate::cli::output::standard_streams::{confirm, why_it_cannot_ask};
use crate::cli::output::text;
use crate::cli::runtime::plan::missing;
use crate::cli::runtime::quarantines::{QuarantineSum, Quarantines};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the files in quarantine
    List(QuarantineOptions),
    /// Delete files in quarantine permanently
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
pub(crate) struct QuarantineOptions {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directories to search; default: the directories of the configuration and of the journal, the current directory
    /// and its parents
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
    /// Ids of files to delete, or directories in which all files in quarantine are deleted; default: the directories of
    /// the configuration and of the journal, the current directory and its parents; deletes all files found
    #[arg(value_name = "ID|DIR")]
    pub(crate) ids: Vec<PathBuf>,
}

pub(crate) fn run(command: &QuarantineCommand, output: &OutputOptions) -> Result<Exit, Failure> {
    match command {
        QuarantineCommand::List(options) => list(options, output),
        QuarantineCommand::Purge(command) => purge(command, output),
    }
}

/// Reads all quarantines. Returns the files by root, and whether a quarantine could not be opened or read.
fn read_all(quarantines: &Quarantines) -> (Vec<(PathBuf, Vec<Stored>)>, bool) {
    let mut failed = quarantines.report_failures();
    let mut all = Vec::new();
    for root in quarantines.roots() {
        let stored = match Quarantine::open_existing(root, None) {
            Ok(Some(quarantine)) => quarantine.stored(),
            // It has been removed since the search.
            _ => continue,
        };
        match stored {
            Ok(stored) => all.push((root.clone(), stored)),
            Err(error) => {
                failed = true;
                log::error!(
                    "cannot read the quarantine {}: {error}",
                    text::escaped(&root.join(FOLDER))
                );
            }
        }
    }
    (all, failed)
}

/// Returns the test whether a path is in one of `dirs`. Without any, each path is.
fn is_below(dirs: &[PathBuf]) -> impl Fn(&Path) -> bool {
    let names = |dir: &PathBuf| std::iter::once(absolute(dir)).chain(fs::canonicalize(dir).ok());
    let dirs: Vec<PathBuf> = dirs.iter().flat_map(names).collect();
    move |path| dirs.is_empty() || dirs.iter().any(|dir| path.starts_with(dir))
}

/// Returns the test whether `is_asked` holds for the old path of a stored file of `root`.
fn is_from(root: &Path, is_asked: impl Fn(&Path) -> bool) -> impl Fn(&Stored) -> bool {
    // The directory may be given by another path than that of the quarantine.
    let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    move |one| is_asked(&root.join(&one.below)) || is_asked(&real.join(&one.below))
}

/// Returns the error for the first of `dirs` that does not exist or is not a directory. If files from that path are in
/// `stored`, it is no error: such a directory may have been removed after its files were moved.
fn check_dirs(dirs: &[PathBuf], stored: &[PathBuf]) -> Result<(), Failure> {
    for dir in dirs.iter().filter(|dir| response::responds(&absolute(dir))) {
        let failure = match fs::metadata(dir) {
            Ok(found) if !found.is_dir() => {
                Failure::new(Exit::Usage, Refused::NotADirectory(absolute(dir)))
            }
            Err(error) if RootError::is_missing_error(&error) => missing(&absolute(dir)),
            _ => continue,
        };
        let is_asked = is_below(std::slice::from_ref(dir));
        if !stored.iter().any(|path| is_asked(path)) {
            return Err(failure);
        }
    }
    Ok(())
}

fn list(command: &QuarantineOptions, output: &OutputOptions) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    let mut report = EventPrinter::new(output, Vec::new());
    let (mut files, mut size) = (0, FileSize::default());
    let quarantines = match command.dirs.is_empty() {
        true => Quarantines::known(&config, &journal, None),
        false => Quarantines::enclosing(command.dirs.iter().map(|dir| absolute(dir))),
    };
    let (all, failed) = read_all(&quarantines);
    let is_asked = is_below(&command.dirs);
    let mut rows = Vec::new();
    for (root, stored) in &all {
        let is_from_there = is_from(root, &is_asked);
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

/// Returns the error for an id that exists in several quarantines, if it does. This happens when a root is copied
/// together with its quarantine; the id does not say which of the files is meant.
fn check_unique(id: &str, places: &[&PathBuf]) -> Result<(), Failure> {
    if places.len() < 2 {
        return Ok(());
    }
    let places: Vec<String> = places
        .iter()
        .map(|root| format!("{:?}", root.join(FOLDER)))
        .collect();
    Err(Failure::failed(format!(
        "{id:?} exists in more than one quarantine: {}; it was not deleted; remove the unwanted file with rm",
        places.join(", ")
    )))
}

/// Returns the files to delete, by root. An id that names no file, or several, counts as failed in `sum`, and is an error
/// if it is the only one.
fn select_files(
    ids: &[PathBuf],
    all: Vec<(PathBuf, Vec<StoredSet>)>,
    quarantines: &Quarantines,
    sum: &mut QuarantineSum,
) -> Result<Vec<(PathBuf, Vec<StoredSet>)>, Failure> {
    if ids.is_empty() {
        return Ok(all);
    }
    let mut places: HashMap<&str, Vec<&PathBuf>> = HashMap::new();
    for (root, sets) in &all {
        for one in sets.iter().flat_map(StoredSet::members) {
            places.entry(&one.id).or_default().push(root);
        }
    }
    let mut asked: HashSet<&str> = HashSet::new();
    for given in ids {
        let known = given.to_str().and_then(|id| Some((id, places.get(id)?)));
        let id = match known {
            Some((id, places)) => {
                rule!("id-of-one-file", check_unique(id, places), without: Ok(())).map(|()| id)
            }
            None => Err(Failure::failed(format!(
                "no file in quarantine has the id {given:?} ({}); to list the files: {}",
                quarantines.searched(),
                Suggestion::new("quarantine list").configured()
            ))),
        };
        match id {
            Ok(id) => _ = asked.insert(id),
            Err(failure) if ids.len() == 1 => return Err(failure),
            Err(failure) => {
                sum.requested += 1;
                sum.failed += 1;
                failure.report();
            }
        }
    }
    // The id of one member means the whole set.
    let is_asked = |set: &StoredSet| {
        let mut members = set.members().into_iter();
        members.any(|one| asked.contains(one.id.as_str()))
    };
    let of_root = |(root, mut sets): (PathBuf, Vec<StoredSet>)| {
        sets.retain(|set| is_asked(set));
        (!sets.is_empty()).then_some((root, sets))
    };
    Ok(all.into_iter().filter_map(of_root).collect())
}

/// The largest number of directories that the question names.
const MAX_NAMED: usize = 3;

/// Returns the question before all files in the quarantines of `roots` are deleted.
fn question(roots: &[&Path], files: usize, bytes: u64) -> String {
    let roots: Vec<String> = roots.iter().map(|root| text::escaped(root)).collect();
    let from = match roots.as_slice() {
        [root] => format!("the quarantine of {root}"),
        roots if roots.len() <= MAX_NAMED => {
            format!(
                "the quarantines of {} directories ({})",
                roots.len(),
                roots.join(", ")
            )
        }
        roots => format!("the quarantines of {} directories", roots.len()),
    };
    format!(
        "Delete {} ({}) permanently from {from}?",
        text::counted(files as u64, "file", "files"),
        text::size(bytes)
    )
}

fn purge(command: &Purge, output: &OutputOptions) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    journal.set_cap(config.journal.max_size);
    // An argument that is a directory, or no id, says where to search.
    let is_dir = |given: &PathBuf| given.is_dir() || !given.to_str().is_some_and(is_id);
    let (dirs, ids): (Vec<PathBuf>, Vec<PathBuf>) = command.ids.iter().cloned().partition(is_dir);
    let quarantines = match dirs.is_empty() {
        true => Quarantines::known(&config, &journal, None),
        false => Quarantines::enclosing(dirs.iter().map(|dir| absolute(dir))),
    };
    let (all, mut failed) = read_all(&quarantines);
    let is_asked = is_below(&dirs);
    let (mut wanted, mut paths) = (Vec::new(), Vec::new());
    for (root, stored) in all {
        let is_from_there = is_from(&root, &is_asked);
        let mut sets = StoredSet::group(stored);
        // One member of a set means the whole set.
        sets.retain(|set| set.members().into_iter().any(&is_from_there));
        let members = sets.iter().flat_map(StoredSet::members);
        paths.extend(members.map(|one| root.join(&one.below)));
        drop(is_from_there);
        wanted.push((root, sets));
    }
    check_dirs(&dirs, &paths)?;
    let mut sum = QuarantineSum::default();
    let wanted = select_files(&ids, wanted, &quarantines, &mut sum)?;
    let mut bytes = 0u64;
    let sets = wanted.iter().flat_map(|(_, sets)| sets);
    for stored in sets.flat_map(StoredSet::members) {
        sum.requested += 1;
        bytes = bytes.saturating_add(stored.seen.allocated);
    }
    // Ids name the files exactly. Without ids, everything would be deleted, so the user is asked once.
    if ids.is_empty() && !command.yes && sum.requested > 0 {
        if let Some(why) = why_it_cannot_ask(output) {
            return Err(Failure::new(
                Exit::Usage,
                format!(
                    "purge deletes files permanently and {why}; name the ids, or delete all of them: {}",
                    Suggestion::new("quarantine purge")
                        .configured()
                        .flag("--yes", true)
                        .args(dirs.iter().map(|dir| absolute(dir)))
                ),
            ));
        }
        let with_files = wanted.iter().filter(|(_, sets)| !sets.is_empty());
        let roots: Vec<&Path> = with_files.map(|(root, _)| root.as_path()).collect();
        if !confirm(&question(&roots, sum.requested, bytes)) {
            return Ok(Exit::Done);
        }
    }
    let mut report = EventPrinter::new(output, Vec::new());
    // A closed pipe does not stop the command.
    let mut printed = Ok(());
    for (root, sets) in wanted {
        let quarantine = match Quarantine::open_existing(&root, None) {
            Ok(Some(quarantine)) => quarantine,
            // The quarantine has been removed; all its files count as left.
            _ => continue,
        };
        for set in sets {
            let purged = quarantine.purge_set(&set, &mut |one| {
                sum.done += 1;
                let event = purged_event(&root, one);
                journal.write(LineKind::Outcome, &[json::event(&event, clock::wall())]);
                if printed.is_ok() {
                    printed = report.event(&event);
                }
            });
            if let Err(SetError { member, error }) = purged {
                sum.failed += 1;
                let id = set.members().get(member).map_or("", |one| one.id.as_str());
                log::error!(
                    "cannot delete {id} from the quarantine of {}: {error}",
                    text::escaped(&root)
                );
            }
        }
    }
    failed |= sum.failed > 0 || sum.done < sum.requested;
    let line = match sum.requested {
        0 => format!("no files in quarantine ({})", quarantines.searched()),
        _ => sum.line("deleted"),
    };
    match output.json {
        true if sum.requested > 1 => eprintln!("{line}"),
        false if (sum.requested != 1 || ids.is_empty()) && !output.quiet => {
            printed = printed.and_then(|()| report.line(&line));
        }
        _ => {}
    }
    printed?;
    Ok(match failed {
        true => Exit::Partial,
        false => Exit::Done,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_directories() {
        let roots = ["/srv/app", "/b", "/c", "/d"].map(Path::new);
        for (count, files, want) in [
            (
                1,
                1,
                "Delete 1 file (3.3 MB) permanently from the quarantine of /srv/app?",
            ),
            (
                3,
                85,
                "Delete 85 files (3.3 MB) permanently from the quarantines of 3 directories (/srv/app, /b, /c)?",
            ),
            (
                4,
                85,
                "Delete 85 files (3.3 MB) permanently from the quarantines of 4 directories?",
            ),
        ] {
            assert_eq!(question(&roots[..count], files, 3_300_000), want);
        }
    }
}
