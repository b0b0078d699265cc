//! `orphand quarantine purge`: deletes files in quarantine.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use orphand::engine::limits::purged_event;
use orphand::fs::root::absolute;
use orphand::reap::quarantine::{FOLDER, Quarantine, SetError, Stored, StoredSet, is_id};
use orphand::store::folders::Folders;
use orphand::store::journal::{Journal, LineKind};
use orphand::store::json;
use orphand::sys::clock;

use super::{Purge, check_dirs, find, is_from, read_all};
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::standard_streams::{confirm, why_it_cannot_ask};
use crate::cli::output::text;
use crate::cli::runtime::dir_filter::DirFilter;
use crate::cli::runtime::quarantines::{QuarantineSum, Quarantines};

/// The files in the quarantine of one root, by set.
struct RootSets {
    root: PathBuf,
    sets: Vec<StoredSet>,
}

impl RootSets {
    /// Returns the sets of `stored` of which a member comes from a directory that `filter` matches.
    fn new(root: PathBuf, stored: Vec<Stored>, filter: &DirFilter) -> RootSets {
        let mut sets = StoredSet::group(stored);
        let is_from_there = is_from(&root, filter);
        sets.retain(|set| set.members().into_iter().any(&is_from_there));
        drop(is_from_there);
        RootSets { root, sets }
    }

    fn members(&self) -> impl Iterator<Item = &Stored> {
        self.sets.iter().flat_map(StoredSet::members)
    }

    /// Returns the paths that the files had.
    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.members().map(|one| self.root.join(&one.below))
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
    all: Vec<RootSets>,
    quarantines: &Quarantines,
    sum: &mut QuarantineSum,
) -> Result<Vec<RootSets>, Failure> {
    if ids.is_empty() {
        return Ok(all);
    }
    let mut places: HashMap<&str, Vec<&PathBuf>> = HashMap::new();
    for of_root in &all {
        for one in of_root.members() {
            places.entry(&one.id).or_default().push(&of_root.root);
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
    let with_asked = |mut of_root: RootSets| {
        of_root.sets.retain(|set| is_asked(set));
        (!of_root.sets.is_empty()).then_some(of_root)
    };
    Ok(all.into_iter().filter_map(with_asked).collect())
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

/// Asks whether all files in `wanted`, the files of the directories `dirs`, are to be deleted.
fn ask(
    wanted: &[RootSets],
    dirs: &[PathBuf],
    files: usize,
    output: &OutputOptions,
) -> Result<bool, Failure> {
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
    let with_files = wanted.iter().filter(|of_root| !of_root.sets.is_empty());
    let roots: Vec<&Path> = with_files.map(|of_root| of_root.root.as_path()).collect();
    let members = wanted.iter().flat_map(RootSets::members);
    let bytes = members.fold(0u64, |sum, one| sum.saturating_add(one.seen.allocated));
    Ok(confirm(&question(&roots, files, bytes)))
}

/// Deletes the files of a command, and prints an event for each.
struct Purger<'a> {
    journal: &'a Journal,
    report: EventPrinter,
    sum: QuarantineSum,
    /// The first error of an output. Nothing is printed after it, but the command goes on.
    printed: io::Result<()>,
}

impl Purger<'_> {
    fn purge(&mut self, of_root: &RootSets) {
        let root = of_root.root.as_path();
        let quarantine = match Quarantine::open_existing(root, None) {
            Ok(Some(quarantine)) => quarantine,
            // The quarantine has been removed; all its files count as left.
            _ => return,
        };
        for set in &of_root.sets {
            let purged = quarantine.purge_set(set, &mut |one| {
                self.sum.done += 1;
                let event = purged_event(root, one);
                (self.journal).write(LineKind::Outcome, &[json::event(&event, clock::wall())]);
                if self.printed.is_ok() {
                    self.printed = self.report.event(&event);
                }
            });
            if let Err(SetError { member, error }) = purged {
                self.sum.failed += 1;
                let id = set.members().get(member).map_or("", |one| one.id.as_str());
                log::error!(
                    "cannot delete {id} from the quarantine of {}: {error}",
                    text::escaped(root)
                );
            }
        }
    }
}

pub(super) fn run(command: &Purge, output: &OutputOptions) -> Result<Exit, Failure> {
    let config = Config::load(command.config.as_deref())?;
    let journal = Journal::new(Folders::from_env().state.as_deref());
    journal.set_cap(config.journal.max_size);
    // An argument that is a directory, or no id, says where to search.
    let is_dir = |given: &PathBuf| given.is_dir() || !given.to_str().is_some_and(is_id);
    let (dirs, ids): (Vec<PathBuf>, Vec<PathBuf>) = command.ids.iter().cloned().partition(is_dir);
    let quarantines = find(&dirs, &config, &journal);
    let (all, unreadable) = read_all(&quarantines);
    let filter = DirFilter::new(&dirs);
    let sets_of = |(root, stored)| RootSets::new(root, stored, &filter);
    let all: Vec<RootSets> = all.into_iter().map(sets_of).collect();
    let paths: Vec<PathBuf> = all.iter().flat_map(RootSets::paths).collect();
    check_dirs(&dirs, &paths)?;
    let mut sum = QuarantineSum::default();
    let wanted = select_files(&ids, all, &quarantines, &mut sum)?;
    sum.requested += wanted.iter().flat_map(RootSets::members).count();
    // Ids name the files exactly. Without ids, everything would be deleted, so the user is asked once.
    let asks = ids.is_empty() && !command.yes && sum.requested > 0;
    if asks && !ask(&wanted, &dirs, sum.requested, output)? {
        return Ok(Exit::Done);
    }
    let mut purger = Purger {
        journal: &journal,
        report: EventPrinter::new(output),
        sum,
        printed: Ok(()),
    };
    wanted.iter().for_each(|of_root| purger.purge(of_root));
    let Purger {
        mut report,
        sum,
        mut printed,
        ..
    } = purger;
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
    Ok(
        match unreadable || sum.failed > 0 || sum.done < sum.requested {
            true => Exit::Partial,
            false => Exit::Done,
        },
    )
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
