//! `orphand restore`: moves files out of the quarantine, to their old paths or elsewhere, or copies them to the names
//! of their targets. It never overwrites a file.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::core::event::{Event, Subject};
use orphand::core::policy::Policy;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::fs::dir::Dir;
use orphand::fs::root::absolute;
use orphand::reap::quarantine::{FOLDER, Quarantine, Stored, StoredSet, is_id};
use orphand::store::folders::Folders;
use orphand::store::journal::{Journal, LineKind};
use orphand::store::json;
use orphand::sys::clock;

use super::restore_target::TargetRestorer;
use super::restored_file::{marking, no_directory, not_restored, set_not_restored};
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::{moment, text};
use crate::cli::runtime::quarantines::{QuarantineSum, Quarantines};

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// Restore to this path; if it is a directory, into it
    #[arg(long, value_name = "PATH")]
    pub(crate) to: Option<PathBuf>,
    /// Copy to the name of the target, if no file has it; the stored file stays in the quarantine
    #[arg(long, conflicts_with = "to")]
    pub(crate) as_target: bool,
    /// Read this configuration file
    #[arg(long, value_name = "FILE", env = "ORPHAND_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Ids, or the old paths of the files
    #[arg(value_name = "ID|FILE", required = true)]
    pub(crate) which: Vec<PathBuf>,
}

pub(crate) fn run(command: &Restore, output: &OutputOptions) -> Result<Exit, Failure> {
    let to_folder = command.to.as_deref().is_some_and(is_folder);
    if let Some(to) = &command.to
        && absolute(to).iter().any(|part| part == FOLDER)
    {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "{to:?} is in a quarantine, where no command would find the file; name another path"
            ),
        ));
    }
    if command.to.is_some() && command.which.len() > 1 && !to_folder {
        return Err(Failure::new(
            Exit::Usage,
            "--to names a single path for several files; name a directory, or restore the files one by one",
        ));
    }
    let config = Config::load(command.config.as_deref())?;
    let folders = Folders::from_env();
    let journal = Journal::new(folders.state.as_deref()).with_cap(config.journal.max_size);
    let paths: Vec<PathBuf> = command.which.iter().map(|which| absolute(which)).collect();
    let quarantines = Quarantines::known(&config, &journal, paths.iter().map(PathBuf::as_path));
    let mut context = RestoreContext {
        marks: RestoreMarks::new(folders.state.as_deref()),
        to: command.to.as_deref().map(absolute),
        to_folder,
        stored_files: StoredFiles::read(quarantines),
        targets: command.as_target.then(|| TargetRestorer::new(&config)),
        config: &config,
        journal,
    };
    let mut report = EventPrinter::new(output);
    let mut sum = QuarantineSum {
        requested: command.which.len(),
        ..QuarantineSum::default()
    };
    // A closed pipe does not stop the command.
    let mut printed = Ok(());
    for which in &command.which {
        match context.restore(which) {
            Ok(events) => {
                sum.done += 1;
                for event in events {
                    printed = printed.and_then(|()| match copied_line(&event) {
                        Some(line) if command.as_target && !output.json && !output.quiet => {
                            report.line(&line)
                        }
                        _ => report.event(&event),
                    });
                }
            }
            Err(failure) if sum.requested == 1 => return Err(failure),
            Err(failure) => {
                sum.failed += 1;
                failure.report();
            }
        }
    }
    if sum.requested > 1 {
        match output.json {
            true => eprintln!("{}", sum.line("restored")),
            false if !output.quiet => {
                printed = printed.and_then(|()| report.line(&sum.line("restored")));
            }
            false => {}
        }
    }
    printed?;
    Ok(match sum.failed {
        0 => Exit::Done,
        _ => Exit::Partial,
    })
}

/// Returns whether a path from the command line names a directory to restore files into.
fn is_folder(typed: &Path) -> bool {
    typed.as_os_str().as_bytes().ends_with(b"/") || typed.is_dir()
}

/// The options and folders that all files of a run share.
struct RestoreContext<'c> {
    stored_files: StoredFiles,
    journal: Journal,
    config: &'c Config,
    marks: RestoreMarks,
    to: Option<PathBuf>,
    /// `to` is a directory.
    to_folder: bool,
    /// Restores to the names of the targets, if the command line asks for that.
    targets: Option<TargetRestorer<'c>>,
}

