//! `orphand quarantine`: lists the files in quarantine, and deletes them.

mod list;
mod purge;

use std::fs;
use std::path::{Path, PathBuf};

use orphand::fs::dir::RootError;
use orphand::fs::response;
use orphand::fs::root::{Refused, absolute};
use orphand::reap::quarantine::{FOLDER, Quarantine, Stored};
use orphand::store::journal::Journal;

use crate::cli::config::Config;
use crate::cli::exit::{Exit, Failure};
use crate::cli::options::OutputOptions;
use crate::cli::output::text;
use crate::cli::runtime::dir_filter::DirFilter;
use crate::cli::runtime::plan::missing;
use crate::cli::runtime::quarantines::Quarantines;

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
        QuarantineCommand::List(options) => list::run(options, output),
        QuarantineCommand::Purge(command) => purge::run(command, output),
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

/// Returns the quarantines of the directories that the user named, or all known ones if there are none.
fn find(dirs: &[PathBuf], config: &Config, journal: &Journal) -> Quarantines {
    match dirs.is_empty() {
        true => Quarantines::known(config, journal, None),
        false => Quarantines::enclosing(dirs.iter().map(|dir| absolute(dir))),
    }
}

/// Returns the test whether `filter` matches the old path of a stored file of `root`.
fn is_from(root: &Path, filter: &DirFilter) -> impl Fn(&Stored) -> bool {
    // The directory may be given by another path than that of the quarantine.
    let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    move |one| filter.matches(&root.join(&one.below)) || filter.matches(&real.join(&one.below))
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
        let filter = DirFilter::new(std::slice::from_ref(dir));
        if !stored.iter().any(|path| filter.matches(path)) {
            return Err(failure);
        }
    }
    Ok(())
}
