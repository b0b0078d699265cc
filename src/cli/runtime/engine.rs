//! The engine of a command that runs without a watcher.

use orphand::engine::{Engine, TrackedSets};
use orphand::evidence::container_pids::ContainerPids;
use orphand::evidence::locks::Locks;
use orphand::evidence::restore_marks::RestoreMarks;
use orphand::evidence::siblings::Listings;
use orphand::evidence::writer_names::WriterNames;
use orphand::reap::Reaper;
use orphand::store::folders::Folders;
use orphand::store::journal::Journal;

use crate::cli::exit::Failure;

/// Returns the engine of a command that runs without a watcher.
pub(crate) fn engine(folders: &Folders, verbose: bool) -> Result<Engine, Failure> {
    let state = folders.state.as_deref();
    Ok(Engine {
        reaper: Reaper::new(),
        journal: Journal::new(state),
        marks: RestoreMarks::new(state),
        writers: WriterNames::default(),
        container_pids: ContainerPids::default(),
        locks: Locks::default(),
        listings: Listings::default(),
        sets: TrackedSets::default(),
        verbose,
    })
}