impl RestoreContext<'_> {
    /// Restores the file that `which` names, and the other members of its set. Returns no event if they were restored
    /// because of another argument.
    fn restore(&mut self, which: &Path) -> Result<Vec<Event>, Failure> {
        let Some((place, root, set)) = self.stored_files.take(which)? else {
            return Ok(Vec::new());
        };
        let restored = self.restore_set(root, &set);
        if restored.is_ok() {
            self.stored_files.note_restored(place, &set);
        }
        restored
    }

    /// Restores a set from the quarantine of `root`.
    fn restore_set(&mut self, root: PathBuf, set: &StoredSet) -> Result<Vec<Event>, Failure> {
        let quarantine = match Quarantine::open_existing(&root, None) {
            Ok(Some(quarantine)) => quarantine,
            _ => {
                let what =
                    format!("the quarantine of {root:?} no longer exists; nothing can be restored");
                return Err(Failure::failed(what));
            }
        };
        check_complete(&quarantine, &root, set)?;
        self.check_apart(&quarantine, set)?;
        let to = match &mut self.targets {
            Some(targets) => targets.restore(&quarantine, set, &self.marks)?,
            None => self.move_back(&quarantine, set)?,
        };
        let (parent, name) = (to.parent(), to.file_name());
        let (parent, name) = (parent.unwrap_or(Path::new("")), name.unwrap_or_default());
        let event = |stored: &Stored| Event::Restored {
            subject: Subject {
                path: parent.join(set.name_beside(stored, name)),
                root: root.clone(),
                size: Some(stored.seen.size()),
            },
            id: stored.id.clone(),
        };
        let events: Vec<Event> = set.members().into_iter().map(event).collect();
        let now = clock::wall();
        let lines = events.iter().map(|event| json::event(event, now));
        self.journal.write(LineKind::Outcome, lines);
        Ok(events)
    }

    /// Returns the rule of the directory that a set comes from. It may trust its file system, and knows its companions.
    fn policy_of(&self, quarantine: &Quarantine, set: &StoredSet) -> Policy {
        let from = quarantine.root().path().join(parent_of(&set.main.below));
        self.config.policy_in(from).unwrap_or_default()
    }

    /// Refuses the main file of a set if its companions may be in the quarantine apart from it: a killed orphand moved them
    /// one by one, on a file system that does not show which set they belong to.
    fn check_apart(&self, quarantine: &Quarantine, set: &StoredSet) -> Result<(), Failure> {
        let (main, root) = (&set.main, quarantine.root().path());
        let policy = self.policy_of(quarantine, set);
        let apart = quarantine.companions_apart(set, &policy.names);
        let apart = apart.map_err(|error| not_restored(main, &root.join(&main.below), error))?;
        match rule!("companions-apart-stop-a-restore", !apart.is_empty()) {
            false => Ok(()),
            true => Err(Failure::failed(format!(
                "cannot restore {}: files that may be parts of it are in the quarantine apart from it; to restore them \
                 to another directory first: {}",
                main.id,
                Suggestion::new("restore")
                    .configured()
                    .flag("--to DIR/", true)
                    .args(apart)
            ))),
        }
    }

    /// Moves a file with its companions to its old path or to the path of the command line, and returns that path.
    fn move_back(&self, quarantine: &Quarantine, set: &StoredSet) -> Result<PathBuf, Failure> {
        let below = &set.main.below;
        let to = match &self.to {
            Some(to) if self.to_folder => to.join(below.file_name().unwrap_or_default()),
            Some(to) => to.clone(),
            None => quarantine.root().path().join(below),
        };
        let policy = self.policy_of(quarantine, set);
        let dir = match self.to {
            Some(_) => Dir::open_root(parent_of(&to), None),
            // The old path is below the root, so no symlink may lead out of the root. A path that the user gives may
            // contain symlinks.
            None => {
                let (root, parent) = (quarantine.root(), parent_of(below));
                Dir::open_below(root.path(), Some(root.id()), parent)
            }
        };
        let name = to
            .file_name()
            .ok_or_else(|| Failure::new(Exit::Usage, format!("{to:?} is not a path for a file")))?;
        let dir = dir.map_err(|error| no_directory(&set.main, &to, &error))?;
        let mark = marking(&self.marks, &to);
        let restored = quarantine.restore_set(set, dir.fd().as_fd(), name, mark, &policy);
        restored.map_err(|error| set_not_restored(set, &to, error))?;
        Ok(to)
    }
}

/// Returns the directory of a path.
fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Refuses a set of which a killed orphand has moved only a part.
fn check_complete(quarantine: &Quarantine, root: &Path, set: &StoredSet) -> Result<(), Failure> {
    let main = &set.main;
    let left = quarantine.has_left_claims(set);
    let is_left =
        left.map_err(|error| not_restored(main, &root.join(&main.below), io::Error::other(error)))?;
    match rule!("incomplete-set-is-not-restored", is_left) {
        false => Ok(()),
        true => Err(Failure::failed(format!(
            "cannot restore {}: orphand was killed while it moved this file, and companions of it are still in \
                 their directory; to move them too: {}",
            main.id,
            Suggestion::new("sweep")
                .flag("-r", true)
                .configured()
                .arg(root)
        ))),
    }
}

/// The files in all quarantines that were found, by id and by path.
struct StoredFiles {
    quarantines: Quarantines,
    /// One item per quarantine.
    indexes: Vec<QuarantineIndex>,
    /// The places of the sets with companions that were restored.
    restored: HashSet<Place>,
    /// The places of the sets that were taken out and not restored, with the ids of their main files.
    failed: HashMap<Place, String>,
}

/// The index of a quarantine, and the position of a set in it.
type Place = (usize, usize);

