//! `orphand restore`: moves files out of the quarantine, to their old paths or elsewhere, or copies them to the names of
//! their targets. It never overwrites a file.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use orphand::core::event::{Event, Subject};
use orphand::core::observation::Observation;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::fs::dir::Dir;
use orphand::fs::root::absolute;
use orphand::reap::quarantine::{Quarantine, Stored, is_id};
use orphand::store::folders::Folders;
use orphand::store::journal::{Journal, LineKind};
use orphand::store::json;
use orphand::sys::clock;

use super::restore_target::TargetRestorer;
use super::restored_file::{marking, not_restored};
use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::event_printer::EventPrinter;
use crate::cli::output::shell::Suggestion;
use crate::cli::output::text;
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
        targets: command.as_target.then(|| TargetRestorer::new(config)),
        journal,
    };
    let mut report = EventPrinter::new(output, Vec::new());
    let mut sum = QuarantineSum {
        requested: command.which.len(),
        ..QuarantineSum::default()
    };
    // A closed pipe does not stop the command.
    let mut printed = Ok(());
    for which in &command.which {
        match context.restore(which) {
            Ok(event) => {
                sum.done += 1;
                printed = printed.and_then(|()| report.event(&event));
            }
            Err(failure) if sum.requested == 1 => return Err(failure),
            Err(failure) => {
                sum.failed += 1;
                log::error!("{}", failure.text);
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
struct RestoreContext {
    stored_files: StoredFiles,
    journal: Journal,
    marks: RestoreMarks,
    to: Option<PathBuf>,
    /// `to` is a directory.
    to_folder: bool,
    /// Restores to the names of the targets, if the command line asks for that.
    targets: Option<TargetRestorer>,
}

impl RestoreContext {
    fn restore(&mut self, which: &Path) -> Result<Event, Failure> {
        let (root, stored) = self.stored_files.take(which)?;
        let quarantine = match Quarantine::open_existing(&root, None) {
            Ok(Some(quarantine)) => quarantine,
            _ => {
                let what =
                    format!("the quarantine of {root:?} no longer exists; nothing can be restored");
                return Err(Failure::new(Exit::Failed, what));
            }
        };
        let (to, seen) = match &mut self.targets {
            Some(targets) => targets.restore(&quarantine, &stored, &self.marks)?,
            None => self.move_back(&quarantine, &stored)?,
        };
        let event = Event::Restored {
            subject: Subject {
                path: to,
                root,
                size: Some(seen.size()),
            },
            id: stored.id,
        };
        let line = json::event(&event, clock::wall());
        self.journal.write(LineKind::Outcome, &[line]);
        Ok(event)
    }

    /// Moves `stored` to its old path or to the path of the command line, and returns that path.
    fn move_back(
        &self,
        quarantine: &Quarantine,
        stored: &Stored,
    ) -> Result<(PathBuf, Observation), Failure> {
        let to = match &self.to {
            Some(to) if self.to_folder => to.join(stored.below.file_name().unwrap_or_default()),
            Some(to) => to.clone(),
            None => quarantine.root().path().join(&stored.below),
        };
        let seen = move_back(quarantine, stored, &to, self.to.is_none(), &self.marks)?;
        Ok((to, seen))
    }
}

fn move_back(
    quarantine: &Quarantine,
    stored: &Stored,
    to: &Path,
    to_old_path: bool,
    marks: &RestoreMarks,
) -> Result<Observation, Failure> {
    let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
        return Err(Failure::new(
            Exit::Usage,
            format!("{to:?} is not a path for a file"),
        ));
    };
    // The old path is below the root, so no symlink may lead out of the root. A path that the user gives may contain
    // symlinks.
    let dir = match to_old_path {
        true => {
            let below = stored.below.parent().unwrap_or(Path::new(""));
            Dir::open_below(
                quarantine.root().path(),
                Some(quarantine.root().id()),
                below,
            )
        }
        false => Dir::open_root(parent, None),
    };
    let dir = dir.map_err(|error| not_restored(stored, to, io::Error::other(error)))?;
    let mark = marking(marks, to);
    let restored = quarantine.restore(stored, dir.fd().as_fd(), name, mark);
    restored.map_err(|error| not_restored(stored, to, error))
}

/// The files in all quarantines that were found, by id and by path.
struct StoredFiles {
    quarantines: Quarantines,
    /// One item per quarantine.
    indexes: Vec<QuarantineIndex>,
}

struct QuarantineIndex {
    /// All paths under which the root was found.
    paths: Vec<PathBuf>,
    /// The files; `None` for a file that this run has already restored.
    stored: Vec<Option<Stored>>,
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
            for (index, one) in stored.into_iter().enumerate() {
                files.by_id.insert(one.id.clone(), index);
                let of_path = files.by_path.entry(one.below.clone());
                of_path.or_default().push(index);
                files.stored.push(Some(one));
            }
            Some(files)
        };
        let indexes = quarantines.found.iter().filter_map(read).collect();
        StoredFiles {
            quarantines,
            indexes,
        }
    }

    /// Takes out the file that `which` names by its id or by its old path. Returns the file and the path of its root.
    fn take(&mut self, which: &Path) -> Result<(PathBuf, Stored), Failure> {
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
                all.iter().rev().find(is_stored).copied()
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
                let one = slot.and_then(Option::take);
                let one = one.ok_or_else(|| Failure::new(Exit::Failed, nothing))?;
                Ok((root, one))
            }
            (0, _) | (_, None) => Err(Failure::new(Exit::Failed, nothing)),
            (_, Some(_)) => Err(Failure::new(
                Exit::Failed,
                format!(
                    "{which:?} exists in more than one quarantine; name the file by its old path"
                ),
            )),
        }
    }
}

/// Returns the line about a file in quarantine, for people.
pub(crate) fn stored_line(root: &Path, stored: &Stored) -> String {
    let bytes = text::size(stored.seen.fingerprint.size);
    let age = text::span(clock::wall().since(stored.since()));
    let path = text::escaped(&root.join(&stored.below));
    format!("{:<16}  {bytes:>8}  {age:>8}  {path}", stored.id)
}