struct QuarantineIndex {
    /// All paths under which the root was found.
    paths: Vec<PathBuf>,
    /// The files with their companions; `None` for those that this run has already restored.
    stored: Vec<Option<StoredSet>>,
    /// The positions of all files, by their ids. A companion has the position of its temp.
    by_id: HashMap<String, usize>,
    /// The positions of the files that had the same path below the root, the oldest first.
    by_path: HashMap<PathBuf, Vec<usize>>,
}

impl StoredFiles {
    fn read(quarantines: Quarantines) -> StoredFiles {
        quarantines.report_failures();
        let read = |paths: &Vec<PathBuf>| {
            let root = paths.first()?;
            let quarantine = Quarantine::open_existing(root, None).ok()??;
            let stored = match quarantine.stored() {
                Ok(stored) => stored,
                Err(error) => {
                    let root = text::escaped(root);
                    log::error!("cannot read the quarantine of {root}: {error}");
                    return None;
                }
            };
            let mut files = QuarantineIndex {
                paths: paths.clone(),
                by_id: HashMap::new(),
                by_path: HashMap::new(),
                stored: Vec::new(),
            };
            for (index, set) in StoredSet::group(stored).into_iter().enumerate() {
                for one in set.members() {
                    files.by_id.insert(one.id.clone(), index);
                    let of_path = files.by_path.entry(one.below.clone());
                    of_path.or_default().push(index);
                }
                files.stored.push(Some(set));
            }
            Some(files)
        };
        let indexes = quarantines.found.iter().filter_map(read).collect();
        StoredFiles {
            quarantines,
            indexes,
            restored: HashSet::new(),
            failed: HashMap::new(),
        }
    }

    /// Notes that a set that was taken out is restored.
    fn note_restored(&mut self, place: Place, set: &StoredSet) {
        self.failed.remove(&place);
        if !set.companions.is_empty() {
            self.restored.insert(place);
        }
    }

    /// Takes out the file that `which` names by its id or by its old path, with the other members of its set. Returns
    /// them with their place and the path of their root, or `None` if another argument named a member of the same set,
    /// which was restored.
    fn take(&mut self, which: &Path) -> Result<Option<(Place, PathBuf, StoredSet)>, Failure> {
        let id = which.to_str().filter(|id| is_id(id));
        let path = absolute(which);
        let mut found = Vec::new();
        for (number, files) in self.indexes.iter().enumerate() {
            let by_id = id.and_then(|id| Some((files.paths.first()?, *files.by_id.get(id)?)));
            let by_path = |root: &'_ PathBuf| {
                // If several files had the same path, the newest is meant.
                let all = files.by_path.get(path.strip_prefix(root).ok()?)?;
                let is_stored =
                    |index: &&usize| files.stored.get(**index).is_some_and(Option::is_some);
                let newest = all.iter().rev();
                newest
                    .clone()
                    .find(is_stored)
                    .or(newest.clone().next())
                    .copied()
            };
            let by_path = || {
                files
                    .paths
                    .iter()
                    .find_map(|root| Some((root, by_path(root)?)))
            };
            if let Some((root, index)) = by_id.or_else(by_path) {
                found.push((number, root.clone(), index));
            }
        }
        let nothing = format!(
            "no file in quarantine has the id or path {which:?} ({}); to list the files: {}",
            self.quarantines.searched(),
            Suggestion::new("quarantine list").configured()
        );
        match (found.len(), found.pop()) {
            (1, Some((number, root, index))) => {
                let slot = self.indexes.get_mut(number);
                let slot = slot.and_then(|files| files.stored.get_mut(index));
                let place = (number, index);
                if let Some(set) = slot.and_then(Option::take) {
                    self.failed.insert(place, set.main.id.clone());
                    return Ok(Some((place, root, set)));
                }
                if self.restored.contains(&place) {
                    return Ok(None);
                }
                Err(Failure::failed(match self.failed.get(&place) {
                    Some(main) => format!(
                        "cannot restore {which:?}: the attempt for another argument, which names the same file or \
                             set ({main}), has failed"
                    ),
                    None => nothing,
                }))
            }
            (0, _) | (_, None) => Err(Failure::failed(nothing)),
            (_, Some(_)) => Err(Failure::failed(format!(
                "{which:?} exists in more than one quarantine; name the file by its old path"
            ))),
        }
    }
}

/// Returns the line about a stored file that was copied, and not moved, for people.
fn copied_line(event: &Event) -> Option<String> {
    let Event::Restored { subject, id } = event else {
        return None;
    };
    let time = moment::local(&json::time(clock::wall()), "%H:%M:%S");
    let path = text::escaped(&subject.path);
    let size = subject.size.map(|size| text::size(size.bytes));
    let size = size.unwrap_or_default();
    Some(format!(
        "{time}  copied   {path:<24} {size:>8}  {id} is still in the quarantine"
    ))
}

/// Returns the line about a file in quarantine, for people.
pub(crate) fn stored_line(root: &Path, stored: &Stored) -> String {
    let bytes = text::size(stored.seen.fingerprint.size);
    let age = text::span(clock::wall().since(stored.since()));
    let path = text::escaped(&root.join(&stored.below));
    format!("{:<16}  {bytes:>8}  {age:>8}  {path}", stored.id)
}
